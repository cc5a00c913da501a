"""Measuring honestly: on which device, how certain, how fast, how much memory.

A number in this book says where it was measured (:func:`device`, :func:`versions`), how sure it is
(:class:`Estimate`), and comes from a method that is known to tell the truth:

* time: warm-up first, then the median; contestants alternate in one run and are compared pair by pair, so that
  a machine that slows down slows all of them; asynchronous backends are waited for (:func:`ready`);
* memory: the most bytes held at once *beyond what was held before the call*. The inputs do not count,
  the outputs do. Which method is honest depends on backend and device (:func:`peak_memory`);
* running out of memory is a result, not an accident (:func:`attempt`).

Importing this module loads no backend.
"""

import functools
import importlib
import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri, stdtrit

ROOT = Path(__file__).resolve().parents[2]
SCALES = ("cpu", "gpu")

T = TypeVar("T")

# ------------------------------------------------------------------------------------------------ device


@dataclass(frozen=True)
class Device:
    """What a measurement ran on.

    Attributes:
        name: for a reader, such as "2 × AMD EPYC (CPU)" or "NVIDIA H100 80GB HBM3 (GPU)".
        kind: "cpu", or "gpu" for any accelerator.
        cores: CPU cores this process may use.
        memory_bytes: memory of the device; None where an accelerator does not tell.
    """

    name: str
    kind: str
    cores: int
    memory_bytes: int | None

    def __str__(self) -> str:
        return self.name


def device() -> Device:
    """The device on which the current Keras backend computes: the one a new tensor lands on.

    While Keras is not loaded nothing is loaded, and the answer is the CPU.

    Example:
        >>> device().kind in ("cpu", "gpu") and device().cores >= 1
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    accelerator = _accelerator()
    if accelerator:
        return Device(f"{accelerator} (GPU)", "gpu", cores, _accelerator_memory(accelerator))
    return Device(f"{cores} × {_processor()} (CPU)", "cpu", cores, _main_memory())


def versions() -> dict[str, str | None]:
    """The versions a result depends on.

    Returns:
        Name to version for python, keras, numpy, scipy, matplotlib, tensorflow, jax and torch, as far as they
        are installed, and under "backend" the name of the Keras backend (None while Keras is not loaded).

    Example:
        >>> versions()["numpy"] == np.__version__
        True
    """
    found: dict[str, str | None] = {"python": platform.python_version(), "backend": _backend()}
    for package in ("keras", "numpy", "scipy", "matplotlib", "tensorflow", "jax", "torch"):
        if hasattr(sys.modules.get(package), "__version__"):
            found[package] = sys.modules[package].__version__
        else:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def scale() -> str:
    """The scale at which to run: "cpu" or "gpu".

    The environment variable ``BOOK_SCALE`` decides; where it is not set, the device does (a GPU shows only once
    Keras is loaded).

    Raises:
        ValueError: ``BOOK_SCALE`` is neither "cpu" nor "gpu".

    Example:
        >>> scale() in ("cpu", "gpu")
        True
    """
    wanted = os.environ.get("BOOK_SCALE")
    if not wanted:
        return device().kind
    if wanted not in SCALES:
        raise ValueError(f"BOOK_SCALE is {wanted!r}; expected 'cpu' or 'gpu'")
    return wanted


def _backend() -> str | None:
    """Name of the Keras backend, None while Keras is not loaded."""
    keras = sys.modules.get("keras")
    return keras.config.backend() if keras else None


def _accelerator() -> str | None:
    """Name of the accelerator on which Keras places a new tensor; None for a CPU."""
    backend = _backend()
    if backend not in ("tensorflow", "jax", "torch"):
        return None
    tensor = sys.modules["keras"].ops.zeros(())
    if backend == "jax":
        place, *_ = tensor.devices()
        return None if place.platform == "cpu" else place.device_kind
    if backend == "torch":
        if tensor.device.type == "cpu":
            return None
        if tensor.device.type == "cuda":
            return sys.modules["torch"].cuda.get_device_name(tensor.device)
        return tensor.device.type.upper()
    import tensorflow as tf

    _, kind, index = tensor.device.rsplit(":", 2)
    if kind == "CPU":
        return None
    physical = tf.config.list_physical_devices(kind)[int(index)]
    return tf.config.experimental.get_device_details(physical).get("device_name", kind)


def _accelerator_memory(name: str) -> int | None:
    """Total bytes of the NVIDIA GPU of this name, None where ``nvidia-smi`` does not know it."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    mebibytes = dict(line.rsplit(", ", 1) for line in listing.splitlines() if ", " in line)
    found = mebibytes.get(name, "")
    return int(found) * 2**20 if found.isdigit() else None


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Model name of the processor, without the trade marks."""
    described = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = described[1] if described else platform.processor() or platform.machine()
    return " ".join(re.sub(r"\((R|TM)\)|\bCPU\b|\bProcessor\b|@.*", " ", name).split())


def _main_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of main memory that this process may use: the machine's, or the container's limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    granted = limit.read_text().strip() if limit.exists() else "max"
    return min(machine, int(granted)) if granted.isdigit() else machine


# --------------------------------------------------------------------------------------------- certainty


def interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of independent samples, one a seed.

    mean ± t_{n-1} · s / √n, with s the sample standard deviation (Student, 1908). Exact for normal samples.

    Args:
        samples: shape (n,), n ≥ 2, finite.
        confidence: probability with which the interval covers the mean, in (0, 1).

    Returns:
        The two ends (low, high).

    Raises:
        ValueError: fewer than two samples, a sample that is not finite, a confidence outside (0, 1).

    Example:
        >>> low, high = interval([1.0, 2.0, 3.0])
        >>> print(f"{low:.3f} {high:.3f}")
        -0.484 4.484
    """
    x = _checked_samples(samples)
    half = stdtrit(x.size - 1, 0.5 + _checked_confidence(confidence) / 2) * x.std(ddof=1) / math.sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


def median_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the median from order statistics: the sign test turned round. It assumes no distribution.

    With x_(1) ≤ … ≤ x_(n), the interval [x_(k), x_(n+1-k)] covers the median with probability
    1 - 2 P(Binomial(n, ½) < k); k is the largest that still reaches the confidence.

    Args:
        samples: shape (n,), finite; n ≥ 6 for a confidence of 0.95.
        confidence: least probability with which the interval covers the median, in (0, 1).

    Returns:
        The two ends (low, high), each one of the samples.

    Raises:
        ValueError: too few samples for the confidence, a sample that is not finite, a confidence outside (0, 1).

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
        (1.0, 6.0)
    """
    x = np.sort(_checked_samples(samples))
    misses = 2 * bdtr(np.arange(x.size // 2), x.size, 0.5)  # by k - 1
    k = int(np.sum(misses <= 1 - _checked_confidence(confidence)))
    if k == 0:
        raise ValueError(f"samples: {x.size} are too few for a median interval at confidence {confidence}")
    return float(x[k - 1]), float(x[-k])


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion; sensible at 0 and at 1 too (Wilson, 1927).

    The proportions p that a test at this confidence does not reject: |p̂ - p| ≤ z √(p (1-p) / n).

    Args:
        successes: k, with 0 ≤ k ≤ n.
        trials: n ≥ 1.
        confidence: in (0, 1).

    Returns:
        The two ends (low, high), within [0, 1].

    Raises:
        ValueError: successes or trials out of range, a confidence outside (0, 1).

    Example:
        >>> low, high = wilson(0, 10)
        >>> print(f"{low:.3f} {high:.3f}")
        0.000 0.278
    """
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ValueError(f"successes, trials: got {successes}, {trials}; expected 0 ≤ successes ≤ trials ≥ 1")
    z = ndtri(0.5 + _checked_confidence(confidence) / 2)
    p, n = successes / trials, trials
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At p = 0 and p = 1 the end is exactly p; rounding must not push it past.
    return (0.0 if successes == 0 else float(centre - half), 1.0 if successes == trials else float(centre + half))


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that it may lie in: low ≤ value ≤ high.

    It prints with as many digits as the interval supports; a format such as ``.3f`` applies to all three numbers.

    Raises:
        ValueError: the value is outside the interval, or one of them is not a number.

    Example:
        >>> print(Estimate(0.123, 0.12, 0.126), Estimate.exact(2.5))
        0.123 [0.120, 0.126] 2.5
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low ≤ value ≤ high expected; got {self.low}, {self.value}, {self.high}")

    @classmethod
    def from_samples(cls, samples: ArrayLike, confidence: float = 0.95) -> "Estimate":
        """The mean of the samples with its t interval: see :func:`interval`.

        Example:
            >>> print(Estimate.from_samples([0.9, 1.0, 1.1]))
            1.00 [0.75, 1.25]
        """
        low, high = interval(samples, confidence)
        return cls(float(np.mean(samples)), low, high)

    @classmethod
    def from_count(cls, successes: int, trials: int, confidence: float = 0.95) -> "Estimate":
        """The proportion with its interval: see :func:`wilson`.

        Example:
            >>> print(Estimate.from_count(90, 100))
            0.90 [0.83, 0.94]
        """
        low, high = wilson(successes, trials, confidence)
        return cls(successes / trials, low, high)

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """A value without uncertainty: derived, counted, or computed to rounding.

        Example:
            >>> Estimate.exact(2.5)
            Estimate(value=2.5, low=2.5, high=2.5)
        """
        return cls(value, value, value)

    def __str__(self) -> str:
        return f"{self}"

    def __format__(self, spec: str) -> str:
        if self.low == self.high:
            return f"{self.value:{spec or '.6g'}}"
        spec = spec or self._digits()
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def _digits(self) -> str:
        """Format in which the interval spans 5 to 50 units of the last digit."""
        largest = max(abs(self.low), abs(self.high))
        if not math.isfinite(self.high - self.low):
            return ".6g"
        unit = math.floor(math.log10((self.high - self.low) / 5))
        order = math.floor(math.log10(largest))
        return f".{max(0, -unit)}f" if -5 < order < 7 else f".{max(0, order - unit)}e"


def _checked_samples(samples: ArrayLike) -> np.ndarray:
    """The samples as a vector of at least two finite float64."""
    x = np.asarray(samples, dtype="float64")
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all():
        raise ValueError(f"samples: got {samples!r}; expected a vector of at least two finite numbers")
    return x


def _checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence!r}; expected a number in (0, 1)")
    return confidence


# -------------------------------------------------------------------------------------------------- time


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one function.

    Attributes:
        samples: seconds of each call, in the order of the calls.

    Example:
        >>> print(Timing((0.003, 0.001, 0.002)))
        2 ms
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.samples)

    def __str__(self) -> str:
        return f"{1000 * self.median:.3g} ms"


@dataclass(frozen=True)
class Contest:
    """Times of contestants that took turns.

    Attributes:
        timings: name to :class:`Timing`; the i-th samples of all names belong to the same round.

    Example:
        >>> race = Contest({"a": Timing((2.0,) * 8), "b": Timing((1.0,) * 8)})
        >>> print(race.ratio("a", "b"))
        2
    """

    timings: Mapping[str, Timing]

    def __getitem__(self, name: str) -> Timing:
        return self.timings[name]

    def ratio(self, a: str, b: str, confidence: float = 0.95) -> Estimate:
        """Time of ``a`` over time of ``b``: median over the rounds, with :func:`median_interval`.

        Both times of a round were taken one after the other, so what slows the machine cancels.
        """
        ratios = np.divide(self[a].samples, self[b].samples)
        return Estimate(float(np.median(ratios)), *median_interval(ratios, confidence))

    def __str__(self) -> str:
        return ", ".join(f"{name} {timing}" for name, timing in self.timings.items())


def ready(value: T) -> T:
    """Waits until a result is computed, on whichever backend, and returns it.

    Args:
        value: a tensor, a Keras variable, or a (nested) tuple, list or dict of them; anything else is ready.

    Example:
        >>> ready({"loss": 1.5})
        {'loss': 1.5}
    """
    if isinstance(value, Mapping):
        for part in value.values():
            ready(part)
    elif isinstance(value, list | tuple):
        for part in value:
            ready(part)
    else:
        _wait_for(value)
    return value


def _wait_for(tensor: Any) -> None:
    library = type(tensor).__module__.partition(".")[0]
    if library == "keras" and hasattr(tensor, "value"):
        _wait_for(tensor.value)
    elif hasattr(tensor, "block_until_ready"):
        tensor.block_until_ready()
    elif library == "torch" and getattr(tensor, "is_cuda", False):
        sys.modules["torch"].cuda.synchronize(tensor.device)
    elif library == "tensorflow":
        sys.modules["tensorflow"].test.experimental.sync_devices()


def time_of(function: Callable[[], Any], *, repeats: int = 10, warmup: int = 2) -> Timing:
    """Times a function.

    Args:
        function: called without arguments. It returns what it computes, so that the clock can wait for it.
        repeats: timed calls, at least 1.
        warmup: calls before, which are not timed: traces, compilation, caches.

    Raises:
        ValueError: repeats below 1, warmup below 0.

    Example:
        >>> len(time_of(lambda: sum(range(100)), repeats=5).samples)
        5
    """
    return _race({"": function}, repeats, warmup, least=1)[""]


def contest(contestants: Mapping[str, Callable[[], Any]], *, repeats: int = 15, warmup: int = 2) -> Contest:
    """Times several functions in turns: each round calls every one once, starting with another one each time.

    Args:
        contestants: name to function, as for :func:`time_of`.
        repeats: timed rounds; at least 6, below which a ratio has no 95 % interval.
        warmup: rounds before, which are not timed.

    Raises:
        ValueError: repeats below 6, warmup below 0, no contestant.

    Example:
        >>> race = contest({"long": lambda: sum(range(20_000)), "short": lambda: sum(range(200))}, repeats=7)
        >>> race.ratio("long", "short").low > 1
        True
    """
    if not contestants:
        raise ValueError("contestants: got none; expected at least one name with its function")
    return Contest(_race(contestants, repeats, warmup, least=6))


def _race(
    contestants: Mapping[str, Callable[[], Any]], repeats: int, warmup: int, *, least: int
) -> dict[str, Timing]:
    if repeats < least or warmup < 0:
        raise ValueError(f"repeats, warmup: got {repeats}, {warmup}; expected repeats ≥ {least}, warmup ≥ 0")
    names = list(contestants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            ready(contestants[name]())
            seconds = time.perf_counter() - start
            if turn >= 0:
                samples[name].append(seconds)
    return {name: Timing(tuple(seconds)) for name, seconds in samples.items()}


# ------------------------------------------------------------------------------------------------ memory


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

    Raises:
        UnmeasurableError: there is none; the message names the way out.
    """
    backend, kind = _backend(), device().kind
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
    compiled = getattr(getattr(function, "func", function), "_jit_compile", False)
    if compiled and place.startswith("CPU") and _FRESH not in os.environ:
        raise UnmeasurableError(
            "on a CPU, XLA's library fusions have buffers that TensorFlow does not count; "
            "call peak_memory_in_fresh_process, which switches them off"
        )
    ready(function())
    baseline = statistics_of.get_memory_info(place)["current"]
    statistics_of.reset_memory_stats(place)
    ready(function())
    peak = statistics_of.get_memory_info(place)["peak"]
    return Peak(peak - baseline, "TensorFlow allocator statistics", baseline)


def _torch_cpu_peak(function: Callable[[], Any]) -> Peak:
    from torch.profiler import ProfilerActivity, profile

    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return Peak(int(max(np.cumsum(sizes), default=0)), "torch profiler memory events", 0)


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

    ready(function())
    reset.write_text("5")  # VmHWM starts anew at VmRSS
    baseline = resident("VmRSS")
    ready(function())
    return Peak(max(0, resident("VmHWM") - baseline), "VmHWM in a fresh process", baseline)


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
        >>> peak = peak_memory_in_fresh_process("lib.workbench.measure:calibration", mebibytes=32)
        >>> 31 < peak.bytes / 2**20 < 34
        True
    """
    target = builder if isinstance(builder, str) else f"{builder.__module__}:{builder.__qualname__}"
    if not re.fullmatch(r"[\w.]+:\w+", target) or target.startswith("__main__"):
        raise ValueError(f"builder: got {target!r}; expected a function at the top of an importable module")
    backend = backend or _backend() or os.environ.get("KERAS_BACKEND")
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, **_MALLOC, **GPU_SHARED, _FRESH: "1", "PYTHONPATH": path}
    if backend:
        environment["KERAS_BACKEND"] = backend
    if backend in (None, "tensorflow"):
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_COUNTED}".strip()
    command = [sys.executable, "-m", "lib.workbench.measure", target, json.dumps(kwargs)]
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
            if _backend() == "jax":
                return _jax_gpu_peak(function)
            raise

    try:
        result = attempt(measured)
    except UnmeasurableError as error:
        return {"unmeasurable": str(error)}
    return asdict(result) if result else {"out_of_memory": result.requested}


# ----------------------------------------------------------------------------------------- out of memory


@dataclass(frozen=True)
class OutOfMemory:
    """The result of a call for which the memory did not suffice. It is false, and prints as "out of memory".

    Attributes:
        requested: what the backend said it could not have.

    Example:
        >>> print(OutOfMemory("8 GiB"), bool(OutOfMemory("8 GiB")))
        out of memory False
    """

    requested: str

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "out of memory"


def attempt(function: Callable[[], T]) -> T | OutOfMemory:
    """Calls the function; running out of memory comes back as a value, on every backend.

    Args:
        function: called without arguments.

    Returns:
        What the function returns, or :class:`OutOfMemory`. Every other error passes through.

    Example:
        >>> print(attempt(lambda: np.zeros(2**50)))
        out of memory
        >>> attempt(lambda: 1 + 1)
        2
    """
    try:
        return ready(function())
    except Exception as error:
        if not _is_exhaustion(error):
            raise
        return OutOfMemory(_request_in(str(error)) or type(error).__name__)


_EXHAUSTED = re.compile(
    "resource.exhausted|out.of.memory|oom when allocating|can't allocate memory|not enough memory"
    "|alloc_failed|failed to allocate",
    re.IGNORECASE,
)


def _is_exhaustion(error: Exception) -> bool:
    """Whether the error says that memory ran out, told without importing a backend."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}:
        return True
    # torch on a CPU and JAX raise a RuntimeError for everything, Keras wraps errors in one: the text decides.
    speaks = isinstance(error, RuntimeError) or type(error).__module__.startswith("tensorflow")
    return speaks and bool(_EXHAUSTED.search(str(error)))


def _request_in(message: str) -> str:
    """The line of the message that says what was asked for, without TensorFlow's node names."""
    lines = [re.sub(r"\{\{.*?\}\} ?", "", line).strip() for line in message.splitlines()]
    lines = list(filter(None, lines))
    return next(filter(_EXHAUSTED.search, lines), lines[0] if lines else "")


if __name__ == "__main__":
    # The module that the builder may import is this one under its real name; use it, so that classes agree.
    from lib.workbench import measure

    print(json.dumps(measure._main(*sys.argv[1:])))
