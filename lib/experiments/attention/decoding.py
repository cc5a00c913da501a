"""One more token after n: a state of constant size against a cache of keys and values that grows.

    state                 S ← S + φ(k)vᵀ, out = φ(q)ᵀS / φ(q)ᵀz      ``lib.attention.recurrent_step``
    cache                 all keys and values, written in place       :func:`buffered_step`
    concatenated cache    the same, copied for each new token         ``lib.attention.cached_step``

Several tokens are generated in one compiled call, so that what a call costs is shared. Each is made from the output
for the one before, as in generating: none can begin early.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from lib.attention import Cache, cached_step, prefill, recurrent_step
from lib.experiments.attention.costs import timed
from lib.workbench import measure

Tensor = Any
Row = dict[str, Any]

WAYS = ("state", "cache", "concatenated cache")


class Buffer(NamedTuple):
    """Room for keys and values, (batch, heads, length, dim)."""

    k: Tensor
    v: Tensor


def buffered_step(buffer: Buffer, place: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Buffer]:
    """One token of causal softmax attention with a cache whose room was made before.

    ``lib.attention.cached_step`` is the definition. It concatenates, which copies all keys and values for each
    token, and it keeps them by time, so that a product with the keys of one head jumps. A contest that is fair to
    softmax needs a cache without either: it is written in place and kept by heads.

    Args:
        buffer: Keys and values of the tokens before ``place``; what stands behind is not looked at.
        place: Number of tokens so far, an integer or a tensor of one, less than the length.
        q: The query, (batch, heads, dim).
        k: The key, (batch, heads, dim).
        v: The value, (batch, heads, dim).

    Returns:
        The output (batch, heads, dim), and the buffer with one token more. The given one must not be used again.

    Example:
        >>> x = ops.ones((1, 2, 4))
        >>> out, _ = buffered_step(make_room(np.zeros((1, 2, 3, 4), "float32"), 5), 3, x, 2 * x, 8 * x)
        >>> round(float(out[0, 0, 0]), 3)  # 8 e⁴ / (e⁴ + 3)
        7.583
    """
    keys, values = _written(buffer.k, place, k), _written(buffer.v, place, v)
    scores = ops.einsum("bhd,bhtd->bht", q, keys) / math.sqrt(q.shape[-1])
    seen = ops.arange(keys.shape[2]) <= place
    weights = ops.softmax(ops.where(seen, scores, -1e30))
    return ops.einsum("bht,bhtd->bhd", weights, values), Buffer(keys, values)


def _written(room: Tensor, place: Any, row: Tensor) -> Tensor:
    """The room with a row (batch, heads, dim) at a place of axis 2, without a copy."""
    if keras.backend.backend() == "jax":  # in place when compiled, if the room was donated
        return import_module("jax").lax.dynamic_update_slice_in_dim(room, row[:, :, None], place, axis=2)
    if keras.backend.backend() == "torch":
        room[:, :, place] = row
        return room
    # A slice assigned to a tf.Variable would make every later read of the variable a copy.
    batch, heads, length, dim = room.shape
    rows = np.arange(batch * heads, dtype="int32") * length + place
    flat = import_module("tensorflow").raw_ops.InplaceUpdate(
        x=ops.reshape(room, (-1, dim)), i=rows, v=ops.reshape(row, (-1, dim))
    )
    return ops.reshape(flat, room.shape)


def make_room(known: np.ndarray, length: int, values: np.ndarray | None = None) -> Buffer:
    """A buffer that holds known keys and values and has room for more.

    Args:
        known: Keys, (batch, heads, time, dim).
        length: Tokens for which there is room, at least ``time``.
        values: As ``known``; None for the same numbers as the keys.

    Example:
        >>> make_room(np.zeros((1, 2, 3, 4), "float32"), 5).k.shape[2]
        5
    """

    def room(x: np.ndarray) -> Tensor:
        return ops.copy(ops.convert_to_tensor(np.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, 0)))))

    return Buffer(room(known), room(known if values is None else values))


def bytes_held(way: str, known: int, heads: int = 8, dim: int = 64, itemsize: int = 4) -> int:
    """Bytes that must be kept to go on after some tokens, for one sequence and one layer.

    Args:
        way: of :data:`WAYS`.
        known: tokens so far.
        heads: number of heads.
        dim: size of a key, of a value and of its features.
        itemsize: bytes of a number.

    Returns:
        heads · dim · (dim + 1) numbers for a state, S and z; 2 · known · heads · dim for a cache.

    Raises:
        ValueError: an unknown way.

    Example:
        >>> bytes_held("state", 10**6), bytes_held("cache", 128)
        (133120, 524288)
    """
    _require_way(way)
    return heads * dim * itemsize * (dim + 1 if way == "state" else 2 * known)


_FORM = {"feature_map": "elu+1", "normalize": "sum"}


def build(
    way: str, known: int, *, tokens: int = 16, heads: int = 8, dim: int = 64, batch: int = 1, seed: int = 0
) -> Callable[[], Any]:
    """A function that generates tokens after known ones, compiled; each call begins again after the known ones.

    The queries, keys and values are standard normal; to those of a token the output for the token before is added.

    Args:
        way: of :data:`WAYS`.
        known: tokens before, at least 1.
        tokens: how many are generated.
        heads: number of heads.
        dim: size of a head.
        batch: number of sequences.
        seed: of the numbers.

    Returns:
        A function of no arguments: the outputs (tokens, batch, heads, dim), and what is remembered after them.

    Raises:
        ValueError: an unknown way, or a number below 1.

    Example:
        >>> outputs, state = build("state", 8, tokens=2, heads=2, dim=4)()
        >>> tuple(outputs.shape), tuple(state.S.shape)
        ((2, 1, 2, 4), (1, 2, 4, 4))
    """
    _require_way(way)
    if known < 1 or tokens < 1:
        raise ValueError(f"known, tokens must be at least 1, got {known}, {tokens}")
    rng = np.random.default_rng(seed)
    k, v = rng.standard_normal((2, batch, known, heads, dim), dtype="float32")
    new = ops.convert_to_tensor(rng.standard_normal((tokens, 3, batch, heads, dim), dtype="float32"))
    if way == "state":
        with _without_gradient():
            memory = prefill(k, k, v, **_FORM)[1]
        return _generator(lambda memory, _, *token: recurrent_step(*token, memory, **_FORM), memory, new)
    if way == "concatenated cache":
        memory = Cache(ops.convert_to_tensor(k), ops.convert_to_tensor(v))
        return _generator(lambda memory, _, *token: cached_step(*token, memory), memory, new)
    memory = make_room(k.swapaxes(1, 2), known + tokens, v.swapaxes(1, 2))
    return _generator(lambda memory, i, *token: buffered_step(memory, known + i, *token), memory, new, owned=True)


def _generator(one: Callable[..., tuple[Tensor, Any]], memory: Any, new: Tensor, owned: bool = False) -> Callable:
    """Calls ``one(memory, i, q, k, v)`` for each new token i; ``owned`` memory is overwritten, else it is kept."""

    def generate(memory: Any, new: Tensor) -> tuple[Tensor, Any]:
        outputs, out = [], 0.0
        for i in range(new.shape[0]):
            out, memory = one(memory, i, *(new[i, part] + out for part in range(3)))
            outputs.append(out)
        return ops.stack(outputs), memory

    if keras.backend.backend() == "tensorflow":
        return partial(import_module("tensorflow").function(generate, autograph=False), memory, new)
    if keras.backend.backend() == "jax":
        jax = import_module("jax")
        if not owned:
            return partial(jax.jit(generate), memory, new)
        compiled = jax.jit(generate, donate_argnums=0)
        held = [memory]

        def run() -> tuple[Tensor, Any]:
            outputs, held[0] = compiled(held[0], new)
            return outputs, held[0]

        return run

    def run() -> tuple[Tensor, Any]:
        with _without_gradient():
            return generate(memory, new)

    return run


def _without_gradient() -> Any:
    """On torch nothing is kept for a backward pass; the others do so only when asked."""
    if keras.backend.backend() == "torch":
        return import_module("torch").no_grad()
    return import_module("contextlib").nullcontext()


def decoding(way: str, known: int, *, budget: float = 1.0, tokens: int = 16, **sizes: int) -> Row:
    """What one more token takes after some. One case of a sweep.

    Args:
        way: of :data:`WAYS`.
        known: tokens so far.
        budget: seconds to spend.
        tokens: generated in one call.
        **sizes: ``heads``, ``dim``, ``batch`` and ``seed`` of :func:`build`.

    Returns:
        "seconds" of a token, the median; "low" and "high", its 95 % interval; "repeats", calls; "bytes", see
        :func:`bytes_held`, times the batch. Or {"out_of_memory": True}.

    Raises:
        ValueError: as :func:`build`.

    Example:
        >>> decoding("state", 64, budget=0.01)["bytes"]
        133120
    """

    def measured() -> Row:
        row = timed(build(way, known, tokens=tokens, **sizes), budget)
        held = bytes_held(way, known, **{name: sizes[name] for name in ("heads", "dim") if name in sizes})
        per_token = {name: row[name] / tokens for name in ("seconds", "low", "high")}
        return {**per_token, "repeats": row["repeats"], "bytes": held * sizes.get("batch", 1)}

    return measure.attempt(measured) or {"out_of_memory": True}


def cases(scale: str) -> list[Row]:
    """The cases of :func:`decoding`: the ways take turns at each number of known tokens, 128 to 65536.

    Raises:
        ValueError: ``scale`` is neither "cpu" nor "gpu".

    Example:
        >>> len(cases("cpu")), cases("cpu")[-1]
        (18, {'known': 65536, 'way': 'concatenated cache'})
    """
    if scale not in measure.SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, measure.SCALES))}, got {scale!r}")
    return [{"known": 2**k, "way": way} for k in (7, 9, 11, 13, 15, 16) for way in WAYS]


def _require_way(way: str) -> None:
    if way not in WAYS:
        raise ValueError(f"way must be one of {', '.join(map(repr, WAYS))}, got {way!r}")
