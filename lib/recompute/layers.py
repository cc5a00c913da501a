"""Layers around layers: they keep their inputs, and compute again what lies between when the gradient asks for it.

For the gradient of a layer y = f(x; w) its backward pass needs what f computed on the way, and so every layer of
a network keeps that until the gradient comes back to it. A recomputed layer keeps x alone::

    forward    y = f(x; w, s)        x and the state s are kept, the rest is freed
    backward   f(x; w, s) again      with all it computes on the way, then its gradient; then that is freed too

Memory falls from the sum over all layers to the inputs of all layers plus *one* layer; time grows by one forward
pass. The result is the same only if the second f is the same function as the first. So a call of a layer is made a
pure function: everything it reads besides its arguments, weights w and state s alike, goes in, and the new state
comes out and is stored once. Hence a dropout draws the same mask again, and a batch normalization counts a batch
once. Two modules do that: ``lib.recompute.pure_call`` (a call as a function of tensors, on any backend) and
``lib.recompute.rematerialize`` (a function of tensors that keeps its arguments only; nothing else knows a backend).

================================= ==============================================================================
:func:`recompute`                 a layer or a function → a layer that keeps its inputs only
:func:`checkpoint_sequence`       a list of layers → one layer, cut into segments that keep their inputs only
:func:`links`                     the finest pieces into which such a list can be cut
================================= ==============================================================================

Where to cut is the subject of ``lib.recompute.checkpoints``: :func:`~lib.recompute.plan` finds the cuts that
lengthen a step least within a memory budget, :func:`~lib.recompute.forecast` says in advance what any cuts will
take.

Source: Chen et al. 2016 (arXiv 1604.06174); Su Jianlin, https://kexue.fm/archives/7367, where recomputation comes
to Keras by a decorated ``call``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import keras
from keras import tree

from .._arguments import items, non_negative_integer, one_of, positive_integer
from .._layers import BuiltBySymbols, all_layers, serialized, stateful_layers, takes
from .._tensors import require_dense
from .checkpoints import Plan, checked_kept, equal_cuts, sqrt_cuts
from .pure_call import PureCall
from .rematerialize import replay

__all__ = [
    "CheckpointedSequence",
    "LayerSequence",
    "Link",
    "Recompute",
    "checkpoint_sequence",
    "links",
    "recompute",
]

Tensor = Any
Shape = tuple[int | None, ...]

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


# --- one layer ------------------------------------------------------------------------------------------------


def recompute(
    function: keras.layers.Layer | Callable[..., Any], layers: Iterable[keras.layers.Layer] = (), **kwargs: Any
) -> Recompute:
    """A layer that does what the given layer or function does, and keeps nothing for the gradient but its inputs.

    Values and gradients are the same, in eager mode, in graphs, under XLA and in ``fit``. A segment is worth it if
    it computes much on the way from its inputs to its outputs: a single addition has nothing to forget, and a
    whole network must be computed again with all that it forgot.

    Args:
        function: A layer; or a function of tensors, called with ``mask=`` and ``training=`` if it has arguments
            of these names. A gradient reaches the tensors it is given, not those it takes from elsewhere.
        layers: If ``function`` is a function: all layers that it uses.
        **kwargs: Arguments of every Keras layer.

    Returns:
        The layer, which shares its weights with what it is made of. It is saved and loaded like any other; a
        function must be registered with ``keras.saving`` for that. Derivatives are right in any order and mode, see
        :func:`replay`.

    Raises:
        ValueError: ``function`` cannot be called, or is a class, or ``layers`` are given beside a layer. When
            called: an input is sparse or ragged; or it reads or changes a Keras variable that belongs to none of
            its layers, so its second run would not be as its first. This includes the seed of random numbers that
            are drawn without one. Numbers drawn from other generators than those of Keras, as ``np.random``, cannot
            be seen: the second run draws other ones. Nor can it be seen, on torch, that an input without gradient
            was changed in place between the runs. When saved: a function is not registered.

    Warns:
        RuntimeWarning: Once, on JAX on a CPU, where XLA undoes the saving.

    Example:
        >>> import numpy as np
        >>> x = np.ones((2, 8), "float32")
        >>> dense = keras.layers.Dense(4, activation="gelu")
        >>> thrifty = recompute(dense)
        >>> bool(keras.ops.all(thrifty(x) == dense(x)))
        True
        >>> tuple(recompute(lambda x: x + dense(x)[:, :1], layers=[dense])(x).shape)
        (2, 8)
    """
    if isinstance(function, keras.layers.Layer):
        if layers := items("layers", layers):
            raise ValueError(f"layers must be empty beside a layer, got {layers}")
        return Recompute(function, **kwargs)
    return Recompute(Link(function, layers), **kwargs)


class _AnyArguments(BuiltBySymbols):
    """A layer with any named arguments, of which Keras refuses a mixture of tensors and others as ``**named``."""

    def __call__(self, *args: Any, settings: dict[str, Any] | None = None, **named: Any) -> Any:
        """Calls the layer with what is no tensor in ``settings``."""
        settings = dict(settings or {})
        for name in [name for name in named if name not in ("mask", "training")]:
            if not any(hasattr(leaf, "shape") for leaf in tree.flatten(named[name])):
                settings[name] = named.pop(name)
        return super().__call__(*args, **named, **({"settings": settings} if settings else {}))


@_serializable
class Recompute(_AnyArguments):
    """A layer that keeps its inputs only, see :func:`recompute`.

    Args:
        layer: The layer that is recomputed; any arguments, any nested outputs, masks that are arguments or
            that Keras attaches to tensors.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(**{"dtype": layer.dtype_policy, **kwargs, "autocast": False})
        self.layer = layer
        self.supports_masking = True

    def build_from(self, *args: Any, settings: dict[str, Any] | None = None, **named: Any) -> None:
        """Builds the layer."""
        if self.layer.built:
            return
        if stateful_layers(self.layer):  # makes variables that Keras refuses to make while it infers shapes
            self.layer(*args, **named, **(settings or {}))
        else:
            # Not a plain call, which in Keras must return nothing but tensors.
            call = type(type(self.layer).__name__, (SimpleNamespace,), {})(call=self.layer, name=self.layer.name)
            keras.Operation.compute_output_spec(call, *args, **named, **(settings or {}))

    def build(self, x_shape: Shape) -> None:
        """Builds the layer for an input, or several, of these shapes."""
        if not self.layer.built:
            self.layer.build(x_shape)

    def call(
        self,
        x: Any,
        *others: Any,
        mask: Any = None,
        training: bool | None = None,
        settings: dict[str, Any] | None = None,
        **named: Any,
    ) -> Any:
        """What the layer makes of these arguments."""
        for name, value in {"x": x, "others": others, **named}.items():
            for leaf in tree.flatten(value):
                require_dense(name, leaf)
        named = {**named, **(settings or {})}
        if mask is not None and takes(self.layer.call, "mask"):
            named["mask"] = mask
        call = PureCall(self.layer, training)
        tensors = call.flatten((x, *others), named)
        outputs, losses = call.commit(replay(call, call.weights, tensors))
        for loss in losses:
            self.add_loss(loss)
        return outputs

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask that the layer hands on."""
        return self.layer.compute_mask(inputs, previous_mask) if self.layer.supports_masking else None

    def compute_output_shape(self, *shapes: Any, **named: Any) -> Any:
        """As the layer."""
        return self.layer.compute_output_shape(*shapes, **named)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Recompute:
        """Returns the layer that has this configuration."""
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


@_serializable
class Link(_AnyArguments):
    """A function as a layer, with the layers that it uses.

    Args:
        function: Of tensors, and of ``mask`` and ``training`` if it has arguments of these names.
        layers: All layers that it uses.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``function`` cannot be called or is a class, or one of ``layers`` is not a layer. When built: a
            stateful recurrent layer is not. When saved: ``function`` is not registered with ``keras.saving``.

    Example:
        >>> dense = keras.layers.Dense(4)
        >>> tuple(Link(lambda x: x + dense(x), [dense])(keras.ops.ones((2, 4))).shape)
        (2, 4)
    """

    def __init__(self, function: Callable[..., Any], layers: Iterable[keras.layers.Layer] = (), **kwargs: Any):
        if not callable(function) or isinstance(function, type):
            raise ValueError(f"function must be a layer or a function, got {function!r}")
        super().__init__(**{"autocast": False, **kwargs})
        self.function, self.layers = function, all_layers("layers", layers)
        self.supports_masking = True

    def build_from(self, *args: Any, **named: Any) -> None:
        """The layers are built by the function's first call."""
        unbuilt = [layer for layer in self.layers if not layer.built]
        if stateful := [one for layer in unbuilt for one in stateful_layers(layer)]:
            raise ValueError(f"layers: {stateful[0].name!r} is stateful and must be built before")
        if unbuilt:
            keras.Operation.compute_output_spec(self, *args, **named)

    def call(
        self,
        x: Any,
        *others: Any,
        mask: Any = None,
        training: bool | None = None,
        settings: dict[str, Any] | None = None,
        **named: Any,
    ) -> Any:
        """What the function makes of these arguments."""
        told = {"mask": mask, "training": training}
        told = {name: value for name, value in told.items() if takes(self.function, name)}
        return self.function(x, *others, **told, **named, **(settings or {}))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        save = keras.saving.serialize_keras_object
        function = serialized("function", self.function)
        return {**super().get_config(), "function": function, "layers": [save(x) for x in self.layers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Link:
        """Returns the layer that has this configuration."""
        load = keras.saving.deserialize_keras_object
        function, layers = load(config["function"]), [load(layer) for layer in config["layers"]]
        return cls(**{**config, "function": function, "layers": layers})


# --- a chain of layers ----------------------------------------------------------------------------------------


def checkpoint_sequence(
    layers: Iterable[keras.layers.Layer],
    segments: str | int | Sequence[int] | Plan = "layers",
    kept: Sequence[bool] | None = None,
    **kwargs: Any,
) -> CheckpointedSequence:
    """One layer that applies layers in their order, cut into segments that keep nothing but their inputs.

    What is cut are the :func:`links` of the layers. A good place is where little passes and where the next
    operation begins with a norm: of a segment that ends with a matrix product and a sum, that product need not be
    computed again, since no gradient reads its result.

    Args:
        layers: Layers with one input of any structure that is the output of the one before. Of ``mask`` and
            ``training`` each gets what its ``call`` takes; all get the same mask.
        segments: Where to cut. ``"layers"``: each layer is a segment. ``"norms"``: a segment begins at each
            normalization. ``"sqrt"``: :func:`sqrt_cuts`, or a number of segments: :func:`equal_cuts` of the links.
            A list: the number of the first link of each segment, the first is 0. A plan: of :func:`plan` and its
            like, with costs for each link.
        kept: For each segment whether it is left as it is. By default the last one is, whose activations are
            needed at once, or as the plan says.
        **kwargs: Arguments of every Keras layer.

    Returns:
        The layer, which shares its weights with the given ones. It takes the place of all blocks of an encoder:
        ``Encoder(bert.embeddings, [checkpoint_sequence(bert.blocks, "norms")])``.

    Raises:
        ValueError: No layers, or something that is none; ``segments`` or ``kept`` does not fit, which in part is
            known only when the layer is built.

    Example:
        >>> blocks = [keras.layers.Dense(4, activation="tanh") for _ in range(9)]
        >>> chain = checkpoint_sequence(blocks, "sqrt")
        >>> tuple(chain(keras.ops.ones((2, 4))).shape), chain.cuts
        ((2, 4), (0, 3, 6))
    """
    if isinstance(segments, Plan):
        segments, kept = segments.cuts, segments.kept if kept is None else kept
    return CheckpointedSequence(layers, segments, kept, **kwargs)


def links(layers: Iterable[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """The finest pieces into which a list of layers can be cut.

    Args:
        layers: Built layers. One that is a chain itself says so by a method ``links()``, which returns a list of
            functions with the layers they use, or layers with nothing; see ``lib.bert.Block.links``.

    Example:
        >>> from lib.bert import Block, SelfAttention
        >>> block = Block(SelfAttention(num_heads=2), inner=32)
        >>> block.build((None, 3, 8))
        >>> [link.name for link in links([block])]
        ['attend', 'attention_norm', 'feed_forward', 'norm']
    """
    found: list[keras.layers.Layer] = []
    for layer in all_layers("layers", layers):
        pieces = layer.links() if hasattr(layer, "links") else [(layer, ())]
        for function, used in pieces:
            is_layer = isinstance(function, keras.layers.Layer)
            like = {"dtype": layer.dtype_policy, "autocast": layer.autocast}
            found.append(function if is_layer else Link(function, used, name=function.__name__, **like))
    return found


@_serializable
class LayerSequence(BuiltBySymbols):
    """Layers one after another, each with the same mask.

    Args:
        layers: See :func:`checkpoint_sequence`.
        **kwargs: Arguments of every Keras layer.

    Example:
        >>> tuple(LayerSequence([keras.layers.Dense(3), keras.layers.Dense(5)])(keras.ops.ones((2, 4))).shape)
        (2, 5)
    """

    def __init__(self, layers: Iterable[keras.layers.Layer], **kwargs: Any):
        super().__init__(**{**kwargs, "autocast": False})
        self.layers = all_layers("layers", layers)
        if not self.layers:
            raise ValueError("layers must be one at least, got none")
        self.supports_masking = True

    def build_from(self, x: Any, **_: Any) -> None:
        """Builds the layers, each for what the one before it gives."""
        if not all(layer.built for layer in self.layers):
            for layer in self.layers:
                x = layer(x)

    def call(self, x: Any, mask: Any = None, training: bool | None = None) -> Any:
        """What the last layer makes of what the first makes of x."""
        for layer in self.layers:
            x = self.apply(layer, x, mask, training)
        return x

    @staticmethod
    def apply(layer: keras.layers.Layer, x: Any, mask: Any, training: bool | None) -> Any:
        """What a layer makes of x, with the mask if its ``call`` takes one."""
        told = {"mask": mask} if mask is not None and takes(layer.call, "mask") else {}
        return layer(x, training=training, **told)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "layers": [keras.saving.serialize_keras_object(x) for x in self.layers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LayerSequence:
        """Returns the layer that has this configuration."""
        return cls(**{**config, "layers": [keras.saving.deserialize_keras_object(x) for x in config["layers"]]})


@_serializable
class CheckpointedSequence(LayerSequence):
    """Layers one after another, cut into segments that keep their inputs only; see :func:`checkpoint_sequence`.

    Args:
        layers: As there.
        segments: As there, no plan.
        kept: As there.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(
        self,
        layers: Iterable[keras.layers.Layer],
        segments: str | int | Sequence[int] = "layers",
        kept: Sequence[bool] | None = None,
        **kwargs: Any,
    ):
        super().__init__(layers, **kwargs)
        self._config = {"segments": _checked_segments(segments)}
        self._config["kept"] = None if kept is None else [*checked_kept(kept)]

    def build_from(self, x: Any, **_: Any) -> None:
        """Builds the layers and cuts them."""
        super().build_from(x)
        self._cut(links(self.layers))

    def call(self, x: Any, mask: Any = None, training: bool | None = None) -> Any:
        """What the last layer makes of what the first makes of x."""
        for segment in self.segments:
            x = segment(x, mask=mask, training=training)
        return x

    def _cut(self, pieces: list[keras.layers.Layer]) -> None:
        self.cuts = self._cuts_of(pieces)
        kept = self._config["kept"]
        kept = [*[False] * (len(self.cuts) - 1), True] if kept is None else kept
        if len(kept) != len(self.cuts):
            raise ValueError(f"kept must have one value for each of {len(self.cuts)} segments, got {len(kept)}")
        segments = [LayerSequence(pieces[a:b]) for a, b in pairwise([*self.cuts, len(pieces)])]
        for segment in segments:
            segment.built = True  # as all links are; a first call need not try them with symbols
        self.segments = [one if stays else Recompute(one) for one, stays in zip(segments, kept, strict=True)]

    def _cuts_of(self, pieces: list[keras.layers.Layer]) -> tuple[int, ...]:
        segments, n = self._config["segments"], len(pieces)
        if segments == "layers":
            sizes = [len(links([layer])) for layer in self.layers]
            return tuple(sum(sizes[:i]) for i in range(len(sizes)))
        if segments == "norms":
            norms = (i for i, piece in enumerate(pieces) if type(piece).__name__.endswith("Normalization"))
            return tuple(sorted({0, *norms}))
        if segments == "sqrt":
            return sqrt_cuts(n)
        if isinstance(segments, int):
            return equal_cuts(n, segments)
        if not segments or segments[0] != 0 or any(a >= b for a, b in pairwise([*segments, n])):
            raise ValueError(f"segments must be increasing numbers of links from 0 to below {n}, got {segments}")
        return tuple(segments)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), **self._config}


def _checked_segments(segments: Any) -> str | int | list[int]:
    if isinstance(segments, str):
        return one_of("segments", segments, ("layers", "norms", "sqrt"))
    if isinstance(segments, Iterable):
        return [non_negative_integer(f"segments[{i}]", one) for i, one in enumerate(segments)]
    return positive_integer("segments", segments)
