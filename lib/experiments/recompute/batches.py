"""The largest batch that fits into a budget of memory, and the time of a sample in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib.experiments.recompute.networks import encoder, gradient_step
from lib.experiments.recompute.segments import cut
from lib.workbench import measure

Row = dict[str, Any]


def largest(fits: Callable[[int], bool], start: int = 1, precision: float = 1 / 16) -> int:
    """The largest number that fits, to a relative precision: in steps from a first guess, then halved between.

    Args:
        fits: whether a number fits; if one does, all smaller ones do.
        start: the first to try. From 1 the steps double; from a better guess they are small.
        precision: the search ends when the next larger number that was tried is nearer than this.

    Returns:
        A number that fits; 0 if 1 does not.

    Example:
        >>> largest(lambda n: n <= 11), largest(lambda n: n <= 1000, start=900, precision=0.0)
        (11, 1000)
    """
    factor = 2.0 if start == 1 else 1 + 2 * max(precision, 0.01)
    good, bad = 0, start
    if fits(start):
        good = start
        while fits(bad := max(bad + 1, int(bad * factor))):
            good = bad
    else:
        while (good := int(bad / factor)) and not fits(good):
            bad = good
    while bad - good > max(1, precision * good):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def batches(way: str, budget: int | None, precision: float = 1 / 16, **sizes: Any) -> Row:
    """The largest batch of an encoder's step that fits. One case of a sweep.

    Args:
        way: to cut, as in ``segments.cut``.
        budget: bytes beyond weights and inputs; None for what the device has, up to its error.
        precision: as in :func:`largest`.
        **sizes: of the encoder, without its batch.

    Returns:
        "batch", the largest; 0 if not even one sample fits.

    Example:
        >>> sizes = {"layers": 1, "hidden": 64, "heads": 2, "time": 256}
        >>> batches("none", 2**24, precision=1.0, **sizes)["batch"] > 0
        True
    """
    if budget is None:
        return {"batch": largest(lambda n: _runs(way, n, sizes), precision=precision)}
    two, four = (_held(way, n, sizes) for n in (2, 4))
    guess = 2 + 2 * (budget - two) // max(four - two, 1)
    return {"batch": largest(lambda n: _held(way, n, sizes) <= budget, max(1, guess), precision)}


def pace(way: str, batch: int, plain_batch: int, rounds: int = 6, **sizes: Any) -> Row:
    """The time of a sample in a batch, over that of an encoder that is not cut in its own. One case of a sweep.

    Args:
        way: to cut, as in ``segments.cut``.
        batch: samples of a step of the encoder that is cut.
        plain_batch: samples of a step of the other one.
        rounds: of the contest between them, at least 6.
        **sizes: of the encoder, without its batch.

    Returns:
        "ratio", the median over the rounds with its 95 % interval "low" to "high"; below 1 the larger batch pays.

    Example:
        >>> row = pace("layers", 4, 2, layers=2, hidden=8, heads=2, time=4)
        >>> row["low"] <= row["ratio"] <= row["high"]
        True
    """
    steps = {"cut": _step(way, batch, sizes), "plain": _step("none", plain_batch, sizes)}
    ratio = measure.contest(steps, repeats=rounds, warmup=1).ratio("cut", "plain")
    scale = plain_batch / batch
    return {"ratio": scale * ratio.value, "low": scale * ratio.low, "high": scale * ratio.high}


def _step(way: str, batch: int, sizes: Row) -> Callable[[], Any]:
    layers, x = encoder(**sizes, batch=batch)
    return gradient_step(cut(way, layers), x)


def _held(way: str, batch: int, sizes: Row) -> int:
    return measure.peak_memory(_step(way, batch, sizes)).bytes


def _runs(way: str, batch: int, sizes: Row) -> bool:
    return not isinstance(measure.attempt(lambda: _step(way, batch, sizes)()), measure.OutOfMemory)
