"""How long a call takes: warm-up first, then the median, and contestants that take turns.

Contestants alternate in one run and are compared round by round, so that a machine that slows down slows all of
them. Asynchronous backends are waited for.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lib.workbench.measure.estimates import Estimate, median_interval

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one function.

    Attributes:
        samples: seconds of each call, in the order of the calls.

    Example:
        >>> print(Timing((0.003, 0.001, 0.002)))
        2 ms
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.samples)

    def __str__(self) -> str:
        return f"{1000 * self.median:.3g} ms"


@dataclass(frozen=True)
class Contest:
    """Times of contestants that took turns.

    Attributes:
        timings: name to :class:`Timing`; the i-th samples of all names belong to the same round.

    Example:
        >>> race = Contest({"a": Timing((2.0,) * 8), "b": Timing((1.0,) * 8)})
        >>> print(race.ratio("a", "b"))
        2
    """

    timings: Mapping[str, Timing]

    def __getitem__(self, name: str) -> Timing:
        return self.timings[name]

    def ratio(self, a: str, b: str, confidence: float = 0.95) -> Estimate:
        """Time of ``a`` over time of ``b``: median over the rounds, with :func:`median_interval`.

        Both times of a round were taken one after the other, so what slows the machine cancels.
        """
        ratios = [x / y for x, y in zip(self[a].samples, self[b].samples, strict=True)]
        ends = median_interval(ratios, confidence)
        return Estimate(statistics.median(ratios), *ends, lambda level: median_interval(ratios, level))

    def __str__(self) -> str:
        return ", ".join(f"{name} {timing}" for name, timing in self.timings.items())


def ready(value: T) -> T:
    """Waits until a result is computed, on whichever backend, and returns it.

    Args:
        value: a tensor, a Keras variable, or a (nested) tuple, list or dict of them; anything else is ready.

    Example:
        >>> ready({"loss": 1.5})
        {'loss': 1.5}
    """
    if isinstance(value, Mapping):
        for part in value.values():
            ready(part)
    elif isinstance(value, list | tuple):
        for part in value:
            ready(part)
    else:
        _wait_for(value)
    return value


def _wait_for(tensor: Any) -> None:
    library = type(tensor).__module__.partition(".")[0]
    if library == "keras" and hasattr(tensor, "value"):
        _wait_for(tensor.value)
    elif hasattr(tensor, "block_until_ready"):
        tensor.block_until_ready()
    elif library == "torch" and getattr(tensor, "is_cuda", False):
        sys.modules["torch"].cuda.synchronize(tensor.device)
    elif library == "tensorflow":
        sys.modules["tensorflow"].test.experimental.sync_devices()


def time_of(function: Callable[[], Any], *, repeats: int = 10, warmup: int = 2) -> Timing:
    """Times a function.

    Args:
        function: called without arguments. It returns what it computes, so that the clock can wait for it.
        repeats: timed calls, at least 1.
        warmup: calls before, which are not timed: traces, compilation, caches.

    Raises:
        ValueError: repeats below 1, warmup below 0.

    Example:
        >>> len(time_of(lambda: sum(range(100)), repeats=5).samples)
        5
    """
    return _race({"": function}, repeats, warmup, least=1)[""]


def contest(contestants: Mapping[str, Callable[[], Any]], *, repeats: int = 15, warmup: int = 2) -> Contest:
    """Times several functions in turns: each round calls every one once, starting with another one each time.

    Args:
        contestants: name to function, as for :func:`time_of`.
        repeats: timed rounds; at least 6, below which a ratio has no 95 % interval.
        warmup: rounds before, which are not timed.

    Raises:
        ValueError: repeats below 6, warmup below 0, no contestant.

    Example:
        >>> race = contest({"long": lambda: sum(range(20_000)), "short": lambda: sum(range(200))}, repeats=7)
        >>> race.ratio("long", "short").low > 1
        True
    """
    if not contestants:
        raise ValueError("contestants: got none; expected at least one name with its function")
    return Contest(_race(contestants, repeats, warmup, least=6))


def _race(
    contestants: Mapping[str, Callable[[], Any]], repeats: int, warmup: int, *, least: int
) -> dict[str, Timing]:
    if repeats < least or warmup < 0:
        raise ValueError(f"repeats, warmup: got {repeats}, {warmup}; expected repeats ≥ {least}, warmup ≥ 0")
    names = list(contestants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            ready(contestants[name]())
            seconds = time.perf_counter() - start
            if turn >= 0:
                samples[name].append(seconds)
    return {name: Timing(tuple(seconds)) for name, seconds in samples.items()}
