"""Reading time: what is seen counts, what is folded does not, and the rates stand in one place."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.press import notebooks, reading
from lib.press.reading import Load


def code(source, *tags, **data):
    outputs = [new_output("display_data", data={key.replace("_", "/"): text for key, text in data.items()})]
    return new_code_cell(source, metadata={"tags": [*tags]}, outputs=outputs if data else [])


def test_words_formulas_and_lines_in_sight_are_counted_and_nothing_else():
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Two words"),
            new_markdown_cell("**Cost:** not counted", metadata={"tags": ["cost"]}),
            code("import hidden\nimport too", "setup"),
            code("import hidden", "imports", "remove-cell"),
            new_markdown_cell("So $a + b = c$ is [one link](https://example.org/long/way).\n\n$$x \\tag{1}$$"),
            new_markdown_cell(r"$$\begin{aligned} a &= b \cr c &= d \end{aligned}$$"),
            code("x = 1\n\ny = 2"),
            code(
                "figures.show(...)", "figure", "hide-input", text_markdown="**Figure 1.** Five words of a caption."
            ),
            code("claims.check(...)", "claim", "hide-input", text_plain="Claim 1.1 holds: It is so."),
            code("answer = ...", "exercise"),
            code("solution()", "solution", "remove-input", text_plain="Solution of exercise 1"),
            code("print(3)", text_plain="3"),
        ]
    )
    # Two words; so, formula, is, one, link; "Figure 1." and five; "Claim 1.1 holds:" and three.
    assert reading.load(notebook) == Load(words=2 + 5 + 7 + 6, formulas=3, lines=3)


@pytest.mark.parametrize(
    ("load", "minutes"),
    [
        (Load(0, 0, 0), 5),
        (Load(10 * reading.WORDS_A_MINUTE, 0, 0), 10),
        (Load(0, 600 // reading.SECONDS_A_FORMULA, 0), 10),
        (Load(0, 0, 600 // reading.SECONDS_A_LINE), 10),
        (Load(12 * reading.WORDS_A_MINUTE, 0, 0), 10),
        (Load(13 * reading.WORDS_A_MINUTE, 0, 0), 15),
    ],
)
def test_the_time_is_the_sum_at_the_three_rates_in_steps_of_five_minutes(load, minutes):
    assert load.minutes == minutes


@pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
def test_a_chapter_is_read_within_an_hour_and_a_half(path):
    load = reading.load(notebooks.read(path))
    assert load.words > 1500
    assert 10 <= load.minutes <= 90
