"""Sheets of exercises: every answer is told where it stands, a hint comes on request, a solution is folded."""

import pytest

from lib.workbench.sheets import Problem, Sheet


def solve():
    """Halve it."""
    half = 0.5
    print("half", half)
    return 1 / half


def problem(**changes):
    given = {
        "number": "3.2",
        "level": "easy",
        "check": lambda answer: 1 / answer == 0.5,
        "hint": "Halve it.",
        "explain": "Use `1 / x` < 1.\n\nThen stop.",
        "solve": solve,
    }
    return Problem(**{**given, **changes})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (..., 'Exercise 3.2: no answer yet. Replace the … and run the cell again; exercises.hint("3.2") helps.'),
        (3, 'Exercise 3.2: not yet. exercises.hint("3.2") helps.'),
        (0, 'Exercise 3.2: not yet (ZeroDivisionError: division by zero). exercises.hint("3.2") helps.'),
        (2, "Exercise 3.2: right."),
    ],
)
def test_every_answer_is_told_where_it_stands(answer, told, capsys):
    Sheet([problem()]).check("3.2", answer)
    assert capsys.readouterr().out == told + "\n"


def test_a_hint_comes_on_request(capsys):
    Sheet([problem()]).hint("3.2")
    assert capsys.readouterr().out == "Exercise 3.2: Halve it.\n"


def test_a_solution_is_folded_with_its_code_and_what_it_prints():
    solution = Sheet([problem()]).solution("3.2")
    assert solution.code == 'half = 0.5\nprint("half", half)'
    assert solution._repr_html_() == (
        '<details class="solution"><summary>Solution of exercise 3.2</summary><p>Use <code>1 / x</code> &lt; 1.</p>'
        '<p>Then stop.</p><pre>half = 0.5\nprint("half", half)</pre><pre>half 0.5</pre></details>'
    )
    assert "0.5" not in repr(solution)


def test_a_solution_must_pass_its_own_check():
    with pytest.raises(ValueError, match="must pass its own check"):
        Sheet([problem(check=lambda answer: answer == 3)]).solution("3.2")


@pytest.mark.parametrize("wrong", [{"level": "tricky"}, {"hint": " "}, {"explain": ""}])
def test_a_problem_is_whole(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        problem(**wrong)


@pytest.mark.parametrize("call", ["hint", "solution"])
def test_an_unknown_number_is_named(call):
    with pytest.raises(ValueError, match=r"number must be one of 3\.2, got '9\.9'"):
        getattr(Sheet([problem()]), call)("9.9")
