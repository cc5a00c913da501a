"""The maximum-entropy Markov model as a layer."""

from typing import Any

import keras
from keras import ops

from .._arguments import one_of, positive_integer
from ..chain import UNKNOWN, Potentials
from ..tagging import PADDING, Head
from ._scores import DIRECTIONS, Transitions
from .decoding import beam, viterbi
from .likelihood import log_likelihood
from .normalizers import potentials

__all__ = ["MEMM"]

Tensor = Any


@keras.saving.register_keras_serializable(package="proof_by_running")
class MEMM(Head):
    """The maximum-entropy Markov model as the last layer of a tagger.

    Transitions, learning rate and legal moves are those of :class:`lib.tagging.Head`. Scores of the first and the
    last tag count as emissions of those steps. The loss is −log-likelihood *per token*: that of each sequence is
    divided by the mean number of known tags in the batch, so that Keras's mean over sequences is the one over all
    tokens. A CRF's loss is per sequence. Adam does not see the difference in scale, plain SGD does.

    Args:
        tag_count: Number of tags, at least 1.
        direction: ``"forward"``, ``"backward"`` or ``"both"``, in the loss and in the decoder.
        rank: None for transitions (tags, tags); else they are left · rightᵀ with factors (tags, rank). ``left``
            begins with random rows of length about 1 and ``right`` with zeros, so that g begins with 0 and has a
            gradient.
        beam_width: None for the exact decoder, :func:`viterbi`, which takes tags² operations a step; else the
            width of the :func:`beam` that decodes.
        **kwargs: Arguments of :class:`lib.tagging.Head`: ``transitions_initializer``, ``boundaries``, ``legal``,
            ``learning_rate_multiplier``, and those of every Keras layer.

    Raises:
        ValueError: ``direction`` is unknown; ``rank`` or ``beam_width`` is not a positive integer; ``rank`` comes
            with ``legal`` or ``transitions_initializer``, which are (tags, tags); otherwise as
            :class:`lib.tagging.Head` and, when used, as :func:`log_likelihood`.

    Example:
        >>> large = MEMM(20_000, rank=64, beam_width=4)
        >>> large.build((None, None, 20_000))
        >>> sum(int(ops.size(weight)) for weight in large.weights)  # 2d|V|, not |V|² = 400 million
        2560000
    """

    def __init__(
        self,
        tag_count: int,
        *,
        direction: str = "forward",
        rank: int | None = None,
        beam_width: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(tag_count, **kwargs)
        self.direction = one_of("direction", direction, DIRECTIONS)
        self.rank = None if rank is None else positive_integer("rank", rank)
        self.beam_width = None if beam_width is None else positive_integer("beam_width", beam_width)
        if rank is not None and self.legal is not None:
            raise ValueError("legal must be None with a rank: it is of shape (tags, tags), and so is no factor")
        if rank is not None and "transitions_initializer" in kwargs:
            raise ValueError("transitions_initializer must be left out with a rank: the product begins with 0")

    def add_transitions(self) -> None:
        """Creates the weights behind :attr:`transitions`, (tags, tags) or two factors (tags, rank)."""
        if self.rank is None:
            super().add_transitions()
        else:
            shape = (self.tag_count, self.rank)
            self._left = self.add_score("left", shape, keras.initializers.RandomNormal(stddev=self.rank**-0.5))
            self._right = self.add_score("right", shape)

    @property
    def transitions(self) -> Transitions:
        """Scores (tags, tags), −∞ where illegal, or with a ``rank`` their factors (left, right)."""
        return super().transitions if self.rank is None else (self.score(self._left), self.score(self._right))

    def potentials(self, emissions: Tensor, mask: Tensor | None = None) -> Potentials:
        """The chain whose normalized distribution is P(y), see :func:`potentials`.

        Raises:
            ValueError: The direction is "both", whose mean of two log-probabilities is no distribution; or there is
                a ``rank``, which avoids the matrix that a chain needs.
        """
        if self.direction == "both":
            raise ValueError(
                'direction must be "forward" or "backward" for marginals, samples, k best sequences and entropy: '
                'the mean of both is no distribution, got "both"'
            )
        if self.rank is not None:
            raise ValueError(
                "rank must be None for marginals, samples, k best sequences and entropy: they take the matrix of "
                f"transitions, got {self.rank}"
            )
        emissions = self._with_boundaries(emissions, mask)
        return potentials(emissions, self.transitions, mask=mask, direction=self.direction)

    def log_likelihood(self, tags: Tensor, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-likelihood (batch,) of the tags in this layer's direction, see :func:`log_likelihood`."""
        emissions = self._with_boundaries(emissions, mask)
        return log_likelihood(tags, emissions, self.transitions, mask=mask, direction=self.direction)

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The tags (batch, time) that the decoder finds and their log-likelihood, shape (batch,)."""
        emissions, given = self._with_boundaries(emissions, mask), {"mask": mask, "direction": self.direction}
        if self.beam_width is None:
            return viterbi(emissions, self.transitions, **given)
        return beam(emissions, self.transitions, self.beam_width, **given)

    def sequence_loss(self, tags: Tensor, emissions: Tensor) -> Tensor:
        """−log-likelihood of every sequence, divided by the mean number of known tags of the batch, shape (batch,).

        Args:
            tags: As in :meth:`lib.tagging.Head.sequence_loss`.
            emissions: As in :meth:`lib.tagging.Head.sequence_loss`.
        """
        loss = super().sequence_loss(tags, emissions)
        known = ops.logical_and(ops.not_equal(tags, PADDING), ops.not_equal(tags, UNKNOWN))
        lengths = ops.sum(ops.cast(known, loss.dtype), axis=1)
        mean = ops.mean(lengths)
        return loss / ops.where(mean > 0, mean, 1.0)

    def _with_boundaries(self, emissions: Tensor, mask: Tensor | None) -> Tensor:
        """The emissions with ``start`` added to the first step and ``end`` to the last valid one."""
        emissions = ops.convert_to_tensor(emissions)
        mask = ops.ones_like(emissions[..., 0], dtype="bool") if mask is None else ops.cast(mask, "bool")
        if self.start is not None:
            first = ops.expand_dims(ops.arange(emissions.shape[1]) == 0, -1)
            emissions = emissions + ops.where(first, self.start, 0.0)
        if self.end is not None:
            last = ops.logical_and(mask, ops.logical_not(ops.pad(mask[:, 1:], ((0, 0), (0, 1)))))
            emissions = emissions + ops.where(last[..., None], self.end, 0.0)
        return emissions

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this head."""
        config = {**super().get_config(), "direction": self.direction, "rank": self.rank}
        if self.rank is not None:
            del config["transitions_initializer"], config["legal"]
        return {**config, "beam_width": self.beam_width}
