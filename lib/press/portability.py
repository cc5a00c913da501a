"""Does the book hold on other machines? ``python -m lib.press.portability [--only today]``.

Runs every notebook, and the tests of the ideas of ``lib``, as other machines would run them: with the instruction
sets of older processors, without oneDNN, with one thread, in another locale and a folder whose name has spaces, and
with XLA wherever Keras uses it on a GPU. Then prints what came out differently: cells by meaning (see
`lib.press.compare`) and verdicts of claims. A difference is a fault of the book: a number was printed to a digit
that rounding decides, or a claim rests on a single run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode
from tqdm import tqdm

from lib.press import execute, notebooks


@dataclass(frozen=True)
class Machine:
    """Another machine, as far as environment variables and a folder can play it.

    Args:
        name: what the table calls it.
        environment: the variables that a process must find when it starts.
        folder: the checkout is run from a copy of this name, if one is given.
        cells: whether what the cells show is compared; verdicts and tests always are.
        in_tests: the variables that the tests find besides.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    cells: bool = True
    in_tests: Mapping[str, str] = field(default_factory=dict)


def _processor(blas: str, numpy: str, onednn: str, xla: str) -> dict[str, str]:
    """The variables by which four libraries are told to use an older instruction set."""
    return {
        "OPENBLAS_CORETYPE": blas,
        "NPY_DISABLE_CPU_FEATURES": numpy,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "XLA_FLAGS": f"--xla_cpu_max_isa={xla}",
    }


# TensorFlow asks the processor itself whether bfloat16 is for oneDNN, and dies where oneDNN was told to be older.
# On an old processor it leaves bfloat16 to Eigen, as it does without oneDNN; the tests multiply in bfloat16.
_WITHOUT_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

MACHINES = (
    Machine(
        "AVX2", _processor("Haswell", "X86_V4 AVX512_ICL AVX512_SPR", "AVX2", "AVX2"), in_tests=_WITHOUT_ONEDNN
    ),
    Machine(
        "SSE4",
        _processor("Nehalem", "X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "SSE41", "SSE4_2"),
        in_tests=_WITHOUT_ONEDNN,
    ),
    Machine("no oneDNN", _WITHOUT_ONEDNN),
    Machine("one thread", dict.fromkeys(_THREADS, "1")),
    Machine(
        "another place",
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Asia/Kathmandu"},
        folder="a folder with spaces",
    ),
    # Another compiler adds in another order, and a long training makes digits of it that all can see.
    Machine(
        "XLA",
        {"PYTHONSTARTUP": str(notebooks.ROOT / "lib/press/xla.py"), "PYTEST_PLUGINS": "lib.press.xla"},
        cells=False,
    ),
)


@dataclass
class Difference:
    """What came out differently: where, and what, one sentence each."""

    place: str
    sentences: list[str]


def of_today(machines: Sequence[Machine] = MACHINES, day: datetime.date | None = None) -> Machine:
    """The machine whose turn it is: all have theirs within as many days."""
    return machines[(day or datetime.date.today()).toordinal() % len(machines)]


def notebook_differences(path: Path, machine: Machine, root: Path, keep: Path | None = None) -> list[Difference]:
    """Run one notebook as the machine would, and compare what it shows and what its claims say.

    Args:
        path: the notebook.
        machine: where to pretend to be.
        root: the checkout that holds it.
        keep: a folder for the claims of this run, with their values; none if None.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "claims.json"
        try:
            notebook, _ = execute.run(path, file, machine.environment)
        except Exception as error:
            return [Difference(path.stem, [f"it stops: {error}"])]
        if keep is not None and file.exists():
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, keep / f"{path.stem}.json")
        shown = cell_differences(path, notebook) if machine.cells else []
        return shown + verdict_differences(path, file, root)


def cell_differences(path: Path, notebook: NotebookNode) -> list[Difference]:
    """The cells that show something else than the stored notebook, by meaning."""
    return [
        Difference(f"{path.stem}, cell {number}", sentences)
        for number, sentences in execute.changed_cells(notebooks.read(path), notebook)
    ]


def verdict_differences(path: Path, claimed: Path, root: Path) -> list[Difference]:
    """The claims whose verdict in the file of a run is not the stored one, or that one side lacks."""
    before, after = (
        {claim["id"]: claim["verdict"] for claim in json.loads(file.read_text(encoding="utf8"))}
        if file.exists()
        else {}
        for file in (notebooks.claims(path, root), claimed)
    )
    return [
        Difference(f"claim {number}", [f"{before.get(number)} was stored, {after.get(number)} came"])
        for number in sorted(before.keys() | after.keys())
        if before.get(number) != after.get(number)
    ]


def test_differences(machine: Machine, root: Path) -> list[Difference]:
    """Run the tests of the ideas of ``lib`` as the machine would; each failure is a difference."""
    names = [pattern.format(idea) for idea in notebooks.ideas(root) for pattern in ("test_{}.py", "test_{}_*.py")]
    tests = sorted(str(path.relative_to(root)) for name in names for path in (root / "tests").glob(name))
    command = [sys.executable, "-m", "pytest", *tests, "-q", "-n", "2", "--dist", "loadscope"]
    played = {**machine.environment, **machine.in_tests, "PYTHONPATH": "."}
    environment = {"HYPOTHESIS_PROFILE": "few", **os.environ, **played}  # another profile, if one is asked for
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    failed = [line for line in run.stdout.split("\n") if line.startswith(("FAILED", "ERROR"))]
    if run.returncode and not failed:
        failed = [run.stdout[-2000:] + run.stderr[-2000:]]
    return [Difference("tests", [line]) for line in failed]


def differences(machine: Machine, chapters: Sequence[Path], *, tests: bool = True) -> dict[str, list[Difference]]:
    """What is different on a machine, by chapter, and for the tests of ``lib`` under ``"tests"``."""
    with tempfile.TemporaryDirectory() as folder:
        root = notebooks.ROOT
        if machine.folder:
            root = _fetched(copy(Path(folder) / machine.folder))
        jobs: dict[str, Callable[[], list[Difference]]] = {
            path.stem: lambda path=path: notebook_differences(
                root / path.relative_to(notebooks.ROOT),
                machine,
                root,
                notebooks.ROOT / "_build/portability" / machine.name,
            )
            for path in chapters
        }
        # Whole notebooks, two at a time: the longest first, so that none is left alone at the end.
        with ThreadPoolExecutor(2) as pool:
            futures = {name: pool.submit(job) for name, job in sorted(jobs.items(), reverse=True)}
            bar = tqdm(futures.items(), desc=machine.name, unit="notebook", disable=not sys.stderr.isatty())
            found = {name: future.result() for name, future in bar}
        if tests:
            found["tests"] = test_differences(machine, root)
        return dict(sorted(found.items()))


def copy(folder: Path, root: Path = notebooks.ROOT) -> Path:
    """A copy of all that .gitignore does not name. An archive of the book is no repository: git cannot be asked."""
    ignored = (".git", *(line.rstrip("/") for line in (root / ".gitignore").read_text(encoding="utf8").split()))

    def left_out(place: str, names: list[str]) -> set[str]:
        inside = Path(place).relative_to(root)
        return {name for name in names if any((inside / name).match(pattern) for pattern in ignored)}

    return Path(shutil.copytree(root, folder, ignore=left_out))


def _fetched(root: Path) -> Path:
    """A copy takes what was fetched from the book itself, which fetches it once and not twice."""
    cache = notebooks.ROOT / "data" / "cache"
    cache.mkdir(exist_ok=True)
    (root / "data" / "cache").symlink_to(cache)
    return root


def table(found: Mapping[str, Mapping[str, Sequence[Difference]]]) -> str:
    """One line a machine, one column a chapter: how many cells, claims and tests differ."""
    columns = [*next(iter(found.values()))]
    width = max(len(name) for name in found)
    lines = [" " * width + "  " + "  ".join(column[:5].rjust(5) for column in columns)]
    for name, chapters in found.items():
        lines.append(name.ljust(width) + "  " + "  ".join(str(len(chapters[c])).rjust(5) for c in columns))
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    names = [machine.name for machine in MACHINES]
    parser = argparse.ArgumentParser(description="Run the book as other machines would.")
    parser.add_argument("--only", choices=[*names, "today"], help="one machine; today: the one whose turn it is")
    parser.add_argument("--no-tests", action="store_true", help="the notebooks alone")
    parser.add_argument("notebook", nargs="*", type=Path, help="default: every chapter")
    options = parser.parse_args()
    chosen = [of_today()] if options.only == "today" else [m for m in MACHINES if options.only in (None, m.name)]
    paths = [path.resolve() for path in options.notebook] or notebooks.chapters()
    found = {}
    for machine in chosen:
        start = time.perf_counter()
        print(f"Playing {machine.name} …", flush=True)
        found[machine.name] = differences(machine, paths, tests=not options.no_tests)
        for difference in (one for several in found[machine.name].values() for one in several):
            print(f"{machine.name} · {difference.place}: " + "\n    ".join(difference.sentences[:3]))
        print(f"Played {machine.name} in {time.perf_counter() - start:.0f} s.", flush=True)
    print(table(found))
    if any(several for chapters in found.values() for several in chapters.values()):
        sys.exit("make portability: the book does not hold on every machine; the differences stand above")
    print("Every verdict and every compared output is the same on every machine.")


if __name__ == "__main__":
    main()
