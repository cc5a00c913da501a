"""What several test files share: their order, what no test leaves to the next, what they need, the built site."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import search  # noqa: F401  (before any test file it chooses what hypothesis does)

from lib.press import notebooks
from lib.press import site as press

#: What the pages are made from.
SOURCES = ("book", "data/claims", "data/measured", "lib/press", "_static", "_templates", "_config.yml", "_toc.yml")


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
    """Shuffle the files and the tests of each; the cells of a notebook stay in order, every file stays whole."""
    if (seed := config.getoption("--shuffle")) is None:
        return
    rng = random.Random(seed)
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    rng.shuffle(files)
    for tests in files:
        if tests[0].path.suffix != ".ipynb":
            rng.shuffle(tests)
    items[:] = [test for tests in files for test in tests]


# --- what no test leaves to the next ----------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:  # noqa: ARG001
    """A fixture of a file draws the same numbers whichever test asks for it first."""
    _seed()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Every test begins with the same random numbers, and leaves what is global as it was."""
    _seed()
    with restored():
        yield


@contextmanager
def restored() -> Iterator[None]:
    """Put back the folder, environment, NumPy's errors, types of Keras, TensorFlow's switch, Matplotlib's style.

    What is not loaded is not imported for this. Variables that an import has added stay.
    """
    folder, environment, errors = Path.cwd(), dict(os.environ), np.geterr()
    keras, tensorflow, matplotlib = map(sys.modules.get, ("keras", "tensorflow", "matplotlib"))
    types = (keras.config.floatx(), keras.config.dtype_policy()) if keras else None
    eagerly = tensorflow.config.functions_run_eagerly() if tensorflow else False
    style = dict.copy(matplotlib.rcParams) if matplotlib else None
    yield
    os.chdir(folder)
    os.environ.update(environment)
    np.seterr(**errors)
    if types:
        keras.config.set_floatx(types[0])
        keras.config.set_dtype_policy(types[1])
    if tensorflow and tensorflow.config.functions_run_eagerly() != eagerly:
        tensorflow.config.run_functions_eagerly(eagerly)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    if style is not None:
        dict.update(matplotlib.rcParams, style)
    elif "matplotlib" in sys.modules:
        sys.modules["matplotlib"].rc_file_defaults()


def _seed() -> None:
    """Keras takes the seeds of its layers from Python, backends have generators of their own."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


# --- what is needed ---------------------------------------------------------------------------------------


def require(condition: bool, sentence: str) -> None:
    """Skip the test, saying why, unless the condition holds; in continuous integration fail instead."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)


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


@pytest.fixture(scope="session")
def keras():
    """Keras on the backend of this run, the one that KERAS_BACKEND names."""
    from importlib import import_module, util

    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    require(util.find_spec(backend) is not None, f"{backend}, the backend of this run, is not installed")
    return import_module("keras")


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


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """On JAX less optimization, for tests that compile far more than they compute; elsewhere nothing."""
    if os.environ.get("KERAS_BACKEND") != "jax":
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def lifted_out(chapter: str, modules: tuple[str, ...], folder: Path, preamble: str = "") -> str:
    """What the script of a chapter prints last, in a folder that holds these modules of lib and nothing else."""
    cells = notebooks.read(notebooks.ROOT / "book" / f"{chapter}.ipynb").cells
    script = next(cell.source for cell in cells if "lift-out" in notebooks.tags(cell))
    assert len([line for line in script.split("\n") if line.strip()]) <= 25
    assert "workbench" not in script
    (folder / "script.py").write_text(f"{preamble}\n{script}\n", encoding="utf8")
    (folder / "lib").mkdir()
    for module in modules:
        shutil.copy(notebooks.ROOT / "lib" / f"{module}.py", folder / "lib")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\n")[-2]
