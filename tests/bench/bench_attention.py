"""What attention costs: forward and backward, 8 heads of 64, batch 1; and one token of decoding.

    KERAS_BACKEND=jax python -m pytest tests/bench/bench_attention.py -o python_files='bench_*.py'

The yardstick is pytorch-fast-transformers (on torch, one thread), whose causal form is a C++ kernel. It takes turns
with a contestant, so that a busy machine slows both. ``over_fast_transformers`` in the extra information is the
median of the quotients; more is better. The goals are 1/0.45 = 2.2 for causal, 1/0.6 = 1.7 for full attention.
``lib.attention`` runs on the backend of KERAS_BACKEND, the peers on torch. Pin the process to one core
(``taskset -c 0``).

pytorch-fast-transformers is built from source and needs torch to be built, so no requirements file can name it.
Where no nvcc is on the PATH: ``pip install --no-deps --no-build-isolation pytorch-fast-transformers==0.4.0``.
performer-pytorch and linear-attention-transformer have other feature maps, and the latter's causal blocks do not
see themselves.
"""

from functools import partial
from statistics import median
from time import perf_counter

import keras
import numpy as np
import pytest
from keras import ops

from lib.attention import (
    Cache,
    cached_step,
    delta_rule,
    linear_attention,
    prefill,
    recurrent_step,
    retention,
    softmax_attention,
)

torch = pytest.importorskip("torch", reason="fast-transformers, the yardstick, needs torch")
torch.set_num_threads(1)

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

MODES = {"tensorflow": ["graph", "XLA"], "jax": ["jit"], "torch": ["eager"]}[BACKEND]
HEADS, DIM = 8, 64
TIMES = [1024, 4096, 16384]
SECONDS = 2.0  # spent on a row of the table, about


def arrays(time):
    """Queries, keys, values and the gradient of the outputs."""
    return np.random.default_rng(0).standard_normal((4, 1, time, HEADS, DIM), dtype="float32")


# --- contestants: forward and backward, returning the outputs and three gradients ---------------------------------


def backpropagated(function, time):
    """Forward and backward of a function of torch tensors (batch, time, heads, dim)."""
    *inputs, upstream = map(torch.tensor, arrays(time))
    inputs = [x.requires_grad_() for x in inputs]

    def run():
        for x in inputs:
            x.grad = None
        out = function(*inputs)
        out.backward(upstream)
        return [y.detach().numpy() for y in (out, *(x.grad for x in inputs))]

    return run


def fast_transformers(time, causal):
    """The yardstick: linear attention with elu + 1."""
    attention = pytest.importorskip("fast_transformers.attention", reason="fast-transformers is not installed")
    masking = pytest.importorskip("fast_transformers.masking")
    layer = (attention.CausalLinearAttention if causal else attention.LinearAttention)(DIM)
    mask = (masking.TriangularCausalMask if causal else masking.FullMask)(time)
    lengths = masking.LengthMask(torch.tensor([time]))
    return backpropagated(lambda q, k, v: layer(q, k, v, mask, lengths, lengths), time)


def torch_softmax(time, causal):
    """The fused softmax attention of torch."""

    def attend(*qkv):
        qkv = (x.transpose(1, 2) for x in qkv)
        return torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=causal).transpose(1, 2)

    if time > 1024:
        pytest.skip("fused softmax takes seconds a step")
    return backpropagated(attend, time)


def performer(time, causal):
    """FAVOR+ in torch."""
    peer = pytest.importorskip("performer_pytorch.performer_pytorch", reason="performer-pytorch is not installed")
    if causal and time > 1024:
        pytest.skip("without CUDA it makes all states: more than 4 s a step")
    attention = peer.FastAttention(DIM, nb_features=DIM, causal=causal, no_projection=False)
    if causal:
        attention.causal_linear_fn = peer.causal_linear_attention_noncuda
    return backpropagated(lambda *x: attention(*(y.transpose(1, 2) for y in x)).transpose(1, 2), time)


def lucidrains(time, causal):
    """linear-attention-transformer: softmax and exponential as feature maps."""
    peer = pytest.importorskip(
        "linear_attention_transformer.linear_attention_transformer",
        reason="linear-attention-transformer is not installed",
    )
    attend = partial(peer.causal_linear_attn, bucket_size=64) if causal else peer.linear_attn
    return backpropagated(lambda *x: attend(*(y.transpose(1, 2) for y in x)).transpose(1, 2), time)


def ours(function, time, mode):
    """A function of lib.attention on the backend at hand."""
    *inputs, upstream = map(ops.convert_to_tensor, arrays(time))
    if BACKEND == "tensorflow":

        @tf.function(jit_compile=mode == "XLA", autograph=False)
        def run(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                out = function(*inputs)
            return [out, *tape.gradient(out, inputs, output_gradients=upstream)]

        return lambda: [x.numpy() for x in run(*inputs)]
    if BACKEND == "jax":
        import jax

        @jax.jit
        def run(*inputs):
            out, pullback = jax.vjp(function, *inputs)
            return [out, *pullback(upstream)]

        return lambda: jax.block_until_ready(run(*inputs))
    return backpropagated(function, time)


def linear(time, causal, mode):
    return ours(partial(linear_attention, causal=causal), time, mode)


def delta(time, mode):
    beta = ops.ones((1, time, HEADS)) / 2
    return ours(lambda q, k, v: delta_rule(q, k / DIM**0.5, v, beta), time, mode)


CONTESTANTS = {
    **{f"lib.attention, {BACKEND} {mode}": partial(linear, mode=mode) for mode in MODES},
    "torch, fused softmax": torch_softmax,
    "performer-pytorch": performer,
    "linear-attention-transformer": lucidrains,
}
SINCE = {
    **{f"retention, {BACKEND} {mode}": partial(ours, retention, mode=mode) for mode in MODES},
    **{f"delta rule, {BACKEND} {mode}": partial(delta, mode=mode) for mode in MODES},
}


# --- the race -----------------------------------------------------------------------------------------------------


def race(benchmark, run, yardstick):
    """Time both in turn and note the median of the quotients."""

    def seconds(function):
        start = perf_counter()
        function()
        return perf_counter() - start

    run(), yardstick()
    rounds = int(np.clip(SECONDS / (seconds(run) + seconds(yardstick)), 3, 30))
    others = []
    benchmark.pedantic(run, setup=lambda: others.append(seconds(yardstick)), rounds=rounds)
    quotients = [other / own for other, own in zip(others, benchmark.stats.stats.data, strict=True)]
    benchmark.extra_info["over_fast_transformers"] = round(median(quotients), 2)
    benchmark.extra_info["fast_transformers_ms"] = round(1e3 * median(others), 1)


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("time", TIMES)
def test_forward_and_backward(benchmark, time, causal, contestant):
    if time > 4096 and not contestant.startswith("lib"):
        pytest.skip("the peers are measured at two lengths")
    benchmark.group = f"{'causal' if causal else 'full'}, {time} tokens"
    run, yardstick = CONTESTANTS[contestant](time, causal), fast_transformers(time, causal)
    if contestant.startswith("lib"):
        for x, y in zip(run(), yardstick(), strict=True):
            assert np.max(np.abs(np.asarray(x) - y)) < 1e-4 * np.max(np.abs(y))
    race(benchmark, run, yardstick)


@pytest.mark.parametrize("contestant", SINCE)
@pytest.mark.parametrize("time", TIMES[:1])
def test_what_came_since(benchmark, time, contestant):
    benchmark.group = f"since, causal, {time} tokens"
    race(benchmark, SINCE[contestant](time), fast_transformers(time, True))


@pytest.mark.parametrize("mode", MODES)
def test_the_cost_grows_with_the_length(benchmark, mode):
    """The slope of log time over log length, causal, from 1024 to 65536 tokens; the goal is at most 1.05."""
    benchmark.group = "growth, causal"
    times = [1024, 4096, 16384, 65536]
    runs = [linear(time, True, mode) for time in times]
    seconds = np.full(len(times), np.inf)

    def once():
        for i, run in enumerate(runs):  # in turn, so that a busy minute slows all of them
            start = perf_counter()
            run()
            seconds[i] = min(seconds[i], perf_counter() - start)

    benchmark.pedantic(once, rounds=3, warmup_rounds=1)
    benchmark.extra_info["exponent"] = round(float(np.polyfit(np.log(times), np.log(seconds), 1)[0]), 3)
    benchmark.extra_info["microseconds_a_token"] = [
        round(1e6 * s / n, 1) for s, n in zip(seconds, times, strict=True)
    ]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow counts the bytes of a processor")
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_peak_memory(benchmark, causal):
    """Beyond the inputs, at 4096 tokens; outputs and gradients are 32 MiB of it. fast-transformers: 48, full 25."""
    benchmark.group = "memory, 4096 tokens"
    *inputs, upstream = map(tf.constant, arrays(4096))

    @tf.function(autograph=False)
    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            out = linear_attention(*inputs, causal=causal)
        return out, tape.gradient(out, inputs, output_gradients=upstream)

    run(*inputs)
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    tf.config.experimental.reset_memory_stats("CPU:0")
    benchmark.pedantic(lambda: run(*inputs) and None, rounds=3)
    peak = tf.config.experimental.get_memory_info("CPU:0")["peak"] - before
    benchmark.extra_info["peak_mib"] = round(peak / 2**20, 1)


@pytest.mark.parametrize("known", [1024, 16384])
@pytest.mark.parametrize("way", ["state", "cache"])
def test_a_token_of_decoding(benchmark, way, known):
    """One more token after many: a state of fixed size against a cache of keys and values, eager."""
    benchmark.group = f"decoding after {known} tokens"
    q, k, v, _ = map(ops.convert_to_tensor, arrays(known))
    one = q[:, 0], k[:, 0], v[:, 0]
    with torch.no_grad():
        if way == "state":
            form = {"feature_map": "elu+1", "normalize": "sum"}
            memory = prefill(q, k, v, **form)[1]
            benchmark(lambda: np.asarray(ops.convert_to_numpy(recurrent_step(*one, memory, **form)[0])))
        else:
            memory = Cache(k, v)
            benchmark(lambda: np.asarray(ops.convert_to_numpy(cached_step(*one, memory)[0])))


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_softmax_of_the_backend(benchmark, fused):
    benchmark.group = f"softmax, causal, 1024 tokens, {BACKEND}"
    run = ours(partial(softmax_attention, causal=True, fused=fused), 1024, MODES[0])
    run()
    benchmark.pedantic(run, rounds=5)
