"""Claims: the verdict follows from measurement and band, and a check that cannot fail is refused."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.workbench import claims, measure
from lib.workbench.claims import Band, Check, Ledger, above, below, between, within
from lib.workbench.measure import Estimate

numbers = st.floats(-1e6, 1e6)


@given(numbers, st.floats(0, 10), numbers, st.floats(0, 10))
def test_verdict_is_where_the_interval_lies(low, width, start, length):
    band, measured = Band(low, low + width), Estimate(start, start, start + length)
    inside = band.low <= measured.low and measured.high <= band.high
    apart = measured.high < band.low or band.high < measured.low
    assert band.verdict(measured) == ("holds" if inside else "refuted" if apart else "undecided")


@pytest.mark.parametrize(
    ("band", "inside", "outside"),
    [(below(1), 1, 1.1), (above(1), 1, 0.9), (between(1, 2), 2, 2.1), (within(5, 1), 4, 3.9)],
)
def test_bands_include_their_edges(band, inside, outside):
    assert band.verdict(Estimate.exact(inside)) == "holds"
    assert band.verdict(Estimate.exact(outside)) == "refuted"


@pytest.mark.parametrize("edges", [(2, 1), (-math.inf, math.inf), (math.nan, 1)])
def test_a_band_without_meaning_is_refused(edges):
    with pytest.raises(ValueError, match="band"):
        Band(*edges)


def test_bands_say_what_they_are():
    assert [str(band) for band in (below(2), above(1), between(1, 2))] == ["at most 2", "at least 1", "1 to 2"]


def test_not_a_number_has_no_verdict():
    class Broken:
        value, low, high = 1.0, math.nan, 1.0

    with pytest.raises(ValueError, match="measured"):
        below(1).verdict(Broken())


@pytest.mark.parametrize("counterexample", [0.5, 1.0])
def test_a_counterexample_with_the_same_verdict_is_refused(counterexample):
    with pytest.raises(ValueError, match="cannot fail"):
        Check("It is small.", 0.1, below(1), counterexample)


def test_a_statement_must_say_something():
    with pytest.raises(ValueError, match="statement"):
        Check(" ", 0.1, below(1), 2)


def test_refuted_becomes_corrected_only_if_the_replacement_holds(capsys):
    ledger = Ledger("07-x")
    good, bad = Check("B.", 1, below(2), 3), Check("B.", 3, below(2), 1)
    ledger.claim("7.1", "A.", 5, below(1), counterexample=0, replacement=good)
    ledger.claim("7.2", "A.", 5, below(1), counterexample=0, replacement=bad)
    ledger.claim("7.3", "A.", 0, below(1), counterexample=5, replacement=good)
    ledger.claim("7.4", "A.", Estimate(1, 0, 2), below(1), counterexample=5, replacement=good)
    ledger.summary()
    assert capsys.readouterr().out.splitlines() == [
        "Claim 7.1 corrected: A. Instead: B.",
        "Claim 7.2 refuted: A.",
        "Claim 7.3 holds: A.",
        "Claim 7.4 undecided: A.",
        "4 claims: 1 holds, 1 corrected, 1 refuted, 1 undecided.",
    ]


def test_numbers_run_without_gaps_and_a_rerun_replaces(capsys):
    ledger = Ledger("01-x")
    with pytest.raises(ValueError, match=r"1\.1 to 1\.1 here, got '1\.2'"):
        ledger.claim("1.2", "A.", 0, below(1), counterexample=2)
    with pytest.raises(ValueError, match=r"got '2\.1'"):
        ledger.claim("2.1", "A.", 0, below(1), counterexample=2)
    for _ in range(2):
        ledger.claim("1.1", "A.", 0, below(1), counterexample=2)
    assert len(ledger.claims) == 1
    assert capsys.readouterr().out == "Claim 1.1 holds: A.\n" * 2


def test_a_chapter_begins_with_its_number():
    with pytest.raises(ValueError, match="chapter"):
        Ledger("angles")


def test_the_table_hands_over_a_record_only_when_asked(tmp_path, monkeypatch):
    ledger = Ledger("01-x")
    ledger.claim("1.1", "A.", Estimate(0.5, 0.4, 0.6), below(1), counterexample=2)
    ledger.claim("1.2", "B.", 5, above(9), counterexample=9, replacement=Check("C.", 1, within(1, 0), 2))
    file = tmp_path / "claims.json"
    monkeypatch.delenv(claims.RECORD_VARIABLE, raising=False)
    ledger.table()
    assert not file.exists()
    monkeypatch.setenv(claims.RECORD_VARIABLE, str(file))
    table = ledger.table()
    first, second = json.loads(file.read_text(encoding="utf8"))
    assert first == {
        "id": "1.1",
        "statement": "A.",
        "verdict": "holds",
        "value": 0.5,
        "interval": [0.4, 0.6],
        "band": [None, 1],
        "counterexample": 2,
        "tier": "live",
        "device": measure.device().name,
    }
    assert (second["verdict"], second["statement"]) == ("corrected", "B. Instead: C.")
    assert second["replacement"]["verdict"] == "holds"
    assert ">at least 9 → 1 to 1</td>" in table._repr_html_()
    assert '><b class="verdict corrected">corrected</b></td>' in table._repr_html_()
    assert repr(table).startswith("1.1 | A. | holds | 0.50 [0.40, 0.60] | at most 1 | live")


def test_every_cell_of_the_table_is_aligned_to_the_left(capsys):
    # JupyterLab aligns the cells of a table to the right, whatever the table itself says.
    ledger = Ledger("01-x")
    ledger.claim("1.1", "A.", 0, below(1), counterexample=2)
    cells = re.findall(r"<t[hd]\b[^>]*>", ledger.table()._repr_html_())
    assert len(cells) == 2 * len(claims.Table.HEADER)
    assert all('style="text-align:left"' in cell for cell in cells)
    assert capsys.readouterr().out


def test_a_claim_shows_itself_with_a_badge_and_escaped(capsys):
    ledger = Ledger("01-x")
    ledger.claim("1.1", "0 < 1.", 0, below(1), counterexample=2)
    shown = ledger.claims[0]._repr_html_()
    assert shown == '<p class="claim">Claim 1.1 <b class="verdict holds">holds</b> 0 &lt; 1.</p>'
    assert capsys.readouterr().out == "Claim 1.1 holds: 0 < 1.\n"


def test_a_recorded_claim_names_its_tier_and_device(capsys):
    class Record:
        scale = "gpu"
        device = measure.device()

    ledger = Ledger("01-x")
    ledger.claim("1.1", "A.", 0, below(1), counterexample=2, record=Record())
    assert (ledger.claims[0].tier, ledger.claims[0].device) == ("recorded on GPU", measure.device().name)
    assert capsys.readouterr().out
