"""Tables that a phone can show: below 480 pixels each row becomes a card, by the style sheet.

A card has no heading row, so each cell carries the heading of its column. The roles keep a table a table for a
screen reader when the style sheet no longer lays it out as one.
"""

from __future__ import annotations

import re

from lib.press.generated import plain

_ROW = re.compile(r"<tr\b.*?</tr>", re.S)
_CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.S)


def labelled(body: str) -> str:
    """A page's HTML whose tables know their columns in every cell.

    Args:
        body: HTML. Tables with one row of headings are changed; others, and those with cells that span, are not.

    Example:
        >>> table = "<table><thead><tr><th>n</th></tr></thead><tbody><tr><td>3</td></tr></tbody></table>"
        >>> labelled(table).partition("<tbody")[2]
        ' role="rowgroup"><tr role="row"><td role="cell" data-label="n">3</td></tr></tbody></table>'
    """
    return re.sub(r"<table\b.*?</table>", _labelled, body, flags=re.S)


def _labelled(match: re.Match[str]) -> str:
    table = match[0]
    head = re.search(r"<thead\b.*?</thead>", table, re.S)
    if head is None or len(_ROW.findall(head[0])) != 1 or re.search(r"<t[dh][^>]*(?:col|row)span", table):
        return table
    names = [plain(cell[3]).replace('"', "&quot;") for cell in _CELL.finditer(head[0])]

    def headings(row: re.Match[str]) -> str:
        return row[0].replace("<tr", '<tr role="row"').replace("<th", '<th role="columnheader"')

    def cells(row: re.Match[str]) -> str:
        columns = iter(names)

        def cell(found: re.Match[str]) -> str:
            column = next(columns, "")
            shows = plain(found[3]) or re.search(r"<(?:img|svg|input)\b", found[3])
            label = f' data-label="{column}"' if column and shows else ""
            role = "rowheader" if found[1] == "th" else "cell"
            return f'<{found[1]} role="{role}"{label}{found[2]}>{found[3]}</{found[1]}>'

        return _CELL.sub(cell, row[0].replace("<tr", '<tr role="row"'))

    rest = _ROW.sub(cells, table[head.end() :])
    table = table[: head.start()] + _ROW.sub(headings, head[0]) + rest
    table = table.replace("<table", '<table data-rows="" role="table"')
    return re.sub(r"<(thead|tbody)\b", r'<\1 role="rowgroup"', table)
