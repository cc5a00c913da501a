"""The exercises of chapter 9: checks, hints and worked solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest

from lib.experiments.theseus import compression
from lib.experiments.theseus.accuracy import seeds_needed
from lib.workbench.sheets import Problem, Sheet


def _solve_1() -> float:
    rate = 0.5 ** (1 / 12)
    print(f"p = {rate:.4f}, and at p = 1/2 one step in {2**12} trains the whole")
    return rate


def _solve_2() -> float:
    rates = np.linspace(0, 1, 1001)
    print(f"a module costs {np.mean(3 * rates + 4 * (1 - rates)):.2f} on average, alone 3")
    return 3.5 / 3


def _solve_3() -> float:
    only_first, only_second = 600 - 540, 570 - 540
    p = binomtest(only_first, only_first + only_second).pvalue
    print(f"{only_first} against {only_second}: p = {p:.4f}")
    return p


def _solve_4() -> Callable[[Sequence[float], float], int]:
    def seeds(differences, margin):
        n, s = 2, np.std(differences, ddof=1)
        while stdtrit(n - 1, 0.975) * s / np.sqrt(n) > margin:
            n += 1
        return n

    print(
        "differences that spread by 0.8 points, half a point to be told:", seeds([-0.8 / 2**0.5, 0.8 / 2**0.5], 0.5)
    )
    return seeds


def _tells_the_seeds(seeds: Callable[[list[float], float], int]) -> bool:
    """Random differences and margins, against the chapter's own count."""
    rng = np.random.default_rng()
    for _ in range(20):
        found, margin = rng.standard_normal(rng.integers(2, 9)).tolist(), float(rng.uniform(0.2, 2))
        samples = np.array(found) - np.mean(found) + margin
        if int(seeds(list(found), margin)) != seeds_needed(samples, 0.0, most=20_000):
            return False
    return True


def _solve_5() -> Callable[[Any, Any], tuple[Any, Any]]:
    def trained(A, B):
        return 2 * B - A, B

    A, B = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.8, 0.1], [0.0, 1.1]])
    print("error alone, trained as a team:", np.abs(trained(A, B)[0] - B).max().round(2), "and by coin: 0.0")
    return trained


def _trains_both(trained: Callable[[Any, Any], tuple[Any, Any]]) -> bool:
    """No step away from either answer lowers its loss, for random matrices and inputs of mean 0 and variance 1."""
    rng = np.random.default_rng()
    for _ in range(10):
        A, B = rng.standard_normal((2, 3, 3))
        team, coin = map(np.asarray, trained(A.copy(), B.copy()))
        if team.shape != (3, 3) or coin.shape != (3, 3):
            return False
        # The expected loss is the squared Frobenius norm of what is wrong; both can be made 0 in their gradient.
        if np.abs((A + team) / 2 - B).max() > 1e-9 or np.abs(coin - B).max() > 1e-9:
            return False
    return True


def _solve_6() -> Callable[..., float]:
    def distance(used, own_count):
        moved = m = v = 0.0
        k = 0
        for t, now in enumerate(used, 1):
            if now:
                k += 1
                m, v = 0.9 * m + 0.1, 0.999 * v + 0.001
                count = k if own_count else t
                moved += (m / (1 - 0.9**count)) / np.sqrt(v / (1 - 0.999**count))
        return moved

    used = np.random.default_rng(0).random(400) < 0.25
    print(
        f"used in {used.sum()} of 400 steps: moved {distance(used, True):.1f} or {distance(used, False):.1f} rates"
    )
    return distance


def _is_adam(distance: Callable[..., float]) -> bool:
    """Against the closed form: after k steps m = 1 − 0.9ᵏ and v = 1 − 0.999ᵏ."""
    rng = np.random.default_rng()
    for p in (0.1, 0.5, 0.9):
        used = rng.random(300) < p
        t = np.flatnonzero(used) + 1
        k = np.arange(1, len(t) + 1)
        common = np.sum((1 - 0.9**k) / (1 - 0.9**t) * np.sqrt((1 - 0.999**t) / (1 - 0.999**k)))
        if not np.isclose(distance(used.copy(), True), len(k)) or not np.isclose(
            distance(used.copy(), False), common
        ):
            return False
    return True


def _solve_7() -> str:
    for steps in (160, 650, 2600):
        effort = compression.effort_of_theseus(3, steps, rate=0.75) + compression.effort_of_training(6, 240)
        alone = effort / compression.effort_of_training(3, 1)
        print(f"{steps:5} steps of Theseus and the predecessor cost {alone:5.0f} steps of three blocks alone")
    return (
        "Fix the total work, the predecessor's share in it, and the test sentences. Train every way at several "
        "budgets with the same seeds, choose lengths and rates of all ways on a development part, and "
        "compare pairs "
        "by seed; the null is that at each budget distillation and the best direct training are at least as good."
    )


SHEET = Sheet(
    [
        Problem(
            "9.1",
            "easy",
            lambda p: abs(p**12 - 0.5) < 1e-3,
            "Proposition 9.1 says how often all modules are replaced at once.",
            "All twelve coins must fall on new: the twelfth power of the rate is one half.",
            _solve_1,
        ),
        Problem(
            "9.2",
            "easy",
            lambda factor: abs(factor - 7 / 6) < 5e-3,
            "What does a module cost on average while the rate runs evenly from 0 to 1?",
            "New, a module costs 3; old, two frozen blocks cost 4. The mean rate is one half, so the mean "
            "cost is 3.5, "
            "against 3 for a block alone.",
            _solve_2,
        ),
        Problem(
            "9.3",
            "medium",
            lambda p: abs(p - binomtest(60, 90).pvalue) < 1e-4,
            "Only the sentences count on which one network alone is right. How many are there for each?",
            "Sentences on which both are right, or both wrong, say nothing. The others fall to either "
            "network like a "
            "fair coin if both are equally good.",
            _solve_3,
        ),
        Problem(
            "9.4",
            "medium",
            _tells_the_seeds,
            "Half the width of the interval is t(n − 1) · s / √n. `scipy.special.stdtrit(n - 1, 0.975)` "
            "is the first "
            "factor.",
            "Raise n until half the width of the interval is at most the margin. The quantile falls with "
            "n as well, "
            "which matters for the smallest numbers.",
            _solve_4,
        ),
        Problem(
            "9.5",
            "medium",
            _trains_both,
            "In the first case set the gradient of the loss of the mean to zero. In the second the loss "
            "is a sum of two "
            "cases, and S is in one of them only.",
            "As a team, (A + S)/2 must be B, so S makes up for what A does wrong and is wrong alone. "
            "Under a coin S "
            "learns only when it is alone, and is B itself.",
            _solve_5,
        ),
        Problem(
            "9.6",
            "hard",
            _is_adam,
            "The moments move in used steps alone. The corrections divide by 1 − βᵏ or by 1 − βᵗ; which is which?",
            "With a count of its own, a weight with gradient 1 moves one rate in each used step. With the "
            "common count "
            "the second moment is corrected too little, and the weight moves farther.",
            _solve_6,
        ),
        Problem(
            "9.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "What is held equal, what is varied, who chooses the settings of each way, and what is the null?",
            "One design: let every way spend the same work in all, the predecessor's included, and draw accuracy "
            "against work. This chapter has two points of that curve.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
