"""Truths about ``lib.tagging.metrics``; seqeval, which lists the spans one by one, is the judge of the F1."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops
from numerics import BACKEND, array, compiled
from seqeval.metrics.sequence_labeling import get_entities

from lib.tagging import (
    PADDING,
    SEGMENT_ALPHABET,
    UNKNOWN,
    Decode,
    Softmax,
    SpanF1,
    Tagger,
    TagMetric,
    TokenAccuracy,
    alphabet_of,
    legal_moves,
)

pytestmark = pytest.mark.backends

BIO = alphabet_of(["PER", "LOC"])
ALPHABETS = {
    "words": SEGMENT_ALPHABET,
    **{scheme: alphabet_of(["PER", "LOC"], scheme) for scheme in ("IO", "BIO", "BIOES", "BILUO", "BMES")},
}
every_alphabet = pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
MODES = {"tensorflow": ["eager", "graph", "xla"], "jax": ["eager", "jit"], "torch": ["eager"]}[BACKEND]


def listed(labels):
    """The spans of a text as seqeval lists them in its default mode, which knows neither M nor L nor U."""
    position = {"M": "I", "L": "E", "U": "S"}
    theirs = [position.get(label[0].upper(), label[0].upper()) + label[1:] for label in labels]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {(start, last, kind) for kind, start, last in get_entities(theirs)}


def counted(gold, predicted, alphabet, kinds=None):
    """Correct, predicted and gold spans of each text, without the steps that do not count."""
    rows = []
    for true, found in zip(gold.tolist(), predicted.tolist(), strict=True):
        kept = [(g, p) for g, p in zip(true, found, strict=True) if g != UNKNOWN]
        sides = (
            [alphabet[g] if g >= 0 else "O" for g, _ in kept],
            [alphabet[p] if min(g, p) >= 0 else "O" for g, p in kept],
        )
        true, found = ({span for span in listed(side) if kinds is None or span[2] in kinds} for side in sides)
        rows.append((len(true & found), len(found), len(true)))
    return np.array(rows)


def random_tags(size, rows=40, time=9, seed=0):
    """Gold and predicted tags that often agree, with padding and with tags that are not known."""
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, size, (rows, time))
    predicted = np.where(rng.random(gold.shape) < 0.3, rng.integers(0, size, gold.shape), gold)
    gold[rng.random(gold.shape) < 0.15] = UNKNOWN
    length = rng.integers(0, time + 1, rows)[:, None]
    gold = np.where(np.arange(time) < length, gold, PADDING)
    predicted[rng.random(gold.shape) < 0.05] = PADDING
    return gold.astype("int32"), predicted.astype("int32")


def f1_of(counts):
    correct, predicted, gold = counts.sum(0)
    return 2 * correct / (predicted + gold)


def updated(metric, *arguments, mode="eager"):
    """The result after one update, compiled or not."""
    weighted = len(arguments) > 2

    def result(*given):
        variables = [ops.zeros(()) for _ in metric.variables]
        variables = metric.stateless_update_state(
            variables, *given[:2], sample_weight=given[2] if weighted else None
        )
        return metric.stateless_result(variables)

    return float(array(compiled(result, mode)(*map(ops.convert_to_tensor, arguments))))


# --- against a list of spans ----------------------------------------------------------------------------------


@every_alphabet
@pytest.mark.parametrize("mode", MODES)
def test_f1_is_that_of_the_listed_spans(alphabet, mode):
    gold, predicted = random_tags(len(alphabet), seed=len(alphabet))
    counts = counted(gold, predicted, alphabet)
    correct, found, true = counts.sum(0)
    assert 0 < correct < min(found, true)
    assert updated(SpanF1(alphabet), gold, predicted, mode=mode) == pytest.approx(f1_of(counts), rel=1e-6)


@pytest.mark.parametrize("kinds", [["PER"], ["LOC", "PER"], []])
def test_f1_of_some_kinds(kinds):
    gold, predicted = random_tags(len(BIO))
    counts = counted(gold, predicted, BIO, kinds)
    expected = f1_of(counts) if kinds else 0.0
    assert updated(SpanF1(BIO, kinds=kinds), gold, predicted) == pytest.approx(expected, rel=1e-6)


def test_counts_of_batches_add_up_and_are_reset():
    gold, predicted = random_tags(len(BIO))
    metric = SpanF1(BIO)
    for _ in range(2):
        for rows in (slice(0, 7), slice(7, None)):
            metric.update_state(gold[rows], predicted[rows])
        assert float(metric.result()) == pytest.approx(f1_of(counted(gold, predicted, BIO)), rel=1e-6)
        metric.reset_state()
        assert float(metric.result()) == 0.0


def test_a_weight_multiplies_the_spans_of_its_sequence():
    gold, predicted = random_tags(len(BIO))
    weight = np.random.default_rng(1).random(len(gold)).astype("float32")
    expected = f1_of(weight[:, None] * counted(gold, predicted, BIO))
    for given in (weight, weight[:, None]):
        assert updated(SpanF1(BIO), gold, predicted, given) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_token_accuracy_is_the_share_of_right_known_steps(mode):
    gold, predicted = random_tags(5)
    known = gold >= 0
    expected = (gold == predicted)[known].mean()
    assert updated(TokenAccuracy(), gold, predicted, mode=mode) == pytest.approx(expected, rel=1e-6)
    weight = np.random.default_rng(1).random(len(gold)).astype("float32")
    right, all_steps = (weight @ np.sum(x, 1) for x in (known & (gold == predicted), known))
    assert updated(TokenAccuracy(), gold, predicted, weight, mode=mode) == pytest.approx(
        right / all_steps, rel=1e-6
    )


def test_nothing_to_count_gives_zero():
    for metric in (TokenAccuracy(), SpanF1(BIO)):
        assert float(metric.result()) == 0.0
        metric.update_state(np.full((2, 3), PADDING), np.zeros((2, 3), "int32"))
        metric.update_state(np.full((2, 3), UNKNOWN), np.ones((2, 3), "int32"))
        assert float(metric.result()) == 0.0


def test_an_alphabet_may_come_one_label_after_the_other():
    gold, predicted = random_tags(len(BIO))
    metric = SpanF1(iter(BIO), kinds=(kind for kind in ["PER"]))
    assert metric.get_config()["alphabet"] == list(BIO)
    assert metric.get_config()["kinds"] == ["PER"]
    expected = updated(SpanF1(BIO, kinds=["PER"]), gold, predicted)
    assert (
        updated(metric, gold, predicted)
        == updated(SpanF1.from_config(metric.get_config()), gold, predicted)
        == expected
    )
    for moves, others in zip(legal_moves(iter(BIO)), legal_moves(BIO), strict=True):
        np.testing.assert_array_equal(moves, others)


@pytest.mark.parametrize("kind", [lambda **options: SpanF1(BIO, **options), TokenAccuracy])
def test_counts_are_of_the_type_that_is_asked_for_and_of_no_half(kind):
    """2049 is no number of float16."""
    for asked, given in ((None, "float32"), ("float16", "float32"), ("float64", "float64")):
        metric = kind(dtype=asked)
        assert {metric.dtype, *(count.dtype for count in metric.variables)} == {given}
    keras.config.set_floatx("float16")
    try:
        metric = kind()
    finally:
        keras.config.set_floatx("float32")
    assert {metric.dtype, *(count.dtype for count in metric.variables)} == {"float32"}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float32"])
def test_tags_may_come_as_any_numbers(dtype):
    gold, predicted = (np.maximum(tags, 0) for tags in random_tags(len(BIO)))
    expected = updated(SpanF1(BIO), gold, predicted)
    assert 0 < updated(SpanF1(BIO), gold.astype(dtype), predicted.astype(dtype)) == expected < 1


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([[0, 1]], np.zeros((1, 2, 5))),
            r"predicted must be tags \(batch, time\), as Decode .* got shape \(1, 2, 5\)",
        ),
        (([0, 1], [0, 1]), r"tags must be tags \(batch, time\)"),
        (([[0, 1]], [[0, 1, 1]]), r"predicted must have shape \(1, 2\) to fit tags, got \(1, 3\)"),
        (([[0, 5]], [[0, 1]]), "tags must be integers from -1 to 4, or -100, got .5"),
        (([[0, -2]], [[0, 1]]), "tags must be integers from -1 to 4, or -100, got .-2"),
        (([[0, 1.5]], [[0, 1]]), "tags must be integers from -1 to 4, or -100, got .1.5"),
        (([[0, 1]], [[0, 5]]), "predicted must be integers from -1 to 4, got .5"),
        (([[0, 1]], [[0, -100]]), "predicted must be integers from -1 to 4, got .-100"),
        (([[True, False]], [[0, 1]]), "tags must hold integers or unsigned integers or floats, got bool"),
        ((None, [[0, 1]]), "tags must be a tensor of numbers, got None"),
        (([["O", "B"]], [[0, 1]]), "tags must be a tensor of numbers"),
        (([[0, 1]], [[0, 1]], [[1.0, 2.0]]), r"sample_weight must have shape \(batch,\).* got shape \(1, 2\)"),
        (([[0, 1]], [[0, 1]], [1.0, 2.0]), r"sample_weight must have shape \(batch,\).* got shape \(2,\)"),
        (([[0, 1]], [[0, 1]], 2.0), r"sample_weight must have shape \(batch,\).* got shape \(\)"),
    ],
)
def test_what_is_no_batch_of_tags_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpanF1(BIO).update_state(*arguments)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode in ("xla", "jit")])
@pytest.mark.parametrize("metric", [SpanF1(BIO), TokenAccuracy()], ids=["f1", "accuracy"])
def test_tags_out_of_range_give_nan_where_no_error_can_be_raised(metric, mode):
    assert np.isnan(updated(metric, np.array([[0, 1], [0, -7]]), np.array([[0, 1], [0, 1]]), mode=mode))
    assert np.isnan(updated(metric, np.array([[0, 1], [0, 1]]), np.array([[0, 1], [0, -100]]), mode=mode))


def test_a_metric_refuses_bad_arguments():
    for arguments, message in [
        ({"alphabet": ["O", "X"]}, "a label must be"),
        ({"alphabet": ["O", "O"]}, "distinct labels"),
        ({"alphabet": BIO, "kinds": "PER"}, "collection of kinds, got the string 'PER'"),
        ({"alphabet": BIO, "kinds": ["ORG"]}, "kinds must be among"),
    ]:
        with pytest.raises(ValueError, match=message):
            SpanF1(**arguments)
    with pytest.raises(NotImplementedError, match="TagMetric must define count"):
        TagMetric().update_state([[0]], [[0]])


def test_a_metric_comes_back_from_its_config():
    metric = SpanF1(BIO, kinds=["LOC"], name="places")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert again.get_config() == metric.get_config()
    assert (again.alphabet, again.kinds, again.name) == ([*BIO], ["LOC"], "places")
    gold, predicted = random_tags(len(BIO))
    assert updated(again, gold, predicted) == updated(metric, gold, predicted)
    assert TokenAccuracy.from_config(TokenAccuracy(name="x").get_config()).name == "x"


# --- in a model -----------------------------------------------------------------------------------------------


def tokens(samples=24, time=6, seed=0):
    """Ids in [1, 12], padded with 0, and tags that follow from them, padded with −1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 13, (samples, time))
    ids[np.arange(time) >= rng.integers(1, time, samples)[:, None]] = 0
    return ids, np.where(ids > 0, ids % 5, PADDING).astype("int32")


def encoder(seed=0):
    layers = keras.layers
    normal = keras.initializers.RandomNormal(0.5, 0.5, seed)
    return keras.Sequential(
        [
            layers.Embedding(13, 8, mask_zero=True, embeddings_initializer=normal),
            layers.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(seed)),
        ]
    )


def expected_scores(tags, predicted):
    known = tags >= 0
    return {"span_f1": f1_of(counted(tags, predicted, BIO)), "accuracy": (tags == predicted)[known].mean()}


@pytest.mark.parametrize("settings", [{"run_eagerly": True}, {}, {"jit_compile": False}])
def test_a_tagger_measures_decoded_tags_at_known_steps(settings):
    ids, tags = tokens()
    tags[:, 1] = np.where(tags[:, 1] >= 0, UNKNOWN, PADDING)
    model = Tagger(encoder(), Softmax(5, legal=legal_moves(BIO)))
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy", SpanF1(BIO)], **settings)
    training = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    history = model.fit(ids, tags, validation_data=(ids, tags), **training).history
    expected = expected_scores(tags, model.predict(ids, verbose=0))
    found = model.evaluate(ids, tags, batch_size=7, verbose=0, return_dict=True)
    assert sorted(history) == sorted([*found, *(f"val_{name}" for name in found)])
    for name, value in expected.items():
        assert 0 < value < 1
        assert found[name] == pytest.approx(value, rel=1e-5)
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-5)
    plain = Tagger(encoder(), Softmax(5, legal=legal_moves(BIO)))  # the metrics change nothing else
    plain.compile(keras.optimizers.Adam(0.05), **settings)
    losses = plain.fit(ids, tags, **training).history["loss"]
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)


def test_accuracy_is_one_where_all_tags_are_right():
    ids, tags = tokens()
    model = Tagger(keras.layers.Embedding(13, 5, embeddings_initializer="zeros"), Softmax(5), padding=0)
    model.compile("sgd", metrics=["accuracy"], weighted_metrics=[SpanF1(BIO)])
    model(ids)
    model.encoder.embeddings.assign(np.eye(5)[np.arange(13) % 5])
    found = model.evaluate(ids, tags, verbose=0, return_dict=True, sample_weight=np.arange(24.0))
    assert (found["accuracy"], found["span_f1"]) == (1.0, 1.0)
    assert model.test_on_batch(ids, tags, return_dict=True)["accuracy"] == 1.0
    assert np.any(tags == PADDING)


def test_training_stops_by_the_f1_of_spans():
    ids, tags = tokens(64)
    model = Tagger(encoder(), Softmax(5))
    model.compile(keras.optimizers.Adam(0.1), metrics=[SpanF1(BIO)])
    stop = keras.callbacks.EarlyStopping("val_span_f1", mode="max", patience=2, restore_best_weights=True)
    history = model.fit(ids, tags, validation_data=(ids, tags), epochs=60, verbose=0, callbacks=[stop]).history
    assert len(history["val_span_f1"]) < 60
    best = max(history["val_span_f1"])
    assert model.evaluate(ids, tags, verbose=0, return_dict=True)["span_f1"] == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    "metrics",
    [
        ["sparse_categorical_accuracy"],
        ["mse"],
        [keras.metrics.SparseCategoricalAccuracy()],
        [keras.metrics.Accuracy()],
        [keras.metrics.sparse_categorical_accuracy],
        {"head": "accuracy"},
        "accuracy",
    ],
    ids=lambda metrics: str(metrics).partition(" at ")[0],
)
def test_a_tagger_refuses_metrics_that_know_nothing_of_padding(metrics):
    model = Tagger(encoder(), Softmax(5))
    for name in ("metrics", "weighted_metrics"):
        with pytest.raises(ValueError, match=f"^{name} must (hold 'accuracy', TokenAccuracy|be a list)"):
            model.compile("sgd", **{name: metrics})


def test_metrics_of_a_tagger_come_back_with_it(tmp_path):
    ids, tags = tokens()
    model = Tagger(encoder(), Softmax(5))
    model.compile(keras.optimizers.Adam(0.05), metrics=["accuracy", SpanF1(BIO, kinds=["LOC"])])
    model.fit(ids, tags, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(ids, tags, verbose=0, return_dict=True) == pytest.approx(
        model.evaluate(ids, tags, verbose=0, return_dict=True), rel=1e-6
    )


def test_in_the_functional_api_a_metric_looks_at_the_tags_that_are_an_output():
    ids, tags = tokens()
    inputs = keras.Input((None,), dtype="int32")
    head = Softmax(5, name="emissions")  # Keras 3.8 finds outputs by the names of layers
    emissions = head(encoder()(inputs))
    model = keras.Model(inputs, {"emissions": emissions, "tags": Decode(head, name="tags")(emissions)})
    model.compile(
        keras.optimizers.Adam(0.05), loss={"emissions": head.loss}, metrics={"tags": [SpanF1(BIO), TokenAccuracy()]}
    )
    targets = {"emissions": tags, "tags": tags}
    history = model.fit(ids, targets, verbose=0, validation_data=(ids, targets)).history
    expected = expected_scores(tags, model.predict(ids, verbose=0)["tags"])
    assert history["val_tags_span_f1"][-1] == pytest.approx(expected["span_f1"], rel=1e-5)
    assert history["val_tags_token_accuracy"][-1] == pytest.approx(expected["accuracy"], rel=1e-5)


def test_emissions_in_place_of_tags_are_refused_by_name():
    ids, tags = tokens()
    inputs = keras.Input((None,), dtype="int32")
    head = Softmax(5)
    model = keras.Model(inputs, head(encoder()(inputs)))
    model.compile("sgd", loss=head.loss, metrics=[SpanF1(BIO)])
    with pytest.raises(ValueError, match=r"predicted must be tags \(batch, time\), as Decode"):
        model.fit(ids, tags, verbose=0)
