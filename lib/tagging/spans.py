"""Spans and the labels that spell them: word segmentation in BMES, named entities in BIO, and their scores.

A tagger gives each character one label, and what is wanted are spans: words, names. A scheme spells a span by the
label of its first character, of those inside, of the last, and of a span of one character:

=====================  ===========================  =====================================================
scheme                 alphabet                     spans are
=====================  ===========================  =====================================================
BMES, of words         s, b, m, e                   a partition: every character belongs to one
BIO, of several kinds  O, B-PER, I-PER, B-LOC, …    disjoint, and between them is O
BMES, of several       O, B-PER, M-PER, E-PER, …    as BIO; M may be written I (IOBES)
=====================  ===========================  =====================================================

One relation decides everything. A label *continues* the label before it if it is an inside or last one (I, M, E),
the other a first or inside one (B, I, M), and both are of the same kind.

* Reading: cut between two labels unless the second continues the first. Each piece that is not O is a span. So an
  illegal sequence can be read too, no character of a label other than O is lost, and the spans are those of
  seqeval in its default mode and of conlleval.pl: b b is two words, and I-LOC after O begins a span.
* Legality: a move is legal if the second label continues the first, or the second need not continue anything and
  the first need not be continued.

    segment_labels, bio_labels              spans → labels (one sentence)
    disjoint                                spans → the most of them that BIO can spell
    spans_of, spans_of_words, spans_of_tags labels, tagged words, integer tags → spans
    SEGMENT_ALPHABET, bio_alphabet          the labels of a scheme; a tag is a place in this tuple
    legal_moves, illegal_moves              which moves a scheme allows; how many of a batch it does not
    Score, score, score_tags                precision, recall and F1 over spans, micro-averaged

Tags are integers (batch, time), −1 where a sentence has ended. All of this is NumPy.

Sources: Ramshaw and Marcus 1995 (BIO); Xue 2003 (BMES, as position of a character in a word); Tjong Kim Sang and De
Meulder 2003 (scores over spans); Nakayama 2018, seqeval.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The labels of word segmentation, in the order of article 7196: single, begin, middle, end.
SEGMENT_ALPHABET = ("s", "b", "m", "e")


class Span(NamedTuple):
    """Characters ``start`` to ``end`` − 1 of a sentence.

    Attributes:
        start: the first character, counted from 0.
        end: the character after the last one.
        kind: what it is, such as "PER"; empty for a word.
    """

    start: int
    end: int
    kind: str = ""


class LegalMoves(NamedTuple):
    """What a scheme allows, for an alphabet of K labels.

    Attributes:
        transitions: bool (K, K), whether label i may be followed by label j.
        start: bool (K,), whether a sentence may start with a label.
        end: bool (K,), whether it may end with one.
    """

    transitions: NDArray[np.bool_]
    start: NDArray[np.bool_]
    end: NDArray[np.bool_]


# --- spans to labels --------------------------------------------------------------------------------------------


def segment_labels(words: Iterable[str]) -> list[str]:
    """The BMES labels of the characters of a sentence that was cut into words.

    Args:
        words: the words in order, none empty.

    Returns:
        One label a character: "s" for a word of one character; else "b", then "m" as often as needed, then "e".

    Raises:
        ValueError: a word is empty or no string.

    Source: Xue 2003.

    Example:
        >>> segment_labels(["a", "new", "book"])
        ['s', 'b', 'm', 'e', 'b', 'm', 'm', 'e']
    """
    labels = []
    for word in words:
        if not isinstance(word, str) or not word:
            raise ValueError(f"words must be strings of at least one character, got {word!r}")
        labels += ["s"] if len(word) == 1 else ["b", *"m" * (len(word) - 2), "e"]
    return labels


def bio_labels(spans: Iterable[Span], length: int) -> list[str]:
    """The BIO labels of a sentence with the given spans.

    BIO gives a character one label. It can therefore spell neither overlapping nor nested spans, nor one span with
    two kinds, and this function refuses them rather than lose one.

    Args:
        spans: spans in any order, or tuples (start, end, kind). A kind may be empty: "B", "I".
        length: number of characters of the sentence.

    Returns:
        ``length`` labels: "B-kind" where a span starts, "I-kind" inside it, "O" elsewhere.

    Raises:
        ValueError: two spans share a character, or a span is empty or leaves the sentence.

    Source: Ramshaw and Marcus 1995, in the form in which every span starts with B (IOB2).

    Example:
        >>> bio_labels([Span(0, 2, "PER"), Span(3, 4, "LOC")], 5)
        ['B-PER', 'I-PER', 'O', 'B-LOC', 'O']
    """
    spans = sorted(Span(*span) for span in spans)
    for span in spans:
        if not 0 <= span.start < span.end <= length:
            raise ValueError(f"spans must have 0 <= start < end <= length = {length}, got {tuple(span)}")
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise ValueError(
                f"spans must not share a character, got {tuple(one)} and {tuple(other)}: "
                "BIO gives a character one label and cannot express both"
            )
    labels = ["O"] * length
    for start, end, kind in spans:
        labels[start:end] = [_label("B", kind)] + [_label("I", kind)] * (end - start - 1)
    return labels


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """A largest set of the spans of which no two share a character: the most that BIO labels can keep.

    Take the span that ends first, drop all that overlap it, and so on. Of spans with one end the shortest is
    taken, and of equal ones the first kind in the alphabet.

    Args:
        spans: Spans, not empty, in any order.

    Returns:
        The kept spans, from left to right.

    Source: interval scheduling, as in Kleinberg and Tardos 2005, section 4.1.

    Example:
        >>> spans = [Span(0, 5, "Attack/Place"), Span(0, 2, "Attack/Attacker"), Span(3, 5, "Attack/Target")]
        >>> [span.kind for span in disjoint(spans)]
        ['Attack/Attacker', 'Attack/Target']
    """
    kept: list[Span] = []
    for span in sorted((Span(*span) for span in spans), key=lambda span: (span.end, -span.start, span.kind)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def bio_alphabet(kinds: Iterable[str]) -> tuple[str, ...]:
    """The labels of BIO for spans of the given kinds.

    Args:
        kinds: the kinds, in the order wanted.

    Returns:
        ``2 · kinds + 1`` labels: O first, then B and I of each kind.

    Raises:
        ValueError: a kind is given twice.

    Example:
        >>> bio_alphabet(["PER", "LOC"])
        ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
    """
    kinds = list(kinds)
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds must be distinct, got {kinds}")
    return ("O", *(_label(position, kind) for kind in kinds for position in "BI"))


# --- labels to spans --------------------------------------------------------------------------------------------


def spans_of(labels: Iterable[str]) -> list[Span]:
    """The spans that a sequence of labels spells, in any scheme, legal or not.

    The sequence is cut between two labels unless the second continues the first (see the top of this module). In a
    sentence of s, b, m, e that makes every character part of exactly one word. In BIO an I-x after O, after another
    kind or at the start begins a span, as a B-x would.

    Args:
        labels: labels of one sentence: "O"; or B, I, M, E or S, in either case, alone or with a kind, as "B-PER".

    Returns:
        The spans from left to right, disjoint.

    Raises:
        ValueError: a label is not of this form.

    Source: the default mode of seqeval, which follows conlleval.pl.

    Example:
        >>> [tuple(span) for span in spans_of(["B-PER", "I-PER", "O", "I-LOC"])]
        [(0, 2, 'PER'), (3, 4, 'LOC')]
        >>> [tuple(span) for span in spans_of("bess")]
        [(0, 2, ''), (2, 3, ''), (3, 4, '')]
        >>> [tuple(span) for span in spans_of("bbm")]  # illegal, and read all the same
        [(0, 1, ''), (1, 3, '')]
    """
    marks = [_mark(label) for label in labels]
    cuts = [t for t in range(len(marks)) if t == 0 or not _continues(marks[t - 1], marks[t])]
    pieces = pairwise([*cuts, len(marks)])
    return [Span(start, end, marks[start].kind) for start, end in pieces if marks[start] != _OUTSIDE]


def spans_of_words(words: Iterable[tuple[str, str]], kinds: Mapping[str, str]) -> list[Span]:
    """The spans of those words of a tagged sentence whose tag stands for a kind.

    Args:
        words: words and their tags in order, as :func:`lib.workbench.corpora.peoples_daily` gives them.
        kinds: the kind of span that a tag stands for; words of other tags are left out.

    Returns:
        The spans in characters, from left to right, disjoint.

    Example:
        >>> [tuple(span) for span in spans_of_words([("Li", "nr"), ("sees", "v"), ("Rome", "ns")], {"ns": "LOC"})]
        [(6, 10, 'LOC')]
    """
    spans, end = [], 0
    for word, tag in words:
        start, end = end, end + len(word)
        if tag in kinds:
            spans.append(Span(start, end, kinds[tag]))
    return spans


def spans_of_tags(tags: ArrayLike, alphabet: Sequence[str]) -> list[list[Span]]:
    """The spans of a batch of integer tags: :func:`spans_of` for each sentence, without a loop over characters.

    Args:
        tags: integers (batch, time): places in ``alphabet``, or −1 for padding, which reads as O.
        alphabet: the K labels.

    Returns:
        For each sentence its spans from left to right.

    Raises:
        ValueError: ``tags`` is not of this shape, kind or range, or ``alphabet`` is not one.

    Example:
        >>> spans_of_tags([[1, 3, 0], [0, -1, -1]], SEGMENT_ALPHABET)[1]
        [Span(start=0, end=1, kind='')]
    """
    marks = _marks(alphabet)
    tags = _tags("tags", tags, len(marks))
    found: list[list[Span]] = [[] for _ in tags]
    rows, starts, ends = _runs(tags, marks)
    first = tags[rows, starts]
    for row, start, end, tag in zip(*(x.tolist() for x in (rows, starts, ends, first)), strict=True):
        found[row].append(Span(start, end, marks[tag].kind))
    return found


# --- legal moves ------------------------------------------------------------------------------------------------


def legal_moves(alphabet: Sequence[str]) -> LegalMoves:
    """Which label may follow which, start a sentence and end it.

    In an alphabet with E or S labels, B and M (or I) must be continued. Without them it is BIO, where a span may
    end after any of its labels. In either, I, M and E must continue something.

    Args:
        alphabet: the K labels, such as ``SEGMENT_ALPHABET`` or those of :func:`bio_alphabet`.

    Returns:
        The legal moves, as arrays of bool. Exactly the moves that occur in the labels of some sentence.

    Raises:
        ValueError: a label is malformed or given twice, or could occur in no sentence since its partner is missing.

    Example:
        >>> legal_moves(SEGMENT_ALPHABET).transitions.astype(int)
        array([[1, 1, 0, 0],
               [0, 0, 1, 1],
               [0, 0, 1, 1],
               [1, 1, 0, 0]])
        >>> legal_moves(["O", "B-PER", "I-PER"]).start.tolist()
        [True, True, False]
    """
    marks = _marks(alphabet)
    ends_are_marked = any(mark.position in "ES" for mark in marks)
    begun = {mark.kind for mark in marks if mark.position == "B"}
    ended = {mark.kind for mark in marks if mark.position == "E"}
    for label, (position, kind) in zip(alphabet, marks, strict=True):
        if position in "IE" and kind not in begun:
            raise ValueError(f"alphabet must have the label that begins what {label!r} continues, got {alphabet}")
        if position == "B" and ends_are_marked and kind not in ended:
            raise ValueError(f"alphabet must have the label that ends what {label!r} begins, got {alphabet}")
    needs_next = np.array([mark.position in "BI" and ends_are_marked for mark in marks])
    needs_previous = np.array([mark.position in "IE" for mark in marks])
    transitions = _continuations(marks)[:-1, :-1] | ~(needs_next[:, None] | needs_previous)
    return LegalMoves(transitions, ~needs_previous, ~needs_next)


def illegal_moves(tags: ArrayLike, alphabet: Sequence[str], boundaries: bool = True) -> int:
    """How many moves of a batch of tags the scheme forbids.

    Args:
        tags: integers (batch, time): places in ``alphabet``, or −1 for padding.
        alphabet: the K labels.
        boundaries: whether the first label of a sentence and its last are moves too. Without, only pairs count.

    Returns:
        The number of illegal moves. A sentence of n labels has n − 1 pairs and two boundaries.

    Raises:
        ValueError: as :func:`spans_of_tags` and :func:`legal_moves`.

    Example:
        >>> illegal_moves([[1, 1, 3], [0, 2, -1]], SEGMENT_ALPHABET)  # b→b, s→m, m at the end
        3
        >>> illegal_moves([[1, 1, 3], [0, 2, -1]], SEGMENT_ALPHABET, boundaries=False)
        2
    """
    transitions, start, end = legal_moves(alphabet)
    tags = _tags("tags", tags, len(start))
    # Index −1 is the last row and column: from and to the outside of the sentence.
    legal = np.pad(transitions, (0, 1), constant_values=True)
    if boundaries:
        legal[-1, :-1], legal[:-1, -1] = start, end
    framed = np.pad(tags, ((0, 0), (1, 1)), constant_values=-1)
    return int(np.sum(~legal[framed[:, :-1], framed[:, 1:]]))


# --- scores -----------------------------------------------------------------------------------------------------


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
        ValueError: ``gold`` and ``predicted`` differ in their number of sentences, or ``kinds`` is a string.

    Source: Tjong Kim Sang and De Meulder 2003.

    Example:
        >>> gold = [[Span(0, 2, "PER"), Span(3, 4, "LOC")], []]
        >>> predicted = [[Span(0, 2, "PER"), Span(3, 5, "LOC")], [Span(0, 1, "LOC")]]
        >>> score(gold, predicted)
        Score(correct=1, predicted=3, gold=2)
        >>> score(gold, predicted, kinds=["PER"]).f1
        1.0
    """
    if len(gold) != len(predicted):
        raise ValueError(
            f"predicted must have the sentences of gold, got {len(predicted)} and {len(gold)} sentences"
        )
    kinds = _kinds(kinds)
    total = Score()
    for sentence in zip(gold, predicted, strict=True):
        true, found = ({Span(*span) for span in spans} for spans in sentence)
        if kinds is not None:
            true, found = ({span for span in spans if span.kind in kinds} for spans in (true, found))
        total += Score(len(true & found), len(found), len(true))
    return total


def score_tags(
    gold: ArrayLike, predicted: ArrayLike, alphabet: Sequence[str], kinds: Collection[str] | None = None
) -> Score:
    """:func:`score` of two batches of tags, read as by :func:`spans_of`. It takes milliseconds, so score often.

    Args:
        gold: integers (batch, time): places in ``alphabet``, or −1 for padding.
        predicted: the same of a tagger. Its tags where ``gold`` is −1 are not looked at.
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
        >>> score_tags(gold, predicted, SEGMENT_ALPHABET)
        Score(correct=2, predicted=2, gold=2)
    """
    marks = _marks(alphabet)
    kinds = _kinds(kinds)
    names = sorted({mark.kind for mark in marks if mark != _OUTSIDE})
    if kinds is not None and not kinds <= set(names):
        raise ValueError(f"kinds must be among those of the alphabet, {names}, got {sorted(kinds)}")
    gold = _tags("gold", gold, len(marks))
    predicted = np.asarray(predicted)
    if predicted.shape != gold.shape:
        raise ValueError(f"predicted must have the shape of gold, {gold.shape}, got {predicted.shape}")
    predicted = _tags("predicted", np.where(gold < 0, gold, predicted), len(marks))

    kind = np.array([names.index(mark.kind) if mark != _OUTSIDE else -1 for mark in marks])
    counted = np.array([kinds is None or name in kinds for name in names], bool)
    found = []
    for tags in (gold, predicted):
        rows, starts, ends = _runs(tags, marks)
        code = kind[tags[rows, starts]]
        code, rows, starts, ends = (x[counted[code]] for x in (code, rows, starts, ends))
        sizes = (*tags.shape, tags.shape[1] + 1, len(names))
        found.append(np.ravel_multi_index((rows, starts, ends, code), sizes))
    correct = np.intersect1d(*found, assume_unique=True)
    return Score(len(correct), len(found[1]), len(found[0]))


# --- what a label says ------------------------------------------------------------------------------------------


class _Mark(NamedTuple):
    position: str  # B first, I inside, E last, S single, O none
    kind: str


_OUTSIDE = _Mark("O", "")
_LABEL = re.compile("[oO]|([bimesBIMES])(?:-(.+))?", re.DOTALL)


@lru_cache
def _mark(label: str) -> _Mark:
    match = _LABEL.fullmatch(label) if isinstance(label, str) else None
    if match is None:
        raise ValueError(f"a label must be 'O', or B, I, M, E or S alone or as in 'B-PER', got {label!r}")
    position, kind = match.groups()
    return _Mark(position.upper().replace("M", "I"), kind or "") if position else _OUTSIDE


def _label(position: str, kind: str) -> str:
    return f"{position}-{kind}" if kind else position


def _continues(previous: _Mark, mark: _Mark) -> bool:
    return mark.position in "IE" and previous.position in "BI" and mark.kind == previous.kind


def _continuations(marks: list[_Mark]) -> NDArray[np.bool_]:
    """[i, j]: whether label j continues label i. The last row and column, which −1 finds, are for padding."""
    marks = [*marks, _OUTSIDE]
    return np.array([[_continues(previous, mark) for mark in marks] for previous in marks])


def _runs(tags: NDArray[np.integer], marks: list[_Mark]) -> tuple[NDArray[np.intp], ...]:
    """Row, start and end of every span, by row and start."""
    continued = _continuations(marks)
    inside = np.array([mark != _OUTSIDE for mark in [*marks, _OUTSIDE]])[tags]
    framed = np.pad(tags, ((0, 0), (1, 1)), constant_values=-1)
    joined = continued[framed[:, :-1], framed[:, 1:]]  # joined[:, t]: whether character t continues t − 1
    rows, starts = np.nonzero(inside & ~joined[:, :-1])
    _, lasts = np.nonzero(inside & ~joined[:, 1:])  # as many, since what starts ends before the next starts
    return rows, starts, lasts + 1


# --- checks -----------------------------------------------------------------------------------------------------


def _marks(alphabet: Sequence[str]) -> list[_Mark]:
    marks = [_mark(label) for label in alphabet]
    if not marks or len(set(marks)) < len(marks):
        raise ValueError(f"alphabet must be distinct labels, at least one, got {alphabet!r}")
    return marks


def _tags(name: str, tags: ArrayLike, count: int) -> NDArray[np.integer]:
    tags = np.asarray(tags)
    if tags.ndim != 2 or not np.issubdtype(tags.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape (batch, time), got {tags.dtype} of shape {tags.shape}")
    if tags.size and not -1 <= tags.min() <= tags.max() < count:
        raise ValueError(f"{name} must lie between -1 and {count - 1}, got {tags.min()} to {tags.max()}")
    return tags


def _kinds(kinds: Collection[str] | None) -> set[str] | None:
    if isinstance(kinds, str):
        raise ValueError(f"kinds must be a collection of kinds, got the string {kinds!r}")
    return None if kinds is None else set(kinds)
