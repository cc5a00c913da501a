"""Matrices of transitions: where they begin, and what they think of the moves that spell words."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.tagging import SEGMENT_ALPHABET, legal_moves

TAGS = len(SEGMENT_ALPHABET)
LEGAL = legal_moves(SEGMENT_ALPHABET).transitions
Array = NDArray[np.float64]

#: What article 7196 printed after training, rows and columns s, b, m, e: with one rate of 1e-5 for everything, and
#: with 1e-2 for the transitions.
PUBLISHED = {
    1e-5: np.array(
        [
            [-0.0517, -0.459, -0.244, 0.707],
            [-0.564, -0.142, 0.314, 0.613],
            [0.196, -0.334, -0.794, 0.672],
            [0.769, 0.841, -0.683, 0.572],
        ]
    ),
    1e-2: np.array(
        [
            [3.17, 2.16, -3.97, -2.04],
            [-3.89, -0.451, 1.67, 0.874],
            [-3.9, -4.41, 3.82, 2.45],
            [1.88, 0.991, -2.48, -0.247],
        ]
    ),
}


def glorot(seed: int) -> Array:
    """Random transitions as Keras would draw them by default: uniform in ±√(6/8), shape (4, 4).

    Example:
        >>> bool(np.abs(glorot(1)).max() <= np.sqrt(6 / 8))
        True
    """
    return np.random.default_rng(seed).uniform(-1, 1, (TAGS, TAGS)) * np.sqrt(6 / (2 * TAGS))


#: What the transitions start from, given the seed.
INITIAL: dict[str, Callable[[int], Array]] = {"zeros": lambda _: np.zeros((TAGS, TAGS)), "glorot": glorot}


def preferences(transitions: ArrayLike) -> dict[str, float | int]:
    """What a matrix of transitions thinks of the moves that the scheme allows and forbids.

    Args:
        transitions: scores (4, 4) of the tags s, b, m, e.

    Returns:
        "legal" and "forbidden", the mean scores of the 8 moves of either kind; "separated", in how many of the 4
        rows every legal move scores above every illegal one; "inverted", how many of the 16 pairs of a legal and an
        illegal move of one row are scored the wrong way round.

    Example:
        >>> article = [[-0.0517, -0.459, -0.244, 0.707], [-0.564, -0.142, 0.314, 0.613],
        ...            [0.196, -0.334, -0.794, 0.672], [0.769, 0.841, -0.683, 0.572]]
        >>> found = preferences(article)
        >>> found["separated"], found["inverted"]
        (2, 5)
    """
    A = np.asarray(transitions, float)
    pairs = np.array([row[legal][:, None] > row[~legal] for row, legal in zip(A, LEGAL, strict=True)])
    return {
        "legal": float(A[LEGAL].mean()),
        "forbidden": float(A[~LEGAL].mean()),
        "separated": int(pairs.all(axis=(1, 2)).sum()),
        "inverted": int((~pairs).sum()),
    }
