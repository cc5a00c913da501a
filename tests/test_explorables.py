"""Explorables: what is shown is what Python computed, on axes that do not move."""

import base64
import html
import json
import re
from itertools import product
from xml.etree import ElementTree

import numpy as np
import pytest

from lib.press.drawings import themed
from lib.workbench import palette
from lib.workbench.explorables import HEIGHT, UNTRUSTED, WIDTH, Axis, Control, Curve, Explorable, Switches


def example(**changes):
    given = {
        "draw": lambda n, k: [([0, 1], [0, n]), ([0.5], [k])],
        "tell": lambda n, k: f"{n} & {k}.",
        "controls": [Control("n", [1, 2, 3], start=1), Control("k", [1, 2], lambda k: f"k = {k}")],
        "curves": [Curve("line", at=(0.1, 0.2)), Curve("dot", kind="dots")],
        "x": Axis("x", 0, 1, [0, 1]),
        "y": Axis("y", 0, 4, {0: "none", 4: "all"}),
        "alt": "A line.",
    }
    return Explorable(**{**given, **changes})


def test_there_is_a_frame_for_every_position_of_the_sliders():
    e = example()
    assert e.frames["told"] == ["1 & 1.", "1 & 2.", "2 & 1.", "2 & 2.", "3 & 1.", "3 & 2."]
    assert e.frames["labels"] == [["1", "2", "3"], ["k = 1", "k = 2"]]
    assert e.start == 2
    assert len({json.dumps(paths) for paths in e.frames["paths"]}) == 6


def test_paths_are_the_numbers_on_the_axes():
    e = example()
    points = np.array(re.findall(r"[\d.]+", e.path([0, 0.25, 1], [0, 1, 4], "line")), float).reshape(-1, 2)
    across, down = points[:, 0] - points[0, 0], points[0, 1] - points[:, 1]
    np.testing.assert_allclose(across / across[-1], [0, 0.25, 1], atol=1e-3)
    np.testing.assert_allclose(down / down[-1], [0, 0.25, 1], atol=1e-3)
    assert points.min() > 0
    assert points[:, 0].max() < WIDTH
    assert points[:, 1].max() < HEIGHT


def test_a_logarithmic_axis_shares_factors_equally_and_keeps_what_lies_beyond_at_its_end():
    axis = Axis("x", 1, 100, [1, 10, 100], logarithmic=True)
    np.testing.assert_allclose(axis.share([1, 10, 100, 1000, 0]), [0, 0.5, 1, 1, 0])


def test_the_html_holds_the_start_frame_as_an_image_and_all_frames_as_data():
    text = example().html
    image = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', text)[1]
    drawn = ElementTree.fromstring(base64.b64decode(image).decode())
    assert drawn.get("aria-label") == "A line. 2 & 1."
    frames = json.loads(html.unescape(re.search(r'data-frames="([^"]+)"', text)[1]))
    assert frames == example().frames
    assert text.count('type="range"') == 2
    assert "<script" not in text


def test_a_control_of_few_values_may_be_a_row_of_buttons():
    text = example(controls=[Control("n", [1, 2, 3], start=1, buttons=True), Control("k", [1, 2])]).html
    assert re.findall(r'type="radio" name="choice-\w+-0" value="(\d)"( checked)?', text) == [
        ("0", ""),
        ("1", " checked"),
        ("2", ""),
    ]
    assert re.findall(r'data-count="(\d)"', text) == ["3", "2"]
    assert text.count('type="range"') == 1


def test_on_the_page_every_colour_follows_the_theme():
    colours = [colour for name, colour in vars(palette).items() if name.isupper()]
    svg = example().svg
    assert palette.INK in svg
    assert [colour for colour in colours if colour in themed(svg, "f1-")] == []


def test_wrong_descriptions_are_refused():
    with pytest.raises(ValueError, match="alt"):
        example(alt=" ")
    with pytest.raises(ValueError, match="one pair a curve"):
        example(curves=[Curve("line")])


def switches(**changes):
    given = {
        "draw": lambda on: [([0, 1, 3], [2, sum(on), 0])],
        "tell": lambda on: f"{sum(on)} are on.",
        "controls": [Switches("Let in", ["a", "b", "c"], start=("b",))],
        "curves": [Curve("steps", kind="steps")],
        "x": Axis("x", 0, 3, [0, 3]),
        "y": Axis("y", 0, 3, [0, 3]),
        "still": [(Curve("all", kind="dots", at=(0.5, 0.5)), ([1, 2], [1, 2]))],
    }
    return example(**{**given, **changes})


def test_switches_have_a_frame_for_every_setting_and_a_sentence_for_each_that_differs():
    e = switches()
    settings = [*product((False, True), repeat=3)]
    assert e.controls[0].values == settings
    assert e.start == settings.index((False, True, False))
    assert [e.frames["told"][place] for place in e.frames["at"]] == [f"{sum(on)} are on." for on in settings]
    assert e.frames["told"] == ["0 are on.", "1 are on.", "2 are on.", "3 are on."]
    assert e.told == "1 are on."
    assert e.frames["labels"] == [[]]


def test_switches_are_checkboxes_with_labels_in_a_named_group():
    text = switches().html
    boxes = re.findall(r'<input type="checkbox" [\w-]+="true" (checked |)style=.*?">(\w)</label>', text)
    assert boxes == [("", "a"), ("checked ", "b"), ("", "c")]
    assert 'role="group" aria-label="Let in"' in text
    assert UNTRUSTED in text


def test_steps_hold_each_height_up_to_the_next_place_and_what_is_still_is_drawn_once():
    e = switches()
    numbers = re.findall(r"[MVH][\d. ]+", e.frames["paths"][0][0])
    assert [part[0] for part in numbers] == ["M", "V", "H", "V", "H", "V"]
    across = [float(part[1:]) for part in numbers if part[0] == "H"]
    left, bottom = map(float, numbers[0][1:].split())
    np.testing.assert_allclose((np.array(across) - left) / (across[-1] - left), [1 / 3, 1], atol=1e-3)
    assert float(numbers[3][1:]) == float(numbers[-1][1:]) == bottom  # nothing is on, and the end
    dots = e.path([1, 2], [1, 2], "dots")
    assert e.svg.count(dots) == 1
    assert dots not in json.dumps(e.frames)
    assert ">all</text>" in e.svg
