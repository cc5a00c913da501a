"""Label bias on the chain of Lafferty, McCallum and Pereira: rib and rob, in theory and after training."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from lib.experiments.memm.decoding import bare
from lib.experiments.memm.models import Array, Ids, all_paths, head_of, hmm_of_counts
from lib.tagging import Tagger

#: Who is trained on the chain, and how many letters each emission sees beyond its own.
RIB_ROB = (
    ("hmm", 0),
    ("softmax", 0),
    ("memm", 0),
    ("memm", 1),
    ("bi-memm", 0),
    ("crf", 0),
)


#: When the models are looked at as they train.
STEPS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100, 140, 200, 300, 500, 700, 1000)


LETTERS = "riob"


_R, _I, _O, _B = range(4)


#: The chance that a state emits another letter than its own, 1/32 for each of the other three.
NOISE = 3 / 32


def words(telling: int = 1) -> Ids:
    """The two words that the states spell, as places in :data:`LETTERS`: r i…i b and r o…o b.

    Args:
        telling: how many letters tell one from the other; 1 in the paper, where they are rib and rob.

    Returns:
        int32, shape (2, telling + 2).

    Raises:
        ValueError: no telling letter.

    Source: Lafferty, McCallum and Pereira 2001, figure 1 and section 5.1; more letters than one are ours.

    Example:
        >>> ["".join(LETTERS[letter] for letter in word) for word in words(2)]
        ['riib', 'roob']
    """
    if telling < 1:
        raise ValueError(f"telling must be at least 1, got {telling}")
    return np.array([[_R, *[vowel] * telling, _B] for vowel in (_I, _O)], np.int32)


def paths_of_words(telling: int = 1) -> Ids:
    """The states that spell the two words: one for each letter of each word, but the last letter is shared.

    Returns:
        int32, shape (2, telling + 2). The first state decides the rest, since each state has one successor.

    Example:
        >>> paths_of_words().tolist()
        [[0, 1, 4], [2, 3, 4]]
    """
    branch = telling + 1
    return np.array([[*range(branch), 2 * branch], [*range(branch, 2 * branch), 2 * branch]], np.int32)


def draw(count: int, seed: int, *, telling: int = 1, noise: float = NOISE) -> tuple[Ids, Ids]:
    """Letters and states of the noisy chain.

    Args:
        count: number of sequences.
        seed: of NumPy's generator.
        telling: as in :func:`words`.
        noise: chance that a state emits another letter than its own; all three others are equally likely.

    Returns:
        Letters and states, both int32, shape (count, telling + 2). Both words are equally likely.

    Example:
        >>> letters, states = draw(3, seed=2)
        >>> ["".join(LETTERS[letter] for letter in row) for row in letters], states.tolist()
        (['rbb', 'rio', 'rib'], [[2, 3, 4], [0, 1, 4], [0, 1, 4]])
    """
    rng = np.random.default_rng(seed)
    branch = rng.integers(0, 2, count)
    letters = words(telling)[branch]
    wrong = rng.uniform(size=letters.shape) < noise
    letters = np.where(wrong, (letters + rng.integers(1, 4, letters.shape)) % 4, letters)
    return letters.astype(np.int32), paths_of_words(telling)[branch]


def joint(telling: int = 1, noise: float = NOISE) -> Array:
    """P(word, letters) of all letters that can be observed: shape (2, 4, …, 4), one axis a letter.

    Raises:
        ValueError: no telling letter, or a noise outside (0, 1).

    Example:
        >>> P = joint()
        >>> P.shape, round(float(P.sum()), 12), round(float(P[0, 0, 1, 3] * 2 * 32**3))  # rib by the first word
        ((2, 4, 4, 4), 1.0, 24389)
    """
    if not 0 < noise < 1:
        raise ValueError(f"noise must lie strictly between 0 and 1, got {noise}")
    emission = np.where(np.eye(4, dtype=bool), 1 - noise, noise / 3)
    tables = []
    for word in words(telling):
        table = np.array(0.5)
        for letter in word:
            table = np.multiply.outer(table, emission[letter])
        tables.append(table)
    return np.stack(tables)


def chance_of_first_word(model: str, *, look_ahead: int = 0, telling: int = 1, noise: float = NOISE) -> Array:
    """How surely the best model of a kind reads the first word, for all letters that can be observed.

    The HMM and the CRF weigh all letters, as Bayes does. Each state has one successor, so an MEMM, in the limit of
    maximum likelihood, decides at the first step by P(y₁ | x₁, …): its later factors are 1 whatever it observes.
    Read backwards it decides at the last telling letter.

    Args:
        model: "hmm", "crf", "memm" or "memm, backward".
        look_ahead: how many letters the emissions of an MEMM see beyond their own.
        telling: as in :func:`words`.
        noise: as in :func:`draw`.

    Returns:
        Shape (4, …, 4), one axis a letter.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> r, i, o, b = range(4)
        >>> [round(float(chance_of_first_word(model)[r, i, b]), 3) for model in ("crf", "memm")]
        [0.967, 0.5]
    """
    P = joint(telling, noise)
    seen = {
        "hmm": (0, telling + 2),
        "crf": (0, telling + 2),
        "memm": (0, 1 + look_ahead),
        "memm, backward": (telling, telling + 1 + look_ahead),
    }
    if model not in seen:
        raise ValueError(f"model must be one of {'; '.join(seen)}, got {model!r}")
    start, stop = seen[model]
    hidden = tuple(axis for axis in range(1, P.ndim) if not start <= axis - 1 < stop)
    known = P.sum(axis=hidden, keepdims=True)
    return np.broadcast_to(known[0] / known.sum(axis=0), P.shape[1:])


def exact_error(model: str, *, look_ahead: int = 0, telling: int = 1, noise: float = NOISE) -> float:
    """The share of words that the best model of a kind reads wrong, by summation; a tie counts one half.

    Args:
        model: as in :func:`chance_of_first_word`.
        look_ahead: as there.
        telling: as in :func:`words`.
        noise: as in :func:`draw`.

    Raises:
        ValueError: as :func:`chance_of_first_word`.

    Example:
        >>> [f"{exact_error('memm', look_ahead=n):.2%}" for n in (0, 1)], f"{exact_error('crf'):.2%}"
        (['50.00%', '6.25%'], '6.25%')
    """
    chance = chance_of_first_word(model, look_ahead=look_ahead, telling=telling, noise=noise)
    first = np.where(np.abs(chance - 0.5) < 1e-9, 0.5, chance > 0.5)
    P = joint(telling, noise)
    return float(np.sum(P[0] * (1 - first) + P[1] * first))


def seen_letters(letters: Ids, look_ahead: int) -> Ids:
    """One number for what an emission sees: its step, the letter there, and the letters after it.

    Args:
        letters: places in :data:`LETTERS`, shape (batch, time).
        look_ahead: number of letters after; behind the end stands a fifth letter.

    Returns:
        int32 in [0, time · 5^(look_ahead + 1)), shape (batch, time).

    Example:
        >>> seen_letters(np.array([[0, 1, 3]]), 0).tolist(), seen_letters(np.array([[0, 1, 3]]), 1).tolist()
        ([[0, 6, 13]], [[1, 33, 69]])
    """
    length = letters.shape[1]
    padded = np.pad(letters, ((0, 0), (0, look_ahead)), constant_values=4)
    parts = np.broadcast_arrays(np.arange(length), *(padded[:, k : k + length] for k in range(look_ahead + 1)))
    return np.ravel_multi_index(parts, (length,) + (5,) * (look_ahead + 1)).astype(np.int32)


def trained_path(
    model: str, *, look_ahead: int = 0, seed: int = 0, train: int = 2000, steps: Sequence[int] = STEPS
) -> dict[str, list[float]]:
    """The error of a model on rib and rob as it trains, by its own decoder and by Viterbi on the bare scores f + g.

    Emissions are a table with a row of scores for whatever an emission can see. All scores start at zero: nothing
    but the data tells the models which moves exist. The word that a path reads is the one that its second state
    spells; a path whose second state spells no vowel reads none.

    Args:
        model: "hmm", "softmax", "memm", "memm, backward", "bi-memm" or "crf".
        look_ahead: how many letters the emissions see beyond their own.
        seed: of the training sequences.
        train: number of training sequences.
        steps: of Adam at a rate of 0.1, each with all sequences, when the model is looked at; the HMM needs none.

    Returns:
        "exact" and "bare", the shares of words that the model reads wrong in the long run, by summation over all
        that can be observed; "loss", that of the training sequences, in nats a letter for the MEMMs, else a word.
        One number of each for every one of the steps; the HMM has a single one, and no loss.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> trained_path("hmm")["exact"]
        [0.0625]
    """
    letters, states = draw(train, seed)
    seen, possible = (seen_letters(x, look_ahead) for x in (letters, all_paths(3, 4)))
    tags, kinds = int(states.max()) + 1, int(possible.max()) + 1
    if model == "hmm":
        paths, _ = hmm_of_counts(seen, states, kinds, tags).decode(possible)
        error = words_misread(ops.convert_to_numpy(paths))
        return {"exact": [error], "bare": [error]}
    tagger = Tagger(keras.layers.Embedding(kinds, tags, embeddings_initializer="zeros"), head_of(model, tags))
    tagger.compile(keras.optimizers.Adam(0.1), jit_compile=keras.backend.backend() == "jax")
    # Equal sequences have equal likelihoods: one of a kind, with its count as the weight.
    pairs, counts = np.unique(np.hstack([seen, states]), axis=0, return_counts=True)
    batch, weights = np.hsplit(pairs, 2), counts / counts.mean()
    found: dict[str, list[float]] = {"exact": [], "bare": [], "loss": []}
    for step in range(1, max(steps) + 1):
        loss = tagger.train_on_batch(*batch, sample_weight=weights)
        if step in steps:
            emissions = tagger(possible)
            for name, head in (("exact", tagger.head), ("bare", bare(tagger.head))):
                found[name].append(words_misread(ops.convert_to_numpy(head.decode(emissions)[0])))
            found["loss"].append(float(loss))
    return found


def words_misread(paths: Ids, noise: float = NOISE) -> float:
    """The share of words read wrong by one path for each of the 64 observations, by summation over these.

    Args:
        paths: states, shape (64, 3), in the order of :func:`lib.experiments.memm.models.all_paths`.
        noise: as in :func:`draw`.

    Example:
        >>> words_misread(np.tile(paths_of_words()[0], (64, 1)))  # whoever always reads rib
        0.5
    """
    wrong = np.array([paths[:, 1] != path[1] for path in paths_of_words()])
    return float(np.sum(joint(noise=noise).reshape(2, -1) * wrong))
