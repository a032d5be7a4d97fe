"""Serve MathJax and the widgets' scripts from the site itself where `assets.py` has fetched them.

Else the defaults stay, which load them from a content delivery network. This is the one place that decides.
"""

import shutil

from assets import FOLDER, package
from sphinx.application import Sphinx
from sphinx.config import Config

WIDGETS = package("@jupyter-widgets/html-manager") / "dist"
SCRIPTS = (package("mathjax") / "es5" / "tex-svg.js", WIDGETS / "embed.js")


def _choose(app: Sphinx, config: Config) -> None:
    if not all(path.exists() for path in SCRIPTS):
        return
    static = FOLDER / "static"
    (static / "vendor").mkdir(parents=True, exist_ok=True)
    for path in [*SCRIPTS, *WIDGETS.glob("*.woff2")]:  # the fonts hold the widgets' icons
        shutil.copy(path, static / "vendor")
    config.html_static_path.append(str(static))
    config.mathjax_path = "vendor/tex-svg.js"
    config.nb_ipywidgets_js = {"vendor/embed.js": {}}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", _choose, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
