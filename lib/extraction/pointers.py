"""Spans by two pointers: one logit a token for "starts here", one for "ends here".

A span is known by its first and its last token. :class:`SpanPointer` scores both for every token of a text, and
how the logits are read makes the task:

=================================== ================================================ ============================
wanted                              the logits are                                   decoded by
=================================== ================================================ ============================
one span a text, such as an answer  of two softmaxes over the places                 :func:`best_span`
any number of spans, of many kinds  of sigmoids, one at each place                   :func:`spans_from_pointers`
=================================== ================================================ ============================

Of the many places few start a span. :func:`power_crossentropy` lets a sigmoid begin with a guess of 2⁻ⁿ in place of
½; :func:`prior_bias` does the same by a bias.

Places. A span is (start, end) without its end, as in :mod:`lib.tagging.spans`. Only the two pointers of an answer
point at its first and its *last* token. Padding. As in :mod:`lib.tagging.heads`, logits carry their mask: −∞ at
padded places.

Source: Su Jianlin, https://kexue.fm/archives/7321 and https://kexue.fm/archives/7161; Wei et al. 2020, CasRel
(arXiv 1909.03227); Rajpurkar et al. 2018, SQuAD 2.0 (arXiv 1806.03822).
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from .._arguments import array_of, finite, positive, positive_integer, rate
from .._backend import all_of, float32_or_wider
from .._layers import integer_seed
from .._tensors import as_tensor, checked_mask, or_nan, require, require_shape

__all__ = [
    "SpanPointer",
    "best_span",
    "pair_pointers",
    "pointer_loss",
    "power_crossentropy",
    "power_sigmoid",
    "prior_bias",
    "span_loss",
    "spans_from_pointers",
]

Tensor = Any
Shape = tuple[int | None, ...]
Place = tuple[int, int]

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


# --- two logits a token ---------------------------------------------------------------------------------------


@_serializable
class SpanPointer(keras.layers.Layer):
    """Two logits for each token: how much it looks like the first token of a span, and how much like the last.

    Args:
        kinds: Number of kinds of span, each with pointers of its own. None is one kind without an axis for it.
        dropout: Rate of the dropout of the vectors.
        bias: Initial logit, the same everywhere, up to the small random weights (standard deviation 0.02).
        seed: Seed of the dropout, an int or a ``keras.random.SeedGenerator``.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``kinds`` is no positive integer, ``dropout`` no rate in [0, 1); when called, ``vectors`` or
            ``mask`` has another shape, or the mask holds other numbers than 0 and 1. Under XLA and ``jax.jit`` the
            logits of such a text are NaN.

    Example:
        >>> vectors, mask = np.ones((1, 3, 8), "float32"), np.array([[True, True, False]])
        >>> tuple(SpanPointer()(vectors).shape), tuple(SpanPointer(kinds=5)(vectors).shape)
        ((1, 3, 2), (1, 3, 5, 2))
        >>> ops.convert_to_numpy(SpanPointer()(vectors, mask=mask))[0, 2].tolist()
        [-inf, -inf]
    """

    def __init__(
        self,
        kinds: int | None = None,
        dropout: float = 0.0,
        bias: float = 0.0,
        *,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        kinds = None if kinds is None else positive_integer("kinds", kinds)
        seed, dropout = integer_seed(seed), rate("dropout", dropout)
        self._config = {"kinds": kinds, "dropout": dropout, "bias": finite("bias", bias), "seed": seed}
        self.dropout = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy)
        self.score = keras.layers.Dense(
            2 * (kinds or 1),
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            bias_initializer=keras.initializers.Constant(bias),
            dtype=self.dtype_policy,
            name="score",
        )
        self.supports_masking = True

    def build(self, vectors_shape: Shape) -> None:
        """Creates the linear map."""
        if vectors_shape is None:
            raise ValueError("vectors must be a tensor of numbers, got None")
        self.score.build(vectors_shape)

    def call(self, vectors: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Logits (batch, time, 2) or (batch, time, kinds, 2) of vectors (batch, time, hidden), −∞ where masked."""
        require_shape("vectors", as_tensor("vectors", vectors), (None, None, None))
        logits = self.score(self.dropout(vectors, training=training))
        if kinds := self._config["kinds"]:
            logits = ops.reshape(logits, (*ops.shape(logits)[:2], kinds, 2))
        if mask is None:
            return logits
        mask, right = checked_mask(mask, tuple(vectors.shape[:2]), to_fit="vectors")
        return or_nan(_where(mask, logits, -math.inf), right)

    def compute_mask(self, vectors: Tensor, previous_mask: Tensor | None = None) -> None:  # noqa: ARG002
        """Returns None: the logits carry their mask."""
        return None

    def compute_output_shape(self, vectors_shape: Shape) -> Shape:
        """(batch, time, 2) or (batch, time, kinds, 2)."""
        kinds = self._config["kinds"]
        return (*vectors_shape[:2], kinds, 2) if kinds else (*vectors_shape[:2], 2)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), **self._config}


# --- one answer a text ----------------------------------------------------------------------------------------


def pointer_loss(starts: Tensor, ends: Tensor, logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """−½ (log p_s(start) + log p_e(end)), with p_s and p_e the softmax of the two logits over the valid places.

    A question without an answer points both at place 0, the start-of-sequence token.

    Args:
        starts: Place of the first token of each answer, whole numbers (batch,), in [0, time).
        ends: Place of the last token of each answer, whole numbers (batch,), in [0, time).
        logits: Shape (batch, time, 2), any float type; places at −∞ are padded.
        mask: Valid places, True or 1, (batch, time); None if the logits tell.

    Returns:
        The loss of each text, (batch,), float32 or wider. An answer at a padded place has loss inf, gradient 0.

    Raises:
        ValueError: A shape does not fit, a place is no whole number in [0, time), or the mask holds other numbers
            than 0 and 1. Under XLA and ``jax.jit``, where no value can raise, the loss of that text is NaN.

    Source: Su Jianlin, https://kexue.fm/archives/7321.

    Example:
        >>> logits = np.log([[[0.5, 0.1], [0.25, 0.4], [0.25, 0.5]]])
        >>> round(float(pointer_loss([1], [2], logits)[0]), 4), round(-0.5 * math.log(0.25 * 0.5), 4)
        (1.0397, 1.0397)
    """
    return _loss({"starts": starts, "ends": ends}, logits, mask)


def _loss(places: dict[str, Tensor], logits: Tensor, mask: Tensor | None) -> Tensor:
    """The loss of starts and ends, whose names are for the error."""
    log_p, right = _log_softmax_over_places(logits, mask)
    (starts, start_right), (ends, end_right) = (_places(name, x, log_p) for name, x in places.items())
    pointers = ops.stack([starts, ends], axis=-1)
    loss = -ops.mean(ops.take_along_axis(log_p, pointers[:, None, :], axis=1), axis=(1, 2))
    return or_nan(loss, ops.all(ops.stack([right, start_right, end_right]), axis=0))


@_serializable
def span_loss(pointers: Tensor, logits: Tensor) -> Tensor:
    """:func:`pointer_loss` (batch,) as ``compile(loss=span_loss)`` wants it: ``pointers`` (batch, 2), then logits.

    Example:
        >>> model = keras.Sequential([keras.layers.Embedding(10, 8, mask_zero=True), SpanPointer()])
        >>> model.compile("sgd", loss=span_loss)
    """
    pointers = require_shape("pointers", as_tensor("pointers", pointers), (None, 2))
    return _loss({"pointers[:, 0]": pointers[:, 0], "pointers[:, 1]": pointers[:, 1]}, logits, None)


def best_span(
    logits: Tensor, *, longest: int = 16, mask: Tensor | None = None, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable answer, argmax of p_s(s) p_e(e) over s ≤ e < s + longest, in O(longest · time).

    The candidates are a band along the diagonal of the time × time table of all pairs: for each start, its
    ``longest`` ends. Only the band is computed. Among equals the first start wins, then the first end.

    Args:
        logits: Shape (batch, time, 2), any float type; places at −∞ are padded.
        longest: Most tokens of an answer, at least 1; it may exceed ``time``.
        mask: Valid places, True or 1, (batch, time); None if the logits tell.
        allowed: Where an answer may start and end, as ``mask``, such as the passage; None is everywhere.

    Returns:
        The first place and the last place of each answer, int32 (batch,), and log p_s + log p_e (batch,). The
        softmax runs over all valid places, allowed or not, so with ``allowed`` the candidates do not sum to 1, and
        their probability can be weighed against that of "no answer". Without a candidate: 0, 0 and −inf. A logit
        NaN makes the log-probability NaN.

    Raises:
        ValueError: A shape does not fit, ``longest`` is no positive integer, or ``mask`` or ``allowed`` holds other
            numbers than 0 and 1. Under XLA and ``jax.jit`` the log-probability of that text is NaN.

    Source: Su Jianlin, https://kexue.fm/archives/7321, where ``longest`` is 16.

    Example:
        >>> logits = np.log([[[0.2, 0.4], [0.3, 0.1], [0.5, 0.2], [0.0001, 0.3]]])
        >>> start, end, log_p = best_span(logits, longest=2)
        >>> int(start[0]), int(end[0]), round(math.exp(log_p[0]), 2)
        (2, 3, 0.15)
        >>> none = best_span(logits, allowed=[[True, False, False, False]])  # "no answer" is place 0
        >>> bool(none[2][0] < best_span(logits, allowed=[[False, True, True, True]])[2][0])
        True
    """
    log_p, right = _log_softmax_over_places(logits, mask)
    longest = positive_integer("longest", longest)
    if allowed is not None:
        allowed, also_right = checked_mask(allowed, tuple(log_p.shape[:2]), name="allowed", to_fit="logits")
        log_p, right = _where(allowed, log_p, -math.inf), ops.logical_and(right, also_right)
    right = ops.logical_and(right, all_of(ops.logical_not(ops.isnan(log_p)), (1, 2)))
    batch, time, _ = ops.shape(log_p)
    longest = min(longest, log_p.shape[1] or longest)
    starts, ends = log_p[:, :, 0], ops.pad(log_p[:, :, 1], ((0, 0), (0, longest - 1)))
    ends = ops.where(ops.arange(ops.shape(ends)[1]) < time, ends, -math.inf)  # tf.vectorized_map pads with 0 alone
    band = ops.stack([starts + ends[:, width : width + time] for width in range(longest)], axis=-1)
    flat = ops.reshape(band, (batch, time * longest))
    best = ops.cast(ops.argmax(flat, axis=-1), "int32")
    log_p = or_nan(ops.take_along_axis(flat, best[:, None], axis=1)[:, 0], right)
    return best // longest, best // longest + best % longest, log_p


def _log_softmax_over_places(logits: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities (batch, time, 2) over valid places, −∞ elsewhere; whether a mask tells them, (batch,)."""
    logits = float32_or_wider(require_shape("logits", as_tensor("logits", logits), (None, None, 2)))
    if logits.shape[1] == 0:
        raise ValueError(f"logits must have a place in each text, got shape {tuple(logits.shape)}")
    valid, right = ops.not_equal(logits, -math.inf), ops.ones(ops.shape(logits)[:1], "bool")
    if mask is not None:
        mask, right = checked_mask(mask, tuple(logits.shape[:2]), to_fit="logits")
        valid = ops.logical_and(valid, mask[:, :, None])
    best = ops.stop_gradient(ops.max(_where(valid, logits, -math.inf), axis=1, keepdims=True, initial=-math.inf))
    logits = logits - ops.where(ops.isfinite(best), best, 0)  # so that −1e30 is below all that counts
    # A finite −1e30 inside, and −∞ outside, so that no gradient meets ∞ − ∞.
    log_p = ops.log_softmax(_where(valid, logits, -1e30), axis=1)
    return _where(valid, log_p, -math.inf), right


def _places(name: str, places: Tensor, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Places as int32 (batch,), and whether each is one; ValueError for another where it is known."""
    places = require_shape(name, as_tensor(name, places, kinds="iuf"), tuple(log_p.shape[:1]), to_fit="logits")
    time = ops.shape(log_p)[1]
    found = ops.cast(places, "int32")
    right = ops.logical_and(ops.cast(found, places.dtype) == places, ops.logical_and(found >= 0, found < time))
    require(
        ops.all(right),
        f"{name} must be whole numbers in [0, time)",
        lambda: f"{ops.convert_to_numpy(places)[~ops.convert_to_numpy(right)][:5].tolist()} with time = {time}",
    )
    return ops.where(right, found, 0), right


# --- any number of spans --------------------------------------------------------------------------------------


def power_sigmoid(logits: Tensor, power: float = 1.0) -> Tensor:
    """pⁿ with p = sigmoid(logit): a probability that begins at 2⁻ⁿ when the logits begin at 0.

    Args:
        logits: Any shape and float type.
        power: n, more than 0.

    Returns:
        Probabilities in [0, 1], of the same shape, float32 or wider; 0 at a logit of −∞.

    Raises:
        ValueError: ``power`` is not more than 0, or ``logits`` are no real numbers.

    Example:
        >>> [float(power_sigmoid(0.0, n)) for n in (1, 2, 4)]
        [0.5, 0.25, 0.0625]
    """
    logits = float32_or_wider(as_tensor("logits", logits))
    return ops.exp(-positive("power", power) * ops.softplus(-logits))


def power_crossentropy(targets: Tensor, logits: Tensor, power: float = 1.0) -> Tensor:
    """−t log pⁿ − (1 − t) log(1 − pⁿ) with p = sigmoid(logit), each place by itself.

    Where one place in a hundred is positive, a sigmoid that begins at ½ spends its first steps learning that. With
    a power the first guess is 2⁻ⁿ; :func:`prior_bias` does the same to an ordinary sigmoid.

    Neither logarithm is taken of a number that could round to 0. With z the logit and q = 1 − p,

        −log pⁿ = n softplus(−z),    −log(1 − pⁿ) = softplus(z) − log((1 − pⁿ)/q),

    where the last quotient lies between 1 and n. For z < 0, where pⁿ is small, −log1p(−pⁿ) keeps more digits.

    Args:
        targets: Probabilities t in [0, 1], of any numeric type and the shape of ``logits``, or one for all.
        logits: Any shape and float type, finite.
        power: n, more than 0.

    Returns:
        Losses of the same shape, float32 or wider, not negative; they and their gradients are finite.

    Raises:
        ValueError: ``targets`` has another shape or a number outside [0, 1], or ``power`` is not more than 0. Under
            XLA and ``jax.jit``, where no value can raise, the loss is NaN where the target is no probability.

    Source: Su Jianlin, https://kexue.fm/archives/7161, with n = 2 for subjects and n = 4 for objects.

    Example:
        >>> round(float(power_crossentropy(1.0, 0.0, power=2)), 4), round(-math.log(0.25), 4)
        (1.3863, 1.3863)
    """
    power = positive("power", power)
    z, t = float32_or_wider(as_tensor("logits", logits)), as_tensor("targets", targets)
    if len(t.shape):
        require_shape("targets", t, tuple(z.shape), to_fit="logits")
    t = ops.cast(t, z.dtype)
    is_probability = ops.logical_and(t >= 0, t <= 1)
    require(
        ops.all(is_probability),
        "targets must lie in [0, 1]",
        lambda: ops.convert_to_numpy(t)[~ops.convert_to_numpy(is_probability)][:5].tolist(),
    )
    # Each form sees only logits of its side, so that the other's gradient cannot be NaN; and no minimum(z, 0), of
    # which JAX and torch halve the gradient at 0, where training begins.
    above = ops.where(z > 0, ops.minimum(z, 40), 1.0)  # beyond 40 the quotient is n to all digits
    below = ops.where(z > 0, -1.0, z)
    quotient = -ops.expm1(-power * ops.softplus(-above)) / ops.sigmoid(-above)
    high, low = ops.softplus(z) - ops.log(quotient), -ops.log1p(-power_sigmoid(below, power))
    loss = t * power * ops.softplus(-z) + (1 - t) * ops.where(z > 0, high, low)
    return ops.where(is_probability, loss, math.nan)


def prior_bias(power: float) -> float:
    """The logit −log(2ⁿ − 1), at which an ordinary sigmoid is 2⁻ⁿ: as a bias, what ``power`` n is at the start.

    Args:
        power: n, more than 0.

    Raises:
        ValueError: ``power`` is not more than 0.

    Example:
        >>> round(prior_bias(4), 4), round(math.log(0.0625 / (1 - 0.0625)), 4)
        (-2.7081, -2.7081)
    """
    x = positive("power", power) * math.log(2)
    return -x - math.log(-math.expm1(-x))


def spans_from_pointers(
    starts: ArrayLike, ends: ArrayLike, threshold: float = 0.5, longest: int | None = None
) -> list[Place]:
    """The spans of one text: each start takes the nearest end that is not before it.

    Two starts may take one end, as in CasRel; the spans can then overlap. A start without an end is dropped.

    Args:
        starts: Probability that a span starts at each place, (time,).
        ends: Probability that a span ends at each place, its last token, (time,).
        threshold: A pointer counts if its probability is more.
        longest: Most tokens of a span; a longer one is dropped. None is no limit.

    Returns:
        Spans (start, end), the end excluded, from left to right.

    Raises:
        ValueError: ``starts`` and ``ends`` are not of one shape (time,) or no real numbers, ``threshold`` is not
            finite, ``longest`` no positive integer.

    Source: Wei et al. 2020 (arXiv 1909.03227).

    Example:
        >>> spans_from_pointers([0.9, 0.1, 0.8, 0.7], [0.1, 0.9, 0.1, 0.6])
        [(0, 2), (2, 4), (3, 4)]
    """
    starts, ends = _real("starts", starts), _real("ends", ends)
    if starts.ndim != 1 or starts.shape != ends.shape:
        raise ValueError(f"starts and ends must have one shape (time,), got {starts.shape} and {ends.shape}")
    longest = None if longest is None else positive_integer("longest", longest)
    threshold = finite("threshold", threshold)
    found = pair_pointers(starts > threshold, ends > threshold)
    return [(start, end) for start, end in found.tolist() if longest is None or end - start <= longest]


def pair_pointers(starts: ArrayLike, ends: ArrayLike) -> NDArray[np.int64]:
    """The spans of many texts or kinds at once, paired as in :func:`spans_from_pointers`.

    Args:
        starts: Whether a span starts at each place, True or 1, (…, time).
        ends: Whether a span ends at each place, its last token, of the same shape.

    Returns:
        One row for each span: its index in the leading axes, its start and its end, the end excluded.

    Raises:
        ValueError: ``starts`` and ``ends`` are not of one shape, or hold other numbers than 0 and 1.

    Example:
        >>> pair_pointers(np.array([[0, 0], [1, 0]], bool), np.array([[0, 0], [0, 1]], bool)).tolist()
        [[1, 0, 2]]
    """
    starts, ends = _flags("starts", starts), _flags("ends", ends)
    if not starts.ndim or starts.shape != ends.shape:
        raise ValueError(f"starts and ends must have one shape (…, time), got {starts.shape} and {ends.shape}")
    time = starts.shape[-1]
    place = np.where(ends, np.arange(time), time)
    nearest = np.minimum.accumulate(place[..., ::-1], axis=-1)[..., ::-1]
    found = starts & (nearest < time)
    return np.column_stack([np.argwhere(found), nearest[found] + 1])


# --- arguments ------------------------------------------------------------------------------------------------


def _where(condition: Tensor, x: Tensor, other: float) -> Tensor:
    """Keeps x where the condition holds, puts a constant elsewhere; the condition may lack the last axes."""
    condition = ops.reshape(condition, (*ops.shape(condition), *[1] * (len(x.shape) - len(condition.shape))))
    return ops.where(condition, x, ops.cast(other, x.dtype))


def _real(name: str, x: ArrayLike) -> NDArray:
    x = array_of(name, x)
    if x.dtype.kind not in "biuf" or np.isnan(x).any():
        raise ValueError(f"{name} must hold real numbers, got {x.dtype} {x.tolist()!r:.60}")
    return x


def _flags(name: str, x: ArrayLike) -> NDArray[np.bool_]:
    x = _real(name, x)
    if not np.isin(x, (0, 1)).all():
        raise ValueError(
            f"{name} must hold True or 1 where a pointer points, False or 0 elsewhere, got {x.max()!r}"
        )
    return x.astype(bool)
