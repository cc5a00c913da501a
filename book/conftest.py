"""``pytest --nbval`` compares by meaning what a notebook shows with what is stored."""

from __future__ import annotations

from functools import partial

from lib.press import compare
from nbval.plugin import IPyNbCell


def pytest_itemcollected(item) -> None:
    """Put the book's comparison in the place of nbval's, which goes byte by byte."""
    if isinstance(item, IPyNbCell):
        item.compare_outputs = partial(_same, item)


def _same(cell: IPyNbCell, new: list, stored: list) -> bool:
    cell.comparison_traceback = compare.differences(stored, new)
    return not cell.comparison_traceback
