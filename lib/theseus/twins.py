"""A layer with the weights of another one, to start a successor from."""

from __future__ import annotations

import keras

__all__ = ["twin"]


def twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same configuration and with the same weights, with a name of its own, and trainable.

    Its dropout begins at the seed of the configuration, wherever that of the layer is; without a seed, at one that
    ``keras.utils.set_random_seed`` decides.

    Args:
        layer: A built layer.

    Raises:
        ValueError: It is no layer, or not built; or it cannot be rebuilt from its configuration, as a ``Lambda``.

    Example:
        >>> dense = keras.layers.Dense(3)
        >>> x = keras.ops.ones((2, 4))
        >>> y = dense(x)
        >>> bool(keras.ops.all(twin(dense)(x) == y))
        True
    """
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(f"layer must be a Keras layer, got {layer!r}")
    if not layer.built:
        raise ValueError(f"layer must be built, for its weights to be there, got {layer.name!r}, which is not")
    try:
        new = type(layer).from_config({**layer.get_config(), "name": None})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"layer must be one that its configuration rebuilds, got {layer.name!r}: {error}"
        ) from error
    if (shapes := layer.get_build_config()) is not None:
        new.build_from_config(shapes)
    new.set_weights(layer.get_weights())
    new.trainable = False  # since Keras on TensorFlow ignores a value that is there already, whatever lies within
    new.trainable = True
    return new
