"""Figures that answer a question by being moved: Python computes every frame, a little script puts it in place.

An explorable is a drawing on fixed axes under a few controls: sliders, rows of buttons, rows of switches. For every
position of them Python has computed the paths and a sentence; the script, which knows no formula, sets them. So
what is shown is what Python computed, and a test in a browser compares the two. It needs no server and no library,
and moves by keyboard.

Where scripts are stripped the start frame stands, as an image, and the controls are no more than a line of text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.workbench import palette

#: The drawing in its own units; text of 13 is 11 pixels on a phone of 390 and 15 on a desk.
WIDTH, HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, WIDTH - 12.0, 14.0, HEIGHT - 42.0
#: What stands beside sliders that cannot move.
UNTRUSTED = "Run this cell to move the sliders."

_REACT = (
    "const f=this.closest('figure'),m=f.querySelector('img');"
    "if(m){const t=document.createElement('template');t.innerHTML=new TextDecoder().decode("
    "Uint8Array.from(atob(m.src.split(',')[1]),c=>c.charCodeAt(0)));m.replaceWith(t.content)}"
    "const d=f.frames||(f.frames=JSON.parse(f.dataset.frames)),s=[...f.querySelectorAll('[data-count]')],"
    "at=c=>{const b=[...c.querySelectorAll('[type=checkbox]')];return b.length?b.reduce((k,i)=>2*k+ +i.checked,0):"
    "+(c.querySelector(':checked')||c.querySelector('input')).value},"
    "k=s.reduce((k,c)=>k*c.dataset.count+at(c),0),v=f.querySelector('svg'),t=d.told[d.at?d.at[k]:k];"
    "v.querySelectorAll('path[data-curve]').forEach((p,i)=>p.setAttribute('d',d.paths[k][i]));"
    "v.setAttribute('aria-label',d.alt+' '+t);f.querySelector('.told').textContent=t;"
    "s.forEach((c,j)=>{const r=c.querySelector('[type=range]');if(r){const l=d.labels[j][r.value];"
    "r.setAttribute('aria-valuetext',l);r.nextElementSibling.textContent=l}})"
)


@dataclass(frozen=True)
class Axis:
    """One axis, the same in every frame.

    Args:
        label: what is along it, with its unit.
        low: where it begins.
        high: where it ends.
        ticks: numbers that are marked; texts as values if a number should read otherwise.
        logarithmic: equal steps are equal factors.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[float] | Mapping[float, str]
    logarithmic: bool = False

    def share(self, x: ArrayLike) -> np.ndarray:
        """How far along the axis numbers lie, 0 to 1; what lies beyond it is put at its end."""
        x = np.clip(np.asarray(x, "float64"), self.low, self.high)
        if self.logarithmic:
            return np.log(x / self.low) / math.log(self.high / self.low)
        return (x - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Curve:
    """How one of the curves is drawn.

    Args:
        label: what it is called, written in the drawing.
        colour: of the palette.
        kind: ``"line"``, ``"dashed"``, ``"area"`` (filled down to the axis), ``"steps"`` (likewise; each height
            holds up to the next place, the last one ends it), ``"dots"``, or ``"cloud"`` (small dots).
        at: where its label stands, as shares of width and height from the upper left.
    """

    label: str
    colour: str = palette.BLUE
    kind: str = "line"
    at: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Control:
    """A slider or a row of buttons: what it sets, the values it runs through, how they read, where it begins."""

    name: str
    values: Sequence[Any]
    label: Callable[[Any], str] = str
    start: int = 0
    buttons: bool = False


@dataclass(frozen=True)
class Switches:
    """A row of switches: each is on or off, and ``draw`` is given all of them as one tuple of booleans.

    Args:
        name: what they set, such as ``"Cut before layer"``.
        labels: a short one for each.
        start: which are on in the start frame, by their labels.
    """

    name: str
    labels: Sequence[str]
    start: Sequence[str] = ()

    @property
    def values(self) -> list[tuple[bool, ...]]:
        """All settings, in the order of binary numbers; the first switch is the highest digit."""
        return [*product((False, True), repeat=len(self.labels))]

    @property
    def first(self) -> int:
        """The index of the setting of the start frame."""
        return self.values.index(tuple(label in self.start for label in self.labels))


@dataclass(frozen=True, repr=False)
class Explorable:
    """A drawing under sliders, buttons or switches.

    Args:
        draw: gives, for a value of each control, one pair of arrays (x, y) a curve.
        tell: gives, for the same values, the sentence that says what is seen.
        controls: a few; there is a frame for every combination. Switches have many settings and few sentences, so
            where there are any each sentence is stored once, and ``frames["at"]`` says where.
        curves: how the curves are drawn, in the order in which ``draw`` gives them.
        x: the horizontal axis.
        y: the vertical axis.
        alt: what the drawing shows, for those who do not see; the sentence of the frame follows it.
        still: curves that do not move, with their points, drawn beneath the others.

    Raises:
        ValueError: another number of pairs than of curves, or an empty text.

    Example:
        >>> e = Explorable(
        ...     draw=lambda k: [([0, 1], [0, k])], tell=lambda k: f"It ends at {k}.", alt="A line.",
        ...     controls=[Control("end", [1, 2])], curves=[Curve("line")],
        ...     x=Axis("x", 0, 1, [0, 1]), y=Axis("y", 0, 2, [0, 2]))
        >>> e.frames["told"]
        ['It ends at 1.', 'It ends at 2.']
    """

    draw: Callable[..., Sequence[tuple[ArrayLike, ArrayLike]]]
    tell: Callable[..., str]
    controls: Sequence[Control | Switches]
    curves: Sequence[Curve]
    x: Axis
    y: Axis
    alt: str
    still: Sequence[tuple[Curve, tuple[ArrayLike, ArrayLike]]] = ()
    frames: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError("alt must not be empty: a screen reader reads it out")
        paths, told = [], []
        for values in product(*(control.values for control in self.controls)):
            pairs = self.draw(*values)
            if len(pairs) != len(self.curves):
                raise ValueError(f"draw must give one pair a curve, {len(self.curves)}, got {len(pairs)}")
            paths.append([self.path(*pair, curve.kind) for pair, curve in zip(pairs, self.curves, strict=True)])
            told.append(self.tell(*values))
        labels = [
            [control.label(value) for value in control.values] if isinstance(control, Control) else []
            for control in self.controls
        ]
        frames = {"alt": self.alt, "labels": labels, "told": told, "paths": paths}
        if any(isinstance(control, Switches) for control in self.controls):
            sentences = [*dict.fromkeys(told)]
            frames |= {"told": sentences, "at": [sentences.index(sentence) for sentence in told]}
        object.__setattr__(self, "frames", frames)

    def path(self, x: ArrayLike, y: ArrayLike, kind: str) -> str:
        """The path of a curve, in units of the drawing to a tenth."""
        right = np.round(_LEFT + (_RIGHT - _LEFT) * self.x.share(x), 1)
        down = np.round(_BOTTOM - (_BOTTOM - _TOP) * self.y.share(y), 1)
        points = [f"{a:g} {b:g}" for a, b in zip(right, down, strict=True)]
        if kind in ("dots", "cloud"):  # a round cap makes a dot of a line without length
            return "".join(f"M{point}h0" for point in points)
        if kind == "steps":
            steps = "".join(f"V{b:g}H{a:g}" for a, b in zip(right[1:], down[:-1], strict=True))
            return f"M{right[0]:g} {_BOTTOM:g}{steps}V{_BOTTOM:g}Z"
        if kind == "area":
            return f"M{right[0]:g} {_BOTTOM:g}L{'L'.join(points)}L{right[-1]:g} {_BOTTOM:g}Z"
        return f"M{'L'.join(points)}"

    @property
    def start(self) -> int:
        """The index of the start frame."""
        index = 0
        for control in self.controls:
            begins = control.start if isinstance(control, Control) else control.first
            index = index * len(control.values) + begins
        return index

    @property
    def told(self) -> str:
        """The sentence of the start frame."""
        place = self.frames["at"][self.start] if "at" in self.frames else self.start
        return self.frames["told"][place]

    @property
    def svg(self) -> str:
        """The start frame."""
        told = html.escape(f"{self.alt} {self.told}", quote=True)
        parts = [
            f'<svg role="img" aria-label="{told}" xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">'
            # On the page the style of an element takes the colour of the theme; an attribute would not.
            f'<g style="fill: {palette.INK}">'
        ]
        parts += self._grid()
        for curve, pair in self.still:
            parts.append(f'<path d="{self.path(*pair, curve.kind)}" style="{_style(curve)}"/>')
        for curve, path in zip(self.curves, self.frames["paths"][self.start], strict=True):
            parts.append(f'<path data-curve="" d="{path}" style="{_style(curve)}"/>')
        for curve in (*(curve for curve, _ in self.still), *self.curves):
            if curve.at != (0.0, 0.0):
                left, top = _LEFT + (_RIGHT - _LEFT) * curve.at[0], _TOP + (_BOTTOM - _TOP) * curve.at[1]
                text = html.escape(curve.label, quote=False)
                parts.append(f'<text x="{left:g}" y="{top:g}" style="fill: {curve.colour}">{text}</text>')
        return "".join([*parts, "</g></svg>"])

    def _grid(self) -> list[str]:
        """Both axes: lines, ticks and labels."""
        parts = []
        for value, text in _ticks(self.x):
            at = _LEFT + (_RIGHT - _LEFT) * float(self.x.share(value))
            parts.append(
                f'<path d="M{at:.1f} {_TOP:g}V{_BOTTOM:g}" style="stroke: {palette.GRID}; stroke-opacity: 0.4"/>'
                f'<text x="{at:.1f}" y="{_BOTTOM + 17:g}" text-anchor="middle">{text}</text>'
            )
        for value, text in _ticks(self.y):
            at = _BOTTOM - (_BOTTOM - _TOP) * float(self.y.share(value))
            parts.append(
                f'<path d="M{_LEFT:g} {at:.1f}H{_RIGHT:g}" style="stroke: {palette.GRID}; stroke-opacity: 0.4"/>'
                f'<text x="{_LEFT - 6:g}" y="{at + 4.5:.1f}" text-anchor="end">{text}</text>'
            )
        across, down = (html.escape(axis.label, quote=False) for axis in (self.x, self.y))
        parts.append(
            f'<path d="M{_LEFT:g} {_TOP:g}V{_BOTTOM:g}H{_RIGHT:g}" style="fill: none; stroke: {palette.INK}"/>'
            f'<text x="{_RIGHT:g}" y="{HEIGHT - 6}" text-anchor="end">{across}</text>'
            f'<text x="{_LEFT + 6:g}" y="{_TOP + 1:g}">{down}</text>'
        )
        return parts

    @property
    def html(self) -> str:
        """The whole figure as one HTML element."""
        identity = hashlib.sha256(json.dumps(self.frames).encode()).hexdigest()[:8]
        image = base64.b64encode(self.svg.encode()).decode()
        alt = html.escape(f"{self.alt} {self.told}", quote=True)
        frames = html.escape(json.dumps(self.frames, ensure_ascii=False, separators=(",", ":")), quote=True)
        controls = "".join(
            _switches(control)
            if isinstance(control, Switches)
            else (self._buttons if control.buttons else self._slider)(i, f"{identity}-{i}")
            for i, control in enumerate(self.controls)
        )
        told = html.escape(self.told, quote=False)
        return (
            f'<figure class="explorable" style="margin:0;max-width:36rem" data-frames="{frames}">'
            f'<img alt="{alt}" style="display:block;width:100%" src="data:image/svg+xml;base64,{image}">'
            f'<div class="controls">{controls}<noscript>{UNTRUSTED}</noscript></div>'
            f'<p class="told" aria-live="polite">{told}</p></figure>'
        )

    def _slider(self, index: int, identity: str) -> str:
        control = self.controls[index]
        label = html.escape(self.frames["labels"][index][control.start], quote=True)
        return (
            f'<div data-count="{len(control.values)}" '
            f'style="display:flex;gap:.8em;align-items:center;flex-wrap:wrap">'
            f'<label for="range-{identity}">{html.escape(control.name)}</label>'
            f'<input id="range-{identity}" type="range" min="0" max="{len(control.values) - 1}" step="1" '
            f'value="{control.start}" aria-valuetext="{label}" '
            # JupyterLab leaves the arrow keys to the slider, instead of folding headings with them.
            f'data-lm-suppress-shortcuts="true" style="flex:1 1 12em;min-width:8em" oninput="{_REACT}">'
            f'<output for="range-{identity}" style="min-width:6em">{label}</output></div>'
        )

    def _buttons(self, index: int, identity: str) -> str:
        control = self.controls[index]
        buttons = "".join(
            f'<label style="display:inline-flex;gap:.25em;align-items:center;min-height:1.75rem">'
            f'<input type="radio" name="choice-{identity}" value="{i}"{" checked" * (i == control.start)} '
            f'data-lm-suppress-shortcuts="true" oninput="{_REACT}">{html.escape(label)}</label>'
            for i, label in enumerate(self.frames["labels"][index])
        )
        return (
            f'<div role="radiogroup" aria-label="{html.escape(control.name, quote=True)}" '
            f'data-count="{len(control.values)}" style="display:flex;gap:0 .9em;align-items:center;flex-wrap:wrap">'
            f'<span style="min-width:7em">{html.escape(control.name)}</span>{buttons}</div>'
        )

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        names = " and ".join(control.name for control in self.controls)
        return f"Explorable({names}, {len(self.frames['paths'])} frames): {self.told}"


def _switches(control: Switches) -> str:
    switches = "".join(
        f'<label style="display:inline-flex;align-items:center;min-height:1.75rem;gap:.25em">'
        f'<input type="checkbox" data-lm-suppress-shortcuts="true" {"checked " * (label in control.start)}'
        f'style="width:1.25rem;height:1.25rem;margin:0" oninput="{_REACT}">{html.escape(label)}</label>'
        for label in control.labels
    )
    return (
        f'<div role="group" aria-label="{html.escape(control.name, quote=True)}" '
        f'data-count="{len(control.values)}" style="display:flex;gap:.2em .8em;align-items:center;flex-wrap:wrap">'
        f"<span>{html.escape(control.name)}</span>{switches}</div>"
    )


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    if isinstance(axis.ticks, Mapping):
        return [*axis.ticks.items()]
    return [(tick, f"{tick:g}".replace("-", "−")) for tick in axis.ticks]


def _style(curve: Curve) -> str:
    if curve.kind in ("area", "steps"):
        return f"fill: {curve.colour}; fill-opacity: 0.35; stroke: none"
    if curve.kind in ("dots", "cloud"):
        width = 3 if curve.kind == "cloud" else 5
        return f"fill: none; stroke: {curve.colour}; stroke-width: {width}; stroke-linecap: round"
    dashes = "; stroke-dasharray: 6 4" if curve.kind == "dashed" else ""
    return f"fill: none; stroke: {curve.colour}; stroke-width: 2{dashes}"
