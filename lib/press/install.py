"""Install the pinned packages into .venv: ``python3 lib/press/install.py``; with ``page``, what the page needs.

A lock names every package with its version and hash, so pip resolves nothing: it fetches and checks. That works
with every pip from 22.3 on, and still works when newer releases of the packages are out. The page comes first; with
it come the tools that build seqeval, which is published as a source archive only.

A part is done when its stamp is made, which is the last act. What was interrupted is taken up again, and an
environment that is broken, or of another Python, is made anew.

This is a plain script: it runs before anything is installed, under whatever Python it is given. Its first act is
to refuse one that will not do, so its syntax is that of Python 3.6, and it prints ASCII only.
"""

import contextlib
import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

#: The oldest and the newest Python for which every pinned package has a wheel; also in pyproject.toml.
PYTHONS = ((3, 11), (3, 13))
if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
    sys.exit(
        f"Python 3.11 to 3.13 is needed, and {sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}: "
        "name another one, as in make PYTHON=python3.12, or python3.12 lib/press/install.py."
    )

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv"
BINARY = ENVIRONMENT / "bin" / "python"

#: How often a bar is drawn anew on a terminal, and a line printed elsewhere, in seconds.
REDRAW, REPEAT = 0.2, 10.0

_NETWORK = re.compile(
    r"connection broken|Max retries exceeded|Failed to establish|NameResolutionError|Read timed out|ConnectTimeout"
    r"|ReadTimeoutError|ConnectionResetError|Connection aborted|IncompleteRead|IncompleteDownload|ProxyError"
    r"|SSLError|Network is unreachable|HTTP error"
)
_WRONG_HASH = re.compile(r"DO NOT MATCH THE HASHES.*?\n\s+(\S+)", re.DOTALL)
_NOT_OFFERED = re.compile(r"No matching distribution found for (\S+)")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
_NOT_WRITABLE = re.compile(r"(?:Read-only file system|Permission denied)(?:: '(.+?)')?")


class Part(NamedTuple):
    """One part of the installation.

    Attributes:
        name: What it is for, in a few words.
        lock: The file of its pinned packages.
        stamp: The file in the environment that says that the part is installed.
        room: What it takes on the disk at most, in words.
    """

    name: str
    lock: Path
    stamp: Path
    room: str


PAGE = Part("what the page needs", ROOT / "requirements-book.lock", ENVIRONMENT / "page", "300 MB")
REST = Part("what the notebooks and tests need", ROOT / "requirements.lock", ENVIRONMENT / "ready", "4 GB")


class InstallError(RuntimeError):
    """The packages cannot be installed. The message says why and what to do, in one sentence."""


class UnfitError(InstallError):
    """The packages in the environment do not fit each other."""


def install(*parts: Part) -> None:
    """Install the parts that are not installed yet, in their order.

    Raises:
        InstallError: no network, no space, a wrong hash, a folder that cannot be written, no pip, or a package
            that the index does not offer.
    """
    fresh = prepare()
    try:
        _install_missing(parts)
    except UnfitError as error:
        if fresh:
            raise InstallError(f"{error}: report it to the book.") from error
        print(f"{error}. It is made anew.", flush=True)
        create()
        _install_missing(parts)


def is_installed(part: Part) -> bool:
    """Whether the part's stamp is there and no older than its lock; that is what make asks too."""
    return part.stamp.exists() and part.stamp.stat().st_mtime >= part.lock.stat().st_mtime


def _install_missing(parts: tuple[Part, ...]) -> None:
    """Install from the first part on that is missing: the later ones stand on it."""
    for part in itertools.dropwhile(is_installed, parts):
        started = time.monotonic()
        print(f"Installing {part.name} into {ENVIRONMENT}, at most {part.room}:", flush=True)
        pip_install(part)
        check = python("-m", "pip", "check", "--disable-pip-version-check")
        if check.returncode:
            raise UnfitError(
                f"The packages in {ENVIRONMENT} do not fit each other ({check.stdout.strip().splitlines()[-1]})"
            )
        if part == REST:
            # In place of pip, which compiles on one core. What is no Python, such as templates, is passed over.
            python("-m", "compileall", "-q", "-j", "0", *map(str, packages()))
        part.stamp.touch()
        print(f"Installed in {time.monotonic() - started:.0f} s.", flush=True)


def prepare() -> bool:
    """Have an environment of this Python that works and has pip.

    Returns:
        Whether it is new.

    Raises:
        InstallError: it cannot be made.
    """
    try:
        ENVIRONMENT.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=str(ENVIRONMENT)):
            pass
    except FileExistsError:  # a file, or a link to nowhere: create() removes it
        pass
    except OSError as error:
        raise InstallError(_explain_system(error)) from error
    if python("-c", "import sys; print(sys.version_info[:2])").stdout.strip() == str(sys.version_info[:2]):
        forget_half_packages()
        if has_pip() or (python("-m", "ensurepip").returncode == 0 and has_pip()):
            return False
    create()
    return True


def create() -> None:
    """Make the environment anew.

    Raises:
        InstallError: this Python cannot make environments, or there is no space.
    """
    remove()
    # Run by a Python of an environment, perhaps of this very one, take the Python behind it.
    base = getattr(sys, "_base_executable", sys.executable)
    command = [base, "-I", "-m", "venv", str(ENVIRONMENT)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    if made.returncode == 0 and has_pip():
        return
    remove()
    if _NO_SPACE.search(made.stdout):
        raise InstallError(_no_space(PAGE.room))
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    raise InstallError(
        f"{base} cannot make an environment with pip: install its venv module ({package} on Debian and Ubuntu), "
        "or name another Python, as in make PYTHON=python3.12."
    )


def remove() -> None:
    """Remove the environment; of a link only the link."""
    if ENVIRONMENT.is_symlink() or ENVIRONMENT.is_file():
        ENVIRONMENT.unlink()
    elif ENVIRONMENT.exists():
        shutil.rmtree(str(ENVIRONMENT))


def has_pip() -> bool:
    """Whether the environment has a pip that starts."""
    return python("-m", "pip", "--version").returncode == 0


def packages() -> list[Path]:
    """The folder of the environment's packages, in a list; an empty one if there is no such folder."""
    return list(ENVIRONMENT.glob("lib/python3*/site-packages"))


def forget_half_packages() -> None:
    """Remove the metadata of packages that were being installed when something stopped: pip takes them for whole.

    pip and uv write INSTALLER after all other files of a package.
    """
    for folder in packages():
        for metadata in folder.glob("*.dist-info"):
            if not (metadata / "INSTALLER").exists():
                shutil.rmtree(str(metadata))


def python(*arguments: str) -> subprocess.CompletedProcess:
    """Run the environment's Python, deaf to PYTHONPATH and its like; what it prints comes back as text.

    One that does not start at all gives the status 127.
    """
    command = [str(BINARY), "-I", *arguments]
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, stdout=str(error))


def pip_install(part: Part) -> None:
    """Have pip install what the part's lock names, and tell how far it is.

    Raises:
        InstallError: pip failed.
    """
    command = [str(BINARY), "-I", "-u", "-m", "pip", "install", "--no-deps", "--require-hashes", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--requirement", str(part.lock)]
    if part == REST:  # a source archive is built with the tools of the lock, not with the newest of the index
        command.append("--no-build-isolation")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    pins = len(re.findall(r"^[\w.-]+==", part.lock.read_text(encoding="utf8"), re.MULTILINE))
    begun, log, line = time.time(), [], _Line()
    pip = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    reader = threading.Thread(target=_read, args=(pip.stdout, log), daemon=True)
    reader.start()
    try:
        while reader.is_alive():
            line.tell(*progress(log, pins, begun))
            reader.join(REDRAW)
        pip.wait()
    except BaseException:
        pip.kill()
        pip.wait()
        raise
    finally:
        line.clear()
    if pip.returncode:
        raise InstallError(explain("\n".join(log), part))


def _read(stream, log: list[str]) -> None:
    """Keep what pip says, but not what it says of every address that it was configured with."""
    for raw in stream:
        text = raw.decode(errors="replace").rstrip()
        if not text.startswith("WARNING: Location"):
            log.append(text)


def progress(log: list[str], pins: int, begun: float) -> tuple[int, int, str]:
    """How far pip is: how many packages are done, of how many, and what is being done.

    Args:
        log: what pip has printed.
        pins: how many packages the lock names, for all systems together.
        begun: when pip was started, in seconds since the epoch.
    """
    fetched, size, ignored = [], "", 0
    for text in list(log):
        first, _, rest = text.strip().partition(" ")
        if first == "Ignoring":  # what other systems and other Pythons need
            ignored += 1
        elif first in ("Collecting", "Processing"):
            fetched.append(re.split("==|-[0-9]", rest.split("/")[-1])[0])
            size = ""
        elif first == "Downloading":
            size = "".join(re.findall(r" \([0-9.]+ [kMG]B\)", text))
        elif text.startswith("Requirement already satisfied:"):
            fetched.append("")
        elif text.startswith("Installing collected packages:"):
            names = text.partition(": ")[2].split(", ")  # in the order in which pip unpacks them
            done = min(_unpacked_since(begun), len(names))
            return done, len(names), f"unpacked; {names[done]}" if done < len(names) else "unpacked"
    name = fetched[-1] if fetched else ""
    return len(fetched), max(pins - ignored, len(fetched)), f"fetched; {name}{size}" if name else "fetched"


def _unpacked_since(begun: float) -> int:
    """How many packages were finished after a time; the clock of a file system is a little behind."""
    count = 0
    for folder in packages():
        for finished in folder.glob("*.dist-info/INSTALLER"):
            with contextlib.suppress(OSError):  # pip has just moved it
                count += finished.stat().st_mtime > begun - 1
    return count


class _Line:
    """A bar on a terminal, drawn over and over; elsewhere a line now and then."""

    def __init__(self) -> None:
        self.started = self.told = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def tell(self, done: int, total: int, what: str) -> None:
        now = time.monotonic()
        text = f"{done} of {total} packages {what}, {now - self.started:.0f} s"
        if self.terminal:
            filled = 24 * done // max(total, 1)
            bar = f"[{'#' * filled}{'.' * (24 - filled)}] {text}"
            print("\r\033[K" + bar[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        elif now - self.told >= REPEAT:
            print("  " + text, flush=True)
            self.told = now

    def clear(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def explain(said: str, part: Part) -> str:
    """Why pip failed and what to do, in one sentence; where nobody knows, with pip's last lines.

    Args:
        said: Everything that pip printed.
        part: What it was to install.
    """
    wrong_hash, not_offered = _WRONG_HASH.search(said), _NOT_OFFERED.search(said)
    not_writable = _NOT_WRITABLE.search(said)
    if _NO_SPACE.search(said):
        return _no_space(part.room)
    if wrong_hash:
        return (
            f"{wrong_hash.group(1)} came with another hash than {part.lock.name} pins and was thrown away: "
            "run this again, and if it comes back, report it to the book."
        )
    if _NETWORK.search(said):
        return "The package index cannot be reached: check the network and the settings of pip, and run this again."
    if not_offered:
        return (
            f"The package index does not offer {not_offered.group(1)} for this system and Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}: check the network, or take another Python."
        )
    if not_writable:
        return _not_writable(not_writable.group(1) or ENVIRONMENT)
    last = "".join("\n  " + line for line in said.strip().splitlines()[-5:])
    return f"pip failed: run this again; if it comes back, its last lines say why:{last}"


def _explain_system(error: OSError) -> str:
    """Why the system refused, and what to do, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_space(PAGE.room)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return _not_writable(ENVIRONMENT)
    return f"{error.filename}: {error.strerror}; put it right and run this again."


def _no_space(room: str) -> str:
    return (
        f"The disk is full: make room, up to {room} for {ENVIRONMENT} and as much for a while in "
        f"{tempfile.gettempdir()} (TMPDIR names another folder), and run this again."
    )


def _not_writable(what: object) -> str:
    return f"{what} cannot be written: copy the book to a folder that is yours, and run this there."


def main() -> None:
    """The command line: install everything, or only what the page needs."""
    if sys.argv[1:] not in ([], ["page"]):
        sys.exit("usage: python3 lib/press/install.py [page]")
    try:
        install(*([PAGE] if sys.argv[1:] else [PAGE, REST]))
    except InstallError as error:
        sys.exit(f"Not installed. {error}")
    except OSError as error:
        sys.exit(f"Not installed. {_explain_system(error)}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Run this again: it goes on where it stopped.")


if __name__ == "__main__":
    main()
