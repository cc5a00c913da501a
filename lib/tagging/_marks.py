"""What a label says, whatever the letters of its scheme, and where the tags of a batch begin and end a span.

One relation decides everything. A label *continues* the label before it if it is an inside or last one (I, M, E,
L), the other a first or inside one (B, I, M), and both are of the same kind.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arguments import array_of, items
from ..chain import UNKNOWN
from .schemes import PADDING


class Mark(NamedTuple):
    """What a label says, whatever the letters of its scheme.

    Attributes:
        position: B first, I inside, E last, S single, O none.
        kind: Such as "PER"; empty for a word.
    """

    position: str
    kind: str


OUTSIDE = Mark("O", "")

_LABEL = re.compile("[oO]|([bimelsuBIMELSU])(?:-(.+))?", re.DOTALL)
_SYNONYMS = str.maketrans("MLU", "IES")


def mark_of(name: str, label: str) -> Mark:
    """What a label says; raises ValueError, which names the argument that holds it, if it is none."""
    mark = _mark_of(label) if isinstance(label, str) else None
    if mark is None:
        rule = "a label must be 'O', or B, I, M, E, L, S or U alone or as in 'B-PER'"
        raise ValueError(f"{name} must hold labels, {rule}, got {label!r}")
    return mark


@lru_cache
def _mark_of(label: str) -> Mark | None:
    match = _LABEL.fullmatch(label)
    if match is None:
        return None
    position, kind = match.groups()
    return Mark(position.upper().translate(_SYNONYMS), kind or "") if position else OUTSIDE


def marks_of(alphabet: Sequence[str]) -> list[Mark]:
    """What the labels of an alphabet say; raises ValueError if two say the same."""
    marks = [mark_of("alphabet", label) for label in items("alphabet", alphabet, text=True)]
    if not marks or len(set(marks)) < len(marks):
        raise ValueError(f"alphabet must be distinct labels, at least one, got {alphabet!r}")
    return marks


def continues(previous: Mark, mark: Mark) -> bool:
    """Whether a label continues the one before it."""
    return mark.position in "IE" and previous.position in "BI" and mark.kind == previous.kind


def continuations(marks: Sequence[Mark]) -> NDArray[np.bool_]:
    """[i, j]: whether label j continues label i. The last row and column, which −1 finds, are for padding."""
    marks = [*marks, OUTSIDE]
    return np.array([[continues(previous, mark) for mark in marks] for previous in marks])


def checked_tags(name: str, tags: ArrayLike, count: int, *, unknown: bool = True) -> NDArray[np.int64]:
    """The tags as int64, in which −1 is at home, whatever integers they come as.

    Raises:
        ValueError: They are no integers of shape (batch, time) from −1 to ``count`` − 1, nor −100 if that may be.
    """
    tags = array_of(name, tags)
    if tags.ndim != 2 or not np.issubdtype(tags.dtype, np.integer):
        raise ValueError(f"{name} must be integers of shape (batch, time), got {tags.dtype} of shape {tags.shape}")
    known = tags[tags != UNKNOWN] if unknown else tags
    if known.size and not -1 <= known.min() <= known.max() < count:
        rule = f"lie between -1 and {count - 1}" + f", or be {UNKNOWN}" * unknown
        raise ValueError(f"{name} must {rule}, got {known.min()} to {known.max()}")
    return tags.astype(np.int64)


def known_first(tags: NDArray[np.int64]) -> NDArray[np.intp]:
    """The order (batch, time) of the steps of each row in which those of unknown tags come last."""
    return np.argsort(tags == UNKNOWN, axis=1, kind="stable")


def runs(tags: NDArray[np.int64], marks: Sequence[Mark]) -> tuple[NDArray[np.intp], ...]:
    """Row, start and end of every span of tags without −100, by row and start."""
    continued = continuations(marks)
    inside = np.array([mark != OUTSIDE for mark in [*marks, OUTSIDE]])[tags]
    framed = np.pad(tags, ((0, 0), (1, 1)), constant_values=PADDING)
    joined = continued[framed[:, :-1], framed[:, 1:]]  # joined[:, t]: whether character t continues t − 1
    rows, starts = np.nonzero(inside & ~joined[:, :-1])
    _, lasts = np.nonzero(inside & ~joined[:, 1:])  # as many, since what starts ends before the next starts
    return rows, starts, lasts + 1


def kinds_of(marks: Sequence[Mark]) -> tuple[list[str], NDArray[np.intp]]:
    """The names of the kinds, and for each mark the place of its kind among them, −1 for O."""
    names = sorted({mark.kind for mark in marks if mark != OUTSIDE})
    return names, np.array([names.index(mark.kind) if mark != OUTSIDE else -1 for mark in marks])


def counted_kinds(kinds: Collection[str] | None, names: Sequence[str]) -> NDArray[np.bool_]:
    """For each kind whether it counts; raises ValueError if ``kinds`` is a string or names another kind."""
    kinds = checked_kinds(kinds)
    if kinds is not None and not kinds <= set(names):
        raise ValueError(f"kinds must be among those of the alphabet, {list(names)}, got {sorted(kinds)}")
    return np.array([kinds is None or name in kinds for name in names], bool)


def checked_kinds(kinds: Collection[str] | None) -> set[str] | None:
    """The kinds as a set, None if all count; raises ValueError if they are no collection of strings."""
    if isinstance(kinds, str):
        raise ValueError(f"kinds must be a collection of kinds, got the string {kinds!r}")
    if kinds is None:
        return None
    kinds = items("kinds", kinds)
    if not all(isinstance(kind, str) for kind in kinds):
        raise ValueError(f"kinds must be strings, got {kinds!r}")
    return set(kinds)
