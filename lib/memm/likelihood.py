"""The likelihood: the product of one softmax a step."""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from .._backend import cond, custom_gradient, follows_forward, is_known, jit, pad_integers, vjp
from .._tensors import as_tensor, or_nan
from ..chain import UNKNOWN, Potentials
from ..chain.likelihood import only_known
from ..chain.partition import log_partition_of
from ._scores import Transitions, best_of, checked, rows, sides_of
from .normalizers import potentials_of

__all__ = ["log_likelihood"]

Tensor = Any


def log_likelihood(
    tags: Tensor,
    emissions: Tensor,
    transitions: Transitions,
    *,
    mask: Tensor | None = None,
    direction: str = "forward",
) -> Tensor:
    """The log-probability of tag sequences, a sum of one log-softmax a step.

    Args:
        tags: Tag sequences, shape (batch, time), integers in [0, tags), or ``chain.UNKNOWN`` where the tag of a
            step is not known and ``transitions`` is a matrix; any number at masked steps.
        emissions: Scores f_k(j) of each tag at each step, shape (batch, time, tags), any float type; −inf forbids.
        transitions: Scores g(i, j) of tag i followed by tag j, shape (tags, tags), −inf forbids a move; or a pair
            (left, right), both (tags, rank), for g(i, j) = left_i · right_j.
        mask: Valid steps, boolean or 0 and 1, shape (batch, time), a valid prefix in each row; None if all are
            valid.
        direction: ``"forward"`` for log P→, ``"backward"`` for log P←, ``"both"`` for their mean.

    Returns:
        Shape (batch,), float32 or wider, not positive. A row without a valid step has 0. Unknown tags are summed
        out: it is the log-probability of the known ones, for ``"both"`` the mean of that in both directions. A
        sequence that makes a forbidden move has −inf and a zero gradient. A row has NaN if a score that counts is
        NaN or +inf; under XLA and JAX jit, where no error can be raised, also with tags out of range or a wrong
        mask.

    Raises:
        ValueError: As ``chain.checked``; ``direction`` is none of these; a tag is unknown and ``transitions`` a
        pair.

    Source: article 7213; the time and memory are those of a softmax cross-entropy, twice for ``"both"``. Tsuboi et
        al. 2008, "Training conditional random fields using incomplete annotations" (unknown tags).

    Example:
        >>> emissions, transitions = [[[0.0, 1.0], [2.0, 0.0]]], [[0.0, 1.0], [1.0, 0.0]]
        >>> for direction in ("forward", "backward", "both"):
        ...     round(float(log_likelihood([[1, 0]], emissions, transitions, direction=direction)[0]), 4)
        -0.3618
        -0.2539
        -0.3079
    """
    arguments = checked(emissions, transitions, mask, direction, as_tensor("tags", tags))
    sides = [likelihood_of(arguments, side) for side in sides_of(direction)]
    return or_nan(sum(sides) / len(sides), arguments.valid)


@jit(static_argnames=("direction",))
def likelihood_of(arguments: Potentials, direction: str) -> Tensor:
    """:func:`log_likelihood` of one direction, of checked arguments.

    Example:
        >>> arguments = checked([[[0.0, 1.0], [2.0, 0.0]]], [[0.0, 1.0], [1.0, 0.0]], None, "forward", [[1, 0]])
        >>> round(float(likelihood_of(arguments, "forward")[0]), 4)
        -0.3618
    """
    of_all = _of_sequence(arguments, direction)
    if isinstance(arguments.transitions, tuple):
        return of_all
    unknown = ops.any(ops.equal(arguments.tags, UNKNOWN))
    if is_known(unknown):
        return _of_known(arguments, direction) if unknown else of_all
    return ops.where(unknown, _of_known_compiled(arguments, direction), of_all)


def _of_known(arguments: Potentials, direction: str) -> Tensor:
    """Log P of the known tags, the others summed out."""
    return ops.minimum(log_partition_of(only_known(potentials_of(arguments, (direction,)))), 0)


def _of_known_compiled(arguments: Potentials, direction: str) -> Tensor:
    """:func:`_of_known` where a tag is unknown, in compiled code; 0 where all are known, at next to no cost.

    A branch hands to the backward pass all that its gradient may need, as zeros if it was not taken: for most
    batches that would cost more than the likelihood. So the gradient is a branch of its own, which computes anew.
    """

    @custom_gradient
    def known(*given: Tensor) -> tuple[Tensor, Callable]:
        f, g, others = *given[:2], given[2:]
        unknown = ops.any(ops.equal(given[5], UNKNOWN))

        def of_scores(f: Tensor, g: Tensor, *others: Tensor) -> tuple[Tensor]:
            mask, start, end, tags, valid = others
            tags = ops.cast(tags, "int32")
            return (_of_known(Potentials(f, g, mask > 0, start, end, tags, valid > 0), direction),)

        def slopes(f: Tensor, g: Tensor, upstream: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            return tuple(vjp(lambda *scores: (of_scores(*scores, *others), None), f, g)[2]((upstream,)))

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            none = lambda f, g, *_: (ops.zeros_like(f), ops.zeros_like(g))  # noqa: E731
            return *cond(unknown, slopes, none, f, g, upstream, given=others), *map(ops.zeros_like, others)

        none = lambda f, *_: (ops.zeros_like(f[:, 0, 0]),)  # noqa: E731
        return cond(unknown, of_scores, none, f, g, given=others)[0], gradient

    if follows_forward(arguments[:2]):
        return _of_known(arguments, direction)
    # JAX lets a custom gradient close over no tensor here, and its arguments are floats.
    return known(*(ops.cast(x, arguments.emissions.dtype) for x in arguments))


def _of_sequence(arguments: Potentials, direction: str) -> Tensor:
    logits = arguments.emissions + rows(arguments.transitions, direction)(_neighbours(arguments, direction))
    chosen = ops.take_along_axis(logits, ops.expand_dims(ops.maximum(arguments.tags, 0), -1), axis=-1)[..., 0]
    best = best_of(logits)
    total = ops.sum(ops.exp(logits - best), axis=-1)
    log_p = (chosen - best[..., 0]) - ops.log(ops.where(total > 0, total, 1))  # both at most 0
    log_p = ops.sum(ops.where(arguments.mask, log_p, 0.0), axis=1)
    return ops.where(ops.equal(log_p, -math.inf), -math.inf, log_p)  # cuts the gradient of what is impossible


def _neighbours(arguments: Potentials, direction: str) -> Tensor:
    """The tag that each step looks at, (batch, time): the one before or after, K where there is none."""
    none, tags = arguments.emissions.shape[-1], ops.maximum(arguments.tags, 0)
    if direction == "forward":
        return pad_integers(tags[:, :-1], ((0, 0), (1, 0)), none)
    after = ops.where(arguments.mask[:, 1:], tags[:, 1:], none)
    return pad_integers(after, ((0, 0), (0, 1)), none)
