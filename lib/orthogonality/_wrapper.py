"""What the two wrappers around a layer with a kernel share."""

from typing import Any

import keras


class _KernelWrapper(keras.layers.Wrapper):
    """A wrapper of a layer with a kernel. It takes the dtype policy of its layer unless told otherwise."""

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f"layer must be a Keras layer, got {layer!r}")
        if isinstance(layer, keras.layers.Wrapper):
            raise ValueError(f"layer must be a layer with a kernel of its own, not a wrapper of one, got {layer!r}")
        super().__init__(layer, **{"dtype": layer.dtype_policy, **kwargs})
        self.supports_masking = layer.supports_masking

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the wrapped layer; raises ValueError if it turns out to have no kernel."""
        super().build(input_shape)
        if len(getattr(getattr(self.layer, "kernel", None), "shape", ())) < 2:
            raise ValueError(f"layer must have a kernel of shape (*, in, out), got {self.layer!r}, which has none")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the output shape of the wrapped layer."""
        return self.layer.compute_output_shape(input_shape)
