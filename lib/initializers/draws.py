"""The initializers: kernels of independent entries, and orthogonal ones."""

import math
import numbers
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np  # noqa: F401 (for the examples)
from keras import ops
from scipy import stats

from .._arguments import one_of
from .._layers import checked_seed
from .activations import Activation, _as_function, activation_gain
from .axes import KernelAxes, _checked_shape

__all__ = ["DeltaOrthogonal", "Orthogonal", "Scaled"]

Seed = int | keras.random.SeedGenerator | None


class _RandomInitializer(keras.initializers.VarianceScaling):
    """What the initializers below share: a gain, a seed treated as Keras treats it, the axes, and the dtype.

    A subclass adds ``_draw(shape, dtype)``, a kernel of gain 1 in float32 or float64. The class is a
    VarianceScaling because EinsumDense tells these, and no others, its axes.
    """

    def __init__(self, gain: float | Activation = 1.0, seed: Seed = None, **axes: Any):
        self.gain = _as_gain(gain)
        self.axes = KernelAxes(**axes)
        self._given_seed = _as_seed(seed)
        # Python's generator, because keras.utils.set_random_seed seeds it.
        self.seed = random.randint(1, 10**9) if self._given_seed is None else self._given_seed

    @property
    def input_axes(self) -> tuple[int, ...] | None:
        """``in_axes`` under the name by which Keras asks for it; None if Keras is to tell."""
        return self.axes.in_axes

    @property
    def output_axes(self) -> tuple[int, ...] | None:
        """``out_axes`` under the name by which Keras asks for it; None if Keras is to tell."""
        return self.axes.out_axes

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        """Draws a kernel.

        Args:
            shape: Shape of the kernel: (n, m) or (*spatial, n, m), or what the axes say.
            dtype: A floating dtype; ``keras.config.floatx()`` if None. Half precision is drawn in float32 and
                then rounded: not every backend can factorize a matrix, or sample finely, in half precision.

        Returns:
            A tensor of that shape and dtype.

        Raises:
            ValueError: If the shape is not that of a kernel, or the dtype is not floating.
        """
        shape = _checked_shape(shape)
        self.axes.sizes(shape)  # refuses what is not the shape of a kernel
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        if "float" not in dtype:
            raise ValueError(f"dtype must be a floating dtype, got {dtype!r}")
        draw = self._draw(shape, "float64" if dtype == "float64" else "float32")
        return ops.cast(self.gain * draw, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this initializer; a gain given as an activation is a number."""
        seed = keras.saving.serialize_keras_object(self._given_seed)
        return {"gain": self.gain, "seed": seed, **self.axes.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Rebuilds an initializer. EinsumDense does so with its own axes, under Keras's names for them."""
        names = {"input_axes": "in_axes", "output_axes": "out_axes"}
        return cls(**{names.get(name, name): value for name, value in config.items()})


def _as_seed(seed: Seed | dict[str, Any]) -> Seed:
    if isinstance(seed, dict):  # a SeedGenerator in the configuration of a saved layer
        seed = keras.saving.deserialize_keras_object(seed)
    return checked_seed(seed)


def _as_gain(gain: float | Activation) -> float:
    if isinstance(gain, str) or callable(gain):
        return activation_gain(_as_function("gain", gain))
    if not isinstance(gain, numbers.Real) or isinstance(gain, bool) or not 0 < gain < math.inf:
        raise ValueError(f"gain must be a positive finite number or an activation, got {gain!r}")
    return float(gain)


# Variance of an entry by rule, from n = fan_in and m = fan_out.
_VARIANCES: dict[str, Callable[[int, int], float]] = {
    "fan_in": lambda n, m: 1 / n,  # noqa: ARG005
    "fan_out": lambda n, m: 1 / m,  # noqa: ARG005
    "average": lambda n, m: 2 / (m + n),
    "geometric": lambda n, m: 1 / math.sqrt(m * n),
}


def _truncated_normal(shape: tuple[int, ...], dtype: str, seed: Seed) -> Any:
    """Unit-variance draws of a normal law cut at two of its own standard deviations.

    The quantile function does the cutting: keras.random.truncated_normal redraws at most four times on torch,
    so there about one value in 200,000 lies outside.
    """
    edge = math.erf(math.sqrt(2))  # P(|z| < 2)
    z = math.sqrt(2) * ops.erfinv(keras.random.uniform(shape, -edge, edge, dtype=dtype, seed=seed))
    return z / float(stats.truncnorm.std(-2, 2))


# Draws of mean 0 and variance 1 by law.
_LAWS: dict[str, Callable[[tuple[int, ...], str, Seed], Any]] = {
    "normal": lambda shape, dtype, seed: keras.random.normal(shape, dtype=dtype, seed=seed),
    "truncated_normal": _truncated_normal,
    "uniform": lambda shape, dtype, seed: keras.random.uniform(
        shape, -math.sqrt(3), math.sqrt(3), dtype=dtype, seed=seed
    ),
    "rademacher": lambda shape, dtype, seed: ops.cast(2 * keras.random.randint(shape, 0, 2, seed=seed) - 1, dtype),
}


@keras.saving.register_keras_serializable(package="proof_by_running")
class Scaled(_RandomInitializer):
    """Independent entries of mean 0 and variance gain² · v, where v follows from the shape of the kernel.

    With n = fan_in and m = fan_out (see :func:`fans`), v is 1/n for ``fan_in``, 1/m for ``fan_out``, 2/(m + n)
    for ``average`` and 1/√(mn) for ``geometric``. The law of the entries changes nothing in E‖w‖² for a row or
    column w. For a w of n entries of variance 1/n, it does change Var(‖w‖²) = (κ − 1)/n through the fourth
    moment κ: 3 for ``normal``, 9/5 for ``uniform``, and 1 for ``rademacher``, whose rows all have the same
    length. ``truncated_normal`` is cut at two standard deviations and widened to have the stated variance.

    The familiar names are ``Scaled("fan_in")`` for LeCun, ``Scaled("average")`` for Glorot (Xavier) and
    ``Scaled("fan_in", gain="relu")`` for He.

    An initializer sees the shape of a kernel and not its layer. EinsumDense tells its axes, and MultiHeadAttention
    with it, in recent releases of Keras, but not in 3.8. A transposed or depthwise convolution must be told::

        keras.layers.Conv2DTranspose(8, 3, kernel_initializer=Scaled(in_axes=-1, out_axes=-2))
        keras.layers.DepthwiseConv2D(3, depthwise_initializer=Scaled(in_axes=(), out_axes=-1, batch_axes=-2))
        keras.layers.Conv2D(8, 3, groups=4, kernel_initializer=Scaled("fan_out", groups=4))

    Fans are those of stride 1. A stride s along an axis lets only 1/s of its positions reach an output of a
    transposed convolution, so that √s times the gain is right there, or carry an input of a convolution on.

    Args:
        fan: "fan_in", "fan_out", "average" or "geometric".
        law: "normal", "truncated_normal", "uniform" or "rademacher" (±1 with equal probability).
        gain: Factor of the standard deviation, positive; or an activation (a Keras name or a callable), which
            stands for its :func:`activation_gain`.
        seed: Integer, ``keras.random.SeedGenerator`` or None. As in Keras, an initializer whose seed is an integer
            or None gives the same values at every call of one shape; a SeedGenerator gives new ones.
        **axes: ``in_axes``, ``out_axes``, ``batch_axes`` and ``groups`` of the kernel, as :class:`KernelAxes` takes
            them; by default those of Dense and of a convolution, (*spatial, n, m).

    Raises:
        ValueError: If an argument is none of these, or, when called, if the shape is not that of a kernel.

    Source: LeCun et al. 1998, "Efficient BackProp"; Glorot and Bengio 2010; He et al. 2015 (arXiv 1502.01852);
    https://kexue.fm/archives/8725 for the geometric mean.

    Example:
        >>> kernel = Scaled("fan_out", law="rademacher", seed=0)((100, 400))
        >>> bool(keras.ops.all(keras.ops.abs(kernel) == 0.05))
        True
        >>> layer = keras.layers.Dense(64, activation="relu", kernel_initializer=Scaled(gain="relu"))
    """

    def __init__(
        self,
        fan: str = "fan_in",
        law: str = "normal",
        gain: float | Activation = 1.0,
        seed: Seed = None,
        **axes: Any,
    ):
        super().__init__(gain, seed, **axes)
        self.fan = one_of("fan", fan, _VARIANCES)
        self.law = one_of("law", law, _LAWS)

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        variance = _VARIANCES[self.fan](*self.axes.fans(shape))
        return math.sqrt(variance) * _LAWS[self.law](shape, dtype, self.seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this initializer."""
        return {"fan": self.fan, "law": self.law, **super().get_config()}


@keras.saving.register_keras_serializable(package="proof_by_running")
class Orthogonal(_RandomInitializer):
    """A uniformly random (Haar) matrix with orthonormal rows or columns, times the gain.

    A kernel W of shape (n, m) has WWᵀ = gain² I if n ≤ m, so that x ↦ xW multiplies every length by the gain;
    otherwise WᵀW = gain² I. A kernel of shape (*spatial, n, m) is treated as the matrix of shape
    (fan_in, m); a convolution with it does not keep lengths, :class:`DeltaOrthogonal` does. Several maps, as of
    groups, are drawn independently.

    This is Keras's own initializer (QR of a Gaussian matrix, with the signs of R moved into Q, without which the
    law is not uniform) for every floating dtype and with a gain that may be an activation.

    Args:
        gain: Factor of all singular values, positive; or an activation, as in :class:`Scaled`.
        seed: As in :class:`Scaled`.
        **axes: As in :class:`Scaled`.

    Raises:
        ValueError: If an argument is none of these, or, when called, if the shape is not that of a kernel.

    Source: Saxe, McClelland and Ganguli 2013 (arXiv 1312.6120); Mezzadri 2007 (arXiv math-ph/0609050) for the
    signs.

    Example:
        >>> W = keras.ops.convert_to_numpy(Orthogonal(gain=2.0, seed=0)((3, 5)))
        >>> np.allclose(W @ W.T, 4 * np.eye(3), atol=1e-5)
        True
    """

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        maps, positions, n, m = self.axes.sizes(shape)
        return self.axes.kernel(self._haar(maps, positions * n, m, dtype), shape)

    def _haar(self, maps: int, n: int, m: int, dtype: str) -> Any:
        """Orthogonal matrices (n, m) of each map; (maps, n, m) unless there is but one map."""
        tall = (max(n, m), min(n, m)) if self.axes.is_one_map else (maps, max(n, m), min(n, m))
        Q, R = ops.qr(keras.random.normal(tall, dtype=dtype, seed=self.seed))
        Q = Q * ops.expand_dims(ops.sign(ops.diagonal(R, axis1=-2, axis2=-1)), -2)
        return Q if n >= m else ops.swapaxes(Q, -2, -1)


@keras.saving.register_keras_serializable(package="proof_by_running")
class DeltaOrthogonal(Orthogonal):
    """A convolution kernel that is zero but for its centre tap, a random orthogonal matrix times the gain.

    With padding "same" and stride 1 the convolution applies one matrix with orthonormal rows to the channels at
    every position, so it multiplies the length of every input by the gain, exactly. The kernel must have at
    least as many outputs as inputs, in each group, and odd spatial sizes, or else there is no centre.

    Args:
        gain: Factor of all lengths, positive; or an activation, as in :class:`Scaled`.
        seed: As in :class:`Scaled`.
        **axes: As in :class:`Scaled`.

    Raises:
        ValueError: If an argument is none of these, or, when called, if the shape is not (*spatial, n, m) with at
            least one spatial size, all of them odd, and n ≤ m.

    Source: Xiao et al. 2018 (arXiv 1806.05393), algorithm 1.

    Example:
        >>> W = keras.ops.convert_to_numpy(DeltaOrthogonal(seed=0)((3, 3, 4, 8)))
        >>> np.allclose(W[1, 1] @ W[1, 1].T, np.eye(4), atol=1e-5), int(np.count_nonzero(W))
        (True, 32)
    """

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        maps, positions, n, m = self.axes.sizes(shape)
        field = [shape[axis] for axis in self.axes.placed(shape)[1]]
        if not field:
            raise ValueError(f"shape must be (*spatial, inputs, outputs), of rank 3 or more, got {shape}")
        if positions % 2 == 0:
            raise ValueError(f"shape must have odd spatial sizes, else the kernel has no centre, got {shape}")
        if m < n:
            raise ValueError(f"shape must have at least as many outputs as inputs, got {n} -> {m} in {shape}")
        tap = self._haar(maps, n, m, dtype)
        around = (positions // 2 * n, positions // 2 * n)  # the centre is the middle one of an odd number
        rows = ops.pad(tap, [around, (0, 0)] if self.axes.is_one_map else [(0, 0), around, (0, 0)])
        return self.axes.kernel(rows, shape)
