"""Truths about ``lib.attention.layer``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from attention_references import BACKEND, array, close, compiled, normal
from keras import ops

from lib.attention import (
    FEATURE_MAPS,
    Attention,
    FeatureMap,
    Progress,
    elu_plus_one,
    one_plus_cosine,
    random_features,
    taylor,
)
from lib.attention.forms import FORMS
from lib.bert import Encoder

pytestmark = pytest.mark.backends

BATCH, TIME, HIDDEN = 3, 7, 8
X = normal(BATCH, TIME, HIDDEN)

CAUSAL = {
    "softmax": {"form": "softmax"},
    "fused softmax": {"form": "fused softmax"},
    "rotary softmax": {"form": "softmax", "rotary": True, "num_key_value_heads": 1},
    "linear": {"form": "linear"},
    "linear without φ": {"form": "linear", "feature_map": None, "normalize": None, "rotary": True},
    "favor+": {"form": "linear", "feature_map": "favor+", "normalize": "rms", "num_key_value_heads": 1},
    "retention": {"form": "retention", "rotary": True},
    "gated": {"form": "gated", "normalize": None, "value_dim": 3},
    "vector gated": {"form": "vector gated", "num_key_value_heads": 1, "value_dim": 3},
    "delta rule": {"form": "delta rule", "rotary": True, "key_dim": 6, "output_shape": 5},
}


def lively(layer, shape=X.shape, seed=0, **shapes):
    """The layer, built, with weights far from their start, so that every part of it matters."""
    layer.build(shape, **shapes)
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(0.4 * normal(*weight.shape, seed=(seed, i)))
    return layer


def causal(name, **options):
    return lively(Attention(2, causal=True, **CAUSAL[name], **options))


# --- a prompt, and on from there ------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [None, TIME])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_prompt_in_parallel_and_steps_give_what_a_call_gives(name, capacity):
    layer = causal(name)
    whole = array(layer(X))
    out, progress = layer.prefill(X[:, :3], capacity=capacity)
    assert close(out, whole[:, :3], 1e-4)
    out, progress = layer.prefill(X[:, 3:5], progress=progress)
    assert close(out, whole[:, 3:5], 1e-4)
    for t in (5, 6):
        out, progress = layer.step(X[:, t], progress)
        assert close(out, whole[:, t], 1e-4)
    alone = None
    for t in range(2):
        out, alone = layer.step(X[:, t], alone, capacity=capacity)
        assert close(out, whole[:, t], 1e-4)


@pytest.mark.parametrize("where", ["before", "behind", "within"])
@pytest.mark.parametrize("name", CAUSAL)
def test_rows_of_unequal_length_go_on_as_each_would_alone(name, where):
    layer, lengths = causal(name), (2, 5, 4)
    here = {
        "before": [range(5 - n, 5) for n in lengths],
        "behind": [range(n) for n in lengths],
        "within": [(0, 4), range(5), (0, 1, 3, 4)],
    }[where]
    mask = np.array([[t in row for t in range(5)] for row in here])
    prompt = np.where(mask[..., None], X[:, :5], 1e3).astype("float32")
    out, progress = layer.prefill(prompt, mask, capacity=8)
    assert close(array(layer(prompt, mask=mask))[mask], array(out)[mask], 1e-4)
    finished = np.array([True, True, False])  # the last row has ended, and gets a token that does not count
    last = [layer.step(X[:, 5], progress, finished), None]
    last[1] = layer.step(X[:, 6], last[0][1])
    for b, row in enumerate(here):
        text = np.concatenate([X[b, list(row)], X[b, 5:7] if finished[b] else X[b, 6:7]])[None]
        alone = array(layer(text))[0]
        assert close(array(out)[b, list(row)], alone[: len(row)], 1e-4)
        if finished[b]:
            assert close(array(last[0][0])[b], alone[-2], 1e-4)
        assert close(array(last[1][0])[b], alone[-1], 1e-4)


@pytest.mark.parametrize("name", ["rotary softmax", "linear", "delta rule"])
def test_a_compiled_step_is_traced_once(name):
    layer, traces = causal(name), []
    whole = array(layer(X))
    _, progress = layer.prefill(X[:, :1], capacity=8)
    is_tensor = [x is not None for x in keras.tree.flatten(progress)]

    def step(x, *parts):
        traces.append(None)
        given = iter(parts)
        state = [next(given) if there else None for there in is_tensor]
        y, after = layer.step(x, keras.tree.pack_sequence_as(progress, state))
        return (y, *(part for part in keras.tree.flatten(after) if part is not None))

    run, parts = compiled(step), [x for x in keras.tree.flatten(progress) if x is not None]
    for t in range(1, TIME):
        y, *parts = run(ops.convert_to_tensor(X[:, t]), *parts)
        assert close(y, whole[:, t], 1e-4)
    assert len(traces) == (TIME - 1 if BACKEND == "torch" else 1)  # torch runs it as it is


@pytest.mark.parametrize("name", ["rotary softmax", "gated"])
def test_a_prompt_of_any_length_is_read_in_one_graph(name):
    if BACKEND != "tensorflow":
        pytest.skip("a graph of TensorFlow")
    import tensorflow as tf

    layer = causal(name)
    whole, mask = array(layer(X)), np.ones((BATCH, TIME), bool)
    shapes = [tf.TensorSpec((None, None, HIDDEN)), tf.TensorSpec((None, None), "bool")]
    read = tf.function(lambda x, mask: layer.prefill(x, mask, capacity=8), input_signature=shapes)
    for n in (2, 5):
        out, progress = read(X[:, :n], mask[:, :n])
        assert close(out, whole[:, :n], 1e-4)
        assert close(layer.step(X[:, n], progress)[0], whole[:, n], 1e-4)


@pytest.mark.parametrize("capacity", [None, TIME])
@pytest.mark.parametrize("name", CAUSAL)
def test_an_empty_batch_goes_on_as_any_other(name, capacity):
    layer = causal(name)
    x, mask, sizes = X[:0], np.ones((0, TIME), bool), layer(X).shape[2:]
    out, progress = layer.prefill(x[:, :3], mask[:, :3], capacity=capacity)
    assert tuple(out.shape) == (0, 3, *sizes)
    out, progress = layer.step(x[:, 3], progress, mask[:, 3])
    assert tuple(out.shape) == (0, *sizes)
    assert {part.shape[0] for part in keras.tree.flatten(progress) if part is not None and len(part.shape)} == {0}


def test_a_room_that_is_full_is_refused():
    layer = causal("softmax")
    _, progress = layer.prefill(X, capacity=TIME)
    with pytest.raises(ValueError, match="capacity must be enough for all tokens, got 8 in a room for 7"):
        layer.step(X[:, 0], progress)
    with pytest.raises(ValueError, match="capacity must be at least 7"):
        layer.prefill(X, capacity=6)


# --- against Keras --------------------------------------------------------------------------------------------


def twins(seed=None, dropout=0.0, shapes=(), **options):
    """A layer of Keras and this one, with the same weights."""
    values = 3 if BACKEND == "jax" else 5  # the kernel of JAX, which Keras calls, wants those of the size of keys
    sizes = {"key_dim": 3, "value_dim": values, "output_shape": 6, "dropout": dropout, "seed": seed}
    theirs = keras.layers.MultiHeadAttention(2, **sizes)
    ours = Attention(2, options.pop("form", "softmax"), **sizes, **options)
    shapes = shapes or (X.shape,) * 3
    theirs.build(*shapes)
    ours.build(*shapes)
    names = ("query", "key", "value", "output")
    for i, (name, dense) in enumerate(zip(names, (ours.query, ours.key, ours.value, ours.project), strict=True)):
        kernel = 0.5 * normal(*dense.kernel.shape, seed=(7, i))
        bias = 0.5 * normal(*dense.bias.shape, seed=(8, i))
        dense.kernel.assign(kernel)
        dense.bias.assign(bias)
        other = getattr(theirs, f"{name}_dense")
        other.kernel.assign(kernel.reshape(other.kernel.shape))
        other.bias.assign(bias.reshape(other.bias.shape))
    return theirs, ours


PAIRS = np.random.default_rng(3).uniform(size=(BATCH, TIME, TIME)) < 0.6
PAIRS |= np.eye(TIME, dtype=bool)


@pytest.mark.parametrize("form", ["softmax", "fused softmax"])
def test_the_layer_is_multi_head_attention(form):
    theirs, ours = twins(form=form)
    assert close(ours(X), array(theirs(X, X)), 1e-5)
    assert close(ours(X, attention_mask=PAIRS), array(theirs(X, X, attention_mask=PAIRS)), 1e-5)
    theirs, ours = twins(form=form, causal=True)
    expected = array(theirs(X, X, attention_mask=PAIRS, use_causal_mask=True))
    assert close(ours(X, attention_mask=PAIRS.astype("float32")), expected, 1e-5)


@pytest.mark.parametrize("form", ["softmax", "fused softmax"])
def test_it_asks_other_tokens_as_multi_head_attention_does(form):
    value, key = normal(BATCH, 5, 4, seed=1), normal(BATCH, 5, 3, seed=2)
    theirs, ours = twins(form=form, shapes=(X.shape, value.shape, key.shape))
    assert close(ours(X, value, key), array(theirs(X, value, key)), 1e-5)
    mask, pairs = np.arange(5) < np.array([[5], [3], [1]]), PAIRS[:, :, :5] | (np.arange(5) == 0)
    expected = array(theirs(X, value, key, value_mask=mask, attention_mask=pairs))
    assert close(ours(X, value, key, value_mask=mask, attention_mask=pairs), expected, 1e-5)
    assert close(ours(X, value, key, mask=mask, attention_mask=pairs), expected, 1e-5)
    assert close(ours(X, value, key, key_mask=mask, attention_mask=pairs), expected, 1e-5)


def test_it_drops_the_weights_that_multi_head_attention_drops():
    theirs, ours = twins(seed=4, dropout=0.5)
    dropped = array(ours(X, training=True))
    assert close(dropped, array(theirs(X, X, training=True)), 1e-5)
    assert np.max(np.abs(dropped - array(ours(X)))) > 0.1
    _, fused = twins(form="fused softmax", seed=4, dropout=0.5)
    assert close(fused(X, training=True), dropped, 1e-5)


def test_grouped_heads_are_those_of_keras():
    theirs = keras.layers.GroupQueryAttention(3, 4, 2)
    ours = lively(Attention(4, "softmax", key_dim=3, num_key_value_heads=2))
    theirs.build(X.shape, X.shape)
    pairs = [("query", ours.query), ("key", ours.key), ("value", ours.value), ("output", ours.project)]
    for name, dense in pairs:
        other = getattr(theirs, f"_{name}_dense")
        other.kernel.assign(array(dense.kernel).reshape(other.kernel.shape))
        other.bias.assign(array(dense.bias).reshape(other.bias.shape))
    assert close(ours(X), array(theirs(X, X)), 1e-5)


@pytest.mark.parametrize("form", ["linear", "double softmax"])
def test_dropout_without_weights_drops_values_and_keeps_the_mean(form):
    layer = lively(Attention(2, form, dropout=0.5, seed=0))
    x = np.repeat(normal(1, 4, HIDDEN), 400, axis=0)  # each of them drops values of its own
    outputs = array(layer(x, training=True))
    assert np.std(outputs, axis=0).min() > 0.01
    assert np.max(np.abs(outputs.mean(axis=0) - array(layer(x[:1])))) < 6 * outputs.std(axis=0).max() / 20


def test_a_layer_without_dropout_keeps_no_state_of_a_seed():
    for rate, states in ((0.0, 0), (0.5, 1)):
        layer = lively(Attention(2, "softmax", dropout=rate, seed=0))
        assert len(layer.non_trainable_variables) == states


@pytest.mark.parametrize("form", ["linear", "double softmax"])
def test_forms_without_weights_ask_other_tokens_too(form):
    layer, value = lively(Attention(2, form)), normal(BATCH, 5, HIDDEN, seed=1)
    mask = np.arange(5) < np.array([[5], [3], [1]])
    out = array(layer(X, value, value_mask=mask))
    for b, n in enumerate((5, 3, 1)):
        assert close(array(layer(X[b : b + 1], value[b : b + 1, :n]))[0], out[b], 1e-5)


def test_masks_that_come_with_the_vectors_are_seen():
    ids = np.array([[1, 2, 3, 0, 0], [4, 1, 1, 2, 5]])
    embed = keras.layers.Embedding(6, HIDDEN, mask_zero=True)
    x, layer, mask = embed(ids), lively(Attention(2, "softmax")), ids > 0
    plain = array(layer(ops.convert_to_tensor(array(x)), mask=mask))
    assert close(layer(x), plain, 1e-6)
    assert close(layer(x, attention_mask=np.ones((2, 5, 5), bool)), plain, 1e-6)  # two tensors: query_mask
    assert close(layer(x, x), plain, 1e-6)  # value_mask


# --- rotary positions -----------------------------------------------------------------------------------------


def test_rotary_scores_are_those_of_complex_numbers():
    layer = lively(Attention(2, "softmax", causal=True, rotary=True, max_wavelength=30.0))
    q, k, v = (
        array(dense(X)).astype("float64").reshape(BATCH, TIME, 2, 4)
        for dense in (layer.query, layer.key, layer.value)
    )
    angle = np.arange(TIME)[:, None] * 30.0 ** (-2 * np.arange(2) / 4)
    q, k = ((x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None] for x in (q, k))
    scores = np.einsum("bihd,bjhd->bhij", q, k.conj()).real / 2
    weights = np.tril(np.exp(scores))
    out = np.einsum("bhij,bjhe->bihe", weights / weights.sum(-1, keepdims=True), v).reshape(BATCH, TIME, 8)
    expected = out @ array(layer.project.kernel) + array(layer.project.bias)
    assert close(layer(X), expected, 1e-4)


@pytest.mark.parametrize("form", ["softmax", "retention", "gated", "delta rule"])
def test_rotary_positions_matter_and_start_anywhere(form):
    layer, plain = (lively(Attention(2, form, causal=True, rotary=rotary)) for rotary in (True, False))
    out = array(layer(X))
    assert np.max(np.abs(out - array(plain(X)))) > 1e-3
    padded = np.concatenate([np.full((BATCH, 4, HIDDEN), 9, "float32"), X], axis=1)
    mask = np.arange(TIME + 4) >= np.full((BATCH, 1), 4)
    assert close(array(layer(padded, mask=mask))[:, 4:], out, 1e-4)


# --- in models, saved and loaded ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["linear", "softmax"])
def test_an_encoder_takes_it_for_its_attention(form, tmp_path):
    ids = np.array([[2, 5, 3, 0], [2, 7, 6, 3]])

    def attention(heads, **options):
        return Attention(heads, form, **options)

    bert = Encoder.from_sizes(10, 8, 1, 2, 16, attention=Attention if form == "linear" else attention)
    out = array(bert(ids))
    assert close(array(bert(ids[:1, :3]))[0], out[0, :3], 1e-5)
    assert np.max(np.abs(array(bert(ids, training=True)) - out)) > 1e-3
    bert.save(tmp_path / "bert.keras")
    assert close(keras.models.load_model(tmp_path / "bert.keras")(ids), out, 1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"form": "softmax", "causal": True, "rotary": True, "max_wavelength": 99.0, "num_key_value_heads": 1},
        {
            "form": "linear",
            "key_dim": 3,
            "value_dim": 2,
            "output_shape": 8,
            "use_bias": False,
            "feature_map": "favor+",
        },
        {"form": "linear", "dropout": 0.3, "seed": 5, "normalize": "rms", "feature_map": None, "chunk": 4},
        {"form": "softmax", "dropout": 0.3, "seed": "generator", "dtype": "mixed_bfloat16"},
    ],
)
def test_saved_and_loaded_it_is_the_same(options, tmp_path):
    if options.get("seed") == "generator":
        options = {**options, "seed": keras.random.SeedGenerator(3)}
    inputs = keras.Input((None, HIDDEN))
    layer = Attention(2, **options)
    model = keras.Model(inputs, layer(inputs))
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(0.4 * normal(*weight.shape, seed=i))
    assert model.output_shape == (None, None, HIDDEN)
    out = array(ops.cast(model(X), "float32"))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert close(ops.cast(loaded(X), "float32"), out, 1e-6)
    config = loaded.layers[-1].get_config()
    assert config == {**layer.get_config(), "seed": config["seed"]}
    assert type(loaded.layers[-1].seed) is type(layer.seed)


@pytest.mark.parametrize("output_shape", [5, (5,), [2, 3], np.array([4])[0]])
@pytest.mark.parametrize("form", ["softmax", "linear"])
def test_the_output_has_the_sizes_that_multi_head_attention_would_give_it(form, output_shape, tmp_path):
    layer = Attention(2, form, causal=True, output_shape=output_shape)
    inputs = keras.Input((TIME, HIDDEN))
    model = keras.Model(inputs, layer(inputs))
    given = output_shape if isinstance(output_shape, tuple | list) else (int(output_shape),)
    peer = keras.layers.MultiHeadAttention(2, 4, output_shape=tuple(given))
    assert model.output_shape == (None, TIME, *given) == tuple(peer(inputs, inputs).shape)
    out = array(model(X))
    assert out.shape == (BATCH, TIME, *given)
    first, progress = layer.prefill(X[:, :-1])
    assert close(first, out[:, :-1], 1e-5)
    assert close(layer.step(X[:, -1], progress)[0], out[:, -1], 1e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(keras.models.load_model(tmp_path / "model.keras")(X)), out)


@pytest.mark.parametrize("wrong", [0, (), (2, 0), (True,), "5", 2.5])
def test_sizes_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match="output_shape must"):
        Attention(2, output_shape=wrong)


@keras.saving.register_keras_serializable(package="test_attention_layer")
def squares(x):
    return ops.square(x)


@pytest.mark.parametrize(
    "feature_map",
    [
        random_features(4, 16),
        random_features(4, 7, seed=3, orthogonal=False),
        elu_plus_one,
        squares,
        FeatureMap(one_plus_cosine),
        FeatureMap(taylor, name="mine"),
        FeatureMap(keras.layers.Dense(3, "softplus")),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_a_feature_map_that_keras_can_rebuild_is_saved(feature_map, causal, tmp_path):
    if isinstance(feature_map, FeatureMap) and isinstance(feature_map.apply, keras.layers.Layer):
        feature_map = FeatureMap(keras.layers.Dense(3, "softplus"))  # no weights of another test
    layer = Attention(2, causal=causal, feature_map=feature_map)
    model = keras.Sequential([keras.Input((TIME, HIDDEN)), layer])
    for i, weight in enumerate(layer.weights):
        weight.assign(0.4 * normal(*weight.shape, seed=i))
    assert len(layer.trainable_weights) == (10 if "Dense" in repr(feature_map) else 8)
    out = array(model(X))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(X)), out)
    assert keras.models.clone_model(model)(X).shape == out.shape
    phi = loaded.layers[-1].feature_map
    if isinstance(feature_map, FeatureMap):
        assert (phi.logarithmic, phi.name) == (feature_map.logarithmic, feature_map.name)
        phi, feature_map = phi.apply, feature_map.apply
    assert type(phi) is type(feature_map)


class Unregistered:
    """A function that Keras cannot look up."""

    def __call__(self, x):
        return ops.square(x)


@pytest.mark.parametrize(
    ("feature_map", "message"),
    [
        (lambda x: ops.square(x), "feature_map must be a name of FEATURE_MAPS"),
        (ops.square, "feature_map must be a name of FEATURE_MAPS"),
        (Unregistered(), "feature_map must be a name of FEATURE_MAPS"),
        (FeatureMap(lambda x: ops.square(x)), "feature_map must be a name of FEATURE_MAPS"),
        (random_features(4, 16, seed=None), "seed of random_features must be an integer"),
        (random_features(4, 16, seed=np.random.default_rng(0)), "seed of random_features must be an integer"),
    ],
)
def test_a_feature_map_that_no_file_can_hold_is_refused_when_saved(feature_map, message, tmp_path):
    model = keras.Sequential([keras.Input((TIME, HIDDEN)), Attention(2, feature_map=feature_map)])
    assert np.all(np.isfinite(array(model(X))))
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "model.keras")


def test_a_feature_map_may_learn_and_is_saved_too(tmp_path):
    phi = keras.layers.Dense(3, "softplus", name="phi")
    model = keras.Sequential([keras.Input((TIME, HIDDEN)), Attention(2, causal=True, feature_map=phi)])
    before = array(phi.kernel).copy()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(X, X, epochs=1, verbose=0)
    assert np.min(np.abs(array(phi.kernel) - before)) > 0
    out = array(model(X))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert close(loaded(X), out, 1e-6)
    layer = loaded.layers[-1]
    y, progress = layer.prefill(X[:, :5])
    assert close(y, out[:, :5], 1e-5)
    assert close(layer.step(X[:, 5], progress)[0], out[:, 5], 1e-5)


def test_a_state_of_another_form_is_refused():
    states = {form: lively(Attention(2, form, causal=True)) for form in ("linear", "retention", "delta rule")}
    for form, layer in states.items():
        for other, origin in states.items():
            _, progress = origin.prefill(X)
            if form == other:
                assert np.all(np.isfinite(array(layer.step(X[:, 0], progress)[0])))
            else:
                with pytest.raises(ValueError, match="state"):
                    layer.step(X[:, 0], progress)


def test_a_functional_model_asks_other_tokens():
    query, value = keras.Input((None, HIDDEN)), keras.Input((None, 4))
    layer = Attention(2, "softmax", output_shape=3)
    model = keras.Model([query, value], layer(query, value))
    assert model.output_shape == (None, None, 3)
    assert tuple(model([X, normal(BATCH, 5, 4)]).shape) == (BATCH, TIME, 3)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["rotary softmax", "linear", "gated", "vector gated", "delta rule"])
def test_prompts_and_steps_in_mixed_precision(name, dtype):
    layer = lively(Attention(2, causal=True, dtype=dtype, **CAUSAL[name]))
    whole = layer(X)
    kind = dtype.removeprefix("mixed_")
    out, progress = layer.prefill(X[:, :5], capacity=8)
    last, _ = layer.step(X[:, 5], progress)
    for y, exact in ((out, whole[:, :5]), (last, whole[:, 5])):
        assert keras.backend.standardize_dtype(y.dtype) == kind
        assert close(ops.cast(y, "float32"), array(ops.cast(exact, "float32")), 0.05)


# --- seeds, errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_gate_starts_from_the_bias_of_its_form_and_all_else_from_zero(use_bias):
    for form, bias in {"gated": 4.0, "vector gated": 0.0, "delta rule": 0.0}.items():
        layer = Attention(2, form, causal=True, use_bias=use_bias)
        layer.build(X.shape)
        gate = FORMS[form].gate.name
        assert set(array(getattr(layer, gate).bias)) == {bias}
        rest = [
            weight for weight in layer.weights if weight.path.endswith("bias") and f"/{gate}/" not in weight.path
        ]
        assert len(rest) == 4 * use_bias + (form == "vector gated") * use_bias
        assert not any(array(weight).any() for weight in rest)


def test_a_seed_is_what_keras_takes_for_one():
    def dropped(seed):
        layer = lively(Attention(2, "softmax", dropout=0.5, seed=seed))
        return array(layer(X, training=True))

    assert np.array_equal(dropped(3), dropped(3))
    assert np.array_equal(dropped(3), dropped(keras.random.SeedGenerator(3)))
    keras.utils.set_random_seed(0)
    first = dropped(None)
    assert not np.array_equal(first, dropped(None))
    keras.utils.set_random_seed(0)
    assert np.array_equal(first, dropped(None))


def test_where_no_error_can_be_raised_a_mask_that_is_none_gives_nan_in_its_row():
    if BACKEND == "torch":
        return
    layer = causal("linear")
    mask = np.ones((BATCH, TIME), "float32")
    mask[1, 2] = -1e4
    mode = "xla" if BACKEND == "tensorflow" else None
    for out in (
        compiled(lambda x, mask: layer(x, mask=mask), mode)(*map(ops.convert_to_tensor, (X, mask))),
        compiled(lambda x, mask: layer.prefill(x, mask)[0], mode)(*map(ops.convert_to_tensor, (X, mask))),
        compiled(lambda x, mask: layer.step(x, None, mask)[0], mode)(
            *map(ops.convert_to_tensor, (X[:, 2], mask[:, 2]))
        ),
    ):
        bad = np.any(np.isnan(array(out)), axis=tuple(range(1, len(out.shape))))
        assert bad.tolist() == [False, True, False]


BUILT, PLAIN = causal("softmax"), lively(Attention(2))
WRONG = [
    (lambda: Attention(0), "num_heads must be a positive integer, got 0"),
    (lambda: Attention(True), "num_heads must be a positive integer, got True"),
    (lambda: Attention(2, key_dim=0), "key_dim must be a positive integer, got 0"),
    (lambda: Attention(2, value_dim=2.5), "value_dim must be a positive integer, got 2.5"),
    (lambda: Attention(2, output_shape=(3, 0)), "output_shape must be a positive integer, got 0"),
    (lambda: Attention(4, num_key_value_heads=3), "num_key_value_heads must divide num_heads = 4, got 3"),
    (lambda: Attention(2, "softmax", dropout=1.0), r"dropout must lie in \[0, 1\), got 1.0"),
    (lambda: Attention(2, "softmax", dropout=-0.1), r"dropout must lie in \[0, 1\), got -"),
    (lambda: Attention(2, "softmax", seed="x"), "seed must be an integer of at least 0"),
    (lambda: Attention(2, "softmax", seed=True), "seed must be an integer of at least 0"),
    (lambda: Attention(2, "softmax", feature_map="nonsense"), "feature_map must be left at 'auto'"),
    (lambda: Attention(2, "softmax", normalize="rms"), "normalize must be 'auto'"),
    (lambda: Attention(2, causal="False"), "causal must be True or False, got 'False'"),
    (lambda: Attention(2, "softmax", rotary=0), "rotary must be True or False, got 0"),
    (lambda: Attention(2, use_bias=None), "use_bias must be True or False, got None"),
    (lambda: Attention(2, chunk=0), "chunk must be a positive integer, got 0"),
    (lambda: Attention(2, rotary=True), "rotary must be False with the form 'linear', unless feature_map is None"),
    (
        lambda: Attention(2, "double softmax", rotary=True),
        "rotary must be False with the form 'double softmax', got",
    ),
    (lambda: Attention(2, "softmax", rotary=True, max_wavelength=0), "max_wavelength must be positive, got 0"),
    (lambda: Attention(2, "softmax", rotary=True, key_dim=3)(X), "key_dim must be even with rotary=True, got 3"),
    (lambda: Attention(2)(X[0]), "query must have shape .batch, time, hidden. of known hidden, got .7, 8."),
    (lambda: Attention(2)(keras.Input((None, None))), "query must have shape .* got .None, None, None."),
    (lambda: Attention(2)(X, X[0]), "value must have shape"),
    (lambda: PLAIN(X[0]), "query must have shape"),
    (lambda: PLAIN(X, key=X), "value must be given where key is, got None"),
    (lambda: PLAIN(X, X[:2]), "value must have shape"),
    (lambda: PLAIN(X, X, X[:, :4]), "key must have shape"),
    (lambda: BUILT(X, X[:, :4]), "value must have shape"),
    (lambda: PLAIN(X, mask=np.ones((BATCH, TIME + 1), bool)), "mask must have shape"),
    (lambda: PLAIN(X, mask=np.full((BATCH, TIME), -1e4, "float32")), "mask must hold True or 1"),
    (lambda: PLAIN(X, X, value_mask=np.full((BATCH, TIME), 0.5, "float32")), "value_mask must hold True or 1"),
    (lambda: PLAIN(X, attention_mask=PAIRS), "attention_mask must be None with the form 'linear'"),
    (lambda: BUILT(X, attention_mask=PAIRS[:, :3]), "attention_mask must have shape"),
    (lambda: BUILT(X, attention_mask=PAIRS - 1e4), "attention_mask must hold True or 1"),
    (lambda: causal("gated")(X, X), "value must be None with the form 'gated'"),
    (lambda: causal("rotary softmax")(X, X), "value must be None with rotary=True"),
    (lambda: Attention(2, causal=True).step(X[:, 0]), "must be built before step"),
    (lambda: Attention(2, causal=True).prefill(X), "must be built before prefill"),
    (lambda: PLAIN.prefill(X), "causal must be True for prefill"),
    (lambda: PLAIN.step(X[:, 0]), "causal must be True for step"),
    (lambda: PLAIN(X[:, :0]), "query must have at least one token and feature, got shape .3, 0, 8."),
    (lambda: PLAIN(X, X[:, :0]), "value must have at least one token and feature"),
    (lambda: BUILT.prefill(X[:, :0]), "x must have at least one token and feature, got shape .3, 0, 8."),
    (lambda: BUILT.step(X), "x must have shape .None, 8., got .3, 7, 8."),
    (lambda: BUILT.step(X[:, 0, :4]), "x must have shape .None, 8., got .3, 4."),
    (lambda: BUILT.prefill(X[:, 0]), "x must have shape .None, None, 8."),
    (lambda: BUILT.prefill(None), "x must be a tensor of numbers, got None"),
    (lambda: BUILT.prefill(X, X[..., 0]), "mask must hold True or 1"),
    (lambda: BUILT.step(X[:, 0], mask=np.ones((BATCH, 1), bool)), "mask must have shape"),
    (lambda: BUILT.step(X[:, 0], "state"), "progress must be what prefill or step returned, or None, got 'state'"),
    (lambda: BUILT.step(X[:, 0], causal("linear").prefill(X)[1]), "cache must be what was returned"),
    (lambda: BUILT.step(X[:1, 0], BUILT.prefill(X)[1]), "cache.k must have shape"),
    (lambda: causal("linear").prefill(X, capacity=0), "capacity must be a positive integer, got 0"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[f"{i} {message}" for i, (_, message) in enumerate(WRONG)])
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_named_feature_map_makes_a_layer():
    for name in FEATURE_MAPS:
        assert Attention.from_config(Attention(2, feature_map=name).get_config()).feature_map == name
    assert Progress(None).tokens is None
