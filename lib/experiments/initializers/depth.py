"""Many layers of random weights: what is left of the length of an input, of the angle of two, of a gradient?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray
from scipy.optimize import brentq

from lib.experiments.initializers.matrices import draw_matrices
from lib.initializers import activation_gain, correlation_map

Array = NDArray[np.float64]


def propagate(x: Array, depth: int, activation: str, law: str, gain: float | str, seed: int) -> Array:
    """The states y of random nets, y ← f(Wy), each net with its own square matrices.

    Args:
        x: inputs, shape (nets, n, k), k vectors for each net.
        depth: number of layers L.
        activation: name of the Keras activation f.
        law: as in :func:`draw_matrices`.
        gain: as in :func:`draw_matrices`.
        seed: of the matrices.

    Returns:
        The inputs and the states after each layer, shape (L + 1, nets, n, k).

    Example:
        >>> propagate(np.ones((5, 16, 2)), 3, "relu", "normal", "relu", seed=0).shape
        (4, 5, 16, 2)
    """
    f, generator = keras.activations.get(activation), keras.random.SeedGenerator(seed)
    nets, n, _ = x.shape
    states = [x]
    for _ in range(depth):
        z = draw_matrices(nets, n, n, law, gain, generator) @ states[-1]
        states.append(ops.convert_to_numpy(f(ops.convert_to_tensor(z))).astype(np.float64))
    return np.stack(states)


def lengths_through_depth(
    width: int,
    depth: int,
    activation: str = "linear",
    law: str = "normal",
    gain: float | str = 1.0,
    *,
    nets: int = 200,
    seed: int = 0,
    second_moment: float = 1.0,
) -> Array:
    """ln(‖y_l‖²/‖x‖²) after l = 0, …, L layers of random nets.

    Args:
        width: n.
        depth: L.
        activation: name of the Keras activation.
        law: as in :func:`draw_matrices`.
        gain: as in :func:`draw_matrices`; "relu" is He's √2.
        nets: number of independent nets, each with its own input of a random direction.
        seed: of inputs and matrices.
        second_moment: q_0 = ‖x‖²/n, which matters for an activation such as tanh; q_l is q_0 times the ratio.

    Returns:
        Shape (nets, L + 1); −∞ once a net is dead, all its coordinates zero.

    Example:
        >>> lengths = lengths_through_depth(width=64, depth=10, activation="relu")
        >>> print(f"{lengths[:, -1].mean() / np.log(2):.0f} halvings")
        -10 halvings
    """
    x = np.random.default_rng(seed).standard_normal((nets, width, 1))
    x *= np.sqrt(second_moment * width) / np.linalg.norm(x, axis=1, keepdims=True)
    squares = np.sum(propagate(x, depth, activation, law, gain, seed) ** 2, axis=(2, 3)).T
    with np.errstate(divide="ignore"):
        return np.log(squares / squares[:, :1])


def pairs_through_depth(
    width: int,
    depth: int,
    activation: str = "relu",
    law: str = "normal",
    *,
    correlation: float | Sequence[float] = 0.0,
    nets: int = 200,
    seed: int = 0,
) -> tuple[Array, Array]:
    """What random nets that carry the gain of their activation make of inputs at given cosines to a first one.

    Args:
        width: n, 2 or more.
        depth: L.
        activation: name of the Keras activation.
        law: as in :func:`draw_matrices`.
        correlation: the cosine of the first input and another, or several, each of another input. Their second
            moment is 1/gain², so that already the first pre-activations are standard normal.
        nets: number of independent nets.
        seed: of inputs and matrices.

    Returns:
        The cosines after l = 0, …, L layers, shape (nets, L + 1), or (nets, L + 1, correlations); NaN once a net is
        dead. :func:`predicted_cosines` is their limit for a large width. And ln(‖y_l‖²/‖x‖²) of the first input,
        shape (nets, L + 1).

    Example:
        >>> cosines, _ = pairs_through_depth(width=256, depth=2, correlation=0.5)
        >>> cosines.mean(axis=0).round(1)
        array([0.5, 0.6, 0.7])
    """
    rho = np.atleast_1d(np.asarray(correlation, np.float64))
    rng = np.random.default_rng(seed)
    u, w = (rng.standard_normal((nets, width, k)) for k in (1, rho.size))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    w -= u * np.sum(u * w, axis=1, keepdims=True)
    v = rho * u + np.sqrt(1 - rho**2) * w / np.linalg.norm(w, axis=1, keepdims=True)
    x = math.sqrt(width) / activation_gain(activation) * np.concatenate([u, v], -1)
    states = propagate(x, depth, activation, law, activation, seed)
    norms = np.linalg.norm(states, axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = np.sum(states[..., :1] * states[..., 1:], axis=2) / (norms[..., :1] * norms[..., 1:])
        lengths = 2 * np.log(norms[..., 0] / norms[:1, :, 0])
    cosines = cosines.transpose(1, 0, 2)
    return cosines if np.ndim(correlation) else cosines[..., 0], lengths.T


def predicted_cosines(activation: str, correlation: float | Sequence[float], depth: int) -> Array:
    """The iterates ρ, c(ρ), c(c(ρ)), … of :func:`lib.initializers.correlation_map`, along the first axis.

    Example:
        >>> predicted_cosines("relu", 0.0, 3).round(3)
        array([0.   , 0.318, 0.494, 0.605])
    """
    cosines = [np.asarray(correlation, np.float64)]
    for _ in range(depth):
        cosines.append(np.clip(correlation_map(activation, cosines[-1]), -1, 1))
    return np.stack(cosines)


#: An activation and its derivative.
_FUNCTIONS = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.float64(z > 0)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}
_NODES, _WEIGHTS = hermegauss(120)


def mean_squares(activation: str, second_moment: float) -> tuple[float, float]:
    """E[f(z)²] and E[f′(z)²] for z ~ N(0, q), by Gauss-Hermite quadrature.

    Args:
        activation: "relu" or "tanh".
        second_moment: q, the mean square of the pre-activations.

    Example:
        >>> [round(x, 6) for x in mean_squares("relu", 1.0)]
        [0.5, 0.5]
    """
    z = math.sqrt(second_moment) * _NODES
    weight = _WEIGHTS / _WEIGHTS.sum()
    value, slope = (float(np.sum(weight * f(z) ** 2)) for f in _FUNCTIONS[activation])
    return value, slope


def second_moments(activation: str, gain: float, start: float, depth: int) -> Array:
    """Mean squares q_0, …, q_L of the activations of a wide network: q ← E[f(z)²] with z ~ N(0, gain² q).

    Example:
        >>> second_moments("relu", 1.0, 1.0, 3).round(6)
        array([1.   , 0.5  , 0.25 , 0.125])
    """
    moments = [start]
    for _ in range(depth):
        moments.append(mean_squares(activation, gain**2 * moments[-1])[0])
    return np.array(moments)


def chi(activation: str, gain: float) -> float:
    """χ = gain² E[f′(z)²], where the pre-activations of a wide network have settled.

    Args:
        activation: "relu" or "tanh".
        gain: of the kernels.

    Returns:
        The factor by which a layer multiplies the squared distance of two close inputs on the way forward, and the
        squared length of a gradient on the way back.

    Source: Poole et al. 2016 (arXiv 1606.05340), Schoenholz et al. 2017 (arXiv 1611.01232).

    Example:
        >>> round(chi("relu", 2**0.5), 6), round(chi("tanh", 0.9), 6)
        (1.0, 0.81)
    """
    if activation == "relu":  # its derivative does not depend on the scale
        return gain**2 / 2
    if gain <= 1:  # tanh shrinks everything, in the end to zero, where it is the identity
        return gain**2
    settled = brentq(lambda q: gain**2 * mean_squares(activation, q)[0] - q, 1e-9 + (gain - 1) / 4, 1e3)
    return gain**2 * mean_squares(activation, settled)[1]


def chi_of_norm(activation: str, scale: float = 1.0) -> float:
    """χ behind a layer norm of scale γ, which divides by the length it finds: γ² E[f′(γz)²] / E[f(γz)²].

    Example:
        >>> round(chi_of_norm("tanh"), 3), round(chi_of_norm("tanh", 0.2), 4), round(chi_of_norm("relu"), 6)
        (1.178, 1.0017, 1.0)
    """
    value, slope = mean_squares(activation, scale**2)
    return scale**2 * slope / value
