"""What all ideas ask of the backend beyond ``keras.ops``."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import keras
from keras import ops

Tensor = Any


def backend() -> ModuleType:
    """The module of the backend: tensorflow, jax or torch. It is loaded when asked for, and no other."""
    return import_module(keras.backend.backend())


def float32_or_wider(x: Tensor) -> Tensor:
    """The tensor in float32, in which sums are kept; float64 stays.

    Args:
        x: Any numeric tensor.

    Example:
        >>> keras.backend.standardize_dtype(float32_or_wider(ops.zeros(3, "float16")).dtype)
        'float32'
    """
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def jit(**static: Any) -> Callable[[Callable], Callable]:
    """A decorator: ``jax.jit`` on JAX, where a loop would be compiled anew at each eager call; elsewhere no change.

    Args:
        **static: ``static_argnames`` or ``static_argnums`` of ``jax.jit``, the arguments that are no tensors.

    Example:
        >>> float(jit(static_argnums=0)(lambda n, x: n * x)(3, ops.ones(())))
        3.0
    """
    if keras.backend.backend() == "jax":
        return lambda function: backend().jit(function, **static)
    return lambda function: function


def is_known(x: Tensor) -> bool:
    """Whether the value of a tensor can be read: not of a symbol or a mere shape, nor while a graph is traced."""
    if isinstance(x, keras.KerasTensor):
        return False
    if keras.backend.backend() == "tensorflow":
        return backend().executing_eagerly()
    if keras.backend.backend() == "jax":
        return not isinstance(x, backend().core.Tracer)
    return not getattr(x, "is_meta", False)


def all_of(flags: Tensor, axis: tuple[int, ...] | None = None) -> Tensor:
    """``keras.ops.all``, by counting what is False.

    XLA on a CPU vectorizes sums, but no reduction of booleans. And ``keras.ops.all`` and ``any`` stop at several
    axes on torch, up to Keras 3.13, which takes one after the other and counts each as if none were gone.

    Args:
        flags: Booleans.
        axis: The axes that are reduced; None for all.

    Example:
        >>> ops.convert_to_numpy(all_of(ops.convert_to_tensor([[True, True], [True, False]]), (1,))).tolist()
        [True, False]
    """
    return ops.sum(ops.where(flags, 0.0, 1.0), axis=axis) == 0


def largest_along(x: Tensor, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Tensor:
    """``keras.ops.max``, which refuses a tensor without entries, also where none is asked for: of an empty batch.

    Args:
        x: Any numeric tensor.
        axis: The axes that are reduced.
        keepdims: Whether they stay, of size 1.

    Returns:
        The largest entries; 0 where there are none to choose from.

    Example:
        >>> tuple(largest_along(ops.zeros((0, 3)), -1).shape), float(largest_along(ops.arange(3), 0))
        ((0,), 2.0)
    """
    return (ops.sum if 0 in x.shape else ops.max)(x, axis=axis, keepdims=keepdims)


def pad_integers(x: Tensor, widths: tuple[tuple[int, int], ...], value: int) -> Tensor:
    """``keras.ops.pad`` with another number than 0, for which ``tf.vectorized_map`` takes 0 without a word.

    Args:
        x: Integers.
        widths: How many come before and after, on each axis.
        value: What they are.

    Example:
        >>> ops.convert_to_numpy(pad_integers(ops.convert_to_tensor([1, 2]), ((1, 0),), 7)).tolist()
        [7, 1, 2]
    """
    return ops.pad(x - value, widths) + value


def scan(step: Callable, carry: Any, xs: tuple[Tensor, ...], *, reverse: bool = False) -> tuple[Any, Any]:
    """``keras.ops.scan`` over several tensors at once, with a gradient that XLA on TensorFlow can compile.

    Args:
        step: (carry, one entry of each tensor) → (carry, result), the result of the shapes of the carry.
        carry: What the first step is given.
        xs: Tensors of one length.
        reverse: Whether to begin with the last entry.

    Example:
        >>> carry, results = scan(lambda sum, x: (sum + x[0] * x[1], sum), 0, (ops.arange(3), ops.arange(3)))
        >>> int(carry), ops.convert_to_numpy(results).tolist()
        (5, [0, 0, 1])
    """
    if keras.backend.backend() != "tensorflow":
        return ops.scan(step, carry, xs, reverse=reverse)
    tf = backend()
    time = xs[0].shape[0] if xs[0].shape[0] is not None else tf.shape(xs[0])[0]
    carry = tf.nest.map_structure(tf.convert_to_tensor, carry)
    inputs = [tf.TensorArray(x.dtype, time, element_shape=x.shape[1:]).unstack(x) for x in xs]
    results = tf.nest.map_structure(lambda c: tf.TensorArray(c.dtype, time, element_shape=c.shape), carry)

    def turn(i: Tensor, carry: Any, results: Any) -> tuple[Tensor, Any, Any]:
        t = time - 1 - i if reverse else i
        carry, result = step(carry, tuple(x.read(t) for x in inputs))
        return i + 1, carry, tf.nest.map_structure(lambda array, r: array.write(t, r), results, result)

    # Where the number of turns is no more than a condition, XLA has no gradient of the loop.
    state = tf.constant(0), carry, results
    _, carry, results = tf.while_loop(lambda *_: True, turn, state, maximum_iterations=time, parallel_iterations=1)
    return carry, tf.nest.map_structure(lambda array: array.stack(), results)


def fori_loop(count: Any, step: Callable, carry: Any) -> Any:
    """``keras.ops.fori_loop`` from 0, which XLA on TensorFlow can differentiate: it is told the number of turns.

    Args:
        count: Number of turns, an integer or a tensor of one.
        step: (number of the turn, carry) → carry.
        carry: What the first turn is given.

    Example:
        >>> int(fori_loop(4, lambda i, sum: sum + i, ops.zeros((), "int32")))
        6
    """
    if keras.backend.backend() != "tensorflow":
        return ops.fori_loop(0, count, step, carry)
    tf = backend()
    turn = lambda i, carry: (i + 1, step(i, carry))  # noqa: E731
    return tf.while_loop(lambda *_: True, turn, (tf.constant(0), carry), maximum_iterations=count)[1]


def follows_forward(tensors: Sequence[Tensor]) -> bool:
    """Whether derivatives of these are taken along the way, which finds no way through a gradient of our own.

    So do ``tf.autodiff.ForwardAccumulator``, ``torch.autograd.forward_ad`` and all transforms of ``torch.func``.

    Example:
        >>> follows_forward([ops.ones(())])
        False
    """
    if keras.backend.backend() == "tensorflow":
        util = import_module("tensorflow.python.eager.forwardprop_util")
        return bool(util.pack_tangents(list(tensors)).tangents)
    if keras.backend.backend() == "torch":
        torch = backend()
        duals = (torch.autograd.forward_ad.unpack_dual(x).tangent is not None for x in tensors)
        return torch._C._are_functorch_transforms_active() or any(duals)
    return False  # JAX refuses it by name


def is_vectorized() -> bool:
    """Whether this is traced for ``tf.vectorized_map``, which nothing but the name of its scope tells.

    It copies each operation, but not which gradient it was given. A tape around it goes through the operations.

    Example:
        >>> is_vectorized()
        False
    """
    if keras.backend.backend() != "tensorflow" or backend().executing_eagerly():
        return False
    graph = backend().compat.v1.get_default_graph()
    while graph is not None:  # a branch, or the body of a loop, is a graph in a graph
        if re.search(r"(^|/)loop_body(_\d+)?(/|$)", graph.get_name_scope()):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def custom_gradient(function: Callable) -> Callable:
    """``keras.ops.custom_gradient``, of which nothing is left when a graph of TensorFlow is gone.

    TensorFlow keeps the gradient of every graph by a name, for ever, and with it the graph: each model that trained
    a CRF would leave 45 MB. So here the graph keeps its gradients, and the name leads to them while it lives.

    Args:
        function: (*inputs) → (outputs, gradient), as in ``keras.ops.custom_gradient``.

    Example:
        >>> clipped = custom_gradient(lambda x: (x, lambda *args, upstream=None: ops.clip(args[0], -1, 1)))
        >>> float(clipped(ops.ones(())))
        1.0
    """
    decorated = ops.custom_gradient(function)

    def called(*inputs: Tensor) -> Any:
        if keras.backend.backend() != "tensorflow" or backend().executing_eagerly():
            return decorated(*inputs)
        # Tensors of this graph: the gradient of a gradient is made in a third, which cannot reach into the first.
        outputs = decorated(*map(backend().identity, inputs))
        _kept_by_its_graph(outputs)
        return outputs

    return called


def _kept_by_its_graph(outputs: Any) -> None:
    operation = backend().nest.flatten(outputs)[0].op
    try:
        name = operation.get_attr("_gradient_op_type").decode()
        gradients = import_module("tensorflow.python.framework.ops").gradient_registry._registry
        gradient = gradients[name]["type"]
    except (AttributeError, KeyError, ValueError):  # a TensorFlow that keeps them elsewhere
        return
    graph, found = operation.graph, weakref.ref(gradient)
    if not hasattr(graph, "_own_gradients"):
        graph._own_gradients = []
    graph._own_gradients.append(gradient)
    gradients[name]["type"] = lambda *args: found()(*args)
    weakref.finalize(graph, gradients.pop, name, None).atexit = False


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
        outputs, pullback, others = backend().vjp(function, *inputs, has_aux=True)
        return outputs, others, pullback
    if keras.backend.backend() == "tensorflow":
        inputs = tuple(map(backend().identity, inputs))  # of one that is given twice, a tape knows only the total
        with backend().GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs, others = function(*inputs)
        return outputs, others, lambda g: tape.gradient(outputs, inputs, g, unconnected_gradients="zero")
    torch = backend()
    with torch.enable_grad():
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        outputs, others = function(*inputs)
    return outputs, others, lambda g: torch.autograd.grad(outputs, inputs, g, materialize_grads=True)


def cond(
    holds: Tensor, if_true: Callable, if_false: Callable, *inputs: Tensor, given: tuple[Tensor, ...] = ()
) -> tuple[Tensor, ...]:
    """``keras.ops.cond`` of functions that may hold loops, with a gradient that XLA on TensorFlow can compile.

    There a branch hands to the gradient all that this may need, and if it is not taken zeros in its place; XLA has
    none for what a loop has kept. So in a graph the gradient is a branch of its own, which computes anew.

    Args:
        holds: A boolean scalar.
        if_true: (*inputs, *given) → a tuple of tensors.
        if_false: Likewise, of the same shapes.
        *inputs: Tensors of floats, which have a gradient.
        given: Tensors that have none. The functions read no others: the gradient of a gradient is made in another
            graph, where none is at hand that was not given.

    Example:
        >>> (x,) = cond(ops.ones((), "bool"), lambda x: (2 * x,), lambda x: (x,), ops.ones(()))
        >>> float(x)
        2.0
    """

    def either(*tensors: Tensor) -> tuple[Tensor, ...]:
        return ops.cond(holds, lambda: if_true(*tensors), lambda: if_false(*tensors))

    if keras.backend.backend() != "tensorflow" or backend().executing_eagerly():
        return either(*inputs, *given)
    holds, count = backend().identity(holds), len(inputs)

    @custom_gradient
    def chosen(*tensors: Tensor) -> tuple[tuple[Tensor, ...], Callable]:
        inputs, given = tensors[:count], tensors[count:]

        def gradient(*upstream: Tensor) -> tuple[Tensor | None, ...]:
            slopes = (_slopes(function, count, len(upstream)) for function in (if_true, if_false))
            return *cond(holds, *slopes, *inputs, *upstream, given=given), *(None for _ in given)

        # Nested tapes would else prepare derivatives of the branches as they stand.
        unseen = tensors if is_vectorized() else map(backend().stop_gradient, tensors)
        return either(*unseen), gradient

    return chosen(*inputs, *given)


def _slopes(function: Callable, inputs: int, outputs: int) -> Callable:
    """(inputs of a function, gradients of its outputs, what it is given) → gradients of the inputs."""

    def slopes(*tensors: Tensor) -> tuple[Tensor, ...]:
        upstream, given = tensors[inputs : inputs + outputs], tensors[inputs + outputs :]
        return tuple(vjp(lambda *x: (function(*x, *given), None), *tensors[:inputs])[2](upstream))

    return slopes
