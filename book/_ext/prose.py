"""Offer no page of prose to Colab or Binder: some show stored results with code cells, but none is a notebook there."""

from sphinx.application import Sphinx


def _forget_kernel(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    if pagename.startswith("book/"):
        app.env.metadata.get(pagename, {}).pop("kernelspec", None)  # by which the theme knows a notebook


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", _forget_kernel, priority=100)  # before the theme's buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
