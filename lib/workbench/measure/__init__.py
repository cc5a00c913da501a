"""Measuring honestly: on which device, how certain, how fast, how much memory.

A number in this book says where it was measured (:func:`device`, :func:`versions`), how sure it is
(:class:`Estimate`), and comes from a method that is known to tell the truth:

* time: warm-up first, then the median; contestants alternate in one run and are compared pair by pair, so that
  a machine that slows down slows all of them; asynchronous backends are waited for (:func:`ready`);
* memory: the most bytes held at once *beyond what was held before the call*. The inputs do not count,
  the outputs do. Which method is honest depends on backend and device (:func:`peak_memory`);
* running out of memory is a result, not an accident (:func:`attempt`).

Each of these ideas has its module: device, estimates, timing, memory and exhaustion. All their names for the book
are here, and ``measure.device`` is the function. Importing this package loads no backend.
"""

from lib.workbench.measure.device import SCALES, Device, device, scale, versions
from lib.workbench.measure.estimates import Estimate, holm, interval, median_interval, wilson
from lib.workbench.measure.exhaustion import OutOfMemory, attempt
from lib.workbench.measure.memory import (
    GPU_SHARED,
    ROOT,
    Peak,
    UnmeasurableError,
    calibration,
    held_over_time,
    peak_memory,
    peak_memory_in_fresh_process,
)
from lib.workbench.measure.timing import Contest, Timing, contest, ready, time_of

__all__ = [
    "GPU_SHARED",
    "ROOT",
    "SCALES",
    "Contest",
    "Device",
    "Estimate",
    "OutOfMemory",
    "Peak",
    "Timing",
    "UnmeasurableError",
    "attempt",
    "calibration",
    "contest",
    "device",
    "held_over_time",
    "holm",
    "interval",
    "median_interval",
    "peak_memory",
    "peak_memory_in_fresh_process",
    "ready",
    "scale",
    "time_of",
    "versions",
    "wilson",
]
