"""The reference of the library: a page an idea, each public name on it, with its source and a way to the book."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from lib.press import notebooks, reference
from lib.press.site import documents

IDEAS = notebooks.ideas()


def public(idea):
    return importlib.import_module(f"lib.{idea}").__all__


def html(site, idea):
    return (site / "book" / "api" / f"{idea}.html").read_text(encoding="utf8")


def test_each_idea_has_a_page_and_each_page_an_idea():
    pages = [name.removeprefix("book/api/") for name in documents() if name.startswith("book/api/")]
    assert pages[0] == "index"
    assert sorted(pages[1:]) == IDEAS


@pytest.mark.parametrize("idea", IDEAS)
def test_each_public_name_is_found_in_one_module(idea):
    modules = reference.modules(idea)
    names = [name for module in modules for name in module.names]
    borrowed = re.findall(r"\.(\w+)`", "".join(reference._borrowed(idea)))
    assert sorted(names + borrowed) == sorted(public(idea))
    for module in modules:
        loaded = importlib.import_module(module.name)
        for name in module.names:
            thing = getattr(loaded, name)
            assert getattr(thing, "__module__", module.name) in (module.name, "builtins", "typing"), name


@pytest.mark.parametrize("idea", IDEAS)
def test_each_public_name_is_on_the_page_with_a_link_to_its_source(site, idea):
    page = html(site, idea)
    for name in (name for module in reference.modules(idea) for name in module.names):
        anchor = f"lib.{idea}.{name}"
        assert f'id="{anchor}"' in page, f"{anchor} is not on its page"
        if inspect.isclass(thing := getattr(importlib.import_module(f"lib.{idea}"), name)) or inspect.isfunction(
            thing
        ):
            assert f"#{anchor}" in page
            link = rf'href="(\.\./\.\./_modules/[^"]*)#{re.escape(reference.home(idea, name))}\.{name}"'
            link = re.search(link, page) or re.search(rf'href="(\.\./\.\./_modules/[^"]*)#{name}"', page)
            assert link, f"{anchor} has no link to its source"
            target = (site / "book" / "api" / link[1]).resolve()
            assert f'id="{name}"' in target.read_text(encoding="utf8")


@pytest.mark.parametrize("idea", IDEAS)
def test_a_page_shows_no_markup(site, idea):
    text = re.sub(
        r"<pre>.*?</pre>|<[^>]+>", "", html(site, idea).split("<article")[1].split("</article>")[0], flags=re.S
    )
    for trace in (
        "``",
        ":func:",
        ":class:",
        ":meth:",
        ":param",
        "Args:",
        r"\|",
        r"\*",
        "system-message",
    ):
        assert trace not in text, trace


@pytest.mark.parametrize("path", notebooks.chapters(), ids=lambda path: path.stem)
def test_a_chapter_links_to_the_pages_of_what_it_imports_and_they_link_back(site, path):
    notebook = notebooks.read(path)
    [cost] = [cell.source for cell in notebook.cells if notebooks.COST in notebooks.tags(cell)]
    linked = set(re.findall(r"\[`lib\.(\w+)`\]\(api/\1\.md\)", cost))
    names = [*notebooks.imported_names("\n".join(cell.source for cell in notebooks.code(notebook)))]
    assert linked >= {idea for idea in IDEAS if any(f"{name}.".startswith(f"lib.{idea}.") for name in names)}
    for idea in linked:
        assert f'href="../{path.stem}.html"' in html(site, idea)


def test_each_idea_is_linked_from_a_chapter():
    text = "".join(path.read_text(encoding="utf8") for path in notebooks.chapters())
    assert [idea for idea in IDEAS if f"(api/{idea}.md)" not in text] == []


def test_the_reference_is_made_without_what_the_ideas_import():
    code = (
        "import sys\n"
        "for name in ('numpy', 'scipy', 'keras', 'tensorflow'): sys.modules[name] = None\n"
        "from lib.press import notebooks, reference\n"
        "print(min(len([*reference._page(idea)][-1][1]) for idea in notebooks.ideas()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=notebooks.ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert int(shown.stdout) > 10


def module_of(tmp_path, monkeypatch, source):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    path = tmp_path / "lib" / "idea.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    return reference.Module(path, frozenset())


def test_a_signature_has_defaults_and_no_types(tmp_path, monkeypatch):
    source = "CHUNK = 64\ndef f(q: Tensor, /, k: Tensor = None, *v: int, a: str = 'x', c=CHUNK, **b: Any): ..."
    module = module_of(tmp_path, monkeypatch, source)
    assert reference._signature(module, module.tree.body[1]) == "q, /, k=None, *v, a='x', c=64, **b"
    module = module_of(tmp_path, monkeypatch, "def f(self, x: int = 3): ...")
    assert reference._signature(module, module.tree.body[0], bound=True) == "x=3"


def test_a_class_shows_what_it_is_made_from_also_where_that_is_inherited(tmp_path, monkeypatch):
    module = module_of(tmp_path, monkeypatch, "class Cost(NamedTuple):\n    boundary: int\n    working: int = 0")
    assert reference._fields(module, module.tree.body[0]) == "boundary, working=0"
    (tmp_path / "lib").mkdir(exist_ok=True)
    (tmp_path / "lib" / "base.py").write_text("class Base:\n    def __init__(self, tags, *, seed=None): ...")
    source = "from .base import Base\nclass Middle(Base): ...\nclass Last(Middle): ...\nclass Other(Layer): ..."
    module = module_of(tmp_path, monkeypatch, source)
    assert reference._fields(module, module.tree.body[2]) == "tags, *, seed=None"
    assert reference._fields(module, module.tree.body[3]) == ""


@pytest.mark.parametrize("idea", IDEAS)
def test_what_has_parameters_shows_them_in_its_heading(site, idea):
    for entry in re.findall(
        r"<dt class=\"sig.*?</dt>\s*<dd>.*?(?=<dt class=\"sig|</article>)", html(site, idea), re.S
    ):
        heading, body = entry.split("</dt>", 1)
        if ">Parameters" in body:
            assert "sig-param" in heading, re.sub("<[^>]+>", "", heading)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("the norm |x| and χ²*", r"the norm \|x\| and χ²\*"),
        ("*emphasis* and ``a | b`` and `x*y`", "*emphasis* and ``a | b`` and `x*y`"),
        ("* one of a list", "* one of a list"),
        ("    count: V.", r"    count: V\."),
        ("W. Johnson and N. Alon", r"W\. Johnson and N. Alon"),
        ("see article 7546", "see `article 7546 <https://kexue.fm/archives/7546>`__"),
        ("a^{1/4} and x_{ij}", r"a\ :sup:`1/4`\  and x\ :sub:`ij`\ "),
        ("**kwargs: all", r"\*\*kwargs: all"),
        ("**Strong.** And *weak* and a*b", r"**Strong.** And *weak* and a\*b"),
        ("as so::\n\n    a | b\n\nthen |c|", "as so::\n\n    a | b\n\nthen \\|c\\|"),
        ("Example:\n    >>> abs(a | b)\n    |1|", "Example:\n    >>> abs(a | b)\n    |1|"),
    ],
)
def test_bars_and_stars_in_prose_are_no_markup(line, shown):
    assert "\n".join(reference._escaped(line)) == shown


def test_an_idea_without_public_names_is_refused(tmp_path):
    path = tmp_path / "idea.py"
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="must define __all__"):
        reference._public(path)
