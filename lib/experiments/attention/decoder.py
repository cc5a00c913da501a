"""The language model of chapter 7: one small decoder, whose attention is the only thing that changes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from lib.attention import Attention
from lib.workbench.records import Record

#: The attentions that are compared, all causal and, but for one small matrix, of equal size.
FORMS: dict[str, dict[str, Any]] = {
    "softmax": {"form": "softmax"},
    "linear": {"form": "linear"},
    "no denominator": {"form": "linear", "feature_map": None, "normalize": "rms"},
    "second order": {"form": "linear", "feature_map": "taylor"},
    "decay": {"form": "retention"},
    "delta rule": {"form": "delta rule"},
    "rotary softmax": {"form": "softmax", "rotary": True},
    "vector gate": {"form": "vector gated"},
}


def decoder(
    form: str, symbols: int, hidden: int, heads: int, layers: int, seed: int, slots: int | None = None
) -> keras.Model:
    """Ids (batch, time) → logits of the next symbol (batch, time, symbols).

    Nothing tells it positions but the causal mask and a convolution over a symbol and the three before it, which
    the later linear models all have. It lets a token carry what stood before it.

    Args:
        form: a name of :data:`FORMS`.
        symbols: number of ids.
        hidden: width of a token's vector; the feed-forward network is four times as wide.
        heads: of each attention; they divide ``hidden``.
        layers: number of blocks.
        seed: of all weights.
        slots: how many symbols a token holds, if more than one: ids are (batch, time, slots), and their vectors are
            added.

    Raises:
        ValueError: the form is unknown, or ``heads`` does not divide ``hidden``.

    Example:
        >>> model = decoder("linear", symbols=5, hidden=8, heads=2, layers=1, seed=0)
        >>> tuple(model(keras.ops.zeros((1, 6), "int32")).shape)
        (1, 6, 5)
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(map(repr, FORMS))}, got {form!r}")
    keras.utils.set_random_seed(seed)
    ids = keras.Input((None,) if slots is None else (None, slots), dtype="int32")
    x = keras.layers.Embedding(symbols, hidden, keras.initializers.RandomNormal(stddev=1.0))(ids)
    x = x if slots is None else keras.ops.sum(x, axis=2)
    x = x + keras.layers.DepthwiseConv1D(4, padding="valid", name="short")(keras.layers.ZeroPadding1D((3, 0))(x))
    for _ in range(layers):
        x = x + Attention(heads, causal=True, **FORMS[form])(keras.layers.LayerNormalization()(x))
        inner = keras.layers.Dense(4 * hidden, activation="gelu")(keras.layers.LayerNormalization()(x))
        x = x + keras.layers.Dense(hidden)(inner)
    x = keras.layers.LayerNormalization()(x)
    model = keras.Model(ids, keras.layers.Dense(symbols, name="logits")(x), name="decoder")
    for i, weight in enumerate(model.trainable_weights):
        if weight.name == "kernel" and len(weight.shape) == 2:  # BERT's 0.02 is for a width of 768: see chapter 2
            weight.assign(keras.initializers.LecunNormal(seed=1000 * seed + i)(weight.shape))
    return model


def best_rate(record: Record, form: str, key: str = "loss") -> float:
    """The learning rate at which a form did best: each form is judged at its own.

    Args:
        record: rows with ``form``, ``rate`` and ``key``.
        form: a name of :data:`FORMS`.
        key: what is to be small, on the mean of the seeds.

    Raises:
        ValueError: the record has no such form or key.

    Example:
        >>> from lib.workbench.measure import Device
        >>> rows = tuple({"form": "linear", "rate": rate, "loss": 1 / rate} for rate in (1e-3, 3e-3))
        >>> best_rate(Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", rows), "linear")
        0.003
    """
    rates = sorted(set(record.column("rate", form=form)))
    if not rates:
        raise ValueError(f"form must be one that was recorded, got {form!r}")
    return min(rates, key=lambda rate: np.mean(record.column(key, form=form, rate=rate)))
