"""Truths about ``lib.initializers``, on whichever backend KERAS_BACKEND names."""

import math
import random

import keras
import mpmath
import numpy as np
import pytest
from hypothesis import given
from keras import ops
from numpy.polynomial.legendre import leggauss
from scipy import integrate, stats
from search import examples, floats

from lib.initializers import (
    DeltaOrthogonal,
    Orthogonal,
    Scaled,
    activation_gain,
    correlation_map,
    fans,
    marchenko_pastur,
)

# The layers run on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

RULES = {
    "fan_in": lambda n, m: 1 / n,  # noqa: ARG005
    "fan_out": lambda n, m: 1 / m,  # noqa: ARG005
    "average": lambda n, m: 2 / (m + n),
    "geometric": lambda n, m: (m * n) ** -0.5,
}
KURTOSIS = {
    "normal": 3.0,
    "truncated_normal": 3 + float(stats.truncnorm.stats(-2, 2, moments="k")),
    "uniform": 9 / 5,
    "rademacher": 1.0,
}
KERNEL = (3, 3, 4, 8)  # one small shape for most tests: JAX compiles every new one
INITIALIZERS = [
    Scaled("geometric", "uniform", gain=1.5, seed=3),
    Scaled("average", "truncated_normal", gain="tanh", seed=3),
    Scaled("fan_out", "rademacher", seed=3),
    Orthogonal(gain=0.5, seed=3),
    DeltaOrthogonal(gain="relu", seed=3),
]

# JAX evaluates an activation in float32 unless x64 is enabled; the other backends use float64.
SINGLE = keras.backend.standardize_dtype(ops.convert_to_tensor(np.zeros(1)).dtype) == "float32"


def array(tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype(np.float64)


def near(value, double: float = 1e-12, single: float = 1e-6):
    return pytest.approx(value, rel=single if SINGLE else double, abs=1e-15)


def second_moment(f) -> mpmath.mpf:
    """E[f(z)²] for z ~ N(0, 1), to thirty digits."""
    with mpmath.workdps(30):
        return mpmath.quad(lambda z: f(z) ** 2 * mpmath.npdf(z), [-mpmath.inf, -8, -3, 0, 3, 8, mpmath.inf])


# --- shapes ---


def test_fans_count_inputs_and_outputs_times_the_spatial_sizes():
    assert fans((784, 100)) == (784, 100)
    assert fans([5, 8, 16]) == (40, 80)
    assert fans(np.array([3, 2, 16, 32])) == (96, 192)


@pytest.mark.parametrize(
    "shape", [(), (3,), (0, 3), (3, 0), (3, -1), (2.5, 3), (None, 3), (True, 3), "ab", None, 7]
)
@pytest.mark.parametrize("use", [fans, Scaled(), Orthogonal(), DeltaOrthogonal()])
def test_shapes_that_are_no_kernel_are_refused(use, shape):
    with pytest.raises(ValueError, match="shape"):
        use(shape)


# --- independent entries ---


@pytest.mark.parametrize("shape", [(200, 500), (3, 3, 80, 160)])
@pytest.mark.parametrize("law", KURTOSIS)
@pytest.mark.parametrize("fan", RULES)
def test_variance_is_that_of_the_rule(fan, law, shape):
    gain = 1.5
    w = array(Scaled(fan, law, gain, seed=1)(shape))
    variance = gain**2 * RULES[fan](*fans(shape))
    # Five standard errors: 2.3 % at most, where the nearest other rule is 6 % away.
    assert np.mean(w**2) == pytest.approx(variance, rel=5 * math.sqrt((KURTOSIS[law] - 1) / w.size) + 1e-6)
    assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)


@pytest.mark.parametrize(
    ("law", "reference"),
    [
        ("normal", stats.norm()),
        ("uniform", stats.uniform(-math.sqrt(3), 2 * math.sqrt(3))),
        ("truncated_normal", stats.truncnorm(-2, 2, scale=1 / stats.truncnorm.std(-2, 2))),
    ],
)
def test_entries_follow_their_law(law, reference):
    z = array(Scaled("fan_in", law, seed=2)((200, 500))).ravel() * math.sqrt(200)
    assert stats.kstest(z, reference.cdf).pvalue > 1e-3


def test_rademacher_entries_are_plus_or_minus_sigma_equally_often():
    w = array(Scaled("fan_in", "rademacher", seed=2)((200, 500)))
    np.testing.assert_allclose(np.abs(w), 200**-0.5, rtol=1e-6)
    assert abs(np.mean(w > 0) - 0.5) < 5 * 0.5 / math.sqrt(w.size)


def test_truncated_entries_end_at_two_sigma_over_the_exact_correction():
    with mpmath.workdps(30):
        variance = mpmath.quad(lambda z: z**2 * mpmath.npdf(z), [-2, 2]) / mpmath.erf(mpmath.sqrt(2))
    assert float(variance) == pytest.approx(0.7737413, abs=1e-7)
    edge = 2 / math.sqrt(variance)
    z = np.abs(array(Scaled("fan_in", "truncated_normal", seed=5)((1000, 2000)))) * math.sqrt(1000)
    # The density at the edge is 0.05, so that among two million the largest comes this close to it.
    assert edge * (1 - 1e-4) < z.max() <= edge * (1 + 1e-5)


@pytest.mark.parametrize("law", KURTOSIS)
def test_squared_length_varies_with_the_fourth_moment(law):
    n = 50
    w = array(Scaled("fan_in", law, seed=6)((n, 20_000)))
    lengths = np.sum(w**2, axis=0)
    assert np.mean(lengths) == pytest.approx(1, abs=5 * math.sqrt((KURTOSIS[law] - 1) / w.size) + 1e-6)
    # Five standard errors of a variance from 20,000 draws.
    assert n * np.var(lengths) == pytest.approx(KURTOSIS[law] - 1, rel=0.06, abs=1e-9)


def test_fan_out_keeps_the_length_of_a_vector():
    m = 2000
    x = np.random.default_rng(0).standard_normal(50)
    y = x @ array(Scaled("fan_out", seed=7)((50, m)))
    assert np.linalg.norm(y) / np.linalg.norm(x) == pytest.approx(1, abs=5 / math.sqrt(2 * m))


def test_the_geometric_mean_keeps_length_through_a_pair_of_layers():
    x = np.random.default_rng(0).standard_normal((20, 400))
    y = x @ array(Scaled("geometric", seed=8)((400, 1600)))
    z = y @ array(Scaled("geometric", seed=9)((1600, 400)))
    assert np.mean(y**2) / np.mean(x**2) == pytest.approx(0.5, rel=0.05)
    assert np.sum(z**2) / np.sum(x**2) == pytest.approx(1, rel=0.1)


# --- orthogonal kernels ---


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), KERNEL])
def test_orthogonal_kernels_have_all_singular_values_equal_to_the_gain(shape):
    w = array(Orthogonal(gain=1.5, seed=1)(shape)).reshape(-1, shape[-1])
    np.testing.assert_allclose(np.linalg.svd(w, compute_uv=False), 1.5, rtol=1e-5)


def test_orthogonal_matrices_are_haar_distributed():
    # A column of a Haar matrix is uniform on the sphere; in three dimensions its coordinates are uniform on
    # [-1, 1] (Archimedes). Turning the matrix by a fixed Q changes nothing. Without the signs of R, both fail.
    draw = Orthogonal(seed=keras.random.SeedGenerator(4))
    w = np.array([array(draw((3, 3))) for _ in range(600)])
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    for entry in (w[:, 0, 0], w[:, 2, 2], (q @ w)[:, 0, 0], (w @ q)[:, 1, 2]):
        assert stats.kstest(entry, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.binomtest(int(np.sum(np.linalg.det(w) > 0)), 600).pvalue > 1e-3
    # Diaconis and Shahshahani 1994: E[tr] = 0 and E[tr²] = 1 over the orthogonal group.
    trace = np.trace(w, axis1=1, axis2=2)
    assert abs(trace.mean()) < 5 / math.sqrt(600)
    assert np.mean(trace**2) == pytest.approx(1, abs=5 * np.std(trace**2) / math.sqrt(600))


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [(keras.layers.Conv1D, (7, 4)), (keras.layers.Conv2D, (6, 5, 4)), (keras.layers.Conv3D, (3, 4, 5, 4))],
)
def test_delta_orthogonal_convolutions_multiply_every_length_by_the_gain(convolution, shape):
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype("float32")
    layer = convolution(6, 3, padding="same", kernel_initializer=DeltaOrthogonal(gain=2.0, seed=1))
    y = array(layer(x))
    lengths = np.linalg.norm(y.reshape(3, -1), axis=1) / np.linalg.norm(x.reshape(3, -1), axis=1)
    np.testing.assert_allclose(lengths, 2, rtol=1e-5)
    kernel = array(layer.kernel)
    centre = kernel[(1,) * (len(shape) - 1)]
    np.testing.assert_allclose(centre @ centre.T, 4 * np.eye(4), atol=1e-5)
    assert np.count_nonzero(kernel) == np.count_nonzero(centre)


def test_the_flattened_orthogonal_kernel_does_not_keep_the_lengths_of_a_convolution():
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 4)).astype("float32")
    layer = keras.layers.Conv2D(36, 3, padding="same", kernel_initializer=Orthogonal(seed=1))
    ratios = [np.linalg.norm(y) / np.linalg.norm(image) for y, image in zip(array(layer(x)), x, strict=True)]
    assert min(ratios) > 2


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((4, 4), "rank 3"),
        ((2, 4, 4), "odd"),
        ((3, 4, 4, 8), "odd"),
        ((3, 3, 5, 4), "outputs"),
        ((3, 0, 4), "shape"),
    ],
)
def test_kernels_without_a_delta_orthogonal_form_are_refused(shape, reason):
    with pytest.raises(ValueError, match=reason):
        DeltaOrthogonal()(shape)


# --- as Keras initializers ---


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"fan": "fan_avg"}, "fan"),
        ({"fan": None}, "fan"),
        ({"law": "gaussian"}, "law"),
        ({"law": ["normal"]}, "law"),
        ({"gain": 0.0}, "gain"),
        ({"gain": -1}, "gain"),
        ({"gain": math.inf}, "gain"),
        ({"gain": math.nan}, "gain"),
        ({"gain": True}, "gain"),
        ({"gain": None}, "gain"),
        ({"gain": "rellu"}, "gain"),
        ({"seed": "7"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": np.True_}, "seed"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Scaled(**arguments)


def test_a_gain_may_be_an_activation_and_is_kept_as_a_number():
    assert Scaled(gain="relu").gain == math.sqrt(2)
    assert Orthogonal(gain=keras.activations.tanh).gain == activation_gain("tanh")
    assert DeltaOrthogonal(gain=np.float32(0.5)).get_config() == {"gain": 0.5, "seed": None}


@pytest.mark.parametrize("initializer", INITIALIZERS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_floating_dtype_is_honoured(initializer, dtype):
    if dtype == "float64" and SINGLE:
        pytest.skip("JAX has no float64 unless x64 is enabled")
    w = initializer(KERNEL, dtype=dtype)
    assert keras.backend.standardize_dtype(w.dtype) == dtype
    assert tuple(w.shape) == KERNEL
    if dtype in ("float16", "bfloat16"):
        np.testing.assert_array_equal(array(w), array(ops.cast(initializer(KERNEL), dtype)))


def test_double_precision_is_drawn_in_double_precision():
    if SINGLE:
        pytest.skip("JAX has no float64 unless x64 is enabled")
    w = ops.convert_to_numpy(Orthogonal(seed=1)((5, 5), dtype="float64"))
    np.testing.assert_allclose(w @ w.T, np.eye(5), atol=1e-14)


def test_integer_dtypes_are_refused():
    with pytest.raises(ValueError, match="dtype"):
        Scaled()((2, 3), dtype="int32")


@pytest.mark.parametrize("kind", [Scaled, Orthogonal, DeltaOrthogonal, keras.initializers.GlorotNormal])
def test_seeds_act_as_in_keras(kind):
    def same(first, second):
        return np.array_equal(array(first), array(second))

    fixed, free = kind(seed=1), kind()
    assert same(fixed(KERNEL), fixed(KERNEL))
    assert same(fixed(KERNEL), kind(seed=1)(KERNEL))
    assert not same(fixed(KERNEL), kind(seed=2)(KERNEL))
    assert same(free(KERNEL), free(KERNEL))
    assert not same(free(KERNEL), kind()(KERNEL))

    stream = kind(seed=keras.random.SeedGenerator(1))
    assert not same(stream(KERNEL), stream(KERNEL))

    random.seed(11)  # as keras.utils.set_random_seed does, which also loads TensorFlow where it is installed
    first = kind()(KERNEL)
    random.seed(11)
    assert same(first, kind()(KERNEL))


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_a_serialised_layer_starts_from_the_same_kernel(initializer):
    layer = keras.layers.Conv2D(8, 3, kernel_initializer=initializer)
    config = keras.layers.serialize(layer)
    assert config["config"]["kernel_initializer"]["registered_name"].startswith("proof_by_running>")
    copy = keras.layers.deserialize(config)
    assert type(copy.kernel_initializer) is type(initializer)
    assert copy.kernel_initializer.get_config() == initializer.get_config()
    layer.build((None, 8, 8, 4))
    copy.build((None, 8, 8, 4))
    np.testing.assert_array_equal(array(layer.kernel), array(copy.kernel))


def test_a_seed_generator_survives_serialization():
    stream = Scaled(seed=keras.random.SeedGenerator(5))
    copy = Scaled.from_config(stream.get_config())
    again = copy.clone()
    first = array(stream(KERNEL))
    np.testing.assert_array_equal(array(copy(KERNEL)), first)
    np.testing.assert_array_equal(array(again(KERNEL)), first)


def test_a_saved_model_comes_back_with_its_initializers(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, kernel_initializer=DeltaOrthogonal(gain="relu", seed=1)),
            keras.layers.Flatten(),
            keras.layers.Dense(5, kernel_initializer=Scaled("average", "uniform", seed=2)),
            keras.layers.Dense(3, kernel_initializer=Orthogonal(seed=3), dtype="float16"),
        ]
    )
    model.save(tmp_path / "model.keras")
    copy = keras.saving.load_model(tmp_path / "model.keras")
    for layer, other in zip(model.layers, copy.layers, strict=True):
        for weight, expected in zip(other.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
    for i in (0, 2, 3):
        ours, theirs = model.layers[i].kernel_initializer, copy.layers[i].kernel_initializer
        assert type(theirs) is type(ours)
        assert theirs.get_config() == ours.get_config()


# --- gains ---


def test_the_gain_of_relu_is_exactly_root_two():
    assert activation_gain("relu") == math.sqrt(2)
    assert activation_gain(keras.activations.relu) == math.sqrt(2)
    assert activation_gain(lambda x: ops.relu(x)) == near(math.sqrt(2))


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("linear", lambda z: z),
        ("tanh", mpmath.tanh),
        ("sigmoid", lambda z: 1 / (1 + mpmath.exp(-z))),
        ("gelu", lambda z: z * mpmath.ncdf(z)),
        ("silu", lambda z: z / (1 + mpmath.exp(-z))),
        ("softplus", lambda z: mpmath.log1p(mpmath.exp(z))),
        ("elu", lambda z: z if z > 0 else mpmath.expm1(z)),
        ("exponential", mpmath.exp),
    ],
)
def test_gains_of_keras_activations_agree_with_mpmath(name, f):
    # TensorFlow's gelu in float64 is off by 4e-9 (its √½ is a float32).
    double = 1e-8 if name == "gelu" else 1e-12
    assert activation_gain(name) == near(float(1 / mpmath.sqrt(second_moment(f))), double=double)


def test_gains_of_record():
    assert activation_gain("linear") == near(1)
    assert activation_gain("selu") == near(1)
    assert activation_gain("sigmoid") ** -2 == pytest.approx(0.293379, abs=5e-7)
    assert activation_gain("leaky_relu") == near(math.sqrt(2 / (1 + 0.2**2)), double=1e-8)
    assert activation_gain(lambda x: x**2) == near(3**-0.5)


@examples(25)
@given(shift=floats(-3, 3), slope=floats(-1, 1))
def test_a_kink_may_lie_anywhere(shift, slope):
    def half(c):  # E[relu(z - c)²]
        return (1 + c**2) * stats.norm.sf(c) - c * stats.norm.pdf(c)

    moment = half(shift) + slope**2 * half(-shift)
    gain = activation_gain(lambda x: ops.relu(x - shift) - slope * ops.relu(shift - x))
    assert gain == near(moment**-0.5, double=1e-7, single=1e-5)


def test_a_jump_or_an_integrable_singularity_may_lie_anywhere():
    step = activation_gain(lambda x: ops.where(x > 0.3, 1.0, 0.0))
    assert step == near(stats.norm.sf(0.3) ** -0.5, double=1e-7)
    root = activation_gain(lambda x: ops.abs(x) ** -0.25)  # E|z|^(-1/2) = 2^(-1/4) Γ(1/4)/√π
    assert root == near((2**-0.25 * math.gamma(0.25) / math.sqrt(math.pi)) ** -0.5, double=1e-7)


def test_numpy_functions_and_keras_layers_are_activations_too():
    assert activation_gain(np.tanh) == near(activation_gain("tanh"))
    layer = keras.layers.LeakyReLU(negative_slope=0.2)  # computes in float32 on every backend
    assert activation_gain(layer) == pytest.approx(activation_gain("leaky_relu"), rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "sigmoid"])
def test_the_gain_keeps_the_second_moment_of_the_next_layer(activation):
    y = np.random.default_rng(0).standard_normal((200, 1000))
    x = array(keras.activations.get(activation)(ops.convert_to_tensor(y, "float32")))
    after = x @ array(Scaled("fan_in", "rademacher", gain=activation, seed=1)((1000, 4000)))
    # All rows of x share a direction (their mean), so the effective sample is the 4000 outputs.
    assert np.mean(after**2) == pytest.approx(1, rel=5 * math.sqrt(2 / 4000))


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        (lambda x: 0 * x, "positive second moment"),
        (lambda x: 1 / x, "finite second moment"),
        (lambda x: ops.abs(x) ** -0.5, "finite second moment"),
        (lambda x: ops.exp(x**2 / 4), "finite second moment"),
        (lambda x: ops.exp(x**2), "finite second moment"),
        (ops.sqrt, "finite"),
        (lambda x: x + ops.cast(keras.random.normal(tuple(x.shape)), x.dtype), "elementwise|converge"),
        ("softmax", "elementwise"),
        ("glu", "elementwise"),
        ("rellu", "name of a Keras activation"),
        (None, "name of a Keras activation"),
        (2.0, "name of a Keras activation"),
    ],
)
def test_activations_without_a_gain_are_refused(activation, reason):
    with pytest.raises(ValueError, match=f"^activation must.*({reason})"):
        activation_gain(activation)
    with pytest.raises(ValueError, match=f"^activation must.*({reason})"):
        correlation_map(activation, 0.5)


# --- angles ---

RHO = np.concatenate([np.linspace(-1, 1, 101), 1 - np.logspace(-6, -2, 20), np.logspace(-6, -2, 20) - 1])


def test_relu_contracts_angles_as_tabulated():
    rho, seen = 0.0, []
    for _ in range(5):
        rho = correlation_map("relu", rho)
        seen.append(round(float(rho), 3))
    assert seen == [0.318, 0.494, 0.605, 0.681, 0.736]


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.0, 0.5, 0.99])
def test_the_arc_cosine_kernel_is_the_integral_over_the_plane(rho):
    # In polar coordinates u = r cos θ, v = r cos(θ - α) with cos α = ρ; the radius contributes a factor 2 / 2π.
    alpha = math.acos(rho)
    wedge, _ = integrate.quad(lambda t: math.cos(t) * math.cos(t - alpha), alpha - math.pi / 2, math.pi / 2)
    assert correlation_map("relu", rho) == pytest.approx(2 * wedge / math.pi, abs=1e-12)


def arc_cosine(rho):
    return (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi


@pytest.mark.parametrize(
    ("f", "expected", "tolerance"),
    [
        (lambda x: x, lambda r: r, 1e-12),
        (lambda x: x**2, lambda r: (1 + 2 * r**2) / 3, 1e-12),
        (lambda x: ops.exp(x), lambda r: np.exp(r - 1), 1e-12),
        (ops.erf, lambda r: np.arcsin(2 * r / 3) / np.arcsin(2 / 3), 1e-12),
        (lambda x: ops.relu(x), arc_cosine, 1e-6),
        (ops.abs, lambda r: 2 * arc_cosine(r) - r, 1e-6),
        (lambda x: ops.maximum(x, 0.2 * x), lambda r: (0.4 * r + 0.64 * arc_cosine(r)) / 1.04, 1e-6),
    ],
    ids=["identity", "square", "exponential", "erf", "relu", "absolute value", "leaky relu"],
)
def test_correlation_maps_have_their_closed_forms(f, expected, tolerance):
    np.testing.assert_allclose(correlation_map(f, RHO), expected(RHO), rtol=0, atol=max(tolerance, 1e-6 * SINGLE))


def test_the_map_of_a_jump_is_the_arcsine_law_and_its_error_is_the_stated_one():
    error = np.abs(correlation_map(ops.sign, RHO) - 2 / np.pi * np.arcsin(RHO))
    assert error.max() < 5e-3
    assert error[np.abs(RHO) <= 0.98].max() < 1e-6


@pytest.mark.parametrize("activation", ["tanh", "relu", "selu", "gelu"])
def test_correlation_maps_agree_with_simulation(activation):
    rng = np.random.default_rng(0)
    u, w = rng.standard_normal((2, 400_000))
    f = keras.activations.get(activation)
    fu, fv = (array(f(ops.convert_to_tensor(x, "float32"))) for x in (u, 0.6 * u + 0.8 * w))
    simulated = np.mean(fu * fv) / np.mean(fu**2)
    deviation = np.std(fu * fv - simulated * fu**2) / np.mean(fu**2) / math.sqrt(u.size)
    assert correlation_map(activation, 0.6) == pytest.approx(simulated, abs=5 * deviation)


@examples(15)
@given(shift=floats(-2, 2), rho=floats(0, 1))
def test_a_map_keeps_one_and_grows_with_positive_correlation(shift, rho):
    opposite, nearer, value, one = correlation_map(lambda x: ops.tanh(x - shift), np.array([-rho, rho / 2, rho, 1]))
    assert one == pytest.approx(1, abs=1e-12)
    # The series has no negative coefficient (Daniely et al. 2016).
    assert 0 <= nearer <= value <= one
    assert abs(opposite) <= value


def test_opposite_inputs_are_exact():
    z, weight = leggauss(200)
    z, weight = 12 * z, 12 * weight * stats.norm.pdf(12 * z)
    values, mirrored = (np.log1p(np.exp(x)) for x in (z, -z))
    expected = np.sum(weight * values * mirrored) / np.sum(weight * values**2)
    assert correlation_map("softplus", -1.0) == near(expected)
    assert correlation_map("relu", -1.0) == 0


def test_a_correlation_map_keeps_the_shape_of_its_argument():
    rho = np.linspace(-1, 1, 6).reshape(2, 3)
    for activation in ("relu", "tanh"):
        values = correlation_map(activation, rho)
        assert values.shape == (2, 3)
        assert values[1, 2] == pytest.approx(correlation_map(activation, 1.0))
        assert np.ndim(correlation_map(activation, 0.5)) == 0


@pytest.mark.parametrize("correlation", [1.0000001, -1.5, math.nan, [0.5, 2.0]])
def test_correlations_beyond_one_are_refused(correlation):
    with pytest.raises(ValueError, match="correlation"):
        correlation_map("relu", correlation)


# --- singular values ---

SIZES = [(300, 300), (2000, 500), (500, 2000), (1000, 999), (10_000, 7), (1, 90)]


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_the_density_is_that_of_marchenko_and_pastur_and_integrates_to_the_distribution(m, n):
    law, ratio = marchenko_pastur(n, m), n / m
    low, high = law.support()
    assert low == pytest.approx(abs(1 - math.sqrt(ratio)), abs=1e-12)
    assert high == pytest.approx(1 + math.sqrt(ratio))
    s = low + (high - low) * np.array([0.1, 0.3, 0.5, 0.8, 0.97])
    density = np.sqrt((s**2 - low**2) * (high**2 - s**2)) / (np.pi * min(1, ratio) * s)
    np.testing.assert_allclose(law.pdf(s), density, rtol=1e-9)
    for x in (*s, high):
        mass, _ = integrate.quad(law.pdf, low, x, epsabs=1e-11, limit=200)
        assert law.cdf(x) == pytest.approx(mass, abs=1e-8)
    assert (law.cdf(low), law.cdf(high)) == (0, 1)
    assert (law.pdf(low - 1e-3), law.pdf(high + 1e-3)) == (0, 0)


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_quantiles_invert_the_distribution(m, n):
    law = marchenko_pastur(n, m)
    p = np.array([0, 1e-6, 0.01, 0.25, 0.5, 0.9, 0.999, 1])
    np.testing.assert_allclose(law.cdf(law.ppf(p)), p, atol=1e-11)
    assert law.ppf(0.5).shape == ()


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_moments_are_those_of_the_density(m, n):
    law, ratio = marchenko_pastur(n, m), n / m
    mean, _ = integrate.quad(lambda s: s * law.pdf(s), *law.support(), epsabs=1e-11, limit=200)
    assert law.mean() == pytest.approx(mean, rel=1e-7)
    # The trace of WᵀW is n on average, and there are min(m, n) values to share it.
    assert law.var() + law.mean() ** 2 == pytest.approx(max(1, ratio))
    assert law.moment(4) == pytest.approx((1 + ratio) * max(1, ratio))


def test_a_square_matrix_has_the_quarter_circle_law():
    law = marchenko_pastur(64, 64)
    s = np.linspace(0, 2, 41)
    np.testing.assert_allclose(law.pdf(s), np.sqrt(4 - s**2) / np.pi, atol=1e-12)
    np.testing.assert_allclose(law.cdf(s), (s * np.sqrt(4 - s**2) / 2 + 2 * np.arcsin(s / 2)) / np.pi, atol=1e-12)
    assert law.mean() == pytest.approx(8 / (3 * math.pi))


def test_a_very_tall_matrix_has_the_semicircle_law():
    q = 1e-4
    x = np.linspace(-1, 1, 21)
    semicircle = 0.5 + (x * np.sqrt(1 - x**2) + np.arcsin(x)) / np.pi
    np.testing.assert_allclose(marchenko_pastur(1, 10**8).cdf(1 + q * x), semicircle, atol=1e-4)


@pytest.mark.parametrize("law", ["normal", "rademacher"])
@pytest.mark.parametrize(("m", "n"), [(1000, 500), (250, 1000), (400, 400)])
def test_singular_values_of_a_drawn_kernel_follow_the_law(law, m, n):
    kernel = array(Scaled("fan_out", law, seed=3)((n, m)))
    s = np.linalg.svd(kernel, compute_uv=False)
    # Singular values repel: below any point their number is off by a few, not by the root of their number.
    assert stats.kstest(s, marchenko_pastur(n, m).cdf).statistic < 5 / s.size
    assert stats.kstest(s, marchenko_pastur(2 * n, m).cdf).statistic > 0.1


@pytest.mark.parametrize(("n", "m"), [(64, 256), (256, 64), (300, 300)])
@pytest.mark.parametrize("fan", RULES)
def test_the_law_is_that_of_the_initializer_of_this_rule_and_gain(fan, n, m):
    law = marchenko_pastur(n, m, fan=fan, gain="gelu")
    s = np.linalg.svd(array(Scaled(fan, gain="gelu", seed=1)((n, m))), compute_uv=False)
    assert stats.kstest(s, law.cdf).statistic < 5 / s.size
    assert law.mean() == pytest.approx(s.mean(), rel=0.02)
    # Σ s² is the sum of the squares of all entries.
    assert law.moment(2) * min(n, m) == pytest.approx(activation_gain("gelu") ** 2 * RULES[fan](n, m) * n * m)


@pytest.mark.parametrize("m", [1, 3, 4, 5, 10, 10**4, 10**8, 10**16])
def test_moments_keep_their_digits_for_very_tall_matrices(m):
    mean, variance, skewness, kurtosis = (float(value) for value in marchenko_pastur(1, m).stats("mvsk"))
    with mpmath.workdps(60):
        q = 1 / mpmath.sqrt(m)

        def expect(f):  # of the angle t, whose density is (2/π) sin²t / s²
            def integrand(t):
                square = (1 - q) ** 2 + 4 * q * mpmath.sin(t / 2) ** 2
                return f(mpmath.sqrt(square)) * 2 / mpmath.pi * mpmath.sin(t) ** 2 / square

            return mpmath.quad(integrand, [0, mpmath.pi / 4, mpmath.pi])

        exact = expect(lambda s: s)
        central = [expect(lambda s, k=k: (s - exact) ** k) for k in (2, 3, 4)]
        assert mean == pytest.approx(float(exact), rel=1e-13)
        assert variance == pytest.approx(float(central[0]), rel=1e-12)
        assert skewness == pytest.approx(float(central[1] / central[0] ** 1.5), rel=1e-6, abs=1e-14)
        assert kurtosis == pytest.approx(float(central[2] / central[0] ** 2 - 3), rel=1e-11)


def test_random_variates_follow_the_law_and_their_seed():
    law = marchenko_pastur(200, 500)
    draws = law.rvs(size=(50, 100), random_state=1)
    assert stats.kstest(draws.ravel(), law.cdf).pvalue > 1e-3
    np.testing.assert_array_equal(draws, law.rvs(size=(50, 100), random_state=1))


@pytest.mark.parametrize("size", [0, -3, 2.5, 3.0, "4", None, math.nan, True])
def test_sizes_that_are_no_positive_integers_are_refused(size):
    with pytest.raises(ValueError, match=r"^fan_in must be"):
        marchenko_pastur(size, 3)
    with pytest.raises(ValueError, match=r"^fan_out must be"):
        marchenko_pastur(3, size)


@pytest.mark.parametrize(
    ("argument", "value"), [("fan", "fan_avg"), ("fan", None), ("gain", 0.0), ("gain", "rellu")]
)
def test_rules_and_gains_that_scaled_refuses_are_refused_by_the_law(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        marchenko_pastur(3, 4, **{argument: value})


def test_complex_activations_are_refused_by_name():
    for use in (activation_gain, lambda f: correlation_map(f, 0.5), lambda f: Scaled(gain=f)):
        with pytest.raises(ValueError, match=r"^activation must be real, but gives complex"):
            use(lambda x: ops.cast(x, "complex64") * 1j)
