"""Reading comprehension: triples of DuIE asked as questions; a pointer, BIO labels, or both give the answer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.bert import Characters
from lib.crf import CRF
from lib.experiments.extraction.batching import batches, by_length
from lib.experiments.extraction.relations import chinese_encoder, duie
from lib.experiments.training import train
from lib.extraction import SpanPointer, answer_score, best_span, pointer_loss
from lib.tagging import Span, alphabet_of, disjoint, labels_of, spans_of_tags
from lib.workbench import records
from lib.workbench.corpora import Statement

Row = dict[str, Any]
Ids = NDArray[np.int32]

#: How each relation is asked, by the kind of subject that has it. {} is the subject.
QUESTIONS: dict[str, dict[str, str]] = {
    "book": {"作者": "《{}》的作者是谁？", "出版社": "《{}》由哪家出版社出版？"},
    "web novel": {"连载网站": "《{}》在哪个网站连载？"},
    "film": {
        "主演": "《{}》由谁主演？",
        "导演": "《{}》的导演是谁？",
        "上映时间": "《{}》什么时候上映？",
        "出品公司": "《{}》由哪家公司出品？",
    },
    "song": {
        "歌手": "《{}》由谁演唱？",
        "所属专辑": "《{}》收录在哪张专辑？",
        "作曲": "《{}》由谁作曲？",
        "作词": "《{}》由谁作词？",
    },
    "person": {
        "出生日期": "{}出生于哪一天？",
        "出生地": "{}出生在哪里？",
        "民族": "{}是什么民族？",
        "毕业院校": "{}毕业于哪所学校？",
        "国籍": "{}是哪国人？",
    },
    "organization": {"成立日期": "{}成立于什么时候？"},
}


class Question(NamedTuple):
    """A question about a passage.

    Attributes:
        question: made from a template.
        passage: a sentence of DuIE.
        answers: the parts of the passage that answer it; none if the sentence does not say.
    """

    question: str
    passage: str
    answers: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the encoder reads: question, space, passage."""
        return f"{self.question} {self.passage}"

    @property
    def offset(self) -> int:
        """The token of the first character of the passage."""
        return len(self.question) + 2

    def words(self, start: int, end: int) -> str:
        """The characters of the passage that stand at tokens start to end, the end excluded."""
        return self.passage[start - self.offset : end - self.offset]

    def place(self, answer: str) -> Span:
        """Where an answer stands first, in tokens."""
        start = self.passage.index(answer) + self.offset
        return Span(start, start + len(answer))


def questions(statements: Iterable[Statement], seed: int, unanswerable: float = 1 / 3) -> list[Question]:
    """One question about every sentence.

    With the given chance it asks a subject of the sentence for a relation that this kind of subject can have and
    the sentence does not state. Else it asks for the objects of one of its (subject, predicate) pairs.

    Args:
        statements: sentences.
        seed: of the choice.
        unanswerable: the chance of a question without an answer, where there is one to ask.

    Returns:
        The questions, in the order of the sentences.

    Example:
        >>> statement = Statement("《边城》的作者是沈从文", (("边城", "作者", "沈从文"),))
        >>> asked = questions([statement], seed=0, unanswerable=0)
        >>> asked[0].question, asked[0].answers
        ('《边城》的作者是谁？', ('沈从文',))
    """
    rng = np.random.default_rng([seed, 2])
    templates = {predicate: group for group in QUESTIONS.values() for predicate in group}
    asked = []
    for text, triples in statements:
        answers = defaultdict(list)
        for subject, predicate, object_ in triples:
            answers[subject, predicate].append(object_)
        pairs = sorted(answers)
        silent = sorted(
            {
                (subject, other)
                for subject, predicate in pairs
                for other in templates[predicate]
                if (subject, other) not in answers
            }
        )
        choice = silent if silent and rng.random() < unanswerable else pairs
        subject, predicate = choice[rng.integers(len(choice))]
        question = templates[predicate][predicate].format(subject)
        asked.append(Question(question, text, tuple(dict.fromkeys(answers.get((subject, predicate), ())))))
    return asked


BIO = alphabet_of([""])


@keras.saving.register_keras_serializable(package="proof_by_running")
class Reader(keras.Model):
    """An encoder under a pointer, under BIO labels with a CRF, or under both; their losses add up.

    The transitions of the CRF learn at ten times the rate of the rest (chapter 4).

    Args:
        encoder: ids → vectors, with a mask.
        heads: "pointer", "bio" or "both".

    Raises:
        ValueError: heads that do not exist.

    Example:
        >>> reader = Reader(keras.layers.Embedding(10, 8, mask_zero=True), "both")
        >>> sorted(reader(np.array([[4, 7, 0]])))
        ['bio', 'pointer']
    """

    def __init__(self, encoder: keras.layers.Layer, heads: str, **kwargs: Any):
        super().__init__(**kwargs)
        if heads not in ("pointer", "bio", "both"):
            raise ValueError(f"heads must be 'pointer', 'bio' or 'both', got {heads!r}")
        self.encoder, self.heads = encoder, heads
        self.pointer = SpanPointer() if heads != "bio" else None
        self.emissions = keras.layers.Dense(len(BIO)) if heads != "pointer" else None
        self.crf = CRF(len(BIO), learning_rate_multiplier=10.0) if heads != "pointer" else None

    def build(self, ids_shape: tuple[int | None, ...]) -> None:
        """Builds the encoder and the heads."""
        if not self.encoder.built:
            self.encoder.build(ids_shape)
        vectors_shape = self.encoder.compute_output_shape(ids_shape)
        if self.pointer:
            self.pointer.build(vectors_shape)
        if self.crf:
            self.emissions.build(vectors_shape)
            self.crf.build((*vectors_shape[:-1], len(BIO)))

    def call(self, ids: Any, training: bool | None = None) -> dict[str, Any]:
        """Logits (batch, time, 2) of the pointer, emissions (batch, time, 3); −∞ at padded places."""
        vectors = self.encoder(ids, training=training)
        mask = self.encoder.compute_mask(ids)
        outputs = {}
        if self.pointer:
            outputs["pointer"] = self.pointer(vectors, mask=mask)
        if self.crf:
            outputs["bio"] = self.crf(self.emissions(vectors), mask=mask)
        return outputs

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any) -> Any:  # noqa: ARG002
        """The sum of the mean losses of the heads."""
        loss = 0.0
        if self.pointer:
            loss += ops.mean(pointer_loss(y["pointer"][:, 0], y["pointer"][:, 1], y_pred["pointer"]))
        if self.crf:
            loss += ops.mean(self.crf.sequence_loss(y["bio"], y_pred["bio"]))
        return loss


def answer_targets(question: Question, length: int, rng: np.random.Generator) -> dict[str, Ids]:
    """What both heads are to give for one question: one answer drawn at random, and all of them in BIO.

    Returns:
        "pointer", int32 (2,), the first and the last token of an answer, or 0 and 0; "bio", tags int32 (length,),
        −1 where the text has ended. Of answers that overlap BIO keeps the most it can.

    Example:
        >>> y = answer_targets(Question("q?", "ab", ("b",)), 8, np.random.default_rng(0))
        >>> y["pointer"].tolist(), y["bio"].tolist()
        ([5, 5], [0, 0, 0, 0, 0, 1, 0, -1])
    """
    places = [question.place(answer) for answer in question.answers]
    pointer = np.zeros(2, np.int32)
    if places:
        start, end, _ = places[rng.integers(len(places))]
        pointer[:] = start, end - 1
    tokens = len(question.text) + 2
    bio = np.full(length, -1, np.int32)
    bio[:tokens] = [BIO.index(label) for label in labels_of(disjoint(places), tokens)]
    return {"pointer": pointer, "bio": bio}


def answers(reader: Reader, characters: Characters, asked: Sequence[Question]) -> dict[str, list[str]]:
    """What a reader answers, by every way to decode it.

    Returns:
        "pointer": the most probable span of at most 32 characters, or "" if place 0 is more probable. "bio": the
        first span that Viterbi finds. "both": of all spans that Viterbi finds the one that the pointer likes best.

    Example:
        >>> characters, encoder = chinese_encoder(["谁？沈从文"], layers=1)  # doctest: +SKIP
        >>> answers(Reader(encoder, "bio"), characters, [Question("谁？", "沈从文", ())]).keys()  # doctest: +SKIP
        dict_keys(['bio'])
    """
    given = {
        way: [""] * len(asked)
        for way in (("pointer", "bio", "both") if reader.heads == "both" else (reader.heads,))
    }
    for length, places in by_length(len(question.text) + 2 for question in asked).items():
        for first in range(0, len(places), 64):
            rows = places[first : first + 64]
            some = [asked[i] for i in rows]
            ids = characters([question.text for question in some], length)
            # One shape a length: the last batch is filled up with its first row.
            outputs = reader.predict_on_batch(np.concatenate([ids, ids[:1].repeat(64 - len(ids), axis=0)]))
            for way, texts in _decode(outputs, some, reader).items():
                for i, answer in zip(rows, texts, strict=True):
                    given[way][i] = answer
    return given


def _decode(outputs: dict[str, Any], asked: Sequence[Question], reader: Reader) -> dict[str, list[str]]:
    """The answers to some questions by every way that the heads allow; rows beyond these fill a batch up."""
    decoded: dict[str, list[str]] = {}
    if reader.pointer:
        logits = np.asarray(outputs["pointer"], "float32")[: len(asked)]
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        decoded["pointer"] = _pointed(logits, log_p, asked)
    if reader.crf:
        spans = _labelled(np.asarray(outputs["bio"], "float32")[: len(asked)], asked, reader.crf)
        decoded["bio"] = [q.words(*found[0][:2]) if found else "" for q, found in zip(asked, spans, strict=True)]
    if reader.pointer and reader.crf:
        decoded["both"] = [_liked(*row) for row in zip(asked, spans, log_p, strict=True)]
    return decoded


def _pointed(logits: NDArray, log_p: NDArray, asked: Sequence[Question]) -> list[str]:
    """The most probable span of each passage, or "" if both pointers at place 0 are more probable."""
    inside = np.arange(logits.shape[1]) >= np.array([[question.offset] for question in asked])
    start, end, best = (ops.convert_to_numpy(x) for x in best_span(logits, longest=32, allowed=inside))
    silent = log_p[:, 0].sum(axis=-1) > best
    return ["" if silent[i] else question.words(start[i], end[i] + 1) for i, question in enumerate(asked)]


def _labelled(emissions: NDArray, asked: Sequence[Question], crf: CRF) -> list[list[Span]]:
    """The spans that Viterbi finds in each passage, in tokens, from left to right."""
    tags = ops.convert_to_numpy(crf.decode(emissions)[0])
    return [
        [span for span in spans if span.start >= question.offset]
        for spans, question in zip(spans_of_tags(tags, BIO), asked, strict=True)
    ]


def _liked(question: Question, spans: Sequence[Span], log_p: NDArray) -> str:
    """Of some spans of a passage the one that the pointer finds most probable; "" if there are none."""
    if not spans:
        return ""
    best = np.argmax([log_p[span.start, 0] + log_p[span.end - 1, 1] for span in spans])
    return question.words(*spans[best][:2])


def kind_of_question(question: Question) -> str:
    """Which answers a question has: "none", "several", "repeated" (it occurs more than once) or "one".

    Example:
        >>> kind_of_question(Question("q?", "ab", ()))
        'none'
    """
    if not question.answers:
        return "none"
    if len(question.answers) > 1:
        return "several"
    return "repeated" if question.passage.count(question.answers[0]) > 1 else "one"


def reading(
    heads: str,
    seed: int,
    *,
    layers: int = 4,
    sentences: int = 6400,
    test: int = 1342,
    epochs: int = 2,
    rate: float = 3e-4,
    batch: int = 32,
) -> Row:
    """Trains a reader and asks it about sentences it has not seen.

    Args:
        heads: "pointer", "bio" or "both".
        seed: of the heads, the dropout, the order and the questions of the training part; those of the test part
            are always the same.
        layers: of the encoder.
        sentences: of the training part, one question each and in every epoch another.
        test: sentences of the test part.
        epochs: passes.
        rate: the largest learning rate.
        batch: questions a step.

    Returns:
        All arguments, "seconds", and for each way to decode (see :func:`answers`) a dict: for each kind of question
        (see :func:`kind_of_question`) and "all" the number of questions, exact matches and the sum of F1.

    Example:
        >>> row = reading("pointer", 0, layers=1, sentences=64, test=20, epochs=1, batch=8)  # doctest: +SKIP
        >>> row["pointer"]["all"]["count"]  # doctest: +SKIP
        20
    """
    arguments = locals() | {}
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    characters, encoder = chinese_encoder(_all_text(), layers)
    reader = Reader(encoder, heads)
    train_part, held_out = duie()["train"][:sentences], questions(duie()["test"][:test], seed=0)
    losses = train_reader(reader, characters, train_part, epochs=epochs, rate=rate, batch=batch, seed=seed)
    given = answers(reader, characters, held_out)
    took = {"steps": len(losses), "seconds": time.perf_counter() - began}
    return arguments | took | {way: score_answers(held_out, texts) for way, texts in given.items()}


def _all_text() -> Iterator[str]:
    yield from (statement.text for part in duie().values() for statement in part)
    yield from (template for group in QUESTIONS.values() for template in group.values())


def train_reader(
    reader: Reader,
    characters: Characters,
    statements: Sequence[Statement],
    *,
    epochs: int,
    rate: float,
    batch: int,
    seed: int,
) -> list[float]:
    """Trains a reader on questions about sentences, drawn anew for every epoch.

    Returns:
        The loss of every step.

    Example:
        >>> characters, encoder = chinese_encoder(["谁？沈从文"], layers=1)  # doctest: +SKIP
        >>> some = corpora.duie()["train"][:64]  # doctest: +SKIP
        >>> reader = Reader(encoder, "bio")  # doctest: +SKIP
        >>> losses = train_reader(reader, characters, some, epochs=1, rate=1e-4, batch=8, seed=0)  # doctest: +SKIP
    """
    asked = [question for epoch in range(epochs) for question in questions(statements, seed=1 + seed * 100 + epoch)]
    # The epochs stand one after another in ``asked``, so one pass through it is all of them.
    lengths, size = [len(question.text) + 2 for question in asked], len(statements)
    steps = [
        (length, texts + epoch * size)
        for epoch in range(epochs)
        for length, texts in batches(lengths[epoch * size : (epoch + 1) * size], batch, 1, seed * 100 + epoch)
    ]
    rng = np.random.default_rng([seed, 3])

    def examples() -> Iterator[tuple[Any, Any]]:
        for length, texts in steps:
            y = [answer_targets(asked[i], length, rng) for i in texts]
            yield (
                characters([asked[i].text for i in texts], length),
                {key: np.stack([row[key] for row in y]) for key in y[0]},
            )

    return train(reader, examples(), len(steps), rate)


def score_answers(asked: Sequence[Question], given: Sequence[str]) -> dict[str, dict[str, float]]:
    """Exact matches and F1 of answers, by kind of question.

    Returns:
        For each kind and for "all": "count", "exact" and "f1", the sums over its questions; and "silent", how often
        the answer was "".

    Example:
        >>> score_answers([Question("q?", "ab", ("b",))], ["ab"])["all"]
        {'count': 1, 'exact': 0.0, 'f1': 0.6666666666666666, 'silent': 0}
    """
    found: dict[str, dict[str, float]] = {}
    for question, answer in zip(asked, given, strict=True):
        exact, f1 = answer_score(question.answers, answer)
        for kind in (kind_of_question(question), "all"):
            sums = found.setdefault(kind, {"count": 0, "exact": 0.0, "f1": 0.0, "silent": 0})
            sums["count"] += 1
            sums["exact"] += exact
            sums["f1"] += f1
            sums["silent"] += not answer
    return found


#: Who answers: which heads were trained, and which of them is decoded (see :func:`answers`).
WAYS = {
    "pointer": ("pointer", "pointer"),
    "BIO": ("bio", "bio"),
    "both, the pointer answers": ("both", "pointer"),
    "both, BIO answers": ("both", "bio"),
    "both answer together": ("both", "both"),
}


def exact_rate(record: records.Record, way: str, kind: str = "all") -> NDArray[np.float64]:
    """The share of questions answered exactly, in percent, one number a seed of the record "reading".

    Args:
        record: of :func:`reading`.
        way: a key of :data:`WAYS`.
        kind: of question, see :func:`kind_of_question`.

    Example:
        >>> record = records.load("06-extraction", "reading", "cpu")
        >>> exact_rate(record, "pointer").shape
        (3,)
    """
    heads, decoder = WAYS[way]
    counts = [row[decoder][kind] for row in record.where(heads=heads)]
    return 100 * np.array([count["exact"] / count["count"] for count in counts])
