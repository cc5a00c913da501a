"""Does every chapter run on Colab? ``python -m lib.press.colab [--release 2026-03] [--backend jax] [notebook …]``.

A chapter is opened as Colab opens it: the stamped notebook alone, in an empty folder, under a clean environment, by
a kernel with the versions that a release of Colab ships (``data/colab/releases.toml``). Its setup cell fetches the
book from its address; git is told to take a local copy instead. A stand-in for ``google.colab`` makes it prepare.
Then what came is compared with what is stored: every verdict; on TensorFlow also what each cell prints.
Other backends draw other random numbers, and may print other digits.

The runs are recorded in ``data/colab/runs.json``, from which the status page is made.
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
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from lib.press import address, execute, notebooks, portability
from lib.press.portability import Difference
from lib.workbench import records

RELEASES = notebooks.ROOT / "data" / "colab" / "releases.toml"
ENVIRONMENTS = notebooks.ROOT / "_build" / "colab"
BACKENDS = ("tensorflow", "jax", "torch")
#: Stands in for the address where none is stamped; a name that no server can have.
NOWHERE = "https://book.invalid/proof-by-running"
#: What a clean environment keeps of this process's: where to find programs, and how to reach the registry.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_KEPT_PREFIXES = ("PIP_", "OPENBLAS_", "OMP_")
#: How what is said of a figure begins, and of an explorable, which holds some; a card has its verdict as text too.
_FIGURES = ("image/svg+xml", "text/html")
#: Asked after the first figure: for which data sets did a reader wait until then? Five megabytes are no wait.
_PROBE = """
import json, sys
_corpora = sys.modules.get("lib.workbench.corpora")
print(json.dumps([name for name in _corpora.fetched() if _corpora.passport(name).size > 5e6] if _corpora else []))
"""


@dataclass(frozen=True)
class Release:
    """What Colab had installed at a time.

    Attributes:
        name: the month of the list.
        date: of the list.
        python: the version of Python, such as ``"3.12"``.
        tensorflow, keras, jax, torch: their versions.
        packages: what else is installed, as pip takes it.
    """

    name: str
    date: datetime.date
    python: str
    tensorflow: str
    keras: str
    jax: str
    torch: str
    packages: tuple[str, ...]

    def requirements(self, backend: str) -> list[str]:
        """What pip installs. Keras imports TensorFlow on every backend, as far as it is there; so it is."""
        names = ["tensorflow", "keras", *([backend] if backend != "tensorflow" else [])]
        return [*(f"{name}=={getattr(self, name)}" for name in names), *self.packages]


def releases(file: Path = RELEASES) -> dict[str, Release]:
    """The releases of Colab by name, the oldest first.

    Example:
        >>> releases()["2026-03"].python
        '3.12'
    """
    tables = tomllib.loads(file.read_text(encoding="utf8"))
    return {name: Release(name, **table | {"packages": tuple(table["packages"])}) for name, table in tables.items()}


def usual(known: Mapping[str, Release]) -> list[tuple[Release, str]]:
    """What is run unless something is named: every release on TensorFlow, the newest on the other backends too."""
    newest = [*known.values()][-1]
    return [(release, "tensorflow") for release in known.values()] + [
        (newest, backend) for backend in BACKENDS if backend != "tensorflow"
    ]


# --- the machine ------------------------------------------------------------------------------------------


def environment(release: Release, backend: str, python: str = "", options: Sequence[str] = ()) -> Path:
    """The Python of a release, in an environment of its own that is made, or completed, first.

    Args:
        release: whose versions to install.
        backend: what is installed besides TensorFlow.
        python: an interpreter; one of the release's version from the path if empty.
        options: what pip is told besides where it fetches torch.

    Raises:
        SystemExit: there is no such interpreter, or pip failed.
    """
    python = python or f"python{release.python}"
    folder = ENVIRONMENTS / release.name
    stamp = folder / f"{backend}.txt"
    wanted = "\n".join(release.requirements(backend))
    if not (stamp.exists() and stamp.read_text(encoding="utf8") == wanted):
        if shutil.which(python) is None:
            sys.exit(f"make colab: {python} is needed for release {release.name}; name one by COLAB_PYTHON=…")
        if not (folder / "bin" / "python").exists():
            subprocess.run([python, "-m", "venv", str(folder)], check=True)
        told = subprocess.run([str(folder / "bin" / "python"), "--version"], capture_output=True, text=True).stdout
        if told.split()[-1].rpartition(".")[0] != release.python:
            sys.exit(f"make colab: release {release.name} has Python {release.python}, and {python} is {told}")
        print(f"Installing what Colab had in {release.name} …", flush=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        if subprocess.run(
            [*pip, *(options if backend == "torch" else ()), *release.requirements(backend)]
        ).returncode:
            sys.exit("make colab: pip failed; its message stands above")
        stamp.write_text(wanted, encoding="utf8")
    return folder / "bin" / "python"


def stand_in(folder: Path) -> Path:
    """A folder that makes ``google.colab`` importable where it stands on Python's path."""
    package = folder / "stand-in" / "google" / "colab"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    return folder / "stand-in"


def published(folder: Path, root: Path = notebooks.ROOT) -> tuple[str, Path, Path]:
    """Commit a copy of the book as it is, stamped with its address, and make the bare repository that Colab clones.

    Args:
        folder: an empty one.
        root: the book.

    Returns:
        The stamped address, the stamped copy, and the repository that stands for the address.
    """
    checkout, bare = portability.copy(folder / "checkout", root), folder / "book.git"
    url = address.address(root) or NOWHERE
    address.stamp(url, checkout)
    publish(checkout, bare)
    return url, checkout, bare


def publish(checkout: Path, bare: Path) -> None:
    """Commit all of a folder and clone it, bare."""
    git = ["git", "-c", "user.name=book", "-c", "user.email=book@example.org", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "stamped"]):
        subprocess.run([*git, *command], cwd=checkout, check=True)
    subprocess.run([*git, "clone", "-q", "--bare", str(checkout), str(bare)], check=True)


def clean(folder: Path, url: str = "", bare: Path | None = None) -> dict[str, str]:
    """The environment variables of a fresh machine of Colab, on which git finds the address in a local repository.

    Args:
        folder: holds the home and the stand-in of ``google.colab``.
        url: the stamped address.
        bare: the repository to take instead.
    """
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
    home = folder / "home"
    home.mkdir(exist_ok=True)
    redirect = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{bare}.insteadOf", "GIT_CONFIG_VALUE_0": url}
    return (
        kept
        | {"HOME": str(home), "PYTHONPATH": str(stand_in(folder))}
        | {"BOOK_CACHE": os.environ.get("BOOK_CACHE", str(notebooks.ROOT / "data" / "cache"))}
        | (redirect if bare else {})
    )


def kernel(python: Path, folder: Path) -> AsyncKernelManager:
    """What starts a kernel under another Python."""
    spec = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    file = folder / "kernels" / "colab" / "kernel.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(spec | {"display_name": "Colab", "language": "python"}))
    found = KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name="colab", kernel_spec_manager=found)


# --- a chapter --------------------------------------------------------------------------------------------


def chapter(path: Path, python: Path, backend: str, checkout: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run one chapter as Colab would, and record what came.

    Args:
        path: the chapter in the book.
        python: of the environment.
        backend: the Keras backend.
        checkout: the stamped book, from which the notebook is opened.
        variables: all environment variables of the kernel but ``KERAS_BACKEND``.

    Returns:
        The record: ``chapter``, ``backend``, ``date``, ``seconds``, ``versions``, ``fingerprint`` of the chapter,
        ``verdicts`` (how many are the same, how many there are), ``waits`` (the data sets before the first
        figure), and ``differences``, one sentence each.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, claimed = Path(place, "content"), Path(place, "claims.json")
        folder.mkdir()
        opened = folder / path.name
        notebook = notebooks.read(checkout / "book" / path.name)
        position = first_figure(notebook)
        notebook.cells.insert(position + 1, new_code_cell(_PROBE))
        notebooks.write(opened, notebook)
        record = {"chapter": path.stem, "backend": backend, "date": datetime.date.today().isoformat()}
        record |= {"fingerprint": notebooks.fingerprint(path), "seconds": None, "versions": {}, "waits": []}
        try:
            ran, told = execute.run(
                opened,
                claimed,
                {"KERAS_BACKEND": backend},
                inherited=variables,
                folder=folder,
                manager=kernel(python, Path(place)),
            )
        except Exception as error:
            found = [Difference(path.stem, [f"it stops: {error}"])]
        else:
            record |= {"seconds": told["seconds"], "versions": told["versions"]}
            record["waits"] = json.loads(ran.cells.pop(position + 1).outputs[0].text)
            found = printed(portability.cell_differences(path, ran)) if backend == "tensorflow" else []
        found += [
            Difference(path.stem, [f"its first figure waits for the data set {name}"]) for name in record["waits"]
        ]
        changed = portability.verdict_differences(path, claimed, notebooks.ROOT)
    count = len(json.loads(notebooks.claims(path).read_text(encoding="utf8")))
    record["verdicts"] = [count - min(len(changed), count), count]
    record["differences"] = [f"{one.place}: {'; '.join(one.sentences[:3])}" for one in [*found, *changed]]
    return record


def printed(found: Sequence[Difference]) -> list[Difference]:
    """What differs but for figures, which another Matplotlib lays out otherwise, by a point or less.

    Example:
        >>> printed([Difference("1", ["image/svg+xml: a", "stdout: b"]), Difference("2", ["text/html: c"])])
        [Difference(place='1', sentences=['stdout: b'])]
    """
    kept = [Difference(one.place, [s for s in one.sentences if not s.startswith(_FIGURES)]) for one in found]
    return [one for one in kept if one.sentences]


def first_figure(notebook: NotebookNode) -> int:
    """The place of the first cell whose stored output is a figure; the last cell's if there is none."""
    for place, cell in enumerate(notebook.cells):
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        if any("image/svg+xml" in data or "<svg" in "".join(data.get("text/html", "")) for data in shown):
            return place
    return len(notebook.cells) - 1


# --- the record -------------------------------------------------------------------------------------------


def runs(file: Path = notebooks.COLAB_RUNS) -> list[dict[str, Any]]:
    """The recorded runs."""
    return json.loads(file.read_text(encoding="utf8")) if file.exists() else []


def keep(record: dict[str, Any], file: Path = notebooks.COLAB_RUNS) -> None:
    """Put a run in the place of the last one of its release, backend and chapter."""

    def key(one: Mapping[str, Any]) -> tuple[str, ...]:
        return one["release"], one["backend"], one["chapter"]

    others = [one for one in runs(file) if key(one) != key(record)]
    records.write_json(file, sorted([*others, record], key=key))


def main() -> None:
    """The command line."""
    known = releases()
    parser = argparse.ArgumentParser(description="Run the chapters as Colab would.")
    parser.add_argument("--release", choices=known, help="default: every release, the newest on every backend")
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--python", default="", help="an interpreter of the release's version")
    parser.add_argument("--options", default="", help="what pip is told where it fetches torch")
    parser.add_argument("notebook", nargs="*", type=Path, help="default: every chapter")
    options = parser.parse_args()
    paths = [path.resolve() for path in options.notebook] or notebooks.chapters()
    chosen = [
        (release, backend)
        for release, backend in usual(known)
        if options.release in (None, release.name) and options.backend in (None, backend)
    ] or [(known[options.release], options.backend)]
    differ = False
    with tempfile.TemporaryDirectory() as place:
        url, checkout, bare = published(Path(place))
        variables = clean(Path(place), url, bare)
        for release, backend in chosen:
            python = environment(release, backend, options.python, options.options.split())
            for path in tqdm(paths, f"{release.name} on {backend}", unit="notebook", disable=None):
                start = time.perf_counter()
                record = {"release": release.name} | chapter(path, python, backend, checkout, variables)
                keep(record)
                same, count = record["verdicts"]
                tqdm.write(
                    f"Colab {release.name} on {backend}, {path.stem}: {same} of {count} verdicts the same, "
                    f"{time.perf_counter() - start:.0f} s"
                )
                for sentence in record["differences"]:
                    tqdm.write(f"    {sentence}")
                differ |= bool(record["differences"])
    if differ:
        sys.exit("make colab: a chapter does not come out on Colab as it is stored; the differences stand above")
    print("Every chapter runs on Colab and comes out as it is stored.")


if __name__ == "__main__":
    main()
