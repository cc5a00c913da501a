"""Colab: a notebook fetches the book and runs in an empty folder, under the versions that a release ships."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib import KERAS_MINIMUM
from lib.press import address, execute, generated, notebooks
from lib.press import colab as press
from lib.press.pages import OnColab
from lib.workbench import claims, colab

ROOT = notebooks.ROOT


# The setup cell -------------------------------------------------------------------------------------------


def on_colab(folder: Path, code: str, bare: Path | None = None) -> subprocess.CompletedProcess:
    """Run code in an empty directory, in a clean environment with a stand-in for google.colab."""
    (folder / "empty").mkdir(exist_ok=True)
    environment = press.clean(folder, press.NOWHERE, bare)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder / "empty", env=environment, capture_output=True, text=True
    )


@pytest.fixture
def bare(checkout, tmp_path) -> Path:
    """A bare clone of the checkout, which is stamped with an address that only git's redirection makes real."""
    address.stamp(press.NOWHERE, checkout)
    press.publish(checkout, tmp_path / "book.git")
    return tmp_path / "book.git"


def test_every_setup_cell_fetches_the_book_on_colab_and_may_run_twice(checkout, bare, tmp_path):
    setups = {notebooks.read(path).cells[2].source for path in notebooks.every(checkout)}
    assert len(setups) == 1
    setup = setups.pop()
    probe = "\nimport lib, os\nprint(lib.__file__, os.getcwd(), 'colab' in dir())"
    shown = on_colab(tmp_path, setup + probe, bare)
    assert shown.returncode == 0, shown.stderr
    fetched = tmp_path / "empty" / "proof-by-running"
    assert shown.stdout.split() == [str(fetched / "lib" / "__init__.py"), str(fetched / "book"), "True"]
    # What was fetched is stamped as it was published, so nothing is fetched again.
    assert on_colab(tmp_path, setup + probe).stdout == shown.stdout


def test_without_an_address_the_setup_cell_says_what_to_do(tmp_path):
    shown = on_colab(tmp_path, address.SETUP_CELL.format(address=""))
    assert shown.returncode != 0
    assert "`make address URL=…`" in shown.stderr


def test_colab_upgrades_keras_only_where_it_is_too_old(monkeypatch):
    calls = []
    monkeypatch.setattr(colab.subprocess, "run", lambda command, **_: calls.append(command))
    monkeypatch.setattr(colab, "_installed", lambda: KERAS_MINIMUM)
    assert colab.prepare() is False
    assert calls == []
    monkeypatch.setattr(colab, "_installed", lambda: "3.7.9")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    assert colab.prepare() is True
    assert calls[0][-1] == f"keras>={KERAS_MINIMUM}"
    monkeypatch.setitem(sys.modules, "keras", object())
    with pytest.raises(RuntimeError, match="Restart session"):
        colab.prepare()


def test_the_installed_keras_is_known(monkeypatch):
    assert not colab.is_older(colab._installed(), KERAS_MINIMUM)

    def missing(name):
        raise colab.PackageNotFoundError(name)

    monkeypatch.setattr(colab, "version", missing)
    assert colab._installed() == ""


# Whole notebooks ------------------------------------------------------------------------------------------


def test_a_whole_notebook_runs_in_this_environment_as_on_colab(checkout, bare, tmp_path):
    path = notebooks.chapters()[0]
    variables = press.clean(tmp_path, press.NOWHERE, bare)
    record = press.chapter(path, Path(sys.executable), "tensorflow", checkout, variables)
    assert record["differences"] == []
    same, count = record["verdicts"]
    assert same == count == len(json.loads(notebooks.claims(path).read_text(encoding="utf8")))
    assert record["waits"] == []


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of one chapter that draws, claims and stops as the environment says, and its record."""
    root = tmp_path / "book"
    (root / "book").mkdir(parents=True)
    (root / "data" / "claims").mkdir(parents=True)
    declared = '["1.1"]\nstatement = "A."\nat_most = 1\nsource = "book"\n'
    (root / "data" / "claims" / "01-angles.toml").write_text(declared, encoding="utf8")
    (root / "lib").symlink_to(ROOT / "lib")
    sources = [
        "import os, sys\nsys.path.insert(0, os.environ['ROOT'])\nodd = float(os.environ.get('ODD', '0'))",
        "from IPython.display import SVG, display\nfrom lib.workbench import corpora\n"
        "for name in ('duie', 'minilm') if odd == 3 else ():\n"
        "    corpora._checked.add((corpora._cache() / name / 'a', 0, 0, ''))\n"
        "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))",
        "print(odd)",
        "import pathlib\nfrom lib.workbench.claims import Ledger\n"
        f"ledger = Ledger('01-angles', pathlib.Path({str(root / 'data' / 'claims')!r}))",
        "ledger.check('1.1', odd, against=2 if odd < 1 else 0)\nledger.summary()",
        "assert odd < 4",
    ]
    path = root / "book" / "01-angles.ipynb"
    notebooks.write(path, new_notebook(cells=[new_markdown_cell("# Title"), *map(new_code_cell, sources)]))
    monkeypatch.setattr(notebooks, "ROOT", root)
    monkeypatch.setenv("ROOT", str(ROOT))
    file = tmp_path / "claims.json"
    notebook, _ = execute.run(path, file)
    notebooks.write(path, notebook)
    notebooks.claims(path, root).write_text(file.read_text(encoding="utf8"), encoding="utf8")
    monkeypatch.setattr(notebooks.claims, "__defaults__", (root,))
    return path


def test_a_kernel_under_another_python_ends_with_its_notebook(tmp_path):
    path = tmp_path / "one.ipynb"
    source = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nprint(sys.executable)"
    notebooks.write(path, new_notebook(cells=[new_code_cell(source)]))
    manager = press.kernel(Path(sys.executable), tmp_path)
    notebook, _ = execute.run(path, tmp_path / "claims.json", folder=tmp_path, manager=manager)
    assert notebook.cells[0].outputs[0].text == f"{sys.executable}\n"
    assert not manager.has_kernel


def run(path: Path, odd: str, backend: str = "tensorflow") -> dict:
    variables = press.clean(path.parents[2]) | {"ODD": odd, "ROOT": str(ROOT)}
    return press.chapter(path, Path(sys.executable), backend, path.parents[1], variables)


def test_what_comes_otherwise_and_what_a_figure_waits_for_is_recorded(book):
    well = run(book, "0")
    assert well["verdicts"] == [1, 1]
    assert well["differences"] == well["waits"] == []
    assert well["versions"]["python"] == sys.version.split()[0]
    assert run(book, "0.5")["differences"] == ["01-angles, cell 2: stdout: '0.0' was stored, '0.5' came"]
    # Another backend may print other digits, but not give another verdict.
    assert run(book, "0.5", "jax")["differences"] == []
    other = run(book, "2", "jax")
    assert other["verdicts"] == [0, 1]
    assert other["differences"] == ["claim 1.1: holds was stored, refuted came"]
    assert run(book, "3", "jax")["waits"] == ["minilm"]
    stopped = run(book, "4")
    assert stopped["verdicts"] == [0, 1]
    assert "it stops: " in stopped["differences"][0]


def test_the_first_figure_of_a_chapter_is_known():
    for path in notebooks.chapters():
        notebook = notebooks.read(path)
        assert press.first_figure(notebook) < 8
    assert press.first_figure(new_notebook(cells=[new_code_cell("1"), new_code_cell("2")])) == 1


# Releases, environments, records --------------------------------------------------------------------------


def test_releases_are_whole_and_in_order_and_new_enough():
    known = press.releases()
    assert sorted(known) == [*known]
    for release in known.values():
        assert release.name == f"{release.date:%Y-%m}"
        assert not colab.is_older(release.keras, KERAS_MINIMUM)
        assert all("==" in requirement for requirement in release.requirements("jax"))
    assert f"jax=={release.jax}" in release.requirements("jax")
    assert not any(r.startswith(("jax", "torch")) for r in release.requirements("tensorflow"))


def test_unless_something_is_named_every_release_and_every_backend_is_run():
    told = [(release.name, backend) for release, backend in press.usual(press.releases())]
    assert {name for name, _ in told} == {*press.releases()}
    assert {backend for _, backend in told} == {*press.BACKENDS}


RELEASE = press.Release("2026-01", datetime.date(2026, 1, 1), "3.12", "2", "3", "0.7", "2.9", ("numpy==2",))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An environment of the release as if it had been made, whose commands are only written down."""
    commands = []

    def told(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="Python 3.12.9\n")

    monkeypatch.setattr(press, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(press.subprocess, "run", told)
    monkeypatch.setattr(press.shutil, "which", lambda name: name)
    (tmp_path / "2026-01").mkdir()
    return commands


def test_an_environment_is_made_once_and_completed_for_another_backend(made, tmp_path):
    python = tmp_path / "2026-01" / "bin" / "python"
    assert press.environment(RELEASE, "tensorflow") == python
    venv, version, pip = made
    assert venv == ["python3.12", "-m", "venv", str(tmp_path / "2026-01")]
    assert version == [str(python), "--version"]
    assert pip[-3:] == ["tensorflow==2", "keras==3", "numpy==2"]
    made.clear()
    press.environment(RELEASE, "tensorflow")
    assert made == []
    press.environment(RELEASE, "torch", "python-of-mine", ["--index-url", "there"])
    assert made[0][0] == "python-of-mine"
    assert {"--index-url", "torch==2.9"} <= {*made[-1]}


@pytest.mark.usefixtures("made")
def test_another_python_and_none_are_refused(monkeypatch):
    other = press.Release(**{**RELEASE.__dict__, "python": "3.13"})
    with pytest.raises(SystemExit, match=r"has Python 3\.13"):
        press.environment(other, "tensorflow")
    monkeypatch.setattr(press.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match=r"python3\.12 is needed .* COLAB_PYTHON"):
        press.environment(RELEASE, "jax")


def test_a_run_takes_the_place_of_the_last_one_of_its_kind(tmp_path):
    file = tmp_path / "runs.json"
    one = {"release": "2026-01", "backend": "jax", "chapter": "01-angles", "seconds": 1}
    press.keep(one, file)
    press.keep(one | {"chapter": "02-initializers"}, file)
    press.keep(one | {"seconds": 2}, file)
    assert [run["seconds"] for run in press.runs(file)] == [2, 1]


def test_the_recorded_runs_name_releases_chapters_and_no_difference():
    for one in press.runs():
        assert one["release"] in press.releases()
        assert one["backend"] in press.BACKENDS
        assert one["chapter"] in {path.stem for path in notebooks.chapters()}
        assert one["differences"] == one["waits"] == []


def test_the_status_page_says_what_came_out_and_what_is_old(monkeypatch, tmp_path):
    path = notebooks.chapters()[0]
    monkeypatch.setattr(notebooks, "COLAB_RUNS", tmp_path / "runs.json")
    monkeypatch.setattr(notebooks, "chapters", lambda: [path])
    page = object.__new__(OnColab)
    assert page.markdown() == ["No chapter was run as on Colab yet."]
    one = {"chapter": path.stem, "date": "2026-01-31", "verdicts": [7, 7], "differences": []}
    one |= {"versions": {"python": "3.12", "backend": "jax", "torch": None}, "fingerprint": "another"}
    press.keep(one | {"release": "2026-01", "backend": "jax"}, tmp_path / "runs.json")
    mark = {"release": "2026-02", "backend": "tensorflow", "fingerprint": notebooks.fingerprint(path)}
    press.keep(one | mark | {"verdicts": [6, 7], "differences": ["one"]}, tmp_path / "runs.json")
    lines = page.markdown()
    assert lines[0] == "| chapter | 2026-02 | 2026-01, jax |"
    assert lines[2].endswith("| 6 of 7 verdicts, differs | 7 of 7 verdicts, before the last change |")
    assert lines[-1] == "- Colab 2026-01 on jax, last run on 2026-01-31: python 3.12."
    assert notebooks.COLAB_RUNS in page.sources()


def test_the_command_line_runs_what_is_named_and_fails_where_something_differs(monkeypatch, capsys):
    ran, differences = [], []
    path = notebooks.chapters()[0]

    def chapter(path: Path, python: str, backend: str, *_: object) -> dict:
        ran.append((path.stem, python, backend))
        return {"chapter": path.stem, "backend": backend, "verdicts": [7, 7], "differences": differences}

    monkeypatch.setattr(press, "published", lambda folder: ("url", folder, folder))
    monkeypatch.setattr(press, "environment", lambda release, *_: release.name)
    monkeypatch.setattr(press, "chapter", chapter)
    monkeypatch.setattr(press, "keep", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["colab", "--release", "2026-03", "--backend", "jax", "--options=", str(path)])
    press.main()
    assert ran == [("01-angles", "2026-03", "jax")]
    assert "7 of 7 verdicts the same" in capsys.readouterr().out
    differences.append("claim 1.1: holds was stored, refuted came")
    with pytest.raises(SystemExit, match=r"does not come out on Colab"):
        press.main()
    assert "    claim 1.1" in capsys.readouterr().out


def test_a_clean_environment_keeps_nothing_of_this_one_but_the_way_to_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv(claims.RECORD_VARIABLE, "somewhere")
    variables = press.clean(tmp_path, "https://book.invalid/x", tmp_path / "book.git")
    assert not {"KERAS_BACKEND", claims.RECORD_VARIABLE} & {*variables}
    assert variables["HOME"] == str(tmp_path / "home")
    assert (Path(variables["PYTHONPATH"]) / "google" / "colab" / "__init__.py").exists()
    told = subprocess.run(
        ["git", "ls-remote", "--get-url", "https://book.invalid/x"], env=variables, capture_output=True, text=True
    )
    assert told.stdout.strip() == str(tmp_path / "book.git")


def test_generated_pages_read_the_same_record():
    assert generated.load(notebooks.COLAB_RUNS) in (None, press.runs())
