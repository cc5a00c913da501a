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
from shared import assert_accepts_its_solution_alone, lifted_out, require

from lib.attention import Attention, linear_attention, softmax_attention
from lib.experiments.attention import (
    alternatives,
    costs,
    decoder,
    decoding,
    drawings,
    exercises,
    language,
    recall,
    weights,
)
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


def test_one_plus_cosine_is_a_product_of_features_and_no_weight_is_above_its_bound():
    q, k = (x.astype("float64") for x in weights.gaussian(30, 6, seed=3))
    k[:20] = np.abs(k[:20])  # not all directions alike
    unit_q, unit_k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    one = np.ones((30, 1))
    similarity = np.hstack([one, unit_q]) @ np.hstack([one, unit_k]).T
    cosines = np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in k] for a in q])
    np.testing.assert_allclose(similarity, 1 + cosines, atol=1e-12)
    W = weights.matrix(weights.ATTENTIONS["1 + cos"], q, k)
    np.testing.assert_allclose(W, similarity / similarity.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.all(W >= 0)
    np.testing.assert_allclose(W.sum(axis=1), 1, atol=1e-5)
    assert np.all(W.max(axis=1) <= 2 / (30 + cosines.sum(axis=1)) + 1e-6)


def test_a_later_key_changes_the_earlier_weights_of_the_double_softmax():
    q, k = weights.gaussian(20, 4, seed=1)
    changed = k.copy()
    changed[-1] += [6, 0, 0, 0]  # one feature's denominator
    before, after = (weights.matrix(weights.ATTENTIONS["double softmax"], q, x) for x in (k, changed))
    np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-5)
    shares = [W[:, :-1] / W[:, :-1].sum(axis=1, keepdims=True) for W in (before, after)]
    assert np.abs(shares[1] - shares[0]).max() > 0.01  # not by one factor a query, which a mean would not see
    causal = [
        weights.matrix(partial(linear_attention, feature_map="exp", causal=True), q, x)[:-1] for x in (k, changed)
    ]
    np.testing.assert_allclose(*causal, atol=1e-6)


@pytest.mark.parametrize("C", [1, 2, 4, 8, 24])
def test_chunks_give_the_recurrence_and_take_what_the_proposition_says(C):
    n, d = 24, 5
    Q, K, V = normal(3, n, d)
    counted, states, S, out = 0, 0, np.zeros((d, d)), []

    def dot(a, b):
        nonlocal counted
        counted += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b

    for i in range(0, n, C):
        q, k, v = (x[i : i + C] for x in (Q, K, V))
        out.append(dot(q, S) + dot(np.tril(dot(q, k.T)), v))
        S, states = S + dot(k.T, v), states + 1
    one_by_one, expected = np.zeros((d, d)), []
    for q, k, v in zip(Q, K, V, strict=True):
        one_by_one = one_by_one + np.outer(k, v)
        expected.append(q @ one_by_one)
    np.testing.assert_allclose(np.concatenate(out), expected, atol=1e-12)
    assert counted == 4 * n * d**2 + 4 * n * C * d == costs.flops("causal linear", n, d, chunk=C)
    assert states == n // C
    tensors = (x.astype("float32")[None, :, None] for x in (Q, K, V))
    found = linear_attention(*tensors, None, causal=True, normalize=None, chunk=C)
    np.testing.assert_allclose(ops.convert_to_numpy(found)[0, :, 0], expected, atol=1e-4)


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
    assert weights.performer_law(dim, features, norm) == pytest.approx(law, rel=0.02)
    row = weights.random_error(dim, features, norm, False, trials=50, seed=1)
    assert row["law"] == weights.performer_law(dim, features, norm)
    assert row["error"] == weights.performer_error(dim, features, norm, False, 50, 1)


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


@pytest.mark.parametrize("error", [0.0, 0.05, 0.3, 1.0])
def test_the_needed_rank_is_the_first_that_errs_little_enough(error, head):
    exact = alternatives.exact(*head)
    errors = [
        np.linalg.norm(alternatives.best_rank(*head, size) - exact) / np.linalg.norm(exact) for size in range(25)
    ]
    needed = alternatives.needed_rank(*head, error)
    assert errors[needed] <= error + 1e-6
    assert needed == 0 or errors[needed - 1] > error


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
    row = alternatives.glimpse(2, tokens=32, start=100)
    assert len(row["pieces"]) == len(row["softmax"]) == len(row["elu + 1"]) == 32
    q, k, _ = alternatives.heads((2,), tokens=32, start=100)[row["head"]]
    np.testing.assert_allclose(row["softmax"], alternatives.weights(q, k)[row["query"]], atol=1e-5)
    flat = weights.matrix(linear_attention, q * np.sqrt(q.shape[1]), k)[row["query"]]
    np.testing.assert_allclose(row["elu + 1"], flat, atol=1e-5)


def test_the_error_by_scale_is_that_of_the_features(monkeypatch, head):
    monkeypatch.setattr(alternatives, "heads", lambda layers, *_: [head] * len(layers))
    row = alternatives.by_scale(24, start=0, scales=(1.0,))
    q, k, v = head
    W = weights.matrix(linear_attention, q * np.sqrt(q.shape[1]), k)
    exact = alternatives.exact(q, k, v)
    assert row["scaled"][0] == pytest.approx(np.linalg.norm(W @ v - exact) / np.linalg.norm(exact), rel=1e-4)
    assert row["shared"] == alternatives.errors("elu + 1", [head])[0]


def test_stand_ins_are_the_medians_of_all_heads(monkeypatch, head):
    monkeypatch.setattr(alternatives, "heads", lambda layers, *_: [head] * len(layers))
    row = alternatives.stand_ins(24, start=0, ways=True)
    assert row["needed"] == alternatives.needed_rank(*head, 0.1)
    for way, error in row["median"].items():
        assert error == pytest.approx(alternatives.errors(way, [head])[0], abs=1e-4)
    assert row["nearer"] in (0, 1)
    assert set(alternatives.stand_ins(24, start=0, ways=False)) == {"needed"}


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
    others = {form: size for form, size in sizes.items() if form not in ("delta rule", "vector gate")}
    assert len(set(others.values())) == 1
    assert sizes["vector gate"] - sizes["softmax"] == 2 * (32 * 16 + 16 + 16 * 32 + 32)  # a product of rank 16
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


@pytest.mark.parametrize("rule", ["sum", "decay", "delta"])
def test_the_error_by_age_is_that_of_a_state_written_pair_by_pair(rule):
    found = recall.error_by_age(6, 5, rule, trials=3, seed=2, decay=0.8)
    rng = np.random.default_rng(2)
    K, V = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (rng.standard_normal((5, 3, 6)) for _ in "kv"))
    errors = np.zeros((5, 3))
    for trial in range(3):
        S = np.zeros((6, 6))
        for k, v in zip(K[:, trial], V[:, trial], strict=True):
            S = (0.8 if rule == "decay" else 1) * S + np.outer(k, v - S.T @ k if rule == "delta" else v)
        errors[:, trial] = [np.sum((S.T @ K[i, trial] - V[i, trial]) ** 2) for i in range(5)]
    np.testing.assert_allclose(found, errors.mean(axis=1)[::-1], atol=1e-12)
    if rule == "sum":
        rows = recall.retrieval(64, 17, "sum", trials=40, seed=1)
        assert recall.error_by_age(64, 17, "sum", 40, seed=1).mean() == pytest.approx(
            np.mean(rows["errors"]), rel=0.1
        )
    with pytest.raises(ValueError, match="rule must be 'sum', 'decay' or 'delta', got 'max'"):
        recall.error_by_age(4, 4, "max", 1, 0)


@pytest.mark.parametrize("rule", recall.RULES)
def test_a_rule_is_the_form_of_the_library(rule):
    x = recall.random_tokens(20, 4, seed=3)
    S, expected = np.zeros((4, 4)), []
    for t in range(20):
        gates = recall.gates_of(rule, x, t)
        S = gates.get("gamma", 1) * S
        u = gates["beta"] * (x.v[t] - S.T @ x.k[t]) if "beta" in gates else x.v[t]
        S = S + np.outer(x.k[t], u)
        expected.append(S.T @ x.q[t])
    np.testing.assert_allclose(recall.by_library(rule, x), expected, atol=1e-4)
    assert ("gamma" in gates, "beta" in gates) == (rule not in ("sum", "delta rule"), "delta" in rule)
    with pytest.raises(ValueError, match=r"rule must be one of 'sum', .* got 'max'"):
        recall.by_library("max", x)


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
        found = ("form", "rate")
        return record(*({key: case.get(key) for key in found} | {"bits": 1.0, "loss": 1.0} for case in cases))

    monkeypatch.setattr(command["records"], "sweep", sweep)
    monkeypatch.setattr(command["records"], "load", lambda *_: None)
    monkeypatch.setattr(command["costs"], "one_thread", lambda: None)  # too late in a process with tensors
    for name in ("times", "memory", "layers", "decoding", "glimpse", "stand_ins", "by_scale", "variance"):
        command[f"_{name}"](scale)
    for name in ("recall", "recall_gate", "language", "rotary"):
        command[f"_{name}"](scale)
    suffix = "" if keras.backend.backend() == "tensorflow" else f"-{keras.backend.backend()}"
    expected = {f"{name}{suffix}" for name in ("times", "memory", "layers", "decoding")}
    expected |= {
        "glimpse",
        "stand-ins",
        "by-scale",
        "variance",
        "recall",
        "recall-gate",
        "rates",
        "language",
        "rotary",
    }
    assert set(swept) == expected
    for name, (_, cases) in swept.items():
        assert len({tuple(sorted(case.items())) for case in cases}) == len(cases) >= (1 if name == "glimpse" else 3)
    learnt = {case["form"] for name in ("recall", "recall-gate") for case in swept[name][1]}
    assert learnt == set(decoder.FORMS) - {"rotary softmax"}
    assert {case["form"] for case in swept["rotary"][1]} == {"rotary softmax"}
    assert {case["part"] for case in swept["rates"][1]} == {"dev"}
    assert all("part" not in case for case in swept["language"][1])


def test_the_command_line_lists_them(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["attention", "--list"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lib.experiments.attention", run_name="__main__")
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    names = (
        "times",
        "memory",
        "layers",
        "decoding",
        "glimpse",
        "stand-ins",
        "by-scale",
        "variance",
        "recall",
        "recall-gate",
    )
    assert all(name in listed for name in (*names, "rates", "language", "rotary"))


def test_points_that_were_not_measured_are_left_out():
    rows = [{"n": 64, "form": "a", "seconds": 2.0}, {"n": 128, "form": "a", "skipped": "too long"}]
    rows.append({"n": 128, "form": "b", "seconds": 1.0})
    assert drawings.measured(record(*rows), "a", "seconds") == ([64], [2.0])


def test_the_chart_has_a_line_for_each_form():
    rows = [
        {"n": n, "form": form, "seconds": n * 1e-6, "bytes": n * 100} for n in (64, 128) for form in costs.FORMS
    ]
    seconds, held = drawings.chart(record(*rows), record(*rows))
    assert len(seconds.axes[0].lines) == len(held.axes[0].lines) == len(drawings.LINES)
    np.testing.assert_allclose(held.axes[0].lines[0].get_ydata(), np.array([64, 128]) * 100 / 2**20)


def test_both_orders_are_drawn_to_scale():
    left, right = drawings.two_orders(ratio=3)
    for figure, largest in ((left, 9.0), (right, 3.0)):
        areas = [patch.get_width() * patch.get_height() for patch in figure.axes[0].patches]
        assert max(areas) == largest
        assert len(areas) == 6


@pytest.mark.parametrize(("n", "C"), [(16, 4), (12, 3)])
def test_chunks_cover_the_triangle(n, C):
    first, second = drawings.chunks(n, C)
    drawn = first.axes[0].patches
    blocks = [patch.get_width() * patch.get_height() for patch in drawn if hasattr(patch, "get_width")]
    assert len(drawn) - len(blocks) == n // C
    assert sum(blocks) + n // C * C * C / 2 == n * n / 2
    assert len(second.axes[0].patches) == 2 * n // C


def test_the_slider_tells_what_both_orders_cost():
    explorable = drawings.costs_of_orders()
    told = explorable.frames["told"]
    assert len(told) == 13 * 5
    assert "512 tokens, heads of 64: the right order takes 8 times fewer" in explorable.told
    assert any("64 tokens, heads of 64: both orders cost the same" in text for text in told)
    assert any("16 tokens, heads of 256: the right order takes 16 times more" in text for text in told)


def test_the_slider_tells_what_a_state_remembers():
    explorable = drawings.remembered(dim=16, trials=5)
    assert len(explorable.frames["told"]) == 6
    assert all("0.00 by the delta rule, the oldest" in text for text in explorable.frames["told"])


def test_every_figure_draws_what_it_is_given():
    weights_of_one = {"softmax": [0.7, 0.2, 0.1], "elu + 1": [0.4, 0.3, 0.3]}
    figure = drawings.one_query(record({"pieces": ["a", "whale", "sail"], "query": 2, **weights_of_one}))
    assert [bar.get_height() for bar in figure.axes[0].patches] == weights_of_one["softmax"]
    portraits = {name: [{"entropy": 0.5, "largest": 2.0}] * 2 for name in weights.ATTENTIONS}
    assert all(len(panel.axes[0].lines) == 6 for panel in drawings.concentration((1, 2), portraits))
    spread = [
        {"orthogonal": orthogonal, "norm": norm, "error": norm, "law": 2 * norm}
        for orthogonal in (False, True)
        for norm in (1.0, 2.0)
    ]
    lines = drawings.variance(record(*spread)).axes[0].lines[:3]
    assert [[*line.get_ydata()] for line in lines] == [[2, 4], [1, 2], [1, 2]]
    rows = [
        {"tokens": n, "start": start, "needed": n / 8 + start}
        | ({"median": {"elu + 1": 0.8, "mean of all values": 0.9 + start / 10}} if n == 256 else {})
        for n in (128, 256)
        for start in (0, 1)
    ]
    ways, ranks = drawings.stand_ins(record(*rows))
    assert [label.get_text() for label in ways.axes[0].get_yticklabels()] == ["elu + 1", "mean of all values"]
    assert list(ranks.axes[0].lines[-1].get_ydata()) == [16.5, 32.5]
    recalled = [
        {"form": form, "rate": rate, "seed": seed, "loss": rate, "pairs": [2, 48], "accuracy": [1.0, seed / 2]}
        for form in ("linear", "decay")
        for rate in (0.1, 0.2)
        for seed in (0, 1)
    ]
    assert drawings.answered(record(*recalled), "linear", 48).tolist() == [0, 50]
    assert len(drawings.recalled(record(*recalled)).axes[0].lines) == 4
    read = [{"form": form, "seed": 0, "bits": bits} for form, bits in (("softmax", 2.2), ("delta rule", 2.1))]
    order = [label.get_text() for label in drawings.read(record(*read)).axes[0].get_yticklabels()]
    assert order == ["delta rule", "softmax"]
    steps = [{"way": way, "known": n, "seconds": 1e-3, "bytes": 8.0} for way in decoding.WAYS for n in (1, 2)]
    assert [len(panel.axes[0].lines) for panel in drawings.token(record(*steps))] == [2, 2]
    speedup = {"softmax": [1.1, 1.0, 1.2], "fused softmax": [1.0, 0.9, 1.1]}
    assert len(drawings.layer(record({"n": 512, "backward": True, "speedup": speedup})).axes[0].containers) == 1


def test_the_layer_can_be_lifted_out(tmp_path):
    preamble = "import keras\nimport numpy as np\nfrom lib import attention"
    assert lifted_out("07-attention", ("attention",), tmp_path, preamble) == "[0 1 2 3 4 5 6] [0 1 2 3 4 5 6]"


# --- the exercises ----------------------------------------------------------------------------------------

WRONG = {
    "7.1": [128, 64**2],
    "7.2": [0.5, 1.0],
    "7.3": [lambda x: x, lambda x: (x[:, :, None] * x[:, None]).reshape(len(x), -1)],
    "7.4": [(0.5, 1.0), (1.0, 2.0), (0.25, 0.25), 0.25],
    "7.5": [
        lambda q, k, _: np.tril(q @ k.T),
        lambda q, k, g: np.tril((q * np.exp(np.cumsum(g, 0))) @ (k * np.exp(-np.cumsum(g, 0))).T),
    ],
    "7.6": [(np.eye(4), np.eye(4)), (np.ones((4, 4)) / 2, np.eye(4)), (2 * np.eye(4), np.eye(4))],
    "7.7": ["I do not know."],
}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value", "ignore:divide by zero")
@pytest.mark.parametrize("number", exercises.SHEET.exercises)
def test_an_exercise_accepts_its_solution_and_nothing_else(number, capsys):
    assert_accepts_its_solution_alone(exercises.SHEET, number, WRONG[number], capsys)
