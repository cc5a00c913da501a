"""How answers, triples and events are scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .._arguments import items
from ..tagging import Score
from .cascade import Triple

__all__ = ["answer_score", "event_score", "longest_common_subsequence", "triple_score"]


def longest_common_subsequence(a: Sequence, b: Sequence) -> int:
    """The length of the longest sequence that is left of both when some of their items are struck out.

    Args:
        a: A string, or any sequence.
        b: Another.

    Returns:
        A number between 0 and the length of the shorter one, in O(|a| |b|) steps.

    Raises:
        ValueError: ``a`` or ``b`` has no order, or is no collection.

    Example:
        >>> longest_common_subsequence("abcde", "badge")
        3
    """
    for name, items_in_order in (("a", a), ("b", b)):
        if not hasattr(items_in_order, "__getitem__") or not hasattr(items_in_order, "__len__"):
            raise ValueError(f"{name} must be a sequence, got {items_in_order!r}")
    row = [0] * (len(b) + 1)  # row[j]: of the items of a so far and the first j of b
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def answer_score(gold: Collection[str], predicted: str) -> tuple[float, float]:
    """Exact match and F1 of one answer, the best over the gold answers, as in SQuAD but over characters.

    F1 compares bags of characters: with c in common, 2c/(|gold| + |predicted|). The empty string stands for "no
    answer"; it scores 1 against itself and 0 against all else. Nothing is normalized.

    Args:
        gold: The true answers, any of which will do; none is the same as [""].
        predicted: The answer of the model.

    Returns:
        Exact match, 0 or 1, and F1 in [0, 1]. Average both over the questions.

    Raises:
        ValueError: ``gold`` is no collection of strings, or ``predicted`` no string.

    Source: Rajpurkar et al. 2018 (arXiv 1806.03822); Cui et al. 2019, CMRC 2018 (over characters).

    Example:
        >>> exact, f1 = answer_score(["in 1998", "1998"], "1998年")
        >>> exact, round(f1, 4)
        (0.0, 0.8889)
    """
    if isinstance(gold, str):
        raise ValueError(f"gold must be a collection of answers, got the string {gold!r}")
    gold = items("gold", gold) or [""]
    for name, answers in (("gold", gold), ("predicted", [predicted])):
        for answer in answers:
            if not isinstance(answer, str):
                raise ValueError(f"{name} must be text, got {answer!r}")
    return float(predicted in gold), max(_overlap(answer, predicted) for answer in gold)


def _overlap(a: str, b: str) -> float:
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if a or b else 1.0


def triple_score(gold: Sequence[Iterable[Triple]], predicted: Sequence[Iterable[Triple]]) -> Score:
    """Precision, recall and F1 over the triples of several texts, micro-averaged: all triples weigh the same.

    A triple counts if it is right altogether. Triples of strings serve as well as triples of places.

    Args:
        gold: For each text its true triples; one given twice counts once.
        predicted: For each text, in the same order, the predicted ones.

    Returns:
        The counts, from which the score is computed.

    Raises:
        ValueError: ``gold`` and ``predicted`` differ in their number of texts, or hold something else than triples.

    Example:
        >>> one, other = Triple((0, 2), 0, (3, 4)), Triple((0, 2), 1, (3, 4))
        >>> triple_score([{one, other}, {one}], [{one}, {other}])
        Score(correct=1, predicted=2, gold=3)
    """
    gold, predicted = _sets("gold", gold), _sets("predicted", predicted)
    if len(gold) != len(predicted):
        raise ValueError(f"predicted must have the texts of gold, got {len(predicted)} and {len(gold)} texts")
    texts = zip(gold, predicted, strict=True)
    return sum((Score(len(true & found), len(found), len(true)) for true, found in texts), Score())


def _sets(name: str, texts: Sequence[Iterable[Triple]]) -> list[set[Triple]]:
    """The triples of each text."""
    found = [items(f"{name}[{i}]", triples) for i, triples in enumerate(items(name, texts))]
    for triple in (triple for triples in found for triple in triples):
        if not isinstance(triple, Sequence) or len(triple) != 3:
            raise ValueError(f"{name} must hold triples (subject, predicate, object), got {triple!r}")
    try:
        return [set(triples) for triples in found]
    except TypeError:  # of lists
        raise ValueError(f"{name} must hold triples that can be members of a set, got {texts!r}") from None


def event_score(gold: Mapping[tuple[str, str], str], predicted: Mapping[tuple[str, str], str]) -> Score:
    """The score of the event arguments of one text, with part marks for part of an argument.

    A predicted (type, role) that is in ``gold`` earns 2 LCS(a, â)/(|a| + |â|), where a is the gold argument, â the
    predicted one and LCS the length of their longest common subsequence; if both are empty, it earns 1. With X the
    sum, Y keys predicted and Z gold: P = X/Y, R = X/Z, F1 = 2X/(Y + Z). A mapping has one argument for each (type,
    role): it cannot tell two events of one type apart.

    Args:
        gold: (type, role) → argument.
        predicted: The same of a model.

    Returns:
        X, Y and Z; scores of several texts add up.

    Raises:
        ValueError: ``gold`` or ``predicted`` is no mapping of tuples to strings.

    Source: Su Jianlin, https://github.com/bojone/lic2020_baselines, ``ee.py``.

    Example:
        >>> gold = {("Attack", "Place"): "Rome", ("Attack", "Time"): "1527"}
        >>> event_score(gold, {("Attack", "Place"): "in Rome", ("Attack", "Agent"): "they"})
        Score(correct=0.7272727272727273, predicted=2, gold=2)
    """
    for name, arguments in (("gold", gold), ("predicted", predicted)):
        if not isinstance(arguments, Mapping) or not all(map(_is_argument, arguments.items())):
            raise ValueError(f"{name} must be a mapping of (type, role) to text, got {arguments!r}")
    pairs = [(gold[key], argument) for key, argument in predicted.items() if key in gold]
    correct = sum(2 * longest_common_subsequence(a, b) / (len(a) + len(b)) if a or b else 1 for a, b in pairs)
    return Score(correct, len(predicted), len(gold))


def _is_argument(item: tuple[Any, Any]) -> bool:
    key, text = item
    return isinstance(key, tuple) and isinstance(text, str)
