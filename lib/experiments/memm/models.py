"""The models by their names, and all paths of a short chain under each of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib import chain, memm
from lib.crf import CRF
from lib.crf import log_likelihood as crf_log_likelihood
from lib.hmm import HMM
from lib.memm import MEMM
from lib.tagging import Head, Softmax

Array = NDArray[np.float64]


Ids = NDArray[np.int32]


#: The models with a likelihood of tags given scores; "hmm" joins them where there are words to count.
MODELS = ("softmax", "memm", "bi-memm", "crf")


_DIRECTIONS = {"memm": "forward", "memm, backward": "backward", "bi-memm": "both"}


def head_of(model: str, tags: int, multiplier: float = 1.0) -> Head:
    """The head of a model, with transitions that start at zero.

    Args:
        model: one of :data:`MODELS`, or "memm, backward".
        tags: number of tags.
        multiplier: of the transitions' learning rate.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> head_of("crf", 4).tag_count
        4
    """
    if model == "softmax":
        return Softmax(tags)
    if _known(model) == "crf":
        return CRF(tags, learning_rate_multiplier=multiplier)
    return MEMM(tags, direction=_DIRECTIONS[model], learning_rate_multiplier=multiplier)


def log_likelihood(model: str, tags: Any, emissions: Any, transitions: Any) -> Any:
    """The log-probability of tags under a model that has these scores; softmax does not look at the transitions.

    Args:
        model: one of :data:`MODELS`, or "memm, backward". For "bi-memm" it is the mean of both directions, which
            is not a distribution over paths.
        tags: shape (batch, time), int32.
        emissions: f, shape (batch, time, tags).
        transitions: g, shape (tags, tags).

    Returns:
        Shape (batch,).

    Raises:
        ValueError: an unknown model.

    Example:
        >>> f, g, y = np.zeros((1, 3, 2)), np.eye(2), np.array([[0, 0, 0]])
        >>> [round(float(np.exp(log_likelihood(model, y, f, g)[0])), 3) for model in MODELS]
        [0.125, 0.267, 0.267, 0.267]
    """
    if model == "softmax":
        return chain.sequence_score(tags, ops.log_softmax(emissions), ops.zeros_like(transitions))
    if _known(model) == "crf":
        return crf_log_likelihood(tags, emissions, transitions)
    return memm.log_likelihood(tags, emissions, transitions, direction=_DIRECTIONS[model])


def _known(model: str) -> str:
    names = (*MODELS, "memm, backward")
    if model not in names:
        raise ValueError(f"model must be one of {'; '.join(names)}, got {model!r}")
    return model


def hmm_of_counts(symbols: Ids, tags: Ids, symbol_count: int, tag_count: int) -> HMM:
    """The HMM of tagged sequences; one part in a hundred of a count keeps what was not seen possible."""
    return HMM.fit(symbols, tags, symbol_count=symbol_count, tag_count=tag_count, smoothing=0.01)


def all_paths(length: int, tags: int) -> Ids:
    """All tag sequences of a length in lexical order, int32, shape (tags^length, length).

    Example:
        >>> all_paths(2, 2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return np.array(list(itertools.product(range(tags), repeat=length)), np.int32)


def log_probabilities(model: str, emissions: Array, transitions: Array) -> Array:
    """The log-probability of every path of one short chain.

    Args:
        model: as in :func:`log_likelihood`.
        emissions: f, shape (time, tags).
        transitions: g, shape (tags, tags).

    Returns:
        float64, in the order of :func:`all_paths`, shape (tags^time,).

    Raises:
        ValueError: an unknown model.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> f, g = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
        >>> [round(float(np.exp(log_probabilities(m, f, g)).sum()), 5) for m in ("softmax", "memm", "crf")]
        [1.0, 1.0, 1.0]
    """
    paths = all_paths(*emissions.shape)
    repeated = np.broadcast_to(emissions, (len(paths), *emissions.shape)).astype("float64")
    return ops.convert_to_numpy(log_likelihood(model, paths, repeated, transitions.astype("float64"))).astype(float)
