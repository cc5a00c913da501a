"""Stamp the book's public address where it is needed: ``python -m lib.press.address [URL]``.

The address stands in one place, ``[tool.book]`` of ``pyproject.toml``; the repository buttons of the site, the
Colab badges and the setup cells are stamped from it. Unset, the pages show no dead button, and a setup
cell that needs the address says so.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

from lib.press import notebooks
from lib.press.stamps import replace

SETUP_CELL = """\
# Setup: fetch the book where it is not at hand (on Colab), then make `lib` importable.
import importlib.util
import os
import pathlib
import subprocess
import sys

ADDRESS = "{address}"
here = pathlib.Path.cwd()
found = [path for path in [here, *here.parents] if (path / "lib/workbench").is_dir()]
root = found[0] if found else here / "proof-by-running"
if not found:
    if not root.exists() and not ADDRESS:
        raise RuntimeError("The book has no address yet: run `make address URL=…`.")
    if not root.exists():
        clone = ["git", "clone", "-q", "--depth=1", ADDRESS, str(root)]
        subprocess.run(clone, check=True)
    os.chdir(root / "book")
sys.path.insert(0, str(root))
if importlib.util.find_spec("google.colab"):
    from lib.workbench import colab

    colab.prepare()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no start-up notes of TensorFlow"""

_BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({url})"
_MARKS = ("# address: begin", "# address: end")


def address(root: Path = notebooks.ROOT) -> str:
    """The book's address, empty if it is not decided."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf8"))["tool"]["book"]["address"]


def stamp(url: str, root: Path = notebooks.ROOT) -> None:
    """Write the address into ``pyproject.toml``, ``_config.yml``, ``CITATION.cff`` and every notebook.

    Args:
        url: what ``git clone`` understands; empty to unset. Buttons and badges appear for GitHub only.
        root: the repository to stamp.

    Raises:
        ValueError: ``url`` has a space or a quote in it.
    """
    if re.search(r"[\s\"'\\]", url):
        raise ValueError(f"URL must be a plain address without spaces or quotes, got {url!r}")
    url = url.removesuffix("/").removesuffix(".git") if is_github(url) else url
    replace(root / "pyproject.toml", r'^address = ".*"$', f'address = "{url}"')
    between = rf"^{_MARKS[0]}[\s\S]*?^{_MARKS[1]}$"
    replace(root / "_config.yml", between, _marked(_buttons(url)))
    replace(root / "CITATION.cff", between, _marked([f"repository-code: {url}"] * is_github(url)))
    for path in notebooks.every(root):
        notebook = notebooks.read(path)
        for cell in notebook.cells:
            if notebooks.SETUP in notebooks.tags(cell):
                cell.source = SETUP_CELL.format(address=url)
            elif notebooks.COST in notebooks.tags(cell):
                cell.source = _with_badge(cell.source, badge(url, path))
        notebooks.write(path, notebook)


def is_github(url: str) -> bool:
    """Whether the address is one that Colab and the site's buttons can open."""
    return re.match(r"https://github\.com/[^/]+/[^/]+", url) is not None


def site(url: str) -> str:
    """Where GitHub Pages serves the site of a repository, with a slash at the end; empty for other addresses.

    Example:
        >>> site("https://github.com/org/book"), site("https://github.com/org/org.github.io")
        ('https://org.github.io/book/', 'https://org.github.io/')
    """
    if not is_github(url):
        return ""
    owner, name = url.removeprefix("https://github.com/").split("/")[:2]
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def badge(url: str, path: Path) -> str:
    """The Colab badge of a notebook in Markdown; empty where there is nothing it could open."""
    if not is_github(url):
        return ""
    place = url.removeprefix("https://github.com/")
    return _BADGE.format(url=f"https://colab.research.google.com/github/{place}/blob/main/book/{path.name}")


def _with_badge(source: str, badge: str) -> str:
    """The cost cell with the badge as its last paragraph, or without one."""
    paragraphs = [part for part in source.split("\n\n") if not part.startswith("[![Open in Colab]")]
    return "\n\n".join([*paragraphs, badge] if badge else paragraphs)


def _buttons(url: str) -> list[str]:
    if not is_github(url):
        return []
    return [
        f"repository: {{url: {url}, branch: main, path_to_book: ''}}",
        "launch_buttons: {colab_url: 'https://colab.research.google.com'}",
    ]


def _marked(lines: list[str]) -> str:
    """Lines of YAML between the marks by which they are found again."""
    return "\n".join([f"{_MARKS[0]} (stamped by `make address URL=…`)", *lines, _MARKS[1]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Stamp the book's public address; without one, unset it.")
    parser.add_argument("url", nargs="?", default="")
    options = parser.parse_args()
    stamp(options.url)
    print(f"The book's address is {options.url or 'unset'}.")


if __name__ == "__main__":
    main()
