"""Cases of `lib.initializers`: kernels by their definition, Gaussian integrals in closed form."""

from __future__ import annotations

import math
from typing import Any

import keras
import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray

from fuzzing.cases import NO_COUNT, NO_LAYER, NO_OPTION, NO_SEED, NOT_POSITIVE, Case, always
from fuzzing.values import BACKEND, FLOATS, sizes
from lib import initializers

#: What the backend leaves of a function's values.
PRECISION = 1e-5 if BACKEND == "jax" else 1e-7


# --- axes ---------------------------------------------------------------------------------------------------------


@st.composite
def kernels(draw: st.DrawFn) -> dict[str, Any]:
    """A shape, each of whose axes has a part, and the axes that have one."""
    parts = draw(st.permutations(["in_axes", "out_axes", *draw(st.sampled_from(PARTS))]))
    groups = draw(st.sampled_from([1, 1, 2]))
    shape = [draw(sizes(1, 3)) * (groups if part == "out_axes" else 1) for part in parts]
    rank = len(shape)
    axes: dict[str, Any] = {
        name: tuple(i - draw(st.sampled_from([0, rank])) for i, part in enumerate(parts) if part == name)
        for name in ("in_axes", "out_axes", "batch_axes")
    }
    if len(axes["in_axes"]) == 1 and draw(st.booleans()):
        axes["in_axes"] = axes["in_axes"][0]
    return {"shape": tuple(shape), **axes, "groups": groups}


PARTS = ([], ["field"], ["field", "field"], ["out_axes"], ["in_axes", "batch_axes"], ["batch_axes"])


def places(axes: Any, rank: int) -> list[int]:
    return [axis % rank for axis in np.atleast_1d(np.array(axes, int))]


def counted(shape: Any, in_axes: Any, out_axes: Any, batch_axes: Any, groups: int) -> tuple[int, int]:
    """Fans: all but the batch and the outputs, all but the batch and the inputs."""
    n, m, maps = (math.prod(shape[i] for i in places(axes, len(shape))) for axes in (in_axes, out_axes, batch_axes))
    every = math.prod(shape) // maps
    return every // m, every // n // groups


def matrices(shape: Any, in_axes: Any, out_axes: Any, batch_axes: Any = (), groups: int = 1, **_: Any) -> NDArray:
    """The matrix of each map, number by number."""
    return of_kernel(numbered(shape), in_axes, out_axes, batch_axes, groups)


def of_kernel(
    kernel: NDArray, in_axes: Any = None, out_axes: Any = None, batch_axes: Any = (), groups: int = 1
) -> NDArray:
    shape = kernel.shape
    rank = len(shape)
    inputs, outputs = (places(-2, rank), places(-1, rank)) if in_axes is None else (in_axes, out_axes)
    inputs, outputs, batch = (places(axes, rank) for axes in (inputs, outputs, batch_axes))
    field = [i for i in range(rank) if i not in inputs + outputs + batch]
    maps, m = (math.prod(shape[i] for i in axes) for axes in (batch, outputs))
    d = math.prod(shape[i] for i in field + inputs)
    found = np.zeros((maps * groups, d, m // groups))
    for place in np.ndindex(*shape):

        def at(axes: list[int], place: tuple[int, ...] = place) -> int:
            return int(np.ravel_multi_index([place[i] for i in axes], [shape[i] for i in axes])) if axes else 0

        group, filter_ = divmod(at(outputs), m // groups)
        found[at(batch) * groups + group, at(field + inputs), filter_] = kernel[place]
    return found if len(batch) or groups > 1 else found[0]


def numbered(shape: Any) -> NDArray:
    return np.arange(math.prod(shape), dtype="float32").reshape(shape)


def there_and_back(shape: Any, **axes: Any) -> tuple:
    """The matrices of a kernel with these numbers, and the kernel of these."""
    place = initializers.KernelAxes(**axes)
    found = place.matrices(ops.convert_to_tensor(numbered(shape)))
    return found, place.kernel(found, shape)


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """A layer whose kernel has all its weights in reach of one output."""
    channels, filters = draw(sizes(1, 3)), draw(sizes(1, 3))
    none = {"use_bias": False}
    return {
        "layer": draw(
            st.sampled_from(
                [
                    keras.layers.Dense(filters, **none),
                    keras.layers.Conv1D(filters, 3, **none),
                    keras.layers.Conv1D(2 * filters, 3, groups=2, **none),
                    keras.layers.DepthwiseConv1D(3, depth_multiplier=filters, **none),
                    keras.layers.Conv1DTranspose(filters, 3, padding="valid", **none),
                    keras.layers.EinsumDense("abc,cde->abde", (None, filters, 2)),
                    keras.layers.EinsumDense("abc,dc->abd", (None, filters)),
                ]
            )
        ),
        "channels": 2 * channels,
    }


def fan_in_of(layer: Any, channels: int = 2) -> int:
    """The inputs of an output, as the axes of the layer tell."""
    axes = initializers.kernel_axes(layer)
    return axes.fans(built(layer, channels).kernel.shape)[0]


def built(layer: keras.layers.Layer, channels: int) -> keras.layers.Layer:
    """A layer of this configuration with a kernel."""
    one = type(layer).from_config(layer.get_config())
    one.build((1, 9, channels))
    return one


def largest_output(layer: Any, channels: int) -> float:
    """Ones through a layer of ones: each output counts its inputs."""
    one = built(layer, channels)
    one.kernel.assign(np.ones(one.kernel.shape))
    return float(ops.max(one(ops.ones((1, 9, channels)))))


# --- draws --------------------------------------------------------------------------------------------------------


@st.composite
def scaled(draw: st.DrawFn) -> dict[str, Any]:
    """An initializer of independent entries, and what it is called with."""
    return {
        "shape": draw(st.lists(sizes(1, 4), min_size=2, max_size=4).map(tuple)),
        "fan": draw(st.sampled_from(["fan_in", "fan_out", "average", "geometric"])),
        "law": draw(st.sampled_from(["normal", "truncated_normal", "uniform", "rademacher"])),
        "gain": draw(st.floats(0.01, 100) | st.sampled_from(["relu", "linear"])),
        "seed": draw(st.integers(0, 2**16) | st.none()),
        "dtype": draw(st.sampled_from(FLOATS)),
    }


def scaled_and_bounded(shape: Any, dtype: Any = None, **options: Any) -> tuple:
    """The shape of a kernel, and its largest entry or, where that has no bound, 0."""
    initializer = initializers.Scaled(**options)
    kernel = initializer(shape, dtype=dtype)
    assert dtype is None or keras.backend.standardize_dtype(kernel.dtype) == dtype
    again = initializers.Scaled.from_config(initializer.get_config())(shape, dtype=dtype)
    kept = "float64" if dtype == "float64" else "float32"  # NumPy reads no bfloat16
    numbers = ops.convert_to_numpy(ops.cast(kernel, kept))
    assert np.isfinite(numbers).all()
    assert options["seed"] is None or np.array_equal(numbers, ops.convert_to_numpy(ops.cast(again, kept)))
    inside = np.abs(numbers).max() <= bound(shape, **options) * (1 + 2 * float(ml_dtypes.finfo(dtype).eps))
    flat = options["law"] == "rademacher"
    return numbers.shape, inside, float(np.abs(numbers).min()) if flat else 0.0


def bound(shape: Any, fan: str, law: str, gain: Any, **_: Any) -> float:
    """The largest entry there can be."""
    p, (n, m) = math.prod(shape[:-2]), shape[-2:]
    n, m = p * n, p * m
    variance = {"fan_in": 1 / n, "fan_out": 1 / m, "average": 2 / (m + n), "geometric": 1 / math.sqrt(m * n)}[fan]
    gain = {"relu": math.sqrt(2), "linear": 1.0}.get(gain, gain)
    # A normal law on [−2, 2] has variance 1 − 2 · 2 φ(2)/(2 Φ(2) − 1) = 0.7737.
    of_law = {"normal": 7.0, "truncated_normal": 2 / math.sqrt(0.7737), "uniform": math.sqrt(3), "rademacher": 1.0}
    return gain * math.sqrt(variance) * of_law[law]


def as_bounded(shape: Any, law: str, **options: Any) -> tuple:
    flat = law == "rademacher"
    return shape, True, bound(shape, law=law, **options) if flat else 0.0


@st.composite
def orthogonal(draw: st.DrawFn, *, delta: bool = False) -> dict[str, Any]:
    """A shape for an orthogonal kernel."""
    n, m = sorted([draw(sizes(1, 4)), draw(sizes(1, 4))]) if delta else (draw(sizes(1, 4)), draw(sizes(1, 4)))
    field = draw(st.lists(st.sampled_from([1, 3]), min_size=1 if delta else 0, max_size=2))
    return {
        "shape": (*field, n, m * 2),
        "gain": draw(st.floats(0.01, 100) | st.just("relu")),
        "seed": draw(st.integers(0, 2**16)),
        "groups": draw(st.sampled_from([1, 2] if not delta or n <= m else [1])),
    }


def products(kernel: NDArray, groups: int) -> NDArray:
    """WᵀW or WWᵀ of each group, the smaller."""
    W = kernel.reshape(-1, groups, kernel.shape[-1] // groups).swapaxes(0, 1)
    return np.swapaxes(W, 1, 2) @ W if W.shape[1] >= W.shape[2] else W @ np.swapaxes(W, 1, 2)


def products_of_orthogonal(shape: Any, **options: Any) -> Any:
    kernel = initializers.Orthogonal(**options)(shape)
    return products(ops.convert_to_numpy(kernel), options["groups"])


def squares(shape: Any, gain: Any, groups: int, **_: Any) -> NDArray:
    """gain² I of each group."""
    size = min(math.prod(shape[:-1]), shape[-1] // groups)
    gain = math.sqrt(2) if gain == "relu" else gain
    return np.broadcast_to(gain**2 * np.eye(size), (groups, size, size))


def lengths_after_delta(shape: Any, **options: Any) -> Any:
    """Products of the centre tap, and what is beside it."""
    kernel = ops.convert_to_numpy(initializers.DeltaOrthogonal(**options)(shape))
    centre = tuple(size // 2 for size in shape[:-2])
    tap = kernel[centre].copy()
    kernel[centre] = 0
    W = tap.reshape(shape[-2], options["groups"], -1).swapaxes(0, 1)
    return W @ np.swapaxes(W, 1, 2), float(np.abs(kernel).max())


def lengths_kept(shape: Any, gain: Any, groups: int, **_: Any) -> tuple:
    gain = math.sqrt(2) if gain == "relu" else gain
    return np.broadcast_to(gain**2 * np.eye(shape[-2]), (groups, shape[-2], shape[-2])), 0.0


# --- activations --------------------------------------------------------------------------------------------------


@st.composite
def activations(draw: st.DrawFn) -> dict[str, Any]:
    """A function whose Gaussian moments are known."""
    kind, a = draw(st.sampled_from(["line", "power", "wave", "exponential", "relu"])), draw(st.floats(0.125, 2))
    return {"activation": Known(kind, a), "correlation": np.array([draw(st.floats(-1, 1)) for _ in range(3)])}


class Known:
    """An activation with a second moment and a map of correlations in closed form."""

    def __init__(self, kind: str, a: float):
        self.kind, self.a = kind, a

    def __repr__(self) -> str:
        return f"{self.kind} of {self.a}"

    def __call__(self, x: Any) -> Any:
        a = self.a
        return {
            "line": lambda: a * x + 1,
            "power": lambda: x**3,
            "wave": lambda: ops.cos(a * x),
            "exponential": lambda: ops.exp(a * x),
            "relu": lambda: a * ops.maximum(x, 0),
        }[self.kind]()

    def moment(self, rho: Any) -> Any:
        """E[f(u) f(v)]."""
        a, rho = self.a, np.asarray(rho, "float64")
        return {
            "line": lambda: a * a * rho + 1,
            "power": lambda: 9 * rho + 6 * rho**3,
            "wave": lambda: math.exp(-a * a) * np.cosh(a * a * rho),
            "exponential": lambda: np.exp(a * a * (1 + rho)),
            "relu": lambda: a * a / 2 * (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi,
        }[self.kind]()


def gain_of(activation: Known) -> float:
    return float(1 / np.sqrt(activation.moment(1.0)))


def correlations_of(activation: Known, correlation: NDArray) -> NDArray:
    return activation.moment(correlation) / activation.moment(1.0)


# --- spectrum -----------------------------------------------------------------------------------------------------


@st.composite
def spectra(draw: st.DrawFn) -> dict[str, Any]:
    """A shape, a rule and a share of probability."""
    return {
        "fan_in": draw(st.sampled_from([1, 2, 10, 1000, 10**6])),
        "fan_out": draw(st.sampled_from([1, 3, 10, 1000, 10**6])),
        "fan": draw(st.sampled_from(["fan_in", "fan_out", "average", "geometric"])),
        "gain": draw(st.floats(0.01, 100)),
        "share": draw(st.floats(0.01, 0.99)),
    }


def law_of_values(share: float = 0.5, **options: Any) -> tuple:
    law = initializers.marchenko_pastur(**options)
    s = law.ppf(share)
    return share_below(float(s), *law.support()), law.cdf(s), law.mean() / s, law.var() / s**2, s / law.support()[1]


def share_below(s: float, a: float, b: float) -> float:
    """∫ √((x² − a²)(b² − x²))/(c x) dx from a to s, with c that which makes it 1 at b; x² on a half circle."""

    def integral(s: float) -> float:
        t = np.linspace(0, math.acos(np.clip((a * a + b * b - 2 * s * s) / (b * b - a * a), -1, 1)), 20001)
        t = (t[1:] + t[:-1]) / 2
        square = (a * a + b * b) / 2 - (b * b - a * a) / 2 * np.cos(t)
        return float(np.mean(np.sin(t) ** 2 / square) * 20000 * (t[1] - t[0])) if s > a else 0.0

    return integral(s) / integral(b)


def by_marchenko_pastur(fan_in: int, fan_out: int, fan: str, gain: float, share: float) -> tuple:
    """The share below the quantile is that of the quantile; moments by a sum over the same half circle."""
    n, m = fan_in, fan_out
    variance = {"fan_in": 1 / n, "fan_out": 1 / m, "average": 2 / (m + n), "geometric": 1 / math.sqrt(m * n)}[fan]
    scale = gain * math.sqrt(variance * max(m, n))
    q = math.sqrt(min(m, n) / max(m, n))
    a, b = scale * (1 - q), scale * (1 + q)
    low, high = a, b
    for _ in range(60):
        s = (low + high) / 2
        low, high = (s, high) if share_below(s, a, b) < share else (low, s)
    t = (np.arange(20000) + 0.5) * math.pi / 20000
    square = (a * a + b * b) / 2 - (b * b - a * a) / 2 * np.cos(t)
    weight = np.sin(t) ** 2 / square / np.sum(np.sin(t) ** 2 / square)
    mean = np.sum(weight * np.sqrt(square))
    return share, share, mean / s, np.sum(weight * (np.sqrt(square) - mean) ** 2) / s**2, s / b


NO_SHAPE = tuple(map(always, (None, 3, "ab", (3,), (0, 3), (-1, 3), (2.5, 3), (True, 3))))
NO_AXES = tuple(map(always, (True, 1.5, "0", (0, 0), (9,), -9)))
NO_GAIN = (*NOT_POSITIVE, always("nonsense"))
NO_ACTIVATION = tuple(map(always, (None, "nonsense", 3, lambda x: x[:1], lambda x: 0 * x, lambda x: x / 0)))
NO_CORRELATION = tuple(map(always, (None, "0.5", [[0.1], [0.1, 0.2]], 1.5, np.nan, 1j, True)))
OPTIONS = {"fan": (*NO_OPTION, always(None)), "gain": NO_GAIN}

CASES = [
    Case(
        initializers.fans,
        kernels(),
        counted,
        {
            "shape": NO_SHAPE,
            "in_axes": NO_AXES,
            "out_axes": NO_AXES,
            "batch_axes": (*NO_AXES, always(None)),
            "groups": NO_COUNT,
        },
        0,
    ),
    Case(there_and_back, kernels(), lambda **k: (matrices(**k), numbered(k["shape"])), of=("KernelAxes",)),
    Case(fan_in_of, layers(), largest_output, {"layer": NO_LAYER}, of=("kernel_axes",), examples=10),
    Case(
        scaled_and_bounded,
        scaled(),
        as_bounded,
        {
            "shape": NO_SHAPE,
            **OPTIONS,
            "law": (*NO_OPTION, always(None)),
            "seed": NO_SEED,
            "dtype": tuple(map(always, ("int32", "nonsense", 3, "bool"))),
        },
        tolerance=lambda given: float(ml_dtypes.finfo(given["dtype"]).eps),
        of=("Scaled",),
    ),
    Case(
        products_of_orthogonal,
        orthogonal(),
        squares,
        {"shape": NO_SHAPE, "gain": NO_GAIN, "seed": NO_SEED, "groups": (*NO_COUNT, always(7))},
        of=("Orthogonal",),
    ),
    Case(
        lengths_after_delta,
        orthogonal(delta=True),
        lengths_kept,
        {"shape": (*NO_SHAPE, *map(always, ((2, 2), (2, 2, 2), (3, 4, 2)))), "gain": NO_GAIN, "seed": NO_SEED},
        of=("DeltaOrthogonal",),
    ),
    Case(
        initializers.activation_gain,
        activations().map(lambda given: {"activation": given["activation"]}),
        gain_of,
        {"activation": NO_ACTIVATION},
        PRECISION,
        examples=4,
    ),
    Case(
        initializers.correlation_map,
        activations(),
        correlations_of,
        {"activation": NO_ACTIVATION[:3], "correlation": NO_CORRELATION},
        max(PRECISION, 1e-6),
        examples=4,
    ),
    Case(
        law_of_values,
        spectra(),
        by_marchenko_pastur,
        {"fan_in": NO_COUNT, "fan_out": NO_COUNT, **OPTIONS},
        1e-5,
        of=("marchenko_pastur",),
        examples=10,
    ),
]

EXEMPT: dict[str, str] = {}
