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

from .._backend import jit
from ._semirings import Semiring

Tensor = Any


def closed_transitions(transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The transitions (K, K) among K = tags + 1 tags, tag 0 the boundary."""
    leave = ops.pad(start, ((1, 0),))
    return ops.concatenate([leave[None], ops.concatenate([end[:, None], transitions], axis=1)])


@jit()
def closed(emissions: Tensor, transitions: Tensor, mask: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, ...]:
    """The closed chain, time first, after the best score of each step and the best transition are taken out of it.

    Returns:
        Emissions (time + 2, batch, K) and transitions (K, K), none of them positive, and what was taken out of the
        score of a row, (batch,).
    """
    best = ops.max(emissions, axis=-1)
    best = ops.where(ops.logical_and(mask, best > -math.inf), best, 0)
    tags = ops.where(mask[..., None], emissions - best[..., None], -math.inf)
    boundary = ops.where(mask, ops.full_like(best, -math.inf), 0)
    e = ops.moveaxis(ops.concatenate([boundary[..., None], tags], axis=-1), 1, 0)
    is_boundary = ops.arange(e.shape[-1]) == 0
    alone = ops.where(is_boundary, ops.zeros_like(e[:1]), -math.inf)

    M = closed_transitions(transitions, start, end)
    stay = ops.logical_and(is_boundary[:, None], is_boundary)
    best_move = ops.max(ops.where(stay, -math.inf, M))
    best_move = ops.where(best_move > -math.inf, best_move, 0)
    length = ops.sum(ops.cast(mask, e.dtype), axis=1)
    taken = ops.sum(best, axis=1) + ops.where(length > 0, length + 1, 0) * best_move
    return ops.concatenate([alone, e, alone]), ops.where(stay, 0, M - best_move), taken


def messages(number: Semiring, x: Tensor, M: Tensor, steps: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """What the first steps receive from both ends of the chain.

    The scale of a step is the sum of the weights of the step before. It is read off one more column of the product
    with M, all ones, which costs less than a reduction; to divide by it one step late is early enough.

    Args:
        number: The number system.
        x: Emissions (time, batch, K).
        M: Transitions (K, K).
        steps: Number of steps to go from each end; None for all.

    Returns:
        For each step from the left end (index 0 of axis 1) and from the right end (index 1): the priors, the sums
        over all ways to a tag without its emission, (steps, 2, batch, K); the weights, with the emission and
        rescaled, of the same shape; and the scales, (steps, 2, batch, 1).
    """
    x = ops.stack([x, ops.flip(x, 0)], axis=1)[:steps]
    M = ops.stack([M, ops.transpose(M)])
    M = ops.pad(M, ((0, 0), (0, 0), (0, 1)), constant_values=number.one)
    first = ops.pad(x[0], ((0, 0), (0, 0), (0, 1)), constant_values=number.one)

    moves = number.moves(M)

    def step(received: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return moves(number.weigh(received[..., :-1], received[..., -1:], x)), received

    _, received = ops.scan(step, first, x)
    priors, scales = received[..., :-1], received[..., -1:]
    return priors, number.weigh(priors, scales, x), scales
