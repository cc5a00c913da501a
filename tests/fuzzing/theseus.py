"""Cases of `lib.theseus`: mixtures of matrices in NumPy, rates as lines."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import ops

from fuzzing.cases import NO_COUNT, NO_LAYER, NO_OPTION, NO_SEED, Case, always
from fuzzing.values import arrays, sizes
from lib import theseus
from lib.theseus import ModuleReplacement

RATES = st.floats(0, 1, width=32)


@st.composite
def chains(draw: st.DrawFn) -> dict[str, Any]:
    """Matrices of predecessors and successors, inputs, a rate and what gates are."""
    n, width = draw(sizes(1, 3)), draw(sizes(1, 2))
    return {
        "predecessors": [draw(arrays((width, width), scales=(1.0,))) for _ in range(n)],
        "successors": [draw(arrays((width, width), scales=(1.0,))) for _ in range(n)],
        "x": draw(arrays((draw(sizes(1, 3)), width), scales=(1.0,))),
        "rate": draw(RATES | st.sampled_from([0.0, 1.0])),
        "gates": draw(st.sampled_from(theseus.GATES)),
        "seed": draw(st.integers(0, 99)),
    }


def dense(given: Any) -> Any:
    """Layers with these matrices; anything else as it is."""
    if not isinstance(given, list) or not all(isinstance(W, np.ndarray) for W in given):
        return given
    layers = []
    for W in given:
        layer = keras.layers.Dense(W.shape[1], use_bias=False)
        layer.build((None, len(W)))
        layer.kernel.assign(W)
        layers.append(layer)
    return layers


def replaced(predecessors: Any, successors: Any, x: Any, **options: Any) -> tuple:
    """What a chain gives out of training; whether a step of it is a mixture that its gates allow; its mixtures."""
    body = ModuleReplacement(dense(predecessors), dense(successors), **options)
    plain = body(x)
    step = ops.convert_to_numpy(body(x, training=True)).astype("float64")
    marks = [i % 2 == 0 for i in range(len(predecessors))]
    mixed, small = body.mixture(marks)(x), body.successor()(x)
    fits = allowed(step, predecessors, successors, np.asarray(x, "float64"), **options)
    return plain, small, mixed, fits, int(body.iterations)


def allowed(step: Any, old: Any, new: Any, x: Any, rate: float, gates: str, **_: Any) -> bool:
    """Whether gates could have made this of x."""
    from itertools import product

    n = len(old)
    if gates == "mean":
        return near(step, mixture(x, old, new, [np.full(len(x), rate)] * n))
    values = (0.0, 1.0) if 0 < rate < 1 else (rate,)
    if gates == "batch":
        return any(
            near(step, mixture(x, old, new, [np.full(len(x), z) for z in zs])) for zs in product(values, repeat=n)
        )
    if gates == "sample":
        found = [mixture(x, old, new, [np.full(len(x), z) for z in zs]) for zs in product(values, repeat=n)]
        return all(any(near(row, other[i]) for other in found) for i, row in enumerate(step))
    if n > 1:
        return bool(np.isfinite(step).all())
    low, high = max(0.0, 2 * rate - 1), min(1.0, 2 * rate)  # the mean of both lies between the ends
    a, b = (mixture(x, old, new, [np.full(len(x), z)]) for z in (low, high))
    slack = 1e-5 + 1e-5 * np.abs(a).max()
    return bool(np.all((step >= np.minimum(a, b) - slack) & (step <= np.maximum(a, b) + slack)))


def near(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=2e-5 * max(1.0, np.abs(b).max())))


def mixture(x: Any, old: Any, new: Any, z: Any) -> np.ndarray:
    """X ← (1 − z) x F_p + z x F_s, module by module."""
    for W, V, gate in zip(old, new, z, strict=True):
        gate = gate[:, None]
        x = (1 - gate) * (x @ W.astype("float64")) + gate * (x @ V.astype("float64"))
    return x


def by_numpy(predecessors: Any, successors: Any, x: Any, **_: Any) -> tuple:
    one, ones = np.ones(len(x)), [np.ones(len(x))] * len(predecessors)
    marks = [one * (i % 2 == 0) for i in range(len(predecessors))]
    small = mixture(np.asarray(x, "float64"), predecessors, successors, ones)
    return small, small, mixture(np.asarray(x, "float64"), predecessors, successors, marks), True, 1


def at(schedule: Any, step: int) -> float:
    """The rate of a schedule at a step."""
    return schedule(step)


def line(start: float, end: float, steps: int, step: int) -> float:
    return start + (end - start) * min(1.0, step / steps)


def falling() -> st.SearchStrategy[dict[str, Any]]:
    """Rates from above to below."""
    return st.builds(
        lambda a, b, steps, step: {"start": max(a, b), "end": min(a, b), "steps": steps, "step": step},
        RATES,
        RATES,
        sizes(1, 50),
        sizes(0, 60),
    )


def weights_of_twin(layer: Any, x: Any) -> tuple:
    """Outputs of a layer and of its twin."""
    if isinstance(layer, np.ndarray):
        (layer,) = dense([layer])
    made = theseus.twin(layer)
    return layer(x), made(x)


def reported(replacement: Any, schedule: Any) -> float:
    """What the callback reports after the second epoch."""
    body = replacement
    if isinstance(replacement, float):
        body = ModuleReplacement([keras.layers.Dense(1)], [keras.layers.Dense(1)], rate=replacement)
    callback = theseus.ReplacementRate(body, None if schedule is None else by_epoch(schedule))
    logs: dict[str, float] = {}
    callback.on_epoch_begin(1, logs)
    callback.on_epoch_end(1, logs)
    return logs["replacement_rate"]


def by_epoch(schedule: Any) -> Any:
    """A function of the epoch, if it is a number that it starts from."""
    return (lambda epoch: min(1.0, schedule + epoch / 4)) if isinstance(schedule, float) else schedule


NO_RATE = tuple(map(always, (True, "0.5", None, np.nan, np.inf, -0.1, 1.1, 1j, [0.5], np.ones(2))))
NO_MODULES = tuple(map(always, (None, 3, "ab", [], [None], ["relu"], [3], [[]], [["relu"]], keras.layers.Dense)))

CASES = [
    Case(
        replaced,
        chains(),
        by_numpy,
        {
            "predecessors": NO_MODULES,
            "successors": (*NO_MODULES, always([keras.layers.Dense(1) for _ in range(9)])),
            "rate": NO_RATE,
            "gates": (*NO_OPTION, always(None)),
            "seed": NO_SEED,
        },
        of=("ModuleReplacement",),
        examples=8,
    ),
    Case(
        lambda start, steps, step: at(theseus.curriculum(start, steps), step),
        falling().map(lambda given: {name: given[name] for name in ("start", "steps", "step")}),
        lambda start, steps, step: line(start, 1.0, steps, step),
        {"start": NO_RATE, "steps": NO_COUNT},
        1e-6,
        name="curriculum",
        of=("curriculum",),
    ),
    Case(
        lambda start, end, steps, step: at(theseus.anti_curriculum(start, end, steps), step),
        falling(),
        line,
        {"start": NO_RATE, "end": NO_RATE, "steps": NO_COUNT},
        1e-6,
        name="anti_curriculum",
        of=("anti_curriculum",),
    ),
    Case(
        weights_of_twin,
        chains().map(lambda given: {"layer": given["predecessors"][0], "x": given["x"]}),
        lambda layer, x: (np.asarray(x, "float64") @ layer,) * 2,
        {"layer": (*NO_LAYER, always(keras.layers.Dense(1)))},
        of=("twin",),
        examples=5,
    ),
    Case(
        reported,
        st.fixed_dictionaries({"replacement": RATES, "schedule": st.none() | RATES}),
        lambda replacement, schedule: replacement if schedule is None else min(1.0, schedule + 0.25),
        {"replacement": (*NO_LAYER, always(keras.layers.Dense(1))), "schedule": tuple(map(always, (3, "x", [1])))},
        1e-6,
        of=("ReplacementRate",),
        examples=5,
    ),
]

EXEMPT = {"GATES": "words, of which all cases draw one"}
