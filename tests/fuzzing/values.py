"""Arrays of every type, size and extreme that are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

BACKEND = keras.backend.backend()

#: Float types of scores. JAX keeps no float64 unless it is told to.
FLOATS = ("float16", "bfloat16", "float32") + (() if BACKEND == "jax" else ("float64",))


def sizes(least: int = 1, most: int = 5) -> st.SearchStrategy[int]:
    """The length of an axis."""
    return st.integers(least, most)


@st.composite
def arrays(
    draw: st.DrawFn,
    shape: Sequence[int],
    *,
    scales: Sequence[float] = (1.0, 0.0, 1e-20, 1e4, 1e30),
    special: Sequence[float] = (),
    dtypes: Sequence[str] = ("float32",),
) -> NDArray[Any]:
    """Normal numbers of one scale, some of them replaced by special ones.

    A seed makes the numbers: what shrinks is the shape, the scale and what is special, which is what one reads.

    Args:
        draw: of hypothesis.
        shape: of the array.
        scales: standard deviations.
        special: values that may stand in place of some numbers, such as −inf.
        dtypes: types of the array; numbers beyond a type's range are clipped to it.
    """
    scale, dtype = draw(st.sampled_from(scales)), draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    x = scale * rng.standard_normal(shape)
    info = ml_dtypes.finfo(dtype)
    x = np.clip(x, float(info.min), float(info.max))
    if special and draw(st.booleans()):
        x = np.where(rng.uniform(size=shape) < 0.3, rng.choice(special, size=shape), x)
    return x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@st.composite
def prefixes(draw: st.DrawFn, batch: int, time: int, least: int = 0) -> NDArray[Any] | None:
    """A mask that is valid on a prefix of each row, as booleans or 0 and 1 of any type, or None."""
    if draw(st.booleans()):
        return None
    lengths = [draw(st.integers(least, time)) for _ in range(batch)]
    return _flags(draw, np.arange(time) < np.array(lengths)[:, None])


@st.composite
def masks(draw: st.DrawFn, batch: int, time: int) -> NDArray[Any] | None:
    """Any mask, as booleans or 0 and 1 of any type, or None."""
    if draw(st.booleans()):
        return None
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return _flags(draw, rng.uniform(size=(batch, time)) < draw(st.sampled_from([0.0, 0.5, 0.9])))


def _flags(draw: st.DrawFn, mask: NDArray[np.bool_]) -> NDArray[Any]:
    return mask.astype(draw(st.sampled_from(["bool", "int32", "uint8", "float32"])))


def integers(shape: Sequence[int], low: int, high: int) -> st.SearchStrategy[NDArray[Any]]:
    """Integers from low to high, both included, of a type that holds them."""

    def made(seed: int, dtype: str) -> NDArray[Any]:
        return np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)

    allowed = [d for d in ("int8", "uint8", "int32", "int64") if np.iinfo(d).min <= low and high <= np.iinfo(d).max]
    return st.builds(made, st.integers(0, 2**16), st.sampled_from(allowed))
