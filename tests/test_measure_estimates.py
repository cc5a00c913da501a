"""Truths about certainty: intervals of means, medians and proportions, and estimates."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from lib.workbench.measure import Estimate, holm, interval, median_interval, wilson


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
        ((-0.02, -0.56, 0.52), "0.0 [-0.6, 0.5]"),
        ((-0.0314, -0.0621, -0.0007), "-0.031 [-0.062, -0.001]"),
        ((0.03, 0.004, 0.06), "0.030 [0.004, 0.060]"),
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


# --- p-values, and several at once ------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [2.0, 3.5, 4.0, 7.0])
def test_the_p_value_of_a_mean_is_students(edge):
    x = np.random.default_rng(1).normal(3, 2, 9)
    assert Estimate.from_samples(x).p_value(edge) == pytest.approx(
        scipy.stats.ttest_1samp(x, edge).pvalue, rel=1e-4
    )


@pytest.mark.parametrize("edge", [0.05, 0.2, 0.4, 0.8])
def test_the_p_value_of_a_proportion_is_that_of_the_score_test(edge):
    z = (0.3 - edge) / math.sqrt(edge * (1 - edge) / 40)
    assert Estimate.from_count(12, 40).p_value(edge) == pytest.approx(
        2 * scipy.stats.norm.sf(abs(z)), rel=1e-4, abs=1e-9
    )


def test_the_p_value_of_a_median_is_that_of_the_sign_test():
    x = np.random.default_rng(5).exponential(1, 21)
    estimate = Estimate(float(np.median(x)), *median_interval(x), functools.partial(median_interval, x))
    for edge in (0.1, 0.4, 1.5, 9.0):
        test = scipy.stats.binomtest(int(np.sum(x > edge)), 21)
        assert estimate.p_value(edge) == pytest.approx(test.pvalue, rel=1e-4)


@given(st.floats(-5, 5), st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-20, 20))
def test_an_interval_leaves_out_an_edge_just_where_p_is_below_a_twentieth(value, below, above, edge):
    estimate = Estimate(value, value - below, value + above)
    assume(min(abs(edge - estimate.low), abs(edge - estimate.high)) > 1e-3)
    assert (estimate.p_value(edge) < 0.05) == (not estimate.low <= edge <= estimate.high)
    side = below if edge < value else above
    z = abs(edge - value) / side * scipy.stats.norm.ppf(0.975)
    assert estimate.p_value(edge) == pytest.approx(2 * scipy.stats.norm.sf(z), rel=1e-4, abs=1e-9)


def test_an_exact_value_is_never_due_to_chance():
    assert (Estimate.exact(2).p_value(2), Estimate.exact(2).p_value(3)) == (1, 0)


def test_a_function_of_an_estimate_keeps_its_p_values():
    estimate = Estimate.from_samples([2.0, 2.5, 2.2, 2.9, 2.4])
    inverse = estimate.map(lambda x: 1 / x)
    assert (inverse.low, inverse.high) == (1 / estimate.high, 1 / estimate.low)
    for edge in (1.8, 2.1, 3.0):
        assert inverse.p_value(1 / edge) == pytest.approx(estimate.p_value(edge), rel=1e-4)


def closed(p_values, alpha):
    """Holm's procedure by its definition as a closed test: rejected is what Bonferroni rejects in every company."""
    indices = range(len(p_values))
    subsets = [set(some) for k in indices for some in itertools.combinations(indices, k + 1)]
    return [
        all(min(p_values[j] for j in some) <= alpha / len(some) for some in subsets if i in some) for i in indices
    ]


@given(st.lists(st.sampled_from([0.0, 0.001, 0.006, 0.01, 0.0125, 0.02, 0.024, 0.04, 0.05, 0.3, 1.0]), max_size=7))
def test_holms_correction_is_the_closed_test_of_bonferroni(p_values):
    assert holm(p_values, 0.05) == closed(p_values, 0.05)


def test_holms_correction_lets_at_most_one_family_in_twenty_err():
    p = np.random.default_rng(6).uniform(0, 1, (4000, 5))
    assert np.mean([any(holm([*row])) for row in p]) == pytest.approx(1 - 0.99**5, abs=4 * math.sqrt(0.05 / 4000))


@pytest.mark.parametrize(("p_values", "alpha"), [([-0.1], 0.05), ([1.1], 0.05), ([math.nan], 0.05), ([0.1], 1)])
def test_what_is_no_probability_is_refused(p_values, alpha):
    with pytest.raises(ValueError, match="expected"):
        holm(p_values, alpha)
