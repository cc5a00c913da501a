"""The maximum-entropy Markov model: a chain that divides by a sum over tags at every step.

An MEMM has the numerator of a CRF, with f the emissions and g the transitions,

    s(y) = Σ_k f_k(y_k) + Σ_k g(y_{k-1}, y_k),

but takes one softmax a step, given the tag before (forward) or the tag after (backward):

    P→(y) = Π_k exp(g(y_{k-1}, y_k) + f_k(y_k)) / Σ_j exp(g(y_{k-1}, j) + f_k(j))
    P←(y) = Π_k exp(g(y_k, y_{k+1}) + f_k(y_k)) / Σ_i exp(g(i, y_{k+1}) + f_k(i))

The first step of P→ and the last of P← have no neighbour to look at, and no g. In training the neighbour is known:
the likelihood is a row of g for every step and a cross-entropy, without a recursion. Both directions share one g.

An MEMM is a chain. The normaliser of a step depends on the neighbour alone, so it can be charged to the emission of
the neighbour: to be in tag i at step k costs the log-sum-exp of all ways out of i. What remains is a chain with the
same g, whose score is log P. So :func:`normalized_emissions` turns the dynamic programs of ``lib.chain`` into those
of the MEMM, exactly: ``chain.viterbi`` (here :func:`viterbi`), ``chain.k_best``, ``chain.sample``,
``chain.marginals``, and a ``chain.log_partition`` of 0. Viterbi on the plain emissions, which some code runs,
maximises s(y), the score of a CRF; see :func:`viterbi` for how often that is another sequence.

Both directions, ``"both"``, means ½(log P→ + log P←), the objective of a bidirectional MEMM. It is a chain as well,
whose emissions are charged half of each. Its scores are no probabilities: Σ_y √(P→(y) P←(y)) ≤ 1, with equality
only for P→ = P←. ``chain.log_partition`` of its emissions is the logarithm of that sum, the Bhattacharyya
coefficient of the two models.

Many tags. ``transitions`` may be a pair (left, right) of matrices (tags, rank), for g(i, j) = left_i · right_j. The
likelihood, :func:`greedy` and :func:`beam` form the rows of g that they need, and never all of g.

Source: McCallum, Freitag and Pereira 2000, "Maximum Entropy Markov Models"; Su Jianlin,
https://kexue.fm/archives/7213 (both directions, low rank).
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from . import chain
from ._arguments import positive_integer
from ._backend import float32_or_wider, jit
from .tagging import PADDING, Head

__all__ = ["MEMM", "beam", "greedy", "log_likelihood", "normalized_emissions", "viterbi"]

Tensor = Any
Transitions = Tensor | tuple[Tensor, Tensor]

DIRECTIONS = ("forward", "backward", "both")


# --- the likelihood -------------------------------------------------------------------------------------------


def log_likelihood(
    emissions: Tensor,
    tags: Tensor,
    transitions: Transitions,
    *,
    mask: Tensor | None = None,
    direction: str = "forward",
) -> Tensor:
    """The log-probability of tag sequences, a sum of one log-softmax a step.

    Args:
        emissions: Scores f_k(j) of each tag at each step, shape (batch, time, tags), any float type; −inf forbids.
        tags: Tag sequences, shape (batch, time), integers in [0, tags); any number at masked steps.
        transitions: Scores g(i, j) of tag i followed by tag j, shape (tags, tags), −inf forbids a move; or a pair
            (left, right), both (tags, rank), for g(i, j) = left_i · right_j.
        mask: Valid steps, boolean, shape (batch, time), a valid prefix in each row; None if all are valid.
        direction: ``"forward"`` for log P→, ``"backward"`` for log P←, ``"both"`` for their mean.

    Returns:
        Shape (batch,), float32 or wider, not positive. A row without a valid step has 0. A sequence that makes a
        forbidden move has −inf and a zero gradient. Under XLA and JAX jit, where no error can be raised, a row with
        tags out of range or a mask with holes has NaN.

    Raises:
        ValueError: A shape does not fit or ``direction`` is unknown; in eager mode, also tags out of range and a
            mask with holes. A plain TensorFlow graph raises its ``InvalidArgumentError`` for these.

    Source: article 7213; the time and memory are those of a softmax cross-entropy, twice for ``"both"``.

    Example:
        >>> emissions, transitions = [[[0.0, 1.0], [2.0, 0.0]]], [[0.0, 1.0], [1.0, 0.0]]
        >>> for direction in ("forward", "backward", "both"):
        ...     round(float(log_likelihood(emissions, [[1, 0]], transitions, direction=direction)[0]), 4)
        -0.3618
        -0.2539
        -0.3079
    """
    arguments = _checked(emissions, transitions, tags, mask, direction)
    sides = [_log_likelihood(arguments, side) for side in _sides(direction)]
    return _or_nan(sum(sides) / len(sides), arguments)


@jit(static_argnames=("direction",))
def _log_likelihood(arguments: chain.Chain, direction: str) -> Tensor:
    tags, mask = arguments.tags, arguments.mask
    logits = arguments.emissions + _rows(arguments.transitions, direction)(_neighbours(arguments, direction))
    chosen = ops.take_along_axis(logits, ops.expand_dims(tags, -1), axis=-1)[..., 0]
    total = ops.sum(ops.where(mask, chosen - _logsumexp(logits), 0.0), axis=1)
    return ops.where(ops.equal(total, -math.inf), -math.inf, total)  # cuts the gradient of what is impossible


def _neighbours(arguments: chain.Chain, direction: str) -> Tensor:
    """The tag that each step looks at, (batch, time): the one before or after, K where there is none."""
    none = arguments.emissions.shape[-1]
    if direction == "forward":
        return ops.pad(arguments.tags[:, :-1], ((0, 0), (1, 0)), constant_values=none)
    after = ops.where(arguments.mask[:, 1:], arguments.tags[:, 1:], none)
    return ops.pad(after, ((0, 0), (0, 1)), constant_values=none)


def _rows(transitions: Transitions, direction: str) -> Callable[[Tensor], Tensor]:
    """A function from neighbours (...) in [0, K] to their scores of every tag (..., K), 0 for the neighbour K."""
    left, right = transitions if isinstance(transitions, tuple) else (transitions, None)
    if direction == "backward":
        left, right = (ops.transpose(left), None) if right is None else (right, left)
    table = ops.pad(left, ((0, 1), (0, 0)))
    if right is None:
        return lambda neighbours: ops.take(table, neighbours, axis=0)
    return lambda neighbours: ops.matmul(ops.take(table, neighbours, axis=0), ops.transpose(right))


# --- the MEMM as a chain --------------------------------------------------------------------------------------


def normalized_emissions(
    emissions: Tensor, transitions: Transitions, *, mask: Tensor | None = None, direction: str = "forward"
) -> Tensor:
    """Emissions that make a chain of the MEMM: with them ``lib.chain`` scores, decodes and samples log P.

    Forward, the emission of tag i at step k is charged for the way out of it, log Σ_j exp(g(i, j) + f_{k+1}(j));
    backward, the emission of tag j for the way in, log Σ_i exp(g(i, j) + f_{k-1}(i)). The softmax of the step that
    has no neighbour is charged to that step. Then, with the same ``transitions`` and ``mask``:

    - ``chain.sequence_score`` is :func:`log_likelihood`;
    - ``chain.log_partition`` is 0, unless mass is lost in a tag that no tag may follow (precede, backward), and
      not positive for ``"both"``;
    - ``chain.viterbi``, ``chain.k_best``, ``chain.sample`` and ``chain.marginals`` are those of the MEMM.

    Args:
        emissions: As in :func:`log_likelihood`.
        transitions: As in :func:`log_likelihood`. A pair is multiplied out, (tags, tags).
        mask: As in :func:`log_likelihood`.
        direction: As in :func:`log_likelihood`.

    Returns:
        Shape (batch, time, tags), float32 or wider; 0 at masked steps. Not meant for training: use
        :func:`log_likelihood`.

    Raises:
        ValueError: As :func:`log_likelihood`.

    Example:
        >>> emissions, transitions = [[[0.0, 1.0], [2.0, 0.0]]], [[0.0, 1.0], [1.0, 0.0]]
        >>> charged = normalized_emissions(emissions, transitions)
        >>> abs(round(float(chain.log_partition(charged, transitions)[0]), 5))
        0.0
        >>> round(float(chain.sequence_score(charged, [[1, 0]], transitions)[0]), 4)
        -0.3618
    """
    arguments = _checked(emissions, transitions, None, mask, direction)
    sides = [_charges(arguments, side) for side in _sides(direction)]
    charged = arguments.emissions - sum(sides) / len(sides)
    return ops.where(arguments.mask[..., None], charged, 0.0)


@jit(static_argnames=("direction",))
def _charges(arguments: chain.Chain, direction: str) -> Tensor:
    """What the emissions of one direction are charged, (batch, time, tags)."""
    emissions, mask = arguments.emissions, arguments.mask
    transitions = _full(arguments.transitions)
    if direction == "forward":
        into = ops.where(mask[..., None], _log_matmul(emissions, transitions), 0.0)
        charges = ops.pad(into[:, 1:], ((0, 0), (0, 1), (0, 0)))
        lonely = ops.equal(ops.arange(mask.shape[1]), 0)[None]
    else:
        into = _log_matmul(emissions, ops.transpose(transitions))
        charges = ops.pad(into[:, :-1], ((0, 0), (1, 0), (0, 0)))
        lonely = ops.logical_not(ops.pad(mask[:, 1:], ((0, 0), (0, 1))))
    return charges + ops.where(lonely, _logsumexp(emissions), 0.0)[..., None]


def _log_matmul(x: Tensor, g: Tensor) -> Tensor:
    """The scores log Σ_j exp(x[..., j] + g[i, j]), shape (..., i); 0 where the sum is 0.

    One product of exponentials, unless that loses digits: below 1e-20 of the largest possible sum, terms that
    count may have been lost to underflow. Then the sums are taken in logarithms, one i at a time.
    """
    x_scale, g_scale = _scale(x), _scale(g)
    products = ops.matmul(ops.exp(x - x_scale), ops.transpose(ops.exp(g - g_scale)))
    possible = ops.logical_and(ops.any(x > -math.inf, axis=-1, keepdims=True), ops.any(g > -math.inf, axis=-1))
    products = ops.where(possible, products, 1.0)

    def by_products():
        return ops.where(possible, ops.log(products) + x_scale + g_scale[:, 0], 0.0)

    def by_logarithms():
        return ops.moveaxis(ops.map(lambda row: _logsumexp(x + row), g), 0, -1)

    return ops.cond(ops.all(products > 1e-20), by_products, by_logarithms)


# --- decoding -------------------------------------------------------------------------------------------------


def viterbi(
    emissions: Tensor, transitions: Transitions, *, mask: Tensor | None = None, direction: str = "forward"
) -> tuple[Tensor, Tensor]:
    """The most probable tag sequence and its log-probability: exact, with the local normalisers.

    It is ``chain.viterbi`` on :func:`normalized_emissions`. For ``"both"`` it is the maximum of
    ½(log P→ + log P←), exact as well.

    The share of tokens that code without the normalisers gets wrong compares two lines::

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
        >>> ops.convert_to_numpy(chain.viterbi(emissions, transitions)[0]).tolist()  # without the normalisers
        [[0, 0]]
    """
    charged = normalized_emissions(emissions, transitions, mask=mask, direction=direction)
    return chain.viterbi(charged, _full(transitions), mask=mask)


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
    arguments = _checked(emissions, transitions, None, mask, direction)
    return _best([_greedy(arguments, side) for side in _sides(direction)], arguments, direction)


@jit(static_argnames=("direction",))
def _greedy(arguments: chain.Chain, direction: str) -> Tensor:
    emissions, mask = _time_first(arguments)
    rows, backward = _rows(arguments.transitions, direction), direction == "backward"

    def step(tag, x):
        e, valid = x
        best = ops.cast(ops.argmax(e + rows(tag), axis=-1), "int32")
        tag = ops.where(valid, best, tag)
        return tag, tag

    alone = ops.zeros_like(mask[0], dtype="int32") + emissions.shape[-1]
    _, tags = ops.scan(step, alone, (emissions, mask), reverse=backward)
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
    arguments = _checked(emissions, transitions, None, mask, direction)
    return _best([_beam(arguments, width, side) for side in _sides(direction)], arguments, direction)


@jit(static_argnames=("width", "direction"))
def _beam(arguments: chain.Chain, width: int, direction: str) -> Tensor:
    emissions, mask = _time_first(arguments)
    rows, backward = _rows(arguments.transitions, direction), direction == "backward"
    K = emissions.shape[-1]
    width = min(width, K)

    def extend(carry, x):
        tags, _, scores = carry
        e, valid = x
        logits = e[:, None] + rows(tags)
        reached = scores[..., None] + logits - _logsumexp(logits)[..., None]  # (batch, width, tags)
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
    _, (tags, origins, _) = ops.scan(extend, alone, (emissions, mask), reverse=backward)
    _, (_, path) = ops.scan(trace, (rank, rank), (tags, origins), reverse=not backward)
    return ops.transpose(path)


def _time_first(arguments: chain.Chain) -> tuple[Tensor, Tensor]:
    return ops.moveaxis(arguments.emissions, 1, 0), ops.transpose(arguments.mask)


def _best(paths: list[Tensor], arguments: chain.Chain, direction: str) -> tuple[Tensor, Tensor]:
    """Of one or two candidates (batch, time) the better one, −1 at masked steps, and its log-likelihood."""
    scored = []
    for tags in paths:
        candidate = arguments._replace(tags=ops.where(arguments.mask, tags, 0))
        sides = [_log_likelihood(candidate, side) for side in _sides(direction)]
        scored.append((candidate.tags, sum(sides) / len(sides)))
    tags, score = scored[0]
    for other, other_score in scored[1:]:
        tags = ops.where((other_score > score)[:, None], other, tags)
        score = ops.maximum(score, other_score)
    return ops.where(arguments.mask, tags, PADDING), _or_nan(score, arguments)


# --- the layer ------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="proof_by_running")
class MEMM(Head):
    """The maximum-entropy Markov model as the last layer of a tagger.

    Transitions, learning rate and legal moves are those of :class:`lib.tagging.Head`. Scores of the first and the
    last tag count as emissions of those steps. The loss is −log-likelihood *per token*: that of each sequence is
    divided by the mean number of tags in the batch, so that Keras's mean over sequences is the one over all tokens.
    A CRF's loss is per sequence. Adam does not see the difference in scale, plain SGD does.

    Args:
        tags: Number of tags, at least 1.
        direction: ``"forward"``, ``"backward"`` or ``"both"``, in the loss and in the decoder.
        rank: None for transitions (tags, tags); else they are left · rightᵀ with factors (tags, rank). ``left``
            begins with random rows of length about 1 and ``right`` with zeros, so that g begins with 0 and has a
            gradient.
        beam_width: None for the exact decoder, :func:`viterbi`, which takes tags² operations a step; else the
            width of the :func:`beam` that decodes.
        **kwargs: Arguments of :class:`lib.tagging.Head`: ``transitions_initializer``, ``boundaries``, ``legal``,
            ``legal_start``, ``legal_end``, ``learning_rate_multiplier``, and those of every Keras layer.

    Raises:
        ValueError: ``direction`` is unknown; ``rank`` or ``beam_width`` is not a positive integer; ``rank`` comes
            with ``legal`` or ``transitions_initializer``, which are (tags, tags); otherwise as
            :class:`lib.tagging.Head` and, when used, as :func:`log_likelihood`.

    Example:
        >>> large = MEMM(20_000, rank=64, beam_width=4)
        >>> large.build((None, None, 20_000))
        >>> sum(int(ops.size(weight)) for weight in large.weights)  # 2d|V|, not |V|² = 400 million
        2560000
    """

    def __init__(
        self,
        tags: int,
        *,
        direction: str = "both",
        rank: int | None = None,
        beam_width: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(tags, **kwargs)
        _sides(direction)
        self.direction = direction
        self.rank = None if rank is None else positive_integer("rank", rank)
        self.beam_width = None if beam_width is None else positive_integer("beam_width", beam_width)
        if rank is not None and self.legal is not None:
            raise ValueError("legal must be None with a rank: it is of shape (tags, tags), and so is no factor")
        if rank is not None and "transitions_initializer" in kwargs:
            raise ValueError("transitions_initializer must be left out with a rank: the product begins with 0")

    def add_transitions(self) -> None:
        """Creates the weights behind :attr:`transitions`, (tags, tags) or two factors (tags, rank)."""
        if self.rank is None:
            super().add_transitions()
        else:
            shape = (self.tags, self.rank)
            self._left = self.add_score("left", shape, keras.initializers.RandomNormal(stddev=self.rank**-0.5))
            self._right = self.add_score("right", shape)

    @property
    def transitions(self) -> Transitions:
        """Scores (tags, tags), −∞ where illegal, or with a ``rank`` their factors (left, right)."""
        return super().transitions if self.rank is None else (self.score(self._left), self.score(self._right))

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-likelihood (batch,) of the tags in this layer's direction, see :func:`log_likelihood`."""
        emissions = self._with_boundaries(emissions, mask)
        return log_likelihood(emissions, tags, self.transitions, mask=mask, direction=self.direction)

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The tags (batch, time) that the decoder finds and their log-likelihood, shape (batch,)."""
        emissions, given = self._with_boundaries(emissions, mask), {"mask": mask, "direction": self.direction}
        if self.beam_width is None:
            return viterbi(emissions, self.transitions, **given)
        return beam(emissions, self.transitions, self.beam_width, **given)

    def sequence_loss(self, tags: Tensor, emissions: Tensor) -> Tensor:
        """−log-likelihood of every sequence, divided by the mean number of tags of the batch, shape (batch,).

        Args:
            tags: As in :meth:`lib.tagging.Head.sequence_loss`.
            emissions: As in :meth:`lib.tagging.Head.sequence_loss`.
        """
        loss = super().sequence_loss(tags, emissions)
        lengths = ops.sum(ops.cast(ops.not_equal(tags, PADDING), loss.dtype), axis=1)
        mean = ops.mean(lengths)
        return loss / ops.where(mean > 0, mean, 1.0)

    def _with_boundaries(self, emissions: Tensor, mask: Tensor | None) -> Tensor:
        """The emissions with ``start`` added to the first step and ``end`` to the last valid one."""
        emissions = ops.convert_to_tensor(emissions)
        mask = ops.ones_like(emissions[..., 0], dtype="bool") if mask is None else ops.cast(mask, "bool")
        if self.start is not None:
            first = ops.expand_dims(ops.arange(emissions.shape[1]) == 0, -1)
            emissions = emissions + ops.where(first, self.start, 0.0)
        if self.end is not None:
            last = ops.logical_and(mask, ops.logical_not(ops.pad(mask[:, 1:], ((0, 0), (0, 1)))))
            emissions = emissions + ops.where(last[..., None], self.end, 0.0)
        return emissions

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this head."""
        config = {**super().get_config(), "direction": self.direction, "rank": self.rank}
        if self.rank is not None:
            del config["transitions_initializer"], config["legal"]
        return {**config, "beam_width": self.beam_width}


# --- arguments ------------------------------------------------------------------------------------------------


def _checked(
    emissions: Tensor, transitions: Transitions, tags: Tensor | None, mask: Tensor | None, direction: str
) -> chain.Chain:
    """The arguments as tensors, a pair of transitions as a pair, or an error that names the one that is wrong."""
    _sides(direction)
    if not isinstance(transitions, tuple):
        return chain.checked(emissions, transitions, tags=tags, mask=mask)
    left, right = _factors(transitions)
    stand_in = ops.broadcast_to(ops.zeros((1, 1), left.dtype), (left.shape[0],) * 2)
    arguments = chain.checked(emissions, stand_in, tags=tags, mask=mask)
    dtype = arguments.emissions.dtype
    return arguments._replace(transitions=(ops.cast(left, dtype), ops.cast(right, dtype)))


def _factors(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    if len(pair) != 2:
        raise ValueError(f"transitions must be a matrix or a pair (left, right), got a tuple of {len(pair)}")
    left, right = map(float32_or_wider, pair)
    if len(left.shape) != 2 or tuple(left.shape) != tuple(right.shape):
        raise ValueError(
            "transitions must be a pair of matrices (tags, rank), got shapes "
            f"{tuple(left.shape)} and {tuple(right.shape)}"
        )
    return left, right


def _sides(direction: str) -> tuple[str, ...]:
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(map(repr, DIRECTIONS))}, got {direction!r}")
    return ("forward", "backward") if direction == "both" else (direction,)


def _full(transitions: Transitions) -> Tensor:
    """g, shape (tags, tags)."""
    if isinstance(transitions, tuple):
        left, right = _factors(transitions)
        return ops.matmul(left, ops.transpose(right))
    return transitions


def _or_nan(x: Tensor, arguments: chain.Chain) -> Tensor:
    return ops.where(arguments.valid, x, math.nan)


def _scale(x: Tensor) -> Tensor:
    """The maximum over the last axis, kept as an axis, without gradient; 0 where all are −∞."""
    scale = ops.stop_gradient(ops.max(x, axis=-1, keepdims=True))
    return ops.where(ops.equal(scale, -math.inf), 0.0, scale)


def _logsumexp(x: Tensor) -> Tensor:
    """Over the last axis; 0, without gradient, where all are −∞."""
    scale = _scale(x)
    total = ops.sum(ops.exp(x - scale), axis=-1)
    return ops.log(ops.where(ops.equal(total, 0.0), 1.0, total)) + scale[..., 0]
