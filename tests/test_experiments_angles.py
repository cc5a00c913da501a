"""The experiments of chapter 1: they sample what they say, and tell a right law from a wrong one."""

import runpy

import numpy as np
import pytest
from scipy import special, stats
from shared import assert_accepts_its_solution_alone

from lib import angles
from lib.experiments.angles import exercises, sampling
from lib.workbench import measure, records


def test_batches_give_every_pair_once_and_seeds_repeat(monkeypatch):
    whole = sampling.sample_angles(7, 1000, seed=3)
    assert whole.shape == (1000,)
    np.testing.assert_array_equal(whole, sampling.sample_angles(7, 1000, seed=3))
    assert not np.array_equal(whole, sampling.sample_angles(7, 1000, seed=4))
    monkeypatch.setattr(sampling, "_NUMBERS_AT_ONCE", 7 * 64)
    assert sampling.sample_angles(7, 1000, seed=3).shape == (1000,)


@pytest.mark.parametrize("name", sampling.ISOTROPIC)
def test_isotropic_vectors_follow_the_law(name):
    distance = sampling.distance_to_law(9, 20_000, 0, sampling.ISOTROPIC[name])
    assert distance < sampling.critical_distance(tests=3)


@pytest.mark.parametrize("name", sampling.ANISOTROPIC)
def test_anisotropic_vectors_do_not(name):
    assert sampling.distance_to_law(9, 20_000, 0, sampling.ANISOTROPIC[name]) > 5


def test_the_critical_distance_is_kolmogorovs_and_grows_with_the_number_of_tests():
    # Classical table: 1.358 at 5 %, 1.628 at 1 %.
    assert sampling.critical_distance(1, 0.05) == pytest.approx(1.358, abs=1e-3)
    assert sampling.critical_distance(1, 0.01) == pytest.approx(1.628, abs=1e-3)
    assert sampling.critical_distance(10) > sampling.critical_distance(1)


def test_the_largest_cosine_is_the_brute_force_one():
    (value,) = sampling.largest_cosines(12, 40, [5])
    vectors = np.random.default_rng(5).standard_normal((40, 12))
    assert value == pytest.approx(np.abs(np.cos(angles.pairwise_angles(vectors))).max(), rel=1e-5)


def test_naive_quadrature_finds_the_articles_variances():
    assert sampling.variance_by_quadrature(2) == pytest.approx(np.pi**2 / 12, rel=1e-12)
    assert sampling.variance_by_quadrature(20) == pytest.approx(0.0525832, abs=5e-8)


def test_the_normal_stand_in_has_the_tabulated_errors():
    # Largest CDF errors at n = 10 for the variances 1/n, 1/(n − 1), 1/(n − 2), from an independent quadrature.
    errors = [sampling.normal_error(10, 1 / (10 - k)) for k in (0, 1, 2)]
    np.testing.assert_allclose(errors, [0.0174, 0.0050, 0.0109], atol=5e-5)


def test_the_mean_squared_cosine_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 7)) * np.where(np.arange(7) == 0, 9, 1)
    pairs = np.cos(angles.pairwise_angles(vectors))
    assert sampling.mean_squared_cosine(vectors) == pytest.approx(np.mean(pairs**2), rel=1e-12)
    assert sampling.mean_squared_cosine(rng.standard_normal((3000, 40))) == pytest.approx(1 / 40, rel=0.02)


def test_placeholders_are_left_out_and_every_vector_keeps_its_piece(monkeypatch):
    table = np.arange(8.0).reshape(4, 2)
    monkeypatch.setattr(
        sampling.corpora, "minilm_embeddings", lambda: (["[PAD]", "[unused0]", "unused", "[unused7]"], table)
    )
    pieces, vectors = sampling.token_vectors()
    assert pieces == ["[PAD]", "unused"]
    np.testing.assert_array_equal(vectors, table[[0, 2]])


def test_uniform_entries_nearly_follow_the_law_and_signs_do_not():
    uniform, signs = (
        sampling.distance_to_law(50, 20_000, 0, sampling.INDEPENDENT[name]) for name in ("uniform", "signs")
    )
    assert uniform < sampling.critical_distance(tests=1)
    assert signs > 5


def test_pairs_are_of_different_rows():
    vectors = np.eye(5)
    np.testing.assert_allclose(sampling.pair_cosines(vectors, 200, seed=0), 0, atol=1e-12)


def test_whitening_restores_the_law_that_stretching_broke():
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((4000, 6)) * [9, 3, 1, 1, 1, 0.2]) @ stats.special_ortho_group.rvs(
        6, random_state=2
    ) + 4
    white = sampling.whitened(vectors)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=1e-9)
    np.testing.assert_allclose(sampling.centred(vectors).mean(axis=0), 0, atol=1e-9)
    law = angles.cosine(6)
    broken, restored = (
        stats.kstest(sampling.pair_cosines(v, 3000, 0), law.cdf).statistic for v in (vectors, white)
    )
    assert broken > 0.2
    assert restored < sampling.critical_distance(1) / np.sqrt(3000)


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
    monkeypatch.setattr(sampling, "distance_to_law", lambda n, pairs, seed: float(n + seed + 0 * pairs))
    record = sampling.kolmogorov(measure.device().kind, dimensions=(2, 5))
    assert record.column("distance") == [2, 3, 4, 5, 6, 7]
    assert set(record.column("pairs")) == {10**6}
    worst = sampling.worst_pairs(measure.device().kind, dimensions=(200,))
    assert len(worst.rows) == 20
    estimate = sampling.mean_over_seeds(worst, "largest", n=200)
    assert estimate.low < angles.largest_cosine(200, 5000).mean() + 0.005
    assert estimate.high > angles.largest_cosine(200, 5000).mean() - 0.005


def test_the_command_line_lists_the_experiments(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["angles", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.angles", run_name="__main__")
    assert stopped.value.code == 0
    assert "kolmogorov" in capsys.readouterr().out


# --- what the chapter's propositions say ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50, 200, 1000])
def test_the_variance_by_quadrature_is_half_a_trigamma(n):
    assert sampling.variance_by_quadrature(n) == pytest.approx(special.polygamma(1, n / 2) / 2, rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_the_variance_of_the_cosine_is_one_over_n_in_samples(n):
    cosines = np.cos(sampling.sample_angles(n, 200_000, seed=n))
    deviation = np.sqrt(np.mean(cosines**4) - np.mean(cosines**2) ** 2) / np.sqrt(len(cosines))
    assert abs(np.mean(cosines**2) - 1 / n) < 4 * deviation


def test_directions_chosen_one_after_another_are_as_many_as_the_caps_allow():
    # Greedy choice among random candidates, in dimensions small enough to fill: never fewer than 1/P.
    for n, tolerance in [(3, 0.5), (4, 0.4), (6, 0.3)]:
        promised = np.exp(sampling.log_directions(np.array([n]), tolerance)[0])
        chosen = np.empty((0, n))
        rng = np.random.default_rng(n)
        for x in rng.standard_normal((20_000, n)):
            x = x / np.linalg.norm(x)
            if len(chosen) == 0 or np.abs(chosen @ x).max() <= tolerance:
                chosen = np.vstack([chosen, x])
        assert len(chosen) >= promised
        # The share that a direction forbids is the share of random vectors beyond the tolerance.
        share = np.mean(np.abs(np.cos(sampling.sample_angles(n, 200_000, seed=1))) > tolerance)
        assert promised == pytest.approx(1 / share, rel=0.03)


# --- the exercises --------------------------------------------------------------------------------------------

WRONG = {
    "1.1": [218, 220, 10],
    "1.2": [0.5, 3e-8],
    "1.3": [lambda n: 1 / n**2, lambda n: 3 / n**2],
    "1.4": [0, 0.5],
}
WRONG |= {"1.5": [1095, 1097], "1.6": [lambda _: {0, 1}], "1.7": ["I do not know."]}


@pytest.mark.parametrize("number", exercises.SHEET.exercises)
def test_an_exercise_accepts_its_solution_and_nothing_else(number, capsys):
    assert_accepts_its_solution_alone(exercises.SHEET, number, WRONG[number], capsys)


def test_a_better_answer_than_ours_is_accepted(capsys):
    exercises.check("1.6", lambda vectors: tuple(exercises._solve_6()(vectors)))
    exercises.check("1.3", lambda n: 3 / n / (n + 2))
    assert capsys.readouterr().out.count("right.") == 2
