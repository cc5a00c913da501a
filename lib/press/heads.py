"""What a page says of itself to those who do not read it: search engines, and sites where its link is shared.

Every page has a description, which is its first paragraph. Where the book has an address (``make address``), it
also has a canonical link and a card with a picture, and the site has a map. A page for addresses that lead nowhere
leads back.
"""

from __future__ import annotations

import hashlib
import html
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from sphinx.application import Sphinx

from lib.press import address, generated, hooks, notebooks
from lib.press.generated import plain

#: Search engines show about so many characters.
LONGEST = 160
_FIRST = re.compile(r"</h1>(.*)", re.S)
_PARAGRAPH = re.compile(r"<p\b[^>]*>(.*?)</p>", re.S)
_HIDDEN = re.compile(r"<svg\b.*?</svg>|<a class=\"headerlink\".*?</a>", re.S)
_POWER = re.compile(r"(?<=<msup>)(<m[in]>[^<]*</m[in]>)")
_FRONT = "book/index"


def description(body: str) -> str:
    """The first paragraph of a page, cut at a word.

    Args:
        body: HTML. Drawings are left out, and of formulas what is read out is left.

    Example:
        >>> description("<h1>One</h1><p>Two <b>three</b>.</p><p>Four.</p>")
        'Two three.'
    """
    rest = _FIRST.search(body)
    for paragraph in _PARAGRAPH.findall(_POWER.sub(r"\1^", _HIDDEN.sub("", rest[1] if rest else body))):
        text = html.unescape(plain(paragraph))
        if len(text.split()) >= 2:
            return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rsplit(' ', 1)[0]}…"
    return ""


def card_name(page: str) -> str:
    """The file of a page's card: a chapter has its own."""
    stem = page.removeprefix("book/")
    known = {path.stem for path in notebooks.chapters()}
    return f"_images/card-{stem if stem in known else 'book'}.png"


def _describe(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    base = address.site(address.address(Path(app.srcdir)))
    context["description"] = description(context.get("body", "")) or app.config.html_title
    context["canonical"] = f"{base}{page}.html" if base else ""
    context["card"] = f"{base}{card_name(page)}" if base else ""


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html" and getattr(app.builder, "joined_assets", None):
        write(Path(app.outdir), address.site(address.address(Path(app.srcdir))), sorted(app.env.found_docs))


def write(folder: Path, base: str, pages: list[str]) -> None:
    """Write the cards of the chapters, the map of the site, and the page for addresses that lead nowhere.

    Args:
        folder: the built site.
        base: its public address, with a slash at the end; empty if it has none.
        pages: the documents of the site.
    """
    (folder / "_images").mkdir(exist_ok=True)
    if base:  # nobody asks for a card whose address is not known
        for path in notebooks.chapters():
            if drawing := hooks.picture(path):
                above = f"Proof by Running · Chapter {generated.number(path)}"
                card = hooks.card(generated.title(path), above, drawing)
                _draw(folder / card_name(f"book/{path.stem}"), card)
        logo = (notebooks.ROOT / "_static" / "logo.svg").read_text(encoding="utf8")
        card = hooks.card("Proof by Running", "A deep-learning textbook that checks every number it prints", logo)
        _draw(folder / card_name(_FRONT), card)
        places = "".join(f"<url><loc>{escape(f'{base}{page}.html')}</loc></url>\n" for page in pages)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        (folder / "sitemap.xml").write_text(
            f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{space}">\n{places}</urlset>\n',
            encoding="utf8",
        )
    robots = f"User-agent: *\nAllow: /\n{f'Sitemap: {base}sitemap.xml' if base else ''}".rstrip()
    (folder / "robots.txt").write_text(f"{robots}\n", encoding="utf8")
    (folder / "404.html").write_text(_NOT_FOUND.replace("BASE", html.escape(base)), encoding="utf8")


def _draw(file: Path, card: str) -> None:
    """Draw a card, unless it is the one that is there: a second of work for each."""
    mark = hashlib.sha256(card.encode()).hexdigest()
    known = file.with_suffix(".sha256")
    if not file.exists() or not known.exists() or known.read_text(encoding="utf8") != mark:
        file.write_bytes(hooks.png(card))
        known.write_text(mark, encoding="utf8")


#: It is shown at whatever address was asked for, so it knows the book by its whole address and has its own style.
_NOT_FOUND = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="description" content="There is no such page in Proof by Running.">
<title>No such page · Proof by Running</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 1.1rem/1.6 system-ui, sans-serif; margin: 15vh auto; max-width: 34rem; padding: 0 1.2rem; }
  h1 { font-size: 2rem; line-height: 1.2; }
</style>
</head>
<body>
<main>
<h1>Refuted: there is such a page</h1>
<p>We looked for it at this address and found nothing. It may have been renamed, as chapters sometimes are.</p>
<p><a href="BASEbook/index.html">The front page</a> lists the nine chapters, and <a href="BASEsearch.html">the
search</a> knows every word of the book.</p>
</main>
</body>
</html>
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Describe every page."""
    app.connect("html-page-context", _describe, priority=960)
    app.connect("build-finished", _finish, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
