"""How the pages say what they are: their version, how to cite it, where to report a mistake, what has changed.

Directives: ``citation``, the entry for a bibliography, made from ``CITATION.cff``; ``reporting``, where a mistake
is reported; ``editions``, what has become of the claims of the last released edition; ``changes``, the changelog.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from lib.press import address, notebooks, release
from lib.press.generated import Generated, badge, load

CITATION, CHANGELOG = (notebooks.ROOT / name for name in ("CITATION.cff", "CHANGELOG.md"))


def bibtex(citation: dict[str, Any], url: str = "") -> str:
    """The entry for BibTeX.

    Args:
        citation: what ``CITATION.cff`` says.
        url: the address of the book, empty if it has none.
    """
    authors = " and ".join(f"{{{author['name']}}}" for author in citation["authors"])
    fields = {
        "author": authors,
        "title": f"{{{citation['title']}}}",
        "year": str(citation["date-released"])[:4],
        "note": f"Version {citation['version']}",
    }
    if url:
        fields["url"] = url
    lines = [f"  {name:<6} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["@misc{proof-by-running,", *lines, "}"])


def report(page: str, title: str, version: str, url: str) -> str:
    """Where a mistake on a page is reported: an issue whose title and text are begun; empty without such a place.

    Args:
        page: the document, such as ``"book/05-memm"``.
        title: of the page.
        version: of the book.
        url: the address of the book.

    Example:
        >>> report("book/05-memm", "CRF, MEMM, HMM", "1.0.0", "https://github.com/org/repo")[:60]
        'https://github.com/org/repo/issues/new?title=Chapter+5%3A+&b'
    """
    if not address.is_github(url):
        return ""
    chapter = re.match(r"book/(\d\d)-", page)
    where = f"Chapter {int(chapter[1])}" if chapter else title
    body = f"Page: {title} ({page})\nVersion: {version}\nPlace: \n\nWhat is wrong, and how you know:\n"
    return f"{url}/issues/new?{urlencode({'title': f'{where}: ', 'body': body})}"


def changed(before: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """What has become of the claims of an edition, a line of Markdown each, in the order of the claims."""

    def number(name: str) -> tuple[int, ...]:
        return tuple(map(int, name.split(".")))

    lines = []
    for name in sorted(before.keys() | now.keys(), key=number):
        old, new = before.get(name), now.get(name)
        if old is None:
            lines.append(f"- Claim {name} is new, {badge(new['verdict'])}: {new['statement']}")
        elif new is None:
            lines.append(f"- Claim {name} is gone, it was {badge(old['verdict'])}: {old['statement']}")
        elif old["statement"] != new["statement"]:
            was = f"it said: {old['statement']} ({badge(old['verdict'])})"
            lines.append(
                f"- Claim {name} says something else, {badge(new['verdict'])}: {new['statement']} Before, {was}"
            )
        elif old["verdict"] != new["verdict"]:
            turned = f"{badge(old['verdict'])} before, {badge(new['verdict'])} now"
            lines.append(f"- Claim {name}, {turned}: {new['statement']}")
    return lines


class Citation(Generated):
    """``citation``: the entry for a bibliography."""

    def markdown(self) -> list[str]:
        """A block of BibTeX."""
        citation = yaml.safe_load(CITATION.read_text(encoding="utf8"))
        return ["```bibtex", *bibtex(citation, address.address()).split("\n"), "```"]

    def sources(self) -> list[Path]:
        """The citation and the address."""
        return [CITATION, notebooks.ROOT / "pyproject.toml"]


class Reporting(Generated):
    """``reporting``: where a mistake is reported."""

    def markdown(self) -> list[str]:
        """A sentence or two."""
        url = address.address()
        if not address.is_github(url):
            return ["This copy of the book has no public address yet: tell whoever gave it to you."]
        return [
            f"Every page carries a link, *Report a mistake*. It opens [an issue]({url}/issues) that already names "
            "the page and the version; the one beside the text also names the section and the cell you look at."
        ]

    def sources(self) -> list[Path]:
        """The address."""
        return [notebooks.ROOT / "pyproject.toml"]


class Editions(Generated):
    """``editions``: what has become of the claims of the last released edition."""

    def markdown(self) -> list[str]:
        """A sentence, and a list of the claims that changed."""
        released, version = release.editions(), release.version()
        if not released:
            return [f"This is version {version}. No edition has been released yet; 1.0.0 will be the first."]
        earlier = [edition for edition in released if edition != version] or released
        before = load(notebooks.ROOT / "data" / "editions" / f"{earlier[-1]}.json")
        lines = changed(before, release.snapshot())
        told = f"This is version {version}. Of the {len(before)} claims of version {earlier[-1]}, and those since:"
        return (
            [told, "", *lines] if lines else [f"This is version {version}. No claim of {earlier[-1]} has changed."]
        )

    def sources(self) -> list[Path]:
        """The claims now and then, and the version."""
        kept = sorted((notebooks.ROOT / "data" / "editions").glob("*.json"))
        return [notebooks.ROOT / "pyproject.toml", *kept, *map(notebooks.claims, notebooks.chapters())]


class Changes(Generated):
    """``changes``: the changelog, without its title and two levels lower."""

    def markdown(self) -> list[str]:
        """The lines of the changelog; an empty part is left out."""
        text = re.sub(r"^## .*\n\s*(?=## |\Z)", "", CHANGELOG.read_text(encoding="utf8"), flags=re.M)
        return re.sub(r"^## (.*)$", r"**\1**", text.partition("\n")[2], flags=re.M).strip().split("\n")

    def sources(self) -> list[Path]:
        """The changelog."""
        return [CHANGELOG]
