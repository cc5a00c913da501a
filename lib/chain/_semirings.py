"""Three number systems in which the recursion of a chain is read: products, logarithms, maxima.

Products of weights, rescaled at every step, are fast, and their rounding errors do not grow with the length. They
are exact if no weight that matters falls out of the range of the float type, which ``posterior`` can prove
afterwards. Where it cannot, the same recursion runs on logarithms. With maxima in place of sums it finds the best
sequence.

Source: Rabiner 1989 (scaling); Goodman 1999, "Semiring parsing".
"""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any


class Semiring(NamedTuple):
    """A number system: products and their sums, as the recursion needs them.

    Attributes:
        one: What changes nothing as a factor.
        weigh: (prior, scale, x) → prior · x / scale, the weights of all ways to a tag.
        moves: M → (weights → weights · M, summed over the tags before: the prior of the next step).
    """

    one: float
    weigh: Callable[[Tensor, Tensor, Tensor], Tensor]
    moves: Callable[[Tensor], Callable[[Tensor], Tensor]]


#: In place of −inf as a scale, so that no −inf − (−inf) arises.
LOWEST = -1e30


#: XLA on a CPU runs a product of matrices up to this size three times faster spelled out than as a library call.
#: A TensorFlow graph, which cannot know whether XLA will compile it, is better off with one operation.
_SPELLED_OUT = 10 if keras.backend.backend() == "jax" else 0


def _spelled_out(combine: Callable, reduce: Callable) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """The product with M in which ``combine`` multiplies and ``reduce`` adds, over an axis."""

    def moves(M: Tensor) -> Callable[[Tensor], Tensor]:
        M = M[..., None, :, :]
        return lambda weights: reduce(combine(weights[..., None], M), axis=-2)

    return moves


def _product(M: Tensor) -> Callable[[Tensor], Tensor]:
    if M.shape[-2] <= _SPELLED_OUT:
        return _spelled_out(operator.mul, ops.sum)(M)
    return lambda weights: weights @ M


def logsumexp(scores: Tensor, axis: int) -> Tensor:
    """Log Σ exp over an axis, −inf where all scores are."""
    top = ops.maximum(ops.max(scores, axis=axis, keepdims=True), LOWEST)
    return ops.log(ops.sum(ops.exp(scores - top), axis=axis)) + ops.squeeze(top, axis)


def softmax(scores: Tensor) -> Tensor:
    """Probabilities over the last axis, 0 where all scores are −inf."""
    weights = ops.exp(scores - ops.maximum(ops.max(scores, axis=-1, keepdims=True), LOWEST))
    return weights / ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1)


def _rescaled_product(prior: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    return prior * (x * (1 / scale))


def _rescaled_sum(prior: Tensor, scale: Tensor, e: Tensor) -> Tensor:
    return prior + (e - ops.maximum(scale, LOWEST))


PRODUCTS = Semiring(1.0, _rescaled_product, _product)


LOGARITHMS = Semiring(0.0, _rescaled_sum, _spelled_out(operator.add, logsumexp))


MAXIMA = Semiring(0.0, _rescaled_sum, _spelled_out(operator.add, ops.max))
