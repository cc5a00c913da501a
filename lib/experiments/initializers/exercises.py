"""The exercises of chapter 2: checks, hints and worked solutions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import integrate, stats

from lib.experiments.initializers.depth import lengths_through_depth
from lib.experiments.initializers.matrices import draw_matrices
from lib.initializers import activation_gain, marchenko_pastur
from lib.workbench.sheets import Problem, Sheet


def _mean(function: Any) -> float:
    """E of a function of a standard normal number, by integration of its two halves."""
    halves = [integrate.quad(lambda z: function(z) * stats.norm.pdf(z), *ends) for ends in ((-12, 0), (0, 12))]
    return sum(value for value, _ in halves)


def _gelu_slope_squared(z: float) -> float:
    return (stats.norm.cdf(z) + z * stats.norm.pdf(z)) ** 2


def _solve_1() -> float:
    n, m = 512, 128
    variance = 2 / (m + n)
    factor = n * variance / 2
    x = np.random.default_rng(0).standard_normal((n, 2000))
    y = np.maximum(0, np.sqrt(variance) * np.random.default_rng(1).standard_normal((m, n)) @ x)
    print(f"expected {factor:.3f}, simulated {np.mean(y**2) / np.mean(x**2):.3f}")
    return factor


def _solve_2() -> int:
    m = round(100 / 0.1**2)
    for outputs in (m, m - 1):
        low, high = marchenko_pastur(100, outputs).support()
        print(f"{outputs} outputs: every length is multiplied by {low:.6f} to {high:.6f}")
    return m


def _solve_3() -> Any:
    def gain(a):
        return np.sqrt(2 / (1 + a**2))

    print(f"a = 0.2: {gain(0.2):.5f}, by quadrature {activation_gain('leaky_relu'):.5f}")
    return gain


def _solve_4() -> Any:
    def layers(n, share):
        return -2 * n * np.log(share) / 5

    depth = round(layers(40, 0.1))
    found = np.exp(np.median(lengths_through_depth(40, depth, "relu", gain="relu", nets=200)[:, -1]))
    print(f"width 40: {depth} layers leave {found:.2f} in the middle one of 200 networks")
    return layers


def _depth_is_right(layers: Any) -> bool:
    drift = -_mean(lambda z: (2 * max(0, z) ** 2 - 1) ** 2) / 2  # times 1/n: ln(1 + u) is u − u²/2
    cases = [(40, 0.1), (256, 0.5), (1000, 0.01)]
    return all(abs(layers(n, share) / (n * math.log(share) / drift) - 1) < 0.05 for n, share in cases)


def _solve_5() -> Any:
    def scale(L):
        return np.sqrt(2 ** (1 / L) - 1)

    for L in (1, 10, 1000):
        print(f"{L:4} branches: {scale(L):.4f}, √(ln 2 / L) = {np.sqrt(np.log(2) / L):.4f}")
    return scale


def _solve_6() -> float:
    def gelu(z):
        return z * stats.norm.cdf(z)

    def slope(z):
        return stats.norm.cdf(z) + z * stats.norm.pdf(z)

    square = _mean(lambda z: gelu(z) ** 2)
    chi = _mean(lambda z: slope(z) ** 2) / square
    print(f"gain {1 / np.sqrt(square):.4f}, χ = {chi:.4f}; over 50 layers gradients grow {chi**25:.1f} times")
    return chi


def _solve_7() -> str:
    for law in ("normal", "orthogonal", "mirrored"):
        W = draw_matrices(20, 64, 64, law, seed=0).astype(float)
        jacobian = np.eye(64)
        h = np.maximum(0, np.random.default_rng(1).standard_normal(64))
        for layer in W:
            z = math.sqrt(2) * layer @ h
            jacobian, h = math.sqrt(2) * (z > 0)[:, None] * layer @ jacobian, np.maximum(0, z)
        values = np.linalg.svd(jacobian, compute_uv=False)
        print(f"{law:10} singular values of 20 layers: largest {values[0]:.2f}, sixteenth {values[15]:.2f}")
    return (
        "Train mirrored and Gaussian networks of 100 layers for 3, 10, 30 and 100 epochs, ten seeds each, at rates "
        "tuned for each, and compare the paired difference of test accuracy with zero by a t-interval."
    )


SHEET = Sheet(
    [
        Problem(
            "2.1",
            "easy",
            lambda factor: abs(factor - 512 * 2 / (512 + 128) * _mean(lambda z: max(0, z) ** 2)) < 1e-6,
            "Equation (2.1) divided by the number of outputs gives the mean square before the ReLU.",
            "Each pre-activation has n σ² times the mean square of the inputs, with σ² = 2/(m + n), and the ReLU "
            "keeps half of it: 512 · 2/640 / 2.",
            _solve_1,
        ),
        Problem(
            "2.2",
            "easy",
            lambda m: abs(m - 100 / 0.1**2) < 0.5,
            "Ask for an interval (2.3) that fits between 0.9 and 1.1.",
            "Both ends ask the same: √(n/m) ≤ 0.1, a hundred outputs for each input. To keep all directions is "
            "expensive.",
            _solve_2,
        ),
        Problem(
            "2.3",
            "medium",
            lambda gain: all(
                np.isclose(gain(a), _mean(lambda z, a=a: (z if z > 0 else a * z) ** 2) ** -0.5)
                for a in np.random.default_rng().uniform(-1, 1, 3)
            ),
            "Split the integral of f(z)² at zero; z² contributes one half on each side.",
            "E f² = ½ + ½ a², and the gain is one over its root. With a = 0 it is He's, with a = 1 the identity's.",
            _solve_3,
        ),
        Problem(
            "2.4",
            "medium",
            _depth_is_right,
            "The logarithm is nearly normal, so its median is its mean, which Proposition 2.8 gives.",
            "The median of a logarithm is the logarithm of the median, and for a normal law median and mean agree. "
            "So ln(share) = −5L/(2n).",
            _solve_4,
        ),
        Problem(
            "2.5",
            "medium",
            lambda scale: all(np.isclose((1 + scale(L) ** 2) ** L, 2) for L in (1, 7, 100)),
            "Every branch multiplies the squared length by the same factor, for on average it is at a right angle.",
            "A branch of length α‖h‖ at a right angle to h makes ‖h‖² into (1 + α²)‖h‖². After L of them "
            "(1 + α²)^L = 2. For many branches α is close to √(ln 2 / L): that is where 1/√L comes from.",
            _solve_5,
        ),
        Problem(
            "2.6",
            "hard",
            lambda chi: abs(chi / (_mean(_gelu_slope_squared) * activation_gain("gelu") ** 2) - 1) < 0.01,
            "At its gain the pre-activations are standard normal, so both means of (2.7) are over N(0, 1).",
            "GELU is z Φ(z), its slope Φ(z) + z φ(z). At the gain that keeps q = 1, χ is the mean square of the "
            "slope over that of the value: a little more than 1, so that it is slightly on the chaotic side.",
            _solve_6,
        ),
        Problem(
            "2.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "What changes, what stays the same, how many seeds, and which comparison decides?",
            "Three epochs are short. One design: let the epochs grow, tune the rate of each law anew, pair the "
            "seeds, and see whether the advantage lasts. Besides, measure what differs at the start: below, the "
            "singular values of the derivative of 20 layers.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
