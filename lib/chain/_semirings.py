"""Three number systems in which the recursion of a chain is read: products, logarithms, maxima.

Products of weights, rescaled at every step, are fast, and their rounding errors do not grow with the length. They
are exact if no weight that matters falls out of the range of the float type, which ``posterior`` can prove
afterwards. Where it cannot, the same recursion runs on logarithms. With maxima in place of sums it finds the best
sequence.

Source: Rabiner 1989 (scaling); Goodman 1999, "Semiring parsing".
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

Tensor = Any


class Semiring(NamedTuple):
    """A number system: products and their sums, as the recursion needs them.

    Attributes:
        one: What changes nothing as a factor.
        multiply: (prior, scale, x) → prior · x / scale, the weights of all ways to a tag.
        matmul: M, (2, 1 or batch, K, K + 1) → (weights → weights · M, summed over the tags before: the prior of the
            next step).
    """

    one: float
    multiply: Callable[[Tensor, Tensor, Tensor], Tensor]
    matmul: Callable[[Tensor], Callable[[Tensor], Tensor]]


#: XLA on a CPU runs a product of matrices up to this size three times faster spelled out than as a library call.
#: A TensorFlow graph, which cannot know whether XLA will compile it, is better off with one operation.
_SPELLED_OUT = 10 if keras.backend.backend() == "jax" else 0


def _spelled_out(combine: Callable, reduce: Callable) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """The product with M in which ``combine`` multiplies and ``reduce`` adds, over an axis."""
    return lambda M: lambda weights: reduce(combine(weights[..., None], M), axis=-2)


def _product(M: Tensor) -> Callable[[Tensor], Tensor]:
    if M.shape[-2] <= _SPELLED_OUT or M.shape[1] != 1:
        return _spelled_out(operator.mul, ops.sum)(M)
    return lambda weights: weights @ M[:, 0]


def finite_or_zero(best: Tensor) -> Tensor:
    """The best of some scores, 0 if all are −inf: to be subtracted from them, so that no −inf − (−inf) arises."""
    return ops.where(best > -math.inf, best, 0)


def logsumexp(scores: Tensor, axis: int) -> Tensor:
    """Log Σ exp over an axis, −inf where all scores are."""
    top = ops.stop_gradient(finite_or_zero(ops.max(scores, axis=axis, keepdims=True)))
    return log(ops.sum(ops.exp(scores - top), axis=axis)) + ops.squeeze(top, axis)


def log(x: Tensor) -> Tensor:
    """Its derivative at 0 is 0, not infinite."""
    return ops.where(x > 0, ops.log(ops.where(x > 0, x, 1)), -math.inf)


def softmax(scores: Tensor) -> Tensor:
    """Probabilities over the last axis, 0 where all scores are −inf."""
    _, weights, total = _relative(scores)
    return weights / total


def softmax_with_log(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities over the last axis and their logarithms, 0 and −inf where all scores are −inf.

    The logarithm of the probability itself would have a second derivative that overflows below 10⁻¹⁹.
    """
    scores, weights, total = _relative(scores)
    return weights / total, scores - ops.log(total)


def _relative(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores less the best over the last axis, their exponentials, and the sum of these."""
    scores = scores - ops.stop_gradient(finite_or_zero(ops.max(scores, axis=-1, keepdims=True)))
    weights = ops.exp(scores)
    return scores, weights, one_if_zero(ops.sum(weights, axis=-1, keepdims=True))


def one_if_zero(total: Tensor) -> Tensor:
    """Sums of weights of which the largest is 1, if there is any; a maximum with 1 would halve their gradient."""
    return ops.where(total > 0, total, 1)


def smallest_weight(dtype: Any, K: int) -> float:
    """θ = e^−R, the smallest weight that is sure to leave something to the next step, see ``_posterior``."""
    return math.exp((math.log(np.finfo(keras.backend.standardize_dtype(dtype)).tiny) + math.log(K) + 1) / 2)


def _rescaled_product(prior: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    return prior * (x * (1 / ops.maximum(scale, smallest_weight(x.dtype, x.shape[-1]))))


def _rescaled_sum(prior: Tensor, scale: Tensor, e: Tensor) -> Tensor:
    return prior + (e - finite_or_zero(scale))


PRODUCTS = Semiring(1.0, _rescaled_product, _product)


LOGARITHMS = Semiring(0.0, _rescaled_sum, _spelled_out(operator.add, logsumexp))


MAXIMA = Semiring(0.0, _rescaled_sum, _spelled_out(operator.add, ops.max))
