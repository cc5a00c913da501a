"""Cases of `lib.extraction`: pointers by a table of all pairs of places, scores by sets and recursion."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import ops

from fuzzing.cases import (
    NO_COUNT,
    NO_LAYER,
    NO_MASK,
    NO_NUMBER,
    NO_SEED,
    NO_TENSOR,
    NO_TEXT,
    NOT_POSITIVE,
    NOT_SEEN,
    Case,
    always,
    deeper,
    flatter,
    longer,
    none,
    plus,
)
from fuzzing.values import FLOATS, arrays, integers, masks, sizes
from lib import extraction
from lib.extraction import Triple

SCALES = (1.0, 0.0, 100.0, 1e4)

#: Keras 3.8 stumbles over None among several inputs before a layer sees it.
NOT_SEEN_BESIDE = NOT_SEEN if tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 9) else (*NOT_SEEN, none)


# --- one answer a text --------------------------------------------------------------------------------------------


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Logits of two pointers, an answer, a mask and where answers may be."""
    batch, time = draw(sizes(1, 3)), draw(sizes(1, 5))
    return {
        "logits": draw(arrays((batch, time, 2), scales=SCALES, special=(-np.inf,), dtypes=FLOATS)),
        "mask": draw(masks(batch, time)),
        "allowed": draw(masks(batch, time)),
        "starts": draw(integers((batch,), 0, time - 1)),
        "ends": draw(integers((batch,), 0, time - 1)),
        "longest": draw(st.integers(1, 6)),
    }


def some(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the arguments."""
    return answers().map(lambda given: {name: given[name] for name in names})


def log_softmax(logits: Any, mask: Any = None) -> np.ndarray:
    """Over the places that are valid, −∞ elsewhere."""
    x = np.array(logits, "float64")
    if mask is not None:
        x[~np.asarray(mask, bool)] = -np.inf
    total = np.logaddexp.reduce(x, axis=1, keepdims=True)
    return np.where(total == -np.inf, -np.inf, x - np.where(total == -np.inf, 0, total))


def loss_of_pointers(logits: Any, starts: Any, ends: Any, mask: Any = None) -> np.ndarray:
    p, row = log_softmax(logits, mask), np.arange(len(logits))
    return -(p[row, starts.astype(int), 0] + p[row, ends.astype(int), 1]) / 2


def best_by_table(logits: Any, mask: Any, allowed: Any, longest: int) -> np.ndarray:
    """The best pair of all."""
    p = log_softmax(logits, mask)
    may = np.ones(p.shape[:2], bool) if allowed is None else np.asarray(allowed, bool)
    found = []
    for row, ok in zip(p, may, strict=True):
        pairs = [(s, e) for s in range(len(row)) for e in range(s, min(s + longest, len(row))) if ok[s] and ok[e]]
        found.append(max((row[s, 0] + row[e, 1] for s, e in pairs), default=-np.inf))
    return np.array(found), np.array(found)


def best(**given: Any) -> tuple:
    """What the best answer is said to have, and what it has."""
    start, end, log_p = (ops.convert_to_numpy(x) for x in extraction.best_span(**given))
    p, row = log_softmax(given["logits"], given["mask"]), np.arange(len(start))
    assert np.all((log_p == -np.inf) | ((start <= end) & (end < start + given["longest"])))
    return log_p, np.where(log_p == -np.inf, log_p, p[row, start, 0] + p[row, end, 1])


def rounding(given: dict[str, Any]) -> float:
    """What single precision makes of differences of logits as large as these."""
    x = np.asarray(given["logits"], "float64")
    return 2e-5 + 4e-7 * np.max(np.abs(x[np.isfinite(x)]), initial=0.0)


# --- any number of spans ------------------------------------------------------------------------------------------


@st.composite
def pointers(draw: st.DrawFn) -> dict[str, Any]:
    """Probabilities of pointers, a threshold and a longest span."""
    time = draw(sizes(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    return {
        "starts": rng.uniform(size=time),
        "ends": rng.uniform(size=time),
        "threshold": draw(st.sampled_from([0.5, 0.2, 0.0, 1.0])),
        "longest": draw(st.none() | st.integers(1, 4)),
    }


def pairs(starts: Any, ends: Any, threshold: float, longest: Any) -> np.ndarray:
    """Each start with the nearest end."""
    found = []
    for s in range(len(starts)):
        later = [e + 1 for e in range(s, len(ends)) if ends[e] > threshold]
        if starts[s] > threshold and later and (longest is None or later[0] - s <= longest):
            found.append((s, later[0]))
    return np.array(found, float).reshape(-1, 2)


def flags() -> st.SearchStrategy[dict[str, Any]]:
    """Flags of many texts, of any type."""

    def made(shape: tuple[int, int], seed: int, dtype: str) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        return {name: (rng.uniform(size=shape) < 0.5).astype(dtype) for name in ("starts", "ends")}

    shape = st.tuples(sizes(0, 3), sizes(0, 5))
    return st.builds(made, shape, st.integers(0, 2**16), st.sampled_from(["bool", "uint8", "float32", "int64"]))


def rows_of_pairs(starts: Any, ends: Any) -> np.ndarray:
    found = [(i, *pair) for i in range(len(starts)) for pair in pairs(starts[i], ends[i], 0.5, None)]
    return np.array(found, float).reshape(-1, 3)


@st.composite
def powers(draw: st.DrawFn) -> dict[str, Any]:
    """Logits, targets and a power."""
    shape = tuple(draw(st.lists(sizes(1, 3), max_size=2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["flags", "probabilities", "one"]))
    targets = rng.uniform(size=shape).astype("float32")
    targets = {"flags": (targets < 0.5).astype("uint8"), "one": np.float32(0.25)}.get(kind, targets)
    return {
        "logits": draw(arrays(shape, scales=(1.0, 0.0, 30.0), dtypes=FLOATS)),
        "targets": targets,
        "power": draw(st.sampled_from([1, 2, 4, 0.5])),
    }


def sigmoid_to(logits: Any, power: float) -> np.ndarray:
    return (1 / (1 + np.exp(-np.asarray(logits, "float64")))) ** power


def crossentropy(logits: Any, targets: Any, power: float) -> np.ndarray:
    """With log(1 − pⁿ) by log1p, in double precision, and by the tail where p rounds to 1."""
    z, t = np.asarray(logits, "float64"), np.asarray(targets, "float64")
    log_p = -power * np.logaddexp(0, -z)
    return -t * log_p - (1 - t) * np.log(-np.expm1(log_p))


# --- cascade ------------------------------------------------------------------------------------------------------


@st.composite
def triples(draw: st.DrawFn, least: int = 0) -> dict[str, Any]:
    """Triples of a text of six tokens, and a subject."""

    def place() -> tuple[int, int]:
        start = draw(st.integers(0, 5))
        return start, draw(st.integers(start + 1, 6))

    found = [Triple(place(), draw(st.integers(0, 2)), place()) for _ in range(draw(st.integers(least, 3)))]
    subjects = [triple.subject for triple in found]
    return {"triples": found, "subject": draw(st.sampled_from([*subjects, (0, 6)])), "time": 6, "predicates": 3}


def pointed(triples: Any, time: int, predicates: int, subject: Any) -> tuple:
    subjects, objects = np.zeros((time, 2)), np.zeros((time, predicates, 2))
    for t in triples:
        subjects[t.subject[0], 0] = subjects[t.subject[1] - 1, 1] = 1
        if t.subject == subject:
            objects[t.object[0], t.predicate, 0] = objects[t.object[1] - 1, t.predicate, 1] = 1
    return subjects, objects


def as_targets(**given: Any) -> tuple:
    found = extraction.targets(**given)
    return found["subjects"], found["objects"]


def could_be_drawn(triples: Any, independent: bool, seed: Any) -> bool:
    start, end = extraction.sample_subject(triples, independent=independent, seed=seed)
    subjects = {triple[0] for triple in triples}
    return start < end and (
        {start, end} <= {place for one in subjects for place in one} if independent else (start, end) in subjects
    )


@st.composite
def cascades(draw: st.DrawFn) -> dict[str, Any]:
    """A cascade over a table of vectors, ids and a subject each."""
    batch, time = draw(sizes(1, 2)), draw(sizes(2, 4))
    ids = draw(integers((batch, time), 1, 4)).astype("int32")
    valid = np.arange(time) < np.array([draw(st.integers(1, time)) for _ in range(batch)])[:, None]
    ids = np.where(valid, ids, 0)
    return {
        "encoder": keras.layers.Embedding(5, 4, mask_zero=True),
        "predicates": draw(sizes(1, 2)),
        "power": draw(st.sampled_from([1, (2, 4)])),
        "bias": draw(st.sampled_from([0.0, (-1.0, 1.0)])),
        "threshold": draw(st.sampled_from([0.3, (0.5, 0.2)])),
        "padding": draw(st.sampled_from([None, 0])),
        "ids": ids,
        "subject": np.array([[0, 1]] * batch),
    }


def of_cascade(ids: Any, subject: Any, **options: Any) -> tuple:
    """Logits and loss of a cascade, and its triples, against what its own logits say."""
    model = extraction.Cascade(**options)
    logits = model({"ids": ids, "subject": subject})
    y = {name: np.zeros(tuple(x.shape), "uint8") for name, x in logits.items()}
    loss = model.compute_loss(y=y, y_pred=logits)
    subjects, objects = (ops.convert_to_numpy(logits[name]).astype("float64") for name in ("subjects", "objects"))
    power = options["power"] if isinstance(options["power"], tuple) else (options["power"],) * 2
    valid = ids != 0
    each = crossentropy(np.where(valid[..., None], subjects, 0), 0.0, power[0]).mean(-1)
    each = each + crossentropy(np.where(valid[..., None, None], objects, 0), 0.0, power[1]).mean(-1).sum(-1)
    padded = np.array(
        [
            np.all(np.isneginf(subjects) == ~valid[..., None]),
            np.all(np.isneginf(objects) == ~valid[..., None, None]),
        ]
    )
    found = model.extract(ids)
    threshold = options["threshold"] if isinstance(options["threshold"], tuple) else (options["threshold"],) * 2
    expected = [by_hand(model, row, power, threshold, options["predicates"]) for row in ids]
    return float(loss) - np.sum(each * valid) / np.sum(valid), padded, found == expected


def by_hand(model: Any, ids: Any, power: Any, threshold: Any, predicates: int) -> set:
    """The triples of one text, subject by subject."""
    first = sigmoid_to(ops.convert_to_numpy(model({"ids": ids[None]})["subjects"])[0], power[0])
    found = set()
    for start, end in pairs(first[:, 0], first[:, 1], threshold[0], None).astype(int).tolist():
        objects = model({"ids": ids[None], "subject": np.array([[start, end]])})["objects"]
        p = sigmoid_to(ops.convert_to_numpy(objects)[0], power[1])
        for k in range(predicates):
            for place in pairs(p[:, k, 0], p[:, k, 1], threshold[1], None).astype(int).tolist():
                found.add(Triple((start, end), k, tuple(place)))
    return found


# --- scores -------------------------------------------------------------------------------------------------------


def common(a: Any, b: Any) -> int:
    """The longest common subsequence by its recursion."""

    @cache
    def of(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        return 1 + of(i + 1, j + 1) if a[i] == b[j] else max(of(i + 1, j), of(i, j + 1))

    return of(0, 0)


def overlap(a: str, b: str) -> float:
    left, shared = list(b), 0
    for x in a:
        if x in left:
            left.remove(x)
            shared += 1
    return 2 * shared / (len(a) + len(b)) if a or b else 1.0


def of_answers(gold: Any, predicted: str) -> tuple[float, float]:
    gold = gold or [""]
    return float(predicted in gold), max(overlap(one, predicted) for one in gold)


def counts(score: Any) -> list[float]:
    return [score.correct, score.predicted, score.gold]


def of_triples(gold: Any, predicted: Any) -> list[int]:
    both = [(set(a), set(b)) for a, b in zip(gold, predicted, strict=True)]
    return [sum(len(a & b) for a, b in both), sum(len(b) for _, b in both), sum(len(a) for a, _ in both)]


def of_events(gold: Any, predicted: Any) -> list[float]:
    marks = sum(
        (2 * common(gold[key], x) / (len(gold[key]) + len(x)) if gold[key] or x else 1.0)
        for key, x in predicted.items()
        if key in gold
    )
    return [marks, len(predicted), len(gold)]


@st.composite
def points(draw: st.DrawFn) -> dict[str, Any]:
    """Vectors for a layer of pointers whose weights are 0, so that each logit is the bias."""
    batch, time = draw(sizes(1, 2)), draw(sizes(1, 3))
    return {
        "vectors": draw(arrays((batch, time, 3), scales=(0.0,))),
        "mask": draw(masks(batch, time)),
        "kinds": draw(st.none() | sizes(1, 2)),
        "bias": draw(st.floats(-2, 2, width=16)),
        "dropout": 0.5,
        "seed": 0,
    }


def logits_of(vectors: Any, mask: Any, **options: Any) -> Any:
    return extraction.SpanPointer(**options)(vectors, mask=mask)


def biases(vectors: Any, mask: Any, kinds: Any, bias: float, **_: Any) -> np.ndarray:
    valid = np.ones(vectors.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    shape = (*vectors.shape[:2], 2) if kinds is None else (*vectors.shape[:2], kinds, 2)
    return np.where(valid.reshape(*valid.shape, *[1] * (len(shape) - 2)), np.full(shape, bias), -np.inf)


LOGITS = (*NO_TENSOR, flatter, deeper, longer(2))
NO_PLACES = (*NO_TENSOR, deeper, longer(0), plus(9), plus(-9), plus(0.5))
NO_POINTERS = (*NO_TENSOR, plus(9), plus(-9), plus(0.5), deeper)
MASKS = (*NO_MASK, longer(1))
NO_PROBABILITIES = (*NO_TENSOR, deeper, longer(0), always(["a"]), always([np.nan]))
NO_FLAGS = (*NO_TENSOR, longer(0), longer(1), plus(2), plus(0.5), always(np.float32(1)))
NO_TRIPLES = tuple(
    map(
        always,
        (
            None, 3, "ab", [3], [None], [((0, 1), 0)], [((1, 0), 0, (0, 1))], [((0, 1), 0, (0, 0))],
            [((0, 1), 0, None)],
            [((0.5, 1), 0, (0, 1))], [((0, 1), "0", (0, 1))], [((0, 1), 0.5, (0, 1))], [(("0", 1), 0, (0, 1))],
            [((0, 1, 2), 0, (0, 1))], [((0, True), 0, (0, 1))], [((0, 1), True, (0, 1))], [((0, 1), -1, (0, 1))],
        ),
    )
)  # fmt: skip
BEYOND = (always([((0, 1), 9, (0, 1))]), always([((0, 9), 0, (0, 1))]), always([((-1, 1), 0, (0, 1))]))
NO_SUBJECT = tuple(map(always, (None, 3, "ab", (1,), (1, 2, 3), (0.5, 1), ("0", 1), (2, 1), (0, 9), (-1, 1))))
NO_TEXTS = tuple(map(always, (None, 3, "ab", [3], [None], [["a"]])))
NO_ARGUMENTS = tuple(map(always, (None, 3, "ab", [3], {("a", "b"): 3}, {("a", "b"): None})))
NO_TEXTS_OF_TRIPLES = tuple(map(always, (None, 3, "ab", [3], [None], [["ab"], []], [], [[[1, 2, 3]]])))
NO_PAIR = tuple(map(always, (None, "2", (1,), (1, 2, 3), True, np.nan, 1j, [1, "2"])))

CASES = [
    Case(
        extraction.pointer_loss,
        some("logits", "starts", "ends", "mask"),
        loss_of_pointers,
        {"logits": LOGITS, "starts": NO_PLACES, "ends": NO_PLACES, "mask": MASKS},
        rounding,
    ),
    Case(
        extraction.span_loss,
        some("logits", "starts", "ends").map(
            lambda g: {"logits": g["logits"], "pointers": np.stack([g["starts"], g["ends"]], -1)}
        ),
        lambda logits, pointers: loss_of_pointers(logits, *pointers.T),
        {"logits": LOGITS, "pointers": NO_POINTERS},
        rounding,
    ),
    Case(
        best,
        some("logits", "mask", "allowed", "longest"),
        best_by_table,
        {"logits": LOGITS, "mask": MASKS, "allowed": MASKS, "longest": NO_COUNT},
        rounding,
        of=("best_span",),
    ),
    Case(
        lambda **given: np.array(extraction.spans_from_pointers(**given), float).reshape(-1, 2),
        pointers(),
        pairs,
        {
            "starts": NO_PROBABILITIES,
            "ends": NO_PROBABILITIES,
            "threshold": NO_NUMBER,
            "longest": tuple(w for w in NO_COUNT if w.__name__ != "None"),
        },
        0,
        pointers().filter(lambda given: len(given["starts"])),
        name="spans_from_pointers",
        of=("spans_from_pointers",),
    ),
    Case(
        extraction.pair_pointers,
        flags(),
        rows_of_pairs,
        {"starts": NO_FLAGS, "ends": NO_FLAGS},
        0,
        flags().filter(lambda given: given["starts"].size),
    ),
    Case(
        extraction.power_sigmoid,
        powers().map(lambda given: {name: given[name] for name in ("logits", "power")}),
        sigmoid_to,
        {"logits": NO_TENSOR, "power": NOT_POSITIVE},
        1e-6,
    ),
    Case(
        extraction.power_crossentropy,
        powers(),
        crossentropy,
        {"logits": NO_TENSOR, "targets": (*NO_TENSOR, plus(2), plus(-2), always([0.5] * 7)), "power": NOT_POSITIVE},
        1e-6,
    ),
    Case(
        extraction.prior_bias,
        st.fixed_dictionaries({"power": st.floats(0.125, 40)}),
        lambda power: -math.log(2**power - 1),
        {"power": NOT_POSITIVE},
        1e-12,
    ),
    Case(
        logits_of,
        points(),
        biases,
        {
            "vectors": tuple(w for w in (*NO_TENSOR, flatter, deeper) if w not in NOT_SEEN),
            "mask": (*(w for w in NO_MASK if w not in NOT_SEEN), longer(1)),
            "kinds": tuple(w for w in NO_COUNT if w.__name__ != "None"),
            "bias": NO_NUMBER,
            "dropout": (*NO_NUMBER, always(-0.5), always(1.5), always(1.0)),
            "seed": NO_SEED,
        },
        of=("SpanPointer",),
    ),
    Case(
        as_targets,
        triples(),
        pointed,
        {"triples": (*NO_TRIPLES, *BEYOND), "time": NO_COUNT, "predicates": NO_COUNT, "subject": NO_SUBJECT},
        0,
        of=("targets", "Triple"),
    ),
    Case(
        could_be_drawn,
        st.builds(
            lambda t, i, s: {"triples": t["triples"], "independent": i, "seed": s},
            triples(1),
            st.booleans(),
            st.integers(0, 99),
        ),
        lambda **_: True,
        {"triples": (*NO_TRIPLES, always([])), "seed": NO_SEED[:4]},
        of=("sample_subject",),
    ),
    Case(
        of_cascade,
        cascades(),
        lambda **_: (0.0, np.array([True, True]), True),
        {
            "encoder": NO_LAYER,
            "predicates": NO_COUNT,
            "power": (*NO_PAIR, always(0), always((1, -1))),
            "bias": NO_PAIR,
            "threshold": NO_PAIR,
            "padding": tuple(map(always, (True, "0", 1.5, -1))),
            "subject": tuple(
                w for w in (*NO_TENSOR, flatter, deeper, plus(9), plus(-9), plus(0.5)) if w not in NOT_SEEN_BESIDE
            ),
        },
        1e-5,
        of=("Cascade",),
        examples=4,
    ),
    Case(
        extraction.longest_common_subsequence,
        st.fixed_dictionaries({"a": st.text("abc", max_size=6), "b": st.text("abc", max_size=6)}),
        common,
        {"a": tuple(map(always, (None, 3, {1, 2}, True))), "b": tuple(map(always, (None, 3, {1, 2}, True)))},
        0,
    ),
    Case(
        extraction.answer_score,
        st.fixed_dictionaries(
            {"gold": st.lists(st.text("ab", max_size=4), max_size=3), "predicted": st.text("ab", max_size=4)}
        ),
        of_answers,
        {"gold": NO_TEXTS, "predicted": NO_TEXT},
        1e-12,
    ),
    Case(
        lambda gold, predicted: counts(extraction.triple_score(gold, predicted)),
        st.builds(lambda a, b: {"gold": [a["triples"]], "predicted": [b["triples"]]}, triples(), triples()),
        of_triples,
        {"gold": NO_TEXTS_OF_TRIPLES[:-2], "predicted": NO_TEXTS_OF_TRIPLES},
        0,
        name="triple_score",
        of=("triple_score",),
    ),
    Case(
        lambda gold, predicted: counts(extraction.event_score(gold, predicted)),
        st.fixed_dictionaries(
            {
                name: st.dictionaries(
                    st.tuples(st.sampled_from("AB"), st.sampled_from("xy")), st.text("ab", max_size=4), max_size=3
                )
                for name in ("gold", "predicted")
            }
        ),
        of_events,
        {"gold": NO_ARGUMENTS, "predicted": NO_ARGUMENTS},
        1e-12,
        name="event_score",
        of=("event_score",),
    ),
]

EXEMPT: dict[str, str] = {}
