"""The experiments of chapter 8: what a layer keeps is counted again, and each way to cut computes the same step."""

import runpy

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import ops
from shared import lifted_out

from lib.experiments.recompute import batches, drawings, formulas, networks, segments
from lib.recompute import Link, checkpoint_sequence, checkpoints, links, recompute
from lib.workbench.measure import device
from lib.workbench.records import Record

# TensorFlow's statistics on a CPU leave out blocks below 256 KiB: what is weighed here is larger.
TINY = {"hidden": 8, "heads": 2, "time": 4, "batch": 3}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# --- the networks and a step ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: networks.encoder(3, **TINY, dropout=0.0), lambda: networks.thin(3, 4, 5)])
def test_a_step_returns_the_loss_and_the_squared_norms_of_all_gradients(make):
    import tensorflow as tf

    layers, x = make()
    loss, *norms = networks.gradient_step(layers, x, "eager")()
    weights = [weight.value for layer in layers for weight in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = x
        for layer in layers:
            y = layer(y, training=True)
        expected = ops.mean(ops.square(y))
    gradients = tape.gradient(expected, [x, *weights])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(norms, [ops.sum(ops.square(g)) for g in gradients], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("mode", ["graph", "XLA"])
def test_a_compiled_step_is_the_eager_one(mode):
    layers, x = networks.thin(2, 4, 5)
    compiled, eager = (networks.gradient_step(layers, x, how)() for how in (mode, "eager"))
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)


def test_a_mode_that_a_backend_lacks_is_refused():
    with pytest.raises(ValueError, match="mode must be one of 'eager', 'graph', 'XLA' on tensorflow, got 'jit'"):
        networks.gradient_step(*networks.thin(1, 2, 2), "jit")


def test_bytes_are_those_of_numpy():
    for dtype in ("float32", "float16", "int64"):
        assert networks.bytes_of(ops.zeros((3, 5), dtype)) == np.zeros((3, 5), dtype).nbytes


# --- ways to cut ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["none", "whole", "twice", "nested", "layers", "norms", "sqrt", "3", "0-5"])
def test_every_way_to_cut_an_encoder_takes_the_same_step(way):
    layers, x = networks.encoder(6, **TINY, dropout=0.0)
    expected = networks.gradient_step(layers, x, "eager")()
    got = networks.gradient_step(segments.cut(way, layers), x, "eager")()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("way", ["operations", "whole", "5", "0-3-4"])
def test_every_way_to_cut_a_thin_chain_takes_the_same_step(way):
    layers, x = networks.thin(6, 4, 5)
    loss, dx, *_ = networks.gradient_step(layers, x, "eager")()
    got = networks.gradient_step(segments.cut(way, layers), x, "eager")()
    np.testing.assert_allclose(got[:2], [loss, dx], rtol=1e-4)


def test_an_unknown_way_or_network_is_refused():
    with pytest.raises(ValueError, match="segments must be"):
        segments.cut("random", networks.thin(2, 2, 2)[0])
    with pytest.raises(ValueError, match="kind must be 'encoder' or 'thin', got 'wide'"):
        segments.network("wide")


def test_all_cuts_are_the_subsets_of_the_inner_links():
    names = segments.all_cuts(5)
    assert len(names) == len(set(names)) == 2**4
    assert all(sorted(cut := [int(part) for part in name.split("-")]) == cut and cut[0] == 0 for name in names)


def test_a_last_product_is_not_computed_again():
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    expand, contract = (keras.layers.Dense(4, activation=how) for how in ("gelu", None))
    norm = keras.layers.LayerNormalization()
    x = tf.random.normal((2, 4))
    for layer in (expand, contract, norm):
        layer.build(x.shape)

    def products(*functions):
        layer = recompute(Link(lambda x: [x := f(x) for f in functions][-1], [expand, contract, norm]))

        def step(x):
            with tf.GradientTape() as tape:
                loss = ops.sum(layer(x, training=True) ** 2)
            return tape.gradient(loss, [expand.kernel.value, contract.kernel.value])

        graph = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec(x.shape))
        return sum("MatMul" in operation.type for operation in needed(graph))

    residual = lambda x: x + contract(expand(x))  # noqa: E731
    plain = 2 + 3  # forward, then two gradients of weights and one between them
    assert products(residual) == plain + 1
    assert products(residual, norm) == plain + 2


def needed(graph):
    """The operations of a graph that its outputs wait for."""
    found, open_ones = set(), [tensor.op for tensor in graph.outputs]
    while open_ones:
        operation = open_ones.pop()
        if operation not in found:
            found.add(operation)
            open_ones += [tensor.op for tensor in operation.inputs]
    return found


# --- what is measured -------------------------------------------------------------------------------------


def test_a_case_of_the_sweep_tells_memory_and_time():
    row = segments.segments("sqrt", "thin", rounds=6, layers=9, units=256, batch=512)
    assert row["bytes"] > 0
    assert row["low"] <= row["ratio"] <= row["high"]
    assert set(segments.segments("none", "thin", rounds=0, layers=2, units=256, batch=512)) == {"bytes"}


def test_less_memory_is_measured_where_less_is_held():
    sizes = {"layers": 36, "units": 128, "batch": 8192}  # 4 MiB an output, much more than a weight
    held = {way: segments.segments(way, "thin", rounds=0, **sizes)["bytes"] for way in ("none", "6", "whole")}
    assert held["6"] < 0.75 * held["none"]
    assert held["whole"] > 0.9 * held["none"]


def test_what_cannot_be_measured_here_is_measured_in_a_fresh_process():
    sizes = {"layers": 8, "units": 512, "batch": 512}  # 1 MiB an output; XLA on a CPU
    assert 8 * 2**20 <= segments.held_by("none", "thin", "XLA", **sizes) <= 48 * 2**20


def test_running_out_of_memory_is_a_row(monkeypatch):
    def exhausted(_):
        raise MemoryError

    monkeypatch.setattr(segments.measure, "peak_memory", exhausted)
    assert segments.segments("none", "thin", layers=2, units=2, batch=2) == {"out_of_memory": True}


def test_the_frontier_is_measured_at_the_blocks():
    row = segments.frontier("0-2", layers=3, hidden=64, heads=2, time=64, batch=32)
    assert row["bytes"] > 0
    assert row["seconds"] > 0


def test_the_cost_of_a_link_has_its_input_and_its_time():
    blocks, x = networks.encoder(1, hidden=64, heads=4, time=64, batch=32)
    for cost in segments.costs_of(links(blocks)[:2], x, rounds=6):
        assert cost.boundary == 32 * 64 * 64 * 4
        assert 0 <= cost.tail <= cost.seconds
        assert cost.inner > 0
        assert checkpoints.nothing([cost]).peak == cost.boundary + cost.inner + cost.working


def test_what_a_layer_keeps_is_half_of_what_two_more_add(monkeypatch):
    monkeypatch.setattr(segments, "held_by", lambda *_, layers, **__: 100 + 7 * layers)
    assert segments.kept_by_a_layer("thin", units=1, batch=1)["bytes"] == 7


def test_a_thin_layer_keeps_its_output(monkeypatch):
    from lib.workbench.measure import peak_memory_in_fresh_process

    monkeypatch.setattr(
        segments,
        "held_by",
        lambda way, kind, **sizes: peak_memory_in_fresh_process(segments.build, way=way, kind=kind, **sizes).bytes,
    )  # where TensorFlow has no larger blocks to recycle, which it would count in full
    kept = segments.kept_by_a_layer("thin", units=128, batch=8192)["bytes"]
    assert 4 * 2**20 <= kept <= 5 * 2**20


def test_only_torch_tells_what_it_saves():
    with pytest.raises(NotImplementedError, match="only torch"):
        segments.saved_bytes(*networks.thin(1, 2, 2))


# --- counted by hand --------------------------------------------------------------------------------------


def test_the_bytes_of_a_layer_are_the_published_ones():
    for s, b, h, a in [(128, 1, 768, 12), (512, 3, 1024, 16), (2048, 1, 12288, 96)]:
        assert formulas.layer_bytes(s, b, h, a) == pytest.approx(s * b * h * (34 + 5 * a * s / h))
        assert formulas.layer_bytes(s, b, h, a, scores=False) == 34 * s * b * h


def test_without_dropout_masks_and_copies_are_gone():
    with_, without = (formulas.layer_bytes(10, 2, 8, 4, 4, dropout=dropout) for dropout in (True, False))
    assert with_ - without == 2 * 10 * 2 * 8 + 4 * 10**2 * 2 * (4 + 1)


@pytest.mark.parametrize(
    ("layers", "s", "h", "a", "ratio"),
    [(12, 128, 768, 12, 528 / 66), (12, 512, 768, 12, 888 / 96), (24, 128, 1024, 16, 1056 / 90)],
)
def test_the_ratio_of_a_network_is_that_of_its_forecast(layers, s, h, a, ratio):
    assert formulas.network_ratio(layers, s, h, a) == pytest.approx(ratio)
    boundary = 2 * s * h
    whole = formulas.layer_bytes(s, 1, h, a)
    chain = [checkpoints.Cost(boundary, whole - boundary)] * layers
    assert formulas.network_ratio(layers, s, h, a) == pytest.approx(
        layers * whole / checkpoints.forecast(chain, range(layers)).peak
    )


def test_a_saving_is_that_of_two_forecasts():
    row = {"time": 6, "batch": 2, "hidden": 8, "heads": 2}
    chain = [checkpoints.Cost(4 * 6 * 2 * 8, formulas.layer_bytes(6, 2, 8, 2, 4, 4))] * 5
    each = checkpoints.forecast(chain, range(5))
    assert formulas.saving(row, 5) == pytest.approx(checkpoints.nothing(chain).peak / each.peak)


def test_the_recursive_scheme_takes_the_logarithm_of_the_depth():
    assert formulas.recursive_units(2**10, 1) == 10
    for k in (1, 2, 5):  # g(n) = k + g(n/(k + 1))
        assert formulas.recursive_units(360, k) == pytest.approx(k + formulas.recursive_units(360 / (k + 1), k))


# --- the largest batch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 100, 1000])
def test_the_largest_that_fits_is_found(limit):
    tried = []

    def fits(n):
        tried.append(n)
        return n <= limit

    assert batches.largest(fits, precision=0.0) == limit
    assert len(tried) <= 2 * max(limit, 1).bit_length() + 2
    near = batches.largest(lambda n: n <= limit)
    assert limit * (1 - 1 / 8) <= near <= limit


@pytest.mark.parametrize("start", [1, 5, 60, 100, 101, 140])
def test_a_first_guess_changes_the_way_and_not_the_result(start):
    assert batches.largest(lambda n: n <= 100, start, precision=0.0) == 100
    assert batches.largest(lambda n: n <= 0, start) == 0


def test_a_batch_that_does_not_fit_is_no_crash(monkeypatch):
    large = {"layers": 1, "hidden": 64, "heads": 2, "time": 1024}
    assert batches.batches("none", budget=1, **large) == {"batch": 0}
    steps = iter([True, True, False, False])
    monkeypatch.setattr(
        batches.measure, "attempt", lambda _: None if next(steps) else batches.measure.OutOfMemory("1 GiB")
    )
    sizes = {"layers": 2, "hidden": 8, "heads": 2, "time": 4}
    assert batches.batches("layers", budget=None, **sizes) == {"batch": 2}


def test_the_pace_is_that_of_a_sample(monkeypatch):
    from lib.workbench.measure import Contest, Timing

    race = Contest({"cut": Timing((8.0,) * 6), "plain": Timing((1.0,) * 6)})
    monkeypatch.setattr(batches.measure, "contest", lambda *_, **__: race)
    row = batches.pace("layers", 16, 4, layers=1, hidden=8, heads=2, time=4)
    assert row == {"ratio": 2.0, "low": 2.0, "high": 2.0}  # 8 s for 16 samples against 1 s for 4


# --- records and figures ----------------------------------------------------------------------------------


def record(rows):
    return Record(device(), {"backend": "torch"}, "2026-01-31", "", "cpu", tuple(rows))


def test_the_recorded_ways_to_cut_are_ways():
    main = runpy.run_module("lib.experiments.recompute.__main__", run_name="imported")
    lengths = np.diff([*map(int, main["SHRINKING"].split("-")), main["THIN"]["cpu"]["layers"]])
    assert list(lengths) == sorted(lengths, reverse=True)
    assert (
        checkpoints.forecast(
            [checkpoints.Cost(1, 1)] * 48, [int(part) for part in main["SHRINKING"].split("-")]
        ).peak
        == checkpoints.smallest([checkpoints.Cost(1, 1)] * 48).peak
    )


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_each_record_is_a_sweep_over_its_cases(scale, monkeypatch):
    main = runpy.run_module("lib.experiments.recompute.__main__", run_name="imported")
    made = {}

    def sweep(_, name, __, cases, **___):
        made[name] = cases
        assert len({tuple(sorted(case.items())) for case in cases}) == len(cases)

    monkeypatch.setattr(main["records"], "sweep", sweep)
    monkeypatch.setitem(main["_sweep"].__globals__, "one_thread", lambda: None)
    for name in ("segments", "race", "thin", "frontier", "depth", "kept", "batches"):
        main[f"_{name}"](scale)
    assert set(made) == {"segments", "race", "thin", "frontier", "depth", "kept", "batches"}
    assert len(made["frontier"]) == 2**11
    for case in made["segments"] + made["thin"]:
        few = {"layers": 12} if case["kind"] == "encoder" else {"layers": 48}
        assert case["layers"] == few["layers"]


def test_the_figures_show_what_they_are_given():
    costs = {"a": checkpoints.Cost(2**20, 2**21), "b": checkpoints.Cost(2**20, 2**20)}
    drawings.bars(costs, layers=3, cuts=[0, 1, 3, 5])
    assert [text.get_text() for text in plt.gca().texts] == [" 9 MiB", " 7 MiB"]
    drawings.law(12, 4)
    rows = [{"way": way, "units": 8, "batch": 4, "bytes": 128 * k} for k, way in enumerate(["none", "2", "0-3"], 2)]
    drawings.thin(record(rows), layers=5)
    assert drawings.units_of(record(rows)) == 128
    rows = [
        {"time": s, "heads": a, "hidden": 8, "batch": 1, "dropout": rate, "bytes": s}
        for s in (4, 8)
        for a in (4, 8)
        for rate in (0.0, 0.1)
    ]
    drawings.kept(record(rows))
    rows = [
        {"way": way, "dropout": 0.0, "bytes": 10, "ratio": 1.1, "low": 1.0, "high": 1.2}
        for way in ("none", "layers")
    ]
    drawings.ways(record(rows))
    rows = [{"cuts": cuts, "bytes": 10, "seconds": 1.0} for cuts in ("0", "0-1")]
    drawings.frontier(record(rows), checkpoints.frontier([checkpoints.Cost(1, 2)] * 2))
    rows = [{"way": way, "layers": n, "bytes": n} for way in ("none", "layers", "norms", "sqrt") for n in (3, 6)]
    drawings.depth(record(rows))
    assert len(plt.gca().lines) == 4


def test_the_forward_pass_alone_is_that_of_the_layer():
    (layer,), x = networks.thin(1, 4, 5)
    np.testing.assert_allclose(segments.forward_pass(layer, x)(), layer(x), rtol=1e-6)


def test_the_script_of_the_chapter_runs_with_its_idea_alone(tmp_path):
    assert lifted_out("08-recompute", ("recompute",), tmp_path, "import keras\nimport numpy as np") == "True True"


def test_a_chain_of_a_plan_takes_the_cuts_of_the_plan():
    blocks, x = networks.encoder(2, **TINY)
    chain = [checkpoints.Cost(1, 5)] * 8
    plan = checkpoints.plan(chain, 20)
    layer = checkpoint_sequence(blocks, plan)
    layer(x)
    assert tuple(layer.cuts) == plan.cuts
