"""Truths about what the test files share: another order, nothing left behind, floats that a backend can hold."""

import ast
import json
import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import keras
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib import pyplot as plt
from search import examples, floats
from shared import longest_first, restored, shuffled

from lib.press import notebooks

ITEMS = [
    SimpleNamespace(path=Path(file), name=f"{file}:{i}")
    for file in ("tests/test_a.py", "tests/test_b.py", "book/c.ipynb", "tests/test_d.py")
    for i in range(20)
]


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffle_keeps_files_whole_and_the_cells_of_a_notebook_in_order(seed):
    items = shuffled(ITEMS, seed)
    assert sorted(item.name for item in items) == sorted(item.name for item in ITEMS)
    files = [str(item.path) for item in items]
    assert sum(a != b for a, b in pairwise(files)) == 3
    cells, tests = ([item for item in some if item.path.suffix == ".ipynb"] for some in (items, ITEMS))
    assert cells == tests
    a, b = ([item for item in some if item.path.stem == "test_a"] for some in (items, ITEMS))
    assert a != b


def test_a_shuffle_repeats_by_its_seed():
    assert shuffled(ITEMS, 1) == shuffled(ITEMS, 1) != shuffled(ITEMS, 2)


def test_the_longest_file_comes_first_and_every_file_whole():
    """Notebooks before tests, the slowest first; tests and cells stay in their order."""
    chapters = notebooks.chapters()
    short = [SimpleNamespace(path=Path("tests/test_short.py"), name=i) for i in range(2)]
    long = [SimpleNamespace(path=Path("tests/test_long.py"), name=i) for i in range(3)]
    cells = [SimpleNamespace(path=path, name=i) for path in chapters for i in range(2)]
    items = longest_first([*short, *long, *cells])
    assert items[-5:] == [*long, *short]
    paths = [item.path for item in items[:-5:2]]
    assert sorted(paths) == sorted(chapters)
    assert [item.name for item in items[:-5]] == [0, 1] * len(chapters)
    records = [(notebooks.measured(path) / "execution.cpu.json").read_text() for path in paths]
    seconds = [json.loads(record)["seconds"] for record in records]
    assert seconds == sorted(seconds, reverse=True)


def test_what_is_global_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_A_VARIABLE", "before")

    def state():
        types = keras.config.floatx(), keras.config.dtype_policy().name
        return Path.cwd(), os.environ["BOOK_A_VARIABLE"], np.geterr(), types, dict(mpl.rcParams), plt.get_fignums()

    plt.close("all")
    before = state()
    with restored():
        os.chdir(tmp_path)
        os.environ["BOOK_A_VARIABLE"] = "after"
        np.seterr(all="raise")
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("mixed_bfloat16")
        mpl.rcParams["axes.titlelocation"] = "left"
        plt.figure()
        assert all(a != b for a, b in zip(before, state(), strict=True))
    assert state() == before


@pytest.mark.hypothesis
@pytest.mark.parametrize("high", [0.9, 1.0])
def test_floats_are_those_of_a_backend(high):
    @examples(300)
    @given(floats(-high, high))
    def hold(x):
        assert -high <= x <= high
        assert np.float32(x) == x
        assert x == 0 or abs(x) >= np.finfo("float32").smallest_normal

    hold()


def test_examples_are_in_proportion_to_those_of_the_profile():
    assert examples(15).max_examples / 15 == settings().max_examples / 100
    assert settings().deadline is None


def test_a_test_that_draws_within_itself_is_marked_for_the_long_search():
    """Hypothesis marks what it decorates; ``make fuzz`` would pass by a test that calls such a function within."""
    passed_by = []
    for file in Path(__file__).parent.glob("test_*.py"):
        body = ast.parse(file.read_text(encoding="utf8")).body
        marks = "".join(ast.unparse(node) for node in body if isinstance(node, ast.Assign))
        for test in (node for node in body if isinstance(node, ast.FunctionDef)):
            within = [node for node in ast.walk(test) if isinstance(node, ast.FunctionDef) and node is not test]
            draws = any("given(" in ast.unparse(one) for node in within for one in node.decorator_list)
            told = [*map(ast.unparse, test.decorator_list), marks]
            if draws and not any("mark.hypothesis" in one for one in told):
                passed_by.append(f"{file.name}::{test.name}")
    assert passed_by == []
