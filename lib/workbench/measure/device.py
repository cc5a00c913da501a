"""On what a number was measured: the device, the versions, the scale.

Nothing here loads Keras or a backend: before a notebook does, the device is the CPU.
"""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCALES = ("cpu", "gpu")


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


def loaded_backend() -> str | None:
    """Name of the Keras backend, None while Keras is not loaded.

    Example:
        >>> loaded_backend() in (None, "tensorflow", "jax", "torch")
        True
    """
    keras = sys.modules.get("keras")
    return keras.config.backend() if keras else None


def versions() -> dict[str, str | None]:
    """The versions a result depends on.

    Returns:
        Name to version for python, keras, numpy, scipy, matplotlib, tensorflow, jax and torch, as far as they
        are installed, and under "backend" the name of the Keras backend (None while Keras is not loaded).

    Example:
        >>> versions()["python"] == platform.python_version()
        True
    """
    found: dict[str, str | None] = {"python": platform.python_version(), "backend": loaded_backend()}
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


def _accelerator() -> str | None:
    """Name of the accelerator on which Keras places a new tensor; None for a CPU."""
    backend = loaded_backend()
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
