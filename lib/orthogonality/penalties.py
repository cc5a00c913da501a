"""Penalties on WᵀW, as ``kernel_regularizer`` of a layer.

A regularizer sees the kernel and not its layer. Where the kernel is not (*, in, out), as in EinsumDense and in
transposed, depthwise and grouped convolutions, it takes ``in_axes``, ``out_axes``, ``batch_axes`` and ``groups``.
A kernel of several maps is measured as the block diagonal matrix of them: filters of different maps share no
inputs, so they are orthogonal anyway.

Source: Bansal, Chen and Wang 2018 (arXiv 1810.09102).
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import non_negative, positive_integer
from .._backend import largest_along
from ..initializers import KernelAxes
from .filters import _gram, _inner, _off_diagonal, _unit_columns, kernel_matrix

__all__ = ["MutualCoherence", "OffDiagonalOrthogonality", "SoftOrthogonality", "SpectralIsometry"]

Tensor = Any


class _KernelPenalty(keras.regularizers.Regularizer):
    """``factor`` times a measure of W (..., d, k) that is zero for orthonormal filters, in float32 or wider."""

    def __init__(self, factor: float = 1e-4, **axes: Any):
        self.factor = non_negative("factor", factor)
        self.axes = KernelAxes(**axes)

    def __call__(self, kernel: Tensor) -> Tensor:
        return self.factor * self._measure(kernel_matrix(kernel, **self.axes.get_config()))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this penalty."""
        return {"factor": self.factor, **self.axes.get_config()}


@keras.saving.register_keras_serializable(package="proof_by_running")
class SoftOrthogonality(_KernelPenalty):
    """factor · ‖WᵀW − I‖²_F: orthogonal filters of length 1.

    For k > d the filters cannot be orthogonal. Then ‖WᵀW − I‖² = ‖WWᵀ − I‖² + k − d, so the gradient asks for
    orthonormal rows and the penalty stays at k − d or above. The same identity makes the double form of Bansal et
    al. (both terms) twice this one plus a constant. The smaller of the two products is computed.

    Args:
        factor: Weight λ, not negative.
        **axes: As in :func:`kernel_matrix`.

    Raises:
        ValueError: ``factor`` is negative or not a finite number, or, when called, as :func:`kernel_matrix`.

    Source: Bansal et al. 2018 (arXiv 1810.09102), SO and DSO.

    Example:
        >>> float(SoftOrthogonality(1.0)(2 * np.eye(3)))  # three filters of squared length 4
        27.0
        >>> layer = keras.layers.Conv2D(32, 3, kernel_regularizer=SoftOrthogonality(1e-3))
    """

    def _measure(self, W: Tensor) -> Tensor:
        *maps, d, k = W.shape
        distance = ops.sum(ops.square(_gram(W) - ops.eye(min(d, k), dtype=W.dtype)))
        return distance + math.prod(maps) * max(k - d, 0)


@keras.saving.register_keras_serializable(package="proof_by_running")
class OffDiagonalOrthogonality(_KernelPenalty):
    """factor · Σ_{i≠j} (w_iᵀw_j)²: orthogonal filters of any length.

    Shrinking all filters also lowers it. For k > d and filters of length 1 it is k(k − d)/d or more (Welch),
    attained by tight frames; with free lengths it tends to 0 only as filters vanish until d or fewer are left.

    Args:
        factor: Weight β, not negative.
        **axes: As in :func:`kernel_matrix`.

    Raises:
        ValueError: ``factor`` is negative or not a finite number, or, when called, as :func:`kernel_matrix`.

    Source: Brock, Donahue and Simonyan 2019, BigGAN (arXiv 1809.11096), equation 3.

    Example:
        >>> penalty = OffDiagonalOrthogonality(1.0)
        >>> float(penalty(2 * np.eye(3))), float(penalty(np.ones((1, 3))))
        (0.0, 6.0)
    """

    def _measure(self, W: Tensor) -> Tensor:
        return ops.sum(ops.square(_off_diagonal(_inner(W))))


@keras.saving.register_keras_serializable(package="proof_by_running")
class SpectralIsometry(_KernelPenalty):
    """factor · ‖WᵀW − I‖₂, the spectral restricted isometry penalty (SRIP): all singular values near 1.

    The spectral norm is max |σ² − 1| over the singular values σ. Power iteration finds a direction v, without
    gradient; the penalty is ‖(WᵀW − I)v‖ at that fixed v. This never exceeds the norm, and at the maximizing v it
    has the norm's gradient. W is only ever multiplied by vectors, so no (k, k) matrix is formed.

    For k > d the eigenvalue −1 of WᵀW − I, of multiplicity k − d, cannot be moved and would hide the others. The
    penalty is then ‖WWᵀ − I‖₂, which is still max |σ² − 1| over the d singular values.

    Args:
        factor: Weight λ, not negative.
        iterations: Steps of the power iteration from a fixed random start, at least 1. The authors' code takes 1,
            which finds about two thirds of the norm of a Gaussian kernel; 10 find more than nine tenths.
        **axes: As in :func:`kernel_matrix`.

    Raises:
        ValueError: An argument is out of range, or, when called, as :func:`kernel_matrix`.

    Source: Bansal et al. 2018 (arXiv 1810.09102), SRIP.

    Example:
        >>> round(float(SpectralIsometry(1.0, iterations=30)(np.diag([1.0, 1.5, 0.5]))), 5)  # 1.5² − 1
        1.25
    """

    def __init__(self, factor: float = 1e-4, iterations: int = 10, **axes: Any):
        super().__init__(factor, **axes)
        self.iterations = positive_integer("iterations", iterations)

    def _measure(self, W: Tensor) -> Tensor:
        W = ops.swapaxes(W, -2, -1) if W.shape[-1] > W.shape[-2] else W
        start = np.random.default_rng(0).standard_normal((W.shape[-1], 1))
        v, fixed = ops.convert_to_tensor(start, dtype=W.dtype), ops.stop_gradient(W)
        for _ in range(self.iterations):
            v = _unit_columns(_isometry_defect(fixed, v))
        squares = ops.sum(ops.square(_isometry_defect(W, ops.stop_gradient(v))), axis=(-2, -1))
        return ops.max(ops.sqrt(squares + _TINY))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this penalty."""
        return {**super().get_config(), "iterations": self.iterations}


def _isometry_defect(W: Tensor, v: Tensor) -> Tensor:
    """(WᵀW − I)v in two products with a vector."""
    return ops.matmul(ops.swapaxes(W, -2, -1), ops.matmul(W, v)) - v


#: √_TINY is a zero whose gradient is not infinite.
_TINY = 1e-30


@keras.saving.register_keras_serializable(package="proof_by_running")
class MutualCoherence(_KernelPenalty):
    """factor · max_{i≠j} |cos(w_i, w_j)|: the worst pair of filters, whatever their lengths.

    Bansal et al. penalize ‖WᵀW − I‖_∞ in its place; this is the mutual coherence itself. Only the worst pair gets
    a gradient. For k > d it cannot fall below ``welch_bound(d, k)``.

    Args:
        factor: Weight λ, not negative.
        **axes: As in :func:`kernel_matrix`.

    Raises:
        ValueError: ``factor`` is negative or not a finite number, or, when called, as :func:`kernel_matrix`.

    Source: Bansal et al. 2018 (arXiv 1810.09102), MC.

    Example:
        >>> round(float(MutualCoherence(1.0)(np.array([[3.0, 4.0], [0.0, 3.0]]))), 6)
        0.8
    """

    def _measure(self, W: Tensor) -> Tensor:
        products = ops.abs(_off_diagonal(_inner(_unit_columns(W))))
        return largest_along(products, tuple(range(len(products.shape))))
