"""Truths about ``lib.attention``, on whichever backend KERAS_BACKEND names."""

import keras
import numpy as np
import pytest
from attention_references import (
    BATCH,
    DIM,
    HEADS,
    MAPS,
    TIME,
    array,
    close,
    gradients,
    normal,
    padding,
    qkv,
    quadratic,
    softmax_reference,
    weighted,
)
from keras import ops

from lib.attention import (
    Attention,
    Cache,
    cached_attention,
    cached_step,
    cumulative_attention,
    delta_rule,
    double_softmax_attention,
    gated_attention,
    linear_attention,
    prefill,
    random_features,
    recurrent_attention,
    recurrent_step,
    retention,
    softmax_attention,
)
from lib.bert import Block, SelfAttention

pytestmark = pytest.mark.backends


# --- softmax --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_softmax_attention_is_its_formula(causal, masked, fused):
    q, k, v = qkv()
    mask = padding() if masked else None
    out = softmax_attention(q, k, v, causal=causal, mask=mask, fused=fused)
    assert close(out, softmax_reference(q, k, v, causal, mask))


def test_softmax_attention_looks_at_other_tokens_with_its_own_scale():
    q, (_, k, v) = qkv(5)[0], qkv(9)
    assert close(softmax_attention(q, k, v, scale=0.3), softmax_reference(q, k, v, scale=0.3))


def test_rows_of_the_double_softmax_sum_to_one():
    q, k, v = qkv()
    assert close(double_softmax_attention(q, k, np.ones_like(v)), np.ones_like(v))
    e = [np.exp(x.astype("float64")) for x in (q, k)]
    weights = np.einsum(
        "bihd,bjhd->bhij",
        e[0] / e[0].sum(-1, keepdims=True),
        e[1] * padding()[:, :, None, None] / (e[1] * padding()[:, :, None, None]).sum(1, keepdims=True),
    )
    assert close(double_softmax_attention(q, k, v, mask=padding()), weighted(weights, v, None))


def test_a_cache_gives_the_last_row_of_causal_softmax_attention_and_grows():
    q, k, v = qkv(4)
    whole, cache = array(softmax_attention(q, k, v, causal=True)), None
    for t in range(4):
        out, cache = cached_step(q[:, t], k[:, t], v[:, t], cache)
        assert close(out, whole[:, t])
    assert isinstance(cache, Cache)
    assert tuple(cache.k.shape) == (BATCH, 4, HEADS, DIM)


# --- linear attention -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_linear_attention_is_the_sum_over_all_pairs(name, causal):
    q, k, v = qkv()
    out = linear_attention(q, k, v, name, causal=causal, mask=padding(), chunk=8)
    assert close(out, quadratic(q, k, v, name, causal, padding()), 1e-4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("normalize", ["rms", None])
def test_outputs_may_be_normalised_otherwise(normalize, causal):
    q, k, v = qkv()
    out = linear_attention(q, k, v, "exp", causal=causal, mask=padding(), normalize=normalize, chunk=8)
    assert close(out, quadratic(q, k, v, "exp", causal, padding(), normalize), 1e-4)


@pytest.mark.parametrize("normalize", ["sum", "rms", None])
@pytest.mark.parametrize("name", ["elu+1", "exp"])
def test_the_two_readable_forms_are_the_sum_over_all_pairs(name, normalize):
    q, k, v = qkv(5)
    for form in (recurrent_attention, cumulative_attention):
        out = form(q, k, v, name, mask=padding(5), normalize=normalize)
        assert close(out, quadratic(q, k, v, name, mask=padding(5), normalize=normalize))


def test_plain_code_may_name_a_map_of_its_own():
    q, k, v = qkv()
    out = linear_attention(q, k, v, lambda x: ops.square(x) + 0.1, causal=True)
    weights = np.einsum("bihf,bjhf->bhij", *(x.astype("float64") ** 2 + 0.1 for x in (q, k)))
    assert close(out, weighted(np.tril(weights), v, "sum"))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["elu+1", "exp"])
def test_a_query_without_keys_gets_zero_and_no_nan(name, causal):
    x, mask = qkv(), np.zeros((BATCH, TIME), bool)

    def function(*x):
        return linear_attention(*x, name, causal=causal, mask=mask, chunk=8)

    assert not np.any(array(function(*x)))
    for g in gradients(function, x, np.ones_like(x[2])):
        assert not np.any(g)


def test_so_does_one_of_the_other_forms():
    q, k, v = qkv()
    mask = np.zeros((BATCH, TIME), bool)
    assert not np.any(array(softmax_attention(q, k, v, mask=mask)))
    assert not np.any(array(softmax_attention(q, k, v, mask=mask, fused=True)))
    assert not np.any(array(double_softmax_attention(q, k, v, mask=mask)))
    assert not np.any(array(linear_attention(-np.abs(q), k, v, "relu", causal=True, mask=~mask, chunk=8)))


@pytest.mark.parametrize("causal", [False, True])
def test_exponentials_do_not_overflow_and_late_large_keys_do_not_erase_early_ones(causal):
    q, k, v = qkv()
    k, mask = k + np.linspace(-300, 300, TIME, dtype="float32")[None, :, None, None], np.ones((BATCH, TIME), bool)
    out = array(linear_attention(q, k, v, "exp", causal=causal, mask=mask, chunk=8))
    weights = np.einsum("bihf,bjhf->bhij", *(np.exp(x.astype("float64")) for x in (q, k)))
    assert close(out, weighted(np.tril(weights) if causal else weights, v, "sum"), 1e-4)
    options = {"causal": causal, "mask": mask, "chunk": 8}
    found = gradients(lambda *x: linear_attention(*x, "exp", **options), [q, k, v], np.ones_like(v))
    assert all(np.all(np.isfinite(g)) for g in found)


def test_weights_of_a_factored_similarity_are_a_mean():
    (q, k, v), mask = qkv(), np.ones((BATCH, TIME), bool)
    for name in set(MAPS) - {"relu"}:  # whose weights may all be 0
        out = array(linear_attention(q, k, v, name, causal=True, mask=mask, chunk=8))
        low, high = np.minimum.accumulate(v, axis=1), np.maximum.accumulate(v, axis=1)
        assert np.all(out >= low - 1e-4)
        assert np.all(out <= high + 1e-4)
        assert close(linear_attention(q, k, np.ones_like(v), name, mask=mask), np.ones_like(v))


def test_other_keys_than_queries():
    q, (_, k, v) = qkv(5)[0], qkv(9)
    assert close(linear_attention(q, k, v), quadratic(q, k, v, causal=False))


def test_a_delta_rule_overwrites_where_a_sum_adds():
    keys, v = np.eye(4, dtype="float32")[[0, 1, 0]].reshape(1, 3, 1, 4), normal(1, 3, 1, 4)
    out = array(delta_rule(keys, keys, v, np.ones((1, 3, 1), "float32")))
    assert close(out, v)
    added = array(linear_attention(keys, keys, v, None, causal=True, normalize=None))
    assert close(added[:, 2], v[:, 0] + v[:, 2])


# --- the layer ------------------------------------------------------------------------------------------------


LAYERS = [
    ("softmax", True),
    ("softmax", False),
    ("fused softmax", True),
    ("double softmax", False),
    ("linear", True),
    ("linear", False),
    ("retention", True),
    ("gated", True),
    ("delta rule", True),
]


def lively(layer, seed=0):
    """The layer with weights far from their start, so that every part of it matters."""
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(0.3 * normal(*weight.shape, seed=(seed, i)))
    return layer


@pytest.mark.parametrize(("form", "causal"), LAYERS)
def test_the_layer_takes_the_place_of_self_attention_in_a_block(form, causal, tmp_path):
    inputs = keras.Input((None, 8))
    block = Block(Attention(2, form, causal), inner=16, dropout=0.0)
    model = keras.Model(inputs, block(inputs))
    lively(block)
    x, mask = normal(2, 11, 8), np.arange(11) < np.array([[7], [11]])
    out, other = array(block(x, mask=mask)), array(block(np.where(mask[..., None], x, 0.7), mask=mask))
    assert np.max(np.abs(out - other)[mask]) < 1e-5
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert close(loaded.layers[-1](x, mask=mask), out, 1e-6)


@pytest.mark.parametrize("form", ["linear", "delta rule"])
def test_a_model_with_the_layer_learns(form):
    model = keras.Sequential([keras.Input((11, 8)), Attention(2, form, causal=True)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x = normal(2, 11, 8)
    losses = model.fit(x, x, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_with_softmax_the_layer_is_self_attention():
    ours, theirs = Attention(2, "softmax"), SelfAttention(2)
    x, mask = normal(2, 11, 8), np.arange(11) < np.array([[7], [11]])
    for layer in (ours, theirs):
        layer.build(x.shape)
        lively(layer)
    assert close(ours(x, mask=mask), array(theirs(x, mask=mask)), 1e-5)


@pytest.mark.parametrize("form", [form for form, causal in LAYERS if causal])
def test_the_layer_goes_on_token_by_token(form):
    layer, x, state = Attention(2, form, True), normal(2, 4, 8), None
    layer.build(x.shape)
    whole = array(lively(layer)(x))
    for t in range(4):
        out, state = layer.step(x[:, t], state)
        assert close(out, whole[:, t], 1e-4)


@pytest.mark.parametrize(("form", "causal"), [("fused softmax", True), ("linear", False), ("delta rule", True)])
def test_the_layer_in_mixed_precision(form, causal):
    layer = Attention(2, form, causal, dtype="mixed_bfloat16")
    out = layer(normal(2, 5, 8))
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    assert np.all(np.isfinite(array(out)))


# --- errors ---------------------------------------------------------------------------------------------------


def q(*shape):
    return np.zeros(shape, "float32")


X = q(2, 5, 2, 4)
S = keras.KerasTensor((None, 5, 2, 4))
OF_SYMBOLS = [
    lambda: linear_attention(S, S, S),
    lambda: linear_attention(S, S, S, causal=True),
    lambda: retention(S, S, S, 0.5),
    lambda: delta_rule(S, S, S, S[..., 0]),
    lambda: gated_attention(S, S, S, S[..., 0]),
    lambda: recurrent_attention(S, S, S),
    lambda: cumulative_attention(S, S, S),
    lambda: softmax_attention(S, S, S),
    lambda: double_softmax_attention(S, S, S),
    lambda: prefill(S, S, S, feature_map="exp", normalize="sum"),
    lambda: recurrent_step(S[:, 0], S[:, 0], S[:, 0], feature_map="exp", normalize="sum"),
    lambda: cached_attention(S, S, S),
    lambda: cached_step(S[:, 0], S[:, 0], S[:, 0]),
]
WRONG = [
    (lambda: linear_attention(q(5, 2, 4), X, X), "q must have shape"),
    (lambda: linear_attention(X.astype(int), X, X), "q must hold floats, got int"),
    *((function, "q must be a tensor, .* within a layer, got a symbol") for function in OF_SYMBOLS),
    (lambda: linear_attention(X, q(2, 5, 2, 3), X), "k must have shape"),
    (lambda: linear_attention(X, q(2, 6, 2, 4), q(2, 6, 2, 4), causal=True), "k must have shape"),
    (lambda: linear_attention(X, X, q(2, 4, 2, 4)), "v must have shape"),
    (lambda: linear_attention(q(2, 0, 2, 4), X, X), "q must have at least one token"),
    (lambda: linear_attention(X, X, X, mask=np.ones((2, 4), bool)), "mask must have shape"),
    (lambda: linear_attention(X, X, X, "sine"), "feature_map must be one of 'elu"),
    (lambda: linear_attention(X, X, X, None), "feature_map must be one of 'elu"),
    (lambda: linear_attention(X, X, X, random_features(3, 5)), "feature_map must be for dim 4"),
    (lambda: linear_attention(X, X, X, lambda x: x - 1), "feature_map must give non-negative features"),
    (lambda: linear_attention(X, X, X, normalize="mean"), "normalize must be one of"),
    (lambda: linear_attention(X, X, X, causal=True, chunk=0), "chunk must be a positive integer"),
    (lambda: retention(X, X, X, 1.5), "decay must be in"),
    (lambda: retention(X, X, X, [0.5]), "decay must be in"),
    (lambda: gated_attention(X, X, X, q(2, 5)), "log_decay must have shape"),
    (lambda: delta_rule(X, X, X, q(2, 5, 3)), "beta must have shape"),
    (lambda: recurrent_step(X, X, X, feature_map="exp", normalize="sum"), "q must have shape .batch, heads, dim"),
    (lambda: random_features(4, 0), "count must be a positive integer"),
    (lambda: Attention(2, "cosine"), "form must be one of"),
    (lambda: Attention(2, "delta rule"), "causal must be True"),
    (lambda: Attention(2, "double softmax", True), "causal must be False"),
    (lambda: Attention(2, normalize="mean"), "normalize must be"),
    (lambda: Attention(3)(q(1, 2, 8)), "num_heads must divide hidden = 8, unless key_dim is given, got 3"),
    (lambda: Attention(2).step(q(1, 8)), "causal must be True"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
