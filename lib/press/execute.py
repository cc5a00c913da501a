"""Run the notebooks and store what they show: ``python -m lib.press.execute [notebook …]``.

The stored outputs are the book. A second run changes nothing: a notebook whose code, imports and recorded
runs are unchanged, and whose compared outputs come out the same, stays as it is to the byte.
``--measure`` only records time and memory on this device and leaves notebooks and claims alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from tqdm import tqdm

from lib.press import compare, notebooks, reading
from lib.workbench import claims, measure, records

COMMAND = "make execute"

#: Asks the kernel for its own peak memory and device, after the last cell.
_EPILOGUE = """
import json, resource, sys
from lib.workbench import measure
_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"peak_memory_bytes": _peak, "device": measure.device().name, "kind": measure.device().kind,
                  "versions": measure.versions()}))
"""


def run(
    path: Path,
    claims_file: Path,
    variables: Mapping[str, str] | None = None,
    *,
    inherited: Mapping[str, str] | None = None,
    folder: Path | None = None,
    manager: AsyncKernelManager | None = None,
) -> tuple[NotebookNode, dict]:
    """Execute a notebook in a kernel of its own.

    Args:
        path: the notebook; the file itself is not touched.
        claims_file: where its ledger hands over the claims.
        variables: environment variables of the kernel, beside those that it inherits.
        inherited: those, the ones of this process if None.
        folder: where the kernel starts, beside the notebook if None.
        manager: of another kernel than that of this environment.

    Returns:
        The executed notebook, and the execution's record: seconds, peak memory, device, versions.

    Raises:
        CellExecutionError: a cell failed.
        ValueError: a cell wrote to stderr, which would be stored in the book; under another kernel it may.
    """
    notebook = notebooks.read(path)
    # Under this variable ipykernel captures no C-level stderr, just as when nbval runs the notebook.
    environment = {**(os.environ if inherited is None else inherited), **(variables or {})} | {
        claims.RECORD_VARIABLE: str(claims_file),
        "PYTEST_CURRENT_TEST": "make execute",
    }
    ask = new_code_cell(_EPILOGUE)
    client = NotebookClient(
        new_notebook(cells=[*filter(_is_run, notebook.cells), ask], metadata=notebook.metadata),
        km=manager,
        timeout=3600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder or path.parent)}},
    )
    start = time.perf_counter()
    # What a library logs while it starts is no output of a cell.
    client.execute(env=environment, stderr=subprocess.DEVNULL, cleanup_kc=True)
    record = json.loads(ask.outputs[0].text)
    record["seconds"] = round(time.perf_counter() - start, 1)
    for cell in notebooks.code(notebook):
        if manager is None and any(output.get("name") == "stderr" for output in cell.outputs):
            raise ValueError(f"{path.name}: a cell wrote to stderr, which must not be stored:\n{cell.source}")
    return notebook, record


def _is_run(cell: NotebookNode) -> bool:
    return notebooks.SKIPPED not in notebooks.tags(cell)


def changed_cells(old: NotebookNode, new: NotebookNode) -> Iterator[tuple[int, list[str]]]:
    """Where two runs of the same cells differ, of those that are compared.

    Yields:
        The number of a code cell, counted from 0 as nbval does, and what differs, by meaning.
    """
    for number, (before, after) in enumerate(zip(*map(_code, (old, new)), strict=True)):
        compared = notebooks.UNCOMPARED not in notebooks.tags(after)
        if compared and (found := compare.differences(before.outputs, after.outputs)):
            yield number, found


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cost_line(path: Path, root: Path = notebooks.ROOT) -> str:
    """What a chapter costs, in time to read (`reading`) and as measured to run: the first line of its cost cell."""
    parts = [f"{reading.load(notebooks.read(path)).minutes} minutes to read"]
    backend: str | None = "unknown"
    for kind in ("cpu", "gpu"):
        file = notebooks.measured(path, root) / f"execution.{kind}.json"
        if file.exists():
            record = json.loads(file.read_text(encoding="utf8"))
            memory = record["peak_memory_bytes"] / 2**30
            parts.append(f"{record['seconds']:.0f} s and {memory:.1f} GiB to run on {record['device']}")
            backend = record.get("versions", {}).get("backend", "unknown")
        elif kind == "gpu":
            parts.append("not yet run on a GPU" if backend else "uses no GPU")
    return f"**Cost:** {' · '.join(parts)}."


def stamp(path: Path, root: Path = notebooks.ROOT) -> None:
    """Write the measured cost into the chapter's cost cell, if it says something else."""
    notebook = notebooks.read(path)
    line = cost_line(path, root)
    for cell in notebook.cells:
        if notebooks.COST in notebooks.tags(cell):
            _, *rest = cell.source.split("\n")
            cell.source = "\n".join([line, *rest])
    if notebook != notebooks.read(path):
        notebooks.write(path, notebook)


def execute(path: Path, root: Path = notebooks.ROOT, *, measure_only: bool = False) -> str:
    """Execute one notebook and store its outputs; of a chapter also its claims and its cost.

    Returns:
        ``"unchanged"``, ``"stored"`` or ``"measured"``.
    """
    if path not in notebooks.chapters(root):
        return _refresh(path)
    with tempfile.TemporaryDirectory() as folder:
        claimed = Path(folder) / "claims.json"
        notebook, record = run(path, claimed)
        kind = record.pop("kind")
        file = notebooks.measured(path, root) / f"execution.{kind}.json"
        mark = notebooks.fingerprint(path, root)
        before = json.loads(file.read_text(encoding="utf8")) if file.exists() else {}
        fresh = before.get("fingerprint") == mark and not any(changed_cells(notebooks.read(path), notebook))
        fresh = fresh and notebooks.claims(path, root).exists() == claimed.exists()
        if not fresh or measure_only:
            record |= {"command": COMMAND, "date": datetime.date.today().isoformat(), "fingerprint": mark}
            file.parent.mkdir(parents=True, exist_ok=True)
            records.write_json(file, record)
        if not fresh and not measure_only:
            if claimed.exists():
                claimed_list = json.loads(claimed.read_text(encoding="utf8"))
                notebooks.claims(path, root).parent.mkdir(parents=True, exist_ok=True)
                records.write_json(notebooks.claims(path, root), claimed_list)
            notebooks.write(path, notebook)
    stamp(path, root)
    return "measured" if measure_only else "unchanged" if fresh else "stored"


def _refresh(path: Path) -> str:
    """Store what a notebook shows that is no chapter: it claims nothing, and its cost is not measured."""
    before = notebooks.read(path)
    notebook, _ = run(path, Path(os.devnull))
    ran = all(cell.execution_count for cell in _code(before) if _is_run(cell))
    if ran and not any(changed_cells(before, notebook)):
        return "unchanged"
    notebooks.write(path, notebook)
    return "stored"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all")
    parser.add_argument("--measure", action="store_true", help="record time and memory, store nothing else")
    options = parser.parse_args()
    all_of_them = notebooks.chapters() if options.measure else notebooks.every()
    paths = [path.resolve() for path in options.notebook] or all_of_them
    for path in (bar := tqdm(paths, unit="notebook", disable=not sys.stderr.isatty())):
        bar.set_description(path.stem)
        tqdm.write(f"{path.stem}: {execute(path, measure_only=options.measure)} ({measure.device().kind})")


if __name__ == "__main__":
    main()
