"""A kernel as a set of filters: its matrix, the angles between filters, and how far apart they can be."""

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from .._arguments import positive_integer
from .._backend import float32_or_wider
from ..angles import pairwise_angles

__all__ = ["filter_angles", "kernel_matrix", "welch_bound"]

Tensor = Any


def kernel_matrix(kernel: Tensor) -> Tensor:
    """The matrix W of a kernel, one filter a column.

    Args:
        kernel: Kernel of a dense or convolution layer, shape (*, in, out), any float type.

    Returns:
        W, shape (d, k) with k = out, float32 or wider: the statistics of half-precision kernels are not half
        precise.

    Raises:
        ValueError: The kernel has fewer than two axes.

    Example:
        >>> kernel_matrix(np.zeros((3, 3, 16, 32))).shape == (144, 32)
        True
    """
    kernel = float32_or_wider(kernel)
    if len(kernel.shape) < 2:
        raise ValueError(f"kernel must have shape (*, in, out), got shape {tuple(kernel.shape)}")
    return ops.reshape(kernel, (-1, kernel.shape[-1]))


def filter_angles(kernel: Tensor) -> NDArray[np.float64]:
    """Angles between all pairs of filters.

    Args:
        kernel: Kernel, shape (*, in, out), with k = out.

    Returns:
        The k(k − 1)/2 angles in radians in [0, π], float64, in the order of SciPy's ``pdist``.

    Raises:
        ValueError: The kernel has fewer than two axes, is not finite, or has a filter that is zero.

    Example:
        >>> filter_angles(np.array([[1.0, 1.0], [0.0, 1.0]])) / np.pi
        array([0.25])
    """
    filters = ops.convert_to_numpy(kernel_matrix(kernel)).T
    zero = np.flatnonzero(~filters.any(axis=1))
    if zero.size:
        raise ValueError(
            f"kernel must have no zero filter (it has no direction), got zeros at out = {zero.tolist()}"
        )
    return pairwise_angles(filters)


def welch_bound(k: int, d: int) -> float:
    """The least possible value of the largest |cos| among k filters of d numbers, √((k − d)/(d(k − 1))) for k > d.

    For k ≤ d it is 0: orthogonal filters exist. For k > d no kernel has a :class:`MutualCoherence` below it.

    Args:
        k: Number of filters, at least 1.
        d: Numbers in a filter, at least 1.

    Raises:
        ValueError: An argument is not a positive integer.

    Source: Welch 1974, "Lower bounds on the maximum cross correlation of signals".

    Example:
        >>> round(welch_bound(3, 2), 3), welch_bound(64, 576)  # three filters in the plane: 120 degrees apart
        (0.5, 0.0)
    """
    k, d = positive_integer("k", k), positive_integer("d", d)
    return math.sqrt((k - d) / (d * (k - 1))) if k > d else 0.0


#: Squared lengths below it are those of a zero vector. √_TINY is a zero whose gradient is not infinite.
_TINY = 1e-30


def _gram(W: Tensor) -> Tensor:
    """WᵀW or WWᵀ, whichever is smaller."""
    d, k = W.shape
    return ops.matmul(ops.transpose(W), W) if k <= d else ops.matmul(W, ops.transpose(W))


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix * (1 - ops.eye(matrix.shape[0], dtype=matrix.dtype))


def _unit_columns(W: Tensor) -> Tensor:
    """The columns divided by their lengths; a zero column stays zero."""
    return W / _root(ops.sum(ops.square(W), axis=0))


def _root(squares: Tensor) -> Tensor:
    """√squares to divide by: 1 where there is nothing to divide."""
    return ops.sqrt(ops.where(squares > _TINY, squares, ops.ones_like(squares)))
