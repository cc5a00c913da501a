"""What recomputation costs and saves: forward and backward through 12 blocks of BERT, 8 sentences of 256 tokens.

    KERAS_BACKEND=torch python -m pytest tests/bench/bench_recompute.py -o python_files='bench_*.py'

Blocks are 256 wide, with 4 heads and 1024 inside. The gradient of each weight is reduced to a number at once, so
that none is held. Contestants take turns, each round begins with another one, and all is divided by what the same
blocks take without recomputation:

* ``time``: median of the quotients of the rounds, with its 95 % interval;
* ``memory``: peak beyond what was held before; XLA and JAX are measured in a process each;
* ``gradient``: largest difference of an entry to the plain gradient, over the largest entry (at a small size).

Goals: memory at most 0.15, time at most 1.25 on TensorFlow, less memory than tf.recompute_grad and keras.remat,
gradients equal to 1e-6. On a CPU, JAX saves nothing by any means, since XLA undoes it. keras.remat takes part
without dropout only: with it, its gradients are wrong. Pin the process to one core (``taskset -c 0``).
"""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from lib.bert import Block, SelfAttention
from lib.recompute import checkpoint_sequence
from lib.workbench import measure

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
if BACKEND == "torch":
    import torch

    torch.set_num_threads(1)
if BACKEND == "jax":
    import jax

MODES = {"tensorflow": ["graph", "XLA"], "jax": ["jit"], "torch": ["eager"]}[BACKEND]
PEER = {"tensorflow": "tf.recompute_grad", "jax": "jax.checkpoint", "torch": "torch.utils.checkpoint"}[BACKEND]
OURS = ["layers", "norms", "sqrt"]
HIDDEN, HEADS, INNER = 256, 4, 1024
ROUNDS = 6  # the fewest that have an interval


# --- contestants: blocks → functions, to be applied one after another ---------------------------------------------


def calls_of(contestant: str, blocks: list[Block]) -> list[Callable]:
    if contestant in OURS:
        chain = checkpoint_sequence(blocks, contestant)
        chain.build((None, None, HIDDEN))
        return [partial(chain, training=True)]
    plain = [partial(block, training=True) for block in blocks]
    if contestant == "none":
        return plain
    if contestant == "keras.remat":
        return [keras.remat(lambda x, call=call: call(x)) for call in plain]
    if contestant == "torch.utils.checkpoint":
        return [partial(torch.utils.checkpoint.checkpoint, call, use_reentrant=False) for call in plain]
    checkpoint = tf.recompute_grad if contestant == "tf.recompute_grad" else jax.checkpoint
    return [as_pure(block, checkpoint) for block in blocks]


def as_pure(block: Block, checkpoint: Callable) -> Callable:
    """The block, recomputed by the backend, whose own means are right for pure functions only."""
    state = block.non_trainable_variables
    variables = [*block.trainable_variables, *state]

    def pure(x, *values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
            return block(x, training=True), *[scope.get_current_value(variable) for variable in state]

    recomputed = checkpoint(pure)

    def call(x):
        y, *after = recomputed(x, *[ops.convert_to_tensor(variable) for variable in variables])
        for variable, value in zip(state, after, strict=True):
            variable.assign(value)
        return y

    return call


def step(contestant: str, mode: str, rate: float, layers: int = 12, size=(8, 256), whole: bool = False) -> Callable:
    """Forward and backward: a function that returns the gradients if ``whole``, else their sums of squares."""
    keras.utils.set_random_seed(0)
    blocks = [Block(SelfAttention(HEADS, dropout=rate), INNER, rate) for _ in range(layers)]
    for block in blocks:
        block.build((None, None, HIDDEN))
    weights = [variable for block in blocks for variable in block.trainable_variables]
    state = [variable for block in blocks for variable in block.non_trainable_variables]
    x, weight = np.random.default_rng(0).standard_normal((2, *size, HIDDEN), "float32")
    x, weight = ops.convert_to_tensor(x), ops.convert_to_tensor(weight)
    calls = calls_of(contestant, blocks)
    result = (lambda g: g) if whole else (lambda g: ops.sum(g * g))

    def loss(x):
        for call in calls:
            x = call(x)
        return ops.mean(x * weight)

    if BACKEND == "tensorflow":

        @tf.function(jit_compile=mode == "XLA", autograph=False)
        def run(x):
            with tf.GradientTape() as tape:
                value = loss(x)
            found = tape.gradient(value, [variable.value for variable in weights])
            return [result(g) for g in found]

        return partial(run, x)
    if BACKEND == "jax":

        def pure(values, state_values):
            with keras.StatelessScope([*zip(weights, values, strict=True), *zip(state, state_values, strict=True)]):
                return loss(x)

        @jax.jit
        def run(*values):
            return [result(g) for g in jax.grad(pure)(*values)]

        return partial(run, [v.value for v in weights], [v.value for v in state])

    found = {}

    def take(i, parameter):
        found[i], parameter.grad = result(parameter.grad), None

    for i, variable in enumerate(weights):
        variable.value.register_post_accumulate_grad_hook(partial(take, i))

    def run():
        loss(x).backward()
        return [found[i] for i in range(len(weights))]

    return run


# --- the race -----------------------------------------------------------------------------------------------------


def gradients(contestant: str, mode: str, rate: float) -> list[np.ndarray]:
    """The gradients of two sentences of 32 tokens in 3 blocks; of equal seeds, so that all drop the same."""
    run = step(contestant, mode, rate, layers=3, size=(2, 32), whole=True)
    keras.utils.set_random_seed(1)
    return [ops.convert_to_numpy(g) for g in run()]


def peak(contestant: str, mode: str, rate: float, run: Callable) -> int:
    if mode in ("XLA", "jit"):
        arguments = {"contestant": contestant, "mode": mode, "rate": rate}
        return measure.peak_memory_in_fresh_process(step, **arguments).bytes
    return measure.peak_memory(run).bytes


@pytest.mark.parametrize("rate", [0.0, 0.1], ids=["no dropout", "dropout 0.1"])
@pytest.mark.parametrize("mode", MODES)
def test_forward_and_backward(benchmark, mode, rate):
    benchmark.group = f"recomputation, {BACKEND} {mode}"
    contestants = ["none", *OURS, PEER] + ["keras.remat"] * (rate == 0)
    if mode == "XLA":  # which takes half a minute to compile one of them
        contestants = ["none", "norms", PEER]
    runs = {name: step(name, mode, rate) for name in contestants}
    races = []
    benchmark.pedantic(lambda: races.append(measure.contest(runs, repeats=ROUNDS, warmup=1)), rounds=1)

    peaks = {name: peak(name, mode, rate, runs[name]) for name in contestants}
    exact = gradients("none", mode, rate)
    largest = max(np.abs(g).max() for g in exact)
    benchmark.extra_info["none"] = f"{races[0]['none']}, {peaks['none'] / 2**20:.0f} MiB"
    for name in contestants[1:]:
        found = zip(gradients(name, mode, rate), exact, strict=True)
        difference = max(np.abs(a - b).max() for a, b in found) / largest
        benchmark.extra_info[name] = (
            f"time {races[0].ratio(name, 'none'):.2f}, memory {peaks[name] / peaks['none']:.3f}, "
            f"gradient {difference:.0e}"
        )
        assert difference < 1e-6, f"{name}: the gradient is not that of the plain blocks"
    print("\n", benchmark.group, rate, *benchmark.extra_info.items(), sep="\n")
