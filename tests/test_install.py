"""The installation: it lasts when newer releases come, goes on where it stopped, and says what is wrong.

Nothing here needs a network, but for three releases of pip, which are fetched once, as data is.
"""

import ast
import base64
import errno
import hashlib
import importlib.util
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from shared import require

from lib.press import install, notebooks
from lib.workbench import corpora

ROOT = notebooks.ROOT
SCRIPT = ROOT / "lib" / "press" / "install.py"
#: The oldest pip that runs on this Python and that the lock promises to work with, and the newest.
OLDEST, NEWEST = "22.3.1" if sys.version_info < (3, 12) else "23.2.1", "26.3"


# A small index ---------------------------------------------------------------------------------------------


def wheel(index: Path, name: str, version: str, *requires: str, extra: str = "", code: str = "") -> Path:
    """Write a wheel of one module; what ``extra`` names are requirements of the extra "more"."""
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    if extra:
        metadata += ["Provides-Extra: more", f'Requires-Dist: {extra} ; extra == "more"']
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code or f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {path: hashlib.sha256(text.encode()).digest() for path, text in files.items()}
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(files[path])}"
        for path, digest in hashes.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    path = index / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


#: A build tool that makes the wheel of any archive; the next release of it fails.
BUILD_TOOL = """
import pathlib, shutil

def build_wheel(folder, config_settings=None, metadata_directory=None):
    made = next(pathlib.Path().glob("*.whl"))
    shutil.copy(made, folder)
    return made.name
"""


def source_archive(index: Path, name: str, version: str) -> Path:
    """Write a source archive that must be built with ``tool``."""
    settings = '[build-system]\nrequires = ["tool"]\nbuild-backend = "tool"\n'
    inside = wheel(index, name, version)
    path = index / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, data in {
            "pyproject.toml": settings.encode(),
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            inside.name: inside.read_bytes(),
        }.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    inside.unlink()
    return path


def lock(path: Path, *archives: Path) -> None:
    """Pin these archives, each with its hash."""
    lines = []
    for archive in archives:
        name, version = re.match(r"(\w+)-([\d.]+\d)", archive.name).groups()
        lines.append(
            f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}\n"
        )
    path.write_text("".join(lines))


class Checkout:
    """A small book: an installer, two locks, and an index in which every pinned package has a newer release."""

    def __init__(self, folder: Path) -> None:
        self.root, self.index = folder / "a book", folder / "index"
        self.environment = self.root / ".venv"
        (self.root / "lib" / "press").mkdir(parents=True)
        self.index.mkdir()
        shutil.copy(SCRIPT, self.root / "lib" / "press")
        self.release("1.0")
        self.lock(self.root)
        self.release("2.0")

    def release(self, version: str) -> None:
        """Publish everything: ``cover`` and ``plugin`` stand to each other as coverage and pytest-cov."""
        wheel(self.index, "tool", version, code=BUILD_TOOL if version == "1.0" else "raise RuntimeError('too new')")
        wheel(self.index, "toml", version)
        wheel(self.index, "cover", version, extra="toml")
        wheel(self.index, "plugin", version, "cover[more]>=1.0")
        source_archive(self.index, "archive", version)

    def lock(self, folder: Path) -> None:
        tool, archive, *others = (
            *self.index.glob("tool-1*"),
            *self.index.glob("archive-1*"),
            *(path for name in ("cover", "plugin", "toml") for path in self.index.glob(f"{name}-1*")),
        )
        lock(folder / "requirements-book.lock", tool)
        lock(folder / "requirements.lock", archive, *others, tool)

    def variables(self, **more: str) -> dict[str, str]:
        """The environment variables of a user whose pip knows this index and nothing else."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
        mine = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index)}
        return kept | mine | {"PIP_NO_CACHE_DIR": "1", "PYTHONIOENCODING": "ascii"} | more

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Run the installer as a user would."""
        command = [sys.executable, str(self.root / "lib" / "press" / "install.py"), *arguments]
        return subprocess.run(command, env=self.variables(**variables), capture_output=True, text=True, timeout=120)

    def python(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run the Python of the environment."""
        command = [str(self.environment / "bin" / "python"), *arguments]
        return subprocess.run(command, env=self.variables(), capture_output=True, text=True, timeout=120)

    def installed(self) -> dict[str, str]:
        """Name and version of what lies in the environment, pip left out."""
        (packages,) = self.environment.glob("lib/python3*/site-packages")
        pairs = (folder.stem.split("-") for folder in packages.glob("*.dist-info"))
        return {name: version for name, version in pairs if name not in ("pip", "setuptools")}

    @property
    def stamps(self) -> set[str]:
        return {name for name in ("page", "ready") if (self.environment / name).exists()}


PAGE = {"tool": "1.0"}
WHOLE = PAGE | {"toml": "1.0", "cover": "1.0", "plugin": "1.0", "archive": "1.0"}


@pytest.fixture(scope="session")
def pips() -> Callable[[str], Path]:
    """The wheel of a release of pip, fetched by its hash."""

    def fetch(version: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(corpora, "PASSPORTS", Path(__file__).parent / "data" / "passports")
            try:
                return corpora.fetch(f"pip-{version}")
            except corpora.CorpusError as error:
                require(False, str(error))

    return fetch


@pytest.fixture(scope="session")
def environments(tmp_path_factory, pips) -> Callable[[str], Path]:
    """An environment that holds this release of pip and nothing else, to be copied."""
    made: dict[str, Path] = {}

    def environment(version: str) -> Path:
        if version not in made:
            folder = tmp_path_factory.mktemp("environment") / version
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
            command = [
                folder / "bin" / "python",
                pips(version) / "pip",
                "install",
                "-q",
                "--no-index",
                pips(version),
            ]
            subprocess.run(command, check=True)
            made[version] = folder
        return made[version]

    return environment


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def prepared(checkout, environments) -> Checkout:
    """A checkout whose environment has pip already, which spares the time of making it."""
    shutil.copytree(environments(NEWEST), checkout.environment, symlinks=True)
    return checkout


# It lasts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_newer_releases_of_everything_do_no_harm(checkout, environments, version):
    shutil.copytree(environments(version), checkout.environment, symlinks=True)
    run = checkout.run()
    assert run.returncode == 0, run.stdout + run.stderr
    assert checkout.installed() == WHOLE
    assert checkout.stamps == {"page", "ready"}
    assert f"pip {version} " in checkout.python("-m", "pip", "--version").stdout


def test_the_oldest_pip_fails_where_it_may_resolve_or_fetch_a_build_tool(checkout, environments):
    """What the tests above would not show otherwise: that the index sets the trap that this book fell into."""
    shutil.copytree(environments(OLDEST), checkout.environment, symlinks=True)

    def refused(pins: str, *options: str) -> str:
        (checkout.root / "pins").write_text(pins)
        run = checkout.python(
            "-m", "pip", "install", "--require-hashes", *options, "-r", str(checkout.root / "pins")
        )
        assert run.returncode == 1
        return run.stdout + run.stderr

    archive, others = re.split(
        r"^(?=cover==)", (checkout.root / "requirements.lock").read_text(encoding="utf8"), flags=re.M
    )
    assert re.search(r"versions pinned with ==.*\n +cover\[more\]>=1\.0 from .*cover-2\.0", refused(others))
    assert "RuntimeError: too new" in refused(archive, "--no-deps")


def test_the_page_comes_first_and_the_rest_joins_it(prepared):
    assert not prepared.run("page").returncode
    assert prepared.installed() == PAGE
    assert prepared.stamps == {"page"}
    assert not list(prepared.environment.glob("lib/python3*/site-packages/__pycache__/tool.*"))
    run = prepared.run()
    assert "what the page needs" not in run.stdout
    assert prepared.installed() == WHOLE
    assert prepared.stamps == {"page", "ready"}
    assert list(prepared.environment.glob("lib/python3*/site-packages/__pycache__/tool.*"))
    assert prepared.run().stdout == ""
    # A newer lock of the page leads through both again, or make would ask for ever.
    later = (prepared.environment / "ready").stat().st_mtime + 1
    os.utime(prepared.root / "requirements-book.lock", (later, later))
    assert "the page" in (again := prepared.run().stdout)
    assert "notebooks" in again


def test_what_was_interrupted_is_taken_up_again(prepared):
    assert not prepared.run("page").returncode
    (packages,) = prepared.environment.glob("lib/python3*/site-packages")
    # As it lies there when pip was killed: the metadata have come, a module has not, and no stamp was made.
    (prepared.environment / "page").unlink()
    (packages / "tool.py").unlink()
    (packages / "tool-1.0.dist-info" / "INSTALLER").unlink()
    assert not prepared.run("page").returncode
    assert (packages / "tool.py").exists()
    assert prepared.stamps == {"page"}


def test_an_environment_without_pip_gets_one(checkout):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout.environment)], check=True)
    (checkout.environment / "kept").touch()
    assert not checkout.run("page").returncode
    assert (checkout.environment / "kept").exists()
    assert checkout.installed() == PAGE


def test_packages_that_do_not_fit_are_left_behind(prepared, inside, environments, monkeypatch, capsys):
    """An older lock, or a reader, has put something there that the pinned packages contradict."""
    wheel(prepared.index, "stray", "1.0", "tool>=2.0")
    assert not prepared.python("-m", "pip", "install", "--no-deps", "stray").returncode

    def create() -> None:
        inside.remove()
        shutil.copytree(environments(NEWEST), prepared.environment, symlinks=True)

    for key, value in prepared.variables().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(inside, "create", create)
    inside.install(inside.PAGE)
    told = capsys.readouterr().out
    assert re.search(r"do not fit each other \(stray 1.0 has requirement tool>=2.0.*made anew", told)
    assert prepared.installed() == PAGE


def test_a_lock_that_is_not_whole_is_reported(prepared, inside, monkeypatch):
    lock(prepared.root / "requirements-book.lock", *prepared.index.glob("plugin-1*"))
    for key, value in prepared.variables().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(inside, "prepare", lambda: True)
    with pytest.raises(inside.InstallError, match=r"not fit each other \(plugin 1.0 requires cover.* report it"):
        inside.install(inside.PAGE)
    assert prepared.stamps == set()


# What is wrong is said in one sentence ---------------------------------------------------------------------


@pytest.fixture
def inside(checkout) -> ModuleType:
    """The installer of the checkout, to be called from here."""
    spec = importlib.util.spec_from_file_location("installer", checkout.root / "lib" / "press" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(module: ModuleType, monkeypatch) -> str:
    """What the command line says to the end, one sentence."""
    monkeypatch.setattr(sys, "argv", ["install.py", "page"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert "\n" not in end.value.code
    return end.value.code


@pytest.mark.parametrize(
    ("damage", "variables", "sentence"),
    [
        ("hash", {}, r"tool==1\.0 came with another hash than requirements-book\.lock pins .* run this again"),
        ("none", {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "cannot be reached: check"),
        ("none", {}, r"does not offer tool==1\.0 for this system and Python 3\.\d\d: check the network"),
    ],
)
def test_what_pip_says_becomes_one_sentence(prepared, damage, variables, sentence):
    if damage == "hash":
        wheel(prepared.index, "tool", "1.0", code="import evil")
    else:
        (prepared.index / "tool-1.0-py3-none-any.whl").unlink()
    run = prepared.run("page", PIP_RETRIES="1", **variables)
    assert run.returncode == 1
    assert re.fullmatch(rf"Not installed\. [^\n]*{sentence}[^\n]*\.\n", run.stderr)
    assert prepared.stamps == set()
    assert prepared.installed() == {}


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: Could not install packages due to an OSError: [Errno 122] Disk quota exceeded", "up to 4 GB"),
        ("ERROR: [Errno 30] Read-only file system: '/b/x.py'", "/b/x.py cannot be written: copy the book"),
        ("ERROR: [Errno 13] Permission denied: '/b/x.py'\nCheck the permissions.", "/b/x.py cannot be written"),
        ("1\n2\n3\n4\n5\nsomething new", "its last lines say why:\n  2\n  3\n  4\n  5\n  something new"),
    ],
)
def test_what_pip_may_say_besides(log, sentence):
    assert sentence in install.explain(log, install.REST)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EROFS, r"a book/\.venv cannot be written: copy the book to a folder that is yours"),
        (errno.ENOSPC, r"The disk is full: make room, up to 300 MB"),
        (errno.EIO, r"a book/\.venv: Input/output error; put it right"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(checkout, inside, monkeypatch, number, sentence):
    def refuse(path: Path, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert re.search(sentence, said(inside, monkeypatch))
    assert not checkout.environment.exists()


@pytest.mark.parametrize("message", ["No module named venv", "[Errno 28] No space left on device"])
def test_a_python_that_cannot_make_environments_is_named(checkout, inside, monkeypatch, message):
    stub = checkout.root / "python"
    stub.write_text(f"#!/bin/sh\nmkdir -p '{checkout.environment}/bin'\necho '{message}'\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", str(stub))
    sentence = said(inside, monkeypatch)
    wanted = "The disk is full" if "space" in message else rf"{stub} cannot make .* \(python3\.\d\d-venv on Debian"
    assert re.search(wanted, sentence)
    assert not checkout.environment.exists()


@pytest.mark.parametrize("damage", ["no python", "a file", "a link to nowhere", "another Python", "no pip"])
def test_a_broken_environment_is_made_anew(checkout, inside, monkeypatch, damage):
    monkeypatch.setattr(inside, "create", lambda: made.append(True))
    made, link = [], checkout.environment / "bin" / "python"
    if damage == "a file":
        checkout.environment.touch()
    elif damage == "a link to nowhere":
        checkout.environment.symlink_to("nowhere")
    else:
        link.parent.mkdir(parents=True)
        answers = "[ $3 = pip ] || [ $3 = ensurepip ] && exit 1; " * (damage == "no pip")
        version = "(3, 10)" if damage == "another Python" else f"{sys.version_info[:2]}"
        if damage != "no python":
            link.write_text(f"#!/bin/sh\n{answers}echo '{version}'\n")
            link.chmod(0o755)
    assert inside.prepare()
    assert made == [True]


def test_removing_a_link_leaves_what_it_leads_to(checkout, inside, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    checkout.environment.symlink_to(tmp_path / "elsewhere")
    inside.remove()
    assert not checkout.environment.is_symlink()
    assert (tmp_path / "elsewhere").exists()


def test_an_old_python_is_refused_before_anything_else():
    source = SCRIPT.read_text(encoding="utf8")
    tree = ast.parse(source, feature_version=(3, 6))  # it must be read before it can refuse
    imports = [node for node in tree.body[1:] if isinstance(node, ast.Import | ast.ImportFrom)]
    assert isinstance(tree.body[len(imports) + 2], ast.If)
    assert "annotations" not in {alias.name for node in imports for alias in node.names}  # Python 3.7
    for version in ((3, 6), (3, 10), (3, 14)):
        play = f"import runpy, sys; sys.version_info = {version}; runpy.run_path({str(SCRIPT)!r})"
        run = subprocess.run([sys.executable, "-c", play], capture_output=True, text=True)
        assert run.returncode == 1
        assert re.fullmatch(
            rf"Python 3\.11 to 3\.13 is needed, and .* is {version[0]}\.{version[1]}: name another one, .*\n",
            run.stderr,
        )


def test_an_unknown_part_is_refused(checkout):
    run = checkout.run("book")
    assert (run.returncode, run.stderr) == (1, "usage: python3 lib/press/install.py [page]\n")
    assert not checkout.environment.exists()


def test_an_interruption_says_how_to_go_on(inside, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inside, "install", interrupt)
    assert said(inside, monkeypatch) == "Interrupted. Run this again: it goes on where it stopped."


# It tells how far it is ------------------------------------------------------------------------------------


LOG = """\
Looking in indexes: https://example.org/simple
Ignoring appnope: markers 'sys_platform == "darwin"' don't match your environment
Requirement already satisfied: babel==2.18.0 in ./.venv/lib (from -r requirements.lock (line 1)) (2.18.0)
Processing /files/attrs-26.1.0-py3-none-any.whl (from -r requirements.lock (line 4))
Collecting tensorflow==2.21.0 (from -r requirements.lock (line 9))
  Downloading tensorflow-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl.metadata (4.4 kB)
  Downloading tensorflow-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl (572.6 MB)
Installing collected packages: attrs, tensorflow
""".splitlines()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (0, (0, 6, "fetched")),
        (3, (1, 5, "fetched")),
        (4, (2, 5, "fetched; attrs")),
        (5, (3, 5, "fetched; tensorflow")),
        (7, (3, 5, "fetched; tensorflow (572.6 MB)")),
        (8, (1, 2, "unpacked; tensorflow")),
    ],
)
def test_the_progress_is_read_from_what_pip_says(inside, checkout, lines, told):
    # The environment as pip leaves it after the first of its two packages.
    for name, made in {"pip-26.3": 100.0, "attrs-26.1.0": 900.0}.items():
        finished = checkout.environment / f"lib/python3.11/site-packages/{name}.dist-info/INSTALLER"
        finished.parent.mkdir(parents=True)
        finished.touch()
        os.utime(finished, (made, made))
    assert inside.progress(LOG[:lines], pins=6, begun=500.0) == told


def test_lines_come_now_and_then_where_there_is_no_terminal(inside, monkeypatch, capsys):
    monkeypatch.setattr(inside.time, "monotonic", iter([0.0, 5.0, 10.0, 15.0, 20.5]).__next__)
    line = inside._Line()
    for done in range(4):
        line.tell(done, 4, "fetched")
    line.clear()
    assert capsys.readouterr().out == "  1 of 4 packages fetched, 10 s\n  3 of 4 packages fetched, 20 s\n"


def test_a_bar_is_drawn_on_a_terminal_and_no_chatter_of_pip(prepared):
    nowhere = " ".join(f"file:///nowhere/{k}" for k in range(20))
    command = [sys.executable, str(prepared.root / "lib" / "press" / "install.py"), "page"]
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        variables = prepared.variables(
            PIP_EXTRA_INDEX_URL=nowhere, PIP_NO_INDEX="0", PIP_INDEX_URL="file:///nowhere"
        )
        subprocess.run(command, stdout=theirs, env=variables, check=True, timeout=120)
        os.close(theirs)
        seen = b""
        try:
            while part := terminal.read(4096):
                seen += part
        except OSError:  # the other end is closed
            pass
    assert b"[........................] 0 of 1 packages fetched" in seen
    assert b"Location" not in seen
    assert re.search(rb"\r\x1b\[KInstalled in \d+ s\.\r\n$", seen)


# The locks and those who name them -------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    """Each line of a lock or of a list of requirements that pins a package, by name and version."""
    lines = (ROOT / name).read_text(encoding="utf8").splitlines()
    return {line.split()[0]: line for line in lines if re.match(r"[\w.-]+==", line)}


def test_both_locks_pin_the_same_versions_by_hash():
    page, whole = pins("requirements-book.lock"), pins("requirements.lock")
    assert page.keys() <= whole.keys()
    assert pins("requirements-book.txt").keys() <= page.keys()
    assert pins("requirements.txt").keys() <= whole.keys()
    for name in ("requirements-book.lock", "requirements.lock"):
        text = (ROOT / name).read_text(encoding="utf8")
        blocks = re.split(r"^(?=\S)", text, flags=re.M)[1:]
        assert len(blocks) >= len(pins(name))
        assert all(re.fullmatch(r"[\w.-]+==.*(\\\n    --hash=sha256:[0-9a-f]{64} ?)+\n", block) for block in blocks)
        assert "://" not in text


def test_the_page_needs_nothing_heavy():
    heavy = {"tensorflow", "keras", "jax", "torch", "numpy", "scipy", "matplotlib", "jupyterlab"}
    names = {pin.split("==")[0] for pin in pins("requirements-book.lock")}
    assert not names & heavy
    assert {pin.split("==")[0] for pin in pins("requirements.lock")} > heavy - {"jax", "torch"}


#: Imports the site builder where every package is missing that the lock of the page does not name.
WITHOUT = """
import importlib.metadata, re, sys

page = set(sys.argv[1:])
owners = importlib.metadata.packages_distributions()
plain = {module: {re.sub("[-_.]+", "-", name).lower() for name in names} for module, names in owners.items()}
missing = {module for module, names in plain.items() if not names & page}

class Missing:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing)
import lib.press.site, lib.press.pages
"""


def test_the_site_builder_needs_only_what_the_lock_of_the_page_holds():
    names = [pin.split("==")[0] for pin in pins("requirements-book.lock")]
    run = subprocess.run([sys.executable, "-c", WITHOUT, *names], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # Without Sphinx it does not start: what is missing is missed.
    names.remove("sphinx")
    run = subprocess.run([sys.executable, "-c", WITHOUT, *names], cwd=ROOT, capture_output=True, text=True)
    assert "ModuleNotFoundError: sphinx" in run.stderr


def test_one_range_of_pythons_is_named_everywhere():
    (low, high), settings = install.PYTHONS, tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    assert settings["project"]["requires-python"] == f">=3.{low[1]},<3.{high[1] + 1}"
    assert settings["tool"]["ruff"]["target-version"] == f"py3{low[1]}"
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert f"Python 3.{low[1]} to 3.{high[1]}" in readme
    assert f"Python 3.{low[1]} to 3.{high[1]} is needed" in SCRIPT.read_text(encoding="utf8")
    assert f"--python-version 3.{low[1]} " in (ROOT / "Makefile").read_text(encoding="utf8")
