"""What one way to cut a chain takes: memory, multiplications, time; and what a layer keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import keras
import numpy as np
from keras import ops

from lib.bert import Block
from lib.experiments.recompute.formulas import expected
from lib.experiments.recompute.networks import encoder, gradient_step, thin
from lib.recompute import Cost, LayerSequence, Link, checkpoint_sequence, links, recompute
from lib.workbench import measure
from lib.workbench.records import Record

Tensor = Any
Row = dict[str, Any]

#: Ways to cut, besides those of ``checkpoint_sequence``, a number of segments, and cuts such as "0-3-7".
WAYS: dict[str, Callable[[list[keras.layers.Layer]], list[keras.layers.Layer]]] = {
    "none": list,
    "whole": lambda layers: [recompute(LayerSequence(layers))],
    "operations": lambda layers: [recompute(piece) for layer in layers for piece in _operations(layer)],
    "article": lambda layers: [piece for block in layers for piece in _sublayers(block)],
}


def _operations(dense: keras.layers.Dense) -> list[keras.layers.Layer]:
    """A dense layer as its two operations, a product and a function of each number."""
    linear = Link(lambda x: ops.matmul(x, dense.kernel) + dense.bias, [dense], name="linear")
    return [linear, Link(dense.activation, name="activation")]


def _sublayers(block: Block) -> list[keras.layers.Layer]:
    """A block of which each layer is recomputed by itself, as the article does: attention, norms, feed-forward."""
    network = Link(lambda x: block.contract(block.expand(x)), [block.expand, block.contract])
    return [
        _added(recompute(block.attention), block.attention_dropout),
        recompute(block.attention_norm),
        _added(recompute(network), block.dropout),
        recompute(block.norm),
    ]


def _added(layer: keras.layers.Layer, dropout: keras.layers.Layer) -> Link:
    """The input, and added to it what a layer makes of it, after a dropout."""
    return Link(lambda x, training: x + dropout(layer(x, training=training), training=training), [layer, dropout])


def cut(way: str, layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """The layers, cut in a way.

    Args:
        way: of :data:`WAYS`: "none", "whole" (the network is one segment), "operations" (each one of a dense layer
            is a segment), "article" (each layer of a block is recomputed: attention, norms, feed-forward network,
            not the dropouts and sums between them). Or as in ``lib.recompute.checkpoint_sequence``: "layers",
            "norms", "sqrt", a number, or the first links, "0-3-7"; the last segment is left as it is.
        layers: built.

    Raises:
        ValueError: an unknown way.

    Example:
        >>> layers, x = thin(6, units=4, batch=2)
        >>> [len(cut(way, layers)) for way in ("none", "whole", "operations", "0-3")]
        [6, 1, 12, 1]
    """
    if way in WAYS:
        return WAYS[way](layers)
    if way.replace("-", "").isdigit():
        where = [int(part) for part in way.split("-")]
        return [checkpoint_sequence(layers, where if "-" in way else where[0])]
    return [checkpoint_sequence(layers, way)]


@cache
def network(kind: str, **sizes: Any) -> tuple[list[keras.layers.Layer], Tensor]:
    """The layers and inputs of a network, made once.

    Args:
        kind: "encoder" or "thin", see :mod:`.networks`.
        **sizes: arguments of the function of this name.

    Raises:
        ValueError: another kind.

    Example:
        >>> len(network("thin", layers=3, units=4, batch=2)[0])
        3
    """
    kinds = {"encoder": encoder, "thin": thin}
    if kind not in kinds:
        raise ValueError(f"kind must be 'encoder' or 'thin', got {kind!r}")
    return kinds[kind](**sizes)


def build(way: str, kind: str, mode: str | None = None, **sizes: Any) -> Callable[[], list[Tensor]]:
    """A step of training of a network that is cut in a way.

    Args:
        way: as in :func:`cut`.
        kind: of the :func:`network`.
        mode: as in ``networks.gradient_step``.
        **sizes: of the network.

    Example:
        >>> len(build("sqrt", "thin", layers=4, units=4, batch=2)()) >= 2
        True
    """
    layers, x = network(kind, **sizes)
    return gradient_step(cut(way, layers), x, mode)


def held_by(way: str, kind: str, mode: str | None = None, **sizes: Any) -> int:
    """Bytes that such a step holds at most, beyond weights and inputs; in a fresh process where it must be.

    Args:
        way: as in :func:`build`.
        kind: likewise.
        mode: likewise.
        **sizes: likewise.

    Example:
        >>> held_by("none", "thin", layers=3, units=256, batch=512) > 3 * 2**19
        True
    """
    return _held(build(way, kind, mode, **sizes), way=way, kind=kind, mode=mode, **sizes)


def _held(step: Callable[[], Any], **case: Any) -> int:
    """Bytes that a step of :func:`build` holds; in a fresh process, which builds it anew, where it must be."""
    try:
        return measure.peak_memory(step).bytes
    except measure.UnmeasurableError:
        return measure.peak_memory_in_fresh_process(build, **case).bytes


def memory(way: str, kind: str, **sizes: Any) -> Row:
    """Memory of a step of training, for one way to cut. One case of a sweep.

    Args:
        way: as in :func:`cut`.
        kind: of the :func:`network`.
        **sizes: of the network.

    Returns:
        "bytes", as :func:`held_by`; on TensorFlow also "products", as :func:`products`. Or {"out_of_memory": True}.

    Example:
        >>> memory("sqrt", "thin", layers=9, units=256, batch=512)["bytes"] > 0
        True
    """

    def measured() -> Row:
        step = build(way, kind, **sizes)
        row: Row = {"bytes": _held(step, way=way, kind=kind, **sizes)}
        if keras.backend.backend() == "tensorflow":
            row["products"] = products(step.func.get_concrete_function(*step.args))
        return row

    return measure.attempt(measured) or {"out_of_memory": True}


def products(graph: Any) -> int:
    """Multiplications in the products of matrices that the outputs of a graph of TensorFlow wait for.

    Args:
        graph: a concrete function.

    Example:
        >>> import tensorflow as tf
        >>> x = tf.ones((2, 3))
        >>> products(tf.function(lambda x: x @ tf.ones((3, 5))).get_concrete_function(x))
        30
    """
    found, waiting = set(), [tensor.op for tensor in graph.outputs]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    return sum(_multiplications(operation) for operation in found if "MatMul" in operation.type)


def _multiplications(product: Any) -> int:
    """Entries of the result, times the entries that are summed for each of them."""
    transposed = any(product.get_attr(name) for name in ("transpose_a", "adj_x") if name in product.node_def.attr)
    summed = product.inputs[0].shape[-2 if transposed else -1]
    return math.prod(product.outputs[0].shape) * summed


def race(way: str, kind: str, rounds: int = 24, **sizes: Any) -> Row:
    """Time of a step of training, for one way to cut, against that of the network that is not cut. One case.

    Args:
        way: as in :func:`cut`.
        kind: of the :func:`network`.
        rounds: of the contest, at least 6.
        **sizes: of the network.

    Returns:
        "seconds" of a step, and "ratio", the time over that of "none", with its 95 % interval "low" to "high".

    Example:
        >>> row = race("sqrt", "thin", rounds=6, layers=9, units=16, batch=8)
        >>> row["low"] <= row["ratio"] <= row["high"]
        True
    """
    contest = measure.contest({name: build(name, kind, **sizes) for name in ("none", way)}, repeats=rounds)
    ratio = contest.ratio(way, "none")
    return {"seconds": contest[way].median, "ratio": ratio.value, "low": ratio.low, "high": ratio.high}


def timeline(way: str, kind: str, points: int = 400, **sizes: Any) -> Row:
    """What a step of training holds, from its first operation to its last, on torch. One case of a sweep.

    Args:
        way: as in :func:`cut`.
        kind: of the :func:`network`.
        points: into which the step is divided, by the allocations and releases of memory.
        **sizes: of the network.

    Returns:
        "held", the most bytes held in each part.

    Raises:
        NotImplementedError: the backend is not torch.
    """
    if keras.backend.backend() != "torch":
        raise NotImplementedError("only torch tells when it takes and releases memory")
    held = np.maximum(0, measure.held_over_time(build(way, kind, **sizes)))
    return {"held": [int(part.max()) for part in np.array_split(held, points) if part.size]}


def all_cuts(n: int) -> list[str]:
    """All 2ⁿ⁻¹ ways to cut n links into segments, as names.

    Example:
        >>> all_cuts(3)
        ['0', '0-1', '0-2', '0-1-2']
    """
    inner = (chosen for k in range(n) for chosen in combinations(range(1, n), k))
    return ["-".join(map(str, (0, *chosen))) for chosen in inner]


def frontier(cuts: str, **sizes: Any) -> Row:
    """Memory of an encoder for one of :func:`all_cuts`, operation by operation. One case of a sweep.

    Args:
        cuts: the first block of each segment, "0-3-7"; the last segment is left as it is.
        **sizes: of the encoder.

    Returns:
        "bytes".

    Example:
        >>> frontier("0-1", layers=2, hidden=64, heads=2, time=64, batch=32)["bytes"] > 0
        True
    """
    layers, x = network("encoder", **sizes)
    starts = [sum(len(links([block])) for block in layers[:i]) for i in map(int, cuts.split("-"))]
    step = gradient_step([checkpoint_sequence(layers, starts)], x, "eager")
    return {"bytes": measure.peak_memory(step).bytes}


def cost_of_a_block(record: Record) -> Cost:
    """What a forecast needs, from a record of :func:`frontier`: bytes counted by hand, and one number fitted.

    Returns:
        The cost of a block. ``inner`` is that of ``formulas.layer_bytes`` in float32; ``working`` is what the
        network that is not cut holds beyond its forecast; ``seconds`` is 1.

    Example:
        >>> from lib.workbench.measure import Device
        >>> row = {"cuts": "0", "bytes": 12000, "layers": 2, "hidden": 8, "heads": 2, "time": 4, "batch": 2}
        >>> cost_of_a_block(Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", (row,)))
        Cost(boundary=256, inner=5376, working=992, seconds=1.0, tail=0.0)
    """
    row = next(row for row in record.rows if row["cuts"] == "0")
    boundary = 4 * row["batch"] * row["time"] * row["hidden"]
    inner = expected({"dropout": 0.1, **row}, mask=4)
    return Cost(boundary, inner, row["bytes"] - row["layers"] * inner - boundary)


def kept_by_a_layer(kind: str = "encoder", **sizes: Any) -> Row:
    """Bytes that a layer in the middle of a network keeps: half of what two more of them add to the peak of a step.

    Args:
        kind: of the :func:`network`.
        **sizes: of the network, without the number of layers.

    Returns:
        "bytes". On torch also "saved", the bytes of all tensors that the gradient of a layer holds on to, each
        storage once, without the weights.

    Example:
        >>> kept_by_a_layer("thin", units=128, batch=8192)["bytes"] >= 2**21
        True
    """
    two, four = (held_by("none", kind, layers=layers, **sizes) for layers in (2, 4))
    row: Row = {"bytes": (four - two) // 2}
    if keras.backend.backend() == "torch":
        row["saved"] = saved_bytes(*network(kind, layers=1, **sizes))
    return row


def saved_bytes(layers: Sequence[keras.layers.Layer], x: Tensor) -> int:
    """On torch, the bytes of all tensors that the gradient of some layers holds on to, each storage once.

    Weights are left out, the inputs are not. torch calls a hook for every tensor that it saves.

    Args:
        layers: applied in their order.
        x: inputs of the first.

    Raises:
        NotImplementedError: the backend is not torch.

    Example:
        >>> layers, x = thin(1, units=4, batch=2)
        >>> saved_bytes(layers, x) if keras.backend.backend() == "torch" else 64
        64
    """
    if keras.backend.backend() != "torch":
        raise NotImplementedError("only torch tells which tensors it saves")
    import torch

    network, saved = LayerSequence(layers), {}
    network.build(tuple(x.shape))
    weights = {weight.value.untyped_storage().data_ptr() for weight in network.weights}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        network(x.detach().requires_grad_(), training=True)
    return sum(saved.values())
