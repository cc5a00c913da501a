"""What an MEMM costs: its loss, its decoders, a training step, and a training step with 20,000 tags.

    KERAS_BACKEND=jax python -m pytest tests/bench/bench_memm.py

Each round times the yardstick and the contestant, one after the other, so that a busy machine slows both. ``times``
in the extra information is the median of the quotients. The loss is timed forward and backward against Keras's
softmax cross-entropy of the same emissions; the CRF's stands beside it. The decoders are timed against
``chain.viterbi``. The goal for the loss in one direction is 1.2; both directions are two cross-entropies.

On torch, which does not compile, the loss alone misses the goal: a fused cross-entropy of 9 tags takes 0.4 ms, and
the gather of the rows, the sum and its scattered gradient are calls of their own. Behind an encoder it is lost.
"""

import resource
from statistics import median
from time import perf_counter

import keras
import numpy as np
import pytest
from keras import ops

from lib import chain, crf, memm
from lib.tagging import Softmax, Tagger

BACKEND = keras.backend.backend()
MODES = {"tensorflow": ["graph", "xla"], "jax": ["jit"], "torch": ["eager"]}[BACKEND]
SHAPES = [(32, 256, 9), (16, 512, 45)]
ROUNDS = 100

if BACKEND == "torch":
    import torch

    torch.set_num_threads(1)  # two threads on two busy cores wait for each other


def cross_entropy(emissions, transitions, tags):  # noqa: ARG001
    return ops.sum(keras.losses.sparse_categorical_crossentropy(tags, emissions, from_logits=True))


def negative(log_likelihood, **options):
    return lambda emissions, transitions, tags: -ops.sum(log_likelihood(tags, emissions, transitions, **options))


LOSSES = {
    "MEMM, forward": negative(memm.log_likelihood),
    "MEMM, backward": negative(memm.log_likelihood, direction="backward"),
    "MEMM, both directions": negative(memm.log_likelihood, direction="both"),
    "CRF": negative(crf.log_likelihood),
}
DECODERS = {
    "MEMM, Viterbi": memm.viterbi,
    "MEMM, Viterbi, both directions": lambda f, g: memm.viterbi(f, g, direction="both"),
    "MEMM, greedy": memm.greedy,
    "MEMM, beam of 4": lambda f, g: memm.beam(f, g, 4),
}


def compiled(function, mode):
    """The function, compiled, that returns when all is done."""
    if mode == "eager":
        return function
    if mode == "jit":
        import jax

        run = jax.jit(function)
        return lambda *arguments: jax.block_until_ready(run(*arguments))
    import tensorflow as tf

    run = tf.function(function, jit_compile=mode == "xla")
    return lambda *arguments: [x.numpy() for x in tf.nest.flatten(run(*arguments))[:1]]


def value_and_gradients(loss, mode):
    """A function of (emissions, transitions, tags) that computes the loss and its two gradients."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def run(emissions, transitions, tags):
            with tf.GradientTape() as tape:
                tape.watch((emissions, transitions))
                value = loss(emissions, transitions, tags)
            found = tape.gradient(value, (emissions, transitions), unconnected_gradients="zero")
            return value, [tf.convert_to_tensor(g) for g in found]

        return compiled(run, mode)
    if BACKEND == "jax":
        import jax

        return compiled(jax.value_and_grad(loss, argnums=(0, 1)), mode)

    def run(emissions, transitions, tags):
        scores = [x.detach().requires_grad_() for x in (emissions, transitions)]
        loss(*scores, tags).backward()

    return run


def scores(shape):
    batch, time, tags = shape
    rng = np.random.default_rng(0)
    arrays = (
        rng.standard_normal(shape).astype("float32"),
        rng.standard_normal((tags, tags)).astype("float32"),
        rng.integers(0, tags, (batch, time)).astype("int32"),
    )
    return [ops.convert_to_tensor(x) for x in arrays]


def race(benchmark, yardstick, contestant):
    """Times the contestant and notes the median of its quotients by the yardstick."""

    def seconds():
        start = perf_counter()
        yardstick()
        return perf_counter() - start

    yardstick(), contestant()
    quotients = []
    benchmark.pedantic(contestant, setup=lambda: quotients.append(seconds()), rounds=ROUNDS, warmup_rounds=5)
    times = [s / y for s, y in zip(benchmark.stats.stats.data, quotients[5:], strict=True)]
    benchmark.extra_info["times"] = round(median(times), 3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradients(benchmark, loss, mode, shape):
    benchmark.group = f"loss {shape}, {BACKEND} {mode}"
    arguments = scores(shape)
    yardstick, contestant = value_and_gradients(cross_entropy, mode), value_and_gradients(LOSSES[loss], mode)
    race(benchmark, lambda: yardstick(*arguments), lambda: contestant(*arguments))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_decoder(benchmark, decoder, mode, shape):
    benchmark.group = f"decoder {shape}, {BACKEND} {mode}"
    arguments = scores(shape)[:2]
    yardstick, contestant = compiled(chain.viterbi, mode), compiled(DECODERS[decoder], mode)
    race(benchmark, lambda: yardstick(*arguments), lambda: contestant(*arguments))


HEADS = {
    "MEMM, forward": lambda: memm.MEMM(9, direction="forward"),
    "MEMM": lambda: memm.MEMM(9, direction="both"),
    "CRF": lambda: crf.CRF(9),
}


@pytest.mark.parametrize("head", HEADS)
def test_training_step(benchmark, head):
    """One step of Adam as ``fit`` compiles it: an embedding, a convolution and the head, against a softmax."""
    benchmark.group = f"training step (32, 256, 9), {BACKEND}"
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5000, (32, 256)), rng.integers(0, 9, (32, 256))

    def step(head):
        layers = [keras.layers.Embedding(5000, 128), keras.layers.Conv1D(128, 3, padding="same", activation="relu")]
        model = Tagger(keras.Sequential([*layers, keras.layers.Dense(9)]), head)
        model.compile("adam")
        return lambda: model.train_on_batch(x, y)

    race(benchmark, step(Softmax(9)), step(HEADS[head]()))


@pytest.mark.parametrize("batch", [16, 64])
def test_training_with_20_000_tags(benchmark, batch):
    """One step of Adam on a dense layer and a low-rank MEMM in both directions, 32 tokens a sequence."""
    benchmark.group = f"20,000 tags, rank 64, {BACKEND}"
    tags, time = 20_000, 32
    rng = np.random.default_rng(0)
    inputs = keras.Input((time, 128))
    head = memm.MEMM(tags, direction="both", rank=64, beam_width=4)
    model = keras.Model(inputs, head(keras.layers.Dense(tags)(inputs)))
    model.compile("adam", loss=head.loss)
    x, y = rng.standard_normal((batch, time, 128)).astype("float32"), rng.integers(0, tags, (batch, time))
    model.train_on_batch(x, y)
    benchmark.pedantic(lambda: model.train_on_batch(x, y), rounds=5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    benchmark.extra_info |= {"tokens": batch * time, "peak of the process in GiB": round(peak, 2)}
