"""The matrix that an attention implies, whether or not it ever stands in memory, and numbers that describe it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lib.attention import double_softmax_attention, linear_attention, random_features, softmax_attention

Attend = Callable[[Any, Any, Any], Any]


def _scaled(feature_map: str, q: Any, k: Any, v: Any) -> Any:
    """Linear attention whose features see q and k divided by d^{1/4}, as the softmax sees their product by √d."""
    scale = q.shape[-1] ** -0.25
    return linear_attention(q * scale, k * scale, v, feature_map)


#: The attentions whose matrices chapter 7 looks at. The last two approximate the softmax and share its scale.
ATTENTIONS: dict[str, Attend] = {
    "softmax": softmax_attention,
    "elu + 1": linear_attention,
    "1 + cos": partial(linear_attention, feature_map="1+cos"),
    "double softmax": double_softmax_attention,
    "second order": partial(_scaled, "taylor"),
    "random features": partial(_scaled, "favor+"),
}


def matrix(attend: Attend, q: ArrayLike, k: ArrayLike) -> NDArray[np.float64]:
    """The weights W of an attention, W V = attend(Q, K, V): what it gives for values that are the unit vectors.

    Args:
        attend: a function of q, k, v, each (batch, time, heads, ·).
        q: queries of one head, (queries, dim).
        k: keys, (keys, dim).

    Returns:
        (queries, keys).

    Example:
        >>> matrix(softmax_attention, np.zeros((1, 2), "float32"), np.zeros((4, 2), "float32")).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    q, k = (np.asarray(x, "float32")[None, :, None] for x in (q, k))
    unit = np.eye(k.shape[1], dtype="float32")[None, :, None]
    return np.asarray(ops.convert_to_numpy(attend(q, k, unit))[0, :, 0], "float64")


def gaussian(time: int, dim: int, scale: float = 1.0, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Queries and keys with independent normal entries of standard deviation ``scale``, (time, dim) each.

    Example:
        >>> q, k = gaussian(512, 64, scale=2.0)
        >>> q.shape, bool(abs(q.std() - 2) < 0.05)
        ((512, 64), True)
    """
    q, k = scale * np.random.default_rng(seed).standard_normal((2, time, dim))
    return q.astype("float32"), k.astype("float32")


def rank(W: ArrayLike, tolerance: float = 1e-5) -> int:
    """The number of singular values above ``tolerance`` times the largest: what float32 can tell from zero.

    Example:
        >>> rank(np.ones((5, 5)))
        1
    """
    values = np.linalg.svd(np.asarray(W, "float64"), compute_uv=False)
    return int(np.sum(values > tolerance * values[0]))


def entropy(W: ArrayLike) -> float:
    """The mean entropy of the rows over ln n: 1 where all n keys weigh the same, 0 where one has all the weight.

    Example:
        >>> entropy(np.full((2, 4), 0.25)), entropy(np.eye(4))
        (1.0, 0.0)
    """
    W = np.asarray(W, "float64")
    logs = np.log(np.where(W > 0, W, 1))
    return float(np.mean(-np.sum(W * logs, axis=1)) / np.log(W.shape[1])) + 0.0


def largest(W: ArrayLike) -> float:
    """N times the largest weight of a row, the mean over the rows: 1 where all n keys weigh the same.

    Example:
        >>> largest(np.eye(4))
        4.0
    """
    W = np.asarray(W)
    return float(W.shape[1] * np.mean(np.max(W, axis=1)))


def portrait(attend: Attend, q: ArrayLike, k: ArrayLike) -> dict[str, float]:
    """Rank, entropy and largest weight of the matrix of an attention.

    Example:
        >>> portrait(softmax_attention, *gaussian(16, 4))["rank"]
        16
    """
    W = matrix(attend, q, k)
    return {"rank": rank(W), "entropy": entropy(W), "largest": largest(W)}


def portraits(scales: Sequence[float], time: int, dim: int) -> dict[str, list[dict[str, float]]]:
    """The portraits of all attentions, for normal queries and keys of several scales.

    Example:
        >>> [portrait["rank"] for portrait in portraits((0.5, 1.0), time=8, dim=4)["elu + 1"]]
        [4, 4]
    """
    drawn = [gaussian(time, dim, scale) for scale in scales]
    return {name: [portrait(attend, *pair) for pair in drawn] for name, attend in ATTENTIONS.items()}


def sharpest(names: Sequence[str], scales: Sequence[float], seed: int, time: int = 256, dim: int = 64) -> float:
    """The :func:`largest` weight of several attentions, at the scale where it is largest.

    Example:
        >>> sharpest(("1 + cos",), (1.0,), 0) < 2 < sharpest(("softmax",), (1.0,), 0)
        True
    """
    drawn = [gaussian(time, dim, scale, seed) for scale in scales]
    return max(largest(matrix(ATTENTIONS[name], *pair)) for name in names for pair in drawn)


def performer_error(dim: int, features: int, norm: float, orthogonal: bool, trials: int, seed: int) -> float:
    """The relative error of positive random features: √ of the mean of (estimate / e^{qᵀk} − 1)².

    Args:
        dim: of q and k, which have random directions.
        features: how many.
        norm: ‖q‖ = ‖k‖.
        orthogonal: whether the random directions are orthogonal by blocks.
        trials: independent draws of the features and of q and k.
        seed: of all of them.

    Example:
        >>> few, many = (performer_error(8, m, 1.0, False, 200, seed=0) for m in (8, 512))
        >>> many < few
        True
    """
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(trials):
        q, k = rng.standard_normal((2, dim))
        q, k = (norm * x / np.linalg.norm(x) for x in (q, k))
        logs = random_features(dim, features, seed=int(rng.integers(2**31)), orthogonal=orthogonal).apply
        a, b = (ops.convert_to_numpy(logs(x.astype("float64"))) for x in (q, k))
        errors.append(np.sum(np.exp(a.astype("float64") + b)) / np.exp(q @ k) - 1)
    return float(np.sqrt(np.mean(np.square(errors))))


def random_error(
    dim: int, features: int, norm: float, orthogonal: bool, trials: int, seed: int
) -> dict[str, float]:
    """As :func:`performer_error`. One case of a record.

    Returns:
        ``error``, and ``law``: what Proposition 7.5 says of independent features and directions of q and k.

    Example:
        >>> row = random_error(8, 64, 0.5, False, 50, seed=0)
        >>> bool(abs(row["error"] / row["law"] - 1) < 0.5)
        True
    """
    found = performer_error(dim, features, norm, orthogonal, trials, seed)
    return {"error": found, "law": performer_law(dim, features, norm)}


def performer_law(dim: int, features: int, norm: float) -> float:
    """√ of the mean of (e^{‖q+k‖²} − 1)/m over random directions of q and k of one length.

    The cosine c of two random directions has the density ∝ (1 − c²)^{(d−3)/2} of chapter 1.

    Example:
        >>> round(performer_law(64, 64, 0.5), 3)
        0.101
    """
    c = np.linspace(-1, 1, 20_001)
    log_density = (dim - 3) / 2 * np.log(np.maximum(1 - c * c, 1e-300))
    density = np.exp(log_density - log_density.max())
    return float(np.sqrt(np.sum(density * np.expm1(2 * norm**2 * (1 + c))) / np.sum(density) / features))
