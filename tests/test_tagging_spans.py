"""Truths about ``lib.tagging.spans``; seqeval is the independent judge of what labels spell and of the scores."""

import time
import warnings
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

from lib.tagging import (
    SEGMENT_ALPHABET,
    LegalMoves,
    Score,
    Span,
    alphabet_of,
    disjoint,
    illegal_moves,
    labels_of,
    legal_moves,
    score,
    score_tags,
    segment_labels,
    spans_of,
    spans_of_tags,
    spans_of_words,
)

BIO = alphabet_of(["PER", "LOC"])
IOBES_ALPHABET = ("O", *(f"{position}-{kind}" for kind in ("PER", "LOC") for position in "BIES"))
BMES = tuple(label.replace("I-", "M-") for label in IOBES_ALPHABET)
BILUO = tuple(label.replace("E-", "L-").replace("S-", "U-") for label in IOBES_ALPHABET)
IO = ("O", "I-PER", "I-LOC")
CLOSED = {"BIOES": "BIES", "BMES": "BMES", "BILUO": "BILU"}  # first, inside, last, single
ALPHABETS = {
    **{"segments": SEGMENT_ALPHABET, "bio": BIO, "io": IO},
    **{"iobes": IOBES_ALPHABET, "bmes": BMES, "biluo": BILUO},
}
every_alphabet = pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)


def sentences(alphabet):
    """Label sequences, most of them illegal."""
    return st.lists(st.sampled_from(alphabet), max_size=12)


def batches(alphabet):
    """Some sentences, and as many labels for each by another tagger."""
    pair = st.lists(st.tuples(st.sampled_from(alphabet), st.sampled_from(alphabet)), max_size=12)
    return st.lists(pair, min_size=1, max_size=4).map(
        lambda batch: tuple([[labels[i] for labels in pairs] for pairs in batch] for i in (0, 1))
    )


def as_tags(batch, alphabet):
    """Integers, padded with −1, one column more than needed."""
    tags = np.full((len(batch), max(map(len, batch)) + 1), -1)
    for row, labels in zip(tags, batch, strict=True):
        row[: len(labels)] = [alphabet.index(label) for label in labels]
    return tags


def as_seqeval(labels):
    """The same labels as seqeval's default mode knows them: I for M, E for L, S for U, and upper case."""
    position = {"M": "I", "L": "E", "U": "S"}
    return [position.get(label[0].upper(), label[0].upper()) + label[1:] for label in labels]


def seqeval_spans(labels):
    """As seqeval reads them; it counts the last character in and calls no kind "_"."""
    found = get_entities(as_seqeval(labels))
    return [(start, last + 1, kind.replace("_", "")) for kind, start, last in found]


def partitions(length):
    """All ways of cutting a sentence into words."""
    for cuts in product([False, True], repeat=max(length - 1, 0)):
        edges = [0, *(t for t, cut in enumerate(cuts, 1) if cut), length]
        yield list(pairwise(edges)) if length else []


def annotations(length, kinds=("PER", "LOC")):
    """All sets of disjoint spans: each piece of a partition is a span of a kind or, if of one character, none."""
    for pieces in partitions(length):
        choices = [(*kinds, None) if end - start == 1 else kinds for start, end in pieces]
        for chosen in product(*choices):
            yield [Span(*piece, kind) for piece, kind in zip(pieces, chosen, strict=True) if kind]


def closed_labels(spans, length, scheme):
    """What BIOES, BILUO and BMES spell, written down apart from the module."""
    B, I, E, S = CLOSED[scheme]
    labels = ["O"] * length
    for start, end, kind in spans:
        for t in range(start, end):
            first, last = t == start, t == end - 1
            position = S if first and last else B if first else E if last else I
            labels[t] = f"{position}-{kind}"
    return labels


def spelled(alphabet, length):
    """All label sequences of this length that spell something, as a set."""
    if alphabet == SEGMENT_ALPHABET:
        sentences = (["x" * (end - start) for start, end in pieces] for pieces in partitions(length))
        return {tuple(segment_labels(words)) for words in sentences}
    if alphabet == BIO:
        return {tuple(labels_of(spans, length)) for spans in annotations(length)}
    if alphabet == IO:
        return {tuple(io_labels(spans, length)) for spans in annotations(length) if not touching(spans)}
    scheme = {IOBES_ALPHABET: "BIOES", BMES: "BMES", BILUO: "BILUO"}[alphabet]
    return {tuple(closed_labels(spans, length, scheme)) for spans in annotations(length)}


def io_labels(spans, length):
    """What IO spells: the kind of the span that a character belongs to."""
    return [next((f"I-{kind}" for start, end, kind in spans if start <= t < end), "O") for t in range(length)]


def touching(spans):
    """Whether two neighbours are of one kind, which IO cannot tell from one span."""
    return any(one.end == other.start and one.kind == other.kind for one, other in pairwise(sorted(spans)))


@st.composite
def disjoint_spans(draw):
    """Spans from left to right, some of them neighbours."""
    spans, end = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = end + draw(st.integers(0, 3))
        end = start + draw(st.integers(1, 4))
        spans.append(Span(start, end, draw(st.sampled_from(["PER", "LOC", "person-name", ""]))))
    return spans


# --- Labels of segmentation


def test_a_word_is_single_or_begins_goes_on_and_ends():
    assert segment_labels(["中国", "的", "共产党", "全国人民"]) == list("besbmebmme")
    assert segment_labels([]) == []


@given(st.lists(st.text(min_size=1, max_size=6)))
def test_words_are_read_back_from_their_labels(words):
    text = "".join(words)
    assert [text[span.start : span.end] for span in spans_of(segment_labels(words))] == words


@pytest.mark.parametrize("words", [["a", ""], [("a", "n")], [None]])
def test_a_word_is_a_string_of_at_least_one_character(words):
    with pytest.raises(ValueError, match="words must be strings of at least one character"):
        segment_labels(words)


@given(sentences(SEGMENT_ALPHABET))
def test_any_segment_labels_at_all_cut_the_sentence_into_words(labels):
    spans = spans_of(labels)
    assert [t for start, end, _ in spans for t in range(start, end)] == list(range(len(labels)))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("bme", [(0, 3)]),
        ("bb", [(0, 1), (1, 2)]),  # what is begun again ends
        ("bs", [(0, 1), (1, 2)]),
        ("me", [(0, 2)]),  # what was not begun begins
        ("sm", [(0, 1), (1, 2)]),
        ("ee", [(0, 1), (1, 2)]),
        ("em", [(0, 1), (1, 2)]),
        ("bm", [(0, 2)]),  # what does not end ends with the sentence
        ("", []),
    ],
)
def test_illegal_segments_are_read_by_a_fixed_rule(labels, words):
    assert [(start, end) for start, end, _ in spans_of(labels)] == words


# --- Labels of BIO


def test_a_span_begins_with_b_and_goes_on_with_i():
    spans = [Span(3, 5, "LOC"), Span(0, 1, "PER"), Span(5, 6, "LOC")]
    assert labels_of(spans, 7) == ["B-PER", "O", "O", "B-LOC", "I-LOC", "B-LOC", "O"]
    assert labels_of([], 2) == ["O", "O"]
    assert labels_of([(0, 2, "")], 2) == ["B", "I"]


@given(disjoint_spans(), st.integers(0, 3))
def test_disjoint_spans_are_read_back_from_their_labels(spans, margin):
    length = max((span.end for span in spans), default=0) + margin
    assert spans_of(labels_of(spans, length)) == spans


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, 3, "PER"), (2, 5, "LOC")),  # overlapping
        ((0, 5, "ORG"), (1, 3, "LOC")),  # nested
        ((0, 5, "ORG"), (0, 2, "LOC")),  # nested, with the same start
        ((1, 3, "PER"), (1, 3, "LOC")),  # one span with two kinds
        ((1, 3, "PER"), (1, 3, "PER")),  # the same twice
    ],
)
def test_bio_cannot_express_spans_that_share_a_character(one, other):
    for spans in ([one, other], [other, one]):
        with pytest.raises(ValueError, match=r"spans must not share a character.* BIO .* cannot express both"):
            labels_of(spans, 5)


@pytest.mark.parametrize("span", [(1, 1, "PER"), (2, 1, "PER"), (-1, 1, "PER"), (3, 5, "PER")])
def test_a_span_lies_within_its_sentence(span):
    with pytest.raises(ValueError, match="0 <= start < end"):
        labels_of([span], 4)


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        (["I-PER", "I-PER"], [(0, 2, "PER")]),
        (["O", "I-PER", "O"], [(1, 2, "PER")]),
        (["B-PER", "I-LOC", "I-LOC"], [(0, 1, "PER"), (1, 3, "LOC")]),
        (["B-PER", "O", "I-PER"], [(0, 1, "PER"), (2, 3, "PER")]),
        (["B-PER", "B-PER"], [(0, 1, "PER"), (1, 2, "PER")]),
    ],
)
def test_illegal_bio_is_read_by_the_same_rule(labels, spans):
    assert spans_of(labels) == spans


@pytest.mark.parametrize("scheme", CLOSED)
def test_closed_schemes_mark_the_last_label_and_a_single_one(scheme):
    alphabet = alphabet_of(["PER", "LOC"], scheme)
    assert alphabet == ("O", *(f"{position}-{kind}" for kind in ("PER", "LOC") for position in CLOSED[scheme]))
    for length in range(5):
        for spans in annotations(length):
            labels = labels_of(spans, length, scheme)
            assert labels == closed_labels(spans, length, scheme)
            assert spans_of(labels) == spans


def test_io_spells_what_has_no_neighbours_of_one_kind():
    assert alphabet_of(["PER", "LOC"], "IO") == IO
    for spans in annotations(4):
        if touching(spans):
            with pytest.raises(ValueError, match="spans of one kind must not touch in IO"):
                labels_of(spans, 4, "IO")
        else:
            assert labels_of(spans, 4, "IO") == io_labels(spans, 4)
            assert spans_of(io_labels(spans, 4)) == spans


def test_every_move_of_io_is_legal():
    moves = legal_moves(IO)
    assert all(part.all() for part in moves)
    assert illegal_moves([[1, 2, 0, 1, 1]], IO) == 0


@pytest.mark.parametrize("scheme", ["IOB1", "bio", None, 2])
def test_an_unknown_scheme_is_refused(scheme):
    for call in (lambda: alphabet_of(["PER"], scheme), lambda: labels_of([], 2, scheme)):
        with pytest.raises(ValueError, match="scheme must be one of 'IO', 'BIO', 'BIOES', 'BILUO', 'BMES'"):
            call()


@pytest.mark.parametrize(
    ("span", "complaint"),
    [
        ((5, 2, "PER"), "0 <= start < end"),
        ((2, 2, "PER"), "0 <= start < end"),
        ((-1, 2, "PER"), "0 <= start < end"),
        ((0.0, 2.0, "PER"), "integers start and end"),
        ((0.5, 2, "PER"), "integers start and end"),
        ((False, True, "PER"), "integers start and end"),
        (("a", "b", "PER"), "integers start and end"),
        ((1,), "integers start and end"),
        (3, "integers start and end"),
        (None, "integers start and end"),
        ((0, 1, None), "a kind that is a string"),
    ],
)
def test_what_is_no_span_is_refused_wherever_spans_are_taken(span, complaint):
    for call in (
        lambda: labels_of([span], 6),
        lambda: disjoint([(0, 1, "LOC"), span]),
        lambda: score([[span]], [[]]),
        lambda: score([[]], [[span]]),
    ):
        with pytest.raises(ValueError, match=rf"^(spans|gold\[0\]|predicted\[0\]) must .*{complaint}"):
            call()


@pytest.mark.parametrize("length", [2.0, -1, "3", True])
def test_a_length_is_a_number_of_characters(length):
    with pytest.raises(ValueError, match="length must be an integer of at least 0"):
        labels_of([], length)


def test_an_alphabet_of_bio_has_two_labels_a_kind_and_o():
    assert alphabet_of(["PER", "LOC"]) == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert alphabet_of([]) == ("O",)
    for kinds, complaint in ((["PER", "PER"], "distinct"), ([1], "distinct strings"), ("PER", "a collection")):
        with pytest.raises(ValueError, match=f"kinds must be {complaint}"):
            alphabet_of(kinds)


@pytest.mark.parametrize("label", ["", "X", "B-", "O-PER", "BPER", "PER", "B PER", "-PER", 1, None])
def test_a_label_that_is_none_is_refused(label):
    with pytest.raises(ValueError, match="a label must be 'O', or B, I, M, E, L, S or U"):
        spans_of(["O", label])


# --- Reading, against seqeval


@pytest.mark.hypothesis
@every_alphabet
@pytest.mark.hypothesis  # which hypothesis gives to the inner function
def test_labels_spell_what_seqeval_reads_in_its_default_mode(alphabet):
    @given(sentences(alphabet))
    def agrees(labels):
        assert spans_of(labels) == seqeval_spans(labels)

    agrees()


@pytest.mark.parametrize(
    ("alphabet", "scheme"),
    [(BIO, IOB2), (IOBES_ALPHABET, IOBES), (BMES, IOBES), (SEGMENT_ALPHABET, IOBES), (BILUO, BILOU)],
)
def test_legal_labels_spell_what_seqeval_reads_in_its_strict_mode(alphabet, scheme):
    for labels in spelled(alphabet, 4):
        theirs = list(labels) if scheme is BILOU else as_seqeval(labels)
        (strict,) = Entities([theirs], scheme).entities
        assert spans_of(labels) == [(found.start, found.end, found.tag.replace("_", "")) for found in strict]


@pytest.mark.hypothesis
@every_alphabet
@pytest.mark.hypothesis  # which hypothesis gives to the inner function
def test_a_batch_of_tags_is_read_as_its_sentences_are(alphabet):
    @given(st.lists(sentences(alphabet), min_size=1, max_size=5))
    def agrees(batch):
        assert spans_of_tags(as_tags(batch, alphabet), alphabet) == [spans_of(labels) for labels in batch]

    agrees()


def test_padding_reads_as_outside_wherever_it_stands():
    assert spans_of_tags([[-1, 2, -1, 1, 2, -1]], BIO) == [[(1, 2, "PER"), (3, 5, "PER")]]
    assert spans_of_tags(np.zeros((2, 0), int), BIO) == [[], []]


def test_tagged_words_of_some_tags_are_spans():
    words = [("江泽民", "nr"), ("在", "p"), ("北京", "ns"), ("说", "v")]
    assert spans_of_words(words, {"nr": "PER", "ns": "LOC"}) == [(0, 3, "PER"), (4, 6, "LOC")]
    assert spans_of_words(words, {"nt": "ORG"}) == spans_of_words([], {"nr": "PER"}) == []


# --- Legal moves


def test_the_legal_moves_of_segmentation_are_those_of_the_article():
    transitions, start, end = legal_moves("sbme")
    assert {"sbme"[i] + "sbme"[j] for i, j in np.argwhere(transitions)} == {
        "ss",
        "sb",
        "bm",
        "be",
        "mm",
        "me",
        "es",
        "eb",
    }
    assert start.tolist() == [True, True, False, False]
    assert end.tolist() == [True, False, False, True]


def test_bio_forbids_only_an_i_that_continues_nothing():
    transitions, start, end = legal_moves(BIO)
    forbidden = {(BIO[i], BIO[j]) for i, j in np.argwhere(~transitions)}
    assert forbidden == {
        *(("O", "I-PER"), ("B-LOC", "I-PER"), ("I-LOC", "I-PER")),
        *(("O", "I-LOC"), ("B-PER", "I-LOC"), ("I-PER", "I-LOC")),
    }
    assert [label for label, is_legal in zip(BIO, start, strict=True) if not is_legal] == ["I-PER", "I-LOC"]
    assert end.all()


@every_alphabet
def test_a_move_is_legal_exactly_if_it_occurs_in_the_labels_of_some_sentence(alphabet):
    sequences = [labels for length in range(1, 6) for labels in spelled(alphabet, length)]
    moves = legal_moves(alphabet)
    assert isinstance(moves, LegalMoves)
    assert [moves.transitions.dtype, moves.start.dtype, moves.end.dtype] == [np.bool_] * 3
    pairs = {pair for labels in sequences for pair in pairwise(labels)}
    assert {(alphabet[i], alphabet[j]) for i, j in np.argwhere(moves.transitions)} == pairs
    assert {alphabet[i] for i in np.flatnonzero(moves.start)} == {labels[0] for labels in sequences}
    assert {alphabet[i] for i in np.flatnonzero(moves.end)} == {labels[-1] for labels in sequences}


@every_alphabet
def test_labels_without_an_illegal_move_are_exactly_those_that_spell_something(alphabet):
    length = 4 if len(alphabet) < 6 else 3
    real = spelled(alphabet, length)
    for labels in product(range(len(alphabet)), repeat=length):
        assert (illegal_moves([labels], alphabet) == 0) == (tuple(alphabet[i] for i in labels) in real)


def test_illegal_moves_are_counted_pair_by_pair_and_at_the_boundaries():
    tags = as_tags([list("mbse"), list("sbe"), list("b")], SEGMENT_ALPHABET)
    assert illegal_moves(tags, SEGMENT_ALPHABET) == 5  # →m, m→b, b→s, s→e; then b→
    assert illegal_moves(tags, SEGMENT_ALPHABET, boundaries=False) == 3
    assert illegal_moves(np.full((2, 3), -1), SEGMENT_ALPHABET) == 0
    assert illegal_moves(np.zeros((0, 3), int), SEGMENT_ALPHABET) == 0
    assert isinstance(illegal_moves(tags, SEGMENT_ALPHABET), int)


@pytest.mark.parametrize(
    ("alphabet", "complaint"),
    [
        ((), "distinct labels, at least one"),
        (("s", "b", "b"), "distinct labels"),
        (("b", "m", "e", "M"), "distinct labels"),  # one label in two spellings
        (("O", "X"), "a label must be"),
        (("O", "I-PER", "S-PER"), "begins what 'I-PER' continues"),
        (("O", "I-PER", "U-LOC"), "begins what 'I-PER' continues"),
        (("O", "L-LOC", "B-PER", "L-PER"), "begins what 'L-LOC' continues"),
        (("L-PER", "B-PER", "E-PER"), "distinct labels"),
        (("O", "B-LOC", "I-PER"), "begins what 'I-PER' continues"),
        (("s", "b", "m"), "ends what 'b' begins"),
        (("O", "B-PER", "E-PER", "B-LOC"), "ends what 'B-LOC' begins"),
    ],
)
def test_an_alphabet_with_a_label_that_can_never_occur_is_refused(alphabet, complaint):
    with pytest.raises(ValueError, match=complaint):
        legal_moves(alphabet)


# --- Scores


def test_scores_worked_by_hand():
    gold = [[Span(0, 2, "PER"), Span(3, 5, "LOC"), Span(6, 7, "LOC")], [Span(0, 1, "PER")]]
    predicted = [[Span(0, 2, "PER"), Span(3, 4, "LOC"), Span(6, 7, "PER")], []]
    result = score(gold, predicted)
    assert result == Score(correct=1, predicted=3, gold=4)
    assert (result.precision, result.recall, result.f1) == (1 / 3, 1 / 4, 2 / 7)
    assert score(gold, predicted, kinds=["PER"]) == Score(1, 2, 2)
    assert score(gold, predicted, kinds={"LOC"}) == Score(0, 1, 2)


def test_one_wrong_cut_costs_two_words():
    gold, predicted = spans_of("bebes"), spans_of("besse")  # 2 + 2 + 1 characters against 2 + 1 + 1 + 1
    assert score([gold], [predicted]) == Score(correct=2, predicted=4, gold=3)


def test_f1_is_the_harmonic_mean():
    result = Score(correct=3, predicted=4, gold=10)
    assert result.f1 == pytest.approx(2 / (1 / result.precision + 1 / result.recall), rel=1e-15)


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0, 3, 0), (0, 0, 0)),
        ((0, 0, 3), (0, 0, 0)),
        ((0, 2, 2), (0, 0, 0)),
        ((2, 2, 2), (1, 1, 1)),
    ],
)
def test_a_quotient_of_nothing_counts_as_zero(counts, values):
    result = Score(*counts)
    assert (result.precision, result.recall, result.f1) == values


def test_scores_of_parts_add_up():
    gold, predicted = [spans_of("bes"), spans_of("sbe")], [spans_of("bes"), spans_of("bes")]
    parts = [score([g], [p]) for g, p in zip(gold, predicted, strict=True)]
    assert sum(parts, Score()) == score(gold, predicted) == Score(2, 4, 4)
    with pytest.raises(TypeError):
        Score() + 1


def test_spans_of_a_score_may_overlap_and_count_once():
    nested = [(0, 5, "ORG"), (1, 3, "LOC"), (1, 3, "LOC")]
    assert score([nested], [nested[:1]]) == Score(1, 1, 2)


@pytest.mark.hypothesis
@every_alphabet
@pytest.mark.hypothesis  # which hypothesis gives to the inner function
def test_scores_are_those_of_seqeval(alphabet):
    @given(batches(alphabet))
    def agrees(batch):
        gold, predicted = batch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = precision_recall_fscore_support(
                *([as_seqeval(labels) for labels in side] for side in batch), average="micro", zero_division=0
            )
        result = score(list(map(spans_of, gold)), list(map(spans_of, predicted)))
        assert (result.precision, result.recall, result.f1) == pytest.approx(expected[:3], rel=1e-12)
        assert result.gold == expected[3]

    agrees()


@pytest.mark.hypothesis
@pytest.mark.parametrize(
    ("alphabet", "kinds"),
    [
        *((SEGMENT_ALPHABET, kinds) for kinds in (None, [""])),
        *((alphabet, kinds) for alphabet in (BIO, BMES) for kinds in (None, ["PER"], ["LOC", "PER"], [])),
    ],
)
@pytest.mark.hypothesis  # which hypothesis gives to the inner function
def test_tags_are_scored_as_their_spans_are(alphabet, kinds):
    @given(batches(alphabet), st.integers(0, len(alphabet) - 1))
    def agrees(batch, tag_of_padding):
        gold, predicted = (as_tags(side, alphabet) for side in batch)
        expected = score(*([spans_of(labels) for labels in side] for side in batch), kinds=kinds)
        assert score_tags(gold, predicted, alphabet, kinds) == expected
        predicted[gold < 0] = tag_of_padding
        assert score_tags(gold, predicted, alphabet, kinds) == expected

    agrees()


def without_unknown(gold, others):
    """Rows of labels without the steps whose gold tag is −100, and the steps that remain."""
    kept = [[t for t, tag in enumerate(row) if tag != -100] for row in gold]
    return [[[row[t] for t in steps] for row, steps in zip(side, kept, strict=True)] for side in others], kept


@pytest.mark.hypothesis
@every_alphabet
@pytest.mark.hypothesis  # which hypothesis gives to the inner function
def test_steps_that_are_not_known_are_left_out_as_if_they_were_not_there(alphabet):
    @given(batches(alphabet), st.data())
    def agrees(batch, data):
        gold, predicted = (as_tags(side, alphabet) for side in batch)
        unknown = data.draw(st.lists(st.booleans(), min_size=gold.size, max_size=gold.size))
        gold[np.reshape(unknown, gold.shape)] = -100
        (kept_gold, kept_predicted), steps = without_unknown(gold, (gold.tolist(), predicted.tolist()))
        names = [
            [
                [alphabet[p if p >= 0 else 0] for g, p in zip(*rows, strict=True) if g >= 0]
                for rows in zip(*sides, strict=True)
            ]
            for sides in ((kept_gold, kept_gold), (kept_gold, kept_predicted))
        ]
        assert score_tags(gold, predicted, alphabet) == score(*(list(map(spans_of, side)) for side in names))
        expected = [
            [(at[span.start], at[span.end - 1] + 1, span.kind) for span in spans_of(labels)]
            for labels, at in zip(names[0], steps, strict=True)
        ]
        assert spans_of_tags(gold, alphabet) == expected
        shorter = as_tags(names[0], alphabet)
        assert illegal_moves(gold, alphabet) == illegal_moves(shorter, alphabet)

    agrees()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64"])
def test_tags_of_any_integers_are_read_alike(dtype):
    rng = np.random.default_rng(0)
    tags = rng.integers(0, len(BIO), (2, 200, 100))  # more than int8 could number
    given_tags = tags.astype(dtype)
    assert score_tags(*given_tags, BIO) == score_tags(*tags, BIO)
    assert spans_of_tags(given_tags[0], BIO) == spans_of_tags(tags[0], BIO)
    assert illegal_moves(given_tags[0], BIO) == illegal_moves(tags[0], BIO)
    gold = np.where(tags[0] == 2, -1, tags[0])
    assert score_tags(gold, given_tags[1], BIO) == score_tags(gold, tags[1], BIO)
    if dtype.startswith("u"):
        with pytest.raises(ValueError, match="tags must lie between"):
            spans_of_tags(np.array([[np.iinfo(dtype).max]], dtype), BIO)


def test_two_thousand_sentences_are_scored_in_milliseconds():
    rng = np.random.default_rng(0)
    tags = rng.integers(0, 4, (2000, 40))
    gold = np.where(np.arange(40) < rng.integers(1, 41, (2000, 1)), tags, -1)
    started = time.process_time()  # what other processes take does not count
    result = score_tags(gold, tags, SEGMENT_ALPHABET)
    assert time.process_time() - started < 1
    assert result == Score(result.gold, result.gold, result.gold)
    assert result.gold > 10_000


def test_the_order_of_an_alphabet_is_free():
    tags = np.random.default_rng(1).integers(0, 5, (2, 20, 30))
    order = [3, 0, 4, 2, 1]
    renamed = np.argsort(order)[tags]
    assert score_tags(*renamed, [BIO[i] for i in order]) == score_tags(*tags, BIO)


# --- What is refused


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ([0, 1], r"integers of shape \(batch, time\), got int64 of shape \(2,\)"),
        ([[[0]]], r"of shape \(1, 1, 1\)"),
        ([[0.0, 1.0]], "got float64"),
        ([[True]], "got bool"),
        ([[0, 4]], "between -1 and 3, or be -100, got 0 to 4"),
        ([[-2, 1]], "between -1 and 3, or be -100, got -2 to 1"),
    ],
)
def test_tags_are_integers_of_the_alphabet(tags, complaint):
    for function in (spans_of_tags, illegal_moves):
        with pytest.raises(ValueError, match=f"tags must .*{complaint}"):
            function(tags, SEGMENT_ALPHABET)
    with pytest.raises(ValueError, match=f"gold must .*{complaint}"):
        score_tags(tags, tags, SEGMENT_ALPHABET)


def test_predicted_tags_are_checked_where_they_count():
    with pytest.raises(ValueError, match="predicted must lie between -1 and 3, got 0 to 7"):
        score_tags([[0, 1]], [[0, 7]], SEGMENT_ALPHABET)
    with pytest.raises(ValueError, match="predicted must lie between -1 and 3, got -100 to 1"):
        score_tags([[0, 1]], [[-100, 1]], SEGMENT_ALPHABET)
    with pytest.raises(ValueError, match="predicted must be integers"):
        score_tags([[0, 1]], [[0.0, 1.0]], SEGMENT_ALPHABET)
    with pytest.raises(ValueError, match=r"predicted must have the shape of gold, \(1, 2\), got \(2, 1\)"):
        score_tags([[0, 1]], [[0], [1]], SEGMENT_ALPHABET)


def test_both_sides_of_a_score_have_the_same_sentences():
    with pytest.raises(ValueError, match="predicted must have the sentences of gold, got 1 and 2 sentences"):
        score([[], []], [[]])


def test_kinds_are_a_collection_of_known_names():
    for call in (lambda k: score([[]], [[]], k), lambda k: score_tags([[0]], [[0]], BIO, k)):
        with pytest.raises(ValueError, match="collection of kinds, got the string 'PER'"):
            call("PER")
    with pytest.raises(ValueError, match=r"kinds must be among .*'LOC', 'PER'.* got .*'ORG'"):
        score_tags([[0]], [[0]], BIO, ["PER", "ORG"])


# --- what BIO can keep -----------------------------------------------------------------------------------------


def spans_in(draw):
    return draw(
        st.lists(
            st.tuples(st.integers(0, 8), st.integers(1, 4), st.sampled_from(["A/x", "A/y", "B/x"])).map(
                lambda s: Span(s[0], s[0] + s[1], s[2])
            ),
            max_size=7,
        )
    )


@given(st.data())
def test_no_larger_set_of_spans_is_disjoint(data):
    spans = spans_in(data.draw)
    kept = disjoint(spans)

    def apart(some):
        ordered = sorted(some)
        return all(one.end <= other.start for one, other in pairwise(ordered))

    sizes = [n for n in range(len(spans) + 1) if any(map(apart, combinations(spans, n)))]
    assert len(kept) == max(sizes)
    assert apart(kept)
    assert set(kept) <= set(spans)
    assert kept == sorted(kept) == disjoint(spans[::-1])
    assert len(labels_of(kept, 12)) == 12


def test_bio_loses_nested_spans_and_second_kinds():
    nested = [Span(0, 5, "Attack/Place"), Span(0, 2, "Attack/Attacker"), Span(3, 5, "Attack/Target")]
    assert disjoint(nested) == nested[1:]
    twice = [Span(0, 2, "Die/Person"), Span(0, 2, "Attack/Target")]
    assert disjoint(twice) == [Span(0, 2, "Attack/Target")]
    for spans in (nested, twice):
        with pytest.raises(ValueError, match="BIO gives a character one label"):
            labels_of(spans, 5)
