"""The page on the bug in keras.remat: each of its scripts, run by itself, prints what the page says."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "keras-remat.md"
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")

pytestmark = pytest.mark.backends


@dataclass(frozen=True)
class Script:
    """A script of the page, the backends that its first line names, and what the page says that it prints."""

    code: str
    printed: str

    @property
    def backends(self) -> list[str]:
        first, *_ = self.code.splitlines()
        assert first.startswith("# KERAS_BACKEND="), f"a script must begin with its backend, got {first!r}"
        return re.findall("tensorflow|jax|torch", first)

    def run(self) -> str:
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path}
        command = [sys.executable, "-c", self.code]
        process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-2000:]
        return process.stdout


def scripts() -> list[Script]:
    fenced = r"```python\n(.*?)```\s*```text\n(.*?)```"
    return [Script(*both) for both in re.findall(fenced, PAGE.read_text(encoding="utf-8"), re.DOTALL)]


SCRIPTS = scripts()
HERE = [script for script in SCRIPTS if BACKEND in script.backends]


@pytest.mark.parametrize("script", HERE, ids=[f"script {SCRIPTS.index(script) + 1}" for script in HERE])
def test_a_script_prints_what_the_page_says(keras, script):
    if ("keras.remat" in script.code or "RematScope" in script.code) and not hasattr(keras, "remat"):
        pytest.skip(f"keras.remat came with Keras 3.9, this is Keras {keras.__version__}")
    printed = script.run()
    advice = (
        f"Keras {keras.__version__} on {BACKEND} prints something else than {PAGE.relative_to(ROOT)} says. "
        "Perhaps the bug is mended: update the page."
    )
    assert printed == script.printed, advice


def test_every_block_of_the_page_is_one_of_the_scripts():
    page = PAGE.read_text(encoding="utf-8")
    assert len(SCRIPTS) == page.count("```python") == page.count("```text") >= 1


def test_every_backend_has_its_bug_and_the_same_cure():
    *bugs, cure = SCRIPTS
    assert {backend for script in bugs for backend in script.backends} == {"tensorflow", "jax", "torch"}
    assert sorted(cure.backends) == ["jax", "tensorflow", "torch"]
    assert "from lib.recompute import recompute" in cure.code
