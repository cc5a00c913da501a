"""Precision, recall and F1 over spans, micro-averaged: how well predicted spans match the gold ones.

Spans are read as by :func:`~lib.tagging.spans_of`, which is seqeval's default mode. Of legal labels its strict mode
gives the same scores. All of this is NumPy; :class:`~lib.tagging.SpanF1` is the same as a Keras metric.

Source: Tjong Kim Sang and De Meulder 2003; Nakayama 2018, seqeval.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .._arguments import array_of, items
from ._marks import checked_kinds, checked_tags, counted_kinds, kinds_of, known_first, marks_of, runs
from .schemes import PADDING
from .spans import Span, _checked_span

__all__ = ["Score", "score", "score_tags"]


@dataclass(frozen=True)
class Score:
    """How well predicted spans match the gold ones. Scores of parts of a corpus add up: ``sum(scores, Score())``.

    A quotient 0/0 counts as 0, as in seqeval: without predicted spans the precision is 0, without gold spans the
    recall, and without both the F1.

    Attributes:
        correct: predicted spans that are gold spans: same start, same end, same kind. A metric that gives part
            marks, such as :func:`lib.extraction.event_score`, puts the sum of the marks here.
        predicted: predicted spans.
        gold: gold spans.

    Example:
        >>> part = Score(correct=1, predicted=2, gold=4)
        >>> part.precision, part.recall, round(part.f1, 4)
        (0.5, 0.25, 0.3333)
        >>> part + Score(3, 3, 3)
        Score(correct=4, predicted=5, gold=7)
    """

    correct: float = 0
    predicted: int = 0
    gold: int = 0

    @property
    def precision(self) -> float:
        """The share of the predicted spans that are correct, in [0, 1]."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """The share of the gold spans that were found, in [0, 1]."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall, in [0, 1]: 2 · correct / (predicted + gold)."""
        spans = self.predicted + self.gold
        return 2 * self.correct / spans if spans else 0.0

    def __add__(self, other: Score) -> Score:
        if not isinstance(other, Score):
            return NotImplemented
        return Score(self.correct + other.correct, self.predicted + other.predicted, self.gold + other.gold)


def score(
    gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]], kinds: Collection[str] | None = None
) -> Score:
    """Precision, recall and F1 over the spans of several sentences, micro-averaged: all spans weigh the same.

    Args:
        gold: for each sentence its true spans, in any order. They may overlap; a span given twice counts once.
        predicted: for each sentence, in the same order, the predicted spans.
        kinds: count spans of these kinds only. None counts all.

    Returns:
        The counts, from which the score is computed.

    Raises:
        ValueError: ``gold`` and ``predicted`` are no collections of spans or differ in their number of sentences, a
            span is empty, or ``kinds`` is no collection of strings.

    Source: Tjong Kim Sang and De Meulder 2003.

    Example:
        >>> gold = [[Span(0, 2, "PER"), Span(3, 4, "LOC")], []]
        >>> predicted = [[Span(0, 2, "PER"), Span(3, 5, "LOC")], [Span(0, 1, "LOC")]]
        >>> score(gold, predicted)
        Score(correct=1, predicted=3, gold=2)
        >>> score(gold, predicted, kinds=["PER"]).f1
        1.0
    """
    gold, predicted = items("gold", gold), items("predicted", predicted)
    if len(gold) != len(predicted):
        raise ValueError(
            f"predicted must have the sentences of gold, got {len(predicted)} and {len(gold)} sentences"
        )
    kinds = checked_kinds(kinds)
    total = Score()
    for i, sentence in enumerate(zip(gold, predicted, strict=True)):
        sides = zip((f"gold[{i}]", f"predicted[{i}]"), sentence, strict=True)
        true, found = ({_checked_span(span, name) for span in items(name, spans)} for name, spans in sides)
        if kinds is not None:
            true, found = ({span for span in spans if span.kind in kinds} for spans in (true, found))
        total += Score(len(true & found), len(found), len(true))
    return total


def score_tags(
    gold: ArrayLike, predicted: ArrayLike, alphabet: Sequence[str], kinds: Collection[str] | None = None
) -> Score:
    """:func:`score` of two batches of tags, read as by :func:`spans_of`. It takes milliseconds, so score often.

    Args:
        gold: integers (batch, time): places in ``alphabet``, −1 for padding, −100 for a step that is left out as if
            it were not there.
        predicted: the same of a tagger. Its tags where ``gold`` is −1 or −100 are not looked at.
        alphabet: the K labels.
        kinds: count spans of these kinds only. None counts all.

    Returns:
        The counts, from which the score is computed.

    Raises:
        ValueError: as :func:`spans_of_tags`; or the shapes differ; or ``kinds`` is a string or names a kind that
            ``alphabet`` does not have.

    Example:
        >>> gold = [[1, 3, 0, -1]]  # b e s: two words
        >>> predicted = [[1, 3, 1, 3]]  # b e b
        >>> score_tags(gold, predicted, ["s", "b", "m", "e"])
        Score(correct=2, predicted=2, gold=2)
    """
    marks = marks_of(alphabet)
    names, kind = kinds_of(marks)
    counted = counted_kinds(kinds, names)
    gold = checked_tags("gold", gold, len(marks))
    predicted = array_of("predicted", predicted)
    if not np.issubdtype(predicted.dtype, np.integer):
        raise ValueError(f"predicted must be integers of shape (batch, time), got {predicted.dtype}")
    if predicted.shape != gold.shape:
        raise ValueError(f"predicted must have the shape of gold, {gold.shape}, got {predicted.shape}")
    known = gold >= 0
    predicted = checked_tags("predicted", np.where(known, predicted, 0), len(marks), unknown=False)
    order = known_first(gold)

    found = []
    for tags in (gold, predicted):
        tags = np.take_along_axis(np.where(known, tags, PADDING), order, axis=1)
        rows, starts, ends = runs(tags, marks)
        code = kind[tags[rows, starts]]
        code, rows, starts, ends = (x[counted[code]] for x in (code, rows, starts, ends))
        sizes = (*tags.shape, tags.shape[1] + 1, len(names))
        found.append(np.ravel_multi_index((rows, starts, ends, code), sizes))
    correct = np.intersect1d(*found, assume_unique=True)
    return Score(len(correct), len(found[1]), len(found[0]))
