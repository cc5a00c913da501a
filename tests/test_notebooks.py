"""The chapters as files: stored outputs are complete and current, and read the same everywhere."""

import ast
import importlib
import json
import re

import pytest

from lib.press import address, execute, notebooks
from lib.workbench.claims import declared

ROOT = notebooks.ROOT
CHAPTERS = notebooks.chapters()
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def prose(path) -> str:
    return "\n\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")


def test_there_are_chapters_and_the_book_lists_them_all():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf8")
    assert [path.stem for path in CHAPTERS] == re.findall(r"book/(\d\d-\w+)", toc) != []


@pytest.mark.parametrize("path", notebooks.every(), ids=lambda path: path.stem)
def test_colab_is_asked_for_a_gpu_where_a_cell_needs_one(path):
    # An accelerator that nobody uses is one that somebody else waits for.
    notebook = notebooks.read(path)
    needs = any(notebooks.ON_GPU in notebooks.tags(cell) for cell in notebook.cells)
    assert notebook.metadata.get("accelerator") == ("GPU" if needs else None)
    assert needs == (path not in CHAPTERS)
    assert "gpuType" not in path.read_text(encoding="utf8")


def test_the_notebook_that_records_on_a_gpu_is_short_and_knows_the_way_to_a_pull_request():
    path = ROOT / "book" / "record-on-a-gpu.ipynb"
    cells = notebooks.code(notebooks.read(path))
    assert sum(len(cell.source.splitlines()) for cell in cells) <= 20
    assert notebooks.read(path).cells[2].source == address.SETUP_CELL.format(address=address.address())
    assert "pull request" in prose(path)
    # nbval leaves out what would record for minutes wherever there is a GPU.
    assert [notebooks.tags(cell) for cell in cells if "lib.press.gpu" in cell.source] == [["gpu", "nbval-skip"]]
    ran = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    ran = [cell for cell in ran if notebooks.SKIPPED not in notebooks.tags(cell)]
    assert [cell.execution_count for cell in ran] == [*range(1, len(ran) + 1)]


@every_chapter
def test_a_chapter_is_named_after_its_module_and_its_experiments(path):
    idea = path.stem.split("-")[1]
    assert idea in notebooks.ideas()
    assert [*(ROOT / "tests").glob(f"test_{idea}*.py")]
    assert (ROOT / "tests" / f"test_experiments_{idea}.py").is_file()
    # A module, or a package that can be run.
    experiments = ROOT / "lib" / "experiments" / idea
    assert experiments.with_suffix(".py").is_file() != (experiments / "__main__.py").is_file()


@every_chapter
def test_every_code_cell_was_run_in_order(path):
    # A cell without a count is run but not compared by nbval: it would only look tested.
    counts = [cell.execution_count for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@every_chapter
def test_no_output_holds_an_error_or_a_warning(path):
    for cell in notebooks.code(notebooks.read(path)):
        for output in cell.outputs:
            assert output.get("name") != "stderr"
            assert output.output_type != "error"
            # Some libraries write their warnings to stdout.
            for text in (output.get("text", ""), output.get("data", {}).get("text/plain", "")):
                assert not re.search(r"warning\s*:|\bretracing\b|\bdeprecated\b", text, re.IGNORECASE), text


@every_chapter
def test_what_is_stored_is_current(path):
    # Stale means: the code, what it imports or its recorded runs have changed since `make execute`.
    record = json.loads((notebooks.measured(path) / "execution.cpu.json").read_text(encoding="utf8"))
    assert record["fingerprint"] == notebooks.fingerprint(path), "stale: run `make execute`"


@every_chapter
def test_claims_are_numbered_recorded_and_shown(path):
    number = str(int(path.stem.split("-")[0]))
    claims = json.loads(notebooks.claims(path).read_text(encoding="utf8"))
    assert [claim["id"] for claim in claims] == [f"{number}.{k}" for k in range(1, len(claims) + 1)] != []
    shown = [
        output.get("data", {}).get("text/plain")
        for cell in notebooks.code(notebooks.read(path))
        for output in cell.outputs
        if notebooks.UNCOMPARED not in notebooks.tags(cell)
    ]
    for claim in claims:
        assert f"Claim {claim['id']} {claim['verdict']}: {claim['statement']}" in shown
        assert set(claim) >= {"value", "interval", "band", "counterexample", "tier", "device"}


@every_chapter
def test_every_claim_is_checked_by_a_measurement(path):
    # A number typed as the measured value would be a hard-coded verdict.
    for cell in notebooks.code(notebooks.read(path)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("claims.claim", "claims.check", "Check"):
                measured = node.args[2 if ast.unparse(node.func) == "claims.claim" else 1]
                assert any(isinstance(part, ast.Name) for part in ast.walk(measured)), ast.unparse(node)


@every_chapter
def test_every_figure_has_alternative_text_of_its_own(path):
    alts = []
    for cell in notebooks.code(notebooks.read(path)):
        images = [output.data for output in cell.outputs if "image/svg+xml" in output.get("data", {})]
        told = [
            re.match(r'<svg role="img" aria-label="([^"]+)"', "".join(data["image/svg+xml"])) for data in images
        ]
        if images and not all(told):
            assert len(images) == 1, "one figure a cell"
            alts.append(cell.metadata["mystnb"]["image"]["alt"])
        else:
            alts += [text[1] for text in told]
    assert all(len(alt.split()) >= 8 for alt in alts)
    assert len(set(alts)) == len(alts)


@every_chapter
def test_figures_are_numbered_in_order_and_have_a_caption(path):
    number = str(int(path.stem.split("-")[0]))
    found = []
    for cell in notebooks.code(notebooks.read(path)):
        captions = [
            "".join(output.data["text/markdown"])
            for output in cell.outputs
            if "".join(output.get("data", {}).get("text/markdown", "")).startswith("**Figure ")
        ]
        shows = any(
            "image/svg+xml" in output.get("data", {})
            or 'class="explorable"' in output.get("data", {}).get("text/html", "")
            for output in cell.outputs
        )
        assert shows == (notebooks.FIGURE in notebooks.tags(cell)) == (len(captions) == 1), cell.source
        found += captions
    assert [re.match(r"\*\*Figure (\S+)\.\*\*", caption)[1] for caption in found] == [
        f"{number}.{k}" for k in range(1, len(found) + 1)
    ]
    assert all(len(caption.split()) >= 12 for caption in found)


@every_chapter
def test_a_reader_sees_ideas_and_little_code(path):
    notebook = notebooks.read(path)
    lines = [len([line for line in cell.source.split("\n") if line.strip()]) for cell in notebooks.seen(notebook)]
    assert sum(lines) <= 100
    assert max(lines) <= 12
    for cell in notebooks.code(notebook):
        roles = {notebooks.FIGURE, notebooks.CLAIM} & {*notebooks.tags(cell)}
        assert len(roles) <= 1
        assert ("claims.check(" in cell.source) == (notebooks.CLAIM in roles), cell.source
        if roles:
            assert cell.metadata["jupyter"]["source_hidden"] is True
            assert cell.metadata["mystnb"]["code_prompt_show"].startswith("Code of ")


@every_chapter
def test_a_chapter_makes_at_most_twelve_claims(path):
    assert 1 <= len(declared(path.stem)) <= 12


@every_chapter
def test_the_first_figure_comes_before_the_first_heading(path):
    cells = [
        cell for cell in notebooks.read(path).cells[2:] if {"setup", "imports"}.isdisjoint(notebooks.tags(cell))
    ]
    assert notebooks.FIGURE in notebooks.tags(cells[0])
    assert cells[1].source.startswith("**In short**")
    assert len(re.findall(r"^\d\. ", cells[1].source, re.M)) == 3


@every_chapter
def test_nothing_in_sight_gives_an_answer_away(path):
    sheet = importlib.import_module(f"lib.experiments.{path.stem.split('-')[1]}.exercises").SHEET
    cells = [cell for cell in notebooks.read(path).cells if {"solution"}.isdisjoint(notebooks.tags(cell))]
    exercises = "\n".join(cell.source for cell in cells if "exercise" in notebooks.tags(cell))
    assert re.findall(r'exercises\.check\("(\S+)", answer\)', exercises) == [*sheet.exercises]
    assert re.sub(r'answer = \.\.\.\s+exercises\.check\("\S+", answer\)', "", exercises).strip() == ""
    for cell in notebooks.read(path).cells:
        if "solution" in notebooks.tags(cell):
            assert "<details" in cell.outputs[-1].data["text/html"]
            assert "<p>" not in cell.outputs[-1].data["text/plain"]
    assert 6 <= len(sheet.exercises) <= 8
    assert [problem.level for problem in sheet.exercises.values()][-1] == "research"


@every_chapter
def test_cells_stay_short(path):
    sources = [cell.source for cell in notebooks.code(notebooks.read(path))]
    lines = [len([line for line in source.split("\n") if line.strip()]) for source in sources]
    assert max(lines) <= 25
    assert sorted(lines)[len(lines) // 2] <= 10
    assert sum(lines) <= 250


@every_chapter
def test_a_notebook_reads_the_same_everywhere(path):
    # No MyST directive or role: Colab and GitHub would show it raw. `\\` beside `\tag` breaks MathJax on the page.
    text = prose(path)
    assert not re.search(r"^:::|^```\{|\{[a-z:-]+\}`", text, re.M)
    for formula in re.findall(r"\$\$.*?\$\$", text, re.S):
        assert not ("\\tag" in formula and "\\\\" in formula), formula
    assert not re.search(r"/(home|root|Users|content)/", text), "a path of somebody's machine"
    assert "http" not in "".join(cell.source for cell in notebooks.code(notebooks.read(path)))


@every_chapter
def test_every_chapter_has_the_same_shape(path):
    headings = re.findall(r"^## (.+)$", prose(path), re.M)
    assert headings[0] == "The question"
    assert headings[-5:] == ["Claims", "Summary", "Beyond the article", "Exercises", "Sources"]
    first, cost, setup = notebooks.read(path).cells[:3]
    assert re.fullmatch(r"# .+\n\n.+", first.source), "title and one-sentence thesis"
    assert notebooks.COST in notebooks.tags(cost)
    assert "**You need:**" in cost.source
    assert notebooks.tags(setup) == [notebooks.SETUP, "remove-cell"]


@every_chapter
def test_the_setup_cell_is_the_stamped_one(path):
    cell = notebooks.read(path).cells[2]
    assert cell.source == address.SETUP_CELL.format(address=address.address())


@every_chapter
def test_the_cost_line_is_the_measured_one(path):
    assert notebooks.read(path).cells[1].source.split("\n")[0] == execute.cost_line(path)


@every_chapter
def test_every_proposition_names_a_test_that_exists(path):
    text = prose(path)
    number = str(int(path.stem.split("-")[0]))
    propositions = re.findall(r"^### Proposition (\S+)$", text, re.M)
    assert propositions == [f"{number}.{k}" for k in range(1, len(propositions) + 1)] != []
    for part in re.split(r"^### Proposition ", text, flags=re.M)[1:]:
        assert re.search(r"Test: `tests/\w+\.py::\w+`", part), f"Proposition {part[:4]} names no test"
    for file, name in re.findall(r"`(tests/\w+\.py)::(\w+)`", text):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf8"), re.M), f"{file}::{name}"


@every_chapter
def test_numbered_formulas_are_counted_without_gaps_and_referred_to_correctly(path):
    number = str(int(path.stem.split("-")[0]))
    text = prose(path)
    tags = re.findall(r"\\tag\{(.+?)\}", text)
    assert tags == [f"{number}.{k}" for k in range(1, len(tags) + 1)]
    assert {f"({ref})" for ref in re.findall(rf"\(({number}\.\d+)\)", text)} <= {f"({tag})" for tag in tags}


@every_chapter
def test_every_source_stands_in_the_bibliography(path):
    known = (ROOT / "book" / "references.bib").read_text(encoding="utf8")
    for link in re.findall(r"\]\((https?://[^)]+)\)", prose(path)):
        if "colab" not in link:
            identifier = link.removeprefix("https://doi.org/").removeprefix("https://arxiv.org/abs/")
            assert identifier in known, link


def test_every_entry_of_the_bibliography_is_used():
    used = "".join(prose(path) for path in CHAPTERS)
    used += "".join(path.read_text(encoding="utf8") for path in sorted((ROOT / "lib").rglob("*.py")))
    for entry in (ROOT / "book" / "references.bib").read_text(encoding="utf8").split("@")[1:]:
        links = re.findall(r"(?:url|doi|eprint) = \{([^}]+)\}", entry)
        assert any(link in used for link in links), entry.split(",")[0]
