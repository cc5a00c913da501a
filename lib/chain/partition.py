"""Sums over all tag sequences: log Z with its gradient, marginals, and the score of one sequence."""

from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from ._messages import closed, closed_transitions
from ._posterior import expected_moves, posterior_of
from .arguments import _or_nan, checked

__all__ = ["log_partition", "marginals", "sequence_score"]

Tensor = Any


def log_partition(
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The logarithm of the partition function, log Z = log Σ_y exp s(y) over all tag sequences y.

    Its gradient with respect to ``emissions`` is :func:`marginals`, with respect to ``transitions`` the expected
    number of moves from i to j. It is computed along with the value, whether it is asked for or not, with memory
    linear in time × tags. First derivatives only.

    Args:
        emissions: Scores of the tags at each step, shape (batch, time, tags), any float type; −inf forbids a tag.
        transitions: Scores of tag i followed by tag j, shape (tags, tags); −inf forbids a move.
        mask: Valid steps, boolean, shape (batch, time), a prefix of each row; None if all are valid.
        start: Scores of the first tag, shape (tags,); None for 0.
        end: Scores of the last tag, shape (tags,); None for 0.

    Returns:
        log Z in nats, shape (batch,), float32 or wider. 0 for a row without a valid step; −inf, with zero gradient,
        where no sequence is legal; NaN for a row whose arguments are wrong (see :func:`checked`).

    Raises:
        ValueError: As :func:`checked`.

    Source: Lafferty, McCallum and Pereira 2001; Rabiner 1989 for the scaling.

    Example:
        >>> round(float(ops.exp(log_partition(np.zeros((1, 5, 3)), np.zeros((3, 3)))[0])))  # 3⁵ sequences
        243
    """
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)

    @ops.custom_gradient
    def log_z(emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Callable]:
        e, M, taken = closed(emissions, transitions, chain.mask, start, end)
        posterior, exact = posterior_of(e, M)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            w = args[0] if upstream is None else upstream  # torch passes it by name, after the arguments
            moves = expected_moves(posterior, exact, M, w)
            return w[:, None, None] * _of_tags(posterior.p), moves[1:, 1:], moves[0, 1:], moves[1:, 0]

        return taken + posterior.log_z, gradient

    return _or_nan(log_z(chain.emissions, chain.transitions, chain.start, chain.end), chain)


def _of_tags(x: Tensor) -> Tensor:
    """(time + 2, batch, K) of the closed chain as (batch, time, tags)."""
    return ops.moveaxis(x[1:-1, :, 1:], 0, 1)


def marginals(
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The probability of each tag at each step under p(y) = exp s(y) / Z.

    Args:
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Probabilities, shape (batch, time, tags), float32 or wider, with sum 1 at valid steps and 0 at masked ones;
        0 where no sequence is legal; NaN for a row whose arguments are wrong.

    Raises:
        ValueError: As :func:`checked`.

    Source: Rabiner 1989, the forward-backward procedure.

    Example:
        >>> p = marginals([[[0.0, np.log(3.0)]]], np.zeros((2, 2)))
        >>> np.round(ops.convert_to_numpy(p), 4).tolist()
        [[[0.25, 0.75]]]
    """
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, _ = closed(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    return _or_nan(_of_tags(posterior_of(e, M)[0].p), chain)


def sequence_score(
    emissions: Tensor,
    tags: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The score s(y) of given tag sequences.

    Args:
        emissions: As in :func:`log_partition`, (batch, time, tags).
        tags: Tag sequences y, shape (batch, time), integers in [0, tags); anything at masked steps.
        transitions: As in :func:`log_partition`, (tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Scores in nats, shape (batch,), float32 or wider. 0 for a row without a valid step, −inf for a forbidden
        sequence, NaN for a row whose arguments are wrong.

    Raises:
        ValueError: As :func:`checked`.

    Example:
        >>> transitions = np.array([[0.0, 0.5], [0.0, 0.25]])
        >>> float(sequence_score(np.ones((1, 3, 2)), np.array([[0, 1, 1]]), transitions)[0])  # 3 + 0.5 + 0.25
        3.75
    """
    chain = checked(emissions, transitions, tags=tags, mask=mask, start=start, end=end)
    K = chain.emissions.shape[-1] + 1
    walk = ops.pad(ops.where(chain.mask, chain.tags + 1, 0), ((0, 0), (1, 1)))
    chosen = walk[:, 1:-1, None] == ops.arange(1, K, dtype="int32")
    M = closed_transitions(chain.transitions, chain.start, chain.end)
    moves = ops.take(ops.reshape(M, (-1,)), walk[:, :-1] * K + walk[:, 1:])
    return _or_nan(ops.sum(ops.where(chosen, chain.emissions, 0), axis=(1, 2)) + ops.sum(moves, axis=1), chain)
