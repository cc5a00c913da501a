"""What is recorded, and at which sizes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import keras

from lib.experiments.memm.corpora import TASKS, compare, decode_three_ways
from lib.experiments.memm.costs import LARGE, MODES, decoding_times, large_cost, loss_times, step_times
from lib.experiments.memm.label_bias import RIB_ROB, STEPS, trained_path
from lib.experiments.memm.models import MODELS
from lib.workbench import records

CHAPTER = "05-memm"


SEEDS = (1, 2, 3, 4, 5)


#: Sizes of :func:`compare`, and its encoders with their rates: a pretrained one takes small steps, its transitions
#: the same as ever.
CORPORA = {
    "cpu": {"train": 8000, "test": 2000, "longest": 40, "epochs": 2},
    "gpu": {"train": 60_000, "test": 10_000, "longest": 128, "epochs": 3},
}


COMPARED: dict[str, dict[str, dict[str, float]]] = {
    "cpu": {"one character": {}, "three characters": {}, "seven characters": {}},
    "gpu": {
        "seven characters": {},
        "two blocks": {"rate": 1e-4, "multiplier": 100.0},
        "twelve blocks": {"rate": 5e-5, "multiplier": 200.0},
    },
}


#: Which of these are decoded in three ways.
DECODED = {"cpu": ("one character", "seven characters"), "gpu": ("seven characters", "twelve blocks")}


#: Lengths and numbers of tags of :func:`loss_times` and :func:`decoding_times`.
SHAPES = {
    "cpu": [(length, 8) for length in (32, 128, 512, 2048, 4096)] + [(256, tags) for tags in (4, 16, 64)],
    "gpu": [(length, 8) for length in (32, 128, 512, 2048, 8192)] + [(256, tags) for tags in (4, 16, 64, 256)],
}


#: Blocks, tokens and mode of :func:`step_times`. On a CPU twelve blocks take XLA minutes to compile.
DEPTHS = {
    "cpu": [
        *((2, length, mode) for length in (64, 256) for mode in MODES),
        *((12, length, "graph") for length in (64, 256)),
    ],
    "gpu": [(layers, length, mode) for layers in (2, 12) for length in (128, 512) for mode in MODES],
}


#: Width and sentences of a step of :func:`step_times`.
STEP_SIZES = {"cpu": {"width": 128, "batch": 8}, "gpu": {"width": 768, "batch": 32}}


#: Tags of :func:`large_cost`, and its other sizes.
TAG_SETS = {"cpu": (100, 300, 1000, 3000, 10_000, 20_000), "gpu": (1000, 3000, 10_000, 20_000, 50_000, 100_000)}


#: The largest set with one number for each pair of tags: its square times 4 bytes, several times over.
MOST_FULL = {"cpu": 10_000, "gpu": 50_000}


LARGE_STEPS = {"cpu": {"batch": 8, "length": 32, "repeats": 3}, "gpu": {"batch": 32, "length": 128, "repeats": 10}}


def record_models(scale: str) -> records.Record:
    """F1 of the five models on segmentation and entities, three encoders, five seeds."""
    sizes = CORPORA[scale]
    cases = [
        {"task": task, "encoder": encoder, "model": model, "seed": seed, **sizes, **rates}
        for seed in SEEDS
        for task in TASKS
        for encoder, rates in COMPARED[scale].items()
        for model in MODELS
    ]
    cases += [{"task": task, "encoder": "counts", "model": "hmm", "seed": 0, **sizes} for task in TASKS]
    return records.sweep(CHAPTER, "models", compare, cases, scale=scale)


def record_decoders(scale: str) -> records.Record:
    """F1 of both MEMMs by three decoders under an encoder that sees little, with the same settings and seeds."""
    return _record_decoders("decoders", scale, DECODED[scale][0], SEEDS)


def record_decoders_far(scale: str) -> records.Record:
    """The same under an encoder that sees much, three seeds."""
    return _record_decoders("decoders-far", scale, DECODED[scale][1], SEEDS[:3])


def _record_decoders(name: str, scale: str, encoder: str, seeds: Sequence[int]) -> records.Record:
    settings = {"encoder": encoder, **CORPORA[scale], **COMPARED[scale][encoder]}
    cases = [
        {"task": task, "model": model, "seed": seed, **settings}
        for seed in seeds
        for task in TASKS
        for model in ("memm", "bi-memm")
    ]
    return records.sweep(CHAPTER, name, decode_three_ways, cases, scale=scale)


def record_ribrob(scale: str) -> records.Record:
    """Words misread by the models on rib and rob as they train, four seeds; the MEMMs train longest."""
    cases = [
        {"model": model, "look_ahead": ahead, "seed": seed, "steps": [*(STEPS if model == "memm" else STEPS[:16])]}
        for seed in range(4)
        for model, ahead in RIB_ROB
    ]
    return records.sweep(CHAPTER, "ribrob", trained_path, cases, scale=scale)


def record_speed(scale: str) -> records.Record:
    """Seconds of the losses and the decoders against length and number of tags."""

    def measured(what: str, **case: Any) -> dict[str, Any]:
        return loss_times(**case) if what == "loss" else decoding_times(**case)

    cases = [
        {"what": what, "length": length, "tags": tags, "mode": mode}
        for what in ("loss", "decoding")
        for length, tags in SHAPES[scale]
        for mode in _modes()
    ]
    return records.sweep(CHAPTER, "speed", measured, cases, scale=scale)


def record_steps(scale: str) -> records.Record:
    """Seconds of a training step with a transformer of 2 and of 12 blocks as the encoder."""
    cases = [
        {"layers": layers, "length": length, "mode": mode, **STEP_SIZES[scale]}
        for layers, length, mode in DEPTHS[scale]
        if mode in _modes()
    ]
    return records.sweep(CHAPTER, "steps", step_times, cases, scale=scale)


def record_tags(scale: str) -> records.Record:
    """Parameters, peak memory and seconds of a step against the number of tags; the full ones end earlier."""
    cases = [
        {"model": model, "tags": tags, **LARGE_STEPS[scale]}
        for tags in TAG_SETS[scale]
        for model in LARGE
        if model == LARGE[0] or tags <= MOST_FULL[scale]
    ]
    return records.sweep(CHAPTER, "tags", large_cost, cases, scale=scale)


def _modes() -> tuple[str, ...]:
    """The modes that differ on this backend."""
    return MODES if keras.backend.backend() == "tensorflow" else ("xla",)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.memm --scale cpu``."""
    experiments = {
        "models": record_models,
        "decoders": record_decoders,
        "decoders-far": record_decoders_far,
        "ribrob": record_ribrob,
        "speed": record_speed,
        "steps": record_steps,
        "tags": record_tags,
    }
    return records.main(CHAPTER, experiments, argv)


if __name__ == "__main__":
    sys.exit(main())
