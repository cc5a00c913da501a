"""The laws of the angle, of its cosine and of the worst pair among many, as SciPy distributions."""

from math import pi

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from scipy.integrate import quad
from scipy.stats.distributions import rv_frozen

from ._checks import _integers
from ._law import (
    _digamma_step,
    _log_constant,
    _log_density,
    _log_sine_power,
    _log_tail,
    _log_upper,
    _upper_quantile,
)

__all__ = ["angle", "cosine", "largest_cosine"]


def _dyadic_rule(halvings: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre nodes and weights of [0, π/2], halved towards 0 again and again: a peak of any width fits."""
    ends = pi / 2 * 2.0 ** -np.arange(halvings + 1)
    starts, widths = np.append(ends[1:], 0.0), np.append(ends[:-1] - ends[1:], ends[-1])
    x, w = np.polynomial.legendre.leggauss(20)
    return (starts[:, None] + widths[:, None] * (1 + x) / 2).ravel(), (widths[:, None] * w / 2).ravel()


def _tanh_sinh_rule(step: float = 1 / 16, reach: float = 3.5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of probabilities q in (0, 1), dense at both ends, and their weights: Σ w f(q) is ∫₀¹ f."""
    t = np.arange(-reach, reach + step / 2, step)
    s = pi / 2 * np.sinh(t)
    return special.log_expit(2 * s), step * pi / 4 * np.cosh(t) / np.cosh(s) ** 2


_DYADIC, _TANH_SINH = _dyadic_rule(), _tanh_sinh_rule()


def _one_coordinate(n, size, random_state):
    """One coordinate of a Gaussian vector of R^n and the length of the others: (cos Θ, sin Θ) up to scale."""
    return random_state.standard_normal(size), np.sqrt(random_state.chisquare(n - 1, size))


class _Law(stats.rv_continuous):
    """What the laws share: an expectation that misses no peak, however thin."""

    def expect(self, func=None, args=(), loc=0, scale=1, lb=None, ub=None, conditional=False, **kwds):
        """As SciPy's, but integrated over probabilities, counted from the tail in which the interval lies."""
        f = (lambda x: x) if func is None else func
        law = self(*args, loc=loc, scale=scale)
        if lb is not None and law.sf(lb) < 0.5:
            quantile, low, high = law.isf, 0.0 if ub is None else law.sf(ub), law.sf(lb)
        else:
            quantile, low, high = law.ppf, 0.0 if lb is None else law.cdf(lb), 1.0 if ub is None else law.cdf(ub)
        size = max(abs(f(quantile(low + share * (high - low)))) for share in (0.1, 0.3, 0.9))
        tolerance = {"epsabs": 1e-10 * size * (high - low), "epsrel": 1e-10}
        value = quad(lambda q: f(quantile(q)), low, high, **{**tolerance, **kwds})[0]
        return value / (high - low) if conditional else value


class _Angle(_Law):
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

    def _munp(self, order, n):
        u, w = _DYADIC  # from the right angle
        shape = (-1, *[1] * np.ndim(n))
        u, w = u.reshape(shape), w.reshape(shape)
        powers = (np.pi / 2 + u) ** order + (np.pi / 2 - u) ** order
        return np.sum(w * powers * np.exp(_log_density(n, np.sin(u), np.cos(u))), axis=0)

    def _entropy(self, n):
        return (n - 2) / 2 * _digamma_step(n) - _log_constant(n)


class _Cosine(_Law):
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

    def _munp(self, order, n):
        # η² ~ Beta(½, (n−1)/2); the odd moments vanish.
        factors = [(i + 1) / (n + i) for i in range(0, int(order), 2)]
        return np.prod(factors, axis=0) if order % 2 == 0 else np.zeros_like(n, dtype=np.float64)

    def _entropy(self, n):
        return (n - 3) / 2 * _digamma_step(n) - _log_constant(n)


class _LargestCosine(_Law):
    """Law of the largest of M = count (count − 1)/2 independent copies of |cos Θ|."""

    @staticmethod
    def _pairs(count):
        return count * (count - 1) / 2

    @staticmethod
    def _log_all_within(n, c, s, power):
        """Logarithm of P(|cos Θ| ≤ c)^power, through whichever of P and 1 − P is the smaller."""
        beyond = 2 * np.exp(_log_tail(n, c, s))
        within = special.betainc(0.5, (n - 1) / 2, c * c)
        return np.where(beyond < 0.5, special.xlog1py(power, -beyond), special.xlogy(power, within))

    def _log_density(self, n, count, c, s):
        pairs = self._pairs(count)
        single = _log_constant(n) + _log_sine_power(n - 3, c, s)
        return np.log(2 * pairs) + single + self._log_all_within(n, c, s, pairs - 1)

    def _point(self, log_q, n, count):
        """The point (c, s) at which M log P(|cos Θ| ≤ c) = log q."""
        log_within = log_q / self._pairs(count)
        beyond = np.maximum(-np.expm1(log_within), np.finfo(float).tiny)  # q may underflow once divided by M
        c, s = _upper_quantile(n, beyond / 2)
        inner = np.sqrt(special.betaincinv(0.5, (n - 1) / 2, np.exp(log_within)))
        return np.where(beyond < 0.5, c, inner), np.where(beyond < 0.5, s, _Cosine._sine(inner))

    def _points(self, n, count):
        """Points of the law along a new first axis, and their weights, for expectations: a quadrature in P."""
        shape = (-1, *[1] * np.broadcast(n, count).ndim)
        log_q, w = (part.reshape(shape) for part in _TANH_SINH)
        return *self._point(log_q, n, count), w

    def _logpdf(self, x, n, count):
        return self._log_density(n, count, x, _Cosine._sine(x))

    def _pdf(self, x, n, count):
        return np.exp(self._logpdf(x, n, count))

    def _logcdf(self, x, n, count):
        return self._log_all_within(n, x, _Cosine._sine(x), self._pairs(count))

    def _cdf(self, x, n, count):
        return np.exp(self._logcdf(x, n, count))

    def _sf(self, x, n, count):
        return -np.expm1(self._logcdf(x, n, count))

    def _logsf(self, x, n, count):
        log_sum = np.log(2 * self._pairs(count)) + _log_tail(n, x, _Cosine._sine(x))  # of the pairs: P is below it
        with np.errstate(divide="ignore"):
            log_sf = np.log(self._sf(x, n, count))
        return np.where(log_sum < -35, log_sum, log_sf)

    def _ppf(self, q, n, count):
        return self._point(np.log(q), n, count)[0]

    def _isf(self, q, n, count):
        return self._point(np.log1p(-q), n, count)[0]

    def _stats(self, n, count):
        c, s, w = self._points(n, count)
        mean = np.sum(w * c, axis=0)
        gap = s * s / (1 + c)  # 1 − c, with its digits where c is near 1
        deviation = np.where(mean < 0.5, c - mean, np.sum(w * gap, axis=0) - gap)
        variance, third, fourth = (np.sum(w * deviation**k, axis=0) for k in (2, 3, 4))
        return mean, variance, third / variance**1.5, fourth / variance**2 - 3

    def _munp(self, order, n, count):
        c, _, w = self._points(n, count)
        return np.sum(w * c**order, axis=0)

    def _entropy(self, n, count):
        c, s, w = self._points(n, count)
        return -np.sum(w * self._log_density(n, count, c, s), axis=0)


_ANGLE = _Angle(a=0.0, b=np.pi, name="angle")
_COSINE = _Cosine(a=-1.0, b=1.0, name="cosine")
_LARGEST_COSINE = _LargestCosine(a=0.0, b=1.0, name="largest_cosine")


def angle(n: ArrayLike) -> rv_frozen:
    """Law of the angle between two independent isotropic vectors of R^n.

    The density on [0, π] is

        p(θ) = Γ(n/2) / (Γ((n−1)/2) √π) · sinⁿ⁻²θ.

    The mean is π/2, the variance exactly ½ψ′(n/2) ≈ 1/(n−1) and the excess kurtosis −½ψ‴(n/2)/ψ′(n/2)², with ψ the
    digamma function. Densities, probabilities in both tails and quantiles are accurate to 1e-10 relative from n = 2
    to n = 10⁶; the logarithms also where the probability itself underflows. Beyond, accuracy is lost only because
    float64 has few angles close to π/2: ask ``cosine`` there. Moments, entropy and ``expect`` are closed forms or
    quadratures that know where the mass lies. Samples are exact: the angle between a Gaussian vector and the first
    axis. ``rvs`` takes its seed as SciPy does, ``random_state``.

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
