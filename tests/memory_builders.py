"""What the fresh processes of test_measure_memory.py build. Each imports this module, so it needs no pytest."""

import functools
import os
import sys

import numpy as np

N = 1024  # a matrix of N x N float32 is 4 MiB
SQUARE = 4 * N * N


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
    """A builder of a graph that takes the gradient of causal linear attention, in segments of 256 tokens."""
    import tensorflow as tf

    from lib.attention import chunkwise, delta_rule, linear_attention

    chunkwise.SEGMENT = 256
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

    from lib.recompute import Segment, checkpoint_sequence

    chain = [keras.layers.Dense(32, "relu") for _ in range(layers)]
    network = checkpoint_sequence(chain, segments) if segments else Segment(chain)
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
