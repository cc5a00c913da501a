"""The linear-chain conditional random field: one softmax over all tag sequences.

A CRF scores a whole sequence y of tags and divides by the sum over all Kᵀ of them:

    log P(y) = s(y) − log Z,    s(y) = Σ_t emissions[t, y_t] + Σ_t transitions[y_t, y_{t+1}],    Z = Σ_y exp s(y),

with start[y_1] and end[y_T] added to s if there are such scores. ``lib.chain`` computes s, log Z, the marginals
and the best sequence; here is what the model adds, its likelihood and its layer.

The gradient of the likelihood is what is there minus what is expected:

    ∂ log P(y) / ∂ transitions[i, j] = Σ_t (1[y_t = i, y_{t+1} = j] − P(y_t = i, y_{t+1} = j)).

Two things follow, and with them the case for a learning rate of its own. Where the emissions settle the tags by
themselves, both counts agree and the transitions learn nothing more. And a gradient of whatever size moves a
weight by about the learning rate a step under Adam: after n steps no score is further than about nη from where it
began.

Source: Lafferty, McCallum and Pereira 2001, "Conditional random fields"; Su Jianlin,
https://kexue.fm/archives/7196.
"""

import math
from typing import Any

import keras
from keras import ops

from .chain import k_best, log_partition, marginals, sample, sequence_score, viterbi
from .tagging import Head

__all__ = [
    "CRF",
    "k_best",
    "log_likelihood",
    "log_partition",
    "marginals",
    "sample",
    "sequence_score",
    "viterbi",
]

Tensor = Any


def log_likelihood(
    emissions: Tensor,
    tags: Tensor,
    transitions: Tensor,
    *,
    mask: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
) -> Tensor:
    """The log-probability of tag sequences, log P(tags | emissions) = s(tags) − log Z.

    Args:
        emissions: Scores of each tag at each step, shape (batch, time, tags), any float type.
        tags: Tag sequences, shape (batch, time), integers in [0, tags); any number at masked steps.
        transitions: Scores of tag i followed by tag j, shape (tags, tags); −inf forbids a move.
        mask: Valid steps, boolean, shape (batch, time), a valid prefix in each row; None if all are valid.
        start: Scores of the first tag, shape (tags,); None for 0. −inf forbids a start.
        end: Scores of the last tag, shape (tags,); None for 0. −inf forbids an end.

    Returns:
        Log-probabilities, not positive, shape (batch,), float32 or wider. A row without a valid step has 0. A
        sequence that is forbidden has −inf and a zero gradient, also where no sequence is allowed. Under XLA and
        JAX jit, where no error can be raised, a row with tags out of range or a mask with holes has NaN.

    Raises:
        ValueError: A shape does not fit; in eager mode, also tags out of range and a mask with holes. A plain
            TensorFlow graph raises its ``InvalidArgumentError`` for these.

    Source: Lafferty, McCallum and Pereira 2001.

    Example:
        >>> emissions, alternate = [[[0.0, 0.0], [0.0, 0.0]]], [[-math.inf, 0.0], [0.0, -math.inf]]
        >>> likelihood = [log_likelihood(emissions, [tags], alternate) for tags in ([0, 1], [0, 0])]
        >>> [round(float(value[0]), 4) for value in likelihood]  # one of two sequences, none
        [-0.6931, -inf]
    """
    given = {"mask": mask, "start": start, "end": end}
    score = sequence_score(emissions, tags, transitions, **given)
    log_z = log_partition(emissions, transitions, **given)
    impossible = ops.equal(score, -math.inf)
    return ops.where(impossible, -math.inf, score - ops.where(impossible, 0.0, log_z))


@keras.saving.register_keras_serializable(package="proof_by_running")
class CRF(Head):
    """The conditional random field as the last layer of a tagger.

    Arguments, learning rate and the loss are those of :class:`lib.tagging.Head`; the likelihood is exact, over all
    sequences of legal moves. :meth:`decode` gives the best sequence and its score s(y). With zero transitions the
    layer is :class:`lib.tagging.Softmax`, exactly: the same likelihood, the same tags.

    Args:
        tags: Number of tags, at least 1.
        **kwargs: Arguments of :class:`lib.tagging.Head`: ``transitions_initializer``, ``boundaries``, ``legal``,
            ``legal_start``, ``legal_end``, ``learning_rate_multiplier``, and those of every Keras layer.

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

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-probability (batch,) of the tags, see :func:`log_likelihood`."""
        return log_likelihood(emissions, tags, self.transitions, mask=mask, start=self.start, end=self.end)

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best legal tags (batch, time) and their score s(y), shape (batch,)."""
        return viterbi(emissions, self.transitions, mask=mask, start=self.start, end=self.end)

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """P(y_t = j | emissions), the posterior of every tag at every step.

        Args:
            emissions: Shape (batch, time, tags); steps at −∞ are padded.
            mask: Boolean (batch, time) with a valid prefix; None if the emissions tell.

        Returns:
            Probabilities (batch, time, tags), 0 at padded steps.
        """
        emissions, mask = self.unpack(emissions, mask)
        return marginals(emissions, self.transitions, mask=mask, start=self.start, end=self.end)
