"""The built pages, as a reader meets them: in Chromium, in light and dark, on a phone, on paper, by keyboard."""

from __future__ import annotations

import functools
import gzip
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright
from shared import require

from lib.press import notebooks
from lib.press.site import documents
from lib.workbench import figures

pytestmark = pytest.mark.browser

DOCUMENTS = documents()
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
MEGABYTE = 1_000_000


# --- The site in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    require(
        chromium is not None,
        "The page tests drive Chromium, and there is none here: `apt-get install chromium`, or install Chrome.",
    )
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, headless=True, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, without a slash at the end."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Say nothing of a browser that has left a page before all of it came."""

    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Visit:
    """A page in the browser, and all it asked for and complained about."""

    page: Page
    document: str = ""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on(
            "console",
            lambda message: (
                message.type in ("error", "warning") and self.complaints.append(f"{message.type}: {message.text}")
            ),
        )
        self.page.on(
            "response",
            lambda response: (
                response.status >= 400 and self.complaints.append(f"{response.status}: {response.url}")
            ),
        )

    def open(self, url: str) -> Visit:
        """Load a page and wait until its formulas are typeset."""
        self.page.goto(url, wait_until="load")
        self.page.evaluate("window.MathJax?.startup?.promise.then(() => null)")
        return self

    def show(self, scheme: str = "light", size: dict[str, int] = DESKTOP, media: str = "screen") -> Page:
        """The page in a theme, a window and on a medium, once it has settled."""
        self.page.emulate_media(color_scheme=scheme, media=media)
        self.page.set_viewport_size(size)
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page


@pytest.fixture(scope="module", params=DOCUMENTS)
def visit(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Visit]:
    """Each document, opened once for all the tests of this file; a test sets the state it needs by ``show``."""
    context = browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
    visit = Visit(context.new_page(), request.param)
    yield visit.open(f"{address}/{request.param}.html")
    context.close()


# --- The site as files ------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page: tag names and attributes, in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@functools.cache
def elements(page: Path) -> list[tuple[str, dict[str, str]]]:
    return Elements(page.read_text(encoding="utf8")).found


def formulas(page: Path) -> int:
    """How many formulas the builder left for MathJax."""
    return sum(
        {"math", "notranslate"} <= set(attributes.get("class", "").split()) for _, attributes in elements(page)
    )


@pytest.fixture(params=DOCUMENTS)
def page(request: pytest.FixtureRequest, site: Path) -> Path:
    return site / f"{request.param}.html"


def test_links_and_anchors_lead_somewhere(page: Path, site: Path) -> None:
    dead = []
    for tag, attributes in elements(page):
        for target in (attributes.get("href"), attributes.get("src")):
            if target is None or urlsplit(target).scheme:
                continue
            path, anchor = urldefrag(urljoin(page.as_uri(), target))
            file = Path(unquote(urlsplit(path).path))
            ids = (
                {a.get("id") for _, a in elements(file)}
                if anchor and file.suffix == ".html" and file.exists()
                else {}
            )
            if not file.is_file() or site not in file.parents or (anchor and unquote(anchor) not in ids):
                dead.append(f"<{tag}> {target}")
    assert dead == []


def test_nothing_on_the_page_is_fetched_from_elsewhere(page: Path) -> None:
    loaded = [a.get("src") or a.get("data") or "" for tag, a in elements(page) if tag not in ("a", "form")]
    loaded += [a.get("href", "") for tag, a in elements(page) if tag in ("link", "use", "image")]
    assert [url for url in loaded if urlsplit(url).scheme not in ("", "data") or url.startswith("//")] == []


def test_every_image_says_what_it_shows(page: Path) -> None:
    wordless = []
    for tag, attributes in elements(page):
        alt = attributes.get("alt", "").strip()
        decorative = attributes.get("aria-hidden") == "true" or attributes.get("role") in ("presentation", "none")
        # The theme sets the book's name beside its logo, which is then decoration in the sense of HTML: alt="".
        decorative |= "alt" in attributes and "logo__image" in attributes.get("class", "")
        if tag == "img" and not decorative and (not alt or re.search(r"\.(svg|png|jpe?g|gif|webp)$|_images/", alt)):
            wordless.append(attributes.get("src", "")[:80])
    assert wordless == []


def test_no_element_jumps_the_tab_order(page: Path) -> None:
    assert [tag for tag, attributes in elements(page) if int(attributes.get("tabindex", 0)) > 0] == []


def test_the_root_leads_to_the_front_page(site: Path) -> None:
    assert f"url={DOCUMENTS[0]}.html" in (site / "index.html").read_text(encoding="utf8")


# --- What every page must do --------------------------------------------------------------------------------


def test_every_formula_is_typeset(visit: Visit, site: Path) -> None:
    page = visit.show()
    expected = formulas(site / f"{visit.document}.html")
    assert page.locator(".math.notranslate > mjx-container > svg").count() == expected
    assert page.locator("mjx-container").count() == expected
    assert page.locator("[data-mjx-error], mjx-merror, [data-mml-node='merror']").count() == 0


def test_no_markup_is_left_in_the_text(visit: Visit) -> None:
    text = visit.show().evaluate(
        """() => {
          const article = document.querySelector("article").cloneNode(true);
          article.querySelectorAll("pre, code, script, style, mjx-container").forEach(node => node.remove());
          return article.textContent;
        }"""
    )
    assert len(text.split()) >= 20
    assert [mark for mark in ("$", "{cite", "{ref", ":::", "\\(", "\\[", "```", "**", "](") if mark in text] == []


def test_pages_are_light(visit: Visit, site: Path, address: str) -> None:
    """A page's own part is at most 1.5 MB, what the pages share at most 1.2 MB on the wire."""
    files = {unquote(urlsplit(url).path).lstrip("/") for url in visit.requests if url.startswith(address)}
    shared = {name for name in files if name.startswith("_static/")}
    own = sum((site / name).stat().st_size for name in files - shared)
    compressed = sum(len(gzip.compress((site / name).read_bytes())) for name in shared)
    assert shared
    assert files > shared
    assert own <= 1.5 * MEGABYTE, f"{visit.document} weighs {own} bytes"
    assert compressed <= 1.2 * MEGABYTE, f"the shared files weigh {compressed} bytes"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visit: Visit, scheme: str) -> None:
    page = visit.show(scheme)
    # Folded parts are unfolded. Each colour of the code is looked at once: thousands of tokens of the same
    # class would take a minute. MathJax draws formulas and describes them in MathML of its own.
    page.evaluate(
        """async () => {
          document.querySelectorAll("details").forEach(details => { details.open = true; });
          await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
          const seen = new Set();
          for (const token of document.querySelectorAll("pre span[class]"))
            if (seen.has(token.className)) token.replaceWith(...token.childNodes);
            else if (token.textContent.trim()) seen.add(token.className);
        }"""
    )
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    options = {"preload": False, "resultTypes": ["violations"]}
    if scheme == "dark":  # the theme changes colours and nothing else
        options["runOnly"] = ["color-contrast", "link-in-text-block"]
    violations = Axe().run(page, {"exclude": [["mjx-container"]]}, options).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"]][:5]) for v in violations] == []


def test_a_phone_shows_the_whole_width(visit: Visit) -> None:
    page = visit.show(size=PHONE)
    page.wait_for_timeout(400)  # the theme looks for boxes that scroll 300 ms after the window has changed
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Nothing is cut off either: what sticks out lies in a box that scrolls and that the keyboard reaches.
    cut = page.evaluate(
        """() => [...document.querySelectorAll("article *")].filter(node => {
          if (!node.getClientRects().length || node.closest("mjx-assistive-mml, .visually-hidden")) return false;
          const {left, right} = node.getBoundingClientRect();
          if (left < -1) return true;  // a box scrolls to the right only
          if (right <= innerWidth + 1) return false;
          for (let box = node; box.tagName !== "ARTICLE"; box = box.parentElement)
            if (box.tabIndex === 0 && ["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
          return true;
        }).map(node => node.outerHTML.slice(0, 120))"""
    )
    assert cut == []


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    """Tab visits, once and in turn, whatever can be clicked, set or scrolled, and leaves the page at its end."""
    page = visit.show()
    wanted = page.evaluate(
        """() => {
          window.stops = [];
          const nodes = [...document.querySelectorAll("a[href], button, input, summary, select, textarea")]
            .filter(node => node.checkVisibility({visibilityProperty: true}) && !node.matches(".copybtn"));
          nodes.forEach((node, index) => { node.dataset.stop = index; });
          document.addEventListener("focusin", event => window.stops.push(event.target.dataset.stop ?? "other"));
          document.activeElement.blur();
          getSelection().collapse(document.body, 0);
          return nodes.map(node => node.outerHTML.slice(0, 120));
        }"""
    )
    scrollable = page.locator("article [tabindex='0']").count()
    for _ in range(len(wanted) + scrollable + page.locator(".copybtn").count() + 3):
        page.keyboard.press("Tab")
    reached = page.evaluate("window.stops")
    missed = [node for index, node in enumerate(wanted) if str(index) not in reached]
    assert missed == []
    assert len(wanted) >= 8


def test_a_slider_changes_its_figure_from_the_keyboard(visit: Visit) -> None:
    page = visit.show()
    for k in range(page.locator("figure.explorable").count()):
        figure = page.locator("figure.explorable").nth(k)
        slider, shown = figure.locator("input[type=range]"), figure.locator("img:visible")
        labels = slider.get_attribute("data-labels").split("|")
        slider.focus()
        for key, frame in (("Home", 0), ("ArrowRight", 1), ("End", -1), ("ArrowLeft", -2)):
            page.keyboard.press(key)
            assert shown.count() == 1
            assert shown.get_attribute("alt").endswith(f"({labels[frame]})")
            assert slider.get_attribute("aria-valuetext") == labels[frame]
            assert figure.locator("output").text_content() == labels[frame]


def test_the_line_for_notebooks_without_scripts_never_stands_on_a_page(browser: Browser) -> None:
    figure = figures.Explorable(["<svg/>", "<svg/>"], ["a", "b"], name="n", alt="curve").html
    style = f"<style>{(notebooks.ROOT / '_static' / 'book.css').read_text(encoding='utf8')}</style>"
    seen = {}
    for scripts in (True, False):
        context = browser.new_context(java_script_enabled=scripts)
        page = context.new_page()
        for place, html in (("notebook", figure), ("page", style + figure)):
            page.set_content(html)
            line, slider = page.locator("noscript"), page.locator("input")
            seen[place, scripts] = line.is_visible(), slider.is_visible()
        context.close()
    assert seen == {
        ("notebook", True): (False, True),
        ("notebook", False): (True, True),
        ("page", True): (False, True),
        ("page", False): (False, False),  # a slider that cannot move
    }


def test_figures_are_inverted_in_the_dark_only(visit: Visit) -> None:
    filters = "all => all.map(image => getComputedStyle(image).filter)"
    images = "div.cell_output img"
    assert all("invert" in css for css in visit.show("dark").locator(images).evaluate_all(filters))
    boxes = visit.page.locator("div.cell_output .text_html").evaluate_all(
        "all => all.map(box => getComputedStyle(box).backgroundColor)"
    )
    assert set(boxes) <= {"rgba(0, 0, 0, 0)"}  # the theme puts a light box behind them
    assert all(css == "none" for css in visit.show("light").locator(images).evaluate_all(filters))


def test_paper_gets_the_article_on_white(visit: Visit) -> None:
    page = visit.show("dark", media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator("h1:visible").count() == 1
    assert page.locator("nav:visible, button:visible, input:visible").count() == 0
    for k in range(page.locator("figure.explorable").count()):
        assert page.locator("figure.explorable").nth(k).locator("img:visible").count() == 1
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_nothing_failed_and_nothing_left_the_site(visit: Visit, address: str) -> None:
    """The last test of a page: what it asked for and complained about since it was opened."""
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith((address, "data:"))] == []


# --- What the site does as a whole --------------------------------------------------------------------------


@pytest.fixture
def reader(browser: Browser) -> Iterator[Visit]:
    """A reader who comes for the first time."""
    context = browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
    yield Visit(context.new_page())
    context.close()


@pytest.mark.parametrize("way", ["served", "from the disk"])
def test_the_search_box_finds_a_word(reader: Visit, address: str, site: Path, way: str) -> None:
    page = reader.open(f"{address if way == 'served' else site.as_uri()}/{DOCUMENTS[0]}.html").page
    page.keyboard.press("Control+k")
    page.keyboard.type("orthogonal")
    page.keyboard.press("Enter")
    page.locator("#search-results a").first.wait_for()
    assert DOCUMENTS[1] in page.locator("#search-results").inner_html()
    assert reader.complaints == []
    assert [url for url in reader.requests if not url.startswith((address, site.as_uri(), "data:"))] == []


def test_a_chapter_opens_from_the_disk(reader: Visit, site: Path) -> None:
    file = site / f"{DOCUMENTS[1]}.html"
    page = reader.open(file.as_uri()).page
    assert page.locator("mjx-container > svg").count() == formulas(file) > 0
    assert reader.complaints == []
    assert [url for url in reader.requests if not url.startswith((site.as_uri(), "data:"))] == []


def test_the_theme_button_is_remembered(reader: Visit, address: str) -> None:
    page = reader.open(f"{address}/{DOCUMENTS[0]}.html").page
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    button = page.get_by_role("button", name="Color mode")
    modes = []
    for _ in range(3):
        button.focus()
        page.keyboard.press("Enter")
        modes.append((page.evaluate("document.documentElement.dataset.mode"), page.evaluate(theme)))
    assert sorted(modes) == [("auto", "light"), ("dark", "dark"), ("light", "light")]
    while page.evaluate(theme) != "dark":
        button.click()
    reader.open(f"{address}/{DOCUMENTS[1]}.html")
    assert page.evaluate(theme) == "dark"


def test_the_menu_of_a_phone_opens_and_closes(reader: Visit, address: str) -> None:
    page = reader.open(f"{address}/{DOCUMENTS[0]}.html").show(size=PHONE)
    menu = page.locator("dialog[open] nav[aria-label=Main]")
    page.locator(".primary-toggle").first.click()
    assert menu.get_by_role("link").count() >= len(DOCUMENTS)
    page.keyboard.press("Escape")
    assert menu.count() == 0
