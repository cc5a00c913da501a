"""Sequence labelling as a model: an encoder that scores every tag at every step, and a head that normalises.

The encoder gives emissions (batch, time, tags). A head turns them into the probability of a whole tag sequence:

==================  ================================================================
head                what it normalises
==================  ================================================================
:class:`Softmax`    every step alone; no tag knows its neighbour
``lib.crf.CRF``     all tag sequences at once
``lib.memm.MEMM``   every step given the tag before
==================  ================================================================

:class:`Head` is what they share: the transition scores with a learning rate of their own, the legal moves, and
how padding travels. :class:`Tagger` joins an encoder and a head; in the functional API a head is a layer like any
other::

    model = keras.Model(inputs, head(emissions))        # the emissions, padded steps at −∞
    model.compile("adam", loss=head.loss)
    tags, score = head.decode(model.predict(x))

Padding. In the targets a padded step has the tag −1, and so it has in what ``decode`` and ``predict`` return. In
the emissions a padded step is −∞ for all tags: Keras hands a loss no mask, so the emissions carry their own.

A learning rate for one layer. Write a weight as θ = λφ and let the optimizer see φ. Its gradient is λ times that of
θ, and a step of φ moves θ by λ times as much. Under plain gradient descent the two factors meet: θ moves as if its
learning rate were λ²η. Adam divides the gradient by its own size, so one factor cancels: λη. The initial φ is θ₀/λ.

Source: Su Jianlin, https://kexue.fm/archives/6418 (the reparametrization) and https://kexue.fm/archives/7196.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from .. import chain
from .._arguments import non_negative, positive_integer
from .._backend import float32_or_wider

__all__ = ["PADDING", "Head", "HeadLoss", "Softmax", "Tagger"]

Tensor = Any

#: The tag of a padded step, in training targets and in predictions.
PADDING = -1


# --- the head: scores of moves, a likelihood, a decoder -------------------------------------------------------


class Head(keras.layers.Layer):
    """The last layer of a tagger: scores of moves between tags, a likelihood of tag sequences, and a decoder.

    Called as a layer it returns the emissions with padded steps at −∞, and has no mask: the output carries it. A
    subclass gives :meth:`log_likelihood` and :meth:`best_path`; :attr:`loss` and :meth:`decode` follow.

    The scores are stored divided by λ, the ``learning_rate_multiplier``, and read multiplied by it (see the head
    of this module). So λ multiplies the learning rate under Adam and its relatives, and λ² does under plain or
    momentum SGD. What else reads the stored weight sees φ = θ/λ:

    - Decoupled weight decay (AdamW) shrinks θ by the encoder's rate, not by λ times it. Decay has no place here.
    - An L2 penalty on φ is one on θ divided by λ².
    - ``clipnorm`` and ``global_clipnorm`` see a gradient λ times too long. With a large λ the global norm is that
      of the transitions alone, and the clip starves the encoder. Clip by ``MultiOptimizer`` or not at all.

    Keras's own means to the same end is ``keras.optimizers.MultiOptimizer`` (Keras 3.15 or newer), which gives the
    variables whose path matches an expression an optimizer of their own; it has none of these effects.

    Args:
        tags: Number of tags, at least 1.
        transitions_initializer: θ₀ (tags, tags), as an array, or a Keras initializer. Zero prefers no move; a
            random one prefers some for no reason.
        boundaries: Whether to learn scores of the first and of the last tag, from zero.
        legal: Boolean array (tags, tags), [i, j] tells whether j may follow i; None allows every move. An illegal
            move scores −∞ in training and in decoding. A target that makes one has probability 0: its loss is inf,
            its gradient zero.
        legal_start: Boolean array (tags,), the tags that may come first; None allows all.
        legal_end: Boolean array (tags,), the tags that may come last; None allows all.
        learning_rate_multiplier: λ, not negative; 0 freezes the scores at their initial values.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: An argument has a wrong shape or is out of range; no tag is legal at the start or at the end;
            when built, the emissions are not (batch, time, tags).

    Example:
        >>> from lib.crf import CRF
        >>> head = CRF(4, transitions_initializer=np.eye(4), learning_rate_multiplier=100)
        >>> emissions = head(np.zeros((2, 3, 4)), mask=np.array([[True, True, True], [True, False, False]]))
        >>> float(head.transitions[0, 0]), float(emissions[1, 1, 0])
        (1.0, -inf)
    """

    def __init__(
        self,
        tags: int,
        *,
        transitions_initializer: Any = "zeros",
        boundaries: bool = False,
        legal: ArrayLike | None = None,
        legal_start: ArrayLike | None = None,
        legal_end: ArrayLike | None = None,
        learning_rate_multiplier: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.tags = positive_integer("tags", tags)
        self.transitions_initializer = _initializer(transitions_initializer, (tags, tags))
        self.boundaries = bool(boundaries)
        self.legal = _moves("legal", legal, (tags, tags))
        self.legal_start = _moves("legal_start", legal_start, (tags,))
        self.legal_end = _moves("legal_end", legal_end, (tags,))
        self.learning_rate_multiplier = non_negative("learning_rate_multiplier", learning_rate_multiplier)
        _HEADS[self.name] = self

    # Weights.

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scores; raises ValueError unless ``input_shape`` is (batch, time, tags)."""
        self._require_emissions(input_shape)
        self.add_transitions()
        if self.boundaries:
            self._start = self.add_score("start", (self.tags,))
            self._end = self.add_score("end", (self.tags,))

    def add_transitions(self) -> None:
        """Creates the weights behind :attr:`transitions`; a subclass may hold them in another form."""
        self._transitions = self.add_score("transitions", (self.tags, self.tags), self.transitions_initializer)

    def add_score(self, name: str, shape: tuple[int, ...], initializer: Any = "zeros") -> keras.Variable:
        """A weight φ that stands for the scores θ = λφ; ``initializer`` gives θ₀. Read it by :meth:`score`."""
        initializer = keras.initializers.get(initializer)
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=lambda shape, dtype=None: initializer(shape, dtype=dtype) / self._scale,
            trainable=self.learning_rate_multiplier > 0,
            autocast=False,  # the dynamic programs work in float32, whatever the policy
        )

    def score(self, weight: keras.Variable) -> Tensor:
        """The scores θ = λφ of a weight made by :meth:`add_score`, float32 or wider."""
        return self._scale * float32_or_wider(weight)

    @property
    def _scale(self) -> float:
        return self.learning_rate_multiplier or 1.0

    @property
    def transitions(self) -> Tensor:
        """Scores (tags, tags): [i, j] of tag i followed by tag j, −∞ where illegal."""
        return _forbid(self.score(self._transitions), self.legal)

    @property
    def start(self) -> Tensor | None:
        """Scores (tags,) of the first tag, −∞ where illegal; None without ``boundaries`` and ``legal_start``."""
        return self._boundary("_start", self.legal_start)

    @property
    def end(self) -> Tensor | None:
        """Scores (tags,) of the last tag, −∞ where illegal; None without ``boundaries`` and ``legal_end``."""
        return self._boundary("_end", self.legal_end)

    def _boundary(self, weight: str, legal: NDArray[np.bool_] | None) -> Tensor | None:
        if self.boundaries:
            return _forbid(self.score(getattr(self, weight)), legal)
        return None if legal is None else _forbid(ops.zeros(self.tags), legal)

    # The layer.

    def call(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the emissions (batch, time, tags), −∞ at the steps that ``mask`` (batch, time) leaves out."""
        if mask is None:
            return emissions
        return ops.where(ops.expand_dims(mask, -1), emissions, ops.cast(-math.inf, emissions.dtype))

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> None:  # noqa: ARG002
        """Returns None: the emissions carry their mask."""
        return None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``input_shape``."""
        return input_shape

    # What a subclass gives.

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-probability of the tags given the emissions, shape (batch,).

        Args:
            emissions: Shape (batch, time, tags), float32 or wider, finite at valid steps.
            tags: Shape (batch, time), integers in [0, tags); any tag at padded steps.
            mask: Boolean (batch, time) with a valid prefix, None if all steps are valid.
        """
        raise NotImplementedError(f"{type(self).__name__} must define log_likelihood(emissions, tags, mask)")

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The decoded tags (batch, time), anything at padded steps, and their score (batch,)."""
        raise NotImplementedError(f"{type(self).__name__} must define best_path(emissions, mask)")

    # What follows.

    @property
    def loss(self) -> "HeadLoss":
        """The loss for ``compile``: ``loss(tags, emissions)``, see :meth:`sequence_loss`."""
        return HeadLoss(self)

    def sequence_loss(self, tags: Tensor, emissions: Tensor) -> Tensor:
        """−log P(tags) of every sequence: one number a sequence, so that Keras takes the mean over sequences.

        A sequence without a tag has loss 0. A tag at a step that the emissions call padded has probability 0: its
        sequence has loss inf and gradient 0. A step without a tag is left out, even if the emissions have it.

        Args:
            tags: Shape (batch, time), integers in [0, tags) or −1 at padded steps, which end the sequence. Any
                numeric type, because Keras casts targets to floats.
            emissions: What the layer returns, shape (batch, time, tags).

        Returns:
            Shape (batch,), float32 or wider.

        Raises:
            ValueError: As :meth:`log_likelihood`.
        """
        if len(emissions.shape) == 2 and self.tags == 1:  # Keras squeezes a last axis of length 1
            emissions = ops.expand_dims(emissions, -1)
        emissions, valid = self.unpack(emissions)
        tags = ops.convert_to_tensor(tags)
        if len(tags.shape) != 2:
            raise ValueError(f"tags must have shape (batch, time), got shape {tuple(tags.shape)}")
        mask = ops.not_equal(tags, PADDING)
        loss = -self.log_likelihood(emissions, ops.where(mask, tags, 0), mask)
        impossible = ops.any(ops.logical_and(mask, ops.logical_not(valid)), axis=1)
        return ops.where(impossible, math.inf, loss)

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best tags that the model gives to the emissions.

        Args:
            emissions: Shape (batch, time, tags); steps at −∞ are padded.
            mask: Boolean (batch, time) with a valid prefix; None if the emissions tell.

        Returns:
            The tags (batch, time), int32, −1 at padded steps, and their score (batch,), which the head defines.

        Raises:
            ValueError: As :meth:`best_path`.
        """
        emissions, mask = self.unpack(emissions, mask)
        tags, score = self.best_path(emissions, mask)
        return ops.where(mask, ops.cast(tags, "int32"), PADDING), score

    def unpack(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Takes the mask out of emissions that carry it.

        Args:
            emissions: Shape (batch, time, tags); steps at −∞ are padded.
            mask: Boolean (batch, time), further steps to leave out; None leaves out no more.

        Returns:
            The emissions, float32 or wider, 0 at padded steps, and the mask (batch, time), boolean.

        Raises:
            ValueError: The emissions are not (batch, time, tags), or the mask is not (batch, time).
        """
        emissions = float32_or_wider(emissions)
        self._require_emissions(emissions.shape)
        valid = ops.any(ops.not_equal(emissions, -math.inf), axis=-1)
        if mask is not None:
            mask = ops.cast(mask, "bool")
            if len(mask.shape) != 2:
                raise ValueError(f"mask must have shape (batch, time), got shape {tuple(mask.shape)}")
            valid = ops.logical_and(valid, mask)
        return ops.where(ops.expand_dims(valid, -1), emissions, 0.0), valid

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this head."""
        return {
            **super().get_config(),
            "tags": self.tags,
            "transitions_initializer": keras.initializers.serialize(self.transitions_initializer),
            "boundaries": self.boundaries,
            "legal": _listed(self.legal),
            "legal_start": _listed(self.legal_start),
            "legal_end": _listed(self.legal_end),
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }

    def _require_emissions(self, shape: tuple[int | None, ...]) -> None:
        if len(shape) != 3 or shape[-1] != self.tags:
            raise ValueError(
                f"emissions must have shape (batch, time, tags) with tags = {self.tags}, got shape {tuple(shape)}"
            )


#: The newest head of each name. A saved loss names its head; loading makes the layers first and the loss next.
_HEADS: WeakValueDictionary[str, Head] = WeakValueDictionary()


@keras.saving.register_keras_serializable(package="proof_by_running")
class HeadLoss:
    """The loss of a head as a value that Keras can save: ``loss(tags, emissions)`` → (batch,).

    A compiled model is saved with its loss. A copy of the head inside the loss would come back as a second head
    with weights of its own, which training would not reach. So the loss is saved as the name of its head.

    Args:
        head: The head whose :meth:`Head.sequence_loss` this is.

    Example:
        >>> loss = Softmax(2, name="two_tags").loss
        >>> loss.get_config()
        {'head': 'two_tags'}
        >>> [round(float(value), 4) for value in loss(np.array([[0, 1], [1, -1]]), np.zeros((2, 2, 2)))]
        [1.3863, 0.6931]
    """

    __name__ = "head_loss"  # Keras names a loss function so

    def __init__(self, head: Head):
        self.head = head

    def __call__(self, tags: Tensor, emissions: Tensor) -> Tensor:
        """The loss (batch,) of tags (batch, time), given what the head returns."""
        return self.head.sequence_loss(tags, emissions)

    def get_config(self) -> dict[str, Any]:
        """Returns the name of the head."""
        return {"head": self.head.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "HeadLoss":
        """The loss of the head that was just loaded; raises ValueError if there is none of that name."""
        if config["head"] not in _HEADS:
            raise ValueError(f"head must be the name of a head that exists, got {config['head']!r}")
        return cls(_HEADS[config["head"]])


@keras.saving.register_keras_serializable(package="proof_by_running")
class Softmax(Head):
    """The head without transitions: P(y) = Π_t softmax(emissions_t)[y_t], every step by itself.

    Training knows no moves. With ``legal`` moves the decoder finds the most probable sequence among the legal ones:
    hard rules in Viterbi, the competitor that a CRF must beat. Without them it takes the best tag of every step.
    The score of :meth:`decode` is log P(y).

    Args:
        tags: Number of tags, at least 1.
        legal: As in :class:`Head`, in decoding only.
        legal_start: As in :class:`Head`, in decoding only.
        legal_end: As in :class:`Head`, in decoding only.
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

    def __init__(
        self,
        tags: int,
        *,
        legal: ArrayLike | None = None,
        legal_start: ArrayLike | None = None,
        legal_end: ArrayLike | None = None,
        **kwargs: Any,
    ):
        super().__init__(tags, legal=legal, legal_start=legal_start, legal_end=legal_end, **kwargs)

    def add_transitions(self) -> None:
        """Creates nothing: there are no scores to learn."""

    @property
    def transitions(self) -> Tensor:
        """Scores (tags, tags): 0 for a legal move, −∞ for another. Only the decoder sees them."""
        return _forbid(ops.zeros((self.tags, self.tags)), self.legal)

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None) -> Tensor:
        """Σ_t log softmax(emissions_t)[tags_t] over the valid steps, shape (batch,)."""
        free = ops.zeros((self.tags, self.tags))
        return chain.sequence_score(ops.log_softmax(emissions), tags, free, mask=mask)

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The most probable legal tags (batch, time) and their log-probability (batch,)."""
        log_p = ops.log_softmax(emissions)
        if self.legal is None and self.legal_start is None and self.legal_end is None:
            best = ops.max(log_p, axis=-1)
            return ops.argmax(log_p, axis=-1), ops.sum(best if mask is None else ops.where(mask, best, 0.0), axis=1)
        return chain.viterbi(log_p, self.transitions, mask=mask, start=self.start, end=self.end)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this head."""
        config = super().get_config()
        for argument in ("transitions_initializer", "boundaries", "learning_rate_multiplier"):
            del config[argument]
        return config


# --- the model ------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="proof_by_running")
class Tagger(keras.Model):
    """An encoder and a head as one model, from tokens to tags.

    ``compile`` needs an optimizer and no loss: the loss is the mean of the head's over the sequences of a batch,
    each times its ``sample_weight`` if there are any, plus what regularizers add. ``fit(x, tags)`` takes padded
    tags as −1. ``evaluate`` returns that loss. ``predict`` returns tags, and calling the model returns the
    emissions.

    Sequences of one batch must have one length; pad all batches to one length where one can, because XLA compiles
    the model again for every new one.

    Args:
        encoder: Model or layer from x to emissions (batch, time, tags).
        head: The head.
        padding: The number in x (batch, time) that marks a padded step, such as 0. None takes the mask that Keras
            hands on from ``mask_zero=True`` or ``Masking``; a convolution, for one, loses it.
        **kwargs: Arguments of every Keras model.

    Raises:
        ValueError: ``encoder`` or ``head`` is none; ``compile`` is given a loss; ``sample_weight`` is not (batch,);
            otherwise as the head.

    Example:
        >>> encoder = keras.Sequential([keras.layers.Embedding(100, 8, mask_zero=True), keras.layers.Dense(3)])
        >>> tagger = Tagger(encoder, Softmax(3))
        >>> tagger.compile("adam")
        >>> emissions = tagger(np.array([[5, 17, 2], [8, 0, 0]]))
        >>> ops.convert_to_numpy(emissions[1, :, 0] == -np.inf).tolist()
        [False, True, True]
    """

    def __init__(self, encoder: keras.layers.Layer, head: Head, *, padding: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(f"encoder must be a Keras model or layer, got {encoder!r}")
        if not isinstance(head, Head):
            raise ValueError(f"head must be a Head, such as CRF, got {head!r}")
        self.encoder = encoder
        self.head = head
        self.padding = padding
        self._decodes = False

    def build(self, input_shape: Any) -> None:
        """Builds the encoder and the head."""
        if not self.encoder.built:
            self.encoder.build(input_shape)
        if not self.head.built:
            self.head.build(self.encoder.compute_output_shape(input_shape))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Returns the emissions (batch, time, tags), −∞ at padded steps; while predicting, the tags."""
        emissions = self.encoder(x, training=training)
        if self.padding is None:
            emissions = self.head(emissions)
        else:
            emissions = self.head(emissions, mask=ops.not_equal(x, self.padding))
        return self.head.decode(emissions)[0] if self._decodes else emissions

    def compile(self, optimizer: Any = "rmsprop", loss: None = None, **kwargs: Any) -> None:
        """Sets the optimizer and what else ``keras.Model.compile`` takes; raises ValueError if given a loss."""
        if loss is not None:
            raise ValueError(f"loss must be left out, the head brings its own, got {loss!r}")
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled when saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Tensor = None,  # noqa: ARG002
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor | None = None,
        training: bool = True,  # noqa: ARG002
    ) -> Tensor:
        """Returns the mean loss of the batch, a scalar."""
        if sample_weight is not None and math.prod(sample_weight.shape[1:]) != 1:
            raise ValueError(f"sample_weight must have shape (batch,), got shape {tuple(sample_weight.shape)}")
        loss = _BatchLoss(self.head)(y, y_pred, sample_weight)
        return sum(map(ops.sum, self.losses), loss)

    def predict(self, x: Any, **kwargs: Any) -> NDArray[np.int32]:
        """The best tags, batch by batch.

        Args:
            x: Input of the encoder, as in ``keras.Model.predict``.
            **kwargs: Further arguments of ``keras.Model.predict``.

        Returns:
            Tags (samples, time), int32, −1 at padded steps.
        """
        with self._decoding():
            return super().predict(x, **kwargs)

    def predict_on_batch(self, x: Any) -> NDArray[np.int32]:
        """The best tags (batch, time) of one batch, int32, −1 at padded steps."""
        with self._decoding():
            return super().predict_on_batch(x)

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Lets ``call`` decode, so that Keras compiles the decoder into its prediction step."""
        self._decodes = True
        try:
            yield
        finally:
            self._decodes = False

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this model."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "padding": self.padding,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Tagger":
        """The model that :meth:`get_config` describes."""
        parts = {part: keras.saving.deserialize_keras_object(config[part]) for part in ("encoder", "head")}
        return cls(**{**config, **parts})


class _BatchLoss(keras.losses.Loss):
    """The mean of a head's loss over the sequences of a batch, weighted as Keras weights."""

    def __init__(self, head: Head):
        super().__init__(
            name="head_loss", dtype="float32"
        )  # Keras casts tags to it, and half precision would round them
        self.head = head

    def call(self, tags: Tensor, emissions: Tensor) -> Tensor:
        return self.head.sequence_loss(tags, emissions)


# --- arguments ------------------------------------------------------------------------------------------------


def _forbid(scores: Tensor, legal: NDArray[np.bool_] | None) -> Tensor:
    """The scores, −∞ where illegal."""
    return scores if legal is None else ops.where(legal, scores, ops.cast(-math.inf, scores.dtype))


def _initializer(initializer: Any, shape: tuple[int, ...]) -> keras.initializers.Initializer:
    """A Keras initializer, of constant value if an array is given."""
    if initializer is None or isinstance(initializer, str | dict) or callable(initializer):
        return keras.initializers.get(initializer or "zeros")
    values = np.asarray(initializer, dtype=np.float32)
    if values.shape != shape:
        raise ValueError(f"transitions_initializer must have shape {shape}, got shape {values.shape}")
    return keras.initializers.Constant(values)


def _moves(name: str, legal: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    if legal is None:
        return None
    moves = np.asarray(legal, dtype=bool)
    if moves.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got shape {moves.shape}")
    if len(shape) == 1 and not moves.any():
        raise ValueError(f"{name} must allow a tag, got none")
    return moves


def _listed(legal: NDArray[np.bool_] | None) -> list | None:
    return None if legal is None else legal.tolist()
