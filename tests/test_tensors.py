"""What ideas ask of tensors: right ones pass, wrong ones are named, a mask means one thing."""

import keras
import numpy as np
import pytest
from keras import ops
from numerics import BACKEND, array, compiled, normal

from lib._tensors import as_tensor, checked_mask, or_nan, require, require_shape
from lib.attention import linear_attention

pytestmark = pytest.mark.backends

RIGHT = {
    "list": [[1.0, 2.0]],
    "array": np.ones((1, 2), "int8"),
    "unsigned": np.ones((1, 2), "uint8"),
    "booleans": np.ones((1, 2), bool),
    "masked, but nothing is": np.ma.masked_array([[1.0, 2.0]], mask=[[False, False]]),
}
WRONG = {
    "none": (None, "must be a tensor of numbers, got None"),
    "text": (["a"], "must be a tensor of numbers, got "),
    "text in an array": (np.array([["False"]]), "must be a tensor of numbers, got "),
    "ragged": ([[1], [2, 3]], "must be a rectangular array of numbers, got "),
    "objects": (np.array([None, 1]), "must be a tensor of numbers, got "),
    "complex": (
        np.ones(2, "complex64"),
        "must hold booleans or integers or unsigned integers or floats, got complex64",
    ),
    "masked": (np.ma.masked_array([1.0, 2.0], mask=[False, True]), "must be an array without masked entries"),
}


@pytest.mark.parametrize("value", RIGHT.values(), ids=RIGHT)
def test_numbers_become_a_tensor(value):
    np.testing.assert_array_equal(array(as_tensor("x", value)), np.asarray(value))


@pytest.mark.parametrize(("value", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_tensor_of_numbers_is_named(value, message):
    with pytest.raises(ValueError, match=f"^x {message}"):
        as_tensor("x", value)


def test_floats_of_half_precision_and_tensors_pass():
    for dtype in ("bfloat16", "float16", "float32"):
        assert keras.backend.standardize_dtype(as_tensor("x", ops.ones(3, dtype)).dtype) == dtype
    assert as_tensor("x", keras.Variable([1.0])) is not None
    with pytest.raises(ValueError, match=r"^x must hold integers, got float32"):
        as_tensor("x", ops.ones(3), kinds="i")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_integers_of_every_type_keep_their_values(dtype):
    for given in (np.array([[0, 127]], dtype), np.array(127, dtype), np.zeros((0, 2), dtype)):
        np.testing.assert_array_equal(array(ops.cast(as_tensor("x", given), "int32")), given)


def test_integers_that_a_backend_cannot_hold_are_named_not_wrapped():
    longest = {"tensorflow": 2**64 - 1, "jax": 2**32 - 1, "torch": 2**63 - 1}[BACKEND]
    np.testing.assert_array_equal(array(as_tensor("x", np.array([longest], "uint64"))).astype("uint64"), longest)
    if BACKEND != "tensorflow":
        with pytest.raises(ValueError, match=rf"^x must hold integers from .* to {longest} on {BACKEND}, got"):
            as_tensor("x", np.array([longest + 1], "uint64"))
    if BACKEND == "jax":
        with pytest.raises(ValueError, match=r"^x must hold integers .* to 2147483647 on jax, got 4294967296"):
            as_tensor("x", np.array([2**32]))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tensors of TensorFlow")
def test_ragged_sparse_and_text_tensors_are_named():
    import tensorflow as tf

    for wrong in (tf.ragged.constant([[1.0], [2.0, 3.0]]), tf.sparse.from_dense([[1.0]])):
        with pytest.raises(ValueError, match=r"^x must be a dense tensor, got a (Ragged|Sparse)Tensor"):
            as_tensor("x", wrong)
    with pytest.raises(ValueError, match=r"^x must be a tensor of numbers"):
        as_tensor("x", tf.constant(["a"]))


def test_a_shape_is_named_with_what_it_must_fit():
    x = ops.zeros((2, 3))
    assert require_shape("x", x, (None, 3)) is x
    for expected in ((3, 2), (2, 3, 1), (2,)):
        with pytest.raises(ValueError, match=r"^x must have shape .* to fit emissions, got \(2, 3\)"):
            require_shape("x", x, expected, to_fit="emissions")


@pytest.mark.parametrize("dtype", ["bool", "int32", "uint8", "float32", "bfloat16"])
def test_a_mask_of_zeros_and_ones_is_boolean(dtype):
    given = np.array([[True, False, True], [False, False, True]])
    mask, valid = checked_mask(ops.cast(given, dtype), (2, 3))
    np.testing.assert_array_equal(array(mask), given)
    assert array(valid).all()
    assert array(mask).dtype == bool


WRONG_MASKS = [[[0.0, -1e4]], [[1, -1]], [[np.nan, 1.0]], [[2, 0]], [[0.5, 1.0]], [[-np.inf, 0.0]]]


@pytest.mark.parametrize("mask", WRONG_MASKS, ids=str)
def test_any_other_mask_is_refused_where_its_values_are_known(mask):
    with pytest.raises(
        ValueError, match=r"^mask must hold True or 1 where a step is valid, False or 0 elsewhere, got"
    ):
        checked_mask(np.array(mask, "float32"), (1, 2))


@pytest.mark.parametrize("mode", {"tensorflow": ["graph", "xla"], "jax": ["jit"], "torch": []}[BACKEND])
def test_compiled_code_refuses_it_or_marks_its_row(mode):
    def function(mask):
        flags, valid = checked_mask(mask, (2, 2))
        return or_nan(ops.cast(flags, "float32"), valid)

    mask = np.array([[1, 0], [0, -1e4]], "float32")
    if mode == "graph":
        with pytest.raises(Exception, match="mask must hold True or 1"):
            compiled(function, mode)(ops.convert_to_tensor(mask))
    else:
        found = array(compiled(function, mode)(ops.convert_to_tensor(mask)))
        np.testing.assert_array_equal(found, [[1, 0], [np.nan, np.nan]])


def test_a_mask_is_not_broadcast():
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 3\) to fit x, got \(1, 3\)"):
        checked_mask(np.ones((1, 3), bool), (2, 3), to_fit="x")


def test_a_condition_says_what_came():
    require(ops.convert_to_tensor(True), "x must be even", lambda: 1)
    with pytest.raises(ValueError, match=r"^x must be even, got 3$"):
        require(ops.convert_to_tensor(False), "x must be even", lambda: 3)


UNUSUAL = {
    "backwards": lambda x: np.flip(np.flip(x).copy()),
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "columns first": np.asfortranarray,
    "broadcast": lambda x: np.broadcast_to(x, (2, *x.shape))[1],
    "the other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "wider than 64 bits": lambda x: x.astype("longdouble") if x.dtype.kind == "f" else x,
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("how", UNUSUAL)
def test_an_array_is_read_however_it_lies_in_memory(how, dtype):
    x = np.arange(6).reshape(2, 3).astype(dtype)
    given = UNUSUAL[how](x)
    np.testing.assert_array_equal(ops.convert_to_numpy(as_tensor("x", given)), x)


def test_a_variable_is_read_and_has_its_gradient():
    v, x = keras.Variable(normal(1, 4, 2, 3)), normal(1, 4, 2, 3, seed=1)
    for given in (v, v.value):
        out = linear_attention(x, x, given, causal=True)
        np.testing.assert_array_equal(array(out), array(linear_attention(x, x, array(v), causal=True)))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.sum(linear_attention(x, x, v, causal=True))
        gradient = tape.gradient(loss, v.value)
        assert float(ops.sum(gradient)) == pytest.approx(4 * 2 * 3, rel=1e-4)  # weights of a query sum to 1
