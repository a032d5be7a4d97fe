"""Fetch the scripts that pages need from npm, so that the site asks no other host for anything.

`make book` runs this. Without npm, or without a network, pages load the same scripts from a content delivery network,
as `local_scripts.py` beside this decides.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "_build" / "assets"
PACKAGES = {  # version and SHA-512 of the archive, as npm publishes it
    "mathjax": (
        "3.2.2",
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
    ),
    "@jupyter-widgets/html-manager": (
        "1.0.15",
        "5thBIV6ymNgmPVOHvzx+gGy8ZSKmSazhtGw4/c4xJDVzRhG9PTeQsRjF3FUTopvFi//SABeNz1yp47bCrJ3CQA==",
    ),
    "axe-core": (  # for tests/site alone
        "4.14.1",
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    ),
}


def main() -> None:
    """Fetch what is not there yet."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not installed: pages will load MathJax and the widgets from a content delivery network")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (version, digest) in PACKAGES.items():
        if not package(name).exists():
            _fetch(npm, f"{name}@{version}", digest, package(name).parent)


def package(name: str) -> Path:
    """Return the folder that a package's files are in, once it has been fetched."""
    return FOLDER / name.split("/")[-1] / PACKAGES[name][0] / "package"


def _fetch(npm: str, package: str, digest: str, target: Path) -> None:
    packed = subprocess.run([npm, "pack", "--silent", package], cwd=FOLDER, capture_output=True, text=True)
    if packed.returncode:
        instead = "make test-site needs it" if package.startswith("axe") else "pages will load it from elsewhere"
        print(f"npm could not fetch {package}, so {instead}: {packed.stderr}")
        return
    archive = FOLDER / packed.stdout.split()[-1]
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != digest:
        sys.exit(f"{package} is not the archive that was reviewed: its SHA-512 is {found}")
    with tarfile.open(archive) as packing:
        packing.extractall(target, filter="data")
    archive.unlink()


if __name__ == "__main__":
    main()
