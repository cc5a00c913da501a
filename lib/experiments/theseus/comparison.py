"""How two classifiers are compared that were run on the same items.

Right answers are 1 and wrong ones 0. Two classifiers agree on most items, so the differences of their answers vary
much less than the answers do: tests and intervals here are paired.

* :func:`mcnemar`: is one of two classifiers better than the other?
* :func:`kl_divergence`, :func:`linear_cka`: how near are their predictions, and what they compute on the way?
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from scipy.stats import binomtest

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


# --- is it better? -----------------------------------------------------------------------------------------


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


def _checked_pair(name_x: str, x: ArrayLike, name_y: str, y: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not x.size:
        raise ValueError(f"{name_x}, {name_y}: got shapes {x.shape}, {y.shape}; expected as many rows, one an item")
    return x, y
