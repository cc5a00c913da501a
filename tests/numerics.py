"""What the tests of layers share: arrays of any backend, functions as it compiles them, finite differences."""

from __future__ import annotations

from importlib import import_module

import keras
import numpy as np

BACKEND = keras.backend.backend()


def array(x):
    """A tensor as a NumPy array."""
    return keras.ops.convert_to_numpy(x)


def normal(*shape, seed=0, dtype="float32"):
    """Standard normal numbers of a seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def compiled(function, mode=None, **options):
    """The function of tensors as one compiles it.

    Args:
        function: of tensors.
        mode: "eager", "graph", "xla" or "jit"; None for what the backend has, which on torch is nothing.
        **options: of ``tf.function``.
    """
    if mode is None:
        mode = {"tensorflow": "graph", "jax": "jit"}.get(BACKEND, "eager")
    if mode in ("graph", "xla"):
        settings = {"autograph": False, **({"jit_compile": True} if mode == "xla" else {}), **options}
        return import_module("tensorflow").function(function, **settings)
    if mode == "jit":
        return import_module("jax").jit(function)
    return function


def finite_differences(function, x, step=1e-6):
    """Gradient of a NumPy function by central differences, error about step²."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[index] = step
        gradient[index] = (function(x + e) - function(x - e)) / (2 * step)
    return gradient
