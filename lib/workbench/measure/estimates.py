"""How sure a number is: intervals for means, medians and proportions, and a value with its interval.

NumPy and SciPy are imported where they compute: the site prints estimates, and is built where neither is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

#: The two ends of an interval at a confidence.
Ends = Callable[[float], tuple[float, float]]
#: The smallest p-value that is told apart from 0; no decision of the book depends on a smaller one.
LEAST_P = 1e-9


def interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of independent samples, one a seed.

    mean ± t_{n-1} · s / √n, with s the sample standard deviation (Student, 1908). Exact for normal samples.

    Args:
        samples: shape (n,), n ≥ 2, finite.
        confidence: probability with which the interval covers the mean, in (0, 1).

    Returns:
        The two ends (low, high).

    Raises:
        ValueError: fewer than two samples, a sample that is not finite, a confidence outside (0, 1).

    Example:
        >>> low, high = interval([1.0, 2.0, 3.0])
        >>> print(f"{low:.3f} {high:.3f}")
        -0.484 4.484
    """
    from scipy.special import stdtrit

    x = _checked_samples(samples)
    half = stdtrit(x.size - 1, 0.5 + _checked_confidence(confidence) / 2) * x.std(ddof=1) / math.sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


def median_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the median from order statistics: the sign test turned round. It assumes no distribution.

    With x_(1) ≤ … ≤ x_(n), the interval [x_(k), x_(n+1-k)] covers the median with probability
    1 - 2 P(Binomial(n, ½) < k); k is the largest that still reaches the confidence.

    Args:
        samples: shape (n,), finite; n ≥ 6 for a confidence of 0.95.
        confidence: least probability with which the interval covers the median, in (0, 1).

    Returns:
        The two ends (low, high), each one of the samples.

    Raises:
        ValueError: too few samples for the confidence, a sample that is not finite, a confidence outside (0, 1).

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
        (1.0, 6.0)
    """
    import numpy as np
    from scipy.special import bdtr

    x = np.sort(_checked_samples(samples))
    misses = 2 * bdtr(np.arange(x.size // 2), x.size, 0.5)  # by k - 1
    k = int(np.sum(misses <= 1 - _checked_confidence(confidence)))
    if k == 0:
        raise ValueError(f"samples: {x.size} are too few for a median interval at confidence {confidence}")
    return float(x[k - 1]), float(x[-k])


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion; sensible at 0 and at 1 too (Wilson, 1927).

    The proportions p that a test at this confidence does not reject: |p̂ - p| ≤ z √(p (1-p) / n).

    Args:
        successes: k, with 0 ≤ k ≤ n.
        trials: n ≥ 1.
        confidence: in (0, 1).

    Returns:
        The two ends (low, high), within [0, 1].

    Raises:
        ValueError: successes or trials out of range, a confidence outside (0, 1).

    Example:
        >>> low, high = wilson(0, 10)
        >>> print(f"{low:.3f} {high:.3f}")
        0.000 0.278
    """
    from scipy.special import ndtri

    if not (trials >= 1 and 0 <= successes <= trials):
        raise ValueError(f"successes, trials: got {successes}, {trials}; expected 0 ≤ successes ≤ trials ≥ 1")
    z = ndtri(0.5 + _checked_confidence(confidence) / 2)
    p, n = successes / trials, trials
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At p = 0 and p = 1 the end is exactly p; rounding must not push it past.
    return (0.0 if successes == 0 else float(centre - half), 1.0 if successes == trials else float(centre + half))


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that it may lie in: low ≤ value ≤ high.

    It prints with as many digits as the interval supports; a format such as ``.3f`` applies to all three numbers.

    Args:
        value: what was measured.
        low: the lower end of its interval, at a confidence of 0.95.
        high: the upper end.
        ends: the interval at any other confidence. Without it the interval is taken for one of normal errors, on
            each side of the value.

    Raises:
        ValueError: the value is outside the interval, or one of them is not a number.

    Example:
        >>> print(Estimate(0.123, 0.12, 0.126), Estimate.exact(2.5))
        0.123 [0.120, 0.126] 2.5
    """

    value: float
    low: float
    high: float
    ends: Ends | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low ≤ value ≤ high expected; got {self.low}, {self.value}, {self.high}")

    @classmethod
    def from_samples(cls, samples: ArrayLike, confidence: float = 0.95) -> Estimate:
        """The mean of the samples with its t interval: see :func:`interval`.

        Example:
            >>> print(Estimate.from_samples([0.9, 1.0, 1.1]))
            1.00 [0.75, 1.25]
        """
        import numpy as np

        x = _checked_samples(samples)
        return cls(float(np.mean(x)), *interval(x, confidence), lambda level: interval(x, level))

    @classmethod
    def from_count(cls, successes: int, trials: int, confidence: float = 0.95) -> Estimate:
        """The proportion with its interval: see :func:`wilson`.

        Example:
            >>> print(Estimate.from_count(90, 100))
            0.90 [0.83, 0.94]
        """
        ends = wilson(successes, trials, confidence)
        return cls(successes / trials, *ends, lambda level: wilson(successes, trials, level))

    @classmethod
    def exact(cls, value: float) -> Estimate:
        """A value without uncertainty: derived, counted, or computed to rounding.

        Example:
            >>> Estimate.exact(2.5)
            Estimate(value=2.5, low=2.5, high=2.5)
        """
        return cls(value, value, value)

    def interval(self, confidence: float) -> tuple[float, float]:
        """The interval at another confidence, in (0, 1).

        Raises:
            ValueError: a confidence outside (0, 1), or one that the samples are too few for.

        Example:
            >>> low, high = Estimate.from_samples([0.9, 1.0, 1.1]).interval(0.5)
            >>> print(f"{low:.3f} {high:.3f}")
            0.953 1.047
        """
        if self.ends is not None:
            return self.ends(_checked_confidence(confidence))
        from scipy.special import ndtri

        wider = float(ndtri(0.5 + _checked_confidence(confidence) / 2) / ndtri(0.975))
        return self.value - wider * (self.value - self.low), self.value + wider * (self.high - self.value)

    def map(self, function: Callable[[float], float]) -> Estimate:
        """The estimate of a function of the value; the interval goes with it.

        Args:
            function: rises or falls throughout the interval. Where a wider interval leaves the part in which it
                does, as that of 1/x when it reaches 0, the new interval is unbounded.

        Raises:
            ValueError: the function takes the value outside the ends.

        Example:
            >>> print(Estimate(4.0, 2.0, 8.0).map(lambda x: 1 / x))
            0.25 [0.12, 0.50]
        """
        value = function(self.value)

        def ends(confidence: float) -> tuple[float, float]:
            low, high = sorted(map(function, self.interval(confidence)))
            return (low, high) if low <= value <= high else (-math.inf, math.inf)

        low, high = sorted(map(function, (self.low, self.high)))
        return Estimate(value, low, high, ends)

    def p_value(self, edge: float) -> float:
        """How easily chance alone could have put the value this far from ``edge``, were the truth there.

        The interval, turned round: the largest α for which the interval of confidence 1 - α still reaches the edge.
        So the 95 % interval leaves the edge out just where p < 0.05. For the mean of samples this is
        Student's test with two sides, for a proportion the score test, for a median the sign test.

        Args:
            edge: a number, such as the edge of a claim's band.

        Returns:
            p in [0, 1]: 1 on the value; 0 for an exact value elsewhere, and for any p below ``LEAST_P``.

        Example:
            >>> print(f"{Estimate.from_samples([0.9, 1.0, 1.1]).p_value(1.25):.3f}")
            0.049
        """
        if edge == self.value or self.low == self.high:
            return float(edge == self.value)
        reached, out = 0.0, math.log(LEAST_P)  # log α: the interval is a point at 0, and widest at the other end
        if not self._reaches(edge, LEAST_P):
            return 0.0
        while reached - out > 1e-6:
            middle = (reached + out) / 2
            reached, out = (reached, middle) if self._reaches(edge, math.exp(middle)) else (middle, out)
        return math.exp(out)

    def _reaches(self, edge: float, alpha: float) -> bool:
        try:
            low, high = self.interval(1 - alpha)
        except ValueError:  # too few samples for this confidence: no interval of theirs leaves anything out
            return True
        return low <= edge <= high

    def __str__(self) -> str:
        return f"{self}"

    def __format__(self, spec: str) -> str:
        if self.low == self.high:
            return f"{self.value:{spec or '.6g'}}"
        spec = spec or self._digits()
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def _digits(self) -> str:
        """Format in which the interval spans 5 to 50 units of the last digit; up to two more show an end near 0."""
        largest = max(abs(self.low), abs(self.high))
        if not math.isfinite(self.high - self.low):
            return ".6g"
        unit = math.floor(math.log10((self.high - self.low) / 5))
        order = math.floor(math.log10(largest))
        if not -5 < order < 7:
            return f".{max(0, order - unit)}e"
        decimals = max(0, -unit)
        near = [end for end in (self.low, self.high) if end != 0 and round(end, decimals) == 0]
        decimals += 2 if any(round(end, decimals + 1) == 0 for end in near) else bool(near)
        return f"z.{decimals}f"  # z: what rounds to 0 has no sign


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Which of several tests reject when all are judged together: Holm's procedure (Holm, 1979).

    The smallest of m p-values is compared with α / m, the next with α / (m - 1), and so on until one fails; it and
    all larger ones do not reject. The probability of any wrong rejection is then at most α, however
    the tests depend on each other.

    Args:
        p_values: one a test, each in [0, 1].
        alpha: greatest probability of a wrong rejection, in (0, 1).

    Returns:
        For each test whether it rejects.

    Raises:
        ValueError: a p-value outside [0, 1], an alpha outside (0, 1).

    Example:
        >>> holm([0.04, 0.01, 0.02])
        [True, True, True]
        >>> holm([0.04, 0.01, 0.03])
        [False, True, False]
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p_values: got {[*p_values]}; expected numbers in [0, 1]")
    _checked_confidence(alpha)
    rejects = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejects[index] = True
    return rejects


def _checked_samples(samples: ArrayLike) -> np.ndarray:
    """The samples as a vector of at least two finite float64."""
    import numpy as np

    x = np.asarray(samples, dtype="float64")
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all():
        raise ValueError(f"samples: got {samples!r}; expected a vector of at least two finite numbers")
    return x


def _checked_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence!r}; expected a number in (0, 1)")
    return confidence
