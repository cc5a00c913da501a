"""The loss of a head as Keras knows losses: it can be compiled, weighed and saved."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from .._backend import backend
from .._tensors import as_tensor
from .heads import Head, _head_of, _living

__all__ = ["HeadLoss"]

Tensor = Any


@keras.saving.register_keras_serializable(package="proof_by_running")
class HeadLoss(keras.losses.Loss):
    """The mean of a head's loss over the sequences of a batch: ``loss(tags, emissions)``, a scalar.

    A compiled model is saved with its loss. A copy of the head inside the loss would come back as a second head
    with weights of its own, which training would not reach. So the loss is saved as the name of its head. One that
    comes back belongs to the head of that name that returned the emissions it is given; if it cannot be seen which
    that was, since they have been cast, to the newest one there was when the loss came back.

    A sequence has one loss, and so one weight: ``sample_weight`` of single steps is refused. To leave steps out,
    give them the tag −100. Keras makes sample weights of a ``class_weight`` before any loss sees them, by an argmax
    of the tags over time, which is of no use here. :class:`~lib.tagging.Tagger` refuses it; in a functional model
    no loss can tell it from a ``sample_weight``.

    Args:
        head: The head whose :meth:`Head.sequence_loss` this is.

    Raises:
        ValueError: ``head`` is none; when called, as :meth:`Head.sequence_loss`, or ``sample_weight`` is not
            (batch,). A model that TensorFlow compiles by XLA and that has been given weights of several ranks
            cannot raise it: there the loss is NaN.

    Example:
        >>> from lib.tagging import Softmax
        >>> loss = Softmax(2, name="two_tags").loss
        >>> loss.get_config()
        {'head': 'two_tags'}
        >>> tags, emissions = [[0, 1], [1, -1]], [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
        >>> round(float(loss(tags, emissions)), 4)  # (2 log 2 + log 2) / 2
        1.0397
    """

    def __init__(self, head: Head):
        # Keras casts tags and emissions to the type of the loss, and half precision would round both.
        super().__init__(name="head_loss", dtype=keras.backend.result_type("float32", keras.config.floatx()))
        if not isinstance(head, Head):
            raise ValueError(f"head must be a Head, such as CRF, got {head!r}")
        self.head, self._was_loaded = head, False

    def __dir__(self) -> list[str]:
        """The attributes without the head: Keras loads weights into all that it finds here, round and round."""
        return [name for name in super().__dir__() if name != "head"]

    def __call__(self, tags: Tensor, emissions: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The mean loss of tags (batch, time), given what the head returns; weights (batch,) multiply it."""
        tags, emissions = as_tensor("tags", tags, kinds="iuf"), as_tensor("emissions", emissions)
        if sample_weight is not None:
            sample_weight = _one_a_sequence(sample_weight, tags)
        return super().__call__(tags, emissions, sample_weight)

    def call(self, tags: Tensor, emissions: Tensor) -> Tensor:
        """The loss of every sequence, shape (batch,)."""
        if self._was_loaded:
            head = _head_of(emissions)
            self.head = head if head is not None and head.name == self.head.name else self.head
        return self.head.sequence_loss(tags, emissions)

    def get_config(self) -> dict[str, Any]:
        """Returns the name of the head."""
        return {"head": self.head.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HeadLoss:
        """The loss of the head of that name; raises ValueError if there is none."""
        heads = [head for head in _living() if head.name == config["head"]]
        if not heads:
            raise ValueError(f"head must be the name of a head that exists, got {config['head']!r}")
        loss = cls(heads[-1])
        loss._was_loaded = True
        return loss


def _one_a_sequence(sample_weight: Any, tags: Tensor) -> Tensor:
    """The weights (batch,) of the sequences of tags (batch, time); raises ValueError if they are others."""
    weight = as_tensor("sample_weight", sample_weight)
    rule = "sample_weight must have shape (batch,), one a sequence"
    if getattr(weight.shape, "rank", 0) is None:  # a graph of TensorFlow that has been given several ranks
        fits = ops.size(weight) == ops.shape(tags)[0]
        with backend().control_dependencies([backend().debugging.Assert(fits, [rule])]):
            weight = ops.reshape(weight, (-1,))[: ops.shape(tags)[0]]  # fails for no reason of its own
            return ops.where(fits, weight, math.nan)  # XLA has no assertion
    shape, batch = tuple(weight.shape), tags.shape[0]
    fits = len(shape) > 0 and None not in shape[1:] and math.prod(shape[1:]) == 1
    if not fits or (None not in (shape[0], batch) and shape[0] != batch):
        raise ValueError(f"{rule}, got shape {shape}")
    return ops.reshape(weight, (-1,))
