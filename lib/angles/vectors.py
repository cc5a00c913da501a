"""The angles of given vectors."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

__all__ = ["angle_between", "pairwise_angles"]


def angle_between(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Angle between vectors along the last axis.

    With u = x/|x| and v = y/|y| it is 2 atan2(|u − v|, |u + v|), which keeps its digits near 0 and π, where the
    arccosine of the inner product loses half of them.

    Args:
        x: Real vectors, shape (..., n).
        y: Real vectors, shape (..., n); the leading axes broadcast against those of ``x``.

    Returns:
        Angles in radians in [0, π], float64, of the broadcast leading shape; a scalar for two vectors.

    Raises:
        ValueError: ``x`` or ``y`` is empty, not real, not finite or holds a zero vector, or their shapes do
            not fit. The message names the argument.

    Source:
        W. Kahan, "How futile are mindless assessments of roundoff in floating-point computation?" (2006),
        section 12, "Mangled angles".

    Example:
        >>> print(angle_between([1, 0], [0, 2]) / np.pi)
        0.5
        >>> print(angle_between([1, 0], [1, 1e-12]))
        1e-12
    """
    u, v = (_unit_vectors(_real_vectors(value, name), name) for value, name in ((x, "x"), (y, "y")))
    if u.shape[-1] != v.shape[-1]:
        raise ValueError(f"y must have vectors of length {u.shape[-1]} like x, got shape {v.shape}")
    try:
        np.broadcast_shapes(u.shape, v.shape)
    except ValueError:
        raise ValueError(f"y must broadcast against x of shape {u.shape}, got shape {v.shape}") from None
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))


def pairwise_angles(vectors: ArrayLike) -> NDArray[np.float64]:
    """Angles between all pairs of rows, by the formula of ``angle_between``.

    One row at a time meets the rows after it, so beside the result only a copy of ``vectors`` is held.

    Args:
        vectors: Real vectors, shape (N, n).

    Returns:
        Angles in radians in [0, π], float64, shape (N (N − 1)/2,), in the order of SciPy's ``pdist``: (0, 1),
        (0, 2), ..., (0, N − 1), (1, 2), ... Its ``squareform`` makes a matrix of them.

    Raises:
        ValueError: ``vectors`` is not a matrix, is empty, not real, not finite or holds a zero row.

    Example:
        >>> pairwise_angles([[1, 0], [1, 1], [0, 1]]) / np.pi
        array([0.25, 0.5 , 0.25])
    """
    array = _real_vectors(vectors, "vectors")
    if array.ndim != 2:
        raise ValueError(f"vectors must have shape (N, n), got shape {array.shape}")
    u = _unit_vectors(array, "vectors")
    count = len(u)
    angles = np.empty(count * (count - 1) // 2)
    start = 0
    for i in range(count - 1):
        row, later = u[i : i + 1], u[i + 1 :]
        angles[start : start + len(later)] = 2 * np.arctan2(cdist(row, later)[0], cdist(-row, later)[0])
        start += len(later)
    return angles


def _real_vectors(vectors, name: str) -> NDArray:
    """Return ``vectors`` as an array of real numbers, of any shape."""
    if np.ma.is_masked(vectors):
        raise ValueError(f"{name} must have no masked entries, got {vectors!r}")
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise ValueError(f"{name} must be vectors of one length, got a ragged list") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def _unit_vectors(array: NDArray, name: str) -> NDArray[np.float64]:
    """Return vectors divided by their lengths along the last axis."""
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} must hold at least one coordinate along its last axis, got shape {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    largest = np.abs(array).max(axis=-1, keepdims=True)
    if not largest.all():
        raise ValueError(f"{name} must not hold a zero vector: it has no direction")
    array = array / largest  # so that no square overflows or underflows
    return array / np.linalg.norm(array, axis=-1, keepdims=True)
