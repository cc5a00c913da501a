"""Other machines: each has its turn, and what would come out differently on one of them is found and told."""

import datetime
import os
import platform
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.press import execute, notebooks, portability
from lib.press.portability import Difference, Machine

ROOT = notebooks.ROOT


def test_every_machine_has_its_turn():
    first = datetime.date(2026, 2, 26)
    days = [first + datetime.timedelta(days=k) for k in range(len(portability.MACHINES))]
    assert {portability.of_today(day=day).name for day in days} == {m.name for m in portability.MACHINES}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="plays older x86 processors")
def test_the_older_processors_are_what_they_say():
    """NumPy warns of a feature that it does not know, OpenBLAS says which kernels it chose."""
    code = (
        "import warnings; warnings.simplefilter('error'); import numpy, threadpoolctl;"
        "from numpy._core._multiarray_umath import __cpu_features__ as has;"
        "print(has['X86_V4'], has['X86_V3'], threadpoolctl.threadpool_info()[0]['architecture'])"
    )
    told = {}
    for machine in portability.MACHINES[:2]:
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **machine.environment}, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        told[machine.name] = run.stdout.split()
    assert told["AVX2"][::2] == ["False", "Haswell"]
    assert told["SSE4"] == ["False", "False", "Nehalem"]


@pytest.fixture
def book(tmp_path):
    """A repository with one executed chapter, which prints, claims and stops as the environment says."""
    sources = [
        "import os, sys\nsys.path.insert(0, '..')\nodd = float(os.environ.get('ODD', '0'))",
        "print(odd)",
        "import pathlib\nfrom lib.workbench.claims import Ledger\n"
        "ledger = Ledger('01-angles', pathlib.Path('../data/claims'))",
        "ledger.check('1.1', odd, against=2 if odd < 1 else 0)\nledger.summary()",
        "assert odd < 3",
    ]
    (tmp_path / "book").mkdir()
    (tmp_path / "lib").symlink_to(ROOT / "lib")
    cells = [new_markdown_cell("# Title"), *(new_code_cell(source) for source in sources)]
    declared = tmp_path / "data" / "claims" / "01-angles.toml"
    declared.parent.mkdir(parents=True)
    declared.write_text('["1.1"]\nstatement = "A."\nat_most = 1\nsource = "book"\n', encoding="utf8")
    path = tmp_path / "book" / "01-angles.ipynb"
    notebooks.write(path, new_notebook(cells=cells))
    assert execute.execute(path, tmp_path) == "stored"
    return path


def test_a_cell_a_verdict_and_a_stop_are_found(book, tmp_path):
    def differences(value: str) -> list[Difference]:
        machine = Machine("odd", {"ODD": value})
        return portability.notebook_differences(book, machine, tmp_path, tmp_path / "kept")

    assert differences("0") == []
    assert (tmp_path / "kept" / "01-angles.json").exists()
    printed = Difference("01-angles, cell 1", ["stdout: '0.0' was stored, '2.0' came"])
    shown, verdict = differences("2")[1:]
    assert differences("2")[0] == printed
    assert shown.place == "01-angles, cell 3"
    assert verdict == Difference("claim 1.1", ["holds was stored, refuted came"])
    (stop,) = differences("3")
    assert stop.place == "01-angles"
    assert "AssertionError" in stop.sentences[0]


def test_where_digits_may_differ_verdicts_may_not(book, tmp_path):
    machine = Machine("odd", {"ODD": "2"}, cells=False)
    found = portability.notebook_differences(book, machine, tmp_path)
    assert found == [Difference("claim 1.1", ["holds was stored, refuted came"])]


def test_a_kernel_and_a_test_compile_as_on_a_gpu(tmp_path):
    """Both load what makes Keras choose XLA, before the first line of their own; without it Keras does not."""
    code = (
        "import keras; model = keras.Sequential([keras.layers.Dense(1)]); model.compile(); print(model.jit_compile)"
    )
    path = tmp_path / "chapter.ipynb"
    notebooks.write(path, new_notebook(cells=[new_code_cell(code)]))
    xla = next(machine for machine in portability.MACHINES if machine.name == "XLA")
    environment = {**xla.environment, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    for variables, shown in (
        (environment, "True\n"),
        ({"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}, "False\n"),
    ):
        assert execute.run(path, tmp_path / "claims", variables)[0].cells[0].outputs[0].text == shown
    test = tmp_path / "test_it.py"
    test.write_text(f"def test_it(capsys):\n    {code}\n    assert capsys.readouterr().out == 'True\\n'\n")
    command = [sys.executable, "-m", "pytest", "-q", str(test)]
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stdout


def test_a_copy_leaves_out_what_was_built_or_fetched(tmp_path):
    root = tmp_path / "root"
    for name in ("lib/__pycache__", "data/cache", "_build", ".venv", ".git", "book"):
        (root / name).mkdir(parents=True)
    (root / ".gitignore").write_text("_build/\n.venv/\n__pycache__/\ndata/cache/\n")
    folder = portability.copy(tmp_path / "a folder with spaces", root)
    assert {path.name for path in folder.iterdir()} == {".gitignore", "lib", "data", "book"}
    assert not (folder / "lib" / "__pycache__").exists()
    assert not (folder / "data" / "cache").exists()


def test_a_copy_finds_what_the_book_has_fetched(tmp_path, monkeypatch):
    """What is fetched is fetched once, not twice."""
    cache = tmp_path / "book" / "data" / "cache"
    cache.parent.mkdir(parents=True)
    (tmp_path / "copy" / "data").mkdir(parents=True)
    monkeypatch.setattr(portability.notebooks, "ROOT", tmp_path / "book")
    folder = portability._fetched(tmp_path / "copy")
    (cache / "archive").touch()
    assert (folder / "data" / "cache" / "archive").exists()


def test_the_command_line_tells_what_differs_and_fails(monkeypatch, capsys):
    found = {"01-angles": [], "tests": []}
    monkeypatch.setattr(portability, "differences", lambda *_, **__: dict(found))
    monkeypatch.setattr(sys, "argv", ["portability", "--only", "SSE4"])
    portability.main()
    assert "the same on every machine" in capsys.readouterr().out
    found["01-angles"] = [Difference("01-angles, cell 3", ["a figure"])]
    with pytest.raises(SystemExit, match="does not hold"):
        portability.main()
    out = capsys.readouterr().out
    assert "SSE4 · 01-angles, cell 3: a figure" in out
    assert out.split("\n")[-2].split() == ["SSE4", "1", "0"]
