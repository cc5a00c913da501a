"""What stands in one place of a file, written anew: the address of the book, its version, its date."""

from __future__ import annotations

import re
from pathlib import Path


def replace(path: Path, pattern: str, text: str) -> None:
    """Replace the one place in a file that matches a pattern.

    Args:
        path: the file, in UTF-8.
        pattern: a regular expression; ``^`` and ``$`` match at every line.
        text: what stands there then, to the letter.

    Raises:
        ValueError: no place matches, or several do; the file stays as it is.
    """
    new, count = re.subn(pattern, lambda _: text, path.read_text(encoding="utf8"), flags=re.M)
    if count != 1:
        raise ValueError(f"{path.name} must hold exactly one place that matches {pattern!r}, found {count}")
    path.write_text(new, encoding="utf8")
