"""Truths about ``lib.chain.arguments``: what is no number, no tag or no mask is refused by its name."""

import keras
import numpy as np
import pytest
from numerics import array, compiled

from lib.chain import UNKNOWN, checked, k_best, log_likelihood, log_partition, sample, sequence_score, viterbi

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
E, A = np.random.default_rng(0).standard_normal((2, 4, 3)), np.zeros((3, 3))
TAGS = np.array([[0, 1, 2, 2], [1, 0, 2, 1]])
RIGHT = {"emissions": E, "transitions": A, "tags": TAGS, "mask": np.ones((2, 4), bool), "start": A[0], "end": A[0]}


def masked(x):
    return np.ma.masked_array(x, np.arange(np.size(x)).reshape(np.shape(x)) == 1)


WRONG = [
    *((name, None, f"{name} must be a tensor of numbers, got None") for name in ("emissions", "transitions")),
    *((name, "text", f"{name} must be a tensor of numbers") for name in RIGHT),
    *((name, RIGHT[name] * 1j, f"{name} must hold booleans or .* got complex") for name in RIGHT if name != "mask"),
    *((name, [[1.0], [1.0, 2.0]], f"{name} must be a rectangular array of numbers") for name in RIGHT),
    *((name, masked(RIGHT[name]), f"{name} must be an array without masked entries") for name in RIGHT),
    ("mask", [["False"] * 4] * 2, "mask must be a tensor of numbers"),
    ("mask", np.full((2, 4), np.nan), "mask must hold True or 1 .*, got .*nan"),
    ("mask", [[0.0, 0.0, -1e4, -1e4]] * 2, r"mask must hold True or 1 .*, got \[-10000.0\]"),
    ("mask", np.ones((2, 5), bool), r"mask must have shape \(2, 4\) to fit emissions, got \(2, 5\)"),
    ("mask", np.ones((2, 4, 1), bool), r"mask must have shape \(2, 4\) to fit emissions, got \(2, 4, 1\)"),
    ("mask", np.ones((1, 4), bool), r"mask must have shape \(2, 4\) to fit emissions, got \(1, 4\)"),
    ("tags", np.full((2, 4), np.nan), "tags must be integers from 0 to 2 at valid steps"),
    ("tags", np.full((2, 4), 156, "uint8"), r"tags must be integers from 0 to 2 at valid steps, got \[156\]"),
    ("tags", np.full((2, 4), -100, "int8"), r"tags must be integers from 0 to 2 at valid steps, got \[-100\]"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_what_is_none_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        checked(**{**RIGHT, name: value})


@pytest.mark.parametrize("name", RIGHT)
def test_a_symbol_of_the_functional_api_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be a tensor, in the functional API call this within"):
        checked(**{**RIGHT, name: keras.KerasTensor(np.shape(RIGHT[name]))})


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no ragged tensors")
def test_ragged_emissions_are_refused_by_name():
    if BACKEND == "tensorflow":
        import tensorflow as tf

        ragged = tf.ragged.constant([[[1.0]], [[1.0], [2.0]]])
        with pytest.raises(ValueError, match="emissions must be a dense tensor, got a RaggedTensor"):
            checked(ragged, np.zeros((1, 1)))
    else:
        import torch

        with pytest.raises(ValueError, match="emissions must be a dense tensor"):
            checked(torch.ones(2, 4, 3).to_sparse(), A)


DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tags_may_be_of_any_type_of_number(dtype):
    emissions, transitions = np.tile(E, (1, 1, 50)), np.random.default_rng(1).standard_normal((150, 150))
    tags = TAGS + 120  # above 127 in int8 it would be negative, K · tag beyond 255
    expected = [
        sum(e[t, y[t]] for t in range(4)) + transitions[y[:-1], y[1:]].sum()
        for e, y in zip(emissions, tags, strict=True)
    ]
    found = array(sequence_score(tags.astype(dtype), emissions, transitions))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    wide = array(log_likelihood(tags, emissions, transitions))
    np.testing.assert_allclose(array(log_likelihood(tags.astype(dtype), emissions, transitions)), wide, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32", "uint8"])
def test_a_mask_is_boolean_or_0_and_1(dtype):
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])
    expected = array(log_partition(E, A, mask=mask > 0))
    np.testing.assert_array_equal(array(log_partition(E, A, mask=mask.astype(dtype))), expected)


@pytest.mark.skipif(BACKEND == "torch", reason="torch is never compiled here: it raises")
def test_where_no_error_can_be_raised_a_wrong_mask_makes_nan():
    mode = "xla" if BACKEND == "tensorflow" else "jit"
    mask = np.array([[1, 1, 1, 1], [1, 1, -1e4, 0]], "float32")
    e, transitions = E.astype("float32"), A.astype("float32")
    run = compiled(lambda e, m: (log_partition(e, transitions, mask=m), viterbi(e, transitions, mask=m)[0]), mode)
    log_z, tags = map(array, run(e, mask))
    assert np.isnan(log_z).tolist() == [False, True]
    assert (tags[:, 0] == -1).tolist() == [False, True]
    tags = np.where(TAGS == 2, UNKNOWN - 1, TAGS)
    tags[0] = UNKNOWN
    found = array(compiled(lambda y, e: log_likelihood(y, e, transitions), mode)(tags, e))
    assert np.isnan(found).tolist() == [False, True]


def test_true_is_no_count():
    with pytest.raises(ValueError, match="k must be a positive integer, got True"):
        k_best(E, A, True)
    with pytest.raises(ValueError, match="count must be a positive integer, got True"):
        sample(E, A, count=True)
