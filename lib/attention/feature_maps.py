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
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import non_negative_integer, positive_integer
from .._backend import custom_gradient, float32_or_wider, follows_forward, is_known, largest_along
from .._tensors import as_tensor

__all__ = [
    "FEATURE_MAPS",
    "NOTHING",
    "FeatureMap",
    "elu_plus_one",
    "exact_map",
    "find_feature_map",
    "highest",
    "key_features",
    "largest",
    "loaded_feature_map",
    "mapped",
    "one_plus_cosine",
    "query_features",
    "random_features",
    "saved_feature_map",
    "taylor",
    "within_range",
]

Tensor = Any


@keras.saving.register_keras_serializable(package="proof_by_running")
@dataclass(frozen=True)
class FeatureMap:
    """A map φ whose products φ(q)ᵀφ(k) are never negative.

    A plain function, or a layer with weights of its own, does as well where a feature map is asked for, if all of
    its features are non-negative, which is checked. Wrap it in this class to promise that the products are
    non-negative though a feature may not be.

    Attributes:
        apply: x (..., dim) → features (..., features), or their logarithms.
        logarithmic: Whether ``apply`` returns logarithms, all finite. Their exponentials are then taken relative to
            the largest one so far, so that none overflows and none is lost that counts.
        name: What tells it from all other maps; only for a map without weights. Its features are not kept for the
            gradient but computed anew, tile by tile; those of a map without a name are kept.

    A layer with such a map can be saved if ``apply`` is a Keras layer, comes from :func:`random_features`, or is
    registered by ``keras.saving.register_keras_serializable``.

    Example:
        >>> shifted = FeatureMap(lambda x: ops.concatenate([2 * ops.ones_like(x), ops.tanh(x)], axis=-1))
        >>> tuple(shifted.apply(np.zeros((5, 3), "float32")).shape)
        (5, 6)
    """

    apply: Callable[[Tensor], Tensor]
    logarithmic: bool = False
    name: str | None = None

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this map; raises ValueError if no file can hold ``apply``."""
        return {"apply": _serialized(self.apply), "logarithmic": self.logarithmic, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureMap:
        """Returns the map that has this configuration."""
        return cls(**{**config, "apply": keras.saving.deserialize_keras_object(config["apply"])})


def saved_feature_map(given: Any) -> Any:
    """What a file holds of the argument ``feature_map``: None or a name as it is, else how Keras rebuilds it.

    Raises:
        ValueError: It is a function, or has one, that Keras cannot rebuild, since it is not registered.

    Example:
        >>> saved_feature_map("taylor"), saved_feature_map(taylor)["config"]
        ('taylor', 'proof_by_running>taylor')
    """
    return given if given is None or isinstance(given, str) else _serialized(given)


def loaded_feature_map(saved: Any) -> Any:
    """The argument ``feature_map`` of which :func:`saved_feature_map` is kept in a file.

    Example:
        >>> loaded_feature_map(saved_feature_map(taylor)) is taylor
        True
    """
    return keras.saving.deserialize_keras_object(saved) if isinstance(saved, dict) else saved


def _serialized(given: Any) -> dict[str, Any]:
    kind = given if isinstance(given, types.FunctionType) else type(given)
    registered = keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is kind
    if not isinstance(given, keras.layers.Layer) and not registered:
        raise ValueError(
            f"feature_map must be a name of FEATURE_MAPS, None, a Keras layer or of a function that is registered "
            f"by keras.saving.register_keras_serializable, for the layer to be saved, got {given!r}"
        )
    return keras.saving.serialize_keras_object(given)


@keras.saving.register_keras_serializable(package="proof_by_running")
def elu_plus_one(x: Tensor) -> Tensor:
    """elu(x) + 1, which is x + 1 above 0 and eˣ below: positive, shape kept (..., dim). Its slope at 0 is 1.

    Args:
        x: Any float tensor, (..., dim).

    Source: Katharopoulos et al. 2020, equation 7.

    Example:
        >>> [round(float(y), 3) for y in elu_plus_one(np.array([-1.0, 0.0, 2.0], "float32"))]
        [0.368, 1.0, 3.0]
    """

    @custom_gradient
    def apply(x: Tensor) -> tuple[Tensor, Callable]:
        slope = _slope(x)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            if upstream is None:
                return args[0] * slope
            return upstream * _slope(args[0])  # torch passes it by name, after the arguments, which have a history

        return ops.maximum(x + 1, slope), gradient  # eˣ ≥ x + 1

    x = as_tensor("x", x)
    return ops.where(x > 0, x + 1, ops.exp(ops.where(x > 0, 0, x))) if follows_forward((x,)) else apply(x)


def _slope(x: Tensor) -> Tensor:
    return ops.exp(ops.minimum(x, 0))


def _log_elu_plus_one(x: Tensor) -> Tensor:
    """The logarithm of :func:`elu_plus_one`, which underflows nowhere."""
    return ops.where(x > 0, ops.log1p(ops.where(x > 0, x, 0)), x)


@keras.saving.register_keras_serializable(package="proof_by_running")
def one_plus_cosine(x: Tensor) -> Tensor:
    """[1; x/‖x‖], so that the product of two is 1 + cos ≥ 0. Shape (..., dim) → (..., dim + 1).

    The direction is a millionth shorter than 1, a hundredth in half precision, so that no product rounds to below
    0. The direction of 0 is 0.

    Args:
        x: Any float tensor, (..., dim), of any length.

    Raises:
        ValueError: ``x`` is no such tensor.

    Source: article 7546, which takes it not to be of factored form; it is.

    Example:
        >>> opposite = one_plus_cosine(np.array([[3.0, 4.0], [-3.0, -4.0]], "float32"))
        >>> [round(float(y), 4) for y in ops.matmul(opposite, opposite[0])]
        [2.0, 0.0]
    """
    x = _vectors(x)
    wide = float32_or_wider(x)
    size = largest(wide)  # without which squares overflow, or vanish
    wide = wide / ops.where(size > 0, size, 1)
    squares = ops.sum(ops.square(wide), axis=-1, keepdims=True)
    shorter = 1 - (1e-2 if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else 1e-6)
    direction = ops.cast(wide * shorter * ops.rsqrt(ops.where(squares > 0, squares, 1)), x.dtype)
    return ops.concatenate([ops.ones_like(direction[..., :1]), direction], axis=-1)


def _vectors(x: Tensor) -> Tensor:
    """The tensor, if it has an axis of features."""
    x = as_tensor("x", x)
    if not len(x.shape):
        raise ValueError("x must have shape (..., dim), got ()")
    return x


@keras.saving.register_keras_serializable(package="proof_by_running")
def taylor(x: Tensor) -> Tensor:
    """[1; x; x⊗x/√2], so that the product of two is 1 + qᵀk + (qᵀk)²/2 ≥ ½. Shape (..., d) → (..., 1 + d + d²).

    Args:
        x: Any float tensor, (..., d).

    Raises:
        ValueError: ``x`` is no such tensor.

    Source: Su Jianlin, https://kexue.fm/archives/7919; Arora et al. 2024 (arXiv 2402.18668).

    Example:
        >>> x = taylor(np.array([0.5, 1.0], "float32"))
        >>> float(ops.sum(x * x))  # 1 + 1.25 + 1.25²/2
        3.03125
    """
    x = _vectors(x)
    pairs = ops.expand_dims(x, -1) * ops.expand_dims(x, -2) * math.sqrt(0.5)
    pairs = ops.reshape(pairs, (*ops.shape(x)[:-1], x.shape[-1] ** 2))
    return ops.concatenate([ops.ones_like(x[..., :1]), x, pairs], axis=-1)


def random_features(
    dim: int, count: int, *, seed: int | np.random.Generator | None = 0, orthogonal: bool = True
) -> FeatureMap:
    """FAVOR+: positive random features e^{ωᵀx − ‖x‖²/2}/√count, whose products are e^{qᵀk} on average over ω.

    Args:
        dim: Size of a query and of a key.
        count: Number of features, at least 1.
        seed: Seed of the directions ω, which are drawn once, in NumPy, so equal on every backend: an integer of at
            least 0, a generator, or None for other ones each time.
        orthogonal: Whether each ``dim`` directions in a row are orthogonal, which lowers the variance; their
            lengths are those of Gaussian vectors either way.

    Returns:
        A logarithmic :class:`FeatureMap`, (..., dim) → (..., count).

    Raises:
        ValueError: ``dim`` or ``count`` is not a positive integer, or ``seed`` is none of the three.

    Source: Choromanski et al. 2020 (arXiv 2009.14794), lemma 1 and section 2.4.

    Example:
        >>> x = np.full((1, 4), 0.3, "float32")
        >>> features = ops.exp(random_features(4, 4096).apply(x))
        >>> abs(float(ops.sum(features * features)) - math.exp(0.36)) < 0.05
        True
    """
    dim, count = positive_integer("dim", dim), positive_integer("count", count)
    if seed is not None and not isinstance(seed, np.random.Generator):
        seed = non_negative_integer("seed", seed)
    apply = _RandomFeatures(dim, count, seed, bool(orthogonal))
    return FeatureMap(apply, logarithmic=True, name=f"random {zlib.crc32(apply.omega.tobytes())}")


@keras.saving.register_keras_serializable(package="proof_by_running", name="RandomFeatures")
class _RandomFeatures:
    """The logarithms of :func:`random_features`."""

    def __init__(self, dim: int, count: int, seed: int | np.random.Generator | None, orthogonal: bool):
        self.dim, self.count, self.seed, self.orthogonal = dim, count, seed, orthogonal
        rng = np.random.default_rng(seed)
        omega = rng.standard_normal((-(-count // dim), dim, dim))
        if orthogonal:
            lengths = np.linalg.norm(omega, axis=-1, keepdims=True)
            Q, R = np.linalg.qr(omega)
            signs = np.sign(np.diagonal(R, axis1=1, axis2=2))  # without them Q is not uniform
            omega = np.swapaxes(Q * signs[:, None, :], 1, 2) * lengths
        self.omega = omega.reshape(-1, dim)[:count].T

    def __call__(self, x: Tensor) -> Tensor:
        """(..., dim) → (..., count)."""
        x = as_tensor("x", x)
        if x.shape[-1] != self.dim:
            raise ValueError(f"feature_map must be for dim {x.shape[-1]}, got random features for dim {self.dim}")
        squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return ops.matmul(x, ops.cast(self.omega, x.dtype)) - squares / 2 - math.log(self.count) / 2

    def get_config(self) -> dict[str, Any]:
        """Returns what the directions are drawn by."""
        if not isinstance(self.seed, int):
            raise ValueError(f"seed of random_features must be an integer for them to be saved, got {self.seed!r}")
        return {"dim": self.dim, "count": self.count, "seed": self.seed, "orthogonal": self.orthogonal}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _RandomFeatures:
        """Returns the features that have this configuration."""
        return cls(**config)


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
_ELU_PLUS_ONE, _RELU = FeatureMap(elu_plus_one, name="elu+1"), FeatureMap(ops.relu, name="relu")
_ONE_PLUS_COSINE, _TAYLOR = FeatureMap(one_plus_cosine, name="1+cos"), FeatureMap(taylor, name="taylor")
_EXP, _PLAIN = FeatureMap(_identity, logarithmic=True, name="exp"), FeatureMap(_identity, name="none")
_LOG_ELU_PLUS_ONE = FeatureMap(_log_elu_plus_one, logarithmic=True, name="elu+1")


def find_feature_map(given: Any, dim: int, signed: bool = False) -> FeatureMap:
    """The feature map that an argument means.

    Args:
        given: A name of :data:`FEATURE_MAPS`, a :class:`FeatureMap`, a function, or None for φ(x) = x.
        dim: Size of a query and of a key.
        signed: Whether a function may have negative features; None is one that has. If not, it gives NaN in place
            of a negative feature, for compiled code, where no error can be raised for a value.

    Raises:
        ValueError: There is no such map.

    Example:
        >>> find_feature_map("elu+1", 64).apply is elu_plus_one
        True
    """
    if isinstance(given, FeatureMap) and callable(given.apply):
        return given
    if isinstance(given, str) and given in FEATURE_MAPS:
        return FEATURE_MAPS[given](dim)
    if given is None and signed:
        return _PLAIN
    if not callable(given):
        names = ", ".join(map(repr, FEATURE_MAPS))
        raise ValueError(
            f"feature_map must be one of {names}, a function, a FeatureMap of a function, or, unless normalize is "
            f"'sum', None, got {given!r}"
        )
    return FeatureMap(given if signed else lambda x: _not_negative(given(x)))


def _not_negative(features: Any) -> Tensor:
    features = _as_features(features)
    if 0 in features.shape:
        return features  # which has no least
    least = ops.stop_gradient(ops.min(features))
    if is_known(least) and float(least) < 0:
        raise ValueError(
            f"feature_map must give non-negative features, or weights that are divided by their sum mean nothing; "
            f"got {float(least):.3g}. Wrap it in FeatureMap if all products are non-negative, or take "
            f"normalize=None or 'rms'"
        )
    return ops.where(features < 0, math.nan, features)


def mapped(feature_map: FeatureMap, q: Tensor, k: Tensor) -> tuple[FeatureMap, Tensor, Tensor]:
    """Queries and keys for a form whose gradient is its own: a map without a name is applied before.

    Its weights then have gradients as the backend finds them, and may change from call to call.

    Args:
        feature_map: φ.
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, keys, heads, dim).

    Returns:
        φ, q and k as they are; or, for a map without a name, the identity and the features, or their logarithms.

    Raises:
        ValueError: The map does not give (..., features).

    Example:
        >>> x = np.ones((1, 3, 1, 2), "float32")
        >>> phi, q, k = mapped(FeatureMap(lambda x: ops.concatenate([x, x], axis=-1)), x, x)
        >>> phi.name, tuple(q.shape)
        ('none', (1, 3, 1, 4))
    """
    if feature_map.name is not None:
        return feature_map, q, k
    return _EXP if feature_map.logarithmic else _PLAIN, _features(feature_map, q), _features(feature_map, k)


def _as_features(given: Any) -> Tensor:
    try:
        return as_tensor("features", given, kinds="iuf")
    except ValueError as error:
        raise ValueError(f"feature_map must give a tensor of numbers (..., features): {error}") from None


def _features(feature_map: FeatureMap, x: Tensor) -> Tensor:
    features, expected = _as_features(feature_map.apply(float32_or_wider(x))), tuple(x.shape[:-1])
    got = tuple(features.shape)
    if len(got) != len(x.shape) or any(
        None not in (g, e) and g != e for g, e in zip(got[:-1], expected, strict=True)
    ):
        raise ValueError(f"feature_map must keep all axes but the last of {tuple(x.shape)}, got features {got}")
    return float32_or_wider(features)


def exact_map(feature_map: FeatureMap) -> FeatureMap:
    """The same map by its logarithms, if it has a form by them that vanishes nowhere; else the map itself.

    Example:
        >>> exact_map(find_feature_map("elu+1", 3)).logarithmic, exact_map(find_feature_map("relu", 3)).logarithmic
        (True, False)
    """
    return _LOG_ELU_PLUS_ONE if feature_map == _ELU_PLUS_ONE else feature_map


def within_range(*x: Tensor) -> Tensor:
    """Whether products of features of elu + 1 neither vanish nor overflow in float32, a boolean scalar.

    Example:
        >>> bool(within_range(np.array([1.0, -30.0], "float32"))), bool(within_range(np.array([-50.0], "float32")))
        (True, False)
    """
    fine = (
        ops.logical_and(ops.min(y, initial=0) > -36, ops.max(y, initial=0) < 1e12) for y in map(float32_or_wider, x)
    )
    return functools.reduce(ops.logical_and, fine)


def largest(x: Tensor) -> Tensor:
    """The largest absolute value along the last axis, (..., 1), without a gradient.

    Example:
        >>> float(largest(np.array([1.0, -3.0], "float32"))[0])
        3.0
    """
    return ops.stop_gradient(largest_along(ops.abs(x), -1, keepdims=True))


#: Below every logarithm of a feature: the least number of float32.
NOTHING = float(np.finfo("float32").min)


def query_features(
    feature_map: FeatureMap, q: Tensor, normalize: str | None = None
) -> tuple[Tensor, Tensor | None]:
    """Features of queries, relative to the largest of each query where it cancels: weights then vanish late.

    Args:
        feature_map: φ.
        q: Queries, (batch, time, heads, dim), any float type.
        normalize: As in :func:`lib.attention.linear_attention`.

    Returns:
        φ(q), (batch, time, heads, features), float32 or wider; and, of a logarithmic map, the logarithm of what was
        taken out of each query's, (batch, time, heads, 1), else None.

    Example:
        >>> Q, level = query_features(find_feature_map("exp", 2), np.array([[[[5.0, 5.0]]]], "float32"))
        >>> ops.convert_to_numpy(Q).ravel().tolist(), float(level[0, 0, 0, 0])
        ([1.0, 1.0], 5.0)
    """
    q = feature_map.apply(float32_or_wider(q))
    if not feature_map.logarithmic:
        # elu + 1 is known to be in range here
        return q if normalize is None or feature_map.apply is elu_plus_one else _to_size(q), None
    level = ops.stop_gradient(largest_along(q, -1, keepdims=True))
    return ops.exp(q - level), level


def _to_size(q: Tensor) -> Tensor:
    size = largest(q)
    return q / ops.where(size > 0, size, 1)


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
    best = ops.stop_gradient(largest_along(logarithms, -1))
    return best if mask is None else ops.where(mask[:, :, None] > 0, best, NOTHING)


def _running_max(x: Tensor) -> Tensor:
    """The largest entry so far along axis 1 of (batch, time, heads), in log₂ time steps."""
    shift, time = 1, x.shape[1]
    while shift < time:
        x = ops.concatenate([x[:, :shift], ops.maximum(x[:, shift:], x[:, :-shift])], axis=1)
        shift *= 2
    return x
