"""Recorded runs: what was measured once, on a named device, and is drawn beside the live run.

A record is the file ``data/measured/<chapter>/<name>.<tier>.json``, tier "cpu" or "gpu"::

    {"command": "python -m lib.experiments.crf --scale cpu", "date": "2026-01-31", "device": {…},
     "rows": [{…parameters and results of one case…}, …], "scale": "cpu", "versions": {…}}

:func:`sweep` writes it, one row a case, and takes up an interrupted run where it stopped; :func:`load` reads it;
:func:`main` is the command line of every module in ``lib.experiments``.
"""

import argparse
import datetime
import functools
import hashlib
import importlib
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lib.workbench.measure import GPU_SHARED, ROOT, SCALES, Device, OutOfMemory, attempt, device, scale, versions

Row = dict[str, Any]

# JSON has no numbers for these; they are stored as strings, which are therefore reserved.
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Record:
    """A recorded run.

    Attributes:
        device: what it ran on.
        versions: package to version.
        date: day on which it ended, ISO.
        command: the line that repeats it.
        scale: "cpu" or "gpu".
        rows: one dict a case, its parameters and its results; where memory did not suffice, the parameters and
            ``out_of_memory: True``.

    Example:
        >>> rows = ({"n": 1, "ms": 0.5}, {"n": 2, "ms": 0.9}, {"n": 4, "out_of_memory": True})
        >>> record = Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", rows)
        >>> record.column("ms")
        [0.5, 0.9, None]
        >>> record.where(n=2)
        ({'n': 2, 'ms': 0.9},)
        >>> record.label()
        'recorded on an abacus, 2026-01-31'
    """

    device: Device
    versions: Mapping[str, str | None]
    date: str
    command: str
    scale: str
    rows: tuple[Row, ...]

    def column(self, key: str, **case: Any) -> list[Any]:
        """The values under one key, of all rows or of those :meth:`where` selects; None where a row lacks it.

        Raises:
            ValueError: no row has the key, or one of those in ``case``.
        """
        self._check_keys({key})
        return [row.get(key) for row in self.where(**case)]

    def where(self, **case: Any) -> tuple[Row, ...]:
        """The rows that have all these values.

        Raises:
            ValueError: no row has one of the keys.
        """
        self._check_keys(case.keys())
        return tuple(row for row in self.rows if all(key in row and row[key] == case[key] for key in case))

    def label(self) -> str:
        """What a figure's legend says about it."""
        return f"recorded on {self.device.name}, {self.date}"

    def _check_keys(self, keys: set[str]) -> None:
        known = set().union(*self.rows)
        if not keys <= known:
            raise ValueError(f"key: got {sorted(keys - known)}; the rows have {sorted(known)}")


def load(chapter: str, name: str, tier: str | None = None, *, root: Path | None = None) -> Record | None:
    """Reads a record.

    Args:
        chapter: folder under ``data/measured``, such as "04-crf".
        name: of the sweep.
        tier: "cpu" or "gpu"; None takes the GPU's where there is one, else the CPU's.
        root: of the repository; by default the one this module lies in.

    Returns:
        The record, None where there is none.

    Raises:
        ValueError: a tier, chapter or name that cannot be, or a file that is not a record.

    Example:
        >>> load("01-angles", "never-measured") is None
        True
    """
    for one in ("gpu", "cpu") if tier is None else (tier,):
        path = _path(chapter, name, one, root)
        if path.exists():
            try:
                content = read_json(path)
                return Record(**content | {"device": Device(**content["device"]), "rows": tuple(content["rows"])})
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path} is not a record: {error}") from error
    return None


def sweep(
    chapter: str,
    name: str,
    function: Callable[..., Mapping[str, Any] | OutOfMemory],
    cases: Sequence[Mapping[str, Any]],
    *,
    scale: str,
    command: str | None = None,
    root: Path | None = None,
) -> Record:
    """Runs a function for every case and records the rows.

    Each finished row is kept in ``<record>.partial``. Interrupted, the same call goes on after the last finished
    row, if device, versions, scale and cases are still the same; else it starts anew and says so. The
    record itself appears at the end, whole. After changing the function's code, delete the partial file.

    Args:
        chapter: folder under ``data/measured``, such as "04-crf".
        name: of the sweep; the file's name.
        function: called with the items of a case as keywords; returns the results as a dict of JSON values (NumPy
            scalars and arrays count as such). If it runs out of memory, the row says so.
        cases: parameters, JSON values.
        scale: "cpu" or "gpu", the tier of the record; it must be the kind of the device.
        command: the line that repeats the run; by default that of the chapter's experiments module.
        root: of the repository; by default the one this module lies in.

    Raises:
        ValueError: a scale other than the device's kind, no cases, or results that contradict their case.
        TypeError: a value that JSON cannot hold.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cases = [{"n": 2}, {"n": 3}]
        ...     record = sweep("01-angles", "squares", lambda n: {"square": n * n}, cases, scale=device().kind,
        ...                    root=Path(folder))
        >>> record.rows
        ({'n': 2, 'square': 4}, {'n': 3, 'square': 9})
    """
    path = _path(chapter, name, scale, root)
    if not cases:
        raise ValueError("cases: got none; expected at least one")
    if scale == "gpu":
        importlib.import_module("keras")  # without a backend there is no GPU to be seen
    header = {
        "device": asdict(_device_of(scale)),
        "versions": versions(),
        "backend": os.environ.get("KERAS_BACKEND"),
        "cases": hashlib.sha256(_line(cases).encode()).hexdigest(),
    }
    partial = path.with_name(f"{path.name}.partial")
    rows = _resume(partial, header)
    with (
        partial.open("a", encoding="utf-8") as kept,
        tqdm(cases, desc=name, initial=len(rows), total=len(cases), file=sys.stderr) as bar,
    ):
        for case in cases[len(rows) :]:
            row = _row(case, attempt(functools.partial(function, **case)))
            kept.write(_line(row) + "\n")
            kept.flush()
            os.fsync(kept.fileno())
            rows.append(row)
            bar.update()
    content = {
        # Asked again: the function may have been the first to load a backend.
        "device": asdict(_device_of(scale)),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "command": command or f"python -m {_module(chapter)} --scale {scale}",
        "scale": scale,
        "rows": rows,
    }
    write_json(path, content)
    partial.unlink()
    return load(chapter, name, scale, root=root)


def main(chapter: str, experiments: Mapping[str, Callable[[str], Any]], argv: Sequence[str] | None = None) -> int:
    """The command line of a module of experiments: runs all of them, or one, at a scale.

    ``--scale cpu|gpu`` (default: :func:`lib.workbench.measure.scale`), ``--only NAME``, ``--list``.

    Args:
        chapter: the chapter they belong to, such as "04-crf".
        experiments: name to function of the scale; the first line of its docstring is what ``--list`` prints.
        argv: arguments; by default those of the process.

    Returns:
        Exit status: 0 all ran; 1 one failed (its traceback was printed and the others still ran); 130 interrupted.
        A bad argument ends the process with 2.

    Example:
        >>> def doubling(scale):
        ...     "Twice as much."
        >>> main("01-angles", {"doubling": doubling}, ["--list"])
        doubling  Twice as much.
        0
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {_module(chapter)}", description=f"Measurements of chapter {chapter}."
    )
    parser.add_argument("--scale", choices=SCALES, help="sizes to run (default: what the device can do)")
    parser.add_argument("--only", choices=list(experiments), metavar="NAME", help="run this experiment only")
    parser.add_argument("--list", action="store_true", help="print the names of the experiments and stop")
    arguments = parser.parse_args(argv)
    if arguments.list:
        width = max(map(len, experiments), default=0)
        for name, experiment in experiments.items():
            print(f"{name:{width}}  {(experiment.__doc__ or '').strip().partition(chr(10))[0]}".rstrip())
        return 0
    for variable, value in GPU_SHARED.items():  # leaves room for the processes that measure memory
        os.environ.setdefault(variable, value)
    try:
        size = arguments.scale or scale()
    except ValueError as error:
        parser.error(str(error))
    failed = 0
    for name in [arguments.only] if arguments.only else experiments:
        try:
            experiments[name](size)
        except KeyboardInterrupt:
            print(f"{name}: interrupted; the same command goes on where it stopped", file=sys.stderr)
            return 130
        except Exception:
            traceback.print_exc()
            print(f"{name}: failed", file=sys.stderr)
            failed = 1
    return failed


def write_json(path: Path, value: Any) -> None:
    r"""Writes a JSON file: whole or not at all, and always alike for equal values.

    Keys are sorted; what fits on a line stands on one. Numbers that are not finite become the strings "NaN",
    "Infinity" and "-Infinity", NumPy scalars and arrays become numbers and lists. Folders are made as needed.

    Raises:
        TypeError: a value that JSON cannot hold; the old file stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"x": math.inf, "n": 2})
        ...     (Path(folder) / "a.json").read_text()
        '{"n": 2, "x": "Infinity"}\n'
    """
    _replace(path, _layout(_plain(value)) + "\n")


def read_json(path: Path) -> Any:
    """Reads what :func:`write_json` wrote; the three strings become numbers again.

    Raises:
        ValueError: the file is not JSON.
        FileNotFoundError: there is none.
    """
    return _revived(json.loads(path.read_text(encoding="utf-8")))


def _path(chapter: str, name: str, tier: str, root: Path | None) -> Path:
    if tier not in SCALES:
        raise ValueError(f"tier: got {tier!r}; expected 'cpu' or 'gpu'")
    for argument, value in (("chapter", chapter), ("name", name)):
        if not re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", value):
            raise ValueError(f"{argument}: got {value!r}; expected lower-case words joined by - or _")
    return (root or ROOT) / "data" / "measured" / chapter / f"{name}.{tier}.json"


def _module(chapter: str) -> str:
    """The module of the chapter's experiments: 04-crf is lib.experiments.crf."""
    return f"lib.experiments.{chapter.partition('-')[2] or chapter}"


def _device_of(scale: str) -> Device:
    """The device, which must be of the kind that the scale names."""
    here = device()
    if here.kind != scale:
        raise ValueError(
            f"scale: got {scale!r}, but the device is {here}; a record's tier names the kind of its device "
            "(CUDA_VISIBLE_DEVICES=-1 and JAX_PLATFORMS=cpu hide a GPU)"
        )
    return here


def _replace(path: Path, text: str) -> None:
    """Puts the text in the place of the file in one step: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _resume(partial: Path, header: Row) -> list[Row]:
    """The finished rows of an interrupted run of the same kind; afterwards the file holds the header and these."""
    lines: list[Any] = []
    if partial.exists():
        for text in partial.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                lines.append(_revived(json.loads(text)))
            except ValueError:  # the line that was being written when the machine stopped
                break
    rows = lines[1:] if lines[:1] == [header] else []
    if lines and lines[0] != header:
        tqdm.write(
            f"{partial.name}: begun on another device or with other versions or cases; starting anew",
            file=sys.stderr,
        )
    _replace(partial, "".join(f"{_line(line)}\n" for line in [header, *rows]))
    return rows


def _row(case: Mapping[str, Any], result: Mapping[str, Any] | OutOfMemory) -> Row:
    """Parameters and results in one dict."""
    if isinstance(result, OutOfMemory):
        return {**case, "out_of_memory": True}
    if not isinstance(result, Mapping):
        raise TypeError(f"function: returned {result!r} for {dict(case)}; expected a dict of results")
    contradicted = [key for key in case if key in result and result[key] != case[key]]
    if contradicted:
        raise ValueError(f"function: its results contradict the parameters {contradicted} of {dict(case)}")
    return {**case, **result}


def _plain(value: Any) -> Any:
    """The value in terms of JSON."""
    import numpy as np  # here: the site reads records, and is built where it is not installed

    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    raise TypeError(f"JSON cannot hold {value!r}")


def _revived(value: Any) -> Any:
    """The inverse of :func:`_plain` for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _revived(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_revived(part) for part in value]
    return _NONFINITE.get(value, value) if isinstance(value, str) else value


def _line(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _layout(value: Any, indent: str = "", width: int = 100) -> str:
    """JSON of plain values; what fits on a line, and any list of scalars, stands on one."""
    flat = _line(value)
    nested = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict | list) for v in value))
    if not nested or len(indent) + len(flat) <= width:
        return flat
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(k, ensure_ascii=False)}: {_layout(value[k], deeper, width)}" for k in sorted(value)]
        opening, closing = "{", "}"
    else:
        parts = [_layout(part, deeper, width) for part in value]
        opening, closing = "[", "]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{closing}"
