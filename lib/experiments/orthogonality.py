"""Chapter 3: what the sign-agreement estimate really estimates, and which way to orthogonal filters pays.

``python -m lib.experiments.orthogonality --scale cpu`` records the choice of strengths, the training of all methods
for ten seeds, and what a training step costs.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import Wedge
from numpy.typing import NDArray
from scipy import stats

from lib.orthogonality import (
    MutualCoherence,
    OffDiagonalOrthogonality,
    Orthogonalized,
    SelfOrthogonality,
    SoftOrthogonality,
    SpectralIsometry,
    expected_agreement,
    filter_angles,
    kernel_matrix,
    sign_agreement,
)
from lib.workbench import corpora, figures, measure, records

CHAPTER = "03-orthogonality"
Array = NDArray[np.float64]

#: A tanh so steep that it is a sign: the only outputs it does not saturate are those below 1e-8.
SIGN = 1e9


# --- the estimate -----------------------------------------------------------------------------------------


def draw_wedge(degrees: float, points: int = 500, seed: int = 3) -> Figure:
    """Two filters in their plane, and inputs marked by whether the signs of the two outputs agree.

    Args:
        degrees: angle between the filters.
        points: number of inputs, uniform in the unit disc.
        seed: of the inputs.

    Example:
        >>> len(draw_wedge(50).axes[0].patches)  # the two halves of the wedge
        2
    """
    theta = np.radians(degrees)
    filters = np.array([[1, 0], [np.cos(theta), np.sin(theta)]])
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((points, 2))
    x *= np.sqrt(rng.uniform(size=(points, 1))) / np.linalg.norm(x, axis=1, keepdims=True)
    agree = np.prod(x @ filters.T, axis=1) > 0
    figure, ax = plt.subplots(figsize=(5.8, 4.2))
    ax.plot(*x[agree].T, "o", markersize=3, color=figures.SKY, label="signs agree")
    ax.plot(*x[~agree].T, "x", color=figures.VERMILION, label="signs differ")
    for (a, b), name in zip(filters, ["w₁", "w₂"], strict=True):
        ax.annotate(
            "", (1.4 * a, 1.4 * b), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2.5, "color": figures.INK}
        )
        ax.text(1.46 * a - 0.04, 1.46 * b, name, fontsize=13)
        ax.plot([1.2 * b, -1.2 * b], [-1.2 * a, 1.2 * a], linestyle=":", color=figures.INK)
    for start in (90, 270):
        ax.add_patch(Wedge((0, 0), 1.15, start, start + degrees, alpha=0.2, color=figures.ORANGE))
    for middle in np.radians([degrees / 2, 90 + degrees / 2, 270 + degrees / 2]):
        place = (0.5 * np.cos(middle), 0.5 * np.sin(middle))
        ax.text(*place, "θ", fontsize=13, ha="center", va="center")
    ax.set(xlim=(-1.3, 1.7), ylim=(-1.3, 1.5), aspect="equal")
    ax.axis("off")
    ax.legend(loc="lower left", bbox_to_anchor=(0.95, 0.0))
    return figure


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


def pair_agreement(
    theta: float,
    samples: int,
    seed: int,
    *,
    gamma: float = SIGN,
    scale: float = 1.0,
    scale_invariant: bool = False,
    d: int = 16,
) -> float:
    """The estimated sign agreement ϑ of two filters at the angle ``theta``, from Gaussian inputs.

    Args:
        theta: angle in radians.
        samples: b, the size of the batch.
        seed: of the filters and the inputs.
        gamma: sharpness γ of tanh(γ·); by default it is a sign.
        scale: standard deviation of a coordinate of the inputs.
        scale_invariant: whether outputs are divided by their root mean square first.
        d: dimension.

    Example:
        >>> print(f"{pair_agreement(np.pi / 3, 100_000, seed=0):.2f}")  # 1 − 2/3
        0.33
    """
    x = scale * np.random.default_rng(seed).standard_normal((samples, d))
    y = x @ pair_of_filters(theta, d, seed + 1)
    theta_hat = sign_agreement(y, gamma, scale_invariant=scale_invariant)
    return float(ops.convert_to_numpy(theta_hat)[0, 1])


#: Three ways to take the sign in :func:`pair_agreement`: the paper's tanh, a sign, and the tanh of scaled outputs.
FORMS: dict[str, dict[str, Any]] = {
    "tanh": {"gamma": 10.0},
    "sign": {},
    "scale-invariant": {"gamma": 10.0, "scale_invariant": True},
}


def across_scales(scales: Sequence[float], **form: Any) -> Array:
    """Estimates ϑ of a pair at 60 degrees for several scales of the inputs, shape (scales, 5 seeds).

    Args:
        scales: standard deviations of a coordinate of the inputs.
        **form: how the sign is taken, a value of :data:`FORMS`.

    Example:
        >>> across_scales((0.01, 3), **FORMS["tanh"]).mean(axis=1).round(1)
        array([0.5, 0.3])
    """
    return np.array(
        [[pair_agreement(np.pi / 3, 50_000, seed, scale=scale, **form) for seed in range(5)] for scale in scales]
    )


def limit_agreement(theta: float, sharpness: float) -> float:
    """What the estimate with tanh(γ·) tends to as the batch grows, for Gaussian outputs.

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


def draw_limit(sharpness: float, samples: int = 2000, seed: int = 1) -> Figure:
    """The estimate with tanh(γ·) and its limit, against the angle, between the cosine and the wedge.

    Args:
        sharpness: γ times the standard deviation of the outputs.
        samples: b, the size of the batch of the estimate.
        seed: of the batch.

    Example:
        >>> [line.get_label() for line in draw_limit(10).axes[0].lines]
        ['cos θ', '1 − 2θ/π', 'its limit', 'estimate, b = 2000']
    """
    theta = np.linspace(0, np.pi, 15)
    degrees = np.degrees(theta)
    limit = [limit_agreement(one, sharpness) for one in theta]
    found = [pair_agreement(one, samples, seed, gamma=sharpness) for one in theta]
    figure, ax = plt.subplots(figsize=(6.4, 3.0))
    ax.plot(degrees, np.cos(theta), label="cos θ")
    ax.plot(degrees, expected_agreement(theta), label="1 − 2θ/π")
    ax.plot(degrees, limit, color=figures.GREEN, linestyle="-", label="its limit")
    ax.plot(degrees, found, "o", color=figures.INK, label=f"estimate, b = {samples}")
    ax.set(xlabel="angle in degrees", ylabel="agreement", xticks=range(0, 181, 30))
    ax.legend(title=f"γσ = {sharpness:g}")
    return figure


def random_agreements(k: int, d: int, seed: int) -> Array:
    """Agreements ϑ of all pairs of k random filters of d numbers, exact, shape (k(k − 1)/2,).

    Example:
        >>> print(f"{random_agreements(100, 400, seed=0).std():.3f}")  # (2/π)/√400
        0.032
    """
    return expected_agreement(filter_angles(np.random.default_rng(seed).standard_normal((d, k))))


def agreement_scatter(b: int, trials: int, seed: int) -> Array:
    """Estimates ϑ of two orthogonal filters from ``trials`` independent batches of b samples, shape (trials,).

    Example:
        >>> print(f"{agreement_scatter(100, 2000, seed=0).std():.2f}")
        0.10
    """
    outputs = np.random.default_rng(seed).standard_normal((2, trials, b))  # orthogonal filters: independent
    return np.mean(np.prod(np.sign(outputs), axis=0), axis=1)


def floor_of_orthonormal(k: int, b: int, trials: int, seed: int) -> dict[str, Array]:
    """What orthonormal filters pay on Gaussian batches, for λ₁ = 100 and λ₂ = 1, all batches at once.

    Args:
        k: number of filters.
        b: size of a batch.
        trials: number of batches.
        seed: of the batches.

    Returns:
        "mean term" and "pair term", each of shape (trials,).

    Example:
        >>> floor = floor_of_orthonormal(k=8, b=32, trials=3, seed=0)
        >>> floor["pair term"].shape
        (3,)
    """
    outputs = np.random.default_rng(seed).standard_normal((trials, b, k), dtype=np.float32)
    signs = np.sign(outputs) / np.float32(math.sqrt(b))
    theta = (signs.transpose(0, 2, 1) @ signs).astype(np.float64)
    total = theta.sum(axis=(1, 2)) - k
    return {"mean term": 100 * total**2, "pair term": (theta**2).sum(axis=(1, 2)) - k}


#: Inputs of a layer: from standard normal numbers to what the layer sees.
INPUTS: dict[str, Callable[[Array], Array]] = {
    "Gaussian": lambda z: z,
    "after a ReLU": lambda z: np.maximum(z, 0),
    "after a ReLU, centred": lambda z: np.maximum(z, 0) - 1 / math.sqrt(2 * math.pi),
}


def agreements_of_orthonormal(inputs: str, seed: int, *, k: int = 32, d: int = 64, b: int = 16_000) -> Array:
    """Estimated agreements of all pairs of orthonormal filters, whose true value is 0.

    Args:
        inputs: a key of :data:`INPUTS`.
        seed: of the filters and the inputs.
        k: number of filters.
        d: dimension.
        b: size of the batch.

    Returns:
        Shape (k(k − 1)/2,).

    Example:
        >>> rms = {name: np.sqrt(np.mean(agreements_of_orthonormal(name, 0) ** 2)) for name in INPUTS}
        >>> rms["after a ReLU"] > 10 * rms["Gaussian"]
        np.True_
    """
    x = INPUTS[inputs](np.random.default_rng(seed).standard_normal((b, d)))
    return _pairs(sign_agreement(x @ orthonormal_filters(k, d, seed), SIGN))


def image_patches(size: int, count: int, seed: int) -> Array:
    """Random square patches of the training images, centred, shape (count, size²).

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
    return patches - patches.mean(axis=0)


def agreement_on_correlated(covariance: Array, k: int, b: int, seed: int) -> tuple[Array, Array]:
    """Sign agreement of orthonormal filters on Gaussian inputs with a covariance, estimated and by the arcsine law.

    Args:
        covariance: Σ, shape (d, d).
        k: number of filters.
        b: size of the batch.
        seed: of the filters and the inputs.

    Returns:
        For all pairs: the estimates, and (2/π) arcsin ρ with ρ the correlation of the outputs; shape (k(k − 1)/2,).

    Example:
        >>> found, law = agreement_on_correlated(np.array([[1.0, 0.9], [0.9, 2.0]]), k=2, b=100_000, seed=0)
        >>> bool(abs(found - law) < 0.02), bool(abs(law) > 0.1)
        (True, True)
    """
    d = len(covariance)
    W = orthonormal_filters(k, d, seed)
    x = np.random.default_rng(seed).multivariate_normal(np.zeros(d), covariance, b, method="eigh")
    C = W.T @ covariance @ W
    rho = C / np.sqrt(np.outer(np.diag(C), np.diag(C)))
    return _pairs(sign_agreement(x @ W, SIGN)), 2 / np.pi * np.arcsin(_pairs(rho))


def _pairs(matrix: Any) -> Array:
    """The entries above the diagonal."""
    matrix = np.asarray(ops.convert_to_numpy(matrix), np.float64)
    return matrix[np.triu_indices(len(matrix), 1)]


def least_coherent(k: int, d: int, seed: int, steps: int = 300) -> float:
    """The smallest coherence, max |cos|, that descent from random filters finds.

    The frame potential Σ cos⁴ and then cos³² are minimised over filters of length 1: the higher the power, the more
    the worst pair counts.

    Args:
        k: number of filters.
        d: dimension.
        seed: of the start.
        steps: of descent, for each power.

    Example:
        >>> print(f"{least_coherent(3, 2, seed=0):.3f}")  # three filters in the plane: 120 degrees
        0.500
    """
    W = np.random.default_rng(seed).standard_normal((d, k))
    W /= np.linalg.norm(W, axis=0)
    best = 1.0
    for power in (4, 8, 16, 32, 64):
        for step in range(steps):
            cosines = W.T @ W - np.eye(k)
            worst = np.abs(cosines).max()
            best = min(best, worst)
            gradient = W @ (cosines / worst) ** (power - 1)
            gradient -= W * np.sum(W * gradient, axis=0)  # the part that turns, not stretches
            W -= 0.3 * (1 - step / steps) * gradient / max(np.linalg.norm(gradient, axis=0).max(), 1e-12) / power
            W /= np.linalg.norm(W, axis=0)
    return float(best)


def module_alone(inputs: Array, k: int, seed: int, *, steps: int = 600, batch: int = 256) -> dict[str, Array]:
    """Trains a dense layer on nothing but the module's pair term, in its corrected form.

    Args:
        inputs: what the layer sees, shape (N, d).
        k: number of filters.
        seed: of the weights and of the order of the inputs.
        steps: of Adam, rate 0.01.
        batch: inputs a step.

    Returns:
        Before and after, shape (2,): "distance", the root mean square distance of the angles between filters from
        90 degrees; "agreement", the root mean square sign agreement of their outputs on all inputs.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((4000, 16))
        >>> before, after = module_alone(x, k=8, seed=0, steps=100)["distance"]
        >>> bool(after < 0.5 * before)
        True
    """
    keras.utils.set_random_seed(seed)
    layer = keras.layers.Dense(k, use_bias=False, kernel_initializer=keras.initializers.GlorotUniform(seed))
    module = SelfOrthogonality(layer, lambda_mean=0.0, centred=True, scale_invariant=True)
    model = keras.Sequential([keras.Input((inputs.shape[1],)), module])
    model.compile(keras.optimizers.Adam(0.01), jit_compile=keras.backend.backend() == "jax")
    found: dict[str, list[float]] = {"distance": [], "agreement": []}
    order = np.random.default_rng(seed).integers(0, len(inputs), steps * batch)
    for stream in (inputs[:0], inputs[order]):
        if len(stream):
            model.fit(stream.astype(np.float32), batch_size=batch, verbose=0)
        W = ops.convert_to_numpy(layer.kernel).astype(np.float64)
        found["distance"].append(rms(np.degrees(filter_angles(W)) - 90))
        found["agreement"].append(rms(_pairs(sign_agreement(inputs @ W, SIGN, centred=True))))
    return {name: np.array(values) for name, values in found.items()}


def rms(values: Any) -> float:
    """Root mean square.

    Example:
        >>> rms([1, 7])
        5.0
    """
    return float(np.sqrt(np.mean(np.square(values))))


# --- one network, eleven ways -----------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="proof_by_running")
class FilterBank(keras.layers.Layer):
    """A convolution that stores its filters as the columns of a matrix W (d, k), without bias.

    It computes what ``Conv2D`` computes. The matrix is what the article writes, and what Keras' Muon needs: that
    leaves kernels of four axes to Adam.

    Args:
        filters: k.
        size: of the square window, so that d = size² · channels.
        strides: of the window.
        kernel_regularizer: called with W.
        seed: of the initial weights (Glorot, uniform).

    Example:
        >>> bank = FilterBank(16, 5, strides=2)
        >>> outputs = bank(np.zeros((1, 28, 28, 1), "float32"))
        >>> tuple(outputs.shape), tuple(bank.kernel.shape)
        ((1, 14, 14, 16), (25, 16))
    """

    def __init__(
        self,
        filters: int,
        size: int,
        strides: int = 2,
        kernel_regularizer: Callable[[Any], Any] | None = None,
        seed: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters, self.size, self.strides = filters, size, strides
        self.kernel_regularizer, self.seed = kernel_regularizer, seed

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Draws W for images of shape (batch, height, width, channels)."""
        self.kernel = self.add_weight(
            shape=(self.size**2 * shape[-1], self.filters),
            initializer=keras.initializers.GlorotUniform(self.seed),
            regularizer=self.kernel_regularizer,
            name="kernel",
        )

    def call(self, images: Any) -> Any:
        """Returns the outputs, shape (batch, height/strides, width/strides, k)."""
        kernel = ops.reshape(self.kernel, (self.size, self.size, images.shape[-1], self.filters))
        return ops.conv(images, kernel, strides=self.strides, padding="same", data_format="channels_last")

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, height/strides, width/strides, k)."""
        height, width = (None if n is None else -(-n // self.strides) for n in shape[1:3])
        return (shape[0], height, width, self.filters)


#: Adam's rate, for every method but Muon. It trains the plain net as well as 3e-3 does, and its filters drift more.
ADAM_RATE = 1e-2

#: Method → the grid of its one number. For a penalty it is the factor. For the module it is λ₂, with λ₁ = 100 λ₂,
#: and 1 is the paper's own value; "pairs only" is the corrected form with λ₁ = 0. For Muon it is the learning rate.
METHODS: dict[str, tuple[float | None, ...]] = {
    "plain": (None,),
    "weight decay": (1e-4, 1e-3, 1e-2),
    "soft": (1e-2, 1e-1, 1.0),
    "off-diagonal": (1e-2, 1e-1, 1.0),
    "spectral": (1e-2, 1e-1, 1.0),
    "coherence": (1e-2, 1e-1, 1.0),
    "module, paper": (1e-6, 1e-5, 1e-4, 1.0),
    "module, corrected": (1e-6, 1e-5, 1e-4, 1.0),
    "module, pairs only": (1e-4, 1e-3, 1e-2),
    "hard": (None,),
    "Muon": (3e-3, 1e-2, 3e-2),
}
_REGULARIZERS: dict[str, Callable[[float], Any]] = {
    "weight decay": keras.regularizers.L2,
    "soft": SoftOrthogonality,
    "off-diagonal": OffDiagonalOrthogonality,
    "spectral": SpectralIsometry,
    "coherence": MutualCoherence,
}
_WRAPPERS: dict[str, Callable[[Any, float | None], keras.layers.Layer]] = {
    "module, paper": lambda bank, factor: SelfOrthogonality(bank, 10.0, 100 * factor, factor),
    "module, corrected": lambda bank, factor: SelfOrthogonality(
        bank, 10.0, 100 * factor, factor, centred=True, scale_invariant=True
    ),
    "module, pairs only": lambda bank, factor: SelfOrthogonality(
        bank, 10.0, 0.0, factor, centred=True, scale_invariant=True
    ),
    "hard": lambda bank, _: Orthogonalized(bank),
}

#: Of each filter bank: its filters and the size of their window. Every one could be orthogonal: k ≤ d.
BANKS = ((16, 5), (32, 3), (32, 3))
#: Standard deviation of the noise added to test images, in standard deviations of a pixel.
NOISE = (0.0, 0.25, 0.5, 1.0)
#: Edges of the bins in which angles between filters are counted, in degrees.
BINS = np.linspace(0, 180, 61)


def network(method: str, strength: float | None, seed: int) -> keras.Model:
    """A compiled net of three convolutions with stride 2: filter bank → batch norm → ReLU, and a dense head.

    Args:
        method: a key of :data:`METHODS`.
        strength: its number.
        seed: of the weights and of the order in which it will see the images.

    Raises:
        ValueError: an unknown method.

    Example:
        >>> network("soft", 0.01, seed=0).count_params()
        19674
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {'; '.join(METHODS)}, got {method!r}")
    keras.utils.set_random_seed(seed)
    generator = keras.random.SeedGenerator(seed)
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for filters, size in BANKS:
        regularizer = _REGULARIZERS[method](strength) if method in _REGULARIZERS else None
        bank = FilterBank(filters, size, kernel_regularizer=regularizer, seed=generator)
        model.add(_WRAPPERS[method](bank, strength) if method in _WRAPPERS else bank)
        model.add(keras.layers.BatchNormalization())
        model.add(keras.layers.ReLU())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(generator), name="head"))
    if method == "Muon":
        optimizer = keras.optimizers.Muon(
            strength, exclude_layers=["head"], weight_decay=None, adam_weight_decay=None
        )
    else:
        optimizer = keras.optimizers.Adam(ADAM_RATE)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # The loss contains the penalty; this is the task alone.
        metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="task")],
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


def bank_kernels(model: keras.Model) -> list[Array]:
    """The matrices W (d, k) that the filter banks of a network compute with.

    Example:
        >>> [kernel.shape for kernel in bank_kernels(network("hard", None, seed=0))]
        [(25, 16), (144, 32), (288, 32)]
    """
    kernels = []
    for layer in model.layers[:-2:3]:
        kernel = layer.layer.kernel if isinstance(layer, SelfOrthogonality) else layer.kernel
        kernels.append(np.asarray(ops.convert_to_numpy(kernel_matrix(kernel)), np.float64))
    return kernels


def output_agreement(model: keras.Model, images: NDArray) -> float:
    """Root mean square of the sign agreement of filters on images: centred outputs, all pairs of all banks.

    Example:
        >>> images = training_images()[0][:100]
        >>> 0 < output_agreement(network("plain", None, seed=0), images) < 1
        True
    """
    agreements, h = [], ops.convert_to_tensor(images)
    for layer in model.layers[:-2]:
        h = layer(h, training=False) if isinstance(layer, keras.layers.BatchNormalization) else layer(h)
        if not isinstance(layer, keras.layers.BatchNormalization | keras.layers.ReLU):
            agreements.append(_pairs(sign_agreement(h, SIGN, centred=True)))
    return rms(np.concatenate(agreements))


@lru_cache(maxsize=1)
def _images() -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """The book's split of Fashion-MNIST, shape (N, 28, 28, 1), pixels of mean 0 and variance 1 in training."""
    (train, train_labels), (test, test_labels) = corpora.fashion_mnist_split()
    mean, deviation = train.mean(), train.std()
    train, test = (((x[..., None] - mean) / deviation).astype(np.float32) for x in (train, test))
    return (train, train_labels), (test, test_labels)


def training_images() -> tuple[NDArray, NDArray]:
    """The 8,000 training images, float32 (8000, 28, 28, 1), with pixels of mean 0 and variance 1, and labels."""
    return _images()[0]


def _angles(model: keras.Model) -> Array:
    """The angles between filters of the same bank, in degrees, all banks."""
    return np.degrees(np.concatenate([filter_angles(W) for W in bank_kernels(model)]))


def train(
    method: str, strength: float | None = None, seed: int = 1, *, epochs: int = 2, batch: int = 64
) -> dict[str, Any]:
    """Trains the network on 8,000 images of Fashion-MNIST and tests it on 2,000 others.

    Args:
        method: a key of :data:`METHODS`.
        strength: its number.
        seed: of the weights, the order of the images and the noise of the test.
        epochs: passes through the training images.
        batch: images a step.

    Returns:
        "task", the cross entropy of the training images in nats, without any penalty, shape (epochs,);
        "accuracy" on test images with the noise levels of :data:`NOISE`; of the angles between filters of the
        three banks, in degrees, at the start and after every epoch, shape (epochs + 1,): "mean", "deviation"
        (standard), "distance" (root mean square distance from 90); "counts" of the final angles in :data:`BINS`;
        "agreement", the :func:`output_agreement` on the test images; "seconds" of wall-clock time.

    Raises:
        ValueError: an unknown method.

    Example:
        >>> run = train("plain", epochs=1)
        >>> bool(run["accuracy"][0] > 0.7), run["mean"].shape
        (True, (2,))
    """
    (images, labels), (test, test_labels) = _images()
    start = time.perf_counter()
    model = network(method, strength, seed)
    degrees, task = [_angles(model)], []
    for _ in range(epochs):
        task += model.fit(images, labels, batch_size=batch, verbose=0).history["task"]
        degrees.append(_angles(model))
    noise = np.random.default_rng(seed).standard_normal(test.shape, dtype=np.float32)
    accuracy = [
        np.mean(ops.convert_to_numpy(model(test + level * noise, training=False)).argmax(-1) == test_labels)
        for level in NOISE
    ]
    return {
        "task": np.array(task),
        "accuracy": np.array(accuracy),
        "mean": np.mean(degrees, axis=1),
        "deviation": np.std(degrees, axis=1),
        "distance": np.array([rms(angles - 90) for angles in degrees]),
        "counts": np.histogram(degrees[-1], BINS)[0],
        "agreement": output_agreement(model, test),
        "seconds": time.perf_counter() - start,
    }


def choose(tuning: records.Record, method: str) -> float | None:
    """The number of a method, by one rule fixed in advance.

    A penalty is as strong as the task allows: the largest number of the grid whose task loss in the last epoch, on
    the training images, is at most 5 % above that of the plain net; the smallest if none is. A learning rate is the
    one with the lowest task loss. The tuning seed is not reported, and test images take no part.

    Args:
        tuning: the record "tuning".
        method: a key of :data:`METHODS`.

    Raises:
        ValueError: a method that was not tuned.
    """
    rows = tuning.where(method=method)
    if not rows:
        raise ValueError(f"method: got {method!r}, which the record does not hold")
    if method == "Muon":
        return min(rows, key=lambda row: row["task"][-1])["strength"]
    if len(rows) == 1:
        return rows[0]["strength"]
    (plain,) = tuning.where(method="plain")
    allowed = [row["strength"] for row in rows if row["task"][-1] <= 1.05 * plain["task"][-1]]
    return max(allowed, default=min(row["strength"] for row in rows))


# --- what a step costs ------------------------------------------------------------------------------------


def step_cost(method: str, *, units: int = 512, batch: int = 256, repeats: int = 40) -> dict[str, float]:
    """Time of a training step of one dense layer with a method, against the plain layer, in alternation.

    Args:
        method: a key of :data:`METHODS` other than "Muon", whose cost is the optimizer's.
        units: width of the layer, and of its inputs.
        batch: images a step.
        repeats: steps timed.

    Returns:
        "ms" of a step, "ratio" to the plain layer's with its interval "low" to "high".

    Raises:
        ValueError: an unknown method.
    """
    if method not in METHODS or method == "Muon":
        raise ValueError(f"method must be one of {'; '.join(METHODS)} without Muon, got {method!r}")

    def layer(name: str) -> keras.layers.Layer:
        regularizer = _REGULARIZERS[name](1e-3) if name in _REGULARIZERS else None
        dense = keras.layers.Dense(units, use_bias=False, kernel_regularizer=regularizer)
        return _WRAPPERS[name](dense, 1e-6) if name in _WRAPPERS else dense

    x, y = np.random.default_rng(0).standard_normal((2, batch, units), dtype=np.float32)

    def step(name: str) -> Callable[[], Any]:
        model = keras.Sequential([keras.Input((units,)), layer(name)])
        model.compile("sgd", "mse", jit_compile=keras.backend.backend() == "jax")
        return lambda: model.train_on_batch(x, y)

    race = measure.contest({"plain": step("plain"), "method": step(method)}, repeats=repeats)
    ratio = race.ratio("method", "plain")
    return {"ms": 1000 * race["method"].median, "ratio": ratio.value, "low": ratio.low, "high": ratio.high}


# --- what is recorded -------------------------------------------------------------------------------------

SEEDS = tuple(range(1, 11))
EPOCHS = 2


def record_tuning(scale: str) -> records.Record:
    """Task loss against strength for every method, on a seed that is not reported."""
    cases = [
        {"method": method, "strength": strength, "seed": 0, "epochs": EPOCHS}
        for method, grid in METHODS.items()
        for strength in grid
    ]
    return records.sweep(CHAPTER, "tuning", train, cases, scale=scale)


def record_training(scale: str) -> records.Record:
    """Angles, accuracy and robustness for every method at its chosen strength, ten seeds."""
    tuning = records.load(CHAPTER, "tuning", scale)
    if tuning is None:
        raise ValueError("the record 'tuning' is missing: run it first, it chooses the strengths")
    cases = [
        {"method": method, "strength": choose(tuning, method), "seed": seed, "epochs": EPOCHS}
        for seed in SEEDS
        for method in METHODS
    ]
    return records.sweep(CHAPTER, "training", train, cases, scale=scale)


def record_cost(scale: str) -> records.Record:
    """Time of a training step of a 512-unit dense layer with every penalty, against the plain layer."""
    cases = [{"method": method} for method in METHODS if method not in ("plain", "Muon")]
    return records.sweep(CHAPTER, "cost", step_cost, cases, scale=scale)


def over_seeds(
    record: records.Record, method: str, key: str, against: str | None = None, *, entry: int = -1
) -> measure.Estimate:
    """Mean over the seeds of a recorded value with its interval.

    Args:
        record: the record "training".
        method: a key of :data:`METHODS`.
        key: of the value.
        against: a second method; then the mean of the differences, seed by seed.
        entry: which entry, if the value is a list; for "accuracy" the number of the level in :data:`NOISE`.
    """
    values = [np.ravel(value)[entry] for value in record.column(key, method=method)]
    if against is not None:
        values = np.subtract(values, [np.ravel(value)[entry] for value in record.column(key, method=against)])
    return measure.Estimate.from_samples(values)


def summary(record: records.Record) -> str:
    """The methods as a table of means over the seeds, in plain text.

    Args:
        record: the record "training".

    Example:
        >>> print(summary(records.load(CHAPTER, "training", "cpu")).splitlines()[0])
                             factor   loss  distance  agreement  accuracy  noisy
    """
    lines = [" " * 21 + "factor   loss  distance  agreement  accuracy  noisy"]
    for method in dict.fromkeys(record.column("method")):
        loss, distance, agreement, noisy = (
            over_seeds(record, method, key).value for key in ("task", "distance", "agreement", "accuracy")
        )
        clean = over_seeds(record, method, "accuracy", entry=0).value
        factor = record.column("strength", method=method)[0]
        line = f"{method:20}{'' if factor is None else factor:>7}  {loss:.3f}  {distance:7.2f}°"
        lines.append(f"{line}  {agreement:9.3f}  {clean:8.1%}  {noisy:.1%}")
    return "\n".join(lines)


def draw_angles(record: records.Record, methods: Sequence[str]) -> Figure:
    """Distribution of the angles between filters after training, all seeds, one panel a method.

    Args:
        record: the record "training".
        methods: keys of :data:`METHODS`.

    Example:
        >>> len(draw_angles(records.load(CHAPTER, "training", "cpu"), ["plain", "soft"]).axes)
        2
    """
    figure, axes = plt.subplots(1, len(methods), figsize=(9, 2.3), sharex=True)
    for ax, method in zip(axes, methods, strict=True):
        counts = np.sum(record.column("counts", method=method), axis=0)
        ax.stairs(counts, BINS, fill=True, color=figures.SKY)
        ax.axvline(90, color=figures.INK, linestyle=":", linewidth=1)
        ax.set(title=method, xlim=(60, 120), xticks=(60, 90, 120), xlabel="degrees", yticks=[])
    return figure


def draw_drift(record: records.Record, methods: Sequence[str]) -> Figure:
    """Distance of the angles between filters from 90 degrees through training, mean over the seeds.

    Args:
        record: the record "training".
        methods: keys of :data:`METHODS`.

    Example:
        >>> len(draw_drift(records.load(CHAPTER, "training", "cpu"), ["plain", "soft"]).axes[0].lines)
        2
    """
    figure, ax = plt.subplots(figsize=(6.4, 3.0))
    for method in methods:
        ax.plot(np.mean(record.column("distance", method=method), axis=0), marker="o", label=method)
    ax.set(xlabel="epoch", ylabel="rms distance from 90°", xticks=range(EPOCHS + 1), ylim=(-0.2, 11))
    ax.legend(ncols=2, fontsize="small", title=record.label(), title_fontsize="small", loc="upper left")
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.orthogonality --scale cpu``."""
    return records.main(CHAPTER, {"tuning": record_tuning, "training": record_training, "cost": record_cost}, argv)


if __name__ == "__main__":
    sys.exit(main())
