"""The MEMM as a chain, whose score is its log P."""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from .._backend import cond, custom_gradient, follows_forward, fori_loop, jit
from .._tensors import or_nan
from ..chain import Potentials
from ..chain._gradients import taken_again
from ._scores import Transitions, best_of, checked, logsumexp, matrix, sides_of, without_best

__all__ = ["potentials"]

Tensor = Any


def potentials(
    emissions: Tensor, transitions: Transitions, *, mask: Tensor | None = None, direction: str = "forward"
) -> Potentials:
    """The MEMM as a chain: with these scores ``lib.chain`` scores, decodes and samples log P.

    Forward, the emission of tag i at step k is charged for the way out of it, log Σ_j exp(g(i, j) + f_{k+1}(j));
    backward, the emission of tag j for the way in, log Σ_i exp(g(i, j) + f_{k-1}(i)). The softmax of the step that
    has no neighbour is charged to that step. What no softmax sees, a constant in the emissions of a step or in a
    row of g (a column, backward), is left out. Then, with these emissions, transitions and mask:

    - ``chain.sequence_score`` is :func:`log_likelihood`;
    - ``chain.log_partition`` is 0, unless mass is lost in a tag that no tag may follow (precede, backward), and
      not positive for ``"both"``;
    - ``chain.viterbi``, ``chain.k_best``, ``chain.sample``, ``chain.marginals`` and ``chain.entropy`` are those of
      the MEMM, the last three given that the sequence is possible, where mass is lost.

    Args:
        emissions: As in :func:`log_likelihood`.
        transitions: As in :func:`log_likelihood`. A pair is multiplied out, (tags, tags).
        mask: As in :func:`log_likelihood`.
        direction: As in :func:`log_likelihood`.

    Returns:
        Emissions (batch, time, tags), 0 at masked steps, and transitions (tags, tags), float32 or wider. The
        emissions of a row are NaN where :func:`log_likelihood` is.

    Raises:
        ValueError: As :func:`log_likelihood`.

    Example:
        >>> emissions, transitions = [[[0.0, 1.0], [2.0, 0.0]]], [[0.0, 1.0], [1.0, 0.0]]
        >>> from lib import chain
        >>> f, g, *_ = potentials(emissions, transitions)
        >>> abs(round(float(chain.log_partition(f, g)[0]), 5))
        0.0
        >>> round(float(chain.sequence_score([[1, 0]], f, g)[0]), 4)
        -0.3618
    """
    chain = potentials_of(checked(emissions, transitions, mask, direction), sides_of(direction))
    return chain._replace(emissions=or_nan(chain.emissions, chain.valid))


def potentials_of(arguments: Potentials, sides: tuple[str, ...]) -> Potentials:
    """:func:`potentials` of checked arguments: the mean of one or two directions.

    Example:
        >>> arguments = checked([[[0.0, 1.0]]], [[0.0, 1.0], [1.0, 0.0]], None, "forward")
        >>> [round(float(x), 4) for x in potentials_of(arguments, ("forward",)).emissions[0, 0]]  # log-softmax
        [-1.3133, -0.3133]
    """
    scores = [_of_side(arguments, side) for side in sides]
    f, g = (sum(parts) / len(sides) for parts in zip(*scores, strict=True))
    return arguments._replace(emissions=f, transitions=g)


@jit(static_argnames=("direction",))
def _of_side(arguments: Potentials, direction: str) -> tuple[Tensor, Tensor]:
    """The emissions, less the logarithm of what each step of one direction is divided by, and the transitions."""
    f, g, mask = arguments.emissions, matrix(arguments.transitions), arguments.mask
    if direction == "forward":
        g = without_best(g)
        into = ops.where(mask[..., None], _log_matmul(f, g), 0.0)
        charge = ops.pad(into[:, 1:], ((0, 0), (0, 1), (0, 0)))
        lonely = ops.equal(ops.arange(mask.shape[1]), 0)[None]
    else:
        back = without_best(ops.transpose(g))
        charge, g = ops.pad(_log_matmul(f, back)[:, :-1], ((0, 0), (1, 0), (0, 0))), ops.transpose(back)
        lonely = ops.logical_not(ops.pad(mask[:, 1:], ((0, 0), (0, 1))))
    charge = charge + ops.where(lonely, logsumexp(f), 0.0)[..., None]
    return ops.where(mask[..., None], f - charge, 0.0), g


def _log_matmul(x: Tensor, g: Tensor) -> Tensor:
    """The scores log Σ_j exp(x[..., j] + g[i, j]), shape (..., i); 0, without gradient, where the sum is 0.

    One product of exponentials, unless that loses digits: below 1e-20 of the largest possible sum, terms that
    count may have been lost to underflow. Then the sums are taken in logarithms, one i at a time. The gradient is
    taken in the same two ways, because that of the second would keep all pairs.
    """

    @custom_gradient
    def log_matmul(x: Tensor, g: Tensor) -> tuple[Tensor, Callable]:
        value, kept = _log_sums(x, g)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> tuple[Tensor, Tensor]:
            if taken_again(upstream):
                return _log_sums_gradient(*args, *_log_sums(*args), upstream)
            return _log_sums_gradient(x, g, value, kept, args[0] if upstream is None else upstream)

        return value, gradient

    return _log_sums(x, g)[0] if follows_forward((x, g)) else log_matmul(x, g)


def _log_sums(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The value of :func:`_log_matmul`, and whether products lose nothing."""
    x_best, g_best = best_of(x), best_of(g)
    products = ops.matmul(ops.exp(x - x_best), ops.transpose(ops.exp(g - g_best)))
    possible = ops.logical_and(ops.any(x > -math.inf, axis=-1, keepdims=True), ops.any(g > -math.inf, axis=-1))
    products = ops.where(possible, products, 1.0)
    kept = ops.all(products > 1e-20)

    def by_products(products: Tensor, *others: Tensor) -> tuple[Tensor]:
        *_, possible, x_best, g_best = others
        return (ops.where(possible, ops.log(products) + x_best + g_best[:, 0], 0.0),)

    def by_logarithms(_: Tensor, x: Tensor, g: Tensor, *__: Tensor) -> tuple[Tensor]:
        return (ops.moveaxis(ops.map(lambda row: logsumexp(x + row), g), 0, -1),)

    given = possible, x_best, g_best
    return cond(kept, by_products, by_logarithms, products, x, g, given=given)[0], kept


def _log_sums_gradient(x: Tensor, g: Tensor, value: Tensor, kept: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Σ w[..., i] exp(x[..., j] + g[i, j] − value[..., i]) over i, and over all the rest."""
    K = g.shape[0]

    def by_products(x: Tensor, g: Tensor, value: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        x_best, g_best = best_of(x), best_of(g)
        X, G = ops.exp(x - x_best), ops.exp(g - g_best)
        u = w * ops.exp(x_best + g_best[:, 0] - value)
        return X * ops.matmul(u, G), G * ops.matmul(ops.transpose(ops.reshape(u, (-1, K))), ops.reshape(X, (-1, K)))

    def by_logarithms(x: Tensor, g: Tensor, value: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        def add(i: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            of_x, of_g = found
            row, value_i, w_i = (ops.take(part, i, axis=axis) for part, axis in ((g, 0), (value, -1), (w, -1)))
            parts = w_i[..., None] * ops.exp(x + row - value_i[..., None])
            at_i = ops.cast(ops.arange(K) == i, g.dtype)[:, None]
            return of_x + parts, of_g + at_i * ops.sum(parts, axis=(0, 1))

        return fori_loop(K, add, (ops.zeros_like(x), ops.zeros_like(g)))

    return cond(kept, by_products, by_logarithms, x, g, value, w)
