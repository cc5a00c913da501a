"""How fast a page opens on a slow line: ``python -m lib.press.speed [DOCUMENT …]``.

Chromium opens each page of the built site as a phone does that has never seen the book, at 1.6 Mb/s and 150 ms,
from a server that compresses. Requests and bytes on the wire do not depend on the machine. Seconds do: until the
first text is painted, until the first figure stands whole, until everything has come. A layout shift is a number
without unit; up to 0.1 is called good.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib.press import browser, notebooks
from lib.press.site import SITE, documents

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: The line of Lighthouse's phone: 1.6 Mb/s down, 0.75 Mb/s up, 150 ms there and back.
LINE = {"offline": False, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8, "latency": 150}
PHONE = {"width": 390, "height": 844}
#: Watches a page from its first moment. A figure stands when it has a size and the parser has gone past it.
_WATCH = """
  window.seen = {text: 0, figure: 0, shift: 0};
  new PerformanceObserver(list => list.getEntriesByName("first-contentful-paint").forEach(
    entry => { seen.text = entry.startTime; })).observe({type: "paint", buffered: true});
  new PerformanceObserver(list => list.getEntries().forEach(
    entry => { if (!entry.hadRecentInput) seen.shift += entry.value; }
  )).observe({type: "layout-shift", buffered: true});
  const look = () => {
    const figure = document.querySelector("article :is(figure svg, .output svg, img)");
    const box = figure?.getBoundingClientRect();
    const past = document.readyState !== "loading" || figure?.nextSibling || figure?.parentNode.nextSibling;
    if (box?.height > 1 && past && figure.complete !== false) seen.figure = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
"""


@dataclass(frozen=True)
class Opening:
    """What it took to open a page.

    Attributes:
        document: which page.
        requests: how many files were asked for.
        size: bytes on the wire, headers included.
        text: seconds until the first text was painted.
        figure: seconds until the first figure stood; 0 if the page has none.
        whole: seconds until everything had come.
        shift: how much of the page moved while it was read, as browsers count it.
    """

    document: str
    requests: int
    size: int
    text: float
    figure: float
    whole: float
    shift: float

    def __str__(self) -> str:
        times = f"{self.text:6.2f} s{self.figure:8.2f} s{self.whole:8.2f} s"
        return f"{self.document:28}{self.requests:9}{self.size / 1000:8.0f} kB{times}{self.shift:8.3f}"


HEADING = f"{'page':28}{'requests':>9}{'on the wire':>11}{'text':>8}{'figure':>10}{'whole':>10}{'shift':>8}"


def opened(chromium: Browser, address: str, document: str, line: dict[str, Any] | None = LINE) -> Opening:
    """Open a page for the first time, as a phone.

    Args:
        chromium: the browser, as `lib.press.browser.launched` gives it.
        address: where the site is served.
        document: such as ``book/01-angles``.
        line: how fast the line is; None for as fast as it can be.
    """
    context = chromium.new_context(viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    if line:
        session.send("Network.emulateNetworkConditions", line)
    asked: list[str] = []
    sizes: list[int] = []
    session.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
    session.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
    page.add_init_script(_WATCH)
    page.goto(f"{address}/{document}.html", wait_until="load", timeout=120_000)
    page.wait_for_timeout(500)
    seen = page.evaluate("({...seen, whole: performance.timing.loadEventEnd - performance.timing.navigationStart})")
    context.close()
    return Opening(
        document,
        requests=sum(not url.startswith("data:") for url in asked),
        size=sum(sizes),
        text=seen["text"] / 1000,
        figure=seen["figure"] / 1000,
        whole=seen["whole"] / 1000,
        shift=seen["shift"],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: a line a page."""
    parser = argparse.ArgumentParser(description="Measure how fast the built pages open on a slow line.")
    parser.add_argument("documents", nargs="*", metavar="DOCUMENT", help="such as book/01-angles; all if none")
    chosen = parser.parse_args(arguments).documents or documents()
    if browser.chromium() is None:
        sys.exit("make speed: there is no Chromium here.")
    with browser.served(notebooks.ROOT / SITE) as address, browser.launched() as chromium:
        print(HEADING)
        for document in chosen:
            print(opened(chromium, address, document), flush=True)


if __name__ == "__main__":
    main()
