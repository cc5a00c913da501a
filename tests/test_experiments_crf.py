"""The experiments of chapter 4: their numbers are what they are called, and every case is run at every scale."""

import runpy
from functools import lru_cache, partial
from inspect import signature
from itertools import chain, pairwise

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from lib.crf import CRF, log_likelihood
from lib.experiments import crf as experiments
from lib.experiments import labelling
from lib.experiments.labelling import Corpus, Part
from lib.workbench import records

# That a tagger learns the same in a graph is tested in test_tagging.
pytestmark = pytest.mark.usefixtures("eager_models")

#: The transitions of article 7196: with one rate for everything, and with a rate for the CRF 1000 times as large.
ONE_RATE = np.array(
    [
        [-0.0517, -0.459, -0.244, 0.707],
        [-0.564, -0.142, 0.314, 0.613],
        [0.196, -0.334, -0.794, 0.672],
        [0.769, 0.841, -0.683, 0.572],
    ]
)
TWO_RATES = np.array(
    [
        [3.17, 2.16, -3.97, -2.04],
        [-3.89, -0.451, 1.67, 0.874],
        [-3.9, -4.41, 3.82, 2.45],
        [1.88, 0.991, -2.48, -0.247],
    ]
)
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
        monkeypatch.setattr(experiments, "segmentation", segmentation)
        for name in experiments.ENCODERS:
            small = partial(labelling.convolutional, width=8, layers=1)
            monkeypatch.setitem(experiments.ENCODERS, name, small)
        yield
    experiments._corpus.cache_clear()
    experiments._pretrained.cache_clear()


# --- matrices of transitions ------------------------------------------------------------------------------


def test_the_matrices_of_the_article_are_judged_as_the_article_does():
    one, two = experiments.preferences(ONE_RATE), experiments.preferences(TWO_RATES)
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
    found = experiments.preferences(np.zeros((4, 4)))
    assert (found["legal"], found["forbidden"], found["separated"], found["inverted"]) == (0, 0, 0, 16)


def test_random_transitions_are_those_of_glorot():
    drawn = np.array([experiments.glorot(seed) for seed in range(500)])
    limit = np.sqrt(6 / 8)
    assert np.abs(drawn).max() <= limit
    assert drawn.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)
    np.testing.assert_array_equal(experiments.glorot(3), drawn[3])
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
    np.testing.assert_allclose(experiments.margins(emissions, tags), expected)


def test_gradient_norms_are_those_of_the_likelihood():
    emissions, tags = random_sentences(1)
    moves = (tags[:, 1:] >= 0).sum()
    epsilon, gradients = 1e-4, np.zeros((len(tags), 4, 4))
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
            gradients[:, i, j] = (down - up) / (2 * epsilon)
    found = experiments.gradient_norms(emissions, tags)
    assert found["sentence"] == pytest.approx(np.abs(gradients).sum() / moves, rel=1e-6)
    assert found["corpus"] == pytest.approx(np.abs(gradients.sum(axis=0)).sum() / moves, rel=1e-6)


def test_padded_steps_have_no_gradient():
    emissions, tags = random_sentences(2)
    spoiled = np.where(tags[..., None] < 0, np.nan, emissions)
    assert experiments.gradient_norms(spoiled, tags) == experiments.gradient_norms(emissions, tags)


def test_the_gradient_dies_with_the_margin():
    found = [experiments.gradient_at_margin(margin, sentences=100, longest=12) for margin in experiments.MARGINS]
    for norms in found:
        assert norms["corpus"] <= norms["sentence"] <= norms["bound"] + 1e-12
    for key in ("corpus", "sentence", "bound"):
        assert all(after[key] < before[key] for before, after in pairwise(found))
    assert found[0]["bound"] == pytest.approx(2 * 15 / 16)
    assert found[-1]["sentence"] < 1e-3 * found[0]["sentence"]


def test_the_bound_is_the_norm_of_a_single_move():
    for margin in (0.0, 1.5, 6.0):
        emissions = margin * np.eye(4)[[[1, 3]]]
        norm = experiments.gradient_norms(emissions, [[1, 3]])["sentence"]
        p = np.exp(margin) / (np.exp(margin) + 3)
        assert norm == pytest.approx(2 * (1 - p**2))


@pytest.mark.parametrize(("optimizer", "multiplier", "power"), [("sgd", 10.0, 2), ("adam", 10.0, 1)])
def test_a_multiplier_acts_squared_under_gradient_descent_and_once_under_adam(optimizer, power, multiplier):
    found = experiments.step_ratio(optimizer, multiplier, rate=1e-4, steps=2)
    assert found == pytest.approx(multiplier**power, rel=0.02)


def test_a_ratio_builds_no_graph(caplog):
    # Each is used for a step or two; TensorFlow warns of the fifth such graph in a row, in the reader's notebook.
    with caplog.at_level("WARNING"):
        for _ in range(4):
            experiments.step_ratio("sgd", 2.0)
    assert caplog.text == ""


# --- fine-tuning ------------------------------------------------------------------------------------------


@lru_cache
def finetune(multiplier, initial="zeros"):
    return experiments.finetune("weak", multiplier, initial, 2, **SMALL, epochs=3, steps=10, rate=1e-4)


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
    np.testing.assert_allclose(row["initial_transitions"], experiments.glorot(2))
    assert row["correlation"] > 0.999
    np.testing.assert_allclose(row["transitions"], experiments.glorot(2), atol=1.05 * row["budget"])
    assert row["displacement"] > 0


def test_multiplier_zero_keeps_the_transitions_and_trains_the_encoder():
    row = finetune(0)
    np.testing.assert_array_equal(row["transitions"], 0)
    assert (row["displacement"], row["budget"]) == (0, 0)


def test_without_transitions_crf_training_is_softmax_training():
    corpus = experiments._corpus(64, 16, 9)
    weights = []
    for multiplier in (None, 0):
        keras.utils.set_random_seed(5)
        head = experiments._head(multiplier, "zeros", 5)
        tagger = labelling.tagger_of(experiments.ENCODERS["weak"](corpus), head, 0.01)
        before = np.concatenate([np.ravel(weight) for weight in tagger.encoder.get_weights()])
        labelling.train(tagger, corpus.train, steps=8, batch=16)
        weights.append(np.concatenate([np.ravel(weight) for weight in tagger.encoder.get_weights()]))
    np.testing.assert_allclose(*weights, atol=1e-4)
    assert np.abs(weights[0] - before).max() > 0.01


def test_all_multipliers_of_a_seed_start_from_one_encoder():
    pretrained = partial(experiments._pretrained, "weak", 2, experiments._corpus(64, 16, 9), 3, 1e-3, 16)
    finetune(1000)
    tagger, trained = pretrained()
    experiments.finetune("weak", 1, "zeros", 2, **SMALL, epochs=3, steps=5, rate=1e-2)
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
        experiments.finetune(*arguments, 1)


# --- from the start ---------------------------------------------------------------------------------------


@lru_cache
def scratch(multiplier):
    return experiments.scratch("weak", multiplier, 1e-2, 1, **SMALL, epochs=5)


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
    (experiments.FINETUNE, experiments.finetune_cases, experiments.finetune),
    (experiments.PRETRAINED, experiments.finetune_cases, experiments.finetune),
    (experiments.SCRATCH, experiments.scratch_cases, experiments.scratch),
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
            if experiment is experiments.scratch and case["multiplier"] is None:
                initial = None
            experiments._check(case["encoder"], initial, case["multiplier"])


def test_five_seeds_are_recorded():
    for plans, cases, _ in PLANS:
        for scale in ("cpu", "gpu"):
            assert {case["seed"] for case in cases(plans[scale])} == {1, 2, 3, 4, 5}


def test_the_gpu_runs_the_same_code():
    case = experiments.finetune_cases(experiments.PRETRAINED["gpu"])[-1]
    assert 0 <= experiments.finetune(**case | SMALL | {"epochs": 1, "steps": 1})["f1"] <= 1
    case = experiments.scratch_cases(experiments.SCRATCH["gpu"])[-1]
    assert 0 <= experiments.scratch(**case | SMALL | {"epochs": 1})["f1"] <= 1


def test_the_command_line_records_every_experiment(monkeypatch, tmp_path):
    sweep, written = records.sweep, []

    def small(chapter, name, function, cases, *, scale):
        written.append(name)
        tiny = {"sentences": 64, "longest": 9}
        if name != "margin":
            tiny |= SMALL | {"epochs": 1}
        return sweep(chapter, name, function, [cases[0] | tiny], scale=scale, root=tmp_path)

    monkeypatch.setattr(records, "sweep", small)
    assert experiments.main(["--scale", "cpu"]) == 0
    assert written == ["margin", "finetune", "scratch", "pretrained"]
    for name in written:
        assert records.load(experiments.CHAPTER, name, "cpu", root=tmp_path).command.endswith("crf --scale cpu")


def test_the_module_is_a_command(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["crf", "--list"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lib.experiments.crf", run_name="__main__")
    assert ended.value.code == 0
    assert "pretrained" in capsys.readouterr().out


def test_the_head_of_a_case_is_a_crf_unless_it_has_no_multiplier():
    assert isinstance(experiments._head(10, "zeros", 1), CRF)
    assert not isinstance(experiments._head(None, None, 1), CRF)


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
