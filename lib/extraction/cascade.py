"""Relations as a cascade: find the subjects, then the objects of each.

P(s, p, o | x) = P(s | x) P(o, p | x, s). The first step points at subjects; the second, told one of them, points at
its objects with a pair of pointers for each predicate. Subjects that share an object, and two predicates between
one pair, are no trouble to it. BIO gives a token one label and can have neither: :func:`lib.tagging.disjoint` is
what it keeps. The pointers are those of :mod:`lib.extraction.pointers`.

Source: Su Jianlin, https://kexue.fm/archives/7321 and https://kexue.fm/archives/7161; Wei et al. 2020, CasRel
(arXiv 1909.03227).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from .._arguments import finite, items, non_negative_integer, positive, positive_integer
from .._backend import float32_or_wider
from .._layers import BringsItsLoss
from .._tensors import as_tensor, or_nan, require, require_shape
from ..bert import ConditionalLayerNormalization
from .pointers import (
    SpanPointer,
    pair_pointers,
    power_crossentropy,
    power_sigmoid,
)

__all__ = ["Cascade", "Triple", "sample_subject", "targets"]

Tensor = Any


Shape = tuple[int | None, ...]


Place = tuple[int, int]


_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


class Triple(NamedTuple):
    """One relation of a text.

    Attributes:
        subject: (start, end) of the subject in tokens, the end excluded.
        predicate: which relation, from 0.
        object: (start, end) of the object, the end excluded.
    """

    subject: Place
    predicate: int
    object: Place


def sample_subject(
    triples: Iterable[Triple], *, independent: bool = True, seed: int | np.random.Generator | None = None
) -> Place:
    """A subject to train the objects with.

    The default draws a start among those of the subjects, and then an end among those after it, as the article's
    code does. With several subjects the pair may be no subject, and then it has no objects. So the model learns to
    give none to a subject that was cut wrongly, which it will meet in its own predictions. Without ``independent``
    one of the subjects is drawn.

    Args:
        triples: The triples of one text, at least one.
        independent: Whether start and end are drawn independently.
        seed: Seed of the draw, or a generator that goes on with each; None draws anew.

    Returns:
        (start, end), the end excluded.

    Raises:
        ValueError: There are no triples, or ``triples`` holds something else; ``seed`` is none of the three.

    Source: Su Jianlin, https://github.com/bojone/lic2020_baselines, ``ie.py``.

    Example:
        >>> triples = [Triple((1, 3), 0, (5, 6)), Triple((7, 9), 1, (5, 6))]
        >>> rng = np.random.default_rng(0)
        >>> sorted({sample_subject(triples, seed=rng) for _ in range(99)})
        [(1, 3), (1, 9), (7, 9)]
        >>> sorted({sample_subject(triples, independent=False, seed=rng) for _ in range(99)})
        [(1, 3), (7, 9)]
    """
    subjects = sorted({triple.subject for triple in _checked_triples(triples)})
    if not subjects:
        raise ValueError("triples must have at least one triple, got none")
    if seed is not None and not isinstance(seed, np.random.Generator):
        seed = non_negative_integer("seed", seed)
    rng = np.random.default_rng(seed)
    start, end = subjects[rng.integers(len(subjects))]
    if independent:
        ends = [end for _, end in subjects if end > start]
        end = ends[rng.integers(len(ends))]
    return start, end


def targets(triples: Iterable[Triple], time: int, predicates: int, subject: Place) -> dict[str, NDArray[np.uint8]]:
    """What :class:`Cascade` is to answer for one text, told a subject: 1 where a pointer points, 0 elsewhere.

    Args:
        triples: The triples of the text.
        time: Length of the padded text, in tokens.
        predicates: Number of predicates.
        subject: (start, end) of the subject whose objects are wanted, the end excluded; it need not be one.

    Returns:
        "subjects", uint8 (time, 2), of all subjects; "objects", uint8 (time, predicates, 2), of this one.

    Raises:
        ValueError: A span is empty, leaves the text or is of something else than integers, or a predicate is none.

    Example:
        >>> y = targets([Triple((1, 3), 0, (0, 1))], time=4, predicates=2, subject=(1, 3))
        >>> y["subjects"].T.tolist(), y["objects"][0].tolist()
        ([[0, 1, 0, 0], [0, 0, 1, 0]], [[1, 1], [0, 0]])
    """
    time, predicates = positive_integer("time", time), positive_integer("predicates", predicates)
    subjects, objects = np.zeros((time, 2), "uint8"), np.zeros((time, predicates, 2), "uint8")
    subject = _checked_place("subject", subject, time)
    for s, p, o in _checked_triples(triples, time):
        if p >= predicates:
            raise ValueError(f"triples must have predicates in [0, {predicates}), got {p}")
        subjects[s[0], 0] = subjects[s[1] - 1, 1] = 1
        if s == subject:
            objects[o[0], p, 0] = objects[o[1] - 1, p, 1] = 1
    return {"subjects": subjects, "objects": objects}


def _checked_triples(triples: Iterable[Triple], time: int | None = None) -> list[Triple]:
    """The triples, their places and predicates as integers of Python."""
    found = []
    for triple in items("triples", triples):
        if not isinstance(triple, Sequence) or len(triple) != 3:
            raise ValueError(f"triples must be (subject, predicate, object), got {triple!r}")
        subject, object_ = (_checked_place("triples", place, time) for place in (triple[0], triple[2]))
        found.append(
            Triple(subject, non_negative_integer("triples must have predicates, which", triple[1]), object_)
        )
    return found


def _checked_place(name: str, place: Place, time: int | None = None) -> Place:
    """A span, if it is one of integers 0 <= start < end <= time."""
    try:
        start, end = (non_negative_integer(name, part) for part in place)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must have places (start, end) of integers, got {place!r}") from None
    if start >= end or (time is not None and end > time):
        at_most = "" if time is None else f" <= time = {time}"
        raise ValueError(f"{name} must have 0 <= start < end{at_most}, got the span {(start, end)}")
    return start, end


@_serializable
class Cascade(BringsItsLoss):
    """Triples in two steps: P(s, p, o | x) = P(s | x) P(o, p | x, s).

    The subjects are pointed at in the vectors of the text. For the objects the vectors pass a layer normalization
    that is told the subject, by its first and its last vector, and then a pair of pointers for each predicate::

        fit({"ids": ids, "subject": subject}, {"subjects": …, "objects": …})    one drawn subject a text
        extract(ids)                                                            all triples of every text

    The loss of a token is the mean over its two pointers, summed over the predicates, of both steps; that of a
    batch is the mean over its tokens without padding, on several devices the mean of their means, plus what
    regularizers add. ``compile`` takes no loss.

    Args:
        encoder: Model or layer from ids (batch, time) to vectors (batch, time, hidden).
        predicates: Number of predicates.
        power: n of :func:`power_sigmoid`, for subjects and for objects; or one number for both.
        bias: Initial logit, for subjects and for objects, or one number for both. With ``power=1`` and
            ``bias=(prior_bias(2), prior_bias(4))`` the first guess is that of the default.
        threshold: A pointer counts if its probability is more; for subjects and for objects, or one for both.
        padding: The id of padding. None takes the mask that the encoder hands on, as ``lib.bert.Encoder`` does.
        **kwargs: Arguments of every Keras model.

    Raises:
        ValueError: ``encoder`` is no layer; ``predicates`` is less than 1; a pair is none; ``compile`` is given a
            loss; ``fit`` is given weights.

    Source: Su Jianlin, https://kexue.fm/archives/7161; Wei et al. 2020 (arXiv 1909.03227).

    Example:
        >>> encoder = keras.layers.Embedding(10, 8, mask_zero=True)
        >>> model = Cascade(encoder, predicates=3)
        >>> logits = model({"ids": np.array([[4, 7, 0]]), "subject": np.array([[0, 2]])})
        >>> tuple(logits["subjects"].shape), tuple(logits["objects"].shape), float(logits["subjects"][0, 2, 0])
        ((1, 3, 2), (1, 3, 3, 2), -inf)
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        predicates: int,
        *,
        power: float | tuple[float, float] = (2, 4),
        bias: float | tuple[float, float] = 0.0,
        threshold: float | tuple[float, float] = 0.5,
        padding: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(f"encoder must be a Keras model or layer, got {encoder!r}")
        self.encoder, self.predicates = encoder, positive_integer("predicates", predicates)
        self.padding = None if padding is None else non_negative_integer("padding", padding)
        self.power, self.bias = _pair("power", power, positive), _pair("bias", bias, finite)
        self.threshold = _pair("threshold", threshold, finite)
        self.subjects = SpanPointer(bias=self.bias[0], name="subjects")
        self.conditioned = ConditionalLayerNormalization(name="conditioned")
        self.objects = SpanPointer(predicates, bias=self.bias[1], name="objects")

    def build(self, inputs_shape: Mapping[str, Shape]) -> None:
        """Builds the encoder and the heads; ``inputs_shape`` has the shape of "ids"."""
        ids_shape = tuple(inputs_shape["ids"])
        if not self.encoder.built:
            self.encoder.build(ids_shape)
        vectors_shape = self.encoder.compute_output_shape(ids_shape)
        self.conditioned.build(vectors_shape, (vectors_shape[0], 2 * vectors_shape[-1]))
        for head in (self.subjects, self.objects):
            head.build(vectors_shape)

    def call(self, inputs: Mapping[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        """The logits of both steps, or of the one that the inputs suffice for.

        A subject that is no span of the text raises ValueError; under XLA and ``jax.jit``, where no value can
        raise, its objects have the logits NaN.

        Args:
            inputs: "ids" and "subject", int (batch, 2), the (start, end) of one subject a text, the end excluded.
                Or one step of :meth:`extract`: "ids"; or, after it, its "vectors" with one "subject" each.
            training: Whether to drop out.

        Returns:
            "subjects" (batch, time, 2) and "objects" (batch, time, predicates, 2), −∞ at padded places. Of "ids"
            alone: "subjects" and "vectors"; of "vectors" and "subject": "objects", with no padding known.
        """
        if "vectors" in inputs:
            return {"objects": self._objects(inputs["vectors"], inputs["subject"])}
        vectors = self.encoder(inputs["ids"], training=training)
        if self.padding is None:
            subjects = self.subjects(vectors)
        else:
            subjects = self.subjects(vectors, mask=ops.not_equal(inputs["ids"], self.padding))
        if "subject" not in inputs:
            return {"subjects": subjects, "vectors": float32_or_wider(vectors)}
        objects = self._objects(vectors, inputs["subject"])
        return {"subjects": subjects, "objects": _where(_valid(subjects), objects, -math.inf)}

    def _objects(self, vectors: Tensor, subject: Tensor) -> Tensor:
        """Logits (batch, time, predicates, 2) of the objects of one subject (batch, 2) a text."""
        subject, is_span = _spans("subject", subject, vectors)
        first_and_last = subject - ops.convert_to_tensor([0, 1], "int32")
        ends = ops.take_along_axis(vectors, first_and_last[:, :, None], axis=1)
        conditioned = self.conditioned(vectors, ops.reshape(ends, (-1, 2 * vectors.shape[-1])))
        return or_nan(self.objects(conditioned), is_span)

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002
        y: Mapping[str, Tensor] | None = None,
        y_pred: Mapping[str, Tensor] | None = None,
        sample_weight: Tensor | None = None,
        training: bool = True,  # noqa: ARG002
    ) -> Tensor:
        """Returns the loss of a batch, a scalar; ``y`` has the arrays of :func:`targets`, stacked."""
        if sample_weight is not None:
            raise ValueError("sample_weight must be left out: the loss is a mean over tokens, not over texts")
        valid = _valid(y_pred["subjects"])
        subjects, objects = (
            ops.mean(power_crossentropy(y[step], _where(valid, y_pred[step], 0.0), power), axis=-1)
            for step, power in zip(("subjects", "objects"), self.power, strict=True)
        )
        loss = ops.where(valid, subjects + ops.sum(objects, axis=-1), 0.0)
        mean = ops.sum(loss) / ops.maximum(ops.sum(ops.cast(valid, loss.dtype)), 1)
        return sum(map(self.part_of, [mean, *self.losses]))

    def extract(self, ids: ArrayLike, batch: int = 64) -> list[set[Triple]]:
        """All triples of every text, by both steps, each batched: over texts, then over (text, subject) pairs.

        Batches are filled up to a power of two, so that a compiler meets few shapes.

        Args:
            ids: Ids (texts, time).
            batch: Most texts, and most pairs, at a time.

        Returns:
            For each text its triples, in tokens.

        Raises:
            ValueError: ``ids`` is not (texts, time), or ``batch`` no positive integer.
        """
        ids, batch = np.asarray(ids), positive_integer("batch", batch)
        if ids.ndim != 2:
            raise ValueError(f"ids must have shape (texts, time), got shape {ids.shape}")
        found: list[set[Triple]] = [set() for _ in ids]
        for first in range(0, len(ids), batch):
            step = self._run(ids=ids[first : first + batch])
            rows, *subject = pair_pointers(*self._pointed(step["subjects"], 0)).T
            subject, valid = np.stack(subject, axis=-1), step["subjects"][..., :1] > -math.inf
            for pair in range(0, len(rows), batch):
                row, given = rows[pair : pair + batch], subject[pair : pair + batch]
                logits = self._run(vectors=step["vectors"][row], subject=given)["objects"]
                pointed = self._pointed(np.where(valid[row][..., None], logits, -math.inf), 1)
                for i, p, start, end in pair_pointers(*np.moveaxis(pointed, 2, -1)).tolist():
                    found[first + row[i]].add(Triple(tuple(given[i].tolist()), p, (start, end)))
        return found

    def _pointed(self, logits: NDArray, step: int) -> NDArray[np.bool_]:
        """Whether starts, and whether ends, are pointed at: bool (2, …) of logits (…, 2)."""
        probability = ops.convert_to_numpy(power_sigmoid(logits, self.power[step]))
        return np.moveaxis(probability > self.threshold[step], -1, 0)

    def _run(self, **inputs: NDArray) -> dict[str, NDArray]:
        """The outputs of one step, its rows filled up to a power of two."""
        count = len(next(iter(inputs.values())))
        row = np.arange(1 << (count - 1).bit_length()) % count
        outputs = self.predict_on_batch({name: array[row] for name, array in inputs.items()})
        return {name: np.asarray(array[:count], "float32") for name, array in outputs.items()}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this model."""
        names = ("predicates", "power", "bias", "threshold", "padding")
        encoder = keras.saving.serialize_keras_object(self.encoder)
        return {**super().get_config(), "encoder": encoder, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Cascade:
        """The model that :meth:`get_config` describes."""
        return cls(**{**config, "encoder": keras.saving.deserialize_keras_object(config["encoder"])})


def _spans(name: str, spans: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Spans as int32 (batch, 2), and whether each is one of its text; ValueError for another where it is known.

    Keras hands on integers as float32 where a model was not told their type, so whole numbers will do.
    """
    given = require_shape(name, as_tensor(name, spans, kinds="iuf"), (vectors.shape[0], 2), to_fit="the texts")
    if vectors.shape[1] == 0:
        raise ValueError(f"{name} must be a span of a text with a token, got vectors {tuple(vectors.shape)}")
    spans, time = ops.cast(given, "int32"), ops.shape(vectors)[1]
    start, end = spans[:, 0], spans[:, 1]
    whole = ops.all(ops.equal(ops.cast(spans, given.dtype), given), axis=1)
    is_span = ops.all(ops.stack([whole, start >= 0, start < end, end <= time]), axis=0)
    require(
        ops.all(is_span),
        f"{name} must be whole numbers with 0 <= start < end <= time",
        lambda: f"{ops.convert_to_numpy(spans)[~ops.convert_to_numpy(is_span)][:3].tolist()} with time = {time}",
    )
    return ops.where(is_span[:, None], spans, ops.convert_to_tensor([[0, 1]], "int32")), is_span


def _valid(logits: Tensor) -> Tensor:
    """Places (batch, time) where the logits (batch, time, 2) are not −∞."""
    return ops.not_equal(logits[:, :, 0], -math.inf)


def _where(condition: Tensor, x: Tensor, other: float) -> Tensor:
    """Keeps x where the condition holds, puts a constant elsewhere; the condition may lack the last axes."""
    condition = ops.reshape(condition, (*ops.shape(condition), *[1] * (len(x.shape) - len(condition.shape))))
    return ops.where(condition, x, ops.cast(other, x.dtype))


def _pair(
    name: str, values: float | tuple[float, float], checked: Callable[[str, Any], float]
) -> tuple[float, float]:
    pair = tuple(values) if isinstance(values, tuple | list) else (values, values)
    if len(pair) != 2:
        raise ValueError(f"{name} must be one number or two, got {values!r}")
    return tuple(checked(name, value) for value in pair)
