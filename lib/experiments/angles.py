"""Chapter 1: do random vectors meet at the angles the law says, and how far from it are learned ones?

``python -m lib.experiments.angles --scale cpu`` records the long test of the law, a million pairs a case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.integrate import quad

from lib import angles
from lib.workbench import records
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


def spread(vectors: NDArray, seeds: Sequence[int], pairs: int = 5000) -> Estimate:
    """Mean squared cosine of random pairs of rows, times their length n: 1 for isotropic vectors of R^n.

    Example:
        >>> estimate = spread(np.random.default_rng(0).standard_normal((2000, 50)), seeds=range(5))
        >>> estimate.low < 1 < estimate.high
        True
    """
    n = vectors.shape[1]
    return Estimate.from_samples([n * np.mean(pair_cosines(vectors, pairs, seed) ** 2) for seed in seeds])


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


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.angles --scale cpu``."""
    return records.main(CHAPTER, {"kolmogorov": kolmogorov, "worst-pairs": worst_pairs}, argv)


if __name__ == "__main__":
    sys.exit(main())
