"""Within a tile: the formulas of a state that each token rewrites, chunk by chunk, and of their gradients.

Token i writes S ← γ_i S + k uᵀ and z ← γ_i z + k, where u = v, or u = β (v − γ_i Sᵀk) for the delta rule.
Rows of matrices are tokens; g_i is the sum of log γ from the start of a chunk of C tokens to token i. In a chunk
that starts from the state S,

    A = D ∘ QKᵀ,    D_ij = e^{g_i − g_j} for j ≤ i,
    N = A U + e^g Q S,                  numerators
    δ = A 1 + e^g Q z,                  denominators
    S ← e^{g_C} S + (e^{g_C − g} K)ᵀ U, z ← e^{g_C} z + (e^{g_C − g} K)ᵀ 1.

Products of (C × C) matrices within a chunk, one state between chunks: never time × time, never a state a token.

A γ for each feature f, S ← γ_i ∘ S + k vᵀ by rows, makes the products within a chunk into

    A_ij = Σ_f q_if e^{g_if − g_jf} k_jf.

e^{g_i} and e^{−g_j} must not be taken alone, since the second overflows. But all tokens of the second half of a
stretch see those of its first half through its end, m: e^{g_i − g_m} and e^{g_m − g_j} are at most 1, and this part
of A is a product of matrices. The halves are halved in turn, down to single tokens: log₂ C products for a triangle.

**The gradient.** Let dN, dδ be the gradients of the numerators and denominators, dS, dz those of the state after
the chunk. For the forms with u = v,

    B = D ∘ (dN Vᵀ + dδ 1ᵀ),
    dQ = B K + e^g (dN Sᵀ + dδ zᵀ),
    dK = Bᵀ Q + e^{g_C − g} (V dSᵀ + 1 dzᵀ),
    dV = Aᵀ dN + e^{g_C − g} K dS,
    dS ← e^{g_C} dS + (e^g Q)ᵀ dN,      dz ← e^{g_C} dz + (e^g Q)ᵀ dδ.

g_i stands only beside q_i, and −g_i only beside k_i: dg_i = q_i·dq_i − k_i·dk_i, and dg_C has besides
⟨S, dS⟩ + ⟨z, dz⟩ after the chunk. Only φ, a chunk of the delta rule, and a tile with a γ for each feature, are
differentiated by the backend.

Tensors have the shape (batch, heads, chunks, C, dim), float32 or wider.

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

from .._backend import vjp

__all__ = [
    "Chunks",
    "chunk_sums",
    "chunk_sums_gradient",
    "delta_sums",
    "delta_sums_gradient",
    "feature_sums",
    "feature_sums_gradient",
    "least",
]

Tensor = Any


class Chunks(NamedTuple):
    """A tile in chunks of C tokens, as :func:`chunk_sums` takes it.

    Attributes:
        Q: φ(q), (batch, heads, chunks, C, features), float32 or wider.
        K: φ(k), likewise, 0 for a token that is not written.
        V: Values, (batch, heads, chunks, C, values).
        log_decay: log γ, (batch, heads, chunks, C, 1), or with ``features`` for 1; None for γ = 1.
        beta: β of the delta rule, likewise; None for u = v.
    """

    Q: Tensor
    K: Tensor
    V: Tensor
    log_decay: Tensor | None = None
    beta: Tensor | None = None


def chunk_sums(x: Chunks, S: Tensor, z: Tensor, summed: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """The numerators and denominators of all chunks of a tile at once, and the state after the last one.

    Args:
        x: The tile, with u = v.
        S: The state before it, (batch, heads, features, values).
        z: The sum of keys before it, (batch, heads, features).
        summed: Whether denominators are wanted; without them z stays as it is.

    Returns:
        N (batch, heads, chunks, C, values); δ (..., C, 1), or None; S and z after the tile.

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


def least(log_decay: Tensor) -> float:
    """A logarithm whose exponential is 0 in this type, as is that of all below it.

    Example:
        >>> float(ops.exp(least(ops.zeros(()))))
        0.0
    """
    return -1024.0 if keras.backend.standardize_dtype(log_decay.dtype) == "float64" else -128.0


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
    g, rest = _running_sums(x.log_decay[..., 0])
    D, g_C = _differences(g, rest), g[..., -1] + rest[..., -1]
    between = ops.pad(ops.maximum(g_C, least(g_C)), ((0, 0), (0, 0), (1, 0)))
    return _Decay(D, ops.exp(g + rest)[..., None], D[..., -1, :, None], _differences(*_running_sums(between)))


def _lower(n: int, like: Tensor) -> Tensor:
    return ops.cast(np.tril(np.ones((n, n), "float32")), like.dtype)


def _running_sums(log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """Sums along the last axis, in two parts, so that the difference of two sums is exact where it is small.

    A gate that forgets all makes sums so large that float32 has no digits left for the gates after it. The first
    part sums multiples of a step that is coarse enough for float32 to hold all their sums, the second the rest.
    """
    largest = -least(log_decay) * log_decay.shape[-1]
    step = 2.0 ** (math.ceil(math.log2(largest)) - 23)
    coarse = ops.stop_gradient(ops.round(log_decay / step) * step)
    return ops.cumsum(coarse, axis=-1), ops.cumsum(log_decay - coarse, axis=-1)


def _differences(g: Tensor, rest: Tensor) -> Tensor:
    """e^{g_i − g_j} for j ≤ i, else 0, of sums in two parts."""
    lower = np.tril(np.ones((g.shape[-1],) * 2, bool))
    exponents = (g[..., :, None] - g[..., None, :]) + (rest[..., :, None] - rest[..., None, :])
    return ops.exp(ops.where(lower, exponents, -math.inf))


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


def chunk_sums_gradient(
    x: Chunks, S: Tensor, z: Tensor, dN: Tensor, d_sums: Tensor | None, dS: Tensor, dz: Tensor
) -> tuple[Chunks, tuple[Tensor, Tensor]]:
    """The gradients of the inputs of :func:`chunk_sums`, from those of its results.

    Args:
        x: As there.
        S: As there.
        z: As there.
        dN: The gradient of the numerators, (batch, heads, chunks, C, values).
        d_sums: That of the denominators, (..., C, 1); None if there are none.
        dS: That of the state after the tile.
        dz: Likewise.

    Returns:
        The gradients of a tile, and those of the state before it.

    Example:
        >>> one, none = np.ones((1, 1, 1, 1, 1), "float32"), np.zeros((1, 1, 1, 1), "float32")
        >>> d, _ = chunk_sums_gradient(Chunks(one, 2 * one, 3 * one), none, none[0], one, None, none, none[0])
        >>> [float(x[0, 0, 0, 0, 0]) for x in d[:3]]  # of q · 2 · 3, 1 · k · 3 and 1 · 2 · v
        [6.0, 3.0, 2.0]
    """
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


def delta_sums(x: Chunks, S: Tensor, z: Tensor, _: bool) -> tuple[Tensor, None, Tensor, Tensor]:
    """As :func:`chunk_sums`, in one chunk, with the u of the delta rule and without denominators.

    They solve u_i = β_i (v_i − e^{g_i} Sᵀk_i − Σ_{j<i} D_ij (k_i·k_j) u_j).

    Example:
        >>> one, none = np.ones((1, 1, 1, 2, 1), "float32"), np.zeros((1, 1, 1, 1), "float32")
        >>> N, _, S, _ = delta_sums(Chunks(one, one, 3 * one, beta=one), none, none[0], False)
        >>> ops.convert_to_numpy(N).ravel().tolist(), float(S[0, 0, 0, 0])  # the second token changes nothing
        ([3.0, 3.0], 3.0)
    """
    decay = _decay_factors(x)
    rest = np.tril(np.ones((x.Q.shape[3],) * 2, "float32"), -1)
    known = ops.cast(rest, S.dtype) * decay.D * ops.matmul(x.K, _transposed(x.K))
    before = x.V - ops.matmul(_times(x.K, decay.into), S[:, :, None])
    U = ops.solve_triangular(ops.eye(x.Q.shape[3], dtype=S.dtype) + x.beta * known, x.beta * before, lower=True)
    return chunk_sums(x._replace(V=U), S, z, False)


def delta_sums_gradient(
    x: Chunks, S: Tensor, z: Tensor, dN: Tensor, _: None, dS: Tensor, dz: Tensor
) -> tuple[Chunks, tuple[Tensor, Tensor]]:
    """As :func:`chunk_sums_gradient`, of :func:`delta_sums`, by the backend.

    Example:
        >>> one, none = ops.ones((1, 1, 1, 1, 1)), ops.zeros((1, 1, 1, 1))
        >>> x = Chunks(one, one, 3 * one, beta=one / 2)
        >>> float(delta_sums_gradient(x, none, none[0], one, None, none, none[0])[0].beta[0, 0, 0, 0, 0])  # of 3 β
        3.0
    """
    return _gradient_by_backend(delta_sums, x, S, z, dN, dS, dz)


def _gradient_by_backend(
    sums: Callable, x: Chunks, S: Tensor, z: Tensor, dN: Tensor, dS: Tensor, dz: Tensor
) -> tuple[Chunks, tuple[Tensor, Tensor]]:
    given = [name for name, part in zip(Chunks._fields, x, strict=True) if part is not None]

    def again(S: Tensor, *tensors: Tensor) -> tuple[tuple[Tensor, Tensor], None]:
        N, _, S, _ = sums(x._replace(**dict(zip(given, tensors, strict=True))), S, z, False)
        return (N, S), None

    _, _, pullback = vjp(again, S, *(part for part in x if part is not None))
    dS, *gradients = pullback((dN, dS))
    return x._replace(**dict(zip(given, gradients, strict=True))), (dS, dz)


def feature_sums(x: Chunks, S: Tensor, z: Tensor, _: bool) -> tuple[Tensor, None, Tensor, Tensor]:
    """As :func:`chunk_sums`, with a γ for each feature and without denominators.

    Source: Yang et al. 2023 (arXiv 2312.06635), section 4: gated linear attention, GLA. There blocks of 16 tokens
    are taken pair by pair; here they are halved further, see the head of this module.

    Example:
        >>> one, none = np.ones((1, 1, 1, 2, 2), "float32"), np.zeros((1, 1, 2, 1), "float32")
        >>> x = Chunks(one, one, 3 * one[..., :1], np.log([[[[[1, 1], [0.5, 1]]]]]).astype("float32"))
        >>> N, _, S, _ = feature_sums(x, none, none[..., 0], False)
        >>> ops.convert_to_numpy(S).ravel().tolist()  # the second token halves the first row
        [4.5, 6.0]
        >>> ops.convert_to_numpy(N).ravel().tolist()
        [6.0, 10.5]
    """
    C = x.Q.shape[3]
    width = 1 << (C - 1).bit_length()  # tokens of zeros behind change nothing
    Q, K, V, gates = (ops.pad(y, (*[(0, 0)] * 3, (0, width - C), (0, 0))) if width > C else y for y in x[:4])
    sums = tuple(map(_transposed, _running_sums(_transposed(gates))))  # (batch, heads, chunks, C, features)
    N, block = ops.sum(Q * K, axis=-1, keepdims=True) * V, width // 2
    while block:
        N, block = N + _from_first_halves(Q, K, V, sums, block), block // 2
    g, rest = sums
    g_C = g[:, :, :, -1] + rest[:, :, :, -1]
    between = ops.pad(ops.maximum(g_C, least(g_C)), ((0, 0), (0, 0), (1, 0), (0, 0)))
    carry = _differences(*_running_sums(_transposed(between)))  # (batch, heads, features, chunks + 1, chunks + 1)
    left = ops.exp((g[:, :, :, -1:] - g) + (rest[:, :, :, -1:] - rest))
    parts = ops.concatenate([S[:, :, None], ops.matmul(_transposed(K * left), V)], axis=2)
    S = ops.swapaxes(ops.matmul(carry, ops.swapaxes(parts, 2, 3)), 2, 3)  # before each chunk, and after the last
    N = N + ops.matmul(Q * ops.exp(g + rest), S[:, :, :-1])
    return N[:, :, :, :C], None, S[:, :, -1], z


def _from_first_halves(Q: Tensor, K: Tensor, V: Tensor, sums: tuple[Tensor, Tensor], block: int) -> Tensor:
    """What the tokens in the second half of each 2 · block read of those in the first, (…, C, values)."""

    def halves(y: Tensor) -> tuple[Tensor, Tensor]:
        y = ops.reshape(y, (-1, *y.shape[1:3], y.shape[3] // (2 * block), 2, block, y.shape[4]))
        return y[:, :, :, :, 0], y[:, :, :, :, 1]

    (_, q), (k, _), (v, _), (g, g_after), (rest, rest_after) = map(halves, (Q, K, V, *sums))
    ends = g[..., -1:, :], rest[..., -1:, :]
    q = q * ops.exp((g_after - ends[0]) + (rest_after - ends[1]))
    k = k * ops.exp((ends[0] - g) + (ends[1] - rest))
    read = ops.matmul(ops.matmul(q, _transposed(k)), v)
    return ops.reshape(ops.stack([ops.zeros_like(read), read], axis=4), (-1, *V.shape[1:]))


def feature_sums_gradient(
    x: Chunks, S: Tensor, z: Tensor, dN: Tensor, _: None, dS: Tensor, dz: Tensor
) -> tuple[Chunks, tuple[Tensor, Tensor]]:
    """As :func:`chunk_sums_gradient`, of :func:`feature_sums`, by the backend.

    Example:
        >>> one, none = ops.ones((1, 1, 1, 1, 1)), ops.zeros((1, 1, 1, 1))
        >>> x = Chunks(one, one, 3 * one, 0 * one)
        >>> d, (dS, _) = feature_sums_gradient(x, none, none[0], one, None, 2 * none + 2, none[0])
        >>> float(d.V[0, 0, 0, 0, 0]), float(dS[0, 0, 0, 0])  # of q k v + 2 S after it, by v and by S before it
        (3.0, 3.0)
    """
    return _gradient_by_backend(feature_sums, x, S, z, dN, dS, dz)
