"""The picture by which a chapter is known: its first figure, for the front page and for cards that are shared.

It is taken from the stored outputs when the site is built, so it is always the figure of the chapter. On the front
page it is a drawing; a card is a picture of 1200 by 630 dots, which is what other sites show beside a link.
"""

from __future__ import annotations

import functools
import html
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from lib.press import notebooks
from lib.press.drawings import prefixed
from lib.workbench import palette

#: More panels than this make each too small to be recognized.
PANELS = 3
CARD = (1200, 630)
_GAP = 14.0
#: One of these is on every machine; a renderer without a browser knows no "sans-serif".
_FONTS = "DejaVu Sans, Liberation Sans, Noto Sans, Helvetica, Arial"
_BOX = re.compile(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"')


def panels(path: Path) -> list[str]:
    """The drawings of the first figure of a notebook, as they are stored."""
    for cell in notebooks.code(notebooks.read(path)):
        outputs = [output.get("data", {}).get("image/svg+xml") for output in cell.outputs]
        if found := ["".join(output) for output in outputs if output]:
            return found[:PANELS]
    return []


@functools.cache
def picture(path: Path) -> str:
    """The first figure of a chapter as one drawing, its panels beside each other; empty if there is none."""
    found = panels(path)
    return _beside(found) if found else ""


def _beside(drawings: Sequence[str]) -> str:
    parts, left = [], 0.0
    sizes = [tuple(map(float, _BOX.search(drawing).groups())) for drawing in drawings]
    height = max(size[1] for size in sizes)
    for index, (drawing, (wide, high)) in enumerate(zip(drawings, sizes, strict=True)):
        inner = prefixed(drawing[drawing.index("<svg") :], f"p{index}-").split(">", 1)[1]
        parts.append(
            f'<svg x="{left:.2f}" y="{(height - high) / 2:.2f}" width="{wide}" height="{high}" '
            f'viewBox="0 0 {wide} {high}">{inner}'
        )
        left += wide + _GAP
    size = f'width="{left - _GAP:.2f}" height="{height:.2f}" viewBox="0 0 {left - _GAP:.2f} {height:.2f}"'
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} {size} font-family="sans-serif">{"".join(parts)}</svg>'


def size(drawing: str) -> tuple[int, int]:
    """Width and height of a drawing, to whole numbers.

    Example:
        >>> size('<svg viewBox="0 0 10.4 20.6">')
        (10, 21)
    """
    wide, high = _BOX.search(drawing).groups()
    return round(float(wide)), round(float(high))


def card(title: str, above: str, drawing: str) -> str:
    """The card of a page as an SVG.

    Args:
        title: in large letters, on at most two lines.
        above: a line before it.
        drawing: an SVG, shown as large as there is room.
    """
    wide, high = CARD
    lines = textwrap.wrap(title, 34)[:2]
    texts = [
        f'<text x="60" y="{132 + 62 * k}" font-size="50" font-weight="bold">{html.escape(line)}</text>'
        for k, line in enumerate(lines)
    ]
    top = 100 + 62 * len(lines)
    inner = re.sub(r'^<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", drawing[drawing.index("<svg") :])
    place = f'x="60" y="{top}" width="{wide - 120}" height="{high - top - 40}" preserveAspectRatio="xMidYMid"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" font-family="sans-serif" fill="{palette.INK}">'
        f'<rect width="{wide}" height="{high}" fill="#fff"/>'
        f'<rect width="{wide}" height="12" fill="{palette.BLUE}"/>'
        f'<text x="60" y="70" font-size="26" fill="#535f6f">{html.escape(above)}</text>{"".join(texts)}'
        f"{inner.replace('<svg ', f'<svg {place} ', 1)}</svg>"
    )


def png(svg: str) -> bytes:
    """A drawing as a picture, in the fonts of this machine."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg.replace("sans-serif", _FONTS)))
