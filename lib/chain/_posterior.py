"""What the messages from both ends tell of every step, by products where nothing is lost, else by logarithms."""

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from .._backend import all_of, cond, fori_loop, jit
from ._messages import messages
from ._semirings import (
    LOGARITHMS,
    MAXIMA,
    PRODUCTS,
    finite_or_zero,
    log,
    one_if_zero,
    smallest_weight,
    softmax,
)

Tensor = Any


class Posterior(NamedTuple):
    """What the messages tell of the closed chain.

    Attributes:
        log_z: (batch,).
        p: Probability of tag j at step t, (time + 2, batch, K).
        left: left[t, i] · exp M[i, j] · right[t, j] is the probability of tag i at t and j at t + 1, (time + 1,
            batch, K). In logarithms, it is proportional to that.
        right: exp M[i, j] · right[t, j] is proportional to the probability of tag j at t + 1, given tag i at t.
    """

    log_z: Tensor
    p: Tensor
    left: Tensor
    right: Tensor


def _by_products(e: Tensor, M: Tensor) -> tuple[Posterior, Tensor, Tensor]:
    """The posterior, the sums of all ways on from tag i at t, and whether both can be trusted.

    The sums are Σ_j exp M[i, j] · right[t, j]. Where there is trust, no lower bound below changes a number.
    """
    priors, weights, scales = messages(PRODUCTS, ops.exp(e), ops.exp(M))
    prior, left, right = priors[:, 0], weights[:, 0], ops.flip(weights[:, 1], 0)
    least = smallest_weight(e.dtype, e.shape[-1])
    z = ops.matmul(prior * right, ops.ones((e.shape[-1], 1), e.dtype))  # a sum, but vectorized by XLA on a CPU
    trusted = _nothing_lost(e, M, left, right, z)
    z, scales = ops.maximum(z, least), scales[:-1, 0]
    scales = ops.where(scales > least, scales, least)  # XLA on a CPU takes twice as long for log max
    log_z = ops.sum(ops.log(scales), axis=(0, 2)) + ops.log(ops.maximum(prior[-1, :, 0], least))
    ways_on = ops.flip(priors[1:, 1], 0)
    return Posterior(log_z, prior * right / z, left[:-1] / z[1:], right[1:]), ways_on, trusted


def _by_logarithms(e: Tensor, M: Tensor) -> Posterior:
    e, taken = of_legal_sequences(e, M)
    priors, weights, scales = messages(LOGARITHMS, e, M)
    prior, left, right = priors[:, 0], weights[:, 0], ops.flip(weights[:, 1], 0)
    log_z = taken + ops.sum(scales[:-1, 0], axis=(0, 2)) + prior[-1, :, 0]
    return Posterior(log_z, softmax(prior + right), left[:-1], right[1:])


def of_legal_sequences(e: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    """The emissions of tags that some legal sequence has, less the best of these at each step; the sum of the best.

    So a step whose legal tags all score far below one that no legal sequence has, by 10⁷ say, costs no digits.
    """

    def legal(scores: Tensor) -> Tensor:
        return ops.where(scores > -math.inf, ops.zeros_like(scores), -math.inf)

    priors, _, _ = messages(MAXIMA, legal(e), legal(M))
    e = ops.where(priors[:, 0] + ops.flip(priors[:, 1], 0) > -math.inf, e, -math.inf)
    best = ops.stop_gradient(finite_or_zero(ops.max(e, axis=-1, keepdims=True)))
    return e - best, ops.sum(best, axis=(0, 2))


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
    least = smallest_weight(e.dtype, e.shape[-1])
    R = -math.log(least)
    legal = M > -_FORBIDDEN
    inside = e[..., :1] == -math.inf
    position = ops.reshape(ops.arange(ops.shape(e)[0]), (-1, 1, 1))
    position = ops.cast(position, e.dtype)
    length = ops.sum(ops.cast(inside, e.dtype), axis=0)
    all_infinite = ops.all(ops.logical_or(legal, ops.isinf(M)))

    def kept(weights: Tensor, few_steps: Tensor) -> Tensor:
        unreachable = ops.logical_and(weights == 0, ops.logical_or(few_steps, all_infinite))
        return ops.logical_or(weights >= least, unreachable)

    kept = ops.logical_and(kept(left, position <= _WAY_AROUND), kept(right, position > length - _WAY_AROUND))
    moderate = e >= -R - ops.min(ops.where(legal, M, 0))
    is_tag = ops.logical_and(inside, ops.arange(e.shape[-1]) > 0)
    fine = ops.logical_or(ops.logical_and(kept, moderate), ops.logical_not(is_tag))
    return all_of(ops.logical_and(fine, z >= least))


@jit()
def posterior_of(e: Tensor, M: Tensor) -> tuple[Posterior, Tensor]:
    """The posterior of the closed chain, and whether it comes from products.

    Args:
        e: Emissions (time + 2, batch, K).
        M: Transitions (K, K) or (time + 1, batch, K, K).
    """
    posterior, _, exact = _by_products(e, M)
    by_logarithms = lambda e, M, *_: tuple(_by_logarithms(e, M))  # noqa: E731
    posterior = cond(exact, lambda *given: given[2:], by_logarithms, e, M, *posterior)
    return Posterior(*posterior), exact


@jit()
def posterior_and_log_p(e: Tensor, M: Tensor, walk: Tensor) -> tuple[Posterior, Tensor, Tensor]:
    """:func:`posterior_of`, and log P of a walk (time + 2, batch) between them, −inf where it is forbidden.

    P is the product of P(tag | tag before). Each factor divides by the sum over the same numbers of which it has
    one. So none is above 1 and all walks have 1 together, whatever the rounding of the messages. The difference s −
    log Z, of two large numbers, is not so. Where a tag is unknown (negative) log P is any number.
    """
    posterior, ways_on, exact = _by_products(e, M)
    tag_before, tag = ops.maximum(walk[:-1], 0), ops.maximum(walk[1:], 0)
    moves = _moves_of(tag_before, tag, M)
    possible = ops.all(moves + chosen(e[1:], tag) > -math.inf, axis=0)
    way, ways = chosen(posterior.right, tag), chosen(ways_on, tag_before)
    lost = ops.logical_and(possible, ops.any(ops.logical_and(way == 0, walk[1:] >= 0), axis=0))
    exact = ops.logical_and(exact, ops.logical_not(ops.any(lost)))

    log_p = ops.sum(ops.minimum(moves + log(way) - log(ways), 0), axis=0)

    def by_logarithms(e: Tensor, M: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        posterior = _by_logarithms(e, M)
        *_, tag_before, tag = others
        scores = _moves_from(tag_before, M) + posterior.right
        top = finite_or_zero(ops.max(scores, axis=-1, keepdims=True))
        log_total = ops.log(one_if_zero(ops.sum(ops.exp(scores - top), axis=-1)))
        return *posterior, ops.sum(chosen(scores - top, tag) - log_total, axis=0)

    by_products = lambda *tensors: tensors[2:-2]  # noqa: E731
    *posterior, log_p = cond(exact, by_products, by_logarithms, e, M, *posterior, log_p, given=(tag_before, tag))
    return Posterior(*posterior), exact, ops.where(possible, log_p, -math.inf)


def chosen(x: Tensor, tags: Tensor) -> Tensor:
    """x[…, tags[…]], of the shape of the tags."""
    K = x.shape[-1]
    places = ops.reshape(ops.arange(ops.size(tags), dtype="int32") * K, ops.shape(tags)) + tags
    return ops.take(ops.reshape(x, (-1,)), places)


def _moves_of(tag_before: Tensor, tag: Tensor, M: Tensor) -> Tensor:
    """The scores of moves, (time + 1, batch)."""
    if len(M.shape) == 2:
        return ops.take(ops.reshape(M, (-1,)), tag_before * M.shape[-1] + tag)
    return chosen(_moves_from(tag_before, M), tag)


def _moves_from(tags: Tensor, M: Tensor) -> Tensor:
    """The scores of all moves from tags (time + 1, batch), (time + 1, batch, K)."""
    if len(M.shape) == 2:
        return ops.take(M, tags, axis=0)
    K = M.shape[-1]
    places = ops.reshape(ops.arange(ops.size(tags), dtype="int32") * K, ops.shape(tags)) + tags
    return ops.take(ops.reshape(M, (-1, K)), places, axis=0)


@jit()
def expected_transitions(posterior: Posterior, exact: Tensor, M: Tensor, w: Tensor) -> Tensor:
    """Σ_b w_b Σ_t p(tag i at t, tag j at t + 1), shape (K, K); without the sums, of its shape, if M has steps."""
    K = M.shape[-1]
    left, right = posterior.left, posterior.right
    if len(M.shape) == 4:

        def pairs() -> Tensor:
            return ops.exp(M) * left[..., None] * right[..., None, :]

        def pairs_by_logarithms() -> Tensor:
            scores = left[..., None] + M + right[..., None, :]
            return ops.reshape(softmax(ops.reshape(scores, (*ops.shape(scores)[:2], K * K))), ops.shape(M))

        return w[:, None, None] * ops.cond(exact, pairs, pairs_by_logarithms)

    def at_once(left: Tensor, right: Tensor, M: Tensor, w: Tensor) -> tuple[Tensor]:
        left_rows, right_rows = ops.reshape(left, (-1, K)), ops.reshape(right * w[:, None], (-1, K))
        if (
            keras.backend.backend() == "torch"
        ):  # adds up tens of thousands of rows one by one, which rounds too often
            left_rows, right_rows = (
                ops.reshape(ops.pad(rows, ((0, -rows.shape[0] % 512), (0, 0))), (-1, 512, K))
                for rows in (left_rows, right_rows)
            )
        expected = ops.matmul(ops.swapaxes(left_rows, -1, -2), right_rows)
        return (ops.exp(M) * ops.sum(ops.reshape(expected, (-1, K, K)), axis=0),)

    def step_by_step(left: Tensor, right: Tensor, M: Tensor, w: Tensor) -> tuple[Tensor]:
        def add(t: Tensor, expected: Tensor) -> Tensor:
            pairs = left[t][:, :, None] + M + right[t][:, None, :]
            return expected + ops.matmul(w, softmax(ops.reshape(pairs, (-1, K * K))))

        return (ops.reshape(fori_loop(ops.shape(left)[0], add, ops.zeros((K * K,), M.dtype)), (K, K)),)

    return cond(exact, at_once, step_by_step, left, right, M, w)[0]


def is_tag(tags: Tensor, K: int) -> Tensor:
    """Which tag it is, boolean (…, K)."""
    return tags[..., None] == ops.arange(K, dtype="int32")


def moves(walk: Tensor, M: Tensor, w: Tensor) -> Tensor:
    """The moves of walks, each counted w times, of the shape of :func:`expected_transitions`."""
    K = M.shape[-1]
    if len(M.shape) == 4:
        is_move = ops.logical_and(is_tag(walk[:-1], K)[..., None], is_tag(walk[1:], K)[..., None, :])
        return ops.where(is_move, w[:, None, None], 0)
    pairs = ops.reshape(walk[:-1] * K + walk[1:], (-1,))
    weights = ops.reshape(ops.zeros_like(walk[1:], dtype=w.dtype) + w, (-1,))
    return ops.reshape(ops.segment_sum(weights, pairs, K * K), (K, K))
