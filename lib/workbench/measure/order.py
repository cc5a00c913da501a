"""A graph of TensorFlow in the order of its program, so that what it holds at its peak is one number.

A graph has no order but that of its data. TensorFlow's executor starts whatever is ready on whichever thread is
free: a buffer is freed earlier or later, and the peak of one and the same graph changes from call to call, and from
process to process. Here each operation waits for the one that was made before it. One order is left, that in which
the program was written, whatever the threads do; buffers are still reused in place, and nothing is kept for Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def in_program_order(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function with its graph in the order of the program.

    Args:
        function: a ``functools.partial`` of a ``tf.function`` with all its arguments. Everything else is returned
            as it is: it runs in the order of its program already, or XLA gave it one, or its graph is out of reach.

    Returns:
        A function of no arguments that computes the same, as a flat list of tensors.
    """
    import numpy as np
    import tensorflow as tf

    traced = getattr(function, "func", None)
    if not hasattr(traced, "get_concrete_function") or is_compiled(function):
        return function
    concrete = traced.get_concrete_function(*function.args, **function.keywords)
    definition = _in_order(tf, concrete)
    inputs, outputs = ([tensor.name for tensor in some] for some in (concrete.inputs, concrete.outputs))

    def ordered(*tensors: Any) -> list[Any]:
        return tf.graph_util.import_graph_def(
            definition, input_map=dict(zip(inputs, tensors, strict=True)), return_elements=outputs, name=""
        )

    arguments = tf.nest.flatten((function.args, function.keywords))
    tensors = [tf.convert_to_tensor(x) for x in arguments if tf.is_tensor(x) or isinstance(x, np.ndarray)]
    tensors += concrete.captured_inputs
    # Concrete at once: a new function for each measurement would look to TensorFlow like one that is traced anew.
    return functools.partial(tf.function(ordered, autograph=False).get_concrete_function(*tensors), *tensors)


def is_compiled(function: Callable[[], Any]) -> bool:
    """Whether it is a ``tf.function`` for XLA, or a partial of one.

    Example:
        >>> is_compiled(print)
        False
    """
    return bool(getattr(getattr(function, "func", function), "_jit_compile", False))


def _in_order(tf: Any, concrete: Any) -> Any:
    """The definition of the graph, in which each operation waits for the one before, in loops and branches too."""
    definition = concrete.graph.as_graph_def()
    arguments = {tensor.op.name for tensor in concrete.inputs}
    wanted = [*(tensor.op.name for tensor in concrete.outputs), *(op.name for op in concrete.graph.control_outputs)]
    _wait_in_turn([node for node in definition.node if node.name not in arguments], wanted)
    for body in definition.library.function:
        _wait_in_turn(body.node_def, [*map(_maker, body.ret.values()), *body.control_ret.values()])
    for nodes in (definition.node, *(body.node_def for body in definition.library.function)):
        for node in nodes:
            if "parallel_iterations" in node.attr:
                node.attr["parallel_iterations"].CopyFrom(tf.compat.v1.AttrValue(i=1))
    return definition


def _wait_in_turn(nodes: Iterable[Any], wanted: Iterable[str]) -> None:
    """Lets each node that is wanted, or that another one needs, wait for the one before it."""
    before = None
    for node in _sorted({node.name: node for node in nodes}, wanted):
        if before is not None and f"^{before}" not in node.input:
            node.input.append(f"^{before}")
        before = node.name


def _sorted(nodes: dict[str, Any], wanted: Iterable[str]) -> Sequence[Any]:
    """The nodes that are needed, in the order in which they were made, but none before what it needs."""
    needs = {name: [maker for maker in map(_maker, node.input) if maker in nodes] for name, node in nodes.items()}
    needed, open_ones = set(), [name for name in wanted if name in nodes]
    while open_ones:
        if (name := open_ones.pop()) not in needed:
            needed.add(name)
            open_ones += needs[name]
    done: dict[str, Any] = {}
    for first in filter(needed.__contains__, nodes):
        stack = [first]
        while stack:
            waiting = [name for name in needs[stack[-1]] if name not in done]
            if waiting:
                stack += reversed(waiting)
            else:
                name = stack.pop()
                done[name] = nodes[name]
    return list(done.values())


def _maker(name: str) -> str:
    """The operation that makes a tensor, or that is waited for.

    Example:
        >>> _maker("dense/MatMul:product:0"), _maker("^dense/MatMul")
        ('dense/MatMul', 'dense/MatMul')
    """
    return name.removeprefix("^").partition(":")[0]
