"""What can be said about replacement with pencil and paper: how many modules, how often, and how far they move."""

from __future__ import annotations

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
    planks = [keras.layers.Identity() for _ in range(2 * modules)]
    ship = ModuleReplacement(planks[:modules], planks[modules:], rate, seed=seed)
    gates = []
    for _ in range(steps):
        gates.append(keras.ops.convert_to_numpy(ship.draw(1)))
        ship.iterations.assign_add(1)
    return np.stack(gates)


def moved(optimizer: str, rates: ArrayLike, steps: int = 4000, draws: int = 1) -> NDArray[np.float64]:
    """How far a weight moves that gets the gradient 1 in a share of the steps and 0 in the others.

    The distance is divided by that of a weight with the gradient 1 in all steps.

    Args:
        optimizer: "SGD" or "Adam", of Keras.
        rates: the share of the steps, (rates,).
        steps: how many.
        draws: how many weights there are of each rate. The steps of each are drawn anew, from one seed.

    Returns:
        Distances, (draws, rates).

    Example:
        >>> moved("SGD", [0.25, 1.0], steps=400).round(1)
        array([[0.2, 1. ]])
    """
    rates = np.asarray(rates, "float64")
    share = np.append(np.tile(rates, draws), 1.0)
    weights = keras.Variable(np.zeros(len(share), "float32"))
    stepper = getattr(keras.optimizers, optimizer)(1e-3)
    stepper.build([weights])
    used = np.random.default_rng(0).random((steps, len(share))) < share
    for gradient in used.astype("float32"):
        stepper.apply([keras.ops.convert_to_tensor(gradient)], [weights])
    distance = -keras.ops.convert_to_numpy(weights).astype("float64")
    return (distance[:-1] / distance[-1]).reshape(draws, len(rates))
