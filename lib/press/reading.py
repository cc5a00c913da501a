"""How long a chapter takes to read: its words, its displayed formulas, and the code that is shown.

The three rates are assumptions and no measurements: prose of a technical text, read with care; a formula that is
understood, not derived; a line of code that is followed, not run. What is folded or hidden takes no time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbformat import NotebookNode

from lib.press import notebooks

WORDS_A_MINUTE = 180
SECONDS_A_FORMULA = 20
SECONDS_A_LINE = 4
#: A reading time is told in steps of this many minutes.
STEP = 5

_DISPLAYED = re.compile(r"\$\$.*?\$\$", re.S)
_INLINE = re.compile(r"\$[^$\n]+\$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")


@dataclass(frozen=True)
class Load:
    """What there is to read.

    Attributes:
        words: of prose, captions and claims; a formula in the text is one word.
        formulas: displayed ones, each row counted.
        lines: of code in sight.
    """

    words: int
    formulas: int
    lines: int

    @property
    def minutes(self) -> int:
        """To the next of ``STEP`` minutes, and at least that many.

        Example:
            >>> Load(words=3600, formulas=12, lines=90).minutes
            30
        """
        seconds = 60 * self.words / WORDS_A_MINUTE + SECONDS_A_FORMULA * self.formulas + SECONDS_A_LINE * self.lines
        return max(STEP, STEP * round(seconds / 60 / STEP))


def load(notebook: NotebookNode) -> Load:
    """Count what a reader of the page sees without unfolding anything; the cost cell is left out."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and not _is_cost(cell)]
    shown = [output.get("data", {}) for cell in notebooks.code(notebook) for output in cell.outputs]
    texts += ["".join(data["text/markdown"]) for data in shown if "text/markdown" in data]
    texts += [text for data in shown if (text := "".join(data.get("text/plain", ""))).startswith("Claim ")]
    formulas = [formula for text in texts for formula in _DISPLAYED.findall(text)]
    code = "\n".join(cell.source for cell in notebooks.seen(notebook) if "exercise" not in notebooks.tags(cell))
    return Load(
        words=sum(map(words, texts)),
        formulas=sum(1 + formula.count(r"\cr") for formula in formulas),
        lines=sum(bool(line.strip()) for line in code.split("\n")),
    )


def words(text: str) -> int:
    r"""The words of Markdown: without displayed formulas and the targets of links, a formula in the text as one.

    Example:
        >>> words("## A\n\nSee [the law](x.md) of $a + b$:\n\n$$c + d$$\n\n| one | two |")
        8
    """
    text = _LINK.sub(r"\1", _INLINE.sub("formula", _DISPLAYED.sub(" ", text)))
    return sum(any(character.isalnum() for character in word) for word in text.split())


def _is_cost(cell: NotebookNode) -> bool:
    return notebooks.COST in notebooks.tags(cell)
