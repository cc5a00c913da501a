"""The skeleton of all linear attention: a state that each token rewrites, in chunks, with its own gradient.

With features φ(q), φ(k) written q and k, a causal query reads a state that has seen the tokens up to its own::

    S ← γ_i S + k uᵀ,    z ← γ_i z + k,    out = qᵀS / qᵀz.

u = v, or u = β (v − γ_i Sᵀk) for the delta rule. Rows of matrices are tokens; g_i is the sum of log γ from the
start of a chunk of C tokens to token i. In a chunk that starts from the state S,

    A = D ∘ QKᵀ,    D_ij = e^{g_i − g_j} for j ≤ i,
    N = A U + e^g Q S,                  numerators
    δ = A 1 + e^g Q z,                  denominators
    S ← e^{g_C} S + (e^{g_C − g} K)ᵀ U, z ← e^{g_C} z + (e^{g_C − g} K)ᵀ 1.

Products of (C × C) matrices within a chunk, one state between chunks: never time × time, never a state a token.

**The gradient.** Let dN, dδ be the gradients of the numerators and denominators, dS, dz those of the state after
the chunk. For the forms with u = v,

    B = D ∘ (dN Vᵀ + dδ 1ᵀ),
    dQ = B K + e^g (dN Sᵀ + dδ zᵀ),
    dK = Bᵀ Q + e^{g_C − g} (V dSᵀ + 1 dzᵀ),
    dV = Aᵀ dN + e^{g_C − g} K dS,
    dS ← e^{g_C} dS + (e^g Q)ᵀ dN,      dz ← e^{g_C} dz + (e^g Q)ᵀ dδ.

g_i stands only beside q_i, and −g_i only beside k_i: dg_i = q_i·dq_i − k_i·dk_i, and dg_C has besides
⟨S, dS⟩ + ⟨z, dz⟩ after the chunk. Only φ, and a chunk of the delta rule, are differentiated by the backend.

**Segments.** Time is cut into segments of several chunks, one loop over them forward, one backward. What is kept
in between: the inputs, the outputs, one factor a token, and the state before each segment.

Tensors have the shape (batch, time, heads, dim) outside and (batch, heads, chunks, C, dim) within a segment. Sums
and states are float32 or wider, whatever the inputs are.

Source: Hua et al. 2022 (arXiv 2202.10447), section 3.2; Yang et al. 2023, 2024 (arXiv 2312.06635, 2406.06484,
2412.06464).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from .._arguments import positive_integer
from .._backend import float32_or_wider, jit
from .bidirectional import (
    State,
    checked,
    empty_state,
    known_normalization,
    normalizer,
    normalizer_gradient,
    of_rank,
    require_shape,
    whole_segments,
)
from .feature_maps import NOTHING, FeatureMap, find_feature_map, key_features, query_features
from .segments import SEGMENT, loop, padded, segment, segments, shape_only, vjp

__all__ = ["Chunks", "chunk_sums", "chunkwise_attention", "prefill", "step"]

Tensor = Any

CHUNK = 64  # tokens whose pairs are looked at


class _Form(NamedTuple):
    """What is fixed before any number comes."""

    feature_map: FeatureMap
    normalize: str | None
    chunk: int
    segment: int  # the most tokens that are worked on at once


class _Tokens(NamedTuple):
    """(batch, time, heads, dim); two gates, (batch, time, heads); the mask in numbers, (batch, time)."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None = None
    beta: Tensor | None = None
    mask: Tensor | None = None


def chunkwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any,
    normalize: str | None,
    *,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    chunk: int = CHUNK,
) -> Tensor:
    """Any causal form, with the gradient of this module; the forms of :mod:`lib.attention` are calls of it.

    Args:
        q: Queries, (batch, time, heads, dim), any float type.
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        feature_map: As in :func:`lib.attention.linear_attention`.
        normalize: ``"sum"``, ``"rms"`` or None, as there; with ``beta``, not ``"sum"``.
        mask: Tokens that are written, boolean, (batch, time); the others do not fade the state either.
        log_decay: log γ ≤ 0, (batch, time, heads); None for γ = 1.
        beta: β of the delta rule, (batch, time, heads); None for u = v.
        chunk: Tokens in a chunk.

    Returns:
        (batch, time, heads, values), of the type of v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit, or an option is unknown.

    Example:
        >>> x = np.ones((1, 5, 1, 1), "float32")
        >>> ops.convert_to_numpy(chunkwise_attention(x, x, x, None, None, chunk=2))[0, :, 0, 0].tolist()
        [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    form, x = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta, chunk)
    return x.v if shape_only(x.q) else _trained(form, x)


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any = "elu+1",
    *,
    mask: Tensor | None = None,
    normalize: str | None = "sum",
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    state: State | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, State]:
    """A stretch of tokens at once, and the state after it, from which :func:`step` or another stretch goes on.

    It is meant for generating text. To train, call the form itself, which has a gradient that saves memory.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        feature_map: As in :func:`lib.attention.linear_attention`; None for the forms without one.
        mask: Tokens that count, boolean, (batch, time).
        normalize: As in :func:`lib.attention.linear_attention`.
        log_decay: As in :func:`chunkwise_attention`.
        beta: As in :func:`chunkwise_attention`.
        state: The state before the first token; None for an empty one.
        chunk: As in :func:`lib.attention.linear_attention`.

    Returns:
        The outputs (batch, time, heads, values), and the state.

    Raises:
        ValueError: As the form.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 9, 2, 4)).astype("float32")
        >>> whole = chunkwise_attention(x, x, x, "elu+1", "sum")
        >>> _, state = prefill(x[:, :8], x[:, :8], x[:, :8])
        >>> last, state = step(state, x[:, 8], x[:, 8], x[:, 8])
        >>> bool(ops.max(ops.abs(last - whole[:, 8])) < 1e-5)
        True
    """
    form, x = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta, chunk)
    out, _, last, _ = _forward(form, x, empty_state(form.feature_map, x.k, x.v) if state is None else state)
    return out[:, : ops.shape(x.q)[1]], last


def step(
    state: State | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any = "elu+1",
    *,
    mask: Tensor | None = None,
    normalize: str | None = "sum",
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, State]:
    """One token, in constant time and memory: the recurrence itself.

    Args:
        state: The state so far; None at the start.
        q: The query, (batch, heads, dim).
        k: The key, (batch, heads, dim).
        v: The value, (batch, heads, values).
        feature_map: As in :func:`lib.attention.linear_attention`; None for the forms without one.
        mask: Rows whose state takes the token in, boolean, (batch,).
        normalize: As in :func:`lib.attention.linear_attention`.
        log_decay: As in :func:`chunkwise_attention`, (batch, heads).
        beta: As in :func:`chunkwise_attention`, (batch, heads).

    Returns:
        The output (batch, heads, values), and the state after the token.

    Raises:
        ValueError: As the form.

    Example:
        >>> one = np.ones((1, 1, 1), "float32")
        >>> out, state = step(None, one, one, 3 * one)
        >>> out, state = step(state, one, one, 5 * one)
        >>> float(out[0, 0, 0]), tuple(state.S.shape)
        (4.0, (1, 1, 1, 1))
    """
    q, k, v = (ops.expand_dims(of_rank(3, name, x), 1) for name, x in (("q", q), ("k", k), ("v", v)))
    mask, log_decay, beta = (
        None if x is None else ops.expand_dims(ops.convert_to_tensor(x), 1) for x in (mask, log_decay, beta)
    )
    form, x = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta)
    before = empty_state(form.feature_map, x.k, x.v) if state is None else state
    (Q, K), (fall, level, scale) = _features(form, x.q, x.k, x.mask, before.level)
    (S, z, _), log_decay = before, _decays(x, fall)
    q, k, u = Q[:, 0], K[:, 0], float32_or_wider(x.v)[:, 0]
    if log_decay is not None:
        gamma = ops.exp(log_decay[:, 0])[..., None]
        S, z = gamma[..., None] * S, gamma * z
    if x.beta is not None:
        u = x.beta[:, 0, :, None] * (u - ops.einsum("bhf,bhfe->bhe", k, S))
    S = S + k[..., :, None] * u[..., None, :]
    z = z + k if normalize == "sum" else z
    numerators, denominators = ops.einsum("bhf,bhfe->bhe", q, S), ops.sum(q * z, axis=-1, keepdims=True)
    factor = normalizer(normalize, numerators, denominators, None if scale is None else scale[:, 0])
    return ops.cast(numerators * factor, x.v.dtype), State(S, z, level)


# --- forward and backward over the segments -------------------------------------------------------------------


def _trained(form: _Form, x: _Tokens) -> Tensor:
    """The outputs, with the gradient of :func:`_backward`."""
    given = [name for name, part in zip(x._fields, x, strict=True) if part is not None]

    @ops.custom_gradient
    def attend(*tensors: Tensor) -> tuple[Tensor, Callable]:
        x = _Tokens(**dict(zip(given, tensors, strict=True)))
        out, factor, _, states = _forward(form, x, empty_state(form.feature_map, x.k, x.v))
        kept = ops.stop_gradient(out)  # not what is returned, which would hold itself on torch

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            g = args[0] if upstream is None else upstream  # torch passes it by name, after the arguments
            dx = _backward(form, x, states, kept, factor, g)
            return dx if x.mask is None else (*dx, ops.zeros_like(x.mask))

        return out[:, : ops.shape(x.q)[1]], gradient

    return attend(*(part for part in x if part is not None))


def _in_segments(form: _Form, x: _Tokens) -> tuple[int, Any, Any, _Tokens]:
    """Tokens in a segment, the number of segments, the padding behind the last one, and what is padded with it."""
    time = x.q.shape[1]
    C = form.chunk if time is None else min(form.chunk, time)
    # the delta rule goes on chunk after chunk
    T, count, padding = segments(x.q, C if x.beta is not None else max(C, form.segment // C * C), C)
    parts, mask = whole_segments(x[:-1], x.mask, padding)
    return T, count, padding, _Tokens(*parts, mask)


def _forward(form: _Form, x: _Tokens, start: State) -> tuple[Tensor, Tensor, State, tuple[Tensor, ...]]:
    """All segments, one after another.

    Returns:
        The outputs (batch, time, heads, values), padded to whole segments; what was multiplied into them (..., 1);
        the last state; and the states before each segment, each part of them with the segments on axis 1.
    """
    T, count, _, x = _in_segments(form, x)

    def body(i: Tensor, state: State) -> tuple[State, tuple[Tensor, ...]]:
        after, out, factor = _segment(form, segment(x, i, T), state)
        return after, (out, factor, *(ops.expand_dims(part, 1) for part in state))

    last, (out, factor, *states) = loop(body, start, count)
    return out, factor, last, tuple(states)


def _backward(
    form: _Form, x: _Tokens, states: tuple[Tensor, ...], out: Tensor, factor: Tensor, upstream: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of the tokens, from the last segment to the first."""
    time, (T, count, padding, x) = ops.shape(x.q)[1], _in_segments(form, x)
    results = (out, factor, padded(upstream, padding))

    def body(i: Tensor, d_state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        state = State(*(part[:, 0] for part in segment(states, i, 1)))
        return _segment_gradient(form, segment(x, i, T), state, *segment(results, i, T), d_state)

    S, z, _ = states
    _, gradients = loop(body, (ops.zeros_like(S[:, 0]), ops.zeros_like(z[:, 0])), count, reverse=True)
    return tuple(g[:, :time] for g in gradients)


def _segment(form: _Form, x: _Tokens, state: State) -> tuple[State, Tensor, Tensor]:
    """The state after a segment, its outputs (batch, T, heads, values), and what was multiplied into them."""
    (Q, K), (fall, level, scale) = _features(form, x.q, x.k, x.mask, state.level)
    chunks = _chunked(form, Q, K, x, _decays(x, fall))
    core = chunk_sums if x.beta is None else _delta_sums
    N, sums, S, z = core(chunks, state.S, state.z, form.normalize == "sum")
    N, sums = _in_time(N), None if sums is None else _in_time(sums)
    factor = normalizer(form.normalize, N, sums, scale)
    return State(S, z, level), ops.cast(N * factor, x.v.dtype), factor


def _segment_gradient(
    form: _Form,
    x: _Tokens,
    state: State,
    out: Tensor,
    factor: Tensor,
    upstream: Tensor,
    d_state: tuple[Tensor, Tensor],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """The gradients of the state before a segment, from those of the state after it, and of the tokens."""
    (Q, K), (fall, _, _), pullback = vjp(lambda q, k: _features(form, q, k, x.mask, state.level), x.q, x.k)
    chunks = _chunked(form, Q, K, x, _decays(x, fall))
    dN, d_sums = normalizer_gradient(form.normalize, out, factor, upstream)
    dN, d_sums = _chunks(dN, chunks.Q.shape[3]), None if d_sums is None else _chunks(d_sums, chunks.Q.shape[3])
    core = _chunk_sums_gradient if x.beta is None else _delta_sums_gradient
    d_chunks, d_state = core(chunks, state.S, state.z, dN, d_sums, *d_state)
    dQ, dK, dV, dg, d_beta = (None if d is None else _in_time(d) for d in d_chunks)
    gradients = [*pullback((dQ, dK)), ops.cast(dV, x.v.dtype)]
    if x.log_decay is not None:
        gradients.append(dg[..., 0] if x.mask is None else dg[..., 0] * x.mask[:, :, None])
    if x.beta is not None:
        gradients.append(d_beta[..., 0])
    return d_state, tuple(gradients)


# --- from tokens to chunks, and back --------------------------------------------------------------------------


def _features(
    form: _Form, q: Tensor, k: Tensor, mask: Tensor | None, level: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor | None, Tensor, Tensor | None]]:
    """Features of queries and keys; and the decay of the state, its level after, and the scale of the outputs."""
    Q, q_level = query_features(form.feature_map, q)
    K, so_far = key_features(form.feature_map, k, mask, level)
    if so_far is None:
        return (Q, K), (None, level, None)
    before = ops.concatenate([ops.cast(level, K.dtype)[:, None], so_far[:, :-1]], axis=1)
    fall = ops.where(before > NOTHING / 2, before - so_far, 0)  # before the first key the state is empty
    return (Q, K), (fall, so_far[:, -1], q_level + so_far[..., None])


def _decays(x: _Tokens, fall: Tensor | None) -> Tensor | None:
    """The logarithm of what each token leaves of the state, (batch, T, heads); None for 0."""
    if x.log_decay is None:
        return fall
    log_decay = x.log_decay if x.mask is None else x.log_decay * x.mask[:, :, None]
    return log_decay if fall is None else log_decay + fall


class Chunks(NamedTuple):
    """A segment in chunks of C tokens, as :func:`chunk_sums` takes it.

    Attributes:
        Q: φ(q), (batch, heads, chunks, C, features), float32 or wider.
        K: φ(k), likewise, 0 for a token that is not written.
        V: Values, (batch, heads, chunks, C, values).
        log_decay: log γ, (batch, heads, chunks, C, 1); None for γ = 1.
        beta: β of the delta rule, likewise; None for u = v.
    """

    Q: Tensor
    K: Tensor
    V: Tensor
    log_decay: Tensor | None = None
    beta: Tensor | None = None


def _chunked(form: _Form, Q: Tensor, K: Tensor, x: _Tokens, log_decay: Tensor | None) -> Chunks:
    C = min(form.chunk, Q.shape[1])
    columns = (None if y is None else y[..., None] for y in (log_decay, x.beta))
    return Chunks(*(None if y is None else _chunks(y, C) for y in (Q, K, float32_or_wider(x.v), *columns)))


def _chunks(x: Tensor, C: int) -> Tensor:
    """(batch, T, heads, ·) → (batch, heads, chunks, C, ·)."""
    x = ops.reshape(x, (-1, x.shape[1] // C, C, *x.shape[2:]))
    return ops.transpose(x, (0, 3, 1, 2, 4))


def _in_time(x: Tensor) -> Tensor:
    """(batch, heads, chunks, C, ·) → (batch, T, heads, ·)."""
    heads, chunks, C, values = x.shape[1:]
    return ops.reshape(ops.transpose(x, (0, 2, 3, 1, 4)), (-1, chunks * C, heads, values))


# --- within a segment: the formulas at the head of this module ------------------------------------------------


def chunk_sums(x: Chunks, S: Tensor, z: Tensor, summed: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """The numerators and denominators of all chunks of a segment at once, and the state after the last one.

    Args:
        x: The segment, with u = v.
        S: The state before it, (batch, heads, features, values).
        z: The sum of keys before it, (batch, heads, features).
        summed: Whether denominators are wanted; without them z stays as it is.

    Returns:
        N (batch, heads, chunks, C, values); δ (..., C, 1), or None; S and z after the segment.

    Source: Hua et al. 2022 (arXiv 2202.10447), section 3.2.

    Example:
        >>> one, none = np.ones((1, 1, 2, 2, 1), "float32"), np.zeros((1, 1, 1, 1), "float32")
        >>> N, sums, S, z = chunk_sums(Chunks(one, one, 3 * one), none, none[0], summed=True)
        >>> [ops.convert_to_numpy(x).ravel().tolist() for x in (N, sums, S)]
        [[3.0, 6.0, 9.0, 12.0], [1.0, 2.0, 3.0, 4.0], [12.0]]
    """
    decay = _decay_factors(x)
    S, z = _states(x, decay, S, z, summed)  # before each chunk, and after the last one
    A = decay.D * ops.matmul(x.Q, _transposed(x.K))
    Q = _times(x.Q, decay.into)
    N = ops.matmul(A, x.V) + ops.matmul(Q, S[:, :, :-1])
    if not summed:
        return N, None, S[:, :, -1], z
    sums = ops.sum(A, axis=-1, keepdims=True) + ops.matmul(Q, z[:, :, :-1, :, None])
    return N, sums, S[:, :, -1], z[:, :, -1]


class _Decay(NamedTuple):
    """The factors that a sum g of log γ makes; None for 1."""

    D: Tensor  # e^{g_i − g_j} for j ≤ i: (C, C), or (batch, heads, chunks, C, C)
    into: Tensor | None  # e^g, (..., C, 1)
    out_of: Tensor | None  # e^{g_C − g}, (..., C, 1)
    carry: Tensor  # from what chunk i writes to the state before chunk j, (chunks + 1, chunks + 1) or more axes


def _decay_factors(x: Chunks) -> _Decay:
    if x.log_decay is None:
        chunks, C = x.Q.shape[2:4]
        return _Decay(_lower(C, x.Q), None, None, _lower(chunks + 1, x.Q))
    g = ops.cumsum(x.log_decay[..., 0], axis=-1)
    g_C = g[..., -1:]
    G = ops.pad(ops.cumsum(g_C[..., 0], axis=-1), ((0, 0), (0, 0), (1, 0)))
    return _Decay(_differences(g), ops.exp(g)[..., None], ops.exp(g_C - g)[..., None], _differences(G))


def _lower(n: int, like: Tensor) -> Tensor:
    return ops.cast(np.tril(np.ones((n, n), "float32")), like.dtype)


def _differences(g: Tensor) -> Tensor:
    """e^{g_i − g_j} for j ≤ i, else 0."""
    lower = np.tril(np.ones((g.shape[-1],) * 2, bool))
    return ops.exp(ops.where(lower, g[..., :, None] - g[..., None, :], -math.inf))


def _states(x: Chunks, decay: _Decay, S: Tensor, z: Tensor, summed: bool) -> tuple[Tensor, Tensor]:
    """S, and z if it is summed, before each chunk and after the last one."""
    K = _times(x.K, decay.out_of)
    S = _carried(decay.carry, S, ops.matmul(_transposed(K), x.V))
    return S, _carried(decay.carry, z, ops.sum(K, axis=3)) if summed else z


def _carried(carry: Tensor, first: Tensor, others: Tensor, reverse: bool = False) -> Tensor:
    """States (batch, heads, chunks + 1, ...): before each chunk, and after the last one.

    Args:
        carry: What is left of each part, (..., chunks + 1, chunks + 1).
        first: The state before the first chunk; in reverse, the gradient of the one after the last.
        others: What each chunk adds, (batch, heads, chunks, ...).
        reverse: Whether gradients flow back, from the states to the parts.
    """
    parts = [others, first[:, :, None]] if reverse else [first[:, :, None], others]
    parts = ops.concatenate(parts, axis=2)
    batch, shape = ops.shape(parts)[0], tuple(parts.shape[1:])
    flat = ops.reshape(parts, (batch, *shape[:2], math.prod(shape[2:])))
    return ops.reshape(ops.matmul(_transposed(carry) if reverse else carry, flat), (batch, *shape))


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _transposed(x: Tensor) -> Tensor:
    return ops.swapaxes(x, -1, -2)


def _chunk_sums_gradient(
    x: Chunks, S: Tensor, z: Tensor, dN: Tensor, d_sums: Tensor | None, dS: Tensor, dz: Tensor
) -> tuple[Chunks, tuple[Tensor, Tensor]]:
    """The gradients of the inputs of :func:`chunk_sums`, from those of its results."""
    summed = d_sums is not None
    decay = _decay_factors(x)
    Q, (S, z) = _times(x.Q, decay.into), _states(x, decay, S, z, summed)
    dS = _carried(decay.carry, dS, ops.matmul(_transposed(Q), dN), reverse=True)
    dS_after = dS[:, :, 1:]
    A = decay.D * ops.matmul(x.Q, _transposed(x.K))
    B = ops.matmul(dN, _transposed(x.V))
    B = decay.D * (B + d_sums if summed else B)
    dQ = ops.matmul(dN, _transposed(S[:, :, :-1]))
    dK = ops.matmul(x.V, _transposed(dS_after))
    if summed:
        dz = _carried(decay.carry, dz, ops.matmul(_transposed(Q), d_sums)[..., 0], reverse=True)
        dQ, dK = dQ + d_sums * z[:, :, :-1, None], dK + dz[:, :, 1:, None]
    dQ = ops.matmul(B, x.K) + _times(dQ, decay.into)
    dK = ops.matmul(_transposed(B), x.Q) + _times(dK, decay.out_of)
    dV = ops.matmul(_transposed(A), dN) + ops.matmul(_times(x.K, decay.out_of), dS_after)
    dg = None
    if x.log_decay is not None:
        dg = ops.sum(x.Q * dQ - x.K * dK, axis=-1)
        after = ops.sum(S[:, :, 1:] * dS_after, axis=(-1, -2))
        after = after + ops.sum(z[:, :, 1:] * dz[:, :, 1:], axis=-1) if summed else after
        dg = (ops.sum(dg, axis=-1, keepdims=True) - ops.cumsum(dg, axis=-1) + dg + after[..., None])[..., None]
    return Chunks(dQ, dK, dV, dg, None), (dS[:, :, 0], dz[:, :, 0] if summed else dz)


def _delta_sums(x: Chunks, S: Tensor, z: Tensor, _: bool) -> tuple[Tensor, None, Tensor, Tensor]:
    """The same in one chunk, with the u that solve u_i = β_i (v_i − e^{g_i} Sᵀk_i − Σ_{j<i} D_ij (k_i·k_j) u_j)."""
    decay = _decay_factors(x)
    rest = np.tril(np.ones((x.Q.shape[3],) * 2, "float32"), -1)
    known = ops.cast(rest, S.dtype) * decay.D * ops.matmul(x.K, _transposed(x.K))
    before = x.V - ops.matmul(_times(x.K, decay.into), S[:, :, None])
    U = ops.solve_triangular(ops.eye(x.Q.shape[3], dtype=S.dtype) + x.beta * known, x.beta * before, lower=True)
    return chunk_sums(x._replace(V=U), S, z, False)


def _delta_sums_gradient(
    x: Chunks, S: Tensor, z: Tensor, dN: Tensor, _: None, dS: Tensor, dz: Tensor
) -> tuple[Chunks, tuple[Tensor, Tensor]]:
    """The gradients of the inputs of :func:`_delta_sums`, by the backend."""
    given = [name for name, part in zip(Chunks._fields, x, strict=True) if part is not None]

    def again(S: Tensor, *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], None]:
        N, _, S, _ = _delta_sums(x._replace(**dict(zip(given, tensors, strict=True))), S, z, False)
        return (N, S), None

    _, _, pullback = vjp(again, S, *(part for part in x if part is not None))
    dS, *gradients = pullback((dN, dS))
    return x._replace(**dict(zip(given, gradients, strict=True))), (dS, dz)


_trained, _forward = map(jit(static_argnums=0), (_trained, _forward))


# --- arguments ------------------------------------------------------------------------------------------------


def _arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Any,
    normalize: str | None,
    mask: Tensor | None,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[_Form, _Tokens]:
    """The arguments of a causal form, or an error that names the one that is wrong."""
    q, k, v, mask = checked(q, k, v, mask, causal=True)
    if known_normalization(normalize) == "sum" and beta is not None:
        raise ValueError("normalize must be 'rms' or None with the delta rule, whose weights have signs, got 'sum'")
    feature_map = find_feature_map(feature_map, q.shape[-1], normalize != "sum", (q, k))
    form = _Form(feature_map, normalize, positive_integer("chunk", chunk), SEGMENT)
    dtype = float32_or_wider(q[:1, :1, :1, :1]).dtype
    log_decay, beta, mask = (None if x is None else ops.cast(x, dtype) for x in (log_decay, beta, mask))
    for name, x in (("log_decay", log_decay), ("beta", beta)):
        if x is not None:
            require_shape(name, x, q.shape[:3], "(batch, time, heads)")
    return form, _Tokens(q, k, v, log_decay, beta, mask)
