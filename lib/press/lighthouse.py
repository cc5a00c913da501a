"""What Lighthouse says of every built page, as a phone sees it: ``python -m lib.press.lighthouse [DOCUMENT …]``.

Lighthouse is no dependency of the book: npx, which comes with Node.js, fetches it. Its marks for accessibility,
best practices and search do not depend on the machine. That for performance does: on a busy machine it falls.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from lib.press import browser, notebooks
from lib.press.site import SITE, documents

VERSION = "12.8.2"
MARKS = ("performance", "accessibility", "best-practices", "seo")


def judged(address: str) -> tuple[dict[str, int], list[str]]:
    """The marks of a page, 0 to 100, and what it was marked down for, performance aside.

    Args:
        address: of the page.

    Raises:
        RuntimeError: Lighthouse failed.
    """
    command = ["npx", "--yes", f"lighthouse@{VERSION}", address, "--quiet", "--output=json"]
    command += [f"--only-categories={','.join(MARKS)}", "--chrome-flags=--headless --no-sandbox --disable-gpu"]
    environment = {**os.environ, "CHROME_PATH": browser.chromium() or ""}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"Lighthouse failed at {address}: {run.stderr.strip()[-300:]}")
    report = json.loads(run.stdout)
    categories = report["categories"]
    marks = {name: round(100 * (categories[name]["score"] or 0)) for name in MARKS}
    named = [audit["id"] for name in MARKS[1:] for audit in categories[name]["auditRefs"] if audit["weight"]]
    failed = [report["audits"][name]["title"] for name in named if report["audits"][name]["score"] == 0]
    return marks, failed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: a line a page."""
    parser = argparse.ArgumentParser(description="Let Lighthouse judge the built pages.")
    parser.add_argument("documents", nargs="*", metavar="DOCUMENT", help="such as book/01-angles; all if none")
    chosen = parser.parse_args(arguments).documents or documents()
    if shutil.which("npx") is None or browser.chromium() is None:
        sys.exit("make lighthouse: it needs npx, which comes with Node.js, and Chromium.")
    print(f"{'page':28}{''.join(f'{name:>16}' for name in MARKS)}")
    with browser.served(notebooks.ROOT / SITE) as address:
        for document in chosen:
            marks, failed = judged(f"{address}/{document}.html")
            row = "".join(f"{marks[name]:16}" for name in MARKS)
            print(f"{document:28}{row}  {'; '.join(failed)}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
