"""The ways of chapter 9 from MiniLM to a smaller network, their costs, and what is known without running."""

import inspect
import os
import re
import runpy
from functools import cache, lru_cache

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats
from scipy.stats import linregress
from shared import assert_accepts_its_solution_alone, lifted_out, require

from lib.bert import Encoder
from lib.experiments.theseus import (
    accuracy,
    comparison,
    compression,
    costs,
    drawings,
    exercises,
    findings,
    formulas,
    images,
    reviews,
)
from lib.theseus import curriculum
from lib.workbench import corpora, figures
from lib.workbench.claims import Ledger
from lib.workbench.measure import Device, Estimate
from lib.workbench.records import Record

BLOCKS = 4
SIZES = {"vocabulary": 30, "hidden": 8, "layers": BLOCKS, "num_heads": 2, "inner": 16, "dropout": 0.1}
#: Of a road and of the training before it; all tests share one predecessor.
STEPS = {"steps": 4, "teacher_steps": 2}


@pytest.fixture(scope="module")
def trained_once():
    """The predecessor of the narrow encoder, trained for the first test that asks for it."""
    return lru_cache(maxsize=1)(compression.predecessor.__wrapped__)


@pytest.fixture(scope="module")
def taken_once():
    """What each road gives, taken for the first test that asks for it."""
    return cache(lambda road, blocks, start: compression.compress(0, road, blocks, start, **STEPS))


@pytest.fixture
def taken(tiny, taken_once):  # noqa: ARG001
    """Takes a road on the corpus below, if no test has taken it yet."""
    return taken_once


@pytest.fixture
def tiny(monkeypatch, trained_once, eager_models):  # noqa: ARG001
    """A corpus in which the first word tells the class, and an encoder of four narrow blocks for it."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30, (96, 8)).astype("int32")
    ids[rng.random((96, 8)) < 0.3] = 0
    ids[:, 0] = rng.integers(1, 30, 96)
    ids = np.sort(ids, axis=1)[:, ::-1]
    part = reviews.Part(ids, (ids[:, 0] > 27).astype("int32"))
    corpus = reviews.Reviews(part, part, part, np.arange(30))

    def pretrained(seed):
        keras.utils.set_random_seed(seed)
        encoder = Encoder.from_sizes(**SIZES, seed=seed)
        encoder.build((None, None))
        first = Encoder(encoder.embeddings, [])
        first.trainable = False
        return first, encoder.blocks

    for module in (reviews, compression):
        monkeypatch.setattr(module, "reviews", lambda: corpus)
    for name, value in {"HEADS": 2, "HIDDEN": 8, "INNER": 16}.items():
        monkeypatch.setattr(reviews, name, value)
    monkeypatch.setattr(compression, "BLOCKS", BLOCKS)
    monkeypatch.setattr(compression, "HEALING", 0.5)  # of so few steps
    monkeypatch.setattr(compression, "pretrained", pretrained)
    monkeypatch.setattr(compression, "predecessor", trained_once)
    return corpus


# --- the reviews ------------------------------------------------------------------------------------------------


def test_the_reviews_are_split_once_and_for_all():
    try:
        corpus = reviews.reviews()
    except corpora.CorpusError as missing:
        require(False, str(missing))
    assert [len(part.labels) for part in corpus[:3]] == [5070, 1000, 4000]
    assert [round(float(part.labels.mean()), 4) for part in corpus[:3]] == [0.4933, 0.499, 0.4988]
    sentences = np.concatenate([part.ids for part in corpus[:3]])
    assert sentences.max() < len(corpus.rows)
    assert np.all(sentences[:, 0] == np.flatnonzero(corpus.rows == 101))  # each begins with [CLS]
    assert corpus.rows[0] == 0


def test_a_pass_takes_each_review_once_and_the_next_pass_in_another_order():
    lengths = np.random.default_rng(1).integers(1, 33, 64)
    ids = np.where(np.arange(32) < lengths[:, None], 1 + np.arange(64)[:, None], 0).astype("int32")
    part = reviews.Part(ids, np.arange(64, dtype="int32"))
    steps = [*reviews.batches(part, 4, seed=0)]
    assert sorted(np.concatenate([y for _, y in steps[:2]]).tolist()) == [*range(64)]
    assert sorted(np.concatenate([y for _, y in steps[2:]]).tolist()) == [*range(64)]
    assert {*steps[0][1].tolist()} not in ({*steps[2][1].tolist()}, {*steps[3][1].tolist()})
    for x, y in steps:
        assert x.shape[1] % 8 == 0
        assert np.all(x[:, 0] == 1 + y)
        assert np.array_equal((x != 0).sum(axis=1), lengths[y])  # nothing but padding was cropped


def test_targets_go_with_their_reviews():
    part = reviews.Part(np.arange(1, 65, dtype="int32")[:, None], np.zeros(64, "int32"))
    for x, y in reviews.batches(part, 3, seed=0, targets=2 * part.ids):
        assert np.array_equal(2 * x[:, :1], y)


def test_outputs_come_in_the_order_of_the_sentences(tiny):
    first, blocks = compression.pretrained(0)
    model = keras.Sequential([first, *blocks, *reviews.head(0)])
    assert np.allclose(reviews.outputs(model, tiny.dev.ids), np.asarray(model(tiny.dev.ids)), atol=1e-5)


def test_a_judgement_counts_and_weighs_the_right_class(tiny):
    class Known(keras.layers.Layer):
        def call(self, ids):
            right = keras.ops.cast(ids[:, 0] > 27, "float32")
            return keras.ops.stack([0 * right, keras.ops.log(9.0) * (2 * right - 1)], axis=1)

    model = keras.Sequential([Known()])
    teacher = reviews.outputs(model, tiny.test.ids)
    row = reviews.judged(model, tiny.test, teacher)
    assert row["accuracy"] == 1
    assert row["loss"] == pytest.approx(-np.log(0.9), rel=1e-5)
    assert row["kl"] == pytest.approx(0, abs=1e-7)
    assert reviews.judged(model, tiny.test, -teacher)["kl"] == pytest.approx(0.8 * np.log(9), rel=1e-5)


def test_linear_blocks_have_the_weights_of_the_softmax(tiny):  # noqa: ARG001
    _, blocks = compression.pretrained(0)
    for old, new in zip(blocks, reviews.linear_blocks(blocks), strict=True):
        assert old.count_params() == new.count_params()
        assert np.array_equal(old.attention.query.kernel, new.attention.query.kernel)
        assert np.array_equal(old.norm.gamma, new.norm.gamma)


# --- the roads --------------------------------------------------------------------------------------------------

EVERY = [("fine-tuning", 2, "pretrained"), ("distillation", 1, "random"), ("best blocks", 2, "pretrained")]
EVERY += [("curriculum", 2, "linear"), ("uniform", 1, "pretrained"), ("pruning", 4, "pretrained")]
EVERY += [("8 bits", 4, "pretrained"), ("old head", 2, "pretrained")]


@pytest.mark.parametrize(("road", "blocks", "start"), EVERY)
def test_each_road_ends_at_a_network_of_its_size(taken, road, blocks, start):
    row = taken(road, blocks, start)
    block = 4 * (8 * 8 + 8) + 2 * 8 * 16 + 16 + 8 + 4 * 8
    assert row["weights"] == blocks * block + 8 * 2 + 2
    assert 0 <= row["accuracy"] <= 1
    assert row["kl"] >= 0
    assert row["effort"] >= 0
    assert ("before" in row) == (road in compression.SCHEDULES)


@pytest.mark.parametrize(
    ("road", "start"),
    [("fine-tuning", "pretrained"), ("fine-tuning", "linear"), ("curriculum", "random"), ("uniform", "linear")],
)
def test_a_case_gives_the_same_numbers_to_the_bit_whatever_ran_before_it(taken, road, start):
    first = taken(road, 2, start)
    keras.utils.set_random_seed(7)
    again = compression.compress(0, road, 2, start, **STEPS)  # in the predecessor that the first has used
    assert {**again, "seconds": None} == {**first, "seconds": None}


def test_a_predecessor_that_is_trained_anew_gives_the_same_numbers_to_the_bit(taken):
    first = taken("fine-tuning", 2, "pretrained")
    compression.predecessor.cache_clear()
    keras.utils.set_random_seed(7)
    again = compression.compress(0, "fine-tuning", 2, "pretrained", **STEPS)
    assert {**again, "seconds": None} == {**first, "seconds": None}


def test_a_rewound_layer_drops_out_as_at_the_first_time(tiny):
    first, _ = compression.pretrained(0)
    dropped = [np.asarray(first(tiny.test.ids, training=True)) for _ in range(2)]
    again = reviews.rewound(first)
    assert not again.trainable_variables
    np.testing.assert_array_equal(again(tiny.test.ids, training=True), dropped[0])
    np.testing.assert_array_equal(again(tiny.test.ids, training=True), dropped[1])
    assert np.any(dropped[0] != dropped[1])


def test_a_predecessor_is_trained_once_a_seed_and_left_as_it_is(tiny):
    old = compression.predecessor(0, STEPS["teacher_steps"])
    before = [weight.numpy() for block in old.blocks for weight in block.weights]
    compression.compress(0, "curriculum", 2, "pretrained", **STEPS)
    assert compression.predecessor(0, STEPS["teacher_steps"]) is old
    after = [weight.numpy() for block in old.blocks for weight in block.weights]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert np.allclose(reviews.outputs(old.chain(old.blocks), tiny.test.ids), old.logits, atol=1e-5)


def test_half_of_each_pruned_matrix_is_zero(taken):
    assert taken("pruning", 4, "pretrained")["zeros"] == pytest.approx(0.5, abs=0.01)


def test_a_weight_of_eight_bits_is_off_by_half_a_unit_at_most(tiny):
    old = compression.predecessor(0, STEPS["teacher_steps"])
    model, _ = compression._eight_bits(compression.Task(old, old.blocks, tiny.train, 0, 0, 0.0, False, True))
    exact, rounded = (np.asarray(block.expand.kernel) for block in (old.blocks[0], model.layers[1]))
    unit = np.abs(exact).max(axis=0) / 127
    assert 0 < np.abs(exact - rounded).max() <= 0.5001 * unit.max()
    assert len(np.unique(np.round(rounded / unit).astype(int))) <= 255


def test_the_blocks_of_the_predecessor_can_replace_themselves(tiny):  # noqa: ARG001
    old = compression.predecessor(0, STEPS["teacher_steps"])
    two = [keras.Sequential(old.blocks[i : i + 2]) for i in (0, 2)]
    found = compression.looked_inside(old, two)
    assert len(found["mixtures"]) == 4
    assert len({*found["mixtures"].values()}) == 1
    assert found["cka"] == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize("road", ["fine-tuning", "distillation", "curriculum"])
def test_a_small_model_can_be_given_some_of_the_sentences(tiny, monkeypatch, road):
    seen = []

    def given(part, steps, seed, targets=None):
        seen.append((part.ids, targets))
        return reviews.batches(part, steps, seed, targets)

    compression.predecessor(0, STEPS["teacher_steps"])
    monkeypatch.setattr(compression, "batches", given)
    compression.compress(0, road, 2, "pretrained", **STEPS, sentences=40)
    assert len(seen) == (2 if road == "curriculum" else 1)  # one for each stage
    for ids, targets in seen:
        np.testing.assert_array_equal(ids, tiny.train.ids[:40])
        assert (targets is None) == (road != "distillation")
        assert targets is None or len(targets) == 40


@pytest.mark.parametrize(("blocks", "places"), [(4, (0, 1, 2, 3)), (2, (1, 3)), (1, (3,))])
def test_a_module_may_start_as_the_last_trained_block_that_it_stands_for(tiny, blocks, places):  # noqa: ARG001
    old = compression.predecessor(0, STEPS["teacher_steps"])
    started = compression._start("own", old, blocks, seed=0)
    for block, place in zip(started, places, strict=True):
        assert block is not old.blocks[place]
        for weight, kept in zip(block.get_weights(), old.blocks[place].get_weights(), strict=True):
            np.testing.assert_array_equal(weight, kept)


def test_under_the_old_head_the_blocks_learn_and_the_head_does_not(tiny):
    old = compression.predecessor(0, STEPS["teacher_steps"])
    old = old._replace(first=reviews.rewound(old.first))
    task = compression.Task(old, reviews.twins(old.untrained[:2]), tiny.train, 0, 4, 1e-2, True, True)
    model, found = compression._old_head(task)
    _, *blocks, _, dense = model.layers
    for kept, weight in zip(old.head[-1].get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, weight)
    for block, untrained in zip(blocks, old.untrained[:2], strict=True):
        assert np.any(block.get_weights()[0] != untrained.get_weights()[0])
    # So the network is the mixture in which all is replaced: no head stands between the blocks and the comparison.
    assert found["mixtures"]["11"] == reviews.judged(model, tiny.dev.first(compression.INSIDE))["accuracy"]


def test_theseus_can_stop_before_its_third_stage(tiny):  # noqa: ARG001
    case = {"seed": 0, "road": "curriculum", "blocks": 2, "start": "pretrained", **STEPS}
    whole, cut = (compression.compress(**case, alone=alone) for alone in (True, False))
    assert cut["accuracy"] == whole["before"]["accuracy"]
    assert cut["predicted"] == whole["before"]["predicted"]
    assert whole["effort"] - cut["effort"] == compression.effort_of_training(2, 2)


def test_best_blocks_are_the_best_on_the_dev_part(tiny, taken):
    old = compression.predecessor(0, STEPS["teacher_steps"])
    row = taken("best blocks", 2, "pretrained")
    right = {
        (a, b): reviews.judged(old.chain([old.blocks[a], old.blocks[b]]), tiny.dev)["accuracy"]
        for a in range(BLOCKS)
        for b in range(a + 1, BLOCKS)
    }
    assert right[tuple(row["chosen"])] == max(right.values()) == row["untrained_accuracy"]


def test_effort_is_what_is_counted_pass_by_pass():
    assert compression.effort_of_training(3, 7) == 7 * sum((1 + 2) for _ in range(3))
    # With rate 1 the predecessor never runs; with rate 0 its two blocks run forwards and backwards each.
    assert compression.effort_of_theseus(3, 100, rate=1.0) == compression.effort_of_training(3, 100)
    assert compression.effort_of_theseus(3, 100, rate=0.0) == 75 * 3 * 2 * (1 + 1) + 25 * 3 * 3
    assert compression.effort_of_theseus(2, 100, rate=0.5, both=True) == 75 * 2 * (3 + 3 * 2) + 25 * 2 * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"road": "levitation"}, "road must be one of .*'fine-tuning'.*, got 'levitation'"),
        ({"blocks": 3}, "blocks must divide 4, got 3"),
        ({"start": "thin air"}, "start must be 'pretrained', 'own', 'random' or 'linear', got 'thin air'"),
    ],
)
def test_what_cannot_be_is_refused(tiny, changed, message):  # noqa: ARG001
    case = {"seed": 0, "road": "fine-tuning", "blocks": 2, "start": "pretrained", **STEPS}
    with pytest.raises(ValueError, match=message):
        compression.compress(**{**case, **changed})


# --- costs and formulas ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager_models")
def test_a_smaller_network_is_timed_against_the_large_one():
    sizes = {"layers": 2, "small": 1, "hidden": 16, "heads": 2, "time": 8, "batch": 2, "rounds": 6}
    for contestant, backward in (("small, alone", False), ("replacement", True)):
        row = costs.costs(contestant, backward, **sizes)
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
    with pytest.raises(ValueError, match=r"contestant must be one of .*, got 'none'"):
        costs.costs("none", backward=True, **sizes)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_the_patterns_have_the_binomial_number_of_replaced_modules(p):
    counts = np.zeros(5)
    for gates, probability in formulas.patterns(4, p).items():
        counts[sum(gates)] += probability
    assert np.allclose(counts, formulas.replaced(4, p))
    assert np.dot(counts, np.arange(5)) == pytest.approx(4 * p)


@pytest.mark.parametrize(("optimizer", "power"), [("SGD", 1.0), ("Adam", 0.5)])
def test_a_weight_moves_with_the_rate_or_its_root(optimizer, power):
    rates = [0.1, 0.2, 0.4, 0.8]
    distances = formulas.moved(optimizer, rates, steps=1500, draws=10)
    slopes = [linregress(np.log(rates), np.log(one)).slope for one in distances]
    assert len({*slopes}) == 10  # each has steps of its own
    assert np.mean(slopes) == pytest.approx(power, abs=0.06)
    if optimizer == "Adam":
        skipped = {own: exercises._solve_6()(np.arange(1000) % 5 == 0, own) for own in (True, False)}
        assert skipped[True] == pytest.approx(200)  # a weight that counts its own steps moves a rate in each
        keras_moved = formulas.moved("Adam", [0.2], steps=200, idle=None)
        used = np.random.default_rng(0).random((200, 2))[:, 0] < 0.2
        assert 200 * keras_moved.item() == pytest.approx(exercises._solve_6()(used, False), rel=1e-3)


def test_adam_of_torch_skips_and_counts_for_each_weight():
    torch = pytest.importorskip("torch")
    weights = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    adam = torch.optim.Adam(weights, lr=1e-3)
    for step in range(100):
        adam.zero_grad()
        loss = -(weights[0] + (weights[1] if step % 5 == 0 else 0)).sum()
        loss.backward()
        adam.step()
    assert weights[1].item() / weights[0].item() == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("schedule", ["constant", "rising", "falling"])
def test_every_step_trains_one_mixture(schedule):
    counts = formulas.trained_so_far(0.3, schedule, steps=50)
    assert counts.sum() == pytest.approx(50)
    rng = np.random.default_rng(0)
    rate = {"constant": 0.3, "rising": np.linspace(0.3, 1, 50), "falling": np.linspace(1, 0.3, 50)}[schedule]
    tossed = rng.random((4000, 3, 50)) < rate
    assert tossed.all(axis=1).sum(axis=1).mean() == pytest.approx(counts[-1], abs=0.3)


def test_gates_are_tossed_as_in_a_training():
    assert formulas.tossed(0.0, steps=20, modules=2).sum() == 0
    gates = formulas.tossed(curriculum(0.0, 1000), steps=1000, modules=4)
    early, late = gates[:500].mean(), gates[500:].mean()
    assert early == pytest.approx(0.25, abs=0.05)
    assert late == pytest.approx(0.75, abs=0.05)


# --- answers and figures -----------------------------------------------------------------------------------------


def rows_of(correct, teacher=None, **more):
    """Rows of a record whose networks are right as told; all labels are 1."""
    teacher = np.ones_like(correct) if teacher is None else teacher
    return [
        {"seed": i, "predicted": comparison.pack(a), "teacher": comparison.pack(b), **more}
        for i, (a, b) in enumerate(zip(correct, teacher, strict=True))
    ]


def test_differences_are_taken_on_the_seeds_that_both_have():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 40)) < 0.7
    labels = np.ones(40, int)
    found = accuracy.difference(rows_of(a), rows_of(b)[:2], labels)
    np.testing.assert_allclose(found, 100 * (a[:2].mean(axis=1) - b[:2].mean(axis=1)))
    np.testing.assert_allclose(accuracy.kept(rows_of(a, b), labels), 100 * a.mean(axis=1) / b.mean(axis=1))
    np.testing.assert_allclose(accuracy.agreement(rows_of(a, b), 40), 100 * np.mean(a == b, axis=1))
    teachers = accuracy.as_teacher(rows_of(a, b))
    np.testing.assert_allclose(accuracy.difference(rows_of(b), teachers, labels), 0)
    one_by_one = [comparison.mcnemar(x, y) for x, y in zip(a, b, strict=True)]
    assert accuracy.p_values(rows_of(a), rows_of(b), labels) == one_by_one


def test_a_seed_that_occurs_twice_is_refused():
    rows = rows_of(np.ones((1, 8), int))
    with pytest.raises(ValueError, match=r"rows must be one a seed, got those of the seeds \[0, 0\]"):
        accuracy.right(rows * 2, np.ones(8))


def test_the_losses_of_mixtures_are_those_of_the_mean_over_seeds():
    seeds = [{"mixtures": {"00": 0.9, "01": x, "10": 0.7, "11": 0.6}} for x in (0.8, 0.6)]
    lists = [{"replaced": [*row["mixtures"]], "accuracy": [*row["mixtures"].values()]} for row in seeds]
    for rows in (seeds, lists):
        assert accuracy.lost(rows) == pytest.approx({"00": 0, "01": 0.2, "10": 0.2, "11": 0.3})
        assert accuracy.hardest(rows) == pytest.approx([0.2, 0.2])


def test_the_opened_networks_are_those_of_their_road_and_steps():
    def case(road, steps):
        return {"road": road, "blocks": 3, "start": "pretrained", "steps": steps}

    ways = [("curriculum", 160), ("curriculum", 650), ("fine-tuning", 160), ("fine-tuning", 650)]
    half, opened = record(case(*way) for way in ways), record(case("old head", steps) for steps in (160, 650))
    opened = record([*opened.rows, {**case("curriculum", 650), "alone": False}])
    short, long = findings.looked_into(half, opened).values()
    assert [*short] == ["Theseus", "direct, old head", "direct"]
    assert [*long] == ["Theseus", "direct, old head"]
    for steps, ways in ((160, short), (650, long)):
        assert ways.keys() <= drawings.COLOURS.keys()
        assert all(row["steps"] == steps for rows in ways.values() for row in rows)
    assert long["Theseus"] == opened.rows[2:]  # before its third stage


def test_ways_are_compared_on_the_seeds_that_both_have():
    rows = [{"seed": seed, "kl": kl, "mixtures": {"0": 0.9, "1": right}} for seed, kl, right in SEEDS]
    assert findings.log_ratio(rows[::-1], rows[:2]) == pytest.approx([0, 0])
    worse = [{**row, "mixtures": {"0": 0.9, "1": row["mixtures"]["1"] - 0.1}} for row in rows[1:]]
    assert findings.worst_mixtures({"Theseus": rows, "direct": worse})["direct"] == pytest.approx([10, 10])


SEEDS = [(0, 0.1, 0.8), (1, 0.2, 0.6), (2, 0.4, 0.5)]


def test_so_many_seeds_decide_and_no_fewer():
    samples = [0.3, 1.2, 0.9, 0.1]
    needed = accuracy.seeds_needed(samples, 0.0)
    mean, spread = np.mean(samples), np.std(samples, ddof=1)
    for n, enough in ((needed - 1, False), (needed, True)):
        assert (stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) <= mean) == enough
    assert accuracy.seeds_needed(samples, mean) is None


def record(rows):
    return Record(Device("an abacus", "cpu", 1, None), {"backend": "beads"}, "2026-01-31", "", "cpu", tuple(rows))


def test_the_usual_setting_is_that_of_the_experiment():
    defaults = inspect.signature(images.successor).parameters
    assert {name: defaults[name].default for name in drawings.SETTING} == drawings.SETTING


def test_every_figure_draws_what_it_is_given():
    rng = np.random.default_rng(0)
    figures.use_book_style()

    def row(**setting):
        return {**setting, "accuracy": rng.random(), "kl": rng.random(), "old_accuracy": 0.9}

    ways = [{"way": way, "images": n} for n in drawings.SIZES for way in ("direct", "distillation", "theseus")]
    ways += [{"way": "direct", "images": n, "steps": 120} for n in drawings.SIZES]
    contest = record(row(seed=seed, **way) for way in ways for seed in range(3))
    looked = [{"mixtures": {"0": 0.9, "1": rng.random()}} for _ in range(3)]
    drawn = {
        drawings.ship: (rng.random((9, 6)) < 0.5, [0, 8], ["before", "after"]),
        drawings.swap: (),
        drawings.movement: ([0.1, 0.9], {"SGD": [0.1, 0.9], "Adam": [0.3, 0.95], "Adam, skipped": [0.2, 0.9]}),
        drawings.mixtures: ({"here": {"Theseus": looked}, "there": {"direct, old head": looked}}, (30, 70)),
        drawings.fidelity: ({"a": {"direct": contest.rows[:3]}, "b": {"Theseus": contest.rows[3:6]}},),
        drawings.gains: ({"a": [0.5, 0.6, 0.4], "b": [-1.0, 1.0]}, "points"),
        drawings.sizes: (contest,),
    }
    for draw, given in drawn.items():
        made = draw(*given)
        for figure in made if isinstance(made, list) else [made]:
            assert all(ax.has_data() or ax.patches for ax in figure.axes), draw.__name__
            assert figures.svg(figure)
        plt.close("all")
    explored = drawings.mixtures_trained()
    assert len(explored.frames["told"]) == 9 * 3 * 6
    assert "75 train the successor as a whole" in explored.told


def test_a_gain_is_drawn_where_its_interval_lies():
    (ax,) = drawings.gains({"a": [0.4, 0.5, 0.6]}, "points").axes
    plt.close("all")
    (interval,) = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] != 0]
    estimate = Estimate.from_samples([0.4, 0.5, 0.6])
    assert interval.get_xdata() == pytest.approx([estimate.low, estimate.high])


def test_the_tables_tell_the_seeds_that_decide():
    told = findings.table({"a − b": [0.9, 1.0, 1.1], "nothing": [-1.0, 1.0]})
    assert "3 seeds, 2 decide" in told
    assert "2 seeds, over 1,000 decide" in told
    decided = findings.decisions({"9.5": [-0.2, -0.3, -0.1]}, Ledger("09-theseus"))
    assert re.search(r"9\.5 +3 +0\.10 +0\.70 +3", decided)


def test_each_exercise_accepts_its_solution_alone(capsys):
    for number, wrong in WRONG.items():
        assert_accepts_its_solution_alone(exercises.SHEET, number, wrong, capsys)


WRONG = {
    "9.1": [0.5, 0.5**12],
    "9.2": [1.0, 7 / 2],
    "9.3": [0.05, 0.00102],
    "9.4": [lambda differences, margin: 5, lambda differences, margin: len(differences)],  # noqa: ARG005
    "9.5": [lambda _, B: (B, B), lambda A, B: (2 * B - A, (A + B) / 2)],
    "9.6": [lambda used, own_count: float(used.sum())],  # noqa: ARG005
    "9.7": ["Take more seeds."],
}


def test_the_script_of_the_chapter_runs_with_its_idea_alone(tmp_path):
    seeded = "import keras\nimport numpy as np\nkeras.utils.set_random_seed(0)"
    loss, *_ = lifted_out("09-theseus", ("theseus", "recompute"), tmp_path, seeded).split()
    assert float(loss) < 0.5  # the square that it fits has the mean 1


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_every_case_of_the_command_can_be_run(monkeypatch, scale):
    """Its functions are called with arguments that they have, and with settings that there are."""
    main = runpy.run_module("lib.experiments.theseus.__main__", run_name="imported")
    swept = {}

    def sweep(chapter, name, function, cases, *, scale):  # noqa: ARG001
        swept[name] = function, cases

    monkeypatch.setitem(main["_sweep"].__globals__, "records", type("Records", (), {"sweep": staticmethod(sweep)}))
    monkeypatch.setitem(main["_sweep"].__globals__, "one_thread", lambda: None)
    names = ["images", "contest", "gradients", "costs", "half", "others", "few", "opened", "blocks"]
    for name in names:
        main[f"_{name}"](scale)
    assert list(swept) == names
    for function, cases in swept.values():
        assert len({*map(str, cases)}) == len(cases)
        for case in cases:
            inspect.signature(function).bind(**case)
    for _, cases in (swept[name] for name in ("half", "others", "few", "opened")):
        assert all(case["road"] in {*compression.SCHEDULES} or compression._road(case["road"]) for case in cases)
        assert all(reviews.BLOCKS % case["blocks"] == 0 for case in cases)


@pytest.mark.usefixtures("eager_models")
def test_the_contest_looks_at_the_networks_that_it_trains():
    main = runpy.run_module("lib.experiments.theseus.__main__", run_name="imported")
    quick = {"images": 100, "known": 100, "steps": 2, "old_steps": 2}
    row = main["_with_mixtures"](0, "direct", **quick)
    assert row["mixtures"]["000"] == row["old_accuracy"]
    assert row["mixtures"]["111"] == row["accuracy"]
    assert len(row["mixtures"]) == 8


def test_a_child_is_replaced_after_so_many_calls():
    main = runpy.run_module("lib.experiments.theseus.__main__", run_name="imported")
    child = main["_in_children"](os.getpid, calls=2)
    first, second, third = child(), child(), child()
    assert first == second != third != os.getpid() != first


@pytest.mark.parametrize("blocks", [3, 2])
def test_all_the_work_of_theseus_buys_the_steps_of_the_long_training(blocks):
    main = runpy.run_module("lib.experiments.theseus.__main__", run_name="imported")
    sizes = main["SIZES"]["cpu"]
    alone = compression.effort_of_training(blocks, main["_equal_effort"]("cpu", blocks))
    paid = compression.effort_of_theseus(blocks, sizes["pretrained"], 0.75)
    paid += compression.effort_of_training(reviews.BLOCKS, sizes["teacher"])
    assert alone == pytest.approx(paid, rel=1e-3)
