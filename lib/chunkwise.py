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

import keras
import numpy as np
from keras import ops

from lib.feature_maps import FeatureMap, find_feature_map, positive_integer, widened
from lib.segments import compiled, loop, padded, segment, segments, vjp

__all__ = [
    "State",
    "checked",
    "chunkwise_attention",
    "full_attention",
    "known_normalization",
    "normalizer",
    "of_rank",
    "prefill",
    "step",
]

Tensor = Any
Shape = tuple[int | None, ...]

CHUNK = 64  # tokens whose pairs are looked at
SEGMENT = 256  # tokens that are worked on at once: what they need fits into the cache of a core
NORMALIZATIONS = ("sum", "rms", None)
NOTHING = -1e30  # below every logarithm of a feature


class State(NamedTuple):
    """What a linear form remembers of all tokens so far; its size does not depend on their number.

    For logarithmic features S and z are divided by e^level.

    Attributes:
        S: Σ φ(k) vᵀ as the form rewrites it, (batch, heads, features, values).
        z: Σ φ(k), rewritten likewise, (batch, heads, features); 0 unless outputs are divided by their sum.
        level: The largest logarithm of a feature of a key so far, (batch, heads); unused for other features.
    """

    S: Tensor
    z: Tensor
    level: Tensor


class _Form(NamedTuple):
    """What is fixed before any number comes."""

    feature_map: FeatureMap
    normalize: str | None
    chunk: int


class _Inputs(NamedTuple):
    """What has a gradient: (batch, time, heads, dim), and (batch, time, heads) for the last two, or None."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    beta: Tensor | None


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
    form, inputs, mask = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta, chunk)
    return _trained(form, inputs, mask)


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
    form, inputs, mask = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta, chunk)
    time = ops.shape(inputs.q)[1]
    out, _, last, _ = _forward(form, inputs, mask, _empty(form, inputs.k, inputs.v) if state is None else state)
    return out[:, :time], last


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
    form, inputs, mask = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta)
    S, z, level = _empty(form, inputs.k, inputs.v) if state is None else state
    seen = None if mask is None else ops.cast(mask, S.dtype)
    (Q, K), (fall, level, scale) = _features(form, inputs.q, inputs.k, seen, level)
    log_decay = _decays(inputs, fall, seen, S.dtype)
    q, k, u = Q[:, 0], K[:, 0], widened(inputs.v)[:, 0]
    if log_decay is not None:
        gamma = ops.exp(log_decay[:, 0])[..., None]
        S, z = gamma[..., None] * S, gamma * z
    if inputs.beta is not None:
        u = widened(inputs.beta)[:, 0, :, None] * (u - ops.einsum("bhf,bhfe->bhe", k, S))
    S = S + k[..., :, None] * u[..., None, :]
    z = z + k if normalize == "sum" else z
    numerators, denominators = ops.einsum("bhf,bhfe->bhe", q, S), ops.sum(q * z, axis=-1, keepdims=True)
    factor = normalizer(normalize, numerators, denominators, None if scale is None else scale[:, 0])
    return ops.cast(numerators * factor, inputs.v.dtype), State(S, z, level)


# --- forward and backward over the segments -------------------------------------------------------------------


def _trained(form: _Form, inputs: _Inputs, mask: Tensor | None) -> Tensor:
    """The outputs, with the gradient of :func:`_backward`."""
    given = [name for name, x in zip(_Inputs._fields, inputs, strict=True) if x is not None]
    nothing = _Inputs(*[None] * len(_Inputs._fields))

    seen = [] if mask is None else [ops.cast(mask, widened(inputs.q[:1, :1, :1, :1]).dtype)]

    @ops.custom_gradient
    def attend(*tensors: Tensor) -> tuple[Tensor, Callable]:
        x = nothing._replace(**dict(zip(given, tensors, strict=False)))
        mask = tensors[-1] if seen else None  # an argument too: JAX cannot close over it
        out, factor, _, states = _forward(form, x, mask, _empty(form, x.k, x.v))
        kept = ops.stop_gradient(out)  # not what is returned, which would hold itself on torch

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            g = args[0] if upstream is None else upstream  # torch passes it by name, after the arguments
            return (*_backward(form, x, mask, states, kept, factor, g), *map(ops.zeros_like, tensors[len(given) :]))

        return out[:, : ops.shape(x.q)[1]], gradient

    return attend(*[x for x in inputs if x is not None], *seen)


def _empty(form: _Form, k: Tensor, v: Tensor) -> State:
    """The state before the first token."""
    z = ops.zeros_like(form.feature_map.apply(widened(k[:, :1]))[:, 0])  # (batch, heads, features)
    return State(z[..., None] * ops.zeros((v.shape[-1],), z.dtype), z, z[..., 0] + NOTHING)


def _segments(form: _Form, inputs: _Inputs) -> tuple[int, Any, Any]:
    time = inputs.q.shape[1]
    C = form.chunk if time is None else min(form.chunk, time)
    # the delta rule goes on chunk after chunk
    return segments(inputs.q, C if inputs.beta is not None else max(C, SEGMENT // C * C), C)


def _padded(x: Any, mask: Tensor | None, padding: Any) -> tuple[Any, Tensor | None]:
    """Tensors of whole segments, and the mask as numbers (batch, time)."""
    dtype = widened(x[0][:1, :1, :1, :1]).dtype
    if mask is None and not (isinstance(padding, int) and padding == 0):
        mask = ops.ones_like(x[0][:, :, 0, 0])
    return padded(x, padding), None if mask is None else padded(ops.cast(mask, dtype), padding)


def _forward(
    form: _Form, inputs: _Inputs, mask: Tensor | None, start: State
) -> tuple[Tensor, Tensor, State, tuple[Tensor, ...]]:
    """All segments, one after another.

    Returns:
        The outputs (batch, time, heads, values), padded to whole segments; what was multiplied into them (..., 1);
        the last state; and the states before each segment, each part of them with the segments on axis 1.
    """
    T, count, padding = _segments(form, inputs)
    x, m = _padded(inputs, mask, padding)

    def body(i: Tensor, state: State) -> tuple[State, tuple[Tensor, ...]]:
        after, out, factor = _segment(form, segment(x, i, T), segment(m, i, T), state)
        return after, (out, factor, *(ops.expand_dims(part, 1) for part in state))

    last, (out, factor, *states) = loop(body, start, count)
    return out, factor, last, tuple(states)


def _backward(
    form: _Form,
    inputs: _Inputs,
    mask: Tensor | None,
    states: tuple[Tensor, ...],
    out: Tensor,
    factor: Tensor,
    upstream: Tensor,
) -> tuple[Tensor, ...]:
    """The gradients of the inputs, from the last segment to the first."""
    T, count, padding = _segments(form, inputs)
    x, m = _padded(inputs, mask, padding)
    results = (out, factor, padded(upstream, padding))

    def body(i: Tensor, d_state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        state = State(*(part[:, 0] for part in segment(states, i, 1)))
        return _segment_gradient(form, segment(x, i, T), segment(m, i, T), state, *segment(results, i, T), d_state)

    S, z, _ = states
    _, gradients = loop(body, (ops.zeros_like(S[:, 0]), ops.zeros_like(z[:, 0])), count, reverse=True)
    return tuple(g[:, : ops.shape(inputs.q)[1]] for g in gradients)


def _segment(form: _Form, inputs: _Inputs, mask: Tensor | None, state: State) -> tuple[State, Tensor, Tensor]:
    """One segment from the state before it.

    Args:
        form: What is fixed.
        inputs: (batch, T, heads, ·), T a multiple of the chunk.
        mask: (batch, T), 1 and 0, or None.
        state: The state before the segment.

    Returns:
        The state after it, the outputs (batch, T, heads, values), and what was multiplied into them (..., 1).
    """
    (Q, K), (fall, level, scale) = _features(form, inputs.q, inputs.k, mask, state.level)
    x = _chunked(form, Q, K, inputs, _decays(inputs, fall, mask, Q.dtype))
    core = _sums if x.beta is None else _delta
    numerators, denominators, S, z = core(x, state.S, state.z, form.normalize == "sum")
    numerators = _in_time(numerators)
    factor = normalizer(form.normalize, numerators, None if denominators is None else _in_time(denominators), scale)
    return State(S, z, level), ops.cast(numerators * factor, inputs.v.dtype), factor


def _segment_gradient(
    form: _Form,
    inputs: _Inputs,
    mask: Tensor | None,
    state: State,
    out: Tensor,
    factor: Tensor,
    upstream: Tensor,
    d_state: tuple[Tensor, Tensor],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """The gradients of the state before a segment, from those of the state after it, and of the inputs."""
    (Q, K), (fall, _, _), pullback = vjp(lambda q, k: _features(form, q, k, mask, state.level), inputs.q, inputs.k)
    x = _chunked(form, Q, K, inputs, _decays(inputs, fall, mask, Q.dtype))
    dN, d_sums = _factor_gradient(form, out, factor, upstream)
    dN, d_sums = _chunks(dN, x.Q.shape[3]), None if d_sums is None else _chunks(d_sums, x.Q.shape[3])
    core = _sums_gradient if x.beta is None else _delta_gradient
    dx, d_state = core(x, state.S, state.z, dN, d_sums, *d_state)
    dQ, dK, dV, dg, d_beta = (None if d is None else _in_time(d) for d in dx)
    gradients = [*pullback((dQ, dK)), ops.cast(dV, inputs.v.dtype)]
    if inputs.log_decay is not None:
        dg = dg[..., 0] if mask is None else dg[..., 0] * mask[:, :, None]
        gradients.append(ops.cast(dg, inputs.log_decay.dtype))
    if inputs.beta is not None:
        gradients.append(ops.cast(d_beta[..., 0], inputs.beta.dtype))
    return d_state, tuple(gradients)


# --- all keys -------------------------------------------------------------------------------------------------


def full_attention(
    q: Tensor, k: Tensor, v: Tensor, feature_map: Any, normalize: str | None, mask: Tensor | None = None
) -> Tensor:
    """All queries see all keys: one state, written by all segments before the first one reads it.

    Args:
        q: Queries, (batch, time, heads, dim), any float type.
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        feature_map: As in :func:`lib.attention.linear_attention`.
        normalize: ``"sum"``, ``"rms"`` or None, as there.
        mask: Keys to look at, boolean, (batch, keys).

    Returns:
        (batch, time, heads, values), of the type of v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit, or an option is unknown.

    Example:
        >>> x = np.ones((1, 5, 1, 1), "float32")
        >>> ops.convert_to_numpy(full_attention(x, x, x, None, None))[0, :, 0, 0].tolist()
        [5.0, 5.0, 5.0, 5.0, 5.0]
    """
    q, k, v, mask = checked(q, k, v, mask, causal=False)
    signed = known_normalization(normalize) != "sum"
    form = _Form(find_feature_map(feature_map, q.shape[-1], signed, (q, k)), normalize, CHUNK)
    return _trained_full(form, q, k, v, mask)


def _trained_full(form: _Form, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """N = Q S, δ = Q z of S = Kᵀ V, z = Kᵀ 1, and back: one pass over the keys, one over the queries, each way."""
    summed = form.normalize == "sum"

    @ops.custom_gradient
    def attend(q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> tuple[Tensor, Callable]:
        T, count, padding = segments(q, SEGMENT)
        T_k, count_k, padding_k = segments(k, SEGMENT)
        queries, (keys, seen) = padded(q, padding), _padded((k, v), mask[0] if mask else None, padding_k)
        start = _empty(form, k, v)
        level = _highest(form, keys[0], seen) if form.feature_map.logarithmic else start.level

        def write(i: Tensor, state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
            (k, v), S, z = segment(keys, i, T_k), *state
            K = _by_head(_key_features(form, k, segment(seen, i, T_k), level)[0])
            S = S + ops.matmul(_transposed(K), _by_head(widened(v)))
            return (S, z + ops.sum(K, axis=2) if summed else z), ()

        (S, z), _ = loop(write, (start.S, start.z), count_k)

        def read(i: Tensor, _: tuple[()]) -> tuple[tuple[()], tuple[Tensor, Tensor]]:
            Q, scale = _query_features(form, segment(queries, i, T))
            Q, scale = _by_head(Q), None if scale is None else scale + level[:, None, :, None]
            N, sums = _by_head(ops.matmul(Q, S)), _by_head(ops.matmul(Q, z[..., None])) if summed else None
            factor = normalizer(form.normalize, N, sums, scale)
            return (), (ops.cast(N * factor, v.dtype), factor)

        _, (out, factor) = loop(read, (), count)
        kept = ops.stop_gradient(out)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            results = (kept, factor, padded(args[0] if upstream is None else upstream, padding))

            def read_gradient(i: Tensor, d_state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple]:
                dS, dz = d_state
                (Q,), _, pullback = vjp(lambda q: (_query_features(form, q)[:1], None), segment(queries, i, T))
                dN, d_sums = _factor_gradient(form, *segment(results, i, T))
                Q, dN = _by_head(Q), _by_head(dN)
                dQ, dS = ops.matmul(dN, _transposed(S)), dS + ops.matmul(_transposed(Q), dN)
                if summed:
                    d_sums = _by_head(d_sums)
                    dQ, dz = dQ + d_sums * z[:, :, None], dz + ops.matmul(_transposed(Q), d_sums)[..., 0]
                return (dS, dz), tuple(pullback((_by_head(dQ),)))

            (dS, dz), (dq,) = loop(read_gradient, (ops.zeros_like(S), ops.zeros_like(z)), count)

            def write_gradient(i: Tensor, _: tuple[()]) -> tuple[tuple[()], tuple[Tensor, ...]]:
                (k, v), here = segment(keys, i, T_k), segment(seen, i, T_k)
                (K,), _, pullback = vjp(lambda k: (_key_features(form, k, here, level)[:1], None), k)
                dK = ops.matmul(_by_head(widened(v)), _transposed(dS))
                dK = dK + dz[:, :, None] if summed else dK
                dV = _by_head(ops.matmul(_by_head(K), dS))
                return (), (*pullback((_by_head(dK),)), ops.cast(dV, v.dtype))

            _, (dk, dv) = loop(write_gradient, (), count_k)
            time, known = ops.shape(q)[1], ops.shape(k)[1]
            return dq[:, :time], dk[:, :known], dv[:, :known], *map(ops.zeros_like, mask)

        return out[:, : ops.shape(q)[1]], gradient

    return attend(q, k, v, *([] if mask is None else [ops.cast(mask, widened(k[:1, :1, :1, :1]).dtype)]))


def _highest(form: _Form, k: Tensor, seen: Tensor | None) -> Tensor:
    """The largest logarithm of a feature of a key, (batch, heads)."""
    best = ops.max(form.feature_map.apply(widened(k)), axis=-1)
    best = best if seen is None else ops.where(seen[:, :, None] > 0, best, NOTHING)
    return ops.stop_gradient(ops.max(best, axis=1))


def _by_head(x: Tensor) -> Tensor:
    """(batch, T, heads, ·) ↔ (batch, heads, T, ·)."""
    return ops.transpose(x, (0, 2, 1, 3))


# --- within a segment: features, decays, chunks, normalisation ------------------------------------------------


def _features(
    form: _Form, q: Tensor, k: Tensor, mask: Tensor | None, level: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor | None, Tensor, Tensor | None]]:
    """Features of queries and keys; and the decay of the state, its level after, and the scale of the outputs."""
    Q, q_level = _query_features(form, q)
    K, so_far = _key_features(form, k, mask, level)
    if so_far is None:
        return (Q, K), (None, level, None)
    before = ops.concatenate([ops.cast(level, K.dtype)[:, None], so_far[:, :-1]], axis=1)
    fall = ops.where(before > NOTHING / 2, before - so_far, 0)  # before the first key the state is empty
    return (Q, K), (fall, so_far[:, -1], q_level + so_far[..., None])


def _query_features(form: _Form, q: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features (batch, T, heads, features); and the logarithm of what was taken out of each query's, or None."""
    q = form.feature_map.apply(widened(q))
    if not form.feature_map.logarithmic:
        return q, None
    level = ops.stop_gradient(ops.max(q, axis=-1, keepdims=True))
    return ops.exp(q - level), level


def _key_features(form: _Form, k: Tensor, mask: Tensor | None, level: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features (batch, T, heads, features); and the logarithm of what was taken out of each key's, or None.

    The exponentials of logarithmic features are taken relative to the largest one so far. When a larger one comes,
    the state is divided by the quotient of the two: a decay like any other. Levels cancel, so none has a gradient.
    """
    k = form.feature_map.apply(widened(k))
    seen, so_far = None if mask is None else mask[:, :, None, None], None
    if form.feature_map.logarithmic:
        best = ops.max(k, axis=-1)
        best = best if seen is None else ops.where(seen[..., 0] > 0, best, NOTHING)
        so_far = ops.stop_gradient(ops.maximum(_running_max(best), ops.cast(level, k.dtype)[:, None]))
        k = k - so_far[..., None]
        k = ops.exp(k if seen is None else ops.where(seen > 0, k, 0))
    return k if seen is None else k * ops.cast(seen, k.dtype), so_far


def _running_max(x: Tensor) -> Tensor:
    """The largest entry so far along axis 1 of (batch, T, heads), in log₂ T steps."""
    shift, T = 1, x.shape[1]
    while shift < T:
        x = ops.maximum(x, ops.pad(x[:, :-shift], ((0, 0), (shift, 0), (0, 0)), constant_values=NOTHING))
        shift *= 2
    return x


def _decays(inputs: _Inputs, fall: Tensor | None, mask: Tensor | None, dtype: str) -> Tensor | None:
    """The logarithm of what each token leaves of the state, (batch, T, heads); None for 0."""
    if inputs.log_decay is None:
        return fall
    log_decay = ops.cast(inputs.log_decay, dtype)
    log_decay = log_decay if mask is None else log_decay * mask[:, :, None]
    return log_decay if fall is None else log_decay + fall


class _Chunks(NamedTuple):
    """A segment, (batch, heads, chunks, C, ·), the last two with one column, or None."""

    Q: Tensor
    K: Tensor
    V: Tensor
    log_decay: Tensor | None
    beta: Tensor | None


def _chunked(form: _Form, Q: Tensor, K: Tensor, inputs: _Inputs, log_decay: Tensor | None) -> _Chunks:
    C = min(form.chunk, Q.shape[1])
    columns = (None if x is None else widened(x)[..., None] for x in (log_decay, inputs.beta))
    return _Chunks(*(None if x is None else _chunks(x, C) for x in (Q, K, widened(inputs.v), *columns)))


def _chunks(x: Tensor, C: int) -> Tensor:
    """(batch, T, heads, ·) → (batch, heads, chunks, C, ·)."""
    x = ops.reshape(x, (-1, x.shape[1] // C, C, *x.shape[2:]))
    return ops.transpose(x, (0, 3, 1, 2, 4))


def _in_time(x: Tensor) -> Tensor:
    """(batch, heads, chunks, C, ·) → (batch, T, heads, ·)."""
    heads, chunks, C, values = x.shape[1:]
    return ops.reshape(ops.transpose(x, (0, 2, 3, 1, 4)), (-1, chunks * C, heads, values))


def normalizer(normalize: str | None, N: Tensor, sums: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """What numerators are multiplied by; 0 where it would be 1/0.

    Args:
        normalize: ``"sum"``, ``"rms"`` or None.
        N: The numerators: sums over the keys, (..., values).
        sums: The denominators: sums of the weights, (..., 1); used for ``"sum"``.
        scale: Logarithm of what was taken out of both, (..., 1); None for 0.

    Returns:
        (..., 1).

    Example:
        >>> float(normalizer("sum", np.ones((1, 2), "float32"), np.full((1, 1), 4.0, "float32"))[0, 0])
        0.25
    """
    if normalize == "sum":
        return ops.where(sums == 0, 0, 1 / ops.where(sums == 0, 1, sums))
    if normalize == "rms":
        squares = ops.mean(ops.square(N), axis=-1, keepdims=True)
        return ops.where(squares > 0, ops.rsqrt(ops.where(squares > 0, squares, 1)), 0)
    return ops.ones_like(N[..., :1]) if scale is None else ops.exp(scale)


def _factor_gradient(form: _Form, out: Tensor, factor: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor | None]:
    """The gradients of numerators and denominators, from the outputs and what was multiplied into them."""
    out, upstream = ops.cast(out, factor.dtype), ops.cast(upstream, factor.dtype)
    if form.normalize is None:
        return upstream * factor, None
    along = out * upstream
    if form.normalize == "sum":
        return upstream * factor, -factor * ops.sum(along, axis=-1, keepdims=True)
    return factor * (upstream - out * ops.mean(along, axis=-1, keepdims=True)), None


# --- within a segment: the formulas at the head of this module ------------------------------------------------


class _Decay(NamedTuple):
    """The factors that a sum of log γ makes; None for 1."""

    D: Tensor  # (C, C), or (batch, heads, chunks, C, C)
    into: Tensor | None  # e^g, (..., C, 1)
    out_of: Tensor | None  # e^{g_C − g}, (..., C, 1)
    carry: Tensor  # from what chunk i writes to the state before chunk j, (chunks + 1, chunks + 1) or more axes


def _decay_factors(x: _Chunks) -> _Decay:
    C, N = x.Q.shape[3], x.Q.shape[2] + 1
    if x.log_decay is None:
        return _Decay(_lower(C, x.Q), None, None, _lower(N, x.Q))
    g = ops.cumsum(x.log_decay[..., 0], axis=-1)
    total = g[..., -1:]
    G = ops.pad(ops.cumsum(total[..., 0], axis=-1), ((0, 0), (0, 0), (1, 0)))
    return _Decay(_differences(g), ops.exp(g)[..., None], ops.exp(total - g)[..., None], _differences(G))


def _lower(n: int, like: Tensor) -> Tensor:
    return ops.cast(np.tril(np.ones((n, n), "float32")), like.dtype)


def _differences(g: Tensor) -> Tensor:
    """e^{g_i − g_j} for j ≤ i, else 0."""
    lower = np.tril(np.ones((g.shape[-1],) * 2, bool))
    return ops.exp(ops.where(lower, g[..., :, None] - g[..., None, :], -math.inf))


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _transposed(x: Tensor) -> Tensor:
    return ops.swapaxes(x, -1, -2)


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


def _states(x: _Chunks, decay: _Decay, S: Tensor, z: Tensor, summed: bool) -> tuple[Tensor, Tensor]:
    """S and z before each chunk and after the last one."""
    K = _times(x.K, decay.out_of)
    S = _carried(decay.carry, S, ops.matmul(_transposed(K), x.V))
    return S, _carried(decay.carry, z, ops.sum(K, axis=3)) if summed else None


def _sums(x: _Chunks, S: Tensor, z: Tensor, summed: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Numerators, denominators or None, and the state after: u = v."""
    decay = _decay_factors(x)
    Q, (all_S, all_z) = _times(x.Q, decay.into), _states(x, decay, S, z, summed)
    A = decay.D * ops.matmul(x.Q, _transposed(x.K))
    N = ops.matmul(A, x.V) + ops.matmul(Q, all_S[:, :, :-1])
    if not summed:
        return N, None, all_S[:, :, -1], z
    sums = ops.sum(A, axis=-1, keepdims=True) + ops.matmul(Q, all_z[:, :, :-1, :, None])
    return N, sums, all_S[:, :, -1], all_z[:, :, -1]


def _sums_gradient(
    x: _Chunks, S: Tensor, z: Tensor, dN: Tensor, d_sums: Tensor | None, dS: Tensor, dz: Tensor
) -> tuple[_Chunks, tuple[Tensor, Tensor]]:
    """The gradients of the inputs of :func:`_sums`, from those of its results."""
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
    return _Chunks(dQ, dK, dV, dg, None), (dS[:, :, 0], dz[:, :, 0] if summed else dz)


def _delta(x: _Chunks, S: Tensor, z: Tensor, _: bool) -> tuple[Tensor, None, Tensor, Tensor]:
    """The same in one chunk, with the u that solve u_i = β_i (v_i − e^{g_i} Sᵀk_i − Σ_{j<i} D_ij (k_i·k_j) u_j)."""
    decay = _decay_factors(x)
    rest = np.tril(np.ones((x.Q.shape[3],) * 2, "float32"), -1)
    known = ops.cast(rest, S.dtype) * decay.D * ops.matmul(x.K, _transposed(x.K))
    before = x.V - ops.matmul(_times(x.K, decay.into), S[:, :, None])
    U = ops.solve_triangular(ops.eye(x.Q.shape[3], dtype=S.dtype) + x.beta * known, x.beta * before, lower=True)
    N, _, S, _ = _sums(x._replace(V=U), S, z, False)
    return N, None, S, z


def _delta_gradient(
    x: _Chunks, S: Tensor, z: Tensor, dN: Tensor, _: None, dS: Tensor, dz: Tensor
) -> tuple[_Chunks, tuple[Tensor, Tensor]]:
    """The gradients of the inputs of :func:`_delta`, by the backend."""
    given = [name for name, part in zip(_Chunks._fields, x, strict=True) if part is not None]

    def again(S: Tensor, *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], None]:
        N, _, S, _ = _delta(x._replace(**dict(zip(given, tensors, strict=True))), S, z, False)
        return (N, S), None

    _, _, pullback = vjp(again, S, *(part for part in x if part is not None))
    dS, *gradients = pullback((dN, dS))
    return x._replace(**dict(zip(given, gradients, strict=True))), (dS, dz)


_trained, _trained_full, _forward = compiled(_trained), compiled(_trained_full), compiled(_forward)


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
) -> tuple[_Form, _Inputs, Tensor | None]:
    """The arguments of a causal form, or an error that names the one that is wrong."""
    q, k, v, mask = checked(q, k, v, mask, causal=True)
    if known_normalization(normalize) == "sum" and beta is not None:
        raise ValueError("normalize must be 'rms' or None with the delta rule, whose weights have signs, got 'sum'")
    feature_map = find_feature_map(feature_map, q.shape[-1], normalize != "sum", (q, k))
    form = _Form(feature_map, normalize, positive_integer("chunk", chunk))
    of_tokens = []
    for name, x in (("log_decay", log_decay), ("beta", beta)):
        x = None if x is None else ops.convert_to_tensor(x)
        if x is not None:
            _require_shape(name, x, q.shape[:3], "(batch, time, heads)")
        of_tokens.append(x)
    return form, _Inputs(q, k, v, *of_tokens), mask


def checked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> tuple[Tensor, ...]:
    """q, k, v as tensors of floats and the mask as booleans.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        mask: (batch, keys), or None.
        causal: Whether ``keys`` must be ``time``.

    Raises:
        ValueError: A shape or type does not fit, or there is no token, head or feature.

    Example:
        >>> x = np.zeros((1, 3, 2, 4), "float32")
        >>> keras.backend.standardize_dtype(checked(x, x, x, np.ones((1, 3)), causal=True)[3].dtype)
        'bool'
    """
    q, k, v = (of_rank(4, name, x) for name, x in (("q", q), ("k", k), ("v", v)))
    for name, x in (("q", q), ("k", k), ("v", v)):
        if 0 in x.shape[1:]:
            raise ValueError(f"{name} must have at least one token, head and feature, got shape {tuple(x.shape)}")
    batch, time, heads, dim = q.shape
    _require_shape("k", k, (batch, time if causal else None, heads, dim), "that of q" if causal else "to fit q")
    _require_shape("v", v, (batch, k.shape[1], heads, None), "that of k but for the last axis")
    if mask is not None:
        mask = ops.cast(ops.convert_to_tensor(mask), "bool")
        _require_shape("mask", mask, k.shape[:2], "(batch, keys)")
    return q, k, v, mask


def known_normalization(normalize: str | None) -> str | None:
    """The option, if it is one.

    Args:
        normalize: ``"sum"``, ``"rms"`` or None.

    Raises:
        ValueError: It is something else.

    Example:
        >>> known_normalization("sum")
        'sum'
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize must be one of {', '.join(map(repr, NORMALIZATIONS))}, got {normalize!r}")
    return normalize


def of_rank(rank: int, name: str, x: Tensor) -> Tensor:
    """The tensor, if it is one of floats and has the right number of axes.

    Args:
        rank: 4 for (batch, time, heads, dim), 3 for one token.
        name: The argument, for the error.
        x: Its value.

    Raises:
        ValueError: It is something else.

    Example:
        >>> tuple(of_rank(3, "q", np.zeros((1, 2, 4), "float32")).shape)
        (1, 2, 4)
    """
    x = ops.convert_to_tensor(x)
    if len(x.shape) != rank:
        axes = "(batch, time, heads, dim)" if rank == 4 else "(batch, heads, dim)"
        raise ValueError(f"{name} must have shape {axes}, got {tuple(x.shape)}")
    if "float" not in keras.backend.standardize_dtype(x.dtype):
        raise ValueError(f"{name} must be of a float type, got {keras.backend.standardize_dtype(x.dtype)}")
    return x


def _require_shape(name: str, x: Tensor, expected: Shape, meaning: str) -> None:
    got = tuple(x.shape)
    fits = len(got) == len(expected) and all(
        g == e for g, e in zip(got, expected, strict=True) if None not in (g, e)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {tuple(expected)}, {meaning}, got {got}")
