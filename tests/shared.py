"""What several test files share, apart from ``conftest``, of which there are two: in tests and in book."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.press import notebooks


def shuffled(items: Sequence[pytest.Item], seed: int) -> list[pytest.Item]:
    """The files, and the tests of each, in another order: every file whole, the cells of a notebook in theirs."""
    rng = random.Random(seed)
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    rng.shuffle(files)
    for tests in files:
        if tests[0].path.suffix != ".ipynb":
            rng.shuffle(tests)
    return [test for tests in files for test in tests]


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The files in the order in which parallel workers take them, so that none ends alone with a long one.

    First the notebooks, by the seconds that they took when they were last executed, then the files by their tests.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    ordered = sorted(files, key=lambda path: (-_seconds(path), -len(files[path])))
    return [test for path in ordered for test in files[path]]


def _seconds(path: Path) -> float:
    """How long a notebook took; 0 for what is none, or was never executed."""
    record = notebooks.measured(path) / "execution.cpu.json"
    if path.suffix != ".ipynb" or not record.exists():
        return 0.0
    return json.loads(record.read_text(encoding="utf8"))["seconds"]


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


def seed_everything() -> None:
    """Keras takes the seeds of its layers from Python, backends have generators of their own."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "tensorflow" in sys.modules:
        sys.modules["tensorflow"].random.set_seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def require(condition: bool, sentence: str) -> None:
    """Skip the test, saying why, unless the condition holds; in continuous integration fail instead."""
    if not condition:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)


def copy_idea(idea: str, folder: Path) -> None:
    """Copy a file or a folder of lib."""
    source = notebooks.ROOT / "lib" / idea
    if source.is_dir():
        shutil.copytree(source, folder / idea, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source.with_suffix(".py"), folder)
    for helper in (notebooks.ROOT / "lib").glob("_[a-z]*.py"):
        shutil.copy(helper, folder)


def lifted_out(chapter: str, ideas: tuple[str, ...], folder: Path, preamble: str = "") -> str:
    """What the script of a chapter prints last, in a folder that holds these ideas and nothing else of lib."""
    cells = notebooks.read(notebooks.ROOT / "book" / f"{chapter}.ipynb").cells
    script = next(cell.source for cell in cells if "lift-out" in notebooks.tags(cell))
    assert len([line for line in script.split("\n") if line.strip()]) <= 25
    assert "workbench" not in script
    (folder / "script.py").write_text(f"{preamble}\n{script}\n", encoding="utf8")
    (folder / "lib").mkdir()
    for idea in ideas:
        copy_idea(idea, folder / "lib")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split("\n")[-2]


def assert_accepts_its_solution_alone(sheet: Any, number: str, wrong: Sequence[Any], capsys: Any) -> None:
    """The exercise of a sheet has a solution that prints, and rejects wrong answers and what is no answer."""
    assert sheet.solution(number).printed
    for answer in [*wrong, None, "x"]:
        sheet.check(number, answer)
        assert "not yet" in capsys.readouterr().out
