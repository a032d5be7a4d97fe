"""Let links to the published site lead to the same page of the site that is being built.

Colab knows no page beside a notebook, so chapters link to the prose pages by the site's address.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)


def _lead_home(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    home = app.config.html_baseurl
    for link in doctree.findall(nodes.reference):
        if not home or not link.get("refuri", "").startswith(home):
            continue
        page, mark, fragment = link["refuri"].removeprefix(home).partition("#")
        target = page.removesuffix(".html")
        if target not in app.env.found_docs:
            _log.warning("there is no page %s for the link %s", target, link["refuri"], location=docname)
            continue
        link["refuri"] = app.builder.get_relative_uri(docname, target) + mark + fragment
        link["internal"] = True


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("doctree-resolved", _lead_home)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
