"""The front page: the emblem that can be moved, what surprised us, and the chapters with their first figures.

Three directives. ``emblem`` is the law of the angle between two random directions, which is the book's emblem and
its first proposition; ``findings`` shows claims, named by their numbers, with their strips; ``chapters`` lists the
chapters as cards, a line each: ``01-angles: what you take home``.
"""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from lib.press import hooks, notebooks
from lib.press.generated import Generated, anchor, class_of, load, number, raw, title
from lib.workbench import cards

#: The dimensions that the emblem runs through, and where it begins.
DIMENSIONS = (2, 3, 4, 6, 9, 14, 22, 35, 60, 100)
START = 5
_WIDTH, _HEIGHT, _BASE, _TOP = 320.0, 150.0, 124.0, 8.0


def density(dimension: int, angle: float) -> float:
    """How densely the angles between two random directions lie around one of them, in radians.

    Example:
        >>> round(density(2, 1.0) * math.pi, 6), round(density(3, math.pi / 2), 6)
        (1.0, 0.5)
    """
    log_scale = math.lgamma(dimension / 2) - math.lgamma((dimension - 1) / 2) - math.log(math.pi) / 2
    sine = math.sin(angle)
    if dimension == 2:
        return math.exp(log_scale)
    return math.exp(log_scale + (dimension - 2) * math.log(sine)) if sine > 0 else 0.0


def half_within(dimension: int) -> float:
    """Within how many degrees of a right angle half of all pairs lie.

    Example:
        >>> round(half_within(2), 3), round(half_within(3), 3)
        (45.0, 30.0)
    """
    steps = 20_000
    width = math.pi / 2 / steps
    share = 0.0
    for k in range(steps):
        step = 2 * width * density(dimension, math.pi / 2 - (k + 0.5) * width)
        share += step
        if share >= 0.5:
            return math.degrees((k + 1 - (share - 0.5) / step) * width)
    return 90.0


def curve(dimension: int) -> str:
    """The density as a path of the emblem: from 0 to 180 degrees, on one scale for all dimensions."""
    most = density(DIMENSIONS[-1], math.pi / 2)
    points = []
    for k in range(91):
        down = _BASE - (_BASE - _TOP) * density(dimension, math.radians(2 * k)) / most
        points.append(f"{10 + (_WIDTH - 20) * k / 90:.1f} {down:.1f}")
    return f"M{'L'.join(points)}"


def told(dimension: int) -> str:
    """What the emblem says of a dimension."""
    within = f"{half_within(dimension):.2g}"
    return f"In {dimension} dimensions half of all pairs of random vectors meet within {within}° of a right angle."


def emblem() -> str:
    """The emblem as HTML: a drawing, a slider, and a sentence; every position was computed here."""
    frames = {"paths": [curve(n) for n in DIMENSIONS], "told": [told(n) for n in DIMENSIONS]}
    ghosts = "".join(f'<path d="{path}"/>' for path in frames["paths"])
    marks = "".join(
        f'<text x="{10 + (_WIDTH - 20) * degrees / 180:g}" y="{_HEIGHT - 8:g}" '
        f'text-anchor="{place}">{degrees}°</text>'
        for degrees, place in ((0, "start"), (90, "middle"), (180, "end"))
    )
    return (
        f'<figure class="emblem" data-frames="{html.escape(json.dumps(frames, ensure_ascii=False), quote=True)}">'
        f'<svg role="img" aria-label="How often two random directions meet at each angle: the more dimensions, the '
        f'narrower the bell around 90 degrees." viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}"><g class="ghosts">{ghosts}</g>'
        f'<path class="bell" d="{frames["paths"][START]}"/>{marks}</svg>'
        f'<label class="pst-js-only">dimensions <input type="range" min="0" max="{len(DIMENSIONS) - 1}" '
        f'value="{START}" aria-valuetext="{DIMENSIONS[START]}" data-values="{" ".join(map(str, DIMENSIONS))}">'
        f"<output>{DIMENSIONS[START]}</output></label>"
        f'<p class="told" aria-live="polite">{frames["told"][START]}</p></figure>'
    )


class Emblem(Generated):
    """``emblem``."""

    def markdown(self) -> list[str]:
        """One figure."""
        return raw(emblem())


class Findings(Generated):
    """``findings``: the claims that are named in the directive, short, with their strips."""

    has_content = True

    def markdown(self) -> list[str]:
        """A list whose items lead to the claims.

        Raises:
            ValueError: there is no such claim.
        """
        chapters = [(path, load(notebooks.claims(path)) or []) for path in notebooks.chapters()]
        known = {claim["id"]: (path, claim) for path, claims in chapters for claim in claims}
        names = " ".join(self.content).split()
        if missing := [name for name in names if name not in known]:
            raise ValueError(f"there is no claim {', '.join(missing)}: name others in book/index.md")
        return raw(f'<ul class="findings">{"".join(_finding(*known[name]) for name in names)}</ul>')


def _finding(path: Path, claim: dict[str, Any]) -> str:
    statement = claim["statement"].replace(" %", "\u00a0%")  # a line does not begin with a percent sign
    said, _, instead = statement.partition(" Instead: ")
    strip = cards.strip(claim)
    verdict = f'<b class="verdict">{claim["verdict"]}</b>'
    rest = f'<p class="statement"><b>Instead:</b> {html.escape(instead)}</p>' if instead else ""
    return (
        f'<li class="{class_of(claim["verdict"])}"><p class="head">{verdict} <a href="{anchor(path, claim["id"])}">'
        f'Claim {claim["id"]}</a></p><p class="from">{html.escape(title(path))}</p>'
        f'<p class="statement">{html.escape(said)}</p>{strip}'
        f'<p class="evidence"><b>{cards.value(claim)}</b> {html.escape(claim.get("unit", ""))}</p>{rest}</li>'
    )


class Chapters(Generated):
    """``chapters``: a card a chapter, with its first figure and what one takes home."""

    has_content = True

    def markdown(self) -> list[str]:
        """A list of links.

        Raises:
            ValueError: a line names no chapter, or a chapter has no line.
        """
        lines = dict(line.split(": ", 1) for line in self.content if line.strip())
        found = {path.stem: path for path in notebooks.chapters()}
        if lines.keys() != found.keys():
            raise ValueError(f"book/index.md must name each chapter once, got {', '.join(lines)}")
        return raw(f'<ul class="hooks">{"".join(_hook(path, lines[name]) for name, path in found.items())}</ul>')


def _hook(path: Path, taken: str) -> str:
    drawing = hooks.picture(path)
    wide, high = hooks.size(drawing) if drawing else (0, 0)
    image = (
        f'<img src="../_images/hook-{path.stem}.svg" width="{wide}" height="{high}" loading="lazy" alt="" '
        f'aria-hidden="true">'
        if drawing
        else ""
    )
    return (
        f'<li><a href="{path.stem}.html"><span class="frame">{image}</span>'
        f"<b>{number(path)}. {html.escape(title(path))}</b> <span>{html.escape(taken)}</span></a></li>"
    )


def write_pictures(folder: Path) -> None:
    """Put the pictures of the chapters into the images of a built site."""
    images = folder / "_images"
    images.mkdir(exist_ok=True)
    for path in notebooks.chapters():
        if drawing := hooks.picture(path):
            (images / f"hook-{path.stem}.svg").write_text(drawing, encoding="utf8")


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        write_pictures(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives, and put the pictures beside the pages."""
    app.add_directive("emblem", Emblem)
    app.add_directive("findings", Findings)
    app.add_directive("chapters", Chapters)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
