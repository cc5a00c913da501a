"""From the rows of the records to answers, right or wrong, and what can be said of their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.experiments.theseus.comparison import mcnemar, paired_bootstrap, retained, unpack
from lib.workbench.measure import Estimate

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


def difference(rows: Sequence[Row], others: Sequence[Row], labels: ArrayLike, key: str = "predicted") -> Estimate:
    """The accuracy of some networks less that of others with the same seeds, and its interval for both to vary.

    Args:
        rows: one a seed; those whose seed the others lack are left out.
        others: likewise.
        labels: (items,).
        key: as in :func:`right`.

    Raises:
        ValueError: no seed in common.

    Example:
        >>> a, b = ([{"seed": 0, "predicted": text}] for text in ("f0", "70"))
        >>> difference(a, b, [1, 1, 1, 1]).value
        0.25
    """
    shared = {row["seed"] for row in rows} & {row["seed"] for row in others}
    a, b = (right([row for row in some if row["seed"] in shared], labels, key) for some in (rows, others))
    return paired_bootstrap(a.astype(int) - b.astype(int))


def kept(rows: Sequence[Row], labels: ArrayLike) -> Estimate:
    """The share of the predecessor's accuracy that is kept.

    Example:
        >>> kept([{"seed": 0, "predicted": "70", "teacher": "f0"}], [1, 1, 1, 1]).value
        0.75
    """
    return retained(right(rows, labels), right(rows, labels, "teacher"))


def agreement(rows: Sequence[Row], items: int) -> Estimate:
    """The share of items on which the network and its predecessor say the same.

    Example:
        >>> agreement([{"seed": 0, "predicted": "70", "teacher": "f0"}], 4).value
        0.75
    """
    ones = np.ones(items, int)
    return paired_bootstrap((right(rows, ones) == right(rows, ones, "teacher")).astype(int))


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


def worst(rows: Sequence[Row]) -> Estimate:
    """The most that the predecessor loses in any mixture: mean and interval over the seeds.

    Example:
        >>> round(worst([{"mixtures": {"0": 0.9, "1": right}} for right in (0.7, 0.5)]).value, 2)
        0.3
    """
    return Estimate.from_samples([max(lost([row]).values()) for row in rows])


def lead(rows: Sequence[Row]) -> Estimate:
    """How much more is lost by replacing the first module than by any other: mean and interval over the seeds.

    Example:
        >>> round(lead([{"mixtures": {"00": 0.9, "01": 0.8, "10": 0.7, "11": 0.5}}] * 2).value, 2)
        0.1
    """
    return Estimate.from_samples([one[0] - max(one[1:]) for one in (hardest([row]) for row in rows)])


def table(rows: Mapping[str, Sequence[Row]], items: int) -> str:
    """Means over the seeds, a line a road: right answers, those like the predecessor's, KL, training part, effort.

    Args:
        rows: by name, one row a seed.
        items: of the test part.

    Example:
        >>> row = {"seed": 0, "predicted": "70", "teacher": "f0", "accuracy": 0.75, "kl": 0.1}
        >>> print(table({"a road": [{**row, "train_accuracy": 1.0, "effort": 3}]}, items=4))
                                  right  alike    KL  train  effort
        a road                    75.0%  75.0%  0.10 100.0%       3
    """
    lines = [f"{'':24} {'right':>6} {'alike':>6} {'KL':>5} {'train':>6} {'effort':>7}"]
    for name, found in rows.items():
        right_, kl, train, effort = (
            np.mean([row[key] for row in found]) for key in ("accuracy", "kl", "train_accuracy", "effort")
        )
        alike = agreement(found, items).value
        lines.append(f"{name:24} {right_:6.1%} {alike:6.1%} {kl:5.2f} {train:6.1%} {effort:7.0f}")
    return "\n".join(lines)
