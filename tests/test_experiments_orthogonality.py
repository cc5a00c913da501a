"""The experiments of chapter 3: the estimate is measured as defined, and every method trains the same network."""

import math
import runpy

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import ops
from shared import assert_accepts_its_solution_alone

from lib.experiments.orthogonality import agreement, drawings, exercises, fashion, sweeps, training
from lib.orthogonality import Orthogonalized, SelfOrthogonality, SoftOrthogonality, filter_angles, sign_agreement
from lib.workbench import measure, records
from lib.workbench.measure import Estimate


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


# --- the estimate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 180.0])
def test_a_pair_has_unit_filters_at_its_angle(degrees):
    W = agreement.pair_of_filters(np.radians(degrees), d=7, seed=3)
    assert W.shape == (7, 2)
    np.testing.assert_allclose(np.linalg.norm(W, axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(W[:, 0] @ W[:, 1], np.cos(np.radians(degrees)), atol=1e-12)
    assert not np.allclose(W, agreement.pair_of_filters(np.radians(degrees), d=7, seed=4))


def test_filters_are_orthonormal():
    W = agreement.orthonormal_filters(5, 9, seed=1)
    np.testing.assert_allclose(W.T @ W, np.eye(5), atol=1e-12)


def test_the_agreement_of_signs_is_that_of_a_steep_tanh():
    y = np.random.default_rng(0).standard_normal((200, 4))
    steep = agreement.pairs(ops.convert_to_numpy(sign_agreement(y, gamma=1e9)))
    np.testing.assert_allclose(agreement.of_signs(y), steep, atol=1e-6)


def test_on_normal_outputs_the_signs_obey_the_law_of_their_correlations():
    A = np.random.default_rng(0).standard_normal((6, 6))
    y = np.random.default_rng(1).standard_normal((50_000, 6)) @ A
    found, law = agreement.of_signs(y), agreement.of_correlations(y)
    np.testing.assert_allclose(found, law, atol=5 / math.sqrt(50_000))
    assert agreement.rms(law) > 0.1
    # On outputs that are not normal it need not hold: most agree, and the few large ones do not.
    mixed = np.array([[1, 1], [-1, -1]] * 4 + [[5, -5], [-5, 5]])
    assert agreement.of_signs(mixed)[0] > 0.5
    assert agreement.of_correlations(mixed)[0] < -0.4


@pytest.mark.parametrize(("gamma", "scale"), [(10.0, 0.01), (10.0, 0.1), (2.0, 0.5)])
def test_the_soft_estimate_tends_to_its_limit(gamma, scale):
    y = np.random.default_rng(2).standard_normal((100_000, 2)) @ agreement.pair_of_filters(np.pi / 3, 2, seed=2)
    found = float(ops.convert_to_numpy(sign_agreement(scale * y, gamma))[0, 1])
    assert found == pytest.approx(agreement.limit_agreement(np.pi / 3, gamma * scale), abs=0.015)


def test_the_limit_slides_from_the_cosine_to_the_wedge():
    for theta in (0.3, 2.5):
        limits = [agreement.limit_agreement(theta, a) for a in (1e-3, 1.0, 100.0)]
        assert limits[0] == pytest.approx(math.cos(theta), abs=1e-5)
        assert limits[-1] == pytest.approx(1 - 2 * theta / np.pi, abs=0.01)
        assert np.all(np.diff(limits) * np.sign(limits[-1] - limits[0]) > 0)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_cloud_has_its_correlation_and_shares_close_to_probabilities(correlation):
    x = agreement.cloud(correlation, 400)
    np.testing.assert_allclose(np.cov(x.T), [[1, correlation], [correlation, 1]], atol=0.15)
    for degrees in (30, 90, 150):
        w = np.transpose([[1, 0], [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]])
        C = w.T @ np.array([[1, correlation], [correlation, 1]]) @ w
        expected = np.arccos(C[0, 1] / math.sqrt(C[0, 0] * C[1, 1])) / np.pi
        assert np.mean(drawings.differ(x, w)) == pytest.approx(expected, abs=0.01)


def test_patches_are_pieces_of_the_images():
    patches = agreement.image_patches(5, 300, seed=1)
    assert patches.shape == (300, 25)
    np.testing.assert_allclose(patches.mean(axis=0), 0, atol=1e-6)
    # Neighbouring pixels are alike, as in images.
    assert np.corrcoef(patches[:, 12], patches[:, 13])[0, 1] > 0.7
    images = fashion.training_images()[0][..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(images[:20], (5, 5), axis=(1, 2)).reshape(-1, 25)
    blank = windows[np.ptp(windows, axis=1) == 0][0]
    raw = patches - patches.min(axis=0) + images.min()  # every pixel is black in some patch
    assert np.any(np.all(np.isclose(raw, blank, atol=1e-5), axis=1))


def test_constant_patches_are_those_left_out():
    every, varied = (agreement.image_patches(5, 2000, seed=1, constant=constant) for constant in (True, False))
    shapes = [patches - patches.mean(axis=1, keepdims=True) for patches in (every, varied)]
    # Centring moves every patch by the same one, so a constant patch is one of a known spread.
    ordinary = np.unique(shapes[0].round(9), axis=0, return_counts=True)[1].max()
    assert len(every) - len(varied) == ordinary > 100
    assert np.unique(shapes[1].round(9), axis=0, return_counts=True)[1].max() < 5


def test_a_draw_on_patches_is_of_orthonormal_filters_and_of_its_own_seed():
    one, other = agreement.on_patches([0, 1], count=3000, k=4)
    assert one.shape == (2, 6)
    assert not np.allclose(one, other)
    y = agreement.image_patches(5, 3000, 0) @ agreement.orthonormal_filters(4, 25, 0)
    np.testing.assert_array_equal(one[0], agreement.of_signs(y))
    np.testing.assert_allclose(one[1], 2 / np.pi * np.arcsin(agreement.pairs(np.corrcoef(y.T))))


def test_the_module_alone_makes_filters_orthogonal_where_inputs_are_isotropic(monkeypatch):
    found = agreement.module_alone("normal", seed=1, k=6, steps=200, count=4000)
    assert {key: value.shape for key, value in found.items()} == {
        "distance": (2,),
        "agreement": (2,),
        "correlation": (2,),
    }
    assert found["distance"][1] < 0.3 * found["distance"][0]
    # Where they are not, outputs agree less and filters stay. One coordinate is twenty times the others.
    x = np.random.default_rng(0).standard_normal((4000, 8)) * np.where(np.arange(8) == 0, 20.0, 1.0)
    monkeypatch.setattr(agreement, "image_patches", lambda *_, **__: x)
    other = agreement.module_alone("patches", seed=1, k=6, steps=200, count=4000)
    assert other["agreement"][1] < 0.5 * other["agreement"][0]
    assert other["correlation"][1] < 0.5 * other["correlation"][0]
    assert other["distance"][1] > 2 * found["distance"][1]
    with pytest.raises(ValueError, match="inputs must be one of normal"):
        agreement.module_alone("noise", seed=1)


# --- figures ----------------------------------------------------------------------------------------------


def dots(ax, marker):
    return np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == marker])


@pytest.mark.parametrize("degrees", [30, 100])
def test_the_wedge_holds_the_inputs_whose_signs_differ(degrees):
    ax = drawings.wedge(degrees).axes[0]
    differ, agree = dots(ax, "x"), dots(ax, "o")
    assert len(differ) / 300 == pytest.approx(degrees / 180, abs=0.1)
    assert len(differ) + len(agree) == 300
    inside, outside = (
        [wedge.contains_points(ax.transData.transform(points)) for wedge in ax.patches[:2]]
        for points in (differ, agree)
    )
    assert np.any(inside, axis=0).all()
    assert not np.any(outside)


def test_crosses_of_the_clouds_lie_in_the_shaded_quarters():
    for figure, share in zip(drawings.clouds(), [0.5, np.arccos(0.9) / np.pi], strict=True):
        ax = figure.axes[0]
        assert np.all(np.prod(dots(ax, "x"), axis=1) < 0)
        assert np.all(np.prod(dots(ax, "o"), axis=1) > 0)
        assert len(dots(ax, "x")) / 300 == pytest.approx(share, abs=0.02)
        assert (ax.get_title() or ax.get_title(loc="left")) == f"differ on {100 * len(dots(ax, 'x')) / 300:.0f} %"


def test_the_error_of_softness_is_drawn_as_computed():
    curves = [
        line.get_xydata() for line in drawings.softness((0.3, 10)).axes[0].lines if len(line.get_xydata()) > 9
    ]
    for sharpness, curve in zip((0.3, 10), curves, strict=True):
        for degrees, error in curve[[8, 30]]:
            limit = agreement.limit_agreement(np.radians(degrees), sharpness)
            assert error == pytest.approx(limit - (1 - degrees / 90), abs=1e-9)


def test_thick_frames_mark_the_patches_on_which_the_two_sides_differ():
    W = drawings.SIDES
    assert W[:, 0] @ W[:, 1] == 0
    shown = agreement.image_patches(5, 96, 2, constant=False)[:48]
    different = drawings.differ(shown, W)
    frames = drawings.patches()[1].axes[0].patches
    assert [frame.get_linewidth() > 2 for frame in frames] == different.tolist()
    assert 0 < different.sum() < 12


def test_the_explorable_counts_what_it_draws():
    e = drawings.stretched()
    frames = e.frames
    assert len(frames["told"]) == 44
    assert len(e.html) < 300_000
    for index in (0, e.start, 43):
        agree, differ, _, _, _, bar, mark = frames["paths"][index]
        count = [path.count("M") for path in (agree, differ)]
        assert sum(count) == 400
        assert f"they differ on {count[1] / 400:.0%}." in frames["told"][index]
        assert bar.endswith("Z")
        assert mark.startswith("M")


def test_on_a_round_cloud_the_bar_stands_at_the_mark():
    e = drawings.stretched()
    heights = []
    for *_, bar, mark in e.frames["paths"][::4]:
        heights.append((float(bar.split("L")[1].split()[1]), float(mark.split("L")[1].split()[1])))
    bars, marks = np.transpose(heights)
    np.testing.assert_allclose(bars, marks, atol=3)
    assert np.ptp(marks) > 100


def tuning_record():
    rows = []
    for method, grid in training.METHODS.items():
        for place, strength in enumerate(grid):
            loss = [1.0, 1.02, 1.3, 1.6][place + (len(grid) < 4 and place > 0)]
            for seed, shift in ((101, 0.01), (102, -0.01)):
                row = {"method": method, "strength": strength, "seed": seed, "agreement": 0.2 + place / 10}
                rows.append({**row, "task": [2.0, loss + shift], "distance": [5.0, 8.0]})
    return records.Record(measure.device(), {}, "2026-01-01", "", "cpu", tuple(rows))


def test_losses_and_the_chosen_strengths_are_drawn():
    panels = drawings.strengths(tuning_record())
    assert len(panels) == 3
    for figure in panels:
        rings = [line for line in figure.axes[0].lines if line.get_markersize() == 12]
        assert len(rings) == 2
        for ring in rings:
            assert ring.get_ydata()[0] <= 100 * (sweeps.ALLOWED - 1)


def test_a_forest_holds_the_interval_of_every_method():
    estimates = {method: Estimate(k + 0.5, k, k + 1) for k, method in enumerate(sweeps.COMPARED)}
    (figure,) = drawings.forest({"a title": estimates.__getitem__})
    lines = figure.axes[0].lines[::2]
    assert [tuple(line.get_xdata()) for line in lines] == [(e.low, e.high) for e in estimates.values()]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "plain",
        "weight decay",
        "soft",
        "module",
        "pair term",
        "hard",
    ]


def test_before_and_after_are_drawn_for_all_inputs():
    rows = tuple(
        {"inputs": inputs, "seed": seed, "distance": [12.0, 2.0 + seed], "agreement": [0.5, 0.1]}
        for inputs in agreement.INPUTS
        for seed in (1, 2)
    )
    figures = drawings.alone(records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows))
    points = [line.get_xdata()[0] for line in figures[0].axes[0].lines if line.get_marker() in "so"]
    assert points == [12.0, 3.5] * 3


def test_filters_are_drawn_as_recorded():
    values = np.random.default_rng(0).uniform(-1, 1, (16, 25)).round(2)
    row = {"method": "plain", "strength": None, "seed": 1, "filters": values.tolist()}
    (figure,) = drawings.filters(records.Record(measure.device(), {}, "2026-01-01", "", "cpu", (row,)))
    shown = figure.axes[0].images[0].get_array()
    fifth = values[5].reshape(5, 5)
    np.testing.assert_allclose(shown[6:11, 6:11], (fifth - fifth.min()) / np.ptp(fifth))


# --- the network ------------------------------------------------------------------------------------------


@pytest.fixture
def few_images(monkeypatch):
    """A training set of 640 images and a test set of 500."""
    (images, labels), (test_images, test_labels) = fashion.images_and_labels()
    monkeypatch.setattr(training, "training_images", lambda: (images[:640], labels[:640]))
    monkeypatch.setattr(training, "held_out_images", lambda: (test_images[:500], test_labels[:500]))
    training._compiled.cache_clear()
    return test_images[:500], test_labels[:500]


def test_pixels_are_standardised_over_the_training_images():
    (images, labels), (test_images, _) = fashion.images_and_labels()
    assert (images.shape, labels.shape, test_images.shape) == ((8000, 28, 28, 1), (8000,), (2000, 28, 28, 1))
    assert images.mean(dtype=float) == pytest.approx(0, abs=1e-4)
    assert images.std(dtype=float) == pytest.approx(1, abs=1e-4)
    assert fashion.held_out_images()[0] is test_images


@pytest.fixture(scope="module")
def networks():
    return {method: training.network(method, 0.01, seed=3) for method in training.METHODS}


@pytest.mark.parametrize("method", training.METHODS)
def test_every_method_starts_from_the_same_weights_and_computes_the_same(method, networks):
    images = fashion.training_images()[0][:4]
    plain, other = networks["plain"], networks[method]
    assert other.count_params() == plain.count_params()
    kernels = training.bank_kernels(other)
    assert [kernel.shape for kernel in kernels] == [(25, 16), (144, 32), (288, 32)]
    if method == "hard":
        for kernel in kernels:
            np.testing.assert_allclose(filter_angles(kernel), np.pi / 2, atol=1e-4)
    else:
        for one, two in zip(kernels, training.bank_kernels(plain), strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(
            ops.convert_to_numpy(other(images)), ops.convert_to_numpy(plain(images)), atol=1e-5
        )


def test_a_method_is_what_its_name_says(networks):
    def banks(method):
        return networks[method].layers[:-2:3]

    for method, kind in {"weight decay": keras.regularizers.L2, "soft": SoftOrthogonality}.items():
        assert all(isinstance(bank.kernel_regularizer, kind) for bank in banks(method))
    for method, (mean, corrected) in {
        "module": (1.0, False),
        "module, corrected": (1.0, True),
        "pair term": (0.0, False),
        "pair term, corrected": (0.0, True),
    }.items():
        for bank in banks(method):
            assert isinstance(bank, SelfOrthogonality)
            assert (bank.gamma, bank.lambda_mean, bank.lambda_pair) == (10.0, mean, 0.01)
            assert (bank.centred, bank.scale_invariant) == (corrected, corrected)
    assert all(isinstance(bank, Orthogonalized) for bank in banks("hard"))
    assert all(type(bank) is keras.layers.Conv2D for bank in banks("plain"))


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"method must be one of plain;.*got 'sharp'"):
        training.network("sharp", 0.1, seed=0)


def test_the_agreement_of_outputs_is_that_of_every_convolution_before_its_activation(networks):
    images = fashion.training_images()[0][:50]
    model = networks["plain"]
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
    assert training.output_agreement(model, images) == pytest.approx(expected, abs=1e-3)


def test_a_run_measures_what_it_says_and_repeats_with_its_seed(few_images):
    one = training.train("soft", 10.0, 1, epochs=2)
    model = training._compiled("soft", 10.0, 20)
    clean = np.mean(model.predict(few_images[0], verbose=0).argmax(-1) == few_images[1])
    assert one["accuracy"].shape == (2,)
    assert one["accuracy"][0] == pytest.approx(clean, abs=0.003)
    assert one["agreement"] == pytest.approx(training.output_agreement(model, few_images[0]))
    degrees = np.degrees(np.concatenate([filter_angles(W) for W in training.bank_kernels(model)]))
    assert one["distance"][1] == pytest.approx(agreement.rms(degrees - 90), abs=1e-4)
    assert one["distance"][1] < 0.6 * one["distance"][0]  # in twenty steps; without a penalty it grows
    assert one["task"][1] < one["task"][0] < 10  # without the penalty, which begins above 100
    # The graph that served another seed before trains as one of its own.
    _, other = training.fit("soft", 10.0, 2, epochs=2)
    own = training.network("soft", 10.0, 2, steps=20)
    history = own.fit(*training.training_images(), batch_size=64, epochs=2, verbose=0).history
    np.testing.assert_allclose(other["task"], history["task"], rtol=1e-4)
    assert abs(one["task"][0] - other["task"][0]) > 1e-3


def test_the_filters_that_are_drawn_are_those_of_the_first_layer(networks, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *_: (networks["module"], {}))
    found = training.first_filters("module", 0.01, 3)["filters"]
    kernel = networks["module"].layers[0].layer.get_weights()[0].reshape(25, 16).T
    assert found.shape == (16, 25)
    np.testing.assert_allclose(found, kernel / np.abs(kernel).max(axis=1, keepdims=True), atol=0.005)


# --- the choice of strengths ------------------------------------------------------------------------------


def record_of(*rows):
    rows = tuple(
        {"method": method, "strength": strength, "seed": seed, "task": [9.0, loss]}
        for method, strength, losses in rows
        for seed, loss in enumerate(losses)
    )
    return records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows)


def test_a_penalty_is_as_strong_as_the_task_allows_on_the_mean_of_the_seeds():
    tuning = record_of(
        ("plain", None, [1.0, 2.0]),
        ("soft", 0.1, [0.9, 1.9]),
        ("soft", 1.0, [1.08, 2.0]),  # one seed alone would not allow it
        ("soft", 10.0, [1.08, 2.2]),
        ("soft", 100.0, [0.9, 1.9]),  # beyond the edge
        ("weak", 0.1, [1.0, 2.0]),
        ("strong", 0.1, [2.0, 2.0]),
    )
    assert sweeps.choose(tuning, "plain") is None
    assert sweeps.choose(tuning, "soft") == 1.0
    ratio = sweeps.loss_ratio(tuning, "soft", 1.0)
    assert (ratio.value, ratio.low < 1.04 < ratio.high) == (pytest.approx(1.04), True)
    for method in ("weak", "strong"):
        with pytest.raises(ValueError, match=f"grid of '{method}' must hold the edge"):
            sweeps.choose(tuning, method)
    with pytest.raises(ValueError, match="got 'hard'"):
        sweeps.choose(tuning, "hard")


def test_the_recorded_grids_hold_the_edge():
    tuning = records.load("03-orthogonality", "tuning", "cpu")
    for method, grid in training.METHODS.items():
        if grid != (None,):
            assert min(grid) < sweeps.choose(tuning, method) < max(grid)


def test_seeds_are_compared_pair_by_pair():
    rows = (
        {"method": "a", "seed": 2, "x": [0.0, 3.0], "y": 6.0},
        {"method": "a", "seed": 1, "x": [0.0, 1.0], "y": 4.0},
        {"method": "b", "seed": 1, "x": [0.0, 0.5], "y": 0.0},
        {"method": "b", "seed": 2, "x": [0.0, 2.5], "y": 0.0},
    )
    record = records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows)
    assert sweeps.last(record, "y", method="a") == [4.0, 6.0]
    assert sweeps.mean(record, "x", method="a").value == 2.0
    assert sweeps.mean(record, "x", 0, method="a").value == 0.0
    difference = sweeps.against(record, "x", "a", "b")
    assert (difference.value, difference.low, difference.high) == (0.5, 0.5, 0.5)


def test_the_parts_of_the_module_are_told_apart():
    losses = {"module": 5.0, "module, corrected": 4.0, "pair term": 2.0, "pair term, corrected": 1.5}
    rows = tuple(
        {"method": method, "seed": seed, "task": [9.0, loss + seed]}
        for method, loss in losses.items()
        for seed in (1, 2)
    )
    terms = records.Record(measure.device(), {}, "2026-01-01", "", "cpu", rows)
    assert sweeps.effect(terms, "task", of_the_mean_term=True).value == 2.75
    assert sweeps.effect(terms, "task", of_the_mean_term=False).value == -0.75


# --- what is recorded -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Records go to a folder of the test's own, and the sizes are small."""
    sweep, load, alone = records.sweep, records.load, agreement.module_alone
    monkeypatch.setattr(records, "sweep", lambda *args, **kwargs: sweep(*args, root=tmp_path, **kwargs))
    monkeypatch.setattr(records, "load", lambda *args, **_: load(*args, root=tmp_path))
    losses = {None: 1.0, 1e-3: 1.0, 1e9: 2.0}
    monkeypatch.setattr(sweeps, "train", lambda **case: {"task": [losses[case["strength"]]]})
    monkeypatch.setattr(sweeps, "first_filters", lambda **case: {"filters": [[case["strength"]]]})
    monkeypatch.setattr(sweeps, "module_alone", lambda inputs, seed: alone(inputs, seed, k=3, steps=2, count=600))
    monkeypatch.setattr(sweeps, "METHODS", {"plain": (None,), "soft": (1e-3, 1e9)})
    monkeypatch.setattr(sweeps, "DRAWN", ("soft",))
    monkeypatch.setattr(sweeps, "COMPARED", ("plain", "soft"))
    monkeypatch.setattr(sweeps, "FORMS", ("soft",))
    monkeypatch.setattr(sweeps, "STRENGTH", 1e9)
    monkeypatch.setattr(sweeps, "TUNING_SEEDS", (7, 8))
    monkeypatch.setattr(sweeps, "SEEDS", (1,))
    return tmp_path


def test_the_command_line_tunes_then_trains_at_the_chosen_strength(tiny):
    kind = measure.device().kind
    assert sweeps.main(["--scale", kind, "--only", "training"]) == 1  # nothing was tuned yet
    assert sweeps.main(["--scale", kind]) == 0

    def rows(name, *keys):
        return [tuple(row[key] for key in keys) for row in records.load("03-orthogonality", name, kind).rows]

    expected = [("plain", None), ("soft", 1e-3), ("soft", 1e9)]
    assert rows("tuning", "method", "strength", "seed") == [(*case, seed) for case in expected for seed in (7, 8)]
    assert rows("training", "method", "strength", "seed") == [("plain", None, 1), ("soft", 1e-3, 1)]
    assert rows("terms", "method", "strength", "seed") == [("soft", 1e9, 1)]
    assert rows("filters", "method", "filters") == [("soft", [[1e-3]])]
    assert rows("alone", "inputs", "seed") == [(inputs, 1) for inputs in agreement.INPUTS]
    assert tiny.joinpath("data").exists()


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["orthogonality", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.orthogonality", run_name="__main__")
    assert stopped.value.code == 0
    assert "tuning" in capsys.readouterr().out


# --- the exercises ----------------------------------------------------------------------------------------

WRONG = {
    "3.1": [20, 80, 144, -36],
    "3.2": [90, 180, 90**2],
    "3.3": [90, 48, -48],
    "3.4": [90, 60, 75, 18],
    "3.5": [lambda d: np.eye(d), lambda d: np.random.default_rng(0).standard_normal((d, d + 1))],
    "3.6": [lambda x, k: np.eye(x.shape[1])[:, :k], lambda x, k: np.zeros((x.shape[1], k))],
    "3.7": ["I do not know."],
}


@pytest.mark.parametrize("number", exercises.SHEET.exercises)
def test_an_exercise_accepts_its_solution_and_nothing_else(number, capsys):
    assert_accepts_its_solution_alone(exercises.SHEET, number, WRONG[number], capsys)


def test_other_right_answers_are_accepted(capsys):
    exercises.check("3.4", np.degrees(np.arccos(1 / 3)))  # sharper than Welch's
    exercises.check("3.5", lambda d: 7 * exercises._solve_5()(d)[:, ::-1])
    exercises.check("3.6", lambda x, k: np.linalg.eigh(np.cov(x.T))[1][:, :k] * 3)
    assert capsys.readouterr().out.count("right.") == 3
