"""The labels that spell spans: IO, BIO, BIOES, BILUO, and BMES of word segmentation.

A tagger gives each character one label, and what is wanted are spans: words, names. A scheme spells a span by the
label of its first character, of those inside, of the last, and of a span of one character:

=================  =========================  ======================================================
scheme             alphabet                   spans are
=================  =========================  ======================================================
IO                 O, I-PER, I-LOC, …         disjoint, and neighbours are of different kinds
BIO (IOB2)         O, B-PER, I-PER, B-LOC, …  disjoint, and between them is O
BIOES (IOBES)      O, B-, I-, E-, S-PER, …    as BIO; the last label is E, a single one S
BILUO (BILOU)      O, B-, I-, L-, U-PER, …    BIOES in other letters: L for last, U for unit
BMES               O, B-, M-, E-, S-PER, …    BIOES in other letters: M for middle
BMES, of words     s, b, m, e                 a partition: every character belongs to one
=================  =========================  ======================================================

A tag is the place of a label in its alphabet. Two numbers are no tags: −1 pads, and −100, ``lib.chain.UNKNOWN``,
says that a tag is not known, as that of a word piece that continues a word; it teaches and counts nothing.

Sources: Ramshaw and Marcus 1995 (BIO); Xue 2003 (BMES, as position of a character in a word); Ratinov and Roth 2009
(BILOU).
"""

from __future__ import annotations

from collections.abc import Iterable

from .._arguments import items, one_of

__all__ = ["PADDING", "SEGMENT_ALPHABET", "alphabet_of"]

#: The tag of a padded step, in training targets and in predictions.
PADDING = -1

#: The labels of word segmentation, in the order of article 7196: single, begin, middle, end.
SEGMENT_ALPHABET = ("s", "b", "m", "e")

#: The letters of each scheme: first, inside, last, single.
_SCHEMES = {"IO": "IIII", "BIO": "BIIB", "BIOES": "BIES", "BILUO": "BILU", "BMES": "BMES"}


def alphabet_of(kinds: Iterable[str], scheme: str = "BIO") -> tuple[str, ...]:
    """The labels of a scheme for spans of the given kinds.

    Args:
        kinds: The kinds, in the order wanted.
        scheme: "IO", "BIO", "BIOES", "BILUO" or "BMES".

    Returns:
        O first, then the labels of each kind.

    Raises:
        ValueError: A kind is given twice or is no string, or the scheme is unknown.

    Example:
        >>> alphabet_of(["PER", "LOC"])
        ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
        >>> alphabet_of(["PER"], "BILUO")
        ('O', 'B-PER', 'I-PER', 'L-PER', 'U-PER')
    """
    kinds = items("kinds", kinds)
    if not all(isinstance(kind, str) for kind in kinds) or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds must be distinct strings, got {kinds}")
    positions = dict.fromkeys(_SCHEMES[one_of("scheme", scheme, _SCHEMES)])
    return ("O", *(_label(position, kind) for kind in kinds for position in positions))


def _label(position: str, kind: str) -> str:
    """The label "B-PER" of position "B" and kind "PER"; "B" if there is no kind."""
    return f"{position}-{kind}" if kind else position
