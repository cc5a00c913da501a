"""One random matrix: how orthogonal is it, and does it keep the length of a vector?

Matrices are the article's: y = Wx, with W of shape (m, n), n inputs, m outputs, and entries of variance 1/m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lib.initializers import Orthogonal, Scaled
from lib.workbench import records

CHAPTER = "02-initializers"
Array = NDArray[np.float64]


def draw_matrices(
    count: int, m: int, n: int, law: str = "normal", gain: float | str = 1.0, seed: Any = 0
) -> NDArray[np.float32]:
    """Independent random matrices W: of entries of variance gain²/m, orthogonal or mirrored ones times the gain.

    Args:
        count: number of matrices.
        m: rows, the outputs.
        n: columns, the inputs.
        law: a law of :class:`lib.initializers.Scaled`; "orthogonal"; or "mirrored", the matrix (O, −O; −O, O)/√2
            of an orthogonal O of half the size, with which a ReLU network of gain √2 is linear at the start.
        gain: factor, or the name of an activation, which stands for its gain.
        seed: integer or ``keras.random.SeedGenerator``.

    Returns:
        Matrices, float32, shape (count, m, n).

    Raises:
        ValueError: a law, gain or size that the initializers refuse, or a mirrored matrix of no even size.

    Source: Balduzzi et al. 2017 (arXiv 1702.08591) for mirrored matrices.

    Example:
        >>> W = draw_matrices(2, 3, 5, law="orthogonal")
        >>> W.shape, np.allclose(W[0] @ W[0].T, np.eye(3), atol=1e-5)
        ((2, 3, 5), True)
    """
    if law == "mirrored":
        if m != n or m % 2:
            raise ValueError(f"m and n must be one even number for law 'mirrored', got {m} and {n}")
        half = draw_matrices(count, m // 2, m // 2, "orthogonal", gain, seed) / np.sqrt(np.float32(2))
        return np.block([[half, -half], [-half, half]])
    if law == "orthogonal":
        initializer = Orthogonal(gain, keras.random.SeedGenerator(seed) if isinstance(seed, int) else seed)
        kernels = np.stack([ops.convert_to_numpy(initializer((n, m))) for _ in range(count)])
    else:  # the variance does not depend on the number of rows of a kernel: one draw serves them all
        kernels = ops.convert_to_numpy(Scaled("fan_out", law, gain, seed)((count * n, m))).reshape(count, n, m)
    return kernels.transpose(0, 2, 1)


def closeness(m: int, n: int, law: str = "normal", seeds: Sequence[int] = range(5)) -> dict[str, Array]:
    """How far WᵀW is from I, entry by entry and as an operator, for W of shape (m, n).

    Args:
        m: rows, the outputs.
        n: columns, the inputs.
        law: as in :func:`draw_matrices`.
        seeds: one matrix is drawn for each.

    Returns:
        Arrays of shape (seeds,): "mse", the mean square of an entry of WᵀW − I; "diagonal", that of an entry on its
        diagonal; "frobenius" and "operator", its norms; "smallest" and "largest", of the min(m, n) singular
        values of W.

    Raises:
        ValueError: as :func:`draw_matrices`.

    Example:
        >>> n = 100
        >>> mse = closeness(n, n)["mse"].mean()
        >>> print(f"measured {mse:.4f}, expected {1 / n + 1 / n**2:.4f}")
        measured 0.0101, expected 0.0101
    """
    rows = []
    for seed in seeds:
        W = draw_matrices(1, m, n, law, seed=seed)[0].astype(np.float64)
        deviations = np.zeros(n) - 1  # eigenvalues of WᵀW − I; those of the null space are −1
        singular_values = np.linalg.svd(W, compute_uv=False)
        deviations[: min(m, n)] += singular_values**2
        rows.append(
            {
                "mse": np.sum(deviations**2) / n**2,
                "diagonal": np.mean((np.sum(W**2, axis=0) - 1) ** 2),
                "frobenius": np.sqrt(np.sum(deviations**2)),
                "operator": np.abs(deviations).max(),
                "smallest": singular_values[-1],
                "largest": singular_values[0],
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


# --- what is recorded ---------------------------------------------------------------------------------------------

SQUARE, OBLONG = (100, 200, 500, 1000, 2000), ((2000, 500), (4000, 100), (500, 2000))


def record_matrices(scale: str) -> records.Record:
    """Distance of WᵀW from I for matrices of up to 2000 columns, three laws and five seeds."""
    cases = [{"m": n, "n": n, "law": law} for n in SQUARE for law in ("normal", "uniform", "rademacher")]
    cases += [{"m": m, "n": n, "law": "normal"} for m, n in OBLONG]
    return records.sweep(CHAPTER, "matrices", closeness, cases, scale=scale)
