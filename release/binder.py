"""Print the pip part of `environment.yml` as options of pip, for `make binder`: `python -m release.binder`."""

from pathlib import Path

import yaml

ENVIRONMENT = Path(__file__).parents[1] / "environment.yml"


def main() -> None:
    """Print the options in one line."""
    print(" ".join(pip_part(ENVIRONMENT.read_text(encoding="utf-8"))))


def pip_part(environment: str) -> list[str]:
    """Return what conda, and so Binder, hands to pip."""
    (part,) = (entry["pip"] for entry in yaml.safe_load(environment)["dependencies"] if isinstance(entry, dict))
    return part


if __name__ == "__main__":
    main()
