"""The figures of chapter 6; each draws into the current figure what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from lib.experiments.extraction.reading import WAYS, exact_rate
from lib.experiments.extraction.relations import TREATMENTS, f1_among, overlap
from lib.extraction import Cascade, power_sigmoid
from lib.workbench import figures
from lib.workbench.corpora import DUIE_PREDICATES, Statement
from lib.workbench.records import Record

#: The kinds of :func:`lib.experiments.extraction.relations.overlap` in words.
OVERLAPS = {"none": "no overlap", "SEO": "one entity\nshared", "EPO": "a pair of\nentities shared"}


def overlaps(statements: Sequence[Statement]) -> None:
    """Bars of how many sentences have one, two, … triples, stacked by how these overlap."""
    most = max(len(set(statement.triples)) for statement in statements)
    counts = np.zeros((len(OVERLAPS), most))
    for statement in statements:
        counts[list(OVERLAPS).index(overlap(statement.triples)), len(set(statement.triples)) - 1] += 1
    _, ax = plt.subplots(figsize=(6.4, 3.0))
    floors = counts.cumsum(axis=0) - counts
    for row, floor, name, hatch in zip(counts, floors, OVERLAPS.values(), ("", "//", "xx"), strict=True):
        ax.bar(range(1, most + 1), row, bottom=floor, label=name.replace("\n", " "), hatch=hatch, edgecolor="white")
    ax.set_xticks(range(1, most + 1))
    ax.set(xlabel="triples of a sentence", ylabel="sentences")
    ax.legend()


def two_steps(model: Cascade, ids: NDArray[np.int32], subject: tuple[int, int]) -> None:
    """The probabilities of both steps of a cascade for one sentence: its subjects, the objects of one of them."""
    logits = model({"ids": ids, "subject": np.array([subject])})
    subjects, objects = (
        np.asarray(power_sigmoid(logits[step], power))[0]
        for step, power in zip(("subjects", "objects"), model.power, strict=True)
    )
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), width_ratios=(1, 1.4))
    for column, name in enumerate(("starts", "ends")):
        left.plot(subjects[:, column], label=f"a subject {name} here")
    left.set(xlabel="place in the sentence", ylabel="probability", ylim=(-0.02, 1.3), yticks=(0, 0.5, 1))
    left.legend(loc="upper right")
    shown = right.imshow(objects[:, :, 0].T, aspect="auto", vmin=0, vmax=1)
    right.set_yticks(range(len(DUIE_PREDICATES)), DUIE_PREDICATES.values(), fontsize=7)
    right.set(xlabel="place in the sentence", title="an object starts here")
    right.grid(visible=False)
    plt.colorbar(shown, ax=right, label="probability")


def first_losses(record: Record, steps: int = 60) -> None:
    """The loss of the record "imbalance" in the first steps, the mean of its seeds, for each treatment."""
    _, ax = plt.subplots(figsize=(6.4, 3.0))
    for treatment in TREATMENTS:
        losses = np.mean(record.column("losses", treatment=treatment), axis=0)
        ax.semilogy(range(1, steps + 1), losses[:steps], label=treatment)
    ax.set(xlabel="step", ylabel="loss, mean of the seeds")
    ax.legend()
    ax.set_title(record.label(), fontsize="small", loc="right")


def scores_by_group(record: Record, statements: Sequence[Statement]) -> None:
    """F1 of the record "relations", one dot a seed, by overlap of the triples and by length of the sentence."""
    kinds = np.array([overlap(statement.triples) for statement in statements])
    lengths = np.searchsorted((30, 46, 62, 94), [len(statement.text) for statement in statements])
    panels = {
        "overlap of the triples": {name: f1_among(record, kinds == kind) for kind, name in OVERLAPS.items()},
        "characters of the sentence": {
            name: f1_among(record, lengths == k)
            for k, name in enumerate(("up to 30", "to 46", "to 62", "to 94", "more"))
        },
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3.2), sharey=True)
    for ax, (grouping, groups) in zip(axes, panels.items(), strict=True):
        for k, values in enumerate(groups.values()):
            ax.plot([k] * len(values), values, "o", color=figures.BLUE, alpha=0.6)
        ax.set_xticks(range(len(groups)), groups)
        ax.set(xlabel=grouping)
    axes[0].set(ylabel="F1, percent")
    figure.suptitle(record.label(), fontsize="small", x=0.99, ha="right")


def answers_by_kind(record: Record) -> None:
    """Exact answers of the record "reading", one marker a seed, by kind of question and way to answer."""
    kinds = {
        "one": "one answer",
        "repeated": "one, occurs twice",
        "several": "several answers",
        "none": "no answer",
    }
    _, ax = plt.subplots(figsize=(7.5, 3.2))
    for k, way in enumerate(WAYS):
        for place, kind in enumerate(kinds):
            values = exact_rate(record, way, kind)
            spot = np.full(len(values), place + 0.15 * (k - (len(WAYS) - 1) / 2))
            label = None if place else way
            ax.plot(spot, values, "osD^v"[k], color=figures.COLOURS[k], alpha=0.7, label=label)
    ax.set_xticks(range(len(kinds)), kinds.values())
    ax.set(ylabel="exact matches, percent", ylim=(0, 100))
    ax.legend(fontsize="small", loc="lower left", ncols=2)
    ax.set_title(record.label(), fontsize="small", loc="right")
