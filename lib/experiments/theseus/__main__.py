"""The records of chapter 9: ``python -m lib.experiments.theseus --scale cpu|gpu``.

On a core of a CPU, "half" and "others" take two hours each, "opened" and "few" one, "images" and "contest" a
quarter of one, and the others minutes.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from lib.experiments.attention.costs import one_thread
from lib.experiments.theseus import compression, costs
from lib.experiments.theseus import images as images_module
from lib.workbench import records

CHAPTER = "09-theseus"

#: Steps of the predecessor, and of a small model from pretrained and from random blocks.
SIZES = {
    "cpu": {"teacher": 240, "pretrained": 160, "random": 640},
    "gpu": {"teacher": 480, "pretrained": 480, "random": 1920},
}

SEEDS = {"cpu": 5, "gpu": 10}

#: Of what takes seconds a seed; and where half a point of accuracy is to be decided, of which the paired
#: differences of seeds vary by 0.8 points: 13 would do for an interval of a point, 20 leave room for Holm.
MORE_SEEDS = {"cpu": 10, "gpu": 20}
MANY_SEEDS = {"cpu": 20, "gpu": 40}

#: Where a seed takes a quarter of an hour.
FEWER_SEEDS = {"cpu": 4, "gpu": 10}

#: A road, the number of blocks, those to start from, and the steps if they are not the usual ones.
Road = tuple[str, int, str, int | None]

#: Those that are looked into.
OPENED: list[Road] = [(road, 3, "pretrained", None) for road in ("fine-tuning", "curriculum")]


def _cases(scale: str, taken: list[Road], seeds: dict[str, int] = SEEDS) -> list[dict[str, Any]]:
    """One case for each seed and road, those of a seed together, since they share a predecessor."""
    sizes = SIZES[scale]
    return [
        {
            "seed": seed,
            "road": road,
            "blocks": blocks,
            "start": start,
            "steps": steps or sizes.get(start, sizes["pretrained"]),
            "teacher_steps": sizes["teacher"],
            "inside": (road, blocks, start, steps) in OPENED,
        }
        for seed in range(seeds[scale])
        for road, blocks, start, steps in taken
    ]


def _equal_effort(scale: str, blocks: int) -> int:
    """Steps in which so many blocks alone cost what Theseus costs, the training of its predecessor included."""
    sizes = SIZES[scale]
    effort = compression.effort_of_theseus(blocks, sizes["pretrained"], rate=0.75)
    effort += compression.effort_of_training(6, sizes["teacher"])
    return round(effort / compression.effort_of_training(blocks, 1))


def _half(scale: str) -> records.Record:
    """Six blocks to three, from the first pretrained ones: a short training in every way, a long one in three."""
    names = ("fine-tuning", "distillation", "best blocks", *compression.SCHEDULES)
    taken: list[Road] = [(name, 3, "pretrained", None) for name in names]
    long = _equal_effort(scale, 3)
    taken += [(name, 3, "pretrained", long) for name in ("fine-tuning", "distillation", "curriculum")]
    taken += [(name, 6, "pretrained", None) for name in ("pruning", "8 bits")]
    return _compress_all("half", _cases(scale, taken), scale)


def _others(scale: str) -> records.Record:
    """Two blocks, other blocks to start from (own, linear, random), and as many as before."""
    names = ("fine-tuning", "distillation", "best blocks", "curriculum")
    taken: list[Road] = [(name, 2, "pretrained", None) for name in names]
    taken.append(("fine-tuning", 2, "pretrained", _equal_effort(scale, 2)))
    starts: list[tuple[int, str, int | None]] = [(3, "own", None), (6, "linear", None)]
    starts += [(3, "random", steps) for steps in (SIZES[scale]["random"] // 2, None)]
    taken += [(name, *start) for start in starts for name in ("fine-tuning", "curriculum")]
    taken += [(name, 6, "pretrained", None) for name in ("distillation", "curriculum")]
    return _compress_all("others", _cases(scale, taken), scale)


def _few(scale: str) -> records.Record:
    """Six blocks to three with 1,000 of the sentences."""
    long = _equal_effort(scale, 3)
    ways = [("fine-tuning", None), ("fine-tuning", long), ("distillation", long), ("curriculum", long)]
    cases = _cases(scale, [(name, 3, "pretrained", steps) for name, steps in ways])
    return _compress_all("few", [{**case, "inside": False, "sentences": 1000} for case in cases], scale)


def _opened(scale: str) -> records.Record:
    """Six blocks to three under one head, for few steps and for many, looked into before a third stage."""
    long = _equal_effort(scale, 3)
    ways = [("old head", None), ("old head", long), ("curriculum", long)]
    cases = _cases(scale, [(road, 3, "pretrained", steps) for road, steps in ways], FEWER_SEEDS)
    return _compress_all("opened", [{**case, "inside": True, "alone": False} for case in cases], scale)


def _images(scale: str) -> records.Record:
    """Pictures of clothes: how many of them, how many steps, which rate, schedule, gates and first blocks."""
    settings: list[dict[str, Any]] = []
    for images in (500, 1000, 2000, 4000, 8000):
        settings += [{"way": way, "images": images} for way in ("direct", "distillation", "theseus")]
        settings.append({"way": "direct", "images": images, "steps": 120})
    settings += [{"way": "direct", "images": 1000, "steps": steps} for steps in (60, 240, 1200)]
    for images in (1000, 8000):
        few = [{"rate": rate} for rate in (0.1, 0.3, 0.7, 0.9)]
        few += [{"schedule": schedule} for schedule in ("curriculum", "anti_curriculum")]
        few += [{"gates": gates} for gates in ("sample", "uniform", "mean")]
        few.append({"gates": "mean", "schedule": "curriculum", "rate": 0.0})
        settings += [{"way": "theseus", "images": images, **setting} for setting in few]
    ways = ("direct", "distillation", "theseus")
    for other in ({"start": "first"}, {"blocks": 2}, {"modules": 2}, {"own_head": True}):
        settings += [{"way": way, "images": 8000, **other} for way in ways]
    settings += [{"way": "direct", "images": images, "steps": 240} for images in (500, 2000, 4000, 8000)]
    settings += [{"way": "direct", "images": 8000, "start": "first", "steps": steps} for steps in (60, 120)]
    cases = [{"seed": seed, **setting} for setting in settings for seed in range({"cpu": 5, "gpu": 20}[scale])]
    return _sweep("images", images_module.contest, cases, scale)


def _contest(scale: str) -> records.Record:
    """Pictures of clothes, 1,000 of them: four ways with many seeds, and all mixtures of old and new modules."""
    ways: list[dict[str, Any]] = [{"way": "direct"}, {"way": "direct", "steps": 120}, {"way": "theseus"}]
    ways.append({"way": "distillation"})
    cases = [{"seed": seed, "images": 1000, **way} for seed in range(MANY_SEEDS[scale]) for way in ways]
    return _sweep("contest", _with_mixtures, cases, scale)


def _blocks(scale: str) -> records.Record:
    """Pictures: the predecessor's best blocks against its first ones, with its head, trained on."""
    setting = {"way": "direct", "images": 1000, "known": 6500, "steps": 120}
    cases = [
        {"seed": seed, "start": start, **setting}
        for seed in range(MORE_SEEDS[scale])
        for start in ("first", "best")
    ]
    return _sweep("blocks", images_module.contest, cases, scale)


def _with_mixtures(seed: int, way: str, **setting: Any) -> dict[str, Any]:
    found = images_module.mixtures(seed, way, **setting)
    accuracy = dict(zip(found["replaced"], found["accuracy"], strict=True))
    return {**images_module.contest(seed, way, **setting), "mixtures": accuracy}


def _gradients(scale: str) -> records.Record:
    """How large the gradient of a new module is at its first step, by the replacement rate."""
    rates = [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    cases = [{"seed": seed, "images": 1000, "rates": rates} for seed in range(MORE_SEEDS[scale])]
    return _sweep("gradients", images_module.gradient_norms, cases, scale)


def _costs(scale: str) -> records.Record:
    """Time of a step against that of the large network."""
    shapes = {
        "cpu": {"hidden": 384, "heads": 12, "time": 32, "batch": 32, "rounds": 12},
        "gpu": {"hidden": 768, "heads": 12, "time": 128, "batch": 64, "rounds": 40},
    }[scale]
    steps = [
        ("small, alone", backward, *sizes) for sizes in ((6, 3), (12, 6), (6, 2)) for backward in (False, True)
    ]
    steps += [(contestant, True, 6, 3) for contestant in costs.CONTESTANTS[1:]]
    names = ("contestant", "backward", "layers", "small")
    return _sweep(
        "costs", costs.costs, [{**dict(zip(names, step, strict=True)), **shapes} for step in steps], scale
    )


def _compress_all(name: str, cases: list[dict[str, Any]], scale: str) -> records.Record:
    compress = compression.compress
    if scale == "cpu":  # a GPU's memory belongs to the first process that asks for it
        of_a_seed = [case for case in cases if case["seed"] == cases[0]["seed"]]
        compress = _in_children(compress, calls=len(of_a_seed))
    return _sweep(name, compress, cases, scale)


def _in_children(function: Callable, calls: int) -> Callable:
    """The same function, run in a child process, and in a new one after so many calls.

    TensorFlow keeps what it traces for as long as it lives, here half a gigabyte a call.
    """
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), one_thread, max_tasks_per_child=calls)

    @functools.wraps(function)
    def run(**case: Any) -> Any:
        return pool.submit(function, **case).result()

    return run


def _sweep(name: str, function: Callable, cases: list[dict[str, Any]], scale: str) -> records.Record:
    if scale == "cpu":
        one_thread()
    return records.sweep(CHAPTER, name, function, cases, scale=scale)


if __name__ == "__main__":
    experiments = {"images": _images, "contest": _contest, "gradients": _gradients, "costs": _costs}
    experiments |= {"half": _half, "others": _others, "few": _few, "opened": _opened, "blocks": _blocks}
    sys.exit(records.main(CHAPTER, experiments))
