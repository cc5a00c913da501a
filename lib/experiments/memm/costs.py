"""Seconds and bytes: losses, decoders, training steps, large tag sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from keras import ops

from lib import chain, memm
from lib.bert import Encoder
from lib.experiments.memm.models import MODELS, head_of, log_likelihood
from lib.memm import MEMM
from lib.tagging import Tagger
from lib.workbench import measure

#: From emissions and transitions to tags and their score.
DECODERS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "softmax": lambda f, g: (ops.argmax(f, axis=-1), ops.sum(ops.max(ops.log_softmax(f), axis=-1), axis=-1)),  # noqa: ARG005
    "memm, greedy": memm.greedy,
    "memm": memm.viterbi,
    "crf": chain.viterbi,
}


@cache
def compiled_decoder(name: str, mode: str = "xla") -> Callable[[Any, Any], tuple[Any, Any]]:
    """A decoder of :data:`DECODERS`, compiled."""
    return compiled(DECODERS[name], mode)


MODES = ("graph", "xla")


def compiled(function: Callable[..., Any], mode: str = "xla") -> Callable[..., Any]:
    """A function of tensors, compiled as the backend can.

    Args:
        function: of tensors.
        mode: on TensorFlow "graph" or "xla"; JAX has its XLA only, and torch runs the function as it is.

    Raises:
        ValueError: an unknown mode.

    Example:
        >>> float(compiled(lambda x: x + 1)(ops.ones(())))
        2.0
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=mode == "xla", autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def value_and_gradients(loss: Callable[..., Any], mode: str = "xla") -> Callable[..., Any]:
    """A scalar function of tensors with its gradients by the first two of them, :func:`compiled`.

    Args:
        loss: of at least two tensors, such as emissions, transitions and tags.
        mode: as in :func:`compiled`.

    Returns:
        A function of the same tensors: (value, (gradient, gradient)), a gradient being 0 by what has no influence.

    Example:
        >>> value, (left, right) = value_and_gradients(lambda a, b: a * b)(ops.ones(()), ops.zeros(()))
        >>> float(value), float(left), float(right)
        (0.0, 0.0, 1.0)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def gradients(*tensors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors[:2])
                value = loss(*tensors)
            return value, tape.gradient(value, tensors[:2], unconnected_gradients="zero")

    elif keras.backend.backend() == "jax":
        import jax

        gradients = jax.value_and_grad(loss, argnums=(0, 1))
    else:
        import torch

        def gradients(*tensors: Any) -> Any:
            leaves = tuple(tensor.detach().requires_grad_() for tensor in tensors[:2])
            value = loss(*leaves, *tensors[2:])
            found = torch.autograd.grad(value, leaves, allow_unused=True)
            pairs = zip(found, leaves, strict=True)
            return value.detach(), tuple(torch.zeros_like(x) if g is None else g for g, x in pairs)

    return compiled(gradients, mode)


def _random_chain(batch: int, length: int, tags: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Emissions, transitions and tags."""
    rng = np.random.default_rng(seed)
    return (
        ops.convert_to_tensor(rng.standard_normal((batch, length, tags)).astype("float32")),
        ops.convert_to_tensor(rng.standard_normal((tags, tags)).astype("float32")),
        ops.convert_to_tensor(rng.integers(0, tags, (batch, length)).astype("int32")),
    )


def loss_times(
    length: int, tags: int, *, batch: int = 8, mode: str = "xla", repeats: int = 9, models: Sequence[str] = MODELS
) -> dict[str, Any]:
    """Seconds of a loss with its gradients by emissions and transitions, models in turns.

    Args:
        length: steps of a sequence.
        tags: number of tags.
        batch: number of sequences.
        mode: as in :func:`compiled`.
        repeats: rounds, at least 6.
        models: of :data:`MODELS`.

    Returns:
        "samples": the seconds of each round by model, from which :func:`contest_of` makes a contest.

    Raises:
        ValueError: an unknown model or mode.

    Example:
        >>> race = contest_of(loss_times(8, 3, repeats=6, models=("softmax", "crf")))
        >>> race["crf"].median > 0
        True
    """
    f, g, y = _random_chain(batch, length, tags)

    def contestant(model: str) -> Callable[[], Any]:
        step = value_and_gradients(lambda f, g, y: -ops.sum(log_likelihood(model, y, f, g)), mode)
        return lambda: step(f, g, y)

    return _samples({model: contestant(model) for model in models}, repeats)


def decoding_times(
    length: int, tags: int, *, batch: int = 8, mode: str = "xla", repeats: int = 9
) -> dict[str, Any]:
    """Seconds of decoding: Viterbi for the CRF and for the MEMM, greedy for the MEMM, the best tag for softmax.

    Args:
        length: as in :func:`loss_times`.
        tags: as in :func:`loss_times`.
        batch: as in :func:`loss_times`.
        mode: as in :func:`compiled`.
        repeats: as in :func:`loss_times`.

    Returns:
        As :func:`loss_times`, for "softmax", "memm, greedy", "memm" and "crf".

    Example:
        >>> sorted(decoding_times(8, 3, repeats=6)["samples"])
        ['crf', 'memm', 'memm, greedy', 'softmax']
    """
    f, g, _ = _random_chain(batch, length, tags)
    return _samples({name: partial(compiled_decoder(name, mode), f, g) for name in DECODERS}, repeats)


def step_times(
    layers: int,
    length: int,
    *,
    width: int = 128,
    tags: int = 4,
    batch: int = 8,
    mode: str = "xla",
    repeats: int = 6,
    models: Sequence[str] = MODELS,
) -> dict[str, Any]:
    """Seconds of a whole training step, with a transformer of random weights as the encoder, models in turns.

    Args:
        layers: blocks of the transformer.
        length: tokens of a sentence.
        width: of the transformer, a multiple of 64; the inner layer is four times as wide.
        tags: number of tags.
        batch: sentences a step.
        mode: as in :func:`compiled`.
        repeats: as in :func:`loss_times`.
        models: as in :func:`loss_times`.

    Returns:
        As :func:`loss_times`.

    Raises:
        ValueError: an unknown model or mode.

    Example:
        >>> list(step_times(1, 8, width=64, batch=2, mode="graph", models=("softmax",))["samples"])
        ['softmax']
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 1000, (batch, length)).astype("int32")
    y = rng.integers(0, tags, (batch, length)).astype("int32")

    def contestant(model: str) -> Callable[[], Any]:
        encoder = Encoder.from_sizes(1000, width, layers, width // 64, 4 * width, positions=length, dropout=0.0)
        tagger = Tagger(keras.Sequential([encoder, keras.layers.Dense(tags)]), head_of(model, tags))
        tagger.compile("adam", jit_compile=_jit(mode))
        return lambda: tagger.train_on_batch(ids, y)

    return _samples({model: contestant(model) for model in models}, repeats)


def _jit(mode: str) -> bool:
    """What ``compile`` must be told for a mode."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    return keras.backend.backend() == "jax" or (mode == "xla" and keras.backend.backend() == "tensorflow")


def _samples(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    race = measure.contest(contestants, repeats=repeats)
    return {"samples": {name: list(timing.samples) for name, timing in race.timings.items()}}


def contest_of(row: dict[str, Any]) -> measure.Contest:
    """The contest behind a row of a record, or behind the result of :func:`loss_times` and its like.

    Example:
        >>> print(contest_of({"samples": {"crf": [0.25] * 6, "memm": [0.125] * 6}}).ratio("crf", "memm"))
        2
    """
    return measure.Contest({name: measure.Timing(tuple(samples)) for name, samples in row["samples"].items()})


#: Who can have large tag sets: transitions in factors of 64 columns, or one number for each pair of tags.
LARGE = ("memm, low rank", "memm", "crf")


def large_step(
    model: str, tags: int, *, rank: int = 64, width: int = 64, batch: int = 8, length: int = 32
) -> Callable[[], Any]:
    """A training step with many tags: emissions are linear in given states, the optimizer is SGD.

    Args:
        model: of :data:`LARGE`, or "softmax".
        tags: |V|.
        rank: columns of the factors.
        width: of the states.
        batch: sentences.
        length: tokens a sentence.

    Returns:
        The step; its attribute ``parameters`` counts the numbers that stand for the transitions.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> step = large_step("memm, low rank", 1000, rank=8)
        >>> step.parameters
        16000
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, length, width)).astype("float32")
    y = rng.integers(0, tags, (batch, length)).astype("int32")
    head = MEMM(tags, rank=rank, direction="forward") if model == "memm, low rank" else head_of(model, tags)
    tagger = Tagger(keras.layers.Dense(tags), head)
    tagger.compile(keras.optimizers.SGD(0.1), jit_compile=keras.backend.backend() == "jax")
    tagger.build(x.shape)

    def step() -> Any:
        return tagger.train_on_batch(x, y)

    step.parameters = head.count_params()
    return step


def large_cost(
    model: str, tags: int, *, rank: int = 64, width: int = 64, batch: int = 8, length: int = 32, repeats: int = 5
) -> dict[str, Any]:
    """Parameters, peak memory and seconds of :func:`large_step`.

    Args:
        model: as in :func:`large_step`.
        tags: as in :func:`large_step`.
        rank: as in :func:`large_step`.
        width: as in :func:`large_step`.
        batch: as in :func:`large_step`.
        length: as in :func:`large_step`.
        repeats: steps that are timed.

    Returns:
        "parameters" of the transitions; "bytes", the peak of a step beyond the weights, measured in a process of
        its own, and "method"; "seconds", the samples. On a CPU TensorFlow does not count blocks below a mebibyte
        or so: the bytes of some hundred tags can be 0.

    Raises:
        MemoryError: the memory does not suffice, which a sweep records.
        ValueError: as :func:`large_step`.
    """
    sizes = {"rank": rank, "width": width, "batch": batch, "length": length}
    # By name: run as a command, this module is called __main__, where another process does not find it.
    builder = "lib.experiments.memm.costs:large_step"
    peak = measure.peak_memory_in_fresh_process(builder, model=model, tags=tags, **sizes)
    step = large_step(model, tags, **sizes)
    seconds = measure.time_of(step, repeats=repeats, warmup=1).samples
    return {"parameters": step.parameters, "bytes": peak.bytes, "method": peak.method, "seconds": list(seconds)}
