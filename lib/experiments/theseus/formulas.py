"""What can be said about replacement with pencil and paper: how many modules, how often, how far they move."""

from __future__ import annotations

import warnings
from itertools import product

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from lib.theseus import ModuleReplacement

Schedule = keras.optimizers.schedules.LearningRateSchedule


def replaced(n: int, p: float) -> NDArray[np.float64]:
    """The probability of each number of replaced modules, (n + 1,): Binomial(n, p).

    Example:
        >>> replaced(3, 0.5)
        array([0.125, 0.375, 0.375, 0.125])
    """
    return binom.pmf(np.arange(n + 1), n, p)


def patterns(n: int, p: float) -> dict[tuple[int, ...], float]:
    """All 2ⁿ mixtures, 1 for a replaced module, and their probabilities.

    Example:
        >>> patterns(2, 0.75)
        {(0, 0): 0.0625, (0, 1): 0.1875, (1, 0): 0.1875, (1, 1): 0.5625}
    """
    return {gates: p ** sum(gates) * (1 - p) ** (n - sum(gates)) for gates in product((0, 1), repeat=n)}


def tossed(rate: float | Schedule, steps: int, modules: int, seed: int = 0) -> NDArray[np.bool_]:
    """Which modules are replaced in the first steps of a training, (steps, modules).

    Args:
        rate: replacement rate, or its schedule.
        steps: how many.
        modules: how many.
        seed: of the gates.

    Example:
        >>> tossed(1.0, steps=2, modules=3).astype(int).tolist()
        [[1, 1, 1], [1, 1, 1]]
    """
    layers = [keras.layers.Identity() for _ in range(2 * modules)]
    chain = ModuleReplacement(layers[:modules], layers[modules:], rate, seed=seed)
    gates = []
    for _ in range(steps):
        gates.append(keras.ops.convert_to_numpy(chain.draw(1)))
        chain.iterations.assign_add(1)
    return np.stack(gates)


def moved(
    optimizer: str, rates: ArrayLike, steps: int = 4000, draws: int = 1, idle: float | None = 0.0
) -> NDArray[np.float64]:
    """How far a weight moves that gets the gradient 1 in a share of the steps.

    The distance is divided by that of a weight with the gradient 1 in all steps.

    Args:
        optimizer: "SGD" or "Adam", of Keras.
        rates: the share of the steps, (rates,).
        steps: how many.
        draws: how many weights there are of each rate. The steps of each are drawn anew, from one seed.
        idle: the gradient in the other steps: 0; or None, so that the optimizer passes the weight over. Keras's
            Adam has one count of steps for all weights, torch's one for each, and both correct their moments by it.

    Returns:
        Distances, (draws, rates).

    Example:
        >>> moved("SGD", [0.25, 1.0], steps=400).round(1)
        array([[0.2, 1. ]])
    """
    rates = np.asarray(rates, "float64")
    share = np.append(np.tile(rates, draws), 1.0)
    used = np.random.default_rng(0).random((steps, len(share))) < share
    # Passed over is a whole variable, never a part of one.
    weights = [keras.Variable(np.zeros(len(share) if idle is not None else 1, "float32"))]
    if idle is None:
        weights += [keras.Variable(np.zeros(1, "float32")) for _ in share[1:]]
    stepper = getattr(keras.optimizers, optimizer)(1e-3)
    stepper.build(weights)
    one = keras.ops.ones(1)
    with warnings.catch_warnings(action="ignore"):  # Keras warns of gradients that are None
        for now in used:
            given = [one if used_now else None for used_now in now]
            if idle is not None:
                given = [keras.ops.convert_to_tensor(np.where(now, 1, idle).astype("float32"))]
            stepper.apply(given, weights)
    distance = -np.concatenate([keras.ops.convert_to_numpy(weight) for weight in weights]).astype("float64")
    return (distance[:-1] / distance[-1]).reshape(draws, len(rates))


def trained_so_far(rate: float, schedule: str, steps: int, modules: int = 3) -> NDArray[np.float64]:
    """In how many of the steps each mixture is trained, on average.

    Args:
        rate: of the first step; of a falling rate, that of the last one.
        schedule: "constant"; "rising", evenly to 1; or "falling", evenly from 1.
        steps: how many.
        modules: of the chain.

    Returns:
        One number a mixture, (2ⁿ,), in the order of :func:`patterns`.

    Example:
        >>> trained_so_far(0.5, "constant", steps=16, modules=2)
        array([4., 4., 4., 4.])
    """
    way = np.linspace(0, 1, steps)
    p = {"constant": np.full(steps, rate), "rising": rate + (1 - rate) * way, "falling": 1 - (1 - rate) * way}
    return sum(np.array([*patterns(modules, one).values()]) for one in p[schedule])
