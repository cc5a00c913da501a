"""The experiments of chapter 8: what is held is counted again, and each way to cut computes the same step."""

import runpy

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from shared import lifted_out

from lib.experiments.recompute import batches, drawings, exercises, formulas, networks, schedule, segments, traps
from lib.recompute import Link, checkpoint_sequence, checkpoints, recompute
from lib.workbench import measure, records
from lib.workbench.records import Record

# TensorFlow's statistics on a CPU leave out blocks below 256 KiB: what is weighed here is larger.
TINY = {"hidden": 8, "heads": 2, "time": 4, "batch": 3}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def encoder():
    """Two blocks and their inputs, built once."""
    return networks.encoder(2, **TINY, dropout=0.0)


@pytest.fixture(scope="module")
def chain():
    """Six thin layers and their inputs."""
    return networks.thin(6, 4, 5)


# --- a step, tick by tick ---------------------------------------------------------------------------------

cuts_of_a_chain = st.integers(1, 14).flatmap(
    lambda n: st.tuples(st.just(n), st.sets(st.integers(1, max(n - 1, 1))).map(lambda s: [i for i in s if i < n]))
)


@given(cuts_of_a_chain)
def test_the_schedule_holds_what_the_formula_says_and_runs_again_what_it_says(case):
    layers, inner = case
    cuts = [0, *sorted(inner)]
    plan = checkpoints.forecast([checkpoints.Cost(1, 1)] * layers, cuts)
    held = schedule.held(schedule.lives(layers, cuts))
    assert held.max() == plan.peak
    assert len(held) == 2 * layers + plan.seconds


def test_a_value_lives_until_its_last_use():
    found = schedule.lives(3, [0])
    # Value 3 is needed by the gradient of layer 3 alone, which comes first; value 0 by that of layer 1, the last.
    assert [(life.value, life.born, life.ends) for life in found] == [(0, 0, 6), (1, 0, 6), (2, 1, 5), (3, 2, 4)]
    twice = [life for life in schedule.lives(3, [0, 2]) if life.value == 1]
    assert [(life.born, life.ends, life.again) for life in twice] == [(0, 2, False), (4, 8, True)]


def test_all_ways_to_cut_are_the_subsets_of_the_inner_layers():
    found = [*schedule.choices(5)]
    assert len({*found}) == 2**4
    assert found[0b0110] == (0, 2, 3)
    assert ["-".join(map(str, cuts)) for cuts in sorted(found, key=lambda c: (len(c), c))] == segments.all_cuts(5)


def test_arrays_are_counted_while_they_are_held():
    def held_and_dropped(x):
        kept = [x * i for i in range(3)]
        return sum(one.sum() for one in kept)

    x = np.ones(2**15)
    assert schedule.arrays_held(held_and_dropped, x) == 3
    assert schedule.arrays_held(lambda x: [(x * i).sum() for i in range(9)], x) == 1


# --- the networks and a step ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder", "chain"])
def test_a_step_returns_the_loss_and_the_squared_norms_of_all_gradients(name, request):
    import tensorflow as tf

    layers, x = request.getfixturevalue(name)
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


# --- ways to cut ------------------------------------------------------------------------------------------


def step_of(layers, x):
    return np.array([float(one) for one in networks.gradient_step(layers, x, "eager")()])


@pytest.mark.parametrize("way", ["none", "whole", "article", "layers", "norms", "sqrt", "3", "0-5"])
def test_every_way_to_cut_an_encoder_takes_the_same_step(way, encoder):
    layers, x = encoder
    got, expected = step_of(segments.cut(way, layers), x), step_of(layers, x)
    # The segments name the weights in another order.
    np.testing.assert_allclose(np.sort(got), np.sort(expected), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("way", ["operations", "whole", "5", "0-3-4"])
def test_every_way_to_cut_a_thin_chain_takes_the_same_step(way, chain):
    layers, x = chain
    got, expected = step_of(segments.cut(way, layers), x), step_of(layers, x)
    np.testing.assert_allclose(got[:2], expected[:2], rtol=1e-4)


def test_an_unknown_way_or_network_is_refused():
    with pytest.raises(ValueError, match="segments must be"):
        segments.cut("random", networks.thin(2, 2, 2)[0])
    with pytest.raises(ValueError, match="kind must be 'encoder' or 'thin', got 'wide'"):
        segments.network("wide")


def graph_of(function, *arguments):
    import tensorflow as tf

    return tf.function(function, autograph=False).get_concrete_function(*arguments)


def test_multiplications_are_those_of_the_products_that_are_needed():
    import tensorflow as tf

    x, y = tf.ones((2, 3)), tf.ones((2, 5))
    assert segments.products(graph_of(lambda: tf.matmul(x, y, transpose_a=True))) == 3 * 2 * 5
    assert segments.products(graph_of(lambda: tf.ones((7, 2, 3)) @ tf.ones((7, 3, 5)))) == 7 * 2 * 3 * 5

    def unneeded():
        tf.matmul(x, y, transpose_a=True)
        return x + 1

    assert segments.products(graph_of(unneeded)) == 0


def test_a_step_multiplies_three_times_as_much_as_a_forward_pass_and_each_cut_what_is_counted(encoder):
    layers, x = encoder
    links = formulas.link_costs(TINY["time"], TINY["batch"], TINY["hidden"], TINY["heads"]) * 2
    forward = sum(cost.seconds for cost in links)
    ways = {"none": None, "layers": [0, 4], "norms": [0, 1, 3, 5, 7]}
    for way, cuts in ways.items():
        step = networks.gradient_step(segments.cut(way, layers), x)
        again = checkpoints.forecast(links, cuts).seconds if cuts else 0
        assert segments.products(step.func.get_concrete_function(*step.args)) == 3 * forward + again, way
    step = networks.gradient_step(segments.cut("article", layers), x)
    everything = checkpoints.forecast(links, range(8), [False] * 8).seconds
    assert segments.products(step.func.get_concrete_function(*step.args)) == 3 * forward + everything


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

        return segments.products(graph_of(step, tf.TensorSpec(x.shape)))

    residual = lambda x: x + contract(expand(x))  # noqa: E731
    one = 2 * 4 * 4
    plain = (2 + 3) * one  # forward, then two gradients of weights and one between them
    assert products(residual) == plain + one
    assert products(residual, norm) == plain + 2 * one


# --- what is measured -------------------------------------------------------------------------------------


def test_less_memory_is_measured_where_less_is_held():
    sizes = {"layers": 16, "units": 64, "batch": 8192}  # 2 MiB an output, much more than a weight
    rows = {way: segments.memory(way, "thin", **sizes) for way in ("none", "4")}
    assert rows["4"]["bytes"] < 0.75 * rows["none"]["bytes"]
    one = 64 * 64 * 8192
    assert rows["none"]["products"] == 3 * 16 * one
    assert rows["4"]["products"] == (3 * 16 + 12) * one  # a layer's gradient needs its output, so all products


def test_the_gradient_of_a_weight_is_gone_when_the_next_layer_has_its_own():
    # Weights of 4 MiB, outputs of 32 KiB: 12 gradients at once would be 48 MiB.
    held = segments.memory("none", "thin", layers=12, units=1024, batch=8)["bytes"]
    assert held < 24 * 2**20


def test_what_cannot_be_measured_here_is_measured_in_a_fresh_process(monkeypatch):
    def unmeasurable(*_):
        raise measure.UnmeasurableError("not here")

    def fresh(builder, **case):
        assert builder is segments.build
        assert case == {"way": "none", "kind": "thin", "mode": "XLA", "layers": 2, "units": 2, "batch": 2}
        return measure.Peak(7, "", 0)

    monkeypatch.setattr(segments.measure, "peak_memory", unmeasurable)
    monkeypatch.setattr(segments.measure, "peak_memory_in_fresh_process", fresh)
    assert segments.held_by("none", "thin", "XLA", layers=2, units=2, batch=2) == 7


def test_running_out_of_memory_is_a_row(monkeypatch):
    def exhausted(_):
        raise MemoryError

    monkeypatch.setattr(segments.measure, "peak_memory", exhausted)
    assert segments.memory("none", "thin", layers=2, units=2, batch=2) == {"out_of_memory": True}


def test_a_race_is_a_contest_with_nothing_recomputed(monkeypatch):
    def contest(contestants, repeats):
        assert [*contestants] == ["none", "2"]
        return measure.Contest({"none": measure.Timing((1.0,) * repeats), "2": measure.Timing((1.5,) * repeats)})

    monkeypatch.setattr(segments.measure, "contest", contest)
    row = segments.race("2", "thin", rounds=6, layers=2, units=2, batch=2)
    assert row == {"seconds": 1.5, "ratio": 1.5, "low": 1.5, "high": 1.5}


def test_the_frontier_is_measured_at_the_blocks():
    assert segments.frontier("0-2", layers=3, hidden=64, heads=2, time=64, batch=32)["bytes"] > 0


def test_what_a_layer_keeps_is_half_of_what_two_more_add(monkeypatch):
    monkeypatch.setattr(segments, "held_by", lambda *_, layers, **__: 100 + 7 * layers)
    assert segments.kept_by_a_layer("thin", units=1, batch=1)["bytes"] == 7


def test_only_torch_tells_what_it_saves_and_when():
    with pytest.raises(NotImplementedError, match="only torch"):
        segments.saved_bytes(*networks.thin(1, 2, 2))
    with pytest.raises(NotImplementedError, match="only torch"):
        segments.timeline("none", "thin", layers=1, units=2, batch=2)


# --- the second run ---------------------------------------------------------------------------------------


def test_a_plain_layer_and_a_recomputed_one_have_the_gradient_of_their_mask():
    assert traps.share_of_right_entries(lambda layer: layer, seed=1) == 1
    assert traps.share_of_right_entries(recompute, seed=1) == 1
    assert traps.updates(recompute) == 1


def test_another_mask_is_seen():
    def other_mask(layer):
        def call(x, training):
            y, other = layer(x, training=training), layer(x, training=training)
            return other + ops.stop_gradient(y - other)

        return call

    assert 0.4 < traps.share_of_right_entries(other_mask, seed=1) < 0.6
    assert traps.updates(other_mask) == 2


# --- counted by hand --------------------------------------------------------------------------------------


def test_the_bytes_of_a_layer_are_the_published_ones():
    for s, b, h, a in [(128, 1, 768, 12), (512, 3, 1024, 16), (2048, 1, 12288, 96)]:
        assert formulas.layer_bytes(s, b, h, a) == pytest.approx(s * b * h * (34 + 5 * a * s / h))
        assert formulas.layer_bytes(s, b, h, a, scores=False) == 34 * s * b * h


def test_without_dropout_masks_and_copies_are_gone():
    with_, without = (formulas.layer_bytes(10, 2, 8, 4, 4, dropout=dropout) for dropout in (True, False))
    assert with_ - without == 2 * 10 * 2 * 8 + 4 * 10**2 * 2 * (4 + 1)


@pytest.mark.parametrize("dropout", [True, False])
def test_the_links_of_a_block_keep_and_multiply_what_the_block_does(dropout):
    s, b, h, a = 10, 2, 8, 4
    links = formulas.link_costs(s, b, h, a, dropout=dropout)
    assert sum(cost.inner for cost in links) == formulas.layer_bytes(s, b, h, a, 4, 4, dropout)
    # Queries, keys, values and the last map; two products of all pairs; two maps of four times the width.
    assert sum(cost.seconds for cost in links) == b * (4 * s * h * h + 2 * s * s * h + 2 * s * h * 4 * h)


def test_the_frontier_of_a_network_goes_from_keeping_all_to_the_least_memory():
    front = formulas.front(3, 128, 64, 4)
    chain = formulas.link_costs(128, 1, 64, 4) * 3
    assert front[0].tolist() == [1, 0]
    assert front[-1, 0] == checkpoints.smallest(chain).peak / checkpoints.nothing(chain).peak
    assert (np.diff(front[:, 0]) < 0).all()
    assert (np.diff(front[:, 1]) > 0).all()
    assert front[-1, 1] <= 1 / 3


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
    monkeypatch.setattr(batches, "_step", lambda *_: None)
    monkeypatch.setattr(batches, "_held", lambda _way, batch, _sizes: 10 * batch)
    assert batches.batches("none", budget=1) == {"batch": 0}
    assert batches.batches("none", budget=205, precision=0.0) == {"batch": 20}
    steps = iter([True, True, False, False])
    monkeypatch.setattr(
        batches.measure, "attempt", lambda _: None if next(steps) else batches.measure.OutOfMemory("1 GiB")
    )
    assert batches.batches("layers", budget=None) == {"batch": 2}


def test_the_pace_is_that_of_a_sample(monkeypatch):
    race = measure.Contest({"cut": measure.Timing((8.0,) * 6), "plain": measure.Timing((1.0,) * 6)})
    monkeypatch.setattr(batches, "_step", lambda *_: None)
    monkeypatch.setattr(batches.measure, "contest", lambda *_, **__: race)
    row = batches.pace("layers", 16, 4, layers=1, hidden=8, heads=2, time=4)
    assert row == {"ratio": 2.0, "low": 2.0, "high": 2.0}  # 8 s for 16 samples against 1 s for 4


# --- records and figures ----------------------------------------------------------------------------------


def test_the_recorded_ways_to_cut_are_ways():
    main = runpy.run_module("lib.experiments.recompute.__main__", run_name="imported")
    cuts = [*map(int, main["SHRINKING"].split("-"))]
    lengths = np.diff([*cuts, main["THIN"]["cpu"]["layers"]])
    assert list(lengths) == sorted(lengths, reverse=True)
    unit = [checkpoints.Cost(1, 1)] * 48
    assert checkpoints.forecast(unit, cuts).peak == checkpoints.smallest(unit).peak


SWEEPS = ("cuts", "race", "remat", "timeline", "thin", "frontier", "depth", "kept", "batches", "pace")


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_each_record_is_a_sweep_over_its_cases(scale, monkeypatch):
    main = runpy.run_module("lib.experiments.recompute.__main__", run_name="imported")
    made = {}

    def sweep(_, name, __, cases, **___):
        made[name] = cases
        assert len({tuple(sorted(case.items())) for case in cases}) == len(cases)
        return record([{"time": 128, "way": "none", "batch": 6}])

    monkeypatch.setattr(main["records"], "sweep", sweep)
    monkeypatch.setitem(main["_sweep"].__globals__, "one_thread", lambda: None)
    for name in SWEEPS:
        main[f"_{name}"](scale)
    assert {*made} == {*SWEEPS}
    assert len(made["frontier"]) == 2**11
    assert {case["dropout"] for case in made["cuts"]} == {0.0, 0.1}
    assert {case["plain_batch"] for case in made["pace"]} == {10 if scale == "cpu" else 6}


def record(rows):
    return Record(measure.device(), {"backend": "torch"}, "2026-01-31", "", "cpu", tuple(rows))


def stored(name):
    return records.load("08-recompute", name, "cpu")


def test_a_second_run_multiplies_as_much_and_holds_the_same_but_for_two_buffers():
    rows = stored("cuts").rows
    assert len(rows) == 12
    for way in ("none", *drawings.CUTS):
        first, second = stored("cuts").where(way=way, dropout=0.1)
        assert first["products"] == second["products"]
        assert abs(first["bytes"] - second["bytes"]) <= 2 * 4 * 2 * 256 * 256


def test_the_figures_show_what_they_are_given():
    kept, blocks, magnified = drawings.timelines(
        record([{"way": "none", "held": [0, 2**23, 0]}, {"way": "layers", "held": [0, 2**21, 0]}])
    )
    assert [figure.axes[0].texts[0].get_text() for figure in (kept, blocks, magnified)] == ["8", "2", "2"]
    assert kept.axes[0].get_ylim() == blocks.axes[0].get_ylim() != magnified.axes[0].get_ylim()
    plain, cut = drawings.values_held(6, [(0,), (0, 3)], ["a", "b"])
    assert [figure.axes[1].texts[0].get_text() for figure in (plain, cut)] == ["7", "5"]
    assert len(cut.axes[0].patches) == len(schedule.lives(6, (0, 3)))
    figure = drawings.thin(stored("thin-torch"))
    assert drawings.units_of(stored("thin-torch")) == 4 * 4096 * 256
    assert len(figure.axes[0].lines) == 4
    assert len(drawings.kept(stored("kept-torch")).axes[0].lines) == 8
    plans = checkpoints.frontier([checkpoints.Cost(1, 2)] * 2)
    figure = drawings.every_cut(record([{"cuts": cuts, "bytes": 2**20} for cuts in ("0", "0-1")]), plans)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0, 1]
    figure = drawings.three_cuts()
    assert [len(ax.patches) for ax in figure.axes] == [8, 2, 5]
    for figure in drawings.costs_of_cuts(stored("cuts")):
        assert len(figure.axes[0].texts) >= 3
    figure = drawings.depth(stored("depth-torch"))
    assert len(figure.axes[0].lines) == 3


def test_the_explorable_shows_every_way_to_cut():
    shown = drawings.placing_cuts()
    assert len(shown.frames["paths"]) == 2**11
    assert len(shown.html) < 300_000
    assert shown.told == "At most 7 values are held, and 8 layers run again."
    peaks = [checkpoints.forecast([checkpoints.Cost(1, 1)] * 12, cuts).peak for cuts in schedule.choices(12)]
    told = [shown.frames["told"][place] for place in shown.frames["at"]]
    assert all(text.startswith(f"At most {peak} values") for text, peak in zip(told, peaks, strict=True))
    least = min(peaks)
    assert [text.endswith("No cuts hold less.") for text in told] == [peak == least for peak in peaks]


# --- the chapter ------------------------------------------------------------------------------------------


def test_the_script_of_the_chapter_runs_with_its_idea_alone(tmp_path):
    assert lifted_out("08-recompute", ("recompute",), tmp_path, "import keras\nimport numpy as np") == "True True"


def test_a_chain_of_a_plan_takes_the_cuts_of_the_plan(encoder):
    blocks, x = encoder
    plan = checkpoints.plan([checkpoints.Cost(1, 5)] * 8, 20)
    layer = checkpoint_sequence(blocks, plan)
    layer(x)
    assert tuple(layer.cuts) == plan.cuts


@pytest.mark.parametrize("number", exercises.SHEET.exercises)
def test_a_solution_passes_and_says_numbers(number):
    assert any(character.isdigit() for character in exercises.solution(number).printed)


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        ("8.1", 144),
        ("8.2", 24),
        ("8.3", 3.46),
        ("8.4", lambda r, c, cuts: sum(c[: len(cuts)]) + max(r)),
        ("8.5", [0, 5, 10, 15, 20, 25]),
        ("8.6", lambda f, x, rng: (f(x, rng), f(x, rng))),
        ("8.6", lambda f, x, rng: (f(x, rng),) * 3),
        ("8.6", lambda f, x, rng: (f(x, rng),) * 2),  # one call
        ("8.7", "Measure it."),
    ],
)
def test_a_wrong_answer_is_not_right(number, wrong, capsys):
    exercises.check(number, wrong)
    assert "not yet" in capsys.readouterr().out


@pytest.mark.parametrize("cuts", [(0, 8, 15, 21, 26, 29), np.array([0, 7, 14, 20, 25, 29])])
def test_another_best_answer_is_right(cuts, capsys):
    exercises.check("8.5", cuts)
    assert capsys.readouterr().out == "Exercise 8.5: right.\n"
