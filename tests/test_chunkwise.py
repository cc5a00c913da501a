"""Truths about ``lib.chunkwise``, on whichever backend KERAS_BACKEND names."""

import math

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
    gates,
    gradients,
    normal,
    padding,
    qkv,
    quadratic,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from lib import chunkwise
from lib.attention import cumulative_attention, delta_rule, gated_attention, linear_attention, retention
from lib.chunkwise import (
    State,
    checked,
    chunkwise_attention,
    full_attention,
    known_normalization,
    normalizer,
    of_rank,
    prefill,
    step,
)

pytestmark = pytest.mark.backends

DOUBLE = BACKEND == "tensorflow"  # elsewhere Keras computes a float64 product in float32


def forms(mask, chunk):
    """All causal forms as functions of tensors, with those tensors."""
    options = {"mask": mask, "chunk": chunk}
    q, k, v = qkv()
    k_unit = k / np.linalg.norm(k, axis=-1, keepdims=True)
    log_decay, beta = gates()
    return {
        "elu+1": (lambda *x: linear_attention(*x, causal=True, **options), [q, k, v]),
        "exp": (lambda *x: linear_attention(*x, "exp", True, **options), [q, k, v]),
        "rms": (lambda *x: linear_attention(*x, None, True, normalize="rms", **options), [q, k, v]),
        "retention": (lambda *x: retention(*x, normalize=None, **options), [q, k, v]),
        "gated": (lambda *x: gated_attention(*x, normalize=None, **options), [q, k, v, log_decay]),
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
        log_decay = np.log(1 - 2.0 ** (-5 - np.arange(HEADS))) * np.ones((BATCH, TIME, 1))
        return quadratic(*inputs, "", mask=mask, normalize=None, log_decay=log_decay)
    if name == "gated":
        return quadratic(*inputs[:3], "", mask=mask, normalize=None, log_decay=inputs[3])
    return quadratic(*inputs, "" if name == "rms" else name, mask=mask, normalize="rms" if name == "rms" else "sum")


FORMS = list(forms(None, 8))


@pytest.fixture(params=[512, 16], ids=["one segment", "many segments"])
def segments(request, monkeypatch):
    """Whether the tokens of a test fit into one segment."""
    monkeypatch.setattr(chunkwise, "SEGMENT", request.param)
    if BACKEND == "jax":
        import jax

        jax.clear_caches()


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_every_causal_form_is_its_recurrence(name, masked):
    mask = padding() if masked else None
    function, inputs = forms(mask, 8)[name]
    assert close(function(*inputs), reference(name, mask, inputs), 1e-4)


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize("name", FORMS)
def test_the_gradient_is_that_of_finite_differences_of_the_reference(name):
    mask = padding()
    function, inputs = forms(mask, 8)[name]
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    found = gradients(function, inputs, upstream)
    assert len(found) == len(inputs)
    inputs = [x.astype("float64") for x in inputs]
    for i, g in enumerate(found):
        direction = normal(*g.shape, seed=(11, i), dtype="float64")

        def value(h, i=i, direction=direction):
            moved = [x + h * direction if j == i else x for j, x in enumerate(inputs)]
            return np.sum(upstream * reference(name, mask, moved))

        slope = (value(1e-6) - value(-1e-6)) / 2e-6
        assert abs(np.sum(g * direction) - slope) <= 2e-4 * np.linalg.norm(g) + 1e-3


@pytest.mark.usefixtures("segments")
@pytest.mark.parametrize("name", ["elu+1", "exp", "rms", None])
def test_the_gradient_of_full_attention_is_that_of_finite_differences(name):
    inputs, mask, upstream = qkv(), padding(), normal(BATCH, 29, HEADS, DIM, seed=7)
    inputs[0] = inputs[0][:, :29]  # other keys than queries
    normalize = {"rms": "rms", None: None}.get(name, "sum")
    feature_map = name if name in MAPS else None

    def expected(*x):
        return quadratic(*x, feature_map or "", False, mask, normalize)

    def found(*x):
        return full_attention(*x, feature_map, normalize, mask)

    assert close(found(*inputs), expected(*inputs), 1e-4)
    wide = [x.astype("float64") for x in inputs]
    for i, g in enumerate(gradients(found, inputs, upstream)):
        h = 1e-6 * normal(*g.shape, seed=(11, i), dtype="float64")
        ends = [expected(*(x + sign * h if j == i else x for j, x in enumerate(wide))) for sign in (1, -1)]
        slope = np.sum(upstream * (ends[0] - ends[1])) / 2e-6
        assert abs(np.sum(g * h / 1e-6) - slope) <= 2e-4 * np.linalg.norm(g) + 1e-3


def test_a_gate_that_forgets_all_leaves_no_gradient_before_it():
    q, k, v = qkv(20)
    log_decay = np.zeros((BATCH, 20, HEADS), "float32")
    log_decay[:, 10] = -1000
    upstream = np.zeros_like(v)
    upstream[:, 10:] = normal(BATCH, 10, HEADS, DIM, seed=7)
    for g in gradients(lambda *x: gated_attention(*x, normalize=None, chunk=8), [q, k, v, log_decay], upstream):
        assert np.max(np.abs(g[:, :10])) < 1e-4
        assert np.max(np.abs(g[:, 11:])) > 0.1


@pytest.mark.parametrize("normalize", ["sum", "rms"])
def test_the_gradient_is_that_of_the_readable_form(normalize):
    inputs, upstream = qkv(20), normal(BATCH, 20, HEADS, DIM, seed=7)
    name = "exp" if normalize == "sum" else None
    found = gradients(lambda *x: linear_attention(*x, name, True, normalize=normalize, chunk=8), inputs, upstream)
    for g, e in zip(
        found,
        gradients(lambda *x: cumulative_attention(*x, name, normalize=normalize), inputs, upstream),
        strict=True,
    ):
        assert close(g, e, 1e-4)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(FORMS), st.integers(1, TIME - 1), st.sampled_from([1.0, 1e3]))
def test_no_token_sees_the_future(name, cut, size):
    function, inputs = forms(None, 8)[name]
    changed = [x.copy() for x in inputs]
    for x in changed[:3]:
        x[:, cut:] = size * normal(*x[:, cut:].shape, seed=3)
    if "delta" in name:  # keys of length 1
        changed[1] = changed[1] / np.linalg.norm(changed[1], axis=-1, keepdims=True)
    first, second = (array(function(*x))[:, :cut] for x in (inputs, changed))
    assert np.array_equal(np.isfinite(second), np.ones_like(second, bool))
    assert np.max(np.abs(first - second)) <= 1e-5 * max(1, np.max(np.abs(first)))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(FORMS), st.integers(1, 50))
def test_the_chunk_does_not_change_the_result(name, chunk):
    (function, inputs), (other, _) = forms(padding(), 8)[name], forms(padding(), chunk)[name]
    assert close(function(*inputs), array(other(*inputs)), 1e-4)


@pytest.mark.parametrize("name", FORMS)
def test_padding_behind_changes_nothing(name):
    mask = np.arange(TIME) < 20
    function, inputs = forms(np.broadcast_to(mask, (BATCH, TIME)), 8)[name]
    shorter, _ = forms(None, 8)[name]
    assert close(array(function(*inputs))[:, :20], array(shorter(*[x[:, :20] for x in inputs])), 1e-5)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("time", [1, 2])
def test_short_sequences(name, time):
    function, inputs = forms(None, 8)[name]
    inputs = [x[:, :time] for x in inputs]
    assert close(
        function(*inputs),
        array(function(*[np.pad(x, ((0, 0), (0, 3)) + ((0, 0),) * (x.ndim - 2)) for x in inputs]))[:, :time],
    )


def test_numbers_of_the_wrong_kind_are_named():
    x = normal(1, 3, 2, 4)
    assert [tuple(y.shape) for y in checked(x, x, x, None, True)[:3]] == [x.shape] * 3
    assert tuple(of_rank(3, "q", x[0]).shape) == (3, 2, 4)
    with pytest.raises(ValueError, match="normalize must be one of 'sum', 'rms', None, got 'mean'"):
        known_normalization("mean")
    with pytest.raises(ValueError, match="normalize must be 'rms' or None with the delta rule"):
        chunkwise_attention(x, x, x, "elu+1", "sum", beta=x[..., 0])


def test_what_cannot_be_normalised_becomes_zero():
    zero, one = np.zeros((1, 2), "float32"), np.ones((1, 2), "float32")
    assert float(normalizer("sum", one, zero[:, :1])[0, 0]) == 0
    assert float(normalizer("rms", zero, None)[0, 0]) == 0
    assert abs(float(normalizer("rms", 2 * one, None)[0, 0]) - 0.5) < 1e-6
    assert abs(float(normalizer(None, one, None, one[:, :1])[0, 0]) - math.e) < 1e-5


@pytest.mark.parametrize("name", ["elu+1", "exp", "gated", "gated delta"])
def test_prefill_then_steps_is_the_whole(name):
    (q, k, v), (log_decay, beta), mask = qkv(), gates(), padding()
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    options = {"normalize": None, "feature_map": None, "log_decay": log_decay}
    options |= {"beta": beta} if name == "gated delta" else {}
    options = {"feature_map": name} if name in MAPS else options

    def part(time):
        return {n: x[:, time] if n in ("log_decay", "beta") else x for n, x in options.items()}

    everything = slice(None)
    whole, last = prefill(q, k, v, mask=mask, chunk=8, **part(everything))
    _, state = prefill(q[:, :9], k[:, :9], v[:, :9], mask=mask[:, :9], chunk=4, **part(slice(0, 9)))
    out, state = prefill(q[:, 9:20], k[:, 9:20], v[:, 9:20], mask=mask[:, 9:20], state=state, **part(slice(9, 20)))
    assert close(out, array(whole)[:, 9:20], 1e-4)
    size = state.S.shape
    for t in range(20, TIME):
        out, state = step(state, q[:, t], k[:, t], v[:, t], mask=mask[:, t], **part(t))
        assert close(out, array(whole)[:, t], 1e-4)
    assert isinstance(state, State)
    assert state.S.shape == size
    assert close(state.S, array(last.S), 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_keeps_its_state_in_float32(dtype, causal):
    q, k, v = (ops.cast(x, dtype) for x in qkv(700, batch=1))
    out = linear_attention(q, k, v, causal=causal)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    expected = quadratic(*(array(x) for x in (q, k, v)), causal=causal)
    assert np.max(np.abs(array(out) - expected)) < (2e-3 if dtype == "float16" else 2e-2)
    _, state = prefill(q, k, v)
    assert keras.backend.standardize_dtype(state.S.dtype) == "float32"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FORMS)
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
        out = linear_attention(q, k, v, name, True, chunk=8)
        # 1+cos is a millionth shorter
        assert close(out, quadratic(q, k, v, name), 2e-6 if name == "1+cos" else 1e-12)


@pytest.mark.skipif(BACKEND == "torch", reason="torch does not compile")
@pytest.mark.parametrize("name", FORMS)
def test_compiled_and_eager_agree(name, monkeypatch):
    monkeypatch.setattr(chunkwise, "SEGMENT", 16)
    function, inputs = forms(padding(), 8)[name]
    upstream, expected = normal(BATCH, TIME, HEADS, DIM, seed=7), array(function(*inputs))
    slopes = gradients(function, inputs, upstream)
    with_xla = BACKEND == "tensorflow" and name in ("elu+1", "gated delta")
    for options in [{}, {"jit_compile": True}] if with_xla else [{}]:
        run = compiled(function, **options)
        assert close(run(*map(ops.convert_to_tensor, inputs)), expected, 1e-5)
        for g, e in zip(gradients(run, inputs, upstream), slopes, strict=True):
            assert close(g, e, 1e-4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs of unknown length")
@pytest.mark.parametrize("name", ["elu+1", "exp", "gated delta"])
def test_a_graph_of_unknown_batch_and_length(name, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(chunkwise, "SEGMENT", 16)
    function, inputs = forms(None, 8)[name]
    signature = [tf.TensorSpec((None, None, *x.shape[2:]), x.dtype) for x in inputs]
    run = tf.function(function, input_signature=signature, autograph=False)
    upstream = normal(BATCH, TIME, HEADS, DIM, seed=7)
    assert close(run(*inputs), array(function(*inputs)), 1e-5)
    for g, e in zip(gradients(run, inputs, upstream), gradients(function, inputs, upstream), strict=True):
        assert close(g, e, 1e-4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow counts the bytes of a processor")
@pytest.mark.parametrize("form", ["linear", "delta"])
def test_memory_is_linear_in_the_length(form):
    import tensorflow as tf

    def peak(time):
        x = tf.constant(normal(1, time, 2, 16))
        beta = tf.ones((1, time, 2)) / 2

        @tf.function(autograph=False)
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = linear_attention(x, x, x, causal=True) if form == "linear" else delta_rule(x, x / 4, x, beta)
            return tape.gradient(out, x)

        run(x)
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        tf.config.experimental.reset_memory_stats("CPU:0")
        run(x)
        return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before

    short, long = peak(2048), peak(8192)
    assert long < 4.2 * short
    assert long < 12 * 8192 * 2 * 16 * 4  # a dozen arrays of the size of q; one matrix of scores has 256
