"""The head without transitions: every step by itself, with hard rules in the decoder if wanted."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np  # noqa: F401 (for the examples)
from keras import ops
from numpy.typing import ArrayLike

from .. import chain
from .._arguments import positive_integer
from .._tensors import as_tensor, or_nan
from .heads import Head, _forbid
from .moves import LegalMoves
from .schemes import PADDING

__all__ = ["Softmax"]

Tensor = Any

#: The arguments of a head that are about scores to learn.
_LEARNED = ("transitions_initializer", "boundaries", "learning_rate_multiplier")


@keras.saving.register_keras_serializable(package="proof_by_running")
class Softmax(Head):
    """The head without transitions: P(y) = Π_t softmax(emissions_t)[y_t], every step by itself.

    Training knows no moves, and P(y) is the same with ``legal`` moves as without: so are the loss, the marginals,
    the entropy and samples. With them the decoder finds the most probable sequence among the legal ones: hard rules
    in Viterbi, the competitor that a CRF must beat. Without them it takes the best tag of every step. The score
    that :meth:`Head.decode` and :meth:`Head.k_best` give is log P(y).

    Args:
        tag_count: Number of tags, at least 1.
        legal: As in :class:`Head`, in :meth:`Head.decode` and :meth:`Head.k_best` only.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: As :class:`Head`.

    Example:
        >>> emissions = np.log([[[0.6, 0.4], [0.1, 0.9]]])
        >>> for head in (Softmax(2), Softmax(2, legal=np.eye(2))):
        ...     tags, score = head.decode(emissions)
        ...     ops.convert_to_numpy(tags).tolist(), round(float(np.exp(score[0])), 4)
        ([[0, 1]], 0.54)
        ([[1, 1]], 0.36)
    """

    def __init__(self, tag_count: int, *, legal: LegalMoves | ArrayLike | None = None, **kwargs: Any):
        learned = [name for name in _LEARNED if name in kwargs]
        if learned:
            raise ValueError(f"{learned[0]} must be left out: Softmax has no scores to learn")
        super().__init__(tag_count, legal=legal, **kwargs)

    def add_transitions(self) -> None:
        """Creates nothing: there are no scores to learn."""

    @property
    def transitions(self) -> Tensor:
        """Scores (tags, tags): 0 for a legal move, −∞ for another. Only the decoder sees them."""
        return _forbid(ops.zeros((self.tag_count, self.tag_count)), self.legal and self.legal.transitions)

    def log_likelihood(self, tags: Tensor, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Σ_t log softmax(emissions_t)[tags_t] over the valid steps whose tag is known, shape (batch,)."""
        tags = as_tensor("tags", tags)
        known = ops.not_equal(tags, chain.UNKNOWN)
        return chain.sequence_score(
            tags=ops.where(known, tags, 0),
            emissions=ops.where(ops.expand_dims(known, -1), ops.log_softmax(emissions), 0.0),
            transitions=ops.zeros((self.tag_count, self.tag_count)),
            mask=mask,
        )

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The most probable legal tags (batch, time) and their log-probability (batch,)."""
        p = self.potentials(emissions, mask)
        if self.legal is not None:
            rules = {"transitions": self.transitions, "start": self.start, "end": self.end}
            return chain.viterbi(p.emissions, mask=p.mask, **rules)
        score = or_nan(ops.sum(ops.where(p.mask, ops.max(p.emissions, axis=-1), 0.0), axis=1), p.valid)
        possible = ops.expand_dims(score > -math.inf, -1)  # which NaN is not
        # Not of the log-probabilities, in which emissions that differ by less than 10⁻⁷ are equal.
        return ops.where(possible, ops.cast(ops.argmax(emissions, axis=-1), "int32"), PADDING), score

    def potentials(self, emissions: Tensor, mask: Tensor | None = None) -> chain.Potentials:
        """The chain of log-probabilities at every step, without transitions: log Z = 0."""
        free = ops.zeros((self.tag_count, self.tag_count))
        return chain.checked(ops.log_softmax(emissions), free, mask=mask)

    def k_best(self, emissions: Tensor, k: int, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k most probable legal tag sequences, as :meth:`Head.k_best`."""
        p = self.potentials(*self.unpack(emissions, mask))
        rules = {"transitions": self.transitions, "start": self.start, "end": self.end}
        return chain.k_best(p.emissions, k=positive_integer("k", k), mask=p.mask, **rules)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this head."""
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in _LEARNED}
