"""Replacement rates: how they rise or fall with the steps of a training, and who sets and reports them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from .._arguments import positive_integer
from .._tensors import as_tensor, require, require_shape

if TYPE_CHECKING:
    from .replacement import ModuleReplacement

__all__ = ["ReplacementRate", "anti_curriculum", "checked_rate", "curriculum", "rate_at"]

Tensor = Any
Schedule = keras.optimizers.schedules.LearningRateSchedule


def curriculum(start: float, steps: int) -> Schedule:
    """A replacement rate that rises evenly from ``start`` to 1 in so many steps, and stays there.

    With rate 0 a successor learns nothing, and with rate p it takes part in, and learns from, one step in 1/p: so
    the rate acts as a warm-up of the learning rate too.

    Args:
        start: Rate of the first step, in [0, 1].
        steps: Number of steps, at least 1.

    Raises:
        ValueError: ``start`` is outside [0, 1], or ``steps`` is no positive integer.

    Source:
        Xu et al. 2020, section 3.3: p = min(1, kt + b).

    Example:
        >>> rate = curriculum(0.5, steps=100)
        >>> [float(rate(step)) for step in (0, 50, 100, 200)]
        [0.5, 0.75, 1.0, 1.0]
    """
    return _line(start, 1.0, steps)


def anti_curriculum(start: float, end: float, steps: int) -> Schedule:
    """A replacement rate that falls evenly from ``start`` to ``end`` in so many steps, and stays there.

    Args:
        start: Rate of the first step, in [0, 1].
        end: Rate after the last step, in [0, start].
        steps: Number of steps, at least 1.

    Raises:
        ValueError: A rate is outside [0, 1], ``end`` is above ``start``, or ``steps`` is no positive integer.

    Source:
        Xu et al. 2020, section 4.5.

    Example:
        >>> rate = anti_curriculum(1.0, 0.5, steps=100)
        >>> [float(rate(step)) for step in (0, 50, 100, 200)]
        [1.0, 0.75, 0.5, 0.5]
    """
    start, end = checked_rate("start", start), checked_rate("end", end)
    if end > start:
        raise ValueError(f"end must be at most start = {start}, got {end}")
    return _line(start, end, steps)


def _line(start: float, end: float, steps: int) -> Schedule:
    steps = positive_integer("steps", steps)
    return keras.optimizers.schedules.PolynomialDecay(checked_rate("start", start), steps, end, power=1.0)


class ReplacementRate(keras.callbacks.Callback):
    """Reports the rate after each epoch as ``replacement_rate``, and sets it before each one, if told how.

    Args:
        replacement: The layer whose rate it is.
        schedule: Rate by the number of the epoch, from 0. Without, the rate is only reported.

    Raises:
        ValueError: ``replacement`` is no such layer; ``schedule`` is no function, or the layer follows one of its
            own; or a rate is outside [0, 1].

    Example:
        >>> from lib.theseus import ModuleReplacement
        >>> body = ModuleReplacement([keras.layers.Dense(1)], [keras.layers.Dense(1)], seed=0)
        >>> model = keras.Sequential([body])
        >>> model.compile("sgd", "mse")
        >>> rate = ReplacementRate(body, lambda epoch: (1 + epoch) / 2)
        >>> x = ops.ones((4, 1))
        >>> model.fit(x, x, epochs=2, verbose=0, callbacks=[rate]).history["replacement_rate"]
        [0.5, 1.0]
    """

    def __init__(self, replacement: ModuleReplacement, schedule: Callable[[int], float] | None = None):
        super().__init__()
        if not hasattr(replacement, "schedule"):
            raise ValueError(f"replacement must be a ModuleReplacement, got {replacement!r}")
        if schedule is not None and not callable(schedule):
            raise ValueError(f"schedule must be a function of the epoch, got {schedule!r}")
        if schedule is not None and replacement.schedule is not None:
            raise ValueError(f"schedule: the rate follows {replacement.schedule!r} already, got {schedule!r}")
        self.replacement, self.schedule = replacement, schedule

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Sets the rate."""
        if self.schedule is not None:
            self.replacement.rate = self.schedule(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Reports the rate."""
        if logs is not None:
            logs["replacement_rate"] = float(ops.convert_to_numpy(self.replacement.rate))


def checked_rate(name: str, rate: Any) -> float:
    """The rate, if it is a number in [0, 1], or a tensor of one. Raises ValueError otherwise.

    Example:
        >>> checked_rate("rate", ops.ones(()))
        1.0
    """
    number = rate
    if hasattr(rate, "shape") and not isinstance(rate, Real):
        number = ops.convert_to_numpy(require_shape(name, as_tensor(name, rate), ())).item()
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 <= number <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {rate!r}")
    return float(number)


def rate_at(schedule: Callable[[Tensor], Any], step: Tensor) -> Tensor:
    """The rate at a step, float32 (), clipped to [0, 1].

    Args:
        schedule: A function of the step.
        step: Its number, float32 ().

    Raises:
        ValueError: The function returns a number outside [0, 1], or what is neither a number nor a tensor of one;
            or NaN, where values are known.

    Example:
        >>> float(rate_at(lambda step: (1 + step) / 4, ops.ones(())))
        0.5
    """
    rate = schedule(step)
    if isinstance(rate, Real):
        rate = checked_rate("rate", rate)
    rate = ops.cast(require_shape("rate", as_tensor("rate", rate, kinds="iuf"), ()), "float32")
    rule = f"rate must be a number at every step, {schedule!r} gives none"
    require(ops.logical_not(ops.isnan(rate)), rule, lambda: f"nan at step {float(ops.convert_to_numpy(step)):.0f}")
    return ops.clip(rate, 0.0, 1.0)
