"""Time in tiles: a long sequence costs what its parts cost, as long as what they need stays in a cache.

A function that works through a sequence tile by tile, forward in one loop and backward in another, keeps what
it chooses to keep. The three backends loop and differentiate in their own ways; this module knows them.

Such a gradient is made for speed, and no backend could differentiate it once more: what it kept would pass for
constant. So :func:`own_gradient` wants the function in plain operations besides, and takes higher derivatives of
those.

Tensors have the shape (batch, time, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import keras
from keras import ops

from .._backend import custom_gradient, follows_forward, is_vectorized

__all__ = ["TILE", "loop", "own_gradient", "padded", "shape_only", "tile", "tiles"]

Tensor = Any

TILE = 256  # tokens that are worked on at once: what they need fits into the cache of a core


def tiles(x: Tensor, longest: int, multiple: int = 1) -> tuple[int, Any, Any]:
    """How to cut time into tiles of about the same length, so that little is padded.

    Args:
        x: (batch, time, ...); ``time`` may be unknown in a graph of TensorFlow.
        longest: The most tokens in a tile, a multiple of ``multiple``.
        multiple: What the length of a tile is to be a multiple of.

    Returns:
        Tokens in a tile; the number of tiles and the padding behind the last one, numbers, or tensors.

    Example:
        >>> tiles(ops.zeros((1, 37, 2)), longest=16, multiple=8)
        (16, 3, 11)
        >>> tiles(ops.zeros((1, 37, 2)), longest=24, multiple=4)
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
    """Whether a result is its shape: JAX has symbols for the sizes that Keras does not know.

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


def tile(x: Any, i: Tensor, T: int) -> Any:
    """Tile i, on axis 1, of a tensor or of each tensor in a tuple; None stays None.

    Args:
        x: (batch, time, ...), or a tuple of such.
        i: Its number, a number or an integer tensor.
        T: Tokens in a tile.

    Example:
        >>> x = ops.arange(6, dtype="float32")[None, :, None]
        >>> ops.convert_to_numpy(tile((x, None), 1, 2)[0])[0, :, 0].tolist()
        [2.0, 3.0]
    """
    if x is None:
        return None
    if isinstance(x, tuple):
        return _each(lambda part: tile(part, i, T), x)
    if (isinstance(i, int) and x.shape[1] is not None) or keras.backend.backend() == "torch":
        return x[:, i * T : (i + 1) * T]
    if keras.backend.backend() == "jax":
        return import_module("jax").lax.dynamic_slice_in_dim(x, i * T, T, axis=1)
    # Sizes are spelled out: for "all the rest", −1, XLA would first pad the tensor to twice its size on every axis.
    batch, _, *rest = ops.shape(x)
    return import_module("tensorflow").slice(x, [0, i * T, *[0] * len(rest)], [batch, T, *rest])


def loop(body: Callable, state: tuple, count: Any, reverse: bool = False) -> tuple[tuple, list[Tensor]]:
    """A loop over tiles, in a graph too: ``tf.while_loop``, ``jax.lax.scan``, or plain Python on torch.

    It is meant for the inside of a function with its own gradient: the backend cannot differentiate it everywhere.

    Args:
        body: (i, state) → (state after tile i, its blocks: a tuple of tensors, (batch, T, ...)).
        state: A tuple of tensors.
        count: Number of tiles, a number or, on TensorFlow, a tensor.
        reverse: Whether the last tile comes first.

    Returns:
        The last state, and for each block those of all tiles side by side, (batch, count · T, ...).

    Example:
        >>> x = ops.arange(6, dtype="float32")[None]
        >>> def running(i, state):
        ...     here = tile(x, i, 2)
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
        lambda j, *_: j < count,
        turn,
        (tf.constant(1), state, arrays),
        parallel_iterations=1,
        maximum_iterations=count - 1,  # without it XLA has no gradient of a loop
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
            tile(whole, i, block.shape[1])[:] = block
    return state, wholes


def _side_by_side(x: Tensor) -> Tensor:
    """(tiles, batch, T, ...) → (batch, tiles · T, ...)."""
    T, rest = x.shape[2], x.shape[3:]
    x = ops.swapaxes(x, 0, 1)
    return ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] * T, *rest))


def own_gradient(function: Callable, gradient: Callable, plain: Callable, inputs: tuple[Tensor, ...]) -> Tensor:
    """A result with a gradient of its own, and with the higher derivatives of a plain function.

    In forward mode, and within the transforms of ``torch.func``, the plain function is what is run.
    On JAX the first derivative may be taken backwards only: ``jax.jvp``, and so ``jax.hessian``, raises TypeError.
    ``jax.jacrev`` of ``jax.grad`` is what works. TensorFlow refuses second derivatives of the delta rule under XLA.

    Args:
        function: (*inputs) → the result, and a tuple of tensors to keep.
        gradient: (inputs, kept, upstream) → a tuple of gradients, one for each input.
        plain: (*inputs) → the result, in operations that the backend differentiates as often as it is asked.
        inputs: Tensors of floats.

    Example:
        >>> wrong = lambda inputs, kept, upstream: (0 * upstream,)
        >>> float(own_gradient(lambda x: (x * x, (x,)), wrong, lambda x: x * x, (3 * ops.ones(()),)))
        9.0
    """
    ways = {"tensorflow": _tensorflow_gradient, "jax": _jax_gradient, "torch": _torch_gradient}
    return ways[keras.backend.backend()](function, gradient, plain)(*inputs)


def _tensorflow_gradient(function: Callable, gradient: Callable, plain: Callable) -> Callable:
    tf = import_module("tensorflow")

    # A tape must see none of the loops inside: nested tapes would prepare derivatives of them, which XLA has not.
    def unseen(x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(map(tf.stop_gradient, x))

    @custom_gradient
    def once(*x: Tensor) -> tuple[Tensor, Callable]:
        out, kept = function(*unseen(x))
        if is_vectorized():
            out = plain(*x)

        @custom_gradient
        def first(upstream: Tensor, *x: Tensor) -> tuple[tuple[Tensor, ...], Callable]:
            def second(*directions: Tensor) -> list[Tensor]:
                # New tensors: of one that is given twice, a tape knows only the total.
                given, at = tf.identity(upstream), tuple(map(tf.identity, x))
                with tf.GradientTape() as outer:
                    outer.watch((given, at))
                    with tf.GradientTape() as inner:
                        inner.watch(at)
                        out = plain(*at)
                    slopes = inner.gradient(out, at, given, unconnected_gradients="zero")
                with _named():
                    return outer.gradient(slopes, [given, *at], directions, unconnected_gradients="zero")

            return tuple(gradient(unseen(x), unseen(kept), tf.stop_gradient(upstream))), second

        return out, lambda upstream: first(upstream, *x)

    return lambda *x: plain(*x) if follows_forward(x) else once(*x)


@contextmanager
def _named() -> Iterator[None]:
    """The delta rule goes tile by tile here too, and TensorFlow says only that XLA has no gradient of a slice."""
    try:
        yield
    except LookupError as error:
        raise NotImplementedError(
            "a second derivative of delta_rule cannot be compiled by XLA on TensorFlow; take jit_compile=False"
        ) from error


def _jax_gradient(function: Callable, gradient: Callable, plain: Callable) -> Callable:
    jax = import_module("jax")

    @jax.custom_vjp
    def both(x: tuple) -> tuple[Tensor, tuple]:
        return function(*x)

    @jax.custom_vjp
    def first(x: tuple, kept: tuple, upstream: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient(x, kept, upstream))

    def forward(x: tuple) -> tuple:
        out, kept = both(x)
        return (out, kept), (x, jax.lax.stop_gradient(kept))

    def second(saved: tuple, directions: tuple) -> tuple:
        def slopes(x: tuple, upstream: Tensor) -> tuple[Tensor, ...]:
            return jax.vjp(plain, *x)[1](upstream)

        dx, d_upstream = jax.vjp(slopes, *saved)[1](directions)
        return dx, None, d_upstream

    first.defvjp(lambda x, kept, upstream: (first(x, kept, upstream), (x, upstream)), second)
    both.defvjp(forward, lambda saved, upstream: (first(*saved, upstream[0]),))
    return lambda *x: both(x)[0]


def _torch_gradient(function: Callable, gradient: Callable, plain: Callable) -> Callable:
    torch = import_module("torch")

    @custom_gradient
    def once(*x: Tensor) -> tuple[Tensor, Callable]:
        out, kept = function(*x)
        kept = tuple(y.detach() for y in kept)  # not what is returned, which would hold itself

        def first(*x: Tensor, upstream: Tensor) -> tuple[Tensor | None, ...]:
            if not torch.is_grad_enabled():
                return tuple(gradient(x, kept, upstream))
            # A derivative of this gradient will be asked. Arguments may be made of one another, new ones are not.
            x = tuple(y.view_as(y) for y in x)
            wanted = [y for y in x if y.requires_grad]
            slopes = iter(torch.autograd.grad(plain(*x), wanted, upstream, create_graph=True, allow_unused=True))
            return tuple(next(slopes) if y.requires_grad else None for y in x)

        return out, first

    return lambda *x: plain(*x) if follows_forward(x) else once(*x)
