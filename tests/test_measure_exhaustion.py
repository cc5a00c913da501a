"""Truths about running out of memory: it comes back as a value, on every backend, and nothing else does."""

import weakref

import pytest

from lib.workbench.measure import OutOfMemory, attempt


def error_named(name: str, base: type[Exception], module: str = "builtins") -> type[Exception]:
    return type(name, (base,), {"__module__": module})


XLA = error_named("JaxRuntimeError", RuntimeError, "jax.errors")
TORCH = error_named("OutOfMemoryError", RuntimeError, "torch")
TENSORFLOW = error_named("ResourceExhaustedError", Exception, "tensorflow.python.framework.errors_impl")
INTERNAL = error_named("InternalError", Exception, "tensorflow.python.framework.errors_impl")


@pytest.mark.parametrize(
    ("error", "requested"),
    [
        (MemoryError(), "MemoryError"),
        (MemoryError("Unable to allocate 8 TiB"), "Unable to allocate 8 TiB"),
        (TENSORFLOW("{{function_node a}} OOM when allocating tensor with shape[9]"), "OOM when allocating"),
        (INTERNAL("Failed to allocate 12 bytes"), "Failed to allocate 12 bytes"),
        (TORCH("CUDA out of memory. Tried to allocate 20 GiB."), "Tried to allocate 20 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes"), "4 bytes"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: 4 bytes"), "4 bytes"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "CUBLAS_STATUS_ALLOC_FAILED"),
        (XLA("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes."), "allocating 4 bytes"),
        (XLA("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY"), "CUDA_ERROR_OUT_OF_MEMORY"),
        (
            RuntimeError("Exception when calling Dense.call().\n\nOOM when allocating [2]\n"),
            "OOM when allocating [2]",
        ),
    ],
)
def test_running_out_of_memory_comes_back_as_a_value_that_says_what_was_asked(error, requested):
    def function():
        raise error

    result = attempt(function)
    assert isinstance(result, OutOfMemory)
    assert requested in result.requested
    assert "{{" not in result.requested
    assert "\n" not in result.requested
    assert not result
    assert str(result) == "out of memory"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the text may say out of memory"),
        RuntimeError("shapes differ"),
        XLA("INVALID_ARGUMENT: shapes differ"),
        INTERNAL("shapes differ"),
        KeyboardInterrupt(),
    ],
)
def test_every_other_error_passes_through(error):
    def function():
        raise error

    with pytest.raises(type(error)):
        attempt(function)


def test_after_running_out_nothing_of_the_call_is_held():
    class Large:
        pass

    seen = []

    def function():
        large = Large()
        seen.append(weakref.ref(large))
        raise MemoryError

    result = attempt(function)
    assert seen[0]() is None
    assert not result


@pytest.mark.backends
def test_an_allocation_that_the_backend_refuses_is_out_of_memory(keras):
    def refused():
        if keras.config.backend() == "tensorflow":  # its allocator hopes for ten seconds before it raises this
            import tensorflow as tf

            raise tf.errors.ResourceExhaustedError(
                None, None, "OOM when allocating tensor with shape[8388608,8388608]"
            )
        return keras.ops.ones((2**23, 2**23))

    result = attempt(refused)
    assert isinstance(result, OutOfMemory)
    assert "8388608" in result.requested or str(2**48) in result.requested
    assert float(attempt(lambda: keras.ops.sum(keras.ops.ones((3,))))) == 3.0
