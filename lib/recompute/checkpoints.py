"""Where to put the checkpoints of a chain: what each segmentation takes of memory and time, and which is best.

A chain of n links (layers) is cut into consecutive segments. A segment is *kept*, if all that its backward pass
needs is stored in the forward pass, or *recomputed*, if only its input is: then its forward pass runs again in the
backward pass. While the backward pass of segment j runs, there is held what the segments before it have stored,
its own input, what its links need, and what the hungriest of them works with. So

    peak    =  max_j ( Σ_{i<j} stored_i  +  boundary_j  +  Σ_{l∈j} inner_l  +  max_{l∈j} working_l ),
    stored  =  boundary + Σ inner  of a kept segment,  boundary  of a recomputed one,
    seconds =  Σ over recomputed segments of ( Σ seconds − tail of the last link ),

with the boundary of a segment that of its first link. What came after j is gone by then. To keep the last segment
takes no memory, since its backward pass comes at once. Weights, gradients and the loss are not counted. What passes
from one segment to the next may count on both sides, as ``inner`` and as ``boundary``: a forecast is high, not low.

    Cost, Plan                     a link; a segmentation with its forecast
    forecast, nothing, saving      what a segmentation takes; the reference that keeps everything; the difference
    equal_cuts, sqrt_cuts, units   equal links: n/k + k is least at k = √n
    chen                           the heuristic of Chen et al. for unequal links
    plan, smallest, frontier       the exact optimum: least time in a budget, least memory, and all between

The optimum is that of a dynamic program from the last link to the first. Its label is (peak, seconds) of the links
from i on: what is stored before them adds to the peaks of all of them alike, so a label that is worse than another
in both can be dropped. What remains at link 0 is the whole frontier between memory and time.

Equal links of one unit show what is gained. Equal segments take 2√n at their best. But the last of them finds all
boundaries held and the first only its own, so let each be a link shorter than the one before: then the peak is the
least P with P(P − 1)/2 ≥ n, about √(2n).

Here a segment is recomputed once, as a whole. Beaumont et al. also recompute in parts and repeatedly, which takes
still less memory and more time. All of this is Python and NumPy.

Sources: Chen et al. 2016 (arXiv 1604.06174); Beaumont et al. 2019 (arXiv 1911.13214), for heterogeneous chains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._arguments import is_integer, items, positive_integer

__all__ = [
    "Cost",
    "Plan",
    "chen",
    "equal_cuts",
    "forecast",
    "frontier",
    "nothing",
    "plan",
    "saving",
    "smallest",
    "sqrt_cuts",
    "units",
]

MOST_BYTES = 2**63 - 1  # of all links together: sums of int64 are exact
MOST_SECONDS = 1e300


class Cost(NamedTuple):
    """What one link takes.

    Attributes:
        boundary: bytes of its input, stored if a segment begins here.
        inner: bytes its backward pass needs beyond its input. Its output is among them, if the next link needs it.
        working: further bytes, held only while its backward pass runs.
        seconds: of its forward pass.
        tail: the part of ``seconds`` that is spared if the link ends a recomputed segment, as nobody then needs its
            output: that of a matrix product before a last sum, say, whose backward pass never reads it.
    """

    boundary: int
    inner: int
    working: int = 0
    seconds: float = 1.0
    tail: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A segmentation and its forecast.

    Attributes:
        cuts: the first link of each segment: 0, and then increasing.
        kept: for each segment whether it is kept.
        peak: bytes at the peak.
        seconds: of forward passes that run again.
    """

    cuts: tuple[int, ...]
    kept: tuple[bool, ...]
    peak: int
    seconds: float

    @property
    def segments(self) -> list[slice]:
        """The links of each segment, as in ``layers[segment]``. The last one is open: the chain ends it."""
        return [slice(*ends) for ends in pairwise((*self.cuts, None))]

    def __str__(self) -> str:
        starts = ", ".join(
            f"{cut} (kept)" if kept else f"{cut}" for cut, kept in zip(self.cuts, self.kept, strict=True)
        )
        return f"segments from {starts}: {self.peak:,} bytes, {self.seconds:.4g} s again"


# --- what a segmentation takes ----------------------------------------------------------------------------------


def forecast(costs: Sequence[Cost], cuts: Sequence[int], kept: Sequence[bool] | None = None) -> Plan:
    """What a segmentation will take.

    Args:
        costs: of the n links.
        cuts: the first link of each segment: 0, and then increasing, below n.
        kept: for each segment whether it is kept. None keeps the last one alone, which takes no memory.

    Returns:
        The plan.

    Raises:
        ValueError: there are no links, or one is no :class:`Cost`; bytes are no integers, or negative, or all
            together 2**63 or more; seconds are negative, or not finite, or less than ``tail``, or all together more
            than 1e300; ``cuts`` do not segment the links; ``kept`` has not one boolean a segment.

    Example:
        >>> costs = [Cost(boundary=1, inner=1)] * 12
        >>> print(forecast(costs, (0, 4, 8)))
        segments from 0, 4, 8 (kept): 7 bytes, 8 s again
        >>> print(forecast(costs, range(12)))
        segments from 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 (kept): 13 bytes, 11 s again
    """
    return _forecast(_chain(costs), cuts, kept)


def nothing(costs: Sequence[Cost]) -> Plan:
    """What it takes to recompute nothing: all links are one kept segment.

    Args:
        costs: of the n links.

    Returns:
        The plan.

    Raises:
        ValueError: as :func:`forecast`.

    Example:
        >>> print(nothing([Cost(boundary=1, inner=1)] * 12))
        segments from 0 (kept): 13 bytes, 0 s again
    """
    return forecast(costs, (0,), (True,))


def saving(costs: Sequence[Cost], plan: Plan) -> float:
    """The fraction of memory that a plan will save, against keeping everything.

    Args:
        costs: of the n links.
        plan: one for these links.

    Returns:
        1 − peak / peak of :func:`nothing`. It is negative if there are more boundaries than anything else.

    Raises:
        ValueError: as :func:`forecast`; or ``plan`` is none.

    Example:
        >>> costs = [Cost(boundary=1, inner=5)] * 12
        >>> saving(costs, nothing(costs)), round(saving(costs, forecast(costs, range(12))), 2)
        (0.0, 0.72)
    """
    if not isinstance(plan, Plan):
        raise ValueError(f"plan must be a Plan, got {plan!r}")
    everything = nothing(costs).peak
    return 1 - plan.peak / everything if everything else 0.0


# --- equal links ------------------------------------------------------------------------------------------------


def equal_cuts(n: int, segments: int) -> tuple[int, ...]:
    """Cuts into segments of equal length, as nearly as can be. Longer ones are first, where less is stored before.

    Args:
        n: number of links.
        segments: number of segments, 1 to n.

    Returns:
        The first link of each segment.

    Raises:
        ValueError: ``n`` or ``segments`` is no integer in its range.

    Example:
        >>> equal_cuts(10, 3)
        (0, 4, 7)
    """
    n, segments = _checked_equal(n, segments)
    length, longer = divmod(n, segments)
    return tuple(j * length + min(j, longer) for j in range(segments))


def units(n: int, segments: int) -> int:
    """Memory of equal segments of equal links, as one counts it on paper: boundaries and the longest segment.

    Args:
        n: number of links, each of one unit, as is each boundary.
        segments: number of segments k, 1 to n.

    Returns:
        k + ⌈n/k⌉, about 2√n at its least.

    Raises:
        ValueError: as :func:`equal_cuts`.

    Example:
        >>> [units(12, k) for k in range(1, 13)]
        [13, 8, 7, 7, 8, 8, 9, 10, 11, 12, 13, 13]
    """
    n, segments = _checked_equal(n, segments)
    return segments + -(-n // segments)


def sqrt_cuts(n: int) -> tuple[int, ...]:
    """Cuts into about √n equal segments: as many as make :func:`units` least, and rather fewer.

    Args:
        n: number of links.

    Returns:
        The first link of each segment.

    Raises:
        ValueError: ``n`` is no positive integer.

    Example:
        >>> sqrt_cuts(12)
        (0, 4, 8)
    """
    n, _ = _checked_equal(n)
    return equal_cuts(n, min(range(1, n + 1), key=lambda k: units(n, k)))


# --- unequal links: the heuristic -------------------------------------------------------------------------------


def chen(costs: Sequence[Cost], budget: float | None = None) -> Plan:
    """The heuristic of Chen et al. (2016, Algorithm 3): close a segment once its inner bytes exceed a budget.

    Args:
        costs: of the n links.
        budget: bytes that a segment has to exceed; 0 closes one after each link. None tries every budget that makes
            a difference (the paper tries some) and takes the plan of smallest peak, then of least seconds.

    Returns:
        A plan that keeps the last segment alone.

    Raises:
        ValueError: as :func:`forecast`; or ``budget`` is negative.

    Example:
        >>> costs = [Cost(boundary=1, inner=inner) for inner in (3, 1, 1, 1, 6, 1, 1)]
        >>> print(chen(costs, budget=2))
        segments from 0, 1, 4, 5 (kept): 9 bytes, 5 s again
    """
    chain = _chain(costs)
    if budget is not None and not (_is_number(budget) and budget >= 0):
        raise ValueError(f"budget must be bytes, none or more, or None for the best, got {budget!r}")
    inner = [cost.inner for cost in costs]
    sums = np.concatenate([[0], np.cumsum(inner)])
    budgets = {0, *(int(b - a) for a, b in combinations(sums, 2))} if budget is None else {budget}
    plans = [_forecast(chain, cuts) for cuts in sorted({_greedy_cuts(inner, budget) for budget in budgets})]
    return min(plans, key=lambda each: (each.peak, each.seconds))


def _greedy_cuts(inner: Sequence[int], budget: float) -> tuple[int, ...]:
    cuts, held = [0], 0
    for link, bytes_ in enumerate(inner):
        if held > budget:
            cuts.append(link)
            held = 0
        held += bytes_
    return tuple(cuts)


# --- unequal links: the optimum ---------------------------------------------------------------------------------


def plan(costs: Sequence[Cost], memory_budget: float) -> Plan:
    """The plan of least extra seconds within a budget, and of those the one of smallest peak.

    Args:
        costs: of the n links.
        memory_budget: bytes that the peak may reach.

    Returns:
        The best of all segmentations with all choices of kept segments.

    Raises:
        ValueError: as :func:`forecast`; or ``memory_budget`` is not positive, or below the least possible peak.

    Example:
        >>> costs = [Cost(boundary=1, inner=inner) for inner in (3, 1, 1, 1, 6, 1, 1)]
        >>> print(plan(costs, 10))
        segments from 0, 4 (kept): 10 bytes, 4 s again
        >>> plan(costs, 7)
        Traceback (most recent call last):
        ValueError: memory_budget must be at least 8 bytes, the least possible peak, got 7
    """
    chain = _chain(costs)
    if not (_is_number(memory_budget) and memory_budget > 0):
        raise ValueError(f"memory_budget must be positive, in bytes, got {memory_budget!r}")
    fronts = _fronts(chain)
    peaks = fronts[0].peak
    if memory_budget < peaks[0]:
        least = f"memory_budget must be at least {peaks[0]} bytes, the least possible peak"
        raise ValueError(f"{least}, got {memory_budget!r}")
    bytes_ = math.floor(min(memory_budget, MOST_BYTES))
    return _trace(chain, fronts, np.searchsorted(peaks, bytes_, side="right") - 1)


def smallest(costs: Sequence[Cost]) -> Plan:
    """The plan of smallest peak, and of those the one of least extra seconds.

    Args:
        costs: of the n links.

    Returns:
        The best of all segmentations with all choices of kept segments.

    Raises:
        ValueError: as :func:`forecast`.

    Example:
        >>> print(smallest([Cost(boundary=1, inner=1)] * 12))  # equal segments take 7
        segments from 0, 5, 9 (kept): 6 bytes, 9 s again
    """
    chain = _chain(costs)
    return _trace(chain, _fronts(chain), 0)


def frontier(costs: Sequence[Cost]) -> list[Plan]:
    """The frontier between memory and time: each plan that no other beats in one without losing in the other.

    Args:
        costs: of the n links.

    Returns:
        Plans of falling peak and rising seconds, from no recomputation to :func:`smallest`. Of plans that agree in
        both it has one.

    Raises:
        ValueError: as :func:`forecast`.

    Example:
        >>> for each in frontier([Cost(boundary=1, inner=3)] * 3):
        ...     print(each)
        segments from 0 (kept): 10 bytes, 0 s again
        segments from 0, 1 (kept): 8 bytes, 1 s again
        segments from 0, 1, 2 (kept): 6 bytes, 2 s again
    """
    chain = _chain(costs)
    fronts = _fronts(chain)
    return [_trace(chain, fronts, label) for label in reversed(range(len(fronts[0].peak)))]


class _SegmentTable(NamedTuple):
    """Tables over segments [i, j): row i, column j, of which j > i counts."""

    boundary: NDArray[np.int64]  # of a segment from i, (n,)
    stored: NDArray[np.int64]  # if it is kept
    held: NDArray[np.int64]  # while its backward pass runs
    again: NDArray[np.float64]  # seconds, if it is recomputed


class _Front(NamedTuple):
    """The labels of the links from i on that no other label beats: peaks rise, seconds fall."""

    peak: NDArray[np.int64]
    seconds: NDArray[np.float64]
    stop: NDArray[np.intp]  # where the first segment ends
    kept: NDArray[np.bool_]  # whether it is kept
    label: NDArray[np.intp]  # of the links from ``stop`` on


def _fronts(chain: _SegmentTable) -> list[_Front]:
    """The front of the links from i on, for i = 0 … n."""
    n = len(chain.boundary)
    fronts = [_Front(*np.zeros((5, 1), np.int64))] * (n + 1)  # of no links: nothing held, nothing spent
    for i in reversed(range(n)):
        # Of equal labels the first one stays: that of the longer segment, and of the kept one.
        ways = [_prepended(chain, i, j, kept, fronts[j]) for j in range(n, i, -1) for kept in (True, False)]
        fronts[i] = _undominated(_Front(*map(np.concatenate, zip(*ways, strict=True))))
    return fronts


def _prepended(chain: _SegmentTable, i: int, j: int, kept: bool, rest: _Front) -> _Front:
    """Segment [i, j) before all that the links from j on may do."""
    stored, again = (chain.stored[i, j], 0.0) if kept else (chain.boundary[i], chain.again[i, j])
    peak = np.maximum(chain.held[i, j], stored + rest.peak)
    label = np.arange(len(peak))
    return _Front(peak, rest.seconds + again, np.full_like(label, j), np.full(len(peak), kept), label)


def _undominated(front: _Front) -> _Front:
    order = np.lexsort((front.seconds, front.peak))
    least = np.minimum.accumulate(front.seconds[order])
    return _Front(*(x[order[np.diff(least, prepend=np.inf) < 0]] for x in front))


def _trace(chain: _SegmentTable, fronts: list[_Front], label: int) -> Plan:
    cuts, kept, link = [], [], 0
    while link < len(chain.boundary):
        front = fronts[link]
        cuts.append(link)
        kept.append(bool(front.kept[label]))
        link, label = int(front.stop[label]), front.label[label]
    return _forecast(chain, cuts, kept)


def _forecast(chain: _SegmentTable, cuts: Sequence[int], kept: Sequence[bool] | None = None) -> Plan:
    n = len(chain.boundary)
    cuts = tuple(_listed("cuts", cuts))
    increasing = cuts and all(map(is_integer, cuts)) and all(i < j for i, j in pairwise((*cuts, n)))
    if not increasing or cuts[0] != 0:
        raise ValueError(f"cuts must be 0 and then increasing, below the number of links, {n}, got {cuts}")
    cuts = tuple(map(int, cuts))
    kept = (False,) * (len(cuts) - 1) + (True,) if kept is None else checked_kept(kept)
    if len(kept) != len(cuts):
        raise ValueError(f"kept must have one entry a segment, {len(cuts)}, got {len(kept)}")
    peak, stored, seconds = 0, 0, 0.0
    for i, j, keep in zip(cuts, (*cuts[1:], n), kept, strict=True):
        peak = max(peak, stored + int(chain.held[i, j]))
        stored += int(chain.stored[i, j] if keep else chain.boundary[i])
        seconds += 0.0 if keep else float(chain.again[i, j])
    return Plan(cuts, kept, peak, seconds)


def _chain(costs: Sequence[Cost]) -> _SegmentTable:
    _check(costs)
    boundary, inner, working = np.array([cost[:3] for cost in costs], np.int64).T
    seconds, tail = np.array([cost[3:] for cost in costs], np.float64).T
    # On a grid on which all sums are exact, plans that take equal seconds tie. Integers lie on it as they are.
    grid = np.spacing(2 * seconds.sum())
    seconds, tail = np.round(seconds / grid) * grid, np.round(tail / grid) * grid

    inner, seconds = (np.concatenate([[0], np.cumsum(x)]) for x in (inner, seconds))
    stored = boundary[:, None] + inner - inner[:-1, None]
    most = np.maximum.accumulate(np.triu(np.broadcast_to(working, (len(boundary),) * 2)), axis=1)
    held = stored + np.pad(most, ((0, 0), (1, 0)))
    again = seconds - seconds[:-1, None] - np.concatenate([[0], tail])
    return _SegmentTable(boundary, stored, held, again)


# --- checks -----------------------------------------------------------------------------------------------------


def checked_kept(kept: Iterable[bool]) -> tuple[bool, ...]:
    """The values as booleans.

    Raises:
        ValueError: It is no list, or a value is neither True nor False, 1 nor 0.

    Example:
        >>> checked_kept([0, True])
        (False, True)
    """
    kept = _listed("kept", kept)
    for i, one in enumerate(kept):
        if not (isinstance(one, bool | np.bool_) or (_is_number(one) and one in (0, 1))):
            raise ValueError(f"kept[{i}] must be True or False, got {one!r}")
    return tuple(map(bool, kept))


def _listed(name: str, values: Any) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{name} must be a list, got {values!r}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check(costs: Sequence[Cost]) -> None:
    if not len(items("costs", costs)):
        raise ValueError("costs must be of one link at least, got none")
    for link, cost in enumerate(costs):
        if not isinstance(cost, Cost):
            raise ValueError(f"costs[{link}] must be a Cost, got {cost!r}")
        if not all(is_integer(x) and x >= 0 for x in cost[:3]):
            raise ValueError(f"costs: bytes must be integers, none negative, got {cost} for link {link}")
        if not (all(map(_is_number, cost[3:])) and 0 <= cost.tail <= cost.seconds < math.inf):
            raise ValueError(f"costs: seconds must be finite with 0 ≤ tail ≤ seconds, got {cost} for link {link}")
    if (total := sum(sum(map(int, cost[:3])) for cost in costs)) > MOST_BYTES:
        raise ValueError(f"costs: bytes must be below 2**63 together, got {total}")
    if not (total := sum(float(cost.seconds) for cost in costs)) <= MOST_SECONDS:
        raise ValueError(f"costs: seconds must be at most {MOST_SECONDS:g} together, got {total:g}")


def _checked_equal(n: int, segments: int = 1) -> tuple[int, int]:
    """Both as integers of Python, whose sums do not wrap as those of NumPy do."""
    n = positive_integer("n", n)
    if not is_integer(segments) or not 1 <= segments <= n:
        raise ValueError(f"segments must be an integer, 1 to {n}, got {segments!r}")
    return n, int(segments)
