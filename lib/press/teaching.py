"""The teachers' page: what each chapter needs and asks, read from the chapters themselves.

``prerequisites`` draws which chapters need which; ``workload`` tables reading times, run times and exercises.
A chapter's second cell says what a reader needs; the chapters that it links there are its prerequisites.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from nbformat import NotebookNode

from lib.press import notebooks, reading
from lib.press.generated import Generated, load, number, raw, title

_NEEDED = re.compile(r"\*\*You need:\*\*(.*?)(?:\n\n|\Z)", re.S)
_CHAPTER = re.compile(r"\]\(0?(\d+)-[a-z]+\.ipynb[^)]*\)")
_SENTENCE_END = re.compile(r"(?<=\.)\s+")

#: Of the drawing: its width, a row, what the arcs have, a line of a title, and the letters that fit in one.
_WIDTH, _ROW, _ARCS, _LINE, _LETTERS = 360, 48, 112, 17, 27


def needed(notebook: NotebookNode) -> dict[int, bool]:
    """The earlier chapters that a chapter links where it says what its reader needs.

    Args:
        notebook: a chapter.

    Returns:
        By the number of each: whether the chapter cannot be read without it; False where it only helps.

    Example:
        >>> cell = {"source": "**You need:** norms, and [2](02-b.ipynb). [Chapter 1](01-a.ipynb) helps."}
        >>> needed(NotebookNode(cells=[NotebookNode(cell_type="markdown", **cell)]))
        {2: True, 1: False}
    """
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = _NEEDED.search(text)
    sentences = _SENTENCE_END.split(found[1]) if found else []
    return {int(chapter): " help" not in line for line in sentences for chapter in _CHAPTER.findall(line)}


def exercises(notebook: NotebookNode) -> int:
    """How many exercises a chapter has: the cells that wait for an answer."""
    return sum("exercise" in notebooks.tags(cell) for cell in notebook.cells)


class Prerequisites(Generated):
    """``prerequisites``: an arc from each chapter to those that build on it."""

    def markdown(self) -> list[str]:
        """The drawing."""
        chapters = notebooks.chapters()
        return raw(arcs([title(path) for path in chapters], [needed(notebooks.read(path)) for path in chapters]))


class Workload(Generated):
    """``workload``: how long each chapter takes to read and to run, what it needs, how many exercises it has."""

    def markdown(self) -> list[str]:
        """One table, and the sum of its minutes."""
        lines = ["| chapter | read | run | exercises | needs |", "|---|---|---|---|---|"]
        total = 0
        for path in notebooks.chapters():
            notebook = notebooks.read(path)
            minutes = reading.load(notebook).minutes
            total += minutes
            needs = ", ".join(
                f"{chapter}" if must else f"({chapter})" for chapter, must in sorted(needed(notebook).items())
            )
            lines.append(
                f"| [{number(path)}. {title(path)}]({path.name}) | {minutes}&nbsp;min | {_run_time(path)} "
                f"| {exercises(notebook)} | {needs or 'nothing'} |"
            )
        told = "A number in parentheses is a chapter that helps; all nine take about"
        return [*lines, "", f"{told} {total / 60:.0f} hours to read."]


def arcs(titles: Sequence[str], needs: Sequence[Mapping[int, bool]]) -> str:
    """The chapters from top to bottom, an arc from each to every later one that needs it.

    Args:
        titles: of the chapters, in order.
        needs: what `needed` found for each.

    Returns:
        An SVG in the colours of the page; what only helps is dashed.
    """
    pairs = [(chapter, i, must) for i, those in enumerate(needs, 1) for chapter, must in sorted(those.items())]
    told = ", ".join(f"{i} on {chapter}" for chapter, i, _ in pairs)
    furthest = max((i - chapter for chapter, i, _ in pairs), default=1)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_ROW * len(titles)}" role="img" '
            'style="max-width:28rem;margin-bottom:1rem" font-family="inherit" font-size="14">',
            f"<title>Which chapter builds on which: {told}.</title>",
            '<defs><marker id="tip-needs" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
            'orient="auto"><path d="M0 0L8 4L0 8Z" fill="currentColor"/></marker></defs>',
            *(_arc(chapter, i, (i - chapter) / furthest, dashed=not must) for chapter, i, must in pairs),
            *(_label(i, name) for i, name in enumerate(titles, 1)),
            "</svg>",
        ]
    )


def _arc(first: int, last: int, share: float, *, dashed: bool) -> str:
    """From one row down to a later one; it reaches as far to the left as its share of the longest."""
    top, bottom = _ROW * (first - 0.5) + 6, _ROW * (last - 0.5) - 6
    reach = _ARCS - (_ARCS - 8) * 4 / 3 * share  # a Bézier curve comes three quarters as far as its handles
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="M{_ARCS} {top:g}C{reach:.1f} {top:g} {reach:.1f} {bottom:g} {_ARCS} {bottom:g}" '
        f'fill="none" stroke="currentColor" stroke-width="1.6"{dashes} marker-end="url(#tip-needs)"/>'
    )


def _label(chapter: int, name: str) -> str:
    """A chapter's number, and its title in as many lines as it takes."""
    y = _ROW * (chapter - 0.5) + 5
    rows = textwrap.wrap(name, _LETTERS)
    return f'<text x="{_ARCS + 8}" y="{y:g}" fill="currentColor" font-weight="700">{chapter}</text>' + "".join(
        f'<text x="{_ARCS + 26}" y="{y + _LINE * (row - (len(rows) - 1) / 2):g}" fill="currentColor">{escape(text)}'
        "</text>"
        for row, text in enumerate(rows)
    )


def _run_time(path: Path) -> str:
    """The shortest run of a chapter on record."""
    runs = [load(file)["seconds"] for file in notebooks.measured(path).glob("execution.*.json")]
    return f"{min(runs):.0f}&nbsp;s" if runs else "not measured"
