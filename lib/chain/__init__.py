"""The linear-chain dynamic program: sums and maxima over all tag sequences, in time linear in their length.

A chain of T steps scores each of its Kᵀ tag sequences y by

    s(y) = start[y_1] + Σ_t emissions[t, y_t] + Σ_t transitions[y_t, y_{t+1}] + end[y_T].

The conditional random field, the maximum-entropy Markov model and the hidden Markov model differ in where the
scores come from and ask the same of them: log Z = log Σ_y exp s(y), max_y s(y), the probability of a tag, a sample.

::

    arguments    one call's arguments, checked; wrong rows become NaN in compiled code
    _messages    the chain is closed by a boundary tag, and read from both ends at once
    _semirings   products, logarithms, maxima: three number systems for one recursion
    _posterior   what both ends tell of every step, and the proof that products lost nothing
    partition    log Z with its gradient, marginals, the score of a sequence
    paths        the best sequence, the k best, random ones

Chapters 4 to 6. Needs NumPy and Keras.

Source: Rabiner 1989, "A tutorial on hidden Markov models" (scaling); Forney 1973, "The Viterbi algorithm";
Lafferty, McCallum and Pereira 2001, "Conditional random fields".
"""

from .arguments import Chain, checked
from .partition import log_partition, marginals, sequence_score
from .paths import k_best, sample, viterbi

__all__ = ["Chain", "checked", "k_best", "log_partition", "marginals", "sample", "sequence_score", "viterbi"]
