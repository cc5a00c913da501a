"""Running out of memory: a result, not an accident."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lib.workbench.measure.timing import ready

T = TypeVar("T")


@dataclass(frozen=True)
class OutOfMemory:
    """The result of a call for which the memory did not suffice. It is false, and prints as "out of memory".

    Attributes:
        requested: what the backend said it could not have.

    Example:
        >>> print(OutOfMemory("8 GiB"), bool(OutOfMemory("8 GiB")))
        out of memory False
    """

    requested: str

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "out of memory"


def attempt(function: Callable[[], T]) -> T | OutOfMemory:
    """Calls the function; running out of memory comes back as a value, on every backend.

    Args:
        function: called without arguments.

    Returns:
        What the function returns, or :class:`OutOfMemory`. Every other error passes through.

    Example:
        >>> import numpy as np
        >>> print(attempt(lambda: np.zeros(2**50)))
        out of memory
        >>> attempt(lambda: 1 + 1)
        2
    """
    try:
        return ready(function())
    except Exception as error:
        if not _is_exhaustion(error):
            raise
        return OutOfMemory(_request_in(str(error)) or type(error).__name__)


_EXHAUSTED = re.compile(
    "resource.exhausted|out.of.memory|oom when allocating|can't allocate memory|not enough memory"
    "|alloc_failed|failed to allocate",
    re.IGNORECASE,
)


def _is_exhaustion(error: Exception) -> bool:
    """Whether the error says that memory ran out, told without importing a backend."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}:
        return True
    # torch on a CPU and JAX raise a RuntimeError for everything, Keras wraps errors in one: the text decides.
    speaks = isinstance(error, RuntimeError) or type(error).__module__.startswith("tensorflow")
    return speaks and bool(_EXHAUSTED.search(str(error)))


def _request_in(message: str) -> str:
    """The line of the message that says what was asked for, without TensorFlow's node names."""
    lines = [re.sub(r"\{\{.*?\}\} ?", "", line).strip() for line in message.splitlines()]
    lines = list(filter(None, lines))
    return next(filter(_EXHAUSTED.search, lines), lines[0] if lines else "")
