"""One style sheet and one script for all pages, without the rules that no page of the site uses.

The builder and its theme bring a dozen files of styles, of which most rules style what this book does not have.
When the pages are written, the files are joined in their order, and a rule stays if every class and identifier that
its selector asks for stands in a page or in a script. The page of search keeps its scripts apart.
"""

from __future__ import annotations

import functools
import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

STYLES, SCRIPTS = "site.css", "site.js"
#: What the theme's own layout loads before the files of extensions.
THEME_STYLES = ("basic.css", "styles/pydata-sphinx-theme.css")

#: A file below ``_static`` that a page names, and behind it the mark of its version.
_LOADED = re.compile(r"[\"'/]_static/([\w./-]+)")
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
#: What ends a part of a style sheet, or may hold such an end without being one.
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|url\([^)\"']*\)|[{};]", re.S)
_NAME = re.compile(r"[.#]((?:[\w-]|\\.)+)")
#: One pattern each: what begins with plain letters is found ten times as fast.
_ATTRIBUTES = [
    re.compile(text) for text in (' class="([^"]*)"', " class='([^']*)'", ' id="([^"]*)"', " id='([^']*)'")
]
_STRING = re.compile(r"\"([^\"\n]{1,300})\"|'([^'\n]{1,300})'|`([^`\n]{1,300})`")


def names(pages: Iterable[str], scripts: Iterable[str]) -> set[str]:
    """The classes and identifiers that stand in pages, and the words that stand in strings of scripts.

    Example:
        >>> sorted(names(['<p class="a b" id="c">d</p>'], ['e("f g.h")']))
        ['a', 'b', 'c', 'f', 'g', 'h']
    """
    found: set[str] = set()
    for page in pages:
        for value in {value for attribute in _ATTRIBUTES for value in attribute.findall(page)}:
            found.update(html.unescape(value).split())
    for script in scripts:
        for strings in _STRING.findall(script):
            for string in strings:
                found.update(re.findall(r"[\w-]+", string))
    return found


def purged(css: str, used: set[str]) -> str:
    """A style sheet without the rules whose selectors ask for what is not used, and without fonts.

    Args:
        css: the style sheet. Files of fonts are left out: the pages are set in the fonts of the system.
        used: classes and identifiers. What stands in parentheses, as in ``:not(.a)``, is not asked for.

    Example:
        >>> purged(".a,.b{c:d}.b{e:f}@media print{.b{g:h}p:not(.b){i:j}}", {"a"})
        '.a{c:d}@media print{p:not(.b){i:j}}'
    """
    return "".join(_kept(_COMMENT.sub("", css), used))


def _kept(css: str, used: set[str]) -> Iterator[str]:
    for head, body in _parts(css):
        if body is None:  # a statement
            if not head.startswith("@import"):
                yield head
        elif head.startswith(("@media", "@supports", "@layer", "@container")):
            if inner := "".join(_kept(body, used)):
                yield f"{head}{{{inner}}}"
        elif head.startswith("@"):
            if not head.startswith("@font-face"):
                yield f"{head}{{{body.strip()}}}"
        elif selectors := [one for one in _split(head) if _asked(one) <= used]:
            yield f"{','.join(selectors)}{{{body.strip()}}}"


def _parts(css: str) -> Iterator[tuple[str, str | None]]:
    """The rules of a style sheet, each as what stands before its braces and within, and its statements."""
    start = opened = depth = 0
    for token in _TOKEN.finditer(css):
        if token[0] == "{":
            depth += 1
            if depth == 1:
                opened = token.end()
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                yield css[start : opened - 1].strip(), css[opened : token.start()]
                start = token.end()
        elif token[0] == ";" and depth == 0:
            yield css[start : token.end()].strip(), None
            start = token.end()


def _split(selectors: str) -> list[str]:
    """The selectors of a list; a comma in parentheses or brackets parts none."""
    found, depth = [""], 0
    for character in selectors:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [selector.strip() for selector in found]


@functools.cache
def _asked(selector: str) -> frozenset[str]:
    """The classes and identifiers without which a selector fits nothing."""
    previous = None
    selector = re.sub(r"\[[^\]]*\]", "", selector)
    while selector != previous:
        previous, selector = selector, re.sub(r"\([^()]*\)", "", selector)
    return frozenset(re.sub(r"\\(.)", r"\1", name) for name in _NAME.findall(selector))


def mark(root: Path, makers: str) -> str:
    """What a page appends to the addresses of the two files, so that no browser dresses it in older ones.

    Args:
        root: the folder whose ``_static`` the book's own style sheet and scripts are in.
        makers: what else decides what the files hold.
    """
    files = sorted(path for path in (root / "_static").iterdir() if path.suffix in (".css", ".js"))
    own = b"".join(path.read_bytes() for path in files)
    versions = "".join(version(name) for name in ("sphinx", "sphinx-book-theme", "pydata-sphinx-theme", "myst-nb"))
    return hashlib.sha256(f"{makers}{versions}".encode() + own).hexdigest()[:8]


def write(folder: Path, styles: Iterable[str], scripts: Iterable[str]) -> None:
    """Join the files of a built site.

    Args:
        folder: the site.
        styles: files below its ``_static``, in their order.
        scripts: likewise.
    """
    static = folder / "_static"
    texts = [(static / name).read_text(encoding="utf8") for name in scripts]
    (static / SCRIPTS).write_text("\n".join(f"{text.rstrip()};" for text in texts), encoding="utf8")
    search = (static / "searchtools.js").read_text(encoding="utf8")
    used = names(_pages(folder), [*texts, search])
    css = [purged((static / name).read_text(encoding="utf8"), used) for name in styles]
    (static / STYLES).write_text("\n".join(css), encoding="utf8")


def clean(folder: Path) -> None:
    """Remove the files below a site's ``_static`` that no page loads; each build copies them anew.

    A file stays that a page names, or that a style sheet or a script names which stays. Source maps go: nobody
    debugs the theme here.
    """
    static = folder / "_static"
    asked = {static / name for page in _pages(folder) for name in _LOADED.findall(page)}
    told = "".join(
        path.read_text(encoding="utf8") for path in asked if path.suffix in (".css", ".js") and path.exists()
    )
    for path in sorted(static.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in asked and (path.name not in told or path.suffix == ".map"):
            path.unlink()


def _pages(folder: Path) -> Iterator[str]:
    """The HTML of a site's pages."""
    return (path.read_text(encoding="utf8") for path in folder.rglob("*.html") if "_static" not in path.parts)
