"""Truths about ``lib.recompute.pure_call``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops
from numerics import array, compiled

from lib.recompute import PureCall

pytestmark = [
    pytest.mark.backends,
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning"),
]

IDS = np.array([[1, 2, 0], [3, 3, 1]], "int32")


def normal(*shape, seed=0):
    return ops.convert_to_tensor(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def built(layer, shape=(2, 3, 4)):
    layer.build(shape)
    return layer


def run(call, *args, times=1, **kwargs):
    """A call of which the results of the last run are taken."""
    tensors = call.flatten(args, kwargs)
    return call.commit([call(call.weights, tensors) for _ in range(times)][-1])


def masked_vectors():
    return layers.Embedding(5, 4, mask_zero=True)(ops.convert_to_tensor(IDS))


# --- it is the call ---------------------------------------------------------------------------------------------


def test_it_returns_what_the_layer_returns():
    dense, x = built(layers.Dense(3, activation="tanh")), normal(2, 3, 4)
    y, added = run(PureCall(dense), x)
    np.testing.assert_allclose(array(y), array(dense(x)), rtol=1e-6)
    assert added == []


def test_the_values_of_the_weights_are_those_it_is_given():
    dense, x = built(layers.Dense(3)), normal(2, 3, 4)
    call = PureCall(dense)
    kernel, bias = call.weights
    y, _ = call.commit(call([2 * kernel, bias + 1], call.flatten((x,), {})))
    np.testing.assert_allclose(array(y), array(2 * dense(x) + 1), rtol=1e-5, atol=1e-6)


def test_a_second_run_takes_other_tensors():
    dense = built(layers.Dense(3))
    call = PureCall(dense)
    call(call.weights, call.flatten((normal(2, 3, 4),), {}))
    x = normal(2, 3, 4, seed=1)
    y, _ = call.commit(call(call.weights, [x]))
    np.testing.assert_allclose(array(y), array(dense(x)), rtol=1e-6)


class Several(layers.Layer):
    """Several inputs, nested outputs, an integer, a number and nothing among them."""

    def call(self, x, other, scale=1.0, more=None):
        y = x * scale + more["a"] - more["b"][0]
        return {"y": y, "pair": (ops.argmax(y, -1), None, [y * other, 3])}


def test_structures_are_kept_and_what_is_no_tensor_passes_unchanged():
    several, (x, other, a, b) = built(Several()), (normal(2, 3, 4, seed=i) for i in range(4))
    named = {"more": {"a": a, "b": [b]}, "scale": 2.0}
    call = PureCall(several)
    assert len(call.flatten((x, other), named)) == 4
    y, _ = run(call, x, other, **named)
    expected = several(x, other, **named)
    assert set(y) == set(expected)
    integers, nothing, [product, three] = y["pair"]
    assert (nothing, three) == (None, 3)
    np.testing.assert_allclose(array(product), array(expected["pair"][2][0]), rtol=1e-6)
    np.testing.assert_array_equal(array(integers), array(expected["pair"][0]))
    assert "int" in keras.backend.standardize_dtype(integers.dtype)


class Silent(layers.Layer):
    """Drops out without a word about training."""

    def build(self, _):
        self.dropout = layers.Dropout(0.5, seed=1)

    def call(self, x):
        return self.dropout(x)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_that_is_not_told_whether_it_is_in_training_finds_it(training):
    y, _ = run(PureCall(built(Silent()), training), ops.ones((8, 8)))
    assert set(np.unique(array(y))) == ({0, 2} if training else {1})


def test_it_holds_no_tensor_that_it_was_given():
    norm, x = built(layers.BatchNormalization()), normal(2, 3, 4)
    call, gone = PureCall(norm, training=True), weakref.ref(x)
    call(call.weights, call.flatten((), {"inputs": x}))
    del x
    gc.collect()
    assert gone() is None


# --- state ------------------------------------------------------------------------------------------------------


def test_each_run_draws_the_same_random_numbers_and_the_seed_moves_on_once():
    dropout, x = built(layers.Dropout(0.5, seed=1)), ops.ones((8, 8))
    call, seed = PureCall(dropout, training=True), dropout.seed_generator.state
    tensors, before = call.flatten((x,), {}), array(seed)
    masks = []
    for _ in range(2):
        y, *_ = results = call(call.weights, tensors)
        masks.append(array(y))
        np.testing.assert_array_equal(array(seed), before)
    np.testing.assert_array_equal(*masks)
    call.commit(results)
    after = array(seed)
    assert np.any(after != before)
    y, _ = run(PureCall(dropout, training=True), x)
    assert np.any(array(y) != masks[0])


def test_a_batch_counts_once():
    norm, x = built(layers.BatchNormalization(momentum=0.5)), 4 + normal(2, 3, 4)
    mean = array(x).mean((0, 1))
    run(PureCall(norm, training=True), x, times=3)
    np.testing.assert_allclose(array(norm.moving_mean), 0.5 * mean, rtol=1e-5)
    run(PureCall(norm, training=True), x, times=3)
    np.testing.assert_allclose(array(norm.moving_mean), 0.75 * mean, rtol=1e-5)
    run(PureCall(norm, training=False), x)
    np.testing.assert_allclose(array(norm.moving_mean), 0.75 * mean, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="there the replay reads the values beforehand")
def test_a_later_run_starts_from_the_state_of_the_first():
    # On torch a variable changes in place, so the state that was opened is the new one by then.
    class Counter(layers.Layer):
        def build(self, _):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign(self.count + 1)
            return x * self.count

    counter = built(Counter())
    call = PureCall(counter)
    tensors = call.flatten((ops.ones((2,)),), {})
    for times in (1, 2):
        y, _ = call.commit(call(call.weights, tensors))
        np.testing.assert_array_equal(array(y), [1, 1], err_msg=f"run {times}")
        assert float(counter.count) == 1


def test_frozen_weights_are_state():
    dense = built(layers.Dense(3))
    kernel, bias = PureCall(dense).weights
    assert (tuple(kernel.shape), tuple(bias.shape)) == ((4, 3), (3,))
    dense.trainable = False
    call, x = PureCall(dense), normal(2, 3, 4)
    assert call.weights == []
    assert len(call.flatten((x,), {})) == 3
    np.testing.assert_allclose(array(run(call, x)[0]), array(dense(x)), rtol=1e-6)


def undeclared():
    inner = built(layers.Dense(4))

    class Outer(layers.Layer):
        def call(self, x):
            return OUTSIDE[0](x)

    OUTSIDE[:] = [inner]
    return built(Outer())


OUTSIDE = []  # where Keras cannot find a layer


class Drawing(layers.Layer):
    """Draws random numbers without a generator of its own."""

    def call(self, x):
        return x * keras.random.uniform(x.shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (undeclared, "outer uses the variable .*kernel.* belongs to none of its layers.*layers="),
        (lambda: built(Drawing()), "SeedGenerator"),
        (lambda: built(layers.SpectralNormalization(layers.Dense(4))), "sets its trainable weight"),
    ],
)
def test_what_cannot_be_run_again_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        run(PureCall(make(), training=True), normal(2, 3, 4))


# --- masks and losses -------------------------------------------------------------------------------------------


class Spy(layers.Layer):
    """Shows which mask has come."""

    def call(self, _, mask=None):
        return ops.zeros(()) if mask is None else ops.cast(mask, "float32")


class SecondSpy(layers.Layer):
    """Shows the mask of its second input."""

    def call(self, a, b, b_mask=None):  # noqa: ARG002
        return ops.cast(b_mask, "float32")


def test_attached_masks_are_tensors_of_the_call():
    call = PureCall(built(Spy()))
    _, mask = call.flatten((masked_vectors(),), {})
    np.testing.assert_array_equal(array(mask), IDS != 0)
    for new in (mask, ops.logical_not(mask)):
        y, _ = call.commit(call([], [normal(2, 3, 4), new]))
        np.testing.assert_array_equal(array(y), array(new))


def test_a_mask_is_attached_to_any_of_several_inputs():
    y, _ = run(PureCall(built(SecondSpy())), normal(2, 3, 4), masked_vectors())
    np.testing.assert_array_equal(array(y), IDS != 0)


@pytest.mark.parametrize("make", [lambda: layers.Dropout(0.1), lambda: layers.LSTM(4, return_sequences=True)])
def test_masks_are_handed_on(make):
    y, _ = run(PureCall(built(make())), masked_vectors())
    np.testing.assert_array_equal(array(Spy()(y)), IDS != 0)


def test_a_layer_that_ends_the_mask_ends_it():
    y, _ = run(PureCall(built(layers.LSTM(4))), masked_vectors())
    assert array(Spy()(y)).shape == ()


class Adding(layers.Layer):
    """Adds its mean as a loss."""

    def call(self, x):
        self.add_loss(ops.mean(x))
        return x


def test_losses_are_returned_and_not_added():
    adding, x = built(Adding()), normal(2, 3, 4)
    _, added = run(PureCall(adding), x, times=2)
    assert [float(loss) for loss in added] == pytest.approx([float(ops.mean(x))])
    assert adding.losses == []


# --- the other branch of a condition ----------------------------------------------------------------------------


class CountingAndAdding(layers.Layer):
    """Counts its calls and adds two losses."""

    def build(self, _):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign(self.count + 1)
        self.add_loss(ops.mean(x))
        self.add_loss(2 * ops.mean(x))
        return x + 1


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("eager", [True, False])
def test_a_branch_that_does_not_run_changes_no_state_and_adds_no_loss(runs, eager):
    layer, x = built(CountingAndAdding(), (2, 2)), ops.ones((2, 2))

    def step(runs, x, count):
        with keras.StatelessScope([(layer.count, count)]) as scope:
            call = PureCall(layer, training=True)
            tensors = call.flatten((x,), {})
            run, skip = lambda: call(call.weights, tensors), lambda: call.unchanged(tensors, 10 * x)
            y, losses = call.commit(ops.cond(runs, run, skip))
            return y, scope.get_current_value(layer.count), sum(losses, ops.zeros(()))

    y, count, loss = (step if eager else compiled(step))(ops.convert_to_tensor(runs), x, ops.ones(()))
    assert np.all(array(y) == (2 if runs else 10))
    assert (float(count), float(loss)) == ((2, 3) if runs else (1, 0))


def test_what_comes_after_a_call_finds_the_training_that_was_before_it():
    class Around(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner, self.silent = built(layers.Dense(3), (8, 8)), Silent()

        def call(self, x, training=None):  # noqa: ARG002
            run(PureCall(self.inner, training=False), x)
            return self.silent(x)

    y = array(Around()(ops.ones((8, 8)), training=True))
    assert set(np.unique(y)) == {0, 2}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_loss_is_one_number_of_its_own_precision_or_float32(dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where it was told so at the start")

    class Adds(layers.Layer):
        def call(self, x):
            self.add_loss(ops.mean(x, axis=-1))
            return x

    layer, x = built(Adds(dtype=dtype), (2, 2)), ops.cast(ops.ones((2, 2)), dtype) / 3
    call = PureCall(layer, training=True)
    tensors = call.flatten((x,), {})
    for results in (call(call.weights, tensors), call.unchanged(tensors, x)):
        _, [loss] = call.commit(results)
        assert loss.shape == ()
        assert keras.backend.standardize_dtype(loss.dtype) == ("float64" if dtype == "float64" else "float32")
