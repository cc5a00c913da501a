"""What an activation does to lengths and angles: the gain that makes up for it, and the map of correlations."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from scipy import stats

from .._arguments import real_array

__all__ = ["activation_gain", "correlation_map"]

Activation = str | Callable[[Any], Any]


def activation_gain(activation: Activation) -> float:
    """The factor 1/√E[f(z)²], z ~ N(0, 1), that makes up for what the activation f does to the length.

    A standard normal pre-activation keeps its second moment through f when the weights carry this factor.
    It is √2 for relu, exactly. For any other f the integral is computed by Gauss-Legendre panels that are halved
    until they agree, so that kinks, jumps and integrable singularities may lie anywhere.

    Args:
        activation: An elementwise function of a tensor, or the name of a Keras activation.

    Returns:
        The gain. The relative error of the integral is about 1e-8, and near 1e-15 where f is smooth between the
        multiples of 1/16. To it comes the backend's error in f, 1e-7 on JAX, which computes in float32.

    Raises:
        ValueError: If ``activation`` is neither a known name nor callable, is not elementwise, or if E[f(z)²] is
            zero or not finite.

    Source: He et al. 2015 (arXiv 1502.01852), section 2.2, for relu.

    Example:
        >>> activation_gain("relu") == math.sqrt(2)
        True
        >>> round(activation_gain("selu"), 5)  # self-normalizing: its constants were chosen for a gain of 1
        1.0
        >>> round(activation_gain(lambda x: x**2), 5)  # 1/√3
        0.57735
    """
    f = _as_function("activation", activation)
    if f is keras.activations.relu:
        return math.sqrt(2)
    return 1 / math.sqrt(_gaussian_rule(f).second_moment)


def correlation_map(activation: Activation, correlation: float | np.ndarray) -> float | np.ndarray:
    """The cosine E[f(u)f(v)] / E[f²] after the activation f, for standard normal u, v of a given correlation ρ.

    This is what one wide random layer with the gain of f does to the cosine between two inputs. For relu it is
    the arc-cosine kernel, (√(1 − ρ²) + ρ(π − arccos ρ))/π. For any other f it is the power series
    Σₖ aₖ² ρᵏ / E[f²], whose coefficients aₖ = E[f(z)hₖ(z)] belong to the normalized Hermite polynomials hₖ.

    Args:
        activation: An elementwise function of a tensor, or the name of a Keras activation.
        correlation: ρ in [-1, 1], a number or an array of any shape.

    Returns:
        The cosines, float64, of the shape of ``correlation``. The series is cut at 2048 terms and what is left of
        E[f²] is put on the next two, so ρ = ±1 is exact. The error is below 1e-6 for a continuous f with a few
        kinks, far smaller for a smooth one, and up to 0.005 where an f with jumps meets |ρ| > 0.99.

    Raises:
        ValueError: If ``correlation`` leaves [-1, 1], or for an activation that :func:`activation_gain` refuses.

    Source: Cho and Saul 2009 for relu; Daniely, Frostig and Singer 2016 (arXiv 1602.05897), section 4, for the
    series.

    Example:
        >>> rho = 0.0
        >>> for layer in range(3):
        ...     rho = correlation_map("relu", rho)
        ...     print(round(float(rho), 3))
        0.318
        0.494
        0.605
    """
    f = _as_function("activation", activation)
    rho = real_array("correlation", correlation)
    if not np.all(np.abs(rho) <= 1):  # also refuses NaN
        raise ValueError(f"correlation must lie in [-1, 1], got {correlation!r}")
    if f is keras.activations.relu:
        return (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi
    powers = _hermite_powers(_gaussian_rule(f))
    return np.polynomial.polynomial.polyval(rho, powers) / powers.sum()


def _as_function(name: str, activation: Activation) -> Callable[[Any], Any]:
    if isinstance(activation, str):
        try:
            return keras.activations.get(activation)
        except ValueError:
            pass  # refused below, under the name of the argument
    elif callable(activation):
        return activation
    raise ValueError(f"{name} must be a function or the name of a Keras activation, got {activation!r}")


def _values(f: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    """Evaluates f at the points z in float64, where the backend has it, on the CPU, where NumPy functions work."""
    points = np.resize(z, -(-z.size // _BLOCK) * _BLOCK)  # repeats z: with few shapes, JAX seldom compiles
    with keras.device("cpu:0"):
        values = ops.convert_to_numpy(f(ops.convert_to_tensor(points)))
    if values.shape != points.shape:
        raise ValueError(f"activation must act elementwise, but took {points.shape} to {values.shape}")
    if np.iscomplexobj(values):
        raise ValueError(f"activation must be real, but gives {values.dtype}: {f!r}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"activation must have a finite second moment, but is not finite at all points: {f!r}")
    return values[: z.size].astype(np.float64).reshape(z.shape)


class _GaussianRule(NamedTuple):
    """A quadrature rule for the standard normal law, fitted to one activation f; each array is of shape (N,)."""

    z: np.ndarray  # nodes, all positive: f is known at z and at -z
    weight: np.ndarray  # E[g(z)] = Σ weight · (g(z) + g(-z))
    right: np.ndarray  # f(z)
    left: np.ndarray  # f(-z)

    @property
    def second_moment(self) -> float:
        """E[f(z)²]."""
        return float(np.sum(self.weight * (self.right**2 + self.left**2)))


_REACH = 16.0  # the normal density is 1e-56 there
_BLOCK = 6144  # half panels of width 1/32 over that reach, times 12 nodes
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def _gaussian_rule(f: Callable[[Any], Any]) -> _GaussianRule:
    """Halves panels of [0, 16] until each agrees with its halves on the integral of f(z)² + f(-z)²."""
    probe = np.arange(1.0, 5.0)
    if not np.allclose(_values(f, probe)[:2], _values(f, probe[:2]), rtol=1e-3):
        raise ValueError(f"activation must act elementwise, but a value depends on its neighbours: {f!r}")

    def sample(start: np.ndarray, width: np.ndarray) -> _GaussianRule:  # arrays of shape (panels, 12)
        z = start[:, None] + width[:, None] * (1 + _NODES) / 2
        weight = width[:, None] * _WEIGHTS / 2 * stats.norm.pdf(z)
        return _GaussianRule(z, weight, _values(f, z), _values(f, -z))

    def mass(panels: _GaussianRule) -> np.ndarray:
        return np.sum(panels.weight * (panels.right**2 + panels.left**2), axis=1)

    start = np.arange(0, _REACH, 1 / 16)
    width = np.full_like(start, 1 / 16)
    coarse = mass(sample(start, width))
    # Above the noise of float32, else nothing would ever agree there.
    tolerance = 1e-8 * coarse.sum()
    settled = []
    for _ in range(60):
        start = np.column_stack([start, start + width / 2]).ravel()
        width = np.repeat(width / 2, 2)
        halves = sample(start, width)
        fine = mass(halves)
        agrees = np.repeat(np.abs(coarse - fine.reshape(-1, 2).sum(axis=1)) <= tolerance, 2)
        settled.append([array[agrees].ravel() for array in halves])
        start, width, coarse = start[~agrees], width[~agrees], fine[~agrees]
        if start.size == 0 or start.size > 2**16:
            break
    rule = _GaussianRule(*map(np.concatenate, zip(*settled, strict=True)))
    tail = _GaussianRule(*(array[rule.z > _REACH - 1] for array in rule)).second_moment
    if start.size or tail > 1e-12 * rule.second_moment:
        raise ValueError(f"activation must have a finite second moment, but E[f(z)²] does not converge: {f!r}")
    if rule.second_moment == 0:
        raise ValueError(f"activation must have a positive second moment, but E[f(z)²] is 0: {f!r}")
    return rule


def _hermite_powers(rule: _GaussianRule, terms: int = 2048) -> np.ndarray:
    """The squares aₖ² of the Hermite coefficients of f for k < terms, then what is left of E[f²], even and odd."""
    parts = rule.right + rule.left, rule.right - rule.left  # twice the even and the odd part of f
    left_over = [np.sum(rule.weight * part**2) / 2 for part in parts]
    powers = []
    h, h_before = np.ones_like(rule.z), np.zeros_like(rule.z)
    for k in range(terms):
        powers.append(np.sum(rule.weight * parts[k % 2] * h) ** 2)
        left_over[k % 2] -= powers[-1]
        h, h_before = (rule.z * h - math.sqrt(k) * h_before) / math.sqrt(k + 1), h
    return np.array(powers + [max(0.0, rest) for rest in left_over])
