"""What is measured in fresh processes. Each imports this module, so it needs no pytest."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import asdict

import numpy as np

from lib.workbench.measure import Peak, UnmeasurableError, peak_memory, peak_memory_in_fresh_process

N = 1024  # a matrix of N x N float32 is 4 MiB
SQUARE = 4 * N * N


def peaks_in_turn(builder, *cases) -> list[Peak]:
    """Measures what a builder of this module makes of each case, one after another in one fresh process.

    To load a backend takes longer than to measure. But TensorFlow recycles the blocks of earlier cases, and counts
    each in full: the cases whose bytes must not be too many come first, or have no larger one before them.
    """
    command = [sys.executable, __file__, builder.__name__, json.dumps(cases)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    found = json.loads(run.stdout.splitlines()[-1])
    if found is None:  # only the kernel can tell, of one call in a process
        return [peak_memory_in_fresh_process(builder, **case) for case in cases]
    return [Peak(**peak) for peak in found]


def chain(jit: bool = False):
    """A builder whose function holds exactly two N x N buffers at once, though it makes eight of them.

    The builder itself held sixteen: a method that does not start anew with the call sees those.
    """
    import keras

    x, w = keras.ops.ones((N, N)), keras.ops.full((N, N), 1 / N)
    keras.ops.sum(keras.ops.ones((16, N, N)))

    def product(x, w):
        for _ in range(8):
            x = keras.ops.matmul(x, w)
        return keras.ops.sum(x)

    backend = keras.config.backend()
    if backend == "jax":
        import jax

        product = jax.jit(product)
    elif backend == "tensorflow":
        import tensorflow as tf

        product = tf.function(product, jit_compile=jit)
    return functools.partial(product, x, w)


def linear_attention_gradient(form: str, time: int):
    """A builder of a graph that takes the gradient of causal linear attention, in tiles of 256 tokens."""
    import tensorflow as tf

    from lib.attention import chunkwise, delta_rule, linear_attention

    chunkwise.TILE = 256
    x = tf.constant(np.random.default_rng(0).standard_normal((1, time, 2, 16)).astype("float32"))
    beta = tf.ones((1, time, 2)) / 2

    @tf.function(autograph=False)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = linear_attention(x, x, x, causal=True) if form == "linear" else delta_rule(x, x / 4, x, beta)
        return tape.gradient(out, x)

    return functools.partial(gradient, x)


def thin_chain(segments: int | None, mode: str, layers: int = 16):
    """A builder whose function takes the gradients of a sum over dense layers; an output is N x N/2, 2 MiB.

    In the mode "executor" the graph is hidden, so that TensorFlow's executor orders it.
    """
    import keras

    from lib.recompute import LayerSequence, checkpoint_sequence

    chain = [keras.layers.Dense(32, "relu") for _ in range(layers)]
    network = checkpoint_sequence(chain, segments) if segments else LayerSequence(chain)
    x = keras.ops.ones((N * N // 64, 32))
    network.build(x.shape)
    weights = [weight.value for weight in network.trainable_variables]
    if keras.config.backend() == "torch":
        import torch

        def step():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(keras.ops.sum(network(leaf)), [leaf, *weights])

        return step
    import tensorflow as tf

    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = keras.ops.sum(network(x))
        return tape.gradient(total, [x, *weights])

    if mode == "eager":
        return step
    graph = tf.function(step)
    return (lambda: graph()) if mode == "executor" else graph


def branches():
    """A builder whose function makes twelve N x N buffers, of which it needs one at a time and a sum.

    A graph leaves the order open: all twelve may come first.
    """
    import tensorflow as tf

    x = tf.ones((N, N))
    return functools.partial(tf.function(lambda x: tf.add_n([tf.reduce_sum(x * i) for i in range(12)])), x)


def hungry():
    return lambda: np.zeros(2**50)


def killed():
    os.kill(os.getpid(), 9)


def broken():
    raise ZeroDivisionError("no such thing")


def flag_refused():
    """Ends the process as an XLA does that does not know a flag."""
    if "ynn" in os.environ.get("XLA_FLAGS", ""):
        sys.stderr.write("Unknown flag in XLA_FLAGS\n")
        os._exit(1)
    return lambda: np.zeros(SQUARE // 4, "float32").fill(1)


def environment(names: list[str]):
    raise RuntimeError([os.environ.get(name) for name in names])


if __name__ == "__main__":
    name, cases = sys.argv[1:]
    try:
        print(json.dumps([asdict(peak_memory(globals()[name](**case))) for case in json.loads(cases)]))
    except UnmeasurableError:
        print("null")
