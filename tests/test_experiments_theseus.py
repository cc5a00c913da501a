"""The experiments of chapter 9: comparisons on the same items, and networks of blocks that replace each other."""

from itertools import chain, combinations, product
from math import comb

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops

from lib.experiments.theseus import images
from lib.experiments.theseus.comparison import (
    kl_divergence,
    linear_cka,
    mcnemar,
    pack,
    unpack,
)

# --- comparison: answers in a record ----------------------------------------------------------------------


@given(st.lists(st.booleans()))
def test_unpacked_answers_are_the_packed_ones(bits):
    text = pack(np.array(bits, bool))
    assert len(text) == 2 * -(-len(bits) // 8)
    assert unpack(text, len(bits)).tolist() == bits


@pytest.mark.parametrize("bits", [[0, 2], [[0, 1]], [0.5]])
def test_only_vectors_of_0_and_1_are_packed(bits):
    with pytest.raises(ValueError, match="bits: got"):
        pack(bits)


@pytest.mark.parametrize("count", [-1, 8, 17])
def test_a_text_holds_only_so_many_answers(count):
    with pytest.raises(ValueError, match="hexadecimal digits hold 16 bits"):
        unpack("a080", count)


# --- comparison: McNemar's test -------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 1), (1, 5), (3, 3), (0, 9), (12, 4)])
def test_mcnemar_sums_all_outcomes_that_are_no_likelier(only_a, only_b):
    a = np.r_[np.ones(only_a), np.zeros(only_b), 1, 1, 0]
    b = np.r_[np.zeros(only_a), np.ones(only_b), 1, 1, 0]
    n = only_a + only_b
    expected = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, only_a)) / 2**n
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(b, a) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_rejects_equal_classifiers_in_at_most_one_case_of_twenty():
    rng = np.random.default_rng(0)
    p = [mcnemar(*(rng.random((2, 60)) < 0.8)) for _ in range(1000)]
    assert 0.01 < np.mean(np.array(p) <= 0.05) <= 0.05


def test_mcnemar_wants_the_same_items():
    with pytest.raises(ValueError, match=r"correct_b: got shape \(2,\); expected that of correct_a, \(3,\)"):
        mcnemar([1, 0, 1], [1, 0])


# --- comparison: nearness ---------------------------------------------------------------------------------

logits = arrays("float64", (5, 3), elements=st.floats(-20, 20))


@given(logits, logits)
def test_the_divergence_is_the_sum_of_p_log_p_over_q(a, b):
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (a, b))
    np.testing.assert_allclose(kl_divergence(a, b), np.sum(p * np.log(p / q)) / 5, rtol=1e-9, atol=1e-12)


@given(logits, logits)
def test_the_divergence_is_not_negative_and_ignores_a_shift_of_the_logits(a, b):
    value = kl_divergence(a, b)
    assert value >= -1e-12
    assert kl_divergence(a + 7, b - 3) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert kl_divergence(a, a) == 0


def test_the_divergence_of_sure_predictions_is_finite():
    assert kl_divergence([[1000.0, 0.0]], [[0.0, 1000.0]]) == pytest.approx(1000)


@pytest.mark.parametrize("y", [np.ones((4, 2)), np.ones(3)])
def test_the_divergence_wants_two_matrices_of_one_shape(y):
    with pytest.raises(ValueError, match="student_logits"):
        kl_divergence(np.ones((4, 3)), y)


def test_cka_is_that_of_the_centred_gram_matrices():
    rng = np.random.default_rng(7)
    X, Y = rng.standard_normal((20, 6)), rng.standard_normal((20, 3))
    H = np.eye(20) - 1 / 20  # Kornblith et al., equation 3, with K = XXᵀ and L = YYᵀ

    def hsic(K, L):
        return np.trace(K @ H @ L @ H)

    K, L = X @ X.T, Y @ Y.T
    assert linear_cka(X, Y) == pytest.approx(hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L)), rel=1e-10)


def test_cka_ignores_rotations_shifts_and_scale_but_not_single_directions():
    rng = np.random.default_rng(8)
    X, Y = rng.standard_normal((50, 6)), rng.standard_normal((50, 4))
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert linear_cka(X @ Q * 3 + 5, Y) == pytest.approx(linear_cka(X, Y), rel=1e-10)
    assert linear_cka(X, X @ Q) == pytest.approx(1)
    assert linear_cka(X, X * np.array([100, 1, 1, 1, 1, 1])) < 0.9
    assert 0 < linear_cka(X, Y) < 0.5


def test_cka_of_columns_without_any_relation_is_zero():
    X = np.array([[1.0], [1], [-1], [-1]])
    Y = np.array([[1.0], [-1], [1], [-1]])
    assert linear_cka(X, Y) == pytest.approx(0, abs=1e-12)


def test_cka_wants_items_that_differ():
    with pytest.raises(ValueError, match="Y: got the same features for all items"):
        linear_cka(np.arange(6.0).reshape(3, 2), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"X, Y: got shapes \(3, 2\), \(4, 2\)"):
        linear_cka(np.ones((3, 2)), np.ones((4, 2)))


# --- images: the nets and how they are trained ------------------------------------------------------------

QUICK = {"images": 300, "known": 400, "steps": 8, "old_steps": 6}


@pytest.fixture
def eagerly():
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def eager(test):
    """A few steps are taken sooner than compiled."""
    quiet = pytest.mark.filterwarnings("ignore:Even though the `tf.config")
    return pytest.mark.usefixtures("eagerly")(quiet(test))


def flat(modules):
    return [weight for module in modules for layer in module for weight in layer.get_weights()]


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 0, "atol": 1e-6, **tolerance})


def test_settings_are_chosen_on_images_that_train_and_test_leave_out():
    (train, test), (fewer, dev) = images.parts(), images.parts(dev=True)
    np.testing.assert_array_equal(np.concatenate([fewer.pixels, dev.pixels]), train.pixels)
    np.testing.assert_array_equal(np.concatenate([fewer.labels, dev.labels]), train.labels)
    assert len(test.labels) == 2000


@pytest.mark.parametrize(("count", "dev"), [(0, False), (8001, False), (6501, True)])
def test_no_more_images_are_drawn_than_there_are(count, dev):
    with pytest.raises(ValueError, match=f"images: got {count}; expected 1 to {6500 if dev else 8000}"):
        images.drawn(0, count, dev)


def test_every_image_is_seen_before_one_is_seen_again():
    order = images._order(250, steps=6, seed=0)
    assert len(order) == 600
    assert sorted(order[:250]) == sorted(order[250:500]) == [*range(250)]
    assert len(set(order[500:])) == 100


def test_the_first_net_trained_leaves_no_trace_in_the_next():
    weights = {seed: flat(images.predecessor(seed, 400, 6, False)) for seed in (0, 1)}
    images.predecessor.cache_clear()
    again = {seed: flat(images.predecessor(seed, 400, 6, False)) for seed in (1, 0)}
    for seed in (0, 1):
        assert_same(again[seed], weights[seed])
    assert np.abs(weights[0][0] - weights[1][0]).max() > 0.01


@pytest.mark.parametrize("way", images.WAYS)
def test_a_successor_does_not_depend_on_those_before_it_nor_change_its_predecessor(way):
    old = images.predecessor(0, 400, 6, False)
    before = flat(old)
    weights = flat(images.successor(0, way, **QUICK).modules)
    other = flat(images.successor(1, way, **QUICK).modules)
    images.successor.cache_clear()
    assert_same(flat(images.successor(0, way, **QUICK).modules), weights)
    assert max(np.abs(a - b).max() for a, b in zip(other, weights, strict=True)) > 1e-3
    assert_same(flat(old), before)


@eager
@pytest.mark.parametrize("gates", ["batch", "sample", "uniform", "mean"])
def test_replacing_always_is_direct_training(gates):
    direct = images.successor(0, "direct", **QUICK)
    always = images.successor(0, "theseus", rate=1.0, gates=gates, alone=0.0, **QUICK)
    assert_same(flat(always.modules), flat(direct.modules), atol=1e-4)


@eager
def test_replacing_never_teaches_nothing():
    small = images.successor(0, "theseus", rate=0.0, gates="mean", start="copied", alone=0.0, **QUICK)
    assert_same(flat(small.modules), flat([[old[0]] for old in small.old_modules]), atol=0)


@eager
def test_a_copy_of_all_blocks_is_the_predecessor():
    setting = {"rate": 0.0, "gates": "mean", "start": "copied", "blocks": 2, "alone": 0.0, **QUICK}
    row = images.contest(0, "theseus", **setting)
    assert row["agreement"] == 1
    assert row["accuracy"] == row["old_accuracy"] == row["before"]
    assert row["correct"] == row["old_correct"]
    assert row["kl"] == pytest.approx(0, abs=1e-9)
    assert row["cka"] == pytest.approx([1, 1, 1])
    mixed = images.mixtures(0, "theseus", **setting)
    assert mixed["accuracy"] == 8 * [row["accuracy"]]


@eager
def test_the_first_blocks_are_those_of_the_predecessor():
    small = images.successor(0, "theseus", rate=0.0, gates="mean", start="first", alone=0.0, **QUICK)
    old = images.predecessor(0, 400, 6, False)
    assert_same(flat(small.modules), flat([[block] for block in old.blocks[:3]]), atol=0)


@eager
def test_the_best_blocks_are_the_best_on_pictures_that_are_not_known():
    quick = {"known": 400, "old_steps": 6, "images": 100, "steps": 2}
    old, (pixels, labels) = images.predecessor(0, 400, 6, False), images.drawn(0, 8000)
    features = images._outputs(old.first, pixels[400:])
    right = {
        chosen: np.mean(images._outputs([*chosen, *old.head], features).argmax(-1) == labels[400:])
        for chosen in combinations(old.blocks, 3)
    }
    best = images._best(old, 3, 0, 400, False)
    assert right[tuple(best)] == max(right.values())
    assert len(images.successor(0, "direct", start="best", **quick).modules) == 3
    with pytest.raises(ValueError, match="known: the best blocks are found on pictures that are not known"):
        images._best(old, 3, 0, 8000, False)


@pytest.mark.parametrize("schedule", images.SCHEDULES)
def test_the_replacement_rate_follows_its_schedule_to_the_end_of_the_gates(schedule):
    body = images._replacing_course(100, 3, 1, 0.25, schedule, "batch", False).body
    rates = []
    for step in (0, 25, 75, 99):
        body.iterations.assign(step)
        rates.append(float(ops.convert_to_numpy(body.rate)))
    expected = {
        "constant": [0.25, 0.25, 0.25, 0.25],
        "curriculum": [0.25, 0.5, 1, 1],
        "anti_curriculum": [1, 1 - 0.75 / 4, 1 - 0.75 * 0.75, 0.2575],
    }
    np.testing.assert_allclose(rates, expected[schedule], atol=1e-6)


@eager
def test_only_an_own_head_is_trained():
    old = images.predecessor(0, 400, 6, False)
    shared = images.successor(0, "theseus", gates="mean", **QUICK)
    own = images.successor(0, "theseus", gates="mean", own_head=True, **QUICK)
    assert shared.head is shared.old_head is own.old_head is old.head
    assert np.abs(own.head[1].get_weights()[0] - old.head[1].get_weights()[0]).max() > 1e-4


def test_a_course_of_distillation_minimizes_the_divergence_at_its_temperature():
    rng = np.random.default_rng(0)
    teacher, student = rng.standard_normal((2, 4, 10))
    p = ops.softmax(teacher / 3)
    loss, least = (np.mean(images._softened(3.0)(p, z)) for z in (student, teacher))
    assert loss - least == pytest.approx(9 * kl_divergence(teacher / 3, student / 3), rel=1e-5)


def test_theseus_takes_its_last_steps_alone():
    row = images.contest(0, "theseus", **QUICK)
    assert row["before"] != row["accuracy"]
    assert images.contest(0, "direct", **QUICK)["before"] == images.contest(0, "direct", **QUICK)["accuracy"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"way": "magic"}, "way must be one of 'direct', 'distillation', 'theseus', got 'magic'"),
        ({"start": "last"}, "start must be one of 'random', 'copied', 'first', 'best', got 'last'"),
        ({"schedule": "cosine"}, "schedule must be one of 'constant', 'curriculum', 'anti_curriculum'"),
        ({"modules": 4}, "modules must divide the 6 blocks, got 4"),
    ],
)
def test_a_setting_that_there_is_not_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        images.contest(0, **{"way": "theseus", **QUICK, **setting})


# --- images: what is measured -----------------------------------------------------------------------------


@eager
def test_the_measures_are_those_of_the_nets_as_a_whole():
    setting = {"modules": 2, "gates": "mean", "dev": True, **QUICK}
    row, small = images.contest(0, "theseus", **setting), images.successor(0, "theseus", **setting)
    _, dev = images.parts(dev=True)
    student, teacher = (
        ops.convert_to_numpy(keras.Sequential([*small.first, *chain(*modules), *small.head])(dev.pixels))
        for modules in (small.modules, small.old_modules)
    )
    guess, old_guess = student.argmax(-1), teacher.argmax(-1)
    assert row["accuracy"] == unpack(row["correct"], 1500).mean() == np.mean(guess == dev.labels)
    assert row["old_accuracy"] == unpack(row["old_correct"], 1500).mean() == np.mean(old_guess == dev.labels)
    assert row["agreement"] == np.mean(guess == old_guess)
    assert row["kl"] == pytest.approx(kl_divergence(teacher, student), rel=1e-4)
    probabilities = ops.convert_to_numpy(ops.softmax(student))[np.arange(1500), dev.labels]
    assert row["loss"] == pytest.approx(-np.mean(np.log(probabilities)), rel=1e-4)
    assert len(row["cka"]) == 2
    mixed = images.mixtures(0, "theseus", **setting)
    assert mixed["replaced"] == ["00", "01", "10", "11"]
    assert mixed["accuracy"][0] == row["old_accuracy"]
    assert mixed["accuracy"][-1] == row["accuracy"]
    assert mixed["kl"][0] == 0
    assert mixed["kl"][-1] == pytest.approx(row["kl"], rel=1e-4)


def test_the_gradient_of_a_lone_module_is_proportional_to_the_rate():
    rates = [0, 0.25, 0.5, 1]
    found = images.gradient_norms(rates, images=300, known=400, old_steps=6, modules=1)
    for norms in found.values():
        assert norms[-1] > 0
        np.testing.assert_allclose(norms, np.array(rates) * norms[-1], rtol=1e-6)


def test_the_gradients_are_those_of_the_tape_weighed_by_the_chance_of_the_gates():
    import tensorflow as tf

    size, p = 300, 0.4
    found = images.gradient_norms([p], images=size, known=400, old_steps=6, modules=2)
    old, data = images.predecessor(0, 400, 6, False), images.drawn(0, size)
    keras.utils.set_random_seed(1000)
    new, x = images._blocks(2), images._outputs(old.first, data.pixels)
    modules = [(old.blocks[:3], new[:1]), (old.blocks[3:], new[1:])]
    gradients, probabilities = [], []
    for z in product((0, 1), repeat=2):
        with tf.GradientTape() as tape:
            y = x
            for layer in chain(*(pair[chosen] for pair, chosen in zip(modules, z, strict=True)), old.head):
                y = layer(y)
            loss = ops.mean(ops.sparse_categorical_crossentropy(data.labels, y, from_logits=True))
        weights = [[weight.value for weight in block.weights] for block in new]
        of_each = tape.gradient(loss, weights, unconnected_gradients="zero")
        gradients.append([np.concatenate([np.ravel(g) for g in module]) for module in of_each])
        probabilities.append(p ** sum(z) * (1 - p) ** (2 - sum(z)))
    gradients, probabilities = np.array(gradients), np.array(probabilities)
    norm_of_mean = np.linalg.norm(np.einsum("z,zmw->mw", probabilities, gradients))
    mean_of_norms = probabilities @ np.linalg.norm(gradients, axis=-1).mean(axis=-1)
    assert found["norm_of_mean"] == pytest.approx([norm_of_mean], rel=1e-3)
    assert found["mean_of_norms"] == pytest.approx([mean_of_norms], rel=1e-3)
