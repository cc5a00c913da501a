"""The figures of chapter 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray

from lib.experiments.attention import costs
from lib.experiments.attention.decoder import best_rate
from lib.experiments.attention.recall import error_by_age
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION
from lib.workbench.records import Record

MIB = 2.0**20

#: One colour a kind of attention, in all figures.
COLOURS = {
    "softmax": VERMILION,
    "rotary softmax": ORANGE,
    "linear": BLUE,
    "elu + 1": BLUE,
    "1 + cos": GREEN,
    "double softmax": PURPLE,
    "second order": SKY,
    "random features": INK,
    "no denominator": SKY,
    "decay": PURPLE,
    "vector gate": INK,
    "delta rule": GREEN,
}


def one_query(record: Record) -> Figure:
    """The weights of one query of a trained head, by the softmax and by elu + 1."""
    (row,) = record.rows
    pieces, query = row["pieces"], row["query"]
    figure, axes = plt.subplots(2, figsize=(figures.WIDE[0], 3.0), sharex=True, sharey=True)
    top = max(row["softmax"])
    mean = 1 / len(pieces)
    for ax, name in zip(axes, ("softmax", "elu + 1"), strict=True):
        weights = np.array(row[name])
        ax.bar(range(len(weights)), weights, width=0.85, color=COLOURS[name])
        ax.set_title(f"{name}: largest weight {weights.max():.2g}", color=COLOURS[name])
        ax.grid(visible=False, axis="x")
        ax.axhline(mean, color=INK, linestyle=":", lw=1)
        ax.set(ylim=(0, 1.25 * top), xlim=(-1, len(weights)))
    highest = int(np.argmax(row["softmax"]))
    side = "right" if highest > len(pieces) / 2 else "left"
    shift = -1.2 if side == "right" else 1.2
    axes[0].text(highest + shift, 1.02 * top, f"“{pieces[highest]}”", ha=side, va="center")
    axes[1].text(0, mean + 0.06 * top, "dotted: if all weighed the same")
    axes[1].set(xlabel=f"word piece asked by “{pieces[query]}”", xticks=[0, 16, 32, 48, 63])
    axes[1].set_xticklabels(["1", "17", "33", "49", "64"])
    return figure


def two_orders(ratio: int = 4) -> list[Figure]:
    """Both orders of QKᵀV as rectangles to scale, with ``ratio`` times as many tokens as features."""
    n, d = float(ratio), 1.0
    panels = []
    for title, first, second in (
        ("(QKᵀ) V", (("Q", n, d), ("Kᵀ", d, n), ("", n, n)), (("", n, n), ("V", n, d), ("out", n, d))),
        ("Q (KᵀV)", (("Kᵀ", d, n), ("V", n, d), ("", d, d)), (("Q", n, d), ("", d, d), ("out", n, d))),
    ):
        figure, ax = plt.subplots(figsize=(2.5, 2.5))
        for (left, right, product), y in ((first, 5.2), (second, 0.0)):
            x = 0.0
            for (name, rows, columns), sign in zip((left, right, product), ("·", "=", ""), strict=True):
                made = name == ""
                colour = VERMILION if made and rows == columns == n else BLUE if made else INK
                ax.add_patch(
                    Rectangle(
                        (x, y + (n - rows) / 2), columns, rows, facecolor=colour, alpha=0.75 if made else 0.2, lw=0
                    )
                )
                label = name or ("n × n" if rows == n else "d × d")
                if made and rows == d:
                    ax.text(x + columns / 2, y + (n + rows) / 2 + 0.25, label, ha="center", color=colour)
                else:
                    text = "white" if made else INK
                    ax.text(x + columns / 2, y + n / 2, label, ha="center", va="center", color=text)
                x += columns + 0.45
                ax.text(x, y + n / 2, sign, ha="center", va="center")
                x += 0.45
        ax.set(title=title, xlim=(-0.1, 11.0), ylim=(-0.2, 9.6), aspect="equal")
        ax.axis("off")
        panels.append(figure)
    return panels


def costs_of_orders() -> Explorable:
    """Operations of both orders against the number of tokens, for a length and a width to be chosen."""
    tokens, widths = [2**k for k in range(4, 17)], [16, 32, 64, 128, 256]
    ends = (tokens[0], tokens[-1])

    def flops(n: int, d: int) -> tuple[int, int]:
        return costs.flops("softmax", n, d), costs.flops("linear", n, d)

    def draw(n: int, d: int) -> list[tuple[Sequence[float], Sequence[float]]]:
        left, right = flops(n, d)
        lines = [(ends, [flops(end, d)[side] for end in ends]) for side in (0, 1)]
        crossing = costs.crossing("softmax", "linear", d)
        return [*lines, ([n], [left]), ([n], [right]), ([crossing], [flops(round(crossing), d)[0]])]

    def tell(n: int, d: int) -> str:
        left, right = flops(n, d)
        if n == d:
            verdict = "both orders cost the same"
        elif n > d:
            verdict = f"the right order takes {left / right:,.0f} times fewer operations"
        else:
            verdict = f"the right order takes {right / left:,.0f} times more operations"
        return f"{n:,} tokens, heads of {d}: {verdict}. They cross at {d} tokens."

    decades = {
        10.0**k: f"10{str(k).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}" for k in (4, 6, 8, 10, 12)
    }
    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            Control("Tokens n", tokens, "{:,}".format, start=5),
            Control("Width d", widths, str, start=2, buttons=True),
        ],
        curves=[
            Curve("(QKᵀ) V", VERMILION, "line", (0.62, 0.12)),
            Curve("Q (KᵀV)", BLUE, "dashed", (0.72, 0.72)),
            Curve("", VERMILION, "dots"),
            Curve("", BLUE, "dots"),
            Curve("where they cross", INK, "dots", (0.04, 0.3)),
        ],
        x=Axis("tokens n", *ends, {16: "16", 128: "128", 1024: "1,024", 8192: "8,192"}, True),
        y=Axis("operations of a head", 1e4, 1e13, decades, True),
        alt="Operations of both orders of the product against the number of tokens, two straight lines that cross.",
    )


def concentration(scales: Sequence[float], portraits: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Figure]:
    """Entropy and largest weight of each attention against the scale of its queries and keys."""
    panels = []
    for key, label, width in (
        ("entropy", "entropy of a row / ln n", 3.5),
        ("largest", "largest / mean weight", 2.4),
    ):
        figure, ax = plt.subplots(figsize=(width, 2.4))
        for i, (name, of_scales) in enumerate(portraits.items()):
            values = [portrait[key] for portrait in of_scales]
            ax.plot(scales, values, marker="osDv^P"[i], ms=4, color=COLOURS[name], label=name)
            if key == "entropy":
                apart = {"elu + 1": 0.06, "1 + cos": -0.03, "random features": 0.1, "softmax": -0.02}.get(name, 0)
                ax.text(scales[-1] * 1.06, values[-1] + apart, name, color=COLOURS[name], va="center")
        ax.set(xlabel="scale of q and k", ylabel=label)
        panels.append(figure)
    panels[0].axes[0].set(ylim=(0, 1.1), xlim=(0, 1.75 * scales[-1]), xticks=[0, 1, 2, 3, 4])
    panels[1].axes[0].set(yscale="log", yticks=[1, 10, 100], xticks=[0, 1, 2, 3, 4])
    panels[1].axes[0].set_yticklabels(["1", "10", "100"])
    return panels


def variance(record: Record) -> Figure:
    """The relative error of random features against the length of q and k, with the law for independent ones."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    rows = record.where(orthogonal=False)
    norms = [row["norm"] for row in rows]
    ax.plot(norms, [row["law"] for row in rows], color=INK, linestyle="-", lw=1)
    for orthogonal, marker, colour, size in ((False, "o", BLUE, 8), (True, "s", VERMILION, 4)):
        found = [row["error"] for row in record.where(orthogonal=orthogonal)]
        ax.plot(norms, found, marker, color=colour, ms=size)
    ax.text(2.1, 60, "the law", ha="right", color=INK)
    ax.text(1.62, 0.4, "orthogonal directions", color=VERMILION)
    ax.text(0.3, 0.3, "independent", color=BLUE)
    ax.axhline(1, lw=0.8, color=INK, linestyle=":")
    ax.axvline(64**0.25, lw=0.8, color=INK, linestyle=":")
    ax.text(64**0.25 - 0.04, 0.03, "keys of a\nhead of 64", ha="right")
    ax.set(yscale="log", xlabel="length of q and of k", ylabel="relative error", ylim=(0.02, 3e3))
    ax.set(yticks=[0.1, 1, 10, 100, 1000], yticklabels=["0.1", "1", "10", "100", "1000"])
    ax.minorticks_off()
    return figure


def stand_ins(record: Record, tokens: int = 256) -> list[Figure]:
    """The error of each way in place of a trained softmax, and the rank that would do, against the tokens."""
    rows = record.where(tokens=tokens)
    ways = sorted(rows[0]["median"], key=lambda way: np.mean([row["median"][way] for row in rows]))
    first, ax = plt.subplots(figsize=(3.7, 2.6))
    for place, way in enumerate(ways):
        found = Estimate.from_samples([row["median"][way] for row in rows])
        colour = {"elu + 1": BLUE, "mean of all values": VERMILION}.get(way, INK)
        ax.plot([found.low, found.high], [place, place], color=colour, linestyle="-", lw=2.2)
        ax.plot(found.value, place, "o", color=colour)
    ax.set(yticks=range(len(ways)), ylim=(len(ways) - 0.5, -0.5), xlim=(0, 1.05), xlabel="error of a head's output")
    ax.set_yticklabels(ways)
    second, ax = plt.subplots(figsize=(2.4, 2.6))
    lengths = sorted({row["tokens"] for row in record.rows})
    for start in sorted({row["start"] for row in record.rows}):
        ax.plot(lengths, [record.where(tokens=n, start=start)[0]["needed"] for n in lengths], color=INK, lw=0.7)
        ax.lines[-1].set(linestyle="-", alpha=0.6)
    means = [np.mean(record.column("needed", tokens=n)) for n in lengths]
    ax.plot(lengths, means, "o-", color=VERMILION)
    ax.set(xscale="log", yscale="log", xlabel="word pieces", title="rank for an error of 0.1")
    ax.set_xticks(lengths, map(str, lengths))
    ax.set_yticks([10, 20, 40], ["10", "20", "40"])
    ax.set_ylim(9, 45)
    ax.minorticks_off()
    return [first, second]


def chunks(n: int = 16, C: int = 4) -> list[Figure]:
    """Which pairs of queries and keys are looked at in chunks, and which are read from a state."""
    first, ax = plt.subplots(figsize=(2.5, 2.6))
    for i in range(0, n, C):
        ax.add_patch(Rectangle((0, n - i - C), i, C, facecolor=BLUE, alpha=0.25, lw=0))
        corners = [(i, n - i), (i, n - i - C), (i + C, n - i - C)]
        ax.add_patch(Polygon(corners, facecolor=VERMILION, alpha=0.85, lw=0))
        if i:
            ax.text(i / 2, n - i - C / 2, "read from S" if i > C else "S", ha="center", va="center", color=BLUE)
    ax.text(n * 0.62, n * 0.8, "pairs,\none by one", color=VERMILION, va="center", ha="left")
    ax.set(title="a query a row, a key a column", xlim=(-0.2, n + 0.2), ylim=(-0.2, n + 0.2), aspect="equal")
    ax.axis("off")
    second, ax = plt.subplots(figsize=(2.9, 2.6))
    for k in range(n // C):
        ax.add_patch(Polygon([(k * 4, 2), (k * 4, 0), (k * 4 + 2, 0)], facecolor=VERMILION, alpha=0.85, lw=0))
        ax.text(k * 4 + 1, -0.7, f"chunk {k + 1}", ha="center", va="center")
        ax.add_patch(Rectangle((k * 4 + 2.3, 3.2), 1.4, 1.4, facecolor=BLUE, alpha=0.75, lw=0))
        ax.text(k * 4 + 3, 3.9, "S", ha="center", va="center", color="white")
        _arrow(ax, (k * 4 + 1.5, 1.3), (k * 4 + 2.4, 3.1), VERMILION)
        if k:
            _arrow(ax, (k * 4 - 0.3, 3.9), (k * 4 + 2.25, 3.9), BLUE)
            _arrow(ax, (k * 4 - 0.6, 3.1), (k * 4 + 0.3, 1.9), BLUE)
    ax.text(0, 5.3, "states, handed on", color=BLUE)
    ax.text(0, -1.9, "triangles, all at once", color=VERMILION)
    ax.set(xlim=(-0.3, 4 * n // C), ylim=(-2.3, 6))
    ax.axis("off")
    return [first, second]


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4})


#: How the contestants of the chart are drawn: colour, dash, name.
LINES = {
    "causal softmax": (VERMILION, ":", "softmax"),
    "causal fused softmax": (ORANGE, "--", "fused softmax"),
    "causal linear, all states": (PURPLE, "-.", "all states"),
    "causal linear": (BLUE, "-", "chunks"),
}


def chart(times: Record, memory: Record) -> list[Figure]:
    """Seconds and bytes of a step against the number of tokens, both logarithmic."""
    panels = []
    for record, key, unit, title in (
        (times, "seconds", 1.0, "seconds a step"),
        (memory, "bytes", MIB, "MiB beyond the inputs"),
    ):
        figure, ax = plt.subplots(figsize=(2.7, 2.8))
        for form, (colour, line, name) in LINES.items():
            n, y = measured(record, form, key)
            ax.plot(n, np.array(y) / unit, line, color=colour, marker=".", label=name)
        ax.set(xscale="log", yscale="log", xlabel="tokens n", title=title)
        ax.set_xticks([256, 4096, 65536], ["256", "4,096", "65,536"])
        ax.minorticks_off()
        panels.append(figure)
    panels[0].axes[0].set(ylim=(3e-3, 40), yticks=[0.01, 0.1, 1, 10], yticklabels=["0.01", "0.1", "1", "10"])
    panels[1].axes[0].set(ylim=(5, 6e3), yticks=[10, 100, 1000], yticklabels=["10", "100", "1,000"])
    panels[0].axes[0].legend(handlelength=2.2, labelspacing=0.25, borderpad=0, loc="lower right", fontsize=9)
    return panels


def measured(record: Record, form: str, key: str) -> tuple[list[int], list[float]]:
    """The numbers of tokens at which a form was measured, and what was measured there.

    Example:
        >>> from lib.workbench.measure import Device
        >>> rows = ({"n": 64, "form": "a", "seconds": 2.0}, {"n": 128, "form": "a", "skipped": "too long"})
        >>> measured(Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", rows), "a", "seconds")
        ([64], [2.0])
    """
    rows = [row for row in record.where(form=form) if row.get(key) is not None]
    return [row["n"] for row in rows], [row[key] for row in rows]


def layer(record: Record) -> Figure:
    """How many times as long a whole layer takes with a softmax: by operations, and measured."""
    figure, ax = plt.subplots(figsize=figures.WIDE)
    n = np.geomspace(256, 8192, 50).astype(int)
    for size, line, at in ((64, "-", (8700, 2.55)), (256, "--", (8700, 2.15))):
        linear = [costs.layer_flops(int(m), "linear", features=size, values=size) for m in n]
        quotient = [costs.layer_flops(int(m)) / other for m, other in zip(n, linear, strict=True)]
        ax.plot(n, quotient, line, color=INK, lw=1.2)
        ax.text(*at, f"operations,\nheads of {size}", color=INK, ha="left", va="center")
    rows = record.where(backward=True)
    value, low, high = np.array([row["speedup"]["softmax"] for row in rows]).T
    tokens = [row["n"] for row in rows]
    ax.errorbar(tokens, value, [value - low, high - value], fmt="o", color=VERMILION, ls="none")
    ax.text(1000, 1.68, "measured", color=VERMILION, ha="center")
    ax.axhline(1, lw=0.8, color=INK, linestyle=":")
    ax.set(xscale="log", xlabel="tokens n", ylabel="softmax / linear", xlim=(240, 28_000), ylim=(0.85, 2.75))
    ax.set_xticks([512, 1024, 2048, 4096, 8192], ["512", "1,024", "2,048", "4,096", "8,192"])
    ax.minorticks_off()
    return figure


def token(record: Record) -> list[Figure]:
    """Time of one more token, and the bytes kept for it, against the number of tokens before."""
    lines = {"cache": (VERMILION, "o", "softmax"), "state": (BLUE, "s", "state")}
    panels = []
    for key, unit, title in (("seconds", 1e-3, "ms for one more token"), ("bytes", MIB, "MiB kept, one layer")):
        figure, ax = plt.subplots(figsize=(2.5, 2.2))
        for way, (colour, marker, name) in lines.items():
            rows = [row for row in record.where(way=way) if "seconds" in row]
            known, values = [row["known"] for row in rows], np.array([row[key] / unit for row in rows])
            ax.plot(known, values, marker=marker, color=colour, linestyle="-", ms=4)
            if way == "state":
                ax.text(known[-1], 2.2 * values[-1], name, color=colour, ha="right", va="center")
            else:
                ax.text(known[-1] / 3, values[-1], name, color=colour, ha="right", va="center")
        ax.set(xscale="log", yscale="log", xlabel="tokens so far", title=title)
        ax.set_xticks([128, 2048, 65536], ["128", "2,048", "65,536"])
        ax.minorticks_off()
        panels.append(figure)
    return panels


def remembered(dim: int = 32, trials: int = 200) -> Explorable:
    """The error of each pair that was written into a state, by how many came after it, under three rules."""
    rules = {"sum": VERMILION, "decay": PURPLE, "delta": BLUE}
    counts = [4, 8, 16, 32, 48, 64]
    errors = {(rule, n): np.round(error_by_age(dim, n, rule, trials, seed=7), 3) for rule in rules for n in counts}

    def draw(n: int) -> list[tuple[NDArray, NDArray]]:
        return [(np.arange(n), errors[rule, n]) for rule in rules]

    def tell(n: int) -> str:
        first, last = ({rule: errors[rule, n][place] for rule in rules} for place in (-1, 0))
        return (
            f"{n} pairs in a state of {dim} × {dim}: the newest is read with an error of {last['sum']:.2f} by the "
            f"sum and {last['delta']:.2f} by the delta rule, the oldest with {first['sum']:.2f} and "
            f"{first['delta']:.2f}."
        )

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[Control("Pairs written", counts, str, start=3)],
        curves=[
            Curve("sum", rules["sum"], "line", (0.9, 0.1)),
            Curve("decay 0.95", rules["decay"], "dashed", (0.74, 0.28)),
            Curve("delta rule", rules["delta"], "line", (0.3, 0.93)),
        ],
        x=Axis("pairs written after it", 0, 63, {0: "0", 16: "16", 32: "32", 48: "48", 63: "63"}),
        y=Axis("squared error of a value", 0, 2.2, {0: "0", 0.5: "½", 1: "1", 1.5: "1½", 2: "2"}),
        alt="Error of each pair read from a state, against the number of pairs written after it, for three rules.",
    )


def recalled(*records: Record, pairs: int = 48) -> Figure:
    """The share of queries answered among so many pairs, a dot a seed, at the best rate of each form."""
    found = {
        form: answered(record, form, pairs) for record in records for form in dict.fromkeys(record.column("form"))
    }
    return _dots(found, "of a hundred queries, answered", (0, 104))


def answered(record: Record, form: str, pairs: int) -> NDArray[np.float64]:
    """Of a hundred queries among so many pairs, those answered rightly: one number a seed, at the best rate."""
    rows = record.where(form=form, rate=best_rate(record, form))
    return 100 * np.array([row["accuracy"][row["pairs"].index(pairs)] for row in rows])


def read(*records: Record) -> Figure:
    """Bits a character on the test text, a dot a seed."""
    found = {
        form: np.array(record.column("bits", form=form))
        for record in records
        for form in dict.fromkeys(record.column("form"))
    }
    return _dots(found, "bits a character, test text", None)


def _dots(found: Mapping[str, NDArray], label: str, limits: tuple[float, float] | None) -> Figure:
    """A row a form, the best first: seeds as dots, and their mean."""
    figure, ax = plt.subplots(figsize=(figures.WIDE[0], 0.5 + 0.3 * len(found)))
    falling = limits is not None
    order = sorted(found, key=lambda form: found[form].mean() * (-1 if falling else 1))
    for place, form in enumerate(order):
        colour = COLOURS[form]
        ax.plot(found[form], [place] * len(found[form]), "o", color=colour, alpha=0.55, ms=6)
        ax.plot([found[form].mean()] * 2, [place - 0.3, place + 0.3], color=colour, linestyle="-", lw=2)
    ax.set(yticks=range(len(order)), ylim=(len(order) - 0.5, -0.5), xlabel=label)
    if limits:
        ax.set_xlim(*limits)
    ax.set_yticklabels(order)
    return figure


__all__ = [
    "answered",
    "chart",
    "chunks",
    "concentration",
    "costs_of_orders",
    "layer",
    "measured",
    "one_query",
    "read",
    "recalled",
    "remembered",
    "stand_ins",
    "token",
    "two_orders",
    "variance",
]
