"""Say on every page that its buttons wait for the repository's address, while that is a placeholder."""

from sphinx.application import Sphinx

NOTE = (
    "<p><em>The buttons for Colab, Binder, editing and issues wait until this course is published: "
    "<code>make set-repo</code> gives them its address.</em></p>"
)


def _note(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    address = app.config.html_theme_options.get("repository_url", "")
    if "YOUR_ACCOUNT" in address and pagename.startswith(("book/", "chapters/", "assignments/")):
        context["body"] = context["body"].replace("</h1>", f"</h1>\n{NOTE}", 1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", _note, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
