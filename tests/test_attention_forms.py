"""Truths about ``lib.attention.forms``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from numerics import normal

from lib.attention import Attention, delta_rule, gated_attention, linear_attention, retention, softmax_attention
from lib.attention.forms import (
    FORMS,
    DeltaRule,
    DoubleSoftmax,
    Form,
    Gate,
    Gated,
    Linear,
    Options,
    Retention,
    Softmax,
    VectorGated,
)

pytestmark = pytest.mark.backends


Q, K, V = (normal(2, 5, 2, 3, seed=seed) for seed in range(3))
GATE = normal(2, 5, 2, seed=3)
GATES = normal(2, 5, 2, 3, seed=4)


def attended(form, gate=None, causal=True, **options):
    options = form.resolved(Options(**options))
    return form.attend(Q, K, V, causal=causal, mask=None, gate=gate, options=options)


def close(one, other):
    one, other = (ops.convert_to_numpy(x) for x in (one, other))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_each_form_is_the_function_of_its_name():
    close(attended(Softmax()), softmax_attention(Q, K, V, causal=True, scale=1.0))
    close(attended(Softmax(fused=True)), softmax_attention(Q, K, V, causal=True, scale=1.0))
    for causal in (False, True):
        close(attended(Linear(), causal=causal), linear_attention(Q, K, V, causal=causal))
    close(
        attended(Linear(), feature_map="exp", normalize=None),
        linear_attention(Q, K, V, "exp", causal=True, normalize=None),
    )
    close(attended(Retention()), retention(Q, K, V))
    close(attended(Gated(), GATE), gated_attention(Q, K, V, ops.log_sigmoid(ops.convert_to_tensor(GATE))))
    log_decay = ops.log_sigmoid(ops.convert_to_tensor(GATES)) / 16
    close(attended(VectorGated(), GATES), gated_attention(Q, K, V, log_decay))
    close(
        attended(DeltaRule(), GATE), delta_rule(Q, K, V, ops.sigmoid(ops.convert_to_tensor(GATE)), normalize="rms")
    )


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if True in form.causal])
def test_a_prefill_and_steps_give_what_the_whole_gives(name):
    form = FORMS[name]
    gate = (GATES if form.gate.by_feature else GATE) if form.gate else None
    whole = ops.convert_to_numpy(attended(form, gate))
    given = {"mask": None, "options": form.resolved(Options()), "capacity": None}
    out, state = form.prefill(
        Q[:, :3], K[:, :3], V[:, :3], None, gate=None if gate is None else gate[:, :3], **given
    )
    close(out, whole[:, :3])
    for t in (3, 4):
        gate_t = None if gate is None else gate[:, t]
        out, state = form.step(Q[:, t], K[:, t], V[:, t], state, gate=gate_t, **given)
        close(out, whole[:, t])


def test_a_form_says_what_the_layer_may_be():
    assert FORMS["double softmax"].causal == DoubleSoftmax.causal == (False,)
    always = {name for name, form in FORMS.items() if form.causal == (True,)}
    assert always == {"retention", "gated", "vector gated", "delta rule"}
    wide = Gate("gate", 0.0, by_feature=True, rank=16)
    assert {form.gate for form in FORMS.values()} == {None, Gate("gate", 4.0), Gate("rate", 0.0), wide}
    for way in ("attend", "prefill", "step"):
        given = {"mask": None, "gate": None, "options": Options()}
        given |= {"causal": True} if way == "attend" else {"state": None, "capacity": None}
        with pytest.raises(NotImplementedError):
            getattr(Form(), way)(Q, K, V, **given)


def test_a_form_of_ones_own_is_a_class_of_a_few_lines(monkeypatch):
    class Last(Form):
        """A token sees itself, as much as its gate says."""

        gate = Gate("share", bias=0.0)

        def attend(self, q, k, v, *, gate, **_):  # noqa: ARG002
            return v * ops.sigmoid(gate)[..., None]

        def step(self, q, k, v, state, *, gate, **_):  # noqa: ARG002
            return v * ops.sigmoid(gate)[..., None], None

    monkeypatch.setitem(FORMS, "last", Last())
    layer, x = Attention(2, "last", causal=True), normal(2, 4, 6)
    whole = layer(x)
    assert tuple(whole.shape) == (2, 4, 6)
    assert len(layer.weights) == 10
    close(layer.step(x[:, 3])[0], whole[:, 3])


def test_a_form_has_habits_and_refuses_options_of_others():
    assert FORMS["linear"].resolved(Options()) == Options("elu+1", "sum")
    assert FORMS["linear"].resolved(Options(None, None)) == Options(None, None)
    assert FORMS["gated"].resolved(Options()) == Options(None, "rms")
    assert FORMS["softmax"].resolved(Options()) == Options(None, None)
    for name, given, message in [
        ("softmax", Options(feature_map="elu+1"), "feature_map must be left at 'auto' in this form, got 'elu.1'"),
        ("retention", Options(feature_map=None), "feature_map must be left at 'auto' in this form, got None"),
        ("softmax", Options(normalize="rms"), "normalize must be 'auto' in this form, got 'rms'"),
        ("double softmax", Options(normalize=None), "normalize must be 'auto' in this form, got None"),
        ("delta rule", Options(normalize="sum"), "normalize must be 'auto' or 'rms' or None in this form"),
        ("linear", Options(normalize="none"), "normalize must be 'auto' or 'sum' or 'rms' or None in this form"),
        ("linear", Options(feature_map="nonsense"), "feature_map must be one of 'elu.1', .* got 'nonsense'"),
        ("linear", Options(feature_map=None), "feature_map must be one of .* None, got None"),
        ("linear", Options(feature_map=3, normalize=None), "feature_map must be one of .* got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            FORMS[name].resolved(given)


def test_causal_is_a_boolean_of_python_or_of_numpy():
    assert Attention(2, "linear", causal=np.False_).causal is False
    assert Attention(2, "retention", causal=np.True_).causal is True
    for causal in (None, 1, "False"):
        with pytest.raises(ValueError, match=f"causal must be True or False, got {causal!r}"):
            Attention(2, "linear", causal=causal)
