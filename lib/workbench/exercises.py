"""Exercises that check themselves: run them unanswered, wrong or right, and they always tell you where you are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Exercise:
    """One exercise: a check, and a hint for whoever does not pass it yet.

    Args:
        number: the number in the chapter, such as ``"1.2"``.
        check: called with the answer; returns True if it is right. An exception counts as wrong.
        hint: one sentence that helps without giving the answer away.

    Example:
        >>> exercise = Exercise("1.0", check=lambda answer: answer == 42, hint="Six times seven.")
        >>> exercise(...)
        Exercise 1.0: no answer yet. Replace the … above and run the cell again.
        >>> exercise(41)
        Exercise 1.0: not yet. Hint: Six times seven.
        >>> exercise(42)
        Exercise 1.0: right.
    """

    def __init__(self, number: str, *, check: Callable[[Any], bool], hint: str) -> None:
        if not hint.strip():
            raise ValueError(f"hint of exercise {number} must be a sentence, got an empty string")
        self.number, self.check, self.hint = number, check, hint

    def __call__(self, answer: Any) -> None:
        """Say whether the answer is right; an answer left as ``...`` is no answer yet."""
        if answer is ...:
            verdict = "no answer yet. Replace the … above and run the cell again."
        elif (problem := self._problem(answer)) is None:
            verdict = "right."
        else:
            verdict = f"not yet{problem}. Hint: {self.hint}"
        print(f"Exercise {self.number}: {verdict}")

    def _problem(self, answer: Any) -> str | None:
        """What is wrong with the answer: None if nothing, "" if the check says no, else the error it ran into."""
        try:
            return None if bool(self.check(answer)) else ""
        except Exception as error:  # a reader's function may fail in any way; the failure is the feedback
            return f" ({type(error).__name__}: {error})"
