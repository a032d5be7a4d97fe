"""A table on disk, a row a line in JSON, that survives being stopped at any moment."""

import json
import os
import stat
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second writer away
    fcntl = None  # type: ignore[assignment]

Row = dict[str, Any]


def read_table(path: str | Path) -> list[Row]:
    """Read the rows of a table, also while it is being written.

    Args:
        path: of a file with one JSON object a line.

    Returns:
        Its rows; a last line that was cut off is left out. There are none if there is no file.

    Raises:
        ValueError: if another line is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = [_parsed(line) for line in lines]
    for number, (line, row) in enumerate(zip(lines[:-1], rows, strict=False), start=1):
        if line.strip() and row is None:
            raise ValueError(
                f"line {number} of {path} is no row of results: mend or remove it, or choose another file."
            )
    return [row for row in rows if row is not None]


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.keys() >= {"key", "status"} else None


class Table:
    """A table that is open for writing, to be used with `with`."""

    def __init__(self, path: str | Path) -> None:
        """Open a table, making the file and its folder where they are missing, and mend a last line that was cut off.

        Args:
            path: of the file.

        Raises:
            OSError: if it cannot be written, or another process is writing it.
            ValueError: if it is no table.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = _locked(self.path)
        except BlockingIOError:
            raise OSError(f"another process is writing {path}: wait for it, or choose another file.") from None
        except OSError as error:
            raise type(error)(f"{path} cannot be written ({error.strerror}): choose another file.") from error
        try:
            self.rows = read_table(self.path)
            self._mend()
        except BaseException:
            os.close(self.file)
            raise

    def __enter__(self) -> "Table":
        """Return the table."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file, which lets another process write it."""
        os.close(self.file)

    def append(self, row: Row) -> None:
        """Write a row, so that it is on disk when this returns.

        Args:
            row: for JSON.

        Raises:
            OSError: if it could not be written; the table holds the rows that it held before.
        """
        line = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self.file).st_size
        try:
            _write(self.file, line)
        except OSError as error:
            self._cut(size)
            raise type(error)(
                f"a result could not be written to {self.path} ({error.strerror}); the {len(self.rows)} rows in it are "
                f"whole: make room and start again, and what is missing will be run."
            ) from error
        self.rows.append(row)

    def keep(self, rows: Iterable[Row]) -> None:
        """Replace all rows at once, or, should that be interrupted, none.

        Args:
            rows: that the table shall hold.
        """
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.unlink(missing_ok=True)
        new = Table(beside)
        try:
            for row in rows:
                new.append(row)
            os.replace(beside, self.path)
        except BaseException:
            os.close(new.file)
            beside.unlink(missing_ok=True)
            raise
        os.close(self.file)
        self.file, self.rows = new.file, new.rows

    def _mend(self) -> None:
        """Cut off a last line without an end, or end it if it is whole."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        torn = content[content.rfind(b"\n") + 1 :]
        if torn and _parsed(torn) is not None:
            _write(self.file, b"\n")
        elif torn:
            self._cut(len(content) - len(torn))

    def _cut(self, size: int) -> None:
        if self.path.is_file():
            os.ftruncate(self.file, size)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
    if stat.S_ISREG(os.fstat(file).st_mode):
        os.fsync(file)


def _locked(path: Path) -> int:
    """Open a file and lock it, where that is possible, until it is the one that bears the name."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _lock(file, path)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        warnings.warn(f"{path} is where no file can be locked: let only one process write it.", stacklevel=4)
