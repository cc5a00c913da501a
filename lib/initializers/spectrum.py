"""The law of the singular values of a large random matrix."""

import math

import numpy as np
from scipy import special, stats

from .._arguments import one_of, positive_integer
from .activations import Activation
from .draws import _VARIANCES, _as_gain

__all__ = ["marchenko_pastur"]


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

    def _munp(self, order, q):
        return special.hyp2f1(1 - order / 2, -order / 2, 2, q**2)

    def _stats(self, q):
        # For small q all x are close to 1, and moments about 0 lose their digits: Gauss-Chebyshev in t about 1.
        t = np.arange(1, _NODES + 1).reshape(-1, *[1] * np.ndim(q)) * np.pi / (_NODES + 1)
        square = (1 - q) ** 2 + 4 * q * np.sin(t / 2) ** 2
        weight = 2 / (_NODES + 1) * np.sin(t) ** 2 / square
        deviation = (q * q - 2 * q * np.cos(t)) / (1 + np.sqrt(square))
        deviation = deviation - np.sum(weight * deviation, axis=0)
        narrow = [np.sum(weight * deviation**k, axis=0) for k in (2, 3, 4)]
        m, _, third, fourth = (self._munp(k, q) for k in (1, 2, 3, 4))  # the second is 1
        wide = [1 - m**2, third - 3 * m + 2 * m**3, fourth - 4 * m * third + 6 * m**2 - 3 * m**4]
        variance, third, fourth = (np.where(q < 0.5, *pair) for pair in zip(narrow, wide, strict=True))
        return m, variance, third / variance**1.5, fourth / variance**2 - 3


#: Of the quadrature, whose error falls like q to twice their number.
_NODES = 60


def _cdf_of_angle(t: np.ndarray, q: np.ndarray) -> np.ndarray:
    turn = np.arctan2(q * np.sin(t), 1 - q * np.cos(t))
    return np.clip((t + np.sin(t) / q - (1 - q**2) * turn / q**2) / np.pi, 0, 1)


_singular_values = _SingularValues(name="singular_values")


def marchenko_pastur(
    fan_in: int, fan_out: int, *, fan: str = "fan_out", gain: float | Activation = 1.0
) -> stats.distributions.rv_frozen:
    """The limit law of the non-zero singular values of a kernel (n, m) that ``Scaled(fan, gain=gain)`` draws.

    The entries are independent with mean 0 and variance gain² · v, v = 1/m by default; n and m grow at a fixed
    ratio. The law does not depend on theirs. With v = 1/m and gain 1 the singular values fill
    [|1 − √(n/m)|, 1 + √(n/m)] with density √((s² − a²)(b² − s²)) / (π min(1, n/m) s) between these edges a and b.
    At m = n this is the quarter circle law on [0, 2]. Any other v or gain multiplies them all. For m < n, it is
    the law of the m non-zero singular values: the other n − m directions of the input are sent to zero.

    Args:
        fan_in: Number n of inputs, a positive integer.
        fan_out: Number m of outputs, a positive integer.
        fan: As in :class:`Scaled`; here "fan_out" by default, the rule of the article.
        gain: As in :class:`Scaled`.

    Returns:
        A frozen ``scipy.stats`` distribution: ``pdf``, ``cdf`` (closed form), ``ppf``, ``rvs``, ``mean``, ``var``.

    Raises:
        ValueError: If ``fan_in`` or ``fan_out`` is not a positive integer, or for a ``fan`` or ``gain`` that
            :class:`Scaled` refuses.

    Source: Marchenko and Pastur 1967, for the eigenvalues s².

    Example:
        >>> [float(edge) for edge in marchenko_pastur(500, 2000).support()]
        [0.5, 1.5]
        >>> law = marchenko_pastur(100, 100)
        >>> round(float(law.mean()), 6), round(8 / (3 * math.pi), 6)
        (0.848826, 0.848826)
        >>> law = marchenko_pastur(64, 256, fan="fan_in", gain="gelu")  # Dense(256) with Scaled(gain="gelu")
        >>> [round(float(edge), 2) for edge in law.support()]
        [1.53, 4.6]
    """
    n, m = positive_integer("fan_in", fan_in), positive_integer("fan_out", fan_out)
    deviation = _as_gain(gain) * math.sqrt(_VARIANCES[one_of("fan", fan, _VARIANCES)](n, m))
    return _singular_values(math.sqrt(min(m, n) / max(m, n)), scale=deviation * math.sqrt(max(m, n)))
