"""The exercises of chapter 8: checks, hints and worked solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lib.experiments.recompute import formulas, schedule
from lib.recompute import Cost, checkpoints
from lib.workbench.sheets import Problem, Sheet


def _least_of_equal(n: int) -> int:
    """The fewest values that equal segments of equal layers hold, by walking through the step."""
    return min(int(schedule.held(schedule.lives(n, checkpoints.equal_cuts(n, k))).max()) for k in range(1, n + 1))


def _solve_1() -> int:
    held = {k: checkpoints.units(144, k) for k in (4, 8, 12, 18, 36)}
    print("values held with so many segments:", held)
    return checkpoints.units(144, 12)


def _solve_2() -> float:
    s, h, a = 512, 1024, 16
    whole, boundary = formulas.layer_bytes(s, 1, h, a), 2 * s * h
    print(f"a layer keeps {whole / (s * h):.0f} sh bytes, its input has {boundary / (s * h):.0f} sh")
    return 24 * whole / (24 * boundary + whole - boundary)


def _solve_3() -> float:
    for r in (3, 12, 48):
        k = np.arange(1, 13)
        print(f"r = {r:2}: k + 12 r/k is least at k = {k[np.argmin(k + 12 * r / k)]}")
    return 12.0


def _solve_4() -> Callable[..., int]:
    def peak(r, c, cuts):
        ends = [*cuts[1:], len(r)]
        return max(sum(c[cut] for cut in cuts[: j + 1]) + sum(r[cuts[j] : ends[j]]) for j in range(len(cuts)))

    print("12 equal layers, cut before layers 5 and 9:", peak([1] * 12, [1] * 12, [0, 4, 8]))
    return peak


def _is_peak(peak: Callable[..., int]) -> bool:
    """Random chains, each walked through link by link from the last to the first."""
    rng = np.random.default_rng()
    for _ in range(20):
        r, c = rng.integers(1, 9, (2, 10)).tolist()
        cuts = [0, *sorted(rng.choice(np.arange(1, 10), rng.integers(0, 5), replace=False).tolist())]
        most, end = 0, 10
        for cut in reversed(cuts):
            most = max(most, sum(c[i] for i in cuts if i <= cut) + sum(r[cut:end]))
            end = cut
        if peak(list(r), list(c), list(cuts)) != most:
            return False
    return True


def _solve_5() -> list[int]:
    cuts, room = [0], 8
    while cuts[-1] + room < 30:
        cuts.append(cuts[-1] + room)
        room -= 1
    held = schedule.held(schedule.lives(30, cuts)).max()
    print(f"segments from {cuts}: {held} values; equal segments hold {_least_of_equal(30)}")
    return cuts


def _is_least(cuts: Sequence[int]) -> bool:
    least = next(P for P in range(2, 31) if P * (P - 1) / 2 >= 30)
    return int(schedule.held(schedule.lives(30, [int(cut) for cut in cuts])).max()) <= least


def _solve_6() -> Callable[..., Any]:
    def twice(f, x, rng):
        before = rng.bit_generator.state
        first = f(x, rng)
        after = rng.bit_generator.state
        rng.bit_generator.state = before
        second = f(x, rng)
        rng.bit_generator.state = after
        return first, second

    rng = np.random.default_rng(0)
    first, second = twice(lambda x, rng: x * (rng.random(x.shape) < 0.5), np.ones(8), rng)
    print("the same mask:", np.array_equal(first, second), first.astype(int))
    return twice


def _runs_twice(twice: Callable[..., Any]) -> bool:
    """Two calls, both results are that of one, and the generator is left as by one call."""
    x = np.random.default_rng().standard_normal(50)
    calls = []

    def dropout(x: Any, rng: np.random.Generator) -> Any:
        calls.append(x)
        return x * (rng.random(x.shape) < 0.5)

    for seed in range(3):
        rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
        calls.clear()
        results = twice(dropout, x, rng)
        called, expected = len(calls), dropout(x, other)
        if called != 2 or len(results) != 2 or not all(np.array_equal(one, expected) for one in results):
            return False
        if rng.random() != other.random():
            return False
    return True


def _solve_7() -> str:
    for layers in (3, 6, 12, 24, 48):
        chain: list[Cost] = formulas.link_costs(512, 1, 768, 12) * layers
        whole = checkpoints.nothing(chain).peak
        cuts = {"blocks": range(0, 4 * layers, 4), "norm to norm": sorted({0, *range(1, 4 * layers, 2)})}
        held = {name: checkpoints.forecast(chain, list(where)).peak / whole for name, where in cuts.items()}
        held["best"] = checkpoints.smallest(chain).peak / whole
        print(f"{layers:2} blocks: " + ", ".join(f"{name} {share:.3f}" for name, share in held.items()))
    return (
        "Vary the number of blocks and the tokens; count memory and multiplications of each cut by the formulas, "
        "then measure the bytes held on one backend in several runs; the null: one cut is best at all depths."
    )


SHEET = Sheet(
    [
        Problem(
            "8.1",
            "easy",
            lambda held: held == _least_of_equal(144),
            "Proposition 8.2, with all numbers of segments tried, or with the root of 144.",
            "The least of k + ⌈144/k⌉ is taken at the root of 144: twelve segments of twelve layers.",
            _solve_1,
        ),
        Problem(
            "8.2",
            "easy",
            lambda ratio: abs(ratio - 24 * (34 + 5 * 16 * 512 / 1024) / (23 * 2 + 34 + 5 * 16 * 512 / 1024)) < 0.01,
            "At the peak 24 inputs are held, and of one layer all the rest. Count in units of sbh.",
            "By (8.3) a layer keeps 34 + 5as/h in units of sbh, its input 2. All layers keep 24 times the former; "
            "segment by segment there are 24 inputs, and of one layer what it keeps besides its input.",
            _solve_2,
        ),
        Problem(
            "8.3",
            "medium",
            lambda r: abs(r / 12 - 1) < 1e-6,
            "Where is the derivative of k + 12 r/k zero, and when is that k as large as 12?",
            "The minimum of k + nr/k is at k = √(rn). It reaches n, a layer a segment, when r reaches n.",
            _solve_3,
        ),
        Problem(
            "8.4",
            "medium",
            _is_peak,
            "One number a segment: the inputs up to it, and its own insides. Then the largest.",
            "Formula (8.2) read aloud.",
            _solve_4,
        ),
        Problem(
            "8.5",
            "hard",
            _is_least,
            "How long may the first segment be, if P values may be held? And the next? Try the smallest P.",
            "Within P values segment j has room for P − j layers. For 30 layers the room of 9 values is 8 + 7 + … "
            "and suffices, that of 8 does not. So take 8, 7, 6, 5 layers, and the 4 that are left.",
            _solve_5,
        ),
        Problem(
            "8.6",
            "hard",
            _runs_twice,
            "rng.bit_generator.state can be read and set. What must it be before the second call, and after it?",
            "Remember the state before the first call and after it. The second call begins where the first began, "
            "and leaves the generator where the first left it. This is what torch does with its own generators.",
            _solve_6,
        ),
        Problem(
            "8.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "What is varied, what is counted, what is measured, against which null?",
            "One design: at which depth is which cut the best? Both terms of (8.2) change with the cut: a finer "
            "one stores more inputs and has smaller insides. The counts say where they cross; the measurement says "
            "whether the counts are right.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
