"""The exercises of chapter 7: checks, hints and worked solutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lib.experiments.attention import costs
from lib.workbench import records
from lib.workbench.sheets import Problem, Sheet


def _solve_1() -> int:
    d = 128
    for n in (d, d * d // 2, d * d, 2 * d * d):
        print(f"{n:6,} tokens: {n * d * d:,} numbers of states, {n * n:,} scores")
    return d * d


def _solve_2() -> float:
    gamma = 0.5 ** (1 / 100)
    print(f"γ = {gamma:.5f}; after 200 tokens {gamma**200:.3f} is left, after 300 {gamma**300:.3f}")
    return gamma


def _is_square(phi: Callable) -> bool:
    for d in (2, 5):
        q, k = np.random.default_rng(d).standard_normal((2, 7, d))
        a, b = np.asarray(phi(q.copy())), np.asarray(phi(k.copy()))
        if not np.allclose(np.sum(a * b, axis=1), np.sum(q * k, axis=1) ** 2) or a.shape[1] > d * (d + 1) / 2:
            return False
    return True


def _solve_3() -> Callable:
    def phi(x):
        i, j = np.triu_indices(x.shape[1])
        return x[:, i] * x[:, j] * np.where(i == j, 1, np.sqrt(2))

    print("features of vectors of 2, 5 and 64 entries:", [phi(np.ones((1, d))).shape[1] for d in (2, 5, 64)])
    return phi


def _solve_4() -> tuple[float, float]:
    k, v = np.array([1.2, 1.6]), np.array([1.0, 2.0])  # the key has length 2
    S = np.array([[3.0, 0.0], [0.0, -1.0]])
    for beta in (0.125, 0.25, 0.4, 0.5, 0.6):
        after = S + beta * np.outer(k, v - S.T @ k)
        left = np.linalg.norm(after.T @ k - v) / np.linalg.norm(S.T @ k - v)
        print(f"β = {beta}: {left:.2f} of the error is left")
    return 1 / 4, 2 / 4


def _weights_of_pairs(q: np.ndarray, k: np.ndarray, log_gamma: np.ndarray) -> np.ndarray:
    """What each token reads of each, by the recurrence."""
    n = len(q)
    found = np.zeros((n, n))
    for j in range(n):
        left = k[j].copy()
        for i in range(j, n):
            left = left * (np.exp(log_gamma[i]) if i > j else 1)
            found[i, j] = q[i] @ left
    return found


def _fades_apart(function: Callable) -> bool:
    for strength in (0.1, 1.0, 400.0):
        rng = np.random.default_rng(5)
        q, k = rng.standard_normal((2, 9, 4))
        log_gamma = -strength * rng.uniform(size=(9, 4))
        found = np.asarray(function(q.copy(), k.copy(), log_gamma.copy()))
        if not np.allclose(found, _weights_of_pairs(q, k, log_gamma), atol=1e-9):
            return False
    return True


def _solve_5() -> Callable:
    def pairs(q, k, log_gamma):
        g = np.cumsum(log_gamma, axis=0)
        lower = np.tril(np.ones((len(q), len(q)), bool))[:, :, None]
        D = np.exp(np.where(lower, g[:, None] - g[None], -np.inf))
        return np.einsum("if,ijf,jf->ij", q, D, k)

    q, k, gates = np.ones((3, 1)), np.ones((3, 1)), np.log([[0.5], [0.5], [0.5]])
    print(pairs(q, k, gates).tolist())
    return pairs


def _forgets(answer: Any) -> bool:
    K, V = (np.asarray(part, float) for part in answer)
    if K.shape != (4, 4) or V.shape != (4, 4) or not np.allclose(np.linalg.norm([*K, *V], axis=1), 1):
        return False
    S = np.zeros((4, 4))
    for k, v in zip(K, V, strict=True):
        S = S + np.outer(k, v - S.T @ k)
    added, rewritten = (np.argmax(K @ state @ V.T, axis=1) for state in (K.T @ V, S))
    return bool(np.all(added == np.arange(4)) and rewritten[0] != 0)


def _solve_6() -> Any:
    V = np.eye(4)
    K = np.eye(4)
    K[1] = [0.9, np.sqrt(1 - 0.9**2), 0, 0]
    S = np.zeros((4, 4))
    for k, v in zip(K, V, strict=True):
        S = S + np.outer(k, v - S.T @ k)
    print("under the first key stands, by the sum:       ", (K[0] @ (K.T @ V)).round(2).tolist())
    print("under the first key stands, by the delta rule:", (K[0] @ S).round(2).tolist())
    return K, V


def _solve_7() -> str:
    record = records.load("07-attention", "layers", "cpu")
    for row in record.where(backward=True):
        value, low, high = row["speedup"]["softmax"]
        counted = costs.layer_flops(row["n"]) / costs.layer_flops(row["n"], "linear")
        print(f"{row['n']:5,} tokens: measured {value:.2f} [{low:.2f}, {high:.2f}], operations {counted:.2f}")
    return (
        "Vary the number of heads at a fixed width, so that d changes and the projections do not. Predict from "
        "operations at which length a layer gains a tenth, measure it forward and backward in turns, over several "
        "processes, and compare slopes. Null: measured and predicted lengths agree within a factor of 1.2."
    )


SHEET = Sheet(
    [
        Problem(
            "7.1",
            "easy",
            lambda n: abs(float(n) - 128**2) < 1,
            "Write both numbers down for n tokens and compare.",
            "A state has d² numbers and there are n of them; there are n² scores. The first is the smaller number "
            "as soon as n passes d². With heads of 64 that is at 4,096 tokens, with heads of 128 at four times as "
            "many.",
            _solve_1,
        ),
        Problem(
            "7.2",
            "easy",
            lambda gamma: abs(float(gamma) ** 100 - 0.5) < 1e-3,
            "Each token multiplies what is left by the same number.",
            "A hundred equal factors make one half, so one factor is the hundredth root. The gates of a trained "
            "model lie close to 1 for this reason, and are learnt through a sigmoid with a large bias.",
            _solve_2,
        ),
        Problem(
            "7.3",
            "medium",
            _is_square,
            "A square of a sum has the squares, and each product of two different entries twice.",
            "The products of two entries i ≤ j, those with i < j times the root of 2, since they occur twice. A "
            "head of 64 has 2,080 of them, and a state 32 times as tall.",
            _solve_3,
        ),
        Problem(
            "7.4",
            "medium",
            lambda answer: np.shape(answer) == (2,) and np.allclose(answer, (1 / 4, 1 / 2), atol=1e-3),
            "Multiply (7.11) by the key: what the state answers afterwards is what it answered before, and more.",
            "The error S.T @ k − v is multiplied by 1 − β ‖k‖². That is 0 at β = 1/‖k‖², and −1 at twice that β; "
            "beyond, each visit makes the error larger. Keys of length one and β below 1 are always safe, "
            "and DeltaNet normalizes its keys.",
            _solve_4,
        ),
        Problem(
            "7.5",
            "hard",
            _fades_apart,
            "Sums of logarithms up to each token; their differences, not their exponentials, are small.",
            "The γ between token j and token i is the exponential of a difference of running sums. Taken feature "
            "by feature for all pairs, no exponent is above 0. Splitting it into a factor of q and one of k would "
            "be a plain product of matrices, and overflows for strong gates.",
            _solve_5,
        ),
        Problem(
            "7.6",
            "hard",
            _forgets,
            "Two keys that are nearly the same. Who comes later?",
            "Under a key close to the first one, the delta rule writes its own value and takes away most of what "
            "stood there. A sum blurs both, and the nearer value still wins.",
            _solve_6,
        ),
        Problem(
            "7.7",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "Change one number of the layer at a time, and predict before you measure.",
            "Claim 7.7 counts products of matrices and compares seconds. What a count leaves out, memory that is "
            "moved and kernels of unequal speed, depends on the size of a head. The numbers are those of the "
            "claim.",
            _solve_7,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
