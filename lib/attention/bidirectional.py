"""Linear attention in which all queries see all keys: one state, written once and read by every query.

With features φ(q), φ(k) written q and k, and rows of matrices for tokens,

    S = KᵀV,     z = Kᵀ1,               the state
    N = Q S,     δ = Q z,     out = N/δ.

The associative law is all there is to it: (Q Kᵀ) V would be time × time. Let dN, dδ be the gradients of the
numerators and denominators. Then those of the state and of the tokens are

    dS = Qᵀ dN,                         dz = Qᵀ dδ,
    dQ = dN Sᵀ + dδ zᵀ,                 dK = V dSᵀ + 1 dzᵀ,      dV = K dS.

Both ways time is cut into tiles, whose features fit into the cache of a core: what is kept for the gradient is
the inputs, the outputs, the state, and one factor a query. Only φ is differentiated by the backend. Derivatives of
the gradient are those of the formulas above in one tile.

Here too stands what the causal forms of :mod:`lib.attention.chunkwise` share with this one: how outputs are
normalized, and when weights are computed by their logarithms.

Source: Shen et al. 2018 (arXiv 1812.01243); Katharopoulos et al. 2020 (arXiv 2006.16236), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from .._backend import float32_or_wider, is_known, jit, largest_along, vjp
from .._tensors import or_nan
from .arguments import checked, finite_queries, known_normalization, removed
from .feature_maps import (
    NOTHING,
    FeatureMap,
    exact_map,
    find_feature_map,
    highest,
    key_features,
    largest,
    mapped,
    query_features,
    within_range,
)
from .tiling import TILE, loop, own_gradient, padded, shape_only, tile, tiles

__all__ = [
    "State",
    "by_range",
    "empty_state",
    "exactly",
    "full_attention",
    "in_range",
    "normalizer",
    "normalizer_gradient",
    "sure_of",
    "whole_tiles",
]

Tensor = Any


class State(NamedTuple):
    """What a linear form remembers of all keys and values; its size does not depend on their number.

    For logarithmic features S and z are divided by e^level, and so are those of elu + 1.

    Attributes:
        S: Σ φ(k) vᵀ, or as a causal form rewrites it, (batch, heads, features, values).
        z: Σ φ(k), likewise, (batch, heads, features); 0 unless outputs are divided by their sum.
        level: The largest logarithm of a feature of a key, (batch, heads); unused for other features.
        form: A number for what wrote the state: feature map, normalization and gates. Another form must not go on
            from it. Integers, (batch,).
    """

    S: Tensor
    z: Tensor
    level: Tensor
    form: Tensor


def empty_state(feature_map: FeatureMap, k: Tensor, v: Tensor, form: int = 0) -> State:
    """The state without any key.

    Args:
        feature_map: φ.
        k: Keys, (batch, keys, heads, dim), of which only the shape matters.
        v: Values, (batch, keys, heads, values), likewise.
        form: The number of the form.

    Example:
        >>> x = ops.ones((2, 5, 3, 4))
        >>> tuple(empty_state(find_feature_map("1+cos", 4), x, x).S.shape)
        (2, 3, 5, 4)
    """
    features = feature_map.apply(float32_or_wider(ops.ones_like(k[:, :1])))[:, 0]
    z = ops.zeros_like(features)  # (batch, heads, features)
    S, level = z[..., None] * ops.zeros((v.shape[-1],), z.dtype), ops.full_like(z[..., 0], NOTHING)
    return State(S, z, level, ops.cast(z[:, 0, 0], "int32") + form)


def full_attention(
    q: Tensor, k: Tensor, v: Tensor, feature_map: Any, normalize: str | None, mask: Tensor | None = None
) -> Tensor:
    """All queries see all keys, with the gradient of this module.

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
        >>> x = ops.ones((1, 5, 1, 1))
        >>> ops.convert_to_numpy(full_attention(x, x, x, None, None))[0, :, 0, 0].tolist()
        [5.0, 5.0, 5.0, 5.0, 5.0]
    """
    signed = known_normalization(normalize) != "sum"
    q, k, v, mask, valid = checked(q, k, v, mask, causal=False)
    if shape_only(q):
        return ops.cast(q[..., :1], v.dtype) * v[:, :1]
    (k, v), seen, broken = removed(mask, k, v), [], None
    if mask is not None:
        q, broken = finite_queries(q)
        seen = [ops.cast(mask, float32_or_wider(k[:1, :1, :1, :1]).dtype)]
    feature_map, q, k = mapped(find_feature_map(feature_map, q.shape[-1], signed), q, k)
    out = _trained(in_range(_Form(feature_map, normalize, TILE), q, k), q, k, v, seen)
    out = out if broken is None else out + ops.cast(broken, out.dtype)
    return out if valid is None else or_nan(out, valid)


class _Form(NamedTuple):
    """What is fixed before any number comes."""

    feature_map: FeatureMap
    normalize: str | None
    tile: int  # the most tokens that are worked on at once
    unsure: bool = False  # whether only the numbers tell if the features are in range


def _trained(form: _Form, q: Tensor, k: Tensor, v: Tensor, seen: list[Tensor]) -> Tensor:
    """The outputs, with the gradient at the head of this module; `seen` holds the mask in numbers, if any."""

    def function(q: Tensor, k: Tensor, v: Tensor, *seen: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        def attend(form: _Form) -> tuple[Tensor, ...]:
            state = _written(form, k, v, *seen)
            return *_read(form, q, state, v.dtype), *state

        sure = sure_of(form, q, k)
        out, *kept = by_range(form, sure, attend)
        return out[:, : ops.shape(q)[1]], (out, *kept, *sure)

    def gradient(x: tuple[Tensor, ...], kept: tuple[Tensor, ...], upstream: Tensor) -> tuple[Tensor, ...]:
        (q, k, v, *seen), (out, factor, S, z, level, number, *sure) = x, kept
        state = State(S, z, level, number)

        def slopes(form: _Form) -> tuple[Tensor, ...]:
            dq, dS, dz = _read_gradient(form, q, state, out, factor, upstream)
            return dq, *_written_gradient(form, k, v, *seen, state=state, dS=dS, dz=dz)

        return *by_range(form, sure, slopes), *map(ops.zeros_like, seen)

    def plain(q: Tensor, k: Tensor, v: Tensor, *seen: Tensor) -> Tensor:
        exact = exactly(form, q, k)
        return _read(exact, q, _written(exact, k, v, *seen), v.dtype)[0][:, : ops.shape(q)[1]]

    return own_gradient(function, gradient, plain, (q, k, v, *seen))


def _written(form: _Form, k: Tensor, v: Tensor, mask: Tensor | None = None) -> State:
    """The state of all keys: S = KᵀV, z = Kᵀ1."""
    T, count, padding = tiles(k, form.tile)
    start, ((k, v), mask) = empty_state(form.feature_map, k, v), whole_tiles((k, v), mask, padding)
    level = start.level
    if form.feature_map.logarithmic:
        level = largest_along(highest(form.feature_map.apply(float32_or_wider(k)), mask), 1)

    def body(i: Tensor, state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
        k_i, v_i, mask_i = tile((k, v, mask), i, T)
        (S, z), K = state, _by_head(key_features(form.feature_map, k_i, mask_i, level)[0])
        S = S + ops.matmul(_transposed(K), _by_head(float32_or_wider(v_i)))
        return (S, z + ops.sum(K, axis=2) if form.normalize == "sum" else z), ()

    (S, z), _ = loop(body, (start.S, start.z), count)
    return State(S, z, level, start.form)


def _read(form: _Form, q: Tensor, state: State, dtype: str) -> list[Tensor]:
    """N = Q S and δ = Q z, as outputs (batch, time, heads, values) and what was multiplied into them (..., 1)."""
    T, count, padding = tiles(q, form.tile)
    q = padded(q, padding)

    def body(i: Tensor, _: tuple[()]) -> tuple[tuple[()], tuple[Tensor, Tensor]]:
        Q, scale = query_features(form.feature_map, tile(q, i, T), form.normalize)
        scale = None if scale is None else scale + state.level[:, None, :, None]
        Q, sums = _by_head(Q), None
        N = _by_head(ops.matmul(Q, state.S))
        if form.normalize == "sum":
            sums = _by_head(ops.matmul(Q, state.z[..., None]))
        factor = normalizer(form.normalize, N, sums, scale)
        return (), (ops.cast(N * factor, dtype), factor)

    return loop(body, (), count)[1]


def _read_gradient(
    form: _Form, q: Tensor, state: State, out: Tensor, factor: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the queries, of S and of z."""
    (T, count, padding), time = tiles(q, form.tile), ops.shape(q)[1]
    q, results = padded(q, padding), (out, factor, padded(upstream, padding))

    def body(i: Tensor, d_state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor]]:
        dS, dz = d_state
        (Q,), _, pullback = vjp(
            lambda q: (query_features(form.feature_map, q, form.normalize)[:1], None), tile(q, i, T)
        )
        dN, d_sums = normalizer_gradient(form.normalize, *tile(results, i, T))
        Q, dN = _by_head(Q), _by_head(dN)
        dQ, dS = ops.matmul(dN, _transposed(state.S)), dS + ops.matmul(_transposed(Q), dN)
        if d_sums is not None:
            d_sums = _by_head(d_sums)
            dQ, dz = dQ + d_sums * state.z[:, :, None], dz + ops.matmul(_transposed(Q), d_sums)[..., 0]
        return (dS, dz), tuple(pullback((_by_head(dQ),)))

    (dS, dz), (dq,) = loop(body, (ops.zeros_like(state.S), ops.zeros_like(state.z)), count)
    return dq[:, :time], dS, dz


def _written_gradient(
    form: _Form, k: Tensor, v: Tensor, mask: Tensor | None = None, *, state: State, dS: Tensor, dz: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of the keys and values."""
    (T, count, padding), time = tiles(k, form.tile), ops.shape(k)[1]
    (k, v), mask = whole_tiles((k, v), mask, padding)

    def body(i: Tensor, _: tuple[()]) -> tuple[tuple[()], tuple[Tensor, ...]]:
        k_i, v_i, mask_i = tile((k, v, mask), i, T)
        (K,), _, pullback = vjp(lambda k: (key_features(form.feature_map, k, mask_i, state.level)[:1], None), k_i)
        dK = ops.matmul(_by_head(float32_or_wider(v_i)), _transposed(dS))
        dK = dK + dz[:, :, None] if form.normalize == "sum" else dK
        dV = _by_head(ops.matmul(_by_head(K), dS))
        return (), (*pullback((_by_head(dK),)), ops.cast(dV, v.dtype))

    _, (dk, dv) = loop(body, (), count)
    return dk[:, :time], dv[:, :time]


def _by_head(x: Tensor) -> Tensor:
    """(batch, T, heads, ·) ↔ (batch, heads, T, ·)."""
    return ops.transpose(x, (0, 2, 1, 3))


def _transposed(x: Tensor) -> Tensor:
    return ops.swapaxes(x, -1, -2)


_trained = jit(static_argnums=0)(_trained)


# --- what the causal forms share ------------------------------------------------------------------------------


def in_range(form: Any, q: Tensor, k: Tensor) -> Any:
    """The form, by logarithms if features of these queries and keys leave the range of float32.

    Args:
        form: A tuple with ``feature_map`` and ``unsure``, which becomes true where no value is known.
        q: Queries.
        k: Keys.

    Example:
        >>> x, form = ops.full((1, 1, 1, 1), -50.0), _Form(find_feature_map("elu+1", 1), "sum", 256)
        >>> form.feature_map.logarithmic, in_range(form, x, x).feature_map.logarithmic
        (False, True)
    """
    exact = exact_map(form.feature_map)
    if exact is form.feature_map:
        return form
    sure = within_range(q, k)
    if not is_known(sure):
        return form._replace(unsure=True)
    return form if sure else form._replace(feature_map=exact)


def sure_of(form: Any, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    """Whether features are in range, for :func:`by_range`, if only the numbers tell; else nothing.

    Example:
        >>> sure_of(_Form(find_feature_map("elu+1", 1), "sum", 256), ops.ones(()), ops.ones(()))
        ()
    """
    return (within_range(q, k),) if form.unsure else ()


def by_range(form: Any, sure: tuple[Tensor, ...], function: Callable) -> Any:
    """The function of the form, or of that by logarithms where compiled code finds that it must be.

    Args:
        form: As :func:`in_range` gave it.
        sure: As :func:`sure_of` gave it.
        function: Of a form; its results have the same shapes for both.

    Example:
        >>> x, form = ops.full((), -50.0), _Form(find_feature_map("elu+1", 1), "sum", 256, unsure=True)
        >>> float(by_range(form, sure_of(form, x, x), lambda form: 2 * x if form.feature_map.logarithmic else x))
        -100.0
    """
    if not sure:
        return function(form)
    plain = form._replace(unsure=False)
    exact = plain._replace(feature_map=exact_map(form.feature_map))
    return ops.cond(sure[0], lambda: function(plain), lambda: function(exact))


def exactly(form: Any, *x: Tensor) -> Any:
    """The form in one tile and by logarithms, if it has them: for derivatives of its gradient.

    Args:
        form: A tuple with ``feature_map``, ``tile`` and ``unsure``.
        *x: Tensors (batch, time, ...); if some time is unknown, tiles stay as they are.

    Example:
        >>> exactly(_Form(find_feature_map("relu", 1), "sum", 256), ops.ones((1, 1000))).tile
        1000
    """
    times = [y.shape[1] for y in x]
    tile = form.tile if None in times else max(times)
    return form._replace(feature_map=exact_map(form.feature_map), unsure=False, tile=tile)


def normalizer(normalize: str | None, N: Tensor, sums: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """What numerators are multiplied by; 0 where there is nothing to divide.

    Args:
        normalize: ``"sum"``, ``"rms"`` or None.
        N: The numerators: sums over the keys, (..., values).
        sums: The denominators: sums of the weights, (..., 1); used for ``"sum"``.
        scale: Logarithm of what was taken out of both, (..., 1); None for 0.

    Returns:
        (..., 1). NaN where weights that have logarithms all vanished, though there are keys.

    Example:
        >>> float(normalizer("sum", ops.ones((1, 2)), ops.full((1, 1), 4.0))[0, 0])
        0.25
    """
    if normalize == "sum":
        nothing = 0 if scale is None else ops.where(scale > NOTHING / 2, math.nan, ops.zeros_like(sums))
        return ops.where(sums == 0, nothing, 1 / ops.where(sums == 0, 1, sums))
    if normalize == "rms":
        size = largest(N)  # without which squares overflow, or vanish
        some = ops.where(size == 0, 1, size)
        squares = ops.mean(ops.square(N / some), axis=-1, keepdims=True)
        return ops.where(size == 0, 0, ops.rsqrt(ops.where(size == 0, 1, squares)) / some)
    return ops.ones_like(N[..., :1]) if scale is None else ops.exp(scale)


def normalizer_gradient(
    normalize: str | None, out: Tensor, factor: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The gradients of numerators and denominators.

    Args:
        normalize: As in :func:`normalizer`.
        out: The outputs, (..., values).
        factor: What :func:`normalizer` gave, (..., 1).
        upstream: The gradient of the outputs, (..., values).

    Returns:
        dN (..., values); and dδ (..., 1), or None where there are no denominators.

    Example:
        >>> out, factor, upstream = (ops.full((1, 1), x) for x in (3, 0.25, 1))
        >>> [float(x[0, 0]) for x in normalizer_gradient("sum", out, factor, upstream)]  # of N/δ, 12/4
        [0.25, -0.75]
    """
    out, upstream = ops.cast(out, factor.dtype), ops.cast(upstream, factor.dtype)
    if normalize is None:
        return upstream * factor, None
    along = out * upstream
    if normalize == "sum":
        return upstream * factor, -factor * ops.sum(along, axis=-1, keepdims=True)
    return factor * (upstream - out * ops.mean(along, axis=-1, keepdims=True)), None


def whole_tiles(x: tuple, mask: Tensor | None, padding: Any) -> tuple[tuple, Tensor | None]:
    """Tensors padded to whole tiles, and the mask that leaves the padding out.

    Args:
        x: Tensors (batch, time, heads, ·), or None in their place.
        mask: 1 and 0, (batch, time), or None.
        padding: How many tokens are to come behind, a number or an integer tensor.

    Example:
        >>> (x,), mask = whole_tiles((ops.ones((1, 2, 1, 1)),), None, 1)
        >>> tuple(x.shape), ops.convert_to_numpy(mask).tolist()
        ((1, 3, 1, 1), [[1.0, 1.0, 0.0]])
    """
    if mask is None and not (isinstance(padding, int) and padding == 0):
        mask = float32_or_wider(ops.ones_like(x[0][:, :, 0, 0]))
    return padded(x, padding), padded(mask, padding)
