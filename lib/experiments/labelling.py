"""What chapters 4 and 5 share: a corpus as arrays, encoders of four strengths, one way to train and to score.

    segmentation, entities                    the People's Daily as character ids and tags
    convolutional, recurrent, transformer,    encoders: character ids → emissions, with their mask
    pretrained
    tagger_of, train                          an encoder under a head, trained for some steps
    emissions_of, decode, with_rules          its emissions, its tags, and its tags under hard rules
    scores, evaluate                          span F1, accuracy, illegal moves

Every sentence is padded to one length, so that each encoder is traced and compiled once. Weights depend on the seed
alone, and so does the order of the sentences: two heads trained with one seed see the same batches.

On a CPU the encoders run as plain graphs. A training step of 64 sentences of 40 characters takes the same time with
XLA to within a few per cent, and its compilation two to three times as long (each of them, on one core).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.bert import Characters, E5File, Encoder
from lib.tagging import (
    SEGMENT_ALPHABET,
    Head,
    Softmax,  # noqa: F401  the examples make Softmax heads
    Tagger,
    alphabet_of,
    illegal_moves,
    labels_of,
    legal_moves,
    score_tags,
    segment_labels,
    spans_of_words,
)
from lib.workbench import corpora, measure

#: The kinds of entities and the part-of-speech tags that stand for them. Organizations are few and easy in this
#: corpus (157 types), so they are left out unless asked for.
PLACES_AND_PEOPLE = {"nr": "PER", "ns": "LOC"}
ORGANIZATIONS = {"nt": "ORG"}

Words = Sequence[tuple[str, str]]
Ids = NDArray[np.int32]


class Part(NamedTuple):
    """Sentences of a corpus.

    Attributes:
        characters: ids, int32 (n, time), 0 where a sentence has ended.
        tags: places in the alphabet, int32 (n, time), −1 where a sentence has ended.
    """

    characters: Ids
    tags: Ids

    def at(self, order: Any) -> Part:
        """Some of the sentences, in any order; ``order`` is what NumPy takes as an index."""
        return Part(self.characters[order], self.tags[order])


@dataclass(frozen=True, eq=False)
class Corpus:
    """A labelled corpus as arrays.

    Attributes:
        train: what to learn from.
        dev: what to look at while learning.
        test: what to report.
        vocabulary: the character of each id; id 0 is padding and id 1 stands for all characters not in the training
            part.
        alphabet: the label of each tag.
    """

    train: Part
    dev: Part
    test: Part
    vocabulary: tuple[str, ...]
    alphabet: tuple[str, ...]


# --- the corpus -------------------------------------------------------------------------------------------


def segmentation(train: int = 8000, dev: int = 1000, test: int = 2000, longest: int = 40) -> Corpus:
    """Word segmentation: the tags s, b, m, e of the characters of the People's Daily.

    Args:
        train: sentences of the training part, the first that are not too long; fewer if there are fewer.
        dev: the same of the development part.
        test: the same of the test part.
        longest: sentences of more characters are left out.

    Returns:
        The corpus, all sentences padded to the length ``longest``.

    Raises:
        ValueError: a number of sentences or a length below 1.

    Example:
        >>> corpus = segmentation(train=20, dev=5, test=5, longest=30)
        >>> corpus.train.characters.shape, corpus.alphabet
        ((20, 30), ('s', 'b', 'm', 'e'))
    """
    return _corpus(
        (train, dev, test),
        longest,
        SEGMENT_ALPHABET,
        lambda words: segment_labels(word for word, _ in words),
        join_names=False,  # the words of the corpus
    )


def entities(
    train: int = 8000, dev: int = 1000, test: int = 2000, longest: int = 40, *, organizations: bool = False
) -> Corpus:
    """Named entities: the BIO tags of people and places in the People's Daily.

    Args:
        train: as in :func:`segmentation`.
        dev: as in :func:`segmentation`.
        test: as in :func:`segmentation`.
        longest: as in :func:`segmentation`.
        organizations: whether organizations are a third kind. The corpus marks only those of one word.

    Returns:
        The corpus, all sentences padded to the length ``longest``.

    Raises:
        ValueError: as :func:`segmentation`.

    Example:
        >>> entities(train=20, dev=5, test=5, longest=30).alphabet
        ('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC')
    """
    kinds = PLACES_AND_PEOPLE | (ORGANIZATIONS if organizations else {})
    return _corpus(
        (train, dev, test),
        longest,
        alphabet_of(kinds.values()),
        lambda words: labels_of(spans_of_words(words, kinds), sum(len(word) for word, _ in words)),
        join_names=True,  # a person is one span
    )


def _corpus(
    sizes: tuple[int, int, int],
    longest: int,
    alphabet: tuple[str, ...],
    labels: Callable[[Words], list[str]],
    *,
    join_names: bool,
) -> Corpus:
    for name, value in zip(("train", "dev", "test", "longest"), (*sizes, longest), strict=True):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    chosen = [
        _first(part, size, longest, join_names) for part, size in zip(("train", "dev", "test"), sizes, strict=True)
    ]
    texts = [["".join(word for word, _ in words) for words in part] for part in chosen]
    vocabulary = ("", "\N{REPLACEMENT CHARACTER}", *sorted(set("".join(texts[0]))))
    ids = {character: i for i, character in enumerate(vocabulary)}
    places = {label: i for i, label in enumerate(alphabet)}
    parts = [
        Part(
            _padded(([ids.get(character, 1) for character in text] for text in part_texts), longest, 0),
            _padded(([places[label] for label in labels(words)] for words in part), longest, -1),
        )
        for part, part_texts in zip(chosen, texts, strict=True)
    ]
    return Corpus(*parts, vocabulary, tuple(alphabet))


def _first(part: str, size: int, longest: int, join_names: bool) -> list[Words]:
    """The first sentences of a part that are not too long."""
    found = []
    for words in _sentences(join_names)[part]:
        if len(found) == size:
            break
        if 0 < sum(len(word) for word, _ in words) <= longest:
            found.append(words)
    return found


@lru_cache
def _sentences(join_names: bool) -> dict[str, list[Words]]:
    return corpora.peoples_daily(join_names)


def _padded(rows: Iterable[Sequence[int]], length: int, value: int) -> Ids:
    rows = list(rows)
    padded = np.full((len(rows), length), value, np.int32)
    for out, row in zip(padded, rows, strict=True):
        out[: len(row)] = row
    return padded


# --- encoders ---------------------------------------------------------------------------------------------


def convolutional(corpus: Corpus, *, width: int = 128, layers: int = 3) -> keras.Model:
    """Convolutions over three characters, one above the other, with a ReLU after each.

    Args:
        corpus: gives the numbers of characters and tags and the length.
        width: of the embedding and of every layer.
        layers: number of convolutions; each adds one character on either side to what a tag can see.

    Returns:
        Ids (batch, time) → emissions (batch, time, tags).

    Example:
        >>> corpus = segmentation(train=20, dev=1, test=1)
        >>> convolutional(corpus, width=8, layers=1).output_shape
        (None, 40, 4)
    """
    ids, x = _embedded(corpus, width)
    for _ in range(layers):
        x = keras.layers.Conv1D(width, 3, padding="same", activation="relu")(x)
    return _encoder(corpus, ids, x)


def recurrent(corpus: Corpus, *, width: int = 128) -> keras.Model:
    """One LSTM in each direction.

    Args:
        corpus: as in :func:`convolutional`.
        width: of the embedding and of the state of either direction.

    Returns:
        As :func:`convolutional`.

    Example:
        >>> recurrent(segmentation(train=20, dev=1, test=1), width=8).output_shape
        (None, 40, 4)
    """
    ids, x = _embedded(corpus, width)
    lstm = keras.layers.LSTM(width, return_sequences=True)
    # The backward direction starts at the end of a sentence, not of its padding.
    x = keras.layers.Bidirectional(lstm)(x, mask=ops.not_equal(ids, 0))
    return _encoder(corpus, ids, x)


def transformer(corpus: Corpus, *, width: int = 128, heads: int = 4) -> keras.Model:
    """One layer of a transformer, normalized before each part, with learned positions.

    Args:
        corpus: as in :func:`convolutional`.
        width: of the states; the inner layer is four times as wide.
        heads: of the attention.

    Returns:
        As :func:`convolutional`.

    Source: Vaswani et al. 2017, arXiv 1706.03762.

    Example:
        >>> transformer(segmentation(train=20, dev=1, test=1), width=8).output_shape
        (None, 40, 4)
    """
    ids, x = _embedded(corpus, width)
    length = corpus.train.characters.shape[1]
    x = x + keras.layers.Embedding(length, width)(ops.arange(length))
    h = keras.layers.LayerNormalization()(x)
    seen = ops.expand_dims(ops.not_equal(ids, 0), 1)
    x = x + keras.layers.MultiHeadAttention(heads, width // heads)(h, h, attention_mask=seen)
    h = keras.layers.LayerNormalization()(x)
    x = x + keras.layers.Dense(width)(keras.layers.Dense(4 * width, activation="gelu")(h))
    return _encoder(corpus, ids, keras.layers.LayerNormalization()(x))


def pretrained(corpus: Corpus, *, layers: int = 12, dropout: float = 0.0) -> keras.Model:
    """The first layers of multilingual-e5-small, a transformer of width 384 that has read Chinese.

    Only the embeddings of the corpus's characters are kept. The model sees a sentence between its marks of start
    and end, one id a character.

    Args:
        corpus: as in :func:`convolutional`.
        layers: how many of its 12, from below.
        dropout: rate of all dropout.

    Returns:
        As :func:`convolutional`.

    Raises:
        ValueError: ``layers`` is out of range.
        CorpusError: the weights cannot be had.

    Source: Wang et al. 2024, arXiv 2402.05672.

    Example:
        >>> pretrained(segmentation(train=20, dev=1, test=1), layers=1).output_shape  # doctest: +SKIP
        (None, 40, 4)
    """
    path = corpora.member("e5-small", "e5-small-q4.bin")
    characters = Characters(E5File(path).pieces, corpus.vocabulary[2:])
    ids = keras.Input((corpus.train.characters.shape[1],), dtype="int32")
    encoder = Encoder.from_e5(path, layers=layers, rows=characters.rows, dropout=dropout)
    states = encoder(_Framed(corpus, characters)(ids))
    return _encoder(corpus, ids, states[:, 1:-1])


class _Framed(keras.layers.Layer):
    """Ids of a corpus (batch, time) as those of a pretrained encoder, between its marks, (batch, time + 2)."""

    def __init__(self, corpus: Corpus, characters: Characters):
        super().__init__()
        known = characters(["".join(corpus.vocabulary[2:])])[0, 1:-1]
        self.marks = characters
        self.ids = np.array([characters.PADDING, characters.UNKNOWN, *known], np.int32)

    def call(self, ids: Any) -> Any:
        """The sentence, then the mark of its end where the padding begins."""
        inside = ops.not_equal(ids, 0)
        before, after = ops.pad(inside, ((0, 0), (1, 0)), constant_values=True), ops.pad(inside, ((0, 0), (0, 1)))
        ends = ops.logical_and(before, ops.logical_not(after))
        rest = ops.pad(ops.take(self.ids, ids, axis=0), ((0, 0), (0, 1)), constant_values=self.marks.PADDING)
        rest = ops.where(ends, self.marks.END, rest)
        return ops.pad(rest, ((0, 0), (1, 0)), constant_values=self.marks.START)


def _embedded(corpus: Corpus, width: int) -> tuple[Any, Any]:
    ids = keras.Input((corpus.train.characters.shape[1],), dtype="int32")
    return ids, keras.layers.Embedding(len(corpus.vocabulary), width)(ids)


def _encoder(corpus: Corpus, ids: Any, states: Any) -> keras.Model:
    return keras.Model(ids, keras.layers.Dense(len(corpus.alphabet), name="emissions")(states))


# --- training and scoring ---------------------------------------------------------------------------------


def tagger_of(encoder: keras.Model, head: Head, rate: float, optimizer: Any = keras.optimizers.Adam) -> Tagger:
    """An encoder under a head, compiled.

    Args:
        encoder: one of the above; the tagger shares its weights.
        head: the head, whose scores have the rate times its ``learning_rate_multiplier`` under Adam.
        rate: learning rate of the encoder.
        optimizer: called with the rate.

    Example:
        >>> corpus = segmentation(train=20, dev=1, test=1)
        >>> tagger_of(convolutional(corpus, width=8), Softmax(4), 1e-3).count_params() > 0
        True
    """
    tagger = Tagger(encoder, head, padding=0)
    tagger.compile(optimizer(rate), jit_compile=_compiled())
    tagger.build(encoder.input_shape)
    return tagger


def train(
    tagger: Tagger, part: Part, *, steps: int | None = None, epochs: int = 1, batch: int = 64, seed: int = 0
) -> float:
    """Trains a tagger on batches of equal size, whose order depends on the seed alone.

    Args:
        tagger: compiled.
        part: sentences.
        steps: number of batches; by default as many whole ones as fit into ``epochs`` passes.
        epochs: number of passes if ``steps`` is not given.
        batch: sentences of a batch, at most all of them.
        seed: of the order.

    Returns:
        The mean loss, nats a sentence.

    Raises:
        ValueError: no batch at all.

    Example:
        >>> corpus = segmentation(train=64, dev=1, test=1)
        >>> tagger = tagger_of(convolutional(corpus, width=8), Softmax(4), 0.01)
        >>> before, after = (train(tagger, corpus.train, batch=32) for _ in range(2))
        >>> after < before
        True
    """
    count = len(part.characters)
    steps = epochs * count // batch if steps is None else steps
    if steps < 1 or batch > count:
        raise ValueError(
            f"steps and batch must give at least one batch of {count} sentences, got {steps} of {batch}"
        )
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(count) for _ in range(-(-steps * batch // count))])[: steps * batch]
    history = tagger.fit(*part.at(order), batch_size=batch, shuffle=False, verbose=0)
    return float(history.history["loss"][0])


def emissions_of(tagger: Tagger, part: Part, batch: int = 256) -> NDArray[np.float32]:
    """The emissions of the encoder for all sentences, float32 (n, time, tags); anything at padded steps.

    Example:
        >>> corpus = segmentation(train=20, dev=1, test=3)
        >>> emissions_of(tagger_of(convolutional(corpus, width=8), Softmax(4), 1e-3), corpus.test).shape
        (3, 40, 4)
    """
    encoder = tagger.encoder
    if not encoder.compiled:
        encoder.compile(jit_compile=_compiled())
    return encoder.predict(part.characters, batch_size=batch, verbose=0)


def decode(head: Head, emissions: NDArray[np.float32], part: Part) -> Ids:
    """The tags that a head gives to the emissions of sentences, int32 (n, time), −1 where a sentence has ended.

    Example:
        >>> part = Part(np.array([[5, 0]], np.int32), np.array([[1, -1]], np.int32))
        >>> decode(Softmax(2), np.zeros((1, 2, 2), np.float32), part).tolist()
        [[0, -1]]
    """
    return ops.convert_to_numpy(head.decode(emissions, mask=part.characters != 0)[0])


def with_rules(head: Head, alphabet: Sequence[str]) -> Head:
    """The same head with the same scores, except that moves which the scheme forbids score −∞: hard rules.

    Args:
        head: built.
        alphabet: the labels.

    Returns:
        A new head; it shares no weight with the old one.

    Example:
        >>> head = Softmax(4)
        >>> head.build((None, None, 4))
        >>> int(np.isneginf(ops.convert_to_numpy(with_rules(head, SEGMENT_ALPHABET).transitions)).sum())
        8
    """
    ruled = type(head).from_config({**head.get_config(), "legal": legal_moves(alphabet)})
    ruled.build((None, None, len(alphabet)))
    ruled.set_weights(head.get_weights())
    return ruled


def scores(
    predicted: Ids, part: Part, alphabet: Sequence[str], kinds: Collection[str] | None = None
) -> dict[str, Any]:
    """How good predicted tags are.

    Args:
        predicted: tags, int (n, time).
        part: the sentences with their tags.
        alphabet: the labels.
        kinds: of spans to count; all by default.

    Returns:
        "f1", "precision" and "recall" over spans; "accuracy", the share of characters whose tag is right, all in
        [0, 1]; "illegal", the number of illegal moves from one character to the next, and "boundaries", that of
        illegal first and last tags; "characters", how many there are.

    Example:
        >>> part = Part(np.array([[5, 6, 7]], np.int32), np.array([[1, 3, 0]], np.int32))
        >>> found = scores(np.array([[1, 1, 3]], np.int32), part, SEGMENT_ALPHABET)
        >>> found["f1"], found["illegal"], found["boundaries"]
        (0.0, 1, 0)
    """
    valid = part.tags >= 0
    score = score_tags(part.tags, predicted, alphabet, kinds)
    illegal = illegal_moves(predicted, alphabet, boundaries=False)
    return {
        "f1": score.f1,
        "precision": score.precision,
        "recall": score.recall,
        "accuracy": float(np.mean(predicted[valid] == part.tags[valid])),
        "illegal": illegal,
        "boundaries": illegal_moves(predicted, alphabet) - illegal,
        "characters": int(valid.sum()),
    }


def evaluate(tagger: Tagger, part: Part, alphabet: Sequence[str], *, rules: bool = True) -> dict[str, Any]:
    """Tags sentences and scores them, as the tagger decodes and with hard rules in its decoder.

    Args:
        tagger: built.
        part: the sentences.
        alphabet: the labels.
        rules: whether to decode a second time, :func:`with_rules`.

    Returns:
        As :func:`scores`, and the same under "ruled".

    Example:
        >>> corpus = segmentation(train=20, dev=1, test=3)
        >>> tagger = tagger_of(convolutional(corpus, width=8), Softmax(4), 1e-3)
        >>> evaluate(tagger, corpus.test, corpus.alphabet)["ruled"]["illegal"]
        0
    """
    emissions = emissions_of(tagger, part)
    found = scores(decode(tagger.head, emissions, part), part, alphabet)
    if rules:
        found["ruled"] = scores(decode(with_rules(tagger.head, alphabet), emissions, part), part, alphabet)
    return found


def _compiled() -> bool:
    """Whether the backend's compiler pays: on JAX and on GPUs it does, on a CPU TensorFlow's graph is as fast."""
    return keras.backend.backend() == "jax" or measure.device().kind == "gpu"
