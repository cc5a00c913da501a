"""Kernels that are orthogonal for all values of their free parameters.

Why the hard form is the polar factor. Three maps lead from free parameters to matrices with orthonormal columns.
The Cayley map (I − A)(I + A)⁻¹ of a skew A is square, needs a linear solve and never reaches an eigenvalue −1. A
product of k Householder reflections is exact for all parameters, but it is one reflection after another, treats
the first filter unlike the last, and random reflections give filters close to the first k unit vectors. The polar
factor V(VᵀV)^(−1/2) is the orthogonal matrix nearest to V: it treats all filters alike, turns a Gaussian V into a
uniformly random W, leaves an orthogonal V as it is (so a trained kernel can be wrapped and unwrapped), and matrix
products alone compute it. Muon does the same, nearly, to a step: one function :func:`polar`, on weights or on
updates. Its price: V must have full rank, and the products take time.
"""

import math
from typing import Any

import keras
import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._arguments import fraction
from .._backend import float32_or_wider
from .._tensors import as_tensor, require
from ..initializers import KernelAxes, kernel_axes
from ._wrapper import _KernelWrapper
from .filters import _gram

__all__ = ["Orthogonalized", "polar"]

Tensor = Any


def polar(matrix: Tensor, sigma_min: float = 1e-6) -> Tensor:
    """The orthogonal factor W = V(VᵀV)^(−1/2) of V: the nearest matrix with orthonormal columns (rows if k > d).

    With V = AΣBᵀ the singular value decomposition, W = ABᵀ. The Newton-Schulz step X ← X(3I − XᵀX)/2 applies
    p(σ) = σ(3 − σ²)/2 to all singular values, which draws (0, 1] to 1. If all lie in [ℓ, 1], stretching X by
    ρ = √(3/(1 + ℓ + ℓ²)) before the step sends them to [p(ρℓ), 1], the best lower end possible. But from ρ = 4/3
    on, σ → p(ρσ) repels its own fixed point: large values jump about while the small ones grow, and the rounding
    errors of the gradient grow with every jump. So ρ stays at 4/3 until ℓ is large. Small values then double at
    each step, and following ℓ from ``sigma_min`` gives the number of steps in advance: 24.

    The gradient passes through the steps. A gradient through the singular value decomposition itself would divide
    by differences of singular values, which are all equal where it matters most: at an orthogonal matrix.

    Args:
        matrix: V, shape (d, k), of full rank.
        sigma_min: The result is orthogonal to rounding if the smallest singular value of V is at least this
            fraction of √(max_i Σ_j |VᵀV|_ij), which bounds the largest. In (0, 1).

    Returns:
        W, shape (d, k), float32 or wider. It does not depend on the scale of V, as long as float32 holds it. Rank
        that V lacks is lacking in W: its singular values are 1, and 0 where those of V are. Under XLA and
        ``jax.jit``, where no value raises an error, W of a zero or infinite V is NaN.

    Raises:
        ValueError: ``matrix`` is not a matrix of finite numbers, is zero or has no rows or no columns, or
            ``sigma_min`` lies outside (0, 1).

    Source: Higham 2008, "Functions of Matrices", chapter 8; Chen and Chow 2014 for the scaling of the step.

    Example:
        >>> W = polar(np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 1.0]]))
        >>> bool(ops.max(ops.abs(ops.matmul(ops.transpose(W), W) - np.eye(2))) < 1e-6)
        True
    """
    V = float32_or_wider(as_tensor("matrix", matrix))
    if len(V.shape) != 2:
        raise ValueError(f"matrix must have shape (d, k), got shape {tuple(V.shape)}")
    if 0 in tuple(V.shape):
        raise ValueError(f"matrix must have a row and a column, got shape {tuple(V.shape)}")
    return _polar_factors("matrix", V, fraction("sigma_min", sigma_min))


def _polar_factors(name: str, V: Tensor, sigma_min: float) -> Tensor:
    """The orthogonal factors of matrices (..., d, k)."""
    if V.shape[-1] > V.shape[-2]:
        return ops.swapaxes(_polar_factors(name, ops.swapaxes(V, -2, -1), sigma_min), -2, -1)
    # W does not depend on the scale of V, so the scale needs no gradient. First the squares are kept in range.
    largest = ops.stop_gradient(ops.max(ops.abs(V), axis=(-2, -1), keepdims=True))
    sound = ops.logical_and(ops.isfinite(largest), largest > 0)
    require(ops.all(sound), f"{name} must be finite and not zero", lambda: f"largest entries {largest}")
    V = V / largest
    bound = ops.sqrt(ops.max(ops.sum(ops.abs(_gram(V)), axis=-2, keepdims=True), axis=-1, keepdims=True))
    X = V / ops.stop_gradient(bound)
    identity, lower = ops.eye(V.shape[-1], dtype=V.dtype), sigma_min
    while 1 - lower > 1e-15:  # one step after ℓ is 1 in float32, because the gradient converges a step later
        stretch = min(math.sqrt(3 / (1 + lower + lower**2)), 4 / 3)
        X = ops.matmul(X, 1.5 * stretch * identity - 0.5 * stretch**3 * _gram(X))
        lower = stretch * lower * (3 - (stretch * lower) ** 2) / 2
    return X


@keras.saving.register_keras_serializable(package="proof_by_running")
class Orthogonalized(_KernelWrapper):
    """Wraps a layer so that it computes with an orthogonal kernel: ``polar`` of the kernel it stores.

    The stored kernel V is trained, without constraint and by any optimizer; the layer uses W = polar(V), with
    orthonormal columns for k ≤ d and orthonormal rows for k > d, before, during and after training. The gradient
    with respect to V is that of the composition. It is orthogonal to every change of V that leaves W alone, so
    the singular values of V do not drift to first order.

    Each call takes 24 steps of two matrix products with the kernel, and the gradient twice as many: little beside
    a convolution over many positions, much beside a dense layer on a small batch. A larger ``sigma_min`` takes
    fewer.

    The filters have length 1 (a gain belongs in a following layer). ``kernel_initializer="orthogonal"`` starts at
    V = W. A regularizer of the layer sees V. To be rid of the wrapper after training, assign ``kernel`` to
    ``layer.kernel``: the layer alone then computes the same. So it must be before ``quantize`` or ``enable_lora``,
    which replace V: a call is refused afterwards.

    If V becomes zero, infinite or NaN in training, eager code raises a ValueError and a TensorFlow graph an
    InvalidArgumentError. Compiled by XLA or ``jax.jit`` the kernel is NaN, and with it the outputs and the loss;
    ``keras.callbacks.TerminateOnNaN`` ends such a training.

    Args:
        layer: Dense, EinsumDense or a convolution of Keras, also transposed, depthwise or with groups, whose type
            tells the axes of the kernel; or another layer with a ``kernel`` and no state that a call changes.
        sigma_min: As in :func:`polar`.
        in_axes: Of the kernel, as ``lib.initializers.KernelAxes`` takes them. Needed with a kernel of three or
            more axes in a layer of another type. Of several maps each is orthogonal.
        out_axes: As ``in_axes``.
        batch_axes: As ``in_axes``.
        groups: As ``in_axes``.
        **kwargs: Arguments of every Keras layer. ``dtype`` is that of the wrapped layer by default.

    Raises:
        ValueError: ``layer`` is not a layer, has no kernel, is itself a wrapper, quantized or has LoRA, or its axes
            are not known; ``sigma_min`` lies outside (0, 1).

    Source: Higham 2008, "Functions of Matrices", chapter 8, for the polar factor.

    Example:
        >>> from lib.orthogonality import filter_angles
        >>> layer = Orthogonalized(keras.layers.Conv2D(16, 3))
        >>> _ = layer(np.zeros((1, 8, 8, 4), dtype="float32"))
        >>> np.allclose(filter_angles(layer.kernel), np.pi / 2, atol=1e-5)
        True
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        sigma_min: float = 1e-6,
        *,
        in_axes: Any = None,
        out_axes: Any = None,
        batch_axes: Any = (),
        groups: int = 1,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        self.sigma_min = fraction("sigma_min", sigma_min)
        self._given_axes = KernelAxes(in_axes, out_axes, batch_axes, groups)

    @property
    def axes(self) -> KernelAxes:
        """The axes of the kernel: those given, else those that the type of the layer tells."""
        if self._given_axes != KernelAxes():
            return self._given_axes
        try:
            return kernel_axes(self.layer)
        except ValueError:
            if len(self.layer.kernel.shape) == 2:  # the polar factor of Vᵀ is Wᵀ
                return KernelAxes()
            raise ValueError(f"in_axes and out_axes must be given with such a layer, got {self.layer!r}") from None

    @property
    def kernel(self) -> Tensor:
        """The orthogonal kernel, in the shape of the stored one, float32 or wider."""
        stored, axes = self._stored(), self.axes
        W = _polar_factors("kernel", axes.matrices(float32_or_wider(stored)), self.sigma_min)
        return axes.kernel(W, stored.shape)

    def _stored(self) -> keras.Variable:
        """The variable V."""
        for change, happened in (
            ("quantized", self.layer.dtype_policy.quantization_mode is not None),
            ("given LoRA", getattr(self.layer, "lora_enabled", False)),
        ):
            if happened:
                raise ValueError(f"layer must not be {change}: its kernel is no longer free, got {self.layer!r}")
        if not isinstance(self.layer.kernel, keras.Variable):
            raise ValueError(f"layer must have a variable as kernel, got {self.layer!r}")
        return self.layer.kernel

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the wrapped layer; raises ValueError if its kernel cannot be made orthogonal."""
        super().build(input_shape)
        self.axes.sizes(self._stored().shape)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the outputs of the wrapped layer with the orthogonal kernel."""
        values = [(variable, ops.convert_to_tensor(variable)) for variable in self.layer.variables]
        with keras.StatelessScope([*values, (self._stored(), self.kernel)], collect_losses=True) as scope:
            outputs = self.layer(inputs)
        self.layer.add_loss(scope.losses)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "sigma_min": self.sigma_min, **self._given_axes.get_config()}
