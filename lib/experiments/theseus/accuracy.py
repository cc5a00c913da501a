"""From the rows of the records to answers, right or wrong, and what can be said of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from lib.experiments.theseus.comparison import mcnemar, unpack

Row = Mapping[str, Any]


def right(rows: Sequence[Row], labels: ArrayLike, key: str = "predicted") -> NDArray[np.bool_]:
    """Which answers are right, (seeds, items).

    Args:
        rows: one a seed, in the order of the seeds.
        labels: 0 or 1, (items,).
        key: where the predictions are: "predicted", or "teacher" for the predecessor's; or "correct", if the rows
            tell themselves what was right.

    Raises:
        ValueError: no rows, or a seed that occurs twice.

    Example:
        >>> right([{"seed": 0, "predicted": "a0"}], [1, 1, 1, 0]).tolist()
        [[True, False, True, True]]
    """
    seeds = [row["seed"] for row in rows]
    if not rows or len({*seeds}) != len(seeds):
        raise ValueError(f"rows must be one a seed, got those of the seeds {seeds}")
    labels = np.asarray(labels)
    told = np.stack([unpack(row[key], len(labels)) for row in rows])
    return told if key == "correct" else told == labels


def difference(
    rows: Sequence[Row], others: Sequence[Row], labels: ArrayLike, key: str = "predicted"
) -> NDArray[np.float64]:
    """The points of accuracy by which some networks are better than others, seed by seed, (seeds,).

    Args:
        rows: one a seed; those whose seed the others lack are left out.
        others: likewise.
        labels: (items,).
        key: as in :func:`right`.

    Raises:
        ValueError: no seed in common.

    Example:
        >>> a, b = ([{"seed": 0, "predicted": text}] for text in ("f0", "70"))
        >>> difference(a, b, [1, 1, 1, 1])
        array([25.])
    """
    shared = {row["seed"] for row in rows} & {row["seed"] for row in others}
    a, b = (right([row for row in some if row["seed"] in shared], labels, key) for some in (rows, others))
    return 100 * (a.mean(axis=1) - b.mean(axis=1))


def as_teacher(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The same rows with the predecessor's answers in the place of the network's.

    Example:
        >>> as_teacher([{"seed": 0, "predicted": "70", "teacher": "f0"}])[0]["predicted"]
        'f0'
    """
    return [{**row, "predicted": row["teacher"]} for row in rows]


def kept(rows: Sequence[Row], labels: ArrayLike) -> NDArray[np.float64]:
    """The share of the predecessor's accuracy that is kept, seed by seed, in %.

    Example:
        >>> kept([{"seed": 0, "predicted": "70", "teacher": "f0"}], [1, 1, 1, 1])
        array([75.])
    """
    return 100 * right(rows, labels).mean(axis=1) / right(rows, labels, "teacher").mean(axis=1)


def agreement(rows: Sequence[Row], items: int) -> NDArray[np.float64]:
    """The share of items on which the network and its predecessor say the same, seed by seed, in %.

    Example:
        >>> agreement([{"seed": 0, "predicted": "70", "teacher": "f0"}], 4)
        array([75.])
    """
    ones = np.ones(items, int)
    return 100 * (right(rows, ones) == right(rows, ones, "teacher")).mean(axis=1)


def seeds_needed(samples: ArrayLike, edge: float, most: int = 1000) -> int | None:
    """How many seeds a t-interval needs to leave out ``edge``, if mean and spread are those of these samples.

    Args:
        samples: one a seed, at least two.
        edge: of a claim's band, or another number.
        most: where to stop looking.

    Returns:
        The least n with t(n − 1) s/√n at most the distance of the mean from the edge; None above ``most``.

    Example:
        >>> seeds_needed([0.9, 1.0, 1.1], edge=0.8), seeds_needed([0.9, 1.0, 1.1], edge=1.0)
        (4, None)
    """
    distance, spread = abs(np.mean(samples) - edge), np.std(samples, ddof=1)
    n = np.arange(2, most + 1)
    enough = stdtrit(n - 1, 0.975) * spread / np.sqrt(n) <= distance
    return int(n[enough.argmax()]) if enough.any() else None


def p_values(rows: Sequence[Row], others: Sequence[Row], labels: ArrayLike) -> list[float]:
    """McNemar's test of each seed.

    Example:
        >>> a, b = ([{"seed": 0, "predicted": text}] for text in ("ff", "00"))
        >>> p_values(a, b, [1] * 8)
        [0.0078125]
    """
    pairs = zip(right(rows, labels), right(others, labels), strict=True)
    return [mcnemar(a, b) for a, b in pairs]


def mixtures(row: Row) -> dict[str, float]:
    """The accuracy of each mixture, by its pattern: "100" where the first of three modules is the successor's.

    Args:
        row: what ``images.mixtures`` finds, or a row of a record that was looked into.

    Example:
        >>> mixtures({"replaced": ["0", "1"], "accuracy": [0.9, 0.8]})
        {'0': 0.9, '1': 0.8}
    """
    return row["mixtures"] if "mixtures" in row else dict(zip(row["replaced"], row["accuracy"], strict=True))


def lost(rows: Sequence[Row]) -> dict[str, float]:
    """What the predecessor loses in each mixture, on the mean of the seeds.

    Example:
        >>> {pattern: round(loss, 2) for pattern, loss in lost([{"mixtures": {"0": 0.9, "1": 0.8}}]).items()}
        {'0': 0.0, '1': 0.1}
    """
    means = {pattern: np.mean([mixtures(row)[pattern] for row in rows]) for pattern in mixtures(rows[0])}
    none = "0" * len(next(iter(means)))
    return {pattern: float(means[none] - mean) for pattern, mean in means.items()}


def hardest(rows: Sequence[Row]) -> list[float]:
    """What is lost if one module is replaced, the first, the second and so on.

    Example:
        >>> [round(loss, 2) for loss in hardest([{"mixtures": {"00": 0.9, "01": 0.8, "10": 0.7, "11": 0.5}}])]
        [0.2, 0.1]
    """
    losses = lost(rows)
    n = len(next(iter(losses)))
    return [losses["0" * i + "1" + "0" * (n - i - 1)] for i in range(n)]


def worst(rows: Sequence[Row]) -> NDArray[np.float64]:
    """The most that the predecessor loses in any mixture, seed by seed, in points.

    Example:
        >>> worst([{"mixtures": {"0": 0.9, "1": right}} for right in (0.7, 0.5)]).round(1)
        array([20., 40.])
    """
    return 100 * np.array([max(lost([row]).values()) for row in rows])


def lead(rows: Sequence[Row]) -> NDArray[np.float64]:
    """How much more is lost by replacing the first module than by any other, seed by seed, in points.

    Example:
        >>> lead([{"mixtures": {"00": 0.9, "01": 0.8, "10": 0.7, "11": 0.5}}] * 2).round(1)
        array([10., 10.])
    """
    return 100 * np.array([one[0] - max(one[1:]) for one in (hardest([row]) for row in rows)])
