"""The figures of chapter 9."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon
from numpy.typing import ArrayLike, NDArray

from lib.experiments.theseus import formulas
from lib.experiments.theseus.accuracy import mixtures as mixed
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from lib.workbench.records import Record

Row = Mapping[str, Any]

#: One colour a way to train, in all figures; old modules are blue, new ones orange.
COLOURS = {
    "Theseus": VERMILION,
    "direct": BLUE,
    "direct, ended early": GREEN,
    "distillation": PURPLE,
    "direct, old head": BLUE,
}
#: Of two ways of one colour, the one with hollow markers.
HOLLOW = {"direct, old head"}
OLD, NEW = BLUE, ORANGE


# --- the idea -------------------------------------------------------------------------------------------------


def ship(gates: NDArray[np.bool_], steps: Sequence[int], titles: Sequence[str]) -> Figure:
    """A ship whose hull has a plank for every module, at some steps of a training; new planks are thin.

    Args:
        gates: True where a module is replaced, (steps, modules).
        steps: those to draw.
        titles: one a step.
    """
    figure, axes = plt.subplots(1, len(steps), figsize=(figures.WIDE[0], 1.75))
    for ax, step, title in zip(axes, steps, titles, strict=True):
        modules = gates.shape[1]
        ax.plot([0, 0], [0, 1.25], color=INK, linestyle="-", lw=1.5)
        ax.add_patch(Polygon([(0.06, 0.2), (0.06, 1.2), (0.78, 0.2)], facecolor=INK, alpha=0.15, lw=0))
        ax.add_patch(Polygon([(-0.06, 0.2), (-0.06, 1.0), (-0.6, 0.2)], facecolor=INK, alpha=0.15, lw=0))
        for plank, new in enumerate(gates[step]):
            top, height = -plank / modules, (0.42 if new else 0.84) / modules
            ends = [1.05 - 0.5 * (depth / 1.0) ** 1.5 for depth in (-top, -top + height)]
            corners = [(-ends[0], top), (ends[0], top), (ends[1], top - height), (-ends[1], top - height)]
            ax.add_patch(Polygon(corners, facecolor=NEW if new else OLD, lw=0))
        ax.set(xlim=(-1.15, 1.15), ylim=(-1.05, 1.3))
        ax.set_title(title, loc="center")
        ax.axis("off")
    return figure


def swap() -> Figure:
    """Three modules of two blocks and their successors of one, and the way that one toss of three gates takes."""
    figure, ax = plt.subplots(figsize=(figures.WIDE[0], 2.0))
    chosen = (0, 1, 0)
    places = [1.6, 4.2, 6.8]
    for i, (x, new) in enumerate(zip(places, chosen, strict=True), 1):
        for k in range(2):
            _box(ax, x - 0.75 + 0.8 * k, 1.15, 0.7, OLD, 0.9 if not new else 0.2)
        _box(ax, x - 0.35, -0.15, 0.7, NEW, 0.9 if new else 0.2)
        ax.text(x, 2.05, f"$F_p^{{({i})}}$", ha="center", va="bottom", color=OLD)
        ax.text(x, -0.3, f"$F_s^{{({i})}}$", ha="center", va="top", color=NEW)
        ax.text(x, 0.88, f"$z_{i}={new}$", ha="center", va="center")
    heights = [1.5, 0.2, 1.5]
    stops = [(0.0, 0.9), *((x, h) for x, h in zip(places, heights, strict=True)), (8.4, 0.9)]
    reach = [0.0, 0.75, 0.4, 0.75, 0.0]
    for (a, b), (left, right) in zip(pairwise(stops), pairwise(reach), strict=True):
        start, end = (a[0] + left + 0.06, a[1]), (b[0] - right - 0.06, b[1])
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=INK, lw=1.4))
    ax.text(-0.05, 0.9, "$x_0$", ha="right", va="center")
    ax.text(8.45, 0.9, "$x_3$", ha="left", va="center")
    ax.set(xlim=(-0.5, 8.9), ylim=(-0.85, 2.5))
    ax.axis("off")
    return figure


def _box(ax: Axes, left: float, bottom: float, size: float, colour: str, alpha: float) -> None:
    style = "round,pad=0,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch((left, bottom), size, size, style, facecolor=colour, alpha=alpha, lw=0))


#: How the replacement rate changes, as the buttons say it.
SCHEDULES = {"is constant": "constant", "rises from p to 1": "rising", "falls from 1 to p": "falling"}


def mixtures_trained(modules: int = 3) -> Explorable:
    """In how many steps each mixture of old and new modules is trained, by rate, schedule and steps."""
    patterns = ["".join(map(str, map(int, gates))) for gates in product((0, 1), repeat=modules)]
    edges = np.arange(len(patterns) + 1)

    def draw(rate: float, schedule: str, steps: int) -> list[tuple[ArrayLike, ArrayLike]]:
        counts = formulas.trained_so_far(rate, SCHEDULES[schedule], steps, modules)
        return [(edges, [*counts, 0]), (edges[-2:], [counts[-1], 0])]

    def tell(rate: float, schedule: str, steps: int) -> str:
        counts = formulas.trained_so_far(rate, SCHEDULES[schedule], steps, modules)
        own = sum(count for name, count in zip(patterns, counts, strict=True) if name[0] == "1")
        return (
            f"Of {steps} steps {counts[-1]:.0f} train the successor as a whole, 111; {counts[0]:.0f} train "
            f"nothing, 000. "
            f"A single module learns in {own:.0f}."
        )

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            Control("p", [k / 10 for k in range(1, 10)], "{:.1f}".format, start=4),
            Control("The rate", [*SCHEDULES], buttons=True),
            Control("Steps", [100, 200, 300, 400, 500, 600], start=5),
        ],
        curves=[
            Curve("mixtures", BLUE, "steps", (0.0, 0.0)),
            Curve("the successor alone", VERMILION, "steps", (0.6, 0.12)),
        ],
        x=Axis("modules, 1 = new", 0, len(patterns), {k + 0.5: name for k, name in enumerate(patterns)}),
        y=Axis("steps in which it is trained", 0, 550, range(0, 501, 100)),
        alt="Bars of the number of steps that train each of the eight mixtures of three old and new modules.",
    )


def movement(rates: ArrayLike, moved: Mapping[str, ArrayLike]) -> Figure:
    """How far a weight moves that is used in a share of the steps, and the laws p and √p.

    Args:
        rates: the share.
        moved: distances by the names "SGD", "Adam" and "Adam, skipped".
    """
    figure, ax = plt.subplots(figsize=figures.WIDE)
    grid = np.linspace(0, 1, 200)
    ax.plot(grid, grid, linestyle="-", color=BLUE, lw=1)
    ax.plot(grid, np.sqrt(grid), linestyle="--", color=VERMILION, lw=1)
    ax.plot(rates, moved["SGD"], "o", color=BLUE)
    ax.plot(rates, moved["Adam"], "D", color=VERMILION)
    ax.plot(rates, moved["Adam, skipped"], "s", color=GREEN, mfc="none")
    ax.text(0.02, 1.03, "Adam with zeros when idle, on √p", color=VERMILION)
    ax.text(0.98, 0.34, "SGD, on p", color=BLUE, ha="right")
    ax.text(0.98, 0.22, "(and torch's Adam that skips)", color=BLUE, ha="right")
    ax.text(0.98, 0.06, "squares: Keras's Adam that skips", color=GREEN, ha="right")
    ax.set(xlabel="replacement rate p", ylabel="distance moved", xlim=(0, 1), ylim=(0, 1.15))
    return figure


# --- what was measured ----------------------------------------------------------------------------------------


def _interval(
    ax: Axes, x: float, samples: Sequence[float], colour: str, marker: str = "o", **style: Any
) -> Estimate:
    """Mean and 95 % t-interval, upright; of one seed the value alone."""
    estimate = Estimate.from_samples(samples) if len(samples) > 1 else Estimate.exact(samples[0])
    ax.plot([x, x], [estimate.low, estimate.high], linestyle="-", color=colour, lw=2)
    ax.plot(x, estimate.value, marker, color=colour, **style)
    return estimate


def _fill(name: str) -> str:
    """Of the markers of a way."""
    return "none" if name in HOLLOW else COLOURS[name]


def mixtures(panels: Mapping[str, Mapping[str, Sequence[Row]]], lows: Sequence[float] = (30,)) -> Figure:
    """The accuracy of all mixtures of old and new modules, with intervals over the seeds; a dot a mixture.

    Args:
        panels: one below the other, by title; each holds rows by the name of a way, of :data:`COLOURS`, those that
            ``accuracy.mixtures`` reads, one a seed.
        lows: where the axis of each panel begins, in %.
    """
    size = (figures.WIDE[0], 2.5 * len(panels))
    figure, axes = plt.subplots(len(panels), 1, figsize=size, squeeze=False)
    for ax, (title, rows), low in zip(axes.flat, panels.items(), lows, strict=True):
        _mixtures(ax, rows)
        ax.set(title=title, ylabel="right, %", ylim=(low, None))
    axes.flat[-1].set_xlabel("modules, 1 = new; dotted: one more is replaced")
    return figure


def _mixtures(ax: Axes, rows: Mapping[str, Sequence[Row]]) -> None:
    patterns = sorted(mixed(next(iter(rows.values()))[0]), key=lambda name: (name.count("1"), name[::-1]))
    for i, (name, found) in enumerate(rows.items()):
        shift = 0.16 * (i - (len(rows) - 1) / 2)
        for place, pattern in enumerate(patterns):
            values = [100 * mixed(row)[pattern] for row in found]
            _interval(ax, place + shift, values, COLOURS[name], "oDs^"[i % 4], ms=4, mfc=_fill(name))
        told = f"{name} (hollow)" if name in HOLLOW else name
        ax.text(0.02, 0.06 + 0.1 * (len(rows) - 1 - i), told, color=COLOURS[name], transform=ax.transAxes)
    for edge in np.flatnonzero(np.diff([name.count("1") for name in patterns])) + 0.5:
        ax.axvline(edge, color=INK, lw=0.8, linestyle=":")
    ax.set_xticks(range(len(patterns)), patterns)
    ax.grid(visible=False, axis="x")


def fidelity(rows: Mapping[str, Mapping[str, Sequence[Row]]]) -> list[Figure]:
    """Accuracy and divergence from the predecessor, a panel each; dots are seeds, bars are intervals.

    Args:
        rows: by the name of an experiment, then of a way.
    """
    panels = []
    for key, title, factor in (("accuracy", "right, %", 100), ("kl", "KL, nats", 1)):
        figure, ax = plt.subplots(figsize=(2.4, 2.6))
        place, ticks = 0.0, []
        for experiment, ways in rows.items():
            middle = place + (len(ways) - 1) / 2
            ticks.append((middle, experiment))
            for name, found in ways.items():
                values = [factor * row[key] for row in found]
                ax.plot([place - 0.22] * len(values), values, ".", color=COLOURS[name], alpha=0.4, ms=4)
                _interval(ax, place, values, COLOURS[name], ms=4, mfc=_fill(name))
                place += 1
            place += 1
        ax.set(title=title, xticks=[x for x, _ in ticks], xlim=(-0.7, place - 1.3))
        ax.set_xticklabels([name for _, name in ticks])
        ax.grid(visible=False, axis="x")
        if key == "kl":
            ax.set_ylim(bottom=0)
        else:
            for i, name in enumerate(next(iter(rows.values()))):
                height = 0.04 + 0.1 * (len(next(iter(rows.values()))) - 1 - i)
                ax.text(0.98, height, name, color=COLOURS[name], transform=ax.transAxes, ha="right")
        panels.append(figure)
    return panels


def gains(rows: Mapping[str, ArrayLike], xlabel: str, height: float | None = None) -> Figure:
    """Differences in points, one below the other: a faint dot a seed, the mean and its interval, and a line at 0.

    Args:
        rows: samples by name; a name that begins with "· " is set back.
        xlabel: what the points are.
        height: of the figure, in inches.
    """
    figure, ax = plt.subplots(figsize=(figures.WIDE[0], height or 0.42 * len(rows) + 0.8))
    for y, (name, samples) in enumerate(rows.items()):
        estimate = Estimate.from_samples(samples)
        colour = INK if estimate.low <= 0 <= estimate.high else VERMILION if estimate.value < 0 else GREEN
        ax.plot(samples, [y] * len(samples), ".", color=colour, alpha=0.35, ms=5)
        ax.plot([estimate.low, estimate.high], [y, y], linestyle="-", color=colour, lw=2)
        ax.plot(estimate.value, y, "o", color=colour)
        ax.text(0.0, y - 0.3, name, color=colour, transform=ax.get_yaxis_transform(), va="bottom")
    ax.axvline(0, linestyle=":", color=INK)
    ax.set(xlabel=xlabel, yticks=[], ylim=(len(rows) - 0.5, -0.85))
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    return figure


#: Numbers of images that were tried with all ways.
SIZES = (500, 1000, 2000, 4000, 8000)

#: What the cases of the record "images" leave at its default.
SETTING = {"steps": 600, "rate": 0.5, "schedule": "constant", "gates": "batch", "start": "random"}
SETTING |= {"modules": 3, "blocks": 1, "own_head": False}


def cases(record: Record, **setting: Any) -> list[Row]:
    """The rows of the record "images" with this setting and else the usual one, one a seed.

    Example:
        >>> from lib.workbench.measure import Device
        >>> rows = ({"seed": 0, "way": "direct"}, {"seed": 0, "way": "direct", "steps": 60})
        >>> cases(Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", rows), way="direct")
        [{'seed': 0, 'way': 'direct'}]
    """
    wanted = {**SETTING, **setting}
    return [row for row in record.rows if all(row.get(key, SETTING.get(key)) == wanted[key] for key in wanted)]


def sizes(record: Record) -> Figure:
    """Accuracy against the number of images, for four ways, with intervals over the seeds."""
    figure, ax = plt.subplots(figsize=(figures.WIDE[0], 2.8))
    ways: dict[str, dict[str, Any]] = {
        "distillation": {"way": "distillation"},
        "Theseus": {"way": "theseus"},
        "direct, ended early": {"way": "direct", "steps": 120},
        "direct": {"way": "direct"},
    }
    for i, (name, way) in enumerate(ways.items()):
        places = [n * 1.035 ** (i - 1.5) for n in SIZES]
        found = [
            _interval(ax, x, [100 * row["accuracy"] for row in cases(record, images=n, **way)], COLOURS[name], ms=4)
            for x, n in zip(places, SIZES, strict=True)
        ]
        ax.plot(places, [one.value for one in found], color=COLOURS[name], linestyle="-", lw=0.8)
        ax.text(0.98, 0.34 - 0.1 * i, name, color=COLOURS[name], transform=ax.transAxes, ha="right")
    old = 100 * np.mean([row["old_accuracy"] for row in record.rows])
    ax.axhline(old, linestyle=":", color=INK)
    ax.text(500, old + 0.15, "predecessor", color=INK, va="bottom")
    ax.set(xscale="log", xlabel="pictures to train on", ylabel="right, %", xticks=SIZES, ylim=(77.8, old + 1.2))
    ax.set_xticklabels(map(str, SIZES))
    ax.minorticks_off()
    return figure
