"""Which axes of a kernel are inputs and which outputs, against the linear map that each layer of Keras computes."""

from __future__ import annotations

import inspect
import math

import keras
import numpy as np
import pytest
from keras import layers, ops

from lib.initializers import DeltaOrthogonal, KernelAxes, Orthogonal, Scaled, fans, kernel_axes

# The layers run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

TOLD = "input_axes" in inspect.signature(keras.initializers.VarianceScaling).parameters  # not by Keras 3.8

#: A layer by the initializer of its kernel, the shape of its inputs, and the axes of the kernel, written by hand.
LAYERS = {
    "Dense": (lambda k: layers.Dense(5, kernel_initializer=k), (4,), {}),
    "EinsumDense to heads": (
        lambda k: layers.EinsumDense("abc,cde->abde", (None, 3, 5), kernel_initializer=k),
        (1, 4),
        {"in_axes": 0, "out_axes": (1, 2)},
    ),
    "EinsumDense from heads": (
        lambda k: layers.EinsumDense("...cd,cde->...e", 5, kernel_initializer=k),
        (3, 4),
        {"in_axes": (0, 1), "out_axes": 2},
    ),
    "EinsumDense, outputs first": (
        lambda k: layers.EinsumDense("ab,cb->ac", 5, kernel_initializer=k),
        (4,),
        {"in_axes": 1, "out_axes": 0},
    ),
    "EinsumDense, a map for each": (
        lambda k: layers.EinsumDense("abc,bcd->abd", (3, 5), kernel_initializer=k),
        (3, 4),
        {"in_axes": 1, "out_axes": 2, "batch_axes": 0},
    ),
    "Conv1D": (lambda k: layers.Conv1D(5, 3, padding="same", kernel_initializer=k), (7, 4), {}),
    "Conv2D": (lambda k: layers.Conv2D(5, 3, padding="same", kernel_initializer=k), (5, 5, 2), {}),
    "Conv3D": (lambda k: layers.Conv3D(3, 3, padding="same", kernel_initializer=k), (3, 3, 3, 2), {}),
    "Conv2D with groups": (
        lambda k: layers.Conv2D(6, 3, padding="same", groups=2, kernel_initializer=k),
        (5, 5, 4),
        {"groups": 2},
    ),
    "Conv1DTranspose": (
        lambda k: layers.Conv1DTranspose(5, 3, padding="same", kernel_initializer=k),
        (7, 4),
        {"in_axes": -1, "out_axes": -2},
    ),
    "Conv2DTranspose": (
        lambda k: layers.Conv2DTranspose(2, 3, padding="same", kernel_initializer=k),
        (5, 5, 4),
        {"in_axes": -1, "out_axes": -2},
    ),
    "Conv3DTranspose": (
        lambda k: layers.Conv3DTranspose(2, 3, padding="same", kernel_initializer=k),
        (3, 3, 3, 3),
        {"in_axes": -1, "out_axes": -2},
    ),
    "DepthwiseConv1D": (
        lambda k: layers.DepthwiseConv1D(3, padding="same", depth_multiplier=2, depthwise_initializer=k),
        (7, 3),
        {"in_axes": (), "out_axes": -1, "batch_axes": -2},
    ),
    "DepthwiseConv2D": (
        lambda k: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, depthwise_initializer=k),
        (5, 5, 3),
        {"in_axes": (), "out_axes": -1, "batch_axes": -2},
    ),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def array(x):
    return ops.convert_to_numpy(ops.cast(x, "float32")).astype(np.float64)


def linear_map(layer, shape):
    """The matrix (inputs, outputs) that a layer without bias multiplies by: its outputs of all unit inputs."""
    n = math.prod(shape)
    return array(layer(np.eye(n, dtype="float32").reshape(n, *shape))).reshape(n, -1)


@every_layer
def test_fans_are_the_connections_of_an_output_and_of_an_input(name):
    make, shape, axes = LAYERS[name]
    layer = make("ones")
    connected = linear_map(layer, shape) != 0
    # Of inner positions: at the edge of a convolution there are fewer.
    counted = connected.sum(axis=0).max(), connected.sum(axis=1).max()
    assert fans(layer.kernel.shape, **axes) == counted
    assert kernel_axes(layer).fans(layer.kernel.shape) == counted
    assert kernel_axes(make("ones")) == kernel_axes(layer)  # built or not


@every_layer
@pytest.mark.parametrize("fan", ["fan_in", "fan_out"])
def test_the_squares_of_the_weights_of_an_output_or_an_input_sum_to_one(name, fan):
    make, shape, axes = LAYERS[name]
    # All entries of this law are ±σ, so the sums are exact.
    squares = linear_map(make(Scaled(fan, "rademacher", seed=1, **axes)), shape) ** 2
    assert squares.sum(axis=int(fan == "fan_out")).max() == pytest.approx(1, rel=1e-5)


WIDE = {
    "Dense": (lambda k: layers.Dense(2000, kernel_initializer=k), (300,), {}),
    "EinsumDense": (
        lambda k: layers.EinsumDense("abc,cde->abde", (None, 40, 50), kernel_initializer=k),
        (1, 300),
        {"in_axes": 0, "out_axes": (1, 2)},
    ),
    "Conv2D with groups": (
        lambda k: layers.Conv2D(2000, 3, groups=4, kernel_initializer=k),
        (3, 3, 200),
        {"groups": 4},
    ),
    "Conv2DTranspose": (
        lambda k: layers.Conv2DTranspose(200, 3, padding="same", kernel_initializer=k),
        (7, 7, 30),
        {"in_axes": -1, "out_axes": -2},
    ),
    "Conv2DTranspose with strides": (
        lambda k: layers.Conv2DTranspose(200, 4, 2, padding="same", kernel_initializer=k),
        (7, 7, 60),
        {"in_axes": -1, "out_axes": -2, "gain": 2.0},
    ),
    "DepthwiseConv2D": (
        lambda k: layers.DepthwiseConv2D(3, depthwise_initializer=k),
        (3, 3, 4000),
        {"in_axes": (), "out_axes": -1, "batch_axes": -2},
    ),
    "SeparableConv2D": (
        lambda k: layers.SeparableConv2D(
            1000,
            3,
            depthwise_initializer=Scaled(seed=1, in_axes=(), out_axes=-1, batch_axes=-2),
            pointwise_initializer=k,
        ),
        (3, 3, 1000),
        {},
    ),
}


@pytest.mark.parametrize("name", WIDE)
def test_outputs_of_a_wide_layer_have_variance_one(name):
    make, shape, axes = WIDE[name]
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype("float32")
    y = array(make(Scaled("fan_in", seed=2, **axes))(x))
    if name.startswith("Conv2DTranspose"):
        y = y[:, 2:-2, 2:-2]  # the edge is reached by fewer positions
    # At least 200 independent filters see 4 inputs; the length of an input of 270 numbers scatters by 4 %.
    assert np.mean(y**2) == pytest.approx(1, abs=0.1)


@pytest.mark.skipif(not TOLD, reason="Keras 3.8 tells no initializer its axes")
def test_einsum_dense_tells_its_axes():
    layer = layers.EinsumDense("abc,cde->abde", (None, 4, 8), kernel_initializer=Scaled("fan_in", "rademacher"))
    layer.build((None, 3, 16))
    np.testing.assert_allclose(np.abs(array(layer.kernel)), 0.25, rtol=1e-6)
    heads = layers.MultiHeadAttention(4, 8, kernel_initializer=Scaled("fan_in", "rademacher"))
    heads.build((None, 3, 16), (None, 3, 16))
    variances = [np.mean(array(w) ** 2) for w in heads.trainable_weights if len(w.shape) == 3]
    np.testing.assert_allclose(variances, [1 / 16] * 3 + [1 / 32], rtol=1e-5)
    orthogonal = layers.EinsumDense("abc,cde->abde", (None, 4, 8), kernel_initializer=Orthogonal(seed=1))
    singular = np.linalg.svd(linear_map(orthogonal, (1, 16)), compute_uv=False)
    np.testing.assert_allclose(singular, 1, rtol=1e-5)


#: Layers that are one linear map or several of them side by side: the singular values are those of the kernel.
ISOMETRIES = {
    "EinsumDense to heads": LAYERS["EinsumDense to heads"],
    "EinsumDense from heads": LAYERS["EinsumDense from heads"],
    "EinsumDense, a map for each": LAYERS["EinsumDense, a map for each"],
    "patches": (lambda k: layers.Conv2D(5, 2, strides=2, kernel_initializer=k), (4, 4, 3), {}),
    "patches with groups": (
        lambda k: layers.Conv2D(6, 2, strides=2, groups=3, kernel_initializer=k),
        (4, 4, 6),
        {"groups": 3},
    ),
    "depthwise patches": (
        lambda k: layers.DepthwiseConv2D(2, strides=2, depth_multiplier=3, depthwise_initializer=k),
        (4, 4, 2),
        {"in_axes": (), "out_axes": -1, "batch_axes": -2},
    ),
    "Conv2DTranspose of one position": (
        lambda k: layers.Conv2DTranspose(5, 1, kernel_initializer=k),
        (2, 2, 3),
        {"in_axes": -1, "out_axes": -2},
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ISOMETRIES)
def test_orthogonal_kernels_give_the_layer_equal_singular_values(name, dtype):
    make, shape, axes = ISOMETRIES[name]
    layer = make(lambda shape, dtype=dtype: Orthogonal(1.5, seed=1, **axes)(shape, dtype))
    singular = np.linalg.svd(linear_map(layer, shape), compute_uv=False)
    np.testing.assert_allclose(singular, 1.5, rtol=1e-5 if dtype == "float32" else 0.02)


def test_maps_are_drawn_independently():
    kernel = array(Orthogonal(seed=1, groups=2)((1, 4, 8)))[0]
    assert np.abs(kernel[:, :4] - kernel[:, 4:]).max() > 0.1


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 4)])
def test_a_single_orthogonal_map_is_that_of_keras(shape):
    expected = array(keras.initializers.Orthogonal(seed=3)(shape))
    np.testing.assert_allclose(array(Orthogonal(seed=3)(shape)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "axes"),
    [
        (lambda k: layers.Conv2D(8, 3, padding="same", groups=2, kernel_initializer=k), {"groups": 2}),
        (
            lambda k: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, depthwise_initializer=k),
            {"in_axes": (), "out_axes": -1, "batch_axes": -2},
        ),
        (
            lambda k: layers.Conv2DTranspose(6, (3, 5), padding="same", kernel_initializer=k),
            {"in_axes": -1, "out_axes": -2},
        ),
    ],
)
def test_delta_orthogonal_convolutions_of_every_type_multiply_lengths_by_the_gain(make, axes):
    x = np.random.default_rng(0).standard_normal((3, 5, 6, 4)).astype("float32")
    y = array(make(DeltaOrthogonal(gain=2.0, seed=1, **axes))(x))
    lengths = np.linalg.norm(y.reshape(3, -1), axis=1) / np.linalg.norm(x.reshape(3, -1), axis=1)
    np.testing.assert_allclose(lengths, 2, rtol=1e-5)


def test_matrices_hold_a_filter_a_column_and_give_the_kernel_back():
    kernel = np.arange(2 * 3 * 4 * 6, dtype="float32").reshape(2, 3, 4, 6)
    grouped = KernelAxes(groups=3)
    matrices = array(grouped.matrices(kernel))
    assert matrices.shape == (3, 24, 2)
    np.testing.assert_array_equal(matrices[1, :, 0], kernel[..., 2].ravel())  # the first output of the second group
    depthwise = array(KernelAxes((), -1, -2).matrices(kernel))
    np.testing.assert_array_equal(depthwise[3, :, 5], kernel[:, :, 3, 5].ravel())
    for axes in (
        grouped,
        KernelAxes((), -1, -2),
        KernelAxes(-1, -2),
        KernelAxes((0, 2), (3, 1)),
        KernelAxes(0, 3, 2),
    ):
        np.testing.assert_array_equal(array(axes.kernel(axes.matrices(kernel), kernel.shape)), kernel)


@pytest.mark.parametrize("initializer", [Scaled, Orthogonal, DeltaOrthogonal])
def test_axes_survive_saving(initializer, tmp_path):
    axes = {"in_axes": (-1,), "out_axes": (-2,)}
    config = initializer(seed=np.int64(3), **axes).get_config()
    assert {name: config[name] for name in axes} == axes
    assert config["seed"] == 3
    grouped = initializer(seed=1, in_axes=-2, out_axes=3, groups=2)
    model = keras.Sequential(
        [keras.Input((4, 4, 4)), layers.Conv2D(8, 3, groups=2, kernel_initializer=grouped, name="grouped")],
    )
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras").get_layer("grouped").kernel_initializer
    np.testing.assert_array_equal(array(copy((3, 3, 2, 8))), array(grouped((3, 3, 2, 8))))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"in_axes": 0}, "in_axes and out_axes must be given together, got 0 and None"),
        ({"in_axes": 0, "out_axes": 0}, "batch_axes, in_axes and out_axes must differ"),
        ({"in_axes": 0, "out_axes": -4}, "batch_axes, in_axes and out_axes must differ"),
        ({"in_axes": 0, "out_axes": 4}, r"out_axes must be axes of a kernel of shape \(2, 3, 4, 6\), got \(4,\)"),
        ({"batch_axes": -5}, "batch_axes must be axes of a kernel"),
        ({"batch_axes": -1}, "batch_axes, in_axes and out_axes must differ"),
        ({"in_axes": True, "out_axes": 0}, "in_axes must be an axis or a sequence of axes, got True"),
        ({"in_axes": 0, "out_axes": 1.5}, "out_axes must be an axis or a sequence of axes, got 1.5"),
        ({"in_axes": "a", "out_axes": 1}, "in_axes must be an axis or a sequence of axes, got 'a'"),
        ({"groups": 0}, "groups must be a positive integer, got 0"),
        ({"groups": 4}, "groups must divide the 6 outputs"),
    ],
)
def test_axes_that_do_not_fit_are_refused_by_name(axes, message):
    for use in (fans, lambda shape, **axes: Scaled(**axes)(shape), lambda shape, **axes: Orthogonal(**axes)(shape)):
        with pytest.raises(ValueError, match=f"^{message}"):
            use((2, 3, 4, 6), **axes)


def test_layers_whose_kernel_is_not_known_are_refused_by_name():
    for layer in (layers.SeparableConv2D(3, 2), layers.LSTM(2), layers.ReLU()):
        with pytest.raises(ValueError, match=r"^layer must be Dense, EinsumDense or a convolution"):
            kernel_axes(layer)
    with pytest.raises(ValueError, match="must name each axis of its kernel once"):
        kernel_axes(layers.EinsumDense("ab,bb->ab", 4))
