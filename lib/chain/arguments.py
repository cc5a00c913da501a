"""The arguments of a chain: checked once, none left out, scores of one float type."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from .._backend import backend, float32_or_wider, is_known

__all__ = ["Chain", "checked"]

Tensor = Any


class Chain(NamedTuple):
    """What :func:`checked` returns: the arguments of a chain, none left out, scores of one float type.

    Attributes:
        emissions: (batch, time, tags), 0 at masked steps.
        transitions: (tags, tags).
        mask: (batch, time), boolean.
        start: (tags,).
        end: (tags,).
        tags: (batch, time) int32, 0 at masked steps and in place of tags out of range, or None.
        valid: (batch,), boolean: False for a row whose mask has holes or whose tags are out of range. Only a
            compiled function gets to see such a row; its result is to be NaN.
    """

    emissions: Tensor
    transitions: Tensor
    mask: Tensor
    start: Tensor
    end: Tensor
    tags: Tensor | None
    valid: Tensor


def checked(
    emissions: Tensor,
    transitions: Tensor,
    *,
    tags: Tensor | None = None,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Chain:
    """The arguments of a chain as tensors of one float type, or an error that names the one that is wrong.

    Args:
        emissions: Scores of the tags at each step, shape (batch, time, tags), any float type.
        transitions: Scores of tag i followed by tag j, shape (tags, tags).
        tags: Tag sequences, shape (batch, time), integers in [0, tags), of any numeric type; anything at masked
            steps.
        mask: Valid steps, boolean, shape (batch, time), a prefix of each row; None if all are valid.
        start: Scores of the first tag, shape (tags,); None for 0.
        end: Scores of the last tag, shape (tags,); None for 0.

    Returns:
        A :class:`Chain`. Its scores are float32; on TensorFlow, float64 if emissions or transitions are.

    Raises:
        ValueError: A shape does not fit, emissions are empty, the mask has holes or tags are out of range. A plain
            TensorFlow graph raises ``InvalidArgumentError`` for what only the values tell. Under XLA and JAX jit no
            value can raise an error: the row is not ``valid``.

    Example:
        >>> chain = checked(np.zeros((2, 5, 3)), np.zeros((3, 3)))
        >>> tuple(chain.mask.shape), tuple(chain.start.shape), chain.tags
        ((2, 5), (3,), None)
        >>> checked(np.zeros((2, 5, 3)), np.zeros((4, 4)))
        Traceback (most recent call last):
        ...
        ValueError: transitions must have shape (3, 3) to fit emissions, got (4, 4)
    """
    emissions, transitions = float32_or_wider(emissions), float32_or_wider(transitions)
    dtype = keras.backend.result_type(emissions.dtype, transitions.dtype)
    emissions, transitions = ops.cast(emissions, dtype), ops.cast(transitions, dtype)
    if len(emissions.shape) != 3 or 0 in emissions.shape:
        raise ValueError(
            f"emissions must have shape (batch, time, tags), none of them 0, got {tuple(emissions.shape)}"
        )
    if None in emissions.shape:
        _require(ops.size(emissions) > 0, "emissions must not be empty", lambda: tuple(emissions.shape))
    steps, K = emissions.shape[:2], emissions.shape[2]
    _require_shape("transitions", transitions, (K, K))
    start = ops.zeros((K,), dtype) if start is None else ops.cast(_require_shape("start", start, (K,)), dtype)
    end = ops.zeros((K,), dtype) if end is None else ops.cast(_require_shape("end", end, (K,)), dtype)
    valid = ops.ones_like(emissions[:, 0, 0], dtype="bool")
    if mask is None:
        mask = ops.ones_like(emissions[..., 0], dtype="bool")
    else:
        mask = ops.cast(_require_shape("mask", mask, steps), "bool")
        holes = ops.any(ops.logical_and(mask[:, 1:], ops.logical_not(mask[:, :-1])), axis=1)
        valid = ops.logical_not(holes)
        _require(
            ops.all(valid),
            "mask must be True on a prefix of each row and False after it",
            lambda: f"another one in rows {np.flatnonzero(ops.convert_to_numpy(holes)).tolist()}",
        )
        emissions = ops.where(mask[..., None], emissions, 0)
    if tags is not None:
        given = _require_shape("tags", tags, steps)
        tags = ops.cast(given, "int32")
        in_range = ops.logical_and(ops.logical_and(tags >= 0, tags < K), ops.cast(tags, given.dtype) == given)
        outside = ops.logical_and(mask, ops.logical_not(in_range))
        _require(
            ops.logical_not(ops.any(outside)),
            f"tags must be integers from 0 to {K - 1} at valid steps",
            lambda: np.unique(ops.convert_to_numpy(given)[ops.convert_to_numpy(outside)]).tolist(),
        )
        valid = ops.logical_and(valid, ops.logical_not(ops.any(outside, axis=1)))
        tags = ops.where(ops.logical_and(mask, in_range), tags, 0)
    return Chain(emissions, transitions, mask, start, end, tags, valid)


def _require(holds: Tensor, rule: str, got: Callable[[], Any]) -> None:
    """Raise ValueError unless the condition holds. A TensorFlow graph asserts it; JAX jit cannot know it."""
    if keras.backend.backend() == "tensorflow" and not is_known(holds):
        backend().debugging.Assert(holds, [rule])
    elif not is_known(holds):
        return
    elif not holds:
        raise ValueError(f"{rule}, got {got()}")


def _require_shape(name: str, x: Tensor, expected: tuple[int | None, ...]) -> Tensor:
    x = ops.convert_to_tensor(x)
    got, expected = tuple(x.shape), tuple(expected)
    if len(got) != len(expected) or any(g != e for g, e in zip(got, expected, strict=True) if None not in (g, e)):
        raise ValueError(f"{name} must have shape {expected} to fit emissions, got {got}")
    return x


def _or_nan(x: Tensor, chain: Chain) -> Tensor:
    valid = ops.reshape(chain.valid, (-1, *[1] * (len(x.shape) - 1)))
    return ops.where(valid, x, math.nan)
