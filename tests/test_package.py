"""The library elsewhere: as a wheel, in the README's programs, and as a copied folder of another name."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shared import copy_idea

from lib import KERAS_MINIMUM
from lib.press import notebooks

ROOT = notebooks.ROOT
README = (ROOT / "README.md").read_text(encoding="utf8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources as pip does it."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "lib", sources / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(sources)]
    run = subprocess.run(command, cwd=sources, env=outside(sources), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return sources / run.stdout.split("\n")[-2]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds what is in the wheel, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def outside(path: Path) -> dict[str, str]:
    """The environment of a process that finds packages of this folder, and not the checkout."""
    return {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}


def test_the_wheel_holds_the_ideas_and_nothing_else(installed):
    package = installed / "proof_by_running"
    here = {path.relative_to(ROOT / "lib") for path in (ROOT / "lib").rglob("*.py")}
    ideas = {path for path in here if path.parts[0] not in notebooks.MACHINERY}
    assert {path.relative_to(package) for path in package.rglob("*") if path.is_file()} == ideas


def test_it_pulls_numpy_scipy_and_keras_alone_and_the_oldest_keras_that_is_tested(installed):
    (metadata,) = installed.glob("*.dist-info/METADATA")
    needed = re.findall(r"^Requires-Dist: (\w+)(.*)$", metadata.read_text(encoding="utf8"), re.MULTILINE)
    assert {name for name, condition in needed if "extra" not in condition} == {"keras", "numpy", "scipy"}
    assert {name for name, condition in needed if 'extra == "text"' in condition} == {"safetensors", "tokenizers"}
    assert f"{dict(needed)['keras']}.0" == f">={KERAS_MINIMUM}"


def test_without_the_text_tools_every_idea_loads(installed):
    code = "import importlib, sys\nfor name in ('tokenizers', 'safetensors'): sys.modules[name] = None\n"
    code += (
        f"for idea in {notebooks.ideas()}: print(importlib.import_module(f'proof_by_running.{{idea}}').__file__)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=outside(installed), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert all(line.startswith(str(installed)) for line in run.stdout.split())


def test_there_are_three_programs_of_at_most_25_lines():
    assert len(PROGRAMS) == 3
    assert all(len([line for line in program.split("\n") if line.strip()]) <= 25 for program in PROGRAMS)


@pytest.mark.parametrize("number", range(3))
def test_a_program_of_the_readme_prints_what_its_last_comment_says(installed, tmp_path, number):
    *_, last = PROGRAMS[number].strip().split("\n")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAMS[number]],
        cwd=tmp_path,
        env=outside(installed),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == last.split("  # ")[1]


def test_the_readme_says_which_ideas_an_idea_imports():
    told = {}
    for row in re.findall(r"^\| (`.*`.*) \| (.*) \|$", README, re.MULTILINE):
        names, imports = (set(re.findall(r"`(\w+)`", cell)) for cell in row)
        told |= dict.fromkeys(names, imports)
    assert told == {idea: needed(idea) - {idea} for idea in notebooks.ideas()}


def needed(idea: str) -> set[str]:
    """The ideas that are loaded with one, itself included."""
    files = notebooks.imported_files(f"import lib.{idea}")
    return {path.relative_to(ROOT / "lib").with_suffix("").parts[0] for path in files} & {*notebooks.ideas()}


@pytest.mark.parametrize(
    ("idea", "tests"), [("hmm", ["test_hmm.py"]), ("recompute", ["test_recompute_pure_call.py"])]
)
def test_a_copy_under_another_name_passes_the_tests_of_the_idea(tmp_path, idea, tests):
    folder = tmp_path / "borrowed"
    folder.mkdir()
    for name in needed(idea):
        copy_idea(name, folder)
    for test in tests:
        source = (ROOT / "tests" / test).read_text(encoding="utf8")
        assert "lib." in source or "lib import" in source
        source = re.sub(r"\blib\b(?=\.\w| import)", "borrowed", source)
        ast.parse(source)
        (tmp_path / test).write_text(source, encoding="utf8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = backends\n", encoding="utf8")
    for helper in ("search.py", "numerics.py", "attention_references.py"):
        shutil.copy(ROOT / "tests" / helper, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, cwd=tmp_path, env=outside(tmp_path), capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout
