"""The whole book as one PDF: ``python -m lib.press.pdf [--out FILE]``.

Joins the chapters of the built site, and the pages beside them that read well on paper, into one document, and lets
Chromium print it: the same formulas, figures and cards as on the pages. Links between joined pages lead within the
document, links to the world stay live, others become text. Folded code and worked solutions are left out. It is
printed twice, since the pages of the contents are known only after the first time.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Page
from pypdf import PdfReader

from lib.press import browser, notebooks, release, site

#: Where the printed book lies: within the site, for download.
FILE = site.SITE / "proof-by-running.pdf"
#: The pages beside the chapters that are read on paper; the others are lists to look things up.
BESIDE = ("book/notation", "book/devices", "book/corrections", "book/teaching", "book/references")
#: An empty paragraph of the front page: it offers the PDF once there is one.
_OFFER = '<p id="pdf" hidden></p>'
#: What is of no use on paper: folded code, worked solutions, what is clicked.
_LEFT_OUT = "details, script, .headerlink, .copybtn, .prev-next-footer, fieldset.choose, output.shown"
_ADDRESS = re.compile(r"^(?:([\w./-]+)\.html)?(?:#(.*))?$")
_REFERENCE = re.compile(r"url\((['\"]?)#([^)'\"]+)\1\)")
_CHINESE = re.compile("[\u4e00-\u9fff]")
#: Whether two characters look the same, as all do that no font has: boxes.
_ALIKE = """
  ([one, other]) => {
    const drawn = (text) => {
      const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
      pen.font = "40px sans-serif";
      pen.fillText(text, 10, 60);
      return canvas.toDataURL();
    };
    return drawn(one) === drawn(other);
  }
"""
_STYLE = """
@page { size: A4; margin: 20mm 18mm 22mm; @bottom-center { content: counter(page); font: 9pt sans-serif; } }
@page :first { @bottom-center { content: none; } }
body { background: none; }
.bd-article > section, .contents { break-before: page; }
.title-page { padding-top: 60mm; text-align: center; }
.title-page h1 { font-size: 30pt; }
.title-page p { margin: 0 auto 1rem; max-width: 30rem; text-wrap: balance; }
.contents ol { list-style: none; padding: 0; max-width: none; }
.contents li { display: flex; gap: 0.6em; padding: 0.12em 0; break-inside: avoid; }
.contents li span { margin-left: auto; font-variant-numeric: tabular-nums; }
.contents li.chapter { font-weight: 600; padding-top: 0.7em; }
.contents li.section { padding-left: 1.5em; font-size: 0.9em; }
.contents a { color: inherit; text-decoration: none; }
.bd-article span.tested { color: #535f6f; font-size: 0.85em; overflow-wrap: anywhere; }
.bd-article span.tested::after { content: " (" attr(data-test) ")"; }
"""


_DOCUMENT = """<!DOCTYPE html>
<html lang="en" data-theme="light">
<head><meta charset="utf-8"><title>Proof by Running</title>{head}<style>{style}</style></head>
<body><main class="bd-main"><div class="bd-content"><div class="bd-article-container"><article class="bd-article">
<div class="title-page"><h1>Proof by Running</h1>
<p>An executable deep-learning textbook that checks every number it prints</p>
<p>This is the book on paper. Its pages also fold out the code of every figure and the worked solutions of the
exercises, and its notebooks run.</p>
<p>Version {version}</p></div>
<div class="contents"><h1>Contents</h1><ol>{lines}</ol></div>
{body}
</article></div></div></main></body>
</html>"""


class PdfError(RuntimeError):
    """The book could not be printed."""


@dataclass(frozen=True)
class Heading:
    """A line of the contents: a chapter or a section of one.

    Attributes:
        level: 1 or 2.
        text: what it says.
        anchor: where it stands in the joined document.
    """

    level: int
    text: str
    anchor: str


def joined(pages: dict[str, str]) -> tuple[str, list[Heading]]:
    """Many pages as one document.

    Args:
        pages: the HTML of each, by document name such as ``book/01-angles``, in the order of reading.

    Returns:
        The document, with a mark ``{page:anchor}`` for each line of the contents, and these lines.

    Raises:
        PdfError: a page has no article.
    """
    articles = {name: _article(name, html, pages.keys()) for name, html in pages.items()}
    headings = [heading for article in articles.values() for heading in _headings(article)]
    shell = BeautifulSoup(next(iter(pages.values())), "html.parser")
    head = "".join(str(tag) for tag in shell.head.find_all(["link", "style"]) if _dresses(tag))
    body = "".join(article.decode_contents() for article in articles.values())
    lines = "".join(map(_line, headings))
    return _DOCUMENT.format(head=head, style=_STYLE, lines=lines, body=body, version=release.version()), headings


def _line(heading: Heading) -> str:
    """A line of the contents, its page left open."""
    kind = "chapter" if heading.level == 1 else "section"
    return (
        f'<li class="{kind}"><a href="#{heading.anchor}">{escape(heading.text)}</a>'
        f"<span>{{page:{heading.anchor}}}</span></li>"
    )


def _article(name: str, html: str, names: Sequence[str]) -> Tag:
    """The article of a page, its names made unique, its links led to where their targets now are."""
    article = BeautifulSoup(html, "html.parser", multi_valued_attributes=None).find("article")
    if article is None:
        raise PdfError(f"{name} has no article: build the site first")
    for tag in article.select(_LEFT_OUT):
        tag.decompose()
    prefix = _prefix(name)
    for tag in article.find_all(True):
        for attribute in ("id", "for"):
            if tag.get(attribute):
                tag[attribute] = prefix + tag[attribute]
        for attribute in ("aria-labelledby", "aria-describedby"):
            if tag.get(attribute):
                tag[attribute] = " ".join(prefix + one for one in tag[attribute].split())
        for attribute, value in tag.attrs.items():
            if isinstance(value, str) and "url(" in value:
                tag[attribute] = _REFERENCE.sub(rf"url(#{prefix}\2)", value)
        for attribute in ("href", "xlink:href"):
            if tag.get(attribute):
                _lead(tag, attribute, name, names)
    return article


def _lead(tag: Tag, attribute: str, name: str, names: Sequence[str]) -> None:
    """A link within the document, to the world, or none."""
    found = _ADDRESS.match(tag[attribute])
    if not found:
        return  # to the world, or data
    page, anchor = found.groups()
    target = name if page is None else _resolved(page, name)
    if target in names:
        tag[attribute] = f"#{_prefix(target)}{anchor or ''}" if anchor else f"#{_prefix(target)}top"
    elif "data-test" in tag.attrs:
        tag.name = "span"  # the style sheet prints the name of the test
        del tag[attribute]
    elif tag.name == "a":
        tag.unwrap()


def _resolved(page: str, name: str) -> str:
    """The document that a relative link leads to, seen from another."""
    parts = name.split("/")[:-1]
    for part in page.split("/"):
        parts = parts[:-1] if part == ".." else parts if part == "." else [*parts, part]
    return "/".join(parts)


def _prefix(name: str) -> str:
    return name.rsplit("/", 1)[-1] + "--"


def _headings(article: Tag) -> Iterator[Heading]:
    """The first heading and those below it; each gets a name of its own."""
    prefix = None
    for tag in article.find_all(["h1", "h2"]):
        section = tag.find_parent("section")
        if section is None:
            continue
        prefix = prefix or section["id"].split("--")[0] + "--"
        own = tag.get("id") or f"{section['id']}-heading"  # some headings make no section
        anchor = f"{prefix}top" if tag.name == "h1" else own
        tag["id"] = anchor
        yield Heading(int(tag.name[1]), tag.get_text(" ", strip=True), anchor)


def _dresses(tag: Tag) -> bool:
    """Whether something in the head of a page says how it looks."""
    return tag.name == "style" or "stylesheet" in tag.get("rel", "")


def page_numbers(file: Path) -> dict[str, int]:
    """The page of each named place of a PDF, counted from 1."""
    reader = PdfReader(file)
    return {
        name.lstrip("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def filled(html: str, numbers: dict[str, int]) -> str:
    """The marks of the contents, replaced by the pages that they ask for."""
    return re.sub(r"\{page:([^}]+)\}", lambda mark: str(numbers.get(mark[1], "")), html)


def build(file: Path, root: Path = notebooks.ROOT) -> int:
    """Print the built site's book.

    Args:
        file: where to.
        root: the checkout, its site built.

    Returns:
        How many pages it has.

    Raises:
        PdfError: there is no site or no browser, or a line of the contents leads nowhere.
    """
    chapters = [f"book/{path.stem}" for path in notebooks.chapters()]
    folder = root / site.SITE
    missing = [name for name in (*chapters, *BESIDE) if not (folder / f"{name}.html").exists()]
    if missing:
        raise PdfError(f"{missing[0]} is not built: run `make book` first")
    if browser.chromium() is None:
        raise PdfError("Chromium prints the book, and there is none: install chromium, or Chrome")
    html, headings = joined({name: (folder / f"{name}.html").read_text("utf8") for name in (*chapters, *BESIDE)})
    # The links to styles and images are relative, so the document lies beside the pages while it is printed.
    source, half = folder / "book" / "whole.html", file.with_suffix(".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with browser.launched() as chromium:
            page = chromium.new_page()
            numbers: dict[str, int] = {}
            for _ in range(2):
                source.write_text(filled(html, numbers), encoding="utf8")
                _print(page, source, half)
                numbers = page_numbers(half)
            if _CHINESE.search(html) and alike(page, "语", "言"):
                warnings.warn(
                    "no font here has Chinese characters, so they are printed as boxes: install one, such as "
                    "fonts-noto-cjk",
                    stacklevel=2,
                )
        lost = [heading.text for heading in headings if heading.anchor not in numbers]
        if lost:
            raise PdfError(f"the contents name {lost[0]!r}, which is on no page")
        half.replace(file)
        if file == folder / FILE.name:
            _offer(folder / "book" / "index.html")
    finally:
        source.unlink(missing_ok=True)
        half.unlink(missing_ok=True)
    return len(PdfReader(file).pages)


def _print(page: Page, source: Path, file: Path) -> None:
    """One document, when its images are there."""
    page.set_default_timeout(600_000)
    page.goto(source.resolve().as_uri(), wait_until="load")
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.evaluate("Promise.allSettled([...document.images].map(image => image.decode()))")
    page.pdf(path=file, prefer_css_page_size=True, outline=True, tagged=True, print_background=True)


def alike(page: Page, one: str, other: str) -> bool:
    """Whether a page draws two characters the same way, as it does where no font has them."""
    return page.evaluate(_ALIKE, [one, other])


def _offer(front: Path) -> None:
    """Link the PDF from the front page."""
    link = f'<p id="pdf"><a href="../{FILE.name}">The whole book as a PDF</a></p>'
    front.write_text(front.read_text(encoding="utf8").replace(_OFFER, link), encoding="utf8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Print the book as one PDF.")
    parser.add_argument("--out", type=Path, default=notebooks.ROOT / FILE, help=f"default: {FILE}")
    options = parser.parse_args()
    print("Printing …", flush=True)
    try:
        pages = build(options.out)
    except PdfError as error:
        sys.exit(f"make pdf: {error}")
    print(f"{options.out}: {pages} pages, {options.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
