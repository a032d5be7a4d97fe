"""Commit and tag a release: `python -m release.prepare 0.2.0`, with `--dry-run` to see what would change.

Two commits are made. The first is the release: its notebooks install its own tag. The second lets them follow the
default branch again. Nothing is pushed.
"""

import argparse
import datetime
import difflib
import re
import subprocess
import sys
from pathlib import Path

from release.changes import edits, pinned

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Show or make a release."""
    parser = argparse.ArgumentParser(prog="release.prepare", description="Commit and tag a release.")
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
    options = parser.parse_args()
    if problem := refused(options.version):
        sys.exit(problem)
    try:
        texts = edits(ROOT, options.version, datetime.date.today(), notebooks())
    except ValueError as error:
        sys.exit(str(error))
    if options.dry_run:
        show(texts, options.version)
    else:
        make(texts, options.version)


def refused(version: str) -> str | None:
    """Return why there can be no such release now, if so."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"a version is three numbers, such as 0.2.0, not {version!r}."
    tags = [tag.removeprefix("v") for tag in git("tag", "--list", "v*").split()]
    later = [tag for tag in tags if numbers(tag) >= numbers(version)]
    if later:
        return f"{version} is not newer than {max(later, key=numbers)}, which has been released: choose a later one."
    if git("status", "--porcelain"):
        return "there are uncommitted changes: commit or stash them first."
    return None


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers in a version, to compare it with others."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def notebooks() -> list[Path]:
    """Return all notebooks under version control."""
    return [ROOT / name for name in git("ls-files", "*.ipynb").splitlines()]


def show(texts: dict[Path, str], version: str) -> None:
    """Print the changes, and what would be done with them."""
    for path, text in texts.items():
        name, old = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        print("\n".join(difflib.unified_diff(old.splitlines(), text.splitlines(), name, name, lineterm="", n=1)))
    print(f"Would commit this, tag it v{version}, and commit first cells that follow the default branch again.")


def make(texts: dict[Path, str], version: str) -> None:
    """Write the changes, commit and tag them, and let the notebooks follow the default branch again."""
    commit(texts, f"Release {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    commit(
        {path: pinned(path.read_text(encoding="utf-8"), "") for path in notebooks()},
        "Notebooks follow the default branch again",
    )
    print(f"Tagged v{version}. To publish it: git push --follow-tags, after a look at git show v{version}.")


def commit(texts: dict[Path, str], message: str) -> None:
    """Write files and commit them."""
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    git("commit", "--all", "--quiet", "--message", message)


def git(*command: str) -> str:
    """Return what a git command prints."""
    return subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
