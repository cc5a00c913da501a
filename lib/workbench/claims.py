"""Numbered claims: declared as data before they are measured, judged by what was measured, never typed.

A claim is a statement, the band of values for which it is true, whose statement it is and in whose setting. It
stands in ``data/claims/<chapter>.toml``, and the notebook measures it: ``claims.check("4.1", value)``. The verdict
follows:

* *holds*: the whole interval of the measured value lies in the band;
* *refuted*: the interval lies wholly outside;
* *undecided*: it straddles an edge of the band, so this measurement cannot tell;
* *corrected*: refuted, and a replacement stated beside it holds.

These four speak of mathematics, or of a setting that is the source's. Where ours is another one, a smaller network
or fewer data, nobody is corrected: *reproduced here* and *not reproduced here* say what was found, and the card
says how the settings differ.

Every claim has a counterexample, a value that would have given another verdict: a check that cannot fail is
refused. What a notebook stores of a claim is compared between machines by verdict and statement alone.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.display import display

from lib.workbench import cards, measure, records

VERDICTS = ("holds", "corrected", "refuted", "undecided", "reproduced here", "not reproduced here")
#: Where a ledger writes its record; set by ``make execute`` alone.
RECORD_VARIABLE = "BOOK_CLAIMS"
FOLDER = Path(__file__).resolve().parents[2] / "data" / "claims"


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


#: How a declaration names its band, and what makes it.
_BANDS = {
    "at_most": below,
    "at_least": above,
    "between": lambda ends: between(*ends),
    "within": lambda c: within(*c),
}


@dataclass(frozen=True)
class Declared:
    """A claim as it stands in the declarations of its chapter, before anything is measured.

    Attributes:
        id: ``"<chapter>.<k>"``.
        statement: one sentence that names its threshold.
        band: the values for which it is true.
        unit: of the value, such as ``"of 10,000 pairs"``; empty for a plain number.
        source: whose statement it is: ``"article"``, ``"book"``, or a paper with its section; empty in a
            replacement, which is the book's.
        setting: how our setting differs from the source's, half a sentence; empty where it does not, or in
            mathematics.
        evidence: what kind of evidence decides, such as ``"10 seeds, t-interval"``.
        counterexample: a value that would give another verdict; None where the notebook measures one.
        replacement: what holds instead, if the statement is refuted.
    """

    id: str
    statement: str
    band: Band
    unit: str = ""
    source: str = ""
    setting: str = ""
    evidence: str = ""
    counterexample: float | None = None
    replacement: Declared | None = None

    @classmethod
    def from_table(cls, number: str, table: Mapping[str, Any], *, instead: bool = False) -> Declared:
        """The claim that a table of TOML declares, or what is said ``instead`` of one, whose source is the book.

        Raises:
            ValueError: the table names no band or two, has no statement or no source, or a key that means nothing.

        Example:
            >>> Declared.from_table("1.1", {"statement": "At most 2.", "at_most": 2, "source": "book"}).band
            Band(low=-inf, high=2)
        """
        table = dict(table)
        names = [name for name in _BANDS if name in table]
        if len(names) != 1:
            raise ValueError(f"claim {number} must name one of {', '.join(_BANDS)}, got {names or 'none'}")
        band = _BANDS[names[0]](table.pop(names[0]))
        if not str(table.get("statement", "")).strip():
            raise ValueError(f"claim {number} must have a statement")
        if "source" not in table and not instead:
            raise ValueError(f"claim {number} must name its source")
        replacement = table.pop("replacement", None)
        if replacement is not None:
            replacement = cls.from_table(number, replacement, instead=True)
        unknown = table.keys() - {"statement", "unit", "source", "setting", "evidence", "counterexample"}
        if unknown:
            raise ValueError(f"claim {number} has keys that mean nothing: {', '.join(sorted(unknown))}")
        return cls(number, band=band, replacement=replacement, **table)


def declared(chapter: str, folder: Path = FOLDER) -> dict[str, Declared]:
    """The claims that a chapter declares, by number.

    Raises:
        FileNotFoundError: it has no file of declarations.
        ValueError: the numbers do not run from 1 without a gap, or a claim is not whole.
    """
    path = folder / f"{chapter}.toml"
    if not path.exists():
        raise FileNotFoundError(f"chapter {chapter!r} must declare its claims in {path}")
    tables = tomllib.loads(path.read_text(encoding="utf8"))
    number = int(chapter.split("-")[0])
    if [*tables] != [f"{number}.{k}" for k in range(1, len(tables) + 1)]:
        raise ValueError(
            f"{path.name}: claims must be numbered {number}.1, {number}.2, … in order, got {[*tables]}"
        )
    return {name: Declared.from_table(name, table) for name, table in tables.items()}


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

    @property
    def p_value(self) -> float | None:
        """How easily chance alone could have given this verdict, were the truth at the band's nearest edge.

        None for a value without an interval, which no chance has moved.
        """
        if self.measured.low == self.measured.high:
            return None
        edges = [edge for edge in (self.band.low, self.band.high) if math.isfinite(edge)]
        return max(self.measured.p_value(edge) for edge in edges)

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
    declared: Declared

    @property
    def statement(self) -> str:
        """The statement, followed by its replacement where it was corrected."""
        if self.corrected:
            return f"{self.check.statement} Instead: {self.replacement.statement}"
        return self.check.statement

    @property
    def corrected(self) -> bool:
        """Whether the statement is refuted and its replacement holds."""
        return (
            self.check.verdict == "refuted" and self.replacement is not None and self.replacement.verdict == "holds"
        )

    @property
    def verdict(self) -> str:
        """One of ``VERDICTS``."""
        found = self.check.verdict
        if self.declared.setting and found != "undecided":
            return "reproduced here" if found == "holds" else "not reproduced here"
        return "corrected" if self.corrected else found

    @property
    def p_value(self) -> float | None:
        """That of its check, and the larger of two where a replacement was decided too; None without intervals."""
        found = [check.p_value for check in (self.check, self.replacement if self.corrected else None) if check]
        return max((p for p in found if p is not None), default=None)

    def __repr__(self) -> str:
        return f"Claim {self.id} {self.verdict}: {self.statement}"

    def _repr_html_(self) -> str:
        return cards.card(self.as_record())

    def as_record(self) -> dict[str, Any]:
        """The claim as one object of ``data/claims/<chapter>.json``."""
        record = {"id": self.id, "statement": self.statement, "verdict": self.verdict, **self.check.as_record()}
        record |= {"tier": self.tier, "device": self.device}
        record |= {name: getattr(self.declared, name) for name in ("unit", "source", "setting", "evidence")}
        if self.replacement is not None:
            record["replacement"] = {
                "statement": self.replacement.statement,
                "verdict": self.replacement.verdict,
                **self.replacement.as_record(),
                "unit": self.declared.replacement.unit if self.declared.replacement else "",
            }
        return record


class Ledger:
    '''The claims of one chapter, in their order.

    Args:
        chapter: the chapter's file name without ending, such as ``"01-angles"``.
        folder: where its declarations lie.

    Raises:
        ValueError: the chapter does not begin with its number, or what it declares is not whole.
        FileNotFoundError: it declares nothing.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> file = folder / "10-squares.toml"
        >>> _ = file.write_text("""["10.1"]
        ... statement = "A square has 4 sides."
        ... within = [4, 0]
        ... counterexample = 5
        ... source = "book"
        ... """)
        >>> ledger = Ledger("10-squares", folder)
        >>> ledger.check("10.1", 4)
        Claim 10.1 holds: A square has 4 sides.
        >>> ledger.summary()
        1 claim: 1 holds.
        None rests on an interval.
    '''

    def __init__(self, chapter: str, folder: Path = FOLDER) -> None:
        number = chapter.split("-")[0]
        if not number.isdigit():
            raise ValueError(f"chapter must begin with its number, such as '01-angles', got {chapter!r}")
        self.chapter, self.number, self.claims = chapter, int(number), []
        self.declared = declared(chapter, folder)

    def check(
        self,
        number: str,
        measured: measure.Estimate | float,
        *,
        against: float | None = None,
        instead: measure.Estimate | float | None = None,
        record: records.Record | None = None,
    ) -> None:
        """Judge the next declared claim by what was measured, and show its card.

        Args:
            number: of the claim in the declarations. Checking the last claim again (a cell that is run twice)
                replaces it and all that follow.
            measured: an `Estimate`, or a number that is exact.
            against: a measured counterexample, such as what a wrong law gives; the declared one if None.
            instead: what was measured of the replacement; ``measured`` if None.
            record: the recorded run that was measured; None for a measurement made live.

        Raises:
            ValueError: the number is not declared or out of turn, there is no counterexample, or the check cannot
                fail.
        """
        if number not in self.declared:
            raise ValueError(f"number must be one of {', '.join(self.declared)}, got {number!r}")
        claim = self.declared[number]
        against = claim.counterexample if against is None else against
        if against is None:
            raise ValueError(f"against must be given: claim {number} declares no counterexample")
        check = Check(claim.statement, measured, claim.band, float(against))
        other = claim.replacement
        if other is not None:
            # The replacement must tell its own value from the one that refuted the statement.
            wrong = against if instead is None else check.measured.value
            wrong = wrong if other.counterexample is None else other.counterexample
            other = Check(other.statement, check.measured if instead is None else instead, other.band, wrong)
        self._register(claim, check, other, record)

    def _register(
        self, claim: Declared, check: Check, replacement: Check | None, record: records.Record | None
    ) -> None:
        chapter, _, position = claim.id.partition(".")
        if chapter != str(self.number) or not position.isdigit() or not 1 <= int(position) <= len(self.claims) + 1:
            raise ValueError(
                f"number must be {self.number}.1 to {self.number}.{len(self.claims) + 1} here, got {claim.id!r}"
            )
        tier = "live" if record is None else f"recorded on {record.scale.upper()}"
        device = measure.device().name if record is None else record.device.name
        made = Claim(claim.id, check, replacement, tier, device, claim)
        self.claims[int(position) - 1 :] = [made]
        display(made)

    def summary(self) -> None:
        """Print how many claims there are of each verdict, and what Holm's correction leaves of them.

        Both are lines to be compared: they hold no measured number. A chapter makes many claims, and one in
        twenty intervals misses. So the claims that rest on intervals are judged once more, together, by
        `measure.holm`; a verdict that would not stand is named.

        Under ``make execute`` this also hands the record over, to the file named by the environment.

        Raises:
            ValueError: a declared claim was not checked.
        """
        if len(self.claims) != len(self.declared):
            missing = [name for name in self.declared if name not in {claim.id for claim in self.claims}]
            raise ValueError(f"declared and not checked: {', '.join(missing)}")
        if path := os.environ.get(RECORD_VARIABLE):
            records.write_json(Path(path), [claim.as_record() for claim in self.claims])
        count = Counter(claim.verdict for claim in self.claims)
        if count["holds"] > 1:
            count["hold"] = count.pop("holds")
        told = ", ".join(f"{count[verdict]} {verdict}" for verdict in ("hold", *VERDICTS) if count[verdict])
        print(f"{len(self.claims)} claim{'s' * (len(self.claims) != 1)}: {told}.")
        print(_multiplicity({claim.id: claim.p_value for claim in self.claims}))


def _multiplicity(p_values: Mapping[str, float | None]) -> str:
    """How many claims rest on intervals, and which verdicts would not stand if all were judged together.

    Example:
        >>> print(_multiplicity({"1.1": None, "1.2": 1e-4, "1.3": 0.04, "1.4": 0.03, "1.5": 0.2}))
        4 rest on 95 % intervals: 1.2, 1.3, 1.4 and 1.5. By Holm's correction 1.3 and 1.4 would be undecided.
    """
    tested = {number: p for number, p in p_values.items() if p is not None}
    if not tested:
        return "None rests on an interval."
    stands = dict(zip(tested, measure.holm([*tested.values()]), strict=True))
    lost = [number for number, p in tested.items() if p < 0.05 and not stands[number]]
    verb = "rests on a 95 % interval" if len(tested) == 1 else "rest on 95 % intervals"
    told = f"{_and(lost)} would be undecided" if lost else "every verdict stands"
    return f"{len(tested)} {verb}: {_and([*tested])}. By Holm's correction {told}."


def _and(names: list[str]) -> str:
    """Names as a list in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
