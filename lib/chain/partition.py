"""Sums over all tag sequences: log Z with its gradient, marginals, entropy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._backend import custom_gradient, follows_forward, jit, scan
from .._tensors import or_nan
from ._gradients import gradients_of_scores, of_tags, taken_again
from ._messages import with_boundary
from ._posterior import Posterior, posterior_of
from ._semirings import log, softmax_with_log
from .arguments import Potentials, checked

__all__ = ["entropy", "log_partition", "marginals"]

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
    linear in time × tags. Second derivatives are right, too.

    Args:
        emissions: Scores of the tags at each step, shape (batch, time, tags), any float type; −inf forbids a tag.
        transitions: Scores of tag i followed by tag j, shape (tags, tags); −inf forbids a move. Or those between
            steps t and t + 1, shape (batch, time − 1, tags, tags).
        mask: Valid steps, boolean or 0 and 1, shape (batch, time), a prefix of each row; None if all are valid.
        start: Scores of the first tag, shape (tags,); None for 0.
        end: Scores of the last tag, shape (tags,); None for 0.

    Returns:
        log Z in nats, shape (batch,), float32 or wider. 0 for a row without a valid step; −inf, with zero gradient,
        where no sequence is legal; NaN for a row whose scores are NaN or +inf, and, under XLA and JAX jit, for one
        whose mask is wrong.

    Raises:
        ValueError: As :func:`checked`.

    Source: Lafferty, McCallum and Pereira 2001; Rabiner 1989 for the scaling.

    Example:
        >>> round(float(ops.exp(log_partition(np.zeros((1, 5, 3)), np.zeros((3, 3)))[0])))  # 3⁵ sequences
        243
    """
    return log_partition_of(checked(emissions, transitions, mask=mask, start=start, end=end))


def log_partition_of(chain: Potentials) -> Tensor:
    """:func:`log_partition` of arguments that are checked already.

    Example:
        >>> round(float(ops.exp(log_partition_of(checked(np.zeros((1, 5, 3)), np.zeros((3, 3))))[0])))
        243
    """

    def solved(mask: Tensor, *scores: Tensor) -> tuple[Tensor, ...]:
        e, M, taken = with_boundary(*scores[:2], mask > 0, *scores[2:])
        return *posterior_of(e, M), M, taken

    @custom_gradient
    def log_z(*given: Tensor) -> tuple[Tensor, Callable]:
        posterior, exact, M, taken = solved(*given)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            if taken_again(upstream):
                return ops.zeros_like(args[0]), *gradients_of_scores(*solved(*args)[:3], upstream)
            w = args[0] if upstream is None else upstream
            return ops.zeros_like(given[0]), *gradients_of_scores(posterior, exact, M, w)

        return taken + posterior.log_z, gradient

    # A custom gradient in a branch of JAX may close over no tensor: the mask is an argument, one with a gradient.
    mask = ops.cast(chain.mask, chain.emissions.dtype)
    given = mask, chain.emissions, chain.transitions, chain.start, chain.end
    if follows_forward(given):
        posterior, _, _, taken = solved(*given)
        return or_nan(taken + posterior.log_z, chain.valid)
    return or_nan(log_z(*given), chain.valid)


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
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Probabilities, shape (batch, time, tags), float32 or wider, with sum 1 at valid steps and 0 at masked ones;
        0 where no sequence is legal; NaN where :func:`log_partition` is.

    Raises:
        ValueError: As :func:`checked`.

    Source: Rabiner 1989, the forward-backward procedure.

    Example:
        >>> p = marginals([[[0.0, np.log(3.0)]]], np.zeros((2, 2)))
        >>> np.round(ops.convert_to_numpy(p), 4).tolist()
        [[[0.25, 0.75]]]
    """
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, _ = with_boundary(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    return or_nan(of_tags(posterior_of(e, M)[0].p), chain.valid)


def entropy(
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The entropy of the tag sequences, H = −Σ_y p(y) log p(y) under p(y) = exp s(y) / Z.

    It is the sum of the entropies of each tag given the one before, no difference of large numbers:
    H = Σ_t Σ_i P(y_t = i) H(y_{t+1} | y_t = i). Time and memory are those of :func:`log_partition`.

    Args:
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Nats, shape (batch,), float32 or wider, not negative. 0 for a row without a valid step; NaN where no
        sequence is legal, and where :func:`log_partition` is.

    Raises:
        ValueError: As :func:`checked`.

    Source: Hernando, Crespi and Cybenko 2005, "Efficient computation of the hidden Markov model entropy".

    Example:
        >>> round(float(entropy(np.zeros((1, 5, 3)), np.zeros((3, 3)))[0]), 4)  # 5 log 3
        5.4931
    """
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, _ = with_boundary(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    posterior, exact = posterior_of(e, M)
    possible = posterior.log_z > -math.inf
    return or_nan(_entropy(posterior, exact, M), ops.logical_and(chain.valid, possible))


@jit()
def _entropy(posterior: Posterior, exact: Tensor, M: Tensor) -> Tensor:
    right = ops.where(exact, log(posterior.right), posterior.right)
    by_steps = len(M.shape) == 4

    def step(total: Tensor, at: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        p, right, *own = at
        scores = (own[0] if by_steps else M) + right[:, None]
        given, log_given = softmax_with_log(scores)
        h = -ops.sum(given * ops.where(given > 0, log_given, 0), axis=-1)
        total = total + ops.sum(p * h, axis=-1)
        return total, total

    steps = (posterior.p[:-1], right, *((M,) if by_steps else ()))
    return scan(step, ops.zeros_like(right[0, :, 0]), steps)[0]
