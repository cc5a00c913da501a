"""JupyterLab saves a chapter through its contents manager: what a reader did not change stays as it is stored."""

from __future__ import annotations

import asyncio
import copy
from types import SimpleNamespace

import pytest
from jupyter_server.serverapp import ServerApp, flags
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyterlab.labapp import LabApp
from nbformat import v4
from nbformat.sign import NotebookNotary

from lib.press import lab, notebooks

SLIDER = '<input type="range" oninput="this.value">'


def text(output):
    return v4.new_output("stream", name="stdout", text=output)


def html(output):
    return v4.new_output("execute_result", {"text/html": output, "text/plain": "A"}, execution_count=3)


@pytest.fixture
def chapter(tmp_path):
    """A chapter on the disk as `make execute` writes it: prose, three cells, a folded solution."""
    folded = {"jupyter": {"source_hidden": True}, "tags": [notebooks.SOLUTION]}
    cells = [
        v4.new_markdown_cell("# Title", id="prose"),
        v4.new_code_cell("one", id="one", execution_count=1, outputs=[text("an object at 0x7f0000000001\n")]),
        v4.new_code_cell(
            "clock",
            id="clock",
            execution_count=2,
            outputs=[text("1.1 s\n")],
            metadata={"tags": [notebooks.UNCOMPARED]},
        ),
        v4.new_code_cell("slider", id="slider", execution_count=3, outputs=[html(SLIDER)]),
        v4.new_code_cell("42", id="solution", execution_count=4, outputs=[text("right.\n")], metadata=folded),
    ]
    path = tmp_path / "book" / "01-angles.ipynb"
    path.parent.mkdir()
    notebooks.write(path, v4.new_notebook(cells=cells))
    return path


@pytest.fixture
def server(chapter):
    return Server(chapter.parents[1])


class Server:
    """The contents manager of JupyterLab at a repository, watched by a keeper of its own."""

    def __init__(self, root):
        (root / "signatures").mkdir(exist_ok=True)
        notary = NotebookNotary(data_dir=str(root / "signatures"))
        self.manager = AsyncLargeFileManager(root_dir=str(root), notary=notary)
        lab.Keeper(root).watch(self.manager)

    def open(self, path="book/01-angles.ipynb"):
        return asyncio.run(self.manager.get(path))["content"]

    def save(self, content, path="book/01-angles.ipynb"):
        model = {"type": "notebook", "format": "json", "content": copy.deepcopy(content)}
        asyncio.run(self.manager.save(model, path))


def run_all(content):
    """The notebook as Lab holds it after "Run All Cells": new counts, times, addresses, clocks."""
    content = copy.deepcopy(content)
    content.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "version": "3.13.1", "file_extension": ".py"},
    }
    for count, cell in enumerate((cell for cell in content.cells if cell.cell_type == "code"), start=7):
        cell.execution_count = count
        cell.metadata |= {"execution": {"iopub.execute_input": "2025-01-01"}, "trusted": True}
        cell.metadata |= {"scrolled": True, "collapsed": False}
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = output.text.replace("0x7f0000000001", "0x7fffffffffff").replace("1.1 s", "2.5 s")
            else:
                output.execution_count = count
    content.cells[4].metadata.pop("jupyter", None)  # the reader unfolded the solution
    return content


def cell_of(path, name):
    return next(cell for cell in notebooks.read(path).cells if cell.id == name)


def test_run_all_and_save_leaves_the_file_as_it_was(chapter, server):
    before = chapter.read_bytes()
    for _ in range(2):
        server.save(run_all(server.open()))
        assert chapter.read_bytes() == before


def test_without_the_keeper_the_file_would_change(chapter, tmp_path):
    before = chapter.read_bytes()
    manager = AsyncLargeFileManager(root_dir=str(tmp_path))
    content = asyncio.run(manager.get("book/01-angles.ipynb"))["content"]
    asyncio.run(manager.save({"type": "notebook", "content": run_all(content)}, "book/01-angles.ipynb"))
    assert chapter.read_bytes() != before


def test_a_save_in_the_middle_of_a_run_is_mended_by_the_next(chapter, server):
    before, ran = chapter.read_bytes(), run_all(server.open())
    running = copy.deepcopy(ran)
    running.cells[1].outputs = [text("an obj")]
    running.cells[2].outputs, running.cells[2].execution_count = [], None
    server.save(running)
    assert cell_of(chapter, "one").outputs[0].text == "an obj"
    assert cell_of(chapter, "clock").outputs[0].text == "1.1 s\n"
    server.save(ran)
    assert chapter.read_bytes() == before


def test_what_make_execute_writes_meanwhile_is_what_is_kept(chapter, server):
    opened = server.open()
    server.save(run_all(opened))
    stored = notebooks.read(chapter)
    stored.cells[2].outputs = [text("0.9 s\n")]
    notebooks.write(chapter, stored)
    written = chapter.read_bytes()
    server.save(run_all(opened))
    assert chapter.read_bytes() == written


def test_a_changed_cell_is_saved_as_it_is(chapter, server):
    content = run_all(server.open())
    content.cells[0].source = "# Another title"
    content.cells[3].source, content.cells[3].outputs = "mine", [text("my result\n")]
    content.cells.append(v4.new_code_cell("new", id="new", execution_count=11, outputs=[text("new\n")]))
    server.save(content)
    assert cell_of(chapter, "prose").source == "# Another title"
    mine, new = cell_of(chapter, "slider"), cell_of(chapter, "new")
    assert (mine.source, mine.outputs[0].text, mine.execution_count) == ("mine", "my result\n", 9)
    assert (new.source, new.outputs[0].text, new.execution_count) == ("new", "new\n", 11)
    assert "execution" not in mine.metadata
    # What was not changed is as it was.
    assert cell_of(chapter, "clock").outputs[0].text == "1.1 s\n"
    assert cell_of(chapter, "solution").execution_count == 4


def test_another_output_of_an_unchanged_cell_is_saved(chapter, server):
    content = run_all(server.open())
    content.cells[1].outputs = [text("another object\n")]
    server.save(content)
    assert cell_of(chapter, "one").outputs[0].text == "another object\n"
    assert cell_of(chapter, "one").execution_count == 7


@pytest.mark.parametrize("change", ["edited", "added", "removed", "moved", "failed"])
def test_where_nobody_compares_an_output_it_is_saved_if_it_may_be_the_readers(chapter, server, change):
    content = run_all(server.open())
    if change == "edited":
        content.cells[1].source = "two"
    elif change == "added":
        content.cells.insert(1, v4.new_code_cell("two", id="two"))
    elif change == "removed":
        del content.cells[1]
    elif change == "moved":
        content.cells[1], content.cells[3] = content.cells[3], content.cells[1]
    else:
        content.cells[2].outputs = [v4.new_output("error", ename="E", evalue="2.5 s", traceback=[])]
    server.save(content)
    assert "2.5 s" in str(cell_of(chapter, "clock").outputs)


def test_other_metadata_of_a_cell_are_the_readers(chapter, server):
    content = server.open()
    content.cells[1].metadata["tags"] = ["mine"]
    server.save(content)
    assert cell_of(chapter, "one").metadata == {"tags": ["mine"]}


@pytest.mark.parametrize("path", ["book/notes.ipynb", "01-angles.ipynb"])
def test_other_notebooks_are_saved_as_lab_sends_them(chapter, server, path):
    server.save(run_all(server.open()), path)  # "Save As"
    server.save(run_all(server.open(path)), path)
    saved = notebooks.read(chapter.parents[1] / path)
    assert saved.metadata.language_info.version == "3.13.1"
    assert saved.cells[2].outputs[0].text == "2.5 s\n"
    assert saved.cells[2].metadata["execution"]


@pytest.mark.parametrize("fault", ["the file", "the comparison"])
def test_where_the_keeper_fails_the_readers_work_is_saved(chapter, server, fault, monkeypatch):
    content = run_all(server.open())
    content.cells[3].source = "mine"
    if fault == "the file":
        chapter.write_text("no notebook", encoding="utf8")
    else:
        monkeypatch.setattr(lab, "same_output", lambda *_: 1 / 0)
    server.save(content)
    assert cell_of(chapter, "slider").source == "mine"
    assert cell_of(chapter, "clock").outputs[0].text == "2.5 s\n"


def test_a_file_that_is_no_notebook_is_saved_as_it_is(tmp_path, server):
    for path in ("notes.txt", "book/01-angles.ipynb"):  # Lab's editor opens a notebook as text, too
        asyncio.run(server.manager.save({"type": "file", "format": "text", "content": "{}"}, path))
        assert (tmp_path / path).read_text(encoding="utf8").strip() == "{}"


def test_chapters_are_trusted_so_that_sliders_move(chapter, server):
    assert all(cell.metadata.trusted for cell in server.open().cells if cell.cell_type == "code")
    server.save(run_all(server.open()))
    assert all(cell.metadata.trusted for cell in server.open().cells if cell.cell_type == "code")
    stranger = notebooks.read(chapter)
    stranger.cells[3].outputs = [html("<script>steal()</script>")]
    notebooks.write(chapter.with_name("notes.ipynb"), stranger)
    assert not server.open("book/notes.ipynb").cells[3].metadata.trusted


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_root_may_start_lab(user, allowed, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert ("--allow-root" in lab.options()) is allowed


def test_lab_starts_at_the_chapters_with_a_keeper(tmp_path, monkeypatch):
    notary = NotebookNotary(data_dir=str(tmp_path))
    manager = AsyncLargeFileManager(root_dir=str(notebooks.ROOT), notary=notary)
    told = []
    server = SimpleNamespace(contents_manager=manager, start=lambda: told.append("started"))
    monkeypatch.setattr(LabApp, "initialize_server", lambda argv: told.append(argv) or server)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "")  # put back what `main` sets
    lab.main(["--no-browser"])
    assert told == [[*lab.options(), "--no-browser"], "started"]
    assert all(notary.check_signature(notebooks.read(path)) for path in notebooks.chapters())
    assert [hook.__name__ for hook in manager._pre_save_hooks] == ["before_save"]
    assert [hook.__name__ for hook in manager._post_save_hooks] == ["after_save"]


def test_every_option_is_one_that_jupyter_knows():
    classes = {"ServerApp": ServerApp, "LabApp": LabApp}
    for option in lab.options():
        name, _, _ = option.removeprefix("--").partition("=")
        if "." in name:
            owner, trait = name.split(".")
            assert trait in classes[owner].class_trait_names(config=True)
        else:
            assert name in flags
