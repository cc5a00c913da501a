"""Which label may follow which: the hard rules of a scheme.

A label continues the label before it if it is an inside or last one (I, M, E, L), the other a first or inside one
(B, I, M), and both are of the same kind. A move is legal if the second label continues the first, or the second
need not continue anything and the first need not be continued.

Source: Ramshaw and Marcus 1995; Xue 2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arguments import items
from ..chain import UNKNOWN
from ._marks import checked_tags, continuations, known_first, marks_of
from .schemes import PADDING

__all__ = ["LegalMoves", "illegal_moves", "legal_moves"]


class LegalMoves(NamedTuple):
    """What a scheme allows, for an alphabet of K labels. A head takes it as its argument ``legal``.

    Attributes:
        transitions: bool (K, K), whether label i may be followed by label j.
        start: bool (K,), whether a sentence may start with a label.
        end: bool (K,), whether it may end with one.
    """

    transitions: NDArray[np.bool_]
    start: NDArray[np.bool_]
    end: NDArray[np.bool_]


def legal_moves(alphabet: Sequence[str]) -> LegalMoves:
    """Which label may follow which, start a sentence and end it.

    In an alphabet with E or S labels (L or U), B and M (or I) must be continued. Without them it is BIO, where a
    span may end after any of its labels. In either, I, M and E must continue something. An alphabet of O and I
    labels only is IO, where every move is legal.

    Args:
        alphabet: The K labels, such as ``SEGMENT_ALPHABET`` or those of :func:`~lib.tagging.alphabet_of`.

    Returns:
        The legal moves, as arrays of bool. Exactly the moves that occur in the labels of some sentence.

    Raises:
        ValueError: A label is malformed or given twice, or could occur in no sentence since its partner is missing.

    Example:
        >>> legal_moves(["s", "b", "m", "e"]).transitions.astype(int)
        array([[1, 1, 0, 0],
               [0, 0, 1, 1],
               [0, 0, 1, 1],
               [1, 1, 0, 0]])
        >>> legal_moves(["O", "B-PER", "I-PER"]).start.tolist()
        [True, True, False]
    """
    alphabet = items("alphabet", alphabet, text=True)
    marks = marks_of(alphabet)
    starts_are_marked = any(mark.position in "BES" for mark in marks)
    ends_are_marked = any(mark.position in "ES" for mark in marks)
    begun = {mark.kind for mark in marks if mark.position == "B"}
    ended = {mark.kind for mark in marks if mark.position == "E"}
    for label, (position, kind) in zip(alphabet, marks, strict=True):
        if position in "IE" and starts_are_marked and kind not in begun:
            raise ValueError(f"alphabet must have the label that begins what {label!r} continues, got {alphabet}")
        if position == "B" and ends_are_marked and kind not in ended:
            raise ValueError(f"alphabet must have the label that ends what {label!r} begins, got {alphabet}")
    needs_next = np.array([mark.position in "BI" and ends_are_marked for mark in marks])
    needs_previous = np.array([mark.position in "IE" and starts_are_marked for mark in marks])
    transitions = continuations(marks)[:-1, :-1] | ~(needs_next[:, None] | needs_previous)
    return LegalMoves(transitions, ~needs_previous, ~needs_next)


def illegal_moves(tags: ArrayLike, alphabet: Sequence[str], boundaries: bool = True) -> int:
    """How many moves of a batch of tags the scheme forbids.

    Args:
        tags: Integers (batch, time): places in ``alphabet``, −1 for padding, −100 for a step to leave out.
        alphabet: The K labels.
        boundaries: Whether the first label of a sentence and its last are moves too. Without, only pairs count.

    Returns:
        The number of illegal moves. A sentence of n labels has n − 1 pairs and two boundaries.

    Raises:
        ValueError: ``tags`` is not of this shape, kind or range, or ``alphabet`` as in :func:`legal_moves`.

    Example:
        >>> illegal_moves([[1, 1, 3], [0, 2, -1]], ["s", "b", "m", "e"])  # b→b, s→m, m at the end
        3
        >>> illegal_moves([[1, 1, 3], [0, 2, -1]], ["s", "b", "m", "e"], boundaries=False)
        2
    """
    transitions, start, end = legal_moves(alphabet)
    tags = checked_tags("tags", tags, len(start))
    tags = np.take_along_axis(np.where(tags == UNKNOWN, PADDING, tags), known_first(tags), axis=1)
    # Index −1 is the last row and column: from and to the outside of the sentence.
    legal = np.pad(transitions, (0, 1), constant_values=True)
    if boundaries:
        legal[-1, :-1], legal[:-1, -1] = start, end
    framed = np.pad(tags, ((0, 0), (1, 1)), constant_values=PADDING)
    return int(np.sum(~legal[framed[:, :-1], framed[:, 1:]]))


# --- arguments ------------------------------------------------------------------------------------------------


def _checked_moves(legal: LegalMoves | ArrayLike | None, count: int) -> LegalMoves | None:
    """Legal moves of all three sorts; an array alone allows every start and every end."""
    if legal is None:
        return None
    if not isinstance(legal, LegalMoves):
        return LegalMoves(_flags("legal", legal, (count, count)), np.ones(count, bool), np.ones(count, bool))
    transitions = _flags("legal.transitions", legal.transitions, (count, count))
    start, end = (_flags(f"legal.{name}", getattr(legal, name), (count,)) for name in ("start", "end"))
    for name, tags in (("start", start), ("end", end)):
        if not tags.any():
            raise ValueError(f"legal.{name} must allow a tag, got none")
    return LegalMoves(transitions, start, end)


def _flags(name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    try:
        flags = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be an array of shape {shape}, got {value!r}") from None
    if flags.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got shape {flags.shape}")
    if not np.isin(flags, (0, 1)).all():
        raise ValueError(
            f"{name} must hold True or 1 for what is legal, False or 0 elsewhere, got {flags.tolist()}"
        )
    return flags.astype(bool)
