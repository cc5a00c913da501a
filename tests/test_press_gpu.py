"""The runner for accelerators: what it does first, where it stops, what it goes on with, and what it tells.

The processes run in a small repository of its own, whose ``keras`` is a stand-in with an accelerator: they are as
quick as they would be without Keras. The real experiments run at tiny sizes, in this process and on its backend.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest

from lib.press import gpu, notebooks, portability
from lib.press.gpu import Run, chosen
from lib.workbench import measure, records

ROOT = notebooks.ROOT

KERAS = """
import os
from types import SimpleNamespace
__version__ = "0"
place = SimpleNamespace(platform=os.environ.get("PLACE", "gpu"), device_kind=os.environ.get("DEVICE", "Loom"))
config = SimpleNamespace(backend=lambda: os.environ.get("KERAS_BACKEND", "jax"))
ops = SimpleNamespace(zeros=lambda _: SimpleNamespace(devices=lambda: [place]))
"""

#: Experiments of an idea: each squares a few numbers, unless a file tells it to fail or to lack memory.
EXPERIMENTS = """
import sys
from pathlib import Path
from lib.workbench import records

def experiment(name, count):
    def square(n):
        if n == 1 and Path("lacks-memory").exists():
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes.")
        if n == 2 and Path(f"fails-{name}").exists():
            raise ValueError("two is too much")
        with open("log", "a") as log:
            log.write(f"{name} {n}\\n")
        return {"square": n * n}

    return lambda scale: records.sweep(CHAPTER, name, square, [{"n": n} for n in range(count)], scale=scale)

if __name__ == "__main__":
    sys.exit(records.main(CHAPTER, {name: experiment(name, count) for name, count in COUNTS.items()}))
"""

#: What stands for the execution of a chapter.
EXECUTE = """
import sys
from pathlib import Path
from lib.workbench import records

path = Path("data/measured") / Path(sys.argv[2]).stem / "execution.gpu.json"
records.write_json(path, {"device": "Loom (GPU)", "seconds": 1.0, "date": "2026-01-31"})
"""

#: Begins it as the command line does, with little patience.
DRIVER = """
import sys
from lib.press import gpu
gpu.LEAST, gpu.GRACE = 0.1, 5.0
sys.exit(gpu.main(sys.argv[1:]))
"""


class Book:
    """A repository with the workbench, the runner, two chapters and their experiments."""

    def __init__(self, root: Path):
        self.root = root
        for folder in ("lib/press", "lib/experiments", "book"):
            (root / folder).mkdir(parents=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "lib" / "workbench", root / "lib" / "workbench", ignore=ignore)
        for file in ("lib/__init__.py", "lib/press/__init__.py", "lib/press/gpu.py", "lib/experiments/__init__.py"):
            shutil.copy(ROOT / file, root / file)
        (root / "lib/press/execute.py").write_text(EXECUTE)
        (root / "keras.py").write_text(KERAS)
        (root / "driver.py").write_text(DRIVER)
        self.idea("04-crf", {"margin": 1})
        self.idea("07-attention", {"later": 1, "memory": 1, "times": 4})

    def idea(self, chapter: str, counts: dict[str, int]) -> None:
        (self.root / "book" / f"{chapter}.ipynb").touch()
        source = f"CHAPTER, COUNTS = {chapter!r}, {counts!r}\n{EXPERIMENTS}"
        (self.root / "lib/experiments" / f"{chapter[3:]}.py").write_text(source)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
        environment |= {"PYTHONPATH": str(self.root), "KERAS_BACKEND": "jax", **variables}
        command = [sys.executable, "driver.py", *arguments]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)

    def record(self, chapter: str, name: str) -> records.Record | None:
        return records.load(chapter, name, "gpu", root=self.root)

    def done(self) -> list[str]:
        """What was measured, in its order; afterwards the log is empty."""
        log = self.root / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


# --- in processes, on a stand-in --------------------------------------------------------------------------------


def test_everything_is_recorded_the_most_valuable_first_and_never_twice(book):
    run = book.run()
    assert run.returncode == 0, run.stderr
    times = [f"times {n}" for n in range(4)]
    assert book.done() == [*times, "memory 0", "margin 0", "later 0"]
    order = ["attention times", "attention memory", "chapter 4", "chapter 7", "crf margin", "attention later"]
    assert [line.split("] ")[1].split(":")[0] for line in run.stdout.splitlines() if "] " in line] == order
    assert f"Recorded: {', '.join(order)}." in run.stdout
    record = book.record("07-attention", "times")
    assert record.device.name == "Loom (GPU)"
    assert record.column("square") == [0, 1, 4, 9]
    assert (book.root / "data/measured/04-crf/execution.gpu.json").exists()

    run = book.run()
    assert run.returncode == 0
    assert book.done() == []
    assert all(name in run.stdout.split("Recorded already: ")[1].splitlines()[0] for name in order)

    # On another device everything stands as it is, unless it is asked for again; then once.
    assert book.run(DEVICE="Jenny").returncode == 0
    assert book.done() == []
    for measured in (7, 0):
        assert book.run("--again", DEVICE="Jenny").returncode == 0
        assert len(book.done()) == measured
    assert book.record("07-attention", "times").device.name == "Jenny (GPU)"

    # Other cases are not those that were recorded.
    book.idea("04-crf", {"margin": 2})
    assert book.run().returncode == 0
    assert book.done() == ["margin 0", "margin 1"]


def test_a_run_that_fails_stops_no_other_and_goes_on_where_it_failed(book):
    (book.root / "fails-times").touch()
    book.idea("05-memm", {})
    (book.root / "lib/experiments/memm.py").write_text("raise ImportError('no such chapter')")
    run = book.run()
    assert run.returncode == 1
    assert book.done() == ["times 0", "times 1", "memory 0", "margin 0", "later 0"]
    assert "attention times: failed after 0." in run.stdout
    assert "2 more of its cases are kept" in run.stdout
    assert "\nFailed: attention times, memm.\n" in run.stdout
    assert "two is too much" in run.stderr  # why
    assert "no such chapter" in run.stderr
    assert book.record("07-attention", "times") is None

    (book.root / "fails-times").unlink()
    book.idea("05-memm", {"steps": 1})
    run = book.run()
    assert run.returncode == 0, run.stderr
    assert book.done() == ["times 2", "times 3", "steps 0"]
    assert "attention times: 2 cases" in run.stdout
    assert book.record("07-attention", "times").column("square") == [0, 1, 4, 9]


def test_running_out_of_memory_is_a_row_of_the_record_and_no_failure(book):
    (book.root / "lacks-memory").touch()
    run = book.run("--only", "attention times")
    assert run.returncode == 0
    assert book.done() == ["times 0", "times 2", "times 3"]
    assert book.record("07-attention", "times").rows[1] == {"n": 1, "out_of_memory": True}
    told = gpu.table(book.root)
    assert told.startswith("07-attention/times: 4 rows (1 out of memory), Loom (GPU), ")


def test_without_an_accelerator_nothing_is_recorded_and_the_plan_can_be_read(book):
    run = book.run(PLACE="cpu")
    assert run.returncode == 2
    assert "Keras on jax finds no accelerator here, so nothing is recorded." in run.stdout
    run = book.run("--list", PLACE="cpu")
    assert run.returncode == 0
    assert "attention times: 4 cases, perhaps 1 minutes" in run.stdout
    assert book.done() == []
    (book.root / "keras.py").write_text("raise ImportError('no backend')")
    run = book.run()
    assert run.returncode == 2
    assert "Keras cannot be asked on jax:" in run.stderr
    assert "no backend" in run.stderr


def test_the_records_are_packed_under_their_places(book, tmp_path):
    assert gpu.table(book.root) == "Nothing has been recorded on an accelerator yet."
    assert book.run("--only", "crf").returncode == 0
    assert book.run("--only", "chapter 4").returncode == 0
    assert gpu.pack(tmp_path / "a.zip", book.root) == 2
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        names = file.namelist()
    assert names == ["data/measured/04-crf/execution.gpu.json", "data/measured/04-crf/margin.gpu.json"]
    assert "04-crf/execution: 1.0 s, Loom (GPU), 2026-01-31" in gpu.table(book.root)


# --- within a budget --------------------------------------------------------------------------------------------


def test_first_what_may_fit_then_what_may_not():
    long, middle, short = Run("long", (), 100, 1.0), Run("middle", (), 50, 1.0), Run("short", (), 1, 1.0)
    runs = [long, middle, short]
    assert [*chosen(runs, lambda: float("inf"))] == runs
    assert [*chosen(runs, lambda: 100.0)] == [middle, short, long]
    assert [*chosen(runs, lambda: 50.0)] == [short, long, middle]
    assert [*chosen(runs, lambda: 10.0)] == []


#: Writes a line, then waits, once for the signal and, if it is stubborn, forever, with a child of its own.
WAITING = """
import signal, subprocess, sys, time
from pathlib import Path

if "stubborn" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("child").write_text(str(child.pid))
with open("kept", "a") as kept:
    kept.write("header\\nrow\\n")
try:
    time.sleep(600)
except KeyboardInterrupt:
    Path("told").touch()
    sys.exit(130)
"""


def carried_out(tmp_path, monkeypatch, budget, *runs):
    (tmp_path / "waiting.py").write_text(WAITING)
    (tmp_path / "quick.py").write_text("open('quick', 'w').close()")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "LEAST", 0.1)
    monkeypatch.setattr(gpu, "GRACE", 1.0)
    lines: list[str] = []
    plan = gpu.Plan("a loom", "gpu", "jax", runs, (), {})
    start = time.monotonic()
    status = gpu.record(plan, budget, (sys.executable,), lines.append)
    return status, lines, time.monotonic() - start


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["in front", "in the background"])
def place(request):
    """A shell lets the jobs that it runs in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_run_is_stopped_when_the_budget_is_spent(tmp_path, monkeypatch, stubborn):
    waiting = Run("waiting", ("waiting.py", *(["stubborn"] if stubborn else [])), 1, 0.0, "kept")
    later = Run("later", ("quick.py",), 1, 1000.0)
    status, lines, took = carried_out(tmp_path, monkeypatch, 6.0, waiting, later)
    assert status == 0  # to be stopped is no failure
    assert 3 < took < 30
    assert "waiting: stopped after" in lines[1]
    assert "1 more of its cases are kept" in lines[1]
    assert lines[2:] == ["Stopped: waiting.", "Not begun: later.", "The same command goes on from here."]
    assert (tmp_path / "told").exists() != stubborn
    if stubborn:
        child = Path("/proc") / (tmp_path / "child").read_text()
        for _ in range(100):  # the system takes a moment to bury it
            if not child.exists() or "State:\tZ" in (child / "status").read_text():
                break
            time.sleep(0.1)
        else:
            pytest.fail("the child of a run outlived it")


def test_a_run_may_be_interrupted(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "carry_out", interrupted)
    status, lines, _ = carried_out(tmp_path, monkeypatch, float("inf"), Run("a", (), 1, 1.0), Run("b", (), 1, 1.0))
    assert status == 130
    assert lines[-3:] == ["Stopped: a.", "Not begun: b.", "The same command goes on from here."]


def test_ctrl_c_reaches_the_run(tmp_path):
    """It is a session of its own, to which the terminal sends nothing."""
    (tmp_path / "waiting.py").write_text(WAITING)
    code = (
        "import sys\nfrom pathlib import Path\nfrom lib.press import gpu\ngpu.ROOT = Path.cwd()\n"
        "plan = gpu.Plan('a', 'gpu', 'jax', (gpu.Run('waiting', ('waiting.py',), 1, 1.0),), (), {})\n"
        "sys.exit(gpu.record(plan, float('inf'), (sys.executable,), print))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    heed = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # wherever the tests run
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, preexec_fn=heed)
    for _ in range(600):
        if (tmp_path / "kept").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_a_budget_is_a_positive_number_of_minutes(minutes, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--budget", minutes])
    assert ended.value.code == 2
    assert "must be a positive number of minutes" in capsys.readouterr().err


# --- the real experiments ---------------------------------------------------------------------------------------

STAND_IN = measure.Device("a stand-in (GPU)", "gpu", 2, None)

_BLOCKS = {"layers": 1, "hidden": 16, "heads": 2, "time": 8, "batch": 2}
_THIN = {"way": "2", "layers": 4, "units": 4, "batch": 4}
#: What makes the last case of a function tiny; a key that it lacks is added. Functions that are not named are
#: planned, and their own tests run them.
TINY: dict[str, dict] = {
    # chapter 2
    "tuned": {"depth": 4, "width": 8, "rates": [1e-3], "seeds": [1], "epochs": 1, "batch": 1000},
    # chapter 5
    "measured": {"what": "loss", "length": 8, "tags": 3, "mode": "graph"},
    "step_times": {
        **{"layers": 1, "length": 8, "width": 64, "batch": 2},
        **{"models": ["softmax", "crf"], "mode": "graph"},
    },
    "large_cost": {"tags": 100, "batch": 2, "length": 4, "repeats": 2},
    # chapter 7
    "times": {"n": 64, "form": "fused softmax", "heads": 1, "dim": 8, "budget": 0.01},
    "costs.memory": {"n": 64, "form": "fused softmax", "heads": 1, "dim": 8},
    "layer_times": {"n": 16, "heads": 2, "dim": 8, "budget": 0.01},
    "decoding": {"known": 8, "tokens": 2, "heads": 1, "dim": 4, "budget": 0.01},
    # chapter 8
    "segments.memory": _BLOCKS,
    "race": {**_BLOCKS, "rounds": 6},
    "kept_by_a_layer": {key: value for key, value in _BLOCKS.items() if key != "layers"},
    "frontier": {**_BLOCKS, "layers": 2, "cuts": "0-1"},
    "batches": {"way": "none", "time": 128, "layers": 1, "hidden": 16, "heads": 2, "precision": 1.0},
    "pace": {**_BLOCKS, "plain_batch": 2},
    # chapter 9
    "contest": {"images": 64, "known": 64, "old_steps": 2, "steps": 2},
    "_with_mixtures": {"images": 64, "known": 64, "old_steps": 2, "steps": 2},
    "gradient_norms": {"images": 64, "known": 64, "old_steps": 2},
    "costs": {"layers": 2, "small": 1, "hidden": 16, "heads": 2, "time": 4, "batch": 2, "rounds": 6},
}


def _tiny(function, cases):
    """The last case, tiny; none of a function that is not known."""
    home = function.__module__.split(".")[-1]
    small = TINY.get(f"{home}.{function.__name__}", TINY.get(function.__name__))
    if small is None:
        return []
    return [{**cases[-1], **(_THIN if cases[-1].get("kind") == "thin" else small)}]


def _in_this_process(builder, *, backend=None, **case):  # noqa: ARG001
    """Stands for a fresh process: what one is told arrives, and what it would weigh runs."""
    if isinstance(builder, str):
        module, _, name = builder.partition(":")
        builder = getattr(importlib.import_module(module), name)
    measure.ready(builder(**json.loads(json.dumps(case)))())
    return measure.Peak(2**20, "a stand-in", 0)


@pytest.mark.backends
def test_every_experiment_is_planned(keras, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "device", lambda: STAND_IN)
    seen = json.loads(json.dumps(gpu.look_around()))
    backend = keras.config.backend()
    assert (seen["device"], seen["kind"], seen["backend"]) == (STAND_IN.name, "gpu", backend)
    assert seen["broken"] == {}
    whole = {what[0] for what in gpu.LEFT_OUT if len(what) == 1}
    assert {*seen["experiments"]} == {*gpu.ideas()}
    assert all((experiments == {}) == (idea in whole) for idea, experiments in seen["experiments"].items())
    planned = {(idea, name) for idea, experiments in seen["experiments"].items() for name in experiments}
    assert planned >= {*gpu.FIRST, *gpu.OTHERS, *gpu.BACKENDS}
    for idea, *names in gpu.LEFT_OUT:
        assert {*names} <= {*gpu.offered(idea)}
    for experiments in seen["experiments"].values():  # each came as far as a sweep
        assert all(cases >= 1 and partial.endswith(".gpu.json.partial") for cases, partial in experiments.values())

    plan = gpu.plan(seen, root=tmp_path)
    names = [run.name for run in plan.runs]
    assert len({*names}) == len(names)
    first = [" ".join(what) for what in gpu.FIRST if backend not in gpu.BACKENDS.get(what, {})]
    assert names[: len(first)] == first
    assert {*names} | {*plan.skipped} >= {" ".join(what) for what in planned}
    assert [name for name in names if name.startswith("chapter")] == [f"chapter {k}" for k in range(2, 10)]
    assert plan.skipped["chapter 1"] == "computes with NumPy, on no accelerator"


@pytest.mark.backends
@pytest.mark.parametrize("idea", ["initializers", "memm", "attention", "recompute", "theseus"])
def test_the_runs_record_on_a_stand_in_device(idea, keras, monkeypatch, tmp_path):
    """The same code as on an accelerator, with the last case of each run made tiny."""
    from lib.experiments.recompute import batches

    backend = keras.config.backend()
    if (backend, idea) == ("torch", "theseus") and keras.__version__.startswith("3.8."):
        pytest.skip("torch.compile fails on the losses of Keras 3.8, of one Dense layer too")
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "device", lambda: STAND_IN)
    monkeypatch.setattr(measure, "device", lambda: STAND_IN)
    monkeypatch.setattr(measure, "peak_memory_in_fresh_process", _in_this_process)
    sweep, recorded = records.sweep, {}

    def small(chapter, name, function, cases, **options):
        tiny = _tiny(function, cases)
        if tiny:
            recorded[name] = sweep(chapter, name, function, tiny, **options)
        return recorded.get(name) or records.Record(STAND_IN, {}, "2026-01-31", "", "gpu", ())

    step = batches._step

    def within_memory(way, batch, sizes):
        if batch > 3:
            raise MemoryError("a batch of 4 is too much for the stand-in")
        return step(way, batch, sizes)

    monkeypatch.setattr(batches, "_step", within_memory)
    monkeypatch.setattr(records, "sweep", small)
    ran = []
    for name, experiment in gpu.offered(idea).items():
        if (idea, name) in gpu.LEFT_OUT or backend in gpu.BACKENDS.get((idea, name), {}):
            continue
        try:
            experiment("gpu")
        except (ValueError, KeyError, IndexError):  # it reads a record of what was not run
            continue
        ran.append(name)
    promised = {name for of, name in gpu.FIRST if of == idea and backend not in gpu.BACKENDS.get((of, name), {})}
    assert promised <= {*ran}
    files = sorted(tmp_path.glob("data/measured/*/*"))
    assert len(files) == len(recorded) >= len(promised)
    assert all(path.name.endswith(".gpu.json") for path in files)
    for record in recorded.values():
        assert record.device == STAND_IN
        assert record.rows
        assert not any(row.get("out_of_memory") for row in record.rows)
    if idea == "recompute":
        assert recorded["batches"].column("batch") == [2]


@pytest.mark.backends
@pytest.mark.skipif(os.environ.get("KERAS_BACKEND") != "jax", reason="what is stored is the run on TensorFlow")
def test_chapter_8_keeps_its_verdicts_on_jax():
    """JAX is the backend of an accelerator without TensorFlow; on a processor it warns that it saves no memory."""
    (path,) = (path for path in notebooks.chapters() if path.stem == "08-recompute")
    machine = portability.Machine("JAX", {"KERAS_BACKEND": "jax", "PYTHONWARNINGS": "ignore"}, cells=False)
    assert portability.notebook_differences(path, machine, ROOT) == []
