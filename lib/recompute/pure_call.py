"""A call of a Keras layer as a pure function of tensors, which can be run again and does the same.

A layer reads more than its arguments: weights, the state of its random numbers, moving statistics, masks that Keras
has attached to tensors, and whether the model is in training. And it does more than return: it sets its state and
adds to the losses. :class:`PureCall` takes all of that as arguments and results::

    call = PureCall(layer, training=True)
    tensors = call.opened(args, kwargs)       arguments, their masks, and the state
    results = call(call.weights, tensors)     outputs, their masks, the new state, and losses; as often as you like
    outputs, losses = call.closed(results)    stores the new state, once

What is neither an argument nor a variable of the layer is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import keras
from keras import ops, tree

__all__ = ["PureCall"]

Tensor = Any


class PureCall:
    """One call of a layer, as a function of its weights and of all other tensors that it reads.

    It holds no tensor that it was given, so that it can be kept for a second run in which all of them are new. The
    next call of the layer is another ``PureCall``.

    Args:
        layer: A built layer.
        training: Whether it is called in training.

    Example:
        >>> layer = keras.layers.BatchNormalization(momentum=0.5)
        >>> layer.build((2, 1))
        >>> call = PureCall(layer, training=True)
        >>> tensors = call.opened((ops.ones((2, 1)),), {})
        >>> results = [call(call.weights, tensors) for _ in range(2)][-1]
        >>> float(layer.moving_mean[0])
        0.0
        >>> y, losses = call.closed(results)
        >>> float(layer.moving_mean[0])
        0.5
    """

    def __init__(self, layer: keras.layers.Layer, training: bool | None = None):
        self.layer, self.training = layer, training
        self._weights, self._state = layer.trainable_variables, layer.non_trainable_variables
        self._changed: list[keras.Variable] = []
        self._old: dict[int, Tensor] = {}

    @property
    def weights(self) -> list[Tensor]:
        """The values of the layer's trainable variables."""
        return [variable.value for variable in self._weights]

    def opened(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """All tensors of the call but the weights: those in the arguments, their masks, and the state.

        Args:
            args: The arguments, nested as they may be.
            kwargs: Those with names, without ``training``.
        """
        inputs, self._with_inputs = _opened((args, kwargs))
        masks, self._with_masks = _opened(_masks(inputs))
        self._lengths = len(inputs), len(masks)
        return [*inputs, *masks, *(variable.value for variable in self._state)]

    def __call__(self, weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the layer makes of these tensors: outputs, their masks, the state that has changed, and losses."""
        inputs, masks, state = _parts(tensors, *self._lengths)
        args, kwargs = self._with_inputs(_masked([inputs, self._with_masks(masks)]))
        state = [self._old.get(i, ops.stop_gradient(value)) for i, value in enumerate(state)]
        with _OwnVariables(self.layer, self._weights, weights, self._state, state) as scope:
            before = [scope.get_current_value(variable) for variable in self._state]
            results = _called(run=lambda: self.layer(*args, **kwargs), training=self.training)
            after = [scope.get_current_value(variable) for variable in self._state]
        outputs, self._with_outputs = _opened(results)
        output_masks, self._with_output_masks = _opened(_masks(outputs))
        changed = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if new is not old]
        self._changed = [self._state[i] for i in changed]
        self._output_lengths = len(outputs), len(output_masks), len(changed)
        if keras.backend.backend() == "torch":  # where a variable changes in place
            self._old = self._old or {i: ops.copy(before[i]) for i in changed}
        return [*outputs, *output_masks, *(after[i] for i in changed), *tree.flatten(scope.losses)]

    def closed(self, results: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """Stores the new state, and returns the outputs with their masks, and the losses that the layer added."""
        outputs, masks, state, losses = _parts(results, *self._output_lengths)
        for variable, value in zip(self._changed, state, strict=True):
            variable.assign(value)
        return self._with_outputs(_masked([outputs, self._with_output_masks(masks)])), losses


class _OwnVariables(keras.StatelessScope):
    """Within it, a layer finds the given values in its variables, no others, and may set its state alone."""

    def __init__(
        self,
        layer: keras.layers.Layer,
        weights: Sequence[keras.Variable],
        weight_values: Sequence[Tensor],
        state: Sequence[keras.Variable],
        state_values: Sequence[Tensor],
    ):
        self._name, self._state = layer.name, {id(variable) for variable in state}
        self._own = self._state | {id(variable) for variable in weights}
        values = [*zip(weights, weight_values, strict=True), *zip(state, state_values, strict=True)]
        super().__init__(values, collect_losses=True, initialize_variables=False)

    def get_current_value(self, variable: keras.Variable) -> Tensor:
        self._require_own(variable)
        return super().get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        variable, _ = update
        self._require_own(variable)
        if id(variable) not in self._state:
            raise ValueError(
                f"function: {self._name} sets its trainable weight {variable.path!r} while it runs, so it cannot "
                "be run again as it ran"
            )
        super().add_update(update)

    def _require_own(self, variable: keras.Variable) -> None:
        if id(variable) in self._own:
            return
        advice = "name the layer it belongs to: recompute(function, layers=[...])"
        if "seed_generator" in variable.path:
            advice = "draw random numbers from a keras.random.SeedGenerator that is an attribute of a layer"
        raise ValueError(
            f"function: {self._name} uses the variable {variable.path!r}, which belongs to none of its layers, so "
            f"it cannot be run again as it ran; {advice}"
        )


# --- what Keras does around a call -----------------------------------------------------------------------------


class _Call(keras.layers.Layer):
    """Runs a function as part of a call: a layer that is not told whether it is in training finds it there.

    The first run of a recomputed layer is part of the call of its model, the second one is part of none.
    """

    def call(self, run: Callable[[], Any], training: bool | None = None) -> Any:  # noqa: ARG002
        return run()


class _Masks(keras.layers.Layer):
    """The masks that Keras has attached to tensors."""

    def call(self, tensors: list[Tensor], mask: list[Tensor | None] | None = None) -> Any:  # noqa: ARG002
        return mask

    def compute_mask(self, tensors: list[Tensor], _: Any) -> None:  # noqa: ARG002
        return None


class _Masked(keras.layers.Layer):
    """Tensors with masks, which Keras attaches to them."""

    def call(self, tensors_and_masks: list[list[Tensor | None]]) -> list[Tensor]:
        return tensors_and_masks[0]

    def compute_mask(self, tensors_and_masks: list[list[Tensor | None]], _: Any) -> list[Tensor | None]:
        return tensors_and_masks[1]


_called, _masks, _masked = (
    kind(name="again", dtype="float32", autocast=False) for kind in (_Call, _Masks, _Masked)
)
for _layer in (_called, _masks, _masked):
    _layer.built = True  # there is nothing to build, and Keras 3.8 would ask each None for its shape


# --- nested structures -----------------------------------------------------------------------------------------


def _opened(structure: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
    """The tensors in a nested structure, and a function that puts other ones in their places."""
    leaves = tree.flatten(structure)
    places = [i for i, leaf in enumerate(leaves) if ops.is_tensor(leaf)]
    # What is put back must not hold the tensors that are to be forgotten.
    others = [None if i in places else leaf for i, leaf in enumerate(leaves)]
    shape = tree.map_structure(lambda _: 0, structure)

    def filled(tensors: Sequence[Tensor]) -> Any:
        new = list(others)
        for place, tensor in zip(places, tensors, strict=True):
            new[place] = tensor
        return tree.pack_sequence_as(shape, new)

    return [leaves[i] for i in places], filled


def _parts(values: Iterable[Any], *lengths: int) -> list[list[Any]]:
    """Parts of these lengths, and then the rest."""
    values = iter(values)
    return [*([*islice(values, length)] for length in lengths), [*values]]
