"""The figures of chapter 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, Wedge
from numpy.typing import NDArray

from lib.experiments.orthogonality import sweeps
from lib.experiments.orthogonality.agreement import cloud, image_patches, limit_agreement
from lib.experiments.orthogonality.training import METHODS
from lib.orthogonality import expected_agreement
from lib.workbench import figures
from lib.workbench.explorables import Axis, Control, Curve, Explorable
from lib.workbench.measure import Estimate
from lib.workbench.palette import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION
from lib.workbench.records import Record

SQUARE = (2.4, 2.4)


def differ(points: NDArray, filters: NDArray) -> NDArray[np.bool_]:
    """Whether the signs of two filters, the columns of ``filters``, differ on each of the points."""
    return np.prod(points @ filters, axis=1) < 0


def _unit(degrees: float) -> NDArray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _arrow(ax: Axes, end: NDArray, name: str) -> None:
    ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 2, "color": INK, "shrinkA": 0})
    ax.text(*(1.13 * end), name, color=INK, ha="center", va="center", fontsize=11)


def clouds(correlations: Sequence[float] = (0.0, 0.9), points: int = 300) -> list[Figure]:
    """Two filters at a right angle over a round and over a stretched cloud, shaded where their signs differ."""
    panels = []
    for correlation in correlations:
        x, filters = cloud(correlation, points), np.eye(2)
        other = differ(x, filters)
        figure, ax = plt.subplots(figsize=SQUARE)
        for left, bottom in ((-3.6, 0), (0, -3.6)):
            ax.add_patch(Rectangle((left, bottom), 3.6, 3.6, color=ORANGE, alpha=0.14, lw=0))
        ax.plot(*x[~other].T, "o", markersize=2.2, color=SKY)
        ax.plot(*x[other].T, "x", markersize=3.6, color=VERMILION)
        _arrow(ax, np.array([3.3, 0]), "w₁")
        _arrow(ax, np.array([0, 3.3]), "w₂")
        ax.set(xlim=(-3.6, 4), ylim=(-3.6, 4), aspect="equal", title=f"differ on {100 * other.mean():.0f} %")
        ax.axis("off")
        panels.append(figure)
    return panels


def wedge(degrees: float = 50, points: int = 300) -> Figure:
    """Two filters, the lines on which they change sign, and between these the wedges, as wide as the angle."""
    filters = np.transpose([_unit(20), _unit(20 + degrees)])
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2 * points, 2))
    x *= np.sqrt(rng.uniform(size=(2 * points, 1))) / np.linalg.norm(x, axis=1, keepdims=True)
    names = [0.6 * _unit(middle) for middle in (20 + degrees / 2, 110 + degrees / 2, 290 + degrees / 2)]
    free = np.all([np.linalg.norm(x - name, axis=1) > 0.14 for name in names], axis=0)
    x = x[free][:points]  # each θ stands free
    other = differ(x, filters)
    figure, ax = plt.subplots(figsize=(2.9, 2.9))
    for start in (110, 290):
        ax.add_patch(Wedge((0, 0), 1.04, start, start + degrees, alpha=0.22, color=ORANGE, lw=0))
    ax.plot(*x[~other].T, "o", markersize=2.2, color=SKY)
    ax.plot(*x[other].T, "x", markersize=3.6, color=VERMILION)
    for w, name in zip(filters.T, ["w₁", "w₂"], strict=True):
        ax.plot(*np.transpose([1.15 * np.array([-w[1], w[0]]), 1.15 * np.array([w[1], -w[0]])]), color=INK, ls=":")
        _arrow(ax, 1.3 * w, name)
    for name in names:
        ax.text(*name, "θ", fontsize=13, ha="center", va="center", weight="bold")
    ax.set(xlim=(-1.25, 1.55), ylim=(-1.25, 1.55), aspect="equal")
    ax.axis("off")
    return figure


def softness(sharpness: Sequence[float] = (0.3, 3, 10, 30)) -> Figure:
    """By how much the estimate with tanh(γ·) is off the wedge in the limit, against the angle."""
    theta = np.linspace(0, np.pi / 2, 21)  # beyond a right angle the error is the same with the other sign
    figure, ax = plt.subplots(figsize=figures.WIDE)
    for a, colour, dash in zip(sharpness, (BLUE, VERMILION, GREEN, PURPLE), figures.DASHES, strict=False):
        error = np.array([limit_agreement(one, a) for one in theta]) - expected_agreement(theta)
        degrees = np.degrees(np.concatenate([theta, np.pi - theta[-2::-1]]))
        ax.plot(degrees, np.concatenate([error, -error[-2::-1]]), color=colour, ls=dash)
        ax.text(90, 0.22 - 0.045 * len(ax.texts), f"γσ = {a:g}", color=colour)
        ax.plot([82, 88], np.full(2, 0.227 - 0.045 * (len(ax.texts) - 1)), color=colour, ls=dash)
    ax.axhline(0, color=INK, lw=1, ls="-")
    ax.set(
        xlabel="angle θ in degrees", ylabel="agreement − (1 − 2θ/π)", xticks=range(0, 181, 30), ylim=(-0.25, 0.25)
    )
    return figure


#: Two filters on patches of 5 × 5 that share no pixel: the two columns on the left, the two on the right.
SIDES = np.transpose([np.tile([1.0, 1, 0, 0, 0], 5), np.tile([0.0, 0, 0, 1, 1], 5)])


def patches(rows: int = 6, columns: int = 8, seed: int = 2) -> list[Figure]:
    """The filters :data:`SIDES`, and patches on which their signs agree (thin frame) or differ (thick frame)."""
    first, ax = plt.subplots(figsize=(1.0, 2.2))
    _montage(ax, SIDES.T[:, None], [[GRID]] * 2, [[0.8]] * 2)
    for k, name in enumerate(["w₁", "w₂"]):
        ax.text(-0.9, 6 * k + 2, name, color=INK, ha="right", va="center")
    drawn = image_patches(5, 2 * rows * columns, seed, constant=False)[: rows * columns]
    other = differ(drawn, SIDES).reshape(rows, columns)
    second, ax = plt.subplots(figsize=(3.4, 2.6))
    colours, widths = np.where(other, VERMILION, SKY), np.where(other, 2.6, 0.9)
    _montage(ax, drawn.reshape(rows, columns, 25), colours, widths)
    return [first, second]


def _montage(ax: Axes, images: NDArray, colours: Sequence, widths: Sequence) -> None:
    """Grey images of 5 × 5 in rows and columns, (rows, columns, 25), each from its darkest to its lightest."""
    rows, columns = images.shape[:2]
    shown = np.full((6 * rows - 1, 6 * columns - 1), np.nan)
    for row, column in np.ndindex(rows, columns):
        image = images[row, column].reshape(5, 5)
        shown[6 * row :, 6 * column :][:5, :5] = (image - image.min()) / np.ptp(image)
        corner = (6 * column - 0.5, 6 * row - 0.5)
        frame = {"edgecolor": colours[row][column], "lw": widths[row][column]}
        ax.add_patch(Rectangle(corner, 5, 5, fill=False, **frame))
    ax.imshow(shown, cmap="gray", vmin=-0.1, vmax=1.05, interpolation="none")
    ax.set(xlim=(-1, 6 * columns - 1), ylim=(6 * rows - 1, -1))
    ax.axis("off")


def patch_law(draws: Mapping[str, NDArray], shown: int = 2) -> list[Figure]:
    """Agreement of orthonormal filters on patches against what their correlation alone would give, a panel a kind.

    Args:
        draws: title of a panel to what :func:`..agreement.on_patches` returns.
        shown: how many draws of filters are drawn.
    """
    panels = []
    for title, found in draws.items():
        figure, ax = plt.subplots(figsize=SQUARE)
        for draw in found[:shown]:
            ax.plot(draw[1], draw[0], "o", color=BLUE, markersize=2.4, alpha=0.45)
        ax.axline((0, 0), slope=1, color=VERMILION, ls="--")
        ticks = [-1, -0.5, 0, 0.5, 1]
        ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=ticks, yticks=ticks, title=title)
        ax.set(xlabel="(2/π) arcsin ρ", ylabel="agreement ϑ")
        panels.append(figure)
    return panels


def stretched(points: int = 400) -> Explorable:
    """A cloud that can be stretched under two filters, of which one turns, and how often their signs differ."""
    first = 75  # degrees: 30 off the long axis, which is the diagonal
    gauge = (4.1, 4.7)
    across, up = Axis("one pixel", -3, 5.6, {}), Axis("its neighbour", -2.2, 2.2, {})

    scale = 0.64  # of the points, so that all fit

    def on_lattice(x: NDArray) -> NDArray:
        """Whole units of the drawing make short paths."""
        return np.round(46.7 * scale * x) / 46.7

    def line(degrees: float, reach: float = 1.7) -> tuple[NDArray, NDArray]:
        w = reach * _unit(degrees)
        return np.array([0, w[0]]), np.array([0, w[1]])

    def level(share: float) -> NDArray:
        return np.full(2, up.low + (up.high - up.low) * share)

    def apart(angle: int, correlation: float) -> NDArray[np.bool_]:
        return differ(cloud(correlation, points), np.transpose([_unit(first), _unit(first - angle)]))

    def draw(angle: int, correlation: float) -> list[tuple[NDArray, NDArray]]:
        x, other = cloud(correlation, points), apart(angle, correlation)
        dots = [tuple(on_lattice(x[which]).T) for which in (~other, other)]
        bar, mark = np.array(gauge), np.array([gauge[0] - 0.25, gauge[1] + 0.25])
        ends = [line(first), line(first - angle)]
        frame = np.array([up.low, up.high, up.high, up.low])
        return [*dots, *ends, (bar[[0, 0, 1, 1]], frame), (bar, level(other.mean())), (mark, level(angle / 180))]

    def tell(angle: int, correlation: float) -> str:
        found = apart(angle, correlation).mean()
        return (
            f"The filters are {angle}° apart, so on a round cloud they would differ on {angle / 180:.0%} of all "
            f"points; on this one, of correlation {correlation:g}, they differ on {found:.0%}."
        )

    return Explorable(
        draw=draw,
        tell=tell,
        controls=[
            Control("Angle between the filters", range(15, 166, 15), lambda angle: f"{angle}°", start=5),
            Control("Correlation of the pixels", [0, 0.5, 0.8, 0.95], str, start=0),
        ],
        curves=[
            Curve("signs agree", SKY, "dots", (0.01, 0.88)),
            Curve("signs differ", VERMILION, "dots", (0.01, 0.96)),
            Curve("w₁ stays", INK, "line", (0.01, 0.16)),
            Curve("w₂ turns", GREEN, "line", (0.01, 0.24)),
            Curve("100 %", INK, "line", (0.905, 0.06)),
            Curve("differ", VERMILION, "area", (0.915, 0.96)),
            Curve("θ/π", INK, "dashed"),
        ],
        x=across,
        y=up,
        alt="A cloud of points, two filters as lines from its centre, and a bar: the share of points on which the "
        "signs of the filters differ, beside a mark at the share that their angle promises.",
    )


def alone(record: Record) -> list[Figure]:
    """One layer before and after training on the module alone: angles, and agreement of outputs, with intervals."""
    panels = []
    for key, title in (("distance", "distance from 90°, degrees"), ("agreement", "agreement of signs, rms")):
        figure, ax = plt.subplots(figsize=(2.4, 1.9))
        kinds = list(dict.fromkeys(record.column("inputs")))
        for place, inputs in enumerate(kinds):
            for entry, colour, marker in ((0, INK, "s"), (1, VERMILION, "o")):
                values = [row[key][entry] for row in record.where(inputs=inputs)]
                estimate = Estimate.from_samples(values)
                ax.plot([estimate.low, estimate.high], [-place, -place], color=colour, ls="-", lw=2.5)
                ax.plot(estimate.value, -place, marker, color=colour)
        ax.set(yticks=[-k for k in range(len(kinds))], xlim=(0, None), ylim=(0.5 - len(kinds), 0.5))
        ax.set_yticklabels(kinds)
        ax.set_title(title, fontsize=10)
        panels.append(figure)
    return panels


#: How the methods are called in figures, and drawn.
_STYLES = {
    "weight decay": (INK, ":", "D"),
    "soft": (BLUE, "-", "o"),
    "module": (VERMILION, "--", "s"),
    "module, corrected": (ORANGE, "-.", "^"),
    "pair term": (PURPLE, "--", "v"),
    "pair term, corrected": (GREEN, "-", "P"),
}


_FORM_NAMES = {"module": "as published", "pair term": "raw"}
_FORM_NAMES |= {"module, corrected": "corrected", "pair term, corrected": "corrected"}


def strengths(tuning: Record) -> list[Figure]:
    """Training loss against strength, and the loss that is allowed; the chosen strengths have a ring."""
    panels = []
    groups = {
        "on the weights": {"weight decay": (7e-5, 14), "soft": (0.7, -21)},
        "module": {"module": (1.1e-7, 34), "module, corrected": (1.1e-7, 24)},
        "pair term": {"pair term": (1.5e-5, 34), "pair term, corrected": (1.5e-5, 24)},
    }
    for title, methods in groups.items():
        figure, ax = plt.subplots(figsize=figures.PANEL)
        ax.axhline(100 * (sweeps.ALLOWED - 1), color=INK, lw=1, ls=":")
        for method, place in methods.items():
            colour, dash, marker = _STYLES[method]
            ratios = [sweeps.loss_ratio(tuning, method, strength) for strength in METHODS[method]]
            middle, low, high = (100 * np.array([[r.value, r.low, r.high] for r in ratios]).T - 100).clip(max=58)
            ax.semilogx(METHODS[method], middle, color=colour, ls=dash, marker=marker)
            ax.vlines(METHODS[method], low, high, color=colour, lw=1.2, ls="-")
            chosen = METHODS[method].index(sweeps.choose(tuning, method))
            ax.plot(METHODS[method][chosen], middle[chosen], "o", ms=12, mfc="none", mec=colour)
            ax.text(*place, _FORM_NAMES.get(method, method), color=colour)
        ax.set(title=title, xlabel="strength", ylim=(-25, 60))
        ax.set_ylabel("loss, % above plain")
        panels.append(figure)
    return panels


def forest(measures: Mapping[str, Callable[[str], Estimate]]) -> list[Figure]:
    """One value of every compared method with its interval, a panel a measure.

    Args:
        measures: title of a panel to what gives the estimate of a method.
    """
    panels = []
    for title, estimate in measures.items():
        figure, ax = plt.subplots(figsize=(2.4, 2.1))
        for place, method in enumerate(sweeps.COMPARED):
            found = estimate(method)
            colour, _, marker = _STYLES.get(method, (INK, "-", "o"))
            ax.plot([found.low, found.high], [-place, -place], color=colour, ls="-", lw=2.5)
            ax.plot(found.value, -place, marker, color=colour)
        ax.set(yticks=[-k for k in range(len(sweeps.COMPARED))], ylim=(0.5 - len(sweeps.COMPARED), 0.5))
        ax.set_yticklabels(method.split(",")[0] for method in sweeps.COMPARED)
        ax.set_title(title, fontsize=10)
        panels.append(figure)
    return panels


def filters(record: Record) -> list[Figure]:
    """The sixteen filters of the first layer, a panel a method."""
    panels = []
    for row in record.rows:
        figure, ax = plt.subplots(figsize=(1.8, 2.0))
        _montage(ax, np.reshape(row["filters"], (4, 4, 25)), [[GRID] * 4] * 4, [[0.6] * 4] * 4)
        ax.set_title(row["method"].split(",")[0], fontsize=10)
        panels.append(figure)
    return panels
