"""Memory and time of one way to cut a chain, and the costs of its links, from which plans are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations
from time import perf_counter
from typing import Any

import keras
import numpy as np
from keras import ops

from lib.experiments.recompute.formulas import expected
from lib.experiments.recompute.networks import bytes_of, encoder, gradient_step, thin
from lib.recompute import Cost, Link, Segment, checkpoint_sequence, links, recompute
from lib.workbench import measure
from lib.workbench.records import Record

Tensor = Any
Row = dict[str, Any]

#: Ways to cut, besides those of ``checkpoint_sequence``, a number of segments, and cuts such as "0-3-7".
WAYS: dict[str, Callable[[list[keras.layers.Layer]], list[keras.layers.Layer]]] = {
    "none": list,
    "whole": lambda layers: [recompute(Segment(layers))],
    "operations": lambda layers: [recompute(piece) for layer in layers for piece in _operations(layer)],
    "twice": lambda layers: [recompute(recompute(layer)) for layer in layers],
    "nested": lambda layers: [
        recompute(Segment([recompute(layer) for layer in layers[i : i + 4]])) for i in range(0, len(layers), 4)
    ],
}


def _operations(dense: keras.layers.Dense) -> list[keras.layers.Layer]:
    """A dense layer as its two operations, a product and a function of each number."""
    linear = Link(lambda x: ops.matmul(x, dense.kernel) + dense.bias, [dense], name="linear")
    return [linear, Link(dense.activation, name="activation")]


def cut(way: str, layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """The layers, cut in a way.

    Args:
        way: of :data:`WAYS`: "none", "whole" (the network is one segment), "operations" (each one of a dense layer
            is a segment), "twice" (each layer is recomputed, and that again), "nested" (segments of four layers,
            of which each is recomputed). Or as in ``lib.recompute.checkpoint_sequence``: "layers", "norms",
            "sqrt", a number, or the first links, "0-3-7"; the last segment is left as it is.
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
    try:
        return measure.peak_memory(build(way, kind, mode, **sizes)).bytes
    except measure.UnmeasurableError:
        return measure.peak_memory_in_fresh_process(build, way=way, kind=kind, mode=mode, **sizes).bytes


def segments(way: str, kind: str, rounds: int = 8, mode: str | None = None, **sizes: Any) -> Row:
    """Memory and time of a step of training, for one way to cut. One case of a sweep.

    Args:
        way: as in :func:`cut`.
        kind: of the :func:`network`.
        rounds: of the contest against the network that is not cut; 0 to take no time.
        mode: as in ``networks.gradient_step``.
        **sizes: of the network.

    Returns:
        "bytes", as :func:`held_by`. With ``rounds`` also "seconds" of a step and "ratio", the time over that of
        "none", with its 95 % interval "low" to "high". Or {"out_of_memory": True}.

    Raises:
        ValueError: an unknown way or kind, or less than 6 rounds.

    Example:
        >>> row = segments("sqrt", "thin", rounds=0, layers=9, units=256, batch=512)
        >>> row["bytes"] > 0
        True
    """

    def measured() -> Row:
        row: Row = {"bytes": held_by(way, kind, mode, **sizes)}
        if rounds:
            race = measure.contest(
                {name: build(name, kind, mode, **sizes) for name in dict.fromkeys(("none", way))}, repeats=rounds
            )
            ratio = race.ratio(way, "none")
            row |= {"seconds": race[way].median, "ratio": ratio.value, "low": ratio.low, "high": ratio.high}
        return row

    return measure.attempt(measured) or {"out_of_memory": True}


def all_cuts(n: int) -> list[str]:
    """All 2ⁿ⁻¹ ways to cut n links into segments, as names.

    Example:
        >>> all_cuts(3)
        ['0', '0-1', '0-2', '0-1-2']
    """
    inner = (chosen for k in range(n) for chosen in combinations(range(1, n), k))
    return ["-".join(map(str, (0, *chosen))) for chosen in inner]


def frontier(cuts: str, **sizes: Any) -> Row:
    """Memory and time of an encoder for one of :func:`all_cuts`, operation by operation. One case of a sweep.

    There are thousands of them, so a case is two steps: the memory is that of the second, and the time that of the
    faster one.

    Args:
        cuts: the first block of each segment, "0-3-7"; the last segment is left as it is.
        **sizes: of the encoder.

    Returns:
        "bytes" and "seconds".

    Example:
        >>> row = frontier("0-1", layers=2, hidden=64, heads=2, time=64, batch=32)
        >>> row["bytes"] > 0 and row["seconds"] > 0
        True
    """
    layers, x = network("encoder", **sizes)
    starts = [sum(len(links([block])) for block in layers[:i]) for i in map(int, cuts.split("-"))]
    step, seconds = gradient_step([checkpoint_sequence(layers, starts)], x, "eager"), []

    def timed_step() -> Any:
        start = perf_counter()
        result = measure.ready(step())
        seconds.append(perf_counter() - start)
        return result

    return {"bytes": measure.peak_memory(timed_step).bytes, "seconds": min(seconds)}


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


# --- the costs of links -----------------------------------------------------------------------------------


def costs_of(pieces: Sequence[keras.layers.Layer], x: Tensor, rounds: int = 8) -> list[Cost]:
    """The cost of each link of a chain, measured link by link.

    A link is trained alone, and as a chain of three of it. Half of what the other two add to the peak is what it
    keeps, ``inner``; what the peak of one has beyond that is ``working``. The time that recomputation adds to a
    step of the link is ``seconds`` − ``tail``, and the forward pass alone takes ``seconds``.

    Args:
        pieces: built links whose output has the shape of their input; equal ones need not be given twice.
        x: inputs.
        rounds: of each contest.

    Example:
        >>> layers, x = thin(1, units=64, batch=32)
        >>> [cost] = costs_of(layers, x, rounds=6)
        >>> cost.boundary == bytes_of(x) and cost.tail <= cost.seconds
        True
    """
    return [_cost(piece, x, rounds) for piece in pieces]


def _cost(piece: keras.layers.Layer, x: Tensor, rounds: int) -> Cost:
    one, three = (measure.peak_memory(gradient_step([piece] * times, x)).bytes for times in (1, 3))
    inner = (three - one) // 2
    race = measure.contest(
        {
            "forward": forward_pass(piece, x),
            "kept": gradient_step([piece], x),
            "recomputed": gradient_step([recompute(piece)], x),
        },
        repeats=rounds,
    )
    again = [b - a for a, b in zip(race["kept"].samples, race["recomputed"].samples, strict=True)]
    seconds, again = race["forward"].median, float(np.median(again))
    return Cost(
        bytes_of(x), max(inner, 0), max(one - inner, 0), seconds, float(np.clip(seconds - again, 0, seconds))
    )


def forward_pass(piece: keras.layers.Layer, x: Tensor) -> Callable[[], Tensor]:
    """The forward pass alone, compiled as a step is.

    Example:
        >>> layers, x = thin(1, units=4, batch=2)
        >>> tuple(forward_pass(layers[0], x)().shape)
        (2, 4)
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(lambda x: piece(x, training=True), autograph=False)
        compiled = function.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
        return lambda: compiled(x)
    if backend == "torch":
        import torch

        def forward() -> Tensor:
            with torch.no_grad():
                return piece(x, training=True)

        return forward
    import jax

    weights = [v.value for v in piece.trainable_variables], [v.value for v in piece.non_trainable_variables]
    compiled = jax.jit(lambda weights, x: piece.stateless_call(*weights, x, training=True)[0])
    return lambda: compiled(weights, x)


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

    network, saved = Segment(layers), {}
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
