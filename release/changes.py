"""What a release changes in the repository, as new texts of its files."""

import datetime
import re
from pathlib import Path

FIRST_CELL = re.compile(r"(%pip install -q git\+https://github\.com/[^\s@\"\\]+)(@[^\s\"\\]+)?")


def edits(root: Path, version: str, day: datetime.date, notebooks: list[Path]) -> dict[Path, str]:
    """Return the files that a release changes, with their new texts.

    Args:
        root: of the repository.
        version: of the release.
        day: of the release.
        notebooks: whose first cells install this very release.

    Returns:
        New texts by path.

    Raises:
        ValueError: if the change log has nothing under "Unreleased", or a file lacks what has to change.
    """
    texts = {path: pinned(path.read_text(encoding="utf-8"), f"v{version}") for path in notebooks}
    one_line = {
        "gradconf/_version.py": (r"__version__ = .*", f'__version__ = "{version}"'),
        "CITATION.cff": (r"version: .*(\ndate-released: .*)?", f"version: {version}\ndate-released: {day}"),
        "book/citing.md": (
            r"  year   = \{\d+\},\n  note   = \{Version .*\},",
            f"  year   = {{{day.year}}},\n  note   = {{Version {version}}},",
        ),
    }
    for name, (pattern, line) in one_line.items():
        text = (root / name).read_text(encoding="utf-8")
        texts[root / name], found = re.subn(rf"^{pattern}$", line, text, flags=re.M)
        if found != 1:
            raise ValueError(f"{name} needs one line like {line!r}, and has {found}.")
    log = root / "CHANGELOG.md"
    texts[log] = dated(log.read_text(encoding="utf-8"), version, day)
    return texts


def pinned(text: str, tag: str) -> str:
    """Return a notebook whose first cell installs a tag, or the default branch where the tag is empty."""
    return FIRST_CELL.sub(rf"\1@{tag}" if tag else r"\1", text)


def dated(log: str, version: str, day: datetime.date) -> str:
    """Return a change log in which what was unreleased has a version and a date."""
    head, found, rest = log.partition("## Unreleased\n")
    if not found or not rest.split("\n## ")[0].strip():
        raise ValueError('CHANGELOG.md says nothing under "## Unreleased": write what is new before a release.')
    return f"{head}## Unreleased\n\n## {version} ({day})\n{rest}"
