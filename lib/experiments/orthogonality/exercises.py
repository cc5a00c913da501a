"""The exercises of chapter 3: checks, hints and worked solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib import orthogonality
from lib.experiments.orthogonality.agreement import image_patches, of_signs, orthonormal_filters, rms
from lib.workbench.sheets import Problem, Sheet


def _share_of_agreement(degrees: float) -> float:
    """The share of directions of the plane on which filters at this angle have the same sign, counted."""
    turn = np.linspace(0, 2 * np.pi, 360_001)[:-1] + 1e-6
    return float(np.mean(np.sign(np.cos(turn)) == np.sign(np.cos(turn - np.radians(degrees)))))


def _solve_1() -> float:
    degrees = (1 - 0.8) * 180
    share = _share_of_agreement(degrees)
    print(f"{degrees:.0f} degrees, where signs agree on {share:.0%}")
    return degrees


def _solve_2() -> int:
    difference = orthogonality.expected_agreement(np.radians([89, 90])) @ [1, -1]
    b = next(b for b in range(1, 10**6) if difference >= 2 / b**0.5 - 1e-12)
    print(f"they differ by {difference:.4f}; 2/√b is as small from b = {b:,} on")
    return b


def _solve_3() -> float:
    covariance = np.array([[1, 0.9], [0.9, 1]])
    degrees = np.degrees(np.pi / 2 + np.arctan(0.9))
    second = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    print(f"{degrees:.1f} degrees; covariance {abs(covariance[0] @ second):.3f}")
    return float(degrees)


def _agree_on_half(degrees: float) -> bool:
    second = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    return abs(np.array([1, 0.9]) @ second) < 0.01 and 0 < degrees < 180


def _solve_4() -> float:
    welch, orthoplex = orthogonality.welch_bound(9, 64), 1 / np.sqrt(9)
    for name, bound in (("Welch", welch), ("orthoplex", orthoplex)):
        degrees = np.degrees(np.arccos(bound))
        print(f"{name}: |cos| at least {bound:.4f}, at most {degrees:.1f}°")
    return float(np.degrees(np.arccos(welch)))


def _solve_5() -> Any:
    def simplex(d):
        corners = np.eye(d + 1) - 1 / (d + 1)  # in a hyperplane of R^(d+1)
        basis = np.linalg.svd(corners)[2][:d]
        filters = basis @ corners.T
        return filters / np.linalg.norm(filters, axis=0)

    for d in (2, 9):
        cosines = np.abs(simplex(d).T @ simplex(d)) - np.eye(d + 1)
        bound = orthogonality.welch_bound(d, d + 1)
        print(f"d = {d}: largest |cos| {cosines.max():.4f}, Welch {bound:.4f}")
    return simplex


def _meets_the_bound(function: Any) -> bool:
    for d in (2, 5, 9):
        filters = np.asarray(function(d), float)
        cosines = filters.T @ filters / np.outer(*[np.linalg.norm(filters, axis=0)] * 2)
        if filters.shape != (d, d + 1):
            return False
        if np.abs(cosines - np.eye(d + 1)).max() > orthogonality.welch_bound(d, d + 1) + 1e-6:
            return False
    return True


def _solve_6() -> Any:
    def both(x, k):
        _, axes = np.linalg.eigh(np.cov(x, rowvar=False))
        return axes[:, -k:]

    x = image_patches(5, 20_000, seed=0)
    agreement = of_signs(x @ both(x, 16))
    print(f"on patches their signs agree by {rms(agreement):.2f} all the same")
    return both


def _is_orthogonal_and_uncorrelated(function: Any) -> bool:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x: NDArray = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
        filters = np.asarray(function(x, 4), float)
        if filters.shape != (6, 4):
            return False
        for gram in (filters.T @ filters, np.cov(x @ filters, rowvar=False)):
            scale = np.sqrt(np.diag(gram))
            if scale.min() < 1e-6 or np.abs(gram / np.outer(scale, scale) - np.eye(4)).max() > 1e-6:
                return False
    return True


def _solve_7() -> str:
    x = image_patches(5, 20_000, seed=0, constant=False)
    values, axes = np.linalg.eigh(np.cov(x, rowvar=False))
    for name, inputs in {"as they are": x, "whitened": x @ axes / np.sqrt(values)}.items():
        banks = [orthonormal_filters(16, 25, seed) for seed in range(5)]
        found = [rms(of_signs(inputs @ W)) for W in banks]
        spread = np.std(found, ddof=1)
        print(f"patches {name:11}: agreement {np.mean(found):.3f} ± {spread:.3f}")
    return (
        "Whiten the inputs of a layer, so that no direction is preferred to second order, and measure the "
        "agreement of orthogonal filters before and after; then train the module on both, over seeds, and compare "
        "the angles."
    )


SHEET = Sheet(
    [
        Problem(
            "3.1",
            "easy",
            lambda degrees: abs(_share_of_agreement(degrees) - 0.8) < 0.003 and 0 <= degrees <= 180,
            "On which share of all inputs do they differ, and how wide is the wedge then?",
            "They differ on a fifth of all inputs, and the share on which they differ is the angle in half turns.",
            _solve_1,
        ),
        Problem(
            "3.2",
            "easy",
            lambda b: abs(float(b) * (orthogonality.expected_agreement(np.radians(89.0)) / 2) ** 2 - 1) < 0.01,
            "By how much do the two agreements differ? And how does the scatter depend on b?",
            "One degree changes the agreement by 1/90. It is twice the standard deviation 1/√b for a batch larger "
            "than all training images of this chapter.",
            _solve_2,
        ),
        Problem(
            "3.3",
            "medium",
            _agree_on_half,
            "They agree on half of the inputs if the arcsine in (3.6) is zero, and it is zero if its numerator is.",
            "The outputs must be uncorrelated: w₁ᵀΣw₂ = cos θ + 0.9 sin θ = 0. So tan θ = −1/0.9: filters that the "
            "count calls orthogonal are far from a right angle.",
            _solve_3,
        ),
        Problem(
            "3.4",
            "medium",
            lambda degrees: 70.4 <= degrees <= 72.0,
            "How many numbers has a filter? Proposition 3.4 bounds the largest |cos| from below.",
            "A filter has 9 numbers. The angle whose cosine is Welch's bound is one answer. More than "
            "d(d + 1)/2 = 45 filters obey a sharper bound, 1/√d, that of the orthoplex; either is right.",
            _solve_4,
        ),
        Problem(
            "3.5",
            "hard",
            _meets_the_bound,
            "In the plane: three filters, 120 degrees apart. What has four corners in space, and d + 1 in Rᵈ?",
            "The corners of a simplex, seen from its centre. Take the d + 1 unit vectors of one dimension more, "
            "subtract their mean, and write the result in a basis of the hyperplane it lies in.",
            _solve_5,
        ),
        Problem(
            "3.6",
            "hard",
            _is_orthogonal_and_uncorrelated,
            "Both WᵀW and WᵀΣW must be diagonal. Which vectors of a symmetric matrix do that?",
            "Eigenvectors of the covariance: principal components. Orthogonal filters with uncorrelated outputs "
            "exist for every input; on patches even their signs agree beyond chance, as patches are not normal.",
            _solve_6,
        ),
        Problem(
            "3.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "What must inputs be like for Proposition 3.1 to hold, how could they be made so, what is the null?",
            "One design whitens the patches. That makes the covariance the identity, so correlation no longer "
            "separates outputs and angles; what agreement is left is due to all that a covariance does not tell.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
