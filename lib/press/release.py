"""Release a version: ``python -m lib.press.release 1.0.0``. It checks, stamps, commits and tags; it pushes nothing.

The version stands in one place, ``[project]`` of ``pyproject.toml``. From there the citation, the changelog and
the pages have it. With each release the verdict of every claim is kept, in ``data/editions/<version>.json``: a
reader of an older edition finds what has changed since.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from lib.press import notebooks
from lib.press.stamps import replace
from lib.workbench import records

_VERSION = re.compile(r"\d+\.\d+\.\d+")


class ReleaseError(RuntimeError):
    """The version cannot be released. The message says why, one sentence each."""


def version(root: Path = notebooks.ROOT) -> str:
    """The version of the book.

    Example:
        >>> len(version().split("."))
        3
    """
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["project"]["version"]


def editions(root: Path = notebooks.ROOT) -> list[str]:
    """The versions that were released, the oldest first."""
    return sorted((path.stem for path in (root / "data" / "editions").glob("*.json")), key=_numbers)


def snapshot(root: Path = notebooks.ROOT) -> dict[str, dict[str, str]]:
    """The statement and the verdict of every claim, by its number."""
    return {
        claim["id"]: {"statement": claim["statement"], "verdict": claim["verdict"]}
        for path in notebooks.chapters(root)
        if notebooks.claims(path, root).exists()
        for claim in json.loads(notebooks.claims(path, root).read_text(encoding="utf8"))
    }


def problems(new: str, root: Path = notebooks.ROOT) -> list[str]:
    """Why a version cannot be released, one sentence each; empty if it can."""
    if not _VERSION.fullmatch(new):
        return [f"VERSION must be three numbers, such as 1.0.0, and is {new!r}"]
    if not (root / ".git").exists():
        return ["this is no repository of git, so nothing can be tagged"]
    found = []
    if _numbers(new) <= _numbers(version(root)):
        found.append(f"{new} is not newer than {version(root)}")
    if _git(root, "status", "--porcelain"):
        found.append("something is not committed")
    if (branch := _git(root, "rev-parse", "--abbrev-ref", "HEAD")) != "main":
        found.append(f"this is the branch {branch}, and main is released")
    if _git(root, "tag", "--list", f"v{new}"):
        found.append(f"the tag v{new} exists")
    if not re.search(r"^## Unreleased\n+(?!## )\S", _changelog(root), re.M):
        found.append("CHANGELOG.md says nothing under Unreleased")
    for path in notebooks.chapters(root):
        record = notebooks.measured(path, root) / "execution.cpu.json"
        stored = json.loads(record.read_text(encoding="utf8"))["fingerprint"] if record.exists() else ""
        if stored != notebooks.fingerprint(path, root):
            found.append(f"{path.stem} is stale: run `make execute`")
    return found


def stamp(new: str, today: datetime.date, root: Path = notebooks.ROOT) -> None:
    """Write the version where it stands, and keep the verdicts of this edition."""
    replace(root / "pyproject.toml", r'^version = ".*"$', f'version = "{new}"')
    replace(root / "CITATION.cff", r"^version: .*$", f"version: {new}")
    replace(root / "CITATION.cff", r"^date-released: .*$", f"date-released: {today}")
    replace(root / "CHANGELOG.md", r"^## Unreleased$", f"## Unreleased\n\n## {new}, {today}")
    records.write_json(root / "data" / "editions" / f"{new}.json", snapshot(root))


def release(new: str, today: datetime.date, root: Path = notebooks.ROOT) -> None:
    """Check, stamp, commit and tag.

    Raises:
        ReleaseError: the version cannot be released; nothing was changed.
    """
    if found := problems(new, root):
        raise ReleaseError("\n".join(found))
    stamp(new, today, root)
    _git(root, "add", "pyproject.toml", "CITATION.cff", "CHANGELOG.md", "data/editions")
    _git(root, "commit", "-q", "-m", f"Version {new}")
    _git(root, "tag", "-a", f"v{new}", "-m", f"Version {new}")


def _changelog(root: Path) -> str:
    return (root / "CHANGELOG.md").read_text(encoding="utf8")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Check, stamp, commit and tag a version. Nothing is pushed.")
    parser.add_argument("version", nargs="?", default="")
    new = parser.parse_args().version
    try:
        release(new, datetime.date.today())
    except ReleaseError as error:
        sys.exit(f"make release: nothing was changed.\n{error}")
    except ValueError as error:
        sys.exit(f"make release: {error}; `git diff` shows what was stamped before")
    print(f"Version {new} is committed and tagged v{new}. To publish it: git push --follow-tags")


if __name__ == "__main__":
    main()
