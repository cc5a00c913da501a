"""The chains of layers that are cut into segments, and a step of training that can be timed and weighed.

``encoder``  blocks of ``lib.bert``: a block computes much more on the way than it hands on
``thin``     dense layers of one width: a layer computes nothing on the way but what it hands on
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import keras
import numpy as np
from keras import ops

from lib.bert import Block, SelfAttention
from lib.recompute import LayerSequence

Tensor = Any

#: How a step is compiled on each backend, if nothing is said.
MODES = {"tensorflow": "graph", "jax": "XLA", "torch": "eager"}


def encoder(
    layers: int, hidden: int, heads: int, time: int, batch: int, dropout: float = 0.1, seed: int = 0
) -> tuple[list[keras.layers.Layer], Tensor]:
    """Built blocks of BERT with random weights, and inputs for the first, (batch, time, hidden).

    Args:
        layers: number of blocks.
        hidden: width; the feed-forward network has four times as much.
        heads: of attention.
        time: tokens.
        batch: sequences.
        dropout: rate of all dropout.
        seed: of weights, dropout and inputs.

    Example:
        >>> blocks, x = encoder(2, hidden=8, heads=2, time=5, batch=3)
        >>> len(blocks), tuple(x.shape)
        (2, (3, 5, 8))
    """
    keras.utils.set_random_seed(seed)
    blocks = [Block(SelfAttention(heads, dropout), 4 * hidden, dropout) for _ in range(layers)]
    return _built(blocks, (batch, time, hidden), seed)


def thin(layers: int, units: int, batch: int, seed: int = 0) -> tuple[list[keras.layers.Layer], Tensor]:
    """Built dense layers with relu, and inputs for the first, (batch, units).

    The gradient of such a layer needs its input and the sign of its output, which is the input of the next one: in
    units of an output, a boundary is 1 and the inside of a layer is 1.

    Args:
        layers: number of layers.
        units: width of each.
        batch: rows.
        seed: of weights and inputs.

    Example:
        >>> layers, x = thin(4, units=8, batch=3)
        >>> len(layers), tuple(x.shape)
        (4, (3, 8))
    """
    keras.utils.set_random_seed(seed)
    dense = [keras.layers.Dense(units, "relu", kernel_initializer="he_normal") for _ in range(layers)]
    return _built(dense, (batch, units), seed)


def _built(
    layers: list[keras.layers.Layer], shape: tuple[int, ...], seed: int
) -> tuple[list[keras.layers.Layer], Tensor]:
    for layer in layers:
        layer.build(shape)
    x = np.random.default_rng(seed).standard_normal(shape, dtype="float32")
    return layers, ops.convert_to_tensor(x)


def gradient_step(
    layers: Sequence[keras.layers.Layer], x: Tensor, mode: str | None = None
) -> Callable[[], list[Tensor]]:
    """Forward and backward through layers in training, as a function of no arguments.

    The loss is the mean square of the outputs. Of the gradient of each weight only its square norm is returned, so
    that no gradient outlives its use, as where an optimizer applies it at once.

    Args:
        layers: applied in their order.
        x: inputs of the first; the gradient reaches them too.
        mode: "eager", "graph" (TensorFlow) or "XLA" (TensorFlow, JAX); None for that of :data:`MODES`.

    Returns:
        A function that returns [loss, |∂loss/∂x|², |∂loss/∂w|² for each weight in order]. On torch it returns the
        loss and the first of these.

    Raises:
        ValueError: the backend has no such mode.

    Example:
        >>> layers, x = thin(2, units=4, batch=3)
        >>> loss, *norms = gradient_step(layers, x)()
        >>> bool(loss > 0), bool(norms[0] > 0)
        (True, True)
    """
    for layer in layers:
        if not layer.built:
            layer.build(tuple(x.shape))
    backend, network = keras.backend.backend(), LayerSequence(layers)
    mode = mode or MODES[backend]
    known = {"tensorflow": ("eager", "graph", "XLA"), "jax": ("XLA",), "torch": ("eager",)}[backend]
    if mode not in known:
        raise ValueError(f"mode must be one of {', '.join(map(repr, known))} on {backend}, got {mode!r}")
    network.build(tuple(x.shape))
    if backend == "tensorflow":
        return _tensorflow_step(network, x, mode)
    return _jax_step(network, x) if backend == "jax" else _torch_step(network, x)


def _loss(network: LayerSequence, x: Tensor) -> Tensor:
    return ops.mean(ops.square(network(x, training=True)))


def _tensorflow_step(network: LayerSequence, x: Tensor, mode: str) -> Callable[[], list[Tensor]]:
    tf = import_module("tensorflow")
    weights = network.trainable_variables

    @tf.custom_gradient
    def tapped(weight: Tensor, _tap: Tensor) -> tuple[Tensor, Callable]:
        # The tap's gradient is the squared norm of the weight's, made as soon as that is there. Made at the end, it
        # would hold the gradients of all weights until then, where operations run in the order of the program.
        return tf.identity(weight), lambda gradient: (None, 2 * tf.nn.l2_loss(gradient))

    def step(x: Tensor) -> list[Tensor]:
        taps = [tf.zeros(()) for _ in weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([x, *taps])
            values = [(weight, tapped(weight.value, tap)) for weight, tap in zip(weights, taps, strict=True)]
            with keras.StatelessScope(values):
                loss = _loss(network, x)
        dx, *norms = tape.gradient(loss, [x, *taps])
        return [loss, 2 * tf.nn.l2_loss(dx), *norms]

    if mode == "eager":
        return partial(step, x)
    function = tf.function(step, jit_compile=mode == "XLA", autograph=False)
    # Traced here: many are made, each for one shape, and TensorFlow would warn that calls trace so often.
    function.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
    return partial(function, x)


def _jax_step(network: LayerSequence, x: Tensor) -> Callable[[], list[Tensor]]:
    jax = import_module("jax")
    weights, state = (
        [v.value for v in some] for some in (network.trainable_variables, network.non_trainable_variables)
    )

    def loss(x: Tensor, weights: list[Tensor], state: list[Tensor]) -> Tensor:
        outputs, _ = network.stateless_call(weights, state, x, training=True)
        return ops.mean(ops.square(outputs))

    def step(x: Tensor, weights: list[Tensor], state: list[Tensor]) -> list[Tensor]:
        value, (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1))(x, weights, state)
        return [value, *(ops.sum(ops.square(one)) for one in (dx, *dw))]

    compiled = jax.jit(step)
    return lambda: compiled(x, weights, state)


def _torch_step(network: LayerSequence, x: Tensor) -> Callable[[], list[Tensor]]:
    weights = [weight.value for weight in network.trainable_variables]

    def step() -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        loss = _loss(network, leaf)
        hooks = [weight.register_post_accumulate_grad_hook(_forget_gradient) for weight in weights]
        loss.backward()
        for hook in hooks:
            hook.remove()
        return [loss.detach(), (leaf.grad**2).sum()]

    return step


def _forget_gradient(weight: Tensor) -> None:
    weight.grad = None


def value_and_gradient(
    layer: Callable[..., Tensor], x: np.ndarray, state: Sequence[keras.Variable] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """What a layer makes of x in training, and the gradient of its sum with respect to x, on any backend.

    Args:
        layer: of one tensor and ``training=``.
        x: inputs, as an array.
        state: variables that the layer changes. JAX must be told of them.

    Example:
        >>> y, gradient = value_and_gradient(lambda x, training: x**2, np.array([3.0], "float32"))
        >>> y.tolist(), gradient.tolist()
        ([9.0], [6.0])
    """
    backend, tensor = keras.backend.backend(), ops.convert_to_tensor(x)
    if backend == "tensorflow":
        tf = import_module("tensorflow")
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            y = layer(tensor, training=True)
        gradient = tape.gradient(y, tensor)
    elif backend == "jax":
        jax = import_module("jax")

        def call(tensor: Tensor) -> tuple[Tensor, list[Tensor]]:
            with keras.StatelessScope() as scope:
                y = layer(tensor, training=True)
            after = [scope.get_current_value(variable) for variable in state]
            return y, [v.value if new is None else new for v, new in zip(state, after, strict=True)]

        y, pullback, after = jax.vjp(call, tensor, has_aux=True)
        (gradient,) = pullback(ops.ones_like(y))
        for variable, value in zip(state, after, strict=True):
            variable.assign(value)
    else:
        tensor = tensor.detach().requires_grad_()
        y = layer(tensor, training=True)
        y.sum().backward()
        y, gradient = y.detach(), tensor.grad
    return ops.convert_to_numpy(y), ops.convert_to_numpy(gradient)
