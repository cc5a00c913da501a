"""A claim as a card: verdict, statement, a strip drawn to scale, and what stands behind the value.

A card is plain HTML with an SVG that takes its colours from the page. Where styles and drawings are stripped
(GitHub, a mail) what remains reads as sentences: the strip leaves a line that names band and axis. Where colours
are not seen, the words say the verdict and the strip has a text of its own.

What was measured stands in elements marked ``data-measured``: it may differ between machines in its last digits,
and is not compared when a notebook is run again.
"""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from lib.workbench import measure

#: Size of a strip in its own units: narrow enough for its text to be read on a phone.
WIDTH, HEIGHT = 420, 44
_LEFT, _RIGHT, _LINE = 12.0, WIDTH - 12.0, 15.0
#: The edge of a card by its verdict where the style sheet is not there; each is seen on white and on black.
_EDGES = {"holds": "#2b8f6c", "reproduced here": "#2b8f6c", "corrected": "#2f80b8", "undecided": "#808080"}
_EDGES |= dict.fromkeys(("refuted", "not reproduced here"), "#c0602a")


def card(record: Mapping[str, Any], link: str = "", told: tuple[str, str] = ("", "Instead:")) -> str:
    """The card of a claim.

    Args:
        record: a claim as in ``data/claims/<chapter>.json``.
        link: where its number leads; empty for the card itself, which is then an anchor.
        told: what stands before the statement, and before what holds instead of it.

    Returns:
        A ``<section class="claim …">``.
    """
    anchor = f"claim-{record['id'].replace('.', '-')}"
    name, chapter = f"Claim {record['id']}", record["id"].split(".")[0]
    verdict = record["verdict"]
    own = f' id="{anchor}"' if not link else ""
    colour = _EDGES.get(verdict, _EDGES["undecided"])
    instead = _decided_instead(record)
    said = record["statement"]
    if instead:
        said = said.removesuffix(f" Instead: {instead['statement']}")
    parts = [
        # A group, not a landmark: a page may hold a hundred. The edge is drawn where there is no style sheet too.
        f'<section class="claim {verdict.replace(" ", "-")}"{own} data-chapter="{chapter}" role="group" ',
        f'aria-label="{name}" style="border-left:4px solid var(--verdict,{colour});padding-left:1rem">',
        f'<p class="head"><b class="verdict">{verdict}</b> ',
        f'<a class="number" href="{html.escape(link or "#" + anchor, quote=True)}">{name}</a></p>',
        _statement(said, told[0]),
        _measured(record),
    ]
    if instead:
        parts += [_statement(instead["statement"], told[1]), _measured(instead)]
    elif told[0] and verdict in ("refuted", "not reproduced here"):
        known = f"It is not so: {_in_words(record)}. The statement would be true {_true_for(*record['band'])}."
        parts.append(f"<div data-measured>{_statement(known, told[1])}</div>")
    behind = [record.get("evidence"), _source(record), f"{record['tier']}: {record['device']}"]
    rest = " · ".join(html.escape(text) for text in behind if text)
    return "".join([*parts, f'<p class="evidence" data-measured>{rest}</p></section>'])


def _decided_instead(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The replacement that holds where the statement does not."""
    instead = record.get("replacement")
    refuted = record["verdict"] in ("corrected", "not reproduced here")
    return instead if instead and refuted and instead["verdict"] == "holds" else None


def _statement(text: str, told: str) -> str:
    before = f"<b>{told}</b> " if told else ""
    return f'<p class="statement">{before}{html.escape(text, quote=False)}</p>'


def _measured(check: Mapping[str, Any]) -> str:
    """The strip of a check, and its value in words."""
    unit = html.escape(check.get("unit", ""))
    shown = f"<b>{value(check)}</b> {unit}".rstrip()
    return f'<div data-measured>{strip(check)}<p class="evidence">{shown}</p></div>'


def _source(record: Mapping[str, Any]) -> str:
    """Whose statement it is, and how our setting differs from theirs."""
    source = {"article": "the article", "book": "this book"}.get(record.get("source", ""), record.get("source", ""))
    return f"{source}, in another setting: {record['setting']}" if record.get("setting") else source


def value(check: Mapping[str, Any]) -> str:
    """The measured value and its interval, in as many digits as the interval supports.

    Example:
        >>> value({"value": 0.3123, "interval": [0.30, 0.32]})
        '0.312 [0.300, 0.320]'
    """
    low, high = check["interval"]
    exact = low == high
    shown = f"{check['value']:.3g}" if exact and abs(check["value"]) >= 1e-3 else f"{check['value']:.2g}"
    if exact and float(check["value"]).is_integer() and abs(check["value"]) < 1e9:
        shown = f"{check['value']:.0f}"
    return (
        (shown if exact else str(measure.Estimate(check["value"], low, high))).replace("-", "−").replace("e−", "e-")
    )


# --- the strip ----------------------------------------------------------------------------------------------------


def strip(check: Mapping[str, Any]) -> str:
    """Band, interval and value on one axis, drawn to scale.

    The axis is logarithmic where all that is shown is positive and spans more than a factor of 30.

    Args:
        check: with ``value``, ``interval`` and ``band``; an open edge of a band is None.

    Returns:
        An ``<svg>``, which says in words what it shows.
    """
    low, high = check["band"]
    shown = [x for x in (low, high, check["value"], *check["interval"]) if x is not None]
    # A band that begins at zero and is open needs room beyond it.
    axis = _Axis(min(shown), max(shown), ends_at_zero=(low, high) not in [(None, 0), (0, None)])
    edges = (axis.low if low is None else low), (axis.high if high is None else high)
    (x1, x2), (a, b) = map(axis.at, edges), map(axis.at, check["interval"])
    true = f"true {_true_for(low, high)}"
    colour = "var(--verdict,currentColor)"
    parts = [
        f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="max-width:30rem" ',
        f'aria-label="{_in_words(check)}; {true}">',
        # Not drawn. Whatever strips the drawing leaves its texts: this line, the ticks, and the last element.
        f"<desc>The statement is {true}. On the axis: </desc>",
        f'<rect x="{x1:.1f}" y="{_LINE - 9}" width="{max(x2 - x1, 2):.1f}" height="18" rx="3" ',
        f'style="fill:{colour};fill-opacity:0.2"/>',
        f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_LINE}" y2="{_LINE}" ',
        'style="stroke:currentColor;stroke-opacity:0.35"/>',
        f'<line x1="{a:.1f}" x2="{b:.1f}" y1="{_LINE}" y2="{_LINE}" ',
        f'style="stroke:{colour};stroke-width:4;stroke-linecap:round"/>',
        f'<circle cx="{axis.at(check["value"]):.1f}" cy="{_LINE}" r="4.5" style="fill:{colour}"/>',
    ]
    # The size of the text is no style: the style sheet enlarges it where the strip is small.
    ticks = " ".join(
        f'<text x="{axis.at(tick):.1f}" y="{HEIGHT - 4}" text-anchor="{_anchor(axis.at(tick))}" font-size="12.5" '
        f'fill="currentColor">{_number(tick)}</text>'
        for tick in axis.ticks()
    )
    return "".join([*parts, ticks, "<metadata>. Measured: </metadata></svg>"])


def _anchor(at: float) -> str:
    """How a text is aligned, so that it stays within the strip."""
    return "start" if at < 30 else "end" if at > WIDTH - 30 else "middle"


def _in_words(check: Mapping[str, Any]) -> str:
    """Value and interval as they are read out."""
    point, *ends = re.findall(r"[^\s\[\],]+", value(check))
    return f"measured {point}" + (f", interval {ends[0]} to {ends[1]}" if ends else "")


def _true_for(low: float | None, high: float | None) -> str:
    if low is None:
        return f"up to {_number(high)}"
    return f"from {_number(low)} on" if high is None else f"from {_number(low)} to {_number(high)}"


def _number(x: float) -> str:
    if x == 0:
        return "0"
    exponent = math.floor(math.log10(abs(x)))
    if -4 < exponent < 5:
        return f"{x:.4g}".replace("-", "−")
    mantissa = x / 10.0**exponent
    power = f"10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return power if math.isclose(mantissa, 1) else f"{mantissa:.3g}·{power}".replace("-", "−")


class _Axis:
    """From numbers to places on a strip."""

    def __init__(self, low: float, high: float, *, ends_at_zero: bool = True) -> None:
        self.logarithmic = low > 0 and high > 30 * low
        if self.logarithmic:
            self.low, self.high = low / (high / low) ** 0.12, high * (high / low) ** 0.12
        else:
            room = 0.18 * (high - low) or 0.2 * abs(high) or 1.0
            # A zero that no value crosses is the end, unless it is far away.
            self.low = 0.0 if ends_at_zero and 0 <= low <= 0.6 * high else low - room
            self.high = 0.0 if ends_at_zero and 0.6 * low <= high <= 0 and low < 0 else high + room

    def at(self, x: float) -> float:
        """The place of a number."""
        low, high = self.low, self.high
        if self.logarithmic:
            x, low, high = math.log(max(x, self.low)), math.log(low), math.log(high)
        return _LEFT + (_RIGHT - _LEFT) * min(1.0, max(0.0, (x - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Up to seven round numbers, as many as stand beside each other."""
        found = self._round_numbers()
        widest = 9 * max((len(_number(tick)) for tick in found), default=1) + 8
        apart = min((abs(self.at(b) - self.at(a)) for a, b in itertools.pairwise(found)), default=widest)
        return found[:: math.ceil(widest / apart)]

    def _round_numbers(self) -> list[float]:
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            decades = [10.0**k for k in range(first, last + 1)]
            if len(decades) >= 2:
                return decades[:: math.ceil(len(decades) / 5)]
            return [m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5) if self._shows(m * 10.0**k)]
        span = self.high - self.low
        step = 10.0 ** math.floor(math.log10(span / 3))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 6)
        return [k * step for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]

    def _shows(self, x: float) -> bool:
        return self.low <= x <= self.high
