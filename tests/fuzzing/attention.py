"""Cases of `lib.attention`: every weight of every pair in float64, and states token by token."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from keras import ops

from fuzzing.cases import (
    NO_COUNT,
    NO_MASK,
    NO_NUMBER,
    NO_OPTION,
    NO_SEED,
    NO_TENSOR,
    NOT_POSITIVE,
    NOT_SEEN,
    Case,
    always,
    deeper,
    flatter,
    longer,
    plus,
)
from fuzzing.values import FLOATS, arrays, masks, sizes
from lib import attention

MAPS = ("elu+1", "exp", "relu", "1+cos", "taylor")


@st.composite
def tokens(draw: st.DrawFn, *, scales: Any = (1.0, 0.0, 30.0), causal: bool | None = None) -> dict[str, Any]:
    """Queries, keys, values and a mask; what is masked may be NaN."""
    causal = draw(st.booleans()) if causal is None else causal
    batch, time, heads, dim, values = (draw(sizes(1, most)) for most in (2, 5, 2, 3, 3))
    keys = time if causal else draw(sizes(1, 5))
    dtype = draw(st.sampled_from(FLOATS))
    given = {"scales": scales, "dtypes": (dtype,)}
    q, k = draw(arrays((batch, time, heads, dim), **given)), draw(arrays((batch, keys, heads, dim), **given))
    v, mask = (
        draw(arrays((batch, keys, heads, values), scales=(1.0, 100.0), dtypes=(dtype,))),
        draw(masks(batch, keys)),
    )
    if mask is not None and draw(st.booleans()):
        k, v = (np.where(np.asarray(mask, bool)[..., None, None], x, np.nan).astype(x.dtype) for x in (k, v))
    return {"q": q, "k": k, "v": v, "mask": mask, "causal": causal}


def wide(*x: Any) -> tuple[np.ndarray, ...]:
    """float64, and 0 for what is masked."""
    return tuple(np.nan_to_num(np.asarray(y, "float64")) for y in x)


def which(q: Any, k: Any, mask: Any, causal: bool, attention_mask: Any = None) -> np.ndarray:
    """Which query sees which key, (batch, time, keys)."""
    seen = np.ones((len(q), q.shape[1], k.shape[1]), bool)
    seen &= True if mask is None else np.asarray(mask, bool)[:, None]
    seen &= True if attention_mask is None else np.asarray(attention_mask, bool)
    return np.tril(seen) if causal else seen


def weighed(log_weights: Any, seen: Any, v: Any) -> np.ndarray:
    """Means of values (batch, keys, heads, values) by weights that are given by their logarithms; 0 of nothing."""
    out = np.zeros((*log_weights.shape[:2], *v.shape[2:]))
    for b, i, h in np.ndindex(log_weights.shape[0], log_weights.shape[1], v.shape[2]):
        s = np.where(seen[b, i], log_weights[b, i, :, h], -np.inf)
        if s.max() > -np.inf:
            w = np.exp(s - s.max())
            out[b, i, h] = w @ v[b, :, h] / w.sum()
    return out


def softmax(
    q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: Any = None, attention_mask: Any = None, **_: Any
) -> np.ndarray:
    (q, k, v), scale = wide(q, k, v), 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    return weighed(scale * np.einsum("bihd,bjhd->bijh", q, k), which(q, k, mask, causal, attention_mask), v)


def double(q: Any, k: Any, v: Any, mask: Any) -> np.ndarray:
    """A softmax over features of queries, and one over the time of keys."""
    q, k, v = wide(q, k, v)
    Q = np.exp(q - q.max(-1, keepdims=True))
    Q /= Q.sum(-1, keepdims=True)
    logs = np.moveaxis(k, 3, 1)  # features as queries
    state = weighed(logs, which(logs, k, mask, False), v)
    return np.einsum("bihd,bdhe->bihe", Q, state)


def similarity(name: Any, q: Any, k: Any) -> np.ndarray:
    """sim(q, k) of all pairs, (batch, time, keys, heads).

    Attention applies a map in float32, where the directions of 1 + cos are a millionth shorter than 1, as its
    docstring says: two that are opposite have a weight, if a small one.
    """
    with np.errstate(over="ignore"):
        pairs = np.einsum("bihd,bjhd->bijh", q, k)
        if name is None:
            return pairs
        if name == "taylor":
            return 1 + pairs + pairs**2 / 2
        if name == "1+cos":
            sizes = np.einsum("bih,bjh->bijh", *(np.linalg.norm(x, axis=-1) for x in (q, k)))
            return 1 + (1 - 1e-6) ** 2 * pairs / np.where(sizes > 0, sizes, 1)
        phi = {
            "elu+1": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
            "exp": np.exp,
            "relu": lambda x: np.maximum(x, 0),
        }[name]
        return np.einsum("bihd,bjhd->bijh", phi(q), phi(k))


def of_pairs(weights: Any, v: Any, normalize: Any) -> np.ndarray:
    """Outputs of weights (batch, time, keys, heads)."""
    out, total = np.einsum("bijh,bjhe->bihe", weights, v), weights.sum(2)[..., None]
    if normalize == "sum":
        return out / np.where(total == 0, 1, total)
    return by_size(out) if normalize == "rms" else out


def by_size(out: Any) -> np.ndarray:
    size = np.sqrt(np.mean(out**2, axis=-1, keepdims=True))
    return out / np.where(size == 0, 1, size)


def linear(
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    causal: bool = True,
    feature_map: Any = "elu+1",
    normalize: Any = "sum",
    **_: Any,
) -> np.ndarray:
    q, k, v = wide(q, k, v)
    return of_pairs(similarity(feature_map, q, k) * which(q, k, mask, causal)[..., None], v, normalize)


def fading(
    q: Any, k: Any, v: Any, mask: Any, log_decay: Any, normalize: Any, beta: Any = None, **_: Any
) -> np.ndarray:
    """S ← γ S + k uᵀ token by token, where u is v, or β (v − Sᵀk)."""
    q, k, v = wide(q, k, v)
    out = np.zeros(v.shape)
    for b, h in np.ndindex(len(q), q.shape[2]):
        S = np.zeros((q.shape[-1], v.shape[-1]))
        for t in range(q.shape[1]):
            if mask is None or mask[b, t]:
                if log_decay is not None:
                    S = np.exp(np.float64(np.atleast_1d(log_decay[b, t, h])))[:, None] * S
                u = v[b, t, h] if beta is None else float(beta[b, t, h]) * (v[b, t, h] - k[b, t, h] @ S)
                S = S + np.outer(k[b, t, h], u)
            out[b, t, h] = q[b, t, h] @ S
    return by_size(out) if normalize == "rms" else out


def retained(decay: Any, **given: Any) -> np.ndarray:
    batch, time, heads, _ = given["q"].shape
    gamma = 1 - 2.0 ** (-5 - np.arange(heads)) if decay is None else np.broadcast_to(decay, (heads,))
    return fading(log_decay=np.broadcast_to(np.log(gamma), (batch, time, heads)), **given)


# --- arguments ----------------------------------------------------------------------------------------------------


@st.composite
def of_softmax(draw: st.DrawFn) -> dict[str, Any]:
    """Tokens with a scale, pairs that look at each other, and a kernel."""
    given = draw(tokens())
    pairs = draw(masks(len(given["q"]), given["q"].shape[1] * given["k"].shape[1]))
    pairs = None if pairs is None else pairs.reshape(len(given["q"]), given["q"].shape[1], given["k"].shape[1])
    scale = draw(st.sampled_from([None, 0.0, 0.5, -1.0]))
    return {**given, "attention_mask": pairs, "scale": scale, "fused": draw(st.booleans())}


@st.composite
def of_linear(draw: st.DrawFn, *, causal: bool | None = None) -> dict[str, Any]:
    """Tokens with a feature map and a normalization."""
    name = draw(st.sampled_from([*MAPS, None]))
    scales = (1.0, 0.0, 20.0) if name in ("elu+1", "exp", "relu") else (1.0, 0.0)
    given = draw(tokens(scales=scales, causal=causal))
    normalize = draw(st.sampled_from([None, "rms"] if name is None else ["sum", "sum", None]))
    if normalize is None and name in ("elu+1", "exp", "relu"):
        given = draw(tokens(scales=(1.0, 0.0), causal=causal))
    return {**given, "feature_map": name, "normalize": normalize, "chunk": draw(sizes(1, 4))}


@st.composite
def of_fading(draw: st.DrawFn, *, delta: bool = False) -> dict[str, Any]:
    """Causal tokens with gates, of which some forget all."""
    given = draw(tokens(scales=(1.0, 0.0), causal=True))
    del given["causal"]
    if delta:
        given["k"] = (
            given["k"] / np.maximum(1, np.sqrt((wide(given["k"])[0] ** 2).sum(-1, keepdims=True)))
        ).astype(given["k"].dtype)
    shape = given["q"].shape[: 3 if delta else draw(st.sampled_from([3, 4]))]
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    gate = -rng.exponential(size=shape) * draw(st.sampled_from([0.1, 1.0, 100.0, 1e5]))
    gate = np.where(rng.uniform(size=shape) < draw(st.sampled_from([0.0, 0.3])), -np.inf, gate).astype("float32")
    given["log_decay"] = draw(st.sampled_from([None, gate])) if delta else gate
    if delta:
        given["beta"] = rng.uniform(0, draw(st.sampled_from([1.0, 2.0])), shape).astype("float32")
    return {**given, "normalize": draw(st.sampled_from([None, "rms"])), "chunk": draw(sizes(1, 4))}


@st.composite
def of_retention(draw: st.DrawFn) -> dict[str, Any]:
    """Causal tokens with a decay."""
    given = draw(of_fading())
    del given["log_decay"]
    heads = given["q"].shape[2]
    return {**given, "decay": draw(st.sampled_from([None, 0.5, 1.0, [0.25] * heads]))}


def rounding(given: dict[str, Any]) -> float:
    """What the types make of weights and outputs, relative to the largest value."""
    of_type = float(ml_dtypes.finfo(given["v"].dtype).eps) * 4
    if given.get("feature_map") == "1+cos" and given.get("normalize") == "sum":
        of_type += 3e-7 / smallest_sum(given)
    if given.get("normalize") == "rms":
        return 1e-3 + 4 * of_type  # a sum may cancel before it is divided by its size
    q, k = wide(given["q"], given["k"])
    return of_type + 2e-5 + 1e-6 * np.abs(q).max() * np.abs(k).max()


def smallest_sum(given: dict[str, Any]) -> float:
    """The least that the weights 1 + cos of a query add up to, which is a difference of numbers near 1."""
    q, k, mask = given["q"], given["k"], given["mask"]
    if q.ndim == 3:  # one token
        q, k, mask = q[:, None], k[:, None], None if mask is None else np.asarray(mask)[:, None]
    q, k = wide(q, k)
    sums = (similarity("1+cos", q, k) * which(q, k, mask, given.get("causal", True))[..., None]).sum(2)
    return float(sums[sums > 0].min(initial=1.0))


def in_parts(t: Any, **given: Any) -> Any:
    """A prompt, then token by token."""
    given = {name: x for name, x in given.items() if name != "causal"}
    options = {name: given.pop(name) for name in ("feature_map", "normalize")}
    chunk = given.pop("chunk")
    part = {name: None if x is None else x[:, :t] for name, x in given.items()}
    out, state = attention.prefill(**part, **options, chunk=chunk)
    assert isinstance(state, attention.State)
    found = [out]
    for i in range(t, given["q"].shape[1]):
        part = {name: None if x is None else x[:, i] for name, x in given.items()}
        out, state = attention.recurrent_step(state=state, **part, **options)
        found.append(out[:, None])
    return ops.concatenate(found, axis=1)


def parts(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """With the length of the prompt."""
    return strategy.flatmap(
        lambda given: st.builds(lambda t: {**given, "t": t}, st.integers(1, given["q"].shape[1]))
    )


def through_cache(t: Any, capacity: Any, **given: Any) -> Any:
    """A prompt into a cache, then token by token."""
    room = given["q"].shape[1] if capacity == "enough" else capacity
    del given["causal"]
    part = {name: None if x is None else x[:, :t] for name, x in given.items() if name != "scale"}
    out, cache = attention.cached_attention(**part, capacity=room, scale=given["scale"])
    assert isinstance(cache, attention.Cache)
    found = [out]
    for i in range(t, given["q"].shape[1]):
        part = {name: None if x is None else x[:, i] for name, x in given.items() if name != "scale"}
        out, cache = attention.cached_step(**part, cache=cache, scale=given["scale"])
        found.append(out[:, None])
    return ops.concatenate(found, axis=1)


def cached() -> st.SearchStrategy:
    """Causal tokens, a scale and a room."""
    strategy = st.builds(
        lambda given, scale, room: {**given, "scale": scale, "capacity": room},
        tokens(causal=True),
        st.sampled_from([None, 0.5]),
        st.sampled_from([None, "enough"]),
    )
    return parts(strategy)


def step_alone(function: Any) -> Any:
    """A single token, the first, and what is said of its state."""

    def step(**given: Any) -> Any:
        return function(**given)[0]

    return step


def first_tokens(strategy: st.SearchStrategy, *without: str) -> st.SearchStrategy:
    """The first token of a text alone."""

    def first(given: dict[str, Any]) -> dict[str, Any]:
        found = {name: x[:, 0] if isinstance(x, np.ndarray) else x for name, x in given.items()}
        return {name: x for name, x in found.items() if name not in without}

    return strategy.map(first)


def only_first(q: Any, k: Any, v: Any, mask: Any, **options: Any) -> np.ndarray:
    """The form of one token."""
    q, k, v = (x[:, None] for x in (q, k, v))
    return linear(q, k, v, None if mask is None else mask[:, None], True, **options)[:, 0]


def only_first_softmax(q: Any, k: Any, v: Any, mask: Any, scale: Any) -> np.ndarray:
    q, k, v = (x[:, None] for x in (q, k, v))
    return softmax(q, k, v, None if mask is None else mask[:, None], True, scale)[:, 0]


@st.composite
def turned(draw: st.DrawFn) -> dict[str, Any]:
    """Vectors and places."""
    batch, time, heads = draw(sizes(1, 2)), draw(sizes(1, 3)), draw(sizes(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    places = rng.integers(0, 1000, draw(st.sampled_from([(time,), (batch, time)])))
    return {
        "x": draw(arrays((batch, time, heads, 2 * draw(sizes(1, 2))), scales=(1.0, 100.0), dtypes=FLOATS)),
        "positions": places.astype(draw(st.sampled_from(["int32", "float32", "int64"]))),
        "max_wavelength": draw(st.sampled_from([10_000.0, 10.0])),
    }


def by_complex_numbers(x: Any, positions: Any, max_wavelength: float) -> np.ndarray:
    y = np.asarray(x, "float64")
    z = (y[..., 0::2] + 1j * y[..., 1::2]) * np.exp(
        1j
        * np.asarray(positions, "float64")[..., None, None]
        * max_wavelength ** (-np.arange(0, y.shape[-1], 2) / y.shape[-1])
    )
    return np.stack([z.real, z.imag], -1).reshape(y.shape)


def features(name: str) -> Any:
    """Products of the features of two vectors."""

    def products(x: Any, y: Any) -> Any:
        phi = getattr(attention, name)
        return ops.sum(phi(x) * phi(y), axis=-1)

    products.__name__ = name
    return products


def vectors() -> st.SearchStrategy:
    """Two vectors."""
    return st.tuples(sizes(1, 3), sizes(1, 3)).flatmap(
        lambda shape: st.fixed_dictionaries({name: arrays(shape, scales=(1.0, 0.0)) for name in ("x", "y")})
    )


def product_of(name: str) -> Any:
    def reference(x: Any, y: Any) -> np.ndarray:
        x, y = (np.asarray(z, "float64")[:, None, None] for z in (x, y))
        return similarity(name, x, y)[:, 0, 0, 0]

    return reference


def random(dim: Any, count: Any, seed: Any, orthogonal: Any) -> tuple:
    """How many features there are, and those of 0: all are 1/√count."""
    made = attention.random_features(dim, count, seed=seed, orthogonal=orthogonal)
    assert made.logarithmic
    found = ops.convert_to_numpy(made.apply(ops.zeros((1, dim))))
    return found.shape[-1], float(np.exp(2 * found.astype("float64")).sum())


# --- the layer ----------------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    """A layer of any form, and vectors with a mask."""
    form = draw(
        st.sampled_from(
            [
                "softmax",
                "fused softmax",
                "double softmax",
                "linear",
                "retention",
                "gated",
                "vector gated",
                "delta rule",
            ]
        )
    )
    causal = {
        "double softmax": False,
        "retention": True,
        "gated": True,
        "vector gated": True,
        "delta rule": True,
    }.get(form, draw(st.booleans()))
    batch, time, heads = draw(sizes(1, 2)), draw(sizes(1, 4)), draw(sizes(1, 2))
    return {
        "num_heads": heads,
        "form": form,
        "causal": causal,
        "x": draw(arrays((batch, time, 4), scales=(1.0,))),
        "mask": draw(masks(batch, time)),
        "seed": draw(st.integers(0, 2**16)),
    }


def deviations(x: Any, mask: Any, seed: Any, **options: Any) -> tuple:
    """How far a layer is from the definition with its own weights, and its generation from its outputs."""
    layer = attention.Attention(seed=seed, **options)
    layer.build(x.shape)
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(w.shape) / math.sqrt(w.shape[0]) for w in layer.get_weights()]
    layer.set_weights(weights)
    out = ops.convert_to_numpy(layer(x, mask=mask))
    by_hand = of_layer(layer, np.asarray(x, "float64"), mask, options)
    generated = 0.0
    if options["causal"]:
        t, found = 1, []
        y, progress = layer.prefill(x[:, :t], None if mask is None else mask[:, :t])
        assert isinstance(progress, attention.Progress)
        found.append(ops.convert_to_numpy(y))
        for i in range(t, x.shape[1]):
            y, progress = layer.step(x[:, i], progress, None if mask is None else mask[:, i])
            found.append(ops.convert_to_numpy(y)[:, None])
        generated = np.abs(np.concatenate(found, 1) - out).max()
    return np.abs(out - by_hand).max(), generated


def of_layer(layer: Any, x: Any, mask: Any, options: Any) -> np.ndarray:
    """The form of the layer, from its weights."""

    def dense(name: str, y: Any) -> Any:
        W, b = (ops.convert_to_numpy(w).astype("float64") for w in getattr(layer, name).weights)
        return y @ W + b

    heads, form = options["num_heads"], options["form"]
    q, k, v = (dense(name, x).reshape(*x.shape[:2], heads, -1) for name in ("query", "key", "value"))
    root = q.shape[-1] ** 0.25
    if form == "delta rule":
        q, k = (y / np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-30) for y in (q, k))
    else:
        q, k = q / root, k / root
    given = {"q": q, "k": k, "v": v, "mask": mask}
    if form in ("softmax", "fused softmax"):
        out = softmax(causal=options["causal"], scale=1.0, **given)
    elif form == "double softmax":
        out = double(**given)
    elif form == "linear":
        out = linear(causal=options["causal"], **given)
    elif form == "retention":
        out = retained(None, normalize="rms", **given)
    elif form == "gated":
        out = fading(log_decay=-np.logaddexp(0, -dense("gate", x)), normalize="rms", **given)
    elif form == "vector gated":
        numbers = dense("gate", dense("narrow", x)).reshape(q.shape)
        out = fading(log_decay=-np.logaddexp(0, -numbers) / 16, normalize="rms", **given)
    else:
        out = fading(log_decay=None, beta=1 / (1 + np.exp(-dense("rate", x))), normalize="rms", **given)
    return dense("project", out.reshape(*x.shape[:2], -1))


# --- cases --------------------------------------------------------------------------------------------------------


def whole_numbers(x: Any) -> Any:
    """Integers."""
    return np.ones(np.shape(x), "int32")


NO_TOKENS = (*NO_TENSOR, flatter, deeper, whole_numbers)
TOKENS = {
    "q": NO_TOKENS,
    "k": (*NO_TOKENS, longer(0), longer(2), longer(3)),
    "v": (*NO_TOKENS, longer(0), longer(1), longer(2)),
    "mask": (*NO_MASK, longer(1), longer(0)),
}
TOKEN = {name: tuple(w for w in ways if w.__name__ not in ("longer along 3",)) for name, ways in TOKENS.items()}
TOKEN["mask"] = tuple(w for w in TOKEN["mask"] if w.__name__ != "longer along 1")
TOKEN["v"] = tuple(w for w in TOKEN["v"] if w.__name__ != "longer along 2")
FORM = {
    "feature_map": tuple(
        map(always, ("nonsense", 3, True, [1.0], lambda x: x[:0], lambda x: x[..., None], lambda x: x[..., 0]))
    ),
    "normalize": NO_OPTION,
    "chunk": NO_COUNT,
}
NORMALIZE = {"normalize": (*NO_OPTION, always("sum")), "chunk": NO_COUNT}
GATE = (*NO_TENSOR[1:], flatter, deeper, longer(1), longer(2), plus(1e9))
NO_DECAY = tuple(
    map(always, ("0.5", True, 0.0, -0.5, 1.5, np.nan, np.inf, 1j, [0.5] * 9, [[0.5], [0.5, 0.5]], [[0.5]]))
)
SCALE = {"scale": tuple(w for w in NO_NUMBER if w.__name__ != "None")}
CAPACITY = tuple(w for w in NO_COUNT if w.__name__ != "None")


def all_seen(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """With a mask that leaves nothing out, and no NaN."""
    return strategy.map(
        lambda given: {**given, "mask": np.ones(given["q"].shape[:2], bool), "k": given["q"], "v": given["q"]}
    )


def causal_tokens(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """Without the word that says so."""
    return strategy.map(lambda given: {name: x for name, x in given.items() if name not in ("causal", "chunk")})


CASES = [
    Case(
        attention.softmax_attention,
        of_softmax(),
        softmax,
        {**TOKENS, **SCALE, "attention_mask": (*NO_MASK, longer(1), longer(2))},
        rounding,
    ),
    Case(
        attention.double_softmax_attention,
        tokens(causal=False).map(lambda given: {name: given[name] for name in ("q", "k", "v", "mask")}),
        double,
        TOKENS,
        rounding,
    ),
    Case(
        attention.linear_attention,
        of_linear(),
        linear,
        {**TOKENS, **FORM},
        rounding,
        of=("linear_attention", "FEATURE_MAPS"),
    ),
    Case(
        attention.recurrent_attention,
        causal_tokens(of_linear(causal=True)),
        linear,
        {**TOKENS, **{name: FORM[name] for name in ("feature_map", "normalize")}},
        rounding,
        examples=10,
    ),
    Case(
        attention.cumulative_attention,
        causal_tokens(of_linear(causal=True)).map(
            lambda g: {**g, "q": np.clip(g["q"], -9, 9), "k": np.clip(g["k"], -9, 9)}
        ),
        linear,
        {**TOKENS, **{name: FORM[name] for name in ("feature_map", "normalize")}},
        rounding,
    ),
    Case(attention.retention, of_retention(), retained, {**TOKENS, **NORMALIZE, "decay": NO_DECAY}, rounding),
    Case(
        attention.gated_attention,
        of_fading(),
        fading,
        {**TOKENS, **NORMALIZE, "log_decay": (*(way for way in GATE if way is not deeper), always(None))},
        rounding,
        all_seen(of_fading()),
    ),
    Case(
        attention.delta_rule,
        of_fading(delta=True),
        fading,
        {**TOKENS, **NORMALIZE, "log_decay": GATE, "beta": (*GATE, always(None), plus(9), plus(-9))},
        rounding,
        spoilt=all_seen(of_fading(delta=True)),
    ),
    Case(
        in_parts,
        parts(of_linear(causal=True)),
        lambda t, **given: linear(**given),  # noqa: ARG005
        {},
        rounding,
        of=("prefill", "recurrent_step", "State"),
    ),
    Case(
        in_parts,
        parts(of_fading(delta=True)).map(lambda given: {**given, "feature_map": None}),
        lambda t, feature_map, **given: fading(**given),  # noqa: ARG005
        {},
        rounding,
        name="parts of fading",
        of=("prefill", "recurrent_step"),
    ),
    Case(
        step_alone(attention.recurrent_step),
        first_tokens(of_linear(causal=True), "causal", "chunk"),
        only_first,
        {
            **TOKEN,
            "feature_map": FORM["feature_map"],
            "normalize": NO_OPTION,
            "state": tuple(map(always, (3, "x", (1, 2)))),
        },
        rounding,
        name="recurrent_step",
        of=("recurrent_step",),
        examples=10,
    ),
    Case(
        step_alone(attention.prefill),
        of_linear(causal=True).map(lambda given: {name: x for name, x in given.items() if name != "causal"}),
        linear,
        {**TOKENS, **FORM, "state": tuple(map(always, (3, "x", (1, 2))))},
        rounding,
        name="prefill",
        of=("prefill",),
        examples=10,
    ),
    Case(
        through_cache,
        cached(),
        lambda t, capacity, **given: softmax(**given),  # noqa: ARG005
        {"capacity": CAPACITY},
        rounding,
        of=("cached_attention", "cached_step", "Cache"),
    ),
    Case(
        step_alone(attention.cached_step),
        first_tokens(cached(), "causal", "t", "capacity"),
        only_first_softmax,
        {**TOKEN, **SCALE, "cache": tuple(map(always, (3, "x", (1, 2)))), "capacity": CAPACITY},
        rounding,
        name="cached_step",
        of=("cached_step",),
        examples=10,
    ),
    Case(
        step_alone(attention.cached_attention),
        cached().map(
            lambda given: {name: x for name, x in given.items() if name not in ("t", "causal", "capacity")}
        ),
        lambda **given: softmax(causal=True, **given),
        {**TOKENS, **SCALE, "cache": tuple(map(always, (3, "x", (1, 2)))), "capacity": CAPACITY},
        rounding,
        name="cached_attention",
        of=("cached_attention",),
        examples=10,
    ),
    Case(
        attention.rotate,
        turned(),
        by_complex_numbers,
        {
            "x": (*NO_TOKENS, longer(3)),
            "positions": (*NO_TENSOR, longer(0), always(np.zeros((1, 1, 1)))),
            "max_wavelength": NOT_POSITIVE,
        },
        lambda given: (
            float(ml_dtypes.finfo(given["x"].dtype).eps) * 2 + 2e-4
        ),  # an angle of 1000 in single precision
    ),
    *(
        Case(features(name), vectors(), product_of(of), {"x": (*NO_TENSOR, *scalar)}, 1e-5)
        for name, of, scalar in (
            ("elu_plus_one", "elu+1", ()),
            ("one_plus_cosine", "1+cos", (always(1.0),)),
            ("taylor", "taylor", (always(1.0),)),
        )
    ),
    Case(
        random,
        st.fixed_dictionaries(
            {"dim": sizes(1, 4), "count": sizes(1, 6), "seed": st.integers(0, 99), "orthogonal": st.booleans()}
        ),
        lambda dim, count, seed, orthogonal: (count, 1.0),  # noqa: ARG005
        {"dim": NO_COUNT, "count": NO_COUNT, "seed": NO_SEED[:4]},
        1e-5,
        of=("random_features", "FeatureMap"),
    ),
    Case(
        deviations,
        layers(),
        lambda **_: (0.0, 0.0),
        {
            "num_heads": (*NO_COUNT, always(3)),
            "form": (*NO_OPTION, always(None)),
            "mask": (*(w for w in NO_MASK if w not in NOT_SEEN), longer(1)),
            "seed": NO_SEED,
            "key_dim": CAPACITY,
            "value_dim": CAPACITY,
            "output_shape": (*(w for w in CAPACITY if w.__name__ != "[1]"), always([]), always((2, 0))),
            "num_key_value_heads": (*CAPACITY, always(3)),
            "dropout": (*NO_NUMBER, always(-0.5), always(1.0)),
            "chunk": NO_COUNT,
            "normalize": NO_OPTION,
            "feature_map": FORM["feature_map"][:3],
        },
        5e-4,
        of=("Attention", "Progress"),
        examples=10,
    ),
]

EXEMPT: dict[str, str] = {}
