"""What the book needs on Colab beyond what Colab has: only a Keras that is not too old."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from lib import KERAS_MINIMUM


def prepare() -> bool:
    """Upgrade Keras where it is older than ``lib.KERAS_MINIMUM``; install nothing else.

    Returns:
        Whether Keras was upgraded.

    Raises:
        RuntimeError: Keras is too old and already imported: the session must be restarted first.
    """
    if not is_older(_installed(), KERAS_MINIMUM):
        return False
    if "keras" in sys.modules:
        raise RuntimeError(
            f"Keras {_installed()} is older than {KERAS_MINIMUM} and already loaded: choose Runtime > Restart "
            "session, then run the setup cell first"
        )
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"keras>={KERAS_MINIMUM}"]
    subprocess.run(command, check=True)
    return True


def is_older(found: str, minimum: str) -> bool:
    """Whether a version is older than another, number by number.

    Example:
        >>> is_older("3.10.0", "3.8.0"), is_older("3.7", "3.8.0"), is_older("", "3.8.0")
        (False, True, True)
    """
    return _numbers(found) < _numbers(minimum)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".") if part.isdigit()]


def _installed() -> str:
    try:
        return version("keras")
    except PackageNotFoundError:
        return ""
