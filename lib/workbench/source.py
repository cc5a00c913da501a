"""Show a function of ``lib`` in a notebook, from its own source, so that the page and the library cannot differ."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """Source code that a notebook shows with highlighting, and a terminal as it is."""

    text: str

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.text}\n```"

    def __repr__(self) -> str:
        return self.text


def show(*objects: Callable[..., Any] | type, docstrings: bool = False) -> Source:
    """The source of functions, methods or classes, without their docstrings unless asked for.

    Args:
        objects: what to show, in this order.
        docstrings: keep the docstrings too.

    Returns:
        A value that shows itself as highlighted code at the end of a cell.

    Example:
        >>> print(show(Source.__repr__))
        def __repr__(self) -> str:
            return self.text
    """
    return Source("\n\n".join(_source(thing, docstrings) for thing in objects))


def _source(thing: Callable[..., Any] | type, docstrings: bool) -> str:
    text = textwrap.dedent(inspect.getsource(thing)).rstrip()
    if docstrings:
        return text
    lines = text.split("\n")
    for node in reversed(list(ast.walk(ast.parse(text)))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            del lines[first.lineno - 1 : first.end_lineno]
            if lines[first.lineno - 1 : first.lineno] == [""]:  # the blank line that parted docstring and body
                del lines[first.lineno - 1]
    return "\n".join(lines)
