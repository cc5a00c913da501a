"""What is recorded, and what it says over the seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from lib.experiments.orthogonality.agreement import INPUTS, module_alone
from lib.experiments.orthogonality.training import METHODS, first_filters, train
from lib.workbench import records
from lib.workbench.measure import Estimate

CHAPTER = "03-orthogonality"

#: Seeds that choose the strengths, and seeds that are reported.
TUNING_SEEDS = (101, 102, 103)
SEEDS = tuple(range(1, 11))

#: How much above the plain network's a method's training loss may be.
ALLOWED = 1.05

#: Methods that are compared at their chosen strengths, and those whose filters are drawn.
COMPARED = ("plain", "weight decay", "soft", "module", "pair term, corrected", "hard")
DRAWN = ("plain", "soft", "pair term, corrected", "hard")

#: The forms of the module, which are compared at one strength, with (first two) and without the mean term.
FORMS = ("module", "module, corrected", "pair term", "pair term, corrected")
STRENGTH = 1e-5


def record_tuning(scale: str) -> records.Record:
    """Loss, angles and agreement against strength for every method, three seeds that are not reported."""
    cases = [
        {"method": method, "strength": strength, "seed": seed}
        for method, grid in METHODS.items()
        for strength in grid
        for seed in TUNING_SEEDS
    ]
    return records.sweep(CHAPTER, "tuning", train, cases, scale=scale)


def record_training(scale: str) -> records.Record:
    """Angles, accuracy and robustness for the compared methods at their chosen strengths, ten seeds."""
    tuning = _tuned(scale)
    cases = [
        {"method": method, "strength": choose(tuning, method), "seed": seed}
        for method in COMPARED
        for seed in SEEDS
    ]
    return records.sweep(CHAPTER, "training", train, cases, scale=scale)


def record_terms(scale: str) -> records.Record:
    """The four forms of the module at one strength, six seeds."""
    cases = [{"method": form, "strength": STRENGTH, "seed": seed} for form in FORMS for seed in SEEDS[:6]]
    return records.sweep(CHAPTER, "terms", train, cases, scale=scale)


def effect(terms: records.Record, key: str, *, of_the_mean_term: bool) -> Estimate:
    """What a part of the module adds to a recorded value, over both forms of the other part, seed by seed.

    Args:
        terms: the record "terms".
        key: of the value.
        of_the_mean_term: whether the part is the mean term, or the correction, centred and scaled outputs.
    """
    values = np.array([last(terms, key, method=form) for form in FORMS]).reshape(2, 2, -1)
    first, second = values.mean(axis=1) if of_the_mean_term else values.mean(axis=0)[::-1]
    return Estimate.from_samples(first - second)


def record_filters(scale: str) -> records.Record:
    """The filters of the first layer after training, for the methods that are drawn."""
    tuning = _tuned(scale)
    cases = [{"method": method, "strength": choose(tuning, method), "seed": SEEDS[0]} for method in DRAWN]
    return records.sweep(CHAPTER, "filters", first_filters, cases, scale=scale)


def record_alone(scale: str) -> records.Record:
    """One layer trained on the module alone, on normal inputs and on patches, ten seeds."""
    cases = [{"inputs": inputs, "seed": seed} for inputs in INPUTS for seed in SEEDS]
    return records.sweep(CHAPTER, "alone", module_alone, cases, scale=scale)


def _tuned(scale: str) -> records.Record:
    tuning = records.load(CHAPTER, "tuning", scale)
    if tuning is None:
        raise ValueError("the record 'tuning' is missing: run it first, it chooses the strengths")
    return tuning


def last(record: records.Record, key: str, entry: int = -1, **case: Any) -> list[float]:
    """A recorded value of every run that matches, by seed; of a list its last or another entry."""
    rows = sorted(record.where(**case), key=lambda row: row["seed"])
    return [float(np.ravel(row[key])[entry]) for row in rows]


def mean(record: records.Record, key: str, entry: int = -1, **case: Any) -> Estimate:
    """Mean of :func:`last` over the seeds, with its t interval."""
    return Estimate.from_samples(last(record, key, entry, **case))


def loss_ratio(tuning: records.Record, method: str, strength: float | None) -> Estimate:
    """Training loss of a method at a strength over that of the plain network, seed by seed, with its t interval."""
    losses = last(tuning, "task", method=method, strength=strength)
    return Estimate.from_samples(np.divide(losses, last(tuning, "task", method="plain")))


def choose(tuning: records.Record, method: str) -> float | None:
    """The number of a method, by one rule fixed in advance: as strong as the task allows.

    It is the largest number of the grid up to which the training loss in the last epoch, without the penalty, is
    on the mean of the tuning seeds at most 5 % above that of the plain network. Test images take no part.

    Args:
        tuning: the record "tuning".
        method: a key of :data:`METHODS`.

    Raises:
        ValueError: a method that was not tuned, or one whose grid does not hold the edge: its smallest number is
            too strong already, or its largest is not.
    """
    grid = sorted({row["strength"] for row in tuning.where(method=method)} - {None})
    if not grid:
        if not tuning.where(method=method):
            raise ValueError(f"method: got {method!r}, which the record does not hold")
        return None
    allowed = [loss_ratio(tuning, method, strength).value <= ALLOWED for strength in grid]
    count = allowed.index(False) if False in allowed else len(grid)
    if count in (0, len(grid)):
        raise ValueError(f"grid of {method!r} must hold the edge of what the task allows, got {grid}")
    return grid[count - 1]


def against(
    record: records.Record, key: str, method: str, other: str, entry: int = -1, confidence: float = 0.95
) -> Estimate:
    """Mean of the differences between two methods, seed by seed, with its t interval.

    Args:
        record: the record "training".
        key: of the value.
        method: a key of :data:`METHODS`.
        other: another, which is subtracted.
        entry: which entry, if the value is a list; for "accuracy" the number of the level of noise.
        confidence: of the interval.
    """
    one, two = (last(record, key, entry, method=name) for name in (method, other))
    return Estimate.from_samples(np.subtract(one, two), confidence)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.orthogonality --scale cpu``."""
    experiments = {"tuning": record_tuning, "training": record_training}
    experiments |= {"terms": record_terms, "filters": record_filters, "alone": record_alone}
    return records.main(CHAPTER, experiments, argv)


if __name__ == "__main__":
    sys.exit(main())
