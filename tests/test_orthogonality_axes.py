"""Orthogonality of kernels that are not (*, in, out), and of kernels at the ends of what float32 holds."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import scipy.linalg
from keras import layers, ops
from numerics import array, compiled

from lib.orthogonality import (
    MutualCoherence,
    OffDiagonalOrthogonality,
    Orthogonalized,
    SelfOrthogonality,
    SoftOrthogonality,
    SpectralIsometry,
    filter_angles,
    kernel_matrix,
    polar,
    self_orthogonality,
    sign_agreement,
)

# The layers run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()

DEPTHWISE = {"in_axes": (), "out_axes": -1, "batch_axes": -2}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def linear_map(layer, shape):
    """The matrix (inputs, outputs) that a layer without bias multiplies by."""
    n = math.prod(shape)
    return array(layer(np.eye(n, dtype="float32").reshape(n, *shape))).astype(np.float64).reshape(n, -1)


#: Layers that are one linear map or several side by side: their singular values tell whether they are orthogonal.
LAYERS = {
    "Dense": (lambda: layers.Dense(3), (5,)),
    "EinsumDense to heads": (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (1, 8)),
    "EinsumDense from heads": (lambda: layers.EinsumDense("...cd,cde->...e", 3), (2, 4)),
    "EinsumDense, outputs first": (lambda: layers.EinsumDense("abc,dec->abde", (None, 2, 3)), (1, 4)),
    "EinsumDense, a map for each": (lambda: layers.EinsumDense("abc,bcd->abd", (3, 2)), (3, 4)),
    "Conv2D of patches": (lambda: layers.Conv2D(3, 2, strides=2), (4, 4, 2)),
    "Conv2D of patches with groups": (lambda: layers.Conv2D(4, 2, strides=2, groups=2), (4, 4, 2)),
    "Conv2DTranspose of a position": (lambda: layers.Conv2DTranspose(3, 1), (2, 2, 5)),
    "DepthwiseConv2D of patches": (lambda: layers.DepthwiseConv2D(2, strides=2, depth_multiplier=3), (4, 4, 2)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
def test_the_layer_computes_an_orthogonal_map(name):
    make, shape = LAYERS[name]
    layer = Orthogonalized(make(), sigma_min=1e-3)
    np.testing.assert_allclose(np.linalg.svd(linear_map(layer, shape), compute_uv=False), 1, rtol=1e-5)
    stored = np.linalg.svd(linear_map(layer.layer, shape), compute_uv=False)
    assert abs(stored - 1).max() > 0.05  # not so without the wrapper
    copy = Orthogonalized.from_config(layer.get_config())
    copy.build((None, *shape))
    copy.set_weights(layer.get_weights())
    np.testing.assert_allclose(array(copy.kernel), array(layer.kernel), atol=1e-6)


def test_filters_of_a_transposed_convolution_are_those_of_its_outputs():
    layer = Orthogonalized(layers.Conv2DTranspose(3, 2), sigma_min=1e-3)
    layer.build((None, 4, 4, 5))
    kernel = array(layer.kernel)  # (2, 2, outputs, inputs)
    np.testing.assert_allclose(np.einsum("ijoc,ijpc->op", kernel, kernel), np.eye(3), atol=1e-5)


class Unknown(layers.Layer):
    """A layer of a type of its own, whose kernel is (outputs, inputs, positions)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, shape[-1], 2), initializer=keras.initializers.GlorotNormal(1))

    def call(self, x):
        return ops.einsum("bpi,oip->bo", x, self.kernel)

    def compute_output_shape(self, shape):
        return (shape[0], 3)


def test_axes_of_another_layer_must_be_given():
    with pytest.raises(ValueError, match=r"^in_axes and out_axes must be given with such a layer, got <Unknown"):
        Orthogonalized(Unknown()).build((None, 2, 4))
    layer = Orthogonalized(Unknown(), sigma_min=1e-3, in_axes=1, out_axes=0)
    np.testing.assert_allclose(np.linalg.svd(linear_map(layer, (2, 4)), compute_uv=False), 1, rtol=1e-5)
    config = layer.get_config()
    assert (config["in_axes"], config["out_axes"]) == ((1,), (0,))


# --- what a kernel that is not free is answered ---------------------------------------------------------------


@pytest.mark.parametrize("of", [Orthogonalized, SelfOrthogonality])
@pytest.mark.parametrize("wrapper", [Orthogonalized, SelfOrthogonality, layers.TimeDistributed])
def test_wrappers_of_wrappers_are_refused(wrapper, of):
    with pytest.raises(ValueError, match=r"^layer must be a layer with a kernel of its own, not a wrapper"):
        of(wrapper(layers.Dense(2)))


def test_a_quantized_layer_is_refused_by_name():
    model = keras.Sequential([keras.Input((8,)), Orthogonalized(layers.Dense(6), sigma_min=0.1)])
    model.quantize("int8")
    with pytest.raises(ValueError, match="layer must not be quantized"):
        model.predict(np.ones((2, 8)), verbose=0)
    with pytest.raises(ValueError, match="layer must not be quantized"):
        _ = model.layers[0].kernel
    plain = keras.Sequential([keras.Input((8,)), Orthogonalized(layers.Dense(6), sigma_min=0.1)])
    x = normal(50, 8).astype("float32")
    expected = array(plain(x))
    inner = plain.layers[0].layer
    inner.kernel.assign(plain.layers[0].kernel)  # as the docstring advises
    inner.quantize("int8")
    assert np.linalg.norm(array(inner(x)) - expected) < 0.02 * np.linalg.norm(expected)


def test_lora_is_refused_by_name():
    with pytest.raises(ValueError, match="layer must not be given LoRA"):
        Orthogonalized(layers.Dense(3, lora_rank=2)).build((None, 4))
    layer = Orthogonalized(layers.EinsumDense("ab,bc->ac", 3), sigma_min=0.1)
    layer.build((None, 4))
    layer.layer.enable_lora(2)
    with pytest.raises(ValueError, match="layer must not be given LoRA"):
        layer(np.ones((1, 4), "float32"))


def test_layers_with_two_kernels_or_none_are_refused():
    with pytest.raises(ValueError, match="layer must have a kernel"):
        Orthogonalized(layers.SeparableConv2D(3, 2)).build((None, 4, 4, 2))
    borrowed = layers.Layer()
    borrowed.kernel = np.eye(3, dtype="float32")
    with pytest.raises(ValueError, match="layer must have a variable as kernel"):
        Orthogonalized(borrowed).build((None, 3))


# --- penalties of several maps --------------------------------------------------------------------------------


def of_block_diagonal(measure, matrices):
    """A measure of WᵀW − I, or of WWᵀ − I where a block is wide, of the block diagonal matrix."""
    W = scipy.linalg.block_diag(*matrices)
    d, k = matrices[0].shape
    lengths = np.linalg.norm(W, axis=0)
    gram = W.T @ W
    if measure is SoftOrthogonality:
        return np.sum((gram - np.eye(len(gram))) ** 2)
    if measure is OffDiagonalOrthogonality:
        return np.sum((gram - np.diag(np.diag(gram))) ** 2)
    if measure is MutualCoherence:
        return np.max(np.abs(gram / np.outer(lengths, lengths) - np.eye(len(gram))))
    smaller = gram if k <= d else W @ W.T
    return np.max(np.abs(np.linalg.eigvalsh(smaller) - 1))


@pytest.mark.parametrize(
    "measure", [SoftOrthogonality, OffDiagonalOrthogonality, SpectralIsometry, MutualCoherence]
)
@pytest.mark.parametrize("name", ["groups", "wide groups", "depthwise", "heads"])
def test_penalties_are_those_of_the_block_diagonal_matrix(measure, name):
    options = {"iterations": 300} if measure is SpectralIsometry else {}
    if name == "heads":
        kernel, axes = normal(6, 2, 2), {"in_axes": 0, "out_axes": (1, 2)}
        matrices = [kernel.reshape(6, 4)]
    elif name == "depthwise":
        kernel, axes = normal(2, 2, 3, 2), DEPTHWISE
        matrices = [kernel[:, :, c].reshape(4, 2) for c in range(3)]
    else:
        kernel, axes = normal(1, 2, 2, 6 if name == "groups" else 18), {"groups": 3}
        k = kernel.shape[-1] // 3
        matrices = [kernel[..., g * k : (g + 1) * k].reshape(4, k) for g in range(3)]
    penalty = measure(0.5, **options, **axes)
    assert float(penalty(kernel)) == pytest.approx(0.5 * of_block_diagonal(measure, matrices), rel=1e-4)
    copy = keras.regularizers.deserialize(keras.regularizers.serialize(penalty))
    assert float(copy(kernel)) == float(penalty(kernel))
    assert [*array(kernel_matrix(kernel, **axes)).shape] == [
        *([len(matrices)] * (len(matrices) > 1)),
        *matrices[0].shape,
    ]


def test_angles_are_those_between_filters_of_one_map():
    kernel = normal(3, 2, 6)
    angles = filter_angles(kernel, groups=2)
    np.testing.assert_allclose(angles[1], filter_angles(kernel[..., 3:]), rtol=1e-6)
    np.testing.assert_allclose(
        filter_angles(kernel, in_axes=1, out_axes=0), filter_angles(np.moveaxis(kernel, 0, -1)), rtol=1e-6
    )


# --- signs of several maps ------------------------------------------------------------------------------------


def penalty_of(y, lambda_mean=100.0, lambda_pair=1.0):
    t = np.tanh(10 * y)
    t = t / np.linalg.norm(t, axis=0)
    theta = t.T @ t
    off = theta[~np.eye(len(theta), dtype=bool)]
    return lambda_mean * off.sum() ** 2 + lambda_pair * np.sum(off**2)


SIGNS = {
    "groups": (
        lambda: layers.Conv1D(6, 2, groups=3),
        (7, 3),
        lambda y: [y[..., 2 * g : 2 * g + 2] for g in range(3)],
    ),
    "depthwise": (
        lambda: layers.DepthwiseConv1D(2, depth_multiplier=3),
        (7, 2),
        lambda y: [y[..., 3 * c : 3 * c + 3] for c in range(2)],
    ),
    "one depth": (lambda: layers.DepthwiseConv1D(2, depth_multiplier=3), (7, 1), lambda y: [y]),
    "heads": (
        lambda: layers.EinsumDense("abc,cde->adbe", (2, 7, 3)),
        (7, 4),
        lambda y: [y.transpose(0, 2, 1, 3).reshape(-1, 6)],
    ),
    "from heads": (lambda: layers.EinsumDense("...cd,cde->...e", 3), (7, 2, 4), lambda y: [y]),
    "a map for each": (
        lambda: layers.EinsumDense("abc,bcd->abd", (3, 2)),
        (3, 4),
        lambda y: [y[:, c] for c in range(3)],
    ),
}


@pytest.mark.parametrize("name", SIGNS)
def test_the_module_compares_the_filters_of_each_map(name):
    make, shape, parts = SIGNS[name]
    x = normal(5, *shape).astype("float32")
    module = SelfOrthogonality(make())
    y = array(module(x, training=True)).astype(np.float64)
    expected = sum(penalty_of(part.reshape(-1, part.shape[-1])) for part in parts(y))
    assert float(module.losses[0]) == pytest.approx(expected, rel=1e-3)
    floored = SelfOrthogonality(module.layer, subtract_floor=True)
    floored(x, training=True)
    k = parts(y)[0].shape[-1]
    floor = len(parts(y)) * 201 * k * (k - 1) / (parts(y)[0].size / k)
    assert float(module.losses[0]) - float(floored.losses[0]) == pytest.approx(floor, rel=1e-3)


# --- the ends of float32 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_neither_polar_factors_nor_cosines_depend_on_the_scale(scale):
    V = normal(6, 4)
    tiny = (scale * V).astype("float32")
    np.testing.assert_allclose(array(polar(tiny)), scipy.linalg.polar(V)[0], atol=1e-5)
    assert float(MutualCoherence(1.0)(tiny)) == pytest.approx(float(MutualCoherence(1.0)(V)), rel=1e-5)
    assert float(MutualCoherence(1.0)(np.full((3, 2), scale, "float32"))) == pytest.approx(1, rel=1e-6)
    expected = array(sign_agreement(V, scale_invariant=True))
    np.testing.assert_allclose(array(sign_agreement(tiny, scale_invariant=True)), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_smallest_kernels_of_half_precision_have_polar_factors(dtype):
    V = ops.cast(1e-6 * normal(5, 3), dtype)
    W = array(polar(V))
    assert W.dtype == np.float32
    np.testing.assert_allclose(W.T @ W, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_kernel_without_a_polar_factor_is_an_error_and_nan_where_none_can_be_raised(value):
    V = np.full((3, 2), value, "float32")
    with pytest.raises(ValueError, match=r"^matrix must be finite and not zero"):
        polar(V)
    layer = Orthogonalized(layers.Dense(2, kernel_initializer=keras.initializers.Constant(value)), sigma_min=0.1)
    with pytest.raises(ValueError, match="kernel must be finite and not zero"):
        layer(np.ones((1, 3), "float32"))
    if BACKEND == "torch":
        return
    factor = compiled(lambda V: polar(V, 0.1), "xla" if BACKEND == "tensorflow" else "jit")
    assert np.isnan(array(factor(ops.convert_to_tensor(V)))).all()
    if BACKEND == "tensorflow":
        with pytest.raises(Exception, match="matrix must be finite and not zero"):
            compiled(lambda V: polar(V, 0.1), "graph")(ops.convert_to_tensor(V))


def test_a_group_that_is_zero_is_an_error_too():
    layer = Orthogonalized(layers.Conv1D(4, 1, groups=2), sigma_min=0.1)
    layer.build((None, 3, 4))
    kernel = array(layer.layer.kernel).copy()
    kernel[..., 2:] = 0
    layer.layer.kernel.assign(kernel)
    with pytest.raises(ValueError, match="kernel must be finite and not zero"):
        _ = layer.kernel


# --- too few samples ------------------------------------------------------------------------------------------


def test_one_sample_of_an_unknown_number_is_an_error_or_nan():
    if BACKEND != "tensorflow":  # elsewhere the number is known when the function is compiled
        for samples, got in ((1, "one"), (0, "none")):
            with pytest.raises(ValueError, match=f"at least two samples.*got {got}"):
                compiled(self_orthogonality)(ops.ones((samples, 3)))
        return
    import tensorflow as tf

    signature = [tf.TensorSpec((None, 3), "float32")]
    graph = compiled(self_orthogonality, "graph", input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least two samples"):
        graph(tf.ones((1, 3)))
    assert float(graph(tf.ones((2, 3)))) == pytest.approx(3606, rel=1e-4)  # all agree: 100·6² + 6
    xla = compiled(self_orthogonality, "xla", input_signature=signature)
    assert math.isnan(float(xla(tf.ones((1, 3)))))
    assert float(xla(tf.ones((2, 3)))) == pytest.approx(3606, rel=1e-4)


@pytest.mark.parametrize("floor", [False, True])
def test_an_empty_batch_pays_nothing(floor):
    module = SelfOrthogonality(layers.Dense(3), subtract_floor=floor)
    module.build((None, 4))

    def paid(x):
        module(x, training=True)
        return module.losses[0]

    assert float(paid(np.zeros((0, 4), "float32"))) == 0
    if BACKEND == "tensorflow":
        import tensorflow as tf

        graph = compiled(
            lambda outputs: module._penalty(outputs), "graph", input_signature=[tf.TensorSpec((None, 3), "float32")]
        )
        assert float(graph(tf.zeros((0, 3)))) == 0


# --- what is no kernel ----------------------------------------------------------------------------------------

ERRORS = {
    "matrix must have a row and a column, got shape \\(0, 3\\)": lambda: polar(np.zeros((0, 3))),
    "matrix must have a row and a column, got shape \\(3, 0\\)": lambda: polar(np.zeros((3, 0))),
    "matrix must be an array without masked entries": lambda: polar(np.ma.masked_array(np.eye(2), np.eye(2))),
    "matrix must be a rectangular array of numbers": lambda: polar([[1.0, 2.0], [3.0]]),
    "matrix must be a tensor of numbers, got None": lambda: polar(None),
    "kernel must be finite, got NaN or infinity": lambda: filter_angles(np.full((2, 2), np.nan)),
    "kernel must be an array without masked entries": lambda: filter_angles(
        np.ma.masked_array(np.eye(2), np.eye(2))
    ),
    "kernel must hold": lambda: kernel_matrix(np.ones((2, 2), complex)),
    "outputs must hold": lambda: sign_agreement(np.ones((2, 2), complex)),
    "outputs must be a tensor of numbers": lambda: self_orthogonality([["a", "b"]]),
    "groups must divide the 5 outputs": lambda: SoftOrthogonality(groups=2)(np.ones((2, 5))),
    "in_axes and out_axes must be given together": lambda: MutualCoherence(in_axes=0),
    "out_axes must be axes of a kernel": lambda: filter_angles(np.eye(2), in_axes=0, out_axes=2),
}


@pytest.mark.parametrize("message", ERRORS)
def test_what_is_no_kernel_is_refused_by_name(message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ERRORS[message]()
