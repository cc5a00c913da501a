"""One style for every figure, and figures a reader can explore without a server.

A figure is an SVG whose bytes depend on its content alone, so that a stored figure can be compared with a
new one as text. No meaning rests on colour only: lines differ in dash or marker too.

There are two widths. A figure of one panel is `WIDE`; panels of `PANEL` stand side by side, each a picture of its
own, and stack on a phone. At both no text is smaller than 10 pixels on a screen of 390.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from IPython.display import display
from matplotlib.figure import Figure

from lib.workbench.palette import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION

if TYPE_CHECKING:
    from lib.workbench import explorables, records

#: The colours of curves, in the order in which a figure should use them.
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)
#: The dashes that go with them, so that a figure survives a black-and-white print.
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))

#: Sizes in inches: of a figure of one panel, whose text of 10 points has 10 pixels on a phone, and of one panel of
#: several.
WIDE, PANEL = (4.6, 2.6), (2.4, 2.0)

#: What stands beside a slider that cannot move.
UNTRUSTED = "Run this cell to move the slider."

_STYLE = {
    "figure.figsize": (7.0, 3.4),
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=DASHES),
    "axes.grid": True,
    "grid.color": GRID,
    "grid.alpha": 0.4,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "font.family": "DejaVu Sans",  # shipped with Matplotlib: the same glyphs on every machine
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    "image.cmap": "cividis",
    "svg.fonttype": "path",
    "svg.hashsalt": "proof by running",  # without a salt the ids inside an SVG are random
}


def use_book_style() -> None:
    """Apply the book's style, and let Jupyter show figures as `svg` writes them.

    Example:
        >>> use_book_style()
        >>> mpl.rcParams["axes.spines.top"]
        False
    """
    mpl.rcParams.update(_STYLE)
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # no Jupyter here: figures are written by `svg` alone
        return
    shell = get_ipython()
    if shell is not None:
        set_matplotlib_formats("svg")
        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, svg)


def show(
    number: str,
    *panels: Figure | explorables.Explorable,
    caption: str,
    alt: str | Sequence[str] = (),
    record: records.Record | None = None,
) -> None:
    """Show a figure, of one panel or of several, with its number and caption.

    Args:
        number: ``"<chapter>.<k>"``.
        panels: the pictures, from left to right; they are closed. Or one explorable.
        caption: what to see, in Markdown; a record's device and date are added.
        alt: what a reader hears who does not see, of the figure or of each panel; an explorable has its own.
        record: the recorded run that is drawn; None for what was computed live.

    Raises:
        ValueError: no panel, another number of texts than of panels, or an empty text.

    Example:
        >>> show("1.1", plt.figure(figsize=PANEL), caption="Nothing.", alt="An empty panel")
        <Figure size 240x200 with 0 Axes>
        Figure 1.1. Nothing.
    """
    texts = [alt] if isinstance(alt, str) else list(alt) or [panel.alt for panel in panels if hasattr(panel, "alt")]
    if not panels or len(texts) != len(panels):
        raise ValueError(f"alt must be one text a panel, got {len(texts)} for {len(panels)} panels")
    if not all(text.strip() for text in (*texts, caption)):
        raise ValueError("alt and caption must not be empty")
    for figure, text in zip(panels, texts, strict=True):
        if isinstance(figure, Figure):
            display(_Panel(figure, text))
            plt.close(figure)
        else:
            display(figure)
    label = "" if record is None else record.label()
    measured = f" *{label[0].upper()}{label[1:]}.*" if label else ""
    display(_Caption(number, caption + measured))


@dataclass(frozen=True, repr=False)
class _Panel:
    figure: Figure
    alt: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"image/svg+xml": svg(self.figure, self.alt), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return repr(self.figure)


@dataclass(frozen=True, repr=False)
class _Caption:
    number: str
    text: str

    def _repr_markdown_(self) -> str:
        return f"**Figure {self.number}.** {self.text}"

    def __repr__(self) -> str:
        return f"Figure {self.number}. {self.text}"


def svg(figure: Figure, alt: str = "") -> str:
    """The figure as SVG text that depends on its content alone.

    Args:
        figure: any Matplotlib figure; it stays open.
        alt: what a reader hears who does not see.

    Returns:
        The ``<svg …>`` element, without XML header, date or comments, coordinates rounded to 1/100 point
        (numbers below 1 are kept: they scale glyphs).

    Example:
        >>> figure, axes = plt.subplots()
        >>> svg(figure).startswith("<svg") and svg(figure) == svg(figure)
        True
        >>> plt.close(figure)
    """
    with mpl.rc_context({"svg.hashsalt": _STYLE["svg.hashsalt"]}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].rstrip()
    text = re.sub(r"\s*<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    if alt:
        text = text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt, quote=True)}"', 1)
    return re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", text)


class Explorable:
    """A row of precomputed figures under a slider: self-contained HTML, no server, no library.

    Every frame is an image of its own with its own alternative text; the slider shows one and hides the
    others. Without scripts, in print and wherever HTML is sanitised, the frame chosen as ``start`` stands.
    A notebook that is not trusted shows no scripts; there a line says that running the cell sets the slider free.

    Args:
        frames: figures as SVG text (see `svg`), at least two.
        labels: one short label a frame, such as ``"n = 10"``; it is shown and read out beside the slider.
        name: what the slider sets, such as ``"Dimension"``.
        alt: alternative text shared by the frames; the frame's label is added to it.
        start: index of the frame that stands first.

    Raises:
        ValueError: fewer than two frames, labels that do not match, ``start`` out of range, empty texts.

    Example:
        >>> e = Explorable(["<svg/>", "<svg></svg>"], ["n = 2", "n = 3"], name="Dimension", alt="A curve")
        >>> e.html.count("<img"), 'type="range"' in e.html
        (2, True)
    """

    def __init__(
        self, frames: Sequence[str], labels: Sequence[str], *, name: str, alt: str, start: int = 0
    ) -> None:
        if len(frames) < 2:
            raise ValueError(f"frames must hold at least two figures, got {len(frames)}")
        if len(labels) != len(frames):
            raise ValueError(f"labels must match the {len(frames)} frames one to one, got {len(labels)}")
        if not 0 <= start < len(frames):
            raise ValueError(f"start must be an index of a frame, 0 to {len(frames) - 1}, got {start}")
        if not name.strip() or not alt.strip():
            raise ValueError("name and alt must not be empty: a screen reader reads them out")
        self.frames, self.labels, self.name, self.alt, self.start = (
            list(frames),
            list(labels),
            name,
            alt,
            start,
        )

    @property
    def html(self) -> str:
        """The whole figure as one HTML element."""
        identity = hashlib.sha256("".join([self.name, *self.labels, *self.frames]).encode()).hexdigest()[:8]
        images = "".join(self._image(i) for i in range(len(self.frames)))
        labels = html.escape("|".join(self.labels), quote=True)
        react = (
            "const f=this.closest('figure'),l=this.dataset.labels.split('|')[this.value];"
            "f.querySelectorAll('img').forEach((m,i)=>m.style.display=i==this.value?'block':'none');"
            "f.querySelector('output').textContent=l;this.setAttribute('aria-valuetext',l)"
        )
        return (
            f'<figure class="explorable" style="margin:0">{images}'
            f'<figcaption style="display:flex;gap:.8em;align-items:center;flex-wrap:wrap">'
            f'<label for="range-{identity}">{html.escape(self.name)}</label>'
            f'<input id="range-{identity}" type="range" min="0" max="{len(self.frames) - 1}" step="1" '
            f'value="{self.start}" data-labels="{labels}" '
            f'aria-valuetext="{html.escape(self.labels[self.start], quote=True)}" '
            # JupyterLab leaves the arrow keys to the slider, instead of folding headings with them.
            f'data-lm-suppress-shortcuts="true" style="flex:1 1 12em;min-width:8em" oninput="{react}">'
            f'<output for="range-{identity}" style="min-width:6em">{html.escape(self.labels[self.start])}</output>'
            # Hidden where scripts run; whoever strips scripts strips this tag too and leaves its text.
            f"<noscript>{UNTRUSTED}</noscript></figcaption></figure>"
        )

    def _image(self, index: int) -> str:
        data = base64.b64encode(self.frames[index].encode()).decode()
        alt = html.escape(f"{self.alt} ({self.labels[index]})", quote=True)
        shown = "block" if index == self.start else "none"
        return f'<img alt="{alt}" style="display:{shown};max-width:100%" src="data:image/svg+xml;base64,{data}">'

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"Explorable({self.name}: {self.labels[0]} … {self.labels[-1]}, {len(self.frames)} frames)"


def explore(
    draw: Callable[[Any], Figure],
    values: Sequence[Any],
    *,
    name: str,
    alt: str,
    label: Callable[[Any], str] = str,
    start: int = 0,
) -> Explorable:
    """Draw one frame a value and put them under a slider.

    Args:
        draw: makes the figure of one value; the figure is closed afterwards.
        values: what the slider runs through, at least two.
        name: what the slider sets, such as ``"Dimension"``.
        alt: alternative text shared by the frames.
        label: the text of a value beside the slider.
        start: index of the value that stands first.

    Returns:
        The explorable figure; as the last value of a cell it shows itself.

    Example:
        >>> def draw(n):
        ...     figure, axes = plt.subplots()
        ...     axes.plot([0, n])
        ...     return figure
        >>> explore(draw, [1, 2], name="n", alt="A line", label=lambda n: f"n = {n}").labels
        ['n = 1', 'n = 2']
    """
    frames = []
    for value in values:
        figure = draw(value)
        frames.append(svg(figure))
        plt.close(figure)
    return Explorable(frames, [label(value) for value in values], name=name, alt=alt, start=start)
