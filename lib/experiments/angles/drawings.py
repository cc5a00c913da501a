"""The figures of chapter 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from lib import angles
from lib.experiments.angles.sampling import log_directions, sample_angles
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.palette import BLUE, GREEN, GRID, INK, SKY, VERMILION
from lib.workbench.records import Record


def histograms(dimensions: Sequence[int] = (2, 3, 30, 1000)) -> list[Figure]:
    """Angles of 20,000 random pairs, a panel a dimension."""
    panels = []
    for n in dimensions:
        figure, ax = plt.subplots(figsize=(1.9, 1.7))
        degrees = np.degrees(sample_angles(n=n, pairs=20_000, seed=1))
        ax.hist(degrees, bins=60, range=(0, 180), density=True, color=BLUE)
        ax.set(title=f"n = {n}", xticks=[0, 90, 180], yticks=[])
        ax.set_xticklabels(["0°", "90°", "180°"])
        ax.grid(False)
        panels.append(figure)
    return panels


def slices(dimensions: Sequence[int] = (3, 10, 100)) -> list[Figure]:
    """A sphere cut into slices of ten degrees, each as dark as its area, and under it the areas as bars."""
    edges = np.radians(np.arange(0, 181, 10))
    panels = []
    for n in dimensions:
        share = np.diff(angles.angle(n).cdf(edges))
        figure, (top, bottom) = plt.subplots(2, figsize=(2.2, 3.0), height_ratios=(1.5, 1))
        for start, end, part in zip(edges[:-1], edges[1:], share, strict=True):
            along = np.linspace(start, end, 12)
            rim = np.transpose([-np.cos(along), np.sin(along)])
            corners = np.vstack([rim, rim[::-1] * (1, -1)])
            top.add_patch(
                Polygon(corners, facecolor=BLUE, alpha=0.08 + 0.9 * part / share.max(), edgecolor=GRID, lw=0.5)
            )
        top.annotate("", (-1.25, 0), (0, 0), arrowprops={"arrowstyle": "->", "color": INK})
        top.text(-1.3, 0.08, "y", color=INK)
        top.set(xlim=(-1.4, 1.1), ylim=(-1.1, 1.1), aspect="equal", title=f"n = {n}")
        top.axis("off")
        middles = np.degrees(edges[:-1]) + 5
        bottom.bar(middles, 100 * share, width=9, color=BLUE)
        bottom.set(xticks=[0, 90, 180], ylim=(0, None), ylabel="area, %")
        bottom.set_xticklabels(["0°", "90°", "180°"])
        bottom.grid(False)
        panels.append(figure)
    return panels


def stand_ins() -> Figure:
    """What the normal law's variance must be, times n − k: which k makes it 1."""
    n = np.arange(3, 1001)
    variance = angles.angle(n).var()
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for k, (place, height) in enumerate([(20, 1.075), (3.2, 1.03), (14, 0.86)]):
        (line,) = ax.semilogx(n, variance * (n - k))
        ax.text(place, height, f"k = {k}", color=line.get_color())
    ax.axhspan(0.99, 1.01, color=INK, alpha=0.12, lw=0)
    ax.set(xlabel="dimension n", ylabel="variance × (n − k)", ylim=(0.75, 1.25))
    return figure


def worst_pairs(record: Record) -> Figure:
    """The largest |cos| among 5000 vectors, recorded, against its law and a typical pair."""
    n = np.array(sorted(set(record.column("n"))))
    figure, ax = plt.subplots(figsize=figures.WIDE)
    ax.loglog(record.column("n"), record.column("largest"), "o", alpha=0.4, color=SKY)
    lines = {
        "worst of 5000, law (1.6)": (angles.largest_cosine(n, 5000).median(), BLUE, "-", (180, 0.62)),
        "√(4 ln N / n)": (np.minimum(1, np.sqrt(4 * np.log(5000) / n)), VERMILION, "--", (420, 0.37)),
        "a typical pair, 1/√n": (angles.cosine(n).std(), INK, ":", (17, 0.045)),
    }
    for label, (values, colour, dashes, place) in lines.items():
        ax.loglog(n, values, color=colour, linestyle=dashes)
        ax.text(*place, label, color=colour)
    ax.set(xlabel="dimension n", ylabel="|cos|")
    return figure


def caps() -> Figure:
    """Two caps that a chosen direction forbids, on a circle, with the directions already chosen."""
    figure, ax = plt.subplots(figsize=(2.4, 2.4))
    chosen, half = np.radians([20, 95, 160]), np.radians(18)
    circle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(circle), np.sin(circle), color=INK, linestyle="-", linewidth=1)
    for angle in chosen:
        for side in (angle, angle + np.pi):
            arc = np.linspace(side - half, side + half, 20)
            cap = np.vstack([np.transpose([np.cos(arc), np.sin(arc)]), [[0, 0]]])
            ax.add_patch(Polygon(cap, facecolor=VERMILION, alpha=0.25, lw=0))
        ax.annotate(
            "", (np.cos(angle), np.sin(angle)), (0, 0), arrowprops={"arrowstyle": "->", "color": BLUE, "lw": 2}
        )
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
    ax.axis("off")
    return figure


def room() -> Figure:
    """How many directions there surely are, by two arguments, against a basis."""
    n = np.unique(np.geomspace(16, 4096, 80).astype(int))
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for tolerance, colour, place in [
        (0.3, BLUE, (870, 20.5)),
        (0.2, VERMILION, (2180, 20.5)),
        (0.1, GREEN, (3300, 8.9)),
    ]:
        ax.plot(n, log_directions(n, tolerance) / np.log(10), color=colour, linestyle="-")
        ax.plot(n, angles.log_directions_within(n, tolerance) / np.log(10), color=colour, linestyle="--")
        ax.text(*place, f"ε = {tolerance}", color=colour, ha="center")
    ax.plot(n, np.log10(n), color=INK, linestyle=":")
    ax.text(3300, 1.3, "a basis", color=INK, ha="center")
    ax.set(xlabel="dimension n", ylabel="directions, powers of ten", ylim=(0, 20), xlim=(0, 4096))
    return figure


def embeddings(cosines: Mapping[str, NDArray], dimension: int) -> list[Figure]:
    """Cosines of random pairs of rows against the law of their dimension, a panel a treatment."""
    grid = np.linspace(-0.4, 0.5, 400)
    panels = []
    for name, values in cosines.items():
        figure, ax = plt.subplots(figsize=figures.PANEL)
        ax.hist(values, bins=90, range=(-0.4, 0.5), density=True, color=SKY, alpha=0.7)
        ax.plot(grid, angles.cosine(dimension).pdf(grid), color=VERMILION, linestyle="-")
        ax.set(title=name, xlabel="cosine", yticks=[], xticks=[-0.3, 0, 0.3], ylim=(0, 8.5))
        ax.grid(False)
        panels.append(figure)
    return panels


def pair_and_worst() -> Explorable:
    """The law of one pair and that of the worst pair among N vectors, both to be moved."""
    levels = np.concatenate([[1e-5, 1e-3], np.linspace(0.01, 0.99, 33), [0.999, 0.99999]])

    def draw(n: int, count: int) -> list[tuple[NDArray, NDArray]]:
        one, worst = angles.cosine(n), angles.largest_cosine(n, count)
        near, far = one.ppf(0.5 + levels / 2), worst.ppf(levels)
        return [(x, law.pdf(x) / law.pdf(x).max()) for x, law in ((near, one), (far, worst))]

    def tell(n: int, count: int) -> str:
        typical, worst = angles.cosine(n).std(), angles.largest_cosine(n, count).median()
        return (
            f"In {n} dimensions a typical |cos| is {typical:.2f}; the worst among {count:,} vectors is {worst:.2f}."
        )

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            Control("Dimension n", [4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 2048, 4096], start=8),
            Control("Vectors N", [10**k for k in range(1, 8)], lambda count: f"{count:,}", start=3),
        ],
        curves=[
            Curve("one pair", BLUE, "area", (0.62, 0.24)),
            Curve("the worst of all pairs", VERMILION, "line", (0.62, 0.14)),
        ],
        x=Axis("|cos|", 0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        y=Axis("density, as a share of its peak", 0, 1.12, [0, 1]),
        alt="Density of the cosine of one random pair, and of the largest cosine among all pairs.",
    )
