"""The records of chapter 6: ``python -m lib.experiments.extraction --scale cpu|gpu``."""

from __future__ import annotations

import sys
from typing import Any

from lib.experiments.extraction.events import events
from lib.experiments.extraction.reading import reading
from lib.experiments.extraction.relations import TREATMENTS, imbalance, relations
from lib.experiments.extraction.trained import FILE, trained
from lib.workbench import records

CHAPTER = "06-extraction"


def _relations(scale: str) -> records.Record:
    """Triples of DuIE, with counts for every test sentence."""
    size = {"cpu": {"seeds": 3, "layers": 4, "epochs": 3}, "gpu": {"seeds": 5, "layers": 12, "epochs": 6}}[scale]
    cases = [{"seed": seed, "layers": size["layers"], "epochs": size["epochs"]} for seed in range(size["seeds"])]
    return records.sweep(CHAPTER, "relations", relations, cases, scale=scale)


def _imbalance(scale: str) -> records.Record:
    """Three treatments of rare positives in the first steps."""
    seeds = {"cpu": 5, "gpu": 10}[scale]
    cases = [{"treatment": name, "seed": seed} for seed in range(seeds) for name in TREATMENTS]
    return records.sweep(CHAPTER, "imbalance", imbalance, cases, scale=scale)


def _treatments(scale: str) -> records.Record:
    """The same three treatments at the end of a longer training."""
    size = {"cpu": {"seeds": 3, "sentences": 4800}, "gpu": {"seeds": 5, "sentences": 10_733}}[scale]
    cases = [
        {"treatment": name, "seed": seed, "sentences": size["sentences"], "batch": 16, "rate": 6e-4}
        for seed in range(size["seeds"])
        for name in TREATMENTS
    ]
    return records.sweep(CHAPTER, "treatments", imbalance, cases, scale=scale)


def _reading(scale: str) -> records.Record:
    """Questions answered by a pointer, by BIO labels and by both."""
    size = {
        "cpu": {"seeds": 3, "layers": 4, "sentences": 6400, "epochs": 2},
        "gpu": {"seeds": 5, "layers": 12, "sentences": 10_733, "epochs": 6},
    }[scale]
    cases = [
        {"heads": heads, "seed": seed, **{key: size[key] for key in ("layers", "sentences", "epochs")}}
        for seed in range(size["seeds"])
        for heads in ("pointer", "bio", "both")
    ]
    return records.sweep(CHAPTER, "reading", reading, cases, scale=scale)


def _events(scale: str) -> records.Record:
    """Arguments of events, cross-validated, with two learning rates of the transitions."""
    seeds = {"cpu": 1, "gpu": 5}[scale]
    cases = [
        {"multiplier": multiplier, "fold": fold, "seed": seed}
        for seed in range(seeds)
        for fold in range(5)
        for multiplier in (1.0, 100.0)
    ]
    return records.sweep(CHAPTER, "events", events, cases, scale=scale)


def _cascade(scale: str) -> records.Record:
    """One cascade with its weights, at all thresholds; the chapter reads with that of the CPU."""
    file = FILE if scale == "cpu" else FILE.with_suffix(".gpu.npz")

    def keeping(**case: Any) -> dict[str, Any]:
        return trained(**case, file=file)

    return records.sweep(CHAPTER, "cascade", keeping, [{"seed": 6}], scale=scale)


if __name__ == "__main__":
    sys.exit(
        records.main(
            CHAPTER,
            {
                "relations": _relations,
                "imbalance": _imbalance,
                "treatments": _treatments,
                "reading": _reading,
                "events": _events,
                "cascade": _cascade,
            },
        )
    )
