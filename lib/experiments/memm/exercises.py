"""The exercises of chapter 5: checks, hints and worked solutions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from scipy.special import logsumexp

from lib import chain, memm
from lib.workbench import records
from lib.workbench.sheets import Problem, Sheet


def random_chain(steps: int = 5, labels: int = 4, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Emissions (steps, labels) and transitions (labels, labels), standard normal; by default the chapter's.

    Example:
        >>> [part.shape for part in random_chain()]
        [(5, 4), (4, 4)]
    """
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, labels)), rng.normal(size=(labels, labels))


def _all_scores(f: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All paths; their s, log P→ and log P←, step by step as (5.1), (5.3) and (5.5) say."""
    steps, labels = np.shape(f)
    paths = np.array([*product(range(labels), repeat=steps)])
    total = sum(f[t, paths[:, t]] for t in range(steps))
    total = total + sum(g[paths[:, t - 1], paths[:, t]] for t in range(1, steps))
    forward = logsumexp(f[0]) + sum(logsumexp(g + f[t], axis=1)[paths[:, t - 1]] for t in range(1, steps))
    backward = logsumexp(f[-1]) + sum(
        logsumexp(g + f[t][:, None], axis=0)[paths[:, t + 1]] for t in range(steps - 1)
    )
    return paths, total, total - forward, total - backward


def _bayes_error(vowels: int, noise: float) -> float:
    """The share of words that the best reader misreads, by what the vowels can become."""
    as_first, as_second = ([1 - noise if k == own else noise / 3 for k in range(4)] for own in (0, 1))
    return 0.5 * sum(
        min(np.prod([as_first[k] for k in seen]), np.prod([as_second[k] for k in seen]))
        for seen in product(range(4), repeat=vowels)
    )


def _solve_1() -> float:
    own, other = 1 / 2, 1 / 6
    misread = other + 2 * other / 2  # the other vowel, and half of the two consonants
    print(f"misread {misread:.4f}; a coin misreads 0.5, and own letters arrive {own / other:.0f} times as often")
    return misread


def _steers(offsets: Any) -> bool:
    f, g = random_chain()
    offsets = np.asarray(offsets, float)
    if offsets.shape != (4,):
        return False
    paths, total, *_ = _all_scores(f, g + offsets[:, None])
    return bool(np.all(paths[total.argmax()][:-1] == 0))


def _solve_2() -> list[float]:
    f, g = random_chain()
    offsets = [100.0, 0.0, 0.0, 0.0]
    steered = g + np.array(offsets)[:, None]
    for name, scores in (("g", g), ("g + d", steered)):
        bare, _ = chain.viterbi(f[None], scores)
        own, _ = memm.viterbi(f[None], scores)
        print(f"{name:6} f + g finds {np.asarray(bare)[0]}, the MEMM's own decoder {np.asarray(own)[0]}")
    return offsets


def _is_charge(charge: Callable) -> bool:
    for seed in range(3):
        f, g = random_chain(4, 3, seed)
        charged = _all_scores(np.asarray(charge(f.copy(), g.copy())), g)[1]
        if np.ptp(charged - _all_scores(f, g)[2]) > 1e-6:
            return False
    return True


def _solve_3() -> Callable:
    def charge(f, g):
        ways_out = [logsumexp(g + following, axis=1) for following in f[1:]]
        return f - np.vstack([*ways_out, np.zeros(len(g))])

    f, g = random_chain()
    theirs = memm.potentials(f[None], g)
    own, _ = chain.viterbi(charge(f, g)[None], g)
    found, _ = chain.viterbi(theirs.emissions, theirs.transitions)
    print(f"best path by this charge {np.asarray(own)[0]}, by the library's {np.asarray(found)[0]}")
    return charge


def _disagrees(scores: Any) -> bool:
    f, g = (np.asarray(part, float) for part in scores)
    if len(f) < 3 or f.shape[1] ** len(f) > 5000:
        return False
    paths, total, forward, _ = _all_scores(f, g)
    clear = all(np.diff(np.sort(kind)[-2:])[0] > 1e-6 for kind in (total, forward))
    return bool(clear and np.all(paths[total.argmax()] != paths[forward.argmax()]))


def _solve_4() -> Any:
    f = np.array([[0.1, 0.0], [0.1, 0.0], [0.1, 0.0]])
    g = np.array([[0.0, 0.0], [5.0, 5.2]])  # the second row begins with a number that the model does not see
    own, bare = memm.viterbi(f[None], g)[0], chain.viterbi(f[None], g)[0]
    print(f"its own decoder {np.asarray(own)[0]}, f + g {np.asarray(bare)[0]}")
    return f, g


def _is_overlap(function: Callable) -> bool:
    for steps, labels, seed in ((3, 2, 0), (4, 3, 1), (5, 2, 2)):
        f, g = random_chain(steps, labels, seed)
        _, _, forward, backward = _all_scores(f, g)
        if abs(float(function(f.copy(), g.copy())) - np.exp((forward + backward) / 2).sum()) > 1e-4:
            return False
    return True


def _solve_5() -> Callable:
    def overlap(f, g):
        both = memm.potentials(f[None], g, direction="both")
        return np.exp(float(chain.log_partition(both.emissions, both.transitions)[0]))

    f, g = random_chain()
    print(f"the sum is {overlap(f, g):.4f}; without transitions {overlap(f, 0 * g):.4f}")
    return overlap


def _is_gradient(gradient: Callable) -> bool:
    for seed in range(3):
        f, g = random_chain(4, 3, seed)
        paths, *_ = _all_scores(f, g)
        place = (7 + 20 * seed) % len(paths)
        slope = np.zeros_like(g)
        for i, j in product(range(3), repeat=2):
            moved = np.zeros_like(g)
            moved[i, j] = 1e-5
            ends = [_all_scores(f, g + side * moved)[2][place] for side in (1, -1)]
            slope[i, j] = (ends[0] - ends[1]) / 2e-5
        if not np.allclose(gradient(f.copy(), g.copy(), paths[place]), slope, atol=1e-5):
            return False
    return True


def _solve_6() -> Callable:
    def gradient(f, g, y):
        slope = np.zeros_like(g)
        for t in range(1, len(y)):
            scores = g[y[t - 1]] + f[t]
            slope[y[t - 1]] -= np.exp(scores - logsumexp(scores))
            slope[y[t - 1], y[t]] += 1
        return slope

    f, g = random_chain()
    sums = gradient(f, g, np.array([3, 0, 1, 1, 0])).sum(axis=1)
    print("sums of the rows, to six digits:", np.abs(sums).round(6).tolist())
    return gradient


def _solve_7() -> str:
    record = records.load("05-memm", "decoders", "cpu")
    for task, labels in (("segmentation", "s b m e"), ("entities", "O B-PER I-PER B-LOC I-LOC")):
        offsets = np.mean(record.column("offsets", task=task, model="memm"), axis=0)
        told = ", ".join(f"{label} {d:.1f}" for label, d in zip(labels.split(), offsets, strict=True))
        print(f"{task}: d = {told}".replace("-0.", "−0."))
    return (
        "Vary how unlike the rows of g are: merge labels, or forbid moves, so that some labels have one successor "
        "and others five. For each label set train over seeds, decode by f + g and by f + g + d, paired by seed. "
        "Null: the gain of d does not grow with the spread of d."
    )


SHEET = Sheet(
    [
        Problem(
            "5.1",
            "easy",
            lambda share: abs(share - _bayes_error(1, 0.5)) < 2e-3,
            "Only the middle letter counts. What if it is the other vowel, what if it is a consonant?",
            "The own vowel arrives with 1/2, every other letter with 1/6. The other vowel misleads; a consonant "
            "says nothing, and half of the guesses fail.",
            _solve_1,
        ),
        Problem(
            "5.2",
            "easy",
            _steers,
            "Each visit to label i, but for the last step, adds d(i) to the score of a path.",
            "A large number in the row of label 0 rewards every visit to it that is followed by another step. The "
            "softmax of a row does not see it, so the model, and its own decoder, stay what they are.",
            _solve_2,
        ),
        Problem(
            "5.3",
            "medium",
            _is_charge,
            "What does a path pay at step t + 1? It depends on its label at step t alone.",
            "Label i at step t pays for the sum over everything that can follow it. The last step pays nothing, "
            "and `logsumexp` along the rows of g + f gives all labels at once.",
            _solve_3,
        ),
        Problem(
            "5.4",
            "medium",
            _disagrees,
            "Two labels and three steps are enough. Think of Proposition 5.6.",
            "Let f prefer the first label a little, everywhere. A large number in the second row of g makes f + g "
            "stay there, and the model does not see it.",
            _solve_4,
        ),
        Problem(
            "5.5",
            "hard",
            _is_overlap,
            "The mean of both directions is a chain as well: its scores are the ½(log P→ + log P←) of a path.",
            "`memm.potentials` with both directions gives the chain whose scores are ½(log P→ + log P←). The sum "
            "of their exponentials over all paths is its partition function. It is 1 only where P→ = P←: the mean "
            "is no distribution.",
            _solve_5,
        ),
        Problem(
            "5.6",
            "hard",
            _is_gradient,
            "Each step is a cross-entropy: the gradient by its scores is what is, less what was expected.",
            "A step from i to j adds 1 at (i, j) and subtracts P(· | i) from row i. Both sum to 1, so every row of "
            "the gradient sums to 0. Gradient descent leaves the sum of each row where it began: no data can tell "
            "the MEMM what it should be.",
            _solve_6,
        ),
        Problem(
            "5.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "What makes the rows of g unlike? Vary that, and hold all else.",
            "Proposition 5.6 says what the bare decoder reads and the loss does not see. So make the rows of g "
            "more or less alike and watch whether d pays in proportion. The numbers are those of this chapter's "
            "runs: after O anything may begin, and after the labels of names little can follow.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
