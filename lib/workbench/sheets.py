"""Sheets of exercises: they check themselves, help when asked, and show their solutions folded.

A chapter's exercises are a :class:`Sheet` in ``lib.experiments``. The notebook holds the question, the answer and
one call; check, hint and solution are not in its sight. A check accepts every right answer, a better one too.
Notebooks import the module of their sheet as ``exercises``, and a check speaks of it by that name.
"""

from __future__ import annotations

import ast
import contextlib
import html
import inspect
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

LEVELS = ("easy", "medium", "hard", "research")


@dataclass(frozen=True)
class Problem:
    """One exercise.

    Args:
        number: in the chapter, such as ``"1.2"``.
        level: one of ``LEVELS``.
        check: called with the answer; returns True if it is right. An exception counts as wrong.
        hint: a sentence that helps without giving the answer away.
        explain: the solution in prose; names of code between backticks.
        solve: computes the answer, prints what is worth seeing, returns the answer. Its body is shown.

    Raises:
        ValueError: an unknown level, or an empty text.
    """

    number: str
    level: str
    check: Callable[[Any], bool]
    hint: str
    explain: str
    solve: Callable[[], Any]

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(
                f"level of exercise {self.number} must be one of {', '.join(LEVELS)}, got {self.level!r}"
            )
        if not self.hint.strip() or not self.explain.strip():
            raise ValueError(f"hint and explain of exercise {self.number} must be sentences")

    def problem(self, answer: Any) -> str | None:
        """What is wrong with an answer: None if nothing, "" if the check says no, else the error it ran into."""
        try:
            return None if bool(self.check(answer)) else ""
        except Exception as error:  # a reader's function may fail in any way; the failure is the feedback
            return f" ({type(error).__name__}: {error})"


class Sheet:
    """The exercises of a chapter.

    Args:
        exercises: in their order.

    Example:
        >>> sheet = Sheet([Problem("1.1", "easy", lambda x: x == 42, "Six times seven.", "6 · 7.", lambda: 42)])
        >>> sheet.check("1.1", ...)
        Exercise 1.1: no answer yet. Replace the … and run the cell again; exercises.hint("1.1") helps.
        >>> sheet.check("1.1", 41)
        Exercise 1.1: not yet. exercises.hint("1.1") helps.
        >>> sheet.check("1.1", 42)
        Exercise 1.1: right.
    """

    def __init__(self, exercises: Iterable[Problem]) -> None:
        self.exercises = {exercise.number: exercise for exercise in exercises}

    def check(self, number: str, answer: Any) -> None:
        """Say whether the answer is right; an answer left as ``...`` is no answer yet.

        Raises:
            ValueError: there is no exercise of this number.
        """
        if answer is ...:
            told = f'no answer yet. Replace the … and run the cell again; exercises.hint("{number}") helps.'
        elif (problem := self._exercise(number).problem(answer)) is None:
            told = "right."
        else:
            told = f'not yet{problem}. exercises.hint("{number}") helps.'
        print(f"Exercise {number}: {told}")

    def hint(self, number: str) -> None:
        """Print the hint of an exercise; raises ValueError as `check`."""
        print(f"Exercise {number}: {self._exercise(number).hint}")

    def solution(self, number: str) -> Solution:
        """The worked solution, folded, with what its code prints; raises ValueError as `check`."""
        return Solution(self._exercise(number))

    def _exercise(self, number: str) -> Problem:
        if number not in self.exercises:
            raise ValueError(f"number must be one of {', '.join(self.exercises)}, got {number!r}")
        return self.exercises[number]


class Solution:
    """A worked solution that a reader unfolds: prose, code, and what the code prints."""

    def __init__(self, exercise: Problem) -> None:
        self.exercise = exercise
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            answer = exercise.solve()
        if exercise.problem(answer) is not None:
            raise ValueError(f"solve of exercise {exercise.number} must pass its own check, got {answer!r}")
        self.printed = printed.getvalue().rstrip()

    @property
    def code(self) -> str:
        """The body of ``solve``, without its docstring and its last line, which returns the answer."""
        source = textwrap.dedent(inspect.getsource(self.exercise.solve))
        function = ast.parse(source).body[0]
        body = function.body[1 if ast.get_docstring(function) else 0 :]
        lines = source.split("\n")[body[0].lineno - 1 : function.end_lineno]
        if isinstance(body[-1], ast.Return):
            lines = lines[: body[-1].lineno - body[0].lineno]
        return textwrap.dedent("\n".join(lines)).strip()

    def _repr_html_(self) -> str:
        prose = html.escape(self.exercise.explain, quote=False)
        prose = re.sub(r"`([^`]+)`", r"<code>\1</code>", prose)
        parts = [f"<p>{paragraph}</p>" for paragraph in prose.split("\n\n")]
        parts += [f"<pre>{html.escape(text, quote=False)}</pre>" for text in (self.code, self.printed) if text]
        name = f"Solution of exercise {self.exercise.number}"
        return f'<details class="solution"><summary>{name}</summary>{"".join(parts)}</details>'

    def __repr__(self) -> str:
        return f"Solution of exercise {self.exercise.number}: open it on the page or in JupyterLab."
