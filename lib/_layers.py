"""What layers that are made of layers have in common, and models that bring a loss of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import tree

from ._arguments import non_negative_integer

Shape = tuple[int | None, ...]


class BuiltBySymbols(keras.layers.Layer):
    """A layer that is built by a first call with symbols, as only a call tells its inner layers what they get.

    Symbols are shapes and dtypes, for which nothing is computed. A subclass gives :meth:`build_from`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Builds the layer if needed, then its ``call``."""
        if not self.built:
            self.build_from(*tree.map_structure(symbol, args), **tree.map_structure(symbol, kwargs))
            self.built = True
        return super().__call__(*args, **kwargs)

    def build(self, x_shape: Shape) -> None:
        """Builds the layer for inputs of its own dtype, of one shape or of nested ones."""
        if not self.built:
            self.build_from(_symbols(x_shape, self.compute_dtype))
            self.built = True

    def build_from(self, *args: Any, **kwargs: Any) -> None:
        """Builds the inner layers for a call with these symbols."""
        raise NotImplementedError

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Shapes and dtypes, from a call with symbols."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)


class BringsItsLoss(keras.Model):
    """A model that is compiled without a loss: it has its own."""

    def compile(self, optimizer: Any = "rmsprop", loss: None = None, **kwargs: Any) -> None:
        """Sets the optimizer and what else ``keras.Model.compile`` takes; raises ValueError if given a loss."""
        if loss is not None:
            raise ValueError(f"loss must be left out, the model brings its own, got {loss!r}")
        super().compile(optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled when saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def part_of(self, loss: Any) -> Any:
        """What this device adds to a mean over the batch: all of it, or one of n parts on n devices."""
        return self._aggregate_additional_loss(loss)


def _symbols(shape: Any, dtype: str) -> Any:
    if isinstance(shape, dict):
        return {name: _symbols(one, dtype) for name, one in shape.items()}
    if len(shape) and isinstance(shape[0], tuple | list | dict):
        return [_symbols(one, dtype) for one in shape]
    return keras.KerasTensor(tuple(shape), dtype)


def symbol(value: Any) -> Any:
    """The shape and dtype of an array; anything else is returned."""
    if isinstance(value, keras.KerasTensor) or not hasattr(value, "shape"):
        return value
    return keras.KerasTensor(tuple(value.shape), keras.backend.standardize_dtype(value.dtype))


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of this name."""
    return name in inspect.signature(function).parameters


def all_layers(name: str, layers: Iterable[Any]) -> list[keras.layers.Layer]:
    """The layers as a list.

    Args:
        name: The argument, for the error.
        layers: What was given.

    Raises:
        ValueError: It is no list of layers.
    """
    try:
        layers = list(layers)
    except TypeError:
        raise ValueError(f"{name} must be a list of Keras layers, got {layers!r}") from None
    for i, layer in enumerate(layers):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f"{name}[{i}] must be a Keras layer, got {layer!r}")
    return layers


def serialized(name: str, function: Callable[..., Any]) -> Any:
    """A function, or another object that can be called, as Keras writes it into a configuration.

    Args:
        name: The argument, for the error.
        function: What was given.

    Raises:
        ValueError: It could not be loaded again, as a lambda, or what is not registered.

    Example:
        >>> serialized("activation", keras.activations.relu)["config"]
        'relu'
        >>> serialized("rate", len)
        Traceback (most recent call last):
        ...
        ValueError: rate must be registered with keras.saving to be saved, got <built-in function len>
    """
    try:
        known = getattr(function, "__name__", "") != "<lambda>"
        config = keras.saving.serialize_keras_object(function) if known else None
        loaded = keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError, NotImplementedError):
        loaded = None
    same = loaded is function if inspect.isroutine(function) else type(loaded) is type(function)
    if not same:
        raise ValueError(f"{name} must be registered with keras.saving to be saved, got {function!r}")
    return config


def stateful_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The recurrent layers within a layer that carry ``states`` from batch to batch, which Keras does not track."""
    return [one for one in layer._flatten_layers() if getattr(one, "stateful", False)]


def checked_seed(seed: int | keras.random.SeedGenerator | None) -> int | keras.random.SeedGenerator | None:
    """A seed as ``keras.random`` takes it on every backend; an integer of NumPy, which Keras refuses, as Python's.

    Args:
        seed: An integer from 0 to 2³¹ − 1, beyond which backends wrap it or fail; a ``keras.random.SeedGenerator``;
            or None.

    Raises:
        ValueError: It is something else, such as True.

    Example:
        >>> checked_seed(7), checked_seed(None)
        (7, None)
    """
    if seed is None or isinstance(seed, keras.random.SeedGenerator):
        return seed
    if non_negative_integer("seed", seed) >= 2**31:
        raise ValueError(f"seed must be an integer below 2**31, got {seed!r}")
    return int(seed)


def integer_seed(seed: int | keras.random.SeedGenerator | None) -> int | None:
    """A seed as ``keras.layers.Dropout`` takes it and a configuration holds it.

    Args:
        seed: An integer; a ``keras.random.SeedGenerator``, of which one is drawn, so that two layers with the same
            generator differ; or None.

    Raises:
        ValueError: As :func:`checked_seed`.

    Example:
        >>> generator = keras.random.SeedGenerator(7)
        >>> integer_seed(generator) != integer_seed(generator), integer_seed(3)
        (True, 3)
    """
    if isinstance(seed, keras.random.SeedGenerator):
        return int(keras.random.randint((), 0, 2**31 - 1, seed=seed))
    return checked_seed(seed)
