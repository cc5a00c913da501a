"""Rotary positions: queries and keys are turned by angles that grow with their place, so products tell distances.

A vector is taken as complex numbers, x_{2i} + j x_{2i+1} for pair i. At place t they are multiplied by

    e^{j t θ_i},    θ_i = λ^{−2i/dim},    λ = 10000.

The product of a query at place s and a key at place t then depends on s and t by t − s alone. No length changes.

Source: Su et al. 2021 (arXiv 2104.09864), section 3.2; Su Jianlin, https://kexue.fm/archives/8265.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import positive
from .._backend import float32_or_wider
from .._tensors import as_tensor, require_shape

__all__ = ["places", "rotate"]

Tensor = Any


def rotate(x: Tensor, positions: Tensor, *, max_wavelength: float = 10_000.0) -> Tensor:
    """Vectors of heads, turned by their places.

    Args:
        x: Queries or keys, (batch, time, heads, dim), any float type; ``dim`` is even. Neighbours are a pair.
        positions: The place of each token, (time,) or (batch, time).
        max_wavelength: λ, positive.

    Returns:
        As x. Angles and products are float32 or wider.

    Raises:
        ValueError: ``dim`` is odd, a shape does not fit, or ``max_wavelength`` is not positive.

    Example:
        >>> x = np.array([[[[1.0, 0.0]], [[1.0, 0.0]]]], "float32")
        >>> ops.convert_to_numpy(rotate(x, np.arange(2)))[0, :, 0].round(3).tolist()  # cos 1, sin 1
        [[1.0, 0.0], [0.5400000214576721, 0.8410000205039978]]
    """
    x = require_shape("x", as_tensor("x", x, kinds="f"), (None, None, None, None))
    batch, time, _, dim = x.shape
    if dim % 2:
        raise ValueError(f"x must have an even number of features a head, to be turned in pairs, got {dim}")
    positions = as_tensor("positions", positions, kinds="iuf")
    require_shape("positions", positions, (batch, time) if len(positions.shape) == 2 else (time,), to_fit="x")
    pairs = float32_or_wider(x)
    theta = positive("max_wavelength", max_wavelength) ** (-np.arange(0, dim, 2) / dim)
    angles = (ops.cast(positions, pairs.dtype)[..., None] * ops.cast(theta, pairs.dtype))[..., None, :]
    cos, sin, a, b = ops.cos(angles), ops.sin(angles), pairs[..., 0::2], pairs[..., 1::2]
    turned = ops.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return ops.cast(ops.reshape(turned, ops.shape(x)), keras.backend.standardize_dtype(x.dtype))


def places(tokens: Tensor, mask: Tensor | None = None, before: Tensor | None = None) -> Tensor:
    """The place of each token among those that count: as if the others were not there.

    Args:
        tokens: A tensor (batch, time, ...), of which only the shape matters.
        mask: Tokens that count, boolean, (batch, time); None for all.
        before: How many came before, int (batch,); None for 0.

    Returns:
        int32 (batch, time), or (time,) without ``mask`` and ``before``. A token that does not count has the place
        of the one before it, or 0.

    Example:
        >>> ops.convert_to_numpy(places(np.zeros((1, 4, 8)), np.array([[False, True, True, False]]))).tolist()
        [[0, 0, 1, 1]]
    """
    if mask is None:
        here = ops.arange(ops.shape(tokens)[1], dtype="int32")
    else:
        here = ops.maximum(ops.cumsum(ops.cast(mask, "int32"), axis=1) - 1, 0)
    return here if before is None else here + before[:, None]
