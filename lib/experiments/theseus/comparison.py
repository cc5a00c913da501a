"""How two classifiers are compared that were run on the same items.

Right answers are 1 and wrong ones 0. Two classifiers agree on most items, so the differences of their answers vary
much less than the answers do: tests and intervals here are paired.

* :func:`mcnemar`: is one of two classifiers better than the other?
* :func:`paired_bootstrap`: how much better is a way to train, over seeds and items?
* :func:`retained`: which share of a teacher's accuracy does a student keep?
* :func:`kl_divergence`, :func:`linear_cka`: how near are their predictions, and what they compute on the way?
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from scipy.stats import binomtest

from lib.workbench.measure import Estimate

Array = NDArray[Any]

_WEIGHTS_AT_ONCE = 1 << 22


# --- answers in a record ----------------------------------------------------------------------------------


def pack(bits: ArrayLike) -> str:
    """Binary answers as hexadecimal text, two letters for eight of them, as a record keeps them.

    Args:
        bits: bool or 0 and 1, shape (items,).

    Raises:
        ValueError: not a vector, or another value than 0 and 1.

    Example:
        >>> pack([1, 0, 1, 0, 0, 0, 0, 0, 1])
        'a080'
    """
    return np.packbits(_checked_bits("bits", bits)).tobytes().hex()


def unpack(text: str, count: int) -> NDArray[np.bool_]:
    """The answers that :func:`pack` wrote.

    Args:
        text: hexadecimal.
        count: number of answers, which the text does not tell.

    Returns:
        Answers, bool, shape (count,).

    Raises:
        ValueError: the text is not that of so many answers.

    Example:
        >>> unpack("a080", 9).astype(int)
        array([1, 0, 1, 0, 0, 0, 0, 0, 1])
    """
    packed = np.frombuffer(bytes.fromhex(text), np.uint8)
    if count < 0 or len(packed) != -(-count // 8):
        raise ValueError(f"count: got {count}; {len(text)} hexadecimal digits hold {8 * len(packed)} bits")
    return np.unpackbits(packed, count=count).astype(bool)


# --- is it better, and by how much? -----------------------------------------------------------------------


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """McNemar's exact test that two classifiers are right equally often.

    Only the items count on which just one of them is right. If they are equally good, each of these n items falls
    to a or b like a coin, so that the number which falls to a follows Binomial(n, ½).

    Args:
        correct_a: whether a is right, bool or 0 and 1, shape (items,).
        correct_b: likewise, on the same items.

    Returns:
        Two-sided p-value, in (0, 1]; 1 if both are right on the same items.

    Raises:
        ValueError: other values than 0 and 1, or different shapes.

    Source:
        McNemar 1947, Psychometrika 12 (2); in its exact form.

    Example:
        >>> mcnemar([1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1, 1])  # 5 to 1: 2 (1 + 6) / 2⁶
        0.21875
    """
    a, b = _checked_bits("correct_a", correct_a), _checked_bits("correct_b", correct_b)
    if a.shape != b.shape:
        raise ValueError(f"correct_b: got shape {b.shape}; expected that of correct_a, {a.shape}")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def paired_bootstrap(
    differences_by_seed: ArrayLike, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """The mean difference of accuracy, with an interval for other seeds and other items.

    Seeds and items are drawn anew, each from those at hand and with replacement; all drawn items are answered by
    all drawn seeds. The interval lies between percentiles of the means of such draws. Of one seed only items are
    drawn, and the interval says nothing about other seeds.

    Args:
        differences_by_seed: right answers of a less those of b, −1, 0 or 1, shape (seeds, items).
        resamples: number of draws.
        seed: of the draws.
        confidence: probability that the interval should have to cover the difference, in (0, 1).

    Returns:
        Mean and interval. With few seeds that differ much the interval is too short: draws of n seeds vary by
        (n − 1)/n of the variance of n new ones.

    Raises:
        ValueError: not a matrix of finite numbers, no resamples, or a confidence outside (0, 1).

    Source:
        Efron 1979; both factors of a crossed design at once: the pigeonhole bootstrap of Owen 2007, Annals of
        Applied Statistics 1 (2), whose variance is otherwise too large rather than too small.

    Example:
        >>> print(paired_bootstrap([[1, 0, 0, 1, 0, 0, 1, 0], [0, 0, 1, 1, -1, 0, 1, 0]]))
        0.3 [-0.1, 0.7]
    """
    differences = _checked_answers("differences_by_seed", differences_by_seed)
    (means,) = _resampled_means([differences], resamples, seed)
    return _percentiles(differences.mean(), means, confidence)


def retained(
    correct_student: ArrayLike,
    correct_teacher: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """The share of a teacher's accuracy that its student keeps, with an interval as in :func:`paired_bootstrap`.

    Args:
        correct_student: right answers, 0 or 1, shape (seeds, items).
        correct_teacher: those of the teacher of each student, likewise.
        resamples: number of draws.
        seed: of the draws.
        confidence: in (0, 1).

    Returns:
        Accuracy of the students over that of the teachers.

    Raises:
        ValueError: as :func:`paired_bootstrap`; different shapes; or teachers that are never right.

    Example:
        >>> teacher = np.arange(1000) % 10 > 0
        >>> print(retained([teacher & (np.arange(1000) % 11 > 0)], [teacher]))
        0.910 [0.890, 0.929]
    """
    student = _checked_answers("correct_student", correct_student)
    teacher = _checked_answers("correct_teacher", correct_teacher)
    if student.shape != teacher.shape:
        raise ValueError(f"correct_teacher: got shape {teacher.shape}; expected the student's, {student.shape}")
    students, teachers = _resampled_means([student, teacher], resamples, seed)
    if not np.all(teachers > 0):
        raise ValueError("correct_teacher: some draws hold no right answer; expected more of them")
    return _percentiles(student.mean() / teacher.mean(), students / teachers, confidence)


def _resampled_means(answers: list[Array], resamples: int, seed: int) -> list[Array]:
    """The mean of each matrix (seeds, items) in each draw: uᵀXv, where u and v count how often each was drawn."""
    if resamples < 1:
        raise ValueError(f"resamples: got {resamples}; expected at least 1")
    generator = np.random.default_rng(seed)
    seeds, items = answers[0].shape
    means: list[list[Array]] = [[] for _ in answers]
    batch = max(1, _WEIGHTS_AT_ONCE // items)
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        u = generator.multinomial(seeds, np.full(seeds, 1 / seeds), count) / seeds
        v = generator.multinomial(items, np.full(items, 1 / items), count) / items
        for found, x in zip(means, answers, strict=True):
            found.append(np.sum((v @ x.T) * u, axis=1))
    return [np.concatenate(found) for found in means]


def _percentiles(value: float, draws: Array, confidence: float) -> Estimate:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence!r}; expected a number in (0, 1)")
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Rounding, or very few draws, must not leave the value outside.
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


# --- how near? --------------------------------------------------------------------------------------------


def kl_divergence(teacher_logits: ArrayLike, student_logits: ArrayLike) -> float:
    """The mean Kullback-Leibler divergence of a student's predictions from its teacher's, Σ p log(p/q).

    Args:
        teacher_logits: of p, any numbers, shape (items, classes).
        student_logits: of q, likewise.

    Returns:
        Mean over the items in nats, at least 0 (up to rounding), and 0 for equal predictions.

    Raises:
        ValueError: not two matrices of one shape.

    Example:
        >>> f"{kl_divergence([[0.0, 0.0]], [[0.0, np.log(3)]]):.4f} = {np.log(2 / np.sqrt(3)):.4f}"
        '0.1438 = 0.1438'
    """
    teacher, student = _checked_pair("teacher_logits", teacher_logits, "student_logits", student_logits)
    if teacher.shape != student.shape:
        raise ValueError(f"student_logits: got shape {student.shape}; expected the teacher's, {teacher.shape}")
    log_p, log_q = log_softmax(teacher, axis=-1), log_softmax(student, axis=-1)
    return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)))


def linear_cka(X: ArrayLike, Y: ArrayLike) -> float:
    """Linear centred kernel alignment: how alike two layers arrange the same items.

    With centred features, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms. It does not change if either is rotated,
    mirrored, shifted or scaled as a whole; it does if single directions are scaled.

    Args:
        X: what one layer makes of the items, shape (items, features).
        Y: what another one makes of them, shape (items, other features).

    Returns:
        In [0, 1]: 1 for equal arrangements, 0 for features without any linear relation.

    Raises:
        ValueError: not two matrices with as many items, or features that do not vary.

    Source:
        Kornblith et al. 2019 (arXiv 1905.00414), section 3, by products of features with features.

    Example:
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> f"{linear_cka(X, 3 * X[:, ::-1] + 1):.3f}"
        '1.000'
    """
    X, Y = _checked_pair("X", X, "Y", Y)
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    size_x, size_y = np.linalg.norm(X.T @ X), np.linalg.norm(Y.T @ Y)
    if size_x == 0 or size_y == 0:
        raise ValueError(f"{'X' if size_x == 0 else 'Y'}: got the same features for all items; they must vary")
    return float(np.linalg.norm(Y.T @ X) ** 2 / (size_x * size_y))


# --- checks -----------------------------------------------------------------------------------------------


def _checked_bits(name: str, bits: ArrayLike) -> NDArray[np.bool_]:
    x = np.asarray(bits)
    if x.ndim != 1 or not np.isin(x, (0, 1)).all():
        raise ValueError(f"{name}: got {bits!r}; expected a vector of 0 and 1")
    return x.astype(bool)


def _checked_answers(name: str, answers: ArrayLike) -> Array:
    x = np.asarray(answers, "float64")
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"{name}: got shape {x.shape}; expected finite numbers of shape (seeds, items)")
    return x


def _checked_pair(name_x: str, x: ArrayLike, name_y: str, y: ArrayLike) -> tuple[Array, Array]:
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not x.size:
        raise ValueError(f"{name_x}, {name_y}: got shapes {x.shape}, {y.shape}; expected as many rows, one an item")
    return x, y
