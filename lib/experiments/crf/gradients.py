"""What reaches the transitions: the lead of the right label, and the gradient that it leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from lib.experiments.crf.corpora import words
from lib.experiments.crf.matrices import TAGS, Array


def margins(emissions: ArrayLike, tags: ArrayLike) -> Array:
    """By how much the emission of the right tag leads the best other one, at every valid step, in nats.

    Args:
        emissions: (n, time, K).
        tags: int (n, time), −1 at padded steps.

    Example:
        >>> margins([[[3.0, 1.0], [0.0, 2.0]]], [[0, 0]])
        array([ 2., -2.])
    """
    emissions, tags = np.asarray(emissions, np.float64), np.asarray(tags)
    emissions, tags = emissions[tags >= 0], tags[tags >= 0]
    right = np.eye(emissions.shape[-1], dtype=bool)[tags]
    return emissions[right] - np.where(right, -np.inf, emissions).max(axis=-1)


def gradient_norms(emissions: ArrayLike, tags: ArrayLike) -> dict[str, float]:
    """The gradient that zero transitions of a CRF feel, as an L1 norm a move.

    The gradient of −log P(y) is, for every sentence, a matrix: moves expected minus moves made. While the
    transitions are zero the tags of a sentence are independent, and the probability of a move is a product of two
    softmaxes.

    Args:
        emissions: (n, time, K), finite where there is a tag.
        tags: int (n, time), −1 at padded steps.

    Returns:
        "sentence": the norm of a sentence's matrix, its sum over all sentences over the number of moves. "corpus":
        the norm of the sum of all matrices over the number of moves, where sentences cancel.

    Example:
        >>> norms = gradient_norms([[[0.0, 0.0], [0.0, 0.0]]], [[0, 1]])  # one move, of probability 1/4
        >>> norms["sentence"], norms["corpus"]
        (1.5, 1.5)
    """
    emissions, tags = np.asarray(emissions, np.float64), np.asarray(tags)
    valid = tags >= 0
    p = softmax(np.where(valid[..., None], emissions, 0), axis=-1) * valid[..., None]
    made = np.eye(p.shape[-1])[tags] * valid[..., None]
    moves = valid[:, 1:].sum()
    matrices = np.einsum("nti,ntj->nij", p[:, :-1], p[:, 1:])
    matrices -= np.einsum("nti,ntj->nij", made[:, :-1], made[:, 1:])
    return {
        "sentence": float(np.abs(matrices).sum() / moves),
        "corpus": float(np.abs(matrices.sum(axis=0)).sum() / moves),
    }


def gradient_at_margin(margin: float, *, sentences: int = 2000, longest: int = 40) -> dict[str, float]:
    """:func:`gradient_norms` when the emission of the right tag leads all others by the same margin everywhere.

    Args:
        margin: m, in nats.
        sentences: of the test part, whose tags are used.
        longest: sentences of more characters are left out.

    Returns:
        As :func:`gradient_norms`, and "bound", 2(1 − p²) with p = eᵐ/(eᵐ + 3) the probability of the right tag: the
        norm for a single move, where nothing cancels.

    Example:
        >>> norms = gradient_at_margin(10.0, sentences=50)
        >>> norms["corpus"] <= norms["sentence"] <= norms["bound"] < 1e-3
        True
    """
    tags = words(sentences, sentences, longest).test.tags
    p = 1 / (1 + (TAGS - 1) * np.exp(-margin))
    return gradient_norms(margin * np.eye(TAGS)[tags], tags) | {"bound": float(2 * (1 - p**2))}
