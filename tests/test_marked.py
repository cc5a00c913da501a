"""Marked text: nothing of the text is lost, and every mark stands where it should."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.workbench.marked import BRACKETS, Marked

ROLES = ("subject", "object")


@st.composite
def marked_texts(draw):
    text = draw(st.text(alphabet='ab <>&"é京', min_size=1, max_size=12))
    place = st.integers(0, len(text))
    span = st.tuples(place, place).filter(lambda pair: pair[0] < pair[1])
    return text, {role: draw(st.lists(span, max_size=3)) for role in ROLES}


def cell(marked: Marked) -> str:
    return re.search(r"<td[^>]*>(.*)</td>", marked._repr_html_(), re.S)[1]


@given(marked_texts())
def test_a_page_shows_the_whole_text_and_nothing_else(case):
    text, spans = case
    assert html.unescape(re.sub(r"<[^>]+>", "", cell(Marked([("", text, spans)], ROLES)))) == text


@given(marked_texts())
def test_a_character_is_underlined_once_for_each_role_that_it_has(case):
    text, spans = case
    depths, depth = [], 0
    for tag, character in re.findall(r"(<[^>]+>)|(&\w+;|.)", cell(Marked([("", text, spans)], ROLES)), re.S):
        if tag:
            depth += -1 if tag.startswith("</") else 1
        elif character:
            depths.append(depth)
    expected = [sum(any(a <= i < b for a, b in spans[role]) for role in ROLES) for i in range(len(text))]
    # An entity such as &#x27; is more than one match of the pattern; the alphabet has none of those.
    assert depths == expected


def test_without_a_page_brackets_mark_the_spans():
    shown = repr(Marked([("born in", "Ada, London", {"subject": [(0, 3)], "object": [(5, 11)]})], ROLES))
    assert shown.splitlines() == ["[subject] {object}", "born in: [Ada], {London}"]


def test_nested_spans_close_in_turn():
    shown = repr(Marked([("", "abcd", {"subject": [(0, 4)], "object": [(1, 3)]})], ROLES))
    assert shown.splitlines()[1] == ": [a{bc}d]"


def test_texts_are_escaped_and_their_language_is_told():
    page = Marked([("<b>", "<i>", {})], ROLES, language="zh")._repr_html_()
    assert "<b>" not in page
    assert "<i>" not in page
    assert 'lang="zh"' in page


@pytest.mark.parametrize(
    ("lines", "roles", "message"),
    [
        ([("", "ab", {"verb": [(0, 1)]})], ROLES, "verb"),
        ([("", "ab", {"subject": [(1, 3)]})], ROLES, r"\(1, 3\)"),
        ([], ("a", "b", "c", "d", "e"), "at most 4"),
    ],
)
def test_bad_marks_are_refused(lines, roles, message):
    with pytest.raises(ValueError, match=message):
        Marked(lines, roles)
    assert len(BRACKETS) == 4
