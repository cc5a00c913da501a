"""Cases of `lib.memm`: a softmax a step in float64, the product of them for every sequence."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st
from keras import ops

from fuzzing import chain as chains
from fuzzing.cases import NO_COUNT, NO_OPTION, Case, always
from fuzzing.crf import ASKED, LEARNED, RETURNED, answers, asked, every_answer, forbidden, of_three, padded
from fuzzing.values import arrays
from lib import chain, memm
from lib.memm import MEMM

DIRECTIONS = st.sampled_from(["forward", "backward", "both"])
SCALES = (1.0, 0.0, 100.0, 1e4, 1e8)


@st.composite
def models(draw: st.DrawFn, *, scales: Any = SCALES, **options: Any) -> dict[str, Any]:
    """A chain with tags, in a direction; the transitions are a matrix or two factors."""
    arguments = draw(chains.tagged(scales=scales, by_steps=False, **options))
    del arguments["start"], arguments["end"]
    K = arguments["emissions"].shape[-1]
    if not np.any(arguments["tags"] == chain.UNKNOWN) and draw(st.booleans()):
        rank = draw(st.integers(1, 3))
        arguments["transitions"] = tuple(draw(arrays((K, rank), scales=(1.0, 0.0))) for _ in range(2))
    return {**arguments, "direction": draw(DIRECTIONS)}


def matrix(transitions: Any) -> np.ndarray:
    if isinstance(transitions, tuple):
        left, right = (np.asarray(x, "float64") for x in transitions)
        return left @ right.T
    return np.asarray(transitions, "float64")


def log_softmax(x: np.ndarray) -> np.ndarray:
    """−∞ for all where all are −∞."""
    total = np.logaddexp.reduce(x)
    return np.full(len(x), -np.inf) if total == -np.inf else x - total


def log_p(emissions: Any, transitions: Any, mask: Any = None, direction: str = "forward") -> list[dict]:
    """Log P of every sequence of every row, by steps; for "both" the mean of the two directions."""
    g, found = matrix(transitions), []
    for b, f in enumerate(np.asarray(emissions, "float64")):
        length = len(f) if mask is None else int(np.sum(mask[b]))
        f = f[:length]
        broken = np.nan if np.any(np.isnan(f) | (f == np.inf)) else 0.0
        of_row = {}
        for y in product(range(f.shape[-1]), repeat=length):
            sides = []
            for side in ("forward", "backward") if direction == "both" else (direction,):
                s = broken
                for t, tag in enumerate(y):
                    before = t - 1 if side == "forward" else t + 1
                    moves = 0.0
                    if 0 <= before < length:
                        moves = g[y[before]] if side == "forward" else g[:, y[before]]
                    s += log_softmax(f[t] + moves)[tag]
                sides.append(s)
            of_row[y] = sum(sides) / len(sides)
        found.append(of_row)
    return found


def of_tags(tags: Any, direction: str, **arguments: Any) -> np.ndarray:
    """The logarithm of the sum over all with the known tags, for "both" the mean of both directions' logarithms."""
    sides = ("forward", "backward") if direction == "both" else (direction,)
    rows = [log_p(direction=side, **arguments) for side in sides]
    found = []
    for y, *of_row in zip(tags, *rows, strict=True):
        found.append(sum(np.logaddexp.reduce(chains.matching(y, row)) for row in of_row) / len(sides))
    return np.array(found)


def best(**arguments: Any) -> tuple:
    found = np.array([max(row.values(), key=lambda s: (np.isnan(s), s)) for row in log_p(**arguments)])
    return found, found


def decoded(function: Any, **arguments: Any) -> tuple:
    """What a decoder says its tags score, and what they do."""
    tags, found = function(**arguments)
    del arguments["width"]
    sequences, said = ops.convert_to_numpy(tags), ops.convert_to_numpy(found)
    rows = zip(sequences, log_p(**arguments), said, strict=True)

    def score(y: Any, row: dict, s: float) -> float:
        if np.isnan(s):
            return s
        if len(y) and y[0] < 0 and s == -np.inf:  # none is possible, and none was given
            return max(row.values())
        return row[tuple(y[: len(next(iter(row)))])]

    return found, np.array([score(*each) for each in rows])


def by_viterbi(width: Any = None, **arguments: Any) -> tuple:
    return decoded(lambda width, **given: memm.viterbi(**given), width=width, **arguments)  # noqa: ARG005


def by_beam(width: Any, **arguments: Any) -> tuple:
    """A beam wider than there are tags finds the best, except for "both", which keeps two beams."""
    return decoded(memm.beam, width=width, **arguments)


def by_greed(**arguments: Any) -> tuple:
    """The greedy decoder, and the beam of width 1."""
    return *decoded(lambda width, **given: memm.greedy(**given), width=1, **arguments), memm.beam(  # noqa: ARG005
        width=1, **arguments
    )[1]


def greedy(emissions: Any, transitions: Any, mask: Any, direction: str) -> tuple:
    """Of each direction the sequence that takes the best tag at every step, and of these the more probable."""
    g, found = matrix(transitions), []
    rows = log_p(emissions, transitions, mask, direction)
    for f, row in zip(np.asarray(emissions, "float64"), rows, strict=True):
        length = len(next(iter(row)))
        scores = []
        for side in ("forward", "backward") if direction == "both" else (direction,):
            y: list[int] = []
            for t in range(length) if side == "forward" else reversed(range(length)):
                moves = 0.0 if not y else g[y[-1]] if side == "forward" else g[:, y[-1]]
                y.append(int(np.argmax(f[t] + moves)))
            scores.append(row[tuple(y if side == "forward" else y[::-1])])
        found.append(max(scores))
    return np.array(found), np.array(found), np.array(found)


def scores_of_potentials(tags: Any, **arguments: Any) -> tuple:
    """What the chain of the model says of the tags."""
    potentials = memm.potentials(**arguments)
    return chain.sequence_score(tags, potentials.emissions, potentials.transitions, mask=arguments["mask"])


def score_alone(tags: Any, **arguments: Any) -> np.ndarray:
    return np.array([chains.matching(y, row)[0] for y, row in zip(tags, log_p(**arguments), strict=True)])


def without(*names: str, **options: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Models without some of the arguments."""
    return models(**options).map(lambda given: {name: x for name, x in given.items() if name not in names})


def of_layer(emissions: Any, mask: Any, transitions_initializer: Any, legal: Any, direction: str, **_: Any) -> list:
    """Log P of all sequences; scores of the first and the last tag are emissions of those steps."""
    moves, start, end = forbidden(legal)
    e, g = np.array(emissions, "float64"), np.asarray(transitions_initializer, "float64")
    for row, length in zip(e, lengths(e, mask), strict=True):
        if length:
            row[0] += 0 if start is None else start
            row[length - 1] += 0 if end is None else end
    return log_p(e, g + (0 if moves is None else moves), mask, direction)


def lengths(emissions: Any, mask: Any) -> Any:
    return [emissions.shape[1]] * len(emissions) if mask is None else np.sum(mask, axis=1).astype(int)


def per_token(tags: Any, **given: Any) -> tuple:
    """The loss is one a token: divided by the mean number of known tags."""
    loss, *rest = answers(of_layer, of_layer)(tags=tags, **given)
    known = np.sum((tags != -1) & (tags != chain.UNKNOWN), axis=1)
    return loss / (known.mean() or 1.0), *rest


WRONG = {name: ways for name, ways in chains.WRONG.items() if name in ("emissions", "mask")}
WRONG |= {
    "transitions": (*chains.WRONG["transitions"], *map(always, ((), (np.ones((2, 2)),), (np.ones((2, 2)), None)))),
    "direction": (*NO_OPTION, always(None)),
}
rounding = chains.rounding


def losing(given: dict[str, Any]) -> float:
    """What single precision makes of scores as large as these."""
    transitions = given["transitions"]
    scores = matrix(transitions) if isinstance(transitions, tuple) else transitions
    return rounding({**given, "transitions": scores, "start": None, "end": None})


def losing_in_layer(given: dict[str, Any]) -> float:
    return losing({**given, "transitions": given["transitions_initializer"]})


CASES = [
    Case(memm.log_likelihood, models(), of_tags, WRONG, losing),
    Case(
        memm.log_likelihood,
        models().map(lambda given: {**given, "mask": None}),
        of_tags,
        chains.WRONG_TAGS,
        losing,
        name="tags of all steps",
    ),
    Case(by_viterbi, without("tags"), best, WRONG, losing, of=("viterbi",)),
    Case(
        by_beam,
        chains.many(without("tags", scales=(1.0, 10.0)), width=st.integers(3, 4)).map(
            lambda given: {**given, "direction": "forward" if given["direction"] == "both" else given["direction"]}
        ),
        lambda width, **given: best(**given),  # noqa: ARG005
        {**WRONG, "width": NO_COUNT},
        losing,
        of=("beam",),
    ),
    Case(by_greed, without("tags", scales=(1.0, 10.0)), greedy, WRONG, losing, of=("greedy",)),
    Case(scores_of_potentials, models(unknown=False), score_alone, WRONG, losing, of=("potentials",)),
    Case(
        every_answer(MEMM),
        chains.many(asked(), direction=st.sampled_from(["forward", "backward"])),
        per_token,
        {
            **ASKED,
            **LEARNED,
            "direction": (*NO_OPTION, always(None)),
            "rank": tuple(way for way in NO_COUNT if way.__name__ != "None"),
            "beam_width": tuple(way for way in NO_COUNT if way.__name__ != "None"),
        },
        losing_in_layer,
        name="MEMM",
        of=("MEMM",),
        examples=10,
    ),
    Case(
        lambda emissions, mask: MEMM(3)(emissions, mask=mask),
        of_three(),
        padded,
        RETURNED,
        0,
        name="returned",
        of=("MEMM",),
    ),
]

EXEMPT: dict[str, str] = {}
