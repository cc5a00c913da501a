"""The score of one tag sequence, and its probability."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._backend import custom_gradient, follows_forward, jit
from .._tensors import as_tensor, or_nan
from ._gradients import of_scores, taken_again
from ._messages import with_boundary
from ._posterior import Posterior, expected_transitions, is_tag, moves, posterior_and_log_p, posterior_of
from ._semirings import finite_or_zero
from .arguments import UNKNOWN, Potentials, checked

__all__ = ["log_likelihood", "sequence_score"]

Tensor = Any


def sequence_score(
    tags: Tensor,
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The score s(y) of given tag sequences.

    Args:
        tags: Tag sequences y, shape (batch, time), integers in [0, tags); anything at masked steps.
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Scores in nats, shape (batch,), float32 or wider. 0 for a row without a valid step, −inf for a forbidden
        sequence; NaN where :func:`log_partition` is, and, under XLA and JAX jit, for a row with wrong tags.

    Raises:
        ValueError: As :func:`checked`.

    Example:
        >>> transitions = np.array([[0.0, 0.5], [0.0, 0.25]])
        >>> float(sequence_score(np.array([[0, 1, 1]]), np.ones((1, 3, 2)), transitions)[0])  # 3 + 0.5 + 0.25
        3.75
    """
    tags = as_tensor("tags", tags)
    return score_of(checked(emissions, transitions, tags=tags, mask=mask, start=start, end=end))


@jit()
def score_of(chain: Potentials) -> Tensor:
    """:func:`sequence_score` of arguments that are checked already, tags among them.

    Example:
        >>> float(score_of(checked(np.ones((1, 3, 2)), np.zeros((2, 2)), tags=[[0, 1, 1]]))[0])
        3.0
    """
    K, A = chain.emissions.shape[-1], chain.transitions
    y, mask = is_tag(chain.tags, K), chain.mask
    y = ops.logical_and(y, mask[..., None])
    tags = ops.sum(ops.where(y, chain.emissions, 0), axis=(1, 2))
    if len(A.shape) == 2:
        of_moves = ops.take(ops.reshape(A, (-1,)), chain.tags[:, :-1] * K + chain.tags[:, 1:])
        of_moves = ops.sum(ops.where(mask[:, 1:], of_moves, 0), axis=1)
    else:
        is_move = ops.logical_and(y[:, :-1, :, None], y[:, 1:, None, :])
        of_moves = ops.sum(ops.where(is_move, A, 0), axis=(1, 2, 3))
    last = ops.logical_and(y, ops.logical_not(ops.pad(mask[:, 1:], ((0, 0), (0, 1))))[..., None])
    first, last = ops.where(y[:, 0], chain.start, 0), ops.where(ops.any(last, axis=1), chain.end, 0)
    return or_nan(tags + of_moves + ops.sum(first + last, axis=1), chain.valid)


def log_likelihood(
    tags: Tensor,
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The log-probability of tag sequences, log P(y) = s(y) − log Z.

    It is computed as the sum of log P(y_{t+1} | y_t), each of which is at most 0. So it is never positive, and
    constants added to the scores cost no digits.

    Where only some tags are known, it is the log-probability of these, the others summed out: a difference of two
    sums, each rounded, of scores relative to the best of their step.

    Args:
        tags: Tag sequences, shape (batch, time), integers in [0, tags), or :data:`UNKNOWN` where the tag of a step
            is not known; anything at masked steps.
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Log-probabilities, not positive, shape (batch,), float32 or wider. A row without a valid step has 0, and so
        has one of unknown tags alone. A sequence that is forbidden has −inf and a zero gradient, also where no
        sequence is allowed. NaN where :func:`log_partition` is, and, under XLA and JAX jit, for a row with wrong
        tags.

    Raises:
        ValueError: As :func:`checked`.

    Source: Lafferty, McCallum and Pereira 2001; Tsuboi et al. 2008, "Training conditional random fields using
        incomplete annotations" (unknown tags).

    Example:
        >>> emissions, transitions = np.log([[[0.6, 0.4], [0.1, 0.9]]]), np.zeros((2, 2))
        >>> p = [float(np.exp(log_likelihood([y], emissions, transitions)[0])) for y in ([0, 1], [0, UNKNOWN])]
        >>> [round(value, 4) for value in p]
        [0.54, 0.6]
    """
    tags = as_tensor("tags", tags)
    return log_likelihood_of(
        checked(emissions, transitions, tags=tags, mask=mask, start=start, end=end, unknown=True)
    )


def log_likelihood_of(chain: Potentials) -> Tensor:
    """:func:`log_likelihood` of arguments that are checked already, tags among them.

    Example:
        >>> chain = checked(np.zeros((1, 3, 2)), np.zeros((2, 2)), tags=[[0, 1, 1]])
        >>> round(float(log_likelihood_of(chain)[0]), 4)  # 3 log ½
        -2.0794
    """

    def solved(walk: Tensor, mask: Tensor, *scores: Tensor) -> tuple[Any, ...]:
        walk = ops.cast(walk, "int32")
        e, M, _ = with_boundary(*scores[:2], mask > 0, *scores[2:])
        return walk, e, M, *posterior_and_log_p(e, M, walk)

    @custom_gradient
    def log_p(*given: Tensor) -> tuple[Tensor, Callable]:
        *solution, of_walk = solved(*given)
        value = _of_known(*solution, of_walk)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            w = ops.where(value > -math.inf, args[0] if upstream is None else upstream, 0)
            slopes = _gradient(*(solved(*args)[:-1] if taken_again(upstream) else solution), w)
            return *map(ops.zeros_like, given[:2]), *slopes

        return value, gradient

    # A custom gradient in a branch of JAX may close over no tensor: these are arguments, ones with a gradient.
    walk, mask = (ops.cast(x, chain.emissions.dtype) for x in (_walk(chain.tags, chain.mask), chain.mask))
    given = walk, mask, chain.emissions, chain.transitions, chain.start, chain.end
    return or_nan(_of_known(*solved(*given)) if follows_forward(given) else log_p(*given), chain.valid)


@jit()
def _walk(tags: Tensor, mask: Tensor) -> Tensor:
    """The tags of the closed chain, time first: 0 is its boundary, before, behind and where no tag is."""
    return ops.pad(ops.transpose(ops.where(mask, tags + 1, 0)), ((1, 1), (0, 0)))


@jit()
def _of_known(walk: Tensor, e: Tensor, M: Tensor, posterior: Posterior, exact: Tensor, of_walk: Tensor) -> Tensor:  # noqa: ARG001
    """Log P of the tags that are known, −inf where it is 0; ``of_walk`` where all are."""

    def partly() -> Tensor:
        known, best = _known(e, walk)
        log_z = best + posterior_of(known, M)[0].log_z
        log_p = ops.where(ops.any(walk > 0, axis=0), ops.minimum(log_z - posterior.log_z, 0), 0)
        return ops.where(log_z > -math.inf, log_p, -math.inf)

    return ops.cond(ops.any(walk < 0), partly, lambda: of_walk)


@jit()
def _gradient(
    walk: Tensor, e: Tensor, M: Tensor, posterior: Posterior, exact: Tensor, w: Tensor
) -> tuple[Tensor, ...]:
    """What is there minus what is expected, in terms of emissions, transitions, start and end."""

    def there() -> tuple[Tensor, Tensor]:
        tags = ops.cast(is_tag(walk, e.shape[-1]), w.dtype)
        return w[:, None] * (tags - posterior.p), moves(walk, M, w)

    def expected_there() -> tuple[Tensor, Tensor]:
        part, exact = posterior_of(_known(e, walk)[0], M)
        return w[:, None] * (part.p - posterior.p), expected_transitions(part, exact, M, w)

    tags, of_moves = ops.cond(ops.any(walk < 0), expected_there, there)
    return of_scores(tags, of_moves - expected_transitions(posterior, exact, M, w))


def _known(e: Tensor, walk: Tensor) -> tuple[Tensor, Tensor]:
    """The emissions of the closed chain with all tags but the known ones forbidden, less their best; its sum."""
    tags = ops.arange(e.shape[-1], dtype="int32")
    allowed = ops.logical_or(walk[..., None] == tags, ops.logical_and(walk[..., None] < 0, tags > 0))
    e = ops.where(allowed, e, -math.inf)
    best = finite_or_zero(ops.max(e, axis=-1, keepdims=True))
    return e - best, ops.sum(best, axis=(0, 2))


def only_known(chain: Potentials) -> Potentials:
    """The chain with all tags forbidden but the known ones, where they are known.

    Example:
        >>> chain = checked(np.zeros((1, 2, 2)), np.zeros((2, 2)), tags=[[0, UNKNOWN]], unknown=True)
        >>> ops.convert_to_numpy(only_known(chain).emissions).tolist()
        [[[0.0, -inf], [0.0, 0.0]]]
    """
    allowed = ops.logical_or(
        is_tag(chain.tags, chain.emissions.shape[-1]), ops.equal(chain.tags, UNKNOWN)[..., None]
    )
    allowed = ops.logical_or(allowed, ops.logical_not(chain.mask)[..., None])
    return chain._replace(emissions=ops.where(allowed, chain.emissions, -math.inf))
