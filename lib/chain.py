"""The linear-chain dynamic program: sums and maxima over all tag sequences, in time linear in their length.

A chain of T steps scores each of its Kᵀ tag sequences y by

    s(y) = start[y_1] + Σ_t emissions[t, y_t] + Σ_t transitions[y_t, y_{t+1}] + end[y_T].

The conditional random field, the maximum-entropy Markov model and the hidden Markov model differ in where the
scores come from and ask the same of them: log Z = log Σ_y exp s(y), max_y s(y), the probability of a tag, a sample.

**The chain is closed.** A boundary tag, number 0, stands before the first step, after the last one and at every
masked step. To leave it scores ``start``, to enter it ``end``, to stay in it 0. A row is then a walk from 0 to 0,
and the recursions below are bare recursions that know of no mask, no start and no end. A row without a valid step
has Z = 1: one walk never leaves.

**It is read from both ends at once.** What a step receives from the left is a recursion with the matrix of the
transitions; what it receives from the right is the same recursion on the reversed chain with the transpose. A step
is too little work to keep a processor busy, so one loop carries both, in half the steps. Everything else is done
for all steps together, outside the loop. No derivative passes through the loop: the gradient of log Z *is* the
marginals and the expected moves.

**It is read in three number systems.** Products of weights, rescaled at every step, are fast, and their rounding
errors do not grow with the length. They are exact if no weight that matters falls out of the range of the float
type, which :func:`_nothing_lost` can prove afterwards. Where it cannot, the same recursion runs on logarithms. With
maxima in place of sums it finds the best sequence.

Source: Rabiner 1989, "A tutorial on hidden Markov models" (scaling); Forney 1973, "The Viterbi algorithm";
Lafferty, McCallum and Pereira 2001, "Conditional random fields".
"""

import math
import numbers
import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

__all__ = ["Chain", "checked", "k_best", "log_partition", "marginals", "sample", "sequence_score", "viterbi"]

Tensor = Any


def _compiled(function: Callable) -> Callable:
    """``jax.jit`` on JAX, which would compile a loop again at every eager call; elsewhere the function itself."""
    return import_module("jax").jit(function) if keras.backend.backend() == "jax" else function


# --- arguments ------------------------------------------------------------------------------------------------


class Chain(NamedTuple):
    """What :func:`checked` returns: the arguments of a chain, none left out, scores of one float type.

    Attributes:
        emissions: (batch, time, tags), 0 at masked steps.
        transitions: (tags, tags).
        mask: (batch, time), boolean.
        start: (tags,).
        end: (tags,).
        tags: (batch, time) int32, 0 at masked steps and in place of tags out of range, or None.
        valid: (batch,), boolean: False for a row whose mask has holes or whose tags are out of range. Only a
            compiled function gets to see such a row; its result is to be NaN.
    """

    emissions: Tensor
    transitions: Tensor
    mask: Tensor
    start: Tensor
    end: Tensor
    tags: Tensor | None
    valid: Tensor


def checked(
    emissions: Tensor,
    transitions: Tensor,
    *,
    tags: Tensor | None = None,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Chain:
    """The arguments of a chain as tensors of one float type, or an error that names the one that is wrong.

    Args:
        emissions: Scores of the tags at each step, shape (batch, time, tags), any float type.
        transitions: Scores of tag i followed by tag j, shape (tags, tags).
        tags: Tag sequences, shape (batch, time), integers in [0, tags), of any numeric type; anything at masked
            steps.
        mask: Valid steps, boolean, shape (batch, time), a prefix of each row; None if all are valid.
        start: Scores of the first tag, shape (tags,); None for 0.
        end: Scores of the last tag, shape (tags,); None for 0.

    Returns:
        A :class:`Chain`. Its scores are float32; on TensorFlow, float64 if emissions or transitions are.

    Raises:
        ValueError: A shape does not fit, emissions are empty, the mask has holes or tags are out of range. A plain
            TensorFlow graph raises ``InvalidArgumentError`` for what only the values tell. Under XLA and JAX jit no
            value can raise an error: the row is not ``valid``.

    Example:
        >>> chain = checked(np.zeros((2, 5, 3)), np.zeros((3, 3)))
        >>> tuple(chain.mask.shape), tuple(chain.start.shape), chain.tags
        ((2, 5), (3,), None)
        >>> checked(np.zeros((2, 5, 3)), np.zeros((4, 4)))
        Traceback (most recent call last):
        ...
        ValueError: transitions must have shape (3, 3) to fit emissions, got (4, 4)
    """
    emissions, transitions = _float32_or_wider(emissions), _float32_or_wider(transitions)
    dtype = keras.backend.result_type(emissions.dtype, transitions.dtype)
    emissions, transitions = ops.cast(emissions, dtype), ops.cast(transitions, dtype)
    if len(emissions.shape) != 3 or 0 in emissions.shape:
        raise ValueError(
            f"emissions must have shape (batch, time, tags), none of them 0, got {tuple(emissions.shape)}"
        )
    if None in emissions.shape:
        _require(ops.size(emissions) > 0, "emissions must not be empty", lambda: tuple(emissions.shape))
    steps, K = emissions.shape[:2], emissions.shape[2]
    _require_shape("transitions", transitions, (K, K))
    start = ops.zeros((K,), dtype) if start is None else ops.cast(_require_shape("start", start, (K,)), dtype)
    end = ops.zeros((K,), dtype) if end is None else ops.cast(_require_shape("end", end, (K,)), dtype)
    valid = ops.ones_like(emissions[:, 0, 0], dtype="bool")
    if mask is None:
        mask = ops.ones_like(emissions[..., 0], dtype="bool")
    else:
        mask = ops.cast(_require_shape("mask", mask, steps), "bool")
        holes = ops.any(ops.logical_and(mask[:, 1:], ops.logical_not(mask[:, :-1])), axis=1)
        valid = ops.logical_not(holes)
        _require(
            ops.all(valid),
            "mask must be True on a prefix of each row and False after it",
            lambda: f"another one in rows {np.flatnonzero(ops.convert_to_numpy(holes)).tolist()}",
        )
        emissions = ops.where(mask[..., None], emissions, 0)
    if tags is not None:
        given = _require_shape("tags", tags, steps)
        tags = ops.cast(given, "int32")
        in_range = ops.logical_and(ops.logical_and(tags >= 0, tags < K), ops.cast(tags, given.dtype) == given)
        outside = ops.logical_and(mask, ops.logical_not(in_range))
        _require(
            ops.logical_not(ops.any(outside)),
            f"tags must be integers from 0 to {K - 1} at valid steps",
            lambda: np.unique(ops.convert_to_numpy(given)[ops.convert_to_numpy(outside)]).tolist(),
        )
        valid = ops.logical_and(valid, ops.logical_not(ops.any(outside, axis=1)))
        tags = ops.where(ops.logical_and(mask, in_range), tags, 0)
    return Chain(emissions, transitions, mask, start, end, tags, valid)


def _require(holds: Tensor, rule: str, got: Callable[[], Any]) -> None:
    """Raise ValueError unless the condition holds. A TensorFlow graph asserts it; JAX jit cannot know it."""
    backend = import_module(keras.backend.backend())
    if keras.backend.backend() == "tensorflow" and not backend.executing_eagerly():
        backend.debugging.Assert(holds, [rule])
    elif keras.backend.backend() == "jax" and isinstance(holds, backend.core.Tracer):
        return
    elif not holds:
        raise ValueError(f"{rule}, got {got()}")


def _require_shape(name: str, x: Tensor, expected: tuple[int | None, ...]) -> Tensor:
    x = ops.convert_to_tensor(x)
    got, expected = tuple(x.shape), tuple(expected)
    if len(got) != len(expected) or any(g != e for g, e in zip(got, expected, strict=True) if None not in (g, e)):
        raise ValueError(f"{name} must have shape {expected} to fit emissions, got {got}")
    return x


def _positive_integer(name: str, n: int) -> int:
    if not isinstance(n, numbers.Integral) or n < 1:
        raise ValueError(f"{name} must be a positive integer, got {n!r}")
    return int(n)


def _float32_or_wider(x: Tensor) -> Tensor:
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def _or_nan(x: Tensor, chain: Chain) -> Tensor:
    valid = ops.reshape(chain.valid, (-1, *[1] * (len(x.shape) - 1)))
    return ops.where(valid, x, math.nan)


# --- the closed chain and its messages ------------------------------------------------------------------------


def _closed_transitions(transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """The transitions (K, K) among K = tags + 1 tags, tag 0 the boundary."""
    leave = ops.pad(start, ((1, 0),))
    return ops.concatenate([leave[None], ops.concatenate([end[:, None], transitions], axis=1)])


@_compiled
def _closed(emissions: Tensor, transitions: Tensor, mask: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, ...]:
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

    M = _closed_transitions(transitions, start, end)
    stay = ops.logical_and(is_boundary[:, None], is_boundary)
    best_move = ops.max(ops.where(stay, -math.inf, M))
    best_move = ops.where(best_move > -math.inf, best_move, 0)
    length = ops.sum(ops.cast(mask, e.dtype), axis=1)
    taken = ops.sum(best, axis=1) + ops.where(length > 0, length + 1, 0) * best_move
    return ops.concatenate([alone, e, alone]), ops.where(stay, 0, M - best_move), taken


class _Numbers(NamedTuple):
    """A number system: products and their sums, as the recursion needs them.

    Attributes:
        one: What changes nothing as a factor.
        weigh: (prior, scale, x) → prior · x / scale, the weights of all ways to a tag.
        moves: M → (weights → weights · M, summed over the tags before: the prior of the next step).
    """

    one: float
    weigh: Callable[[Tensor, Tensor, Tensor], Tensor]
    moves: Callable[[Tensor], Callable[[Tensor], Tensor]]


#: In place of −inf as a scale, so that no −inf − (−inf) arises.
_LOWEST = -1e30
#: XLA on a CPU runs a product of matrices up to this size three times faster spelled out than as a library call.
#: A TensorFlow graph, which cannot know whether XLA will compile it, is better off with one operation.
_SPELLED_OUT = 10 if keras.backend.backend() == "jax" else 0


def _spelled_out(combine: Callable, reduce: Callable) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """The product with M in which ``combine`` multiplies and ``reduce`` adds, over an axis."""

    def moves(M: Tensor) -> Callable[[Tensor], Tensor]:
        M = M[..., None, :, :]
        return lambda weights: reduce(combine(weights[..., None], M), axis=-2)

    return moves


def _product(M: Tensor) -> Callable[[Tensor], Tensor]:
    if M.shape[-2] <= _SPELLED_OUT:
        return _spelled_out(operator.mul, ops.sum)(M)
    return lambda weights: weights @ M


def _logsumexp(scores: Tensor, axis: int) -> Tensor:
    top = ops.maximum(ops.max(scores, axis=axis, keepdims=True), _LOWEST)
    return ops.log(ops.sum(ops.exp(scores - top), axis=axis)) + ops.squeeze(top, axis)


def _softmax(scores: Tensor) -> Tensor:
    """Probabilities over the last axis, 0 where all scores are −inf."""
    weights = ops.exp(scores - ops.maximum(ops.max(scores, axis=-1, keepdims=True), _LOWEST))
    return weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1)


def _rescaled_product(prior: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    return prior * (x * (1 / scale))


def _rescaled_sum(prior: Tensor, scale: Tensor, e: Tensor) -> Tensor:
    return prior + (e - ops.maximum(scale, _LOWEST))


_PRODUCTS = _Numbers(1.0, _rescaled_product, _product)
_LOGARITHMS = _Numbers(0.0, _rescaled_sum, _spelled_out(operator.add, _logsumexp))
_MAXIMA = _Numbers(0.0, _rescaled_sum, _spelled_out(operator.add, ops.max))


def _messages(number: _Numbers, x: Tensor, M: Tensor, steps: Any = None) -> tuple[Tensor, Tensor, Tensor]:
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


# --- sums over all sequences ----------------------------------------------------------------------------------


class _Posterior(NamedTuple):
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


def _by_products(e: Tensor, M: Tensor) -> tuple[_Posterior, Tensor]:
    """The posterior and whether it can be trusted."""
    priors, weights, scales = _messages(_PRODUCTS, ops.exp(e), ops.exp(M))
    prior, left, right = priors[:, 0], weights[:, 0], ops.flip(weights[:, 1], 0)
    z = ops.matmul(prior * right, ops.ones((e.shape[-1], 1), e.dtype))  # a sum, but vectorised by XLA on a CPU
    log_z = ops.sum(ops.log(scales[:-1, 0]), axis=(0, 2)) + ops.log(prior[-1, :, 0])
    return _Posterior(log_z, prior * right / z, left, right / z), _nothing_lost(e, M, left, right, z)


def _by_logarithms(e: Tensor, M: Tensor) -> _Posterior:
    priors, weights, scales = _messages(_LOGARITHMS, e, M)
    prior, left, right = priors[:, 0], weights[:, 0], ops.flip(weights[:, 1], 0)
    log_z = ops.sum(scales[:-1, 0], axis=(0, 2)) + prior[-1, :, 0]
    return _Posterior(log_z, _softmax(prior + right), left, right)


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


@_compiled
def _posterior(e: Tensor, M: Tensor) -> tuple[_Posterior, Tensor]:
    """The posterior of the closed chain, and whether it comes from products."""
    posterior, exact = _by_products(e, M)
    return _Posterior(*ops.cond(exact, lambda: tuple(posterior), lambda: tuple(_by_logarithms(e, M)))), exact


@_compiled
def _expected_moves(posterior: _Posterior, exact: Tensor, M: Tensor, w: Tensor) -> Tensor:
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
            return moves + ops.matmul(w, _softmax(ops.reshape(pairs, (-1, K * K))))

        return ops.reshape(ops.fori_loop(0, ops.shape(left)[0], add, ops.zeros((K * K,), M.dtype)), (K, K))

    return ops.cond(exact, at_once, step_by_step)


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
        e, M, taken = _closed(emissions, transitions, chain.mask, start, end)
        posterior, exact = _posterior(e, M)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
            w = args[0] if upstream is None else upstream  # torch passes it by name, after the arguments
            moves = _expected_moves(posterior, exact, M, w)
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
    e, M, _ = _closed(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    return _or_nan(_of_tags(_posterior(e, M)[0].p), chain)


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
    M = _closed_transitions(chain.transitions, chain.start, chain.end)
    moves = ops.take(ops.reshape(M, (-1,)), walk[:, :-1] * K + walk[:, 1:])
    return _or_nan(ops.sum(ops.where(chosen, chain.emissions, 0), axis=(1, 2)) + ops.sum(moves, axis=1), chain)


# --- the best sequences and random ones -----------------------------------------------------------------------


def _to_the_middle(number: _Numbers, e: Tensor, M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Messages from both ends to the middle of the chain.

    Returns:
        Scores of all ways from the nearer end to a tag, (half, 2, batch, K); scores of the pairs of tags that meet
        in the middle, (batch, K²); and what was taken out of these, (batch,).
    """
    e = ops.concatenate([e, e[-1:][: ops.shape(e)[0] % 2]])  # one more boundary step makes the halves equal
    _, scores, scales = _messages(number, e, M, ops.shape(e)[0] // 2)
    left, right = scores[-1, 0], scores[-1, 1]
    pairs = left[:, :, None] + M + right[:, None, :]
    return scores, ops.reshape(pairs, (-1, M.shape[0] ** 2)), ops.sum(scales, axis=(0, 1, 3))


def _back_to_the_ends(scores: Tensor, pairs: Tensor, M: Tensor) -> Tensor:
    """The tags of the best pair in the middle and, on both sides of it, step by step the best given the neighbour.

    No back-pointers are kept: of all ways to a neighbour only those to the one that was chosen are looked at again.

    Args:
        scores: As from :func:`_to_the_middle`, (half, 2, ..., K).
        pairs: As from :func:`_to_the_middle`, (..., K²).
        M: Transitions (K, K).

    Returns:
        Tags of the closed chain less one, so that −1 is the boundary, (..., 2 · half) int32.
    """
    K = M.shape[0]
    pair = ops.cast(ops.argmax(pairs, axis=-1), "int32")
    middle = ops.stack([pair // K, pair % K])
    neighbour = ops.concatenate([ops.transpose(M), M])
    row = ops.reshape(ops.arange(2, dtype="int32") * K, (2, *[1] * len(pair.shape)))

    def step(tag: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        tag = ops.cast(ops.argmax(scores + ops.take(neighbour, tag + row, axis=0), axis=-1), "int32")
        return tag, tag

    _, path = ops.scan(step, middle, scores[:-1], reverse=True)
    path = ops.concatenate([path, middle[None]])
    return ops.moveaxis(ops.concatenate([path[:, 0], ops.flip(path[:, 1], 0)]), 0, -1) - 1


@_compiled
def _viterbi(e: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    scores, pairs, taken = _to_the_middle(_MAXIMA, e, M)
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
        transitions: As in :func:`log_partition`, (tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Tags, shape (batch, time), int32, −1 at masked steps; and their score, shape (batch,), float32 or wider.
        Where no sequence is legal, tags −1 and score −inf; where the arguments are wrong, tags −1 and score NaN.

    Raises:
        ValueError: As :func:`checked`.

    Source: Viterbi 1967; Forney 1973.

    Example:
        >>> tags, score = viterbi(np.array([[[0.0, 1.0], [0.0, 0.5]]]), np.array([[0.0, 0.0], [2.0, 0.0]]))
        >>> ops.convert_to_numpy(tags).tolist(), float(score[0])
        ([[1, 0]], 3.0)
    """
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, taken = _closed(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    tags, score = _viterbi(e, M)
    score = _or_nan(taken + score, chain)
    tags = tags[:, 1 : ops.shape(chain.mask)[1] + 1]
    return ops.where(score[:, None] > -math.inf, tags, -1), score


@_compiled
def _k_best(e: Tensor, M: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    """Tags (batch, k, time) and scores (batch, k) of a closed chain; ``ranks`` are the numbers 0 … k − 1."""
    k, K, batch = ranks.shape[0], M.shape[0], ops.shape(e)[1]
    into = ops.transpose(M)[:, :, None]

    def forward(carry: tuple[Tensor, ...], e: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        prior, _, taken = carry
        scores = prior + e[..., None]
        top = ops.maximum(ops.max(scores, axis=(1, 2)), _LOWEST)
        ways = (scores - top[:, None, None])[:, None] + into  # (batch, tag, tag before, its rank)
        prior, before = ops.top_k(ops.reshape(ways, (batch, K, K * k)), k)
        carry = prior, ops.cast(before, "int32"), taken + top
        return carry, carry

    first = ops.pad(e[0][..., None], ((0, 0), (0, 0), (0, k - 1)), constant_values=-math.inf)
    carry = first, ops.zeros((batch, K, k), "int32"), ops.zeros_like(e[0, :, 0])
    (scores, _, taken), (_, before, _) = ops.scan(forward, carry, e[:-1])

    def back(state: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        state = ops.take_along_axis(ops.reshape(before, (batch, K * k)), state, axis=1)
        return state, state

    _, states = ops.scan(back, ops.zeros((batch, 1), "int32") + ranks, before[1:], reverse=True)
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
        transitions: As in :func:`log_partition`, (tags, tags).
        k: Number of sequences, at least 1.
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).

    Returns:
        Tags, shape (batch, k, time), int32, −1 at masked steps; and their scores, shape (batch, k), float32 or
        wider. Where fewer than k sequences are legal the rest has tags −1 and score −inf; where the arguments are
        wrong, tags are −1 and scores NaN.

    Raises:
        ValueError: ``k`` is not a positive integer; otherwise as :func:`checked`.

    Source: Seshadri and Sundberg 1994, "List Viterbi decoding algorithms", the parallel form.

    Example:
        >>> tags, scores = k_best(np.array([[[0.0, 1.0], [0.0, 3.0]]]), np.zeros((2, 2)), 2)
        >>> ops.convert_to_numpy(tags).tolist(), ops.convert_to_numpy(scores).tolist()
        ([[[1, 1], [0, 1]]], [[4.0, 3.0]])
    """
    ranks = ops.arange(_positive_integer("k", k), dtype="int32")
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, taken = _closed(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    tags, scores = _k_best(e, M, ranks)
    scores = _or_nan(taken[:, None] + scores, chain)
    return ops.where(scores[..., None] > -math.inf, tags, -1), scores


@_compiled
def _sample(e: Tensor, M: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Tags (batch, count, 2 · half) of a closed chain, and whether it has any (batch,).

    ``u`` are uniform numbers in (0, 1), one for each choice that could arise, (batch, count, K² + half · 2 · K).
    """
    scores, pairs, _ = _to_the_middle(_LOGARITHMS, e, M)
    K = M.shape[0]
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
        transitions: As in :func:`log_partition`, (tags, tags).
        mask: As in :func:`log_partition`, (batch, time).
        start: As in :func:`log_partition`, (tags,).
        end: As in :func:`log_partition`, (tags,).
        count: Number of sequences for each row, at least 1.
        seed: As in ``keras.random``: an integer, a ``SeedGenerator`` or None.

    Returns:
        Tags, shape (batch, count, time), int32, −1 at masked steps, and everywhere in a row where no sequence is
        legal or the arguments are wrong.

    Raises:
        ValueError: ``count`` is not a positive integer; otherwise as :func:`checked`.

    Source: Scott 2002, "Bayesian methods for hidden Markov models", forward filtering and backward sampling.

    Example:
        >>> tags = sample(np.log([[[0.25, 0.75]]]), np.zeros((2, 2)), count=10000, seed=0)
        >>> abs(float(ops.mean(ops.cast(tags, "float32"))) - 0.75) < 0.02
        True
    """
    count = _positive_integer("count", count)
    chain = checked(emissions, transitions, mask=mask, start=start, end=end)
    e, M, _ = _closed(chain.emissions, chain.transitions, chain.mask, chain.start, chain.end)
    (batch, time), K = ops.shape(chain.mask), M.shape[0]
    choices = (time + 3) // 2 * 2 * K + K * K
    tags, possible = _sample(e, M, keras.random.uniform((batch, count, choices), 1e-30, 1.0, e.dtype, seed))
    return ops.where(ops.logical_and(chain.valid, possible)[:, None, None], tags[..., 1 : time + 1], -1)
