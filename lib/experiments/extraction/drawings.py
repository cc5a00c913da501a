"""The figures of chapter 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lib.experiments.extraction.events import f1_of_folds
from lib.experiments.extraction.reading import exact_rate
from lib.experiments.extraction.relations import TREATMENTS, f1_among, in_words, overlap, predicates
from lib.experiments.extraction.trained import found_at
from lib.extraction import Cascade, power_sigmoid
from lib.workbench import figures
from lib.workbench.corpora import DUIE_PREDICATES, Statement
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION
from lib.workbench.records import Record

#: The kinds of :func:`lib.experiments.extraction.relations.overlap` in words.
OVERLAPS = {"none": "none", "SEO": "one\nentity", "EPO": "a pair of\nentities"}
#: One colour a treatment of rare positives, a way to answer, a role of a span.
TREATED = {"plain": PURPLE, "power": BLUE, "bias": ORANGE}
WAYS_SHOWN = {"pointer": BLUE, "BIO": VERMILION, "both, the pointer answers": SKY, "both, BIO answers": ORANGE}


def _box(ax: Axes, left: float, bottom: float, width: float, height: float, text: str, colour: str) -> None:
    """A rounded box with text in its middle."""
    inner = (left + 0.05, bottom + 0.05), width - 0.1, height - 0.1
    ax.add_patch(
        FancyBboxPatch(*inner, boxstyle="round,pad=0.05", facecolor="none", edgecolor=colour, linewidth=1.6)
    )
    ax.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", color=colour)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK) -> None:
    ax.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "linestyle": "-"}
    )


def scores(relations: Record, readings: Record, events: Record) -> dict[str, Estimate]:
    """What the three tasks score, in percent: exact answers, F1 of triples, F1 of event spans."""
    return {
        "answers": Estimate.from_samples(exact_rate(readings, "pointer")),
        "triples": Estimate.from_samples(100 * np.array(relations.column("f1"))),
        "events": Estimate.from_samples(f1_of_folds(events, 100.0)),
    }


def three_tasks(scored: Mapping[str, Estimate]) -> Figure:
    """One encoder under three heads, and what each of them scores."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    heads = (
        ("answers", "two pointers", "one span", "exact"),
        ("triples", "pointers, twice", "any spans, in pairs", "F1"),
        ("events", "labels", "spans with roles", "F1"),
    )
    for k, (task, head, output, measure) in enumerate(heads):
        colour = (BLUE, VERMILION, GREEN)[k]
        left = 3.3 * k
        _box(ax, left, 2.6, 3.0, 0.9, head, colour)
        _arrow(ax, (left + 1.5, 1.75), (left + 1.5, 2.55))
        _arrow(ax, (left + 1.5, 3.55), (left + 1.5, 4.2), colour)
        ax.text(left + 1.5, 4.3, f"{task}:\n{output}", ha="center", va="bottom", color=INK)
        ax.text(left + 1.5, 5.75, f"{scored[task].value:.0f} % {measure}", ha="center", va="bottom", color=colour)
    _box(ax, 0, 0.85, 9.6, 0.9, "an encoder: one vector a token", INK)
    _arrow(ax, (4.8, 0.25), (4.8, 0.8))
    ax.text(4.8, -0.1, "a text", ha="center", va="center")
    ax.set(xlim=(-0.1, 9.8), ylim=(-0.4, 6.4))
    ax.axis("off")
    return figure


def _spelled(
    tokens: Sequence[str], spans: Sequence[tuple[int, int, str, str, bool]], labels: Sequence[str], width: float
) -> Figure:
    """Tokens in a row, spans as bars above, their labels below; what cannot be spelled is dashed."""
    figure, ax = plt.subplots(figsize=(3.5, 1.9))
    centres = np.cumsum([len(token) + 2.0 for token in tokens]) - np.array([len(t) / 2 + 1.0 for t in tokens])
    sides = np.array([len(token) / 2 + 0.6 for token in tokens])
    for token, label, centre in zip(tokens, labels, centres, strict=True):
        ax.text(centre, 0, token, ha="center", va="center")
        colour = INK if label == "O" else BLUE
        ax.text(centre, -0.9, label, ha="center", va="center", color=colour)
    for level, (start, end, name, colour, kept) in enumerate(spans):
        left, right = centres[start] - sides[start], centres[end - 1] + sides[end - 1]
        height = 0.7 + 0.95 * level
        ax.plot([left, right], [height, height], color=colour, linestyle="-" if kept else (0, (3, 2)), linewidth=3)
        told = name if kept else f"{name}: cannot be spelled"
        ax.text((left + right) / 2, height + 0.18, told, ha="center", va="bottom", color=colour)
    ax.set(xlim=(centres[0] - sides[0] - 0.5, width), ylim=(-1.4, 0.9 + 0.95 * len(spans)))
    ax.axis("off")
    return figure


def spelled() -> list[Figure]:
    """A nested span and a span with two roles under BIO labels, from DuIE (in English) and from BioNLP."""
    nested = ["Works", "of", "Ye", "Lingfeng", ",", "by", "him"]
    roles = ["translocation", "of", "pStat3", "is", "…"]
    title, author, first, second = "the book", "its author", "moves", "is activated"
    return [
        _spelled(
            nested,
            [(2, 4, author, VERMILION, False), (0, 4, title, BLUE, True)],
            ["B", "I", "I", "I", "O", "O", "O"],
            38,
        ),
        _spelled(
            roles,
            [(2, 3, first, BLUE, True), (2, 3, second, VERMILION, False)],
            ["O", "O", "B", "O", "O"],
            38,
        ),
    ]


def _label(ax: Axes, text: str, point: tuple[float, float], place: tuple[float, float], colour: str) -> None:
    """Words beside the grid, and a line to the point they name."""
    line = {"arrowstyle": "-", "color": colour, "lw": 0.8, "shrinkA": 1, "shrinkB": 5}
    ax.annotate(text, point, place, color=colour, va="center", arrowprops=line)


def all_pairs() -> Figure:
    """The table of all pairs of a start and an end: two spans, their shadows, their ghosts, the band."""
    n, w, answers = 12, 6, ((2, 4), (7, 9))
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for s in range(n):
        ends = range(s, n)
        ax.plot([s] * len(ends), ends, ".", color=INK, markersize=2.5, alpha=0.5)
        band = [e for e in ends if e < s + w]
        ax.plot([s] * len(band), band, "s", color=SKY, markersize=8, alpha=0.28, markeredgewidth=0)
    for (s, e), colour in zip(answers, (BLUE, GREEN), strict=True):
        ax.plot([s, s], [-0.9, e], color=colour, linestyle=":", linewidth=1.4)
        ax.plot([-0.9, s], [e, e], color=colour, linestyle=":", linewidth=1.4)
        ax.plot(s, -0.9, "^", color=colour)
        ax.plot(-0.9, e, ">", color=colour)
        ax.plot(s, e, "o", color=colour, markersize=9)
        _label(ax, "a span", (s, e), (s + 1.9, e - 1.6), colour)
    ax.plot(2, 9, "o", markerfacecolor="none", color=VERMILION, markersize=9, markeredgewidth=1.6)
    _label(ax, "a ghost", (2, 9), (3.4, n + 0.4), VERMILION)
    ax.text(12.2, 3.4, f"shaded: the band,\nat most {w} tokens", color=SKY, va="center")
    ax.text(12.2, 0.6, "empty: ends\nbefore starts", color=INK, va="center")
    ax.set(
        xlabel="start", ylabel="end", xlim=(-1.2, 18), ylim=(-1.2, n + 0.9), xticks=[], yticks=[], aspect="equal"
    )
    ax.grid(visible=False)
    ax.xaxis.set_label_coords(0.3, -0.02)
    return figure


def two_steps() -> Figure:
    """The cascade: pointers at subjects, a layer that is told one of them, its objects in rows of predicates."""
    tokens = ["song", ":", "music", "Gao", ",", "sung", "Cai"]
    figure, ax = plt.subplots(figsize=(4.6, 3.3))
    for k, token in enumerate(tokens):
        ax.text(k, 0, token, ha="center", va="center")
    _pointers(ax, 1.0, "subjects", [(0, 0)], BLUE, len(tokens))
    _arrow(ax, (0, 1.4), (0, 2.35), BLUE)
    _box(ax, -0.6, 2.4, 7.2, 0.95, "layer normalization, told “song”", BLUE)
    _pointers(ax, 4.25, "music by", [], VERMILION, len(tokens))
    _pointers(ax, 5.25, "lyrics by", [(3, 3)], VERMILION, len(tokens))
    _pointers(ax, 6.25, "sung by", [(6, 6)], VERMILION, len(tokens))
    _arrow(ax, (3, 3.4), (3, 4.0), VERMILION)
    ax.text(-2.5, 7.0, "step 2: its objects, a row for each predicate", ha="left", color=VERMILION)
    ax.text(0.4, 1.75, "step 1: which spans are subjects?", ha="left", va="center", color=BLUE)
    ax.set(xlim=(-2.6, 6.8), ylim=(-0.5, 7.4))
    ax.axis("off")
    return figure


def _pointers(ax: Axes, y: float, name: str, spans: Sequence[tuple[int, int]], colour: str, count: int) -> None:
    """A row of pairs of lights, for start and end of every token; those that point are lit."""
    ax.text(-0.7, y, name, ha="right", va="center", color=colour)
    starts, ends = {s for s, _ in spans}, {e for _, e in spans}
    for k in range(count):
        for side, lit in ((-0.16, k in starts), (0.16, k in ends)):
            marker = ">" if side < 0 else "<"
            face = colour if lit else "none"
            ax.plot(k + side, y, marker, color=colour, markerfacecolor=face, markersize=6 if lit else 4)


def overlaps(statements: Sequence[Statement]) -> Figure:
    """Bars of how many sentences have one, two, … triples, stacked by how these overlap."""
    most = max(len(set(statement.triples)) for statement in statements)
    counts = np.zeros((len(OVERLAPS), most))
    for statement in statements:
        counts[list(OVERLAPS).index(overlap(statement.triples)), len(set(statement.triples)) - 1] += 1
    figure, ax = plt.subplots(figsize=figures.WIDE)
    floors = counts.cumsum(axis=0) - counts
    for row, floor, name, hatch in zip(counts, floors, OVERLAPS.values(), ("", "//", "xx"), strict=True):
        ax.bar(range(1, most + 1), row, bottom=floor, label=name.replace("\n", " "), hatch=hatch, edgecolor="white")
    ax.set_xticks(range(1, most + 1))
    ax.set(xlabel="triples of a sentence", ylabel="sentences")
    ax.legend()
    return figure


#: The rows of the explorable, from the top: a predicate of DuIE or the subject, its colour, where its bar stands.
ROWS = {"subject": INK, "作曲": BLUE, "作词": VERMILION, "歌手": GREEN}


def threshold(model: Cascade, characters: object, statement: Statement, record: Record) -> Explorable:
    """The pointers of one sentence, what they find at every threshold, and what that does to precision and recall.

    Args:
        model: a cascade.
        characters: what makes its ids.
        statement: a sentence with one subject.
        record: "cascade", with the counts of many sentences at every threshold.
    """
    text = statement.text
    subject = statement.triples[0][0]
    start = text.index(subject) + 1
    place = (start, start + len(subject))
    logits = model({"ids": characters([text]), "subject": np.array([place])})
    subjects, objects = (
        ops.convert_to_numpy(power_sigmoid(logits[step], power))[0, 1 : len(text) + 1]
        for step, power in zip(("subjects", "objects"), model.power, strict=True)
    )
    bars = {name: subjects if name == "subject" else objects[:, predicates().index(name)] for name in ROWS}
    (row,) = record.rows
    thresholds = row["thresholds"]
    found = found_at(model, characters, [text], thresholds)
    names = {"subject": "subject"} | {p: DUIE_PREDICATES[p] for p in ROWS if p != "subject"}

    lanes = [1.2 + 0.24 * k for k in range(len(ROWS))]

    def spans_of(t: float, name: str) -> list[tuple[int, int]]:
        (triples,) = found[t]
        if name == "subject":
            return sorted({triple.subject for triple in triples})
        return sorted({triple.object for triple in triples if predicates()[triple.predicate] == name})

    def draw(t: float) -> list[tuple[list[float], list[float]]]:
        pairs = [([0, len(text)], [t, t]), ([0, len(text)], [-t, -t])]
        for lane, name in zip(lanes, ROWS, strict=True):
            characters_of = [k for a, b in spans_of(t, name) for k in range(a, b)]
            pairs.append(([k - 0.5 for k in characters_of], [lane] * len(characters_of)))
        return pairs

    def tell(t: float) -> str:
        correct, predicted, gold = row["counts"][thresholds.index(t)]
        told = sorted(in_words(text, found[t][0]), key=lambda triple: triple[1:])
        triples = "; ".join(f"{DUIE_PREDICATES[p]} {o}" for _, p, o in told) or "nothing"
        p, r = 100 * correct / max(predicted, 1), 100 * correct / gold
        f1 = 200 * correct / (predicted + gold)
        return (
            f"Threshold {t:.2f}. Found here: {triples}. On {row['test']} test sentences: precision {p:.0f} %, "
            f"recall {r:.0f} %, F1 {f1:.0f} %."
        )

    still = []
    for k, (lane, (name, colour)) in enumerate(zip(lanes, ROWS.items(), strict=True)):
        still.append((Curve(names[name], colour, at=(0.82, 1 - (lane - 0.07 + 1.1) / 3.35)), ([0], [0])))
        for at, (up, down) in enumerate(bars[name]):
            left, right = at + 0.1 + 0.2 * k, at + 0.3 + 0.2 * k
            for value in (float(up), -float(down)):
                if abs(value) > 0.02:
                    bar = [left, left, right, right, left], [0, value, value, 0, 0]
                    still.append((Curve("", colour), bar))
    return Explorable(
        draw=draw,
        tell=tell,
        controls=[Control("Threshold", thresholds, lambda t: f"{t:.2f}", start=thresholds.index(0.5))],
        curves=[Curve("", INK, "dashed"), Curve("", INK, "dashed")]
        + [Curve("", colour, "dots") for colour in ROWS.values()],
        x=Axis("", 0, len(text), {k + 0.5: character for k, character in enumerate(text)}),
        y=Axis(
            "bars: starts up, ends down; dots: found", -1.1, 2.25, {-1: "1", -0.5: "½", 0: "0", 0.5: "½", 1: "1"}
        ),
        alt="Bars of how probably a span starts or ends at each character, and dots over what is found.",
        still=still,
    )


def first_steps(early: Record, late: Record) -> list[Figure]:
    """The loss in the first steps, and F1 early and late, a dot a seed, for each treatment of rare positives."""
    left, ax = plt.subplots(figsize=(2.4, 2.3))
    for treatment in TREATMENTS:
        losses = np.mean(early.column("losses", treatment=treatment), axis=0)
        dashes = "--" if treatment == "bias" else "-"
        ax.semilogy(range(1, 61), losses[:60], color=TREATED[treatment], linestyle=dashes)
    ax.text(20, 4, "plain", color=TREATED["plain"])
    ax.text(2, 0.115, "power, bias (dashed)", color=INK)
    ax.set(title="loss", xlabel="step", yticks=[0.1, 1, 10], ylim=(0.09, 20))
    ax.set_yticklabels(["0.1", "1", "10"])
    ax.minorticks_off()
    right, ax = plt.subplots(figsize=(2.4, 2.3))
    for k, treatment in enumerate(TREATMENTS):
        for place, (record, marker) in enumerate(((early, "o"), (late, "s"))):
            values = 100 * np.array(record.column("f1", treatment=treatment))
            x = place + 0.24 * (k - 1) + np.linspace(-0.05, 0.05, len(values))
            ax.plot(x, values, marker, color=TREATED[treatment], markersize=4.5, alpha=0.75, linestyle="none")
    for x, y, name in ((-0.42, 8, "plain"), (-0.2, 42, "power"), (0.1, 8, "bias")):
        ax.text(x, y, name, color=TREATED[name])
    ax.set(title="F1, %", xlim=(-0.5, 1.5), ylim=(-4, 76), xticks=[0, 1])
    ax.set_xticklabels(["190 steps", "582 steps"])
    return [left, right]


def scores_by_group(record: Record, statements: Sequence[Statement]) -> list[Figure]:
    """F1 of the record "relations", with intervals over seeds, by overlap of the triples and by length."""
    kinds = np.array([overlap(statement.triples) for statement in statements])
    lengths = np.searchsorted((30, 46, 62, 94), [len(statement.text) for statement in statements])
    panels = {
        "overlap of its triples": {name: kinds == kind for kind, name in OVERLAPS.items()},
        "characters": {name: lengths == k for k, name in enumerate(("–30", "–46", "–62", "–94", "more"))},
    }
    made = []
    for grouping, groups in panels.items():
        figure, ax = plt.subplots(figsize=(2.4, 2.3))
        for k, chosen in enumerate(groups.values()):
            found = Estimate.from_samples(f1_among(record, chosen))
            ax.plot([k, k], [found.low, found.high], color=BLUE, linestyle="-", linewidth=2.2)
            ax.plot(k, found.value, "o", color=BLUE)
        ax.set_xticks(range(len(groups)), groups)
        ax.set(xlabel=grouping, xlim=(-0.5, len(groups) - 0.5), ylim=(35, 90), title="F1, %")
        made.append(figure)
    return made


def answers_by_kind(record: Record) -> Figure:
    """Exact answers of the record "reading", with intervals over seeds, by kind of question and way to answer."""
    kinds = {"one": "one\nanswer", "repeated": "one, twice\nin the text", "several": "several", "none": "no answer"}
    figure, ax = plt.subplots(figsize=(4.6, 3.0))
    for k, (way, colour) in enumerate(WAYS_SHOWN.items()):
        for place, kind in enumerate(kinds):
            found = Estimate.from_samples(exact_rate(record, way, kind))
            x = place + 0.16 * (k - 1.5)
            low, high = max(found.low, 0), min(found.high, 100)
            ax.plot([x, x], [low, high], color=colour, linestyle="-", linewidth=1.8)
            ax.plot(x, found.value, "osD^"[k], color=colour, markersize=5)
        ax.text(0.02 + 0.5 * (k % 2), 1.12 - 0.09 * (k // 2), way, color=colour, transform=ax.transAxes)
    ax.set_xticks(range(len(kinds)), kinds.values())
    ax.set(ylabel="exact, %", ylim=(0, 100), xlim=(-0.5, 3.5))
    return figure


def arguments_left(left: Mapping[str, int]) -> Figure:
    """Bars of the arguments of events, and of how many of them labels can spell and the metric compares."""
    rows = [
        ("arguments in the texts", "arguments", INK),
        ("BIO labels can spell", "spelled", BLUE),
        ("the metric compares,\nby sentence", "seen", ORANGE),
        ("the metric compares,\nby document", "seen by document", VERMILION),
    ]
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for place, (_, key, colour) in enumerate(rows):
        ax.barh(place, left[key], color=colour, height=0.6)
        ax.text(left[key] + 10, place, f"{left[key]}", va="center", color=colour)
    ax.set(xlabel="arguments", xlim=(0, 700), yticks=range(len(rows)))
    ax.set_yticklabels([name for name, *_ in rows])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    return figure


__all__ = [
    "OVERLAPS",
    "all_pairs",
    "answers_by_kind",
    "arguments_left",
    "first_steps",
    "overlaps",
    "scores",
    "scores_by_group",
    "spelled",
    "three_tasks",
    "threshold",
    "two_steps",
]
