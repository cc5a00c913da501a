"""Truths about ``lib.extraction``, on whichever backend KERAS_BACKEND names."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numerics import array
from scipy.special import expit

from lib.bert import Encoder
from lib.crf import CRF
from lib.extraction import (
    Cascade,
    Triple,
    answer_score,
    event_score,
    longest_common_subsequence,
    power_sigmoid,
    prior_bias,
    sample_subject,
    targets,
    triple_score,
)
from lib.tagging import Score, Span, Tagger, alphabet_of, labels_of, legal_moves, spans_of_tags

# The heads run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
QUICK = {"jit_compile": BACKEND == "jax"}  # XLA takes longer to compile these than they take to run


# --- relations ------------------------------------------------------------------------------------------------

TRIPLES = [
    Triple((1, 3), 0, (4, 5)),
    Triple((1, 3), 1, (4, 5)),
    Triple((6, 8), 0, (4, 5)),
    Triple((2, 3), 2, (0, 2)),
]


def test_targets_point_at_first_and_last_tokens():
    y = targets(TRIPLES, time=9, predicates=3, subject=(1, 3))
    assert [np.flatnonzero(y["subjects"][:, i]).tolist() for i in (0, 1)] == [[1, 2, 6], [2, 7]]
    assert np.argwhere(y["objects"]).tolist() == [[4, 0, 0], [4, 0, 1], [4, 1, 0], [4, 1, 1]]
    assert y["subjects"].dtype == y["objects"].dtype == np.uint8


def test_a_subject_that_is_none_has_no_objects():
    y = targets(TRIPLES, time=9, predicates=3, subject=(1, 8))
    assert y["objects"].sum() == 0
    assert y["subjects"].sum() == 5


def test_sampled_subjects_are_gold_or_pair_a_start_with_a_later_end():
    rng = np.random.default_rng(0)
    gold = {sample_subject(TRIPLES, independent=False, seed=rng) for _ in range(200)}
    assert gold == {(1, 3), (2, 3), (6, 8)}
    pairs = [sample_subject(TRIPLES, seed=rng) for _ in range(3000)]
    assert set(pairs) == {(1, 3), (1, 8), (2, 3), (2, 8), (6, 8)}
    # A start has chance 1/3; after (1, ·) and (2, ·) come the ends 3, 3, 8, after (6, ·) only 8.
    for pair, chance in {(1, 3): 2 / 9, (1, 8): 1 / 9, (6, 8): 1 / 3}.items():
        assert abs(pairs.count(pair) / 3000 - chance) < 4 * math.sqrt(chance / 3000)
    assert sample_subject([Triple((1, 2), 0, (3, 4))], seed=rng) == (1, 2)


PREDICATES = 3


def sentences():
    """Twelve sentences "s x o y o′ z s′" with shared entities: (s, 0, o), (s, 1, o) if y is even, (s′, 2, o)."""
    rng = np.random.default_rng(3)
    ids, triples = np.zeros((12, 10), "int32"), []
    for row in ids:
        two = rng.integers(2)  # whether the first entity has two tokens
        first, second = [4, 5] if two else [6], [8]
        y = int(rng.integers(10, 12))
        other = [4, 5] if rng.integers(2) else [9]
        words = [[3], first, [rng.integers(12, 15)], second, [y], other]
        ends = np.cumsum([len(word) for word in words]).tolist()
        place = [(end - len(word), end) for end, word in zip(ends, words, strict=True)]
        row[: ends[-1]] = np.concatenate(words)
        found = {Triple(place[1], 0, place[3]), Triple(place[5], 2, place[3])}
        found |= {Triple(place[1], 1, place[3]), Triple(place[1], 0, place[5])} if y == 10 else set()
        triples.append(found)
    return ids, triples


def examples(ids, triples, draws=6):
    rng = np.random.default_rng(0)
    subjects, y = [], []
    for found in triples * draws:
        subjects.append(sample_subject(found, seed=rng))
        y.append(targets(found, ids.shape[1], PREDICATES, subjects[-1]))
    x = {"ids": np.tile(ids, (draws, 1)), "subject": np.array(subjects, "int32")}
    return x, {name: np.stack([one[name] for one in y]) for name in ("subjects", "objects")}


def bert(**options):
    options = {"vocabulary": 16, "hidden": 32, "layers": 1, "num_heads": 4, "inner": 64, "positions": 12} | options
    return Encoder.from_sizes(**options, dropout=0.0)


@pytest.fixture(scope="module")
def learned():
    """A cascade that has learned its sentences by heart, with them."""
    keras.utils.set_random_seed(0)
    ids, triples = sentences()
    model = Cascade(bert(), PREDICATES)
    model.compile(keras.optimizers.Adam(0.01), **QUICK)
    x, y = examples(ids, triples)
    history = model.fit(x, y, epochs=60, batch_size=24, verbose=0).history["loss"]
    return model, ids, triples, x, y, history


def test_a_cascade_learns_sentences_with_shared_entities_exactly(learned):
    model, ids, triples, _, _, history = learned
    assert any(len({t.predicate for t in found if t[::2] == one[::2]}) > 1 for found in triples for one in found)
    assert any(len({t.subject for t in found if t.object == one.object}) > 1 for found in triples for one in found)
    assert any(one.subject[1] - one.subject[0] == 2 for found in triples for one in found)
    assert history[-1] < 0.02 < 0.5 < history[0]
    assert model.extract(ids) == triples
    assert triple_score(triples, model.extract(ids)).f1 == 1.0


@pytest.mark.parametrize("batch", [1, 5])
def test_the_size_of_a_batch_changes_no_triple(learned, batch):
    model, ids, triples, *_ = learned
    assert model.extract(ids, batch=batch) == triples


def test_padding_changes_no_triple_and_no_loss(learned):
    model, ids, triples, x, y, _ = learned
    wider = np.pad(ids, ((0, 0), (0, 2)))
    assert model.extract(wider) == triples
    assert all(model.extract(row[None, row > 0]) == [found] for row, found in zip(ids[:2], triples, strict=False))
    loss = model.evaluate(x, y, verbose=0)
    padded_x = {**x, "ids": np.pad(x["ids"], ((0, 0), (0, 2)))}
    padded_y = {name: np.pad(one, ((0, 0), (0, 2)) + ((0, 0),) * (one.ndim - 2)) for name, one in y.items()}
    assert math.isclose(loss, model.evaluate(padded_x, padded_y, verbose=0), rel_tol=1e-4)


def test_there_is_nothing_in_no_text_and_in_padding(learned):
    model, ids, *_ = learned
    assert model.extract(ids[:0]) == []
    assert model.extract(np.zeros_like(ids[:2])) == [set(), set()]


def test_the_steps_of_extraction_are_those_of_training(learned):
    model, _, _, x, _, _ = learned
    x = {name: value[:4] for name, value in x.items()}
    both = {name: array(value) for name, value in model(x).items()}
    first = {name: array(value) for name, value in model({"ids": x["ids"]}).items()}
    second = array(model({"vectors": first["vectors"], "subject": x["subject"]})["objects"])
    valid = x["ids"] > 0
    np.testing.assert_allclose(first["subjects"], both["subjects"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second[valid], both["objects"][valid], rtol=1e-5, atol=1e-5)
    assert (both["objects"][~valid] == -np.inf).all()
    assert (both["subjects"][~valid] == -np.inf).all()


def test_a_saved_cascade_extracts_the_same_and_trains_on(learned, tmp_path):
    model, ids, triples, x, y, _ = learned
    model.save(tmp_path / "cascade.keras")
    again = keras.models.load_model(tmp_path / "cascade.keras")
    assert again.extract(ids) == triples
    assert again.fit(x, y, batch_size=24, verbose=0).history["loss"][0] < 0.05

    model.save_weights(tmp_path / "cascade.weights.h5")
    fresh = Cascade.from_config(model.get_config())
    fresh.build({"ids": ids.shape})
    fresh.load_weights(tmp_path / "cascade.weights.h5")
    for weight, expected in zip(fresh.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert fresh.get_config() == model.get_config()


def embedding(mask=True):
    return keras.layers.Embedding(16, 8, mask_zero=mask)


def test_the_loss_is_the_mean_over_tokens_and_pointers_summed_over_predicates():
    ids, triples = sentences()
    x, y = examples(ids, triples, draws=1)
    model = Cascade(keras.Sequential([embedding(mask=False), keras.layers.Dense(8)]), PREDICATES, padding=0)
    logits = {name: array(value).astype("float64") for name, value in model(x).items()}
    model.compile("sgd", **QUICK)
    total = 0.0
    for row, column in np.argwhere(ids > 0):
        for name, n in (("subjects", 2), ("objects", 4)):
            p, t = expit(logits[name][row, column]) ** n, y[name][row, column]
            total += -np.sum(t * np.log(p) + (1 - t) * np.log1p(-p)) / 2
    expected = total / np.sum(ids > 0)
    assert math.isclose(model.evaluate(x, y, batch_size=12, verbose=0), expected, rel_tol=1e-5)


def test_what_regularizers_add_is_in_the_loss():
    ids, triples = sentences()
    x, y = examples(ids, triples, draws=1)
    layer = embedding()
    plain = Cascade(layer, PREDICATES)
    plain.compile("sgd", **QUICK)
    before = plain.evaluate(x, y, batch_size=12, verbose=0)
    layer.embeddings_regularizer = layer.embeddings.regularizer = keras.regularizers.L2(0.5)
    expected = before + 0.5 * np.sum(array(layer.embeddings) ** 2)
    plain.compile("sgd", **QUICK)
    assert math.isclose(plain.evaluate(x, y, batch_size=12, verbose=0), expected, rel_tol=1e-5)


@pytest.mark.parametrize(
    "options", [{"power": (2, 4)}, {"power": 1, "bias": (prior_bias(2), prior_bias(4))}], ids=["power", "bias"]
)
def test_a_cascade_begins_near_the_prior(options):
    ids, _ = sentences()
    model = Cascade(embedding(), PREDICATES, **options)
    logits = model({"ids": ids, "subject": np.tile([1, 2], (12, 1))})
    for name, power, prior in zip(("subjects", "objects"), model.power, (2**-2, 2**-4), strict=True):
        p = array(power_sigmoid(logits[name], power))
        assert (p[ids == 0] == 0).all()
        np.testing.assert_allclose(p[ids > 0].mean(), prior, rtol=0.15)


def test_the_threshold_of_each_step_counts(learned):
    model, ids, triples, *_ = learned
    strict, loose = model.threshold, []
    for threshold in [(1.0, 0.5), (0.5, 1.0)]:
        model.threshold = threshold
        loose.append(model.extract(ids))
    model.threshold = strict
    assert loose == [[set()] * 12] * 2
    assert model.extract(ids) == triples


@pytest.mark.parametrize("step", [0, 1])
def test_a_probability_that_equals_the_threshold_points_at_nothing(step):
    model, logits = Cascade(bert(), PREDICATES), np.zeros((1, 3, 2), "float32")
    at = array(power_sigmoid(logits, model.power[step])).flat[0]
    for threshold, points in ((at, False), (np.nextafter(at, np.float32(0)), True)):
        model.threshold = (threshold, threshold)
        assert np.all(model._pointed(logits, step) == points)


def test_a_cascade_in_mixed_precision_has_nearly_the_same_loss():
    ids, triples = sentences()
    x, y = examples(ids, triples, draws=1)
    models, before = [], keras.config.dtype_policy()
    try:
        for policy in ("float32", "mixed_bfloat16"):
            keras.config.set_dtype_policy(policy)
            models.append(Cascade(embedding(), PREDICATES))
            models[-1].build({"ids": ids.shape})
            models[-1].compile(keras.optimizers.SGD(0.1), **QUICK)
    finally:
        keras.config.set_dtype_policy(before)
    wide, narrow = models
    narrow.set_weights(wide.get_weights())
    losses = [model.fit(x, y, batch_size=12, epochs=2, verbose=0).history["loss"] for model in models]
    np.testing.assert_allclose(*losses, rtol=5e-3)
    assert losses[1][1] < losses[1][0] - 1e-3
    narrow.threshold = (0.01, 0.01)
    found = narrow.extract(ids)
    assert all(0 <= start < end <= 10 for one in found for triple in one for start, end in triple[::2])
    assert sum(map(len, found)) > 12


# --- events ---------------------------------------------------------------------------------------------------


def test_composite_kinds_are_labels_that_a_crf_learns():
    keras.utils.set_random_seed(0)
    alphabet = alphabet_of(["Attack/Attacker", "Attack/Place", "Die/Place"])
    # 1 2 attacks (3) or dies (4) in 5 6: what 5 6 is depends on the verb.
    ids = np.array([[1, 2, 3, 7, 5, 6], [8, 4, 7, 5, 6, 0], [1, 3, 5, 6, 0, 0]])
    gold = [
        [Span(0, 2, "Attack/Attacker"), Span(4, 6, "Attack/Place")],
        [Span(3, 5, "Die/Place")],
        [Span(0, 1, "Attack/Attacker"), Span(2, 4, "Attack/Place")],
    ]
    tags = np.full(ids.shape, -1)
    for row, spans in enumerate(gold):
        labels = labels_of(spans, int((ids[row] > 0).sum()))
        tags[row, : len(labels)] = [alphabet.index(label) for label in labels]
    crf = CRF(len(alphabet), legal=legal_moves(alphabet), learning_rate_multiplier=10)
    layers = keras.layers
    encoder = keras.Sequential(
        [
            layers.Embedding(9, 16),
            layers.Conv1D(32, 5, padding="same", activation="relu"),
            layers.Dense(len(alphabet)),
        ]
    )
    tagger = Tagger(encoder, crf, padding=0)
    tagger.compile(keras.optimizers.Adam(0.03), **QUICK)
    tagger.fit(ids, tags, epochs=40, verbose=0)
    assert spans_of_tags(tagger.predict(ids, verbose=0), alphabet) == gold


# --- metrics --------------------------------------------------------------------------------------------------


def brute_subsequence(a, b):
    parts = [{tuple(s) for n in range(len(x) + 1) for s in itertools.combinations(x, n)} for x in (a, b)]
    return max(map(len, parts[0] & parts[1]))


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_longest_common_subsequence_is_the_longest_of_all(a, b):
    assert longest_common_subsequence(a, b) == brute_subsequence(a, b)


def test_event_score_by_hand():
    gold = {("Attack", "Place"): "New York", ("Attack", "Time"): "Monday", ("Die", "Person"): "Li"}
    predicted = {("Attack", "Place"): "York", ("Attack", "Time"): "Monday", ("Die", "Place"): "Li"}
    # LCS("New York", "York") = 4: 8/12. "Monday" earns 1. ("Die", "Place") is not asked for.
    score = event_score(gold, predicted)
    assert math.isclose(score.correct, 2 / 3 + 1)
    assert (score.predicted, score.gold) == (3, 3)
    assert math.isclose(score.f1, 2 * (5 / 3) / 6)
    assert event_score(gold, gold) == Score(3, 3, 3)
    assert event_score(gold, {}) == Score(0, 0, 3)
    assert math.isclose((score + event_score(gold, gold)).precision, (5 / 3 + 3) / 6)


@pytest.mark.parametrize("wrong", [None, "text", [("a", "b")], {"ab": "x"}, {("a", "b"): 1}, {("a", "b"): None}])
def test_arguments_of_events_are_a_mapping_of_tuples_to_text(wrong):
    for name, arguments in (("gold", (wrong, {})), ("predicted", ({}, wrong))):
        with pytest.raises(ValueError, match=rf"{name} must be a mapping of \(type, role\) to text"):
            event_score(*arguments)


def test_the_article_s_metric_cannot_see_groups():
    # Who attacked which town? The events differ, their (type, role, argument) do not.
    attacks = [
        ("Attack", {"Attacker": "Goths", "Place": "Rome"}),
        ("Attack", {"Attacker": "Huns", "Place": "Metz"}),
    ]
    swapped = [
        ("Attack", {"Attacker": "Huns", "Place": "Rome"}),
        ("Attack", {"Attacker": "Goths", "Place": "Metz"}),
    ]
    merged = [
        ("Attack", {"Attacker": "Goths", "Place": "Rome"}),
        ("Attack", {"Attacker": "Huns"}),
        ("Attack", {"Place": "Metz"}),
    ]
    flat = [
        {(kind, role, argument) for kind, roles in events for role, argument in roles.items()}
        for events in (attacks, swapped, merged)
    ]
    assert attacks != swapped
    assert flat[0] == flat[1] == flat[2]
    assert triple_score(flat[:1], flat[1:2]).f1 == 1
    # ``event_score`` keeps one argument for each type and role, whichever group it came from.
    firsts = [{(kind, role): argument for kind, role, argument in sorted(some, reverse=True)} for some in flat]
    assert event_score(firsts[0], firsts[1]).f1 == 1


def test_triple_score_by_hand():
    a, b, c = (("s", p, "o") for p in range(3))
    assert triple_score([{a, b}, {c}], [{a, c}, set()]) == Score(1, 2, 3)
    assert triple_score([[a, a]], [[a]]) == Score(1, 1, 1)
    assert triple_score([], []) == Score()


@pytest.mark.parametrize(
    ("gold", "predicted", "exact", "f1"),
    [
        (["北京"], "北京", 1, 1),
        (["北京市"], "北京", 0, 4 / 5),
        (["上海", "北京市"], "北京", 0, 4 / 5),  # the best gold answer counts
        (["aab"], "aba", 0, 1),  # a bag has no order
        (["aa"], "a", 0, 2 / 3),  # and counts repetitions
        (["ab"], "cd", 0, 0),
        ([""], "", 1, 1),  # no answer, and none given
        ([], "", 1, 1),
        ([""], "北京", 0, 0),
        (["北京"], "", 0, 0),
    ],
)
def test_answer_score_by_hand(gold, predicted, exact, f1):
    assert answer_score(gold, predicted) == (exact, pytest.approx(f1))


# --- arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_subject([], seed=0), "at least one triple, got none"),
        (
            lambda: targets([((0, 0), 0, (1, 2))], 3, 1, (0, 1)),
            r"0 <= start < end <= time = 3, got the span \(0, 0\)",
        ),
        (lambda: targets([((0, 1), 0, (1, 4))], 3, 1, (0, 1)), r"got the span \(1, 4\)"),
        (lambda: targets([((0, 1), 1, (1, 2))], 3, 1, (0, 1)), r"predicates in \[0, 1\), got 1"),
        (lambda: Cascade(len, 1), "encoder must be a Keras model or layer, got <built-in function len>"),
        (lambda: Cascade(embedding(), 0), "predicates must be a positive integer, got 0"),
        (lambda: Cascade(embedding(), 1, power=(1, 2, 3)), r"power must be one number or two, got \(1, 2, 3\)"),
        (lambda: Cascade(embedding(), 1).compile("sgd", loss="mse"), "loss must be left out.*got 'mse'"),
        (lambda: Cascade(embedding(), 1).compute_loss(sample_weight=np.ones(3)), "sample_weight must be left out"),
        (lambda: Cascade(embedding(), 1).extract([1, 2]), r"ids must have shape \(texts, time\), got shape \(2,\)"),
        (lambda: answer_score("北京", "北京"), "gold must be a collection of answers, got the string '北京'"),
        (lambda: triple_score([set()], []), "predicted must have the texts of gold, got 0 and 1 texts"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
