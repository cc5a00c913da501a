"""The page on the bug in keras.remat: each of its scripts, run by itself, prints what the page says."""

import pytest
from page_scripts import BACKEND, ROOT, scripts

PAGE = ROOT / "book" / "keras-remat.md"

pytestmark = pytest.mark.backends


SCRIPTS = scripts(PAGE)
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
