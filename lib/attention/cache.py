"""Generation with the softmax: the keys and values of all tokens so far are kept, and each new query asks them all.

A cache either grows by a place with each token; or it has room for a fixed number of tokens from the start, so that
all shapes are known and a compiled step is compiled once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._arguments import positive_integer
from .._tensors import checked_mask, guarded, or_nan, require_shape
from .arguments import of_rank, removed
from .functional import softmax_attention
from .tiling import padded

__all__ = ["Cache", "as_many_heads", "cached_attention", "cached_step"]

Tensor = Any


class Cache(NamedTuple):
    """What softmax attention must keep to go on.

    Attributes:
        k: Keys, (batch, room, heads, dim).
        v: Values, (batch, room, heads, values).
        seen: Places that queries look at, boolean, (batch, room); None for all.
        used: How many places are taken, an int32 scalar; None for all of them, and the cache grows.
    """

    k: Tensor
    v: Tensor
    seen: Tensor | None = None
    used: Tensor | None = None


def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: Cache | None = None,
    *,
    mask: Tensor | None = None,
    capacity: int | None = None,
    scale: float | None = None,
    fused: bool = False,
) -> tuple[Tensor, Cache]:
    """A stretch of tokens of causal softmax attention at once, and the cache from which the next ones go on.

    Args:
        q: Queries, (batch, time, heads, dim).
        k: Keys, (batch, time, heads, dim), or fewer heads, of which each serves several in a row of the queries.
        v: Values, (batch, time, heads, values), of as many heads as the keys.
        cache: Keys and values so far; None at the start.
        mask: Tokens that count, boolean, (batch, time). No later query looks at the others.
        capacity: At the start, room for how many tokens, those that do not count included; None for a cache that
            grows.
        scale: As in :func:`lib.attention.softmax_attention`.
        fused: As there; without a cache only.

    Returns:
        The outputs (batch, time, heads, values), and the cache. If the tokens do not fit into its room, all outputs
        are NaN from then on in code that is compiled by XLA, where no error can be raised.

    Raises:
        ValueError: A shape does not fit, or the room is full. A plain graph of TensorFlow raises
            ``InvalidArgumentError`` when it runs.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 9, 2, 4)).astype("float32")
        >>> whole = softmax_attention(x, x, x, causal=True)
        >>> _, cache = cached_attention(x[:, :7], x[:, :7], x[:, :7], capacity=16)
        >>> out, cache = cached_attention(x[:, 7:], x[:, 7:], x[:, 7:], cache)
        >>> bool(ops.max(ops.abs(out - whole[:, 7:])) < 1e-5), tuple(cache.k.shape), int(cache.used)
        (True, (1, 16, 2, 4), 9)
    """
    q, k, v = (of_rank(4, name, x) for name, x in (("q", q), ("k", k), ("v", v)))
    require_shape("k", k, (*q.shape[:2], None, q.shape[3]), to_fit="q")
    require_shape("v", v, (*k.shape[:3], None), to_fit="k")
    valid = None
    if mask is not None:
        mask, valid = checked_mask(mask, q.shape[:2], to_fit="q")
        k, v = removed(mask, k, v)
    if cache is None:
        wide = (as_many_heads(x, q.shape[2]) for x in (k, v))
        out = softmax_attention(q, *wide, causal=True, mask=mask, scale=scale, fused=fused)
        cache = _room(Cache(k, v, mask), capacity)
    else:
        before = _checked(cache, k, v, capacity)
        cache, fits = _appended(before, k, v, mask)
        wide = (as_many_heads(x, q.shape[2]) for x in (cache.k, cache.v))
        out = softmax_attention(q, *wide, attention_mask=_visible(before, cache, q), scale=scale)
        out = out if fits is None else ops.where(fits, out, math.nan)
    return out if valid is None else or_nan(out, valid), cache


def cached_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache: Cache | None = None,
    *,
    mask: Tensor | None = None,
    capacity: int | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Cache]:
    """One token of causal softmax attention: time and memory grow with the number of tokens so far, or the room.

    Args:
        q: The query, (batch, heads, dim).
        k: The key, (batch, heads, dim), or fewer heads, as in :func:`cached_attention`.
        v: The value, (batch, heads, values).
        cache: Keys and values so far; None at the start.
        mask: Rows for which the token counts, boolean, (batch,).
        capacity: As in :func:`cached_attention`.
        scale: As in :func:`lib.attention.softmax_attention`.

    Returns:
        The output (batch, heads, values), and the cache with one token more; as in :func:`cached_attention`.

    Raises:
        ValueError: As :func:`cached_attention`.

    Example:
        >>> x = np.ones((1, 2, 4), "float32")
        >>> _, cache = cached_step(x, x, x)
        >>> out, cache = cached_step(x, x, x, cache)
        >>> tuple(cache.k.shape)
        (1, 2, 2, 4)
    """
    q, k, v = (ops.expand_dims(of_rank(3, name, x), 1) for name, x in (("q", q), ("k", k), ("v", v)))
    valid = None
    if mask is not None:
        mask, valid = checked_mask(mask, q.shape[:1], to_fit="q")
        mask = mask[:, None]
    out, cache = cached_attention(q, k, v, cache, mask=mask, capacity=capacity, scale=scale)
    return out[:, 0] if valid is None else or_nan(out[:, 0], valid), cache


def as_many_heads(x: Tensor, heads: int) -> Tensor:
    """Keys or values in which each head stands several times in a row, so that there are as many as of queries.

    Args:
        x: (batch, time, fewer, dim).
        heads: Heads of the queries, a multiple of ``fewer``.

    Raises:
        ValueError: It is no multiple.

    Source: Ainslie et al. 2023 (arXiv 2305.13245), grouped queries.

    Example:
        >>> x = np.array([[[[1.0], [2.0]]]], "float32")
        >>> ops.convert_to_numpy(as_many_heads(x, 4)).ravel().tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    if heads % x.shape[-2]:
        raise ValueError(f"k must have a number of heads that divides the {heads} of q, got {x.shape[-2]}")
    return x if x.shape[-2] == heads else ops.repeat(x, heads // x.shape[-2], axis=-2)


def _room(cache: Cache, capacity: int | None) -> Cache:
    """The cache of the first tokens, with places behind them."""
    if capacity is None:
        return cache
    capacity, time = positive_integer("capacity", capacity), ops.shape(cache.k)[1]
    if isinstance(time, int) and time > capacity:
        raise ValueError(f"capacity must be at least {time}, the number of tokens, got {capacity}")
    if not isinstance(time, int):
        time = guarded(time, time <= capacity, "capacity must be enough for all tokens", lambda: time)
    parts = padded((cache.k, cache.v, _all_if_none(cache.seen, cache.k)), capacity - time)
    k, v, seen = (ops.reshape(x, (-1, capacity, *x.shape[2:])) for x in parts)  # of known size in a graph too
    return Cache(k, v, seen, ops.cast(time, "int32"))


def _checked(cache: Cache, k: Tensor, v: Tensor, capacity: int | None) -> Cache:
    if not isinstance(cache, Cache):
        raise ValueError(f"cache must be what was returned for the tokens before, a Cache, got {cache!r:.60}")
    require_shape("cache.k", cache.k, (k.shape[0], None, *k.shape[2:]), to_fit="k")
    require_shape("cache.v", cache.v, (v.shape[0], cache.k.shape[1], *v.shape[2:]), to_fit="v")
    if capacity is not None and (cache.used is None or capacity != cache.k.shape[1]):
        room = "grows" if cache.used is None else f"has room for {cache.k.shape[1]}"
        raise ValueError(f"capacity must be None with a cache, or its own; this one {room}, got {capacity!r}")
    return cache


def _appended(cache: Cache, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Cache, Tensor | None]:
    """The cache with the new tokens, and whether they fit; None if it grows."""
    if cache.used is None:
        seen = cache.seen
        if mask is not None or seen is not None:
            seen = ops.concatenate([_all_if_none(seen, cache.k), _all_if_none(mask, k)], axis=1)
        return Cache(*(ops.concatenate(x, axis=1) for x in ((cache.k, k), (cache.v, v))), seen), None
    capacity, used = cache.k.shape[1], cache.used + ops.shape(k)[1]
    fits = used <= capacity
    place = ops.minimum(cache.used, capacity - ops.shape(k)[1])
    place = guarded(
        place,
        fits,
        "capacity must be enough for all tokens",
        lambda: f"{int(used)} in a room for {capacity}",
    )
    new = (ops.cast(k, cache.k.dtype), ops.cast(v, cache.v.dtype), _all_if_none(mask, k))
    held = (cache.k, cache.v, cache.seen)
    written = (
        ops.slice_update(old, (0, place, 0, 0)[: len(old.shape)], x) for old, x in zip(held, new, strict=True)
    )
    return Cache(*written, used), fits


def _all_if_none(mask: Tensor | None, tokens: Tensor) -> Tensor:
    return ops.ones(ops.shape(tokens)[:2], "bool") if mask is None else mask


def _visible(before: Cache, cache: Cache, q: Tensor) -> Tensor | None:
    """Which places each query looks at: (batch, time, room), or None for all."""
    time = q.shape[1]
    seen = cache.seen
    if time == 1:
        return None if seen is None else seen[:, None]
    used = ops.shape(before.k)[1] if before.used is None else before.used
    past = ops.arange(ops.shape(cache.k)[1]) <= (used + ops.arange(ops.shape(q)[1]))[:, None]
    return ops.logical_and(past[None], _all_if_none(seen, cache.k)[:, None])
