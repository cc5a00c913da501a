"""What replacement of modules costs in training, and what it saves after: networks like BERT, but narrow.

    KERAS_BACKEND=torch python -m pytest tests/bench/bench_theseus.py -o python_files='bench_*.py'

Blocks are 384 wide, with 6 heads and 1536 inside; a batch has 8 sentences of 64 tokens. Contestants take turns, and
each round begins with another one: the numbers are medians, and quotients of the rounds with their 95 % interval.

* Inference: a predecessor of 12 blocks and its successor of 6; one of 6, and its successor of 3.
* A step of training of 6 blocks that become 3 (forward, backward, Adam, the rate 0.5): fine-tuning of the
  predecessor and of the successor; replacement by gates for a batch, where only the chosen module runs, and for
  each sample, where both run; and the article's way, which runs both and multiplies one by 0. Steps with gates
  for a batch take different times, as chance has it, so that several steps are timed at once.

Goal: the successor is at least 1.9 times as fast. Pin the process to one core (``taskset -c 0``).
"""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from lib.bert import Block, SelfAttention
from lib.theseus import ModuleReplacement, twin
from lib.workbench import measure

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
if BACKEND == "jax":
    import jax
if BACKEND == "torch":
    import torch

    torch.set_num_threads(1)

HIDDEN, HEADS, INNER = 384, 6, 1536
SIZE = (8, 64)
ROUNDS, STEPS = 6, 4  # the fewest rounds that have an interval


def blocks(n: int) -> list[Block]:
    found = [Block(SelfAttention(HEADS, dropout=0.1), INNER, 0.1) for _ in range(n)]
    for block in found:
        block.build((None, None, HIDDEN))
    return found


def pairs(n: int) -> tuple[list[list[Block]], list[Block]]:
    """A predecessor of n blocks in modules of two, and for each module a twin of its first block."""
    old = blocks(n)
    return [old[i : i + 2] for i in range(0, n, 2)], [twin(block) for block in old[::2]]


def compiled(function: Callable, layer: keras.layers.Layer) -> Callable:
    """``function(x)`` in a program compiled by the backend, for functions that change nothing."""
    if BACKEND == "tensorflow":
        return tf.function(function, autograph=False)
    if BACKEND == "torch":
        return torch.no_grad()(function)

    @jax.jit
    def pure(x, values):
        with keras.StatelessScope(list(zip(layer.variables, values, strict=True))):
            return function(x)

    return lambda x: pure(x, [variable.value for variable in layer.variables])


X, Y = np.random.default_rng(0).standard_normal((2, *SIZE, HIDDEN), "float32")


# --- inference ----------------------------------------------------------------------------------------------------


def report(benchmark: object, race: measure.Contest, least: str) -> None:
    for name in race.timings:
        ratio = "" if name == least else f", {race.ratio(name, least)} times {least}"
        benchmark.extra_info[name] = f"{race[name]}{ratio}"
    print("\n", benchmark.group, *benchmark.extra_info.items(), sep="\n")


@pytest.mark.parametrize("n", [12, 6])
def test_inference(benchmark, n):
    benchmark.group = f"inference, {n} blocks and {n // 2}, {BACKEND}"
    body = ModuleReplacement(*pairs(n))
    body.build((None, None, HIDDEN))
    models = {"predecessor": body.mixture([False] * (n // 2)), "successor": body.successor()}
    x = ops.convert_to_tensor(X)
    runs = {name: partial(compiled(partial(model, training=False), model), x) for name, model in models.items()}
    races = []
    benchmark.pedantic(lambda: races.append(measure.contest(runs, repeats=15, warmup=2)), rounds=1)
    report(benchmark, races[0], "successor")


# --- training -----------------------------------------------------------------------------------------------------


class MultiplyBoth(keras.layers.Layer):
    """The article's way: both modules run, and one output is multiplied by 0."""

    def __init__(self, body: ModuleReplacement):
        super().__init__()
        self.body, self.seed_generator = body, keras.random.SeedGenerator(0)

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        self.body.build(x_shape)

    def call(self, x, training=None):
        for old, new in zip(self.body.predecessors, self.body.successors, strict=True):
            z = ops.cast(keras.random.uniform((), seed=self.seed_generator) < 0.5, x.dtype)
            x = (1 - z) * old(x, training=False) + z * new(x, training=training)
        return x


def trained(*layers: keras.layers.Layer) -> keras.Model:
    model = keras.Sequential([keras.Input((None, HIDDEN)), *layers])
    model.compile(keras.optimizers.Adam(1e-5), "mse", jit_compile=BACKEND == "jax")
    return model


def test_training(benchmark):
    benchmark.group = f"{STEPS} steps of training, 6 blocks become 3, {BACKEND}"
    n, shape = 6, (None, None, HIDDEN)
    batch, sample, both = (
        ModuleReplacement(*pairs(n), seed=0),
        ModuleReplacement(*pairs(n), gates="sample"),
        ModuleReplacement(*pairs(n)),
    )
    for body in (batch, sample, both):
        body.build(shape)
    models = {
        "predecessor": trained(*blocks(n)),
        "successor": trained(*blocks(n // 2)),
        "gates for a batch": trained(batch),
        "gates for a sample": trained(sample),
        "multiply both": trained(MultiplyBoth(both)),
    }
    steps = {name: partial(model.train_on_batch, X, Y) for name, model in models.items()}
    runs = {name: lambda step=step: [step() for _ in range(STEPS)] and None for name, step in steps.items()}
    races = []
    benchmark.pedantic(lambda: races.append(measure.contest(runs, repeats=ROUNDS, warmup=1)), rounds=1)
    report(benchmark, races[0], "multiply both")
