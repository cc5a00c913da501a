"""The page of corrections: what the articles got wrong, and right.

It lists the claims that are declared as an article's statement, and nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lib.press import notebooks
from lib.press.generated import Generated, anchor, load, number, raw, title
from lib.workbench import cards

#: The parts of the page: heading, the verdicts that belong there, how they are counted. The first two are always
#: there.
PARTS = (
    ("What they got wrong", ("corrected", "refuted"), "wrong"),
    ("What they got right", ("holds", "reproduced here"), "right"),
    ("What we found otherwise, in another setting", ("not reproduced here",), "found otherwise in another setting"),
    ("What is not decided", ("undecided",), "not decided"),
)
_ARTICLE = re.compile(r"\]\((https://kexue\.fm/archives/\d+)\)")


def of_articles(path: Path) -> list[dict[str, Any]]:
    """The claims of a chapter that are declared as its article's."""
    return [claim for claim in load(notebooks.claims(path)) or [] if claim.get("source", "").startswith("article")]


def article(path: Path) -> str:
    """The address of the article behind a chapter: the first that its sources name.

    Raises:
        ValueError: they name none.
    """
    text = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")
    found = _ARTICLE.search(text.split("\n## Sources\n")[-1])
    if found is None:
        raise ValueError(f"{path.name}: the sources must name the article behind the chapter")
    return found[1]


class Corrections(Generated):
    """``corrections``: every declared statement of an article: what was said, what is true, where it is shown."""

    def markdown(self) -> list[str]:
        """A sentence that counts, then a part for the wrong, the right and the open."""
        found = {path: of_articles(path) for path in notebooks.chapters()}
        claims = [claim for one in found.values() for claim in one]
        numbers = [sum(claim["verdict"] in verdicts for claim in claims) for _, verdicts, _ in PARTS]
        counts = [f"{n} {told}" for (k, n), (*_, told) in zip(enumerate(numbers), PARTS, strict=True) if n or k < 2]
        articles = sum(bool(one) for one in found.values())
        silent = [number(path) for path, one in found.items() if not one]
        without = f" No claim of chapter {' or '.join(silent)} is a statement of its article." if silent else ""
        lines = [
            f"**{len(claims)} statement{'s' * (len(claims) != 1)} of {articles} article{'s' * (articles != 1)}:** "
            f"{', '.join(counts)}.{without}",
            "",
        ]
        for k, (heading, verdicts, _) in enumerate(PARTS):
            listed = [(path, claim) for path, one in found.items() for claim in one if claim["verdict"] in verdicts]
            if listed or k < 2:
                lines += [f"## {heading}", "", *([] if listed else ["Nothing.", ""])]
            for path in dict.fromkeys(path for path, _ in listed):
                lines += [f"**[{number(path)}. {title(path)}]({path.name})** · [the article]({article(path)})", ""]
                lines += raw("\n".join(_card(path, claim) for one, claim in listed if one == path))
        return lines


def _card(path: Path, claim: dict[str, Any]) -> str:
    true = "What holds here:" if claim["verdict"] == "not reproduced here" else "What is true:"
    return cards.card(claim, anchor(path, claim["id"]), ("What was said:", true))
