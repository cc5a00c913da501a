"""Chromium, and a server of the built site, for all that opens its pages: measurements, the PDF, tests."""

from __future__ import annotations

import functools
import gzip
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # who only serves the site needs no driver
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: What keeps it from asking for anything by itself, and lets it run as root in a container.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """The browser on this machine, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium without a window, driven by Playwright.

    Raises:
        FileNotFoundError: there is none on this machine; ask `chromium` before.
    """
    from playwright.sync_api import sync_playwright

    if (executable := chromium()) is None:
        raise FileNotFoundError(f"there must be a browser on the path, one of {', '.join(NAMES)}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, headless=True, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


class _Compressed(SimpleHTTPRequestHandler):
    """Serves files as public servers do: compressed, on connections that are kept."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with the file, text compressed."""
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        kind, body = self.guess_type(str(path)), path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        if not kind.startswith("image/") or kind.endswith("+xml"):
            self.send_header("Content-Encoding", "gzip")
            body = _packed(body)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of a browser that has left a page before all of it came."""


@functools.cache
def _packed(body: bytes) -> bytes:
    return gzip.compress(body, 6)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this folder, without a slash at the end."""
    server = _Server(("127.0.0.1", 0), functools.partial(_Compressed, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
