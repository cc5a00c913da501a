"""Two readings of the triples that were counted as wrong, and how far they agree.

``data/judged/06-extraction.json`` has the first reading, ``06-extraction-second.json`` the second, which was made
without the first in sight: :func:`sheet` shows sentences and triples in an order of its own, with no number and no
verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lib.experiments.extraction.relations import duie, predicates
from lib.workbench import corpora, records
from lib.workbench.corpora import DUIE_PREDICATES
from lib.workbench.measure import Estimate

#: What a reader may say of a triple beside its sentence.
VERDICTS = {
    "stated": "the sentence says so, in these words",
    "arguable": "it depends on what the predicate or the name is taken to include",
    "wrong": "the sentence does not say so",
}


class Item(NamedTuple):
    """A triple to be judged.

    Attributes:
        sentence: its number in the test part of DuIE.
        text: the sentence.
        triple: subject, predicate, object as strings.
    """

    sentence: int
    text: str
    triple: tuple[str, str, str]


def rows(reading: str = "") -> list[dict]:
    """The rows of the first reading, or of the one named ``-second``."""
    return records.read_json(corpora.DATA / "judged" / f"06-extraction{reading}.json")["rows"]


def items() -> list[Item]:
    """The triples that were judged, in the order of the test part."""
    found = []
    for row in rows():
        a, b, p, c, d = row["triple"]
        text = duie()["test"][row["sentence"]].text
        found.append(Item(row["sentence"], text, (text[a:b], predicates()[p], text[c:d])))
    return found


def sheet(seed: int = 0) -> str:
    """What a blind reader is given: every sentence with one triple, shuffled, with nothing that tells which it is.

    Answers to the lines, one verdict each in the order of the sheet, are put back in order by :func:`sorted_back`.
    """
    everything = items()
    lines = []
    for place, k in enumerate(np.random.default_rng(seed).permutation(len(everything))):
        subject, predicate, object_ = everything[k].triple
        told = f"[{subject}] {predicate} ({DUIE_PREDICATES[predicate]}) [{object_}]"
        lines.append(f"{place + 1:2}. {everything[k].text}\n    {told}")
    return "\n".join(lines)


def sorted_back(verdicts: Sequence[str], seed: int = 0) -> list[str]:
    """Verdicts given in the order of :func:`sheet`, in the order of :func:`items`.

    Example:
        >>> order = np.random.default_rng(0).permutation(3).tolist()
        >>> [sorted_back([str(k) for k in order])[k] for k in range(3)]
        ['0', '1', '2']
    """
    given: list[str] = [""] * len(verdicts)
    for verdict, k in zip(verdicts, np.random.default_rng(seed).permutation(len(verdicts)), strict=True):
        given[k] = verdict
    return given


def kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Cohen's κ: agreement beyond what the two shares of verdicts give by chance; 1 is full agreement, 0 is chance.

    Example:
        >>> kappa("aabb", "aabb"), kappa("aabb", "abab")
        (1.0, 0.0)
    """
    n = len(one)
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / n
    shares = [Counter(reading) for reading in (one, other)]
    chance = sum(shares[0][verdict] * shares[1][verdict] for verdict in shares[0]) / n**2
    return (agreed - chance) / (1 - chance)


def share_by_sentence(yes: Sequence[bool], sentences: Sequence[int]) -> Estimate:
    """The share of triples that are so, with an interval over sentences: triples of one are not independent.

    The share is a ratio of sums over sentences; its standard error is that of the residuals, with Student's t.

    Example:
        >>> share_by_sentence([True, False, True, False], [1, 2, 3, 4]).value
        0.5
    """
    count, total = Counter(), Counter()
    for one, sentence in zip(yes, sentences, strict=True):
        count[sentence] += bool(one)
        total[sentence] += 1
    share = sum(count.values()) / sum(total.values())
    scale = len(total) / sum(total.values())
    return Estimate.from_samples([share + scale * (count[s] - share * total[s]) for s in total])
