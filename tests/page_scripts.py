"""The scripts of a page: each is run by itself, and what it prints is what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")


@dataclass(frozen=True)
class Script:
    """A script of the page, the backends that its first line names, and what the page says that it prints."""

    code: str
    printed: str

    @property
    def backends(self) -> list[str]:
        first, *_ = self.code.splitlines()
        assert first.startswith("# KERAS_BACKEND="), f"a script must begin with its backend, got {first!r}"
        return re.findall("tensorflow|jax|torch", first)

    def run(self) -> str:
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        environment = {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path}
        command = [sys.executable, "-c", self.code]
        process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-2000:]
        return process.stdout


def scripts(page: Path) -> list[Script]:
    """The scripts of a page, in their order."""
    fenced = r"```python\n(.*?)```\s*```text\n(.*?)```"
    return [Script(*both) for both in re.findall(fenced, page.read_text(encoding="utf-8"), re.DOTALL)]
