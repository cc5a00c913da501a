"""What pytest does for every test: its order, what it leaves to the next, the site and the backend it asks for."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import search  # noqa: F401  (before any test file it chooses what hypothesis does)
from jupyter_client.connect import LocalPortCache
from shared import longest_first, require, restored, seed_everything, shuffled

from lib.press import notebooks, portability
from lib.press import site as press
from lib.press.browser import chromium, launched, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: What the pages are made from.
SOURCES = (
    *("book", "data/claims", "data/colab", "data/editions", "data/measured", "lib", "_static", "_templates"),
    *("_config.yml", "_toc.yml", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"),
)


# --- order ------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="run the files, and the tests in each, in another order"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("--shuffle")
    return None if seed is None else f"shuffled: --shuffle {seed}"


@pytest.hookimpl(tryfirst=True)  # pytest then puts the tests together that share a fixture
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seed = config.getoption("--shuffle")
    items[:] = longest_first(items) if seed is None else shuffled(items, seed)


def pytest_configure(config: pytest.Config) -> None:
    """Workers take the files in this order, which xdist else changes to one of its own."""
    config.option.loadscopereorder = False
    for variable in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX"):
        os.environ.pop(variable, None)  # which git sets in a hook: what tests do would be done to that repository
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    _take_ports(int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers, workers)


def _take_ports(share: int, shares: int) -> None:
    """Leave to the kernels of other workers their share of the ports.

    A port that was found free is taken by the kernel only half a second later. Jupyter keeps it from the other
    kernels of the same process, and of no other.
    """
    find = LocalPortCache.find_available_port

    def found(cache: LocalPortCache, ip: str) -> int:
        while (port := find(cache, ip)) // 2 % shares != share:  # Linux gives odd ones
            pass
        return port

    LocalPortCache.find_available_port = found


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Imports leave no garbage worth the search, which takes a quarter of their time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


# --- what no test leaves to the next ----------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:  # noqa: ARG001
    """A fixture of a file draws the same numbers whichever test asks for it first."""
    seed_everything()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Every test begins with the same random numbers, and leaves what is global as it was."""
    seed_everything()
    with restored():
        yield


@pytest.fixture(scope="module", autouse=True)
def _older_objects_are_not_searched() -> None:
    """A file's collections of garbage leave alone what was alive when it began.

    A worker holds a million objects in the end, and Keras makes cycles: to search them all takes a second, and a
    training asks for it every few steps.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _programs_are_forgotten() -> Iterator[None]:
    """No file keeps what JAX compiled for it.

    Each program holds a few mappings of memory, and a process may have 65,530 of them: a worker that kept all its
    programs was aborted by LLVM before it had run all its tests.
    """
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


# --- what is needed ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built HTML, built first if it is missing or older than its sources."""
    folder = notebooks.ROOT / press.SITE
    with _alone(notebooks.ROOT / "_build" / "site.lock"):
        stamp = folder.parent / "site.stamp"
        if not stamp.exists() or stamp.stat().st_mtime < max(map(_newest, SOURCES)):
            press.build()
            stamp.touch()
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of a file."""
    require(chromium() is not None, "Chromium is needed, and there is none: apt-get install chromium, or Chrome")
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served, without a slash at the end."""
    with served(site) as address:
        yield address


def _newest(source: str) -> float:
    """When a file, or anything below a folder, was last changed."""
    path = notebooks.ROOT / source
    return max((file.stat().st_mtime for file in [path, *path.rglob("*")] if _matters(file)), default=0.0)


def _matters(file: Path) -> bool:
    return file.exists() and "__pycache__" not in file.parts and ".ipynb_checkpoints" not in file.parts


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep the other workers of a parallel run waiting; the system frees the lock if this one dies."""
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the book, to be stamped."""
    return portability.copy(tmp_path / "checkout")


@pytest.fixture(scope="session")
def keras():
    """Keras on the backend of this run, the one that KERAS_BACKEND names."""
    from importlib import import_module, util

    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    require(util.find_spec(backend) is not None, f"{backend}, the backend of this run, is not installed")
    return import_module("keras")


@pytest.fixture
def eager_models(keras, monkeypatch) -> None:
    """Models run eagerly, unless they are compiled otherwise: tracing one takes longer than a few steps of it."""
    monkeypatch.setattr(keras.Model, "compile", partialmethod(keras.Model.compile, run_eagerly=True))


@pytest.fixture
def pretend(monkeypatch):
    """Plays Keras on a backend or a device that this machine may not have: its new tensors are ``tensor``."""
    from types import SimpleNamespace

    def play(backend, tensor, **modules):
        keras = SimpleNamespace(
            ops=SimpleNamespace(zeros=lambda _: tensor), config=SimpleNamespace(backend=lambda: backend)
        )
        for name, module in {"keras": keras, **modules}.items():
            monkeypatch.setitem(sys.modules, name, module)

    return play


@pytest.fixture(scope="session", autouse=True)
def _quick_to_compile(request: pytest.FixtureRequest) -> None:
    """Leave out what LLVM would optimize of XLA's programs: tests compile far more than they compute.

    What XLA fuses and orders, and so what memory it needs, stays. The processes that a test starts, and the kernels
    of the notebooks, optimize as ever: XLA reads its flags once, when TensorFlow first uses it. A benchmark is no
    test: it measures what a reader runs.
    """
    if request.config.getoption("benchmark_only", default=False):
        return
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "jax" and backend in sys.modules:
        sys.modules[backend].config.update("jax_disable_most_optimizations", True)
    elif backend == "tensorflow" and backend in sys.modules:
        flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip())
            tensorflow = sys.modules[backend]
            tensorflow.function(lambda x: x + 1, autograph=False, jit_compile=True)(tensorflow.zeros(()))
