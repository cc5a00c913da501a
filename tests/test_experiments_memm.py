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
from shared import assert_accepts_its_solution_alone

from lib import chain
from lib.experiments import labelling
from lib.experiments.memm import corpora, costs, decoding, drawings, exercises, label_bias, models, sweeps
from lib.workbench import measure, records

rng = np.random.default_rng(5)
F, G = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))


def assert_share(share, expected, trials):
    """The share among so many trials is as near to the expected one as chance lets it be: 5 standard errors."""
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / trials)


# --- three denominators -----------------------------------------------------------------------------------


def test_all_paths_are_all_and_in_order():
    paths = models.all_paths(3, 4)
    assert [tuple(path) for path in paths] == list(itertools.product(range(4), repeat=3))


def test_the_models_share_their_numerator_and_differ_in_their_denominators():
    """By hand: s(y) minus log Z, minus a normalizer a step given the tag before, or given the tag after."""
    paths = models.all_paths(4, 3)
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
        found = models.log_probabilities(model, F, G)
        np.testing.assert_allclose(found, score - denominator, atol=1e-5)


def test_all_models_are_distributions_and_without_transitions_one():
    softmax = special.log_softmax(F, axis=1)[range(4), models.all_paths(4, 3)].sum(axis=1)
    for model in ("softmax", "memm", "memm, backward", "crf"):
        assert np.exp(models.log_probabilities(model, F, G)).sum() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(models.log_probabilities(model, F, 0 * G), softmax, atol=1e-5)
    np.testing.assert_allclose(models.log_probabilities("bi-memm", F, 0 * G), softmax, atol=1e-5)


def test_a_head_is_that_of_its_model():
    f, y = F[None].astype("float32"), np.array([[0, 2, 1, 1]], np.int32)
    for model in (*models.MODELS, "memm, backward"):
        head = models.head_of(model, 3, multiplier=4.0)
        head.build(f.shape)
        for weight in head.weights:
            weight.assign(G / 4.0)
        found = ops.convert_to_numpy(head.log_likelihood(y, f))
        expected = ops.convert_to_numpy(models.log_likelihood(model, y, f, G.astype("float32")))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_not_known_is_refused():
    with pytest.raises(
        ValueError, match="model must be one of softmax; memm; bi-memm; crf; memm, backward, got 'rf'"
    ):
        models.head_of("rf", 3)
    with pytest.raises(ValueError, match=r"model must be one of .*, got 'rf'"):
        models.log_probabilities("rf", F, G)
    with pytest.raises(ValueError, match=r"model must be one of .*, got 'bi-memm'"):
        label_bias.exact_error("bi-memm")
    with pytest.raises(ValueError, match="telling must be at least 1, got 0"):
        label_bias.draw(3, 0, telling=0)
    with pytest.raises(ValueError, match="noise must lie strictly between 0 and 1, got 0"):
        label_bias.exact_error("crf", noise=0.0)
    for function in (costs.compiled, costs.value_and_gradients):
        with pytest.raises(ValueError, match="mode must be one of graph, xla, got 'eager'"):
            function(lambda x: x, "eager")
    with pytest.raises(ValueError, match="mode must be one of graph, xla, got 'eager'"):
        costs.step_times(1, 4, mode="eager")
    with pytest.raises(ValueError, match=r"encoder must be one of one character, .* got 'none'"):
        corpora.compare("segmentation", "none", "crf")
    with pytest.raises(ValueError, match="task must be one of segmentation, entities, got 'parsing'"):
        corpora.compare("parsing", "one character", "crf")
    with pytest.raises(ValueError, match="model must be memm or bi-memm, with an encoder, got 'crf' with 'none'"):
        corpora.decode_three_ways("segmentation", "none", "crf")


# --- label bias -------------------------------------------------------------------------------------------


def test_sequences_follow_their_joint_law():
    letters, states = label_bias.draw(20_000, seed=1, telling=2, noise=0.3)
    P = label_bias.joint(2, 0.3)
    assert P.shape == (2, 4, 4, 4, 4)
    assert P.sum() == pytest.approx(1)
    words = label_bias.words(2)
    for branch in (0, 1):
        ours = np.all(states == label_bias.paths_of_words(2)[branch], axis=1)
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
    first, second = label_bias.paths_of_words(3)
    assert first[-1] == second[-1] == 8
    assert sorted([*first[:-1], *second[:-1]]) == list(range(8))


def brute_error(decide, noise=3 / 32):
    """The share of words misread by a walk over both words and all letters; ``decide`` gives P(first word)."""
    wrong = 0.0
    for branch, letters in itertools.product((0, 1), itertools.product(range(4), repeat=3)):
        word = ((0, 1, 3), (0, 2, 3))[branch]
        p = 0.5 * math.prod(1 - noise if a == b else noise / 3 for a, b in zip(letters, word, strict=True))
        wrong += p * (1 - decide(letters) if branch == 0 else decide(letters))
    return wrong


def vowel(letters):
    return {1: 1.0, 2: 0.0}.get(letters[1], 0.5)


@pytest.mark.parametrize(
    ("model", "look_ahead", "decide"),
    [
        ("memm", 0, lambda _: 0.5),
        ("memm", 1, vowel),
        ("memm, backward", 0, vowel),
        ("crf", 0, vowel),
        ("hmm", 0, vowel),
    ],
)
def test_exact_errors_are_those_of_a_walk_over_everything(model, look_ahead, decide):
    for noise in (3 / 32, 0.3):
        found = label_bias.exact_error(model, look_ahead=look_ahead, noise=noise)
        assert found == pytest.approx(brute_error(decide, noise))


def test_a_path_reads_the_word_that_its_second_state_spells():
    paths = np.tile(label_bias.paths_of_words()[0], (64, 1))
    letters = models.all_paths(3, 4)
    paths[letters[:, 1] == 2, 1] = 3  # r₁ o b: rob, though its first state is of rib
    consonants = ~np.isin(letters[:, 1], (1, 2))
    expected = brute_error(lambda x: {1: 1.0, 2: 0.0}.get(x[1], 1.0))
    assert label_bias.words_misread(paths) == pytest.approx(expected)
    paths[consonants, 1] = 4  # spells no vowel: neither word
    read_wrong = label_bias.words_misread(paths) - expected
    assert read_wrong == pytest.approx(label_bias.joint()[0].reshape(-1)[consonants].sum())


def test_look_ahead_removes_label_bias_letter_by_letter():
    noise = 12 / 32
    errors = [label_bias.exact_error("memm", look_ahead=n, telling=3, noise=noise) for n in range(5)]
    assert errors[0] == pytest.approx(0.5)
    assert errors[1] < 0.3
    bayes = label_bias.exact_error("crf", telling=3, noise=noise)
    np.testing.assert_allclose(errors[3:], bayes, rtol=1e-12)
    assert bayes < errors[2] < errors[1]
    backward = label_bias.exact_error("memm, backward", telling=3, noise=noise)
    assert backward == pytest.approx(errors[1])  # either sees one telling letter


def test_an_emission_sees_its_step_its_letter_and_those_ahead_and_no_more():
    letters = models.all_paths(3, 4)
    seen = label_bias.seen_letters(letters, 1)
    for step in range(3):
        views = {tuple(row[step : step + 2]) for row in letters}
        pairs = {(tuple(row[step : step + 2]), number) for row, number in zip(letters, seen[:, step], strict=True)}
        assert len({number for _, number in pairs}) == len(pairs) == len(views)
    assert len(np.unique(seen)) == 16 + 16 + 4
    assert seen.max() < 3 * 25


@pytest.mark.parametrize(
    ("model", "look_ahead"), [("hmm", 0), ("softmax", 0), ("memm", 1), ("bi-memm", 0), ("crf", 0)]
)
def test_trained_models_err_as_theory_says(model, look_ahead):
    found = label_bias.trained_path(model, look_ahead=look_ahead, seed=2, steps=(100,))
    # What is seen a few times in training may be learned the wrong way round: a few in a thousand.
    assert found["exact"] == pytest.approx([1 / 16], abs=0.005)


def test_training_leads_the_memm_to_a_coin():
    """Early all letters have a say; as the likelihood tends to its supremum the first decides, and tells nothing.

    The supremum: all later factors are 1, and the first is the share of the words given the first letter.
    """
    early, late = 10, 400
    found = label_bias.trained_path("memm", seed=1, steps=(early, late))
    assert found["exact"] == pytest.approx([1 / 16, 1 / 2])
    letters, states = label_bias.draw(2000, seed=1)
    counts = np.histogram2d(letters[:, 0], states[:, 0], bins=[range(5), (-0.5, 1.5, 2.5)])[0]
    assert np.all(counts[:, 0] != counts[:, 1])  # no first letter leaves a tie
    least = -np.sum(counts * np.log(counts / counts.sum(axis=1, keepdims=True))) / 2000 / 3  # nats a letter
    gaps = np.array(found["loss"]) - least
    assert gaps[0] > 0.05
    assert 0 < gaps[1] < 1e-3
    # The scores are not to blame: without the denominators they read the vowel, early and late.
    assert found["bare"] == pytest.approx([1 / 16, 1 / 16])


# --- decoding ---------------------------------------------------------------------------------------------


def test_decoders_are_held_against_the_best_of_all_paths():
    apart = decoding.decoders_apart(2.0, 1.5, tags=3, length=4, chains=6, seeds=[3])
    generator = np.random.default_rng(3)
    f, g = 2.0 * generator.standard_normal((6, 4, 3)), 1.5 * generator.standard_normal((3, 3))
    paths = models.all_paths(4, 3)
    wrong = {"bare": [], "greedy": []}
    for scores in f:
        best = paths[models.log_probabilities("memm", scores, g).argmax()]
        wrong["bare"].append(paths[models.log_probabilities("crf", scores, g).argmax()] != best)
        tags = [scores[0].argmax()]
        for k in range(1, 4):
            tags.append((g[tags[-1]] + scores[k]).argmax())
        wrong["greedy"].append(tags != best)
    for name, errors in wrong.items():
        assert apart[name] == pytest.approx([np.mean(errors)])
    assert apart["bare"][0] > 0


@pytest.fixture(scope="module")
def weather():
    """A hidden Markov model of two labels and three symbols: P(y_1), P(next | label), P(symbol | label)."""
    generator = np.random.default_rng(7)
    return generator.dirichlet([2, 2]), generator.dirichlet([1, 1], 2), generator.dirichlet([1, 1, 1], 2)


def test_the_scores_of_an_hmm_make_an_memm_of_its_conditionals_and_f_plus_g_its_posterior(weather):
    """Against the whole table P(y, x) of three steps, from which everything is summed out."""
    initial, moves, symbols = weather
    joint = np.einsum("a,ab,bc,ax,by,cz->abcxyz", initial, moves, moves, symbols, symbols, symbols)
    # P(y_2, y_1, x_2) and P(x_2 | y_1): the other letters and the last label are not known.
    step = joint.sum(axis=(2, 3, 5))
    charge = step.sum(axis=1) / step.sum(axis=(1, 2))[:, None]
    for x in itertools.product(range(3), repeat=3):
        f = np.log(symbols.T[list(x)]) + np.array([0.0, 3.0, -2.0])[:, None]  # a constant a step is free
        f[0] += np.log(initial)
        g = np.log(moves)
        table = joint[:, :, :, x[0], x[1], x[2]].ravel()
        scores = ops.convert_to_numpy(
            chain.sequence_score(models.all_paths(3, 2), np.repeat(f[None], 8, axis=0), g)
        )
        np.testing.assert_allclose(scores - np.log(table), 1.0, atol=1e-5)
        best = ops.convert_to_numpy(chain.viterbi(f[None], g)[0])[0]
        assert np.array_equal(best, models.all_paths(3, 2)[table.argmax()])
        np.testing.assert_allclose(special.logsumexp(g + f[1], axis=1), np.log(charge[:, x[1]]) + 3.0, atol=1e-12)
        conditional = np.exp(models.log_probabilities("memm", f, g)).reshape(2, 2, 2).sum(axis=2)
        np.testing.assert_allclose(
            conditional / conditional.sum(axis=1, keepdims=True),
            step[:, :, x[1]] / step[:, :, x[1]].sum(axis=1, keepdims=True),
            rtol=1e-5,
        )


def test_the_exact_decoder_of_such_an_memm_forgets_what_comes_later():
    """The case worked by hand in the chapter."""
    f, g = np.log([[0.6, 0.4], [0.1, 0.9]]), np.log([[0.99, 0.01], [0.01, 0.99]])
    paths = models.all_paths(2, 2)
    own = np.exp(models.log_probabilities("memm", f, g))
    posterior = np.exp(models.log_probabilities("crf", f, g))
    assert paths[own.argmax()].tolist() == [0, 0]
    assert paths[posterior.argmax()].tolist() == [1, 1]
    np.testing.assert_allclose(own, [0.55, 0.05, 0.4 * 1e-3 / 0.892, 0.4 * 0.891 / 0.892], atol=1e-6)
    np.testing.assert_allclose(posterior, np.array([594, 54, 4, 3564]) / 4216, atol=1e-6)


def test_numbers_added_to_the_rows_of_g_move_the_bare_scores_and_no_probability():
    d = np.array([1.0, -2.0, 0.5])
    moved = G + d[:, None]
    np.testing.assert_allclose(
        models.log_probabilities("memm", F, moved), models.log_probabilities("memm", F, G), atol=1e-5
    )
    paths = models.all_paths(4, 3)
    bare, shifted = (
        ops.convert_to_numpy(chain.sequence_score(paths, np.tile(F, (81, 1, 1)), g)) for g in (G, moved)
    )
    np.testing.assert_allclose(shifted - bare, d[paths[:, :-1]].sum(axis=1), atol=1e-5)
    # They are all that it does not see: any other change of g moves a probability.
    other = moved + np.outer([0, 0, 1], [1, 0, 0])
    assert np.abs(models.log_probabilities("memm", F, other) - models.log_probabilities("memm", F, G)).max() > 0.1


def test_balancing_finds_the_numbers_of_an_hmm_again(weather):
    _, moves, symbols = weather
    generator = np.random.default_rng(3)
    shares = np.array([0.3, 0.7])
    before = generator.choice(2, 10_000, p=shares)
    after = (generator.uniform(size=10_000) > moves[before, 0]).astype(int)
    x = (generator.uniform(size=(10_000, 1)) > np.cumsum(symbols, axis=1)[after]).sum(axis=1)
    f = np.zeros((10_000, 2, 2))
    f[:, 1] = np.log(symbols).T[x]
    shift = np.array([1.5, -0.5])
    found = decoding.balanced_offsets(
        f, np.log(moves) + shift[:, None], np.ones((10_000, 2), bool), shares, rounds=50
    )
    assert shares @ found == pytest.approx(0)
    assert found[0] - found[1] == pytest.approx(shift[1] - shift[0], abs=0.15)


def test_the_bare_head_has_the_scores_of_the_other():
    head = models.head_of("memm", 3, multiplier=4.0)
    head.build((None, None, 3))
    head.weights[0].assign(G / 4.0)
    for offsets in (None, np.array([1.0, 0.0, -1.0])):
        other = decoding.bare(head, offsets)
        shift = 0 if offsets is None else offsets[:, None]
        np.testing.assert_allclose(ops.convert_to_numpy(other.transitions), G + shift, rtol=1e-5)


@pytest.mark.parametrize(
    ("spreads", "bare", "greedy"),
    [((1, 1), 0.28, 0.20), ((3, 1), 0.15, 0.047), ((6, 1), 0.085, 0.011), ((3, 3), 0.35, 0.073)],
)
def test_how_far_decoders_are_apart_on_random_scores(spreads, bare, greedy):
    """Against a simulation that was made for this book with other code."""
    apart = decoding.decoders_apart(*spreads, seeds=range(40))
    for name, expected in (("bare", bare), ("greedy", greedy)):
        assert abs(apart[name].mean() - expected) < 4 * stats.sem(apart[name])


# --- seconds and bytes ------------------------------------------------------------------------------------


@pytest.mark.backends
@pytest.mark.parametrize("mode", costs.MODES)
def test_gradients_are_those_of_calculus(mode):
    a, b, c = (ops.convert_to_tensor(np.array(x, "float32")) for x in ([1.0, 2.0], [3.0, 4.0], [5.0, 6.0]))
    value, (left, right) = costs.value_and_gradients(lambda a, b, c: ops.sum(a * a * b * c), mode)(a, b, c)
    assert float(value) == 15 + 96
    np.testing.assert_allclose(ops.convert_to_numpy(left), [30, 96])
    np.testing.assert_allclose(ops.convert_to_numpy(right), [5, 24])
    _, (_, none) = costs.value_and_gradients(lambda a, _, c: ops.sum(a * c), mode)(a, b, c)
    np.testing.assert_array_equal(ops.convert_to_numpy(none), [0, 0])
    np.testing.assert_allclose(ops.convert_to_numpy(costs.compiled(ops.add, mode)(a, b)), [4, 6])


@pytest.mark.backends
@pytest.mark.parametrize(("mode", "last"), [("graph", "crf"), ("xla", "memm")])
def test_every_contestant_takes_part_in_every_round(mode, last):
    times = {
        "loss": costs.loss_times(5, 3, batch=2, mode=mode, repeats=6, models=("softmax", last)),
        "decoding": costs.decoding_times(5, 3, batch=2, mode=mode, repeats=6),
        "step": costs.step_times(0, 5, width=64, batch=2, mode=mode, models=[last]),
    }
    assert list(times["loss"]["samples"]) == ["softmax", last]
    assert list(times["decoding"]["samples"]) == list(costs.DECODERS)
    assert list(times["step"]["samples"]) == [last]
    for row in times.values():
        race = costs.contest_of(row)
        assert all(len(timing.samples) == 6 and min(timing.samples) > 0 for timing in race.timings.values())


def test_the_fast_softmax_decoder_is_the_exact_one():
    f = np.random.default_rng(0).standard_normal((3, 6, 4)).astype("float32")
    tags, score = costs.DECODERS["softmax"](f, np.zeros((4, 4), "float32"))
    exact, exact_score = models.head_of("softmax", 4).decode(f)
    np.testing.assert_array_equal(ops.convert_to_numpy(tags), ops.convert_to_numpy(exact))
    np.testing.assert_allclose(ops.convert_to_numpy(score), ops.convert_to_numpy(exact_score), rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "parameters"), [("memm, low rank", 2 * 5 * 30), ("memm", 900), ("crf", 900), ("softmax", 0)]
)
def test_a_large_step_trains_and_counts_its_transitions(model, parameters):
    step = costs.large_step(model, 30, rank=5, width=8, batch=4, length=6)
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
    cost = costs.large_cost("memm, low rank", 50, rank=3, batch=2, length=4, repeats=2)
    assert cost["parameters"] == 300
    assert cost["bytes"] == 2500
    assert len(cost["seconds"]) == 2
    with pytest.raises(MemoryError):
        costs.large_cost("crf", 200)


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

    monkeypatch.setattr(corpora, "TASKS", {"segmentation": corpus})
    corpora._corpus.cache_clear()
    yield
    corpora._corpus.cache_clear()


SMALL = {"train": 128, "test": 32, "longest": 12, "epochs": 2, "batch": 16}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_learns_an_easy_language(model):
    found = corpora.compare("segmentation", "one character", model, seed=1, **SMALL, rate=0.02)
    assert found["f1"] == found["accuracy"] == 1
    assert found["illegal"] == 0
    assert found["ruled"]["f1"] == 1
    assert found["loss"] > 0
    assert found["seconds"] > 0


@pytest.mark.usefixtures("toy")
def test_an_easy_language_is_decoded_alike_in_three_ways():
    found = corpora.decode_three_ways("segmentation", "one character", "memm", seed=1, **SMALL, rate=0.02)
    assert {found[name] for name in ("exact", "bare", "balanced")} == {1}
    assert found["offsets"].shape == (4,)


@pytest.mark.usefixtures("toy")
def test_the_hmm_counts_and_needs_no_encoder():
    found = corpora.compare("segmentation", "counts", "hmm", **SMALL)
    assert found["f1"] == 1
    with pytest.raises(ValueError, match="got 'counts'"):
        corpora.compare("segmentation", "counts", "crf")


@pytest.mark.usefixtures("toy")
def test_a_comparison_repeats_with_its_seed(monkeypatch):
    monkeypatch.setattr(labelling, "evaluate", lambda *_: {})
    settings = {**SMALL, "epochs": 1, "rate": 1e-4}
    one, again, other = (
        corpora.compare("segmentation", "three characters", "memm", seed=s, **settings)["loss"] for s in (1, 1, 2)
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
        "STEPS": (2,),
        "CORPORA": {kind: {"train": 32, "test": 8, "longest": 12, "epochs": 1}},
        "COMPARED": {kind: {"one character": {"rate": 0.01, "multiplier": 5.0}}},
        "SHAPES": {kind: [(4, 2)]},
        "DECODED": {kind: ("one character", "one character")},
        "DEPTHS": {kind: [(1, 4, "graph")]},
        "STEP_SIZES": {kind: {"width": 64, "batch": 2, "models": ["softmax"]}},
        "TAG_SETS": {kind: (100, 200)},
        "LARGE": ("memm, low rank",),
        "LARGE_STEPS": {kind: {"batch": 2, "length": 4, "repeats": 1}},
    }
    for name, value in sizes.items():
        monkeypatch.setattr(sweeps, name, value)
    return tmp_path


@pytest.mark.usefixtures("same_process")
def test_the_command_line_records_everything(tiny, monkeypatch):
    monkeypatch.setattr(sweeps, "compare", lambda **case: {"f1": case["seed"] / 2})
    monkeypatch.setattr(sweeps, "decode_three_ways", lambda **case: {"bare": case["seed"] / 4})
    kind = measure.device().kind
    assert sweeps.main(["--scale", kind]) == 0

    def rows(name):
        return records.load("05-memm", name, kind, root=tiny).rows

    compared = rows("models")
    assert [(row["encoder"], row["model"]) for row in compared] == [
        *(("one character", model) for model in models.MODELS),
        ("counts", "hmm"),
    ]
    assert {row["train"] for row in compared} == {32}
    assert [row.get("rate") for row in compared] == [0.01] * 4 + [None]
    assert [row["f1"] for row in compared] == [0.5] * 4 + [0]
    for name in ("decoders", "decoders-far"):
        assert [(row["model"], row["rate"], row["bare"]) for row in rows(name)] == [
            (model, 0.01, 0.25) for model in ("memm", "bi-memm")
        ]
    assert [(row["model"], row["steps"], row["seed"]) for row in rows("ribrob")] == [
        ("hmm", [2], seed) for seed in range(4)
    ]
    assert [(row["what"], row["mode"]) for row in rows("speed")] == [("loss", "graph"), ("decoding", "graph")]
    (steps,) = rows("steps")
    assert list(steps["samples"]) == ["softmax"]
    enough, too_many = rows("tags")
    assert enough["parameters"] == 2 * 64 * 100
    assert too_many["out_of_memory"] is True


def test_other_backends_have_one_mode(monkeypatch):
    assert sweeps._modes() == ("graph", "xla")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert sweeps._modes() == ("xla",)


def test_both_scales_have_sizes_for_everything():
    for sizes in ("CORPORA", "COMPARED", "DECODED", "SHAPES", "DEPTHS", "STEP_SIZES", "TAG_SETS", "LARGE_STEPS"):
        assert set(getattr(sweeps, sizes)) == {"cpu", "gpu"}
    for scale, compared in sweeps.COMPARED.items():
        assert {*sweeps.DECODED[scale]} <= {*compared} <= {*corpora.ENCODERS}


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["memm", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.memm", run_name="__main__")
    assert stopped.value.code == 0
    assert "ribrob" in capsys.readouterr().out


# --- what is drawn ----------------------------------------------------------------------------------------


def test_the_bars_of_the_explorable_are_the_posteriors():
    explorable = drawings.letters_received()
    frames = explorable.frames
    assert len(frames["told"]) == 4**3 * 8
    start = frames["told"][explorable.start]
    assert start == "r o b: rib has 3 % for the HMM and the CRF, 50 % for the MEMM."
    # The MEMM's bar is the third path, and never moves.
    assert len({paths[2] for paths in frames["paths"]}) == 1
    assert len({paths[1] for paths in frames["paths"]}) > 8


# --- the exercises ----------------------------------------------------------------------------------------

WRONG = {
    "5.1": [0.5, 1 / 6],
    "5.2": [[0, 0, 0, 0], [100, 0, 0], [0, 100, 0, 0]],
    "5.3": [lambda f, _: f, lambda f, g: f - special.logsumexp(g, axis=1)],
    "5.4": [(np.zeros((3, 2)), np.zeros((2, 2))), (np.eye(3), np.eye(3))],
    "5.5": [lambda *_: 1.0, lambda f, g: np.exp(f).sum() + g.sum()],
    "5.6": [lambda _, g, *y: len(y) * g],
    "5.7": ["I do not know."],
}


@pytest.mark.parametrize("number", exercises.SHEET.exercises)
def test_an_exercise_accepts_its_solution_and_nothing_else(number, capsys):
    assert_accepts_its_solution_alone(exercises.SHEET, number, WRONG[number], capsys)


def test_a_better_answer_than_ours_is_accepted(capsys):
    exercises.check("5.1", 0.3333)
    exercises.check("5.2", np.array([30.0, -5.0, -5.0, -5.0]))
    exercises.check("5.4", ([[0.2, 0.0]] * 4, [[0.0, 0.0], [9.0, 9.5]]))
    assert capsys.readouterr().out.count("right.") == 3
