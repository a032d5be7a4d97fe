"""Grids of configurations, written in Python or in a TOML file."""

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradconf.sweeps.configurations import REQUIRED, TYPES, Configuration

TEXTS = ("title", "source")


@dataclass(frozen=True)
class Sweep:
    """Configurations to run, most informative first.

    Attributes:
        name: of its file, such as `width`.
        configurations: no two of them equal.
        size: such as `full`, if the file has several.
        title: what is varied.
        source: of the experiment.
        note: what the size leaves out.
        sizes: all that the file has.
    """

    name: str
    configurations: tuple[Configuration, ...]
    size: str = ""
    title: str = ""
    source: str = ""
    note: str = ""
    sizes: tuple[str, ...] = ()


def expand(grid: Mapping[str, Any]) -> tuple[Configuration, ...]:
    """Return a configuration for every combination of values.

    Args:
        grid: a value for each attribute of `Configuration`, or a list of values; `decay_at`, which is a list, varies
            if it is a list of lists. The attribute that comes first varies slowest.

    Returns:
        The configurations, each once.

    Raises:
        TypeError: if a value has the wrong type.
        ValueError: if an attribute is unknown, missing or has no values, or a value is out of range.

    Example:
        >>> runs = expand({"model": "mlp", "depth": [2, 4], "width": 8, "dataset": "digits", "learning_rate": 0.1})
        >>> [run.depth for run in runs]
        [2, 4]
    """
    for name in grid:
        if name not in TYPES:
            raise ValueError(f"unknown key '{name}': choose from {', '.join(TYPES)}.")
    if missing := [name for name in REQUIRED if name not in grid]:
        raise ValueError(f"{', '.join(missing)} must be given.")
    axes = {name: _values(name, value) for name, value in grid.items()}
    rows = itertools.product(*axes.values())
    return tuple(dict.fromkeys(Configuration(**dict(zip(axes, row, strict=True))) for row in rows))


def read_sweep(path: str | Path, *, size: str | None = None, changes: Mapping[str, Any] | None = None) -> Sweep:
    """Read a sweep file.

    Such as this, where `[common]` holds for all sizes, and `[[small]]` several times would put runs together::

        title = "Depth"
        source = "Figure 2"

        [common]
        model = "cnn"
        width = 2
        dataset = "cifar10"

        [small]
        note = "20 epochs instead of 200"
        epochs = 20
        depth = [16, 22]
        learning_rate = [0.1, 0.03]

    Args:
        path: of the file.
        size: name of a table in it; the first, apart from `common`, by default.
        changes: values that hold instead of the file's.

    Returns:
        The sweep, its values as `expand` takes them.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: as in `expand`.
        ValueError: if the file is no TOML or has no such size, or as in `expand`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no sweep file {path}.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from error
    texts = {name: str(content.pop(name)) for name in TEXTS if name in content}
    common = _tables(path, "common", content.pop("common", {}))[0]
    sizes = {name: _tables(path, name, value) for name, value in content.items()}
    if not sizes:
        raise ValueError(f"{path} has no size: add a table such as [small], with what is to be run.")
    if size not in (None, *sizes):
        raise ValueError(f"{path} has no size '{size}': choose one of {', '.join(sizes)}.")
    chosen = size or next(iter(sizes))
    grids = [dict(grid) for grid in sizes[chosen]]
    notes = [str(note) for grid in grids if (note := grid.pop("note", None)) is not None]
    try:
        runs = [run for grid in grids for run in expand(common | grid | dict(changes or {}))]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}, {chosen}: {error}") from error
    return Sweep(path.stem, tuple(dict.fromkeys(runs)), chosen, note=" ".join(notes), sizes=tuple(sizes), **texts)


def _tables(path: Path, name: str, value: Any) -> list[dict[str, Any]]:
    tables = value if isinstance(value, list) else [value]
    if not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path}: '{name}' is neither a size nor one of {', '.join((*TEXTS, 'common'))}.")
    return tables


def _values(name: str, value: Any) -> list[Any]:
    """Return the values of an attribute that is one value or a list of them."""
    if name == "decay_at":
        varies = isinstance(value, list | tuple) and any(isinstance(one, list | tuple) for one in value)
    else:
        varies = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    values = list(value) if varies else [value]
    if not values:
        raise ValueError(f"{name} has no values: give one or more.")
    return values
