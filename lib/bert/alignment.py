"""From the tokens of a BERT back to the characters of the raw text, exactly.

A BERT reads a normalized text: lower-cased, without accents (NFD, then no combining marks), without control
characters, every space a plain one. So a token need not occur in the raw text, and its place there has to be
carried along. Here each raw character is normalized by itself, and what it becomes remembers where it came from::

    raw         İ s t a n b u l   U ◌̈ n a l          U and its diaeresis may be one character or two
    normalized  i s t a n b u l   u   n a l

Lower-casing the whole text before its characters are counted goes wrong: "İ".lower() is two characters, and all
that follow would be one place off.

    :func:`normalize`       text → normalized text and the raw character of each of its characters
    :func:`align`           tokens → spans of raw characters
    :func:`token_span`      raw characters → the tokens that cover them
    :func:`character_span`  tokens → the raw characters that they cover

A span (start, end) is half-open: characters start to end − 1 of the raw text, counted as Python counts, by code
point. Everything is plain Python.

Sources: Devlin et al. 2019 (arXiv 1810.04805), ``BasicTokenizer`` of their code; Unicode Standard Annex 15 (NFD);
Su Jianlin, ``Tokenizer.rematch`` of bert4keras, which lower-cases first.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from .._arguments import is_integer, items
from ._unicode import CHINESE, DELETED, LOWER, MARKS, PUNCTUATION, WHOLE

__all__ = ["SPECIAL", "Normalized", "align", "character_span", "normalize", "token_span"]

#: The tokens that stand for no characters, or for unknown ones.
SPECIAL = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


class Normalized(NamedTuple):
    """A normalized text that knows its raw one.

    Attributes:
        text: the normalized text.
        origins: for each character of ``text`` the raw character that it came from; never decreasing.
        ends: for each character of ``text`` the end of its span of raw characters: its origin and the combining
            marks after it that were dropped.
    """

    text: str
    origins: tuple[int, ...]
    ends: tuple[int, ...]

    def raw(self, start: int, end: int) -> tuple[int, int]:
        """The span of raw characters that normalized characters ``start`` to ``end`` − 1 came from.

        It includes dropped combining marks after the last character, as the reader sees them on it, and whatever
        was deleted between the first and the last, but no control characters around them.

        Raises:
            ValueError: not 0 ≤ start < end ≤ len(text).
        """
        _check_range(start, end, len(self.text))
        return self.origins[start], self.ends[end - 1]


def normalize(text: str, *, lower: bool = True, strip_accents: bool = True) -> Normalized:
    r"""Normalizes as BERT does, one raw character at a time.

    In this order: control, format and private characters and U+FFFD are deleted, a line break or any other space
    becomes " ", a character is decomposed (NFD) and its combining marks (category Mn) are dropped, the rest is
    lower-cased. A character may become none, one or several: "é" becomes "e", the syllable "한" three letters.

    It is the text that the ``tokenizers`` library makes, without the spaces that it puts around Chinese characters.
    Like there, and unlike in Python's ``str.lower``, Σ becomes σ at the end of a word too. What a character is, is
    what the library takes it for, whose categories are those of Unicode 8 (2015).

    Args:
        text: the raw text.
        lower: whether to lower-case.
        strip_accents: whether to decompose and drop combining marks.

    Returns:
        The normalized text with the places it came from.

    Raises:
        ValueError: ``text`` is not a text.

    Example:
        >>> normalize("Cafe\u0301 ２")  # the accent is a character of its own, dropped after character 3
        Normalized(text='cafe ２', origins=(0, 1, 2, 3, 5, 6), ends=(1, 2, 3, 5, 6, 7))
        >>> normalize("Cafe\u0301 ２").raw(0, 4)
        (0, 5)
    """
    if not isinstance(text, str):
        raise ValueError(f"text must be a text, got {text!r}")
    pieces: list[tuple[str, int, int]] = []
    for i, character in enumerate(text):
        piece = _normalize_character(character, lower, strip_accents)
        if piece:
            pieces.append((piece, i, i + 1))
        elif pieces and ord(character) in MARKS:
            base, start, _ = pieces[-1]
            pieces[-1] = base, start, i + 1
    return Normalized(
        "".join(piece for piece, _, _ in pieces),
        tuple(start for piece, start, _ in pieces for _ in piece),
        tuple(end for piece, _, end in pieces for _ in piece),
    )


def align(
    text: str,
    tokens: Sequence[str],
    *,
    continuation: str = "##",
    special: Collection[str] = SPECIAL,
    unknown: str = "[UNK]",
    lower: bool = True,
    strip_accents: bool = True,
) -> list[tuple[int, int] | None]:
    """The raw characters of each token.

    No token is searched for. After the spaces that follow the last token, the normalized text must go on with the
    next one: a tokenizer leaves nothing else out. An unknown token stands for a whole word, as in WordPiece: a
    punctuation mark, a Chinese character, or all up to the next of these or a space. So a known token is found in
    its place even if the unknown word before it contains it.

    A special token stands for no characters, except where the text itself has it literally, as in "a [SEP] b".

    Args:
        text: the raw text.
        tokens: its tokens in their order. They may end before the text does.
        continuation: what a token begins with that goes on with a word.
        special: the tokens that get None. Without ``unknown`` among them, an unknown token gets its word.
        unknown: the token that stands for a word outside the vocabulary.
        lower: as in :func:`normalize`; the same as in the tokenizer.
        strip_accents: as ``lower``.

    Returns:
        For each token its span (start, end) of raw characters, or None. Spans are in order and disjoint, except
        that tokens which share one raw character ("한" may give three) each get this character. Normalized, the
        characters of a span are the token, or contain it if it shares one.

    Raises:
        ValueError: ``text`` is not a text, or ``tokens`` no list of texts; the text does not go on with a token,
            since the tokenizer normalizes in another way, or tokens were masked or left out.

    Example:
        >>> raw = "İstanbul Ünal"
        >>> spans = align(raw, ["[CLS]", "istanbul", "una", "##l", "[SEP]"])
        >>> spans
        [None, (0, 8), (9, 12), (12, 13), None]
        >>> [raw[slice(*span)] for span in spans if span]
        ['İstanbul', 'Üna', 'l']
        >>> align("xunal unal", ["[UNK]", "unal"])  # not the one inside the unknown word
        [None, (6, 10)]
    """
    if isinstance(tokens, str):
        raise ValueError(f"tokens must be a list of tokens, got the text {tokens!r}")
    if not isinstance(tokens, Sequence):
        raise ValueError(f"tokens must be a list of tokens, got {tokens!r}")
    if not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"tokens must be texts, got {next(t for t in tokens if not isinstance(t, str))!r}")
    special = items("special", special)
    normalized = normalize(text, lower=lower, strip_accents=strip_accents)
    spans: list[tuple[int, int] | None] = []
    end = 0
    for i, token in enumerate(tokens):
        start = _skip_spaces(normalized.text, end)
        end = _token_end(text, normalized, start, token, continuation, special, unknown)
        if end is None:
            raise ValueError(
                f"tokens[{i}] = {token!r} is not what the text goes on with: {_rest(normalized, start)!r}"
            )
        spans.append(None if token in special else normalized.raw(start, end))
    return spans


def token_span(spans: Sequence[tuple[int, int] | None], start: int, end: int) -> tuple[int, int] | None:
    """The tokens that cover raw characters ``start`` to ``end`` − 1, for labels of tokens.

    Args:
        spans: the raw characters of each token, as :func:`align` returns them, or as the offsets of
            ``tokenizers``, where a token without characters has (0, 0).
        start: the first character.
        end: the character after the last one.

    Returns:
        The first of the tokens that share a character with these, and the one after the last; None if no token
        does, as for characters that were deleted or unknown.

    Raises:
        ValueError: not 0 ≤ start < end, in integers, or ``spans`` holds something else than spans and None.

    Example:
        >>> spans = [None, (0, 8), (9, 12), (12, 13), None]  # İstanbul Üna ##l
        >>> token_span(spans, 9, 13)
        (2, 4)
        >>> token_span(spans, 8, 9) is None
        True
    """
    _check_range(start, end)
    spans = _checked_spans(spans)
    places = [i for i, span in enumerate(spans) if _has_characters(span) and span[0] < end and start < span[1]]
    return (places[0], places[-1] + 1) if places else None


def character_span(spans: Sequence[tuple[int, int] | None], start: int, end: int) -> tuple[int, int] | None:
    """The raw characters that tokens ``start`` to ``end`` − 1 cover, with what lies between them.

    It undoes :func:`token_span` where tokens begin and end with the characters asked for; else it is the smallest
    span of whole tokens around them.

    Args:
        spans: as in :func:`token_span`.
        start: the first token.
        end: the token after the last one.

    Returns:
        The first character and the one after the last; None if no token of these has characters.

    Raises:
        ValueError: not 0 ≤ start < end ≤ len(spans), in integers, or ``spans`` is not as there.

    Example:
        >>> spans = [None, (0, 8), (9, 12), (12, 13), None]  # İstanbul Üna ##l
        >>> character_span(spans, 2, 5)
        (9, 13)
    """
    spans = _checked_spans(spans)
    _check_range(start, end, len(spans))
    inside = [span for span in spans[start:end] if _has_characters(span)]
    return (inside[0][0], inside[-1][1]) if inside else None


def _has_characters(span: tuple[int, int] | None) -> bool:
    return span is not None and span[0] < span[1]


@lru_cache(maxsize=1 << 16)
def _normalize_character(character: str, lower: bool, strip_accents: bool) -> str:
    """What one raw character becomes."""
    if character in "\t\n\r":
        return " "
    code = ord(character)
    if 0xD800 <= code < 0xE000 or any(code in part for part in DELETED):  # no tokenizer takes half a pair
        return ""
    if character.isspace():
        return " "
    if strip_accents:
        decomposed = character if character == WHOLE else unicodedata.normalize("NFD", character)
        character = "".join(part for part in decomposed if ord(part) not in MARKS)
    return LOWER.get(character, character.lower()) if lower else character


def _token_end(
    text: str,
    normalized: Normalized,
    start: int,
    token: str,
    continuation: str,
    special: Collection[str],
    unknown: str,
) -> int | None:
    """Where in the normalized text a token ends that starts at ``start``; None if it cannot start there."""
    if token in special or token == unknown:
        if start < len(normalized.text) and text.startswith(token, normalized.origins[start]):
            return bisect_left(normalized.origins, normalized.origins[start] + len(token))
        return _word_end(normalized.text, start) if token == unknown else start
    piece = token.removeprefix(continuation) or token
    return start + len(piece) if piece and normalized.text.startswith(piece, start) else None


def _word_end(text: str, start: int) -> int | None:
    """Where a word ends; None if the text has ended."""
    if start == len(text):
        return None
    end = start + 1
    if not _is_word(text[start]):
        while end < len(text) and text[end] != " " and not _is_word(text[end]):
            end += 1
    return end


def _is_word(character: str) -> bool:
    """Whether a character is a word by itself: punctuation, which for BERT is all of ASCII's signs, or Chinese."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    code = ord(character)
    return code in PUNCTUATION or any(code in part for part in CHINESE)


def _skip_spaces(text: str, start: int) -> int:
    while text.startswith(" ", start):
        start += 1
    return start


def _rest(normalized: Normalized, start: int) -> str:
    return normalized.text[start : start + 20]


def _checked_spans(spans: Sequence[tuple[int, int] | None]) -> list[tuple[int, int] | None]:
    found = items("spans", spans)
    for span in found:
        integers = span is None or (isinstance(span, Sequence) and len(span) == 2 and all(map(is_integer, span)))
        if not integers:
            raise ValueError(f"spans must be pairs of integers, or None, got {span!r}")
    return found


def _check_range(start: int, end: int, limit: int | None = None) -> None:
    if not (is_integer(start) and is_integer(end)):
        raise ValueError(f"start and end must be integers, got {start!r} and {end!r}")
    if not 0 <= start < end or (limit is not None and end > limit):
        bound = "" if limit is None else f" ≤ {limit}"
        raise ValueError(f"start and end must satisfy 0 ≤ start < end{bound}, got {start} and {end}")
