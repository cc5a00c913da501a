"""How the models of chapters 6 and 7 are trained: Adam under one schedule of the rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from lib.workbench import measure


def train(
    model: keras.Model, steps: Iterable[tuple[Any, Any]], count: int, rate: float, loss: Any = None
) -> list[float]:
    """Trains a model by Adam; the rate rises over the first tenth of the steps and falls to zero along a cosine.

    Args:
        model: the model.
        steps: inputs and targets of each step.
        count: how many steps these are.
        rate: the largest learning rate.
        loss: as Keras takes it; None for a model that brings its own.

    Returns:
        The loss of every step.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> step = (np.array([[1.0], [2.0]]), np.array([[2.0], [4.0]]))
        >>> losses = train(model, 50 * [step], 50, 0.1, loss="mse")
        >>> losses[-1] < losses[0]
        True
    """
    warmup = max(1, count // 10)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, count - warmup, warmup_target=rate, warmup_steps=warmup)
    model.compile(keras.optimizers.Adam(schedule), loss, jit_compile=compiled())
    return [float(model.train_on_batch(x, y)) for x, y in steps]


def compiled() -> bool:
    """Whether the backend's compiler pays: on JAX and on GPUs it does, on a CPU TensorFlow's graph is as fast.

    Example:
        >>> isinstance(compiled(), bool)
        True
    """
    return keras.backend.backend() == "jax" or measure.device().kind == "gpu"
