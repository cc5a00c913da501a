"""The experiments of chapter 1: they sample what they say, and tell a right law from a wrong one."""

import runpy

import numpy as np
import pytest
from scipy import stats

from lib import angles
from lib.experiments import angles as experiments
from lib.workbench import measure, records


def test_batches_give_every_pair_once_and_seeds_repeat(monkeypatch):
    whole = experiments.sample_angles(7, 1000, seed=3)
    assert whole.shape == (1000,)
    np.testing.assert_array_equal(whole, experiments.sample_angles(7, 1000, seed=3))
    assert not np.array_equal(whole, experiments.sample_angles(7, 1000, seed=4))
    monkeypatch.setattr(experiments, "_NUMBERS_AT_ONCE", 7 * 64)
    assert experiments.sample_angles(7, 1000, seed=3).shape == (1000,)


@pytest.mark.parametrize("name", experiments.ISOTROPIC)
def test_isotropic_vectors_follow_the_law(name):
    distance = experiments.distance_to_law(9, 20_000, 0, experiments.ISOTROPIC[name])
    assert distance < experiments.critical_distance(tests=3)


@pytest.mark.parametrize("name", experiments.ANISOTROPIC)
def test_anisotropic_vectors_do_not(name):
    assert experiments.distance_to_law(9, 20_000, 0, experiments.ANISOTROPIC[name]) > 5


def test_the_critical_distance_is_kolmogorovs_and_grows_with_the_number_of_tests():
    # Classical table: 1.358 at 5 %, 1.628 at 1 %.
    assert experiments.critical_distance(1, 0.05) == pytest.approx(1.358, abs=1e-3)
    assert experiments.critical_distance(1, 0.01) == pytest.approx(1.628, abs=1e-3)
    assert experiments.critical_distance(10) > experiments.critical_distance(1)


def test_the_largest_cosine_is_the_brute_force_one():
    (value,) = experiments.largest_cosines(12, 40, [5])
    vectors = np.random.default_rng(5).standard_normal((40, 12))
    assert value == pytest.approx(np.abs(np.cos(angles.pairwise_angles(vectors))).max(), rel=1e-5)


def test_naive_quadrature_finds_the_articles_variances():
    assert experiments.variance_by_quadrature(2) == pytest.approx(np.pi**2 / 12, rel=1e-12)
    assert experiments.variance_by_quadrature(20) == pytest.approx(0.0525832, abs=5e-8)


def test_the_normal_stand_in_has_the_tabulated_errors():
    # Largest CDF errors at n = 10 for the variances 1/n, 1/(n − 1), 1/(n − 2), from an independent quadrature.
    errors = [experiments.normal_error(10, 1 / (10 - k)) for k in (0, 1, 2)]
    np.testing.assert_allclose(errors, [0.0174, 0.0050, 0.0109], atol=5e-5)


def test_spread_is_one_for_isotropic_vectors_and_more_for_stretched_ones():
    vectors = np.random.default_rng(0).standard_normal((3000, 40))
    estimate = experiments.spread(vectors, seeds=range(8))
    assert abs(estimate.value - 1) < 0.1
    assert experiments.spread(vectors * np.where(np.arange(40) == 0, 9, 1), seeds=range(8)).low > 2


def test_pairs_are_of_different_rows():
    vectors = np.eye(5)
    np.testing.assert_allclose(experiments.pair_cosines(vectors, 200, seed=0), 0, atol=1e-12)


def test_whitening_restores_the_law_that_stretching_broke():
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((4000, 6)) * [9, 3, 1, 1, 1, 0.2]) @ stats.special_ortho_group.rvs(
        6, random_state=2
    ) + 4
    white = experiments.whitened(vectors)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(experiments.centred(vectors).mean(axis=0), 0, atol=1e-9)
    law = angles.cosine(6)
    broken, restored = (
        stats.kstest(experiments.pair_cosines(v, 3000, 0), law.cdf).statistic for v in (vectors, white)
    )
    assert broken > 0.2
    assert restored < experiments.critical_distance(1) / np.sqrt(3000)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Records go to a folder of the test's own."""
    sweep = records.sweep

    def elsewhere(*args, **kwargs):
        return sweep(*args, root=tmp_path, **kwargs)

    monkeypatch.setattr(records, "sweep", elsewhere)
    return tmp_path


@pytest.mark.usefixtures("recorded")
def test_the_records_hold_one_row_a_case(monkeypatch):
    monkeypatch.setattr(experiments, "distance_to_law", lambda n, pairs, seed: float(n + seed + 0 * pairs))
    record = experiments.kolmogorov(measure.device().kind, dimensions=(2, 5))
    assert record.column("distance") == [2, 3, 4, 5, 6, 7]
    assert set(record.column("pairs")) == {10**6}
    worst = experiments.worst_pairs(measure.device().kind, dimensions=(2000,))
    assert len(worst.rows) == 20
    estimate = experiments.mean_over_seeds(worst, "largest", n=2000)
    assert estimate.low < angles.largest_cosine(2000, 5000).mean() + 0.005
    assert estimate.high > angles.largest_cosine(2000, 5000).mean() - 0.005


def test_the_command_line_lists_the_experiments(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["angles", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.angles", run_name="__main__")
    assert stopped.value.code == 0
    assert "kolmogorov" in capsys.readouterr().out
