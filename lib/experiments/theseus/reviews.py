"""Movie reviews: the sentences as ids, batches of like length, and MiniLM as a chain of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from lib.attention import Attention
from lib.bert import Block, Encoder, SelfAttention, renumber, word_pieces
from lib.experiments.theseus.comparison import kl_divergence, pack
from lib.experiments.training import compiled
from lib.theseus import twin
from lib.workbench import corpora

Row = dict[str, Any]
Layers = list[keras.layers.Layer]

#: Tokens of a sentence that are read, and sentences a step.
LONGEST, BATCH = 32, 32

#: MiniLM.
BLOCKS, HEADS, HIDDEN, INNER, DROPOUT = 6, 12, 384, 1536, 0.1


class Part(NamedTuple):
    """Reviews as arrays.

    Attributes:
        ids: int32 (reviews, LONGEST), 0 for padding.
        labels: 1 for a positive rating, int32 (reviews,).
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]

    def first(self, count: int | None) -> Part:
        """The first reviews of the part; None for all of them."""
        return Part(self.ids[:count], self.labels[:count])


class Reviews(NamedTuple):
    """The corpus, and which rows of MiniLM's table of words it needs.

    Attributes:
        train: 5,070 reviews.
        dev: 1,000.
        test: 4,000.
        rows: the ids of MiniLM that occur, and padding, int (vocabulary,).
    """

    train: Part
    dev: Part
    test: Part
    rows: NDArray[np.int64]


@lru_cache
def reviews() -> Reviews:
    """The corpus, read once: sentences of movie reviews, each rated from -4 to 4 by about 20 people.

    Those with a mean rating between -0.5 and 0.5, 533 of 10,605, are left out, and two that occur twice count once.
    The order is that of ``numpy.random.RandomState(7575).permutation``, since the positive ones come first in the
    file. Ids are numbered by ``rows``.

    Raises:
        CorpusError: as ``corpora.member``.

    Source:
        Hutto and Gilbert (2014), with sentences of Pang and Lee (2004).

    Example:
        >>> reviews().test.ids.shape  # doctest: +SKIP
        (4000, 32)
    """
    lines = corpora.read("movie-reviews", "movieReviewSnippets_GroundTruth.txt").decode().splitlines()
    rated = {text.strip(): float(rating) for _, rating, text in (line.split("\t") for line in lines)}
    rated = {text: rating for text, rating in rated.items() if abs(rating) >= 0.5}
    tokenizer = word_pieces(corpora.member("minilm", "tokenizer.json"), LONGEST)
    ids = np.array([encoding.ids for encoding in tokenizer.encode_batch([*rated])])
    labels = np.array([rating > 0 for rating in rated.values()], "int32")
    rows = np.union1d(ids, [0])
    # RandomState, since its stream is frozen for good (NEP 19).
    order = np.random.RandomState(7575).permutation(len(labels))
    test, dev, train = (Part(renumber(ids[some], rows), labels[some]) for some in np.split(order, [4000, 5000]))
    return Reviews(train, dev, test, rows)


def by_length(ids: NDArray[np.int32], batch: int = BATCH) -> list[NDArray[np.int64]]:
    """The places of the sentences of each batch, the short ones first.

    Example:
        >>> [places.tolist() for places in by_length(np.array([[1, 2, 3], [1, 0, 0], [1, 2, 0]]), batch=2)]
        [[1, 2], [0]]
    """
    order = np.argsort((ids != 0).sum(axis=1), kind="stable")
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def cropped(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sentences without the padding that all of them share, up to a length that is a multiple of 8.

    Example:
        >>> cropped(np.array([[1, 2, 0, 0, 0, 0, 0, 0, 0, 0]])).shape
        (1, 8)
    """
    longest = int((ids != 0).sum(axis=1).max())
    return ids[:, : -(-longest // 8) * 8]


def batches(part: Part, steps: int, seed: int, targets: NDArray | None = None) -> Iterator[tuple[NDArray, NDArray]]:
    """Batches of sentences of like length, in pass after pass until there are so many steps.

    Args:
        part: the reviews.
        steps: how many batches.
        seed: of the order.
        targets: of each review, (reviews, …); the labels by default.
    """
    rng = np.random.default_rng(seed)
    targets = part.labels if targets is None else targets
    given = 0
    while given < steps:
        # Ties and near ties are broken anew in each pass, so that batches differ.
        lengths = (part.ids != 0).sum(axis=1) + rng.uniform(-4, 4, len(part.ids))
        order = np.argsort(lengths)
        starts = rng.permutation(np.arange(0, len(order) - BATCH + 1, BATCH))
        for start in starts[: steps - given]:
            places = order[start : start + BATCH]
            yield cropped(part.ids[places]), targets[places]
        given += len(starts)


# --- the chain of layers --------------------------------------------------------------------------------------


def pretrained(seed: int) -> tuple[Encoder, Layers]:
    """MiniLM with its frozen embeddings as the first layer, and its blocks. The seed is that of the dropout."""
    path = corpora.member("minilm", "model.safetensors")
    encoder = Encoder.from_pretrained(path, num_heads=HEADS, rows=reviews().rows, dropout=DROPOUT, seed=seed)
    first = Encoder(encoder.embeddings, [], name="embeddings")
    first.trainable = False
    return first, encoder.blocks


def random_blocks(count: int, seed: int) -> Layers:
    """Blocks with random weights, for the same place."""
    keras.utils.set_random_seed(seed)
    blocks = [Block(SelfAttention(HEADS, DROPOUT), INNER, DROPOUT) for _ in range(count)]
    for block in blocks:
        block.build((None, None, HIDDEN))
    return blocks


def linear_blocks(blocks: Layers) -> Layers:
    """The same blocks, with linear attention in the place of the softmax, all weights and the dropout kept."""
    linear = []
    for block in blocks:
        new = Block(Attention(HEADS, "linear"), INNER, DROPOUT, seed=block.get_config()["seed"])
        new.build((None, None, HIDDEN))
        for name in ("attention.query", "attention.key", "attention.value", "attention.project", "attention_norm"):
            _part(new, name).set_weights(_part(block, name).get_weights())
        for name in ("expand", "contract", "norm"):
            _part(new, name).set_weights(_part(block, name).get_weights())
        linear.append(new)
    return linear


def _part(layer: keras.layers.Layer, path: str) -> keras.layers.Layer:
    for name in path.split("."):
        layer = getattr(layer, name)
    return layer


def head(seed: int) -> Layers:
    """The mean of a sentence's vectors, and logits of the two classes."""
    initializer = keras.initializers.RandomNormal(stddev=0.02, seed=seed)
    return [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2, kernel_initializer=initializer)]


def twins(layers: Sequence[keras.layers.Layer]) -> Layers:
    """New layers with the same weights."""
    return [twin(layer) for layer in layers]


def rewound(first: keras.layers.Layer) -> keras.layers.Layer:
    """A frozen layer once more, with the same weights, and with its dropout back at the seed."""
    again = twin(first)
    again.trainable = False
    return again


# --- what a model makes of the reviews ------------------------------------------------------------------------


def outputs(model: keras.Model, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """What the model makes of each sentence, (sentences, …)."""
    if not model.compiled:
        model.compile(jit_compile=compiled())
    places = by_length(ids, 4 * BATCH)
    made = np.concatenate([model.predict_on_batch(cropped(ids[some])) for some in places])
    return made[np.argsort(np.concatenate(places))]


def judged(model: keras.Model, part: Part, teacher: NDArray[np.float32] | None = None) -> Row:
    """Accuracy on a part, its mean loss in nats, each prediction; and the distance from a teacher.

    Args:
        model: ids → logits (sentences, 2).
        part: the reviews.
        teacher: the teacher's logits, (reviews, 2).

    Returns:
        ``accuracy``, ``loss``, ``predicted`` as text (``comparison.pack``), and with a teacher ``kl``, the mean KL
        divergence from its distribution in nats.
    """
    logits = outputs(model, part.ids)
    certain = np.where(np.eye(2, dtype=bool)[part.labels], 0.0, -1e4)
    row = {
        "accuracy": float(np.mean(logits.argmax(axis=-1) == part.labels)),
        "loss": kl_divergence(certain, logits),
        "predicted": pack(logits.argmax(axis=-1)),
    }
    return row if teacher is None else {**row, "kl": kl_divergence(teacher, logits)}
