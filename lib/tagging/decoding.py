"""From emissions to tags, as a layer: what a model that serves tags ends with."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops  # noqa: F401 (for the examples)

from .heads import Head, _head_of

__all__ = ["Decode"]

Tensor = Any


@keras.saving.register_keras_serializable(package="proof_by_running")
class Decode(keras.layers.Layer):
    """The tags that a head decodes, as a layer that can be exported and saved, and that metrics can look at.

    ::

        head = CRF(9, name="emissions")  # Keras 3.8 finds outputs by the names of layers
        emissions = head(scores)
        tags = Decode(head, name="tags")(emissions)
        trained = keras.Model(inputs, {"emissions": emissions, "tags": tags})
        trained.compile("adam", loss={"emissions": head.loss}, metrics={"tags": [SpanF1(alphabet)]})
        keras.Model(inputs, tags).export("served")

    The head is shared with the layer that returned the emissions. Where Keras makes a copy of each, as in
    ``keras.models.clone_model``, the emissions are decoded by the head that returned them, of the same name. Where
    no head returned them as they are, such as a sum of two, the copy has a head of its own, which no loss trains; a
    file, as ``model.save`` writes it, keeps the one that is shared.

    Args:
        head: The head.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``head`` is none; when called, as :meth:`Head.decode`.

    Example:
        >>> from lib.tagging import Softmax
        >>> inputs = keras.Input((None, 3))
        >>> head = Softmax(3)
        >>> model = keras.Model(inputs, Decode(head)(head(keras.layers.Masking()(inputs))))
        >>> ops.convert_to_numpy(model(ops.convert_to_tensor([[[0.1, 0.7, 0.2], [0.0, 0.0, 0.0]]]))).tolist()
        [[1, -1]]
    """

    def __init__(self, head: Head, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(head, Head):
            raise ValueError(f"head must be a Head, such as CRF, got {head!r}")
        self.supports_masking = True
        self.head = head

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the head."""
        if not self.head.built:
            self.head.build(input_shape)

    def call(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """The tags (batch, time), int32, −1 at padded steps, of emissions (batch, time, tags).

        A ``mask`` (batch, time), which Keras hands on where the emissions have not passed the head, pads as well.
        """
        head = _head_of(emissions)
        head = head if head is not None and head.name == self.head.name else self.head
        return head.decode(emissions, mask)[0]

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> None:  # noqa: ARG002
        """Returns None: padded steps have the tag −1."""
        return None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns (batch, time)."""
        return tuple(input_shape)[:-1]

    def compute_output_spec(self, emissions: Tensor, mask: Tensor | None = None) -> Any:  # noqa: ARG002
        """The tags as a symbol."""
        return keras.KerasTensor(self.compute_output_shape(emissions.shape), "int32")

    # The head is mostly in the model once more, as a layer or in a Tagger, and Keras saves a layer in one place.

    def __dir__(self) -> list[str]:
        """The attributes without the head, whose weights this layer saves and loads itself."""
        return [name for name in super().__dir__() if name != "head"]

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights of the head."""
        self.head.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads the weights of the head."""
        self.head.load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "head": keras.saving.serialize_keras_object(self.head)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Decode:
        """The layer that :meth:`get_config` describes."""
        return cls(**{**config, "head": keras.saving.deserialize_keras_object(config["head"])})
