"""Tokens and raw characters: how often they differ in real texts, and whether every token is found again."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lib.bert import align, normalize

Place = tuple[int, int]

#: Texts whose lower case is longer than they are, with their tokens.
TURKISH = (
    ("İstanbul Ünal", ["istanbul", "unal"]),
    ("İzmir'de kış", ["izmir", "'", "de", "kıs"]),
)


def find_again(text: str, tokens: Sequence[str]) -> list[Place]:
    """Places of tokens by the article's way, which is wrong: it lower-cases the text before it counts characters.

    Example:
        >>> [("İstanbul Ünal"[a:b]) for a, b in find_again("İstanbul Ünal", ["istanbul", "unal"])]
        ['İstanbul ', 'nal']
    """
    copy, origins, end, found = "", [], 0, []
    for i, character in enumerate(text.lower()):
        letters = [c for c in unicodedata.normalize("NFD", character) if unicodedata.category(c) != "Mn"]
        copy, origins = copy + "".join(letters), origins + [i] * len(letters)
    for token in tokens:
        start = copy.index(token, end)
        end = start + len(token)
        found.append((origins[start], origins[end - 1] + 1))
    return found


def surface(tokenizer: Any, lines: Iterable[str]) -> tuple[float, int, int]:
    """How often a token differs from the raw characters that it stands for.

    Args:
        tokenizer: of MiniLM, as :func:`lib.bert.word_pieces` loads it.
        lines: raw texts.

    Returns:
        The share of tokens that differ from their raw characters; how many of them are not the normalized form of
        these either, so that they were misplaced; and how many tokens there are, special and unknown ones left out.

    Example:
        >>> from lib.bert import word_pieces
        >>> from lib.workbench import corpora
        >>> surface(word_pieces(corpora.member("minilm", "tokenizer.json")), ["Call me Ishmael."])  # doctest: +SKIP
        (0.3333333333333333, 0, 6)
    """
    pairs = []
    for line in lines:
        tokens = tokenizer.encode(line).tokens
        places = zip(tokens, align(line, tokens), strict=True)
        pairs += [(token.removeprefix("##"), line[slice(*place)]) for token, place in places if place]
    changed = sum(token != raw for token, raw in pairs)
    misplaced = sum(normalize(raw).text != token for token, raw in pairs)
    return changed / len(pairs), misplaced, len(pairs)


def misread(
    find: Callable[[str, Sequence[str]], Sequence[Place]], cases: Iterable[tuple[str, Sequence[str]]]
) -> int:
    """How many tokens a way back to the raw characters gets wrong.

    Args:
        find: from a text and its tokens to their places in the text.
        cases: texts with their tokens.

    Returns:
        The number of tokens that are not the normalized form of the characters found.

    Example:
        >>> misread(align, [("İstanbul Ünal", ["istanbul", "unal"])])
        0
    """
    return sum(
        normalize(text[slice(*place)]).text != token
        for text, tokens in cases
        for token, place in zip(tokens, find(text, tokens), strict=True)
    )
