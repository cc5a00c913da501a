"""The small "tested" mark of a proposition, and the page of tests that it leads to.

A proof ends with the name of the test that checks the proposition. On the page of the chapter the name becomes a
mark; the mark leads to the test's source, which stands on a page of the site, so that it opens from the disk too.
"""

from __future__ import annotations

import ast
import html
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lib.press import address, notebooks
from lib.press.generated import Generated, number, plain, title

#: The page of tests, and how a page beside it names it.
PAGE = "tests.html"
_NAMED = re.compile(r"`(tests/\w+\.py)::(\w+)`")
#: The space between the square that ends a proof, a formula, and the mark: no line breaks there.
_AFTER_PROOF = re.compile(r'(?<=</mjx-container></span>) (?=<a class="tested")')
_MARK = re.compile(
    r'Test: <code class="docutils literal notranslate">(<span class="pre">tests/.*?)</code>\.?', re.S
)


@dataclass(frozen=True)
class NamedTest:
    """A test that a chapter names.

    Attributes:
        file: in the repository, such as ``"tests/test_angles.py"``.
        name: of the function.
        of: what it tests: a proposition, or the heading under which it is named.
    """

    file: str
    name: str
    of: str = ""

    @property
    def anchor(self) -> str:
        """Of its source on the page of tests."""
        return f"{Path(self.file).stem}-{self.name}".replace("_", "-")

    @property
    def sentence(self) -> str:
        """What it is named for."""
        return self.name.removeprefix("test_").replace("_", " ")

    def source(self, root: Path = notebooks.ROOT) -> tuple[str, int]:
        """Its code with its decorators, and the line on which it starts.

        Raises:
            ValueError: the file has no such function.
        """
        lines, found = _functions(root / self.file)
        if self.name not in found:
            raise ValueError(f"{self.file} has no test {self.name}")
        first, last = found[self.name]
        return "\n".join(lines[first - 1 : last]), first


@cache
def _functions(file: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """The lines of a file, and where its functions begin and end."""
    text = file.read_text(encoding="utf8")
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    starts = {node.name: min(part.lineno for part in (node, *node.decorator_list)) for node in found}
    return text.split("\n"), {node.name: (starts[node.name], node.end_lineno) for node in found}


def named(path: Path) -> list[NamedTest]:
    """The tests that a chapter names, each once, in its order."""
    found: dict[tuple[str, str], NamedTest] = {}
    text = "\n\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")
    section = ""
    for part in re.split(r"^(?=#+ )", text, flags=re.M):
        marks, _, of = part.split("\n")[0].partition(" ")
        section = of if marks == "##" else section
        for paragraph in part.split("\n\n"):
            tests = _NAMED.findall(paragraph)
            for file, name in tests:
                found.setdefault((file, name), NamedTest(file, name, of))
            if tests and of.startswith("Proposition"):  # it has been tested; what follows belongs to its section
                of = section
    return [*found.values()]


class SourcesOfTests(Generated):
    """``tests``: the source of every test that a chapter names."""

    def sources(self) -> list[Path]:
        """The chapters and the files of the tests."""
        files = {notebooks.ROOT / test.file for path in notebooks.chapters() for test in named(path)}
        return [*notebooks.chapters(), *sorted(files)]

    def markdown(self) -> list[str]:
        """A heading a chapter; a line that names the test and what it is for, and its code."""
        lines, url = [], address.address()
        for path in notebooks.chapters():
            tests = named(path)
            if tests:
                lines += [f"## [Chapter {number(path)}: {title(path)}]({path.name})", ""]
            for test in tests:
                source, line = test.source()
                place = f"`{test.file}::{test.name}`"
                if address.is_github(url):
                    place = f"[{place}]({url}/blob/main/{test.file}#L{line})"
                lines += [
                    f"[**{test.of}**]{{#{test.anchor}}}: {place}",
                    "",
                    "```python",
                    *source.split("\n"),
                    "```",
                    "",
                ]
        return lines


def marked(body: str) -> str:
    """The HTML of a chapter whose named tests are marks that lead to their source."""

    def mark(match: re.Match[str]) -> str:
        file, name = plain(match[1]).split("::")
        test = NamedTest(file, name)
        told = html.escape(f"tested: {test.sentence}", quote=True)
        return (
            f'<a class="tested" href="{PAGE}#{test.anchor}" title="{told}" aria-label="{told}" '
            f'data-test="{file}::{name}">tested</a>'
        )

    return _AFTER_PROOF.sub("&#160;", _MARK.sub(mark, body))


def breakable(body: str) -> str:
    """HTML in which long names may break: of tests after an underscore or a slash, of what is in lib after a dot.

    Example:
        >>> breakable('<code><span class="pre">tests/test_a.py::test_b</span></code>')
        '<code><span class="pre">tests/<wbr>test_<wbr>a.py::<wbr>test_<wbr>b</span></code>'
        >>> breakable('<code>lib.crf.CRF</code>')
        '<code>lib.<wbr>crf.<wbr>CRF</code>'
    """
    body = re.sub(
        r"(<code\b[^>]*>(?:<span class=\"pre\">)?)((?:\w+\.){2,})(?=\w)",
        lambda match: match[1] + match[2].replace(".", ".<wbr>"),
        body,
    )
    return re.sub(
        r"(<code\b[^>]*>(?:<span class=\"pre\">)?)(tests/[\w./:]+)",
        lambda match: match[1] + re.sub(r"(::|[_/])", r"\1<wbr>", match[2]),
        body,
    )
