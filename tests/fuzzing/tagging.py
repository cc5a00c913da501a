"""Cases of `lib.tagging`: spans and labels by loops over all of them, heads and metrics by enumeration."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, pairwise, product
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st

from fuzzing import crf
from fuzzing.cases import (
    NO_COLLECTION,
    NO_INTEGER,
    NO_LAYER,
    NO_OPTION,
    NO_TENSOR,
    Case,
    always,
    deeper,
    flatter,
    longer,
    none,
    plus,
)
from fuzzing.memm import log_softmax
from fuzzing.values import arrays, integers, sizes
from lib import chain, tagging
from lib.crf import CRF
from lib.tagging import Softmax

SCHEMES = {"IO": "IIII", "BIO": "BIIB", "BIOES": "BIES", "BILUO": "BILU", "BMES": "BMES"}
KINDS = ("", "PER", "LOC")


# --- spans and labels ---------------------------------------------------------------------------------------------


def alphabet(kinds: Any, scheme: str) -> tuple[str, ...]:
    letters = [*dict.fromkeys(SCHEMES[scheme])]
    return ("O", *(f"{letter}-{kind}" if kind else letter for kind in kinds for letter in letters))


def read(labels: Any) -> list[tuple[int, int, str]]:
    """Spans, cut wherever a label does not continue the one before it."""
    found: list[list[Any]] = []
    before = ("O", "")
    for t, label in enumerate(labels):
        letter, kind = label[0].upper(), label[2:]
        inside = letter in "IMEL" and before[0] in "BIM" and before[1] == kind
        if letter != "O":
            if inside:
                found[-1][1] = t + 1
            else:
                found.append([t, t + 1, kind])
        before = (letter, kind)
    return [tuple(span) for span in found]


def spell(spans: Any, length: int, scheme: str) -> list[str]:
    first, middle, last, single = SCHEMES[scheme]
    labels = ["O"] * length
    for start, end, kind in spans:
        for t in range(start, end):
            letter = single if end - start == 1 else first if t == start else last if t == end - 1 else middle
            labels[t] = f"{letter}-{kind}" if kind else letter
    return labels


@lru_cache
def legal_sentences(labels: tuple[str, ...], scheme: str) -> list[tuple[int, ...]]:
    """All sentences of at most four tags that spell their own spans."""
    every = (y for n in range(1, 5) for y in product(range(len(labels)), repeat=n))
    return [y for y in every if (words := [labels[tag] for tag in y]) == spell(read(words), len(y), scheme)]


def moves_of(labels: tuple[str, ...], scheme: str) -> tuple:
    """The moves, first and last tags that occur."""
    moves, start, end = np.zeros((len(labels),) * 2), np.zeros(len(labels)), np.zeros(len(labels))
    for y in legal_sentences(labels, scheme):
        start[y[0]], end[y[-1]] = 1, 1
        for i, j in pairwise(y):
            moves[i, j] = 1
    return moves, start, end


@st.composite
def schemes(draw: st.DrawFn) -> dict[str, Any]:
    """A scheme and kinds."""
    kinds = draw(st.lists(st.sampled_from(KINDS), unique=True, min_size=1, max_size=2))
    return {"kinds": kinds, "scheme": draw(st.sampled_from([*SCHEMES]))}


@st.composite
def span_sets(draw: st.DrawFn) -> dict[str, Any]:
    """Spans, of which some overlap."""
    spans = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.sampled_from(KINDS)), max_size=6))
    return {"spans": [(start, start + width, kind) for start, width, kind in spans]}


@st.composite
def spellable(draw: st.DrawFn) -> dict[str, Any]:
    """Spans that a scheme can spell."""
    kept: list[tuple[int, int, str]] = []
    for span in sorted(draw(span_sets())["spans"]):
        if not kept or span[0] > kept[-1][1]:
            kept.append(span)
    return {"spans": kept, "length": draw(st.integers(8, 10)), "scheme": draw(st.sampled_from([*SCHEMES]))}


def most(spans: Any) -> int:
    """The largest number of spans of which no two overlap, by trying all sets."""
    apart = lambda a, b: a[1] <= b[0] or b[1] <= a[0]  # noqa: E731
    for size in range(len(spans), 0, -1):
        for chosen in combinations(spans, size):
            if all(apart(a, b) for a, b in combinations(chosen, 2)):
                return size
    return 0


def kept(spans: Any) -> int:
    found = tagging.disjoint(spans)
    assert {tuple(span) for span in found} <= {tuple(span) for span in spans}
    assert most(found) == len(found)
    return len(found)


def numbers(spans: Any) -> list:
    """Spans as numbers."""
    return [[start, end, KINDS.index(kind)] for start, end, kind in spans]


# --- tags ---------------------------------------------------------------------------------------------------------


@st.composite
def batches(draw: st.DrawFn, least: int = 0) -> dict[str, Any]:
    """Two batches of tags of one scheme: padded, and some not known."""
    chosen = draw(schemes())
    labels = alphabet(**chosen)
    batch, time = draw(sizes(least, 3)), draw(sizes(least, 5))
    lengths = np.array([draw(st.integers(least, time)) for _ in range(batch)], int)
    valid = np.arange(time) < lengths.reshape(-1, 1)
    tags, predicted = (
        draw(integers((batch, time), 0, len(labels) - 1)).astype(draw(st.sampled_from(["int8", "int32", "int64"])))
        for _ in range(2)
    )
    unknown = (draw(arrays((batch, time), scales=(1.0,))) > 1) & (np.arange(time) >= least)
    weight = draw(arrays((batch,), scales=(1.0,)))
    tags = np.where(valid, np.where(unknown, chain.UNKNOWN, tags), -1)
    return {
        "tags": tags,
        "predicted": np.where(valid, predicted, -1),
        "sample_weight": np.abs(weight),
        "alphabet": labels,
        "scheme": chosen["scheme"],
    }


def given(*names: str, **renamed: str) -> dict[str, st.SearchStrategy[dict[str, Any]]]:
    """Some of the arguments, some by another name; spoilt ones have entries and a known tag in each row."""
    names = {**dict(zip(names, names, strict=True)), **renamed}

    def part(batch: dict[str, Any]) -> dict[str, Any]:
        return {new: batch[old] for new, old in names.items()}

    return {"right": batches().map(part), "spoilt": batches(least=1).map(part)}


def known(tags: Any, predicted: Any, labels: Any) -> list[tuple[list, list]]:
    """Labels of gold and predicted tags of each row, without those that are not known."""
    rows = []
    for y, z in zip(tags, predicted, strict=True):
        steps = [(labels[i], labels[j] if j >= 0 else "O") for i, j in zip(y, z, strict=True) if i >= 0]
        rows.append(([i for i, _ in steps], [j for _, j in steps]))
    return rows


def counts(gold: Any, predicted: Any, alphabet: Any, kinds: Any = None) -> list[int]:
    """Right, predicted and gold spans."""
    found = np.zeros(3, int)
    for true, said in known(gold, predicted, alphabet):
        true, said = ({s for s in read(labels) if kinds is None or s[2] in kinds} for labels in (true, said))
        found += [len(true & said), len(said), len(true)]
    return found.tolist()


def of_score(score: Any) -> list[float]:
    return [score.correct, score.predicted, score.gold]


def spans_by_rows(tags: Any, alphabet: Any) -> list:
    """Spans of the steps that are known, at their places in the whole."""
    found = []
    for y in tags:
        steps = [t for t, tag in enumerate(y) if tag != chain.UNKNOWN]
        spans = read([alphabet[y[t]] if y[t] >= 0 else "O" for t in steps])
        found.append(numbers([(steps[start], steps[end - 1] + 1, kind) for start, end, kind in spans]))
    return tree_of(found)


def tree_of(rows: list) -> list[np.ndarray]:
    return [np.array(row, float).reshape(-1, 3) for row in rows]


def illegal(tags: Any, alphabet: Any, scheme: str, boundaries: bool = True) -> int:
    moves, start, end = moves_of(tuple(alphabet), scheme)
    found = 0
    for row in tags:
        y = [tag for tag in row if tag >= 0]
        found += sum(not moves[i, j] for i, j in pairwise(y))
        found += int(not start[y[0]]) + int(not end[y[-1]]) if y and boundaries else 0
    return found


def metric(kind: str) -> Any:
    """A function that gives a metric a batch with weights, and one without."""

    def function(tags: Any, predicted: Any, sample_weight: Any, **options: Any) -> tuple:
        made = getattr(tagging, kind)(**options)
        made.update_state(tags, predicted, sample_weight)
        weighed = made.result()
        made.update_state(tags, predicted)
        return weighed, made.result()

    function.__name__ = kind
    return function


def quotient(counts: Any, weight: Any) -> tuple[float, float]:
    """Of counts (batch, 2) the sum of one over that of the other, weighed, and weighed more by 1; 0 for 0/0."""
    sums = (
        w @ np.asarray(counts, float).reshape(-1, 2) for w in (np.asarray(weight, float), 1 + np.asarray(weight))
    )
    return tuple(a / b if b else 0.0 for a, b in sums)


def accuracy(tags: Any, predicted: Any, sample_weight: Any) -> tuple[float, float]:
    right = (tags >= 0) & (tags == predicted)
    return quotient([[np.sum(a), np.sum(b)] for a, b in zip(right, tags >= 0, strict=True)], sample_weight)


def f1(tags: Any, predicted: Any, sample_weight: Any, alphabet: Any) -> tuple[float, float]:
    rows = [counts([y], [z], alphabet) for y, z in zip(tags, predicted, strict=True)]
    return quotient([[2 * right, said + true] for right, said, true in rows], sample_weight)


# --- heads --------------------------------------------------------------------------------------------------------


def of_softmax(emissions: Any, mask: Any, **_: Any) -> list[dict]:
    """Σ log softmax of all sequences, whatever the moves."""
    return crf.chains.scores(log_softmaxes(emissions), np.zeros((emissions.shape[-1],) * 2), mask)


def legal_of_softmax(emissions: Any, mask: Any, legal: Any, **_: Any) -> list[dict]:
    """The same, −∞ for what is illegal."""
    moves, start, end = crf.forbidden(legal)
    moves = np.zeros((emissions.shape[-1],) * 2) if moves is None else moves
    return crf.chains.scores(log_softmaxes(emissions), moves, mask, start, end)


def log_softmaxes(emissions: Any) -> np.ndarray:
    return np.apply_along_axis(log_softmax, -1, np.asarray(emissions, "float64"))


@st.composite
def weighted(draw: st.DrawFn) -> dict[str, Any]:
    """What a loss is given."""
    asked = draw(crf.asked())
    batch = len(asked["emissions"])
    return {
        **{name: asked[name] for name in ("tags", "emissions")},
        "head": CRF(asked["tag_count"]),
        "sample_weight": draw(st.none() | arrays((batch,), scales=(1.0,)).map(np.abs)),
    }


def loss(head: Any, tags: Any, emissions: Any, sample_weight: Any) -> Any:
    return tagging.HeadLoss(head)(tags, emissions, sample_weight)


def mean_loss(head: Any, tags: Any, emissions: Any, sample_weight: Any) -> float:  # noqa: ARG001
    """The mean over sequences, each times its weight."""
    K = emissions.shape[-1]
    log_p = crf.chains.log_probability(tags, emissions=emissions, transitions=np.zeros((K, K)), mask=tags != -1)
    weight = np.ones(len(tags)) if sample_weight is None else np.asarray(sample_weight, "float64")
    return float(np.mean(-log_p * weight))


def decoded(head: Any, emissions: Any) -> Any:
    return tagging.Decode(head)(emissions)


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """Ids of texts, a table of emissions, and what pads."""
    table = draw(arrays((4, 2), scales=(1.0, 10.0)))
    encoder = keras.layers.Embedding(4, 2)
    x = draw(integers((draw(sizes(1, 2)), draw(sizes(1, 4))), 1, 3))
    valid = np.arange(x.shape[1]) < np.array([draw(st.integers(0, x.shape[1])) for _ in x])[:, None]
    return {"encoder": encoder, "head": Softmax(2), "padding": 0, "x": np.where(valid, x, 0), "table": table}


def tagged(encoder: Any, head: Any, padding: Any, x: Any, table: Any) -> tuple:
    """Emissions and tags of a tagger."""
    fresh = encoder
    if isinstance(encoder, keras.layers.Embedding):
        fresh = keras.layers.Embedding(4, 2)
        fresh.build((None, None))
        fresh.embeddings.assign(table)
    made = tagging.Tagger(fresh, Softmax(2) if isinstance(head, Softmax) else head, padding=padding)
    emissions = made(x)
    return emissions, made.head.decode(emissions)[0]


def looked_up(encoder: Any, head: Any, padding: Any, x: Any, table: Any) -> tuple:  # noqa: ARG001
    e = np.where((x != padding)[..., None], np.asarray(table, "float64")[x], -np.inf)
    return e, np.where(x != padding, e.argmax(-1), -1)


# --- cases --------------------------------------------------------------------------------------------------------

BEYOND = plus(99)
NO_TAGS = (*NO_TENSOR, flatter, deeper, BEYOND, plus(-200), plus(0.5), always([["B"]]))
NO_LABELS = tuple(map(always, (None, 3, ["X"], ["B-PER", 3], [None], "xyz")))
NO_ALPHABET = (*NO_LABELS, *map(always, (["O", "O"], [])))
NO_SPANS = tuple(
    map(
        always,
        (
            None, 3, "ab", [3], [(1, 2, "PER", 4)], [(2, 1, "PER")], [(0, 0, "PER")], [(-1, 2, "PER")],
            [("0", 1, "PER")], [(0, 1.5, "PER")], [(False, True, "PER")], [(0, 1, 3)], [(0, 1, None)],
        ),
    )
)  # fmt: skip
NO_KINDS = tuple(map(always, ("PER", 3, ["NOT"], [3], True)))
NO_SENTENCES = tuple(map(always, (None, 3, "ab", [3], [None], [[(2, 1, "PER")]], [], [[], []])))
NO_WORDS = tuple(map(always, (None, 3, "ab", [3], [("a",)], [("a", "n", "x")], [(3, "n")], [None], [("a", [])])))


SIDES = {"gold": NO_TAGS, "predicted": (*NO_TAGS, longer(1), longer(0)), "alphabet": NO_ALPHABET, "kinds": NO_KINDS}
METRIC = {"tags": NO_TAGS, "predicted": (*NO_TAGS, longer(1), longer(0))}
WEIGHT = {"sample_weight": (*NO_TENSOR[1:], longer(0), always(np.ones((2, 3))), always(np.ones(())))}

CASES = [
    Case(
        lambda kinds, scheme: [len(label) for label in tagging.alphabet_of(kinds, scheme)],
        schemes(),
        lambda kinds, scheme: [len(label) for label in alphabet(kinds, scheme)],
        {
            "kinds": (*(w for w in NO_COLLECTION), always([3]), always(["PER", "PER"]), always([None])),
            "scheme": (*NO_OPTION, always(None)),
        },
        0,
        name="alphabet_of",
        of=("alphabet_of",),
    ),
    Case(
        lambda labels: tree_of([numbers(tagging.spans_of(labels))]),
        schemes().flatmap(
            lambda s: st.fixed_dictionaries({"labels": st.lists(st.sampled_from(alphabet(**s)), max_size=6)})
        ),
        lambda labels: tree_of([numbers(read(labels))]),
        {"labels": NO_LABELS},
        0,
        name="spans_of",
        of=("spans_of", "Span"),
    ),
    Case(
        lambda **of: tree_of([numbers(read(tagging.labels_of(**of)))]),
        spellable(),
        lambda spans, length, scheme: tree_of([numbers(read(spell(spans, length, scheme)))]),
        {
            "spans": (*NO_SPANS, always([(0, 2, "A"), (1, 3, "A")]), always([(0, 99, "A")])),
            "length": (*NO_INTEGER, always(-1)),
            "scheme": (*NO_OPTION, always(None)),
        },
        0,
        name="labels_of",
        of=("labels_of",),
    ),
    Case(kept, span_sets(), most, {"spans": NO_SPANS}, 0, of=("disjoint",)),
    Case(
        lambda words: [ord(label) for label in tagging.segment_labels(words)],
        st.fixed_dictionaries({"words": st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)}),
        lambda words: [
            ord("s" if len(w) == 1 else "b" if i == 0 else "e" if i == len(w) - 1 else "m")
            for w in words
            for i in range(len(w))
        ],
        {"words": (*NO_COLLECTION, always([3]), always([""]), always([None]))},
        0,
        name="segment_labels",
        of=("segment_labels",),
    ),
    Case(
        lambda words, kinds: tree_of([numbers(tagging.spans_of_words(words, kinds))]),
        st.fixed_dictionaries(
            {
                "words": st.lists(st.tuples(st.text("ab", max_size=3), st.sampled_from("nv")), max_size=4),
                "kinds": st.sampled_from([{"n": "PER"}, {}, {"n": "PER", "v": "LOC"}]),
            }
        ),
        lambda words, kinds: tree_of(
            [
                [
                    (
                        sum(len(w) for w, _ in words[:i]),
                        sum(len(w) for w, _ in words[: i + 1]),
                        KINDS.index(kinds[tag]),
                    )
                    for i, (word, tag) in enumerate(words)
                    if tag in kinds and word
                ]
            ]
        ),
        {"words": NO_WORDS, "kinds": tuple(map(always, (None, 3, "n", ["n"], {"n": 3})))},
        0,
        name="spans_of_words",
        of=("spans_of_words",),
    ),
    Case(
        lambda tags, alphabet: tree_of([numbers(row) for row in tagging.spans_of_tags(tags, alphabet)]),
        reference=spans_by_rows,
        wrong={"tags": NO_TAGS, "alphabet": NO_ALPHABET},
        tolerance=0,
        **given("tags", "alphabet"),
        name="spans_of_tags",
        of=("spans_of_tags",),
    ),
    Case(
        lambda alphabet, scheme: tuple(tagging.legal_moves(alphabet)),  # noqa: ARG005
        reference=lambda alphabet, scheme: moves_of(tuple(alphabet), scheme),
        wrong={"alphabet": (*NO_ALPHABET, always(["O", "B-PER", "E-LOC"]), always(["I-PER", "B-LOC"]))},
        tolerance=0,
        **given("alphabet", "scheme"),
        name="legal_moves",
        of=("legal_moves", "LegalMoves"),
    ),
    Case(
        lambda tags, alphabet, scheme: tagging.illegal_moves(tags, alphabet),  # noqa: ARG005
        reference=illegal,
        wrong={"tags": NO_TAGS, "alphabet": NO_ALPHABET},
        tolerance=0,
        **given("tags", "alphabet", "scheme"),
        name="illegal_moves",
        of=("illegal_moves",),
    ),
    Case(
        lambda **two: of_score(tagging.score(**two)),
        st.builds(
            lambda a, b, kinds: {"gold": [a["spans"]], "predicted": [b["spans"]], "kinds": kinds},
            span_sets(),
            span_sets(),
            st.sampled_from([None, ["PER"], ["PER", "LOC"], {""}]),
        ),
        lambda gold, predicted, kinds: [
            len(
                set(gold[0]) & set(predicted[0])
                if kinds is None
                else {s for s in set(gold[0]) & set(predicted[0]) if s[2] in kinds}
            ),
            *(len({s for s in side[0] if kinds is None or s[2] in kinds}) for side in (predicted, gold)),
        ],
        {"gold": NO_SENTENCES[:-2], "predicted": NO_SENTENCES, "kinds": (*map(always, ("PER", 3, True)),)},
        0,
        name="score",
        of=("score", "Score"),
    ),
    Case(
        lambda **two: of_score(tagging.score_tags(**two)),
        reference=counts,
        wrong=SIDES,
        tolerance=0,
        **given("predicted", "alphabet", gold="tags"),
        name="score_tags",
        of=("score_tags",),
    ),
    Case(
        metric("SpanF1"),
        reference=f1,
        wrong={**METRIC, **WEIGHT, "alphabet": NO_ALPHABET, "kinds": NO_KINDS},
        tolerance=1e-6,
        **given("tags", "predicted", "sample_weight", "alphabet"),
    ),
    Case(
        metric("TokenAccuracy"),
        reference=accuracy,
        wrong={name: [w for w in ways if w is not BEYOND] for name, ways in {**METRIC, **WEIGHT}.items()},
        tolerance=1e-6,
        **given("tags", "predicted", "sample_weight"),
    ),
    Case(
        crf.every_answer(Softmax),
        crf.asked(learned=False),
        crf.answers(of_softmax, legal_of_softmax),
        crf.ASKED,
        crf.losing_scores,
        name="Softmax",
        of=("Softmax", "Head"),
        examples=10,
    ),
    Case(
        loss,
        weighted(),
        mean_loss,
        {
            "tags": (*NO_TENSOR, flatter, deeper, longer(1), plus(7), plus(0.5)),
            "emissions": (*NO_TENSOR, deeper, longer(1)),
            "head": NO_LAYER,
            **WEIGHT,
        },
        crf.losing_scores,
        of=("HeadLoss",),
    ),
    Case(
        decoded,
        # Keras takes −0 for less than 0, as JAX does; NumPy takes them for equal.
        crf.of_three().map(lambda given: {"head": Softmax(3), "emissions": given["emissions"] + 0}),
        lambda head, emissions: np.asarray(emissions, "float64").argmax(-1),  # noqa: ARG005
        {"head": NO_LAYER, "emissions": (none, *(w for w in crf.RETURNED["emissions"] if w is not none))},
        0,
        of=("Decode",),
        examples=10,
    ),
    Case(
        tagged,
        texts(),
        looked_up,
        {"encoder": NO_LAYER, "head": NO_LAYER, "padding": tuple(map(always, (True, "0", np.nan, [0], 1j)))},
        of=("Tagger",),
        examples=5,
    ),
]

EXEMPT = {
    "PADDING": "a number, which the tags of all cases hold",
    "SEGMENT_ALPHABET": "labels, which tests/test_tagging_spans.py reads",
    "TagMetric": "a base class, which SpanF1 and TokenAccuracy try",
    "UNKNOWN": "a number, which the tags of all cases hold",
}
