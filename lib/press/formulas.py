r"""Formulas are typeset when the site is built, by MathJax, so that a page needs no script to show them.

MathJax is a program in JavaScript; QuickJS, an engine of half a megabyte, runs it here. A formula becomes an SVG
whose glyphs are outlines, sharp at every size and the same in every browser, and MathML beside it, which is what a
screen reader reads. Each glyph is drawn once a page, in the first formula that has it; the others refer to it. So
the formulas of a chapter weigh 30 kB on the wire, where MathJax itself weighs 500.

What is typeset is kept in ``_build``: a formula that has not changed is not typeset again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from importlib.metadata import files, version
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.writers.html5 import HTML5Translator

#: The parts of MathJax that are needed, in the order in which they build on each other.
_PARTS = (
    "loader.js",
    "core.js",
    "adaptors/liteDOM.js",
    "input/tex-base.js",
    "input/tex/extensions/ams.js",
    "input/tex/extensions/boldsymbol.js",
    "output/svg.js",
    "output/svg/fonts/tex.js",
    "a11y/assistive-mml.js",
)
_DRIVER = r"""
const lib = MathJax._, adaptor = lib.adaptors.liteAdaptor.liteAdaptor();
lib.a11y['assistive-mml'].AssistiveMmlHandler(lib.handlers.html_ts.RegisterHTMLHandler(adaptor));
const tex = new lib.input.tex_ts.TeX({
  packages: ['base', 'ams', 'boldsymbol'],
  formatError(_, error) { throw new Error(error.message); },
});
const svg = new lib.output.svg_ts.SVG({font: new lib.output.svg.fonts.tex_ts.TeXFont(), fontCache: 'local'});
const page = lib.mathjax.mathjax.document('', {InputJax: tex, OutputJax: svg});
function typeset(source, display) {
  tex.reset();
  return JSON.stringify(adaptor.outerHTML(page.convert(source, {display, em: 16, ex: 8, containerWidth: 1280})));
}
"""
#: A glyph as MathJax defines it in a formula: its name, after the number of the formula, and its outline.
_GLYPH = re.compile(r'<path id="MJX-\d+-TEX-([\w-]+)" d="([^"]*)"></path>')
_REFERENCE = re.compile(r'xlink:href="#MJX-\d+-TEX-')
#: What MathJax writes for its own scripts, and for documents that are no HTML.
_UNUSED = re.compile(
    r' (?:data-[\w-]+|xmlns(?::xlink)?|role|focusable|unselectable)="[^"]*"(?=[^<]*>)|<defs></defs>'
    r'|<text[^>]*></text>|<use[^>]*#MJX-\d+-TEX-N-206\d"[^>]*></use>'
)
#: A formula in the text and the punctuation at its sides, where a browser would break the line.
_IN_TEXT = re.compile(
    r'[(\[“]*<span class="math notranslate nohighlight"[^>]*>(?:(?!</span>).)*</mjx-container></span>'
    r"[-),.;:!?\]’”%]{0,3}",
    re.S,
)
_GROUP = re.compile(r"<g>|<g [^>]*>|</g>")
_FORMULA = re.compile(r"(<mjx-container\b[^>]*><svg\b[^>]*>)(.*?</svg>)(?=<mjx-assistive-mml)", re.S)
_USED = re.compile(r'href="#mj-([\w-]+)"')


class FormulaError(SphinxError):
    """A formula that cannot be typeset."""

    category = "Formula"


class Typesetter:
    r"""Turns TeX into HTML, and knows the outlines of the glyphs.

    Args:
        store: a file that keeps what was typeset; None keeps nothing.

    Example:
        >>> typesetter = Typesetter()
        >>> html = typesetter(r"\sqrt x", display=False)
        >>> "<msqrt><mi>x</mi></msqrt>" in html
        True
    """

    def __init__(self, store: Path | None = None) -> None:
        self.store = store
        self.formulas: dict[str, str] = {}
        self.glyphs: dict[str, str] = {}
        self.changed = False
        if store and store.exists():
            kept = json.loads(store.read_text(encoding="utf8"))
            if kept["made by"] == _maker():
                self.formulas, self.glyphs = kept["formulas"], kept["glyphs"]

    def __call__(self, source: str, *, display: bool) -> str:
        """The formula as HTML, whose glyphs are references; `defined` puts in their outlines.

        Raises:
            FormulaError: MathJax refuses the formula.
        """
        source = source.strip()
        key = f"{'display' if display else 'inline'} {source}"
        if key not in self.formulas:
            try:
                html = json.loads(_engine().eval(f"typeset({json.dumps(source)}, {json.dumps(display)})"))
            except Exception as error:
                raise FormulaError(f"{source!r} cannot be typeset: {str(error).splitlines()[0]}") from error
            self.glyphs.update((name, outline) for name, outline in _GLYPH.findall(html))
            html = _REFERENCE.sub('href="#mj-', _UNUSED.sub("", _GLYPH.sub("", html)))
            html = (
                html.replace("></use>", "/>").replace("></rect>", "/>").replace(' style="position: relative;"', "")
            )
            self.formulas[key] = _ungrouped(html)
            self.changed = True
        return self.formulas[key]

    def defined(self, body: str) -> str:
        """A page's HTML in which each glyph is drawn where it is first used.

        Example:
            >>> typesetter = Typesetter()
            >>> html = typesetter.defined(2 * typesetter("x", display=False))
            >>> html.count("<path"), html.count("<use")
            (1, 2)
        """
        known: set[str] = set()

        def formula(match: re.Match[str]) -> str:
            new = [name for name in dict.fromkeys(_USED.findall(match[2])) if name not in known]
            known.update(new)
            paths = "".join(f'<path id="mj-{name}" d="{self.glyphs[name]}"/>' for name in new)
            return match[1] + (f"<defs>{paths}</defs>" if new else "") + match[2]

        return _FORMULA.sub(formula, body)

    def save(self) -> None:
        """Keep what was typeset for the next build."""
        if self.store and self.changed:
            kept = {"made by": _maker(), "formulas": self.formulas, "glyphs": self.glyphs}
            self.store.parent.mkdir(parents=True, exist_ok=True)
            self.store.write_text(json.dumps(kept), encoding="utf8")
            self.changed = False


def whole(body: str) -> str:
    """A page's HTML in which no line breaks between a formula and the punctuation beside it.

    Example:
        >>> math = '<span class="math notranslate nohighlight"><mjx-container></mjx-container></span>'
        >>> whole(f"({math}), {math} and") == f'<span class="whole">({math}),</span> {math} and'
        True
    """

    def kept(match: re.Match[str]) -> str:
        bare = match[0].startswith("<") and match[0].endswith(">")
        return match[0] if bare else f'<span class="whole">{match[0]}</span>'

    return _IN_TEXT.sub(kept, body)


def _ungrouped(html: str) -> str:
    """Without the groups that have no attribute: half of the elements of a formula."""
    kept: list[bool] = []

    def group(match: re.Match[str]) -> str:
        if match[0] == "</g>":
            return "</g>" if kept.pop() else ""
        kept.append(match[0] != "<g>")
        return match[0] if kept[-1] else ""

    return _GROUP.sub(group, html)


@functools.cache
def _engine() -> Any:
    """QuickJS with MathJax loaded."""
    import quickjs

    context = quickjs.Context()
    for script in ("var window = globalThis, MathJax = {};", *map(_part, _PARTS), _DRIVER):
        context.eval(f"{script}\n;undefined")
    return context


def _part(name: str) -> str:
    for file in files("sphinx-mathjax-offline") or []:
        if file.as_posix().endswith(f"static/mathjax/{name}"):
            return Path(file.locate()).read_text(encoding="utf8")
    raise FormulaError(f"sphinx-mathjax-offline has no {name}")


@functools.cache
def _maker() -> str:
    """What decides how a formula is typeset: this file and MathJax."""
    return hashlib.sha256(Path(__file__).read_bytes() + version("sphinx-mathjax-offline").encode()).hexdigest()


def setup(app: Sphinx) -> dict[str, Any]:
    """Typeset the formulas of the HTML pages here, instead of leaving TeX to a script."""
    typesetter = Typesetter(Path(app.outdir).parent / "formulas.json")

    def inline(translator: HTML5Translator, node: nodes.math) -> None:
        translator.body.append(translator.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
        translator.body.append(f"{typesetter(node.astext(), display=False)}</span>")
        raise nodes.SkipNode

    def display(translator: HTML5Translator, node: nodes.math_block) -> None:
        translator.body.append(translator.starttag(node, "div", "", CLASS="math notranslate nohighlight"))
        translator.body.append(f"{typesetter(node.astext(), display=True)}</div>\n")
        raise nodes.SkipNode

    def define(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
        context["body"] = whole(typesetter.defined(context.get("body", "")))

    app.add_html_math_renderer("typeset", (inline, None), (display, None))
    app.config.html_math_renderer = "typeset"
    app.connect("html-page-context", define, priority=950)
    app.connect("build-finished", lambda *_: typesetter.save())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
