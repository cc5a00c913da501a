"""Compression: ways from a trained MiniLM of six blocks to a smaller one, with the same data and a counted effort.

Effort is counted in passes of one block over one batch: a forward pass is 1, a backward pass 2, or 1 through a
frozen block, of which only the gradient for its input is needed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import combinations, product
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.experiments.theseus.comparison import linear_cka, pack
from lib.experiments.theseus.reviews import (
    BATCH,
    BLOCKS,
    Layers,
    Part,
    batches,
    head,
    judged,
    linear_blocks,
    outputs,
    pretrained,
    random_blocks,
    reviews,
    rewound,
    twins,
)
from lib.experiments.training import train
from lib.theseus import ModuleReplacement, anti_curriculum, curriculum

Row = dict[str, Any]

#: The largest learning rate of pretrained and of random blocks.
RATES = {"pretrained": 1e-4, "own": 1e-4, "linear": 1e-4, "random": 3e-4}

#: Where the rate of replacement starts and ends; the gates; and of the steps the share of the third stage.
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"rate": lambda steps: 0.5, "gates": "batch"},  # noqa: ARG005
    "curriculum": {"rate": lambda steps: curriculum(0.5, steps), "gates": "batch"},
    "anti-curriculum": {"rate": lambda steps: anti_curriculum(1.0, 0.5, steps), "gates": "batch"},
    "uniform": {"rate": lambda steps: 0.5, "gates": "uniform"},  # noqa: ARG005
    "ramp": {"rate": lambda steps: curriculum(0.0, steps), "gates": "mean"},
}
HEALING = 0.25

#: Sentences of the dev part on which the inside of a model is looked at.
INSIDE = 500

_cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
_from_teacher = keras.losses.KLDivergence()


class Predecessor(NamedTuple):
    """The trained network.

    Attributes:
        first: the frozen embeddings.
        blocks: the trained blocks.
        head: the trained head.
        untrained: the blocks before training.
        logits: on the test part.
    """

    first: keras.layers.Layer
    blocks: Layers
    head: Layers
    untrained: Layers
    logits: NDArray[np.float32]

    def chain(self, blocks: Layers) -> keras.Sequential:
        """These blocks between the embeddings and the head."""
        return keras.Sequential([self.first, *blocks, *self.head])


@lru_cache(maxsize=1)
def predecessor(seed: int, steps: int) -> Predecessor:
    """MiniLM, fine-tuned on the reviews with frozen embeddings.

    Args:
        seed: of the head, the order of the reviews, and the dropout.
        steps: of training.
    """
    first, blocks = pretrained(seed)
    untrained = twins(blocks)
    top = head(seed)
    model = keras.Sequential([first, *blocks, *top])
    data = reviews()
    train(model, batches(data.train, steps, seed), steps, RATES["pretrained"], _cross_entropy)
    return Predecessor(first, blocks, top, untrained, outputs(model, data.test.ids))


def compress(
    seed: int,
    road: str,
    blocks: int,
    start: str,
    steps: int,
    teacher_steps: int,
    inside: bool = False,
    sentences: int | None = None,
    alone: bool = True,
) -> Row:
    """One small model, trained along one road. One case of the record.

    In one thread, as the record is made, the same case gives the same numbers to the bit, whatever ran before it in
    the process. In several, TensorFlow's graph may round a gradient otherwise from run to run: after 12 steps the
    divergence from the teacher differed in its eighth digit.

    Args:
        seed: of everything.
        road: "fine-tuning" of the small model alone, with a new head; "old head", the same under the predecessor's
            head, which is not trained; "best blocks", from those blocks of the predecessor that do best alone, with
            its head; "distillation" of its logits; or Theseus with one of :data:`SCHEDULES`, whose last steps
            (:data:`HEALING`) train the successor alone. "pruning" and "8 bits" keep all six blocks: half of the
            weights are set to zero, or each is rounded.
        blocks: of the small model; they divide :data:`reviews.BLOCKS`, and each stands for as many.
        start: the blocks to start from: "pretrained", the first ones of MiniLM; "own", of the trained blocks that
            each stands for the last one; "random"; or "linear", those of MiniLM with linear attention.
        steps: of training, all stages together.
        teacher_steps: of the predecessor's training.
        inside: whether to look inside too, see :func:`looked_inside`; before the third stage, if there is one.
        sentences: how many of the train part the small model learns from; all by default. The predecessor had all.
        alone: whether Theseus has its third stage; without, its last steps are left out.

    Returns:
        What ``reviews.judged`` finds on the test part; ``teacher``, the predecessor's predictions on it;
        ``train_accuracy`` on (at most 1,000) reviews that it was trained on;
        ``effort``, that of the predecessor not counted; ``seconds``; and for Theseus ``before``, the same judgement
        before the third stage.

    Raises:
        ValueError: a road or a start that does not exist, or a number of blocks that does not divide six.
    """
    if BLOCKS % blocks:
        raise ValueError(f"blocks must divide {BLOCKS}, got {blocks}")
    run = _road(road)
    gc.collect()  # a Keras model refers to itself: those of the last case are still there
    old = predecessor(seed, teacher_steps)
    # The embeddings drop out on every road, and the state of that goes on from one case to the next.
    old = old._replace(first=rewound(old.first))
    data = reviews().train.first(sentences)
    task = Task(old, _start(start, old, blocks, seed), data, seed, steps, RATES[start], inside, alone)
    clock = time.perf_counter()
    model, found = run(task)
    found["seconds"] = time.perf_counter() - clock
    return {
        **judged(model, reviews().test, old.logits),
        "teacher": pack(old.logits.argmax(axis=-1)),
        "train_accuracy": judged(model, data.first(1000))["accuracy"],
        "weights": int(sum(layer.count_params() for layer in model.layers[1:])),
        **found,
    }


class Task(NamedTuple):
    """What a road is given: see :func:`compress`."""

    old: Predecessor
    blocks: Layers
    data: Part
    seed: int
    steps: int
    rate: float
    inside: bool
    alone: bool


def effort_of_training(blocks: int, steps: int) -> float:
    """The effort of training so many blocks for so many steps.

    Example:
        >>> effort_of_training(6, steps=10)
        180.0
    """
    return 3.0 * blocks * steps


def effort_of_theseus(blocks: int, steps: int, rate: float, both: bool = False) -> float:
    """The effort of replacing six blocks by so many, the last steps (:data:`HEALING`) without the predecessor.

    Args:
        blocks: of the successor.
        steps: of both stages.
        rate: the mean rate of replacement.
        both: whether both modules run, and not only the chosen one.

    Example:
        >>> effort_of_theseus(3, steps=100, rate=0.5)  # of 675 passes in its last 25 steps, and 787.5 before
        1012.5
    """
    healing = int(HEALING * steps)
    frozen = 2 * BLOCKS / blocks
    module = 3 + frozen if both else 3 * rate + frozen * (1 - rate)
    return blocks * module * (steps - healing) + effort_of_training(blocks, healing)


def _road(name: str) -> Callable[..., tuple[keras.Model, Row]]:
    ways = {"fine-tuning": _fine_tuning, "best blocks": _best_blocks, "distillation": _distillation}
    ways |= {"old head": _old_head, "pruning": _pruning, "8 bits": _eight_bits}
    if name in SCHEDULES:
        return partial(_theseus, SCHEDULES[name])
    if name not in ways:
        raise ValueError(f"road must be one of {', '.join(map(repr, [*ways, *SCHEDULES]))}, got {name!r}")
    return ways[name]


def _start(name: str, old: Predecessor, blocks: int, seed: int) -> Layers:
    if name == "random":
        return random_blocks(blocks, 1000 + seed)
    if name == "pretrained":
        return twins(old.untrained[:blocks])
    if name == "own":
        size = BLOCKS // blocks
        return twins(old.blocks[size - 1 :: size])
    if name == "linear":
        return linear_blocks(old.untrained[:blocks])
    raise ValueError(f"start must be 'pretrained', 'own', 'random' or 'linear', got {name!r}")


def _fine_tuning(task: Task, top: Layers | None = None) -> tuple[keras.Model, Row]:
    """The small model alone, with a new head or a given one."""
    old, blocks, data, seed, steps, rate, inside, _ = task
    model = keras.Sequential([old.first, *blocks, *(top or head(seed + 100))])
    train(model, batches(data, steps, seed + 100), steps, rate, _cross_entropy)
    opened = looked_inside(old, blocks) if inside else {}
    return model, {"effort": effort_of_training(len(blocks), steps), **opened}


def _old_head(task: Task) -> tuple[keras.Model, Row]:
    """The small model alone under the head of replacement, so that their blocks can be compared."""
    return _fine_tuning(task, _frozen_head(task.old))


def _frozen_head(old: Predecessor) -> Layers:
    """The predecessor's head, not to be trained."""
    top = twins(old.head)
    for layer in top:
        layer.trainable = False
    return top


def _best_blocks(task: Task) -> tuple[keras.Model, Row]:
    """The predecessor without the blocks that it misses least, trained further."""
    old, count = task.old, len(task.blocks)
    some = reviews().dev.first(INSIDE)
    choices = [*combinations(range(BLOCKS), count)]
    right = [judged(old.chain([old.blocks[i] for i in choice]), some)["accuracy"] for choice in choices]
    chosen = choices[int(np.argmax(right))]
    kept = twins([old.blocks[i] for i in chosen])
    model, found = _fine_tuning(task._replace(blocks=kept), twins(old.head))
    tried = len(choices) * count * len(some.labels) // BATCH
    found["effort"] += tried
    return model, {**found, "chosen": list(chosen), "untrained_accuracy": max(right)}


def _distillation(task: Task) -> tuple[keras.Model, Row]:
    """The small model learns the predecessor's distribution of each sentence, instead of the label."""
    old, blocks, data, seed, steps, rate, *_ = task
    soft = np.asarray(ops.softmax(outputs(old.chain(old.blocks), data.ids)))
    student = keras.Sequential([old.first, *blocks, *head(seed + 100)])
    model = keras.Sequential([*student.layers, keras.layers.Softmax()])
    train(model, batches(data, steps, seed + 100, soft), steps, rate, _from_teacher)
    once = BLOCKS * len(soft) // BATCH  # the predecessor looks at each sentence once
    return student, {"effort": effort_of_training(len(blocks), steps) + once}


def _theseus(schedule: dict[str, Any], task: Task) -> tuple[keras.Model, Row]:
    """Replacement within the frozen predecessor, then the successor alone with its head."""
    old, blocks, data, seed, steps, rate, inside, alone = task
    healing = int(HEALING * steps)
    replacing = steps - healing
    top = _frozen_head(old)
    body = replacement(old, blocks, schedule["rate"](replacing), schedule["gates"], seed)
    model = keras.Sequential([old.first, body, *top])
    mean_rate = np.mean(
        [float(body.schedule(step)) if body.schedule else float(body.rate) for step in range(replacing)]
    )
    train(model, batches(data, replacing, seed + 100), replacing, rate, _cross_entropy)
    opened = looked_inside(old, blocks) if inside else {}
    small = body.successor([old.first], top)
    effort = effort_of_theseus(len(blocks), steps, float(mean_rate), both=schedule["gates"] != "batch")
    if not alone:
        return small, {"effort": effort - effort_of_training(len(blocks), healing), **opened}
    before = judged(small, reviews().test, old.logits)
    for layer in top:
        layer.trainable = True
    small = body.successor([old.first], top)
    train(small, batches(data, healing, seed + 200), healing, rate / 2, _cross_entropy)
    return small, {"effort": effort, "before": before, **opened}


def replacement(
    old: Predecessor, blocks: Layers, rate: Any = 0.5, gates: str = "batch", seed: int | None = None
) -> ModuleReplacement:
    """The predecessor's blocks, in as many modules as there are small blocks, and these."""
    size = BLOCKS // len(blocks)
    modules = [twins(old.blocks[i : i + size]) for i in range(0, BLOCKS, size)]
    return ModuleReplacement(modules, blocks, rate, gates, seed)


def _pruning(task: Task) -> tuple[keras.Model, Row]:
    """The predecessor, in each matrix of which the smaller half of the weights is zero and stays so."""
    blocks, top = twins(task.old.blocks), twins(task.old.head)
    kernels = _kernels(blocks)
    masks = [ops.cast(ops.abs(k) > float(np.median(np.abs(k))), "float32") for k in kernels]

    def prune() -> None:
        for kernel, mask in zip(kernels, masks, strict=True):
            kernel.assign(kernel * mask)

    def pruned_before_each(steps: Iterator[Any]) -> Iterator[Any]:
        for step in steps:
            prune()
            yield step

    model = keras.Sequential([task.old.first, *blocks, *top])
    steps = batches(task.data, task.steps, task.seed + 100)
    train(model, pruned_before_each(steps), task.steps, task.rate, _cross_entropy)
    prune()
    zeros = float(np.mean([np.mean(ops.convert_to_numpy(kernel) == 0) for kernel in kernels]))
    return model, {"effort": effort_of_training(len(blocks), task.steps), "zeros": zeros}


def _eight_bits(task: Task) -> tuple[keras.Model, Row]:
    """The predecessor with each column of each matrix rounded to 255 steps of one size."""
    blocks = twins(task.old.blocks)
    for kernel in _kernels(blocks):
        values = ops.convert_to_numpy(kernel)
        unit = np.abs(values).max(axis=0, keepdims=True) / 127
        kernel.assign(np.round(values / unit) * unit)
    return task.old.chain(blocks), {"effort": 0.0}


def _kernels(blocks: Layers) -> list[keras.Variable]:
    """The matrices of some blocks."""
    return [weight for block in blocks for weight in block.weights if len(weight.shape) == 2]


# --- inside ---------------------------------------------------------------------------------------------------


def looked_inside(old: Predecessor, blocks: Layers) -> Row:
    """How well small blocks stand for those of the predecessor, on some sentences of the dev part.

    Args:
        old: the predecessor.
        blocks: the small ones.

    Returns:
        ``mixtures``, the accuracy of the predecessor in which some modules are replaced, by a text of one digit a
        module, 1 where it is; and ``cka``, after each module, the linear CKA of both networks' mean vectors of a
        sentence.
    """
    some = reviews().dev.first(INSIDE)
    body = replacement(old, blocks)
    mixtures = {}
    for replaced in product((0, 1), repeat=len(blocks)):
        model = body.mixture(replaced, [old.first], twins(old.head))
        mixtures["".join(map(str, replaced))] = judged(model, some)["accuracy"]
    chains = (
        _means(old.first, [module.layers for module in modules], some.ids)
        for modules in (body.predecessors, body.successors)
    )
    return {"mixtures": mixtures, "cka": [linear_cka(*pair) for pair in zip(*chains, strict=True)]}


def _means(first: keras.layers.Layer, modules: list[Layers], ids: NDArray[np.int32]) -> list[NDArray[np.float32]]:
    """The mean vector of each sentence after each module."""
    pool = keras.layers.GlobalAveragePooling1D
    chains = [[layer for module in modules[: i + 1] for layer in module] for i in range(len(modules))]
    return [outputs(keras.Sequential([first, *chain, pool()]), ids) for chain in chains]
