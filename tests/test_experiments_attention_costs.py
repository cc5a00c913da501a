"""What attention costs: what was derived is counted again, and what is measured computes what it says."""

import math
import subprocess
import sys
from functools import cache

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from numerics import normal

from lib.attention import linear_attention, softmax_attention
from lib.experiments.attention import costs, decoding
from lib.workbench import measure, records

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()


def arrays(tensors):
    return [ops.convert_to_numpy(x) for x in tensors]


# --- operations: each algorithm once more, with a counter in its products ---------------------------------


class Counted:
    """Products of matrices, two operations for each multiplication with its addition."""

    def __init__(self):
        self.flops = 0

    def __call__(self, a, b):
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def phi(x):
    return np.where(x > 0, x + 1, np.exp(x))


def all_pairs(dot, Q, K, V, causal=False):
    scores = dot(Q, K.T) / math.sqrt(Q.shape[1])
    return dot(softmax(np.where(np.tri(len(Q)), scores, -1e30) if causal else scores), V)


def earlier_pairs(dot, Q, K, V):
    rows = [all_pairs(dot, Q[i : i + 1], K[: i + 1], V[: i + 1]) for i in range(len(Q))]
    return np.concatenate(rows)


def one_state(dot, Q, K, V):
    Q, K = phi(Q), phi(K)
    return dot(Q, dot(K.T, V)) / (Q @ K.sum(0))[:, None]


def all_states(dot, Q, K, V):
    Q, K = phi(Q), phi(K)
    outer = K[:, :, None] * V[:, None, :]
    dot.flops += 2 * outer.size  # their products, and their sum
    states = np.cumsum(outer, axis=0)
    out = np.concatenate([dot(Q[i : i + 1], states[i]) for i in range(len(Q))])
    return out / np.sum(Q * np.cumsum(K, axis=0), axis=1, keepdims=True)


def in_chunks(dot, Q, K, V, C):
    Q, K = phi(Q), phi(K)
    S, outputs = np.zeros((K.shape[1], V.shape[1])), []
    for i in range(0, len(Q), C):
        q, k, v = (x[i : i + C] for x in (Q, K, V))
        outputs.append(dot(q, S) + dot(np.tril(dot(q, k.T)), v))
        S = S + dot(k.T, v)
    return np.concatenate(outputs) / np.sum(Q * np.cumsum(K, axis=0), axis=1, keepdims=True)


def delta_in_chunks(dot, Q, K, V, C, beta=0.5):
    K = K / math.sqrt(K.shape[1])
    S, outputs = np.zeros((K.shape[1], V.shape[1])), []
    for i in range(0, len(Q), C):
        q, k, v = (x[i : i + C] for x in (Q, K, V))
        known = np.tril(dot(k, k.T), -1)
        u = np.linalg.solve(np.eye(len(k)) + beta * known, beta * (v - dot(k, S)))
        dot.flops += len(k) ** 2 * v.shape[1]  # half of a full product: the system is triangular
        outputs.append(dot(q, S) + dot(np.tril(dot(q, k.T)), u))
        S = S + dot(k.T, u)
    return np.concatenate(outputs)


ALGORITHMS = {
    "softmax": all_pairs,
    "fused softmax": all_pairs,
    "linear": one_state,
    "causal softmax": lambda *x: all_pairs(*x, causal=True),
    "causal fused softmax": earlier_pairs,
    "causal linear": lambda *x: in_chunks(*x, C=64),
    "causal linear, all states": all_states,
    "delta rule": lambda *x: delta_in_chunks(*x, C=64),
}


@pytest.mark.parametrize("form", costs.FORMS)
@pytest.mark.parametrize("n", [40, 128])
def test_a_formula_counts_the_products_of_an_algorithm_that_computes_the_form(form, n):
    x, dot = normal(3, n, 8), Counted()
    found = ALGORITHMS[form](dot, *x.astype("float64"))
    expected = ops.convert_to_numpy(costs.FORMS[form](*(part[None, :, None] for part in x)))[0, :, 0]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert dot.flops == costs.flops(form, n, 8)
    assert costs.flops(form, n, 8, heads=3) == 3 * dot.flops


def test_softmax_costs_n_over_d_times_as_much_as_linear():
    for n, d in [(64, 64), (512, 64), (16, 128)]:
        assert costs.flops("softmax", n, d) / costs.flops("linear", n, d) == n / d


@pytest.mark.parametrize(
    ("a", "b", "n"),
    [
        ("softmax", "linear", 64),
        ("causal softmax", "causal linear", 128),
        ("causal fused softmax", "causal linear", 255),
        ("causal fused softmax", "causal linear, all states", 127),
        ("delta rule", "causal softmax", 208),
    ],
)
def test_two_forms_cross_where_they_cost_the_same(a, b, n):
    assert costs.crossing(a, b, 64) == n
    assert costs.flops(a, n, 64) == costs.flops(b, n, 64)


def test_forms_of_one_order_do_not_cross():
    assert costs.crossing("softmax", "causal softmax", 64) is None
    assert costs.crossing("causal linear", "linear", 64) is None
    assert costs.crossing("softmax", "causal fused softmax", 64) == 1  # a token alone, which sees itself


def test_a_peer_costs_what_its_algorithm_costs():
    assert costs.flops("fla linear (Triton)", 512, 64) == costs.flops("causal linear", 512, 64)


# --- a layer: the numbers of article 8610 -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "speedup", "with_larger_heads"),
    [(512, 1.10, 0.91), (1024, 1.21, 1.0), (1536, 1.32, 1.09), (4608, 1.97, 1.64), (8192, 2.74, 2.27)],
)
def test_a_layer_gets_faster_by_what_the_article_implies(n, speedup, with_larger_heads):
    softmax = costs.layer_flops(n)
    assert round(softmax / costs.layer_flops(n, "linear"), 2) == pytest.approx(speedup)
    larger = costs.layer_flops(n, "linear", features=256, values=256)
    assert round(softmax / larger, 2) == pytest.approx(with_larger_heads)


@pytest.mark.parametrize(("n", "share"), [(128, 0.027), (512, 0.1), (1536, 0.25), (4608, 0.5)])
def test_the_quadratic_term_is_a_share_of_a_layer(n, share):
    layer = costs.layer_flops(n)
    assert costs.flops("softmax", n, 64, heads=12) / layer == pytest.approx(share, rel=0.01)
    assert n / (6 * 768 + n) == pytest.approx(share, rel=0.01)


def test_a_layer_is_its_weights_applied_and_its_attention():
    n, hidden = 10, 768
    weights = 4 * hidden**2 + 2 * hidden * 4 * hidden
    assert costs.layer_flops(n) == 2 * n * weights + costs.flops("softmax", n, 64, heads=12)
    assert costs.layer_flops(n, "linear") == 2 * n * weights + costs.flops("linear", n, 64, heads=12)


# --- bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(64, 8), (65, 8), (4096, 64), (512, 64)])
def test_all_states_take_more_than_all_scores_when_their_size_exceeds_the_tokens(n, d):
    states, scores = (costs.bytes_needed(form, n, d) for form in ("causal linear, all states", "softmax"))
    assert (states > scores) == (d**2 > n)


def test_bytes_grow_with_heads_and_with_the_type_of_the_inputs():
    for form in costs.FORMS:
        alone = costs.bytes_needed(form, 100, 8)
        assert costs.bytes_needed(form, 100, 8, heads=4) == 4 * alone
        assert costs.bytes_needed(form, 100, 8, itemsize=2) == alone - 4 * 100 * 8 * 2  # the rest stays float32


def test_linear_forms_need_bytes_in_proportion_to_the_tokens():
    for form in ("fused softmax", "causal linear", "causal linear, all states", "delta rule"):
        assert costs.bytes_needed(form, 2**14, 64) == 4 * costs.bytes_needed(form, 2**12, 64)
    assert costs.bytes_needed("softmax", 2**14, 64) > 15 * costs.bytes_needed("softmax", 2**12, 64)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX's memory can be measured in a fresh process only")
def test_softmax_holds_the_bytes_that_were_derived():
    peak = measure.peak_memory(costs.build("softmax", 1024))
    ratio = peak.bytes / costs.bytes_needed("softmax", 1024, 64, heads=8)
    assert 0.9 < ratio < (1.1 if BACKEND == "torch" else 2)  # TensorFlow counts a recycled block in full


def test_memory_is_measured_in_a_process_of_its_own():
    row = costs.memory("linear", 4096, heads=2)  # resident memory does not tell a MiB or two
    assert row["derived"] == costs.bytes_needed("linear", 4096, 64, heads=2)
    assert 0.5 < row["bytes"] / row["derived"] < 4
    assert row["method"]


# --- steps ------------------------------------------------------------------------------------------------


def test_a_step_returns_the_output_and_three_gradients():
    q, k, v, upstream = normal(4, 1, 9, 2, 4)
    step = costs.compiled_step(costs.FORMS["softmax"], [*map(ops.convert_to_tensor, (q, k, v))], upstream=None)
    (out,) = arrays(step())
    np.testing.assert_allclose(out, ops.convert_to_numpy(softmax_attention(q, k, v)), atol=1e-6)
    inputs, upstream = [*map(ops.convert_to_tensor, (q, k, v))], ops.convert_to_tensor(upstream)
    found = arrays(costs.compiled_step(costs.FORMS["softmax"], inputs, upstream)())
    for i in range(3):
        direction = normal(1, 9, 2, 4, seed=i + 5)

        def loss(sign, i=i, direction=direction):
            moved = [x + (j == i) * sign * 1e-2 * direction for j, x in enumerate((q, k, v))]
            return float(ops.sum(softmax_attention(*moved) * upstream))

        slope = (loss(1) - loss(-1)) / 2e-2
        assert np.sum(found[i + 1] * direction) == pytest.approx(slope, abs=2e-3)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("softmax", "fused softmax"),
        ("causal softmax", "causal fused softmax"),
        ("causal linear", "causal linear, all states"),
    ],
)
def test_forms_that_are_the_same_function_give_the_same_step(a, b):
    for x, y in zip(*(arrays(costs.build(form, 70, heads=2, dim=4)()) for form in (a, b)), strict=True):
        assert x.shape == (1, 70, 2, 4)
        np.testing.assert_allclose(x, y, atol=2e-4)


def test_a_step_takes_the_type_and_the_batch_that_are_asked_for():
    (out,) = costs.build("linear", 6, heads=2, dim=4, batch=3, dtype="bfloat16", backward=False)()
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    assert tuple(out.shape) == (3, 6, 2, 4)


def test_the_delta_rule_has_keys_of_about_unit_length_and_a_bounded_output():
    out, *gradients = arrays(costs.build("delta rule", 256, heads=2, dim=16)())
    assert all(np.all(np.isfinite(x)) for x in (out, *gradients))
    assert np.abs(out).max() < 100


def test_a_peer_says_what_it_lacks():
    reason = costs.missing("fla linear (Triton)")
    if reason is not None:
        assert reason.startswith("needs ") or "not installed" in reason
        assert costs.times("fla linear (Triton)", 64) == {"skipped": reason}
        assert costs.memory("fla linear (Triton)", 64) == {"skipped": reason}
        with pytest.raises(ValueError, match="fla linear"):
            costs.build("fla linear (Triton)", 64)


# --- measuring --------------------------------------------------------------------------------------------


def test_a_time_is_a_median_with_its_interval():
    row = costs.times("linear", 32, budget=0.02, heads=1, dim=4)
    assert 0 < row["low"] <= row["seconds"] <= row["high"]
    assert 6 <= row["repeats"] <= 200
    assert costs.timed(lambda: None, budget=1e3)["repeats"] == 200
    assert costs.timed(lambda: sum(range(10_000)), budget=1e-6)["repeats"] == 6


def test_a_step_that_needs_too_many_bytes_is_skipped_before_it_is_built(monkeypatch):
    monkeypatch.setattr(costs, "build", None)
    for measured in (costs.times, costs.memory):
        assert measured("softmax", 2**15, most=6 * 2**30) == {"skipped": "needs 96.2 GiB"}
        assert measured("causal linear, all states", 2**14, most=2**30) == {"skipped": "needs 6.12 GiB"}
    if measure.device().kind == "cpu":
        assert costs.times("softmax", 2**14) == {"skipped": "needs 24.1 GiB"}


def test_a_kernel_is_as_large_as_its_scores_where_the_backend_has_none(monkeypatch):
    monkeypatch.setattr(costs, "_seconds_of_one", lambda _: 1.0)
    monkeypatch.setattr(costs, "build", lambda *_, **__: None)
    if measure.device().kind == "cpu":
        expected = "would take 256 s" if BACKEND == "torch" else "needs 24.1 GiB"
        assert costs.times("fused softmax", 2**14) == {"skipped": expected}


@pytest.mark.parametrize(
    ("overhead", "per_pair", "n", "trials", "skipped"),
    [
        (0.0, 1e-8, 1024, [], False),  # small enough to just run
        (0.0, 1e-8, 16384, [1024], False),
        (0.0, 1e-7, 16384, [1024, 4096], True),  # 27 s by both
        (0.0, 1e-5, 16384, [1024], True),  # the next trial would be too long itself
        (0.1, 1e-9, 16384, [1024, 4096], False),  # the overhead of the first trial is not the cost of the step
    ],
)
def test_a_step_that_takes_too_long_is_foreseen_by_shorter_ones(
    monkeypatch, overhead, per_pair, n, trials, skipped
):
    tried = []
    monkeypatch.setattr(costs, "build", lambda _, n: tried.append(n) or n)
    monkeypatch.setattr(costs, "_seconds_of_one", lambda n: overhead + per_pair * n * n)
    estimate = costs.estimated_seconds("softmax", n, longest=8.0)
    assert tried == trials
    assert (estimate > 8.0) == skipped
    assert not trials or estimate >= per_pair * n * n * (1 - 1e-9)  # never too low


def test_out_of_memory_is_a_value(monkeypatch, tmp_path):
    def exhausted(*_, **__):
        raise MemoryError("8 GiB")

    monkeypatch.setattr(costs, "build", exhausted)
    monkeypatch.setattr(decoding, "build", exhausted)
    monkeypatch.setattr(measure, "peak_memory_in_fresh_process", exhausted)
    assert costs.times("softmax", 64) == {"out_of_memory": True}
    assert costs.memory("softmax", 64) == {"out_of_memory": True}
    assert decoding.decoding("cache", 64) == {"out_of_memory": True}
    cases = [{"form": "linear", "n": 64}]
    record = records.sweep("07-x", "times", costs.times, cases, scale=measure.device().kind, root=tmp_path)
    assert record.rows == ({"form": "linear", "n": 64, "out_of_memory": True},)


def test_the_layers_of_a_contest_are_one_layer_with_another_attention():
    plain, linear = (arrays(costs._layer_step(form, 12, True, 2, 4, 0)()) for form in ("softmax", "linear"))
    assert len(plain) == 1 + 1 + 4 * 2 + 2 * 2 + 2 * 2  # output, vectors, weights with biases, norms
    assert all(np.any(gradient) for gradient in linear)
    (fused,) = arrays(costs._layer_step("fused softmax", 12, False, 2, 4, 0)())
    np.testing.assert_allclose(fused, plain[0], atol=1e-5)
    assert np.abs(linear[2] - plain[2]).max() > 0.1 * np.abs(plain[2]).max()  # the gradient of the first map


def test_the_time_of_a_layer_stands_beside_what_was_derived():
    row = costs.layer_times(16, backward=False, heads=2, dim=4, budget=0.02)
    assert row["repeats"] >= 6
    assert sorted(row["seconds"]) == sorted(costs.LAYERS)
    assert row["derived"] == costs.layer_flops(16, heads=2, dim=4) / costs.layer_flops(
        16, "linear", heads=2, dim=4, features=4
    )
    for value, low, high in (row["speedup"][form] for form in ("softmax", "fused softmax")):
        assert low <= value <= high


# --- cases ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", measure.SCALES)
def test_the_contestants_take_turns_at_each_n(scale):
    for cases, key in [
        (costs.cases(scale), "n"),
        (costs.memory_cases(scale), "n"),
        (costs.layer_cases(scale), "n"),
        (decoding.cases(scale), "known"),
    ]:
        sizes = [case[key] for case in cases]
        assert sizes == sorted(sizes)
        assert len({str(case) for case in cases}) == len(cases)
    assert {case["form"] for case in costs.cases("gpu")} == {*costs.FORMS, *costs.PEERS}


def test_long_texts_are_for_the_form_that_can_read_them():
    assert {case["form"] for case in costs.cases("cpu") if case["n"] > 2**14} == {"causal linear"}
    assert {case["dtype"] for case in costs.cases("gpu")} == {"bfloat16"}


def test_a_sweep_of_cases_is_recorded(tmp_path):
    cases = [{"n": 8, "form": form} for form in ("softmax", "linear")]

    def times(n, form):
        return costs.times(form, n, budget=0.01, heads=1, dim=4)

    record = records.sweep("07-x", "times", times, cases, scale=measure.device().kind, root=tmp_path)
    assert record.column("form") == ["softmax", "linear"]
    assert all(seconds > 0 for seconds in record.column("seconds"))


# --- reading curves ---------------------------------------------------------------------------------------


@given(p=st.floats(0.5, 3), level=st.floats(1e-6, 10))
def test_the_slope_of_a_power_is_its_exponent(p, level):
    ns = 2.0 ** np.arange(8, 15)
    found = costs.slope(ns, level * ns**p)
    assert found.value == pytest.approx(p, abs=1e-6)
    assert found.high - found.low < 1e-6


def test_the_interval_of_a_slope_covers_the_exponent_as_often_as_it_says():
    rng, ns = np.random.default_rng(0), 2.0 ** np.arange(8, 14)
    found = [costs.slope(ns, ns**2 * np.exp(0.1 * rng.standard_normal(6))) for _ in range(2000)]
    covered = np.mean([estimate.low <= 2 <= estimate.high for estimate in found])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))
    half = np.mean([low <= 2 <= high for low, high in (estimate.interval(0.5) for estimate in found)])
    assert half == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))


@given(at=st.floats(300, 8000), exponents=st.tuples(st.floats(1.2, 3), st.floats(0, 1)), level=st.floats(1e-6, 1))
def test_two_powers_cross_where_they_are_equal(at, exponents, level):
    ns = [256, 1024, 4096, 16384]
    a, b = ([level * (n / at) ** p for n in ns] for p in exponents)
    assert costs.crossing_measured(ns, a, b) == pytest.approx(at, rel=1e-6)


def test_curves_that_do_not_cross_in_the_range_have_no_crossing():
    ns = [1, 2, 4]
    assert costs.crossing_measured(ns, [1, 1, 1], [2, 2, 2]) is None  # below all along
    assert costs.crossing_measured(ns, [3, 3, 3], [2, 2, 2]) is None  # above all along
    assert costs.crossing_measured(ns, [1, 3, 1], [2, 2, 2]) is None  # above only between
    assert costs.crossing_measured(ns, [None, None, None], [2, 2, 2]) is None


def test_the_last_of_several_crossings_counts_and_gaps_are_bridged():
    assert costs.crossing_measured([1, 2, 4, 8, 16], [1, 4, 1, 1, 4], [2, 2, 2, 2, 2]) == pytest.approx(8 * 2**0.5)
    assert costs.crossing_measured([1, 2, 4, 16], [1, 1, None, 4], [2, 2, 2, 2]) == pytest.approx(2 * 8**0.5)
    assert costs.crossing_measured([1, 2, 4], [1, 4, None], [2, 2, 2]) == pytest.approx(2**0.5)


# --- decoding ---------------------------------------------------------------------------------------------


@cache
def generated(way, known=5, tokens=3):
    """What is generated by one call and by the next, and what is remembered."""
    run = decoding.build(way, known, tokens=tokens, heads=2, dim=4, batch=3, seed=1)
    return ops.convert_to_numpy(run()[0]), *run()


def by_definition(attend, known=5, tokens=3):
    """The same tokens, each with the whole of what came before, in NumPy and ``lib.attention``."""
    rng = np.random.default_rng(1)
    k, v = rng.standard_normal((2, 3, known, 2, 4), dtype="float32")
    new = rng.standard_normal((tokens, 3, 3, 2, 4), dtype="float32")
    q, outputs = k, []
    for i in range(tokens):
        token = new[i] + (outputs[-1] if outputs else 0)
        q, k, v = (np.concatenate([x, y[:, None]], axis=1) for x, y in zip((q, k, v), token, strict=True))
        outputs.append(ops.convert_to_numpy(attend(q, k, v, causal=True))[:, -1])
    return np.stack(outputs)


@pytest.mark.parametrize("way", decoding.WAYS)
def test_each_way_generates_what_its_attention_says(way):
    expected = by_definition(linear_attention if way == "state" else softmax_attention)
    np.testing.assert_allclose(generated(way)[0], expected, atol=2e-5)


@pytest.mark.parametrize("way", decoding.WAYS)
def test_generating_again_begins_after_the_known_tokens(way):
    first, second, _ = generated(way)
    np.testing.assert_array_equal(first, ops.convert_to_numpy(second))


def test_bytes_are_those_of_the_tensors():
    for way in decoding.WAYS[1:]:
        keys, values = arrays(generated(way)[2])[:2]  # beside them a cache holds which of its places are filled
        assert decoding.bytes_held(way, 8, heads=2, dim=4) * 3 == 4 * (keys.size + values.size)
    state = generated("state")[2]
    assert decoding.bytes_held("state", 8, heads=2, dim=4) * 3 == 4 * sum(
        math.prod(x.shape) for x in (state.S, state.z)
    )
    assert decoding.bytes_held("state", 10**9, heads=2, dim=4) == decoding.bytes_held("state", 1, heads=2, dim=4)


def test_what_stands_behind_the_place_is_not_looked_at():
    keys, q = normal(1, 2, 6, 4), normal(1, 2, 4, seed=1)
    found = [
        decoding.buffered_step(decoding.make_room(filled, 6), 3, *map(ops.convert_to_tensor, (q, q, q)))[0]
        for filled in (keys, np.where(np.arange(6)[:, None] > 3, 1e3, keys).astype("float32"))
    ]
    np.testing.assert_array_equal(*arrays(found))


@pytest.mark.skipif(BACKEND == "jax", reason="JAX's memory can be measured in a fresh process only")
def test_a_cache_is_written_in_place_and_a_concatenated_one_is_copied():
    one = decoding.bytes_held("cache", 4096) / 2  # the keys
    assert measure.peak_memory(decoding.build("cache", 4096, tokens=3)).bytes < one / 4
    assert measure.peak_memory(decoding.build("concatenated cache", 4096, tokens=3)).bytes > one


def test_a_case_of_decoding_has_seconds_of_a_token_and_bytes():
    row = decoding.decoding("state", 8, budget=0.01, tokens=2, heads=2, dim=4, batch=2)
    assert 0 < row["low"] <= row["seconds"] <= row["high"]
    assert row["bytes"] == 2 * 2 * 4 * 5 * 4


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: costs.flops("hard", 1, 1), "form must be one of"),
        (lambda: costs.flops("softmax", 0, 1), "n must be at least 1, got 0"),
        (lambda: costs.bytes_needed("hard", 1, 1), "form must be one of"),
        (lambda: costs.crossing("softmax", "linear", 0), "d must be at least 1, got 0"),
        (lambda: costs.layer_flops(1, "fused softmax"), "form must be 'softmax' or 'linear'"),
        (lambda: costs.layer_flops(1, features=0), "features must be at least 1"),
        (lambda: costs.times("hard", 1), "form must be one of"),
        (lambda: costs.cases("tpu"), "scale must be one of"),
        (lambda: costs.slope([1, 2], [1, 2]), "expected two equal lengths"),
        (lambda: costs.slope([1, 2, 3], [1, 0, 2]), "must be positive"),
        (lambda: costs.slope([2, 2, 2], [1, 3, 2]), "not all equal"),
        (lambda: costs.crossing_measured([1, 2], [1], [1, 2]), "must have one length"),
        (lambda: costs.crossing_measured([2, 1], [1, 2], [1, 2]), "must increase"),
        (lambda: decoding.build("memory", 1), "way must be one of"),
        (lambda: decoding.build("state", 0), "known, tokens must be at least 1"),
        (lambda: decoding.cases("tpu"), "scale must be one of"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ASKED = {
    "tensorflow": "import tensorflow as b; n = b.config.threading.get_intra_op_parallelism_threads()",
    "torch": "import torch as b; n = b.get_num_threads()",
}


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no such switch within a process")
def test_one_thread_is_one_thread():
    code = f"from lib.experiments.attention import costs; costs.one_thread(); {ASKED[BACKEND]}; print(n)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=measure.ROOT, check=True)
    assert run.stdout.split()[-1] == "1"
