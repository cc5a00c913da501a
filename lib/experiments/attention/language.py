"""Language: the characters of Moby Dick, predicted by decoders that differ in their attention only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from lib.experiments.attention.decoder import decoder
from lib.experiments.training import train
from lib.workbench import corpora

Row = dict[str, Any]


class Novel(NamedTuple):
    """Moby Dick as ids, cut by position.

    Attributes:
        alphabet: the characters, in the order of their ids.
        train: the first nine tenths.
        dev: the next twentieth.
        test: the last one.
    """

    alphabet: str
    train: NDArray[np.int32]
    dev: NDArray[np.int32]
    test: NDArray[np.int32]


@lru_cache
def novel() -> Novel:
    r"""The novel, read once.

    Raises:
        CorpusError: the committed file is missing or damaged.

    Example:
        >>> len(novel().alphabet), len(novel().test)
        (83, 59516)
        >>> "".join(novel().alphabet[i] for i in novel().train[:21])
        'CHAPTER 1. Loomings.\n'
    """
    text = corpora.read("moby-dick", "data.txt").decode()
    alphabet = "".join(sorted(set(text)))
    place = {character: i for i, character in enumerate(alphabet)}
    ids = np.array([place[character] for character in text], "int32")
    return Novel(alphabet, *np.split(ids, [len(ids) * 18 // 20, len(ids) * 19 // 20]))


def windows(ids: NDArray[np.int32], time: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """All stretches of so many characters, side by side, and what follows each character. The rest is left out.

    Raises:
        ValueError: the text is too short.

    Example:
        >>> x, y = windows(np.arange(8, dtype="int32"), 3)
        >>> x.tolist(), y.tolist()
        ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    count = (len(ids) - 1) // time
    if count < 1:
        raise ValueError(f"time must be below the length of the text, {len(ids)}, got {time}")
    return ids[: count * time].reshape(count, time), ids[1 : count * time + 1].reshape(count, time)


def bits(model: keras.Model, ids: NDArray[np.int32], time: int, batch: int = 16) -> NDArray[np.float64]:
    """What each character costs, in bits, (time,): the mean over :func:`windows`, by the place in the window.

    Args:
        model: ids (batch, time) → logits (batch, time, symbols).
        ids: the text.
        time: length of a window; a character sees those before it in its window only.
        batch: windows at once.

    Example:
        >>> uniform = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(8, 8, "zeros")])
        >>> bits(uniform, np.arange(8, dtype="int32"), time=4).tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    x, y = windows(ids, time)
    total = np.zeros(time)
    for i in range(0, len(x), batch):
        logits = np.asarray(model.predict_on_batch(x[i : i + batch]), "float64")
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, y[i : i + batch, :, None], axis=-1)[..., 0]
        total += np.sum(np.log(np.exp(logits).sum(axis=-1)) - chosen, axis=0)
    return total / len(x) / np.log(2)


def _passages(steps: int, time: int, batch: int, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Batches of stretches from random places of the training part."""
    text, rng = novel().train, np.random.default_rng(seed)
    for _ in range(steps):
        starts = rng.integers(0, len(text) - time, batch)
        passages = text[starts[:, None] + np.arange(time + 1)]
        yield passages[:, :-1], passages[:, 1:]


def language(
    form: str,
    seed: int,
    hidden: int,
    heads: int,
    layers: int,
    steps: int,
    rate: float,
    window: int = 256,
    batch: int = 8,
    part: str = "test",
) -> Row:
    """Trains a decoder on the novel and measures it on a part that it has not seen. One case of the record.

    Args:
        form: a name of :data:`lib.experiments.attention.decoder.FORMS`.
        seed: of weights and passages.
        hidden: width of a token's vector.
        heads: of each attention.
        layers: number of blocks.
        steps: of training.
        rate: largest learning rate.
        window: characters in a passage.
        batch: passages a step.
        part: "dev" or "test".

    Returns:
        ``bits`` a character; ``by_place``, the same for each of 16 stretches of the window; ``losses``, in bits, of
        each 50 steps of training; ``weights``, how many; ``seconds``.

    Example:
        >>> sizes = {"hidden": 8, "heads": 1, "layers": 1, "window": 64, "batch": 2}
        >>> row = language("linear", 0, steps=2, rate=1e-3, **sizes)
        >>> 0 < row["bits"] < 10
        True
    """
    start = time.perf_counter()
    model = decoder(form, len(novel().alphabet), hidden, heads, layers, seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = np.array(train(model, _passages(steps, window, batch, seed), steps, rate, loss)) / np.log(2)
    seconds = time.perf_counter() - start
    cost = bits(model, getattr(novel(), part), window)
    return {
        "bits": float(cost.mean()),
        "by_place": [float(stretch.mean()) for stretch in np.array_split(cost, 16)],
        "losses": [float(stretch.mean()) for stretch in np.array_split(losses, max(1, steps // 50))],
        "weights": model.count_params(),
        "seconds": seconds,
    }
