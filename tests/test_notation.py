"""The glossary of the notation page: what it explains is defined where it says, before it is used."""

import re

import pytest

from lib.press import notebooks

ROOT = notebooks.ROOT
CHAPTERS = {int(path.stem.split("-")[0]): path for path in notebooks.chapters()}
PAGE = (ROOT / "book" / "notation.md").read_text(encoding="utf8")
#: Term, meaning, number of the chapter, its file.
ROWS = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| \[(\d+)\]\((\S+)\) \|$", PAGE.split("\n## Terms\n")[1], re.M)
_ITALICS = r"(?<![\w*])\*{1,2}(?![\s*])([^*\n]+?)\*{1,2}(?![\w*])"


def body(path) -> str:
    """A chapter's prose from its first section on, without headings, formulas and code."""
    cells = [cell for cell in notebooks.read(path).cells[2:] if cell.cell_type == "markdown"]
    text = "\n\n".join(cell.source for cell in cells if not cell.source.startswith("**In short**"))
    text = re.sub(r"^#+ .*$", "", text, flags=re.M)
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`", "·", text, flags=re.S)


def is_defined_at_first_use(term: str, text: str) -> bool:
    """Whether the first place that names a term sets it in italics or in bold."""
    first = re.search(rf"\b{re.escape(term)}", text, re.IGNORECASE)
    return first is not None and any(
        mark.start(1) <= first.start() < mark.end(1) for mark in re.finditer(_ITALICS, text)
    )


def defined_terms(text: str) -> list[str]:
    """What a text calls by a name: "is *isotropic* if", "calls it *superposition*", "(*centring*)"."""
    before = r"(?:\b(?:is|are|an?|the|called|calls? it|calls? them|known as|named) |\()"
    after = r"(?: if\b| is one\b| \[?\(|:|\)|,? (?:is|are) (?:an?|the)\b)"
    both = re.findall(rf"{before}\*([^*\n]+)\*(?={after})", text)
    called = re.findall(r"\b(?:called|calls? (?:it|them)|known as) \*([^*\n]+)\*", text)
    begins = re.findall(r"(?<=[.?!] )\*([^*\n]+)\*(?= is one\b| (?:is|are) (?:an?|the)\b)", text)
    colon = re.findall(r"\band (?:after )?\*([^*\n]+)\*(?=:)", text)
    return [*dict.fromkeys([*both, *called, *begins, *colon])]


def test_the_rows_are_read():
    assert len(ROWS) == PAGE.split("\n## Terms\n")[1].count("\n| ") - 1 > 15
    assert len({term for term, *_ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("term", "meaning", "number", "file"), ROWS, ids=[row[0] for row in ROWS])
def test_a_term_is_defined_in_its_chapter_before_it_is_used(term, meaning, number, file):
    path = CHAPTERS[int(number)]
    assert path.name == file
    assert is_defined_at_first_use(term, body(path)), f"{term!r} is used before it is defined in {file}"
    assert 2 <= len(meaning.split()) <= 25


@pytest.mark.parametrize("path", CHAPTERS.values(), ids=lambda path: path.stem)
def test_the_glossary_holds_what_a_chapter_defines(path):
    known = {term.lower() for term, *_ in ROWS}
    assert {term.lower() for term in defined_terms(body(path))} <= known


def test_the_tests_of_terms_can_fail():
    assert is_defined_at_first_use("sieve", "A *sieve* lets pass. A sieve stays.")
    assert is_defined_at_first_use("sieve", "The **old sieve** lets pass.")
    assert not is_defined_at_first_use("sieve", "Sieves let pass. A *sieve* is one.")
    assert not is_defined_at_first_use("sieve", "A *net* lets pass.")
    text = "It is *isotropic* if so. He calls it *packing*. Then (*centring*), and *whitening*: more. *Two* are."
    assert defined_terms(text) == ["isotropic", "centring", "packing", "whitening"]
