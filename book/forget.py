"""Forget what the chapters once showed if the package has changed: jupyter-cache knows the notebooks alone."""

import hashlib
import shutil
from pathlib import Path

CACHE, STAMP = Path("_build/.jupyter_cache"), Path("_build/.package")


def main() -> None:
    """Compare names and contents of the package's files with those of the last build."""
    files = [path for path in Path("gradconf").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    digest = hashlib.sha256()
    for path in [*sorted(files), Path("constraints.txt")]:
        digest.update(f"{path}\0".encode() + path.read_bytes())
    if not STAMP.exists() or STAMP.read_text() != digest.hexdigest():
        shutil.rmtree(CACHE, ignore_errors=True)
        STAMP.parent.mkdir(exist_ok=True)
        STAMP.write_text(digest.hexdigest())


if __name__ == "__main__":
    main()
