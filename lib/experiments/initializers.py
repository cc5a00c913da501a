"""Chapter 2: how orthogonal is a random matrix, and what does a deep stack of them do to a signal and to learning?

* :func:`closeness`: is WᵀW near I, entry by entry, and in the worst direction?
* :func:`length_ratios`: does a vector chosen before W keep its length?
* :func:`lengths_through_depth`: what is left of that length after many layers?
* :func:`angles_through_depth`: and of the angle between two inputs?
* :func:`gradient_norms`: do all layers of a deep net hear the loss?
* :func:`train_stack`, :func:`tuned`: how deep may a net be before its initialization decides whether it learns?

``python -m lib.experiments.initializers --scale cpu`` records the training ("depth", a quarter of an hour on one
core) and the large matrices ("matrices", two minutes). The GPU trains nets of up to 3000 layers; there
JAX (``KERAS_BACKEND=jax``) is the faster backend, since it compiles the loop over the layers.

Matrices are the article's: y = Wx, with W of shape (m, n), n inputs, m outputs, and entries of variance 1/m.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.initializers import Orthogonal, Scaled, activation_gain, correlation_map
from lib.workbench import corpora, records

CHAPTER = "02-initializers"
_NUMBERS_AT_ONCE = 1 << 24
Array = NDArray[np.float64]


# --- one matrix -------------------------------------------------------------------------------------------


def draw_matrices(
    count: int, m: int, n: int, law: str = "normal", gain: float | str = 1.0, seed: Any = 0
) -> NDArray[np.float32]:
    """Independent random matrices W with entries of variance gain²/m, or orthogonal ones times the gain.

    Args:
        count: number of matrices.
        m: rows, the outputs.
        n: columns, the inputs.
        law: a law of :class:`lib.initializers.Scaled`, or "orthogonal".
        gain: factor, or the name of an activation, which stands for its gain.
        seed: integer or ``keras.random.SeedGenerator``.

    Returns:
        Matrices, float32, shape (count, m, n).

    Raises:
        ValueError: a law, gain or size that the initializers refuse.

    Example:
        >>> W = draw_matrices(2, 3, 5, law="orthogonal")
        >>> W.shape, np.allclose(W[0] @ W[0].T, np.eye(3), atol=1e-5)
        ((2, 3, 5), True)
    """
    if law == "orthogonal":
        initializer = Orthogonal(gain, keras.random.SeedGenerator(seed) if isinstance(seed, int) else seed)
        kernels = np.stack([ops.convert_to_numpy(initializer((n, m))) for _ in range(count)])
    else:  # the variance does not depend on the number of rows of a kernel: one draw serves them all
        kernels = ops.convert_to_numpy(Scaled("fan_out", law, gain, seed)((count * n, m))).reshape(count, n, m)
    return kernels.transpose(0, 2, 1)


def closeness(m: int, n: int, law: str = "normal", seeds: Sequence[int] = range(5)) -> dict[str, Array]:
    """How far WᵀW is from I, entry by entry and as an operator, for W of shape (m, n).

    Args:
        m: rows, the outputs.
        n: columns, the inputs.
        law: as in :func:`draw_matrices`.
        seeds: one matrix is drawn for each.

    Returns:
        Arrays of shape (seeds,): "mse", the mean square of an entry of WᵀW − I; "diagonal", that of an entry on its
        diagonal; "frobenius" and "operator", its norms; "smallest" and "largest", of the min(m, n) singular
        values of W.

    Raises:
        ValueError: as :func:`draw_matrices`.

    Example:
        >>> n = 100
        >>> mse = closeness(n, n)["mse"].mean()
        >>> print(f"measured {mse:.4f}, expected {1 / n + 1 / n**2:.4f}")
        measured 0.0101, expected 0.0101
    """
    rows = []
    for seed in seeds:
        W = draw_matrices(1, m, n, law, seed=seed)[0].astype(np.float64)
        deviations = np.zeros(n) - 1  # eigenvalues of WᵀW − I; those of the null space are −1
        singular_values = np.linalg.svd(W, compute_uv=False)
        deviations[: min(m, n)] += singular_values**2
        rows.append(
            {
                "mse": np.sum(deviations**2) / n**2,
                "diagonal": np.mean((np.sum(W**2, axis=0) - 1) ** 2),
                "frobenius": np.sqrt(np.sum(deviations**2)),
                "operator": np.abs(deviations).max(),
                "smallest": singular_values[-1],
                "largest": singular_values[0],
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def length_ratios(m: int, n: int, law: str = "normal", count: int = 1000, seed: int = 0) -> Array:
    """‖Wx‖/‖x‖ for one fixed x and many W of shape (m, n).

    Args:
        m: rows, the outputs.
        n: columns, the inputs.
        law: as in :func:`draw_matrices`.
        count: number of matrices.
        seed: of x and of the matrices.

    Returns:
        Ratios, shape (count,). They scatter around 1 by 1/√(2m).

    Raises:
        ValueError: as :func:`draw_matrices`.

    Example:
        >>> print(f"{length_ratios(m=50, n=20).std():.2f}")  # 1/√100
        0.10
    """
    x = np.random.default_rng(seed).standard_normal(n)
    batch = max(1, _NUMBERS_AT_ONCE // (m * n))
    generator = keras.random.SeedGenerator(seed)
    counts = [min(batch, count - start) for start in range(0, count, batch)]
    y = np.concatenate([draw_matrices(c, m, n, law, seed=generator) @ x for c in counts])
    return np.linalg.norm(y, axis=-1) / np.linalg.norm(x)


# --- many layers ------------------------------------------------------------------------------------------


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


def angles_through_depth(
    width: int,
    depth: int,
    activation: str = "relu",
    law: str = "normal",
    *,
    correlation: float = 0.0,
    nets: int = 200,
    seed: int = 0,
) -> Array:
    """Cosines between two inputs after l = 0, …, L layers of random nets that carry the gain of their activation.

    Args:
        width: n, 2 or more.
        depth: L.
        activation: name of the Keras activation.
        law: as in :func:`draw_matrices`.
        correlation: the cosine of the inputs. Their second moment is 1/gain², so that already the first
            pre-activations are standard normal.
        nets: number of independent nets.
        seed: of inputs and matrices.

    Returns:
        Shape (nets, L + 1); NaN once a net is dead. :func:`predicted_cosines` is its limit for a large width.

    Example:
        >>> angles_through_depth(width=256, depth=2).mean(axis=0).round(1)
        array([0. , 0.3, 0.5])
    """
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((nets, width, 2)))
    u, v = q[..., 0], correlation * q[..., 0] + math.sqrt(1 - correlation**2) * q[..., 1]
    x = math.sqrt(width) / activation_gain(activation) * np.stack([u, v], -1)
    states = propagate(x, depth, activation, law, activation, seed)
    norms = np.linalg.norm(states, axis=2)
    with np.errstate(invalid="ignore"):
        return (np.prod(states, axis=3).sum(axis=2) / norms.prod(axis=2)).T


def predicted_cosines(activation: str, correlation: float, depth: int) -> Array:
    """The iterates ρ, c(ρ), c(c(ρ)), … of :func:`lib.initializers.correlation_map`, shape (depth + 1,).

    Example:
        >>> predicted_cosines("relu", 0.0, 3).round(3)
        array([0.   , 0.318, 0.494, 0.605])
    """
    cosines = [correlation]
    for _ in range(depth):
        cosines.append(float(np.clip(correlation_map(activation, cosines[-1]), -1, 1)))
    return np.array(cosines)


# --- training ---------------------------------------------------------------------------------------------

#: What makes a stack, beside Gaussian kernels of the critical gain. The wrong gains are wrong by a factor of √2.
STACKS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "gaussian, too small": {"factor": 1 / math.sqrt(2)},
    "gaussian, too large": {"factor": math.sqrt(2)},
    "orthogonal": {"law": "orthogonal"},
    "normalised": {"normalise": True},
    "residual": {"residual": True},
}

#: The gain at which a small difference between two inputs neither grows nor shrinks (Schoenholz et al. 2016).
CRITICAL_GAIN = {"relu": math.sqrt(2), "tanh": 1.0}


class Stack(keras.layers.Layer):
    """L hidden layers of equal width n, whose kernels are slices of one weight of shape (L, n, n).

    A layer is h ← f(hK + b); normalised, h ← f(N(hK) + b) with N the layer norm; residual, h ← h + f(hK + b)/√L.
    The loop over the layers is a scan, so that building 1000 layers takes no longer than building ten.

    Args:
        depth: L.
        activation: f, "relu" or "tanh".
        factor: of the critical gain.
        law: as in :func:`draw_matrices`.
        normalise: whether to normalise before f.
        residual: whether to add h.
        seed: as in :func:`draw_matrices`.

    Raises:
        ValueError: an activation whose critical gain is not known, or a law that the initializers refuse.

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
        normalise: bool = False,
        residual: bool = False,
        seed: Any = 0,
    ):
        super().__init__()
        if activation not in CRITICAL_GAIN:
            raise ValueError(f"activation must be one of {', '.join(CRITICAL_GAIN)}, got {activation!r}")
        self.depth, self.normalise, self.residual = depth, normalise, residual
        self.f = keras.activations.get(activation)
        self._draw = {"law": law, "gain": factor * CRITICAL_GAIN[activation], "seed": seed}

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Draws the kernels for inputs of shape (batch, n)."""
        n = shape[-1]
        kernels = draw_matrices(self.depth, n, n, **self._draw)
        self.kernel = self.add_weight(
            shape=kernels.shape, initializer=lambda _, dtype: ops.convert_to_tensor(kernels, dtype), name="kernel"
        )
        self.bias = self.add_weight(shape=(self.depth, n), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        """Maps (batch, n) to (batch, n)."""

        def layer(h: Any, parameters: tuple[Any, Any]) -> tuple[Any, Any]:
            kernel, bias = parameters
            z = ops.matmul(h, kernel)
            if self.normalise:
                z = (z - ops.mean(z, -1, keepdims=True)) / ops.sqrt(ops.var(z, -1, keepdims=True) + 1e-6)
            y = self.f(z + bias)
            if self.residual:
                y = h + y / math.sqrt(self.depth)
            return y, y

        return ops.scan(layer, x, (ops.convert_to_tensor(self.kernel), ops.convert_to_tensor(self.bias)))[0]

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


def classifier(
    depth: int, stack: str, activation: str, seed: int, optimizer: keras.optimizers.Optimizer, width: int = 64
) -> keras.Model:
    """A compiled net: 784 pixels → n, a :class:`Stack` of L hidden layers, n → 10 logits.

    Args:
        depth: L.
        stack: a key of :data:`STACKS`.
        activation: "relu" or "tanh".
        seed: of the weights and of the order in which it will see the images.
        optimizer: a Keras optimizer.
        width: n.

    Raises:
        ValueError: an unknown stack or activation.

    Example:
        >>> classifier(100, "gaussian", "relu", 0, keras.optimizers.Adam()).count_params()
        466890
    """
    if stack not in STACKS:
        raise ValueError(f"stack must be one of {'; '.join(STACKS)}, got {stack!r}")
    keras.utils.set_random_seed(seed)
    generator = keras.random.SeedGenerator(seed)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(width, kernel_initializer=Scaled("fan_in", seed=generator)),
            Stack(depth, activation, **STACKS[stack], seed=generator),
            keras.layers.Dense(10, kernel_initializer=Scaled("fan_in", seed=generator)),
        ]
    )
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",  # TensorFlow's XLA cannot differentiate a scan
    )
    return model


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
        >>> norms = gradient_norms(20, "gaussian, too small", "relu")
        >>> bool(norms.max() < 0.1)
        True
    """
    (images, labels), _ = _images()
    # The velocity after one step of rate 1 is the negative gradient: no backend needs its own words for it.
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    model = classifier(depth, stack, activation, seed, optimizer, width)
    model.run_eagerly = True  # one step is not worth a compilation
    model.train_on_batch(images[:batch], labels[:batch])
    index = next(i for i, v in enumerate(model.trainable_variables) if v is model.layers[1].kernel)
    velocity = ops.convert_to_numpy(optimizer.momentums[index]).astype(np.float64)
    return np.linalg.norm(velocity, axis=(1, 2))


def train_stack(
    depth: int,
    stack: str,
    activation: str = "tanh",
    seed: int = 0,
    *,
    rate: float = 3e-4,
    width: int = 64,
    epochs: int = 3,
    batch: int = 128,
) -> dict[str, Any]:
    """Trains a net with Adam on 8,000 images of Fashion-MNIST and tests it on 2,000 others.

    Args:
        depth: number L of hidden layers.
        stack: a key of :data:`STACKS`.
        activation: "relu" or "tanh".
        seed: of the weights and of the order of the images.
        rate: Adam's learning rate.
        width: n.
        epochs: passes through the training images.
        batch: images a step.

    Returns:
        "loss" (the mean over an epoch of the cross entropy in nats) and "accuracy" (on the test images), both of
        shape (epochs,); "exploded", whether the loss became infinite or NaN, which ends the training: from there on
        the loss counts as infinite; "seconds" of wall-clock time.

    Raises:
        ValueError: an unknown stack or activation.

    Example:
        >>> sorted(train_stack(2, "gaussian", epochs=1))
        ['accuracy', 'exploded', 'loss', 'seconds']
    """
    training, test = _images()
    start = time.perf_counter()
    model = classifier(depth, stack, activation, seed, keras.optimizers.Adam(rate), width)
    history = model.fit(
        *training,
        batch_size=batch,
        epochs=epochs,
        validation_data=test,
        validation_batch_size=1000,
        callbacks=[keras.callbacks.TerminateOnNaN()],
        verbose=0,
    ).history
    missing = epochs - len(history["loss"])
    loss = np.nan_to_num(history["loss"], nan=np.inf)
    return {
        "loss": np.pad(loss, (0, missing), constant_values=np.inf),
        "accuracy": np.pad(history["val_accuracy"], (0, missing), mode="edge"),
        "exploded": bool(np.isinf(loss).any()),
        "seconds": time.perf_counter() - start,
    }


def tuned(
    depth: int,
    stack: str,
    activation: str = "tanh",
    *,
    rates: Sequence[float] = (1e-4, 3e-4, 1e-3),
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    width: int = 64,
    epochs: int = 3,
    batch: int = 128,
) -> dict[str, Any]:
    """Trains a net at the learning rate that suits it, for several seeds.

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
        "rate", the one chosen; "tuning", the losses that chose it, in the order of the grid; of the runs "loss" and
        "accuracy", shape (seeds, epochs), "exploded", how many did, and "seconds" of all of it; "gradient", the
        :func:`gradient_norms` of the first and the last hidden layer.

    Example:
        >>> found = tuned(1, "gaussian", rates=(1e-5, 1e-3), seeds=(1,), epochs=1, width=16)
        >>> found["rate"]
        0.001
    """
    settings = {"width": width, "epochs": epochs, "batch": batch}
    trials = [train_stack(depth, stack, activation, 0, rate=rate, **settings) for rate in rates]
    losses = [float(trial["loss"][-1]) for trial in trials]
    rate = rates[int(np.argmin(losses))]
    runs = [train_stack(depth, stack, activation, seed, rate=rate, **settings) for seed in seeds]
    return {
        "rate": rate,
        "tuning": losses,
        "loss": np.array([run["loss"] for run in runs]),
        "accuracy": np.array([run["accuracy"] for run in runs]),
        "exploded": sum(run["exploded"] for run in runs),
        "seconds": sum(run["seconds"] for run in trials + runs),
        "gradient": gradient_norms(depth, stack, activation, seeds[0], width=width, batch=batch)[[0, -1]],
    }


# --- what is recorded -------------------------------------------------------------------------------------

#: relu asks what becomes of the length; tanh, whose gain is right in all four, what becomes of the angles.
CONTESTANTS = (
    *((stack, "relu") for stack in ("gaussian", "gaussian, too small", "gaussian, too large", "normalised")),
    *((stack, "tanh") for stack in ("gaussian", "orthogonal", "normalised", "residual")),
)
DEPTHS = {"cpu": (3, 10, 30, 100), "gpu": (100, 300, 1000, 3000)}
SEEDS = (1, 2, 3, 4, 5)
RATES = {"cpu": (1e-4, 3e-4, 1e-3), "gpu": (1e-5, 3e-5, 1e-4, 3e-4)}  # the deeper the net, the smaller its steps
SQUARE, OBLONG = (100, 200, 500, 1000, 2000), ((2000, 500), (4000, 100), (500, 2000))


def record_depth(scale: str) -> records.Record:
    """Test accuracy against depth, for eight stacks, four depths and five seeds."""
    cases = [
        {"depth": L, "stack": stack, "activation": activation, "rates": RATES[scale], "seeds": SEEDS, "epochs": 3}
        for L in DEPTHS[scale]
        for stack, activation in CONTESTANTS
    ]
    return records.sweep(CHAPTER, "depth", tuned, cases, scale=scale)


def record_matrices(scale: str) -> records.Record:
    """Distance of WᵀW from I for matrices of up to 2000 columns, three laws and five seeds."""
    cases = [{"m": n, "n": n, "law": law} for n in SQUARE for law in ("normal", "uniform", "rademacher")]
    cases += [{"m": m, "n": n, "law": "normal"} for m, n in OBLONG]
    return records.sweep(CHAPTER, "matrices", closeness, cases, scale=scale)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.initializers --scale cpu``."""
    return records.main(CHAPTER, {"matrices": record_matrices, "depth": record_depth}, argv)


if __name__ == "__main__":
    sys.exit(main())
