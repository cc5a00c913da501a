"""What a translator translates: everything on a page that is read, and nothing else."""

import os
import re
import shutil

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from bs4 import BeautifulSoup

from lib.press import messages, notebooks, site

CARD = """<article>
<section class="claim holds" aria-label="Claim 5.1"><p class="head"><b class="verdict">holds</b></p>
<p class="statement">At least 35 words in 100 are misread.</p>
<svg role="img" aria-label="measured 43.8; true from 35 on"><desc>True from 35 on.</desc><text>34</text>
<text>words</text></svg></section>
<figure class="explorable"
 data-frames='{"alt": "Bars.", "labels": [["1 of 8", "2 of 8"], ["b"]], "told": ["3 wins"]}'>
<label>Letters</label><p class="told">3 wins</p></figure>
<details><summary>Code of figure 5.1</summary><pre>plot()</pre></details>
<p>Markdown is Sphinx's.</p><img alt="A curve"></article>"""


def english(catalog):
    return {message.id for message in catalog if message.id}


def test_what_stands_as_html_is_extracted_once_with_places_for_its_numbers():
    assert english(messages.extracted({"book/05": CARD, "book/06": CARD})) == {
        "Claim {0}",
        "holds",
        "At least {0} words in {1} are misread.",
        "measured {0}; true from {1} on",
        "True from {0} on.",
        "Bars.",
        "{0} of {1}",
        "{0} wins",
        "Letters",
        "Code of figure {0}",
        "A curve",
    }


def pseudo(catalog):
    """Every message within brackets, as its own translation."""
    other = Catalog(locale="fr", charset="utf-8")
    for message in catalog:
        if message.id:
            other.add(message.id, f"⟦{message.id}⟧")
    return other


def test_a_translation_takes_the_numbers_of_the_page():
    soup = BeautifulSoup(messages.translated(CARD, pseudo(messages.extracted({"a": CARD}))), "html.parser")
    assert soup.find(class_="statement").get_text() == "⟦At least 35 words in 100 are misread.⟧"
    assert soup.find("svg")["aria-label"] == "⟦measured 43.8; true from 35 on⟧"
    assert [text.get_text() for text in soup.find_all("text")] == ["34", "words"]
    assert '"⟦1 of 8⟧", "⟦2 of 8⟧"' in soup.find("figure")["data-frames"].replace(",", ", ").replace(",  ", ", ")
    assert soup.find("summary").get_text() == "⟦Code of figure 5.1⟧"
    assert soup.find("p", class_=None).get_text() == "Markdown is Sphinx's."


def test_what_is_not_translated_stays():
    once = str(BeautifulSoup(CARD, "html.parser", multi_valued_attributes=None))
    assert messages.translated(CARD, Catalog()) == once


def test_a_place_that_no_number_fills_is_refused():
    catalog = Catalog()
    catalog.add("A curve", "Une courbe de {0}")
    with pytest.raises(ValueError, match="the translation of 'A curve' must have places below 0"):
        messages.translated(CARD, catalog)


def test_every_term_of_the_notation_page_has_its_translation():
    glossary, terms = messages.glossary(), messages.terms()
    assert len(terms) == len({*terms}) > 25
    assert {*terms} == {*glossary}
    assert all(re.search(r"[\u4e00-\u9fff]", row["zh_CN"]) for row in glossary.values())


def test_nothing_on_a_page_is_left_that_cannot_be_translated(tmp_path):
    """A chapter, built in a language in which every message stands in brackets."""
    for name in ("_static", "_templates"):
        shutil.copytree(notebooks.ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        shutil.copyfile(notebooks.ROOT / name, tmp_path / name)
    shutil.copyfile(notebooks.ROOT / "book/references.bib", tmp_path / "references.bib")
    shutil.copyfile(notebooks.ROOT / "book/05-memm.ipynb", tmp_path / "05-memm.ipynb")
    config = (notebooks.ROOT / "_config.yml").read_text().replace("book/references.bib", "references.bib")
    (tmp_path / "_config.yml").write_text(config)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: 05-memm\n")

    def build(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(notebooks.ROOT)}
        run = site.jupyter_book(tmp_path, *arguments, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    build()
    build("--builder", "custom", "--custom-builder", "gettext", "--path-output", "extracted")
    folder = tmp_path / "locale" / "fr" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for pot in (tmp_path / "extracted" / "_build" / "gettext").glob("*.pot"):
        with pot.open("rb") as source, (folder / f"{pot.stem}.po").open("wb") as target:
            write_po(target, pseudo(read_po(source)), width=0)
    made = messages.extracted({"05-memm": (tmp_path / "_build/html/05-memm.html").read_text()})
    with (folder / "html.po").open("wb") as target:
        write_po(target, pseudo(made), width=0)
    (tmp_path / "_config.yml").write_text(config.replace("language: en", "language: fr"))
    build("--all")

    article = BeautifulSoup((tmp_path / "_build/html/05-memm.html").read_text(), "html.parser").find("article")
    for tag in article.select(
        "pre, code, svg, script, math, .math, .headerlink, .section-number, .copybtn, .prev-next-footer"
    ):
        tag.decompose()
    blocks = article.find_all(["p", "li", "h1", "h2", "h3", "td", "th", "summary", "label", "figcaption", "legend"])
    left = [block.get_text(" ", strip=True) for block in blocks]
    left = [text for text in left if re.search(r"[^\W\d_]{2}", text) and "⟦" not in text]
    assert len(blocks) > 100
    assert left == []
