"""The exercises of chapter 1: checks, hints and worked solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import integrate, stats

from lib import angles
from lib.experiments.angles.sampling import log_directions, mean_squared_cosine, token_vectors
from lib.workbench.sheets import Problem, Sheet


def _within(n: int, degrees: float) -> float:
    """The share of random pairs of Rⁿ that meet within so many degrees of a right angle, by integration."""
    half = np.radians(degrees)
    inside, _ = integrate.quad(lambda u: np.cos(u) ** (n - 2), -half, half)
    whole, _ = integrate.quad(lambda u: np.cos(u) ** (n - 2), -np.pi / 2, np.pi / 2)
    return inside / whole


def _solve_1() -> int:
    def near(n, degrees):
        return 1 - 2 * angles.angle(n).cdf(np.radians(90 - degrees))

    n = next(n for n in range(2, 1000) if near(n, 10) >= 0.99)
    print(f"n = {n}: {near(n, 10):.5f}; one dimension fewer: {near(n - 1, 10):.5f}")
    return n


def _solve_2() -> float:
    one = angles.cosine(256)
    probability = -np.expm1(1e6 * one.logcdf(0.33))
    print(f"one vector: {one.sf(0.33):.1e}; the best of a million: {probability:.3f}")
    return float(probability)


def _solve_3() -> Any:
    def fourth_moment(n):
        return 3 / (n * (n + 2))

    print(f"n = 9: {fourth_moment(9):.6f}; by the law: {angles.cosine(9).moment(4):.6f}")
    return fourth_moment


def _solve_4() -> float:
    x, y = np.maximum(0, np.random.default_rng(0).standard_normal((2, 500, 1000)))
    simulated = float(np.cos(angles.angle_between(x, y)).mean())
    print(f"simulated {simulated:.3f}, 1/π = {1 / np.pi:.3f}")
    return simulated


def _solve_5() -> int:
    n = np.arange(2, 5000)
    first = int(n[log_directions(n, 0.1) > np.log(n)][0])
    print(f"from n = {first} on the caps leave room for more directions than a basis has")
    return first


def _solve_6() -> Any:
    def pair_of_worst_angle(vectors):
        i, j = np.triu_indices(len(vectors), 1)
        worst = np.argmax(np.abs(np.cos(angles.pairwise_angles(vectors))))
        return {int(i[worst]), int(j[worst])}

    x = np.random.default_rng(1).standard_normal((200, 64))
    print("the worst pair of 200 vectors of R^64:", sorted(pair_of_worst_angle(x)))
    return pair_of_worst_angle


def _is_worst_pair(function: Any) -> bool:
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((60, 16)) * np.linspace(1, 100, 60)[:, None]
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        gram = np.abs(unit @ unit.T) - np.eye(60)
        if set(function(x)) != {*map(int, np.unravel_index(gram.argmax(), gram.shape))}:
            return False
    return True


def _solve_7() -> str:
    pieces, vectors = token_vectors()
    words = vectors[[piece.isascii() and piece.isalpha() and len(piece) > 1 for piece in pieces]]
    shuffled = np.random.default_rng(0).permutation(words)
    for name, table in {"by frequency": words, "shuffled": shuffled}.items():
        quarters = [1 / mean_squared_cosine(part) for part in np.array_split(table, 4)]
        print(f"quarters {name:12} act like", *(f"{d:.0f}" for d in quarters), "dimensions")
    return (
        "Compare groups of tokens of one model: measure 1 / mean squared cosine over the pairs within a group, for "
        "quarters of the words by frequency; the null is the same for shuffled words. Leave out what is no word."
    )


SHEET = Sheet(
    [
        Problem(
            "1.1",
            "easy",
            lambda n: _within(n, 10) >= 0.99 > _within(n - 1, 10),
            "The law has a cdf. Let n grow until 1 − 2·cdf(80°) is large enough.",
            "The mass near 90 degrees grows with n, so the first n that passes is the answer.",
            _solve_1,
        ),
        Problem(
            "1.2",
            "easy",
            lambda p: 0 < p < 1 and abs(np.log1p(-p) / (1e6 * stats.beta(127.5, 127.5).logcdf(0.665)) - 1) < 0.05,
            "All million stay below 0.33 if each does. What is the probability of that?",
            "With P the probability that one cosine stays below 0.33, the answer is 1 − P^1,000,000, computed in "
            "logarithms because P is so close to 1. More than chance, but not by far.",
            _solve_2,
        ),
        Problem(
            "1.3",
            "medium",
            lambda f: all(np.isclose(f(n), stats.beta(0.5, (n - 1) / 2).moment(2)) for n in (3, 9, 40)),
            "A rotation by 45 degrees links the mean of η₁⁴ to that of η₁²η₂². Then square the sum of all η².",
            "Turn two coordinates by 45 degrees: (η₁ + η₂)⁴/4 has the same mean as η₁⁴, which gives "
            "E[η₁⁴] = 3 E[η₁²η₂²]. Now take the mean of (Σ η²)² = 1. There are n terms η⁴ and n(n − 1) mixed ones: "
            "with a = E[η₁⁴], n a + n(n − 1) a/3 = 1.",
            _solve_3,
        ),
        Problem(
            "1.4",
            "medium",
            lambda cosine: abs(cosine - 1 / np.pi) < 0.005,
            "In high dimension a mean over entries is close to its expectation. Which two expectations meet here?",
            "The inner product is close to n E[relu(z)]² and each squared length to n E[relu(z)²]. The two "
            "expectations are 1/√(2π) and 1/2, so the cosine is close to 1/π: after a ReLU nothing is orthogonal.",
            _solve_4,
        ),
        Problem(
            "1.5",
            "hard",
            lambda n: (
                log_directions(np.array([n]), 0.1)[0] > np.log(n)
                and log_directions(np.array([n - 1]), 0.1)[0] <= np.log(n - 1)
            ),
            "Proposition 1.5 in logarithms: compare −log P with log n, for one n after the other.",
            "P is the probability that |cos| exceeds 0.1, twice the upper tail. `logsf` gives its logarithm "
            "without loss, and the first n with −log P > log n is the answer.",
            _solve_5,
        ),
        Problem(
            "1.6",
            "hard",
            _is_worst_pair,
            "pairwise_angles gives all angles in the order of numpy.triu_indices. Is 170 degrees worse than 60?",
            "The worst pair has the largest |cos|, so an obtuse angle counts like its supplement.",
            _solve_6,
        ),
        Problem(
            "1.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "What is measured, in which groups, against which null, with which interval?",
            "One design: do frequent words fill their space better than rare ones? The whole words in the "
            "vocabulary of MiniLM are ordered roughly by frequency. Leave out single characters, pieces of words "
            "and placeholders, which are ordered otherwise and much alike. A group acts like 1 over its mean "
            "squared cosine dimensions (Proposition 1.2 read backwards); shuffled words are the null. The rarest "
            "quarter fills the space worst.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
