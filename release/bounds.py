"""Print the lower bounds of `pyproject.toml` as exact versions, for `make minimum`: `python -m release.bounds`."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    """Print a line a dependency, but for torch, of which old builds are not to be had everywhere."""
    print("\n".join(pin for pin in pins(PROJECT.read_text(encoding="utf-8")) if not pin.startswith("torch==")))


def pins(project: str) -> list[str]:
    """Return `name==version` for every dependency of a project."""
    return [re.sub(r"\s*>=\s*", "==", text) for text in tomllib.loads(project)["project"]["dependencies"]]


if __name__ == "__main__":
    main()
