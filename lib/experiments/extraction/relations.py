"""Relations: triples of DuIE by the cascade, and what three treatments of rare positives do to its first steps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.bert import Characters, E5File, Encoder
from lib.experiments.extraction.batching import batches, by_length
from lib.experiments.training import train
from lib.extraction import Cascade, Triple, prior_bias, sample_subject, targets
from lib.tagging import Score
from lib.workbench import corpora, records
from lib.workbench.corpora import DUIE_PREDICATES, Statement
from lib.workbench.marked import Marked

Row = dict[str, Any]
Place = tuple[int, int]


# --- the corpus -------------------------------------------------------------------------------------------


@lru_cache
def duie() -> dict[str, list[Statement]]:
    """The corpus, read once; see :func:`lib.workbench.corpora.duie`.

    Example:
        >>> len(duie()["test"])  # doctest: +SKIP
        1342
    """
    return corpora.duie()


def _texts() -> Iterator[str]:
    return (statement.text for part in duie().values() for statement in part)


@lru_cache
def predicates() -> tuple[str, ...]:
    """The 17 predicates of DuIE in alphabetical order; a predicate is a place in this tuple.

    Example:
        >>> len(predicates())  # doctest: +SKIP
        17
    """
    return tuple(sorted({predicate for part in duie().values() for s in part for _, predicate, _ in s.triples}))


def chinese_encoder(texts: Iterable[str], layers: int, dropout: float = 0.1) -> tuple[Characters, Encoder]:
    """The lower layers of multilingual-e5-small, and what makes its ids of the characters of these texts.

    Raises:
        CorpusError: the weights cannot be had.

    Example:
        >>> characters, encoder = chinese_encoder(["北京"], layers=1)  # doctest: +SKIP
        >>> encoder(characters(["北京"])).shape  # doctest: +SKIP
        TensorShape([1, 4, 384])
    """
    path = corpora.member("e5-small", "e5-small-q4.bin")
    characters = Characters(E5File(path).pieces, texts)
    return characters, Encoder.from_e5(path, layers=layers, rows=characters.rows, dropout=dropout)


# --- triples ----------------------------------------------------------------------------------------------


def placed(statement: Statement) -> list[Triple]:
    """The triples of a sentence in tokens: one a character, after the mark of its start.

    DuIE does not say which occurrence of a string is meant; the first is taken, as in the article.

    Example:
        >>> placed(Statement("李柏光从北京大学毕业", (("李柏光", "毕业院校", "北京大学"),)))  # doctest: +SKIP
        [Triple(subject=(1, 4), predicate=14, object=(5, 9))]
    """
    return [
        Triple(_place(statement.text, subject), predicates().index(predicate), _place(statement.text, object_))
        for subject, predicate, object_ in statement.triples
    ]


def _place(text: str, words: str) -> Place:
    start = text.index(words) + 1
    return start, start + len(words)


def in_words(text: str, triples: Iterable[Triple]) -> set[tuple[str, str, str]]:
    """Triples of places as triples of strings, by which they are scored.

    Example:
        >>> in_words("李柏光从北京大学毕业", [Triple((1, 4), 14, (5, 9))])  # doctest: +SKIP
        {('李柏光', '毕业院校', '北京大学')}
    """
    return {(_words(text, t.subject), predicates()[t.predicate], _words(text, t.object)) for t in triples}


def _words(text: str, place: Place) -> str:
    """The characters of a place in tokens, the first of which is the mark of the start."""
    return text[place[0] - 1 : place[1] - 1]


def overlap(triples: Iterable[tuple[str, str, str]]) -> str:
    """How the triples of a sentence overlap.

    Returns:
        "EPO" if two have one pair of entities, "SEO" if two have one entity in common, else "none". The names are
        those of Zeng et al. 2018: entity pair overlap, single entity overlap.

    Example:
        >>> overlap([("a", "p", "b"), ("b", "q", "a")]), overlap([("a", "p", "b"), ("a", "p", "c")])
        ('EPO', 'SEO')
        >>> overlap([("a", "p", "b"), ("c", "p", "d")])
        'none'
    """
    pairs = Counter(frozenset((subject, object_)) for subject, _, object_ in set(triples))
    entities = Counter(entity for pair in pairs for entity in pair)
    if max(pairs.values(), default=0) > 1:
        return "EPO"
    return "SEO" if max(entities.values(), default=0) > 1 else "none"


def error(triple: tuple[str, str, str], gold: Iterable[tuple[str, str, str]]) -> str:
    """What is wrong with a predicted triple, by the gold triple that comes nearest.

    Returns:
        "none"; "predicate" if only that is wrong; "boundary" if subject and object contain the right ones or are
        parts of them; "object" or "subject" if only that is wrong; "invented" if two parts or more are wrong.

    Example:
        >>> gold = [("Ada", "born in", "London")]
        >>> error(("Ada", "died in", "London"), gold), error(("Ada", "born in", "in London"), gold)
        ('predicate', 'boundary')
        >>> error(("Ada", "born in", "Rome"), gold), error(("Bob", "born in", "Rome"), gold)
        ('object', 'invented')
    """
    nearest = "invented"
    for true in gold:
        same = [one == other for one, other in zip(triple, true, strict=True)]
        alike = [one in other or other in one for one, other in zip(triple, true, strict=True)]
        boundary = not all(same) and same[1] and all(alike)
        kind = "boundary" if boundary else _ERRORS.get(tuple(same), "invented")
        nearest = min(nearest, kind, key=ERRORS.index)
    return nearest


#: What can be wrong with a predicted triple, from nothing to everything.
ERRORS = ("none", "predicate", "boundary", "object", "subject", "invented")
# Which of subject, predicate and object are right.
_ERRORS = {
    (True, True, True): "none",
    (True, False, True): "predicate",
    (True, True, False): "object",
    (False, True, True): "subject",
}


def cascade(layers: int, treatment: str = "power", threshold: float = 0.5) -> tuple[Characters, Cascade]:
    """A new cascade over the lower layers of multilingual-e5-small.

    Args:
        layers: how many of its 12.
        treatment: of rare positives: a key of :data:`TREATMENTS`.
        threshold: of all pointers.

    Raises:
        ValueError: a treatment that does not exist.

    Example:
        >>> characters, model = cascade(layers=1)  # doctest: +SKIP
        >>> model.power  # doctest: +SKIP
        (2, 4)
    """
    if treatment not in TREATMENTS:
        raise ValueError(f"treatment must be one of {sorted(TREATMENTS)}, got {treatment!r}")
    characters, encoder = chinese_encoder(_texts(), layers)
    return characters, Cascade(encoder, len(predicates()), threshold=threshold, **TREATMENTS[treatment])


#: Of rare positives: the sigmoid as it is, its square and fourth power, and a sigmoid that begins where these do.
TREATMENTS: dict[str, dict[str, Any]] = {
    "plain": {"power": 1, "bias": 0.0},
    "power": {"power": (2, 4), "bias": 0.0},
    "bias": {"power": 1, "bias": (prior_bias(2), prior_bias(4))},
}


def train_cascade(
    model: Cascade,
    characters: Characters,
    statements: Sequence[Statement],
    *,
    epochs: int,
    rate: float,
    batch: int,
    seed: int,
) -> list[float]:
    """Trains a cascade on sentences; one subject of each is drawn anew in every epoch.

    Returns:
        The loss of every step.

    Example:
        >>> characters, model = cascade(layers=1)  # doctest: +SKIP
        >>> some = corpora.duie()["train"][:64]  # doctest: +SKIP
        >>> losses = train_cascade(model, characters, some, epochs=1, rate=1e-4, batch=8, seed=0)  # doctest: +SKIP
    """
    triples = [placed(statement) for statement in statements]
    steps = batches([len(statement.text) + 2 for statement in statements], batch, epochs, seed)
    rng = np.random.default_rng([seed, 1])

    def examples() -> Iterator[tuple[Any, Any]]:
        for length, texts in steps:
            subject = [sample_subject(triples[i], seed=rng) for i in texts]
            y = [targets(triples[i], length, len(predicates()), s) for i, s in zip(texts, subject, strict=True)]
            ids = characters([statements[i].text for i in texts], length)
            yield (
                {"ids": ids, "subject": np.array(subject, "int32")},
                {key: np.stack([row[key] for row in y]) for key in y[0]},
            )

    return train(model, examples(), len(steps), rate)


def extract(model: Cascade, characters: Characters, texts: Sequence[str]) -> list[set[Triple]]:
    """The triples that a cascade finds in texts, in tokens.

    Example:
        >>> characters, model = cascade(layers=1)  # doctest: +SKIP
        >>> len(extract(model, characters, ["李柏光从北京大学毕业"]))  # doctest: +SKIP
        1
    """
    found: list[set[Triple]] = [set() for _ in texts]
    for length, places in by_length(len(text) + 2 for text in texts).items():
        ids = characters([texts[i] for i in places], length)
        for i, triples in zip(places, model.extract(ids), strict=True):
            found[i] = triples
    return found


def score_relations(statements: Sequence[Statement], found: Sequence[set[Triple]]) -> Row:
    """How good the triples are that were found in sentences.

    Returns:
        "precision", "recall", "f1", micro-averaged; "correct", "predicted" and "gold", for each sentence its
        numbers of triples; "errors", how many of the predicted triples are wrong in which way, see :func:`error`.

    Example:
        >>> statement = Statement("李柏光从北京大学毕业", (("李柏光", "毕业院校", "北京大学"),))
        >>> score_relations([statement], [{Triple((1, 4), 14, (5, 9))}])["f1"]  # doctest: +SKIP
        1.0
    """
    words = [in_words(statement.text, triples) for statement, triples in zip(statements, found, strict=True)]
    counts = [
        (len(set(statement.triples) & triples), len(triples), len(set(statement.triples)))
        for statement, triples in zip(statements, words, strict=True)
    ]
    total = sum((Score(*count) for count in counts), Score())
    errors = Counter(
        error(triple, statement.triples)
        for statement, triples in zip(statements, words, strict=True)
        for triple in triples
    )
    errors.pop("none", None)
    correct, predicted, gold = np.array(counts).T.tolist()
    scores = {"precision": total.precision, "recall": total.recall, "f1": total.f1}
    return {**scores, "correct": correct, "predicted": predicted, "gold": gold, "errors": dict(errors)}


def marked(text: str, triples: Iterable[tuple[str, str, str]]) -> Marked:
    """A sentence with its triples, one a line, subject and object underlined.

    Example:
        >>> marked("《边城》的作者是沈从文", [("边城", "作者", "沈从文")])
        [subject] {object}
        author: 《[边城]》的作者是{沈从文}
    """
    lines = []
    for subject, predicate, object_ in sorted(triples, key=lambda triple: triple[1]):
        places = {
            role: [(text.index(words), text.index(words) + len(words))]
            for role, words in (("subject", subject), ("object", object_))
        }
        lines.append((DUIE_PREDICATES[predicate], text, places))
    return Marked(lines, roles=("subject", "object"), language="zh")


def f1_among(record: records.Record, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """F1 in percent over some of the test sentences, one number a row of the record "relations".

    Args:
        record: with the counts of every test sentence.
        chosen: which sentences, bool (test sentences,).

    Example:
        >>> from lib.workbench.measure import Device
        >>> rows = ({"correct": [1, 0], "predicted": [2, 1], "gold": [2, 1]},)
        >>> record = records.Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", rows)
        >>> f1_among(record, np.array([True, False]))
        array([50.])
    """
    correct, predicted, gold = (
        np.array(record.column(key))[:, chosen].sum(axis=1) for key in ("correct", "predicted", "gold")
    )
    return 100 * 2 * correct / (predicted + gold)


def differences(record: records.Record, k: int) -> list[tuple[str, str, str, str]]:
    """Where the first row of the record "relations" and DuIE disagree about test sentence k, at most 199.

    Returns:
        ("+", subject, predicate, object) for a triple that only the cascade has, ("−", …) for one that only DuIE
        has.

    Example:
        >>> record = records.load("06-extraction", "relations", "cpu")
        >>> differences(record, 1)  # doctest: +SKIP
        []
    """
    text, triples = duie()["test"][k]
    found = {(text[a:b], predicates()[p], text[c:d]) for a, b, p, c, d in record.rows[0]["found"][k]}
    only = [("+", *triple) for triple in sorted(found - set(triples))]
    return only + [("−", *triple) for triple in sorted(set(triples) - found)]


def relations(
    seed: int,
    *,
    layers: int = 4,
    sentences: int = 10_733,
    test: int = 1342,
    epochs: int = 3,
    rate: float = 3e-4,
    batch: int = 32,
) -> Row:
    """Trains a cascade on DuIE and scores it on the test part.

    Args:
        seed: of the heads, the dropout and the order of the sentences.
        layers: of the encoder.
        sentences: of the training part, the first; those of more than 126 characters are left out.
        test: sentences of the test part, of any length.
        epochs: passes.
        rate: the largest learning rate.
        batch: sentences a step.

    Returns:
        All arguments, "seconds", what :func:`score_relations` says, and "found": for the first 200 test sentences
        the triples as [start, end, predicate, start, end] in characters.

    Example:
        >>> row = relations(0, layers=1, sentences=64, test=20, epochs=1, batch=8)  # doctest: +SKIP
        >>> 0 <= row["f1"] <= 1  # doctest: +SKIP
        True
    """
    arguments = locals() | {}
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    characters, model = cascade(layers)
    losses = train_cascade(
        model, characters, duie()["train"][:sentences], epochs=epochs, rate=rate, batch=batch, seed=seed
    )
    held_out = duie()["test"][:test]
    found = extract(model, characters, [statement.text for statement in held_out])
    shown = [
        sorted([t.subject[0] - 1, t.subject[1] - 1, t.predicate, t.object[0] - 1, t.object[1] - 1] for t in triples)
        for triples in found[:200]
    ]
    took = {"steps": len(losses), "seconds": time.perf_counter() - began}
    return arguments | took | score_relations(held_out, found) | {"found": shown}


def imbalance(
    treatment: str,
    seed: int,
    *,
    layers: int = 2,
    sentences: int = 3200,
    dev: int = 500,
    epochs: int = 2,
    rate: float = 3e-4,
    batch: int = 32,
) -> Row:
    """The first steps of a cascade with one treatment of rare positives.

    Args:
        treatment: a key of :data:`TREATMENTS`.
        seed: as in :func:`relations`; one seed sees the same batches with every treatment.
        layers: of the encoder.
        sentences: of the training part, the first.
        dev: sentences of the development part to score.
        epochs: passes.
        rate: the largest learning rate.
        batch: sentences a step.

    Returns:
        All arguments; "losses" of the steps; "precision", "recall" and "f1"; "positives", the share of the pointers
        that point, of subjects and of objects; "first", the mean probability before training that a pointer points.

    Example:
        >>> imbalance("bias", 0, layers=1, sentences=64, dev=20, epochs=1, batch=8)["first"]  # doctest: +SKIP
        [0.25, 0.06]
    """
    arguments = locals() | {}
    keras.utils.set_random_seed(seed)
    characters, model = cascade(layers, treatment)
    statements = duie()["train"][:sentences]
    first = _first_guess(model, characters, statements[:batch])
    losses = train_cascade(model, characters, statements, epochs=epochs, rate=rate, batch=batch, seed=seed)
    held_out = duie()["dev"][:dev]
    found = score_relations(held_out, extract(model, characters, [statement.text for statement in held_out]))
    scores = {key: found[key] for key in ("precision", "recall", "f1")}
    return arguments | scores | {"losses": losses, "first": first, "positives": positives(statements)}


def _first_guess(model: Cascade, characters: Characters, statements: Sequence[Statement]) -> list[float]:
    """The mean probability, of subjects and of objects, that a pointer points."""
    ids = characters([statement.text for statement in statements])
    logits = model({"ids": ids, "subject": np.array([[1, 2]] * len(ids), "int32")})
    guesses = []
    for step, power in zip(("subjects", "objects"), model.power, strict=True):
        values = ops.convert_to_numpy(logits[step]).astype(float)
        guesses.append(float(np.mean((1 + np.exp(-values[np.isfinite(values)])) ** -power)))
    return guesses


def positives(statements: Iterable[Statement]) -> list[float]:
    """The share of the pointers that point, of subjects and of objects (told one of the subjects).

    Example:
        >>> positives([Statement("李柏光从北京大学毕业", (("李柏光", "毕业院校", "北京大学"),))])  # doctest: +SKIP
        [0.08333333333333333, 0.004901960784313725]
    """
    shares = []
    for statement in statements:
        triples = placed(statement)
        subject = triples[0].subject
        y = targets(triples, len(statement.text) + 2, len(predicates()), subject)
        shares.append((y["subjects"].sum(), y["subjects"].size, y["objects"].sum(), y["objects"].size))
    subjects, of_subjects, objects, of_objects = np.sum(shares, axis=0)
    return [float(subjects / of_subjects), float(objects / of_objects)]
