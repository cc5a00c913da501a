"""Answers, triples and events out of one encoder, and how the three tasks are scored.

An encoder gives one vector a token. All that is extracted from a text is spans of it, so that three heads do:

====================== =============================================== ======================================
task                   head                                            decoded by
====================== =============================================== ======================================
reading comprehension  a pointer, :class:`SpanPointer`                 :func:`best_span`
relations              two steps of pointers, :class:`Cascade`         its ``extract``
events                 BIO labels of composite kinds "Type/Role"       the CRF of :mod:`lib.crf`
====================== =============================================== ======================================

::

    pointers    one logit a token for "starts here", one for "ends here": losses, decoders, the layer SpanPointer
    cascade     subject first, then its objects for each predicate: the model Cascade
    scores      how good answers, triples and events are

Needs NumPy and Keras.
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
