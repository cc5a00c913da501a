"""Truths about derivatives of derivatives of ``lib.attention``, on whichever backend KERAS_BACKEND names."""

from functools import partial

import numpy as np
import pytest
from attention_references import (
    BACKEND,
    BATCH,
    DIM,
    HEADS,
    array,
    compiled,
    delta_reference,
    gated_reference,
    gates,
    gradients,
    normal,
    padding,
    qkv,
    quadratic,
    second_difference,
    second_slope,
    vector_gate,
)
from keras import ops

from lib.attention import (
    bidirectional,
    chunkwise,
    delta_rule,
    elu_plus_one,
    gated_attention,
    linear_attention,
    retention,
)
from lib.attention.tiling import own_gradient

pytestmark = pytest.mark.backends

TIME = 19
UPSTREAM = normal(BATCH, TIME, HEADS, DIM, seed=7)
MASK = padding(TIME)


@pytest.fixture(autouse=True)
def short_tiles(monkeypatch):
    """The first derivative takes several tiles."""
    monkeypatch.setattr(chunkwise, "TILE", 8)
    monkeypatch.setattr(bidirectional, "TILE", 8)


def away_from_zero(x):
    """Where the second derivative of elu jumps."""
    return (x + 0.1 * np.sign(x)).astype("float32")


def rates(heads=HEADS):
    return np.log(1 - 2.0 ** (-5 - np.arange(heads)))


FORMS = {
    "causal": (
        lambda *x: linear_attention(*x, causal=True, chunk=4),
        lambda *x: quadratic(*x),
    ),
    "causal exp": (
        lambda *x: linear_attention(*x, "exp", causal=True, mask=MASK, chunk=4),
        lambda *x: quadratic(*x, "exp", mask=MASK),
    ),
    "full": (
        lambda *x: linear_attention(*x, mask=MASK),
        lambda *x: quadratic(*x, causal=False, mask=MASK),
    ),
    "full exp": (
        lambda *x: linear_attention(*x, "exp"),
        lambda *x: quadratic(*x, "exp", causal=False),
    ),
    "retention": (
        lambda *x: retention(*x, chunk=4),
        lambda q, k, v: gated_reference(q, k, v, rates() * np.ones((BATCH, TIME, 1)), "rms"),
    ),
    "gated": (
        lambda *x: gated_attention(*x, normalize=None, chunk=4),
        lambda *x: gated_reference(*x),
    ),
    "vector": (
        lambda *x: gated_attention(*x, normalize=None, chunk=4),
        lambda *x: gated_reference(*x),
    ),
    "delta": (
        lambda *x: delta_rule(*x, chunk=4),
        lambda *x: delta_reference(*x),
    ),
    "gated delta": (
        lambda q, k, v, b, g: delta_rule(q, k, v, b, log_decay=g, mask=MASK, chunk=4),
        lambda q, k, v, b, g: delta_reference(q, k, v, b, g, MASK),
    ),
}


def inputs_of(name):
    (q, k, v), (log_decay, beta) = qkv(TIME), gates(TIME)
    q, k, beta = away_from_zero(q), away_from_zero(k), 0.1 + 0.8 * beta
    more = {"gated": [log_decay], "vector": [vector_gate(TIME)], "delta": [beta], "gated delta": [beta, log_decay]}
    return [q, k / 2, v, *more.get(name, [])]


@pytest.mark.parametrize("name", FORMS)
def test_second_derivatives_are_those_of_finite_differences_of_the_reference(name):
    (function, reference), inputs = FORMS[name], inputs_of(name)
    one, other = ([normal(*x.shape, seed=(side, i)) for i, x in enumerate(inputs)] for side in (21, 22))
    expected = second_difference(reference, inputs, UPSTREAM, one, other)
    assert abs(second_slope(function, inputs, UPSTREAM, one, other) - expected) < 1e-3 * abs(expected) + 0.01


RELATED = {
    "the same": lambda x, *gates: (*[x / 2] * 3, *gates),
    "made of one another": lambda x, *gates: (x, x / 2, x * x, *gates),
}


@pytest.mark.parametrize("relation", RELATED)
@pytest.mark.parametrize("name", FORMS)
def test_derivatives_are_right_where_arguments_are_one_tensor_or_made_of_one_another(name, relation):
    (function, reference), (x, _, _, *gates), together = FORMS[name], inputs_of(name), RELATED[relation]
    inputs = [x, *gates]
    one, other = ([normal(*x.shape, seed=(side, i)) for i, x in enumerate(inputs)] for side in (21, 22))
    expected = second_difference(lambda *x: reference(*together(*x)), inputs, UPSTREAM, one, other)
    found = second_slope(lambda *x: function(*together(*x)), inputs, UPSTREAM, one, other)
    assert abs(found - expected) < 2e-3 * abs(expected) + 0.02


def forward_modes(name):
    """(function, inputs, directions) → the derivative along the directions, in all ways that the backend has."""
    if BACKEND == "torch":
        import torch
        from torch.autograd import forward_ad

        def by_duals(function, inputs, directions):
            with forward_ad.dual_level():
                return forward_ad.unpack_dual(function(*map(forward_ad.make_dual, inputs, directions))).tangent

        return [by_duals, lambda function, *given: torch.func.jvp(function, *map(tuple, given))[1]]
    import tensorflow as tf

    def accumulated(function, inputs, directions):
        with tf.autodiff.ForwardAccumulator(inputs, directions) as accumulator:
            out = function(*inputs)
        return accumulator.jvp(out)

    def in_a_graph(function, *given):
        return tf.function(lambda *given: accumulated(function, *given), autograph=False)(*given)

    # Of a loop in a graph, TensorFlow has no forward mode, and says so.
    return [accumulated] if "delta" in name else [accumulated, in_a_graph]


@pytest.mark.skipif(BACKEND == "jax", reason="JAX refuses it by name")
@pytest.mark.parametrize("name", FORMS)
def test_forward_mode_is_right(name):
    (function, reference), inputs = FORMS[name], inputs_of(name)
    directions = [normal(*x.shape, seed=(23, i)) for i, x in enumerate(inputs)]
    forth, back = (
        [x + step * d.astype("float64") for x, d in zip(inputs, directions, strict=True)] for step in (1e-5, -1e-5)
    )
    expected = (reference(*forth) - reference(*back)) / 2e-5
    inputs, directions = ([ops.convert_to_tensor(x) for x in given] for given in (inputs, directions))
    for way in forward_modes(name):
        found = array(way(function, inputs, directions))
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.skipif(BACKEND == "jax", reason="JAX refuses it by name")
def test_forward_mode_of_a_feature_map_is_right_at_its_bend_too():
    x = np.array([-2.0, -0.1, 0.0, 0.5], "float32")
    point, direction = [ops.convert_to_tensor(x)], [ops.ones((4,))]
    for way in forward_modes("elu"):
        np.testing.assert_allclose(array(way(elu_plus_one, point, direction)), np.exp(np.minimum(x, 0)), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="JAX is compiled above, torch is not")
@pytest.mark.parametrize(
    ("name", "mode"),
    [("gated delta", "graph"), ("full", "xla"), ("causal", "xla"), ("vector", "xla"), ("delta", "xla")],
)
def test_second_derivatives_are_right_in_graphs_and_right_or_refused_under_xla(name, mode):
    import tensorflow as tf

    (function, reference), inputs = FORMS[name], inputs_of(name)
    one, other = ([normal(*x.shape, seed=(side, i)) for i, x in enumerate(inputs)] for side in (21, 22))

    def slope(*inputs):
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                value = ops.sum(ops.sin(function(*inputs)) * UPSTREAM)
            slope = sum(ops.sum(g * d) for g, d in zip(inner.gradient(value, inputs), one, strict=True))
        return sum(ops.sum(g * d) for g, d in zip(outer.gradient(slope, inputs), other, strict=True))

    run = partial(compiled(slope, mode), *map(tf.convert_to_tensor, inputs))
    if (name, mode) == ("delta", "xla"):
        with pytest.raises(NotImplementedError, match="second derivative of delta_rule cannot be compiled"):
            run()
    else:
        expected = second_difference(reference, inputs, UPSTREAM, one, other)
        assert abs(float(run()) - expected) < 1e-3 * abs(expected) + 0.01


def third_derivative(function, x):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as three:
            three.watch(x)
            with tf.GradientTape() as two:
                two.watch(x)
                with tf.GradientTape() as one:
                    one.watch(x)
                    value = function(x)
                first = one.gradient(value, x)
            second = two.gradient(first, x)
        return [float(y) for y in (value, first, second, three.gradient(second, x))]
    if BACKEND == "jax":
        import jax

        found, y = [], function
        for _ in range(4):
            found.append(float(y(x)))
            y = jax.grad(y)
        return found
    import torch

    x = torch.tensor(x, requires_grad=True)
    found = [function(x)]
    for _ in range(3):
        found.append(torch.autograd.grad(found[-1], x, create_graph=True)[0])
    return [float(y.detach()) for y in found]


def test_a_gradient_of_ones_own_has_the_higher_derivatives_of_the_plain_function():
    def function(x):
        return own_gradient(
            lambda x: (x**4, (x**3,)), lambda _, kept, upstream: (4 * kept[0] * upstream,), lambda x: x**4, (x,)
        )

    assert third_derivative(function, np.float32(2)) == [16, 32, 48, 48]


def test_the_first_derivative_is_ones_own():
    def function(x):
        return own_gradient(lambda x: (x**4, ()), lambda _, __, upstream: (7 * upstream,), lambda x: x**4, (x,))

    (found,) = gradients(function, [np.float32([2])], np.float32([1]))
    assert found == [7]


def test_elu_plus_one_too_has_a_second_derivative():
    _, first, second, third = third_derivative(elu_plus_one, np.float32(-1))
    assert np.allclose([first, second, third], np.exp(-1), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has a forward mode for any function")
def test_forward_mode_is_refused():
    import jax

    x = normal(1, 5, 1, 2)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: linear_attention(x, x, x), (x,), (x,))
