"""The built site as readers open it: in Chromium, from a server of its own, with every other host refused."""

import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import Error, TimeoutError, sync_playwright

ROOT = Path(__file__).parents[2]
SITE = ROOT / "_build" / "html"
SCREENS = ROOT / "_build" / "screens"
NOT_PAGES = {"genindex.html", "search.html", "index.html", "py-modindex.html"}
THEME = ("Got invalid theme mode",)  # what the theme itself writes to the console


def pages():
    """Every page of the book, as a path."""
    found = (path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
    return sorted(path for path in found if path not in NOT_PAGES)


def pytest_generate_tests(metafunc):
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", pages() or [None], scope="session")  # page by page, so that each is opened once
    if "chapter" in metafunc.fixturenames:
        chapters = [page for page in pages() if page.startswith("chapters/")]
        metafunc.parametrize("chapter", chapters or [None], scope="session")


@pytest.fixture(scope="session", autouse=True)
def built():
    if not pages():
        pytest.exit("there is no site yet: run make book first", returncode=1)


@pytest.fixture(scope="session")
def address():
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def chromium():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        except Error as error:
            pytest.exit(f"Chromium does not start; install it, or set CHROMIUM to its path: {error}", returncode=1)
        yield browser
        browser.close()


class Reader:
    """Opens pages at one size and in one mode, and notes what went wrong."""

    def __init__(self, chromium, address, *, width, height, dark):
        scheme = "dark" if dark else "light"
        self.address, self.page, self.refused, self.errors = address, None, [], []
        self.context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.context.add_init_script(
            f"localStorage.setItem('mode', '{scheme}'); localStorage.setItem('theme', '{scheme}')"
        )
        self.context.route("**/*", self._route)
        self.tab = self.context.new_page()
        self.tab.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        self.tab.on("pageerror", lambda error: self._note(str(error)))

    def _route(self, route):
        if route.request.url.startswith((self.address, "data:", "blob:")):
            return route.continue_()
        self.refused.append(route.request.url)
        return route.abort()

    def _note(self, text):
        if not text.startswith(THEME):
            self.errors.append(text)

    def open(self, page):
        """Go to a page unless it is open, and wait until formulas and figures are there."""
        if page == self.page:
            return self.tab
        self.page = page
        self.refused.clear()
        self.errors.clear()
        self.tab.goto(f"{self.address}/{page}", wait_until="load")
        self.tab.wait_for_function(
            "!window.MathJax || !document.querySelector('.math') || document.querySelector('mjx-container')"
        )
        if self.tab.locator("script[type='application/vnd.jupyter.widget-view+json']").count():
            self.tab.wait_for_selector(".widget-html img")
        return self.tab

    def picture(self, page, path):
        """Write the whole page as an image, on a second load where Chromium lost the first, as it does when busy."""
        try:
            self.open(page).screenshot(path=path, full_page=True)
        except TimeoutError:
            self.page = None
            self.open(page).screenshot(path=path, full_page=True, timeout=120_000)


SIZES = {
    "wide": {"width": 1280, "height": 900, "dark": False},
    "phone": {"width": 390, "height": 844, "dark": False},
    "dark": {"width": 1280, "height": 900, "dark": True},
    "phone-dark": {"width": 390, "height": 844, "dark": True},
}


@pytest.fixture(scope="session")
def readers(chromium, address):
    found = {name: Reader(chromium, address, **size) for name, size in SIZES.items()}
    yield found
    for reader in found.values():
        reader.context.close()
