"""Feature maps: functions φ whose products φ(q)ᵀφ(k) are the weights that attention gives to its keys.

Softmax attention weighs a key by exp(qᵀk), a product of infinitely many features. Any other φ with products that
are not negative makes an attention too, and with finitely many features its cost is linear in the number of tokens
(:func:`lib.attention.linear_attention`). There is no 1/√d in a map; scale queries and keys before, if wanted.

Source: Katharopoulos et al. 2020 (arXiv 2006.16236); Choromanski et al. 2020 (arXiv 2009.14794); Su Jianlin,
https://kexue.fm/archives/7546.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from .._arguments import positive_integer
from .._backend import float32_or_wider, is_known

__all__ = [
    "FEATURE_MAPS",
    "NOTHING",
    "FeatureMap",
    "elu_plus_one",
    "find_feature_map",
    "highest",
    "key_features",
    "one_plus_cosine",
    "query_features",
    "random_features",
    "taylor",
]

Tensor = Any


class FeatureMap(NamedTuple):
    """A map φ whose products φ(q)ᵀφ(k) are never negative.

    A plain function does as well where a feature map is asked for, if all of its features are non-negative, which
    is checked. Wrap it in this class to promise that the products are non-negative though a feature may not be.

    Attributes:
        apply: x (..., dim) → features (..., features), or their logarithms.
        logarithmic: Whether ``apply`` returns logarithms. Their exponentials are then taken relative to the
            largest one so far, so that none overflows and none is lost that counts.

    Example:
        >>> shifted = FeatureMap(lambda x: ops.concatenate([2 * ops.ones_like(x), ops.tanh(x)], axis=-1))
        >>> tuple(shifted.apply(np.zeros((5, 3), "float32")).shape)
        (5, 6)
    """

    apply: Callable[[Tensor], Tensor]
    logarithmic: bool = False


def elu_plus_one(x: Tensor) -> Tensor:
    """elu(x) + 1, which is x + 1 above 0 and eˣ below: positive, shape kept (..., dim). Its slope at 0 is 1.

    Args:
        x: Any float tensor, (..., dim).

    Source: Katharopoulos et al. 2020, equation 7.

    Example:
        >>> [round(float(y), 3) for y in elu_plus_one(np.array([-1.0, 0.0, 2.0], "float32"))]
        [0.368, 1.0, 3.0]
    """

    @ops.custom_gradient
    def apply(x: Tensor) -> tuple[Tensor, Callable]:
        slope = ops.exp(ops.minimum(x, 0))

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            g = args[0] if upstream is None else upstream  # torch passes it by name, after the arguments
            return g * slope

        return ops.maximum(x + 1, slope), gradient  # eˣ ≥ x + 1

    return apply(ops.convert_to_tensor(x))


def one_plus_cosine(x: Tensor) -> Tensor:
    """[1; x/‖x‖], so that the product of two is 1 + cos ≥ 0. Shape (..., dim) → (..., dim + 1).

    The direction is a millionth shorter than 1, so that no product rounds to below 0. The direction of 0 is 0.

    Args:
        x: Any float tensor, (..., dim).

    Source: article 7546, which takes it not to be of factored form; it is.

    Example:
        >>> opposite = one_plus_cosine(np.array([[3.0, 4.0], [-3.0, -4.0]], "float32"))
        >>> [round(float(y), 4) for y in ops.matmul(opposite, opposite[0])]
        [2.0, 0.0]
    """
    x = ops.convert_to_tensor(x)
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    direction = x * (1 - 1e-6) * ops.rsqrt(ops.where(squares > 0, squares, 1))
    return ops.concatenate([ops.ones_like(squares), direction], axis=-1)


def taylor(x: Tensor) -> Tensor:
    """[1; x; x⊗x/√2], so that the product of two is 1 + qᵀk + (qᵀk)²/2 ≥ ½. Shape (..., d) → (..., 1 + d + d²).

    Args:
        x: Any float tensor, (..., d).

    Source: Su Jianlin, https://kexue.fm/archives/7919; Arora et al. 2024 (arXiv 2402.18668).

    Example:
        >>> x = taylor(np.array([0.5, 1.0], "float32"))
        >>> float(ops.sum(x * x))  # 1 + 1.25 + 1.25²/2
        3.03125
    """
    x = ops.convert_to_tensor(x)
    pairs = ops.expand_dims(x, -1) * ops.expand_dims(x, -2) * math.sqrt(0.5)
    pairs = ops.reshape(pairs, (*ops.shape(x)[:-1], x.shape[-1] ** 2))
    return ops.concatenate([ops.ones_like(x[..., :1]), x, pairs], axis=-1)


def random_features(dim: int, count: int, seed: int = 0, orthogonal: bool = True) -> FeatureMap:
    """FAVOR+: positive random features e^{ωᵀx − ‖x‖²/2}/√count, whose products are e^{qᵀk} on average over ω.

    Args:
        dim: Size of a query and of a key.
        count: Number of features, at least 1.
        seed: Seed of the directions ω, which are drawn once, in NumPy: equal on every backend.
        orthogonal: Whether each ``dim`` directions in a row are orthogonal, which lowers the variance; their
            lengths are those of Gaussian vectors either way.

    Returns:
        A logarithmic :class:`FeatureMap`, (..., dim) → (..., count).

    Raises:
        ValueError: ``dim`` or ``count`` is not a positive integer.

    Source: Choromanski et al. 2020 (arXiv 2009.14794), lemma 1 and section 2.4.

    Example:
        >>> x = np.full((1, 4), 0.3, "float32")
        >>> features = ops.exp(random_features(4, 4096).apply(x))
        >>> abs(float(ops.sum(features * features)) - math.exp(0.36)) < 0.05
        True
    """
    dim, count = positive_integer("dim", dim), positive_integer("count", count)
    rng = np.random.default_rng(seed)
    omega = rng.standard_normal((-(-count // dim), dim, dim))
    if orthogonal:
        lengths = np.linalg.norm(omega, axis=-1, keepdims=True)
        Q, R = np.linalg.qr(omega)
        signs = np.sign(np.diagonal(R, axis1=1, axis2=2))  # without them Q is not uniform
        omega = np.swapaxes(Q * signs[:, None, :], 1, 2) * lengths
    omega = omega.reshape(-1, dim)[:count].T

    def logarithms(x: Tensor) -> Tensor:
        x = ops.convert_to_tensor(x)
        if x.shape[-1] != dim:
            raise ValueError(f"feature_map must be for dim {x.shape[-1]}, got random features for dim {dim}")
        squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return ops.matmul(x, ops.cast(omega, x.dtype)) - squares / 2 - math.log(count) / 2

    return FeatureMap(logarithms, logarithmic=True)


@functools.cache
def _favor(dim: int) -> FeatureMap:
    """The random features behind the name "favor+": dim · ln dim of them, as the Performer has."""
    return random_features(dim, max(1, round(dim * math.log(dim))))


def _identity(x: Tensor) -> Tensor:
    return x


#: The feature maps that have a name. "favor+" is :func:`random_features` with d ln d features and seed 0.
FEATURE_MAPS: dict[str, Callable[[int], FeatureMap]] = {
    "elu+1": lambda _: _ELU_PLUS_ONE,
    "exp": lambda _: _EXP,
    "relu": lambda _: _RELU,
    "1+cos": lambda _: _ONE_PLUS_COSINE,
    "taylor": lambda _: _TAYLOR,
    "favor+": _favor,
}
_ELU_PLUS_ONE, _RELU = FeatureMap(elu_plus_one), FeatureMap(ops.relu)
_ONE_PLUS_COSINE, _TAYLOR = FeatureMap(one_plus_cosine), FeatureMap(taylor)
_EXP, _PLAIN = FeatureMap(_identity, logarithmic=True), FeatureMap(_identity)


def find_feature_map(given: Any, dim: int, signed: bool = False, examples: tuple[Tensor, ...] = ()) -> FeatureMap:
    """The feature map that an argument means.

    Args:
        given: A name of :data:`FEATURE_MAPS`, a :class:`FeatureMap`, a function, or None for φ(x) = x.
        dim: Size of a query and of a key.
        signed: Whether a function may have negative features; None is one that has.
        examples: Queries and keys, (..., dim), for which the features of a function are looked at.

    Returns:
        The map. If ``signed`` is false, a function gives NaN in place of a negative feature, for compiled code,
        where no error can be raised for a value.

    Raises:
        ValueError: There is no such map, or a function has a negative feature though ``signed`` is false.

    Example:
        >>> find_feature_map("elu+1", 64).apply is elu_plus_one
        True
    """
    if isinstance(given, FeatureMap):
        return given
    if isinstance(given, str) and given in FEATURE_MAPS:
        return FEATURE_MAPS[given](dim)
    if given is None and signed:
        return _PLAIN
    if not callable(given):
        names = ", ".join(map(repr, FEATURE_MAPS))
        raise ValueError(
            f"feature_map must be one of {names}, a function, a FeatureMap, or, unless normalize is 'sum', None, "
            f"got {given!r}"
        )
    if signed:
        return FeatureMap(given)
    for x in examples:
        least = ops.min(given(float32_or_wider(x)))
        if is_known(least) and float(least) < 0:
            raise ValueError(
                f"feature_map must give non-negative features, or weights that are divided by their sum mean "
                f"nothing; got {float(least):.3g}. Wrap it in FeatureMap if all products are non-negative, or take "
                f"normalize=None or 'rms'"
            )
    return _checked_when_compiled(given)


@functools.lru_cache(maxsize=64)
def _checked_when_compiled(function: Callable) -> FeatureMap:
    """The function, with NaN in place of negative features, for compiled code, where no error can be raised."""

    def apply(x: Tensor) -> Tensor:
        features = function(x)
        return ops.where(features < 0, math.nan, features)

    return FeatureMap(apply)


#: Below every logarithm of a feature.
NOTHING = -1e30


def query_features(feature_map: FeatureMap, q: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features of queries; the exponentials of logarithmic ones are taken relative to the largest of each query.

    Args:
        feature_map: φ.
        q: Queries, (batch, time, heads, dim), any float type.

    Returns:
        φ(q), (batch, time, heads, features), float32 or wider; and the logarithm of what was taken out of each
        query's, (batch, time, heads, 1), or None.

    Example:
        >>> Q, level = query_features(find_feature_map("exp", 2), np.array([[[[5.0, 5.0]]]], "float32"))
        >>> ops.convert_to_numpy(Q).ravel().tolist(), float(level[0, 0, 0, 0])
        ([1.0, 1.0], 5.0)
    """
    q = feature_map.apply(float32_or_wider(q))
    if not feature_map.logarithmic:
        return q, None
    level = ops.stop_gradient(ops.max(q, axis=-1, keepdims=True))
    return ops.exp(q - level), level


def key_features(
    feature_map: FeatureMap, k: Tensor, mask: Tensor | None, level: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Features of keys; the exponentials of logarithmic ones are taken relative to the largest so far.

    When a larger one comes, a state of the keys before must be divided by the quotient of the two. All levels
    cancel in the end, so none has a gradient.

    Args:
        feature_map: φ.
        k: Keys, (batch, time, heads, dim), any float type.
        mask: 1 for keys that count and 0 for others, (batch, time), or None.
        level: The largest logarithm before the first key, (batch, heads); :data:`NOTHING` if there is none.

    Returns:
        φ(k), (batch, time, heads, features), float32 or wider, 0 where masked; and the logarithm of what was taken
        out of each key's, (batch, time, heads), or None.

    Example:
        >>> k, level = np.array([2.0, 1.0, 3.0], "float32").reshape(1, 3, 1, 1), np.full((1, 1), NOTHING, "float32")
        >>> K, so_far = key_features(find_feature_map("exp", 1), k, None, level)
        >>> [round(float(x), 3) for x in K[0, :, 0, 0]], ops.convert_to_numpy(so_far).ravel().tolist()
        ([1.0, 0.368, 1.0], [2.0, 2.0, 3.0])
    """
    k = feature_map.apply(float32_or_wider(k))
    seen, so_far = None if mask is None else mask[:, :, None, None], None
    if feature_map.logarithmic:
        so_far = ops.maximum(_running_max(highest(k, mask)), ops.cast(level, k.dtype)[:, None])
        k = k - so_far[..., None]
        k = ops.exp(k if seen is None else ops.where(seen > 0, k, 0))
    return k if seen is None else k * ops.cast(seen, k.dtype), so_far


def highest(logarithms: Tensor, mask: Tensor | None) -> Tensor:
    """The largest logarithm of a feature of each key, (batch, time, heads), without a gradient.

    Args:
        logarithms: (batch, time, heads, features).
        mask: As in :func:`key_features`; :data:`NOTHING` where it is 0.

    Example:
        >>> ops.convert_to_numpy(highest(np.array([[[[1.0, 4.0]]]], "float32"), None)).ravel().tolist()
        [4.0]
    """
    best = ops.stop_gradient(ops.max(logarithms, axis=-1))
    return best if mask is None else ops.where(mask[:, :, None] > 0, best, NOTHING)


def _running_max(x: Tensor) -> Tensor:
    """The largest entry so far along axis 1 of (batch, time, heads), in log₂ time steps."""
    shift, time = 1, x.shape[1]
    while shift < time:
        x = ops.maximum(x, ops.pad(x[:, :-shift], ((0, 0), (shift, 0), (0, 0)), constant_values=NOTHING))
        shift *= 2
    return x
