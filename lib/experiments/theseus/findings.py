"""All comparisons that the records hold, of which the chapter makes few into claims: differences, seed by seed.

* :func:`looked_into`, :func:`worst_mixtures`: MiniLM's mixtures of old and new modules
* :func:`pictures`, :func:`sentences`: samples by the name of a comparison
* :func:`table`: one line each, with its interval and the seeds that would decide
* :func:`decisions`: the same of the chapter's claims
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.experiments.theseus import accuracy
from lib.experiments.theseus.drawings import SIZES, cases
from lib.workbench.claims import Ledger
from lib.workbench.measure import Estimate
from lib.workbench.records import Record

Row = Mapping[str, Any]
Samples = NDArray[np.float64]


def of_road(
    record: Record, road: str, blocks: int = 3, start: str = "pretrained", steps: int = 160
) -> tuple[dict[str, Any], ...]:
    """The rows of one way to train MiniLM's successor, one a seed."""
    return record.where(road=road, blocks=blocks, start=start, steps=steps)


def looked_into(half: Record, opened: Record) -> dict[str, dict[str, tuple[dict[str, Any], ...]]]:
    """The ways of MiniLM whose mixtures were looked at, after a short and a long training.

    Direct training has a head of its own, or the predecessor's. Theseus is looked into before its third stage.
    """
    return {
        "sentences, 160 steps": {
            "Theseus": of_road(half, "curriculum"),
            "direct, old head": of_road(opened, "old head"),
            "direct": of_road(half, "fine-tuning"),
        },
        "sentences, 650 steps": {
            "Theseus": of_road(opened, "curriculum", steps=650),
            "direct, old head": of_road(opened, "old head", steps=650),
        },
    }


def of_lengths(half: Record, opened: Record) -> dict[str, dict[str, tuple[dict[str, Any], ...]]]:
    """Four ways to train MiniLM's successor, a short and a long training of each, by the names of the figures."""
    return {
        f"{steps} steps": {
            "Theseus": of_road(half, "curriculum", steps=steps),
            "direct": of_road(half, "fine-tuning", steps=steps),
            "direct, old head": of_road(opened, "old head", steps=steps),
            "distillation": of_road(half, "distillation", steps=steps),
        }
        for steps in (160, 650)
    }


def worst_mixtures(ways: Mapping[str, Sequence[Row]]) -> dict[str, Samples]:
    """The points that the worst mixture of another way loses more than that of Theseus, on the seeds of both.

    Example:
        >>> ways = {name: [{"seed": 0, "mixtures": {"0": 0.9, "1": right}}] for name, right in
        ...         [("Theseus", 0.8), ("direct", 0.5)]}
        >>> worst_mixtures(ways)["direct"].round(1)
        array([30.])
    """
    return {
        name: np.subtract(*map(accuracy.worst, _paired(rows, ways["Theseus"])))
        for name, rows in ways.items()
        if name != "Theseus"
    }


def _paired(rows: Sequence[Row], others: Sequence[Row]) -> list[list[Row]]:
    """Both in the order of the seeds, without those that one of them lacks."""
    by_seed = [{row["seed"]: row for row in some} for some in (rows, others)]
    return [[some[seed] for seed in sorted(by_seed[0].keys() & by_seed[1])] for some in by_seed]


def column(rows: Sequence[Row], key: str) -> Samples:
    """The values under one key, in points where they are shares."""
    return 100 * np.array([row[key] for row in rows])


def log_ratio(rows: Sequence[Row], others: Sequence[Row], key: str = "kl") -> Samples:
    """The logarithm of a quotient, on the seeds of both.

    Example:
        >>> log_ratio([{"seed": 0, "kl": 2.0}], [{"seed": 0, "kl": 1.0}, {"seed": 1, "kl": 1.0}]).round(2)
        array([0.69])
    """
    return np.subtract(*(np.log([row[key] for row in some]) for some in _paired(rows, others)))


def pictures(contest: Record, images: Record, gradients: Record, labels: ArrayLike) -> dict[str, Samples]:
    """Points of accuracy on the pictures, where a name says nothing else."""
    many, few = ({n: _ways(record, n) for n in sizes} for record, sizes in ((images, SIZES), (contest, (1000,))))

    def gain(some: Sequence[Row], others: Sequence[Row]) -> Samples:
        return accuracy.difference(some, others, labels, key="correct")

    found: dict[str, Samples] = {}
    found["1,000: first module, lost more"] = accuracy.lead(few[1000]["Theseus"])
    states = [np.mean([row["cka"][:2] for row in few[1000][way]], axis=1) for way in ("Theseus", "direct")]
    found["1,000: CKA, Theseus − direct"] = states[0] - states[1]
    slopes = [np.divide(row["norm_of_mean"], row["rates"]) for row in gradients.rows]
    found["gradient over p, largest ratio − 1"] = np.array([max(slope) / min(slope) - 1 for slope in slopes])
    by_size = many | few  # where both records have a size, the one with more seeds
    for other in ("direct", "direct, ended early", "distillation"):
        found |= {f"{n:,}: Theseus − {other}": gain(by_size[n]["Theseus"], by_size[n][other]) for n in SIZES}
    ended = cases(images, way="direct", images=2000, steps=240)
    found["2,000: Theseus − direct, 240 steps"] = gain(many[2000]["Theseus"], ended)
    half = cases(images, way="theseus", images=8000)
    rare, often = (cases(images, way="theseus", images=8000, rate=rate) for rate in (0.1, 0.9))
    found["8,000: rate 0.1 − 0.5, before stage 3"] = column(rare, "before") - column(half, "before")
    found["8,000: rate 0.1 − 0.5"] = gain(rare, half)
    found["8,000: rate 0.9 − 0.5"] = gain(often, half)
    for name, setting in GATES.items():
        for n in (1000, 8000):
            some = cases(images, way="theseus", images=n, **setting)
            found[f"{n:,}: {name} − constant"] = gain(some, many[n]["Theseus"])
    team = cases(images, way="theseus", images=8000, gates="mean")
    found["8,000: mean of both − constant, before stage 3"] = column(team, "before") - column(half, "before")
    for name, way in (("Theseus", "theseus"), ("distillation", "distillation")):
        same = cases(images, way=way, images=8000, blocks=2)
        found[f"8,000: six blocks, {name} − old"] = gain(
            same, [{**row, "correct": row["old_correct"]} for row in same]
        )
    return found


#: Gates other than a coin at a constant rate of one half, as settings of the pictures.
GATES: dict[str, dict[str, Any]] = {
    "curriculum": {"schedule": "curriculum"},
    "reverse": {"schedule": "anti_curriculum"},
    "coin a picture": {"gates": "sample"},
    "uniform": {"gates": "uniform"},
    "mean of both": {"gates": "mean"},
    "ramp": {"gates": "mean", "schedule": "curriculum", "rate": 0.0},
}


def _ways(record: Record, images: int) -> dict[str, list[Row]]:
    """The rows of four ways, by the names of the figures."""
    ways: dict[str, dict[str, Any]] = {
        "direct": {"way": "direct"},
        "direct, ended early": {"way": "direct", "steps": 120},
        "distillation": {"way": "distillation"},
        "Theseus": {"way": "theseus"},
    }
    return {name: cases(record, images=images, **way) for name, way in ways.items()}


def contest(record: Record) -> dict[str, list[Row]]:
    """The four ways to train on 1,000 pictures."""
    return _ways(record, 1000)


def sentences(half: Record, others: Record, few: Record, opened: Record, labels: ArrayLike) -> dict[str, Samples]:
    """Points of accuracy on the sentences, where a name says nothing else."""

    def gain(some: Sequence[Row], than: Sequence[Row]) -> Samples:
        return accuracy.difference(some, than, labels)

    short = {way: of_road(half, way) for way in ("curriculum", "fine-tuning", "distillation", "constant")}
    long = {way: of_road(half, way, steps=650) for way in ("curriculum", "fine-tuning", "distillation")}
    theseus = short["curriculum"]
    found = {
        "160 steps: Theseus − direct": gain(theseus, short["fine-tuning"]),
        "160 steps: Theseus − distillation": gain(theseus, short["distillation"]),
        "160 steps: best blocks − MiniLM's first": gain(of_road(half, "best blocks"), short["fine-tuning"]),
    }
    names = {"curriculum": "curriculum", "anti-curriculum": "reverse", "uniform": "uniform", "ramp": "ramp"}
    for road, name in names.items():
        found[f"160 steps: {name} − constant"] = gain(of_road(half, road), short["constant"])
    found["160 steps: first module, lost more"] = accuracy.lead(theseus)
    states = [np.mean([row["cka"] for row in rows], axis=1) for rows in (theseus, short["fine-tuning"])]
    found["160 steps: CKA, Theseus − direct"] = states[0] - states[1]
    for road, name in (("curriculum", "Theseus"), ("fine-tuning", "direct"), ("distillation", "distillation")):
        found[f"650 steps: {name} keeps, % − 98.4"] = accuracy.kept(long[road], labels) - 98.4
    found["650 steps: Theseus − old"] = gain(long["curriculum"], accuracy.as_teacher(long["curriculum"]))
    before = np.array([row["before"]["accuracy"] for row in long["curriculum"]])
    found["650 steps: gained in stage 3"] = column(long["curriculum"], "accuracy") - 100 * before
    _, ways = looked_into(half, opened).values()
    found["650 steps: Theseus − direct, old head"] = gain(long["curriculum"], ways["direct, old head"])
    states = [np.mean([row["cka"] for row in rows], axis=1) for rows in _paired(*ways.values())]
    found["650 steps: CKA, Theseus − direct, old head"] = states[0] - states[1]
    found["650 steps: log KL, over direct"] = log_ratio(long["curriculum"], long["fine-tuning"])
    found["650 steps: log KL, over distillation"] = log_ratio(long["curriculum"], long["distillation"])
    alone, new = (of_road(others, road, start="random", steps=320) for road in ("fine-tuning", "curriculum"))
    found["random, 320 steps: Theseus − direct"] = gain(new, alone)
    found["two blocks: Theseus − equal work"] = gain(
        of_road(others, "curriculum", blocks=2), of_road(others, "fine-tuning", blocks=2, steps=910)
    )
    for road, name in (("curriculum", "Theseus"), ("distillation", "distillation")):
        same = of_road(others, road, blocks=6)
        found[f"six blocks: {name} − old"] = gain(same, accuracy.as_teacher(same))
    scarce = of_road(few, "curriculum", steps=650)
    found["1,000 sentences: Theseus − early"] = gain(scarce, of_road(few, "fine-tuning"))
    return found


def other_settings(few: Record, others: Record, labels: ArrayLike) -> dict[str, Samples]:
    """Points of accuracy of Theseus less those of a rival, in settings of MiniLM other than the first."""

    def gain(record: Record, rival: str, **setting: Any) -> Samples:
        return accuracy.difference(*(of_road(record, road, **setting) for road in ("curriculum", rival)), labels)

    return {
        "1,000 sentences: Theseus − direct": gain(few, "fine-tuning", steps=650),
        "1,000 sentences: Theseus − distillation": gain(few, "distillation", steps=650),
        "random blocks: Theseus − direct": gain(others, "fine-tuning", start="random", steps=640),
        "own last blocks: Theseus − direct": gain(others, "fine-tuning", start="own"),
        "two blocks of six: Theseus − direct": gain(others, "fine-tuning", blocks=2),
        "linear attention: Theseus − direct": gain(others, "fine-tuning", blocks=6, start="linear"),
    }


def table(samples: Mapping[str, ArrayLike]) -> str:
    """One line a comparison: its mean, its 95 % t-interval, its seeds, and those that would tell it from 0.

    Example:
        >>> print(table({"a − b": [0.9, 1.0, 1.1]}))
        a − b
          1.00 [0.75, 1.25], 3 seeds, 2 decide
    """
    lines = []
    for name, found in samples.items():
        needed = accuracy.seeds_needed(found, 0.0)
        told = f"{needed} decide" if needed else "over 1,000 decide"
        lines += [name, f"  {Estimate.from_samples(found)}, {len(found)} seeds, {told}"]
    return "\n".join(lines)


def decisions(samples: Mapping[str, ArrayLike], claims: Ledger, logarithms: Sequence[str] = ()) -> str:
    """One line a claim: its seeds, their spread, how far the mean is from the edge, and the seeds needed.

    Args:
        samples: by the number of the claim.
        claims: whose bands have the edges.
        logarithms: the claims whose samples are logarithms of what the band speaks of.
    """
    lines = ["claim seeds spread to the edge needed"]
    for number, found in samples.items():
        band = claims.declared[number].band
        edges = [edge for edge in (band.low, band.high) if np.isfinite(edge)]
        edges = [*np.log(edges)] if number in logarithms else edges
        edge = min(edges, key=lambda edge: abs(edge - np.mean(found)))
        needed = accuracy.seeds_needed(found, edge)
        distance = abs(np.mean(found) - edge)
        lines.append(
            f"{number:5} {len(found):5} {np.std(found, ddof=1):6.2f} {distance:11.2f} {needed or 'over 1000':>6}"
        )
    return "\n".join(lines)
