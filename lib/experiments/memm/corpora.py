"""Word segmentation and named entities: five models, one setting."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np
from keras import ops

from lib.experiments import labelling
from lib.experiments.memm.decoding import balanced_offsets, bare
from lib.experiments.memm.models import head_of, hmm_of_counts
from lib.tagging import Tagger

TASKS = {"segmentation": labelling.segmentation, "entities": labelling.entities}


#: Encoders by what a tag can see: its own character, one more on either side, three more, the whole sentence.
ENCODERS: dict[str, Callable[[labelling.Corpus], keras.Model]] = {
    "one character": partial(labelling.convolutional, width=256, layers=0),
    "three characters": partial(labelling.convolutional, width=256, layers=1),
    "seven characters": partial(labelling.convolutional, width=256, layers=3),
    "two blocks": partial(labelling.pretrained, layers=2),
    "twelve blocks": partial(labelling.pretrained, layers=12),
}


def compare(
    task: str,
    encoder: str,
    model: str,
    seed: int = 0,
    *,
    train: int = 8000,
    test: int = 2000,
    longest: int = 40,
    epochs: int = 2,
    batch: int = 32,
    rate: float = 1e-3,
    multiplier: float = 10.0,
) -> dict[str, Any]:
    """Trains a model on a real corpus and scores it on the test part.

    All models of one seed have the same initial encoder, the same batches in the same order and the same rates.

    Args:
        task: "segmentation" or "entities".
        encoder: of :data:`ENCODERS`; for the HMM, which has none, "counts".
        model: "hmm" or of :data:`MODELS`.
        seed: of the weights and of the order.
        train: training sentences.
        test: test sentences.
        longest: characters of the longest sentence.
        epochs: passes through the training sentences.
        batch: sentences a step.
        rate: Adam's learning rate.
        multiplier: of the rate, for the transitions.

    Returns:
        What :func:`lib.experiments.labelling.scores` gives ("f1", "precision", "recall", "accuracy", "illegal", …),
        and for all but the HMM the same under "ruled", for a decoder that knows the rules of the labels, and
        "loss", the mean in training; "seconds" of the training.

    Raises:
        ValueError: an unknown task, encoder or model.

    Example:
        >>> found = compare("segmentation", "one character", "softmax", train=64, test=16, epochs=1)
        >>> 0 <= found["f1"] <= 1
        True
    """
    if encoder not in ENCODERS and (model, encoder) != ("hmm", "counts"):
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, or counts for the HMM, got {encoder!r}")
    corpus = _corpus(task, train, test, longest)
    start = time.perf_counter()
    if model == "hmm":
        counted = hmm_of_counts(*corpus.train, len(corpus.vocabulary), len(corpus.alphabet))
        predicted, _ = counted.decode(corpus.test.characters, corpus.test.characters != 0)
        found = labelling.scores(ops.convert_to_numpy(predicted), corpus.test, corpus.alphabet)
        return found | {"seconds": time.perf_counter() - start}
    tagger, loss = _trained(corpus, encoder, model, seed, epochs, batch, rate, multiplier)
    seconds = time.perf_counter() - start
    return labelling.evaluate(tagger, corpus.test, corpus.alphabet) | {"loss": loss, "seconds": seconds}


def decode_three_ways(
    task: str,
    encoder: str,
    model: str,
    seed: int = 0,
    *,
    train: int = 8000,
    test: int = 2000,
    longest: int = 40,
    epochs: int = 2,
    batch: int = 32,
    rate: float = 1e-3,
    multiplier: float = 10.0,
) -> dict[str, Any]:
    """Trains an MEMM as :func:`compare` does and decodes the test part by three decoders.

    Args:
        task: as in :func:`compare`.
        encoder: as in :func:`compare`.
        model: "memm" or "bi-memm".
        seed: as in :func:`compare`.
        train: as in :func:`compare`.
        test: as in :func:`compare`.
        longest: as in :func:`compare`.
        epochs: as in :func:`compare`.
        batch: as in :func:`compare`.
        rate: as in :func:`compare`.
        multiplier: as in :func:`compare`.

    Returns:
        F1 over spans, in [0, 1]: "exact", by Viterbi with the normalizers of the model; "bare", by Viterbi on
        f + g; "balanced", by Viterbi on f + g + d, with d of :func:`balanced_offsets` from 2000 training sentences.
        "offsets", that d.

    Raises:
        ValueError: as :func:`compare`, or a model without normalizers.

    Example:
        >>> found = decode_three_ways("segmentation", "one character", "memm", train=64, test=16, epochs=1)
        >>> sorted(found)
        ['balanced', 'bare', 'exact', 'offsets']
    """
    if model not in ("memm", "bi-memm") or encoder not in ENCODERS:
        raise ValueError(f"model must be memm or bi-memm, with an encoder, got {model!r} with {encoder!r}")
    corpus = _corpus(task, train, test, longest)
    tagger, _ = _trained(corpus, encoder, model, seed, epochs, batch, rate, multiplier)
    some = labelling.Part(*(part[:2000] for part in corpus.train))
    mask = some.characters != 0
    shares = np.bincount(some.tags[mask], minlength=len(corpus.alphabet)) / mask.sum()
    transitions = ops.convert_to_numpy(tagger.head.transitions)
    offsets = balanced_offsets(labelling.emissions_of(tagger, some), transitions, mask, shares)
    emissions = labelling.emissions_of(tagger, corpus.test)
    heads = {"exact": tagger.head, "bare": bare(tagger.head), "balanced": bare(tagger.head, offsets)}
    decoded = {name: labelling.decode(head, emissions, corpus.test) for name, head in heads.items()}
    found = {name: labelling.scores(tags, corpus.test, corpus.alphabet)["f1"] for name, tags in decoded.items()}
    return found | {"offsets": offsets}


def _trained(
    corpus: labelling.Corpus,
    encoder: str,
    model: str,
    seed: int,
    epochs: int,
    batch: int,
    rate: float,
    multiplier: float,
) -> tuple[Tagger, float]:
    """A trained tagger, and its mean loss in training."""
    keras.utils.set_random_seed(seed)
    head = head_of(model, len(corpus.alphabet), multiplier)
    tagger = labelling.tagger_of(ENCODERS[encoder](corpus), head, rate)
    return tagger, labelling.train(tagger, corpus.train, epochs=epochs, batch=batch, seed=seed)


@lru_cache(maxsize=2)
def _corpus(task: str, train: int, test: int, longest: int) -> labelling.Corpus:
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return TASKS[task](train=train, dev=1, test=test, longest=longest)
