"""Does every link lead somewhere? ``python -m lib.press.links [--offline] [file …]``.

The checker is lychee. It reads the built pages, the README, the changelog and the rules for contributors; it tries
addresses, files, and the places within a page that a link names.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.press import notebooks, site

#: Publishers answer a program with 403, or 429 where it asks too often: the page is there.
ACCEPTED = "200..=206,403,429"
TEXTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md")


def command(files: Sequence[Path], *, offline: bool = False, root: Path = notebooks.ROOT) -> list[str]:
    """How lychee is called.

    Args:
        files: to read; the built pages and the texts beside them if there are none.
        offline: try files and places alone, no addresses.
        root: the repository.
    """
    pages = (page for page in sorted((root / site.SITE).rglob("*.html")) if "_static" not in page.parts)
    files = files or [*pages, *(root / name for name in TEXTS)]
    options = ["--no-progress", "--include-fragments", "--max-retries=3", "--timeout=30", "--host-concurrency=2"]
    options += ["--accept", ACCEPTED, "--user-agent", "Mozilla/5.0 (compatible; lychee)"]
    options += ["--exclude", r"^https?://(localhost|127\.0\.0\.1|book\.invalid|colab\.example)"]
    lychee = Path(sys.executable).parent / "lychee"
    return [str(lychee), *options, *["--offline"] * offline, *map(str, files)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Try every link.")
    parser.add_argument("--offline", action="store_true", help="files and places within them alone")
    parser.add_argument("file", nargs="*", type=Path, help="default: the built site and the texts beside it")
    options = parser.parse_args()
    if subprocess.run(command(options.file, offline=options.offline)).returncode:
        sys.exit("make links: a link leads nowhere; it stands above")
    print("Every link leads somewhere.")


if __name__ == "__main__":
    main()
