"""Truths about ``lib.attention.chunkwise``, on whichever backend KERAS_BACKEND names."""

import keras
import numpy as np
import pytest
from attention_references import (
    BACKEND,
    BATCH,
    DIM,
    HEADS,
    MAPS,
    TIME,
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
    slopes_agree,
    value_and_gradients,
    vector_gate,
)
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from memory_builders import linear_attention_gradient, peaks_in_turn
from search import examples

from lib.attention import (
    State,
    chunkwise,
    cumulative_attention,
    delta_rule,
    gated_attention,
    linear_attention,
    prefill,
    recurrent_step,
    retention,
)
from lib.attention.chunks import Chunks, chunk_sums, feature_sums, feature_sums_gradient
from lib.attention.chunkwise import chunkwise_attention

pytestmark = pytest.mark.backends

DOUBLE = BACKEND == "tensorflow"  # elsewhere Keras computes a float64 product in float32
MOST = ["exp", "gated delta", "vector"]  # all paths but that of u = v without a decay
EVERYTHING = np.ones((BATCH, TIME), bool)  # a mask too, so that JAX compiles no second time


@pytest.fixture(autouse=True)
def short_tiles(monkeypatch):
    """Three tiles of two chunks, and of one for the delta rule."""
    monkeypatch.setattr(chunkwise, "TILE", 16)


def forms(mask, chunk):
    """All causal forms as functions of tensors, with those tensors."""
    options = {"mask": mask, "chunk": chunk}
    q, k, v = qkv()
    k_unit = k / np.linalg.norm(k, axis=-1, keepdims=True)
    log_decay, beta = gates()
    return {
        "elu+1": (lambda *x: linear_attention(*x, causal=True, **options), [q, k, v]),
        "exp": (lambda *x: linear_attention(*x, "exp", causal=True, **options), [q, k, v]),
        "rms": (lambda *x: linear_attention(*x, None, causal=True, normalize="rms", **options), [q, k, v]),
        "retention": (lambda *x: retention(*x, normalize=None, **options), [q, k, v]),
        "gated": (lambda *x: gated_attention(*x, normalize=None, **options), [q, k, v, log_decay]),
        "vector": (lambda *x: gated_attention(*x, normalize=None, **options), [q, k, v, vector_gate()]),
        "delta": (lambda *x: delta_rule(*x, **options), [q, k_unit, v, beta]),
        "gated delta": (
            lambda q, k, v, b, g: delta_rule(q, k, v, b, log_decay=g, **options),
            [q, k_unit, v, beta, log_decay],
        ),
    }


def reference(name, mask, inputs):
    if "delta" in name:
        return delta_reference(*inputs, mask=mask)
    if name == "retention":
        log_decay = np.log(1 - 2.0 ** (-5 - np.arange(HEADS))) * np.ones((*inputs[0].shape[:2], 1))
        return quadratic(*inputs, "", mask=mask, normalize=None, log_decay=log_decay)
    if name == "vector":
        return gated_reference(*inputs, mask=mask)
    if name == "gated":
        return quadratic(*inputs[:3], "", mask=mask, normalize=None, log_decay=inputs[3])
    return quadratic(*inputs, "" if name == "rms" else name, mask=mask, normalize="rms" if name == "rms" else "sum")


FORMS = list(forms(None, 8))


@pytest.mark.parametrize("name", FORMS)
def test_every_causal_form_is_its_recurrence(name):
    function, inputs = forms(padding(), 8)[name]
    assert close(function(*inputs), reference(name, padding(), inputs), 1e-4)


@pytest.mark.parametrize(("name", "tile"), [("exp", 16), ("elu+1", 512), ("gated", 512), ("vector", 512)])
def test_without_a_mask_and_in_one_tile_too(name, tile, monkeypatch):
    monkeypatch.setattr(chunkwise, "TILE", tile)
    function, inputs = forms(None, 8)[name]
    inputs = [x[:, :32] for x in inputs]  # nothing to pad
    upstream = normal(BATCH, 32, HEADS, DIM, seed=7)
    value, found = value_and_gradients(function, inputs, upstream)
    assert abs(value - np.sum(upstream * reference(name, None, inputs))) < 1e-3
    assert slopes_agree(found, lambda *x: reference(name, None, x), inputs, upstream)


@pytest.mark.parametrize("name", FORMS)
def test_the_gradient_is_that_of_finite_differences_of_the_reference(name):
    function, inputs = forms(padding(), 8)[name]
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    found = gradients(function, inputs, upstream)
    assert len(found) == len(inputs)
    assert slopes_agree(found, lambda *x: reference(name, padding(), x), inputs, upstream)


@pytest.mark.parametrize("name", ["gated", "vector"])
def test_a_gate_that_forgets_all_leaves_no_gradient_before_it(name):
    gated, (q, k, v, log_decay) = forms(EVERYTHING, 8)[name]
    log_decay = np.zeros_like(log_decay)
    log_decay[:, 10] = -1000
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    upstream[:, :10] = 0
    for g in gradients(gated, [q, k, v, log_decay], upstream):
        assert np.max(np.abs(g[:, :10])) < 1e-4
        assert np.max(np.abs(g[:, 11:])) > 0.1


@pytest.mark.parametrize("name", ["exp", "rms"])
def test_the_gradient_is_that_of_the_readable_form(name):
    function, inputs = forms(padding(), 8)[name]
    options = {"feature_map": "exp"} if name == "exp" else {"feature_map": None, "normalize": "rms"}
    readable = compiled(lambda *x: cumulative_attention(*x, mask=padding(), **options))
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    for g, e in zip(gradients(function, inputs, upstream), gradients(readable, inputs, upstream), strict=True):
        assert close(g, e, 1e-4)


@examples(15)
@given(st.sampled_from(FORMS), st.integers(1, TIME - 1), st.sampled_from([1.0, 1e3]))
def test_no_token_sees_the_future(name, cut, size):
    function, inputs = forms(EVERYTHING, 8)[name]
    changed = [x.copy() for x in inputs]
    for x in changed[:3]:
        x[:, cut:] = size * normal(*x[:, cut:].shape, seed=3)
    if "delta" in name:  # keys of length 1
        changed[1] = changed[1] / np.linalg.norm(changed[1], axis=-1, keepdims=True)
    first, second = (array(function(*x))[:, :cut] for x in (inputs, changed))
    assert np.array_equal(np.isfinite(second), np.ones_like(second, bool))
    assert np.max(np.abs(first - second)) <= 1e-5 * max(1, np.max(np.abs(first)))


@examples(4 if BACKEND == "jax" else 10)
@given(st.sampled_from(FORMS), st.sampled_from([1, 5, 16, 50]))
def test_the_chunk_does_not_change_the_result(name, chunk):
    (function, inputs), (other, _) = forms(padding(), 8)[name], forms(padding(), chunk)[name]
    assert close(function(*inputs), array(other(*inputs)), 1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_what_stands_in_the_padding_changes_nothing(name):
    function, inputs = forms(padding(), 8)[name]
    others = [np.where(np.expand_dims(padding(), tuple(range(2, x.ndim))), x, 0.7) for x in inputs[1:]]
    others = [x.astype("float32") for x in others]
    assert close(function(*inputs), array(function(inputs[0], *others)), 1e-6)


@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.parametrize("name", MOST)
def test_short_sequences(name, time):
    function, inputs = forms(None, 8)[name]
    inputs = [x[:, :time] for x in inputs]
    assert close(function(*inputs), reference(name, None, inputs))


def test_one_chunk_is_the_product_under_the_diagonal_and_several_are_one():
    Q, K, V = (normal(6, 3, seed=i) for i in range(3))
    S, z = normal(3, 3, seed=3), normal(3, seed=4)
    A = np.tril(Q @ K.T)
    expected = A @ V + Q @ S, A.sum(1) + Q @ z, S + K.T @ V, z + K.sum(0)
    S, z = (ops.convert_to_tensor(x[None, None]) for x in (S, z))
    for shape in ((1, 1, 1, 6, 3), (1, 1, 3, 2, 3)):
        chunks = Chunks(*(ops.convert_to_tensor(x.reshape(shape)) for x in (Q, K, V)))
        for found, e in zip(chunk_sums(chunks, S, z, summed=True), expected, strict=True):
            assert close(ops.reshape(found, e.shape), e)


@pytest.mark.parametrize("strength", [0.1, 50.0])
def test_a_gate_for_each_feature_is_its_recurrence_in_one_chunk_and_in_several(strength):
    Q, K, V = (normal(6, 3, seed=i) for i in range(3))
    S, gates = normal(3, 3, seed=3), (-strength * np.abs(normal(6, 3, seed=4))).astype("float32")
    dN, dS = normal(6, 3, seed=5), normal(3, 3, seed=6)
    state, expected = S, []
    for q, k, v, g in zip(Q, K, V, gates, strict=True):
        state = np.exp(g)[:, None] * state + np.outer(k, v)
        expected.append(q @ state)
    before, z = (ops.convert_to_tensor(x[None, None]) for x in (S, 0 * S[0]))
    upstream = ops.convert_to_tensor(dS[None, None])
    for shape in ((1, 1, 1, 6, 3), (1, 1, 2, 3, 3), (1, 1, 3, 2, 3)):
        chunks = Chunks(*(ops.convert_to_tensor(x.reshape(shape)) for x in (Q, K, V, gates)))
        N, _, after, _ = feature_sums(chunks, before, z, False)
        assert close(ops.reshape(N, (6, 3)), np.array(expected), 1e-5)
        assert close(after[0, 0], state, 1e-5)
        given = ops.convert_to_tensor(dN.reshape(shape))
        d, (d_before, _) = feature_sums_gradient(chunks, before, z, given, None, upstream, z)
        # what comes out is linear in the values and the state before
        there = np.sum(array(d.V).reshape(6, 3) * V) + np.sum(array(d_before)[0, 0] * S)
        assert abs(there - np.sum(dN * expected) - np.sum(dS * state)) < 1e-4


def test_the_delta_rule_has_no_sum_to_divide_by():
    x = normal(1, 3, 2, 4)
    with pytest.raises(ValueError, match="normalize must be 'rms' or None with the delta rule"):
        chunkwise_attention(x, x, x, "elu+1", "sum", beta=x[..., 0])


@pytest.mark.parametrize("name", MOST)
def test_prefill_then_steps_is_the_whole(name):
    (q, k, v), (log_decay, beta), mask = qkv(), gates(), padding()
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    gated = {"normalize": None, "feature_map": None, "log_decay": log_decay, "beta": beta}
    gated = gated | {"log_decay": vector_gate(), "beta": None} if name == "vector" else gated
    options = {"feature_map": name, "normalize": "sum"} if name in MAPS else gated

    def part(time):
        gates = ("log_decay", "beta")
        return {n: x[:, time] if n in gates and x is not None else x for n, x in options.items()}

    whole, last = prefill(q, k, v, mask=mask, chunk=8, **options)
    state = None
    for time in (slice(0, 9), slice(9, 18)):
        out, state = prefill(q[:, time], k[:, time], v[:, time], state, mask=mask[:, time], **part(time))
        assert close(out, array(whole)[:, time], 1e-4)
    size = state.S.shape
    for t in range(18, TIME):
        out, state = recurrent_step(q[:, t], k[:, t], v[:, t], state, mask=mask[:, t], **part(t))
        assert close(out, array(whole)[:, t], 1e-4)
    assert isinstance(state, State)
    assert state.S.shape == size
    assert close(state.S, array(last.S), 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_state_in_float32(dtype):
    q, k, v = (ops.cast(x, dtype) for x in qkv(700, batch=1))
    out, state = prefill(q, k, v, feature_map="elu+1", normalize="sum")
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    expected = quadratic(*(array(x) for x in (q, k, v)))
    assert np.max(np.abs(array(out) - expected)) < (2e-3 if dtype == "float16" else 2e-2)
    assert keras.backend.standardize_dtype(state.S.dtype) == "float32"


@pytest.mark.parametrize(("name", "dtype"), [("exp", "float16"), ("gated delta", "bfloat16")])
def test_gradients_in_half_precision_are_near_those_in_full(name, dtype):
    function, inputs = forms(padding(), 8)[name]
    inputs = [array(ops.cast(x, dtype)) for x in inputs]  # what half precision can say
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    low = gradients(lambda *x: function(*(ops.cast(y, dtype) for y in x)), inputs, upstream)
    for g, e in zip(low, gradients(function, inputs, upstream), strict=True):
        assert np.linalg.norm(g - e) < (5e-3 if dtype == "float16" else 4e-2) * np.linalg.norm(e)


@pytest.mark.skipif(not DOUBLE, reason="this backend computes in float32")
def test_double_precision_is_kept():
    q, k, v = qkv(dtype="float64")
    for name in MAPS[:5]:
        out = linear_attention(q, k, v, name, causal=True, chunk=8)
        # 1+cos is a millionth shorter
        assert close(out, quadratic(q, k, v, name), 2e-6 if name == "1+cos" else 1e-12)


@pytest.mark.skipif(BACKEND == "torch", reason="torch does not compile")
@pytest.mark.parametrize("name", ["elu+1", *MOST] if BACKEND == "tensorflow" else MOST[1:])
def test_compiled_and_eager_agree(name):
    function, inputs = forms(padding(), 8)[name]
    upstream, expected = normal(BATCH, TIME, HEADS, DIM, seed=7), array(function(*inputs))
    slopes = gradients(function, inputs, upstream)
    with_xla = BACKEND == "tensorflow" and name == "elu+1"
    for options in [{}, {"jit_compile": True}] if with_xla else [{}]:
        run = compiled(function, **options)
        assert close(run(*map(ops.convert_to_tensor, inputs)), expected, 1e-5)
        for g, e in zip(gradients(run, inputs, upstream), slopes, strict=True):
            assert close(g, e, 1e-4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs of unknown length")
@pytest.mark.parametrize("name", ["elu+1", "exp", "gated delta"])
def test_a_graph_of_unknown_batch_and_length(name):
    import tensorflow as tf

    function, inputs = forms(None, 8)[name]
    signature = [tf.TensorSpec((None, None, *x.shape[2:]), x.dtype) for x in inputs]
    run = tf.function(function, input_signature=signature, autograph=False)
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    assert close(run(*inputs), array(function(*inputs)), 1e-5)
    for g, e in zip(gradients(run, inputs, upstream), gradients(function, inputs, upstream), strict=True):
        assert close(g, e, 1e-4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow counts the bytes of a processor")
def test_memory_is_linear_in_the_length():
    cases = [{"form": form, "time": time} for time in (2048, 8192) for form in ("linear", "delta")]
    peaks = peaks_in_turn(linear_attention_gradient, *cases)
    if peaks[0].method != "TensorFlow allocator statistics":
        pytest.skip(f"{peaks[0].method} is too coarse for arrays of one MiB")
    for short, long in zip(peaks[:2], peaks[2:], strict=True):
        assert long.bytes < 4.2 * short.bytes
        assert long.bytes < 12 * 8192 * 2 * 16 * 4  # a dozen arrays of the size of q; one matrix of scores has 256
