"""Run a pure function now, keep nothing but its arguments, and run it again when its gradient is asked for.

What the backends have for this differs, and each has its trap:

============ ==================================================================================================
TensorFlow   ``tf.custom_gradient``. A graph has no order but that of its data, so it must be told that the second
             run comes after the gradient has arrived, and that the gradients leave together.
JAX          ``jax.checkpoint``. On a CPU, XLA finds that both runs are the same and merges them.
torch        a function of ``torch.autograd``. ``torch.utils.checkpoint`` ends its second run by an exception, and
             Keras' tracebacks hold what was computed until then.
============ ==================================================================================================

Forward-mode derivatives keep nothing of what was computed, so there is nothing to forget: for them the function is
run as it is.

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

from .._backend import custom_gradient, follows_forward
from .._tensors import require_dense

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
        tensors: Dense tensors of any dtype. The gradient reaches the weights, and what is floating or complex. On
            torch, one that needs no gradient must not be changed in place before the gradient is taken: it may be
            state, of which only the layer knows whether a change counts.

    Returns:
        The list of tensors that the function returns. Derivatives of any order are right, those of forward mode
        too: within ``jax.jvp``, ``tf.autodiff.ForwardAccumulator``, ``torch.autograd.forward_ad``. Within the
        transforms of ``torch.func`` and in forward mode, nothing is forgotten.

    Raises:
        ValueError: A tensor, or what the function returns, is ragged or sparse.
        NotImplementedError: The backend of Keras is not TensorFlow, JAX or torch.

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
    for name, values in {"weights": weights, "tensors": tensors}.items():
        for i, value in enumerate(values):
            require_dense(f"{name}[{i}]", value)

    def dense(weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
        results = list(function(weights, tensors))
        for i, result in enumerate(results):
            require_dense(f"result {i} of the function", result)
        return results

    return list(_REPLAYS[backend](dense, list(weights), list(tensors)))


# --- TensorFlow -----------------------------------------------------------------------------------------------


def _replay_tensorflow(function: Callable, weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    tf = import_module("tensorflow")
    split = len(weights)
    arguments = [
        tf.convert_to_tensor(x) for x in [*weights, *tensors]
    ]  # a variable may change before the second run
    if tf.executing_eagerly() and follows_forward(arguments):
        return function(arguments[:split], arguments[split:])
    # An eager tape would keep all it sees. In a graph nothing is kept but what a gradient asks for.
    unseen = tf.init_scope if tf.executing_eagerly() else nullcontext

    @custom_gradient
    def run(*arguments: Tensor) -> tuple[list[Tensor], Callable]:
        with unseen():
            outputs = function(arguments[:split], arguments[split:])

        def gradient(*upstream: Tensor) -> list[Tensor | None]:
            again = _not_before(upstream, arguments[:split], arguments[split:])
            continuous = [i for i, x in enumerate(again) if _is_continuous(x)]
            with tf.GradientTape() as tape:
                tape.watch([again[i] for i in continuous])
                results = function(again[:split], again[split:])
            pairs = [(y, dy) for y, dy in zip(results, upstream, strict=True) if _is_continuous(y)]
            targets, upstream_of = zip(*pairs, strict=True)
            found = tape.gradient(targets, [again[i] for i in continuous], upstream_of)
            gradients: list[Tensor | None] = [None] * len(again)
            for i, one in zip(continuous, _all_at_once(found), strict=True):
                gradients[i] = one
            return gradients

        return outputs, gradient

    return run(*arguments)


def _is_continuous(x: Tensor) -> bool:
    return x.dtype.is_floating or x.dtype.is_complex


def _not_before(upstream: Sequence[Tensor], weights: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The weights and tensors, but in a graph only after the gradient has arrived.

    Else TensorFlow would compute everything again at the very start, and XLA would find that it has been computed
    already; nothing would be saved. TensorFlow respects a control dependency, XLA respects data only. So a number
    is added to each tensor that is never anything but 0, which no compiler can know.

    All are new tensors, so that one which is given twice has two gradients.
    """
    tf = import_module("tensorflow")
    if tf.executing_eagerly():
        return [tf.identity(x) for x in [*weights, *tensors]]
    first = tf.math.real(next(tf.reshape(dy, [-1])[:1] for dy in upstream if _is_continuous(dy)))
    never = tf.reduce_any(tf.math.is_nan(first) & tf.math.is_inf(first))

    def late(x: Tensor) -> Tensor:
        if x.dtype.is_bool:
            return tf.logical_or(x, never)
        return x + tf.cast(never, x.dtype) if x.dtype.is_integer or _is_continuous(x) else tf.identity(x)

    with tf.control_dependencies([never]):
        return [*map(tf.identity, weights), *map(late, tensors)]


def _all_at_once(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients, none of them before all are there.

    Else the layers below would begin their own recomputation while that of this one is still held for the
    gradients of its weights, and layer would pile on layer.
    """
    tf = import_module("tensorflow")
    with tf.control_dependencies([one for one in gradients if one is not None]):
        return [None if one is None else tf.identity(one) for one in gradients]


# --- JAX ------------------------------------------------------------------------------------------------------


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


# --- torch ----------------------------------------------------------------------------------------------------


def _replay_torch(function: Callable, weights: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    if follows_forward([*weights, *tensors]):
        return function(weights, tensors)
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
            ctx.mark_non_differentiable(*(y for y in outputs if not (y.is_floating_point() or y.is_complex())))
            return outputs

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
            # If this gradient is to be differentiated too, the new tensors stay connected with the saved ones.
            connected = torch.is_grad_enabled()
            saved = (x.view_as(x) if connected else x.detach().requires_grad_() for x in ctx.saved_tensors)
            again = [next(saved) if x is None else x for x in ctx.others]
            sources = [x for x in again if x.requires_grad]
            with torch.random.fork_rng(ctx.devices), torch.enable_grad():
                torch.set_rng_state(ctx.random[0])
                for device, state in zip(ctx.devices, ctx.random[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
                results = ctx.function(again[: ctx.split], again[ctx.split :])
            targets = [y for y in results if y.requires_grad]
            arriving = [dy for y, dy in zip(results, upstream, strict=True) if y.requires_grad]
            found = iter(torch.autograd.grad(targets, sources, arriving, allow_unused=True, create_graph=connected))
            return None, None, *(next(found) if x.requires_grad else None for x in again)

    return Replay


_REPLAYS = {"tensorflow": _replay_tensorflow, "jax": _replay_jax, "torch": _replay_torch}
