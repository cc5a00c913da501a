"""Source: a notebook shows the library's own code, with or without its docstrings."""

from lib.workbench.source import show


def documented(x: int) -> int:
    """Add one.

    At some length.
    """
    return x + 1


class Spaced:
    """A class whose docstring is followed by a blank line."""

    number = 1


class Thing:
    """A thing."""

    def method(self) -> int:
        """Give two."""
        return 2


def plain() -> None:
    pass


def test_docstrings_are_left_out():
    assert show(documented).text == "def documented(x: int) -> int:\n    return x + 1"
    assert show(Spaced).text == "class Spaced:\n    number = 1"
    assert '"""' not in show(Thing).text
    assert "return 2" in show(Thing).text
    assert show(plain).text == "def plain() -> None:\n    pass"


def test_docstrings_are_kept_when_asked_for():
    assert "At some length." in show(documented, docstrings=True).text


def test_several_objects_stand_in_their_order_and_indentation_is_removed():
    text = show(plain, Thing.method).text
    assert text.index("def plain") < text.index("def method")
    assert "\ndef method" in text


def test_it_is_highlighted_in_a_notebook():
    source = show(plain)
    assert source._repr_markdown_() == f"```python\n{source.text}\n```"
    assert repr(source) == source.text
