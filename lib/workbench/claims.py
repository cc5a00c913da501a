"""Numbered claims whose verdicts are computed from measurements, never typed.

A claim is a statement, a band of values for which it is true, and a measured value with its interval.
The verdict follows:

* *holds*: the whole interval lies in the band;
* *refuted*: the interval lies wholly outside;
* *undecided*: it straddles an edge of the band, so this measurement cannot tell;
* *corrected*: refuted, and a replacement stated beside it holds.

Every claim names a counterexample, a value that would have given another verdict: a check that cannot fail
is refused. ``Ledger.table`` shows the values; what `Ledger.claim` shows holds only number, verdict and
statement, so that it can be compared between machines.
"""

from __future__ import annotations

import html
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.display import display

from lib.workbench import measure, records

VERDICTS = ("holds", "corrected", "refuted", "undecided")
#: Where a ledger writes its record; set by ``make execute`` alone.
RECORD_VARIABLE = "BOOK_CLAIMS"


@dataclass(frozen=True)
class Band:
    """The values for which a statement is true: ``low <= value <= high``.

    Example:
        >>> within(1.0, 0.01).verdict(measure.Estimate.exact(0.885))
        'refuted'
        >>> below(0.05).verdict(measure.Estimate(value=0.04, low=0.03, high=0.06))
        'undecided'
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high or (math.isinf(self.low) and math.isinf(self.high)):
            raise ValueError(f"a band needs low <= high and one finite edge, got [{self.low}, {self.high}]")

    def verdict(self, measured: measure.Estimate) -> str:
        """*holds*, *refuted* or *undecided* for a measured value and its interval."""
        if math.isnan(measured.value) or math.isnan(measured.low) or math.isnan(measured.high):
            raise ValueError(f"measured must be a number with an interval, got {measured!r}")
        if self.low <= measured.low and measured.high <= self.high:
            return "holds"
        if measured.high < self.low or self.high < measured.low:
            return "refuted"
        return "undecided"

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"at most {self.high:.4g}"
        if math.isinf(self.high):
            return f"at least {self.low:.4g}"
        return f"{self.low:.4g} to {self.high:.4g}"


def below(edge: float) -> Band:
    """Values up to ``edge``, the edge included."""
    return Band(high=edge)


def above(edge: float) -> Band:
    """Values from ``edge`` on, the edge included."""
    return Band(low=edge)


def between(low: float, high: float) -> Band:
    """Values from ``low`` to ``high``, the edges included."""
    return Band(low, high)


def within(centre: float, tolerance: float) -> Band:
    """Values no farther than ``tolerance`` from ``centre``."""
    return Band(centre - tolerance, centre + tolerance)


@dataclass(frozen=True)
class Check:
    """A statement with its band, what was measured, and a value that would have told otherwise.

    Args:
        statement: one sentence of plain text.
        measured: an `Estimate`, or a number that is exact.
        band: the values for which the statement is true.
        counterexample: a value for which this check gives another verdict.

    Raises:
        ValueError: if the counterexample would give the same verdict, or the statement is empty.
    """

    statement: str
    measured: measure.Estimate | float
    band: Band
    counterexample: float

    def __post_init__(self) -> None:
        if not self.statement.strip():
            raise ValueError("statement must be a sentence, got an empty string")
        if not isinstance(self.measured, measure.Estimate):
            object.__setattr__(self, "measured", measure.Estimate.exact(float(self.measured)))
        if self.band.verdict(measure.Estimate.exact(self.counterexample)) == self.verdict:
            raise ValueError(
                f"counterexample {self.counterexample} must give another verdict than {self.verdict!r} for the "
                f"band {self.band}: a check that cannot fail checks nothing ({self.statement})"
            )

    @property
    def verdict(self) -> str:
        """What the measurement says of the statement."""
        return self.band.verdict(self.measured)

    def as_record(self) -> dict[str, Any]:
        """Value, interval, band and counterexample in JSON's terms; an open edge of a band is null."""
        low, high = (None if math.isinf(edge) else edge for edge in (self.band.low, self.band.high))
        measured = self.measured
        return {
            "value": measured.value,
            "interval": [measured.low, measured.high],
            "band": [low, high],
            "counterexample": self.counterexample,
        }


@dataclass(frozen=True, repr=False)
class Claim:
    """One numbered claim of a chapter, with the replacement that corrects it if there is one."""

    id: str
    check: Check
    replacement: Check | None
    tier: str
    device: str

    @property
    def statement(self) -> str:
        """The statement, followed by its replacement where it was corrected."""
        if self.verdict == "corrected":
            return f"{self.check.statement} Instead: {self.replacement.statement}"
        return self.check.statement

    @property
    def verdict(self) -> str:
        """*holds*, *refuted*, *corrected* or *undecided*."""
        verdict = self.check.verdict
        if verdict == "refuted" and self.replacement is not None and self.replacement.verdict == "holds":
            return "corrected"
        return verdict

    def __repr__(self) -> str:
        return f"Claim {self.id} {self.verdict}: {self.statement}"

    def _repr_html_(self) -> str:
        return f'<p class="claim">Claim {self.id} {_badge(self.verdict)} {html.escape(self.statement)}</p>'

    def as_record(self) -> dict[str, Any]:
        """The claim as one object of ``data/claims/<chapter>.json``."""
        record = {"id": self.id, "statement": self.statement, "verdict": self.verdict, **self.check.as_record()}
        record |= {"tier": self.tier, "device": self.device}
        if self.replacement is not None:
            record["replacement"] = {
                "statement": self.replacement.statement,
                "verdict": self.replacement.verdict,
                **self.replacement.as_record(),
            }
        return record


class Ledger:
    """The claims of one chapter, in their order.

    Args:
        chapter: the chapter's file name without ending, such as ``"01-angles"``.

    Example:
        >>> ledger = Ledger("01-angles")
        >>> ledger.claim("1.1", "A square has four sides.", 4, within(4, 0), counterexample=5)
        Claim 1.1 holds: A square has four sides.
        >>> ledger.summary()
        1 claim: 1 holds.
    """

    def __init__(self, chapter: str) -> None:
        number = chapter.split("-")[0]
        if not number.isdigit():
            raise ValueError(f"chapter must begin with its number, such as '01-angles', got {chapter!r}")
        self.chapter, self.number, self.claims = chapter, int(number), []

    def claim(
        self,
        number: str,
        statement: str,
        measured: measure.Estimate | float,
        band: Band,
        *,
        counterexample: float,
        replacement: Check | None = None,
        record: records.Record | None = None,
    ) -> None:
        """Register the next claim, check it and show its verdict.

        Args:
            number: ``"<chapter>.<k>"``; k counts from 1 without a gap. Checking the last claim again (a cell
                that is run twice) replaces it and all that follow.
            statement: one sentence of plain text.
            measured: an `Estimate`, or a number that is exact.
            band: the values for which the statement is true.
            counterexample: a value for which this check gives another verdict.
            replacement: what holds instead, if the statement is refuted.
            record: the recorded run that was measured; None for a measurement made live.

        Raises:
            ValueError: a number out of turn, or a check that cannot fail.
        """
        chapter, _, position = number.partition(".")
        if chapter != str(self.number) or not position.isdigit() or not 1 <= int(position) <= len(self.claims) + 1:
            raise ValueError(
                f"number must be {self.number}.1 to {self.number}.{len(self.claims) + 1} here, got {number!r}"
            )
        check = Check(statement, measured, band, counterexample)
        tier = "live" if record is None else f"recorded on {record.scale.upper()}"
        device = measure.device().name if record is None else record.device.name
        claim = Claim(number, check, replacement, tier, device)
        self.claims[int(position) - 1 :] = [claim]
        display(claim)

    def summary(self) -> None:
        """Print how many claims there are of each verdict, one comparable line."""
        count = Counter(claim.verdict for claim in self.claims)
        told = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])
        print(f"{len(self.claims)} claim{'s' * (len(self.claims) != 1)}: {told}.")

    def table(self) -> Table:
        """The claims with their values; the last cell of the claims section shows it.

        Under ``make execute`` this also hands the record over, to the file named by the environment.
        """
        if path := os.environ.get(RECORD_VARIABLE):
            records.write_json(Path(path), [claim.as_record() for claim in self.claims])
        return Table([claim.as_record() for claim in self.claims])


@dataclass(frozen=True)
class Table:
    """Claims as a table, in a notebook and as Markdown."""

    rows: list[dict[str, Any]]

    HEADER = ("claim", "statement", "verdict", "measured", "band", "where")

    def cells(self) -> list[tuple[str, ...]]:
        """One tuple of texts a claim, in the order of ``HEADER``."""
        return [
            (
                row["id"],
                row["statement"],
                row["verdict"],
                " → ".join(_measured(check) for check in _checks(row)),
                " → ".join(str(_band(check)) for check in _checks(row)),
                row["tier"],
            )
            for row in self.rows
        ]

    def _repr_html_(self) -> str:
        left = ' style="text-align:left"'  # on every cell: JupyterLab aligns cells to the right
        head = "".join(f"<th{left}>{name}</th>" for name in self.HEADER)
        body = "".join(
            "<tr>" + "".join(f"<td{left}>{_badge(html.escape(cell))}</td>" for cell in cells) + "</tr>"
            for cells in self.cells()
        )
        return f'<table class="claims"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        return "\n".join(" | ".join(cells) for cells in self.cells())


def _badge(cell: str) -> str:
    """A verdict as a badge; any other text as it is."""
    return f'<b class="verdict {cell}">{cell}</b>' if cell in VERDICTS else cell


def _checks(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The check of a claim, and its replacement's where the claim was corrected."""
    return [row, row["replacement"]] if row["verdict"] == "corrected" else [row]


def _measured(check: dict[str, Any]) -> str:
    return str(measure.Estimate(check["value"], *check["interval"]))


def _band(check: dict[str, Any]) -> Band:
    low, high = check["band"]
    return Band(-math.inf if low is None else low, math.inf if high is None else high)
