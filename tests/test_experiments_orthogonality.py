"""The experiments of chapter 3: the estimate is measured as defined, and every method trains the same network."""

import math
import runpy

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import ops
from scipy import stats

from lib.experiments import orthogonality as experiments
from lib.orthogonality import (
    Orthogonalized,
    SelfOrthogonality,
    filter_angles,
    sampling_floor,
    self_orthogonality,
    sign_agreement,
    welch_bound,
)
from lib.workbench import measure, records

needs_muon = pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="Keras has no Muon before 3.10")


def rms(values):
    return math.sqrt(np.mean(np.square(values)))


# --- the estimate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 180.0])
def test_a_pair_has_unit_filters_at_its_angle(degrees):
    W = experiments.pair_of_filters(np.radians(degrees), d=7, seed=3)
    assert W.shape == (7, 2)
    np.testing.assert_allclose(np.linalg.norm(W, axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(W[:, 0] @ W[:, 1], np.cos(np.radians(degrees)), atol=1e-12)
    assert not np.allclose(W, experiments.pair_of_filters(np.radians(degrees), d=7, seed=4))


@pytest.mark.parametrize("degrees", [10, 45, 90, 170])
def test_signs_agree_as_the_lemma_says(degrees):
    found = experiments.pair_agreement(np.radians(degrees), 40_000, seed=1)
    assert found == pytest.approx(1 - degrees / 90, abs=5 / math.sqrt(40_000))


@pytest.mark.parametrize(("gamma", "scale"), [(10.0, 0.01), (10.0, 0.1), (10.0, 1.0), (2.0, 0.5)])
def test_the_soft_estimate_tends_to_its_limit(gamma, scale):
    found = experiments.pair_agreement(np.pi / 3, 100_000, seed=2, gamma=gamma, scale=scale)
    assert found == pytest.approx(experiments.limit_agreement(np.pi / 3, gamma * scale), abs=0.015)


def test_dividing_by_the_root_mean_square_removes_the_scale():
    for form, seen in {"tanh": True, "sign": False, "scale-invariant": False}.items():
        found = experiments.across_scales((0.01, 3.0), **experiments.FORMS[form])
        assert found.shape == (2, 5)
        change = np.abs(found[0] - found[1])
        assert np.all(change > 0.1) if seen else np.all(change < 1e-5)  # rounding, in backends of float32
    np.testing.assert_allclose(experiments.across_scales((1.0,), gamma=experiments.SIGN), 1 / 3, atol=0.02)


def test_random_filters_agree_as_their_angles_say():
    W = np.random.default_rng(4).standard_normal((30, 6))
    W /= np.linalg.norm(W, axis=0)
    cosines = (W.T @ W)[np.triu_indices(6, 1)]
    np.testing.assert_allclose(
        experiments.random_agreements(6, 30, seed=4), 2 / np.pi * np.arcsin(cosines), atol=1e-6
    )


def test_the_limit_slides_from_the_cosine_to_the_wedge():
    for theta in (0.3, 2.5):
        limits = [experiments.limit_agreement(theta, a) for a in (1e-3, 1.0, 100.0)]
        assert limits[0] == pytest.approx(math.cos(theta), abs=1e-5)
        assert limits[-1] == pytest.approx(1 - 2 * theta / np.pi, abs=0.01)
        assert np.all(np.diff(limits) * np.sign(limits[-1] - limits[0]) > 0)


def test_the_scatter_is_that_of_a_mean_of_signs():
    found = experiments.agreement_scatter(16, 20_000, seed=0)
    # The number of agreements among 16 is binomial.
    agreements = (found + 1) * 8
    np.testing.assert_allclose(agreements, np.round(agreements), atol=1e-9)
    observed = np.bincount(np.round(agreements).astype(int), minlength=17)
    expected = 20_000 * stats.binom(16, 0.5).pmf(np.arange(17))
    inner = slice(3, 14)
    assert (
        stats.chisquare(observed[inner], expected[inner] * observed[inner].sum() / expected[inner].sum()).pvalue
        > 1e-4
    )


def test_orthonormal_filters_pay_the_floor():
    found = experiments.floor_of_orthonormal(k=8, b=32, trials=400, seed=1)
    for name, lambdas in {"mean term": (100.0, 0.0), "pair term": (0.0, 1.0)}.items():
        assert found[name].shape == (400,)
        assert abs(found[name].mean() - sampling_floor(8, 32, *lambdas)) < 5 * stats.sem(found[name])
        first = np.random.default_rng(1).standard_normal((400, 32, 8), dtype=np.float32)[0]
        assert found[name][0] == pytest.approx(
            float(self_orthogonality(first, experiments.SIGN, *lambdas)), rel=1e-4, abs=1e-6
        )


def test_a_relu_biases_the_estimate_and_centring_heals_it():
    found = {name: rms(experiments.agreements_of_orthonormal(name, 2, b=4000)) for name in experiments.INPUTS}
    for name in ("Gaussian", "after a ReLU, centred"):
        assert found[name] == pytest.approx(1 / math.sqrt(4000), rel=0.2)
    assert found["after a ReLU"] > 0.1


def test_the_filters_of_that_test_are_orthonormal():
    W = experiments.orthonormal_filters(5, 9, seed=1)
    np.testing.assert_allclose(W.T @ W, np.eye(5), atol=1e-12)


def test_patches_are_pieces_of_the_images():
    patches = experiments.image_patches(5, 300, seed=1)
    assert patches.shape == (300, 25)
    np.testing.assert_allclose(patches.mean(axis=0), 0, atol=1e-6)
    # Neighbouring pixels are alike, as in images.
    assert np.corrcoef(patches[:, 12], patches[:, 13])[0, 1] > 0.7
    images = experiments.training_images()[0][..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(images[:20], (5, 5), axis=(1, 2)).reshape(-1, 25)
    blank = windows[np.ptp(windows, axis=1) == 0][0]
    raw = patches - patches.min(axis=0) + images.min()  # every pixel is black in some patch
    assert np.any(np.all(np.isclose(raw, blank, atol=1e-5), axis=1))


def test_correlated_inputs_obey_the_arcsine_law():
    A = np.random.default_rng(0).standard_normal((6, 6))
    found, law = experiments.agreement_on_correlated(A @ A.T, k=4, b=50_000, seed=1)
    assert found.shape == law.shape == (6,)
    np.testing.assert_allclose(found, law, atol=5 / math.sqrt(50_000))
    assert rms(law) > 0.1
    _, isotropic = experiments.agreement_on_correlated(np.eye(6), k=4, b=2, seed=1)
    np.testing.assert_allclose(isotropic, 0, atol=1e-12)


@pytest.mark.parametrize(("k", "d"), [(3, 2), (5, 4), (6, 3), (12, 8)])
def test_descent_comes_near_the_welch_bound_and_not_below(k, d):
    found = experiments.least_coherent(k, d, seed=1, steps=150)
    assert found >= welch_bound(k, d) - 1e-9
    assert found <= 1.35 * welch_bound(k, d)


def test_the_module_alone_makes_filters_orthogonal_where_inputs_are_isotropic():
    x = np.random.default_rng(0).standard_normal((4000, 8))
    found = experiments.module_alone(x, k=6, seed=1, steps=250)
    assert found["distance"].shape == found["agreement"].shape == (2,)
    assert found["distance"][1] < 0.25 * found["distance"][0]
    # Where they are not, it makes outputs uncorrelated instead. One coordinate is twenty times the others.
    stretched = x * np.where(np.arange(8) == 0, 20.0, 1.0)
    other = experiments.module_alone(stretched, k=6, seed=1, steps=250)
    assert other["agreement"][1] < 0.5 * other["agreement"][0]
    assert other["distance"][1] > 2 * found["distance"][1]


# --- figures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [30, 100])
def test_the_wedge_holds_the_inputs_whose_signs_differ(degrees):
    ax = experiments.draw_wedge(degrees, points=400).axes[0]
    points = {line.get_label(): line.get_xydata() for line in ax.lines}
    differ = points["signs differ"]
    assert len(differ) + len(points["signs agree"]) == 400
    assert len(differ) / 400 == pytest.approx(degrees / 180, abs=0.1)
    inside = np.any(
        [wedge.contains_points(ax.transData.transform(differ), radius=0) for wedge in ax.patches[:2]], axis=0
    )
    outside = [
        wedge.contains_points(ax.transData.transform(points["signs agree"]), radius=0) for wedge in ax.patches[:2]
    ]
    assert inside.all()
    assert not np.any(outside)
    plt.close("all")


def test_the_drawn_limit_is_the_limit():
    lines = {line.get_label(): line.get_xydata() for line in experiments.draw_limit(2.0).axes[0].lines}
    degrees, limit = lines["its limit"].T
    assert limit[3] == pytest.approx(experiments.limit_agreement(np.radians(degrees[3]), 2.0))
    np.testing.assert_allclose(lines["estimate, b = 2000"][:, 1], limit, atol=5 / math.sqrt(2000))
    plt.close("all")


# --- the network ------------------------------------------------------------------------------------------


@pytest.fixture
def few_images(monkeypatch):
    """A training set of 640 images and a test set of 500."""
    (images, labels), (test_images, test_labels) = experiments._images()
    few = (images[:640], labels[:640]), (test_images[:500], test_labels[:500])
    monkeypatch.setattr(experiments, "_images", lambda: few)
    return few


def test_pixels_are_standardised_over_the_training_images():
    (images, labels), (test_images, _) = experiments._images()
    assert (images.shape, labels.shape, test_images.shape) == ((8000, 28, 28, 1), (8000,), (2000, 28, 28, 1))
    assert images.mean(dtype=float) == pytest.approx(0, abs=1e-4)
    assert images.std(dtype=float) == pytest.approx(1, abs=1e-4)


def test_a_filter_bank_is_a_convolution():
    images = np.random.default_rng(0).standard_normal((2, 9, 9, 3)).astype("float32")
    bank, conv = experiments.FilterBank(4, 3), keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)
    outputs = bank(images)
    conv.build(images.shape)
    conv.set_weights([np.reshape(bank.get_weights()[0], (3, 3, 3, 4))])
    np.testing.assert_allclose(ops.convert_to_numpy(outputs), ops.convert_to_numpy(conv(images)), atol=1e-5)
    assert tuple(outputs.shape) == bank.compute_output_shape(images.shape)
    assert bank.compute_output_shape((None, None, 9, 3)) == (None, None, 5, 4)


@needs_muon
@pytest.mark.parametrize("method", experiments.METHODS)
def test_every_method_starts_from_the_same_weights_and_computes_the_same(method):
    images = experiments.training_images()[0][:4]
    plain, other = (experiments.network(name, 0.01, seed=3) for name in ("plain", method))
    assert other.count_params() == plain.count_params()
    kernels = experiments.bank_kernels(other)
    assert [kernel.shape for kernel in kernels] == [(25, 16), (144, 32), (288, 32)]
    if method == "hard":
        for kernel in kernels:
            np.testing.assert_allclose(filter_angles(kernel), np.pi / 2, atol=1e-4)
    else:
        for one, two in zip(kernels, experiments.bank_kernels(plain), strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(
            ops.convert_to_numpy(other(images)), ops.convert_to_numpy(plain(images)), atol=1e-5
        )


@needs_muon
def test_a_method_is_what_its_name_says():
    def parts(method):
        return experiments.network(method, 0.01, seed=0).layers[:-2:3]

    for method, kind in experiments._REGULARIZERS.items():
        for bank in parts(method):
            assert isinstance(bank.kernel_regularizer, kind)
    for bank in parts("module, paper"):
        assert isinstance(bank, SelfOrthogonality)
        assert (bank.gamma, bank.lambda_mean, bank.lambda_pair) == (10.0, 1.0, 0.01)
        assert not bank.centred
        assert not bank.scale_invariant
    for method, mean in {"module, corrected": 1.0, "module, pairs only": 0.0}.items():
        for bank in parts(method):
            assert (bank.lambda_mean, bank.lambda_pair) == (mean, 0.01)
            assert bank.centred
            assert bank.scale_invariant
    assert all(isinstance(bank, Orthogonalized) for bank in parts("hard"))
    muon = experiments.network("Muon", 0.01, seed=0).optimizer
    assert isinstance(muon, keras.optimizers.Muon)
    assert float(muon.learning_rate) == pytest.approx(0.01)


@needs_muon
def test_muon_moves_the_banks_and_adam_the_head():
    model = experiments.network("Muon", 0.01, seed=0)
    model.optimizer.build(model.trainable_variables)
    by_adam = {
        variable.path
        for variable, velocity in zip(model.trainable_variables, model.optimizer.adam_velocities, strict=True)
        if velocity is not None
    }
    kernels = {layer.kernel.path for layer in model.layers[:-2:3]}
    assert kernels.isdisjoint(by_adam)
    assert {variable.path for variable in model.layers[-1].trainable_variables} <= by_adam


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"method must be one of plain;.*got 'sharp'"):
        experiments.network("sharp", 0.1, seed=0)
    with pytest.raises(ValueError, match="without Muon, got 'Muon'"):
        experiments.step_cost("Muon")


def test_the_agreement_of_outputs_is_that_of_every_bank_before_its_activation():
    images = experiments.training_images()[0][:50]
    model = experiments.network("plain", None, seed=2)
    squares, h = [], images
    for layer in range(3):
        bank, norm = model.layers[3 * layer : 3 * layer + 2]
        y = ops.convert_to_numpy(bank(h))
        samples = y.reshape(-1, y.shape[-1]).astype(float)
        signs = np.sign(samples - samples.mean(axis=0))
        theta = signs.T @ signs / len(signs)
        squares.append(theta[np.triu_indices(len(theta), 1)] ** 2)
        h = np.maximum(y / math.sqrt(1 + norm.epsilon), 0)
    expected = math.sqrt(np.concatenate(squares).mean())
    assert experiments.output_agreement(model, images) == pytest.approx(expected, abs=1e-3)


@pytest.mark.usefixtures("few_images")
def test_a_run_measures_what_it_says_and_repeats_with_its_seed(monkeypatch):
    models = []
    network = experiments.network
    monkeypatch.setattr(experiments, "network", lambda *args: models.append(network(*args)) or models[-1])
    one, again, other = (
        experiments.train("soft", 10.0, seed, epochs=epochs) for seed, epochs in ((1, 2), (1, 2), (2, 1))
    )
    for key, shape in {"task": 2, "accuracy": 4, "mean": 3, "deviation": 3, "distance": 3, "counts": 60}.items():
        assert one[key].shape == (shape,), key
    np.testing.assert_allclose(one["task"], again["task"], rtol=1e-4)
    np.testing.assert_allclose(one["distance"], again["distance"], rtol=1e-4)
    assert abs(one["task"][0] - other["task"][0]) > 1e-3
    assert one["task"][1] < one["task"][0] < 10  # without the penalty, which begins above 100
    assert sum(float(loss) for loss in network("soft", 10.0, 1).losses) > 100
    degrees = np.degrees(np.concatenate([filter_angles(W) for W in experiments.bank_kernels(models[0])]))
    assert one["mean"][-1] == pytest.approx(degrees.mean(), abs=1e-4)
    assert one["deviation"][-1] == pytest.approx(degrees.std(), abs=1e-4)
    assert one["distance"][-1] == pytest.approx(rms(degrees - 90), abs=1e-4)
    np.testing.assert_array_equal(one["counts"], np.histogram(degrees, experiments.BINS)[0])
    assert one["counts"].sum() == 120 + 2 * 496
    assert one["distance"][2] < 0.5 * one["distance"][0]  # the penalty works
    (_, _), (test, labels) = experiments._images()
    clean = np.mean(models[0].predict(test, verbose=0).argmax(-1) == labels)
    assert one["accuracy"][0] == pytest.approx(clean, abs=0.003)
    assert one["agreement"] == pytest.approx(experiments.output_agreement(models[0], test))
    assert one["seconds"] > 0


def test_steps_are_timed_against_the_plain_layer():
    found = experiments.step_cost("soft", units=16, batch=8, repeats=6)
    assert found["ms"] > 0
    assert found["low"] <= found["ratio"] <= found["high"]


# --- the choice of strengths ------------------------------------------------------------------------------


def record_of(*rows):
    columns = ("method", "strength", "task")
    rows = tuple(dict(zip(columns, (m, s, [9.0, loss]), strict=True)) for m, s, loss in rows)
    return records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows)


def test_a_penalty_is_as_strong_as_the_task_allows():
    tuning = record_of(
        ("plain", None, 1.0),
        ("soft", 0.1, 0.9),
        ("soft", 1.0, 1.04),
        ("soft", 10.0, 1.06),
        ("coherence", 0.1, 1.06),
        ("coherence", 1.0, 2.0),
        ("Muon", 0.1, 0.8),
        ("Muon", 1.0, 0.7),
        ("Muon", 2.0, 1.04),
    )
    assert experiments.choose(tuning, "plain") is None
    assert experiments.choose(tuning, "soft") == 1.0
    assert experiments.choose(tuning, "coherence") == 0.1  # none is allowed
    assert experiments.choose(tuning, "Muon") == 1.0
    with pytest.raises(ValueError, match="got 'hard'"):
        experiments.choose(tuning, "hard")


def test_seeds_are_compared_pair_by_pair():
    rows = (
        {"method": "a", "x": [0.0, 1.0], "y": 4.0},
        {"method": "a", "x": [0.0, 3.0], "y": 6.0},
        {"method": "b", "x": [0.0, 0.5], "y": 0.0},
        {"method": "b", "x": [0.0, 2.5], "y": 0.0},
    )
    record = records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows)
    assert experiments.over_seeds(record, "a", "y").value == 5.0
    assert experiments.over_seeds(record, "a", "x").value == 2.0
    assert experiments.over_seeds(record, "a", "x", entry=0).value == 0.0
    difference = experiments.over_seeds(record, "a", "x", against="b")
    assert (difference.value, difference.low, difference.high) == (0.5, 0.5, 0.5)


def training_record():
    run = {"seed": 1, "task": [1.0, 0.5], "agreement": 0.25, "counts": [0] * 30 + [7] + [0] * 29}
    rows = (
        {**run, "method": "plain", "strength": None, "distance": [5.0, 6.0], "accuracy": [0.8, 0.7, 0.6, 0.5]},
        {**run, "method": "plain", "strength": None, "distance": [5.0, 8.0], "accuracy": [0.9, 0.7, 0.6, 0.3]},
        {**run, "method": "soft", "strength": 0.1, "distance": [5.0, 1.0], "accuracy": [0.8, 0.7, 0.6, 0.5]},
        {**run, "method": "soft", "strength": 0.1, "distance": [5.0, 1.0], "accuracy": [0.8, 0.7, 0.6, 0.5]},
    )
    return records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows)


def test_the_summary_holds_means_over_the_seeds():
    header, plain, soft = experiments.summary(training_record()).splitlines()
    assert header.split() == ["factor", "loss", "distance", "agreement", "accuracy", "noisy"]
    assert plain.split() == ["plain", "0.500", "7.00°", "0.250", "85.0%", "40.0%"]
    assert soft.split() == ["soft", "0.1", "0.500", "1.00°", "0.250", "80.0%", "50.0%"]


def test_recorded_angles_are_drawn_as_recorded():
    record = training_record()
    one, other = experiments.draw_angles(record, ["plain", "soft"]).axes
    assert [ax.get_title() or ax.get_title(loc="left") for ax in (one, other)] == ["plain", "soft"]
    (stairs,) = one.patches
    np.testing.assert_array_equal(stairs.get_data().values, [0] * 30 + [14] + [0] * 29)
    lines = experiments.draw_drift(record, ["plain", "soft"]).axes[0].lines
    np.testing.assert_array_equal([line.get_ydata() for line in lines], [[5, 7], [5, 1]])
    plt.close("all")


# --- what is recorded -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Records go to a folder of the test's own, and the sizes are small."""
    sweep, load, cost = records.sweep, records.load, experiments.step_cost
    monkeypatch.setattr(records, "sweep", lambda *args, **kwargs: sweep(*args, root=tmp_path, **kwargs))
    monkeypatch.setattr(records, "load", lambda *args, **_: load(*args, root=tmp_path))
    losses = {None: 1.0, 1e-3: 1.0, 1e9: 2.0}

    def train(method, strength, seed, epochs):
        assert (method, epochs) in (("plain", 1), ("soft", 1)), seed
        return {"task": [losses[strength]]}

    monkeypatch.setattr(experiments, "train", train)
    monkeypatch.setattr(experiments, "step_cost", lambda method: cost(method, units=8, batch=4, repeats=6))
    monkeypatch.setattr(experiments, "METHODS", {"plain": (None,), "soft": (1e-3, 1e9)})
    monkeypatch.setattr(experiments, "SEEDS", (1,))
    monkeypatch.setattr(experiments, "EPOCHS", 1)
    return tmp_path


def test_the_command_line_tunes_then_trains_at_the_chosen_strength(tiny):
    kind = measure.device().kind
    assert experiments.main(["--scale", kind, "--only", "training"]) == 1  # nothing was tuned yet
    assert experiments.main(["--scale", kind]) == 0
    tuning = records.load("03-orthogonality", "tuning", kind)
    assert [(row["method"], row["strength"], row["seed"]) for row in tuning.rows] == [
        ("plain", None, 0),
        ("soft", 1e-3, 0),
        ("soft", 1e9, 0),
    ]
    training = records.load("03-orthogonality", "training", kind)
    assert [(row["method"], row["strength"], row["seed"]) for row in training.rows] == [
        ("plain", None, 1),
        ("soft", 1e-3, 1),
    ]
    (cost,) = records.load("03-orthogonality", "cost", kind).rows
    assert cost["method"] == "soft"
    assert tiny.joinpath("data").exists()


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["orthogonality", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.orthogonality", run_name="__main__")
    assert stopped.value.code == 0
    assert "tuning" in capsys.readouterr().out


def test_the_sign_of_the_experiments_is_a_sign():
    y = np.random.default_rng(0).standard_normal((200, 3))
    signs = np.sign(y)
    np.testing.assert_allclose(
        ops.convert_to_numpy(sign_agreement(y, experiments.SIGN)), signs.T @ signs / 200, atol=1e-6
    )
