"""Directives of the ``.md`` pages whose Markdown is computed from records when the site is built."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from lib.press import notebooks
from lib.workbench import cards


class Generated(SphinxDirective):
    """A directive whose Markdown is computed; the page depends on the files it was computed from."""

    def markdown(self) -> list[str]:
        """The lines that stand in the page."""
        raise NotImplementedError

    def sources(self) -> list[Path]:
        """The files that decide what the page says."""
        return [
            file
            for path in notebooks.chapters()
            for file in (path, notebooks.claims(path), *notebooks.measured(path).glob("execution.*.json"))
        ]

    def run(self) -> list[nodes.Node]:
        """Parse the computed Markdown in the place of the directive."""
        # What makes the page decides it too: Sphinx does not look at the code of a directive.
        makers = [sys.modules[cls.__module__].__file__ for cls in (type(self), Generated)]
        for file in (*makers, cards.__file__, *self.sources()):
            self.env.note_dependency(str(file))
        node = nodes.container()
        lines = StringList(self.markdown(), source=self.env.docname)
        self.state.nested_parse(lines, self.content_offset, node)
        return node.children


def load(path: Path) -> Any:
    """What a file of JSON holds; None if there is none."""
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else None


def title(path: Path) -> str:
    """The chapter's title: the first heading of the notebook."""
    first = notebooks.read(path).cells[0].source
    return first.split("\n", 1)[0].lstrip("# ")


def number(path: Path) -> str:
    """The number of a chapter."""
    return str(int(path.stem.split("-")[0]))


def anchor(path: Path, claim: str) -> str:
    """Where a claim's cell stands, seen from the pages beside the chapters."""
    return f"{path.stem}.html#claim-{claim.replace('.', '-')}"


def badge(verdict: str) -> str:
    """A verdict, with its class."""
    return f"[{verdict}]{{.verdict .{class_of(verdict)}}}"


def class_of(verdict: str) -> str:
    """The name of a verdict's class."""
    return verdict.replace(" ", "-")


def raw(markup: str) -> list[str]:
    """HTML as it is, in the lines of a page."""
    return ["```{raw} html", *markup.split("\n"), "```", ""]


def plain(markup: str) -> str:
    r"""The text of HTML, on one line.

    Example:
        >>> plain("<p>One <b>two</b>\n</p>")
        'One two'
    """
    return " ".join(re.sub(r"<[^>]+>", "", markup).split())
