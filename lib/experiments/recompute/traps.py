"""What goes wrong where the second run is not the first: dropout, and the statistics of a batch normalization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lib.experiments.recompute.networks import value_and_gradient

Wrap = Callable[[keras.layers.Layer], Any]


def share_of_right_entries(wrap: Wrap, seed: int, rate: float = 0.5) -> float:
    """How many entries of a dropout's gradient are right, of all.

    A dropout multiplies each entry by a number, y = m x, so its gradient is m, and the gradient times x is y. That
    is a test without a reference.

    Args:
        wrap: what makes a recomputed layer of a layer.
        seed: of the dropout and of its inputs.
        rate: of the dropout.

    Returns:
        A share from 0 to 1; NaN on JAX if the layer cannot be run again there.

    Example:
        >>> share_of_right_entries(lambda layer: layer, seed=0)
        1.0
    """
    x = np.random.default_rng(seed).standard_normal((64, 64)).astype("float32")
    dropout = keras.layers.Dropout(rate, seed=seed)
    y, gradient = _run(wrap, dropout, x)
    return float(np.mean(np.abs(gradient * x - y) < 1e-5)) if np.isfinite(y).all() else float("nan")


def updates(wrap: Wrap) -> float:
    """How often one step of training counts a batch into the moving mean of a batch normalization.

    With a momentum of one half, each count halves the distance of the moving mean, which is 0, from that of the
    batch, which is 1.

    Args:
        wrap: as in :func:`share_of_right_entries`.

    Example:
        >>> updates(lambda layer: layer)
        1.0
    """
    norm, ones = keras.layers.BatchNormalization(momentum=0.5), np.ones((8, 4), "float32")
    norm.build(ones.shape)
    y, _ = _run(wrap, norm, ones)
    mean = keras.ops.convert_to_numpy(norm.moving_mean)[0]
    return float(-np.log2(1 - mean)) if np.isfinite(y).all() else float("nan")


def told(right: float, updates: float) -> str:
    """What the two numbers say, in words.

    Args:
        right: of :func:`share_of_right_entries`.
        updates: of :func:`updates`.

    Example:
        >>> told(1.0, 1.0), told(float("nan"), float("nan"))
        ('100% of the gradient right, 1 updates a step', 'stops on JAX, at a value of a trace that has ended')
    """
    if np.isnan(right) or np.isnan(updates):
        return "stops on JAX, at a value of a trace that has ended"
    return f"{right:.0%} of the gradient right, {updates:.0f} updates a step"


def _run(wrap: Wrap, layer: keras.layers.Layer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of a wrapped layer; both NaN where JAX stops, at a value of a trace that has ended."""
    try:
        return value_and_gradient(wrap(layer), x, layer.non_trainable_variables)
    except Exception:  # Keras turns the error of JAX into one of its own, whose class says nothing
        if keras.backend.backend() != "jax":
            raise
        return np.full_like(x, np.nan), np.full_like(x, np.nan)


def remat(seed: int) -> dict[str, float]:
    """What ``keras.remat`` makes of a dropout and of a batch normalization. One case of a sweep.

    Args:
        seed: of the dropout and of its inputs.

    Returns:
        "wrong", the share of wrong entries in the gradient of the dropout, and "updates" in one step.
    """
    return {"wrong": 1 - share_of_right_entries(keras.remat, seed), "updates": updates(keras.remat)}
