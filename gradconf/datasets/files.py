"""Files that are fetched once, kept, and never used unless their hash is right."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import pooch


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        name: of the file; `.gz` files are decompressed and may lie about decompressed, without that ending.
        url: where it is published.
        archive: hash of what that address delivers, `algorithm:digits`.
        sha256: hash of the content, decompressed if the name ends in `.gz` but not in `.tar.gz`.
    """

    name: str
    url: str
    archive: str
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names it may have on disk."""
        return (self.name,) if self.name.endswith(".tar.gz") else (self.name, self.name.removesuffix(".gz"))


def find(dataset: str, files: list[File], folder: Path | None) -> list[bytes]:
    """Return the contents of a data set's files from a folder, or from the cache after fetching what is missing.

    Args:
        dataset: name of the data set, and of its folder in the cache.
        files: what belongs to it.
        folder: where the files are; None for the cache.

    Returns:
        One content a file, decompressed, each with the right hash.

    Raises:
        FileNotFoundError: if a file is missing and cannot be fetched.
        ValueError: if a file's content has another hash.
    """
    home = folder or Path(pooch.os_cache("gradconf")) / dataset
    return [_checked(file, _locate(file, home, files, fetch=folder is None)) for file in files]


def _locate(file: File, home: Path, files: list[File], *, fetch: bool) -> Path:
    for name in file.names:
        if (home / name).is_file():
            return home / name
    reason = "it is not there"
    if fetch:
        try:
            return Path(pooch.retrieve(file.url, known_hash=file.archive, fname=file.name, path=home, progressbar=True))
        except (OSError, ValueError) as error:  # no network, no such page, or not the published file
            reason = f"fetching it failed ({type(error).__name__})"
    expected = ", ".join(f.name for f in files)
    raise FileNotFoundError(
        f"{file.name} is needed but {reason}: download it from {file.url} and put it into {home}, "
        f"or pass folder= with a folder that holds {expected}."
    )


def _checked(file: File, path: Path) -> bytes:
    content = path.read_bytes()
    try:
        if path.name.endswith(".gz") and not path.name.endswith(".tar.gz"):
            content = gzip.decompress(content)
        intact = hashlib.sha256(content).hexdigest() == file.sha256
    except (OSError, EOFError, zlib.error):
        intact = False
    if not intact:
        raise ValueError(f"{path} is corrupted, as its content has the wrong hash: delete it and get it again.")
    return content
