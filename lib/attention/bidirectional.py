"""Linear attention in which all queries see all keys: one state, written once and read by every query.

With features φ(q), φ(k) written q and k, and rows of matrices for tokens,

    S = KᵀV,     z = Kᵀ1,               the state
    N = Q S,     δ = Q z,     out = N/δ.

The associative law is all there is to it: (Q Kᵀ) V would be time × time. Let dN, dδ be the gradients of the
numerators and denominators. Then those of the state and of the tokens are

    dS = Qᵀ dN,                         dz = Qᵀ dδ,
    dQ = dN Sᵀ + dδ zᵀ,                 dK = V dSᵀ + 1 dzᵀ,      dV = K dS.

Both ways time is cut into segments, whose features fit into the cache of a core: what is kept for the gradient is
the inputs, the outputs, the state, and one factor a query. Only φ is differentiated by the backend.

Here too stands what the causal forms of :mod:`lib.attention.chunkwise` share with this one: how outputs are
normalised, and how arguments are checked.

Source: Shen et al. 2018 (arXiv 1812.01243); Katharopoulos et al. 2020 (arXiv 2006.16236), section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from .._backend import float32_or_wider, jit
from .feature_maps import NOTHING, FeatureMap, find_feature_map, highest, key_features, query_features
from .segments import SEGMENT, loop, padded, segment, segments, shape_only, vjp

__all__ = [
    "State",
    "checked",
    "empty_state",
    "full_attention",
    "known_normalization",
    "normalizer",
    "normalizer_gradient",
    "of_rank",
    "require_shape",
    "whole_segments",
]

Tensor = Any
Shape = tuple[int | None, ...]

NORMALIZATIONS = ("sum", "rms", None)


class State(NamedTuple):
    """What a linear form remembers of all keys and values; its size does not depend on their number.

    For logarithmic features S and z are divided by e^level.

    Attributes:
        S: Σ φ(k) vᵀ, or as a causal form rewrites it, (batch, heads, features, values).
        z: Σ φ(k), likewise, (batch, heads, features); 0 unless outputs are divided by their sum.
        level: The largest logarithm of a feature of a key, (batch, heads); unused for other features.
    """

    S: Tensor
    z: Tensor
    level: Tensor


def empty_state(feature_map: FeatureMap, k: Tensor, v: Tensor) -> State:
    """The state without any key.

    Args:
        feature_map: φ.
        k: Keys, (batch, keys, heads, dim), of which only the shape matters.
        v: Values, (batch, keys, heads, values), likewise.

    Example:
        >>> x = ops.ones((2, 5, 3, 4))
        >>> tuple(empty_state(find_feature_map("1+cos", 4), x, x).S.shape)
        (2, 3, 5, 4)
    """
    z = ops.zeros_like(feature_map.apply(float32_or_wider(k[:, :1]))[:, 0])  # (batch, heads, features)
    return State(z[..., None] * ops.zeros((v.shape[-1],), z.dtype), z, z[..., 0] + NOTHING)


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
    q, k, v, mask = checked(q, k, v, mask, causal=False)
    if shape_only(q):
        return ops.cast(q[..., :1], v.dtype) * v[:, :1]
    signed = known_normalization(normalize) != "sum"
    form = _Form(find_feature_map(feature_map, q.shape[-1], signed, (q, k)), normalize, SEGMENT)
    return _trained(
        form, q, k, v, [] if mask is None else [ops.cast(mask, float32_or_wider(k[:1, :1, :1, :1]).dtype)]
    )


class _Form(NamedTuple):
    """What is fixed before any number comes."""

    feature_map: FeatureMap
    normalize: str | None
    segment: int  # the most tokens that are worked on at once


def _trained(form: _Form, q: Tensor, k: Tensor, v: Tensor, seen: list[Tensor]) -> Tensor:
    """The outputs, with the gradient at the head of this module; `seen` holds the mask in numbers, if any."""

    @ops.custom_gradient
    def attend(q: Tensor, k: Tensor, v: Tensor, *seen: Tensor) -> tuple[Tensor, Callable]:
        state = _written(form, k, v, *seen)
        out, factor = _read(form, q, state, v.dtype)
        kept = ops.stop_gradient(out)  # not what is returned, which would hold itself on torch

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            g = args[0] if upstream is None else upstream  # torch passes it by name, after the arguments
            dq, dS, dz = _read_gradient(form, q, state, kept, factor, g)
            dk, dv = _written_gradient(form, k, v, *seen, state=state, dS=dS, dz=dz)
            return dq, dk, dv, *map(ops.zeros_like, seen)

        return out[:, : ops.shape(q)[1]], gradient

    return attend(q, k, v, *seen)


def _written(form: _Form, k: Tensor, v: Tensor, mask: Tensor | None = None) -> State:
    """The state of all keys: S = KᵀV, z = Kᵀ1."""
    T, count, padding = segments(k, form.segment)
    start, ((k, v), mask) = empty_state(form.feature_map, k, v), whole_segments((k, v), mask, padding)
    level = start.level
    if form.feature_map.logarithmic:
        level = ops.max(highest(form.feature_map.apply(float32_or_wider(k)), mask), axis=1)

    def body(i: Tensor, state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[()]]:
        k_i, v_i, mask_i = segment((k, v, mask), i, T)
        (S, z), K = state, _by_head(key_features(form.feature_map, k_i, mask_i, level)[0])
        S = S + ops.matmul(_transposed(K), _by_head(float32_or_wider(v_i)))
        return (S, z + ops.sum(K, axis=2) if form.normalize == "sum" else z), ()

    (S, z), _ = loop(body, (start.S, start.z), count)
    return State(S, z, level)


def _read(form: _Form, q: Tensor, state: State, dtype: str) -> list[Tensor]:
    """N = Q S and δ = Q z, as outputs (batch, time, heads, values) and what was multiplied into them (..., 1)."""
    T, count, padding = segments(q, form.segment)
    q = padded(q, padding)

    def body(i: Tensor, _: tuple[()]) -> tuple[tuple[()], tuple[Tensor, Tensor]]:
        Q, scale = query_features(form.feature_map, segment(q, i, T))
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
    (T, count, padding), time = segments(q, form.segment), ops.shape(q)[1]
    q, results = padded(q, padding), (out, factor, padded(upstream, padding))

    def body(i: Tensor, d_state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor]]:
        dS, dz = d_state
        (Q,), _, pullback = vjp(lambda q: (query_features(form.feature_map, q)[:1], None), segment(q, i, T))
        dN, d_sums = normalizer_gradient(form.normalize, *segment(results, i, T))
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
    (T, count, padding), time = segments(k, form.segment), ops.shape(k)[1]
    (k, v), mask = whole_segments((k, v), mask, padding)

    def body(i: Tensor, _: tuple[()]) -> tuple[tuple[()], tuple[Tensor, ...]]:
        k_i, v_i, mask_i = segment((k, v, mask), i, T)
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
        >>> float(normalizer("sum", ops.ones((1, 2)), ops.full((1, 1), 4.0))[0, 0])
        0.25
    """
    if normalize == "sum":
        return ops.where(sums == 0, 0, 1 / ops.where(sums == 0, 1, sums))
    if normalize == "rms":
        squares = ops.mean(ops.square(N), axis=-1, keepdims=True)
        return ops.where(squares > 0, ops.rsqrt(ops.where(squares > 0, squares, 1)), 0)
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


def whole_segments(x: tuple, mask: Tensor | None, padding: Any) -> tuple[tuple, Tensor | None]:
    """Tensors padded to whole segments, and the mask that leaves the padding out.

    Args:
        x: Tensors (batch, time, heads, ·), or None in their place.
        mask: 1 and 0, (batch, time), or None.
        padding: How many tokens are to come behind, a number or an integer tensor.

    Example:
        >>> (x,), mask = whole_segments((ops.ones((1, 2, 1, 1)),), None, 1)
        >>> tuple(x.shape), ops.convert_to_numpy(mask).tolist()
        ((1, 3, 1, 1), [[1.0, 1.0, 0.0]])
    """
    if mask is None and not (isinstance(padding, int) and padding == 0):
        mask = float32_or_wider(ops.ones_like(x[0][:, :, 0, 0]))
    return padded(x, padding), padded(mask, padding)


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
        >>> x = ops.zeros((1, 3, 2, 4))
        >>> keras.backend.standardize_dtype(checked(x, x, x, ops.ones((1, 3)), causal=True)[3].dtype)
        'bool'
    """
    q, k, v = (of_rank(4, name, x) for name, x in (("q", q), ("k", k), ("v", v)))
    for name, x in (("q", q), ("k", k), ("v", v)):
        if 0 in x.shape[1:]:
            raise ValueError(f"{name} must have at least one token, head and feature, got shape {tuple(x.shape)}")
    batch, time, heads, dim = q.shape
    require_shape("k", k, (batch, time if causal else None, heads, dim), "that of q" if causal else "to fit q")
    require_shape("v", v, (batch, k.shape[1], heads, None), "that of k but for the last axis")
    if mask is not None:
        mask = ops.cast(ops.convert_to_tensor(mask), "bool")
        require_shape("mask", mask, k.shape[:2], "(batch, keys)")
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
        >>> tuple(of_rank(3, "q", ops.zeros((1, 2, 4))).shape)
        (1, 2, 4)
    """
    x = ops.convert_to_tensor(x)
    if len(x.shape) != rank:
        axes = "(batch, time, heads, dim)" if rank == 4 else "(batch, heads, dim)"
        raise ValueError(f"{name} must have shape {axes}, got {tuple(x.shape)}")
    if "float" not in keras.backend.standardize_dtype(x.dtype):
        raise ValueError(f"{name} must be of a float type, got {keras.backend.standardize_dtype(x.dtype)}")
    return x


def require_shape(name: str, x: Tensor, expected: Shape, meaning: str) -> None:
    """Raises an error unless a tensor has a shape.

    Args:
        name: The argument, for the error.
        x: Its value.
        expected: Sizes; None for any.
        meaning: What the shape stands for, for the error.

    Raises:
        ValueError: It has another shape.

    Example:
        >>> require_shape("mask", ops.ones((2, 5)), (2, None), "(batch, keys)")
    """
    got = tuple(x.shape)
    fits = len(got) == len(expected) and all(
        g == e for g, e in zip(got, expected, strict=True) if None not in (g, e)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {tuple(expected)}, {meaning}, got {got}")
