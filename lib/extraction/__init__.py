"""Answers, triples and events out of one encoder, and how the three tasks are scored.

::

    pointers    one logit a token for "starts here", one for "ends here": losses, decoders, the layer SpanPointer
    cascade     subject first, then its objects for each predicate: the model Cascade
    scores      how good answers, triples and events are

Chapter 6. Needs NumPy and Keras.
"""

from .cascade import Cascade, Triple, sample_subject, targets
from .pointers import (
    SpanPointer,
    best_span,
    pair_pointers,
    pointer_loss,
    power_crossentropy,
    power_sigmoid,
    prior_bias,
    span_loss,
    spans_from_pointers,
)
from .scores import answer_score, event_score, longest_common_subsequence, triple_score

__all__ = [
    "Cascade",
    "SpanPointer",
    "Triple",
    "answer_score",
    "best_span",
    "event_score",
    "longest_common_subsequence",
    "pair_pointers",
    "pointer_loss",
    "power_crossentropy",
    "power_sigmoid",
    "prior_bias",
    "sample_subject",
    "span_loss",
    "spans_from_pointers",
    "targets",
    "triple_score",
]
