"""Truths about a graph in the order of its program: it computes the same, and holds what that order needs."""

from functools import partial
from itertools import pairwise

import keras
import numpy as np
import pytest
from memory_builders import SQUARE, N, branches

from lib.workbench.measure import device, peak_memory_in_fresh_process
from lib.workbench.measure.order import in_program_order

if keras.backend.backend() != "tensorflow":
    pytest.skip("only TensorFlow has graphs without an order", allow_module_level=True)
import tensorflow as tf


def chained(function, *args):
    """The function in the order of its program."""
    return in_program_order(partial(tf.function(function), *args))


def test_what_may_wait_in_a_graph_does_not_in_the_order_of_the_program():
    if device().kind == "gpu":
        pytest.skip("about blocks on a CPU")
    # One product at a time, never a second; TensorFlow's executor holds up to all twelve. An allocator counts them
    # exactly, the kernel, where it counts, with an error.
    peak = peak_memory_in_fresh_process(branches)
    error = 0.5 if peak.method == "VmHWM in a fresh process" else 0.1
    assert peak.bytes / SQUARE == pytest.approx(1, abs=error)


def test_every_operation_waits_for_the_one_before():
    ordered = chained(lambda x: tf.add_n([tf.sin(x * i) for i in range(5)]), tf.ones(3))
    graph = ordered.func.graph
    computing = [op for op in graph.get_operations() if op.type not in ("Placeholder", "Identity")]
    assert [op.type for op in computing].count("Sin") == 5
    for earlier, later in pairwise(computing):
        assert earlier in later.control_inputs or earlier in [tensor.op for tensor in later.inputs]


def test_what_nobody_needs_is_not_waited_for():
    def function(x):
        tf.sin(x)
        return tf.cos(x)

    ordered = chained(function, tf.ones(3))
    operations = ordered.func.graph.get_operations()
    [sine, cosine] = (op for op in operations if op.type in ("Sin", "Cos"))
    assert not sine.control_inputs
    assert not cosine.control_inputs


def looped(x):
    for _ in tf.range(4):
        x = tf.tanh(x) + 1
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1), [x, {"mean": tf.reduce_mean(x)}]


def test_loops_branches_and_structures_compute_the_same():
    x = tf.constant(np.random.default_rng(0).standard_normal(5, dtype="float32"))
    expected = tf.nest.flatten(tf.function(looped)(x))
    for got, value in zip(chained(looped, x)(), expected, strict=True):
        np.testing.assert_array_equal(got, value)


def test_gradients_of_a_loop_are_the_same():
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = looped(x)[0]
        return tape.gradient(y, x)

    x = tf.linspace(-1.0, 1.0, 5)
    np.testing.assert_array_equal(chained(gradient, x)()[0], tf.function(gradient)(x))


def test_variables_are_read_and_written_in_turn():
    state, weight = tf.Variable(1.0), tf.Variable(3.0)

    def step(x):
        before = state.read_value()
        state.assign_add(weight * x)
        return before, state.read_value()

    ordered = chained(step, tf.constant(2.0))
    assert [float(y) for y in ordered()] == [1, 7]
    assert [float(y) for y in ordered()] == [7, 13]


def test_arrays_and_names_of_arguments_are_kept():
    function = partial(
        tf.function(lambda x, times, shift: x * times - shift), np.ones(3), times=2, shift=tf.ones(3, "float64")
    )
    np.testing.assert_array_equal(in_program_order(function)()[0], np.ones(3))


def test_what_has_an_order_is_left_as_it_is():
    compiled = partial(tf.function(tf.sin, jit_compile=True), tf.ones((N,)))
    for function in (int, partial(tf.sin, 1.0), compiled, lambda: None):
        assert in_program_order(function) is function
