"""Truths about time: samples, turns, ratios, and waiting for what is computed elsewhere."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lib.workbench.measure import Contest, Estimate, Timing, contest, ready, time_of, timing


class Clock:
    """A clock that only the timed functions move; the machine may grow slower and slower."""

    def __init__(self, drift: float = 1.0):
        self.now, self.speed, self.drift, self.calls = 0.0, 1.0, drift, []

    def work(self, name: str, seconds: float):
        def function():
            self.calls.append(name)
            self.now += seconds * self.speed
            self.speed *= self.drift

        return function


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    return clock


def test_a_timing_holds_every_sample_and_their_median(clock):
    lengths = iter([9.0, 9.0, 1.0, 5.0, 2.0])

    def function():
        clock.now += next(lengths)

    timing = time_of(function, repeats=3, warmup=2)
    assert timing == Timing((1.0, 5.0, 2.0))
    assert timing.median == 2.0
    assert str(Timing((0.00123,))) == "1.23 ms"


def test_contestants_take_turns_and_turns_at_being_first(clock):
    contest({"a": clock.work("a", 1), "b": clock.work("b", 1)}, repeats=6, warmup=1)
    rounds = ["".join(clock.calls[i : i + 2]) for i in range(0, len(clock.calls), 2)]
    assert rounds == ["ba", "ab", "ba", "ab", "ba", "ab", "ba"]


def test_the_ratio_survives_a_machine_that_grows_slower(clock):
    clock.drift = 1.05
    slow_then_fast = time_of(clock.work("b", 1), repeats=20).median / time_of(clock.work("a", 2), repeats=20).median
    assert slow_then_fast < 0.25  # one after the other: half the work seems less than a quarter
    race = contest({"a": clock.work("a", 2), "b": clock.work("b", 1)}, repeats=20)
    ratio = race.ratio("a", "b")
    assert ratio.low <= 2 <= ratio.high
    assert (ratio.low, ratio.high) == pytest.approx((2 / 1.05, 2 * 1.05), rel=1e-9)


def test_a_ratio_is_the_median_of_the_rounds_with_its_interval():
    race = Contest({"a": Timing((2.0, 4.0, 6.0, 3.0, 5.0, 7.0, 8.0)), "b": Timing((1.0,) * 7)})
    assert race.ratio("a", "b") == Estimate(5.0, 2.0, 8.0)
    assert race.ratio("a", "b").p_value(1.5) == pytest.approx(2 / 2**7, rel=1e-4)  # all seven on one side
    assert race["b"].median == 1.0
    assert str(race) == "a 5e+03 ms, b 1e+03 ms"


def test_a_contest_finds_a_real_difference(clock):
    race = contest({"long": clock.work("a", 0.016), "short": clock.work("b", 0.002)}, repeats=9, warmup=1)
    assert race.ratio("long", "short").low > 2
    assert race.ratio("short", "long").high < 0.5


@pytest.mark.parametrize(("repeats", "warmup"), [(0, 1), (3, -1)])
def test_a_timing_needs_a_call(repeats, warmup):
    with pytest.raises(ValueError, match="repeats, warmup: got"):
        time_of(int, repeats=repeats, warmup=warmup)


def test_a_contest_needs_contestants_and_six_rounds():
    with pytest.raises(ValueError, match="repeats ≥ 6"):
        contest({"a": int}, repeats=5)
    with pytest.raises(ValueError, match="contestants: got none"):
        contest({})


def test_ready_waits_for_every_tensor_of_a_nested_result():
    waited = []

    class Array:
        def block_until_ready(self):
            waited.append(self)

    arrays = [Array() for _ in range(4)]
    value = {"a": arrays[0], "b": (arrays[1], [arrays[2], None, 1.5]), "c": {"d": arrays[3]}}
    assert ready(value) is value
    assert waited == arrays


def test_ready_synchronises_the_device_of_a_cuda_tensor_and_none_for_another(monkeypatch):
    Tensor = type("Tensor", (), {"__module__": "torch", "is_cuda": True, "device": "cuda:1"})
    synchronised = []
    torch = SimpleNamespace(cuda=SimpleNamespace(synchronize=synchronised.append))
    monkeypatch.setitem(sys.modules, "torch", torch)
    host = Tensor()
    host.is_cuda = False
    ready([Tensor(), host])
    assert synchronised == ["cuda:1"]


def test_ready_synchronises_tensorflow(monkeypatch):
    Tensor = type("Tensor", (), {"__module__": "tensorflow.python.framework.ops"})
    synchronised = []
    experimental = SimpleNamespace(sync_devices=lambda: synchronised.append(1))
    tensorflow = SimpleNamespace(test=SimpleNamespace(experimental=experimental))
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    ready(Tensor())
    assert synchronised == [1]


@pytest.mark.backends
def test_ready_takes_tensors_and_variables_of_the_backend(keras):
    for value in (keras.ops.ones((2,)), keras.Variable(np.ones(2))):
        assert ready(value) is value
