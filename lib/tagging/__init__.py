"""Sequence labelling: what the heads Softmax, CRF and MEMM share, and the spans that labels spell.

::

    heads      Head: scores of moves, a likelihood, a decoder, posteriors
    softmax    the head without transitions
    losses     the loss of a head as Keras knows losses
    decoding   Decode, the layer from emissions to tags
    metrics    TokenAccuracy and SpanF1, which see tags at valid steps
    tagger     Tagger joins an encoder and a head
    schemes    the labels of IO, BIO, BIOES, BILUO and BMES
    _marks     what a label says, and where tags begin and end a span
    moves      which label may follow which
    spans      labels ↔ spans
    scores     precision, recall and F1 over spans

Needs NumPy and Keras.
"""

from ..chain import UNKNOWN
from .decoding import Decode
from .heads import Head
from .losses import HeadLoss
from .metrics import SpanF1, TagMetric, TokenAccuracy
from .moves import LegalMoves, illegal_moves, legal_moves
from .schemes import PADDING, SEGMENT_ALPHABET, alphabet_of
from .scores import Score, score, score_tags
from .softmax import Softmax
from .spans import Span, disjoint, labels_of, segment_labels, spans_of, spans_of_tags, spans_of_words
from .tagger import Tagger

__all__ = [
    "PADDING",
    "SEGMENT_ALPHABET",
    "UNKNOWN",
    "Decode",
    "Head",
    "HeadLoss",
    "LegalMoves",
    "Score",
    "Softmax",
    "Span",
    "SpanF1",
    "TagMetric",
    "Tagger",
    "TokenAccuracy",
    "alphabet_of",
    "disjoint",
    "illegal_moves",
    "labels_of",
    "legal_moves",
    "score",
    "score_tags",
    "segment_labels",
    "spans_of",
    "spans_of_tags",
    "spans_of_words",
]
