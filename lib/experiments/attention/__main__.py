"""The records of chapter 7: ``python -m lib.experiments.attention --scale cpu|gpu``.

Costs are recorded once for each backend, under its name: ``KERAS_BACKEND=torch python -m … --only times``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import keras

from lib.experiments.attention import costs
from lib.experiments.attention.alternatives import by_scale, glimpse, stand_ins
from lib.experiments.attention.decoder import FORMS, best_rate
from lib.experiments.attention.decoding import cases as decoding_cases
from lib.experiments.attention.decoding import decoding
from lib.experiments.attention.language import language
from lib.experiments.attention.recall import recall
from lib.experiments.attention.weights import random_error
from lib.workbench import records

CHAPTER = "07-attention"

#: What the language model is tried with. The second-order features of a head of 32 are 1057: too many for its size.
READERS = ("softmax", "linear", "no denominator", "decay", "delta rule")
#: What has a record of its own, and whose learning rate it takes: that of its nearest relative.
RIVALS = {"rotary softmax": "softmax", "vector gate": "decay"}
#: What learns to look up.
LEARNERS = [form for form in FORMS if form not in RIVALS]
RATES = {"cpu": (2e-3, 4e-3, 8e-3), "gpu": (3e-4, 1e-3, 3e-3)}


def _costs(name: str, function: Callable, cases: Sequence[dict], scale: str) -> records.Record:
    """A sweep of one backend. TensorFlow's records have the plain name."""
    if scale == "cpu":
        costs.one_thread()
    backend, called, command = keras.backend.backend(), name, None
    if backend != "tensorflow":
        called = f"{name}-{backend}"
        command = f"KERAS_BACKEND={backend} python -m lib.experiments.attention --scale {scale} --only {name}"
    return records.sweep(CHAPTER, called, function, cases, scale=scale, command=command)


def _times(scale: str) -> records.Record:
    """Seconds of a step of attention, forward and backward."""
    return _costs("times", costs.times, costs.cases(scale), scale)


def _memory(scale: str) -> records.Record:
    """The most bytes that such a step holds."""
    return _costs("memory", costs.memory, costs.memory_cases(scale), scale)


def _layers(scale: str) -> records.Record:
    """Seconds of a whole layer of a Transformer."""
    return _costs("layers", costs.layer_times, costs.layer_cases(scale), scale)


def _decoding(scale: str) -> records.Record:
    """Seconds and bytes of one more token."""
    return _costs("decoding", decoding, decoding_cases(scale), scale)


def _glimpse(scale: str) -> records.Record:
    """One query of a trained encoder: its weights by the softmax and by elu + 1."""
    return records.sweep(CHAPTER, "glimpse", glimpse, [{"layer": 2, "tokens": 64, "start": 0}], scale=scale)


def _stand_ins(scale: str) -> records.Record:
    """Other ways in place of a trained softmax, for stretches of a novel of several lengths."""
    starts = [20_000 + 90_000 * text for text in range({"cpu": 5, "gpu": 12}[scale])]
    cases = [
        {"tokens": tokens, "start": start, "ways": tokens == 256} for start in starts for tokens in (128, 256, 512)
    ]
    return records.sweep(CHAPTER, "stand-ins", stand_ins, cases, scale=scale)


def _by_scale(scale: str) -> records.Record:
    """Elu + 1 in place of a trained softmax, for queries and keys that are multiplied."""
    starts = [20_000 + 90_000 * text for text in range({"cpu": 5, "gpu": 12}[scale])]
    return records.sweep(
        CHAPTER, "by-scale", by_scale, [{"tokens": 256, "start": start} for start in starts], scale=scale
    )


def _variance(scale: str) -> records.Record:
    """How far random features are from the exponential, against the length of query and key."""
    trials = {"cpu": 400, "gpu": 4000}[scale]
    cases = [
        {"norm": norm, "orthogonal": orthogonal, "dim": 64, "features": 64, "trials": trials, "seed": 7}
        for orthogonal in (False, True)
        for norm in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
    ]
    return records.sweep(CHAPTER, "variance", random_error, cases, scale=scale)


def _learn(scale: str, name: str, forms: Sequence[str], rates: Sequence[float] = ()) -> records.Record:
    size = {
        "cpu": {"hidden": 64, "heads": 2, "steps": 600, "rates": (3e-3, 1e-2), "seeds": 3},
        "gpu": {"hidden": 64, "heads": 2, "steps": 4000, "rates": (1e-3, 3e-3, 1e-2), "seeds": 5},
    }[scale]
    cases = [
        {"form": form, "seed": seed, "rate": rate, **{key: size[key] for key in ("hidden", "heads", "steps")}}
        for seed in range(size["seeds"])
        for rate in rates or size["rates"]
        for form in forms
    ]
    return records.sweep(CHAPTER, name, recall, cases, scale=scale)


def _recall(scale: str) -> records.Record:
    """Decoders that learn to look up values, for two learning rates."""
    return _learn(scale, "recall", LEARNERS)


def _recall_gate(scale: str) -> records.Record:
    """The same with a gate for each feature, at the rate of its relative."""
    others = records.load(CHAPTER, "recall", scale) or _recall(scale)
    return _learn(scale, "recall-gate", ["vector gate"], [best_rate(others, RIVALS["vector gate"])])


_SIZE = {
    "cpu": {"hidden": 128, "heads": 4, "layers": 3, "batch": 8},
    "gpu": {"hidden": 256, "heads": 8, "layers": 6, "batch": 32},
}


def _rates(scale: str) -> records.Record:
    """Short trainings of the language model, to choose a learning rate for each form on the dev text."""
    steps = {"cpu": 300, "gpu": 2000}[scale]
    cases = [
        {"form": form, "seed": 100, "rate": rate, "steps": steps, "part": "dev", **_SIZE[scale]}
        for rate in RATES[scale]
        for form in READERS
    ]
    return records.sweep(CHAPTER, "rates", language, cases, scale=scale)


def _read(scale: str, name: str, forms: Sequence[str]) -> records.Record:
    """The language model with some forms, each at its rate or at that of its relative."""
    chosen = records.load(CHAPTER, "rates", scale) or _rates(scale)
    rates = {form: best_rate(chosen, RIVALS.get(form, form), "bits") for form in forms}
    size = {"cpu": {"steps": 1200, "seeds": 3}, "gpu": {"steps": 10_000, "seeds": 5}}[scale]
    cases = [
        {
            "form": form,
            "seed": seed,
            "rate": rates[form],
            "steps": size["steps"],
            **_SIZE[scale],
        }
        for seed in range(size["seeds"])
        for form in forms
    ]
    return records.sweep(CHAPTER, name, language, cases, scale=scale)


def _language(scale: str) -> records.Record:
    """The language model on Moby Dick, each form at the rate that was chosen for it."""
    return _read(scale, "language", READERS)


def _rotary(scale: str) -> records.Record:
    """The language model whose softmax is told positions by rotation."""
    return _read(scale, "rotary", ["rotary softmax"])


if __name__ == "__main__":
    sys.exit(
        records.main(
            CHAPTER,
            {
                "times": _times,
                "memory": _memory,
                "layers": _layers,
                "decoding": _decoding,
                "glimpse": _glimpse,
                "stand-ins": _stand_ins,
                "by-scale": _by_scale,
                "variance": _variance,
                "recall": _recall,
                "recall-gate": _recall_gate,
                "rates": _rates,
                "language": _language,
                "rotary": _rotary,
            },
        )
    )
