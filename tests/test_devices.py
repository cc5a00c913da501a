"""The page "Beyond one device": what is trained on four devices is what is trained on one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import keras
import pytest
from page_scripts import BACKEND, ROOT, scripts

from lib.experiments.devices import PROGRAMS, losses

pytestmark = pytest.mark.backends

SCRIPTS = scripts(ROOT / "book" / "devices.md")
HERE = [script for script in SCRIPTS if BACKEND in script.backends]


@pytest.mark.parametrize("script", HERE, ids=[f"script {SCRIPTS.index(script) + 1}" for script in HERE])
def test_a_script_prints_what_the_page_says(script):
    if "submitit" in script.code and find_spec("submitit") is None:
        pytest.skip("submitit is installed by `make test-backends`")
    if "MirroredStrategy" in script.code and keras.__version__.startswith("3.8."):
        pytest.skip(
            "Keras 3.8 trains the same weights there and reports the loss of one replica, of plain layers too"
        )
    assert script.run() == script.printed


def test_every_block_of_the_page_is_one_of_the_scripts():
    page = (ROOT / "book" / "devices.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) == page.count("```python") == page.count("```text") == 3


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_learns(program):
    first, *_, last = losses(program)
    assert last < first


def test_an_unknown_program_is_refused():
    with pytest.raises(ValueError, match="program must be one of tagger, attention, recompute, got 'hmm'"):
        losses("hmm")


#: Trains models on two devices and on one. Their penalty is as large as their loss, and all texts have one length.
TRAINING = """
import keras, numpy as np, tensorflow as tf
from lib.extraction import Cascade
from lib.tagging import Softmax, Tagger
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

x = np.arange(32).reshape(8, 4) % 9
subject = np.tile([0, 2], (8, 1))
pointers = (np.arange(64).reshape(8, 4, 2) % 3 == 0).astype("float32")

def tagger(encoder):
    return Tagger(encoder, Softmax(3)), (x, x % 3)

def cascade(encoder):
    model = Cascade(encoder, predicates=1, padding=99)
    return model, ({"ids": x, "subject": subject}, {"subjects": pointers, "objects": pointers[:, :, None]})

def weights(make):
    keras.utils.set_random_seed(0)
    embed = keras.layers.Embedding(9, 4, embeddings_initializer="ones")
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    model, data = make(keras.Sequential([embed, dense]))
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(*data, epochs=4, shuffle=False, verbose=0)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])

both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for make in (tagger, cascade):
    with both.scope():
        two = weights(make)
    one = weights(make)
    print(make.__name__, np.allclose(two, one, atol=1e-5), np.abs(two - one).max())
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow")
def test_a_model_that_brings_its_loss_is_trained_on_two_devices_as_on_one():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    run = subprocess.run([sys.executable, "-c", TRAINING], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]
    told = [line.split()[:2] for line in run.stdout.splitlines()]
    assert told == [["tagger", "True"], ["cascade", "True"]], run.stdout
