"""The exercises of chapter 6: checks, hints and worked solutions."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from lib.bert import align, normalize
from lib.experiments.extraction.places import find_again, misread
from lib.extraction import best_span, event_score, spans_from_pointers
from lib.tagging import Span, disjoint
from lib.workbench.sheets import Problem, Sheet

Pair = tuple[int, int]

#: Texts with the tokens of an uncased tokenizer; lower-casing changes the length of some.
NAMES = (
    ("Ada Lovelace", ["ada", "love", "##lace"]),
    ("İstanbul Ünal", ["istanbul", "unal"]),
    ("İzmir'de kış", ["izmir", "'", "de", "kıs"]),
    ("Café  İİ", ["cafe", "ii"]),
)


def _nearest(starts: list[int], ends: list[int]) -> list[Pair]:
    """Pairs (start, last) by the library, from places."""
    length = max([*starts, *ends], default=0) + 1
    pointers = np.zeros((2, length))
    pointers[0, starts], pointers[1, ends] = 1, 1
    return [(start, end - 1) for start, end in spans_from_pointers(*pointers)]


def _pairs_up(pair: Callable) -> bool:
    rng = np.random.default_rng(6)
    for _ in range(50):
        starts, ends = (sorted(rng.choice(12, rng.integers(0, 6), replace=False).tolist()) for _ in range(2))
        if [tuple(map(int, found)) for found in pair(list(starts), list(ends))] != _nearest(starts, ends):
            return False
    return True


def _solve_1() -> Callable:
    def pair(starts, ends):
        after = [(start, [end for end in ends if end >= start]) for start in starts]
        return [(start, min(some)) for start, some in after if some]

    print(pair([1, 4, 5, 8], [0, 2, 5]))
    return pair


def _is_mispaired(spans: Any) -> bool:
    spans = sorted({(int(start), int(last)) for start, last in spans})
    if not spans or any(not 0 <= start <= last < 12 for start, last in spans):
        return False
    return _nearest([s for s, _ in spans], [e for _, e in spans]) != spans


def _solve_2() -> list[Pair]:
    spans = [(0, 5), (2, 3)]  # the second stands inside the first
    starts, ends = (sorted({span[side] for span in spans}) for side in (0, 1))
    print(f"told {spans}, paired {_nearest(starts, ends)}")
    return spans


def _is_crossed(logits: Any) -> bool:
    logits = np.asarray(logits, "float64")
    if logits.ndim != 2 or logits.shape[1] != 2 or len(logits) > 6:
        return False
    alone = logits.argmax(axis=0)
    start, end, _ = (int(np.asarray(part)[0]) for part in best_span(logits[None], longest=2))
    clear = all(np.diff(np.sort(column)[-2:])[0] > 1e-6 for column in logits.T)
    return bool(clear and alone[1] < alone[0] and start != alone[0] and end != alone[1])


def _solve_3() -> Any:
    logits = np.array([[0, 9.0], [8, 0], [0, 8], [0, 0], [9, -9]])
    logits = np.vstack([logits, [[0, -9]]])  # after the best start there is no end worth having
    start, end, _ = best_span(logits[None], longest=2)
    alone = logits.argmax(axis=0)
    print(f"taken alone {alone[0]} to {alone[1]}, together {int(start[0])} to {int(end[0])}")
    return logits


def _flat(events: Any) -> dict[tuple[str, str], str]:
    return {(kind, role): str(words) for kind, roles in events for role, words in dict(roles).items()}


def _fools_the_metric(pair: Any) -> bool:
    one, other = (sorted((kind, sorted(dict(roles).items())) for kind, roles in events) for events in pair)
    if one == other or not one or not other:
        return False
    gold, found = (_flat(events) for events in pair)
    told = sum(len(dict(roles)) for _, roles in pair[0])
    return event_score(gold, found).f1 == 1 and told == sum(len(dict(roles)) for _, roles in pair[1]) == len(gold)


def _solve_4() -> Any:
    right = [("Binding", {"Theme": "IL-2", "Site": "promoter"})]
    wrong = [("Binding", {"Theme": "IL-2"}), ("Binding", {"Site": "promoter"})]  # two events for one
    print("F1 of the wrong events:", event_score(_flat(right), _flat(wrong)).f1)
    return right, wrong


def _keeps_most(function: Callable) -> bool:
    rng = np.random.default_rng(7)
    for _ in range(30):
        starts = rng.integers(0, 9, rng.integers(0, 7))
        spans = sorted({(int(a), int(a + rng.integers(1, 5))) for a in starts})
        fits = [
            n
            for n in range(len(spans) + 1)
            for some in combinations(spans, n)
            if all(one[1] <= two[0] or two[1] <= one[0] for one, two in combinations(some, 2))
        ]
        if int(function(list(spans))) != max(fits):
            return False
    return True


def _solve_5() -> Callable:
    def most(spans):
        kept, free = 0, 0
        for start, end in sorted(spans, key=lambda span: span[1]):
            if start >= free:
                kept, free = kept + 1, end
        return kept

    spans = [(0, 9), (0, 3), (2, 5), (5, 7), (6, 9)]
    print(most(spans), "by this function,", len(disjoint([Span(*s, "x") for s in spans])), "by the library")
    return most


def _limit(q: float = 0.002, counts: float = 0.5) -> float:
    return math.log(math.log(q) / math.log(counts))


def _solve_6() -> float:
    def way(n, q=0.002):
        logits = [math.log(p ** (1 / n) / -math.expm1(math.log(p) / n)) for p in (q, 0.5)]
        return logits[1] - logits[0]

    for n in (1, 4, 100, 10_000):
        print(f"n = {n:6}: {way(n):.3f} logits")
    return math.log(math.log(0.002) / math.log(0.5))


def _finds(find: Callable) -> bool:
    for text, tokens in NAMES:
        places = [tuple(map(int, place)) for place in find(text, list(tokens))]
        for token, (start, end) in zip(tokens, places, strict=True):
            if (
                normalize(text[start:end]).text != token.removeprefix("##")
                or text[start:end] != text[start:end].strip()
            ):
                return False
    return True


def _solve_7() -> Callable:
    def find(text, tokens):
        copy, origins, end, found = "", [], 0, []
        for i, character in enumerate(text):
            letters = [
                c for c in unicodedata.normalize("NFD", character.lower()) if unicodedata.category(c) != "Mn"
            ]
            copy, origins = copy + "".join(letters), origins + [i] * len(letters)
        for token in tokens:
            token = token.removeprefix("##")
            start = copy.index(token, end)
            end = start + len(token)
            found.append((origins[start], origins[end - 1] + 1))
        return found

    cases = NAMES[1:3]
    print("tokens misread by this function:", misread(find, cases))
    print("by the article's way:", misread(find_again, cases), "· by the library:", misread(align, cases))
    return find


def _solve_8() -> str:
    from lib.workbench import records

    record = records.load("06-extraction", "imbalance", "cpu")
    for treatment in ("plain", "power", "bias"):
        f1 = 100 * np.array(record.column("f1", treatment=treatment))
        print(f"{treatment}: F1 of five seeds after 190 steps", *(f"{value:.0f}" for value in f1))
    return (
        "Train power and bias with Adam and with plain gradient descent, from the same batches and seeds. Lower "
        "the threshold of the bias until both have the same way to go, or scale its logits up. If only the "
        "length of the way matters, the gap closes under Adam when the ways are alike; if the gradient matters, "
        "it stays under gradient descent. Null: the gap is the same in all cells."
    )


SHEET = Sheet(
    [
        Problem(
            "6.1",
            "easy",
            _pairs_up,
            "For one start, which ends come into question? Which of them is the nearest?",
            "The nearest end is the least of those that are not before the start; without one there is no span.",
            _solve_1,
        ),
        Problem(
            "6.2",
            "easy",
            _is_mispaired,
            "Two spans are enough. What does the outer start meet first?",
            "The start of the outer span meets the end of the inner one, and so do both starts. The end of the "
            "outer span is left over: the cascade's pointers overlap freely between subjects and predicates, "
            "and cannot nest within one of them.",
            _solve_2,
        ),
        Problem(
            "6.3",
            "medium",
            _is_crossed,
            "Put the best end first and the best start last, and a good pair in between.",
            "The best start stands near the end of the text, where no end is worth having, and the best end at the "
            "beginning. The pair in between has two second best pointers, and it is the only good pair.",
            _solve_3,
        ),
        Problem(
            "6.4",
            "medium",
            _fools_the_metric,
            "The metric sees a set of (type, role, argument). What does it not see?",
            "Which arguments belong to one event is nowhere in the set. Taking one event apart, or merging two "
            "of a type, changes nothing.",
            _solve_4,
        ),
        Problem(
            "6.5",
            "medium",
            _keeps_most,
            "Which span can be kept without regret: the shortest, the first to begin, or the first to end?",
            "The span that ends first leaves most room for the others, so any solution may take it in place of "
            "its own first span. Take it, drop what overlaps it, go on.",
            _solve_5,
        ),
        Problem(
            "6.6",
            "easy",
            lambda logits: abs(float(logits) - _limit()) < 0.02,
            "For large n the sigmoid has to be close to 1. What is q^(1/n), nearly, and what is its logit?",
            "For large n, q^(1/n) is nearly 1 + log(q)/n, and its logit nearly log(n) − log(−log q). In the "
            "difference of two such logits n drops out.",
            _solve_6,
        ),
        Problem(
            "6.7",
            "hard",
            _finds,
            "Lower-case one raw character at a time, and write down for each letter that comes out whence it came.",
            "The article's way lower-cases first and counts afterwards. Count first: a raw character may give "
            "several letters or none, and all of them remember its place.",
            _solve_7,
        ),
        Problem(
            "6.8",
            "research",
            lambda text: len(str(text).split()) >= 25,
            "Two things differ between power and bias: the gradient, and the way to go. Which optimizer ignores "
            "one?",
            "Cross the two causes. Adam divides a gradient by its size, plain gradient descent does not; a "
            "lower threshold or larger logits shorten the way of the bias. The numbers are those of this "
            "chapter, with Adam.",
            _solve_8,
        ),
    ]
)

check, hint, solution = SHEET.check, SHEET.hint, SHEET.solution
