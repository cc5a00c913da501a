"""The exercises of chapter 4: checks, hints and worked solutions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from scipy.special import logsumexp

from lib import crf
from lib.experiments.crf.drawings import f1_of
from lib.workbench import records
from lib.workbench.sheets import Problem, Sheet


def random_chain(steps: int = 6, labels: int = 4, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Emissions (steps, labels) and transitions (labels, labels), standard normal; by default the chapter's.

    Example:
        >>> [part.shape for part in random_chain()]
        [(6, 4), (4, 4)]
    """
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, labels)), rng.normal(size=(labels, labels))


def _all_scores(f: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All paths and their scores, written out as (4.1) says."""
    steps, labels = np.shape(f)
    paths = np.array([*product(range(labels), repeat=steps)])
    total = sum(f[t, paths[:, t]] for t in range(steps))
    return paths, total + sum(g[paths[:, t - 1], paths[:, t]] for t in range(1, steps))


def _ways(characters: int) -> int:
    return 1 if characters < 2 else _ways(characters - 1) + _ways(characters - 2)


def _solve_1() -> float:
    no = -np.inf  # labels s, b, e: a word of one character, the beginning and the end of one of two
    moves = np.array([[0, 0, no], [no, no, 0], [0, 0, no]])
    start, end = np.array([0, 0, no]), np.array([0, no, 0])
    for characters in (1, 2, 3, 4):
        log_z = crf.log_partition(np.zeros((1, characters, 3)), moves, start=start, end=end)
        print(f"{characters} characters: {np.exp(float(log_z[0])):.0f}")
    log_z = crf.log_partition(np.zeros((1, 10, 3)), moves, start=start, end=end)
    print(f"10 characters: {np.exp(float(log_z[0])):.0f}")
    return float(np.exp(float(log_z[0])))


def _schedule() -> np.ndarray:
    """The rates of exercise 4.2, one a step."""
    step = np.arange(1, 3001)
    return 2e-5 * np.minimum(step / 300, (3000 - step) / 2700)


def _solve_2() -> float:
    step = np.arange(1, 3001)
    rate = 2e-5 * np.minimum(step / 300, (3000 - step) / 2700)
    print(f"budget {rate.sum():.4f}, at the peak rate throughout it were {3000 * 2e-5:.4f}")
    print(f"multiplier {3 / rate.sum():.1f}")
    return 3 / rate.sum()


def _is_marginal(marginal: Callable) -> bool:
    f, g = random_chain(4, 3, 1)
    paths, scores = _all_scores(f, g)
    P = np.exp(scores - logsumexp(scores))
    return all(
        abs(float(marginal(f.copy(), g.copy(), t, j)) - P[paths[:, t] == j].sum()) < 1e-4
        for t, j in product(range(4), range(3))
    )


def _solve_3() -> Callable:
    def marginal(f, g, t, j):
        through = f.copy()
        through[t, np.arange(len(g)) != j] = -np.inf
        log_z, log_all = (float(crf.log_partition(scores[None], g)[0]) for scores in (through, f))
        return np.exp(log_z - log_all)

    f, g = random_chain()
    print("by two sums: ", *(f"{marginal(f, g, 2, j):.4f}" for j in range(4)))
    print("the library: ", *(f"{p:.4f}" for p in np.asarray(crf.marginals(f[None], g))[0, 2]))
    return marginal


def _rests_at(place: Callable) -> bool:
    for factor, decay in ((1.0, 0.5), (10.0, 0.5), (10.0, 2.0)):
        stored = 0.0
        for _ in range(4000):
            stored += 0.01 * (1 - decay * stored)  # Adam's step for a gradient of one size and sign is its rate
        if abs(float(place(factor, decay)) - factor * stored) > 1e-3 * factor * stored:
            return False
    return True


def _solve_4() -> Callable:
    def place(factor, decay):
        return factor / decay

    for factor in (1, 100):
        stored, rate, decay = 0.0, 0.01, 0.1
        for _ in range(10_000):
            stored += rate * (1 - decay * stored)
        print(f"λ = {factor}: after 10,000 steps at {factor * stored:.1f}; λ / w = {place(factor, decay):.1f}")
    return place


def _label_by_label(scores: Any) -> bool:
    f, g = (np.asarray(part, float) for part in scores)
    if f.shape[1] ** len(f) > 5000:
        return False
    paths, total = _all_scores(f, g)
    P = np.exp(total - logsumexp(total))
    shares = np.array([[P[paths[:, t] == j].sum() for j in range(f.shape[1])] for t in range(len(f))])
    clear = np.diff(np.sort(shares, axis=1)[:, -2:], axis=1).min() > 0.01
    return bool(clear and P[(paths == shares.argmax(axis=1)).all(axis=1)].sum() < 1e-3)


def _solve_5() -> Any:
    f = np.zeros((2, 3))
    g = np.array([[-20.0, 0, 0], [0, -20, -20], [0, -20, -20]])
    shares = np.asarray(crf.marginals(f[None], g))[0]
    print("shares at both steps:", *(np.round(row, 2).tolist() for row in shares))
    log_p = float(crf.log_likelihood(np.array([[0, 0]]), f[None], g)[0])
    print(f"P(0, 0) = {np.exp(log_p):.0e}".replace("-", "−"))
    return f, g


def _is_best_through(function: Callable) -> bool:
    for seed in range(3):
        f, g = random_chain(5, 3, seed)
        paths, scores = _all_scores(f, g)
        best = [[scores[paths[:, t] == j].max() for j in range(3)] for t in range(5)]
        if not np.allclose(function(f.copy(), g.copy()), best, atol=1e-5):
            return False
    return True


def _solve_6() -> Callable:
    def best_through(f, g):
        ahead, after = [f[0]], [np.zeros(len(g))]
        for emissions in f[1:]:
            ahead.append(emissions + (ahead[-1][:, None] + g).max(axis=0))
        for emissions in f[:0:-1]:
            after.append((g + emissions + after[-1]).max(axis=1))
        return np.array(ahead) + np.array(after[::-1])

    f, g = random_chain()
    best, score = crf.viterbi(f[None], g)
    through = best_through(f, g)
    print("labels of the largest entry of each row:", through.argmax(axis=1))
    print("Viterbi's path:                         ", np.asarray(best)[0])
    print(f"each row's largest entry is {through.max(axis=1).min():.4f}, Viterbi's score {float(score[0]):.4f}")
    return best_through


def _is_variance(function: Callable) -> bool:
    for seed in range(3):
        f, g = random_chain(5, 4, seed)
        paths, scores = _all_scores(f, g)
        P, words = np.exp(scores - logsumexp(scores)), (paths < 2).sum(axis=1)
        if abs(float(function(f.copy(), g.copy())) - (P @ words**2 - (P @ words) ** 2)) > 2e-3:
            return False
    return True


def _solve_7() -> Callable:
    def variance(f, g):
        def log_z(bonus):
            alpha = f[0] + bonus
            for emissions in f[1:]:
                alpha = emissions + bonus + logsumexp(alpha[:, None] + g, axis=0)
            return logsumexp(alpha)

        bonus = 1e-3 * np.array([1, 1, 0, 0])  # each word brings it once, with its first character
        return (log_z(bonus) - 2 * log_z(0 * bonus) + log_z(-bonus)) / 1e-6

    f, g = random_chain()
    paths, scores = _all_scores(f, g)
    P, words = np.exp(scores - logsumexp(scores)), (paths < 2).sum(axis=1)
    print(f"by three sums {variance(f, g):.4f}, from all paths {P @ words**2 - (P @ words) ** 2:.4f}")
    return variance


def _solve_8() -> str:
    record = records.load("04-crf", "finetune", "cpu")
    for encoder in ("convolutional", "recurrent", "transformer"):
        gained = f1_of(record, encoder, 0) - f1_of(record, encoder, None)
        told = ", ".join(f"{x:.2f}" for x in gained).replace("-", "−")
        print(f"{encoder:14} F1 gained by 150 steps with λ = 0: {told}")
    return (
        "Put a temperature, one number that divides all emissions, or the scale of each layer norm, at a value "
        "that it should not have. Fine-tune with multipliers from 1 to 1000, several seeds, all else equal. "
        "Measure how far it has moved over steps × rate × λ, and the score. Null: the score does not depend on the "
        "multiplier; to be told from the gain that the same steps bring anyway, with the number held fixed."
    )


SHEET = Sheet(
    [
        Problem(
            "4.1",
            "easy",
            lambda count: abs(count - _ways(10)) < 0.5,
            "Three labels suffice. Give what is possible the score 0 and what is not −∞; what does a path then add "
            "to Z?",
            "A possible path has the score 0 and adds e⁰ = 1, an impossible one adds nothing, so Z counts. `start` "
            "and `end` say where a sentence may begin and end. The numbers are Fibonacci's.",
            _solve_1,
        ),
        Problem(
            "4.2",
            "easy",
            lambda multiplier: abs(multiplier * _schedule().sum() - 3) < 0.05,
            "A budget is the sum of the rates of all steps.",
            "The rates make a triangle, whose area is half of the rectangle of steps times peak rate. A schedule "
            "halves the budget; so one takes twice the multiplier.",
            _solve_2,
        ),
        Problem(
            "4.3",
            "medium",
            _is_marginal,
            "Forbid all other labels there; a quotient of two sums is a probability.",
            "The paths through label j at step t have a sum of their own: that of a chain in which every other "
            "label of that step scores −∞.",
            _solve_3,
        ),
        Problem(
            "4.4",
            "medium",
            _rests_at,
            "It is the stored number that is trained and decayed. When do its two changes cancel?",
            "The stored number gains the rate in each step and loses rate × w times itself: it rests at 1/w, and "
            "θ at λ/w. A multiplier moves the place where decay holds a weight, too. Usual decays are so small "
            "that the place is far away, and so is the time to get there.",
            _solve_4,
        ),
        Problem(
            "4.5",
            "medium",
            _label_by_label,
            "Two steps and three labels are enough. Let label 0 be likely at both, but never at both together.",
            "Label 0 at the first step goes with 1 or 2 at the second, and the other way round. Each is in half of "
            "the sum, and the two never meet. Labels that are likely one by one need not make a likely path.",
            _solve_5,
        ),
        Problem(
            "4.6",
            "medium",
            _is_best_through,
            "What the marginals do with sums, do with maxima.",
            "The best beginning that ends in a label, plus the best way on from it. In each row the largest entry "
            "is the score of Viterbi's path.",
            _solve_6,
        ),
        Problem(
            "4.7",
            "hard",
            _is_variance,
            "Give each word a bonus. What are the first and the second derivative of log Z by it?",
            "log Z is the generating function of the cumulants: with a bonus ε for every word its first derivative "
            "at 0 is the expected number of words, its second the variance. Three sums give the second.",
            _solve_7,
        ),
        Problem(
            "4.8",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "Whose natural size is much larger than steps × rate? And what would change without the multiplier?",
            "The trap is the control. In this chapter's runs the same 150 steps improved the network even where "
            "the transitions were held at zero; a comparison with the network before those steps would have "
            "credited the multiplier with it.",
            _solve_8,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
