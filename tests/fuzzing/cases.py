"""A function, its right arguments, its reference, and ways to make an argument wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from keras import ops, tree

Way = Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """What a fuzzer knows of a function.

    Args:
        function: what is tried. It is called by keywords.
        right: arguments by name, each of which the function must answer.
        reference: what the definition gives for them, NumPy in float64; nothing of the function's own code.
        wrong: for arguments by name, ways to make a right value wrong: each must be refused.
        spoilt: right arguments that are made wrong, by default those above; such as none without entries.
        tolerance: how far an answer may lie from the reference, relative to its largest number; or what gives that
            for the arguments, where digits are lost before the function is called, as in a sum of large scores.
        name: of the case, by default that of the function.
        of: the public names that it tries, by default that of the function.
        examples: how many draws `make test` makes.
    """

    function: Callable[..., Any]
    right: st.SearchStrategy[dict[str, Any]]
    reference: Callable[..., Any]
    wrong: Mapping[str, Sequence[Way]] = field(default_factory=dict)
    tolerance: float | Callable[[Mapping[str, Any]], float] = 2e-5
    spoilt: st.SearchStrategy[dict[str, Any]] | None = None
    name: str = ""
    of: Sequence[str] = ()
    examples: int = 8

    def __str__(self) -> str:
        return self.name or self.function.__name__

    @property
    def tried(self) -> Sequence[str]:
        """The public names that it tries."""
        return self.of or (self.function.__name__,)


def as_float64(answer: Any) -> Any:
    """An answer with every tensor as NumPy in float64 (complex128 if it is complex)."""

    def widened(x: Any) -> Any:
        x = (
            np.asarray(ops.convert_to_numpy(x))
            if not isinstance(x, np.ndarray | float | int | bool)
            else np.asarray(x)
        )
        return x.astype("complex128" if np.iscomplexobj(x) else "float64")

    return tree.map_structure(widened, answer)


def assert_agrees(found: Any, expected: Any, tolerance: float) -> None:
    """Raises AssertionError unless the numbers agree, infinities and NaN among them."""
    found, expected = tree.flatten(as_float64(found)), tree.flatten(as_float64(expected))
    assert len(found) == len(expected), "the answer has another structure"
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape, f"shape {f.shape} came, {e.shape} is right"
        finite = np.abs(e[np.isfinite(e)])
        np.testing.assert_allclose(f, e, rtol=0, atol=tolerance * max(1.0, finite.max(initial=0.0)))


# --- ways to make a tensor wrong --------------------------------------------------------------------------------


def none(x: Any) -> None:
    """Nothing at all."""


none.constant = True


def text(x: Any) -> Any:
    """Numbers as text."""
    return np.asarray(x, "float64").astype(str)


def ragged(x: Any) -> Any:  # noqa: ARG001
    """Rows of unequal length."""
    return [[0.0], [0.0, 1.0]]


def imaginary(x: Any) -> Any:
    """Complex numbers."""
    return np.asarray(x) + 1j


def masked(x: Any) -> Any:
    """A NumPy array whose first entry is masked."""
    x = np.asarray(x)
    hidden = np.zeros(x.shape, bool)
    hidden.reshape(-1)[:1] = True
    return np.ma.masked_array(x, hidden)


def flatter(x: Any) -> Any:
    """One axis fewer."""
    return np.asarray(x)[0]


def deeper(x: Any) -> Any:
    """One axis more."""
    return np.asarray(x)[None]


def longer(axis: int) -> Way:
    """One entry more along an axis."""

    def way(x: Any) -> Any:
        x = np.asarray(x)
        one = np.take(x, [0], axis=axis) if x.shape[axis] else np.zeros_like(np.insert(x, 0, 0, axis=axis))
        return np.concatenate([x, one], axis=axis)

    way.__name__ = f"longer along {axis}"
    return way


def plus(number: float) -> Way:
    """Another number in every place."""

    def way(x: Any) -> Any:
        x = np.asarray(x)
        return (x.astype("int64") if x.dtype.kind in "iu" else x) + number

    way.__name__ = f"plus {number}"
    return way


#: What no tensor may be.
NO_TENSOR: tuple[Way, ...] = (none, text, ragged, imaginary, masked)


#: What Keras makes a tensor of, or refuses, before it hands it to a layer.
NOT_SEEN: tuple[Way, ...] = (text, ragged, masked)


# --- ways to make a mask wrong ----------------------------------------------------------------------------------


def additive(mask: Any) -> Any:
    """0 where valid, −1e4 elsewhere, as attention adds it to scores; at least one step is not valid."""
    mask = np.array(mask, bool)
    mask[..., -1] = False
    return np.where(mask, 0.0, -1e4).astype("float32")


def signed(mask: Any) -> Any:
    """1 where valid, −1 elsewhere; at least one step is not valid."""
    mask = np.array(mask, bool)
    mask[..., -1] = False
    return np.where(mask, 1, -1)


def with_nan(mask: Any) -> Any:
    """NaN at one step."""
    mask = np.array(mask, "float32")
    mask[..., -1] = np.nan
    return mask


#: What no mask may be.
NO_MASK: tuple[Way, ...] = (text, ragged, imaginary, masked, additive, signed, with_nan, deeper)


# --- ways to make a plain number wrong ----------------------------------------------------------------------------


def always(value: Any) -> Way:
    """This value, whatever was right."""

    def way(x: Any) -> Any:  # noqa: ARG001
        return value

    way.__name__, way.constant = repr(value), True
    return way


#: What no integer may be.
NO_INTEGER = tuple(map(always, (True, 1.5, "3", None, np.nan, [1])))

#: What no number of things may be.
NO_COUNT = (*NO_INTEGER, always(0), always(-1))

#: What no finite number may be.
NO_NUMBER = tuple(map(always, (True, "3", None, np.nan, np.inf, [1.0], 1j)))

#: What no finite number may be that must be above 0, or at least 0.
NOT_POSITIVE, NOT_NEGATIVE = (*NO_NUMBER, always(0), always(-1)), (*NO_NUMBER, always(-1))

#: What no seed may be.
NO_SEED = tuple(map(always, (True, 1.5, "3", -1, 2**31, 2**63, [1])))

#: What is none of a few words.
NO_OPTION = tuple(map(always, ("nonsense", 1, True, ["sum"])))

#: What no text may be.
NO_TEXT = tuple(map(always, (None, 3, 1.5, True, b"text", ["text"])))

#: What no collection may be.
NO_COLLECTION = tuple(map(always, (None, 3, 1.5, True, "text")))

#: What no layer may be.
NO_LAYER = tuple(map(always, (None, "relu", 3, [1.0], dict)))
