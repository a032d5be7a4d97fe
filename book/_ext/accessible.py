"""Mend what Sphinx, docutils and pandas write in ways that screen readers stumble over."""

import re

from sphinx.application import Sphinx

REPAIRS = (
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),  # a deprecated role, in a list
    (
        re.compile(r"<th( class=\"(?:blank|index_name level\d|col_heading level\d)[^>]*)>(?:&nbsp;|\s*)</th>"),
        r"<td\1></td>",
    ),
    (re.compile(r"<th( class=\"head[^>]*)>(?:<p></p>|\s*)</th>"), r"<td\1></td>"),  # a table's empty corner
    (re.compile(r"<table (id=\"T_|class=\"(?:table|dataframe))"), r'<table tabindex="0" \1'),  # scrolls by keyboard too
    (re.compile(r'<table border="1" class="dataframe'), r'<table tabindex="0" class="dataframe'),
)


def _mend(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    if "body" in context:
        for pattern, repair in REPAIRS:
            context["body"] = pattern.sub(repair, context["body"])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", _mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
