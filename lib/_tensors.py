"""Checks of tensors, for all ideas: an error names the argument, what is expected, and what came.

What only values tell is checked where values are known: always on torch, in eager code on TensorFlow and JAX. A
plain TensorFlow graph asserts it (``InvalidArgumentError`` names the rule). Under XLA and ``jax.jit`` no value can
raise an error: what depends on it is to be NaN, which :func:`or_nan` sees to, never a plausible number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from ._backend import all_of, backend, is_known, jit

__all__ = [
    "as_tensor",
    "checked_mask",
    "guarded",
    "or_nan",
    "require",
    "require_dense",
    "require_shape",
    "require_values",
]

Tensor = Any
Shape = tuple[int | None, ...]


def as_tensor(name: str, value: Any, *, kinds: str = "biuf") -> Tensor:
    """A dense tensor of numbers.

    Args:
        name: The argument, for the error.
        value: What was given: a tensor of the backend, an array, nested lists of numbers.
        kinds: What the numbers may be: b for boolean, i and u for integers, f for floats, c for complex.

    Raises:
        ValueError: It is None, text, ragged, sparse, a masked array with masked entries, or of another kind; or it
            holds integers that the backend cannot: beyond 32 bits on JAX, from 2⁶³ on torch.

    Example:
        >>> tuple(as_tensor("x", [[1.0, 2.0]]).shape)
        (1, 2)
        >>> as_tensor("mask", [["False"]])
        Traceback (most recent call last):
        ...
        ValueError: mask must be a tensor of numbers, got [['False']]
    """
    if value is None:
        raise ValueError(f"{name} must be a tensor of numbers, got None")
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise ValueError(
                f"{name} must be an array without masked entries; fill them, give a mask, got {value!r}"
            )
        value = value.data
    require_dense(name, value)
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a rectangular array of numbers, got {value!r}") from None
        if value.dtype == np.float64:  # Python's floats take the float type of Keras, as in keras.ops
            value = value.astype(keras.config.floatx())
    if isinstance(value, np.ndarray):
        value = _plain(value)
    try:
        dtype = keras.backend.standardize_dtype(value.dtype)
    except ValueError:
        dtype = str(value.dtype)
    kind = "f" if "float" in dtype else dtype[0]
    if dtype == "object" or kind not in "biufc" or dtype == "string":
        raise ValueError(f"{name} must be a tensor of numbers, got {_shown(value)}")
    if kind not in kinds:
        words = {"b": "booleans", "i": "integers", "u": "unsigned integers", "f": "floats", "c": "complex numbers"}
        raise ValueError(f"{name} must hold {' or '.join(words[k] for k in kinds)}, got {dtype}")
    if isinstance(value, np.ndarray) and dtype in ("int64", "uint64"):
        return _integers(name, value)
    # A variable stays one on TensorFlow, which a custom gradient refuses; what is read of it has its gradient.
    tensor = ops.convert_to_tensor(value.value if isinstance(value, keras.Variable) else value)
    return tensor.read_value() if hasattr(tensor, "read_value") else tensor


def _plain(x: np.ndarray) -> np.ndarray:
    """The numbers as every backend reads them: in the byte order of the machine, 64 bits at most, not backwards."""
    if x.dtype == np.longdouble:
        x = x.astype("float64")
    x = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    return x.copy() if min(x.strides, default=0) < 0 else x


def _integers(name: str, value: np.ndarray) -> Tensor:
    """Integers of 64 bits as the backend has them: in 32 bits on JAX, which would wrap, never unsigned on torch."""
    name_of_backend = keras.backend.backend()
    empty = np.zeros(0, "int64" if name_of_backend == "torch" else value.dtype)
    kept = keras.backend.standardize_dtype(ops.convert_to_tensor(empty).dtype)
    ends = np.iinfo(kept)
    if value.size and not (ends.min <= value.min() and value.max() <= ends.max):
        raise ValueError(
            f"{name} must hold integers from {ends.min} to {ends.max} on {name_of_backend}, "
            f"got {value.min()} to {value.max()}"
        )
    return ops.convert_to_tensor(value.astype(kept))


def require_dense(name: str, value: Any) -> None:
    """Raises ValueError if a value is a ragged or sparse tensor, or the symbol of one.

    Example:
        >>> require_dense("x", keras.KerasTensor((2, 3), sparse=True))
        Traceback (most recent call last):
        ...
        ValueError: x must be a dense tensor, got a sparse KerasTensor
    """
    kind = type(value).__name__
    if kind == "KerasTensor":
        kinds = [word for word in ("sparse", "ragged") if getattr(value, word, False)]
        kind = " ".join([*kinds, kind]) if kinds else ""
    elif kind not in ("RaggedTensor", "SparseTensor", "IndexedSlices", "BCOO", "BCSR"):
        kind = (
            kind if any(getattr(value, f"is_{word}", False) for word in ("sparse", "sparse_csr", "nested")) else ""
        )
    if kind:
        raise ValueError(f"{name} must be a dense tensor, got a {kind}")


def require_values(name: str, value: Any) -> None:
    """Raises ValueError for a symbol of Keras's functional API, of which nothing but a shape and a type is known.

    Example:
        >>> require_values("x", keras.KerasTensor((2, 3)))
        Traceback (most recent call last):
        ...
        ValueError: x must be a tensor, in the functional API call this within a layer, got a symbol of shape (2, 3)
    """
    if isinstance(value, keras.KerasTensor):
        what = f"a symbol of shape {tuple(value.shape)}"
        raise ValueError(f"{name} must be a tensor, in the functional API call this within a layer, got {what}")


def _shown(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def require_shape(name: str, x: Tensor, expected: Shape, *, to_fit: str | None = None) -> Tensor:
    """The tensor, if it has this shape; an unknown size fits any.

    Args:
        name: The argument, for the error.
        x: A tensor.
        expected: Sizes; None for any.
        to_fit: The argument that this one belongs to, for the error.

    Raises:
        ValueError: It has another shape.

    Example:
        >>> _ = require_shape("start", ops.zeros(4), (3,), to_fit="emissions")
        Traceback (most recent call last):
        ...
        ValueError: start must have shape (3,) to fit emissions, got (4,)
    """
    why = "" if to_fit is None else f" to fit {to_fit}"
    if getattr(x.shape, "rank", 0) is None:  # a graph of TensorFlow that has been given several ranks
        raise ValueError(f"{name} must have shape {expected}{why}, got one of unknown rank")
    got, expected = tuple(x.shape), tuple(expected)
    if len(got) != len(expected) or any(g != e for g, e in zip(got, expected, strict=True) if None not in (g, e)):
        raise ValueError(f"{name} must have shape {expected}{why}, got {got}")
    return x


def require(holds: Tensor, rule: str, got: Callable[[], Any]) -> None:
    """Raises ValueError with the rule and what came unless the condition holds.

    Args:
        holds: A boolean scalar.
        rule: Such as "mask must be True on a prefix of each row".
        got: What came, for the error; called where the condition is known and false.

    Raises:
        ValueError: The condition is known and false. A TensorFlow graph asserts it; XLA and JAX jit cannot know it.
    """
    if keras.backend.backend() == "tensorflow" and not is_known(holds):
        backend().debugging.Assert(holds, [rule])
    elif is_known(holds) and not holds:
        raise ValueError(f"{rule}, got {got()}")


def guarded(x: Tensor, holds: Tensor, rule: str, got: Callable[[], Any]) -> Tensor:
    """The tensor, if :func:`require` raises nothing.

    In a TensorFlow graph what reads the tensor waits for the assertion. The executor may else run it before, and
    another operation fails first, with an error that names no argument.

    Args:
        x: Any tensor.
        holds: As in :func:`require`.
        rule: As in :func:`require`.
        got: As in :func:`require`.

    Example:
        >>> float(guarded(ops.ones(()), ops.ones((), "bool"), "x must be one", lambda: 2))
        1.0
    """
    if keras.backend.backend() == "tensorflow" and not is_known(holds):
        tf = backend()
        with tf.control_dependencies([tf.debugging.Assert(holds, [rule])]):
            return tf.identity(x)
    require(holds, rule, got)
    return x


def checked_mask(
    mask: Any, shape: Shape, *, name: str = "mask", to_fit: str | None = None
) -> tuple[Tensor, Tensor]:
    """A mask as booleans: True, or 1, where a step is valid. Anything else is refused, so an additive mask is.

    Args:
        mask: Boolean, or numbers that are all 0 or 1, of this shape.
        shape: The shape it must have; None for a size that is not known. It is not broadcast.
        name: The argument, for the error.
        to_fit: The argument that it belongs to, for the error.

    Returns:
        The mask, boolean; and whether all numbers of a row were 0 or 1, boolean (batch,), for :func:`or_nan` in
        compiled code.

    Raises:
        ValueError: It is no tensor of numbers, has another shape, or a value that is neither 0 nor 1, such as NaN.

    Example:
        >>> ops.convert_to_numpy(checked_mask(np.array([[1, 1, 0]]), (1, 3))[0]).tolist()
        [[True, True, False]]
        >>> checked_mask(np.array([[0.0, -1e4]]), (1, 2))
        Traceback (most recent call last):
        ...
        ValueError: mask must hold True or 1 where a step is valid, False or 0 elsewhere, got [-10000.0]
    """
    mask = require_shape(name, as_tensor(name, mask), shape, to_fit=to_fit)
    flags, allowed, rows, all_rows = _flags(mask)
    if allowed is None:
        return flags, rows
    require(
        all_rows,
        f"{name} must hold True or 1 where a step is valid, False or 0 elsewhere",
        lambda: np.unique(_numbers(mask)[~ops.convert_to_numpy(allowed)])[:5].tolist(),
    )
    return flags, rows


@jit()
def _flags(mask: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """A mask as booleans; which of its numbers are 0 or 1, in which rows all are, and whether all are."""
    flags = ops.cast(mask, "bool")
    rest = tuple(range(1, len(mask.shape)))
    if keras.backend.standardize_dtype(mask.dtype) == "bool":
        return flags, None, all_of(ops.ones_like(flags), rest), None
    allowed = ops.logical_or(mask == 0, mask == 1)
    rows = all_of(allowed, rest)
    return flags, allowed, rows, ops.all(rows)


def _numbers(x: Tensor) -> np.ndarray:
    x = ops.convert_to_numpy(x)
    return x.astype("float32") if x.dtype.kind not in "biuf" else x  # bfloat16 is of no kind that NumPy prints


@jit()
def or_nan(x: Tensor, valid: Tensor) -> Tensor:
    """The tensor, NaN in the rows that are not valid.

    Args:
        x: Floats, shape (batch, …).
        valid: Boolean, shape (batch,).

    Example:
        >>> ops.convert_to_numpy(or_nan(ops.ones((2, 1)), ops.convert_to_tensor([True, False]))).tolist()
        [[1.0], [nan]]
    """
    return ops.where(ops.reshape(valid, (-1, *[1] * (len(x.shape) - 1))), x, math.nan)
