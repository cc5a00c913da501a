"""Truths about chains whose transitions depend on the step, and about entropy, by enumeration."""

import keras
import numpy as np
import pytest
from chain_references import Sequences
from keras import ops
from numerics import array, compiled
from scipy import stats

from lib.chain import entropy, k_best, log_likelihood, log_partition, marginals, sample, sequence_score, viterbi

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
SHAPES = [(6, 3), (5, 2), (1, 3), (4, 1), (2, 4)]  # time, tags
KINDS = {
    "moderate": {},
    "range 200": {"scale": 200.0},
    "forbidden by -inf": {"forbidden": -np.inf},
    "forbidden by -1e4": {"forbidden": -1e4},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def quick(function):
    return compiled(function) if BACKEND == "jax" else function


functions = {
    "log_partition": quick(lambda e, A, m, s, f: log_partition(e, A, mask=m, start=s, end=f)),
    "marginals": quick(lambda e, A, m, s, f: marginals(e, A, mask=m, start=s, end=f)),
    "entropy": quick(lambda e, A, m, s, f: entropy(e, A, mask=m, start=s, end=f)),
    "viterbi": quick(lambda e, A, m, s, f: viterbi(e, A, mask=m, start=s, end=f)),
    "k_best": quick(lambda e, A, m, s, f: k_best(e, A, 4, mask=m, start=s, end=f)),
    "sample": quick(lambda e, A, m, s, f: sample(e, A, mask=m, start=s, end=f, count=1500, seed=3)),
    "score": quick(lambda y, e, A, m, s, f: sequence_score(y, e, A, mask=m, start=s, end=f)),
    "likelihood": quick(lambda y, e, A, m, s, f: log_likelihood(y, e, A, mask=m, start=s, end=f)),
}


def chain_of_steps(time, tags, seed, *, scale=1.0, forbidden=None, rows=7):
    """Random chains with a matrix of transitions a step, junk at masked steps, a legal sequence in each."""
    rng = np.random.default_rng(seed)
    e, A = scale * rng.uniform(-1, 1, (rows, time, tags)), rng.standard_normal((rows, time - 1, tags, tags))
    s, f = rng.standard_normal((2, tags))
    if forbidden is not None:
        A[rng.random(A.shape) < 0.3] = forbidden
        A[..., 0, 0] = 0.0
    lengths = np.array([1 + row % time for row in range(rows)])
    lengths[-1] = time
    m = np.arange(time) < lengths[:, None]
    A[~m[:, 1:]] = np.nan
    return *(x.astype("float32") for x in (e, A)), m, s.astype("float32"), f.astype("float32")


def rows_of(e, A, m, s, f):
    return [Sequences(x[: v.sum()], y[: v.sum() - 1], s, f) for x, y, v in zip(e, A, m, strict=True)]


def of_kind(kind):
    for seed, shape in enumerate(SHAPES):
        given = chain_of_steps(*shape, seed, **KINDS[kind])
        yield given, rows_of(*given)


@kinds
def test_sums_over_all_sequences(kind):
    for given, truth in of_kind(kind):
        close = {"rtol": 3e-6, "atol": 1e-3 if "1e4" in kind else 1e-4 if "200" in kind else 5e-6}
        found = array(functions["log_partition"](*given))
        np.testing.assert_allclose(found, [row.log_z for row in truth], **close)
        p = array(functions["marginals"](*given))
        for row, valid, expected in zip(p, given[2], truth, strict=True):
            np.testing.assert_allclose(row[valid], expected.marginals, **close)
            assert not row[~valid].any()
        h = array(functions["entropy"](*given))
        np.testing.assert_allclose(h, [row.entropy for row in truth], **close)
        assert h.min() >= 0


@kinds
def test_the_best_sequences(kind):
    for given, truth in of_kind(kind):
        tags, scores = map(array, functions["viterbi"](*given))
        many, values = map(array, functions["k_best"](*given))
        np.testing.assert_allclose(values[:, 0], scores, rtol=1e-5, atol=1e-5)
        for path, paths, value, valid, row in zip(tags, many, values, given[2], truth, strict=True):
            close = {"rtol": 2e-6, "atol": 2e-3 if "1e4" in kind else 1e-4}
            expected = np.full(4, -np.inf)
            best = np.sort(row.scores)[::-1][:4]
            expected[: len(best)] = best
            np.testing.assert_allclose(value, expected, **close)
            for y, score in zip([path, *paths], [value[0], *value], strict=True):
                assert (y[~valid] == -1).all()
                if score > -np.inf:
                    of_y = row.scores[(row.tags == y[valid]).all(1)][0]
                    np.testing.assert_allclose(of_y, score, **close)


@kinds
def test_the_score_and_the_probability_of_a_sequence(kind):
    rng = np.random.default_rng(0)
    for given, truth in of_kind(kind):
        y = rng.integers(0, given[0].shape[2], given[2].shape)
        places = [(row.tags == tags[valid]).all(1) for row, tags, valid in zip(truth, y, given[2], strict=True)]
        close = {"rtol": 3e-6, "atol": 1e-3 if "1e4" in kind else 1e-4 if "200" in kind else 5e-6}
        found = array(functions["score"](y, *given))
        np.testing.assert_allclose(found, [row.scores[i][0] for row, i in zip(truth, places, strict=True)], **close)
        found = array(functions["likelihood"](y, *given))
        np.testing.assert_allclose(found, [row.log_p[i][0] for row, i in zip(truth, places, strict=True)], **close)
        assert found.max() <= 0


def test_samples_have_the_frequencies_of_the_distribution():
    given = chain_of_steps(4, 2, 1, rows=4)
    for paths, valid, row in zip(array(functions["sample"](*given)), given[2], rows_of(*given), strict=True):
        assert (paths[:, ~valid] == -1).all()
        drawn = paths[:, valid] @ 2 ** np.arange(valid.sum())[::-1]
        counts = np.bincount(drawn, minlength=len(row.tags))
        assert stats.chisquare(counts, row.p / row.p.sum() * counts.sum()).pvalue > 1e-4


@kinds
def test_the_same_matrix_at_every_step_is_that_matrix(kind):
    e, A, m, s, f = chain_of_steps(5, 3, 2, **KINDS[kind])
    A = np.nan_to_num(A[-1, 0], neginf=-np.inf)
    steps = np.broadcast_to(A, (len(e), 4, 3, 3)).copy()
    for name, function in functions.items():
        given = (np.zeros(m.shape, "int32"),) if name in ("score", "likelihood") else ()
        one, other = (function(*given, e, x, m, s, f) for x in (A, steps))
        for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (one, other)), strict=True):
            np.testing.assert_allclose(array(a), array(b), rtol=1e-5, atol=1e-3 if "1e4" in kind else 1e-5)


def test_the_entropy_of_special_cases():
    zeros = np.zeros((1, 4, 3), "float32")
    assert float(entropy(zeros, zeros[0, :3])[0]) == pytest.approx(4 * np.log(3), rel=1e-6)
    assert float(entropy(zeros, zeros[0, :3], mask=np.zeros((1, 4)))[0]) == 0
    assert np.isnan(float(entropy(zeros, np.full((3, 3), -np.inf))[0]))
    sure = 1e3 * np.eye(3, dtype="float32")[None, [0, 1, 2, 0]]
    assert float(entropy(sure, zeros[0, :3])[0]) == 0


def test_the_entropy_of_a_long_chain_is_no_difference_of_large_numbers():
    rng = np.random.default_rng(0)
    e, A = 100 * rng.standard_normal((1, 4096, 3)), rng.standard_normal((3, 3))
    e, A = e.astype("float32"), A.astype("float32")
    x, E = e[0].astype("float64"), A.astype("float64")
    beta = np.zeros((4096, 3))
    for t in range(4094, -1, -1):
        beta[t] = np.logaddexp.reduce(E + x[t + 1] + beta[t + 1], axis=1)
        beta[t] -= beta[t].max()
    p, expected = np.exp(x[0] + beta[0] - np.logaddexp.reduce(x[0] + beta[0])), 0.0
    expected -= np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0))
    for t in range(1, 4096):
        q = E + x[t] + beta[t]
        q = np.exp(q - np.logaddexp.reduce(q, axis=1, keepdims=True))
        expected -= p @ np.where(q > 0, q * np.log(np.maximum(q, 1e-300)), 0).sum(axis=1)
        p = p @ q
    assert float(compiled(entropy)(e, A)[0]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX is compiled in all tests, torch in none")
@pytest.mark.parametrize("xla", [False, True])
def test_compiled_functions_give_what_eager_ones_do(xla):
    given = [ops.convert_to_tensor(x) for x in chain_of_steps(5, 3, 4)]
    y = ops.zeros(given[2].shape, "int32")
    for name, function in functions.items():
        if name != "sample":
            arguments = ([y] if name in ("score", "likelihood") else []) + given
            one, other = function(*arguments), compiled(function, "xla" if xla else "graph")(*arguments)
            for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (one, other)), strict=True):
                np.testing.assert_allclose(array(a), array(b), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs without shapes")
def test_a_graph_may_leave_batch_and_time_open():
    import tensorflow as tf

    signature = [
        tf.TensorSpec((None, None, 3)),
        tf.TensorSpec((None, None, 3, 3)),
        tf.TensorSpec((None, None), tf.bool),
    ]
    given = chain_of_steps(5, 3, 5)[:3]
    found = tf.function(lambda e, A, m: (log_partition(e, A, mask=m), *viterbi(e, A, mask=m)), signature)(*given)
    expected = log_partition(*given[:2], mask=given[2]), *viterbi(*given[:2], mask=given[2])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(array(a), array(b), rtol=1e-5)


@pytest.mark.parametrize("shape", [(7, 5, 3, 3), (7, 4, 3), (6, 4, 3, 3), (7, 4, 3, 2)])
def test_transitions_of_another_shape_are_refused(shape):
    e = np.zeros((7, 5, 3))
    with pytest.raises(ValueError, match=r"transitions must have shape \((7, 4, )?3, 3\) to fit emissions"):
        viterbi(e, np.zeros(shape))


def test_a_row_whose_own_transitions_are_no_numbers_is_nan_alone():
    e, A = np.zeros((3, 4, 2), "float32"), np.zeros((3, 3, 2, 2), "float32")
    A[1, 2, 0, 1] = np.nan
    assert np.isnan(array(log_partition(e, A))).tolist() == [False, True, False]
    assert (array(viterbi(e, A)[0])[:, 0] == -1).tolist() == [False, True, False]
