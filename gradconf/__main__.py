"""`python -m gradconf`: what to tell in a bug report; `--version`: the version alone; `sweep FILE`: many runs."""

import argparse

from gradconf import __version__, setup
from gradconf.sweeps.cli import add_parser


def main() -> None:
    """Print the version, or all versions and the device, or run a sweep."""
    parser = argparse.ArgumentParser(
        prog="gradconf",
        description="Without a command: print the versions and the device that gradconf would compute with.",
    )
    parser.add_argument("--version", action="version", version=f"gradconf {__version__}")
    parser.set_defaults(command=lambda asked: setup())
    add_parser(parser.add_subparsers(title="commands"))
    asked = parser.parse_args()
    asked.command(asked)


if __name__ == "__main__":
    main()
