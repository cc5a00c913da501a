"""The scores of an MEMM as its dynamic programs take them: checked, and each softmax with its best score at 0.

A softmax does not see a constant that is added to all of its scores. Here it is taken out before anything is added
up, from the emissions of a step and from a row of the transitions, so that it costs no digits.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from .. import chain
from .._arguments import one_of
from .._backend import float32_or_wider
from .._tensors import as_tensor, require

Tensor = Any
Transitions = Tensor | tuple[Tensor, Tensor]

DIRECTIONS = ("forward", "backward", "both")


def sides_of(direction: str) -> tuple[str, ...]:
    """The directions that a direction is the mean of."""
    one_of("direction", direction, DIRECTIONS)
    return ("forward", "backward") if direction == "both" else (direction,)


def checked(
    emissions: Tensor, transitions: Transitions, mask: Tensor | None, direction: str, tags: Tensor | None = None
) -> chain.Potentials:
    """The arguments as tensors, or an error that names the one that is wrong.

    The emissions of a step have their best score at 0. A pair of transitions is a pair of tensors.
    """
    sides_of(direction)
    given = {"tags": tags, "mask": mask, "unknown": True}
    if not isinstance(transitions, tuple):
        transitions = as_tensor("transitions", transitions)
        if len(transitions.shape) != 2:
            raise ValueError(
                "transitions must be a matrix (tags, tags) or a pair of matrices (tags, rank), got shape "
                f"{tuple(transitions.shape)}"
            )
        arguments = chain.checked(emissions, transitions, **given)
    else:
        left, right = factors(transitions)
        stand_in = ops.broadcast_to(ops.zeros((1, 1), left.dtype), (left.shape[0],) * 2)
        arguments = chain.checked(emissions, stand_in, **given)
        finite = ops.logical_and(ops.all(ops.isfinite(left)), ops.all(ops.isfinite(right)))
        arguments = _all_known(arguments._replace(valid=ops.logical_and(arguments.valid, finite)))
        left, right = (ops.cast(factor, arguments.emissions.dtype) for factor in (left, right))
        arguments = arguments._replace(transitions=(left, right))
    return arguments._replace(emissions=without_best(arguments.emissions))


def _all_known(arguments: chain.Potentials) -> chain.Potentials:
    """The arguments if all tags are known: to sum over tags takes a matrix (tags, tags), and factors avoid it."""
    if arguments.tags is None:
        return arguments
    unknown = ops.equal(arguments.tags, chain.UNKNOWN)
    require(
        ops.logical_not(ops.any(unknown)),
        "tags must all be known if transitions are a pair",
        lambda: [chain.UNKNOWN],
    )
    valid = ops.logical_and(arguments.valid, ops.logical_not(ops.any(unknown, axis=1)))
    return arguments._replace(tags=ops.where(unknown, 0, arguments.tags), valid=valid)


def factors(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The pair (left, right) as matrices of one shape."""
    if len(pair) != 2:
        raise ValueError(f"transitions must be a matrix or a pair (left, right), got a tuple of {len(pair)}")
    left, right = (float32_or_wider(as_tensor("transitions", factor)) for factor in pair)
    if len(left.shape) != 2 or tuple(left.shape) != tuple(right.shape):
        raise ValueError(
            "transitions must be a pair of matrices (tags, rank), got shapes "
            f"{tuple(left.shape)} and {tuple(right.shape)}"
        )
    return left, right


def matrix(transitions: Transitions) -> Tensor:
    """g, shape (tags, tags)."""
    if isinstance(transitions, tuple):
        left, right = transitions
        return ops.matmul(left, ops.transpose(right))
    return transitions


def rows(transitions: Transitions, direction: str) -> Callable[[Tensor], Tensor]:
    """A function from neighbours (...) in [0, K] to their scores of every tag (..., K), 0 for the neighbour K."""
    left, right = transitions if isinstance(transitions, tuple) else (transitions, None)
    if direction == "backward":
        left, right = (ops.transpose(left), None) if right is None else (right, left)
    if right is None:
        table = ops.pad(without_best(left), ((0, 1), (0, 0)))
        return lambda neighbours: ops.take(table, neighbours, axis=0)
    # A product is as precise as its size allows: to take the best of its rows out would win no digit back.
    table = ops.pad(left, ((0, 1), (0, 0)))
    return lambda neighbours: ops.matmul(ops.take(table, neighbours, axis=0), ops.transpose(right))


def best_of(x: Tensor) -> Tensor:
    """The maximum over the last axis, kept as an axis, without gradient; 0 where all are −∞."""
    best = ops.stop_gradient(ops.max(x, axis=-1, keepdims=True))
    return ops.where(ops.equal(best, -math.inf), 0.0, best)


def without_best(x: Tensor) -> Tensor:
    """The scores of a softmax over the last axis, the best of them 0; any in a row that is to be NaN."""
    x = ops.where(x < math.inf, x, 0)
    return x - best_of(x)


def logsumexp(x: Tensor) -> Tensor:
    """Over the last axis; 0, without gradient, where all are −∞."""
    best = best_of(x)
    total = ops.sum(ops.exp(x - best), axis=-1)
    return ops.log(ops.where(ops.equal(total, 0.0), 1.0, total)) + best[..., 0]
