"""Truths about measuring: certainty, time, memory, device."""

import functools
import importlib.util
import json
import math
import os
import runpy
import subprocess
import sys
import time
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from lib.workbench import measure
from lib.workbench.measure import (
    Contest,
    Estimate,
    OutOfMemory,
    Peak,
    Timing,
    UnmeasurableError,
    attempt,
    contest,
    device,
    interval,
    median_interval,
    peak_memory,
    peak_memory_in_fresh_process,
    ready,
    scale,
    time_of,
    versions,
    wilson,
)

BACKENDS = ("tensorflow", "jax", "torch")
INSTALLED = [name for name in BACKENDS if importlib.util.find_spec(name)]

# ----------------------------------------------------------------------------------------------- certainty


def test_the_interval_of_the_mean_is_students():
    x = np.random.default_rng(1).normal(3, 2, 9)
    expected = scipy.stats.t.interval(0.9, 8, x.mean(), scipy.stats.sem(x))
    assert interval(x, 0.9) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_the_mean_covers_the_mean_as_often_as_it_says():
    samples = np.random.default_rng(2).normal(1, 3, (4000, 4))
    covered = np.mean([low <= 1 <= high for low, high in map(interval, samples)])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_equal_samples_have_an_interval_of_no_width():
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (15, 4), (40, 14)])
def test_the_interval_of_the_median_is_the_narrowest_pair_of_order_statistics_that_suffices(n, k):
    def coverage(k):
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    assert coverage(k) >= 0.95 > coverage(k + 1)
    samples = np.random.default_rng(3).permutation(np.arange(1.0, n + 1))
    assert median_interval(samples) == (k, n + 1 - k)


def test_the_interval_of_the_median_covers_the_median_of_a_skewed_law_as_often_as_it_says():
    samples = np.random.default_rng(4).exponential(1, (4000, 12))
    covered = np.mean([low <= math.log(2) <= high for low, high in map(median_interval, samples)])
    assert covered == pytest.approx(1 - 2 * (1 + 12 + 66) / 2**12, abs=4 * math.sqrt(0.04 / 4000))


def test_five_samples_are_too_few_for_the_interval_of_a_median():
    with pytest.raises(ValueError, match="samples: 5 are too few"):
        median_interval([1.0, 2.0, 3.0, 4.0, 5.0])


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.5, 0.999))
def test_the_interval_of_a_proportion_is_wilsons(trials, part, confidence):
    successes = round(part * trials)
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx(
        (expected.low, expected.high), rel=1e-9, abs=1e-12
    )


def test_the_interval_of_a_proportion_covers_it_as_often_as_it_says_on_average():
    n, p = 30, np.linspace(0.05, 0.95, 181)
    ends = np.array([wilson(k, n) for k in range(n + 1)])
    covers = (ends[:, :1] <= p) & (p <= ends[:, 1:])
    coverage = np.sum(covers * scipy.stats.binom.pmf(np.arange(n + 1)[:, None], n, p), axis=0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)


@given(st.integers(1, 10**9))
def test_no_success_and_no_failure_end_exactly_at_0_and_at_1(trials):
    assert wilson(0, trials)[0] == 0.0
    assert wilson(trials, trials)[1] == 1.0
    assert wilson(0, trials)[1] == pytest.approx(1 - wilson(trials, trials)[0], abs=1e-12)


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
@pytest.mark.parametrize("of", [interval, median_interval, Estimate.from_samples])
def test_samples_that_give_no_interval_are_refused(of, samples):
    with pytest.raises(ValueError, match="samples: got"):
        of(samples)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence):
    for of in (functools.partial(interval, [1, 2]), functools.partial(wilson, 1, 2)):
        with pytest.raises(ValueError, match="confidence: got"):
            of(confidence=confidence)
    with pytest.raises(ValueError, match="confidence: got"):
        median_interval(range(9), confidence)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2), (math.nan, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes, trials: got"):
        wilson(successes, trials)


def test_an_estimate_is_a_value_within_its_interval():
    assert Estimate.from_samples([1.0, 2.0, 3.0]) == Estimate(2.0, *interval([1.0, 2.0, 3.0]))
    assert Estimate.from_count(3, 4) == Estimate(0.75, *wilson(3, 4))
    assert Estimate.exact(7) == Estimate(7, 7, 7)
    for numbers in [(1, 2, 3), (4, 2, 3), (math.nan, 0, 1), (0, math.nan, 1)]:
        with pytest.raises(ValueError, match="low ≤ value ≤ high"):
            Estimate(*numbers)


def test_an_estimate_cannot_be_changed():
    with pytest.raises(AttributeError):
        Estimate.exact(1).value = 2


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.123, 0.120, 0.126), "0.123 [0.120, 0.126]"),
        ((0.12345, 0.12341, 0.12349), "0.12345 [0.12341, 0.12349]"),
        ((1234.5, 1200.2, 1268.8), "1234 [1200, 1269]"),
        ((-2.0, -2.6, -1.4), "-2.0 [-2.6, -1.4]"),
        ((0.0, -0.03, 0.03), "0.00 [-0.03, 0.03]"),
        ((3.2e-7, 3.1e-7, 3.3e-7), "3.20e-07 [3.10e-07, 3.30e-07]"),
        ((2.5e9, 1e9, 4e9), "2.5e+09 [1.0e+09, 4.0e+09]"),
        ((1.0, 0.5, math.inf), "1 [0.5, inf]"),
        ((0.5, 0.5, 0.5), "0.5"),
        ((1 / 3, 1 / 3, 1 / 3), "0.333333"),
        ((12, 12, 12), "12"),
    ],
)
def test_an_estimate_prints_the_digits_that_its_interval_supports(numbers, text):
    assert str(Estimate(*numbers)) == text
    assert f"{Estimate(*numbers)}" == text


def test_a_format_applies_to_all_three_numbers():
    assert f"{Estimate(0.123, 0.12, 0.126):.1%}" == "12.3% [12.0%, 12.6%]"
    assert f"{Estimate.exact(0.5):.3f}" == "0.500"


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e9), st.floats(0, 1))
def test_the_printed_ends_of_an_interval_always_differ_and_are_near(low, width, part):
    high = low + width
    value = min(low + part * width, high)
    assume(width > 1e-12 * abs(low))
    printed = str(Estimate(value, low, high)).replace("[", "").replace("]", "").replace(",", "").split()
    shown_value, shown_low, shown_high = map(float, printed)
    assert shown_low < shown_high
    for shown, exact in [(shown_value, value), (shown_low, low), (shown_high, high)]:
        assert abs(shown - exact) <= 0.11 * (high - low)


# ---------------------------------------------------------------------------------------------------- time


class Clock:
    """A clock that only the timed functions move; the machine may grow slower and slower."""

    def __init__(self, drift: float = 1.0):
        self.now, self.speed, self.drift, self.calls = 0.0, 1.0, drift, []

    def work(self, name: str, seconds: float):
        def function():
            self.calls.append(name)
            self.now += seconds * self.speed
            self.speed *= self.drift

        return function


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock.now)
    return clock


def test_a_timing_holds_every_sample_and_their_median(clock):
    lengths = iter([9.0, 9.0, 1.0, 5.0, 2.0])

    def function():
        clock.now += next(lengths)

    timing = time_of(function, repeats=3, warmup=2)
    assert timing == Timing((1.0, 5.0, 2.0))
    assert timing.median == 2.0
    assert str(Timing((0.00123,))) == "1.23 ms"


def test_contestants_take_turns_and_turns_at_being_first(clock):
    contest({"a": clock.work("a", 1), "b": clock.work("b", 1)}, repeats=6, warmup=1)
    rounds = ["".join(clock.calls[i : i + 2]) for i in range(0, len(clock.calls), 2)]
    assert rounds == ["ba", "ab", "ba", "ab", "ba", "ab", "ba"]


def test_the_ratio_survives_a_machine_that_grows_slower(clock):
    clock.drift = 1.05
    slow_then_fast = time_of(clock.work("b", 1), repeats=20).median / time_of(clock.work("a", 2), repeats=20).median
    assert slow_then_fast < 0.25  # one after the other: half the work seems less than a quarter
    race = contest({"a": clock.work("a", 2), "b": clock.work("b", 1)}, repeats=20)
    ratio = race.ratio("a", "b")
    assert ratio.low <= 2 <= ratio.high
    assert (ratio.low, ratio.high) == pytest.approx((2 / 1.05, 2 * 1.05), rel=1e-9)


def test_a_ratio_is_the_median_of_the_rounds_with_its_interval():
    race = Contest({"a": Timing((2.0, 4.0, 6.0, 3.0, 5.0, 7.0, 8.0)), "b": Timing((1.0,) * 7)})
    assert race.ratio("a", "b") == Estimate(5.0, 2.0, 8.0)
    assert race["b"].median == 1.0
    assert str(race) == "a 5e+03 ms, b 1e+03 ms"


def test_a_contest_finds_a_real_difference():
    race = contest({"long": lambda: time.sleep(0.016), "short": lambda: time.sleep(0.002)}, repeats=9, warmup=1)
    assert race.ratio("long", "short").low > 2
    assert race.ratio("short", "long").high < 0.5


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (3, -1)])
def test_a_timing_needs_a_call(repeats, warmup):
    with pytest.raises(ValueError, match="repeats, warmup: got"):
        time_of(int, repeats=repeats, warmup=warmup)


def test_a_contest_needs_contestants_and_six_rounds():
    with pytest.raises(ValueError, match="repeats ≥ 6"):
        contest({"a": int}, repeats=5)
    with pytest.raises(ValueError, match="contestants: got none"):
        contest({})


def test_ready_waits_for_every_tensor_of_a_nested_result():
    waited = []

    class Array:
        def block_until_ready(self):
            waited.append(self)

    arrays = [Array() for _ in range(4)]
    value = {"a": arrays[0], "b": (arrays[1], [arrays[2], None, 1.5]), "c": {"d": arrays[3]}}
    assert ready(value) is value
    assert waited == arrays


def test_ready_synchronises_the_device_of_a_cuda_tensor_and_none_for_another(monkeypatch):
    Tensor = type("Tensor", (), {"__module__": "torch", "is_cuda": True, "device": "cuda:1"})
    synchronised = []
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(synchronize=synchronised.append))
    monkeypatch.setitem(sys.modules, "torch", torch)
    host = Tensor()
    host.is_cuda = False
    ready([Tensor(), host])
    assert synchronised == ["cuda:1"]


def test_ready_synchronises_tensorflow(monkeypatch):
    Tensor = type("Tensor", (), {"__module__": "tensorflow.python.framework.ops"})
    synchronised = []
    experimental = types.SimpleNamespace(sync_devices=lambda: synchronised.append(1))
    tensorflow = types.SimpleNamespace(test=types.SimpleNamespace(experimental=experimental))
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    ready(Tensor())
    assert synchronised == [1]


# ------------------------------------------------------------------------- memory, in processes of their own

N = 1024  # a matrix of N x N float32 is 4 MiB
SQUARE = 4 * N * N


def chain(jit: bool = False):
    """A builder whose function holds exactly two N x N buffers at once, though it makes eight of them.

    The builder itself held sixteen: a method that does not start anew with the call sees those.
    """
    import keras

    x, w = keras.ops.ones((N, N)), keras.ops.full((N, N), 1 / N)
    keras.ops.sum(keras.ops.ones((16, N, N)))

    def product(x, w):
        for _ in range(8):
            x = keras.ops.matmul(x, w)
        return keras.ops.sum(x)

    backend = keras.config.backend()
    if backend == "jax":
        import jax

        product = jax.jit(product)
    elif backend == "tensorflow":
        import tensorflow as tf

        product = tf.function(product, jit_compile=jit)
    return functools.partial(product, x, w)


def hungry():
    return lambda: np.zeros(2**50)


def killed():
    os.kill(os.getpid(), 9)


def broken():
    raise ZeroDivisionError("no such thing")


def flag_refused():
    """Ends the process as an XLA does that does not know a flag."""
    if "ynn" in os.environ.get("XLA_FLAGS", ""):
        sys.stderr.write("Unknown flag in XLA_FLAGS\n")
        os._exit(1)
    return lambda: np.zeros(SQUARE // 4, "float32").fill(1)


def environment(names: list[str]):
    raise RuntimeError([os.environ.get(name) for name in names])


@pytest.fixture(scope="module")
def peaks():
    """Backend → peak of the chain, compiled where the backend compiles: all at once, a process each."""
    with ThreadPoolExecutor() as pool:
        futures = {
            backend: pool.submit(peak_memory_in_fresh_process, chain, backend=backend, jit=True)
            for backend in INSTALLED
        }
    return {backend: future.result() for backend, future in futures.items()}


METHODS = {
    "tensorflow": ("TensorFlow allocator statistics", "VmHWM in a fresh process"),  # the latter without oneDNN
    "jax": ("VmHWM in a fresh process",),
    "torch": ("torch profiler memory events",),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_chain_of_products_holds_two_matrices_on_every_backend(peaks, backend):
    if backend not in INSTALLED:
        pytest.skip(f"{backend} is not installed")
    # No fewer than two; a library's packed copy of a factor may make three. A method that misses temporaries
    # says 0, one that sums allocations 8, one that includes the inputs 4, one that never resets 16.
    assert 1.9 <= peaks[backend].bytes / SQUARE <= 3.4
    assert peaks[backend].method in METHODS[backend] or device().kind == "gpu"


def test_without_a_backend_a_known_allocation_is_measured_by_the_kernel():
    peak = peak_memory_in_fresh_process("lib.workbench.measure:calibration", mebibytes=100)
    assert 98 < peak.bytes / 2**20 < 102
    assert peak.method == "VmHWM in a fresh process"
    assert peak.baseline > 2**20
    assert str(Peak(3 * 2**19, "", 0)) == "1.5 MiB"


def test_running_out_of_memory_in_the_process_becomes_a_value_here():
    result = attempt(lambda: peak_memory_in_fresh_process(hungry))
    assert isinstance(result, OutOfMemory)
    assert "8.00 PiB" in result.requested


def test_a_process_that_the_kernel_kills_ran_out_of_memory():
    with pytest.raises(MemoryError, match=r"killed.*killed \(signal 9\)"):
        peak_memory_in_fresh_process(killed)


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no such thing"):
        peak_memory_in_fresh_process(broken)


def test_an_xla_that_does_not_know_the_flag_runs_without_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    peak = peak_memory_in_fresh_process(flag_refused, backend="tensorflow")
    assert peak.bytes == pytest.approx(SQUARE, rel=0.1)


def test_the_process_gets_the_backend_and_a_malloc_that_gives_back():
    names = ["KERAS_BACKEND", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "XLA_PYTHON_CLIENT_PREALLOCATE"]
    with pytest.raises(RuntimeError, match=r"\['torch', '1', '0', 'false'\]"):
        peak_memory_in_fresh_process(environment, backend="torch", names=names)


def test_a_builder_that_no_other_process_can_find_is_refused():
    for builder in (lambda: None, "no colon", "__main__:chain"):
        with pytest.raises(ValueError, match="builder: got"):
            peak_memory_in_fresh_process(builder)


def test_the_process_prints_what_it_measured(monkeypatch, capsys):
    monkeypatch.setattr(measure, "_RULERS", {})
    monkeypatch.setattr(measure, "device", lambda: measure.Device("", "cpu", 1, None))
    monkeypatch.setattr(sys, "argv", ["measure", "lib.workbench.measure:calibration", '{"mebibytes": 100}'])
    with pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("lib.workbench.measure", run_name="__main__")
    result = json.loads(capsys.readouterr().out)
    assert result["bytes"] >= 98 * 2**20
    assert result["method"] == "VmHWM in a fresh process"


# ------------------------------------------------------------------ memory and device, on this very backend


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def test_the_device_of_the_backend_is_named(keras):
    here = device()
    assert here.kind == ("gpu" if "GPU" in here.name else "cpu")
    assert str(here) == here.name
    assert 1 <= here.cores <= os.cpu_count()
    assert here.memory_bytes is None or here.memory_bytes > 2**28
    assert versions()["backend"] == keras.config.backend()


def test_peak_memory_here_is_true_or_refused(keras):
    function = chain()
    if keras.config.backend() == "jax":
        with pytest.raises(UnmeasurableError, match=r"jax on a .*peak_memory_in_fresh_process"):
            peak_memory(function)
        return
    try:
        peak = peak_memory(function)
    except UnmeasurableError as error:
        pytest.skip(str(error))  # TensorFlow without oneDNN
    # Where the process holds freed blocks, the allocator may hand out one that is up to twice too large.
    assert 2 <= peak.bytes / SQUARE <= 3.9
    assert peak_memory(lambda a: a, np.ones(10)).bytes == 0


def test_a_function_compiled_by_xla_is_refused_on_tensorflow_on_a_cpu(keras, monkeypatch):
    if keras.config.backend() != "tensorflow" or device().kind == "gpu":
        pytest.skip("about TensorFlow on a CPU")
    monkeypatch.delenv("BOOK_FRESH_PROCESS", raising=False)
    with pytest.raises(UnmeasurableError, match="peak_memory_in_fresh_process"):
        peak_memory(chain(jit=True))
    with pytest.raises(UnmeasurableError, match="peak_memory_in_fresh_process"):
        peak_memory(chain(jit=True).func, *chain(jit=True).args)


def test_tensorflow_that_counts_nothing_is_refused(keras, monkeypatch):
    if keras.config.backend() != "tensorflow":
        pytest.skip("about TensorFlow")
    import tensorflow as tf

    def no_statistics(_):
        raise ValueError("Cannot reset memory stats for device 'CPU:0'")

    monkeypatch.setattr(tf.config.experimental, "reset_memory_stats", no_statistics)
    with pytest.raises(UnmeasurableError, match=r"oneDNN.*peak_memory_in_fresh_process"):
        peak_memory(int)


def test_without_linux_resident_memory_is_refused(monkeypatch):
    monkeypatch.setattr(measure.Path, "exists", lambda _: False)
    with pytest.raises(UnmeasurableError, match="/proc"):
        measure._resident_peak(int)


def test_an_allocation_that_the_backend_refuses_is_out_of_memory(keras):
    def refused():
        if keras.config.backend() == "tensorflow":  # its allocator hopes for ten seconds before it raises this
            import tensorflow as tf

            raise tf.errors.ResourceExhaustedError(
                None, None, "OOM when allocating tensor with shape[8388608,8388608]"
            )
        return keras.ops.ones((2**23, 2**23))

    result = attempt(refused)
    assert isinstance(result, OutOfMemory)
    assert "8388608" in result.requested or str(2**48) in result.requested
    assert float(attempt(lambda: keras.ops.sum(keras.ops.ones((3,))))) == 3.0


def test_ready_takes_tensors_and_variables_of_the_backend(keras):
    for value in (keras.ops.ones((2,)), keras.Variable(np.ones(2))):
        assert ready(value) is value


# ---------------------------------------------------------------------------- GPUs, played by stand-ins


def pretend(monkeypatch, backend: str, tensor, **modules):
    """Keras on a backend that this machine may not have, its new tensors being ``tensor``."""
    ops = types.SimpleNamespace(zeros=lambda _: tensor)
    config = types.SimpleNamespace(backend=lambda: backend)
    monkeypatch.setitem(sys.modules, "keras", types.SimpleNamespace(ops=ops, config=config))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def namespace(**entries):
    return types.SimpleNamespace(**entries)


def test_a_gpu_is_named_by_its_backend(monkeypatch):
    monkeypatch.setattr(measure, "_accelerator_memory", {"H100": 80}.get)
    jax_gpu = namespace(devices=lambda: [namespace(platform="gpu", device_kind="H100")])
    pretend(monkeypatch, "jax", jax_gpu)
    assert (device().name, device().kind, device().memory_bytes) == ("H100 (GPU)", "gpu", 80)

    cuda = namespace(get_device_name=lambda place: {"cuda:1": "H100"}[str(place)])

    class Place(str):
        type = property(lambda self: self.partition(":")[0])

    pretend(monkeypatch, "torch", namespace(device=Place("cuda:1")), torch=namespace(cuda=cuda))
    assert (device().name, device().kind) == ("H100 (GPU)", "gpu")
    pretend(monkeypatch, "torch", namespace(device=Place("mps:0")))
    assert (device().name, device().memory_bytes) == ("MPS (GPU)", None)

    config = namespace(
        list_physical_devices=lambda kind: {"GPU": ["first", "second"]}[kind],
        experimental=namespace(get_device_details=lambda gpu: {"second": {"device_name": "H100"}}[gpu]),
    )
    tensor = namespace(device="/job:localhost/replica:0/task:0/device:GPU:1")
    pretend(monkeypatch, "tensorflow", tensor, tensorflow=namespace(config=config))
    assert (device().name, device().kind) == ("H100 (GPU)", "gpu")


def test_a_backend_on_a_cpu_is_a_cpu(monkeypatch):
    cpu = namespace(type="cpu")
    for backend, tensor in {
        "jax": namespace(devices=lambda: [namespace(platform="cpu")]),
        "torch": namespace(device=cpu),
        "tensorflow": namespace(device="/job:localhost/replica:0/task:0/device:CPU:0"),
        "numpy": None,
    }.items():
        pretend(monkeypatch, backend, tensor, tensorflow=namespace())
        assert device().kind == "cpu"
        assert device().name.endswith("(CPU)")


@pytest.mark.parametrize(
    ("listing", "memory"),
    [
        ("NVIDIA T4, 15360\nH100, 81559\n", 81559 * 2**20),
        ("H100, [N/A]\n", None),
        ("NVIDIA T4, 15360\n", None),
        ("No devices were found\n", None),
    ],
)
def test_the_memory_of_a_gpu_is_what_nvidia_smi_says(tmp_path, monkeypatch, listing, memory):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{listing}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert measure._accelerator_memory("H100") == memory
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert measure._accelerator_memory("H100") is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert measure._accelerator_memory("H100") is None


class Meter:
    """An accelerator's counter of bytes: what is held, and the most that was held since the last reset."""

    def __init__(self, held: int, peak: int):
        self.held, self.peak = held, peak

    def hold(self, size: int):
        self.held += size
        self.peak = max(self.peak, self.held)

    def reset(self, *_):
        self.peak = self.held

    def call(self):
        """Allocates 10, then 20 more, frees all; the first call also makes something that stays."""
        self.hold(10)
        self.hold(20)
        self.hold(-30)


def test_the_peak_on_cuda_under_torch_is_the_maximum_beyond_what_was_held(monkeypatch):
    meter = Meter(held=100, peak=1000)
    cuda = namespace(
        is_available=lambda: True,
        synchronize=lambda *_: None,
        reset_peak_memory_stats=meter.reset,
        memory_allocated=lambda: meter.held,
        max_memory_allocated=lambda: meter.peak,
    )
    pretend(monkeypatch, "torch", namespace(device=namespace(type="mps")), torch=namespace(cuda=cuda))
    assert peak_memory(meter.call) == Peak(30, "torch.cuda.max_memory_allocated", 100)
    cuda.is_available = lambda: False
    with pytest.raises(UnmeasurableError, match="CUDA"):
        peak_memory(meter.call)


def test_the_peak_on_a_gpu_under_tensorflow_is_its_peak_beyond_what_was_held(monkeypatch):
    meter = Meter(held=100, peak=1000)
    asked = []

    def info(place):
        asked.append(place)
        return {"current": meter.held, "peak": meter.peak}

    gpu = namespace(device="/job:localhost/replica:0/task:0/device:GPU:1")
    experimental = namespace(
        reset_memory_stats=meter.reset, get_memory_info=info, get_device_details=lambda gpu: {"device_name": gpu}
    )
    config = namespace(experimental=experimental, list_physical_devices=lambda _: ["H100", "H100"])
    pretend(monkeypatch, "tensorflow", gpu, tensorflow=namespace(config=config, zeros=lambda _: gpu))
    assert peak_memory(meter.call) == Peak(30, "TensorFlow allocator statistics", 100)
    assert set(asked) == {"GPU:1"}


def jax_with(monkeypatch, meter: Meter):
    gpu = namespace(
        platform="gpu",
        device_kind="H100",
        memory_stats=lambda: {"bytes_in_use": meter.held, "peak_bytes_in_use": meter.peak},
    )
    tensor = namespace(devices=lambda: [gpu])
    pretend(monkeypatch, "jax", tensor, jax=namespace(numpy=namespace(zeros=lambda _: tensor)))


def test_the_peak_on_a_gpu_under_jax_is_measured_in_a_fresh_process_only(monkeypatch):
    meter = Meter(held=100, peak=110)
    jax_with(monkeypatch, meter)
    with pytest.raises(UnmeasurableError, match="jax on a gpu"):
        peak_memory(meter.call)
    builders = types.ModuleType("builders")
    builders.build = lambda: meter.call
    monkeypatch.setitem(sys.modules, "builders", builders)
    assert measure._main("builders:build", "{}") == {
        "bytes": 30,
        "method": "JAX peak_bytes_in_use in a fresh process",
        "baseline": 100,
    }


def test_a_builder_that_needed_more_than_the_call_hides_its_peak_from_jax(monkeypatch):
    meter = Meter(held=100, peak=500)
    jax_with(monkeypatch, meter)
    builders = types.ModuleType("builders")
    builders.build = lambda: meter.call
    monkeypatch.setitem(sys.modules, "builders", builders)
    assert "building the inputs took more memory" in measure._main("builders:build", "{}")["unmeasurable"]


def test_what_the_process_cannot_measure_is_refused_here(monkeypatch):
    answer = namespace(returncode=0, stderr="", stdout='noise\n{"unmeasurable": "no way"}\n')
    monkeypatch.setattr(measure.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(UnmeasurableError, match="no way"):
        peak_memory_in_fresh_process(chain)


def test_an_accelerator_without_a_method_is_unmeasurable_in_a_fresh_process_too(monkeypatch):
    pretend(monkeypatch, "torch", namespace(device=namespace(type="mps")))
    monkeypatch.setattr(measure, "_RULERS", {})
    result = measure._main("lib.workbench.measure:calibration", '{"mebibytes": 1}')
    assert "torch on a gpu" in result["unmeasurable"]


# ------------------------------------------------------------------------------------------- out of memory


def error_named(name: str, base: type[Exception], module: str = "builtins") -> type[Exception]:
    return type(name, (base,), {"__module__": module})


XLA = error_named("JaxRuntimeError", RuntimeError, "jax.errors")
TORCH = error_named("OutOfMemoryError", RuntimeError, "torch")
TENSORFLOW = error_named("ResourceExhaustedError", Exception, "tensorflow.python.framework.errors_impl")
INTERNAL = error_named("InternalError", Exception, "tensorflow.python.framework.errors_impl")


@pytest.mark.parametrize(
    ("error", "requested"),
    [
        (MemoryError(), "MemoryError"),
        (MemoryError("Unable to allocate 8 TiB"), "Unable to allocate 8 TiB"),
        (TENSORFLOW("{{function_node a}} OOM when allocating tensor with shape[9]"), "OOM when allocating"),
        (INTERNAL("Failed to allocate 12 bytes"), "Failed to allocate 12 bytes"),
        (TORCH("CUDA out of memory. Tried to allocate 20 GiB."), "Tried to allocate 20 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes"), "4 bytes"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: 4 bytes"), "4 bytes"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "CUBLAS_STATUS_ALLOC_FAILED"),
        (XLA("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes."), "allocating 4 bytes"),
        (XLA("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY"), "CUDA_ERROR_OUT_OF_MEMORY"),
        (
            RuntimeError("Exception when calling Dense.call().\n\nOOM when allocating [2]\n"),
            "OOM when allocating [2]",
        ),
    ],
)
def test_running_out_of_memory_comes_back_as_a_value_that_says_what_was_asked(error, requested):
    def function():
        raise error

    result = attempt(function)
    assert isinstance(result, OutOfMemory)
    assert requested in result.requested
    assert "{{" not in result.requested
    assert "\n" not in result.requested
    assert not result
    assert str(result) == "out of memory"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the text may say out of memory"),
        RuntimeError("shapes differ"),
        XLA("INVALID_ARGUMENT: shapes differ"),
        INTERNAL("shapes differ"),
        KeyboardInterrupt(),
    ],
)
def test_every_other_error_passes_through(error):
    def function():
        raise error

    with pytest.raises(type(error)):
        attempt(function)


def test_after_running_out_nothing_of_the_call_is_held():
    class Large:
        pass

    seen = []

    def function():
        large = Large()
        seen.append(weakref.ref(large))
        raise MemoryError

    result = attempt(function)
    assert seen[0]() is None
    assert not result


# ---------------------------------------------------------------------------------- device, versions, scale


def test_nothing_is_loaded_to_tell_device_versions_and_scale():
    program = (
        "import sys, lib.workbench.measure as m, lib.workbench.records\n"
        "assert m.device().kind == m.scale() == 'cpu' and m.versions()['backend'] is None\n"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])"
    )
    clean = {k: v for k, v in os.environ.items() if k != "BOOK_SCALE"} | {"PYTHONPATH": str(measure.ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_versions_are_those_of_the_packages_whether_loaded_or_not(monkeypatch):
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["scipy"] == scipy.__version__
    assert {name for name in BACKENDS if name in found} == set(INSTALLED)
    monkeypatch.setitem(sys.modules, "jax", namespace(__version__="9.9"))
    assert versions()["jax"] == "9.9"

    def none_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(measure.importlib.metadata, "version", none_installed)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    assert "matplotlib" not in versions()


def test_the_processor_is_named_without_trade_marks(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8581C CPU @ 2.10GHz\nflags : a\n")
    assert measure._processor(info) == "Intel Xeon Platinum 8581C"
    assert measure._processor(tmp_path / "absent")


def test_the_memory_of_a_container_is_its_limit(tmp_path):
    limit = tmp_path / "memory.max"
    machine = measure._main_memory(tmp_path / "absent")
    limit.write_text("max\n")
    assert measure._main_memory(limit) == machine
    limit.write_text("1048576\n")
    assert measure._main_memory(limit) == 2**20


def test_the_scale_is_that_of_the_environment_or_of_the_device(monkeypatch):
    monkeypatch.setattr(measure, "device", lambda: measure.Device("a loom", "gpu", 1, None))
    monkeypatch.delenv("BOOK_SCALE", raising=False)
    assert scale() == "gpu"
    monkeypatch.setenv("BOOK_SCALE", "cpu")
    assert scale() == "cpu"
    monkeypatch.setenv("BOOK_SCALE", "")
    assert scale() == "gpu"
    monkeypatch.setenv("BOOK_SCALE", "tpu")
    with pytest.raises(ValueError, match="BOOK_SCALE is 'tpu'; expected 'cpu' or 'gpu'"):
        scale()


def test_the_repository_is_found_from_the_modules_file():
    assert Path(__file__).resolve().parents[1] == measure.ROOT
