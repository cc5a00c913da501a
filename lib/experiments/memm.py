"""Chapter 5: where to normalise? The HMM, softmax, the MEMM and the CRF on equal terms.

* :func:`log_probabilities`: all paths of a short chain under each of the models;
* :func:`exact_rates`, :func:`trained_rates`: label bias on the chain of Lafferty, McCallum and Pereira, in theory
  and after training;
* :func:`decoders_apart`: what a decoder gets wrong that does not decode its model;
* :func:`loss_times`, :func:`step_times`, :func:`decoding_times`, :func:`large_cost`: seconds and bytes;
* :func:`compare`: word segmentation and named entities, five models, one setting.

``python -m lib.experiments.memm --scale cpu`` records them: "models" takes half an hour on one core, the others
about five minutes each. "speed", "steps" and "tags" want a machine that does nothing else.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib import chain, memm
from lib.bert import Encoder
from lib.crf import CRF
from lib.crf import log_likelihood as crf_log_likelihood
from lib.experiments import labelling
from lib.hmm import HMM
from lib.memm import MEMM
from lib.tagging import Head, Softmax, Tagger
from lib.workbench import measure, records

CHAPTER = "05-memm"
Array = NDArray[np.float64]
Ids = NDArray[np.int32]

#: The models with a likelihood of tags given scores; "hmm" joins them where there are words to count.
MODELS = ("softmax", "memm", "bi-memm", "crf")
_DIRECTIONS = {"memm": "forward", "memm, backward": "backward", "bi-memm": "both"}


def head_of(model: str, tags: int, multiplier: float = 1.0) -> Head:
    """The head of a model, with transitions that start at zero.

    Args:
        model: one of :data:`MODELS`, or "memm, backward".
        tags: number of tags.
        multiplier: of the transitions' learning rate.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> head_of("crf", 4).tags
        4
    """
    if model == "softmax":
        return Softmax(tags)
    if _known(model) == "crf":
        return CRF(tags, learning_rate_multiplier=multiplier)
    return MEMM(tags, direction=_DIRECTIONS[model], learning_rate_multiplier=multiplier)


def log_likelihood(model: str, emissions: Any, tags: Any, transitions: Any) -> Any:
    """The log-probability of tags under a model that has these scores; softmax does not look at the transitions.

    Args:
        model: one of :data:`MODELS`, or "memm, backward". For "bi-memm" it is the mean of both directions, which
            is not a distribution over paths.
        emissions: f, shape (batch, time, tags).
        tags: shape (batch, time), int32.
        transitions: g, shape (tags, tags).

    Returns:
        Shape (batch,).

    Raises:
        ValueError: an unknown model.

    Example:
        >>> f, g, y = np.zeros((1, 3, 2)), np.eye(2), np.array([[0, 0, 0]])
        >>> [round(float(np.exp(log_likelihood(model, f, y, g)[0])), 3) for model in MODELS]
        [0.125, 0.267, 0.267, 0.267]
    """
    if model == "softmax":
        return chain.sequence_score(ops.log_softmax(emissions), tags, ops.zeros_like(transitions))
    if _known(model) == "crf":
        return crf_log_likelihood(emissions, tags, transitions)
    return memm.log_likelihood(emissions, tags, transitions, direction=_DIRECTIONS[model])


def _known(model: str) -> str:
    names = (*MODELS, "memm, backward")
    if model not in names:
        raise ValueError(f"model must be one of {'; '.join(names)}, got {model!r}")
    return model


def _counted(symbols: Ids, tags: Ids, symbol_count: int, tag_count: int) -> HMM:
    """The HMM of tagged sequences; one part in a hundred of a count keeps what was not seen possible."""
    return HMM.fit(symbols, tags, symbol_count=symbol_count, tag_count=tag_count, smoothing=0.01)


# --- three denominators -----------------------------------------------------------------------------------


def all_paths(length: int, tags: int) -> Ids:
    """All tag sequences of a length in lexical order, int32, shape (tags^length, length).

    Example:
        >>> all_paths(2, 2).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return np.array(list(itertools.product(range(tags), repeat=length)), np.int32)


def log_probabilities(model: str, emissions: Array, transitions: Array) -> Array:
    """The log-probability of every path of one short chain.

    Args:
        model: as in :func:`log_likelihood`.
        emissions: f, shape (time, tags).
        transitions: g, shape (tags, tags).

    Returns:
        float64, in the order of :func:`all_paths`, shape (tags^time,).

    Raises:
        ValueError: an unknown model.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> f, g = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
        >>> [round(float(np.exp(log_probabilities(m, f, g)).sum()), 5) for m in ("softmax", "memm", "crf")]
        [1.0, 1.0, 1.0]
    """
    paths = all_paths(*emissions.shape)
    repeated = np.broadcast_to(emissions, (len(paths), *emissions.shape)).astype("float64")
    return ops.convert_to_numpy(log_likelihood(model, repeated, paths, transitions.astype("float64"))).astype(float)


# --- label bias: rib and rob ------------------------------------------------------------------------------

#: Who is trained on the chain, and how many letters each emission sees beyond its own.
RIB_ROB = (
    ("hmm", 0),
    ("softmax", 0),
    ("memm", 0),
    ("memm", 1),
    ("memm, backward", 0),
    ("bi-memm", 0),
    ("crf", 0),
)
#: When the MEMM is looked at besides, and the seeds of all of them.
RIB_ROB_STEPS = (10, 30, 100, 300, 3000)
RIB_ROB_SEEDS = range(10)

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


def exact_rates(model: str, *, look_ahead: int = 0, telling: int = 1, noise: float = NOISE) -> dict[str, float]:
    """The error of the best model of a kind, by summation over everything that can be observed.

    Each state has one successor, so an MEMM decides at the first step, P(y₁ | x₁, …): its later factors are 1
    whatever it observes. Read backwards it decides at the last telling letter. Softmax decides at each step anew.
    The HMM and the CRF weigh all letters, as Bayes does. A tie counts one half.

    Args:
        model: "softmax", "memm", "memm, backward", "crf" or "hmm".
        look_ahead: how many letters the emissions see beyond their own.
        telling: as in :func:`words`.
        noise: as in :func:`draw`.

    Returns:
        "sequences" and "tokens", the shares that are wrong.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> [f"{exact_rates('memm', look_ahead=n)['sequences']:.2%}" for n in (0, 1)]
        ['50.00%', '6.25%']
        >>> f"{exact_rates('crf')['sequences']:.2%}"
        '6.25%'
    """
    P = joint(telling, noise)
    length = telling + 2
    seen = {
        "softmax": [(k, k + 1 + look_ahead) for k in range(length - 1)],
        "memm": [(0, 1 + look_ahead)],
        "memm, backward": [(telling, telling + 1 + look_ahead)],
        "crf": [(0, length)],
        "hmm": [(0, length)],
    }
    if model not in seen:
        raise ValueError(f"model must be one of {'; '.join(seen)}, got {model!r}")
    # first[k]: how surely the first word is chosen at decision k; right: how surely the true one is, by word.
    first = [np.broadcast_to(_choice(P, *window), P.shape[1:]) for window in seen[model]]
    right = np.array([[choice, 1 - choice] for choice in first])
    wrong_tokens = (length - 1) / length * (1 - np.sum(P * right) / len(right))
    return {"sequences": float(1 - np.sum(P * right.prod(axis=0))), "tokens": float(wrong_tokens)}


def _choice(P: Array, start: int, stop: int) -> Array:
    """1 where the letters start … stop − 1 speak for the first word, 0 for the second, ½ for neither."""
    evidence = np.log(_given(P, start, stop))
    difference = evidence[0] - evidence[1]
    return np.where(np.abs(difference) < 1e-9, 0.5, difference > 0)


def _given(P: Array, start: int, stop: int) -> Array:
    """P(word, letters start … stop − 1), with axes of length 1 for the other letters."""
    hidden = tuple(axis for axis in range(1, P.ndim) if not start <= axis - 1 < stop)
    return P.sum(axis=hidden, keepdims=True)


def branch_entropy(look_ahead: int = 0, *, telling: int = 1, noise: float = NOISE) -> float:
    """H(y₁ | x₁, …, x_{1 + look_ahead}) in bits: what the emissions leave open where the path forks.

    It is the only entropy of the MEMM's next-state distributions that is not 0. At 1 bit the model guesses, and no
    later letter can change its mind.

    Example:
        >>> [round(branch_entropy(n), 3) for n in (0, 1)]
        [1.0, 0.26]
    """
    P = _given(joint(telling, noise), 0, 1 + look_ahead)
    conditional = P / P.sum(axis=0)
    return float(-np.sum(P * np.log2(conditional)))


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


def trained_rates(
    model: str,
    *,
    look_ahead: int = 0,
    telling: int = 1,
    seed: int = 0,
    train: int = 2000,
    test: int = 500,
    steps: int = 1000,
) -> dict[str, float]:
    """The error of a model that was trained on drawn sequences.

    Emissions are a table with a row of scores for whatever an emission can see. All scores start at zero: nothing
    but the data tells the models which moves exist. Until the MEMM has learned that a state has one successor
    whatever it observes, it still listens to the letters: it errs less after few steps than after many.

    Args:
        model: as in :func:`exact_rates`, or "bi-memm".
        look_ahead: as in :func:`exact_rates`.
        telling: as in :func:`words`.
        seed: of the sequences.
        train: number of training sequences.
        test: number of test sequences.
        steps: of Adam at a rate of 0.1, each with all training sequences; the HMM needs none.

    Returns:
        "sequences" and "tokens", shares of the test set that are wrong; "expected", the share of sequences that
        this trained model gets wrong in the long run, by summation over all observations; "seconds".

    Raises:
        ValueError: an unknown model.

    Example:
        >>> trained_rates("hmm")["expected"]
        0.0625
    """
    letters, states = draw(train, seed, telling=telling)
    unseen, truth = draw(test, 10_000 + seed, telling=telling)
    start = time.perf_counter()
    seen, possible = (seen_letters(x, look_ahead) for x in (letters, all_paths(telling + 2, 4)))
    paths = _paths_found(model, seen, states, possible, steps)
    guess = paths[np.ravel_multi_index(tuple(unseen.T), (4,) * (telling + 2))]
    wrong = np.array([np.any(paths != path, axis=1) for path in paths_of_words(telling)])
    return {
        "sequences": float(np.any(guess != truth, axis=1).mean()),
        "tokens": float(np.mean(guess != truth)),
        "expected": float(np.sum(joint(telling).reshape(2, -1) * wrong)),
        "seconds": time.perf_counter() - start,
    }


def _paths_found(model: str, seen: Ids, states: Ids, possible: Ids, steps: int) -> Ids:
    """Trains a model and decodes everything that can be seen."""
    tags, kinds = int(states.max()) + 1, int(possible.max()) + 1
    if model == "hmm":
        return ops.convert_to_numpy(_counted(seen, states, kinds, tags).decode(possible)[0])
    tagger = Tagger(keras.layers.Embedding(kinds, tags, embeddings_initializer="zeros"), head_of(model, tags))
    tagger.compile(keras.optimizers.Adam(0.1), jit_compile=keras.backend.backend() == "jax")
    # Equal sequences have equal likelihoods: one of a kind, with its count as the weight.
    pairs, counts = np.unique(np.hstack([seen, states]), axis=0, return_counts=True)
    for _ in range(steps):
        tagger.train_on_batch(*np.hsplit(pairs, 2), sample_weight=counts / counts.mean())
    return np.asarray(ops.convert_to_numpy(tagger.head.decode(tagger(possible))[0]))


# --- decoding ---------------------------------------------------------------------------------------------

#: Standard deviations of f and of g, from scores that weigh alike to emissions that settle nearly everything.
SPREADS = ((1.0, 1.0), (3.0, 1.0), (6.0, 1.0), (3.0, 3.0))


def decoders_apart(
    spread_emissions: float,
    spread_transitions: float,
    *,
    tags: int = 4,
    length: int = 20,
    chains: int = 40,
    seeds: Sequence[int] = range(50),
) -> dict[str, Array]:
    """How often two decoders miss the best path of an MEMM with random Gaussian scores.

    "unnormalised" is the Viterbi of a CRF on f + g, without the normalisers with which the model was trained;
    "greedy" takes the best next tag, step by step. The best path is that of :func:`lib.memm.viterbi`.

    Args:
        spread_emissions: standard deviation of f.
        spread_transitions: standard deviation of g.
        tags: number of tags.
        length: steps of a chain.
        chains: that share the transitions of a seed.
        seeds: one matrix g is drawn for each.

    Returns:
        Arrays of shape (seeds,): under "unnormalised" and "greedy" the share of tokens whose tag differs from the
        best path's, under "unnormalised sequences" and "greedy sequences" that of chains with such a token.

    Example:
        >>> apart = decoders_apart(3.0, 1.0, seeds=range(3))
        >>> bool(apart["unnormalised"].mean() > apart["greedy"].mean())
        True
    """
    best, *others = (_decoder(name) for name in ("memm", "crf", "memm, greedy"))
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        f = (spread_emissions * rng.standard_normal((chains, length, tags))).astype("float32")
        g = (spread_transitions * rng.standard_normal((tags, tags))).astype("float32")
        f, g = ops.convert_to_tensor(f), ops.convert_to_tensor(g)
        truth = ops.convert_to_numpy(best(f, g)[0])
        row = {}
        for name, decoder in zip(("unnormalised", "greedy"), others, strict=True):
            wrong = ops.convert_to_numpy(decoder(f, g)[0]) != truth
            row |= {name: wrong.mean(), f"{name} sequences": wrong.any(axis=1).mean()}
        rows.append(row)
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


#: From emissions and transitions to tags and their score.
DECODERS: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "softmax": lambda f, g: (ops.argmax(f, axis=-1), ops.sum(ops.max(ops.log_softmax(f), axis=-1), axis=-1)),  # noqa: ARG005
    "memm, greedy": memm.greedy,
    "memm": memm.viterbi,
    "crf": chain.viterbi,
}


@cache
def _decoder(name: str, mode: str = "xla") -> Callable[[Any, Any], tuple[Any, Any]]:
    return compiled(DECODERS[name], mode)


# --- seconds and bytes ------------------------------------------------------------------------------------

MODES = ("graph", "xla")


def compiled(function: Callable[..., Any], mode: str = "xla") -> Callable[..., Any]:
    """A function of tensors, compiled as the backend can.

    Args:
        function: of tensors.
        mode: on TensorFlow "graph" or "xla"; JAX has its XLA only, and torch runs the function as it is.

    Raises:
        ValueError: an unknown mode.

    Example:
        >>> float(compiled(lambda x: x + 1)(ops.ones(())))
        2.0
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=mode == "xla", autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def value_and_gradients(loss: Callable[..., Any], mode: str = "xla") -> Callable[..., Any]:
    """A scalar function of tensors with its gradients by the first two of them, :func:`compiled`.

    Args:
        loss: of at least two tensors, such as emissions, transitions and tags.
        mode: as in :func:`compiled`.

    Returns:
        A function of the same tensors: (value, (gradient, gradient)), a gradient being 0 by what has no influence.

    Example:
        >>> value, (left, right) = value_and_gradients(lambda a, b: a * b)(ops.ones(()), ops.zeros(()))
        >>> float(value), float(left), float(right)
        (0.0, 0.0, 1.0)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def gradients(*tensors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors[:2])
                value = loss(*tensors)
            return value, tape.gradient(value, tensors[:2], unconnected_gradients="zero")

    elif keras.backend.backend() == "jax":
        import jax

        gradients = jax.value_and_grad(loss, argnums=(0, 1))
    else:
        import torch

        def gradients(*tensors: Any) -> Any:
            leaves = tuple(tensor.detach().requires_grad_() for tensor in tensors[:2])
            value = loss(*leaves, *tensors[2:])
            found = torch.autograd.grad(value, leaves, allow_unused=True)
            pairs = zip(found, leaves, strict=True)
            return value.detach(), tuple(torch.zeros_like(x) if g is None else g for g, x in pairs)

    return compiled(gradients, mode)


def _random_chain(batch: int, length: int, tags: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Emissions, transitions and tags."""
    rng = np.random.default_rng(seed)
    return (
        ops.convert_to_tensor(rng.standard_normal((batch, length, tags)).astype("float32")),
        ops.convert_to_tensor(rng.standard_normal((tags, tags)).astype("float32")),
        ops.convert_to_tensor(rng.integers(0, tags, (batch, length)).astype("int32")),
    )


def loss_times(
    length: int, tags: int, *, batch: int = 8, mode: str = "xla", repeats: int = 9, models: Sequence[str] = MODELS
) -> dict[str, Any]:
    """Seconds of a loss with its gradients by emissions and transitions, models in turns.

    Args:
        length: steps of a sequence.
        tags: number of tags.
        batch: number of sequences.
        mode: as in :func:`compiled`.
        repeats: rounds, at least 6.
        models: of :data:`MODELS`.

    Returns:
        "samples": the seconds of each round by model, from which :func:`contest_of` makes a contest.

    Raises:
        ValueError: an unknown model or mode.

    Example:
        >>> race = contest_of(loss_times(8, 3, repeats=6, models=("softmax", "crf")))
        >>> race["crf"].median > 0
        True
    """
    f, g, y = _random_chain(batch, length, tags)

    def contestant(model: str) -> Callable[[], Any]:
        step = value_and_gradients(lambda f, g, y: -ops.sum(log_likelihood(model, f, y, g)), mode)
        return lambda: step(f, g, y)

    return _samples({model: contestant(model) for model in models}, repeats)


def decoding_times(
    length: int, tags: int, *, batch: int = 8, mode: str = "xla", repeats: int = 9
) -> dict[str, Any]:
    """Seconds of decoding: Viterbi for the CRF and for the MEMM, greedy for the MEMM, the best tag for softmax.

    Args:
        length: as in :func:`loss_times`.
        tags: as in :func:`loss_times`.
        batch: as in :func:`loss_times`.
        mode: as in :func:`compiled`.
        repeats: as in :func:`loss_times`.

    Returns:
        As :func:`loss_times`, for "softmax", "memm, greedy", "memm" and "crf".

    Example:
        >>> sorted(decoding_times(8, 3, repeats=6)["samples"])
        ['crf', 'memm', 'memm, greedy', 'softmax']
    """
    f, g, _ = _random_chain(batch, length, tags)
    return _samples({name: partial(_decoder(name, mode), f, g) for name in DECODERS}, repeats)


def step_times(
    layers: int,
    length: int,
    *,
    width: int = 128,
    tags: int = 4,
    batch: int = 8,
    mode: str = "xla",
    repeats: int = 6,
    models: Sequence[str] = MODELS,
) -> dict[str, Any]:
    """Seconds of a whole training step, with a transformer of random weights as the encoder, models in turns.

    Args:
        layers: blocks of the transformer.
        length: tokens of a sentence.
        width: of the transformer, a multiple of 64; the inner layer is four times as wide.
        tags: number of tags.
        batch: sentences a step.
        mode: as in :func:`compiled`.
        repeats: as in :func:`loss_times`.
        models: as in :func:`loss_times`.

    Returns:
        As :func:`loss_times`.

    Raises:
        ValueError: an unknown model or mode.

    Example:
        >>> list(step_times(1, 8, width=64, batch=2, mode="graph", models=("softmax",))["samples"])
        ['softmax']
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 1000, (batch, length)).astype("int32")
    y = rng.integers(0, tags, (batch, length)).astype("int32")

    def contestant(model: str) -> Callable[[], Any]:
        encoder = Encoder.from_sizes(1000, width, layers, width // 64, 4 * width, positions=length, dropout=0.0)
        tagger = Tagger(keras.Sequential([encoder, keras.layers.Dense(tags)]), head_of(model, tags))
        tagger.compile("adam", jit_compile=_jit(mode))
        return lambda: tagger.train_on_batch(ids, y)

    return _samples({model: contestant(model) for model in models}, repeats)


def _jit(mode: str) -> bool:
    """What ``compile`` must be told for a mode."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    return keras.backend.backend() == "jax" or (mode == "xla" and keras.backend.backend() == "tensorflow")


def _samples(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    race = measure.contest(contestants, repeats=repeats)
    return {"samples": {name: list(timing.samples) for name, timing in race.timings.items()}}


def blocked_log_partition(emissions: Any, transitions: Any, block: int | None = None) -> Any:
    """The log-partition of a CRF by blocks: products of matrices in all of them side by side, then joined.

    Z = aᵀ M₂ M₃ ⋯ M_T 1 with M_t(i, j) = exp(g(i, j) + f_t(j)), and a product may be bracketed at will. A loop over
    the steps of a block and one over the blocks take 2√T steps instead of T, and K times the multiplications. The
    numbers are rescaled at every step; it is meant for moderate scores and has no logarithmic way out.

    Args:
        emissions: f, shape (batch, time, tags), all steps valid.
        transitions: g, shape (tags, tags).
        block: steps of a block; by default the root of their number.

    Returns:
        Shape (batch,).

    Source: Rush 2020, arXiv:2002.00876 (products in a semiring); Särkkä and García-Fernández 2021.

    Example:
        >>> f, g = np.zeros((1, 10, 3)), np.zeros((3, 3))
        >>> round(float(np.exp(blocked_log_partition(f, g, block=4)[0])))  # 3¹⁰ sequences
        59049
    """
    f, g = ops.convert_to_tensor(emissions, "float32"), ops.convert_to_tensor(transitions, "float32")
    batch, time, tags = f.shape
    steps = time - 1
    block = block or max(1, round(steps**0.5))
    blocks = max(1, -(-steps // block))
    best, top = ops.max(g), ops.max(f, axis=-1, keepdims=True)
    E, x = ops.exp(g - best), ops.exp(f - top)
    # Step s of all blocks together: (block, batch, blocks, 1, tags). The last block is filled up with no steps.
    rest = ops.pad(x[:, 1:], ((0, 0), (0, blocks * block - steps), (0, 0)))
    rest = ops.moveaxis(ops.reshape(rest, (batch, blocks, block, 1, tags)), 2, 0)
    exists = ops.transpose(ops.reshape(ops.arange(blocks * block) < steps, (blocks, block)))[:, None, :, None, None]

    def multiply(carry: Any, step: Any) -> Any:
        product, log_scale = carry
        longer = ops.matmul(product, E) * step[0]
        scale = ops.max(longer, axis=(-2, -1), keepdims=True)
        product = ops.where(step[1], longer / scale, product)
        return (product, log_scale + ops.where(step[1], ops.log(scale), 0.0)), None

    def join(carry: Any, factor: Any) -> Any:
        alpha, log_scale = carry
        alpha = ops.matmul(alpha, factor)
        scale = ops.max(alpha, axis=-1, keepdims=True)
        return (alpha / scale, log_scale + ops.log(scale)), None

    ones = ops.broadcast_to(ops.eye(tags), (batch, blocks, tags, tags))
    (products, scales), _ = ops.scan(multiply, (ones, ops.zeros((batch, blocks, 1, 1))), (rest, exists))
    first = (x[:, :1], ops.zeros((batch, 1, 1)))
    (alpha, log_scale), _ = ops.scan(join, first, ops.moveaxis(products, 1, 0))
    taken = ops.sum(top, axis=(1, 2)) + steps * best + ops.sum(scales, axis=(1, 2, 3)) + log_scale[:, 0, 0]
    return taken + ops.log(ops.sum(alpha, axis=(1, 2)))


def scan_times(length: int, tags: int, *, batch: int = 8, mode: str = "xla", repeats: int = 9) -> dict[str, Any]:
    """Seconds of log Z alone: one recursion after the other, and by blocks.

    Args:
        length: as in :func:`loss_times`.
        tags: as in :func:`loss_times`.
        batch: as in :func:`loss_times`.
        mode: as in :func:`compiled`.
        repeats: as in :func:`loss_times`.

    Returns:
        As :func:`loss_times`, for "scan" and "blocked".

    Example:
        >>> sorted(scan_times(8, 3, repeats=6)["samples"])
        ['blocked', 'scan']
    """
    f, g, _ = _random_chain(batch, length, tags)

    def contestant(log_z: Callable[..., Any]) -> Callable[[], Any]:
        run = compiled(log_z, mode)
        return lambda: run(f, g)

    return _samples(
        {"scan": contestant(chain.log_partition), "blocked": contestant(blocked_log_partition)}, repeats
    )


def contest_of(row: dict[str, Any]) -> measure.Contest:
    """The contest behind a row of a record, or behind the result of :func:`loss_times` and its like.

    Example:
        >>> print(contest_of({"samples": {"crf": [0.25] * 6, "memm": [0.125] * 6}}).ratio("crf", "memm"))
        2
    """
    return measure.Contest({name: measure.Timing(tuple(samples)) for name, samples in row["samples"].items()})


# --- large tag sets ---------------------------------------------------------------------------------------

#: Who can have large tag sets: transitions in factors of 64 columns, or one number for each pair of tags.
LARGE = ("memm, low rank", "memm", "crf")


def large_step(
    model: str, tags: int, *, rank: int = 64, width: int = 64, batch: int = 8, length: int = 32
) -> Callable[[], Any]:
    """A training step with many tags: emissions are linear in given states, the optimizer is SGD.

    Args:
        model: of :data:`LARGE`, or "softmax".
        tags: |V|.
        rank: columns of the factors.
        width: of the states.
        batch: sentences.
        length: tokens a sentence.

    Returns:
        The step; its attribute ``parameters`` counts the numbers that stand for the transitions.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> step = large_step("memm, low rank", 1000, rank=8)
        >>> step.parameters
        16000
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, length, width)).astype("float32")
    y = rng.integers(0, tags, (batch, length)).astype("int32")
    head = MEMM(tags, rank=rank, direction="forward") if model == "memm, low rank" else head_of(model, tags)
    tagger = Tagger(keras.layers.Dense(tags), head)
    tagger.compile(keras.optimizers.SGD(0.1), jit_compile=keras.backend.backend() == "jax")
    tagger.build(x.shape)

    def step() -> Any:
        return tagger.train_on_batch(x, y)

    step.parameters = head.count_params()
    return step


def large_cost(
    model: str, tags: int, *, rank: int = 64, width: int = 64, batch: int = 8, length: int = 32, repeats: int = 5
) -> dict[str, Any]:
    """Parameters, peak memory and seconds of :func:`large_step`.

    Args:
        model: as in :func:`large_step`.
        tags: as in :func:`large_step`.
        rank: as in :func:`large_step`.
        width: as in :func:`large_step`.
        batch: as in :func:`large_step`.
        length: as in :func:`large_step`.
        repeats: steps that are timed.

    Returns:
        "parameters" of the transitions; "bytes", the peak of a step beyond the weights, measured in a process of
        its own, and "method"; "seconds", the samples. On a CPU TensorFlow does not count blocks below a mebibyte
        or so: the bytes of some hundred tags can be 0.

    Raises:
        MemoryError: the memory does not suffice, which a sweep records.
        ValueError: as :func:`large_step`.
    """
    sizes = {"rank": rank, "width": width, "batch": batch, "length": length}
    # By name: run as a command, this module is called __main__, where another process does not find it.
    builder = "lib.experiments.memm:large_step"
    peak = measure.peak_memory_in_fresh_process(builder, model=model, tags=tags, **sizes)
    step = large_step(model, tags, **sizes)
    seconds = measure.time_of(step, repeats=repeats, warmup=1).samples
    return {"parameters": step.parameters, "bytes": peak.bytes, "method": peak.method, "seconds": list(seconds)}


# --- words and names --------------------------------------------------------------------------------------

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
        counted = _counted(*corpus.train, len(corpus.vocabulary), len(corpus.alphabet))
        predicted, _ = counted.decode(corpus.test.characters, corpus.test.characters != 0)
        found = labelling.scores(ops.convert_to_numpy(predicted), corpus.test, corpus.alphabet)
        return found | {"seconds": time.perf_counter() - start}
    keras.utils.set_random_seed(seed)
    head = head_of(model, len(corpus.alphabet), multiplier)
    tagger = labelling.tagger_of(ENCODERS[encoder](corpus), head, rate)
    loss = labelling.train(tagger, corpus.train, epochs=epochs, batch=batch, seed=seed)
    seconds = time.perf_counter() - start
    return labelling.evaluate(tagger, corpus.test, corpus.alphabet) | {"loss": loss, "seconds": seconds}


@lru_cache(maxsize=2)
def _corpus(task: str, train: int, test: int, longest: int) -> labelling.Corpus:
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return TASKS[task](train=train, dev=1, test=test, longest=longest)


# --- what is recorded -------------------------------------------------------------------------------------

SEEDS = (1, 2, 3, 4, 5)
#: Sizes of :func:`compare`, and its encoders with their rates: a pretrained one takes small steps, its transitions
#: the same as ever.
CORPORA = {
    "cpu": {"train": 8000, "test": 2000, "longest": 40, "epochs": 2},
    "gpu": {"train": 60_000, "test": 10_000, "longest": 128, "epochs": 3},
}
COMPARED: dict[str, dict[str, dict[str, float]]] = {
    "cpu": {"one character": {}, "three characters": {}, "seven characters": {}},
    "gpu": {
        "seven characters": {},
        "two blocks": {"rate": 1e-4, "multiplier": 100.0},
        "twelve blocks": {"rate": 5e-5, "multiplier": 200.0},
    },
}
#: Lengths and numbers of tags of :func:`loss_times` and :func:`decoding_times`.
SHAPES = {
    "cpu": [(length, 8) for length in (32, 128, 512, 2048, 4096)] + [(256, tags) for tags in (4, 16, 64)],
    "gpu": [(length, 8) for length in (32, 128, 512, 2048, 8192)] + [(256, tags) for tags in (4, 16, 64, 256)],
}
#: Lengths and numbers of tags of :func:`scan_times`.
SCANS = {
    "cpu": [(length, tags) for tags in (4, 8, 32) for length in (64, 256, 1024, 4096)],
    "gpu": [(length, tags) for tags in (4, 8, 32) for length in (64, 256, 1024, 4096, 16_384)],
}
#: Blocks, tokens and mode of :func:`step_times`. On a CPU twelve blocks take XLA minutes to compile.
DEPTHS = {
    "cpu": [
        *((2, length, mode) for length in (64, 256) for mode in MODES),
        *((12, length, "graph") for length in (64, 256)),
    ],
    "gpu": [(layers, length, mode) for layers in (2, 12) for length in (128, 512) for mode in MODES],
}
#: Width and sentences of a step of :func:`step_times`.
STEPS = {"cpu": {"width": 128, "batch": 8}, "gpu": {"width": 768, "batch": 32}}
#: Tags of :func:`large_cost`, and its other sizes.
TAG_SETS = {"cpu": (100, 300, 1000, 3000, 10_000, 20_000), "gpu": (1000, 3000, 10_000, 20_000, 50_000, 100_000)}
#: The largest set with one number for each pair of tags: its square times 4 bytes, several times over.
MOST_FULL = {"cpu": 10_000, "gpu": 50_000}
LARGE_STEPS = {"cpu": {"batch": 8, "length": 32, "repeats": 3}, "gpu": {"batch": 32, "length": 128, "repeats": 10}}


def record_models(scale: str) -> records.Record:
    """F1 of the five models on segmentation and entities, three encoders, five seeds."""
    sizes = CORPORA[scale]
    cases = [
        {"task": task, "encoder": encoder, "model": model, "seed": seed, **sizes, **rates}
        for seed in SEEDS
        for task in TASKS
        for encoder, rates in COMPARED[scale].items()
        for model in MODELS
    ]
    cases += [{"task": task, "encoder": "counts", "model": "hmm", "seed": 0, **sizes} for task in TASKS]
    return records.sweep(CHAPTER, "models", compare, cases, scale=scale)


def record_ribrob(scale: str) -> records.Record:
    """Errors of the trained models on rib and rob, and of the MEMM as it trains on, ten seeds."""
    trained = [(model, ahead, 1000) for model, ahead in RIB_ROB] + [("memm", 0, steps) for steps in RIB_ROB_STEPS]
    cases = [
        {"model": model, "look_ahead": ahead, "seed": seed, "steps": steps}
        for seed in RIB_ROB_SEEDS
        for model, ahead, steps in trained
    ]
    return records.sweep(CHAPTER, "ribrob", trained_rates, cases, scale=scale)


def record_speed(scale: str) -> records.Record:
    """Seconds of the losses and the decoders against length and number of tags."""

    def measured(what: str, **case: Any) -> dict[str, Any]:
        return loss_times(**case) if what == "loss" else decoding_times(**case)

    cases = [
        {"what": what, "length": length, "tags": tags, "mode": mode}
        for what in ("loss", "decoding")
        for length, tags in SHAPES[scale]
        for mode in _modes()
    ]
    return records.sweep(CHAPTER, "speed", measured, cases, scale=scale)


def record_scan(scale: str) -> records.Record:
    """Seconds of log Z step by step and by blocks."""
    cases = [{"length": length, "tags": tags, "mode": mode} for length, tags in SCANS[scale] for mode in _modes()]
    return records.sweep(CHAPTER, "scan", scan_times, cases, scale=scale)


def record_steps(scale: str) -> records.Record:
    """Seconds of a training step with a transformer of 2 and of 12 blocks as the encoder."""
    cases = [
        {"layers": layers, "length": length, "mode": mode, **STEPS[scale]}
        for layers, length, mode in DEPTHS[scale]
        if mode in _modes()
    ]
    return records.sweep(CHAPTER, "steps", step_times, cases, scale=scale)


def record_tags(scale: str) -> records.Record:
    """Parameters, peak memory and seconds of a step against the number of tags; the full ones end earlier."""
    cases = [
        {"model": model, "tags": tags, **LARGE_STEPS[scale]}
        for tags in TAG_SETS[scale]
        for model in LARGE
        if model == LARGE[0] or tags <= MOST_FULL[scale]
    ]
    return records.sweep(CHAPTER, "tags", large_cost, cases, scale=scale)


def _modes() -> tuple[str, ...]:
    """The modes that differ on this backend."""
    return MODES if keras.backend.backend() == "tensorflow" else ("xla",)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: ``python -m lib.experiments.memm --scale cpu``."""
    experiments = {
        "models": record_models,
        "ribrob": record_ribrob,
        "speed": record_speed,
        "scan": record_scan,
        "steps": record_steps,
        "tags": record_tags,
    }
    return records.main(CHAPTER, experiments, argv)


if __name__ == "__main__":
    sys.exit(main())
