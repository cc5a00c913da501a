"""The figures of chapter 8; each draws into a new current figure what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.experiments.recompute.formulas import layer_bytes
from lib.recompute import Cost, Plan, equal_cuts, forecast, nothing
from lib.workbench.records import Record

MIB = 2.0**20


def bars(costs: Mapping[str, Cost], layers: int, cuts: Sequence[int]) -> None:
    """What a network holds for its gradient, link by link: kept whole, and cut, with its largest segment at work.

    Args:
        costs: name to cost of each link of a block.
        layers: number of blocks.
        cuts: the first link of each segment.
    """
    _, ax = plt.subplots(figsize=(9, 2.6))
    names, chain = list(costs) * layers, list(costs.values()) * layers
    inner = [(name, cost.inner) for name, cost in zip(names, chain, strict=True)]
    segments = [inner[a:b] for a, b in pairwise([*cuts, len(chain)])]
    largest = max(segments, key=lambda segment: sum(size for _, size in segment))
    rows = {"kept": inner, "recomputed": [*((None, chain[cut].boundary) for cut in cuts), *largest]}
    colors = {name: f"C{i}" for i, name in enumerate(costs)} | {None: "0.6"}
    for y, parts in enumerate(rows.values()):
        left = 0.0
        for name, size in parts:
            ax.barh(y, size / MIB, left=left / MIB, color=colors[name], edgecolor="white", linewidth=0.3)
            left += size
        ax.text(left / MIB, y, f" {left / MIB:.0f} MiB", va="center")
    for name in costs:
        ax.barh(0, 0, color=colors[name], label=name.replace("_", " "))
    ax.barh(0, 0, color="0.6", label="input of a segment")
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel="MiB held for the gradient")
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.legend(ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def law(layers: int, inner: int) -> Figure:
    """Memory and time of equal layers against the number of segments, for a boundary of 1."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
    costs = [Cost(1, inner)] * layers
    plans = [forecast(costs, equal_cuts(layers, k)) for k in range(1, layers + 1)]
    k = range(1, layers + 1)
    left.plot(k, [plan.peak / nothing(costs).peak for plan in plans], ".-")
    right.plot(k, [1 + plan.seconds / (3 * layers) for plan in plans], ".-", color="C1")
    best = min(plans, key=lambda plan: plan.peak)
    left.plot(len(best.cuts), best.peak / nothing(costs).peak, "o", ms=11, mfc="none", color="C3")
    left.set(xlabel="segments", ylabel="memory, 1 = all kept", ylim=(0, 1.05))
    right.set(xlabel="segments", ylabel="time, 1 = all kept", ylim=(0.95, 1.4))
    figure.suptitle(f"{layers} layers, inside of a layer = {inner} × its input", fontsize=10)
    return figure


def thin(record: Record, layers: int = 48, working: int = 3) -> None:
    """Measured units of memory against the number of segments of a thin chain, and the law."""
    _, ax = plt.subplots(figsize=(6.5, 3.6))
    rows = [row for row in record.rows if row["way"].isdigit()]
    unit = units_of(record)
    k = np.array([int(row["way"]) for row in rows])
    ax.plot(k, [row["bytes"] / unit for row in rows], "o", label="measured, equal segments")
    every = np.arange(1, layers + 1)
    costs = [Cost(1, 1, working)] * layers
    ax.plot(every, [forecast(costs, equal_cuts(layers, i)).peak for i in every], "-", lw=1, label="forecast")
    for row in record.rows:
        if "-" in row["way"]:
            ax.plot(row["way"].count("-") + 1, row["bytes"] / unit, "D", color="C3", label="shrinking segments")
    ax.axhline(record.rows[0]["bytes"] / unit, ls=":", color="0.4", label="nothing recomputed")
    ax.set(xscale="log", xlabel="segments", ylabel="units of one output", ylim=(0, None))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
    ax.legend(fontsize=8)
    _label(record)


def units_of(record: Record) -> int:
    """Bytes of one output of a thin chain."""
    row = record.rows[0]
    return 4 * row["units"] * row["batch"]


def kept(record: Record) -> None:
    """Measured bytes of a layer over sbh against tokens, and the counts by hand."""
    _, ax = plt.subplots(figsize=(6.5, 3.8))
    for i, (heads, dropout) in enumerate([(8, 0.1), (4, 0.1), (8, 0.0), (4, 0.0)]):
        rows = sorted(record.where(heads=heads, dropout=dropout), key=lambda row: row["time"])
        s, b, h = np.array([row["time"] for row in rows]), rows[0]["batch"], rows[0]["hidden"]
        name = f"{heads} heads, " + ("dropout" if dropout else "no dropout")
        ax.plot(s, [row["bytes"] / (row["time"] * b * h) for row in rows], "o", color=f"C{i}", label=name)
        grid = np.linspace(s[0], s[-1], 100)
        counted = [layer_bytes(x, b, h, heads, 4, 4, bool(dropout)) / (x * b * h) for x in grid]
        ax.plot(grid, counted, "-", lw=1, color=f"C{i}")
    ax.set(xlabel="tokens s", ylabel="bytes of a layer / sbh", ylim=(0, None))
    ax.legend(fontsize=8)
    _label(record)


#: How the ways to cut are called on a chart, and where the name stands beside its dot, in points.
NAMES = {
    "none": ("nothing", (-6, 8)),
    "layers": ("each block", (-26, 26)),
    "norms": ("from norm to norm", (-10, -22)),
    "whole": ("the network", (-40, 8)),
    "twice": ("each block, twice", (-6, -36)),
    "nested": ("nested, 3 × 4", (8, 6)),
}


def ways(record: Record, dropout: float = 0.0) -> None:
    """Time against memory for the ways to cut an encoder, both over those of the network that is not cut."""
    _, ax = plt.subplots(figsize=(7.5, 4.6))
    rows = record.where(dropout=dropout)
    none = next(row["bytes"] for row in rows if row["way"] == "none")
    for row in rows:
        x, y = row["bytes"] / none, row["ratio"]
        name, offset = NAMES.get(row["way"], (row["way"], (3, 5)))
        color = "C0" if row["way"] in NAMES else "C1"
        ax.errorbar(x, y, yerr=[[y - row["low"]], [row["high"] - y]], fmt=".", color=color, lw=0.8)
        line = {"arrowprops": {"arrowstyle": "-", "lw": 0.4}} if row["way"] in NAMES else {}
        ax.annotate(name, (x, y), xytext=offset, textcoords="offset points", fontsize=8, color=color, **line)
    ax.axhline(4 / 3, ls=":", color="0.4", lw=1)
    ax.set(xscale="log", xlabel="memory, 1 = nothing recomputed", ylabel="time, 1 = nothing recomputed")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    ax.set_xticks([0.1, 0.2, 0.3, 0.5, 1.0])
    ax.set_xlim(0.1, 1.2)
    ax.minorticks_off()
    _label(record)


def frontier(record: Record, plans: Sequence[Plan]) -> None:
    """All measured segmentations of an encoder and the best ones by forecast, and the time of a step.

    Args:
        record: of ``segments.frontier``.
        plans: the forecast frontier, with a block as the unit of time.
    """
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
    held = np.array([row["bytes"] / MIB for row in record.rows])
    again = np.array([int(row["cuts"].split("-")[-1]) for row in record.rows])
    seen = np.unique(np.column_stack([held.round(1), again]), axis=0)
    left.plot(*seen.T, ".", ms=3, alpha=0.5, label="measured")
    steps = [plan.peak / MIB for plan in plans], [plan.seconds for plan in plans]
    left.plot(*steps, "C1.-", lw=1, label="the optimum, by forecast")
    left.set(xlabel="MiB", ylabel="blocks that run forward again")
    left.legend(fontsize=8)
    counts = np.unique(again)[1:]  # no block: one row only
    times = [[row["seconds"] for row, n in zip(record.rows, again, strict=True) if n == count] for count in counts]
    low, middle, high = (np.array([np.quantile(t, q) for t in times]) for q in (0.25, 0.5, 0.75))
    right.fill_between(counts, low, high, alpha=0.25, lw=0, label="quartiles")
    right.plot(counts, middle, ".-", label="median")
    right.set(xlabel="blocks that run forward again", ylabel="seconds a step", ylim=(0, None))
    right.legend(fontsize=8)
    _label(record)


def depth(record: Record) -> None:
    """Memory against the number of layers, for four ways to cut."""
    _, ax = plt.subplots(figsize=(6.5, 3.8))
    names = {"none": "nothing recomputed", "sqrt": "√n segments", "layers": "each block", "norms": "half blocks"}
    for way, name in names.items():
        rows = sorted(record.where(way=way), key=lambda row: row["layers"])
        ax.plot([row["layers"] for row in rows], [row["bytes"] / MIB for row in rows], ".-", label=name)
    ax.set(xscale="log", yscale="log", xlabel="blocks", ylabel="MiB")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda x, _: f"{x:.0f}")
    ax.set_xticks([3, 6, 12, 24, 48])
    ax.set_yticks([20, 50, 100, 200, 500])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    _label(record)


def _label(record: Record) -> None:
    """Says above the figure where its numbers come from."""
    plt.gcf().suptitle(f"{record.versions['backend']}, {record.label()}", fontsize="small", x=0.99, ha="right")
