"""The records of chapter 9: ``python -m lib.experiments.theseus --scale cpu|gpu``.

On a CPU, "half" and "others" take more than an hour each on a core, "images" a quarter of one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lib.experiments.attention.costs import one_thread
from lib.experiments.theseus import costs, roads
from lib.experiments.theseus import images as images_module
from lib.workbench import records

CHAPTER = "09-theseus"

#: Steps of the predecessor, and of a small model from pretrained and from random blocks.
SIZES = {
    "cpu": {"teacher": 240, "pretrained": 160, "random": 640},
    "gpu": {"teacher": 480, "pretrained": 480, "random": 1920},
}

#: A road, the number of blocks, those to start from, the steps if they are not the usual ones, and its seeds on a
#: CPU; on a GPU all have ten.
Road = tuple[str, int, str, int | None, range]


def _cases(scale: str, taken: list[Road]) -> list[dict[str, Any]]:
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
            "inside": seed < 2 and (road, blocks, start, steps) in OPENED,
        }
        for seed in range({"cpu": 5, "gpu": 10}[scale])
        for road, blocks, start, steps, seeds in taken
        if scale == "gpu" or seed in seeds
    ]


#: Those that are looked into.
OPENED = [(road, 3, "pretrained", None) for road in ("fine-tuning", "curriculum")]


def _equal_effort(scale: str) -> int:
    """Steps in which three blocks alone cost what Theseus costs, the training of its predecessor included."""
    sizes = SIZES[scale]
    effort = roads.effort_of_theseus(3, sizes["pretrained"], rate=0.75)
    effort += roads.effort_of_training(6, sizes["teacher"])
    return round(effort / roads.effort_of_training(3, 1))


def _half(scale: str) -> records.Record:
    """Six blocks to three, from the first pretrained ones: a short training on all roads, a long one on three."""
    short = {"fine-tuning": 3, "distillation": 1, "constant": 1, "curriculum": 3}
    taken: list[Road] = [(name, 3, "pretrained", None, range(count)) for name, count in short.items()]
    long = {"fine-tuning": range(5), "curriculum": range(5), "distillation": range(1, 3)}
    taken += [(name, 3, "pretrained", _equal_effort(scale), seeds) for name, seeds in long.items()]
    taken += [
        ("best blocks", 3, "pretrained", None, range(3)),
        ("anti-curriculum", 3, "pretrained", None, range(1)),
    ]
    taken += [(name, 6, "pretrained", None, range(1)) for name in ("pruning", "8 bits")]
    return _sweep("half", roads.compress, _cases(scale, taken), scale)


def _others(scale: str) -> records.Record:
    """Random blocks to start from, two blocks, blocks with linear attention, and as many as before."""
    one, three = range(1), range(3)
    short = SIZES[scale]["random"] // 2
    taken: list[Road] = [(name, 3, "random", short, one) for name in ("fine-tuning", "curriculum")]
    taken += [("fine-tuning", 2, "pretrained", None, three), ("distillation", 2, "pretrained", None, one)]
    taken.append(("curriculum", 2, "pretrained", None, three))
    taken += [(name, 6, "linear", None, three) for name in ("fine-tuning", "curriculum")]
    taken += [(name, 3, "random", None, three) for name in ("fine-tuning", "curriculum")]
    taken.append(("curriculum", 6, "pretrained", None, one))
    return _sweep("others", roads.compress, _cases(scale, taken), scale)


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


def _sweep(name: str, function: Callable, cases: list[dict[str, Any]], scale: str) -> records.Record:
    if scale == "cpu":
        one_thread()
    return records.sweep(CHAPTER, name, function, cases, scale=scale)


if __name__ == "__main__":
    experiments = {"images": _images, "costs": _costs, "half": _half, "others": _others}
    sys.exit(records.main(CHAPTER, experiments))
