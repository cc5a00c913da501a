"""A text with some of its characters marked: underlined on a page, in brackets where there is none."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import groupby

#: How a mark looks: its place in the legend, not its colour alone, tells which it is.
LINES = ("solid", "dashed", "dotted", "double")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
BRACKETS = ("[]", "{}", "<>", "()")


class Marked:
    """Lines of text, each with spans of up to four roles underlined.

    Args:
        lines: (label, text, spans) each; ``spans`` gives for a role the half-open spans of characters that have it.
        roles: the roles, in the order of their lines and colours.
        language: of the texts, as in HTML, such as "zh"; it decides how a browser draws and speaks them.

    Raises:
        ValueError: a role that is not among ``roles``, more than four roles, or a span that leaves its text.

    Example:
        >>> Marked([("author", "Emma is by Jane Austen.", {"book": [(0, 4)], "person": [(11, 22)]})],
        ...        roles=("book", "person"))
        [book] {person}
        author: [Emma] is by {Jane Austen}.
    """

    def __init__(
        self,
        lines: Sequence[tuple[str, str, Mapping[str, Sequence[tuple[int, int]]]]],
        roles: Sequence[str],
        language: str = "en",
    ) -> None:
        if len(roles) > len(LINES):
            raise ValueError(f"roles must be at most {len(LINES)}, got {len(roles)}")
        for _, text, spans in lines:
            for role, places in spans.items():
                if role not in roles:
                    raise ValueError(f"spans must have the roles {list(roles)}, got {role!r}")
                for start, end in places:
                    if not 0 <= start < end <= len(text):
                        raise ValueError(f"spans must lie in a text of {len(text)} characters, got {(start, end)}")
        self.lines, self.roles, self.language = list(lines), tuple(roles), language

    def __repr__(self) -> str:
        legend = " ".join(f"{BRACKETS[k][0]}{role}{BRACKETS[k][1]}" for k, role in enumerate(self.roles))
        return "\n".join(
            [legend, *(f"{label}: {self._bracketed(text, spans)}" for label, text, spans in self.lines)]
        )

    def _bracketed(self, text: str, spans: Mapping[str, Sequence[tuple[int, int]]]) -> str:
        opening, closing = [""] * (len(text) + 1), [""] * (len(text) + 1)
        for role, places in spans.items():
            left, right = BRACKETS[self.roles.index(role)]
            for start, end in places:
                opening[start] += left
                closing[end] = right + closing[end]
        pieces = zip(closing, opening, [*text, ""], strict=True)
        return "".join(close + begin + character for close, begin, character in pieces)

    def _repr_html_(self) -> str:
        legend = " ".join(self._underlined(role, (role,)) for role in self.roles)
        rows = "".join(
            f'<tr><th scope="row">{html.escape(label)}</th>'
            f'<td lang="{html.escape(self.language)}">{self._html(text, spans)}</td></tr>'
            for label, text, spans in self.lines
        )
        return f'<table class="marked"><caption>{legend}</caption><tbody>{rows}</tbody></table>'

    def _html(self, text: str, spans: Mapping[str, Sequence[tuple[int, int]]]) -> str:
        def roles_at(place: int) -> tuple[str, ...]:
            return tuple(
                role for role in self.roles if any(start <= place < end for start, end in spans.get(role, ()))
            )

        runs = groupby(range(len(text)), key=roles_at)
        return "".join(self._underlined("".join(text[i] for i in places), roles) for roles, places in runs)

    def _underlined(self, text: str, roles: tuple[str, ...]) -> str:
        """A run of text that has these roles; one line below another."""
        for depth, role in enumerate(roles):
            k = self.roles.index(role)
            style = f"border-bottom: 3px {LINES[k]} {COLOURS[k]}; padding-bottom: {1 + 4 * depth}px"
            text = f'<span style="{style}">{text if depth else html.escape(text)}</span>'
        return text if roles else html.escape(text)
