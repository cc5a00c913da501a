"""The minute-scale experiment: a chain of residual blocks that tells pictures of clothes apart, made shorter.

The predecessor is a dense layer, six equal residual blocks and a linear head; the successor has a block for every
two of these, and takes first layer and head from the predecessor, frozen. Most of the time of such small nets goes
into tracing them, so each kind of model is compiled once, and is given new weights for each seed.

* :func:`predecessor`, :func:`successor`: trained layers, kept for all who ask for them again
* :func:`contest`: how good is a successor, and how true to its predecessor? One case of a sweep
* :func:`mixtures`: may any of its modules stand in for the predecessor's?
* :func:`gradient_norms`: how much does a module learn from a step, by the replacement rate?
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations, product
from time import perf_counter
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.experiments.theseus.comparison import kl_divergence, linear_cka, pack
from lib.experiments.training import compiled
from lib.theseus import ModuleReplacement, anti_curriculum, curriculum, twin
from lib.workbench import corpora

Array = NDArray[Any]
Row = dict[str, Any]
Layers = list[keras.layers.Layer]

#: Blocks of the predecessor, their width, and images a step.
BLOCKS, WIDTH, BATCH = 6, 64, 100

#: Steps and largest learning rate of Adam, for predecessors and successors alike.
STEPS, LEARNING_RATE = 600, 2e-3

#: Ways to train a successor, where its weights come from, and how the replacement rate changes.
WAYS = ("direct", "distillation", "theseus")
STARTS = ("random", "copied", "first", "best")
SCHEDULES = ("constant", "curriculum", "anti_curriculum")


# --- images -----------------------------------------------------------------------------------------------


class Images(NamedTuple):
    """Pixels, uint8 (items, 784), and labels, int32 (items,)."""

    pixels: Array
    labels: Array


@lru_cache
def parts(dev: bool = False) -> tuple[Images, Images]:
    """Images to train on and to judge by: 8,000 and 2,000; or 6,500 and 1,500 of the former, to choose settings by.

    Example:
        >>> [[len(part.labels) for part in parts(dev)] for dev in (False, True)]
        [[8000, 2000], [6500, 1500]]
    """
    train, test = (
        Images(pixels.reshape(len(pixels), -1), labels.astype("int32"))
        for pixels, labels in corpora.fashion_mnist_split()
    )
    if not dev:
        return train, test
    return Images(train.pixels[:6500], train.labels[:6500]), Images(train.pixels[6500:], train.labels[6500:])


def drawn(seed: int, images: int, dev: bool = False) -> Images:
    """So many images to train on. More images of the same seed hold the fewer ones.

    Raises:
        ValueError: there are not so many.

    Example:
        >>> fewer, more = drawn(0, 100), drawn(0, 200)
        >>> bool(np.all(fewer.pixels == more.pixels[:100]))
        True
    """
    train, _ = parts(dev)
    if not 1 <= images <= len(train.labels):
        raise ValueError(f"images: got {images}; expected 1 to {len(train.labels)}")
    order = np.random.default_rng(seed).permutation(len(train.labels))[:images]
    return Images(train.pixels[order], train.labels[order])


def _order(items: int, steps: int, seed: int) -> Array:
    """Which items stand in the batches of so many steps, all of them once before any stands there again."""
    generator = np.random.default_rng((seed, items))
    rounds = -(-steps * BATCH // items)
    return np.concatenate([generator.permutation(items) for _ in range(rounds)])[: steps * BATCH]


# --- layers and how they are trained ----------------------------------------------------------------------


class Block(keras.layers.Layer):
    """A residual block, x + W₂ relu(W₁ LN(x) + b₁) + b₂, all of one width.

    Example:
        >>> tuple(Block()(np.ones((2, 8), "float32")).shape)
        (2, 8)
    """

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes the weights for inputs of shape (batch, width)."""
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5)
        self.inner = keras.layers.Dense(shape[-1], "relu", kernel_initializer="he_normal")
        self.outer = keras.layers.Dense(shape[-1])
        for layer in (self.norm, self.inner, self.outer):
            layer.build(shape)

    def call(self, x: Any) -> Any:
        """The block's output, of the shape of x."""
        return x + self.outer(self.inner(self.norm(x)))


class Trained(NamedTuple):
    """The layers of a network: the first one, the blocks, and the head."""

    first: Layers
    blocks: Layers
    head: Layers


def _blocks(count: int) -> Layers:
    return _built([Block() for _ in range(count)], WIDTH)


def _first() -> Layers:
    return _built([keras.layers.Rescaling(1 / 255), keras.layers.Dense(WIDTH)], 784)


def _head() -> Layers:
    return _built([keras.layers.LayerNormalization(epsilon=1e-5), keras.layers.Dense(10)], WIDTH)


def _built(layers: Layers, width: int) -> Layers:
    for layer in layers:
        layer.build((None, width))
    return layers


def _cut(layers: Layers, count: int) -> list[Layers]:
    """So many modules of as many layers each."""
    size = len(layers) // count
    return [layers[i : i + size] for i in range(0, len(layers), size)]


def _outputs(layers: Iterable[keras.layers.Layer], x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return ops.convert_to_numpy(x)


def _pour(sources: Layers, targets: Layers) -> None:
    """Gives layers the weights of others."""
    for source, target in zip(sources, targets, strict=True):
        target.set_weights(source.get_weights())


class _Course:
    """A model that is compiled once and trained many times, each time with other weights to begin with.

    Adam's learning rate rises over the first tenth of the steps and falls to zero along a cosine.
    """

    def __init__(self, layers: Layers, inputs: keras.KerasTensor, steps: int, rate: float, loss: Any):
        warmup = max(1, steps // 10)
        schedule = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup, warmup_target=rate, warmup_steps=warmup
        )
        self.model = keras.Sequential([inputs, *layers])
        self.model.compile(keras.optimizers.Adam(schedule), loss, jit_compile=compiled())

    def train(self, x: Array, y: Array) -> None:
        """Takes a step with every batch, from the beginning of the schedule."""
        for variable in self.model.optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))  # JAX has no zeros like a Variable of Keras
        self.model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)


def _cross_entropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _softened(temperature: float) -> Any:
    """Cross-entropy to a teacher's probabilities at a temperature T, times T² (Hinton et al. 2015)."""

    def loss(p: Any, logits: Any) -> Any:
        return temperature**2 * ops.categorical_crossentropy(p, logits / temperature, from_logits=True)

    return loss


# --- the predecessor --------------------------------------------------------------------------------------


@lru_cache
def predecessor(seed: int, known: int = 8000, steps: int = STEPS, dev: bool = False) -> Trained:
    """The trained network of six blocks.

    Args:
        seed: of weights and images.
        known: images that it is trained on.
        steps: of training.
        dev: as in :func:`parts`.

    Example:
        >>> len(predecessor(0, known=100, steps=2).blocks)
        6
    """
    images = drawn(seed, known, dev)
    keras.utils.set_random_seed(seed)
    layers = [*_first(), *_blocks(BLOCKS), *_head()]
    own, course = _whole_course(steps)
    _pour(layers, own)
    order = _order(known, steps, seed)
    course.train(images.pixels[order], images.labels[order])
    _pour(own, layers)
    return Trained(layers[:2], layers[2:-2], layers[-2:])


@lru_cache
def _whole_course(steps: int) -> tuple[Layers, _Course]:
    layers = [*_first(), *_blocks(BLOCKS), *_head()]
    return layers, _Course(layers, keras.Input((784,), dtype="uint8"), steps, LEARNING_RATE, _cross_entropy())


# --- its successors ---------------------------------------------------------------------------------------


class Successor(NamedTuple):
    """A trained successor.

    Attributes:
        modules: its blocks, a list a module.
        old_modules: those of the predecessor.
        first: the first layer, which both share.
        head: its head, which is the predecessor's unless it was trained.
        old_head: the predecessor's.
        before: its blocks and head before they were trained alone; the trained ones if they always were.
        seconds: of training.
    """

    modules: list[Layers]
    old_modules: list[Layers]
    first: Layers
    head: Layers
    old_head: Layers
    before: Layers
    seconds: float


@lru_cache
def successor(
    seed: int,
    way: str,
    images: int = 8000,
    known: int = 8000,
    steps: int = STEPS,
    rate: float = 0.5,
    schedule: str = "constant",
    gates: str = "batch",
    start: str = "random",
    modules: int = 3,
    blocks: int = 1,
    alone: float = 0.25,
    temperature: float = 2.0,
    own_head: bool = False,
    old_steps: int = STEPS,
    dev: bool = False,
) -> Successor:
    """A smaller network, trained in one of several ways with as many steps.

    Args:
        seed: of weights, images and gates, and of the predecessor.
        way: "direct", by the labels; "distillation", by the predecessor's predictions; or "theseus".
        images: those it is trained on, the first of the ones that the predecessor knows.
        known: images that the predecessor was trained on.
        steps: of training, in all.
        rate: replacement rate; that of the first step of a curriculum, of the last one of an anti-curriculum.
        schedule: of :data:`SCHEDULES`. A curriculum reaches 1 after three quarters of the steps with gates.
        gates: as in ``ModuleReplacement``.
        start: blocks are "random"; "copied", the first ones of their predecessors' modules; or the predecessor's
            "first" ones, of all; or its "best", which do best without the others on pictures that it does not know.
        modules: the predecessor's blocks are so many modules.
        blocks: of each module of the successor.
        alone: the last share of the steps, below 1, in which "theseus" trains the successor by itself.
        temperature: of distillation.
        own_head: whether the head is trained as well; else it stays that of the predecessor.
        old_steps: steps that the predecessor was trained.
        dev: as in :func:`parts`.

    Raises:
        ValueError: an unknown way, start or schedule; modules that do not divide the blocks; the best blocks of a
            predecessor that knows all pictures.

    Example:
        >>> small = successor(0, "direct", images=100, known=100, steps=2, old_steps=2)
        >>> [len(module) for module in small.modules]
        [1, 1, 1]
    """
    for name, value, values in (("way", way, WAYS), ("start", start, STARTS), ("schedule", schedule, SCHEDULES)):
        if value not in values:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, values))}, got {value!r}")
    if not 1 <= modules <= BLOCKS or BLOCKS % modules:
        raise ValueError(f"modules must divide the {BLOCKS} blocks, got {modules}")
    old, data = predecessor(seed, known, old_steps, dev), drawn(seed, images, dev)
    old_modules = _cut(old.blocks, modules)
    keras.utils.set_random_seed(1000 + seed)
    new = {
        "random": lambda: _blocks(modules * blocks),
        "copied": lambda: [twin(block) for module in old_modules for block in module[:blocks]],
        "first": lambda: [twin(block) for block in old.blocks[: modules * blocks]],
        "best": lambda: [twin(block) for block in _best(old, modules * blocks, seed, known, dev)],
    }[start]()
    head = [twin(layer) for layer in old.head] if own_head else old.head
    features, order = _outputs(old.first, data.pixels), _order(images, steps, 1000 + seed)
    before, begun = [*new, *head], perf_counter()
    if way == "theseus":
        gated = round((1 - alone) * steps)
        now, order = order[: gated * BATCH], order[gated * BATCH :]
        chain = _replacing_course(gated, modules, blocks, rate, schedule, gates, own_head)
        chain.replace(seed, old.blocks, new, head, features[now], data.labels[now])
        before = [twin(layer) for layer in before]
    targets, soft = data.labels, None
    if way == "distillation":
        logits, soft = _outputs([*old.blocks, *old.head], features), temperature
        targets = ops.convert_to_numpy(ops.softmax(logits / temperature))
    if len(order):
        own, course = _alone_course(len(order) // BATCH, modules * blocks, own_head, soft)
        _pour([*new, *head], own)
        course.train(features[order], targets[order])
        _pour(own, [*new, *head])
    seconds = perf_counter() - begun
    return Successor(_cut(new, modules), old_modules, old.first, head, old.head, before, seconds)


def _best(old: Trained, count: int, seed: int, known: int, dev: bool) -> Layers:
    """So many blocks of the predecessor that are right most often without the others, in their order."""
    train, _ = parts(dev)
    unknown = Images(*(part[known:] for part in drawn(seed, len(train.labels), dev)))
    if not len(unknown.labels):
        raise ValueError(f"known: the best blocks are found on pictures that are not known, got all {known}")
    features = _outputs(old.first, unknown.pixels)

    def right(blocks: Sequence[keras.layers.Layer]) -> float:
        return float(np.mean(_outputs([*blocks, *old.head], features).argmax(-1) == unknown.labels))

    return [*max(combinations(old.blocks, count), key=right)]


@lru_cache
def _alone_course(steps: int, blocks: int, own_head: bool, temperature: float | None) -> tuple[Layers, _Course]:
    """The successor, trained by labels, or by a teacher's probabilities at a temperature."""
    body, head = _blocks(blocks), _head()
    for layer in head:
        layer.trainable = own_head
    loss = _cross_entropy() if temperature is None else _softened(temperature)
    return [*body, *head], _Course([*body, *head], keras.Input((WIDTH,)), steps, LEARNING_RATE, loss)


class _Replacing(NamedTuple):
    """The chain of both, with its layers."""

    old: Layers
    new: Layers
    head: Layers
    body: ModuleReplacement
    course: _Course

    def replace(self, seed: int, old: Layers, new: Layers, head: Layers, x: Array, y: Array) -> None:
        """Trains new blocks, and the head where it may change, as parts of a predecessor."""
        _pour([*old, *new, *head], [*self.old, *self.new, *self.head])
        self.body.iterations.assign(0)
        self.body.seed_generator.state.assign(np.array([seed, 0]))
        self.course.train(x, y)
        _pour([*self.new, *self.head], [*new, *head])


@lru_cache
def _replacing_course(
    steps: int, modules: int, blocks: int, rate: float, schedule: str, gates: str, own_head: bool
) -> _Replacing:
    old, new, head = _blocks(BLOCKS), _blocks(modules * blocks), _head()
    for layer in head:
        layer.trainable = own_head
    p = {
        "constant": lambda: rate,
        "curriculum": lambda: curriculum(rate, max(1, 3 * steps // 4)),
        "anti_curriculum": lambda: anti_curriculum(1.0, rate, steps),
    }[schedule]()
    body = ModuleReplacement(_cut(old, modules), _cut(new, modules), rate=p, gates=gates, seed=0)
    course = _Course([body, *head], keras.Input((WIDTH,)), steps, LEARNING_RATE, _cross_entropy())
    return _Replacing(old, new, head, body, course)


# --- what is measured -------------------------------------------------------------------------------------


def contest(seed: int, way: str, **setting: Any) -> Row:
    """How good a successor is, and how true to its predecessor. One case of a sweep.

    Args:
        seed: as in :func:`successor`.
        way: likewise.
        **setting: its other arguments.

    Returns:
        "accuracy"; "agreement", the share of images to which the predecessor gives the same label; "kl", the
        divergence of its predictions from the predecessor's, in nats; "loss", its cross-entropy; "before", the
        accuracy before the successor was trained alone; "train", that on its own training images; "cka" of the
        states after each module; "old_accuracy", the predecessor's; "seconds" of training; and "correct" and
        "old_correct", which images either labels rightly, packed.

    Raises:
        ValueError: as :func:`successor`.

    Example:
        >>> row = contest(0, "direct", images=100, known=100, steps=2, old_steps=2)
        >>> row["accuracy"] == row["before"]
        True
    """
    small = successor(seed, way, **setting)
    dev = setting.get("dev", False)
    _, test = parts(dev)
    train = drawn(seed, setting.get("images", 8000), dev)
    features = _outputs(small.first, test.pixels)
    states, old_states = _states(small.modules, features), _states(small.old_modules, features)
    logits, old_logits = _outputs(small.head, states[-1]), _outputs(small.old_head, old_states[-1])
    guess, old_guess = logits.argmax(-1), old_logits.argmax(-1)
    blocks = _flat(small.modules)
    return {
        "accuracy": float(np.mean(guess == test.labels)),
        "agreement": float(np.mean(guess == old_guess)),
        "kl": kl_divergence(old_logits, logits),
        "loss": float(np.mean(ops.convert_to_numpy(_cross_entropy()(test.labels, logits)))),
        "before": _accuracy([*small.first, *small.before], test),
        "train": _accuracy([*small.first, *blocks, *small.head], train),
        "cka": [linear_cka(a, b) for a, b in zip(old_states, states, strict=True)],
        "old_accuracy": float(np.mean(old_guess == test.labels)),
        "seconds": small.seconds,
        "correct": pack(guess == test.labels),
        "old_correct": pack(old_guess == test.labels),
    }


def mixtures(seed: int, way: str, **setting: Any) -> Row:
    """How good the networks are in which some modules are the successor's, and some the predecessor's.

    Args:
        seed: as in :func:`successor`.
        way: likewise.
        **setting: its other arguments.

    Returns:
        "replaced", all 2ⁿ choices as text, "100" where the first of three modules is the successor's; "accuracy" of
        each, and "kl", the divergence of its predictions from those of the predecessor, "000". The head is that of
        the predecessor until all modules are replaced.

    Raises:
        ValueError: as :func:`successor`.

    Example:
        >>> mixtures(0, "direct", images=100, known=100, steps=2, old_steps=2)["replaced"]
        ['000', '001', '010', '011', '100', '101', '110', '111']
    """
    small = successor(seed, way, **setting)
    _, test = parts(setting.get("dev", False))
    features = _outputs(small.first, test.pixels)
    row: Row = {"replaced": [], "accuracy": [], "kl": []}
    teacher = None
    for replaced in product((False, True), repeat=len(small.modules)):
        pairs = zip(small.old_modules, small.modules, replaced, strict=True)
        chosen = [new if now else old for old, new, now in pairs]
        logits = _outputs([*_flat(chosen), *(small.head if all(replaced) else small.old_head)], features)
        teacher = logits if teacher is None else teacher
        row["replaced"].append("".join(str(int(new)) for new in replaced))
        row["accuracy"].append(float(np.mean(logits.argmax(-1) == test.labels)))
        row["kl"].append(kl_divergence(teacher, logits))
    return row


def gradient_norms(
    rates: Sequence[float],
    seed: int = 0,
    images: int = 1000,
    known: int = 8000,
    old_steps: int = STEPS,
    modules: int = 3,
) -> Row:
    """How large the gradient of the successor's new modules is, by the replacement rate p, at their first step.

    With n modules there are 2ⁿ choices z of gates, and a choice that replaces k modules has the probability
    pᵏ(1−p)ⁿ⁻ᵏ. So the expectations are sums, without any chance. The gradient is that of the loss of all images.

    Args:
        rates: replacement rates p.
        seed: of the random new modules, the images and the predecessor.
        images: those of the loss.
        known: as in :func:`predecessor`.
        old_steps: likewise.
        modules: as in :func:`successor`.

    Returns:
        For each rate "norm_of_mean", ‖E g‖, and "mean_of_norms", the mean over the modules m of E‖gₘ‖. A module
        that is not replaced has gₘ = 0, so were its gradient the same among all neighbours, both would be
        proportional to p.

    Example:
        >>> found = gradient_norms([0.0, 0.5, 1.0], images=100, known=100, old_steps=2)
        >>> found["norm_of_mean"][0], found["norm_of_mean"][1] < found["norm_of_mean"][2]
        (0.0, True)
    """
    old = predecessor(seed, known, old_steps, False)
    data = drawn(seed, images)
    features = _outputs(old.first, data.pixels)
    keras.utils.set_random_seed(1000 + seed)
    body = ModuleReplacement(_cut(old.blocks, modules), _blocks(modules))
    head = [twin(layer) for layer in old.head]
    for layer in head:
        layer.trainable = False
    gates = np.array([*product((0, 1), repeat=modules)])
    gradients = np.stack(
        [_gradients(body, body.mixture(z.astype(bool), after=head), features, data.labels) for z in gates]
    )  # (choices, modules, weights)
    p, replaced = np.asarray(rates, "float64")[:, None], gates.sum(axis=1)
    probabilities = p**replaced * (1 - p) ** (modules - replaced)  # (rates, choices)
    norms = np.linalg.norm(gradients, axis=-1).mean(axis=-1)
    return {
        "norm_of_mean": np.linalg.norm(np.tensordot(probabilities, gradients, 1), axis=(1, 2)).tolist(),
        "mean_of_norms": (probabilities @ norms).tolist(),
    }


def _gradients(body: ModuleReplacement, model: keras.Model, x: Array, y: Array) -> Array:
    """The gradient of the loss in the weights of each new module, (modules, weights), that of the others being 0.

    A step of plain descent at rate 1 takes the gradient from the weights: so it is found on every backend.
    """
    before = [_weights(module.layers) for module in body.successors]
    model.build((None, WIDTH))
    if not model.trainable_weights:
        return np.zeros_like(before)
    saved = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), _cross_entropy(), run_eagerly=True)
    model.train_on_batch(x, y)
    after = [_weights(module.layers) for module in body.successors]
    model.set_weights(saved)
    return np.stack([a - b for a, b in zip(before, after, strict=True)])


def _weights(module: Layers) -> Array:
    return np.concatenate([weight.ravel() for layer in module for weight in layer.get_weights()]).astype("float64")


def _states(modules: Sequence[Layers], x: Array) -> list[Array]:
    """What each module gives."""
    states = []
    for module in modules:
        x = _outputs(module, x)
        states.append(x)
    return states


def _flat(modules: Iterable[Layers]) -> Layers:
    return [layer for module in modules for layer in module]


def _accuracy(layers: Layers, images: Images) -> float:
    return float(np.mean(_outputs(layers, images.pixels).argmax(-1) == images.labels))
