"""What hypothesis searches: how many examples, and which floats.

`make test` draws the same examples every time, so that no change fails but by its own fault. HYPOTHESIS_PROFILE
names another profile: with "fuzz" `make fuzz` draws others each time, twenty times as many, on every backend; with
"few" a quarter is drawn: on JAX, which compiles anew for every shape, and wherever TensorFlow computes once more.
"""

import os

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile("test", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", max_examples=2000, deadline=None, print_blob=True)
settings.register_profile("few", max_examples=25, derandomize=True, deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

#: Examples of a test that asks for no number of its own.
USUAL = settings.get_profile("test").max_examples


def examples(count: int) -> settings:
    """So many examples in `make test`, where each is slow; in a search more in the same proportion."""
    return settings(max_examples=max(1, count * settings().max_examples // USUAL))


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of a range that a backend can hold: of single precision and without subnormals.

    Below 1.2e-38 a number of single precision has less digits the smaller it is. Processors and compilers may flush
    it to 0, and whether they do is no property of the book: hypothesis found 6.458e-40 where TensorFlow has 0.
    Numbers that no backend sees are drawn by ``hypothesis.strategies.floats`` itself.
    """
    ends = [np.float32(low), np.float32(high)]
    if ends[0] < low:
        ends[0] = np.nextafter(ends[0], np.float32(np.inf))
    if ends[1] > high:
        ends[1] = np.nextafter(ends[1], np.float32(-np.inf))
    return st.floats(*map(float, ends), width=32, allow_subnormal=False)
