"""The law as functions of the dimension and a point.

A point of the law is the pair (c, s) = (cos θ, sin θ). Near θ = 0 the digits are in s, near π/2 they are in c, and
keeping both loses none. All probabilities come from one function, the tail

    P(cos Θ ≥ c) = ½ I_{s²}((n−1)/2, ½),    c ≥ 0,

with I the regularized incomplete beta function.
"""

import numpy as np
from scipy import special

#: Gauss-Laguerre nodes v and weights: Σ w f(v) is E[f(V)] for V ~ Exp(1).
_LAGUERRE = np.polynomial.laguerre.laggauss(16)


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
