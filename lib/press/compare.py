"""Whether two runs of a cell show the same, by meaning: text to the letter, figures by what they draw.

Processors round differently, so the same program gives a curve that lies a hundredth of a point beside the stored
one. A figure is therefore compared as a drawing: the same elements in the same order, in the same colours and with
the same text, each coordinate within `TOLERANCE`. Names that only connect one element to another, which Matplotlib
hashes from unrounded numbers, count by what they connect. All other text is compared to the letter, save what HTML
marks ``data-measured``: the value of a claim has digits that no verdict needs.

Used by ``pytest --nbval`` (see ``book/conftest.py``), ``make execute``, ``make portability`` and ``make lab``.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np

#: How far a coordinate of a figure may lie from the stored one, in points (1/72 inch): a tenth of a thin line.
TOLERANCE = 0.1
#: How far a pixel of a heat map may lie from the stored one, in steps of 255.
PIXEL_TOLERANCE = 2

#: Attributes of SVG that hold coordinates. Every other attribute is compared to the letter.
_COORDINATES = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "viewBox", "points"}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
_EMBEDDED = re.compile(r"data:image/(svg\+xml|png);base64,(\S+)")
_SVG, _HTML = "image/svg+xml", "text/html"
#: How the frames of an explorable begin.
_FRAMES = '{"alt":'
#: Tags of HTML that have no end.
_VOID = {"br", "hr", "img", "input"}

Output = Mapping[str, Any]


def differences(stored: Sequence[Output], new: Sequence[Output]) -> list[str]:
    """What two runs of a cell show differently.

    Args:
        stored: the outputs in the notebook, as ``nbformat`` has them.
        new: the outputs of another run.

    Returns:
        One sentence a difference, empty if the outputs say the same. Metadata, execution counts, addresses of
        objects and how the streams ``stdout`` and ``stderr`` were cut into pieces do not count.

    Example:
        >>> differences([{"output_type": "stream", "name": "stdout", "text": "1.0"}],
        ...             [{"output_type": "stream", "name": "stdout", "text": "1.1"}])
        ["stdout: '1.0' was stored, '1.1' came"]
    """
    stored, new = _merged(stored), _merged(new)
    if [sorted(output) for output in stored] != [sorted(output) for output in new]:
        kinds = [" and ".join(", ".join(sorted(output)) for output in outputs) for outputs in (stored, new)]
        return [f"outputs: {kinds[0] or 'nothing'} was stored, {kinds[1] or 'nothing'} came"]
    return [
        f"{kind}: {difference}"
        for before, after in zip(stored, new, strict=True)
        for kind in before
        for difference in _COMPARE.get(kind, text_differences)(before[kind], after[kind])
    ]


def _merged(outputs: Sequence[Output]) -> list[dict[str, str]]:
    """What each output shows, by its kind: a media type, a stream or ``"error"``; a stream in one piece."""
    shown: list[dict[str, str]] = []
    streams: dict[str, dict[str, str]] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            name = output["name"]
            if name not in streams:
                shown.append(streams.setdefault(name, {name: ""}))
            streams[name][name] += output["text"]
        elif output["output_type"] == "error":
            shown.append({"error": f"{output['ename']}: {output['evalue']}"})
        else:
            shown.append({kind: _joined(value) for kind, value in output["data"].items()})
    return shown


def _joined(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


def text_differences(stored: str, new: str) -> Iterator[str]:
    """The first place where two texts differ, addresses of objects aside."""
    stored, new = (_ADDRESS.sub("0xADDRESS", text) for text in (stored, new))
    if stored != new:
        lines = zip([*stored.split("\n"), ""], [*new.split("\n"), ""], strict=False)
        before, after = next((pair for pair in lines if pair[0] != pair[1]), (stored, new))
        yield f"{before!r} was stored, {after!r} came"


# Figures --------------------------------------------------------------------------------------------------


def figure_differences(stored: str, new: str) -> Iterator[str]:
    """Where two figures, given as SVG text, draw different things; see the module's docstring.

    Example:
        >>> line = '<svg><path d="M 0 0 L {} 9" style="stroke: #0072b2"/></svg>'
        >>> list(figure_differences(line.format("5.00"), line.format("5.01")))
        []
        >>> list(figure_differences(line.format("5.00"), line.format("5.50")))
        ["path d: 'M 0 0 L 5.00 9' was stored, 'M 0 0 L 5.50 9' came"]
    """
    if stored == new:
        return
    try:
        figures = _Figure(stored), _Figure(new)
    except ElementTree.ParseError as error:
        yield f"a figure is no SVG ({error})"
        return
    tags = [[_local(element.tag) for element in figure.drawn] for figure in figures]
    if tags[0] != tags[1]:
        yield f"{_counted(tags[0])} were stored, {_counted(tags[1])} came"
        return
    for before, after in zip(figures[0].drawn, figures[1].drawn, strict=True):
        yield from _element_differences(before, after, *figures)


class _Figure:
    """An SVG: the elements that are drawn, and those that are defined by a name to be drawn by reference.

    Which definitions are shared, and where they stand, depends on rounding: only what a reference leads to counts.
    """

    def __init__(self, text: str) -> None:
        root = ElementTree.fromstring(text)
        self.drawn = list(_without_definitions(root))
        self.named = {element.get("id"): element for element in root.iter() if element.get("id")}

    def referred(self, value: str) -> tuple[str, list[ElementTree.Element]]:
        """An attribute without the names it refers to, as ``url(#clip)`` or ``#glyph`` do, and what they name."""
        names = re.findall(r"(?:\burl\(|^)#([^)]+)", value)
        targets = [self.named[name] for name in names if name in self.named]
        return re.sub(r"(\burl\(|^)#([^)]+)", r"\1#", value), targets


def _without_definitions(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    yield element
    for child in element:
        if _local(child.tag) == "defs":
            yield from (style for style in child.iter() if _local(style.tag) == "style")
        else:
            yield from _without_definitions(child)


def _local(tag: str) -> str:
    """A name without its namespace."""
    return tag.rpartition("}")[2]


def _counted(tags: list[str]) -> str:
    return ", ".join(f"{tags.count(tag)} {tag}" for tag in sorted(set(tags)))


def _element_differences(
    before: ElementTree.Element, after: ElementTree.Element, stored: _Figure, new: _Figure
) -> Iterator[str]:
    """Where two elements of the same kind differ, their children aside."""
    tag = _local(before.tag)
    first, second = ({_local(n): v for n, v in e.attrib.items() if _local(n) != "id"} for e in (before, after))
    if first.keys() != second.keys():
        yield f"{tag}: other attributes, {', '.join(sorted(first.keys() ^ second.keys()))}"
    for name in sorted(first.keys() & second.keys()):
        (one, targets), (other, new_targets) = stored.referred(first[name]), new.referred(second[name])
        if len(targets) != len(new_targets) or not _same_attribute(name, one, other):
            yield f"{tag} {name}: {first[name]!r:.120} was stored, {second[name]!r:.120} came"
        else:
            for pair in zip(targets, new_targets, strict=True):
                yield from _definition_differences(*pair, stored, new)
    yield from text_differences((before.text or "").strip(), (after.text or "").strip())


def _definition_differences(
    before: ElementTree.Element, after: ElementTree.Element, stored: _Figure, new: _Figure
) -> Iterator[str]:
    """Where two definitions differ, all that stands in them included."""
    parts = [*before.iter()], [*after.iter()]
    if [_local(part.tag) for part in parts[0]] != [_local(part.tag) for part in parts[1]]:
        yield f"{_local(before.tag)}: another definition"
        return
    for one, other in zip(*parts, strict=True):
        yield from _element_differences(one, other, stored, new)


def _same_attribute(name: str, stored: str, new: str) -> bool:
    """Whether two values of an attribute are the same: coordinates within the tolerance, all else to the letter."""
    if stored == new:
        return True
    if name == "d":
        return _same_path(stored, new)
    if name in _COORDINATES:
        return _same_numbers(stored, new)
    if name == "transform":  # translations are coordinates; scales and angles are not
        parts = [re.findall(r"(\w+)\(([^)]*)\)", value) for value in (stored, new)]
        return len(parts[0]) == len(parts[1]) and all(
            a == b and (_same_numbers(v, w) if a == "translate" else v == w)
            for (a, v), (b, w) in zip(*parts, strict=True)
        )
    pictures = [_EMBEDDED.fullmatch("".join(value.split())) for value in (stored, new)]
    return all(match and match[1] == "png" for match in pictures) and _same_pixels(*(m[2] for m in pictures))


def _same_numbers(stored: str, new: str) -> bool:
    """Whether two texts have the same words, and numbers within the tolerance."""
    if _NUMBER.sub("·", stored).split() != _NUMBER.sub("·", new).split():
        return False
    numbers = [np.array(_NUMBER.findall(text), dtype=float) for text in (stored, new)]
    return bool(np.all(np.abs(numbers[0] - numbers[1]) <= TOLERANCE + 1e-9))


def _same_path(stored: str, new: str) -> bool:
    """Whether two paths are the same curve.

    Matplotlib leaves out vertices that lie on a straight line, and rounding decides about one that nearly does.
    So straight lines with another number of vertices are compared as sets of points.
    """
    if _same_numbers(stored, new):
        return True
    lines = [_polylines(path) for path in (stored, new)]
    if lines[0] is None or lines[1] is None or len(lines[0]) != len(lines[1]):
        return False
    return all(
        np.abs(a[[0, -1]] - b[[0, -1]]).max() <= TOLERANCE + 1e-9
        and max(_farthest(a, b), _farthest(b, a)) <= TOLERANCE
        for a, b in zip(*lines, strict=True)
    )


def _polylines(path: str) -> list[np.ndarray] | None:
    """The vertices, (n, 2), of each line of a path; None if it has curves."""
    if set(re.findall(r"[A-Za-z]", path)) - set("MLz"):
        return None
    pieces = [np.array(_NUMBER.findall(piece), dtype=float).reshape(-1, 2) for piece in path.split("M")[1:]]
    closed = ["z" in piece for piece in path.split("M")[1:]]
    return [np.vstack([line, line[:1]]) if z else line for line, z in zip(pieces, closed, strict=True)]


def _farthest(points: np.ndarray, line: np.ndarray) -> float:
    """The largest distance of a point from a polyline."""
    if len(line) == 1:
        return float(np.linalg.norm(points - line, axis=-1).max())
    start, along = line[:-1], np.diff(line, axis=0)
    squared = np.maximum((along**2).sum(-1), 1e-12)
    offset = points[:, None] - start
    share = np.clip((offset * along).sum(-1) / squared, 0, 1)
    return float(np.linalg.norm(offset - share[..., None] * along, axis=-1).min(axis=1).max())


def _same_pixels(stored: str, new: str) -> bool:
    from matplotlib.image import imread

    pictures = [imread(io.BytesIO(base64.b64decode(data)), format="png") for data in (stored, new)]
    if pictures[0].shape != pictures[1].shape:
        return False
    return bool(np.abs(pictures[0] - pictures[1]).max() * 255 <= PIXEL_TOLERANCE + 1e-6)


# HTML -----------------------------------------------------------------------------------------------------


def html_differences(stored: str, new: str) -> Iterator[str]:
    """Where two pieces of HTML differ: figures within them by what they draw, all else to the letter."""
    pieces = [_pieces(text) for text in (stored, new)]
    if len(pieces[0]) != len(pieces[1]):
        yield f"{len(pieces[0])} pieces of HTML were stored, {len(pieces[1])} came"
        return
    for before, after in zip(*pieces, strict=True):
        figures = [_EMBEDDED.fullmatch(piece) for piece in (before, after)]
        if all(match and match[1] == "svg+xml" for match in figures):
            yield from figure_differences(*(base64.b64decode(match[2]).decode() for match in figures))
        elif all(match and match[1] == "png" for match in figures):
            if not _same_pixels(*(match[2] for match in figures)):
                yield "a picture has other pixels"
        elif before.startswith(_FRAMES) and after.startswith(_FRAMES):
            yield from _frame_differences(json.loads(before), json.loads(after))
        else:
            yield from text_differences(before, after)


def _frame_differences(stored: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Where two explorables differ: texts to the letter, paths within the tolerance, frame by frame."""
    for name in ("alt", "labels", "told", "at"):
        yield from text_differences(json.dumps(stored.get(name)), json.dumps(new.get(name)))
    paths = [[path for frame in frames["paths"] for path in frame] for frames in (stored, new)]
    if len(paths[0]) != len(paths[1]):
        yield f"{len(paths[0])} paths were stored, {len(paths[1])} came"
    elif any(not _same_numbers(*pair) for pair in zip(*paths, strict=True)):
        yield "an explorable has another path"


def _pieces(text: str) -> list[str]:
    """The tags, attributes and texts of HTML in their order, ids by their order of appearance."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.pieces


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.names: dict[str, str] = {}
        self.measured = 0  # how many elements are open from one marked data-measured on

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.measured or any(name == "data-measured" for name, _ in attrs):
            self.measured += tag not in _VOID
            return
        self.pieces.append(f"<{tag}>")
        for name, value in sorted(attrs, key=lambda pair: pair[0]):
            if name in ("id", "for"):
                value = self.names.setdefault(value or "", f"#{len(self.names)}")
            self.pieces += [name, value or ""]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self.measured:
            super().handle_startendtag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self.measured:
            self.measured -= 1
        else:
            self.pieces.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self.measured:
            self.pieces.append(data)


_COMPARE: dict[str, Callable[[str, str], Iterator[str]]] = {_SVG: figure_differences, _HTML: html_differences}
