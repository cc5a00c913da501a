"""What the functions of attention take: queries, keys, values, a mask and gates, without what is masked.

As everywhere in this library an error names the argument. Compiled code cannot raise one for a value: the functions
below then say which rows of the batch are right, and the others become NaN.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from .._backend import is_known
from .._tensors import as_tensor, checked_mask, guarded, or_nan, require, require_shape, require_values

__all__ = [
    "checked",
    "checked_gate",
    "finite_queries",
    "known_normalization",
    "of_one_type",
    "of_rank",
    "removed",
    "removed_tokens",
    "require_some",
]

Tensor = Any

NORMALIZATIONS = ("sum", "rms", None)


def checked(q: Any, k: Any, v: Any, mask: Any, causal: bool) -> tuple[Tensor, ...]:
    """q, k, v as tensors of floats, of the type that holds all three, and the mask as booleans.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, keys, heads, dim).
        v: Values, (batch, keys, heads, values).
        mask: (batch, keys), boolean or 0 and 1, or None.
        causal: Whether ``keys`` must be ``time``.

    Returns:
        The four; and whether each row of the mask is one, boolean (batch,), or None if all are known to be.

    Raises:
        ValueError: A shape, a type or the mask does not fit, or there is no token, head or feature.

    Example:
        >>> x = ops.zeros((1, 3, 2, 4))
        >>> keras.backend.standardize_dtype(checked(x, x, x, ops.ones((1, 3)), causal=True)[3].dtype)
        'bool'
    """
    q, k, v = of_one_type(*(of_rank(4, name, x) for name, x in (("q", q), ("k", k), ("v", v))))
    q, k, v = _with_tokens("q", q), _with_tokens("k", k), _with_tokens("v", v)
    batch, time, heads, dim = q.shape
    require_shape("k", k, (batch, time if causal else None, heads, dim), to_fit="q")
    require_shape("v", v, (batch, k.shape[1], heads, None), to_fit="k")
    valid = None
    if mask is not None:
        given, (mask, valid) = mask, checked_mask(mask, tuple(k.shape[:2]), to_fit="k")
        if is_known(valid) or "bool" in str(getattr(given, "dtype", None)):
            valid = None
    return q, k, v, mask, valid


def _with_tokens(name: str, x: Tensor) -> Tensor:
    """The tensor, refused if an axis besides the batch is empty."""
    require_some(name, x, "token, head and feature")
    if x.shape[1] is not None:
        return x
    return guarded(x, ops.shape(x)[1] > 0, f"{name} must have at least one token", lambda: tuple(x.shape))


def require_some(name: str, x: Tensor, what: str) -> None:
    """Raises ValueError if an axis but the first, the batch, is empty.

    Args:
        name: The argument, for the error.
        x: Its value, (batch, time, ...).
        what: The axes besides the batch, for the error.

    Example:
        >>> require_some("x", ops.zeros((1, 0, 8)), "token and feature")
        Traceback (most recent call last):
        ...
        ValueError: x must have at least one token and feature, got shape (1, 0, 8)
    """
    if 0 in x.shape[1:]:
        raise ValueError(f"{name} must have at least one {what}, got shape {tuple(x.shape)}")


def of_one_type(*x: Tensor) -> list[Tensor]:
    """Tensors of different float types in the one that holds them all: torch multiplies no others.

    Args:
        *x: Tensors of floats.

    Example:
        >>> [keras.backend.standardize_dtype(x.dtype) for x in of_one_type(ops.ones(1, "float16"), ops.ones(1))]
        ['float32', 'float32']
    """
    dtypes = [keras.backend.standardize_dtype(y.dtype) for y in x]
    # Keras would give float32 for float64 and another.
    dtype = "float64" if "float64" in dtypes else keras.backend.result_type(*dtypes)
    return [ops.cast(y, dtype) for y in x]


def removed(mask: Tensor | None, *x: Tensor | None) -> tuple[Tensor | None, ...]:
    """Tensors with 0 in place of what is masked, which may be NaN.

    Args:
        mask: Boolean, (batch, time); None for all.
        *x: (batch, time, ...), or None.

    Example:
        >>> (x,) = removed(ops.convert_to_tensor([[True, False]]), ops.convert_to_tensor([[1.0, float("nan")]]))
        >>> ops.convert_to_numpy(x).tolist()
        [[1.0, 0.0]]
    """
    if mask is None:
        return x
    return tuple(None if y is None else ops.where(mask[(..., *[None] * (len(y.shape) - 2))], y, 0) for y in x)


def removed_tokens(mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`removed`, of tokens whose queries are asked all the same: they have 0 for what is not finite.

    Example:
        >>> x = ops.convert_to_tensor([[[[1.0, float("nan")]]]])
        >>> [ops.convert_to_numpy(y).ravel().tolist() for y in removed_tokens(ops.zeros((1, 1), "bool"), x, x, x)]
        [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    if mask is None:
        return q, k, v
    q = ops.where(ops.logical_or(mask[:, :, None, None], ops.isfinite(q)), q, 0)
    return q, *removed(mask, k, v)


def finite_queries(q: Tensor) -> tuple[Tensor, Tensor]:
    """Queries with 0 in place of what is not finite; and NaN for those that had it, else 0, (..., 1).

    So a query that is NaN makes its own output NaN, and no gradient of a key.

    Example:
        >>> q, broken = finite_queries(ops.convert_to_tensor([[1.0, float("nan")], [2.0, 3.0]]))
        >>> ops.convert_to_numpy(q).tolist(), ops.convert_to_numpy(broken).tolist()
        ([[1.0, 0.0], [2.0, 3.0]], [[nan], [0.0]])
    """
    fine = ops.isfinite(q)
    broken = ops.where(ops.all(fine, axis=-1, keepdims=True), ops.zeros_like(q[..., :1]), math.nan)
    return ops.where(fine, q, 0), broken


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
    require_values(name, x)
    x = as_tensor(name, x, kinds="f")
    if len(x.shape) != rank:
        axes = "(batch, time, heads, dim)" if rank == 4 else "(batch, heads, dim)"
        raise ValueError(f"{name} must have shape {axes}, got {tuple(x.shape)}")
    return x


def checked_gate(
    name: str,
    x: Any,
    q: Tensor,
    mask: Tensor | None,
    dtype: str,
    low: float,
    high: float,
    *,
    by_feature: bool = False,
) -> Tensor:
    """One number a head and token, 0 where masked; in compiled code NaN in the rows that it would refuse.

    Args:
        name: The argument, for the error.
        x: Its value, (batch, time, heads), or with ``by_feature`` also (batch, time, heads, dim).
        q: The queries that it belongs to.
        mask: Boolean, (batch, time), or None.
        dtype: What it becomes.
        low: The least it may be.
        high: The most. NaN is let through.
        by_feature: Whether there may be one number a feature.

    Raises:
        ValueError: It has another shape, or a number out of range.

    Example:
        >>> x = np.zeros((1, 1, 1, 4), "float32")
        >>> checked_gate("beta", np.array([[[5.0]]]), x, None, "float32", 0, 2)
        Traceback (most recent call last):
        ...
        ValueError: beta must be in [0, 2], got 5.0
    """
    require_values(name, x)
    x = as_tensor(name, x)
    axes = 4 if by_feature and len(x.shape) == 4 else 3
    x = require_shape(name, x, tuple(q.shape[:axes]), to_fit="q")
    (x,) = removed(mask, ops.cast(x, dtype))
    outside = ops.logical_or(x < low, x > high)
    wrong = outside
    while len(wrong.shape) > 1:
        wrong = ops.any(wrong, axis=-1)
    valid = ops.logical_not(wrong)
    rule = f"must be in [{low}, {high}]" if low > -math.inf else f"must be at most {high}"
    require(ops.all(valid), f"{name} {rule}", lambda: float(_first(x, outside)))
    return x if is_known(valid) else or_nan(x, valid)


def _first(x: Tensor, outside: Tensor) -> np.generic:
    return ops.convert_to_numpy(x)[ops.convert_to_numpy(outside)][0]
