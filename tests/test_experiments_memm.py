"""The experiments of chapter 5: label bias is as large as theory says, and all models meet on equal terms."""

import itertools
import math
import runpy
from importlib import import_module

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from lib import chain
from lib.experiments import labelling
from lib.experiments import memm as experiments
from lib.workbench import measure, records

rng = np.random.default_rng(5)
F, G = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))


def assert_share(share, expected, trials):
    """The share among so many trials is as near to the expected one as chance lets it be: 5 standard errors."""
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / trials)


# --- three denominators -----------------------------------------------------------------------------------


def test_all_paths_are_all_and_in_order():
    paths = experiments.all_paths(3, 4)
    assert [tuple(path) for path in paths] == list(itertools.product(range(4), repeat=3))


@pytest.mark.parametrize("model", ["softmax", "memm", "memm, backward", "crf"])
def test_probabilities_of_all_paths_sum_to_one(model):
    assert np.exp(experiments.log_probabilities(model, F, G)).sum() == pytest.approx(1, abs=1e-6)


def test_the_models_share_their_numerator_and_differ_in_their_denominators():
    """By hand: s(y) minus log Z, minus a normaliser a step given the tag before, or given the tag after."""
    paths = experiments.all_paths(4, 3)
    score = np.array(
        [sum(F[k, y[k]] for k in range(4)) + sum(G[y[k - 1], y[k]] for k in range(1, 4)) for y in paths]
    )
    before = np.array(
        [special.logsumexp(F[0]) + sum(special.logsumexp(G[y[k - 1]] + F[k]) for k in range(1, 4)) for y in paths]
    )
    after = np.array(
        [special.logsumexp(F[3]) + sum(special.logsumexp(G[:, y[k + 1]] + F[k]) for k in range(3)) for y in paths]
    )
    denominators = {
        "crf": special.logsumexp(score),
        "memm": before,
        "memm, backward": after,
        "bi-memm": (before + after) / 2,
    }
    for model, denominator in denominators.items():
        found = experiments.log_probabilities(model, F, G)
        np.testing.assert_allclose(found, score - denominator, atol=1e-5)


def test_without_transitions_all_models_are_one():
    softmax = experiments.log_probabilities("softmax", F, G)
    np.testing.assert_allclose(
        softmax, special.log_softmax(F, axis=1)[range(4), experiments.all_paths(4, 3)].sum(axis=1), atol=1e-5
    )
    for model in experiments.MODELS:
        np.testing.assert_allclose(experiments.log_probabilities(model, F, 0 * G), softmax, atol=1e-5)


def test_a_head_is_that_of_its_model():
    f, y = F[None].astype("float32"), np.array([[0, 2, 1, 1]], np.int32)
    for model in (*experiments.MODELS, "memm, backward"):
        head = experiments.head_of(model, 3, multiplier=4.0)
        head.build(f.shape)
        for weight in head.weights:
            weight.assign(G / 4.0)
        found = ops.convert_to_numpy(head.log_likelihood(f, y))
        expected = ops.convert_to_numpy(experiments.log_likelihood(model, f, y, G.astype("float32")))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_not_known_is_refused():
    with pytest.raises(
        ValueError, match="model must be one of softmax; memm; bi-memm; crf; memm, backward, got 'rf'"
    ):
        experiments.head_of("rf", 3)
    with pytest.raises(ValueError, match=r"model must be one of .*, got 'rf'"):
        experiments.log_probabilities("rf", F, G)
    with pytest.raises(ValueError, match=r"model must be one of .*, got 'bi-memm'"):
        experiments.exact_rates("bi-memm")
    with pytest.raises(ValueError, match="telling must be at least 1, got 0"):
        experiments.draw(3, 0, telling=0)
    with pytest.raises(ValueError, match="noise must lie strictly between 0 and 1, got 0"):
        experiments.exact_rates("crf", noise=0.0)
    for function in (experiments.compiled, experiments.value_and_gradients):
        with pytest.raises(ValueError, match="mode must be one of graph, xla, got 'eager'"):
            function(lambda x: x, "eager")
    with pytest.raises(ValueError, match="mode must be one of graph, xla, got 'eager'"):
        experiments.step_times(1, 4, mode="eager")
    with pytest.raises(ValueError, match=r"encoder must be one of one character, .* got 'none'"):
        experiments.compare("segmentation", "none", "crf")
    with pytest.raises(ValueError, match="task must be one of segmentation, entities, got 'parsing'"):
        experiments.compare("parsing", "one character", "crf")


# --- label bias -------------------------------------------------------------------------------------------


def test_sequences_follow_their_joint_law():
    letters, states = experiments.draw(20_000, seed=1, telling=2, noise=0.3)
    P = experiments.joint(2, 0.3)
    assert P.shape == (2, 4, 4, 4, 4)
    assert P.sum() == pytest.approx(1)
    words = experiments.words(2)
    for branch in (0, 1):
        ours = np.all(states == experiments.paths_of_words(2)[branch], axis=1)
        assert_share(ours.mean(), 0.5, 20_000)
        assert_share((letters[ours] != words[branch]).mean(), 0.3, 4 * ours.sum())
        counts = np.histogramdd(letters[ours], bins=[np.arange(5)] * 4)[0].ravel()
        expected = 2 * P[branch].ravel() * ours.sum()
        common = expected > 5
        assert (
            stats.chisquare(
                [*counts[common], counts[~common].sum()], [*expected[common], expected[~common].sum()]
            ).pvalue
            > 1e-4
        )


def test_no_state_is_shared_but_the_last():
    first, second = experiments.paths_of_words(3)
    assert first[-1] == second[-1] == 8
    assert sorted([*first[:-1], *second[:-1]]) == list(range(8))


def brute_rates(decide, noise=3 / 32):
    """Rates by a walk over both words and all letters; ``decide`` gives P(first word) for each token."""
    sequences = tokens = 0.0
    for branch, letters in itertools.product((0, 1), itertools.product(range(4), repeat=3)):
        word = ((0, 1, 3), (0, 2, 3))[branch]
        p = 0.5 * math.prod(1 - noise if a == b else noise / 3 for a, b in zip(letters, word, strict=True))
        right = [q if branch == 0 else 1 - q for q in decide(letters)]
        tokens += p * (2 - right[0] - right[-1]) / 3
        sequences += p * (1 - math.prod(right))
    return {"sequences": sequences, "tokens": tokens}


def vowel(letters):
    return {1: 1.0, 2: 0.0}.get(letters[1], 0.5)


@pytest.mark.parametrize(
    ("model", "look_ahead", "decide"),
    [
        ("memm", 0, lambda letters: [0.5 + 0 * letters[0]]),
        ("memm", 1, lambda letters: [vowel(letters)]),
        ("memm, backward", 0, lambda letters: [vowel(letters)]),
        ("crf", 0, lambda letters: [vowel(letters)]),
        ("hmm", 0, lambda letters: [vowel(letters)]),
        ("softmax", 0, lambda letters: [0.5, vowel(letters)]),
        ("softmax", 1, lambda letters: [vowel(letters), vowel(letters)]),
    ],
)
def test_exact_rates_are_those_of_a_walk_over_everything(model, look_ahead, decide):
    for noise in (3 / 32, 0.3):
        assert experiments.exact_rates(model, look_ahead=look_ahead, noise=noise) == pytest.approx(
            brute_rates(decide, noise)
        )


def test_the_rates_of_the_article():
    assert experiments.exact_rates("memm") == pytest.approx({"sequences": 1 / 2, "tokens": 1 / 3})
    assert experiments.exact_rates("crf") == pytest.approx({"sequences": 2 / 32, "tokens": 2 / 48})
    assert experiments.exact_rates("memm", look_ahead=1)["sequences"] == pytest.approx(2 / 32)


def test_look_ahead_removes_label_bias_letter_by_letter():
    noise = 12 / 32
    errors = [experiments.exact_rates("memm", look_ahead=n, telling=3, noise=noise)["sequences"] for n in range(5)]
    assert errors[0] == pytest.approx(0.5)
    assert np.all(np.diff(errors[:4]) < -0.01)
    bayes = experiments.exact_rates("crf", telling=3, noise=noise)["sequences"]
    np.testing.assert_allclose(errors[3:], bayes, rtol=1e-12)
    backward = experiments.exact_rates("memm, backward", telling=3, noise=noise)["sequences"]
    assert backward == pytest.approx(errors[1])  # either sees one telling letter


def test_the_branch_has_the_entropy_of_what_is_not_seen():
    h = stats.bernoulli(1 / 30).entropy() / math.log(2)
    assert experiments.branch_entropy(0) == pytest.approx(1)
    assert experiments.branch_entropy(1) == pytest.approx(30 / 32 * h + 2 / 32)
    assert experiments.branch_entropy(2) == pytest.approx(experiments.branch_entropy(1))  # both words end in b


def test_an_emission_sees_its_step_its_letter_and_those_ahead_and_no_more():
    letters = experiments.all_paths(3, 4)
    seen = experiments.seen_letters(letters, 1)
    for step in range(3):
        views = {tuple(row[step : step + 2]) for row in letters}
        pairs = {(tuple(row[step : step + 2]), number) for row, number in zip(letters, seen[:, step], strict=True)}
        assert len({number for _, number in pairs}) == len(pairs) == len(views)
    assert len(np.unique(seen)) == 16 + 16 + 4
    assert seen.max() < 3 * 25


@pytest.mark.parametrize(
    ("model", "look_ahead", "expected"),
    [("hmm", 0, 1 / 16), ("memm", 1, 1 / 16), ("bi-memm", 0, 1 / 16), ("crf", 0, 1 / 16)],
)
def test_trained_models_err_as_theory_says(model, look_ahead, expected):
    found = experiments.trained_rates(model, look_ahead=look_ahead, seed=2, steps=200)
    # What is seen a few times in training may be learned the wrong way round: a few in a thousand.
    assert found["expected"] == pytest.approx(expected, abs=0.005)
    assert_share(found["sequences"], found["expected"], 500)
    assert found["tokens"] == pytest.approx(2 / 3 * found["sequences"])
    assert found["seconds"] > 0


def test_label_bias_is_learned():
    """As the moves become certain, the letters lose their say."""
    few, many = (experiments.trained_rates("memm", seed=0, steps=steps)["expected"] for steps in (30, 1000))
    assert few < 0.2
    assert many == pytest.approx(0.5)


# --- decoding ---------------------------------------------------------------------------------------------


def test_decoders_are_held_against_the_best_of_all_paths():
    apart = experiments.decoders_apart(2.0, 1.5, tags=3, length=4, chains=6, seeds=[3])
    generator = np.random.default_rng(3)
    f, g = 2.0 * generator.standard_normal((6, 4, 3)), 1.5 * generator.standard_normal((3, 3))
    paths = experiments.all_paths(4, 3)
    wrong = {"unnormalised": [], "greedy": []}
    for scores in f:
        best = paths[experiments.log_probabilities("memm", scores, g).argmax()]
        wrong["unnormalised"].append(paths[experiments.log_probabilities("crf", scores, g).argmax()] != best)
        tags = [scores[0].argmax()]
        for k in range(1, 4):
            tags.append((g[tags[-1]] + scores[k]).argmax())
        wrong["greedy"].append(tags != best)
    for name, errors in wrong.items():
        assert apart[name] == pytest.approx([np.mean(errors)])
        assert apart[f"{name} sequences"] == pytest.approx([np.any(errors, axis=1).mean()])
    assert apart["unnormalised"][0] > 0


@pytest.mark.parametrize(
    ("spreads", "unnormalised", "greedy"),
    [((1, 1), 0.28, 0.20), ((3, 1), 0.15, 0.047), ((6, 1), 0.085, 0.011), ((3, 3), 0.35, 0.073)],
)
def test_the_shares_of_the_article(spreads, unnormalised, greedy):
    assert spreads in experiments.SPREADS
    apart = experiments.decoders_apart(*spreads, seeds=range(40))
    for name, expected in (("unnormalised", unnormalised), ("greedy", greedy)):
        assert abs(apart[name].mean() - expected) < 4 * stats.sem(apart[name])


# --- seconds and bytes ------------------------------------------------------------------------------------


@pytest.mark.backends
@pytest.mark.parametrize(
    ("length", "tags", "block"), [(1, 3, None), (2, 3, None), (17, 4, None), (40, 5, 7), (9, 2, 1)]
)
def test_blocks_may_be_multiplied_side_by_side(length, tags, block):
    rng = np.random.default_rng(length)
    f, g = 3 * rng.standard_normal((2, length, tags)), rng.standard_normal((tags, tags))
    blocked = ops.convert_to_numpy(experiments.blocked_log_partition(f, g, block))
    np.testing.assert_allclose(blocked, ops.convert_to_numpy(chain.log_partition(f, g)), rtol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("mode", experiments.MODES)
def test_gradients_are_those_of_calculus(mode):
    a, b, c = (ops.convert_to_tensor(np.array(x, "float32")) for x in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]))
    value, (left, right) = experiments.value_and_gradients(lambda a, b, c: ops.sum(a * a * b * c), mode)(a, b, c)
    assert float(value) == 15 + 96
    np.testing.assert_allclose(ops.convert_to_numpy(left), [30, 96])
    np.testing.assert_allclose(ops.convert_to_numpy(right), [5, 24])
    _, (_, none) = experiments.value_and_gradients(lambda a, _, c: ops.sum(a * c), mode)(a, b, c)
    np.testing.assert_array_equal(ops.convert_to_numpy(none), [0, 0])
    np.testing.assert_allclose(ops.convert_to_numpy(experiments.compiled(ops.add, mode)(a, b)), [4, 6])


@pytest.mark.backends
@pytest.mark.parametrize(("mode", "last"), [("graph", "memm"), ("xla", "crf")])
def test_every_contestant_takes_part_in_every_round(mode, last):
    times = {
        "loss": experiments.loss_times(5, 3, batch=2, mode=mode, repeats=6, models=("softmax", last)),
        "decoding": experiments.decoding_times(5, 3, batch=2, mode=mode, repeats=6),
        "step": experiments.step_times(0, 5, width=64, batch=2, mode=mode, models=[last]),
    }
    assert list(times["loss"]["samples"]) == ["softmax", last]
    assert list(times["decoding"]["samples"]) == list(experiments.DECODERS)
    assert list(times["step"]["samples"]) == [last]
    for row in times.values():
        race = experiments.contest_of(row)
        assert all(len(timing.samples) == 6 and min(timing.samples) > 0 for timing in race.timings.values())


def test_the_fast_softmax_decoder_is_the_exact_one():
    f = np.random.default_rng(0).standard_normal((3, 6, 4)).astype("float32")
    tags, score = experiments.DECODERS["softmax"](f, np.zeros((4, 4), "float32"))
    exact, exact_score = experiments.head_of("softmax", 4).decode(f)
    np.testing.assert_array_equal(ops.convert_to_numpy(tags), ops.convert_to_numpy(exact))
    np.testing.assert_allclose(ops.convert_to_numpy(score), ops.convert_to_numpy(exact_score), rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "parameters"), [("memm, low rank", 2 * 5 * 30), ("memm", 900), ("crf", 900), ("softmax", 0)]
)
def test_a_large_step_trains_and_counts_its_transitions(model, parameters):
    step = experiments.large_step(model, 30, rank=5, width=8, batch=4, length=6)
    assert step.parameters == parameters
    losses = [float(step()) for _ in range(5)]
    assert np.all(np.diff(losses) < 0)


@pytest.fixture
def same_process(monkeypatch):
    """Memory is measured in this process, which is quicker than a fresh one; 200 tags are too many."""

    def peak(builder, *, model, tags, **sizes):
        if tags >= 200:
            raise MemoryError("as many bytes as there are")
        module, _, function = builder.partition(":")
        getattr(import_module(module), function)(model=model, tags=tags, **sizes)()
        return measure.Peak(tags**2, "a guess", 0)

    monkeypatch.setattr(measure, "peak_memory_in_fresh_process", peak)


@pytest.mark.usefixtures("same_process")
def test_the_cost_of_many_tags():
    cost = experiments.large_cost("memm, low rank", 50, rank=3, batch=2, length=4, repeats=2)
    assert cost["parameters"] == 300
    assert cost["bytes"] == 2500
    assert len(cost["seconds"]) == 2
    with pytest.raises(MemoryError):
        experiments.large_cost("crf", 200)


# --- words and names --------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch):
    """A language of four letters: in a word of two, the second letter tells nothing, but b ends what b began."""

    def corpus(train, dev, test, longest):
        generator = np.random.default_rng(0)

        def part(count):
            characters, tags = np.zeros((count, longest), np.int32), np.full((count, longest), -1, np.int32)
            for row in range(count):
                k, length = 0, generator.integers(2, longest + 1)
                while k < length:
                    pair = k + 1 < length and generator.uniform() < 0.5
                    characters[row, k : k + 1 + pair] = [3, 4][: 1 + pair] if pair else [2]
                    tags[row, k : k + 1 + pair] = [1, 3] if pair else [0]
                    k += 1 + pair
            return labelling.Part(characters, tags)

        vocabulary = ("", "\N{REPLACEMENT CHARACTER}", "s", "b", "e")
        return labelling.Corpus(part(train), part(dev), part(test), vocabulary, ("s", "b", "m", "e"))

    monkeypatch.setattr(experiments, "TASKS", {"segmentation": corpus})
    experiments._corpus.cache_clear()
    yield
    experiments._corpus.cache_clear()


SMALL = {"train": 128, "test": 32, "longest": 12, "epochs": 2, "batch": 16}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("model", experiments.MODELS)
def test_every_model_learns_an_easy_language(model):
    found = experiments.compare("segmentation", "one character", model, seed=1, **SMALL, rate=0.02)
    assert found["f1"] == found["accuracy"] == 1
    assert found["illegal"] == 0
    assert found["ruled"]["f1"] == 1
    assert found["loss"] > 0
    assert found["seconds"] > 0


@pytest.mark.usefixtures("toy")
def test_the_hmm_counts_and_needs_no_encoder():
    found = experiments.compare("segmentation", "counts", "hmm", **SMALL)
    assert found["f1"] == 1
    with pytest.raises(ValueError, match="got 'counts'"):
        experiments.compare("segmentation", "counts", "crf")


@pytest.mark.usefixtures("toy")
def test_a_comparison_repeats_with_its_seed(monkeypatch):
    monkeypatch.setattr(labelling, "evaluate", lambda *_: {})
    settings = {**SMALL, "epochs": 1, "rate": 1e-4}
    one, again, other = (
        experiments.compare("segmentation", "three characters", "memm", seed=s, **settings)["loss"]
        for s in (1, 1, 2)
    )
    assert one == pytest.approx(again, rel=1e-6)
    assert abs(one - other) > 1e-4


# --- what is recorded -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Records go to a folder of the test's own, and the sizes are small."""
    sweep = records.sweep
    monkeypatch.setattr(records, "sweep", lambda *args, **kwargs: sweep(*args, root=tmp_path, **kwargs))
    kind = measure.device().kind
    sizes = {
        "SEEDS": (1,),
        "MODES": ("graph",),
        "TASKS": {"segmentation": None},
        "RIB_ROB": (("hmm", 0),),
        "RIB_ROB_STEPS": (2,),
        "RIB_ROB_SEEDS": (4,),
        "CORPORA": {kind: {"train": 32, "test": 8, "longest": 12, "epochs": 1}},
        "COMPARED": {kind: {"one character": {"rate": 0.01, "multiplier": 5.0}}},
        "SHAPES": {kind: [(4, 2)]},
        "SCANS": {kind: [(4, 2)]},
        "DEPTHS": {kind: [(1, 4, "graph")]},
        "STEPS": {kind: {"width": 64, "batch": 2, "models": ["softmax"]}},
        "TAG_SETS": {kind: (100, 200)},
        "LARGE": ("memm, low rank",),
        "LARGE_STEPS": {kind: {"batch": 2, "length": 4, "repeats": 1}},
    }
    for name, value in sizes.items():
        monkeypatch.setattr(experiments, name, value)
    return tmp_path


@pytest.mark.usefixtures("same_process")
def test_the_command_line_records_everything(tiny, monkeypatch):
    monkeypatch.setattr(experiments, "compare", lambda **case: {"f1": case["seed"] / 2})
    kind = measure.device().kind
    assert experiments.main(["--scale", kind]) == 0

    def rows(name):
        return records.load("05-memm", name, kind, root=tiny).rows

    models = rows("models")
    assert [(row["encoder"], row["model"]) for row in models] == [
        *(("one character", model) for model in experiments.MODELS),
        ("counts", "hmm"),
    ]
    assert {row["train"] for row in models} == {32}
    assert [row.get("rate") for row in models] == [0.01] * 4 + [None]
    assert [row["f1"] for row in models] == [0.5] * 4 + [0]
    assert [(row["model"], row["steps"], row["seed"]) for row in rows("ribrob")] == [
        (model, steps, 4) for model, steps in (("hmm", 1000), ("memm", 2))
    ]
    assert [(row["what"], row["mode"]) for row in rows("speed")] == [("loss", "graph"), ("decoding", "graph")]
    assert [sorted(row["samples"]) for row in rows("scan")] == [["blocked", "scan"]]
    (steps,) = rows("steps")
    assert list(steps["samples"]) == ["softmax"]
    enough, too_many = rows("tags")
    assert enough["parameters"] == 2 * 64 * 100
    assert too_many["out_of_memory"] is True


def test_other_backends_have_one_mode(monkeypatch):
    assert experiments._modes() == ("graph", "xla")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert experiments._modes() == ("xla",)


def test_both_scales_have_sizes_for_everything():
    for sizes in ("CORPORA", "COMPARED", "SHAPES", "DEPTHS", "STEPS", "TAG_SETS", "LARGE_STEPS"):
        assert set(getattr(experiments, sizes)) == {"cpu", "gpu"}
    for compared in experiments.COMPARED.values():
        assert set(compared) <= set(experiments.ENCODERS)


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["memm", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.memm", run_name="__main__")
    assert stopped.value.code == 0
    assert "ribrob" in capsys.readouterr().out
