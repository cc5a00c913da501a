"""Chapter 4: how far the scores of a CRF travel, what moves them, and what it is worth that they move.

* :func:`finetune`: an encoder trained without a CRF, then both together with a small learning rate.
* :func:`scratch`: encoder and CRF from the start, scored after every epoch.
* :func:`gradient_norms`: why well-fitted emissions teach the transitions nothing.
* :func:`step_ratio`: what a reparametrization by λ does to a learning rate.

``python -m lib.experiments.crf --scale cpu`` records the first three, with five seeds, in about an hour of one
core: "margin", "finetune", "pretrained" (the same with a pretrained encoder) and "scratch". Multiplier None is the
softmax, a tagger without transitions. Tags are s, b, m, e, as in the article.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial, wraps
from inspect import signature
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from lib.crf import CRF
from lib.experiments.labelling import (
    Corpus,
    convolutional,
    emissions_of,
    evaluate,
    pretrained,
    recurrent,
    segmentation,
    tagger_of,
    train,
    transformer,
)
from lib.tagging import SEGMENT_ALPHABET, Head, Softmax, Tagger, legal_moves
from lib.workbench import records

CHAPTER = "04-crf"
TAGS = len(SEGMENT_ALPHABET)
LEGAL = legal_moves(SEGMENT_ALPHABET).transitions
Array = NDArray[np.float64]
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


# --- matrices of transitions ------------------------------------------------------------------------------


def glorot(seed: int) -> Array:
    """Random transitions as Keras would draw them by default: uniform in ±√(6/8), shape (4, 4).

    Example:
        >>> bool(np.abs(glorot(1)).max() <= np.sqrt(6 / 8))
        True
    """
    return np.random.default_rng(seed).uniform(-1, 1, (TAGS, TAGS)) * np.sqrt(6 / (2 * TAGS))


#: What the transitions start from, given the seed.
INITIAL: dict[str, Callable[[int], Array]] = {"zeros": lambda _: np.zeros((TAGS, TAGS)), "glorot": glorot}


def preferences(transitions: ArrayLike) -> dict[str, float | int]:
    """What a matrix of transitions thinks of the moves that the scheme allows and forbids.

    Args:
        transitions: scores (4, 4) of the tags s, b, m, e.

    Returns:
        "legal" and "forbidden", the mean scores of the 8 moves of either kind; "separated", in how many of the 4
        rows every legal move scores above every illegal one; "inverted", how many of the 16 pairs of a legal and an
        illegal move of one row are scored the wrong way round.

    Example:
        >>> article = [[-0.0517, -0.459, -0.244, 0.707], [-0.564, -0.142, 0.314, 0.613],
        ...            [0.196, -0.334, -0.794, 0.672], [0.769, 0.841, -0.683, 0.572]]
        >>> found = preferences(article)
        >>> found["separated"], found["inverted"]
        (2, 5)
    """
    A = np.asarray(transitions, float)
    pairs = np.array([row[legal][:, None] > row[~legal] for row, legal in zip(A, LEGAL, strict=True)])
    return {
        "legal": float(A[LEGAL].mean()),
        "forbidden": float(A[~LEGAL].mean()),
        "separated": int(pairs.all(axis=(1, 2)).sum()),
        "inverted": int((~pairs).sum()),
    }


def _transitions(head: Head) -> Array:
    return np.asarray(ops.convert_to_numpy(head.transitions), np.float64)


def _head(multiplier: float | None, initial: str | None, seed: int) -> Head:
    """The CRF of a case, or the softmax where it has no multiplier."""
    if multiplier is None:
        return Softmax(TAGS)
    return CRF(TAGS, learning_rate_multiplier=multiplier, transitions_initializer=INITIAL[initial](seed))


# --- first a softmax, then a CRF --------------------------------------------------------------------------


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
    corpus = _corpus(sentences, test, longest)
    first, weights = _pretrained(encoder, seed, corpus, epochs, pretraining_rate, batch)
    if multiplier is None:
        emissions = emissions_of(first, corpus.test)
        found = _flat(evaluate(first, corpus.test, SEGMENT_ALPHABET))
        found["margins"] = np.quantile(margins(emissions, corpus.test.tags), (0.1, 0.25, 0.5, 0.75, 0.9))
        found["gradient"] = gradient_norms(emissions, corpus.test.tags)["sentence"]
        return found
    first.encoder.set_weights(weights)
    head = _head(multiplier, initial, seed)
    tagger = tagger_of(first.encoder, head, rate)
    train(tagger, corpus.train, steps=steps, batch=batch, seed=seed + 1000)  # batches other than the first epoch's
    found = _flat(evaluate(tagger, corpus.test, SEGMENT_ALPHABET))
    first.encoder.set_weights(weights)
    return found | _travel(head, INITIAL[initial](seed), budget=steps * rate * multiplier)


@lru_cache(maxsize=2)
def _corpus(sentences: int, test: int, longest: int) -> Corpus:
    return segmentation(sentences, test // 2, test, longest)


@lru_cache(maxsize=1)
def _pretrained(
    encoder: str, seed: int, corpus: Corpus, epochs: int, rate: float, batch: int
) -> tuple[Tagger, list[NDArray]]:
    """An encoder under a softmax, trained, and a copy of the encoder's weights."""
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
    after = _transitions(head)
    constant = np.ptp(before) == 0 or np.ptp(after) == 0
    return preferences(after) | {
        "initial_transitions": before,
        "transitions": after,
        "displacement": float(np.abs(after - before).max()),
        "budget": budget,
        "correlation": None if constant else float(np.corrcoef(before.ravel(), after.ravel())[0, 1]),
    }


# --- everything from the start ----------------------------------------------------------------------------


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
    corpus = _corpus(sentences, test, longest)
    keras.utils.set_random_seed(seed)
    head = _head(multiplier, initial, seed)
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


# --- what reaches the transitions -------------------------------------------------------------------------


def margins(emissions: ArrayLike, tags: ArrayLike) -> Array:
    """By how much the emission of the right tag leads the best other one, at every valid step, in nats.

    Args:
        emissions: (n, time, K).
        tags: int (n, time), −1 at padded steps.

    Example:
        >>> margins([[[3.0, 1.0], [0.0, 2.0]]], [[0, 0]])
        array([ 2., -2.])
    """
    emissions, tags = np.asarray(emissions, np.float64), np.asarray(tags)
    emissions, tags = emissions[tags >= 0], tags[tags >= 0]
    right = np.eye(emissions.shape[-1], dtype=bool)[tags]
    return emissions[right] - np.where(right, -np.inf, emissions).max(axis=-1)


def gradient_norms(emissions: ArrayLike, tags: ArrayLike) -> dict[str, float]:
    """The gradient that zero transitions of a CRF feel, as an L1 norm a move.

    The gradient of −log P(y) is, for every sentence, a matrix: moves expected minus moves made. While the
    transitions are zero the tags of a sentence are independent, and the probability of a move is a product of two
    softmaxes.

    Args:
        emissions: (n, time, K), finite where there is a tag.
        tags: int (n, time), −1 at padded steps.

    Returns:
        "sentence": the norm of a sentence's matrix, its sum over all sentences over the number of moves. "corpus":
        the norm of the sum of all matrices over the number of moves, where sentences cancel.

    Example:
        >>> norms = gradient_norms([[[0.0, 0.0], [0.0, 0.0]]], [[0, 1]])  # one move, of probability 1/4
        >>> norms["sentence"], norms["corpus"]
        (1.5, 1.5)
    """
    emissions, tags = np.asarray(emissions, np.float64), np.asarray(tags)
    valid = tags >= 0
    p = softmax(np.where(valid[..., None], emissions, 0), axis=-1) * valid[..., None]
    made = np.eye(p.shape[-1])[tags] * valid[..., None]
    moves = valid[:, 1:].sum()
    matrices = np.einsum("nti,ntj->nij", p[:, :-1], p[:, 1:])
    matrices -= np.einsum("nti,ntj->nij", made[:, :-1], made[:, 1:])
    return {
        "sentence": float(np.abs(matrices).sum() / moves),
        "corpus": float(np.abs(matrices.sum(axis=0)).sum() / moves),
    }


def gradient_at_margin(margin: float, *, sentences: int = 2000, longest: int = 40) -> dict[str, float]:
    """:func:`gradient_norms` when the emission of the right tag leads all others by the same margin everywhere.

    Args:
        margin: m, in nats.
        sentences: of the test part, whose tags are used.
        longest: sentences of more characters are left out.

    Returns:
        As :func:`gradient_norms`, and "bound", 2(1 − p²) with p = eᵐ/(eᵐ + 3) the probability of the right tag: the
        norm for a single move, where nothing cancels.

    Example:
        >>> norms = gradient_at_margin(10.0, sentences=50)
        >>> norms["corpus"] <= norms["sentence"] <= norms["bound"] < 1e-3
        True
    """
    tags = _corpus(sentences, sentences, longest).test.tags
    p = 1 / (1 + (TAGS - 1) * np.exp(-margin))
    return gradient_norms(margin * np.eye(TAGS)[tags], tags) | {"bound": float(2 * (1 - p**2))}


def step_ratio(optimizer: str, multiplier: float, *, rate: float = 1e-4, steps: int = 1, seed: int = 0) -> float:
    """How much farther the transitions travel with λ than without, on the same random data.

    Args:
        optimizer: the name of a Keras optimizer, such as "sgd" or "adam".
        multiplier: λ.
        rate: the learning rate, small, so that the gradient hardly changes on the way.
        steps: number of steps.
        seed: of the data.

    Returns:
        The ratio of the distances: λ² under gradient descent, λ under Adam.

    Example:
        >>> [round(step_ratio(optimizer, 3)) for optimizer in ("sgd", "adam")]
        [9, 3]
    """
    rng = np.random.default_rng(seed)
    emissions = rng.standard_normal((8, 6, TAGS)).astype(np.float32)
    tags = rng.integers(0, TAGS, (8, 6)).astype(np.int32)
    distances = []
    for factor in (multiplier, 1.0):
        head = CRF(TAGS, learning_rate_multiplier=factor)
        tagger = Tagger(keras.layers.Identity(), head)
        rule = keras.optimizers.get({"class_name": optimizer, "config": {"learning_rate": rate}})
        tagger.compile(rule, run_eagerly=True)  # a graph of a few steps' use costs more than it saves
        for _ in range(steps):
            tagger.train_on_batch(emissions, tags)
        distances.append(np.linalg.norm(_transitions(head)))
    return float(distances[0] / distances[1])


# --- what is recorded -------------------------------------------------------------------------------------

SEEDS = (1, 2, 3, 4, 5)
MULTIPLIERS = (0, 1, 10, 100, 1000)
#: Heads of the fine-tuning: the softmax, CRFs from zero, and one from random transitions.
HEADS = ((None, None), *((multiplier, "zeros") for multiplier in MULTIPLIERS), (1, "glorot"))

#: The whole corpus, but for less than one sentence in a hundred, which are longer.
_ALL = {"sentences": 38_000, "test": 4400, "longest": 128, "batch": 32}

#: What each scale fine-tunes: the encoders with their sizes, the heads, the seeds.
FINETUNE: dict[str, dict[str, Any]] = {
    "live": {
        "encoders": {"convolutional": {"sentences": 4000, "test": 500, "steps": 100}},
        "heads": ((None, None), (1, "zeros"), (100, "zeros"), (1000, "zeros")),
        "seeds": (1,),
    },
    "cpu": {
        "encoders": {
            "convolutional": {},
            "recurrent": {},
            "transformer": {"epochs": 3},
        },
        "heads": HEADS,
        "seeds": SEEDS,
    },
    "gpu": {
        "encoders": {
            name: _ALL | {"steps": 1200} | own
            for name, own in {
                "convolutional": {"epochs": 5},
                "recurrent": {"epochs": 5},
                "transformer": {"epochs": 10},
            }.items()
        },
        "heads": HEADS,
        "seeds": SEEDS,
    },
}

#: The same of the pretrained encoder, which costs ten times as much a step.
PRETRAINED: dict[str, dict[str, Any]] = {
    "cpu": {
        "encoders": {"e5-2": {"sentences": 8000, "epochs": 2, "batch": 32, "pretraining_rate": 2e-4, "steps": 100}},
        "heads": tuple(head for head in HEADS if head[0] not in (0, 10)),
        "seeds": SEEDS,
    },
    "gpu": {
        "encoders": {"e5-12": _ALL | {"epochs": 3, "pretraining_rate": 5e-5, "steps": 1200}},
        "heads": HEADS,
        "seeds": SEEDS,
    },
}

#: What each scale trains from the start: the encoders with their sizes and heads (multiplier, rate); the seeds.
SCRATCH: dict[str, dict[str, Any]] = {
    "live": {
        "encoders": {
            "weak": ({"sentences": 4000, "test": 500, "epochs": 2}, ((None, 1e-3), (1, 1e-3), (100, 1e-3)))
        },
        "seeds": (1,),
    },
    "cpu": {
        "encoders": {
            "weak": ({}, ((None, 1e-3), *((multiplier, 1e-3) for multiplier in MULTIPLIERS[1:]), (1, 1e-2))),
            "convolutional": ({}, ((None, 1e-3), (1, 1e-3), (10, 1e-3), (100, 1e-3))),
        },
        "seeds": SEEDS,
    },
    # The article's own two settings: one pretrained layer at the rate 1e-3, twelve at 1e-5.
    "gpu": {
        "encoders": {
            "e5-1": (_ALL | {"epochs": 10}, ((None, 1e-3), (1, 1e-3), (10, 1e-3), (100, 1e-3), (1, 1e-2))),
            "e5-12": (
                _ALL | {"epochs": 10, "initial": "glorot"},
                ((None, 1e-5), *((multiplier, 1e-5) for multiplier in MULTIPLIERS)),
            ),
        },
        "seeds": SEEDS,
    },
}

MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0)


def finetune_cases(plan: Row) -> list[Row]:
    """The arguments of :func:`finetune` in a plan such as ``FINETUNE["live"]``; softmax first, for every seed.

    Example:
        >>> [case["multiplier"] for case in finetune_cases(FINETUNE["live"])]
        [None, 1, 100, 1000]
    """
    return [
        {"encoder": encoder, "multiplier": multiplier, "initial": initial, "seed": seed, **sizes}
        for encoder, sizes in plan["encoders"].items()
        for seed in plan["seeds"]
        for multiplier, initial in plan["heads"]
    ]


def scratch_cases(plan: Row) -> list[Row]:
    """The arguments of :func:`scratch` in a plan such as ``SCRATCH["live"]``.

    Example:
        >>> [case["multiplier"] for case in scratch_cases(SCRATCH["live"])]
        [None, 1, 100]
    """
    return [
        {"encoder": encoder, "multiplier": multiplier, "rate": rate, "seed": seed, **sizes}
        for seed in plan["seeds"]
        for encoder, (sizes, heads) in plan["encoders"].items()
        for multiplier, rate in heads
    ]


def record_margin(scale: str) -> records.Record:
    """The gradient that reaches zero transitions, against the margin of the emissions."""
    return records.sweep(
        CHAPTER, "margin", gradient_at_margin, [{"margin": margin} for margin in MARGINS], scale=scale
    )


def record_finetune(scale: str) -> records.Record:
    """Softmax first, then a CRF at a small rate: F1, illegal moves and transitions against the multiplier."""
    return records.sweep(CHAPTER, "finetune", finetune, finetune_cases(FINETUNE[scale]), scale=scale)


def record_pretrained(scale: str) -> records.Record:
    """The same with layers of a pretrained transformer as the encoder."""
    return records.sweep(CHAPTER, "pretrained", finetune, finetune_cases(PRETRAINED[scale]), scale=scale)


def record_scratch(scale: str) -> records.Record:
    """Encoder and CRF from the start: the same after every epoch."""
    return records.sweep(CHAPTER, "scratch", scratch, scratch_cases(SCRATCH[scale]), scale=scale)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.crf --scale cpu``."""
    experiments = {
        "margin": record_margin,
        "finetune": record_finetune,
        "scratch": record_scratch,
        "pretrained": record_pretrained,
    }
    return records.main(CHAPTER, experiments, argv)


if __name__ == "__main__":
    sys.exit(main())
