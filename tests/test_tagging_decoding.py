"""Truths about ``lib.tagging.decoding``: tags as the output of a model that is saved, copied and exported."""

from importlib import import_module

import keras
import numpy as np
import pytest
from keras import ops
from numerics import BACKEND, array

from lib.crf import CRF
from lib.tagging import PADDING, SEGMENT_ALPHABET, Decode, Softmax, Tagger, legal_moves

pytestmark = pytest.mark.backends

HEADS = {"softmax": lambda: Softmax(4, legal=legal_moves(SEGMENT_ALPHABET)), "crf": lambda: CRF(4, boundaries=True)}
every_head = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel is TensorFlow's")


def tokens(samples=16, time=6, seed=0):
    """Ids in [1, 12], padded with 0, and tags that follow from them, padded with −1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 13, (samples, time))
    ids[np.arange(time) >= rng.integers(1, time + 1, samples)[:, None]] = 0
    return ids.astype("int32"), np.where(ids > 0, ids % 4, PADDING).astype("int32")


def encoder(seed=0):
    normal = keras.initializers.RandomNormal(0.5, 0.5, seed)
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(13, 8, mask_zero=True, embeddings_initializer=normal),
            keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed)),
        ]
    )


def two_outputs(head):
    """A model that is trained by its emissions and serves tags."""
    inputs = keras.Input((None,), dtype="int32")
    emissions = head(encoder()(inputs))
    model = keras.Model(inputs, {"emissions": emissions, "tags": Decode(head, name="tags")(emissions)})
    model.compile(keras.optimizers.Adam(0.3), loss={"emissions": head.loss})
    return model


def trained(head):
    model, (ids, tags) = two_outputs(head), tokens()
    model.fit(ids, {"emissions": tags, "tags": tags}, epochs=3, verbose=0)
    return model, ids


def tags_of(model, ids):
    return model.predict(ids, verbose=0)["tags"]


@every_head
def test_the_layer_gives_what_the_head_decodes(head):
    model, ids = trained(head := head())
    outputs = model.predict(ids, verbose=0)
    assert outputs["tags"].dtype == np.int32
    np.testing.assert_array_equal(outputs["tags"], array(head.decode(outputs["emissions"])[0]))
    np.testing.assert_array_equal(outputs["tags"] == PADDING, ids == 0)
    symbol = model.output["tags"]
    assert (symbol.shape, symbol.dtype) == ((None, None), "int32")


def test_a_mask_that_keras_hands_on_pads_where_the_head_is_left_out():
    inputs, head = keras.Input((None,), dtype="int32"), Softmax(4)
    model = keras.Model(inputs, Decode(head)(encoder()(inputs)))
    ids, _ = tokens()
    np.testing.assert_array_equal(model.predict(ids, verbose=0) == PADDING, ids == 0)
    assert getattr(model.output, "_keras_mask", None) is None


@every_head
def test_a_model_that_serves_tags_comes_back_from_its_file(head, tmp_path):
    model, ids = trained(head())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_array_equal(tags_of(loaded, ids), tags_of(model, ids))
    heads = [layer for layer in loaded.layers if isinstance(layer, Softmax | CRF)]
    assert [loaded.get_layer("tags").head] == heads
    loaded.fit(ids, {name: tokens()[1] for name in ("emissions", "tags")}, epochs=2, verbose=0)
    emissions = loaded.predict(ids, verbose=0)["emissions"]
    np.testing.assert_array_equal(tags_of(loaded, ids), array(heads[0].decode(emissions)[0]))


def test_a_copy_decodes_by_the_head_that_gave_its_emissions():
    model, ids = trained(CRF(4))
    clone = keras.models.clone_model(model)
    (head,) = (layer for layer in clone.layers if isinstance(layer, CRF))
    clone(ids)
    head.set_weights([np.array([[9.0, -9, -9, -9]] * 4)])  # always tag 0 after the first
    outputs = clone.predict(ids, verbose=0)
    assert (outputs["tags"][:, 1:][ids[:, 1:] > 0] == 0).all()
    np.testing.assert_array_equal(outputs["tags"], array(head.decode(outputs["emissions"])[0]))


def test_weights_of_a_tagger_and_of_a_model_that_serves_its_tags_are_the_same(tmp_path):
    ids, tags = tokens()
    tagger = Tagger(encoder(), CRF(4))
    tagger.compile(keras.optimizers.Adam(0.3))
    tagger.fit(ids, tags, verbose=0)
    inputs = keras.Input((None,), dtype="int32")
    server = keras.Model(inputs, Decode(tagger.head)(tagger(inputs)))
    np.testing.assert_array_equal(server.predict(ids, verbose=0), tagger.predict(ids, verbose=0))
    server.save(tmp_path / "server.keras")
    loaded = keras.models.load_model(tmp_path / "server.keras")
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), tagger.predict(ids, verbose=0))


@only_tensorflow
@every_head
def test_an_exported_model_serves_tags_of_any_length(head, tmp_path):
    ids, tags = tokens()
    tagger = Tagger(encoder(), head(), padding=0)
    tagger.compile(keras.optimizers.Adam(0.3))
    tagger.fit(ids, tags, verbose=0)
    functional, _ = trained(head())
    server = keras.Model(functional.input, functional.output["tags"])
    for name, model in (("tagger", tagger), ("functional", server)):
        model.export(tmp_path / name, verbose=False)
        served = import_module("tensorflow").saved_model.load(tmp_path / name)
        for batch in (ids, ids[:3, :2]):
            found = served.serve(batch)
            assert found.dtype == "int32"
            np.testing.assert_array_equal(found, model.predict(batch, verbose=0))


@only_tensorflow
def test_an_encoder_that_does_not_know_its_inputs_is_exported_by_a_signature(tmp_path):
    ids, _ = tokens()
    tagger = Tagger(keras.layers.Embedding(13, 4), CRF(4), padding=0)
    tagger(ids)
    with pytest.raises(ValueError, match="input_signature must be given, as the encoder does not know its inputs"):
        tagger.export(tmp_path / "model")
    signature = [keras.InputSpec(shape=(None, None), dtype="int32")]
    tagger.export(tmp_path / "model", input_signature=signature, verbose=False)
    served = import_module("tensorflow").saved_model.load(tmp_path / "model")
    np.testing.assert_array_equal(served.serve(ids), tagger.predict(ids, verbose=0))


def test_a_tagger_predicts_with_the_scores_it_has_just_learned():
    ids, _ = tokens()
    model = Tagger(encoder(), CRF(4))
    model.compile(keras.optimizers.Adam(0.3))
    before = model.predict(ids, verbose=0)
    model.head.set_weights([np.array([[9.0, -9, -9, -9]] * 4)])
    after = model.predict(ids, verbose=0)
    assert not np.array_equal(before, after)
    assert (after[:, 1:][ids[:, 1:] > 0] == 0).all()
    np.testing.assert_array_equal(model.predict_on_batch(ids), after)


def test_the_file_of_a_tagger_serves_tags(tmp_path):
    ids, tags = tokens()
    model = Tagger(encoder(), CRF(4, legal=legal_moves(SEGMENT_ALPHABET)))
    model.compile(keras.optimizers.Adam(0.3))
    model.fit(ids, tags, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), model.predict(ids, verbose=0))


@pytest.mark.filterwarnings("ignore")  # Keras warns of a legacy format
def test_a_legacy_file_comes_back_if_told_the_class(tmp_path):
    ids, tags = tokens()
    model = Tagger(encoder(), CRF(4, legal=legal_moves(SEGMENT_ALPHABET)))
    model.compile(keras.optimizers.Adam(0.3), metrics=["accuracy"])
    model.fit(ids, tags, verbose=0)
    file = str(tmp_path / "model.h5")
    model.save(file)
    loaded = keras.models.load_model(file, custom_objects={"Tagger": Tagger})
    for one, other in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(one), array(other))
    np.testing.assert_array_equal(loaded.predict(ids, verbose=0), model.predict(ids, verbose=0))


def test_symbols_are_decoded_by_the_layer():
    for ask in (Softmax(4).decode, Softmax(4).marginals):
        with pytest.raises(
            ValueError, match=r"emissions must be a tensor, in the functional API use Decode\(head\)"
        ):
            ask(keras.Input((None, 4)))


def test_a_decode_layer_needs_a_head():
    with pytest.raises(ValueError, match="head must be a Head, such as CRF, got None"):
        Decode(None)
    assert Decode.from_config(Decode(Softmax(3), name="tags").get_config()).head.tag_count == 3
    assert array(Decode(Softmax(2))(ops.zeros((1, 3, 2)))).tolist() == [[0, 0, 0]]
