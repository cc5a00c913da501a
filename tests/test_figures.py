"""Figures: reproducible to the byte, and explorable without a server."""

import base64
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from lib.workbench import figures


@pytest.fixture(autouse=True)
def _style():
    with mpl.rc_context():
        figures.use_book_style()
        yield
    plt.close("all")


def drawing(slope=1.0):
    figure, ax = plt.subplots()
    ax.plot([0, 1], [0, slope], label="a line")
    ax.bar([0.5], [0.2], hatch="//")
    ax.legend()
    return figure


def test_equal_figures_are_equal_text():
    first, second = figures.svg(drawing()), figures.svg(drawing())
    assert first == second
    assert first != figures.svg(drawing(slope=2.0))
    assert "<metadata" not in first
    assert not re.search(r"[ML ][1-9]\d*\.\d{3}", first)
    assert re.search(r"scale\(0\.\d{3,}", first), "glyphs keep their scale"


def test_colours_stay_apart_for_every_kind_of_colour_vision():
    # Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
    deficiencies = {
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritanopia": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    rgb = np.array([mpl.colors.to_rgb(colour) for colour in figures.COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for matrix in deficiencies.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        distances = np.linalg.norm(srgb[:, None] - srgb[None], axis=-1)[np.triu_indices(len(srgb), 1)]
        assert distances.min() > 0.08


def test_curves_differ_in_dash_too():
    assert len(set(map(str, figures.DASHES))) == len(figures.DASHES) == len(figures.COLOURS)


def test_explore_draws_one_frame_a_value_and_closes_it():
    shown = figures.explore(
        drawing, [1.0, 2.0, 3.0], name="Slope", alt="A line", label=lambda v: f"slope {v}", start=1
    )
    assert plt.get_fignums() == []
    assert shown.labels == ["slope 1.0", "slope 2.0", "slope 3.0"]
    html = shown._repr_html_()
    assert re.findall(r'<img alt="([^"]*)" style="display:(\w+)', html) == [
        ("A line (slope 1.0)", "none"),
        ("A line (slope 2.0)", "block"),
        ("A line (slope 3.0)", "none"),
    ]
    frames = re.findall(r"base64,([^\"]+)", html)
    assert [base64.b64decode(frame).decode() for frame in frames] == shown.frames
    label = re.search(r'<label for="([^"]+)">Slope</label>', html).group(1)
    assert f'<input id="{label}" type="range" min="0" max="2" step="1" value="1"' in html
    assert 'aria-valuetext="slope 2.0"' in html
    assert "http" not in re.sub(r'src="[^"]*"', "", html)
    assert repr(shown) == "Explorable(Slope: slope 1.0 … slope 3.0, 3 frames)"


def test_beside_a_slider_without_scripts_stands_what_to_do():
    # A sanitizer drops `oninput` and `noscript` and keeps the text in it; where scripts run it is hidden.
    html = figures.Explorable(["<svg/>", "<svg/>"], ["a", "b"], name="n", alt="curve").html
    assert html.endswith(f"</output><noscript>{figures.UNTRUSTED}</noscript></figcaption></figure>")
    assert html.count(figures.UNTRUSTED) == 1


def test_in_jupyterlab_the_arrow_keys_move_the_slider():
    # Else they fold headings there: Lab takes every key of its shortcuts from whatever has the focus.
    html = figures.Explorable(["<svg/>", "<svg/>"], ["a", "b"], name="n", alt="curve").html
    assert 'data-lm-suppress-shortcuts="true"' in re.search(r"<input[^>]*>", html).group()


def test_texts_are_escaped():
    html = figures.Explorable(["<svg/>", "<svg/>"], ['"a"', "b"], name="<n>", alt='x "y"').html
    assert "<n>" not in html
    assert 'alt="x &quot;y&quot; (&quot;a&quot;)"' in html


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"frames": ["<svg/>"]}, "frames"),
        ({"labels": ["one"]}, "labels"),
        ({"start": 2}, "start"),
        ({"start": -1}, "start"),
        ({"name": " "}, "name"),
        ({"alt": ""}, "alt"),
    ],
)
def test_what_cannot_be_explored_is_refused(change, named):
    good = {"frames": ["<svg/>", "<svg/>"], "labels": ["a", "b"], "name": "n", "alt": "curve"}
    with pytest.raises(ValueError, match=named):
        figures.Explorable(**(good | change))


def test_the_style_works_without_jupyter(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib_inline.backend_inline", None)
    mpl.rcParams["axes.spines.top"] = True
    figures.use_book_style()
    assert mpl.rcParams["axes.spines.top"] is False


def test_in_jupyter_figures_are_shown_as_the_same_svg(monkeypatch):
    from IPython.core.formatters import DisplayFormatter
    from matplotlib_inline import backend_inline

    class Shell:
        display_formatter = DisplayFormatter()

    asked = []
    monkeypatch.setattr("IPython.get_ipython", Shell)
    monkeypatch.setattr(backend_inline, "set_matplotlib_formats", asked.append)
    figures.use_book_style()
    assert asked == ["svg"]
    figure = drawing()
    shown, _ = Shell.display_formatter.format(figure)
    assert shown["image/svg+xml"] == figures.svg(figure)
