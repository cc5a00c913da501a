"""What ideas ask of the backend beyond Keras."""

import keras
import numpy as np
import pytest
from attention_references import BACKEND, compiled
from keras import ops

from lib._backend import all_of, backend, float32_or_wider, is_known, jit, largest_along

pytestmark = pytest.mark.backends


def test_the_backend_is_the_one_of_keras():
    assert backend().__name__ == keras.backend.backend()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32"])
def test_sums_are_kept_in_float32_or_wider(dtype):
    if dtype == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 by default")
    wide = float32_or_wider(ops.cast(np.arange(3), dtype))
    assert keras.backend.standardize_dtype(wide.dtype) == ("float64" if dtype == "float64" else "float32")


def test_compiled_code_runs_once_for_each_static_argument_on_jax_only():
    calls = []

    @jit(static_argnums=0)
    def function(form, x):
        calls.append(form)
        return x + len(form)

    for form in ("a", "a", "bc"):
        np.testing.assert_array_equal(ops.convert_to_numpy(function(form, ops.ones((2,)))), 1 + len(form))
    assert calls == (["a", "bc"] if BACKEND == "jax" else ["a", "a", "bc"])


def test_a_value_is_known_but_while_a_graph_is_traced():
    found = []

    def function(x):
        found.append(is_known(x))
        return x

    function(ops.ones(()))
    compiled(function)(ops.ones(()))
    assert found == [True, BACKEND == "torch"]
    assert not is_known(keras.KerasTensor(()))


@pytest.mark.parametrize("axis", [None, (1,), (0, 2)])
def test_all_of_some_flags_is_that_of_numpy(axis):
    flags = np.random.default_rng(0).random((4, 5, 3)) < 0.97
    for given in (flags, np.ones_like(flags), np.zeros_like(flags)):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(all_of(ops.convert_to_tensor(given), axis)), given.all(axis)
        )


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4), -1), ((2, 3, 4), (0, 2)), ((0, 3, 4), -1), ((3, 0, 4), 2)])
def test_the_largest_entries_are_those_of_numpy_also_where_there_are_none(shape, axis, keepdims):
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    found = ops.convert_to_numpy(largest_along(ops.convert_to_tensor(x), axis, keepdims=keepdims))
    np.testing.assert_array_equal(found, x.max(axis, keepdims=keepdims))
