"""Checks of arguments that may be arrays: an error names the argument, what is expected, and what came."""

import numpy as np
from numpy.typing import NDArray


def _array(value, kinds: str):
    """Return ``value`` as an array of one of these kinds of numbers, or None if it is none."""
    if np.ma.is_masked(value):
        return None
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        return None
    if array.dtype.kind == "O" and array.size and all(type(entry) is int for entry in array.flat):
        try:
            return array.astype(np.float64)  # integers beyond 64 bits
        except OverflowError:
            return None
    return array if array.dtype.kind in kinds else None


def _integers(value, name: str) -> NDArray[np.float64]:
    """Return ``value``, an integer >= 2 or an array of them, as float64: dimensions may exceed what int64 holds."""
    array = _array(value, "iu")
    if array is None or not np.all(array >= 2):
        raise ValueError(f"{name} must be an integer >= 2 or an array of them, got {value!r}")
    return array.astype(np.float64)[()]


def _integer(value, name: str) -> int:
    """Return ``value`` as an int if it is an integer >= 2."""
    array = _array(value, "iu")
    if array is None or array.ndim or array < 2:
        raise ValueError(f"{name} must be an integer >= 2, got {value!r}")
    return int(value)


def _fractions(value, name: str, *, scalar: bool = False, one: bool = False):
    """Return ``value`` as float64 if it lies in (0, 1), or in (0, 1] where ``one`` is allowed."""
    array = _array(value, "iuf")
    good = array is not None and not (scalar and array.ndim)
    if not (good and np.all((array > 0) & (array <= 1 if one else array < 1))):
        expected = f"a number in (0, 1{']' if one else ')'}" + ("" if scalar else " or an array of them")
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return array.astype(np.float64)[()]
