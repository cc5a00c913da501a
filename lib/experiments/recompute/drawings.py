"""The figures of chapter 8."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lib.experiments.recompute import formulas
from lib.experiments.recompute.schedule import choices, held, lives
from lib.recompute import Cost, Plan, equal_cuts, forecast, nothing, smallest
from lib.workbench import figures
from lib.workbench.explorables import Axis, Curve, Explorable, Switches
from lib.workbench.palette import BLUE, GREEN, INK, ORANGE, SKY, VERMILION
from lib.workbench.records import Record

MIB = 2.0**20


def timelines(record: Record) -> list[Figure]:
    """What a step holds from its first operation to its last: nothing forgotten, and each block computed again."""
    none, blocks = (np.array(record.where(way=way)[0]["held"]) / MIB for way in ("none", "layers"))
    panels = []
    for title, curve, colour, top in (
        ("everything kept", none, BLUE, none.max()),
        ("blocks computed again", blocks, VERMILION, none.max()),
        ("the same, magnified", blocks, VERMILION, blocks.max()),
    ):
        figure, ax = plt.subplots(figsize=(2.1, 1.9))
        share = np.linspace(0, 1, len(curve))
        ax.fill_between(share, curve, color=colour, alpha=0.35, lw=0)
        ax.plot(share, curve, color=colour, linestyle="-", lw=1)
        ax.set(title=title, xticks=[], xlim=(0, 1), ylim=(0, 1.15 * top), ylabel="MiB", xlabel="the step, in time")
        highest = int(curve.argmax())
        ax.annotate(f"{curve.max():.0f}", (share[highest], curve.max()), ha="center", va="bottom", color=colour)
        panels.append(figure)
    return panels


def values_held(layers: int, ways: Sequence[Sequence[int]], titles: Sequence[str]) -> list[Figure]:
    """Each value of a step as a bar from birth to last use, and under it how many are held; a way a panel."""
    longest = max(len(held(lives(layers, cuts))) for cuts in ways)
    panels = []
    for cuts, title in zip(ways, titles, strict=True):
        found = lives(layers, cuts)
        count = held(found)
        figure, (top, bottom) = plt.subplots(2, figsize=(2.4, 3.2), height_ratios=(2, 1), sharex=True)
        for life in found:
            colour = VERMILION if life.again else BLUE
            top.barh(life.value, life.ends - life.born, left=life.born, height=0.72, color=colour, lw=0)
        top.set(title=title, ylim=(-0.8, layers + 0.8), yticks=range(0, layers + 1, 4), ylabel="value")
        bottom.fill_between(np.arange(len(count) + 1), [*count, 0], step="post", color=INK, alpha=0.25, lw=0)
        bottom.axhline(count.max(), color=INK, linestyle=":", lw=1)
        bottom.text(longest, count.max() + 0.5, f"{count.max()}", ha="right", va="bottom")
        bottom.set(xlim=(0, longest), ylim=(0, layers + 5), xticks=[], yticks=[0, 6, 12], ylabel="held")
        bottom.set_xlabel("time")
        for ax in (top, bottom):
            ax.grid(False)
        panels.append(figure)
    return panels


def placing_cuts(layers: int = 12) -> Explorable:
    """The bytes that each segment holds, and all ways to cut at once: cuts are to be placed."""
    unit = [Cost(1, 1)] * layers
    plans = [forecast(unit, cuts) for cuts in choices(layers)]
    least = smallest(unit).peak
    dots = np.array(sorted({(int(plan.seconds), plan.peak) for plan in plans})).T
    room = layers + 4

    def plan_of(made: tuple[bool, ...]) -> Plan:
        return forecast(unit, [0, *(cut for cut, on in enumerate(made, 1) if on)])

    def draw(made: tuple[bool, ...]) -> list[tuple[Sequence[float], Sequence[float]]]:
        plan = plan_of(made)
        ends = [*plan.cuts, layers]
        heights = [j + b - a for j, (a, b) in enumerate(pairwise(ends), 1)]
        return [(ends, [*heights, 0]), ([plan.seconds], [plan.peak])]

    def tell(made: tuple[bool, ...]) -> str:
        plan = plan_of(made)
        verdict = " No cuts hold less." if plan.peak == least else ""
        return f"At most {plan.peak} values are held, and {plan.seconds:.0f} layers run again.{verdict}"

    labels = [str(layer) for layer in range(2, layers + 1)]
    return Explorable(
        draw=draw,
        tell=tell,
        controls=[Switches("Begin a segment at layer", labels, start=("5", "9"))],
        curves=[
            Curve("held for each segment", BLUE, "steps", (0.34, 0.13)),
            Curve("your cuts", VERMILION, "dots", (0.8, 0.13)),
        ],
        still=[(Curve("all ways to cut", INK, "cloud", (0.02, 0.13)), (dots[0], dots[1]))],
        x=Axis("layers (steps), layers that run again (dots)", 0, layers, range(layers + 1)),
        y=Axis("values held", 0, room, range(0, layers + 1, 2)),
        alt="Values that each segment of twelve layers holds, as steps, over the cloud of all ways to cut them.",
    )


def thin(record: Record, layers: int = 48, working: int = 3) -> Figure:
    """Measured memory of a thin chain against the number of segments, in outputs of a layer, and the forecast."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    unit = units_of(record)
    k = np.array(sorted(int(row["way"]) for row in record.rows if row["way"].isdigit()))
    by_way = {row["way"]: row["bytes"] / unit for row in record.rows}
    every = np.arange(1, layers + 1)
    chain = [Cost(1, 1, working)] * layers
    ax.plot(every, [forecast(chain, equal_cuts(layers, i)).peak for i in every], color=BLUE, linestyle="-", lw=1)
    ax.plot(k, [by_way[str(i)] for i in k], "o", color=BLUE)
    (shrinking,) = (way for way in by_way if "-" in way)
    ax.plot(shrinking.count("-") + 1, by_way[shrinking], "D", color=VERMILION)
    ax.axhline(by_way["none"], linestyle=":", color=INK)
    ax.text(6.8, by_way["none"] - 1, "everything kept", color=INK, ha="center", va="top")
    ax.text(2.7, 27, "equal segments", color=BLUE)
    ax.text(7, by_way[shrinking] - 1.5, "segments that shrink", color=VERMILION, ha="center", va="top")
    ax.set(xscale="log", xlabel="segments", ylabel="outputs held", ylim=(0, 56))
    ax.set_xticks([1, 2, 4, 8, 16, 32, 48], ["1", "2", "4", "8", "16", "32", "48"])
    ax.minorticks_off()
    return figure


def units_of(record: Record) -> int:
    """Bytes of one output of a thin chain."""
    row = record.rows[0]
    return 4 * row["units"] * row["batch"]


def kept(record: Record) -> Figure:
    """Measured bytes of a layer, in inputs of it, against tokens, and the counts by hand."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for heads, dropout, colour, place in [
        (8, 0.1, BLUE, (350, 54)),
        (4, 0.1, VERMILION, (516, 44)),
        (8, 0.0, GREEN, (516, 33)),
        (4, 0.0, ORANGE, (516, 16)),
    ]:
        rows = sorted(record.where(heads=heads, dropout=dropout), key=lambda row: row["time"])
        s, b, h = np.array([row["time"] for row in rows]), rows[0]["batch"], rows[0]["hidden"]
        unit = 4 * b * h
        ax.plot(s, [row["bytes"] / (row["time"] * unit) for row in rows], "o", color=colour)
        grid = np.linspace(s[0], s[-1], 100)
        counted = [formulas.layer_bytes(x, b, h, heads, 4, 4, bool(dropout)) / (x * unit) for x in grid]
        ax.plot(grid, counted, linestyle="-", lw=1, color=colour)
        name = f"{heads} heads" + (", dropout" if dropout else "")
        ax.text(*place, name, color=colour, ha="right", va="bottom")
    ax.set(xlabel="tokens s", ylabel="kept, in inputs", ylim=(0, None), xticks=[64, 128, 256, 512])
    return figure


def every_cut(record: Record, plans: Sequence[Plan]) -> Figure:
    """Measured memory of all segmentations of an encoder, and the best by forecast.

    Args:
        record: of ``segments.frontier``.
        plans: the forecast frontier, with a block as the unit of time.
    """
    figure, ax = plt.subplots(figsize=figures.WIDE)
    bytes_ = np.array([row["bytes"] / MIB for row in record.rows])
    again = np.array([int(row["cuts"].split("-")[-1]) for row in record.rows])
    seen = np.unique(np.column_stack([bytes_.round(1), again]), axis=0)
    ax.plot(*seen.T, ".", ms=4, color=SKY)
    steps = [plan.peak / MIB for plan in plans], [plan.seconds for plan in plans]
    ax.plot(*steps, color=VERMILION, linestyle="-", lw=1.2)
    ax.text(34, 4.4, "the best, by forecast", color=VERMILION, ha="right")
    ax.text(61, 9.4, "measured", color=SKY, ha="center")
    ax.set(xlabel="MiB held", ylabel="blocks that run again", ylim=(-0.5, 11.8), yticks=range(0, 12, 2))
    return figure


#: The ways to cut a block: their names, in which links a segment begins, and their colours.
CUTS = {
    "article": ("each layer (the article)", (0, 1, 2, 3), BLUE),
    "layers": ("each block", (0,), GREEN),
    "norms": ("from norm to norm", (1, 3), VERMILION),
}


def three_cuts() -> Figure:
    """Two blocks as eight links, and the segments of three ways to cut; a dot is an input that is stored."""
    figure, axes = plt.subplots(3, figsize=(figures.WIDE[0], 3.1))
    names, widths = ["attention", "norm", "network", "norm"] * 2, [1.6, 1.0, 1.4, 1.0] * 2
    edges = np.concatenate([[0], np.cumsum(widths)])
    for ax, (name, starts, colour) in zip(axes, CUTS.values(), strict=True):
        cuts = sorted({0, *(block + link for block in (0, 4) for link in starts)})
        for a, b in pairwise([*cuts, 8]):
            left, width = edges[a] + 0.05, edges[b] - edges[a] - 0.1
            style = "round,pad=0,rounding_size=0.12"
            ax.add_patch(FancyBboxPatch((left, 0), width, 1, style, facecolor=colour, alpha=0.18, lw=0))
            ax.plot(edges[a] + 0.05, 0, "o", color=colour, ms=8, clip_on=False)
        for link, middle in enumerate((edges[:-1] + edges[1:]) / 2):
            ax.text(middle, 0.5, names[link], ha="center", va="center")
        ax.set(title=name, xlim=(-0.15, edges[-1]), ylim=(-0.3, 1.05), yticks=[], xticks=[])
        ax.title.set_color(colour)
        ax.axis("off")
    return figure


def costs_of_cuts(record: Record) -> list[Figure]:
    """Memory and multiplications of three ways to cut: measured with dropout and without, and counted.

    Args:
        record: of ``segments.memory`` on TensorFlow, in several runs. The count is that of the same blocks, and its
            line the best that any cut can do.
    """
    row = record.rows[0]
    links = formulas.link_costs(row["time"], 1, row["hidden"], row["heads"])
    chain, n = links * row["layers"], len(links) * row["layers"]
    everything, step = nothing(chain).peak, 3 * sum(cost.seconds for cost in chain)
    counted = {}
    for way, (_, starts, _) in CUTS.items():
        cuts = sorted({0, *(block + link for block in range(0, n, 4) for link in starts)})
        plan = forecast(chain, cuts, [way != "article" and cut == cuts[-1] for cut in cuts])
        counted[way] = [(plan.peak / everything, plan.seconds / step)]
    panels = [_costs(_measured(record, rate), f"dropout {rate:g}, measured") for rate in (0.1, 0.0)]
    panels.append(_costs(counted, "counted"))
    front = formulas.front(row["layers"], row["time"], row["hidden"], row["heads"])
    panels[-1].axes[0].step(*(100 * front.T), where="pre", color=INK, linestyle="-", lw=1)
    panels[-1].axes[0].text(2, 7, "the best of all cuts", color=INK)
    return panels


def _measured(record: Record, dropout: float) -> dict[str, list[tuple[float, float]]]:
    """For each of :data:`CUTS` and each run its memory over that of "none", and what it adds to the products."""
    shares: dict[str, list[tuple[float, float]]] = {}
    for seed in sorted({row["seed"] for row in record.where(dropout=dropout)}):
        rows = {row["way"]: row for row in record.where(dropout=dropout, seed=seed)}
        for way in CUTS:
            quotients = [rows[way][key] / rows["none"][key] for key in ("bytes", "products")]
            shares.setdefault(way, []).append((quotients[0], quotients[1] - 1))
    return shares


def _costs(shares: dict[str, list[tuple[float, float]]], title: str) -> Figure:
    figure, ax = plt.subplots(figsize=(2.4, 2.2))
    for way, points in shares.items():
        _, _, colour = CUTS[way]
        memory, added = 100 * np.array(points).T
        ax.plot(memory, added, "o", color=colour, ms=7)
        name, up = {"article": ("each layer", 0.6), "layers": ("each block", 3), "norms": ("norm to norm", 4)}[way]
        across = max(memory) + (2 if way == "article" else -3)
        ax.text(across, added[0] + up, name, color=colour, ha="left", va="center")
    ax.set(title=title, xlim=(0, 40), ylim=(0, 38), xlabel="memory, % of all", ylabel="added products, %")
    return figure


def depth(record: Record) -> Figure:
    """How many times less memory three ways to cut hold, against the number of blocks."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    held_by = {(row["way"], row["layers"]): row["bytes"] for row in record.rows}
    layers = sorted({row["layers"] for row in record.rows})
    for way, (name, _, colour) in CUTS.items():
        saved = [held_by["none", n] / held_by[way, n] for n in layers]
        ax.plot(layers, saved, "o-", color=colour)
        below = way == "norms"
        height = saved[-1] + (-4.6 if below else 0.5)
        ax.text(layers[-1] * 0.97, height, name, color=colour, ha="right", va="bottom")
    ax.set(xscale="log", xlabel="blocks", ylabel="times less memory", ylim=(0, None))
    ax.set_xticks(layers, map(str, layers))
    ax.minorticks_off()
    return figure
