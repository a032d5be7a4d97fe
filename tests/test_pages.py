"""The built site. Skipped where `make book` has not been run."""

import copy
import functools
import re
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

import gradconf
from gradconf import sweeps

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
RAW = {
    "a formula": re.compile(r"\$[^\s$][^$]*\$|\\(frac|nabla|eta|langle)\b"),
    "a table": re.compile(r"^\s*\|.*\|\s*$", re.M),
    "a directive or role": re.compile(r"\{[a-z][\w:-]*\}`|^:::", re.M),
    "emphasis": re.compile(r"\*\*[^*\s][^*]*\*\*"),
}
UNREAD = ["pre", "code", "script", "style", "span.math", "div.math"]

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="there is no built site: run make book")


def toc():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [contents["root"]] + [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]


@functools.cache
def page(name):
    return BeautifulSoup((SITE / f"{name}.html").read_text(), "html.parser")


def article(name):
    return copy.copy(page(name).find("article"))


def raw(soup):
    """What a reader would see of Markdown that was not rendered."""
    for element in soup.select(", ".join(UNREAD)):
        element.decompose()
    return [name for name, pattern in RAW.items() if pattern.search(soup.get_text())]


@pytest.mark.parametrize(
    "text", ["the bound $x^2$", "the bound $\\eta$", "| a | b |\n| - | - |", "see {cite}`this`", "so **much**"]
)
def test_raw_markdown_is_found(text):
    assert raw(BeautifulSoup(f"<p>{text}</p>", "html.parser"))


@pytest.mark.parametrize("name", toc())
def test_nothing_on_the_page_is_raw(name):
    assert raw(article(name)) == []


@pytest.mark.parametrize("name", toc())
def test_images_have_alternative_text(name):
    alts = [image.get("alt", "") for image in article(name).find_all("img")]
    assert all(len(alt) > 40 and re.search(r"\d", alt) for alt in alts)
    assert len(set(alts)) == len(alts)


@pytest.mark.parametrize("name", [name for name in toc() if name.startswith("chapters/")])
def test_chapters_show_their_figures(name):
    assert len(article(name).select("div.cell_output img")) >= 3


@functools.cache
def targets(path):
    """What a page can be linked at."""
    return set(re.findall(r'id="([^"]+)"', path.read_text()))


@pytest.mark.parametrize("name", toc())
def test_links_within_the_site_resolve(name):
    here = SITE / f"{name}.html"
    for link in page(name).find_all("a", href=True):  # in the article, the sidebar, and above and below
        address, _, fragment = link["href"].partition("#")
        if "://" in address or address.startswith("mailto:"):
            continue
        target = (here.parent / address.partition("?")[0]).resolve() if address else here
        assert target.exists(), link["href"]
        if fragment and target.suffix == ".html":
            assert fragment in targets(target), link["href"]


@pytest.mark.parametrize("name", toc())
def test_the_picture_for_social_networks_is_there(name):
    picture = page(name).find("meta", property="og:image")["content"]
    assert (SITE / "_static" / picture.rpartition("/_static/")[2]).is_file(), picture


def test_the_page_of_the_package_tells_of_everything_public():
    told = targets(SITE / "book" / "api.html")
    for module in (gradconf, gradconf.models, gradconf.datasets, gradconf.plots, gradconf.results, sweeps):
        things = [name for name in module.__all__ if callable(getattr(module, name))]
        assert {f"{module.__name__}.{name}" for name in things} <= told


def test_the_front_door_opens():
    redirect = (SITE / "index.html").read_text()
    assert "book/index.html" in redirect
