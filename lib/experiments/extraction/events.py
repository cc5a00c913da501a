"""Events: their triggers and arguments as spans of composite kinds, by BIO labels under a CRF, cross-validated."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.bert import Encoder, align, character_span, token_span, word_pieces
from lib.crf import CRF
from lib.experiments.extraction.batching import batches
from lib.experiments.training import train
from lib.extraction import event_score
from lib.tagging import Score, Span, Tagger, alphabet_of, disjoint, labels_of, spans_of_tags
from lib.workbench import corpora, records
from lib.workbench.corpora import Document
from lib.workbench.measure import Estimate

Row = dict[str, Any]
Ids = NDArray[np.int32]
Place = tuple[int, int]


class Passage(NamedTuple):
    """A sentence of a document.

    Attributes:
        text: the sentence.
        spans: what its characters are in the events of the document: kinds are "Type/Role", the role of a trigger
            being "Trigger"; sorted, each once.
    """

    text: str
    spans: tuple[Span, ...]


def passages(document: Document) -> list[Passage]:
    """The sentences of a document with the spans of its events in them.

    A sentence ends at a line's end, or at . ? or ! before a space and a capital. A span that leaves its sentence is
    left out.

    Example:
        >>> event = corpora.Event("Binding", (4, 9), (("Theme", (0, 3)),))
        >>> passages(Document("x", "IL2 binds. It does.", (event,)))[0].spans
        (Span(start=0, end=3, kind='Binding/Theme'), Span(start=4, end=9, kind='Binding/Trigger'))
    """
    spans = {Span(*place, f"{event.kind}/{role}") for event in document.events for role, place in _roles(event)}
    ends = [m.start() for m in re.finditer(r"\n|(?<=[.?!]) (?=[A-Z])", document.text)] + [len(document.text)]
    found, start = [], 0
    for end in ends:
        inside = sorted(
            Span(s.start - start, s.end - start, s.kind) for s in spans if start <= s.start and s.end <= end
        )
        if document.text[start:end].strip():
            found.append(Passage(document.text[start:end], tuple(inside)))
        start = end + 1
    return found


def _roles(event: corpora.Event) -> list[tuple[str, Place]]:
    return [("Trigger", event.trigger), *event.arguments]


class Tokens(NamedTuple):
    """A sentence as an encoder reads it.

    Attributes:
        ids: of its tokens, with [CLS] and [SEP].
        places: the characters of each token, None for these two.
        tags: labels of the spans that BIO can keep, places in the alphabet.
    """

    ids: list[int]
    places: list[Place | None]
    tags: list[int]


def tokens_of(passage: Passage, tokenizer: Any, alphabet: Sequence[str], length: int) -> Tokens:
    """Tokenizes a sentence and labels its tokens; what lies beyond ``length`` tokens is cut off.

    Example:
        >>> tokenizer = word_pieces(corpora.member("minilm", "tokenizer.json"))  # doctest: +SKIP
        >>> passage = Passage("IL2 binds", (Span(0, 3, "Binding/Theme"),))  # doctest: +SKIP
        >>> tokens_of(passage, tokenizer, alphabet_of(["Binding/Theme"]), 16).tags  # doctest: +SKIP
        [0, 1, 2, 0, 0]
    """
    encoded = tokenizer.encode(passage.text)
    ids, words = encoded.ids[:length], encoded.tokens[:length]
    places = align(passage.text, words)
    inside = [(token_span(places, span.start, span.end), span.kind) for span in passage.spans]
    spans = disjoint(Span(*place, kind) for place, kind in inside if place and f"B-{kind}" in alphabet)
    return Tokens(ids, places, [alphabet.index(label) for label in labels_of(spans, len(ids))])


def kinds(documents: Iterable[Document], least: int = 5) -> list[str]:
    """The kinds of span that occur at least so often, in alphabetical order.

    Example:
        >>> kinds([Document("x", "IL2 binds.", (corpora.Event("Binding", (4, 9), ()),))], least=1)
        ['Binding/Trigger']
    """
    counted = Counter(
        span.kind for document in documents for passage in passages(document) for span in passage.spans
    )
    return sorted(kind for kind, count in counted.items() if count >= least)


def events(
    multiplier: float,
    fold: int,
    seed: int,
    *,
    folds: int = 5,
    layers: int = 3,
    epochs: int = 12,
    rate: float = 6e-4,
    batch: int = 8,
    length: int = 128,
    documents: int = 60,
) -> Row:
    """Trains a tagger of composite BIO labels on four fifths of the BioNLP documents and scores it on the rest.

    Args:
        multiplier: λ of the transitions' learning rate, see chapter 4.
        fold: which of the folds is held out; document i belongs to fold i mod ``folds``.
        seed: of the head and the order.
        folds: how many there are.
        layers: of MiniLM.
        epochs: passes.
        rate: the largest learning rate.
        batch: sentences a step.
        length: tokens of a sentence, at most.
        documents: how many there are.

    Returns:
        All arguments, "seconds"; "correct", "predicted", "gold" spans of the held-out documents, and of them
        "expressible", which one sequence of labels can spell; "article", the three counts of
        :func:`lib.extraction.event_score`; and of the transitions the means of three kinds: "inside", B-x → I-x;
        "cut", O → I-x; "crossed", B-x → I-y; "kept" and "refused", the shares of the first that are positive and of
        the second that are negative.

    Example:
        >>> row = events(100.0, 0, 0, layers=1, epochs=1, documents=10)  # doctest: +SKIP
        >>> row["correct"] <= row["gold"]  # doctest: +SKIP
        True
    """
    arguments = locals() | {}
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    corpus = corpora.bionlp()[:documents]
    alphabet = alphabet_of(kinds(corpus))
    training = [p for i, document in enumerate(corpus) if i % folds != fold for p in passages(document)]
    held_out = [document for i, document in enumerate(corpus) if i % folds == fold]
    tokenizer = word_pieces(corpora.member("minilm", "tokenizer.json"))
    tokenized = [tokens_of(passage, tokenizer, alphabet, length) for passage in training]
    tagger = event_tagger(alphabet, layers, multiplier)
    steps = batches([len(tokens.ids) for tokens in tokenized], batch, epochs, seed)
    examples = (
        (
            _stacked([tokenized[i].ids for i in texts], padded, 0),
            _stacked([tokenized[i].tags for i in texts], padded, -1),
        )
        for padded, texts in steps
    )
    train(tagger, examples, len(steps), rate)
    found = [tag_events(tagger, tokenizer, alphabet, passages(document), length) for document in held_out]
    took = {"steps": len(steps), "seconds": time.perf_counter() - began}
    return arguments | took | score_events(held_out, found) | _transition_means(tagger.head, alphabet)


def event_tagger(alphabet: Sequence[str], layers: int, multiplier: float) -> Tagger:
    """The lower layers of MiniLM, its embeddings frozen, under emissions and a CRF.

    Example:
        >>> event_tagger(("O", "B", "I"), layers=1, multiplier=100.0).head.tag_count  # doctest: +SKIP
        3
    """
    encoder = Encoder.from_pretrained(corpora.member("minilm", "model.safetensors"), num_heads=12, layers=layers)
    encoder.embeddings.trainable = False  # 11.7 million weights, of which sixty texts would move a few
    ids = keras.Input((None,), dtype="int32")
    emissions = keras.layers.Dense(len(alphabet), name="emissions")(encoder(ids))
    crf = CRF(len(alphabet), learning_rate_multiplier=multiplier)
    return Tagger(keras.Model(ids, emissions), crf, padding=0)


def tag_events(
    tagger: Tagger, tokenizer: Any, alphabet: Sequence[str], sentences: Sequence[Passage], length: int
) -> list[list[Span]]:
    """The spans that a tagger finds in sentences, in characters.

    Example:
        >>> tagger = event_tagger(("O", "B", "I"), layers=1, multiplier=100.0)  # doctest: +SKIP
        >>> tokenizer = word_pieces(corpora.member("minilm", "tokenizer.json"))  # doctest: +SKIP
        >>> len(tag_events(tagger, tokenizer, ("O", "B", "I"), [Passage("IL2 binds", ())], 16))  # doctest: +SKIP
        1
    """
    tokenized = [tokens_of(Passage(sentence.text, ()), tokenizer, alphabet, length) for sentence in sentences]
    tags = tagger.predict(_stacked([tokens.ids for tokens in tokenized], length, 0), batch_size=16, verbose=0)
    spelled = zip(tokenized, spans_of_tags(tags, alphabet), strict=True)
    return [
        [
            Span(*place, span.kind)
            for span in spans
            if (place := character_span(tokens.places, span.start, min(span.end, len(tokens.places))))
        ]
        for tokens, spans in spelled
    ]


def merge(told: Iterable[corpora.Event]) -> list[corpora.Event]:
    """The events of a text, all of one kind merged into one that has all their arguments.

    Example:
        >>> one, two = (corpora.Event("Binding", (4, 9), (("Theme", (k, k + 3)),)) for k in (0, 20))
        >>> [event.arguments for event in merge([one, two])]
        [(('Theme', (0, 3)), ('Theme', (20, 23)))]
    """
    merged: dict[str, corpora.Event] = {}
    for event in told:
        before = merged.get(event.kind, event._replace(arguments=()))
        merged[event.kind] = before._replace(arguments=before.arguments + event.arguments)
    return list(merged.values())


def flat(document: Document, told: Iterable[corpora.Event]) -> dict[tuple[str, str], str]:
    """The arguments of events as the article scores them: one for each (kind, role), whichever event it is from.

    Example:
        >>> event = corpora.Event("Binding", (4, 9), (("Theme", (0, 3)),))
        >>> flat(Document("x", "IL2 binds.", (event,)), [event])
        {('Binding', 'Theme'): 'IL2'}
    """
    places = {(event.kind, role): place for event in told for role, place in event.arguments}
    return {key: document.text[slice(*place)] for key, place in places.items()}


def merging(documents: Sequence[Document]) -> dict[str, Any]:
    """What the article's metric says when all events of a kind are merged in every document.

    Returns:
        "f1", the score of the merged events; "events", how many have arguments, and "whole", how many of them are
        left as they were; "arguments", how many roles are filled, and "seen", how many of these count.

    Example:
        >>> one, two = (corpora.Event("Binding", (4, 9), (("Theme", (k, k + 3)),)) for k in (0, 4))
        >>> merging([Document("x", "IL2 binds.", (one, two))])
        {'f1': 1.0, 'events': 2, 'whole': 0, 'arguments': 2, 'seen': 1}
    """
    score, found = Score(), Counter()
    for document in documents:
        merged = merge(document.events)
        score += event_score(flat(document, document.events), flat(document, merged))
        told = [event.arguments for event in document.events if event.arguments]
        left = {event.arguments for event in merged}
        found["events"] += len(told)
        found["whole"] += sum(arguments in left for arguments in told)
        found["arguments"] += sum(map(len, told))
    return {"f1": score.f1, **found, "seen": score.gold}


def arguments_of(passage: Passage) -> list[Span]:
    """The spans of a sentence that are arguments: those of its events without their triggers.

    Example:
        >>> arguments_of(Passage("IL2 binds", (Span(0, 3, "Binding/Theme"), Span(4, 9, "Binding/Trigger"))))
        [Span(start=0, end=3, kind='Binding/Theme')]
    """
    return [span for span in passage.spans if not span.kind.endswith("/Trigger")]


def what_is_left(documents: Sequence[Document]) -> dict[str, int]:
    """How many arguments of events there are in the sentences, and how many of them are left of what.

    Returns:
        "arguments", one for each span and kind of a sentence; "spelled", those that BIO labels can keep, at most;
        "seen" and "seen by document", those that the article's metric compares, one for each type and role of a
        sentence or of a document; "spans" and "spans spelled", the same as the first two with the triggers counted.

    Example:
        >>> event = corpora.Event("Binding", (4, 9), (("Theme", (0, 3)), ("Theme", (14, 17))))
        >>> what_is_left([Document("x", "IL2 binds not IL4.", (event,))])["seen"]
        1
    """
    left: Counter[str] = Counter()
    for document in documents:
        seen = set()
        for passage in passages(document):
            some = arguments_of(passage)
            left["arguments"] += len(some)
            left["spelled"] += len(disjoint(some))
            left["seen"] += len({span.kind for span in some})
            left["spans"] += len(passage.spans)
            left["spans spelled"] += len(disjoint(passage.spans))
            seen |= {span.kind for span in some}
        left["seen by document"] += len(seen)
    return dict(left)


def score_events(documents: Sequence[Document], found: Sequence[list[list[Span]]]) -> Row:
    """How good the spans are that were found in the sentences of documents.

    Returns:
        "correct", "predicted" and "gold", numbers of spans with their kinds; "expressible", how many gold spans one
        sequence of labels a sentence can spell at most; "article", the counts X, Y, Z of the article's metric, one
        argument for each (type, role) of a document.

    Example:
        >>> document = Document("x", "IL2 binds.", (corpora.Event("Binding", (4, 9), (("Theme", (0, 3)),)),))
        >>> score_events([document], [[[Span(0, 3, "Binding/Theme")]]])["correct"]
        1
    """
    counts, article = Score(), Score()
    expressible = 0
    for document, sentences in zip(documents, found, strict=True):
        gold_keys: dict[tuple[str, str], str] = {}
        found_keys: dict[tuple[str, str], str] = {}
        for passage, spans in zip(passages(document), sentences, strict=True):
            gold, predicted = set(passage.spans), set(spans)
            counts += Score(len(gold & predicted), len(predicted), len(gold))
            expressible += len(disjoint(gold))
            for keys, some in ((gold_keys, gold), (found_keys, predicted)):
                for start, end, kind in sorted(some):
                    keys.setdefault(tuple(kind.split("/", 1)), passage.text[start:end])
        article += event_score(gold_keys, found_keys)
    return {
        "correct": counts.correct,
        "predicted": counts.predicted,
        "gold": counts.gold,
        "expressible": expressible,
        "article": [article.correct, article.predicted, article.gold],
    }


def _transition_means(head: CRF, alphabet: Sequence[str]) -> dict[str, float]:
    """Means of three kinds of learned transitions."""
    A = ops.convert_to_numpy(head.transitions)
    begin, inside = np.arange(1, len(alphabet), 2), np.arange(2, len(alphabet), 2)
    crossed = A[np.ix_(begin, inside)][~np.eye(len(begin), dtype=bool)]
    return {
        "inside": float(A[begin, inside].mean()),
        "cut": float(A[0, inside].mean()),
        "crossed": float(crossed.mean()),
        "kept": float(np.mean(A[begin, inside] > 0)),
        "refused": float(np.mean(A[0, inside] < 0)),
    }


def _stacked(rows: Sequence[Sequence[int]], length: int, value: int) -> Ids:
    stacked = np.full((len(rows), length), value, np.int32)
    for out, row in zip(stacked, rows, strict=True):
        out[: len(row)] = row
    return stacked


def f1_of_folds(record: records.Record, multiplier: float) -> NDArray[np.float64]:
    """F1 over spans in percent, one number a fold of the record "events".

    Example:
        >>> record = records.load("06-extraction", "events", "cpu")
        >>> f1_of_folds(record, 100.0).shape
        (5,)
    """
    rows = record.where(multiplier=multiplier)
    return np.array([200 * row["correct"] / (row["predicted"] + row["gold"]) for row in rows])


def without_each_fold(differences: Sequence[float]) -> Estimate:
    """The least of the intervals that leave one fold out, of differences paired by fold.

    Steps and rate were chosen on one of the folds, and it was not written down on which. Whichever it was, the
    other four were held out; so the claim is left with the weakest four.

    Example:
        >>> print(without_each_fold([1.0, 1.1, 0.9, 1.0, 1.0]))
        1.00 [0.87, 1.13]
    """
    kept = [np.delete(differences, fold) for fold in range(len(differences))]
    return min(map(Estimate.from_samples, kept), key=lambda estimate: estimate.low)
