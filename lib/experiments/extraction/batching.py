"""Batches of chapter 6: texts of like length stand together, and few shapes are compiled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

#: The lengths in tokens to which texts are padded, so that few shapes are compiled. Training leaves out the longer.
LENGTHS = (32, 48, 64, 96, 128)
LONGEST = 304


def padded_length(tokens: int) -> int:
    """The length that a text of so many tokens is padded to.

    Example:
        >>> padded_length(33), padded_length(300)
        (48, 304)
    """
    return next((length for length in LENGTHS if tokens <= length), LONGEST)


def by_length(lengths: Iterable[int]) -> dict[int, list[int]]:
    """The places of texts that are padded to one length, by that length.

    Example:
        >>> by_length([20, 50, 21])
        {32: [0, 2], 64: [1]}
    """
    places = defaultdict(list)
    for place, tokens in enumerate(lengths):
        places[padded_length(tokens)].append(place)
    return dict(places)


def batches(lengths: Sequence[int], batch: int, epochs: int, seed: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Which texts make up each step of a training run; texts of a batch are padded to one length.

    Args:
        lengths: of each text in tokens. Texts longer than the last of :data:`LENGTHS` are left out.
        batch: texts a step. What is left over of a length is left out for this epoch.
        epochs: passes.
        seed: of the order.

    Returns:
        The padded length and the places of the texts, step by step.

    Raises:
        ValueError: no step at all.

    Example:
        >>> [(length, len(texts)) for length, texts in batches([20, 50, 21, 22, 400], 2, epochs=1, seed=0)]
        [(32, 2)]
    """
    padded = np.array([padded_length(tokens) for tokens in lengths])
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(epochs):
        epoch = []
        for length in LENGTHS:
            texts = rng.permutation(np.flatnonzero(padded == length))
            epoch += [(length, texts[i : i + batch]) for i in range(0, len(texts) - batch + 1, batch)]
        steps += [epoch[i] for i in rng.permutation(len(epoch))]
    if not steps:
        raise ValueError(f"batch must be at most the number of texts of one length, got {batch}")
    return steps
