"""JupyterLab at the chapters: ``python -m lib.press.lab [option of jupyter lab …]``.

The stored outputs are the book, and only ``make execute`` writes them: who opens a chapter, unfolds its solutions
and runs it leaves the file as it was. Lab on its own would store when each cell ran and what stood open.
What a reader writes, and what comes out otherwise than it is stored, is saved as Lab sends it; so is all of a
notebook that is no chapter.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.utils import to_os_path
from jupyterlab.labapp import LabApp
from nbformat import NotebookNode

from lib.press import notebooks

#: Metadata of a cell that say when it ran.
TIMING = "execution"
#: Metadata of a cell that say what of it stands open.
VIEW = ("collapsed", "jp-MarkdownHeadingCollapsed", "jupyter", "scrolled")


def same_output(stored: Sequence[NotebookNode], new: Sequence[NotebookNode]) -> bool:
    """Whether two runs of a cell show the same, as ``pytest --nbval`` compares them."""
    from lib.press import compare

    return not compare.differences(stored, new)


def kept(stored: NotebookNode, sent: NotebookNode) -> NotebookNode:
    """The notebook to save: what a reader changed as sent, all else as stored.

    Args:
        stored: the chapter as ``make execute`` wrote it.
        sent: the same chapter as Lab would save it; it is not changed.

    Returns:
        The notebook sent, with the metadata of the stored one. A cell whose source is unchanged has its stored
        outputs and execution count back if it shows the same or was not run. Where nobody compares its output,
        it has them back too, unless it failed or code before it was changed: then its output may be
        the reader's result.
    """
    notebook = nbformat.from_dict(sent)
    notebook.metadata, notebook.nbformat_minor = stored.metadata, stored.nbformat_minor
    stored_cells = {cell.id: cell for cell in stored.cells}
    stored_code = [(cell.id, cell.source) for cell in stored.cells if cell.cell_type == "code"]
    code = []
    for cell in notebook.cells:
        cell.metadata.pop(TIMING, None)
        if cell.cell_type == "code":
            code.append((cell.id, cell.source))
        before = stored_cells.get(cell.id)
        if before is None or (cell.cell_type, cell.source) != (before.cell_type, before.source):
            continue
        # "trusted" stays: the server needs it to sign the notebook, and never stores it.
        view = {key: before.metadata[key] for key in VIEW if key in before.metadata}
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k not in VIEW} | view)
        if cell.cell_type == "code" and _unchanged(before, cell, code == stored_code[: len(code)]):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return notebook


def _unchanged(stored: NotebookNode, sent: NotebookNode, as_written: bool) -> bool:
    """Whether a cell of unchanged source has nothing new to show; ``as_written``: so is all code before it."""
    not_run = not sent.outputs and sent.execution_count is None
    failed = any(output.output_type == "error" for output in sent.outputs)
    uncompared = notebooks.UNCOMPARED in notebooks.tags(stored) and as_written and not failed
    return not_run or uncompared or same_output(stored.outputs, sent.outputs)


class Keeper:
    """Keeps the chapters of a repository as they are stored while a server saves them; see :func:`kept`.

    "Stored" is what was on the disk before this server first saved it. Lab saves a chapter also in the middle of
    its run, when half of the outputs are missing, and those must come back when the run has ended.

    Args:
        root: the repository.
    """

    def __init__(self, root: Path = notebooks.ROOT) -> None:
        self.root = root
        self._stored: dict[Path, NotebookNode] = {}
        self._saved: dict[Path, str] = {}

    def watch(self, manager: ContentsManager) -> None:
        """Trust the chapters, so that their sliders move, and look at whatever the server saves from now on."""
        for path in notebooks.chapters(self.root):
            manager.notary.sign(notebooks.read(path))
        manager.register_pre_save_hook(self.before_save)
        manager.register_post_save_hook(self.after_save)

    def before_save(self, model: dict[str, Any], path: str, contents_manager: ContentsManager) -> None:
        """Put what is unchanged back into the notebook to save. If this fails, the server saves what Lab sent."""
        file = Path(to_os_path(path, contents_manager.root_dir)).resolve()
        if model.get("type") != "notebook" or not self._is_chapter(file):
            return
        if self._saved.get(file) != _digest(file):  # new here, or written by someone else since
            self._stored[file] = notebooks.read(file)
        model["content"] = kept(self._stored[file], model["content"])

    def after_save(self, os_path: str, **_: Any) -> None:
        """Remember what this server left on the disk."""
        file = Path(os_path).resolve()
        if self._is_chapter(file):
            self._saved[file] = _digest(file)

    def _is_chapter(self, file: Path) -> bool:
        return file in [path.resolve() for path in notebooks.chapters(self.root)]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def options(root: Path = notebooks.ROOT) -> list[str]:
    """How the book starts JupyterLab; what follows on a command line prevails."""
    given = [f"--ServerApp.root_dir={root}", "--LabApp.default_url=/lab/tree/book"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container one often is root
        given.append("--allow-root")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    """The command line: it takes the options of ``jupyter lab``."""
    # Under this variable ipykernel shows no notes that TensorFlow writes past Python, just as in `make execute`.
    os.environ.setdefault("PYTEST_CURRENT_TEST", "make lab")
    server = LabApp.initialize_server([*options(), *(sys.argv[1:] if argv is None else argv)])
    Keeper().watch(server.contents_manager)
    server.start()


if __name__ == "__main__":
    main()
