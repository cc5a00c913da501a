"""Truths about ``lib.recompute.rematerialize``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import warnings
from importlib import import_module

import keras
import numpy as np
import pytest
from keras import ops

from lib.recompute.rematerialize import _warn_if_undone, replay
from lib.workbench.measure import UnmeasurableError, peak_memory

pytestmark = [
    pytest.mark.backends,
    pytest.mark.filterwarnings("ignore:On a CPU, XLA merges:RuntimeWarning"),
]

BACKEND = keras.backend.backend()
MODES = {"tensorflow": ["eager", "graph", "xla"], "jax": ["eager", "jit"], "torch": ["eager"]}[BACKEND]
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="about torch")
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def gradient_step(function, mode):
    """A function of a list of floating tensors becomes that of the gradients of its sum; None: there is none."""
    if BACKEND == "jax":
        jax = import_module("jax")
        step = jax.grad(lambda floats: ops.sum(function(floats)))
        return jax.jit(step) if mode == "jit" else step
    if BACKEND == "torch":
        torch = import_module("torch")

        def step(floats):
            floats = [x.detach().requires_grad_() for x in floats]
            return torch.autograd.grad(ops.sum(function(floats)), floats, allow_unused=True)

        return step
    tf = import_module("tensorflow")

    def step(floats):
        with tf.GradientTape() as tape:
            tape.watch(floats)
            total = ops.sum(function(floats))
        return tape.gradient(total, floats)

    return step if mode == "eager" else tf.function(step, jit_compile=mode == "xla")


def gradients(function, *floats, mode="eager"):
    floats = [ops.convert_to_tensor(x) for x in floats]
    found = gradient_step(function, mode)(floats)
    return [np.zeros(x.shape) if g is None else ops.convert_to_numpy(g) for x, g in zip(floats, found, strict=True)]


# --- it is the function -----------------------------------------------------------------------------------------


def attended(weights, tensors):
    """Arguments of every kind: a weight and a tensor that are unused, an integer and a mask among the others."""
    w, _ = weights
    x, row, mask, _ = tensors
    y = ops.where(mask, ops.tanh(ops.matmul(x, w)), 0.0)
    return [y, ops.argmax(y, -1), ops.take(y, row, axis=0), mask]


@pytest.mark.parametrize("mode", MODES)
def test_values_and_gradients_are_those_of_the_function(mode):
    values = normal(3, 4, seed=1), normal(2, 3, seed=2), normal(2, seed=3), [1], normal(2, 4, seed=4) > -0.5
    w, x, unused, row, mask = map(ops.convert_to_tensor, values)
    plain = attended([w, unused], [x, row, mask, unused])
    for one, other in zip(replay(attended, [w, unused], [x, row, mask, unused]), plain, strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (one, other)), rtol=1e-6)

    def total(apply):
        def function(floats):
            w, x, *unused = floats
            y, _, chosen, _ = apply([w, unused[0]], [x, row, mask, unused[1]])
            return ops.sum(ops.square(y)) + ops.sum(chosen)

        return function

    floats = (w, x, unused, unused)
    again = gradients(total(lambda *arguments: replay(attended, *arguments)), *floats, mode=mode)
    for one, other in zip(again, gradients(total(attended), *floats), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert np.any(again[0] != 0)
    assert np.any(again[1] != 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_function_can_let_no_gradient_through(mode):
    for function in (lambda w, t: [ops.stop_gradient(t[0] * w[0])], lambda w, t: [ops.ones((2,))]):  # noqa: ARG005
        of_w, of_x = gradients(
            lambda floats, f=function: replay(f, floats[:1], floats[1:])[0], *normal(2, 2), mode=mode
        )
        assert not of_w.any()
        assert not of_x.any()


def test_it_can_be_nested():
    x = normal(4)

    def inner(_, tensors):
        return [ops.sin(tensors[0])]

    def outer(weights, tensors):
        return [ops.square(replay(inner, weights, tensors)[0])]

    [found] = gradients(lambda floats: replay(outer, [], floats)[0], x)
    np.testing.assert_allclose(found, 2 * np.sin(x) * np.cos(x), rtol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_gradient_that_is_sparse_stays_sparse(mode):
    tf = import_module("tensorflow")
    ids = [3, 1, 3]

    def function(floats):
        return replay(lambda weights, tensors: [tf.gather(weights[0], tensors[0])], floats, [tf.constant(ids)])[0]

    [found] = gradient_step(function, mode)([tf.ones((5, 2))])
    assert isinstance(found, tf.IndexedSlices)
    np.testing.assert_array_equal(found.indices, ids)


# --- it is run again --------------------------------------------------------------------------------------------


def test_the_function_runs_twice_for_a_gradient_and_once_without():
    runs = []

    def function(_, tensors):
        runs.append(1)
        return [ops.sin(tensors[0]) * ops.cos(tensors[0])]

    x = ops.convert_to_tensor(normal(3))
    if BACKEND == "jax":  # which runs it once, in a trace, and the trace twice
        jax = import_module("jax")
        equations = jax.make_jaxpr(jax.grad(lambda x: ops.sum(replay(function, [], [x])[0])))(x).eqns
        assert any(equation.primitive.name.startswith(("remat", "checkpoint")) for equation in equations)
        return
    replay(function, [], [x])
    assert len(runs) == 1
    runs.clear()
    gradients(lambda floats: replay(function, [], floats)[0], x)
    assert len(runs) == 2


@on_torch
def test_random_numbers_of_torch_are_drawn_again_and_its_generator_is_left_alone():
    torch = import_module("torch")
    torch.manual_seed(0)
    x = torch.ones(64, requires_grad=True)
    dropped, torch_drops = [], torch.nn.functional.dropout
    for _ in range(2):
        [y] = replay(lambda _, tensors: [torch_drops(tensors[0])], [], [x])
        before = torch.get_rng_state()
        [gradient] = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, y / x)
        assert torch.equal(torch.get_rng_state(), before)
        dropped.append(y == 0)
    assert not torch.equal(*dropped)


def waves(_, tensors):
    """Much on the way from a small input to a small output."""
    [x] = tensors
    for _ in range(8):
        x = ops.sin(x)
    return [x]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_computed_on_the_way_is_forgotten(mode):
    if BACKEND == "jax" or mode == "xla":
        pytest.skip("the memory of a process cannot be told within it")
    x = ops.convert_to_tensor(normal(256, 1024))  # 1 MiB

    def peak(apply):
        def function(floats):
            for _ in range(8):
                floats = apply(floats)
            return floats[0]

        step = gradient_step(function, mode)
        step([x])
        return peak_memory(step, [x]).bytes / 2**20

    try:
        plain = peak(lambda tensors: waves([], tensors))
    except UnmeasurableError as error:
        pytest.skip(str(error))
    # 64 waves against 8 boundaries and 8 waves.
    assert plain > 50
    assert peak(lambda tensors: replay(waves, [], tensors)) < 0.45 * plain


# --- second derivatives -----------------------------------------------------------------------------------------


def test_second_derivatives_are_right_or_refused():
    value = normal(5)
    x = ops.convert_to_tensor(value)

    def function(x):
        return ops.sum(replay(lambda _, tensors: [ops.sin(tensors[0]) * tensors[0]], [], [x])[0])

    if BACKEND == "torch":
        torch = import_module("torch")
        with pytest.raises(NotImplementedError, match="no second derivative"):
            torch.autograd.grad(function(x.requires_grad_()), x, create_graph=True)
        return
    if BACKEND == "jax":
        jax = import_module("jax")
        second = jax.grad(lambda x: ops.sum(jax.grad(function)(x)))(x)
    else:
        tf = import_module("tensorflow")
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = function(x)
            first = inner.gradient(y, x)
        second = outer.gradient(first, x)
    np.testing.assert_allclose(second, 2 * np.cos(value) - value * np.sin(value), rtol=1e-4, atol=1e-5)


# --- errors and warnings ----------------------------------------------------------------------------------------


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(NotImplementedError, match="TensorFlow, JAX or torch, the backend is numpy"):
        replay(list, [], [])


def test_jax_on_a_cpu_warns_once_that_nothing_is_saved():
    if BACKEND != "jax" or import_module("jax").default_backend() != "cpu":
        pytest.skip("about JAX on a CPU")
    _warn_if_undone.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            replay(lambda _, tensors: tensors, [], [ops.ones(1)])
    assert len([one for one in caught if "no memory is saved" in str(one.message)]) == 1
