"""A call of a Keras layer as a pure function of tensors, which can be run again and does the same.

A layer reads more than its arguments: weights, the state of its random numbers, moving statistics, masks that Keras
has attached to tensors, and whether the model is in training. And it does more than return: it sets its state and
adds to the losses. :class:`PureCall` takes all of that as arguments and results::

    call = PureCall(layer, training=True)
    tensors = call.flatten(args, kwargs)      arguments, their masks, and the state
    results = call(call.weights, tensors)     outputs, their masks, the new state, and losses; as often as you like
    outputs, losses = call.commit(results)    stores the new state, once

State are also the metrics of a layer, and what a stateful recurrent layer carries from batch to batch. What is
neither an argument nor a variable of the layer is refused. Chapter 8 runs such a call twice, for its
gradient; chapter 9 runs it as one branch of a condition, whose other is ``call.unchanged(tensors, outputs)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import keras
from keras import ops, tree

from .._backend import float32_or_wider
from .._layers import stateful_layers

__all__ = ["PureCall"]

Tensor = Any


class PureCall:
    """One call of a layer, as a function of its weights and of all other tensors that it reads.

    It holds no tensor that it was given, so that it can be kept for a second run in which all of them are new. The
    next call of the layer is another ``PureCall``.

    Args:
        layer: A built layer.
        training: Whether it is called in training.
        masks: Whether the masks that Keras attaches to tensors come in and go out with them.
        strict: Whether it is refused that the layer reads variables that are not its own, or sets its weights, as a
            second run would not be like the first. If not, what it sets besides its state is dropped.

    Raises:
        ValueError: When called: what ``strict`` refuses.

    Example:
        >>> layer = keras.layers.BatchNormalization(momentum=0.5)
        >>> layer.build((2, 1))
        >>> call = PureCall(layer, training=True)
        >>> tensors = call.flatten((ops.ones((2, 1)),), {})
        >>> results = [call(call.weights, tensors) for _ in range(2)][-1]
        >>> float(layer.moving_mean[0])
        0.0
        >>> y, losses = call.commit(results)
        >>> float(layer.moving_mean[0])
        0.5
    """

    def __init__(
        self, layer: keras.layers.Layer, training: bool | None = None, *, masks: bool = True, strict: bool = True
    ):
        self.layer, self.training, self.masks, self.strict = layer, training, masks, strict
        self._weights, state = layer.trainable_variables, _state(layer)
        self._state = [variable for variable in state if _has_value(variable)]
        self._own = {id(variable) for variable in [*self._weights, *state]}
        self._changed: list[int] = []
        self._loss_dtypes: list[str] = []
        self._old: dict[int, Tensor] = {}

    @property
    def weights(self) -> list[Tensor]:
        """The values of the layer's trainable variables."""
        return [variable.value for variable in self._weights]

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """All tensors of the call but the weights: those in the arguments, their masks, and the state.

        Args:
            args: The arguments, nested as they may be.
            kwargs: Those with names, without ``training``.
        """
        inputs, self._with_inputs = _flatten((args, kwargs))
        masks, self._with_masks = _flatten(_masks(inputs) if self.masks else [None] * len(inputs))
        self._lengths = len(inputs), len(masks)
        return [*inputs, *masks, *(variable.value for variable in self._state)]

    def __call__(self, weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the layer makes of these tensors: outputs, their masks, changed state, and a number a loss."""
        inputs, masks, state = _split(tensors, *self._lengths)
        args, kwargs = self._with_inputs(_masked([inputs, self._with_masks(masks)]))
        state = [self._old.get(i, ops.stop_gradient(value)) for i, value in enumerate(state)]
        around = _training()
        with self._scope(weights, state) as scope:
            before = [scope.get_current_value(variable) for variable in self._state]
            results = _called(run=lambda: self.layer(*args, **kwargs), training=self.training)
            after = [scope.get_current_value(variable) for variable in self._state]
        _called(run=lambda: None, training=around)  # else what comes after finds what was told to this layer
        self._changed = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if new is not old]
        losses = [float32_or_wider(ops.sum(loss)) for loss in tree.flatten(scope.losses)]
        self._loss_dtypes = [keras.backend.standardize_dtype(loss.dtype) for loss in losses]
        if keras.backend.backend() == "torch":  # where a variable changes in place
            self._old = self._old or {i: ops.copy(before[i]) for i in self._changed}
        return [*self._flatten_outputs(results), *(after[i] for i in self._changed), *losses]

    def unchanged(self, tensors: Sequence[Tensor], outputs: Any) -> list[Tensor]:
        """Results as of a call that gave other outputs, changed no state, and added losses of 0.

        Args:
            tensors: Those of the call, from :meth:`flatten`.
            outputs: Of the structure, shapes and dtypes that the layer gives.

        Example:
            >>> layer = keras.layers.Dropout(0.5, seed=0)
            >>> call, x = PureCall(layer, training=True, masks=False), ops.ones((2, 2))
            >>> tensors = call.flatten((x,), {})
            >>> run, skip = (lambda: call(call.weights, tensors)), (lambda: call.unchanged(tensors, x))
            >>> y, _ = call.commit(ops.cond(ops.convert_to_tensor(False), run, skip))
            >>> float(ops.sum(y))
            4.0
        """
        *_, state = _split(tensors, *self._lengths)
        losses = [ops.zeros((), dtype) for dtype in self._loss_dtypes]
        return [*self._flatten_outputs(outputs), *(ops.convert_to_tensor(state[i]) for i in self._changed), *losses]

    def outputs(self, results: Sequence[Tensor]) -> Any:
        """The outputs with their masks. Nothing is stored."""
        outputs, masks, _ = _split(results, *self._output_lengths)
        return self._with_outputs(_masked([outputs, self._with_output_masks(masks)]))

    def commit(self, results: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """Stores the new state, and returns the outputs with their masks, and the losses that the layer added."""
        *_, state, losses = _split(results, *self._output_lengths, len(self._changed))
        for i, value in zip(self._changed, state, strict=True):
            self._state[i].assign(value)
        return self.outputs(results), losses

    def _scope(self, weights: Sequence[Tensor], state: Sequence[Tensor]) -> keras.StatelessScope:
        if self.strict:
            return _OwnVariables(self.layer, self._own, self._weights, weights, self._state, state)
        values = [*zip(self._weights, weights, strict=True), *zip(self._state, state, strict=True)]
        return keras.StatelessScope(values, collect_losses=True, initialize_variables=False)

    def _flatten_outputs(self, results: Any) -> list[Tensor]:
        outputs, self._with_outputs = _flatten(results)
        masks, self._with_output_masks = _flatten(_masks(outputs) if self.masks else [None] * len(outputs))
        self._output_lengths = len(outputs), len(masks)
        return [*outputs, *masks]


class _OwnVariables(keras.StatelessScope):
    """Within it, a layer finds the given values in its variables, no others, and may set its state alone."""

    def __init__(
        self,
        layer: keras.layers.Layer,
        own: set[int],
        weights: Sequence[keras.Variable],
        weight_values: Sequence[Tensor],
        state: Sequence[keras.Variable],
        state_values: Sequence[Tensor],
    ):
        self._name, self._own, self._weights = layer.name, own, {id(variable) for variable in weights}
        values = [*zip(weights, weight_values, strict=True), *zip(state, state_values, strict=True)]
        super().__init__(values, collect_losses=True, initialize_variables=False)

    def get_current_value(self, variable: keras.Variable) -> Tensor:
        self._require_own(variable)
        return super().get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        variable, _ = update
        self._require_own(variable)
        if id(variable) in self._weights:
            raise ValueError(
                f"function: {self._name} sets its trainable weight {variable.path!r} while it runs, so it cannot "
                "be run again as it ran"
            )
        super().add_update(update)

    def _require_own(self, variable: keras.Variable) -> None:
        if id(variable) in self._own:
            return
        advice = (
            "let one of its layers have it as an attribute, and name all layers: recompute(function, layers=[...])"
        )
        if "seed_generator" in variable.path:
            advice = "draw random numbers from a keras.random.SeedGenerator that is an attribute of a layer"
        raise ValueError(
            f"function: {self._name} uses the variable {variable.path!r}, which belongs to none of its layers, so "
            f"it cannot be run again as it ran; {advice}"
        )


def _state(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that a call may set, among them what Keras lists apart: metrics; or not at all: ``states``."""
    carried = [state for one in stateful_layers(layer) for state in tree.flatten(one.states) if state is not None]
    variables = [*layer.non_trainable_variables, *layer.metrics_variables, *carried]
    return list({id(variable): variable for variable in variables}.values())


def _has_value(variable: keras.Variable) -> bool:
    """False for a metric in ``fit`` on JAX, where Keras takes its value away and lets no layer update it."""
    try:
        return variable.value is not None
    except TypeError:
        return False


# --- what Keras does around a call -----------------------------------------------------------------------------


class _Call(keras.layers.Layer):
    """Runs a function as part of a call: a layer that is not told whether it is in training finds it there.

    The first run of a recomputed layer is part of the call of its model, the second one is part of none.
    """

    def call(self, run: Callable[[], Any], training: bool | None = None) -> Any:  # noqa: ARG002
        return run()


class _Training(keras.layers.Layer):
    """Whether the call of which it is a part is in training."""

    def call(self, training: bool | None = None) -> Any:
        return training


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


_called, _training, _masks, _masked = (
    kind(name="again", dtype="float32", autocast=False) for kind in (_Call, _Training, _Masks, _Masked)
)
for _layer in (_called, _training, _masks, _masked):
    _layer.built = True  # there is nothing to build, and Keras 3.8 would ask each None for its shape


# --- nested structures -----------------------------------------------------------------------------------------


def _flatten(structure: Any) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], Any]]:
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


def _split(values: Iterable[Any], *lengths: int) -> list[list[Any]]:
    """Parts of these lengths, and then the rest."""
    values = iter(values)
    return [*([*islice(values, length)] for length in lengths), [*values]]
