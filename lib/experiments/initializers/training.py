"""How deep may a plain network be before its initialization decides whether it learns, and which part of it does?

Networks of 64 units a layer learn Fashion-MNIST by Adam. A stack is named by what differs from Gaussian kernels at
the edge: the gain, the law of the kernels, a normalization, a residual branch; and, to find out why a wrong gain
fails, biases, the scale of the output, the epsilon and the clipping of Adam.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.experiments.initializers.matrices import CHAPTER, draw_matrices
from lib.initializers import Scaled
from lib.workbench import corpora, records
from lib.workbench.measure import Estimate

Array = NDArray[np.float64]

#: The gain at which a small difference between two inputs neither grows nor shrinks: (2.6) is 1.
EDGE_GAIN = {"relu": math.sqrt(2), "tanh": 1.0}

#: What makes a stack, beside Gaussian kernels of the edge's gain. The wrong gains are wrong by a factor of √2.
STACKS: dict[str, dict[str, Any]] = {
    "Gaussian": {},
    "gain too small": {"factor": 1 / math.sqrt(2)},
    "gain too large": {"factor": math.sqrt(2)},
    "orthogonal": {"law": "orthogonal"},
    "mirrored": {"law": "mirrored"},
    "layer norm": {"norm": 1.0},
    "layer norm, mirrored": {"norm": 1.0, "law": "mirrored"},
    "layer norm, orthogonal": {"norm": 1.0, "law": "orthogonal"},
    "layer norm at 0.2": {"norm": 0.2},
    "layer norm at 0.2, orthogonal": {"norm": 0.2, "law": "orthogonal"},
    "residual": {"residual": True},
    "Gaussian, no biases": {"bias": False},
    **{
        f"gain too {name}, {told}": {"factor": factor, **mended}
        for name, factor in (("small", 1 / math.sqrt(2)), ("large", math.sqrt(2)))
        for told, mended in (
            ("loss rescaled", {"rescale": "loss"}),
            ("loss rescaled, no biases", {"rescale": "loss", "bias": False}),
            ("output rescaled", {"rescale": "output"}),
            ("output rescaled, no biases", {"rescale": "output", "bias": False}),
        )
    },
}


class Stack(keras.layers.Layer):
    """L hidden layers of equal width n, whose kernels are slices of one weight of shape (L, n, n).

    A layer is h ← f(hK + b); with a norm, h ← f(γ N(hK) + b) with N the layer norm; residual, h ← h + f(hK + b)/√L.
    The loop over the layers is a scan, so that building 1000 layers takes no longer than building ten.

    Args:
        depth: L.
        activation: f, "relu" or "tanh".
        factor: of the edge's gain.
        law: as in :func:`lib.experiments.initializers.matrices.draw_matrices`.
        norm: γ, the scale of normalized pre-activations; 0 for none.
        residual: whether to add h.
        bias: whether there are biases.
        rescale: what is divided by factor to the power of L, "output" or "loss"; empty for neither.
        seed: as in ``draw_matrices``.

    Raises:
        ValueError: an activation whose gain at the edge is not known, or a law that the initializers refuse.

    Source: He et al. 2015 (arXiv 1512.03385) for the residual; Ba et al. 2016 (arXiv 1607.06450) for the norm.

    Example:
        >>> Stack(100, "tanh", law="orthogonal").compute_output_shape((2, 8))
        (2, 8)
    """

    def __init__(
        self,
        depth: int,
        activation: str,
        *,
        factor: float = 1.0,
        law: str = "normal",
        norm: float = 0.0,
        residual: bool = False,
        bias: bool = True,
        rescale: str = "",
        seed: Any = 0,
    ):
        super().__init__()
        if activation not in EDGE_GAIN:
            raise ValueError(f"activation must be one of {', '.join(EDGE_GAIN)}, got {activation!r}")
        self.depth, self.norm, self.residual, self.has_bias = depth, norm, residual, bias
        self.f = keras.activations.get(activation)
        self.output_scale = factor**-depth if rescale == "output" else 1.0
        self.loss_scale = factor**-depth if rescale == "loss" else 1.0
        self._draw = {"law": law, "gain": factor * EDGE_GAIN[activation], "seed": seed}

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Draws the kernels for inputs of shape (batch, n)."""
        n = shape[-1]
        kernels = draw_matrices(self.depth, n, n, **self._draw)
        self.kernel = self.add_weight(
            shape=kernels.shape, initializer=lambda _, dtype: ops.convert_to_tensor(kernels, dtype), name="kernel"
        )
        self.bias = self.add_weight(
            shape=(self.depth, n), initializer="zeros", trainable=self.has_bias, name="bias"
        )

    def call(self, x: Any) -> Any:
        """Maps (batch, n) to (batch, n)."""

        def layer(h: Any, parameters: tuple[Any, Any]) -> tuple[Any, Any]:
            kernel, bias = parameters
            z = ops.matmul(h, kernel)
            if self.norm:
                z = (z - ops.mean(z, -1, keepdims=True)) / ops.sqrt(ops.var(z, -1, keepdims=True) + 1e-6)
                z = self.norm * z
            y = self.f(z + bias)
            if self.residual:
                y = h + y / math.sqrt(self.depth)
            return y, y

        y = ops.scan(layer, x, (ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)))[0]
        return self.output_scale * y

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(batch, n)."""
        return shape


@lru_cache(maxsize=1)
def _images() -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """The book's split of Fashion-MNIST, pixels of mean 0 and variance 1 over the training images, as vectors."""
    (train, train_labels), (test, test_labels) = corpora.fashion_mnist_split()
    mean, deviation = train.mean(), train.std()
    train, test = (((x.reshape(len(x), -1) - mean) / deviation).astype(np.float32) for x in (train, test))
    return (train, train_labels), (test, test_labels)


def network(depth: int, stack: str, activation: str, seed: int, width: int = 64) -> keras.Model:
    """784 pixels → n, a :class:`Stack` of L hidden layers, n → 10 logits.

    Args:
        depth: L.
        stack: a key of :data:`STACKS`.
        activation: "relu" or "tanh".
        seed: of the weights and of the order in which it will see the images.
        width: n.

    Raises:
        ValueError: an unknown stack or activation.

    Example:
        >>> network(100, "Gaussian", "relu", 0).count_params()
        466890
    """
    if stack not in STACKS:
        raise ValueError(f"stack must be one of {'; '.join(STACKS)}, got {stack!r}")
    keras.utils.set_random_seed(seed)
    generator = keras.random.SeedGenerator(seed)
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(width, kernel_initializer=Scaled("fan_in", seed=generator)),
            Stack(depth, activation, **STACKS[stack], seed=generator),
            keras.layers.Dense(10, kernel_initializer=Scaled("fan_in", seed=generator)),
        ]
    )


def gradient_norms(
    depth: int, stack: str, activation: str = "tanh", seed: int = 0, *, width: int = 64, batch: int = 128
) -> Array:
    """‖∂loss/∂K_l‖ of every hidden kernel at initialization, over the first images of the training set.

    Args:
        depth: L.
        stack: a key of :data:`STACKS`.
        activation: "relu" or "tanh".
        seed: of the weights.
        width: n.
        batch: number of images.

    Returns:
        Shape (L,), the layer next to the images first.

    Raises:
        ValueError: an unknown stack or activation.

    Example:
        >>> norms = gradient_norms(20, "gain too small", "relu")
        >>> bool(norms.max() < 0.1)
        True
    """
    (images, labels), _ = _images()
    model = network(depth, stack, activation, seed, width)
    # The velocity after one step of rate 1 is the negative gradient: no backend needs its own words for it.
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    model.train_on_batch(images[:batch], labels[:batch])
    index = next(i for i, v in enumerate(model.trainable_variables) if v is model.layers[1].kernel)
    velocity = ops.convert_to_numpy(optimizer.momentums[index]).astype(np.float64)
    return np.linalg.norm(velocity, axis=(1, 2))


class Trainer:
    """Trains networks of one kind, one after another, with a model that is compiled once.

    The same runs in the same order repeat. On JAX the first run of a trainer shuffles the images otherwise than a
    later one of the same seed.

    Args:
        depth: number L of hidden layers.
        stack: a key of :data:`STACKS`.
        activation: "relu" or "tanh".
        width: n.

    Raises:
        ValueError: an unknown stack or activation.

    Example:
        >>> run = Trainer(2, "Gaussian", "relu", width=8)(seed=1, rate=1e-3, epochs=1)
        >>> sorted(run)
        ['accuracy', 'exploded', 'loss', 'seconds']
    """

    def __init__(self, depth: int, stack: str, activation: str, width: int = 64):
        self._kind = (depth, stack, activation)
        self._width = width
        self.model = network(*self._kind, 0, width)
        self.model.compile(
            keras.optimizers.Adam(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            loss_weights=self.model.layers[1].loss_scale,
            jit_compile=keras.backend.backend() == "jax",  # TensorFlow's XLA cannot differentiate a scan
        )

    def __call__(self, seed: int, rate: float, *, epochs: int = 3, batch: int = 128) -> dict[str, Any]:
        """Trains a network with Adam on 8,000 images of Fashion-MNIST and tests it on 2,000 others.

        Args:
            seed: of the weights and of the order of the images.
            rate: Adam's learning rate.
            epochs: passes through the training images.
            batch: images a step.

        Returns:
            "loss" (the mean over an epoch of the cross entropy in nats) and "accuracy" (on the test images), both
            of shape (epochs,); "exploded", whether the loss became infinite or NaN, which ends the training: from
            there on the loss counts as infinite; "seconds" of wall-clock time.
        """
        training, test = _images()
        start = time.perf_counter()
        self.model.set_weights(network(*self._kind, seed, self._width).get_weights())
        optimizer = self.model.optimizer
        for variable in optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        optimizer.learning_rate = rate
        history = self.model.fit(
            *training,
            batch_size=batch,
            epochs=epochs,
            validation_data=test,
            validation_batch_size=1000,
            callbacks=[keras.callbacks.TerminateOnNaN()],
            verbose=0,
        ).history
        missing = epochs - len(history["loss"])
        loss = np.nan_to_num(history["loss"], nan=np.inf) / self.model.layers[1].loss_scale
        return {
            "loss": np.pad(loss, (0, missing), constant_values=np.inf),
            "accuracy": np.pad(history["val_accuracy"], (0, missing), mode="edge"),
            "exploded": bool(np.isinf(loss).any()),
            "seconds": time.perf_counter() - start,
        }


def tuned(
    depth: int,
    stack: str,
    activation: str,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    width: int = 64,
    epochs: int = 3,
    batch: int = 128,
) -> dict[str, Any]:
    """Trains networks at the learning rate that suits them, for several seeds.

    The rule, the same for every stack and fixed in advance: the rate is the one whose training loss in the last
    epoch is lowest for seed 0. The reported seeds take no part in that choice, nor do the test images.

    Args:
        depth: number L of hidden layers.
        stack: a key of :data:`STACKS`.
        activation: "relu" or "tanh".
        rates: the grid.
        seeds: those that are reported.
        width: n.
        epochs: passes through the training images.
        batch: images a step.

    Returns:
        "rate", the one chosen; "losses", those that chose it, in the order of the grid; of the runs "loss"
        and "accuracy", shape (seeds, epochs), "exploded", how many did, and "seconds" of all of it.

    Example:
        >>> found = tuned(1, "Gaussian", "tanh", rates=(1e-5, 1e-3), seeds=(1,), epochs=1, width=16)
        >>> found["rate"]
        0.001
    """
    train = Trainer(depth, stack, activation, width)
    settings = {"epochs": epochs, "batch": batch}
    trials = [train(0, rate, **settings) for rate in rates]
    losses = [float(trial["loss"][-1]) for trial in trials]
    rate = rates[int(np.argmin(losses))]
    runs = [train(seed, rate, **settings) for seed in seeds]
    return {
        "rate": rate,
        "losses": losses,
        "loss": np.array([run["loss"] for run in runs]),
        "accuracy": np.array([run["accuracy"] for run in runs]),
        "exploded": sum(run["exploded"] for run in runs),
        "seconds": sum(run["seconds"] for run in [*trials, *runs]),
    }


# --- what is recorded ---------------------------------------------------------------------------------------------

#: Who is trained: with a ReLU, and with tanh.
CONTESTANTS = {
    "relu": (
        *("gain too small", "gain too large", "Gaussian", "orthogonal", "mirrored"),
        *("layer norm", "layer norm, mirrored", "residual"),
    ),
    "tanh": (
        *("Gaussian", "orthogonal", "layer norm", "layer norm, orthogonal"),
        *("layer norm at 0.2", "layer norm at 0.2, orthogonal", "residual"),
    ),
}
#: Why a wrong gain fails, asked of ReLU networks.
SUSPECTS = (
    *("Gaussian", "Gaussian, no biases"),
    *(name for size in ("small", "large") for name in STACKS if name.startswith(f"gain too {size}")),
)
#: How deep: all stacks, and for comparison a few.
DEEP, SHALLOW = {"cpu": 100, "gpu": 1000}, 3
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
SEEDS = (1, 2, 3, 4, 5, 6)
_COMMAND = "KERAS_BACKEND=jax python -m lib.experiments.initializers --scale {scale}"


def _cases(*networks: tuple[int, str, str]) -> list[dict[str, Any]]:
    settings = {"rates": RATES, "seeds": SEEDS, "epochs": 3}
    return [{"depth": L, "activation": activation, "stack": stack, **settings} for L, activation, stack in networks]


def record_depth(scale: str) -> records.Record:
    """Test accuracy of fifteen stacks of 100 layers, and of plain and residual ones of three, for six seeds."""
    deep = [(DEEP[scale], activation, stack) for activation, stacks in CONTESTANTS.items() for stack in stacks]
    shallow = [(SHALLOW, activation, stack) for activation in CONTESTANTS for stack in ("Gaussian", "residual")]
    cases = _cases(*deep, *shallow)
    return records.sweep(CHAPTER, "depth", tuned, cases, scale=scale, command=_COMMAND.format(scale=scale))


def record_causes(scale: str) -> records.Record:
    """Why a wrong gain fails in fifty layers: the size of gradients, that of the output, or the biases."""
    cases = _cases(*((50, "relu", stack) for stack in SUSPECTS))
    return records.sweep(CHAPTER, "causes", tuned, cases, scale=scale, command=_COMMAND.format(scale=scale))


#: Whose gradients are measured before training.
MEASURED = (
    ("relu", ("Gaussian", "gain too small", "gain too large")),
    ("tanh", ("Gaussian", "layer norm", "layer norm at 0.2")),
)


def record_gradients(scale: str) -> records.Record:
    """How large the gradient of each of 100 hidden kernels is before training, for six seeds."""
    cases = [
        {"depth": 100, "activation": activation, "stack": stack, "seed": seed}
        for activation, stacks in MEASURED
        for stack in stacks
        for seed in SEEDS
    ]

    def norms(**case: Any) -> dict[str, list[float]]:
        return {"norms": [float(f"{x:.4g}") for x in gradient_norms(**case)]}

    return records.sweep(CHAPTER, "gradients", norms, cases, scale=scale, command=_COMMAND.format(scale=scale))


# --- what is read from the records --------------------------------------------------------------------------------


def accuracies(record: records.Record, **case: Any) -> Array:
    """Test accuracy after the last epoch of the one case that fits, shape (seeds,)."""
    (row,) = record.where(**case)
    return np.array(row["accuracy"])[:, -1]


def gained(record: records.Record, stack: str, other: str, **case: Any) -> Estimate:
    """By how much a stack is more accurate than another, paired by seed, with its t interval."""
    return Estimate.from_samples(accuracies(record, stack=stack, **case) - accuracies(record, stack=other, **case))
