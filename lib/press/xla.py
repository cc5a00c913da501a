"""Plays a machine with a GPU where there is none: there Keras compiles every model with XLA, on TensorFlow too.

Loading this module does it, and the environment makes a process load it: a kernel by ``PYTHONSTARTUP``, pytest by
``PYTEST_PLUGINS``. What a user asks for, ``compile(jit_compile=False)``, stays as asked, as on a GPU.
"""

from __future__ import annotations

from keras.src.trainers import trainer


def _as_with_a_gpu(model: trainer.Trainer) -> bool:
    """What ``jit_compile="auto"`` means on TensorFlow with a GPU and without a distribution."""
    return not getattr(model, "_distribute_strategy", None) and trainer.model_supports_jit(model)


trainer.Trainer._resolve_auto_jit_compile = _as_with_a_gpu
