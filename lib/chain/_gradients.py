"""The gradients of log Z with respect to the scores of a chain, as a custom gradient returns them."""

from typing import Any

from keras import ops

from .._backend import backend
from ._posterior import Posterior, expected_transitions

Tensor = Any


def gradients_of_scores(posterior: Posterior, exact: Tensor, M: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """The gradient of Σ_b w_b log Z_b with respect to emissions, transitions, start and end."""
    return of_scores(w[:, None] * posterior.p, expected_transitions(posterior, exact, M, w))


def of_scores(tags: Tensor, moves: Tensor) -> tuple[Tensor, ...]:
    """Counts of tags and of moves in the closed chain, as those of emissions, transitions, start and end."""
    if len(moves.shape) == 2:
        return of_tags(tags), moves[1:, 1:], moves[0, 1:], moves[1:, 0]
    total = ops.sum(moves, axis=(0, 1))
    return of_tags(tags), ops.moveaxis(moves[1:-1, :, 1:, 1:], 0, 1), total[0, 1:], total[1:, 0]


def of_tags(x: Tensor) -> Tensor:
    """(time + 2, batch, K) of the closed chain as (batch, time, tags)."""
    return ops.moveaxis(x[1:-1, :, 1:], 0, 1)


def taken_again(upstream: Tensor | None) -> bool:
    """Whether a gradient is asked for that can be differentiated itself, on torch.

    There, what a custom gradient keeps from its forward pass is a constant to a second derivative. So the gradient
    is to be computed anew from its arguments. On TensorFlow and JAX it is differentiated as it stands; only torch
    passes ``upstream`` by name.
    """
    return upstream is not None and backend().is_grad_enabled()
