"""Truths about ``lib.chain``, on whichever backend KERAS_BACKEND names."""

import functools
import math
from itertools import pairwise, product
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from numerics import array, compiled
from scipy import special, stats
from search import examples, floats

from lib.chain import (
    Potentials,
    _messages,
    _posterior,
    checked,
    k_best,
    log_partition,
    marginals,
    sample,
    sequence_score,
    viterbi,
)
from lib.chain.likelihood import score_of
from lib.chain.partition import log_partition_of

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
COMPILED = (
    BACKEND == "jax"
)  # there the tests call jitted functions, or every shape would compile dozens of operations
DOUBLE = BACKEND == "tensorflow"  # elsewhere Keras computes a float64 product in float32
SHAPES = [(6, 1), (5, 2), (6, 3), (6, 4), (1, 3)]  # time, tags
ROWS = 12


def quick(function):
    return compiled(function) if COMPILED else function


partition = quick(lambda e, A, m, s, f: log_partition(e, A, mask=m, start=s, end=f))
posterior = quick(lambda e, A, m, s, f: marginals(e, A, mask=m, start=s, end=f))
score = quick(lambda e, y, A, m, s, f: sequence_score(y, e, A, mask=m, start=s, end=f))
best = quick(lambda e, A, m, s, f: viterbi(e, A, mask=m, start=s, end=f))
best_five = quick(lambda e, A, m, s, f: k_best(e, A, 5, mask=m, start=s, end=f))
draw = quick(lambda e, A, m, s, f: sample(e, A, mask=m, start=s, end=f, count=2000, seed=1))
ways = pytest.mark.parametrize("xla", [False, True])

long_partition = compiled(lambda e, A, m, s, f: log_partition(e, A, mask=m, start=s, end=f))
closed = quick(lambda *a: _messages.with_boundary(*map(ops.convert_to_tensor, a)))
chosen_by_products = compiled(lambda *a: _posterior.posterior_of(*closed(*a)[:2])[1])


@functools.cache
def jitted_gradient(function, inputs):
    import jax

    return jax.jit(jax.grad(function, range(inputs)))


def gradient(function, *inputs, fixed=()):
    """Gradients of a scalar function of tensors and of fixed arrays with respect to the tensors."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        inputs = [tf.convert_to_tensor(x) for x in inputs]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(*inputs, *fixed)
        return [array(g) for g in tape.gradient(value, inputs)]
    if BACKEND == "jax":
        return [array(g) for g in jitted_gradient(function, len(inputs))(*inputs, *fixed)]
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    function(*inputs, *map(torch.tensor, fixed)).backward()
    return [array(x.grad) for x in inputs]


def weighted_partition(e, A, s, f, m, w):
    """Σ w log Z over the rows in which some sequence is legal."""
    log_z = log_partition(e, A, mask=m, start=s, end=f)
    return ops.sum(ops.where(ops.isfinite(log_z), w * log_z, 0))


# --- independent references, float64 --------------------------------------------------------------------------


def enumerated(e, A, s, f):
    """Everything about one row without padding, from all of its sequences."""
    time, tags = e.shape
    sequences = list(product(range(tags), repeat=time)) if time else [()]
    scores = np.array(
        [
            sum(e[t, y] for t, y in enumerate(path))
            + sum(A[move] for move in pairwise(path))
            + (s[path[0]] + f[path[-1]] if path else 0)
            for path in sequences
        ]
    )
    log_z = special.logsumexp(scores)
    p = np.exp(scores - log_z) if log_z > -math.inf else np.zeros(len(scores))
    of_tags, moves, first, last = np.zeros((time, tags)), np.zeros((tags, tags)), np.zeros(tags), np.zeros(tags)
    for path, weight in zip(sequences, p, strict=True):
        for t, y in enumerate(path):
            of_tags[t, y] += weight
        for move in pairwise(path):
            moves[move] += weight
        if path:
            first[path[0]] += weight
            last[path[-1]] += weight
    return SimpleNamespace(
        sequences=sequences, scores=scores, log_z=log_z, p=p, gradient=(of_tags, moves, first, last)
    )


def recursive_log_z(e, A, s, f):
    """The log-partition of one row, step by step in logarithms; NumPy, float64."""
    alpha = s + e[0]
    for row in e[1:]:
        alpha = special.logsumexp(alpha[:, None] + A, axis=0) + row
    return special.logsumexp(alpha + f)


def recursive_gradient(e, A, s, f):
    """Marginals and expected moves of one row by Rabiner's scaled recursions; NumPy, float64."""
    x, E = np.exp(e - e.max(axis=1, keepdims=True)), np.exp(A)
    alpha, beta = np.empty_like(x), np.empty_like(x)
    alpha[0], beta[-1] = np.exp(s) * x[0], np.exp(f)
    for t in range(1, len(x)):
        alpha[t] = alpha[t - 1] / alpha[t - 1].sum() @ E * x[t]
        beta[-1 - t] = E @ (x[-t] * beta[-t])
        beta[-1 - t] /= beta[-1 - t].sum()
    p = alpha * beta
    moves = alpha[:-1, :, None] * E * (x * beta)[1:, None, :]
    return p / p.sum(axis=1, keepdims=True), (moves / moves.sum(axis=(1, 2), keepdims=True)).sum(axis=0)


# --- random chains --------------------------------------------------------------------------------------------


def random_chain(time, tags, seed, *, spread=1.0, forbidden=None, rows=ROWS):
    """Arguments of a batch of random chains, float32, with lengths from 0 to ``time``.

    Emissions lie in ± 1.5 ``spread``; a third of moves, starts and ends gets the score ``forbidden``, if any.
    """
    rng = np.random.default_rng(seed)
    e = spread * rng.uniform(-1.5, 1.5, (rows, time, tags))
    A, s, f = rng.standard_normal((tags, tags)), rng.standard_normal(tags), rng.standard_normal(tags)
    if forbidden is not None:
        for scores, share in ((A, 0.35), (s, 0.2), (f, 0.2)):
            scores[rng.random(scores.shape) < share] = forbidden
    lengths = rng.integers(0, time + 1, rows)
    lengths[:2] = 0, time
    mask = np.arange(time) < lengths[:, None]
    return *(x.astype("float32") for x in (e, A)), mask, *(x.astype("float32") for x in (s, f))


def rows_of(e, A, m, s, f):
    """Each row without its padding, float64."""
    A, s, f = (x.astype("float64") for x in (A, s, f))
    return [(row[valid].astype("float64"), A, s, f) for row, valid in zip(e, m, strict=True)]


KINDS = {
    "moderate": {},
    "forbidden by -inf": {"forbidden": -math.inf},
    "forbidden by -1e4": {"forbidden": -1e4},
    "range ±200": {"spread": 200 / 1.5},
    "range ±200, forbidden by -inf": {"spread": 200 / 1.5, "forbidden": -math.inf},
    "range ±200, forbidden by -1e4": {"spread": 200 / 1.5, "forbidden": -1e4},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def chains(kind):
    """A dozen random chains for each shape, with their enumerations."""
    for seed, (time, tags) in enumerate(SHAPES):
        arguments = random_chain(time, tags, seed, **KINDS[kind])
        yield arguments, [enumerated(*row) for row in rows_of(*arguments)]


def resolution(row, e):
    """How well float32 tells apart the scores that decide about a row: 16 of its steps at their size.

    It is 1e-2 where every sequence has a forbidden move of −10⁴, 5e-4 for scores of hundreds, 4e-6 for scores of 3.
    """
    size = max(np.abs(e).max(), abs(row.log_z) if row.log_z > -math.inf else 0, 1)
    return 16 * np.spacing(np.float32(size))


@kinds
def test_log_partition_is_the_sum_over_all_sequences(kind):
    for arguments, truth in chains(kind):
        expected = np.array([row.log_z for row in truth])
        np.testing.assert_allclose(array(partition(*arguments)), expected, rtol=2e-6, atol=3e-6)


@kinds
def test_marginals_are_sums_over_all_sequences(kind):
    for arguments, truth in chains(kind):
        p, mask = array(posterior(*arguments)), arguments[2]
        for row, valid, expected in zip(p, mask, truth, strict=True):
            np.testing.assert_allclose(row[valid], expected.gradient[0], atol=resolution(expected, arguments[0]))
            assert not row[~valid].any()
            if expected.log_z > -math.inf:
                np.testing.assert_allclose(row[valid].sum(axis=1), 1, atol=3e-6)


@kinds
def test_gradient_of_log_partition_is_the_expected_count(kind):
    w = np.linspace(-1, 2, ROWS).astype("float32")
    for (e, A, m, s, f), truth in chains(kind):
        gradients = gradient(weighted_partition, e, A, s, f, fixed=(m, w))
        for row, valid, weight, expected in zip(gradients[0], m, w, truth, strict=True):
            np.testing.assert_allclose(row[valid], weight * expected.gradient[0], atol=2 * resolution(expected, e))
            assert not row[~valid].any()
        for i in (1, 2, 3):
            total = sum(weight * row.gradient[i] for weight, row in zip(w, truth, strict=True))
            np.testing.assert_allclose(gradients[i], total, atol=5 * max(resolution(row, e) for row in truth))


@kinds
def test_viterbi_finds_the_maximum(kind):
    for arguments, truth in chains(kind):
        tags, scores = map(array, best(*arguments))
        for path, value, valid, row in zip(tags, scores, arguments[2], truth, strict=True):
            assert value == pytest.approx(row.scores.max(), rel=2e-6, abs=3e-6)
            assert (path[~valid] == -1).all()
            if value > -math.inf:
                chosen = row.scores[row.sequences.index(tuple(path[valid]))]
                assert chosen == pytest.approx(row.scores.max(), rel=1e-6, abs=1e-6)
            else:
                assert (path == -1).all()


@kinds
def test_k_best_are_the_k_highest_in_order(kind):
    for arguments, truth in chains(kind):
        tags, scores = map(array, best_five(*arguments))
        for paths, values, valid, row in zip(tags, scores, arguments[2], truth, strict=True):
            expected = np.full(5, -math.inf)
            highest = np.sort(row.scores)[::-1][:5]
            expected[: len(highest)] = highest
            close = {"rtol": 2e-6, "atol": resolution(row, arguments[0])}
            np.testing.assert_allclose(values, expected, **close)
            found = [tuple(path[valid]) for path, value in zip(paths, values, strict=True) if value > -math.inf]
            assert len(set(found)) == len(found)
            scores_found = [row.scores[row.sequences.index(path)] for path in found]
            np.testing.assert_allclose(scores_found, values[: len(found)], **close)
            assert (paths[len(found) :] == -1).all()
            assert (paths[:, ~valid] == -1).all()


@kinds
def test_sequence_score_is_the_sum_along_the_sequence(kind):
    rng = np.random.default_rng(3)
    for (e, A, m, s, f), truth in chains(kind):
        tags = np.where(m, rng.integers(0, e.shape[2], m.shape), -1).astype("int32")
        expected = [
            row.scores[row.sequences.index(tuple(y[valid]))] for y, valid, row in zip(tags, m, truth, strict=True)
        ]
        np.testing.assert_allclose(array(score(e, tags, A, m, s, f)), expected, rtol=2e-6, atol=3e-6)


def test_gradient_of_the_log_likelihood_is_that_of_finite_differences():
    rng = np.random.default_rng(5)
    e, A, m, s, f = random_chain(4, 3, 11, rows=3)
    tags = rng.integers(0, 3, m.shape).astype("int32")

    def likelihood(e, A, s, f):
        given = {"mask": m, "start": s, "end": f}
        return ops.sum(sequence_score(tags, e, A, **given) - log_partition(e, A, **given))

    def reference(inputs):
        rows = rows_of(*inputs[:2], m, *inputs[2:])
        truth = [enumerated(*row) for row in rows]
        return sum(
            row.scores[row.sequences.index(tuple(y[valid]))] - row.log_z
            for row, y, valid in zip(truth, tags, m, strict=True)
        )

    inputs = [x.astype("float64") for x in (e, A, s, f)]
    for i, found in enumerate(gradient(likelihood, e, A, s, f)):
        expected = np.empty(inputs[i].shape)
        for index in np.ndindex(expected.shape):
            values = []
            for step in (1e-6, -1e-6):
                shifted = [x.copy() for x in inputs]
                shifted[i][index] += step
                values.append(reference(shifted))
            expected[index] = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(found, expected, atol=5e-6)


# --- rows without steps, without a legal sequence, with padding -----------------------------------------------


def test_an_empty_row_has_one_sequence_of_score_0():
    e, A, m, s, f = random_chain(3, 2, 0, rows=2)
    m = np.zeros_like(m)
    assert array(partition(e, A, m, s, f)).tolist() == [0, 0]
    assert array(score(e, np.full((2, 3), -1), A, m, s, f)).tolist() == [0, 0]
    tags, scores = best(e, A, m, s, f)
    assert array(tags).tolist() == [[-1] * 3] * 2
    assert array(scores).tolist() == [0, 0]
    gradients = gradient(weighted_partition, e, A, s, f, fixed=(m, np.ones(2, "float32")))
    assert not any(g.any() for g in gradients)


def no_way_out():
    """Two rows: in the first the only start is tag 0, from which no move is legal; the second has length 1."""
    e, _, _, s, f = random_chain(3, 2, 0, rows=2)
    A, s = np.array([[-math.inf, -math.inf], [0, 0]], "float32"), np.array([s[0], -math.inf], "float32")
    return e, A, np.array([[True, True, True], [True, False, False]]), s, f


def test_where_no_sequence_is_legal_log_z_is_minus_infinity_with_zero_gradient():
    e, A, m, s, f = no_way_out()
    log_z = array(partition(e, A, m, s, f))
    assert log_z[0] == -math.inf
    assert log_z[1] == pytest.approx(s[0] + e[1, 0, 0] + f[0], rel=1e-6)
    gradients = gradient(lambda *a: ops.sum(log_partition(a[0], a[1], mask=m, start=a[2], end=a[3])), e, A, s, f)
    assert not gradients[0][0].any()
    assert not gradients[1].any()
    assert [g.tolist() for g in gradients[2:]] == [[1, 0], [1, 0]]  # of the second row alone
    assert not array(posterior(e, A, m, s, f))[0].any()


def test_where_no_sequence_is_legal_none_is_found():
    arguments = no_way_out()
    tags, scores = map(array, best(*arguments))
    assert tags.tolist() == [[-1, -1, -1], [0, -1, -1]]
    assert scores[0] == -math.inf
    tags, scores = map(array, best_five(*arguments))
    assert (tags[0] == -1).all()
    assert (scores[0] == -math.inf).all()
    assert np.isfinite(scores[1]).tolist() == [True, False, False, False, False]
    assert (array(draw(*arguments))[0] == -1).all()
    assert (array(draw(*arguments))[1, :, 0] == 0).all()


@pytest.mark.parametrize("spread", [1.0, 200.0])
def test_what_stands_in_masked_steps_does_not_matter(spread):
    e, A, m, s, f = random_chain(6, 3, 2, spread=spread)
    w = np.ones(ROWS, "float32")
    clean = [array(partition(e, A, m, s, f)), *gradient(weighted_partition, e, A, s, f, fixed=(m, w))]
    for junk in (math.nan, math.inf, 1e30):
        dirty = np.where(m[..., None], e, junk).astype("float32")
        found = [array(partition(dirty, A, m, s, f)), *gradient(weighted_partition, dirty, A, s, f, fixed=(m, w))]
        for a, b in zip(found, clean, strict=True):
            np.testing.assert_array_equal(a, b)
        assert not found[1][~m].any()


def test_a_forbidden_tag_has_probability_and_gradient_0():
    e, A, m, s, f = random_chain(6, 3, 4, rows=4)
    m[:] = True
    e[:, 2, 1] = -math.inf
    assert not array(chosen_by_products(e, A, m, s, f))
    for row, truth in zip(array(posterior(e, A, m, s, f)), rows_of(e, A, m, s, f), strict=True):
        np.testing.assert_allclose(row, enumerated(*truth).gradient[0], atol=3e-6)
        assert row[2, 1] == 0


def test_mask_start_and_end_may_be_left_out():
    e, A, m, s, _ = random_chain(6, 3, 0, rows=2)
    zeros, full = np.zeros_like(s), np.ones_like(m)
    np.testing.assert_allclose(array(log_partition(e, A)), array(partition(e, A, full, zeros, zeros)), rtol=1e-6)
    np.testing.assert_array_equal(array(viterbi(e, A)[0]), array(best(e, A, full, zeros, zeros)[0]))


# --- precision ------------------------------------------------------------------------------------------------


def test_gradient_of_a_long_chain_is_as_precise_as_that_of_a_short_one():
    time, tags = 4096, 9
    rng = np.random.default_rng(0)
    e, A = (
        rng.standard_normal((2, time, tags)).astype("float32"),
        rng.standard_normal((tags, tags)).astype("float32"),
    )
    s, f, m = A[0], A[:, 0], np.ones((2, time), bool)
    truth = [recursive_gradient(*row) for row in rows_of(e, A, m, s, f)]
    function = compiled(lambda e, A: gradient_in_graph(e, A, m, s, f))
    of_tags, moves = map(array, function(e, A))
    assert np.abs(of_tags - np.array([p for p, _ in truth])).max() < 1e-6
    expected = sum(moves for _, moves in truth)
    assert np.abs(moves - expected).max() < 1e-6 * expected.max()


def gradient_in_graph(e, A, m, s, f):
    """Gradients of Σ log Z with respect to e and A, as a function that can be compiled."""

    def total(e, A):
        return ops.sum(log_partition(e, A, mask=m, start=s, end=f))

    if BACKEND == "tensorflow":
        import tensorflow as tf

        e, A = tf.convert_to_tensor(e), tf.convert_to_tensor(A)
        with tf.GradientTape() as tape:
            tape.watch([e, A])
            value = total(e, A)
        return tape.gradient(value, [e, A])
    if BACKEND == "jax":
        import jax

        return jax.grad(total, (0, 1))(e, A)
    return gradient(total, e, A)


@pytest.mark.skipif(not DOUBLE, reason="Keras keeps float64 on TensorFlow only")
def test_float64_is_computed_in_float64():
    for kind in ("forbidden by -inf", "range ±200, forbidden by -1e4"):
        for arguments, truth in chains(kind):
            doubled = [x.astype("float64") if x.dtype == "float32" else x for x in arguments]
            found = log_partition(doubled[0], doubled[1], mask=doubled[2], start=doubled[3], end=doubled[4])
            assert keras.backend.standardize_dtype(found.dtype) == "float64"
            np.testing.assert_allclose(array(found), [row.log_z for row in truth], rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_accumulated_in_float32(dtype):
    e, A, m, s, f = random_chain(6, 3, 1)
    half = [ops.cast(x, dtype) for x in (e, A, s, f)]
    e, A, s, f = (array(ops.cast(x, "float32")) for x in half)
    found = log_partition(half[0], half[1], mask=m, start=half[2], end=half[3])
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(array(found), array(partition(e, A, m, s, f)), rtol=1e-6, atol=1e-6)
    tags = np.zeros(m.shape, "int32")
    found = sequence_score(tags, half[0], half[1], mask=m, start=half[2], end=half[3])
    np.testing.assert_allclose(array(found), array(score(e, tags, A, m, s, f)), rtol=1e-6, atol=1e-6)


# --- products or logarithms -----------------------------------------------------------------------------------


def both_posteriors(arguments):
    e, M, _ = closed(*arguments)
    (products, _, proved), logarithms = _posterior._by_products(e, M), _posterior._by_logarithms(e, M)
    return products, logarithms, proved


def test_products_and_logarithms_agree_where_both_are_right():
    for seed, (time, tags) in enumerate([(6, 2), (6, 4)]):
        e, A, m, s, f = random_chain(time, tags, seed, spread=4.0)
        for transitions in (A, np.where(np.eye(tags) + np.eye(tags, k=1) > 0, A, -math.inf).astype("float32")):
            products, logarithms, proved = quick(lambda *a: both_posteriors(a))(e, transitions, m, s, f)
            assert bool(proved)
            np.testing.assert_allclose(array(products.log_z), array(logarithms.log_z), rtol=1e-6, atol=2e-6)
            np.testing.assert_allclose(array(products.p), array(logarithms.p), atol=3e-6)


#: begin, middle, end, single: which may follow which.
BMES = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1]], bool)


@pytest.mark.parametrize("forbidden", [-math.inf, -1e4])
def test_rules_of_a_tagging_scheme_leave_the_fast_way_open(forbidden):
    rng = np.random.default_rng(0)
    e = (6 * rng.uniform(-1, 1, (4, 6, 4))).astype("float32")
    A = np.where(BMES, rng.standard_normal((4, 4)), forbidden).astype("float32")
    s, f = (np.where(legal, 0.0, forbidden).astype("float32") for legal in ([1, 0, 0, 1], [0, 0, 1, 1]))
    m = np.arange(6) < np.array([[6], [5], [2], [1]])
    assert bool(chosen_by_products(e, A, m, s, f))
    expected = [enumerated(*row).log_z for row in rows_of(e, A, m, s, f)]
    np.testing.assert_allclose(array(partition(e, A, m, s, f)), expected, rtol=1e-6)


def two_islands(bridge, blocks):
    """Tags 0 and 1, between which a move scores ``bridge``; each block of 10 steps favours tag 0 by its number."""
    e = np.zeros((1, 10 * len(blocks), 2), "float32")
    e[0, :, 0] = np.repeat(blocks, 10)
    A, ends = np.array([[0, bridge], [bridge, 0]], "float32"), np.zeros(2, "float32")
    return e, A, np.ones(e.shape[:2], bool), ends, ends


@pytest.mark.parametrize(
    ("bridge", "blocks"),
    [
        pytest.param(-math.inf, [12, -30, 12], id="the best sequence is lost from both ends"),
        pytest.param(-math.inf, [-12, 12.1, -0.2], id="nearly even"),
        pytest.param(-1e4, [30] * 40 + [-30] * 40, id="a move of score -1e4 pays in a long chain"),
        pytest.param(-1e4, [30] * 10 + [-30] * 10, id="a move of score -1e4 does not pay"),
        pytest.param(-60.0, [10, -15, 10], id="a bad move"),
    ],
)
def test_products_that_lose_what_matters_are_noticed(bridge, blocks):
    arguments = two_islands(bridge, blocks)
    assert not bool(chosen_by_products(*arguments))
    expected = recursive_log_z(*rows_of(*arguments)[0])
    size = np.abs(np.repeat(blocks, 10)).sum()  # float32 adds up scores of this size
    assert float(long_partition(*arguments)[0]) == pytest.approx(expected, abs=3e-7 * size)


def test_both_directions_can_agree_on_a_sequence_that_is_not_the_best():
    arguments = two_islands(-math.inf, [12, -30, 12])  # tag 1 all along is the best by e^60
    e, M, taken = closed(*arguments)
    products, _, proved = quick(_posterior._by_products)(e, M)
    assert not bool(proved)
    assert recursive_log_z(*rows_of(*arguments)[0]) == pytest.approx(0, abs=1e-9)
    assert float(taken[0] + products.log_z[0]) == pytest.approx(-60, abs=1e-3)
    share = array(products.p)[1:-1, 0, 1:]
    np.testing.assert_allclose(share / share.sum(axis=1, keepdims=True), np.tile([1, 0], (30, 1)))


@given(
    seed=st.integers(0, 2**32 - 1),
    spread=floats(0, 60),
    share=floats(0, 0.9),
    forbidden=st.sampled_from([-math.inf, -1e4, -3000.0, -70.0, -30.0]),
    slope=floats(-12, 12),
)
@examples(60)
def test_whichever_way_is_chosen_it_is_right(seed, spread, share, forbidden, slope):
    rng = np.random.default_rng(seed)
    e = spread * rng.uniform(-0.5, 0.5, (4, 12, 3))
    e[..., 0] += slope * np.sign(np.sin(rng.uniform(0, 6, (4, 1)) + np.arange(12) / rng.uniform(0.5, 4)))
    A, s, f = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(3)
    for scores in (A, s, f):
        scores[rng.random(scores.shape) < share] = forbidden
    m = np.arange(12) < rng.integers(1, 13, (4, 1))
    e, A, s, f = (x.astype("float32") for x in (e, A, s, f))
    expected = [recursive_log_z(*row) for row in rows_of(e, A, m, s, f)]
    np.testing.assert_allclose(array(long_partition(e, A, m, s, f)), expected, rtol=3e-6, atol=3e-5)


# --- decoding and sampling ------------------------------------------------------------------------------------


def test_viterbi_of_a_long_chain_decides_by_small_differences():
    rng = np.random.default_rng(0)
    e, A = (rng.standard_normal(shape).astype("float32") for shape in ((1, 2001, 3), (3, 3)))
    row, A64, delta = e[0].astype("float64"), A.astype("float64"), e[0, 0].astype("float64")
    for scores in row[1:]:
        delta = (delta[:, None] + A64).max(axis=0) + scores
    tags, value = compiled(viterbi)(e, A)
    path = array(tags)[0]
    assert row[np.arange(2001), path].sum() + A64[path[:-1], path[1:]].sum() == pytest.approx(delta.max(), abs=1e-5)
    assert float(value[0]) == pytest.approx(delta.max(), rel=1e-6)


def test_viterbi_prefers_no_sequence_that_is_not_legal():
    tags, _ = viterbi(np.zeros((1, 50, 4)), np.where(BMES, 0.0, -math.inf))
    assert all(BMES[move] for move in pairwise(array(tags)[0]))


def test_k_best_of_one_is_viterbi():
    e, A, m, s, f = random_chain(6, 3, 8)
    tags, scores = k_best(e, A, 1, mask=m, start=s, end=f)
    np.testing.assert_array_equal(array(tags)[:, 0], array(best(e, A, m, s, f)[0]))
    np.testing.assert_allclose(array(scores)[:, 0], array(best(e, A, m, s, f)[1]), rtol=1e-6)


@pytest.mark.parametrize("forbidden", [None, -math.inf])
def test_samples_have_the_frequencies_of_the_distribution(forbidden):
    e, A, m, s, f = random_chain(4, 2, 3, forbidden=forbidden, rows=4)
    m = np.arange(4) < np.array([[0], [4], [3], [1]])
    A[0, 0] = s[0] = f[0] = 0.0  # at least one legal sequence
    tags = array(draw(e, A, m, s, f))
    assert tags.shape == (4, 2000, 4)
    for paths, valid, row in zip(tags, m, rows_of(e, A, m, s, f), strict=True):
        truth = enumerated(*row)
        assert (paths[:, ~valid] == -1).all()
        drawn = [truth.sequences.index(tuple(path[valid])) for path in paths]
        counts = np.bincount(drawn, minlength=len(truth.sequences))
        possible = truth.p * 2000 > 1e-3
        assert counts[~possible].sum() <= 1
        if possible.sum() > 1:
            counts, expected = (
                counts[possible],
                truth.p[possible] / truth.p[possible].sum() * counts[possible].sum(),
            )
            assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_samples_follow_their_seed():
    e, A = np.zeros((2, 7, 3)), np.zeros((3, 3))
    first, second = (array(sample(e, A, count=3, seed=5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 3, 7)
    generator = keras.random.SeedGenerator(5)
    first, second = (array(sample(e, A, count=3, seed=generator)) for _ in range(2))
    assert (first != second).any()


# --- compiled -------------------------------------------------------------------------------------------------


def everything(e, A, m, s, f, tags):
    given = {"mask": m, "start": s, "end": f}
    return {
        "sequence_score": sequence_score(tags, e, A, **given),
        "log_partition": log_partition(e, A, **given),
        "marginals": marginals(e, A, **given),
        "viterbi": viterbi(e, A, **given)[1],
        "tags": viterbi(e, A, **given)[0],
        "k_best": k_best(e, A, 3, **given)[1],
        "sample": sample(e, A, seed=0, **given),
    }


@functools.cache
def everything_compiled(xla):
    return compiled(everything, **({"jit_compile": xla} if BACKEND == "tensorflow" else {}))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="all tests run compiled on JAX, and none on torch")
@ways
@pytest.mark.parametrize("kind", ["moderate", "range ±200, forbidden by -inf"])
def test_compiled_functions_give_what_eager_ones_do(kind, xla):
    e, A, m, s, f = random_chain(5, 3, 9, **KINDS[kind])
    arguments = [ops.convert_to_tensor(x) for x in (e, A, m, s, f, np.where(m, 1, -1).astype("int32"))]
    found, expected = everything_compiled(xla)(*arguments), everything(*arguments)
    for name in set(expected) - {"sample"}:  # random numbers may differ under XLA
        np.testing.assert_allclose(array(found[name]), array(expected[name]), rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs without shapes")
@ways
def test_a_graph_may_leave_batch_and_time_open(xla):
    import tensorflow as tf

    signature = [tf.TensorSpec((None, None, 3)), tf.TensorSpec((3, 3)), tf.TensorSpec((None, None), tf.bool)]

    @tf.function(input_signature=signature, jit_compile=xla, autograph=False)
    def function(e, A, m):
        zeros = tf.zeros(3)
        return log_partition(e, A, mask=m), viterbi(e, A, mask=m)[0], *gradient_in_graph(e, A, m, zeros, zeros)

    for time in (1, 6)[: 1 + (not xla)]:
        e, A, m, s, _ = random_chain(time, 3, time)
        zeros = np.zeros_like(s)
        log_z, tags, of_tags, _ = function(e, A, m)
        np.testing.assert_allclose(array(log_z), array(partition(e, A, m, zeros, zeros)), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(array(tags), array(best(e, A, m, zeros, zeros)[0]))
        np.testing.assert_allclose(array(of_tags), array(posterior(e, A, m, zeros, zeros)), atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow counts its memory to the byte")
@ways
def test_memory_is_linear_in_time_and_tags(xla):
    import tensorflow as tf

    try:
        tf.config.experimental.reset_memory_stats("CPU:0")
    except ValueError:
        pytest.skip("only oneDNN's allocator counts its memory, and TensorFlow runs without oneDNN here")
    time, tags, function = 2000, 64, compiled(gradient_in_graph, jit_compile=xla)
    for spread in (1.0, 300.0):  # by products, by logarithms
        e, A, m, s, f = random_chain(time, tags, 0, spread=spread, rows=2)
        arguments = [tf.convert_to_tensor(x) for x in (e, A, np.ones_like(m), s, f)]
        function(*arguments)
        tf.config.experimental.reset_memory_stats("CPU:0")
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        function(*arguments)
        peak = tf.config.experimental.get_memory_info("CPU:0")["peak"] - before
        assert e.nbytes < peak < 20 * e.nbytes  # a number for each pair of tags would take 64, of steps 31


# --- wrong arguments ------------------------------------------------------------------------------------------


def wrong_arguments():
    e, A, m, s, f = random_chain(4, 3, 0, rows=3)
    m[:] = True
    tags = np.ones((3, 4), "int32")
    right = {"emissions": e, "transitions": A, "tags": tags, "mask": m, "start": s, "end": f}
    holes = m.copy()
    holes[1, 2] = False
    negative, high, fraction = tags.copy(), tags.copy(), tags.astype("float32")
    negative[1, 0], high[1, 3], fraction[1, 1] = -1, 3, 0.5
    return right, [
        ("emissions", e[0], r"emissions must have shape \(batch, time, tags\)"),
        ("emissions", e[:0], "emissions must have shape .* none of them 0"),
        ("emissions", e[:, :0], "emissions must have shape .* none of them 0"),
        ("transitions", A[:2], r"transitions must have shape \(3, 3\)"),
        ("transitions", A[:2, :2], r"transitions must have shape \(3, 3\)"),
        ("start", s[:2], r"start must have shape \(3,\)"),
        ("end", f[None], r"end must have shape \(3,\)"),
        ("mask", m[:, :3], r"mask must have shape \(3, 4\)"),
        ("tags", tags[0], r"tags must have shape \(3, 4\)"),
        ("mask", holes, r"mask must be True on a prefix.*rows \[1\]"),
        ("tags", negative, r"tags must be integers from 0 to 2 .*got \[-1\]"),
        ("tags", high, r"tags must be integers from 0 to 2 .*got \[3\]"),
        ("tags", fraction, r"tags must be integers from 0 to 2 .*got \[0.5\]"),
    ]


@pytest.mark.parametrize("case", range(13))
def test_a_wrong_argument_is_named(case):
    right, cases = wrong_arguments()
    assert len(cases) == 13
    name, value, message = cases[case]
    with pytest.raises(ValueError, match=message):
        checked(**{**right, name: value})


def functions_of_a_chain():
    """The public functions of emissions, tags, transitions and mask."""
    return {
        "sequence_score": lambda e, y, A, m: sequence_score(y, e, A, mask=m),
        "log_partition": lambda e, y, A, m: log_partition(e, A, mask=m),  # noqa: ARG005
        "marginals": lambda e, y, A, m: marginals(e, A, mask=m)[:, 0, 0],  # noqa: ARG005
        "viterbi": lambda e, y, A, m: viterbi(e, A, mask=m)[1],  # noqa: ARG005
        "k_best": lambda e, y, A, m: k_best(e, A, 2, mask=m)[1][:, 1],  # noqa: ARG005
        "sample": lambda e, y, A, m: sample(e, A, mask=m, seed=0)[:, 0, 0],  # noqa: ARG005
    }


def with_holes():
    e, A, m, *_ = random_chain(4, 3, 0, rows=3)
    m[:] = True
    m[1, 1] = False
    return e, np.ones((3, 4), "int32"), A, m


@pytest.mark.parametrize("name", functions_of_a_chain())
def test_every_function_checks_its_arguments(name):
    with pytest.raises(ValueError, match="mask must be True on a prefix"):
        functions_of_a_chain()[name](*with_holes())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs that can raise")
@pytest.mark.parametrize("name", functions_of_a_chain())
def test_a_plain_graph_raises_as_well(name):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError, match="mask must be True on a prefix"):
        compiled(functions_of_a_chain()[name])(*with_holes())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs that can raise")
def test_a_plain_graph_notices_tags_out_of_range_and_an_empty_batch():
    import tensorflow as tf

    function = tf.function(
        lambda e, y: sequence_score(y, e, tf.zeros((3, 3))),
        input_signature=[tf.TensorSpec((None, 4, 3)), tf.TensorSpec((None, 4), tf.int32)],
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="tags must be integers from 0 to 2"):
        function(tf.zeros((1, 4, 3)), tf.fill((1, 4), 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="emissions must not be empty"):
        function(tf.zeros((0, 4, 3)), tf.zeros((0, 4), tf.int32))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs of unknown length")
@pytest.mark.parametrize("function", [log_partition, viterbi, marginals])
def test_an_unknown_length_that_is_zero_is_refused(function):
    import tensorflow as tf

    run = tf.function(
        lambda e: function(e, np.zeros((3, 3), "float32")),
        input_signature=[tf.TensorSpec((None, None, 3))],
        autograph=False,
    )
    for _ in range(50):  # the executor must not find another error first, as it did in 119 runs of 400
        with pytest.raises(tf.errors.InvalidArgumentError, match="emissions must not be empty"):
            run(tf.zeros((2, 0, 3)))


@pytest.mark.skipif(BACKEND == "torch", reason="torch is never compiled here: it raises")
def test_where_no_error_can_be_raised_the_row_is_nan():
    e, A, m, s, f = random_chain(5, 3, 9)
    m[:], tags = True, np.ones(m.shape, "int32")
    m[1, 1], tags[2, 3], tags[3, 0] = False, 3, -1
    found = {name: array(x) for name, x in everything_compiled(True)(e, A, m, s, f, tags).items()}
    holes = np.arange(ROWS) == 1
    np.testing.assert_array_equal(np.isnan(found["sequence_score"]), np.isin(np.arange(ROWS), [1, 2, 3]))
    for name in ("log_partition", "marginals", "viterbi", "k_best"):
        np.testing.assert_array_equal(np.isnan(found[name]).reshape(ROWS, -1).all(axis=1), holes)
        assert np.isfinite(found[name][~holes]).all()
    for name in ("tags", "sample"):
        np.testing.assert_array_equal((found[name] == -1).reshape(ROWS, -1).all(axis=1), holes)


@pytest.mark.parametrize("bad", [0, -1, 1.5, None])
def test_counts_must_be_positive_integers(bad):
    e, A = np.zeros((1, 2, 2)), np.zeros((2, 2))
    with pytest.raises(ValueError, match="k must be a positive integer"):
        k_best(e, A, bad)
    with pytest.raises(ValueError, match="count must be a positive integer"):
        sample(e, A, count=bad)


def test_what_is_checked_once_gives_the_same_score_and_the_same_sum():
    rng = np.random.default_rng(0)
    e, A = (rng.standard_normal(shape).astype("float32") for shape in ((3, 4, 2), (2, 2)))
    tags, mask = np.array([[0, 1, 1, 0]] * 3), np.arange(4) < np.array([[4], [2], [0]])
    chain = checked(e, A, tags=tags, mask=mask)
    np.testing.assert_array_equal(array(score_of(chain)), array(sequence_score(tags, e, A, mask=mask)))
    np.testing.assert_array_equal(array(log_partition_of(chain)), array(log_partition(e, A, mask=mask)))


def test_checked_fills_in_what_is_left_out():
    chain = checked([[[1, 2], [3, 4]]], np.zeros((2, 2)), tags=[[1.0, 0.0]])
    assert isinstance(chain, Potentials)
    assert keras.backend.standardize_dtype(chain.tags.dtype) == "int32"
    assert array(chain.mask).tolist() == [[True, True]]
    assert array(chain.valid).tolist() == [True]
    assert array(chain.start).tolist() == array(chain.end).tolist() == [0, 0]
