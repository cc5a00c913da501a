"""The last layer of a tagger: it turns scores of single steps into the probability of a whole tag sequence.

An encoder gives emissions (batch, time, tags). A head normalizes them:

==================  ================================================================
head                what it normalizes
==================  ================================================================
``Softmax``         every step alone; no tag knows its neighbour
``lib.crf.CRF``     all tag sequences at once
``lib.memm.MEMM``   every step given the tag before
==================  ================================================================

:class:`Head` is what they share: the transition scores with a learning rate of their own, the legal moves, how
padding travels, and what can be asked of the distribution. :class:`~lib.tagging.Tagger` joins an encoder and a
head; in the functional API a head is a layer like any other, and :class:`~lib.tagging.Decode` makes tags of what it
returns::

    emissions = head(scores)                                # padded steps at −∞
    model = keras.Model(inputs, emissions)
    model.compile("adam", loss=head.loss)
    server = keras.Model(inputs, Decode(head)(emissions))   # int32, padded steps −1

Padding. In the targets a padded step has the tag −1, and so it has in what is decoded. In the emissions a padded
step is −∞ for all tags: Keras hands a loss no mask, so the emissions carry their own. A target of −100 is not
known: the likelihood is that of the known ones.

Precision. Whatever the policy, a head works in float32, or in float64 if the emissions are so.

A learning rate for one layer. Write a weight as θ = λφ and let the optimizer see φ. Its gradient is λ times that of
θ, and a step of φ moves θ by λ times as much. Under plain gradient descent the two factors meet: θ moves as if its
learning rate were λ²η. Adam divides the gradient by its own size, so one factor cancels: λη. The initial φ is θ₀/λ.

Source: Su Jianlin, https://kexue.fm/archives/6418 (the reparametrization) and https://kexue.fm/archives/7196;
Tsuboi et al. 2008, "Training conditional random fields using incomplete annotations" (targets not known).
"""

from __future__ import annotations

import math
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from .. import chain
from .._arguments import boolean, non_negative, positive_integer, real_array
from .._backend import backend, float32_or_wider
from .._tensors import as_tensor, checked_mask, or_nan, require, require_shape
from .moves import LegalMoves, _checked_moves
from .schemes import PADDING

if TYPE_CHECKING:
    from .losses import HeadLoss

__all__ = ["Head"]

Tensor = Any


class Head(keras.layers.Layer):
    """The last layer of a tagger: scores of moves between tags, a distribution of tag sequences, and a decoder.

    Called as a layer it returns the emissions with padded steps at −∞, and has no mask: the output carries it. A
    subclass gives :meth:`log_likelihood`, :meth:`best_path` and :meth:`potentials`; all else follows. A head that
    was not built is built by the first use of its scores.

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
        tag_count: Number of tags, at least 1.
        transitions_initializer: θ₀ (tags, tags), as an array, or a Keras initializer. Zero prefers no move; a
            random one prefers some for no reason.
        boundaries: Whether to learn scores of the first and of the last tag, from zero.
        legal: What :func:`~lib.tagging.legal_moves` returns, or a boolean array (tags, tags) alone, [i, j] telling
            whether j may follow i; None allows all. An illegal move scores −∞ in training and in decoding. A
            target that makes one has probability 0: its loss is inf, its gradient zero.
        learning_rate_multiplier: λ, not negative; 0 freezes the scores at their initial values.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: An argument has a wrong shape or is out of range; no tag is legal at the start or at the end;
            when built, the emissions are not (batch, time, tags); when used, as the method says.

    Example:
        >>> from lib.crf import CRF
        >>> head = CRF(4, transitions_initializer=np.eye(4), learning_rate_multiplier=100)
        >>> emissions = head(np.zeros((2, 3, 4)), mask=np.array([[True, True, True], [True, False, False]]))
        >>> float(head.transitions[0, 0]), float(emissions[1, 1, 0])
        (1.0, -inf)
    """

    def __init__(
        self,
        tag_count: int,
        *,
        transitions_initializer: Any = "zeros",
        boundaries: bool = False,
        legal: LegalMoves | ArrayLike | None = None,
        learning_rate_multiplier: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(autocast=False, **kwargs)  # emissions in float32 are not rounded to a policy's halves
        self.supports_masking = True
        self.tag_count = positive_integer("tag_count", tag_count)
        self.transitions_initializer = _initializer(transitions_initializer, (tag_count, tag_count))
        self.boundaries = boolean("boundaries", boundaries)
        self.legal = _checked_moves(legal, self.tag_count)
        self.learning_rate_multiplier = non_negative("learning_rate_multiplier", learning_rate_multiplier)
        _returned[self] = None

    # Weights.

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scores; raises ValueError unless ``input_shape`` is (batch, time, tags)."""
        self._require_emissions(input_shape)
        self.add_transitions()
        if self.boundaries:
            self._start = self.add_score("start", (self.tag_count,))
            self._end = self.add_score("end", (self.tag_count,))

    def ensure_built(self) -> None:
        """Creates the scores if no call has done so yet; their shapes depend on the number of tags alone."""
        if not self.built:
            known = keras.backend.backend() == "jax"  # there a traced call must not make the values of weights
            with backend().ensure_compile_time_eval() if known else nullcontext():
                self.build((None, None, self.tag_count))

    def add_transitions(self) -> None:
        """Creates the weights behind :attr:`transitions`; a subclass may hold them in another form."""
        shape = (self.tag_count, self.tag_count)
        self._transitions = self.add_score("transitions", shape, self.transitions_initializer)

    def add_score(self, name: str, shape: tuple[int, ...], initializer: Any = "zeros") -> keras.Variable:
        """A weight φ that stands for the scores θ = λφ; ``initializer`` gives θ₀. Read it by :meth:`score`."""
        initializer = keras.initializers.get(initializer)
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=keras.backend.result_type(self.variable_dtype, "float32"),
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
        self.ensure_built()
        return _forbid(self.score(self._transitions), self.legal and self.legal.transitions)

    @property
    def start(self) -> Tensor | None:
        """Scores (tags,) of the first tag, −∞ where illegal; None if all are 0 for good."""
        return self._boundary("_start", self.legal and self.legal.start)

    @property
    def end(self) -> Tensor | None:
        """Scores (tags,) of the last tag, −∞ where illegal; None if all are 0 for good."""
        return self._boundary("_end", self.legal and self.legal.end)

    def _boundary(self, weight: str, legal: NDArray[np.bool_] | None) -> Tensor | None:
        if self.boundaries:
            self.ensure_built()
            return _forbid(self.score(getattr(self, weight)), legal)
        return None if legal is None or legal.all() else _forbid(ops.zeros(self.tag_count), legal)

    # The layer.

    def call(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The emissions, padded steps at −∞.

        Args:
            emissions: Shape (batch, time, tags).
            mask: Boolean or 0/1, (batch, time), True at valid steps; None if all are valid. Keras hands it on.

        Returns:
            Shape (batch, time, tags), float32 or wider.

        Raises:
            ValueError: The emissions are no numbers of this shape, or the mask is not (batch, time) of 0 and 1.
        """
        emissions = float32_or_wider(as_tensor("emissions", emissions))
        self._require_emissions(emissions.shape)
        if mask is not None:
            mask, stated = checked_mask(mask, emissions.shape[:2], to_fit="emissions")
            emissions = or_nan(ops.where(ops.expand_dims(mask, -1), emissions, -math.inf), stated)
        _returned[self] = weakref.ref(emissions)
        return emissions

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> None:  # noqa: ARG002
        """Returns None: the emissions carry their mask."""
        return None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns ``input_shape``."""
        return input_shape

    def compute_output_spec(self, emissions: Tensor, mask: Tensor | None = None) -> Any:  # noqa: ARG002
        """The emissions as a symbol, float32 or wider."""
        self._require_emissions(emissions.shape)
        is_wide = keras.backend.standardize_dtype(emissions.dtype) == "float64"
        return keras.KerasTensor(emissions.shape, "float64" if is_wide else "float32")

    # What a subclass gives.

    def log_likelihood(self, tags: Tensor, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The log-probability of the tags given the emissions, shape (batch,).

        Args:
            tags: Shape (batch, time), integers in [0, tags), or −100 for a tag that is not known; any tag at padded
                steps.
            emissions: Shape (batch, time, tags), float32 or wider, finite at valid steps.
            mask: Boolean (batch, time) with a valid prefix, None if all steps are valid.
        """
        raise NotImplementedError(f"{type(self).__name__} must define log_likelihood(tags, emissions, mask)")

    def best_path(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The decoded tags (batch, time), anything at padded steps, and their score (batch,)."""
        raise NotImplementedError(f"{type(self).__name__} must define best_path(emissions, mask)")

    def potentials(self, emissions: Tensor, mask: Tensor) -> chain.Potentials:
        """The chain whose normalized distribution is this head's P(y); emissions and mask as in :meth:`unpack`."""
        raise NotImplementedError(f"{type(self).__name__} must define potentials(emissions, mask)")

    # What follows: the loss.

    @property
    def loss(self) -> HeadLoss:
        """The loss for ``compile``: the mean of :meth:`sequence_loss` over the batch."""
        from .losses import HeadLoss  # which needs heads

        return HeadLoss(self)

    def sequence_loss(self, tags: Tensor, emissions: Tensor) -> Tensor:
        """−log P(tags) of every sequence: one number a sequence, so that Keras takes the mean over sequences.

        A sequence without a tag has loss 0. A tag at a step that the emissions call padded has probability 0: its
        sequence has loss inf and gradient 0. A step without a tag is left out, even if the emissions have it. A
        tag of −100 is not known: the loss is −log of the probability of the known ones.

        Args:
            tags: Shape (batch, time), integers in [0, tags), −100 where the tag is not known, or −1 at padded
                steps, which end the sequence. Integers or floats, because Keras casts targets to floats.
            emissions: What the layer returns, shape (batch, time, tags).

        Returns:
            Shape (batch,), float32 or wider. Under XLA and JAX jit, where no error can be raised, a row has NaN
            whose tags are none, or go on behind −1.

        Raises:
            ValueError: A shape does not fit, or the tags are none. A plain TensorFlow graph raises its
                ``InvalidArgumentError`` for what only values tell.

        Example:
            >>> from lib.tagging import Softmax
            >>> loss = Softmax(2).sequence_loss([[0, -100, 1], [1, -1, -1]], np.zeros((2, 3, 2)))
            >>> np.round(ops.convert_to_numpy(loss), 4).tolist()
            [1.3863, 0.6931]
        """
        emissions, valid = self.unpack(self._with_tag_axis(emissions))
        tags = require_shape("tags", _as_tags("tags", tags), valid.shape, to_fit="emissions")
        if None in (*tags.shape, *valid.shape):  # no broadcasting where sizes are found out late
            valid = ops.reshape(valid, ops.shape(tags))
        is_tag = ops.not_equal(tags, chain.UNKNOWN)
        mask = ops.logical_and(ops.not_equal(tags, PADDING), ops.logical_or(is_tag, valid))
        go_on = ops.any(ops.logical_and(mask[:, 1:], ops.logical_not(mask[:, :-1])), axis=1)
        require(
            ops.logical_not(ops.any(go_on)),
            f"tags must be {PADDING} only behind the last tag of a sequence",
            lambda: f"tags behind it in rows {np.flatnonzero(ops.convert_to_numpy(go_on)).tolist()}",
        )
        likelihood = self.log_likelihood(tags=ops.where(mask, tags, 0), emissions=emissions, mask=mask)
        impossible = ops.any(ops.logical_and(ops.logical_and(mask, is_tag), ops.logical_not(valid)), axis=1)
        return ops.where(impossible, math.inf, -likelihood)

    # What follows: questions to the distribution.

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best tags that the model gives to the emissions.

        Args:
            emissions: Shape (batch, time, tags); steps at −∞ are padded.
            mask: Boolean or 0/1, (batch, time), with a valid prefix; None if the emissions tell.

        Returns:
            The tags (batch, time), int32, −1 at padded steps, and their score (batch,), which the head defines.
            Where no sequence is legal, tags −1 and score −inf. For emissions of NaN, and under XLA and JAX jit for
            a mask with holes or of other numbers than 0 and 1, tags −1 and score NaN.

        Raises:
            ValueError: As :meth:`unpack`, or the mask has holes; in a graph as :meth:`sequence_loss`.
        """
        emissions, mask = self.unpack(emissions, mask)
        tags, score = self.best_path(emissions, mask)
        return ops.where(mask, ops.cast(tags, "int32"), PADDING), score

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """P(y_t = j), the posterior of every tag at every step.

        Args:
            emissions: As in :meth:`decode`.
            mask: As in :meth:`decode`.

        Returns:
            Probabilities (batch, time, tags), 0 at padded steps. They are given that the sequence is possible, as
            are :meth:`entropy` and :meth:`sample`: an MEMM may lose probability in a tag that no tag may follow.

        Raises:
            ValueError: As :meth:`decode`.
        """
        return chain.marginals(**self._chain(emissions, mask))

    def entropy(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """−Σ P(y) log P(y) in nats, over all tag sequences.

        Args:
            emissions: As in :meth:`decode`.
            mask: As in :meth:`decode`.

        Returns:
            Shape (batch,), not negative, 0 for a sequence without a step.

        Raises:
            ValueError: As :meth:`decode`.
        """
        return chain.entropy(**self._chain(emissions, mask))

    def sample(self, emissions: Tensor, count: int, *, seed: Any = None, mask: Tensor | None = None) -> Tensor:
        """Tag sequences drawn independently from P(y).

        Args:
            emissions: As in :meth:`decode`.
            count: Number of sequences for each row, at least 1.
            seed: An integer, a ``keras.random.SeedGenerator`` or None.
            mask: As in :meth:`decode`.

        Returns:
            Tags (batch, count, time), int32, −1 at padded steps.

        Raises:
            ValueError: As :meth:`decode`, or ``count`` is not a positive integer.
        """
        return chain.sample(**self._chain(emissions, mask), count=positive_integer("count", count), seed=seed)

    def k_best(self, emissions: Tensor, k: int, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k best different tag sequences, best first.

        Args:
            emissions: As in :meth:`decode`.
            k: Number of sequences, at least 1.
            mask: As in :meth:`decode`.

        Returns:
            Tags (batch, k, time), int32, −1 at padded steps, and scores (batch, k), as those of the exact
            :meth:`decode`. Where fewer than k sequences are legal the rest has tags −1 and score −inf.

        Raises:
            ValueError: As :meth:`decode`, or ``k`` is not a positive integer.
        """
        return chain.k_best(**self._chain(emissions, mask), k=positive_integer("k", k))

    def _chain(self, emissions: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """The arguments of the functions of :mod:`lib.chain` for P(y)."""
        arguments = self.potentials(*self.unpack(emissions, mask))
        return {name: getattr(arguments, name) for name in ("emissions", "transitions", "mask", "start", "end")}

    # Emissions.

    def unpack(self, emissions: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Takes the mask out of emissions that carry it.

        Args:
            emissions: Shape (batch, time, tags); steps at −∞ are padded.
            mask: Boolean or 0/1, (batch, time): further steps to leave out are False; None leaves out no more.

        Returns:
            The emissions, float32 or wider, 0 at padded steps, and the mask (batch, time), boolean. Under XLA and
            JAX jit the emissions of a row are NaN whose mask has other numbers than 0 and 1.

        Raises:
            ValueError: The emissions are no numbers (batch, time, tags), or symbols of Keras's functional API; the
                mask is not (batch, time) of 0 and 1.
        """
        if isinstance(emissions, keras.KerasTensor):
            raise ValueError(f"emissions must be a tensor, in the functional API use Decode(head), got {emissions}")
        emissions = float32_or_wider(as_tensor("emissions", emissions))
        self._require_emissions(emissions.shape)
        self.ensure_built()
        valid = ops.any(ops.not_equal(emissions, -math.inf), axis=-1)
        if mask is not None:
            mask, stated = checked_mask(mask, emissions.shape[:2], to_fit="emissions")
            emissions, valid = or_nan(emissions, stated), ops.logical_and(valid, mask)
        return ops.where(ops.expand_dims(valid, -1), emissions, 0.0), valid

    def _with_tag_axis(self, emissions: Tensor) -> Tensor:
        """The emissions (batch, time, 1) of a single tag, if Keras has squeezed their last axis."""
        emissions = as_tensor("emissions", emissions)
        return ops.expand_dims(emissions, -1) if len(emissions.shape) == 2 and self.tag_count == 1 else emissions

    def _require_emissions(self, shape: tuple[int | None, ...] | None) -> None:
        if shape is None:
            raise ValueError("emissions must be a tensor of numbers, got None")
        if len(shape) != 3 or shape[-1] != self.tag_count:
            raise ValueError(
                "emissions must have shape (batch, time, tags) with tags = "
                f"{self.tag_count}, got shape {tuple(shape)}"
            )

    # Saving.

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this head."""
        legal = None if self.legal is None else {name: x.tolist() for name, x in self.legal._asdict().items()}
        return {
            **super().get_config(),
            "tag_count": self.tag_count,
            "transitions_initializer": keras.initializers.serialize(self.transitions_initializer),
            "boundaries": self.boundaries,
            "legal": legal,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Head:
        """The head that :meth:`get_config` describes."""
        legal = config.get("legal")
        return cls(**{**config, **({"legal": LegalMoves(**legal)} if isinstance(legal, dict) else {})})


#: What each head that exists returned last, the newest head at the end: it tells whose emissions a loss is given.
_returned: weakref.WeakKeyDictionary[Head, weakref.ref | None] = weakref.WeakKeyDictionary()


def _living() -> list[Head]:
    """The heads that exist, the newest last."""
    heads = (reference() for reference in _returned.keyrefs())  # a list, which no other thread changes
    return [head for head in heads if head is not None]


def _head_of(emissions: Tensor) -> Head | None:
    """The head that returned these very emissions, if one did."""
    for head in _living():
        returned = _returned[head]
        if returned is not None and returned() is emissions:
            return head
    return None


# --- arguments ------------------------------------------------------------------------------------------------


def _as_tags(name: str, tags: Any) -> Tensor:
    """The tags as signed numbers: −1 is at home in no others, and torch compares no others."""
    tags = as_tensor(name, tags, kinds="iuf")
    return ops.cast(tags, "int64") if keras.backend.standardize_dtype(tags.dtype)[0] == "u" else tags


def _forbid(scores: Tensor, legal: NDArray[np.bool_] | None) -> Tensor:
    """The scores, −∞ where illegal."""
    return scores if legal is None else ops.where(legal, scores, ops.cast(-math.inf, scores.dtype))


def _initializer(initializer: Any, shape: tuple[int, ...]) -> keras.initializers.Initializer:
    """A Keras initializer, of constant value if an array is given."""
    name = "transitions_initializer"
    if initializer is None or isinstance(initializer, str | dict) or callable(initializer):
        try:
            return keras.initializers.get(initializer or "zeros")
        except ValueError:
            raise ValueError(f"{name} must be an initializer of Keras or an array, got {initializer!r}") from None
    values = real_array(name, initializer)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{name} must hold no NaN, got {initializer!r}")
    return keras.initializers.Constant(values.astype(np.float32))
