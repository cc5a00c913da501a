"""How many dimensions many vectors need, and how many vectors some dimensions hold."""

from math import ceil, log, pi

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ._checks import _fractions, _integer, _integers
from ._law import _log_tail

__all__ = ["dimension_bound", "dimension_for", "log_directions_within"]


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
    points, distortion = _integer(points, "points"), float(_fractions(distortion, "distortion", scalar=True))
    pairs = points * (points - 1) // 2
    failure = 1 / points if failure is None else float(_fractions(failure, "failure", scalar=True, one=True))
    if failure < 1e-300 * pairs:
        raise ValueError(f"failure must be at least 1e-300 for each of {pairs} pairs, got {failure!r}")

    def holds(k: int) -> bool:
        return pairs * _distortion_probability(k, distortion) <= failure

    # Chernoff's bound P(|χ²_k/k − 1| > ε) ≤ 2 exp(−ε²k/8) says where to stop looking.
    low, high = 0, _dimension(8 * (log(2 * pairs) - log(failure)), distortion)
    while high - low > 1:  # holds at high, not at low
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _distortion_probability(k: int, distortion: float) -> float:
    """P(|χ²_k/k − 1| > ε)."""
    a, tails = k / 2, 0.0
    if a < 1e4:
        return special.gammainc(a, a * (1 - distortion)) + special.gammaincc(a, a * (1 + distortion))
    # SciPy's series ends too soon for larger a. The first two terms of Temme's expansion err by less than 1e-3/a;
    # DLMF 8.12 has it, with λ = 1 + μ.
    j = np.arange(2, 14)
    for mu in (distortion, -distortion):
        decay = np.sum((-mu) ** j / j) if distortion < 0.01 else mu - np.log1p(mu)  # η²/2
        eta = np.copysign(np.sqrt(2 * decay), mu)
        c0 = -1 / 3 + eta / 12 - 2 * eta**2 / 135 + eta**3 / 864 if distortion < 0.01 else 1 / mu - 1 / eta
        remainder = np.exp(-a * decay) / np.sqrt(2 * pi * a) * c0
        tails += special.erfc(np.sqrt(a * decay)) / 2 + np.sign(mu) * remainder
    return tails


def _dimension(exponent: float, distortion: float) -> int:
    """The dimension exponent / distortion², rounded up."""
    k = exponent / distortion / distortion
    if not k <= 1e15:  # beyond it, float64 cannot tell one dimension from the next
        raise ValueError(
            f"distortion must allow a dimension of at most 1e15, got {distortion!r}, which takes {k:.1e}"
        )
    return ceil(k)


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
    points, distortion = _integer(points, "points"), float(_fractions(distortion, "distortion", scalar=True))
    return _dimension(24 * log(points), distortion)


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
    log_limit = -_log_tail(n, t, np.sqrt((1 - t) * (1 + t)))
    root = 0.5 + np.sqrt(0.25 + np.exp(np.minimum(log_limit, 70)))
    # Beyond e³⁵ vectors neither the ½ nor rounding down can be seen in float64.
    log_count = np.where(log_limit < 70, np.log(np.ceil(root) - 1), log_limit / 2)
    return np.maximum(log_count, np.log(n))
