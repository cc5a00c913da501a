"""What chapters 6 and 7 share: one schedule of the rate, the compiler where it pays, any loss."""

import keras
import numpy as np
from keras import ops

from lib.experiments import training
from lib.experiments.training import compiled, train


class Line(keras.Model):
    """A number w, and the loss w x: the gradient is x, so Adam moves w by the learning rate of each step."""

    def build(self, _):
        self.w = self.add_weight(shape=(), initializer="zeros", name="w")

    def call(self, x):
        return self.w * x

    def compute_loss(self, x=None, y=None, y_pred=None, *_, **__):  # noqa: ARG002
        return ops.mean(y_pred)


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_along_a_cosine():
    model, count, rate = Line(), 40, 0.01
    ones = np.ones((2, 1), "float32")
    losses = train(model, ((ones, ones) for _ in range(count)), count, rate)
    moves = -np.diff([*losses, float(ops.convert_to_numpy(model.w))])
    step = np.arange(count)
    cosine = (1 + np.cos(np.pi * (step - 4) / 36)) / 2
    expected = rate * np.where(step < 4, step / 4, cosine)
    np.testing.assert_allclose(moves, expected, atol=2e-5)
    assert losses[0] == 0


def test_the_compiler_is_that_of_jax_and_of_gpus(monkeypatch):
    device = training.measure.device()
    monkeypatch.setattr(training.measure, "device", lambda: type(device)(**{**vars(device), "kind": "cpu"}))
    for backend in ("tensorflow", "jax"):
        monkeypatch.setattr(keras.backend, "backend", lambda backend=backend: backend)
        assert compiled() == (backend == "jax")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(training.measure, "device", lambda: type(device)(**{**vars(device), "kind": "gpu"}))
    assert compiled()


def test_a_loss_may_be_named():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    losses = train(model, 2 * [(np.array([[1.0]]), np.array([[3.0]]))], 2, 0.1, loss="mse")
    assert losses[0] == 9
