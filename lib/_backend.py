"""What all ideas ask of the backend beyond ``keras.ops``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import keras
from keras import ops

Tensor = Any


def backend() -> ModuleType:
    """The module of the backend: tensorflow, jax or torch. It is loaded when asked for, and no other."""
    return import_module(keras.backend.backend())


def float32_or_wider(x: Tensor) -> Tensor:
    """The tensor in float32, in which sums are kept; float64 stays.

    Args:
        x: Any numeric tensor.

    Example:
        >>> keras.backend.standardize_dtype(float32_or_wider(ops.zeros(3, "float16")).dtype)
        'float32'
    """
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def jit(**static: Any) -> Callable[[Callable], Callable]:
    """A decorator: ``jax.jit`` on JAX, where a loop would be compiled anew at each eager call; elsewhere no change.

    Args:
        **static: ``static_argnames`` or ``static_argnums`` of ``jax.jit``, the arguments that are no tensors.

    Example:
        >>> float(jit(static_argnums=0)(lambda n, x: n * x)(3, ops.ones(())))
        3.0
    """
    if keras.backend.backend() == "jax":
        return lambda function: backend().jit(function, **static)
    return lambda function: function


def is_known(x: Tensor) -> bool:
    """Whether the value of a tensor can be read: not of a symbol or a mere shape, nor while a graph is traced."""
    if isinstance(x, keras.KerasTensor):
        return False
    if keras.backend.backend() == "tensorflow":
        return backend().executing_eagerly()
    if keras.backend.backend() == "jax":
        return not isinstance(x, backend().core.Tracer)
    return not getattr(x, "is_meta", False)


def all_of(flags: Tensor, axis: tuple[int, ...] | None = None) -> Tensor:
    """``keras.ops.all``, by counting what is False.

    XLA on a CPU vectorizes sums, but no reduction of booleans. And ``keras.ops.all`` and ``any`` stop at several
    axes on torch, up to Keras 3.13, which takes one after the other and counts each as if none were gone.

    Args:
        flags: Booleans.
        axis: The axes that are reduced; None for all.

    Example:
        >>> ops.convert_to_numpy(all_of(ops.convert_to_tensor([[True, True], [True, False]]), (1,))).tolist()
        [True, False]
    """
    return ops.sum(ops.where(flags, 0.0, 1.0), axis=axis) == 0


def largest_along(x: Tensor, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Tensor:
    """``keras.ops.max``, which refuses a tensor without entries, also where none is asked for: of an empty batch.

    Args:
        x: Any numeric tensor.
        axis: The axes that are reduced.
        keepdims: Whether they stay, of size 1.

    Returns:
        The largest entries; 0 where there are none to choose from.

    Example:
        >>> tuple(largest_along(ops.zeros((0, 3)), -1).shape), float(largest_along(ops.arange(3), 0))
        ((0,), 2.0)
    """
    return (ops.sum if 0 in x.shape else ops.max)(x, axis=axis, keepdims=keepdims)


def scan(step: Callable, carry: Any, xs: tuple[Tensor, ...], *, reverse: bool = False) -> tuple[Any, Any]:
    """``keras.ops.scan`` over several tensors at once, also where a TensorFlow graph does not know their length.

    Args:
        step: (carry, one entry of each tensor) → (carry, result).
        carry: What the first step is given.
        xs: Tensors of one length.
        reverse: Whether to begin with the last entry.

    Example:
        >>> carry, results = scan(lambda sum, x: (sum + x[0] * x[1], sum), 0, (ops.arange(3), ops.arange(3)))
        >>> int(carry), ops.convert_to_numpy(results).tolist()
        (5, [0, 0, 1])
    """
    if all(x.shape[0] is not None for x in xs):
        return ops.scan(step, carry, xs, reverse=reverse)

    def at(carry: Any, t: Tensor) -> tuple[Any, Any]:
        return step(carry, tuple(ops.take(x, t, axis=0) for x in xs))

    return ops.scan(at, carry, ops.arange(ops.shape(xs[0])[0]), reverse=reverse)


def vjp(function: Callable, *inputs: Tensor) -> tuple[tuple[Tensor, ...], Any, Callable]:
    """What ``function(*inputs) → (outputs, others)`` returns, and the way from gradients of outputs to inputs.

    Args:
        function: Takes tensors, returns a tuple of tensors that have a gradient, and something else.
        *inputs: What it is called with.

    Returns:
        The outputs, the others, and a function from a tuple of gradients of the outputs to those of the inputs.

    Example:
        >>> x = 3 * ops.ones((1,))
        >>> _, _, pullback = vjp(lambda x: ((x * x,), None), x)
        >>> float(pullback((ops.ones((1,)),))[0][0])
        6.0
    """
    if keras.backend.backend() == "jax":
        outputs, pullback, others = backend().vjp(function, *inputs, has_aux=True)
        return outputs, others, pullback
    if keras.backend.backend() == "tensorflow":
        with backend().GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs, others = function(*inputs)
        return outputs, others, lambda g: tape.gradient(outputs, inputs, g, unconnected_gradients="zero")
    torch = backend()
    with torch.enable_grad():
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        outputs, others = function(*inputs)
    return outputs, others, lambda g: torch.autograd.grad(outputs, inputs, g, materialize_grads=True)
