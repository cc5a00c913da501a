"""The angle between two random vectors of R^n, and what follows from its law.

Two independent isotropic vectors meet at an angle Θ whose density is proportional to sinⁿ⁻²θ. In high dimension
it piles up at 90 degrees. ``angle`` and ``cosine`` are the exact laws of Θ and of cos Θ as SciPy distributions,
``largest_cosine`` is the law of the worst pair among many, ``dimension_for`` and ``dimension_bound`` are the
Johnson-Lindenstrauss lemma, and ``log_directions_within`` counts almost orthogonal directions.
``angle_between`` and ``pairwise_angles`` measure the angles of given vectors.

Throughout, a point of the law is the pair (c, s) = (cos θ, sin θ). Near θ = 0 the digits are in s, near π/2 they
are in c, and keeping both loses none. All probabilities come from one function, the tail

    P(cos Θ ≥ c) = ½ I_{s²}((n−1)/2, ½),    c ≥ 0,

with I the regularised incomplete beta function.

Source: Su Jianlin, article 7076 (https://kexue.fm/archives/7076), for the density and its derivation.
"""

from bisect import bisect_left
from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.spatial.distance import cdist
from scipy.stats.distributions import rv_frozen

__all__ = [
    "angle",
    "angle_between",
    "cosine",
    "dimension_bound",
    "dimension_for",
    "largest_cosine",
    "log_directions_within",
    "pairwise_angles",
]

#: Gauss-Laguerre nodes v and weights: Σ w f(v) is E[f(V)] for V ~ Exp(1).
_LAGUERRE = np.polynomial.laguerre.laggauss(16)


# The law, as functions of n and the point (c, s) ------------------------------------------------------------


def _log_constant(n):
    """Logarithm of Γ(n/2) / (Γ((n−1)/2) √π). A difference of gammaln would lose ten digits at n = 10⁶."""
    return np.log(special.poch((n - 1) / 2, 0.5)) - 0.5 * np.log(np.pi)


def _log_sine_power(power, c, s):
    """Logarithm of s^power, from c where s is near 1; 0⁰ is 1."""
    return np.where(c * c < 0.5, special.xlog1py(power / 2, -c * c), special.xlogy(power, s))


def _log_density(n, c, s):
    """Logarithm of the density of Θ."""
    return _log_constant(n) + _log_sine_power(n - 2, c, s)


def _log_tail(n, c, s):
    """Logarithm of P(cos Θ ≥ c) for c ≥ 0.

    Deep in the tail, where the incomplete beta function runs out of range, substitute sin²φ = s² e^(−v/b) with
    b = (n−1)/2 in its integral:

        P(cos Θ ≥ c) = C sⁿ⁻¹/(n−1) · E[1/√(1 − s² e^(−V/b))],    V ~ Exp(1), C the constant of the density.

    The singularity of the expectation lies at v = −|log sⁿ⁻¹|, so far away that a few Gauss nodes are exact.
    """
    b = (n - 1) / 2
    decay = _log_sine_power(n - 1, c, s)
    expectation = sum(w / np.sqrt(c * c - s * s * np.expm1(-v / b)) for v, w in zip(*_LAGUERRE, strict=True))
    deep = _log_constant(n) + decay - np.log(n - 1) + np.log(expectation)
    within = special.betainc(0.5, b, c * c)
    tail = 0.5 * np.select(
        [within < 0.5, c * c < 0.5],  # the first for n = 2, where betaincc rounds 1 − c²
        [1 - within, special.betaincc(0.5, b, c * c)],
        special.betainc(b, 0.5, s * s),
    )
    shallow = decay > -100
    return np.where(shallow, np.log(np.where(shallow, tail, 1.0)), deep)


def _log_upper(n, c, s):
    """Logarithm of P(cos Θ ≥ c) for c of either sign."""
    log_tail = _log_tail(n, np.abs(c), s)
    return np.where(c >= 0, log_tail, np.log1p(-np.exp(log_tail)))


def _upper_quantile(n, q):
    """The point (c, s) at which P(cos Θ ≥ c) = q."""
    b = (n - 1) / 2
    smaller = np.minimum(q, 1 - q)
    c = np.sqrt(special.betainccinv(0.5, b, 2 * smaller))
    s2 = special.betaincinv(b, 0.5, 2 * smaller)
    # Where s² is below rounding, the tail is C sⁿ⁻¹/(n−1); at n = 2 its s² would underflow.
    first_order = np.exp((np.log(smaller) + np.log(n - 1) - _log_constant(n)) / (n - 1))
    s = np.where(s2 < 1e-30, first_order, np.sqrt(s2))
    # The inverses leave errors of 3e-10 in a far tail. One Newton step in θ removes them.
    log_tail = _log_tail(n, c, s)
    step = (log_tail - np.log(smaller)) * np.exp(log_tail - _log_density(n, c, s))
    c, s = c + s * step, s - c * step
    return np.where(q <= 0.5, c, -c), s


def _digamma_step(n):
    """ψ(n/2) − ψ((n−1)/2), which is E[1/(1 + e^(−V/2b))] / b for b = (n−1)/2 and V ~ Exp(1)."""
    b = (n - 1) / 2
    expectation = sum(w * special.expit(v / (2 * b)) for v, w in zip(*_LAGUERRE, strict=True))
    # The difference cancels for large n; the quadrature needs its poles at ±2πib far away.
    return np.where(n < 100, special.digamma(n / 2) - special.digamma(b), expectation / b)


def _one_coordinate(n, size, random_state):
    """One coordinate of a Gaussian vector of R^n and the length of the others: (cos Θ, sin Θ) up to scale."""
    return random_state.standard_normal(size), np.sqrt(random_state.chisquare(n - 1, size))


class _Angle(stats.rv_continuous):
    """Law of Θ. The angle falls as the cosine grows, so the cdf of the angle is the upper tail of the cosine."""

    def _logpdf(self, x, n):
        return _log_density(n, np.cos(x), np.sin(x))

    def _pdf(self, x, n):
        return np.exp(self._logpdf(x, n))

    def _logcdf(self, x, n):
        return _log_upper(n, np.cos(x), np.sin(x))

    def _cdf(self, x, n):
        return np.exp(self._logcdf(x, n))

    def _logsf(self, x, n):
        return _log_upper(n, -np.cos(x), np.sin(x))

    def _sf(self, x, n):
        return np.exp(self._logsf(x, n))

    def _ppf(self, q, n):
        c, s = _upper_quantile(n, q)
        return np.arctan2(s, c)

    def _isf(self, q, n):
        c, s = _upper_quantile(n, q)
        return np.arctan2(s, -c)

    def _rvs(self, n, size=None, random_state=None):
        coordinate, rest = _one_coordinate(n, size, random_state)
        return np.arctan2(rest, coordinate)

    def _stats(self, n):
        variance = special.polygamma(1, n / 2) / 2
        return np.pi / 2, variance, 0.0, -special.polygamma(3, n / 2) / (8 * variance**2)

    def _entropy(self, n):
        return (n - 2) / 2 * _digamma_step(n) - _log_constant(n)


class _Cosine(stats.rv_continuous):
    """Law of η = cos Θ."""

    @staticmethod
    def _sine(x):
        return np.sqrt((1 - x) * (1 + x))

    def _logpdf(self, x, n):
        return _log_constant(n) + _log_sine_power(n - 3, x, self._sine(x))

    def _pdf(self, x, n):
        return np.exp(self._logpdf(x, n))

    def _logcdf(self, x, n):
        return _log_upper(n, -x, self._sine(x))

    def _cdf(self, x, n):
        return np.exp(self._logcdf(x, n))

    def _logsf(self, x, n):
        return _log_upper(n, x, self._sine(x))

    def _sf(self, x, n):
        return np.exp(self._logsf(x, n))

    def _ppf(self, q, n):
        return -self._isf(q, n)

    def _isf(self, q, n):
        return _upper_quantile(n, q)[0]

    def _rvs(self, n, size=None, random_state=None):
        coordinate, rest = _one_coordinate(n, size, random_state)
        return coordinate / np.hypot(coordinate, rest)

    def _stats(self, n):
        return 0.0, 1 / n, 0.0, -6 / (n + 2)

    def _entropy(self, n):
        return (n - 3) / 2 * _digamma_step(n) - _log_constant(n)


class _LargestCosine(stats.rv_continuous):
    """Law of the largest of M = count (count − 1)/2 independent copies of |cos Θ|."""

    @staticmethod
    def _pairs(count):
        return count * (count - 1) / 2

    @staticmethod
    def _log_all_within(x, n, power):
        """Logarithm of P(|cos Θ| ≤ x)^power, through whichever of P and 1 − P is the smaller."""
        beyond = 2 * np.exp(_log_tail(n, x, _Cosine._sine(x)))
        within = special.betainc(0.5, (n - 1) / 2, x * x)
        return np.where(beyond < 0.5, special.xlog1py(power, -beyond), special.xlogy(power, within))

    def _within_quantile(self, log_q, n, count):
        """The x at which M log P(|cos Θ| ≤ x) = log q."""
        log_within = log_q / self._pairs(count)
        beyond = np.maximum(-np.expm1(log_within), np.finfo(float).tiny)  # q may underflow once divided by M
        x, _ = _upper_quantile(n, beyond / 2)
        return np.where(beyond < 0.5, x, np.sqrt(special.betaincinv(0.5, (n - 1) / 2, np.exp(log_within))))

    def _logpdf(self, x, n, count):
        pairs = self._pairs(count)
        return np.log(2 * pairs) + _COSINE._logpdf(x, n) + self._log_all_within(x, n, pairs - 1)

    def _pdf(self, x, n, count):
        return np.exp(self._logpdf(x, n, count))

    def _logcdf(self, x, n, count):
        return self._log_all_within(x, n, self._pairs(count))

    def _cdf(self, x, n, count):
        return np.exp(self._logcdf(x, n, count))

    def _sf(self, x, n, count):
        return -np.expm1(self._logcdf(x, n, count))

    def _ppf(self, q, n, count):
        return self._within_quantile(np.log(q), n, count)

    def _isf(self, q, n, count):
        return self._within_quantile(np.log1p(-q), n, count)


_ANGLE = _Angle(a=0.0, b=np.pi, name="angle")
_COSINE = _Cosine(a=-1.0, b=1.0, name="cosine")
_LARGEST_COSINE = _LargestCosine(a=0.0, b=1.0, name="largest_cosine")


# Arguments --------------------------------------------------------------------------------------------------


def _integers(value, name: str, *, scalar: bool = False):
    """Return ``value`` as int64 if it is an integer >= 2, or an array of them unless ``scalar``."""
    try:
        array = np.asarray(value)
        good = array.dtype.kind in "iu" and bool(np.all(array >= 2)) and not (scalar and array.ndim)
    except ValueError:  # a ragged list
        good = False
    if not good:
        expected = "an integer >= 2" if scalar else "an integer >= 2 or an array of them"
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return array.astype(np.int64)[()]


def _fractions(value, name: str, *, scalar: bool = False, one: bool = False):
    """Return ``value`` as float64 if it lies in (0, 1), or in (0, 1] where ``one`` is allowed."""
    try:
        array = np.asarray(value)
        good = array.dtype.kind in "iuf" and not (scalar and array.ndim)
        good = good and bool(np.all((array > 0) & (array <= 1 if one else array < 1)))
    except ValueError:  # a ragged list
        good = False
    if not good:
        expected = f"a number in (0, 1{']' if one else ')'}" + ("" if scalar else " or an array of them")
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return array.astype(np.float64)[()]


def _unit_vectors(vectors, name: str) -> NDArray[np.float64]:
    """Return ``vectors`` divided by their lengths along the last axis."""
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise ValueError(f"{name} must be vectors of one length, got a ragged list") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} must hold at least one coordinate along its last axis, got shape {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    largest = np.abs(array).max(axis=-1, keepdims=True)
    if not largest.all():
        raise ValueError(f"{name} must not hold a zero vector: it has no direction")
    array = array / largest  # so that no square overflows or underflows
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


# The laws ---------------------------------------------------------------------------------------------------


def angle(n: ArrayLike) -> rv_frozen:
    """Law of the angle between two independent isotropic vectors of R^n.

    The density on [0, π] is

        p(θ) = Γ(n/2) / (Γ((n−1)/2) √π) · sinⁿ⁻²θ.

    The mean is π/2, the variance exactly ½ψ′(n/2) ≈ 1/(n−1) and the excess kurtosis −½ψ‴(n/2)/ψ′(n/2)², with ψ the
    digamma function. Densities, probabilities in both tails and quantiles are accurate to 1e-10 relative from n = 2
    to n = 10⁶; the logarithms also where the probability itself underflows. Samples are exact: the angle between a
    Gaussian vector and the first axis.

    Args:
        n: Dimension, an integer >= 2 or an integer array; arrays broadcast as in ``scipy.stats``.

    Returns:
        A frozen ``scipy.stats`` distribution of the angle in radians: pdf, logpdf, cdf, sf, ppf, isf, rvs, mean,
        var, entropy and the rest.

    Raises:
        ValueError: ``n`` is not an integer or is below 2.

    Source:
        https://kexue.fm/archives/7076 for the density. The variance follows from the characteristic function
        E[exp(iβ(Θ − π/2))] = Γ(n/2)² / (Γ((n+β)/2) Γ((n−β)/2)).

    Example:
        >>> import numpy as np
        >>> law = angle(100)
        >>> print(f"{np.degrees(law.std()):.2f} degrees")
        5.76 degrees
        >>> within_ten_degrees = law.cdf(np.radians(100)) - law.cdf(np.radians(80))
        >>> print(f"{within_ten_degrees:.3f}")
        0.918
        >>> angle([2, 3, 10]).var().round(4)
        array([0.8225, 0.4674, 0.1107])
    """
    return _ANGLE(_integers(n, "n"))


def cosine(n: ArrayLike) -> rv_frozen:
    """Law of the cosine of the angle between two independent isotropic vectors of R^n.

    The density on [−1, 1] is

        p(η) = Γ(n/2) / (Γ((n−1)/2) √π) · (1 − η²)^((n−3)/2).

    So η² ~ Beta(½, (n−1)/2). The mean is 0, the variance exactly 1/n and the excess kurtosis −6/(n+2). For n = 2
    this is the arcsine law, whose density has poles at ±1; for n = 3 it is uniform. The accuracy is that of
    ``angle``, but close to ±1 the floating-point grid is coarse: ask ``angle`` about tails there.

    Args:
        n: Dimension, an integer >= 2 or an integer array; arrays broadcast as in ``scipy.stats``.

    Returns:
        A frozen ``scipy.stats`` distribution of the cosine.

    Raises:
        ValueError: ``n`` is not an integer or is below 2.

    Source:
        https://kexue.fm/archives/7076.

    Example:
        >>> float(cosine(64).std())
        0.125
        >>> float(cosine(3).cdf(0.5))  # uniform on [-1, 1]
        0.75
    """
    return _COSINE(_integers(n, "n"))


def largest_cosine(n: ArrayLike, count: ArrayLike) -> rv_frozen:
    """Law of the largest |cos| over all pairs of ``count`` independent isotropic vectors of R^n.

    The M = count (count − 1)/2 pairs are treated as independent:

        P(max |cos| ≤ t) = P(|cos Θ| ≤ t)^M.

    This is exact for count = 2. Any two pairs are independent, but three that form a triangle are not, so for more
    vectors it is an approximation. It is sharp where it matters: with p = M · P(|cos Θ| > t), the true sf(t) and
    this one both lie between p − p²/2 and p (inequalities of Boole and Bonferroni), so the upper tail is right. As
    count grows it also becomes exact for the whole law, with n fixed or growing. It fails for few vectors in few
    dimensions: three lines in the plane always hold a pair with |cos| ≥ ½.

    Args:
        n: Dimension, an integer >= 2 or an integer array.
        count: Number of vectors, an integer >= 2 or an integer array; broadcasts against ``n``.

    Returns:
        A frozen ``scipy.stats`` distribution on [0, 1].

    Raises:
        ValueError: ``n`` or ``count`` is not an integer or is below 2.

    Source:
        T. Cai, J. Fan and T. Jiang, "Distributions of angles in random packing on spheres", Journal of Machine
        Learning Research 14 (2013) 1837-1864, for the limits and why pairs act as if independent.

    Example:
        >>> print(f"{largest_cosine(768, 5000).median():.3f}")
        0.194
    """
    n, count = _integers(n, "n"), _integers(count, "count")
    return _LARGEST_COSINE(n, count)


# Angles of given vectors ------------------------------------------------------------------------------------


def angle_between(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Angle between vectors along the last axis.

    With u = x/|x| and v = y/|y| it is 2 atan2(|u − v|, |u + v|), which keeps its digits near 0 and π, where the
    arccosine of the inner product loses half of them.

    Args:
        x: Real vectors, shape (..., n).
        y: Real vectors, shape (..., n); the leading axes broadcast against those of ``x``.

    Returns:
        Angles in radians in [0, π], float64, of the broadcast leading shape; a scalar for two vectors.

    Raises:
        ValueError: ``x`` or ``y`` is empty, not real, not finite or holds a zero vector, or their shapes do
            not fit. The message names the argument.

    Source:
        W. Kahan, "How futile are mindless assessments of roundoff in floating-point computation?" (2006),
        section 12, "Mangled angles".

    Example:
        >>> print(angle_between([1, 0], [0, 2]) / np.pi)
        0.5
        >>> print(angle_between([1, 0], [1, 1e-12]))
        1e-12
    """
    u, v = _unit_vectors(x, "x"), _unit_vectors(y, "y")
    if u.shape[-1] != v.shape[-1]:
        raise ValueError(f"y must have vectors of length {u.shape[-1]} like x, got shape {v.shape}")
    try:
        np.broadcast_shapes(u.shape, v.shape)
    except ValueError:
        raise ValueError(f"y must broadcast against x of shape {u.shape}, got shape {v.shape}") from None
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))


def pairwise_angles(vectors: ArrayLike) -> NDArray[np.float64]:
    """Angles between all pairs of rows, by the formula of ``angle_between``.

    One row at a time meets the rows after it, so beside the result only a copy of ``vectors`` is held.

    Args:
        vectors: Real vectors, shape (N, n).

    Returns:
        Angles in radians in [0, π], float64, shape (N (N − 1)/2,), in the order of SciPy's ``pdist``: (0, 1),
        (0, 2), ..., (0, N − 1), (1, 2), ... Its ``squareform`` makes a matrix of them.

    Raises:
        ValueError: ``vectors`` is not a matrix, is empty, not real, not finite or holds a zero row.

    Example:
        >>> pairwise_angles([[1, 0], [1, 1], [0, 1]]) / np.pi
        array([0.25, 0.5 , 0.25])
    """
    if np.ndim(vectors) != 2:
        raise ValueError(f"vectors must have shape (N, n), got shape {np.shape(vectors)}")
    u = _unit_vectors(vectors, "vectors")
    count = len(u)
    angles = np.empty(count * (count - 1) // 2)
    start = 0
    for i in range(count - 1):
        row, later = u[i : i + 1], u[i + 1 :]
        angles[start : start + len(later)] = 2 * np.arctan2(cdist(row, later)[0], cdist(-row, later)[0])
        start += len(later)
    return angles


# Many vectors -----------------------------------------------------------------------------------------------


def dimension_for(points: int, distortion: float, *, failure: float | None = None) -> int:
    """Smallest dimension at which a Gaussian projection is sure to keep the distances of a point set.

    Project any N points to R^k by a matrix of independent N(0, 1/k) entries. A squared distance is multiplied by
    χ²_k / k. By the union bound over the N(N−1)/2 pairs, all squared distances change by a factor within 1 ± ε with
    probability at least 1 − δ once

        N(N−1)/2 · P(|χ²_k/k − 1| > ε) ≤ δ,

    and this function returns the smallest such k, from the exact tails of χ². It does not depend on the dimension
    the points came from.

    Args:
        points: Number of points N, an integer >= 2.
        distortion: Allowed relative change ε of a squared distance, in (0, 1).
        failure: Allowed probability δ that some pair is changed by more, in (0, 1]. The default is 1/N, which is
            what ``dimension_bound`` guarantees.

    Returns:
        The dimension k.

    Raises:
        ValueError: An argument is out of range; the message names it.

    Source:
        W. Johnson and J. Lindenstrauss (1984); https://kexue.fm/archives/8679 for the form of the statement.

    Example:
        >>> dimension_for(1000, 0.2), dimension_bound(1000, 0.2)
        (1952, 4145)
    """
    points = int(_integers(points, "points", scalar=True))
    distortion = float(_fractions(distortion, "distortion", scalar=True))
    failure = 1 / points if failure is None else float(_fractions(failure, "failure", scalar=True, one=True))
    pairs = points * (points - 1) // 2

    def holds(k: int) -> bool:
        half = k / 2
        below, above = half * (1 - distortion), half * (1 + distortion)
        return pairs * (special.gammainc(half, below) + special.gammaincc(half, above)) <= failure

    # Chernoff's bound P(|χ²_k/k − 1| > ε) ≤ 2 exp(−ε²k/8) says where to stop looking.
    enough = ceil(8 * log(2 * pairs / failure) / distortion**2)
    return bisect_left(range(1, enough), True, key=holds) + 1


def dimension_bound(points: int, distortion: float) -> int:
    """Dimension of the Johnson-Lindenstrauss lemma in closed form, 24 ln N / ε² rounded up.

    It follows from 2 exp(−ε²k/8) as a bound of the tail in ``dimension_for``, and guarantees the same with failure
    probability 1/N.

    Args:
        points: Number of points N, an integer >= 2.
        distortion: Allowed relative change ε of a squared distance, in (0, 1).

    Returns:
        The dimension k.

    Raises:
        ValueError: An argument is out of range; the message names it.

    Source:
        https://kexue.fm/archives/8679.

    Example:
        >>> dimension_bound(10**6, 0.1)
        33158
    """
    points = int(_integers(points, "points", scalar=True))
    distortion = float(_fractions(distortion, "distortion", scalar=True))
    return ceil(24 * log(points) / distortion**2)


def log_directions_within(n: ArrayLike, tolerance: ArrayLike) -> NDArray[np.float64]:
    """Natural logarithm of a number of unit vectors of R^n that can pairwise have |cos| ≤ tolerance.

    A lower bound on the largest such number, by the probabilistic method. Among N random vectors the expected
    number of pairs with |cos| > t is N(N−1)/2 · P(|cos Θ| > t). While it is below 1, some choice of N vectors has
    no such pair. The logarithm of the largest such N is returned, or log n, for an orthonormal basis, if that is
    more. N grows like (1 − t²)^(−n/4), exponentially in the dimension.

    Args:
        n: Dimension, an integer >= 2 or an integer array.
        tolerance: Largest allowed |cos|, t in (0, 1); broadcasts against ``n``.

    Returns:
        log N as float64, of the broadcast shape; it stays finite where N would overflow.

    Raises:
        ValueError: ``n`` or ``tolerance`` is out of range; the message names it.

    Source:
        N. Alon and J. Spencer, "The Probabilistic Method", for the method.

    Example:
        >>> import numpy as np
        >>> print(f"{np.exp(log_directions_within(1000, 0.2)):.0f}")  # far more than the dimension
        107818
        >>> print(f"{log_directions_within(10_000, 0.5):.1f}")  # a number of 314 digits
        721.5
    """
    n, t = _integers(n, "n"), _fractions(tolerance, "tolerance")
    # N(N−1) < 2/P with P twice the tail.
    log_limit = -_log_tail(n, t, _Cosine._sine(t))
    root = 0.5 + np.sqrt(0.25 + np.exp(np.minimum(log_limit, 70)))
    # Beyond e³⁵ vectors neither the ½ nor rounding down can be seen in float64.
    log_count = np.where(log_limit < 70, np.log(np.ceil(root) - 1), log_limit / 2)
    return np.maximum(log_count, np.log(n))
