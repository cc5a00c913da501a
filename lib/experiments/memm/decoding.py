"""Three decoders of one trained MEMM: its own, Viterbi on the bare scores, and the bare scores balanced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import ops
from scipy.special import logsumexp

from lib.crf import CRF
from lib.experiments.memm.costs import compiled_decoder
from lib.experiments.memm.models import Array
from lib.tagging import Head

#: Standard deviations of f and of g, from scores that weigh alike to emissions that settle nearly everything.
SPREADS = ((1.0, 1.0), (3.0, 1.0), (6.0, 1.0), (3.0, 3.0))


def bare(head: Head, offsets: Array | None = None) -> CRF:
    """The CRF with the scores of a head, whose Viterbi maximizes f + g: the decoder of the article.

    Args:
        head: built, with transitions (tags, tags).
        offsets: what to add to each row of the transitions, shape (tags,); nothing if None.

    Example:
        >>> from lib.memm import MEMM
        >>> bare(MEMM(2, transitions_initializer=np.eye(2)), np.array([1.0, 0.0])).transitions.numpy().tolist()
        [[2.0, 1.0], [0.0, 1.0]]
    """
    head.ensure_built()
    transitions = ops.convert_to_numpy(head.transitions)
    if offsets is not None:
        transitions = transitions + np.asarray(offsets, transitions.dtype)[:, None]
    return CRF(head.tag_count, transitions_initializer=transitions)


def balanced_offsets(
    emissions: Array, transitions: Array, mask: Array, shares: Array, *, rounds: int = 200
) -> Array:
    """The numbers d that make every label's charge fair: on average no label explains the next step better.

    An MEMM does not see a number that is added to a whole row of g; its bare scores do. Where the scores are an
    HMM's, the charge Z_t(i) = Σ_j exp(g(i, j) + f_t(j)) is proportional to P(x_t | label before is i), and
    P(x_t | i) / P(x_t) has the mean 1 over the texts, for every label i. So d is chosen to give

        mean over t of  e^{d(i)} Z_t(i) / Σ_k π(k) e^{d(k)} Z_t(k)  =  1   for all i,

    with the shares π of the labels. Needs texts, and no labels but for π.

    Args:
        emissions: f, shape (batch, time, tags).
        transitions: g, shape (tags, tags).
        mask: True at valid steps, shape (batch, time).
        shares: π, shape (tags,).
        rounds: each divides by the means once.

    Returns:
        d, shape (tags,), with mean zero under π.

    Example:
        >>> f, g = np.zeros((1, 9, 2)), np.array([[1.0, 1.0], [0.0, 0.0]])
        >>> balanced_offsets(f, g, np.ones((1, 9), bool), np.array([0.5, 0.5])).round(3).tolist()
        [-0.5, 0.5]
    """
    charges = logsumexp(emissions[:, 1:, None] + transitions, axis=-1)[mask[:, 1:]]
    offsets = np.zeros(len(transitions))
    for _ in range(rounds):
        charged = charges + offsets
        fit = charged - logsumexp(charged, axis=1, b=shares, keepdims=True)
        offsets = offsets - logsumexp(fit, axis=0, b=1 / len(fit))
    return offsets - shares @ offsets


def decoders_apart(
    spread_emissions: float,
    spread_transitions: float,
    *,
    tags: int = 4,
    length: int = 20,
    chains: int = 40,
    seeds: Sequence[int] = range(50),
) -> dict[str, Array]:
    """How often two decoders miss the best path of an MEMM with random Gaussian scores.

    "bare" is the Viterbi of a CRF on f + g, without the normalizers with which the model was trained; "greedy"
    takes the best next tag, step by step. The best path is that of :func:`lib.memm.viterbi`.

    Args:
        spread_emissions: standard deviation of f.
        spread_transitions: standard deviation of g.
        tags: number of tags.
        length: steps of a chain.
        chains: that share the transitions of a seed.
        seeds: one matrix g is drawn for each.

    Returns:
        Arrays of shape (seeds,): under "bare" and "greedy" the share of tokens whose tag differs from the best
        path's.

    Example:
        >>> apart = decoders_apart(3.0, 1.0, seeds=range(3))
        >>> bool(apart["bare"].mean() > apart["greedy"].mean())
        True
    """
    best, *others = (compiled_decoder(name, "graph") for name in ("memm", "crf", "memm, greedy"))
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        f = (spread_emissions * rng.standard_normal((chains, length, tags))).astype("float32")
        g = (spread_transitions * rng.standard_normal((tags, tags))).astype("float32")
        f, g = ops.convert_to_tensor(f), ops.convert_to_tensor(g)
        truth = ops.convert_to_numpy(best(f, g)[0])
        rows.append([np.mean(ops.convert_to_numpy(decoder(f, g)[0]) != truth) for decoder in others])
    return dict(zip(("bare", "greedy"), np.array(rows).T, strict=True))
