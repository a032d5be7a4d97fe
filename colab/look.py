"""Write the notebooks that `make colab` executed as pages, by Colab's rules for Markdown: `python -m colab.look`.

Those are CommonMark, tables, formulas between dollars, and HTML such as <details>; nothing of MyST.
"""

import html

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from book._ext.assets import package
from colab.run import EXECUTED

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>
body {{font: 16px/1.5 Roboto, sans-serif; max-width: 60em; margin: 1em auto; padding: 0 1em}}
pre {{background: #f7f7f7; padding: .6em; overflow-x: auto}} pre.stderr {{background: #fdd}}
table {{border-collapse: collapse}} td, th {{padding: .2em .6em; border: 1px solid #ddd}}
blockquote {{border-left: .3em solid #ddd; margin-left: 0; padding-left: 1em}}
</style>
<script>MathJax = {{tex: {{inlineMath: [["\\\\(", "\\\\)"]], displayMath: [["\\\\[", "\\\\]"]]}}}}</script>
<script src="{mathjax}"></script>
{body}"""


def main() -> None:
    """Write a page beside each executed notebook."""
    for path in sorted(EXECUTED.glob("*.ipynb")):
        target = path.with_suffix(".html")
        target.write_text(page(nbformat.read(path, 4), path.stem), encoding="utf-8")
        print(target)


def page(notebook: NotebookNode, title: str) -> str:
    """Return a notebook as a page."""
    mathjax = (package("mathjax") / "es5" / "tex-svg.js").as_uri()
    return PAGE.format(title=title, mathjax=mathjax, body="\n".join(cell_html(cell) for cell in notebook.cells))


def cell_html(cell: NotebookNode) -> str:
    """Return a cell with what it shows."""
    if cell.cell_type == "markdown":
        return markdown(cell.source)
    return f"<pre>{html.escape(cell.source)}</pre>" + "".join(output_html(output) for output in cell.outputs)


def output_html(output: NotebookNode) -> str:
    """Return the richest form of an output that Colab shows too."""
    if output.output_type == "stream":
        return f'<pre class="{output.name}">{html.escape(output.text)}</pre>'
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return "<p><i>A figure with controls.</i></p>"
    if "text/html" in data:
        return data["text/html"]
    return markdown(data["text/markdown"]) if "text/markdown" in data else f"<pre>{html.escape(str(data))}</pre>"


def markdown(text: str) -> str:
    """Return Markdown as Colab renders it, with formulas left to MathJax."""
    rules = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, double_inline=True)
    rules.add_render_rule("math_inline", lambda self, tokens, i, *_: rf"\({html.escape(tokens[i].content)}\)")
    for name in ("math_block", "math_inline_double"):
        rules.add_render_rule(name, lambda self, tokens, i, *_: rf"\[{html.escape(tokens[i].content)}\]")
    return rules.render(text)


if __name__ == "__main__":
    main()
