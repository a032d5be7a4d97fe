"""What a reader sees with no kernel and no other host: everything."""

import functools
import json
import re

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT, SCREENS, SITE, SIZES

from book import set_repository
from book._ext import assets

AXE = assets.package("axe-core") / "axe.min.js"
THEIRS = {  # what axe finds in the theme's own buttons and logo: rule, and class of the element
    "label-content-name-mismatch": ("search-button-field", "theme-switch-button"),
    "region": ("sidebar-primary-item",),
}
CONTROLS = ".cell_output .widget-vbox:has(> .widget-slider, > .widget-radio)"
CHOSEN = """figure => [...figure.querySelectorAll(":scope > .widget-slider, :scope > .widget-radio")].map(control => {
    const handle = control.querySelector(".noUi-handle"), radio = control.querySelector("input:checked");
    const value = handle ? handle.getAttribute("aria-valuetext") : radio.parentElement.textContent.trim();
    return `${control.querySelector(".widget-label").textContent.trim()} ${value}`;
})"""
VISIBLE = "[...document.querySelectorAll('.widget-html img')].filter(i => i.offsetParent).map(i => i.alt)"


def test_a_page_needs_no_other_host(readers, page):
    reader = readers["wide"]
    reader.open(page)
    assert reader.refused == []
    assert reader.errors == []


@pytest.mark.parametrize("index", ["genindex.html", "py-modindex.html"])
def test_the_indices_need_no_other_host(readers, index):
    reader = readers["wide"]
    reader.open(index)
    assert (reader.refused, reader.errors) == ([], [])


def test_the_search_finds_offline(readers):
    reader = readers["wide"]
    tab = reader.open("search.html?q=cosine")
    tab.wait_for_selector("#search-results li a[href*='01_concept']")
    assert (reader.refused, reader.errors) == ([], [])


def test_formulas_are_rendered(readers, page):
    tab = readers["wide"].open(page)
    raw = tab.eval_on_selector_all(
        ".math", "all => all.filter(m => !m.querySelector('mjx-container')).map(m => m.textContent)"
    )
    assert raw == []
    assert tab.locator("mjx-merror, [data-mjx-error], [data-mml-node=merror]").count() == 0
    assert tab.locator("mjx-container [data-mml-node=mtext][fill=red]").count() == 0, "a macro that does not exist"


def test_pictures_have_words_of_their_own(readers, page):
    tab = readers["wide"].open(page)
    alts = tab.eval_on_selector_all("article img", "all => all.map(i => i.alt)")
    assert all(len(alt) > 15 and not re.search(r"\.(png|svg|jpg)|_images", alt) for alt in alts), alts
    assert len(set(alts)) == len(alts), "two pictures with the same words"


def test_nothing_is_wider_than_a_phone(readers, page):
    tab = readers["phone"].open(page)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    widths = tab.eval_on_selector_all("article img", "all => all.filter(i => i.offsetParent).map(i => i.clientWidth)")
    assert all(width >= 200 for width in widths), "a figure too small to read"
    shrunk = "all => all.filter(i => i.offsetParent).map(i => i.clientWidth / parseFloat(i.style.width))"
    scales = tab.eval_on_selector_all("article img[src^='data:']", shrunk)
    assert all(scale >= 0.65 for scale in scales), "letters of 16 pixels, the usual ones, become smaller than 10"


def test_a_chapter_has_two_figures_that_follow_the_keyboard(readers, chapter):
    reader = readers["wide"]
    tab = reader.open(chapter)
    figures = tab.locator(CONTROLS)
    cells = json.loads((ROOT / chapter).with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    wanted = sum("".join(cell["source"]).count("explore(") for cell in cells if cell["cell_type"] == "code")
    assert figures.count() == wanted >= 2
    for figure in figures.all():
        controls = figure.locator("> .widget-slider .noUi-handle, > .widget-radio input:checked")
        assert controls.count() == figure.locator("> .widget-slider, > .widget-radio").count()
        for control in controls.all():
            before = tab.evaluate(VISIBLE)
            assert control.evaluate("control => control.tabIndex") == 0
            control.focus()
            tab.keyboard.press("ArrowRight")
            tab.wait_for_function(f"JSON.stringify({VISIBLE}) !== {repr_js(before)}", timeout=20_000)
        chosen = figure.evaluate(CHOSEN)
        assert figure.locator(".widget-html img:visible").get_attribute("alt").startswith(f"{', '.join(chosen)}: ")
    assert reader.errors == []


def repr_js(values):
    return json.dumps(json.dumps(values, ensure_ascii=False, separators=(",", ":")), ensure_ascii=False)


def test_sliders_say_name_and_value(readers, chapter):
    tab = readers["wide"].open(chapter)
    told = tab.eval_on_selector_all(
        ".noUi-handle", "all => all.map(h => [h.getAttribute('aria-label'), h.getAttribute('aria-valuetext')])"
    )
    assert all(name and value for name, value in told)
    groups = tab.eval_on_selector_all(".widget-radio [role=radiogroup]", "all => all.map(g => g.ariaLabel)")
    assert all(groups)
    assert len(groups) == tab.locator(".widget-radio").count()
    assert tab.locator(".widget-vbox [title='null']").count() == 0


def test_a_new_frame_is_announced(readers, chapter):
    tab = readers["wide"].open(chapter)
    assert tab.locator(f"{CONTROLS} > [aria-live=polite] .widget-html img").count() == tab.locator(CONTROLS).count()


def test_words_of_every_frame_begin_with_the_chosen_values(chapter):
    state = read(chapter).find("script", type="application/vnd.jupyter.widget-state+json").string
    models = [model["state"] for model in json.loads(state)["state"].values()]
    names = "|".join({re.escape(model["description"]) for model in models if model.get("description")})
    frames = [BeautifulSoup(model["value"], "html.parser").img["alt"] for model in models if "<img" in str(model)]
    chosen = re.compile(rf"(({names}) [^:]+, )*({names}) [^:]+: ")
    assert [alt for alt in frames if not chosen.match(alt)] == []
    assert len(set(frames)) == len(frames) >= 10


@pytest.mark.parametrize("size", ["wide", "dark"])
def test_axe_finds_nothing(readers, page, size):
    assert AXE.exists(), "axe-core is missing: install npm, or get a network, and run make book again"
    tab = readers[size].open(page)
    assert tab.evaluate("document.documentElement.dataset.theme") == ("dark" if SIZES[size]["dark"] else "light")
    tab.evaluate(AXE.read_text(encoding="utf-8"))
    tab.evaluate("document.querySelectorAll('article details').forEach(folded => (folded.open = true))")
    found = tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]  # not also every element that is well
    tab.evaluate("document.querySelectorAll('article details').forEach(folded => (folded.open = false))")
    ours = [
        (violation["id"], node["html"])
        for violation in found
        for node in violation["nodes"]
        if not any(name in node["html"].partition(">")[0] for name in THEIRS.get(violation["id"], ()))
    ]
    assert ours == []


def test_figures_stay_on_a_light_card_in_the_dark(readers, chapter):
    tab = readers["dark"].open(chapter)
    colours = tab.eval_on_selector_all(
        "article img[src^='data:']", "all => all.map(i => getComputedStyle(i).backgroundColor)"
    )
    assert set(colours) == {"rgb(255, 255, 255)"}


def test_a_page_stays_small(page):
    assert (ROOT / "_build" / "html" / page).stat().st_size < 3e6


@pytest.mark.parametrize("size", SIZES)
def test_screenshots_are_written(readers, page, size):
    SCREENS.mkdir(exist_ok=True)
    path = SCREENS / f"{page.removesuffix('.html').replace('/', '-')}-{size}.png"
    readers[size].picture(page, path)
    assert path.stat().st_size > 10_000
    assert readers[size].tab.evaluate("document.documentElement.scrollHeight") > 500


@functools.cache
def read(page):
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")


def test_launch_buttons_open_this_chapter(chapter):
    address = set_repository.present().removeprefix("https://github.com/")
    notebook = chapter.removesuffix(".html") + ".ipynb"
    links = {link["href"] for link in read(chapter).select("a[href]")}
    assert f"https://colab.research.google.com/github/{address}/blob/main/{notebook}" in links
    assert f"https://mybinder.org/v2/gh/{address}/main?urlpath=lab/tree/{notebook}" in links
    assert any(link.startswith(f"https://github.com/{address}/edit/main/{notebook}") for link in links)
    assert any(link.startswith(f"https://github.com/{address}/issues/new") for link in links)


def test_pages_say_whether_the_buttons_wait(page):
    waiting = "YOUR_ACCOUNT" in set_repository.present()
    assert ("wait until this course is published" in read(page).text) == waiting


def test_search_engines_and_networks_get_a_description(page):
    soup = read(page)
    described = soup.find("meta", attrs={"name": "description"})
    assert len(described["content"]) > 40
    assert soup.find("meta", property="og:title")["content"] in soup.title.text
    assert page in (SITE / "sitemap.xml").read_text()
