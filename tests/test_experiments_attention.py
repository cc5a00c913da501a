"""The experiments of chapter 7: matrices are what attention multiplies by, and every question has its answer."""

import runpy
from functools import partial

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from search import examples
from shared import lifted_out, require

from lib.attention import Attention, softmax_attention
from lib.experiments.attention import alternatives, costs, decoder, decoding, drawings, language, recall, weights
from lib.workbench import corpora
from lib.workbench.measure import device
from lib.workbench.records import Record


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# --- the matrix that an attention implies -----------------------------------------------------------------


@pytest.mark.parametrize("name", weights.ATTENTIONS)
def test_a_matrix_times_the_values_is_the_attention(name):
    attend = weights.ATTENTIONS[name]
    q, k = weights.gaussian(12, 8)
    v = normal(12, 5, seed=1).astype("float32")
    out = ops.convert_to_numpy(attend(*(x[None, :, None] for x in (q, k, v))))[0, :, 0]
    np.testing.assert_allclose(weights.matrix(attend, q, k) @ v, out, atol=1e-5)


def test_the_matrix_of_softmax_is_its_formula():
    q, k = weights.gaussian(9, 4, scale=2.0, seed=3)
    scores = np.exp(q.astype("float64") @ k.T / 2)
    np.testing.assert_allclose(
        weights.matrix(softmax_attention, q, k), scores / scores.sum(axis=1, keepdims=True), rtol=1e-4
    )


@pytest.mark.parametrize("name", ["elu + 1", "1 + cos", "double softmax"])
def test_the_rank_is_at_most_the_number_of_features_and_full_under_a_mask(name):
    q, k = weights.gaussian(40, 8)
    features = 9 if name == "1 + cos" else 8
    assert weights.rank(weights.matrix(weights.ATTENTIONS[name], q, k)) <= features
    if name != "double softmax":
        causal = weights.matrix(partial(weights.ATTENTIONS[name], causal=True), q, k)
        assert np.all(np.diag(causal) > 0)
        np.testing.assert_array_equal(np.triu(causal, 1), 0)
        assert np.linalg.matrix_rank(causal) == 40
    assert weights.rank(weights.matrix(softmax_attention, q, k)) == 40


def test_a_matrix_of_known_rank_has_it():
    assert weights.rank(normal(30, 4) @ normal(4, 30, seed=1)) == 4


def test_entropy_and_largest_weight_of_known_rows():
    W = np.array([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    assert weights.entropy(W) == pytest.approx(0.5)
    assert weights.largest(W) == pytest.approx((4 + 1) / 2)


def test_softmax_sharpens_with_the_scale_and_one_plus_cosine_does_not():
    small, large = (
        {
            name: weights.portrait(weights.ATTENTIONS[name], *weights.gaussian(64, 16, scale))
            for name in ("softmax", "1 + cos")
        }
        for scale in (0.5, 4.0)
    )
    assert large["softmax"]["entropy"] < small["softmax"]["entropy"] - 0.3
    assert large["1 + cos"]["entropy"] == pytest.approx(small["1 + cos"]["entropy"], abs=1e-5)
    assert small["1 + cos"]["largest"] < 3


def test_features_that_approximate_the_softmax_do_so_where_it_is_flat():
    q, k = weights.gaussian(32, 16, scale=0.3)
    exact = weights.matrix(softmax_attention, q, k)
    second = weights.matrix(weights.ATTENTIONS["second order"], q, k)
    x = np.abs(q @ k.T / 4).max()
    remainder = x**3 / 6 * np.exp(2 * x)  # of the polynomial, relative; as much again for the row's sum
    assert remainder < 0.05
    np.testing.assert_allclose(second, exact, rtol=2 * remainder)


def test_the_error_of_a_performer_is_its_law():
    dim, features, norm = 8, 16, 0.5
    rng = np.random.default_rng(0)
    s = rng.standard_normal((2, 2000, dim))
    s = norm * (s / np.linalg.norm(s, axis=-1, keepdims=True)).sum(axis=0)
    law = np.sqrt(np.mean(np.expm1(np.sum(s * s, axis=1))) / features)
    measured = weights.performer_error(dim, features, norm, orthogonal=False, trials=600, seed=1)
    assert measured == pytest.approx(law, rel=0.15)
    assert weights.performer_error(dim, features, norm, orthogonal=True, trials=600, seed=1) < measured


# --- other ways out ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head():
    q, k, v = normal(3, 24, 8, seed=5)
    return q / np.sqrt(8), k, v


LIMITS = {
    "window": lambda *x: alternatives.window(*x, width=48),
    "hashing": lambda *x: alternatives.hashing(*x, buckets=2, rounds=40, seed=0),
    "rank": lambda *x: alternatives.best_rank(*x, size=24),
    "pooling": lambda *x: alternatives.pooling(*x, size=1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_way_is_exact_in_its_limit(name, head):
    np.testing.assert_allclose(LIMITS[name](*head), alternatives.exact(*head), atol=1e-9)


def test_exact_is_softmax_attention(head):
    q, k, v = (x.astype("float32")[None, :, None] for x in head)
    out = ops.convert_to_numpy(softmax_attention(q, k, v, scale=1.0))[0, :, 0]
    np.testing.assert_allclose(alternatives.exact(*head), out, atol=1e-5)


def test_a_query_that_sees_nothing_gets_nothing(head):
    q, k, v = head
    seen = np.ones((24, 24), bool)
    seen[3] = False
    out = alternatives.exact(q, k, v, seen)
    assert np.all(out[3] == 0)
    assert np.all(np.isfinite(out))


def test_a_window_sees_its_neighbours_and_the_first_token(head):
    q, k, _ = head
    W = alternatives.window(q, k, np.eye(24), width=4)
    assert np.flatnonzero(W[10]).tolist() == [0, 8, 9, 10, 11, 12]
    assert np.all(W[0] > 0)
    np.testing.assert_allclose(W.sum(axis=1), 1)


def test_hashing_finds_the_same_vector_and_misses_the_opposite_one():
    x = normal(16, 8, seed=2)
    W = alternatives.hashing(x, np.concatenate([x[:8], -x[8:]]), np.eye(16), buckets=8, rounds=1, seed=0)
    assert np.all(np.diag(W) > 0)
    same = alternatives.hashing(x, x, np.eye(16), buckets=8, rounds=1, seed=0)
    assert np.all((same > 0) == (same > 0).T)


@given(st.integers(1, 23))
@examples(10)
def test_no_matrix_of_a_rank_is_nearer_than_the_best_one(size):
    q, k, _ = normal(3, 24, 8, seed=5)
    W = alternatives.weights(q, k)
    best = alternatives.best_rank(q, k, np.eye(24), size)
    rng = np.random.default_rng(size)
    basis = np.linalg.qr(rng.standard_normal((24, size)))[0]
    assert np.linalg.matrix_rank(best) == size
    assert np.linalg.norm(W - best) <= np.linalg.norm(W - W @ basis @ basis.T) + 1e-12


def test_features_take_the_scale_of_the_softmax(head):
    q, k, v = (x * 0.3 for x in head)
    second = alternatives.features(q, k, v, "taylor")
    np.testing.assert_allclose(second, alternatives.exact(q, k, v), atol=2e-3)


def test_errors_are_relative_to_the_exact_output(head):
    q, k, v = head
    (error,) = alternatives.errors("mean of all values", [head])
    exact = alternatives.exact(q, k, v)
    assert error == pytest.approx(np.linalg.norm(v.mean(axis=0) - exact) / np.linalg.norm(exact))
    assert all(alternatives.errors(way, [head]).shape == (1,) for way in alternatives.WAYS)


def test_heads_are_those_of_minilm_reading_moby_dick():
    try:
        found = alternatives.heads((0, 2), tokens=32, start=100)
    except corpora.CorpusError as missing:
        require(False, str(missing))
    assert len(found) == 24
    assert all(x.shape == (32, 32) for triple in found for x in triple)
    assert 0.2 < np.mean([alternatives.weights(q, k).max() for q, k, _ in found]) < 0.9


# --- the decoder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", decoder.FORMS)
def test_a_decoder_does_not_see_the_future(form):
    model = decoder.decoder(form, symbols=7, hidden=8, heads=2, layers=2, seed=0)
    ids = np.random.default_rng(0).integers(0, 7, (2, 20))
    other = ids.copy()
    other[:, 12:] = (other[:, 12:] + 1) % 7
    one, two = (np.asarray(model.predict_on_batch(x)) for x in (ids, other))
    np.testing.assert_allclose(one[:, :12], two[:, :12], atol=1e-5)
    assert np.abs(one[:, 12:] - two[:, 12:]).max() > 1e-3


def test_decoders_differ_in_their_attention_only():
    sizes = {form: decoder.decoder(form, 50, 32, 2, 2, seed=0).count_params() for form in decoder.FORMS}
    others = {form: size for form, size in sizes.items() if form != "delta rule"}
    assert len(set(others.values())) == 1
    assert sizes["delta rule"] - sizes["softmax"] == 2 * (32 * 2 + 2)  # β of two heads, in two layers


def test_the_weights_follow_the_seed_and_the_width():
    one, again, other = (decoder.decoder("softmax", 5, 64, 2, 1, seed) for seed in (0, 0, 1))
    for a, b, c in zip(one.get_weights(), again.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        if a.ndim == 2:
            assert not np.array_equal(a, c)
    attention = next(layer for layer in one.layers if isinstance(layer, Attention))
    assert np.asarray(attention.query.kernel).std() == pytest.approx(1 / 8, rel=0.1)


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"form must be one of 'softmax', .*, got 'hard'"):
        decoder.decoder("hard", 5, 8, 2, 1, 0)


def record(*rows):
    return Record(device(), {"backend": "an abacus"}, "2026-01-31", "", "cpu", rows)


def test_the_best_rate_is_that_of_the_least_mean_loss():
    rows = [
        {"form": "linear", "rate": rate, "seed": seed, "loss": loss}
        for rate, losses in ((0.1, (1.0, 5.0)), (0.2, (2.0, 3.0)))
        for seed, loss in enumerate(losses)
    ]
    assert decoder.best_rate(record(*rows), "linear") == 0.2
    with pytest.raises(ValueError, match="form must be one that was recorded, got 'softmax'"):
        decoder.best_rate(record(*rows), "softmax")


# --- recall -----------------------------------------------------------------------------------------------


def test_the_error_of_retrieval_is_the_number_of_other_pairs_over_the_dimension():
    for pairs in (2, 16, 64):
        row = recall.retrieval(64, pairs, "sum", trials=30, seed=0)
        assert np.mean(row["errors"]) == pytest.approx((pairs - 1) / 64, rel=0.15)


def test_the_delta_rule_reads_the_last_pair_without_error_and_all_of_them_better():
    added, rewritten = (recall.retrieval(32, 24, rule, trials=20, seed=0) for rule in ("sum", "delta"))
    assert np.mean(rewritten["errors"]) < np.mean(added["errors"])
    one = recall.retrieval(32, 1, "delta", trials=3, seed=0)
    assert np.max(one["errors"]) < 1e-25
    assert one["found"] == [1.0] * 3
    with pytest.raises(ValueError, match="rule must be 'sum' or 'delta', got 'max'"):
        recall.retrieval(4, 4, "max", 1, 0)


@given(st.integers(1, recall.LENGTH - 1), st.integers(0, 99))
def test_every_question_has_its_answer_in_the_text(pairs, seed):
    ids, answers = recall.questions(pairs, 3, np.random.default_rng(seed))
    assert ids.shape == (3, recall.LENGTH, 2)
    for text, wanted in zip(ids, answers, strict=True):
        told = dict(text[:pairs].tolist())
        assert len(told) == pairs
        assert [told[key] for key in text[pairs:, 0].tolist()] == wanted.tolist()
        assert set(text[pairs:, 1].tolist()) == {2 * recall.KEYS}
        assert max(told) < recall.KEYS <= min(told.values()) <= max(told.values()) < 2 * recall.KEYS


@pytest.mark.parametrize("pairs", [0, recall.LENGTH])
def test_a_text_without_a_pair_or_a_query_is_refused(pairs):
    with pytest.raises(ValueError, match=rf"pairs must be from 1 to {recall.LENGTH - 1}, got {pairs}"):
        recall.questions(pairs, 1, np.random.default_rng(0))


class Reader:
    """Answers every query rightly, or, if it is forgetful, with the value told first."""

    def __init__(self, pairs, forgetful=False):
        self.pairs, self.forgetful = pairs, forgetful

    def predict_on_batch(self, ids):
        logits = np.zeros((*ids.shape[:2], 2 * recall.KEYS + 1))
        for i, text in enumerate(ids):
            told = dict(text[: self.pairs].tolist())
            for t in range(self.pairs, ids.shape[1]):
                logits[i, t, text[0, 1] if self.forgetful else told[int(text[t, 0])]] = 1
        return logits


def test_accuracy_is_the_share_of_right_answers():
    assert recall.accuracy(Reader(4), 4, 64, seed=0) == 1
    assert recall.accuracy(Reader(4, forgetful=True), 4, 64, seed=0) == pytest.approx(0.25, abs=0.05)


def test_the_loss_looks_at_answers_only():
    targets, logits = np.array([[-1, 2, -1, 0]]), normal(1, 4, 3).astype("float32")
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -(logs[0, 1, 2] + logs[0, 3, 0]) / 2
    assert float(recall.answers_loss(targets, logits)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("eager_models")
def test_a_case_of_recall_follows_its_seed(monkeypatch):
    monkeypatch.setattr(recall, "PAIRS", (2, 4))
    rows = [recall.recall("linear", seed, 8, 1, steps=3, rate=1e-2, layers=1, batch=4) for seed in (0, 0, 1)]
    assert rows[0]["pairs"] == [2, 4]
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-5)
    assert rows[0]["loss"] != pytest.approx(rows[2]["loss"], rel=1e-5)


# --- language ---------------------------------------------------------------------------------------------


def test_the_novel_is_cut_in_three_without_loss():
    text = corpora.read("moby-dick", "data.txt").decode()
    alphabet, *parts = language.novel()
    assert "".join(alphabet[i] for i in np.concatenate(parts)) == text
    assert [len(part) / len(text) for part in parts] == pytest.approx([0.9, 0.05, 0.05], abs=1e-5)


@given(st.integers(2, 60), st.integers(1, 70))
def test_windows_are_the_text_and_targets_one_further(length, time):
    ids = np.arange(length, dtype="int32")
    if time > length - 1:
        with pytest.raises(ValueError, match=f"time must be below the length of the text, {length}, got {time}"):
            language.windows(ids, time)
        return
    x, y = language.windows(ids, time)
    np.testing.assert_array_equal(x.ravel(), np.arange(x.size))
    np.testing.assert_array_equal(y, x + 1)
    assert length - 1 - x.size < time


def test_bits_are_the_cross_entropy_by_place():
    model = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(5, 5)])
    ids = np.random.default_rng(0).integers(0, 5, 41).astype("int32")
    x, y = language.windows(ids, 4)
    logits = np.asarray(model.predict_on_batch(x), "float64")
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    chosen = np.take_along_axis(logs, y[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(language.bits(model, ids, 4, batch=3), -chosen.mean(axis=0) / np.log(2), rtol=1e-5)


@pytest.mark.usefixtures("eager_models")
def test_a_case_of_language_learns_and_follows_its_seed(monkeypatch):
    text = np.tile(np.arange(5, dtype="int32"), 60)
    monkeypatch.setattr(language, "novel", lambda: language.Novel("abcde", text, text, text))
    sizes = {"hidden": 16, "heads": 2, "layers": 1, "rate": 1e-2, "window": 16}
    short, again, long = (language.language("linear", 0, steps=n, **sizes) for n in (2, 2, 40))
    assert short["bits"] == pytest.approx(again["bits"], rel=1e-5)
    assert long["bits"] < 0.2 < 0.5 < short["bits"]
    assert len(long["by_place"]) == 16
    assert long["weights"] == decoder.decoder("linear", 5, 16, 2, 1, 0).count_params()
    assert np.mean(long["by_place"]) == pytest.approx(long["bits"])


# --- the command and the figures --------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_every_sweep_has_cases_that_its_function_takes(scale, monkeypatch):
    command = runpy.run_module("lib.experiments.attention.__main__")
    swept = {}

    def sweep(_, name, function, cases, **__):
        swept[name] = (function, cases)
        return record(*({"form": case.get("form"), "rate": case.get("rate"), "bits": 1.0} for case in cases))

    monkeypatch.setattr(command["records"], "sweep", sweep)
    monkeypatch.setattr(command["records"], "load", lambda *_: None)
    monkeypatch.setattr(command["costs"], "one_thread", lambda: None)  # too late in a process with tensors
    for name in ("times", "memory", "layers", "decoding", "recall", "language"):
        command[f"_{name}"](scale)
    suffix = "" if keras.backend.backend() == "tensorflow" else f"-{keras.backend.backend()}"
    expected = {f"{name}{suffix}" for name in ("times", "memory", "layers", "decoding")}
    assert set(swept) == expected | {"recall", "rates", "language"}
    for _, cases in swept.values():
        assert len({tuple(sorted(case.items())) for case in cases}) == len(cases) >= 3
    assert {case["form"] for case in swept["recall"][1]} == set(decoder.FORMS)
    assert {case["part"] for case in swept["rates"][1]} == {"dev"}
    assert all("part" not in case for case in swept["language"][1])


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attention", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.attention", run_name="__main__")
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("times", "memory", "layers", "decoding", "recall", "rates", "language"))


def test_points_that_were_not_measured_are_left_out():
    rows = [{"n": 64, "form": "a", "seconds": 2.0}, {"n": 128, "form": "a", "skipped": "too long"}]
    rows.append({"n": 128, "form": "b", "seconds": 1.0})
    assert drawings.measured(record(*rows), "a", "seconds") == ([64], [2.0])


def labels(ax):
    return ax.get_legend_handles_labels()[1]


def test_the_chart_has_a_line_for_each_form_and_circles_for_what_is_live():
    rows = [
        {"n": n, "form": form, "seconds": n * 1e-6, "bytes": n * 100} for n in (64, 128) for form in costs.FORMS
    ]
    drawings.chart(record(*rows), record(*rows), {"causal linear": ([64], [1e-4])})
    assert plt.gcf().get_suptitle() == f"an abacus, recorded on {device().name}, 2026-01-31"
    left, right = plt.gcf().axes
    assert len(left.lines) == len(drawings.LINES) + 1
    assert len(right.lines) == len(drawings.LINES)
    np.testing.assert_allclose(right.lines[0].get_ydata(), np.array([64, 128]) * 100 / 2**20)


def test_bars_show_the_derived_costs():
    figure = drawings.costs_of(1024, 64)
    left, right = figure.axes
    for ax, derived in ((left, costs.flops), (right, costs.bytes_needed)):
        assert [bar.get_width() for bar in ax.patches] == [derived(form, 1024, 64, 8) for form in drawings.LINES]


def test_every_figure_draws_what_it_is_given():
    drawings.maps({"one": np.eye(3), "two": np.ones((3, 3)) / 3})
    assert [ax.get_title().split("\n")[0] for ax in plt.gcf().axes] == ["one", "two"]
    portraits = {name: [{"entropy": 0.5, "largest": 2.0}] * 2 for name in weights.ATTENTIONS}
    drawings.concentration((1, 2), portraits)
    assert labels(plt.gcf().axes[0]) == list(weights.ATTENTIONS)
    rows = {rule: [recall.retrieval(8, n, rule, 2, 0) for n in (2, 4)] for rule in ("sum", "delta")}
    drawings.capacity((2, 4), rows, dim=8)
    assert labels(plt.gcf().axes[0]) == ["sum", "delta", "(N − 1)/d"]
    recalled = [
        {"form": form, "rate": rate, "seed": seed, "loss": rate, "pairs": [2, 4], "accuracy": [1.0, 0.5]}
        for form in decoder.FORMS
        for rate in (0.1, 0.2)
        for seed in (0, 1)
    ]
    drawings.recalled(record(*recalled))
    assert labels(plt.gcf().axes[0]) == list(decoder.FORMS)
    read = [
        {"form": form, "seed": 0, "losses": [3.0, 2.5], "by_place": [3.0] * 16}
        for form in ("delta rule", "softmax")
    ]
    drawings.read(record(*read))
    assert labels(plt.gcf().axes[0]) == ["softmax", "delta rule"]
    steps = [{"way": way, "known": n, "seconds": 1e-3, "bytes": 8.0} for way in decoding.WAYS for n in (1, 2)]
    drawings.token(record(*steps))
    assert set(labels(plt.gcf().axes[0])) == set(decoding.WAYS)
    speedup = {"softmax": [1.1, 1.0, 1.2], "fused softmax": [1.0, 0.9, 1.1]}
    drawings.layer(record({"n": 512, "backward": True, "speedup": speedup}))
    assert len(plt.gcf().axes[0].containers) == 2
    drawings.variance((1, 2), {"independent": [0.1, 1.0]}, features=64)
    assert labels(plt.gcf().axes[0]) == ["independent"]


def test_the_layer_can_be_lifted_out(tmp_path):
    assert lifted_out("07-attention", ("attention",), tmp_path) == "[0 1 2 3 4 5 6] [0 1 2 3 4 5 6]"
