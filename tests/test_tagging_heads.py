"""Truths about ``lib.tagging.heads``, ``softmax``, ``losses`` and ``decoding``, by listing all tag sequences."""

import itertools
import math
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from numerics import BACKEND, array, compiled, normal
from scipy.special import log_softmax, logsumexp

from lib import chain
from lib.crf import CRF
from lib.memm import MEMM
from lib.tagging import PADDING, SEGMENT_ALPHABET, UNKNOWN, Decode, Head, LegalMoves, Softmax, Tagger, legal_moves

pytestmark = pytest.mark.backends

WORDS = legal_moves(SEGMENT_ALPHABET)
XLA = {"tensorflow": "xla", "jax": "jit"}.get(BACKEND)
only_where_no_value_can_raise = pytest.mark.skipif(XLA is None, reason="torch computes eagerly")


@keras.saving.register_keras_serializable(package="tests")
class Chain(Head):
    """The least that a head with moves must give."""

    def potentials(self, emissions, mask=None):
        return chain.checked(emissions, self.transitions, mask=mask, start=self.start, end=self.end)

    def log_likelihood(self, tags, emissions, mask=None):
        scores = {"mask": mask, "start": self.start, "end": self.end}
        known = chain.sequence_score(tags, emissions, self.transitions, **scores)
        return known - chain.log_partition(emissions, self.transitions, **scores)

    def best_path(self, emissions, mask=None):
        return chain.viterbi(emissions, self.transitions, mask=mask, start=self.start, end=self.end)


MOVES = normal(3, 3, seed=5)
ENDS = LegalMoves(np.ones((3, 3)), np.array([1, 1, 0]), np.array([1, 0, 1]))
#: Each with its transitions and its scores of start and end, in NumPy.
HEADS = {
    "softmax": (lambda: Softmax(3), np.zeros((3, 3)), np.zeros(3), np.zeros(3)),
    "moves": (lambda: Chain(3, transitions_initializer=MOVES), MOVES, np.zeros(3), np.zeros(3)),
    "rules": (
        lambda: Chain(3, transitions_initializer=MOVES, legal=ENDS, boundaries=True),
        *(MOVES, np.array([0, 0, -np.inf]), np.array([0, -np.inf, 0])),
    ),
}
every_head = pytest.mark.parametrize("name", HEADS)
LENGTHS = [4, 1, 3]


def packed(seed=0):
    """Emissions of three texts of unlike length, padded steps at −∞."""
    emissions = normal(3, 4, 3, seed=seed)
    return np.where(np.arange(4)[:, None] < np.array(LENGTHS)[:, None, None], emissions, -np.inf)


def listed(name, emissions, length):
    """All tag sequences of one text and their log-probabilities."""
    _, moves, start, end = HEADS[name]
    sequences = list(itertools.product(range(3), repeat=length))
    scores = [
        start[y[0]]
        + end[y[-1]]
        + sum(emissions[t, y[t]] for t in range(length))
        + sum(moves[i, j] for i, j in itertools.pairwise(y))
        for y in sequences
    ]
    return sequences, np.array(scores, "float64") - logsumexp(scores)


# --- questions to the distribution ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Softmax, CRF, MEMM])
def test_a_head_that_is_given_a_mask_keeps_it_without_a_warning(kind):
    words = keras.Input((None,), dtype="int32")
    emissions = keras.layers.Embedding(9, 3, mask_zero=True)(words)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tags = keras.Model(words, Decode(kind(3))(emissions))(np.array([[1, 2, 0]]))
    assert (array(tags) == PADDING).tolist() == [[False, False, True]]


@every_head
def test_marginals_are_sums_over_all_sequences(name):
    emissions = packed()
    found = array(HEADS[name][0]().marginals(emissions))
    assert found.shape == (3, 4, 3)
    for row, (p, length) in enumerate(zip(found, LENGTHS, strict=True)):
        sequences, log_p = listed(name, emissions[row], length)
        expected = np.zeros((4, 3))
        for y, probability in zip(sequences, np.exp(log_p), strict=True):
            expected[np.arange(length), y] += probability
        np.testing.assert_allclose(p, expected, atol=2e-6)


@every_head
def test_entropy_is_that_of_all_sequences(name):
    emissions = packed()
    expected = []
    for row, length in enumerate(LENGTHS):
        log_p = listed(name, emissions[row], length)[1]
        log_p = log_p[log_p > -np.inf]
        expected.append(-np.sum(np.exp(log_p) * log_p))
    np.testing.assert_allclose(array(HEADS[name][0]().entropy(emissions)), expected, rtol=1e-5)


@every_head
@pytest.mark.parametrize("k", [1, 5])
def test_the_k_best_are_the_first_of_all_sequences_in_order(name, k):
    emissions, head = packed(), HEADS[name][0]()
    tags, scores = map(array, head.k_best(emissions, k))
    assert tags.shape == (3, k, 4)
    assert tags.dtype == np.int32
    for row, length in enumerate(LENGTHS):
        sequences, log_p = listed(name, emissions[row], length)
        order = [i for i in np.argsort(-log_p) if log_p[i] > -np.inf][:k]
        expected = np.full((k, 4), PADDING)
        expected[: len(order), :length] = [sequences[i] for i in order]
        np.testing.assert_array_equal(tags[row], expected)
        np.testing.assert_allclose(np.diff(scores[row, : len(order)]), np.diff(log_p[order]), atol=1e-5)
    best, score = map(array, head.decode(emissions))
    np.testing.assert_array_equal(tags[:, 0], best)
    np.testing.assert_allclose(scores[:, 0], score, rtol=1e-5)


@every_head
def test_samples_are_as_frequent_as_they_are_probable(name):
    emissions, count = packed(), 4000
    head = HEADS[name][0]()
    tags = array(head.sample(emissions, count, seed=3))
    assert tags.shape == (3, count, 4)
    np.testing.assert_array_equal(tags, array(head.sample(emissions, count, seed=3)))
    for row, length in enumerate(LENGTHS):
        assert (tags[row, :, length:] == PADDING).all()
        sequences, log_p = listed(name, emissions[row], length)
        for y, p in zip(sequences, np.exp(log_p), strict=True):
            share = (tags[row, :, :length] == y).all(1).mean()
            assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / count)


def test_hard_rules_of_a_softmax_are_in_its_decoder_and_not_in_its_distribution():
    emissions = normal(4, 3, 4)
    ruled, free = Softmax(4, legal=WORDS), Softmax(4)
    for question in ("marginals", "entropy"):
        np.testing.assert_array_equal(
            array(getattr(ruled, question)(emissions)), array(getattr(free, question)(emissions))
        )
    tags, scores = map(array, ruled.k_best(emissions, 20))
    log_p = log_softmax(emissions.astype("float64"), -1)
    for row in range(4):
        allowed = [
            y
            for y in itertools.product(range(4), repeat=3)
            if WORDS.start[y[0]]
            and WORDS.end[y[-1]]
            and all(WORDS.transitions[i, j] for i, j in itertools.pairwise(y))
        ]
        allowed.sort(key=lambda y: -log_p[row, range(3), y].sum())
        assert tags[row, : len(allowed)].tolist() == [list(y) for y in allowed]
        np.testing.assert_allclose(
            scores[row, : len(allowed)], [log_p[row, range(3), y].sum() for y in allowed], rtol=1e-5
        )
        assert np.isneginf(scores[row, len(allowed) :]).all()


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "2"])
def test_a_number_of_sequences_is_a_positive_integer(number):
    for head in (Softmax(3), HEADS["moves"][0]()):
        with pytest.raises(ValueError, match="k must be a positive integer"):
            head.k_best(packed(), number)
        with pytest.raises(ValueError, match="count must be a positive integer"):
            head.sample(packed(), number)


# --- tags that are not known ----------------------------------------------------------------------------------


def test_a_softmax_learns_nothing_from_a_tag_that_is_not_known():
    emissions, tags = normal(5, 4, 3), np.random.default_rng(0).integers(0, 3, (5, 4))
    unknown = np.random.default_rng(1).random((5, 4)) < 0.4
    single = -np.take_along_axis(log_softmax(emissions.astype("float64"), -1), tags[..., None], -1)[..., 0]
    given = np.where(unknown, UNKNOWN, tags)
    for targets in (given, given.astype("float32")):  # as Keras casts them
        loss = array(Softmax(3).sequence_loss(targets, emissions))
        np.testing.assert_allclose(loss, np.where(unknown, 0, single).sum(1), rtol=1e-6)


def test_unknown_tags_at_padded_steps_are_nothing_and_a_text_of_them_has_loss_zero():
    emissions = packed()
    tags = np.array([[0, UNKNOWN, 1, 2], [1, UNKNOWN, UNKNOWN, UNKNOWN], [UNKNOWN] * 4])
    padded = np.array([[0, UNKNOWN, 1, 2], [1, PADDING, PADDING, PADDING], [UNKNOWN] * 3 + [PADDING]])
    loss = array(Softmax(3).sequence_loss(tags, emissions))
    np.testing.assert_array_equal(loss, array(Softmax(3).sequence_loss(padded, emissions)))
    assert loss[2] == 0.0
    assert (loss[:2] > 0).all()


@pytest.mark.parametrize("name", ["moves", "rules"])
def test_a_crf_gives_the_known_tags_the_sum_over_all_others(name):
    emissions, crf = packed(), CRF.from_config(HEADS[name][0]().get_config())
    tags = np.array([[0, UNKNOWN, 1, UNKNOWN], [UNKNOWN, UNKNOWN, PADDING, PADDING], [UNKNOWN, 1, 0, UNKNOWN]])
    expected = []
    for row, length in enumerate(LENGTHS):
        sequences, log_p = listed(name, emissions[row], length)
        known = [t for t in range(length) if tags[row, t] >= 0]
        fits = [all(y[t] == tags[row, t] for t in known) for y in sequences]
        expected.append(-logsumexp(log_p[fits]))
    np.testing.assert_allclose(array(crf.sequence_loss(tags, emissions)), expected, atol=2e-6)


# --- padding, masks and targets -------------------------------------------------------------------------------

HOLES = np.array([[True, False, True, True]] * 3)


@every_head
def test_a_mask_with_holes_is_refused(name):
    head, emissions = HEADS[name][0](), normal(3, 4, 3)
    holes = np.where(HOLES[..., None], emissions, -np.inf)
    for ask in (head.decode, head.marginals, lambda *e: head.k_best(e[0], 2, mask=e[1] if len(e) > 1 else None)):
        for given in ((emissions, HOLES), (holes,)):
            with pytest.raises(ValueError, match="mask must be True on a prefix of each row"):
                ask(*given)


@only_where_no_value_can_raise
@every_head
def test_a_mask_with_holes_gives_no_tags_where_no_error_can_be_raised(name):
    head, emissions = HEADS[name][0](), normal(3, 4, 3)
    head.ensure_built()
    mask = HOLES | (np.arange(3) > 0)[:, None]
    tags, score = map(
        array, compiled(lambda e, m: head.decode(e, m), XLA)(*map(ops.convert_to_tensor, (emissions, mask)))
    )
    assert (tags[0] == PADDING).all()
    assert np.isnan(score).tolist() == [True, False, False]
    np.testing.assert_array_equal(tags[1:], array(head.decode(emissions)[0])[1:])


@only_where_no_value_can_raise
def test_a_mask_of_other_numbers_gives_nan_where_no_error_can_be_raised():
    head, emissions = Softmax(3), normal(2, 2, 3)
    mask = np.array([[1.0, 1.0], [0.0, -1e4]], "float32")
    tags, score = compiled(lambda e, m: head.decode(e, m), XLA)(*map(ops.convert_to_tensor, (emissions, mask)))
    assert np.isnan(array(score)).tolist() == [False, True]
    assert (array(tags)[1] == PADDING).all()
    layer = compiled(lambda e, m: head(e, mask=m), XLA)(*map(ops.convert_to_tensor, (emissions, mask)))
    assert np.isnan(array(layer)).all((1, 2)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 5), bool), r"mask must have shape \(3, 4\) to fit emissions, got \(3, 5\)"),
        (np.ones((1, 4), bool), r"mask must have shape \(3, 4\) to fit emissions, got \(1, 4\)"),
        (np.ones(4, bool), r"mask must have shape \(3, 4\) to fit emissions, got \(4,\)"),
        (np.ones((3, 4, 1), bool), r"mask must have shape \(3, 4\) to fit emissions, got \(3, 4, 1\)"),
        (np.array([["False"] * 4] * 3), "mask must be a tensor of numbers"),
        (np.array([[0.0, 0.0, -1e4, -1e4]] * 3), "mask must hold True or 1"),
        (np.array([[1.0, 1.0, np.nan, 0.0]] * 3), "mask must hold True or 1"),
    ],
)
def test_a_mask_is_one_thing(mask, message):
    emissions = normal(3, 4, 3)
    for call in (lambda h: h.decode(emissions, mask), lambda h: h.marginals(emissions, mask)):
        for name in HEADS:
            with pytest.raises(ValueError, match=message):
                call(HEADS[name][0]())
    if mask.dtype.kind != "U":  # which Keras makes no tensor of, on JAX and torch
        with pytest.raises(ValueError, match=message):
            Softmax(3)(ops.convert_to_tensor(emissions), mask=mask)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_a_mask_of_zeros_and_ones_may_be_of_any_numbers(dtype):
    mask = (np.arange(4) < np.array(LENGTHS)[:, None]).astype(dtype)
    emissions = normal(3, 4, 3)
    np.testing.assert_array_equal(array(Softmax(3)(emissions, mask=mask)), packed())
    np.testing.assert_array_equal(
        array(Softmax(3).decode(emissions, mask)[0]), array(Softmax(3).decode(packed())[0])
    )


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (None, "tags must be a tensor of numbers, got None"),
        ([["B", "I", "O", "O"]] * 3, "tags must be a tensor of numbers"),
        (np.zeros((3, 5), "int32"), r"tags must have shape \(3, 4\) to fit emissions, got \(3, 5\)"),
        (np.zeros((3, 1), "int32"), r"tags must have shape \(3, 4\) to fit emissions, got \(3, 1\)"),
        (np.zeros(3, "int32"), r"tags must have shape \(3, 4\) to fit emissions, got \(3,\)"),
        (np.zeros((3, 4), bool), "tags must hold integers or unsigned integers or floats, got bool"),
        (np.zeros((3, 4), "complex64"), "tags must hold"),
        (np.full((3, 4), 3), "tags must be integers from 0 to 2"),
        (np.full((3, 4), -3), "tags must be integers from 0 to 2"),
        (np.full((3, 4), np.nan), "tags must be integers from 0 to 2"),
        (
            [[0, PADDING, 0, 0]] * 3,
            "tags must be -1 only behind the last tag of a sequence, got tags behind it in rows",
        ),
        ([[0, PADDING, UNKNOWN, 0]] * 3, "tags must be -1 only behind the last tag"),
    ],
)
def test_what_is_no_target_is_refused_by_name(tags, message):
    for loss in (Softmax(3).sequence_loss, Softmax(3).loss):
        with pytest.raises(ValueError, match=message):
            loss(tags, normal(3, 4, 3))


@pytest.mark.parametrize("head", [Softmax, CRF, MEMM], ids=lambda head: head.__name__)
def test_a_likelihood_refuses_tags_of_text_by_name(head):
    for tags in ([["a"] * 4] * 3, None, np.ma.masked_array(np.zeros((3, 4), int), np.eye(3, 4))):
        with pytest.raises(ValueError, match="tags must be"):
            head(3).log_likelihood(tags, normal(3, 4, 3))


@pytest.mark.parametrize(
    ("emissions", "message"),
    [
        (None, "emissions must be a tensor of numbers, got None"),
        ([[["a", "b", "c"]]], "emissions must be a tensor of numbers"),
        ([[[0.0, 1.0, 2.0]], [[0.0], [1.0]]], "emissions must be a rectangular array of numbers"),
        (np.zeros((1, 2, 3), "complex64"), "emissions must hold"),
        (
            np.zeros((1, 2, 4)),
            r"emissions must have shape \(batch, time, tags\) with tags = 3, got shape \(1, 2, 4\)",
        ),
        (np.zeros((2, 3)), r"emissions must have shape \(batch, time, tags\) with tags = 3, got shape \(2, 3\)"),
    ],
)
def test_what_is_no_emissions_is_refused_by_name(emissions, message):
    for name in HEADS:
        head = HEADS[name][0]()
        for ask, more in ((head.decode, ()), (head.marginals, ()), (head.sample, (2,)), (head.k_best, (2,))):
            with pytest.raises(ValueError, match=message):
                ask(emissions, *more)
        with pytest.raises(ValueError, match=message):
            head.sequence_loss([[0, 1]], emissions)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_built_for_its_number_of_tags(name):
    with pytest.raises(ValueError, match=r"with tags = 3, got shape \(None, None, 4\)"):
        HEADS[name][0]().build((None, None, 4))


def test_scores_keep_their_digits_where_layers_compute_in_half_precision():
    transitions = np.array([[1.0, 1.0001], [1.0001, 1.0]])  # one number in float16
    head = CRF(2, transitions_initializer=transitions, dtype="mixed_float16")
    decode = Decode(head, dtype="mixed_float16")
    assert array(decode(np.zeros((1, 4, 2), "float32")))[0].tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_nan_emissions_have_no_tags():
    emissions = normal(2, 3, 3)
    emissions[0, 1, 2] = np.nan
    for name in HEADS:
        tags, score = map(array, HEADS[name][0]().decode(emissions))
        assert tags[0].tolist() == [PADDING] * 3, name
        assert np.isnan(score).tolist() == [True, False]


@only_where_no_value_can_raise
def test_wrong_targets_give_nan_where_no_error_can_be_raised():
    emissions = normal(5, 2, 3)
    tags = np.array([[0, 3], [-1, 0], [0, -5], [-1, -100], [0, -100]])
    loss = array(compiled(Softmax(3).sequence_loss, XLA)(*map(ops.convert_to_tensor, (tags, emissions))))
    assert np.isnan(loss).tolist() == [True, True, True, True, False]


# --- heads that were not built --------------------------------------------------------------------------------


def test_a_head_is_built_by_the_first_use_of_its_scores():
    emissions = packed()
    for name in HEADS:
        ready = HEADS[name][0]()
        ready.build((None, None, 3))
        for ask in (
            lambda head: head.decode(emissions)[0],
            lambda head: head.marginals(emissions),
            lambda head: head.k_best(emissions, 2)[0],
            lambda head: head.sample(emissions, 2, seed=1),
            lambda head: head.sequence_loss([[0, 1, 1, 0], [1, -1, -1, -1], [0, 0, 0, -1]], emissions),
            lambda head: head.loss([[0, 1, 1, 0], [1, -1, -1, -1], [0, 0, 0, -1]], emissions),
            lambda head: head.transitions,
        ):
            head = HEADS[name][0]()
            np.testing.assert_array_equal(array(ask(head)), array(ask(ready)))
    bounded = HEADS["rules"][0]()
    np.testing.assert_array_equal(array(bounded.start), [0, 0, -np.inf])
    np.testing.assert_array_equal(array(HEADS["rules"][0]().end), [0, -np.inf, 0])


@only_where_no_value_can_raise
def test_a_head_is_built_also_by_a_compiled_use():
    head = HEADS["moves"][0]()
    tags = array(compiled(lambda e: head.decode(e)[0], XLA)(ops.convert_to_tensor(packed().astype("float32"))))
    np.testing.assert_array_equal(tags, array(head.decode(packed())[0]))
    np.testing.assert_array_equal(array(head.transitions), MOVES)


# --- precision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_a_head_works_in_float32_whatever_the_policy(policy):
    emissions = np.array(
        [[[1.0, 1.0009765, -7e4], [-7e4, -7.1e4, -8e4]]], "float32"
    )  # equal, −inf in half precision
    keras.config.set_dtype_policy(policy)
    try:
        head = Chain(3, transitions_initializer=MOVES * 1e-4)
        inputs = keras.Input((2, 3), dtype="float32")
        model = keras.Model(inputs, head(inputs))
        decoder = keras.Model(inputs, Decode(head)(head(inputs)))
        found = [head(ops.convert_to_tensor(emissions)), model(ops.convert_to_tensor(emissions))]
        tags = array(decoder(ops.convert_to_tensor(emissions)))
        model.compile("sgd", loss=head.loss, jit_compile=False)
        loss = model.evaluate(emissions, np.array([[1, 0]]), verbose=0)
        assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
    for out in found:
        np.testing.assert_array_equal(array(out), emissions)
    assert tags.tolist() == [[1, 0]]
    assert keras.backend.standardize_dtype(head.transitions.dtype) == "float32"
    np.testing.assert_array_equal(array(head.transitions), (MOVES * 1e-4).astype("float32"))
    expected = array(Chain(3, transitions_initializer=MOVES * 1e-4).sequence_loss([[1, 0]], emissions))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


# --- weights of sequences -------------------------------------------------------------------------------------


def functional(head, batch, time):
    inputs = keras.Input((time, 3))
    model = keras.Model(inputs, head(inputs))
    model.compile("sgd", loss=head.loss)
    return model, normal(batch, time, 3), np.random.default_rng(1).integers(0, 3, (batch, time))


@pytest.mark.parametrize(("batch", "time"), [(4, 4), (1, 3), (3, 5), (4, 2)])
def test_weights_of_single_steps_are_refused_whatever_the_sizes(batch, time):
    for build in (functional, tagger):
        model, emissions, tags = build(Softmax(3), batch, time)
        with pytest.raises(ValueError, match=r"sample_weight must have shape \(batch,\), one a sequence"):
            model.fit(emissions, tags, sample_weight=np.ones((batch, time)), batch_size=batch, verbose=0)


def tagger(head, batch, time):
    model = Tagger(keras.layers.Identity(), head)
    model.compile("sgd")
    return model, normal(batch, time, 3), np.random.default_rng(1).integers(0, 3, (batch, time))


@pytest.mark.parametrize("build", [functional, tagger])
def test_one_weight_a_sequence_multiplies_its_loss(build):
    head = Softmax(3)
    model, emissions, tags = build(head, 4, 3)
    weight = np.array([0.0, 2.0, 1.0, 0.5])
    expected = np.mean(weight * array(head.sequence_loss(tags, emissions)))
    for given in (weight, weight[:, None]):
        assert model.evaluate(emissions, tags, sample_weight=given, verbose=0) == pytest.approx(expected, rel=1e-5)
    loss = head.loss(tags, emissions, sample_weight=weight)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for wrong in (np.ones(3), np.ones(()), np.ones((4, 2)), np.ones((1, 4))):
        with pytest.raises(ValueError, match="sample_weight must have shape"):
            head.loss(tags, emissions, sample_weight=wrong)


def test_weights_of_single_steps_are_refused_after_a_model_has_seen_others():
    model, emissions, tags = functional(Softmax(3), 4, 3)
    for weight in (np.ones(4), np.ones((4, 1))):
        model.evaluate(emissions, tags, sample_weight=weight, verbose=0)
    if keras.backend.backend() == "tensorflow" and model.jit_compile:  # as on a GPU: nothing can raise
        assert np.isnan(model.evaluate(emissions, tags, sample_weight=np.ones((4, 3)), verbose=0))
        return
    with pytest.raises(Exception, match=r"sample_weight must have shape \(batch,\)"):
        model.evaluate(emissions, tags, sample_weight=np.ones((4, 3)), verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere every call knows its shapes")
@pytest.mark.parametrize("steps", [3, 1])
def test_weights_of_single_steps_make_a_loss_nan_under_xla(steps):
    model, emissions, tags = functional(Softmax(3), 4, 3)
    model.compile("sgd", loss=model.layers[-1].loss, jit_compile=True)
    for weight in (np.ones(4), np.ones((4, 1))):
        assert model.evaluate(emissions, tags, sample_weight=weight, verbose=0) > 0
    value = model.evaluate(emissions, tags, sample_weight=np.ones((4, steps)), verbose=0)
    assert np.isnan(value) == (steps > 1)


def test_class_weights_are_refused():
    model, emissions, tags = tagger(Softmax(3), 4, 3)
    for call in (
        lambda: model.fit(emissions, tags, class_weight={0: 1.0, 1: 2.0}, verbose=0),
        lambda: model.train_on_batch(emissions, tags, class_weight={0: 1.0}),
        lambda: model.train_on_batch(emissions, tags, None, {0: 1.0}),
    ):
        with pytest.raises(ValueError, match="class_weight must be left out: a sequence of tags is of no class"):
            call()
    model.fit(emissions, tags, class_weight=None, verbose=0)


def test_loss_weights_and_padding_that_is_no_number_are_refused():
    with pytest.raises(ValueError, match="loss_weights must be left out"):
        tagger(Softmax(3), 4, 3)[0].compile("sgd", loss_weights=[2.0])
    with pytest.raises(ValueError, match="padding must be a finite number, got '0'"):
        Tagger(keras.layers.Identity(), Softmax(3), padding="0")
    with pytest.raises(ValueError, match=r"padding must be None unless x is one tensor \(batch, time\)"):
        Tagger(keras.layers.Identity(), Softmax(3), padding=0)(normal(2, 3, 3))


def test_a_softmax_has_nothing_to_learn():
    for argument in ({"boundaries": True}, {"transitions_initializer": "ones"}, {"learning_rate_multiplier": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(argument))} must be left out"):
            Softmax(3, **argument)
