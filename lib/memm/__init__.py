"""The maximum-entropy Markov model: a chain that divides by a sum over tags at every step.

An MEMM has the numerator of a CRF, with f the emissions and g the transitions,

    s(y) = Σ_k f_k(y_k) + Σ_k g(y_{k-1}, y_k),

but takes one softmax a step, given the tag before (forward) or the tag after (backward)::

    P→(y) = Π_k exp(g(y_{k-1}, y_k) + f_k(y_k)) / Σ_j exp(g(y_{k-1}, j) + f_k(j))
    P←(y) = Π_k exp(g(y_k, y_{k+1}) + f_k(y_k)) / Σ_i exp(g(i, y_{k+1}) + f_k(i))

The first step of P→ and the last of P← have no neighbour to look at, and no g. In training the neighbour is known:
the likelihood is a row of g for every step and a cross-entropy, without a recursion. Both directions share one g.

An MEMM is a chain. The normalizer of a step depends on the neighbour alone, so it can be charged to the emission of
the neighbour: to be in tag i at step k costs the log-sum-exp of all ways out of i. What remains is a chain with the
same g, whose score is log P. So :func:`potentials` turns the dynamic programs of ``lib.chain`` into those of the
MEMM, exactly: ``chain.viterbi`` (here :func:`viterbi`), ``chain.k_best``, ``chain.sample``, ``chain.marginals``,
and a ``chain.log_partition`` of 0. Viterbi on the plain emissions, which some code runs, maximizes s(y), the score
of a CRF; see :func:`viterbi` for how often that is another sequence.

Both directions, ``"both"``, means ½(log P→ + log P←), the objective of a bidirectional MEMM. It is a chain as well,
whose emissions are charged half of each. Its scores are no probabilities: Σ_y √(P→(y) P←(y)) ≤ 1, with equality
only for P→ = P←. ``chain.log_partition`` of it is the logarithm of that sum, the Bhattacharyya
coefficient of the two models.

Many tags. ``transitions`` may be a pair (left, right) of matrices (tags, rank), for g(i, j) = left_i · right_j. The
likelihood, :func:`greedy` and :func:`beam` form the rows of g that they need, and never all of g.

::

    _scores      arguments, checked; what a softmax does not see is taken out of them
    likelihood   one cross-entropy a step
    normalizers  the chain whose score is log P: each tag pays what its neighbour's step is divided by
    decoding     Viterbi, greedy, a beam
    layer        the last layer of a tagger

Source: McCallum, Freitag and Pereira 2000, "Maximum Entropy Markov Models"; Su Jianlin,
https://kexue.fm/archives/7213 (both directions, low rank).
"""

from .decoding import beam, greedy, viterbi
from .layer import MEMM
from .likelihood import log_likelihood
from .normalizers import potentials

__all__ = ["MEMM", "beam", "greedy", "log_likelihood", "potentials", "viterbi"]
