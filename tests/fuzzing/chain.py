"""Cases of `lib.chain`: sums over all tag sequences, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
from hypothesis import strategies as st
from keras import ops

from fuzzing.cases import NO_COUNT, NO_MASK, NO_SEED, NO_TENSOR, Case, deeper, flatter, longer, plus
from fuzzing.values import FLOATS, arrays, integers, prefixes, sizes
from lib import chain

SCALES = (1.0, 0.0, 100.0, 1e4, 1e8, 1e30)


@st.composite
def chains(draw: st.DrawFn, *, scales: Sequence[float] = SCALES, by_steps: bool = True) -> dict[str, Any]:
    """Arguments of a chain of at most 27 sequences a row; a score may forbid its tag, and one may be no number."""
    batch, time, tags = draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(1, 3))
    forbidden = {"special": (-np.inf,), "scales": scales}
    of_step = by_steps and draw(st.booleans())
    emissions = draw(arrays((batch, time, tags), scales=scales, dtypes=FLOATS))
    if draw(st.integers(0, 9)) == 9:
        emissions[draw(st.integers(0, batch - 1)), draw(st.integers(0, time - 1)), -1] = draw(BROKEN)
    return {
        "emissions": emissions,
        "transitions": draw(arrays((batch, time - 1, tags, tags) if of_step else (tags, tags), **forbidden)),
        "mask": draw(prefixes(batch, time)),
        "start": draw(st.none() | arrays((tags,), **forbidden)),
        "end": draw(st.none() | arrays((tags,), **forbidden)),
    }


#: What no score may be: its row is NaN, if it counts.
BROKEN = st.sampled_from([np.nan, np.inf])


def scores(emissions, transitions, mask=None, start=None, end=None):
    """The score of every tag sequence of every row, float64: one dictionary a row, sequences as keys."""
    emissions, transitions = np.asarray(emissions, "float64"), np.asarray(transitions, "float64")
    start, end = (np.zeros(emissions.shape[-1]) if x is None else np.asarray(x, "float64") for x in (start, end))
    found = []
    for row, x in enumerate(emissions):
        length = len(x) if mask is None else int(np.sum(mask[row]))
        broken = np.nan if np.any(np.isnan(x[:length]) | (x[:length] == np.inf)) else 0.0
        moves = (
            transitions[row]
            if transitions.ndim == 4
            else np.broadcast_to(transitions, (len(x), *transitions.shape))
        )
        of_row = {}
        for y in product(range(emissions.shape[-1]), repeat=length):
            s = sum(x[t, tag] for t, tag in enumerate(y)) + sum(
                moves[t, i, j] for t, (i, j) in enumerate(pairwise(y))
            )
            of_row[y] = s + (start[y[0]] + end[y[-1]] if y else 0.0) + broken
        found.append(of_row)
    return found


def log_partition(**arguments):
    """The logarithm of Σ exp of the scores."""
    return np.array([np.logaddexp.reduce([*row.values()]) for row in scores(**arguments)])


def best(**arguments):
    """The score of the best sequence: which one it is may be a tie."""
    found = np.array([max(row.values(), key=lambda s: (np.isnan(s), s)) for row in scores(**arguments)])
    return found, found


def k_best(k, **arguments):
    """The k highest scores, −∞ where there are fewer; and as many different sequences as are legal."""
    found, different = [], []
    for row in scores(**arguments):
        s = sorted(row.values(), reverse=True)[:k] + [-np.inf] * (k - len(row))
        s = [np.nan] * k if np.isnan([*row.values()]).any() else s
        found.append(s)
        different.append(sum(1 for x in s if x > -np.inf))
    return np.array(found), np.array(found), np.array(different)


def matching(y, row):
    """The scores of the sequences that have the tags that are known."""
    length = len(next(iter(row)))
    known = [(t, int(tag)) for t, tag in enumerate(y[:length]) if tag != chain.UNKNOWN]
    return [s for sequence, s in row.items() if all(sequence[t] == tag for t, tag in known)]


def score(tags, **arguments):
    """s(tags)."""
    return np.array([matching(y, row)[0] for y, row in zip(tags, scores(**arguments), strict=True)])


def log_probability(tags, **arguments):
    """The logarithm of the sum over all that have the known tags, less log Z, and −∞ where there is none."""
    found = []
    for y, row in zip(tags, scores(**arguments), strict=True):
        s, log_z = np.logaddexp.reduce(matching(y, row)), np.logaddexp.reduce([*row.values()])
        length = len(next(iter(row)))
        nothing = all(tag == chain.UNKNOWN for tag in y[:length])
        impossible = -np.inf if not nothing or (length and log_z == -np.inf) else 0.0
        found.append(impossible if s == -np.inf else s - log_z)
    return np.array(found)


def probabilities(**arguments):
    """P(y_t = j) of every step, 0 beyond the end and where no sequence is allowed."""
    emissions = np.asarray(arguments["emissions"])
    found = np.zeros(emissions.shape)
    for b, row in enumerate(scores(**arguments)):
        log_z = np.logaddexp.reduce([*row.values()])
        for y, s in row.items():
            for t, tag in enumerate(y):
                found[b, t, tag] += 0.0 if log_z == -np.inf else np.exp(s - log_z)
        if np.isnan(log_z):
            found[b] = np.nan
    return found


def entropies(**arguments):
    """−Σ P log P over all sequences, NaN where none is allowed."""
    found = []
    for row in scores(**arguments):
        s = np.array([*row.values()])
        p = np.exp(s - np.logaddexp.reduce(s)) if np.isfinite(s).any() else np.full(len(s), np.nan)
        found.append(np.nan if np.isnan(p).any() else -np.sum(p[p > 0] * np.log(p[p > 0])))
    return np.array(found)


def frequencies(count, seed, **arguments):  # noqa: ARG001
    """P of every tag at every step, as of many samples; 0 where no sequence is allowed or a score is no number."""
    return np.nan_to_num(probabilities(**arguments))


@st.composite
def tagged(draw: st.DrawFn, *, unknown: bool = True, **options: Any) -> dict[str, Any]:
    """A chain and tags of it, some of them not known."""
    arguments = draw(chains(**options))
    batch, time, tags = arguments["emissions"].shape
    y = draw(integers((batch, time), 0, tags - 1))
    if unknown and y.dtype.kind == "i" and draw(st.booleans()):
        y = np.where(draw(arrays((batch, time), scales=(1.0,))) > 0, chain.UNKNOWN, y.astype("int32"))
    return {"tags": y, **arguments}


def unmasked(**options: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A chain all of whose tags count."""
    return tagged(**options).map(lambda arguments: {**arguments, "mask": None})


WRONG = {
    "emissions": (*NO_TENSOR, flatter, deeper),
    "transitions": (*NO_TENSOR, flatter, longer(0), longer(1)),
    "mask": (*NO_MASK, longer(1), longer(0)),
    "start": (*NO_TENSOR[1:], flatter, longer(0)),
    "end": (*NO_TENSOR[1:], flatter, longer(0)),
}
WRONG_TAGS = {"tags": (*NO_TENSOR, flatter, deeper, longer(1), plus(7), plus(0.5))}
WRONG_TAGS_CHECKED = {"tags": WRONG_TAGS["tags"][1:]}


def rounding(arguments: dict[str, Any]) -> float:
    """What single precision makes of differences of scores as large as these."""
    given = (arguments[name] for name in ("emissions", "transitions", "start", "end"))
    scores = np.concatenate([np.asarray(x, "float64").ravel() for x in given if x is not None])
    return 2e-5 + 4e-7 * np.max(np.abs(scores[np.isfinite(scores)]), initial=0.0)


def scores_of(tags: Any, found: Any, **arguments: Any) -> np.ndarray:
    """What decoded tags score by the definition: NaN or −∞ where they are −1 for want of any."""
    tags, found = (ops.convert_to_numpy(x) for x in (tags, found))
    rows = zip(tags, scores(**arguments), found, strict=True)
    return np.array([row[tuple(y[: len(next(iter(row)))])] if s > -np.inf else s for y, row, s in rows])


def score_of_best(**arguments: Any) -> tuple:
    """What `viterbi` says its sequence scores, and what it does score."""
    tags, found = chain.viterbi(**arguments)
    return found, scores_of(tags, found, **arguments)


def scores_of_best(k: Any, **arguments: Any) -> tuple:
    """What `k_best` says its sequences score, what they do score, and how many different ones there are."""
    tags, found = chain.k_best(k=k, **arguments)
    sequences, said = ops.convert_to_numpy(tags), ops.convert_to_numpy(found)
    true = np.stack([scores_of(sequences[:, i], said[:, i], **arguments) for i in range(k)], axis=1)
    legal = said > -np.inf
    different = [
        len({tuple(y) for y, ok in zip(*row, strict=True) if ok}) for row in zip(sequences, legal, strict=True)
    ]
    return found, true, np.array(different)


def frequencies_of_sample(count: Any, seed: Any, **arguments: Any) -> np.ndarray:
    """How often each tag is drawn at each step."""
    tags = ops.convert_to_numpy(chain.sample(count=count, seed=seed, **arguments))
    return np.stack([np.mean(tags == tag, axis=1) for tag in range(arguments["emissions"].shape[-1])], axis=-1)


def as_checked(**arguments: Any) -> tuple:
    """The arguments as a chain has them."""
    found = chain.checked(**arguments)
    assert isinstance(found, chain.Potentials)
    return tuple(ops.cast(x, "float32") for x in found)


def by_rules(tags: Any, emissions: Any, transitions: Any, mask: Any, start: Any, end: Any) -> tuple:
    """What counts, 0 elsewhere; which rows hold numbers."""
    batch, time, K = emissions.shape
    mask = np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool)
    e = np.where(mask[..., None], np.asarray(emissions, "float64"), 0)
    transitions = np.asarray(transitions, "float64")
    if transitions.ndim == 4:
        transitions = np.where(mask[:, 1:, None, None], transitions, 0)
    ends = [np.zeros(K) if x is None else np.asarray(x, "float64") for x in (start, end)]
    return e, transitions, mask, *ends, np.where(mask, tags, 0), ~np.any(np.isnan(e) | (e == np.inf), axis=(1, 2))


def many(strategy: st.SearchStrategy, **given: st.SearchStrategy) -> st.SearchStrategy:
    """Arguments of a strategy and more."""
    return st.builds(lambda one, other: {**one, **other}, strategy, st.fixed_dictionaries(given))


CASES = [
    Case(chain.log_partition, chains(), log_partition, WRONG),
    Case(score_of_best, chains(), best, WRONG, of=("viterbi",)),
    Case(
        scores_of_best,
        many(chains(), k=st.integers(1, 5)),
        k_best,
        {**WRONG, "k": NO_COUNT},
        of=("k_best",),
    ),
    Case(chain.marginals, chains(), probabilities, WRONG, tolerance=rounding),
    Case(chain.entropy, chains(), entropies, WRONG, tolerance=rounding),
    Case(
        frequencies_of_sample,
        many(chains(scales=(1.0, 0.0, 100.0)), count=st.just(2000), seed=st.integers(0, 2**16)),
        frequencies,
        {**WRONG, "count": NO_COUNT, "seed": NO_SEED},
        tolerance=0.08,  # six standard deviations
        of=("sample",),
        examples=10,
    ),
    Case(chain.log_likelihood, tagged(), log_probability, WRONG, tolerance=rounding),
    Case(chain.log_likelihood, unmasked(), log_probability, WRONG_TAGS, tolerance=rounding, name="tags alone"),
    Case(chain.sequence_score, tagged(unknown=False), score, WRONG),
    Case(chain.sequence_score, unmasked(unknown=False), score, WRONG_TAGS, name="sequence_score of all"),
    Case(as_checked, unmasked(unknown=False), by_rules, WRONG_TAGS_CHECKED, of=("checked", "Potentials")),
]

EXEMPT = {"UNKNOWN": "a number, which the cases of log_likelihood draw"}
