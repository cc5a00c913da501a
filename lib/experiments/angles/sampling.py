"""Do random vectors meet at the angles the law says, and how far from it are learned ones?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad

from lib import angles
from lib.workbench import corpora, records
from lib.workbench.measure import Estimate

CHAPTER = "01-angles"
_NUMBERS_AT_ONCE = 1 << 22

#: Ways to draw vectors: from a generator, how many, and their dimension.
Draw = Callable[[np.random.Generator, int, int], NDArray]
ISOTROPIC: dict[str, Draw] = {
    "Gaussian": lambda rng, count, n: rng.standard_normal((count, n)),
    "heavy-tailed": lambda rng, count, n: rng.standard_normal((count, n)) / rng.chisquare(2, (count, 1)),
    "in a ball": lambda rng, count, n: rng.standard_normal((count, n)) * rng.uniform(size=(count, 1)) ** (1 / n),
}
#: Independent entries of one law, which is not the normal one: no rotation leaves these unchanged.
INDEPENDENT: dict[str, Draw] = {
    "uniform": lambda rng, count, n: rng.uniform(-1, 1, (count, n)),
    "signs": lambda rng, count, n: rng.choice([-1.0, 1.0], (count, n)),
}
ANISOTROPIC: dict[str, Draw] = {
    "non-negative": lambda rng, count, n: rng.uniform(size=(count, n)),
    "off-centre": lambda rng, count, n: rng.standard_normal((count, n)) + 0.5,
    "one long axis": lambda rng, count, n: rng.standard_normal((count, n)) * np.where(np.arange(n) == 0, 5.0, 1.0),
}


def sample_angles(n: int, pairs: int, seed: int, draw: Draw = ISOTROPIC["Gaussian"]) -> NDArray[np.float64]:
    """Angles between independent pairs of random vectors.

    Args:
        n: dimension.
        pairs: number of pairs; they are drawn in batches, so a million pairs in R^1000 fit in memory.
        seed: seed of NumPy's generator.
        draw: how the vectors are drawn.

    Returns:
        Angles in radians, shape (pairs,).

    Example:
        >>> theta = sample_angles(n=100, pairs=1000, seed=0)
        >>> print(f"{np.degrees(theta.mean()):.0f} ± {np.degrees(theta.std()):.0f} degrees")
        90 ± 6 degrees
    """
    rng = np.random.default_rng(seed)
    batch = max(1, _NUMBERS_AT_ONCE // n)
    counts = [min(batch, pairs - start) for start in range(0, pairs, batch)]
    return np.concatenate([angles.angle_between(draw(rng, c, n), draw(rng, c, n)) for c in counts])


def distance_to_law(n: int, pairs: int, seed: int, draw: Draw = ISOTROPIC["Gaussian"]) -> float:
    """Kolmogorov's distance between sampled angles and the law, times √pairs.

    Under the law it exceeds 1.36 once in twenty samples, whatever n; under another law it grows like √pairs.
    """
    sample = sample_angles(n, pairs, seed, draw)
    return float(stats.kstest(sample, angles.angle(n).cdf).statistic * np.sqrt(pairs))


def critical_distance(tests: int, level: float = 0.01) -> float:
    """What the largest of several of these distances exceeds with probability ``level`` if the law is true.

    Example:
        >>> round(critical_distance(tests=1, level=0.05), 2)
        1.36
    """
    return float(stats.kstwobign.isf(1 - (1 - level) ** (1 / tests)))


def variance_by_quadrature(n: int) -> float:
    """Variance of the angle by integrating its density numerically: the naive way to ½ψ′(n/2).

    Example:
        >>> round(variance_by_quadrature(3), 6)
        0.467401
    """

    def moment(power: int) -> float:
        return quad(lambda u: u**power * np.cos(u) ** (n - 2), -np.pi / 2, np.pi / 2, epsabs=0)[0]

    return moment(2) / moment(0)


def normal_error(n: int, variance: float) -> float:
    """Largest error of a normal law with this variance as a stand-in for the law of the angle, over all angles.

    Example:
        >>> round(normal_error(10, 1 / 9), 4)
        0.005
    """
    grid = np.linspace(0, np.pi, 20_001)
    return float(np.abs(stats.norm(np.pi / 2, variance**0.5).cdf(grid) - angles.angle(n).cdf(grid)).max())


def largest_cosines(n: int, count: int, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Largest |cos| among all pairs of ``count`` Gaussian vectors, one value a seed."""
    values = []
    for seed in seeds:
        x = np.random.default_rng(seed).standard_normal((count, n)).astype(np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        gram = np.abs(x @ x.T)
        np.fill_diagonal(gram, 0)
        values.append(gram.max())
    return np.array(values, dtype=np.float64)


def pair_cosines(vectors: NDArray, pairs: int, seed: int) -> NDArray[np.float64]:
    """Cosines of random pairs of different rows, shape (pairs,)."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(vectors), pairs)
    second = (first + rng.integers(1, len(vectors), pairs)) % len(vectors)
    return np.cos(angles.angle_between(vectors[first], vectors[second]))


def token_vectors() -> tuple[list[str], NDArray[np.float32]]:
    """MiniLM's word pieces and their vectors, without the 994 placeholders ``[unused…]``, which stand in no text.

    Returns:
        The 29,528 pieces, and an array (29528, 384).

    Raises:
        CorpusError: as :func:`lib.workbench.corpora.member`.

    Example:
        >>> pieces, vectors = token_vectors()  # doctest: +SKIP
        >>> pieces[:2], vectors.shape  # doctest: +SKIP
        (['[PAD]', '[UNK]'], (29528, 384))
    """
    pieces, vectors = corpora.minilm_embeddings()
    used = [not piece.startswith("[unused") for piece in pieces]
    return list(itertools.compress(pieces, used)), vectors[np.array(used)]


def mean_squared_cosine(vectors: NDArray) -> float:
    """Mean of cos² over all pairs of different rows: 1/n for isotropic vectors of Rⁿ.

    With the unit vectors as rows of U, the sum over all ordered pairs is ‖UᵀU‖² in Frobenius' norm: exact, and one
    matrix product.

    Example:
        >>> mean_squared_cosine(np.array([[1, 0], [0, 2], [3, 3]]))  # cos² of three pairs: 0, ½, ½
        0.3333333333333333
    """
    unit = np.asarray(vectors, np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    count = len(unit)
    return float((np.sum((unit.T @ unit) ** 2) - count) / (count * (count - 1)))


def centred(vectors: NDArray) -> NDArray:
    """The vectors without their mean."""
    return vectors - vectors.mean(axis=0)


def whitened(vectors: NDArray) -> NDArray:
    """The centred vectors, rotated and rescaled so that their covariance is the identity."""
    x = centred(vectors).astype(np.float64)
    values, axes = np.linalg.eigh(x.T @ x / len(x))
    return x @ axes / np.sqrt(values)


def kolmogorov(scale: str, *, dimensions: Sequence[int] = (2, 3, 5, 10, 30, 100, 300, 1000)) -> records.Record:
    """Record the distance to the law with a million pairs a case, three seeds a dimension."""
    cases: list[dict[str, Any]] = [{"n": n, "pairs": 10**6, "seed": seed} for n in dimensions for seed in range(3)]
    return records.sweep(
        CHAPTER, "kolmogorov", lambda **case: {"distance": distance_to_law(**case)}, cases, scale=scale
    )


def worst_pairs(scale: str, *, dimensions: Sequence[int] = (16, 64, 256, 768, 4096)) -> records.Record:
    """Record the largest |cos| among 5000 vectors, twenty seeds a dimension."""
    cases: list[dict[str, Any]] = [{"n": n, "count": 5000, "seed": seed} for n in dimensions for seed in range(20)]

    def largest(n: int, count: int, seed: int) -> dict[str, float]:
        return {"largest": float(largest_cosines(n, count, [seed])[0])}

    return records.sweep(CHAPTER, "worst-pairs", largest, cases, scale=scale)


def mean_over_seeds(record: records.Record, key: str, **case: Any) -> Estimate:
    """Mean of a recorded value over the seeds of one case, with its interval."""
    return Estimate.from_samples([row[key] for row in record.where(**case)])


def log_directions(n: NDArray, tolerance: float) -> NDArray[np.float64]:
    """Logarithm of a number of directions of Rⁿ that surely fit with |cos| at most ``tolerance``: Proposition 1.5.

    Directions are chosen one after another. Each forbids two caps to the next ones, a share P(|cos Θ| > ε) of the
    sphere; while N P < 1 a place is left, so N ≥ 1/P.

    Example:
        >>> print(f"{log_directions(np.array([768]), 0.3)[0] / np.log(10):.1f}")
        16.7
    """
    return -(np.log(2) + angles.cosine(n).logsf(tolerance))
