"""Truths about ``lib.attention.bidirectional``, on whichever backend KERAS_BACKEND names."""

import math

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
    gradients,
    normal,
    padding,
    qkv,
    quadratic,
    slopes_agree,
)
from keras import ops

from lib.attention import State, bidirectional
from lib.attention.arguments import checked, known_normalization, of_rank
from lib.attention.bidirectional import (
    empty_state,
    full_attention,
    normalizer,
    normalizer_gradient,
    whole_tiles,
)
from lib.attention.feature_maps import find_feature_map

pytestmark = pytest.mark.backends

FORMS = [("elu+1", "sum"), ("exp", "sum"), ("exp", None), (None, "rms")]
QUERIES = 29  # other keys than queries


@pytest.fixture(autouse=True)
def short_tiles(monkeypatch):
    """Several tiles of queries and of keys."""
    monkeypatch.setattr(bidirectional, "TILE", 16)


def tokens():
    q, k, v = qkv()
    return [q[:, :QUERIES], k, v]


UPSTREAM = normal(BATCH, QUERIES, HEADS, DIM, seed=7)


@pytest.mark.parametrize(("name", "normalize"), FORMS)
def test_values_and_gradients_are_those_of_all_pairs(name, normalize):
    def expected(*x):
        return quadratic(*x, name or "", False, padding(), normalize)

    def found(*x):
        return full_attention(*x, name, normalize, padding())

    assert close(found(*tokens()), expected(*tokens()), 1e-4)
    assert slopes_agree(gradients(found, tokens(), UPSTREAM), expected, tokens(), UPSTREAM)


@pytest.mark.parametrize("tile", [16, 512])
def test_tiles_and_a_mask_of_everything_change_nothing(tile, monkeypatch):
    monkeypatch.setattr(bidirectional, "TILE", tile)
    inputs = qkv(32)  # nothing to pad
    expected = quadratic(*inputs, "exp", False)
    assert close(full_attention(*inputs, "exp", "sum"), expected, 1e-4)
    assert close(full_attention(*inputs, "exp", "sum", np.ones((BATCH, 32))), expected, 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_in_float32(dtype):
    inputs = [array(ops.cast(x, dtype)) for x in qkv(700, batch=1)]  # what half precision can say
    out = full_attention(*(ops.cast(x, dtype) for x in inputs), "elu+1", "sum")
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    expected = quadratic(*inputs, causal=False)
    assert np.max(np.abs(array(out) - expected)) < (2e-3 if dtype == "float16" else 2e-2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs of unknown length")
def test_a_graph_of_unknown_batch_and_length():
    import tensorflow as tf

    def function(*x):
        return full_attention(*x, "elu+1", "sum")

    unknown = [tf.TensorSpec((None, None, HEADS, DIM))] * 3
    run = compiled(function, input_signature=unknown)
    assert close(run(*tokens()), array(function(*tokens())), 1e-5)
    for g, e in zip(gradients(run, tokens(), UPSTREAM), gradients(function, tokens(), UPSTREAM), strict=True):
        assert close(g, e, 1e-4)


def test_what_cannot_be_normalised_becomes_zero():
    zero, one = np.zeros((1, 2), "float32"), np.ones((1, 2), "float32")
    assert float(normalizer("sum", one, zero[:, :1])[0, 0]) == 0
    assert float(normalizer("rms", zero, None)[0, 0]) == 0
    assert abs(float(normalizer("rms", 2 * one, None)[0, 0]) - 0.5) < 1e-6
    assert abs(float(normalizer(None, one, None, one[:, :1])[0, 0]) - math.e) < 1e-5


@pytest.mark.parametrize("normalize", ["sum", "rms", None])
def test_the_gradient_of_a_normalisation_is_that_of_finite_differences(normalize):
    N, sums, upstream = normal(5, 3), 1 + np.abs(normal(5, 1, seed=1)), normal(5, 3, seed=2)
    factor = normalizer(normalize, N, sums)
    dN, d_sums = normalizer_gradient(normalize, ops.multiply(N, factor), factor, upstream)
    found = [array(dN), np.zeros_like(sums) if d_sums is None else array(d_sums)]

    def expected(N, sums):
        size = {"sum": sums, "rms": np.sqrt(np.mean(N**2, axis=-1, keepdims=True)), None: 1}
        return N / size[normalize]

    assert slopes_agree(found, expected, [N, sums], upstream)


def test_an_empty_state_has_the_size_of_features_times_values():
    x = normal(2, 5, 3, 4)
    state = empty_state(find_feature_map("1+cos", 4), x, x[..., :2])
    assert isinstance(state, State)
    assert [tuple(part.shape) for part in state] == [(2, 3, 5, 2), (2, 3, 5), (2, 3), (2,)]
    assert not np.any(array(state.S))


def test_the_mask_leaves_out_what_was_padded():
    x = normal(2, 5, 1, 3)
    (longer, nothing), mask = whole_tiles((x, None), None, 2)
    assert nothing is None
    assert close(longer, np.pad(x, ((0, 0), (0, 2), (0, 0), (0, 0))), 0)
    assert close(mask, np.tile(np.arange(7.0) < 5, (2, 1)), 0)
    assert whole_tiles((x,), None, 0)[1] is None


def test_numbers_of_the_wrong_kind_are_named():
    x = normal(1, 3, 2, 4)
    assert [tuple(y.shape) for y in checked(x, x, x, None, True)[:3]] == [x.shape] * 3
    assert tuple(of_rank(3, "q", x[0]).shape) == (3, 2, 4)
    assert known_normalization("rms") == "rms"
    with pytest.raises(ValueError, match="normalize must be one of 'sum', 'rms', None, got 'mean'"):
        known_normalization("mean")
    with pytest.raises(ValueError, match=r"k must have shape \(1, 4, 2, 4\) to fit q, got \(1, 3, 2, 4\)"):
        checked(normal(1, 4, 2, 4), x, x, None, causal=True)
