"""Sequence labelling: what the heads Softmax, CRF and MEMM share, and the spans that labels spell.

::

    tagger    Head: scores of moves, a likelihood, a decoder; Softmax; Tagger joins an encoder and a head
    spans     labels ↔ spans (BMES, BIO), legal moves between labels, precision, recall and F1

Chapters 4 to 6. Needs NumPy and Keras.
"""

from .spans import (
    SEGMENT_ALPHABET,
    LegalMoves,
    Score,
    Span,
    bio_alphabet,
    bio_labels,
    disjoint,
    illegal_moves,
    legal_moves,
    score,
    score_tags,
    segment_labels,
    spans_of,
    spans_of_tags,
    spans_of_words,
)
from .tagger import PADDING, Head, HeadLoss, Softmax, Tagger

__all__ = [
    "PADDING",
    "SEGMENT_ALPHABET",
    "Head",
    "HeadLoss",
    "LegalMoves",
    "Score",
    "Softmax",
    "Span",
    "Tagger",
    "bio_alphabet",
    "bio_labels",
    "disjoint",
    "illegal_moves",
    "legal_moves",
    "score",
    "score_tags",
    "segment_labels",
    "spans_of",
    "spans_of_tags",
    "spans_of_words",
]
