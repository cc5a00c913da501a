"""The skeleton of all linear attention: a state that each token rewrites, in chunks, with its own gradient.

With features φ(q), φ(k) written q and k, a causal query reads a state that has seen the tokens up to its own::

    S ← γ_i S + k uᵀ,    z ← γ_i z + k,    out = qᵀS / qᵀz.

u = v, or u = β (v − γ_i Sᵀk) for the delta rule. Without φ and β there may be a γ for each feature, a row of S. A
sequence is worked on in chunks, by products of matrices: the
formulas, and those of their gradients, are in :mod:`lib.attention.chunks`.

**Tiles.** Time is cut into tiles of several chunks, one loop over them forward, one backward. What is kept
in between: the inputs, the outputs, one factor a token, and the state before each tile. Derivatives of the gradient
are those of the same formulas in one tile.

Tensors have the shape (batch, time, heads, dim). Sums and states are float32 or wider, whatever the inputs are.

Source: Hua et al. 2022 (arXiv 2202.10447), section 3.2; Yang et al. 2023, 2024 (arXiv 2312.06635, 2406.06484,
2412.06464).
"""

from __future__ import annotations

import math
import zlib
from typing import Any, NamedTuple

import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._arguments import positive_integer
from .._backend import float32_or_wider, is_known, jit, vjp
from .._tensors import as_tensor, or_nan, require, require_shape
from .arguments import checked, checked_gate, known_normalization, of_one_type, of_rank, removed_tokens
from .bidirectional import (
    State,
    by_range,
    empty_state,
    exactly,
    in_range,
    normalizer,
    normalizer_gradient,
    sure_of,
    whole_tiles,
)
from .chunks import (
    Chunks,
    chunk_sums,
    chunk_sums_gradient,
    delta_sums,
    delta_sums_gradient,
    feature_sums,
    feature_sums_gradient,
    least,
)
from .feature_maps import (
    NOTHING,
    FeatureMap,
    exact_map,
    find_feature_map,
    key_features,
    mapped,
    query_features,
)
from .tiling import TILE, loop, own_gradient, padded, shape_only, tile, tiles

__all__ = ["chunkwise_attention", "prefill", "recurrent_step"]

Tensor = Any

CHUNK = 64  # tokens whose pairs are looked at


class _Form(NamedTuple):
    """What is fixed before any number comes."""

    feature_map: FeatureMap
    normalize: str | None
    chunk: int
    tile: int  # the most tokens that are worked on at once
    number: int  # what a state says it was written by
    unsure: bool = False  # whether only the numbers tell if the features are in range


class _Tokens(NamedTuple):
    """(batch, time, heads, dim); two gates, (batch, time, heads[, dim]); the mask in numbers, (batch, time)."""

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
        log_decay: log γ ≤ 0, (batch, time, heads), −∞ to forget all; or, without φ and β, one for each feature,
            (batch, time, heads, dim); None for γ = 1.
        beta: β of the delta rule, in [0, 2], (batch, time, heads); None for u = v.
        chunk: Tokens in a chunk.

    Returns:
        (batch, time, heads, values), of the type of v. A query that sees no key gets 0.

    Raises:
        ValueError: A shape does not fit, a gate is out of range, or an option is unknown. Compiled code, which can
            raise no error for values, gives NaN in that row of the batch.

    Example:
        >>> x = np.ones((1, 5, 1, 1), "float32")
        >>> ops.convert_to_numpy(chunkwise_attention(x, x, x, None, None, chunk=2))[0, :, 0, 0].tolist()
        [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    form, x = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta, chunk)
    return x.v if shape_only(x.q) else _trained(in_range(form, x.q, x.k), x)


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State | None = None,
    *,
    feature_map: Any,
    normalize: str | None,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    chunk: int = CHUNK,
) -> tuple[Tensor, State]:
    """A stretch of tokens at once, and the state after it, from which :func:`recurrent_step` goes on.

    It is meant for generating text. To train, call the form itself, which has a gradient that saves memory. The
    forms have defaults, this function has none: a state says which form wrote it, and no other may go on from it.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, time, heads, dim).
        v: Values, (batch, time, heads, values).
        state: The state before the first token; None for an empty one.
        feature_map: As in :func:`lib.attention.linear_attention`; None for the forms without one.
        normalize: As in :func:`lib.attention.linear_attention`.
        mask: Tokens that count, boolean or 0 and 1, (batch, time).
        log_decay: log γ ≤ 0, (batch, time, heads[, dim]), of the forms whose state fades; None for γ = 1.
        beta: β, (batch, time, heads), of the delta rule; None for the other forms.
        chunk: As in :func:`lib.attention.linear_attention`.

    Returns:
        The outputs (batch, time, heads, values), and the state.

    Raises:
        ValueError: As the form; or the state is not one of this form. Compiled code, which can raise no error for
            values, gives NaN in that row of the batch.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 9, 2, 4)).astype("float32")
        >>> form = {"feature_map": "elu+1", "normalize": "sum"}
        >>> whole = chunkwise_attention(x, x, x, **form)
        >>> _, state = prefill(x[:, :8], x[:, :8], x[:, :8], **form)
        >>> last, state = recurrent_step(x[:, 8], x[:, 8], x[:, 8], state, **form)
        >>> bool(ops.max(ops.abs(last - whole[:, 8])) < 1e-5)
        True
    """
    form, x = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta, chunk)
    form, x, before = _before(form, x, state)
    out, _, last, _ = _forward(form, x, before)
    return out[:, : ops.shape(x.q)[1]], last


def recurrent_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: State | None = None,
    *,
    feature_map: Any,
    normalize: str | None,
    mask: Tensor | None = None,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, State]:
    """One token, in constant time and memory: the recurrence itself.

    Args:
        q: The query, (batch, heads, dim).
        k: The key, (batch, heads, dim).
        v: The value, (batch, heads, values).
        state: The state so far; None at the start.
        feature_map: As in :func:`lib.attention.linear_attention`; None for the forms without one.
        normalize: As in :func:`lib.attention.linear_attention`.
        mask: Rows whose state takes the token in, boolean or 0 and 1, (batch,).
        log_decay: log γ ≤ 0, (batch, heads[, dim]), of the forms whose state fades; None for γ = 1.
        beta: β, (batch, heads), of the delta rule; None for the other forms.

    Returns:
        The output (batch, heads, values), and the state after the token.

    Raises:
        ValueError: As :func:`prefill`.

    Example:
        >>> one, form = np.ones((1, 1, 1), "float32"), {"feature_map": "elu+1", "normalize": "sum"}
        >>> out, state = recurrent_step(one, one, 3 * one, **form)
        >>> out, state = recurrent_step(one, one, 5 * one, state, **form)
        >>> float(out[0, 0, 0]), tuple(state.S.shape)
        (4.0, (1, 1, 1, 1))
    """
    q, k, v = (ops.expand_dims(of_rank(3, name, x), 1) for name, x in (("q", q), ("k", k), ("v", v)))
    mask, log_decay, beta = (
        None if x is None else ops.expand_dims(as_tensor(name, x), 1)
        for name, x in (("mask", mask), ("log_decay", log_decay), ("beta", beta))
    )
    form, x = _arguments(q, k, v, feature_map, normalize, mask, log_decay, beta)
    form, x, before = _before(form, x, state)
    (Q, K), (fall, level, scale) = _features(form, x.q, x.k, x.mask, before.level)
    log_decay, u = _decays(x, fall), float32_or_wider(x.v)[:, 0]
    q, k, u, S, z = of_one_type(Q[:, 0], K[:, 0], u, before.S, before.z)
    if log_decay is not None:
        gamma = ops.exp(ops.cast(log_decay[:, 0], S.dtype))
        gamma = gamma if _by_feature(x) else gamma[..., None]
        S, z = gamma[..., None] * S, gamma * z
    if x.beta is not None:
        beta = ops.cast(x.beta[:, 0, :, None], S.dtype)
        u = beta * (u - ops.einsum("bhf,bhfe->bhe", k, S))
    S = S + k[..., :, None] * u[..., None, :]
    z = z + k if normalize == "sum" else z
    numerators, denominators = ops.einsum("bhf,bhfe->bhe", q, S), ops.sum(q * z, axis=-1, keepdims=True)
    scale = None if scale is None else ops.cast(scale[:, 0], S.dtype)
    factor = normalizer(normalize, numerators, denominators, scale)
    return ops.cast(numerators * factor, x.v.dtype), State(S, z, level, before.form)


def _before(form: _Form, x: _Tokens, state: State | None) -> tuple[_Form, _Tokens, State]:
    """The form by logarithms, the tokens, NaN where the state is foreign, and the state that they begin with."""
    form = form._replace(feature_map=exact_map(form.feature_map))
    if state is None:
        return form, x, empty_state(form.feature_map, x.k, x.v, form.number)
    if not isinstance(state, State):
        raise ValueError(f"state must be a State or None, got {state!r}")
    batch, _, heads, values = x.v.shape
    shapes = (batch, heads, None, values), (batch, heads, None), (batch, heads), (batch,)
    for name, part, shape in zip(State._fields, state, shapes, strict=True):
        require_shape(f"state.{name}", part, shape, to_fit="v")
    same = state.form == form.number
    rule = "state must be one that the same feature_map, normalize and gates wrote"
    require(ops.all(same), rule, lambda: "one of another form")
    return form, x if is_known(same) else x._replace(v=or_nan(x.v, same)), state


# --- forward and backward over the tiles -------------------------------------------------------------------


def _trained(form: _Form, x: _Tokens) -> Tensor:
    """The outputs, with the gradient of :func:`_backward`."""
    given = [name for name, part in zip(x._fields, x, strict=True) if part is not None]

    def tokens(tensors: tuple[Tensor, ...]) -> _Tokens:
        return _Tokens(**dict(zip(given, tensors, strict=True)))

    def run(form: _Form, x: _Tokens) -> tuple[Tensor, ...]:
        out, factor, _, states = _forward(form, x, empty_state(form.feature_map, x.k, x.v))
        return out, factor, *states

    def function(*tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = tokens(tensors)
        sure = sure_of(form, x.q, x.k)
        out, *kept = by_range(form, sure, lambda form: run(form, x))
        return out[:, : ops.shape(x.q)[1]], (out, *kept, *sure)

    def gradient(tensors: tuple[Tensor, ...], kept: tuple[Tensor, ...], upstream: Tensor) -> tuple[Tensor, ...]:
        x, (out, factor, S, z, level, *sure) = tokens(tensors), kept
        dx = by_range(form, sure, lambda form: _backward(form, x, (S, z, level), out, factor, upstream))
        return dx if x.mask is None else (*dx, ops.zeros_like(x.mask))

    def plain(*tensors: Tensor) -> Tensor:
        x = tokens(tensors)
        exact = exactly(form, x.q)
        return run(exact._replace(tile=exact.tile + form.chunk), x)[0][:, : ops.shape(x.q)[1]]

    return own_gradient(function, gradient, plain, tuple(part for part in x if part is not None))


def _in_tiles(form: _Form, x: _Tokens) -> tuple[int, Any, Any, _Tokens]:
    """Tokens in a tile, the number of tiles, the padding behind the last one, and what is padded with it."""
    time = x.q.shape[1]
    C = form.chunk if time is None else min(form.chunk, time)
    # the delta rule goes on chunk after chunk
    T, count, padding = tiles(x.q, C if x.beta is not None else max(C, form.tile // C * C), C)
    parts, mask = whole_tiles(x[:-1], x.mask, padding)
    return T, count, padding, _Tokens(*parts, mask)


def _forward(form: _Form, x: _Tokens, start: State) -> tuple[Tensor, Tensor, State, tuple[Tensor, ...]]:
    """All tiles, one after another.

    Returns:
        The outputs (batch, time, heads, values), padded to whole tiles; what was multiplied into them (..., 1);
        the last state; and the states before each tile, each part of them with the tiles on axis 1.
    """
    T, count, _, x = _in_tiles(form, x)

    def body(i: Tensor, sums: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        after, out, factor = _tile(form, tile(x, i, T), State(*sums, start.form))
        return after[:-1], (out, factor, *(ops.expand_dims(part, 1) for part in sums))

    last, (out, factor, *states) = loop(body, start[:-1], count)
    return out, factor, State(*last, start.form), tuple(states)


def _backward(
    form: _Form, x: _Tokens, states: tuple[Tensor, ...], out: Tensor, factor: Tensor, upstream: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of the tokens, from the last tile to the first."""
    time, (T, count, padding, x) = ops.shape(x.q)[1], _in_tiles(form, x)
    results = (out, factor, padded(upstream, padding))

    def body(i: Tensor, d_state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        state = State(*(part[:, 0] for part in tile(states, i, 1)), form.number)
        return _tile_gradient(form, tile(x, i, T), state, *tile(results, i, T), d_state)

    S, z, _ = states
    _, gradients = loop(body, (ops.zeros_like(S[:, 0]), ops.zeros_like(z[:, 0])), count, reverse=True)
    return tuple(g[:, :time] for g in gradients)


def _tile(form: _Form, x: _Tokens, state: State) -> tuple[State, Tensor, Tensor]:
    """The state after a tile, its outputs (batch, T, heads, values), and what was multiplied into them."""
    (Q, K), (fall, level, scale) = _features(form, x.q, x.k, x.mask, state.level)
    chunks = _chunked(form, Q, K, x, _decays(x, fall))
    core, _ = _sums(x)
    N, sums, S, z = core(chunks, state.S, state.z, form.normalize == "sum")
    N, sums = _in_time(N), None if sums is None else _in_time(sums)
    factor = normalizer(form.normalize, N, sums, scale)
    return State(S, z, level, state.form), ops.cast(N * factor, x.v.dtype), factor


def _tile_gradient(
    form: _Form,
    x: _Tokens,
    state: State,
    out: Tensor,
    factor: Tensor,
    upstream: Tensor,
    d_state: tuple[Tensor, Tensor],
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """The gradients of the state before a tile, from those of the state after it, and of the tokens."""
    (Q, K), (fall, _, _), pullback = vjp(lambda q, k: _features(form, q, k, x.mask, state.level), x.q, x.k)
    chunks = _chunked(form, Q, K, x, _decays(x, fall))
    dN, d_sums = normalizer_gradient(form.normalize, out, factor, upstream)
    dN, d_sums = _chunks(dN, chunks.Q.shape[3]), None if d_sums is None else _chunks(d_sums, chunks.Q.shape[3])
    _, core = _sums(x)
    d_chunks, d_state = core(chunks, state.S, state.z, dN, d_sums, *d_state)
    dQ, dK, dV, dg, d_beta = (None if d is None else _in_time(d) for d in d_chunks)
    gradients = [*pullback((dQ, dK)), ops.cast(dV, x.v.dtype)]
    if x.log_decay is not None:
        dg = dg if _by_feature(x) else dg[..., 0]
        gradients.append(ops.where(x.log_decay > least(x.log_decay), dg, 0))
    if x.beta is not None:
        gradients.append(d_beta[..., 0])
    return d_state, tuple(gradients)


def _by_feature(x: _Tokens) -> bool:
    """Whether there is a γ for each feature."""
    return x.log_decay is not None and len(x.log_decay.shape) == 4


def _sums(x: _Tokens) -> tuple[Any, Any]:
    """The formulas of a tile, and those of its gradient."""
    if x.beta is not None:
        return delta_sums, delta_sums_gradient
    return (feature_sums, feature_sums_gradient) if _by_feature(x) else (chunk_sums, chunk_sums_gradient)


# --- from tokens to chunks, and back --------------------------------------------------------------------------


def _features(
    form: _Form, q: Tensor, k: Tensor, mask: Tensor | None, level: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor | None, Tensor, Tensor | None]]:
    """Features of queries and keys; and the decay of the state, its level after, and the scale of the outputs."""
    Q, q_level = query_features(form.feature_map, q, form.normalize)
    K, so_far = key_features(form.feature_map, k, mask, level)
    if so_far is None:
        return (Q, K), (None, level, None)
    before = ops.concatenate([ops.cast(level, K.dtype)[:, None], so_far[:, :-1]], axis=1)
    fall = ops.where(before > NOTHING / 2, before - so_far, 0)  # before the first key the state is empty
    return (Q, K), (fall, so_far[:, -1], q_level + so_far[..., None])


def _decays(x: _Tokens, fall: Tensor | None) -> Tensor | None:
    """The logarithm of what each token leaves of the state, (batch, T, heads), finite; None for 0."""
    log_decay = fall if x.log_decay is None or fall is None else x.log_decay + fall
    log_decay = x.log_decay if log_decay is None else log_decay
    return None if log_decay is None else ops.maximum(log_decay, least(log_decay))


def _chunked(form: _Form, Q: Tensor, K: Tensor, x: _Tokens, log_decay: Tensor | None) -> Chunks:
    C = min(form.chunk, Q.shape[1])
    columns = (y if y is None or len(y.shape) == 4 else y[..., None] for y in (log_decay, x.beta))
    return Chunks(*(None if y is None else _chunks(y, C) for y in (Q, K, float32_or_wider(x.v), *columns)))


def _chunks(x: Tensor, C: int) -> Tensor:
    """(batch, T, heads, ·) → (batch, heads, chunks, C, ·)."""
    x = ops.reshape(x, (-1, x.shape[1] // C, C, *x.shape[2:]))
    return ops.transpose(x, (0, 3, 1, 2, 4))


def _in_time(x: Tensor) -> Tensor:
    """(batch, heads, chunks, C, ·) → (batch, T, heads, ·)."""
    heads, chunks, C, values = x.shape[1:]
    return ops.reshape(ops.transpose(x, (0, 2, 3, 1, 4)), (-1, chunks * C, heads, values))


_trained, _forward = map(jit(static_argnums=0), (_trained, _forward))


# --- arguments ------------------------------------------------------------------------------------------------


def _arguments(
    q: Any,
    k: Any,
    v: Any,
    feature_map: Any,
    normalize: str | None,
    mask: Any,
    log_decay: Any = None,
    beta: Any = None,
    chunk: int = CHUNK,
) -> tuple[_Form, _Tokens]:
    """The arguments of a causal form, or an error that names the one that is wrong.

    What is masked is left out. A gate, or the values, are NaN in the rows where compiled code finds them wrong.
    """
    if known_normalization(normalize) == "sum" and beta is not None:
        raise ValueError("normalize must be 'rms' or None with the delta rule, whose weights have signs, got 'sum'")
    q, k, v, mask, valid = checked(q, k, v, mask, causal=True)
    q, k, v = removed_tokens(mask, q, k, v)
    dtype = float32_or_wider(q[:1, :1, :1, :1]).dtype
    if log_decay is not None:
        plain = feature_map is None and beta is None
        log_decay = checked_gate("log_decay", log_decay, q, mask, dtype, -math.inf, 0, by_feature=plain)
    if beta is not None:
        beta = checked_gate("beta", beta, q, mask, dtype, 0, 2)
    given = find_feature_map(feature_map, q.shape[-1], normalize != "sum")
    wide = log_decay is not None and len(log_decay.shape) == 4
    gate = "by feature" if wide else log_decay is None
    name = (given.name, given.logarithmic, q.shape[-1], normalize, gate, beta is None)
    number = zlib.crc32(repr(name).encode()) >> 1  # 31 bits
    feature_map, q, k = mapped(given, q, k)
    chunk = positive_integer("chunk", chunk)
    form = _Form(feature_map, normalize, chunk, TILE, number)
    mask = None if mask is None else ops.cast(mask, dtype)
    v = v if valid is None else or_nan(v, valid)
    return form, _Tokens(q, k, v, log_decay, beta, mask)
