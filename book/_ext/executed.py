"""The directive `executed`: a table of when, on what and with which versions each chapter was run for this site.

It is read off the lines that `gradconf.setup` and `gradconf.spent` print in every chapter.
"""

import re
from posixpath import dirname, relpath

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

HEAD = ("chapter", "executed", "time", "memory", "device", "versions")
SETUP = re.compile(r"(gradconf \S+) · (Python \S+) · (torch \S+) · (.+) · seed \d+")
SPENT = re.compile(r"This took (\d+ s), at most (.+ GB) of memory, (?:.+, )?on .+, on (\d{4}-\d\d-\d\d)\.")


class _Place(nodes.General, nodes.Element):
    """Where the table goes once all chapters have been read."""


class _Executed(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [_Place()]


class _Fill(SphinxPostTransform):
    default_priority = 8  # before links are resolved

    def run(self, **_: object) -> None:
        for place in list(self.document.findall(_Place)):
            place.replace_self(_table(self.env))


def row(text: str) -> tuple[str, ...]:
    """Return what a chapter's outputs say: date, time, memory, device and versions."""
    before, after = SETUP.search(text), SPENT.search(text)
    if not (before and after):
        return ("not executed",) + ("",) * (len(HEAD) - 2)
    return after[3], after[1], after[2], before[4], f"{before[1]}, {before[2]}, {before[3]}"


def _table(env: BuildEnvironment) -> nodes.table:
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in HEAD), cols=len(HEAD))
    group += nodes.thead("", _row(nodes.Text(name) for name in HEAD))
    group += nodes.tbody("", *(_chapter(env, name) for name in sorted(env.found_docs) if name.startswith("chapters/")))
    return nodes.table("", group, classes=["colwidths-auto"])


def _chapter(env: BuildEnvironment, name: str) -> nodes.row:
    target = {"reftype": "doc", "refdomain": "std", "refexplicit": True, "refdoc": env.docname}
    link = pending_xref("", reftarget=relpath(name, dirname(env.docname)), **target)
    link += nodes.inline("", env.titles[name].astext())
    return _row([link, *(nodes.Text(part) for part in row(env.get_doctree(name).astext()))])


def _row(cells: object) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.add_node(_Place)
    app.add_directive("executed", _Executed)
    app.add_post_transform(_Fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
