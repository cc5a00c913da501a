"""Truths about ``lib.extraction.pointers``, on whichever backend KERAS_BACKEND names."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from numerics import array, compiled
from scipy.special import expit, log_softmax, logit, logsumexp
from search import examples

from lib.extraction import (
    SpanPointer,
    best_span,
    pair_pointers,
    pointer_loss,
    power_crossentropy,
    power_sigmoid,
    prior_bias,
    span_loss,
    spans_from_pointers,
)

# The heads run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
QUICK = {"jit_compile": BACKEND == "jax"}  # XLA takes longer to compile these than they take to run
MODES = {"tensorflow": ["eager", "graph", "xla"], "jax": ["eager", "jit"], "torch": ["eager"]}[BACKEND]
TINY = 1.2e-38  # below it float32 may count as 0
few = examples(25)


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype("float32")


def gradient(function, x):
    """The gradient of a scalar function."""
    x = ops.convert_to_tensor(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return array(tape.gradient(value, x))
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(x))
    x = x.clone().requires_grad_()
    function(x).backward()
    return x.grad.numpy()


LENGTHS = np.array([7, 4, 1])
MASK = np.arange(7) < LENGTHS[:, None]


# --- one answer a text ----------------------------------------------------------------------------------------


def test_a_span_pointer_gives_two_logits_a_token_and_kind():
    vectors = normal(3, 7, 8)
    for kinds, shape in [(None, (3, 7, 2)), (5, (3, 7, 5, 2))]:
        layer = SpanPointer(kinds, bias=0.7)
        logits = array(layer(vectors))
        kernel, bias = (array(weight) for weight in layer.weights)
        assert logits.shape == shape == tuple(layer.compute_output_shape(vectors.shape))
        np.testing.assert_allclose(logits, (vectors @ kernel + bias).reshape(shape), atol=1e-5)
        np.testing.assert_allclose(bias, 0.7, rtol=1e-6)
        assert 0 < kernel.std() < 0.05
        masked = array(layer(vectors, mask=MASK))
        assert (masked[~MASK] == -np.inf).all()
        np.testing.assert_allclose(masked[MASK], logits[MASK], atol=1e-6)


def test_a_span_pointer_takes_the_mask_that_keras_hands_on():
    ids = np.array([[3, 4, 0]])
    layer = SpanPointer()
    logits = layer(keras.layers.Embedding(5, 8, mask_zero=True)(ids))
    assert np.isinf(array(logits))[0, :, 0].tolist() == [False, False, True]
    assert layer.compute_mask(logits) is None


def test_a_span_pointer_drops_vectors_only_in_training():
    layer, vectors = SpanPointer(dropout=0.5, seed=1), normal(1, 20, 8)
    quiet = array(layer(vectors, training=False))
    np.testing.assert_array_equal(quiet, array(layer(vectors)))
    assert not np.allclose(quiet, array(layer(vectors, training=True)), atol=1e-3)
    assert SpanPointer.from_config(layer.get_config()).get_config() == layer.get_config()


def test_pointer_loss_is_the_formula_over_valid_places():
    logits, starts, ends = normal(3, 7, 2, scale=3), np.array([2, 0, 0]), np.array([5, 3, 0])
    loss = array(pointer_loss(starts, ends, logits, mask=MASK))
    for row, n in enumerate(LENGTHS):
        a, b = log_softmax(logits[row, :n].astype("float64"), axis=0).T
        np.testing.assert_allclose(loss[row], -0.5 * (a[starts[row]] + b[ends[row]]), rtol=1e-5, atol=1e-6)


def test_padding_changes_no_loss_and_no_answer():
    logits = normal(3, 7, 2, scale=3)
    disturbed = np.where(MASK[..., None], logits, 1e4)
    carried = np.where(MASK[..., None], logits, -np.inf)
    pointers = np.array([[1, 0, 0], [2, 3, 0]])
    for function in (lambda x, **mask: [pointer_loss(*pointers, x, **mask)], best_span):
        expected = [array(x) for x in function(logits, mask=MASK)]
        for result in (function(disturbed, mask=MASK), function(carried)):
            for value, reference in zip(result, expected, strict=True):
                np.testing.assert_allclose(array(value), reference, rtol=1e-6)
        for row, n in enumerate(LENGTHS):
            if function is best_span:
                for value, reference in zip(function(logits[row : row + 1, :n]), expected, strict=True):
                    np.testing.assert_allclose(array(value)[0], reference[row], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_pointer_loss_is_half_of_probability_minus_truth():
    logits, starts, ends = normal(2, 5, 2), np.array([1, 0]), np.array([3, 4])
    mask = np.arange(5) < np.array([[4], [3]])  # the end of the second text lies in its padding
    found = gradient(lambda x: ops.sum(pointer_loss(starts[:1], ends[:1], x, mask=mask[:1])), logits[:1])
    expected = np.zeros((1, 5, 2))
    expected[0, :4] = np.exp(log_softmax(logits[0, :4], axis=0))
    expected[0, 1, 0] -= 1
    expected[0, 3, 1] -= 1
    np.testing.assert_allclose(found, expected / 2, atol=1e-6)
    assert array(pointer_loss(starts, ends, logits, mask=mask))[1] == np.inf
    found = gradient(lambda x: ops.sum(pointer_loss(starts, ends, x, mask=mask)), logits)[1]
    assert np.isfinite(found).all()
    assert (found[:, 1] == 0).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_masked_and_summed_in_float32(dtype):
    logits = ops.cast(normal(3, 7, 2, scale=5), dtype)
    wide = array(ops.cast(logits, "float32"))
    pointers = np.array([[1, 0, 0], [2, 3, 0]])
    for narrow, reference in [
        (pointer_loss(*pointers, logits, mask=MASK), pointer_loss(*pointers, wide, mask=MASK)),
        (best_span(logits, mask=MASK)[2], best_span(wide, mask=MASK)[2]),
        (power_crossentropy(1.0, logits, 4), power_crossentropy(1.0, wide, 4)),
        (power_sigmoid(logits, 4), power_sigmoid(wide, 4)),
    ]:
        assert keras.backend.standardize_dtype(narrow.dtype) == "float32"
        np.testing.assert_array_equal(array(narrow), array(reference))


def brute_span(logits, longest, mask, allowed):
    """The best span by trying all pairs."""
    log_p = np.where(mask[:, None], logits, -np.inf).astype("float64")
    log_p -= logsumexp(log_p, axis=0)
    places = np.flatnonzero(allowed & mask)
    pairs = [(s, e) for s in places for e in places if s <= e < s + longest]
    return max(((log_p[s, 0] + log_p[e, 1], s, e) for s, e in pairs), default=(-np.inf, 0, 0))


# Few shapes: JAX compiles each.
@few
@given(st.sampled_from([(1, 3), (6, 1), (9, 4), (5, 12)]), st.integers(0, 10**6))
def test_best_span_is_the_best_of_all_pairs(sizes, seed):
    time, longest = sizes
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((4, time, 2))).astype("float32")
    mask = np.arange(time) < rng.integers(1, time + 1, 4)[:, None]
    allowed = rng.random((4, time)) < 0.7
    starts, ends, log_p = (array(x) for x in best_span(logits, longest=longest, mask=mask, allowed=allowed))
    assert (starts <= ends).all()
    assert (ends < np.minimum(starts + longest, time)).all()
    for row in range(4):
        value, start, end = brute_span(logits[row], longest, mask[row], allowed[row])
        assert (starts[row], ends[row]) == (start, end)
        np.testing.assert_allclose(log_p[row], value, rtol=1e-5, atol=1e-5)
    assert starts.dtype == ends.dtype == np.int32


def test_a_pointer_is_a_probability_above_the_threshold():
    assert spans_from_pointers([0.75, 0.5], [0.5, 0.75], 0.5) == [(0, 2)]


@few
@given(st.integers(0, 10**6))
def test_a_band_as_wide_as_the_text_misses_no_pair_and_a_narrower_one_may(seed):
    logits = normal(3, 7, 2, seed=seed, scale=2.0)
    table = logits[:, :, None, 0] + logits[:, None, :, 1]  # of all pairs; an answer does not end before it starts
    table[:, np.arange(7)[:, None] > np.arange(7)] = -np.inf
    best = table.reshape(3, -1).argmax(axis=1)
    for longest in (7, 9):
        starts, ends, _ = (array(x) for x in best_span(logits, longest=longest))
        np.testing.assert_array_equal(starts * 7 + ends, best)
    far = np.zeros((1, 7, 2), "float32")
    far[0, 0, 0] = far[0, 6, 1] = 5  # the best pair is seven tokens long
    assert [int(part[0]) for part in best_span(far, longest=7)[:2]] == [0, 6]
    assert [int(part[0]) for part in best_span(far, longest=6)[:2]] != [0, 6]


def test_the_best_start_and_the_best_end_need_not_be_the_best_span():
    logits = np.log([[[0.1, 0.6], [0.2, 0.1], [0.7, 0.3]]])
    start, end, log_p = best_span(logits)
    assert (int(start[0]), int(end[0])) == (2, 2)
    assert math.isclose(math.exp(float(log_p[0])), 0.21, rel_tol=1e-5)


def test_equal_spans_are_settled_by_the_first():
    starts, ends, _ = best_span(np.zeros((1, 5, 2)), allowed=[[False, True, True, True, False]])
    assert (int(starts[0]), int(ends[0])) == (1, 1)


def test_an_answer_can_be_weighed_against_no_answer():
    logits = np.log([[[0.6, 0.5], [0.3, 0.1], [0.1, 0.4]]])
    none = best_span(logits, allowed=[[True, False, False]])
    answer = best_span(logits, allowed=[[False, True, True]])
    assert [int(x[0]) for x in none[:2] + answer[:2]] == [0, 0, 1, 2]
    np.testing.assert_allclose(np.exp([float(none[2][0]), float(answer[2][0])]), [0.3, 0.12], rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_best_span_compiles(mode):
    logits = normal(3, 7, 2)
    run = compiled(lambda x, mask: best_span(x, longest=3, mask=mask), mode)
    for value, reference in zip(
        run(ops.convert_to_tensor(logits), ops.convert_to_tensor(MASK)),
        best_span(logits, longest=3, mask=MASK),
        strict=True,
    ):
        np.testing.assert_allclose(array(value), array(reference), rtol=1e-6)


def test_best_span_needs_no_table_of_all_pairs():
    time = 100_000  # a table of all pairs would take 40 GB
    logits = np.zeros((1, time, 2), "float32")
    logits[0, 70_000, 0] = logits[0, 70_004, 1] = 9
    starts, ends, _ = best_span(logits, longest=8)
    assert (int(starts[0]), int(ends[0])) == (70_000, 70_004)


def test_a_span_pointer_learns_to_answer_and_comes_back_from_a_file(tmp_path):
    # The answer lies between the tokens 1 and 2; without them there is none.
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 12, (32, 8))
    ids[:, 0] = 3
    pointers = np.zeros((32, 2), "int32")
    for row in range(0, 32, 4):
        start = rng.integers(1, 4)
        ids[row : row + 3, [start, start + 3]] = 1, 2
        pointers[row : row + 3] = start, start + 3
    ids[::5, 7] = 0
    tokens = keras.Input((None,), dtype="int32")
    vectors = keras.layers.Embedding(12, 16, mask_zero=True)(tokens)
    model = keras.Model(tokens, SpanPointer()(vectors))
    model.compile(keras.optimizers.Adam(0.1), loss=span_loss, **QUICK)
    model.fit(ids, pointers, epochs=30, batch_size=32, verbose=0)
    logits = model.predict(ids, verbose=0)
    starts, ends, log_p = (array(x) for x in best_span(logits))
    np.testing.assert_array_equal(np.stack([starts, ends], -1), pointers)
    assert (ends == 0).sum() == 8
    np.testing.assert_allclose(array(span_loss(pointers, logits)), -log_p / 2, rtol=1e-5)
    model.save(tmp_path / "reader.keras")
    again = keras.models.load_model(tmp_path / "reader.keras")
    np.testing.assert_allclose(again.predict(ids, verbose=0), logits, rtol=1e-5)
    assert again.evaluate(ids, pointers, verbose=0) < 0.1


# --- any number of spans --------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 1, 2, 4, 6.64])
def test_power_crossentropy_is_the_formula(power):
    z = np.linspace(-15, 15, 61)
    p = expit(z) ** power
    for t in (0.0, 0.3, 1.0):
        expected = -t * np.log(p) - (1 - t) * np.log1p(-p)
        found = array(power_crossentropy(t, z.astype("float32"), power))
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=TINY)
    np.testing.assert_allclose(array(power_sigmoid(z.astype("float32"), power)), p, rtol=2e-5, atol=TINY)


@pytest.mark.parametrize("power", [1, 2, 4, 6.64])
def test_power_crossentropy_keeps_its_value_and_gradient_at_any_logit(power):
    # For large |z|: p → e^z on the left, 1 − pⁿ → n e^−z on the right.
    z = np.array([-1e4, -300, -60, -20, 20, 39, 41, 60, 100, 300, 1e4], "float32")
    left, tail = z < 0, np.exp(-abs(z.astype("float64")))
    for t, loss, slope in [
        (0.0, np.where(left, tail**power, z - math.log(power)), np.where(left, power * tail**power, 1)),
        (1.0, np.where(left, -power * z, power * tail), np.where(left, -power, -power * tail)),
    ]:
        found = gradient(lambda z, t=t: ops.sum(power_crossentropy(t, z, power)), z)
        np.testing.assert_allclose(array(power_crossentropy(t, z, power)), loss, rtol=2e-5, atol=TINY)
        np.testing.assert_allclose(found, slope, rtol=2e-5, atol=TINY)


def test_the_gradient_is_that_of_the_formula_in_between():
    z = np.linspace(-10, 10, 81).astype("float32")
    p = expit(z.astype("float64"))
    for n in (1, 2, 4):
        slope = gradient(lambda z, n=n: ops.sum(power_crossentropy(0.0, z, n)), z)
        np.testing.assert_allclose(slope, n * p**n * (1 - p) / (1 - p**n), rtol=2e-5)


@pytest.mark.parametrize("power", [1, 2, 4, 6.64])
def test_a_power_and_a_bias_begin_at_one_probability(power):
    assert math.isclose(float(power_sigmoid(0.0, power)), 2**-power, rel_tol=1e-6)
    assert math.isclose(expit(prior_bias(power)), 2**-power, rel_tol=1e-12)
    for t in (0.0, 1.0):
        by_power, by_bias = power_crossentropy(t, 0.0, power), power_crossentropy(t, prior_bias(power))
        assert math.isclose(float(by_power), float(by_bias), rel_tol=1e-5)


@pytest.mark.parametrize("power", [2, 3, 4])
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("q", [0.01, 0.0625, 0.5, 0.9])
def test_a_power_pushes_harder_than_a_bias_by_a_known_factor(power, target, q):
    pushed = gradient(lambda z: power_crossentropy(target, z, power), np.float32(logit(q ** (1 / power))))
    biased = gradient(lambda z: power_crossentropy(target, z), np.float32(logit(q)))
    np.testing.assert_allclose(pushed / biased, power * (1 - q ** (1 / power)) / (1 - q), rtol=1e-4)


@given(st.floats(1e-6, 0.49), st.floats(0.01, 0.5), st.floats(1, 30), st.floats(1.01, 3))
def test_the_way_of_the_logit_is_shorter_the_larger_the_power(low, step, power, factor):
    high = low + step  # from probability low to high
    ways = [logit(high ** (1 / n)) - logit(low ** (1 / n)) for n in (power, power * factor)]
    assert ways[1] < ways[0]
    # It never falls below what is left of it in the limit.
    assert ways[1] > np.log(np.log(low) / np.log(high)) > 0


def brute_pointers(starts, ends, threshold, longest):
    spans = []
    for start in np.flatnonzero(starts > threshold):
        later = [end for end in np.flatnonzero(ends > threshold) if end >= start]
        if later and (longest is None or later[0] - start < longest):
            spans.append((start, later[0] + 1))
    return spans


@given(st.integers(0, 12), st.sampled_from([0.2, 0.5, 0.8]), st.sampled_from([None, 1, 3]), st.integers(0, 10**6))
def test_each_start_takes_the_nearest_end(time, threshold, longest, seed):
    starts, ends = np.random.default_rng(seed).random((2, time))
    spans = spans_from_pointers(starts, ends, threshold, longest)
    assert spans == brute_pointers(starts, ends, threshold, longest)
    assert all(0 <= start < end <= time for start, end in spans)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4), (2, 0)])
def test_pointers_of_many_texts_are_paired_text_by_text(shape):
    starts, ends = np.random.default_rng(3).random((2, *shape)) > 0.5
    rows = [tuple(row) for row in pair_pointers(starts, ends).tolist()]
    apart = [
        (*index, start, end)
        for index in np.ndindex(shape[:-1])
        for start, end in brute_pointers(starts[index], ends[index], 0.5, None)
    ]
    assert rows == apart


# --- arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SpanPointer(0), "kinds must be a positive integer, got 0"),
        (
            lambda: pointer_loss([0], [0], np.zeros((2, 3))),
            r"logits must have shape \(None, None, 2\), got \(2, 3\)",
        ),
        (
            lambda: pointer_loss([[0]], [[0]], np.zeros((1, 3, 2))),
            r"starts must have shape \(1,\) to fit logits, got \(1, 1\)",
        ),
        (
            lambda: best_span(np.zeros((1, 3, 2)), mask=[True]),
            r"mask must have shape \(1, 3\) to fit logits, got \(1,\)",
        ),
        (lambda: best_span(np.zeros((1, 3, 2)), allowed=[True]), r"allowed must have shape \(1, 3\) to fit logits"),
        (lambda: best_span(np.zeros((1, 3, 2)), longest=0), "longest must be a positive integer, got 0"),
        (lambda: power_crossentropy(1.0, 0.0, power=0), "power must be positive, got 0"),
        (lambda: prior_bias(-1), "power must be positive, got -1"),
        (lambda: spans_from_pointers([0.1], [0.1, 0.2]), r"one shape \(time,\), got \(1,\) and \(2,\)"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
