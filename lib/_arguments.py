"""Checks of plain arguments, for all ideas: an error names the argument, what is expected, and what came."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_integer(value: Any) -> bool:
    """Whether the value is an integer; True is none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def positive_integer(name: str, value: Any) -> int:
    """The number, if it is an integer of at least 1; True is none.

    Args:
        name: The argument, for the error.
        value: What was given.

    Raises:
        ValueError: It is something else.

    Example:
        >>> positive_integer("chunk", 64)
        64
    """
    return _integer(name, value, 1, "a positive integer")


def non_negative_integer(name: str, value: Any) -> int:
    """The number, if it is an integer of at least 0; True is none. Raises ValueError as above."""
    return _integer(name, value, 0, "an integer of at least 0")


def _integer(name: str, value: Any, lowest: int, rule: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = lowest - 1
    if isinstance(value, bool | np.bool_) or number < lowest:
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return number


def boolean(name: str, value: Any) -> bool:
    """The value, if it is True or False. Raises ValueError as :func:`positive_integer`: "False" is truthy."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """The value, if it is one of these strings. Raises ValueError as :func:`positive_integer`."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def items(name: str, value: Any, *, text: bool = False) -> list[Any]:
    """What is in a collection, as a list. Raises ValueError as :func:`positive_integer`.

    Args:
        name: The argument, for the error.
        value: What was given.
        text: Whether a text is a collection too, of its characters.
    """
    with contextlib.suppress(TypeError):
        if text or not isinstance(value, str | bytes):
            return list(value)
    raise ValueError(f"{name} must be a collection, got {value!r}")


def array_of(name: str, value: Any) -> NDArray[Any]:
    """An array of anything, unless it is ragged or has masked entries: ValueError as :func:`positive_integer`."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name} must be an array without masked entries, got {value!r}")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array, got {value!r}") from None


def real_array(name: str, value: Any) -> NDArray[np.float64]:
    """Real numbers as an array of float64. Raises ValueError as :func:`positive_integer`."""
    with contextlib.suppress(TypeError, ValueError):  # of a ragged list
        found = np.asarray(value)
        real = found.dtype.kind in "iuf" or "float" in found.dtype.name  # bfloat16 is of no kind that NumPy knows
        if real and not np.ma.is_masked(value):
            return found.astype(np.float64)
    raise ValueError(f"{name} must be real numbers, got {value!r}")


def file_path(name: str, value: Any) -> Path:
    """The path of a file or a folder. Raises ValueError as :func:`positive_integer`."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be the path of a file or a folder, got {value!r}")
    return Path(value)


def finite(name: str, value: Any) -> float:
    """The number, if it is real and a finite float64; True is none. Raises as :func:`positive_integer`."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    except OverflowError:  # an integer above 1.8e308
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return number


def non_negative(name: str, value: Any) -> float:
    """The number, if it is finite and at least 0. Raises ValueError as :func:`positive_integer`."""
    if finite(name, value) < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """The number, if it is finite and above 0. Raises ValueError as :func:`positive_integer`."""
    if finite(name, value) <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return float(value)


def rate(name: str, value: Any) -> float:
    """The number, if it lies between 0 and 1, 1 not included. Raises ValueError as :func:`positive_integer`."""
    if not 0 <= finite(name, value) < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """The number, if it lies between 0 and 1, neither included. Raises ValueError as :func:`positive_integer`."""
    if not 0 < finite(name, value) < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}")
    return float(value)
