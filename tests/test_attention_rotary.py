"""Truths about ``lib.attention.rotary``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from attention_references import BACKEND, array, normal
from keras import ops

from lib.attention import rotate
from lib.attention.rotary import places

pytestmark = pytest.mark.backends


def turned(x, positions, max_wavelength=10_000.0):
    """By complex numbers; NumPy, float64. Positions (batch, time) or (time,)."""
    z = np.asarray(x, "float64")[..., ::2] + 1j * np.asarray(x, "float64")[..., 1::2]
    dim = x.shape[-1]
    angle = np.asarray(positions)[..., None] * max_wavelength ** (-2 * np.arange(dim // 2) / dim)
    z = z * np.exp(1j * angle)[..., None, :]
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


@pytest.mark.parametrize("positions", [np.arange(7), np.array([[0, 0, 1, 2, 3, 3, 4], [5, 6, 7, 8, 9, 10, 400]])])
@pytest.mark.parametrize("wavelength", [10_000.0, 50.0])
def test_a_turn_is_a_product_of_complex_numbers(positions, wavelength):
    x = normal(2, 7, 3, 6)
    out = array(rotate(x, positions, max_wavelength=wavelength))
    assert np.max(np.abs(out - turned(x, positions, wavelength))) < 1e-4
    assert np.max(np.abs(np.linalg.norm(out, axis=-1) - np.linalg.norm(x, axis=-1))) < 1e-5


def test_products_depend_on_distances_alone():
    q, k = normal(1, 5, 2, 8, seed=1), normal(1, 5, 2, 8, seed=2)

    def products(first):
        here = np.arange(first, first + 5)
        return array(ops.einsum("bihd,bjhd->bhij", rotate(q, here), rotate(k, here)))

    assert np.max(np.abs(products(0) - products(90))) < 1e-4
    assert np.max(np.abs(products(0) - np.einsum("bihd,bjhd->bhij", q, k))) > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", *(["float64"] if BACKEND != "jax" else [])])
def test_the_type_stays_and_angles_are_exact_far_away(dtype):
    x, far = ops.cast(normal(1, 1, 1, 4), dtype), np.array([4097])
    out = rotate(x, far)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    exact = turned(array(ops.cast(x, "float32")), far)
    assert np.max(np.abs(array(ops.cast(out, "float32")) - exact)) < 2e-2  # 4097 itself is 4096 in half precision


def test_places_count_the_tokens_that_count():
    x = np.zeros((2, 5, 3), "float32")
    assert array(places(x)).tolist() == [0, 1, 2, 3, 4]
    mask = np.array([[False, False, True, True, True], [True, False, True, False, False]])
    assert array(places(x, mask)).tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 1, 1]]
    assert array(places(x, mask, np.array([10, 20], "int32"))).tolist()[1] == [20, 20, 21, 21, 21]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotate(normal(1, 5, 1, 3), np.arange(5)), "x must have an even number of features a head"),
        (lambda: rotate(normal(1, 5, 4), np.arange(5)), "x must have shape"),
        (lambda: rotate(normal(1, 5, 1, 4), np.arange(4)), "positions must have shape"),
        (lambda: rotate(normal(3, 5, 1, 4), np.zeros((2, 5))), "positions must have shape"),
        (lambda: rotate(np.zeros((1, 5, 1, 4), int), np.arange(5)), "x must hold floats"),
        (lambda: rotate(normal(1, 5, 1, 4), None), "positions must be a tensor of numbers, got None"),
        (lambda: rotate(normal(1, 5, 1, 4), 3), "positions must have shape"),
    ],
)
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
