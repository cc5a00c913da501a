"""The independent judge of ``lib.chain``: all tag sequences of one row, written out in NumPy and float64."""

from itertools import product

import numpy as np
from scipy import special


class Sequences:
    """All tag sequences of a chain without padding.

    Args:
        e: Emissions (time, K).
        A: Transitions (K, K) or (time − 1, K, K).
        s: Scores of the first tag, None for 0.
        f: Scores of the last tag, None for 0.
    """

    def __init__(self, e, A, s=None, f=None):
        e, A = np.asarray(e, "float64"), np.asarray(A, "float64")
        self.time, self.K = e.shape
        s, f = (np.zeros(self.K) if x is None else np.asarray(x, "float64") for x in (s, f))
        A = np.broadcast_to(A, (self.time - 1, self.K, self.K))
        self.tags = np.array(list(product(range(self.K), repeat=self.time)))
        y, t = self.tags, np.arange(self.time)
        self.scores = e[t, y].sum(1) + A[t[:-1], y[:, :-1], y[:, 1:]].sum(1) + s[y[:, 0]] + f[y[:, -1]]
        self.log_z = special.logsumexp(self.scores)
        self.log_p = self.scores - self.log_z

    @property
    def p(self):
        return np.exp(self.log_p)

    @property
    def marginals(self):
        return np.stack([self.p @ (self.tags == j) for j in range(self.K)], axis=1)

    @property
    def entropy(self):
        return -np.sum(special.xlogy(self.p, self.p))

    def log_p_of(self, known):
        """Log P of the tags that are not negative."""
        known = np.asarray(known)
        return special.logsumexp(self.log_p[((self.tags == known) | (known < 0)).all(1)])
