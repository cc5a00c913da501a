"""What a translator translates: ``python -m lib.press.messages`` writes it into ``_build/messages``.

Two catalogs, because Sphinx sees only what is Markdown: ``book.pot`` has its paragraphs, headings, tables and
captions, ``html.pot`` what stands on the built pages as HTML: cards, controls, names of folds, alternative texts.
A number in a message of ``html.pot`` is a place such as ``{0}``, so that a translation outlives a new measurement.
``terms.csv`` lists the terms of the notation page beside their translations, from ``locale/terms.csv``.

A translation lies in ``locale/<language>/LC_MESSAGES/book.po`` and ``html.po``; ``language`` in ``_config.yml``
chooses it. Figures keep their English; their captions and alternative texts are translated.
"""

from __future__ import annotations

import argparse
import csv
import functools
import html
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from bs4 import BeautifulSoup, NavigableString, Tag

from lib.press import notebooks, site

FOLDER = Path("_build/messages")
LOCALE = Path("locale")
#: What a reader reads of it, or has read out.
_ATTRIBUTES = ("alt", "aria-label", "aria-valuetext", "title", "placeholder", "data-label")
#: The HTML that comes from code; all else comes from Markdown and is Sphinx's.
_MADE = "section.claim, figure.explorable, summary, fieldset.choose, svg > title, svg > desc, details > p"
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PLACE = re.compile(r"\{(\d+)\}")
_WORD = re.compile(r"[^\W\d_]{2}")
_OF_DRAWINGS = ("title", "desc")
_UNREAD = ["script", "style", "code", "math", "metadata"]


@dataclass(frozen=True)
class Text:
    """A text on a page, and how it is replaced.

    Attributes:
        content: what it says.
        replace: puts another in its place.
    """

    content: str
    replace: Callable[[str], None]


def pattern(text: str) -> tuple[str, list[str]]:
    """A text with places for its numbers, and the numbers.

    Example:
        >>> pattern("0.4 of 1,000 words")
        ('{0} of {1} words', ['0.4', '1,000'])
    """
    numbers: list[str] = []

    def place(number: re.Match[str]) -> str:
        numbers.append(number[0])
        return f"{{{len(numbers) - 1}}}"

    return _NUMBER.sub(place, text), numbers


def texts(body: Tag) -> Iterator[Text]:
    """What stands on a page as HTML and is read, in its order."""
    for tag in body.find_all(True):
        for attribute in _ATTRIBUTES:
            if _WORD.search(tag.get(attribute) or ""):
                yield Text(tag[attribute], lambda text, tag=tag, name=attribute: tag.attrs.update({name: text}))
    for made in body.select(_MADE):
        for string in made.find_all(string=_WORD):
            if not string.find_parent(_UNREAD) and (made.name in _OF_DRAWINGS or not string.find_parent("svg")):
                yield Text(string.strip(), functools.partial(_replace, string))
        if made.get("data-frames"):
            yield from _frames(made)


def _replace(string: NavigableString, text: str) -> None:
    """Another text in the place of a string, with the white space around it."""
    string.replace_with(string.replace(string.strip(), text))


def _frames(figure: Tag) -> Iterator[Text]:
    """The sentences and labels among which the script of an explorable chooses."""
    frames: dict[str, Any] = json.loads(figure["data-frames"])

    def within(values: list[str] | dict[str, Any], key: Any) -> Text:
        def replace(text: str) -> None:
            values[key] = text
            figure["data-frames"] = json.dumps(frames, ensure_ascii=False, separators=(",", ":"))

        return Text(values[key], replace)

    lists = [frames["told"], *frames["labels"]]
    found = [within(frames, "alt"), *(within(values, i) for values in lists for i in range(len(values)))]
    return (text for text in found if _WORD.search(text.content))


def extracted(pages: Mapping[str, str]) -> Catalog:
    """The catalog of what stands on pages as HTML.

    Args:
        pages: their HTML, by document name.

    Returns:
        A message for each pattern, with the pages that show it.
    """
    catalog = Catalog(project="Proof by Running", charset="utf-8")
    for name, page in pages.items():
        for text in texts(_body(page)):
            message, _ = pattern(text.content)
            catalog.add(message, locations=[(name, 0)] if _new(catalog, message, name) else [])
    return catalog


def _new(catalog: Catalog, message: str, name: str) -> bool:
    known = catalog.get(message)
    return known is None or (name, 0) not in known.locations


def _body(page: str) -> Tag:
    soup = BeautifulSoup(page, "html.parser", multi_valued_attributes=None)
    return soup.find("article") or soup


def translated(body: str, catalog: Catalog) -> str:
    """A page's HTML in another language; what the catalog does not have stays English.

    Raises:
        ValueError: a translation asks for a number that its message does not have.

    Example:
        >>> catalog = Catalog()
        >>> _ = catalog.add("{0} of {1} words", "{1} 个词中的 {0} 个")
        >>> translated('<img alt="3 of 8 words">', catalog)
        '<img alt="8 个词中的 3 个"/>'
    """
    soup = BeautifulSoup(body, "html.parser", multi_valued_attributes=None)
    for text in [*texts(soup)]:
        message, numbers = pattern(text.content)
        known = catalog.get(message)
        if known and known.string:
            wanted = [int(place) for place in _PLACE.findall(known.string)]
            if any(place >= len(numbers) for place in wanted):
                raise ValueError(f"the translation of {message!r} must have places below {len(numbers)}")
            text.replace(_PLACE.sub(lambda place, numbers=numbers: numbers[int(place[1])], known.string))
    return str(soup)


def catalog(language: str, root: Path = notebooks.ROOT) -> Catalog:
    """The translation of the HTML into a language; empty if there is none."""
    file = root / LOCALE / language / "LC_MESSAGES" / "html.po"
    if not file.exists():
        return Catalog(locale=None)
    with file.open("rb") as stream:
        return read_po(stream)


def terms(root: Path = notebooks.ROOT) -> list[str]:
    """The terms of the notation page, in its order."""
    page = (root / "book" / "notation.md").read_text(encoding="utf8").split("\n## Terms\n", 1)[1]
    rows = [line.split("|")[1].strip() for line in page.split("\n") if line.startswith("| ")]
    return [html.unescape(row) for row in rows[1:]]


def glossary(root: Path = notebooks.ROOT) -> dict[str, dict[str, str]]:
    """The translations of terms: by term, then by language."""
    with (root / LOCALE / "terms.csv").open(encoding="utf8", newline="") as file:
        return {row.pop("en"): row for row in csv.DictReader(file)}


def write(root: Path = notebooks.ROOT) -> list[Path]:
    """Extract all messages of the book; its site is built.

    Returns:
        The three files.

    Raises:
        SiteError: there is no site, or Sphinx failed.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in site.documents(root) if not (root / site.SITE / f"{name}.html").exists()]
    if missing:
        raise site.SiteError(f"{missing[0]} is not built: run `make book` first")
    pages = {name: (root / site.SITE / f"{name}.html").read_text(encoding="utf8") for name in site.documents(root)}
    files = [folder / "book.pot", folder / "html.pot", folder / "terms.csv"]
    _by_sphinx(root, files[0])
    with files[1].open("wb") as stream:
        write_po(stream, extracted(pages), width=0, sort_output=False)
    known = glossary(root)
    languages = sorted({language for row in known.values() for language in row})
    with files[2].open("w", encoding="utf8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["en", *languages])
        writer.writerows([term, *(known.get(term, {}).get(one, "") for one in languages)] for term in terms(root))
    return files


def _by_sphinx(root: Path, file: Path) -> None:
    """What Sphinx extracts from Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--builder", "custom", "--custom-builder", "gettext", "--path-output", folder)
        if site.jupyter_book(root, *arguments).returncode:
            raise site.SiteError("Sphinx could not extract the messages; its warnings stand above")
        shutil.copyfile(Path(folder) / "_build" / "gettext" / "book.pot", file)


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(description="Extract what a translator translates.").parse_args()
    try:
        files = write()
    except site.SiteError as error:
        sys.exit(f"make messages: {error}")
    print("\n".join(str(file.relative_to(notebooks.ROOT)) for file in files))


if __name__ == "__main__":
    main()
