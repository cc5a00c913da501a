"""The best tag sequences, and random ones.

Source: Forney 1973, "The Viterbi algorithm"; Scott 2002, "Bayesian methods for hidden Markov models".
"""

import math
from typing import Any

import keras
import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._arguments import positive_integer
from .._backend import jit, scan
from .._layers import checked_seed
from .._tensors import or_nan
from ._messages import from_both_ends, messages, with_boundary
from ._posterior import of_legal_sequences
from ._semirings import LOGARITHMS, MAXIMA, Semiring, finite_or_zero
from .arguments import checked

__all__ = ["k_best", "sample", "viterbi"]

Tensor = Any


def _even(e: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    """The closed chain with one more boundary step, if needed, so that it has two halves of one length."""
    odd = ops.shape(e)[0] % 2
    return ops.concatenate([e, e[-1:][:odd]]), M if len(M.shape) == 2 else ops.concatenate([M, M[-1:][:odd]])


def _to_the_middle(number: Semiring, e: Tensor, M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Messages from both ends to the middle of a chain of even length.

    Returns:
        Scores of all ways from the nearer end to a tag, (half, 2, batch, K); scores of the pairs of tags that meet
        in the middle, (batch, K²); and what was taken out of these, (batch,).
    """
    half, K = ops.shape(e)[0] // 2, M.shape[-1]
    _, scores, scales = messages(number, e, M, half)
    left, right = scores[-1, 0], scores[-1, 1]
    pairs = left[:, :, None] + (M if len(M.shape) == 2 else M[half - 1]) + right[:, None, :]
    return scores, ops.reshape(pairs, (-1, K * K)), ops.sum(scales, axis=(0, 1, 3))


def _back_to_the_ends(scores: Tensor, pairs: Tensor, M: Tensor) -> Tensor:
    """The tags of the best pair in the middle and, on both sides of it, step by step the best given the neighbour.

    No back-pointers are kept: of all ways to a neighbour only those to the one that was chosen are looked at again.

    Args:
        scores: As from :func:`_to_the_middle`, (half, 2, batch, ..., K).
        pairs: As from :func:`_to_the_middle`, (batch, ..., K²).
        M: Transitions (K, K), or (2 · half − 1, batch, K, K).

    Returns:
        Tags of the closed chain less one, so that −1 is the boundary, (batch, ..., 2 · half) int32.
    """
    K = M.shape[-1]
    pair = ops.cast(ops.argmax(pairs, axis=-1), "int32")
    middle = ops.stack([pair // K, pair % K])
    to_neighbour = ops.swapaxes(from_both_ends(M), -1, -2)  # its row: the scores of all ways to one neighbour
    size = ops.shape(to_neighbour)[-3]  # 1, or the batch
    row = ops.arange(2, dtype="int32")[:, None] * size + ops.arange(size, dtype="int32")
    row = ops.reshape(row * K, (2, size, *[1] * (len(pair.shape) - 1)))

    def back(tag: Tensor, scores: Tensor, to_neighbour: Tensor) -> tuple[Tensor, Tensor]:
        ways = ops.take(ops.reshape(to_neighbour, (-1, K)), tag + row, axis=0)
        tag = ops.cast(ops.argmax(scores + ways, axis=-1), "int32")
        return tag, tag

    if len(M.shape) == 2:
        _, path = scan(lambda tag, at: back(tag, *at, to_neighbour), middle, (scores[:-1],), reverse=True)
    else:
        at = scores[:-1], to_neighbour[: ops.shape(scores)[0] - 1]
        _, path = scan(lambda tag, at: back(tag, *at), middle, at, reverse=True)
    path = ops.concatenate([path, middle[None]])
    return ops.moveaxis(ops.concatenate([path[:, 0], ops.flip(path[:, 1], 0)]), 0, -1) - 1


@jit()
def _viterbi(e: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    e, M = _even(e, M)
    scores, pairs, taken = _to_the_middle(MAXIMA, e, M)
    return _back_to_the_ends(scores, pairs, M), taken + ops.max(pairs, axis=-1)


def viterbi(
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The tag sequence of the highest score, one of them if there are several.

    Args:
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Tags, shape (batch, time), int32, −1 at masked steps; and their score, shape (batch,), float32 or wider.
        Where no sequence is legal, tags −1 and score −inf; where the arguments are wrong, tags −1 and score NaN.

        Sums of scores are compared, each relative to the best score of its step. Where all that is legal at a step
        scores c below a tag that no legal sequence has, sequences that differ by less than about c · 10⁻⁷ (in
        float32) are taken to be equal: to look for such tags before would cost every chain a second recursion.
        The probabilities have no such limit, nor has :func:`sample`.

    Raises:
        ValueError: As :func:`checked`.

    Source: Viterbi 1967; Forney 1973.

    Example:
        >>> tags, score = viterbi(np.array([[[0.0, 1.0], [0.0, 0.5]]]), np.array([[0.0, 0.0], [2.0, 0.0]]))
        >>> ops.convert_to_numpy(tags).tolist(), float(score[0])
        ([[1, 0]], 3.0)
    """
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, taken = with_boundary(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    tags, score = _viterbi(e, M)
    found = ops.logical_and(chain.valid, score > -math.inf)
    tags = tags[:, 1 : ops.shape(chain.mask)[1] + 1]
    return ops.where(found[:, None], tags, -1), or_nan(taken + score, chain.valid)


@jit()
def _k_best(e: Tensor, M: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Tags (batch, k, time) and scores (batch, k) of a closed chain; ``ranks`` are the numbers 0 … k − 1."""
    k, K, batch = ranks.shape[0], M.shape[-1], ops.shape(e)[1]
    by_steps = len(M.shape) == 4

    def forward(carry: tuple[Tensor, ...], at: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        prior, _, taken = carry
        scores = prior + at[0][..., None]
        top = finite_or_zero(ops.max(scores, axis=(1, 2)))
        into = ops.swapaxes(at[1] if by_steps else M, -1, -2)[..., None]
        ways = (scores - top[:, None, None])[:, None] + into  # (batch, tag, tag before, its rank)
        prior, before = ops.top_k(ops.reshape(ways, (batch, K, K * k)), k)
        carry = prior, ops.cast(before, "int32"), taken + top
        return carry, carry

    first = ops.where(ranks == 0, e[0][..., None], -math.inf)
    carry = first, ops.zeros((batch, K, k), "int32"), ops.zeros_like(e[0, :, 0])
    (scores, _, taken), (_, before, _) = scan(forward, carry, (e[:-1], M) if by_steps else (e[:-1],))

    def back(state: Tensor, at: tuple[Tensor]) -> tuple[Tensor, Tensor]:
        state = ops.take_along_axis(ops.reshape(at[0], (batch, K * k)), state, axis=1)
        return state, state

    _, states = scan(back, ops.zeros((batch, 1), "int32") + ranks, (before[1:],), reverse=True)
    return ops.transpose(states // k, (1, 2, 0)) - 1, scores[:, 0] + taken[:, None]


def k_best(
    emissions: Tensor,
    transitions: Tensor,
    k: int,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The k different tag sequences of the highest scores, best first.

    The recursion of :func:`viterbi`, with the k best ways to each tag in place of the best one.

    Args:
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        k: Number of sequences, at least 1.
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Tags, shape (batch, k, time), int32, −1 at masked steps; and their scores, shape (batch, k), float32 or
        wider. Where fewer than k sequences are legal the rest has tags −1 and score −inf; where the arguments are
        wrong, tags are −1 and scores NaN. They are told apart as :func:`viterbi` tells them, with its limit.

    Raises:
        ValueError: ``k`` is not a positive integer; otherwise as :func:`checked`.

    Source: Seshadri and Sundberg 1994, "List Viterbi decoding algorithms", the parallel form.

    Example:
        >>> tags, scores = k_best(np.array([[[0.0, 1.0], [0.0, 3.0]]]), np.zeros((2, 2)), 2)
        >>> ops.convert_to_numpy(tags).tolist(), ops.convert_to_numpy(scores).tolist()
        ([[[1, 1], [0, 1]]], [[4.0, 3.0]])
    """
    ranks = ops.arange(positive_integer("k", k), dtype="int32")
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, taken = with_boundary(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    tags, scores = _k_best(e, M, ranks)
    found = ops.logical_and(chain.valid[:, None], scores > -math.inf)
    return ops.where(found[..., None], tags, -1), or_nan(taken[:, None] + scores, chain.valid)


@jit()
def _sample(e: Tensor, M: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Tags (batch, count, 2 · half) of a closed chain, and whether it has any (batch,).

    ``u`` are uniform numbers in (0, 1), one for each choice that could arise, (batch, count, K² + half · 2 · K).
    """
    # A score this low costs the others digits, if a tag that no legal sequence has is what it is low against.
    low = ops.min(ops.where(e > -math.inf, e, 0)) < -1000
    e, M = _even(ops.cond(low, lambda: of_legal_sequences(e, M)[0], lambda: e), M)
    scores, pairs, _ = _to_the_middle(LOGARITHMS, e, M)
    K = M.shape[-1]
    gumbel = -ops.log(-ops.log(u))
    of_pairs, of_steps = gumbel[..., : K * K], gumbel[..., K * K :]
    of_steps = ops.transpose(ops.reshape(of_steps, (*ops.shape(u)[:2], -1, 2, K)), (2, 3, 0, 1, 4))
    tags = _back_to_the_ends(scores[:, :, :, None] + of_steps, pairs[:, None] + of_pairs, M)
    return tags, ops.max(pairs, axis=-1) > -math.inf


def sample(
    emissions: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
    count: int = 1,
    seed: Any = None,
) -> Tensor:
    """Tag sequences drawn independently from p(y) = exp s(y) / Z.

    It is :func:`viterbi` with sums in place of maxima on the way to the middle and, on the way back, Gumbel noise
    on every choice, which turns the best choice into a random one with the right probability. Memory is linear in
    count × time × tags.

    Args:
        emissions: As in :func:`log_partition`, (batch, time, tags).
        transitions: As in :func:`log_partition`, (tags, tags) or (batch, time − 1, tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).
        count: Number of sequences for each row, at least 1.
        seed: An integer from 0 to 2³¹ − 1, a ``keras.random.SeedGenerator`` or None.

    Returns:
        Tags, shape (batch, count, time), int32, −1 at masked steps, and everywhere in a row where no sequence is
        legal or the arguments are wrong.

    Raises:
        ValueError: ``count`` is not a positive integer, or ``seed`` is none; otherwise as :func:`checked`.

    Source: Scott 2002, "Bayesian methods for hidden Markov models", forward filtering and backward sampling.

    Example:
        >>> tags = sample(np.log([[[0.25, 0.75]]]), np.zeros((2, 2)), count=10000, seed=0)
        >>> abs(float(ops.mean(ops.cast(tags, "float32"))) - 0.75) < 0.02
        True
    """
    count, seed = positive_integer("count", count), checked_seed(seed)
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, _ = with_boundary(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    (batch, time), K = ops.shape(chain.mask), M.shape[-1]
    choices = (time + 3) // 2 * 2 * K + K * K
    tags, possible = _sample(e, M, keras.random.uniform((batch, count, choices), 1e-30, 1.0, e.dtype, seed))
    return ops.where(ops.logical_and(chain.valid, possible)[:, None, None], tags[..., 1 : time + 1], -1)
