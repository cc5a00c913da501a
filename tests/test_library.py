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
IDEAS = [path for path in MODULES if path.relative_to(ROOT / "lib").with_suffix("").parts[0] in notebooks.ideas()]
PUBLIC = [path for path in IDEAS if not path.stem.startswith("_")]
every_module_of_an_idea = pytest.mark.parametrize("path", IDEAS, ids=lambda path: f"{path.parent.name}-{path.stem}")
every_public_module = pytest.mark.parametrize("path", PUBLIC, ids=lambda path: f"{path.parent.name}-{path.stem}")


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports anywhere, ``lib.x`` in full."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    names = set(notebooks.imported_names(path.read_text(encoding="utf8"), package))
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


@every_module_of_an_idea
def test_an_idea_can_be_lifted_out(path):
    allowed = {"keras", "numpy", "scipy", *sys.stdlib_module_names}
    if path.stem == "pretrained":
        allowed |= {"safetensors", "ml_dtypes"}
    if path.stem == "vocabulary":
        allowed |= {"tokenizers"}
    for name in imported(path):
        shared = {"_arguments", "_backend", "_layers", "_tensors"}
        is_idea = name.startswith("lib.") and name.split(".")[1] in {*notebooks.ideas(), *shared}
        assert is_idea or name.split(".")[0] in allowed, f"{path.name} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_arrows_run_one_way(path):
    rank = {"press": 3, "experiments": 2, "workbench": 1}
    own = rank.get(path.relative_to(ROOT / "lib").parts[0], 0)
    for name in imported(path):
        if name.startswith("lib."):
            assert rank.get(name.split(".")[1], 0) <= own, f"{path.name} must not import {name}"


@every_module_of_an_idea
def test_ideas_import_each_other_relatively_so_that_a_copy_works_under_any_name(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "lib", f"{path.name}:{node.lineno}"
        elif isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "lib" for alias in node.names), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("idea", notebooks.ideas())
def test_an_idea_of_more_than_one_module_shows_its_names_and_draws_its_files(idea):
    folder = ROOT / "lib" / idea
    if folder.is_dir():
        package = importlib.import_module(f"lib.{idea}")
        for path in {*folder.glob("*.py")} - {folder / "__init__.py"}:
            assert f"\n    {path.stem} " in package.__doc__, f"{idea}: {path.name} is not drawn"
        assert all(hasattr(package, name) for name in package.__all__)


def test_importing_lib_is_cheap():
    code = "import sys, lib; print(sorted(set(sys.modules) & {'numpy', 'keras', 'tensorflow', 'jax', 'torch'}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        *("lib.angles", "lib.workbench.claims", "lib.workbench.figures", "lib.workbench.corpora"),
    ],
)
def test_what_needs_no_backend_loads_none(name):
    code = f"import sys, {name}; print(sorted(set(sys.modules) & {{'keras', 'tensorflow', 'jax', 'torch'}}))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@every_public_module
def test_public_functions_of_an_idea_are_documented_with_an_example(path):
    for node in public(path):
        documentation = ast.get_docstring(node) or ""
        assert documentation, f"{path.name}: {node.name} has no docstring"
        if node in ast.parse(path.read_text(encoding="utf8")).body and not isinstance(node, ast.ClassDef):
            assert ">>>" in documentation, f"{path.name}: {node.name} has no example"


@every_public_module
def test_every_idea_has_test_files_and_every_public_function_is_tested(path):
    idea = path.relative_to(ROOT / "lib").with_suffix("").parts[0]
    files = [*(ROOT / "tests").glob(f"test_{idea}.py"), *(ROOT / "tests").glob(f"test_{idea}_*.py")]
    tests = "".join(file.read_text(encoding="utf8") for file in files)
    functions = [
        node.name
        for node in ast.parse(path.read_text(encoding="utf8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name in functions if name not in tests] == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "bench").glob("bench_*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_from_lib_is_there(path):
    for name in notebooks.imported_names(path.read_text(encoding="utf8")):
        if name.startswith("lib."):
            module, _, attribute = name.rpartition(".")
            loaded = importlib.import_module(module)
            assert hasattr(loaded, attribute) or importlib.import_module(name), f"{path.name}: {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("test_*.py")), ids=lambda path: path.stem)
def test_no_test_is_a_bare_comparison(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        assert not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Compare)), (
            f"{path.name}:{node.lineno}"
        )


def test_a_file_names_what_it_holds_by_the_package():
    keras = importlib.import_module("keras")
    for path in IDEAS:
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    registered = {
        key for key, thing in keras.saving.get_custom_objects().items() if thing.__module__.startswith("lib.")
    }
    assert len(registered) > 30
    assert {key.split(">")[0] for key in registered} == {"proof_by_running"}
