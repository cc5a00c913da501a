"""Truths about ``lib.orthogonality``, on whichever backend KERAS_BACKEND names."""

import math
from itertools import combinations, pairwise

import keras
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from numerics import array, finite_differences
from scipy import stats

from lib.orthogonality import (
    MutualCoherence,
    OffDiagonalOrthogonality,
    Orthogonalized,
    SelfOrthogonality,
    SoftOrthogonality,
    SpectralIsometry,
    agreement_penalty,
    expected_agreement,
    filter_angles,
    kernel_matrix,
    polar,
    sampling_floor,
    self_orthogonality,
    sign_agreement,
    welch_bound,
)

# The layers run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
DOUBLE = BACKEND == "tensorflow"  # elsewhere Keras computes a float64 product or tanh in float32
SHAPES = [(6, 4), (4, 6), (5, 5), (3, 2, 2, 5), (1, 2, 7)]  # k < d, k > d, k = d, and two convolutions
PENALTIES = [SoftOrthogonality, OffDiagonalOrthogonality, SpectralIsometry, MutualCoherence]


def exact(penalty):
    """The penalty with factor 1 and enough power iterations to converge."""
    return SpectralIsometry(1.0, iterations=200) if penalty is SpectralIsometry else penalty(1.0)


def value_and_gradient(function, x):
    """Value and gradient by the backend's own differentiation, in double precision if Keras has it there."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.convert_to_tensor(x, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return float(value), tape.gradient(value, x).numpy()
    if BACKEND == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(jax.numpy.asarray(x, "float32"))
        return float(value), np.asarray(gradient)
    import torch

    x = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    value = function(x)
    value.backward()
    return float(value.detach()), x.grad.numpy()


def agrees_with(function, reference, x):
    """The function has the value and the gradient of its NumPy reference at x."""
    value, gradient = value_and_gradient(function, x)
    expected = finite_differences(reference, x)
    assert value == pytest.approx(reference(x), rel=1e-9 if DOUBLE else 1e-5)
    np.testing.assert_allclose(gradient, expected, atol=(1e-7 if DOUBLE else 1e-5) * abs(expected).max())


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def haar(d, k, seed=0):
    """Orthonormal columns, shape (d, k)."""
    return np.linalg.qr(normal(d, k, seed=seed))[0]


def columns(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


# Independent NumPy forms of everything, term by term as in the papers.


def soft(kernel):
    W = columns(kernel)
    return np.sum((W.T @ W - np.eye(W.shape[1])) ** 2)


def off_diagonal(kernel):
    W = columns(kernel)
    return sum((W[:, i] @ W[:, j]) ** 2 for i, j in np.ndindex(W.shape[1], W.shape[1]) if i != j)


def isometry(kernel):
    return np.max(np.abs(np.linalg.svd(columns(kernel), compute_uv=False) ** 2 - 1))


def coherence(kernel):
    W = columns(kernel)
    cosines = W.T @ W / np.outer(np.linalg.norm(W, axis=0), np.linalg.norm(W, axis=0))
    return np.max(np.abs(cosines[~np.eye(W.shape[1], dtype=bool)]))


REFERENCES = dict(zip(PENALTIES, [soft, off_diagonal, isometry, coherence], strict=True))


def agreement(y, gamma=10.0, centred=False, scale_invariant=False):
    y = columns(y)
    if centred:
        y = y - y.mean(axis=0)
    if scale_invariant:
        y = y / np.sqrt((y**2).mean(axis=0))
    t = np.tanh(gamma * y)
    t = t / np.linalg.norm(t, axis=0)
    return t.T @ t


def penalty_of(theta, lambda_mean=100.0, lambda_pair=1.0):
    off = [theta[i, j] for i, j in np.ndindex(*theta.shape) if i != j]
    return lambda_mean * sum(off) ** 2 + lambda_pair * sum(x**2 for x in off)


# --- kernels --------------------------------------------------------------------------------------------------


def test_a_kernel_is_a_matrix_with_one_filter_a_column():
    kernel = normal(3, 3, 4, 5).astype("float32")
    W = array(kernel_matrix(kernel))
    assert W.shape == (36, 5)
    np.testing.assert_array_equal(W[:, 2], kernel[..., 2].ravel())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_kernels_are_measured_in_float32(dtype):
    kernel = ops.cast(normal(8, 4), dtype)
    assert keras.backend.standardize_dtype(kernel_matrix(kernel).dtype) == "float32"
    for penalty in PENALTIES:
        value = penalty(1.0)(kernel)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == pytest.approx(float(penalty(1.0)(ops.cast(kernel, "float32"))), rel=1e-6)


def test_filter_angles_are_those_between_the_columns():
    kernel = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, -2.0]])
    np.testing.assert_allclose(filter_angles(kernel), np.array([1, 2, 3]) * np.pi / 4, rtol=1e-7)
    kernel = normal(3, 3, 2, 6).astype("float32")
    W = columns(kernel).astype("float64")
    U = W / np.linalg.norm(W, axis=0)
    np.testing.assert_allclose(
        filter_angles(kernel), np.arccos([U[:, i] @ U[:, j] for i, j in combinations(range(6), 2)]), rtol=1e-6
    )


def test_a_zero_filter_has_no_angle():
    with pytest.raises(ValueError, match=r"no zero filter.*out = \[1, 3\]"):
        filter_angles(np.array([[1.0, 0, 2, 0], [1.0, 0, 3, 0]]))


@given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 100))
def test_no_set_of_filters_is_less_coherent_than_the_welch_bound(k, d, seed):
    bound = welch_bound(d, k)
    assert bound <= coherence(normal(d, k, seed=seed)) + 1e-12
    assert (bound == 0) == (k <= d)
    # The mean of cos² over the pairs obeys the bound too, and reaches it for k turns of a helix in d/2 planes.
    if k > d and d % 2 == 0:
        turns = 2 * np.pi * np.outer(np.arange(1, d // 2 + 1), np.arange(k)) / k
        helix = np.concatenate([np.cos(turns), np.sin(turns)]) * math.sqrt(2 / d)
        squares = np.cos(filter_angles(helix)) ** 2
        assert np.mean(squares) == pytest.approx(bound**2, rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_simplex_attains_the_welch_bound(d):
    vertices = np.linalg.svd(np.eye(d + 1) - 1 / (d + 1))[0][:, :d].T  # d + 1 filters of R^d at equal angles
    assert welch_bound(d, d + 1) == pytest.approx(1 / d)
    assert float(MutualCoherence(1.0)(vertices)) == pytest.approx(1 / d, rel=1e-6)


# --- penalties on the kernel ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_has_the_value_and_gradient_of_its_definition(penalty, shape):
    kernel = normal(*shape, seed=5)
    agrees_with(exact(penalty), REFERENCES[penalty], kernel)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_orthonormal_filters_pay_nothing_and_the_gradient_is_finite(penalty):
    value, gradient = value_and_gradient(exact(penalty), haar(8, 5))
    assert value < (1e-12 if DOUBLE else 1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_kernel_with_zero_filters_has_a_finite_gradient(penalty):
    kernel = normal(6, 4)
    kernel[:, 1] = 0
    for zeroed in (kernel, np.zeros((6, 4))):
        assert abs(value_and_gradient(penalty(1.0), zeroed)[1]).max() < 100


def test_soft_orthogonality_of_too_many_filters_is_that_of_the_rows_plus_a_constant():
    rows = haar(7, 4).T
    assert float(SoftOrthogonality(1.0)(rows)) == pytest.approx(3, abs=1e-5)
    W = normal(4, 7)
    double = soft(W) + soft(W.T)
    assert double == pytest.approx(2 * float(SoftOrthogonality(1.0)(W)) - 3, rel=1e-6)


def test_subtracting_the_identity_under_the_mask_is_redundant():
    W = normal(6, 4)
    masked = (W.T @ W - np.eye(4)) * (1 - np.eye(4))
    assert float(OffDiagonalOrthogonality(1.0)(W)) == pytest.approx(np.sum(masked**2), rel=1e-6)


@pytest.mark.parametrize(("k", "d"), [(6, 3), (8, 5)])
def test_unit_filters_that_are_too_many_pay_at_least_the_welch_sum(k, d):
    W = normal(d, k)
    assert off_diagonal(W / np.linalg.norm(W, axis=0)) > k * (k - d) / d
    mercedes = np.array([np.cos(np.arange(3) * 2 * np.pi / 3), np.sin(np.arange(3) * 2 * np.pi / 3)])
    assert float(OffDiagonalOrthogonality(1.0)(mercedes)) == pytest.approx(3 * (3 - 2) / 2, rel=1e-6)


@pytest.mark.parametrize("shape", [(20, 20), (40, 10), (10, 40)])
def test_srip_grows_with_the_iterations_and_never_exceeds_the_norm(shape):
    W = normal(*shape) / math.sqrt(shape[0])
    values = [float(SpectralIsometry(1.0, iterations=n)(W)) for n in (1, 2, 5, 10, 300)]
    assert all(earlier <= later + 1e-5 for earlier, later in pairwise(values))
    assert values[0] < 0.99 * isometry(W)
    assert values[-1] == pytest.approx(isometry(W), rel=1e-4)


def test_srip_finds_a_norm_attained_on_both_sides():
    W = np.diag([math.sqrt(1.5), math.sqrt(0.5), 1.0])  # eigenvalues ½, −½ and 0 of WᵀW − I
    assert float(SpectralIsometry(1.0)(W)) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_factor_multiplies(penalty):
    kernel = normal(6, 4)
    assert float(penalty(0.25)(kernel)) == pytest.approx(0.25 * float(penalty(1.0)(kernel)), rel=1e-6)
    assert float(penalty(0.0)(kernel)) == 0


@pytest.mark.parametrize("penalty", [*(p(0.125) for p in PENALTIES), SpectralIsometry(0.5, iterations=3)])
def test_a_penalty_survives_serialization(penalty):
    copy = keras.regularizers.deserialize(keras.regularizers.serialize(penalty))
    assert type(copy) is type(penalty)
    assert copy.get_config() == penalty.get_config()
    assert copy.get_config()["factor"] == penalty.factor


def test_training_on_a_penalty_alone_makes_the_filters_orthogonal():
    keras.utils.set_random_seed(1)
    convolutions = [keras.layers.Conv2D(6, 2, kernel_regularizer=penalty(1.0)) for penalty in PENALTIES]
    dense = [keras.layers.Dense(6, kernel_regularizer=penalty(1.0)) for penalty in PENALTIES]
    model = keras.Sequential([keras.Input((5, 5, 2)), *convolutions, keras.layers.Flatten(), *dense])
    before = [coherence(array(layer.kernel)) for layer in convolutions + dense]
    compiled(model, 0.02).fit(np.zeros((64, 5, 5, 2)), np.zeros((64, 6)), batch_size=1, epochs=2, verbose=0)
    after = [coherence(array(layer.kernel)) for layer in convolutions + dense]
    assert max(np.divide(after, before)) < 0.7


def compiled(model, learning_rate=0.01):
    """Compiled as ``fit`` does by default: XLA on TensorFlow and JAX."""
    model.compile(keras.optimizers.Adam(learning_rate), "mse", jit_compile="auto")
    return model


# --- sign agreement: the claims of the chapter ----------------------------------------------------------------


def pair(theta, d=2):
    """Two unit filters at an angle, shape (d, 2)."""
    W = np.zeros((d, 2))
    W[0], W[1] = [1, np.cos(theta)], [0, np.sin(theta)]
    return W


@pytest.mark.parametrize("degrees", [0, 10, 45, 60, 90, 120, 170, 180])
def test_signs_agree_as_often_as_the_wedge_says(degrees):
    theta = math.radians(degrees)
    samples = 20_000
    measured = array(sign_agreement(normal(samples, 2) @ pair(theta), gamma=1e6))[0, 1]
    expected = expected_agreement(theta)
    deviation = math.sqrt((1 - expected**2) / samples)
    assert measured == pytest.approx(expected, abs=4 * deviation + 5e-4)  # float32 sums


@given(st.floats(-1, 1))
def test_the_wedge_is_the_arcsine_law(rho):
    assert expected_agreement(np.arccos(rho)) == pytest.approx(2 / np.pi * np.arcsin(rho), abs=1e-12)


def test_correlated_inputs_show_the_correlation_of_the_outputs_not_of_the_filters():
    W, factor = haar(4, 2), normal(4, 4, seed=3)
    covariance = W.T @ factor @ factor.T @ W
    rho = covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])
    measured = array(sign_agreement(normal(100_000, 4) @ factor.T @ W, gamma=1e6))[0, 1]
    assert abs(rho) > 0.2
    assert measured == pytest.approx(2 / np.pi * math.asin(rho), abs=0.015)


def test_the_estimate_scatters_by_one_over_the_root_of_the_batch():
    b, repeats = 128, 1500
    for gamma in (0.1, 10.0):  # exact for any γ, not only for signs
        y = normal(repeats, b, 2)
        estimates = np.array([agreement(y[i], gamma)[0, 1] for i in range(repeats)])
        assert estimates.std() == pytest.approx(1 / math.sqrt(b), rel=4 / math.sqrt(2 * repeats))
    np.testing.assert_allclose(array(sign_agreement(y[0], 10.0)), agreement(y[0]), atol=1e-6)


def test_the_norm_of_the_samples_is_irrelevant_to_signs_but_not_to_tanh():
    theta = math.pi / 3
    y = normal(200_000, 2) @ pair(theta)
    lengths = np.random.default_rng(1).lognormal(size=(len(y), 1))
    sharp = [array(sign_agreement(z, gamma=1e7))[0, 1] for z in (y, 0.01 * y, lengths * y)]
    np.testing.assert_allclose(sharp, sharp[0], atol=1e-4)
    soft_signs = [array(sign_agreement(scale * y))[0, 1] for scale in (0.01, 0.1, 1, 3)]
    np.testing.assert_allclose(soft_signs, [0.501, 0.474, 0.361, 0.344], atol=0.008)
    assert soft_signs[0] == pytest.approx(math.cos(theta), abs=0.008)
    assert all(earlier > later for earlier, later in pairwise(soft_signs))


@pytest.mark.parametrize("centred", [False, True])
def test_the_scale_invariant_form_does_not_see_the_scale_of_a_filter(centred):
    y = normal(64, 5)
    scales = np.array([1e-3, 0.1, 1.0, 10.0, 1e3])
    theta = array(sign_agreement(y, centred=centred, scale_invariant=True))
    np.testing.assert_allclose(
        array(sign_agreement(scales * y, centred=centred, scale_invariant=True)), theta, atol=1e-5
    )
    assert abs(array(sign_agreement(scales * y, centred=centred)) - theta).max() > 0.01


def test_orthogonal_filters_pay_the_sampling_floor_on_average():
    k, b, repeats = 8, 32, 400
    y = normal(repeats, b, k)
    for weights in ((1.0, 0.0), (0.0, 1.0), (100.0, 1.0)):
        paid = [penalty_of(agreement(y[i]), *weights) for i in range(repeats)]
        assert np.mean(paid) == pytest.approx(sampling_floor(k, b, *weights), abs=4 * stats.sem(paid))
        assert float(self_orthogonality(y[0], 10.0, *weights)) == pytest.approx(paid[0], rel=1e-4)
    assert sampling_floor(32, 128, 100, 0) == pytest.approx(1550)
    assert sampling_floor(32, 128, 0, 1) == pytest.approx(7.75)


def test_nonnegative_inputs_make_orthogonal_filters_seem_to_agree_and_centring_heals():
    W, x = haar(64, 16), normal(10_000, 64)

    def rms(y, **options):
        theta = array(sign_agreement(y, **options))
        return math.sqrt(np.mean(theta[~np.eye(16, dtype=bool)] ** 2))

    assert rms(x @ W) < 0.015
    assert rms(np.maximum(x, 0) @ W) > 0.1
    assert rms(np.maximum(x, 0) @ W, centred=True) < 0.015
    np.testing.assert_allclose(  # a bias is a mean too
        array(sign_agreement(x @ W + np.arange(16), centred=True)),
        array(sign_agreement(x @ W, centred=True)),
        atol=1e-3,
    )


def test_the_mean_term_alone_is_fooled_by_opposite_copies():
    w = normal(7)
    theta = array(sign_agreement(normal(500, 7) @ np.stack([w, w, w, -w], axis=1)))
    np.testing.assert_allclose(np.abs(theta), 1, atol=1e-6)  # every pair is parallel
    assert float(agreement_penalty(theta, 100, 0)) == pytest.approx(0, abs=1e-6)
    assert float(agreement_penalty(theta, 0, 1)) == pytest.approx(12, rel=1e-6)


def test_random_filters_agree_by_two_over_pi_root_d():
    d, k = 256, 128
    theta = expected_agreement(filter_angles(normal(d, k)))
    assert theta.std() == pytest.approx(2 / np.pi / math.sqrt(d), rel=0.05)


def test_more_filters_than_samples_cannot_disagree():
    for k, b in ((12, 5), (30, 8)):
        theta = agreement(normal(b, k))
        assert penalty_of(theta, 0, 1) > k * (k - b) / b


# --- sign agreement: the functions ----------------------------------------------------------------------------


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("scale_invariant", [False, True])
@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (2, 3, 2, 5)])  # b > k, b < k, positions as samples
def test_the_penalty_has_the_value_and_gradient_of_its_definition(shape, centred, scale_invariant):
    options = {"centred": centred, "scale_invariant": scale_invariant}
    y = 0.2 * normal(*shape, seed=2)
    theta = agreement(y, **options)

    def cheap(y):
        return self_orthogonality(y, 10.0, 3.0, 2.0, **options)

    def plain(y):
        return agreement_penalty(sign_agreement(y, 10.0, **options), 3.0, 2.0)

    def reference(y):
        return penalty_of(agreement(y, **options), 3.0, 2.0)

    np.testing.assert_allclose(array(sign_agreement(y, **options)), theta, atol=1e-5)
    agrees_with(cheap, reference, y)
    agrees_with(plain, reference, y)


def test_a_dead_filter_agrees_with_none_and_breaks_nothing():
    y = normal(20, 4)
    y[:, 2] = 0
    for options in ({}, {"centred": True, "scale_invariant": True}):
        theta = array(sign_agreement(y, **options))
        assert theta[2].tolist() == [0, 0, 0, 0]
        value, gradient = value_and_gradient(lambda y, o=options: self_orthogonality(y, **o), y)
        assert abs(gradient).max() < 1e5
        assert value == pytest.approx(penalty_of(theta), rel=1e-4)


def test_one_filter_has_nobody_to_agree_with():
    assert float(self_orthogonality(normal(10, 1))) == pytest.approx(0, abs=1e-6)
    assert sampling_floor(1, 10) == 0


# --- the module as a layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_the_wrapper_computes_what_its_layer_computes_and_penalises_before_the_activation(activation):
    x = normal(16, 6).astype("float32")
    layer = SelfOrthogonality(
        keras.layers.Dense(5, activation=activation), gamma=3.0, lambda_mean=2.0, lambda_pair=7.0
    )
    np.testing.assert_array_equal(array(layer(x)), array(layer.layer(x)))
    assert layer.losses == []  # nothing outside training
    layer(x, training=True)
    y = x @ array(layer.layer.kernel)
    assert [float(loss) for loss in layer.losses] == [
        pytest.approx(penalty_of(agreement(y, 3.0), 2.0, 7.0), rel=1e-3)
    ]
    assert layer.layer.activation is keras.activations.get(activation)


def test_an_activation_is_given_back_even_when_the_layer_fails():
    layer = SelfOrthogonality(keras.layers.Dense(5, activation="relu"))
    layer(normal(4, 3))
    with pytest.raises(Exception, match="incompatible"):
        layer(normal(4, 2))
    assert layer.layer.activation is keras.activations.relu


class Linear(keras.layers.Layer):
    """A layer of one's own, without an activation."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4))

    def call(self, x):
        return ops.matmul(x, self.kernel)


@pytest.mark.parametrize("wrapper", [SelfOrthogonality, Orthogonalized])
def test_any_layer_with_a_kernel_can_be_wrapped(wrapper):
    x = normal(8, 6).astype("float32")
    layer = wrapper(Linear())
    y = layer(x, training=True) if wrapper is SelfOrthogonality else layer(x)
    kernel = layer.kernel if wrapper is Orthogonalized else layer.layer.kernel
    np.testing.assert_allclose(array(y), x @ array(kernel), atol=1e-5)
    assert len(layer.losses) == (wrapper is SelfOrthogonality)


@pytest.mark.parametrize("centred", [False, True])
def test_the_positions_of_a_convolution_are_samples(centred):
    x = normal(3, 6, 6, 2).astype("float32")
    layer = SelfOrthogonality(
        keras.layers.Conv2D(4, 3, activation="relu", bias_initializer="ones"),
        centred=centred,
        scale_invariant=True,
    )
    layer(x, training=True)
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    y = patches.reshape(-1, 18) @ columns(array(layer.layer.kernel)) + 1
    assert y.shape == (48, 4)
    expected = penalty_of(agreement(y, centred=centred, scale_invariant=True))
    assert float(layer.losses[0]) == pytest.approx(expected, rel=1e-3)


def test_channels_may_come_first():
    x = normal(5, 2, 7).astype("float32")
    first = SelfOrthogonality(keras.layers.Conv1D(4, 3, data_format="channels_first"))
    last = SelfOrthogonality(keras.layers.Conv1D(4, 3, data_format="channels_last"))
    last(x.transpose(0, 2, 1), training=True)
    first.build(x.shape)
    first.layer.set_weights(last.layer.get_weights())
    try:
        y = first(x, training=True)
    except Exception as error:
        if "only supports the NHWC tensor format on the CPU" in str(error):
            pytest.skip("on a CPU, TensorFlow convolves with channels first by oneDNN alone, which is off here")
        raise
    assert tuple(y.shape) == (5, 4, 5)
    assert float(first.losses[0]) == pytest.approx(float(last.losses[0]), rel=1e-4)


def test_a_stride_looks_at_every_nth_sample():
    x = normal(7, 3, 6).astype("float32")  # 21 positions, 11 of them looked at
    layer = SelfOrthogonality(keras.layers.Dense(5, use_bias=False), sample_stride=2)
    layer(x, training=True)
    y = x.reshape(21, 6)[::2] @ array(layer.layer.kernel)
    assert float(layer.losses[0]) == pytest.approx(penalty_of(agreement(y)), rel=1e-3)
    floored = SelfOrthogonality(layer.layer, sample_stride=2, subtract_floor=True)
    floored(x, training=True)
    assert float(floored.losses[0]) == pytest.approx(float(layer.losses[0]) - sampling_floor(5, 11), rel=1e-3)


def test_subtracting_the_floor_moves_the_loss_by_the_floor():
    x = normal(2, 10, 6).astype("float32")
    plain = SelfOrthogonality(keras.layers.Dense(5))
    floored = SelfOrthogonality(plain.layer, subtract_floor=True)
    plain(x, training=True)
    floored(x, training=True)
    assert float(plain.losses[0]) - float(floored.losses[0]) == pytest.approx(sampling_floor(5, 20), rel=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"centred": True, "scale_invariant": True, "sample_stride": 2, "subtract_floor": True}]
)
def test_training_with_the_module_drives_filters_apart(options):
    keras.utils.set_random_seed(2)
    dense = keras.layers.Dense(8, use_bias=False)
    module = SelfOrthogonality(dense, lambda_mean=1.0, lambda_pair=10.0, **options)
    model = compiled(keras.Sequential([keras.Input((12,)), module]))
    twins = np.concatenate([np.eye(12, 4), np.eye(12, 4) + 0.5 * normal(12, 4) / math.sqrt(12)], axis=1)
    dense.kernel.assign(twins)  # filter i + 4 is close to filter i
    x = normal(1000, 12)  # 1000 = 7 · 128 + 104: the last batch is smaller
    before = coherence(array(dense.kernel))
    model.fit(x, np.zeros((1000, 8)), batch_size=128, epochs=12, verbose=0)
    assert before > 0.8
    assert coherence(array(dense.kernel)) < 0.6 * before


@pytest.mark.parametrize("wrapped", ["dense", "conv"])
def test_the_module_survives_saving(wrapped, tmp_path):
    inner = keras.layers.Dense(4, activation="relu") if wrapped == "dense" else keras.layers.Conv1D(4, 2)
    options = {"gamma": 5.0, "lambda_mean": 3.0, "lambda_pair": 2.0, "sample_stride": 3}
    layer = SelfOrthogonality(inner, **options, centred=True, scale_invariant=True, subtract_floor=True)
    model = keras.Sequential([keras.Input((6, 3)), layer])
    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    x = normal(4, 6, 3).astype("float32")
    np.testing.assert_allclose(array(copy(x)), array(model(x)), rtol=1e-6)
    model(x, training=True)
    copy(x, training=True)
    assert float(copy.losses[0]) == pytest.approx(float(model.losses[0]), rel=1e-5)
    shown = copy.layers[0].get_config()
    assert {name: shown[name] for name in options} == options
    assert (shown["centred"], shown["scale_invariant"], shown["subtract_floor"]) == (True, True, True)


def test_masks_pass_through_the_module():
    x = np.array([[1, 2, 0, 0]])
    embedded = keras.layers.Embedding(3, 6, mask_zero=True)(x)
    for wrapper in (SelfOrthogonality, Orthogonalized):
        y = wrapper(keras.layers.Dense(2))(embedded)
        assert array(y._keras_mask).tolist() == [[True, True, False, False]]


# --- kernels orthogonal by construction -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (40, 40), (9, 1)])
def test_polar_is_the_nearest_orthogonal_matrix(shape):
    V = normal(*shape, seed=1)
    W = array(polar(V))
    np.testing.assert_allclose(W, scipy.linalg.polar(V)[0], atol=2e-5)
    small = W.T @ W if shape[1] <= shape[0] else W @ W.T
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=2e-6)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4, 1e5])
def test_polar_is_orthogonal_even_where_the_matrix_is_nearly_singular(condition):
    V = haar(30, 12) @ np.diag(np.geomspace(1, 1 / condition, 12)) @ haar(12, 12, seed=1).T
    W = array(polar(V.astype("float32")))
    np.testing.assert_allclose(W.T @ W, np.eye(12), atol=2e-6)


def test_polar_knows_no_scale_and_leaves_orthogonal_matrices_alone():
    V, Q = normal(8, 5), haar(8, 5)
    np.testing.assert_allclose(array(polar(1e6 * V)), array(polar(1e-6 * V)), atol=2e-6)
    np.testing.assert_allclose(array(polar(Q)), Q, atol=1e-6)


def test_polar_leaves_singular_values_below_sigma_min_unfinished():
    V = np.diag([1.0, 1e-3])
    assert array(polar(V, sigma_min=0.5))[1, 1] < 0.1
    assert array(polar(V, sigma_min=5e-4))[1, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)])
def test_polar_has_the_gradient_of_the_polar_factor(shape):
    V, G = normal(*shape, seed=4), normal(*shape, seed=5)

    def reference(V):
        return np.sum(G * scipy.linalg.polar(V)[0])

    def objective(V):
        return ops.sum(ops.convert_to_tensor(G, V.dtype) * polar(V))

    agrees_with(objective, reference, V)
    gradient = value_and_gradient(objective, V)[1]
    assert np.sum(gradient * V) == pytest.approx(0, abs=1e-5)  # the scale of V does not matter


def test_at_an_orthogonal_matrix_the_gradient_is_the_tangent_part():
    W, G = haar(6, 3), normal(6, 3)
    _, gradient = value_and_gradient(lambda V: ops.sum(ops.convert_to_tensor(G, V.dtype) * polar(V)), W)
    tangent = G - W @ (W.T @ G + G.T @ W) / 2
    np.testing.assert_allclose(gradient, tangent, atol=1e-12 if DOUBLE else 3e-6)


def defect(kernel):
    """Largest entry of |WᵀW − I|, or of |WWᵀ − I| for more filters than numbers."""
    W = columns(array(kernel)).astype("float64")
    W = W if W.shape[0] >= W.shape[1] else W.T
    return abs(W.T @ W - np.eye(W.shape[1])).max()


def test_kernels_are_orthogonal_before_during_and_after_training(tmp_path):
    keras.utils.set_random_seed(3)
    layers = [
        Orthogonalized(keras.layers.Conv2D(6, 2, activation="relu"), 1e-3),  # 12 numbers in a filter
        Orthogonalized(keras.layers.Conv2D(30, 2), 1e-3),  # 24, for 30 filters
        keras.layers.Flatten(),
        Orthogonalized(keras.layers.Dense(4, activation="tanh"), 1e-3),
        Orthogonalized(keras.layers.Dense(9, use_bias=False), 1e-3),  # 4, for 9 filters
        keras.layers.Dense(1),
    ]
    model = compiled(keras.Sequential([keras.Input((4, 4, 3)), *layers]), 0.05)
    x = normal(64, 4, 4, 3).astype("float32")
    wrapped = [layer for layer in layers if isinstance(layer, Orthogonalized)]
    start, seen = [array(layer.kernel) for layer in wrapped], []
    biases = [layer.layer.bias for layer in wrapped[:3]]
    for _ in range(3):
        seen += [defect(layer.kernel) for layer in wrapped]
        model.fit(x, np.sin(x.sum(axis=(1, 2, 3))), batch_size=16, epochs=3, verbose=0)
    seen += [defect(layer.kernel) for layer in wrapped]
    assert max(seen) < 1e-5
    assert all(abs(array(layer.kernel) - old).max() > 0.05 for layer, old in zip(wrapped, start, strict=True))
    assert all(abs(array(bias)).max() > 0.01 for bias in biases)

    model.save(tmp_path / "model.keras")
    copy = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(array(copy(x)), array(model(x)), atol=1e-5)
    assert copy.layers[0].sigma_min == 1e-3


LAYERS = {
    "dense": (lambda: keras.layers.Dense(4, activation="tanh"), (7,)),
    "wide dense": (lambda: keras.layers.Dense(9, use_bias=False), (5,)),
    "conv": (lambda: keras.layers.Conv2D(6, 2, activation="relu"), (5, 5, 3)),
    "wide conv": (lambda: keras.layers.Conv1D(8, 2), (5, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_computes_with_the_orthogonal_kernel_and_can_be_unwrapped(name):
    make, shape = LAYERS[name]
    layer = Orthogonalized(make())
    x = normal(3, *shape).astype("float32")
    y = array(layer(x))
    stored = array(layer.layer.kernel)
    np.testing.assert_allclose(columns(array(layer.kernel)), scipy.linalg.polar(columns(stored))[0], atol=1e-4)
    assert abs(array(layer.layer(x)) - y).max() > 0.01  # the stored kernel is another one
    layer.layer.kernel.assign(layer.kernel)
    np.testing.assert_allclose(array(layer.layer(x)), y, atol=1e-5)


def test_the_gradient_of_a_wrapped_layer_is_that_of_the_composition():
    layer = Orthogonalized(keras.layers.Dense(3, use_bias=False, dtype="float64" if DOUBLE else "float32"))
    x, G, V = normal(5, 4), normal(5, 3, seed=1), normal(4, 3, seed=2)
    layer.build((None, 4))

    def through_the_layer(V):
        with keras.StatelessScope([(layer.layer.kernel, V)]):
            return ops.sum(ops.convert_to_tensor(G, V.dtype) * layer(ops.convert_to_tensor(x, V.dtype)))

    def reference(V):
        return np.sum(G * (x @ scipy.linalg.polar(V)[0]))

    agrees_with(through_the_layer, reference, V)


def test_losses_of_the_wrapped_layer_are_kept():
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), activity_regularizer="l2")
    layer = Orthogonalized(dense)
    x = ops.convert_to_tensor(normal(4, 5), "float32")
    layer(x)
    alone = keras.layers.Dense(3, activity_regularizer="l2")
    alone.build((None, 5))
    alone.kernel.assign(layer.kernel)
    alone(x)
    expected = sorted([0.5 * np.sum(array(dense.kernel) ** 2), float(alone.losses[0])])
    assert sorted(float(loss) for loss in layer.losses) == pytest.approx(expected)
    _, _, losses = layer.stateless_call(layer.trainable_variables, [], x, return_losses=True)
    losses = keras.tree.flatten(losses)  # Keras 3.8 nests them
    assert sorted(float(loss) for loss in losses) == pytest.approx(expected)  # as JAX trains


def test_a_frozen_layer_is_orthogonal_too():
    layer = Orthogonalized(keras.layers.Dense(3, trainable=False))
    y = layer(np.eye(5, dtype="float32"))
    assert defect(y) < 1e-5


# --- every layer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_statistics_in_float32(policy):
    keras.utils.set_random_seed(0)
    x = normal(32, 6).astype("float32")
    module = SelfOrthogonality(keras.layers.Dense(8, activation="relu", dtype=policy), scale_invariant=True)
    hard = Orthogonalized(keras.layers.Dense(5, dtype=policy))
    assert module.dtype_policy.name == policy
    y = module(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(module.losses[0].dtype) == "float32"
    expected = penalty_of(agreement(x @ array(module.layer.kernel), scale_invariant=True))
    assert float(module.losses[0]) == pytest.approx(expected, rel=0.1)
    z = hard(y)
    assert keras.backend.standardize_dtype(z.dtype) == policy.removeprefix("mixed_")
    assert defect(hard.kernel) < 1e-5

    hard.sigma_min = 1e-2  # fewer steps to compile
    model = compiled(keras.Sequential([keras.Input((6,)), module, hard]))
    history = model.fit(x, np.zeros((32, 5)), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert defect(hard.kernel) < 1e-5


def test_wrappers_follow_the_policy_of_their_layer_unless_told():
    assert SelfOrthogonality(keras.layers.Dense(2, dtype="float16")).compute_dtype == "float16"
    assert SelfOrthogonality(keras.layers.Dense(2, dtype="float16"), dtype="float32").compute_dtype == "float32"


def test_wrappers_state_the_output_shape_of_their_layer():
    for wrapper in (SelfOrthogonality, Orthogonalized):
        assert wrapper(keras.layers.Conv2D(7, 3)).compute_output_shape((None, 8, 8, 2)) == (None, 6, 6, 7)


ERRORS = {
    "factor must not be negative, got -1": lambda: SoftOrthogonality(-1),
    "factor must be a finite number, got nan": lambda: MutualCoherence(float("nan")),
    "factor must be a finite number, got 'much'": lambda: OffDiagonalOrthogonality("much"),
    "iterations must be a positive integer, got 0": lambda: SpectralIsometry(1.0, iterations=0),
    "iterations must be a positive integer, got 2.5": lambda: SpectralIsometry(1.0, iterations=2.5),
    r"kernel must have shape \(\*, in, out\), got shape \(3,\)": lambda: SoftOrthogonality(1.0)(np.ones(3)),
    "k must be a positive integer, got 0": lambda: welch_bound(2, 0),
    "d must be a positive integer, got True": lambda: welch_bound(True, 2),
    r"theta must lie in \[0, π\], got": lambda: expected_agreement([0.5, 3.2]),
    "gamma must be positive, got 0": lambda: sign_agreement(np.ones((4, 2)), gamma=0),
    "gamma must be positive, got -2": lambda: SelfOrthogonality(keras.layers.Dense(2), gamma=-2),
    r"outputs must have shape \(..., k\), got shape \(4,\)": lambda: sign_agreement(np.ones(4)),
    "at least two samples": lambda: self_orthogonality(np.ones((1, 4))),
    r"theta must have shape \(k, k\), got shape \(2, 3\)": lambda: agreement_penalty(np.ones((2, 3))),
    "lambda_mean must not be negative, got -0.5": lambda: agreement_penalty(np.eye(2), -0.5),
    "lambda_pair must not be negative, got -3": lambda: self_orthogonality(np.ones((4, 2)), 10.0, 1.0, -3),
    "b must be a positive integer, got 0": lambda: sampling_floor(3, 0),
    "sample_stride must be a positive integer, got 0": lambda: SelfOrthogonality(
        keras.layers.Dense(2), sample_stride=0
    ),
    "layer must be a Keras layer, got 'dense'": lambda: SelfOrthogonality("dense"),
    "layer must have a function as activation": lambda: SelfOrthogonality(
        keras.layers.Dense(2, activation=keras.layers.ReLU())
    ),
    r"layer must have a kernel of shape \(\*, in, out\), got <ReLU": lambda: Orthogonalized(keras.layers.ReLU())(
        np.ones((2, 2))
    ),
    r"layer must have a kernel of shape \(\*, in, out\), got <Dropout": lambda: SelfOrthogonality(
        keras.layers.Dropout(0.5)
    )(np.ones((2, 2))),
    "got one": lambda: SelfOrthogonality(keras.layers.Dense(2))(np.ones((1, 3)), training=True),
    r"matrix must have shape \(d, k\), got shape \(2, 2, 2\)": lambda: polar(np.ones((2, 2, 2))),
    r"sigma_min must lie in \(0, 1\), got 1": lambda: polar(np.eye(2), sigma_min=1),
    r"sigma_min must lie in \(0, 1\), got 0": lambda: Orthogonalized(keras.layers.Dense(2), sigma_min=0),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_bad_argument_is_named(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()


@pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="Keras has no Muon before 3.10")
def test_muon_takes_a_nearly_polar_step_in_dense_kernels_and_leaves_convolutions_to_adam():
    muon = keras.optimizers.Muon(1.0, weight_decay=None, rms_rate=None, momentum=0.0)
    dense, conv = keras.Variable(np.zeros((9, 6))), keras.Variable(np.zeros((3, 3, 2, 6)))
    G = normal(9, 6)
    muon.build([dense, conv])
    muon.apply([ops.cast(G, "float32"), ops.ones((3, 3, 2, 6))])
    step = -array(dense)
    assert np.all(np.abs(np.linalg.svd(step, compute_uv=False) - 0.95) < 0.3)
    assert np.sum(step * array(polar(G))) / np.linalg.norm(step) / math.sqrt(6) > 0.95
    np.testing.assert_allclose(array(conv), -1, atol=1e-3)  # Adam's first step is the sign of the gradient


@pytest.mark.parametrize("penalty", [MutualCoherence, SpectralIsometry])
def test_a_kernel_without_filters_has_none_that_are_not_orthogonal(penalty):
    assert abs(float(penalty(1.0)(np.zeros((4, 0), "float32")))) < 1e-9


@pytest.mark.parametrize("shape", [(4, 0), (2, 3, 0)])
def test_outputs_of_no_filter_are_refused(shape):
    with pytest.raises(ValueError, match="outputs must be of one filter at least, got shape"):
        self_orthogonality(np.ones(shape, "float32"))
