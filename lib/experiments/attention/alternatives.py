"""The other ways out of n²: what each does to the attention of a trained encoder on a real text.

Each function takes the queries, keys and values of one head, (time, dim), already scaled so that the weights are
softmax(QKᵀ), and returns what the head would output if its attention were replaced, without training again. That is
how a method fares as an approximation. How it fares as a design, trained from the start, is another question.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.attention import linear_attention, random_features
from lib.bert import Encoder, word_pieces
from lib.workbench import corpora
from lib.workbench.measure import Estimate
from lib.workbench.records import Record

Array = NDArray[np.float64]


def heads(layers: tuple[int, ...], tokens: int, start: int = 0) -> list[tuple[Array, Array, Array]]:
    """Queries, keys and values of all heads of some layers of MiniLM, reading Moby Dick.

    Args:
        layers: of MiniLM's six, from 0.
        tokens: how many word pieces it reads at once, [CLS] and [SEP] included.
        start: the character of the novel at which it begins.

    Returns:
        One triple a head, (tokens, 32) each; queries are divided by √32.

    Raises:
        CorpusError: the weights cannot be had.

    Example:
        >>> len(heads((0, 5), tokens=64))  # doctest: +SKIP
        24
    """
    ids = np.array([_encoding(tokens, start).ids], "int32")
    encoder = _encoder()
    states = Encoder(encoder.embeddings, encoder.blocks, all_states=True)(ids)
    found = []
    for layer in layers:
        attention = encoder.blocks[layer].attention
        count = attention.num_heads
        q, k, v = (
            np.asarray(ops.convert_to_numpy(linear(states[layer])), "float64").reshape(tokens, count, -1)
            for linear in (attention.query, attention.key, attention.value)
        )
        found += [(q[:, h] / np.sqrt(q.shape[-1]), k[:, h], v[:, h]) for h in range(count)]
    return found


@lru_cache
def _encoder() -> Encoder:
    return Encoder.from_pretrained(corpora.member("minilm", "model.safetensors"), num_heads=12)


def _encoding(tokens: int, start: int) -> Any:
    text = corpora.read("moby-dick", "data.txt").decode()[start : start + 10 * tokens]
    return word_pieces(corpora.member("minilm", "tokenizer.json"), length=tokens).encode(text)


def exact(q: Array, k: Array, v: Array, seen: NDArray[np.bool_] | None = None) -> Array:
    """softmax(QKᵀ) V, over the pairs that ``seen`` (time, time) allows; 0 for a query that sees none.

    Example:
        >>> exact(np.zeros((1, 2)), np.zeros((2, 2)), np.array([[1.0], [3.0]])).tolist()
        [[2.0]]
    """
    return weights(q, k, seen) @ v


def weights(q: Array, k: Array, seen: NDArray[np.bool_] | None = None) -> Array:
    """softmax(QKᵀ), (queries, keys), over the pairs that ``seen`` allows.

    Example:
        >>> weights(np.zeros((1, 2)), np.zeros((2, 2))).tolist()
        [[0.5, 0.5]]
    """
    scores = q @ k.T
    W = np.exp(scores - scores.max(axis=1, keepdims=True))
    W = W if seen is None else np.where(seen, W, 0)
    sums = W.sum(axis=1, keepdims=True)
    return W / np.where(sums > 0, sums, 1)


def window(q: Array, k: Array, v: Array, width: int) -> Array:
    """A pattern made by hand: each token sees those within ``width``/2 of it, and the first token sees and is seen.

    Source: Beltagy et al. 2020 (arXiv 2004.05150); Child et al. 2019 (arXiv 1904.10509).

    Example:
        >>> x = np.eye(4)
        >>> bool(np.allclose(window(x, x, x, width=8), exact(x, x, x)))
        True
    """
    place = np.arange(len(q))
    seen = np.abs(place[:, None] - place) <= width / 2
    seen[0] = seen[:, 0] = True
    return exact(q, k, v, seen)


def hashing(q: Array, k: Array, v: Array, buckets: int, rounds: int, seed: int) -> Array:
    """Locality-sensitive hashing as in Reformer: a query sees the keys that fell into its bucket in some round.

    The bucket of x is the largest of the entries of [xR; −xR], R random. Reformer makes queries and keys equal; a
    trained encoder has them apart, so here both are hashed by their directions, and each token sees itself.

    Source: Kitaev et al. 2020 (arXiv 2001.04451), section 2.

    Example:
        >>> x = np.eye(4)
        >>> hashing(x, x, x, buckets=2, rounds=1, seed=0).shape
        (4, 4)
    """
    rng = np.random.default_rng(seed)
    seen = np.eye(len(q), dtype=bool)
    for _ in range(rounds):
        R = rng.standard_normal((q.shape[1], buckets // 2))
        mine, theirs = (np.argmax(np.concatenate([x @ R, -x @ R], axis=1), axis=1) for x in (q, k))
        seen |= mine[:, None] == theirs
    return exact(q, k, v, seen)


def best_rank(q: Array, k: Array, v: Array, size: int) -> Array:
    """The best matrix of rank ``size`` in place of the weights: no Linformer with so many rows can come nearer.

    A Linformer learns E and F, (size × time), and takes softmax(Q(EK)ᵀ) F V: a matrix of rank ``size`` times V. The
    nearest to the weights in the sum of squares is their singular value decomposition, cut (Eckart and Young).

    Source: Wang et al. 2020 (arXiv 2006.04768).

    Example:
        >>> x = np.eye(3)
        >>> bool(np.allclose(best_rank(x, x, x, size=3), exact(x, x, x)))
        True
    """
    U, s, Vt = np.linalg.svd(weights(q, k))
    return (U[:, :size] * s[:size]) @ (Vt[:size] @ v)


def needed_rank(q: Array, k: Array, v: Array, error: float) -> int:
    """The least ``size`` for which :func:`best_rank` errs by at most ``error``, relative to the output's length.

    Example:
        >>> x = np.eye(3)
        >>> needed_rank(x, x, x, error=0.0), needed_rank(x, x, x, error=1.0)
        (3, 0)
    """
    W = weights(q, k)
    squares, right = np.linalg.eigh(W.T @ W)
    parts = (np.maximum(squares, 0) * np.sum((right.T @ v) ** 2, axis=1))[::-1]  # orthogonal to one another
    left = np.append(np.cumsum(parts[::-1])[::-1], 0.0)  # what is missing without the parts from here on
    return int(np.argmax(left <= max(error**2, 1e-12) * left[0]))


def pooling(q: Array, k: Array, v: Array, size: int) -> Array:
    """Keys and values are the means of ``size`` neighbours, as in down-sampling encoders.

    Source: Dai et al. 2020, Funnel-Transformer (arXiv 2006.03236), which pools the queries between layers as well.

    Example:
        >>> x = np.ones((4, 2))
        >>> bool(np.allclose(pooling(x, x, x, size=2), exact(x, x, x)))
        True
    """
    cuts = range(0, len(k), size)
    return exact(q, *(np.stack([x[i : i + size].mean(axis=0) for i in cuts]) for x in (k, v)))


def features(q: Array, k: Array, v: Array, feature_map: object, scale: float | None = None) -> Array:
    """Linear attention in place of the softmax.

    Args:
        q: queries of one head, divided by √d.
        k: keys.
        v: values.
        feature_map: of ``linear_attention``.
        scale: what the queries and keys of the encoder are multiplied by; None for d^{-1/4}, with which a feature
            map that approximates the exponential sees what the softmax sees.

    Example:
        >>> x = np.full((3, 2), 0.1)
        >>> bool(np.allclose(features(x, x, x, "elu+1"), x, atol=1e-6))
        True
    """
    scale = q.shape[1] ** -0.25 if scale is None else scale
    q = q * np.sqrt(q.shape[1])  # as the encoder has them
    q, k, v = (x.astype("float32")[None, :, None] for x in (q * scale, k * scale, v))
    return np.asarray(ops.convert_to_numpy(linear_attention(q, k, v, feature_map))[0, :, 0], "float64")


#: Name → (function of q, k, v of one head, share of the n² pairs or, for features, of n·d² against n²·d).
WAYS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "sparse pattern, 64 wide": lambda q, k, v: window(q, k, v, width=64),
    "hashing, 4 rounds of 16": lambda q, k, v: hashing(q, k, v, buckets=16, rounds=4, seed=0),
    "best of rank 64": lambda q, k, v: best_rank(q, k, v, size=64),
    "pooling by 4": lambda q, k, v: pooling(q, k, v, size=4),
    "random features, 64": lambda q, k, v: features(q, k, v, random_features(q.shape[1], 64)),
    "second order": lambda q, k, v: features(q, k, v, "taylor"),
    "elu + 1": lambda q, k, v: features(q, k, v, "elu+1"),
    "mean of all values": lambda q, k, v: np.broadcast_to(v.mean(axis=0), v.shape),  # noqa: ARG005
}


def errors(way: str, sample: list[tuple[Array, Array, Array]]) -> Array:
    """The relative error ‖out − exact‖ / ‖exact‖ of each head, (heads,).

    Args:
        way: a name of :data:`WAYS`.
        sample: of :func:`heads`.

    Example:
        >>> x = np.eye(8)
        >>> errors("best of rank 64", [(x, x, x)]) < 1e-9
        array([ True])
    """
    found = []
    for q, k, v in sample:
        found.append(_relative(WAYS[way](q, k, v), exact(q, k, v)))
    return np.array(found)


def _relative(out: Array, target: Array) -> float:
    return float(np.linalg.norm(out - target) / np.linalg.norm(target))


def stand_ins(tokens: int, start: int, ways: bool, error: float = 0.1) -> dict[str, Any]:
    """What can stand in for the softmax of all 72 heads of MiniLM, reading one stretch of the novel. One case.

    Args:
        tokens: word pieces read at once.
        start: the character of the novel at which it begins.
        ways: whether to try :data:`WAYS`.
        error: of :func:`needed_rank`.

    Returns:
        ``needed``, the median over the heads of :func:`needed_rank`. With ``ways`` also ``median``, way to the
        median of its relative errors, and ``nearer``, the share of heads in which "elu + 1" is nearer than the mean
        of all values.

    Raises:
        CorpusError: the weights cannot be had.

    Example:
        >>> stand_ins(16, start=0, ways=False)["needed"] <= 16  # doctest: +SKIP
        True
    """
    sample = heads(tuple(range(6)), tokens, start)
    row = {"needed": float(np.median([needed_rank(*head, error) for head in sample]))}
    if not ways:
        return row
    found = {way: errors(way, sample) for way in WAYS}
    return row | {
        "median": {way: round(float(np.median(of_heads)), 4) for way, of_heads in found.items()},
        "nearer": float(np.mean(found["elu + 1"] < found["mean of all values"])),
    }


def by_scale(tokens: int, start: int, scales: tuple[float, ...] = (1.0, 2.0, 4.0)) -> dict[str, Any]:
    """How near "elu + 1" comes to the softmax of all 72 heads if queries and keys are multiplied. One case.

    Args:
        tokens: word pieces read at once.
        start: the character of the novel at which it begins.
        scales: what queries and keys of the encoder are multiplied by.

    Returns:
        ``mean``, the median error of the mean of all values; ``shared``, that of "elu + 1" for d^{-1/4};
        ``scaled``, one for each of ``scales``.

    Raises:
        CorpusError: the weights cannot be had.

    Example:
        >>> len(by_scale(16, start=0)["scaled"])  # doctest: +SKIP
        3
    """
    sample = heads(tuple(range(6)), tokens, start)

    def median(scale: float) -> float:
        return float(np.median([_relative(features(*head, "elu+1", scale), exact(*head)) for head in sample]))

    mean, shared = (float(np.median(errors(way, sample))) for way in ("mean of all values", "elu + 1"))
    return {"mean": mean, "shared": shared, "scaled": [median(scale) for scale in scales]}


def nearer(record: Record) -> dict[str, Estimate]:
    """By how much "elu + 1" is nearer to the softmax than the mean of all values, by what multiplies q and k.

    Args:
        record: of :func:`by_scale`.

    Example:
        >>> from lib.workbench.measure import device
        >>> rows = tuple({"mean": 0.9, "shared": 0.9, "scaled": [error, 0.7, 0.6]} for error in (0.7, 0.8))
        >>> round(nearer(Record(device(), {}, "2026-01-31", "", "cpu", rows))["as it is"].value, 3)
        0.15
    """
    mean, shared = (np.array(record.column(key)) for key in ("mean", "shared"))
    errors = [*np.array(record.column("scaled")).T, shared]
    names = ("as it is", "× 2", "× 4", "÷ d^¼")
    return {name: Estimate.from_samples(mean - of) for name, of in zip(names, errors, strict=True)}


def glimpse(layer: int, tokens: int, start: int) -> dict[str, Any]:
    """The sharpest query of a layer: its weights by the softmax, and those that elu + 1 gives it. One case.

    Args:
        layer: of MiniLM's six, from 0.
        tokens: word pieces read at once.
        start: the character of the novel at which it begins.

    Returns:
        ``pieces``, what was read; ``head`` and ``query``, whose largest weight is the largest on another word than
        its own and the marks at the ends; ``softmax`` and ``elu + 1``, its weights of all pieces.

    Raises:
        CorpusError: the weights cannot be had.

    Example:
        >>> sum(glimpse(2, 16, start=0)["softmax"])  # doctest: +SKIP
        1.0
    """
    pieces = _encoding(tokens, start).tokens
    sample = heads((layer,), tokens, start)
    maps = np.stack([weights(q, k) for q, k, _ in sample])
    words = [i for i, piece in enumerate(pieces) if piece.isalpha() and len(piece) > 3]
    inner = np.full_like(maps, -1.0)
    inner[np.ix_(range(len(maps)), words, words)] = maps[np.ix_(range(len(maps)), words, words)]
    inner[:, range(tokens), range(tokens)] = -1
    head, query, _ = np.unravel_index(inner.argmax(), inner.shape)
    q, k, _ = sample[head]
    whole = q[query] * np.sqrt(q.shape[1])  # as the encoder has it
    phi_q, phi_k = (np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))) for x in (whole, k))
    flat = phi_k @ phi_q / np.sum(phi_k @ phi_q)
    rounded = {"softmax": maps[head, query].round(5).tolist(), "elu + 1": flat.round(5).tolist()}
    return {"pieces": pieces, "head": int(head), "query": int(query), **rounded}
