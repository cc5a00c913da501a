"""The linear-chain conditional random field: one softmax over all tag sequences.

A CRF scores a whole sequence y of tags and divides by the sum over all Kᵀ of them:

    log P(y) = s(y) − log Z,    s(y) = Σ_t emissions[t, y_t] + Σ_t transitions[y_t, y_{t+1}],    Z = Σ_y exp s(y),

with start[y_1] and end[y_T] added to s if there are such scores. ``lib.chain`` computes s, log Z, log P, the
marginals and the best sequence; here is what the model adds, its layer.

The gradient of the likelihood is what is there minus what is expected:

    ∂ log P(y) / ∂ transitions[i, j] = Σ_t (1[y_t = i, y_{t+1} = j] − P(y_t = i, y_{t+1} = j)).

Two things follow, and with them the case for a learning rate of its own. Where the emissions settle the tags by
themselves, both counts agree and the transitions learn nothing more. And a gradient of whatever size moves a
weight by about the learning rate a step under Adam: after n steps no score is further than about nη from where it
began.

Source: Lafferty, McCallum and Pereira 2001, "Conditional random fields"; Su Jianlin,
https://kexue.fm/archives/7196.
"""

from typing import Any

import keras
from keras import ops  # noqa: F401 (for the examples)

from .chain import (
    UNKNOWN,
    Potentials,
    checked,
    entropy,
    k_best,
    log_likelihood,
    log_partition,
    marginals,
    sample,
    sequence_score,
    viterbi,
)
from .tagging import Head

__all__ = [
    "CRF",
    "UNKNOWN",
    "entropy",
    "k_best",
    "log_likelihood",
    "log_partition",
    "marginals",
    "sample",
    "sequence_score",
    "viterbi",
]

Tensor = Any


@keras.saving.register_keras_serializable(package="proof_by_running")
class CRF(Head):
    """The conditional random field as the last layer of a tagger.

    Arguments, learning rate and the loss are those of :class:`lib.tagging.Head`; the likelihood is exact, over all
    sequences of legal moves. Its ``decode`` gives the best sequence and its score s(y). With zero transitions the
    layer is :class:`lib.tagging.Softmax`, exactly: the same likelihood, the same tags.

    Args:
        tag_count: Number of tags, at least 1.
        **kwargs: Arguments of :class:`lib.tagging.Head`: ``transitions_initializer``, ``boundaries``, ``legal``,
            ``learning_rate_multiplier``, and those of every Keras layer.

    Raises:
        ValueError: As :class:`lib.tagging.Head` and, when used, as :func:`log_likelihood`.

    Source: Lafferty, McCallum and Pereira 2001.

    Example:
        >>> ids = keras.Input((None,), dtype="int32")
        >>> emissions = keras.layers.Dense(4)(keras.layers.Embedding(100, 8, mask_zero=True)(ids))
        >>> crf = CRF(4, learning_rate_multiplier=100)
        >>> model = keras.Model(ids, crf(emissions))
        >>> model.compile("adam", loss=crf.loss)
        >>> tags, score = crf.decode(model(ops.convert_to_tensor([[7, 8, 9], [7, 0, 0]])))
        >>> ops.convert_to_numpy(tags)[1, 1:].tolist()
        [-1, -1]
    """

    def potentials(self, emissions: Tensor, mask: Tensor | None = None) -> Potentials:
        """The chain whose normalized distribution is P(y): these emissions and the scores of the layer."""
        return checked(emissions, self.transitions, mask=mask, start=self.start, end=self.end)

    def log_likelihood(self, tags: Tensor, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-probability (batch,) of the tags, see :func:`log_likelihood`."""
        return log_likelihood(tags, emissions, self.transitions, mask=mask, start=self.start, end=self.end)

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best legal tags (batch, time) and their score s(y), shape (batch,)."""
        return viterbi(emissions, self.transitions, mask=mask, start=self.start, end=self.end)
