"""Install each archive in an environment of its own, and measure something: `python -m release.trial dist`."""

import subprocess
import sys
import tempfile
from pathlib import Path

from colab.environment import fresh

MEASURE = """
import pathlib, torch, gradconf
loss_fn = torch.nn.CrossEntropyLoss(reduction="none")
samples = torch.nn.Linear(3, 2).double(), loss_fn, torch.eye(3).double(), torch.tensor([0, 1, 1])
difference = (gradconf.gram(*samples) - gradconf.reference.gram(*samples)).abs().max()
assert difference < 1e-12
assert len(list(gradconf.results.ledger("01_concept"))) > 0
assert pathlib.Path(gradconf.__file__).with_name("py.typed").exists()
print(f"its Gram matrix differs from the reference by {difference:.0e}")
"""


def main() -> None:
    """Try the wheel and the sdist of a folder."""
    for pattern in ("*.whl", "*.tar.gz"):
        (archive,) = Path(sys.argv[1]).resolve().glob(pattern)
        with tempfile.TemporaryDirectory() as name:
            try_out(archive, Path(name))


def try_out(archive: Path, folder: Path) -> None:
    """Install an archive in a fresh environment, and use it from an empty folder."""
    python, empty = fresh(folder / "environment", Path(sys.executable)), folder / "empty"
    empty.mkdir()
    steps = (["-m", "pip", "install", "-q", archive], ["-m", "gradconf", "--version"], ["-c", MEASURE])
    said = [subprocess.run([python, *step], cwd=empty, check=True, capture_output=True, text=True) for step in steps]
    version = said[1].stdout.strip()
    if not archive.name.startswith(version.replace(" ", "-")):
        sys.exit(f"{archive.name} says that it is {version}.")
    print(f"{archive.name}: {version}, {said[2].stdout.strip()}")


if __name__ == "__main__":
    main()
