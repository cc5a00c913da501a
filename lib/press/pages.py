"""A Sphinx extension: the pages that are made from records, and a site that is light and complete in itself.

Three directives for the ``.md`` pages of the book. ``claims`` is the table of every claim with its verdict,
``claim-count`` a sentence that counts them, ``executions`` the table of what each chapter cost to run. They
read ``data/`` at build time, so a page cannot say something else than the record.

MathJax is served from the site, as SVG: its fonts are part of the script, while Firefox refuses to load font
files for a page opened from the disk. What the builder adds and no page uses is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from importlib.metadata import files
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lib.press import notebooks
from lib.workbench.claims import VERDICTS, Table

#: Of MathJax's 24 MB the site needs the TeX component with SVG output and the extensions TeX loads by itself.
_MATHJAX = re.compile(r"static/mathjax/(tex-svg\.js|input/tex/extensions/.*)$")
#: What Jupyter Book puts on every page and no page of this book uses: live kernels, toggle buttons, design grids.
_UNUSED_ASSETS = re.compile(r"thebe|toggle|design", re.IGNORECASE)
_KERNEL_SETTINGS = re.compile(
    r"<script type=\"text/x-thebe-config\">.*?</script>\s*<script>kernelName.*?</script>", re.S
)
#: What the theme copies into the site and no page loads: icon scripts and fonts, translations, source maps.
_UNUSED_FILES = (
    "scripts/fontawesome.js*",
    "scripts/*.map",
    "styles/*.map",
    "locales",
    "vendor",
    "*thebe*",
    "*toggle*",
    "*design*",
)


class Generated(SphinxDirective):
    """A directive whose Markdown is computed; the page depends on the files it was computed from."""

    def markdown(self) -> list[str]:
        """The lines that stand in the page."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the computed Markdown in the place of the directive."""
        self.env.note_dependency(__file__)
        for path in notebooks.chapters():
            for record in (notebooks.claims(path), *notebooks.measured(path).glob("execution.*.json")):
                self.env.note_dependency(str(record))
        node = nodes.container()
        lines = StringList(self.markdown(), source=self.env.docname)
        self.state.nested_parse(lines, self.content_offset, node)
        return node.children


class ClaimCount(Generated):
    """``claim-count``: how many claims the book has checked, and how they came out."""

    def markdown(self) -> list[str]:
        """One sentence."""
        claims = [claim for path in notebooks.chapters() for claim in _load(notebooks.claims(path)) or []]
        count = Counter(claim["verdict"] for claim in claims)
        told = ", ".join(f"{count[verdict]} {_badge(verdict)}" for verdict in VERDICTS if count[verdict])
        return [f"**{len(claims)} claims checked so far:** {told}. [All of them](claims.md)."]


class Claims(Generated):
    """``claims``: every claim of the book, a table a chapter."""

    def markdown(self) -> list[str]:
        """A heading and a table a chapter."""
        lines = []
        for path in notebooks.chapters():
            rows = _load(notebooks.claims(path))
            if rows:
                lines += [f"## [{_title(path)}]({path.name})", "", *_claims_table(rows), ""]
        return lines


class Executions(Generated):
    """``executions``: what each chapter took to run, on which device, with which versions."""

    def markdown(self) -> list[str]:
        """One table, and the versions of its newest row."""
        lines = ["| chapter | run time | peak memory | device | date |", "|---|---|---|---|---|"]
        newest: dict[str, Any] = {"date": ""}
        for path in notebooks.chapters():
            for file in sorted(notebooks.measured(path).glob("execution.*.json")):
                record = _load(file)
                newest = max(newest, record, key=lambda record: record["date"])
                lines.append(
                    f"| [{_title(path)}]({path.name}) | {record['seconds']:.0f} s "
                    f"| {record['peak_memory_bytes'] / 2**30:.1f} GiB | {record['device']} | {record['date']} |"
                )
        versions = ", ".join(f"{name} {version}" for name, version in newest.get("versions", {}).items() if version)
        return [*lines, "", f"The stored outputs were made with {versions}."]


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else None


def _title(path: Path) -> str:
    """The chapter's title: the first heading of the notebook."""
    first = notebooks.read(path).cells[0].source
    return first.split("\n", 1)[0].lstrip("# ")


def _badge(verdict: str) -> str:
    return f"[{verdict}]{{.verdict .{verdict}}}"


def _claims_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| claim | statement | verdict | measured | band | where |", "|---|---|---|---|---|---|"]
    for row, (number, statement, verdict, measured, band, where) in zip(rows, Table(rows).cells(), strict=True):
        cells = (number, statement, _badge(verdict), measured, band, f"{where}: {row['device']}")
        lines.append("| " + " | ".join(cell.replace("|", r"\|").replace("*", r"\*") for cell in cells) + " |")
    return lines


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put the part of MathJax that the pages load beside them."""
    if error is None and app.builder.format == "html":
        for file in files("sphinx-mathjax-offline") or []:
            if part := _MATHJAX.search(file.as_posix()):
                target = Path(app.outdir) / "_static" / "mathjax" / part.group(1)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)


def _mend_page(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Drop the scripts and styles that the page does not use, and mend what the builder wrote."""
    has_formulas = app.env.get_domain("math").data["has_equations"].get(page, False)

    def used(asset: Any) -> bool:
        described = f"{asset.filename} {asset.attributes.get('body', '')}"
        return not _UNUSED_ASSETS.search(described) and (has_formulas or "mathjax" not in described.lower())

    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context[kind] if used(asset)]
    # The builder still writes an ARIA role that has been withdrawn; a bibliography is a list of items.
    body = _KERNEL_SETTINGS.sub("", context.get("body", ""))
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def _leave_out_files(app: Sphinx, error: Exception | None) -> None:
    """Remove from the built site what no page loads."""
    if error is None and app.builder.format == "html":
        for pattern in _UNUSED_FILES:
            for path in (Path(app.outdir) / "_static").glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the local MathJax."""
    app.add_directive("claims", Claims)
    app.add_directive("claim-count", ClaimCount)
    app.add_directive("executions", Executions)
    # A change of this file is a change of every page: the value is part of what Sphinx compares between builds.
    app.add_config_value("press_version", hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), "html")
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("html-page-context", _mend_page, priority=900)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _leave_out_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
