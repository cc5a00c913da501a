"""Bytes that a layer of a Transformer keeps for its gradient, counted by hand.

With s tokens, b sequences, the width h, a heads, numbers of ``itemsize`` bytes and masks of dropout of one byte, a
layer keeps (Korthikanti et al. 2022, in units of sbh numbers or of as²b numbers)::

    attention      its input 1, Q and K 2, V 1, the input of the last map 1, a mask      5 sbh and a mask of sbh
                   softmax 1, the same after dropout 1, a mask                            2 as²b and a mask of as²b
    feed-forward   its input 1, the input of gelu 4, its output 4, a mask                 9 sbh and a mask of sbh
    norms          their inputs                                                           2 sbh

At 2 bytes that is 34 sbh + 5 as²b = sbh (34 + 5 as/h).

Source: Korthikanti et al. 2022 (arXiv 2205.05198), equation 1 and section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any


def layer_bytes(
    s: int, b: int, h: int, a: int, itemsize: int = 2, mask: int = 1, dropout: bool = True, scores: bool = True
) -> int:
    """Bytes that a layer keeps if nothing is recomputed.

    Args:
        s: tokens.
        b: sequences.
        h: width.
        a: heads.
        itemsize: bytes of a number.
        mask: bytes of an entry of a dropout's mask.
        dropout: whether there is dropout. Without it there are no masks and no second copy of the weights.
        scores: whether the parts of the size of the attention weights are kept. Without them a selective
            recomputation, or a fused kernel, makes them again.

    Example:
        >>> s, b, h = 128, 1, 768
        >>> layer_bytes(s, b, h, 12) / (s * b * h), layer_bytes(512, b, h, 12) / (512 * b * h)
        (44.0, 74.0)
    """
    vectors = 16 * itemsize + 2 * mask * dropout
    pairs = itemsize + (itemsize + mask) * dropout
    return s * b * h * vectors + a * s * s * b * pairs * scores


def expected(row: Mapping[str, Any], mask: int) -> int:
    """:func:`layer_bytes` in float32 for a row of the record of kept bytes.

    Args:
        row: with "time", "batch", "hidden", "heads" and "dropout".
        mask: bytes of an entry of a mask.

    Example:
        >>> expected({"time": 2, "batch": 3, "hidden": 8, "heads": 2, "dropout": 0.0}, mask=4)
        3168
    """
    sizes = (row["time"], row["batch"], row["hidden"], row["heads"])
    return layer_bytes(*sizes, itemsize=4, mask=mask, dropout=bool(row["dropout"]))


def saving(row: Mapping[str, Any], layers: int) -> float:
    """How many times less is held, by this count, if each layer is recomputed; in float32, on torch.

    Args:
        row: as in :func:`expected`; without "dropout", a rate above 0.
        layers: number of layers.

    Example:
        >>> round(saving({"time": 256, "batch": 2, "hidden": 256, "heads": 4}, 12), 2)
        8.6
    """
    whole = expected({"dropout": 0.1, **row}, mask=4)
    boundary = 4 * row["time"] * row["batch"] * row["hidden"]
    return (layers * whole + boundary) / (layers * boundary + whole)


def network_ratio(layers: int, s: int, h: int, a: int, itemsize: int = 2) -> float:
    """Bytes of all layers, kept whole, over the bytes if each is recomputed from its input.

    Then all inputs are kept, and one layer is whole.

    Args:
        layers: number of layers.
        s: tokens.
        h: width.
        a: heads.
        itemsize: bytes of a number.

    Example:
        >>> [round(network_ratio(12, s, 768, 12), 2) for s in (128, 512)]
        [8.0, 9.25]
        >>> [round(network_ratio(24, s, 1024, 16), 2) for s in (128, 512)]
        [11.73, 14.8]
    """
    whole, boundary = layer_bytes(s, 1, h, a, itemsize), s * h * itemsize
    return layers * whole / (layers * boundary + whole - boundary)


def recursive_units(n: int, k: int) -> float:
    """Memory of Chen et al.'s recursive scheme, g(n) = k log_{k+1} n, in units of an equal layer.

    Args:
        n: layers.
        k: checkpoints of each level.

    Example:
        >>> recursive_units(1024, 1)
        10.0
    """
    return k * log2(n) / log2(k + 1)
