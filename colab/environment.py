"""A fresh environment that sees the packages of another one, and can change none of them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

SITES = {"site-packages", "dist-packages"}
SEARCHED = "import json, sys; print(json.dumps(sys.path))"
LISTED = "import importlib.metadata as m, json; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"


def fresh(folder: Path, python: Path) -> Path:
    """Make an environment on top of another one.

    Whatever is installed there shadows what lies below, as an upgrade would replace it.

    Args:
        folder: where to make it.
        python: of the environment below.

    Returns:
        Its Python.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    below = [path for path in _said(python, SEARCHED) if Path(path).name in SITES]
    (packages / "below.pth").write_text("\n".join(below) + "\n")
    return folder / "bin" / "python"


def installed(python: Path) -> dict[str, str]:
    """Return the version of every package that a Python sees, by its canonical name."""
    versions: dict[str, str] = {}
    for name, version in _said(python, LISTED):
        versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first on the path counts
    return versions


def _said(python: Path, script: str) -> list[Any]:
    done = subprocess.run([python, "-P", "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
