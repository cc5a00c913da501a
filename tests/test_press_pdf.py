"""The book as one PDF: pages joined, links led, contents numbered, and printed."""

import re

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader
from shared import require

from lib.press import pdf, site
from lib.press.browser import chromium, launched

PAGES = {
    "book/01-a": """<html><head><link rel="stylesheet" href="../_static/book.css"></head>
<body><nav>Menu</nav><article><section id="one"><h1>1. One &amp; all<a class="headerlink" href="#one">#</a></h1>
<p>See <a href="02-b.html#law">the law</a>, <a href="02-b.html">chapter 2</a>, <a href="#why">why</a>,
<a href="https://example.org/x.html">the world</a>, <a href="api/a.html">the code</a>,
<a class="tested" href="tests.html#t" data-test="tests/test_a.py::test_law">tested</a>.</p>
<details><summary>Code of figure 1.1</summary><pre>plot()</pre></details>
<svg><defs><clipPath id="c"/></defs><g clip-path="url(#c)"><use xlink:href="#c"></use></g></svg>
<section id="why"><h2>1.1 Why</h2><p>Because.</p></section></section></article></body></html>""",
    "book/02-b": """<html><head></head><body><article><section id="two"><h1>2. Two</h1>
<h2 id="rule">A rule</h2>
<section id="law"><h2>2.1 The law</h2><svg><clipPath id="c"/></svg></section></section></article></body></html>""",
}


@pytest.fixture(scope="module")
def joined():
    html, headings = pdf.joined(PAGES)
    return BeautifulSoup(html, "html.parser", multi_valued_attributes=None), headings


def test_a_link_between_joined_pages_leads_within_the_document(joined):
    document, _ = joined
    links = {link.get_text(): link["href"] for link in document.find("section").find_all("a")}
    assert links == {
        "the law": "#02-b--law",
        "chapter 2": "#02-b--top",
        "why": "#01-a--why",
        "the world": "https://example.org/x.html",
    }
    names = {tag["id"] for tag in document.find_all(id=True)}
    assert {link["href"][1:] for link in document.find_all("a") if link["href"].startswith("#")} <= names


def test_no_name_is_there_twice(joined):
    names = [tag["id"] for tag in joined[0].find_all(id=True)]
    assert len(names) == len({*names})
    assert {"01-a--c", "02-b--c"} <= {*names}


def test_drawings_refer_to_their_own_parts(joined):
    assert joined[0].find("g")["clip-path"] == "url(#01-a--c)"
    assert joined[0].find("use")["xlink:href"] == "#01-a--c"


def test_what_is_folded_or_clicked_is_left_out(joined):
    text = joined[0].get_text()
    assert "plot()" not in text
    assert "Menu" not in text
    assert "One & all#" not in text
    assert "the code" in text


def test_the_name_of_a_test_is_printed_where_its_page_is_left_out(joined):
    mark = joined[0].find("span", class_="tested")
    assert mark["data-test"] == "tests/test_a.py::test_law"


def test_the_contents_name_chapters_and_sections(joined):
    assert [(heading.level, heading.text, heading.anchor) for heading in joined[1]] == [
        (1, "1. One & all", "01-a--top"),
        (2, "1.1 Why", "01-a--why-heading"),
        (1, "2. Two", "02-b--top"),
        (2, "A rule", "02-b--rule"),
        (2, "2.1 The law", "02-b--law-heading"),
    ]
    assert "<" not in pdf.filled("".join(re.findall(r"\{page:[^}]+\}", str(joined[0]))), {})


def test_a_page_without_an_article_is_refused():
    with pytest.raises(pdf.PdfError, match="book/01-a has no article"):
        pdf.joined({"book/01-a": "<html></html>"})


def test_a_site_that_is_not_built_is_refused(tmp_path):
    with pytest.raises(pdf.PdfError, match=r"book/01-angles is not built: run `make book`"):
        pdf.build(tmp_path / "book.pdf", tmp_path)


@pytest.mark.browser
def test_a_character_that_no_font_has_is_known_by_its_box():
    require(chromium() is not None, "Chromium prints the book, and there is none here")
    with launched() as browser:  # and closed before another test prints
        page = browser.new_page()
        assert pdf.alike(page, "\ue000", "\ue001")  # for private use
        assert not pdf.alike(page, "a", "b")


@pytest.mark.browser
def test_the_contents_say_where_chapters_begin(tmp_path, monkeypatch):
    require(chromium() is not None, "Chromium prints the book, and there is none here")
    chapters = [tmp_path / f"{name}.ipynb" for name in PAGES]
    monkeypatch.setattr(pdf.notebooks, "chapters", lambda: chapters)
    monkeypatch.setattr(pdf, "BESIDE", ())
    folder = tmp_path / site.SITE
    (folder / "book").mkdir(parents=True)
    for name, html in PAGES.items():
        (folder / f"{name}.html").write_text(html)
    (folder / "book" / "index.html").write_text('<p id="pdf" hidden></p>')
    file = folder / pdf.FILE.name
    assert pdf.build(file, tmp_path) == 4  # title, contents, two chapters
    title, contents, first, second = (page.extract_text() for page in PdfReader(file).pages)
    assert "Proof by Running" in title
    assert re.findall(r"(\d\. .*?)\s*(\d+)\n", contents + "\n") == [("1. One & all", "3"), ("2. Two", "4")]
    assert "Because." in first
    assert "2.1 The law" in second
    assert 'href="../proof-by-running.pdf"' in (folder / "book" / "index.html").read_text()
    assert sorted(path.name for path in (folder / "book").iterdir()) == ["01-a.html", "02-b.html", "index.html"]
