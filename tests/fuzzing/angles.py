"""Cases of `lib.angles`: the laws by quadrature of the density, angles by the identity of Lagrange."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from fuzzing.cases import NO_INTEGER, NO_TENSOR, Case, always, flatter, longer
from fuzzing.values import arrays, sizes
from lib import angles

#: What no dimension may be. A list of dimensions is one for each law.
NO_DIMENSION = (*(way for way in NO_INTEGER if way.__name__ != "[1]"), *map(always, (1, 0, -3, [2, 1], [2.0, 3.5])))
NO_FRACTION = tuple(map(always, (True, "0.5", None, np.nan, np.inf, 1j, 0, 1, -0.5, 1.5)))

DIMENSIONS = st.integers(2, 12) | st.sampled_from([100, 1000, 10**4, 10**6])


# --- laws ---------------------------------------------------------------------------------------------------------


def density(theta: NDArray, n: int) -> NDArray:
    """Γ(n/2)/(Γ((n − 1)/2) √π) sinⁿ⁻²θ, the constant by that which makes the integral 1."""
    near = np.clip(math.pi / 2 + np.array([-1.0, 1.0]) * 40 / math.sqrt(n), 0, math.pi)
    x, w = quadrature(*near)
    return np.exp((n - 2) * np.log(np.sin(theta))) / np.sum(w * np.exp((n - 2) * np.log(np.sin(x))))


def quadrature(low: float, high: float) -> tuple[NDArray, NDArray]:
    """Gauss-Legendre nodes and weights of an interval."""
    x, w = np.polynomial.legendre.leggauss(300)
    return low + (high - low) * (1 + x) / 2, (high - low) * w / 2


def below(theta: float, n: int) -> float:
    """P(Θ ≤ θ)."""
    x, w = quadrature(max(0.0, min(theta, math.pi / 2) - 40 / math.sqrt(n)), theta)
    return float(np.sum(w * density(x, n)))


@st.composite
def of_angle(draw: st.DrawFn) -> dict[str, Any]:
    """A dimension, and an angle where there is mass."""
    n = draw(DIMENSIONS)
    z = draw(st.floats(-3, 3))
    return {"n": n, "theta": float(np.clip(math.pi / 2 + z / math.sqrt(n), 0.01, math.pi - 0.01))}


def law_of_angle(n: Any, theta: float = 1.0) -> tuple:
    law = angles.angle(n)
    return (
        law.pdf(theta),
        law.cdf(theta),
        law.sf(theta),
        law.isf(law.sf(theta)),
        law.mean(),
        law.var(),
        law.entropy(),
    )


def angle_by_quadrature(n: int, theta: float) -> tuple:
    x, w = quadrature(max(0.0, math.pi / 2 - 40 / math.sqrt(n)), min(math.pi, math.pi / 2 + 40 / math.sqrt(n)))
    p = density(x, n)
    variance, entropy = np.sum(w * p * (x - math.pi / 2) ** 2), -np.sum(w * special.xlogy(p, p))
    at = below(theta, n)
    return density(theta, n), at, 1 - at, theta, math.pi / 2, variance, entropy


def law_of_cosine(n: Any, theta: float = 1.0) -> tuple:
    law, c = angles.cosine(n), math.cos(theta)
    return law.pdf(c), law.cdf(c), law.sf(c), law.ppf(law.cdf(c)), law.mean(), law.var()


def cosine_by_angle(n: int, theta: float) -> tuple:
    at = below(theta, n)
    return density(theta, n) / math.sin(theta), 1 - at, at, math.cos(theta), 0.0, 1 / n


@st.composite
def of_largest(draw: st.DrawFn) -> dict[str, Any]:
    """A dimension, a number of vectors, and an angle to the nearer end of a line."""
    arguments = draw(of_angle())
    return {**arguments, "count": draw(st.sampled_from([2, 3, 10, 1000]))}


def law_of_largest(n: Any, count: Any, theta: float = 1.0) -> tuple:
    law, c = angles.largest_cosine(n, count), abs(math.cos(theta))
    return law.cdf(c), law.sf(c)


def largest_by_angle(n: int, count: int, theta: float) -> tuple:
    within = (1 - 2 * below(min(theta, math.pi - theta), n)) ** (count * (count - 1) / 2)
    return within, 1 - within


# --- vectors ------------------------------------------------------------------------------------------------------


@st.composite
def two_vectors(draw: st.DrawFn) -> dict[str, Any]:
    """Vectors of any scale, along the last of one or two axes."""
    n, count = draw(sizes(1, 5)), draw(sizes(1, 3))
    given = {"scales": (1.0, 1e-300, 1e300, 1e-20), "dtypes": ("float64", "float32", "float16")}
    pair = {"x": draw(arrays((count, n), **given)), "y": draw(arrays((count, n), **given))}
    return {name: x + (x == 0).all(-1, keepdims=True) for name, x in pair.items()}


def by_lagrange(x: NDArray, y: NDArray) -> NDArray:
    """atan2(|x ∧ y|, x·y), and |x ∧ y|² the sum of all (x_i y_j − x_j y_i)², i < j."""
    x, y = (
        np.asarray(v, "longdouble") / np.abs(np.asarray(v, "longdouble")).max(-1, keepdims=True) for v in (x, y)
    )
    wedge = x[..., :, None] * y[..., None, :]
    wedge = wedge - np.swapaxes(wedge, -1, -2)
    return np.arctan2(np.sqrt((wedge**2).sum((-2, -1)) / 2), (x * y).sum(-1)).astype("float64")


def all_pairs(vectors: NDArray) -> NDArray:
    rows, columns = np.triu_indices(len(vectors), 1)
    return by_lagrange(vectors[rows], vectors[columns])


def with_a_zero(x: Any) -> Any:
    """A vector without direction among them."""
    x = np.array(x, "float64")
    x[-1] = 0
    return x


def not_finite(x: Any) -> Any:
    """NaN in one place."""
    x = np.array(x, "float64")
    x[..., -1] = np.nan
    return x


NO_VECTORS = (*NO_TENSOR, with_a_zero, not_finite, always(1.0), always([]), always(True))


# --- dimensions ---------------------------------------------------------------------------------------------------


@st.composite
def projections(draw: st.DrawFn) -> dict[str, Any]:
    """Points, a distortion and how often it may be missed."""
    points, distortion = draw(st.sampled_from([2, 3, 100, 10**6, 10**12])), draw(st.floats(0.1, 0.99))
    return {"points": points, "distortion": distortion, "failure": draw(st.none() | st.floats(1e-9, 1.0))}


def least_dimension(points: int, distortion: float, failure: float | None) -> int:
    """The smallest k with N(N − 1)/2 · P(|χ²_k/k − 1| > ε) ≤ δ, by doubling and halving."""
    allowed = (1 / points if failure is None else failure) / (points * (points - 1) / 2)

    def holds(k: int) -> bool:
        low, high = stats.chi2.cdf(k * (1 - distortion), k), stats.chi2.sf(k * (1 + distortion), k)
        return low + high <= allowed

    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def closed_form(points: int, distortion: float) -> int:
    return math.ceil(24 * math.log(points) / distortion**2)


def most_vectors(n: int, tolerance: float) -> float:
    """The logarithm of the largest N with N(N − 1)/2 · P(|cos Θ| > t) < 1, or of n."""
    expected = below(math.acos(tolerance), n)  # half of P: N(N − 1) times this must be below 1
    if expected < 1e-30:
        return max(-math.log(expected) / 2, math.log(n))
    N = max(1, int((1 + math.sqrt(1 + 4 / expected)) / 2) - 3)
    while (N + 1) * N * expected < 1:
        N += 1
    return max(math.log(N), math.log(n))


def only(strategy: st.SearchStrategy[dict[str, Any]], *names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the arguments."""
    return strategy.map(lambda arguments: {name: arguments[name] for name in names})


def tails(n_and_theta: Callable = of_angle) -> st.SearchStrategy[dict[str, Any]]:
    """A dimension, and a tolerance that not all pairs of vectors keep."""
    return n_and_theta().map(
        lambda at: {"n": min(at["n"], 10**4), "tolerance": min(0.9, abs(math.cos(at["theta"])) + 0.01)}
    )


WRONG_PROJECTION = {"points": NO_DIMENSION, "distortion": (*NO_FRACTION, always([0.1]))}

CASES = [
    Case(law_of_angle, of_angle(), angle_by_quadrature, {"n": NO_DIMENSION}, 1e-9, of=("angle",)),
    Case(law_of_cosine, of_angle(), cosine_by_angle, {"n": NO_DIMENSION}, 1e-9, of=("cosine",)),
    Case(
        law_of_largest,
        of_largest(),
        largest_by_angle,
        {"n": NO_DIMENSION, "count": NO_DIMENSION},
        1e-9,
        of=("largest_cosine",),
    ),
    Case(
        angles.angle_between, two_vectors(), by_lagrange, {"x": NO_VECTORS, "y": (*NO_VECTORS, longer(-1))}, 1e-14
    ),
    Case(
        angles.pairwise_angles,
        two_vectors().map(lambda given: {"vectors": given["x"]}),
        all_pairs,
        {"vectors": (*NO_VECTORS, flatter)},
        1e-14,
    ),
    Case(
        angles.dimension_for,
        projections(),
        least_dimension,
        {**WRONG_PROJECTION, "failure": tuple(w for w in NO_FRACTION if w.__name__ not in ("1", "None"))},
        0,
    ),
    Case(angles.dimension_bound, only(projections(), "points", "distortion"), closed_form, WRONG_PROJECTION, 0),
    Case(angles.log_directions_within, tails(), most_vectors, {"n": NO_DIMENSION, "tolerance": NO_FRACTION}, 1e-9),
]

EXEMPT: dict[str, str] = {}
