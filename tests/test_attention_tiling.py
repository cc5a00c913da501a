"""Truths about ``lib.attention.tiling``, on whichever backend KERAS_BACKEND names."""

import math
import re
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from attention_references import array, close, normal
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from lib._backend import vjp
from lib.attention import delta_rule, linear_attention, retention
from lib.attention.tiling import loop, padded, shape_only, tile, tiles

pytestmark = pytest.mark.backends


@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 8))
def test_tiles_cover_time_and_pad_less_than_one_multiple_each(time, multiple, longest):
    T, count, padding = tiles(np.zeros((1, time)), longest * multiple, multiple)
    assert T * count == time + padding
    assert T % multiple == 0
    assert longest * multiple >= T
    assert 0 <= padding < count * multiple


def test_padding_is_zero_behind_and_nothing_stays_nothing():
    x = ops.convert_to_tensor(normal(2, 5, 3))
    assert padded(x, 0) is x
    whole, nothing = padded((x, None), 3)
    assert nothing is None
    assert close(whole, np.pad(array(x), ((0, 0), (0, 3), (0, 0))), 0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_a_loop_hands_the_state_on_and_lays_blocks_side_by_side(count, reverse):
    x = normal(2, 3 * count, 5)

    def body(i, state):
        here = tile(ops.convert_to_tensor(x), i, 3)
        (total,) = state
        return (total + ops.sum(here, axis=1),), (here + total[:, None],)

    (total,), (blocks,) = loop(body, (ops.zeros((2, 5)),), count, reverse)
    assert close(total, x.sum(axis=1))
    sums = x.reshape(2, count, 3, 5).sum(axis=2)
    sums = sums[:, ::-1] if reverse else sums
    before = np.cumsum(sums, axis=1) - sums
    before = before[:, ::-1] if reverse else before
    assert close(blocks, x + np.repeat(before, 3, axis=1))


def test_a_pullback_gives_gradients_and_zero_where_nothing_depends():
    x, y = (ops.convert_to_tensor(normal(4, seed=i)) for i in range(2))
    (out,), other, pullback = vjp(lambda x, y: ((ops.square(x),), y), x, y)
    assert close(out, array(x) ** 2)
    assert close(other, array(y))
    dx, dy = pullback((y,))
    assert close(dx, 2 * array(x) * array(y))
    assert not np.any(array(dy))


def test_a_symbol_for_a_size_asks_for_a_shape_alone():
    assert shape_only(SimpleNamespace(shape=(2, "time", 4)))
    assert not shape_only(SimpleNamespace(shape=(0, 7, 4)))
    assert not shape_only(SimpleNamespace(shape=(None, 7, 4)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has a time that is not known")
@pytest.mark.parametrize("time", [1, 8, 9, 24])
def test_a_time_that_is_not_known_is_cut_into_no_more_tiles_than_it_fills(time):
    import tensorflow as tf

    cut = tf.function(lambda x: tiles(x, 8)[1:], input_signature=[tf.TensorSpec((1, None, 2))])
    count, padding = map(int, cut(tf.zeros((1, time, 2))))
    assert (count, padding) == (-(-time // 8), -time % 8)


FORMS = {
    "full": linear_attention,
    "causal": partial(linear_attention, causal=True),
    "retention": retention,
    "delta rule": lambda q, k, v: delta_rule(q, k / 4, v, ops.ones_like(v[..., 0])),
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA through TensorFlow")
@pytest.mark.parametrize("batch", [3, None])
@pytest.mark.parametrize("form", FORMS)
def test_no_array_in_a_program_of_xla_is_larger_than_an_input(form, batch):
    """A slice whose sizes XLA is not told doubles every axis first: sixteen times the memory."""
    import tensorflow as tf

    x = ops.convert_to_tensor(normal(3, 2048, 2, 16))

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec((batch, 2048, 2, 16))])
    def attend(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = FORMS[form](x, x, x)
        return out, tape.gradient(out, x)

    program = attend.experimental_get_compiler_ir(x)(stage="optimized_hlo")
    sizes = [math.prod(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", program)]
    assert max(sizes) == array(x).size
