"""The picture of the book in README.md shows what the site shows."""

import pytest
from PIL import Image
from shared import require

from lib.press import picture
from lib.press.browser import chromium


@pytest.mark.browser
def test_the_first_screen_of_a_page_is_taken(tmp_path):
    require(chromium() is not None, "Chromium takes the picture, and there is none here")
    (tmp_path / "a.html").write_text('<body style="background: #0072b2"><p style="margin-top: 900px">Below')
    picture.write(tmp_path, "a", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as taken:
        assert taken.size == (picture.WINDOW["width"], picture.WINDOW["height"])
        assert taken.convert("RGB").getcolors() == [(taken.width * taken.height, (0, 0x72, 0xB2))]


def test_a_page_that_is_not_built_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="a must be built: run `make book` first"):
        picture.write(tmp_path, "a", tmp_path / "a.png")


def test_the_picture_is_light_and_of_its_size():
    with Image.open(picture.FILE) as kept:
        assert kept.size == (picture.WINDOW["width"], picture.WINDOW["height"])
    assert picture.FILE.stat().st_size < 120_000
