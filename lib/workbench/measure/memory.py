"""How much memory a call takes: the most bytes held at once, beyond what was held before it.

The inputs do not count, the outputs do. Where this process cannot measure that honestly, a fresh one does, which
runs this module: ``python -m lib.workbench.measure.memory module:builder '{"argument": 1}'``.

What is measured is the peak of a program in its own order: an operation ends before the next one begins, and what
nobody needs any more is free by then. Eager TensorFlow and torch run so, and XLA assigns all buffers when it
compiles. A graph of TensorFlow is put in this order first (:mod:`.order`), since its executor starts whatever is
ready on whichever thread is free: four thin layers with outputs of 4 MiB held 20, 24 or 28 MiB on a busy machine;
in the order of their program they hold 20, always.
"""

import functools
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.workbench.measure.device import device, loaded_backend
from lib.workbench.measure.exhaustion import attempt
from lib.workbench.measure.order import in_program_order, is_compiled
from lib.workbench.measure.timing import ready

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Peak:
    """The most memory that a call held at once, beyond what was held before it.

    Attributes:
        bytes: peak minus baseline.
        method: how it was measured.
        baseline: bytes held before the call, by the same method (0 where it counts from the call on).

    Example:
        >>> print(Peak(2**20, "torch profiler", 0))
        1.0 MiB
    """

    bytes: int
    method: str
    baseline: int

    def __str__(self) -> str:
        return f"{self.bytes / 2**20:.1f} MiB"


class UnmeasurableError(RuntimeError):
    """This process has no honest way to measure the memory of this backend on this device."""


def peak_memory(function: Callable[..., Any], *args: Any) -> Peak:
    """Peak memory of ``function(*args)`` in this process, where an honest method exists.

    ================  ========================================================================================
    TensorFlow        its allocator's statistics: peak after a reset minus current before. On a CPU they exist
                      where oneDNN is in use, and do not see inside functions compiled by XLA (jit_compile).
                      A recycled block counts in full, so blocks below some MiB may count up to twice.
    torch, CPU        the profiler's memory events, summed in the order of time
    torch, CUDA       max_memory_allocated after reset_peak_memory_stats, minus memory_allocated before
    JAX; no backend   none: :func:`peak_memory_in_fresh_process`
    ================  ========================================================================================

    The function is called twice; the first call, in which traces, compiled code, variables and cached plans come
    into being, is not measured. It returns what it computes, so that the end can be waited for.

    Args:
        function: to be measured. A ``tf.function`` is given as it is, or as a ``functools.partial`` of it: hidden
            in another function, it is left to TensorFlow's executor, whose order changes from call to call.
        *args: its arguments.

    Raises:
        UnmeasurableError: there is none; the message names the way out.
    """
    backend, kind = loaded_backend(), device().kind
    ruler = _RULERS.get((backend, kind))
    if ruler is None:
        raise UnmeasurableError(
            f"the peak memory of {backend or 'plain Python'} on a {kind} cannot be measured honestly within this "
            "process; call peak_memory_in_fresh_process"
        )
    return ruler(functools.partial(function, *args))


def _tensorflow_peak(function: Callable[[], Any]) -> Peak:
    import tensorflow as tf

    _, place = tf.zeros(()).device.rsplit("device:", 1)
    statistics_of = tf.config.experimental
    try:
        statistics_of.reset_memory_stats(place)
    except ValueError:
        raise UnmeasurableError(
            "TensorFlow counts no bytes on this CPU, since oneDNN is not in use; call peak_memory_in_fresh_process"
        ) from None
    if is_compiled(function) and place.startswith("CPU") and _FRESH not in os.environ:
        raise UnmeasurableError(
            "on a CPU, XLA's library fusions have buffers that TensorFlow does not count; "
            "call peak_memory_in_fresh_process, which switches them off"
        )
    function = in_program_order(function)
    ready(function())
    baseline = statistics_of.get_memory_info(place)["current"]
    statistics_of.reset_memory_stats(place)
    ready(function())
    peak = statistics_of.get_memory_info(place)["peak"]
    return Peak(peak - baseline, "TensorFlow allocator statistics", baseline)


def held_over_time(function: Callable[[], Any]) -> list[int]:
    """On torch and a CPU, the bytes held after each allocation and release of a call, beyond what was held before.

    Args:
        function: of no arguments; it is called twice, and the second call is measured.
    """
    from torch.profiler import ProfilerActivity, profile

    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return list(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def _torch_cpu_peak(function: Callable[[], Any]) -> Peak:
    return Peak(int(max(held_over_time(function), default=0)), "torch profiler memory events", 0)


def _torch_gpu_peak(function: Callable[[], Any]) -> Peak:
    import torch

    if not torch.cuda.is_available():
        raise UnmeasurableError("torch counts the peak memory of CUDA devices only")
    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    baseline = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return Peak(torch.cuda.max_memory_allocated() - baseline, "torch.cuda.max_memory_allocated", baseline)


def _jax_gpu_peak(function: Callable[[], Any]) -> Peak:
    """Only for a process that did nothing else: the statistics have no reset."""
    import jax

    place, *_ = jax.numpy.zeros(()).devices()
    before = place.memory_stats()
    ready(function())
    peak = place.memory_stats()["peak_bytes_in_use"]
    if peak <= before["peak_bytes_in_use"]:
        raise UnmeasurableError("building the inputs took more memory than the call, and JAX cannot reset the peak")
    baseline = before["bytes_in_use"]
    return Peak(peak - baseline, "JAX peak_bytes_in_use in a fresh process", baseline)


def _resident_peak(function: Callable[[], Any]) -> Peak:
    """The kernel's high-water mark; honest only in a process with the environment of :data:`_MALLOC`."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.exists() and reset.exists()):
        raise UnmeasurableError("the peak of resident memory is read from Linux's /proc, which this system lacks")

    def resident(mark: str) -> int:
        return 1024 * int(re.search(rf"{mark}:\s*(\d+) kB", status.read_text())[1])

    if loaded_backend() == "tensorflow":
        function = in_program_order(function)
    ready(function())
    _settled(lambda: resident("VmRSS"))  # JAX gives back what is no longer needed a moment later
    reset.write_text("5")  # VmHWM starts anew at VmRSS
    baseline = resident("VmRSS")
    ready(function())
    return Peak(max(0, resident("VmHWM") - baseline), "VmHWM in a fresh process", baseline)


def _settled(size: Callable[[], int], still: float = 0.3) -> int:
    """The size once it has not shrunk for so many seconds."""
    least, since = size(), time.monotonic()
    while time.monotonic() - since < still:
        time.sleep(0.02)
        if (now := size()) < least:
            least, since = now, time.monotonic()
    return least


_RULERS = {
    ("tensorflow", "cpu"): _tensorflow_peak,
    ("tensorflow", "gpu"): _tensorflow_peak,
    ("torch", "cpu"): _torch_cpu_peak,
    ("torch", "gpu"): _torch_gpu_peak,
}

# Every block above 64 KiB is mapped by itself and goes back to the system when it is freed: only then does
# resident memory follow what is allocated.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "1000000",
}

# Two processes can share a GPU when neither takes all of its memory at the start.
GPU_SHARED = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}

# Without its library fusions all of XLA's buffers come from TensorFlow's allocator, which counts them.
_XLA_COUNTED = "--xla_cpu_experimental_ynn_fusion_type="

# By this variable the fresh process knows that it is one.
_FRESH = "BOOK_FRESH_PROCESS"

# The package imports this module before -m runs it; the end of this file allows for that, so runpy need not warn.
_UNWARNED = ("-W", "ignore::RuntimeWarning:runpy")


def peak_memory_in_fresh_process(
    builder: str | Callable[..., Callable[[], Any]], *, backend: str | None = None, **kwargs: Any
) -> Peak:
    """Peak memory of one call in a process that does nothing else: honest on every backend.

    The process calls ``builder(**kwargs)``, which makes the inputs and returns the function to measure, calls that
    function once (except JAX on a GPU, whose statistics have no reset), and measures a second call: by
    :func:`peak_memory` where that can, by JAX's statistics on a GPU, else by the kernel's high-water mark of
    resident memory (good to some 0.2 MiB) under a malloc that returns every freed block. What the builder needs
    does not count.

    Args:
        builder: a function at the top of an importable module, or "module:function" for it (which spares this
            process the import).
        backend: Keras backend of that process; by default the one of this process.
        **kwargs: JSON values for the builder.

    Raises:
        ValueError: the builder cannot be found by its name from another process.
        MemoryError: it ran out of memory; inside :func:`attempt` that becomes a value.
        UnmeasurableError: that process has no honest way either.
        RuntimeError: it failed otherwise; the message ends with what it printed.

    Example:
        >>> peak = peak_memory_in_fresh_process("lib.workbench.measure.memory:calibration", mebibytes=32)
        >>> 31 < peak.bytes / 2**20 < 34
        True
    """
    target = builder if isinstance(builder, str) else f"{builder.__module__}:{builder.__qualname__}"
    if not re.fullmatch(r"[\w.]+:\w+", target) or target.startswith("__main__"):
        raise ValueError(f"builder: got {target!r}; expected a function at the top of an importable module")
    backend = backend or loaded_backend() or os.environ.get("KERAS_BACKEND")
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, **_MALLOC, **GPU_SHARED, _FRESH: "1", "PYTHONPATH": path}
    if backend:
        environment["KERAS_BACKEND"] = backend
    if backend in (None, "tensorflow"):
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_COUNTED}".strip()
    command = [sys.executable, *_UNWARNED, "-m", "lib.workbench.measure.memory", target, json.dumps(kwargs)]
    run = functools.partial(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
    process = run(env=environment)
    if "Unknown flag" in process.stderr:  # an XLA that does not know these fusions does not have them
        process = run(env={**environment, "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")})
    if process.returncode == -9:
        raise MemoryError(f"{target} was killed (signal 9), as the kernel does when memory runs out")
    if process.returncode != 0:
        raise RuntimeError(f"{target} failed in its process:\n{process.stderr[-2000:]}")
    result = json.loads(process.stdout.splitlines()[-1])
    if "out_of_memory" in result:
        raise MemoryError(result["out_of_memory"])
    if "unmeasurable" in result:
        raise UnmeasurableError(result["unmeasurable"])
    return Peak(**result)


def calibration(mebibytes: int) -> Callable[[], None]:
    """A builder of known size: the returned function holds so much memory, no more and no less.

    Example:
        >>> calibration(mebibytes=1)()
    """
    import numpy as np

    return lambda: np.ones(mebibytes * 2**17).sum() and None


def _main(target: str, kwargs: str) -> dict[str, Any]:
    """What the fresh process does: builds, measures, tells."""
    module, _, name = target.partition(":")

    def measured() -> Peak:
        function = getattr(importlib.import_module(module), name)(**json.loads(kwargs))
        try:
            return peak_memory(function)
        except UnmeasurableError:
            kind = device().kind
            if kind == "cpu":
                return _resident_peak(function)
            if loaded_backend() == "jax":
                return _jax_gpu_peak(function)
            raise

    try:
        result = attempt(measured)
    except UnmeasurableError as error:
        return {"unmeasurable": str(error)}
    return asdict(result) if result else {"out_of_memory": result.requested}


if __name__ == "__main__":
    # The package holds this module under its real name; use that one, so that classes agree.
    from lib.workbench.measure import memory

    print(json.dumps(memory._main(*sys.argv[1:])))
