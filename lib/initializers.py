"""Initialization as geometry: random matrices that keep the length of a vector.

A layer computes y = xW with a kernel W of shape (n, m): n inputs, m outputs. Its entries are independent, have
mean 0 and a variance that depends on n and m alone. The choice of that variance is a choice of what is kept:

=================  ================  ==============================================================
rule               variance          keeps
=================  ================  ==============================================================
``fan_out``        1/m               the length of the vector, forward (the rule of the article)
``fan_in``         1/n               the second moment of a coordinate, forward (LeCun; He with gain √2)
``average``        2/(m + n)         a compromise between forward and backward (Glorot and Bengio)
``geometric``      1/√(mn)           the length through an n → m → n pair of layers
=================  ================  ==============================================================

The module holds these initializers (:class:`Scaled`), the exactly orthogonal ones (:class:`Orthogonal`,
:class:`DeltaOrthogonal`), and what the theory says about them: the gain an activation asks for
(:func:`activation_gain`), what it does to angles (:func:`correlation_map`) and the law of the singular values of
a random matrix (:func:`marchenko_pastur`).

Source: Su Jianlin, "A geometric view of parameter initialization", https://kexue.fm/archives/7180.
"""

import math
import numbers
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from scipy import special, stats

from ._arguments import positive_integer

__all__ = [
    "DeltaOrthogonal",
    "Orthogonal",
    "Scaled",
    "activation_gain",
    "correlation_map",
    "fans",
    "marchenko_pastur",
]

Seed = int | keras.random.SeedGenerator | None
Activation = str | Callable[[Any], Any]


# --- shapes -----------------------------------------------------------------------------------------------


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Counts the inputs that reach one output of a layer, and the outputs that one input reaches.

    Args:
        shape: Shape of a Keras kernel, (n, m) or (*spatial, n, m), with n input and m output channels.

    Returns:
        The pair (fan_in, fan_out) = (k·n, k·m), where k is the product of the spatial sizes.

    Raises:
        ValueError: If ``shape`` has fewer than two sizes, or one that is not a positive integer.

    Example:
        >>> fans((784, 100))
        (784, 100)
        >>> fans((3, 3, 16, 32))
        (144, 288)
    """
    try:
        sizes = tuple(shape)
    except TypeError:
        raise ValueError(f"shape must be a sequence of sizes, got {shape!r}") from None
    if len(sizes) < 2:
        raise ValueError(f"shape must be (..., inputs, outputs), of rank 2 or more, got {shape!r}")
    *spatial, n, m = (positive_integer(f"shape[{i}]", size) for i, size in enumerate(sizes))
    k = math.prod(spatial)
    return k * n, k * m


# --- initializers -----------------------------------------------------------------------------------------


class _RandomInitializer(keras.initializers.Initializer):
    """What the initializers below share: a gain, a seed treated as Keras treats it, and the dtype.

    A subclass adds ``_draw(shape, dtype)``, a kernel of gain 1 in float32 or float64.
    """

    def __init__(self, gain: float | Activation = 1.0, seed: Seed = None):
        self.gain = _as_gain(gain)
        if isinstance(seed, dict):  # a SeedGenerator in the configuration of a saved layer
            seed = keras.saving.deserialize_keras_object(seed)
        if not (seed is None or isinstance(seed, (int, keras.random.SeedGenerator))):
            raise ValueError(f"seed must be an integer, a keras.random.SeedGenerator or None, got {seed!r}")
        self._given_seed = seed
        # Python's generator, because keras.utils.set_random_seed seeds it.
        self.seed = random.randint(1, 10**9) if seed is None else seed

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        """Draws a kernel.

        Args:
            shape: Shape of the kernel, (n, m) or (*spatial, n, m).
            dtype: A floating dtype; ``keras.config.floatx()`` if None. Half precision is drawn in float32 and
                then rounded: not every backend can factorise a matrix, or sample finely, in half precision.

        Returns:
            A tensor of that shape and dtype.

        Raises:
            ValueError: If the shape is not that of a kernel, or the dtype is not floating.
        """
        fans(shape)  # refuses what is not the shape of a kernel
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        if "float" not in dtype:
            raise ValueError(f"dtype must be a floating dtype, got {dtype!r}")
        draw = self._draw(tuple(map(int, shape)), "float64" if dtype == "float64" else "float32")
        return ops.cast(self.gain * draw, dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this initializer; a gain given as an activation is a number."""
        return {"gain": self.gain, "seed": keras.saving.serialize_keras_object(self._given_seed)}


def _as_gain(gain: float | Activation) -> float:
    if isinstance(gain, str) or callable(gain):
        return activation_gain(_as_function("gain", gain))
    if not isinstance(gain, numbers.Real) or isinstance(gain, bool) or not 0 < gain < math.inf:
        raise ValueError(f"gain must be a positive finite number or an activation, got {gain!r}")
    return float(gain)


# Variance of an entry by rule, from n = fan_in and m = fan_out.
_VARIANCES: dict[str, Callable[[int, int], float]] = {
    "fan_in": lambda n, m: 1 / n,  # noqa: ARG005
    "fan_out": lambda n, m: 1 / m,  # noqa: ARG005
    "average": lambda n, m: 2 / (m + n),
    "geometric": lambda n, m: 1 / math.sqrt(m * n),
}


def _truncated_normal(shape: tuple[int, ...], dtype: str, seed: Seed) -> Any:
    """Unit-variance draws of a normal law cut at two of its own standard deviations.

    The quantile function does the cutting: keras.random.truncated_normal redraws at most four times on torch,
    so there about one value in 200,000 lies outside.
    """
    edge = math.erf(math.sqrt(2))  # P(|z| < 2)
    z = math.sqrt(2) * ops.erfinv(keras.random.uniform(shape, -edge, edge, dtype=dtype, seed=seed))
    return z / float(stats.truncnorm.std(-2, 2))


# Draws of mean 0 and variance 1 by law.
_LAWS: dict[str, Callable[[tuple[int, ...], str, Seed], Any]] = {
    "normal": lambda shape, dtype, seed: keras.random.normal(shape, dtype=dtype, seed=seed),
    "truncated_normal": _truncated_normal,
    "uniform": lambda shape, dtype, seed: keras.random.uniform(
        shape, -math.sqrt(3), math.sqrt(3), dtype=dtype, seed=seed
    ),
    "rademacher": lambda shape, dtype, seed: ops.cast(2 * keras.random.randint(shape, 0, 2, seed=seed) - 1, dtype),
}


@keras.saving.register_keras_serializable(package="proof_by_running")
class Scaled(_RandomInitializer):
    """Independent entries of mean 0 and variance gain² · v, where v follows from the shape of the kernel.

    With n = fan_in and m = fan_out (see :func:`fans`), v is 1/n for ``fan_in``, 1/m for ``fan_out``, 2/(m + n)
    for ``average`` and 1/√(mn) for ``geometric``. The law of the entries changes nothing in E‖w‖² for a row or
    column w. For a w of n entries of variance 1/n, it does change Var(‖w‖²) = (κ − 1)/n through the fourth
    moment κ: 3 for ``normal``, 9/5 for ``uniform``, and 1 for ``rademacher``, whose rows all have the same
    length. ``truncated_normal`` is cut at two standard deviations and widened to have the stated variance.

    The familiar names are ``Scaled("fan_in")`` for LeCun, ``Scaled("average")`` for Glorot (Xavier) and
    ``Scaled("fan_in", gain="relu")`` for He.

    Args:
        fan: "fan_in", "fan_out", "average" or "geometric".
        law: "normal", "truncated_normal", "uniform" or "rademacher" (±1 with equal probability).
        gain: Factor of the standard deviation, positive; or an activation (a Keras name or a callable), which
            stands for its :func:`activation_gain`.
        seed: Integer, ``keras.random.SeedGenerator`` or None. As in Keras, an initializer whose seed is an integer
            or None gives the same values at every call of one shape; a SeedGenerator gives new ones.

    Raises:
        ValueError: If an argument is none of these, or, when called, if the shape is not that of a kernel.

    Source: LeCun et al. 1998, "Efficient BackProp"; Glorot and Bengio 2010; He et al. 2015 (arXiv 1502.01852);
    https://kexue.fm/archives/8725 for the geometric mean.

    Example:
        >>> kernel = Scaled("fan_out", law="rademacher", seed=0)((100, 400))
        >>> bool(keras.ops.all(keras.ops.abs(kernel) == 0.05))
        True
        >>> layer = keras.layers.Dense(64, activation="relu", kernel_initializer=Scaled(gain="relu"))
    """

    def __init__(
        self,
        fan: str = "fan_in",
        law: str = "normal",
        gain: float | Activation = 1.0,
        seed: Seed = None,
    ):
        super().__init__(gain, seed)
        self.fan = _one_of("fan", fan, _VARIANCES)
        self.law = _one_of("law", law, _LAWS)

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        variance = _VARIANCES[self.fan](*fans(shape))
        return math.sqrt(variance) * _LAWS[self.law](shape, dtype, self.seed)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this initializer."""
        return {"fan": self.fan, "law": self.law, **super().get_config()}


def _one_of(name: str, value: str, choices: dict[str, Any]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


@keras.saving.register_keras_serializable(package="proof_by_running")
class Orthogonal(_RandomInitializer):
    """A uniformly random (Haar) matrix with orthonormal rows or columns, times the gain.

    A kernel W of shape (n, m) has WWᵀ = gain² I if n ≤ m, so that x ↦ xW multiplies every length by the gain;
    otherwise WᵀW = gain² I. A kernel of shape (*spatial, n, m) is treated as the matrix of shape
    (fan_in, m); a convolution with it does not keep lengths, :class:`DeltaOrthogonal` does.

    This is Keras's own initializer (QR of a Gaussian matrix, with the signs of R moved into Q, without which the
    law is not uniform) for every floating dtype and with a gain that may be an activation.

    Args:
        gain: Factor of all singular values, positive; or an activation, as in :class:`Scaled`.
        seed: As in :class:`Scaled`.

    Raises:
        ValueError: If an argument is none of these, or, when called, if the shape is not that of a kernel.

    Source: Saxe, McClelland and Ganguli 2013 (arXiv 1312.6120); Mezzadri 2007 (arXiv math-ph/0609050) for the
    signs.

    Example:
        >>> W = keras.ops.convert_to_numpy(Orthogonal(gain=2.0, seed=0)((3, 5)))
        >>> np.allclose(W @ W.T, 4 * np.eye(3), atol=1e-5)
        True
    """

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        return keras.initializers.Orthogonal(seed=self.seed)(shape, dtype)


@keras.saving.register_keras_serializable(package="proof_by_running")
class DeltaOrthogonal(Orthogonal):
    """A convolution kernel that is zero but for its centre tap, a random orthogonal matrix times the gain.

    With padding "same" and stride 1 the convolution applies one matrix with orthonormal rows to the channels at
    every position, so it multiplies the length of every input by the gain, exactly. The kernel must have at
    least as many outputs as inputs, and odd spatial sizes, or else there is no centre.

    Args:
        gain: Factor of all lengths, positive; or an activation, as in :class:`Scaled`.
        seed: As in :class:`Scaled`.

    Raises:
        ValueError: If an argument is none of these, or, when called, if the shape is not (*spatial, n, m) with at
            least one spatial size, all of them odd, and n ≤ m.

    Source: Xiao et al. 2018 (arXiv 1806.05393), algorithm 1.

    Example:
        >>> W = keras.ops.convert_to_numpy(DeltaOrthogonal(seed=0)((3, 3, 4, 8)))
        >>> np.allclose(W[1, 1] @ W[1, 1].T, np.eye(4), atol=1e-5), int(np.count_nonzero(W))
        (True, 32)
    """

    def _draw(self, shape: tuple[int, ...], dtype: str) -> Any:
        *spatial, n, m = shape
        if not spatial:
            raise ValueError(f"shape must be (*spatial, inputs, outputs), of rank 3 or more, got {shape}")
        if any(size % 2 == 0 for size in spatial):
            raise ValueError(f"shape must have odd spatial sizes, else the kernel has no centre, got {shape}")
        if m < n:
            raise ValueError(f"shape must have at least as many outputs as inputs, got {n} -> {m} in {shape}")
        tap = ops.reshape(super()._draw((n, m), dtype), (1,) * len(spatial) + (n, m))
        return ops.pad(tap, [(size // 2, size // 2) for size in spatial] + [(0, 0), (0, 0)])


# --- what an activation does to lengths and angles --------------------------------------------------------


def activation_gain(activation: Activation) -> float:
    """The factor 1/√E[f(z)²], z ~ N(0, 1), that makes up for what the activation f does to the length.

    A standard normal pre-activation keeps its second moment through f when the weights carry this factor.
    It is √2 for relu, exactly. For any other f the integral is computed by Gauss-Legendre panels that are halved
    until they agree, so that kinks, jumps and integrable singularities may lie anywhere.

    Args:
        activation: An elementwise function of a tensor, or the name of a Keras activation.

    Returns:
        The gain. The relative error of the integral is about 1e-8, and near 1e-15 where f is smooth between the
        multiples of 1/16. To it comes the backend's error in f, 1e-7 on JAX, which computes in float32.

    Raises:
        ValueError: If ``activation`` is neither a known name nor callable, is not elementwise, or if E[f(z)²] is
            zero or not finite.

    Source: He et al. 2015 (arXiv 1502.01852), section 2.2, for relu.

    Example:
        >>> activation_gain("relu") == math.sqrt(2)
        True
        >>> round(activation_gain("selu"), 5)  # self-normalising: its constants were chosen for a gain of 1
        1.0
        >>> round(activation_gain(lambda x: x**2), 5)  # 1/√3
        0.57735
    """
    f = _as_function("activation", activation)
    if f is keras.activations.relu:
        return math.sqrt(2)
    return 1 / math.sqrt(_gaussian_rule(f).second_moment)


def correlation_map(activation: Activation, correlation: float | np.ndarray) -> float | np.ndarray:
    """The cosine E[f(u)f(v)] / E[f²] after the activation f, for standard normal u, v of a given correlation ρ.

    This is what one wide random layer with the gain of f does to the cosine between two inputs. For relu it is
    the arc-cosine kernel, (√(1 − ρ²) + ρ(π − arccos ρ))/π. For any other f it is the power series
    Σₖ aₖ² ρᵏ / E[f²], whose coefficients aₖ = E[f(z)hₖ(z)] belong to the normalised Hermite polynomials hₖ.

    Args:
        activation: An elementwise function of a tensor, or the name of a Keras activation.
        correlation: ρ in [-1, 1], a number or an array of any shape.

    Returns:
        The cosines, float64, of the shape of ``correlation``. The series is cut at 2048 terms and what is left of
        E[f²] is put on the next two, so ρ = ±1 is exact. The error is below 1e-6 for a continuous f with a few
        kinks, far smaller for a smooth one, and up to 0.005 where an f with jumps meets |ρ| > 0.99.

    Raises:
        ValueError: If ``correlation`` leaves [-1, 1], or for an activation that :func:`activation_gain` refuses.

    Source: Cho and Saul 2009 for relu; Daniely, Frostig and Singer 2016 (arXiv 1602.05897), section 4, for the
    series.

    Example:
        >>> rho = 0.0
        >>> for layer in range(3):
        ...     rho = correlation_map("relu", rho)
        ...     print(round(float(rho), 3))
        0.318
        0.494
        0.605
    """
    f = _as_function("activation", activation)
    rho = np.asarray(correlation, dtype=np.float64)
    if not np.all(np.abs(rho) <= 1):  # also refuses NaN
        raise ValueError(f"correlation must lie in [-1, 1], got {correlation!r}")
    if f is keras.activations.relu:
        return (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi
    powers = _hermite_powers(_gaussian_rule(f))
    return np.polynomial.polynomial.polyval(rho, powers) / powers.sum()


def _as_function(name: str, activation: Activation) -> Callable[[Any], Any]:
    if isinstance(activation, str):
        try:
            return keras.activations.get(activation)
        except ValueError:
            pass  # refused below, under the name of the argument
    elif callable(activation):
        return activation
    raise ValueError(f"{name} must be a function or the name of a Keras activation, got {activation!r}")


def _values(f: Callable[[Any], Any], z: np.ndarray) -> np.ndarray:
    """Evaluates f at the points z in float64, where the backend has it, on the CPU, where NumPy functions work."""
    points = np.resize(z, -(-z.size // _BLOCK) * _BLOCK)  # repeats z: with few shapes, JAX seldom compiles
    with keras.device("cpu:0"):
        values = ops.convert_to_numpy(f(ops.convert_to_tensor(points)))
    if values.shape != points.shape:
        raise ValueError(f"activation must act elementwise, but took {points.shape} to {values.shape}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"activation must have a finite second moment, but is not finite at all points: {f!r}")
    return values[: z.size].astype(np.float64).reshape(z.shape)


class _GaussianRule(NamedTuple):
    """A quadrature rule for the standard normal law, fitted to one activation f; each array is of shape (N,)."""

    z: np.ndarray  # nodes, all positive: f is known at z and at -z
    weight: np.ndarray  # E[g(z)] = Σ weight · (g(z) + g(-z))
    right: np.ndarray  # f(z)
    left: np.ndarray  # f(-z)

    @property
    def second_moment(self) -> float:
        """E[f(z)²]."""
        return float(np.sum(self.weight * (self.right**2 + self.left**2)))


_REACH = 16.0  # the normal density is 1e-56 there
_BLOCK = 6144  # half panels of width 1/32 over that reach, times 12 nodes
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def _gaussian_rule(f: Callable[[Any], Any]) -> _GaussianRule:
    """Halves panels of [0, 16] until each agrees with its halves on the integral of f(z)² + f(-z)²."""
    probe = np.arange(1.0, 5.0)
    if not np.allclose(_values(f, probe)[:2], _values(f, probe[:2]), rtol=1e-3):
        raise ValueError(f"activation must act elementwise, but a value depends on its neighbours: {f!r}")

    def sample(start: np.ndarray, width: np.ndarray) -> _GaussianRule:  # arrays of shape (panels, 12)
        z = start[:, None] + width[:, None] * (1 + _NODES) / 2
        weight = width[:, None] * _WEIGHTS / 2 * stats.norm.pdf(z)
        return _GaussianRule(z, weight, _values(f, z), _values(f, -z))

    def mass(panels: _GaussianRule) -> np.ndarray:
        return np.sum(panels.weight * (panels.right**2 + panels.left**2), axis=1)

    start = np.arange(0, _REACH, 1 / 16)
    width = np.full_like(start, 1 / 16)
    coarse = mass(sample(start, width))
    # Above the noise of float32, else nothing would ever agree there.
    tolerance = 1e-8 * coarse.sum()
    settled = []
    for _ in range(60):
        start = np.column_stack([start, start + width / 2]).ravel()
        width = np.repeat(width / 2, 2)
        halves = sample(start, width)
        fine = mass(halves)
        agrees = np.repeat(np.abs(coarse - fine.reshape(-1, 2).sum(axis=1)) <= tolerance, 2)
        settled.append([array[agrees].ravel() for array in halves])
        start, width, coarse = start[~agrees], width[~agrees], fine[~agrees]
        if start.size == 0 or start.size > 2**16:
            break
    rule = _GaussianRule(*map(np.concatenate, zip(*settled, strict=True)))
    tail = _GaussianRule(*(array[rule.z > _REACH - 1] for array in rule)).second_moment
    if start.size or tail > 1e-12 * rule.second_moment:
        raise ValueError(f"activation must have a finite second moment, but E[f(z)²] does not converge: {f!r}")
    if rule.second_moment == 0:
        raise ValueError(f"activation must have a positive second moment, but E[f(z)²] is 0: {f!r}")
    return rule


def _hermite_powers(rule: _GaussianRule, terms: int = 2048) -> np.ndarray:
    """The squares aₖ² of the Hermite coefficients of f for k < terms, then what is left of E[f²], even and odd."""
    parts = rule.right + rule.left, rule.right - rule.left  # twice the even and the odd part of f
    left_over = [np.sum(rule.weight * part**2) / 2 for part in parts]
    powers = []
    h, h_before = np.ones_like(rule.z), np.zeros_like(rule.z)
    for k in range(terms):
        powers.append(np.sum(rule.weight * parts[k % 2] * h) ** 2)
        left_over[k % 2] -= powers[-1]
        h, h_before = (rule.z * h - math.sqrt(k) * h_before) / math.sqrt(k + 1), h
    return np.array(powers + [max(0.0, rest) for rest in left_over])


# --- the law of singular values ---------------------------------------------------------------------------


class _SingularValues(stats.rv_continuous):
    """Limit law of the singular values of a tall matrix with entries of variance 1/rows, q² = columns/rows ≤ 1.

    With x² = 1 + q² - 2q cos t, t in [0, π], the density of t is (2/π) sin²t / x², whose integral is elementary.
    """

    def _argcheck(self, q):
        return (q > 0) & (q <= 1)

    def _get_support(self, q):
        return 1 - q, 1 + q

    def _pdf(self, x, q):
        # At q = 1 the lower edge is 0, where the ratio of edge to x is to be read as its limit, 0.
        ratio = np.divide(1 - q, x, out=np.zeros_like(x), where=x > 0)
        return np.sqrt((1 - ratio**2) * ((1 + q) ** 2 - x**2)) / (np.pi * q**2)

    def _cdf(self, x, q):
        return _cdf_of_angle(2 * np.arctan2(np.sqrt(x**2 - (1 - q) ** 2), np.sqrt((1 + q) ** 2 - x**2)), q)

    def _ppf(self, p, q):
        low, high = np.zeros_like(p), np.full_like(p, np.pi)
        for _ in range(60):  # halves the bracket of t down to rounding, for all p at once
            t = (low + high) / 2
            below = _cdf_of_angle(t, q) < p
            low, high = np.where(below, t, low), np.where(below, high, t)
        return np.sqrt((1 - q) ** 2 + 4 * q * np.sin(low / 2) ** 2)

    def _munp(self, n, q):
        return special.hyp2f1(1 - n / 2, -n / 2, 2, q**2)


def _cdf_of_angle(t: np.ndarray, q: np.ndarray) -> np.ndarray:
    turn = np.arctan2(q * np.sin(t), 1 - q * np.cos(t))
    return np.clip((t + np.sin(t) / q - (1 - q**2) * turn / q**2) / np.pi, 0, 1)


_singular_values = _SingularValues(name="singular_values")


def marchenko_pastur(m: int, n: int) -> stats.distributions.rv_frozen:
    """The limit law of the non-zero singular values of an m × n random matrix with entries of variance 1/m.

    The entries are independent with mean 0; m and n grow at a fixed ratio. The law does not depend on theirs.
    The singular values fill [|1 − √(n/m)|, 1 + √(n/m)] with density
    √((s² − a²)(b² − s²)) / (π min(1, n/m) s) between these edges a and b. At m = n this is the quarter circle law
    on [0, 2]. For m < n, it is the law of the m non-zero singular values: the other n − m directions
    of the input are sent to zero.

    Args:
        m: Number of rows (outputs), a positive integer.
        n: Number of columns (inputs), a positive integer.

    Returns:
        A frozen ``scipy.stats`` distribution: ``pdf``, ``cdf`` (closed form), ``ppf``, ``rvs``, ``mean``, ``var``.

    Raises:
        ValueError: If ``m`` or ``n`` is not a positive integer.

    Source: Marchenko and Pastur 1967, for the eigenvalues s².

    Example:
        >>> [float(edge) for edge in marchenko_pastur(2000, 500).support()]
        [0.5, 1.5]
        >>> law = marchenko_pastur(100, 100)
        >>> round(float(law.mean()), 6), round(8 / (3 * math.pi), 6)
        (0.848826, 0.848826)
    """
    m, n = positive_integer("m", m), positive_integer("n", n)
    return _singular_values(math.sqrt(min(m, n) / max(m, n)), scale=math.sqrt(max(m, n) / m))
