"""What is recorded, and at which sizes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from lib.experiments.crf.finetuning import Row, finetune, scratch
from lib.experiments.crf.gradients import gradient_at_margin
from lib.experiments.crf.road import as_drawn, travel
from lib.workbench import records

CHAPTER = "04-crf"

SEEDS = (1, 2, 3, 4, 5)
MULTIPLIERS = (0, 1, 10, 100, 1000)
#: Heads of the fine-tuning: the softmax, CRFs from zero, and one from random transitions.
HEADS = ((None, None), *((multiplier, "zeros") for multiplier in MULTIPLIERS), (1, "glorot"))

#: The whole corpus, but for less than one sentence in a hundred, which are longer.
_ALL = {"sentences": 38_000, "test": 4400, "longest": 128, "batch": 32}

#: What each scale fine-tunes: the encoders with their sizes, the heads, the seeds.
FINETUNE: dict[str, dict[str, Any]] = {
    "live": {
        "encoders": {"convolutional": {"sentences": 4000, "test": 500, "steps": 100}},
        "heads": ((None, None), (1, "zeros"), (100, "zeros"), (1000, "zeros")),
        "seeds": (1,),
    },
    "cpu": {
        "encoders": {
            "convolutional": {},
            "recurrent": {},
            "transformer": {"epochs": 3},
        },
        "heads": HEADS,
        "seeds": SEEDS,
    },
    "gpu": {
        "encoders": {
            name: _ALL | {"steps": 1200} | own
            for name, own in {
                "convolutional": {"epochs": 5},
                "recurrent": {"epochs": 5},
                "transformer": {"epochs": 10},
            }.items()
        },
        "heads": HEADS,
        "seeds": SEEDS,
    },
}

#: The same of a pretrained encoder, on a CPU of its first two layers; it costs ten times as much a step.
PRETRAINED: dict[str, dict[str, Any]] = {
    "cpu": {
        "encoders": {"e5-2": {"sentences": 8000, "epochs": 2, "batch": 32, "pretraining_rate": 2e-4, "steps": 100}},
        "heads": tuple(head for head in HEADS if head[0] not in (0, 10)),
        "seeds": SEEDS,
    },
    "gpu": {
        "encoders": {"e5-12": _ALL | {"epochs": 3, "pretraining_rate": 5e-5, "steps": 1200}},
        "heads": HEADS,
        "seeds": SEEDS,
    },
}

#: What each scale trains from the start: the encoders with their sizes and heads (multiplier, rate); the seeds.
SCRATCH: dict[str, dict[str, Any]] = {
    "live": {
        "encoders": {
            "weak": ({"sentences": 4000, "test": 500, "epochs": 2}, ((None, 1e-3), (1, 1e-3), (100, 1e-3)))
        },
        "seeds": (1,),
    },
    "cpu": {
        "encoders": {
            "weak": ({}, ((None, 1e-3), *((multiplier, 1e-3) for multiplier in MULTIPLIERS[1:]), (1, 1e-2))),
            "convolutional": ({}, ((None, 1e-3), (1, 1e-3), (10, 1e-3), (100, 1e-3))),
        },
        "seeds": SEEDS,
    },
    # The article's own two settings: one pretrained layer at the rate 1e-3, twelve at 1e-5.
    "gpu": {
        "encoders": {
            "e5-1": (_ALL | {"epochs": 10}, ((None, 1e-3), (1, 1e-3), (10, 1e-3), (100, 1e-3), (1, 1e-2))),
            "e5-12": (
                _ALL | {"epochs": 10, "initial": "glorot"},
                ((None, 1e-5), *((multiplier, 1e-5) for multiplier in MULTIPLIERS)),
            ),
        },
        "seeds": SEEDS,
    },
}

#: The weak encoder at ten times the rate for everything: a softmax beside a CRF.
FASTER: dict[str, dict[str, Any]] = {
    scale: {"encoders": {"weak": (sizes, ((None, 1e-2), (1, 1e-2)))}, "seeds": SEEDS}
    for scale, sizes in {"cpu": {}, "gpu": _ALL | {"epochs": 10}}.items()
}

#: How transitions travel alone: rate, initial values, seed.
JOURNEYS = [
    *((rate, "zeros", 1) for rate in (1e-5, 1e-4, 1e-3, 1e-2)),
    *((rate, "glorot", 1) for rate in (1e-5, 1e-4, 1e-3, 1e-2)),
    *((rate, "glorot", seed) for seed in SEEDS[1:] for rate in (1e-5, 1e-2)),
]
ROAD = {"cpu": {"test": 1000, "batch": 32}, "gpu": _ALL | {"epochs": 5}}
#: Seeds of random transitions above the network of the road, left as they were drawn.
DRAWS = tuple(range(101, 141))

MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)


def finetune_cases(plan: Row) -> list[Row]:
    """The arguments of :func:`finetune` in a plan such as ``FINETUNE["live"]``; softmax first, for every seed.

    Example:
        >>> [case["multiplier"] for case in finetune_cases(FINETUNE["live"])]
        [None, 1, 100, 1000]
    """
    return [
        {"encoder": encoder, "multiplier": multiplier, "initial": initial, "seed": seed, **sizes}
        for encoder, sizes in plan["encoders"].items()
        for seed in plan["seeds"]
        for multiplier, initial in plan["heads"]
    ]


def scratch_cases(plan: Row) -> list[Row]:
    """The arguments of :func:`scratch` in a plan such as ``SCRATCH["live"]``.

    Example:
        >>> [case["multiplier"] for case in scratch_cases(SCRATCH["live"])]
        [None, 1, 100]
    """
    return [
        {"encoder": encoder, "multiplier": multiplier, "rate": rate, "seed": seed, **sizes}
        for seed in plan["seeds"]
        for encoder, (sizes, heads) in plan["encoders"].items()
        for multiplier, rate in heads
    ]


def record_margin(scale: str) -> records.Record:
    """The gradient that reaches zero transitions, against the margin of the emissions."""
    return records.sweep(
        CHAPTER, "margin", gradient_at_margin, [{"margin": margin} for margin in MARGINS], scale=scale
    )


def record_finetune(scale: str) -> records.Record:
    """Softmax first, then a CRF at a small rate: F1, illegal moves and transitions against the multiplier."""
    return records.sweep(CHAPTER, "finetune", finetune, finetune_cases(FINETUNE[scale]), scale=scale)


def record_pretrained(scale: str) -> records.Record:
    """The same with layers of a pretrained transformer as the encoder."""
    return records.sweep(CHAPTER, "pretrained", finetune, finetune_cases(PRETRAINED[scale]), scale=scale)


def record_scratch(scale: str) -> records.Record:
    """Encoder and CRF from the start: the same after every epoch."""
    return records.sweep(CHAPTER, "scratch", scratch, scratch_cases(SCRATCH[scale]), scale=scale)


def record_faster(scale: str) -> records.Record:
    """The weak encoder from the start at ten times the rate, under a softmax and under a CRF."""
    return records.sweep(CHAPTER, "faster", scratch, scratch_cases(FASTER[scale]), scale=scale)


def record_road(scale: str) -> records.Record:
    """Transitions that travel alone, against steps and rate."""
    cases = [{"rate": rate, "initial": initial, "seed": seed, **ROAD[scale]} for rate, initial, seed in JOURNEYS]
    return records.sweep(CHAPTER, "road", travel, cases, scale=scale)


def record_draws(scale: str) -> records.Record:
    """Random transitions above the network of the road, forty draws."""
    cases = [{"seed": seed, **ROAD[scale]} for seed in DRAWS]
    return records.sweep(CHAPTER, "draws", as_drawn, cases, scale=scale)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.crf --scale cpu``."""
    experiments = {
        "margin": record_margin,
        "finetune": record_finetune,
        "scratch": record_scratch,
        "faster": record_faster,
        "pretrained": record_pretrained,
        "road": record_road,
        "draws": record_draws,
    }
    return records.main(CHAPTER, experiments, argv)


if __name__ == "__main__":
    sys.exit(main())
