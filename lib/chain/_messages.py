"""The chain is closed, and then read from both ends at once.

A boundary tag, number 0, stands before the first step, after the last one and at every
masked step. To leave it scores ``start``, to enter it ``end``, to stay in it 0. A row is then a walk from 0 to 0,
and the recursions below are bare recursions that know of no mask, no start and no end. A row without a valid step
has Z = 1: one walk never leaves.

What a step receives from the left is a recursion with the matrix of the
transitions; what it receives from the right is the same recursion on the reversed chain with the transpose. A step
is too little work to keep a processor busy, so one loop carries both, in half the steps. Everything else is done
for all steps together, outside the loop. No derivative passes through the loop: the gradient of log Z *is* the
marginals and the expected moves.
"""

import math
from typing import Any

from keras import ops

from .._backend import jit, scan
from ._semirings import Semiring, finite_or_zero

Tensor = Any


@jit()
def with_boundary(
    emissions: Tensor, transitions: Tensor, mask: Tensor, start: Tensor, end: Tensor
) -> tuple[Tensor, ...]:
    """The closed chain, time first, after the best score of each step and the best transition are taken out of it.

    So a constant that is added to all scores of a step, or to all transitions, changes nothing but what was taken
    out, and what is left is as precise as without it.

    Returns:
        Emissions (time + 2, batch, K) and transitions among K = tags + 1 tags, (K, K) or (time + 1, batch, K, K),
        none of them positive, and what was taken out of the score of a row, (batch,).
    """
    tags, best = _without_best(emissions, (-1,))
    tags = ops.where(mask[..., None], tags, -math.inf)
    boundary = ops.where(mask[..., None], ops.full_like(best, -math.inf), 0)
    e = ops.moveaxis(ops.concatenate([boundary, tags], axis=-1), 1, 0)
    alone = ops.where(ops.arange(e.shape[-1]) == 0, ops.zeros_like(e[:1]), -math.inf)

    start, best_start = _without_best(start, (-1,))
    end, best_end = _without_best(end, (-1,))
    length = ops.sum(ops.cast(mask, e.dtype), axis=1)
    if len(transitions.shape) == 2:
        M, best_move = _without_best(transitions, (-2, -1))
        of_moves = ops.maximum(length - 1, 0) * best_move[0, 0]
    else:
        M = ops.pad(ops.moveaxis(transitions, 1, 0), ((1, 1), (0, 0), (0, 0), (0, 0)))
        M, best_move = _without_best(M, (-2, -1))
        of_moves = ops.sum(best_move, axis=(0, 2, 3))
    M = ops.concatenate([ops.zeros_like(M[..., :1]) + end[:, None], M], axis=-1)
    M = ops.concatenate([ops.zeros_like(M[..., :1, :]) + ops.pad(start, ((1, 0),)), M], axis=-2)
    taken = ops.sum(best, axis=(1, 2)) + of_moves + ops.where(length > 0, best_start + best_end, 0)
    return ops.concatenate([alone, e, alone]), M, taken


def _without_best(scores: Tensor, axis: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The scores less the best of them, and that; of a row that is to be NaN, any numbers."""
    scores = ops.where(scores < math.inf, scores, 0)
    best = finite_or_zero(ops.max(scores, axis=axis, keepdims=True))
    return scores - best, best


def from_both_ends(M: Tensor) -> Tensor:
    """The transitions as the two directions meet them, (2, 1, K, K) or of every step (steps, 2, batch, K, K)."""
    back = ops.swapaxes(M, -1, -2)
    if len(M.shape) == 2:
        return ops.stack([M, back])[:, None]
    both = ops.stack([M, ops.flip(back, 0)], axis=1)
    return ops.concatenate([both, both[-1:]])  # nothing is made of what the last step sends on


def messages(number: Semiring, x: Tensor, M: Tensor, steps: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """What the first steps receive from both ends of the chain.

    The scale of a step is the sum of the weights of the step before. It is read off one more column of the product
    with M, all ones, which costs less than a reduction; to divide by it one step late is early enough.

    Args:
        number: The number system.
        x: Emissions (time, batch, K).
        M: Transitions (K, K), or (time − 1, batch, K, K).
        steps: Number of steps to go from each end; None for all.

    Returns:
        For each step from the left end (index 0 of axis 1) and from the right end (index 1): the priors, the sums
        over all ways to a tag without its emission, (steps, 2, batch, K); the weights, with the emission and
        rescaled, of the same shape; and the scales, (steps, 2, batch, 1).
    """
    x = ops.stack([x, ops.flip(x, 0)], axis=1)[:steps]
    M = from_both_ends(M)
    M = ops.pad(M, (*[(0, 0)] * (len(M.shape) - 1), (0, 1)), constant_values=number.one)
    first = ops.pad(x[0], ((0, 0), (0, 0), (0, 1)), constant_values=number.one)

    def send(received: Tensor, x: Tensor) -> Tensor:
        return number.multiply(received[..., :-1], received[..., -1:], x)

    if len(M.shape) == 4:
        matmul = number.matmul(M)
        _, received = scan(lambda received, at: (matmul(send(received, at[0])), received), first, (x,))
    else:
        _, received = scan(
            lambda received, at: (number.matmul(at[1])(send(received, at[0])), received), first, (x, M[:steps])
        )
    priors, scales = received[..., :-1], received[..., -1:]
    return priors, send(received, x), scales
