"""The student's edition: ``python -m lib.press.student`` writes the notebooks without solutions.

For who teaches from the book. Everything else stays: text, code, outputs, exercises with their checks and hints.
The notebooks run where they lie, in ``_build/student``, and, once the book has an address, anywhere: their first
cell fetches the book. The checks, and the solutions with them, live in ``lib.experiments``, where the curious find
them.
"""

from __future__ import annotations

import re
from pathlib import Path

from nbformat import NotebookNode

from lib.press import address, notebooks

FOLDER = Path("_build/student")
_SENTENCE = re.compile(r" ?(?<![^\s])(?:Solutions|The solution)\b[^.]*\.")
_BADGE = re.compile(r"\n*\[!\[Open in Colab\].*")
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#]+)")


def edition(notebook: NotebookNode, book: str = "../../book/") -> NotebookNode:
    """A chapter without its solutions, and without what speaks of them.

    Args:
        notebook: a chapter; it is not changed.
        book: where links to the other pages of the book lead; chapters lie beside each other.

    Returns:
        The notebook for students, its cells counted anew.
    """
    edited = notebook.copy()
    edited.cells = [cell.copy() for cell in notebook.cells if not is_solution(cell)]
    exercises = False
    for cell in edited.cells:
        if cell.cell_type == "markdown":
            exercises = "## Exercises" in cell.source or (exercises and not cell.source.startswith("## "))
            cell.source = _LINK.sub(
                lambda match: match[0] if _is_chapter(match[1]) else f"]({book}{match[1]}", cell.source
            )
            cell.source = _BADGE.sub("", cell.source)
            if exercises:
                cell.source = _SENTENCE.sub("", cell.source)
    for count, cell in enumerate((cell for cell in edited.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        cell.outputs = [NotebookNode(output) for output in cell.outputs]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    return edited


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell shows the solution of an exercise."""
    return notebooks.SOLUTION in notebooks.tags(cell)


def _is_chapter(target: str) -> bool:
    return re.fullmatch(r"\d\d-[a-z]+\.ipynb", target) is not None


def write(root: Path = notebooks.ROOT) -> list[Path]:
    """Write the edition of every chapter into ``FOLDER``.

    Returns:
        The files, in the order of the chapters.
    """
    folder, url = root / FOLDER, address.address(root)
    folder.mkdir(parents=True, exist_ok=True)
    book = f"{url}/blob/main/book/" if address.is_github(url) else "../../book/"
    written = []
    for path in notebooks.chapters(root):
        notebooks.write(folder / path.name, edition(notebooks.read(path), book))
        written.append(folder / path.name)
    return written


def main() -> None:
    """The command line."""
    print(f"{len(write())} notebooks without solutions lie in {FOLDER}.")


if __name__ == "__main__":
    main()
