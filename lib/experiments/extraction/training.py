"""How every model of chapter 6 is trained: batches of texts of like length, one schedule of the rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lib.workbench import measure

#: The lengths in tokens to which texts are padded, so that few shapes are compiled. Training leaves out the longer.
LENGTHS = (32, 48, 64, 96, 128)
LONGEST = 304


def padded_length(tokens: int) -> int:
    """The length that a text of so many tokens is padded to.

    Example:
        >>> padded_length(33), padded_length(300)
        (48, 304)
    """
    return next((length for length in LENGTHS if tokens <= length), LONGEST)


def by_length(lengths: Iterable[int]) -> dict[int, list[int]]:
    """The places of texts that are padded to one length, by that length.

    Example:
        >>> by_length([20, 50, 21])
        {32: [0, 2], 64: [1]}
    """
    places = defaultdict(list)
    for place, tokens in enumerate(lengths):
        places[padded_length(tokens)].append(place)
    return dict(places)


def batches(lengths: Sequence[int], batch: int, epochs: int, seed: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Which texts make up each step of a training run; texts of a batch are padded to one length.

    Args:
        lengths: of each text in tokens. Texts longer than the last of :data:`LENGTHS` are left out.
        batch: texts a step. What is left over of a length is left out for this epoch.
        epochs: passes.
        seed: of the order.

    Returns:
        The padded length and the places of the texts, step by step.

    Raises:
        ValueError: no step at all.

    Example:
        >>> [(length, len(texts)) for length, texts in batches([20, 50, 21, 22, 400], 2, epochs=1, seed=0)]
        [(32, 2)]
    """
    padded = np.array([padded_length(tokens) for tokens in lengths])
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(epochs):
        epoch = []
        for length in LENGTHS:
            texts = rng.permutation(np.flatnonzero(padded == length))
            epoch += [(length, texts[i : i + batch]) for i in range(0, len(texts) - batch + 1, batch)]
        steps += [epoch[i] for i in rng.permutation(len(epoch))]
    if not steps:
        raise ValueError(f"batch must be at most the number of texts of one length, got {batch}")
    return steps


def train(model: keras.Model, steps: Iterable[tuple[Any, Any]], count: int, rate: float) -> list[float]:
    """Trains a model by Adam; the rate rises over the first tenth of the steps and falls to zero along a cosine.

    Args:
        model: brings its own loss.
        steps: inputs and targets of each step.
        count: how many steps these are.
        rate: the largest learning rate.

    Returns:
        The loss of every step.

    Example:
        >>> from lib.extraction import Cascade
        >>> model = Cascade(keras.layers.Embedding(10, 8, mask_zero=True), predicates=1)
        >>> x = {"ids": np.array([[4, 7]]), "subject": np.array([[0, 1]])}
        >>> y = {"subjects": np.array([[[1, 1], [0, 0]]]), "objects": np.zeros((1, 2, 1, 2))}
        >>> losses = train(model, 20 * [(x, y)], 20, 0.1)
        >>> losses[-1] < losses[0]
        True
    """
    warmup = max(1, count // 10)
    schedule = keras.optimizers.schedules.CosineDecay(0.0, count - warmup, warmup_target=rate, warmup_steps=warmup)
    model.compile(keras.optimizers.Adam(schedule), jit_compile=compiled())
    return [float(model.train_on_batch(x, y)) for x, y in steps]


def compiled() -> bool:
    """Whether the backend's compiler pays: on JAX and on GPUs it does, on a CPU TensorFlow's graph is as fast.

    Example:
        >>> isinstance(compiled(), bool)
        True
    """
    return keras.backend.backend() == "jax" or measure.device().kind == "gpu"
