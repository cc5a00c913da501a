"""The house: its rooms import each other one way only, and every example in a docstring is true."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from lib.press import notebooks

ROOT = notebooks.ROOT
MODULES = sorted(path for path in (ROOT / "lib").rglob("*.py") if path.name != "__init__.py")
NAMES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES]
IDEAS = [path for path in MODULES if path.parent == ROOT / "lib"]


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports anywhere, ``lib.x`` in full."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name.startswith("lib") else name.split(".")[0] for name in names}


def public(path: Path) -> list[ast.AST]:
    """Public functions, classes and methods of a module."""
    found = []

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                found.append(node)
                if isinstance(node, ast.ClassDef):
                    visit(node.body)

    visit(ast.parse(path.read_text(encoding="utf8")).body)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_example_in_a_docstring_is_true(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("path", IDEAS, ids=lambda path: path.stem)
def test_an_idea_can_be_lifted_out(path):
    allowed = {"keras", "numpy", "scipy", *sys.stdlib_module_names}
    if path.stem == "pretrained":
        allowed |= {"tokenizers", "safetensors"}
    ideas = {idea.stem for idea in IDEAS}
    for name in imported(path):
        is_idea = name.startswith("lib") and name.split(".")[1] in ideas
        assert is_idea or name.split(".")[0] in allowed, f"{path.name} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_arrows_run_one_way(path):
    rank = {"press": 3, "experiments": 2, "workbench": 1}
    own = rank.get(path.relative_to(ROOT / "lib").parts[0], 0)
    for name in imported(path):
        if name.startswith("lib."):
            assert rank.get(name.split(".")[1], 0) <= own, f"{path.name} must not import {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "lib").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_absolute(path):
    # Those of a package too: so the tests here and the fingerprint of a notebook can follow them.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path.name}:{node.lineno}"


def test_importing_lib_is_cheap():
    code = "import sys, lib; print(sorted(set(sys.modules) & {'numpy', 'keras', 'tensorflow', 'jax', 'torch'}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        *("lib.alignment", "lib.angles", "lib.pretrained", "lib.spans"),
        *("lib.workbench.claims", "lib.workbench.figures", "lib.workbench.corpora"),
    ],
)
def test_what_needs_no_backend_loads_none(name):
    code = f"import sys, {name}; print(sorted(set(sys.modules) & {{'keras', 'tensorflow', 'jax', 'torch'}}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("path", IDEAS, ids=lambda path: path.stem)
def test_public_functions_of_an_idea_are_documented_with_an_example(path):
    for node in public(path):
        documentation = ast.get_docstring(node) or ""
        assert documentation, f"{path.name}: {node.name} has no docstring"
        if node in ast.parse(path.read_text(encoding="utf8")).body and not isinstance(node, ast.ClassDef):
            assert ">>>" in documentation, f"{path.name}: {node.name} has no example"


@pytest.mark.parametrize("path", IDEAS, ids=lambda path: path.stem)
def test_every_idea_has_its_test_file_and_every_public_function_is_tested(path):
    tests = (ROOT / "tests" / f"test_{path.stem}.py").read_text(encoding="utf8")
    functions = [
        node.name
        for node in ast.parse(path.read_text(encoding="utf8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name in functions if name not in tests] == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem)
def test_no_test_is_a_bare_comparison(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        assert not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare)), (
            f"{path.name}:{node.lineno}"
        )
