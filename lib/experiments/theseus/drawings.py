"""The figures of chapter 9; each draws into a new current figure what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from lib.experiments.theseus.accuracy import mixtures as mixed
from lib.workbench.measure import Estimate
from lib.workbench.records import Record

Row = Mapping[str, Any]


def replaced_modules(gates: Mapping[str, NDArray[np.bool_]]) -> None:
    """Step by step: which modules are the old ones, and which are new.

    Args:
        gates: by the name of a schedule, True where a module is replaced, (steps, modules).
    """
    _, axes = plt.subplots(len(gates), 1, figsize=(9, 1.5 * len(gates)), sharex=True, squeeze=False)
    for ax, (name, new) in zip(axes[:, 0], gates.items(), strict=True):
        steps, modules = new.shape
        for module in range(modules):
            for value, color in ((False, "C0"), (True, "C1")):
                runs = [(step, 1) for step in np.flatnonzero(new[:, module] == value)]
                ax.broken_barh(runs, (module + 0.55, 0.9), facecolors=color, lw=0)
        ax.set(ylabel="module", yticks=range(1, modules + 1), xlim=(0, steps), ylim=(0.5, modules + 0.5))
        ax.set_title(name, fontsize=10, loc="left")
        ax.grid(visible=False)
    axes[-1, 0].set(xlabel="step of training")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in ("C0", "C1")]
    axes[0, 0].legend(
        handles, ["predecessor", "successor"], ncols=2, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1)
    )


def movement(rates: ArrayLike, moved: Mapping[str, ArrayLike]) -> None:
    """How far a weight moves that is used in a share of the steps, by optimizer, and the laws p and √p."""
    _, ax = plt.subplots(figsize=(5.5, 3.6))
    grid = np.linspace(0, 1, 200)
    for i, (name, law, label) in enumerate([("SGD", grid, "p"), ("Adam", np.sqrt(grid), "√p")]):
        ax.plot(grid, law, "-", color=f"C{i}", lw=1, label=label)
        ax.plot(rates, moved[name], "o", color=f"C{i}", label=name)
    ax.set(xlabel="replacement rate p", ylabel="distance, 1 = used in every step", xlim=(0, 1), ylim=(0, 1.05))
    ax.legend(fontsize=8)


def contest(rows: Mapping[str, Sequence[Row]], old_accuracy: float) -> None:
    """Accuracy and distance from the predecessor, a dot a seed.

    Args:
        rows: by the name of a way, its rows, one a seed.
        old_accuracy: that of the predecessor, on average.
    """
    _, axes = plt.subplots(1, 2, figsize=(9, 0.5 * len(rows) + 1.2), sharey=True)
    for ax, key, told in zip(
        axes, ("accuracy", "kl"), ("accuracy on the test images", "KL to the predecessor, nats"), strict=True
    ):
        for y, found in enumerate(rows.values()):
            values = [row[key] for row in found]
            ax.plot(values, [y] * len(values), "o", ms=5, alpha=0.5, color="C0", mec="none")
            ax.plot(np.mean(values), y, "|", ms=18, mew=2, color="C1")
        ax.set(xlabel=told, yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
    axes[0].axvline(old_accuracy, ls=":", color="0.4")
    axes[0].text(old_accuracy, -0.45, "predecessor ", ha="right", va="top", fontsize=8)
    axes[1].set_xlim(left=0)


def mixtures(rows: Mapping[str, Sequence[Row]]) -> None:
    """The accuracy of all mixtures of old and new modules, a line a way, over the patterns of replaced ones.

    Args:
        rows: by the name of a way, those that ``accuracy.mixtures`` reads, one a seed.
    """
    _, ax = plt.subplots(figsize=(7, 3.6))
    for i, (name, found) in enumerate(rows.items()):
        values = np.array([[*mixed(row).values()] for row in found])
        ax.plot(values.mean(axis=0), "o-", color=f"C{i}", label=name)
        ax.fill_between(
            range(values.shape[1]), values.min(axis=0), values.max(axis=0), alpha=0.15, color=f"C{i}", lw=0
        )
    patterns = [*mixed(next(iter(rows.values()))[0])]
    ax.set(xticks=range(len(patterns)), xticklabels=patterns, ylabel="accuracy")
    ax.set_xlabel("modules, 1 = replaced by the successor's")
    ax.legend(fontsize=8)


def sizes(record: Record) -> None:
    """Accuracy and distance from the predecessor against the number of images, for five ways."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    ways = {
        "direct": {"way": "direct"},
        "direct, 240 steps": {"way": "direct", "steps": 240},
        "direct, 120 steps": {"way": "direct", "steps": 120},
        "distillation": {"way": "distillation"},
        "Theseus, p = ½": {"way": "theseus"},
    }
    for ax, key, told in zip(axes, ("accuracy", "kl"), ("accuracy", "KL to the predecessor, nats"), strict=True):
        for name, way in ways.items():
            found = {images: [row[key] for row in cases(record, images=images, **way)] for images in SIZES}
            _line(ax, found, name)
        ax.set(xscale="log", xlabel="images to train on", ylabel=told, xticks=SIZES)
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        ax.minorticks_off()
    old = np.mean([row["old_accuracy"] for row in record.rows])
    axes[0].axhline(old, ls=":", color="0.4")
    axes[1].set_ylim(bottom=0)
    axes[0].legend(fontsize=8)
    label(record)


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


def rates(record: Record) -> None:
    """Accuracy against the replacement rate, before and after the third stage, with few images and with many."""
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for ax, images in zip(axes, (1000, 8000), strict=True):
        for key, name in (("before", "replacement alone"), ("accuracy", "and the third stage")):
            found = {p: [row[key] for row in cases(record, way="theseus", images=images, rate=p)] for p in RATES}
            _line(ax, found, name)
        direct = [row["accuracy"] for row in cases(record, way="direct", images=images)]
        ax.axhline(np.mean(direct), ls=":", color="0.4", label="direct")
        ax.set(xlabel="replacement rate p", ylabel="accuracy")
        ax.set_title(f"{images} images", fontsize=10)
    axes[0].legend(fontsize=8)
    label(record)


#: Gates that were tried, as settings of the images.
GATES: dict[str, dict[str, Any]] = {
    "p = ½": {},
    "curriculum": {"schedule": "curriculum"},
    "anti-curriculum": {"schedule": "anti_curriculum"},
    "a coin for each image": {"gates": "sample"},
    "uniform": {"gates": "uniform"},
    "mean of both": {"gates": "mean"},
    "ramp": {"gates": "mean", "schedule": "curriculum", "rate": 0.0},
}

#: Replacement rates that were tried.
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)


def forest(rows: Mapping[str, Estimate], xlabel: str, reference: float | None = None) -> None:
    """Estimates one below the other, each with its interval.

    Args:
        rows: by name.
        xlabel: what is estimated.
        reference: where a dotted line stands.
    """
    _, ax = plt.subplots(figsize=(7.5, 0.32 * len(rows) + 1.1))
    for y, estimate in enumerate(rows.values()):
        ax.plot([estimate.low, estimate.high], [y, y], "-", color="C0", lw=2)
        ax.plot(estimate.value, y, "o", color="C0")
    if reference is not None:
        ax.axvline(reference, ls=":", color="0.4")
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))


def alignment(rows: Mapping[str, Sequence[Row]]) -> None:
    """Linear CKA with the predecessor after each module, a line a way, the band from the least to the largest."""
    _, ax = plt.subplots(figsize=(5.5, 3.4))
    for i, (name, found) in enumerate(rows.items()):
        values = np.array([row["cka"] for row in found])
        places = np.arange(1, values.shape[1] + 1)
        ax.plot(places, values.mean(axis=0), "o-", color=f"C{i}", label=name)
        ax.fill_between(places, values.min(axis=0), values.max(axis=0), alpha=0.15, color=f"C{i}", lw=0)
    ax.set(xlabel="after module", ylabel="linear CKA with the predecessor", xticks=places, ylim=(None, 1.02))
    ax.legend(fontsize=8)


def label(record: Record) -> None:
    """Says above the figure where its numbers come from."""
    plt.gcf().suptitle(f"{record.versions['backend']}, {record.label()}", fontsize="small", x=0.99, ha="right")


def _line(ax: Axes, found: Mapping[float, Sequence[float]], name: str) -> None:
    """Means over the seeds with their 95 % intervals."""
    estimates = [Estimate.from_samples(values) for values in found.values()]
    middle = [estimate.value for estimate in estimates]
    ends = [
        [m - e.low for m, e in zip(middle, estimates, strict=True)],
        [e.high - m for m, e in zip(middle, estimates, strict=True)],
    ]
    ax.errorbar(list(found), middle, yerr=ends, fmt=".-", lw=1, capsize=2, label=name)
