"""The figures of chapter 2."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lib.experiments.initializers import depth as layers
from lib.experiments.initializers.matrices import draw_matrices
from lib.experiments.initializers.training import CONTESTANTS, SUSPECTS, accuracies
from lib.initializers import activation_gain, marchenko_pastur
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, GRID, INK, PURPLE, SKY, VERMILION
from lib.workbench.records import Record


def lengths(width: int = 256, depth: int = 50) -> Figure:
    """Squared lengths through fifty linear layers, eight networks for each of three variances."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for text, variance, colour, place in (
        ("variance 2/n", 2, VERMILION, (27, 1e12)),
        ("variance 1/n", 1, BLUE, (37, 1e2)),
        ("variance 1/(2n)", 0.5, GREEN, (26, 1e-13)),
    ):
        found = layers.lengths_through_depth(width, depth, gain=math.sqrt(variance), nets=8, seed=1)
        ax.semilogy(np.exp(found.T), color=colour, linestyle="-", linewidth=0.9, alpha=0.7)
        ax.text(*place, text, color=colour, ha="right" if variance == 2 else "left" if variance == 1 else "right")
    ax.set(xlabel="layer", ylabel="squared length", xlim=(0, depth), ylim=(1e-17, 1e17))
    ax.set_yticks([1e-15, 1e-10, 1e-5, 1, 1e5, 1e10, 1e15])
    return figure


def products(sizes: Sequence[int] = (8, 40, 200)) -> list[Figure]:
    """The matrix WᵀW of a square random matrix as an image, a panel a size, on one scale centred on zero."""
    panels = []
    for n in sizes:
        W = draw_matrices(1, n, n, seed=0)[0]
        figure, ax = plt.subplots(figsize=(1.9, 1.9))
        ax.imshow(W.T @ W, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.set(title=f"n = {n}", xticks=[], yticks=[])
        ax.grid(False)
        panels.append(figure)
    return panels


def stretches() -> list[Figure]:
    """What a random matrix does to the unit sphere: a circle in the plane, and 200 random inputs of 300 numbers."""
    turn = np.linspace(0, 2 * np.pi, 400)
    circle = np.stack([np.cos(turn), np.sin(turn)])

    def panel(title: str, edges: Sequence[float], reach: float) -> tuple[Figure, Axes]:
        figure, ax = plt.subplots(figsize=(2.2, 2.4))
        ax.plot(*circle, color=INK, linestyle="--", linewidth=1)
        for edge in edges:
            ax.plot(*(edge * circle), color=VERMILION, linestyle="-", linewidth=1)
        ax.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.axis("off")
        return figure, ax

    panels = []
    W = draw_matrices(1, 2, 2, seed=8)[0].astype(float)
    U, values, _ = np.linalg.svd(W)
    figure, ax = panel("a circle, 2 × 2", (), 2.45)
    ax.plot(*(W @ circle), color=BLUE, linestyle="-")
    for direction, value in zip(U.T, values, strict=True):
        ax.annotate("", value * direction, (0, 0), arrowprops={"arrowstyle": "->", "color": VERMILION, "lw": 1.6})
    panels.append(figure)
    for m, n in ((300, 300), (3000, 300)):
        W = draw_matrices(1, m, n, seed=1)[0].astype(float)
        x = np.random.default_rng(2).standard_normal((n, 200))
        ratio = np.linalg.norm(W @ x, axis=0) / np.linalg.norm(x, axis=0)
        values = np.linalg.svd(W, compute_uv=False)
        figure, ax = panel(f"200 inputs, {m} × {n}", (values[0], values[-1]), 2.45)
        place = np.random.default_rng(3).uniform(0, 2 * np.pi, 200)
        ax.plot(ratio * np.cos(place), ratio * np.sin(place), "o", color=BLUE, markersize=2, alpha=0.7)
        for value, drop in ((values[0], 0.04), (values[-1], -0.36)):
            ax.text(0, value + drop if value > 0.2 else -0.3, f"{value:.2f}", color=VERMILION, ha="center")
        panels.append(figure)
    return panels


def norms(record: Record) -> Figure:
    """Distance of WᵀW from the identity against the size: in an entry, and in the worst direction."""
    rows = [row for row in record.where(law="normal") if row["m"] == row["n"]]
    n = np.array([row["n"] for row in rows])
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for k, row in enumerate(rows):
        ax.loglog([n[k]] * 5, row["operator"], "o", color=VERMILION, markersize=4, alpha=0.6)
        ax.loglog([n[k]] * 5, np.sqrt(row["mse"]), "o", color=BLUE, markersize=4, alpha=0.6)
    ax.axhline(3, color=VERMILION, linestyle="-", linewidth=1)
    ax.loglog(n, np.sqrt(1 / n + 1 / n**2), color=BLUE, linestyle="--", linewidth=1)
    ax.text(130, 3.9, "the worst direction: ‖WᵀW − I‖₂", color=VERMILION)
    ax.text(130, 0.125, "a typical entry, √(1/n + 1/n²)", color=BLUE)
    ax.set(xlabel="size n", ylabel="distance from I", ylim=(0.01, 8))
    return figure


def singular_values(smaller: int = 400) -> Explorable:
    """The singular values of one random matrix and their limit law, from wide to tall."""
    edges = np.arange(0, 3.92, 0.05)

    def sizes(ratio: float) -> tuple[int, int]:
        return round(max(1, ratio) * smaller), round(max(1, 1 / ratio) * smaller)

    def draw(ratio: float) -> list[tuple[NDArray, NDArray]]:
        m, n = sizes(ratio)
        W = draw_matrices(1, m, n, seed=3)[0].astype(float)
        squares = np.linalg.eigvalsh(W @ W.T if m < n else W.T @ W)
        shares, _ = np.histogram(np.sqrt(squares), edges, density=True)
        law = marchenko_pastur(n, m)
        low, high = law.support()
        grid = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, 80)[1:-1])) / 2
        return [(np.repeat(edges, 2)[1:-1], np.repeat(shares, 2)), (grid, law.pdf(grid))]

    def tell(ratio: float) -> str:
        m, n = sizes(ratio)
        low, high = marchenko_pastur(n, m).support()
        if m >= n:
            return f"{m:,} outputs for {n:,} inputs: every input is stretched by {low:.2f} to {high:.2f}."
        return (
            f"{m:,} outputs for {n:,} inputs: {n - m:,} directions are lost, the others are stretched by {low:.2f} "
            f"to {high:.2f}."
        )

    names = {1 / 8: "1/8", 1 / 4: "1/4", 1 / 2: "1/2", 1: "1", 2: "2", 4: "4", 10: "10", 30: "30"}
    return Explorable(
        draw=draw,
        tell=tell,
        controls=[Control("Outputs per input, m/n", [*names], lambda ratio: names[ratio], start=3)],
        curves=[
            Curve("one matrix", SKY, "area", (0.62, 0.2)),
            Curve("the limit law", VERMILION, "line", (0.62, 0.1)),
        ],
        x=Axis("singular value: the stretch of a direction", 0, 3.9, [0, 1, 2, 3]),
        y=Axis("density", 0, 3.7, [0, 1, 2, 3]),
        alt="Histogram of the singular values of a random matrix, and their limit law.",
    )


#: The networks whose angles a reader may follow: name, activation, law of the kernels.
NETWORKS = {
    "linear": ("linear", "normal"),
    "linear, orthogonal": ("linear", "orthogonal"),
    "ReLU": ("relu", "normal"),
    "tanh": ("tanh", "normal"),
}


def angles(width: int = 128, nets: int = 5) -> Explorable:
    """The cosine of two inputs after L layers, against the one they began with."""
    depths = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    grid, starts = np.sin(np.pi / 2 * np.linspace(-1, 1, 49)), np.linspace(-0.9, 0.9, 7)
    maps = {f: layers.predicted_cosines(f, grid, depths[-1]) for f in ("relu", "tanh")}
    maps["linear"] = np.tile(grid, (depths[-1] + 1, 1))  # on average; its matrices need not be orthogonal
    predicted, found, kept = {}, {}, {}
    for name, (activation, law) in NETWORKS.items():
        predicted[name] = maps[activation]
        found[name], kept[name] = layers.pairs_through_depth(
            width, depths[-1], activation, law, correlation=starts, nets=nets, seed=4
        )

    def draw(L: int, name: str) -> list[tuple[NDArray, NDArray]]:
        return [(grid, predicted[name][L]), (np.tile(starts, nets), found[name][:, L].ravel())]

    def tell(L: int, name: str) -> str:
        middle = round(found[name][:, L, 3].mean(), 2) + 0.0  # no minus before a zero
        low, high = np.exp(kept[name][:, L].min()), np.exp(kept[name][:, L].max())
        told = (
            f"{L} layers, {name}: two inputs at a right angle end at a mean cosine of {middle:.2f}, and squared "
            f"lengths at {low:.2f} to {high:.2f} of what they were."
        )
        return told.replace("-", "−")

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            Control("Layers", depths, start=6),
            Control("Network", [*NETWORKS], start=2),
        ],
        curves=[
            Curve("infinitely wide", VERMILION, "line", (0.6, 0.86)),
            Curve(f"{nets} of width {width}", BLUE, "dots", (0.6, 0.95)),
        ],
        x=Axis("cosine of two inputs", -1, 1, [-1, -0.5, 0, 0.5, 1]),
        y=Axis("their cosine after these layers", -1, 1.15, [-1, 0, 1]),
        alt="The cosine of two inputs after a number of random layers, against their cosine before.",
    )


def edge() -> Figure:
    """χ against the gain of the weights, for a ReLU and for tanh, with the edge where it is 1."""
    gains = np.linspace(0.7, 2.2, 151)
    keeping = activation_gain("tanh")
    figure, ax = plt.subplots(figsize=figures.WIDE)
    ax.axhspan(1, 1.6, color=VERMILION, alpha=0.07, lw=0)
    ax.axhspan(0.5, 1, color=BLUE, alpha=0.07, lw=0)
    ax.axhline(1, color=INK, linestyle="-", linewidth=1)
    ax.plot(gains, [layers.chi("relu", g) for g in gains], color=GREEN, linestyle="--")
    ax.plot(gains, [layers.chi("tanh", g) for g in gains], color=PURPLE, linestyle="-")
    for gain, activation, text, place in (
        (math.sqrt(2), "relu", "He’s rule", (1.43, 0.88)),
        (1.0, "tanh", "tanh, variance 1/n", (0.72, 1.06)),
        (keeping, "tanh", "tanh that keeps q = 1,\nor with a layer norm", (1.65, 1.03)),
    ):
        ax.plot(gain, layers.chi(activation, gain), "o", color=INK)
        ax.text(*place, text, color=INK)
    ax.text(0.87, 0.55, "ReLU", color=GREEN)
    ax.text(1.98, 1.27, "tanh", color=PURPLE)
    ax.text(0.72, 1.5, "differences and gradients grow", color=VERMILION)
    ax.text(2.18, 0.55, "they fade", color=BLUE, ha="right")
    ax.set(xlabel="gain of the weights", ylabel="χ", xlim=(0.7, 2.2), ylim=(0.5, 1.6))
    ax.grid(False)
    return figure


def scatter(final: Mapping[str, NDArray]) -> list[Figure]:
    """How squared lengths scatter after many layers, a panel a network."""
    panels = []
    for name, values in final.items():
        figure, ax = plt.subplots(figsize=figures.PANEL)
        ax.hist(values / np.log(10), bins=np.arange(-4.59, 2.1, 0.18), color=BLUE)
        ax.axvline(0, color=VERMILION, linestyle="-", linewidth=1)
        ax.set(title=name, xlabel="squared length", yticks=[], xticks=[-4, -2, 0, 2])
        ax.set_xticklabels(["10⁻⁴", "10⁻²", "1", "10²"])
        ax.grid(False)
        panels.append(figure)
    return panels


def gradients(record: Record) -> Figure:
    """The gradient of every layer of three tanh networks before training, and what χ says of it."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for stack, factor, colour, place in (
        ("layer norm", layers.chi_of_norm("tanh"), VERMILION, (30, 700)),
        ("layer norm at 0.2", layers.chi_of_norm("tanh", 0.2), BLUE, (4, 3.2)),
        ("Gaussian", None, GREEN, (4, 0.003)),
    ):
        found = np.array([row["norms"] for row in record.where(activation="tanh", stack=stack)])
        layer = np.arange(1, found.shape[1] + 1)
        ax.semilogy(layer, found.T, color=colour, linestyle="-", linewidth=0.7, alpha=0.5)
        if factor is not None:
            last = np.exp(np.mean(np.log(found[:, -1])))
            ax.semilogy(layer, last * factor ** ((layer[-1] - layer) / 2), color=INK, linestyle="--", linewidth=1.2)
        name = {"Gaussian": "no norm", "layer norm": "layer norm"}.get(stack, "layer norm of scale 0.2")
        ax.text(*place, name, color=colour)
    ax.set(xlabel="layer", ylabel="length of its gradient", xlim=(0, 100), ylim=(0.001, 1e4))
    return figure


def _intervals(ax: Axes, rows: Sequence[tuple[str, Estimate, str]]) -> None:
    """Estimates under each other, the first on top, with their names at the left."""
    for k, (_, end, colour) in enumerate(rows):
        ax.plot([end.low, end.high], [-k, -k], color=colour, linestyle="-", linewidth=3, solid_capstyle="round")
        ax.plot(end.value, -k, "o", color=colour, markersize=7)
    ax.set_yticks([-k for k in range(len(rows))], [name for name, *_ in rows])
    ax.axvline(0.1, color=INK, linestyle=":", linewidth=1)
    ax.set(xlabel="test accuracy", xlim=(0, 0.9), ylim=(0.6 - len(rows), 0.6))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def ends(record: Record) -> list[Figure]:
    """Test accuracy of networks of a hundred layers, a panel an activation; a grey band for three layers."""
    panels = []
    for activation, stacks in CONTESTANTS.items():
        shallow = Estimate.from_samples(accuracies(record, depth=3, activation=activation, stack="Gaussian"))
        rows = []
        for stack in stacks:
            found = accuracies(record, depth=100, activation=activation, stack=stack)
            rows.append((stack, Estimate.from_samples(found), {"relu": GREEN, "tanh": PURPLE}[activation]))
        figure, ax = plt.subplots(figsize=(figures.WIDE[0], 0.75 + 0.26 * len(rows)))
        ax.axvspan(shallow.low, shallow.high, color=GRID, alpha=0.6, lw=0)
        _intervals(ax, rows)
        ax.set_title({"relu": "ReLU", "tanh": "tanh"}[activation])
        panels.append(figure)
    return panels


def causes(record: Record) -> Figure:
    """Test accuracy of ReLU networks of fifty layers whose gain is wrong, and of those mended in one respect."""
    rows = []
    for stack in SUSPECTS:
        colour = BLUE if "small" in stack else VERMILION if "large" in stack else INK
        kind, _, mended = stack.partition(", ")
        name = mended or {"Gaussian": "gain right"}.get(kind, kind)
        rows.append((name, Estimate.from_samples(accuracies(record, stack=stack)), colour))
    figure, ax = plt.subplots(figsize=(figures.WIDE[0], 0.6 + 0.24 * len(rows)))
    _intervals(ax, rows)
    for place in (1.5, 6.5):
        ax.axhline(-place, color=GRID, linestyle="-", linewidth=1)
    return figure
