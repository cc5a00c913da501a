"""The figures of chapter 4."""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from lib.experiments.crf.gradients import gradient_at_margin
from lib.experiments.crf.matrices import INITIAL, LEGAL, PUBLISHED, Array
from lib.experiments.crf.sweeps import MARGINS
from lib.tagging import SEGMENT_ALPHABET
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, INK, PURPLE, SKY, VERMILION
from lib.workbench.records import Record

#: How the networks are called, and in which colour, in all figures.
NETWORKS = {
    "convolutional": ("convolutions", BLUE),
    "recurrent": ("LSTM", GREEN),
    "transformer": ("transformer", VERMILION),
    "e5-2": ("e5, 2 layers", PURPLE),
}

#: The smallest example: four characters, the labels b (begins a word) and c (continues one). Weights are e to the
#: score; the first character cannot continue anything.
CHARACTERS = ("jīn", "tiān", "tiān", "qì")
EMISSIONS = np.array([[1, 0], [1, 3], [2, 1], [1, 2]])
MOVES = np.array([[1, 2], [2, 1]])


def trained(record: Record, multiplier: int, encoder: str = "convolutional") -> Array:
    """The transitions of a recorded network, the mean of its seeds."""
    return np.mean(record.column("transitions", encoder=encoder, multiplier=multiplier, initial="zeros"), axis=0)


def two_matrices(record: Record) -> list[Figure]:
    """The transitions of one network after the same steps, at two rates."""
    panels = []
    for multiplier, title in ((1, "rate 0.00001"), (1000, "rate 0.01")):
        figure, ax = plt.subplots(figsize=(2.8, 2.8))
        for (i, j), score in np.ndenumerate(trained(record, multiplier)):
            colour, strength = (BLUE if score > 0 else VERMILION), 0.6 * min(1, abs(score))
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=colour, alpha=strength, lw=0))
            told = f"{score:+.3f}" if multiplier == 1 else f"{score:+.2f}"
            weight = "bold" if LEGAL[i, j] else "normal"
            ax.text(j, i, told.replace("-", "−"), ha="center", va="center", color=INK, weight=weight, fontsize=8)
        ax.set(title=title, xlim=(-0.5, 3.5), ylim=(3.5, -0.5), aspect="equal", xlabel="to", ylabel="from")
        ax.set(xticks=range(4), yticks=range(4), xticklabels=SEGMENT_ALPHABET, yticklabels=SEGMENT_ALPHABET)
        ax.tick_params(length=0)
        ax.grid(visible=False)
        panels.append(figure)
    return panels


# --- the trellis ------------------------------------------------------------------------------------------


def _from_the_start(gather: np.ufunc) -> NDArray[np.int64]:
    """The weights of all beginnings that end in a label, added or compared, (steps, labels)."""
    found = [EMISSIONS[0]]
    for weights in EMISSIONS[1:]:
        found.append(weights * gather.reduce(found[-1][:, None] * MOVES, axis=0))
    return np.array(found)


def _to_the_end() -> NDArray[np.int64]:
    """The sums of the weights of all ways on from a label, (steps, labels)."""
    found = [np.ones(2, int)]
    for weights in EMISSIONS[:0:-1]:
        found.append(MOVES @ (weights * found[-1]))
    return np.array(found[::-1])


_RADIUS = 0.34


def _edge(ax: Axes, t: int, i: int, j: int, **style: Any) -> None:
    """A move from label i at step t to label j, from rim to rim."""
    x, y = 1 / np.hypot(1, j - i), (j - i) / np.hypot(1, j - i)
    ends = [t + _RADIUS * x, t + 1 - _RADIUS * x], [i + _RADIUS * y, j - _RADIUS * y]
    ax.plot(*ends, **{"color": INK, "linestyle": "-", "linewidth": 0.9, "alpha": 0.5} | style)


def _lattice(ax: Axes, but: Collection[tuple[int, int, int]] = ()) -> None:
    """Columns of two labels, and the moves between them, without some."""
    for t, i, j in product(range(3), range(2), range(2)):
        if (t or not i) and (t, i, j) not in but:
            _edge(ax, t, i, j)
    for t, character in enumerate(CHARACTERS):
        ax.text(t, -0.62, character, ha="center", color=INK)
    for i, label in enumerate("bc"):
        ax.text(-0.62, i, label, va="center", ha="center", color=INK)
    ax.set(xlim=(-0.8, 3.45), ylim=(1.5, -0.95), aspect="equal")
    ax.axis("off")


def _node(ax: Axes, t: int, i: int, number: Any, colour: str, share: float = 0.16) -> None:
    ax.add_patch(Circle((t, i), _RADIUS, facecolor=colour, alpha=share, lw=0))
    ax.add_patch(Circle((t, i), _RADIUS, facecolor="none", edgecolor=colour, lw=1.2))
    ax.text(t, i, f"{number}", ha="center", va="center", color=INK, fontsize=9)


def trellis() -> Figure:
    """The smallest example: its weights, and the path of the right words."""
    figure, ax = plt.subplots(figsize=(4.6, 2.2))
    right = [(0, 0, 1), (1, 1, 0), (2, 0, 1)]
    _lattice(ax, right)
    for t, i, j in right:
        _edge(ax, t, i, j, color=BLUE, linewidth=3, alpha=1)
    for t, i in product(range(4), range(2)):
        if t or not i:
            _node(ax, t, i, EMISSIONS[t, i], BLUE if i == t % 2 else INK)
    return figure


def sums_and_maxima() -> list[Figure]:
    """The trellis three times: sums from the start, maxima from the start, shares from both ends."""
    sums, best, after = _from_the_start(np.add), _from_the_start(np.maximum), _to_the_end()
    total = sums[-1].sum()
    kept = (best[:-1, :, None] * MOVES).argmax(axis=1)  # (step, label) → the label before it
    path = [int(best[-1].argmax())]
    for before in kept[::-1]:
        path.insert(0, int(before[path[0]]))
    panels = []
    for title, numbers in (
        (f"sums: {sums[-1, 0]} + {sums[-1, 1]} = {total}", sums),
        (f"maxima: {best[-1].max()}", best),
        ("shares, in %", np.round(100 * sums * after / total).astype(int)),
    ):
        figure, ax = plt.subplots(figsize=(2.5, 1.7))
        _lattice(ax, [(t, kept[t, j], j) for t in range(3) for j in range(2)] if numbers is best else ())
        for t, j in product(range(3), range(2)):
            if numbers is best:
                chosen = path[t : t + 2] == [kept[t, j], j]
                colour, width = (VERMILION, 3.2) if chosen else (BLUE, 1.8)
                _edge(ax, t, kept[t, j], j, color=colour, linewidth=width, alpha=1)
        for t, i in product(range(4), range(2)):
            if t or not i:
                _node(ax, t, i, numbers[t, i], BLUE, numbers[t, i] / 200 if "shares" in title else 0.16)
        ax.set_title(title, loc="center")
        panels.append(figure)
    return panels


# --- the gradient, and the road ---------------------------------------------------------------------------


def gradient_left(*recorded: Record) -> Figure:
    """The transitions' gradient against the lead of the right label, and where trained networks stand."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    ax.semilogy(MARGINS, [gradient_at_margin(m)["sentence"] for m in MARGINS], color=INK, linestyle="-", marker="")
    places = {"convolutional": (8, -11), "recurrent": (-8, -9), "transformer": (7, 5), "e5-2": (8, 0)}
    for record in recorded:
        for name in dict.fromkeys(record.column("encoder")):
            rows = record.where(encoder=name, multiplier=None)
            lead, left = (np.mean([row[key] for row in rows], axis=0) for key in ("margins", "gradient"))
            told, colour = NETWORKS[name]
            ax.semilogy(lead[2], left, "s", color=colour)
            place = places[name]
            side = "right" if place[0] < 0 else "left"
            ax.annotate(told, (lead[2], left), place, textcoords="offset points", color=colour, ha=side)
    ax.text(7.4, 9e-3, "the same lead\neverywhere", color=INK)
    ax.set(xlabel="lead of the right label, nats", ylabel="gradient a move", ylim=(2e-5, 3))
    return figure


def road() -> Figure:
    """Steps times rate as a road, with who travels on it and where transitions live."""
    figure, ax = plt.subplots(figsize=(4.6, 3.1))
    reached = np.abs(PUBLISHED[1e-2])
    low, high = np.quantile(reached, 0.1), reached.max()
    ax.add_patch(Rectangle((low, -0.6), high - low, 7.2, facecolor=GREEN, alpha=0.18, lw=0))
    travellers = [(f"150 steps, λ = {m}", 150 * 1e-5 * m, BLUE) for m in (1, 10, 100, 1000)]
    travellers += [
        ("article, rate 0.00001", 5360 * 1e-5, VERMILION),
        ("article, rate 0.01", 5360 * 1e-2, VERMILION),
    ]
    for lane, (told, reach, colour) in enumerate(travellers):
        ax.plot([1e-4, reach], [lane, lane], color=colour, linestyle="-", linewidth=3, alpha=0.7)
        ax.plot(reach, lane, marker=">", color=colour, markersize=8)
        ax.text(1.15e-4, lane - 0.28, told, color=colour, va="bottom")
    ax.text(0.28, -0.75, "where transitions live", color=GREEN, ha="center")
    ax.set(xscale="log", xlim=(1e-4, 120), ylim=(5.7, -1.3), xlabel="steps × rate × λ: as far as a weight gets")
    ax.set(yticks=[], xticks=[1e-4, 1e-3, 1e-2, 0.1, 1, 10, 100])
    ax.set_xticklabels(["0.0001", "0.001", "0.01", "0.1", "1", "10", "100"])
    ax.minorticks_off()
    ax.spines["left"].set_visible(False)
    return figure


def reached(road: Record, *recorded: Record) -> Figure:
    """The largest change of a transition against steps times rate, in every recorded run."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for row in road.rows:
        budget = row["rate"] * np.array(row["checkpoints"])
        ax.loglog(budget, row["displacement"], ".", color=SKY, markersize=5, alpha=0.7)
    for record in recorded:
        rows = [row for row in record.rows if row.get("budget")]
        ax.loglog(*([row[key] for row in rows] for key in ("budget", "displacement")), "o", color=BLUE, alpha=0.5)
    ends = np.array([1e-4, 700])
    ax.loglog(ends, ends, color=INK, linestyle="-", linewidth=1)
    ax.loglog(ends, 7.27 * ends, color=VERMILION, linestyle="--", linewidth=1)
    ax.text(2.4e-4, 4.5e-3, "the bound (4.6)", color=VERMILION, rotation=32)
    ax.text(0.012, 2.2e-3, "steps × rate × λ", color=INK)
    ax.set(xlabel="steps × rate × λ", ylabel="largest change", xlim=(1e-4, 700), ylim=(1e-4, 40))
    return figure


def steps_and_rates(record: Record) -> Explorable:
    """The sixteen transitions after some steps at some rate, from zero or from random values."""
    rates = sorted({row["rate"] for row in record.rows})
    steps = record.rows[0]["checkpoints"]
    names = {1e-5: "0.00001", 1e-4: "0.0001", 1e-3: "0.001", 1e-2: "0.01"}
    places = np.array([0.5 + j + 4.5 * i for i in range(4) for j in range(4)])
    legal = LEGAL.ravel()
    starts = {"zero": np.zeros(16), "random": np.ravel(INITIAL["glorot"](1))}

    def row_of(start: str, rate: float) -> dict[str, Any]:
        (row,) = record.where(initial={"zero": "zeros", "random": "glorot"}[start], rate=rate, seed=1)
        return row

    def stems(scores: NDArray, chosen: NDArray) -> tuple[NDArray, NDArray]:
        heights = np.stack([0 * scores, scores, 0 * scores], axis=1)[chosen]
        return np.repeat(places[chosen], 3), heights.ravel()

    def draw(start: str, rate: float, count: int) -> list[tuple[NDArray, NDArray]]:
        scores = np.ravel(row_of(start, rate)["transitions"][steps.index(count)])
        dots = [(places[chosen], scores[chosen]) for chosen in (legal, ~legal)]
        return [stems(scores, legal), stems(scores, ~legal), *dots, (places, starts[start])]

    def tell(start: str, rate: float, count: int) -> str:
        row, k = row_of(start, rate), steps.index(count)
        left = 1e3 * row["illegal"][k] / row["characters"]
        return (
            f"{count:,} steps at {names[rate]} are a budget of {rate * count:.2g}; the farthest score has moved by "
            f"{row['displacement'][k]:.2g}. Rows in order: {row['separated'][k]} of 4. "
            f"F1 {100 * row['f1'][k]:.1f} %, impossible moves {left:.1f} in 1000."
        )

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            Control("Begin at", [*starts], start=0, buttons=True),
            Control("Rate", rates, names.get, start=3),
            Control("Steps", steps, lambda count: f"{count:,}", start=2),
        ],
        curves=[
            Curve("possible", BLUE, "line", (0.58, 0.2)),
            Curve("impossible", VERMILION, "line", (0.78, 0.2)),
            Curve("possible", BLUE, "dots"),
            Curve("impossible", VERMILION, "dots"),
            Curve("where it began", INK, "cloud"),
        ],
        still=[
            (Curve(f"after {label}", INK, "line", ((0.7 + 4.5 * i) / 17.5, 0.1)), ([4.5 * i, 4.5 * i + 4], [0, 0]))
            for i, label in enumerate(SEGMENT_ALPHABET)
        ],
        x=Axis("next label", 0, 17.5, dict(zip(places, 4 * "sbme", strict=True))),
        y=Axis("score of the move", -7, 5, [-6, -4, -2, 0, 2]),
        alt="Sixteen stems, a transition each, in four groups.",
    )


# --- what it is worth -------------------------------------------------------------------------------------


def f1_of(record: Record, encoder: str, multiplier: int | None, key: str = "f1", initial: str = "zeros") -> Array:
    """F1 in percent of a network's seeds, or what stands under another key, in its own unit."""
    initial = None if multiplier is None else initial
    found = np.array(record.column(key, encoder=encoder, multiplier=multiplier, initial=initial))
    return 100 * found if key.endswith("f1") else found


def rivals(record: Record, encoder: str) -> dict[str, Array]:
    """F1 gained, in points, over a CRF whose transitions stayed at zero or within 0.0015, under hard rules."""
    kept = 0 if 0 in record.column("multiplier", encoder=encoder) else 1
    rules = f1_of(record, encoder, kept, "ruled_f1")
    return {
        "λ = 1": f1_of(record, encoder, 1) - rules,
        "λ = 1000": f1_of(record, encoder, 1000) - rules,
        "both": f1_of(record, encoder, 1000, "ruled_f1") - rules,
    }


def networks(*recorded: Record) -> list[tuple[str, Record]]:
    """The networks of records, each with its record."""
    return [(name, record) for record in recorded for name in dict.fromkeys(record.column("encoder"))]


def worth(*recorded: Record) -> list[Figure]:
    """F1 by what learned the rules, and the impossible moves that are left."""
    figure, ax = plt.subplots(figsize=(3.4, 2.9))
    found = networks(*recorded)
    styles = {"λ = 1": (VERMILION, "o", -0.24), "λ = 1000": (BLUE, "s", 0.0), "both": (GREEN, "D", 0.24)}
    for place, (name, record) in enumerate(found):
        for kind, samples in rivals(record, name).items():
            colour, marker, drop = styles[kind]
            estimate = Estimate.from_samples(samples)
            ax.plot([estimate.low, estimate.high], [place + drop] * 2, color=colour, linestyle="-", linewidth=2)
            ax.plot(estimate.value, place + drop, marker=marker, color=colour, markersize=5)
    ax.axvline(0, color=INK, linestyle=":")
    for kind, at in (("λ = 1", 0.0), ("λ = 1000", 0.3), ("both", 0.72)):
        ax.text(at, 1.02, kind, color=styles[kind][0], transform=ax.transAxes)
    ax.set(xlabel="F1 over rules alone, points", yticks=range(len(found)), ylim=(len(found) - 0.5, -0.5))
    ax.set_yticklabels([NETWORKS[name][0] for name, _ in found])
    other, ax = plt.subplots(figsize=(3.0, 2.9))
    for name, record in found:
        counted = sorted({m for m in record.column("multiplier", encoder=name) if m})
        left = [1e3 * f1_of(record, name, m, "illegal") / f1_of(record, name, m, "characters") for m in counted]
        told, colour = NETWORKS[name]
        ax.loglog(counted, np.mean(left, axis=1), marker="o", color=colour, linestyle="-", markersize=4)
        raised = {"transformer": 1.35, "e5-2": 0.75}.get(name, 1)
        ax.text(1250, raised * np.mean(left[-1]), told, color=colour, va="center")
    ax.set(xlabel="λ", ylabel="impossible moves in 1000", xlim=(0.7, 60_000), ylim=(2e-3, 250))
    ax.set(xticks=[1, 10, 100, 1000], yticks=[0.01, 0.1, 1, 10, 100])
    ax.set_xticklabels(["1", "10", "100", "1000"])
    ax.set_yticklabels(["0.01", "0.1", "1", "10", "100"])
    ax.minorticks_off()
    return [figure, other]


def from_scratch(record: Record) -> list[Figure]:
    """F1 after every epoch, above a weak network and a stronger one."""
    kinds = {
        (None, 1e-3): ("softmax", PURPLE),
        (1, 1e-3): ("λ = 1", VERMILION),
        (10, 1e-3): ("λ = 10", BLUE),
        (100, 1e-3): ("λ = 100", GREEN),
        (1, 1e-2): ("all at 0.01", INK),
    }
    raised = {("weak", "λ = 10"): -0.35, ("weak", "λ = 100"): 0.35}
    apart = {"softmax": -1.6, "λ = 1": -0.7, "λ = 10": 0.1, "λ = 100": 0.8}
    raised |= {("convolutional", told): shift for told, shift in apart.items()}
    panels = []
    for title, encoder in (("one convolution", "weak"), ("three, twice as wide", "convolutional")):
        figure, ax = plt.subplots(figsize=(2.9, 2.7))
        for (multiplier, rate), (told, colour) in kinds.items():
            rows = record.where(encoder=encoder, multiplier=multiplier, rate=rate)
            if not rows:
                continue
            curves = 100 * np.array([row["dev_f1"] for row in rows])
            epochs, ends = np.arange(1, curves.shape[1] + 1), [Estimate.from_samples(c) for c in curves.T]
            style = "--" if rate > 1e-3 else "-"
            ax.plot(epochs, curves.mean(axis=0), color=colour, linestyle=style, marker="o", markersize=3.5)
            ax.vlines(epochs, [e.low for e in ends], [e.high for e in ends], color=colour, linestyles="-")
            height = curves[:, -1].mean() + raised.get((encoder, told), 0)
            ax.text(epochs[-1] + 0.15, height, told, color=colour, va="center")
        ax.set(title=title, xlabel="epoch", ylabel="F1, %", xticks=epochs, xlim=(0.9, 5.9), ylim=(73, 88))
        panels.append(figure)
    return panels
