"""Truths about ``lib.attention`` where float32 and float16 end, on whichever backend KERAS_BACKEND names."""

import keras
import numpy as np
import pytest
from attention_references import (
    BACKEND,
    BATCH,
    DIM,
    HEADS,
    array,
    close,
    compiled,
    delta_reference,
    gated_reference,
    gates,
    gradients,
    normal,
    padding,
    qkv,
    quadratic,
    softmax_reference,
)
from keras import ops

from lib.attention import (
    FeatureMap,
    chunkwise,
    cumulative_attention,
    delta_rule,
    double_softmax_attention,
    gated_attention,
    linear_attention,
    one_plus_cosine,
    prefill,
    recurrent_attention,
    recurrent_step,
    retention,
    softmax_attention,
)
from lib.attention.bidirectional import by_range, exactly, in_range, normalizer, sure_of
from lib.attention.chunks import Chunks, chunk_sums_gradient, delta_sums, delta_sums_gradient, least
from lib.attention.feature_maps import exact_map, find_feature_map, largest, mapped, within_range

pytestmark = pytest.mark.backends

COMPILED = {"tensorflow": "xla", "jax": "jit"}.get(BACKEND, "eager")
TIME = 37


# --- denominators that vanish ---------------------------------------------------------------------------------


def means(v, causal):
    """Of the values that each query sees."""
    count = np.arange(1, v.shape[1] + 1).reshape(1, -1, 1, 1)
    return (
        np.cumsum(v.astype("float64"), axis=1) / count
        if causal
        else np.broadcast_to(v.mean(1, keepdims=True), v.shape)
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["elu+1", "exp"])
@pytest.mark.parametrize("level", [-44, -50, -100, -1e4])
def test_equal_weights_are_a_mean_however_small_they_are(level, name, causal):
    x, v = np.full((1, 11, 1, 2), level, "float32"), normal(1, 11, 1, 2)
    assert close(linear_attention(x, x, v, name, causal=causal, chunk=4), means(v, causal), 1e-5)
    x = np.full((1, 11, 1, 2), -level, "float32")
    assert close(linear_attention(x, x, v, name, causal=causal, chunk=4), means(v, causal), 1e-5)


def test_steps_and_the_readable_forms_agree():
    x, v, form = (
        np.full((1, 6, 1, 2), -60, "float32"),
        normal(1, 6, 1, 2),
        {"feature_map": "elu+1", "normalize": "sum"},
    )
    expected = means(v, causal=True)
    assert close(recurrent_attention(x, x, v), expected, 1e-5)
    assert close(cumulative_attention(x, x, v), expected, 1e-5)
    out, state = prefill(x[:, :5], x[:, :5], v[:, :5], **form)
    assert close(out, expected[:, :5], 1e-5)
    assert close(recurrent_step(x[:, 5], x[:, 5], v[:, 5], state, **form)[0], expected[:, 5], 1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_small_weights_count_by_their_quotients_and_have_gradients(causal, monkeypatch):
    monkeypatch.setattr(chunkwise, "TILE", 16)
    q, k, v = qkv(TIME)
    far = [q - 70, k - 70, v]

    def function(*x):
        return linear_attention(*x, causal=causal, mask=padding(), chunk=8)

    run = compiled(function, COMPILED)
    expected = quadratic(*far, causal=causal, mask=padding())
    upstream = normal(*v.shape, seed=7)
    slopes = gradients(
        lambda *x: linear_attention(*x, "exp", causal=causal, mask=padding(), chunk=8), far, upstream
    )
    for form in (function, run):
        assert close(form(*map(ops.convert_to_tensor, far)), expected, 1e-4)
        for g, e in zip(gradients(form, far, upstream), slopes, strict=True):
            assert close(g, e, 1e-4)  # below 0 elu + 1 is the exponential
    near = [np.where(x > 0, x, x / 4).astype("float32") for x in (q, k)]
    assert close(
        run(*map(ops.convert_to_tensor, (*near, v))), quadratic(*near, v, causal=causal, mask=padding()), 1e-4
    )


def test_weights_that_all_vanish_are_nan_and_not_a_plausible_number():
    q, k = np.float32([[[[0, -300]]]]), np.float32([[[[-300, 0]]]])
    for causal in (False, True):
        assert np.all(np.isnan(array(linear_attention(q, k, k, "exp", causal=causal))))
    assert np.array_equal(array(linear_attention(q + 1, k + 1, k, "relu")), [[[[0, 0]]]])  # these are 0


@pytest.mark.parametrize("causal", [False, True])
def test_the_length_of_features_cancels(causal):
    q, k, v = qkv(11)
    for phi in ("relu", lambda x: ops.square(x), FeatureMap(one_plus_cosine)):
        expected = array(linear_attention(q, k, v, phi, causal=causal))
        assert close(linear_attention(1e-15 * q, 1e-15 * k, v, phi, causal=causal), expected, 1e-4)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_outputs_of_root_mean_square_one_whatever_the_size_of_values(size):
    (q, k, v), (log_decay, beta) = qkv(11), gates(11)
    size = np.float32(size)
    expected = gated_reference(q, k, v, log_decay, "rms")
    assert close(gated_attention(q, k, size * v, log_decay), expected, 1e-4)
    assert close(gated_attention(q / size, k, v, log_decay), expected, 1e-4)
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    expected = array(delta_rule(q, k, v, beta, normalize="rms"))
    assert close(delta_rule(q, k, size * v, beta, normalize="rms"), expected, 1e-4)
    assert abs(float(normalizer("rms", size * np.ones((1, 2), "float32"), None)[0, 0]) * size - 1) < 1e-6


# --- gates of any strength ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strong", [-90.0, -1e3, -1e5, -1e7, -1e30, -np.inf])
def test_a_strong_gate_costs_those_after_it_no_digits(strong):
    q, k, v = qkv(TIME)
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    log_decay, beta = np.full((BATCH, TIME, HEADS), -0.05, "float32"), gates(TIME)[1]
    log_decay[:, 5], log_decay[0, 20] = strong, strong
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    for chunk in (8, 64):
        out = gated_attention(q, k, v, log_decay, normalize=None, chunk=chunk)
        assert close(out, gated_reference(q, k, v, log_decay), 2e-6)
        each = np.full((BATCH, TIME, HEADS, DIM), -0.05, "float32")
        each[:, 5, :, 1], each[0, 20, :, :2] = strong, strong
        out = gated_attention(q, k, v, each, normalize=None, chunk=chunk)
        assert close(out, gated_reference(q, k, v, each), 2e-6)
        out = delta_rule(q, k, v, beta, log_decay=log_decay, chunk=chunk)
        assert close(out, delta_reference(q, k, v, beta, np.maximum(log_decay, -1e4)), 2e-6)
    *_, slope = gradients(lambda *x: gated_attention(*x, normalize=None, chunk=8), [q, k, v, log_decay], upstream)
    for t in (4, 6, 21):
        h = np.zeros_like(log_decay, "float64")
        h[0, t] = 1e-4
        ends = [np.sum(upstream * gated_reference(q, k, v, log_decay + s * h)) for s in (1, -1)]
        assert abs(np.sum(slope[0, t]) - (ends[0] - ends[1]) / 2e-4) < 1e-3
    assert np.all(np.abs(slope[:, 5]) < 1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow computes in float64 with Keras")
def test_retention_is_exact_in_double_precision():
    q, k, v = qkv(300, dtype="float64")
    log_decay = np.log(1 - 2.0 ** (-5 - np.arange(HEADS))) * np.ones((BATCH, 300, 1))
    assert close(retention(q, k, v, normalize=None), gated_reference(q, k, v, log_decay), 1e-13)


# --- where float32 ends below ----------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [-1e28, -1e31, -1e36, -1e38])
@pytest.mark.parametrize("name", ["softmax", "fused", "double softmax", "exp", "favor+"])
def test_scores_below_minus_1e30_count_as_any_others_do(name, low):
    one, v = np.ones((1, 3, 1, 1), "float32"), np.float32([1, 2, 6]).reshape(1, 3, 1, 1)
    q, k = np.float32(1e18) * one, np.float32(low / 1e18) * one
    if name == "favor+":
        q, k = one, np.float32(np.sqrt(-low)) * one  # whose logarithms hold −‖k‖²/2
    mask = np.array([[True, True, False]])
    attend = {
        "softmax": lambda **given: softmax_attention(q, k, v, scale=1.0, **given),
        "fused": lambda **given: softmax_attention(q, k, v, scale=1.0, fused=True, **given),
        "double softmax": lambda **given: double_softmax_attention(q, np.float32(low) * one, v, **given),
        "exp": lambda **given: linear_attention(0 * q, np.float32(low) * one, v, "exp", **given),
        "favor+": lambda **given: linear_attention(q, k, v, "favor+", **given),
    }[name]
    assert close(attend(mask=mask), 1.5 * one, 1e-5)
    if name != "double softmax":
        assert close(attend(causal=True), means(v, True), 1e-5)
        assert close(attend(causal=True, mask=mask), np.float32([1, 1.5, 1.5]).reshape(1, 3, 1, 1), 1e-5)


# --- half precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_beyond_float16(causal, fused):
    x = np.full((1, 4, 1, 64), 40, "float16")  # 40² · 64 = 102400
    assert close(softmax_attention(x, x, x, causal=causal, fused=fused), x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("values", [3, 7])
def test_fused_attention_takes_values_of_another_size(values, masked, causal):
    q, k, _ = qkv(5)
    v, mask = normal(BATCH, 5, HEADS, values, seed=9), padding(5) if masked else None
    out = softmax_attention(q, k, v, causal=causal, mask=mask, fused=True)
    assert close(out, softmax_reference(q, k, v, causal, mask))


@pytest.mark.parametrize(
    ("size", "dtype"), [(300, "float16"), (1e-25, "float32"), (1e25, "float32"), (300, "bfloat16")]
)
def test_a_cosine_ignores_lengths(size, dtype):
    if dtype == "float16" and size in (1e-25, 1e25):
        pytest.skip("float16 has no such number")
    x, low = normal(9, 5), dtype != "float32"
    features = array(ops.cast(one_plus_cosine(ops.cast(np.float32(size) * x, dtype)), "float32")).astype("float64")
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    assert np.allclose(features @ features.T, 1 + unit @ unit.T, atol=0.05 if low else 3e-6)
    opposite = array(ops.cast(one_plus_cosine(ops.cast(np.concatenate([x, -x]), dtype)), "float32"))
    assert (opposite @ opposite.T).min() >= 0
    (slope,) = gradients(lambda x: one_plus_cosine(x)[..., 1:], [np.float32(size) * x], unit) if not low else ([0],)
    assert np.all(np.isfinite(slope))


# --- feature maps that learn ----------------------------------------------------------------------------------


def learnable():
    phi = keras.layers.Dense(3, "softplus")
    phi.build((None, DIM))
    phi.set_weights([normal(DIM, 3, seed=4), normal(3, seed=5)])
    return phi


def with_weights(x, kernel, bias):
    return np.log1p(np.exp(x @ kernel + bias))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("promised", [False, True])
def test_a_layer_is_a_feature_map_and_learns(causal, promised, monkeypatch):
    monkeypatch.setattr(chunkwise, "TILE", 8)
    (q, k, v), phi = qkv(11), learnable()
    given, upstream = FeatureMap(phi) if promised else phi, normal(BATCH, 11, HEADS, DIM, seed=7)

    def reference(kernel, bias):
        weights = np.einsum("bihf,bjhf->bhij", *(with_weights(x.astype("float64"), kernel, bias) for x in (q, k)))
        weights = np.tril(weights) if causal else weights
        return np.einsum("bhij,bjhe->bihe", weights / weights.sum(-1, keepdims=True), v)

    def function():
        return linear_attention(q, k, v, given, causal=causal, chunk=4)

    kernel, bias = (x.astype("float64") for x in phi.get_weights())
    assert close(function(), reference(kernel, bias), 1e-5)
    slopes = weight_gradients(phi, function, upstream)
    for i, (g, x) in enumerate(zip(slopes, (kernel, bias), strict=True)):
        h = 1e-6 * normal(*x.shape, seed=11, dtype="float64")
        ends = [reference(*(y + s * h if j == i else y for j, y in enumerate((kernel, bias)))) for s in (1, -1)]
        expected = np.sum(upstream * (ends[0] - ends[1]))
        assert abs(np.sum(g * h) * 2 - expected) < 1e-3 * abs(expected) + 1e-9
    phi.set_weights([2 * x for x in phi.get_weights()])  # nothing of the older ones is kept
    assert close(function(), reference(2 * kernel, 2 * bias), 1e-5)


def weight_gradients(layer, function, upstream):
    """Of Σ upstream · function(), for the weights of a layer."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = ops.sum(function() * upstream)
        return [array(g) for g in tape.gradient(value, [w.value for w in layer.trainable_weights])]
    if BACKEND == "jax":
        import jax

        def value(weights):
            pairs = list(zip(layer.trainable_variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return ops.sum(function() * upstream)

        return [array(g) for g in jax.grad(value)([w.value for w in layer.trainable_variables])]
    value = ops.sum(function() * ops.convert_to_tensor(upstream))
    value.backward()
    return [array(w.value.grad) for w in layer.trainable_weights]


# --- the parts ------------------------------------------------------------------------------------------------


def test_a_map_is_exact_where_it_has_logarithms():
    x, elu, relu = np.float32([[-3, 0, 2]]), find_feature_map("elu+1", 3), find_feature_map("relu", 3)
    assert close(ops.exp(exact_map(elu).apply(x)), array(elu.apply(x)), 1e-6)
    assert exact_map(relu) is relu
    assert [bool(within_range(x, np.float32([y]))) for y in (0, -36.1, 1e13, np.nan)] == [True, False, False, False]
    assert float(largest(x)[0, 0]) == 3
    phi, q, _ = mapped(FeatureMap(lambda x: x - 5, logarithmic=True), x[None, None], x[None, None])
    assert phi.logarithmic
    assert close(q, x[None, None] - 5)
    assert mapped(elu, x, x)[1] is x


def test_a_form_is_by_logarithms_only_where_it_must_be():
    form = chunkwise._Form(find_feature_map("elu+1", 1), "sum", 4, 8, 0)
    near, far = ops.zeros((1, 20, 1, 1)), ops.full((1, 20, 1, 1), -50.0)
    assert in_range(form, near, near) is form
    assert in_range(form, near, far).feature_map.logarithmic
    assert exactly(form, near).tile == 20
    assert exactly(form, near).feature_map.logarithmic
    assert sure_of(form, near, near) == ()
    unsure = form._replace(unsure=True)
    for x, expected in ((near, 0), (far, 1)):
        found = by_range(
            unsure, sure_of(unsure, x, x), lambda form: float(form.feature_map.logarithmic) * ops.ones(())
        )
        assert float(found) == expected


@pytest.mark.parametrize("beta", [False, True])
def test_gradients_within_a_tile_are_those_of_finite_differences(beta):
    parts = [normal(1, 1, 1, 4, 3, seed=i) for i in range(3)]
    parts.append(-np.abs(normal(1, 1, 1, 4, 1, seed=3)))
    parts += [np.full((1, 1, 1, 4, 1), 0.5, "float32")] if beta else []
    S, z, dN, dS = (
        normal(1, 1, 3, 3, seed=5),
        np.zeros((1, 1, 3), "float32"),
        normal(1, 1, 1, 4, 3, seed=6),
        normal(1, 1, 3, 3, seed=7),
    )
    way = delta_sums_gradient if beta else chunk_sums_gradient
    tensors = [ops.convert_to_tensor(x) for x in parts]
    found, (before, _) = way(
        Chunks(*tensors), *map(ops.convert_to_tensor, (S, z, dN)), None, *map(ops.convert_to_tensor, (dS, z))
    )

    def value(S, q, k, v, g, b=None):
        S, total = S[0, 0], 0
        for t in range(4):
            key, gamma = k[0, 0, 0, t], np.exp(g[0, 0, 0, t, 0])
            u = v[0, 0, 0, t] if b is None else b[0, 0, 0, t, 0] * (v[0, 0, 0, t] - gamma * S.T @ key)
            S = gamma * S + np.outer(key, u)
            total += dN[0, 0, 0, t] @ (q[0, 0, 0, t] @ S)
        return total + np.sum(dS * S)

    inputs = [x.astype("float64") for x in (S, *parts)]
    for i, g in enumerate([before, *[x for x in found if x is not None]]):
        h = 1e-6 * normal(*inputs[i].shape, seed=20 + i, dtype="float64")
        ends = [value(*(x + s * h if j == i else x for j, x in enumerate(inputs))) for s in (1, -1)]
        assert abs(np.sum(array(g) * h) * 2e6 - (ends[0] - ends[1]) * 1e6) < 1e-3
    assert float(ops.exp(least(tensors[0]))) == 0
    if beta:  # a key that is met again is overwritten
        one, none = ops.ones((1, 1, 1, 2, 1)), ops.zeros((1, 1, 1, 1))
        V = ops.reshape(ops.convert_to_tensor(np.float32([5, 7])), one.shape)
        N, *_ = delta_sums(Chunks(one, one, V, beta=one), none, none[0], False)
        assert close(ops.reshape(N, (2,)), [5, 7])


@pytest.mark.parametrize("scale", [0.0, -0.5])
@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_takes_a_scale_that_is_not_positive(scale, causal):
    q, k, v = (normal(1, 4, 2, 3, seed=i) for i in range(3))
    given = {"scale": scale, "causal": causal}
    assert close(softmax_attention(q, k, v, fused=True, **given), array(softmax_attention(q, k, v, **given)), 1e-5)


TYPES = [("float64", "float32", "float32"), ("float16", "float32", "float64"), ("float32", "float64", "float32")]


def widest(types):
    """The type of the outputs; JAX has no float64 here."""
    return "float32" if BACKEND == "jax" else max(types)  # by its name, too


@pytest.mark.parametrize("types", TYPES, ids=str)
def test_the_linear_forms_take_them_too(types):
    x = [normal(1, 4, 2, 3, seed=i) for i in range(3)]
    q, k, v = (ops.cast(y, dtype) for y, dtype in zip(x, types, strict=True))
    beta = normal(1, 4, 2, seed=3) ** 2 % 1
    for name, function in {
        "cumulative": cumulative_attention,
        "linear": lambda *x: linear_attention(*x, causal=True),
        "full": linear_attention,
        "recurrent": recurrent_attention,
        "delta": lambda *x: delta_rule(*x, beta=beta),
    }.items():
        out = function(q, k, v)
        assert keras.backend.standardize_dtype(out.dtype) == widest(types), name
        assert close(ops.cast(out, "float32"), array(function(*x)), 2e-3), name


@pytest.mark.parametrize("types", TYPES, ids=str)
@pytest.mark.parametrize("fused", [False, True])
def test_queries_keys_and_values_may_be_of_different_types(types, fused):
    x = [normal(1, 4, 2, 3, seed=i) for i in range(3)]
    given = [ops.cast(y, dtype) for y, dtype in zip(x, types, strict=True)]
    out = softmax_attention(*given, fused=fused)
    assert keras.backend.standardize_dtype(out.dtype) == widest(types)
    assert close(ops.cast(out, "float32"), array(softmax_attention(*x)), 2e-3)
