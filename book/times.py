"""Print what the chapters of the built book took, beside their budgets; a report, not a check."""

import re
from pathlib import Path

BUDGETS = {"01_concept": 60, "02_width": 90, "03_depth": 90, "04_batchnorm_skip": 90}  # seconds on two cores
SPENT = re.compile(r"This took (\d+) s, (.*)\.")


def main() -> None:
    """Look for the line that `gradconf.spent` printed in each executed chapter."""
    for name, budget in BUDGETS.items():
        found = SPENT.search(executed(name))
        took = f"{found[1]} s of {budget} s, {found[2]}" if found else "not executed yet"
        print(f"{name}: {took}")


def executed(name: str) -> str:
    """Return the page of a chapter, which has its output whether it was executed now or before."""
    path = Path(f"_build/html/chapters/{name}.html")
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    main()
