"""Check type hints against the oldest torch that `pyproject.toml` allows: `python -m release.oldest_torch`.

Its smallest archive is used, which is for another system: nothing of it is run, but every function that gradconf calls
must be there, with the arguments that it is called with.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from colab.environment import fresh
from release.bounds import PROJECT, pins

PLATFORM = "macosx_11_0_arm64"  # 64 MB; those for Linux bring CUDA along


def main() -> None:
    """Fetch the archive, lay its sources over those of the present torch, and run mypy."""
    (pin,) = (pin for pin in pins(PROJECT.read_text(encoding="utf-8")) if pin.startswith("torch=="))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = fresh(folder / "environment", Path(sys.executable))
        (packages,) = folder.glob("environment/lib/python3*/site-packages")
        lay(fetched(pin, folder), packages)
        checked = [sys.executable, "-m", "mypy", "--python-executable", python, "--cache-dir", folder / "cache"]
        sys.exit(subprocess.run([*checked, "--no-warn-unused-ignores"]).returncode)


def fetched(pin: str, folder: Path) -> Path:
    """Download the archive of one version."""
    options = ["--no-deps", "--only-binary=:all:", "--platform", PLATFORM, "--dest", folder]
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", *options, pin], check=True)
    (archive,) = folder.glob("torch-*.whl")
    return archive


def lay(archive: Path, packages: Path) -> None:
    """Unpack what mypy reads."""
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if name.endswith((".py", ".pyi", ".typed")):
                (packages / name).parent.mkdir(parents=True, exist_ok=True)
                with packed.open(name) as source, (packages / name).open("wb") as target:
                    shutil.copyfileobj(source, target)


if __name__ == "__main__":
    main()
