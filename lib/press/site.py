"""Build the site and check that it is whole: ``python -m lib.press.site``.

An unpinned or misconfigured builder can succeed and leave empty pages behind, so the build ends by opening
every page: it must exist, hold text, and carry no trace of a failed cell or of raw markup.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

from lib.press import notebooks

SITE = Path("_build/html")
#: Touched by every whole build; older than a source, it says that the site is stale.
STAMP = Path("_build/site.stamp")
#: A chapter with fewer words than this did not survive the build.
LEAST_WORDS = {"chapter": 800, "page": 20}


class SiteError(RuntimeError):
    """The site was not built, or a page of it is not what it should be."""


def documents(root: Path = notebooks.ROOT) -> list[str]:
    """The documents of the book in reading order, without ending, such as ``book/01-angles``."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    return [toc["root"], *(file for part in toc["parts"] for page in part["chapters"] for file in _files(page))]


def _files(page: dict[str, Any]) -> list[str]:
    """A page of the table of contents and those below it."""
    return [page["file"], *(file for below in page.get("sections", []) for file in _files(below))]


def build(root: Path = notebooks.ROOT) -> Path:
    """Build the HTML with warnings as errors.

    Returns:
        The path of the page to open.

    Raises:
        SiteError: the folder cannot be written, the builder failed, or a page is missing, empty or broken.
    """
    _try_to_write(root / SITE)
    everything = ["--all"] if dressed_anew(root) else []
    if jupyter_book(root, "-W", "-n", "--keep-going", *everything).returncode:
        raise SiteError("the build failed; its warnings stand above")
    if problems := [f"{document}: {problem}" for document in documents(root) for problem in check(document, root)]:
        raise SiteError("the pages were built but are not whole:\n" + "\n".join(problems))
    _write_root(root / SITE)
    (root / STAMP).touch()
    return root / SITE / "index.html"


def jupyter_book(root: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess:
    """Run the builder on a checkout, in a process of its own.

    Args:
        root: the checkout.
        arguments: of ``jupyter-book build``.
        options: of `subprocess.run`.
    """
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".", "-q"]
    return subprocess.run([*command, *arguments], cwd=root, **options)


def _write_root(folder: Path) -> None:
    """The page at the root of the site leads to the front page, and says the same of itself where it is shared."""
    front = (folder / "book" / "index.html").read_text(encoding="utf8")
    said = re.findall(r"<title>[^<]*</title>|<meta (?:name|property)=\"(?:description|og:|twitter:)[^>]*>", front)
    said += re.findall(r'<link rel="canonical"[^>]*>', front)
    head = "\n".join(
        ['<meta charset="utf-8">', '<meta http-equiv="refresh" content="0; url=book/index.html">', *said]
    )
    link = '<a href="book/index.html">Proof by Running</a>'
    page = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>{link}</body>\n</html>\n'
    (folder / "index.html").write_text(page, encoding="utf8")


def _try_to_write(folder: Path) -> None:
    """Refuse a folder where no page can be put; Sphinx would show a traceback and ask for a report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(2**20))
    except OSError as error:
        raise SiteError(
            f"{folder} cannot be written ({error.strerror}): make room, or copy the book to a folder that is yours"
        ) from error


def dressed_anew(root: Path = notebooks.ROOT) -> bool:
    """Whether a style sheet, a script or a template changed since the last whole build; Sphinx does not look."""
    built = (root / STAMP).stat().st_mtime if (root / STAMP).exists() else 0.0
    sources = (path for folder in ("_static", "_templates") for path in (root / folder).rglob("*"))
    return any(path.stat().st_mtime > built for path in sources if path.is_file())


def check(document: str, root: Path = notebooks.ROOT) -> list[str]:
    """What is wrong with a built page, as a list of sentences; empty if nothing is."""
    page = root / SITE / f"{document}.html"
    if not page.exists():
        return ["the page does not exist"]
    text = article(page.read_text(encoding="utf8"))
    kind = "chapter" if re.match(r"book/\d\d-", document) else "page"
    problems = []
    if (words := len(text.split())) < LEAST_WORDS[kind]:
        problems.append(f"it holds {words} words, fewer than {LEAST_WORDS[kind]}")
    for trace in ("Traceback (most recent call last)", ":::", "{cite", "{ref}", "{eq}"):
        if trace in text:
            problems.append(f"it shows {trace!r}")
    return problems


def article(page: str) -> str:
    """The text of a page's article, without its code, formulas left as they are.

    Example:
        >>> article("<nav>menu</nav><article>One <b>two</b><pre>code</pre></article>").split()
        ['One', 'two']
    """
    reader = _Article()
    reader.feed(page)
    return " ".join(reader.parts)


class _Article(HTMLParser):
    """Collects what stands inside ``<article>`` and outside ``<pre>``, scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.inside = self.outside = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:  # noqa: ARG002
        self.inside += tag == "article"
        self.outside += tag in ("pre", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.inside -= tag == "article"
        self.outside -= tag in ("pre", "script", "style")

    def handle_data(self, data: str) -> None:
        if self.inside and not self.outside:
            self.parts.append(data)


def main() -> None:
    """The command line: build, check, say which page to open."""
    try:
        page = build()
    except SiteError as error:
        sys.exit(f"make book: {error}")
    print(f"The book is built. Open {page}")


if __name__ == "__main__":
    main()
