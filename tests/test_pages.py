"""The built pages, as a reader meets them: in Chromium, in light and dark, on a phone, on paper, by keyboard."""

from __future__ import annotations

import functools
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page

from lib.press import citing, notebooks
from lib.press.site import documents
from lib.workbench import figures

pytestmark = pytest.mark.browser

LIBRARY = [name for name in documents() if name.startswith("book/api/")]
#: Every page, but of the library, whose pages are all made by one directive, the longest and the list of all.
DOCUMENTS = [
    name for name in documents() if name not in LIBRARY or name.endswith(("/index", "/attention", "/bert"))
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
#: The narrowest window that a page must fit: an old phone, or a desktop enlarged to 400 %.
NARROW = {"width": 320, "height": 640}
MEGABYTE = 1_000_000
#: Lays out what is far from the window too: what waits for the reader to come near overflows nothing, has no size
#: and no contrast, so that a test of it could not fail.
NOTHING_WAITS = """document.head.append(Object.assign(document.createElement("style"),
    {textContent: "* { content-visibility: visible !important }"}))"""
#: The page's script looks at formulas and code when there is nothing else to do.
LOOKED = "document.querySelector('.bd-article').dataset.looked !== undefined"


# --- The site in a browser --------------------------------------------------------------------------------


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
        """Load a page, lay out all of it, and wait until its script has looked at everything."""
        self.page.goto(url, wait_until="load")
        self.page.evaluate(NOTHING_WAITS)
        self.page.wait_for_function(LOOKED)
        return self

    def show(self, scheme: str = "light", size: dict[str, int] = DESKTOP, media: str = "screen") -> Page:
        """The page in a theme, a window and on a medium, once it has settled."""
        self.page.emulate_media(color_scheme=scheme, media=media)
        self.page.set_viewport_size(size)
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self.page.wait_for_function(LOOKED)
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
    """How many formulas a page has."""
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
    assert page.locator("merror").count() == 0
    # None waits for a script, and each has its glyphs on the page.
    sizes = page.locator("mjx-container > svg").evaluate_all(
        "all => all.filter(svg => svg.checkVisibility()).map(svg => svg.getBoundingClientRect().width)"
    )
    assert all(size > 1 for size in sizes)
    assert "MathJax" not in page.evaluate("Object.keys(window)")


def test_no_markup_is_left_in_the_text(visit: Visit) -> None:
    text = visit.show().evaluate(
        """() => {
          const article = document.querySelector("article").cloneNode(true);
          // The two stars of **kwargs are no markup.
          const verbatim = "pre, code, script, style, mjx-container, .sig, .field-list strong";
          article.querySelectorAll(verbatim).forEach(node => node.remove());
          return article.textContent;
        }"""
    )
    assert len(text.split()) >= 20
    assert [mark for mark in ("$", "{cite", "{ref", ":::", "\\(", "\\[", "```", "**", "](") if mark in text] == []


def test_pages_are_light(visit: Visit, site: Path, address: str) -> None:
    """A page's own part is at most 1.5 MB, what the pages share at most 0.1 MB on the wire."""
    files = {unquote(urlsplit(url).path).lstrip("/") for url in visit.requests if url.startswith(address)}
    shared = {name for name in files if name.startswith("_static/") or name == "searchindex.js"}
    own = sum((site / name).stat().st_size for name in files - shared)
    compressed = sum(len(gzip.compress((site / name).read_bytes())) for name in shared)
    assert shared
    assert files > shared
    assert own <= 1.5 * MEGABYTE, f"{visit.document} weighs {own} bytes"
    assert compressed <= 0.1 * MEGABYTE, f"the shared files weigh {compressed} bytes"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visit: Visit, scheme: str) -> None:
    page = visit.show(scheme)
    # Folded parts are unfolded. Each colour of the code is looked at once: thousands of tokens of the same
    # class would take a minute. Formulas are drawings, described in MathML.
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


@pytest.mark.parametrize("size", [PHONE, NARROW], ids=["390", "320"])
def test_a_phone_shows_the_whole_width(visit: Visit, size: dict[str, int]) -> None:
    page = visit.show(size=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    # Nothing is cut off either: what sticks out lies in a box that scrolls and that the keyboard reaches.
    cut = page.evaluate(
        """() => [...document.querySelectorAll("article *")].filter(node => {
          if (!node.checkVisibility() || node.closest("mjx-assistive-mml, .visually-hidden")) return false;
          const {left, right} = node.getBoundingClientRect();
          if (left < -1) return true;  // a box scrolls to the right only
          if (right <= innerWidth + 1) return false;
          for (let box = node; box.tagName !== "ARTICLE"; box = box.parentElement)
            if (box.tabIndex === 0 && ["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
          return true;
        }).map(node => node.outerHTML.slice(0, 120))"""
    )
    assert cut == []


def test_a_table_is_cards_on_a_phone_and_a_table_elsewhere(visit: Visit) -> None:
    """Each cell of a card stands below the one before it, beside the name of its column."""
    layout = """() => [...document.querySelectorAll("article table[data-rows] tbody tr")].map(row => {
      const cells = [...row.cells].filter(cell => cell.getClientRects().length);
      return {
        tops: cells.map(cell => Math.round(cell.getBoundingClientRect().top)),
        labels: cells.map(cell => getComputedStyle(cell, "::before").content),
        columns: cells.map(cell => cell.dataset.label),
      };
    })"""
    rows = visit.show(size=PHONE).evaluate(layout)
    for row in rows:
        assert row["tops"] == sorted({*row["tops"]}), row
        assert [label.strip('"') for label in row["labels"]] == row["columns"]
    for row in visit.show().evaluate(layout):
        assert len({*row["tops"]}) == 1
        assert {*row["labels"]} == {"none"}


def test_a_formula_that_is_wider_than_a_phone_says_so(visit: Visit) -> None:
    """It scrolls, the keyboard reaches it, and a shadow lies where more is to be seen."""
    page = visit.show(size=PHONE)
    wide = page.evaluate(
        """() => [...document.querySelectorAll("article :is(div.math, span.math.wide)")]
          .filter(box => box.scrollWidth > box.clientWidth + 1)
          .map(box => [box.tabIndex, getComputedStyle(box).backgroundImage.split("linear-gradient").length - 1])"""
    )
    assert all(found == [0, 4] for found in wide)


def test_the_tested_mark_leads_to_the_source_of_the_test(visit: Visit, site: Path) -> None:
    for mark in visit.show().locator("a.tested").all():
        page, anchor = mark.get_attribute("href").split("#")
        file, name = mark.get_attribute("data-test").split("::")
        target = (site / "book" / page).read_text(encoding="utf8").split(f'id="{anchor}"')[1]
        place, code = (re.sub("<[^>]+>", "", part) for part in target.split("</p>", 1))
        assert f"{file}::{name}" in place
        assert f"def {name}(" in code.split("\n\n\n")[0]
        assert mark.get_attribute("aria-label").startswith("tested: ")


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    """Tab visits, once and in turn, whatever can be clicked, set or scrolled, and leaves the page at its end."""
    page = visit.show()
    wanted = page.evaluate(
        """() => {
          window.stops = [];
          const nodes = [...document.querySelectorAll("a[href], button, input, summary, select, textarea")]
            .filter(node => node.checkVisibility({visibilityProperty: true}) && !node.matches(".copybtn"))
            .filter(node => !node.matches("[type=radio]:not(:checked)"));  // arrow keys go on to these
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
    for figure in page.locator("figure.explorable:not([data-frames])").all():
        slider, shown = figure.locator("input[type=range]"), figure.locator("img:visible")
        labels = slider.get_attribute("data-labels").split("|")
        slider.focus()
        for key, frame in (("Home", 0), ("ArrowRight", 1), ("End", -1), ("ArrowLeft", -2)):
            page.keyboard.press(key)
            assert shown.count() == 1
            assert shown.get_attribute("alt").endswith(f"({labels[frame]})")
            assert slider.get_attribute("aria-valuetext") == labels[frame]
            assert figure.locator("output").text_content() == labels[frame]


def test_an_explorable_shows_what_python_computed(visit: Visit) -> None:
    page = visit.show()
    for figure in page.locator("figure.explorable[data-frames]").all():
        frames = json.loads(figure.get_attribute("data-frames"))
        controls = figure.locator("[data-count]").all()
        for control in controls:
            switches = control.locator("[type=checkbox]").all()
            chosen = control.locator("input[type=range], input[type=radio]:checked")
            for moved in switches or [chosen]:
                moved.focus()
                for key in ["Space"] if switches else ["Home", "ArrowRight", "End", "ArrowLeft"]:
                    page.keyboard.press(key)
                    index = 0
                    for labels, one in zip(frames["labels"], controls, strict=True):
                        index = index * int(one.get_attribute("data-count")) + _place(one, labels)
                    drawn = figure.locator("svg path[data-curve]").evaluate_all(
                        "all => all.map(p => p.getAttribute('d'))"
                    )
                    told = frames["told"][frames["at"][index] if "at" in frames else index]
                    assert drawn == frames["paths"][index]
                    assert figure.locator(".told").text_content() == told
                    assert figure.locator("svg").get_attribute("aria-label").endswith(told)


@pytest.mark.parametrize(("size", "least"), [(PHONE, 10), (NARROW, 9)], ids=["390", "320"])
def test_the_text_of_an_explorable_can_be_read_on_a_phone(visit: Visit, size: dict[str, int], least: float) -> None:
    page = visit.show(size=size)
    for figure in page.locator("figure.explorable").all():
        texts = """all => all.map(t => [t.textContent, parseFloat(getComputedStyle(t).fontSize) * t.getCTM().a,
                                        t.getBoundingClientRect().right, t.getBoundingClientRect().left])"""
        frame = figure.bounding_box()
        for text, pixels, right, left in figure.locator("svg text").evaluate_all(texts):
            assert pixels >= least, text
            assert frame["x"] - 1 <= left <= right <= frame["x"] + frame["width"] + 1, text
        for control in figure.locator("[data-count]:has([type=range])").all():
            name, value = control.locator("label").bounding_box(), control.locator("output").bounding_box()
            assert abs(name["y"] - value["y"]) < 2  # the value stands beside the name, not above the next one


def test_the_text_of_a_figure_has_ten_pixels_on_a_phone(visit: Visit) -> None:
    if not (notebooks.ROOT / "data" / "claims" / f"{Path(visit.document).stem}.toml").exists():
        pytest.skip("its figures are still of the first edition")
    page = visit.show(size=PHONE)
    sizes = """all => all.flatMap(svg => [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(
        t => [t.textContent, parseFloat(getComputedStyle(t).fontSize) * svg.getScreenCTM().a]))"""
    found = page.locator("article svg[viewBox]:not([role=presentation])").evaluate_all(sizes)
    assert found
    assert [(text, pixels) for text, pixels in found if pixels < 9.99] == []


def _place(control: Locator, labels: list[str]) -> int:
    """Which of its values a control shows, and that it says so."""
    switches = control.locator("[type=checkbox]").all()
    if switches:
        return int("".join(str(int(switch.is_checked())) for switch in switches), 2)
    chosen = control.locator("input[type=range], input:checked")
    place = int(chosen.input_value())
    told = chosen.get_attribute("aria-valuetext") or control.locator("label:has(:checked)").inner_text()
    assert told == labels[place]
    return place


def test_the_claims_page_shows_what_is_chosen(reader: Visit, address: str) -> None:
    page = reader.open(f"{address}/book/claims.html").show()
    cards = page.locator("section.claim")
    everything = cards.count()
    assert page.locator("section.claim:visible").count() == everything > 50
    page.locator('[name="verdict"][value="corrected"]').check()
    shown = page.locator("section.claim:visible")
    assert {*shown.locator(".verdict").all_text_contents()} == {"corrected"}
    page.locator('[name="chapter"][value="1"]').check()
    assert all(text.startswith("Claim 1.") for text in shown.locator(".number").all_text_contents())
    page.locator('[name="verdict"][value="all"]').check()
    assert {*shown.evaluate_all("all => all.map(card => card.dataset.chapter)")} == {"1"}
    # A chapter without such a claim is not named either; the page says how many are left.
    assert page.locator(".claims-of > h2:visible").count() == 1
    assert page.locator("output.shown").text_content() == f"{shown.count()} of {everything} claims shown."
    target = shown.first.locator(".number").get_attribute("href")
    page.goto(f"{address}/book/{target}")
    assert page.locator(f"#{target.split('#')[1]}").is_visible()


def test_a_card_is_read_out_as_sentences(reader: Visit, address: str) -> None:
    page = reader.open(f"{address}/book/claims.html").show()
    for card in page.locator("section.claim").all()[::9]:
        tree = card.aria_snapshot()
        assert re.match(r'- group "Claim \d+\.\d+":', tree), tree
        assert re.search(r"- (strong|text): (holds|corrected|refuted|undecided|(not )?reproduced here)", tree), tree
        assert re.search(r'- img "measured \S+(, interval \S+ to \S+)?; true (up to|from) ', tree), tree
        assert "On the axis" not in tree


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_claims_are_chosen_by_keyboard_on_a_phone(reader: Visit, address: str, scheme: str) -> None:
    page = reader.open(f"{address}/book/claims.html").show(scheme, PHONE)
    page.locator('[name="verdict"]:checked').focus()
    page.keyboard.press("ArrowRight")
    chosen = page.locator('[name="verdict"]:checked')
    assert chosen.get_attribute("value") == "holds"
    assert {*page.locator("section.claim:visible .verdict").all_text_contents()} == {"holds"}
    # What is chosen has a ring, and both rows of buttons lie within the window.
    ring = "getComputedStyle(document.activeElement.parentElement).outlineStyle"
    assert page.evaluate(ring) == "solid"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    shown = page.locator("section.claim:visible")
    assert {*shown.evaluate_all("all => all.map(card => card.dataset.chapter)")} == {"1"}
    boxes = page.locator("fieldset.choose label").evaluate_all(
        "all => all.map(label => label.getBoundingClientRect()).map(box => [box.left, box.right, box.height])"
    )
    assert all(left >= 0 and right <= PHONE["width"] and height >= 24 for left, right, height in boxes)


def test_claims_are_chosen_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/book/claims.html")
    page.locator('[name="verdict"][value="refuted"]').check()
    assert {*page.locator("section.claim:visible .verdict").all_text_contents()} == {"refuted"}
    assert page.locator("output.shown").text_content() == ""
    context.close()


def test_without_scripts_no_control_of_a_chapter_is_dead(browser: Browser, address: str) -> None:
    """What is left to be clicked works without scripts: links, folds, and the theme's menus."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for document in DOCUMENTS:
        if re.match(r"book/\d\d-", document):
            page.goto(f"{address}/{document}.html")
            page.evaluate(NOTHING_WAITS)
            dead = page.locator("article :is(button, input, select, [role=slider], noscript):visible")
            assert dead.count() == 0, document
            for figure in page.locator("figure.explorable").all():
                assert figure.locator("img:visible, svg:visible").count() == 1
                assert figure.locator("output").count() == figure.locator("input[type=range]").count()
    context.close()


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
    for figure in page.locator("figure.explorable").all():
        assert figure.locator("img:visible, svg:visible").count() == 1
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
    page.wait_for_load_state("networkidle")  # the page's icon would be given up with the page, and fail
    page.keyboard.press("Control+k")
    page.keyboard.type("orthogonal")
    page.keyboard.press("Enter")
    # Results come one after the other.
    page.locator(f'#search-results a[href*="{DOCUMENTS[1]}"]').first.wait_for()
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


def test_the_search_page_has_the_frame_of_the_others(reader: Visit, address: str) -> None:
    reader.page.goto(f"{address}/search.html?q=orthogonal")
    reader.page.locator("#search-results a").first.wait_for()
    reader.page.get_by_role("button", name="Color mode").click()
    assert reader.page.evaluate("document.documentElement.dataset.mode") == "dark"


def test_the_contents_show_the_section_that_is_read(reader: Visit, address: str) -> None:
    page = reader.open(f"{address}/{DOCUMENTS[1]}.html").show()
    links = page.locator("#pst-page-toc-nav .toc-h2 > a")
    current = page.locator("#pst-page-toc-nav [aria-current=true]")
    before, read = (links.nth(k).get_attribute("href") for k in (1, 3))
    page.evaluate("id => document.getElementById(id).scrollIntoView()", read[1:])
    page.locator(f"#pst-page-toc-nav .toc-h2.active > a[href='{read}']").wait_for()
    assert current.count() == 1
    # On the way back it is a section before, though its heading is far above.
    page.evaluate("id => document.getElementById(id).scrollIntoView({block: 'end'})", before[1:])
    page.locator(f"#pst-page-toc-nav .toc-h2.active > a[href='{before}']").wait_for()
    # What is chosen is shown, whatever comes by on the way to it.
    links.nth(6).click()
    assert current.get_attribute("href") == links.nth(6).get_attribute("href")


def test_code_is_copied_as_it_stands(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport=DESKTOP, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{address}/{DOCUMENTS[1]}.html")
    cell = page.locator("div.cell_input:visible").first
    cell.locator(".copybtn").wait_for(state="attached")
    cell.hover()
    cell.get_by_role("button", name="Copy to clipboard").click()
    cell.locator(".copybtn.success").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == cell.locator("pre").text_content().removesuffix("\n")
    assert copied.startswith(("from ", "import "))
    context.close()


def test_a_page_does_not_lay_out_what_is_far_away(reader: Visit, address: str) -> None:
    """Nothing on a page asks for the size of what waits, which would have it laid out while the page opens."""
    page = reader.page
    page.goto(f"{address}/{DOCUMENTS[1]}.html", wait_until="load")
    page.wait_for_function(LOOKED)
    page.wait_for_timeout(500)
    far = "[...document.querySelectorAll('section.chapter > section pre')].at(-1)"
    # A box that scrolls is a tab stop, and one far away has not been looked at.
    assert page.locator("article [tabindex]").count() < 5
    assert page.evaluate(f"{far}.checkVisibility({{contentVisibilityAuto: true}})") is False


def test_the_pages_of_the_library_fit_a_phone_and_ask_for_nothing_that_is_not_there(
    reader: Visit, address: str
) -> None:
    for document in LIBRARY:
        page = reader.open(f"{address}/{document}.html").show(size=PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], document
        assert reader.complaints == [], document


def test_the_menu_of_a_phone_opens_and_closes(reader: Visit, address: str) -> None:
    page = reader.open(f"{address}/{DOCUMENTS[0]}.html").show(size=PHONE)
    menu = page.locator("dialog[open] nav[aria-label=Main]")
    page.locator(".primary-toggle").first.click()
    assert menu.get_by_role("link").count() >= len([name for name in DOCUMENTS if "/api/" not in name])
    page.keyboard.press("Escape")
    menu.wait_for(state="detached")
    page.locator(".search-button").first.click()
    field = page.locator("dialog[open] input[type=search]")
    field.press("Escape")
    field.wait_for(state="hidden")
    # The contents of the page close when a section is chosen.
    contents = page.locator("dialog[open] #pst-page-toc-nav")
    page.goto(f"{address}/{DOCUMENTS[1]}.html")
    page.locator(".secondary-toggle").first.click()
    contents.get_by_role("link").nth(2).click()
    contents.wait_for(state="detached")


def test_a_report_of_a_mistake_says_where_the_reader_is(browser: Browser) -> None:
    """Begun beside the text, it names the last section, figure and cell above the middle of the window."""
    url = citing.report("book/01-angles", "Angles", "1.0.0", "https://github.com/org/repo")
    shown = ("Figure 1.2", "")
    cells = [f'<div class="cell"><pre>first = {k}\nsecond</pre>{text}</div>' for k, text in enumerate(shown)]
    gap = '<p style="height: 3000px"></p>'
    page = browser.new_page()
    page.set_content(
        f'<a class="report here" href="{escape(url)}" style="position: fixed; top: 0">Report</a>'
        f'<article class="bd-article"><h1>Angles<a class="headerlink">#</a></h1><h2>One</h2>{cells[0]}'
        f"{gap}<h2>Two</h2>{gap}{cells[1]}{gap}</article>"
    )
    page.add_script_tag(path=notebooks.ROOT / "_static" / "book.js")
    page.evaluate('document.addEventListener("click", (event) => event.preventDefault())')

    def place() -> str:
        page.click("a.report")
        body = page.evaluate('new URL(document.querySelector("a.report").href).searchParams.get("body")')
        return re.search("^Place: (.*)$", body, re.M)[1]

    assert place() == 'section "One", Figure 1.2, cell that begins "first = 0"'
    page.evaluate('document.querySelectorAll("h2")[1].scrollIntoView()')
    assert place() == 'section "Two"'
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert place() == 'section "Two", cell that begins "first = 1"'
    page.close()
