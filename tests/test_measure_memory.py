"""Truths about peak memory: in a fresh process, in this very process, and on GPUs that stand-ins play."""

import json
import runpy
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from memory_builders import SQUARE, broken, chain, environment, flag_refused, hungry, killed

from lib.workbench.measure import (
    ROOT,
    Device,
    OutOfMemory,
    Peak,
    UnmeasurableError,
    attempt,
    device,
    memory,
    peak_memory,
    peak_memory_in_fresh_process,
)

METHODS = {
    "tensorflow": ("TensorFlow allocator statistics", "VmHWM in a fresh process"),  # the latter without oneDNN
    "jax": ("VmHWM in a fresh process",),
    "torch": ("torch profiler memory events",),
}


@pytest.mark.backends
def test_a_chain_of_products_holds_two_matrices_in_a_fresh_process(keras):
    backend = keras.config.backend()
    peak = peak_memory_in_fresh_process(chain, backend=backend, jit=True)  # compiled where the backend compiles
    # No fewer than two; a library's packed copy of a factor may make three. A method that misses temporaries
    # says 0, one that sums allocations 8, one that includes the inputs 4, one that never resets 16.
    assert 1.9 <= peak.bytes / SQUARE <= 3.4
    assert peak.method in METHODS[backend] or device().kind == "gpu"


def test_without_a_backend_a_known_allocation_is_measured_by_the_kernel():
    peak = peak_memory_in_fresh_process("lib.workbench.measure.memory:calibration", mebibytes=100)
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
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no such thing") as caught:
        peak_memory_in_fresh_process(broken)
    assert "RuntimeWarning" not in str(caught.value)  # of a module that is run and imported


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
    monkeypatch.setattr(memory, "_RULERS", {})
    monkeypatch.setattr(memory, "device", lambda: Device("", "cpu", 1, None))
    monkeypatch.setattr(sys, "argv", ["memory", "lib.workbench.measure.memory:calibration", '{"mebibytes": 100}'])
    with pytest.warns(RuntimeWarning, match="found in sys.modules"):
        runpy.run_module("lib.workbench.measure.memory", run_name="__main__")
    result = json.loads(capsys.readouterr().out)
    assert result["bytes"] >= 98 * 2**20
    assert result["method"] == "VmHWM in a fresh process"


def test_the_repository_is_found_from_the_modules_file():
    assert Path(__file__).resolve().parents[1] == ROOT


# --------------------------------------------------------------------------------------- in this very process


@pytest.mark.backends
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
    compiled = chain(jit=True)
    for call in ([compiled], [compiled.func, *compiled.args]):
        with pytest.raises(UnmeasurableError, match="peak_memory_in_fresh_process"):
            peak_memory(*call)


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
    monkeypatch.setattr(memory.Path, "exists", lambda _: False)
    with pytest.raises(UnmeasurableError, match="/proc"):
        memory._resident_peak(int)


# ---------------------------------------------------------------------------------- GPUs, played by stand-ins


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


def test_the_peak_on_cuda_under_torch_is_the_maximum_beyond_what_was_held(pretend):
    meter = Meter(held=100, peak=1000)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        synchronize=lambda *_: None,
        reset_peak_memory_stats=meter.reset,
        memory_allocated=lambda: meter.held,
        max_memory_allocated=lambda: meter.peak,
    )
    pretend("torch", SimpleNamespace(device=SimpleNamespace(type="mps")), torch=SimpleNamespace(cuda=cuda))
    assert peak_memory(meter.call) == Peak(30, "torch.cuda.max_memory_allocated", 100)
    cuda.is_available = lambda: False
    with pytest.raises(UnmeasurableError, match="CUDA"):
        peak_memory(meter.call)


def test_the_peak_on_a_gpu_under_tensorflow_is_its_peak_beyond_what_was_held(pretend):
    meter = Meter(held=100, peak=1000)
    asked = []

    def info(place):
        asked.append(place)
        return {"current": meter.held, "peak": meter.peak}

    gpu = SimpleNamespace(device="/job:localhost/replica:0/task:0/device:GPU:1")
    experimental = SimpleNamespace(
        reset_memory_stats=meter.reset, get_memory_info=info, get_device_details=lambda gpu: {"device_name": gpu}
    )
    config = SimpleNamespace(experimental=experimental, list_physical_devices=lambda _: ["H100", "H100"])
    pretend("tensorflow", gpu, tensorflow=SimpleNamespace(config=config, zeros=lambda _: gpu))
    assert peak_memory(meter.call) == Peak(30, "TensorFlow allocator statistics", 100)
    assert set(asked) == {"GPU:1"}


def jax_with(pretend, meter: Meter):
    gpu = SimpleNamespace(
        platform="gpu",
        device_kind="H100",
        memory_stats=lambda: {"bytes_in_use": meter.held, "peak_bytes_in_use": meter.peak},
    )
    tensor = SimpleNamespace(devices=lambda: [gpu])
    pretend("jax", tensor, jax=SimpleNamespace(numpy=SimpleNamespace(zeros=lambda _: tensor)))


def test_the_peak_on_a_gpu_under_jax_is_measured_in_a_fresh_process_only(monkeypatch, pretend):
    meter = Meter(held=100, peak=110)
    jax_with(pretend, meter)
    with pytest.raises(UnmeasurableError, match="jax on a gpu"):
        peak_memory(meter.call)
    builders = types.ModuleType("builders")
    builders.build = lambda: meter.call
    monkeypatch.setitem(sys.modules, "builders", builders)
    assert memory._main("builders:build", "{}") == {
        "bytes": 30,
        "method": "JAX peak_bytes_in_use in a fresh process",
        "baseline": 100,
    }


def test_a_builder_that_needed_more_than_the_call_hides_its_peak_from_jax(monkeypatch, pretend):
    meter = Meter(held=100, peak=500)
    jax_with(pretend, meter)
    builders = types.ModuleType("builders")
    builders.build = lambda: meter.call
    monkeypatch.setitem(sys.modules, "builders", builders)
    assert "building the inputs took more memory" in memory._main("builders:build", "{}")["unmeasurable"]


def test_what_the_process_cannot_measure_is_refused_here(monkeypatch):
    answer = SimpleNamespace(returncode=0, stderr="", stdout='noise\n{"unmeasurable": "no way"}\n')
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(UnmeasurableError, match="no way"):
        peak_memory_in_fresh_process(chain)


def test_an_accelerator_without_a_method_is_unmeasurable_in_a_fresh_process_too(monkeypatch, pretend):
    pretend("torch", SimpleNamespace(device=SimpleNamespace(type="mps")))
    monkeypatch.setattr(memory, "_RULERS", {})
    result = memory._main("lib.workbench.measure.memory:calibration", '{"mebibytes": 1}')
    assert "torch on a gpu" in result["unmeasurable"]


def test_what_is_given_back_late_is_waited_for(monkeypatch):
    sizes, naps = [9, 9, 7, 7, 4] + 1000 * [4], []
    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: sum(naps), sleep=naps.append))
    assert memory._settled(lambda: sizes.pop(0), still=0.1) == 4
    assert len(sizes) > 900  # it did not wait for ever
