"""Claims: the verdict follows from measurement and band, and a check that cannot fail is refused."""

import html
import json
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.press import compare, notebooks
from lib.workbench import cards, claims, measure
from lib.workbench.claims import Band, Check, Declared, Ledger, above, below, between, within
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


def small(*limits, number=7):
    """Declarations: claim k is true up to its limit; after it, that of what replaces it, and a counterexample."""
    lines = []
    for k, limit in enumerate(limits, 1):
        limit, instead, *wrong = limit if isinstance(limit, tuple) else (limit, None)
        lines += [f'["{number}.{k}"]', 'statement = "A."', f"at_most = {limit}", 'source = "book"', ""]
        if instead is not None:
            lines += [f'["{number}.{k}".replacement]', 'statement = "B."', f"at_most = {instead}"]
            lines += [f"counterexample = {value}" for value in wrong]
    return "\n".join(lines)


@pytest.fixture
def declaring(tmp_path):
    """A ledger of chapter 7 with declared limits."""

    def ledger(*limits):
        (tmp_path / "07-x.toml").write_text(small(*limits), encoding="utf8")
        return Ledger("07-x", tmp_path)

    return ledger


def test_refuted_becomes_corrected_only_if_the_replacement_holds(declaring, capsys):
    ledger = declaring((1, 4), (1, 2, 0), (1, 4), (1, 4))
    ledger.check("7.1", 5, against=0, instead=4)
    ledger.check("7.2", 5, against=0, instead=4)
    ledger.check("7.3", 0, against=7)
    ledger.check("7.4", Estimate(1, 0, 2), against=7)
    ledger.summary()
    assert capsys.readouterr().out.splitlines()[:-1] == [
        "Claim 7.1 corrected: A. Instead: B.",
        "Claim 7.2 refuted: A.",
        "Claim 7.3 holds: A.",
        "Claim 7.4 undecided: A.",
        "4 claims: 1 holds, 1 corrected, 1 refuted, 1 undecided.",
    ]


def test_one_claim_holds_and_two_hold(declaring, capsys):
    ledger = declaring(1, 1)
    for number in ("7.1", "7.2"):
        ledger.check(number, 0, against=2)
    capsys.readouterr()
    ledger.summary()
    assert capsys.readouterr().out == "2 claims: 2 hold.\nNone rests on an interval.\n"


def test_claims_are_checked_in_turn_and_a_rerun_replaces(declaring, capsys):
    ledger = declaring(1, 1)
    with pytest.raises(ValueError, match=r"7\.1 to 7\.1 here, got '7\.2'"):
        ledger.check("7.2", 0, against=2)
    for _ in range(2):
        ledger.check("7.1", 0, against=2)
    assert len(ledger.claims) == 1
    assert capsys.readouterr().out == "Claim 7.1 holds: A.\n" * 2


def test_a_chapter_begins_with_its_number_and_declares_its_claims(tmp_path):
    with pytest.raises(ValueError, match="chapter must begin with its number"):
        Ledger("angles")
    with pytest.raises(FileNotFoundError, match="chapter '01-x' must declare its claims in"):
        Ledger("01-x", tmp_path)


def test_the_summary_hands_over_a_record_only_when_asked(declaring, tmp_path, monkeypatch, capsys):
    ledger = declaring(1, (4, 4.7))
    ledger.check("7.1", Estimate(0.5, 0.4, 0.6), against=2)
    ledger.check("7.2", 5, against=0, instead=4.5)
    file = tmp_path / "claims.json"
    monkeypatch.delenv(claims.RECORD_VARIABLE, raising=False)
    ledger.summary()
    assert not file.exists()
    monkeypatch.setenv(claims.RECORD_VARIABLE, str(file))
    ledger.summary()
    first, second = json.loads(file.read_text(encoding="utf8"))
    assert first == {
        "id": "7.1",
        "statement": "A.",
        "verdict": "holds",
        "value": 0.5,
        "interval": [0.4, 0.6],
        "band": [None, 1],
        "counterexample": 2,
        "tier": "live",
        "device": measure.device().name,
        "unit": "",
        "source": "book",
        "setting": "",
        "evidence": "",
    }
    assert (second["verdict"], second["statement"]) == ("corrected", "A. Instead: B.")
    assert second["replacement"]["verdict"] == "holds"
    assert "2 claims: 1 holds, 1 corrected.\n" in capsys.readouterr().out


def test_a_recorded_claim_names_its_tier_and_device(declaring, capsys):
    class Record:
        scale = "gpu"
        device = measure.device()

    ledger = declaring(1)
    ledger.check("7.1", 0, against=2, record=Record())
    assert (ledger.claims[0].tier, ledger.claims[0].device) == ("recorded on GPU", measure.device().name)
    assert capsys.readouterr().out


# --- declared ----------------------------------------------------------------------------------------------------

DECLARATIONS = """
["1.1"]
statement = "At most half of them are small."
at_most = 0.5
unit = "of all"
source = "article"
setting = "two layers for its twelve"
evidence = "5 seeds"
counterexample = 0.9

["1.2"]
statement = "A square has 5 sides, give or take 0."
within = [5, 0]
source = "book"

["1.2".replacement]
statement = "It has 4."
within = [4, 0]
"""


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "01-x.toml").write_text(DECLARATIONS, encoding="utf8")
    return Ledger("01-x", tmp_path)


def test_a_declared_claim_is_measured_in_one_line(ledger, capsys):
    ledger.check("1.1", Estimate(0.4, 0.3, 0.45))
    ledger.check("1.2", 4, against=5)
    ledger.summary()
    assert capsys.readouterr().out.splitlines() == [
        "Claim 1.1 reproduced here: At most half of them are small.",
        "Claim 1.2 corrected: A square has 5 sides, give or take 0. Instead: It has 4.",
        "2 claims: 1 corrected, 1 reproduced here.",
        "1 rests on a 95 % interval: 1.1. By Holm's correction every verdict stands.",
    ]


def test_the_summary_names_the_verdicts_that_do_not_stand_together(ledger, capsys):
    ledger.check("1.1", Estimate(0.4, 0.3, 0.48))
    ledger.check("1.2", Estimate(4.1, 3.6, 4.2), against=5, instead=Estimate.exact(4))
    ledger.summary()
    assert capsys.readouterr().out.endswith(
        "2 rest on 95 % intervals: 1.1 and 1.2. By Holm's correction every verdict stands.\n"
    )
    # Two at the edge of 5 %: each would do alone, together neither does.
    ledger.check("1.1", Estimate(0.4, 0.3, 0.499))
    ledger.check("1.2", Estimate(4.1, 3.6, 4.99), against=5, instead=Estimate.exact(4))
    ledger.summary()
    assert capsys.readouterr().out.endswith("By Holm's correction 1.1 and 1.2 would be undecided.\n")


def test_a_claim_is_as_sure_as_its_nearest_edge_and_its_replacement(ledger, capsys):
    ledger.check("1.1", 0.4)
    ledger.check("1.2", Estimate(4, 3.6, 4.1), against=5)
    assert ledger.claims[0].p_value is None
    assert ledger.claims[1].verdict == "refuted"
    assert ledger.claims[1].p_value == ledger.claims[1].check.p_value < 1e-6
    two_sided = Check("A.", Estimate(0.0, -1, 1), between(-1.1, 9), 10)
    assert two_sided.p_value == Estimate(0.0, -1, 1).p_value(-1.1) > Estimate(0.0, -1, 1).p_value(9)
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("measured", "verdict"), [(0.4, "reproduced here"), (0.6, "not reproduced here"), (0.5, "reproduced here")]
)
def test_in_another_setting_nobody_is_corrected(ledger, measured, verdict, capsys):
    ledger.check("1.1", measured, against=0.9 if measured <= 0.5 else 0.1)
    assert ledger.claims[0].verdict == verdict
    ledger.check("1.1", Estimate(measured, 0.2, 0.8))
    assert ledger.claims[0].verdict == "undecided"
    assert capsys.readouterr().out


def test_what_is_not_declared_or_not_checked_is_named(ledger, capsys):
    with pytest.raises(ValueError, match=r"number must be one of 1\.1, 1\.2, got '1\.3'"):
        ledger.check("1.3", 0)
    ledger.check("1.1", 0.4)
    with pytest.raises(ValueError, match=r"against must be given: claim 1\.2"):
        ledger.check("1.2", 4)
    with pytest.raises(ValueError, match=r"declared and not checked: 1\.2"):
        ledger.summary()
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"statement": "A.", "at_most": 1, "at_least": 0}, "must name one of at_most"),
        ({"statement": "A."}, "must name one of at_most"),
        ({"statement": " ", "at_most": 1}, "must have a statement"),
        ({"statement": "A.", "at_most": 1}, "must name its source"),
        ({"statement": "A.", "at_most": 1, "source": "book", "colour": "red"}, "keys that mean nothing: colour"),
    ],
)
def test_a_declaration_that_is_not_whole_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        Declared.from_table("1.1", table)


def test_declarations_are_numbered_without_gaps(tmp_path):
    (tmp_path / "01-x.toml").write_text('["1.2"]\nstatement = "A."\nat_most = 1\n', encoding="utf8")
    with pytest.raises(ValueError, match=r"must be numbered 1\.1"):
        Ledger("01-x", tmp_path)


# --- a statement names its threshold -----------------------------------------------------------------------------

WORDS = {"no": 0, "none": 0, "any": 0, "never": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
WORDS |= {"half": 0.5, "third": 1 / 3, "quarter": 0.25, "fifth": 0.2, "tenth": 0.1, "twice": 2, "double": 2}
WORDS |= {"equal": 0, "more": 0, "less": 0, "fewer": 0, "closer": 0, "better": 0, "farther": 0}


def numbers_in(statement):
    """Every number that a sentence names: digits, per cent, powers of ten, fractions, words."""
    text = statement.replace("−", "-").replace(",", "")
    superscript = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    found = {float(one) for one in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)}
    found |= {float(one) / 100 for one in re.findall(r"(-?\d+(?:\.\d+)?) ?%", text)}
    found |= {float(a) / float(b) for a, b in re.findall(r"(\d+(?:\.\d+)?)/(\d+)", text)}
    for mantissa, power in re.findall(r"(?:(\d+(?:\.\d+)?) ?[·×] ?)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text):
        found.add(float(mantissa or 1) * 10.0 ** int(power.translate(superscript)))
    return found | {WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in WORDS}


def thresholds(band):
    """What a statement must name of a band: its finite edges, or centre and half width."""
    edges = [edge for edge in (band.low, band.high) if math.isfinite(edge)]
    if len(edges) == 2:
        return [edges, [sum(edges) / 2, (edges[1] - edges[0]) / 2]]
    return [edges]


def names_its_threshold(claim):
    named = numbers_in(claim.statement)
    return any(
        all(any(math.isclose(edge, one, rel_tol=1e-9, abs_tol=1e-12) for one in named) for edge in edges)
        for edges in thresholds(claim.band)
    )


def declarations():
    found = [claim for path in notebooks.chapters() for claim in claims.declared(path.stem).values()]
    return found + [claim.replacement for claim in found if claim.replacement]


@pytest.mark.parametrize("claim", declarations(), ids=lambda claim: claim.id)
def test_a_statement_names_its_threshold_and_its_source(claim):
    assert names_its_threshold(claim), f"{claim.id}: {claim.statement!r} does not name {claim.band}"
    assert claim.statement.endswith(".")


def test_the_test_of_thresholds_can_fail():
    for statement, band in [
        ("It is small.", below(0.1)),
        ("At most 0.2.", below(0.1)),
        ("At least 1.", within(1, 0.5)),
    ]:
        assert not names_its_threshold(Declared("1.1", statement, band))
    for statement, band in [
        ("At most a tenth.", below(0.1)),
        ("Over 1,000.", above(1000)),
        ("1 to 1 %.", within(1, 0.01)),
    ]:
        assert names_its_threshold(Declared("1.1", statement, band))


# --- cards -------------------------------------------------------------------------------------------------------


def test_a_card_says_verdict_statement_value_source_and_device(capsys, ledger):
    ledger.check("1.1", Estimate(0.4, 0.3, 0.45))
    shown = ledger.claims[0]._repr_html_()
    for part in (
        'class="claim reproduced-here" id="claim-1-1"',
        '<b class="verdict">reproduced here</b>',
        "At most half of them are small.",
        "<b>0.40 [0.30, 0.45]</b> of all",
        "the article, in another setting: two layers for its twelve",
        'aria-label="measured 0.40, interval 0.30 to 0.45; true up to 0.5"',
    ):
        assert part in shown, part
    assert capsys.readouterr().out


def test_a_corrected_card_says_each_of_its_two_statements_with_its_value(capsys, ledger):
    ledger.check("1.1", 0.4)
    ledger.check("1.2", Estimate(4.5, 4.2, 4.8), against=5, instead=4)
    shown = cards.card(ledger.claims[1].as_record(), told=("What was said:", "What is true:"))
    said, true = "What was said:</b> A square has 5 sides, give or take 0.</p>", "What is true:</b> It has 4.</p>"
    places = [shown.index(part) for part in (said, "<b>4.5 [4.2, 4.8]</b>", true, "<b>4</b>", "this book")]
    assert places == sorted(places)
    assert shown.count("<svg") == 2
    assert "Instead" not in shown
    assert capsys.readouterr().out


def test_a_card_without_styles_and_drawings_reads_as_sentences(capsys, ledger):
    """What is left where a viewer, such as GitHub's, strips all but text."""
    ledger.check("1.1", Estimate(0.4, 0.3, 0.45))
    shown = html.unescape(re.sub(r"<[^>]+>", "", ledger.claims[0]._repr_html_().replace("</p>", "\n")))
    assert shown.splitlines() == [
        "reproduced here Claim 1.1",
        "At most half of them are small.",
        "The statement is true up to 0.5. On the axis: 0 0.1 0.2 0.3 0.4 0.5. Measured: 0.40 [0.30, 0.45] of all",
        f"5 seeds · the article, in another setting: two layers for its twelve · live: {measure.device().name}",
    ]
    assert capsys.readouterr().out


def test_a_card_escapes_what_it_shows(tmp_path, capsys):
    (tmp_path / "07-x.toml").write_text(small(1).replace("A.", "0 < 1 & 2."), encoding="utf8")
    ledger = Ledger("07-x", tmp_path)
    ledger.check("7.1", 0, against=2)
    assert "0 &lt; 1 &amp; 2." in ledger.claims[0]._repr_html_()
    assert capsys.readouterr().out


def test_two_cards_with_other_digits_are_the_same_and_with_another_verdict_are_not(ledger, capsys):
    shown = []
    for value in (Estimate(0.4, 0.3, 0.45), Estimate(0.41, 0.3, 0.46), Estimate(0.4, 0.3, 0.6)):
        ledger.check("1.1", value)
        shown.append(ledger.claims[0]._repr_html_())
    assert [*compare.html_differences(shown[0], shown[1])] == []
    assert [*compare.html_differences(shown[0], shown[2])] != []
    assert capsys.readouterr().out


@given(st.floats(-1e9, 1e9), st.floats(0, 1e6), st.floats(-1e9, 1e9))
def test_a_strip_is_drawn_to_scale(value, half, edge):
    check = {"value": value, "interval": [value - half, value + half], "band": [None, edge]}
    drawn = ElementTree.fromstring(cards.strip(check))
    tag = "{http://www.w3.org/2000/svg}" if drawn.tag.startswith("{") else ""
    band, (_, interval), point = drawn.find(f"{tag}rect"), drawn.findall(f"{tag}line"), drawn.find(f"{tag}circle")
    ends = [float(interval.get(name)) for name in ("x1", "x2")]
    right = float(band.get("x")) + float(band.get("width"))
    assert ends[0] - 0.1 <= float(point.get("cx")) <= ends[1] + 0.1
    if abs(value + half - edge) > 0.02 * (abs(value) + half + abs(edge)):
        assert (value + half < edge) == (ends[1] < right)
    ticks = drawn.findall(f"{tag}text")
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize("band", [[0, None], [None, 0]])
@pytest.mark.parametrize("interval", [[-0.06, -0.0007], [0.0007, 0.06], [0, 0], [-1, 1]])
def test_a_band_that_is_open_from_zero_on_is_seen(band, interval):
    drawn = cards.strip({"value": sum(interval) / 2, "interval": interval, "band": band})
    assert float(re.search(r'<rect[^>]* width="([\d.]+)"', drawn)[1]) > 20
