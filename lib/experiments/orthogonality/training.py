"""One network, trained in every way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.experiments.orthogonality.agreement import Array, of_signs, rms
from lib.experiments.orthogonality.fashion import held_out_images, training_images
from lib.orthogonality import Orthogonalized, SelfOrthogonality, SoftOrthogonality, filter_angles, kernel_matrix

#: Adam's rate at the first step; it falls to 0 along half a cosine.
ADAM_RATE = 1e-2


#: Method → the grid of its one number: for a penalty its factor, for a form of the module λ₂. The first two forms
#: have the mean term, with λ₁ = 100 λ₂ as in the paper, whose own λ₂ is 1; the last two have λ₁ = 0.
METHODS: dict[str, tuple[float | None, ...]] = {
    "plain": (None,),
    "weight decay": (1e-4, 1e-3, 1e-2),
    "soft": (1.0, 10.0, 100.0),
    "module": (1e-7, 1e-6, 1e-5),
    "module, corrected": (1e-7, 1e-6, 1e-5),
    "pair term": (1e-5, 1e-3, 1e-2, 1e-1),
    "pair term, corrected": (1e-5, 1e-2, 1e-1, 1.0),
    "hard": (None,),
}


_REGULARIZERS: dict[str, Callable[[float], Any]] = {
    "weight decay": keras.regularizers.L2,
    "soft": SoftOrthogonality,
}


#: Form of the module → whether it has the mean term, and whether its outputs are centred and scaled.
_FORMS: dict[str, tuple[bool, bool]] = {
    "module": (True, False),
    "module, corrected": (True, True),
    "pair term": (False, False),
    "pair term, corrected": (False, True),
}


#: Of each convolution: its filters and the size of their window. Every one could be orthogonal: k ≤ d.
BANKS = ((16, 5), (32, 3), (32, 3))


#: Passes through the training images.
EPOCHS = 2


#: Standard deviation of the noise added to test images, in standard deviations of a pixel.
NOISE = (0.0, 1.0)


def wrapped(layer: keras.layers.Layer, method: str, strength: float | None) -> keras.layers.Layer:
    """The layer, in the wrapper of a method that has one."""
    if method == "hard":
        return Orthogonalized(layer)
    if method not in _FORMS:
        return layer
    mean, corrected = _FORMS[method]
    return SelfOrthogonality(
        layer, lambda_mean=100 * strength * mean, lambda_pair=strength, centred=corrected, scale_invariant=corrected
    )


def network(method: str, strength: float | None, seed: int, steps: int = 1) -> keras.Model:
    """A compiled net of three convolutions with stride 2: convolution → batch norm → ReLU, and a dense head.

    Args:
        method: a key of :data:`METHODS`.
        strength: its number.
        seed: of the weights and of the order in which it will see the images.
        steps: after which the learning rate is 0.

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
        bank = keras.layers.Conv2D(
            filters,
            size,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.GlorotUniform(generator),
            kernel_regularizer=_REGULARIZERS[method](strength) if method in _REGULARIZERS else None,
        )
        model.add(wrapped(bank, method, strength))
        # Its averages must follow within the few hundred steps of a run.
        model.add(keras.layers.BatchNormalization(momentum=0.9))
        model.add(keras.layers.ReLU())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(generator), name="head"))
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(ADAM_RATE, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        # The loss contains the penalty; this is the task alone.
        metrics=[keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="task")],
        jit_compile=keras.backend.backend() == "jax",
        steps_per_execution=25 if keras.backend.backend() == "tensorflow" else 1,
    )
    return model


def bank_kernels(model: keras.Model) -> list[Array]:
    """The matrices W (d, k) that the convolutions of a network compute with.

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
    """Root mean square of the sign agreement of filters on images: centred outputs, all pairs of all convolutions.

    Example:
        >>> from lib.experiments.orthogonality.fashion import training_images
        >>> images = training_images()[0][:100]
        >>> 0 < output_agreement(network("plain", None, seed=0), images) < 1
        True
    """
    agreements, h = [], ops.convert_to_tensor(images)
    for layer in model.layers[:-2]:
        h = layer(h, training=False) if isinstance(layer, keras.layers.BatchNormalization) else layer(h)
        if not isinstance(layer, keras.layers.BatchNormalization | keras.layers.ReLU):
            outputs = ops.convert_to_numpy(h).reshape(-1, h.shape[-1])
            agreements.append(of_signs(outputs - outputs.mean(axis=0, dtype=np.float64)))
    return rms(np.concatenate(agreements))


def _distance(model: keras.Model) -> float:
    """Root mean square distance of the angles between filters of the same layer from 90 degrees."""
    return rms(np.degrees(np.concatenate([filter_angles(W) for W in bank_kernels(model)])) - 90)


@functools.lru_cache(maxsize=1)
def _compiled(method: str, strength: float | None, steps: int) -> keras.Model:
    """A network whose graph serves all seeds: tracing it takes as long as half of a run."""
    return network(method, strength, 0, steps)


def _renewed(method: str, strength: float | None, seed: int, steps: int) -> keras.Model:
    """The network as :func:`network` makes it with this seed, in a graph that may be there already."""
    model = _compiled(method, strength, steps)
    for variable in model.optimizer.variables:
        variable.assign(ops.zeros(variable.shape, variable.dtype))
    # Last, because it also sets the seed of the order of the images.
    model.set_weights(network(method, strength, seed, steps).get_weights())
    return model


def fit(
    method: str, strength: float | None, seed: int, *, epochs: int = EPOCHS, batch: int = 64
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Trains the network on 8,000 images of Fashion-MNIST.

    Args:
        method: a key of :data:`METHODS`.
        strength: its number.
        seed: of the weights and the order of the images.
        epochs: passes through the images.
        batch: images a step.

    Returns:
        The network, and two lists: "task", the cross entropy of the images in nats, without any penalty, for every
        epoch; "distance", the root mean square distance of the angles between filters of the same layer from 90
        degrees, before and after.

    Raises:
        ValueError: an unknown method.
    """
    images, labels = training_images()
    model = _renewed(method, strength, seed, epochs * -(-len(images) // batch))
    before = _distance(model)
    history = model.fit(images, labels, batch_size=batch, epochs=epochs, verbose=0).history
    return model, {"task": history["task"], "distance": [before, _distance(model)]}


def train(method: str, strength: float | None = None, seed: int = 1, *, epochs: int = EPOCHS) -> dict[str, Any]:
    """Trains the network and tests it on 2,000 other images.

    Args:
        method: a key of :data:`METHODS`.
        strength: its number.
        seed: as in :func:`fit`, and of the noise of the test.
        epochs: passes through the training images.

    Returns:
        What :func:`fit` measures; "accuracy" on test images with the noise levels of :data:`NOISE`; "agreement",
        the :func:`output_agreement` on the test images.

    Raises:
        ValueError: an unknown method.

    Example:
        >>> run = train("plain", epochs=1)
        >>> bool(run["accuracy"][0] > 0.7), len(run["distance"])
        (True, 2)
    """
    model, course = fit(method, strength, seed, epochs=epochs)
    images, labels = held_out_images()
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    accuracy = [
        np.mean(ops.convert_to_numpy(model(images + level * noise, training=False)).argmax(-1) == labels)
        for level in NOISE
    ]
    return {**course, "accuracy": np.array(accuracy), "agreement": output_agreement(model, images)}


def first_filters(method: str, strength: float | None, seed: int) -> dict[str, NDArray]:
    """The filters of the first layer after training, each divided by its largest entry, to two decimals.

    Returns:
        "filters", shape (16, 25).
    """
    model, _ = fit(method, strength, seed)
    filters = bank_kernels(model)[0].T
    return {"filters": np.round(filters / np.abs(filters).max(axis=1, keepdims=True), 2)}
