"""What is true of lib.angles. The reference is the density of article 7076, integrated by mpmath with 50 digits."""

import pickle
import subprocess
import sys
from math import comb

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist
from search import examples

from lib.angles import (
    angle,
    angle_between,
    cosine,
    dimension_bound,
    dimension_for,
    largest_cosine,
    log_directions_within,
    pairwise_angles,
)
from lib.angles.dimensions import _distortion_probability

DIMENSIONS = [2, 3, 4, 10, 101, 999, 18_524, 1_000_000]
MASSES = [0.5, 0.3, 1e-9, 1e-44, 1e-200, 1e-300]
BAD_INTEGERS = [1, 0, -3, 2.5, 3.0, float("nan"), "3", None, True, [2, 1], [2.0, 3.0], [[2], [2, 3]], 1j]

# The table of the article.
VARIANCES = {3: 0.467401, 10: 0.110661, 20: 0.0525832, 50: 0.0204053, 100: 0.0101007, 200: 0.00502508}
VARIANCES |= {1000: 0.001001}

dimensions = st.one_of(st.integers(2, 50), st.integers(2, 10**6))
probabilities = st.floats(1e-12, 1 - 1e-12)


@pytest.fixture(autouse=True)
def fifty_digits():
    with mp.workdps(50):
        yield


def constant(n):
    return mp.gamma(mp.mpf(n) / 2) / mp.gamma(mp.mpf(n - 1) / 2) / mp.sqrt(mp.pi)


def density(n, theta):
    return constant(n) * mp.sin(theta) ** (n - 2)


def mass_below(n, theta):
    """Integral of the density from 0 to theta <= π/2, in units of the width over which it falls."""
    theta = mp.mpf(theta)
    if n == 2:
        return theta / mp.pi
    width = min(abs(mp.tan(theta)) / (n - 2), 1 / mp.sqrt(n - 2))
    cuts = [u for u in (0, 1, 3, 8, 20, 50, 200) if u < theta / width] + [theta / width]
    ratio = mp.quad(lambda u: (mp.sin(theta - u * width) / mp.sin(theta)) ** (n - 2), cuts, method="gauss-legendre")
    return density(n, theta) * width * ratio


def error(got, exact):
    """Relative error, in mpmath so that no digit is lost in comparing."""
    return abs(float(mp.mpf(float(got)) / exact - 1))


# The law of the angle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", DIMENSIONS)
def test_the_angle_has_the_density_and_both_tails_of_the_article(n):
    law = angle(n)
    for mass in MASSES:
        theta = law.ppf(mass)
        below = mass_below(n, theta)
        assert error(law.cdf(theta), below) < 1e-10
        assert error(law.logcdf(theta), mp.log(below)) < 1e-10
        assert error(law.sf(theta), 1 - below) < 1e-10
        assert error(law.logsf(theta), mp.log1p(-below)) < 1e-10
        assert error(mass, below) < 1e-10  # so the quantile is right as well
        assert error(law.pdf(theta), density(n, mp.mpf(theta))) < 1e-10
        if n > 2:
            assert error(law.logpdf(theta), mp.log(density(n, mp.mpf(theta)))) < 1e-10


@pytest.mark.parametrize("n", DIMENSIONS)
def test_the_upper_tail_of_the_angle_keeps_its_digits(n):
    law = angle(n)
    for mass in MASSES:
        theta = law.isf(mass)
        if theta > 3.1415:  # the float π falls short of π: measure from the true one
            continue
        above = mass_below(n, mp.pi - mp.mpf(theta))
        assert error(law.sf(theta), above) < 1e-10
        assert error(law.logsf(theta), mp.log(above)) < 1e-10
        assert error(mass, above) < 1e-10
        assert law.isf(mass) == pytest.approx(np.pi - law.ppf(mass), rel=1e-15)


@pytest.mark.parametrize(("n", "theta"), [(10**6, 1.4), (10**6, 1e-3), (10_000, 1.0), (500, 1e-9), (3, 1e-250)])
def test_logarithms_survive_where_the_probability_underflows(n, theta):
    exact = mass_below(n, theta)
    assert float(exact) == 0
    assert error(angle(n).logcdf(theta), mp.log(exact)) < 1e-12
    assert error(angle(n).logpdf(theta), mp.log(density(n, mp.mpf(theta)))) < 1e-12


@pytest.mark.parametrize("n", [2, 3, 10, 20, 99, 100, 101, 1000, 18_524, 10**6])
def test_moments_and_entropy_are_the_closed_forms(n):
    law, half = angle(n), mp.mpf(n) / 2
    mean, variance, skewness, kurtosis = law.stats("mvsk")
    assert mean == np.pi / 2
    assert error(variance, mp.psi(1, half) / 2) < 1e-13
    assert skewness == 0
    assert error(kurtosis, -mp.psi(3, half) / (2 * mp.psi(1, half) ** 2)) < 1e-13
    entropy = (half - 1) * (mp.psi(0, half) - mp.psi(0, half - 0.5)) - mp.log(constant(n))
    assert error(law.entropy(), entropy) < 1e-10


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_moments_and_entropy_are_integrals_of_the_density(n):
    law = angle(n)

    def expect(f):
        return 2 * mp.quad(lambda theta: f(theta) * density(n, theta), mp.linspace(0, mp.pi / 2, 4))  # symmetric

    variance = expect(lambda theta: (theta - mp.pi / 2) ** 2)
    assert error(law.var(), variance) < 1e-12
    assert error(law.stats("k"), expect(lambda theta: (theta - mp.pi / 2) ** 4) / variance**2 - 3) < 1e-12
    assert error(law.entropy(), expect(lambda theta: -mp.log(density(n, theta)))) < 1e-12


@pytest.mark.parametrize(("n", "variance"), VARIANCES.items())
def test_the_variances_of_the_article_hold_to_the_printed_digits(n, variance):
    assert f"{angle(n).var():.6g}" == f"{variance:.6g}"


def test_the_variance_obeys_its_recursion_and_expansion():
    n = np.arange(4, 2000)
    np.testing.assert_allclose(angle(n).var(), angle(n - 2).var() - 2 / (n - 2) ** 2, rtol=1e-9)
    n = np.arange(100, 2000)
    np.testing.assert_allclose(angle(n).var(), 1 / n + 1 / n**2 + 2 / (3 * n**3), rtol=1e-8)


def test_in_the_plane_the_angle_is_uniform():
    theta = np.linspace(0, np.pi, 41)
    np.testing.assert_allclose(angle(2).pdf(theta), 1 / np.pi, rtol=1e-15)
    near = np.pi / 2 + np.outer([-1, 1], np.logspace(-14, -1, 60))
    for at in theta, near:
        np.testing.assert_allclose(angle(2).cdf(at), at / np.pi, rtol=1e-15)
        np.testing.assert_allclose(angle(2).ppf(at / np.pi), at, rtol=1e-15)
    assert angle(2).ppf(1e-300) == pytest.approx(np.pi * 1e-300, rel=1e-12)
    assert angle(2).cdf(1e-300) == pytest.approx(1e-300 / np.pi, rel=1e-12)
    assert angle(2).entropy() == pytest.approx(np.log(np.pi))


@examples(40)
@given(n=dimensions, q=probabilities)
def test_quantiles_undo_probabilities(n, q):
    for law in angle(n), cosine(n):
        assert law.cdf(law.ppf(q)) == pytest.approx(q, rel=1e-10)
        assert law.sf(law.isf(q)) == pytest.approx(q, rel=1e-10) or law.isf(q) > 0.9 * law.support()[1]


@examples(40)
@given(n=dimensions, q=probabilities)
def test_angle_and_cosine_are_one_law_symmetric_about_the_right_angle(n, q):
    theta = angle(n).ppf(q)
    assert angle(n).sf(np.pi - theta) == pytest.approx(q, rel=1e-6)
    assert angle(n).cdf(theta) + angle(n).sf(theta) == pytest.approx(1, rel=1e-14)
    assert cosine(n).isf(q) == pytest.approx(np.cos(theta), rel=1e-9, abs=1e-15)
    assert cosine(n).ppf(q) == -cosine(n).isf(q)
    if 0.01 < q < 0.99:
        assert cosine(n).pdf(np.cos(theta)) * np.sin(theta) == pytest.approx(angle(n).pdf(theta), rel=1e-9)


def test_quantiles_undo_probabilities_in_far_tails():
    rng = np.random.default_rng(0)
    n, q = rng.integers(2, 4000, 4000), 10 ** -rng.uniform(1, 307, 4000)
    np.testing.assert_allclose(angle(n).cdf(angle(n).ppf(q)), q, rtol=3e-12)


def test_high_dimension_costs_no_digits():
    for n in 10**6 - np.arange(20):
        theta = np.pi / 2 - 1e-4 * (1 + n % 7)
        assert error(angle(n).pdf(theta), density(int(n), mp.mpf(theta))) < 1e-12
        half = mp.mpf(int(n)) / 2
        entropy = (half - 1) * (mp.psi(0, half) - mp.psi(0, half - 0.5)) - mp.log(constant(int(n)))
        assert error(angle(n).entropy(), entropy) < 1e-12


def test_support_ends():
    for law in angle([2, 3, 9]), cosine([2, 3, 9]):
        a, b = law.support()
        np.testing.assert_array_equal([law.cdf(a), law.sf(b), law.ppf(0) - a, law.isf(0) - b], np.zeros((4, 3)))
        np.testing.assert_array_equal(law.pdf(np.nextafter(b, 9)), 0)
        np.testing.assert_array_equal(law.logcdf(a), -np.inf)
    np.testing.assert_allclose(angle([2, 3, 9]).pdf(0), [1 / np.pi, 0, 0])
    np.testing.assert_allclose(cosine([2, 3, 9]).pdf([[-1], [1]]), [[np.inf, 0.5, 0]] * 2, rtol=1e-15)


# The law of the cosine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", DIMENSIONS)
def test_the_cosine_keeps_its_digits_in_both_tails(n):
    law = cosine(n)
    for mass in MASSES:
        x = law.isf(mass)
        if x == 1:  # the tail lies within the last gap of the floating-point grid
            continue
        exact = mp.mpf(float(x))
        above = mass_below(n, mp.acos(exact))
        for tail, log_tail in [(law.sf(x), law.logsf(x)), (law.cdf(-x), law.logcdf(-x))]:
            assert error(tail, above) < 1e-10
            assert error(log_tail, mp.log(above)) < 1e-10
        assert error(law.cdf(x), 1 - above) < 1e-10
        assert error(law.pdf(x), constant(n) * (1 - exact**2) ** (mp.mpf(n - 3) / 2)) < 1e-10
        if x < 0.9:
            assert error(mass, above) < 1e-10


@pytest.mark.parametrize("n", [2, 3, 10, 100, 10**6])
def test_the_square_of_the_cosine_is_beta(n):
    x = cosine(n).ppf([0.6, 0.8, 0.95])
    square = stats.beta(0.5, (n - 1) / 2)
    np.testing.assert_allclose(cosine(n).cdf(x) - cosine(n).cdf(-x), square.cdf(x**2), rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 4, 10, 99, 100, 1000, 10**6])
def test_moments_and_entropy_of_the_cosine(n):
    law, half = cosine(n), mp.mpf(n) / 2
    assert [float(m) for m in law.stats("mvsk")] == [0, 1 / n, 0, -6 / (n + 2)]
    entropy = (half - 1.5) * (mp.psi(0, half) - mp.psi(0, half - 0.5)) - mp.log(constant(n))
    assert error(law.entropy(), entropy) < 1e-10


def test_the_cosine_is_arcsine_in_the_plane_and_uniform_in_space():
    x = np.linspace(-0.999, 0.999, 41)
    np.testing.assert_allclose(cosine(2).pdf(x), 1 / (np.pi * np.sqrt(1 - x**2)), rtol=1e-12)
    np.testing.assert_allclose(cosine(2).cdf(x), 0.5 + np.arcsin(x) / np.pi, rtol=1e-12)
    np.testing.assert_allclose(cosine(3).pdf(x), 0.5, rtol=1e-15)
    np.testing.assert_allclose(cosine(3).cdf(x), (1 + x) / 2, rtol=1e-12)
    assert cosine(2).entropy() == pytest.approx(np.log(np.pi / 2))
    assert cosine(3).entropy() == pytest.approx(np.log(2))


# Samples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [angle, cosine])
@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_samples_follow_the_law(law, n):
    sample = law(n).rvs(20_000, random_state=7)
    assert stats.kstest(sample, law(n).cdf).pvalue > 1e-3
    assert stats.kstest(sample, law(2 * n).cdf).pvalue < 1e-9  # the test can tell laws apart


@pytest.mark.parametrize("n", [2, 3, 16])
def test_gaussian_vectors_meet_at_these_angles(n):
    x, y = np.random.default_rng(11).standard_normal((2, 50_000, n))
    assert stats.kstest(angle_between(x, y), angle(n).cdf).pvalue > 1e-3


def test_the_law_needs_isotropy():
    x, y = np.random.default_rng(11).random((2, 2000, 16))  # no coordinate is negative
    assert stats.kstest(angle_between(x, y), angle(16).cdf).pvalue < 1e-9


@pytest.mark.parametrize("law", [angle(9), cosine(9), largest_cosine(9, 5)])
def test_random_state_is_honoured(law):
    draw = law.rvs(4, random_state=3)
    np.testing.assert_array_equal(draw, law.rvs(4, random_state=3))
    assert (draw != law.rvs(4, random_state=4)).all()
    generator = np.random.default_rng(3)
    assert (law.rvs(4, random_state=generator) != law.rvs(4, random_state=generator)).all()
    assert isinstance(law.rvs(random_state=3), float)


def test_laws_broadcast_over_dimensions():
    n = np.array([2, 3, 10])
    assert angle(n).rvs((500, 3), random_state=0).shape == (500, 3)
    np.testing.assert_allclose(angle(n).rvs((5000, 3), random_state=0).std(0), angle(n).std(), rtol=0.05)
    theta = np.linspace(0.1, 3, 4)[:, None]
    table = angle(n).logsf(theta)
    assert table.shape == (4, 3)
    for column, dimension in zip(table.T, n, strict=True):
        np.testing.assert_array_equal(column, angle(dimension).logsf(theta[:, 0]))
    np.testing.assert_allclose(cosine(n).var(), 1 / n)
    np.testing.assert_allclose(cosine(n).entropy(), [cosine(k).entropy() for k in (2, 3, 10)])
    assert largest_cosine(n, [[2], [9]]).median().shape == (2, 3)


def test_a_law_is_a_scipy_distribution():
    law = angle(np.uint8(10))
    assert isinstance(law, stats.distributions.rv_frozen)
    assert pickle.loads(pickle.dumps(law)).cdf(1.0) == law.cdf(1.0)
    assert law.expect(np.cos) == pytest.approx(0, abs=1e-9)
    assert law.median() == np.pi / 2
    np.testing.assert_allclose(law.interval(0.9), [law.ppf(0.05), law.ppf(0.95)])


@pytest.mark.parametrize("bad", BAD_INTEGERS)
def test_a_bad_dimension_is_refused_by_name(bad):
    for call in angle, cosine, lambda n: largest_cosine(n, 3), lambda n: log_directions_within(n, 0.1):
        with pytest.raises(ValueError, match=r"^n must be an integer >= 2 or an array of them, got "):
            call(bad)
    with pytest.raises(ValueError, match=r"^count must be an integer >= 2"):
        largest_cosine(3, bad)


# The worst pair ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_two_vectors_have_one_pair(n):
    law, x = largest_cosine(n, 2), np.array([1e-9, 0.01, 0.3, 0.9])
    np.testing.assert_allclose(law.sf(x), 2 * cosine(n).sf(x), rtol=1e-12)
    np.testing.assert_allclose(law.pdf(x), 2 * cosine(n).pdf(x), rtol=1e-12)
    np.testing.assert_allclose(law.cdf(x[0]), 2 * x[0] * cosine(n).pdf(0), rtol=1e-12)
    assert law.pdf(0) == pytest.approx(2 * cosine(n).pdf(0))
    assert largest_cosine(n, 3).pdf(0) == 0
    mean = constant(n) * 2 / (n - 1)  # E|cos Θ|
    assert error(law.mean(), mean) < 1e-8


@pytest.mark.parametrize("n", [2, 3, 64, 10**6])
@pytest.mark.parametrize("count", [2, 3, 100, 10**6])
def test_the_worst_pair_is_the_product_law(n, count):
    law, pairs = largest_cosine(n, count), comb(count, 2)
    for q in 1e-9, 0.01, 0.5, 0.99:
        x = law.ppf(q)
        if x > 0.999:  # few dimensions: the grid of floats is too coarse to hit the quantile
            continue
        assert law.cdf(x) == pytest.approx(q, rel=1e-9)
        within = 1 - 2 * mass_below(n, mp.acos(mp.mpf(float(x))))
        assert error(law.cdf(x), within**pairs) < 1e-9
        slope = pairs * within ** (pairs - 1) * 2 * constant(n) * (1 - mp.mpf(float(x)) ** 2) ** (mp.mpf(n - 3) / 2)
        assert error(law.pdf(x), slope) < 1e-9
    for q in 0.3, 1e-9, 1e-100:
        x = law.isf(q)
        if x < 0.999:
            assert law.sf(x) == pytest.approx(q, rel=1e-9)


def test_the_worst_pair_at_the_ends():
    law = largest_cosine([2, 9], 1000)
    np.testing.assert_array_equal([law.cdf(0), law.sf(1), law.ppf(0), law.isf(0) - 1], np.zeros((4, 2)))
    assert (law.isf(5e-324) > 0.9).all()
    assert (law.isf(5e-324) <= 1).all()
    assert (law.ppf(5e-324) > 0).all()


def test_its_density_is_the_slope_of_its_cdf_and_its_mean_the_integral_of_its_sf():
    law = largest_cosine(64, 1000)
    x, h = law.ppf([0.1, 0.5, 0.9]), 1e-5
    np.testing.assert_allclose((law.cdf(x + h) - law.cdf(x - h)) / (2 * h), law.pdf(x), rtol=1e-4)
    grid = np.linspace(0, 1, 20_001)
    assert law.mean() == pytest.approx(np.trapezoid(law.sf(grid), grid), rel=1e-6)


@pytest.mark.parametrize(("n", "count"), [(3, 100), (16, 40), (64, 100)])
def test_the_worst_pair_of_gaussian_vectors_follows_the_law(n, count):
    rng = np.random.default_rng(5)
    worst = [
        np.abs(1 - pdist(rng.standard_normal((count, n)), "cosine")).max()  # an independent way to the cosines
        for _ in range(500)
    ]
    law = largest_cosine(n, count)
    assert stats.kstest(worst, law.cdf).pvalue > 1e-3
    assert np.mean(worst) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(500))
    assert stats.kstest(law.rvs(500, random_state=5), law.cdf).pvalue > 1e-3


def test_three_lines_in_the_plane_break_the_independence_of_pairs():
    triples = np.random.default_rng(0).standard_normal((2000, 3, 2))
    worst = [np.abs(np.cos(pairwise_angles(triple))).max() for triple in triples]
    assert min(worst) >= 0.5
    assert largest_cosine(2, 3).cdf(0.5) == pytest.approx(1 / 27)


def test_boole_and_bonferroni_enclose_the_tail():
    rng = np.random.default_rng(1)
    n, count, x = 8, 4, 0.85
    p = comb(count, 2) * 2 * cosine(n).sf(x)
    assert p - p**2 / 2 <= largest_cosine(n, count).sf(x) <= p
    vectors = rng.standard_normal((100_000, count, n))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    gram = np.abs(vectors @ vectors.swapaxes(1, 2))[:, *np.triu_indices(count, 1)]
    observed = (gram.max(axis=1) > x).mean()
    noise = 4 * np.sqrt(p / len(vectors))
    assert p - p**2 / 2 - noise < observed < p + noise


# Every method at any dimension ---------------------------------------------------------------------------------

HUGE = [10**6, 10**9, 10**12, 10**15, 2**63 + 5]


@pytest.mark.parametrize("n", [2, 3, 10, 1000, *HUGE])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6, 7, 8, 20])
def test_moments_of_the_cosine_are_those_of_beta(n, order):
    half = mp.mpf(n) / 2
    exact = mp.gammaprod([mp.mpf(order + 1) / 2, half], [mp.mpf(1) / 2, half + mp.mpf(order) / 2])
    if order % 2:
        assert cosine(n).moment(order) == 0
    else:
        assert error(cosine(n).moment(order), exact) < 1e-13


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
@pytest.mark.parametrize("order", [1, 4, 5, 6, 9, 20])
def test_moments_of_the_angle_are_integrals_of_its_density(n, order):
    cuts = [
        0,
        *(mp.pi / 2 + s * k / mp.sqrt(n) for k, s in ((4, -1), (1, -1), (1, 1), (4, 1)) if k**2 < 2 * n),
        mp.pi,
    ]
    exact = mp.quad(lambda theta: theta**order * density(n, theta), cuts)
    assert error(angle(n).moment(order), exact) < 1e-12


@pytest.mark.parametrize("n", HUGE)
def test_moments_of_the_angle_tend_to_those_of_a_normal_law(n):
    # E Θ⁶ by the second and fourth moment about π/2; the sixth is below 1e-17 of it.
    half, v = mp.pi / 2, mp.psi(1, mp.mpf(n) / 2) / 2
    exact = half**6 + 15 * half**4 * v + 15 * half**2 * (3 * v**2 - mp.psi(3, mp.mpf(n) / 2) / 8) + 15 * v**3
    assert error(angle(n).moment(6), exact) < 1e-13


@pytest.mark.parametrize("n", [2, 3, 1000, *HUGE])
def test_expectations_meet_the_peak(n):
    right = np.pi / 2
    assert angle(n).expect() == pytest.approx(right, rel=1e-12)
    assert angle(n).expect(lambda theta: (theta - right) ** 2) == pytest.approx(
        angle(n).var(), rel=1e-9, abs=1e-17 * right
    )
    assert cosine(n).expect(lambda c: c**4) == pytest.approx(cosine(n).moment(4), rel=1e-9)
    assert abs(cosine(n).expect()) < 1e-12 * cosine(n).std()
    assert cosine(n).expect(lambda _: 1.0, lb=0.0) == pytest.approx(0.5, rel=1e-9)
    inner = cosine(n).ppf(0.4), cosine(n).ppf(0.9)
    assert cosine(n).expect(lambda _: 1.0, lb=inner[0], ub=inner[1]) == pytest.approx(0.5, rel=1e-9)
    tail = cosine(n).isf(0.01)
    assert cosine(n).expect(lambda c: c, lb=tail, conditional=True) == pytest.approx(
        # ∫ η p from t: the density times (1 − t²)/(n − 1), over the tail.
        cosine(n).pdf(tail) * (1 - tail**2) / (n - 1) / 0.01,
        rel=1e-6,
    )
    assert cosine(n).expect(lambda _: 3.0, lb=inner[0], ub=inner[1], conditional=True) == pytest.approx(3)


@pytest.mark.parametrize("count", [2, 3, 100, 10**5, 10**9, 2**63 + 5])
def test_in_space_the_worst_pair_is_the_largest_of_uniform_numbers(count):
    law, pairs = largest_cosine(3, count), mp.mpf(count) * (count - 1) / 2  # Beta(M, 1)
    mean, variance, skewness, kurtosis = law.stats("mvsk")
    assert error(mean, pairs / (pairs + 1)) < 1e-13
    assert error(variance, pairs / (pairs + 1) ** 2 / (pairs + 2)) < 1e-12
    assert skewness == pytest.approx(float(2 * (1 - pairs) / (pairs + 3) * mp.sqrt((pairs + 2) / pairs)), abs=1e-11)
    top = 6 * (pairs**3 - pairs**2 - 6 * pairs + 2)
    assert kurtosis == pytest.approx(float(top / (pairs * (pairs + 3) * (pairs + 4))), abs=1e-11)
    assert law.moment(7) == pytest.approx(float(pairs / (pairs + 7)), rel=1e-12)
    assert law.entropy() == pytest.approx(float(1 - 1 / pairs - mp.log(pairs)), rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("count", [3, 1000, 10**6])
def test_in_the_plane_the_worst_pair_is_a_sine(count):
    # X = sin(πV/2) with V ~ Beta(M, 1), so that 1 − X = 1 − cos(πD/2) with D = 1 − V.
    law, pairs = largest_cosine(2, count), mp.mpf(count) * (count - 1) / 2
    cuts = [0, *(k / pairs for k in (1, 4, 16, 64) if k < pairs), 1]

    def expect(f):
        return mp.quad(lambda d: f(1 - mp.cos(mp.pi * d / 2)) * pairs * (1 - d) ** (pairs - 1), cuts)

    gap = expect(lambda g: g)
    assert error(law.mean(), 1 - gap) < 1e-13
    assert error(law.var(), expect(lambda g: (g - gap) ** 2)) < 1e-9
    assert law.moment(6) == pytest.approx(float(expect(lambda g: (1 - g) ** 6)), rel=1e-10)


@pytest.mark.parametrize(("n", "count"), [(10, 5), (10**5, 10**5), (10**9, 100)])
def test_the_worst_pair_in_high_dimension(n, count):
    law = largest_cosine(n, count)
    x = np.linspace(law.ppf(1e-17), law.isf(1e-17), 200_001)  # of a density that other tests hold to mpmath
    p = law.pdf(x)

    def expect(f):
        return np.trapezoid(f * p, x)

    assert law.mean() == pytest.approx(expect(x), rel=1e-9)
    assert law.var() == pytest.approx(expect((x - law.mean()) ** 2), rel=1e-8)
    assert law.stats("s") == pytest.approx(expect((x - law.mean()) ** 3) / law.std() ** 3, rel=1e-7)
    assert law.stats("k") + 3 == pytest.approx(expect((x - law.mean()) ** 4) / law.var() ** 2, rel=1e-7)
    assert law.entropy() == pytest.approx(-expect(np.log(np.maximum(p, 1e-300))), rel=1e-9)
    assert law.expect(lambda x: x**2) == pytest.approx(expect(x**2), rel=1e-8)
    assert law.interval(0.9) == (law.ppf(0.05), law.isf(0.05)) or law.interval(0.9) == pytest.approx(
        (law.ppf(0.05), law.isf(0.05)), rel=1e-12
    )


def test_the_entropy_of_the_worst_pair_that_a_reviewer_found_wrong():
    assert largest_cosine(10**5, 10**5).entropy() == pytest.approx(-6.0655, abs=1e-4)
    assert cosine(10**6).moment(6) == pytest.approx(1.5e-17, rel=1e-4)


@pytest.mark.parametrize("n", HUGE)
def test_in_any_dimension_the_cosine_tends_to_a_normal_law(n):
    law, scale, z = cosine(n), float(n) ** 0.5, np.array([-3.0, -0.5, 1e-9, 2.0])
    slack = 30 / n + 1e-12  # the next term of the expansion is z⁴/(4n)
    np.testing.assert_allclose(law.sf(z / scale), stats.norm.sf(z), rtol=slack)
    np.testing.assert_allclose(law.cdf(z / scale), stats.norm.cdf(z), rtol=slack)
    np.testing.assert_allclose(law.ppf([0.01, 0.3, 0.9]) * scale, stats.norm.ppf([0.01, 0.3, 0.9]), rtol=slack)
    np.testing.assert_allclose(law.isf([0.01, 1e-200]) * scale, stats.norm.isf([0.01, 1e-200]), rtol=1e3 / n + 1e-9)
    np.testing.assert_allclose(law.logpdf(z / scale) - np.log(scale), stats.norm.logpdf(z), rtol=slack)
    assert law.logsf(40 / scale) == pytest.approx(stats.norm.logsf(40), rel=1e3 / n + 1e-10)
    assert law.entropy() + np.log(scale) == pytest.approx(stats.norm.entropy(), rel=1e-6)
    assert law.stats("mvsk") == pytest.approx((0, 1 / n, 0, -6 / n), rel=1e-5)
    assert angle(n).entropy() == pytest.approx(law.entropy(), rel=1e-6)


def test_the_logarithm_of_the_tail_of_the_worst_pair_does_not_end():
    law = largest_cosine(10_000, 100)
    for x in (0.5, 0.9):
        assert law.sf(x) == 0
        assert law.logsf(x) == pytest.approx(np.log(4950 * 2) + cosine(10_000).logsf(x), rel=1e-12)
    for x in law.isf([0.9, 1e-3, 1e-100]):
        assert law.logsf(x) == pytest.approx(np.log(law.sf(x)), rel=1e-12)


def test_a_table_of_laws_is_their_numbers_one_by_one():
    n, count = np.array([[3], [10]]), np.array([2, 5, 100])
    table = largest_cosine(n, count)
    for ask in (
        lambda law: law.mean(),
        lambda law: law.var(),
        lambda law: law.entropy(),
        lambda law: law.moment(3),
    ):
        alone = [[ask(largest_cosine(int(i), int(j))) for j in count] for (i,) in n]
        np.testing.assert_allclose(ask(table), alone, rtol=1e-9)


@pytest.mark.parametrize("n", [np.uint64(2**63 + 5), 2**63 + 5, 2**200, [2**70, 3]])
def test_dimensions_beyond_64_bits_are_numbers(n):
    assert np.all(angle(n).mean() == np.pi / 2)
    np.testing.assert_allclose(cosine(n).var(), 1 / np.asarray(n, dtype=float))
    np.testing.assert_allclose(angle(n).var(), cosine(n).var(), rtol=0.5)
    assert np.all(np.isfinite(largest_cosine(n, 10).mean()))


@pytest.mark.parametrize("n", [10**400, [10**400, 3], np.ma.masked_array([3, 4], [True, False])])
def test_dimensions_that_no_float_holds_are_refused(n):
    with pytest.raises(ValueError, match=r"^n must be an integer >= 2 or an array of them, got "):
        angle(n)
    assert angle(np.ma.masked_array([3, 4])).var().shape == (2,)


# Angles of given vectors ---------------------------------------------------------------------------------------


def test_known_angles():
    assert angle_between([1, 0], [1, 0]) == 0
    assert angle_between([1, 0], [-3, 0]) == np.pi
    assert angle_between([0, 0, 2], [5, 0, 0]) == np.pi / 2
    assert angle_between([1, 0], [1, 1]) == pytest.approx(np.pi / 4, rel=1e-15)
    assert angle_between([1.0], [-2.0]) == np.pi
    assert isinstance(angle_between([1, 0], [1, 1]), float)


@pytest.mark.parametrize("small", [1e-3, 1e-8, 1e-12, 1e-200])
def test_small_and_flat_angles_keep_their_digits(small):
    x, y = np.array([1.0, 0.0]), np.array([np.cos(small), np.sin(small)])
    assert angle_between(x, y) == pytest.approx(small, rel=1e-12)
    assert np.pi - angle_between(x, -y) == pytest.approx(small, abs=5e-16)
    x, y = np.array([3.0, 4.0]), np.array([3 - 4 * small, 4 + 3 * small])
    assert angle_between(x, y) == pytest.approx(np.arctan(small), abs=3e-16)


@examples(40)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 20), a=st.floats(1e-300, 1e300), b=st.floats(1e-300, 1e300))
def test_angles_ignore_length_and_agree_with_the_arccosine(seed, n, a, b):
    x, y = np.random.default_rng(seed).standard_normal((2, n))
    cosine_of_angle = x @ y / np.sqrt((x @ x) * (y @ y))
    assert np.cos(angle_between(a * x, b * y)) == pytest.approx(cosine_of_angle, abs=1e-14)
    assert angle_between(x, y) == angle_between(y, x)
    assert angle_between(x, -y) == pytest.approx(np.pi - angle_between(x, y), abs=1e-14)


def test_angles_broadcast_along_the_leading_axes():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((4, 1, 6)), rng.standard_normal((5, 6))
    table = angle_between(x, y.astype(np.float32))
    assert table.shape == (4, 5)
    assert table.dtype == np.float64
    np.testing.assert_allclose(table[3, 2], angle_between(x[3, 0], y[2]), rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([], r"at least one coordinate along its last axis, got shape \(0,\)"),
        (np.empty((3, 0)), r"got shape \(3, 0\)"),
        (1.0, r"got shape \(\)"),
        ([0, 0], "zero vector"),
        ([[1, 2], [0, 0]], "zero vector"),
        ([1, float("nan")], "NaN or infinity"),
        ([1, float("inf")], "NaN or infinity"),
        ([1, 1j], "real numbers, got dtype complex128"),
        (["1", "2"], "real numbers, got dtype <U1"),
        (None, "real numbers, got dtype object"),
        ([True, False], "real numbers, got dtype bool"),
        ([[1, 2], [1]], "ragged"),
        (np.ma.masked_array([1, 2], [True, False]), "no masked entries"),
    ],
)
def test_bad_vectors_are_refused_by_name(bad, why):
    with pytest.raises(ValueError, match=rf"^x must .*{why}"):
        angle_between(bad, [1, 2])
    with pytest.raises(ValueError, match=rf"^y must .*{why}"):
        angle_between([1, 2], bad)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^y must have vectors of length 2 like x, got shape \(3,\)"):
        angle_between([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match=r"^y must have vectors of length 3 like x, got shape \(1,\)"):
        angle_between([1, 2, 3], [1])
    with pytest.raises(ValueError, match=r"^y must broadcast against x of shape \(2, 3\), got shape \(4, 3\)"):
        angle_between(np.ones((2, 3)), np.ones((4, 3)))


def test_pairwise_angles_have_the_order_of_pdist():
    vectors = np.random.default_rng(4).standard_normal((7, 5))
    angles = pairwise_angles(vectors)
    np.testing.assert_allclose(np.cos(angles), 1 - pdist(vectors, "cosine"), atol=1e-14)
    i, j = np.triu_indices(7, 1)
    np.testing.assert_allclose(angles, angle_between(vectors[i], vectors[j]), rtol=1e-14)
    assert pairwise_angles([[1, 2]]).shape == (0,)


def test_pairwise_angles_are_right_near_zero_and_pi():
    angles = pairwise_angles([[1, 0], [1, 1e-12], [-1, 1e-12]])
    np.testing.assert_allclose(angles, [1e-12, np.pi - 1e-12, np.pi - 2e-12], rtol=1e-15)


@pytest.mark.parametrize("bad", [[1, 2], 3.0, np.ones((2, 2, 2))])
def test_pairwise_angles_want_a_matrix(bad):
    with pytest.raises(ValueError, match=r"^vectors must have shape \(N, n\), got shape"):
        pairwise_angles(bad)


def test_pairwise_angles_refuse_ragged_and_masked_rows_by_name():
    with pytest.raises(ValueError, match=r"^vectors must be vectors of one length, got a ragged list"):
        pairwise_angles([[1, 2], [3]])
    with pytest.raises(ValueError, match=r"^vectors must have no masked entries"):
        pairwise_angles(np.ma.masked_array(np.eye(2), np.eye(2)))


def test_pairwise_angles_refuse_what_has_no_direction():
    with pytest.raises(ValueError, match=r"^vectors must not hold a zero vector"):
        pairwise_angles([[1, 2], [0, 0]])
    with pytest.raises(ValueError, match=r"^vectors must hold at least one coordinate"):
        pairwise_angles(np.empty((0, 3)))


# Johnson-Lindenstrauss -----------------------------------------------------------------------------------------


def failure_bound(k, points, distortion):
    """The union bound, from SciPy's chi-square law."""
    squared = stats.chi2(k)
    return comb(points, 2) * (squared.cdf(k * (1 - distortion)) + squared.sf(k * (1 + distortion)))


@pytest.mark.parametrize(
    ("points", "distortion", "failure"),
    [
        (2, 0.01, 0.999),
        (2, 0.5, 0.05),
        (2, 0.9, 1),
        (10, 0.3, 0.1),
        (50, 0.9, 1e-6),
        (1000, 0.2, 1),
        (9, 0.5, None),
    ],
)
def test_dimension_for_is_the_first_that_meets_the_union_bound(points, distortion, failure):
    k = dimension_for(points, distortion, failure=failure)
    meets = failure_bound(np.arange(1, 2 * k + 10), points, distortion) <= (failure or 1 / points)
    assert np.argmax(meets) + 1 == k  # brute force
    assert meets[k - 1 :].all()  # and once met, it stays met


@pytest.mark.parametrize("distortion", [0.004, 0.0095, 0.0105, 0.03])
def test_in_high_dimensions_the_tails_are_those_of_the_incomplete_gamma_function(distortion):
    """There Temme's expansion takes the place of SciPy's series; it errs by less than 10⁻³/a."""
    for k in (20_002, 100_000):
        a = mp.mpf(k) / 2
        inner = mp.gammainc(a, a * (1 - mp.mpf(distortion)), a * (1 + mp.mpf(distortion)), regularized=True)
        assert float(1 - inner) == pytest.approx(_distortion_probability(k, distortion), rel=2e-3 / k)


@examples(40)
@given(points=st.integers(2, 10**9), distortion=st.floats(1e-3, 0.999))
def test_the_closed_form_is_enough_and_never_sharper(points, distortion):
    exact, closed = dimension_for(points, distortion), dimension_bound(points, distortion)
    assert exact <= closed
    assert failure_bound(closed, points, distortion) <= 1 / points
    assert closed - 1 < 24 * np.log(points) / distortion**2 <= closed


def test_dimension_for_grows_as_it_should():
    assert dimension_for(1000, 0.1) > dimension_for(1000, 0.2)
    assert dimension_for(1000, 0.2) > dimension_for(100, 0.2)
    assert dimension_for(1000, 0.2, failure=1e-9) > dimension_for(1000, 0.2) > dimension_for(1000, 0.2, failure=1)
    assert isinstance(dimension_for(np.int32(10), 0.5), int)
    assert isinstance(dimension_bound(np.int32(10), 0.5), int)


def test_a_gaussian_projection_to_that_dimension_keeps_distances():
    rng = np.random.default_rng(6)
    points, distortion, failure = 12, 0.5, 0.2
    k = dimension_for(points, distortion, failure=failure)
    cloud = rng.standard_normal((points, 300)) * rng.exponential(size=300)
    projected = rng.standard_normal((400, k, 300)) @ cloud.T / np.sqrt(k)
    ratios = np.array([pdist(p.T) for p in projected]) ** 2 / pdist(cloud) ** 2
    failed = (np.abs(ratios - 1).max(axis=1) > distortion).mean()
    assert 0.05 < failed <= failure + 0.05  # the union bound holds, and is not idle


@pytest.mark.parametrize("bad", [*BAD_INTEGERS, [2, 3]])
def test_bad_points_are_refused_by_name(bad):
    for call in dimension_for, dimension_bound:
        with pytest.raises(ValueError, match=r"^points must be an integer >= 2, got "):
            call(bad, 0.1)


@pytest.mark.parametrize("bad", [0, 1, -0.1, 1.5, float("nan"), "0.1", None, True, [0.1, 0.2], [[0.1], [0.1, 0.2]]])
def test_bad_distortions_and_failures_are_refused_by_name(bad):
    for call in dimension_for, dimension_bound:
        with pytest.raises(ValueError, match=r"^distortion must be a number in \(0, 1\), got "):
            call(10, bad)
    if bad is True or bad not in (1, None):
        with pytest.raises(ValueError, match=r"^failure must be a number in \(0, 1\], got "):
            dimension_for(10, 0.1, failure=bad)


# Almost orthogonal directions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "tolerance"), [(3, 0.999), (50, 0.6), (200, 0.3), (1000, 0.15), (1000, 0.2)])
def test_the_number_of_directions_is_the_largest_the_method_allows(n, tolerance):
    count = round(np.exp(log_directions_within(n, tolerance)))
    beyond = 2 * mass_below(n, mp.acos(mp.mpf(tolerance)))
    assert count > n
    assert comb(count, 2) * beyond < 1 <= comb(count + 1, 2) * beyond
    assert log_directions_within(n, tolerance) == np.log(count)


@pytest.mark.parametrize("count", [5, 6, 17, 1000])
def test_the_number_of_directions_changes_where_it_should(count):
    """On a sphere P(|cos Θ| > t) is 1 − t: N vectors are there from N(N − 1) < 2/(1 − t) on."""
    for more in (0.25, -0.25):
        tolerance = 1 - 2 / (count * (count - 1) + more)
        assert round(np.exp(log_directions_within(3, tolerance))) == (count if more > 0 else count - 1)


def test_an_orthonormal_basis_is_always_there():
    np.testing.assert_array_equal(log_directions_within([2, 64, 1000], 0.01), np.log([2, 64, 1000]))
    assert log_directions_within(2, 1e-300) == np.log(2)


@pytest.mark.parametrize(("n", "tolerance"), [(10_000, 0.5), (10**6, 0.1), (1000, 0.9), (1500, 0.2)])
def test_the_logarithm_survives_where_the_number_overflows(n, tolerance):
    beyond = 2 * mass_below(n, mp.acos(mp.mpf(tolerance)))
    count = mp.floor(mp.mpf(0.5) + mp.sqrt(mp.mpf(0.25) + 2 / beyond))
    assert error(log_directions_within(n, tolerance), mp.log(count)) < 1e-12


def test_directions_grow_exponentially_with_the_dimension():
    n, t = np.array([20_000, 40_000]), 0.3
    low, high = log_directions_within(n, t)
    assert (high - low) / 20_000 == pytest.approx(-np.log(1 - t**2) / 4, rel=1e-3)
    assert log_directions_within(n[:, None], [0.1, 0.2, 0.3]).shape == (2, 3)


def test_that_many_random_directions_can_be_drawn():
    n, tolerance, rng = 50, 0.5, np.random.default_rng(0)
    count = round(np.exp(log_directions_within(n, tolerance)))
    beyond = [
        int(np.sum(np.abs(1 - pdist(rng.standard_normal((count, n)), "cosine")) > tolerance)) for _ in range(300)
    ]
    # One pair is expected beyond the tolerance, within 4 standard errors; so some draws have none.
    assert np.mean(beyond) == pytest.approx(1, abs=4 / np.sqrt(300) + 2 / count)
    assert min(beyond) == 0 < max(beyond)


@pytest.mark.parametrize("bad", [0, 1, -0.1, float("nan"), "0.1", None, True, [0.1, 1.0], [[0.1], [0.1, 0.2]]])
def test_a_bad_tolerance_is_refused_by_name(bad):
    with pytest.raises(ValueError, match=r"^tolerance must be a number in \(0, 1\) or an array of them, got "):
        log_directions_within(10, bad)


# The module ----------------------------------------------------------------------------------------------------


def test_importing_the_module_loads_no_deep_learning():
    code = "import sys, lib.angles; print({'tensorflow', 'jax', 'torch', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("call", [dimension_for, dimension_bound])
@pytest.mark.parametrize("distortion", [1e-9, 1e-200, 5e-324])
def test_distortions_that_no_dimension_of_float64_allows_are_refused_by_name(call, distortion):
    with pytest.raises(ValueError, match=r"^distortion must allow a dimension of at most 1e15, got "):
        call(1000, distortion)


def test_small_distortions_and_failures_have_their_dimension():
    # Where χ² is normal, k ε² / 2 = z² with z the quantile of δ / (N(N − 1)).
    for distortion in (1e-4, 1e-6):  # where SciPy's incomplete gamma function is off by half
        z = stats.norm.isf(1e-3 / (1000 * 999))
        assert dimension_for(1000, distortion) == pytest.approx(2 * (z / distortion) ** 2, rel=10 * distortion)
    k = dimension_for(2, 0.5, failure=1e-290)
    tails = [mp.gammainc(mp.mpf(n) / 2, 0, mp.mpf(n) / 4, regularized=True) for n in (k, k - 1)]
    tails = [
        t + mp.gammainc(mp.mpf(n) / 2, 0.75 * n, regularized=True) for t, n in zip(tails, (k, k - 1), strict=True)
    ]
    assert tails[0] <= mp.mpf("1e-290") < tails[1]


@pytest.mark.parametrize(("points", "failure"), [(1000, 1e-320), (2, 5e-324), (10**10, 1e-290)])
def test_failures_below_what_float64_resolves_are_refused_by_name(points, failure):
    with pytest.raises(ValueError, match=r"^failure must be at least 1e-300 for each of \d+ pairs, got "):
        dimension_for(points, 0.1, failure=failure)
