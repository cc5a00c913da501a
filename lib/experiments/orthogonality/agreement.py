"""The estimate: how often signs agree at an angle, on clouds and on patches, and what the module makes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lib.experiments.orthogonality.fashion import training_images
from lib.orthogonality import SelfOrthogonality, filter_angles

Array = NDArray[np.float64]


def rms(values: ArrayLike) -> float:
    """Root mean square.

    Example:
        >>> rms([1, 7])
        5.0
    """
    return float(np.sqrt(np.mean(np.square(values))))


def pairs(matrix: ArrayLike) -> Array:
    """The entries above the diagonal: one number a pair of filters.

    Example:
        >>> pairs([[1, 2, 3], [2, 1, 4], [3, 4, 1]])
        array([2., 3., 4.])
    """
    matrix = np.asarray(matrix, np.float64)
    return matrix[np.triu_indices(len(matrix), 1)]


def of_signs(outputs: ArrayLike) -> Array:
    """Agreement of the signs of all pairs of filters, (3.2), shape (k(k − 1)/2,).

    Args:
        outputs: shape (b, k), one row a sample.

    Example:
        >>> of_signs([[1, 2], [3, -1], [-2, -5], [-1, -1]])  # equal in three of four
        array([0.5])
    """
    signs = np.sign(np.asarray(outputs, np.float64))
    return pairs(signs.T @ signs / len(signs))


def of_correlations(outputs: ArrayLike) -> Array:
    """The agreement that normal outputs of the same correlations have, (3.6), shape (k(k − 1)/2,).

    Example:
        >>> of_correlations([[1, 1], [-1, -1], [1, 0], [-1, 0]]).round(2)  # ρ = 1/√2
        array([0.5])
    """
    return 2 / np.pi * np.arcsin(np.clip(pairs(np.corrcoef(outputs, rowvar=False)), -1, 1))


def pair_of_filters(theta: float, d: int, seed: int) -> Array:
    """Two filters of length 1 at the angle ``theta`` in a random plane of R^d, the columns of an array (d, 2).

    Example:
        >>> np.degrees(filter_angles(pair_of_filters(np.pi / 3, d=16, seed=0))).round(4)
        array([60.])
    """
    u, v = orthonormal_filters(2, d, seed).T
    return np.stack([u, math.cos(theta) * u + math.sin(theta) * v], axis=1)


def orthonormal_filters(k: int, d: int, seed: int) -> Array:
    """Random filters with exactly orthogonal directions and length 1, shape (d, k) with k ≤ d.

    Example:
        >>> W = orthonormal_filters(3, 8, seed=0)
        >>> np.allclose(W.T @ W, np.eye(3))
        True
    """
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0]


def limit_agreement(theta: float, sharpness: float) -> float:
    """What the estimate with tanh(γ·) tends to as the batch grows, for normal outputs.

    E[tanh(a z₁) tanh(a z₂)] / E[tanh(a z)²] with standard normal z of correlation cos θ.

    Args:
        theta: angle in radians.
        sharpness: a = γ times the standard deviation of the outputs, at most 100.

    Returns:
        A number between cos θ (small a) and 1 − 2θ/π (large a).

    Example:
        >>> [round(limit_agreement(np.pi / 3, a), 3) for a in (0.01, 100)]
        [0.5, 0.336]
    """
    z = np.linspace(-8, 8, 1501)  # the trapezium rule is exact to many digits for so smooth an integrand
    weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    soft = np.tanh(sharpness * z)
    inner = np.tanh(sharpness * (math.cos(theta) * z[:, None] + math.sin(theta) * z)) @ weight
    return float((weight * soft) @ inner / (weight @ soft**2))


def cloud(correlation: float, points: int, seed: int = 4) -> Array:
    """Evenly spread points of the plane with normal coordinates of variance 1 and this correlation, (points, 2).

    Directions and lengths are drawn one from each of as many equal parts, so that shares of a few hundred points
    are close to probabilities. The same seed gives the same points, stretched along the diagonal.

    Example:
        >>> print(f"{np.corrcoef(cloud(0.9, 10_000).T)[0, 1]:.2f}")
        0.90
    """
    rng = np.random.default_rng(seed)
    even = (np.stack([rng.permutation(points), rng.permutation(points)]) + 0.5) / points
    radius, turn = np.sqrt(-2 * np.log(1 - even[0])), 2 * np.pi * even[1]
    z = radius[:, None] * np.transpose([np.cos(turn), np.sin(turn)])
    return z * np.sqrt([1 + correlation, 1 - correlation]) @ np.array([[1, 1], [-1, 1]]) / math.sqrt(2)


def image_patches(size: int, count: int, seed: int, *, constant: bool = True) -> Array:
    """Random square patches of the training images, centred.

    Args:
        size: of a side.
        count: of patches that are drawn.
        seed: of the draw.
        constant: whether to keep those whose pixels are all the same, most of them background.

    Returns:
        Shape (count, size²), or fewer rows where constant patches are left out; every column has mean 0.

    Example:
        >>> image_patches(5, 100, seed=0).shape
        (100, 25)
    """
    images = training_images()[0][..., 0]
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(images), count)
    row, column = rng.integers(0, images.shape[1] - size + 1, (2, count))
    inside = np.arange(size)
    patches = images[which[:, None, None], (row[:, None] + inside)[:, :, None], (column[:, None] + inside)[:, None]]
    patches = patches.reshape(count, -1).astype(np.float64)
    if not constant:
        patches = patches[np.ptp(patches, axis=1) > 0]
    return patches - patches.mean(axis=0)


def on_patches(seeds: Sequence[int], *, constant: bool = True, k: int = 16, count: int = 20_000) -> Array:
    """Agreement of random orthonormal filters on patches of 5 × 5, and what their correlations alone would give.

    Args:
        seeds: one draw each, of filters and of patches.
        constant: as in :func:`image_patches`.
        k: number of filters.
        count: of patches.

    Returns:
        Shape (draws, 2, k(k − 1)/2): of every draw the agreement of the signs, and the law (3.6).

    Example:
        >>> found, law = on_patches([0], count=2000)[0]
        >>> rms(found) > rms(law) > 0.2
        True
    """
    draws = []
    for seed in seeds:
        outputs = image_patches(5, count, seed, constant=constant) @ orthonormal_filters(k, 25, seed)
        draws.append([of_signs(outputs), of_correlations(outputs)])
    return np.array(draws)


def module_alone(
    inputs: str, seed: int, *, k: int = 16, steps: int = 600, batch: int = 256, count: int = 20_000
) -> dict[str, Any]:
    """Trains a dense layer on nothing but the module's pair term, in its corrected form.

    Args:
        inputs: what the layer sees: "normal", "patches", or "patches that vary", of 5 × 5 pixels.
        seed: of the inputs, the weights and the order of the inputs.
        k: number of filters.
        steps: of Adam, rate 0.01.
        batch: inputs a step.
        count: of inputs.

    Returns:
        Before and after, shape (2,): "distance", the root mean square distance of the angles between filters from
        90 degrees; "agreement" and "correlation", the root mean squares over the pairs of outputs, on all inputs.

    Raises:
        ValueError: unknown inputs.

    Example:
        >>> before, after = module_alone("normal", seed=0, k=8, steps=100, count=4000)["distance"]
        >>> bool(after < 0.5 * before)
        True
    """
    if inputs not in INPUTS:
        raise ValueError(f"inputs must be one of {', '.join(INPUTS)}, got {inputs!r}")
    if inputs == "normal":
        x = np.random.default_rng(seed).standard_normal((count, 25))
    else:
        x = image_patches(5, count, seed, constant=inputs == "patches")
    keras.utils.set_random_seed(seed)
    layer = keras.layers.Dense(k, use_bias=False, kernel_initializer=keras.initializers.GlorotUniform(seed))
    module = SelfOrthogonality(layer, lambda_mean=0.0, centred=True, scale_invariant=True)
    model = keras.Sequential([keras.Input((x.shape[1],)), module])
    model.compile(keras.optimizers.Adam(0.01), jit_compile=keras.backend.backend() == "jax")
    found: dict[str, list[float]] = {"distance": [], "agreement": [], "correlation": []}
    order = np.random.default_rng(seed).integers(0, len(x), steps * batch)
    for stream in (x[:0], x[order]):
        if len(stream):
            model.fit(stream.astype(np.float32), batch_size=batch, verbose=0)
        W = ops.convert_to_numpy(layer.kernel).astype(np.float64)
        outputs = x @ W - (x @ W).mean(axis=0)
        found["distance"].append(rms(np.degrees(filter_angles(W)) - 90))
        found["agreement"].append(rms(of_signs(outputs)))
        found["correlation"].append(rms(pairs(np.corrcoef(outputs, rowvar=False))))
    return {name: np.array(values) for name, values in found.items()}


#: What the layer of :func:`module_alone` may see.
INPUTS = ("normal", "patches", "patches that vary")
