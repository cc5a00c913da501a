"""Truths about ``lib.attention.feature_maps``, on whichever backend KERAS_BACKEND names."""

import json

import numpy as np
import pytest
from attention_references import BACKEND, MAPS, array, close, compiled, features_of, gradients, normal
from keras import ops

from lib.attention import (
    FEATURE_MAPS,
    FeatureMap,
    elu_plus_one,
    linear_attention,
    one_plus_cosine,
    random_features,
    taylor,
)
from lib.attention.feature_maps import (
    NOTHING,
    find_feature_map,
    highest,
    key_features,
    loaded_feature_map,
    query_features,
    saved_feature_map,
)

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    ("name", "function"), [("elu+1", elu_plus_one), ("1+cos", one_plus_cosine), ("taylor", taylor)]
)
def test_a_feature_map_is_its_formula(name, function):
    x = normal(5, 3)
    assert close(function(x), features_of(name, x), 2e-6)


def test_elu_plus_one_keeps_its_digits_far_below_zero():
    x = np.array([-80, -20, -5, -1e-3], "float32")
    assert np.allclose(array(elu_plus_one(x)), np.exp(x.astype("float64")), rtol=1e-5, atol=0)


def test_the_slope_of_elu_plus_one_is_that_of_its_formula_and_one_at_zero():
    x = np.array([-3, -0.5, -0.0, 0, 1e-30, 2], "float32")
    (slope,) = gradients(elu_plus_one, [x], np.ones_like(x))
    assert np.allclose(slope, np.exp(np.minimum(x, 0)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_with_a_name_has_products_that_are_not_negative(name):
    dim, x = 5, np.concatenate([normal(30, 5), np.zeros((1, 5), "float32")])
    found = find_feature_map(name, dim)
    features = array(found.apply(x)).astype("float64")
    features = np.exp(features) if found.logarithmic else features
    assert name in FEATURE_MAPS
    assert (features @ features.T).min() >= 0


def test_one_plus_cosine_is_factored_never_negative_and_at_most_two():
    x = normal(40, 7)
    x = np.concatenate([x, -3 * x, np.zeros((1, 7), "float32")])
    features = array(one_plus_cosine(x)).astype("float64")
    similarity = features @ features.T
    assert 0 < similarity.min() < 1e-5
    assert similarity.max() <= 2


def test_taylor_is_the_second_order_polynomial():
    x, y = normal(6, 5), normal(6, 5, seed=1)
    product = np.sum(x.astype("float64") * y, axis=-1)
    features = np.sum(array(taylor(x)).astype("float64") * array(taylor(y)), axis=-1)
    assert np.allclose(features, 1 + product + product**2 / 2, rtol=1e-5)
    assert features.min() >= 0.5


@pytest.mark.parametrize("orthogonal", [False, True])
def test_random_features_estimate_the_exponential(orthogonal):
    x, y = 0.4 * normal(8, 6), 0.4 * normal(8, 6, seed=1)
    apply = random_features(6, 60_000, seed=3, orthogonal=orthogonal).apply
    estimate = np.sum(np.exp(array(apply(x)).astype("float64") + array(apply(y))), axis=-1)
    assert np.allclose(estimate, np.exp(np.sum(x * y, axis=-1)), rtol=0.05)


def test_orthogonal_features_vary_less():
    x = np.full((1, 8), 8**-0.5 / 2, "float32")

    def variance(orthogonal):
        draws = array(random_features(8, 8 * 20_000, orthogonal=orthogonal).apply(x))
        return np.var(np.exp(2 * draws.astype("float64")).reshape(20_000, 8).sum(axis=1))

    assert 0.75 < variance(True) / variance(False) < 0.85


def test_a_map_may_be_given_in_four_ways():
    own = FeatureMap(ops.square)
    assert find_feature_map(own, 3) is own
    assert find_feature_map("taylor", 3).apply is taylor
    assert find_feature_map(ops.tanh, 3, signed=True).apply is ops.tanh
    x = normal(2, 3)
    assert close(find_feature_map(None, 3, signed=True).apply(x), x)
    assert close(find_feature_map(ops.square, 3).apply(x), x**2)


@pytest.mark.parametrize(("dim", "count"), [(1, 1), (2, 1), (8, 17)])
def test_the_random_features_behind_a_name_are_as_many_as_the_performer_has(dim, count):
    assert find_feature_map("favor+", dim).apply.count == count


def test_levels_take_nothing_away():
    x, exp = 5 * normal(2, 7, 3, 4), find_feature_map("exp", 4)
    Q, level = query_features(exp, x)
    assert close(ops.log(Q) + level, x)
    mask = np.arange(7) != 3
    numbers = ops.convert_to_tensor(np.tile(mask, (2, 1)).astype("float32"))
    K, so_far = key_features(exp, x, numbers, np.full((2, 3), NOTHING, "float32"))
    kept = array(K)[:, mask]
    assert close(array(ops.log(K) + so_far[..., None])[:, mask][kept > 1e-30], x[:, mask][kept > 1e-30])
    assert not np.any(array(K)[:, 3])
    assert array(K).max() == 1
    best = np.where(mask[:, None], x.max(-1), NOTHING)
    assert close(so_far, np.maximum.accumulate(best, axis=1), 0)
    assert close(highest(x, np.tile(mask, (2, 1))), best, 0)


def test_a_plain_feature_has_no_level():
    x, relu = normal(2, 7, 3, 4), find_feature_map("relu", 4)
    (Q, level), (K, so_far) = query_features(relu, x), key_features(relu, x, None, None)
    assert level is None
    assert so_far is None
    assert close(Q, np.maximum(x, 0), 0)
    assert close(K, np.maximum(x, 0), 0)


@pytest.mark.skipif(BACKEND == "torch", reason="torch does not compile")
def test_compiled_code_marks_negative_features_with_nan():
    x = normal(1, 5, 2, 4)
    for causal in (False, True):
        run = compiled(lambda x, causal=causal: linear_attention(x, x, x, lambda x: x - 1, causal=causal))
        assert np.any(np.isnan(array(run(ops.convert_to_tensor(x)))))


def test_a_promise_spares_the_check():
    shifted = FeatureMap(lambda x: ops.concatenate([2 * ops.ones_like(x), ops.tanh(x)], axis=-1))
    x, v = normal(1, 5, 2, 4), np.ones((1, 5, 2, 4), "float32")
    assert close(linear_attention(x, x, v, shifted), v)


WRONG = [
    (lambda: find_feature_map("sine", 3), "feature_map must be one of 'elu"),
    (lambda: find_feature_map(None, 3), "feature_map must be one of 'elu"),
    (lambda: find_feature_map(7, 3, signed=True), "feature_map must be one of 'elu"),
    (lambda: find_feature_map(ops.tanh, 3).apply(normal(9, 3)), "must give non-negative features.*got -"),
    (lambda: random_features(3, 5).apply(normal(2, 4)), "feature_map must be for dim 4, got random"),
    (lambda: random_features(4, 0), "count must be a positive integer, got 0"),
    (lambda: random_features(True, 3), "dim must be a positive integer, got True"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "given", [None, "relu", taylor, random_features(3, 5, seed=7), FeatureMap(taylor, name="t")]
)
def test_a_map_comes_back_from_the_json_of_a_file(given):
    back = loaded_feature_map(json.loads(json.dumps(saved_feature_map(given))))
    if given is None or isinstance(given, str):
        assert back == given
        return
    phi, own = (find_feature_map(x, 3, signed=True) for x in (back, given))
    x = normal(2, 4, 3)
    np.testing.assert_array_equal(array(phi.apply(x)), array(own.apply(x)))
    assert (phi.logarithmic, phi.name) == (own.logarithmic, own.name)
