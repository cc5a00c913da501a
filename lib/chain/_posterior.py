"""What the messages from both ends tell of every step, by products where nothing is lost, else by logarithms."""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from .._backend import jit
from ._messages import messages
from ._semirings import LOGARITHMS, PRODUCTS, softmax

Tensor = Any


class Posterior(NamedTuple):
    """What the messages tell of the closed chain.

    Attributes:
        log_z: (batch,).
        p: Probability of tag j at step t, (time + 2, batch, K).
        left: left[t, i] · exp M[i, j] · right[t + 1, j] is the probability of tag i at t and j after it. In
            logarithms, it is proportional to that.
        right: See ``left``.
    """

    log_z: Tensor
    p: Tensor
    left: Tensor
    right: Tensor


def _by_products(e: Tensor, M: Tensor) -> tuple[Posterior, Tensor]:
    """The posterior and whether it can be trusted."""
    priors, weights, scales = messages(PRODUCTS, ops.exp(e), ops.exp(M))
    prior, left, right = priors[:, 0], weights[:, 0], ops.flip(weights[:, 1], 0)
    z = ops.matmul(prior * right, ops.ones((e.shape[-1], 1), e.dtype))  # a sum, but vectorised by XLA on a CPU
    log_z = ops.sum(ops.log(scales[:-1, 0]), axis=(0, 2)) + ops.log(prior[-1, :, 0])
    return Posterior(log_z, prior * right / z, left, right / z), _nothing_lost(e, M, left, right, z)


def _by_logarithms(e: Tensor, M: Tensor) -> Posterior:
    priors, weights, scales = messages(LOGARITHMS, e, M)
    prior, left, right = priors[:, 0], weights[:, 0], ops.flip(weights[:, 1], 0)
    log_z = ops.sum(scales[:-1, 0], axis=(0, 2)) + prior[-1, :, 0]
    return Posterior(log_z, softmax(prior + right), left, right)


#: A finite transition this far below the best one counts as forbidden, if a legal way around takes few steps.
_FORBIDDEN = 5000.0


_WAY_AROUND = 4


def _nothing_lost(e: Tensor, M: Tensor, left: Tensor, right: Tensor, z: Tensor) -> Tensor:
    """Whether no weight that matters has left the range of the float type: a proof after the fact.

    Let no step favour one tag over another, and no legal move over another, by more than e^R together, and let θ =
    e^−R with θ² at least K times the smallest normal number of the type. A weight of θ or more then leads to
    weights of at least θ²/K at the next step, and these are not lost. So no weight falls to 0 without being seen
    below θ before. If none is seen there, then those that are 0 cannot be reached by legal moves, and all others
    are right up to rounding. (To compare the two directions would prove less: both can lose the same best
    sequence.)

    Forbidden moves with a finite score (−10⁴, say) are left out, too. A way through one carries at most e^−5000 of
    the weight of its step; where all tags are in reach, each of them carries θ of it by legal ways. So it is enough
    that all are in reach from the fifth step on, and up to the fifth from the end: up to there, the share of such a
    way grows by no more than e^R a step.
    """
    log_range = -math.log(np.finfo(keras.backend.standardize_dtype(e.dtype)).tiny)
    R = (log_range - math.log(e.shape[-1]) - 1) / 2
    least = math.exp(-R)
    legal = M > -_FORBIDDEN
    inside = e[..., :1] == -math.inf
    position = ops.reshape(ops.arange(ops.shape(e)[0]), (-1, 1, 1))
    length = ops.sum(ops.cast(inside, position.dtype), axis=0)
    all_infinite = ops.all(ops.logical_or(legal, ops.isinf(M)))

    def kept(weights: Tensor, few_steps: Tensor) -> Tensor:
        unreachable = ops.logical_and(weights == 0, ops.logical_or(few_steps, all_infinite))
        return ops.logical_or(weights >= least, unreachable)

    kept = ops.logical_and(kept(left, position <= _WAY_AROUND), kept(right, position > length - _WAY_AROUND))
    moderate = e >= -R - ops.min(ops.where(legal, M, 0))
    is_tag = ops.logical_and(inside, ops.arange(e.shape[-1]) > 0)
    fine = ops.logical_or(ops.logical_and(kept, moderate), ops.logical_not(is_tag))
    return ops.all(ops.logical_and(fine, z >= least))


@jit()
def posterior_of(e: Tensor, M: Tensor) -> tuple[Posterior, Tensor]:
    """The posterior of the closed chain, and whether it comes from products."""
    posterior, exact = _by_products(e, M)
    return Posterior(*ops.cond(exact, lambda: tuple(posterior), lambda: tuple(_by_logarithms(e, M)))), exact


@jit()
def expected_moves(posterior: Posterior, exact: Tensor, M: Tensor, w: Tensor) -> Tensor:
    """Σ_b w_b Σ_t p(tag i at t, tag j at t + 1), shape (K, K)."""
    K = M.shape[0]
    left, right = posterior.left[:-1], posterior.right[1:]

    def at_once() -> Tensor:
        left_rows, right_rows = ops.reshape(left, (-1, K)), ops.reshape(right * w[:, None], (-1, K))
        if (
            keras.backend.backend() == "torch"
        ):  # adds up tens of thousands of rows one by one, which rounds too often
            left_rows, right_rows = (
                ops.reshape(ops.pad(rows, ((0, -rows.shape[0] % 512), (0, 0))), (-1, 512, K))
                for rows in (left_rows, right_rows)
            )
        moves = ops.matmul(ops.swapaxes(left_rows, -1, -2), right_rows)
        return ops.exp(M) * ops.sum(ops.reshape(moves, (-1, K, K)), axis=0)

    def step_by_step() -> Tensor:
        def add(t: Tensor, moves: Tensor) -> Tensor:
            pairs = left[t][:, :, None] + M + right[t][:, None, :]
            return moves + ops.matmul(w, softmax(ops.reshape(pairs, (-1, K * K))))

        return ops.reshape(ops.fori_loop(0, ops.shape(left)[0], add, ops.zeros((K * K,), M.dtype)), (K, K))

    return ops.cond(exact, at_once, step_by_step)
