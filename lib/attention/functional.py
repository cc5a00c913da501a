"""Attention with and without softmax: what a token keeps of the tokens before it, and what that costs.

A query looks at all keys j and takes the weighted mean of their values,

    out_i = Σ_j sim(q_i, k_j) v_j / Σ_j sim(q_i, k_j).

Softmax attention has sim = exp(qᵀk): every pair must be looked at, n² of them. If sim(q, k) = φ(q)ᵀφ(k), the sum
over j can be done once, before any query comes, and the cost is linear in n:

    out_i = φ(q_i)ᵀS / φ(q_i)ᵀz,    S = Σ_j φ(k_j) v_jᵀ,    z = Σ_j φ(k_j).

A causal query sees j ≤ i. Then S is a state that each token rewrites, and everything that came since is another
way to rewrite it::

    S ← S + k vᵀ                        linear attention       :func:`linear_attention`
    S ← γ S + k vᵀ                      a fixed decay          :func:`retention`
    S ← γ_i S + k vᵀ                    a decay for each token :func:`gated_attention`
    S ← S + k uᵀ, u = β (v − Sᵀk)       the delta rule         :func:`delta_rule`, with or without decay

They share one skeleton, :mod:`lib.attention.chunkwise`; the one state for all queries is in
:mod:`lib.attention.bidirectional`. The maps φ are in :mod:`lib.attention.feature_maps`.

All tensors have the shape (batch, time, heads, dim). Nothing is scaled by 1/√d inside, save in
:func:`softmax_attention`.

Source: Katharopoulos et al. 2020 (arXiv 2006.16236); Shen et al. 2018 (arXiv 1812.01243); Sun et al. 2023 (arXiv
2307.08621); Yang et al. 2023, 2024 (arXiv 2312.06635, 2406.06484, 2412.06464); Su Jianlin,
https://kexue.fm/archives/7546.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from .._backend import float32_or_wider
from .bidirectional import checked, full_attention, known_normalization, normalizer, of_rank
from .chunkwise import CHUNK, chunkwise_attention, step
from .feature_maps import (
    NOTHING,
    find_feature_map,
)

__all__ = [
    "Cache",
    "cached_step",
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
    scale: float | None = None,
    fused: bool = False,
) -> Tensor:
    """softmax(s QKᵀ) V, the attention of the Transformer: n² scores a head.

    Args:
        q: Queries, (batch, time, heads, dim), any float type.
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        causal: Whether query i sees keys j ≤ i only; then ``keys`` is ``time``.
        mask: Keys to look at, boolean, (batch, keys); None for all.
        scale: s; None for 1/√dim.
        fused: Whether to call the kernel of the backend, ``keras.ops.dot_product_attention``: cuDNN, flash or
            blocked on a device that has one, in which the scores never stand in memory.

    Returns:
        (batch, time, heads, values), of the type of v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1.

    Example:
        >>> q, k = np.array([[[[0.0]]]], "float32"), np.array([[[[1.0]], [[5.0]]]], "float32")
        >>> float(softmax_attention(q, k, k)[0, 0, 0, 0])
        3.0
    """
    q, k, v, mask = checked(q, k, v, mask, causal)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    seen = None if mask is None else mask[:, None, None, :]
    if causal and not (fused and mask is None):
        position = ops.arange(ops.shape(q)[1])
        before = (position[:, None] >= position)[None, None]
        seen = before if seen is None else ops.logical_and(seen, before)
    if fused:
        if seen is None:
            return ops.dot_product_attention(q, k, v, scale=scale, is_causal=causal)
        shape = (ops.shape(q)[0], 1, ops.shape(q)[1], ops.shape(k)[1])
        out = ops.dot_product_attention(q, k, v, scale=scale, mask=ops.broadcast_to(seen, shape))
        return ops.where(ops.any(seen, axis=-1)[:, 0, :, None, None], out, 0)
    scores = float32_or_wider(ops.einsum("bihd,bjhd->bhij", q, k)) * scale
    if seen is None:
        weights = ops.softmax(scores)
    else:
        weights = ops.where(seen, ops.softmax(ops.where(seen, scores, NOTHING)), 0)
    return ops.einsum("bhij,bjhe->bihe", ops.cast(weights, v.dtype), v)


def double_softmax_attention(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """A softmax over the features of Q times one over the time of K, transposed, times V: Efficient Attention.

    The weights of a query sum to 1 without a denominator. The softmax over time sees the future, so there is no
    causal form; with the feature map "exp", :func:`linear_attention` is the nearest that has one.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        mask: Keys to look at, boolean, (batch, keys); None for all.

    Returns:
        (batch, time, heads, values), of the type of v; 0 for a row without keys.

    Raises:
        ValueError: A shape does not fit.

    Source: Shen et al. 2018 (arXiv 1812.01243).

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 5, 2, 4)).astype("float32")
        >>> bool(ops.all(ops.abs(double_softmax_attention(x, x, np.ones_like(x)) - 1) < 1e-5))
        True
    """
    q, k, v, mask = checked(q, k, v, mask, causal=False)
    q, k = ops.softmax(float32_or_wider(q), axis=-1), float32_or_wider(k)
    if mask is None:
        k = ops.softmax(k, axis=1)
    else:
        seen = mask[:, :, None, None]
        k = ops.where(seen, ops.softmax(ops.where(seen, k, NOTHING), axis=1), 0)
    S = ops.einsum("bjhd,bjhe->bhde", k, float32_or_wider(v))
    return ops.cast(ops.einsum("bihd,bhde->bihe", q, S), v.dtype)


class Cache(NamedTuple):
    """What softmax attention must keep to go on: all keys and values, (batch, time, heads, dim)."""

    k: Tensor
    v: Tensor


def cached_step(
    cache: Cache | None, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None
) -> tuple[Tensor, Cache]:
    """One token of causal softmax attention: time and memory grow with the number of tokens so far.

    Args:
        cache: Keys and values so far, None at the start.
        q: The query, (batch, heads, dim).
        k: The key, (batch, heads, dim).
        v: The value, (batch, heads, values).
        scale: As in :func:`softmax_attention`.

    Returns:
        The output (batch, heads, values), and the cache with one token more.

    Raises:
        ValueError: A shape does not fit.

    Example:
        >>> x = np.ones((1, 2, 4), "float32")
        >>> _, cache = cached_step(None, x, x, x)
        >>> out, cache = cached_step(cache, x, x, x)
        >>> tuple(cache.k.shape)
        (1, 2, 2, 4)
    """
    q, k, v = (ops.expand_dims(of_rank(3, name, x), 1) for name, x in (("q", q), ("k", k), ("v", v)))
    if cache is not None:
        k, v = ops.concatenate([cache.k, k], axis=1), ops.concatenate([cache.v, v], axis=1)
    return softmax_attention(q, k, v, scale=scale)[:, 0], Cache(k, v)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any = "elu+1",
    causal: bool = False,
    mask: Tensor | None = None,
    *,
    normalize: str | None = "sum",
    chunk: int = CHUNK,
) -> Tensor:
    """Attention with sim(q, k) = φ(q)ᵀφ(k): time and memory linear in the number of tokens.

    No ε is added to the denominator. It is a sum of non-negative weights, and where that is 0 so is the output.

    Args:
        q: Queries, (batch, time, heads, dim), any float type. Nothing is scaled by 1/√dim.
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        feature_map: φ: a name of :data:`FEATURE_MAPS`, a :class:`FeatureMap`, or a function (..., dim) →
            (..., features). None for φ(x) = x, unless ``normalize`` is ``"sum"``.
        causal: Whether query i sees keys j ≤ i only; then ``keys`` is ``time``.
        mask: Keys to look at, boolean, (batch, keys); None for all.
        normalize: ``"sum"`` divides by the sum of the weights, ``"rms"`` divides each output vector by its root
            mean square instead, None does neither.
        chunk: Tokens in a chunk of the causal form; changes the cost and, but for rounding, not the result. In a
            graph of TensorFlow that was traced for any length, time is padded to a multiple of 256 tokens.

    Returns:
        (batch, time, heads, values), of the type of v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit; an option is unknown; a function gives negative features though they are
            to be normalised by their sum. Compiled code, which can raise no error for values, gives NaN.

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
    q, k, v, mask = checked(q, k, v, mask, causal=True)
    state, outputs = None, []
    for t in range(q.shape[1]):
        seen = None if mask is None else mask[:, t]
        out, state = step(state, q[:, t], k[:, t], v[:, t], feature_map, mask=seen, normalize=normalize)
        outputs.append(out)
    return ops.stack(outputs, axis=1)


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
    time × time scores whenever features × values > time. Features that are exponentials overflow where they do.

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
    q, k, v, mask = checked(q, k, v, mask, causal=True)
    known_normalization(normalize)
    feature_map = find_feature_map(feature_map, q.shape[-1], normalize != "sum", (q, k))
    q, k = feature_map.apply(float32_or_wider(q)), feature_map.apply(float32_or_wider(k))
    if feature_map.logarithmic:
        q, k = ops.exp(q), ops.exp(k)
    if mask is not None:
        k = k * ops.cast(mask, k.dtype)[:, :, None, None]
    S = ops.cumsum(k[..., :, None] * float32_or_wider(v)[..., None, :], axis=1)
    N, sums = ops.einsum("bthf,bthfe->bthe", q, S), ops.sum(q * ops.cumsum(k, axis=1), axis=-1, keepdims=True)
    return ops.cast(N * normalizer(normalize, N, sums, None), v.dtype)


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
        mask: Tokens that are written, boolean, (batch, time); the others do not fade the state either.
        normalize: ``"rms"`` or None, as in :func:`linear_attention`.
        chunk: As in :func:`linear_attention`.

    Returns:
        (batch, time, heads, values), of the type of v.

    Raises:
        ValueError: A shape does not fit or ``decay`` is not in (0, 1].

    Source: Sun et al. 2023 (arXiv 2307.08621), equations 5 to 8, without the rotation of q and k.

    Example:
        >>> one, v = np.ones((1, 4, 1, 1), "float32"), np.array([8, 0, 0, 0], "float32").reshape(1, 4, 1, 1)
        >>> ops.convert_to_numpy(retention(one, one, v, 0.5, normalize=None))[0, :, 0, 0].tolist()
        [8.0, 4.0, 2.0, 1.0]
    """
    q = of_rank(4, "q", q)
    log_decay = ops.broadcast_to(_log_of_decay(decay, q.shape[2]), ops.shape(q)[:3])
    return chunkwise_attention(q, k, v, None, normalize, mask=mask, log_decay=log_decay, chunk=chunk)


def _log_of_decay(decay: Any, heads: int) -> np.ndarray:
    gamma = 1 - 2.0 ** (-5 - np.arange(heads)) if decay is None else np.asarray(decay, "float64")
    if gamma.shape not in ((), (heads,)) or not np.all((gamma > 0) & (gamma <= 1)):
        raise ValueError(f"decay must be in (0, 1], one number or one for each of {heads} heads, got {decay!r}")
    return np.log(gamma).astype("float32")


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
    """S ← γ_i S + k vᵀ: each token says, for each head, how much of the past to keep.

    Args:
        q: Queries, (batch, time, heads, dim). There is no feature map.
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        log_decay: log γ ≤ 0, (batch, time, heads), for instance a log-sigmoid.
        mask: As in :func:`retention`.
        normalize: As in :func:`retention`.
        chunk: As in :func:`linear_attention`.

    Returns:
        (batch, time, heads, values), of the type of v.

    Raises:
        ValueError: A shape does not fit.

    Source: Dao and Gu 2024 (Mamba-2, arXiv 2405.21060); Yang et al. 2023 (arXiv 2312.06635) have a γ for each
    feature.

    Example:
        >>> one, v = np.ones((1, 4, 1, 1), "float32"), np.array([8, 0, 0, 4], "float32").reshape(1, 4, 1, 1)
        >>> forget_at_3 = np.array([0, 0, -1000, 0], "float32").reshape(1, 4, 1)
        >>> ops.convert_to_numpy(gated_attention(one, one, v, forget_at_3, normalize=None))[0, :, 0, 0].tolist()
        [8.0, 8.0, 0.0, 4.0]
    """
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
        (batch, time, heads, values), of the type of v.

    Raises:
        ValueError: A shape does not fit.

    Source: Yang et al. 2024 (arXiv 2406.06484, section 3; arXiv 2412.06464); Schlag et al. 2021 (arXiv 2102.11174).

    Example:
        >>> one, v = np.ones((1, 3, 1, 1), "float32"), np.array([5, 7, 9], "float32").reshape(1, 3, 1, 1)
        >>> ops.convert_to_numpy(delta_rule(one, one, v, one[..., 0]))[0, :, 0, 0].tolist()  # the last one stands
        [5.0, 7.0, 9.0]
    """
    return chunkwise_attention(q, k, v, None, normalize, mask=mask, log_decay=log_decay, beta=beta, chunk=chunk)
