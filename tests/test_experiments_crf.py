"""The experiments of chapter 4: their numbers are what they are called, and every case is run at every scale."""

import runpy
from functools import lru_cache, partial
from inspect import signature
from itertools import chain, pairwise, product

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from shared import assert_accepts_its_solution_alone

from lib.crf import CRF, log_likelihood, marginals
from lib.experiments import labelling
from lib.experiments.crf import corpora, drawings, exercises, finetuning, gradients, matrices, road, sweeps
from lib.experiments.labelling import Corpus, Part
from lib.workbench import explorables, records

# That a tagger learns the same in a graph is tested in test_tagging.
pytestmark = pytest.mark.usefixtures("eager_models")

#: The transitions of article 7196: with one rate for everything, and with one 1000 times as large for the CRF.
ONE_RATE, TWO_RATES = matrices.PUBLISHED[1e-5], matrices.PUBLISHED[1e-2]
SMALL = {"sentences": 64, "test": 16, "longest": 9, "batch": 16}


@pytest.fixture(autouse=True, scope="module")
def words():
    """A corpus of the words "ab", "c" and "abc" in place of the newspaper, and small encoders."""
    rng = np.random.default_rng(0)
    spellings = (([2, 3], [1, 3]), ([4], [0]), ([2, 3, 4], [1, 2, 3]))

    def part(count, longest):
        characters, tags = np.zeros((count, longest), np.int32), np.full((count, longest), -1, np.int32)
        for row in range(count):
            chosen = [spellings[i] for i in rng.integers(3, size=rng.integers(2, longest // 3 + 1))]
            text, labels = (list(chain(*parts)) for parts in zip(*chosen, strict=True))
            characters[row, : len(text)], tags[row, : len(labels)] = text, labels
        return Part(characters, tags)

    def segmentation(train, dev, test, longest):
        parts = (part(count, longest) for count in (train, dev, test))
        return Corpus(*parts, ("", "?", "a", "b", "c"), ("s", "b", "m", "e"))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(corpora, "segmentation", segmentation)
        for name in finetuning.ENCODERS:
            small = partial(labelling.convolutional, width=8, layers=1)
            monkeypatch.setitem(finetuning.ENCODERS, name, small)
        yield
    corpora.words.cache_clear()
    finetuning.trained_by_softmax.cache_clear()


# --- matrices of transitions ------------------------------------------------------------------------------


def test_the_matrices_of_the_article_are_judged_as_the_article_does():
    one, two = matrices.preferences(ONE_RATE), matrices.preferences(TWO_RATES)
    assert (one["separated"], two["separated"]) == (2, 4)
    assert (two["legal"], two["forbidden"]) == pytest.approx((2.13, -2.67), abs=0.01)
    assert two["inverted"] == 0
    assert one["inverted"] == sum(
        ONE_RATE[i, j] <= ONE_RATE[i, k]
        for i, (legal, illegal) in enumerate(
            [((0, 1), (2, 3)), ((2, 3), (0, 1)), ((2, 3), (0, 1)), ((0, 1), (2, 3))]
        )
        for j in legal
        for k in illegal
    )


def test_equal_scores_prefer_nothing():
    found = matrices.preferences(np.zeros((4, 4)))
    assert (found["legal"], found["forbidden"], found["separated"], found["inverted"]) == (0, 0, 0, 16)


def test_random_transitions_are_those_of_glorot():
    drawn = np.array([matrices.glorot(seed) for seed in range(500)])
    limit = np.sqrt(6 / 8)
    assert np.abs(drawn).max() <= limit
    assert drawn.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    np.testing.assert_array_equal(matrices.glorot(3), drawn[3])
    keras_limit = np.abs(ops.convert_to_numpy(keras.initializers.GlorotUniform(0)((400, 400)))).max()
    assert keras_limit == pytest.approx(np.sqrt(6 / 800), rel=0.01)


# --- the gradient of the transitions ----------------------------------------------------------------------


def random_sentences(seed, n=6, time=5):
    rng = np.random.default_rng(seed)
    emissions = rng.standard_normal((n, time, 4))
    tags = rng.integers(0, 4, (n, time))
    tags[np.arange(time) >= rng.integers(1, time + 1, (n, 1))] = -1
    return emissions, tags


def test_margins_are_leads_of_the_right_tag():
    emissions, tags = random_sentences(0)
    expected = [
        row[t][tag] - max(np.delete(row[t], tag))
        for row, sentence in zip(emissions, tags, strict=True)
        for t, tag in enumerate(sentence)
        if tag >= 0
    ]
    np.testing.assert_allclose(gradients.margins(emissions, tags), expected)


def test_gradient_norms_are_those_of_the_likelihood():
    emissions, tags = random_sentences(1)
    moves = (tags[:, 1:] >= 0).sum()
    epsilon, slopes = 1e-4, np.zeros((len(tags), 4, 4))
    for i in range(4):
        for j in range(4):
            shift = np.zeros((4, 4))
            shift[i, j] = epsilon
            up, down = (
                ops.convert_to_numpy(
                    log_likelihood(
                        np.maximum(tags, 0),
                        ops.convert_to_tensor(emissions, "float64"),
                        ops.convert_to_tensor(sign * shift, "float64"),
                        mask=tags >= 0,
                    )
                )
                for sign in (1, -1)
            )
            slopes[:, i, j] = (down - up) / (2 * epsilon)
    found = gradients.gradient_norms(emissions, tags)
    assert found["sentence"] == pytest.approx(np.abs(slopes).sum() / moves, rel=1e-6)
    assert found["corpus"] == pytest.approx(np.abs(slopes.sum(axis=0)).sum() / moves, rel=1e-6)


def test_padded_steps_have_no_gradient():
    emissions, tags = random_sentences(2)
    spoiled = np.where(tags[..., None] < 0, np.nan, emissions)
    assert gradients.gradient_norms(spoiled, tags) == gradients.gradient_norms(emissions, tags)


def test_the_gradient_dies_with_the_margin():
    found = [gradients.gradient_at_margin(margin, sentences=100, longest=12) for margin in sweeps.MARGINS]
    for norms in found:
        assert norms["corpus"] <= norms["sentence"] <= norms["bound"] + 1e-12
    for key in ("corpus", "sentence", "bound"):
        assert all(after[key] < before[key] for before, after in pairwise(found))
    assert found[0]["bound"] == pytest.approx(2 * 15 / 16)
    assert found[-1]["sentence"] < 1e-3 * found[0]["sentence"]


def test_the_bound_is_the_norm_of_a_single_move():
    for margin in (0.0, 1.5, 6.0):
        emissions = margin * np.eye(4)[[[1, 3]]]
        norm = gradients.gradient_norms(emissions, [[1, 3]])["sentence"]
        p = np.exp(margin) / (np.exp(margin) + 3)
        assert norm == pytest.approx(2 * (1 - p**2))


@pytest.mark.parametrize(("optimizer", "multiplier", "power"), [("sgd", 10.0, 2), ("adam", 10.0, 1)])
def test_a_multiplier_acts_squared_under_gradient_descent_and_once_under_adam(optimizer, power, multiplier):
    found = road.step_ratio(optimizer, multiplier, rate=1e-4, steps=2)
    assert found == pytest.approx(multiplier**power, rel=0.02)


def test_a_ratio_builds_no_graph(caplog):
    # Each is used for a step or two; TensorFlow warns of the fifth such graph in a row, in the reader's notebook.
    with caplog.at_level("WARNING"):
        for _ in range(4):
            road.step_ratio("sgd", 2.0)
    assert caplog.text == ""


# --- fine-tuning ------------------------------------------------------------------------------------------


@lru_cache
def finetune(multiplier, initial="zeros"):
    return finetuning.finetune("weak", multiplier, initial, 2, **SMALL, epochs=3, steps=10, rate=1e-4)


def test_no_transition_outruns_its_budget():
    for multiplier in (1, 1000):
        row = finetune(multiplier)
        assert row["budget"] == pytest.approx(10 * 1e-4 * multiplier)
        assert 0.2 * row["budget"] < row["displacement"] <= 1.05 * row["budget"]
        np.testing.assert_array_equal(row["initial_transitions"], 0)
        assert row["displacement"] == pytest.approx(np.abs(row["transitions"]).max())
        assert row["correlation"] is None


def test_a_small_rate_leaves_random_transitions_where_they_were():
    row = finetune(1, "glorot")
    np.testing.assert_allclose(row["initial_transitions"], matrices.glorot(2))
    assert row["correlation"] > 0.999
    np.testing.assert_allclose(row["transitions"], matrices.glorot(2), atol=1.05 * row["budget"])
    assert row["displacement"] > 0


def test_multiplier_zero_keeps_the_transitions_and_trains_the_encoder():
    row = finetune(0)
    np.testing.assert_array_equal(row["transitions"], 0)
    assert (row["displacement"], row["budget"]) == (0, 0)


def test_without_transitions_crf_training_is_softmax_training():
    corpus = corpora.words(64, 16, 9)
    weights = []
    for multiplier in (None, 0):
        keras.utils.set_random_seed(5)
        head = finetuning.head_of(multiplier, "zeros", 5)
        tagger = labelling.tagger_of(finetuning.ENCODERS["weak"](corpus), head, 0.01)
        before = np.concatenate([np.ravel(weight) for weight in tagger.encoder.get_weights()])
        labelling.train(tagger, corpus.train, steps=8, batch=16)
        weights.append(np.concatenate([np.ravel(weight) for weight in tagger.encoder.get_weights()]))
    np.testing.assert_allclose(*weights, atol=1e-4)
    assert np.abs(weights[0] - before).max() > 0.01


def test_all_multipliers_of_a_seed_start_from_one_encoder():
    pretrained = partial(finetuning.trained_by_softmax, "weak", 2, corpora.words(64, 16, 9), 3, 1e-3, 16)
    finetune(1000)
    tagger, trained = pretrained()
    finetuning.finetune("weak", 1, "zeros", 2, **SMALL, epochs=3, steps=5, rate=1e-2)
    assert pretrained()[1] is trained
    for one, other in zip(tagger.encoder.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_row_of_the_softmax_has_margins_and_no_transitions():
    row = finetune(None, None)
    assert "transitions" not in row
    assert np.all(np.diff(row["margins"]) >= 0)
    assert 0 < row["gradient"] < 2


def test_a_row_tells_its_arguments_its_time_and_what_hard_rules_do():
    row = finetune(1)
    assert (row["encoder"], row["steps"], row["pretraining_rate"]) == ("weak", 10, 1e-3)
    assert row["seconds"] > 0
    assert row["cpu_seconds"] > 0
    assert row["ruled_illegal"] == row["ruled_boundaries"] == 0
    assert 0 <= row["ruled_f1"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("LSTM", 1, "zeros"), "encoder must be one of convolutional, .*, got 'LSTM'"),
        (("weak", 1, None), "initial must be one of .'zeros', 'glorot'. with the multiplier 1, got None"),
        (("weak", None, "zeros"), "initial must be one of .None. with the multiplier None, got 'zeros'"),
    ],
)
def test_unknown_cases_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        finetuning.finetune(*arguments, 1)


# --- from the start ---------------------------------------------------------------------------------------


@lru_cache
def scratch(multiplier):
    return finetuning.scratch("weak", multiplier, 1e-2, 1, **SMALL, epochs=5)


def test_curves_have_one_point_an_epoch_and_loss_falls():
    row = scratch(100)
    assert [len(row[key]) for key in ("loss", "dev_f1", "dev_accuracy", "dev_illegal")] == [5] * 4
    assert row["loss"][-1] < row["loss"][0]
    assert row["budget"] == pytest.approx(5 * 4 * 1e-2 * 100)
    assert 1 < row["displacement"] <= row["budget"]


def test_a_large_multiplier_learns_the_rules():
    row = scratch(100)
    assert row["legal"] > row["forbidden"] + 1
    assert row["illegal"] == 0


def test_the_softmax_has_no_transitions():
    row = scratch(None)
    assert "transitions" not in row
    assert row["argmax_f1"] == row["f1"]


# --- what is recorded -------------------------------------------------------------------------------------

PLANS = [
    (sweeps.FINETUNE, sweeps.finetune_cases, finetuning.finetune),
    (sweeps.PRETRAINED, sweeps.finetune_cases, finetuning.finetune),
    (sweeps.SCRATCH, sweeps.scratch_cases, finetuning.scratch),
    (sweeps.FASTER, sweeps.scratch_cases, finetuning.scratch),
]


@pytest.mark.parametrize(("plans", "cases", "experiment"), PLANS)
def test_every_case_is_one_that_the_experiment_takes_and_none_comes_twice(plans, cases, experiment):
    for plan in plans.values():
        found = cases(plan)
        assert len({repr(case) for case in found}) == len(found)
        for case in found:
            given = signature(experiment).bind(**case)
            given.apply_defaults()
            initial = given.arguments["initial"]
            if experiment is finetuning.scratch and case["multiplier"] is None:
                initial = None
            finetuning._check(case["encoder"], initial, case["multiplier"])


def test_five_seeds_are_recorded():
    for plans, cases, _ in PLANS:
        for scale in ("cpu", "gpu"):
            assert {case["seed"] for case in cases(plans[scale])} == {1, 2, 3, 4, 5}
    assert {seed for rate, initial, seed in sweeps.JOURNEYS if (rate, initial) == (1e-2, "glorot")} == {
        1,
        2,
        3,
        4,
        5,
    }


def test_the_gpu_runs_the_same_code():
    case = sweeps.finetune_cases(sweeps.PRETRAINED["gpu"])[-1]
    assert 0 <= finetuning.finetune(**case | SMALL | {"epochs": 1, "steps": 1})["f1"] <= 1
    case = sweeps.scratch_cases(sweeps.SCRATCH["gpu"])[-1]
    assert 0 <= finetuning.scratch(**case | SMALL | {"epochs": 1})["f1"] <= 1


def test_the_command_line_records_every_experiment(monkeypatch, tmp_path):
    sweep, written = records.sweep, []

    def small(chapter, name, function, cases, *, scale):
        written.append(name)
        tiny = {"sentences": 64, "longest": 9}
        if name != "margin":
            tiny |= SMALL | {"epochs": 1}
        if name == "road":
            tiny |= {"checkpoints": [1, 2]}
        return sweep(chapter, name, function, [cases[0] | tiny], scale=scale, root=tmp_path)

    monkeypatch.setattr(records, "sweep", small)
    assert sweeps.main(["--scale", "cpu"]) == 0
    assert written == ["margin", "finetune", "scratch", "faster", "pretrained", "road", "draws"]
    for name in written:
        assert records.load(sweeps.CHAPTER, name, "cpu", root=tmp_path).command.endswith("crf --scale cpu")


def test_the_module_is_a_command(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["crf", "--list"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lib.experiments.crf", run_name="__main__")
    assert ended.value.code == 0
    assert "pretrained" in capsys.readouterr().out


def test_the_head_of_a_case_is_a_crf_unless_it_has_no_multiplier():
    assert isinstance(finetuning.head_of(10, "zeros", 1), CRF)
    assert not isinstance(finetuning.head_of(None, None, 1), CRF)


# --- how far Adam can go ------------------------------------------------------------------------------------


def adam_steps(gradients, beta_1=0.9, beta_2=0.999):
    """The steps of Adam in units of its rate, one a gradient."""
    m = v = 0.0
    steps = []
    for t, gradient in enumerate(gradients, start=1):
        m, v = beta_1 * m + (1 - beta_1) * gradient, beta_2 * v + (1 - beta_2) * gradient**2
        steps.append(m / (1 - beta_1**t) / np.sqrt(v / (1 - beta_2**t)))
    return np.array(steps)


ADAM_BOUND = 0.1 / np.sqrt(0.001 * (1 - 0.9**2 / 0.999))


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e3, -1e-6) | st.floats(1e-6, 1e3)))
def test_no_gradients_move_a_weight_further_than_the_bound_of_adam(gradients):
    assert np.abs(adam_steps(gradients)).max() <= ADAM_BOUND * (1 + 1e-9)


def test_the_bound_of_adam_is_nearly_reached_by_gradients_that_suddenly_grow():
    sudden = (0.9 / 0.999) ** np.arange(200)[::-1]  # the worst case of the Cauchy-Schwarz inequality
    steps = adam_steps(np.concatenate([np.full(8000, 1e-12), sudden]))
    assert 0.99 * ADAM_BOUND < steps[-1] <= ADAM_BOUND


# Keras adds ε = 1e-7 to the root of v before the correction of its start, which shows at gradients below 1e-3.
@pytest.mark.parametrize("size", [1e-2, 1.0, 1e4])
def test_a_constant_gradient_of_any_size_moves_a_weight_by_the_rate_in_every_step(size):
    weight = keras.Variable([0.0])
    adam = keras.optimizers.Adam(0.01)
    for _ in range(5):
        adam.apply([ops.convert_to_tensor([size], "float32")], [weight])
    assert float(weight[0]) == pytest.approx(-0.05, rel=1e-2)
    np.testing.assert_allclose(adam_steps([size] * 5), 1, rtol=1e-9)


# --- steps times rate ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
def test_expected_moves_are_sums_over_all_paths(spread):
    emissions, tags = random_sentences(3, n=5, time=4)
    transitions = spread * np.random.default_rng(4).standard_normal((4, 4))
    expected = np.zeros((len(tags), 4, 4))
    for found, f, sentence in zip(expected, emissions, tags, strict=True):
        length = (sentence >= 0).sum()
        paths = np.array([*product(range(4), repeat=length)])
        scores = f[range(length), paths].sum(axis=1) + transitions[paths[:, :-1], paths[:, 1:]].sum(axis=1)
        P = np.exp(scores - np.logaddexp.reduce(scores))
        for t in range(length - 1):
            np.add.at(found, (paths[:, t], paths[:, t + 1]), P)
    spoiled = np.where(tags[..., None] < 0, np.nan, emissions)
    np.testing.assert_allclose(road.expected_moves(spoiled, transitions, tags), expected, atol=1e-12)


def test_what_is_expected_less_what_was_made_is_the_gradient_of_zero_transitions():
    emissions, tags = random_sentences(5)
    apart = road.expected_moves(emissions, np.zeros((4, 4)), tags) - road.actual_moves(tags)
    moves = (tags[:, 1:] >= 0).sum()
    assert np.abs(apart).sum() / moves == pytest.approx(gradients.gradient_norms(emissions, tags)["sentence"])


def test_adam_is_that_of_keras():
    slopes = np.random.default_rng(6).standard_normal((20, 3)) * [1e-3, 1.0, 1e3]
    weight = keras.Variable(np.zeros(3, np.float32))
    theirs = keras.optimizers.Adam(0.01)
    path = road.adam(lambda _, step: slopes[step - 1], np.zeros(3), 0.01)
    for slope in slopes:
        theirs.apply([ops.convert_to_tensor(slope, "float32")], [weight])
        np.testing.assert_allclose(next(path), ops.convert_to_numpy(weight), rtol=1e-3, atol=1e-6)


def test_transitions_travel_along_the_road_and_learn_the_rules():
    row = road.travel(0.05, "glorot", 2, checkpoints=(1, 4, 120), encoder="weak", **SMALL, epochs=3)
    np.testing.assert_allclose(row["displacement"][:2], [0.05, 0.2], rtol=0.05)
    assert row["separated"][-1] == 4
    assert row["illegal"][-1] == 0
    assert np.abs(row["transitions"][0] - matrices.glorot(2)).max() == pytest.approx(row["displacement"][0])


# --- what is drawn ------------------------------------------------------------------------------------------


def test_the_trellis_counts_all_paths():
    weights = []
    for path in product(range(2), repeat=4):
        moves = np.prod([drawings.MOVES[i, j] for i, j in pairwise(path)])
        weights.append(np.prod(drawings.EMISSIONS[range(4), path]) * moves)
    sums, best, after = (
        drawings._from_the_start(np.add),
        drawings._from_the_start(np.maximum),
        drawings._to_the_end(),
    )
    assert sums[-1].sum() == sum(weights) == 162
    assert best[-1].max() == max(weights) == 96
    shares = sums * after / 162
    with np.errstate(divide="ignore"):
        f, g = np.log(drawings.EMISSIONS), np.log(drawings.MOVES)
    np.testing.assert_allclose(shares, ops.convert_to_numpy(marginals(f[None], g))[0], atol=1e-6)


def test_the_explorable_shows_the_recorded_matrices():
    rows = [
        {"rate": rate, "initial": initial, "seed": 1, "checkpoints": [10, 20], "characters": 1000}
        | {"transitions": [np.full((4, 4), rate * steps).tolist() for steps in (10, 20)]}
        | {"displacement": [rate * 10, rate * 20], "separated": [0, 4], "illegal": [7, 0], "f1": [0.5, 0.9]}
        for rate in (1e-3, 1e-2)
        for initial in ("zeros", "glorot")
    ]
    device = records.device()
    record = records.Record(device, {}, "2026-01-31", "", "cpu", tuple(rows))
    explorable = drawings.steps_and_rates(record)
    assert isinstance(explorable, explorables.Explorable)
    assert len(explorable.frames["told"]) == 2 * 2 * 2
    assert "20 steps at 0.01 are a budget of 0.2" in explorable.frames["told"][3]
    assert "4 of 4. F1 90.0 %" in explorable.frames["told"][3]


# --- the exercises ------------------------------------------------------------------------------------------

WRONG = {
    "4.1": [512, 10, 55],
    "4.2": [50, 3],
    "4.3": [lambda f, _, t, j: np.exp(f[t, j]) / np.exp(f[t]).sum(), lambda *_: 0.25],
    "4.4": [lambda _, decay: 1 / decay, lambda factor, decay: 1 / (factor * decay)],
    "4.5": [(np.zeros((2, 3)), np.zeros((3, 3))), (np.eye(3), np.eye(3))],
    "4.6": [lambda f, _: f, lambda f, g: f + g.max()],
    "4.7": [lambda *_: 1.0, lambda f, g: f.var() + g.var()],
    "4.8": ["I do not know."],
}


@pytest.mark.parametrize("number", exercises.SHEET.exercises)
def test_an_exercise_accepts_its_solution_and_nothing_else(number, capsys):
    assert_accepts_its_solution_alone(exercises.SHEET, number, WRONG[number], capsys)


def test_a_better_answer_than_ours_is_accepted(capsys):
    def by_marginals(f, g, t, j):
        return float(ops.convert_to_numpy(marginals(f[None], g))[0, t, j])

    exercises.check("4.2", 100.03)
    exercises.check("4.3", by_marginals)
    exercises.check("4.5", (np.zeros((2, 4)), np.where(np.eye(4)[0] + np.eye(4)[0][:, None] == 1, 0.0, -30.0)))
    assert capsys.readouterr().out.count("right.") == 3
