"""Time in segments: a long sequence costs what its parts cost, as long as what they need stays in a cache.

A function that works through a sequence segment by segment, forward in one loop and backward in another, keeps what
it chooses to keep. The three backends loop and differentiate in their own ways; this module knows them.

Tensors have the shape (batch, time, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import keras
from keras import ops

__all__ = ["SEGMENT", "loop", "padded", "segment", "segments", "shape_only", "vjp"]

Tensor = Any

SEGMENT = 256  # tokens that are worked on at once: what they need fits into the cache of a core


def segments(x: Tensor, longest: int, multiple: int = 1) -> tuple[int, Any, Any]:
    """How to cut time into segments of about the same length, so that little is padded.

    Args:
        x: (batch, time, ...); ``time`` may be unknown in a graph of TensorFlow.
        longest: The most tokens in a segment, a multiple of ``multiple``.
        multiple: What the length of a segment is to be a multiple of.

    Returns:
        Tokens in a segment; the number of segments and the padding behind the last one, numbers, or tensors.

    Example:
        >>> segments(ops.zeros((1, 37, 2)), longest=16, multiple=8)
        (16, 3, 11)
        >>> segments(ops.zeros((1, 37, 2)), longest=24, multiple=4)
        (20, 2, 3)
    """
    time = x.shape[1]
    if time is None:
        count = (ops.shape(x)[1] + longest - 1) // longest
        return longest, count, count * longest - ops.shape(x)[1]
    count = -(-time // longest)
    T = -(-time // (count * multiple)) * multiple
    return T, count, count * T - time


def shape_only(x: Tensor) -> bool:
    """Whether only the shape of a result is asked: JAX then has symbols for the sizes that Keras does not know.

    Args:
        x: (batch, time, ...).

    Example:
        >>> shape_only(ops.zeros((1, 37, 2)))
        False
    """
    return not all(size is None or isinstance(size, int) for size in x.shape[:2])


def padded(x: Any, padding: Any) -> Any:
    """A tensor, or each tensor in a tuple, with zeros behind on axis 1; None stays None.

    Args:
        x: (batch, time, ...), or a tuple of such.
        padding: How many, a number or an integer tensor.

    Example:
        >>> tuple(padded(ops.ones((1, 5, 2)), 3).shape)
        (1, 8, 2)
    """
    if isinstance(x, tuple):
        return _each(lambda part: padded(part, padding), x)
    if x is None or (isinstance(padding, int) and padding == 0):
        return x
    return ops.pad(x, ((0, 0), (0, padding), *[(0, 0)] * (len(x.shape) - 2)))


def _each(function: Callable, x: tuple) -> tuple:
    parts = map(function, x)
    return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)


def segment(x: Any, i: Tensor, T: int) -> Any:
    """Segment i, on axis 1, of a tensor or of each tensor in a tuple; None stays None.

    Args:
        x: (batch, time, ...), or a tuple of such.
        i: Its number, a number or an integer tensor.
        T: Tokens in a segment.

    Example:
        >>> x = ops.arange(6, dtype="float32")[None, :, None]
        >>> ops.convert_to_numpy(segment((x, None), 1, 2)[0])[0, :, 0].tolist()
        [2.0, 3.0]
    """
    if x is None:
        return None
    if isinstance(x, tuple):
        return _each(lambda part: segment(part, i, T), x)
    if keras.backend.backend() == "torch":
        return x[:, i * T : (i + 1) * T]
    rest = len(x.shape) - 2
    if keras.backend.backend() == "jax":
        return import_module("jax").lax.dynamic_slice_in_dim(x, i * T, T, axis=1)
    return import_module("tensorflow").slice(x, [0, i * T, *[0] * rest], [-1, T, *[-1] * rest])


def loop(body: Callable, state: tuple, count: Any, reverse: bool = False) -> tuple[tuple, list[Tensor]]:
    """A loop over segments, in a graph too: ``tf.while_loop``, ``jax.lax.scan``, or plain Python on torch.

    It is meant for the inside of a function with its own gradient: the backend cannot differentiate it everywhere.

    Args:
        body: (i, state) → (state after segment i, its blocks: a tuple of tensors, (batch, T, ...)).
        state: A tuple of tensors.
        count: Number of segments, a number or, on TensorFlow, a tensor.
        reverse: Whether the last segment comes first.

    Returns:
        The last state, and for each block those of all segments side by side, (batch, count · T, ...).

    Example:
        >>> x = ops.arange(6, dtype="float32")[None]
        >>> def running(i, state):
        ...     here = segment(x, i, 2)
        ...     return (state[0] + ops.sum(here),), (here + state[0],)
        >>> (total,), (blocks,) = loop(running, (ops.zeros(()),), 3)
        >>> float(total), ops.convert_to_numpy(blocks)[0].tolist()
        (15.0, [0.0, 1.0, 3.0, 4.0, 10.0, 11.0])
    """
    if isinstance(count, int) and count == 1:
        state, blocks = body(0, state)
        return state, list(blocks)
    loops = {"tensorflow": _tensorflow_loop, "jax": _jax_loop, "torch": _torch_loop}
    return loops[keras.backend.backend()](body, state, count, reverse)


def _tensorflow_loop(body: Callable, state: tuple, count: Any, reverse: bool) -> tuple[tuple, list[Tensor]]:
    tf = import_module("tensorflow")

    def place(j: Tensor) -> Tensor:
        return count - 1 - j if reverse else j

    def turn(j: Tensor, state: tuple, arrays: list) -> tuple:
        after, blocks = body(place(j), state)
        after = tf.nest.map_structure(lambda new, old: tf.ensure_shape(new, old.shape), after, state)
        return j + 1, after, [array.write(place(j), block) for array, block in zip(arrays, blocks, strict=True)]

    state, blocks = body(place(0), state)  # tells the shapes
    arrays = [tf.TensorArray(x.dtype, count, element_shape=x.shape).write(place(0), x) for x in blocks]
    _, state, arrays = tf.while_loop(
        lambda j, *_: j < count, turn, (tf.constant(1), state, arrays), parallel_iterations=1
    )
    return state, [_side_by_side(array.stack()) for array in arrays]


def _jax_loop(body: Callable, state: tuple, count: int, reverse: bool) -> tuple[tuple, list[Tensor]]:
    jax = import_module("jax")
    state, blocks = jax.lax.scan(lambda state, i: body(i, state), state, jax.numpy.arange(count), reverse=reverse)
    return state, [_side_by_side(x) for x in blocks]


def _torch_loop(body: Callable, state: tuple, count: int, reverse: bool) -> tuple[tuple, list[Tensor]]:
    wholes: list[Tensor] = []
    for i in reversed(range(count)) if reverse else range(count):
        state, blocks = body(i, state)
        wholes = wholes or [x.new_empty((x.shape[0], count * x.shape[1], *x.shape[2:])) for x in blocks]
        for whole, block in zip(wholes, blocks, strict=True):
            segment(whole, i, block.shape[1])[:] = block
    return state, wholes


def _side_by_side(x: Tensor) -> Tensor:
    """(segments, batch, T, ...) → (batch, segments · T, ...)."""
    T, rest = x.shape[2], x.shape[3:]
    x = ops.swapaxes(x, 0, 1)
    return ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] * T, *rest))


def vjp(function: Callable, *inputs: Tensor) -> tuple[tuple[Tensor, ...], Any, Callable]:
    """What ``function(*inputs) → (outputs, others)`` returns, and the way from gradients of outputs to inputs.

    Args:
        function: Takes tensors, returns a tuple of tensors that have a gradient, and something else.
        *inputs: What it is called with.

    Returns:
        The outputs, the others, and a function from a tuple of gradients of the outputs to those of the inputs.

    Example:
        >>> x = 3 * ops.ones((1,))
        >>> _, _, pullback = vjp(lambda x: ((x * x,), None), x)
        >>> float(pullback((ops.ones((1,)),))[0][0])
        6.0
    """
    if keras.backend.backend() == "jax":
        outputs, pullback, others = import_module("jax").vjp(function, *inputs, has_aux=True)
        return outputs, others, pullback
    if keras.backend.backend() == "tensorflow":
        with import_module("tensorflow").GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs, others = function(*inputs)
        return outputs, others, lambda g: tape.gradient(outputs, inputs, g, unconnected_gradients="zero")
    torch = import_module("torch")
    with torch.enable_grad():
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        outputs, others = function(*inputs)
    return outputs, others, lambda g: torch.autograd.grad(outputs, inputs, g, materialize_grads=True)
