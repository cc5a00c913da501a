"""The picture of the book in README.md: ``python -m lib.press.picture``.

It shows the first screen of chapter 1, as it is built, in the fonts of this machine.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

from lib.press import browser, notebooks
from lib.press.site import SITE

FILE = notebooks.ROOT / "_static" / "page.png"
WINDOW = {"width": 1180, "height": 760}
#: A page has few colours; so many make the file half as large.
COLOURS = 256


def write(folder: Path, document: str, file: Path) -> None:
    """Take a picture of the first screen of a page.

    Args:
        folder: the built site.
        document: such as ``book/01-angles``.
        file: where to, as PNG.

    Raises:
        FileNotFoundError: the page is not built, or there is no browser.
    """
    if not (folder / f"{document}.html").exists():
        raise FileNotFoundError(f"{document} must be built: run `make book` first")
    with browser.served(folder) as address, browser.launched() as chromium:
        page = chromium.new_page(viewport=WINDOW, color_scheme="light")
        page.goto(f"{address}/{document}.html", wait_until="load")
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(description="Take the picture of the book for README.md.").parse_args()
    try:
        write(notebooks.ROOT / SITE, f"book/{notebooks.chapters()[0].stem}", FILE)
    except FileNotFoundError as error:
        sys.exit(f"make picture: {error}")
    print(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
