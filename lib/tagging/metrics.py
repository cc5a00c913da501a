"""Metrics of decoded tags, at the steps whose tag is known: what EarlyStopping can follow.

A :class:`~lib.tagging.Tagger` decodes before it measures::

    tagger.compile("adam", metrics=[TokenAccuracy(), SpanF1(alphabet)])
    tagger.fit(x, tags, validation_data=…, callbacks=[keras.callbacks.EarlyStopping("val_span_f1", mode="max")])

In the functional API the tags are an output of their own, that of :class:`~lib.tagging.Decode`. Steps of the tags
−1 and −100 do not count. For spans they are taken out, as if the text had none, so that the label of a word stands
at its first piece and those of its other pieces are −100.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import items
from .._backend import pad_integers
from .._tensors import or_nan, require, require_shape
from ..chain import UNKNOWN
from ._marks import OUTSIDE, continuations, counted_kinds, kinds_of, marks_of
from .heads import _as_tags
from .losses import _one_a_sequence
from .schemes import PADDING

__all__ = ["SpanF1", "TagMetric", "TokenAccuracy"]

Tensor = Any


class TagMetric(keras.metrics.Metric):
    """A metric of tags (batch, time) against decoded tags, a function of counts that add up over sequences.

    A subclass gives :meth:`count` and ``result``, and the names of its counts in ``counts``.

    Args:
        tag_count: Number of tags; None if any may come.
        name: As in every Keras metric.
        dtype: As in every Keras metric; the counts are float32 or wider.

    Raises:
        ValueError: When updated, ``tags`` or ``predicted`` is not of integers (batch, time) in range, such as the
            emissions in place of tags; or ``sample_weight`` is not (batch,). Where no error can be raised, under
            XLA and JAX jit, tags out of range make the result NaN.
    """

    #: The names of what :meth:`count` returns.
    counts: tuple[str, ...] = ()

    def __init__(self, tag_count: int | None = None, *, name: str | None = None, dtype: Any = None):
        asked = keras.dtype_policies.get(dtype or keras.config.floatx()).compute_dtype
        wide = "float64" if asked == "float64" else "float32"  # halves count no further than 2048
        super().__init__(name=name, dtype=wide)
        self._tag_count = tag_count
        self._totals = [self.add_variable((), "zeros", dtype=wide, name=count) for count in self.counts]

    def count(self, tags: Tensor, predicted: Tensor) -> tuple[Tensor, ...]:
        """The counts (batch,) of tags and predicted tags (batch, time), int32 and in range."""
        raise NotImplementedError(f"{type(self).__name__} must define count(tags, predicted)")

    def update_state(self, tags: Tensor, predicted: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds the counts of a batch.

        Args:
            tags: Targets (batch, time): integers, −1 at padded steps, −100 at steps to leave out.
            predicted: Decoded tags (batch, time), −1 at padded steps.
            sample_weight: One weight a sequence, (batch,), or None.
        """
        tags, stated = self._checked("tags", tags, (None, None), lowest=PADDING)
        predicted, decoded = self._checked("predicted", predicted, tags.shape, lowest=PADDING, unknown=False)
        valid = ops.logical_and(stated, decoded)
        weight = 1.0 if sample_weight is None else ops.cast(_one_a_sequence(sample_weight, tags), self.dtype)
        for total, counted in zip(self._totals, self.count(tags, predicted), strict=True):
            total.assign_add(ops.sum(or_nan(weight * ops.cast(counted, self.dtype), valid)))

    def _checked(
        self, name: str, tags: Any, shape: tuple[int | None, ...], *, lowest: int, unknown: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The tags as int32, −1 in place of what is none, and whether a row has only tags, (batch,)."""
        given = _as_tags(name, tags)
        if len(given.shape) != 2:
            raise ValueError(
                f"{name} must be tags (batch, time), as Decode and Tagger.predict give them, got shape "
                f"{tuple(given.shape)}"
            )
        require_shape(name, given, shape, to_fit="tags")
        tags = ops.cast(given, "int32")
        allowed = ops.logical_and(tags >= lowest, ops.cast(tags, given.dtype) == given)
        if self._tag_count is not None:
            allowed = ops.logical_and(allowed, tags < self._tag_count)
        if unknown:
            allowed = ops.logical_or(allowed, given == UNKNOWN)
        most = "" if self._tag_count is None else f" to {self._tag_count - 1}"
        require(
            ops.all(allowed),
            f"{name} must be integers from {lowest}{most}" + f", or {UNKNOWN}" * unknown,
            lambda: np.unique(ops.convert_to_numpy(given)[~ops.convert_to_numpy(allowed)])[:5].tolist(),
        )
        return ops.where(allowed, tags, PADDING), ops.all(allowed, axis=1)


@keras.saving.register_keras_serializable(package="proof_by_running")
class TokenAccuracy(TagMetric):
    """The share of the steps whose tag is known that are decoded rightly; 0 if there are none.

    Args:
        name: As in every Keras metric.
        dtype: As in every Keras metric.

    Raises:
        ValueError: As :class:`TagMetric`.

    Example:
        >>> accuracy = TokenAccuracy()
        >>> accuracy.update_state([[0, 1, 1, -100, -1]], [[0, 1, 0, 0, -1]])
        >>> round(float(accuracy.result()), 4)
        0.6667
    """

    counts = ("correct", "steps")

    def __init__(self, name: str = "token_accuracy", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)

    def count(self, tags: Tensor, predicted: Tensor) -> tuple[Tensor, ...]:
        """The right steps and all steps of each sequence."""
        known = tags >= 0
        correct = ops.logical_and(known, tags == predicted)
        return _number(correct), _number(known)

    def result(self) -> Tensor:
        """The accuracy, a scalar."""
        correct, steps = self._totals
        return ops.divide_no_nan(correct.value, steps.value)


@keras.saving.register_keras_serializable(package="proof_by_running")
class SpanF1(TagMetric):
    """F1 over the spans that the tags spell, micro-averaged over all batches; 0 if there are no spans.

    The spans are read as by :func:`~lib.tagging.spans_of_tags`: as seqeval does in its default mode, whatever the
    scheme, illegal labels too. Of legal tags seqeval's strict mode reads the same. The F1 is that of
    :func:`~lib.tagging.score_tags`, counted without a loop over texts, in compiled code too.

    Args:
        alphabet: The labels that the tags stand for, in any scheme.
        kinds: Count spans of these kinds only. None counts all.
        name: As in every Keras metric.
        dtype: As in every Keras metric.

    Raises:
        ValueError: A label is malformed or given twice; ``kinds`` is a string or names a kind that ``alphabet``
            does not have; otherwise as :class:`TagMetric`.

    Source: Tjong Kim Sang and De Meulder 2003; Nakayama 2018, seqeval.

    Example:
        >>> f1 = SpanF1(["O", "B-PER", "I-PER"])
        >>> f1.update_state([[1, 2, 0, 1]], [[1, 2, 0, 0]])  # one of two names, and no other
        >>> round(float(f1.result()), 4)
        0.6667
    """

    counts = ("correct", "predicted", "gold")

    def __init__(
        self,
        alphabet: Sequence[str],
        *,
        kinds: Collection[str] | None = None,
        name: str = "span_f1",
        dtype: Any = None,
    ):
        alphabet = items("alphabet", alphabet, text=True)
        marks = marks_of(alphabet)
        super().__init__(len(marks), name=name, dtype=dtype)
        self.alphabet = alphabet
        kinds = kinds if kinds is None or isinstance(kinds, str) else items("kinds", kinds)
        names, kind = kinds_of(marks)
        counted = counted_kinds(kinds, names)
        self.kinds = kinds
        # The last place of each table is for padding, which is outside.
        self._kind = np.append(kind, -1).astype("int32")
        self._inside = np.array([mark != OUTSIDE for mark in [*marks, OUTSIDE]])
        self._counted = np.array([at >= 0 and bool(counted[at]) for at in self._kind])
        self._continued = continuations(marks).reshape(-1)

    def count(self, tags: Tensor, predicted: Tensor) -> tuple[Tensor, ...]:
        """The predicted spans that are gold ones, the predicted and the gold spans of each sequence."""
        known, time = tags >= 0, ops.shape(tags)[1]
        place = ops.broadcast_to(ops.arange(time, dtype="int32"), ops.shape(tags))
        known_first = ops.argsort(ops.where(tags == UNKNOWN, time + place, place), axis=1)
        sides = []
        for side in (tags, predicted):
            side = ops.where(ops.logical_and(known, side >= 0), side, len(self.alphabet))
            side = ops.take_along_axis(side, known_first, axis=1)
            sides.append((side, *self._spans(side, place)))
        (gold, gold_last, gold_start), (found, found_last, found_start) = sides
        gold_last, found_last = (
            ops.logical_and(last, ops.take(self._counted, side))
            for side, last in ((gold, gold_last), (found, found_last))
        )
        same = ops.logical_and(gold_start == found_start, ops.take(self._kind, gold) == ops.take(self._kind, found))
        correct = ops.logical_and(ops.logical_and(gold_last, found_last), same)
        return _number(correct), _number(found_last), _number(gold_last)

    def _spans(self, tags: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """At each step whether a span ends there, and where the last span began that has begun by then."""
        size = len(self.alphabet) + 1
        framed = pad_integers(tags, ((0, 0), (1, 1)), size - 1)
        continued = ops.take(self._continued, framed[:, :-1] * size + framed[:, 1:])
        inside = ops.take(self._inside, tags)
        first = ops.logical_and(inside, ops.logical_not(continued[:, :-1]))
        last = ops.logical_and(inside, ops.logical_not(continued[:, 1:]))
        starts = ops.sort(ops.where(first, place, ops.shape(tags)[1]), axis=1)  # of the spans from left to right
        begun = ops.cumsum(ops.cast(first, "int32"), axis=1)
        return last, ops.take_along_axis(starts, ops.maximum(begun - 1, 0), axis=1)

    def result(self) -> Tensor:
        """The F1, a scalar: 2 · correct / (predicted + gold)."""
        correct, predicted, gold = self._totals
        return ops.divide_no_nan(2 * correct.value, predicted + gold)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this metric."""
        return {**super().get_config(), "alphabet": self.alphabet, "kinds": self.kinds}


def _number(flags: Tensor) -> Tensor:
    """How many steps of each row are flagged, (batch,)."""
    return ops.sum(ops.cast(flags, "int32"), axis=1)
