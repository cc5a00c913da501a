"""Cases of `lib.hmm`: counts one by one, joint probabilities of all tag sequences."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fuzzing.cases import (
    NO_COUNT,
    NO_MASK,
    NO_SEED,
    NO_TENSOR,
    NOT_NEGATIVE,
    Case,
    always,
    deeper,
    flatter,
    longer,
    plus,
)
from fuzzing.values import integers, prefixes, sizes
from lib import hmm
from lib.hmm import HMM


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Distributions, some of whose probabilities are 0, and symbols, some of them missing."""
    K, V, batch, time = draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(1, 2)), draw(sizes(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def rows(*shape: int) -> Any:
        p = rng.exponential(size=shape) * (rng.uniform(size=shape) < draw(st.sampled_from([1.0, 0.6])))
        p[..., 0] += p.sum(-1) == 0
        return p / p.sum(-1, keepdims=True)

    return {
        "initial": rows(K),
        "transition": rows(K, K),
        "emission": rows(K, V + 1),
        "symbols": draw(integers((batch, time), -1, V)),
        "mask": draw(prefixes(batch, time)),
    }


def ask(initial: Any, transition: Any, emission: Any, symbols: Any, mask: Any, k: Any = 2) -> tuple:
    """All that a model is asked."""
    model = HMM(initial, transition, emission)
    _, score = model.decode(symbols, mask)
    likelihood, entropy = model.log_likelihood(symbols, mask), model.entropy(symbols, mask)
    return score, likelihood, model.marginals(symbols, mask), entropy, model.k_best(symbols, k, mask=mask)[1]


def joint(initial: Any, transition: Any, emission: Any, symbols: Any, mask: Any, k: int = 2) -> tuple:
    """The same from P(x, y) of every y."""
    K, time = len(initial), symbols.shape[1]
    scores, likelihoods, marginals, entropies, best = [], [], np.zeros((*symbols.shape, K)), [], []
    for b, x in enumerate(symbols):
        length = time if mask is None else int(np.sum(mask[b]))
        p = {}
        for y in product(range(K), repeat=length):
            p[y] = initial[y[0]] if y else 1.0
            for i, j in pairwise(y):
                p[y] *= transition[i, j]
            for tag, symbol in zip(y, x, strict=False):
                p[y] *= 1.0 if symbol == hmm.MISSING else emission[tag, symbol]
        of_all = np.array([*p.values()])
        total = of_all.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(np.log(of_all.max()))
            likelihoods.append(np.log(total))
            share = of_all / total
            entropies.append(-np.sum(share * np.log(np.where(share == 0, 1, share))))
            best.append(np.log(np.sort(np.append(of_all, np.zeros(k)))[::-1][:k]))
        for y, each in p.items():
            for t, tag in enumerate(y):
                marginals[b, t, tag] += each / total if total else 0.0
    return np.array(scores), np.array(likelihoods), marginals, np.array(entropies), np.array(best)


def sampled(initial: Any, transition: Any, emission: Any, symbols: Any, mask: Any, count: Any, seed: Any) -> Any:
    """How often each tag is drawn at each step."""
    tags = np.asarray(HMM(initial, transition, emission).sample(symbols, count, seed=seed, mask=mask))
    return np.stack([np.mean(tags == tag, axis=1) for tag in range(len(initial))], axis=-1)


@st.composite
def tagged(draw: st.DrawFn) -> dict[str, Any]:
    """Tagged sequences, padded or with a mask."""
    V, K, batch, time = draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(1, 4))
    mask = draw(prefixes(batch, time))
    tags = draw(integers((batch, time), 0, K - 1)).astype("int32")
    if mask is None:
        valid = np.arange(time) < np.array([draw(st.integers(0, time)) for _ in range(batch)])[:, None]
        tags = np.where(valid, tags, -1)
    return {
        "symbols": draw(integers((batch, time), -1, V)),
        "tags": tags,
        "symbol_count": V,
        "tag_count": K,
        "mask": mask,
        "smoothing": draw(st.sampled_from([0.0, 1.0, 0.25])),
        "emission_smoothing": draw(st.sampled_from([None, 0.0, 1e-3])),
    }


def fitted(**arguments: Any) -> tuple:
    model = HMM.fit(**arguments)
    return model.initial, model.transition, model.emission


def counted(
    symbols: Any, tags: Any, symbol_count: int, tag_count: int, mask: Any, smoothing: float, emission_smoothing: Any
) -> tuple:
    """Counts by a loop over all steps."""
    K, V = tag_count, symbol_count
    initial, transition, emission = np.zeros(K), np.zeros((K, K)), np.zeros((K, V + 1))
    valid = tags >= 0 if mask is None else np.asarray(mask, bool)
    for b, t in zip(*np.nonzero(valid), strict=True):
        tag = tags[b, t]
        if t == 0:
            initial[tag] += 1
        else:
            transition[tags[b, t - 1], tag] += 1
        if symbols[b, t] >= 0:
            emission[tag, symbols[b, t]] += 1
    beta = smoothing if emission_smoothing is None else emission_smoothing
    return tuple(shares(x, alpha) for x, alpha in ((initial, smoothing), (transition, smoothing), (emission, beta)))


def shares(counts: Any, alpha: float) -> Any:
    total = (counts + alpha).sum(-1, keepdims=True)
    return np.where(total > 0, (counts + alpha) / np.where(total > 0, total, 1), 1 / counts.shape[-1])


NO_DISTRIBUTION = (*NO_TENSOR, flatter, deeper, longer(-1), plus(0.5), plus(-1), always([[np.nan]]), always([]))
SYMBOLS = (*NO_TENSOR, flatter, deeper, plus(9), plus(-9), plus(0.5), always(np.zeros((0, 2), int)))
MODEL = {"initial": NO_DISTRIBUTION, "transition": NO_DISTRIBUTION, "emission": tuple(w for w in NO_DISTRIBUTION)}
NO_ALPHA = tuple(way for way in NOT_NEGATIVE if way.__name__ != "None")

CASES = [
    Case(
        ask,
        models(),
        joint,
        {**MODEL, "symbols": SYMBOLS, "mask": (*NO_MASK, longer(1)), "k": NO_COUNT},
        1e-4,
        of=("HMM",),
    ),
    Case(
        sampled,
        st.builds(lambda given, seed: {**given, "count": 2000, "seed": seed}, models(), st.integers(0, 99)),
        lambda count, seed, **given: np.nan_to_num(joint(**given)[2]),  # noqa: ARG005
        {"count": NO_COUNT, "seed": NO_SEED},
        0.08,
        of=("HMM",),
        examples=5,
    ),
    Case(
        fitted,
        tagged(),
        counted,
        {
            "symbols": SYMBOLS,
            "tags": (*NO_TENSOR, flatter, deeper, longer(1), plus(9), plus(-9), plus(0.5)),
            "symbol_count": NO_COUNT,
            "tag_count": NO_COUNT,
            "mask": (*NO_MASK, longer(1)),
            "smoothing": NOT_NEGATIVE,
            "emission_smoothing": NO_ALPHA,
        },
        1e-12,
        of=("HMM",),
    ),
]

EXEMPT = {"MISSING": "a number, which the symbols of all cases hold"}
