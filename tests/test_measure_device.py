"""Truths about the device, the versions and the scale."""

import importlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy

from lib.workbench.measure import ROOT, Device, device, scale, versions

BACKENDS = ("tensorflow", "jax", "torch")
INSTALLED = [name for name in BACKENDS if importlib.util.find_spec(name)]

# The module behind the function of the same name, for its private parts.
home = importlib.import_module("lib.workbench.measure.device")


def test_nothing_is_loaded_to_tell_device_versions_and_scale():
    program = (
        "import sys, lib.workbench.measure as m, lib.workbench.records\n"
        "assert m.device().kind == m.scale() == 'cpu' and m.versions()['backend'] is None\n"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])"
    )
    clean = {k: v for k, v in os.environ.items() if k != "BOOK_SCALE"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_versions_are_those_of_the_packages_whether_loaded_or_not(monkeypatch):
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert found["scipy"] == scipy.__version__
    assert {name for name in BACKENDS if name in found} == set(INSTALLED)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(__version__="9.9"))
    assert versions()["jax"] == "9.9"

    def none_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(home.importlib.metadata, "version", none_installed)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    assert "matplotlib" not in versions()


def test_the_scale_is_that_of_the_environment_or_of_the_device(monkeypatch):
    monkeypatch.setattr(home, "device", lambda: Device("a loom", "gpu", 1, None))
    monkeypatch.delenv("BOOK_SCALE", raising=False)
    assert scale() == "gpu"
    monkeypatch.setenv("BOOK_SCALE", "cpu")
    assert scale() == "cpu"
    monkeypatch.setenv("BOOK_SCALE", "")
    assert scale() == "gpu"
    monkeypatch.setenv("BOOK_SCALE", "tpu")
    with pytest.raises(ValueError, match="BOOK_SCALE is 'tpu'; expected 'cpu' or 'gpu'"):
        scale()


def test_the_processor_is_named_without_trade_marks(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8581C CPU @ 2.10GHz\nflags : a\n")
    assert home._processor(info) == "Intel Xeon Platinum 8581C"
    assert home._processor(tmp_path / "absent")


def test_the_memory_of_a_container_is_its_limit(tmp_path):
    limit = tmp_path / "memory.max"
    machine = home._main_memory(tmp_path / "absent")
    limit.write_text("max\n")
    assert home._main_memory(limit) == machine
    limit.write_text("1048576\n")
    assert home._main_memory(limit) == 2**20


@pytest.mark.backends
def test_the_device_of_the_backend_is_named(keras):
    here = device()
    assert here.kind == ("gpu" if "GPU" in here.name else "cpu")
    assert str(here) == here.name
    assert 1 <= here.cores <= os.cpu_count()
    assert here.memory_bytes is None or here.memory_bytes > 2**28
    assert versions()["backend"] == keras.config.backend()


def test_a_gpu_is_named_by_its_backend(monkeypatch, pretend):
    monkeypatch.setattr(home, "_accelerator_memory", {"H100": 80}.get)
    jax_gpu = SimpleNamespace(devices=lambda: [SimpleNamespace(platform="gpu", device_kind="H100")])
    pretend("jax", jax_gpu)
    assert (device().name, device().kind, device().memory_bytes) == ("H100 (GPU)", "gpu", 80)

    cuda = SimpleNamespace(get_device_name=lambda place: {"cuda:1": "H100"}[str(place)])

    class Place(str):
        type = property(lambda self: self.partition(":")[0])

    pretend("torch", SimpleNamespace(device=Place("cuda:1")), torch=SimpleNamespace(cuda=cuda))
    assert (device().name, device().kind) == ("H100 (GPU)", "gpu")
    pretend("torch", SimpleNamespace(device=Place("mps:0")))
    assert (device().name, device().memory_bytes) == ("MPS (GPU)", None)

    config = SimpleNamespace(
        list_physical_devices=lambda kind: {"GPU": ["first", "second"]}[kind],
        experimental=SimpleNamespace(get_device_details=lambda gpu: {"second": {"device_name": "H100"}}[gpu]),
    )
    tensor = SimpleNamespace(device="/job:localhost/replica:0/task:0/device:GPU:1")
    pretend("tensorflow", tensor, tensorflow=SimpleNamespace(config=config))
    assert (device().name, device().kind) == ("H100 (GPU)", "gpu")


def test_a_backend_on_a_cpu_is_a_cpu(pretend):
    cpu = SimpleNamespace(type="cpu")
    for backend, tensor in {
        "jax": SimpleNamespace(devices=lambda: [SimpleNamespace(platform="cpu")]),
        "torch": SimpleNamespace(device=cpu),
        "tensorflow": SimpleNamespace(device="/job:localhost/replica:0/task:0/device:CPU:0"),
        "numpy": None,
    }.items():
        pretend(backend, tensor, tensorflow=SimpleNamespace())
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
    assert home._accelerator_memory("H100") == memory
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert home._accelerator_memory("H100") is None
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert home._accelerator_memory("H100") is None
