"""Three small trainings, of a tagger, of linear attention and of recomputed layers, on whatever devices there are.

Nothing in here names a device: the page "Beyond one device" trains each on one and on several, and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lib.attention import Attention
from lib.crf import CRF
from lib.recompute import checkpoint_sequence
from lib.tagging import Tagger

Program = Callable[[], tuple[keras.Model, Any, Any]]


def tagger() -> tuple[keras.Model, Any, Any]:
    """A CRF that learns that tag 2 follows each tag 1: the model, words and tags."""
    words = np.random.default_rng(0).integers(1, 50, (256, 12))
    tags = (words < 10).astype(int)
    tags[:, 1:] = np.where(tags[:, :-1] == 1, 2, tags[:, 1:])
    encoder = keras.Sequential([keras.layers.Embedding(50, 16), keras.layers.Dense(3)])
    model = Tagger(encoder, CRF(3, boundaries=True, learning_rate_multiplier=10))
    model.compile(keras.optimizers.Adam(0.02))
    return model, words, tags


def attention() -> tuple[keras.Model, Any, Any]:
    """Linear attention that learns a text of period 7: the model, the text, and the same one step on."""
    text = np.tile(np.arange(7), (64, 6)) + np.arange(64)[:, None]
    text %= 7
    ids = keras.Input((41,), dtype="int32")
    x = keras.layers.Embedding(8, 32)(ids)
    model = keras.Model(ids, keras.layers.Dense(8)(x + Attention(4, "delta rule", causal=True)(x)))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, text[:, :-1], text[:, 1:]


def recompute() -> tuple[keras.Model, Any, Any]:
    """Sixteen layers that keep four inputs: the model, points, and their first coordinates."""
    x = np.random.default_rng(0).standard_normal((256, 64)).astype("float32")
    layers = [keras.layers.Dense(64, "gelu") for _ in range(16)]
    model = keras.Sequential([keras.Input((64,)), checkpoint_sequence(layers, 4), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    return model, x, x[:, :1]


PROGRAMS: dict[str, Program] = {"tagger": tagger, "attention": attention, "recompute": recompute}


def losses(program: str, seed: int = 0, epochs: int = 3) -> list[float]:
    """The loss after each epoch.

    Args:
        program: a name of :data:`PROGRAMS`.
        seed: of the weights.
        epochs: passes over the data, in batches of 32.

    Raises:
        ValueError: there is no program of that name.

    Example:
        >>> first, *_, last = losses("tagger")
        >>> last < first
        True
    """
    if program not in PROGRAMS:
        raise ValueError(f"program must be one of {', '.join(PROGRAMS)}, got {program!r}")
    keras.utils.set_random_seed(seed)
    model, x, y = PROGRAMS[program]()
    return model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0).history["loss"]
