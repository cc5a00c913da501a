"""Checks of plain arguments, for all ideas: an error names the argument, what is expected, and what came."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any


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
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return number


def finite(name: str, value: Any) -> float:
    """The number, if it is real and finite; True is none. Raises ValueError as :func:`positive_integer`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


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


def fraction(name: str, value: Any) -> float:
    """The number, if it lies between 0 and 1, neither included. Raises ValueError as :func:`positive_integer`."""
    if not 0 < finite(name, value) < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}")
    return float(value)
