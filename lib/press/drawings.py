"""Figures on the page: drawings in the page itself, in the colours of its theme, with a caption that has an anchor.

Notebooks store a figure as an SVG and its caption as Markdown, which every viewer shows. The page goes further. It
holds the SVG itself, so that the colours of the palette become variables of the style sheet: in the dark a figure
has the colours of the dark, and its paper is the page. Panels and caption become one ``<figure>``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from lib.workbench import palette

#: The colours of the book, by the names that the style sheet knows them by.
PALETTE = {name.lower(): colour for name, colour in vars(palette).items() if name.isupper()}
_IMAGE = re.compile(r'<img [^>]*?src="[^"]*?_images/([^"/]+\.svg)"[^>]*?/?>')
_START = re.compile(
    r'(<figure class="explorable"[^>]* data-frames="[^>]*>)'
    r'<img [^>]*?src="data:image/svg\+xml;base64,([^"]+)"[^>]*?>'
)
#: Matplotlib's way to round where lines meet. In a page it would hold for everything, and each such element has the
#: browser compute the styles of all that stands before it anew, while the page opens.
_ROUND = re.compile(
    r'\s*<defs>\s*<style type="text/css">\*\{stroke-linejoin: round; stroke-linecap: butt\}</style>\s*</defs>'
)
#: One or more drawings, and the caption that follows them.
_FIGURE = re.compile(
    r'(?P<drawings>(?:\s*<svg role="img"(?:(?!</svg>).)*</svg>\s*)+)'
    r"<p><strong>Figure (?P<number>[\d.]+)\.</strong>(?P<text>.*?)</p>",
    re.S,
)
#: A caption that is left, below an explorable.
_CAPTION = re.compile(r"<p><strong>Figure ([\d.]+)\.</strong>")


def in_place(body: str, images: Mapping[str, Path]) -> str:
    """A page's HTML with its figures drawn in place.

    Args:
        body: HTML with ``<img>`` elements.
        images: the files of the images by the names under which the page has them.

    Returns:
        The HTML with each SVG that `figures.show` or an explorable wrote in place of its ``<img>``; others stay.
    """
    count = 0

    def drawn(match: re.Match[str]) -> str:
        nonlocal count
        text = images[match[1]].read_text(encoding="utf8") if match[1] in images else ""
        if not text.startswith('<svg role="img"'):
            return match[0]
        count += 1
        return themed(text, f"f{count}-")

    def started(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return match[1] + themed(base64.b64decode(match[2]).decode(), f"f{count}-")

    body = _FIGURE.sub(_joined, _START.sub(started, _IMAGE.sub(drawn, body)))
    return _CAPTION.sub(lambda match: f'<p class="caption" id="{_anchor(match[1])}">{match[0][3:]}', body)


def _joined(match: re.Match[str]) -> str:
    drawings = match["drawings"].strip()
    return (
        f'<figure class="drawn" id="{_anchor(match["number"])}"><div class="panels">{drawings}</div>'
        f"<figcaption><b>Figure {match['number']}.</b>{match['text']}</figcaption></figure>"
    )


def _anchor(number: str) -> str:
    return f"figure-{number.replace('.', '-')}"


def themed(svg: str, prefix: str) -> str:
    """An SVG that takes its colours from the theme, its names made unique by a prefix.

    Example:
        >>> themed('<svg width="3pt" fill="#333333"><g id="a" stroke="#0072b2"/><use href="#a"/></svg>', "f1-")
        '<svg fill="var(--figure-ink)"><g id="f1-a" stroke="var(--figure-blue)"/><use href="#f1-a"/></svg>'
    """
    head, rest = svg.split(">", 1)
    width = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+)', head)
    head = re.sub(r' (?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    rest, rounded = _ROUND.subn("", rest)
    head += ' stroke-linejoin="round"' * rounded
    rest = prefixed(rest, prefix).replace("xlink:href", "href")
    for name, colour in PALETTE.items():  # the text of an explorable has its colour from the head
        found = re.compile(rf"(?<=[:\s\"]){colour}\b", re.IGNORECASE)
        head, rest = (found.sub(f"var(--figure-{name})", part) for part in (head, rest))
    # Text of ten points is ten pixels where the drawing is as many pixels wide as points.
    size = f' style="--width: {float(width[1]):.0f}px"' if width else ""
    return f"{head}{size}>{rest}"


def prefixed(svg: str, prefix: str) -> str:
    """An SVG whose names, and what refers to them, begin with a prefix.

    Example:
        >>> prefixed('<g id="a" clip-path="url(#b)"/>', "f1-")
        '<g id="f1-a" clip-path="url(#f1-b)"/>'
    """
    return re.sub(r'\b(id=")|((?:xlink:)?href="#)|(url\(#)', lambda match: match[0] + prefix, svg)
