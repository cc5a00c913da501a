"""Truths about ``lib.crf``, on whichever backend KERAS_BACKEND names."""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import ops
from numerics import array, normal
from scipy.special import log_softmax, logsumexp

from lib import chain, crf
from lib.crf import CRF, UNKNOWN, log_likelihood
from lib.tagging import PADDING, LegalMoves, Softmax, Tagger

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
#: What takes least time for a few steps. JAX compiles even single operations, so there a whole step costs less.
QUICK = {"jit_compile": True} if BACKEND == "jax" else {"run_eagerly": True}
#: s b m e of Chinese word segmentation: a word is s, or b m … m e.
LEGAL = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]], bool)
LEGAL_START, LEGAL_END = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 1], bool)


def chains(batch, time, tags, *, scale=1.0, forbidden=None, seed=0):
    """Random chains with ragged masks, the arguments of ``log_likelihood``; row 0 is masked, row 1 has length 1."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, time + 1, batch)
    lengths[:2] = 0, 1
    scores = {"transitions": (tags, tags), "start": (tags,), "end": (tags,)}
    scores = {name: rng.normal(size=shape).astype("float32") for name, shape in scores.items()}
    if forbidden is not None:
        for score in scores.values():
            score[rng.random(score.shape) < 0.25] = forbidden
    emissions = (scale * rng.uniform(-1, 1, (batch, time, tags))).astype("float32")
    return {
        "emissions": emissions,
        "tags": rng.integers(0, tags, (batch, time)).astype("int32"),
        "mask": np.arange(time) < lengths[:, None],
        **scores,
    }


# The same by enumeration, in double precision.


def enumerated(emissions, transitions, start, end, length):
    """Every tag sequence of a chain with its score."""
    for y in itertools.product(range(len(start)), repeat=length):
        score = sum(float(emissions[t, y[t]]) for t in range(length)) + float(start[y[0]]) + float(end[y[-1]])
        yield y, score + sum(float(transitions[i, j]) for i, j in itertools.pairwise(y))


def likelihoods(emissions, tags, mask, transitions, start, end):
    """The log-likelihood of every row by the definition."""
    values = []
    for e, y, length in zip(emissions, tags, mask.sum(1), strict=True):
        scores = dict(enumerated(e, transitions, start, end, length)) if length else {(): 0.0}
        gold = scores[tuple(y[:length])]
        values.append(-np.inf if gold == -np.inf else gold - logsumexp(list(scores.values())))
    return np.array(values)


def gold_magnitudes(emissions, tags, mask, transitions, start, end):
    """The size of what is added up for the tags of every row, the unit of its rounding errors."""
    sizes = {"transitions": np.abs(transitions), "start": np.abs(start), "end": np.abs(end)}
    scores = [
        dict(enumerated(np.abs(e), **sizes, length=length))[tuple(y[:length])] if length else 0.0
        for e, y, length in zip(emissions, tags, mask.sum(1), strict=True)
    ]
    return np.array(scores)


def expected_counts(emissions, tags, mask, transitions, start, end):
    """Counts of the gold sequences minus their expectation: of tags (batch, time, K), moves, starts, ends."""
    K = len(start)
    counts = np.zeros(emissions.shape), np.zeros((K, K)), np.zeros(K), np.zeros(K)

    def add(row, y, weight):
        counts[0][row, np.arange(len(y)), y] += weight
        for i, j in itertools.pairwise(y):
            counts[1][i, j] += weight
        counts[2][y[0]] += weight
        counts[3][y[-1]] += weight

    for row, length in enumerate(mask.sum(1)):
        if length:
            scores = dict(enumerated(emissions[row], transitions, start, end, length))
            gold, log_z = tuple(tags[row, :length]), logsumexp(list(scores.values()))
            if scores[gold] > -np.inf:
                add(row, gold, 1)
                for y, score in scores.items():
                    add(row, y, -np.exp(score - log_z))
    return counts


def gradients(function, *arguments, fixed=()):
    """Gradients of a scalar function of ``arguments`` and ``fixed`` by the backend's own differentiation."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(x) for x in arguments]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors, *fixed)
        return [array(g) for g in tape.gradient(value, tensors)]
    if BACKEND == "jax":
        return [array(g) for g in jax_gradient(function, len(arguments))(*arguments, *fixed)]
    import torch

    tensors = [torch.tensor(x, requires_grad=True) for x in arguments]
    function(*tensors, *fixed).backward()
    return [array(x.grad) for x in tensors]


@functools.cache
def jax_gradient(function, arguments):
    import jax

    return jax.jit(jax.grad(function, range(arguments)))


def compiled(function):
    """The function as the backend compiles it, where no error can be raised; itself on torch."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


def quick(function):
    """The function in the form that takes least time for one call: JAX compiles even single operations."""
    return compiled(function) if BACKEND == "jax" else function


likelihood = quick(log_likelihood)


# --- the likelihood -------------------------------------------------------------------------------------------


def test_what_a_crf_needs_of_the_chain_comes_along():
    for name in set(crf.__all__) - {"CRF"}:
        assert getattr(crf, name) is getattr(chain, name)


REGIMES = [
    pytest.param({"scale": 1.0}, id="mild"),
    pytest.param({"scale": 200.0}, id="range 200"),
    pytest.param({"scale": 200.0, "forbidden": -1e4}, id="forbidden by -1e4"),
    pytest.param({"scale": 1.0, "forbidden": -np.inf}, id="forbidden by -inf"),
]
SHAPES = [(40, 6, 3), (40, 4, 4), (20, 1, 2), (20, 6, 1)]


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_likelihood_is_that_of_the_definition(shape, regime):
    given = chains(*shape, **regime)
    expected, value = likelihoods(**given), array(likelihood(**given))
    np.testing.assert_array_equal(np.isneginf(value), np.isneginf(expected))
    finite, eps = np.isfinite(expected), np.finfo("float32").eps
    rounding = eps * (shape[1] * regime["scale"] + gold_magnitudes(**given))
    assert np.all(np.abs(value[finite] - expected[finite]) <= 8 * rounding[finite])
    assert value[0] == 0


def finite_sum(emissions, transitions, start, end, tags, mask):
    """Σ of the finite log-likelihoods."""
    value = log_likelihood(tags, emissions, transitions, mask=mask, start=start, end=end)
    return ops.sum(ops.where(ops.isfinite(value), value, 0.0))


def plain_sum(emissions, transitions, start, end, tags, mask):
    """Σ of the log-likelihoods, as a loss adds them up."""
    return ops.sum(log_likelihood(tags, emissions, transitions, mask=mask, start=start, end=end))


SCORES = ("emissions", "transitions", "start", "end")


def gradients_of(given, function=finite_sum):
    return gradients(function, *(given[name] for name in SCORES), fixed=(given["tags"], given["mask"]))


@pytest.mark.parametrize("regime", REGIMES)
def test_the_gradient_is_the_gold_counts_minus_the_marginals_and_pair_marginals(regime):
    given = chains(24, 5, 3, **regime)
    for gradient, counts in zip(gradients_of(given), expected_counts(**given), strict=True):
        np.testing.assert_allclose(gradient, counts, atol=2e-5)


def test_the_gradient_agrees_with_finite_differences_of_the_definition():
    given, step = chains(6, 4, 3), 1e-5
    for name, gradient in zip(SCORES, gradients_of(given), strict=True):
        difference = np.empty(gradient.shape)
        for index in np.ndindex(gradient.shape):
            moved = []
            for sign in (1, -1):
                x = given[name].astype("float64")
                x[index] += sign * step
                moved.append(likelihoods(**{**given, name: x}).sum())
            difference[index] = (moved[0] - moved[1]) / (2 * step)
        np.testing.assert_allclose(gradient, difference, atol=1e-5)


def test_masked_steps_have_a_gradient_of_exactly_zero():
    given = chains(24, 5, 3, scale=50.0)
    given["emissions"][~given["mask"]] = -np.inf  # as the layers of lib.tagging.tagger mark them
    gradient = gradients_of(given)[0]
    np.testing.assert_array_equal(gradient[~given["mask"]], 0)
    assert np.abs(gradient[given["mask"]]).max() > 0.1


def test_the_probabilities_of_all_sequences_sum_to_one():
    every = np.array(list(itertools.product(range(3), repeat=5)), "int32")
    emissions = np.repeat(normal(1, 5, 3), len(every), axis=0)
    value = array(likelihood(every, emissions, normal(3, 3, seed=1), start=normal(3), end=normal(3, seed=2)))
    assert np.exp(value.astype("float64")).sum() == pytest.approx(1, abs=1e-5)


def impossible(name):
    """Chains of 3 tags: one whose tags make a forbidden move, and one where nothing at all is allowed."""
    transitions = np.zeros((3, 3), "float32")
    if name == "this sequence":
        transitions[0, 1] = -np.inf
    else:
        transitions[:] = -np.inf
    return {
        "emissions": normal(2, 4, 3),
        "tags": np.array([[2, 0, 1, 1], [0, 1, 0, 1]], "int32"),
        "transitions": transitions,
        "start": np.zeros(3, "float32"),
        "end": np.zeros(3, "float32"),
        "mask": np.ones((2, 4), bool),
    }


@pytest.mark.parametrize("name", ["this sequence", "every sequence"])
def test_a_forbidden_sequence_has_likelihood_minus_infinity_and_teaches_nothing(name):
    given = impossible(name)
    assert array(likelihood(**given)).tolist() == [-np.inf, -np.inf]
    for gradient in gradients_of(given, plain_sum):
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_and_single_precision_computed(dtype):
    given = chains(8, 6, 3, scale=20.0)
    halves = {name: ops.cast(given[name], dtype) for name in SCORES}
    value = likelihood(**{**given, **halves})
    widened = {name: array(ops.cast(half, "float32")) for name, half in halves.items()}
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(array(value), likelihoods(**{**given, **widened}), atol=1e-4)


def test_compiled_the_likelihood_is_the_same():
    given = chains(8, 6, 3)
    np.testing.assert_allclose(
        array(compiled(log_likelihood)(**given)), array(log_likelihood(**given)), rtol=1e-5, atol=1e-6
    )


# --- bad input ------------------------------------------------------------------------------------------------


def spoiled(name):
    """Chains of which row 2 is bad."""
    given = chains(4, 4, 3)
    given["mask"][:] = True
    if name == "mask":
        given["mask"][2, 1] = False
    else:
        given["tags"][2, 1] = {"tags above": 3, "tags below": -2}[name]
    return given


BAD = ["tags above", "tags below", "mask"]


@pytest.mark.parametrize("name", BAD)
def test_bad_tags_and_masks_with_holes_are_named(name):
    with pytest.raises(ValueError, match=name.split()[0]):
        log_likelihood(**spoiled(name))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Only TensorFlow has graphs that are not compiled by XLA")
@pytest.mark.parametrize("name", BAD)
def test_bad_tags_and_masks_with_holes_are_named_in_a_graph(name):
    import tensorflow as tf

    given = {key: tf.constant(value) for key, value in spoiled(name).items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=name.split()[0]):
        tf.function(log_likelihood)(**given)


@pytest.mark.skipif(BACKEND == "torch", reason="On torch nothing is compiled: errors are raised")
@pytest.mark.parametrize("name", BAD)
def test_compiled_a_bad_row_has_likelihood_nan_and_the_others_theirs(name):
    given = {key: ops.convert_to_tensor(value) for key, value in spoiled(name).items()}
    value = array(compiled(log_likelihood)(**given))
    assert np.isnan(value).tolist() == [False, False, True, False]


def test_shapes_that_do_not_fit_are_named():
    given = chains(4, 5, 3)
    wrong = {
        "emissions": given["emissions"][0],
        "transitions": np.zeros((2, 2)),
        "tags": given["tags"][:, :4],
        "mask": given["mask"][:3],
        "start": np.zeros(2),
        "end": np.zeros((3, 3)),
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            log_likelihood(**{**given, name: value})
    with pytest.raises(ValueError, match="emissions"):
        log_likelihood(np.zeros((0, 5), "int32"), np.zeros((0, 5, 3)), np.zeros((3, 3)))


# --- what the transitions learn -------------------------------------------------------------------------------


def trained(head, emissions, tags, *, steps=10, rate=1e-3, weights=None, settings=QUICK):
    """The head, trained alone on fixed emissions, all sequences in every step."""
    data = [None if x is None else np.concatenate(steps * [x]) for x in (emissions, tags, weights)]
    model = Tagger(keras.layers.Identity(), head)
    model.compile(keras.optimizers.Adam(rate), **settings)
    model.fit(*data[:2], sample_weight=data[2], batch_size=len(tags), shuffle=False, verbose=0)
    return head


def segmentation(samples=16, time=6, seed=0):
    """Random emissions and random legal tags, ragged."""
    rng = np.random.default_rng(seed)
    tags = np.empty((samples, time), "int32")
    for row in tags:
        allowed = LEGAL_START
        for t in range(time):
            row[t] = rng.choice(np.flatnonzero(allowed))
            allowed = LEGAL[row[t]]
    tags[np.arange(time) >= rng.integers(2, time + 1, samples)[:, None]] = PADDING
    return rng.normal(size=(samples, time, 4)).astype("float32"), tags


def test_with_zero_transitions_a_crf_is_softmax():
    emissions, tags = segmentation()
    emissions = np.where((tags != PADDING)[..., None], emissions, -np.inf).astype("float32")
    head = CRF(4)
    head.build(emissions.shape)
    np.testing.assert_allclose(
        array(quick(head.sequence_loss)(tags, emissions)),
        array(quick(Softmax(4).sequence_loss)(tags, emissions)),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(
        array(quick(head.decode)(emissions)[0]), array(quick(Softmax(4).decode)(emissions)[0])
    )
    one_hot = np.where((tags != PADDING)[..., None], np.eye(4)[tags], 0)
    p = np.where((tags != PADDING)[..., None], np.exp(log_softmax(array(head.unpack(emissions)[0]), -1)), 0)
    (gradient,) = gradients(lambda e: ops.sum(head.sequence_loss(tags, e)), emissions)
    np.testing.assert_allclose(gradient, p - one_hot, atol=1e-6)
    np.testing.assert_allclose(array(quick(head.marginals)(emissions)), p, atol=1e-6)


@pytest.mark.parametrize("margin", [0, 2, 4, 6, 8, 10])
def test_the_gradient_of_the_transitions_vanishes_with_the_margin_of_the_emissions(margin):
    # One move, zero transitions: both tags are right with probability q each, so the pair is right with q².
    K, tags = 4, np.array([[0, 2]])
    given = {name: np.zeros((K,) * (1 + (name == "transitions")), "float32") for name in SCORES}
    given |= {
        "emissions": (margin * np.eye(K)[tags]).astype("float32"),
        "tags": tags,
        "mask": np.full((1, 2), True),
    }
    q = np.exp(margin) / (np.exp(margin) + K - 1)
    gradient = gradients_of(given)[1]
    assert np.abs(gradient).sum() == pytest.approx(2 * (1 - q**2), rel=1e-3, abs=1e-6)
    assert gradient[0, 2] == pytest.approx(1 - q**2, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("multiplier", [1, 100])
def test_under_adam_no_score_moves_further_than_steps_times_rate_times_multiplier(multiplier):
    steps, rate = 10, 1e-4
    start = normal(4, 4)
    head = CRF(4, transitions_initializer=start, learning_rate_multiplier=multiplier)
    trained(head, *segmentation(), steps=steps, rate=rate)
    moved = np.abs(array(head.transitions) - start).max() / (steps * rate * multiplier)
    assert 0.5 < moved <= 1.001


def test_a_small_learning_rate_leaves_the_transitions_at_their_random_start():
    start = normal(4, 4)
    head = CRF(4, transitions_initializer=start)
    trained(head, *segmentation(), steps=10, rate=1e-5)
    assert np.corrcoef(array(head.transitions).ravel(), start.ravel())[0, 1] > 0.99999


def test_a_crf_learns_the_chain_that_made_the_tags():
    # Every sequence of 4 tags, weighted by its probability: the expected loss, so the optimum is the chain itself.
    K, T = 3, 4
    truth = {"transitions": 2 * normal(K, K), "start": normal(K, seed=1), "end": normal(K, seed=2)}
    every = np.array(list(itertools.product(range(K), repeat=T)), "int32")
    nothing = np.zeros((len(every), T, K), "float32")
    log_p = array(likelihood(every, nothing, **truth))
    head = CRF(K, boundaries=True)
    trained(head, nothing, every, steps=250, rate=0.1, weights=len(every) * np.exp(log_p), settings={})
    np.testing.assert_allclose(-array(quick(head.sequence_loss)(every, nothing)), log_p, atol=0.02)
    # Scores of moves are fixed up to what start and end can undo: the cross differences are what a chain knows.
    np.testing.assert_allclose(crossed(array(head.transitions)), crossed(truth["transitions"]), atol=0.02)


def crossed(g):
    """g_ii + g_jj − g_ij − g_ji for all i, j."""
    return np.diag(g)[:, None] + np.diag(g) - g - g.T


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="Keras has MultiOptimizer from 3.15 on")
def test_the_multiplier_does_what_an_optimizer_of_its_own_does():
    emissions, tags = segmentation()
    rates = keras.optimizers.OptimizerMap(keras.optimizers.Adam(1e-3))
    rates[".*crf/.*"] = keras.optimizers.Adam(0.1)
    optimizers = {1: keras.optimizers.MultiOptimizer(rates), 100: keras.optimizers.Adam(1e-3)}
    transitions, kernels = [], []
    for multiplier, optimizer in optimizers.items():
        dense = keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(0))
        model = Tagger(dense, CRF(4, learning_rate_multiplier=multiplier, name="crf"))
        model.compile(optimizer, **QUICK)
        model.fit(emissions, tags, epochs=10, batch_size=len(tags), verbose=0)
        transitions.append(array(model.head.transitions))
        kernels.append(array(dense.kernel))
    assert np.abs(transitions[0]).max() > 0.5
    np.testing.assert_allclose(*transitions, atol=3e-5)
    np.testing.assert_allclose(*kernels, atol=3e-5)


# --- legal moves ----------------------------------------------------------------------------------------------


def illegal_moves(tags):
    """Number of moves in decoded tags (batch, time) that are illegal, boundaries included."""
    illegal = 0
    for row in tags:
        y = row[row != PADDING]
        illegal += (not LEGAL_START[y[0]]) + (not LEGAL_END[y[-1]])
        illegal += sum(not LEGAL[i, j] for i, j in itertools.pairwise(y))
    return illegal


@pytest.mark.parametrize("multiplier", [0, 1000])
def test_masking_illegal_moves_at_decoding_removes_them_all_whatever_the_learning_rate(multiplier):
    head = trained(CRF(4, learning_rate_multiplier=multiplier), *segmentation(), rate=1e-3)
    emissions, tags = segmentation(64, 8, seed=1)
    emissions, mask = 5 * emissions, tags != PADDING
    free = array(quick(head.decode)(emissions, mask)[0])
    rules = [np.where(legal, 0, -np.inf).astype("float32") for legal in (LEGAL, LEGAL_START, LEGAL_END)]
    transitions = array(head.transitions) + rules[0]
    hard = quick(crf.viterbi)(emissions, transitions, mask=mask, start=rules[1], end=rules[2])[0]
    assert illegal_moves(free) > 0
    assert illegal_moves(array(hard)) == 0


@pytest.mark.parametrize("scale", [0, 1, 1000])
def test_a_head_with_legal_moves_decodes_legal_sequences_whatever_its_scores(scale):
    emissions, tags = segmentation(64, 8)
    scores = scale * normal(4, 4)
    head = CRF(4, legal=LegalMoves(LEGAL, LEGAL_START, LEGAL_END), transitions_initializer=scores)
    head.build(emissions.shape)
    assert illegal_moves(array(quick(head.decode)(200 * emissions, tags != PADDING)[0])) == 0


def test_a_head_with_legal_moves_shares_the_probability_among_legal_sequences():
    every = np.array(list(itertools.product(range(4), repeat=4)), "int32")
    emissions = np.repeat(normal(1, 4, 4), len(every), axis=0)
    head = CRF(4, legal=LegalMoves(LEGAL, LEGAL_START, LEGAL_END), transitions_initializer=normal(4, 4))
    head.build(emissions.shape)
    log_p = -array(quick(head.sequence_loss)(every, emissions)).astype("float64")
    is_legal = np.array([illegal_moves(y[None]) == 0 for y in every])
    np.testing.assert_array_equal(np.isneginf(log_p), ~is_legal)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    tags, score = map(array, quick(head.decode)(emissions[:1]))
    np.testing.assert_array_equal(tags[0], every[log_p.argmax()])
    p = np.einsum("s,stk->tk", np.exp(log_p), np.eye(4)[every])
    np.testing.assert_allclose(array(quick(head.marginals)(emissions[:1]))[0], p, atol=1e-5)
    best = dict(enumerated(emissions[0], array(head.transitions), *np.zeros((2, 4)), 4))[tuple(tags[0])]
    assert score[0] == pytest.approx(best, rel=1e-6)


# --- the layer in a model -------------------------------------------------------------------------------------


def tokens(samples=32, time=7, seed=0):
    """Ids of which only the move tells the tag: id 1 says «change the tag», id 2 «keep it», 0 is padding."""
    rng = np.random.default_rng(seed)
    tags = np.cumsum(rng.integers(0, 2, (samples, time)), 1) % 2
    ids = np.where(np.diff(tags, axis=1, prepend=0) != 0, 1, 2)
    padded = np.arange(time) >= rng.integers(1, time + 1, samples)[:, None]
    return np.where(padded, 0, ids), np.where(padded, PADDING, tags).astype("int32")


def test_a_crf_in_the_functional_api_trains_and_comes_back_from_a_file_with_its_optimizer(tmp_path):
    def fit(model):
        return model.fit(ids, tags, batch_size=16, shuffle=False, epochs=2, verbose=0).history["loss"]

    keras.utils.set_random_seed(0)
    (ids, tags), inputs = tokens(), keras.Input((None,), dtype="int32")
    head = CRF(3, boundaries=True, learning_rate_multiplier=10)
    emissions = keras.layers.Dense(3)(keras.layers.Embedding(4, 8, mask_zero=True)(inputs))
    model = keras.Model(inputs, head(emissions))
    model.compile(keras.optimizers.Adam(1e-2), loss=head.loss)
    first, last = fit(model)
    assert last < first
    model.save(tmp_path / "crf.keras")
    loaded = keras.models.load_model(tmp_path / "crf.keras")
    np.testing.assert_allclose(fit(loaded), fit(model), rtol=1e-5)
    np.testing.assert_allclose(array(loaded.layers[-1].transitions), array(head.transitions), atol=1e-6)


def test_a_crf_learns_on_top_of_half_precision_layers():
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    try:
        ids, tags = tokens()
        head = CRF(3, boundaries=True)
        model = Tagger(
            keras.Sequential([keras.layers.Embedding(4, 8, mask_zero=True), keras.layers.Dense(3)]), head
        )
        model.compile(keras.optimizers.Adam(1e-2), **QUICK)
        losses = model.fit(ids, tags, epochs=4, batch_size=16, verbose=0).history["loss"]
        assert keras.backend.standardize_dtype(model(ids).dtype) == "float32"
        assert keras.backend.standardize_dtype(head.transitions.dtype) == "float32"
        assert losses[-1] < losses[0]
        np.testing.assert_array_equal(model.predict(ids, verbose=0) == PADDING, ids == 0)
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_crf_answers_questions_to_its_distribution():
    given = chains(3, 4, 3, seed=5)
    lengths = given["mask"].sum(1)
    head = CRF(3, boundaries=True, transitions_initializer=given["transitions"])
    head.build((None, None, 3))
    head._start.assign(given["start"])
    head._end.assign(given["end"])
    f, mask = given["emissions"], given["mask"]
    p, h = array(quick(head.marginals)(f, mask)), array(quick(head.entropy)(f, mask))
    tags, scores = map(array, quick(lambda f, m: head.k_best(f, 3, mask=m))(f, mask))
    drawn = array(quick(lambda f, m: head.sample(f, 3000, seed=0, mask=m))(f, mask))
    for row in (1, 2):
        n = lengths[row]
        every = dict(enumerated(f[row], given["transitions"], given["start"], given["end"], n))
        y, values = np.array(list(every)), np.array(list(every.values()))
        log_p, best = values - logsumexp(values), np.argsort(-values)[:3]
        expected = np.stack([np.exp(log_p) @ (y == tag) for tag in range(3)], axis=1)
        np.testing.assert_allclose(p[row, :n], expected, atol=1e-5)
        assert h[row] == pytest.approx(-np.sum(np.exp(log_p) * log_p), abs=1e-5)
        np.testing.assert_array_equal(tags[row, :, :n], y[best])
        np.testing.assert_allclose(scores[row], values[best], rtol=1e-5, atol=1e-5)
        seen = (drawn[row, :, :n, None] == np.arange(3)).mean(axis=0)
        np.testing.assert_allclose(seen, expected, atol=0.04)
    assert h[0] == 0
    assert not p[~mask].any()
    assert (drawn[0] == -1).all()


def test_unknown_tags_are_summed_out_of_the_loss_of_a_crf():
    emissions, head = normal(1, 3, 3), CRF(3, transitions_initializer=normal(3, 3, seed=1))
    losses = array(head.sequence_loss([[0, tag, 2] for tag in range(3)], np.repeat(emissions, 3, axis=0)))
    assert float(head.sequence_loss([[0, UNKNOWN, 2]], emissions)[0]) == pytest.approx(
        -logsumexp(-losses), rel=1e-5
    )


def test_emissions_that_are_no_numbers_make_the_answers_of_a_head_nan():
    head, emissions = CRF(3), normal(2, 3, 3)
    emissions[1, 1, 1] = np.nan
    assert np.isnan(array(head.marginals(emissions))).any((1, 2)).tolist() == [False, True]
    assert np.isnan(array(head.entropy(emissions))).tolist() == [False, True]
    assert (array(head.decode(emissions)[0])[:, 0] == -1).tolist() == [False, True]
