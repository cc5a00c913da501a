"""The hidden Markov model: a chain of probabilities that is fitted by counting.

An HMM tells how a tagged sequence comes about: a first tag, from tag to tag, and at every tag a symbol,

    P(x, y) = initial[y_1] · Π_k transition[y_{k-1}, y_k] · Π_k emission[y_k, x_k].

Where the tags are known, the most probable parameters are relative frequencies; additive smoothing adds α to every
count, so that what was not seen keeps some probability. The logarithms are the scores of a chain with

    start = log initial,    transitions = log transition,    emissions[k, j] = log emission[j, x_k].

So ``lib.chain`` does the rest. Its score is log P(x, y), its ``viterbi`` finds the most probable tags, and its
``log_partition`` is log Σ_y P(x, y) = log P(x), the log-likelihood of the observations. A CRF, which divides by Z,
and an MEMM, which divides at every step, have no such thing: they take x as given. That an HMM explains x as well
is its strength, since it can be fitted by counting and can leave a symbol out; it is also its weakness, since a tag
sees x by one symbol only.

Source: Rabiner 1989, "A tutorial on hidden Markov models and selected applications in speech recognition".
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from . import chain
from ._arguments import non_negative, positive_integer
from ._tensors import as_tensor, checked_mask

__all__ = ["HMM", "MISSING"]

Tensor = Any

#: The symbol of a step whose symbol is not known: it says nothing about the tag.
MISSING = -1


@dataclass(frozen=True, eq=False)
class HMM:
    """A hidden Markov model with K tags and the symbols 0 … V − 1, and V for every unknown symbol.

    :meth:`fit` makes one from tagged sequences.

    Attributes:
        initial: P(first tag), shape (K,).
        transition: P(next tag j | tag i), shape (K, K).
        emission: P(symbol | tag), shape (K, V + 1); the last column is the unknown symbol.

    Raises:
        ValueError: A shape does not fit, or a row is no distribution.

    Example:
        >>> weather = HMM([0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]], [[0.1, 0.4, 0.5, 0], [0.6, 0.3, 0.1, 0]])
        >>> tags, score = weather.decode([[0, 1, 2]])  # he walks, shops, cleans: it was sunny, rainy, rainy
        >>> np.asarray(tags).tolist(), round(math.exp(score[0]), 5)
        ([[1, 0, 0]], 0.01344)
        >>> round(math.exp(weather.log_likelihood([[0, 1, 2]])[0]), 6)
        0.033612
    """

    initial: NDArray[np.float64]
    transition: NDArray[np.float64]
    emission: NDArray[np.float64]

    def __post_init__(self):
        K = None
        for name in ("initial", "transition", "emission"):
            shape = {"initial": (None,), "transition": (K, K), "emission": (K, None)}[name]
            object.__setattr__(self, name, _distribution(name, getattr(self, name), shape))
            K = len(self.initial)

    @classmethod
    def fit(
        cls,
        symbols: ArrayLike,
        tags: ArrayLike,
        *,
        symbol_count: int,
        tag_count: int,
        mask: ArrayLike | None = None,
        smoothing: float = 1.0,
        emission_smoothing: float | None = None,
    ) -> "HMM":
        """The model of tagged sequences: relative frequencies of counts to which ``smoothing`` is added.

        A tag that was never seen, or never followed, has the uniform distribution, also without smoothing.

        Args:
            symbols: Shape (batch, time), integers in [0, V]; V is the unknown symbol, −1 (:data:`MISSING`) is not
                counted.
            tags: Shape (batch, time), integers in [0, K), −1 at padded steps.
            symbol_count: V.
            tag_count: K.
            mask: Valid steps, boolean or 0 and 1, shape (batch, time), a valid prefix in each row; None for those
                whose tag is not −1.
            smoothing: α ≥ 0, added to every count. 1 is Laplace's rule.
            emission_smoothing: α of the symbols, None for ``smoothing``. With many symbols a small one is better.

        Raises:
            ValueError: A shape does not fit or has a 0, a number is out of range, or the mask has holes or other
                values than 0 and 1.

        Source: Lidstone 1920; Rabiner 1989.

        Example:
            >>> model = HMM.fit([[0, 1, 1], [0, 0, -1]], [[0, 1, 1], [0, 0, -1]], symbol_count=2, tag_count=2)
            >>> model.initial  # (2 + 1) / (2 + 2)
            array([0.75, 0.25])
            >>> model.transition  # counts [[1, 1], [0, 1]]
            array([[0.5       , 0.5       ],
                   [0.33333333, 0.66666667]])
            >>> model.emission  # counts [[3, 0, 0], [0, 2, 0]]
            array([[0.66666667, 0.16666667, 0.16666667],
                   [0.2       , 0.6       , 0.2       ]])
        """
        V, K = positive_integer("symbol_count", symbol_count), positive_integer("tag_count", tag_count)
        symbols, tags = _integers("symbols", symbols, V), _integers("tags", tags, K - 1)
        if tags.shape != symbols.shape:
            raise ValueError(f"tags must have the shape of symbols {symbols.shape}, got shape {tags.shape}")
        if mask is None:
            valid = tags >= 0
        else:
            valid = ops.convert_to_numpy(checked_mask(mask, symbols.shape, to_fit="symbols")[0])
        if np.any(valid[:, 1:] & ~valid[:, :-1]):
            raise ValueError("mask must be a valid prefix in each row, got a mask with holes")
        if np.any(valid & (tags < 0)):
            raise ValueError(f"tags must lie in [0, {K}) at valid steps, got −1")
        alpha = non_negative("smoothing", smoothing)
        beta = alpha if emission_smoothing is None else non_negative("emission_smoothing", emission_smoothing)
        seen, both = valid & (symbols != MISSING), valid[:, 1:] & valid[:, :-1]
        return cls(
            _frequencies(_counts((K,), tags[:, 0][valid[:, 0]]), alpha),
            _frequencies(_counts((K, K), tags[:, :-1][both], tags[:, 1:][both]), alpha),
            _frequencies(_counts((K, V + 1), tags[seen], symbols[seen]), beta),
        )

    @property
    def unknown(self) -> int:
        """The symbol that stands for all symbols outside 0 … V − 1, namely V."""
        return self.emission.shape[1] - 1

    # The scores of the chain.

    @property
    def start(self) -> NDArray[np.float64]:
        """The scores log P(first tag), shape (K,), −inf where it is 0."""
        return _log(self.initial)

    @property
    def transitions(self) -> NDArray[np.float64]:
        """The scores log P(next tag j | tag i), shape (K, K), −inf where it is 0."""
        return _log(self.transition)

    def emissions(self, symbols: ArrayLike) -> NDArray[np.float64]:
        """The scores log P(symbol | tag) of every step.

        Args:
            symbols: Shape (batch, time), integers in [0, V]; V is the unknown symbol. A missing symbol, −1, has
                probability 1 under every tag: the chain then sums over what it may have been.

        Returns:
            Shape (batch, time, K), −inf where the probability is 0.

        Raises:
            ValueError: A symbol is out of range, or ``symbols`` is not (batch, time) or empty.
        """
        symbols = _integers("symbols", symbols, self.unknown)
        scores = _log(self.emission).T[symbols]
        return np.where((symbols == MISSING)[..., None], 0.0, scores)

    # What the chain computes from them.

    def decode(self, symbols: ArrayLike, mask: ArrayLike | None = None) -> tuple[Tensor, Tensor]:
        """The most probable tags y, by Viterbi, and log P(x, y).

        Args:
            symbols: As in :meth:`emissions`.
            mask: Valid steps, boolean, shape (batch, time), a valid prefix in each row; None if all are valid.

        Returns:
            The tags (batch, time), int32, −1 at masked steps, and log P(x, y), shape (batch,), as tensors.

        Raises:
            ValueError: As :meth:`emissions` and ``chain.viterbi``.
        """
        return chain.viterbi(**self._chain(symbols, mask))

    def log_likelihood(self, symbols: ArrayLike, mask: ArrayLike | None = None) -> Tensor:
        """The log-likelihood of the observations, log P(x), whatever their tags.

        Args:
            symbols: As in :meth:`emissions`.
            mask: As in :meth:`HMM.decode`.

        Returns:
            Shape (batch,), as a tensor; 0 for a row without a valid step.

        Raises:
            ValueError: As :meth:`emissions` and ``chain.log_partition``.
        """
        return chain.log_partition(**self._chain(symbols, mask))

    def marginals(self, symbols: ArrayLike, mask: ArrayLike | None = None) -> Tensor:
        """P(tag | x) of every step, shape (batch, time, K), 0 at masked steps; arguments as :meth:`HMM.decode`."""
        return chain.marginals(**self._chain(symbols, mask))

    def entropy(self, symbols: ArrayLike, mask: ArrayLike | None = None) -> Tensor:
        """The entropy of the tags given x in nats, shape (batch,); arguments as :meth:`HMM.decode`."""
        return chain.entropy(**self._chain(symbols, mask))

    def sample(self, symbols: ArrayLike, count: int, *, seed: Any = None, mask: ArrayLike | None = None) -> Tensor:
        """Tags drawn from P(y | x), shape (batch, count, time), −1 at masked steps; see ``chain.sample``."""
        return chain.sample(**self._chain(symbols, mask), count=count, seed=seed)

    def k_best(self, symbols: ArrayLike, k: int, *, mask: ArrayLike | None = None) -> tuple[Tensor, Tensor]:
        """The k most probable tag sequences (batch, k, time) and log P(x, y), (batch, k); see ``chain.k_best``."""
        return chain.k_best(**self._chain(symbols, mask), k=k)

    def _chain(self, symbols: ArrayLike, mask: ArrayLike | None) -> dict[str, Any]:
        return {
            "emissions": self.emissions(symbols),
            "transitions": self.transitions,
            "mask": mask,
            "start": self.start,
        }


def _counts(shape: tuple[int, ...], *indices: NDArray[np.integer]) -> NDArray[np.float64]:
    """How often each index occurs."""
    flat = np.ravel_multi_index(indices, shape)
    return np.bincount(flat, minlength=math.prod(shape)).reshape(shape).astype(np.float64)


def _frequencies(counts: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Rows of smoothed relative frequencies, uniform where there is nothing to go by."""
    smoothed = counts + alpha
    total = smoothed.sum(axis=-1, keepdims=True)
    return np.where(total > 0, smoothed / np.where(total > 0, total, 1.0), 1 / counts.shape[-1])


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def _distribution(name: str, rows: ArrayLike, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    as_tensor(name, rows)
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != len(shape) or any(a not in (b, None) for a, b in zip(shape, rows.shape, strict=True)):
        wanted = str(shape).replace("None", "tags" if len(shape) == 1 else "symbols + 1")
        raise ValueError(f"{name} must have shape {wanted}, got shape {rows.shape}")
    if not (np.all(rows >= 0) and np.allclose(rows.sum(axis=-1), 1)):
        raise ValueError(f"{name} must be a distribution in each row, got sums {rows.sum(axis=-1)}")
    return rows


def _integers(name: str, values: ArrayLike, largest: int) -> NDArray[np.integer]:
    values = ops.convert_to_numpy(as_tensor(name, values))
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers (batch, time), got {values.dtype} of shape {values.shape}")
    if 0 in values.shape:
        raise ValueError(f"{name} must have shape (batch, time), none of them 0, got {values.shape}")
    if values.min() < MISSING or values.max() > largest:
        raise ValueError(f"{name} must lie in [-1, {largest}], got {values.min()} to {values.max()}")
    return values
