"""Cases of `lib.crf`: the layer, asked all that a head can be asked; its functions are those of `lib.chain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from keras import ops

from fuzzing import chain as chains
from fuzzing.cases import (
    NO_COUNT,
    NO_MASK,
    NO_SEED,
    NO_TENSOR,
    NOT_NEGATIVE,
    NOT_SEEN,
    Case,
    always,
    deeper,
    flatter,
    longer,
    plus,
)
from fuzzing.values import FLOATS, arrays, integers, prefixes, sizes
from lib import chain
from lib.crf import CRF
from lib.tagging import LegalMoves

SCALES = (1.0, 0.0, 100.0, 1e4)


@st.composite
def asked(draw: st.DrawFn, *, learned: bool = True) -> dict[str, Any]:
    """Emissions, tags and a mask, and the options of a head."""
    batch, time, K = draw(sizes(1, 2)), draw(sizes(1, 3)), draw(sizes(1, 3))
    mask = draw(prefixes(batch, time))
    valid = np.ones((batch, time), bool) if mask is None else np.asarray(mask, bool)
    tags = draw(integers((batch, time), 0, K - 1)).astype(draw(st.sampled_from(["int32", "float32", "int64"])))
    if draw(st.booleans()):
        tags = np.where(draw(arrays((batch, time), scales=(1.0,))) > 1, chain.UNKNOWN, tags)
    given = {
        "tag_count": K,
        "emissions": draw(arrays((batch, time, K), scales=SCALES, dtypes=FLOATS)),
        "tags": np.where(valid, tags, -1),
        "mask": mask,
        "legal": draw(st.none() | legal(K)),
    }
    if learned:
        given["transitions_initializer"] = draw(arrays((K, K), scales=(1.0, 0.0, 100.0)))
        given["learning_rate_multiplier"] = draw(st.sampled_from([1.0, 0.0, 100.0]))
    return given


@st.composite
def legal(draw: st.DrawFn, K: int) -> Any:
    """Moves of which some are legal, alone or with the tags that may start and end."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    moves = rng.uniform(size=(K, K)) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    if draw(st.booleans()):
        return moves.astype(draw(st.sampled_from(["bool", "int32"])))
    start, end = (rng.uniform(size=K) < 0.6 for _ in range(2))
    start[0], end[-1] = True, True
    return LegalMoves(moves, start, end)


def every_answer(kind: Callable[..., Any]) -> Callable[..., tuple]:
    """A function that asks a head of this kind all that it can be asked."""

    def ask(
        emissions: Any, tags: Any, mask: Any, tag_count: Any, k: Any = 2, seed: Any = 0, **options: Any
    ) -> tuple:
        head = kind(tag_count, **options)
        score, best = head.decode(emissions, mask)[1], head.k_best(emissions, k, mask=mask)[1]
        drawn = ops.convert_to_numpy(head.sample(emissions, 3, seed=seed, mask=mask))
        marginals = head.marginals(emissions, mask)
        rows, _, steps = np.nonzero(drawn >= 0)
        drawn_p = ops.convert_to_numpy(marginals)[rows, steps, drawn[drawn >= 0]]
        entropy, returned = head.entropy(emissions, mask), head(emissions, mask=mask)
        return head.sequence_loss(tags, returned), score, best, marginals, entropy, bool(np.all(drawn_p > 0))

    return ask


def answers(log_p: Callable[..., list[dict]], to_decode: Callable[..., list[dict]]) -> Callable[..., tuple]:
    """The same from the log-probabilities of all sequences, and from the scores that decide which is best."""

    def reference(emissions: Any, tags: Any, mask: Any, tag_count: int, k: int = 2, **options: Any) -> tuple:
        rows, scores = log_p(emissions, mask, **options), to_decode(emissions, mask, **options)
        loss, best, entropies, marginals = [], [], [], np.zeros((*emissions.shape[:2], tag_count))
        for b, row in enumerate(rows):
            s, length = np.array([*row.values()]), len(next(iter(row)))
            possible = np.isfinite(s).any()
            # Given that the sequence is possible: an MEMM may lose probability in a tag that none may follow.
            given = s - (np.logaddexp.reduce(s) if possible else 0.0)
            p = np.exp(given)
            entropies.append(-np.sum(p[p > 0] * given[p > 0]) if possible else np.nan)
            of_tags = np.logaddexp.reduce(chains.matching(tags[b], row))
            loss.append(-of_tags if length else 0.0)
            if all(tags[b, :length] == chain.UNKNOWN) and possible:
                loss[-1] = 0.0
            for y, each in zip(row, p, strict=True):
                for t, tag in enumerate(y):
                    marginals[b, t, tag] += each
            best.append((sorted(scores[b].values(), reverse=True) + [-np.inf] * k)[:k])
        best = np.array(best)
        return np.array(loss), best[:, 0], best, marginals, np.array(entropies), True

    return reference


def forbidden(legal: Any) -> tuple[Any, Any, Any]:
    """0 for what is legal and −∞ for what is not."""
    parts = legal if isinstance(legal, LegalMoves) else (legal, None, None)
    with np.errstate(divide="ignore"):
        return tuple(None if x is None else np.log(np.asarray(x, "float64")) for x in parts)


def of_crf(emissions: Any, mask: Any, transitions_initializer: Any, legal: Any, **_: Any) -> list[dict]:
    """s(y) of all sequences, −∞ for those that are illegal."""
    moves, start, end = forbidden(legal)
    moves = np.asarray(transitions_initializer, "float64") + (0 if moves is None else moves)
    return chains.scores(emissions, moves, mask, start, end)


def normalized(scores: Callable[..., list[dict]]) -> Callable[..., list[dict]]:
    """Scores less log Z, if Z is not 0."""

    def log_p(*args: Any, **options: Any) -> list[dict]:
        rows = scores(*args, **options)
        log_z = [np.logaddexp.reduce([*row.values()]) for row in rows]
        return [
            {y: s - z if z > -np.inf else -np.inf for y, s in row.items()}
            for row, z in zip(rows, log_z, strict=True)
        ]

    return log_p


def returned(emissions: Any, mask: Any) -> Any:
    """What a head returns."""
    return CRF(3)(emissions, mask=mask)


def padded(emissions: Any, mask: Any) -> Any:
    valid = np.ones(emissions.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    return np.where(valid[..., None], np.asarray(emissions, "float64"), -np.inf)


@st.composite
def of_three(draw: st.DrawFn) -> dict[str, Any]:
    """Emissions of three tags, and a mask."""
    batch, time = draw(sizes(1, 2)), draw(sizes(1, 3))
    return {"emissions": draw(arrays((batch, time, 3), dtypes=FLOATS)), "mask": draw(prefixes(batch, time))}


def losing(given: dict[str, Any]) -> float:
    """What single precision makes of scores as large as these."""
    given = {name: given.get(name) for name in ("emissions", "transitions_initializer")}
    return chains.rounding({**given, "transitions": given["transitions_initializer"], "start": None, "end": None})


def losing_scores(given: dict[str, Any]) -> float:
    """The same of emissions alone."""
    return losing({"emissions": given["emissions"]})


EMISSIONS = (*NO_TENSOR, flatter, deeper, longer(2))
ASKED = {
    "emissions": EMISSIONS,
    "tags": (*NO_TENSOR, flatter, deeper, longer(1), plus(7), plus(-3), plus(0.5)),
    "mask": (*NO_MASK, longer(1)),
    "tag_count": NO_COUNT,
    "k": NO_COUNT,
    "seed": NO_SEED,
    "legal": tuple(map(always, (1, "ab", [[1, 0], [1]], np.full((2, 3), True), {}, np.full((3, 3), 0.5)))),
}
LEARNED = {
    "transitions_initializer": tuple(
        map(
            always,
            (
                3,
                "nonsense",
                [[1.0], [1.0, 2.0]],
                np.zeros((2, 3)),
                np.full((1, 1), 1j),
                [["a"]],
                np.full((1, 1), np.nan),
            ),
        )
    ),
    "learning_rate_multiplier": NOT_NEGATIVE,
    "boundaries": tuple(map(always, (None, 1, "yes", [True]))),
}
#: Keras makes tensors of masked and nested arrays before it hands them to a layer.
RETURNED = {
    "emissions": tuple(way for way in EMISSIONS if way not in NOT_SEEN),
    "mask": (*(way for way in NO_MASK if way not in NOT_SEEN), longer(1)),
}

CASES = [
    Case(
        every_answer(CRF),
        asked(),
        answers(normalized(of_crf), of_crf),
        {**ASKED, **LEARNED},
        losing,
        name="CRF",
        of=("CRF",),
        examples=10,
    ),
    Case(returned, of_three(), padded, RETURNED, 0, of=("CRF",)),
]

EXEMPT = dict.fromkeys({*chain.__all__} - {"Potentials", "checked"}, "it is that of chain, whose cases try it")
