"""The teachers' page: what chapters need, and the drawing of it."""

import xml.etree.ElementTree as ET

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.press import notebooks, teaching


def needing(text):
    return new_notebook(cells=[new_markdown_cell("# A title"), new_markdown_cell(f"**You need:** {text}")])


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("integrals. Nothing else.", {}),
        ("the law of [chapter 1](01-angles.ipynb), and [2](02-initializers.ipynb#why).", {1: True, 2: True}),
        ("patience. [Chapter 7](07-attention.ipynb) helps.", {7: False}),
        ("norms ([chapter 6](06-extraction.ipynb)).\n\nLater: [9](09-theseus.ipynb)", {6: True}),
    ],
)
def test_what_a_chapter_needs(text, needs):
    assert teaching.needed(needing(text)) == needs


def test_no_chapter_needs_a_later_one_that_a_reader_has_not_seen():
    for number, path in enumerate(notebooks.chapters(), 1):
        needs = teaching.needed(notebooks.read(path))
        assert all(chapter != number and chapter <= 9 for chapter in needs), path.name
        assert all(chapter < number for chapter, must in needs.items() if must), path.name


def test_exercises_are_counted():
    cells = [
        new_code_cell("answer = ...", metadata={"tags": tags}) for tags in (["exercise"], ["figure"], ["exercise"])
    ]
    assert teaching.exercises(new_notebook(cells=cells)) == 2


def test_an_arc_for_each_need_and_a_label_for_each_chapter():
    titles = ["One", "Two & three", "A title that is much too long for one line of the drawing"]
    drawing = ET.fromstring(teaching.arcs(titles, [{}, {1: True}, {1: False, 2: True}]))
    paths = [element for element in drawing.iter() if element.get("marker-end")]
    assert [path.get("stroke-dasharray") for path in paths] == [None, "5 4", None]
    reaches = [float(path.get("d").split("C")[1].split()[0]) for path in paths]
    assert reaches[0] == reaches[2] > reaches[1]
    shown = " ".join(element.text for element in drawing.iter() if element.tag.endswith("text"))
    assert shown == f"1 {titles[0]} 2 {titles[1]} 3 {titles[2]}"
    assert "2 on 1, 3 on 1, 3 on 2" in "".join(element.text or "" for element in drawing.iter())
