"""Things in a submission that no answer needs. They change no mark: a person should look at them."""

import ast
from collections.abc import Iterator

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

USUAL = set(
    """
    IPython abc bisect cmath collections contextlib copy dataclasses enum fractions functools gradconf heapq itertools
    math matplotlib numbers numpy operator pandas random scipy seaborn sklearn statistics string time torch tqdm typing
    warnings
    """.split()  # noqa: SIM905
)
UNUSUAL = {"__builtins__", "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "get_ipython", "globals"}
UNUSUAL |= {"locals", "open", "setattr", "vars"}
MODULES = {"builtins", "gc", "importlib", "inspect", "io", "os", "pathlib", "shutil", "socket", "subprocess", "sys"}
HARMLESS = {"__call__", "__class__", "__doc__", "__getitem__", "__init__", "__iter__", "__len__", "__name__"}
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
        tree = ast.parse(TransformerManager().transform_cell(source))
    except (SyntaxError, ValueError, RecursionError):
        return  # it does not run either
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"imports {alias.name}" for alias in node.names if _root(alias.name) not in USUAL)
        elif isinstance(node, ast.ImportFrom):
            if _root(node.module or "") not in USUAL:
                yield f"imports {node.module}"
            yield from (f"imports {alias.name}" for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.Name) and node.id in UNUSUAL:
            yield f"uses {node.id}"
        elif isinstance(node, ast.Attribute):
            yield from _attribute(node)


def _attribute(node: ast.Attribute) -> Iterator[str]:
    if node.attr.startswith("__") and node.attr not in HARMLESS:
        yield f"uses {node.attr}"
    if node.attr in MODULES:  # torch.os is os
        yield f"uses {ast.unparse(node)}"
    if isinstance(node.ctx, ast.Store | ast.Del):
        owner = node.value
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        if isinstance(owner, ast.Name) and owner.id in USUAL | SHORT:
            yield f"changes {ast.unparse(node)}"


def _root(module: str) -> str:
    return module.partition(".")[0]
