"""Write `book/claims.md` from the stored results, and say which are older than their definition."""

from collections.abc import Sequence
from dataclasses import replace

from claims.run import ROOT, TEXT, definition, read_entries
from gradconf.results import Ledger, at_scale, ledger, verdicts
from gradconf.results.figures import FIGURES

PAGE = ROOT / "book" / "claims.md"
INTRODUCTION = """\
# The claims ledger

Every claim of the paper that this course can test, what we measured, and a verdict that a rule computes from the
measured values. Nobody types a verdict. `make claims ALL=1` measures again. The networks are small and the data are
MNIST-1D or random, so *not at this scale* means what it says: the effect did not show here, in either direction.

**The rule.** A claim has one or more checks, the lines that begin with a mark. A check that something rises or falls is
✔ reproduced if its mean change over the seeds is at least the tolerance and more than two standard errors from zero;
✘ contradicted if the same holds of the opposite change; ○ undecided otherwise. A limit is kept if it is kept in every
seed, and broken if it is broken in every seed. Something stays if its mean change, give or take two standard errors, is
within the tolerance, and does not if it is outside; *does not rise* and *does not fall* are the same for one direction
of change. With a run that diverged before it could be measured nothing is
decided. A claim is *reproduced* if all its checks are, *partly* if some are, else *contradicted* if
one is, else *not at this scale*. Tolerances are in `book/claims.yml`: 0.1 for cosines, 0.03 for the standard deviation
of cosines (0.05 where it is to stay), 0.2 for a loss, powers of ten 1 for toy problems and 0.3 for networks.
"""


SCALE = """\
Convolutional networks on photographs, from stored results of [sweeps](scale.md), which says where, when and with what
each was run. The rule is the same, with a tolerance of 0.05 for an accuracy. A *reduced set* is far from the paper's
size, and its verdict is about that set alone; with two or three seeds it says little. A claim is *not run yet* until
both ends of what is varied were run with two seeds, for every network that it compares.
"""


def main() -> None:
    """Write the page."""
    text, old = page()
    PAGE.write_text(text, encoding="utf-8")
    for name in old:
        print(f"claims: the result of {name} is older than its definition or missing; run: make claims")


def page() -> tuple[str, list[str]]:
    """Return the page, and the claims whose result is older than their definition or missing."""
    entries, stored = read_entries(), {claim.id: claim for claim in ledger()}
    old = [entry["id"] for entry in entries if _is_old(entry, stored)]
    claims = tuple(_claim(entry, stored) for entry in entries)
    shown = Ledger(claims, ledger().again)
    parts = [INTRODUCTION]
    for chapter in dict.fromkeys(claim.chapter for claim in claims):
        some = Ledger(tuple(claim for claim in claims if claim.chapter == chapter), shown.again)
        parts += [f"## {TITLES[chapter]}\n", "\n".join(some.rows(links=True)), ""]
    parts += ["## At the paper's scale\n", SCALE, "\n".join(scaled().rows(links=True)), ""]
    parts += ["## How it was measured\n", shown.measured_on(), "", _again(shown), ""]
    if old:
        parts += [f"Older than their definition, or not run yet: {', '.join(old)}.", ""]
    return "\n".join(parts), old


def scaled() -> Ledger:
    """Return the claims of the paper's figures of trained networks: at its own size, the one shown, and the reduced."""
    sizes = [(name, size) for name in FIGURES for size in dict.fromkeys(("full", at_scale(name).size, "cpu"))]
    return Ledger(tuple(claim for name, size in sizes for claim in at_scale(name, size=size).claims), {})


TITLES = {
    "01_concept": "The concept",
    "02_width": "Width",
    "03_depth": "Depth",
    "04_batchnorm_skip": "Batch norm with skip connections",
}


def _is_old(entry: dict, stored: dict[str, verdicts.Claim]) -> bool:
    return entry["id"] not in stored or stored[entry["id"]].hash != definition(entry)


def _claim(entry: dict, stored: dict[str, verdicts.Claim]) -> verdicts.Claim:
    told = {name: entry[name] for name in TEXT}
    nothing = verdicts.Claim(**told, id=entry["id"], seeds=(), checks=(), provenance={}, hash="")
    return replace(stored.get(entry["id"], nothing), **told)


def _again(shown: Ledger) -> str:
    both = [(claim, shown.again[claim.id]) for claim in shown.claims if claim.id in shown.again]
    if not both:
        return "It has not been run with other seeds yet."
    kept = [claim for claim, other in both if claim.verdict == other.verdict == verdicts.REPRODUCED]
    reproduced = [claim for claim, _ in both if claim.verdict == verdicts.REPRODUCED]
    changed = [
        f"{claim.id} ({claim.verdict}, then {other.verdict})" for claim, other in both if claim.verdict != other.verdict
    ]
    text = (
        f"Everything was run a second time with the seeds {_listed(both[0][1].seeds)} instead of "
        f"{_listed(both[0][0].seeds)}: {len(kept)} of {len(reproduced)} reproduced claims were reproduced "
        f"again."
    )
    return f"{text} Other verdicts: {'; '.join(changed)}." if changed else f"{text} No verdict changed."


def _listed(seeds: Sequence[int]) -> str:
    if list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    main()
