"""The arguments of a chain: checked once, none left out, scores of one float type."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from .._backend import all_of, float32_or_wider, jit
from .._tensors import as_tensor, checked_mask, guarded, require, require_shape, require_values

__all__ = ["UNKNOWN", "Potentials", "checked"]

Tensor = Any

#: The tag of a step whose tag is not known, where others of its sequence are.
UNKNOWN = -100


class Potentials(NamedTuple):
    """What :func:`checked` returns: the arguments of a chain, none left out, scores of one float type.

    Attributes:
        emissions: (batch, time, tags), 0 at masked steps.
        transitions: (tags, tags), or of every step (batch, time − 1, tags, tags).
        mask: (batch, time), boolean.
        start: (tags,).
        end: (tags,).
        tags: (batch, time) int32, 0 at masked steps and in place of tags out of range, or None.
        valid: (batch,), boolean: False for a row whose scores are no numbers, whose mask has holes or whose tags
            are out of range. Its result is to be NaN. Wrong masks and tags raise an error where values are known,
            so only a compiled function gets to see them.
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
    unknown: bool = False,
) -> Potentials:
    """The arguments of a chain as tensors of one float type, or an error that names the one that is wrong.

    Args:
        emissions: Scores of the tags at each step, shape (batch, time, tags), any float type.
        transitions: Scores of tag i followed by tag j, shape (tags, tags); or those between steps t and t + 1,
            shape (batch, time − 1, tags, tags).
        tags: Tag sequences, shape (batch, time), integers in [0, tags), of any numeric type; anything at masked
            steps.
        mask: Valid steps, boolean or 0 and 1, shape (batch, time), a prefix of each row; None if all are valid.
        start: Scores of the first tag, shape (tags,); None for 0.
        end: Scores of the last tag, shape (tags,); None for 0.
        unknown: Whether tags may be :data:`UNKNOWN`.

    Returns:
        A :class:`Potentials`. Its scores are float32; on TensorFlow, float64 if emissions or transitions are. A row
        in which a score that counts is NaN or +inf is not ``valid``.

    Raises:
        ValueError: Something is no dense tensor of real numbers or has a shape that does not fit, emissions are
            empty, the mask has holes or other values than 0 and 1, or tags are out of range. A plain TensorFlow
            graph raises ``InvalidArgumentError`` for what only the values tell. Under XLA and JAX jit no value can
            raise an error: the row is not ``valid``.

    Example:
        >>> chain = checked(np.zeros((2, 5, 3)), np.zeros((3, 3)))
        >>> tuple(chain.mask.shape), tuple(chain.start.shape), chain.tags
        ((2, 5), (3,), None)
        >>> checked(np.zeros((2, 5, 3)), np.zeros((4, 4)))
        Traceback (most recent call last):
        ...
        ValueError: transitions must have shape (3, 3) to fit emissions, got (4, 4)
    """
    scores = {"emissions": emissions, "transitions": transitions, "start": start, "end": end}
    for name, x in {**scores, "tags": tags, "mask": mask}.items():
        require_values(name, x)
    emissions, transitions = (
        float32_or_wider(as_tensor(name, x)) for name, x in (("emissions", emissions), ("transitions", transitions))
    )
    dtype = keras.backend.result_type(emissions.dtype, transitions.dtype)
    emissions, transitions = ops.cast(emissions, dtype), ops.cast(transitions, dtype)
    if len(emissions.shape) != 3 or 0 in emissions.shape:
        raise ValueError(
            f"emissions must have shape (batch, time, tags), none of them 0, got {tuple(emissions.shape)}"
        )
    if None in emissions.shape:
        got = tuple(emissions.shape)
        emissions = guarded(emissions, ops.size(emissions) > 0, "emissions must not be empty", lambda: got)
    batch, time, K = emissions.shape
    if mask is None:
        mask, valid = _all_steps(emissions)
    else:
        mask, valid = checked_mask(mask, (batch, time), to_fit="emissions")
        holes, without_holes, valid = _holes(mask, valid)
        require(
            without_holes,
            "mask must be True on a prefix of each row and False after it",
            lambda: f"another one in rows {np.flatnonzero(ops.convert_to_numpy(holes)).tolist()}",
        )

    moves = (batch, None if time is None else time - 1, K, K) if len(transitions.shape) == 4 else (K, K)
    require_shape("transitions", transitions, moves, to_fit="emissions")
    given = {
        name: ops.cast(require_shape(name, as_tensor(name, score), (K,), to_fit="emissions"), dtype)
        for name, score in (("start", start), ("end", end))
        if score is not None
    }
    emissions, transitions, valid = _counted(emissions, transitions, mask, tuple(given.values()), valid)
    start, end = (given[name] if name in given else ops.zeros((K,), dtype) for name in ("start", "end"))
    if tags is not None:
        tags, in_range = _tags(tags, mask, K, unknown)
        valid = ops.logical_and(valid, in_range)
    return Potentials(emissions, transitions, mask, start, end, tags, valid)


# Each of these is one program on JAX, which else compiles every operation by itself for every new shape.


@jit()
def _all_steps(emissions: Tensor) -> tuple[Tensor, Tensor]:
    """The mask of steps that are all valid, and of rows."""
    return ops.ones_like(emissions[..., 0], dtype="bool"), ops.ones_like(emissions[:, 0, 0], dtype="bool")


@jit()
def _holes(mask: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows of a mask have a valid step after one that is not; whether none has; and the rows still valid."""
    holes = ops.any(ops.logical_and(mask[:, 1:], ops.logical_not(mask[:, :-1])), axis=1)
    return holes, ops.logical_not(ops.any(holes)), ops.logical_and(valid, ops.logical_not(holes))


@jit()
def _counted(
    emissions: Tensor, transitions: Tensor, mask: Tensor, ends: tuple[Tensor, ...], valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores that count, 0 in place of others; and the valid rows in which none of these is NaN or +inf."""

    def of(scores: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        fine = ops.logical_or(scores < math.inf, ops.logical_not(counts))
        return ops.where(counts, scores, 0), all_of(fine, axis=tuple(range(1, len(scores.shape))))

    emissions, numbers = of(emissions, ops.expand_dims(mask, -1))
    valid = ops.logical_and(valid, numbers)
    shared = list(ends)
    if len(transitions.shape) == 4:
        transitions, numbers = of(transitions, mask[:, 1:, None, None])
        valid = ops.logical_and(valid, numbers)
    else:
        shared.append(transitions)
    for scores in shared:
        valid = ops.logical_and(valid, ops.all(scores < math.inf))
    return emissions, transitions, valid


def _tags(given: Tensor, mask: Tensor, K: int, unknown: bool) -> tuple[Tensor, Tensor]:
    """The tags as int32, 0 at masked steps and in place of wrong ones; and which rows have no wrong ones."""
    given = require_shape("tags", as_tensor("tags", given), mask.shape, to_fit="emissions")
    tags, wrong, rows, none = _in_range(given, mask, K, unknown)
    or_unknown = f", or {UNKNOWN} if unknown," if unknown else ""
    require(
        none,
        f"tags must be integers from 0 to {K - 1}{or_unknown} at valid steps",
        lambda: np.unique(ops.convert_to_numpy(given)[ops.convert_to_numpy(wrong)]).tolist(),
    )
    return tags, rows


@jit(static_argnums=(2, 3))
def _in_range(given: Tensor, mask: Tensor, K: int, unknown: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What :func:`_tags` returns: the tags, which are wrong, which rows have none that is, and whether none has."""
    if keras.backend.standardize_dtype(given.dtype)[0] in "bu":
        given = ops.cast(given, "int64")  # torch compares no unsigned integers
    tags = ops.cast(given, "int32")
    right = ops.logical_and(ops.logical_and(tags >= 0, tags < K), ops.cast(tags, given.dtype) == given)
    if unknown:
        right = ops.logical_or(right, given == UNKNOWN)
    wrong = ops.logical_and(mask, ops.logical_not(right))
    rows = ops.logical_not(ops.any(wrong, axis=1))
    return ops.where(ops.logical_and(mask, right), tags, 0), wrong, rows, ops.all(rows)
