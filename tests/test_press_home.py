"""The public home: formulas typeset when the site is built, files joined, the front page, what links show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lib.press import address, assets, formulas, front, heads, hooks, notebooks

# --- formulas -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def typesetter() -> formulas.Typesetter:
    return formulas.Typesetter()


def test_a_formula_is_a_drawing_with_what_a_screen_reader_reads(typesetter):
    html = typesetter(r"\frac{a}{b}", display=False)
    drawn = ElementTree.fromstring(html)
    assert drawn.find("svg").get("aria-hidden") == "true"
    assert [node.tag for node in drawn.find("mjx-assistive-mml/math/mfrac")] == ["mi", "mi"]
    assert "data-" not in html
    assert "MJX" not in html


def test_a_displayed_formula_has_its_number(typesetter):
    html = typesetter(r"x^2 \tag{1.3}", display=True)
    assert "<mtext>(1.3)</mtext>" in html
    assert 'display="true"' in html
    assert 'width="full"' in html
    # The same number may be drawn again, as a formula and in the contents of the page.
    assert typesetter(r"y \tag{1.3}", display=True)


def test_every_glyph_of_a_page_is_defined_once_and_before_it_is_used(typesetter):
    one, two = typesetter(r"x + \boldsymbol{y}", display=False), typesetter(r"\sqrt{x} \ge 1", display=True)
    page = typesetter.defined(f"<p>{one}</p><div>{two}</div>")
    defined = re.findall(r'<path id="(mj-[\w-]+)"', page)
    used = re.findall(r'href="#(mj-[\w-]+)"', page)
    assert len(defined) == len({*defined})
    assert {*used} == {*defined}
    for name in defined:
        assert page.index(f'id="{name}"') < page.index(f'href="#{name}"')


@pytest.mark.parametrize("wrong", [r"\nosuchmacro", r"\frac{1}", r"\left( x", "{"])
def test_what_cannot_be_typeset_stops_the_build(typesetter, wrong):
    with pytest.raises(formulas.FormulaError, match="cannot be typeset"):
        typesetter(wrong, display=False)


def test_what_was_typeset_is_kept_until_its_maker_changes(tmp_path, monkeypatch):
    store = tmp_path / "formulas.json"
    first = formulas.Typesetter(store)
    html = first("x", display=False)
    first.save()
    monkeypatch.setattr(formulas, "_engine", lambda: pytest.fail("it was typeset again"))
    again = formulas.Typesetter(store)
    assert again("x", display=False) == html
    assert again.defined(html) == first.defined(html)
    store.write_text(json.dumps(json.loads(store.read_text()) | {"made by": "another"}))
    assert formulas.Typesetter(store).formulas == {}


def test_every_formula_of_a_page_refers_to_glyphs_of_the_page(site):
    for page in sorted((site / "book").rglob("*.html")):
        text = page.read_text(encoding="utf8")
        used = {*re.findall(r'href="#(mj-[\w-]+)"', text)}
        assert used <= {*re.findall(r'id="(mj-[\w-]+)"', text)}, page.name


# --- style sheets and scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (".a{x:y}", True),
        (".b{x:y}", False),
        (".a .b{x:y}", False),
        ("#c>.a{x:y}", True),
        ("p:not(.b){x:y}", True),
        (":is(.b,.d){x:y}", True),
        ('a[href$=".b"]{x:y}', True),
        ("@media print{.b{x:y}}", False),
        ("@keyframes b{from{x:y}}", True),
        ("@font-face{src:url(b.woff2)}", False),
        ('@import "b.css";', False),
        ('.a{x:url("data:,{.b}")}', True),
        ('@charset "utf-8";', True),
    ],
)
def test_a_rule_stays_if_a_page_can_need_it(rule, kept):
    assert assets.purged(rule, {"a", "c"}) == (rule if kept else "")


def test_of_a_list_of_selectors_the_needed_ones_stay():
    assert assets.purged("/* .a */ .b, .a:is(.c, .d) , #c { x: y; }", {"a", "c"}) == ".a:is(.c, .d),#c{x: y;}"


def test_files_are_joined(tmp_path):
    static = tmp_path / "_static"
    static.mkdir()
    (tmp_path / "page.html").write_text('<p class="a">.b</p>')
    (static / "one.css").write_text(".a{x:y}.b{x:y}")
    (static / "two.css").write_text(".later{x:y}")
    (static / "one.js").write_text("f('later')")
    (static / "searchtools.js").write_text("g()")
    assets.write(tmp_path, ["one.css", "two.css"], ["one.js"])
    assert (static / "site.css").read_text() == ".a{x:y}\n.later{x:y}"
    assert (static / "site.js").read_text() == "f('later');"


def test_only_what_a_page_loads_stays(tmp_path):
    static = tmp_path / "_static"
    for name in (
        "site.css",
        "one.css",
        "search.js",
        "scripts/other.js",
        "site.css.map",
        "images/back.svg",
        "images/logo.svg",
    ):
        (static / name).parent.mkdir(parents=True, exist_ok=True)
        (static / name).write_text("")
    (static / "part.html").write_text('<img src="../_static/one.css">')  # a part of the theme's, no page
    (static / "site.css").write_text("a { background: url(images/back.svg) } /*# site.css.map */")
    (tmp_path / "index.html").write_text('<link href="_static/site.css?v=1">')
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "a.html").write_text("<script src='../_static/search.js'></script>")
    for _ in range(2):  # a second time there is nothing to do
        assets.clean(tmp_path)
        left = {path.relative_to(static).as_posix() for path in static.rglob("*")}
        assert left == {"site.css", "search.js", "images", "images/back.svg"}


def test_code_has_the_colours_of_the_theme_in_the_light_and_in_the_dark(site):
    """The theme writes them at the very end of the build; what is joined before has those of the builder."""
    css = (site / "_static" / "site.css").read_text(encoding="utf8")
    for scheme in ("light", "dark"):
        assert f'html[data-theme="{scheme}"] .highlight .k' in css
    assert {file.name for file in (site / "_static").glob("*.css")} == {"site.css"}


def test_the_address_of_the_files_changes_with_what_they_are_made_of(tmp_path):
    (tmp_path / "_static").mkdir()
    for name in ("book.css", "book.js", "frame.js"):
        (tmp_path / "_static" / name).write_text(name)
    marks = {assets.mark(tmp_path, "a"), assets.mark(tmp_path, "b")}
    (tmp_path / "_static" / "book.css").write_text("other")
    assert len(marks | {assets.mark(tmp_path, "a")}) == 3


# --- the front page --------------------------------------------------------------------------------------------


def markdown(directive, *content) -> str:
    made = object.__new__(directive)
    made.content = content
    return "\n".join(made.markdown())


@pytest.mark.parametrize("dimension", front.DIMENSIONS)
def test_the_emblem_draws_a_density(dimension):
    steps = 2000
    width = 3.141592653589793 / steps
    total = sum(width * front.density(dimension, (k + 0.5) * width) for k in range(steps))
    assert total == pytest.approx(1, abs=1e-6)


def test_half_of_all_pairs_lie_where_the_emblem_says():
    """In four dimensions the share within t of a right angle is (2t + sin 2t)/π; in many it is nearly normal."""
    from math import asin, degrees, pi, radians, sin

    within = radians(front.half_within(4))
    assert (2 * within + sin(2 * within)) / pi == pytest.approx(0.5, abs=1e-4)
    assert front.half_within(100) == pytest.approx(degrees(asin(0.6745 / 99**0.5)), rel=0.01)


def test_findings_are_claims_of_the_book():
    text = markdown(front.Findings, "2.1 8.9")
    assert text.count("<li class=") == 2
    assert "40\u00a0% to 60\u00a0%" in text  # a line does not begin with a percent sign
    assert 'href="02-initializers.html#claim-2-1"' in text
    assert "<b>Instead:</b>" in text
    assert 'class="strip"' in text
    with pytest.raises(ValueError, match=r"there is no claim 99\.9"):
        markdown(front.Findings, "2.1", "99.9")


def test_every_chapter_has_its_card():
    lines = [f"{path.stem}: taken: home" for path in notebooks.chapters()]
    text = markdown(front.Chapters, *lines)
    assert text.count("<li>") == text.count("taken: home") == text.count('loading="lazy"') == 9
    with pytest.raises(ValueError, match="each chapter once"):
        markdown(front.Chapters, *lines[1:])


def test_the_picture_of_a_chapter_is_its_first_figure():
    for path in notebooks.chapters():
        drawing = ElementTree.fromstring(hooks.picture(path))
        panels = drawing.findall("{http://www.w3.org/2000/svg}svg")
        assert 1 <= len(panels) <= hooks.PANELS
        names = re.findall(r'\bid="([^"]+)"', hooks.picture(path))
        assert len(names) == len({*names})


# --- what links show ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("<p>before it</p><h1>T</h1><p>The   <i>first</i> one.</p><p>x</p>", "The first one."),
        ("<h1>T</h1><p>one</p><p>Two words &amp; more.</p>", "Two words & more."),
        ("<h1>T</h1><p>See <svg><text>no</text></svg>it now.</p>", "See it now."),
        ("<h1>T</h1><p>It is <math><msup><mn>10</mn><mn>3</mn></msup></math>.</p>", "It is 10^3."),
        ("", ""),
    ],
)
def test_a_page_is_described_by_its_first_paragraph(body, told):
    assert heads.description(body) == told


def test_a_description_is_cut_at_a_word():
    told = heads.description(f"<h1>T</h1><p>{'word ' * 60}</p>")
    assert len(told) <= heads.LONGEST
    assert told.endswith("word…")


def test_every_page_describes_itself(site):
    descriptions = {}
    for page in sorted((site / "book").rglob("*.html")):
        found = re.findall(r'<meta name="description" content="([^"]*)">', page.read_text(encoding="utf8"))
        assert len(found) == 1, page.name
        assert len(found[0]) >= 15, page.name
        descriptions[page.name] = found[0]
    assert len({*descriptions.values()}) == len(descriptions)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://github.com/Org/book", "https://org.github.io/book/"),
        ("https://github.com/org/Org.github.io", "https://org.github.io/"),
        ("https://example.org/book.git", ""),
        ("", ""),
    ],
)
def test_the_site_of_a_repository(url, place):
    assert address.site(url) == place


def test_with_an_address_there_are_cards_a_map_and_a_way_back(tmp_path, monkeypatch):
    chapter = notebooks.chapters()[0]
    monkeypatch.setattr(notebooks, "chapters", lambda: [chapter])
    heads.write(tmp_path, "https://org.github.io/book/", ["book/index", "book/01-angles"])
    for name in ("card-01-angles.png", "card-book.png"):
        picture = (tmp_path / "_images" / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert tuple(int.from_bytes(picture[at : at + 4]) for at in (16, 20)) == hooks.CARD
        assert len(picture) > 5000
    places = ElementTree.parse(tmp_path / "sitemap.xml").getroot()
    assert places[1][0].text == "https://org.github.io/book/book/01-angles.html"
    assert "Sitemap: https://org.github.io/book/sitemap.xml" in (tmp_path / "robots.txt").read_text()
    assert 'href="https://org.github.io/book/book/index.html"' in (tmp_path / "404.html").read_text()
    monkeypatch.setattr(hooks, "png", lambda _: pytest.fail("it was drawn again"))
    heads.write(tmp_path, "https://org.github.io/book/", [])


def test_without_an_address_nothing_says_where_the_site_is(tmp_path):
    heads.write(tmp_path, "", ["book/index"])
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"robots.txt", "404.html"}
    assert "Sitemap" not in (tmp_path / "robots.txt").read_text()


def test_the_root_of_the_site_leads_to_the_front_page_and_says_the_same_of_itself(site: Path):
    root, front_page = ((site / name).read_text(encoding="utf8") for name in ("index.html", "book/index.html"))
    metas = r'<meta (?:name="description"|property="og:[^"]*") content="[^"]*">'
    assert re.findall(metas, root) == re.findall(metas, front_page) != []
    assert "<title>Proof by Running</title>" in root
    assert '<a href="book/index.html">' in root


def test_a_card_holds_its_title_on_two_lines_at_most():
    card = hooks.card(
        "A title & one that is far too long to stand on one line of a card", "above", '<svg viewBox="0 0 1 1"/>'
    )
    lines = re.findall(r"<text[^>]*bold[^>]*>([^<]*)<", card)
    assert len(lines) == 2
    assert "&amp;" in card
    ElementTree.fromstring(card)


def test_the_pages_of_the_site_have_canonical_links_only_with_an_address(site: Path):
    page = (site / "book" / "01-angles.html").read_text(encoding="utf8")
    assert ("og:image" in page) == ('rel="canonical"' in page) == bool(address.site(address.address()))
    assert 'property="og:title"' in page
