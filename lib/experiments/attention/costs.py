"""What attention costs: operations and bytes, derived and measured, alone and within a layer of a Transformer.

Derived are :func:`flops`, :func:`bytes_needed` and :func:`layer_flops`, functions of n. Measured are :func:`times`,
:func:`memory` and :func:`layer_times`, each one case of a sweep; their cases are in order of n, so that the
contestants take turns. Two measured curves are read by :func:`slope` and :func:`crossing_measured`.

A number of floating point operations counts a multiplication and an addition as two. Only products of matrices are
counted: exponentials, sums of rows and masks are left out, and so is the column of the denominator.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module, util
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.special import stdtrit

from lib.attention import (
    Attention,
    cumulative_attention,
    delta_rule,
    elu_plus_one,
    linear_attention,
    softmax_attention,
)
from lib.attention.chunkwise import CHUNK
from lib.attention.tiling import TILE
from lib.bert import Block
from lib.workbench import measure
from lib.workbench.measure import Estimate
from lib.workbench.records import Record

Tensor = Any
Row = dict[str, Any]

LIMIT = 6 * 2**30  # bytes that a step may need on a processor


# --- contestants ------------------------------------------------------------------------------------------


def _delta_rule(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The delta rule with β = ½; standard normal keys are brought to a length of about 1."""
    return delta_rule(q, k / math.sqrt(k.shape[-1]), v, ops.ones_like(k[..., 0]) / 2)


def _fla_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal linear attention by the Triton kernel of flash-linear-attention."""
    kernel = import_module("fla.ops.linear_attn").chunk_linear_attn
    return kernel(elu_plus_one(q), elu_plus_one(k), v, scale=1.0, normalize=True)[0]


#: Name to function of q, k, v, each (batch, time, heads, dim). "fused" is the kernel of the backend; TensorFlow has
#: none, nor has JAX for a processor: there it is the plain form in other words.
FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "softmax": softmax_attention,
    "fused softmax": partial(softmax_attention, fused=True),
    "linear": linear_attention,
    "causal softmax": partial(softmax_attention, causal=True),
    "causal fused softmax": partial(softmax_attention, causal=True, fused=True),
    "causal linear": partial(linear_attention, causal=True, chunk=CHUNK),
    "causal linear, all states": cumulative_attention,
    "delta rule": partial(_delta_rule),
}

#: Contestants from elsewhere, for which torch, a GPU and their own package are needed.
PEERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"fla linear (Triton)": _fla_linear}


def missing(form: str) -> str | None:
    """What a contestant lacks here, None if it can run.

    Raises:
        ValueError: no contestant has this name.

    Example:
        >>> missing("linear") is None
        True
    """
    if form in FORMS:
        return None
    if form not in PEERS:
        raise ValueError(f"form must be one of {', '.join(map(repr, FORMS | PEERS))}, got {form!r}")
    if keras.backend.backend() != "torch":
        return f"needs torch, the backend is {keras.backend.backend()}"
    if measure.device().kind != "gpu":
        return "needs a GPU"
    return None if util.find_spec("fla") else "flash-linear-attention is not installed"


# --- derived ----------------------------------------------------------------------------------------------


def flops(form: str, n: int, d: int, heads: int = 1, chunk: int = CHUNK) -> int:
    """Floating point operations of a forward pass, as a polynomial in n.

    A product (a × b)(b × c) takes 2abc. Each head has, with C tokens in a chunk::

        softmax, fused or not     QKᵀ 2n²d, times V 2n²d                                        4n²d
        causal softmax            the same: half of the scores are computed to be discarded     4n²d
        causal fused softmax      n(n + 1)/2 pairs are looked at; a kernel may do more          2n²d + 2nd
        linear                    φ(K)ᵀV 2nd², φ(Q) times it 2nd²                               4nd²
        causal linear             QS and KᵀV 4nd²; in chunks QKᵀ and times V 4nCd               4nd² + 4nCd
        …, all states             φ(k)vᵀ nd², their sum nd², φ(q)ᵀS 2nd²                        4nd²
        delta rule                KS, QS, KᵀU 6nd²; KKᵀ, QKᵀ, times U 6nCd; solving for U nCd   6nd² + 7nCd

    Args:
        form: a contestant; the peer "fla linear (Triton)" counts as "causal linear".
        n: tokens, at least 1.
        d: size of a query, a key and a value of a head; also the number of features.
        heads: number of heads.
        chunk: C; no chunk is longer than n.

    Raises:
        ValueError: an unknown form or a number below 1.

    Example:
        >>> flops("softmax", 512, 64) / flops("linear", 512, 64)  # n/d
        8.0
    """
    _require_positive(n=n, d=d, heads=heads, chunk=chunk)
    of_pairs, of_tokens = _coefficients(form, d, min(chunk, n))
    return heads * (of_pairs * n * n + of_tokens * n)


def _coefficients(form: str, d: int, C: int) -> tuple[int, int]:
    """Operations per n² and per n."""
    table = {
        "softmax": (4 * d, 0),
        "fused softmax": (4 * d, 0),
        "causal softmax": (4 * d, 0),
        "causal fused softmax": (2 * d, 2 * d),
        "linear": (0, 4 * d * d),
        "causal linear": (0, 4 * d * d + 4 * C * d),
        "causal linear, all states": (0, 4 * d * d),
        "delta rule": (0, 6 * d * d + 7 * C * d),
        "fla linear (Triton)": (0, 4 * d * d + 4 * C * d),
    }
    if form not in table:
        raise ValueError(f"form must be one of {', '.join(map(repr, table))}, got {form!r}")
    return table[form]


def bytes_needed(form: str, n: int, d: int, heads: int = 1, itemsize: int = 4) -> int:
    """Bytes beyond the inputs that a forward and backward pass holds, the largest parts only.

    The outputs and the gradients of Q, K and V are 4nd numbers, of the type of the inputs. The rest is float32::

        softmax, causal or not     the weights, their gradient, that of the scores        3n²
        fused softmax              the logarithm of the denominators                      n
        linear                     the state and its gradient                             2d²
        causal linear              a state for each tile of 256 tokens                 nd²/256
        …, all states              the states, their gradient, that of what is summed     3nd²
        delta rule                 a state for each chunk of 64 tokens                    nd²/64

    So all states take more than all scores when d² > n. A backend may need more than this for its temporaries.

    Args:
        form: as in :func:`flops`.
        n: tokens.
        d: as in :func:`flops`.
        heads: number of heads, times the batch.
        itemsize: bytes of a number of the inputs.

    Raises:
        ValueError: as :func:`flops`.

    Example:
        >>> bytes_needed("softmax", 4096, 64, heads=8) / 2**20  # 3 × 512 MiB of scores, 4 × 8 MiB of the rest
        1568.0
    """
    _require_positive(n=n, d=d, heads=heads, itemsize=itemsize)
    _coefficients(form, d, CHUNK)  # knows the names
    if "softmax" in form:
        inner = n if "fused" in form else 3 * n * n
    elif form == "linear":
        inner = 2 * d * d
    elif form == "causal linear, all states":
        inner = 3 * n * d * d
    else:
        inner = -(-n // (CHUNK if form == "delta rule" else TILE)) * d * d
    return heads * (4 * n * d * itemsize + 4 * inner)


def crossing(a: str, b: str, d: int, chunk: int = CHUNK) -> float | None:
    """The number of tokens at which two forms take the same number of operations.

    Args:
        a: a form, as in :func:`flops`.
        b: another one.
        d: as in :func:`flops`.
        chunk: as in :func:`flops`; more tokens than a chunk are assumed.

    Returns:
        n > 0, None if one form takes less for every n.

    Raises:
        ValueError: as :func:`flops`.

    Example:
        >>> crossing("softmax", "linear", 64), crossing("causal softmax", "causal linear", 64)
        (64.0, 128.0)
    """
    _require_positive(d=d, chunk=chunk)
    (a2, a1), (b2, b1) = _coefficients(a, d, chunk), _coefficients(b, d, chunk)
    if a2 == b2 or (b1 - a1) / (a2 - b2) <= 0:
        return None
    return (b1 - a1) / (a2 - b2)


def layer_flops(
    n: int, form: str = "softmax", *, heads: int = 12, dim: int = 64, features: int = 64, values: int | None = None
) -> int:
    """Floating point operations of a whole layer of a Transformer, forward, in the convention of article 8610.

    With the hidden size hd, in multiplications with an addition: the four projections take 4n(hd)², the
    feed-forward network with its inner size 4hd takes 8n(hd)², softmax attention 2n²hd, linear attention
    2nh · features · values. So the quadratic term is the share n/(6hd + n) of a layer: half at n = 6hd = 4608.

    Where the article has four times larger heads in the linear form, features *and* values are 4d, 2nh(4d)². The
    projections are left as they are.

    Args:
        n: tokens.
        form: "softmax" or "linear".
        heads: h.
        dim: d, of a head.
        features: of φ.
        values: size of a value in the linear form; None for ``dim``.

    Raises:
        ValueError: another form, or a number below 1.

    Source: Su Jianlin, https://kexue.fm/archives/8610.

    Example:
        >>> round(layer_flops(512) / layer_flops(512, "linear"), 3)
        1.096
        >>> round(layer_flops(512) / layer_flops(512, "linear", features=256, values=256), 3)
        0.909
    """
    values = dim if values is None else values
    _require_positive(n=n, heads=heads, dim=dim, features=features, values=values)
    if form not in ("softmax", "linear"):
        raise ValueError(f"form must be 'softmax' or 'linear', got {form!r}")
    attention = 2 * n * n * heads * dim if form == "softmax" else 2 * n * heads * features * values
    return 2 * (12 * n * (heads * dim) ** 2 + attention)


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}")


# --- a step that can be measured --------------------------------------------------------------------------


def compiled_step(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], upstream: Tensor | None = None
) -> Callable[[], list[Tensor]]:
    """Forward, and backward if there is a gradient to start from, compiled as the backend does by itself.

    That is a graph on TensorFlow, XLA on JAX, and nothing on torch.

    Args:
        function: of tensors, returns one.
        inputs: its arguments.
        upstream: the gradient of the output; None for the forward pass alone.

    Returns:
        A function of no arguments. It returns a list: the output, then the gradients by the inputs.

    Example:
        >>> x = ops.convert_to_tensor(np.array([3.0], "float32"))
        >>> [float(y[0]) for y in compiled_step(lambda x: x * x, [x], ops.ones_like(x))()]
        [9.0, 6.0]
    """
    inputs = list(inputs)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def step(inputs: list[Tensor], upstream: Tensor | None) -> list[Tensor]:
            if upstream is None:
                return [function(*inputs)]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(inputs)
                out = function(*inputs)
            return [out, *tape.gradient(out, inputs, output_gradients=upstream, unconnected_gradients="zero")]

        return partial(tf.function(step, autograph=False), inputs, upstream)
    if keras.backend.backend() == "jax":
        import jax

        def step(inputs: list[Tensor], upstream: Tensor | None) -> list[Tensor]:
            if upstream is None:
                return [function(*inputs)]
            out, pullback = jax.vjp(function, *inputs)
            return [out, *pullback(upstream)]

        return partial(jax.jit(step), inputs, upstream)
    import torch

    def step() -> list[Tensor]:
        with torch.set_grad_enabled(upstream is not None):
            leaves = [x.detach().requires_grad_(upstream is not None) for x in inputs]
            out = function(*leaves)
            if upstream is None:
                return [out]
            return [out.detach(), *torch.autograd.grad(out, leaves, upstream, materialize_grads=True)]

    return step


def build(
    form: str,
    n: int,
    heads: int = 8,
    dim: int = 64,
    batch: int = 1,
    dtype: str = "float32",
    backward: bool = True,
    seed: int = 0,
) -> Callable[[], list[Tensor]]:
    """A step of one contestant on standard normal inputs, to be timed or weighed.

    Args:
        form: of :data:`FORMS` or :data:`PEERS`.
        n: tokens.
        heads: number of heads.
        dim: size of a query, a key and a value.
        batch: number of sequences.
        dtype: of the inputs, such as "bfloat16".
        backward: whether to compute the gradients of queries, keys and values too.
        seed: of the inputs.

    Returns:
        A function of no arguments: the output, and with ``backward`` three gradients, (batch, n, heads, dim) each.

    Raises:
        ValueError: an unknown form, or one that :func:`missing` says cannot run here.

    Example:
        >>> [tuple(y.shape) for y in build("linear", n=5, heads=2, dim=4)()]
        [(1, 5, 2, 4), (1, 5, 2, 4), (1, 5, 2, 4), (1, 5, 2, 4)]
    """
    if reason := missing(form):
        raise ValueError(f"form: {form!r} {reason}")
    rng, shape = np.random.default_rng(seed), (batch, n, heads, dim)
    *inputs, upstream = (
        ops.cast(ops.convert_to_tensor(rng.standard_normal(shape, dtype="float32")), dtype) for _ in range(4)
    )
    return compiled_step((FORMS | PEERS)[form], inputs, upstream if backward else None)


# --- measured ---------------------------------------------------------------------------------------------


def one_thread() -> None:
    """Lets the backend, and the processes begun from here, use one thread: what is measured is a core.

    To be called before the first operation. JAX has no such switch within a process.

    Example:
        >>> one_thread()  # doctest: +SKIP
    """
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    os.environ.update(dict.fromkeys(names, "1"))
    if keras.backend.backend() == "tensorflow":
        threading = import_module("tensorflow").config.threading
        threading.set_intra_op_parallelism_threads(1)
        threading.set_inter_op_parallelism_threads(1)
    if keras.backend.backend() == "torch":
        import_module("torch").set_num_threads(1)


def timed(step: Callable[[], Any], budget: float = 1.0) -> Row:
    """Seconds of a step: after two calls to warm up, as many as fit into a budget, but at least 6 and at most 200.

    Args:
        step: of no arguments.
        budget: seconds.

    Returns:
        "seconds", the median; "low" and "high", its 95 % interval; "repeats".

    Example:
        >>> row = timed(lambda: sum(range(1000)), budget=0.01)
        >>> row["low"] <= row["seconds"] <= row["high"] and row["repeats"] >= 6
        True
    """
    once = _seconds_of_one(step)
    timing = measure.time_of(step, repeats=int(np.clip(budget / max(once, 1e-9), 6, 200)), warmup=0)
    low, high = measure.median_interval(timing.samples)
    return {"seconds": timing.median, "low": low, "high": high, "repeats": len(timing.samples)}


def _seconds_of_one(step: Callable[[], Any]) -> float:
    """Seconds of the second call: the first one compiles."""
    return measure.time_of(step, repeats=1, warmup=1).median


def times(
    form: str, n: int, *, budget: float = 1.0, longest: float = 8.0, most: int | None = None, **sizes: Any
) -> Row:
    """How long a step takes. One case of a sweep.

    Args:
        form: as in :func:`build`.
        n: tokens.
        budget: seconds to spend, as in :func:`timed`.
        longest: seconds of a step; one that would take more, by trials with fewer tokens, is skipped.
        most: bytes of a step; one that would need more is skipped. None for 6 GiB on a CPU, where the system may
            end a process that takes too much, and for no limit on a GPU, where it is told.
        **sizes: ``heads``, ``dim``, ``batch``, ``dtype``, ``backward`` and ``seed`` of :func:`build`.

    Returns:
        As :func:`timed`, or {"skipped": reason}, or {"out_of_memory": True}.

    Raises:
        ValueError: an unknown form.

    Example:
        >>> times("linear", 16, budget=0.01, heads=1, dim=4)["repeats"] >= 6
        True
        >>> times("softmax", 2**20, most=2**30)
        {'skipped': 'needs 96 TiB'}
    """

    def measured() -> Row:
        reason = _obstacle(form, n, longest, most, sizes)
        return {"skipped": reason} if reason else timed(build(form, n, **sizes), budget)

    return measure.attempt(measured) or {"out_of_memory": True}


def memory(form: str, n: int, *, longest: float = 20.0, most: int | None = None, **sizes: Any) -> Row:
    """The most bytes that a step holds beyond its inputs, in a process of its own. One case of a sweep.

    Args:
        form: as in :func:`build`.
        n: tokens.
        longest: as in :func:`times`.
        most: as in :func:`times`.
        **sizes: as in :func:`times`.

    Returns:
        "bytes"; "method", how they were counted; "derived", the :func:`bytes_needed`. Or {"skipped": reason}, or
        {"out_of_memory": True}.

    Raises:
        ValueError: an unknown form.

    Example:
        >>> memory("linear", 1024)["bytes"] > 4 * 1024 * 512 * 4  # doctest: +SKIP
        True
    """

    def measured() -> Row:
        if reason := _obstacle(form, n, longest, most, sizes):
            return {"skipped": reason}
        builder = f"{__name__}:build"
        peak = measure.peak_memory_in_fresh_process(builder, form=form, n=n, **sizes)
        return {"bytes": peak.bytes, "method": peak.method, "derived": _derived_bytes(form, n, sizes)}

    return measure.attempt(measured) or {"out_of_memory": True}


def _obstacle(form: str, n: int, longest: float, most: int | None, sizes: Mapping[str, Any]) -> str | None:
    """Why a step should not be run, None if it can be."""
    if reason := missing(form):
        return reason
    on_cpu = measure.device().kind == "cpu"
    if most is not None or on_cpu:
        kernel = keras.backend.backend() == "torch" or not on_cpu
        needed = _derived_bytes(form if kernel else form.replace("fused ", ""), n, sizes)
        if needed > (LIMIT if most is None else most):
            return f"needs {_in_words(needed)}"
    if "softmax" in form:  # the others are linear in n
        seconds = estimated_seconds(form, n, longest, **sizes)
        if seconds > longest:
            return f"would take {seconds:.0f} s"
    return None


def _derived_bytes(form: str, n: int, sizes: Mapping[str, Any]) -> int:
    heads = sizes.get("heads", 8) * sizes.get("batch", 1)
    itemsize = {"float16": 2, "bfloat16": 2, "float64": 8}.get(sizes.get("dtype"), 4)
    return bytes_needed(form, n, sizes.get("dim", 64), heads, itemsize)


def _in_words(number: float) -> str:
    exponent = min(int(math.log2(number)) // 10, 4)
    return f"{number / 1024**exponent:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[exponent]}"


def estimated_seconds(form: str, n: int, longest: float, **sizes: Any) -> float:
    """Seconds that a step will take at most, from one with fewer tokens and the ratio of their operations.

    What a step takes at any n, such as a call's overhead, is scaled as well; so a trial that says "too long" is
    repeated with four times as many tokens, as long as that trial itself is short and smaller than the step.

    Args:
        form: as in :func:`build`.
        n: tokens.
        longest: seconds that are too long.
        **sizes: as in :func:`times`.

    Returns:
        Seconds; 0 for a step of at most 1024 tokens, which needs no trial.

    Example:
        >>> estimated_seconds("softmax", 512, 1.0)
        0.0
    """
    tokens, estimate = 1024, 0.0
    while tokens < n:
        seconds = _seconds_of_one(build(form, tokens, **sizes))
        d = sizes.get("dim", 64)
        estimate = seconds * flops(form, n, d) / flops(form, tokens, d)
        tokens *= 4
        if estimate <= longest or seconds * 16 > longest:
            break
    return estimate


# --- a layer ----------------------------------------------------------------------------------------------

LAYERS = ("softmax", "fused softmax", "linear")


def layer_times(
    n: int, backward: bool = True, *, heads: int = 12, dim: int = 64, budget: float = 6.0, seed: int = 0
) -> Row:
    """How long a whole layer of a Transformer takes under three forms of attention, in turns. One case of a sweep.

    The layer is ``lib.bert.Block`` with ``lib.attention.Attention``, not causal: hidden size heads · dim, inner
    size four times that, one sequence, no dropout.

    Args:
        n: tokens.
        backward: whether to compute the gradients of the vectors and of all weights too.
        heads: number of heads.
        dim: size of a head.
        budget: seconds to spend; there are at least 6 rounds.
        seed: of weights and vectors.

    Returns:
        "seconds", the median by form; "speedup", form to [value, low, high], by which factor it is slower than
        linear, with a 95 % interval over the rounds; "derived", this factor for softmax by :func:`layer_flops`;
        "repeats", the rounds.

    Example:
        >>> sorted(layer_times(8, heads=2, dim=4, budget=0.1)["speedup"])
        ['fused softmax', 'softmax']
    """
    steps = {form: _layer_step(form, n, backward, heads, dim, seed) for form in LAYERS}
    a_round = sum(map(_seconds_of_one, steps.values()))
    rounds = int(np.clip(budget / a_round, 6, 50))
    race = measure.contest(steps, repeats=rounds, warmup=0)
    ratios = {form: race.ratio(form, "linear") for form in LAYERS if form != "linear"}
    derived = [layer_flops(n, form, heads=heads, dim=dim, features=dim) for form in ("softmax", "linear")]
    return {
        "seconds": {form: race[form].median for form in LAYERS},
        "speedup": {form: [ratio.value, ratio.low, ratio.high] for form, ratio in ratios.items()},
        "derived": derived[0] / derived[1],
        "repeats": rounds,
    }


def _layer_step(form: str, n: int, backward: bool, heads: int, dim: int, seed: int) -> Callable[[], list[Tensor]]:
    """A step of a layer, as a function of the vectors and of the weights."""
    keras.utils.set_random_seed(seed)
    hidden = heads * dim
    block = Block(Attention(heads, form), inner=4 * hidden, dropout=0.0)
    block.build((1, n, hidden))
    rng = np.random.default_rng(seed)
    x, upstream = (ops.convert_to_tensor(rng.standard_normal((1, n, hidden), dtype="float32")) for _ in range(2))
    weights = [ops.convert_to_tensor(variable.value) for variable in block.trainable_variables]

    def layer(x: Tensor, *weights: Tensor) -> Tensor:
        return block.stateless_call(weights, [], x, training=False)[0]

    return compiled_step(layer, [x, *weights], upstream if backward else None)


# --- the cases of the sweeps ------------------------------------------------------------------------------


def _sizes(scale: str, **sizes: Sequence[int]) -> Sequence[int]:
    if scale not in sizes:
        raise ValueError(f"scale must be one of {', '.join(map(repr, sizes))}, got {scale!r}")
    return sizes[scale]


def cases(scale: str) -> list[Row]:
    """The cases of :func:`times`: all forms at one n, then at the next.

    On a CPU n is 256 to 16384, for causal linear attention up to 65536; on a GPU it is 1024 to 131072, in
    bfloat16, and a kernel from elsewhere takes part.

    Raises:
        ValueError: ``scale`` is neither "cpu" nor "gpu".

    Example:
        >>> cases("cpu")[0], len(cases("cpu")), cases("gpu")[-1]["n"]
        ({'n': 256, 'form': 'softmax'}, 58, 131072)
    """
    return _cases(scale, _sizes(scale, cpu=[2**k for k in range(8, 17)], gpu=[2**k for k in range(10, 18)]))


def memory_cases(scale: str) -> list[Row]:
    """The cases of :func:`memory`: as :func:`cases`, with every other n, since each takes a process.

    Raises:
        ValueError: ``scale`` is neither "cpu" nor "gpu".

    Example:
        >>> sorted({case["n"] for case in memory_cases("cpu")})
        [1024, 4096, 16384, 65536]
    """
    return _cases(scale, _sizes(scale, cpu=[4**k for k in range(5, 9)], gpu=[2**k for k in range(11, 18, 2)]))


def _cases(scale: str, ns: Sequence[int]) -> list[Row]:
    if scale == "gpu":
        return [{"n": n, "form": form, "dtype": "bfloat16"} for n in ns for form in FORMS | PEERS]
    return [{"n": n, "form": form} for n in ns for form in FORMS if n <= 2**14 or form == "causal linear"]


def layer_cases(scale: str) -> list[Row]:
    """The cases of :func:`layer_times`.

    Raises:
        ValueError: ``scale`` is neither "cpu" nor "gpu".

    Example:
        >>> layer_cases("cpu")[-1]
        {'n': 4096, 'backward': True}
    """
    ns = _sizes(scale, cpu=[512, 1024, 2048, 4096], gpu=[512, 1024, 2048, 4096, 8192])
    return [{"n": n, "backward": backward} for n in ns for backward in (False, True)]


# --- reading curves ---------------------------------------------------------------------------------------


def slope(ns: Sequence[float], seconds: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The exponent p of seconds ∝ n^p: the slope of a least-squares line through logarithms, with its t interval.

    Args:
        ns: at least three numbers of tokens, not all equal.
        seconds: as many positive numbers.
        confidence: with which the interval covers the slope, were the errors of the logarithms normal.

    Raises:
        ValueError: fewer than three points, lengths that differ, a number that is not positive.

    Example:
        >>> print(slope([1, 2, 4, 8], [3, 12, 48, 192]))
        2
    """
    x, y = np.asarray(ns, "float64"), np.asarray(seconds, "float64")
    if x.ndim != 1 or x.shape != y.shape or x.size < 3:
        raise ValueError(f"ns, seconds: got shapes {x.shape}, {y.shape}; expected two equal lengths of at least 3")
    if not (np.all(x > 0) and np.all(y > 0) and np.ptp(x) > 0):
        raise ValueError(f"ns, seconds must be positive, ns not all equal, got {ns!r}, {seconds!r}")
    x, y = np.log(x) - np.mean(np.log(x)), np.log(y) - np.mean(np.log(y))
    p = float(x @ y / (x @ x))
    error = math.sqrt(float(np.sum((y - p * x) ** 2)) / (x.size - 2) / float(x @ x))

    def ends(level: float) -> tuple[float, float]:
        half = float(stdtrit(x.size - 2, 0.5 + level / 2)) * error
        return p - half, p + half

    return Estimate(p, *ends(confidence), ends) if error > 1e-12 else Estimate.exact(round(p, 12))


def crossing_measured(ns: Sequence[float], a: Sequence[float | None], b: Sequence[float | None]) -> float | None:
    """The n from which on ``a`` is above ``b``: where the two curves cross, straight lines between logarithms.

    Args:
        ns: increasing numbers of tokens.
        a: seconds of a form at each n; None where it was not measured.
        b: the same of another form.

    Returns:
        The last n at which a comes from below b, or None: one is above the other everywhere, or ``a`` falls below
        ``b`` again.

    Raises:
        ValueError: lengths that differ, or ``ns`` does not increase.

    Example:
        >>> crossing_measured([64, 256, 1024], [1, 16, 256], [4, 16, 64])
        256.0
        >>> crossing_measured([64, 256], [1, 2], [3, 4]) is None
        True
    """
    if not len(ns) == len(a) == len(b):
        raise ValueError(f"ns, a, b must have one length, got {len(ns)}, {len(a)}, {len(b)}")
    if any(after <= before for before, after in pairwise(ns)):
        raise ValueError(f"ns must increase, got {ns!r}")
    points = [
        (math.log(n), math.log(above / below))
        for n, above, below in zip(ns, a, b, strict=True)
        if above is not None and below is not None
    ]
    if not points or points[-1][1] < 0:
        return None
    for (x0, y0), (x1, y1) in reversed(list(pairwise(points))):
        if y0 < 0 <= y1:
            return float(round(math.exp(x0 - y0 * (x1 - x0) / (y1 - y0)), 6))
    return None


def crossing_estimate(ns: Sequence[int], a: Sequence[Row], b: Sequence[Row]) -> Estimate:
    """As :func:`crossing_measured`, of two measured forms, with the crossings that their intervals allow.

    Args:
        ns: increasing numbers of tokens.
        a: rows of :func:`times` of a form at each n.
        b: of the other form.

    Raises:
        ValueError: the curves, or the ends of their intervals, do not cross.

    Example:
        >>> curves = [1, 16, 256], [4, 16, 64]
        >>> a, b = ([{"seconds": t, "low": 0.9 * t, "high": 1.1 * t} for t in curve] for curve in curves)
        >>> print(crossing_estimate([64, 256, 1024], a, b))
        256 [209, 313]
    """

    def crossed(of_a: str, of_b: str) -> float:
        at = crossing_measured(ns, [row[of_a] for row in a], [row[of_b] for row in b])
        if at is None:
            raise ValueError("a, b must cross within ns, with all ends of their intervals, got curves that do not")
        return at

    return Estimate(crossed("seconds", "seconds"), crossed("high", "low"), crossed("low", "high"))


def quotient(a: Row, b: Row) -> Estimate:
    """How many times as long one step takes as another, with all that the two intervals allow.

    Args:
        a: a row with "seconds", "low" and "high".
        b: another one.

    Example:
        >>> print(quotient({"seconds": 4, "low": 3, "high": 5}, {"seconds": 2, "low": 2, "high": 2}))
        2.0 [1.5, 2.5]
    """
    return Estimate(a["seconds"] / b["seconds"], a["low"] / b["high"], a["high"] / b["low"])


def power(record: Record, form: str, key: str, least: int = 1) -> Estimate:
    """As :func:`slope`, of what a record measured of a form.

    Args:
        record: rows with ``form``, ``n`` and ``key``.
        form: of :data:`FORMS`.
        key: "seconds" or "bytes".
        least: the fewest tokens that count.

    Raises:
        ValueError: fewer than three lengths were measured.

    Example:
        >>> rows = tuple({"form": "linear", "n": n, "bytes": 8 * n} for n in (64, 128, 256))
        >>> print(power(Record(measure.device(), {}, "2026-01-31", "", "cpu", rows), "linear", "bytes"))
        1
    """
    rows = [row for row in record.where(form=form) if row.get(key) is not None and row["n"] >= least]
    return slope([row["n"] for row in rows], [row[key] for row in rows])


def crossing_of(record: Record, a: str, b: str) -> Estimate:
    """As :func:`crossing_estimate`, of two forms at all lengths at which a record has both.

    Example:
        >>> measured = {("a", 64): 1, ("b", 64): 4, ("a", 256): 16, ("b", 256): 16, ("a", 512): 64, ("b", 512): 32}
        >>> rows = [{"form": f, "n": n, "seconds": t, "low": t, "high": t} for (f, n), t in measured.items()]
        >>> print(crossing_of(Record(measure.device(), {}, "2026-01-31", "", "cpu", tuple(rows)), "a", "b"))
        256
    """
    of = [{row["n"]: row for row in record.where(form=form) if "seconds" in row} for form in (a, b)]
    both = sorted(of[0].keys() & of[1].keys())
    return crossing_estimate(both, *([rows[n] for n in both] for rows in of))


def gain_beyond_count(row: Row) -> Estimate:
    """By how much a layer's measured gain exceeds the one its operations say, relative; negative if it falls short.

    Args:
        row: of :func:`layer_times` at 12 heads of 64.

    Example:
        >>> gain_beyond_count({"n": 768, "speedup": {"softmax": [1.0, 0.9, 1.2]}}).value < 0
        True
    """
    counted = layer_flops(row["n"]) / layer_flops(row["n"], "linear")
    return Estimate(*(gain / counted - 1 for gain in row["speedup"]["softmax"]))
