"""Two runs are compared by meaning: rounding passes, and whatever a reader could see does not."""

import base64
import io
from functools import cache

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from nbformat.v4 import new_output

from lib.press import compare, notebooks
from lib.workbench import figures

X = np.linspace(0, 1, 200)


@pytest.fixture(autouse=True)
def _style():
    with mpl.rc_context():
        figures.use_book_style()
        yield


@cache
def drawn(
    *, shift=0.0, curves=2, label="measured", colour=figures.BLUE, dash="-", ticks=(0, 0.5, 1), heat=0.0, title=""
) -> str:
    """A figure of the book's kind: clipped curves with markers, a legend, ticks, a heat map."""
    figure, (left, right) = plt.subplots(1, 2)
    for k in range(curves):
        left.plot(
            X, np.sin(X * (k + 1)) + shift * (k == 0), dash, color=colour, label=label, marker="o", markevery=20
        )
    left.set(xlim=(0.1, 0.9), ylim=(0, 1), xlabel="x", xticks=ticks, title=title)
    left.legend()
    pixels = np.arange(12.0).reshape(3, 4)
    pixels[1, 1] += heat
    right.imshow(pixels, vmin=0, vmax=11)
    text = figures.svg(figure)
    plt.close(figure)
    return text


def differences(stored: str, new: str, kind: str = "image/svg+xml") -> list[str]:
    pair = ([new_output("display_data", {"text/plain": "<Figure>", kind: text})] for text in (stored, new))
    return compare.differences(*pair)


def test_the_same_figure_is_the_same():
    assert differences(drawn(), drawn()) == []


@pytest.mark.parametrize("shift", [1e-13, -1e-9, 1e-6, 2e-4])
def test_rounding_is_no_difference(shift):
    """In data 1e-4 is about 0.02 points here; ids that Matplotlib hashes from unrounded numbers change with it."""
    assert differences(drawn(), drawn(shift=shift)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"shift": 0.002},  # 0.4 points
        {"curves": 1},
        {"curves": 3},
        {"label": "measurea"},
        {"colour": "#0072B3"},
        {"dash": "--"},
        {"ticks": (0, 0.5, 0.9)},
        {"ticks": (0, 1)},
        {"heat": 1.0},
        {"title": "6"},
    ],
    ids=str,
)
def test_what_a_reader_could_see_is_a_difference(change):
    assert differences(drawn(), drawn(**change)) != []


def test_another_digit_is_a_difference():
    """Glyphs are drawn by reference to names, and the names do not count: what they lead to does."""
    assert differences(drawn(title="accuracy 0.86"), drawn(title="accuracy 0.88"))
    assert differences(drawn(title="accuracy 68"), drawn(title="accuracy 86"))


def test_names_do_not_count_but_what_they_lead_to_does():
    figure = (
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><defs><path id="a" d="M 0 0 L 1 1"/>'
        '<path id="b" d="M 0 0 L 5 1"/></defs><use xlink:href="#{}" x="1" y="2"/></svg>'
    )
    renamed = figure.replace('"a"', '"p"').replace('"b"', '"q"')
    assert differences(figure.format("a"), renamed.format("p")) == []
    assert differences(figure.format("a"), renamed.format("q")) != []


def test_a_definition_that_is_shared_or_written_twice_is_the_same():
    clip = '<clipPath id="{}"><rect x="1" y="2" width="30" height="40"/></clipPath>'
    line = '<path d="M 0 0 L 9 9" clip-path="url(#{})"/>'
    shared = f"<svg>{line.format('p')}{line.format('p')}<defs>{clip.format('p')}</defs></svg>"
    twice = f"<svg>{line.format('p')}{line.format('q')}<defs>{clip.format('p')}{clip.format('q')}</defs></svg>"
    assert differences(shared, twice) == []
    assert differences(shared, twice.replace('id="q"><rect x="1"', 'id="q"><rect x="7"')) != []


@pytest.mark.parametrize(
    ("new", "same"),
    [
        ("M 0 0 L 5 5.04 L 10 10", True),  # a vertex more, on the line
        ("M 0 0 L 10 10.05", True),
        ("M 0 0 L 5 5.5 L 10 10", False),
        ("M 0 0 L 9 9", False),  # the same line, shorter
        ("M 0 0 L 10 10 L 0 0", False),  # back again: ends elsewhere
        ("M 0 0 C 1 1 5 5 10 10", False),
        ("M 0 0 L 10 10 M 0 0", False),
    ],
)
def test_a_vertex_that_rounding_decides_is_no_difference(new, same):
    path = '<svg><path d="{}"/></svg>'
    assert (differences(path.format("M 0 0 L 10 10"), path.format(new)) == []) is same


@pytest.mark.parametrize(
    ("stored", "new", "same"),
    [
        ("translate(10.00 20.00)", "translate(10.01 20.00)", True),
        ("translate(10 20) scale(0.1 -0.1)", "translate(10 20) scale(0.12 -0.1)", False),
        ("rotate(-90)", "rotate(-90.05)", False),
        ("translate(10 20)", "scale(10 20)", False),
    ],
)
def test_only_translations_are_coordinates(stored, new, same):
    figure = '<svg><g transform="{}"/></svg>'
    assert (differences(figure.format(stored), figure.format(new)) == []) is same


def test_a_stroke_has_no_tolerance():
    figure = '<svg><path d="M 0 0" style="stroke-width: {}"/></svg>'
    assert differences(figure.format("1.50"), figure.format("1.51")) != []


def test_an_explorable_is_compared_frame_by_frame():
    def slider(*shifts, start=0, labels=("1", "2")):
        return figures.Explorable(
            [drawn(shift=s) for s in shifts], list(labels), name="n", alt="A curve", start=start
        )

    stored = slider(0, 0.1).html
    assert differences(stored, slider(1e-6, 0.1001).html, "text/html") == []
    for other in (slider(0, 0.102), slider(0, 0.1, start=1), slider(0, 0.1, labels=("1", "3")), slider(0.1, 0)):
        assert differences(stored, other.html, "text/html") != []


def test_a_picture_in_html_is_compared_by_its_pixels():
    def picture(value):
        buffer = io.BytesIO()
        plt.imsave(buffer, np.full((4, 4), value), vmin=0, vmax=255, cmap="gray", format="png")
        return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

    assert differences(picture(100), picture(101), "text/html") == []
    assert differences(picture(100), picture(110), "text/html") != []


@pytest.mark.parametrize(("stored", "new"), [("0.52", "0.53"), ("a", "a "), ("1e-07", "2e-07"), ("", "a")])
@pytest.mark.parametrize("kind", ["text/plain", "text/markdown", "text/html", "text/latex"])
def test_text_is_compared_to_the_letter(stored, new, kind):
    assert differences(stored, new, kind) != []


def test_pieces_of_a_stream_and_addresses_do_not_count():
    def stream(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    assert compare.differences([stream("a\nb\n")], [stream("a\n"), stream("b\n")]) == []
    assert compare.differences([stream("<A at 0x7f1234567890>")], [stream("<A at 0x7fffffffffff>")]) == []
    assert compare.differences([stream("a")], [stream("a", "stderr")]) != []
    assert compare.differences([stream("a")], []) != []
    assert compare.differences([], [stream("a")]) != []


def test_outputs_of_another_number_or_kind_are_a_difference():
    one = new_output("display_data", {"text/plain": "1"})
    two = new_output("display_data", {"text/plain": "1", "text/html": "<b>1</b>"})
    error = new_output("error", ename="ValueError", evalue="x", traceback=[])
    for pair in ([one], [one, one]), ([one], [two]), ([one], [error]):
        assert compare.differences(*pair) != []
    other = new_output("error", ename="ValueError", evalue="y", traceback=["elsewhere"])
    assert compare.differences([error], [other]) != []


@pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
def test_every_stored_output_can_be_read_and_equals_itself_only(path):
    """A copy in other words would be found: one number of each figure moved by a point, one letter of each text."""
    for cell in notebooks.code(notebooks.read(path)):
        assert compare.differences(cell.outputs, [dict(output) for output in cell.outputs]) == []
        for output in cell.outputs:
            if text := output.get("data", {}).get("image/svg+xml"):
                head, _, tail = text.rpartition(' d="M ')
                number, _, rest = tail.partition(" ")
                assert differences(text, f'{head} d="M {float(number) + 1} {rest}') != []
