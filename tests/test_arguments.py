"""What ideas ask of plain arguments: right values pass as Python's own numbers, wrong ones are named."""

import math

import ml_dtypes
import numpy as np
import pytest

from lib._arguments import (
    boolean,
    file_path,
    finite,
    fraction,
    is_integer,
    items,
    non_negative,
    non_negative_integer,
    one_of,
    positive,
    positive_integer,
    rate,
    real_array,
)

RIGHT = [(positive_integer, 1), (positive_integer, np.int64(64)), (finite, -2.5), (finite, np.float32(0.5))]
RIGHT += [
    (boolean, False),
    (boolean, np.True_),
    (non_negative, 0),
    (positive, 1e-30),
    (fraction, 0.5),
    (non_negative_integer, 0),
    (rate, 0),
    (finite, 2**1000),
]

WRONG = {
    boolean: ("must be True or False", ["False", 0, 1, None, 1.0, [True]]),
    positive_integer: ("must be a positive integer", [0, -1, 2.0, True, np.True_, "3", None, [1]]),
    non_negative_integer: ("must be an integer of at least 0", [-1, 2.0, False, np.False_, "3", None]),
    finite: ("must be a finite number", [math.inf, math.nan, True, "3", None, 1j, 10**400, -(10**400)]),
    non_negative: ("must not be negative", [-1, -1e-300]),
    positive: ("must be positive", [0, -0.0, -1]),
    rate: (r"must lie in \[0, 1\)", [1, -0.1, 2]),
    fraction: (r"must lie in \(0, 1\)", [0, 1, -0.5, 2]),
}
CASES = [(check, sentence, value) for check, (sentence, values) in WRONG.items() for value in values]


@pytest.mark.parametrize(("check", "value"), RIGHT, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_a_right_value_comes_back_as_a_number_of_python(check, value):
    found = check("size", value)
    assert found == value
    assert type(found) is {positive_integer: int, non_negative_integer: int, boolean: bool}.get(check, float)


@pytest.mark.parametrize(("check", "sentence", "value"), CASES, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_a_wrong_value_is_named(check, sentence, value):
    with pytest.raises(ValueError, match=f"^size {sentence}, got ") as error:
        check("size", value)
    assert str(error.value).endswith(repr(value))


def test_one_of_a_few_words():
    assert one_of("direction", "both", ("forward", "both")) == "both"
    for wrong in ("bothe", None, 1, ["both"]):
        with pytest.raises(ValueError, match=r"^direction must be one of 'forward', 'both', got "):
            one_of("direction", wrong, ("forward", "both"))


def test_a_collection_comes_back_as_a_list_and_a_text_only_where_it_is_one():
    assert items("words", (word for word in "ab")) == ["a", "b"]
    assert items("labels", "sbe", text=True) == ["s", "b", "e"]
    for wrong in ("ab", b"ab", None, 3, object()):
        with pytest.raises(ValueError, match=r"^words must be a collection, got "):
            items("words", wrong)


def test_a_path_is_a_text_or_a_path(tmp_path):
    assert file_path("path", str(tmp_path)) == file_path("path", tmp_path) == tmp_path
    for wrong in (None, 3, b"x", ["x"]):
        with pytest.raises(ValueError, match=r"^path must be the path of a file or a folder, got "):
            file_path("path", wrong)


def test_an_array_of_real_numbers_is_of_float64():
    for right in ([0, 1], np.array([0, 1], ml_dtypes.bfloat16), np.ma.masked_array([0, 1], [False, False])):
        np.testing.assert_array_equal(found := real_array("theta", right), [0, 1])
        assert found.dtype == np.float64
    for wrong in ("a", None, object(), [1j], [[1], [1, 2]], [True], np.ma.masked_array([0.0, 1.0], [False, True])):
        with pytest.raises(ValueError, match=r"^theta must be real numbers, got "):
            real_array("theta", wrong)


def test_true_is_no_integer():
    assert all(map(is_integer, (0, -3, np.int8(2), np.uint64(2**63))))
    assert not any(map(is_integer, (True, np.True_, 1.0, "1", None, [1])))
