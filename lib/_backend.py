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
    """Whether the value of a tensor can be read: not while a graph is traced."""
    if keras.backend.backend() == "tensorflow":
        return backend().executing_eagerly()
    if keras.backend.backend() == "jax":
        return not isinstance(x, backend().core.Tracer)
    return True
