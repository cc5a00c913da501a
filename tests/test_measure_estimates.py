"""Truths about certainty: intervals of means, medians and proportions, and estimates."""

import functools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from lib.workbench.measure import Estimate, interval, median_interval, wilson


def test_the_interval_of_the_mean_is_students():
    x = np.random.default_rng(1).normal(3, 2, 9)
    expected = scipy.stats.t.interval(0.9, 8, x.mean(), scipy.stats.sem(x))
    assert interval(x, 0.9) == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_the_mean_covers_the_mean_as_often_as_it_says():
    samples = np.random.default_rng(2).normal(1, 3, (4000, 4))
    covered = np.mean([low <= 1 <= high for low, high in map(interval, samples)])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_equal_samples_have_an_interval_of_no_width():
    assert interval([2.0, 2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (8, 1), (9, 2), (15, 4), (40, 14)])
def test_the_interval_of_the_median_is_the_narrowest_pair_of_order_statistics_that_suffices(n, k):
    def coverage(k):
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    assert coverage(k) >= 0.95 > coverage(k + 1)
    samples = np.random.default_rng(3).permutation(np.arange(1.0, n + 1))
    assert median_interval(samples) == (k, n + 1 - k)


def test_the_interval_of_the_median_covers_the_median_of_a_skewed_law_as_often_as_it_says():
    samples = np.random.default_rng(4).exponential(1, (4000, 12))
    covered = np.mean([low <= math.log(2) <= high for low, high in map(median_interval, samples)])
    assert covered == pytest.approx(1 - 2 * (1 + 12 + 66) / 2**12, abs=4 * math.sqrt(0.04 / 4000))


def test_five_samples_are_too_few_for_the_interval_of_a_median():
    with pytest.raises(ValueError, match="samples: 5 are too few"):
        median_interval([1.0, 2.0, 3.0, 4.0, 5.0])


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.5, 0.999))
def test_the_interval_of_a_proportion_is_wilsons(trials, part, confidence):
    successes = round(part * trials)
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx(
        (expected.low, expected.high), rel=1e-9, abs=1e-12
    )


def test_the_interval_of_a_proportion_covers_it_as_often_as_it_says_on_average():
    n, p = 30, np.linspace(0.05, 0.95, 181)
    ends = np.array([wilson(k, n) for k in range(n + 1)])
    covers = (ends[:, :1] <= p) & (p <= ends[:, 1:])
    coverage = np.sum(covers * scipy.stats.binom.pmf(np.arange(n + 1)[:, None], n, p), axis=0)
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)


@given(st.integers(1, 10**9))
def test_no_success_and_no_failure_end_exactly_at_0_and_at_1(trials):
    assert wilson(0, trials)[0] == 0.0
    assert wilson(trials, trials)[1] == 1.0
    assert wilson(0, trials)[1] == pytest.approx(1 - wilson(trials, trials)[0], abs=1e-12)


@pytest.mark.parametrize("samples", [[], [1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
@pytest.mark.parametrize("of", [interval, median_interval, Estimate.from_samples])
def test_samples_that_give_no_interval_are_refused(of, samples):
    with pytest.raises(ValueError, match="samples: got"):
        of(samples)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 95, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence):
    for of in (functools.partial(interval, [1, 2]), functools.partial(wilson, 1, 2)):
        with pytest.raises(ValueError, match="confidence: got"):
            of(confidence=confidence)
    with pytest.raises(ValueError, match="confidence: got"):
        median_interval(range(9), confidence)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2), (math.nan, 2)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes, trials: got"):
        wilson(successes, trials)


def test_an_estimate_is_a_value_within_its_interval():
    assert Estimate.from_samples([1.0, 2.0, 3.0]) == Estimate(2.0, *interval([1.0, 2.0, 3.0]))
    assert Estimate.from_count(3, 4) == Estimate(0.75, *wilson(3, 4))
    assert Estimate.exact(7) == Estimate(7, 7, 7)
    for numbers in [(1, 2, 3), (4, 2, 3), (math.nan, 0, 1), (0, math.nan, 1)]:
        with pytest.raises(ValueError, match="low ≤ value ≤ high"):
            Estimate(*numbers)


def test_an_estimate_cannot_be_changed():
    with pytest.raises(AttributeError):
        Estimate.exact(1).value = 2


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.123, 0.120, 0.126), "0.123 [0.120, 0.126]"),
        ((0.12345, 0.12341, 0.12349), "0.12345 [0.12341, 0.12349]"),
        ((1234.5, 1200.2, 1268.8), "1234 [1200, 1269]"),
        ((-2.0, -2.6, -1.4), "-2.0 [-2.6, -1.4]"),
        ((0.0, -0.03, 0.03), "0.00 [-0.03, 0.03]"),
        ((3.2e-7, 3.1e-7, 3.3e-7), "3.20e-07 [3.10e-07, 3.30e-07]"),
        ((2.5e9, 1e9, 4e9), "2.5e+09 [1.0e+09, 4.0e+09]"),
        ((1.0, 0.5, math.inf), "1 [0.5, inf]"),
        ((0.5, 0.5, 0.5), "0.5"),
        ((1 / 3, 1 / 3, 1 / 3), "0.333333"),
        ((12, 12, 12), "12"),
    ],
)
def test_an_estimate_prints_the_digits_that_its_interval_supports(numbers, text):
    assert str(Estimate(*numbers)) == text
    assert f"{Estimate(*numbers)}" == text


def test_a_format_applies_to_all_three_numbers():
    assert f"{Estimate(0.123, 0.12, 0.126):.1%}" == "12.3% [12.0%, 12.6%]"
    assert f"{Estimate.exact(0.5):.3f}" == "0.500"


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e9), st.floats(0, 1))
def test_the_printed_ends_of_an_interval_always_differ_and_are_near(low, width, part):
    high = low + width
    value = min(low + part * width, high)
    assume(width > 1e-12 * abs(low))
    printed = str(Estimate(value, low, high)).replace("[", "").replace("]", "").replace(",", "").split()
    shown_value, shown_low, shown_high = map(float, printed)
    assert shown_low < shown_high
    for shown, exact in [(shown_value, value), (shown_low, low), (shown_high, high)]:
        assert abs(shown - exact) <= 0.11 * (high - low)
