"""Truths about ``lib.bert``: what is no id, mask or size is refused by name, or NaN where nothing can raise."""

import json
from functools import cache

import keras
import ml_dtypes
import numpy as np
import pytest
from bert_files import lively
from keras import ops
from numerics import BACKEND, array, compiled, normal

from lib.bert import Block, ConditionalLayerNormalization, Embeddings, Encoder, SelfAttention

# The layers run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

SIZES = {"vocabulary": 20, "hidden": 8, "layers": 2, "num_heads": 2, "inner": 16, "positions": 6, "types": 2}
IDS = np.array([[2, 5, 9, 3], [2, 4, 3, 0], [2, 19, 1, 3]], "int32")
TYPES = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 1]], "int32")
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1]])

TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="a plain graph is TensorFlow's")
COMPILED = {"tensorflow": ["xla"], "jax": ["jit"], "torch": []}[BACKEND]


def tiny(**options):
    encoder = Encoder.from_sizes(**{**SIZES, "dropout": 0.0, **options})
    encoder.build((None, None))
    return lively(encoder)


@cache
def tiny_in(mode):
    """An encoder, and the same compiled: once for all arguments of one shape."""
    encoder = tiny()
    return encoder, compiled(lambda inputs: encoder(**inputs), mode)


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


# --- ids and segments -----------------------------------------------------------------------------------------

WRONG_IDS = {
    r"ids must be integers in 0 to 19, got \[-1\]": {"ids": changed(IDS, (1, 3), -1)},
    r"ids must be integers in 0 to 19, got \[20\]": {"ids": changed(IDS, (0, 0), 20)},
    r"ids must be integers in 0 to 19, got \[-2147483648, 2147483647\]": {
        "ids": changed(changed(IDS, (2, 0), -(2**31)), (2, 1), 2**31 - 1)
    },
    r"ids must be integers in 0 to 19, got \[2.5\]": {"ids": changed(IDS.astype("float32"), (1, 1), 2.5)},
    r"ids must be integers in 0 to 19, got \[nan\]": {"ids": changed(IDS.astype("float32"), (1, 1), np.nan)},
    r"types must be integers in 0 to 1, got \[2\]": {"ids": IDS, "types": changed(TYPES, (1, 0), 2)},
    r"types must be integers in 0 to 1, got \[-1\]": {"ids": IDS, "types": changed(TYPES, (2, 3), -1)},
}


@pytest.mark.parametrize("message", WRONG_IDS)
@pytest.mark.parametrize("padded", [False, True])
def test_an_id_without_a_row_in_its_table_is_refused_also_under_the_mask(message, padded):
    mask = {"mask": 0 * MASK == 1} if padded else {}
    with pytest.raises(ValueError, match=message):
        tiny()(**WRONG_IDS[message], **mask)


@TENSORFLOW
@pytest.mark.parametrize("message", WRONG_IDS)
def test_an_id_without_a_row_is_asserted_in_a_graph(message):
    import tensorflow as tf

    _, run = tiny_in("graph")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message.split(", got")[0]):
        run(WRONG_IDS[message])


@pytest.mark.parametrize("mode", COMPILED)
@pytest.mark.parametrize("message", WRONG_IDS)
def test_an_id_without_a_row_makes_its_text_nan_where_nothing_can_raise(message, mode):
    (encoder, run), inputs = tiny_in(mode), WRONG_IDS[message]
    [row] = {
        row
        for name, right in (("ids", IDS), ("types", TYPES))
        for row in np.argwhere(inputs.get(name, right) != right)[:, 0].tolist()
    }
    expected = changed(array(encoder(IDS, types=TYPES if "types" in inputs else None)), row, np.nan)
    np.testing.assert_allclose(array(run(inputs)), expected, atol=1e-5)


def test_a_text_longer_than_the_table_of_positions_is_refused():
    encoder = tiny()
    for length in (7, 60):
        ids = np.ones((2, length), "int32")
        with pytest.raises(ValueError, match=f"ids must have at most 6 tokens a sentence, got {length}"):
            encoder(ids)
        for mode in COMPILED:
            with pytest.raises(ValueError, match=f"ids must have at most 6 tokens a sentence, got {length}"):
                compiled(encoder, mode)(ids)
    assert tuple(encoder(np.ones((2, 6), "int32")).shape) == (2, 6, 8)


@TENSORFLOW
def test_a_text_of_unknown_length_that_is_too_long_is_asserted_or_nan():
    import tensorflow as tf

    encoder = tiny()
    signature = [tf.TensorSpec([None, None], "int32")]
    with pytest.raises(tf.errors.InvalidArgumentError, match="ids must have at most 6 tokens a sentence"):
        compiled(encoder, "graph", input_signature=signature)(np.ones((2, 7), "int32"))
    function = compiled(encoder, "xla", input_signature=signature)
    assert np.isnan(array(function(np.ones((2, 7), "int32")))).all()
    np.testing.assert_allclose(array(function(IDS)), array(encoder(IDS)), atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (IDS + 0j, "ids must hold integers or unsigned integers or floats, got complex"),
        (IDS == 0, "ids must hold integers or unsigned integers or floats, got bool"),
        (IDS[:, :, None], r"ids must have shape \(None, None\), got \(3, 4, 1\)"),
    ],
)
def test_what_is_no_array_of_ids_is_refused(ids, message):
    for layer in (tiny(), tiny().embeddings):
        with pytest.raises(ValueError, match=message):
            layer(ids)


def test_floats_that_a_policy_has_rounded_are_no_ids():
    layer = Embeddings(20, 8, dtype="mixed_bfloat16")
    assert tuple(layer(IDS).shape) == (3, 4, 8)
    with pytest.raises(ValueError, match="ids must hold integers, which bfloat16 rounds"):
        layer(IDS.astype("float32"))  # Keras hands them on in bfloat16


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (TYPES[:1], r"types must have shape \(3, 4\) to fit ids, got \(1, 4\)"),
        (TYPES[:, :3], r"types must have shape \(3, 4\) to fit ids, got \(3, 3\)"),
        (TYPES == 1, "types must hold integers or unsigned integers or floats, got bool"),
    ],
)
def test_segments_that_do_not_fit_are_refused(types, message):
    with pytest.raises(ValueError, match=message):
        tiny()(IDS, types=types)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "uint32", "int64", "float32"])
def test_ids_of_any_integer_type_are_the_same(dtype):
    ids = np.array([[2, 5, 99, 3]])
    encoder = tiny(vocabulary=300)
    expected = array(encoder(ids.astype("int32"), types=TYPES[:1]))
    np.testing.assert_array_equal(array(encoder(ids.astype(dtype), types=TYPES[:1].astype(dtype))), expected)


# --- the mask -------------------------------------------------------------------------------------------------


@cache
def parts():
    """A call of each layer that takes a mask, by its mask, and by how many texts and tokens."""
    x = normal(3, 4, 8)
    attention, block = SelfAttention(2, dropout=0.0), Block(SelfAttention(2, dropout=0.0), 16, dropout=0.0)
    for layer in (attention, block):
        layer.build(x.shape)
        lively(layer)
    encoder = tiny()
    return {
        "encoder": lambda mask, texts=3, tokens=4: encoder(IDS[:texts, :tokens], mask=mask),
        "block": lambda mask, texts=3, tokens=4: block(x[:texts, :tokens], mask=mask),
        "attention": lambda mask, texts=3, tokens=4: attention(x[:texts, :tokens], mask=mask),
    }


WRONG_MASKS = {
    r"mask must have shape \(3, 4\) to fit x, got \(4,\)": MASK[0],
    r"mask must have shape \(3, 4\) to fit x, got \(1, 4\)": MASK[:1],
    r"mask must have shape \(3, 4\) to fit x, got \(3, 1\)": MASK[:, :1],
    r"mask must have shape \(3, 4\) to fit x, got \(3, 4, 4\)": np.ones((3, 4, 4), bool),
    r"mask must hold True or 1 .*, got \[-10000.0\]": np.where(MASK, 0.0, -1e4).astype("float32"),
    r"mask must hold True or 1 .*, got \[-1\]": np.where(MASK, 1, -1),
    r"mask must hold True or 1 .*, got \[nan\]": np.where(MASK, 1, np.nan).astype("float32"),
    r"mask must hold True or 1 .*, got \[2\]": 2 * MASK,
}


@pytest.mark.parametrize("part", parts())
@pytest.mark.parametrize("message", WRONG_MASKS)
def test_what_is_no_mask_is_refused(part, message):
    with pytest.raises(ValueError, match=message):
        parts()[part](WRONG_MASKS[message])


@pytest.mark.parametrize("mode", COMPILED)
@pytest.mark.parametrize("part", parts())
def test_a_text_with_another_number_in_its_mask_is_nan_where_nothing_can_raise(part, mode):
    call = parts()[part]
    mask = changed(MASK.astype("float32"), (1, 3), -1e4)
    expected = changed(array(call(MASK)), 1, np.nan)
    np.testing.assert_allclose(array(compiled(call, mode)(mask)), expected, atol=1e-5)


@pytest.mark.parametrize("part", parts())
@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_a_mask_of_zeros_and_ones_is_one_of_booleans(part, dtype):
    call = parts()[part]
    np.testing.assert_array_equal(array(call(MASK.astype(dtype))), array(call(MASK.astype(bool))))


@pytest.mark.parametrize("part", parts())
def test_a_text_without_a_valid_token_is_finite(part):
    assert np.isfinite(array(parts()[part](0 * MASK == 1))).all()


@pytest.mark.parametrize("part", parts())
@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (0, 0)])
def test_where_there_is_no_token_there_is_no_vector(part, shape):
    for mask in (None, np.ones(shape, bool)):
        assert tuple(parts()[part](mask, *shape).shape) == (*shape, 8)


@keras.saving.register_keras_serializable(package="test_bert_contract")
class ShowMask(keras.layers.Layer):
    """Gives the mask that Keras hands to it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return ops.cast(mask, "float32") + 0 * x[:, :, 0]


@pytest.mark.parametrize("mask", [MASK.astype(bool), MASK.astype("float32"), None])
def test_every_state_carries_the_mask_that_was_given(mask):
    encoder, show = tiny(), ShowMask()
    states = Encoder(encoder.embeddings, encoder.blocks, all_states=True)(IDS, mask=mask)
    for state in [encoder(IDS, mask=mask), *states]:
        np.testing.assert_array_equal(array(show(state)), IDS != 0 if mask is None else MASK)


def test_a_functional_model_carries_the_mask_that_was_given(tmp_path):
    ids, mask = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="bool")
    model = keras.Model([ids, mask], ShowMask()(tiny()(ids, mask=mask)))
    np.testing.assert_array_equal(array(model([IDS, MASK == 1])), MASK)
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(copy.predict([IDS, MASK == 1], verbose=0)), MASK)


def gradients(function, x):
    """The gradient of the sum of a function by its input, on any backend."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = ops.sum(function(x))
        return array(tape.gradient(total, x))
    if BACKEND == "jax":
        import jax

        return array(jax.grad(lambda x: ops.sum(function(x)))(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    return array(torch.autograd.grad(ops.sum(function(x)), x)[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("layer", ["block", "attention"])
def test_what_stands_under_the_mask_reaches_no_other_token(layer, value):
    layer = SelfAttention(2, dropout=0.0) if layer == "attention" else Block(SelfAttention(2, dropout=0.0), 16, 0.0)
    x, mask = normal(2, 5, 8), np.array([[True] * 3 + [False] * 2] * 2)
    layer.build(x.shape)
    lively(layer)
    dirty = np.where(mask[:, :, None], x, np.float32(value))
    alone = array(layer(x[:, :3]))
    np.testing.assert_allclose(array(layer(dirty, mask=mask))[:, :3], alone, atol=1e-5)
    factors = normal(2, 3, 8, seed=1)
    gradient = gradients(lambda x: ops.multiply(layer(x, mask=mask)[:, :3], factors), dirty)
    expected = gradients(lambda x: ops.multiply(layer(x), factors), x[:, :3])
    np.testing.assert_allclose(gradient, np.pad(expected, [(0, 0), (0, 2), (0, 0)]), atol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_masked_tokens_weigh_nothing_however_low_the_other_scores_are(sign):
    layer = SelfAttention(1, dropout=0.0)
    layer.build((1, 3, 4))
    for part in (layer.query, layer.key, layer.value, layer.project):
        part.kernel.assign(np.eye(4, dtype="float32"))
    layer.query.kernel.assign(sign * np.eye(4, dtype="float32"))
    x = 1000 * np.array([[[1.0, 0, 0, 0], [1, 0, 0, 1e-3], [0, 1, 0, 0]]], "float32")  # scores of ±500,000
    alone = array(layer(x[:, :2]))
    np.testing.assert_allclose(array(layer(x, mask=np.array([[1, 1, 0]])))[:, :2], alone, atol=1e-3)


LOWEST = {"float16": (2**5, 2**11 - 1), "bfloat16": (2**8 - 1, 2**120), "float32": (2**24 - 1, 2**104)}


@pytest.mark.parametrize("dtype", LOWEST)
def test_masked_tokens_weigh_nothing_where_all_scores_are_the_lowest_of_their_type(dtype):
    layer = SelfAttention(1, dropout=0.0, dtype=dtype)
    layer.build((1, 3, 1))
    query, key = LOWEST[dtype]
    for part, factor in zip((layer.query, layer.key, layer.value, layer.project), (query, -key, 1, 1), strict=True):
        part.kernel.assign([[float(factor)]])
    assert -query * key == float(ml_dtypes.finfo(dtype).min)
    out = layer(ops.cast([[[1.0], [1.0], [0.0]]], dtype), mask=np.array([[1, 1, 0]]))
    assert [float(x[0]) for x in out[0, :2]] == [1, 1]


def test_products_of_queries_and_keys_do_not_overflow_in_float16():
    layer = SelfAttention(1, dropout=0.0, dtype="float16")
    layer.build((1, 3, 64))
    for part in (layer.query, layer.key, layer.value, layer.project):
        part.kernel.assign(np.eye(64))
    x = np.full((1, 3, 64), 40, "float16")  # qᵀk = 102,400, above 65,504
    np.testing.assert_array_equal(array(layer(x)), x)


# --- arguments ------------------------------------------------------------------------------------------------

ERRORS = {
    "layers must be an integer of at least 0, got -1": lambda: tiny(layers=-1),
    "layers must be an integer of at least 0, got True": lambda: tiny(layers=True),
    "vocabulary must be a positive integer, got 0": lambda: tiny(vocabulary=0),
    "hidden must be a positive integer, got 8.0": lambda: tiny(hidden=8.0),
    "num_heads must be a positive integer, got True": lambda: tiny(num_heads=True),
    "num_heads must divide hidden = 8, got 3": lambda: tiny(num_heads=3),
    "inner must be a positive integer, got -1": lambda: tiny(inner=-1),
    "positions must be a positive integer, got 0": lambda: tiny(positions=0),
    "types must be a positive integer, got '2'": lambda: tiny(types="2"),
    "padding must be an integer of at least 0, got -1": lambda: tiny(padding=-1),
    "padding must be an integer of at least 0, got 0.5": lambda: Encoder(Embeddings(5, 4), [], padding=0.5),
    "padding must be an id below vocabulary = 20, got 20": lambda: tiny(padding=20),
    "seed must be an integer of at least 0, got True": lambda: tiny(seed=True),
    "seed must be an integer of at least 0, got -1": lambda: SelfAttention(2, seed=-1),
    "seed must be an integer of at least 0, got 1.5": lambda: Embeddings(5, 4, seed=1.5),
    r"seed must be an integer of at least 0, got \[1\]": lambda: Block(SelfAttention(2), 8, seed=[1]),
    r"x must have shape \(None, None, None\), got \(4, 8\)": lambda: SelfAttention(2)(normal(4, 8)),
    r"condition must have shape \(2, None\) to fit x, got \(1, 5\)": lambda: ConditionalLayerNormalization()(
        normal(2, 3, 8), normal(1, 5)
    ),
    r"condition must have shape \(2, None\) to fit x, got \(2, 3, 5\)": lambda: ConditionalLayerNormalization()(
        normal(2, 3, 8), normal(2, 3, 5)
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_bad_argument_is_named(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()


def test_complex_vectors_are_refused():
    for layer in (SelfAttention(2), Block(SelfAttention(2), 16)):
        layer.build((2, 3, 8))
        with pytest.raises(ValueError, match=r"x must hold .*, got complex64"):
            layer(normal(2, 3, 8) + np.complex64(1j))


def test_the_seed_is_an_integer_or_a_generator_of_which_each_layer_draws():
    def configs(seed):
        generator = keras.random.SeedGenerator(seed)
        layers = [SelfAttention(2, seed=generator), Embeddings(5, 4, seed=generator)]
        layers += [Block(SelfAttention(2), 16, seed=generator), tiny(dropout=0.1, seed=generator).embeddings]
        return [layer.get_config()["seed"] for layer in layers]

    assert configs(7) == configs(7) != configs(8)
    assert len(set(configs(7))) == 4
    assert all(isinstance(seed, int) for seed in configs(7))
    assert SelfAttention(2, seed=np.int64(3)).get_config()["seed"] == 3
    assert SelfAttention(2).get_config()["seed"] is None


def test_sizes_may_be_numbers_of_numpy():
    encoder = Encoder.from_sizes(**{name: np.int64(size) for name, size in SIZES.items()})
    assert tuple(encoder(IDS).shape) == (*IDS.shape, 8)
    assert json.dumps(encoder.get_config())
