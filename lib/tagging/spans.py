"""Spans and the labels that spell them.

A label *continues* the label before it if it is an inside or last one (I, M, E, L), the other a first or inside one
(B, I, M), and both are of the same kind. Reading: cut a sentence between two labels unless the second continues the
first. Each piece that is not O is a span. So an illegal sequence can be read too, no character of a label other
than O is lost, and the spans are those of seqeval in its default mode and of conlleval.pl: b b is two words, and
I-LOC after O begins a span. seqeval's strict mode reads the same from legal labels, and of illegal ones drops every
span that its scheme could not have spelled. A decoder that knows the legal moves gives no labels but legal ones.

::

    segment_labels, labels_of               spans → labels (one sentence)
    disjoint                                spans → the most of them that one label a character can spell
    spans_of, spans_of_words, spans_of_tags labels, tagged words, integer tags → spans

Tags are integers (batch, time), −1 where a sentence has ended. A step of tag −100, which is not known, is left out
as if it were not there. All of this is NumPy.

Source: Nakayama 2018, seqeval; Tjong Kim Sang and De Meulder 2003.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._arguments import items, non_negative_integer, one_of
from ..chain import UNKNOWN
from ._marks import OUTSIDE, checked_tags, continues, known_first, mark_of, marks_of, runs
from .schemes import _SCHEMES, PADDING, _label

__all__ = ["Span", "disjoint", "labels_of", "segment_labels", "spans_of", "spans_of_tags", "spans_of_words"]


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


def _checked_span(span: tuple[int, int, str], name: str = "spans") -> Span:
    """The span, if it is one: integers 0 <= start < end and a kind; raises ValueError if not."""
    try:
        start, end, kind = Span(*span)
        if isinstance(start, bool) or isinstance(end, bool):
            raise TypeError
        start, end = operator.index(start), operator.index(end)
    except TypeError:
        raise ValueError(f"{name} must be (start, end, kind) with integers start and end, got {span!r}") from None
    if not 0 <= start < end:
        raise ValueError(f"{name} must have 0 <= start < end, got {tuple(span)}")
    if not isinstance(kind, str):
        raise ValueError(f"{name} must have a kind that is a string, got {tuple(span)}")
    return Span(start, end, kind)


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
    for word in items("words", words):
        if not isinstance(word, str) or not word:
            raise ValueError(f"words must be strings of at least one character, got {word!r}")
        labels += ["s"] if len(word) == 1 else ["b", *"m" * (len(word) - 2), "e"]
    return labels


def labels_of(spans: Iterable[Span], length: int, scheme: str = "BIO") -> list[str]:
    """The labels of a sentence with the given spans.

    A scheme gives a character one label. It can therefore spell neither overlapping nor nested spans, nor one span
    with two kinds, and this function refuses them rather than lose one. IO can spell no neighbours of one kind.

    Args:
        spans: Spans in any order, or tuples (start, end, kind). A kind may be empty: "B", "I".
        length: Number of characters of the sentence.
        scheme: "IO", "BIO", "BIOES", "BILUO" or "BMES", see :mod:`lib.tagging.schemes`.

    Returns:
        ``length`` labels: in BIO "B-kind" where a span starts, "I-kind" inside it, "O" elsewhere.

    Raises:
        ValueError: Two spans share a character; a span is empty, leaves the sentence or is of something else than
            integers; the scheme is unknown or is IO and two spans of one kind touch.

    Source: Ramshaw and Marcus 1995, in the form in which every span starts with B (IOB2); Ratinov and Roth 2009.

    Example:
        >>> labels_of([Span(0, 2, "PER"), Span(3, 4, "LOC")], 5)
        ['B-PER', 'I-PER', 'O', 'B-LOC', 'O']
        >>> labels_of([Span(0, 2, "PER"), Span(3, 4, "LOC")], 5, "BILUO")
        ['B-PER', 'L-PER', 'O', 'U-LOC', 'O']
    """
    first, inside, last, single = _SCHEMES[one_of("scheme", scheme, _SCHEMES)]
    length = non_negative_integer("length", length)
    spans = sorted(map(_checked_span, items("spans", spans)))
    for span in spans:
        if span.end > length:
            raise ValueError(f"spans must have 0 <= start < end <= length = {length}, got {tuple(span)}")
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise ValueError(
                f"spans must not share a character, got {tuple(one)} and {tuple(other)}: "
                f"{scheme} gives a character one label and cannot express both"
            )
        if scheme == "IO" and other.start == one.end and other.kind == one.kind:
            raise ValueError(f"spans of one kind must not touch in IO, got {tuple(one)} and {tuple(other)}")
    labels = ["O"] * length
    for start, end, kind in spans:
        positions = single if end - start == 1 else first + inside * (end - start - 2) + last
        labels[start:end] = [_label(position, kind) for position in positions]
    return labels


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """A largest set of the spans of which no two share a character: the most that labels can keep.

    Take the span that ends first, drop all that overlap it, and so on. Of spans with one end the shortest is
    taken, and of equal ones the first kind in the alphabet.

    Args:
        spans: Spans, or tuples (start, end, kind), in any order.

    Returns:
        The kept spans, from left to right.

    Raises:
        ValueError: A span is empty or is of something else than integers.

    Source: interval scheduling, as in Kleinberg and Tardos 2005, section 4.1.

    Example:
        >>> spans = [Span(0, 5, "Attack/Place"), Span(0, 2, "Attack/Attacker"), Span(3, 5, "Attack/Target")]
        >>> [span.kind for span in disjoint(spans)]
        ['Attack/Attacker', 'Attack/Target']
    """
    kept: list[Span] = []
    for span in sorted(
        map(_checked_span, items("spans", spans)), key=lambda span: (span.end, -span.start, span.kind)
    ):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


# --- labels to spans --------------------------------------------------------------------------------------------


def spans_of(labels: Iterable[str]) -> list[Span]:
    """The spans that a sequence of labels spells, in any scheme, legal or not.

    The sequence is cut between two labels unless the second continues the first (see the top of this module). In a
    sentence of s, b, m, e that makes every character part of exactly one word. In BIO an I-x after O, after another
    kind or at the start begins a span, as a B-x would.

    Args:
        labels: labels of one sentence: "O"; or B, I, M, E, L, S or U, in either case, alone or with a kind,
            as "B-PER".

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
    marks = [mark_of("labels", label) for label in items("labels", labels, text=True)]
    cuts = [t for t in range(len(marks)) if t == 0 or not continues(marks[t - 1], marks[t])]
    pieces = pairwise([*cuts, len(marks)])
    return [Span(start, end, marks[start].kind) for start, end in pieces if marks[start] != OUTSIDE]


def spans_of_words(words: Iterable[tuple[str, str]], kinds: Mapping[str, str]) -> list[Span]:
    """The spans of those words of a tagged sentence whose tag stands for a kind.

    Args:
        words: words and their tags in order, as a corpus of segmented sentences gives them.
        kinds: the kind of span that a tag stands for; words of other tags are left out.

    Returns:
        The spans in characters, from left to right, disjoint. A word without a character is no span.

    Raises:
        ValueError: A word or its tag is no string, or ``kinds`` is no mapping of tags to strings.

    Example:
        >>> [tuple(span) for span in spans_of_words([("Li", "nr"), ("sees", "v"), ("Rome", "ns")], {"ns": "LOC"})]
        [(6, 10, 'LOC')]
    """
    if not isinstance(kinds, Mapping) or not all(isinstance(kind, str) for kind in kinds.values()):
        raise ValueError(f"kinds must be a mapping of tags to kinds, got {kinds!r}")
    spans, end = [], 0
    for pair in items("words", words):
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ValueError(f"words must be pairs of a word and its tag, got {pair!r}")
        word, tag = pair
        start, end = end, end + len(word)
        if tag in kinds and word:
            spans.append(Span(start, end, kinds[tag]))
    return spans


def spans_of_tags(tags: ArrayLike, alphabet: Sequence[str]) -> list[list[Span]]:
    """The spans of a batch of integer tags: :func:`spans_of` for each sentence, without a loop over characters.

    Args:
        tags: Integers (batch, time): places in ``alphabet``, −1 for padding, which reads as O, or −100 for a step
            that is left out: what continues the step before it continues its span.
        alphabet: the K labels.

    Returns:
        For each sentence its spans from left to right.

    Raises:
        ValueError: ``tags`` is not of this shape, kind or range, or ``alphabet`` is not one.

    Example:
        >>> [tuple(span) for span in spans_of_tags([[1, -100, 2], [0, 1, -1]], ["O", "B-PER", "I-PER"])[0]]
        [(0, 3, 'PER')]
    """
    marks = marks_of(alphabet)
    tags = checked_tags("tags", tags, len(marks))
    step = known_first(tags)
    tags = np.take_along_axis(np.where(tags == UNKNOWN, PADDING, tags), step, axis=1)
    rows, starts, ends = runs(tags, marks)
    found: list[list[Span]] = [[] for _ in tags]
    columns = rows, step[rows, starts], step[rows, ends - 1] + 1, tags[rows, starts]
    for row, start, end, tag in zip(*(x.tolist() for x in columns), strict=True):
        found[row].append(Span(start, end, marks[tag].kind))
    return found
