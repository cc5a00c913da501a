"""A kernel as a set of filters: its matrix, the angles between filters, and how far apart they can be."""

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from .._arguments import positive_integer
from .._backend import float32_or_wider, largest_along
from .._tensors import as_tensor
from ..angles import pairwise_angles
from ..initializers import KernelAxes

__all__ = ["filter_angles", "kernel_matrix", "welch_bound"]

Tensor = Any


def kernel_matrix(kernel: Tensor, **axes: Any) -> Tensor:
    """The matrix W of a kernel, one filter a column.

    Args:
        kernel: Kernel of a dense or convolution layer, shape (*, in, out), any real type; any other shape with
            ``axes`` that say so.
        **axes: ``in_axes``, ``out_axes``, ``batch_axes`` and ``groups``, as ``lib.initializers.KernelAxes`` takes
            them. Its table has those of every layer of Keras.

    Returns:
        W, shape (d, k) with d numbers in each of k filters, float32 or wider: the statistics of half-precision
        kernels are not half precise. Of a kernel of several maps, as with ``groups``, shape (maps, d, k).

    Raises:
        ValueError: The kernel is no tensor of real numbers, or has not these axes, without ``axes`` two or more.

    Example:
        >>> kernel_matrix(np.zeros((3, 3, 16, 32))).shape == (144, 32)
        True
        >>> kernel_matrix(np.zeros((3, 3, 16, 32)), groups=4).shape == (4, 144, 8)
        True
    """
    kernel, axes = float32_or_wider(as_tensor("kernel", kernel)), KernelAxes(**axes)
    if axes.in_axes is None and len(kernel.shape) < 2:
        raise ValueError(f"kernel must have shape (*, in, out), got shape {tuple(kernel.shape)}")
    return axes.matrices(kernel)


def filter_angles(kernel: Tensor, **axes: Any) -> NDArray[np.float64]:
    """Angles between all pairs of filters.

    Args:
        kernel: Kernel, shape (*, in, out), with k = out; as :func:`kernel_matrix` takes it.
        **axes: As in :func:`kernel_matrix`.

    Returns:
        The k(k − 1)/2 angles in radians in [0, π], float64, in the order of SciPy's ``pdist``. Of a kernel of
        several maps those between filters of one map, shape (maps, k(k − 1)/2).

    Raises:
        ValueError: As :func:`kernel_matrix`; or the kernel is not finite, or has a filter that is zero.

    Example:
        >>> filter_angles(np.array([[1.0, 1.0], [0.0, 1.0]])) / np.pi
        array([0.25])
    """
    filters = ops.convert_to_numpy(ops.swapaxes(kernel_matrix(kernel, **axes), -2, -1))
    if not np.isfinite(filters).all():
        raise ValueError("kernel must be finite, got NaN or infinity")
    zero = np.flatnonzero(~filters.any(axis=-1))
    if zero.size:
        raise ValueError(
            f"kernel must have no zero filter (it has no direction), got zeros at out = {zero.tolist()}"
        )
    return pairwise_angles(filters) if filters.ndim == 2 else np.stack([pairwise_angles(W) for W in filters])


def welch_bound(d: int, k: int) -> float:
    """The least possible value of the largest |cos| among k filters of d numbers, √((k − d)/(d(k − 1))) for k > d.

    For k ≤ d it is 0: orthogonal filters exist. For k > d no kernel has a :class:`MutualCoherence` below it.

    Args:
        d: Numbers in a filter, the fan-in, at least 1.
        k: Number of filters, the outputs, at least 1.

    Raises:
        ValueError: An argument is not a positive integer.

    Source: Welch 1974, "Lower bounds on the maximum cross correlation of signals".

    Example:
        >>> round(welch_bound(2, 3), 3), welch_bound(576, 64)  # three filters in the plane: 120 degrees apart
        (0.5, 0.0)
    """
    d, k = positive_integer("d", d), positive_integer("k", k)
    return math.sqrt((k - d) / (d * (k - 1))) if k > d else 0.0


def _gram(W: Tensor) -> Tensor:
    """WᵀW or WWᵀ, whichever is smaller, of matrices (..., d, k)."""
    d, k = W.shape[-2:]
    return _inner(W) if k <= d else _inner(ops.swapaxes(W, -2, -1))


def _inner(W: Tensor) -> Tensor:
    """WᵀW of matrices (..., d, k)."""
    return ops.matmul(ops.swapaxes(W, -2, -1), W)


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix * (1 - ops.eye(matrix.shape[-1], dtype=matrix.dtype))


def _unit_columns(W: Tensor) -> Tensor:
    """The columns of matrices (..., d, k) divided by their lengths, however short; a zero column stays zero."""
    W = W / _or_one(ops.stop_gradient(largest_along(ops.abs(W), -2, keepdims=True)))  # squares neither 0 nor ∞
    return W / ops.sqrt(_or_one(ops.sum(ops.square(W), axis=-2, keepdims=True)))


def _or_one(x: Tensor) -> Tensor:
    """What to divide by: 1 where there is nothing to divide. A root of it has a finite gradient."""
    return ops.where(x > 0, x, ops.ones_like(x))
