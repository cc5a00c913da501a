"""Truths about ``lib.memm``, on whichever backend KERAS_BACKEND names."""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops
from numerics import array, compiled, finite_differences

from lib import chain, crf
from lib.memm import MEMM, beam, greedy, log_likelihood, potentials, viterbi
from lib.memm._scores import checked
from lib.memm.likelihood import likelihood_of
from lib.memm.normalizers import potentials_of
from lib.tagging import PADDING, LegalMoves, Tagger

# The layer runs on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
DOUBLE = BACKEND == "tensorflow"  # Keras computes in float32 on JAX, and in part on torch
DIRECTIONS = ["forward", "backward", "both"]
MODES = {"tensorflow": ["eager", "graph", "xla"], "jax": ["eager", "jit"], "torch": ["eager"]}[BACKEND]
TRACED = {"tensorflow": ["xla"], "jax": ["jit"], "torch": []}[BACKEND]
# "both" runs the code of either direction, and a compilation takes seconds.
COMPILATIONS = [(direction, "eager") for direction in DIRECTIONS] + [("both", mode) for mode in MODES[1:]]


def tensor(x):
    return ops.convert_to_tensor(x)


def gradients(function, *arguments, mode="eager"):
    """The gradients of a scalar function, compiled together with it."""
    arguments = [tensor(x) for x in arguments]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def run(*arguments):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                value = function(*arguments)
            return [tf.convert_to_tensor(g) for g in tape.gradient(value, arguments)]

        return [array(g) for g in compiled(run, mode)(*arguments)]
    if BACKEND == "jax":
        import jax

        run = jax.grad(function, argnums=tuple(range(len(arguments))))
        return [np.asarray(g) for g in compiled(run, mode)(*arguments)]
    arguments = [x.clone().requires_grad_() for x in arguments]
    function(*arguments).backward()
    return [x.grad.numpy() for x in arguments]


# The model in NumPy, step by step, and all of its sequences.


def log_p(f, g, tags, direction="forward"):
    """The log-probability of the tags of one chain without padding, f (time, tags)."""
    if direction == "both":
        return (log_p(f, g, tags, "forward") + log_p(f, g, tags, "backward")) / 2
    if direction == "backward":
        return log_p(f[::-1], g.T, tags[::-1])
    total, before = 0.0, None
    for scores, tag in zip(f, tags, strict=True):
        logits = scores if before is None else scores + g[before]
        if logits[tag] == -math.inf:
            return -math.inf
        total += logits[tag] - np.logaddexp.reduce(logits)
        before = tag
    return total


def enumerated(f, g, direction="forward"):
    """All sequences of one chain and their log P."""
    every = list(itertools.product(range(f.shape[1]), repeat=f.shape[0]))
    return every, np.array([log_p(f, g, tags, direction) for tags in every])


class Chains:
    """Random chains of one shape with ragged masks: lengths from the whole time down to 0, and again."""

    def __init__(self, seed, batch=7, time=6, tags=3, scale=2.0):
        rng = np.random.default_rng(seed)
        self.f = scale * rng.standard_normal((batch, time, tags))
        self.g = scale * rng.standard_normal((tags, tags))
        self.lengths = (time - np.arange(batch)) % (time + 1)
        self.mask = np.arange(time) < self.lengths[:, None]
        self.y = np.where(self.mask, rng.integers(0, tags, (batch, time)), -1)

    def __iter__(self):
        """The valid part of each row: f (length, tags) and its tags."""
        return ((f[:n], y[:n]) for f, y, n in zip(self.f, self.y, self.lengths, strict=True))


#: Tags, time and direction; the rows of each have all lengths up to the time.
CASES = [(tags, time, "both") for tags, time in ((1, 6), (2, 6), (3, 6), (4, 1))]
CASES += [(4, 6, direction) for direction in DIRECTIONS]


# --- the likelihood -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tags", "time", "direction"), CASES)
def test_the_likelihood_is_a_product_of_one_softmax_a_step(tags, time, direction):
    c = Chains(tags * time, time=time, tags=tags)
    expected = [log_p(f, c.g, y, direction) for f, y in c]
    found = log_likelihood(c.y, c.f, c.g, mask=c.mask, direction=direction)
    np.testing.assert_allclose(array(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("tags", "time"), [(1, 3), (3, 4), (4, 1)])
def test_the_probabilities_of_all_sequences_sum_to_one(tags, time, direction):
    c = Chains(0, batch=1, time=time, tags=tags)
    every = np.array(list(itertools.product(range(tags), repeat=time)))
    f = np.repeat(2 * np.random.default_rng(1).standard_normal((1, time, tags)), len(every), axis=0)
    p = np.exp(array(log_likelihood(every, f, c.g, direction=direction)))
    assert p.sum() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("size", [1e-6, 1e4, 1e6, -1e6, 1e9, -1e9, -1e30, -3e38])
def test_a_constant_in_a_row_of_the_transitions_acts_like_zeros(size, direction):
    """A row forward, a column backward; and in the emissions of a step."""
    f, g = Chains(0, batch=1, time=4).f[0], np.zeros((3, 3))
    every = np.array(list(itertools.product(range(3), repeat=4)))
    expected = enumerated(f, g, direction)[1]
    g[1] = size
    g = g if direction == "forward" else g.T.copy()
    g, f = g.astype("float32"), f.astype("float32")
    rows = np.repeat(f[None], len(every), axis=0)
    log = array(log_likelihood(every, rows, g, direction=direction)).astype("float64")
    assert log.max() <= 0
    assert np.exp(log).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(log, expected, rtol=1e-5, atol=1e-5)
    best = every[expected.argmax()]
    for tags, score in (viterbi(f[None], g, direction=direction), beam(f[None], g, 3, direction=direction)):
        assert array(tags)[0].tolist() == best.tolist()
        assert float(score[0]) == pytest.approx(expected.max(), abs=1e-5)
    charged = potentials(f[None], g, direction=direction)
    assert float(chain.log_partition(*charged[:2])[0]) == pytest.approx(0, abs=1e-5)
    f[1:3] = np.float32(size) * np.array([[1.0], [-1.0]], "float32")  # all tags alike there
    f[1:3, 0] += 0 if abs(size) > 1e8 else 1
    log = array(log_likelihood(every, np.repeat(f[None], len(every), axis=0), g, direction=direction))
    assert log.max() <= 0
    assert np.exp(log.astype("float64")).sum() == pytest.approx(1, abs=1e-5)


def test_the_two_directions_differ_and_the_crf_has_none():
    c = Chains(0)
    forward, backward = (log_likelihood(c.y, c.f, c.g, mask=c.mask, direction=d) for d in ("forward", "backward"))
    assert np.all(abs(array(forward) - array(backward))[c.lengths > 1] > 1e-3)
    f, y = c.f[:5, :4], np.maximum(c.y[:5, :4], 0)
    one = crf.log_likelihood(y, f, c.g)
    other = crf.log_likelihood(y[:, ::-1].copy(), f[:, ::-1].copy(), c.g.T.copy())
    np.testing.assert_allclose(array(one), array(other), rtol=1e-5)


def test_backward_is_forward_on_the_reversed_chain_with_transposed_transitions():
    f, y = Chains(1).f, np.random.default_rng(0).integers(0, 3, (7, 6))
    g = Chains(1).g
    backward = log_likelihood(y, f, g, direction="backward")
    reversed_ = log_likelihood(y[:, ::-1].copy(), f[:, ::-1].copy(), g.T.copy())
    np.testing.assert_allclose(array(backward), array(reversed_), rtol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_without_transitions_softmax_memm_and_crf_are_one(direction):
    c = Chains(2)
    g = np.zeros_like(c.g)
    memm = array(log_likelihood(c.y, c.f, g, mask=c.mask, direction=direction))
    softmax = [sum(s[tag] - np.logaddexp.reduce(s) for s, tag in zip(f, y, strict=True)) for f, y in c]
    np.testing.assert_allclose(memm, softmax, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(memm, array(crf.log_likelihood(c.y, c.f, g, mask=c.mask)), rtol=1e-5, atol=1e-5)


def test_crf_and_memm_share_their_numerator_and_differ_in_a_normaliser_that_knows_the_path():
    c = Chains(3, batch=2)
    f, n = c.f[0], 6
    for tags in itertools.islice(itertools.product(range(3), repeat=n), 0, None, 50):
        normalizer = np.logaddexp.reduce(f[0])
        normalizer += sum(np.logaddexp.reduce(c.g[tags[k - 1]] + f[k]) for k in range(1, n))
        score = float(chain.sequence_score([tags], f[None], c.g)[0])
        assert score - float(log_likelihood([tags], f[None], c.g)[0]) == pytest.approx(normalizer, rel=1e-5)


def test_a_tag_with_one_successor_ignores_the_observation_and_teaches_it_nothing():
    """Label bias: the only way out of a tag has probability 1, whatever is seen there. A CRF can still object."""
    only = np.array([[-np.inf, 0.0], [0.0, 0.0]])  # tag 0 is followed by tag 1
    calm, alarmed = [[[0.0, 0.0], [0.0, 0.0]]], [[[0.0, 0.0], [9.0, -9.0]]]
    tags = [[0, 1]]
    assert float(log_likelihood(tags, calm, only)[0]) == pytest.approx(math.log(1 / 2))
    assert float(log_likelihood(tags, alarmed, only)[0]) == pytest.approx(math.log(1 / 2))
    assert float(crf.log_likelihood(tags, alarmed, only)[0]) < -17
    (gradient,) = gradients(lambda f: ops.sum(log_likelihood(tags, f, only)), np.array(alarmed, "float32"))
    np.testing.assert_array_equal(gradient[0, 1], [0, 0])


# --- gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("direction", "mode"), COMPILATIONS)
def test_gradients_are_those_of_finite_differences(direction, mode):
    c = Chains(4, batch=5, time=4)
    weights = np.array([1.0, -0.5, 2.0, 3.0, 1.0])

    def reference(f, g):
        rows = zip(weights, f, c.y, c.lengths, strict=True)
        return sum(w * log_p(e[:n], g, y[:n], direction) for w, e, y, n in rows)

    def function(f, g):
        found = log_likelihood(c.y, f, g, mask=c.mask, direction=direction)
        return ops.sum(ops.cast(weights, found.dtype) * found)

    dtype = "float64" if DOUBLE else "float32"
    found = gradients(function, c.f.astype(dtype), c.g.astype(dtype), mode=mode)
    expected = [
        finite_differences(lambda f: reference(f, c.g), c.f),
        finite_differences(lambda g: reference(c.f, g), c.g),
    ]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8 if DOUBLE else 1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_masked_steps_change_nothing_and_have_a_gradient_of_exactly_zero(direction):
    c = Chains(5)
    junk = np.where(c.mask[..., None], c.f, 1e6).astype("float32")
    tags = np.where(c.mask, c.y, 77)
    same = log_likelihood(tags, junk, c.g, mask=c.mask, direction=direction)
    np.testing.assert_array_equal(
        array(same), array(log_likelihood(c.y, c.f.astype("float32"), c.g, mask=c.mask, direction=direction))
    )
    (gradient,) = gradients(
        lambda f: ops.sum(log_likelihood(tags, f, c.g.astype("float32"), mask=c.mask, direction=direction)), junk
    )
    assert np.all(gradient[~c.mask] == 0)
    assert np.all(np.any(gradient[c.mask] != 0, axis=-1))


# --- the MEMM as a chain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_with_its_potentials_the_score_of_a_chain_is_the_likelihood(direction):
    c = Chains(6, time=6, tags=4)
    charged, g, *_ = potentials(c.f, c.g, mask=c.mask, direction=direction)
    score = chain.sequence_score(c.y, charged, g, mask=c.mask)
    expected = log_likelihood(c.y, c.f, c.g, mask=c.mask, direction=direction)
    np.testing.assert_allclose(array(score), array(expected), rtol=1e-5, atol=1e-5)
    assert np.all(array(charged)[~c.mask] == 0)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_with_its_potentials_the_log_partition_is_zero(direction):
    c = Chains(7, time=6, tags=4)
    charged, g, *_ = potentials(c.f, c.g, mask=c.mask, direction=direction)
    np.testing.assert_allclose(array(chain.log_partition(charged, g, mask=c.mask)), 0, atol=1e-5)


def test_for_both_directions_it_is_the_overlap_of_the_two_models():
    c = Chains(8, time=4)
    charged, g, *_ = potentials(c.f, c.g, mask=c.mask, direction="both")
    overlap = [
        np.sum(np.exp((enumerated(f, c.g, "forward")[1] + enumerated(f, c.g, "backward")[1]) / 2)) for f, _ in c
    ]
    assert np.all(np.array(overlap)[c.lengths > 1] < 1)
    np.testing.assert_allclose(array(chain.log_partition(charged, g, mask=c.mask)), np.log(overlap), atol=1e-5)


def test_marginals_and_samples_come_from_the_chain():
    f, g = Chains(9, time=3).f[0], Chains(9).g
    charged, moves, *_ = potentials(f[None], g)
    every, log = enumerated(f, g)
    expected = np.zeros((3, 3))
    for tags, p in zip(every, np.exp(log), strict=True):
        expected[range(3), tags] += p
    np.testing.assert_allclose(array(chain.marginals(charged, moves))[0], expected, atol=1e-5)
    drawn = array(chain.sample(charged, moves, count=4000, seed=0))[0]
    seen = (drawn[..., None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(seen, expected, atol=0.035)  # more than four deviations of 4000 draws


def test_the_k_best_sequences_come_from_the_chain():
    f, g = Chains(10, time=4).f[0], Chains(10).g
    tags, scores = chain.k_best(*potentials(f[None], g)[:2], 5)
    every, log = enumerated(f, g)
    best = np.argsort(-log)[:5]
    assert [tuple(row) for row in array(tags)[0]] == [every[i] for i in best]
    np.testing.assert_allclose(array(scores)[0], log[best], rtol=1e-5)


# --- decoding -------------------------------------------------------------------------------------------------


def best_of_all(chains, direction):
    """Tags (batch, time), −1 where masked, and log P of the best sequence of each row, by enumeration."""
    tags, scores = np.full_like(chains.y, -1), []
    for row, (f, _) in enumerate(chains):
        every, log = enumerated(f, chains.g, direction)
        tags[row, : len(f)] = every[int(np.argmax(log))]
        scores.append(log.max())
    return tags, scores


@pytest.mark.parametrize(("tags", "time", "direction"), CASES)
def test_viterbi_finds_the_best_of_all_sequences(tags, time, direction):
    c = Chains(100 + tags * time, time=time, tags=tags, scale=1.0)
    found, score = viterbi(c.f, c.g, mask=c.mask, direction=direction)
    expected, best = best_of_all(c, direction)
    np.testing.assert_array_equal(array(found), expected)
    np.testing.assert_allclose(array(score), best, rtol=1e-5, atol=1e-5)


@functools.cache
def three_decoders():
    return compiled(lambda f, g: (viterbi(f, g)[0], chain.viterbi(f, g)[0], greedy(f, g)[0]), MODES[-1])


@pytest.mark.parametrize(
    ("emission", "transition", "unnormalized", "step_by_step"),
    [(1, 1, 0.28, 0.20), (3, 1, 0.15, 0.047), (6, 1, 0.085, 0.011), (3, 3, 0.35, 0.073)],
)
def test_viterbi_without_the_normalisers_gets_a_large_share_of_tokens_wrong(
    emission, transition, unnormalized, step_by_step
):
    """Four tags, 20 steps, Gaussian scores of these deviations: the share of tokens that differ from the best."""
    rng = np.random.default_rng(0)
    wrong, hasty = [], []
    for _ in range(40):  # a new matrix of transitions each
        f, g = emission * rng.standard_normal((50, 20, 4)), transition * rng.standard_normal((4, 4))
        best, without, one_by_one = (array(tags) for tags in three_decoders()(tensor(f), tensor(g)))
        wrong.append(np.mean(without != best))
        hasty.append(np.mean(one_by_one != best))
    assert np.mean(wrong) == pytest.approx(unnormalized, abs=4 * np.std(wrong) / math.sqrt(40))
    assert np.mean(hasty) == pytest.approx(step_by_step, abs=4 * np.std(hasty) / math.sqrt(40))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_greedy_takes_the_best_tag_given_the_last_one(direction):
    c = Chains(11)
    tags, score = greedy(c.f, c.g, mask=c.mask, direction=direction)
    for row, (f, _) in enumerate(c):
        f, g = (f, c.g) if direction == "forward" else (f[::-1], c.g.T)
        expected = []
        for scores in f:
            expected.append(int(np.argmax(scores + g[expected[-1]] if expected else scores)))
        expected = expected if direction == "forward" else expected[::-1]
        assert array(tags)[row].tolist() == expected + [-1] * (6 - len(f))
        assert float(score[row]) == pytest.approx(log_p(c.f[row, : len(f)], c.g, expected, direction), abs=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_beam_of_width_one_is_greedy(direction):
    c = Chains(12, batch=40, time=8, tags=4)
    for one, other in zip(
        beam(c.f, c.g, 1, mask=c.mask, direction=direction),
        greedy(c.f, c.g, mask=c.mask, direction=direction),
        strict=True,
    ):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("width", [4, 9])
def test_a_beam_as_wide_as_the_tag_set_is_viterbi(direction, width):
    c = Chains(13, batch=40, time=8, tags=4, scale=1.0)
    for one, other in zip(
        beam(c.f, c.g, width, mask=c.mask, direction=direction),
        viterbi(c.f, c.g, mask=c.mask, direction=direction),
        strict=True,
    ):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-5, atol=1e-5)


def test_a_wider_beam_is_mostly_but_not_always_better():
    c = Chains(14, batch=400, time=10, tags=6, scale=1.0)
    scores = [array(beam(c.f, c.g, width, mask=c.mask)[1]) for width in (1, 2, 6)]
    for narrow, wide in itertools.pairwise(scores):
        assert wide.mean() > narrow.mean()
    assert np.all(scores[2] >= scores[0] - 1e-4)
    assert np.any(scores[1] < scores[0] - 1e-2)


@pytest.mark.parametrize("decode", [greedy, lambda *a, **k: beam(*a, 2, **k)], ids=["greedy", "beam"])
def test_in_both_directions_the_better_of_two_candidates_is_taken(decode):
    c = Chains(15, batch=40, time=8, tags=4)
    tags, score = decode(c.f, c.g, mask=c.mask, direction="both")
    candidates = [decode(c.f, c.g, mask=c.mask, direction=d)[0] for d in ("forward", "backward")]
    scores = [array(log_likelihood(t, c.f, c.g, mask=c.mask, direction="both")) for t in candidates]
    np.testing.assert_allclose(array(score), np.maximum(*scores), rtol=1e-5, atol=1e-6)
    same = log_likelihood(tags, c.f, c.g, mask=c.mask, direction="both")
    np.testing.assert_allclose(array(score), array(same), rtol=1e-5, atol=1e-6)
    assert np.any(scores[0] > scores[1] + 1e-3)
    assert np.any(scores[1] > scores[0] + 1e-3)


# --- forbidden moves, extreme scores, half precision ----------------------------------------------------------


@pytest.mark.parametrize("forbidden", [-1e4, -np.inf])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_forbidden_moves_get_no_probability_and_are_never_decoded(direction, forbidden):
    c = Chains(16, batch=14)
    illegal = np.eye(3, dtype=bool)  # no tag twice in a row: every tag keeps successors and predecessors
    c.g[illegal] = forbidden
    expected, best = best_of_all(c, direction)
    tags, score = viterbi(c.f, c.g, mask=c.mask, direction=direction)
    np.testing.assert_array_equal(array(tags), expected)
    np.testing.assert_allclose(array(score), best, rtol=1e-5, atol=1e-5)
    for decode in (greedy, lambda *a, **k: beam(*a, 2, **k)):
        tags = array(decode(c.f, c.g, mask=c.mask, direction=direction)[0])
        assert np.all((tags[:, 1:] != tags[:, :-1])[c.mask[:, 1:]])
    likelihood = array(log_likelihood(c.y, c.f, c.g, mask=c.mask, direction=direction))
    repeats = np.any((c.y[:, 1:] == c.y[:, :-1]) & c.mask[:, 1:], axis=1)
    assert 0 < repeats.sum() < 14
    assert np.all(likelihood[repeats] < -9e3)
    assert np.all(likelihood[~repeats] > -100)


@pytest.mark.parametrize("mode", MODES)
def test_a_forbidden_sequence_has_likelihood_minus_infinity_and_gradient_zero(mode):
    f, g = np.zeros((3, 3, 2), "float32"), np.array([[0.0, -np.inf], [0.0, 0.0]], "float32")
    y = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 1]])
    likelihood = log_likelihood(y, f, g, direction="both")
    assert np.isneginf(array(likelihood)).tolist() == [True, False, True]
    f, g = gradients(lambda f, g: ops.sum(log_likelihood(y, f, g, direction="both")), f, g, mode=mode)
    assert np.all(f[[0, 2]] == 0)
    assert np.any(f[1] != 0)
    assert np.all(np.isfinite(f))
    assert np.all(np.isfinite(g))


@pytest.mark.parametrize("mode", MODES)
def test_where_no_sequence_is_legal_nothing_is_nan(mode):
    f, g = np.ones((2, 3, 2), "float32"), np.full((2, 2), -np.inf, "float32")
    y, mask = np.zeros((2, 3), "int32"), np.array([[True] * 3, [True, False, False]])
    options = {"mask": mask, "direction": "both"}
    likelihood = log_likelihood(y, f, g, **options)
    np.testing.assert_allclose(array(likelihood), [-np.inf, math.log(1 / 2)], rtol=1e-5)
    for gradient in gradients(lambda f, g: ops.sum(log_likelihood(y, f, g, **options)), f, g, mode=mode):
        assert np.all(np.isfinite(gradient))
    decode = [viterbi, greedy, lambda *a, **k: beam(*a, 2, **k)]
    scores = compiled(lambda f, g: [d(f, g, **options)[1] for d in decode], mode)(tensor(f), tensor(g))
    for score in scores:
        np.testing.assert_allclose(array(score), [-np.inf, math.log(1 / 2)], rtol=1e-5)


def test_mass_that_runs_into_a_dead_end_is_lost():
    g = np.array([[0.0, 0.0], [-np.inf, -np.inf]])  # nothing follows tag 1
    f = np.zeros((1, 2, 2))
    p = [math.exp(float(log_likelihood([tags], f, g)[0])) for tags in itertools.product(range(2), repeat=2)]
    np.testing.assert_allclose(p, [1 / 4, 1 / 4, 0, 0], rtol=1e-6)
    kept = chain.log_partition(*potentials(f, g)[:2])
    assert float(kept[0]) == pytest.approx(math.log(1 / 2), rel=1e-5)


def test_emissions_of_minus_infinity_forbid_a_tag_at_a_step():
    c = Chains(17)
    c.f[:, 1, 2] = -np.inf
    for direction in DIRECTIONS:
        expected, best = best_of_all(c, direction)
        tags, score = viterbi(c.f, c.g, mask=c.mask, direction=direction)
        np.testing.assert_array_equal(array(tags), expected)
        np.testing.assert_allclose(array(score), best, rtol=1e-5, atol=1e-5)
        likelihood = array(log_likelihood(c.y, c.f, c.g, mask=c.mask, direction=direction))
        np.testing.assert_allclose(likelihood, [log_p(f, c.g, y, direction) for f, y in c], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_scores_of_two_hundred_lose_nothing(mode):
    c = Chains(18, batch=12, time=4, tags=4, scale=0)
    rng = np.random.default_rng(0)
    c.f, c.g = (rng.uniform(-200, 200, x.shape).astype("float32") for x in (c.f, c.g))
    options = {"mask": c.mask, "direction": "both"}
    f, g = tensor(c.f), tensor(c.g)
    c.f, c.g = c.f.astype("float64"), c.g.astype("float64")

    def likelihood_emissions_and_best_score(f, g):
        charged = potentials(f, g, **options)[:2]
        return log_likelihood(c.y, f, g, **options), charged, viterbi(f, g, **options)[1]

    likelihood, charged, best = compiled(likelihood_emissions_and_best_score, mode)(f, g)
    np.testing.assert_allclose(array(likelihood), [log_p(e, c.g, y, "both") for e, y in c], rtol=1e-5, atol=1e-3)
    score = chain.sequence_score(c.y, *charged, mask=c.mask)
    np.testing.assert_allclose(array(score), array(likelihood), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(array(best), best_of_all(c, "both")[1], rtol=1e-5, atol=1e-3)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX refuses forward mode by name")
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("unknown", [False, True])
def test_forward_mode_is_right_or_an_error(unknown, direction):
    c = Chains(20)
    y = np.where(np.arange(c.y.shape[1]) == 1, chain.UNKNOWN, c.y) if unknown else c.y
    f, g = c.f.astype("float32"), c.g.astype("float32")
    along = np.random.default_rng(0).standard_normal(g.shape).astype("float32")

    def value(g):
        return ops.sum(log_likelihood(y, f, g, mask=c.mask, direction=direction))

    (slope,) = gradients(value, g)
    expected = pytest.approx(np.sum(slope * along), rel=1e-4, abs=1e-4)
    if BACKEND == "torch":
        import torch

        assert float(torch.func.jvp(value, (tensor(g),), (tensor(along),))[1]) == expected
        return
    import tensorflow as tf

    def forward(g, along):
        with tf.autodiff.ForwardAccumulator(g, along) as accumulator:
            out = value(g)
        return accumulator.jvp(out)

    assert float(forward(tensor(g), tensor(along))) == expected
    with pytest.raises(TypeError):  # TensorFlow has no forward mode of a loop in a graph
        tf.function(forward, autograph=False)(tensor(g), tensor(along))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("decode", [viterbi, greedy, beam], ids=lambda function: function.__name__)
def test_where_a_product_of_factors_overflows_no_tags_are_made_up(decode, mode):
    c = Chains(19, tags=3)
    pair = tuple(np.full((2, 3, 2), 1e25, "float32"))  # each is a float32, the products are not
    more = (2,) if decode is beam else ()
    for direction in DIRECTIONS:
        run = compiled(lambda f, *pair, d=direction: decode(f, pair, *more, mask=c.mask, direction=d), mode)
        tags, score = map(array, run(tensor(c.f.astype("float32")), *map(tensor, pair)))
        moves = c.mask[:, 1:].any(axis=1)
        np.testing.assert_array_equal(np.isnan(score), moves)
        np.testing.assert_array_equal(tags == PADDING, moves[:, None] | ~c.mask)


@pytest.mark.parametrize("depth", [40.0, 60.0, 95.0, 100.0, 150.0])
def test_the_only_way_out_of_a_tag_may_be_as_improbable_as_it_likes(depth):
    """exp(−100) has lost its digits in single precision, exp(−150) is 0."""
    f, g = np.array([[[0.0, 0.0], [0.0, -depth]]], "float32"), np.array([[-np.inf, 0.0], [0.0, 0.0]], "float32")
    charged = array(potentials(f, g).emissions)
    np.testing.assert_allclose(charged[0, 0], [depth - math.log(2), -math.log(2)], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_single_precision(dtype):
    rng = np.random.default_rng(0)
    f, g = (ops.cast(tensor(rng.standard_normal(shape)), dtype) for shape in [(1, 4096, 3), (3, 3)])
    y = rng.integers(0, 3, (1, 4096))
    wide = [ops.cast(x, "float32") for x in (f, g)]
    for direction in DIRECTIONS:
        half = log_likelihood(y, f, g, direction=direction)
        assert keras.backend.standardize_dtype(half.dtype) == "float32"
        assert float(half[0]) == float(log_likelihood(y, wide[0], wide[1], direction=direction)[0])
    charged = [array(potentials(*scores).emissions) for scores in ((f, g), wide)]
    np.testing.assert_array_equal(*charged)


@pytest.mark.parametrize("mode", MODES[1:])
def test_compiled_and_eager_are_one(mode):
    c = Chains(19, batch=5, time=6, tags=4)
    options = {"mask": c.mask, "direction": "both"}

    def everything(f, g):
        return (
            log_likelihood(c.y, f, g, **options),
            *potentials(f, g, **options)[:2],
            *viterbi(f, g, **options),
            *greedy(f, g, **options),
            *beam(f, g, 2, **options),
        )

    f, g = tensor(c.f.astype("float32")), tensor(c.g.astype("float32"))
    for one, other in zip(compiled(everything, mode)(f, g), everything(f, g), strict=True):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-5, atol=1e-5)


# --- many tags ------------------------------------------------------------------------------------------------


def test_factors_are_the_matrix_that_they_make():
    c, rng = Chains(20, tags=4), np.random.default_rng(0)
    left, right = rng.standard_normal((2, 4, 2)).astype("float32")
    f, options = c.f.astype("float32"), {"mask": c.mask, "direction": "both"}
    for function in (
        lambda g: log_likelihood(c.y, f, g, **options),
        lambda g: potentials(f, g, **options).emissions,
        lambda g: viterbi(f, g, **options)[0],
        lambda g: greedy(f, g, **options)[0],
        lambda g: beam(f, g, 3, **options)[0],
    ):
        low, full = function((left, right)), function(left @ right.T)
        np.testing.assert_allclose(array(low), array(full), rtol=1e-5, atol=1e-5)


def test_training_greedy_and_beam_never_multiply_the_factors_out(monkeypatch):
    def refuse(_):
        raise AssertionError("a matrix (tags, tags) was made")

    monkeypatch.setattr("lib.memm.normalizers.matrix", refuse)
    # Of a size that no other test has: what JAX has compiled before makes no matrix anew.
    c, factors = Chains(24, tags=7), np.random.default_rng(0).standard_normal((2, 7, 2)).astype("float32")
    gradients(lambda *g: ops.sum(log_likelihood(c.y, c.f, g, mask=c.mask, direction="both")), *factors)
    for decode in (greedy, lambda *a, **k: beam(*a, 2, **k)):
        decode(c.f, tuple(factors), mask=c.mask, direction="both")
    with pytest.raises(AssertionError, match="was made"):  # Viterbi does need it
        viterbi(c.f, tuple(factors), mask=c.mask)


def test_gradients_of_the_factors_are_those_of_finite_differences():
    c, rng = Chains(21, batch=4, time=4), np.random.default_rng(0)
    left, right = rng.standard_normal((2, 3, 2))

    def reference(left, right):
        return sum(log_p(f, left @ right.T, y, "both") for f, y in c)

    def function(left, right):
        return ops.sum(log_likelihood(c.y, tensor(c.f.astype(dtype)), (left, right), mask=c.mask, direction="both"))

    dtype = "float64" if DOUBLE else "float32"
    found = gradients(function, left.astype(dtype), right.astype(dtype))
    expected = [
        finite_differences(lambda x: reference(x, right), left),
        finite_differences(lambda x: reference(left, x), right),
    ]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8 if DOUBLE else 1e-5)


# --- unknown tags, scores that are no numbers -----------------------------------------------------------------

PARTLY = np.array(
    [[-100, 1, 2, 0], [0, -100, -100, 2], [1, 0, -100, 0], [-100] * 4, [2, -100, -1, -1], [0, 1, 2, 1]]
)


def log_p_of_known(f, g, known, direction):
    every, log = enumerated(f, g, direction)
    return np.logaddexp.reduce([p for y, p in zip(every, log, strict=True) if np.all((known == y) | (known < 0))])


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_the_probability_of_the_known_tags_is_the_sum_over_the_unknown_ones(scale, direction):
    c = Chains(25, batch=6, time=4, scale=scale)
    f, g, mask = c.f.astype("float32"), c.g.astype("float32"), PARTLY != -1
    rows = [(e[valid], y[valid]) for e, y, valid in zip(c.f, PARTLY, mask, strict=True)]
    expected = [log_p_of_known(e, c.g, y, direction) for e, y in rows]
    found = array(log_likelihood(PARTLY, f, g, mask=mask, direction=direction))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * scale)
    assert found.max() <= 0

    def reference(g):
        return sum(log_p_of_known(e, g, y, direction) for e, y in rows)

    (of_g,) = gradients(lambda g: ops.sum(log_likelihood(PARTLY, f, g, mask=mask, direction=direction)), g)
    np.testing.assert_allclose(of_g, finite_differences(reference, c.g, 1e-5), atol=1e-4)


def test_for_both_directions_it_is_the_mean():
    c = Chains(25, batch=6, time=4)
    mask = PARTLY != -1
    one, other, both = (array(log_likelihood(PARTLY, c.f, c.g, mask=mask, direction=d)) for d in DIRECTIONS)
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-6)


def test_factors_take_no_unknown_tags():
    with pytest.raises(ValueError, match="tags must all be known if transitions are a pair"):
        log_likelihood(PARTLY[:1, :3], GOOD["emissions"][:1], FACTORS)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "decode", [viterbi, greedy, lambda *a, **k: beam(*a, 2, **k)], ids=["viterbi", "greedy", "beam"]
)
def test_emissions_that_are_no_numbers_have_no_tags(decode, direction):
    f, g = np.zeros((3, 4, 3), "float32"), np.zeros((3, 3), "float32")
    f[1, 2, 0] = np.nan
    mask = np.array([[True] * 4, [True] * 4, [True, False, False, False]])
    f[2, 3] = np.nan
    tags, score = decode(f, g, mask=mask, direction=direction)
    assert (array(tags)[:, 0] == -1).tolist() == [False, True, False]
    assert np.isnan(array(score)).tolist() == [False, True, False]
    likelihood = log_likelihood(np.zeros((3, 4), int), f, g, mask=mask, direction=direction)
    assert np.isnan(array(likelihood)).tolist() == [False, True, False]
    assert np.isnan(array(log_likelihood(np.zeros((3, 4), int), 0 * f, g + np.nan, direction=direction))).all()


# --- bad input ------------------------------------------------------------------------------------------------


GOOD = {
    "emissions": np.zeros((2, 3, 4), "float32"),
    "tags": np.zeros((2, 3), "int32"),
    "transitions": np.zeros((4, 4), "float32"),
    "mask": np.ones((2, 3), bool),
}
FACTORS = np.zeros((4, 2), "float32"), np.zeros((4, 2), "float32")
HOLES = np.array([[True, True, True], [True, False, True]])
BAD = [
    ({"emissions": np.zeros((3, 4))}, "emissions must"),
    ({"emissions": np.zeros((0, 3, 4)), "tags": np.zeros((0, 3)), "mask": None}, "emissions must"),
    ({"transitions": np.zeros((3, 3))}, "transitions must"),
    ({"tags": np.zeros((2, 4), "int32")}, "tags must"),
    ({"tags": np.full((2, 3), 4)}, "tags must"),
    ({"tags": np.full((2, 3), -1)}, "tags must"),
    ({"mask": np.ones((2, 2), bool)}, "mask must"),
    ({"mask": HOLES}, "mask must"),
    ({"transitions": np.zeros((2, 2, 4, 4))}, r"transitions must be a matrix \(tags, tags\) or a pair"),
    ({"emissions": np.zeros((2, 3, 4)) + 1j}, "emissions must hold"),
    ({"emissions": None}, "emissions must be a tensor of numbers, got None"),
    ({"tags": [["a"] * 3] * 2}, "tags must be a tensor of numbers"),
    ({"mask": np.full((2, 3), -1e4)}, "mask must hold True or 1"),
    ({"transitions": ("a", "b")}, "transitions must be a tensor of numbers"),
    ({"direction": "sideways"}, "direction must be one of 'forward', 'backward', 'both', got 'sideways'"),
    ({"transitions": FACTORS, "tags": np.full((2, 3), 4)}, "tags must"),
    ({"transitions": FACTORS, "mask": HOLES}, "mask must"),
    ({"transitions": (FACTORS[0], np.zeros((4, 3)))}, "transitions must be a pair of matrices"),
    ({"transitions": (np.zeros(4), np.zeros(4))}, "transitions must be a pair of matrices"),
    ({"transitions": (np.zeros((3, 2)),) * 2}, "transitions must"),
    ({"transitions": (*FACTORS, 1)}, "transitions must be a matrix or a pair"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_input_is_refused_by_name(changed, message):
    arguments = {**GOOD, **changed}
    with pytest.raises(ValueError, match=message):
        log_likelihood(**arguments)
    if "tags" not in changed:
        del arguments["tags"]
        for decode in (potentials, viterbi, greedy, lambda **k: beam(width=2, **k)):
            with pytest.raises(ValueError, match=message):
                decode(**arguments)


@pytest.mark.parametrize("width", [0, -1, 1.5, True])
def test_a_beam_has_a_positive_width(width):
    with pytest.raises(ValueError, match="width must be a positive integer"):
        beam(GOOD["emissions"], GOOD["transitions"], width)


@pytest.mark.parametrize("mode", TRACED)
@pytest.mark.parametrize("transitions", [GOOD["transitions"], FACTORS], ids=["matrix", "factors"])
def test_where_no_error_can_be_raised_bad_rows_are_nan(transitions, mode):
    tags, mask = np.array([[0, 4, 0], [0, 0, 0], [0, 1, 2]]), np.array([[True] * 3, HOLES[1], [True] * 3])

    def function(emissions, tags, mask):
        return log_likelihood(tags, emissions, transitions, mask=mask), greedy(emissions, transitions, mask=mask)[1]

    likelihood, score = compiled(function, mode)(tensor(np.zeros((3, 3, 4), "float32")), tensor(tags), tensor(mask))
    assert np.isnan(array(likelihood)).tolist() == [True, True, False]
    assert np.isnan(array(score)).tolist() == [False, True, False]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has graphs that assert")
@pytest.mark.parametrize("changed", [{"tags": np.full((2, 3), 4)}, {"mask": HOLES}])
def test_a_tensorflow_graph_asserts(changed):
    import tensorflow as tf

    arguments = {name: tensor(value) for name, value in {**GOOD, **changed}.items()}
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(log_likelihood)(**arguments)


# --- the layer ------------------------------------------------------------------------------------------------


def noisy_tags(seed=0, batch=256, time=6):
    """Symbols (from 1, padding 0) that tell the tag two times out of three, and tags that mostly count up."""
    rng = np.random.default_rng(seed)
    y = np.cumsum(rng.choice([1, 2], (batch, time), p=[0.9, 0.1]), axis=1) % 3
    x = np.where(rng.random((batch, time)) < 0.5, y, rng.integers(0, 3, (batch, time))) + 1
    mask = np.arange(time) < rng.integers(2, time + 1, batch)[:, None]
    return np.where(mask, x, 0), np.where(mask, y, -1)


def tagger(head, learning_rate=0.2):
    encoder = keras.Sequential([keras.layers.Embedding(4, head.tag_count)])
    model = Tagger(encoder, head, padding=0)
    model.compile(keras.optimizers.Adam(learning_rate))
    return model


HEADS = {
    "forward": {"direction": "forward"},
    "low rank": {"rank": 2, "beam_width": 2, "direction": "both"},
    "boundaries": {"boundaries": True, "direction": "backward"},
}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_the_layer_fits_predicts_saves_and_loads(options, tmp_path):
    keras.utils.set_random_seed(0)
    x, y = noisy_tags()
    model = tagger(MEMM(3, **options))
    losses = model.fit(x, y, epochs=12, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
    predicted, valid = model.predict(x, verbose=0), y >= 0
    np.testing.assert_array_equal(predicted >= 0, valid)
    assert np.mean((x - 1)[valid] == y[valid]) < 0.7  # what the symbols tell by themselves
    assert np.mean(predicted[valid] == y[valid]) > 0.74
    model.save(tmp_path / "tagger.keras")
    loaded = keras.saving.load_model(tmp_path / "tagger.keras")
    assert loaded.head.get_config() == model.head.get_config()
    for one, other in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(one), array(other))


def test_the_loss_is_the_mean_over_the_tokens_of_a_batch():
    head = MEMM(3, direction="both", transitions_initializer=Chains(22).g)
    c = Chains(22)
    emissions = head(c.f.astype("float32"), mask=c.mask)
    total = -sum(log_p(f, c.g, y, "both") for f, y in c)
    mean = float(np.mean(array(head.sequence_loss(c.y, emissions))))
    assert mean == pytest.approx(total / c.mask.sum(), rel=1e-5)
    nothing = head.sequence_loss(np.full((2, 3), -1), np.zeros((2, 3, 3), "float32"))
    np.testing.assert_array_equal(array(nothing), [0, 0])


def test_scores_of_the_first_and_last_tag_are_emissions_of_those_steps():
    c = Chains(23)
    for direction in DIRECTIONS:
        head = MEMM(3, direction=direction, boundaries=True, transitions_initializer=c.g)
        head.build((None, None, 3))
        head._start.assign([1.0, -2.0, 0.5])
        head._end.assign([0.0, 3.0, -1.0])
        f = c.f.copy()
        f[:, 0] += [1.0, -2.0, 0.5]
        f[range(6), c.lengths[:6] - 1] += [0.0, 3.0, -1.0]
        found = array(head.log_likelihood(c.y, c.f.astype("float32"), c.mask))
        expected = array(log_likelihood(c.y, f, c.g, mask=c.mask, direction=direction))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        tags = np.maximum(c.y, 0)
        whole = array(head.log_likelihood(tags, c.f.astype("float32")))
        given = array(head.log_likelihood(tags, c.f.astype("float32"), np.ones_like(c.mask)))
        np.testing.assert_allclose(whole, given, rtol=1e-6)
        tags, score = head.decode(c.f.astype("float32"), c.mask)
        expected, best = viterbi(f, c.g, mask=c.mask, direction=direction)
        np.testing.assert_array_equal(array(tags), array(expected))
        np.testing.assert_allclose(array(score), array(best), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_layer_answers_questions_to_its_distribution(direction):
    c = Chains(26, batch=2, time=4)
    head = MEMM(3, direction=direction, transitions_initializer=c.g, boundaries=True)
    f, mask = c.f.astype("float32"), np.array([[True] * 4, [True, True, False, False]])
    p, h = array(head.marginals(f, mask)), array(head.entropy(f, mask))
    tags, scores = map(array, head.k_best(f, 3, mask=mask))
    drawn = array(head.sample(f, 3000, seed=0, mask=mask))
    for row, n in enumerate([4, 2]):
        every, log = enumerated(c.f[row, :n], c.g, direction)
        every, best = np.array(every), np.argsort(-log)[:3]
        expected = np.stack([np.exp(log) @ (every == tag) for tag in range(3)], axis=1)
        np.testing.assert_allclose(p[row, :n], expected, atol=1e-5)
        assert h[row] == pytest.approx(-np.sum(np.exp(log) * log), abs=1e-5)
        np.testing.assert_array_equal(tags[row, :, :n], every[best])
        np.testing.assert_allclose(scores[row], log[best], rtol=1e-5, atol=1e-5)
        seen = (drawn[row, :, :n, None] == np.arange(3)).mean(axis=0)
        np.testing.assert_allclose(seen, expected, atol=0.04)
        assert (drawn[row, :, n:] == -1).all()
        assert not p[row, n:].any()


@pytest.mark.parametrize(
    ("options", "message"), [({"direction": "both"}, "direction must be"), ({"rank": 2}, "rank must be None")]
)
def test_what_is_no_chain_has_no_marginals(options, message):
    head, f = MEMM(3, **options), np.zeros((1, 2, 3), "float32")
    for ask in (head.marginals, head.entropy, lambda f: head.sample(f, 1), lambda f: head.k_best(f, 1)):
        with pytest.raises(ValueError, match=message):
            ask(f)


def test_the_loss_of_unknown_tags_is_the_mean_over_the_known_ones():
    c = Chains(27, batch=6, time=4)
    head = MEMM(3, transitions_initializer=c.g)
    emissions = head(c.f.astype("float32"), mask=PARTLY != -1)
    total = -sum(log_p_of_known(e[y != -1], c.g, y[y != -1], "forward") for e, y in zip(c.f, PARTLY, strict=True))
    mean = float(np.mean(array(head.sequence_loss(PARTLY, emissions))))
    assert mean == pytest.approx(total / np.sum(PARTLY >= 0), rel=1e-5)


def test_illegal_moves_starts_and_ends_are_never_predicted():
    legal = ~np.eye(3, dtype=bool)
    head = MEMM(3, legal=LegalMoves(legal, [True, False, True], [True, True, False]))
    f = 3 * np.random.default_rng(0).standard_normal((50, 6, 3)).astype("float32")
    head.build(f.shape)
    tags, score = (array(x) for x in head.decode(f))
    assert np.all(tags[:, 1:] != tags[:, :-1])
    assert 1 not in tags[:, 0]
    assert 2 not in tags[:, -1]
    assert np.all(np.isfinite(score))


def test_a_low_rank_layer_begins_without_transitions_and_has_a_gradient():
    head = MEMM(5, rank=3, direction="forward")
    head.build((None, None, 5))
    left, right = head.transitions
    assert tuple(left.shape) == tuple(right.shape) == (5, 3)
    wide = MEMM(2000, rank=16, direction="forward")
    wide.build((None, None, 2000))
    np.testing.assert_allclose(np.std(array(wide.transitions[0])), 16**-0.5, rtol=0.05)  # 32,000 numbers
    np.testing.assert_array_equal(array(right), 0)
    f, y = np.zeros((4, 6, 5), "float32"), np.random.default_rng(0).integers(0, 5, (4, 6))
    left = array(left)
    gradient = gradients(lambda r: ops.sum(log_likelihood(y, f, (tensor(left), r))), array(right))[0]
    assert np.all(np.any(gradient != 0, axis=1))


def test_the_low_rank_layer_holds_two_d_tags_numbers():
    head = MEMM(20_000, rank=64)
    head.build((None, None, 20_000))
    assert head.count_params() == 2 * 64 * 20_000
    assert 20_000**2 / head.count_params() > 150


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "up"}, "direction must be one of"),
        ({"rank": 0}, "rank must be a positive integer"),
        ({"beam_width": 0}, "beam_width must be a positive integer"),
        ({"rank": 2, "legal": np.ones((3, 3), bool)}, "legal must be None with a rank"),
        ({"rank": 2, "transitions_initializer": np.ones((3, 3))}, "transitions_initializer must be left out"),
        ({"rank": 2, "transitions_initializer": "ones"}, "transitions_initializer must be left out"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MEMM(3, **options)


@pytest.mark.parametrize("side", ["forward", "backward"])
def test_arguments_that_are_checked_already_give_the_same(side):
    rng = np.random.default_rng(3)
    f, g = rng.standard_normal((2, 5, 3)).astype("float32"), rng.standard_normal((3, 3)).astype("float32")
    tags = rng.integers(3, size=(2, 5))
    arguments = checked(f, g, None, side, tags)
    np.testing.assert_array_equal(
        array(likelihood_of(arguments, side)), array(log_likelihood(tags, f, g, direction=side))
    )
    for one, other in zip(potentials_of(arguments, (side,))[:2], potentials(f, g, direction=side)[:2], strict=True):
        np.testing.assert_array_equal(array(one), array(other))


@pytest.mark.parametrize("tags", [None, [["a", "b"]], [[0], [1, 2]]], ids=str)
def test_what_are_no_tags_is_named(tags):
    with pytest.raises(ValueError, match=r"^tags must be a "):
        log_likelihood(tags, np.zeros((1, 2, 2)), np.zeros((2, 2)))
