"""Search what is published for what students must not find."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from grading.answers import answers
from grading.masters import MARK, handed_out_code, secrets
from grading.places import MASTERS, ROOT, assignments

SHORTEST = 40  # characters of a line that is like no other
TAG = re.compile(r"<[^>]*>")


def fingerprints() -> set[str]:
    """Return the mark, and the longest line of every solution, model answer, hidden test and prepared answer."""
    masters = [MASTERS / f"{name}.ipynb" for name in assignments()]
    passages = [passage for master in masters for passage in secrets(master)]
    passages += [answer.code for name in assignments() for listed in answers(name).values() for answer in listed]
    public = "\n".join(map(handed_out_code, masters))
    public += "".join(path.read_text(encoding="utf-8") for path in (ROOT / "chapters").glob("*.ipynb")).replace(
        '\\"', '"'
    )
    return {MARK} | {line for passage in passages if (line := _longest(passage, public))}


def leaks(folder: Path) -> list[str]:
    """Return where a folder holds something that students must not find."""
    searched = fingerprints()
    return sorted(
        f"{path.relative_to(folder)}: {line}" for path, text in _texts(folder) for line in searched if line in text
    )


def _texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file's text as a reader sees it: without tags, and without JSON's escapes."""
    for path in folder.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            text = path.read_bytes().decode(errors="ignore")
            if path.suffix == ".html":
                text = html.unescape(TAG.sub("", text))
            yield path, text.replace('\\"', '"').replace("\\\\", "\\")


def _longest(passage: str, public: str) -> str:
    """Return the longest line of a passage that stands nowhere else, "" if all such lines are short."""
    lines = (line.strip() for line in passage.splitlines())
    own = [line for line in lines if len(line) >= SHORTEST and line not in public]
    return max(own, key=len, default="")
