"""Truths about ``lib.extraction``: what is no place, flag, target or mask is refused by name, or NaN in its row."""

import math
import re
from fractions import Fraction

import keras
import numpy as np
import pytest
from keras import ops
from numerics import BACKEND, array, compiled, normal

from lib.extraction import (
    Cascade,
    SpanPointer,
    Triple,
    best_span,
    event_score,
    pair_pointers,
    pointer_loss,
    power_crossentropy,
    power_sigmoid,
    prior_bias,
    sample_subject,
    span_loss,
    spans_from_pointers,
    targets,
)

# The heads run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="a plain graph is TensorFlow's")
COMPILED = {"tensorflow": ["xla"], "jax": ["jit"], "torch": []}[BACKEND]
LOGITS = np.random.default_rng(0).standard_normal((3, 4, 2)).astype("float32")
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
STARTS, ENDS = np.array([0, 1, 0], "int32"), np.array([3, 2, 1], "int32")


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


# --- pointers -------------------------------------------------------------------------------------------------

WRONG_PLACES = {
    "starts must be whole numbers in [0, time), got [-1] with time = 4": (changed(STARTS, 1, -1), ENDS),
    "starts must be whole numbers in [0, time), got [4] with time = 4": (changed(STARTS, 1, 4), ENDS),
    "ends must be whole numbers in [0, time), got [7] with time = 4": (STARTS, changed(ENDS, 1, 7)),
    "ends must be whole numbers in [0, time), got [1.5] with time = 4": (
        STARTS,
        changed(ENDS.astype("float32"), 1, 1.5),
    ),
    "ends must be whole numbers in [0, time), got [nan] with time = 4": (
        STARTS,
        changed(ENDS.astype("float32"), 1, np.nan),
    ),
}


@pytest.mark.parametrize("message", WRONG_PLACES)
def test_a_place_that_no_text_has_is_refused(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        pointer_loss(*WRONG_PLACES[message], LOGITS)
    named = message.replace("starts", "pointers[:, 0]").replace("ends", "pointers[:, 1]")
    with pytest.raises(ValueError, match=re.escape(named)):
        span_loss(np.stack(WRONG_PLACES[message], axis=-1), LOGITS)


@TENSORFLOW
@pytest.mark.parametrize("message", WRONG_PLACES)
def test_a_place_that_no_text_has_is_asserted_in_a_graph(message):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(message.split(", got")[0])):
        compiled(pointer_loss, "graph")(*WRONG_PLACES[message], LOGITS)


@pytest.mark.parametrize("mode", COMPILED)
@pytest.mark.parametrize("message", WRONG_PLACES)
def test_the_loss_of_a_place_that_no_text_has_is_nan_where_nothing_can_raise(message, mode):
    found = array(compiled(pointer_loss, mode)(*WRONG_PLACES[message], LOGITS))
    np.testing.assert_allclose(found, changed(array(pointer_loss(STARTS, ENDS, LOGITS)), 1, np.nan), rtol=1e-5)


@pytest.mark.parametrize("low", [-1e29, -1e30, -1e31, -3e38, 1e38])
@pytest.mark.parametrize("mode", ["eager", *COMPILED])
def test_logits_below_minus_1e30_count_as_any_others_do(low, mode):
    logits = np.full((1, 4, 2), low, "float32")
    logits[0, 3] = 0  # padded
    mask = np.array([[1, 1, 1, 0]])
    loss = compiled(lambda x: pointer_loss([0], [2], x, mask=mask), mode)(logits)
    np.testing.assert_allclose(array(loss), [math.log(3)], rtol=1e-6)
    *place, log_p = compiled(lambda x: best_span(x, mask=mask), mode)(logits)
    assert [int(x[0]) for x in place] == [0, 0]
    np.testing.assert_allclose(array(log_p), [-2 * math.log(3)], rtol=1e-6)


def test_an_empty_batch_has_no_loss_and_no_answer():
    logits, none = LOGITS[:0], np.zeros(0, "int32")
    assert [tuple(x.shape) for x in (pointer_loss(none, none, logits), *best_span(logits))] == [(0,)] * 4


@pytest.mark.parametrize("kinds", [None, 3])
@pytest.mark.parametrize(("batch", "time"), [(0, 4), (2, 0), (0, 0)])
def test_where_there_is_no_token_there_is_no_logit(batch, time, kinds):
    pointer, sizes = SpanPointer(kinds), (2,) if kinds is None else (kinds, 2)
    for mask in (None, np.ones((batch, time), bool)):
        assert tuple(pointer(np.zeros((batch, time, 8), "float32"), mask=mask).shape) == (batch, time, *sizes)


def test_whole_numbers_of_any_type_are_places():
    expected = array(pointer_loss(STARTS, ENDS, LOGITS))
    for dtype in ("int64", "uint8", "float32"):
        np.testing.assert_array_equal(
            array(pointer_loss(STARTS.astype(dtype), ENDS.astype(dtype), LOGITS)), expected
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pointer_loss([0, 1, 2], [0, 1, 2], LOGITS[:1]), "starts must have shape (1,) to fit logits"),
        (lambda: pointer_loss([0], [0, 1, 2], LOGITS[:1]), "ends must have shape (1,) to fit logits, got (3,)"),
        (lambda: pointer_loss([True], [0], LOGITS[:1]), "starts must hold integers or unsigned integers or floats"),
        (lambda: pointer_loss(None, [0], LOGITS[:1]), "starts must be a tensor of numbers, got None"),
        (lambda: pointer_loss(STARTS, ENDS, LOGITS + 0j), "logits must hold"),
        (lambda: pointer_loss(STARTS, ENDS, LOGITS[:, :0]), "logits must have a place in each text"),
        (lambda: span_loss(STARTS, LOGITS), "pointers must have shape (None, 2), got (3,)"),
        (lambda: best_span(LOGITS, longest=2.5), "longest must be a positive integer, got 2.5"),
        (lambda: best_span(LOGITS, longest=True), "longest must be a positive integer, got True"),
        (lambda: power_crossentropy(np.ones(4), np.ones((4, 1))), "targets must have shape (4, 1) to fit"),
        (lambda: power_crossentropy(np.ones((1, 4)), np.ones((2, 4))), "targets must have shape (2, 4) to fit"),
        (lambda: power_crossentropy(np.ones((2, 4)), 0.0), "targets must have shape () to fit logits, got (2, 4)"),
        (lambda: power_crossentropy([0.5, 1.5, -1.0], np.zeros(3)), "targets must lie in [0, 1], got [1.5, -1.0]"),
        (lambda: power_crossentropy([np.nan], np.zeros(1)), "targets must lie in [0, 1], got [nan]"),
        (lambda: power_crossentropy(1.0, 0.0, power=-1), "power must be positive, got -1"),
        (lambda: power_crossentropy(1.0, 0.0, power=math.inf), "power must be a finite number, got inf"),
        (lambda: power_crossentropy(1.0, 1j), "logits must hold"),
        (lambda: power_sigmoid(0.0, -1), "power must be positive, got -1"),
        (lambda: power_sigmoid(0.0, 0), "power must be positive, got 0"),
        (lambda: power_sigmoid(0.0, math.nan), "power must be a finite number, got nan"),
        (lambda: power_sigmoid(0.0, True), "power must be a finite number, got True"),
        (lambda: power_sigmoid(1j), "logits must hold"),
        (lambda: prior_bias("2"), "power must be a finite number, got '2'"),
        (lambda: SpanPointer(True), "kinds must be a positive integer, got True"),
        (lambda: SpanPointer(seed=True), "seed must be an integer of at least 0, got True"),
        (lambda: SpanPointer(bias=math.nan), "bias must be a finite number, got nan"),
        (lambda: SpanPointer()(LOGITS[0]), "vectors must have shape (None, None, None), got (4, 2)"),
        (lambda: pair_pointers([1, 2], [1, 0]), "starts must hold True or 1 where a pointer points"),
        (lambda: pair_pointers([1.0, 0.0], [0.7, 0.0]), "ends must hold True or 1 where a pointer points"),
        (lambda: pair_pointers([1, 0], [[1, 0]]), "must have one shape (…, time), got (2,) and (1, 2)"),
        (lambda: pair_pointers(True, True), "starts and ends must have one shape (…, time), got () and ()"),
        (lambda: pair_pointers(["1"], [1]), "starts must hold real numbers, got <U1"),
        (lambda: spans_from_pointers([np.nan], [1.0]), "starts must hold real numbers, got float64 [nan]"),
        (lambda: spans_from_pointers([1.0], [1.0 + 0j]), "ends must hold real numbers, got complex128"),
        (lambda: spans_from_pointers([1.0], [1.0], math.nan), "threshold must be a finite number, got nan"),
        (lambda: spans_from_pointers([1.0], [1.0], longest=1.5), "longest must be a positive integer, got 1.5"),
        (lambda: targets([], 0, 1, (0, 1)), "time must be a positive integer, got 0"),
        (lambda: sample_subject([Triple((0, 1), 0, (1, 2))], seed=-1), ""),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


WRONG_MASKS = {
    r"must have shape \(3, 4\) to fit (logits|vectors), got \(1, 4\)": MASK[:1],
    r"must have shape \(3, 4\) to fit (logits|vectors), got \(4,\)": MASK[0],
    r"must hold True or 1 .*, got \[-10000.0\]": np.where(MASK, 0.0, -1e4).astype("float32"),
    r"must hold True or 1 .*, got \[nan\]": np.where(MASK, 1, np.nan).astype("float32"),
}
MASKED = {
    "pointer_loss": lambda mask: pointer_loss(STARTS, ENDS, LOGITS, mask=mask),
    "best_span": lambda mask: best_span(LOGITS, mask=mask)[2],
    "allowed": lambda mask: best_span(LOGITS, allowed=mask)[2],
    "SpanPointer": lambda mask: HEAD(LOGITS, mask=mask),
}
HEAD = SpanPointer()
HEAD.build(LOGITS.shape)
HEAD.set_weights([normal(*weight.shape, seed=5) for weight in HEAD.weights])  # else others at every import


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("message", WRONG_MASKS)
def test_what_is_no_mask_is_refused(name, message):
    with pytest.raises(ValueError, match=("allowed " if name == "allowed" else "mask ") + message):
        MASKED[name](WRONG_MASKS[message])


@pytest.mark.parametrize("mode", COMPILED)
@pytest.mark.parametrize("name", MASKED)
def test_a_text_with_another_number_in_its_mask_is_nan_where_nothing_can_raise(name, mode):
    mask = changed(MASK.astype("float32"), (1, 3), -1e4)
    expected = changed(array(MASKED[name](MASK)), 1, np.nan)
    np.testing.assert_allclose(array(compiled(MASKED[name], mode)(mask)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_of_zeros_and_ones_is_one_of_booleans(name):
    for dtype in ("uint8", "float32"):
        np.testing.assert_array_equal(array(MASKED[name](MASK.astype(dtype))), array(MASKED[name](MASK == 1)))


def test_no_text_has_no_span_and_no_loss_and_nan_stays_nan():
    starts, ends, log_p = best_span(LOGITS[:0])
    assert tuple(starts.shape) == tuple(ends.shape) == tuple(log_p.shape) == (0,)
    assert np.isnan(array(best_span(changed(LOGITS, (1, 2, 0), np.nan))[2])).tolist() == [False, True, False]
    assert tuple(pointer_loss(STARTS[:0], ENDS[:0], LOGITS[:0]).shape) == (0,)


@pytest.mark.parametrize("mode", COMPILED)
def test_a_target_that_is_no_probability_has_loss_nan_where_nothing_can_raise(mode):
    t = np.array([[0.0, 0.3], [1.0, 1.5], [-0.1, np.nan]], "float32")
    z = np.array([[0.1, -2.0], [1.0, 1.0], [0.5, 0.5]], "float32")
    p = (1 / (1 + np.exp(-z.astype("float64")))) ** 2
    with np.errstate(invalid="ignore"):
        expected = np.where((t >= 0) & (t <= 1), -t * np.log(p) - (1 - t) * np.log1p(-p), np.nan)
    found = array(compiled(lambda t, z: power_crossentropy(t, z, 2), mode)(t, z))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@TENSORFLOW
def test_a_target_that_is_no_probability_is_asserted_in_a_graph():
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"targets must lie in \[0, 1\]"):
        compiled(power_crossentropy, "graph")(np.float32([2.0]), np.float32([0.0]))


@pytest.mark.parametrize("power", [1e-300, 1e-9, 0.5, 1, 30, 52, 53, 60, 1000])
def test_the_bias_of_any_power_is_exact(power):
    # With n ln 2 = x: −log(eˣ − 1), for small x −log x − x/2, for whole n by fractions.
    if power < 1e-6:
        expected = -math.log(power) - math.log(math.log(2)) - power * math.log(2) / 2
    elif power == 0.5:
        expected = -math.log(math.sqrt(2) - 1)
    else:
        ratio = Fraction(2**power - 1, 2**power)  # the rest of log 2ⁿ
        expected = -power * math.log(2) - math.log1p(float(ratio - 1))
    assert prior_bias(power) == pytest.approx(expected, rel=1e-14, abs=1e-14)


def test_the_bias_of_a_large_power_does_not_overflow():
    assert prior_bias(2000) == pytest.approx(-1386.2943611198906, rel=1e-15)
    assert prior_bias(1e300) == pytest.approx(-math.log(2) * 1e300, rel=1e-15)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_flags_of_any_type_are_paired_as_booleans(dtype):
    y = targets([Triple((1, 3), 0, (0, 1)), Triple((4, 5), 1, (1, 3))], 6, 2, (1, 3))
    starts, ends = np.moveaxis(y["subjects"], -1, 0).astype(dtype)
    assert pair_pointers(starts, ends).tolist() == [[1, 3], [4, 5]]
    starts, ends = np.moveaxis(y["objects"], -1, 0).astype(dtype).swapaxes(1, 2)
    assert pair_pointers(starts, ends).tolist() == [[0, 0, 1]]
    assert pair_pointers([1, 0, 0], [0, 0, 1]).tolist() == [[0, 3]]


# --- scores and the cascade -----------------------------------------------------------------------------------


def test_two_empty_arguments_of_an_event_agree():
    key = ("Attack", "Place")
    assert event_score({key: ""}, {key: ""}).correct == 1
    assert event_score({key: ""}, {key: "Rome"}).correct == event_score({key: "Rome"}, {key: ""}).correct == 0


def test_a_seed_draws_the_same_subject_and_a_generator_goes_on():
    triples = [Triple((i, i + 1), 0, (0, 1)) for i in range(50)]
    assert sample_subject(triples, seed=3) == sample_subject(triples, seed=3)
    rng = np.random.default_rng(3)
    drawn = [sample_subject(triples, seed=rng) for _ in range(9)]
    assert drawn[0] == sample_subject(triples, seed=3)
    assert len(set(drawn)) > 1
    assert sample_subject(triples) in {(i, j + 1) for i in range(50) for j in range(i, 50)}


def cascade():
    model = Cascade(keras.layers.Embedding(10, 8), 2)
    model({"ids": np.ones((3, 4), "int32"), "subject": np.array([[0, 1]] * 3)})
    return model


IDS, SUBJECT = np.array([[4, 7, 1, 2]] * 3), np.array([[0, 2], [1, 2], [3, 4]])


@pytest.mark.parametrize("wrong", [(0, 0), (-1, 1), (2, 1), (3, 5)])
def test_a_subject_that_is_no_span_is_refused_or_its_objects_are_nan(wrong):
    model, subject = cascade(), changed(SUBJECT, 1, wrong)
    with pytest.raises(
        ValueError,
        match=re.escape(f"subject must be whole numbers with 0 <= start < end <= time, got [{[*wrong]}]"),
    ):
        model({"ids": IDS, "subject": subject})
    for mode in COMPILED:
        found = compiled(model, mode)({"ids": IDS, "subject": subject})
        right = model({"ids": IDS, "subject": SUBJECT})
        np.testing.assert_allclose(array(found["objects"]), changed(array(right["objects"]), 1, np.nan), atol=1e-5)
        np.testing.assert_allclose(array(found["subjects"]), array(right["subjects"]), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cascade()({"ids": IDS, "subject": SUBJECT[:1]}), "subject must have shape (3, 2)"),
        (lambda: cascade()({"ids": IDS, "subject": SUBJECT / 2}), "subject must be whole numbers"),
        (lambda: cascade()({"ids": IDS[:0, :0], "subject": SUBJECT[:0]}), "subject must be a span of a text with"),
        (lambda: cascade().extract(IDS, batch=0), "batch must be a positive integer, got 0"),
        (lambda: Cascade(keras.layers.Embedding(10, 8), True), "predicates must be a positive integer, got True"),
        (lambda: Cascade(keras.layers.Embedding(10, 8), 1, power=(2, -1)), "power must be positive, got -1"),
        (lambda: Cascade(keras.layers.Embedding(10, 8), 1, bias=math.nan), "bias must be a finite number, got nan"),
        (lambda: Cascade(keras.layers.Embedding(10, 8), 1, threshold="x"), "threshold must be a finite number"),
        (lambda: Cascade(keras.layers.Embedding(10, 8), 1, padding=-1), "padding must be an integer of at least 0"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_a_cascade_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_cascade_refuses_targets_of_another_shape():
    model = cascade()
    y_pred = model({"ids": IDS, "subject": SUBJECT})
    y = {"subjects": np.zeros((1, 4, 2)), "objects": np.zeros((3, 4, 2, 2))}
    with pytest.raises(
        ValueError, match=re.escape("targets must have shape (3, 4, 2) to fit logits, got (1, 4, 2)")
    ):
        model.compute_loss(y={name: ops.convert_to_tensor(value) for name, value in y.items()}, y_pred=y_pred)
