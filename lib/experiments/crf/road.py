"""Steps times rate, as a road: transitions that travel alone, above emissions that stay.

The network is trained with a softmax and then kept as it is, so that nothing but the sixteen scores moves.
Gradients and Adam are written out here in NumPy, apart from those of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.crf import CRF, viterbi
from lib.experiments.crf.corpora import words
from lib.experiments.crf.finetuning import Row, scores_of, trained_by_softmax
from lib.experiments.crf.gradients import gradient_norms, margins
from lib.experiments.crf.matrices import INITIAL, TAGS, Array, preferences
from lib.experiments.labelling import Corpus, Part, emissions_of, scores
from lib.tagging import SEGMENT_ALPHABET, LegalMoves, Tagger, legal_moves

#: Where a journey is looked at. The last is our estimate of how many steps the article's run had: its script passes
#: ten times through nine tenths of some 19,000 lines, 32 at a time.
STEPS = (15, 50, 150, 500, 1500, 5360)


def expected_moves(emissions: ArrayLike, transitions: ArrayLike, tags: ArrayLike) -> Array:
    """How often a CRF expects each move in each sentence, from sums over all paths.

    Args:
        emissions: (n, time, K), finite where there is a tag.
        transitions: (K, K).
        tags: int (n, time), −1 at padded steps; only where they are is looked at.

    Returns:
        P(y_t = i, y_{t+1} = j) summed over the steps of a sentence, (n, K, K).

    Example:
        >>> expected_moves(np.zeros((1, 2, 2)), np.zeros((2, 2)), [[0, 0]]).tolist()
        [[[0.25, 0.25], [0.25, 0.25]]]
    """
    valid = np.asarray(tags) >= 0
    f = np.where(valid[..., None], np.asarray(emissions, np.float64), 0)
    f, M = np.exp(f - f.max(axis=-1, keepdims=True)), np.exp(transitions - np.max(transitions))
    ahead, after = np.empty_like(f), np.ones_like(f)
    ahead[:, 0] = f[:, 0]
    for t in range(1, f.shape[1]):
        ahead[:, t] = f[:, t] * (ahead[:, t - 1] @ M)
        ahead[:, t] /= ahead[:, t].sum(axis=-1, keepdims=True)
    for t in range(f.shape[1] - 2, -1, -1):
        behind = (f[:, t + 1] * after[:, t + 1]) @ M.T
        behind /= behind.sum(axis=-1, keepdims=True)
        after[:, t] = np.where(valid[:, t + 1, None], behind, 1)
    pairs = ahead[:, :-1, :, None] * M * (f * after)[:, 1:, None, :]
    pairs /= pairs.sum(axis=(-2, -1), keepdims=True)
    return (pairs * valid[:, 1:, None, None]).sum(axis=1)


def actual_moves(tags: ArrayLike) -> Array:
    """How often each move was made in each sentence, (n, K, K), K the tags s, b, m, e.

    Example:
        >>> int(actual_moves([[1, 3, 0, -1]])[0, 1, 3])
        1
    """
    tags = np.asarray(tags)
    made = np.eye(TAGS)[tags] * (tags >= 0)[..., None]
    return np.einsum("nti,ntj->nij", made[:, :-1], made[:, 1:])


def adam(
    gradient: Callable[[Array, int], ArrayLike],
    start: ArrayLike,
    rate: float,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> Iterator[Array]:
    """The weights after each step of Adam, without end.

    Args:
        gradient: called with the weights and the number of the step, from 1.
        start: the weights before the first step.
        rate: the learning rate.
        beta_1: decay of the average of gradients.
        beta_2: decay of the average of their squares.
        epsilon: as in Keras, added to the root before the correction.

    Source: Kingma and Ba 2015, arXiv 1412.6980.

    Example:
        >>> path = adam(lambda weights, step: 1e-3, [0.0], 0.5)
        >>> [round(float(next(path)[0]), 2) for _ in range(3)]
        [-0.5, -1.0, -1.5]
    """
    weights = np.array(start, np.float64)
    m, v, step = np.zeros_like(weights), np.zeros_like(weights), 0
    while True:
        step += 1
        g = gradient(weights, step)
        m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * np.square(g)
        corrected = rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
        weights = weights - corrected * m / (np.sqrt(v) + epsilon)
        yield weights


def travel(
    rate: float,
    initial: str,
    seed: int,
    *,
    checkpoints: Sequence[int] = STEPS,
    encoder: str = "convolutional",
    network: int = 1,
    sentences: int = 16_000,
    test: int = 2000,
    longest: int = 40,
    epochs: int = 2,
    pretraining_rate: float = 1e-3,
    batch: int = 64,
) -> dict[str, Any]:
    """Trains the transitions alone, above a network that was trained with a softmax and stays as it is.

    Args:
        rate: learning rate of Adam for the transitions.
        initial: a key of ``INITIAL``.
        seed: of the initial transitions and of the order of the sentences.
        checkpoints: numbers of steps at which to look, rising.
        encoder: a key of ``ENCODERS``.
        network: seed of the network.
        sentences: of the training part.
        test: sentences of the test part.
        longest: sentences of more characters are left out.
        epochs: passes through them with the softmax.
        pretraining_rate: learning rate of Adam with the softmax.
        batch: sentences a batch.

    Returns:
        At every checkpoint: "transitions", (4, 4); "displacement", the largest change of one; "separated", as
        :func:`preferences` has it; on the test part "f1" and "illegal", and "ruled_f1" with hard rules in the
        decoder. Of the softmax: "softmax_f1", "softmax_ruled_f1", and on the test part "margins" and "gradient" as
        :func:`finetune` has them. Also "characters" of the test part.

    Example:
        >>> row = travel(1e-2, "zeros", 1, checkpoints=(2, 5), encoder="weak", sentences=128, test=20, epochs=1)
        >>> [round(distance, 2) for distance in row["displacement"]]
        [0.02, 0.05]
    """
    corpus = words(sentences, test, longest)
    first, _ = trained_by_softmax(encoder, network, corpus, epochs, pretraining_rate, batch)
    emissions, unseen = _emissions(first, corpus)
    rules = legal_moves(SEGMENT_ALPHABET)
    rng, start = np.random.default_rng(seed), INITIAL[initial](seed)
    order = np.empty(0, int)

    def gradient(weights: Array, _: int) -> Array:
        nonlocal order
        if len(order) < batch:
            order = np.concatenate([order, rng.permutation(len(emissions))])
        chosen, order = order[:batch], order[batch:]
        tags = corpus.train.tags[chosen]
        return (expected_moves(emissions[chosen], weights, tags) - actual_moves(tags)).mean(axis=0)

    path = adam(gradient, start, rate)
    keys = ("transitions", "displacement", "separated", "f1", "illegal", "ruled_f1")
    found: dict[str, list[Any]] = {key: [] for key in keys}
    for step in range(1, checkpoints[-1] + 1):
        weights = next(path)
        if step in checkpoints:
            score = _decoded(unseen, corpus.test, weights)
            looked = (
                weights,
                float(np.abs(weights - start).max()),
                preferences(weights)["separated"],
                score["f1"],
                score["illegal"],
                _decoded(unseen, corpus.test, weights, rules)["f1"],
            )
            for key, value in zip(keys, looked, strict=True):
                found[key].append(value)
    return {
        **found,
        "checkpoints": list(checkpoints),
        "characters": score["characters"],
        "softmax_f1": _decoded(unseen, corpus.test, np.zeros_like(start))["f1"],
        "softmax_ruled_f1": _decoded(unseen, corpus.test, np.zeros_like(start), rules)["f1"],
        "margins": np.quantile(margins(unseen, corpus.test.tags), (0.1, 0.25, 0.5, 0.75, 0.9)),
        "gradient": gradient_norms(unseen, corpus.test.tags)["sentence"],
    }


def as_drawn(
    seed: int,
    *,
    encoder: str = "convolutional",
    network: int = 1,
    sentences: int = 16_000,
    test: int = 2000,
    longest: int = 40,
    epochs: int = 2,
    pretraining_rate: float = 1e-3,
    batch: int = 64,
) -> dict[str, Any]:
    """Random transitions, left as they were drawn, above a network that was trained with a softmax.

    Args:
        seed: of the draw.
        encoder: as in :func:`travel`.
        network: as in :func:`travel`.
        sentences: as in :func:`travel`.
        test: as in :func:`travel`.
        longest: as in :func:`travel`.
        epochs: as in :func:`travel`.
        pretraining_rate: as in :func:`travel`.
        batch: as in :func:`travel`.

    Returns:
        "f1" and "illegal" of the test part, with these transitions, and "softmax_f1" and "softmax_illegal" without.

    Example:
        >>> row = as_drawn(1, encoder="weak", sentences=128, test=20, epochs=1)
        >>> sorted(row)
        ['f1', 'illegal', 'softmax_f1', 'softmax_illegal']
    """
    corpus = words(sentences, test, longest)
    first, _ = trained_by_softmax(encoder, network, corpus, epochs, pretraining_rate, batch)
    unseen = _emissions(first, corpus)[1]
    found: dict[str, Any] = {}
    for name, weights in (("", INITIAL["glorot"](seed)), ("softmax_", INITIAL["zeros"](seed))):
        score = _decoded(unseen, corpus.test, weights)
        found |= {f"{name}{key}": score[key] for key in ("f1", "illegal")}
    return found


def _decoded(emissions: NDArray, part: Part, weights: Array, legal: LegalMoves | None = None) -> Row:
    """The scores of a part that is decoded with these transitions, and with rules where there are some."""
    ruled = weights if legal is None else np.where(legal.transitions, weights, -np.inf)
    ends = {} if legal is None else {"start": _rule(legal.start), "end": _rule(legal.end)}
    tags, _ = viterbi(emissions, ruled.astype(np.float32), mask=part.characters != 0, **ends)
    return scores(keras.ops.convert_to_numpy(tags), part, SEGMENT_ALPHABET)


def _rule(allowed: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(allowed, 0, -np.inf).astype(np.float32)


@lru_cache(maxsize=1)
def _emissions(tagger: Tagger, corpus: Corpus) -> tuple[NDArray, NDArray]:
    """Those of the training and of the test part; kept for the next call, the tagger being one that stays."""
    return emissions_of(tagger, corpus.train), emissions_of(tagger, corpus.test)


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
        distances.append(np.linalg.norm(scores_of(head)))
    return float(distances[0] / distances[1])
