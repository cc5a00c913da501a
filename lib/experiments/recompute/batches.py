"""The largest batch that fits into a budget of memory, and the time of a sample in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.experiments.recompute.networks import encoder, gradient_step
from lib.experiments.recompute.segments import cut
from lib.workbench import measure

Row = dict[str, Any]


def largest(fits: Callable[[int], bool], start: int = 1, precision: float = 1 / 16) -> int:
    """The largest number that fits, to a relative precision: doubled until one does not, then halved between.

    Args:
        fits: whether a number fits; if one does, all smaller ones do.
        start: the first to try.
        precision: the search ends when the next larger number that was tried is nearer than this.

    Returns:
        A number that fits; 0 if 1 does not.

    Example:
        >>> largest(lambda n: n <= 11), largest(lambda n: n <= 1000, precision=0.0)
        (11, 1000)
    """
    good, bad = 0, start
    while fits(bad):
        good, bad = bad, 2 * bad
    while bad - good > max(1, precision * good):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def batches(way: str, budget: int | None, rounds: int = 6, precision: float = 1 / 16, **sizes: Any) -> Row:
    """The largest batch of an encoder's step that fits, and its time. One case of a sweep.

    Args:
        way: to cut, as in ``segments.cut``.
        budget: bytes beyond weights and inputs; None for what the device has, up to its error.
        rounds: timed steps.
        precision: as in :func:`largest`.
        **sizes: of the encoder, without its batch.

    Returns:
        "batch", the largest; "seconds_per_sample" in it, the median with its 95 % interval "low" to "high". If not
        even one sample fits, "batch" is 0 and there is nothing else.

    Example:
        >>> sizes = {"layers": 1, "hidden": 64, "heads": 2, "time": 256}
        >>> batches("none", 2**24, precision=1.0, **sizes)["batch"] > 0
        True
    """

    def step(batch: int) -> Callable[[], Any]:
        layers, x = encoder(**sizes, batch=batch)
        return gradient_step(cut(way, layers), x)

    def fits(batch: int) -> bool:
        if budget is None:
            return not isinstance(measure.attempt(step(batch)), measure.OutOfMemory)
        return measure.peak_memory(step(batch)).bytes <= budget

    batch = largest(fits, precision=precision)
    if not batch:
        return {"batch": 0}
    return {"batch": batch, **per_sample(way, batch, rounds, **sizes)}


def per_sample(way: str, batch: int, rounds: int = 6, **sizes: Any) -> Row:
    """The time of a sample in a batch of a given size. One case of a sweep.

    Args:
        way: to cut, as in ``segments.cut``.
        batch: samples of a step.
        rounds: timed steps, at least 6.
        **sizes: of the encoder, without its batch.

    Returns:
        "seconds_per_sample", the median with its 95 % interval "low" to "high".

    Example:
        >>> row = per_sample("layers", 2, layers=2, hidden=8, heads=2, time=4)
        >>> row["low"] <= row["seconds_per_sample"] <= row["high"]
        True
    """
    layers, x = encoder(**sizes, batch=batch)
    timing = measure.time_of(gradient_step(cut(way, layers), x), repeats=rounds, warmup=1)
    low, high = measure.median_interval(timing.samples)
    return {"seconds_per_sample": timing.median / batch, "low": low / batch, "high": high / batch}
