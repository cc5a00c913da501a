"""What several test files share: skipping with a reason, and the built site."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lib.press import notebooks
from lib.press import site as press

#: What the pages are made from.
SOURCES = ("book", "data/claims", "data/measured", "lib/press", "_static", "_templates", "_config.yml", "_toc.yml")


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
