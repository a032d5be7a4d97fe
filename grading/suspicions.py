"""Things in a submission that no answer needs. They change no mark: a person should look at them."""

import ast
import re
from collections.abc import Iterator

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

USUAL = set(
    """
    IPython __future__ abc bisect cmath collections contextlib copy dataclasses enum fractions functools gradconf heapq
    itertools math matplotlib numbers numpy operator pandas random scipy seaborn sklearn statistics string time torch
    tqdm typing warnings
    """.split()  # noqa: SIM905
)
UNUSUAL = {"__builtins__", "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "get_ipython", "globals"}
UNUSUAL |= {"locals", "open", "setattr", "vars"}
HIDING = {"attrgetter", "methodcaller"}  # of `operator`: they take names that only show when they run
MODULES = {"builtins", "gc", "importlib", "inspect", "io", "os", "pathlib", "shutil", "socket", "subprocess", "sys"}
HARMLESS = {"__call__", "__class__", "__doc__", "__getitem__", "__init__", "__iter__", "__len__", "__name__"}
FIGURES = re.compile(r"^([ \t]*)%matplotlib[ \t]*\w*[ \t]*$", re.MULTILINE)  # a magic, so it would count as get_ipython
SHORT = {"F", "nn", "np", "pd", "plt"}  # what modules are usually called


def suspicions(notebook: nbformat.NotebookNode, given: nbformat.NotebookNode) -> list[str]:
    """List what a submission does that its questions never ask for, leaving out cells that were handed out."""
    ours = {cell.source for cell in given.cells}
    found = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code" and cell.source not in ours:
            found += [f"cell {number} {what}" for what in sorted(set(_in_cell(cell.source)))]
    return found


def _in_cell(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(TransformerManager().transform_cell(FIGURES.sub(r"\1pass", source)))
    except (SyntaxError, ValueError, RecursionError):
        return  # it does not run either
    yield from _getattr(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"imports {alias.name}" for alias in node.names if _root(alias.name) not in USUAL)
        elif isinstance(node, ast.ImportFrom):
            if _root(node.module or "") not in USUAL:
                yield f"imports {node.module}"
            yield from (f"imports {alias.name}" for alias in node.names if alias.name in MODULES | HIDING)
        elif isinstance(node, ast.Name) and node.id in UNUSUAL:
            yield f"uses {node.id}"
        elif isinstance(node, ast.Attribute):
            yield from _attribute(node)


def _getattr(tree: ast.AST) -> Iterator[str]:
    """Say where `getattr` is used for what would be noticed if it were written with a dot, or cannot be told."""
    told = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else None
            if isinstance(name, str):
                told.add(node.func)
                odd = name in MODULES | HIDING | UNUSUAL or (name.startswith("__") and name not in HARMLESS)
                yield from [f"uses {name} by getattr"] * odd
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "getattr" and node not in told:
            yield "uses getattr with a name that is computed"


def _attribute(node: ast.Attribute) -> Iterator[str]:
    if node.attr.startswith("__") and node.attr not in HARMLESS:
        yield f"uses {node.attr}"
    if node.attr in MODULES | HIDING:  # torch.os is os
        yield f"uses {ast.unparse(node)}"
    if isinstance(node.ctx, ast.Store | ast.Del):
        owner = node.value
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        if isinstance(owner, ast.Name) and owner.id in USUAL | SHORT:
            yield f"changes {ast.unparse(node)}"


def _root(module: str) -> str:
    return module.partition(".")[0]
