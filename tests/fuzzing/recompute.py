"""Cases of `lib.recompute`: outputs and gradients of the plain layers, and plans by trying all segmentations."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any

import keras
import numpy as np
from attention_references import gradients
from hypothesis import strategies as st
from keras import ops

from fuzzing.cases import NO_COLLECTION, NO_COUNT, Case, always
from fuzzing.values import arrays, sizes
from lib import recompute
from lib.recompute import Cost, Plan

# --- plans --------------------------------------------------------------------------------------------------------

BYTES = st.integers(0, 9) | st.integers(0, 2**50)


@st.composite
def chains(draw: st.DrawFn) -> dict[str, Any]:
    """Costs of a few links, and a segmentation of them."""
    n = draw(sizes(1, 5))
    costs = []
    for _ in range(n):
        seconds = draw(st.sampled_from([0.0, 1.0, 0.25, 3.0, 1e3]))
        costs.append(
            Cost(draw(BYTES), draw(BYTES), draw(BYTES), seconds, draw(st.sampled_from([0.0, 1.0])) * seconds)
        )
    cuts = (0, *(i for i in range(1, n) if draw(st.booleans())))
    kept = draw(st.none() | st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))
    return {"costs": costs, "cuts": cuts, "kept": kept}


def only(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the arguments."""
    return chains().map(lambda given: {name: given[name] for name in names})


def predicted(costs: Any, cuts: Any, kept: Any = None) -> tuple[int, float]:
    """Peak and seconds, by the formulas of the module."""
    kept = [False] * (len(cuts) - 1) + [True] if kept is None else kept
    peaks, stored, seconds = [], 0, 0.0
    for (a, b), stays in zip(pairwise([*cuts, len(costs)]), kept, strict=True):
        segment = costs[a:b]
        inner = sum(c.inner for c in segment)
        peaks.append(stored + segment[0].boundary + inner + max(c.working for c in segment))
        stored += segment[0].boundary + (inner if stays else 0)
        seconds += 0.0 if stays else math.fsum([*(c.seconds for c in segment), -segment[-1].tail])
    return max(peaks), seconds


def every(costs: Any) -> list[tuple[int, float]]:
    """Peak and seconds of all segmentations, with all choices of kept segments."""
    found = []
    for marks in product([False, True], repeat=len(costs) - 1):
        cuts = (0, *(i for i, mark in enumerate(marks, start=1) if mark))
        found += [predicted(costs, cuts, kept) for kept in product([False, True], repeat=len(cuts))]
    return found


def numbers(plan: Plan) -> tuple[float, float]:
    """Peak and seconds, large numbers by their logarithms."""
    return of_pair((plan.peak, plan.seconds))


def of_pair(pair: tuple[int, float]) -> tuple[float, float]:
    return pair[0] / 2**50, math.log1p(pair[1])


def budgeted(costs: Any, memory_budget: float) -> tuple[float, float]:
    return of_pair(min((each for each in every(costs) if each[0] <= memory_budget), key=lambda each: each[::-1]))


def with_budget(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """A chain and bytes that suffice."""
    return st.builds(
        lambda given, more: {**given, name: max(1, min(every(given["costs"]))[0]) * more},
        only("costs"),
        st.sampled_from([1, 1.5, 4]),
    )


def front(costs: Any) -> list[tuple[float, float]]:
    """All that no other one is better than in both."""
    best: list[tuple[int, float]] = []
    for peak, seconds in sorted(set(every(costs))):
        if not best or seconds < best[-1][1]:
            best.append((peak, seconds))
    return [of_pair(pair) for pair in best]


def closed(costs: Any, budget: float) -> tuple[float, float]:
    cuts, held = [0], 0
    for i, cost in enumerate(costs):
        if held > budget:
            cuts.append(i)
            held = 0
        held += cost.inner
    return of_pair(predicted(costs, cuts))


def lengths(cuts: Any, n: int) -> list[int]:
    return [b - a for a, b in pairwise([*cuts, n])]


EQUAL = sizes(1, 40).flatmap(lambda n: st.fixed_dictionaries({"n": st.just(n), "segments": st.integers(1, n)}))


# --- layers -------------------------------------------------------------------------------------------------------


@st.composite
def texts(draw: st.DrawFn) -> dict[str, Any]:
    """Layers that keep a shape, inputs for them and what comes from above."""
    kinds = draw(st.lists(st.sampled_from(["dense", "norm", "dropout", "attention"]), min_size=1, max_size=3))
    shape = (draw(sizes(1, 2)), draw(sizes(1, 3)), 2)
    x, upstream = (draw(arrays(shape, scales=(1.0,))) for _ in range(2))
    made = {
        "dense": lambda: keras.layers.Dense(2, "tanh"),
        "norm": keras.layers.LayerNormalization,
        "dropout": lambda: keras.layers.Dropout(0.5, seed=0),
        "attention": lambda: Twice(keras.layers.MultiHeadAttention(1, 2)),
    }
    return {"layers": [made[kind]() for kind in kinds], "x": x, "upstream": upstream}


class Twice(keras.layers.Layer):
    """A layer that is given one tensor twice."""

    def __init__(self, layer: keras.layers.Layer):
        super().__init__()
        self.layer = layer

    def build(self, shape: Any) -> None:
        self.layer.build(shape, shape)

    def call(self, x: Any) -> Any:
        return self.layer(x, x)


def seeded(layers: Any) -> None:
    """Dropout begins anew."""
    for layer in layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.seed_generator.state.assign([0, 0])


def in_training(make: Any) -> Any:
    """A function that runs a layer made of others in training, with gradients."""

    def function(layers: Any, x: Any, upstream: Any, **options: Any) -> tuple:
        made = make(layers, **options)
        made(x)
        return run(lambda x: made(x, training=True), layers, x, upstream)

    return function


def run(call: Any, layers: Any, x: Any, upstream: Any) -> tuple:
    seeded(layers)
    found = gradients(call, [x], upstream)
    seeded(layers)
    return *found, call(ops.convert_to_tensor(x))


def plain(layers: Any, x: Any, upstream: Any, **_: Any) -> tuple:
    """The layers one after another."""

    def call(x: Any) -> Any:
        for layer in layers:
            x = layer(x, training=True) if isinstance(layer, keras.layers.Dropout) else layer(x)
        return x

    call(ops.convert_to_tensor(x))
    return run(call, layers, x, upstream)


def of_function(layers: Any, **_: Any) -> Any:
    """A function of tensors that uses the layers."""

    def function(x: Any, training: Any = None) -> Any:
        for layer in layers:
            x = layer(x, training=training) if isinstance(layer, keras.layers.Dropout) else layer(x)
        return x

    for layer in layers:
        layer.build((None, None, 2))
    return recompute.recompute(function, layers)


def made_of(function: Any, layers: Any) -> bool:
    """A layer made of a layer."""
    function = keras.layers.Dense(1) if function == "dense" else function
    return isinstance(recompute.recompute(function, layers), recompute.Recompute)


def a_layer(layers: Any) -> Any:  # noqa: ARG001
    """A layer where there may be none."""
    return [keras.layers.Dense(1)]


def pure(layers: Any, x: Any) -> Any:
    """A call that is given its weights."""
    sequence = recompute.LayerSequence(layers)
    sequence(x)
    call = recompute.PureCall(sequence, training=False, masks=False, strict=True)
    tensors = call.flatten((ops.convert_to_tensor(x),), {})
    return call.outputs(recompute.replay(call, call.weights, tensors))


def plainly(layers: Any, x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x


@st.composite
def cut(draw: st.DrawFn) -> dict[str, Any]:
    """Layers and where to cut them."""
    given = draw(texts())
    n = len(given["layers"])
    segments = draw(st.sampled_from(["layers", "norms", "sqrt", 1, n, [0], [*range(n)]]))
    return {**given, "segments": segments, "kept": None}


def saved(costs: Any, plan: Plan) -> float:
    everything, _ = predicted(costs, (0,), (True,))
    return 1 - plan.peak / everything if everything else 0.0


NO_COSTS = tuple(
    map(
        always,
        (
            None, 3, "ab", [], [3], [(1, 2)], [Cost(-1, 1)], [Cost(1.5, 1)], [Cost(1, True)], [Cost(1, 1, 1, -1.0)],
            [Cost(1, 1, 1, math.nan)], [Cost(1, 1, 1, 1.0, 2.0)], [Cost(2**62, 2**62)], [Cost("1", 1)],
            [Cost(1, 1, 1, "1")], [Cost(1, 1, None)],
        ),
    )
)  # fmt: skip
NO_CUTS = tuple(map(always, (None, 3, "0", [], [1], [0, 0], [0, 9], [0, 1.5], [False], [0, "1"], [[0]])))
NO_KEPT = tuple(map(always, (3, "ab", [2], ["yes"], [None], [True] * 9, True)))
NO_BUDGET = tuple(map(always, (True, "3", math.nan, -1, 1j, [1.0])))
NO_LAYERS = tuple(map(always, (None, 3, "relu", [], ["relu"], [None], [3], keras.layers.Dense)))
NO_SEGMENTS = tuple(
    map(always, (None, True, 0, -1, 1.5, "nonsense", [], [1], [0, 0], [0, 9], [0, 1.5], [True], 99, ["0"]))
)

CASES = [
    Case(
        lambda **given: numbers(recompute.forecast(**given)),
        chains(),
        lambda **given: of_pair(predicted(**given)),
        {"costs": NO_COSTS, "cuts": NO_CUTS, "kept": NO_KEPT},
        1e-12,
        name="forecast",
        of=("forecast", "Cost", "Plan"),
    ),
    Case(
        lambda costs: numbers(recompute.nothing(costs)),
        only("costs"),
        lambda costs: of_pair(predicted(costs, (0,), (True,))),
        {"costs": NO_COSTS},
        1e-12,
        name="nothing",
        of=("nothing",),
    ),
    Case(
        recompute.saving,
        only("costs").map(lambda given: {**given, "plan": recompute.smallest(given["costs"])}),
        saved,
        {"costs": NO_COSTS, "plan": tuple(map(always, (None, 3, (0,), "plan")))},
        1e-12,
    ),
    Case(
        lambda costs: numbers(recompute.smallest(costs)),
        only("costs"),
        lambda costs: of_pair(min(every(costs))),
        {"costs": NO_COSTS},
        1e-12,
        name="smallest",
        of=("smallest",),
    ),
    Case(
        lambda **given: numbers(recompute.plan(**given)),
        with_budget("memory_budget"),
        budgeted,
        {"costs": NO_COSTS, "memory_budget": (*NO_BUDGET, always(None), always(0))},
        1e-12,
        name="plan",
        of=("plan",),
    ),
    Case(
        lambda costs: sorted(numbers(plan) for plan in recompute.frontier(costs)),
        only("costs"),
        front,
        {"costs": NO_COSTS},
        1e-12,
        name="frontier",
        of=("frontier",),
    ),
    Case(
        lambda **given: numbers(recompute.chen(**given)),
        with_budget("budget"),
        closed,
        {"costs": NO_COSTS, "budget": NO_BUDGET},
        1e-12,
        name="chen",
        of=("chen",),
    ),
    Case(
        lambda n, segments: sorted(lengths(recompute.equal_cuts(n, segments), n)),
        EQUAL,
        lambda n, segments: sorted(len(part) for part in np.array_split(np.arange(n), segments)),
        {"n": NO_COUNT, "segments": (*NO_COUNT, always(99))},
        0,
        name="equal_cuts",
        of=("equal_cuts",),
    ),
    Case(
        recompute.units,
        EQUAL,
        lambda n, segments: segments + math.ceil(n / segments),
        {"n": NO_COUNT, "segments": (*NO_COUNT, always(99))},
        0,
    ),
    Case(
        lambda n: len(recompute.sqrt_cuts(n)) + max(lengths(recompute.sqrt_cuts(n), n)),
        st.fixed_dictionaries({"n": sizes(1, 300)}),
        lambda n: min(k + math.ceil(n / k) for k in range(1, n + 1)),
        {"n": NO_COUNT},
        0,
        name="sqrt_cuts",
        of=("sqrt_cuts",),
    ),
    Case(
        in_training(lambda layers, **_: recompute.recompute(recompute.LayerSequence(layers))),
        texts(),
        plain,
        {"layers": NO_LAYERS},
        1e-5,
        name="recompute",
        of=("recompute", "Recompute", "LayerSequence"),
        examples=5,
    ),
    Case(in_training(of_function), texts(), plain, {}, 1e-5, name="of_function", of=("Link",), examples=5),
    Case(
        made_of,
        st.just({"function": "dense", "layers": []}),
        lambda **_: True,
        {
            "function": tuple(map(always, (None, "relu", 3, [1.0], keras.layers.Dense))),
            "layers": (a_layer, *NO_LAYERS[:3]),
        },
        of=("recompute",),
        examples=1,
    ),
    Case(
        in_training(recompute.checkpoint_sequence),
        cut(),
        plain,
        {"layers": NO_LAYERS, "segments": NO_SEGMENTS, "kept": NO_KEPT},
        1e-5,
        name="checkpoint_sequence",
        of=("checkpoint_sequence", "CheckpointedSequence"),
        examples=5,
    ),
    Case(
        lambda layers: len(recompute.links(layers)),
        texts().map(lambda given: {"layers": given["layers"]}),
        lambda layers: len(layers),
        {"layers": (*NO_COLLECTION, *map(always, ([3], [None], ["relu"])))},
        0,
        name="links",
        of=("links",),
        examples=5,
    ),
    Case(
        pure,
        texts().map(lambda given: {"layers": given["layers"], "x": given["x"]}),
        plainly,
        {},
        1e-6,
        of=("PureCall", "replay"),
        examples=5,
    ),
]

EXEMPT: dict[str, str] = {}
