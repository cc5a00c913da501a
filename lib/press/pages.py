"""A Sphinx extension: the pages that are made from records, and a site that is light and complete in itself.

Directives for the ``.md`` pages of the book. ``claims`` is every claim as a card, to be filtered by verdict,
``claim-count`` a sentence that counts them, ``executions`` the table of what each chapter cost to run,
``on-colab`` how each came out on Colab, ``citation``, ``reporting``, ``editions`` and ``changes`` what
`lib.press.citing` says. ``corrections``, ``tests``, ``prerequisites`` and ``workload`` are of their own modules.
They read ``data/`` and the chapters at build time, so a page cannot say something else than the record.

A page asks for one style sheet and one script; see ``assets``. Its formulas are typeset when the site is built; see
``formulas``. What the builder adds and no page uses is left out.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from lib.press import (
    address,
    assets,
    citing,
    corrections,
    drawings,
    formulas,
    front,
    generated,
    heads,
    hooks,
    messages,
    notebooks,
    release,
    tables,
    teaching,
    tested,
)
from lib.press.generated import Generated, anchor, badge, class_of, load, number, plain, raw, title
from lib.workbench import cards
from lib.workbench.claims import VERDICTS

#: What Jupyter Book puts on every page and no page of this book uses: live kernels, toggle buttons, design grids.
#: Of the scripts also those in whose place frame.js stands.
_UNUSED = {
    "css_files": re.compile(r"thebe|toggle|design", re.IGNORECASE),
    "script_files": re.compile(
        r"thebe|toggle|design|mathjax|clipboard|copybutton|sphinx-book-theme", re.IGNORECASE
    ),
}
#: What the template puts at the end of the page of search, where the page is read.
_OWN_SCRIPTS = ("_static/book.js", "_static/frame.js")
_KERNEL_SETTINGS = re.compile(
    r"<script type=\"text/x-thebe-config\">.*?</script>\s*<script>kernelName.*?</script>", re.S
)
_COLAB_BADGE = re.compile(r'<img alt="Open in Colab"[^>]*>')


class ClaimCount(Generated):
    """``claim-count``: how many claims the book has checked, and how they came out."""

    def markdown(self) -> list[str]:
        """One sentence."""
        claims = [claim for path in notebooks.chapters() for claim in load(notebooks.claims(path)) or []]
        count = Counter(claim["verdict"] for claim in claims)
        told = ", ".join(f"{count[verdict]} {badge(verdict)}" for verdict in VERDICTS if count[verdict])
        return [f"**{len(claims)} claims checked:** {told}. [See them all](claims.md)."]


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
        lines = raw(_rules([value for value, _ in verdicts], numbers))
        lines += raw(_choice("verdict", [("all", f"all ({sum(count.values())})"), *verdicts]))
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


def _rules(verdicts: list[str], chapters: list[str]) -> str:
    """The style of the page: what is not chosen is not shown, nor a chapter of which nothing is left."""
    chosen = [("verdict", value, f".{value}") for value in verdicts]
    chosen += [("chapter", value, f'[data-chapter="{value}"]') for value in chapters]
    hidden = [
        f'.bd-article:has([name="{name}"][value="{value}"]:checked) {part}'
        for name, value, fits in chosen
        for part in (f"section.claim:not({fits})", f".claims-of:not(:has({fits}))")
    ]
    return f"<style>{', '.join(hidden)} {{ display: none; }}</style>"


class OnColab(Generated):
    """``on-colab``: which chapters ran on which release of Colab, and whether they came out as stored."""

    def markdown(self) -> list[str]:
        """One table, and what each release had installed."""
        runs = {(one["release"], one["backend"], one["chapter"]): one for one in load(notebooks.COLAB_RUNS) or []}
        columns = sorted({key[:2] for key in runs}, key=lambda key: (key[1] != "tensorflow", key[1], key[0]))
        names = [release if backend == "tensorflow" else f"{release}, {backend}" for release, backend in columns]
        lines = [f"| chapter | {' | '.join(names)} |", "|---" * (1 + len(columns)) + "|"]
        for path in notebooks.chapters():
            found = [_came_out(runs.get((*column, path.stem)), path) for column in columns]
            lines.append(f"| [{title(path)}]({path.name}) | {' | '.join(found)} |")
        told = []
        for column in columns:
            newest = max((runs[key] for key in runs if key[:2] == column), key=lambda run: run["date"])
            had = ", ".join(f"{name} {v}" for name, v in newest["versions"].items() if v and name != "backend")
            told.append(f"- Colab {' on '.join(column)}, last run on {newest['date']}: {had}.")
        return [*lines, "", *told] if runs else ["No chapter was run as on Colab yet."]

    def sources(self) -> list[Path]:
        """The record of the runs, and the chapters, whose change makes a run old."""
        return [notebooks.COLAB_RUNS, *super().sources()]


def _came_out(run: dict[str, Any] | None, path: Path) -> str:
    """A cell of the table: how many verdicts were the same."""
    if run is None:
        return "not run"
    same, count = run["verdicts"]
    told = f"{same} of {count} verdicts" + (", differs" if run["differences"] else "")
    return told if run["fingerprint"] == notebooks.fingerprint(path) else f"{told}, before the last change"


def _choice(name: str, options: list[tuple[str, str]]) -> str:
    """Radio buttons of which the first is chosen: values and what stands beside them."""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" * (i == 0)}> {text}</label> '
        for i, (value, text) in enumerate(options)
    )
    return f'<fieldset class="choose"><legend>{name.capitalize()}</legend>{buttons}</fieldset>'


def _described(asset: Any) -> str:
    """The name of a style sheet or script, and what a script without a file says."""
    return f"{asset.filename} {asset.attributes.get('body', '')}"


def _name_edition(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Tell the templates which version this is, and where a mistake on this page is reported."""
    root = Path(app.srcdir)
    version, url = release.version(root), address.address(root)
    context["book"] = {
        "version": version,
        "citing": app.builder.get_relative_uri(page, "book/citing"),
        "report": citing.report(page, plain(context.get("title", "")), version, url),
    }


def _mend_page(app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Give the page one style sheet and one script, and mend what the builder wrote."""
    joined = {"css_files": assets.THEME_STYLES, "script_files": ()}
    for kind in joined:
        context[kind] = [asset for asset in context[kind] if not _UNUSED[kind].search(_described(asset))]
        names = [(asset.filename or "").removeprefix("_static/") for asset in context[kind]]
        joined[kind] += tuple(name for name in names if name)
    app.builder.joined_assets = joined
    context["assets"] = assets.mark(Path(app.srcdir), app.config.press_version)
    context["css_files"] = []
    # The page of search runs the builder's scripts one by one; the book's own end it, as they end the joined one.
    apart = context["script_files"] if page == "search" else ()
    context["script_files"] = [asset for asset in apart if asset.filename not in _OWN_SCRIPTS]
    # The builder still writes an ARIA role that has been withdrawn; a bibliography is a list of items.
    body = _KERNEL_SETTINGS.sub("", context.get("body", ""))
    # The badge of a notebook is a picture on another server, from which no page loads anything.
    body = _COLAB_BADGE.sub("Open in Colab", body)
    # "Code of figure 1.1" is the name of a fold; the builder would have it read out as "Toggle hidden content".
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    body = drawings.in_place(body, {name: Path(app.srcdir, path) for path, name in app.builder.images.items()})
    body = tables.labelled(tested.breakable(tested.marked(body) if page.startswith("book/") else body))
    if re.match(r"book/\d\d-", page):  # the style sheet lets what is far from the window wait
        body = body.replace('<section class="', '<section class="chapter ', 1)
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    if (app.config.language or "en") != "en":
        body = messages.translated(body, messages.catalog(app.config.language, Path(app.srcdir)))
    context["body"] = body


def _finish_files(app: Sphinx, error: Exception | None) -> None:
    """Write the style sheet and the script of all pages, and leave no file that none of them loads."""
    if error is None and app.builder.format == "html":
        if joined := getattr(app.builder, "joined_assets", None):  # None where no page was out of date
            assets.write(Path(app.outdir), joined["css_files"], joined["script_files"])
        assets.clean(Path(app.outdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives, and what is done to every page."""
    app.add_directive("claims", Claims)
    app.add_directive("claim-count", ClaimCount)
    app.add_directive("executions", Executions)
    app.add_directive("on-colab", OnColab)
    app.add_directive("citation", citing.Citation)
    app.add_directive("reporting", citing.Reporting)
    app.add_directive("editions", citing.Editions)
    app.add_directive("changes", citing.Changes)
    app.add_directive("corrections", corrections.Corrections)
    app.add_directive("tests", tested.SourcesOfTests)
    app.add_directive("prerequisites", teaching.Prerequisites)
    app.add_directive("workload", teaching.Workload)
    # A change of what makes pages changes every page: the value is part of what Sphinx compares between builds.
    own = (sys.modules[__name__], assets, cards, citing, corrections, drawings, formulas, front, generated, heads)
    modules = (*own, hooks, messages, tables, teaching, tested)
    makers = b"".join(Path(module.__file__).read_bytes() for module in modules)
    app.add_config_value("press_version", hashlib.sha256(makers).hexdigest(), "html")
    app.connect("html-page-context", _name_edition, priority=100)  # the theme renders its parts early
    app.connect("html-page-context", _mend_page, priority=900)
    # The theme writes the colours of code at the end of the build, and extensions copy their files.
    app.connect("build-finished", _finish_files, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
