"""A Sphinx extension: the pages that are made from records, and a site that is light and complete in itself.

Directives for the ``.md`` pages of the book. ``claims`` is every claim as a card, to be filtered by verdict,
``claim-count`` a sentence that counts them, ``executions`` the table of what each chapter cost to run,
``corrections``, ``tests``, ``prerequisites`` and ``workload`` are of their own modules. They read ``data/`` and
the chapters at build time, so a page cannot say something else than the record.

MathJax is served from the site, as SVG: its fonts are part of the script, while Firefox refuses to load font
files for a page opened from the disk. What the builder adds and no page uses is left out.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections import Counter
from importlib.metadata import files
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from lib.press import corrections, drawings, generated, messages, notebooks, tables, teaching, tested
from lib.press.generated import Generated, anchor, badge, class_of, load, number, raw, title
from lib.workbench import cards
from lib.workbench.claims import VERDICTS

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


class ClaimCount(Generated):
    """``claim-count``: how many claims the book has checked, and how they came out."""

    def markdown(self) -> list[str]:
        """One sentence."""
        claims = [claim for path in notebooks.chapters() for claim in load(notebooks.claims(path)) or []]
        count = Counter(claim["verdict"] for claim in claims)
        told = ", ".join(f"{count[verdict]} {badge(verdict)}" for verdict in VERDICTS if count[verdict])
        return [f"**{len(claims)} claims checked so far:** {told}. [All of them](claims.md)."]


class Claims(Generated):
    """``claims``: every claim of the book as a card that leads to its cell, a heading a chapter.

    Radio buttons stand before the cards; the style sheet shows those of the verdict and chapter chosen, without
    script.
    """

    def markdown(self) -> list[str]:
        """The choice of a verdict and of a chapter, then a heading and cards a chapter."""
        rows = {path: load(notebooks.claims(path)) or [] for path in notebooks.chapters()}
        count = Counter(claim["verdict"] for claims in rows.values() for claim in claims)
        verdicts = [(class_of(verdict), f"{verdict} ({count[verdict]})") for verdict in VERDICTS if count[verdict]]
        numbers = [number(path) for path in rows]
        lines = raw(_choice("verdict", [("all", f"all ({sum(count.values())})"), *verdicts]))
        lines += raw(_choice("chapter", [("all", "all"), *zip(numbers, numbers, strict=True)]))
        lines += raw('<p><output class="shown"></output></p>')  # a script says how many cards are shown
        for path, claims in rows.items():
            if claims:
                shown = "\n".join(cards.card(claim, anchor(path, claim["id"])) for claim in claims)
                # A heading within a directive makes no section: the style sheet hides it with its cards.
                lines += raw('<div class="claims-of">')
                lines += [f"## [{number(path)}. {title(path)}]({path.name})", "", *raw(f"{shown}</div>")]
        return lines


class Executions(Generated):
    """``executions``: what each chapter took to run, on which device, with which versions."""

    def markdown(self) -> list[str]:
        """One table, and the versions of its newest row."""
        lines = ["| chapter | run time | peak memory | device | date |", "|---|---|---|---|---|"]
        newest: dict[str, Any] = {"date": ""}
        for path in notebooks.chapters():
            for file in sorted(notebooks.measured(path).glob("execution.*.json")):
                record = load(file)
                newest = max(newest, record, key=lambda record: record["date"])
                lines.append(
                    f"| [{title(path)}]({path.name}) | {record['seconds']:.0f} s "
                    f"| {record['peak_memory_bytes'] / 2**30:.1f} GiB | {record['device']} | {record['date']} |"
                )
        versions = ", ".join(f"{name} {version}" for name, version in newest.get("versions", {}).items() if version)
        return [*lines, "", f"The stored outputs were made with {versions}."]


def _choice(name: str, options: list[tuple[str, str]]) -> str:
    """Radio buttons of which the first is chosen: values and what stands beside them."""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" * (i == 0)}> {text}</label> '
        for i, (value, text) in enumerate(options)
    )
    return f'<fieldset class="choose"><legend>{name.capitalize()}</legend>{buttons}</fieldset>'


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
    # "Code of figure 1.1" is the name of a fold; the builder would have it read out as "Toggle hidden content".
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    body = drawings.in_place(body, {name: Path(app.srcdir, path) for path, name in app.builder.images.items()})
    body = tables.labelled(tested.breakable(tested.marked(body) if page.startswith("book/") else body))
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    if (app.config.language or "en") != "en":
        body = messages.translated(body, messages.catalog(app.config.language, Path(app.srcdir)))
    context["body"] = body


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
    app.add_directive("corrections", corrections.Corrections)
    app.add_directive("tests", tested.SourcesOfTests)
    app.add_directive("prerequisites", teaching.Prerequisites)
    app.add_directive("workload", teaching.Workload)
    # A change of what makes pages changes every page: the value is part of what Sphinx compares between builds.
    modules = (sys.modules[__name__], cards, corrections, drawings, generated, messages, tables, teaching, tested)
    makers = b"".join(Path(module.__file__).read_bytes() for module in modules)
    app.add_config_value("press_version", hashlib.sha256(makers).hexdigest(), "html")
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("html-page-context", _mend_page, priority=900)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _leave_out_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
