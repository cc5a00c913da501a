"""Truths about ``lib.hmm``, on whichever backend KERAS_BACKEND names."""

import itertools
import math

import numpy as np
import pytest
from numerics import array

from lib import chain
from lib.hmm import HMM, MISSING

pytestmark = pytest.mark.backends

# Sunny and rainy days; a friend walks, shops or cleans. No symbol is unknown.
WEATHER = HMM([0.4, 0.6], [[0.6, 0.4], [0.3, 0.7]], [[0.6, 0.3, 0.1, 0.0], [0.1, 0.4, 0.5, 0.0]])


def random_model(seed, K=3, V=4):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet
    return HMM(rows(np.ones(K)), rows(np.ones(K), K), rows(np.ones(V + 1), K))


def joint(model, symbols, tags):
    """P(x, y), factor by factor."""
    p = model.initial[tags[0]]
    for i, j in itertools.pairwise(tags):
        p *= model.transition[i, j]
    for tag, symbol in zip(tags, symbols, strict=True):
        p *= 1.0 if symbol == MISSING else model.emission[tag, symbol]
    return p


def sequences(length, K):
    return list(itertools.product(range(K), repeat=length))


# --- fitting --------------------------------------------------------------------------------------------------

SYMBOLS = np.array([[0, 1, 1, 2], [2, 0, 0, 0]])
TAGS = np.array([[0, 0, 1, 1], [1, 0, -1, -1]])


def test_fitting_counts_as_one_does_by_hand():
    model = HMM.fit(SYMBOLS, TAGS, symbol_count=3, tag_count=2, smoothing=0)
    # First tags 0, 1; moves 0→0, 0→1, 1→1, 1→0; tag 0 emits 0, 1, 0 and tag 1 emits 1, 2, 2.
    np.testing.assert_allclose(model.initial, [1 / 2, 1 / 2])
    np.testing.assert_allclose(model.transition, [[1 / 2, 1 / 2], [1 / 2, 1 / 2]])
    np.testing.assert_allclose(model.emission, [[2 / 3, 1 / 3, 0, 0], [0, 1 / 3, 2 / 3, 0]])


def test_smoothing_adds_to_every_count_that_of_the_unknown_symbol_included():
    model = HMM.fit(SYMBOLS, TAGS, symbol_count=3, tag_count=2, smoothing=0.5, emission_smoothing=0.25)
    np.testing.assert_allclose(model.initial, [1.5 / 3, 1.5 / 3])
    np.testing.assert_allclose(model.transition, [[1.5 / 3, 1.5 / 3], [1.5 / 3, 1.5 / 3]])
    np.testing.assert_allclose(model.emission[0], np.array([2.25, 1.25, 0.25, 0.25]) / 4)
    assert model.unknown == 3
    one = HMM.fit(SYMBOLS, TAGS, symbol_count=3, tag_count=2)
    np.testing.assert_allclose(one.emission[1], np.array([1, 2, 3, 1]) / 7)


def test_unknown_symbols_in_training_are_counted_and_missing_ones_are_not():
    model = HMM.fit([[3, MISSING, 0]], [[0, 0, 0]], symbol_count=3, tag_count=1, smoothing=0)
    np.testing.assert_allclose(model.emission, [[1 / 2, 0, 0, 1 / 2]])
    np.testing.assert_allclose(model.transition, [[1]])


def test_a_mask_leaves_out_what_minus_one_leaves_out():
    mask = TAGS >= 0
    by_mask = HMM.fit(SYMBOLS, np.where(mask, TAGS, 1), symbol_count=3, tag_count=2, mask=mask)
    by_tags = HMM.fit(SYMBOLS, TAGS, symbol_count=3, tag_count=2)
    for name in ("initial", "transition", "emission"):
        np.testing.assert_array_equal(getattr(by_mask, name), getattr(by_tags, name))


def test_what_was_never_seen_is_uniform_even_without_smoothing():
    model = HMM.fit([[0, 0]], [[0, 1]], symbol_count=1, tag_count=3, smoothing=0)
    np.testing.assert_allclose(model.transition, [[0, 1, 0], [1 / 3] * 3, [1 / 3] * 3])
    np.testing.assert_allclose(model.emission[2], [1 / 2, 1 / 2])


def test_without_smoothing_no_other_model_makes_the_training_data_more_probable():
    rng = np.random.default_rng(0)
    symbols, tags = rng.integers(0, 4, (5, 20)), rng.integers(0, 3, (5, 20))
    fitted = HMM.fit(symbols, tags, symbol_count=4, tag_count=3, smoothing=0)

    def log_joint(model):
        scores = tags, model.emissions(symbols), model.transitions
        return float(np.sum(array(chain.sequence_score(*scores, start=model.start))))

    assert all(log_joint(random_model(seed)) < log_joint(fitted) for seed in range(20))
    for name in ("initial", "transition", "emission"):  # not even a nearby one
        near = {n: getattr(fitted, n) for n in ("initial", "transition", "emission")}
        near[name] = 0.95 * near[name] + 0.05 / near[name].shape[-1]
        assert log_joint(HMM(**near)) < log_joint(fitted)


def test_fitting_recovers_the_model_that_made_the_data():
    rng, model = np.random.default_rng(0), random_model(1)
    tags, symbols = np.zeros((500, 100), int), np.zeros((500, 100), int)
    for row in range(500):
        for k in range(100):
            p = model.transition[tags[row, k - 1]] if k else model.initial
            tags[row, k] = np.searchsorted(np.cumsum(p), rng.random())
            symbols[row, k] = np.searchsorted(np.cumsum(model.emission[tags[row, k]]), rng.random())
    fitted = HMM.fit(symbols, tags, symbol_count=4, tag_count=3)
    np.testing.assert_allclose(fitted.initial, model.initial, atol=0.07)  # three deviations of 500 draws
    np.testing.assert_allclose(fitted.transition, model.transition, atol=0.02)
    np.testing.assert_allclose(fitted.emission, model.emission, atol=0.02)


# --- the model as a chain -------------------------------------------------------------------------------------


def test_viterbi_is_the_one_of_a_worked_example():
    # Walk, shop, clean: 0.4·0.6 = 0.24 and 0.6·0.1 = 0.06; then max(0.24·0.6, 0.06·0.3)·0.3 = 0.0432 for sunny and
    # max(0.24·0.4, 0.06·0.7)·0.4 = 0.0384 for rainy; then max(0.0432·0.4, 0.0384·0.7)·0.5 = 0.01344 for rainy.
    tags, score = WEATHER.decode([[0, 1, 2]])
    assert array(tags).tolist() == [[0, 1, 1]]
    assert math.exp(float(score[0])) == pytest.approx(0.01344, rel=1e-5)


def test_the_likelihood_is_the_one_of_a_worked_example():
    # The forward algorithm by hand: 0.24, 0.06; 0.0486, 0.0552; then 0.004572 and 0.02904.
    assert math.exp(float(WEATHER.log_likelihood([[0, 1, 2]])[0])) == pytest.approx(0.033612, rel=1e-5)


@pytest.mark.parametrize("lowest", [0, MISSING], ids=["all symbols known", "some symbols missing"])
def test_likelihood_and_viterbi_agree_with_enumeration(lowest):
    model = random_model(5)
    symbols = np.random.default_rng(6).integers(lowest, 5, (20, 5))
    lengths = np.arange(20) % 5 + 1
    mask = np.arange(5) < lengths[:, None]
    likelihood, (tags, score) = array(model.log_likelihood(symbols, mask)), model.decode(symbols, mask)
    for row, n in enumerate(lengths):
        every = sequences(n, 3)
        p = [joint(model, symbols[row, :n], candidate) for candidate in every]
        assert likelihood[row] == pytest.approx(math.log(sum(p)), abs=1e-4)
        assert float(score[row]) == pytest.approx(math.log(max(p)), abs=1e-4)
        assert array(tags)[row].tolist() == [*every[int(np.argmax(p))], *[-1] * (5 - n)]


def test_the_probabilities_of_all_observations_of_one_length_sum_to_one():
    model = random_model(0)
    every = np.array(list(itertools.product(range(5), repeat=3)))
    assert np.exp(array(model.log_likelihood(every))).sum() == pytest.approx(1, rel=1e-5)


def test_a_missing_symbol_is_summed_over():
    model = random_model(2)
    with_gap = np.exp(array(model.log_likelihood([[1, MISSING, 2]])))
    filled = np.exp(array(model.log_likelihood([[1, symbol, 2] for symbol in range(5)])))
    assert with_gap[0] == pytest.approx(filled.sum(), rel=1e-5)


def test_missing_symbols_at_the_end_change_nothing():
    model = random_model(3)
    np.testing.assert_allclose(
        array(model.log_likelihood([[1, 0, MISSING]])), array(model.log_likelihood([[1, 0]])), rtol=1e-5
    )


def test_an_impossible_observation_has_likelihood_minus_infinity():
    assert float(WEATHER.log_likelihood([[0, WEATHER.unknown, 2]])[0]) == -math.inf
    assert float(WEATHER.decode([[0, WEATHER.unknown, 2]])[1][0]) == -math.inf


def test_a_smoothed_model_survives_unknown_symbols_and_forbidden_moves():
    model = HMM.fit(SYMBOLS, TAGS, symbol_count=3, tag_count=2)
    assert np.all(np.isfinite(array(model.log_likelihood([[3, 3, 3]]))))


def test_a_row_without_a_valid_step_has_likelihood_one():
    assert float(WEATHER.log_likelihood([[0, 1]], [[False, False]])[0]) == 0


def test_marginals_entropy_samples_and_the_best_sequences_are_those_of_the_posterior():
    model, symbols = random_model(4), [[0, 4, 2, 1]]
    mask = [[True, True, True, False]]
    every = np.array(sequences(3, 3))
    p = np.array([joint(model, symbols[0][:3], tags) for tags in every])
    posterior = p / p.sum()
    expected = np.stack([posterior @ (every == tag) for tag in range(3)], axis=1)
    found = array(model.marginals(symbols, mask))[0]
    np.testing.assert_allclose(found[:3], expected, atol=1e-5)
    assert not found[3].any()
    assert float(model.entropy(symbols, mask)[0]) == pytest.approx(-np.sum(posterior * np.log(posterior)), abs=1e-5)
    tags, scores = model.k_best(symbols, 4, mask=mask)
    best = np.argsort(-p)[:4]
    np.testing.assert_array_equal(array(tags)[0], np.pad(every[best], ((0, 0), (0, 1)), constant_values=-1))
    np.testing.assert_allclose(array(scores)[0], np.log(p[best]), rtol=1e-5)
    drawn = array(model.sample(symbols, 4000, seed=0, mask=mask))[0]
    assert (drawn[:, 3] == -1).all()
    seen = (drawn[:, :3, None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(seen, expected, atol=0.035)  # more than four deviations of 4000 draws
    with pytest.raises(ValueError, match="k must be a positive integer, got True"):
        model.k_best(symbols, True)


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"initial": [0.5, 0.6]}, "initial must be a distribution"),
        ({"initial": [1.5, -0.5]}, "initial must be a distribution"),
        ({"transition": [[1.0]]}, r"transition must have shape \(2, 2\)"),
        ({"emission": [0.5, 0.5]}, r"emission must have shape \(2, symbols \+ 1\)"),
        ({"initial": ["a", "b"]}, "initial must be a tensor of numbers"),
        ({"initial": [0.5, 0.5j]}, "initial must"),
        ({"emission": [[np.nan, 0.5], [0.5, 0.5]]}, "emission must be a distribution"),
    ],
)
def test_rows_that_are_no_distributions_are_refused(changed, message):
    arguments = {"initial": WEATHER.initial, "transition": WEATHER.transition, "emission": WEATHER.emission}
    with pytest.raises(ValueError, match=message):
        HMM(**{**arguments, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"symbols": SYMBOLS[0]}, r"symbols must be integers \(batch, time\)"),
        ({"symbols": SYMBOLS + 2}, r"symbols must lie in \[-1, 3\]"),
        ({"symbols": SYMBOLS * 1.0}, "symbols must be integers"),
        ({"symbols": SYMBOLS[:, :3]}, "tags must have the shape of symbols"),
        ({"tags": TAGS + 1}, r"tags must lie in \[-1, 1\]"),
        ({"tags": [[0, -1, 1, 1]] * 2}, "mask must be a valid prefix"),
        ({"mask": np.ones((2, 4))}, r"tags must lie in \[0, 2\) at valid steps"),
        ({"mask": [True]}, r"mask must have shape \(2, 4\) to fit symbols"),
        ({"mask": [["False"] * 4] * 2}, "mask must be a tensor of numbers"),
        ({"mask": np.full((2, 4), -1e4)}, "mask must hold True or 1"),
        (
            {"symbols": np.zeros((2, 0), int), "tags": np.zeros((2, 0), int)},
            "symbols must have shape .* none of them 0",
        ),
        ({"symbols": None}, "symbols must be a tensor of numbers, got None"),
        ({"tags": None}, "tags must be a tensor of numbers, got None"),
        ({"symbols": [["a", "b"]]}, "symbols must be a tensor of numbers"),
        ({"tags": [[0, 1], [0]]}, "tags must be a rectangular array of numbers"),
        ({"symbols": np.ma.masked_equal(SYMBOLS, 0)}, "symbols must be an array without masked entries"),
        ({"symbol_count": True}, "symbol_count must be a positive integer, got True"),
        ({"smoothing": -1}, "smoothing must not be negative"),
        ({"emission_smoothing": math.inf}, "emission_smoothing must be"),
        ({"symbol_count": 0}, "symbol_count must be"),
        ({"tag_count": 2.0}, "tag_count must be"),
    ],
)
def test_what_cannot_be_counted_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        HMM.fit(**{"symbols": SYMBOLS, "tags": TAGS, "symbol_count": 3, "tag_count": 2, **changed})


def test_a_symbol_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"symbols must lie in \[-1, 3\]"):
        WEATHER.decode([[4]])
