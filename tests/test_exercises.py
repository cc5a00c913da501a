"""Exercises: unanswered, wrong, broken and right answers are told apart, and none of them raises."""

import pytest

from lib.workbench.exercises import Exercise


@pytest.fixture
def exercise():
    return Exercise("3.2", check=lambda answer: 1 / answer == 0.5, hint="Halve it.")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (..., "Exercise 3.2: no answer yet. Replace the … above and run the cell again."),
        (3, "Exercise 3.2: not yet. Hint: Halve it."),
        (0, "Exercise 3.2: not yet (ZeroDivisionError: division by zero). Hint: Halve it."),
        (2, "Exercise 3.2: right."),
    ],
)
def test_every_answer_is_told_where_it_stands(exercise, answer, told, capsys):
    exercise(answer)
    assert capsys.readouterr().out == told + "\n"


def test_an_exercise_needs_a_hint():
    with pytest.raises(ValueError, match="hint"):
        Exercise("1.1", check=bool, hint="")
