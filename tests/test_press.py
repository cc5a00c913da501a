"""The press: what it stores is complete, current and free of the machine; what it stamps, it stamps everywhere."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lib.press import address, execute, notebooks, site

ROOT = notebooks.ROOT
#: What the setup cell does for a real chapter.
IMPORTABLE = "import sys\nsys.path.insert(0, '..')\n"


def chapter(folder: Path, *sources: str, tags: dict[int, list[str]] | None = None) -> Path:
    """A small repository with one chapter of a title, a cost cell and these code cells."""
    (folder / "book").mkdir(exist_ok=True)
    cells = [
        new_markdown_cell("# Title\n\nThesis.", id="title"),
        new_markdown_cell("**Cost:**\n\n**You need:** nothing.", id="cost", metadata={"tags": ["cost"]}),
    ]
    for k, source in enumerate(sources):
        cells.append(new_code_cell(source, id=f"code-{k}", metadata={"tags": (tags or {}).get(k, [])}))
    path = folder / "book" / "01-angles.ipynb"
    notebooks.write(path, new_notebook(cells=cells))
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to(ROOT / "lib")
    return path


def declare(folder: Path, statement: str) -> None:
    """The declaration of the chapter's only claim."""
    file = folder / "data" / "claims" / "01-angles.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    table = ['["1.1"]', f'statement = "{statement}"', "at_most = 1", "counterexample = 2", 'source = "book"']
    file.write_text("\n".join(table), encoding="utf8")


# Notebooks ------------------------------------------------------------------------------------------------


def test_a_stored_notebook_says_nothing_of_the_machine(tmp_path):
    path = chapter(tmp_path, "1")
    metadata = json.loads(path.read_text(encoding="utf8"))["metadata"]
    said = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert metadata == said
    path = chapter(tmp_path, "1", tags={0: ["gpu"]})
    assert json.loads(path.read_text(encoding="utf8"))["metadata"] == {"accelerator": "GPU", **said}
    assert not list(path.parent.glob("*.partial"))


def test_imports_are_followed_through_the_library():
    files = {path.name for path in notebooks.imported_files("import lib.experiments.angles.sampling\nimport numpy")}
    assert {"sampling.py", "laws.py", "records.py", "__init__.py"} <= files
    assert "initializers.py" not in files
    assert notebooks.imported_files("import os") == set()


@pytest.mark.parametrize(
    "source",
    [
        "from lib.experiments.extraction.relations import relations",
        "from lib.experiments.extraction import relations",
        "import lib.experiments.extraction.relations",
    ],
)
def test_imports_are_followed_into_a_package(source):
    package = ROOT / "lib" / "experiments" / "extraction"
    files = notebooks.imported_files(source)
    assert {package / "__init__.py", package / "relations.py", package / "batching.py"} <= files
    assert {ROOT / "lib" / "extraction" / "cascade.py", ROOT / "lib" / "bert" / "layers.py"} <= files
    assert package / "events.py" not in files


def test_imports_are_followed_out_of_a_package_that_gathers_its_modules(tmp_path):
    package = tmp_path / "lib" / "gathered"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from lib.gathered.one import f\n")
    (package / "one.py").write_text("from lib.gathered import two\n")
    (package / "two.py").touch()
    found = notebooks.imported_files("from lib.gathered import f", tmp_path)
    assert {path.name for path in found} == {"__init__.py", "one.py", "two.py"}


def test_the_fingerprint_sees_code_imports_and_records_but_neither_prose_nor_setup(tmp_path):
    shutil.copytree(
        ROOT / "lib" / "workbench", tmp_path / "lib" / "workbench", ignore=shutil.ignore_patterns("__py*")
    )
    sources = ["print('setup')", "from lib.workbench import palette"]
    path = chapter(tmp_path, *sources, tags={0: ["setup"]})
    first = notebooks.fingerprint(path, tmp_path)

    notebook = notebooks.read(path)
    notebook.cells[0].source += " More words."
    notebook.cells[2].source = "print('another address')"
    notebooks.write(path, notebook)
    assert notebooks.fingerprint(path, tmp_path) == first

    changed = {}
    notebook.cells[3].source += "\n1"
    notebooks.write(path, notebook)
    changed["code"] = notebooks.fingerprint(path, tmp_path)
    module = tmp_path / "lib" / "workbench" / "palette.py"
    module.write_text(module.read_text(encoding="utf8") + "\n")
    changed["import"] = notebooks.fingerprint(path, tmp_path)
    record = notebooks.measured(path, tmp_path) / "run.cpu.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    changed["record"] = notebooks.fingerprint(path, tmp_path)
    assert len({first, *changed.values()}) == 4
    record.with_name("execution.cpu.json").write_text("{}")
    assert notebooks.fingerprint(path, tmp_path) == changed["record"]


# Execution ------------------------------------------------------------------------------------------------


def test_executing_twice_changes_nothing_and_an_edit_is_stored(tmp_path):
    sources = [
        f"{IMPORTABLE}import pathlib, time\nfrom lib.workbench.claims import Ledger\n"
        "ledger = Ledger('01-angles', pathlib.Path('../data/claims'))",
        "ledger.check('1.1', 0.5)",
        "print(time.time())\nledger.summary()",
    ]
    path = chapter(tmp_path, *sources, tags={2: ["nbval-ignore-output"]})
    declare(tmp_path, "A.")
    assert execute.execute(path, tmp_path) == "stored"
    record = notebooks.measured(path, tmp_path) / "execution.cpu.json"
    stored = {file: file.read_bytes() for file in (path, record, notebooks.claims(path, tmp_path))}
    assert execute.execute(path, tmp_path) == "unchanged"
    assert stored == {file: file.read_bytes() for file in stored}

    notebook = notebooks.read(path)
    assert [cell.execution_count for cell in notebook.cells[2:]] == [1, 2, 3]
    assert notebook.cells[3].outputs[0].data["text/plain"] == "Claim 1.1 holds: A."
    assert notebook.cells[1].source.startswith("**Cost:** 5 minutes to read · ")
    assert notebook.cells[1].source.endswith("uses no GPU.\n\n**You need:** nothing.")
    assert json.loads(record.read_text(encoding="utf8"))["peak_memory_bytes"] > 2**24

    declare(tmp_path, "B.")
    assert execute.execute(path, tmp_path) == "stored"
    assert json.loads(notebooks.claims(path, tmp_path).read_text(encoding="utf8"))[0]["statement"] == "B."


def test_a_notebook_that_is_no_chapter_is_stored_but_for_what_nobody_runs_for_us(tmp_path):
    first = chapter(tmp_path, f"{IMPORTABLE}print(1)", "raise SystemError", "print(2)", tags={1: ["nbval-skip"]})
    path = first.rename(first.with_name("record-it.ipynb"))
    assert execute.execute(path, tmp_path) == "stored"
    ran, skipped, also = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    assert [ran.execution_count, skipped.execution_count, also.execution_count] == [1, None, 2]
    assert (ran.outputs[0].text, skipped.outputs, also.outputs[0].text) == ("1\n", [], "2\n")
    assert execute.execute(path, tmp_path) == "unchanged"
    assert not notebooks.claims(path, tmp_path).exists()
    assert notebooks.read(path).cells[1].source.startswith("**Cost:**\n")  # nothing was measured


def test_measuring_leaves_the_notebooks_outputs_alone(tmp_path):
    path = chapter(tmp_path, f"{IMPORTABLE}print(1)")
    assert execute.execute(path, tmp_path, measure_only=True) == "measured"
    assert notebooks.read(path).cells[2].outputs == []
    assert (notebooks.measured(path, tmp_path) / "execution.cpu.json").exists()


def test_what_goes_to_stderr_is_not_stored(tmp_path):
    path = chapter(tmp_path, f"{IMPORTABLE}print('careful', file=sys.stderr)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="stderr"):
        execute.execute(path, tmp_path)
    assert path.read_bytes() == before


def test_outputs_are_the_same_but_for_addresses_and_uncompared_cells():
    def notebook(text, tags=()):
        cell = new_code_cell("x", outputs=[new_output("stream", text=text)], metadata={"tags": list(tags)})
        return new_notebook(cells=[cell])

    def changed(old, new):
        return dict(execute.changed_cells(old, new))

    assert changed(notebook("<A at 0x7f1234567890>"), notebook("<A at 0x7fffffffffff>")) == {}
    assert changed(notebook("1"), notebook("2")) == {0: ["stdout: '1' was stored, '2' came"]}
    assert changed(notebook("1", ["nbval-ignore-output"]), notebook("2", ["nbval-ignore-output"])) == {}


def test_the_cost_line_tells_both_devices(tmp_path):
    path = chapter(tmp_path, "1")
    for kind in ("cpu", "gpu"):
        record = {"seconds": 41.4, "peak_memory_bytes": 3 * 2**29, "device": f"a {kind}"}
        file = notebooks.measured(path, tmp_path) / f"execution.{kind}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record))
    assert execute.cost_line(path, tmp_path) == (
        "**Cost:** 5 minutes to read · 41 s and 1.5 GiB to run on a cpu · 41 s and 1.5 GiB to run on a gpu."
    )


@pytest.mark.parametrize(("backend", "told"), [("tensorflow", "not yet run on a GPU"), (None, "uses no GPU")])
def test_the_cost_line_says_what_is_known_of_a_gpu(tmp_path, backend, told):
    path = chapter(tmp_path, "1")
    record = {"seconds": 41.4, "peak_memory_bytes": 2**30, "device": "a cpu", "versions": {"backend": backend}}
    file = notebooks.measured(path, tmp_path) / "execution.cpu.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record))
    assert execute.cost_line(path, tmp_path).endswith(f" on a cpu · {told}.")


def test_the_command_line_runs_the_notebooks_it_is_given(tmp_path, monkeypatch, capsys):
    path = chapter(tmp_path, "1")
    monkeypatch.setattr(sys, "argv", ["execute", str(path), "--measure"])
    monkeypatch.setattr(execute, "execute", lambda path, measure_only: f"{path.name} {measure_only}")
    execute.main()
    assert "01-angles: 01-angles.ipynb True" in capsys.readouterr().out


# Site -----------------------------------------------------------------------------------------------------


def page(folder: Path, document: str, text: str) -> None:
    file = folder / site.SITE / f"{document}.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<nav>{'menu ' * 900}</nav><article>{text}</article>")


def test_a_page_that_is_missing_empty_or_raw_is_found(tmp_path):
    page(tmp_path, "book/01-x", "word " * 900)
    assert site.check("book/01-x", tmp_path) == []
    assert site.check("book/02-x", tmp_path) == ["the page does not exist"]
    page(tmp_path, "book/01-x", "word " * 10 + "<pre>" + "code " * 900 + "</pre>")
    assert site.check("book/01-x", tmp_path) == ["it holds 10 words, fewer than 800"]
    page(tmp_path, "book/notes", "word " * 30 + ":::{note}")
    assert site.check("book/notes", tmp_path) == ["it shows ':::'"]


def test_a_failed_build_and_a_broken_page_stop_with_a_sentence(tmp_path, monkeypatch):
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    outcome = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(site.subprocess, "run", lambda *_, **__: outcome)
    with pytest.raises(site.SiteError, match="book/index: the page does not exist"):
        site.build(tmp_path)
    for document in site.documents(tmp_path):
        page(tmp_path, document, "word " * 900)
    assert site.build(tmp_path) == tmp_path / site.SITE / "index.html"
    outcome.returncode = 1
    with pytest.raises(site.SiteError, match="the build failed"):
        site.build(tmp_path)


def test_a_site_that_is_dressed_anew_is_built_anew(tmp_path, monkeypatch):
    """Sphinx rebuilds a page when its text changes, not when its style sheet or its template does."""
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    for document in site.documents(tmp_path):
        page(tmp_path, document, "word " * 900)
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(site.subprocess, "run", run)

    def builds_all() -> bool:
        site.build(tmp_path)
        return "--all" in commands[-1]

    assert not builds_all()  # no style sheet, no template
    style, template = tmp_path / "_static" / "fonts" / "book.css", tmp_path / "_templates" / "page.html"
    for file in (style, template):
        file.parent.mkdir(parents=True)
        file.touch()
        stamp = (tmp_path / site.STAMP).stat().st_mtime
        os.utime(file, (stamp + 1, stamp + 1))
        assert site.dressed_anew(tmp_path)
        assert builds_all()
        os.utime(file, (stamp - 1, stamp - 1))
        assert not builds_all()
    # Without a stamp nobody knows what the pages were made from.
    (tmp_path / site.STAMP).unlink()
    assert builds_all()
    # A build that failed leaves the stamp as it was.
    stamp = (tmp_path / site.STAMP).stat().st_mtime
    os.utime(style, (stamp + 1, stamp + 1))
    monkeypatch.setattr(site.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(site.SiteError, match="the build failed"):
        site.build(tmp_path)
    assert site.dressed_anew(tmp_path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_site_that_cannot_be_written_is_refused_in_one_sentence(tmp_path, monkeypatch, number):
    def refuse(**_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(site.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(site.subprocess, "run", lambda *_, **__: pytest.fail("the builder was started"))
    with pytest.raises(
        site.SiteError, match=rf"html cannot be written \({os.strerror(number)}\): make room, or copy"
    ):
        site.build(tmp_path)


def test_the_command_line_says_which_page_to_open(monkeypatch, capsys):
    monkeypatch.setattr(site, "build", lambda: Path("index.html"))
    site.main()
    assert capsys.readouterr().out == "The book is built. Open index.html\n"

    def fail():
        raise site.SiteError("no pages")

    monkeypatch.setattr(site, "build", fail)
    with pytest.raises(SystemExit, match="make book: no pages"):
        site.main()


# Address --------------------------------------------------------------------------------------------------


def test_the_address_is_stamped_everywhere_and_unset_without_a_trace(checkout):
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    url = "https://github.com/someone/a-book"
    address.stamp(url + ".git", checkout)
    assert address.address(checkout) == url
    assert f"repository: {{url: {url}," in (checkout / "_config.yml").read_text(encoding="utf8")
    assert f"repository-code: {url}\n" in (checkout / "CITATION.cff").read_text(encoding="utf8")
    for path in notebooks.every(checkout):
        cells = notebooks.read(path).cells
        assert f"github/someone/a-book/blob/main/book/{path.name})" in cells[1].source
        assert f'ADDRESS = "{url}"' in cells[2].source
    address.stamp("", checkout)
    assert {path: path.read_bytes() for path in before} == before


def test_only_github_gets_buttons(checkout):
    address.stamp("file:///somewhere/book.git", checkout)
    assert "launch_buttons" not in (checkout / "_config.yml").read_text(encoding="utf8")
    assert all("colab-badge" not in notebooks.read(path).cells[1].source for path in notebooks.every(checkout))


@pytest.mark.parametrize("url", ["two words", 'a"b', "a\nb"])
def test_what_is_no_address_is_refused(url, tmp_path):
    with pytest.raises(ValueError, match="URL"):
        address.stamp(url, tmp_path)


def test_a_file_without_a_place_for_the_address_is_refused(checkout):
    (checkout / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(ValueError, match=r"pyproject\.toml must hold exactly one place"):
        address.stamp("", checkout)


def test_the_command_line_stamps(monkeypatch, capsys):
    stamped = []
    monkeypatch.setattr(address, "stamp", stamped.append)
    monkeypatch.setattr(sys, "argv", ["address"])
    address.main()
    assert stamped == [""]
    assert capsys.readouterr().out == "The book's address is unset.\n"


def test_notebooks_are_valid():
    for path in notebooks.every():
        nbformat.validate(notebooks.read(path))
