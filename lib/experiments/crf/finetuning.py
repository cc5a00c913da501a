"""Networks under a CRF: first trained with a softmax and then together, or together from the start."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial, wraps
from inspect import signature
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.crf import CRF
from lib.experiments.crf.corpora import words
from lib.experiments.crf.gradients import gradient_norms, margins
from lib.experiments.crf.matrices import INITIAL, TAGS, Array, preferences
from lib.experiments.labelling import (
    Corpus,
    convolutional,
    emissions_of,
    evaluate,
    pretrained,
    recurrent,
    tagger_of,
    train,
    transformer,
)
from lib.tagging import SEGMENT_ALPHABET, Head, Softmax, Tagger

Row = dict[str, Any]

#: What gives the emissions. e5-k is the first k layers of a pretrained transformer.
ENCODERS: dict[str, Callable[[Corpus], keras.Model]] = {
    "convolutional": convolutional,
    "weak": partial(convolutional, width=64, layers=1),
    "recurrent": recurrent,
    "transformer": transformer,
    "e5-1": partial(pretrained, layers=1),
    "e5-2": partial(pretrained, layers=2),
    "e5-12": partial(pretrained, layers=12),
}


def scores_of(head: Head) -> Array:
    """The transitions of a head."""
    return np.asarray(ops.convert_to_numpy(head.transitions), np.float64)


def head_of(multiplier: float | None, initial: str | None, seed: int) -> Head:
    """The CRF of a case, or the softmax where it has no multiplier."""
    if multiplier is None:
        return Softmax(TAGS)
    return CRF(TAGS, learning_rate_multiplier=multiplier, transitions_initializer=INITIAL[initial](seed))


def _complete(experiment: Callable[..., Row]) -> Callable[..., Row]:
    """The experiment, whose row also tells its arguments and how long it took."""

    @wraps(experiment)
    def complete(*args: Any, **kwargs: Any) -> Row:
        given = signature(experiment).bind(*args, **kwargs)
        given.apply_defaults()
        wall, cpu = time.perf_counter(), time.process_time()
        row = experiment(*args, **kwargs)
        took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        return given.arguments | row | took

    return complete


@_complete
def finetune(
    encoder: str,
    multiplier: float | None,
    initial: str | None,
    seed: int,
    *,
    sentences: int = 16_000,
    test: int = 2000,
    longest: int = 40,
    epochs: int = 2,
    pretraining_rate: float = 1e-3,
    steps: int = 150,
    rate: float = 1e-5,
    batch: int = 64,
) -> Row:
    """Trains an encoder with a softmax, then goes on with a CRF and a small learning rate.

    The encoder with the softmax is the same for all multipliers of a seed, and is kept between the calls.

    Args:
        encoder: a key of :data:`ENCODERS`.
        multiplier: λ, of the rate of the transitions; 0 keeps them where they are; None stops after the softmax.
        initial: a key of :data:`INITIAL`; None with the softmax.
        seed: of the weights, the order of the sentences and the initial transitions.
        sentences: of the training part.
        test: sentences of the test part.
        longest: sentences of more characters are left out.
        epochs: passes through them with the softmax.
        pretraining_rate: learning rate of Adam with the softmax.
        steps: batches with the CRF.
        rate: learning rate of Adam with the CRF.
        batch: sentences a batch.

    Returns:
        All arguments; "seconds" of wall-clock and "cpu_seconds" of processor time; what
        :func:`lib.experiments.labelling.scores` says of the test part, and the same with hard rules in the decoder
        under names that begin with "ruled_".
        With a CRF also "initial_transitions" and "transitions", (4, 4); what :func:`preferences` says of the
        latter; "displacement", the largest change of a transition; "budget", steps · rate · λ; and "correlation" of
        the two matrices, None where one is constant.
        With the softmax also "margins", quantiles 0.1, 0.25, 0.5, 0.75 and 0.9 of the lead of the right tag over
        the best other one, and "gradient", that of a sentence by :func:`gradient_norms`.

    Raises:
        ValueError: an encoder or an initial that does not exist.

    Example:
        >>> row = finetune("weak", 1000, "zeros", 1, sentences=640, test=50, epochs=1, steps=5)
        >>> row["displacement"] < 1.1 * row["budget"]
        True
    """
    _check(encoder, initial, multiplier)
    corpus = words(sentences, test, longest)
    first, weights = trained_by_softmax(encoder, seed, corpus, epochs, pretraining_rate, batch)
    if multiplier is None:
        emissions = emissions_of(first, corpus.test)
        found = _flat(evaluate(first, corpus.test, SEGMENT_ALPHABET))
        found["margins"] = np.quantile(margins(emissions, corpus.test.tags), (0.1, 0.25, 0.5, 0.75, 0.9))
        found["gradient"] = gradient_norms(emissions, corpus.test.tags)["sentence"]
        return found
    first.encoder.set_weights(weights)
    head = head_of(multiplier, initial, seed)
    tagger = tagger_of(first.encoder, head, rate)
    train(tagger, corpus.train, steps=steps, batch=batch, seed=seed + 1000)  # batches other than the first epoch's
    found = _flat(evaluate(tagger, corpus.test, SEGMENT_ALPHABET))
    first.encoder.set_weights(weights)
    return found | _travel(head, INITIAL[initial](seed), budget=steps * rate * multiplier)


@lru_cache(maxsize=1)
def trained_by_softmax(
    encoder: str, seed: int, corpus: Corpus, epochs: int, rate: float, batch: int
) -> tuple[Tagger, list[NDArray]]:
    """An encoder under a softmax, trained, and a copy of the encoder's weights; kept for the next call."""
    keras.utils.set_random_seed(seed)
    tagger = tagger_of(ENCODERS[encoder](corpus), Softmax(TAGS), rate)
    train(tagger, corpus.train, epochs=epochs, batch=batch, seed=seed)
    return tagger, tagger.encoder.get_weights()


def _check(encoder: str, initial: str | None, multiplier: float | None) -> None:
    if encoder not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}")
    expected = [None] if multiplier is None else list(INITIAL)
    if initial not in expected:
        raise ValueError(f"initial must be one of {expected} with the multiplier {multiplier}, got {initial!r}")


def _flat(found: Row) -> Row:
    """The scores under the hard rules beside the others."""
    ruled = found.pop("ruled")
    return found | {f"ruled_{key}": ruled[key] for key in ("f1", "accuracy", "illegal", "boundaries")}


def _travel(head: Head, before: Array, budget: float) -> Row:
    """Where the transitions are, and how far from where they began."""
    after = scores_of(head)
    constant = np.ptp(before) == 0 or np.ptp(after) == 0
    return preferences(after) | {
        "initial_transitions": before,
        "transitions": after,
        "displacement": float(np.abs(after - before).max()),
        "budget": budget,
        "correlation": None if constant else float(np.corrcoef(before.ravel(), after.ravel())[0, 1]),
    }


@_complete
def scratch(
    encoder: str,
    multiplier: float | None,
    rate: float,
    seed: int,
    *,
    initial: str = "zeros",
    sentences: int = 8000,
    test: int = 2000,
    longest: int = 40,
    epochs: int = 4,
    batch: int = 64,
) -> Row:
    """Trains an encoder and a CRF together from the start and scores them after every epoch.

    Args:
        encoder: a key of :data:`ENCODERS`.
        multiplier: λ, of the rate of the transitions; None trains with a softmax.
        rate: learning rate of Adam.
        seed: of the weights and the order of the sentences.
        initial: a key of :data:`INITIAL`.
        sentences: of the training part.
        test: sentences of the test part; the development part has half as many.
        longest: sentences of more characters are left out.
        epochs: passes through the training part.
        batch: sentences a batch.

    Returns:
        After every epoch, shape (epochs,): "loss" of the training part, nats a sentence, while it was trained on;
        "dev_f1", "dev_accuracy" and "dev_illegal" on the development part. At the end, on the test part, as
        :func:`finetune`, with "argmax_f1", the F1 of the emissions alone; and the transitions as there.

    Raises:
        ValueError: as :func:`finetune`.

    Example:
        >>> row = scratch("weak", 100, 1e-3, 1, sentences=640, test=50, epochs=2)
        >>> len(row["dev_f1"]), row["legal"] > row["forbidden"]
        (2, True)
    """
    _check(encoder, None if multiplier is None else initial, multiplier)
    corpus = words(sentences, test, longest)
    keras.utils.set_random_seed(seed)
    head = head_of(multiplier, initial, seed)
    tagger = tagger_of(ENCODERS[encoder](corpus), head, rate)
    curves: dict[str, list[float]] = {"loss": [], "dev_f1": [], "dev_accuracy": [], "dev_illegal": []}
    for epoch in range(epochs):
        curves["loss"].append(train(tagger, corpus.train, batch=batch, seed=seed + 1000 * epoch))
        found = evaluate(tagger, corpus.dev, SEGMENT_ALPHABET, rules=False)
        for key in ("f1", "accuracy", "illegal"):
            curves[f"dev_{key}"].append(found[key])
    found = _flat(evaluate(tagger, corpus.test, SEGMENT_ALPHABET)) | curves
    alone = Tagger(tagger.encoder, Softmax(TAGS), padding=0)
    found["argmax_f1"] = evaluate(alone, corpus.test, SEGMENT_ALPHABET, rules=False)["f1"]
    if multiplier is not None:
        steps = epochs * (len(corpus.train.characters) // batch)
        found |= _travel(head, INITIAL[initial](seed), budget=steps * rate * multiplier)
    return found
