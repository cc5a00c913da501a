"""What ideas ask of plain arguments: right values pass as Python's own numbers, wrong ones are named."""

import math

import numpy as np
import pytest

from lib._arguments import finite, fraction, non_negative, positive, positive_integer

RIGHT = [(positive_integer, 1), (positive_integer, np.int64(64)), (finite, -2.5), (finite, np.float32(0.5))]
RIGHT += [(non_negative, 0), (positive, 1e-30), (fraction, 0.5)]

WRONG = {
    positive_integer: ("must be a positive integer", [0, -1, 2.0, True, np.True_, "3", None, [1]]),
    finite: ("must be a finite number", [math.inf, math.nan, True, "3", None, 1j]),
    non_negative: ("must not be negative", [-1, -1e-300]),
    positive: ("must be positive", [0, -0.0, -1]),
    fraction: (r"must lie in \(0, 1\)", [0, 1, -0.5, 2]),
}
CASES = [(check, sentence, value) for check, (sentence, values) in WRONG.items() for value in values]


@pytest.mark.parametrize(("check", "value"), RIGHT, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_a_right_value_comes_back_as_a_number_of_python(check, value):
    found = check("size", value)
    assert found == value
    assert type(found) is (int if check is positive_integer else float)


@pytest.mark.parametrize(("check", "sentence", "value"), CASES, ids=lambda x: getattr(x, "__name__", repr(x)))
def test_a_wrong_value_is_named(check, sentence, value):
    with pytest.raises(ValueError, match=f"^size {sentence}, got ") as error:
        check("size", value)
    assert str(error.value).endswith(repr(value))
