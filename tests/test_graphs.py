"""A graph of TensorFlow is forgotten with all that it held, and has the derivatives of what it was made of."""

import gc
import weakref

import keras
import numpy as np
import pytest
from numerics import normal

from lib import chain, memm
from lib.attention import delta_rule, elu_plus_one, gated_attention, linear_attention, retention
from lib.recompute import recompute

if keras.backend.backend() != "tensorflow":
    pytest.skip("about graphs of TensorFlow", allow_module_level=True)

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

pytestmark = pytest.mark.backends

TAGS = np.array([[0, 1, 2, 1], [2, 2, 0, 0]])
PARTLY = np.array([[0, -100, 2, -100], [-100, 2, 0, 0]])
TEXTS, MOVES, ENDS = normal(2, 4, 3), normal(3, 3, seed=1), normal(3, seed=2)
QUERIES = [normal(1, 5, 2, 3, seed=seed) for seed in range(3)]
GATES = -np.abs(normal(1, 5, 2, seed=4))


def dense():
    layer = keras.layers.Dense(3, activation="tanh", kernel_initializer=keras.initializers.GlorotNormal(0))
    layer.build((None, 3))
    return recompute(layer)


#: What has a gradient of its own: the function and the tensors that it is differentiated by.
FUNCTIONS = {
    "log_partition": (lambda e, A, s: chain.log_partition(e, A, start=s), [TEXTS, MOVES, ENDS]),
    "log_likelihood": (lambda e, A, s: chain.log_likelihood(TAGS, e, A, start=s), [TEXTS, MOVES, ENDS]),
    "log_likelihood of some tags": (lambda e, A: chain.log_likelihood(PARTLY, e, A), [TEXTS, MOVES]),
    "log_likelihood at large scores": (lambda e, A: chain.log_likelihood(TAGS, 90 * e, A), [TEXTS, MOVES]),
    "marginals": (chain.marginals, [TEXTS, MOVES]),
    "entropy": (chain.entropy, [TEXTS, MOVES]),
    "MEMM": (lambda f, g: memm.log_likelihood(TAGS, f, g), [TEXTS, MOVES]),
    "MEMM of some tags": (lambda f, g: memm.log_likelihood(PARTLY, f, g), [TEXTS, MOVES]),
    "elu + 1": (elu_plus_one, [TEXTS]),
    "linear attention": (linear_attention, QUERIES),
    "causal linear attention": (lambda *x: linear_attention(*x, causal=True), QUERIES),
    "retention": (retention, QUERIES),
    "gated attention": (gated_attention, [*QUERIES, GATES]),
    "delta rule": (lambda *x: delta_rule(*x, np.full((1, 5, 2), 0.5, "float32")), QUERIES),
    "recompute": (dense(), [TEXTS]),
}
each = pytest.mark.parametrize("name", FUNCTIONS)


def slopes(function, tensors):
    """The gradients of a number that depends on every entry of what a function returns."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        out = function(*tensors)
        total = tf.reduce_sum(tf.reshape(out, (-1,)) * tf.cos(tf.range(tf.size(out), dtype=out.dtype)))
    return tape.gradient(total, tensors, unconnected_gradients="zero")


def curvature(function, tensors):
    """The gradients of a number that depends on every entry of the gradients."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = tf.add_n([tf.reduce_sum(slope**2 * tf.cos(slope)) for slope in slopes(function, tensors)])
    return tape.gradient(total, tensors, unconnected_gradients="zero")


@each
def test_a_graph_is_forgotten_with_its_gradients(name):
    function, arrays = FUNCTIONS[name]
    tensors = list(map(tf.constant, arrays))

    def traced():
        return tf.function(lambda *x: slopes(function, x), autograph=False).get_concrete_function(*tensors)

    before = set(gradient_registry._registry)
    graph = weakref.ref(traced().graph)
    gc.collect()
    assert graph() is None
    assert set(gradient_registry._registry) <= before


@each
def test_a_traced_function_is_differentiated_twice_from_outside(name):
    """XLA cannot, where there are loops: it has no list of tensors that crosses its boundary."""
    function, arrays = FUNCTIONS[name]
    tensors = list(map(tf.constant, arrays))
    traced = tf.function(function, autograph=False)
    for found, expected in zip(curvature(traced, tensors), curvature(function, tensors), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, np.abs(expected).max()))


def in_turn(function, rows):
    return tf.stack([function(row) for row in tf.unstack(rows)])


@each
def test_a_gradient_goes_through_a_vectorized_map(name):
    """``tf.vectorized_map`` copies operations without the gradients that they were given."""
    function, (first, *others) = FUNCTIONS[name]
    rows = tf.constant([first, 2 * first])

    def through(batch):
        return slopes(lambda rows: batch(lambda row: function(row, *others), rows), [rows])[0]

    found, expected = through(tf.vectorized_map), through(in_turn)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", ["log_partition", "log_likelihood of some tags", "MEMM of some tags", "retention"])
def test_a_gradient_is_taken_inside_of_a_vectorized_map(name):
    function, (first, *others) = FUNCTIONS[name]
    rows = tf.constant([first, 2 * first])

    def slope(row):
        return slopes(lambda row: function(row, *others), [row])[0]

    found, expected = tf.vectorized_map(slope, rows), in_turn(slope, rows)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))
