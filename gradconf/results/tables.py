"""The claims ledger as a table, for the book and for a chapter alone."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gradconf.results.verdicts import Claim, read

FOLDER = Path(__file__).parent
HERE, AGAIN = FOLDER / "claims.json", FOLDER / "claims_again.json"
MARKS = {"reproduced": "✔", "partly": "◐", "not at this scale": "○", "contradicted": "✘", "not run yet": "…"}


@dataclass(frozen=True)
class Ledger:
    """Claims, which a notebook shows as a table.

    Attributes:
        claims: in the order of the course.
        again: the same claims with other seeds, by id, where they were run.
    """

    claims: tuple[Claim, ...]
    again: dict[str, Claim]

    def __iter__(self) -> Iterator[Claim]:
        """Go through the claims."""
        return iter(self.claims)

    def _repr_markdown_(self) -> str:
        return "\n".join([*self.rows(), "", self.measured_on()])

    def rows(self, *, links: bool = False) -> list[str]:
        """Return the table, line by line, in Markdown.

        Args:
            links: whether claims link to the section of the course that treats them.

        Returns:
            Lines.
        """
        lines = ["| the paper says | we measured | verdict |", "| --- | --- | --- |"]
        for claim in self.claims:
            section = f"#{claim.section}" if claim.section else ""
            told, colon, rest = claim.claim.partition(": ")
            said = f"[{told}](../chapters/{claim.chapter}.ipynb{section}){colon}{rest}" if links else claim.claim
            other = self.again.get(claim.id)
            seeds = f" (other seeds: {other.verdict})" if other and other.verdict != claim.verdict else ""
            measured = "<br>".join(f"{MARKS[check.verdict]} {check}" for check in claim.checks)
            lines.append(f"| {said} ({claim.paper}) | {measured} | {judged(claim)}{seeds} |")
        return lines

    def measured_on(self) -> str:
        """Say in a sentence where and with what this was measured."""
        ran = [claim for claim in self.claims if claim.provenance]
        if not ran:
            return "Nothing has been run yet: `make claims`."
        where = Counter(
            f"{p['device']}, {p['threads']} thread{'s' if p['threads'] > 1 else ''}, torch {p['torch']}, "
            f"gradconf {p['gradconf']}, {p['date'][:10]}"
            for p in (claim.provenance for claim in ran)
        )
        seeds = Counter(len(claim.seeds) for claim in ran)
        many = " or ".join(str(number) for number in sorted(seeds))
        return f"Means ± standard deviations over {many} seeds. Measured on {'; '.join(where)}."


def judged(claim: Claim) -> str:
    """Return the verdict on a claim and the number of its seeds, in Markdown."""
    return f"{MARKS[claim.verdict]}\N{NO-BREAK SPACE}**{claim.verdict}**{f', {claim.counted}' if claim.counted else ''}"


def ledger(chapter: str | None = None) -> Ledger:
    """Return what was measured of the paper's claims.

    Args:
        chapter: notebook, such as `02_width`; all by default.

    Returns:
        The claims of which there are results.

    Raises:
        ValueError: if there is no claim of that chapter.
    """
    claims = _load(HERE)
    chosen = tuple(claim for claim in claims if chapter in (None, claim.chapter))
    if chapter is not None and not chosen:
        chapters = sorted({claim.chapter for claim in claims})
        raise ValueError(f"there is no claim of '{chapter}': choose one of {', '.join(chapters)}.")
    return Ledger(chosen, {claim.id: claim for claim in _load(AGAIN)})


def _load(path: Path) -> list[Claim]:
    return [read(record) for record in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
