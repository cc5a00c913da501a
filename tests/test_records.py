"""Truths about recorded runs."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.workbench import measure, records
from lib.workbench.measure import Device
from lib.workbench.records import load, main, read_json, sweep, write_json

CPU = Device("an abacus", "cpu", 2, 2**30)
GPU = Device("a loom", "gpu", 2, 2**33)
CASES = [{"n": n, "method": method} for n in (1, 2) for method in ("slow", "fast")]


@pytest.fixture(autouse=True)
def device_of_the_test(monkeypatch):
    monkeypatch.setattr(records, "device", lambda: CPU)
    monkeypatch.setattr(records, "versions", lambda: {"python": "3.11.0", "backend": None})


class Work:
    """A measured function that can be told to stop at its k-th call and remembers what it did."""

    def __init__(self, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt):
        self.stop_at, self.error, self.done = stop_at, error, []

    def __call__(self, n: int, method: str) -> dict:
        if len(self.done) == self.stop_at:
            raise self.error("stopped")
        self.done.append((n, method))
        return {"ms": n / (2 if method == "fast" else 1)}


def run(root: Path, work: Work, cases=CASES, **options) -> records.Record:
    return sweep("04-crf", "speed", work, cases, **{"scale": "cpu", "root": root} | options)


def partial_file(root: Path) -> Path:
    return root / "data/measured/04-crf/speed.cpu.json.partial"


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


# --------------------------------------------------------------------------------------------- the record


def test_a_sweep_records_one_row_a_case_in_the_order_of_the_cases(tmp_path):
    record = run(tmp_path, Work())
    assert [(row["n"], row["method"]) for row in record.rows] == [
        (1, "slow"),
        (1, "fast"),
        (2, "slow"),
        (2, "fast"),
    ]
    assert record.column("ms") == [1.0, 0.5, 2.0, 1.0]


def test_the_file_says_device_versions_date_command_scale_and_rows_and_nothing_of_this_machine(tmp_path):
    run(tmp_path, Work())
    assert files(tmp_path) == ["data/measured/04-crf/speed.cpu.json"]
    text = (tmp_path / files(tmp_path)[0]).read_text(encoding="utf8")
    content = json.loads(text)
    assert sorted(content) == ["command", "date", "device", "rows", "scale", "versions"]
    assert content["command"] == "python -m lib.experiments.crf --scale cpu"
    assert content["device"] == {"name": "an abacus", "kind": "cpu", "cores": 2, "memory_bytes": 2**30}
    assert content["versions"] == {"python": "3.11.0", "backend": None}
    assert str(tmp_path) not in text
    assert str(measure.ROOT) not in text


def test_the_command_can_be_given(tmp_path):
    assert run(tmp_path, Work(), command="make it").command == "make it"


def test_the_label_of_a_figure_names_device_and_day(tmp_path):
    record = replace(run(tmp_path, Work()), date="2026-01-31")
    assert record.label() == "recorded on an abacus, 2026-01-31"


def test_load_gives_what_sweep_gave_and_none_where_nothing_was_recorded(tmp_path):
    assert load("04-crf", "speed", root=tmp_path) is None
    record = run(tmp_path, Work())
    assert load("04-crf", "speed", root=tmp_path) == record
    assert load("04-crf", "speed", "gpu", root=tmp_path) is None


def test_without_a_tier_the_record_of_the_gpu_is_preferred(tmp_path, monkeypatch):
    run(tmp_path, Work())
    loaded = []
    monkeypatch.setattr(records.importlib, "import_module", loaded.append)
    monkeypatch.setattr(records, "device", lambda: GPU)
    run(tmp_path, Work(), scale="gpu")
    assert loaded == ["keras"]  # only a loaded backend can tell of its GPU
    assert load("04-crf", "speed", root=tmp_path).device == GPU
    assert load("04-crf", "speed", "cpu", root=tmp_path).device == CPU


def test_records_lie_in_the_repository_by_default():
    assert records._path("04-crf", "speed", "cpu", None) == (
        Path(__file__).resolve().parents[1] / "data/measured/04-crf/speed.cpu.json"
    )


def test_a_file_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "data/measured/04-crf/speed.cpu.json"
    for content in ({"rows": []}, {"device": {"name": "x"}, "rows": []}):
        write_json(path, content)
        with pytest.raises(ValueError, match=r"speed\.cpu\.json is not a record"):
            load("04-crf", "speed", root=tmp_path)
    path.write_text('{"half')
    with pytest.raises(ValueError, match=r"speed\.cpu\.json is not a record"):
        load("04-crf", "speed", root=tmp_path)


# -------------------------------------------------------------------------------------------- reading rows


def test_where_selects_rows_and_column_reads_one_key_of_them(tmp_path):
    record = run(tmp_path, Work())
    assert record.where(method="fast") == record.rows[1::2]
    assert record.where(method="fast", n=2) == record.rows[3:]
    assert record.where(n=3) == ()
    assert record.column("ms", method="fast") == [0.5, 1.0]


def test_an_unknown_key_is_named_with_those_there_are(tmp_path):
    record = run(tmp_path, Work())
    with pytest.raises(ValueError, match=r"\['speed'\].*\['method', 'ms', 'n'\]"):
        record.column("speed")
    with pytest.raises(ValueError, match="'size'"):
        record.where(size=1)


def test_running_out_of_memory_is_a_row(tmp_path):
    def hungry(n, method):
        if method == "slow":
            raise MemoryError
        return measure.OutOfMemory("1 TiB") if n == 2 else {"ms": 1.0}

    record = run(tmp_path, hungry)
    assert record.rows[0] == {"n": 1, "method": "slow", "out_of_memory": True}
    assert record.rows[3] == {"n": 2, "method": "fast", "out_of_memory": True}
    assert record.column("ms") == [None, 1.0, None, None]
    assert len(record.where(out_of_memory=True)) == 3


def test_results_must_be_a_dict_that_does_not_contradict_its_case(tmp_path):
    with pytest.raises(TypeError, match=r"returned 3"):
        run(tmp_path, lambda **_: 3)
    with pytest.raises(ValueError, match=r"\['n'\]"):
        run(tmp_path, lambda n, **_: {"n": n + 1})
    with pytest.raises(TypeError, match="JSON cannot hold <object"):
        run(tmp_path, lambda **_: {"x": object()})


# --------------------------------------------------------------------------------- interruption, resumption


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, error):
    with pytest.raises(error):
        run(tmp_path, Work(stop_at=2, error=error))
    assert files(tmp_path) == ["data/measured/04-crf/speed.cpu.json.partial"]
    rest = Work()
    record = run(tmp_path, rest)
    assert rest.done == [(2, "slow"), (2, "fast")]
    assert record == run(tmp_path / "uninterrupted", Work())
    assert files(tmp_path)[0] == "data/measured/04-crf/speed.cpu.json"
    assert not partial_file(tmp_path).exists()


def test_a_killed_process_loses_no_finished_row(tmp_path):
    program = (
        "import os, pathlib, sys; from lib.workbench.records import sweep\n"
        "def work(n):\n"
        "    if n == 3: os.kill(os.getpid(), 9)\n"
        "    return {'square': n * n}\n"
        "sweep('04-crf', 'speed', work, [{'n': n} for n in range(5)], scale='cpu', root=pathlib.Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(measure.ROOT)}
    killed = subprocess.run([sys.executable, "-c", program, tmp_path], env=environment, capture_output=True)
    assert killed.returncode == -9
    rows = [json.loads(line) for line in partial_file(tmp_path).read_text(encoding="utf8").splitlines()[1:]]
    assert rows == [{"n": 0, "square": 0}, {"n": 1, "square": 1}, {"n": 2, "square": 4}]


def test_a_row_cut_off_in_writing_is_measured_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Work(stop_at=3))
    path = partial_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-9] + "é".encode()[:1])
    rest = Work()
    assert run(tmp_path, rest).column("ms") == [1.0, 0.5, 2.0, 1.0]
    assert rest.done == [(2, "slow"), (2, "fast")]


def test_a_second_interruption_keeps_the_rows_of_both(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Work(stop_at=1))
    rest = Work()
    run(tmp_path, rest)
    assert rest.done == [(2, "slow"), (2, "fast")]


@pytest.mark.parametrize("change", ["device", "versions", "cases", "backend", "garbage"])
def test_rows_of_another_device_or_version_or_case_list_are_never_mixed_in(tmp_path, monkeypatch, capsys, change):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Work(stop_at=2))
    cases = CASES
    if change == "device":
        monkeypatch.setattr(records, "device", lambda: replace(CPU, name="another abacus"))
    elif change == "versions":
        monkeypatch.setattr(records, "versions", lambda: {"python": "3.12.0", "backend": None})
    elif change == "cases":
        cases = [*CASES[:3], {"n": 9, "method": "fast"}]
    elif change == "backend":
        monkeypatch.setenv("KERAS_BACKEND", "another")
    else:
        partial_file(tmp_path).write_text("[1, 2]\n" * 3)
    work = Work()
    run(tmp_path, work, cases)
    assert work.done == [tuple(case.values()) for case in cases]
    assert "starting anew" in capsys.readouterr().err


def test_a_finished_sweep_runs_anew_and_replaces_its_record(tmp_path):
    run(tmp_path, Work())
    again = Work()
    run(tmp_path, again)
    assert len(again.done) == len(CASES)


def test_progress_is_shown_on_stderr_under_the_name(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Work(stop_at=2))
    capsys.readouterr()
    run(tmp_path, Work())
    out, err = capsys.readouterr()
    assert out == ""
    assert "speed:  50%" in err  # it starts where the interrupted run stopped
    assert "speed: 100%" in err


@pytest.mark.parametrize(("scale", "device"), [("gpu", CPU), ("cpu", GPU)])
def test_a_tier_is_measured_on_a_device_of_its_kind(tmp_path, monkeypatch, scale, device):
    monkeypatch.setattr(records, "device", lambda: device)
    monkeypatch.setattr(records.importlib, "import_module", lambda _: None)
    work = Work()
    with pytest.raises(ValueError, match=f"got '{scale}', but the device is {device}"):
        run(tmp_path, work, scale=scale)
    assert work.done == []
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "tpu"}, "tier: got 'tpu'"),
        ({"cases": []}, "cases: got none"),
        ({"name": "../speed"}, "name: got '../speed'"),
        ({"chapter": "Chapter 4"}, "chapter: got 'Chapter 4'"),
    ],
)
def test_bad_arguments_of_a_sweep_are_named(tmp_path, arguments, message):
    good = {
        "chapter": "04-crf",
        "name": "speed",
        "function": Work(),
        "cases": CASES,
        "scale": "cpu",
        "root": tmp_path,
    }
    with pytest.raises(ValueError, match=message):
        sweep(**good | arguments)
    assert files(tmp_path) == []


# ---------------------------------------------------------------------------------------------- JSON files

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text().filter(lambda s: s not in records._NONFINITE),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def same(a, b) -> bool:
    """Equality under which NaN equals NaN, and 1, 1.0 and True differ."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@given(json_values)
def test_every_value_comes_back_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "roundtrip.json"
    write_json(path, value)
    assert same(read_json(path), value)
    json.loads(
        path.read_text(encoding="utf8"), parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON")
    )


def test_numpy_values_become_numbers_and_lists(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": np.float32(0.5), "k": np.int64(3), "v": np.array([1.0, np.inf]), "t": (1, 2)})
    assert read_json(path) == {"x": 0.5, "k": 3, "v": [1.0, math.inf], "t": [1, 2]}


def test_numbers_that_are_not_finite_are_strings_in_the_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [math.nan, math.inf, -math.inf])
    assert path.read_text(encoding="utf8") == '["NaN", "Infinity", "-Infinity"]\n'


def test_equal_values_give_equal_files_laid_out_for_reading(tmp_path):
    rows = [{"n": n, "curve": [0.25] * 40, "name": "x" * 30} for n in (1, 2)]
    write_json(tmp_path / "a.json", {"b": 1, "a": rows, "c": {"z": "é"}})
    write_json(tmp_path / "b.json", {"c": {"z": "é"}, "a": [dict(reversed(row.items())) for row in rows], "b": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.json").read_text(encoding="utf-8")
    assert text.endswith('\n  "b": 1,\n  "c": {"z": "é"}\n}\n')
    assert text.count(f"[{', '.join(['0.25'] * 40)}]") == 2  # a curve stands on one line
    assert text.count('\n      "n": 2,\n      "name"') == 1  # a long row does not
    assert _laid_out(tmp_path, [{"n": 1}, {"n": 2}]) == '[{"n": 1}, {"n": 2}]\n'
    assert _laid_out(tmp_path, [{"n": n} for n in range(20)]).splitlines()[1] == '  {"n": 0},'


def _laid_out(folder: Path, value) -> str:
    write_json(folder / "value.json", value)
    return (folder / "value.json").read_text(encoding="utf8")


@pytest.mark.parametrize("value", [{1: 2}, {"x": {1, 2}}, [object()], 1j])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "a.json"
    write_json(path, "old")
    with pytest.raises(TypeError, match="JSON cannot hold"):
        write_json(path, value)
    assert read_json(path) == "old"
    assert files(tmp_path) == ["a.json"]


@pytest.mark.parametrize("crash", ["fsync", "replace"])
def test_a_crash_in_the_middle_of_writing_leaves_the_old_file(tmp_path, monkeypatch, crash):
    path = tmp_path / "a.json"
    write_json(path, "old")

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(records.os, crash, full_disk)
    with pytest.raises(OSError, match="No space"):
        write_json(path, "new")
    assert read_json(path) == "old"
    assert files(tmp_path) == ["a.json"]


# -------------------------------------------------------------------------------------------- command line


@pytest.fixture
def experiments(monkeypatch):
    for name in measure.GPU_SHARED:
        monkeypatch.setenv(name, "as it was")  # what main sets is undone after the test
    monkeypatch.setattr(records, "scale", lambda: "cpu")
    calls = []

    def speed(scale):
        """How fast it is.

        More about it.
        """
        calls.append(("speed", scale))

    def memory(scale):
        calls.append(("memory", scale))

    return {"speed": speed, "memory": memory}, calls


def test_the_command_runs_every_experiment_at_the_scale(experiments):
    table, calls = experiments
    assert main("04-crf", table, ["--scale", "gpu"]) == 0
    assert calls == [("speed", "gpu"), ("memory", "gpu")]


def test_without_a_scale_the_device_decides(experiments):
    table, calls = experiments
    assert main("04-crf", table, []) == 0
    assert calls == [("speed", "cpu"), ("memory", "cpu")]


def test_only_runs_one(experiments):
    table, calls = experiments
    assert main("04-crf", table, ["--only", "memory"]) == 0
    assert calls == [("memory", "cpu")]


def test_list_names_them_and_runs_none(experiments, capsys):
    table, calls = experiments
    assert main("04-crf", table, ["--list"]) == 0
    assert capsys.readouterr().out == "speed   How fast it is.\nmemory\n"
    assert calls == []


@pytest.mark.parametrize("arguments", [["--only", "nothing"], ["--scale", "tpu"], ["--fast"]])
def test_a_bad_argument_ends_with_status_2_and_runs_none(experiments, capsys, arguments):
    table, calls = experiments
    with pytest.raises(SystemExit) as stop:
        main("04-crf", table, arguments)
    assert stop.value.code == 2
    assert "usage: python -m lib.experiments.crf" in capsys.readouterr().err
    assert calls == []


def test_a_bad_scale_in_the_environment_ends_with_status_2(experiments, monkeypatch, capsys):
    monkeypatch.setattr(records, "scale", measure.scale)
    monkeypatch.setenv("BOOK_SCALE", "huge")
    with pytest.raises(SystemExit) as stop:
        main("04-crf", experiments[0], [])
    assert stop.value.code == 2
    assert "BOOK_SCALE is 'huge'" in capsys.readouterr().err


def test_a_failed_experiment_gives_status_1_and_the_others_still_run(experiments, capsys):
    table, calls = experiments

    def broken(_):
        raise ZeroDivisionError("no good")

    assert main("04-crf", {"broken": broken, **table}, []) == 1
    assert len(calls) == 2
    error = capsys.readouterr().err
    assert "ZeroDivisionError: no good" in error
    assert "broken: failed" in error


def test_an_interruption_gives_status_130_and_stops(experiments, capsys):
    table, calls = experiments

    def interrupted(_):
        raise KeyboardInterrupt

    assert main("04-crf", {"first": interrupted, **table}, []) == 130
    assert calls == []
    assert "first: interrupted" in capsys.readouterr().err


def test_the_command_leaves_gpu_memory_to_the_processes_that_measure_it(experiments, monkeypatch):
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.delenv(name)
    main("04-crf", experiments[0], [])
    assert os.environ[name] == "false"
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "as it was"
