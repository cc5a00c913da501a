"""The records of chapter 7: ``python -m lib.experiments.attention --scale cpu|gpu``.

Costs are recorded once for each backend, under its name: ``KERAS_BACKEND=torch python -m … --only times``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import keras

from lib.experiments.attention import costs
from lib.experiments.attention.decoder import FORMS, best_rate
from lib.experiments.attention.decoding import cases as decoding_cases
from lib.experiments.attention.decoding import decoding
from lib.experiments.attention.language import language
from lib.experiments.attention.recall import recall
from lib.workbench import records

CHAPTER = "07-attention"

#: What the language model is tried with. The second-order features of a head of 32 are 1057: too many for its size.
READERS = [form for form in FORMS if form != "second order"]
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


def _recall(scale: str) -> records.Record:
    """Decoders that learn to look up values, for two learning rates."""
    size = {
        "cpu": {"hidden": 64, "heads": 2, "steps": 600, "rates": (3e-3, 1e-2), "seeds": 3},
        "gpu": {"hidden": 64, "heads": 2, "steps": 4000, "rates": (1e-3, 3e-3, 1e-2), "seeds": 5},
    }[scale]
    cases = [
        {"form": form, "seed": seed, "rate": rate, **{key: size[key] for key in ("hidden", "heads", "steps")}}
        for seed in range(size["seeds"])
        for rate in size["rates"]
        for form in FORMS
    ]
    return records.sweep(CHAPTER, "recall", recall, cases, scale=scale)


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


def _language(scale: str) -> records.Record:
    """The language model on Moby Dick, each form at the rate that was chosen for it."""
    chosen = records.load(CHAPTER, "rates", scale) or _rates(scale)
    rates = {form: best_rate(chosen, form, "bits") for form in READERS}
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
        for form in READERS
    ]
    return records.sweep(CHAPTER, "language", language, cases, scale=scale)


if __name__ == "__main__":
    sys.exit(
        records.main(
            CHAPTER,
            {
                "times": _times,
                "memory": _memory,
                "layers": _layers,
                "decoding": _decoding,
                "recall": _recall,
                "rates": _rates,
                "language": _language,
            },
        )
    )
