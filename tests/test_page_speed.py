"""A page opens at once on a slow line: what it may ask for, what it may weigh, and that nothing in it jumps.

Bytes and requests are the budget, as they do not depend on the machine; `make speed` measures seconds.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lib.press import lighthouse, speed
from lib.press.site import documents

pytestmark = pytest.mark.browser

CHAPTERS = [name for name in documents() if re.match(r"book/\d\d-", name)]
OTHERS = ["book/index", "book/notation", "book/claims", "book/references", "book/api/attention"]
KILOBYTE = 1000
#: On the line of the measurement 200 kB take a second.
MOST = {"requests": 8, "chapter": 400 * KILOBYTE, "page": 150 * KILOBYTE}


@pytest.fixture(scope="module", params=[*CHAPTERS, *OTHERS])
def opening(request: pytest.FixtureRequest, browser: Any, address: str) -> speed.Opening:
    return speed.opened(browser, address, request.param, line=None)


def test_a_page_asks_for_little(opening: speed.Opening, site: Path) -> None:
    """One page, one style sheet, one script, the emblem as logo and as icon; figures that are files come on top."""
    html = (site / f"{opening.document}.html").read_text(encoding="utf8")
    figures = {*re.findall(r'src="[^"]*(_images/[^"]+)"', html)}
    assert opening.requests <= MOST["requests"] + len(figures)


def test_a_page_weighs_little(opening: speed.Opening) -> None:
    kind = "chapter" if opening.document in CHAPTERS else "page"
    assert opening.size <= MOST[kind], str(opening)


def test_nothing_jumps_while_a_page_opens(opening: speed.Opening) -> None:
    assert opening.shift <= 0.02, str(opening)


def test_text_comes_before_everything_and_the_first_figure_is_timed(opening: speed.Opening) -> None:
    assert opening.text > 0
    assert opening.figure > 0 or opening.document not in CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_nothing_stands_before_the_text(site: Path, chapter: str) -> None:
    """The first figure begins within 60 kB of the page; before it no script is waited for, and one style sheet."""
    page = (site / f"{chapter}.html").read_text(encoding="utf8")
    head, body = page.split("</head>", 1)
    assert re.findall(r"<script[^>]* src=", head) == []
    assert len(re.findall(r'<link[^>]* rel="stylesheet"|<link rel="stylesheet"', head)) == 1
    assert re.findall(r"<script(?![^>]*\bdefer\b)[^>]* src=", body) == []
    first = re.search(r'<(?:svg role="img"|img [^>]*_images)', body)
    assert first
    assert first.start() <= 60 * KILOBYTE


def test_a_phone_on_a_slow_line_is_measured(browser: Any, address: str) -> None:
    """Not how long it takes here, which depends on the machine, but that the line is what it is said to be."""
    slow = speed.opened(browser, address, "book/index")
    fast = speed.opened(browser, address, "book/index", line=None)
    assert slow.whole >= slow.size / speed.LINE["downloadThroughput"]
    assert slow.requests == fast.requests
    assert str(slow).startswith("book/index ")


def test_the_server_compresses_text_and_knows_what_is_not_there(address: str) -> None:
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    direct = build_opener(ProxyHandler({}))  # also where the environment names a proxy
    with direct.open(f"{address}/book/index.html") as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
    with pytest.raises(HTTPError, match="404"):
        direct.open(f"{address}/no-such-page.html")


def test_the_command_line_prints_a_line_a_page(monkeypatch: pytest.MonkeyPatch, capsys: Any, site: Path) -> None:  # noqa: ARG001
    seen = speed.Opening("book/index", 5, 60_000, 0.5, 0.6, 0.9, 0.0)
    monkeypatch.setattr(speed, "opened", lambda *_: seen)
    monkeypatch.setattr(speed.browser, "chromium", lambda: None)
    with pytest.raises(SystemExit, match="no Chromium"):
        speed.main(["book/index"])
    assert str(seen).split() == ["book/index", "5", "60", "kB", "0.50", "s", "0.60", "s", "0.90", "s", "0.000"]
    assert len(speed.HEADING.split()) == 8
    assert capsys.readouterr().out == ""


def test_lighthouse_is_asked_for_marks_and_what_they_are_for(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    audits = {"a": {"score": 0, "title": "It is dark."}, "b": {"score": 1, "title": "It is light."}}
    references = [{"id": "a", "weight": 1}, {"id": "b", "weight": 1}]
    categories = {name: {"score": 0.5, "auditRefs": []} for name in lighthouse.MARKS}
    categories["seo"] = {"score": 0.914, "auditRefs": references}
    outcome = subprocess.CompletedProcess([], 0, stdout=json.dumps({"categories": categories, "audits": audits}))
    monkeypatch.setattr(lighthouse.subprocess, "run", lambda *_, **__: outcome)
    monkeypatch.setattr(lighthouse.shutil, "which", lambda _: "npx")
    monkeypatch.setattr(lighthouse.browser, "chromium", lambda: "chromium")
    lighthouse.main(["book/index"])
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["page", *lighthouse.MARKS]
    assert row.split(maxsplit=5) == ["book/index", "50", "50", "50", "91", "It is dark."]
    outcome.returncode, outcome.stderr = 1, "no page"
    with pytest.raises(RuntimeError, match=r"Lighthouse failed at .*: no page"):
        lighthouse.main(["book/index"])
    monkeypatch.setattr(lighthouse.shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="npx"):
        lighthouse.main([])
