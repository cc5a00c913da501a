"""How a head of an encoder is told what to look for: a layer normalization that depends on a vector."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np  # noqa: F401 (for the example)
from keras import ops

from .._tensors import as_tensor, require_shape

__all__ = ["ConditionalLayerNormalization"]

Tensor = Any
Shape = tuple[int | None, ...]

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


@_serializable
class ConditionalLayerNormalization(keras.layers.Layer):
    """(γ + W₁c) · (x − mean)/std + β + W₂c: a layer normalization whose scale and shift depend on a vector c.

    It is how a head is told what to look for: here are the tokens, and c is the subject whose objects are wanted.
    W₁ and W₂ start as zero, so that it starts as a plain layer normalization and the condition is learned.

    Args:
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: When called, ``x`` is not (batch, time, hidden) or ``condition`` not (batch, size).

    Source: Su Jianlin, https://kexue.fm/archives/7124.

    Example:
        >>> x = np.array([[[1.0, 3.0], [4.0, 2.0]]], "float32")
        >>> layer = ConditionalLayerNormalization()
        >>> ops.convert_to_numpy(layer(x, np.ones((1, 5), "float32"))).round(3)
        array([[[-1.,  1.],
                [ 1., -1.]]], dtype=float32)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.normalize = keras.layers.LayerNormalization(
            epsilon=1e-12, center=False, scale=False, dtype=self.dtype_policy
        )
        self.supports_masking = True

    def build(self, x_shape: Shape, condition_shape: Shape) -> None:
        """Creates γ, β, W₁ and W₂."""
        hidden = x_shape[-1]
        self.normalize.build(x_shape)
        self.gamma = self.add_weight((hidden,), "ones", name="gamma")
        self.beta = self.add_weight((hidden,), "zeros", name="beta")
        self.shift = keras.layers.Dense(
            2 * hidden, use_bias=False, kernel_initializer="zeros", dtype=self.dtype_policy, name="shift"
        )
        self.shift.build(condition_shape)

    def call(self, x: Tensor, condition: Tensor) -> Tensor:
        """Vectors (batch, time, hidden) of vectors of the same shape, given a condition (batch, size)."""
        require_shape("x", as_tensor("x", x), (None, None, self.gamma.shape[0]))
        require_shape("condition", as_tensor("condition", condition), (x.shape[0], None), to_fit="x")
        gamma, beta = ops.split(self.shift(condition)[:, None, :], 2, axis=-1)
        return (self.gamma + gamma) * self.normalize(x) + (self.beta + beta)
