"""What the press knows of a notebook: its files, its cells by tag, and the code it depends on."""

from __future__ import annotations

import ast
import hashlib
import html
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
#: How the chapters came out on the releases of Colab; `lib.press.colab` writes it.
COLAB_RUNS = ROOT / "data" / "colab" / "runs.json"

#: Tags with a meaning: the setup cell, the cost line, an output nbval does not compare, a cell nobody runs for us.
SETUP, COST, UNCOMPARED, SKIPPED = "setup", "cost", "nbval-ignore-output", "nbval-skip"
#: Cells of which a reader of the page sees what they show alone: a solution, which folds itself, and a count.
SOLUTION, RESULT = "solution", "result"
#: A cell whose work needs an accelerator: a notebook that has one asks Colab for it, and no other does.
ON_GPU = "gpu"
#: Roles of code cells whose outputs are read and whose code is folded; a cell without a role is an idea, and seen.
FIGURE, CLAIM = "figure", "claim"
_NUMBERED = {FIGURE: r"figures\.\w+\(\s*\"([\d.]+)\"", CLAIM: r"claims\.check\(\s*\"([\d.]+)\""}


def chapters(root: Path = ROOT) -> list[Path]:
    """The chapters' notebooks in their order."""
    return sorted((root / "book").glob("[0-9][0-9]-*.ipynb"))


def every(root: Path = ROOT) -> list[Path]:
    """All notebooks of the book: the chapters, then those that are none."""
    return [*chapters(root), *sorted({*(root / "book").glob("*.ipynb")} - {*chapters(root)})]


def read(path: Path) -> NotebookNode:
    """The notebook in the current format."""
    return nbformat.read(path, as_version=4)


def write(path: Path, notebook: NotebookNode) -> None:
    """Store the notebook, with nothing in its metadata that depends on the machine."""
    needs_gpu = any(ON_GPU in tags(cell) for cell in notebook.cells)
    notebook.metadata = NotebookNode(
        {
            **({"accelerator": "GPU"} if needs_gpu else {}),  # Colab preselects it
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in notebook.cells:
        if cell.cell_type == "code":
            fold(cell)
    nbformat.validate(notebook)
    temporary = path.with_suffix(".partial")
    temporary.write_text(nbformat.writes(notebook) + "\n", encoding="utf8")
    temporary.replace(path)


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell, empty if it has none."""
    return cell.metadata.get("tags", [])


def fold(cell: NotebookNode) -> None:
    """Give a cell what folds its code on the page, in JupyterLab and on Colab, as its role asks.

    The fold says what is in it: "Code of figure 4.3", "Code of claims 4.1, 4.2 and 4.3".
    """
    if {*tags(cell)} & {SOLUTION, RESULT}:
        cell.metadata["tags"] = [*(tag for tag in tags(cell) if tag != "remove-input"), "remove-input"]
        cell.metadata["jupyter"] = {"source_hidden": True}
        cell.metadata["cellView"] = "form"
    roles = [role for role in (FIGURE, CLAIM) if role in tags(cell)]
    if roles:
        numbers = re.findall(_NUMBERED[roles[0]], cell.source)
        listed = " and ".join([", ".join(numbers[:-1]), *numbers[-1:]] if len(numbers) > 1 else numbers)
        name = f"{roles[0]}{'s' * (len(numbers) > 1)} {listed}".strip()
        cell.metadata["tags"] = [*roles, "hide-input", *(tag for tag in tags(cell) if tag == UNCOMPARED)]
        cell.metadata["jupyter"] = {"source_hidden": True}
        cell.metadata["cellView"] = "form"
        prompts = {"code_prompt_show": f"Code of {name}", "code_prompt_hide": f"Hide the code of {name}"}
        cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **prompts}
        if told := _told(cell):
            cell.metadata["mystnb"]["image"] = {"alt": told}


def _told(cell: NotebookNode) -> str:
    """What the figures of a cell say to those who do not see, for viewers that take it from the metadata."""
    shown = [output.get("data", {}) for output in cell.outputs]
    texts = ["".join(data.get("image/svg+xml", "")) or "".join(data.get("text/html", "")) for data in shown]
    found = [
        re.match(r'<svg role="img" aria-label="([^"]+)"|<figure class="explorable".*?<img alt="([^"]+)"', text)
        for text in texts
    ]
    return " · ".join(html.unescape(match[1] or match[2]) for match in found if match)


def seen(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells whose code a reader of the page sees without unfolding."""
    return [cell for cell in code(notebook) if not {*tags(cell)} & {"hide-input", "remove-input", "remove-cell"}]


def code(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, the setup cell left out: it is the same in every notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and SETUP not in tags(cell)]


#: The rooms of ``lib`` that are no ideas.
MACHINERY = ("experiments", "workbench", "press")


def ideas(root: Path = ROOT) -> list[str]:
    """The names of the ideas: the files and folders of ``lib``, without the machinery.

    Example:
        >>> "attention" in ideas(), "press" in ideas()
        (True, False)
    """
    found = {
        path.stem
        for path in (root / "lib").glob("[a-z]*")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return sorted(found - set(MACHINERY))


def imported_files(source: str, root: Path = ROOT) -> set[Path]:
    """The files of ``lib`` that a piece of Python imports, directly or through each other.

    Example:
        >>> sorted(path.name for path in imported_files("from lib.workbench import palette"))
        ['__init__.py', '__init__.py', 'palette.py']
    """
    found: set[Path] = set()
    waiting = [(source, "")]
    while waiting:
        for name in imported_names(*waiting.pop()):
            for path in _files_of(name, root) - found:
                found.add(path)
                package = ".".join(path.relative_to(root).parent.parts)
                waiting.append((path.read_text(encoding="utf8"), package))
    return found


def imported_names(source: str, package: str = "") -> Iterator[str]:
    r"""The dotted names that a module imports; ``from lib import x`` gives ``lib.x``.

    Args:
        source: of the module.
        package: that the module is in, to which ``from .x import y`` is relative.

    Example:
        >>> [*imported_names("import os\nfrom .. import chain\nfrom .tagger import Head", "lib.tagging")]
        ['os', 'lib.chain', 'lib.tagging.tagger.Head']
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _files_of(name: str, root: Path) -> set[Path]:
    """The files that importing a dotted name loads: the packages on the way, and the module itself."""
    parts = name.split(".")
    if parts[0] != "lib":
        return set()
    paths = {root.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)}
    paths |= {root.joinpath(*parts[:depth]).with_suffix(".py") for depth in range(1, len(parts) + 1)}
    return {path for path in paths if path.is_file()}


def fingerprint(path: Path, root: Path = ROOT) -> str:
    """Hash of everything that decides a notebook's outputs: code, imported code, declared claims, recorded runs.

    Args:
        path: the notebook.
        root: the repository.

    Returns:
        A SHA-256 in hexadecimal. Prose and the setup cell do not count; the recorded runs of the chapter do,
        except the record of the execution itself.
    """
    cells = [cell.source for cell in code(read(path))]
    files = imported_files("\n".join(cells), root)
    files |= {file for file in measured(path, root).glob("*.json") if not file.name.startswith("execution.")}
    files |= {file for file in [claims(path, root).with_suffix(".toml")] if file.exists()}
    digest = hashlib.sha256("\0".join(cells).encode())
    for file in sorted(files):
        digest.update(f"\0{file.relative_to(root).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def measured(path: Path, root: Path = ROOT) -> Path:
    """The folder of a chapter's recorded runs."""
    return root / "data" / "measured" / path.stem


def claims(path: Path, root: Path = ROOT) -> Path:
    """The file of a chapter's claims."""
    return root / "data" / "claims" / f"{path.stem}.json"
