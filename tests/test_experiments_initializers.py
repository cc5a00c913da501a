"""The experiments of chapter 2: they measure what they say, and a net that explodes is a result."""

import math
import runpy

import keras
import numpy as np
import pytest
from keras import ops
from numpy.polynomial.hermite_e import hermegauss
from scipy import special, stats

from lib.experiments import initializers as experiments
from lib.initializers import marchenko_pastur
from lib.workbench import measure, records

KURTOSIS = {"normal": 3.0, "uniform": 9 / 5, "rademacher": 1.0}


def assert_mean(samples, expected):
    """The mean of the samples is as near to the expected one as chance lets it be: 5 standard errors."""
    assert abs(np.mean(samples) - expected) < 5 * stats.sem(samples)


# --- one matrix -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", KURTOSIS)
def test_entries_have_variance_one_over_the_rows(law):
    W = experiments.draw_matrices(20, 30, 70, law, seed=1)
    assert W.shape == (20, 30, 70)
    assert W.dtype == np.float32
    assert_mean(W.ravel(), 0)
    np.testing.assert_allclose(30 * np.mean(W**2), 1, atol=5 * math.sqrt(3 / W.size))
    np.testing.assert_allclose(np.mean(W**4) / np.mean(W**2) ** 2, KURTOSIS[law], rtol=0.05)


def test_matrices_are_independent_and_seeds_repeat():
    one, other = experiments.draw_matrices(2, 20, 20, seed=3)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / 20
    np.testing.assert_array_equal(one, experiments.draw_matrices(2, 20, 20, seed=3)[0])
    assert not np.array_equal(one, experiments.draw_matrices(2, 20, 20, seed=4)[0])
    one, other = experiments.draw_matrices(2, 4, 4, law="orthogonal", seed=3)
    assert not np.allclose(one, other)


@pytest.mark.parametrize(("m", "n"), [(6, 6), (9, 4), (4, 9)])
def test_closeness_is_that_of_the_matrix(m, n):
    found = experiments.closeness(m, n, "uniform", seeds=[7])
    W = experiments.draw_matrices(1, m, n, "uniform", seed=7)[0].astype(float)
    D = W.T @ W - np.eye(n)
    singular_values = np.sqrt(np.linalg.eigvalsh(W @ W.T if m < n else W.T @ W))
    expected = {
        "mse": np.mean(D**2),
        "diagonal": np.mean(np.diag(D) ** 2),
        "frobenius": np.linalg.norm(D),
        "operator": np.linalg.norm(D, 2),
        "smallest": singular_values[0],
        "largest": singular_values[-1],
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], [value], rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("law", KURTOSIS)
def test_a_square_matrix_is_orthogonal_entry_by_entry(law):
    n = 80
    found = experiments.closeness(n, n, law, seeds=range(20))
    off_diagonal = (found["mse"] * n**2 - found["diagonal"] * n) / (n**2 - n)
    assert_mean(off_diagonal, 1 / n)
    if law == "rademacher":  # every column has the same length
        np.testing.assert_allclose(found["diagonal"], 0, atol=1e-12)
    else:
        assert_mean(found["diagonal"], (KURTOSIS[law] - 1) / n)


def test_but_not_as_an_operator():
    for n in (50, 200):
        found = experiments.closeness(n, n, seeds=range(5))
        assert_mean(found["frobenius"] ** 2, n + 1)
        assert np.all(np.abs(found["operator"] - 3) < 0.6)
        assert np.all(found["smallest"] < 5 / n)


def test_a_tall_matrix_is_and_an_orthogonal_one_exactly():
    low, high = marchenko_pastur(1600, 100).support()
    found = experiments.closeness(1600, 100)
    np.testing.assert_allclose(found["smallest"], low, atol=0.03)
    np.testing.assert_allclose(found["largest"], high, atol=0.03)
    assert experiments.closeness(30, 20, "orthogonal", seeds=[0])["operator"] < 1e-5
    # Of 30 directions a 20 × 30 matrix must lose ten.
    assert experiments.closeness(20, 30, "orthogonal", seeds=[0])["operator"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("m", "n"), [(40, 40), (200, 30), (30, 200)])
def test_lengths_scatter_by_one_over_root_2m(m, n):
    ratios = experiments.length_ratios(m, n, count=2000, seed=2)
    # ‖Wx‖²/‖x‖² is a chi-square of m degrees of freedom over m: the law, not only its width.
    assert stats.kstest(m * ratios**2, stats.chi2(m).cdf).pvalue > 1e-4
    np.testing.assert_allclose(ratios.std(), 1 / math.sqrt(2 * m), rtol=0.1)


def test_lengths_are_drawn_in_batches(monkeypatch):
    monkeypatch.setattr(experiments, "_NUMBERS_AT_ONCE", 5 * 4 * 7)
    ratios = experiments.length_ratios(5, 4, count=17)
    assert ratios.shape == (17,)
    assert np.unique(ratios).size == 17


# --- many layers ------------------------------------------------------------------------------------------


def test_linear_layers_shorten_a_vector_by_the_law_of_a_chi_square():
    n, L = 32, 8
    lengths = experiments.lengths_through_depth(n, L, nets=400)
    assert lengths.shape == (400, L + 1)
    np.testing.assert_allclose(lengths[:, 0], 0, atol=1e-12)
    # Each layer multiplies the square by an independent chi-square of n degrees of freedom over n.
    assert_mean(lengths[:, -1], L * (special.digamma(n / 2) - math.log(n / 2)))
    assert_mean((lengths[:, -1] - lengths[:, -1].mean()) ** 2, L * special.polygamma(1, n / 2))


def test_orthogonal_layers_do_not_shorten_it():
    np.testing.assert_allclose(experiments.lengths_through_depth(8, 30, law="orthogonal", nets=3), 0, atol=1e-4)


@pytest.mark.parametrize(("gain", "factor"), [("relu", 1.0), (1.0, 0.5)])
def test_relu_keeps_the_mean_square_with_its_gain_and_halves_it_without(gain, factor):
    n, L = 64, 6
    ratios = np.exp(experiments.lengths_through_depth(n, L, "relu", gain=gain, nets=600)) / factor ** np.arange(
        L + 1
    )
    for layer in range(1, L + 1):
        assert_mean(ratios[:, layer], 1)
        # E[relu⁴]/E[relu²]² − 1 = 5: one layer spreads the square by 5/n.
        np.testing.assert_allclose(ratios[:, layer].var(), (1 + 5 / n) ** layer - 1, rtol=0.3)


@pytest.mark.parametrize("q", [1.0, 0.1])
def test_tanh_shrinks_the_second_moment_as_the_integral_says(q):
    lengths = experiments.lengths_through_depth(512, 5, "tanh", nets=20, second_moment=q)
    z, weight = hermegauss(80)
    expected = [q]
    for _ in range(5):
        expected.append(np.sum(weight * np.tanh(math.sqrt(expected[-1]) * z) ** 2) / math.sqrt(2 * math.pi))
    np.testing.assert_allclose(q * np.exp(lengths).mean(axis=0), expected, rtol=0.05)


def test_a_dead_net_has_length_zero_and_no_angle():
    lengths = experiments.lengths_through_depth(1, 30, "relu", nets=4)
    assert np.all(np.isneginf(lengths[:, -1]))
    assert np.all(np.isnan(experiments.angles_through_depth(2, 60, "relu", nets=4)[:, -1]))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_angles_follow_the_correlation_map(activation):
    n, L = 200, 4
    cosines = experiments.angles_through_depth(n, L, activation, correlation=0.3, nets=1000)
    np.testing.assert_allclose(cosines[:, 0], 0.3, atol=1e-9)
    error = np.abs(cosines.mean(axis=0) - experiments.predicted_cosines(activation, 0.3, L))
    assert np.all(error <= 4 * stats.sem(cosines) + 0.5 * np.arange(L + 1) / n + 1e-9)


def test_relu_closes_a_right_angle_as_tabulated():
    expected = [0, 0.318, 0.494, 0.605, 0.681, 0.736]
    np.testing.assert_allclose(experiments.predicted_cosines("relu", 0.0, 5), expected, atol=5e-4)
    np.testing.assert_allclose(experiments.predicted_cosines("tanh", 1.0, 3), 1)


def test_orthogonal_layers_keep_every_angle():
    cosines = experiments.angles_through_depth(6, 20, "linear", "orthogonal", correlation=-0.4, nets=3)
    np.testing.assert_allclose(cosines, -0.4, atol=1e-4)


# --- training ---------------------------------------------------------------------------------------------


@pytest.fixture
def few_images(monkeypatch):
    """A training set of 640 images and a test set of 500."""
    (images, labels), (test_images, test_labels) = experiments._images()
    few = (images[:640], labels[:640]), (test_images[:500], test_labels[:500])
    monkeypatch.setattr(experiments, "_images", lambda: few)
    return few


def test_pixels_are_standardised_over_the_training_images():
    (images, labels), (test_images, _) = experiments._images()
    assert (images.shape, labels.shape, test_images.shape) == ((8000, 784), (8000,), (2000, 784))
    assert images.mean(dtype=float) == pytest.approx(0, abs=1e-4)
    assert images.std(dtype=float) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("stack", experiments.STACKS)
@pytest.mark.parametrize("activation", experiments.CRITICAL_GAIN)
def test_a_stack_is_the_loop_over_its_layers(stack, activation):
    layer = experiments.Stack(3, activation, **experiments.STACKS[stack], seed=5)
    h = np.random.default_rng(0).standard_normal((4, 16)).astype("float32")
    y = ops.convert_to_numpy(layer(h))
    layer.bias.assign(np.full((3, 16), 0.1))
    shifted = ops.convert_to_numpy(layer(h))
    kernels = ops.convert_to_numpy(layer.kernel)
    scale = np.sqrt(16 * np.mean(kernels**2)) / experiments.STACKS[stack].get("factor", 1.0)
    assert scale == pytest.approx({"relu": math.sqrt(2), "tanh": 1.0}[activation], rel=0.15)

    def reference(h, bias):
        for K in kernels:
            z = h @ K
            if stack == "normalised":
                z = (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)
            y = np.tanh(z + bias) if activation == "tanh" else np.maximum(z + bias, 0)
            h = h + y / math.sqrt(3) if stack == "residual" else y
        return h

    np.testing.assert_allclose(y, reference(h, 0), atol=1e-4)
    np.testing.assert_allclose(shifted, reference(h, 0.1), atol=1e-4)
    assert not np.allclose(y, shifted, atol=1e-2)


def test_what_is_not_known_is_refused():
    with pytest.raises(ValueError, match="activation must be one of relu, tanh, got 'gelu'"):
        experiments.Stack(3, "gelu")
    with pytest.raises(ValueError, match=r"stack must be one of gaussian; .*, got 'deep'"):
        experiments.train_stack(3, "deep")
    with pytest.raises(ValueError, match="law"):
        experiments.closeness(3, 3, "cauchy")


def test_gradient_norms_are_those_of_the_loss(few_images):
    """Against the gradient of a NumPy net, by hand."""
    norms = experiments.gradient_norms(3, "gaussian", "tanh", seed=4, width=8, batch=50)
    model = experiments.classifier(3, "gaussian", "tanh", 4, keras.optimizers.SGD(), width=8)
    first, stack, last = model.layers
    (images, labels), _ = few_images
    V, U = (ops.convert_to_numpy(layer.kernel).astype(float) for layer in (first, last))
    kernels = ops.convert_to_numpy(stack.kernel).astype(float)
    states = [images[:50] @ V]
    for K in kernels:
        states.append(np.tanh(states[-1] @ K))
    upstream = (special.softmax(states[-1] @ U, axis=1) - np.eye(10)[labels[:50]]) / 50 @ U.T
    expected = []
    for K, h, y in zip(kernels[::-1], states[-2::-1], states[:0:-1], strict=True):
        upstream = upstream * (1 - y**2)
        expected.append(np.linalg.norm(h.T @ upstream))
        upstream = upstream @ K.T
    np.testing.assert_allclose(norms, expected[::-1], rtol=1e-4)


@pytest.mark.usefixtures("few_images")
def test_a_run_repeats_with_its_seed():
    one, again, other = (experiments.train_stack(2, "gaussian", seed=s, epochs=1, width=16) for s in (1, 1, 2))
    np.testing.assert_allclose(one["loss"], again["loss"], rtol=1e-5)
    assert one["accuracy"] == pytest.approx(again["accuracy"], abs=0.005)
    assert abs(one["loss"][0] - other["loss"][0]) > 1e-3
    assert one["seconds"] > 0


@pytest.mark.usefixtures("few_images")
def test_a_shallow_net_learns_and_a_dead_one_does_not():
    alive = experiments.train_stack(3, "gaussian", "relu", rate=3e-3, epochs=2)
    assert alive["loss"].shape == alive["accuracy"].shape == (2,)
    assert alive["loss"][1] < alive["loss"][0]
    assert alive["accuracy"][1] > 0.5
    assert alive["exploded"] is False
    dead = experiments.train_stack(60, "gaussian, too small", "relu", rate=1e-3, epochs=2)
    np.testing.assert_allclose(dead["loss"], math.log(10), atol=0.05)
    assert dead["accuracy"][1] < 0.2


@pytest.mark.usefixtures("few_images")
def test_an_exploded_run_is_a_result():
    # After one step every weight is near 1e38, and their sums leave the range of float32.
    run = experiments.train_stack(2, "gaussian", "tanh", rate=1e38, epochs=3, width=16)
    assert run["exploded"] is True
    np.testing.assert_array_equal(run["loss"], [np.inf] * 3)
    assert run["accuracy"].shape == (3,)
    assert np.all(run["accuracy"] < 0.2)


def test_the_rate_is_chosen_by_seed_0_and_reported_for_others(monkeypatch):
    losses = {1e-4: 2.0, 1e-3: 1.0, 1e-2: np.inf}
    called = []

    def train(depth, stack, activation, seed, *, rate, **settings):
        called.append((seed, rate))
        assert (depth, stack, activation) == (4, "gaussian", "relu")
        assert settings == {"width": 8, "epochs": 2, "batch": 32}
        # The test images of seed 0 would choose another rate.
        accuracy = 0.9 if (seed, rate) == (0, 1e-4) else 0.5
        return {"loss": [3.0, losses[rate]], "accuracy": [0.1, accuracy], "exploded": seed == 2, "seconds": 1.0}

    monkeypatch.setattr(experiments, "train_stack", train)
    monkeypatch.setattr(
        experiments, "gradient_norms", lambda *_, **settings: np.array([1.0, 2.0, settings["width"]])
    )
    found = experiments.tuned(4, "gaussian", "relu", rates=tuple(losses), seeds=(1, 2), width=8, epochs=2, batch=32)
    assert called == [(0, 1e-4), (0, 1e-3), (0, 1e-2), (1, 1e-3), (2, 1e-3)]
    assert found["rate"] == 1e-3
    assert found["tuning"] == [2.0, 1.0, np.inf]
    assert (found["exploded"], found["seconds"]) == (1, 5.0)
    np.testing.assert_array_equal(found["accuracy"], [[0.1, 0.5]] * 2)
    np.testing.assert_array_equal(found["loss"], [[3.0, 1.0]] * 2)
    np.testing.assert_array_equal(found["gradient"], [1.0, 8.0])


# --- what is recorded -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Records go to a folder of the test's own, and the sizes are small."""
    sweep = records.sweep
    monkeypatch.setattr(records, "sweep", lambda *args, **kwargs: sweep(*args, root=tmp_path, **kwargs))
    kind = measure.device().kind
    monkeypatch.setattr(experiments, "DEPTHS", {kind: (1,)})
    monkeypatch.setattr(experiments, "RATES", {kind: (1e-3,)})
    monkeypatch.setattr(experiments, "SEEDS", (1,))
    monkeypatch.setattr(experiments, "CONTESTANTS", (("residual", "tanh"),))
    monkeypatch.setattr(experiments, "SQUARE", (4,))
    monkeypatch.setattr(experiments, "OBLONG", ((6, 2),))
    return tmp_path


@pytest.mark.usefixtures("few_images")
def test_the_command_line_records_both_experiments(tiny):
    kind = measure.device().kind
    assert experiments.main(["--scale", kind]) == 0
    matrices = records.load("02-initializers", "matrices", kind, root=tiny)
    assert [(row["m"], row["n"], row["law"]) for row in matrices.rows] == [
        *((4, 4, law) for law in KURTOSIS),
        (6, 2, "normal"),
    ]
    assert all(len(row["operator"]) == 5 for row in matrices.rows)
    (row,) = records.load("02-initializers", "depth", kind, root=tiny).rows
    assert (row["depth"], row["stack"], row["activation"], row["rate"]) == (1, "residual", "tanh", 1e-3)
    assert np.shape(row["accuracy"]) == (1, 3)
    assert len(row["gradient"]) == 2


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["initializers", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.initializers", run_name="__main__")
    assert stopped.value.code == 0
    assert "matrices" in capsys.readouterr().out
