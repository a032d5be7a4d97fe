"""Print what the change log says of a version: `python -m release.notes 0.2.0`."""

import re
import sys
from pathlib import Path

LOG = Path(__file__).parents[1] / "CHANGELOG.md"


def main() -> None:
    """Print the notes of the version on the command line."""
    try:
        print(notes(LOG.read_text(encoding="utf-8"), sys.argv[1]))
    except ValueError as error:
        sys.exit(str(error))


def notes(log: str, version: str) -> str:
    """Return what a change log says of a version.

    Raises:
        ValueError: if it does not know the version.
    """
    found = re.search(rf"^## {re.escape(version)} \(.*?\)\n(.*?)(?=^## |\Z)", log, re.M | re.S)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no section for {version}.")
    return found[1].strip()


if __name__ == "__main__":
    main()
