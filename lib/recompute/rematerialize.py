"""Run a pure function now, keep nothing but its arguments, and run it again when its gradient is asked for.

What the backends have for this differs, and each has its trap:

============ ==================================================================================================
TensorFlow   ``tf.custom_gradient``. A graph has no order but that of its data, so it must be told that the second
             run comes after the gradient has arrived, and that the gradients leave together.
JAX          ``jax.checkpoint``. On a CPU, XLA finds that both runs are the same and merges them.
torch        a function of ``torch.autograd``. ``torch.utils.checkpoint`` ends its second run by an exception, and
             Keras' tracebacks hold what was computed until then.
============ ==================================================================================================

Source: Chen et al. 2016 (arXiv 1604.06174).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from typing import Any

import keras

__all__ = ["replay"]

Tensor = Any


def replay(
    function: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
    weights: Sequence[Tensor],
    tensors: Sequence[Tensor],
) -> list[Tensor]:
    """``function(weights, tensors)``, keeping nothing for its gradient but what it is given.

    Args:
        function: A pure function: of equal arguments it makes equal results, and reads nothing else that a
            gradient should reach. It returns a list of tensors.
        weights: Tensors that are there all the time, such as the values of variables.
        tensors: Tensors of any dtype. The gradient reaches the floating ones, and the weights.

    Returns:
        The list of tensors that the function returns.

    Raises:
        NotImplementedError: The backend of Keras is not TensorFlow, JAX or torch; or a second derivative is asked
            for on torch.

    Warns:
        RuntimeWarning: Once, on JAX on a CPU, where XLA undoes the saving.

    Example:
        >>> from keras import ops
        >>> w, x = ops.ones((2, 2)), ops.ones((1, 2))
        >>> [y] = replay(lambda weights, tensors: [ops.matmul(tensors[0], weights[0])], [w], [x])
        >>> ops.convert_to_numpy(y).tolist()
        [[2.0, 2.0]]
    """
    backend = keras.backend.backend()
    if backend not in _REPLAYS:
        raise NotImplementedError(f"recomputation needs TensorFlow, JAX or torch, the backend is {backend}")
    return list(_REPLAYS[backend](function, list(weights), list(tensors)))


def _replay_tensorflow(function: Callable, weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    tf = import_module("tensorflow")
    split = len(weights)
    # An eager tape would keep all it sees. In a graph nothing is kept but what a gradient asks for.
    unseen = tf.init_scope if tf.executing_eagerly() else nullcontext

    @tf.custom_gradient
    def run(*arguments: Tensor) -> tuple[list[Tensor], Callable]:
        with unseen():
            outputs = function(arguments[:split], arguments[split:])

        def gradient(*upstream: Tensor) -> list[Tensor | None]:
            again = _not_before(upstream, arguments[:split], arguments[split:])
            floating = [i for i, x in enumerate(again) if x.dtype.is_floating]
            with tf.GradientTape() as tape:
                tape.watch([again[i] for i in floating])
                results = function(again[:split], again[split:])
            targets, upstream_of = zip(*_floating_pairs(results, upstream), strict=True)
            found = tape.gradient(targets, [again[i] for i in floating], upstream_of)
            gradients: list[Tensor | None] = [None] * len(again)
            for i, one in zip(floating, _all_at_once(found), strict=True):
                gradients[i] = one
            return gradients

        return outputs, gradient

    return run(*map(tf.convert_to_tensor, [*weights, *tensors]))  # a variable may change before the second run


def _floating_pairs(results: Sequence[Tensor], upstream: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(y, dy) for y, dy in zip(results, upstream, strict=True) if y.dtype.is_floating]


def _not_before(upstream: Sequence[Tensor], weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The weights and tensors, but in a graph only after the gradient has arrived.

    Else TensorFlow would compute everything again at the very start, and XLA would find that it has been computed
    already; nothing would be saved. TensorFlow respects a control dependency, XLA respects data only. So a number
    is added to each tensor that is never anything but 0, which no compiler can know.
    """
    tf = import_module("tensorflow")
    if tf.executing_eagerly():
        return [*weights, *tensors]
    first = next(tf.reshape(dy, [-1])[:1] for dy in upstream if dy.dtype.is_floating)
    never = tf.reduce_any(tf.math.is_nan(first) & tf.math.is_inf(first))
    with tf.control_dependencies([never]):
        late = [tf.identity(w) for w in weights]
    return late + [tf.logical_or(x, never) if x.dtype.is_bool else x + tf.cast(never, x.dtype) for x in tensors]


def _all_at_once(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients, none of them before all are there.

    Else the layers below would begin their own recomputation while that of this one is still held for the
    gradients of its weights, and layer would pile on layer.
    """
    tf = import_module("tensorflow")
    with tf.control_dependencies([one for one in gradients if one is not None]):
        return [None if one is None else tf.identity(one) for one in gradients]


def _replay_jax(function: Callable, weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    _warn_if_undone()
    return import_module("jax").checkpoint(function)(weights, tensors)


@cache
def _warn_if_undone() -> None:
    if import_module("jax").default_backend() == "cpu":
        warnings.warn(
            "On a CPU, XLA merges the recomputation with the forward pass: results and gradients are right, but "
            "no memory is saved",
            RuntimeWarning,
            stacklevel=2,
        )


def _replay_torch(function: Callable, weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    return list(_torch_replay().apply(function, len(weights), *weights, *tensors))


@cache
def _torch_replay() -> Any:
    """The function of torch.autograd, which draws the same random numbers again from torch's own generators.

    torch.utils.checkpoint is no help under Keras: it ends the second run by an exception, and the traceback that
    Keras keeps of it holds all tensors of the segment until Python collects its garbage.
    """
    torch = import_module("torch")

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, function: Callable, split: int, *tensors: Tensor) -> tuple[Tensor, ...]:
            ctx.function, ctx.split = function, split
            ctx.devices = sorted({x.device.index for x in tensors if x.is_cuda})
            ctx.random = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, ctx.devices)]
            # What needs no gradient may be state, which changes in place; torch would refuse it as changed.
            ctx.others = [None if x.requires_grad else x for x in tensors]
            ctx.save_for_backward(*(x for x in tensors if x.requires_grad))
            outputs = tuple(function(tensors[:split], tensors[split:]))
            ctx.mark_non_differentiable(*(y for y in outputs if not y.is_floating_point()))
            return outputs

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
            if torch.is_grad_enabled():
                raise NotImplementedError("on torch a recomputed layer has no second derivative")
            saved = iter(ctx.saved_tensors)
            again = [next(saved).detach().requires_grad_() if x is None else x for x in ctx.others]
            sources = [x for x in again if x.requires_grad]
            with torch.random.fork_rng(ctx.devices), torch.enable_grad():
                torch.set_rng_state(ctx.random[0])
                for device, state in zip(ctx.devices, ctx.random[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
                results = ctx.function(again[: ctx.split], again[ctx.split :])
            targets = [y for y in results if y.requires_grad]
            arriving = [dy for y, dy in zip(results, upstream, strict=True) if y.requires_grad]
            found = iter(torch.autograd.grad(targets, sources, arriving, allow_unused=True))
            return None, None, *(next(found) if x.requires_grad else None for x in again)

    return Replay


_REPLAYS = {"tensorflow": _replay_tensorflow, "jax": _replay_jax, "torch": _replay_torch}
