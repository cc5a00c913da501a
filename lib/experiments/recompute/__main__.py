"""The records of chapter 8: ``python -m lib.experiments.recompute --scale cpu|gpu``.

On a CPU, TensorFlow counts a block of memory up to twice if it recycles a larger one; torch counts to the byte.
So where bytes are compared with a law, torch records: timeline, thin, frontier, depth, kept and batches, by
``KERAS_BACKEND=torch python -m … --only thin``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import keras

from lib.experiments.attention.costs import one_thread
from lib.experiments.recompute import batches, segments, traps
from lib.workbench import records

CHAPTER = "08-recompute"

#: The encoder that is cut, and the thin chain.
ENCODER = {
    "cpu": {"layers": 12, "hidden": 256, "heads": 4, "time": 256, "batch": 8},
    "gpu": {"layers": 12, "hidden": 768, "heads": 12, "time": 512, "batch": 32},
}
THIN = {
    "cpu": {"layers": 48, "units": 256, "batch": 4096},
    "gpu": {"layers": 48, "units": 2048, "batch": 65536},
}

#: The encoder of which all 2048 segmentations are tried.
SMALL = {
    "cpu": {"layers": 12, "hidden": 64, "heads": 4, "time": 128, "batch": 4},
    "gpu": {"layers": 12, "hidden": 512, "heads": 8, "time": 512, "batch": 16},
}

#: 48 equal layers in segments that get shorter by a layer.
SHRINKING = "0-9-18-26-33-39-44"


def _sweep(name: str, function: Callable, cases: Sequence[dict], scale: str) -> records.Record:
    """A sweep on one thread, named after the backend if it is not TensorFlow."""
    if scale == "cpu":
        one_thread()
    backend, called, command = keras.backend.backend(), name, None
    if backend != "tensorflow" and scale == "cpu":
        called = f"{name}-{backend}"
        command = f"KERAS_BACKEND={backend} python -m lib.experiments.recompute --scale {scale} --only {name}"
    return records.sweep(CHAPTER, called, function, cases, scale=scale, command=command)


def _cuts(scale: str) -> records.Record:
    """Memory and multiplications of the ways to cut an encoder, with dropout, without, and again with dropout."""
    sizes = {**ENCODER[scale], "batch": {"cpu": 2, "gpu": 32}[scale]}
    cases = [
        {"kind": "encoder", "way": way, "dropout": dropout, "seed": seed, **sizes}
        for dropout, seed in ((0.1, 0), (0.0, 0), (0.1, 1))
        for way in ("none", "article", "layers", "norms")
    ]
    return _sweep("cuts", segments.memory, cases, scale)


def _race(scale: str) -> records.Record:
    """The time of a step with the two best cuts, in many rounds: 24 give a narrow interval."""
    cases = [
        {"kind": "encoder", "way": way, "dropout": dropout, "rounds": 24, **ENCODER[scale]}
        for dropout in (0.0, 0.1)
        for way in ("norms", "layers")
    ]
    return _sweep("race", segments.race, cases, scale)


def _remat(scale: str) -> records.Record:
    """What keras.remat makes of a dropout and of a batch normalization, over 20 seeds."""
    return _sweep("remat", traps.remat, [{"seed": seed} for seed in range(20)], scale)


def _timeline(scale: str) -> records.Record:
    """What a step holds over its course, on torch."""
    sizes = {**ENCODER[scale], "batch": 2, "dropout": 0.1}
    cases = [{"kind": "encoder", "way": way, **sizes} for way in ("none", "layers")]
    return _sweep("timeline", segments.timeline, cases, scale)


def _thin(scale: str) -> records.Record:
    """Memory of many ways to cut the thin chain."""
    ways = ("none", "whole", "operations", *map(str, (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 48)), SHRINKING)
    return _sweep("thin", segments.memory, [{"kind": "thin", "way": way, **THIN[scale]} for way in ways], scale)


def _frontier(scale: str) -> records.Record:
    """Memory of all segmentations of a small encoder."""
    cases = [{"cuts": cuts, **SMALL[scale]} for cuts in segments.all_cuts(SMALL[scale]["layers"])]
    return _sweep("frontier", segments.frontier, cases, scale)


def _depth(scale: str) -> records.Record:
    """Memory against the number of layers."""
    sizes = {key: value for key, value in ENCODER[scale].items() if key != "layers"} | {"batch": 2}
    cases = [
        {"kind": "encoder", "way": way, "layers": layers, **sizes}
        for layers in (3, 6, 12, 24, 48)
        for way in ("none", "article", "layers", "norms")
    ]
    return _sweep("depth", segments.memory, cases, scale)


def _kept(scale: str) -> records.Record:
    """Bytes that a layer keeps, against the number of tokens and heads."""
    hidden, batch = {"cpu": (256, 2), "gpu": (768, 8)}[scale]
    cases = [
        {"time": time, "heads": heads, "hidden": hidden, "batch": batch, "dropout": dropout}
        for dropout in (0.1, 0.0)
        for heads in (4, 8)
        for time in (64, 128, 256, 512)
    ]
    return _sweep("kept", segments.kept_by_a_layer, cases, scale)


def _sizes(scale: str) -> dict:
    return {key: ENCODER[scale][key] for key in ("layers", "hidden", "heads")}


def _batches(scale: str) -> records.Record:
    """The largest batch."""
    budget = {"cpu": 2**29, "gpu": None}[scale]
    cases = [
        {"way": way, "budget": budget, "time": time, **_sizes(scale)}
        for time in {"cpu": (128,), "gpu": (128, 512)}[scale]
        for way in ("none", "article", "layers", "norms")
    ]
    return _sweep("batches", batches.batches, cases, scale)


def _pace(scale: str) -> records.Record:
    """The time of a sample in a batch as large as without recomputation, and in one three times as large."""
    plain = 10
    if scale == "gpu":
        found = records.load(CHAPTER, "batches", scale) or _batches(scale)
        (plain,) = (row["batch"] for row in found.where(time=128, way="none"))
    cases = [
        {"way": way, "batch": batch, "plain_batch": plain, "time": 128, **_sizes(scale)}
        for way in ("layers", "norms")
        for batch in (plain, 3 * plain)
    ]
    return _sweep("pace", batches.pace, cases, scale)


if __name__ == "__main__":
    sys.exit(
        records.main(
            CHAPTER,
            {
                "cuts": _cuts,
                "race": _race,
                "remat": _remat,
                "timeline": _timeline,
                "thin": _thin,
                "frontier": _frontier,
                "depth": _depth,
                "kept": _kept,
                "batches": _batches,
                "pace": _pace,
            },
        )
    )
