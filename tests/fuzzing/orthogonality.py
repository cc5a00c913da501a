"""Cases of `lib.orthogonality`: singular values, products and signs in float64."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray

from fuzzing.angles import NO_FRACTION, all_pairs, not_finite
from fuzzing.cases import NO_COUNT, NO_LAYER, NO_TENSOR, NOT_NEGATIVE, NOT_POSITIVE, Case, always, deeper, flatter
from fuzzing.initializers import NO_AXES, of_kernel
from fuzzing.values import FLOATS, arrays, sizes
from lib import orthogonality

SCALES = (1.0, 1e-20, 1e15)


# --- kernels ------------------------------------------------------------------------------------------------------


@st.composite
def kernels(draw: st.DrawFn, scales: Any = (1.0, 0.0, 3.0), least: int = 1) -> dict[str, Any]:
    """A kernel of one map, or of two groups."""
    groups = draw(st.sampled_from([1, 1, 2]))
    field = draw(st.lists(sizes(1, 2), max_size=1))
    shape = (*field, draw(sizes(1, 3)), groups * draw(sizes(least, 4)))
    return {"kernel": draw(arrays(shape, scales=scales, dtypes=FLOATS)), "groups": groups}


def with_a_zero_filter(x: Any) -> Any:
    """A filter without direction among them."""
    x = np.array(x, "float32")
    x[..., -1] = 0
    return x


def several(kernel: Any, groups: int = 1, **_: Any) -> NDArray:
    """Matrices (maps, d, k) in float64."""
    W = of_kernel(np.asarray(kernel, "float64"), groups=groups)
    return W if groups > 1 else W[None]


def of_kernel_64(kernel: NDArray, groups: int) -> NDArray:
    return of_kernel(np.asarray(kernel, "float64"), groups=groups)


def angles_of(kernel: NDArray, groups: int) -> NDArray:
    found = np.stack([all_pairs(W.T) for W in several(kernel, groups)])
    return found if groups > 1 else found[0]


def blocks(kernel: Any, groups: int) -> NDArray:
    """WᵀW of the block diagonal matrix of all maps."""
    maps, d, k = several(kernel, groups).shape
    W = np.zeros((maps * d, maps * k))
    for i, block in enumerate(several(kernel, groups)):
        W[i * d : (i + 1) * d, i * k : (i + 1) * k] = block
    return W.T @ W


def penalty(kind: type, **fixed: Any) -> Any:
    """A function of a kernel that calls a penalty of this kind."""

    def function(kernel: Any, factor: Any = 1.0, groups: Any = 1) -> Any:
        made = kind(factor, groups=groups, **fixed)
        assert kind.from_config(made.get_config()).get_config() == made.get_config()
        return made(kernel)

    function.__name__ = kind.__name__
    return function


def soft(kernel: Any, factor: float, groups: int) -> float:
    G = blocks(kernel, groups)
    return factor * np.sum((G - np.eye(len(G))) ** 2)


def off_diagonal(kernel: Any, factor: float, groups: int) -> float:
    G = blocks(kernel, groups)
    return factor * np.sum((G - np.diag(np.diag(G))) ** 2)


def spectral(kernel: Any, factor: float, groups: int) -> float:
    """Max |σ² − 1| over min(d, k) singular values of each map."""
    return factor * np.max(np.abs(np.linalg.svd(several(kernel, groups), compute_uv=False) ** 2 - 1))


def coherence(kernel: Any, factor: float, groups: int) -> float:
    G = blocks(kernel, groups)
    length = np.sqrt(np.diag(G))
    cosines = np.abs(G) / np.where(length > 0, length, 1) / np.where(length > 0, length, 1)[:, None]
    return factor * np.max(cosines - np.diag(np.diag(cosines)), initial=0.0)


def with_factor(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """A kernel and a weight."""
    return st.builds(lambda given, factor: {**given, "factor": factor}, strategy, st.floats(0, 10, width=32))


def bound_of(d: int, k: int) -> float:
    return math.sqrt(max(0, k - d) / (d * max(1, k - 1)))


# --- the polar factor ---------------------------------------------------------------------------------------------


@st.composite
def full_rank(draw: st.DrawFn) -> dict[str, Any]:
    """A matrix whose singular values lie in [1, 10] times a scale."""
    d, k = draw(sizes(1, 4)), draw(sizes(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    U, _, V = np.linalg.svd(rng.standard_normal((d, k)), full_matrices=False)
    scale, dtype = draw(st.sampled_from([1.0, 1e-30, 1e30, 1e-3])), draw(st.sampled_from(FLOATS))
    matrix = U * rng.uniform(1, 10, len(V)) @ V * (scale if dtype in ("float32", "float64") else 1.0)
    return {"matrix": matrix.astype("float32" if dtype == "bfloat16" else dtype)}


def by_svd(matrix: Any) -> NDArray:
    U, _, V = np.linalg.svd(np.asarray(matrix, "float64"), full_matrices=False)
    return U @ V


@st.composite
def wrapped(draw: st.DrawFn) -> dict[str, Any]:
    """A kernel of a dense layer and what the layer is given."""
    matrix = draw(full_rank())["matrix"].astype("float32")
    x = draw(arrays((draw(sizes(1, 3)), len(matrix)), scales=(1.0,)))
    return {"layer": keras.layers.Dense(matrix.shape[1]), "kernel": matrix, "x": x}


def through_orthogonal(layer: Any, kernel: Any, x: Any, **options: Any) -> Any:
    fresh = keras.layers.Dense(layer.units) if isinstance(layer, keras.layers.Dense) else layer
    wrapper = orthogonality.Orthogonalized(fresh, **options)
    wrapper.build(x.shape)
    fresh.kernel.assign(kernel)
    return wrapper(x)


def through_svd(layer: Any, kernel: Any, x: Any, **_: Any) -> NDArray:  # noqa: ARG001
    return np.asarray(x, "float64") @ by_svd(kernel)


# --- signs --------------------------------------------------------------------------------------------------------


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, Any]:
    """Outputs of a batch and how their signs are taken."""
    shape = (*draw(st.lists(sizes(1, 2), max_size=1)), draw(sizes(2, 5)), draw(sizes(1, 6)))
    return {
        "outputs": draw(arrays(shape, scales=(1.0, 1e-3, 100.0), dtypes=FLOATS)),
        "gamma": draw(st.sampled_from([0.1, 1.0, 10.0, 1e4])),
        "centred": draw(st.booleans()),
        "scale_invariant": draw(st.booleans()),
    }


def agreements(outputs: Any, gamma: float, centred: bool, scale_invariant: bool) -> NDArray:
    y = np.asarray(outputs, "float64").reshape(-1, outputs.shape[-1])
    y = y - y.mean(0) if centred else y
    y = y / np.sqrt(np.mean(y**2, 0)) if scale_invariant else y
    t = np.tanh(gamma * y)
    return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in t.T] for a in t.T])


def penalty_of(theta: Any, lambda_mean: float, lambda_pair: float) -> float:
    theta = np.asarray(theta, "float64")
    off = theta[~np.eye(len(theta), dtype=bool)]
    return lambda_mean * np.sum(off) ** 2 + lambda_pair * np.sum(off**2)


def penalty_of_outputs(lambda_mean: float, lambda_pair: float, **given: Any) -> float:
    return penalty_of(agreements(**given), lambda_mean, lambda_pair)


def weighed(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """With weights of both terms."""
    weights = st.fixed_dictionaries({name: st.floats(0, 100, width=32) for name in ("lambda_mean", "lambda_pair")})
    return st.builds(lambda given, weights: {**given, **weights}, strategy, weights)


def floor_of(k: int, b: int, lambda_mean: float, lambda_pair: float) -> float:
    """k(k − 1)/2 uncorrelated pairs, each counted twice, of variance 1/b."""
    return lambda_mean * 4 * (k * (k - 1) / 2) / b + lambda_pair * 2 * (k * (k - 1) / 2) / b


def through_module(layer: Any, x: Any, **options: Any) -> tuple:
    """Outputs and loss of the wrapped layer."""
    wrapper = orthogonality.SelfOrthogonality(layer, **options)
    found = wrapper(x, training=True)
    return found, sum(wrapper.losses)


def by_definition(layer: Any, x: Any, lambda_mean: float, lambda_pair: float, **given: Any) -> tuple:
    y = np.asarray(x, "float64") @ np.asarray(ops.convert_to_numpy(layer.kernel), "float64")
    return np.maximum(y, 0), penalty_of_outputs(lambda_mean, lambda_pair, outputs=y, **given)


@st.composite
def with_layer(draw: st.DrawFn) -> dict[str, Any]:
    """A dense layer, a batch and the options of the module."""
    batch, n, k = draw(sizes(2, 4)), draw(sizes(1, 3)), draw(sizes(1, 3))
    seed = draw(st.integers(0, 99))
    layer = keras.layers.Dense(
        k, "relu", use_bias=False, kernel_initializer=keras.initializers.RandomNormal(seed=seed)
    )
    given = draw(outputs())
    del given["outputs"]
    return {"layer": layer, "x": draw(arrays((batch, n), scales=(1.0,))), **given}


NO_KERNEL = (*NO_TENSOR, always(1.0), always([1.0, 2.0]))
PENALTY = {"kernel": NO_KERNEL, "factor": NOT_NEGATIVE, "groups": (*NO_COUNT, always(5))}
WEIGHTS = {"lambda_mean": NOT_NEGATIVE, "lambda_pair": NOT_NEGATIVE}
OUTPUTS = {"outputs": (*NO_TENSOR, always([1.0, 2.0]), always([[1.0, 2.0]])), "gamma": NOT_POSITIVE}
NO_ANGLES = tuple(map(always, (None, "1", [[0.1], [0.1, 0.2]], -0.1, 4.0, np.nan, 1j, True)))


def lossy(given: dict[str, Any]) -> float:
    """What single precision makes of signs that a large γ decides."""
    return 1e-5 * max(1.0, given["gamma"]) if given["centred"] else 5e-5


CASES = [
    Case(
        orthogonality.kernel_matrix,
        kernels(),
        of_kernel_64,
        {"kernel": NO_KERNEL, "groups": (*NO_COUNT, always(5))},
        0,
    ),
    Case(
        orthogonality.filter_angles,
        kernels(scales=(*SCALES, 1e-3)).map(lambda k: {**k, "kernel": k["kernel"] + (k["kernel"] == 0)}),
        angles_of,
        {"kernel": (*NO_KERNEL, not_finite, with_a_zero_filter)},
        1e-7,
    ),
    Case(
        orthogonality.welch_bound,
        st.fixed_dictionaries({"d": st.integers(1, 10**9), "k": st.integers(1, 10**9)}),
        bound_of,
        {"d": NO_COUNT, "k": NO_COUNT},
        1e-14,
    ),
    Case(penalty(orthogonality.SoftOrthogonality), with_factor(kernels()), soft, PENALTY),
    Case(penalty(orthogonality.OffDiagonalOrthogonality), with_factor(kernels()), off_diagonal, PENALTY),
    Case(
        penalty(orthogonality.SpectralIsometry, iterations=60),
        with_factor(kernels()),
        spectral,
        PENALTY,
        tolerance=0.2,
    ),
    Case(
        penalty(orthogonality.MutualCoherence),
        with_factor(kernels(scales=(1.0, 0.0, *SCALES))),
        coherence,
        PENALTY,
    ),
    Case(
        orthogonality.polar,
        full_rank(),
        by_svd,
        {
            "matrix": (*NO_TENSOR, flatter, deeper, not_finite, always(np.zeros((2, 2))), always(np.zeros((0, 2)))),
        },
    ),
    Case(
        through_orthogonal,
        wrapped(),
        through_svd,
        {"layer": NO_LAYER},
        5e-5,
        of=("Orthogonalized",),
        examples=10,
    ),
    Case(
        through_orthogonal,
        wrapped().map(lambda given: {**given, "sigma_min": 1e-3, "in_axes": 0, "out_axes": 1, "groups": 1}),
        through_svd,
        {"sigma_min": NO_FRACTION, "in_axes": NO_AXES, "out_axes": NO_AXES, "groups": (*NO_COUNT, always(7))},
        5e-5,
        name="Orthogonalized by axes",
        of=("Orthogonalized",),
        examples=5,
    ),
    Case(
        orthogonality.expected_agreement,
        st.fixed_dictionaries({"theta": st.lists(st.floats(0, math.pi), max_size=3).map(lambda x: np.array(x))}),
        lambda theta: 2 / np.pi * np.arcsin(np.cos(theta)),
        {"theta": NO_ANGLES},
        1e-7,
    ),
    Case(orthogonality.sign_agreement, outputs(), agreements, OUTPUTS, lossy),
    Case(
        orthogonality.agreement_penalty,
        weighed(
            sizes(1, 4).flatmap(
                lambda k: st.fixed_dictionaries({"theta": arrays((k, k), scales=(1.0, 0.0), dtypes=FLOATS)})
            )
        ),
        penalty_of,
        {"theta": (*NO_TENSOR, flatter, deeper, always([[1.0, 2.0]])), **WEIGHTS},
    ),
    Case(
        orthogonality.sampling_floor,
        weighed(st.fixed_dictionaries({"k": st.integers(1, 10**6), "b": st.integers(1, 10**6)})),
        floor_of,
        {"k": NO_COUNT, "b": NO_COUNT, **WEIGHTS},
        1e-12,
    ),
    Case(
        orthogonality.self_orthogonality,
        weighed(outputs()),
        penalty_of_outputs,
        {**OUTPUTS, **WEIGHTS},
        lambda given: 10 * lossy(given),
    ),
    Case(
        through_module,
        weighed(with_layer()),
        by_definition,
        {"layer": NO_LAYER, "gamma": NOT_POSITIVE, **WEIGHTS},
        lambda given: 10 * lossy(given),
        of=("SelfOrthogonality",),
        examples=10,
    ),
]

EXEMPT: dict[str, str] = {}
