"""The figures of chapter 5."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

from lib.experiments.memm import label_bias
from lib.experiments.memm.models import Array
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION
from lib.workbench.records import Record

#: One colour a model, in all figures.
COLOURS = {"hmm": GREEN, "softmax": PURPLE, "memm": VERMILION, "bi-memm": ORANGE, "crf": BLUE}


def misread(record: Record, model: str, decoder: str = "exact", look_ahead: int = 0) -> Array:
    """Percent of words misread by the models of all seeds when they stopped training, shape (seeds,)."""
    paths = record.column(decoder, model=model, look_ahead=look_ahead)
    return 100 * np.array([path[-1] for path in paths])


def words_misread(record: Record) -> Figure:
    """Words misread by four trained models, and by one of them decoded otherwise."""
    rows = [
        ("HMM", misread(record, "hmm"), GREEN),
        ("softmax", misread(record, "softmax"), PURPLE),
        ("CRF", misread(record, "crf"), BLUE),
        ("MEMM", misread(record, "memm"), VERMILION),
        ("same MEMM,\ndecoded by f + g", misread(record, "memm", "bare"), ORANGE),
    ]
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for place, (_, samples, colour) in enumerate(rows):
        estimate = Estimate.from_samples(samples)
        ax.barh(place, estimate.value, color=colour, height=0.66)
        ax.plot([estimate.low, estimate.high], [place, place], color=INK, linestyle="-")
        ax.text(estimate.high + 1, place, f"{estimate.value:.3g} %", va="center")
    bayes = 100 * label_bias.exact_error("crf")
    ax.axvline(bayes, color=INK, linestyle=":")
    ax.text(bayes + 13, 0, "dotted: the best possible", color=INK, va="center")
    ax.set(xlabel="words misread, %", xlim=(0, 60), yticks=range(len(rows)))
    ax.set_yticklabels([name for name, *_ in rows])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    return figure


def denominators(labels: int = 3, steps: int = 4, path: Sequence[int] = (1, 0, 0, 2)) -> list[Figure]:
    """One path through the labels of a sentence, and what each model divides its score by."""
    panels = []
    for name in ("softmax", "MEMM", "CRF"):
        figure, ax = plt.subplots(figsize=(2.2, 1.7))
        for step, start, end in product(range(steps - 1), range(labels), range(labels)):
            if name == "CRF" or (name == "MEMM" and start == path[step]):
                ax.plot([step, step + 1], [start, end], color=VERMILION, linestyle="-", linewidth=1.4, alpha=0.8)
        for step in range(steps if name == "softmax" else 1 if name == "MEMM" else 0):
            box = FancyBboxPatch((step - 0.16, -0.16), 0.32, labels - 0.68, boxstyle="round,pad=0.12")
            ax.add_patch(box)
            box.set(facecolor="none", edgecolor=VERMILION, linewidth=1.4)
        ax.plot(range(steps), path, color=BLUE, linestyle="-", linewidth=3.2)
        grid = np.array([*product(range(steps), range(labels))])
        ax.plot(*grid.T, "o", color=INK, markersize=4, linestyle="none")
        ax.set(title=name, xlim=(-0.45, steps - 0.55), ylim=(-0.5, labels - 0.5))
        ax.axis("off")
        panels.append(figure)
    return panels


def pipes(letters: str = "rob") -> list[Figure]:
    """The probability that flows through the two words, for letters that were received."""
    own, other = 1 - label_bias.NOISE, label_bias.NOISE / 3
    panels = []
    for name in ("CRF", "MEMM"):
        figure, ax = plt.subplots(figsize=(2.4, 2.3))
        flows = []
        for side, word, colour in ((1, "rib", GREEN), (-1, "rob", BLUE)):
            widths = [0.5]
            for letter, received in zip(word, letters, strict=True):
                heard = 1.0 if letter == received or name == "MEMM" else other / own
                widths.append(widths[-1] * heard)
            _pipe(ax, widths, side, colour)
            flows.append((widths[-1], side, word))
        for width, side, word in flows:
            share = width / sum(width for width, *_ in flows)
            ax.text(3.35, 0.62 * side, f"{word}\n{100 * share:.0f} %", va="center")
        for step, received in enumerate(letters):
            ax.text(step + 0.5, 1.28, received, ha="center", color=INK, fontsize=12)
        ax.text(-0.45, 1.28, "hears", ha="center", color=INK)
        ax.set(title=name, xlim=(-0.9, 4.3), ylim=(-1.2, 1.5))
        ax.axis("off")
        panels.append(figure)
    return panels


def _pipe(ax: Axes, widths: Sequence[float], side: int, colour: str) -> None:
    """One word's pipe: from the middle to its side, then through its three letters, as wide as what flows."""
    x = np.linspace(-0.7, 3.3, 240)
    bend = 1 / (1 + np.exp(-12 * (x + 0.25)))
    centre = side * (0.25 + 0.37 * bend)
    width = np.full_like(x, widths[0])
    for step, after in enumerate(widths[1:]):
        width = width + (after - width) / (1 + np.exp(-24 * (x - step - 0.5)))
    width = np.maximum(width, 0.012)
    outline = np.vstack(
        [np.transpose([x, centre + width / 2]), np.transpose([x, centre - width / 2])[::-1]],
    )
    ax.add_patch(Polygon(outline, facecolor=colour, alpha=0.75, lw=0))
    for step, letter in enumerate("rib" if side > 0 else "rob"):
        ax.plot([step + 0.5] * 2, [side * 0.3, side * 0.94], color=INK, linestyle=":", linewidth=1)
        ax.text(step + 0.5, side * 1.06, letter, ha="center", va="center", color=colour)


def letters_received() -> Explorable:
    """P(rib) by three models for whatever letters were received, at a noise that can be set."""
    models = ("hmm", "crf", "memm")
    noises = [k / 32 for k in (1, 2, 3, 6, 9, 12, 18, 24)]
    tables = {
        (model, noise): label_bias.chance_of_first_word(model, noise=noise) for model in models for noise in noises
    }

    def chances(first: str, second: str, third: str, noise: float) -> list[float]:
        place = tuple(map(label_bias.LETTERS.index, (first, second, third)))
        return [float(tables[model, noise][place]) for model in models]

    def draw(*given) -> list[tuple[list[float], list[float]]]:
        tops = [([k + 0.2, k + 0.8], [p, p]) for k, p in enumerate(chances(*given))]
        return [*tops, *tops]

    def tell(first: str, second: str, third: str, noise: float) -> str:
        _, crf, memm = (f"{100 * p:.0f} %" for p in chances(first, second, third, noise))
        return f"{first} {second} {third}: rib has {crf} for the HMM and the CRF, {memm} for the MEMM."

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            *(
                Control(f"{name} letter", [*label_bias.LETTERS], start=start, buttons=True)
                for name, start in (("First", 0), ("Second", 2), ("Third", 3))
            ),
            Control("Letters replaced", noises, lambda noise: f"{32 * noise:.0f} of 32", start=2),
        ],
        curves=[Curve(m.upper(), COLOURS[m], kind) for kind in ("area", "line") for m in models],
        x=Axis("", 0, 3, {k + 0.5: model.upper() for k, model in enumerate(models)}),
        y=Axis("P(rib), given the letters", 0, 1.12, {0: "0", 0.5: "½", 1: "1"}),
        alt="Bars of the probability of rib by the HMM, the CRF and the MEMM.",
    )


def path_of_training(record: Record) -> Figure:
    """Words misread by the MEMM as it trains, one thin line a seed, by its own decoder and by f + g."""
    steps = record.column("steps", model="memm", look_ahead=0)[0]
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for decoder, colour in (("exact", VERMILION), ("bare", BLUE)):
        curves = 100 * np.array(record.column(decoder, model="memm", look_ahead=0))
        ax.semilogx(steps, curves.T, color=colour, linestyle="-", linewidth=0.8, alpha=0.45)
        ax.semilogx(steps, curves.mean(axis=0), color=colour, linestyle="-", linewidth=2.6)
    ax.text(2, 30, "its own decoder", color=VERMILION)
    ax.text(1.1, 8.5, "Viterbi on f + g", color=BLUE)
    ax.axhline(50, color=INK, linestyle=":")
    ax.text(1, 51.5, "a coin", color=INK)
    ax.set(xlabel="steps of Adam", ylabel="words misread, %", ylim=(0, 58))
    return figure


def decoders(models: Record, decoded: Record, far: Record | None = None) -> list[Figure]:
    """F1 of four models, the MEMMs by three decoders each, a panel a task, a colour an encoder.

    Args:
        models: all models by their own decoders.
        decoded: the MEMMs by three decoders, under an encoder of one character.
        far: the same under one of seven; None where that was not recorded.
    """
    own = {"exact": "own", "bare": "f + g", "balanced": "f + g + d"}
    rows = [("softmax", "exact", "softmax")]
    for model, label in (("memm", "MEMM"), ("bi-memm", "Bi-MEMM")):
        rows += [(model, name, f"{label}, {told}") for name, told in own.items()]
    rows += [("crf", "exact", "CRF")]
    panels = []
    for task, title in (("segmentation", "words"), ("entities", "names")):
        figure, ax = plt.subplots(figsize=(3.6, 3.0))
        for encoder, colour, marker, record in (
            ("one character", VERMILION, "o", decoded),
            ("seven characters", BLUE, "s", far),
        ):
            for place, (model, decoder, _) in enumerate(rows):
                case = {"task": task, "encoder": encoder, "model": model}
                if model in ("memm", "bi-memm") and record is not None:
                    samples = record.column(decoder, **case)
                elif decoder == "exact":
                    samples = models.column("f1", **case)
                else:
                    continue
                estimate = Estimate.from_samples(100 * np.array(samples))
                ax.plot([estimate.low, estimate.high], [place, place], color=colour, linestyle="-", linewidth=2.2)
                ax.plot(estimate.value, place, marker=marker, color=colour, markersize=5)
        (counted,) = models.column("f1", task=task, model="hmm")
        ax.axvline(100 * counted, color=GREEN, linestyle=":")
        ax.text(100 * counted, 0, "HMM ", color=GREEN, ha="right", va="center")
        for text, colour, at, side in (("1 character", VERMILION, 0, "left"), ("7 characters", BLUE, 1, "right")):
            ax.text(at, 1.02, text, color=colour, transform=ax.transAxes, ha=side)
        ax.set(xlabel=f"F1 of {title}, %", yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticklabels([label for *_, label in rows])
        panels.append(figure)
    return panels


def clocks(record: Record) -> list[Figure]:
    """Milliseconds of losses with their gradients, and of decoders, against the length of a sentence."""
    names = {"softmax": "softmax", "memm": "MEMM", "bi-memm": "Bi-MEMM", "crf": "CRF"}
    panels = []
    for what, title, wanted in (
        ("loss", "loss and gradient", names),
        ("decoding", "decoding", {k: names[k] for k in ("softmax", "memm", "crf")}),
    ):
        figure, ax = plt.subplots(figsize=(2.4, 2.3))
        rows = record.where(what=what, mode="xla", tags=8)
        length = [row["length"] for row in rows]
        for model in wanted:
            times = [1e3 * np.median(row["samples"][model]) for row in rows]
            ax.loglog(length, times, marker="o", color=COLOURS[model], linestyle="-", markersize=4)
            raised = {"bi-memm": 1.2, "softmax": 0.95, "memm": 0.9}.get(model, 1.0) if what == "loss" else 1.0
            ax.text(length[-1] * 1.15, raised * times[-1], names[model], color=COLOURS[model], va="center")
        ax.set(title=title, xlabel="length", ylabel="milliseconds", xlim=(25, 22_000), ylim=(0.15, 8))
        ax.set(xticks=[32, 512, 4096], xticklabels=["32", "512", "4096"], yticks=[0.2, 1, 5])
        ax.set_yticklabels(["0.2", "1", "5"])
        ax.minorticks_off()
        panels.append(figure)
    return panels


def many_labels(record: Record) -> list[Figure]:
    """Peak memory and seconds of a training step against the number of labels."""
    colours = {"crf": BLUE, "memm": VERMILION, "memm, low rank": GREEN}
    panels = []
    for what, ticks in (("megabytes", (1, 100, 2000)), ("seconds", (0.01, 0.1, 1))):
        figure, ax = plt.subplots(figsize=(2.4, 2.3))
        for model, colour in colours.items():
            rows = [row for row in record.where(model=model) if row["tags"] >= 300]
            labels = [row["tags"] for row in rows]
            values = [row["bytes"] / 1e6 if what == "megabytes" else np.median(row["seconds"]) for row in rows]
            ax.loglog(labels, values, marker="o", color=colour, linestyle="-", markersize=4)
            name = {"crf": "CRF", "memm": "MEMM"}.get(model, "MEMM,\nlow rank")
            raised = 0.7 if model == "memm, low rank" else 1.5 if (what, model) == ("seconds", "memm") else 1.0
            ax.text(labels[-1] * 1.2, raised * values[-1], name, color=colour, va="center")
        ax.set(title=f"{what} a step", xlabel="labels", xlim=(250, 250_000), yticks=ticks)
        ax.set(xticks=[300, 3000, 20_000], xticklabels=["300", "3000", "20,000"])
        ax.set_yticklabels([f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        panels.append(figure)
    return panels


__all__ = [
    "clocks",
    "decoders",
    "denominators",
    "letters_received",
    "many_labels",
    "misread",
    "path_of_training",
    "pipes",
    "words_misread",
]
