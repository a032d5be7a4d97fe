"""Load each script of a page once: sphinx-thebe registers its own twice, which is an error in the browser."""

from sphinx.application import Sphinx


def _drop_repeats(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    seen, scripts = set(), []
    for script in context.get("script_files", []):
        key = getattr(script, "filename", None) or str(getattr(script, "attributes", {}).get("body", script))
        if key not in seen:
            seen.add(key)
            scripts.append(script)
    context["script_files"] = scripts


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", _drop_repeats, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
