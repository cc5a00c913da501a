"""Truths about ``lib.bert``, on whichever backend KERAS_BACKEND names."""

import math

import keras
import numpy as np
import pytest
from bert_files import lively
from keras import ops
from numerics import array, normal
from scipy.stats import norm

from lib.bert import Block, ConditionalLayerNormalization, Embeddings, Encoder, SelfAttention

# The layers run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

SIZES = {"vocabulary": 20, "hidden": 32, "layers": 3, "num_heads": 4, "inner": 64, "positions": 12, "types": 2}
IDS = np.array([[2, 5, 9, 7, 3], [2, 4, 3, 0, 0], [2, 19, 1, 3, 0]], "int32")
TYPES = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], "int32")
MASK = IDS != 0


def tiny(**options):
    """A small encoder; without dropout unless asked for."""
    return lively(built(Encoder.from_sizes(**{**SIZES, "dropout": 0.0, **options})))


def built(encoder):
    encoder.build((None, None))
    return encoder


def all_states(encoder):
    return Encoder(encoder.embeddings, encoder.blocks, padding=encoder.padding, all_states=True)


# An independent BERT in double precision: one token, one head, one formula at a time. Padded tokens are left out of
# the sum instead of getting a low score.


def reference_normalization(x, layer):
    gamma, beta = array(layer.gamma), array(layer.beta)
    return np.array([gamma * (row - row.mean()) / math.sqrt(row.var() + 1e-12) + beta for row in x])


def reference_dense(x, layer):
    return x @ array(layer.kernel).astype("float64") + array(layer.bias)


def reference_attention(x, mask, layer):
    Q, K, V = (reference_dense(x, linear) for linear in (layer.query, layer.key, layer.value))
    d, out = x.shape[1] // layer.num_heads, np.zeros_like(x)
    for h in range(layer.num_heads):
        own = slice(h * d, (h + 1) * d)
        for i in range(len(x)):
            weights = {j: math.exp(Q[i, own] @ K[j, own] / math.sqrt(d)) for j in np.flatnonzero(mask)}
            out[i, own] = sum(w * V[j, own] for j, w in weights.items()) / sum(weights.values())
    return reference_dense(out, layer.project)


def reference_block(x, mask, block):
    x = reference_normalization(x + reference_attention(x, mask, block.attention), block.attention_norm)
    inner = reference_dense(x, block.expand)
    return reference_normalization(x + reference_dense(inner * norm.cdf(inner), block.contract), block.norm)


def reference_embeddings(ids, types, layer):
    words, positions, segments = (array(t.embeddings) for t in (layer.words, layer.positions, layer.types))
    x = [
        words[i].astype("float64") + positions[t] + segments[s]
        for t, (i, s) in enumerate(zip(ids, types, strict=True))
    ]
    return reference_normalization(np.array(x), layer.norm)


# --- the encoder ----------------------------------------------------------------------------------------------


def test_every_hidden_state_is_that_of_the_formulas():
    encoder = all_states(tiny())
    states = [array(state) for state in encoder(IDS, types=TYPES)]
    assert len(states) == 4
    for ids, types, mask, *found in zip(IDS, TYPES, MASK, *states, strict=True):
        x = reference_embeddings(ids, types, encoder.embeddings)
        np.testing.assert_allclose(found[0], x, atol=1e-5)
        for block, state in zip(encoder.blocks, found[1:], strict=True):
            x = reference_block(x, mask, block)
            np.testing.assert_allclose(state, x, atol=2e-5)


def test_segments_are_0_unless_told():
    layer = lively(Embeddings(20, 8))
    np.testing.assert_array_equal(array(layer(IDS)), array(layer(IDS, types=0 * TYPES)))


def test_padding_changes_no_valid_state():
    encoder = all_states(tiny())
    longer = np.pad(IDS, [(0, 0), (0, 7)])
    for state, expected in zip(encoder(longer), encoder(IDS), strict=True):
        np.testing.assert_allclose(array(state)[:, :5][MASK], array(expected)[MASK], atol=1e-5)


def test_a_given_mask_hides_any_token_exactly():
    encoder = tiny()
    mask = np.array([[True, True, False, True, False]] * 3)
    other = np.where(mask, IDS, 11)
    states, changed = array(encoder(IDS, mask=mask)), array(encoder(other, mask=mask))
    np.testing.assert_array_equal(states[mask], changed[mask])
    assert abs(states - array(encoder(IDS)))[mask].max() > 0.01  # the default mask is another one


def test_a_sentence_of_padding_only_stays_finite():
    assert np.isfinite(array(tiny()(0 * IDS))).all()


def test_the_id_of_padding_is_a_choice():
    encoder = tiny()
    other = Encoder(encoder.embeddings, encoder.blocks, padding=3)
    np.testing.assert_allclose(array(other(IDS)), array(encoder(IDS, mask=IDS != 3)), atol=1e-6)


@keras.saving.register_keras_serializable(package="test_bert")
class ShowMask(keras.layers.Layer):
    """Gives the mask that Keras hands to it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return ops.cast(mask, "float32") + 0 * x[:, :, 0]


def test_the_mask_travels_on_with_the_vectors():
    encoder = tiny()
    np.testing.assert_array_equal(array(ShowMask()(encoder(IDS))), MASK)
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, ShowMask()(encoder(ids)))
    np.testing.assert_array_equal(array(model(IDS)), MASK)


def test_an_encoder_stands_in_a_functional_model_of_any_length():
    encoder = all_states(tiny())
    ids, types = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    states = encoder(ids, types=types)  # at most 12 tokens, and no length yet
    assert [tuple(state.shape) for state in states] == [(None, None, 32)] * 4
    found = keras.Model([ids, types], states).predict([IDS, TYPES], verbose=0)
    for state, expected in zip(found, encoder(IDS, types=TYPES), strict=True):
        np.testing.assert_allclose(state, array(expected), atol=1e-5)


def test_the_first_blocks_are_an_encoder_that_shares_its_weights():
    encoder = tiny()
    lower = Encoder(encoder.embeddings, encoder.blocks[:2])
    np.testing.assert_allclose(array(lower(IDS)), array(all_states(encoder)(IDS)[2]), atol=1e-6)
    encoder.blocks[1].expand.bias.assign_add(np.ones(64))
    np.testing.assert_allclose(array(lower(IDS)), array(all_states(encoder)(IDS)[2]), atol=1e-6)
    assert len(lower.weights) == len(encoder.weights) - 16


@keras.saving.register_keras_serializable(package="test_bert")
class Mean(keras.layers.Layer):
    """An attention without questions: every token gets the mean of all that are not padding."""

    def __init__(self, heads=1, dropout=0.0, seed=None, **kwargs):  # noqa: ARG002
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None, training=None):  # noqa: ARG002
        weights = ops.cast(mask, x.dtype)[:, None, :]
        return ops.matmul(weights, x) / ops.sum(weights, axis=-1, keepdims=True) + 0 * x


@keras.saving.register_keras_serializable(package="test_bert")
class Nothing(keras.layers.Layer):
    """A block that does nothing."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None, training=None):  # noqa: ARG002
        return x


def test_a_block_takes_any_attention():
    encoder = tiny()
    block = lively(built(Encoder(encoder.embeddings, [Block(Mean(), inner=64, dropout=0.0)]))).blocks[0]
    x = normal(3, 5, 32)
    mean = np.array([[x[i, MASK[i]].mean(axis=0)] * 5 for i in range(3)])
    attended = [reference_normalization(both, block.attention_norm) for both in x + mean]
    inner = [reference_dense(row, block.expand) for row in attended]
    expected = [
        reference_normalization(row + reference_dense(z * norm.cdf(z), block.contract), block.norm)
        for row, z in zip(attended, inner, strict=True)
    ]
    np.testing.assert_allclose(array(block(x, mask=MASK)), expected, atol=1e-5)


def test_an_encoder_takes_any_attention_and_any_block():
    assert [type(block.attention) for block in tiny(attention=Mean).blocks] == [Mean] * 3
    encoder = tiny()
    mixed = Encoder(encoder.embeddings, [encoder.blocks[0], Nothing(), encoder.blocks[1]])
    lower = Encoder(encoder.embeddings, encoder.blocks[:2])
    np.testing.assert_allclose(array(mixed(IDS)), array(lower(IDS)), atol=1e-6)


def test_everything_is_float32_and_named_once():
    encoder = tiny()
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in encoder.weights} == {"float32"}
    assert keras.backend.standardize_dtype(encoder(IDS).dtype) == "float32"
    assert len({weight.path for weight in encoder.weights}) == len(encoder.weights) == 5 + 16 * 3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_nearly_the_same(policy):
    encoder = tiny()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        half = tiny()
    finally:
        keras.config.set_dtype_policy(before)
    states = half(IDS)
    assert keras.backend.standardize_dtype(states.dtype) == policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in half.weights} == {"float32"}
    difference = array(ops.cast(states, "float32")) - array(encoder(IDS))
    assert abs(difference)[MASK].max() < (0.1 if policy == "mixed_bfloat16" else 0.02)
    copy = built(Encoder.from_config(half.get_config()))
    assert copy.blocks[0].expand.compute_dtype == policy.removeprefix("mixed_")


# --- dropout, training, saving --------------------------------------------------------------------------------


def test_dropout_is_on_in_training_only_and_follows_its_seed():
    first, second, other = (tiny(dropout=0.1, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(array(first(IDS)), array(tiny()(IDS)))
    drawn = array(first(IDS, training=True))
    np.testing.assert_array_equal(drawn, array(second(IDS, training=True)))
    for unlike in (first(IDS), first(IDS, training=True), other(IDS, training=True)):
        assert abs(drawn - array(unlike)).max() > 0.01
    np.testing.assert_array_equal(array(tiny()(IDS, training=True)), array(tiny()(IDS)))


def test_no_two_dropouts_share_a_seed():
    encoder = tiny(dropout=0.1, seed=5)
    dropouts = [layer for layer in encoder._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    assert len({layer.seed for layer in dropouts}) == len(dropouts) == 1 + 3 * 3
    assert {layer.rate for layer in dropouts} == {0.1}


def test_the_attention_weights_are_dropped_too():
    attention = SelfAttention(4, dropout=0.5, seed=1)
    x = normal(1, 5, 32)
    assert abs(array(attention(x, training=True)) - array(attention(x))).max() > 1e-3


def model_with_head(encoder):
    """A model of ids and segments, with a label for each token."""
    ids, types = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    return keras.Model([ids, types], keras.layers.Dense(3)(encoder(ids, types=types)))


def compiled(model, optimizer, loss=None):
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() == "jax")  # elsewhere compiling takes longer
    return model


def test_training_moves_every_weight_but_the_bias_of_the_keys_and_lowers_the_loss():
    # That bias adds the same to all scores of a token, and softmax does not see it.
    encoder = tiny(layers=2)
    model = compiled(model_with_head(encoder), keras.optimizers.SGD(0.1))
    lively(model.layers[-1])
    labels = IDS % 3
    before = {weight.path: array(weight).copy() for weight in encoder.weights}
    loss = model.evaluate([IDS, TYPES], labels, verbose=0)
    assert model.evaluate([IDS, TYPES], np.where(MASK, labels, 2), verbose=0) == pytest.approx(loss, rel=1e-6)

    model.fit([IDS, TYPES], labels, batch_size=3, verbose=0)
    moved = {weight.path: abs(array(weight) - before[weight.path]).max() for weight in encoder.weights}
    assert all(step < 1e-6 if path.endswith("key/bias") else step > 1e-5 for path, step in moved.items()), moved
    ids, types, labels = (np.tile(x, (20, 1)) for x in (IDS, TYPES, labels))
    model.fit([ids, types], labels, batch_size=3, shuffle=False, verbose=0)
    assert loss == pytest.approx(1.56164, rel=1e-4)  # the same numbers on every backend
    assert model.evaluate([ids, types], labels, batch_size=3, verbose=0) == pytest.approx(0.043787, rel=1e-2)


def test_dropout_draws_anew_at_each_step_of_training():
    encoder = tiny(layers=1, dropout=0.1, seed=0)
    compiled(encoder, keras.optimizers.SGD(0.0), "mse")
    target = np.zeros((3, 5, 32))
    losses = [encoder.fit(IDS, target, batch_size=3, verbose=0).history["loss"][0] for _ in range(3)]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("attention", [SelfAttention, Mean])
def test_an_encoder_is_saved_and_loaded(attention, tmp_path):
    encoder = tiny(attention=attention, padding=3)
    encoder.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(copy(IDS)), array(encoder(IDS)), atol=1e-6)
    encoder.save_weights(tmp_path / "model.weights.h5")
    other = built(Encoder.from_config(encoder.get_config()))
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(array(other(IDS)), array(encoder(IDS)), atol=1e-6)


def test_parts_rebuild_from_their_configuration():
    for layer in (
        Embeddings(20, 8, 12, 3, dropout=0.2, seed=4, name="e"),
        SelfAttention(4, dropout=0.2, seed=4, name="a"),
        Block(SelfAttention(4), 16, dropout=0.2, seed=4, name="b"),
        ConditionalLayerNormalization(name="c"),
        all_states(tiny(dropout=0.2, seed=4)),
    ):
        config = layer.get_config()
        assert type(layer).from_config(config).get_config() == config


# --- conditional layer normalization --------------------------------------------------------------------------


def test_conditional_layer_normalization_starts_as_the_plain_one():
    x, condition = normal(2, 3, 8), normal(2, 5, seed=1)
    plain = keras.layers.LayerNormalization(epsilon=1e-12)
    np.testing.assert_allclose(array(ConditionalLayerNormalization()(x, condition)), array(plain(x)), atol=1e-6)


def test_conditional_layer_normalization_adds_linear_maps_of_the_condition_to_gamma_and_beta():
    x, condition = normal(2, 3, 8), normal(2, 5, seed=1)
    layer = ConditionalLayerNormalization()
    layer.build(x.shape, condition.shape)
    lively(layer)
    shift = condition @ array(layer.shift.kernel)
    gamma, beta = array(layer.gamma) + shift[:, :8], array(layer.beta) + shift[:, 8:]
    for sentence, g, b, found in zip(x, gamma, beta, array(layer(x, condition)), strict=True):
        for token, vector in zip(sentence, found, strict=True):
            np.testing.assert_allclose(vector, g * (token - token.mean()) / token.std() + b, atol=1e-5)


def test_conditional_layer_normalization_learns_its_condition_and_is_saved(tmp_path):
    keras.utils.set_random_seed(0)
    x, condition = keras.Input((3, 8)), keras.Input((2,))
    model = keras.Model([x, condition], ConditionalLayerNormalization()(x, condition))
    compiled(model, keras.optimizers.SGD(0.5), "mse")
    data = [normal(400, 3, 8), np.eye(2, dtype="float32")[np.arange(400) % 2]]
    target = np.ones((400, 3, 8)) * data[1][:, :1, None]  # the condition alone tells it
    model.fit(data, target, batch_size=8, verbose=0)
    assert model.evaluate(data, target, verbose=0) < 0.01
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(copy(data)), array(model(data)), atol=1e-6)


# --- errors ---------------------------------------------------------------------------------------------------

ERRORS = {
    r"ids must have shape \(None, None\), got \(5,\)": lambda: tiny()(IDS[0]),
    "ids must have at most 12 tokens a sentence, got 13": lambda: tiny()(np.ones((1, 13), "int32")),
    "num_heads must divide hidden = 32, got 5": lambda: tiny(num_heads=5),
    "num_heads must be a positive integer, got 0": lambda: tiny(num_heads=0),
    "attention must be a Keras layer, got 'softmax'": lambda: Block("softmax", 16),
    "embeddings must be a Keras layer, got None": lambda: Encoder(None, []),
    r"blocks\[1\] must be a Keras layer, got 7": lambda: Encoder(Embeddings(5, 4), [Block(Mean(), 8), 7]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_bad_argument_is_named(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
