"""`python -m gradconf`: what to tell in a bug report; `python -m gradconf --version`: the version alone."""

import argparse

from gradconf import __version__, setup


def main() -> None:
    """Print the version, or all versions and the device."""
    parser = argparse.ArgumentParser(
        prog="gradconf", description="Print the versions and the device that gradconf would compute with."
    )
    parser.add_argument("--version", action="version", version=f"gradconf {__version__}")
    parser.parse_args()
    setup()


if __name__ == "__main__":
    main()
