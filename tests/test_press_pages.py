"""Pages made from records: what a directive writes is what the record says."""

import json

import pytest

from lib.press import notebooks, pages
from lib.press.pages import ClaimCount, Claims, Executions

CLAIM = {
    "id": "1.1",
    "statement": "|cos| is small * always.",
    "verdict": "holds",
    "value": 0.5,
    "interval": [0.4, 0.6],
    "band": [None, 1],
    "counterexample": 2,
    "tier": "live",
    "device": "an abacus",
}


def markdown(directive) -> str:
    return "\n".join(directive.markdown(object.__new__(directive)))


@pytest.fixture
def records(tmp_path, monkeypatch):
    """One chapter with one claim and one execution, in a folder of the test's own."""
    chapter = notebooks.chapters()[0]
    monkeypatch.setattr(notebooks, "chapters", lambda: [chapter])
    monkeypatch.setattr(notebooks, "claims", lambda path: tmp_path / f"{path.stem}.json")
    monkeypatch.setattr(notebooks, "measured", lambda _: tmp_path / "measured")
    (tmp_path / f"{chapter.stem}.json").write_text(json.dumps([CLAIM, CLAIM | {"id": "1.2", "verdict": "refuted"}]))
    (tmp_path / "measured").mkdir()
    execution = {"seconds": 12.4, "peak_memory_bytes": 2**30, "device": "an abacus", "date": "2026-01-31"}
    versions = {"versions": {"python": "3.11", "torch": None}}
    (tmp_path / "measured" / "execution.cpu.json").write_text(json.dumps(execution | versions))
    return tmp_path


@pytest.mark.usefixtures("records")
def test_claims_are_counted_by_verdict():
    text = markdown(ClaimCount)
    assert text.startswith(
        "**2 claims checked so far:** 1 [holds]{.verdict .holds}, 1 [refuted]{.verdict .refuted}."
    )


@pytest.mark.usefixtures("records")
def test_every_claim_has_its_row_and_no_character_breaks_the_table():
    text = markdown(Claims)
    assert (
        r"| 1.1 | \|cos\| is small \* always. | [holds]{.verdict .holds} | 0.50 [0.40, 0.60] | at most 1 |" in text
    )
    assert "live: an abacus |" in text
    assert "(01-angles.ipynb)" in text


@pytest.mark.usefixtures("records")
def test_executions_show_time_memory_device_and_versions():
    text = markdown(Executions)
    assert "| 12 s | 1.0 GiB | an abacus | 2026-01-31 |" in text
    assert text.endswith("The stored outputs were made with python 3.11.")


def test_a_chapter_without_claims_has_no_table(records):
    for file in records.glob("*.json"):
        file.unlink()
    assert markdown(Claims) == ""
    assert markdown(ClaimCount).startswith("**0 claims")


def test_a_title_is_the_first_heading():
    assert pages._title(notebooks.chapters()[0]) == "Random vectors are nearly orthogonal"
