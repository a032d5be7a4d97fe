"""The notebooks as students get them, up to a question."""

import functools

from IPython.core.inputtransformer2 import TransformerManager

from grading.submissions import as_handed_out


@functools.cache
def surroundings(name, question):
    """Return the variables that a notebook has before a question is answered, and the check that follows it."""
    scope, check, current = {}, "", ""
    for cell in as_handed_out(name).cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## Question"):
            current = "q" + cell.source.split()[2].rstrip(".")
        elif cell.cell_type == "code" and cell.source.startswith("# Check of question"):
            check = cell.source if current == question else check
        elif cell.cell_type == "code" and current in ("", question):
            exec(TransformerManager().transform_cell(cell.source), scope)  # the first cell has a %pip
    return scope, check
