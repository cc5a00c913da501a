"""Truths about ``lib.tagging.tagger``, on whichever backend KERAS_BACKEND names."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from numerics import array, normal
from scipy.special import log_softmax

from lib.tagging import PADDING, Head, HeadLoss, LegalMoves, Softmax, Tagger

pytestmark = pytest.mark.backends

#: What takes least time for a few steps. JAX compiles even single operations, so there a whole step costs less.
QUICK = {"jit_compile": True} if keras.backend.backend() == "jax" else {"run_eagerly": True}
GRAPH = {"jit_compile": False}

#: b m e s as in Chinese word segmentation: a word is s, or b m … m e.
LEGAL = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1]], bool)
RULES = LegalMoves(LEGAL, np.array([1, 0, 0, 1]), np.array([0, 0, 1, 1]))


@keras.saving.register_keras_serializable(package="tests")
class Bowl(Head):
    """A head whose likelihood knows nothing of chains: −½ ‖θ − 1‖², the same for every sequence."""

    def log_likelihood(self, tags, emissions, mask=None):  # noqa: ARG002
        distance = ops.sum(ops.square(self.transitions - 1)) / 2
        return ops.zeros_like(emissions[:, 0, 0]) - distance

    def best_path(self, emissions, mask=None):  # noqa: ARG002
        return ops.argmax(emissions, axis=-1), ops.sum(ops.max(emissions, axis=-1), axis=-1)


def tokens(samples=24, time=6, seed=0):
    """Ids in [1, 12], padded with 0, and tags that follow from them, padded with −1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 13, (samples, time))
    ids[np.arange(time) >= rng.integers(1, time + 1, samples)[:, None]] = 0
    return ids, np.where(ids > 0, ids % 4, PADDING).astype("int32")


def encoder(tags=4, seed=0):
    """An embedding and a dense layer, with the mask that Keras hands on."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Embedding(
                13, 8, mask_zero=True, embeddings_initializer=keras.initializers.RandomNormal(0.5, 0.5, seed)
            ),
            layers.Dense(tags, kernel_initializer=keras.initializers.GlorotUniform(seed)),
        ]
    )


def tagger(head=None, settings=QUICK):
    model = Tagger(encoder(), head or Softmax(4))
    model.compile(keras.optimizers.Adam(0.05), **settings)
    return model


def fit(model, ids, tags, epochs=1, **options):
    history = model.fit(ids, tags, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)
    return history.history["loss"]


def weights(model):
    return [array(weight) for weight in model.trainable_variables]


def equal(first, second, atol=1e-6):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


# --- a learning rate for one layer ----------------------------------------------------------------------------


def displaced(optimizer, multiplier=1.0, steps=10, start=0.0, weight=1.0):
    """θ of a Bowl after so many steps of an optimizer, on a loss times a weight."""
    head = Bowl(2, learning_rate_multiplier=multiplier, transitions_initializer=np.full((2, 2), start))
    model = Tagger(keras.layers.Identity(), head)
    model.compile(optimizer, **QUICK)
    emissions, tags = np.zeros((steps, 1, 2), "float32"), np.zeros((steps, 1), "int32")
    model.fit(emissions, tags, sample_weight=np.full(steps, weight), batch_size=1, verbose=0)
    return array(head.transitions)


@pytest.mark.parametrize("multiplier", [0.1, 100])
def test_under_adam_the_multiplier_multiplies_the_learning_rate(multiplier):
    slow = displaced(keras.optimizers.Adam(1e-3), multiplier)
    fast = displaced(keras.optimizers.Adam(1e-3 * multiplier))
    np.testing.assert_allclose(slow, fast, rtol=3e-5)
    assert abs(fast).max() > 9e-3 * min(multiplier, 10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_under_sgd_the_square_of_the_multiplier_multiplies_the_learning_rate(momentum):
    slow = displaced(keras.optimizers.SGD(1e-3, momentum=momentum), 10)
    fast, medium = (displaced(keras.optimizers.SGD(rate, momentum=momentum)) for rate in (1e-1, 1e-2))
    np.testing.assert_allclose(slow, fast, rtol=1e-5)
    assert not np.allclose(slow, medium, rtol=0.5)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has MultiOptimizer from 3.15 on")
def test_the_multiplier_equals_an_optimizer_of_its_own():
    means = keras.optimizers.OptimizerMap(keras.optimizers.Adam(1e-3))
    means[".*transitions"] = keras.optimizers.Adam(0.1)
    by_optimizer = displaced(keras.optimizers.MultiOptimizer(means))
    np.testing.assert_allclose(displaced(keras.optimizers.Adam(1e-3), 100), by_optimizer, atol=3e-5)
    assert abs(by_optimizer).max() > 0.5


def test_decoupled_weight_decay_shrinks_the_scores_by_the_rate_of_the_encoder():
    decayed = [displaced(keras.optimizers.AdamW(1e-3, weight_decay=0.1), m, 1, 2.0, 0.0) for m in (1, 100)]
    equal(decayed, [np.full((2, 2), 2 * (1 - 1e-4))] * 2)


@pytest.mark.parametrize("multiplier", [0, 0.1, 1, 1000])
def test_the_multiplier_leaves_the_initial_scores_alone(multiplier):
    head = Bowl(3, transitions_initializer=normal(3, 3), learning_rate_multiplier=multiplier)
    head.build((None, None, 3))
    np.testing.assert_allclose(array(head.transitions), normal(3, 3), rtol=1e-6)


def test_multiplier_zero_freezes_the_scores():
    np.testing.assert_array_equal(displaced(keras.optimizers.SGD(0.1), 0, 2, 3.0), np.full((2, 2), 3.0))


def test_transitions_begin_at_zero_at_an_array_or_as_an_initializer_says():
    ones = keras.initializers.Ones()
    for initializer, expected in [("zeros", 0), (None, 0), (np.eye(2), np.eye(2)), (ones, 1), ("ones", 1)]:
        head = Bowl(2, transitions_initializer=initializer)
        head.build((None, None, 2))
        np.testing.assert_array_equal(array(head.transitions), expected * np.ones((2, 2)))


# --- legal moves ----------------------------------------------------------------------------------------------


def test_an_illegal_move_scores_minus_infinity_and_a_legal_one_what_was_learned():
    head = Bowl(4, legal=RULES, transitions_initializer="ones")
    head.build((None, None, 4))
    np.testing.assert_array_equal(array(head.transitions), np.where(LEGAL, 1, -np.inf))
    np.testing.assert_array_equal(array(head.start), [0, -np.inf, -np.inf, 0])
    np.testing.assert_array_equal(array(head.end), [-np.inf, -np.inf, 0, 0])
    assert len(head.weights) == 1


def test_boundary_scores_are_weights_only_if_wanted():
    rules = LegalMoves(np.ones((4, 4)), [1, 0, 0, 1], [1, 1, 1, 1])
    with_boundaries = Bowl(4, boundaries=True, legal=rules, learning_rate_multiplier=10)
    without = Bowl(4)
    for head in (with_boundaries, without):
        head.build((None, None, 4))
    assert [tuple(weight.shape) for weight in with_boundaries.weights] == [(4, 4), (4,), (4,)]
    np.testing.assert_array_equal(array(with_boundaries.start), [0, -np.inf, -np.inf, 0])
    np.testing.assert_array_equal(array(with_boundaries.end), np.zeros(4))
    assert without.start is None
    assert without.end is None


# --- padding --------------------------------------------------------------------------------------------------


def test_the_layer_puts_padded_steps_at_minus_infinity_and_leaves_the_others():
    emissions, mask = normal(2, 3, 4), np.array([[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(array(Softmax(4)(emissions)), emissions)
    np.testing.assert_array_equal(
        array(Softmax(4)(emissions, mask=mask)), np.where(mask[..., None], emissions, -np.inf)
    )


def test_the_output_carries_its_mask_and_keras_sees_none():
    ids = keras.Input((None,), dtype="int32")
    outputs = Softmax(4)(encoder()(ids))
    assert getattr(outputs, "_keras_mask", None) is None
    emissions = array(keras.Model(ids, outputs)(np.array([[5, 6, 0]])))
    assert np.isneginf(emissions).all(-1).tolist() == [[False, False, True]]


def test_unpack_takes_the_mask_out_of_the_emissions():
    packed = np.where([[[True], [True], [False]]], normal(1, 3, 2), -np.inf).astype("float16")
    emissions, mask = Softmax(2).unpack(packed, [[True, False, False]])
    assert array(mask).tolist() == [[True, False, False]]
    assert keras.backend.standardize_dtype(emissions.dtype) == "float32"
    np.testing.assert_array_equal(array(emissions)[0, 0], packed[0, 0].astype("float32"))
    np.testing.assert_array_equal(array(emissions)[0, 1:], 0)


def test_the_loss_of_a_padded_sequence_is_that_of_the_sequence():
    emissions, tags = normal(5, 5, 4), np.random.default_rng(1).integers(0, 4, (5, 5))
    valid = np.arange(5) < np.arange(1, 6)[:, None]
    single = -np.take_along_axis(log_softmax(emissions, -1), tags[..., None], -1)[..., 0]
    expected = [steps[:length].sum() for length, steps in enumerate(single, 1)]
    for packed in (emissions, np.where(valid[..., None], emissions, -np.inf)):
        loss = array(Softmax(4).sequence_loss(np.where(valid, tags, PADDING), packed))
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_targets_may_come_as_floats_as_keras_casts_them():
    tags = np.array([[0.0, 3.0, -1.0]], "float32")
    loss = array(Softmax(4).sequence_loss(tags, normal(1, 3, 4)))
    np.testing.assert_array_equal(loss, array(Softmax(4).sequence_loss(tags.astype("int32"), normal(1, 3, 4))))


def test_targets_that_are_no_tags_are_named():
    for tags in ([[0, 4, -1]], [[0, -2, -1]], [[0, 0.5, -1]], [[0, -1, 0]]):
        with pytest.raises(
            ValueError, match="tags must be -1 only" if tags == [[0, -1, 0]] else "tags must be integers"
        ):
            Softmax(4).sequence_loss(np.array(tags), normal(1, 3, 4))


def test_a_sequence_without_a_tag_has_loss_zero():
    assert array(Softmax(4).sequence_loss(np.full((1, 3), PADDING), normal(1, 3, 4))).tolist() == [0.0]


def test_a_tag_at_a_padded_step_is_impossible_and_spoils_no_other_sequence():
    ids, tags = tokens(8)
    ids[0], tags[0] = [1, 2, 0, 0, 0, 0], [1, 2, 1, PADDING, PADDING, PADDING]
    model, without = tagger(), tagger()
    assert np.isposinf(array(model.head.sequence_loss(tags, model(ids)))).tolist() == [True] + 7 * [False]
    fit(model, ids, tags)
    fit(without, ids, np.where(np.arange(8)[:, None] == 0, PADDING, tags))
    equal(weights(model), weights(without))


def test_predicted_tags_are_minus_one_at_padded_steps():
    model = Tagger(encoder(), Softmax(4))
    ids, _ = tokens()
    predicted = model.predict(ids, verbose=0)
    assert predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted == PADDING, ids == 0)


def test_weights_have_the_same_paths_whether_the_first_call_trains_or_predicts():
    ids, tags = tokens(8)
    first, second = (Tagger(encoder(), Bowl(4, name="bowl"), name="tagger") for _ in range(2))
    first.predict(ids, verbose=0)
    second.compile("sgd", **QUICK)
    fit(second, ids, tags)
    assert first.head.weights[0].path == second.head.weights[0].path == "tagger/bowl/transitions"


# --- the head without transitions -----------------------------------------------------------------------------


def test_softmax_is_the_cross_entropy_of_every_step():
    emissions, tags = normal(6, 5, 4), np.random.default_rng(1).integers(0, 4, (6, 5))
    expected = array(keras.losses.sparse_categorical_crossentropy(tags, emissions, from_logits=True)).sum(1)
    np.testing.assert_allclose(array(Softmax(4).sequence_loss(tags, emissions)), expected, rtol=1e-6)


def test_softmax_decodes_every_step_by_itself_and_scores_by_log_probability():
    emissions = normal(6, 5, 4)
    tags, score = map(array, Softmax(4).decode(emissions))
    np.testing.assert_array_equal(tags, emissions.argmax(-1))
    np.testing.assert_allclose(score, -array(Softmax(4).sequence_loss(tags, emissions)), rtol=1e-5)


def test_softmax_with_hard_rules_decodes_the_most_probable_legal_sequence():
    emissions, time = normal(20, 4, 4), 4
    head = Softmax(4, legal=RULES)
    allowed = [
        y
        for y in itertools.product(range(4), repeat=time)
        if y[0] in (0, 3) and y[-1] in (2, 3) and all(LEGAL[i, j] for i, j in itertools.pairwise(y))
    ]
    best = [max(allowed, key=lambda y: sum(e[t, y[t]] for t in range(time))) for e in emissions]
    np.testing.assert_array_equal(array(head.decode(emissions)[0]), best)
    assert not np.array_equal(best, emissions.argmax(-1))


def test_softmax_has_no_weights_and_its_rules_do_not_touch_the_loss():
    head = Softmax(4, legal=LEGAL)
    tags = np.array([[0, 0]])  # b after b
    np.testing.assert_array_equal(
        array(head.sequence_loss(tags, normal(1, 2, 4))), array(Softmax(4).sequence_loss(tags, normal(1, 2, 4)))
    )
    head(normal(1, 2, 4))
    assert head.weights == []


# --- the model ------------------------------------------------------------------------------------------------


def test_a_tagger_learns_and_predicts_the_tags():
    ids, tags = tokens(64)
    model = tagger(settings={})
    losses = fit(model, ids, tags, epochs=20)
    np.testing.assert_array_equal(model.predict(ids, batch_size=16, verbose=0), tags)
    np.testing.assert_array_equal(model.predict_on_batch(ids[:5]), tags[:5])
    assert losses[-1] < losses[0] / 5


def test_compiled_or_not_the_numbers_are_the_same():
    ids, tags = tokens(8)
    eager, compiled, graph = (tagger(settings=settings) for settings in ({"run_eagerly": True}, {}, GRAPH))
    losses = fit(eager, ids, tags, 2)
    for model in (compiled, graph):
        equal([losses], [fit(model, ids, tags, 2)], atol=1e-5)
        equal(weights(eager), weights(model), atol=1e-4)
        np.testing.assert_array_equal(eager.predict(ids, verbose=0), model.predict(ids, verbose=0))


def test_calling_the_model_gives_emissions_also_after_it_has_predicted():
    ids, _ = tokens(8)
    model = tagger()
    before = array(model(ids))
    model.predict(ids, verbose=0)
    np.testing.assert_array_equal(array(model(ids)), before)
    assert before.shape == (8, 6, 4)


def test_evaluate_gives_the_mean_loss_of_a_sequence():
    ids, tags = tokens(16)
    model = tagger()
    loss = array(model.head.sequence_loss(tags, model(ids)))
    assert model.evaluate(ids, tags, verbose=0) == pytest.approx(loss.mean(), rel=1e-5)


def test_a_sample_weight_multiplies_the_loss_of_its_sequence():
    ids, tags = tokens(8)
    weight = np.array([0, 2, 1, 0.5, 0, 1, 3, 0])
    model = tagger()
    expected = (weight * array(model.head.sequence_loss(tags, model(ids)))).mean()
    assert model.evaluate(ids, tags, sample_weight=weight, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_sequence_of_weight_zero_teaches_nothing():
    ids, tags = tokens(8)
    weight = np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    noisy = np.where((weight[:, None] == 0) & (tags >= 0), 0, tags)
    first, second = tagger(), tagger()
    fit(first, ids, tags, sample_weight=weight)
    fit(second, ids, noisy, sample_weight=weight)
    equal(weights(first), weights(second))


def test_regularizers_add_to_the_loss():
    ids, tags = tokens(8)
    dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.5))
    model = Tagger(keras.Sequential([keras.layers.Embedding(13, 8, mask_zero=True), dense]), Softmax(4))
    model.compile("sgd", **QUICK)
    data_loss = array(model.head.sequence_loss(tags, model(ids))).mean()
    penalty = 0.5 * np.sum(array(dense.kernel) ** 2)
    assert model.evaluate(ids, tags, verbose=0) == pytest.approx(data_loss + penalty, rel=1e-5)


def test_padding_names_the_number_that_pads_where_a_layer_loses_the_mask():
    layers = keras.layers
    model = Tagger(
        keras.Sequential([layers.Embedding(13, 8), layers.Conv1D(4, 3, padding="same")]), Softmax(4), padding=0
    )
    ids, _ = tokens()
    np.testing.assert_array_equal(model.predict(ids, verbose=0) == PADDING, ids == 0)


def test_batches_may_have_different_lengths():
    batches = [tokens(8, time) for time in (6, 2)]
    model = tagger()
    model.fit((batch for batch in batches), steps_per_epoch=2, verbose=0)
    for ids, _ in batches:
        assert model.predict(ids, verbose=0).shape == ids.shape


def test_a_callback_may_predict_while_fit_is_running():
    ids, tags = tokens()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
            seen.append((self.model.predict(ids, verbose=0) == tags).mean())

    model, alone = tagger(), tagger()
    fit(model, ids, tags, 3, callbacks=[Watch()])
    fit(alone, ids, tags, 3)
    assert len(seen) == 3
    equal(weights(model), weights(alone))


def test_half_precision_layers_feed_a_head_that_works_in_single_precision():
    ids, tags = tokens()
    expected = array(tagger().head.sequence_loss(tags, tagger()(ids)))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tagger()
        emissions = model(ids)
        loss = model.head.sequence_loss(tags, emissions)
        predicted = model.predict(ids, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(emissions.dtype) == "float32"
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    np.testing.assert_allclose(array(loss), expected, rtol=0.02)
    np.testing.assert_array_equal(predicted == PADDING, ids == 0)


# --- saving ---------------------------------------------------------------------------------------------------


def functional(head, settings=QUICK):
    """The same model in the functional API."""
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, head(encoder()(ids)))
    model.compile(keras.optimizers.Adam(0.05), loss=head.loss, **settings)
    return model


def full_head():
    return Bowl(
        4,
        transitions_initializer=normal(4, 4),
        boundaries=True,
        legal=LegalMoves(np.ones((4, 4)), [1, 0, 0, 1], [1, 1, 1, 1]),
        learning_rate_multiplier=10.0,
    )


@pytest.mark.parametrize(
    ("build", "head"),
    [(tagger, full_head), (tagger, lambda: Softmax(4, legal=LEGAL)), (functional, full_head)],
    ids=["tagger", "softmax", "functional"],
)
def test_training_goes_on_after_a_file_as_if_there_had_been_none(build, head, tmp_path):
    ids, tags = tokens()
    model = build(head())
    fit(model, ids, tags, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    equal(weights(loaded), weights(model), atol=0)
    for either in (model, loaded):
        fit(either, ids, tags, 2)
    equal(weights(loaded), weights(model))
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), model.predict(ids, verbose=0))


def test_the_functional_api_and_the_tagger_are_the_same_model():
    ids, tags = tokens()
    first, second = functional(full_head()), tagger(full_head())
    equal([fit(first, ids, tags, 3)], [fit(second, ids, tags, 3)])
    equal(weights(first), weights(second))
    decoded = second.head.decode(first.predict(ids, verbose=0))[0]
    np.testing.assert_array_equal(array(decoded), second.predict(ids, verbose=0))


def test_a_loaded_loss_belongs_to_the_loaded_head(tmp_path):
    ids, _ = tokens()
    model = functional(full_head())
    model(ids)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded(ids)
    assert loaded.loss.head is loaded.layers[-1]
    assert loaded.loss.head is not model.loss.head


def test_the_loss_of_a_clone_belongs_to_its_own_head_whatever_was_made_since():
    ids, tags = tokens()
    model = functional(full_head())
    clone = keras.models.clone_model(model)
    for name in ("first", "last"):  # other models whose heads have the same name
        other = functional(type(model.layers[-1]).from_config(model.layers[-1].get_config()))
        other(ids)
        clone.compile_from_config(model.get_compile_config())
        before = weights(other)
        fit(clone, ids, tags, 1)
        assert clone.loss.head is clone.layers[-1], name
        equal(weights(other), before, atol=0)
    assert other.layers[-1].name == clone.layers[-1].name


def test_losses_of_two_loaded_models_in_one_belong_each_to_its_own_head(tmp_path):
    ids, tags = tokens()
    loaded = []
    for number in range(2):
        model = functional(full_head())
        model.layers[-1].name = "same"
        model(ids)
        weight = model.layers[-1].trainable_variables[0]
        weight.assign(weight + number)
        config = model.get_config()
        assert config["layers"][-1]["name"] == "same"
        model.save(tmp_path / f"{number}.keras")
        loaded.append(keras.models.load_model(tmp_path / f"{number}.keras"))
    first, second = loaded
    first.name, second.name = "first", "second"
    assert first.layers[-1].name == second.layers[-1].name
    emissions = [model(ids) for model in loaded]
    for model, given in zip(loaded, emissions, strict=True):  # both are called before either loss
        np.testing.assert_array_equal(
            array(model.loss.call(tags, given)), array(model.layers[-1].sequence_loss(tags, given))
        )
    inputs = keras.Input(ids.shape[1:], dtype="int32")
    both = keras.Model(inputs, [first(inputs), second(inputs)])
    both.compile("sgd", loss=[first.loss, second.loss])
    fit(both, ids, [tags, tags], 1)
    assert first.loss.head is first.layers[-1]
    assert second.loss.head is second.layers[-1]


def test_a_head_comes_back_from_its_config():
    head = Bowl.from_config(full_head().get_config())
    assert head.get_config() == full_head().get_config() | {"name": head.name}
    with_rules = Softmax.from_config(Softmax(4, legal=RULES).get_config())
    for rebuilt, given in zip(with_rules.legal, RULES, strict=True):
        np.testing.assert_array_equal(rebuilt, given)


def test_weights_go_by_a_file_of_their_own(tmp_path):
    ids, tags = tokens()
    model, other = tagger(full_head()), tagger(full_head())
    fit(model, ids, tags)
    model.predict(ids, verbose=0)  # a decoder that has run changes no path in the file
    model.save_weights(tmp_path / "model.weights.h5")
    other(ids)
    other.load_weights(tmp_path / "model.weights.h5")
    equal(weights(other), weights(model), atol=0)


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tag_count": 0}, "tag_count must be a positive integer, got 0"),
        ({"tag_count": 2.0}, "tag_count must be a positive integer, got 2.0"),
        ({"tag_count": True}, "tag_count must be a positive integer, got True"),
        (
            {"tag_count": 2, "transitions_initializer": np.eye(3)},
            r"transitions_initializer must have shape \(2, 2\)",
        ),
        ({"tag_count": 2, "legal": np.eye(3)}, r"legal must have shape \(2, 2\), got shape \(3, 3\)"),
        ({"tag_count": 2, "legal": [[1, 0], [1]]}, r"legal must be an array of shape \(2, 2\)"),
        ({"tag_count": 2, "legal": [[1, 0], [1, -1e4]]}, "legal must hold True or 1 for what is legal"),
        ({"tag_count": 2, "legal": LegalMoves(np.eye(2), [1], [1, 1])}, r"legal.start must have shape \(2,\)"),
        ({"tag_count": 2, "legal": LegalMoves(np.eye(2), [1, 1], [0, 0])}, "legal.end must allow a tag"),
        ({"tag_count": 2, "boundaries": "no"}, "boundaries must be True or False, got 'no'"),
        ({"tag_count": 2, "learning_rate_multiplier": -1}, "learning_rate_multiplier must not be negative, got -1"),
        ({"tag_count": 2, "learning_rate_multiplier": np.inf}, "learning_rate_multiplier must be a finite number"),
    ],
)
def test_a_head_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Bowl(**arguments)


def test_a_head_refuses_emissions_and_tags_of_the_wrong_shape():
    emissions = r"emissions must have shape \(batch, time, tags\) with tags = 4"
    with pytest.raises(ValueError, match=emissions):
        Softmax(4)(normal(2, 3, 5))
    with pytest.raises(ValueError, match=emissions):
        Softmax(4).decode(normal(3, 4))
    with pytest.raises(ValueError, match=r"tags must have shape \(2, 3\) to fit emissions, got \(2, 3, 1\)"):
        Softmax(4).sequence_loss(np.zeros((2, 3, 1)), normal(2, 3, 4))
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 3\) to fit emissions, got \(3,\)"):
        Softmax(4).decode(normal(2, 3, 4), np.ones(3, bool))


def test_a_single_tag_is_no_special_case():
    emissions, tags = normal(2, 3, 1), np.array([[0, 0, 0], [0, PADDING, PADDING]])
    for given in (emissions, emissions[..., 0]):  # Keras squeezes it so
        np.testing.assert_array_equal(array(Softmax(1).sequence_loss(tags, given)), [0, 0])


def test_a_tagger_refuses_what_is_no_encoder_or_no_head():
    with pytest.raises(ValueError, match="encoder must be a Keras model or layer, got None"):
        Tagger(None, Softmax(4))
    with pytest.raises(ValueError, match="head must be a Head, such as CRF"):
        Tagger(encoder(), keras.layers.Dense(4))


def test_a_tagger_refuses_another_loss_and_weights_of_single_steps():
    ids, tags = tokens(8)
    model = tagger(settings={"run_eagerly": True})
    with pytest.raises(ValueError, match="loss must be left out, the model brings its own, got 'mse'"):
        model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(batch,\)"):
        model.fit(ids, tags, sample_weight=np.ones((8, 6)), verbose=0)


def test_a_loss_does_not_come_back_without_its_head():
    with pytest.raises(ValueError, match="head must be the name of a head that exists, got 'nowhere'"):
        HeadLoss.from_config({"head": "nowhere"})


def test_a_head_must_say_what_it_normalises_and_how_it_decodes():
    with pytest.raises(NotImplementedError, match="Head must define log_likelihood"):
        Head(4).sequence_loss(np.zeros((1, 2)), normal(1, 2, 4))
    with pytest.raises(NotImplementedError, match="Head must define best_path"):
        Head(4).decode(normal(1, 2, 4))
