"""A step of training of a chain of equal layers, operation by operation: what is held, and for how long.

Layer ℓ makes value ℓ of value ℓ − 1, and its gradient needs both. Each layer takes one tick of the clock forward
and one backward. The last segment is kept; every other one keeps its input and runs again before it goes backward.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Life(NamedTuple):
    """A value in memory.

    Attributes:
        value: its number: 0 is the input of the chain, ℓ the output of layer ℓ.
        born: the tick in which it is made.
        ends: the end of the last tick that needs it.
        again: whether a second run made it.
    """

    value: int
    born: int
    ends: int
    again: bool


def lives(layers: int, cuts: Sequence[int]) -> list[Life]:
    """All values of a step, each from its birth to its last use; one that is made twice is two.

    Args:
        layers: of the chain.
        cuts: the first layer of each segment, counted from 0.

    Example:
        >>> [life for life in lives(2, [0, 1]) if life.again]
        [Life(value=1, born=3, ends=5, again=True)]
    """
    ends, found = [*cuts[1:], layers], []
    # Forward, value ℓ is made in tick ℓ − 1 and used by the next layer in tick ℓ.
    stored = {*cuts, *range(cuts[-1], layers + 1)}
    found += [Life(v, max(v - 1, 0), v + 1, False) for v in range(layers + 1) if v not in stored]
    clock = layers
    for start, end in reversed([*zip(cuts, ends, strict=True)]):
        last = end == layers
        for v in range(start + 1, end + 1):  # the second run; the last segment still holds the first
            born = v - 1 if last else clock + v - start - 1
            ready = clock + (0 if last else end - start)
            found.append(Life(v, born, ready + end - v + 1, not last))
        clock += (0 if last else end - start) + end - start
        found.append(Life(start, max(start - 1, 0), clock, False))
    # The output of layer ℓ is needed by its own backward tick, and as an input by that of layer ℓ + 1 before.
    return sorted(found, key=lambda life: (life.born, life.value))


def held(found: Sequence[Life]) -> NDArray[np.int64]:
    """How many values are held in each tick.

    Example:
        >>> held(lives(2, [0])).tolist()
        [2, 3, 3, 2]
    """
    ticks = np.arange(max(life.ends for life in found))
    return sum(((life.born <= ticks) & (ticks < life.ends)).astype(np.int64) for life in found)


def choices(layers: int) -> Iterator[tuple[int, ...]]:
    """All ways to cut a chain, in the order of binary numbers: the first cut is the highest digit.

    Example:
        >>> [*choices(3)]
        [(0,), (0, 2), (0, 1), (0, 1, 2)]
    """
    for chosen in product((False, True), repeat=layers - 1):
        yield (0, *(cut for cut, made in enumerate(chosen, 1) if made))


def arrays_held(function: Callable[..., Any], x: NDArray, *others: Any) -> int:
    """The most bytes that NumPy holds during a call beyond what it held before, in arrays as large as x, rounded.

    Args:
        function: called with x and the others.
        x: an array.
        *others: further arguments.

    Example:
        >>> arrays_held(lambda x: [x + i for i in range(5)], np.ones(2**14))
        5
    """
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        function(x, *others)
        return round((tracemalloc.get_traced_memory()[1] - before) / x.nbytes)
    finally:
        tracemalloc.stop()
