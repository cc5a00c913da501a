"""Record what an accelerator can do: ``python -m lib.press.gpu [--budget MINUTES]``, or ``make gpu BUDGET=15``.

Every experiment of ``lib.experiments`` is a run, in a process of its own, on the backend that ``KERAS_BACKEND``
names. The most valuable come first, then the chapters, whose time and memory go into their cost line, then the
rest. A call goes on where the last one stopped: what is recorded is not measured again, and a run that was
stopped, by the budget or by Ctrl-C, keeps the cases that it finished. A record appears whole or not at all. Where
memory runs out, the record says so, and the run goes on. A run that fails stops no other; it is named in the end,
and the exit status is 1.

Nothing here loads Keras: what there is to do is asked of a child process, which does.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.workbench import measure, records

ROOT = Path(__file__).resolve().parents[2]

#: The most valuable runs, and the seconds that one of their cases may take: a guess, which only says what is begun
#: first when time is short.
FIRST: dict[tuple[str, str], float] = {
    ("attention", "times"): 4,
    ("attention", "memory"): 12,
    ("memm", "speed"): 10,
    ("memm", "steps"): 60,
    ("recompute", "batches"): 90,
    ("recompute", "pace"): 30,
    ("initializers", "depth"): 150,
    ("theseus", "costs"): 30,
    ("theseus", "contest"): 20,
    ("theseus", "images"): 10,
}
#: The same guess for the others that need one, for a chapter that is executed, and for every other case.
OTHERS: dict[tuple[str, str], float] = {("recompute", "frontier"): 1}
EXECUTION, OTHER = 90.0, 30.0

#: What is not recorded on an accelerator, by idea or by experiment, and why.
LEFT_OUT: dict[tuple[str, ...], str] = {
    ("angles",): "computes with NumPy, on no accelerator",
    ("orthogonality",): "has the same sizes on every device",
    ("initializers", "matrices"): "has the same sizes on every device",
    ("initializers", "gradients"): "has the same sizes on every device",
    ("initializers", "causes"): "has the same sizes on every device",
    ("memm", "ribrob"): "has the same sizes on every device",
    ("recompute", "remat"): "counts what comes out alike on every device",
    ("recompute", "timeline"): "torch alone lists what it takes and releases, and on a processor alone",
}

#: What a backend cannot do.
_SCAN = "JAX alone compiles and differentiates its scan over the layers: KERAS_BACKEND=jax"
BACKENDS: dict[tuple[str, ...], dict[str, str]] = {
    ("initializers", "depth"): {"tensorflow": _SCAN, "torch": _SCAN},
    ("recompute", "frontier"): {"jax": "is measured operation by operation, and JAX compiles a step as a whole"},
}

#: Seconds: what a run is begun for at least, and what it has to end after it was told to.
LEAST, GRACE = 30.0, 15.0


@dataclass(frozen=True)
class Run:
    """Something to be recorded.

    Attributes:
        name: as it is called here, such as "attention times" or "chapter 7".
        command: the module and its arguments.
        cases: that are not measured yet.
        seconds: that a case may take, a guess.
        partial: the file that keeps the finished cases, from the root; empty where nothing is kept.
    """

    name: str
    command: tuple[str, ...]
    cases: int
    seconds: float
    partial: str = ""

    @property
    def guess(self) -> float:
        """Seconds that all of it may take."""
        return LEAST + self.cases * self.seconds


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        device: its name.
        kind: "cpu" or "gpu".
        backend: of Keras.
        runs: in the order of their value.
        recorded: names of what is recorded already.
        skipped: name to the reason.
    """

    device: str
    kind: str
    backend: str
    runs: tuple[Run, ...]
    recorded: tuple[str, ...]
    skipped: Mapping[str, str]


# --- what there is to do, asked in a process that loads Keras ---------------------------------------------------


class _Pending(BaseException):  # no experiment catches it
    """A sweep that is not recorded: how many cases are left, and where the finished ones are kept."""


def ideas(root: Path = ROOT) -> dict[str, Path]:
    """The ideas of the chapters, in their order, with their notebooks.

    Example:
        >>> [*ideas()][:2]
        ['angles', 'initializers']
    """
    return {path.stem.partition("-")[2]: path for path in sorted((root / "book").glob("[0-9][0-9]-*.ipynb"))}


def offered(idea: str) -> dict[str, Callable[[str], Any]]:
    """The experiments of an idea by name, each a function of the scale."""
    found: dict[str, Callable[[str], Any]] = {}
    main = records.main
    records.main = lambda _, experiments, *__: found.update(experiments)
    try:
        with suppress(SystemExit):
            runpy.run_module(f"lib.experiments.{idea}", run_name="__main__", alter_sys=True)
    finally:
        records.main = main
    return found


def missing(experiment: Callable[[str], Any], device: str | None = None) -> tuple[int, str]:
    """How many cases of an experiment are not measured yet, and the file that keeps those that are.

    Args:
        experiment: a function of the scale; its sweeps are looked at and not run.
        device: if given, what was recorded on another one counts as missing.
    """

    def look(chapter: str, name: str, _: Any, cases: Sequence[Mapping[str, Any]], **__: Any) -> records.Record:
        record = records.load(chapter, name, "gpu")
        if record is None or not _holds(record, cases) or device not in (None, record.device.name):
            path = Path("data") / "measured" / chapter / f"{name}.gpu.json.partial"
            raise _Pending(max(1, len(cases) - finished(path)), path.as_posix())
        return record

    sweep, records.sweep = records.sweep, look
    try:
        experiment("gpu")
    except _Pending as pending:
        return pending.args
    except Exception:  # it will say so when it is run
        return 1, ""
    finally:
        records.sweep = sweep
    return 0, ""


def _holds(record: records.Record, cases: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the record is of these cases."""
    plain = json.loads(json.dumps(list(cases)))
    return len(plain) == len(record.rows) and all(
        key in row and row[key] == case[key] for case, row in zip(plain, record.rows, strict=True) for key in case
    )


def finished(partial: Path, root: Path | None = None) -> int:
    """How many cases a file of finished cases holds; its first line says what they are cases of.

    Example:
        >>> finished(Path("nowhere"))
        0
    """
    path = (root or records.ROOT) / partial
    return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def look_around(again: bool = False) -> dict[str, Any]:
    """The device, and what is missing of each experiment, in terms of JSON; to be asked in a fresh process."""
    keras = importlib.import_module("keras")
    device = records.device()
    experiments: dict[str, dict[str, tuple[int, str]]] = {}
    broken: dict[str, str] = {}
    for idea in ideas():
        try:
            found = {} if (idea,) in LEFT_OUT else offered(idea)
        except Exception as error:  # one chapter's mistake is no other's
            broken[idea] = f"{type(error).__name__}: {error}"
            continue
        experiments[idea] = {
            name: missing(experiment, device.name if again else None)
            for name, experiment in found.items()
            if (idea, name) not in LEFT_OUT
        }
    return {
        "device": device.name,
        "kind": device.kind,
        "backend": keras.config.backend(),
        "experiments": experiments,
        "broken": broken,
    }


def plan(seen: Mapping[str, Any], *, again: bool = False, root: Path | None = None) -> Plan:
    """Puts what :func:`look_around` saw into the order of its value: first things, chapters, all the rest.

    Args:
        seen: what it returned.
        again: whether what was recorded on another device is recorded again.
        root: of the repository; by default the one this module lies in.
    """
    runs, recorded, skipped = {}, [], {" ".join(what): reason for what, reason in LEFT_OUT.items()}
    for idea, experiments in seen["experiments"].items():
        for name, (cases, partial) in experiments.items():
            what = (idea, name)
            if reason := BACKENDS.get(what, {}).get(seen["backend"]):
                skipped[" ".join(what)] = reason
            elif not cases:
                recorded.append(" ".join(what))
            else:
                command = (f"lib.experiments.{idea}", "--scale", "gpu", "--only", name)
                runs[what] = Run(" ".join(what), command, cases, (FIRST | OTHERS).get(what, OTHER), partial)
    first = [runs.pop(what) for what in FIRST if what in runs]
    chapters = []
    for path in ideas().values():
        command = ("lib.press.execute", "--measure", path.relative_to(ROOT).as_posix())
        run = Run(f"chapter {int(path.stem[:2])}", command, 1, EXECUTION)
        device = _executed_on(path, root or records.ROOT)
        if reason := _no_execution(path):
            skipped[run.name] = reason
        elif device is None or (again and device != seen["device"]):
            chapters.append(run)
        else:
            recorded.append(run.name)
    # A module that cannot be imported is run, too: so it is named among what failed.
    broken = [Run(idea, (f"lib.experiments.{idea}", "--scale", "gpu"), 1, OTHER) for idea in seen["broken"]]
    ordered = (*first, *chapters, *runs.values(), *broken)
    return Plan(seen["device"], seen["kind"], seen["backend"], ordered, tuple(recorded), skipped)


def _executed_on(path: Path, root: Path) -> str | None:
    """The accelerator on which a chapter was executed."""
    file = root / "data" / "measured" / path.stem / "execution.gpu.json"
    return records.read_json(file)["device"] if file.exists() else None


def _no_execution(path: Path) -> str:
    """Why a chapter is not executed; empty if it is."""
    here = ROOT / "data" / "measured" / path.stem / "execution.cpu.json"
    if here.exists() and records.read_json(here)["versions"]["backend"] is None:
        return "computes with NumPy, on no accelerator"
    lacking = [name for name in ("nbclient", "ipykernel", "matplotlib") if importlib.util.find_spec(name) is None]
    return f"is executed by {lacking[0]}, which is not installed" if lacking else ""


# --- doing it ---------------------------------------------------------------------------------------------------


def chosen(runs: Sequence[Run], left: Callable[[], float]) -> Iterator[Run]:
    """The runs that are worth beginning, one at a time, while time passes.

    First all that may fit into what is left, in the order of their value; then, with what is left, the others:
    each keeps what it finished, and the next call goes on.

    Args:
        runs: in the order of their value.
        left: seconds that are left.

    Example:
        >>> long, short = Run("long", (), 100, 1.0), Run("short", (), 1, 1.0)
        >>> [run.name for run in chosen([long, short], lambda: 60.0)]
        ['short', 'long']
    """
    postponed = []
    for run in runs:
        if run.guess > left():
            postponed.append(run)
        else:
            yield run
    for run in postponed:
        if left() < LEAST + GRACE:
            return
        yield run


def carry_out(run: Run, limit: float, launcher: Sequence[str]) -> str:
    """Runs it in a process of its own, within so many seconds.

    Returns:
        "recorded", "stopped" or "failed".

    Raises:
        KeyboardInterrupt: passed on, after the process has ended.
    """
    command, environment = [*launcher, *run.command], _environment()
    with _heeding_interrupts():
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        return "failed" if process.wait(None if math.isinf(limit) else limit) else "recorded"
    except subprocess.TimeoutExpired:
        return "stopped"
    finally:
        _end(process)


def _environment() -> dict[str, str]:
    """What a process finds that asks the accelerator: the book to import, and memory that is shared."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**measure.GPU_SHARED, **os.environ, "PYTHONPATH": path}


@contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """What is begun within heeds SIGINT, though a shell lets its background jobs, and all they begin, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(process: subprocess.Popen) -> None:
    """Tells a process to stop, as Ctrl-C does, then ends it and all that it has begun."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def asked(launcher: Sequence[str], again: bool = False) -> dict[str, Any]:
    """What :func:`look_around` returns in a process of its own.

    Raises:
        RuntimeError: it failed; the message ends with what it said.
    """
    command = [*launcher, "lib.press.gpu", "--look", *(["--again"] if again else [])]
    process = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(process.stderr.strip()[-2000:])
    return json.loads(process.stdout.splitlines()[-1])


def record(to_do: Plan, budget: float, launcher: Sequence[str], say: Callable[[str], Any]) -> int:
    """Carries a plan out.

    Args:
        to_do: the plan.
        budget: seconds; infinite for as long as it takes.
        launcher: what begins a process, before the module and its arguments.
        say: prints a line.

    Returns:
        1 if a run failed, 130 if it was interrupted, else 0.
    """
    end = time.monotonic() + budget
    ended: dict[str, list[str]] = {"recorded": [], "stopped": [], "failed": []}
    interrupted = False

    def left() -> float:
        return end - time.monotonic()

    for number, run in enumerate(chosen(to_do.runs, left), 1):
        time_left = "" if math.isinf(budget) else f", {left() / 60:.1f} of {budget / 60:g} minutes left"
        say(f"[{number}/{len(to_do.runs)}] {run.name}: {_told(run)}{time_left}")
        start, before = time.monotonic(), finished(Path(run.partial)) if run.partial else 0
        try:
            outcome = carry_out(run, left() - GRACE, launcher)
        except KeyboardInterrupt:
            outcome, interrupted = "stopped", True
        ended[outcome].append(run.name)
        kept = max(0, finished(Path(run.partial)) - before) if run.partial else 0
        done = f", {kept} more of its cases are kept" if outcome != "recorded" and kept else ""
        say(f"    {run.name}: {outcome} after {(time.monotonic() - start) / 60:.1f} minutes{done}")
        if interrupted:
            break
    begun = {name for names in ended.values() for name in names}
    ended["not begun"] = [run.name for run in to_do.runs if run.name not in begun]
    for outcome, names in ended.items():
        if names:
            say(f"{outcome.capitalize()}: {', '.join(names)}.")
    if ended["stopped"] or ended["not begun"]:
        say("The same command goes on from here.")
    return 130 if interrupted else 1 if ended["failed"] else 0


def _told(run: Run) -> str:
    cases = f"{run.cases} case{'s' * (run.cases > 1)}"
    return f"{cases}, perhaps {max(1, round(run.guess / 60))} minutes"


# --- what was recorded ------------------------------------------------------------------------------------------


def found(root: Path | None = None) -> list[Path]:
    """The files that were recorded on an accelerator."""
    return sorted(((root or records.ROOT) / "data" / "measured").glob("*/*.gpu.json"))


def table(root: Path | None = None) -> str:
    """A line for each record of an accelerator: its rows, in how many memory ran out, device and day."""
    lines = []
    for path in found(root):
        content = records.read_json(path)
        name, rows = f"{path.parent.name}/{path.name.split('.')[0]}", content.get("rows")
        device = content["device"] if rows is None else content["device"]["name"]
        told = f"{content['seconds']} s" if rows is None else f"{len(rows)} rows"
        if short := sum(row.get("out_of_memory", False) for row in rows or []):
            told += f" ({short} out of memory)"
        lines.append(f"{name}: {told}, {device}, {content['date']}")
    return "\n".join(lines) or "Nothing has been recorded on an accelerator yet."


def pack(archive: Path, root: Path | None = None) -> int:
    """Puts all records of an accelerator into a zip file, under their paths in the repository; returns how many."""
    files = found(root)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in files:
            file.write(path, path.relative_to(root or records.ROOT))
    return len(files)


def main(argv: Sequence[str] | None = None, *, launcher: Sequence[str] = (sys.executable, "-m")) -> int:
    """The command line.

    Args:
        argv: arguments; by default those of the process.
        launcher: what begins a process, before the module and its arguments.

    Returns:
        Exit status: that of :func:`record`; 2 where there is no accelerator.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lib.press.gpu", description="Record what an accelerator can do."
    )
    parser.add_argument("--budget", type=_positive, default=math.inf, metavar="MINUTES", help="default: no end")
    parser.add_argument("--only", default="", metavar="WORDS", help="runs whose names begin so: 'attention times'")
    parser.add_argument("--again", action="store_true", help="also what was recorded on another device")
    parser.add_argument("--list", action="store_true", help="say what there is to do, and stop")
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.look:
        print(json.dumps(look_around(options.again)))
        return 0
    start = time.monotonic()
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    try:
        to_do = plan(asked(launcher, options.again), again=options.again)
    except RuntimeError as error:
        print(f"Keras cannot be asked on {backend}:\n{error}", file=sys.stderr)
        return 2
    runs = tuple(run for run in to_do.runs if run.name.startswith(options.only))
    to_do = Plan(to_do.device, to_do.kind, to_do.backend, runs, to_do.recorded, to_do.skipped)
    for name, reason in to_do.skipped.items():
        print(f"Left out: {name} ({reason}).")
    if to_do.recorded:
        print(f"Recorded already: {', '.join(to_do.recorded)}.")
    if options.list:
        for run in runs:
            print(f"{run.name}: {_told(run)}")
        return 0
    if to_do.kind != "gpu":
        print(f"Keras on {to_do.backend} finds no accelerator here, so nothing is recorded.")
        return 2
    if to_do.backend == "tensorflow":
        print("TensorFlow has no fused softmax; KERAS_BACKEND=jax has.")
    print(f"Recording on {to_do.device}, Keras on {to_do.backend}.", flush=True)
    budget = 60 * options.budget - (time.monotonic() - start)
    return record(to_do, budget, launcher, lambda line: print(line, flush=True))


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a positive number of minutes, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
