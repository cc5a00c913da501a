"""Truths about what ``lib.attention`` takes and refuses, on whichever backend KERAS_BACKEND names."""

import keras
import numpy as np
import pytest
from attention_references import BACKEND, array, close, compiled, gates, gradients, normal, qkv
from keras import ops

from lib.attention import (
    FEATURE_MAPS,
    FeatureMap,
    State,
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
from lib.attention.arguments import (
    checked,
    checked_gate,
    finite_queries,
    known_normalization,
    of_one_type,
    of_rank,
    removed,
    removed_tokens,
    require_some,
)

pytestmark = pytest.mark.backends

TIME = 6
LOG_DECAY, BETA = gates(TIME)
FASTER = np.array([0, 1, 2, 30], "float32")  # features that fade apart
CAUSAL = {
    "linear": lambda q, k, v, g, b, **m: linear_attention(q, k, v, causal=True, **m),  # noqa: ARG005
    "linear exp": lambda q, k, v, g, b, **m: linear_attention(q, k, v, "exp", causal=True, **m),  # noqa: ARG005
    "retention": lambda q, k, v, g, b, **m: retention(q, k, v, **m),  # noqa: ARG005
    "gated": lambda q, k, v, g, b, **m: gated_attention(q, k, v, g, **m),  # noqa: ARG005
    "vector": lambda q, k, v, g, b, **m: gated_attention(q, k, v, ops.multiply(g[..., None], FASTER), **m),  # noqa: ARG005
    "gated delta": lambda q, k, v, g, b, **m: delta_rule(q, k, v, b, log_decay=g, **m),
    "recurrent": lambda q, k, v, g, b, **m: recurrent_attention(q, k, v, **m),  # noqa: ARG005
    "cumulative": lambda q, k, v, g, b, **m: cumulative_attention(q, k, v, **m),  # noqa: ARG005
    "softmax": lambda q, k, v, g, b, **m: softmax_attention(q, k, v, causal=True, **m),  # noqa: ARG005
}
FULL = {
    "full": lambda q, k, v, **m: linear_attention(q, k, v, **m),
    "full exp": lambda q, k, v, **m: linear_attention(q, k, v, "exp", **m),
    "softmax": lambda q, k, v, **m: softmax_attention(q, k, v, **m),
    "fused softmax": lambda q, k, v, **m: softmax_attention(q, k, v, fused=True, **m),
    "double softmax": lambda q, k, v, **m: double_softmax_attention(q, k, v, **m),
}
#: The third token of the first row is removed, the second row is whole.
MASK = np.array([[True, True, False, True, True, True], [True] * TIME])


def broken(*tensors):
    """The third token of the first row is not finite."""
    tensors = [x.copy() for x in tensors]
    for x, wrong in zip(tensors, (np.nan, np.inf, np.nan, np.nan, np.nan), strict=False):
        x[0, 2] = wrong
    return tensors


def without_third(*tensors):
    return [np.delete(x[:1], 2, axis=1) for x in tensors]


@pytest.mark.parametrize("name", CAUSAL)
def test_nan_under_a_mask_is_as_if_the_token_were_removed(name):
    inputs = [*qkv(TIME), LOG_DECAY, BETA]
    function = CAUSAL[name]
    out = array(function(*broken(*inputs), mask=MASK))
    expected = array(function(*without_third(*inputs)))
    assert close(np.delete(out[:1], 2, axis=1), expected, 1e-5)
    assert close(out[1:], array(function(*(x[1:] for x in inputs))), 1e-5)
    upstream = normal(*inputs[2].shape, seed=7)
    upstream[0, 2] = 0
    needed = {"gated": 4, "vector": 4, "gated delta": 5}.get(name, 3)

    def masked(*x):
        out = function(*x, *inputs[needed:], mask=MASK)
        return ops.where(MASK[:, :, None, None], out, 0)

    def shorter(*x):
        return function(*x, *(y[:1] for y in without_third(*inputs)[needed:]))

    found = gradients(masked, broken(*inputs)[:needed], upstream)
    expected = gradients(shorter, without_third(*inputs)[:needed], without_third(upstream)[0])
    for g, e in zip(found, expected, strict=True):
        assert close(np.delete(g[:1], 2, axis=1), e, 1e-4)
        assert not np.any(g[0, 2])


@pytest.mark.parametrize("name", FULL)
def test_nan_under_a_mask_is_as_if_the_key_were_removed(name):
    q, k, v = qkv(TIME)
    function = FULL[name]
    out = array(function(*broken(q, k, v), mask=MASK))
    expected = array(function(*without_third(q, k, v)))
    assert np.all(np.isnan(out[0, 2]))  # a query that is not finite
    assert close(np.delete(out[:1], 2, axis=1), expected, 1e-5)
    upstream = normal(*v.shape, seed=7)
    upstream[0, 2] = 0
    found = gradients(lambda *x: function(*x, mask=MASK), broken(q, k, v), upstream)
    expected = gradients(function, without_third(q, k, v), without_third(upstream)[0])
    for g, e in zip(found, expected, strict=True):
        assert close(np.delete(g[:1], 2, axis=1), e, 1e-4)
        assert not np.any(g[0, 2])


X, Q = normal(2, 5, 2, 4), normal(2, 5, 2, 4, seed=1)
GATE = np.full((2, 5, 2), -0.5, "float32")
NO_MASKS = {
    "additive": np.where(np.arange(5) < 3, 0, -1e4) * np.ones((2, 1)),
    "signs": np.where(np.arange(5) < 3, 1, -1) * np.ones((2, 1)),
    "nan": np.where(np.arange(5) < 3, 1, np.nan) * np.ones((2, 1)),
    "halves": np.full((2, 5), 0.5),
}
MASKED = {
    **{name: lambda m, f=f: f(X, X, X, GATE, -GATE, mask=m) for name, f in CAUSAL.items()},
    **{name: lambda m, f=f: f(X, X, X, mask=m) for name, f in FULL.items()},
    "prefill": lambda m: prefill(X, X, X, mask=m, feature_map="elu+1", normalize="sum")[0],
}


@pytest.mark.parametrize("kind", NO_MASKS)
@pytest.mark.parametrize("name", MASKED)
def test_what_is_no_mask_is_refused(name, kind):
    with pytest.raises(ValueError, match="mask must hold True or 1"):
        MASKED[name](NO_MASKS[kind])


COMPILED = {"tensorflow": "xla", "jax": "jit"}.get(BACKEND)
needs_compiler = pytest.mark.skipif(COMPILED is None, reason="torch knows its values")


def nan_in_first_row_only(out):
    return np.all(np.isnan(array(out)[0])) and np.all(np.isfinite(array(out)[1]))


@needs_compiler
@pytest.mark.parametrize("name", ["linear", "gated delta", "softmax", "full", "double softmax", "prefill"])
def test_compiled_code_gives_nan_where_a_row_is_no_mask(name):
    mask = np.ones((2, 5), "float32")
    mask[0, 3] = -1e4
    assert nan_in_first_row_only(compiled(MASKED[name], COMPILED)(ops.convert_to_tensor(mask)))


@needs_compiler
def test_compiled_code_gives_nan_where_a_gate_is_out_of_range():
    log_decay, beta = GATE.copy(), -GATE
    log_decay[0, 3, 1], beta[0, 2, 0] = 0.1, 2.1
    run = compiled(lambda g: gated_attention(X, X, X, g), COMPILED)
    assert nan_in_first_row_only(run(ops.convert_to_tensor(log_decay)))
    run = compiled(lambda b: delta_rule(X, X / 4, X, b), COMPILED)
    assert nan_in_first_row_only(run(ops.convert_to_tensor(beta)))


@pytest.mark.parametrize("gate", [np.nan, -np.inf])
def test_a_gate_that_is_nan_gives_nan_and_one_that_forgets_all_does_not(gate):
    log_decay = GATE.copy()
    log_decay[0, 2] = gate
    out = array(gated_attention(X, X, X, log_decay))
    assert np.all(np.isnan(out[0, 2:])) == np.isnan(gate)
    assert np.all(np.isfinite(out[1]))


ELU = {"feature_map": "elu+1", "normalize": "sum"}
OTHERS = [
    {"feature_map": "exp", "normalize": "sum"},
    {"feature_map": "elu+1", "normalize": "rms"},
    {"feature_map": None, "normalize": "rms"},
    {"feature_map": "relu", "normalize": "sum", "log_decay": GATE},
    {"feature_map": None, "normalize": "rms", "beta": -GATE},
    {"feature_map": random_features(4, 4), "normalize": "sum"},
]


def a_step(state, form):
    form = {name: x[:, 0] if name in ("log_decay", "beta") else x for name, x in form.items()}
    return recurrent_step(Q[:, 0], Q[:, 0], Q[:, 0], state, **form)


@pytest.mark.parametrize("form", OTHERS, ids=range(len(OTHERS)))
def test_no_form_goes_on_from_the_state_of_another(form):
    _, state = prefill(X, X, X, **ELU)
    a_step(state, ELU)
    for go_on in (lambda: a_step(state, form), lambda: prefill(X, X, X, state, **form)):
        with pytest.raises(
            ValueError, match="state must be one that the same feature_map, normalize and gates wrote"
        ):
            go_on()
    with pytest.raises(ValueError, match="state must be one that the same"):
        a_step(prefill(X, X, X, **form)[1], ELU)


@needs_compiler
def test_compiled_code_gives_nan_where_the_state_is_of_another_form():
    first, second = (
        prefill(X[i : i + 1], X[i : i + 1], X[i : i + 1], **f)[1] for i, f in ((0, OTHERS[0]), (1, ELU))
    )
    state = State(*(ops.concatenate([one, other]) for one, other in zip(first, second, strict=True)))
    for run in (lambda *s: a_step(State(*s), ELU)[0], lambda *s: prefill(X, X, X, State(*s), **ELU)[0]):
        assert nan_in_first_row_only(compiled(run, COMPILED)(*state))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs of unknown length")
def test_an_unknown_length_that_is_zero_is_refused():
    import tensorflow as tf

    for function in (lambda x: linear_attention(x, x, x, causal=True), lambda x: softmax_attention(x, x, x)):
        run = tf.function(function, input_signature=[tf.TensorSpec((None, None, 2, 4))], autograph=False)
        assert run(X).shape == X.shape
        for _ in range(50):  # the executor must not find another error first, as it did in one run of thirty
            with pytest.raises(tf.errors.InvalidArgumentError, match="q must have at least one token"):
                run(X[:, :0])


def q(*shape):
    return np.zeros(shape, "float32")


WRONG = [
    (lambda: linear_attention(None, X, X), "q must be a tensor of numbers, got None"),
    (lambda: linear_attention(X, X.astype("complex64"), X), "k must hold floats, got complex64"),
    (lambda: softmax_attention(X, X, [["a"]]), "v must be a tensor of numbers"),
    (lambda: softmax_attention(np.ma.masked_array(X, X > 0), X, X), "q must be an array without masked entries"),
    (lambda: softmax_attention(X, X, X, scale="a"), "scale must be a finite number, got 'a'"),
    (lambda: softmax_attention(X, X, X, scale=float("nan")), "scale must be a finite number, got nan"),
    (lambda: linear_attention(X, X, X, mask="padding"), "mask must be a tensor of numbers"),
    (lambda: linear_attention(X, X, X, mask=np.ones((1, 5))), r"mask must have shape \(2, 5\) to fit k"),
    (lambda: retention(X, X, X, "a"), "decay must be in .0, 1., one number or one for each of 2 heads, got 'a'"),
    (lambda: retention(X, X, X, [0.5, [0.5]]), "decay must be in"),
    (lambda: retention(X, X, X, True), "decay must be in"),
    (lambda: retention(X, X, X, 0.5j), "decay must be in"),
    (lambda: retention(X, X, X, float("nan")), "decay must be in"),
    (lambda: gated_attention(X, X, X, -GATE), "log_decay must be at most 0, got 0.5"),
    (lambda: gated_attention(X, X, X, np.abs(X) + 1), "log_decay must be at most 0, got"),
    (lambda: gated_attention(X, X, X, -np.abs(X[..., :1])), "log_decay must have shape"),
    (lambda: delta_rule(X, X, X, 0 * GATE, log_decay=-np.abs(X)), "log_decay must have shape"),
    (lambda: delta_rule(X, X, X, GATE), r"beta must be in \[0, 2\], got -0.5"),
    (lambda: delta_rule(X, X, X, 5 - GATE), r"beta must be in \[0, 2\], got 5.5"),
    (lambda: delta_rule(X, X, X, -GATE, log_decay=1 + GATE), "log_decay must be at most 0, got 0.5"),
    (lambda: a_step("s", ELU), "state must be a State or None, got 's'"),
    (lambda: prefill(X, X, X, "s", **ELU), "state must be a State or None, got 's'"),
    (
        lambda: prefill(X, X, X, prefill(X[:1], X[:1], X[:1], **ELU)[1], **ELU),
        r"state.S must have shape \(2, 2, None",
    ),
    (lambda: linear_attention(X, X, X, lambda x: ops.sum(x * x, axis=-1)), "feature_map must keep all axes but"),
    (
        lambda: linear_attention(X, X, X, lambda x: ops.square(x[:, :3]), causal=True),
        "feature_map must keep all axes",
    ),
    (lambda: linear_attention(X, X, X, lambda _: None), "feature_map must give a tensor of numbers"),
    (lambda: linear_attention(X, X, X, lambda _: "x", causal=True), "feature_map must give a tensor of numbers"),
    (
        lambda: linear_attention(X, X, X, FeatureMap(lambda _: [[1], [2, 3]]), causal=True),
        "feature_map must give a tensor of numbers",
    ),
    (
        lambda: linear_attention(X, X, X, lambda x: ops.cast(x, "complex64"), normalize=None),
        "feature_map must give a tensor of numbers .*got complex64",
    ),
    (lambda: random_features(4, 4, seed=-1), "seed must be an integer of at least 0, got -1"),
    (lambda: random_features(4, 4, seed=True), "seed must be an integer of at least 0, got True"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", sorted({*CAUSAL} - {"softmax"}))
def test_what_is_causal_by_a_state_has_as_many_keys_as_queries(name):
    more, gate = normal(2, TIME + 1, 2, 4), ops.zeros((2, TIME, 2))
    with pytest.raises(ValueError, match=r"k must have shape \(2, 6, 2, 4\) to fit q, got \(2, 7, 2, 4\)"):
        CAUSAL[name](normal(2, TIME, 2, 4), more, more, gate, -gate)


@pytest.mark.parametrize("name", [*CAUSAL, *FULL])
def test_an_empty_batch_has_empty_outputs(name):
    x, gate = X[:0], GATE[:0]
    function = (lambda *x: CAUSAL[name](*x, gate, -gate)) if name in CAUSAL else FULL[name]
    assert tuple(function(x, x, x).shape) == (0, 5, 2, 4)
    assert [g.shape for g in gradients(function, [x, x, x], x)] == [(0, 5, 2, 4)] * 3


@pytest.mark.parametrize("form", [*FEATURE_MAPS, ops.relu, *OTHERS[-4:-1]], ids=range(10))
def test_an_empty_batch_goes_on_from_its_state(form):
    form = form if isinstance(form, dict) else {"feature_map": form, "normalize": "sum"}
    gates = {name: form[name][:0] for name in ("log_decay", "beta") if name in form}
    whole = {**form, **gates, "mask": np.ones((0, 5), bool)}
    step = {name: x[:, 0] if name in ("mask", *gates) else x for name, x in whole.items()}
    state = None
    for _ in range(2):
        out, state = recurrent_step(X[:0, 0], X[:0, 0], X[:0, 0], state, **step)
        assert tuple(out.shape) == (0, 2, 4)
        out, state = prefill(X[:0], X[:0], X[:0], state, **whole)
        assert tuple(out.shape) == (0, 5, 2, 4)
    assert {part.shape[0] for part in state} == {0}


def test_what_is_fine_stays_as_it_is():
    mask = np.array([[1, 1, 0, 1, 1]] * 2)
    found = checked(X, X, X, mask, causal=True)
    assert all(np.array_equal(array(x), X) for x in found[:3])
    assert np.array_equal(array(found[3]), mask == 1)
    assert found[4] is None
    assert np.array_equal(array(of_rank(3, "q", X[0])), X[0])
    assert known_normalization(None) is None
    assert require_some("q", X[:0], "token, head and feature") is None
    gate = checked_gate("beta", -GATE, ops.convert_to_tensor(X), found[3], "float32", 0, 2)
    assert np.array_equal(array(gate), 0.5 * mask[..., None] * np.ones(2))
    assert all(np.array_equal(array(x), X) for x in removed_tokens(None, X, X, X))
    assert removed(None, X) == (X,)
    finite, wrong = finite_queries(ops.convert_to_tensor(np.float32([[1, np.inf], [2, 3]])))
    assert array(finite).tolist() == [[1, 0], [2, 3]]
    assert np.isnan(array(wrong)).tolist() == [[True], [False]]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("float16", "float32"), "float32"),
        (("float16", "bfloat16"), "float32"),
        (("float32", "float64"), "float32" if BACKEND == "jax" else "float64"),
        (("bfloat16", "bfloat16"), "bfloat16"),
    ],
    ids=str,
)
def test_one_type_holds_all(types, expected):
    found = of_one_type(*(ops.cast([1.5], dtype) for dtype in types))
    assert {keras.backend.standardize_dtype(x.dtype) for x in found} == {expected}
    assert all(float(x[0]) == 1.5 for x in found)
