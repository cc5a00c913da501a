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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib.recompute import Cost, frontier, nothing


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


def link_costs(
    s: int, b: int, h: int, a: int, itemsize: int = 4, mask: int = 4, dropout: bool = True
) -> list[Cost]:
    """What the four links of a block take, by the same count: attention, norm, feed-forward network, norm.

    Together they keep :func:`layer_bytes`. Their time is the number of multiplications in products of matrices; the
    last product of the attention and of the network need not run again (``tail``).

    Args:
        s: tokens.
        b: sequences.
        h: width.
        a: heads.
        itemsize: bytes of a number.
        mask: bytes of an entry of a dropout's mask.
        dropout: whether there is dropout.

    Example:
        >>> costs = link_costs(s=8, b=1, h=4, a=2)
        >>> sum(cost.inner for cost in costs) == layer_bytes(8, 1, 4, 2, itemsize=4, mask=4)
        True
        >>> [round(sum(cost.seconds for cost in costs)) - 12 * 8 * 4 * 4, 2 * 8 * 8 * 4]
        [512, 512]
    """
    vector, square = s * b * h * itemsize, s * b * h * h
    masked = s * b * h * mask * dropout
    pairs = a * s * s * b * (itemsize + (itemsize + mask) * dropout)
    attention = Cost(vector, 5 * vector + masked + pairs, seconds=4.0 * square + 2.0 * b * s * s * h, tail=square)
    network = Cost(vector, 9 * vector + masked, seconds=8.0 * square, tail=4.0 * square)
    norm = Cost(vector, vector, seconds=0.0)
    return [attention, norm, network, norm]


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


def front(layers: int, s: int, h: int, a: int) -> NDArray[np.float64]:
    """The best that any cut of a Transformer's links can do, by the count.

    Args:
        layers: blocks, each of four links.
        s: tokens.
        h: width.
        a: heads.

    Returns:
        For each plan of the frontier its memory, over that of keeping everything, and the multiplications that it
        adds, over those of a step: (plans, 2).

    Example:
        >>> front(2, 128, 768, 12)[0].tolist()
        [1.0, 0.0]
    """
    chain = link_costs(s, 1, h, a) * layers
    everything, step = nothing(chain).peak, 3 * sum(cost.seconds for cost in chain)
    return np.array([[plan.peak / everything, plan.seconds / step] for plan in frontier(chain)])
