"""The student's edition: no solution is left, nothing that runs is lost, and every link leads somewhere."""

import re
import subprocess
import symtable
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.press import notebooks, student

ROOT = notebooks.ROOT
every_chapter = pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)


def example():
    """A chapter with an exercise of each kind and its solution."""
    code = [new_output("stream", text="no answer yet\n")]
    solved = [new_output("execute_result", data={"text/html": "<details>42</details>"}, execution_count=3)]
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Title\n\nThesis.\n\n[![Open in Colab](badge.svg)](https://colab.example)"),
            new_markdown_cell(
                "## Exercises\n\nHints help. Solutions are folded; open one. [Terms](notation.md#terms)."
            ),
            new_code_cell("answer = ...\nprint('no answer yet')", outputs=code, execution_count=1),
            new_code_cell(
                "exercises.solution('1.1')", metadata={"tags": ["solution"]}, outputs=solved, execution_count=2
            ),
            new_markdown_cell("**Exercise 1.2.** Why? The solution shows one way. See [2](02-x.ipynb)."),
            new_code_cell("print(answer is ...)", execution_count=3),
            new_markdown_cell("## Sources\n\nThe solution of Gauss. [Gauss](https://example.org/a.md)"),
        ]
    )
    for position, cell in enumerate(notebook.cells):
        cell.id = f"cell-{position}"  # by itself random, and one file in six would have a 42 in a name
    return notebook


def test_solutions_and_what_speaks_of_them_are_gone():
    edited = student.edition(example())
    assert "42" not in nbformat.writes(edited)
    assert [cell.source for cell in edited.cells] == [
        "# Title\n\nThesis.",
        "## Exercises\n\nHints help. [Terms](../../book/notation.md#terms).",
        "answer = ...\nprint('no answer yet')",
        "**Exercise 1.2.** Why? See [2](02-x.ipynb).",
        "print(answer is ...)",
        "## Sources\n\nThe solution of Gauss. [Gauss](https://example.org/a.md)",
    ]
    assert [cell.execution_count for cell in edited.cells if cell.cell_type == "code"] == [1, 2]


def test_the_chapter_itself_stays_as_it_was():
    before = example()
    sources = [cell.source for cell in before.cells]
    student.edition(before)
    assert [cell.source for cell in before.cells] == sources
    assert before.cells[3].outputs[0].execution_count == 3


def test_an_edition_runs():
    edited = student.edition(example())
    NotebookClient(edited, timeout=60, kernel_name="python3").execute()
    assert edited.cells[4].outputs[0].text == "True\n"


def names(table: symtable.SymbolTable, what: str) -> set[str]:
    """The global names that code binds (``"assigned"``) or reads (``"referenced"``), its functions included."""
    top = table.get_type() == "module"
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if getattr(symbol, f"is_{what}")() and (top or symbol.is_global())
    }
    return found.union(*(names(inner, what) for inner in table.get_children()))


@every_chapter
def test_no_code_that_stays_needs_a_solution(path):
    """A name that a solution alone binds is read by no other cell."""
    cells = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    solutions = [cell.source for cell in cells if student.is_solution(cell)]
    kept = [cell.source for cell in cells if not student.is_solution(cell)]
    assert solutions
    tables = [[symtable.symtable(source, "cell", "exec") for source in sources] for sources in (solutions, kept)]
    only = set().union(*(names(table, "assigned") for table in tables[0]))
    only -= set().union(*(names(table, "assigned") for table in tables[1]))
    assert not only & set().union(*(names(table, "referenced") for table in tables[1]))


@every_chapter
def test_no_solution_is_left_in_a_chapter(path):
    edited = student.edition(notebooks.read(path))
    text = nbformat.writes(edited)
    assert not re.search(r'class=\\"solution\\"|exercises\.solution\(|# Solution', text)
    exercises = "\n".join(cell.source for cell in edited.cells if cell.cell_type == "markdown")
    exercises = exercises.split("## Exercises")[1].split("\n## ")[0]
    assert not re.search(r"\b(?:S|The s)olutions?\b", exercises)
    nbformat.validate(edited)


def test_the_command_writes_every_chapter_where_it_runs_and_its_links_lead_somewhere(tmp_path):
    for name in ("book", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    written = student.write(tmp_path)
    assert [path.name for path in written] == [path.name for path in notebooks.chapters()]
    for path in written:
        for cell in notebooks.read(path).cells:
            for target in re.findall(
                r"\]\((?![a-z]+:|#)([^)#]+)", cell.source if cell.cell_type == "markdown" else ""
            ):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_make_knows_the_command():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^make student +write the notebooks without solutions", shown, re.M)


def test_the_command_line_says_where_they_lie(monkeypatch, capsys):
    monkeypatch.setattr(student, "write", lambda: [1, 2])
    monkeypatch.setattr(sys, "argv", ["student"])
    student.main()
    assert capsys.readouterr().out == "2 notebooks without solutions lie in _build/student.\n"
