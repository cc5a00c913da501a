"""A Sphinx extension: the reference of the library, a page an idea, made from the docstrings.

The directive ``idea`` documents one idea: where the book uses it, then its files, and in each its public names,
with links to their source. Sources are read and not imported, so that a reader of the pages needs no NumPy and no
Keras for it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from lib.press import notebooks

#: Methods that every Keras layer has, of which a reader need not be told again.
_OF_EVERY_LAYER = {
    "build",
    "build_from",
    "compile_from_config",
    "compute_mask",
    "compute_output_shape",
    "compute_output_spec",
    "from_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}
_STYLE = Config(
    napoleon_custom_sections=[(name, "notes_style") for name in ("Note", "Source", "Sources")],
    napoleon_use_ivar=True,
    napoleon_use_rtype=False,
)


# --- what the sources say -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """A module of an idea, and those of its names that the idea makes public."""

    path: Path
    names: frozenset[str]

    @property
    def name(self) -> str:
        """The dotted name, such as ``lib.attention.functional``."""
        return ".".join(self.path.relative_to(notebooks.ROOT).with_suffix("").parts).removesuffix(".__init__")

    @property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.path.read_text(encoding="utf8"))


def modules(idea: str) -> list[Module]:
    """The modules of an idea that define public names, in the order in which its ``__init__`` draws them.

    Example:
        >>> [module.name for module in modules("recompute")][:2]
        ['lib.recompute.layers', 'lib.recompute.checkpoints']
    """
    head = _head(idea)
    if head.path.name != "__init__.py":
        return [Module(head.path, head.names & {*_defined(head.path)})]
    drawing = ast.get_docstring(head.tree) or ""
    found = (Module(path, head.names & {*_defined(path)}) for path in head.path.parent.glob("*.py"))
    public = (one for one in found if one.names and one.path != head.path)
    return sorted(public, key=lambda one: drawing.find(f"\n    {one.path.stem} "))


def _head(idea: str) -> Module:
    """The file of an idea, or the ``__init__`` of its folder."""
    folder = notebooks.ROOT / "lib" / idea
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    return Module(path, frozenset(_public(path)))


def home(idea: str, name: str) -> str:
    """The dotted name of the module in which an idea defines a public name."""
    return next(module.name for module in modules(idea) if name in module.names)


def users(idea: str) -> list[Path]:
    """The chapters whose code imports an idea, directly or through others.

    Example:
        >>> [path.stem for path in users("recompute")]
        ['08-recompute', '09-theseus']
    """
    head = _head(idea).path
    return [path for path in notebooks.chapters() if head in _loaded(path)]


@cache
def _loaded(chapter: Path) -> set[Path]:
    cells = notebooks.code(notebooks.read(chapter))
    return notebooks.imported_files("\n".join(cell.source for cell in cells))


def _public(path: Path) -> list[str]:
    """The names in ``__all__``."""
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError(f"{path} must define __all__, which is what its page shows")


def _defined(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf8")).body:
        yield from _names_of(node)


def _names_of(node: ast.stmt) -> list[str]:
    """What a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [ast.unparse(node.targets[0])]
    return [ast.unparse(node.target)] if isinstance(node, ast.AnnAssign) else []


# --- the page -------------------------------------------------------------------------------------------------


class Idea(SphinxDirective):
    """``idea``: the chapters that use an idea, how it is imported, and its public names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the computed Markdown in the place of the directive."""
        idea = self.arguments[0]
        self.env.note_dependency(__file__)
        for path in notebooks.imported_files(f"import lib.{idea}"):
            self.env.note_dependency(str(path))
        parts = []
        for title, lines in _page(idea):
            part = nodes.section(ids=[title], names=[title]) if title else nodes.container()
            part += nodes.title("", title) if title else []
            self.state.nested_parse(StringList(lines, source=self.env.docname), self.content_offset, part)
            parts += [part] if title else part.children
        return parts


def _page(idea: str) -> Iterator[tuple[str | None, list[str]]]:
    """The sections of a page, Markdown with their titles; the first has none."""
    chapters = [f"[{int(path.stem[:2])}](../{path.name})" for path in users(idea)]
    several = f"chapters {', '.join(chapters[:-1])} and {chapters[-1]}" if len(chapters) > 1 else None
    used = f"Used in {several or f'chapter {chapters[0]}'}. " if chapters else ""
    lines = [f"From [the library](index.md). {used}Installed, it is `proof_by_running.{idea}`.", ""]
    begin, head = [f".. py:module:: lib.{idea}", ""], _head(idea)
    if head.path.name != "__init__.py":
        [module] = modules(idea)
        body = [*_docstring(head), "", *_members(module), *_borrowed(idea)]
        yield None, lines + _restructured([*begin, *body])
        return
    before, drawing, after = _drawing(head)
    yield None, lines + _restructured([*begin, *before, *_linked(idea, drawing), *after])
    for module in modules(idea):
        described = [f".. py:module:: {module.name}", f".. py:currentmodule:: lib.{idea}", ""]
        yield module.path.stem, _restructured([*described, *_docstring(module), "", *_members(module)])


def _drawing(head: Module) -> tuple[list[str], list[str], list[str]]:
    """The docstring of a folder before, within and after the drawing of its files."""
    lines = _docstring(head)
    start = lines.index("::")
    end = next((i for i, line in enumerate(lines) if i > start + 1 and line and line[0] != " "), len(lines))
    return lines[:start], lines[start + 1 : end], lines[end:]


def _linked(idea: str, drawing: list[str]) -> list[str]:
    """The drawing as a list: a public file is a link to its section; a private one is left out."""
    sections = {module.path.stem for module in modules(idea)}
    items: list[tuple[str, str]] = []
    for line in filter(None, map(str.rstrip, drawing)):
        if found := re.match(r" {4}(\w+) +(.*)", line):
            items.append((found[1], found[2]))
        else:
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
    names = {name: f":mod:`{name} <lib.{idea}.{name}>`" if name in sections else name for name, _ in items}
    return [f"- {names[name]}: {text}" for name, text in items if not name.startswith("_")] + [""]


def _borrowed(idea: str) -> list[str]:
    """A sentence on the public names that are another idea's."""
    head = _head(idea)
    names = head.names - {name for module in modules(idea) for name in module.names}
    found = notebooks.imported_names(head.path.read_text(encoding="utf8"), "lib")
    links = sorted(f":func:`{name}`" for name in found if name.rpartition(".")[2] in names)
    return [f"Under their own names also here: {', '.join(links)}."] if links else []


def _restructured(lines: list[str]) -> list[str]:
    return ["````{eval-rst}", ".. highlight:: text", "", *lines, "````", ""]


def _members(module: Module) -> Iterator[str]:
    """A description of each public name, in the order of the source."""
    comments = ModuleAnalyzer.for_file(str(module.path), module.name).find_attr_docs()
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in module.names:
            yield from _described("function", f"{node.name}({_signature(module, node)})", _docstring(module, node))
        elif isinstance(node, ast.ClassDef) and node.name in module.names:
            yield from _described(
                "class",
                f"{node.name}({_fields(module, node)})",
                [*_docstring(module, node), "", *_methods(module, node)],
            )
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if name in module.names:
                value = [f":value: {ast.unparse(node.value)}"] if _is_short(node.value) else []
                yield from _described("data", name, comments.get(("", name), []), value)


def _methods(module: Module, node: ast.ClassDef) -> Iterator[str]:
    """A description of each public method and property that has something to say."""
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator) for decorator in method.decorator_list}
        if method.name in _OF_EVERY_LAYER or any(one.endswith(".setter") for one in decorators):
            continue
        if "property" in decorators:
            yield from _described("property", method.name, _docstring(module, method))
        else:
            kind = "classmethod" if "classmethod" in decorators else "method"
            signature = _signature(module, method, bound="staticmethod" not in decorators)
            yield from _described(kind, f"{method.name}({signature})", _docstring(module, method))


def _is_short(value: ast.expr | None) -> bool:
    return value is not None and len(ast.unparse(value)) <= 60 and not isinstance(value, ast.Call)


def _described(kind: str, heading: str, body: list[str], options: Iterable[str] = ()) -> Iterator[str]:
    yield f".. py:{kind}:: {heading}"
    yield from (f"   {option}" for option in options)
    yield ""
    yield from (f"   {line}" if line else "" for line in body)
    yield ""


def _signature(module: Module, function: ast.FunctionDef, *, bound: bool = False) -> str:
    """The arguments with their defaults, without types: shapes say more, and stand in the description."""
    arguments = function.args
    if bound:
        plain = arguments.posonlyargs or arguments.args
        plain.pop(0)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    for defaults in (arguments.defaults, arguments.kw_defaults):
        defaults[:] = [_value(module, default) for default in defaults]
    return ast.unparse(arguments)


def _value(module: Module, default: ast.expr | None) -> ast.expr | None:
    """A number or text in place of the name that stands for it."""
    if isinstance(default, ast.Name) and (found := _definition(default.id, module)):
        node = found[1]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return node.value
    return default


def _definition(name: str, module: Module) -> tuple[Module, ast.stmt] | None:
    """Where a name that a module uses is defined: there, or in the module of lib that it comes from."""
    for node in module.tree.body:
        if name in _names_of(node):
            return module, node
    package = ".".join(module.path.relative_to(notebooks.ROOT).parent.parts)
    for dotted in notebooks.imported_names(module.path.read_text(encoding="utf8"), package):
        if dotted.rpartition(".")[2] == name:
            source = notebooks.ROOT.joinpath(*dotted.split(".")[:-1])
            path = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
            if path.is_file():
                return _definition(name, Module(path, frozenset()))
    return None


def _fields(module: Module, node: ast.ClassDef) -> str | None:
    """What a class is made from: the arguments of ``__init__``, its own or inherited, or the fields of a record."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return _signature(module, method, bound=True)
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    if fields:
        return ", ".join(
            f"{ast.unparse(one.target)}={ast.unparse(one.value)}" if one.value else ast.unparse(one.target)
            for one in fields
        )
    for base in map(ast.unparse, node.bases):
        found = _definition(base, module)
        if found and isinstance(found[1], ast.ClassDef):
            return _fields(*found)
    return ""


def _docstring(module: Module, node: ast.ClassDef | ast.FunctionDef | None = None) -> list[str]:
    """The docstring as reStructuredText: its sections are fields."""
    text = ast.get_docstring(node or module.tree) or ""
    return "\n".join(GoogleDocstring([*_escaped(text)], _STYLE).lines()).split("\n")


def _escaped(text: str) -> Iterator[str]:
    """The lines of a docstring, in whose prose only what is meant as markup is markup."""
    literal, lines = None, text.split("\n")
    for line in lines:
        indentation = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indentation <= literal:
            literal = None
        if literal is None and line.lstrip().startswith(">>>"):
            literal = indentation - 1  # up to the next line that is less indented; what is shown stands below it
        yield line if literal is not None else _PROSE.sub(_marked_up, line)
        if literal is None and line.endswith("::"):
            literal = indentation


#: What keeps its stars and bars: literals, emphasis, the star of a list; then what is marked up or escaped.
_PROSE = re.compile(
    r"(?P<kept>``.+?``|`[^`]+`|^ *\* |\*\*\w[^*]*\S\*\*|(?<![\w*])\*\w(?:[^*]*\w)?\*(?![\w*]))"
    r"|arXiv (?P<arxiv>\d{4}\.\d{4,5})|article (?P<article>\d{4})"
    r"|\^\{(?P<sup>[^{}]+)\}|_\{(?P<sub>[^{}]+)\}"
    r"|(?P<letter>(?:^|(?<=: )) *[A-Za-z]\.(?= |$))|[*|]"
)


def _marked_up(found: re.Match[str]) -> str:
    """A link, a raised or lowered part of a formula, or what must not be taken for markup."""
    if found["kept"]:
        return found[0]
    if found["arxiv"]:
        return f"`{found[0]} <https://arxiv.org/abs/{found['arxiv']}>`__"
    if found["article"]:
        return f"`{found[0]} <https://kexue.fm/archives/{found['article']}>`__"
    for role in ("sup", "sub"):
        if found[role]:
            return rf"\ :{role}:`{found[role]}`\ "
    if found["letter"]:  # an initial, which would begin a list
        return found[0][:-1] + r"\."
    return "\\" + found[0]


# --- links to the source --------------------------------------------------------------------------------------


def _module_of(_app: Sphinx, module: str, name: str) -> str:
    """Where a public name is defined."""
    return home(module.removeprefix("lib."), name.split(".")[0])


def _source_of(_app: Sphinx, module: str) -> tuple[str, dict[str, tuple[str, int, int]]]:
    """The source of a module, and the lines of what it defines."""
    path = notebooks.ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return path.read_text(encoding="utf8"), ModuleAnalyzer.for_file(str(path), module).find_tags()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the pages of the sources."""
    app.setup_extension("sphinx.ext.viewcode")
    app.config.html_domain_indices = False
    app.config.add_module_names = False
    # What a docstring names need not have a page: Keras has none here, and private names have none at all.
    app.config.nitpick_ignore_regex = [("py:.*", ".*")]
    app.add_directive("idea", Idea)
    app.connect("viewcode-follow-imported", _module_of)
    app.connect("viewcode-find-source", _source_of)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
