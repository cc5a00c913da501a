"""A module, which is a list of layers, and one step of it: the one that the gate chose, or the mean of both.

What passes from module to module is a tensor or nested tensors. Masks go beside it, since a branch of a condition
cannot attach them to its results: a pair, of which the first layer of all gets the first, such as a mask for each
input, and all layers after it the second, which the first layer has made or handed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops, tree

from ..recompute import LayerSequence, PureCall

__all__ = ["Module", "choose", "is_continuous", "mix", "modules"]

Tensor = Any
Masks = tuple[Any, Any]


class Module(LayerSequence):
    """The layers of a module. What they give carries the mask that the last of them hands on, if it does."""

    def call(self, x: Any, masks: Masks = (None, None), training: bool | None = None) -> Any:
        """What the last layer makes of what the first makes of x."""
        mask, rest = masks
        for layer in self.layers:
            x = self.apply(layer, x, _fitting(mask, x), training)
            mask = rest
        return x

    def compute_mask(self, x: Any, previous_mask: Any = None) -> None:  # noqa: ARG002
        """None, as the last layer has attached its mask itself."""
        return None


def modules(name: str, given: Iterable[keras.layers.Layer | Sequence[keras.layers.Layer]]) -> list[Module]:
    """The modules, one at least, each a layer of layers that follow one another.

    Args:
        name: The argument, for the error.
        given: Layers and lists of layers.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(given, Iterable):
        raise ValueError(f"{name} must be a list of modules, got {given!r}")
    found = [[*module] if isinstance(module, Iterable) else [module] for module in given]
    if not found:
        raise ValueError(f"{name} must be one module at least, got none")
    for i, module in enumerate(found):
        for layer in module or [module]:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(f"{name}[{i}] must be a layer or a list of layers, got {layer!r}")
    return [Module(module, name=f"{name}_{i}") for i, module in enumerate(found)]


def is_continuous(x: Tensor) -> bool:
    """Whether a tensor holds floats or complex numbers."""
    return "float" in (dtype := keras.backend.standardize_dtype(x.dtype)) or "complex" in dtype


def _fitting(mask: Any, x: Any) -> Any:
    """The mask in the structure of x: leaf by leaf in their order, as Keras attaches masks to outputs."""
    masks = tree.flatten(mask)
    if all(one is None for one in masks):
        return None
    count = len(tree.flatten(x))
    return tree.pack_sequence_as(x, [*masks, *[None] * count][:count])


# --- one step ---------------------------------------------------------------------------------------------------


def choose(z: Tensor, predecessor: Module, successor: Module, x: Any, masks: Masks) -> tuple[Any, list[Tensor]]:
    """The output of the module that the gate chose, which alone runs; and the losses that the successor added.

    On JAX nothing may be set in a branch of ``cond``: a dropout would set the state of its random numbers, a batch
    normalization its means. So the branch returns all state, the other one hands the old state through, and it is
    set after both.
    """
    call = PureCall(successor, training=True, masks=False, strict=False)
    tensors = call.flatten((x,), {"masks": masks})

    def run_successor() -> list[Tensor]:
        return call(call.weights, tensors)

    def run_predecessor() -> list[Tensor]:
        return call.unchanged(tensors, _connected(_frozen_output(predecessor, x, masks), call.weights))

    return call.commit(ops.cond(z, run_successor, run_predecessor))


def mix(z: Tensor, predecessor: Module, successor: Module, x: Any, masks: Masks) -> tuple[Any, list[Tensor]]:
    """Of both outputs the one that each sample's gate chose, or their mean with the weights 1 − z and z.

    The successor adds its losses itself.
    """
    y_p, y_s = _frozen_output(predecessor, x, masks), successor(x, masks=masks, training=True)
    return tree.map_structure(lambda a, b: _between(z, a, b), y_p, y_s), []


def _between(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    z = ops.reshape(z, (-1,) + (1,) * (len(a.shape) - 1)) if len(z.shape) else z
    if keras.backend.standardize_dtype(z.dtype) == "bool":
        return ops.where(z, b, a)
    z = ops.cast(z, a.dtype)
    return (1 - z) * a + z * b


def _frozen_output(predecessor: Module, x: Any, masks: Masks) -> Any:
    """The output of a predecessor within a step of training. State that it changes and losses are dropped."""
    call = PureCall(predecessor, training=False, masks=False, strict=False)
    return call.outputs(call(call.weights, call.flatten((x,), {"masks": masks})))


def _connected(outputs: Any, weights: Sequence[Tensor]) -> Any:
    """The outputs, on the first of which that can these weights have an influence of zero.

    Where no graph is traced, on torch and in eager TensorFlow, a weight that was not used would have no gradient
    instead of zero, and a loss that no weight reaches could not be differentiated at all.
    """
    leaves = tree.flatten(outputs)
    for i, y in enumerate(leaves):
        if is_continuous(y):
            leaves[i] = y + sum(0.0 * ops.cast(ops.ravel(weight)[0], y.dtype) for weight in weights)
            break
    return tree.pack_sequence_as(outputs, leaves)
