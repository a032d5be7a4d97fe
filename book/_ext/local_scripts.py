"""Serve MathJax and the widgets' scripts from the site itself where `book/assets.py` has fetched them.

Else the defaults stay, which load them from a content delivery network. This is the one place that decides.
"""

import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ASSETS = Path(__file__).parents[2] / "_build" / "assets"
SCRIPTS = {"mathjax": "mathjax/3.2.2/package/es5/tex-svg.js", "widgets": "html-manager/1.0.15/package/dist/embed.js"}
FONTS = "html-manager/1.0.15/package/dist/*.woff2"  # icons of the widgets


def _choose(app: Sphinx, config: Config) -> None:
    if not all((ASSETS / path).exists() for path in SCRIPTS.values()):
        return
    static = ASSETS / "static"
    (static / "vendor").mkdir(parents=True, exist_ok=True)
    for path in [*(ASSETS / path for path in SCRIPTS.values()), *ASSETS.glob(FONTS)]:
        shutil.copy(path, static / "vendor")
    config.html_static_path.append(str(static))
    config.mathjax_path = "vendor/tex-svg.js"
    config.nb_ipywidgets_js = {"vendor/embed.js": {}}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", _choose, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
