"""Recall: what a state of fixed size can hold, first written by a formula, then learnt by gradient descent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from lib.attention import delta_rule, gated_attention, linear_attention, retention
from lib.experiments.attention.decoder import decoder
from lib.experiments.training import train

Row = dict[str, Any]

#: Keys are 0 … KEYS − 1, values KEYS … 2·KEYS − 1, and the question mark comes after them.
KEYS = 64
#: Tokens of a text: one length, so that one shape is compiled.
LENGTH = 64
#: Numbers of pairs that are told; a batch has one of them.
PAIRS = (4, 8, 16, 32, 48)


# --- written by a formula ---------------------------------------------------------------------------------


def retrieval(dim: int, pairs: int, rule: str, trials: int, seed: int) -> Row:
    """Reads every value back from a state Σ k vᵀ of random unit keys and values.

    Args:
        dim: of keys and values.
        pairs: N, how many are written.
        rule: "sum", S ← S + k vᵀ, or "delta", S ← S + k (v − Sᵀk)ᵀ, both once through the pairs.
        trials: independent repetitions.
        seed: of the vectors.

    Returns:
        Of each trial the relative squared error, the mean of ‖Sᵀk − v‖² over the pairs (``errors``), and the share
        of pairs whose value is the nearest to what was read (``found``).

    Raises:
        ValueError: the rule is unknown.

    Example:
        >>> row = retrieval(dim=64, pairs=16, rule="sum", trials=20, seed=0)
        >>> bool(abs(np.mean(row["errors"]) - 15 / 64) < 0.05)
        True
    """
    if rule not in ("sum", "delta"):
        raise ValueError(f"rule must be 'sum' or 'delta', got {rule!r}")
    rng = np.random.default_rng(seed)
    errors, found = [], []
    for _ in range(trials):
        K, V = (_unit(rng.standard_normal((pairs, dim))) for _ in range(2))
        if rule == "sum":
            S = K.T @ V
        else:
            S = np.zeros((dim, dim))
            for k, v in zip(K, V, strict=True):
                S += np.outer(k, v - S.T @ k)
        read = K @ S
        errors.append(float(np.mean(np.sum((read - V) ** 2, axis=1))))
        found.append(float(np.mean(np.argmax(read @ V.T, axis=1) == np.arange(pairs))))
    return {"errors": errors, "found": found}


def error_by_age(dim: int, pairs: int, rule: str, trials: int, seed: int, decay: float = 0.95) -> NDArray:
    """How wrongly each pair is read, once all are written, by how many were written after it.

    Args:
        dim: of keys and values, which are random and of length 1.
        pairs: N, how many are written.
        rule: "sum" or "delta", as :func:`retrieval`, or "decay", S ← γ S + k vᵀ.
        trials: independent repetitions.
        seed: of the vectors.
        decay: γ.

    Returns:
        (pairs,), the mean squared error of the newest pair first.

    Raises:
        ValueError: the rule is unknown.

    Example:
        >>> error_by_age(16, 4, "delta", trials=10, seed=0).round(6).tolist()[0]
        0.0
    """
    if rule not in ("sum", "decay", "delta"):
        raise ValueError(f"rule must be 'sum', 'decay' or 'delta', got {rule!r}")
    rng = np.random.default_rng(seed)
    K, V = (_unit(rng.standard_normal((pairs, trials, dim))) for _ in range(2))
    S = np.zeros((trials, dim, dim))
    for k, v in zip(K, V, strict=True):
        S = decay * S if rule == "decay" else S
        u = v - np.einsum("tf,tfe->te", k, S) if rule == "delta" else v
        S = S + k[:, :, None] * u[:, None, :]
    read = np.einsum("ntf,tfe->nte", K, S)
    return np.mean(np.sum((read - V) ** 2, axis=-1), axis=1)[::-1]


def _unit(x: NDArray) -> NDArray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# --- the rules, and the library's forms of them -----------------------------------------------------------

#: How a state is rewritten, by what each token has: γ, one number or one a feature, and β.
RULES = ("sum", "decay", "gate", "vector gate", "delta rule", "gated delta rule")
#: γ of "decay".
DECAY = 0.9


class Tokens(NamedTuple):
    """Random tokens of one head.

    Attributes:
        q: queries, (time, dim).
        k: keys of length 1, likewise.
        v: values, likewise.
        gamma: γ of each token and feature, in (½, 1), (time, dim); a rule with one number takes the first.
        beta: β of each token, in (0, 1), (time,).
    """

    q: NDArray
    k: NDArray
    v: NDArray
    gamma: NDArray
    beta: NDArray


def random_tokens(time: int, dim: int, seed: int = 7) -> Tokens:
    """Standard normal queries and values, and gates to go with them.

    Example:
        >>> random_tokens(5, 4).gamma.shape
        (5, 4)
    """
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, time, dim))
    return Tokens(q, _unit(k), v, rng.uniform(0.5, 1, (time, dim)), rng.uniform(size=time))


def gates_of(rule: str, x: Tokens, t: int) -> dict[str, Any]:
    """γ and β of token t, as far as a rule has them: a number, or for a γ a feature a column (dim, 1).

    Raises:
        ValueError: the rule is unknown.

    Example:
        >>> gates_of("vector gate", random_tokens(5, 4), 0)["gamma"].shape
        (4, 1)
    """
    _require_rule(rule)
    gates = {}
    if rule == "vector gate":
        gates["gamma"] = x.gamma[t][:, None]
    elif rule != "sum" and rule != "delta rule":
        gates["gamma"] = DECAY if rule == "decay" else x.gamma[t, 0]
    return gates | ({"beta": x.beta[t]} if "delta" in rule else {})


def by_library(rule: str, x: Tokens) -> NDArray:
    """What all queries read under a rule, by the form of :mod:`lib.attention`, without denominators, (time, dim).

    Raises:
        ValueError: the rule is unknown.

    Example:
        >>> by_library("sum", random_tokens(5, 4)).shape
        (5, 4)
    """
    _require_rule(rule)
    q, k, v = (part[None, :, None].astype("float32") for part in x[:3])
    plain, log_gamma, beta = {"normalize": None}, np.log(x.gamma).astype("float32")[None, :, None], x.beta
    beta = beta.astype("float32")[None, :, None]
    out = {
        "sum": lambda: linear_attention(q, k, v, None, causal=True, **plain),
        "decay": lambda: retention(q, k, v, DECAY, **plain),
        "gate": lambda: gated_attention(q, k, v, log_gamma[..., 0], **plain),
        "vector gate": lambda: gated_attention(q, k, v, log_gamma, **plain),
        "delta rule": lambda: delta_rule(q, k, v, beta, **plain),
        "gated delta rule": lambda: delta_rule(q, k, v, beta, log_decay=log_gamma[..., 0], **plain),
    }[rule]()
    return keras.ops.convert_to_numpy(out)[0, :, 0]


def _require_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}")


# --- learnt -----------------------------------------------------------------------------------------------


def questions(pairs: int, batch: int, rng: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Texts of :data:`LENGTH` tokens: (k₁, v₁) … (k_N, v_N), then (q, ?) (q, ?) … with q among the keys told.

    Args:
        pairs: N; the fewer are told, the more is asked.
        batch: number of texts.
        rng: draws keys without and values with replacement, and the queries with replacement.

    Returns:
        The ids (batch, LENGTH, 2), and the value that each query asks for (batch, LENGTH − N).

    Raises:
        ValueError: no pair, or no room for a query.

    Example:
        >>> ids, values = questions(2, 1, np.random.default_rng(0))
        >>> pairs = dict(ids[0, :2].tolist())
        >>> [pairs[int(q)] for q, _ in ids[0, 2:]] == values[0].tolist()
        True
    """
    if not 1 <= pairs < LENGTH:
        raise ValueError(f"pairs must be from 1 to {LENGTH - 1}, got {pairs}")
    keys = rng.permuted(np.tile(np.arange(KEYS), (batch, 1)), axis=1)[:, :pairs]
    values = rng.integers(KEYS, 2 * KEYS, (batch, pairs))
    asked = rng.integers(pairs, size=(batch, LENGTH - pairs))
    queries, answers = (np.take_along_axis(x, asked, axis=1) for x in (keys, values))
    told, marks = np.stack([keys, values], axis=-1), np.full_like(queries, 2 * KEYS)
    texts = np.concatenate([told, np.stack([queries, marks], axis=-1)], axis=1)
    return texts.astype(np.int32), answers.astype(np.int32)


def recall_model(form: str, hidden: int, heads: int, layers: int, seed: int) -> keras.Model:
    """The decoder on the symbols of :func:`questions`.

    Args:
        form: a name of :data:`lib.experiments.attention.decoder.FORMS`.
        hidden: width.
        heads: of each attention.
        layers: number of blocks.
        seed: of the weights.

    Example:
        >>> model = recall_model("delta rule", hidden=16, heads=1, layers=1, seed=0)
        >>> model.output_shape
        (None, None, 129)
    """
    return decoder(form, 2 * KEYS + 1, hidden, heads, layers, seed, slots=2)


def accuracy(model: keras.Model, pairs: int, texts: int, seed: int) -> float:
    """The share of queries that a model answers rightly.

    Args:
        model: of :func:`recall_model`.
        pairs: of each text.
        texts: how many, a multiple of 32.
        seed: of the texts.

    Example:
        >>> 0 <= accuracy(recall_model("linear", 8, 1, 1, seed=0), pairs=4, texts=32, seed=0) <= 1
        True
    """
    ids, values = questions(pairs, texts, np.random.default_rng(seed))
    logits = np.concatenate([np.asarray(model.predict_on_batch(part)) for part in np.split(ids, texts // 32)])
    return float(np.mean(logits[:, pairs:].argmax(axis=-1) == values))


def answers_loss(targets: Any, logits: Any) -> Any:
    """The cross-entropy of the answers; targets (batch, LENGTH) are −1 where nothing is asked.

    Example:
        >>> float(answers_loss(np.array([[-1, 0]]), np.zeros((1, 2, 4), "float32"))) == float(np.log(np.float32(4)))
        True
    """
    asked = keras.ops.cast(keras.ops.convert_to_tensor(targets) >= 0, logits.dtype)
    losses = keras.losses.sparse_categorical_crossentropy(keras.ops.maximum(targets, 0), logits, from_logits=True)
    return keras.ops.sum(asked * losses) / keras.ops.sum(asked)


def _lessons(steps: int, batch: int, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Batches of texts and of the answers at their queries, each of one number of pairs."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        pairs = int(rng.choice(PAIRS))
        ids, values = questions(pairs, batch, rng)
        yield ids, np.pad(values, ((0, 0), (pairs, 0)), constant_values=-1)


def recall(
    form: str, seed: int, hidden: int, heads: int, steps: int, rate: float, layers: int = 1, batch: int = 64
) -> Row:
    """Trains a decoder to recall and asks it for values among few and many pairs. One case of the record.

    Args:
        form: a name of :data:`lib.experiments.attention.decoder.FORMS`.
        seed: of weights and texts.
        hidden: width of a token's vector; a state is (hidden / heads)² numbers a head.
        heads: of each attention.
        steps: of training.
        rate: largest learning rate.
        layers: number of blocks.
        batch: texts a step.

    Returns:
        ``accuracy``, by the numbers of pairs in ``pairs``; ``loss``, the mean of the last 50 steps; ``seconds``.

    Example:
        >>> row = recall("linear", 0, hidden=8, heads=1, steps=2, rate=1e-3, layers=1, batch=2)
        >>> len(row["accuracy"]) == len(row["pairs"])
        True
    """
    start = time.perf_counter()
    model = recall_model(form, hidden, heads, layers, seed)
    losses = train(model, _lessons(steps, batch, seed), steps, rate, loss=answers_loss)
    return {
        "pairs": list(PAIRS),
        "accuracy": [accuracy(model, pairs, 256, 1_000_000 + seed) for pairs in PAIRS],
        "loss": float(np.mean(losses[-50:])),
        "seconds": time.perf_counter() - start,
    }
