"""What a step costs: of training with and without replacement, and of the small network alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lib.bert import Block, SelfAttention
from lib.experiments.training import compiled
from lib.theseus import ModuleReplacement
from lib.workbench import measure

Row = dict[str, Any]

#: What is compared, each with the large network.
CONTESTANTS = ("small, alone", "replacement", "replacement by sample")


def costs(
    contestant: str,
    backward: bool,
    layers: int,
    small: int,
    hidden: int,
    heads: int,
    time: int,
    batch: int,
    rounds: int,
) -> Row:
    """The time of a step against that of the large network, the two in turns. One case of the record.

    Args:
        contestant: one of :data:`CONTESTANTS`; the second runs the chosen module only, the third one both.
        backward: whether it is a step of training, or one of prediction.
        layers: blocks of the large network.
        small: blocks of the small one; they divide ``layers``.
        hidden: width; ``heads`` divide it.
        heads: of the attention.
        time: tokens.
        batch: sentences.
        rounds: how often both are timed, at least 6.

    Returns:
        ``ratio``, the median of the rounds' quotients, with ``low`` and ``high`` of its 95 % interval; the median
        ``seconds`` of the contestant, and ``large_seconds``.

    Raises:
        ValueError: an unknown contestant.
    """
    if contestant not in CONTESTANTS:
        raise ValueError(f"contestant must be one of {', '.join(map(repr, CONTESTANTS))}, got {contestant!r}")
    keras.utils.set_random_seed(0)

    def blocks(count: int) -> list[keras.layers.Layer]:
        found = [Block(SelfAttention(heads), 4 * hidden) for _ in range(count)]
        for block in found:
            block.build((None, time, hidden))
        return found

    def replaced() -> list[keras.layers.Layer]:
        modules = [blocks(layers // small) for _ in range(small)]
        gates = "sample" if contestant == "replacement by sample" else "batch"
        return [ModuleReplacement(modules, blocks(small), rate=0.5, gates=gates, seed=0)]

    chains = {"large": blocks(layers), "other": blocks(small) if contestant == "small, alone" else replaced()}
    x = np.random.default_rng(0).standard_normal((batch, time, hidden)).astype("float32")
    race = measure.contest({name: _step(chain, x, backward) for name, chain in chains.items()}, repeats=rounds)
    ratio = race.ratio("other", "large")
    return {
        "ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "seconds": race["other"].median,
        "large_seconds": race["large"].median,
    }


def _step(chain: list[keras.layers.Layer], x: NDArray[np.float32], backward: bool) -> Callable[[], Any]:
    """A step of a network that classifies sentences of vectors."""
    model = keras.Sequential([*chain, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-5), loss, jit_compile=compiled())
    y = np.arange(len(x)) % 2
    return (lambda: model.train_on_batch(x, y)) if backward else (lambda: model.predict_on_batch(x))
