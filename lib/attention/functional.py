"""Attention with and without softmax: what a token keeps of the tokens before it, and what that costs.

A query looks at all keys j and takes the weighted mean of their values,

    out_i = Σ_j sim(q_i, k_j) v_j / Σ_j sim(q_i, k_j).

Softmax attention has sim = exp(qᵀk): every pair must be looked at, n² of them. If sim(q, k) = φ(q)ᵀφ(k), the sum
over j can be done once, before any query comes, and the cost is linear in n:

    out_i = φ(q_i)ᵀS / φ(q_i)ᵀz,    S = Σ_j φ(k_j) v_jᵀ,    z = Σ_j φ(k_j).

A causal query sees j ≤ i. Then S is a state that each token rewrites, and everything that came since is another
way to rewrite it::

    S ← S + k vᵀ                        linear attention       linear_attention
    S ← γ S + k vᵀ                      a fixed decay          retention
    S ← γ_i S + k vᵀ                    a decay for each token gated_attention, with one γ a head or one a feature
    S ← S + k uᵀ, u = β (v − Sᵀk)       the delta rule         delta_rule, with or without decay

They share one skeleton, :mod:`lib.attention.chunkwise`; the one state for all queries is in
:mod:`lib.attention.bidirectional`. The maps φ are in :mod:`lib.attention.feature_maps`.

All tensors have the shape (batch, time, heads, dim). Results have the type that holds q, k and v, and sums are kept
in float32 or wider: on TensorFlow in float64 if one of them is so; Keras has no float64 on JAX, and on torch its
products are of float32 even then. Nothing is scaled by 1/√d inside, save in
:func:`softmax_attention`. Queries, keys, values and what gives a form its name come first, in this order; all else
goes by name.

A mask is boolean, or 0 and 1: True is a token that counts. What stands at the others, NaN even, reaches neither
outputs nor gradients. A query that is NaN makes its own output NaN.

:func:`lib.attention.prefill` and :func:`lib.attention.recurrent_step` go on from where a causal form is. They have
no defaults: :func:`linear_attention` is ``feature_map="elu+1", normalize="sum"``, :func:`retention` and
:func:`gated_attention` are ``feature_map=None, normalize="rms"`` with their ``log_decay``, :func:`delta_rule` is
``feature_map=None, normalize=None`` with its ``beta``.

Compiled code can raise no error for a value. There a mask that is none, a gate out of range, or a state of another
form makes that row of the batch NaN. Derivatives of any order are right where they are taken backwards; forward
mode is refused by JAX.

Source: Katharopoulos et al. 2020 (arXiv 2006.16236); Shen et al. 2018 (arXiv 1812.01243); Sun et al. 2023 (arXiv
2307.08621); Yang et al. 2023, 2024 (arXiv 2312.06635, 2406.06484, 2412.06464); Su Jianlin,
https://kexue.fm/archives/7546.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import finite, positive_integer
from .._backend import float32_or_wider, largest_along
from .._tensors import as_tensor, checked_mask, or_nan
from .arguments import checked, finite_queries, known_normalization, of_one_type, of_rank, removed, removed_tokens
from .bidirectional import full_attention, normalizer
from .chunkwise import CHUNK, chunkwise_attention, recurrent_step
from .feature_maps import NOTHING, exact_map, find_feature_map, mapped, query_features
from .tiling import shape_only

__all__ = [
    "cumulative_attention",
    "delta_rule",
    "double_softmax_attention",
    "gated_attention",
    "linear_attention",
    "recurrent_attention",
    "retention",
    "softmax_attention",
]

Tensor = Any


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    scale: float | None = None,
    dropout: Callable[[Tensor], Tensor] | None = None,
    fused: bool = False,
) -> Tensor:
    """softmax(s QKᵀ) V, the attention of the Transformer: n² scores a head.

    Args:
        q: Queries, (batch, time, heads, dim), any float type.
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        causal: Whether query i sees keys j ≤ i only; then ``keys`` is ``time``.
        mask: Keys to look at, boolean or 0 and 1, (batch, keys); None for all.
        attention_mask: Which query looks at which key, boolean or 0 and 1, (batch, time, keys); None for all.
        scale: s; None for 1/√dim.
        dropout: What the weights (batch, heads, time, keys) go through before they meet the values; not ``fused``.
        fused: Whether to call the kernel of the backend, ``keras.ops.dot_product_attention``: cuDNN, flash or
            blocked on a device that has one, in which the scores never stand in memory.

    Returns:
        (batch, time, heads, values), of the type that holds q, k and v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit; ``dropout`` is given and ``fused`` too.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1.

    Example:
        >>> q, k = np.array([[[[0.0]]]], "float32"), np.array([[[[1.0]], [[5.0]]]], "float32")
        >>> float(softmax_attention(q, k, k)[0, 0, 0, 0])
        3.0
    """
    q, k, v, mask, valid = checked(q, k, v, mask, causal)
    if fused and dropout is not None:
        raise ValueError("fused must be False with dropout, which the kernel has not, got True")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else finite("scale", scale)
    (k, v), broken, pairs = removed(mask, k, v), None, None
    if mask is not None:
        q, broken = finite_queries(q)
    if attention_mask is not None:
        shape = (*q.shape[:2], k.shape[1])
        pairs, fits = checked_mask(attention_mask, shape, name="attention_mask", to_fit="q and k")
        valid = fits if valid is None else ops.logical_and(valid, fits)
    if fused:
        out = _fused(q, k, v, scale, causal, mask, pairs)
    else:
        out = _plain(q, k, v, scale, _seen(q, causal, mask, pairs), dropout)
    out = out if broken is None else out + ops.cast(broken, out.dtype)
    return out if valid is None else or_nan(out, valid)


def _plain(
    q: Tensor, k: Tensor, v: Tensor, scale: float, seen: Tensor | None, dropout: Callable[[Tensor], Tensor] | None
) -> Tensor:
    q, k = float32_or_wider(q), float32_or_wider(k)
    scores = ops.einsum("bihd,bjhd->bhij", scale * q, k)
    if seen is None:
        weights = ops.softmax(scores)
    else:
        weights = ops.where(seen, ops.softmax(ops.where(seen, scores, NOTHING)), 0)
    weights = ops.cast(weights, v.dtype)
    return ops.einsum("bhij,bjhe->bihe", weights if dropout is None else dropout(weights), v)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, mask: Tensor | None, pairs: Tensor | None
) -> Tensor:
    dtype, values = v.dtype, v.shape[-1]
    if keras.backend.backend() == "tensorflow":  # has no kernel, and would sum float16 in float16
        q, k, v = map(float32_or_wider, (q, k, v))
    if keras.backend.backend() == "jax":  # wants values of the size of queries
        q, k, v = (_widened(x, max(q.shape[-1], values)) for x in (q, k, v))
    # On torch the kernel's own mask of what is yet to come is −∞ times the scale.
    if mask is None and pairs is None and (scale > 0 or not causal or keras.backend.backend() != "torch"):
        out = ops.dot_product_attention(q, k, v, scale=scale, is_causal=causal)
        return ops.cast(out[..., :values], dtype)
    seen = _seen(q, causal, mask, pairs)
    shape = (ops.shape(q)[0], 1, ops.shape(q)[1], ops.shape(k)[1])
    out = ops.dot_product_attention(q, k, v, scale=scale, mask=ops.broadcast_to(seen, shape))
    out = ops.where(ops.any(seen, axis=-1)[:, 0, :, None, None], out, 0)
    return ops.cast(out[..., :values], dtype)


def _widened(x: Tensor, size: int) -> Tensor:
    """With zeros behind on the last axis."""
    return x if x.shape[-1] == size else ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, size - x.shape[-1])))


def _seen(q: Tensor, causal: bool, mask: Tensor | None, pairs: Tensor | None) -> Tensor | None:
    """Which keys each query sees, (batch or 1, 1, time or 1, keys); None for all."""
    seen = None if mask is None else mask[:, None, None, :]
    if pairs is not None:
        seen = pairs[:, None] if seen is None else ops.logical_and(seen, pairs[:, None])
    if not causal:
        return seen
    position = ops.arange(ops.shape(q)[1])
    before = (position[:, None] >= position)[None, None]
    return before if seen is None else ops.logical_and(seen, before)


def double_softmax_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """A softmax over the features of Q times one over the time of K, transposed, times V: Efficient Attention.

    The weights of a query sum to 1 without a denominator. The softmax over time sees the future, so there is no
    causal form; with the feature map "exp", :func:`linear_attention` is the nearest that has one.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        mask: Keys to look at, boolean or 0 and 1, (batch, keys); None for all.

    Returns:
        (batch, time, heads, values), of the type that holds q, k and v; 0 for a row without keys.

    Raises:
        ValueError: A shape does not fit.

    Source: Shen et al. 2018 (arXiv 1812.01243).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 5, 2, 4)).astype("float32")
        >>> bool(ops.all(ops.abs(double_softmax_attention(x, x, np.ones_like(x)) - 1) < 1e-5))
        True
    """
    q, k, v, mask, valid = checked(q, k, v, mask, causal=False)
    dtype, (q, k, v) = v.dtype, (float32_or_wider(x) for x in (q, *removed(mask, k, v)))
    if mask is None:
        return ops.cast(_written_and_read(ops.softmax(q, axis=-1), ops.softmax(k, axis=1), v), dtype)
    (q, broken), seen = finite_queries(q), mask[:, :, None, None]
    q = ops.softmax(q, axis=-1)
    k = ops.where(seen, ops.softmax(ops.where(seen, k, NOTHING), axis=1), 0)
    out = ops.cast(_written_and_read(q, k, v) + broken, dtype)
    return out if valid is None else or_nan(out, valid)


def _written_and_read(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ops.einsum("bihd,bhde->bihe", q, ops.einsum("bjhd,bjhe->bhde", k, v))


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any = "elu+1",
    *,
    causal: bool = False,
    mask: Tensor | None = None,
    normalize: str | None = "sum",
    chunk: int = CHUNK,
) -> Tensor:
    """Attention with sim(q, k) = φ(q)ᵀφ(k): time and memory linear in the number of tokens.

    No ε is added to the denominator. It is a sum of non-negative weights, and where that is 0 so is the output. The
    weights of "elu+1", "exp" and "favor+" are positive: they are computed by their logarithms where they would
    vanish or overflow, and where all weights of a query vanish in float32 even so, the output is NaN.

    Args:
        q: Queries, (batch, time, heads, dim), any float type. Nothing is scaled by 1/√dim.
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        feature_map: φ: a name of :data:`FEATURE_MAPS`, a :class:`FeatureMap`, or a function (..., dim) →
            (..., features), which may be a layer and learn. None for φ(x) = x, unless ``normalize`` is ``"sum"``.
        causal: Whether query i sees keys j ≤ i only; then ``keys`` is ``time``.
        mask: Keys to look at, boolean or 0 and 1, (batch, keys); None for all.
        normalize: ``"sum"`` divides by the sum of the weights, ``"rms"`` divides each output vector by its root
            mean square instead, None does neither.
        chunk: Tokens in a chunk of the causal form; changes the cost and, but for rounding, not the result. In a
            graph of TensorFlow that was traced for any length, time is padded to a multiple of 256 tokens.

    Returns:
        (batch, time, heads, values), of the type that holds q, k and v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit; an option is unknown; a function gives negative features though they are
            to be normalized by their sum. Compiled code, which can raise no error for values, gives NaN.

    Source: Katharopoulos et al. 2020 (arXiv 2006.16236); the chunks: Hua et al. 2022 (arXiv 2202.10447), section
    3.2; ``"rms"``: Qin et al. 2022 (arXiv 2210.10340).

    Example:
        >>> v = np.arange(6, dtype="float32").reshape(1, 6, 1, 1)
        >>> same = np.zeros((1, 6, 1, 4), "float32")  # all weights are equal
        >>> ops.convert_to_numpy(linear_attention(same, same, v))[0, :, 0, 0].tolist()
        [2.5, 2.5, 2.5, 2.5, 2.5, 2.5]
        >>> ops.convert_to_numpy(linear_attention(same, same, v, causal=True))[0, :, 0, 0].tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    chunk = positive_integer("chunk", chunk)
    if causal:
        return chunkwise_attention(q, k, v, feature_map, normalize, mask=mask, chunk=chunk)
    return full_attention(q, k, v, feature_map, normalize, mask)


def recurrent_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any = "elu+1",
    *,
    mask: Tensor | None = None,
    normalize: str | None = "sum",
) -> Tensor:
    """Causal linear attention as the article writes it first: token by token, one state. For reading and testing.

    Args:
        q: Queries, (batch, time, heads, dim); ``time`` is known.
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        feature_map: As in :func:`linear_attention`.
        mask: As in :func:`linear_attention`.
        normalize: As in :func:`linear_attention`.

    Returns:
        As :func:`linear_attention` with ``causal=True``, to rounding.

    Raises:
        ValueError: As :func:`linear_attention`.

    Source: article 7546; the least memory, and serial.

    Example:
        >>> v = np.arange(4, dtype="float32").reshape(1, 4, 1, 1)
        >>> ops.convert_to_numpy(recurrent_attention(0 * v, 0 * v, v))[0, :, 0, 0].tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    q, k, v, mask, valid = checked(q, k, v, mask, causal=True)
    if shape_only(q):
        return v
    state, outputs = None, []
    for t in range(q.shape[1]):
        seen = None if mask is None else mask[:, t]
        form = {"feature_map": feature_map, "normalize": normalize, "mask": seen}
        out, state = recurrent_step(q[:, t], k[:, t], v[:, t], state, **form)
        outputs.append(out)
    out = ops.stack(outputs, axis=1)
    return out if valid is None else or_nan(out, valid)


def cumulative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any = "elu+1",
    *,
    mask: Tensor | None = None,
    normalize: str | None = "sum",
) -> Tensor:
    """Causal linear attention as the article writes it second: a cumulative sum of outer products.

    For reading and testing: it makes all states at once, time × features × values a head, which is more than
    time × time scores whenever features × values > time. Exponentials are taken relative to the largest key of all
    time: where earlier ones are too small for that, and :func:`linear_attention` has a mean, this has NaN.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        feature_map: As in :func:`linear_attention`.
        mask: As in :func:`linear_attention`.
        normalize: As in :func:`linear_attention`.

    Returns:
        As :func:`linear_attention` with ``causal=True``, to rounding.

    Raises:
        ValueError: As :func:`linear_attention`.

    Example:
        >>> v = np.arange(4, dtype="float32").reshape(1, 4, 1, 1)
        >>> ops.convert_to_numpy(cumulative_attention(0 * v, 0 * v, v))[0, :, 0, 0].tolist()
        [0.0, 0.5, 1.0, 1.5]
    """
    q, k, v, mask, valid = checked(q, k, v, mask, causal=True)
    signed = known_normalization(normalize) != "sum"
    if shape_only(q):
        return v
    q, k, v = removed_tokens(mask, q, k, v)
    feature_map, q, k = mapped(exact_map(find_feature_map(feature_map, q.shape[-1], signed)), q, k)
    (q, level), k = query_features(feature_map, q, normalize), feature_map.apply(float32_or_wider(k))
    if feature_map.logarithmic:
        highest = ops.stop_gradient(largest_along(k, (1, 3), keepdims=True))
        level, k = level + highest, ops.exp(k - highest)
    if mask is not None:
        k = k * ops.cast(mask, k.dtype)[:, :, None, None]
        begun = ops.cumsum(ops.cast(mask, "int32"), axis=1)[:, :, None, None] > 0
        level = None if level is None else ops.where(begun, level, NOTHING)
    S = ops.cumsum(k[..., :, None] * float32_or_wider(v)[..., None, :], axis=1)
    sums = ops.sum(q * ops.cumsum(k, axis=1), axis=-1, keepdims=True)
    N = ops.einsum("bthf,bthfe->bthe", *of_one_type(q, S))  # Keras sums float64 in float32 on torch
    out = ops.cast(N * normalizer(normalize, N, sums, level), v.dtype)
    return out if valid is None else or_nan(out, valid)


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Any = None,
    *,
    mask: Tensor | None = None,
    normalize: str | None = "rms",
    chunk: int = CHUNK,
) -> Tensor:
    """S ← γ S + k vᵀ: what was written fades, at a fixed rate for each head.

    Args:
        q: Queries, (batch, time, heads, dim). There is no feature map; apply one before, if wanted.
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        decay: γ in (0, 1] for each head, (heads,) or one number; None for RetNet's 1 − 2^{−5−h}, h = 0, 1, …
        mask: Tokens that are written, boolean or 0 and 1, (batch, time); the others do not fade the state either.
        normalize: ``"rms"`` or None, as in :func:`linear_attention`.
        chunk: As in :func:`linear_attention`.

    Returns:
        (batch, time, heads, values), of the type that holds q, k and v.

    Raises:
        ValueError: A shape does not fit or ``decay`` is not in (0, 1].

    Source: Sun et al. 2023 (arXiv 2307.08621), equations 5 to 8, without the rotation of q and k.

    Example:
        >>> one, v = np.ones((1, 4, 1, 1), "float32"), np.array([8, 0, 0, 0], "float32").reshape(1, 4, 1, 1)
        >>> ops.convert_to_numpy(retention(one, one, v, 0.5, normalize=None))[0, :, 0, 0].tolist()
        [8.0, 4.0, 2.0, 1.0]
    """
    q = of_rank(4, "q", q)
    dtype = float32_or_wider(q[:1, :1, :1, :1]).dtype
    log_decay = ops.broadcast_to(ops.cast(_log_of_decay(decay, q.shape[2]), dtype), ops.shape(q)[:3])
    return chunkwise_attention(q, k, v, None, normalize, mask=mask, log_decay=log_decay, chunk=chunk)


def _log_of_decay(decay: Any, heads: int) -> np.ndarray:
    try:
        gamma = 1 - 2.0 ** (-5 - np.arange(heads)) if decay is None else np.asarray(decay)
    except (TypeError, ValueError):  # ragged
        gamma = np.asarray(None)
    fits = gamma.dtype.kind in "iuf" and gamma.shape in ((), (heads,))
    if not fits or not np.all((gamma > 0) & (gamma <= 1)):
        raise ValueError(f"decay must be in (0, 1], one number or one for each of {heads} heads, got {decay!r}")
    return np.log(gamma.astype("float64"))


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    mask: Tensor | None = None,
    normalize: str | None = "rms",
    chunk: int = CHUNK,
) -> Tensor:
    """S ← γ_i S + k vᵀ: each token says how much of the past to keep, for each head or each feature of its keys.

    With a γ a head this is the recurrence of Mamba-2, with a γ a feature, which is a row of S, that of GLA.

    Args:
        q: Queries, (batch, time, heads, dim). There is no feature map.
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        log_decay: log γ ≤ 0, (batch, time, heads) or (batch, time, heads, dim), for instance a log-sigmoid; −∞
            forgets all.
        mask: As in :func:`retention`.
        normalize: As in :func:`retention`.
        chunk: As in :func:`linear_attention`.

    Returns:
        (batch, time, heads, values), of the type that holds q, k and v.

    Raises:
        ValueError: A shape does not fit, or ``log_decay`` is above 0.

    Source: Dao and Gu 2024 (Mamba-2, arXiv 2405.21060); with a γ a feature, Yang et al. 2023 (GLA, arXiv
    2312.06635), section 4.

    Example:
        >>> one, v = np.ones((1, 4, 1, 1), "float32"), np.array([8, 0, 0, 4], "float32").reshape(1, 4, 1, 1)
        >>> forget_at_3 = np.array([0, 0, -1000, 0], "float32").reshape(1, 4, 1)
        >>> ops.convert_to_numpy(gated_attention(one, one, v, forget_at_3, normalize=None))[0, :, 0, 0].tolist()
        [8.0, 8.0, 0.0, 4.0]
        >>> two, halve = np.ones((1, 3, 1, 2), "float32"), np.log([1, 0.5]).astype("float32")
        >>> out = gated_attention(two, two, v[:, :3], np.broadcast_to(halve, two.shape), normalize=None)
        >>> ops.convert_to_numpy(out)[0, :, 0, 0].round(3).tolist()  # the second feature forgets
        [16.0, 12.0, 10.0]
    """
    log_decay = as_tensor("log_decay", log_decay)
    return chunkwise_attention(q, k, v, None, normalize, mask=mask, log_decay=log_decay, chunk=chunk)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    log_decay: Tensor | None = None,
    mask: Tensor | None = None,
    normalize: str | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """S ← γ_i (I − β k kᵀ) S + β k vᵀ: a key that is met again is overwritten, not added to.

    One step of gradient descent on ½‖Sᵀk − v‖², with the rate β. Keys should have length 1: a step shrinks what
    stands under k by 1 − β‖k‖². Without ``log_decay`` it is DeltaNet, with it Gated DeltaNet. Chunks follow one
    another; within a chunk the u of all tokens solve one triangular system.

    Args:
        q: Queries, (batch, time, heads, dim). There is no feature map.
        k: Keys, (batch, time, heads, dim), of length 1.
        v: Values, (batch, time, heads, values).
        beta: β in [0, 1], (batch, time, heads); up to 2 keeps the state bounded.
        log_decay: log γ ≤ 0, (batch, time, heads); None for γ = 1.
        mask: As in :func:`retention`.
        normalize: As in :func:`retention`.
        chunk: As in :func:`linear_attention`.

    Returns:
        (batch, time, heads, values), of the type that holds q, k and v.

    Raises:
        ValueError: A shape does not fit, ``beta`` is not in [0, 2] or ``log_decay`` is above 0.

    Source: Yang et al. 2024 (arXiv 2406.06484, section 3; arXiv 2412.06464); Schlag et al. 2021 (arXiv 2102.11174).

    Example:
        >>> one, v = np.ones((1, 3, 1, 1), "float32"), np.array([5, 7, 9], "float32").reshape(1, 3, 1, 1)
        >>> ops.convert_to_numpy(delta_rule(one, one, v, one[..., 0]))[0, :, 0, 0].tolist()  # the last one stands
        [5.0, 7.0, 9.0]
    """
    beta = as_tensor("beta", beta)
    return chunkwise_attention(q, k, v, None, normalize, mask=mask, log_decay=log_decay, beta=beta, chunk=chunk)
