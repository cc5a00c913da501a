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
from ._wrapper import _KernelWrapper
from .filters import _gram, kernel_matrix

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
        W, shape (d, k), float32 or wider.

    Raises:
        ValueError: ``matrix`` is not a matrix or ``sigma_min`` lies outside (0, 1).

    Source: Higham 2008, "Functions of Matrices", chapter 8; Chen and Chow 2014 for the scaling of the step.

    Example:
        >>> W = polar(np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 1.0]]))
        >>> bool(ops.max(ops.abs(ops.matmul(ops.transpose(W), W) - np.eye(2))) < 1e-6)
        True
    """
    V = float32_or_wider(matrix)
    if len(V.shape) != 2:
        raise ValueError(f"matrix must have shape (d, k), got shape {tuple(V.shape)}")
    lower = fraction("sigma_min", sigma_min)
    if V.shape[1] > V.shape[0]:
        return ops.transpose(polar(ops.transpose(V), sigma_min))
    bound = ops.sqrt(ops.max(ops.sum(ops.abs(_gram(V)), axis=0)))
    X = V / ops.stop_gradient(bound)  # W does not depend on the scale of V, so the scale needs no gradient
    identity = ops.eye(V.shape[1], dtype=V.dtype)
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
    ``layer.kernel``: the layer alone then computes the same.

    Args:
        layer: Layer with a ``kernel`` (*, in, out), such as Dense or a convolution, and no state that a call
            changes.
        sigma_min: As in :func:`polar`.
        **kwargs: Arguments of every Keras layer. ``dtype`` is that of the wrapped layer by default.

    Raises:
        ValueError: ``layer`` is not a layer or has no kernel, or ``sigma_min`` lies outside (0, 1).

    Source: Higham 2008, "Functions of Matrices", chapter 8, for the polar factor.

    Example:
        >>> from lib.orthogonality import filter_angles
        >>> layer = Orthogonalized(keras.layers.Conv2D(16, 3))
        >>> _ = layer(np.zeros((1, 8, 8, 4), dtype="float32"))
        >>> np.allclose(filter_angles(layer.kernel), np.pi / 2, atol=1e-5)
        True
    """

    def __init__(self, layer: keras.layers.Layer, sigma_min: float = 1e-6, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.sigma_min = fraction("sigma_min", sigma_min)

    @property
    def kernel(self) -> Tensor:
        """The orthogonal kernel, shape (*, in, out), float32 or wider."""
        stored = self.layer.kernel
        return ops.reshape(polar(kernel_matrix(stored), self.sigma_min), stored.shape)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the outputs of the wrapped layer with the orthogonal kernel."""
        values = [(variable, ops.convert_to_tensor(variable)) for variable in self.layer.variables]
        with keras.StatelessScope([*values, (self.layer.kernel, self.kernel)], collect_losses=True) as scope:
            outputs = self.layer(inputs)
        self.layer.add_loss(scope.losses)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "sigma_min": self.sigma_min}
