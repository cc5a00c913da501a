"""Pages made from records: what a directive writes is what the record says."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.press import corrections, generated, notebooks, pages, tables, tested
from lib.press.corrections import Corrections
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
    assert text.startswith("**2 claims checked:** 1 [holds]{.verdict .holds}, 1 [refuted]{.verdict .refuted}.")


@pytest.mark.usefixtures("records")
def test_every_claim_has_its_card_which_leads_to_its_cell_and_can_be_chosen():
    text = markdown(Claims)
    assert '<p class="statement">|cos| is small * always.</p>' in text
    assert "<b>0.50 [0.40, 0.60]</b>" in text
    assert "live: an abacus" in text
    assert 'href="01-angles.html#claim-1-1"' in text
    assert "## [1. Random vectors are nearly orthogonal](01-angles.ipynb)" in text
    assert 'value="all" checked> all (2)</label>' in text
    assert 'value="refuted"> refuted (1)</label>' in text


@pytest.mark.usefixtures("records")
def test_executions_show_time_memory_device_and_versions():
    text = markdown(Executions)
    assert "| 12 s | 1.0 GiB | an abacus | 2026-01-31 |" in text
    assert text.endswith("The stored outputs were made with python 3.11.")


def test_a_chapter_without_claims_has_no_heading(records):
    for file in records.glob("*.json"):
        file.unlink()
    assert "01-angles" not in markdown(Claims)
    assert markdown(ClaimCount).startswith("**0 claims")


def test_a_title_is_the_first_heading():
    assert generated.title(notebooks.chapters()[0]) == "Random vectors are nearly orthogonal"


# --- corrections -----------------------------------------------------------------------------------------


def declared(records, *claims):
    chapter = notebooks.chapters()[0]
    found = [CLAIM | {"id": f"1.{k + 1}", "source": "article"} | claim for k, claim in enumerate(claims)]
    (records / f"{chapter.stem}.json").write_text(json.dumps(found))
    return markdown(Corrections)


REPLACEMENT = {"statement": "It is big.", "verdict": "holds", "value": 5, "interval": [4, 6], "band": [3, None]}


def test_what_an_article_got_wrong_is_said_with_what_is_true_and_where_it_is_shown(records):
    wrong = {"verdict": "corrected", "statement": "It is small. Instead: It is big.", "replacement": REPLACEMENT}
    text = declared(records, wrong, {"statement": "It is round."}, {"source": "book", "statement": "It is ours."})
    assert text.startswith("**2 statements of 1 article:** 1 wrong, 1 right.")
    wrong, right = text.split("## What they got right")
    assert "What was said:</b> It is small.</p>" in wrong
    assert "What is true:</b> It is big.</p>" in wrong
    assert 'href="01-angles.html#claim-1-1"' in wrong
    assert "[the article](https://kexue.fm/archives/7076)" in wrong
    assert "It is round." in right
    assert "It is ours." not in text
    assert "not decided" not in text


def test_what_is_refuted_without_a_replacement_is_answered_by_what_was_measured(records):
    text = declared(records, {"verdict": "refuted", "value": 3, "interval": [2, 4]})
    told = "It is not so: measured 3.0, interval 2.0 to 4.0. The statement would be true up to 1."
    assert f"What is true:</b> {told}</p>" in text


def test_in_another_setting_nobody_is_wrong(records):
    text = declared(
        records, {"verdict": "not reproduced here", "setting": "two layers", "value": 3, "interval": [2, 4]}
    )
    assert text.startswith("**1 statement of 1 article:** 0 wrong, 0 right, 1 found otherwise in another setting.")
    assert "## What they got wrong\n\nNothing." in text
    assert "What holds here:</b> It is not so" in text


def test_a_chapter_that_checks_no_statement_of_its_article_is_named(records):
    text = declared(records, {"source": "book"})
    assert text.startswith(
        "**0 statements of 0 articles:** 0 wrong, 0 right. No claim of chapter 1 is a statement of"
    )


def test_the_page_of_corrections_is_reached_from_the_front_and_from_the_claims():
    book = notebooks.ROOT / "book"
    assert all("(corrections.md)" in (book / page).read_text(encoding="utf8") for page in ("index.md", "claims.md"))


def test_a_generated_page_depends_on_what_makes_it_and_on_the_records():
    noted = []
    env = SimpleNamespace(note_dependency=noted.append, docname="book/claims")
    directive = object.__new__(Claims)
    directive.content_offset = 0
    directive.state = SimpleNamespace(
        document=SimpleNamespace(settings=SimpleNamespace(env=env)), nested_parse=lambda *_: None
    )
    directive.run()
    names = {Path(file).name for file in noted}
    assert names >= {"pages.py", "generated.py", "cards.py", "01-angles.ipynb", "01-angles.json"}


def test_every_chapter_names_its_article():
    found = [corrections.article(path) for path in notebooks.chapters()]
    assert len({*found}) == len(found) == 9


# --- tests, tables ---------------------------------------------------------------------------------------


def test_the_page_of_tests_holds_the_source_of_every_test_that_a_chapter_names():
    text = markdown(tested.SourcesOfTests)
    named = [test for path in notebooks.chapters() for test in tested.named(path)]
    assert len(named) > 40
    heads = {test.name: test.of for test in named}
    assert heads["test_the_angle_has_the_density_and_both_tails_of_the_article"] == "Proposition 1.1"
    prose = "test_dimension_for_is_the_first_that_meets_the_union_bound"  # said after Proposition 1.5, not of it
    assert heads[prose] == "Room for exponentially many directions"
    for test in named:
        assert f"]{{#{test.anchor}}}" in text
        assert f"\ndef {test.name}(" in text
    anchors = re.findall(r"\{#([\w-]+)\}", text)
    assert len(anchors) == len({*anchors})


def test_with_an_address_the_page_of_tests_leads_to_the_line_of_the_file(monkeypatch):
    chapter = notebooks.chapters()[0]
    monkeypatch.setattr(notebooks, "chapters", lambda: [chapter])
    monkeypatch.setattr(tested.address, "address", lambda: "https://github.com/a/b")
    test = tested.named(chapter)[0]
    _, line = test.source()
    assert f"[`{test.file}::{test.name}`](https://github.com/a/b/blob/main/{test.file}#L{line})" in markdown(
        tested.SourcesOfTests
    )
    lines = (notebooks.ROOT / test.file).read_text(encoding="utf8").split("\n")
    assert lines[line - 1].startswith(("def ", "@"))


def test_a_named_test_becomes_a_mark_that_leads_to_its_source():
    name = "tests/test_a.py::test_all_is_well"
    code = f'<code class="docutils literal notranslate"><span class="pre">{name}</span></code>'
    shown = tested.marked(f"<p>Proof. Test: {code}.</p>")
    assert shown == (
        '<p>Proof. <a class="tested" href="tests.html#test-a-test-all-is-well" title="tested: all is well" '
        'aria-label="tested: all is well" data-test="tests/test_a.py::test_all_is_well">tested</a></p>'
    )
    assert tested.marked(f"<p>See {code}.</p>") == f"<p>See {code}.</p>"


def test_the_source_of_a_test_has_its_decorators_and_its_line(tmp_path):
    (tmp_path / "test_a.py").write_text(
        "import x\n\n\n@x.mark\ndef test_b():\n    assert 1\n\n\ndef other():\n    pass\n"
    )
    source = tested.NamedTest("test_a.py", "test_b").source(tmp_path)
    assert source == ("@x.mark\ndef test_b():\n    assert 1", 4)
    with pytest.raises(ValueError, match="has no test test_c"):
        tested.NamedTest("test_a.py", "test_c").source(tmp_path)


HEAD = "<thead><tr><th>n</th><th><p>what &amp; why</p></th></tr></thead>"


def test_every_cell_of_a_table_knows_its_column():
    body = "<tbody><tr><td>3</td><td><p>odd</p></td></tr><tr><td><p></p></td><td>even</td></tr></tbody>"
    shown = tables.labelled(f'<table class="table">{HEAD}{body}</table>')
    assert re.findall(r'<td role="cell"(?: data-label="([^"]*)")?>', shown) == [
        "n",
        "what &amp; why",
        "",
        "what &amp; why",
    ]
    assert shown.startswith('<table data-rows="" role="table" class="table"><thead role="rowgroup"><tr role="row">')
    assert shown.count('role="columnheader"') == 2


@pytest.mark.parametrize(
    "table",
    [
        "<table><tbody><tr><th>a</th><td>1</td></tr></tbody></table>",
        f"<table>{HEAD}<tbody><tr><td colspan='2'>3</td></tr></tbody></table>",
        f"<table>{HEAD.replace('</tr>', '</tr><tr><th>m</th></tr>')}<tbody></tbody></table>",
    ],
)
def test_a_table_that_is_no_list_of_rows_stays_as_it_is(table):
    assert tables.labelled(table) == table


def test_the_badge_of_a_notebook_is_a_link_on_the_page():
    image = '<img alt="Open in Colab" src="https://colab.example/badge.svg" />'
    assert (
        pages._COLAB_BADGE.sub("Open in Colab", f'<a href="there">{image}</a>')
        == '<a href="there">Open in Colab</a>'
    )
