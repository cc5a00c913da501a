"""What orthogonality costs: one compiled training step of a 512-unit dense layer at batch 256.

    KERAS_BACKEND=jax python -m pytest tests/bench/bench_orthogonality.py

Each round times a step of the plain layer and one of the variant, one after the other, so that a busy machine
slows both. ``times`` in the extra information is the median of the quotients.
"""

from statistics import median
from time import perf_counter

import keras
import numpy as np
import pytest

from lib.orthogonality import (
    MutualCoherence,
    OffDiagonalOrthogonality,
    Orthogonalized,
    SelfOrthogonality,
    SoftOrthogonality,
    SpectralIsometry,
)

UNITS, BATCH, ROUNDS = 512, 256, 100


def dense(penalty=None):
    return keras.layers.Dense(UNITS, activation="relu", kernel_regularizer=penalty)


VARIANTS = {
    "plain": dense,
    "self-orthogonality, paper": lambda: SelfOrthogonality(dense()),
    "self-orthogonality, corrected": lambda: SelfOrthogonality(dense(), centred=True, scale_invariant=True),
    "self-orthogonality, half the samples": lambda: SelfOrthogonality(dense(), sample_stride=2),
    "SRIP, 1 iteration": lambda: dense(SpectralIsometry(1e-4, iterations=1)),
    "SRIP, 10 iterations": lambda: dense(SpectralIsometry(1e-4)),
    "soft": lambda: dense(SoftOrthogonality(1e-4)),
    "off-diagonal": lambda: dense(OffDiagonalOrthogonality(1e-4)),
    "mutual coherence": lambda: dense(MutualCoherence(1e-4)),
    "orthogonalized": lambda: Orthogonalized(dense()),
}


def training_step(layer, inputs):
    """A function that runs one step, forward, backward and Adam, as ``fit`` compiles it; it returns when done."""
    model = keras.Sequential([keras.Input((inputs,)), layer])
    model.compile(keras.optimizers.Adam(1e-4), "mse", jit_compile="auto")
    rng = np.random.default_rng(0)
    x = keras.ops.convert_to_tensor(rng.standard_normal((BATCH, inputs)), "float32")
    y = keras.ops.convert_to_tensor(rng.standard_normal((BATCH, UNITS)), "float32")

    def step():
        model.train_on_batch(x, y)

    step()
    return step


def seconds(step):
    start = perf_counter()
    step()
    return perf_counter() - start


@pytest.mark.parametrize("inputs", [512, 2048])
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_step(benchmark, variant, inputs):
    benchmark.group = f"{inputs} inputs, {keras.backend.backend()}"
    plain, step = training_step(dense(), inputs), training_step(VARIANTS[variant](), inputs)
    quotients = []
    benchmark.pedantic(step, setup=lambda: quotients.append(seconds(plain)), rounds=ROUNDS, warmup_rounds=5)
    times = [s / p for s, p in zip(benchmark.stats.stats.data, quotients[5:], strict=True)]
    benchmark.extra_info["times"] = round(median(times), 3)
