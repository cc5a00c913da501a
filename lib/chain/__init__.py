"""The linear-chain dynamic program: sums and maxima over all tag sequences, in time linear in their length.

A chain of T steps scores each of its Kᵀ tag sequences y by

    s(y) = start[y_1] + Σ_t emissions[t, y_t] + Σ_t transitions[y_t, y_{t+1}] + end[y_T].

The transitions may depend on the step. The conditional random field, the maximum-entropy Markov model and the
hidden Markov model differ in where the scores come from and ask the same of them: log Z = log Σ_y exp s(y), max_y
s(y), the probability of a tag or a sequence, a sample.

::

    arguments    one call's arguments, checked; wrong rows become NaN in compiled code
    _messages    the chain is closed by a boundary tag, and read from both ends at once
    _semirings   products, logarithms, maxima: three number systems for one recursion
    _posterior   what both ends tell of every step, and the proof that products lost nothing
    _gradients   the expected counts of tags and moves, which are the gradient of log Z
    partition    log Z, marginals, entropy
    likelihood   the score of a sequence and its probability
    paths        the best sequence, the k best, random ones

Needs NumPy and Keras.

Source: Rabiner 1989, "A tutorial on hidden Markov models" (scaling); Forney 1973, "The Viterbi algorithm";
Lafferty, McCallum and Pereira 2001, "Conditional random fields".
"""

from .arguments import UNKNOWN, Potentials, checked
from .likelihood import log_likelihood, sequence_score
from .partition import entropy, log_partition, marginals
from .paths import k_best, sample, viterbi

__all__ = [
    "UNKNOWN",
    "Potentials",
    "checked",
    "entropy",
    "k_best",
    "log_likelihood",
    "log_partition",
    "marginals",
    "sample",
    "sequence_score",
    "viterbi",
]
