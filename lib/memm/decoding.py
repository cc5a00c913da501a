"""Decoding: exact, step by step, and with a beam."""

import math
from typing import Any

from keras import ops

from .. import chain
from .._arguments import positive_integer
from .._backend import jit, scan
from .._tensors import or_nan
from ..chain import Potentials
from ..tagging import PADDING
from ._scores import Transitions, checked, logsumexp, rows, sides_of
from .likelihood import likelihood_of
from .normalizers import potentials_of

__all__ = ["beam", "greedy", "viterbi"]

Tensor = Any


def viterbi(
    emissions: Tensor, transitions: Transitions, *, mask: Tensor | None = None, direction: str = "forward"
) -> tuple[Tensor, Tensor]:
    """The most probable tag sequence and its log-probability: exact, with the local normalizers.

    It is ``chain.viterbi`` on :func:`potentials`. For ``"both"`` it is the maximum of
    ½(log P→ + log P←), exact as well.

    The share of tokens that code without the normalizers gets wrong compares two lines::

        tags, _ = memm.viterbi(emissions, transitions)
        wrong, _ = chain.viterbi(emissions, transitions)

    For Gaussian scores of deviation 1, four tags and 20 steps it is 28 %.

    Args:
        emissions: As in :func:`log_likelihood`.
        transitions: As in :func:`log_likelihood`. A pair is multiplied out, (tags, tags): with many tags take
            :func:`beam`.
        mask: As in :func:`log_likelihood`.
        direction: As in :func:`log_likelihood`.

    Returns:
        The tags (batch, time), int32, −1 at masked steps, and their log-likelihood in this direction (batch,).
        Where every sequence is forbidden, tags −1 and −inf.

    Raises:
        ValueError: As :func:`log_likelihood`.

    Example:
        >>> emissions, transitions = [[[0.0, 0.5], [0.0, 0.0]]], [[3.0, 0.0], [0.0, 0.0]]
        >>> ops.convert_to_numpy(viterbi(emissions, transitions)[0]).tolist()
        [[0, 0]]
        >>> emissions, transitions = [[[0.0, 0.5], [0.0, 0.0]]], [[0.6, 0.6], [0.0, -5.0]]
        >>> ops.convert_to_numpy(viterbi(emissions, transitions)[0]).tolist()
        [[1, 0]]
        >>> ops.convert_to_numpy(chain.viterbi(emissions, transitions)[0]).tolist()  # without the normalizers
        [[0, 0]]
    """
    arguments = checked(emissions, transitions, mask, direction)
    f, g, *_ = potentials_of(arguments, sides_of(direction))
    tags, _ = chain.viterbi(f, g, mask=arguments.mask)
    _, score = _best([ops.maximum(tags, 0)], arguments, direction)
    return ops.where(ops.isnan(score)[:, None], PADDING, tags), score


def greedy(
    emissions: Tensor, transitions: Transitions, *, mask: Tensor | None = None, direction: str = "forward"
) -> tuple[Tensor, Tensor]:
    """The tag sequence that takes the most probable tag at every step, given the one just taken.

    Forward it starts at the first step, backward at the last valid one. For ``"both"`` it is the better of these
    two sequences by ½(log P→ + log P←). A step costs one row of g, and nothing of size (tags, tags) is made.

    Args:
        emissions: As in :func:`log_likelihood`.
        transitions: As in :func:`log_likelihood`.
        mask: As in :func:`log_likelihood`.
        direction: As in :func:`log_likelihood`.

    Returns:
        The tags (batch, time), int32, −1 at masked steps, and their log-likelihood in this direction (batch,).
        A greedy step that has run into a dead end takes tag 0, and the score is −inf.

    Raises:
        ValueError: As :func:`log_likelihood`.

    Example:
        >>> emissions, transitions = [[[1.0, 0.9], [0.0, 0.0]]], [[0.0, 0.0], [9.0, 0.0]]
        >>> for decode in (greedy, viterbi):  # greedy cannot know that tag 1 leads to a sure step
        ...     tags, score = decode(emissions, transitions)
        ...     ops.convert_to_numpy(tags).tolist(), round(float(score[0]), 4)
        ([[0, 0]], -1.3375)
        ([[1, 0]], -0.7445)
    """
    arguments = checked(emissions, transitions, mask, direction)
    return _best([_greedy(arguments, side) for side in sides_of(direction)], arguments, direction)


@jit(static_argnames=("direction",))
def _greedy(arguments: Potentials, direction: str) -> Tensor:
    emissions, mask = _time_first(arguments)
    rows_of, backward = rows(arguments.transitions, direction), direction == "backward"

    def step(tag, x):
        e, valid = x
        best = ops.cast(ops.argmax(e + rows_of(tag), axis=-1), "int32")
        tag = ops.where(valid, best, tag)
        return tag, tag

    alone = ops.zeros_like(mask[0], dtype="int32") + emissions.shape[-1]
    _, tags = scan(step, alone, (emissions, mask), reverse=backward)
    return ops.transpose(tags)


def beam(
    emissions: Tensor,
    transitions: Transitions,
    width: int,
    *,
    mask: Tensor | None = None,
    direction: str = "forward",
) -> tuple[Tensor, Tensor]:
    """The best tag sequence that a beam finds: ``width`` partial sequences are kept at every step.

    Of the partial sequences with one last tag only the best can win, for what follows depends on the last tag
    alone; so the beam keeps the best for each of the ``width`` best last tags. A beam as wide as the tag set is
    therefore :func:`viterbi`, exactly, and a beam of width 1 is :func:`greedy`. Between them a wider beam is mostly
    better, but not always: a partial sequence that it keeps can push out the one that would have won.

    For ``"both"`` it is the better of the two directions' sequences by ½(log P→ + log P←), and so not exact at any
    width. A step costs ``width`` rows of g, and nothing of size (tags, tags) is made.

    Args:
        emissions: As in :func:`log_likelihood`.
        transitions: As in :func:`log_likelihood`.
        width: Partial sequences to keep, at least 1; more than there are tags does no more.
        mask: As in :func:`log_likelihood`.
        direction: As in :func:`log_likelihood`.

    Returns:
        The tags (batch, time), int32, −1 at masked steps, and their log-likelihood in this direction (batch,),
        −inf if all that the beam kept ran into dead ends.

    Raises:
        ValueError: ``width`` is not a positive integer; otherwise as :func:`log_likelihood`.

    Example:
        >>> emissions, transitions = [[[1.0, 0.9], [0.0, 0.0]]], [[0.0, 0.0], [9.0, 0.0]]
        >>> for width in (1, 2):
        ...     ops.convert_to_numpy(beam(emissions, transitions, width)[0]).tolist()
        [[0, 0]]
        [[1, 0]]
    """
    positive_integer("width", width)
    arguments = checked(emissions, transitions, mask, direction)
    return _best([_beam(arguments, width, side) for side in sides_of(direction)], arguments, direction)


@jit(static_argnames=("width", "direction"))
def _beam(arguments: Potentials, width: int, direction: str) -> Tensor:
    emissions, mask = _time_first(arguments)
    rows_of, backward = rows(arguments.transitions, direction), direction == "backward"
    K = emissions.shape[-1]
    width = min(width, K)

    def extend(carry, x):
        tags, _, scores = carry
        e, valid = x
        logits = e[:, None] + rows_of(tags)
        reached = scores[..., None] + logits - logsumexp(logits)[..., None]  # (batch, width, tags)
        best, best_tags = ops.top_k(ops.max(reached, axis=1), width)
        origin = ops.take_along_axis(ops.argmax(reached, axis=1), best_tags, axis=1)
        new = ops.cast(best_tags, "int32"), ops.cast(origin, "int32"), best
        carry = tuple(ops.where(valid[:, None], a, b) for a, b in zip(new, (tags, stay, scores), strict=True))
        return carry, carry

    def trace(carry, x):
        rank, _ = carry
        tags, origins = x
        tag, origin = (ops.take_along_axis(of, rank[:, None], axis=1)[:, 0] for of in (tags, origins))
        return (origin, tag), (origin, tag)

    ranks = ops.arange(width, dtype="int32")
    rank = ops.zeros_like(mask[0], dtype="int32")
    stay = rank[:, None] + ranks
    alone = ops.zeros_like(stay) + K, stay, ops.where(stay == 0, 0.0, ops.cast(-math.inf, emissions.dtype))
    _, (tags, origins, _) = scan(extend, alone, (emissions, mask), reverse=backward)
    _, (_, path) = scan(trace, (rank, rank), (tags, origins), reverse=not backward)
    return ops.transpose(path)


def _time_first(arguments: Potentials) -> tuple[Tensor, Tensor]:
    return ops.moveaxis(arguments.emissions, 1, 0), ops.transpose(arguments.mask)


def _best(paths: list[Tensor], arguments: Potentials, direction: str) -> tuple[Tensor, Tensor]:
    """Of one or two candidates (batch, time) the better one and its log-likelihood, −1 and NaN if wrong."""
    scored = []
    for tags in paths:
        candidate = arguments._replace(tags=ops.where(arguments.mask, tags, 0))
        sides = [likelihood_of(candidate, side) for side in sides_of(direction)]
        scored.append((candidate.tags, sum(sides) / len(sides)))
    tags, score = scored[0]
    for other, other_score in scored[1:]:
        tags = ops.where((other_score > score)[:, None], other, tags)
        score = ops.maximum(score, other_score)
    score = or_nan(score, arguments.valid)  # NaN also where a product of factors overflows
    found = ops.logical_and(arguments.mask, ops.logical_not(ops.isnan(score))[:, None])
    return ops.where(found, tags, PADDING), score
