"""Truths about ``lib.theseus``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib import import_module
from itertools import product

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops
from numerics import array, compiled, normal
from search import examples, floats

from lib.bert import Block, Encoder, SelfAttention
from lib.theseus import GATES, ModuleReplacement, ReplacementRate, anti_curriculum, curriculum, twin
from lib.theseus.rates import checked_rate, rate_at

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
JIT = False if BACKEND == "tensorflow" else "auto"  # XLA takes long to compile, and has a test of its own
serializable = keras.saving.register_keras_serializable(package="test_theseus")
few = examples(15)
rates = floats(0, 1)


def close(ones, others, **tolerance):
    np.testing.assert_allclose(array(ones), array(others), **{"rtol": 1e-5, "atol": 1e-6, **tolerance})


def values(variables):
    return [array(variable) for variable in variables]


# --- layers -----------------------------------------------------------------------------------------------------


@serializable
class Affine(layers.Layer):
    """x ↦ scale · x + shift."""

    def __init__(self, scale=1.0, shift=0.0, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.shift = scale, shift

    def call(self, x):
        return self.scale * x + self.shift

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "shift": self.shift}


@serializable
class Counted(Affine):
    """Counts in a variable how often it was called."""

    def build(self, *_):
        self.count = self.add_weight((), "zeros", "float32", trainable=False)
        self.built = True

    def call(self, x):
        self.count.assign_add(1.0)
        return super().call(x)


class Witnessed(Affine):
    """Counts outside the compiled program how often it was computed."""

    def __init__(self, *args):
        super().__init__(*args)
        self.runs = 0

    def run(self, *_):
        self.runs += 1

    def call(self, x):
        if BACKEND == "tensorflow":
            import_module("tensorflow").numpy_function(self.run, [], [])
        elif BACKEND == "jax":
            import_module("jax").debug.callback(self.run)
        else:
            self.run()
        return super().call(x)


@serializable
class Silent(layers.Layer):
    """Drops out without a word about training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(0.5, seed=3)

    def call(self, x):
        return self.dropout(x)


def dense(units=3, seed=0, **options):
    start = keras.initializers.GlorotNormal(seed=seed)
    bias = keras.initializers.RandomNormal(seed=seed + 100)
    return layers.Dense(units, "tanh", kernel_initializer=start, bias_initializer=bias, **options)


def dense_body(rate=0.5, gates="batch", seed=0):
    """Two modules, of two layers and of one, each to be replaced by one."""
    predecessors, successors = [[dense(5, 1), dense(4, 2)], dense(3, 3)], [dense(4, 4), [dense(3, 5)]]
    body = ModuleReplacement(predecessors, successors, rate, gates, seed)
    body.build((None, 4))
    return body


def marked(n=3, rate=0.5, gates="batch", make=Affine):
    """Modules whose outputs tell the gates: successor i adds 2^i, predecessors add nothing."""
    body = ModuleReplacement([make() for _ in range(n)], [make(1.0, 2.0**i) for i in range(n)], rate, gates, seed=1)
    body.build((None, 1))
    return body


def encoder(dropout=0.0):
    keras.utils.set_random_seed(0)
    bert = Encoder.from_sizes(7, hidden=4, layers=2, num_heads=2, inner=8, positions=320, dropout=dropout, seed=1)
    bert.build((None, 3))
    for i, variable in enumerate(bert.trainable_variables):
        variable.assign(variable + 0.3 * normal(*variable.shape, seed=(7, i)))
    return bert


def bert_body(dropout=0.0):
    """The embeddings of an encoder, and its two blocks to be replaced by those of another one."""
    old = encoder(dropout).blocks
    new = encoder(dropout)
    body = ModuleReplacement(old, [twin(block) for block in new.blocks], seed=0)
    return Encoder(new.embeddings, []), body


X, Y = normal(6, 4), normal(6, 3, seed=1)
IDS = np.array([[1, 2, 0], [3, 3, 1]], "int32")
STATES = normal(2, 3, 4, seed=2)
MASK = np.array([[True, True, False], [True, True, True]])


def chained(modules, x, **told):
    for module in modules:
        x = module(x, **told)
    return x


# --- steps of training ------------------------------------------------------------------------------------------


def step_of(layer):
    """``layer(x, training=True)``, compiled where the backend compiles, with all that it changes."""
    if BACKEND == "tensorflow":
        return import_module("tensorflow").function(lambda x: layer(x, training=True), autograph=False)
    if BACKEND == "torch":
        return partial(layer, training=True)

    @import_module("jax").jit
    def pure(x, before):
        with keras.StatelessScope(list(zip(layer.variables, before, strict=True))) as scope:
            y = layer(x, training=True)
            return y, [scope.get_current_value(variable) for variable in layer.variables]

    def step(x):
        y, after = pure(x, [variable.value for variable in layer.variables])
        for variable, value in zip(layer.variables, after, strict=True):
            variable.assign(value)
        return y

    return step


def drawn(body, steps, batch=2):
    """The gates of so many steps of :func:`marked`, (steps, batch, modules)."""
    step, x = step_of(body), ops.zeros((batch, 1))
    sums = np.array([array(step(x)) for _ in range(steps)])
    return sums.astype(int) >> np.arange(len(body.successors)) & 1


def layers_of(modules):
    return [layer for module in modules for layer in module.layers]


class Gradients:
    """Loss and gradients of a model, by one step of gradient descent with rate 1, which is taken back."""

    def __init__(self, model, variables):
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=JIT)
        self.model, self.variables = model, variables

    def __call__(self, x=X, y=Y):
        before = values(self.variables)
        self.model.reset_metrics()  # Keras 3.8 would return the mean of all losses so far
        loss = float(self.model.train_on_batch(x, y))
        gradients = [b - a for b, a in zip(before, values(self.variables), strict=True)]
        for variable, value in zip(self.variables, before, strict=True):
            variable.assign(value)
        return loss, gradients


def fitted(model, x=X, y=Y, epochs=3, jit=JIT):
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=jit)
    history = model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, shuffle=False).history["loss"]
    assert np.all(np.isfinite(history))
    return history


# --- out of training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", GATES)
def test_out_of_training_it_is_the_chain_of_successors(gates):
    body = dense_body(gates=gates)
    expected = chained(body.successors, X)
    for y in (body(X), body(X, training=False), keras.Sequential([body]).predict(X, verbose=0)):
        close(y, expected)
    assert int(body.iterations) == 0


def test_the_successor_is_a_plain_model_with_the_same_predictions():
    stem, body = bert_body(dropout=0.5)
    head = [layers.GlobalAveragePooling1D(), layers.Dropout(0.5), layers.Dense(2)]
    big = keras.Sequential([stem, body, *head])
    expected = big(IDS)
    small = body.successor(before=[stem], after=head)
    assert type(small) is keras.Sequential
    assert not any(isinstance(layer, ModuleReplacement) for layer in small.layers)
    close(small.predict(IDS, verbose=0), expected)
    longer = np.pad(IDS, [(0, 0), (0, 4)])  # 0 is padding
    for model in (big, small):
        close(model(longer), expected, rtol=1e-4)


def test_all_layers_get_the_mask():
    _, body = bert_body()
    padded, alone = body(STATES, mask=MASK)[:1, :2], body(STATES[:1, :2])
    close(padded, alone)
    for rate, plain in [(0, body.mixture([False, False])), (1, body.successor())]:
        body.rate = rate
        close(body(STATES, mask=MASK, training=True)[:1, :2], plain(STATES[:1, :2]))


@pytest.mark.parametrize("replaced", product([False, True], repeat=2))
def test_a_mixture_is_the_chain_of_the_chosen_modules(replaced):
    body = dense_body()
    modules = [body.successors[i] if new else body.predecessors[i] for i, new in enumerate(replaced)]
    close(body.mixture(replaced)(X), chained(modules, X))
    before, after = Affine(2.0), Affine(3.0)
    close(body.mixture(replaced, [before], [after])(X), after(chained(modules, before(X))))


affine = st.tuples(st.integers(-2, 2), st.integers(-2, 2))
modules_of = st.lists(st.lists(affine, min_size=1, max_size=3), min_size=3, max_size=3)


@few
@given(modules_of, modules_of, st.lists(st.booleans(), min_size=3, max_size=3))
def test_modules_are_lists_of_any_lengths(old, new, replaced):
    body = ModuleReplacement(*([[Affine(*maps) for maps in module] for module in side] for side in (old, new)))
    expected = X
    for chosen in (module[int(gate)] for gate, module in zip(replaced, zip(old, new, strict=True), strict=True)):
        for scale, shift in chosen:
            expected = scale * expected + shift
    np.testing.assert_allclose(array(body.mixture(replaced)(X)), expected, rtol=1e-4, atol=1e-3)


def test_the_first_module_may_be_embeddings_whose_mask_all_others_get():
    old, new = encoder(), encoder()
    predecessors = [[Encoder(old.embeddings, [])], old.blocks]
    successors = [[Encoder(new.embeddings, new.blocks[:1])], new.blocks[1:]]
    body = ModuleReplacement(predecessors, successors, seed=0)
    model = keras.Sequential([body, layers.GlobalAveragePooling1D()])
    expected = model(IDS)
    np.testing.assert_array_equal(array(body.compute_mask(IDS)), IDS != 0)
    close(model(np.pad(IDS, [(0, 0), (0, 2)])), expected)
    for rate, chain in [(0, old), (1, Encoder(new.embeddings, [new.blocks[0], new.blocks[1]]))]:
        body.rate = rate
        close(array(body(IDS, training=True))[IDS != 0], array(chain(IDS))[IDS != 0])
    fitted(model, np.repeat(IDS, 3, 0), normal(6, 4))


# --- gates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", GATES)
def test_rates_0_and_1_train_the_pure_chains(gates):
    body = dense_body(gates=gates)
    for rate, modules in [(0, body.predecessors), (1, body.successors)]:
        body.rate = rate
        close(body(X, training=True), chained(modules, X))


def test_a_batch_draws_a_gate_for_each_module_on_its_own():
    steps, p = 300, 0.3
    body = marked(rate=p)
    gates = drawn(body, steps)
    assert np.all(gates[:, 0] == gates[:, 1])  # of all samples
    each = gates[:, 0]
    np.testing.assert_allclose(each.mean(0), p, atol=5 * np.sqrt(p * (1 - p) / steps))
    alike = [np.corrcoef(a, b)[0, 1] for a, b in [*zip(each.T, each.T[[1, 2, 0]], strict=True)]]
    later = [np.corrcoef(a[1:], a[:-1])[0, 1] for a in each.T]
    assert np.max(np.abs([*alike, *later])) < 5 / np.sqrt(steps)  # 1, if the modules shared a gate
    assert len({tuple(row) for row in each}) == 8
    assert int(body.iterations) == steps


def test_each_sample_may_draw_gates_of_its_own():
    batch, p = 3000, 0.7
    first, second = drawn(marked(rate=p, gates="sample"), 2, batch)
    np.testing.assert_allclose(first.mean(0), p, atol=5 * np.sqrt(p * (1 - p) / batch))
    columns = np.hstack([first, second])
    assert np.max(np.abs(np.corrcoef(columns.T) - np.eye(6))) < 5 / np.sqrt(batch)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_uniform_gates_have_mean_p_in_the_widest_range(p):
    steps = 200
    body = marked(1, p, "uniform")
    step, x = step_of(body), ops.zeros((2, 1))
    z = np.array([array(step(x)) for _ in range(steps)])[..., 0]
    assert np.all(z[:, 0] == z[:, 1])
    low, high = max(0, 2 * p - 1), min(1, 2 * p)
    deviation = (high - low) / np.sqrt(12)
    assert low - 1e-6 <= z.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < z.max() <= high + 1e-6
    np.testing.assert_allclose(z[:, 0].mean(), p, atol=5 * deviation / np.sqrt(steps))
    np.testing.assert_allclose(z[:, 0].std(), deviation, rtol=0.2)


@few
@given(rates)
def test_mean_gates_interpolate_without_chance(p):
    body = dense_body(p, "mean")
    [old, above], [new, top] = body.predecessors, body.successors
    middle = (1 - p) * chained([old], X) + p * chained([new], X)
    expected = (1 - p) * chained([above], middle) + p * chained([top], middle)
    for _ in range(2):
        close(body(X, training=True), expected)


def test_equal_seeds_draw_equal_gates():
    one, other = (drawn(marked(), 20) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("gates", GATES)
def test_equal_seeds_train_to_the_same_weights_to_the_bit(gates, eager):
    def trained():
        old = [[dense(4, 1), layers.Dropout(0.5, seed=1)], dense(4, 2)]
        new = [[dense(4, seed), layers.Dropout(0.5, seed=seed)] for seed in (3, 4)]
        model = keras.Sequential([layers.Dropout(0.1, seed=5), ModuleReplacement(old, new, 0.5, gates, seed=6)])
        model.compile("adam", "mse", run_eagerly=eager, jit_compile=False if eager else JIT)
        for step in range(4):
            model.train_on_batch(normal(16, 4, seed=step), normal(16, 4, seed=10 + step))
        return values([*model.variables, *model.optimizer.variables])

    keras.utils.set_random_seed(1)
    one = trained()
    keras.utils.set_random_seed(2)  # nothing in there asks for it
    for a, b in zip(one, trained(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("gates", GATES)
def test_what_is_computed(gates):
    """With one gate a batch the chosen module alone, else both."""
    body = marked(2, gates=gates, make=Witnessed)
    witnesses = [*layers_of(body.predecessors), *layers_of(body.successors)]
    step, x = step_of(body), ops.zeros((1, 1))
    chosen, steps = np.zeros(2, int), 12
    for witness in witnesses:
        witness.runs = 0
    for _ in range(steps):
        [[total]] = array(step(x))
        chosen += int(total) >> np.arange(2) & 1
    if BACKEND == "jax":
        import_module("jax").effects_barrier()
    runs = [witness.runs for witness in witnesses]
    assert min(chosen) > 0 or gates != "batch"
    assert runs == ([*(steps - chosen), *chosen] if gates == "batch" else 4 * [steps])


# --- what is trained --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", ["batch", "sample"])
def test_the_gradient_is_that_of_the_mixture_that_was_drawn(gates):
    """And so zero for a module that was not drawn, on every backend."""
    body = dense_body(gates=gates)
    weights = body.trainable_variables
    assert len(weights) == 4
    x, y = X[:1], Y[:1]
    mixtures = [Gradients(body.mixture(replaced), weights)(x, y) for replaced in product([0, 1], repeat=2)]
    step, seen = Gradients(keras.Sequential([body]), weights), set()
    for _ in range(12):
        loss, gradients = step(x, y)
        [number] = [i for i, (other, _) in enumerate(mixtures) if abs(loss - other) < 1e-5]
        seen.add(number)
        for one, other in zip(gradients, mixtures[number][1], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    assert len(seen) >= 3
    assert all(np.all(g == 0) for g in mixtures[0][1])
    assert np.all(mixtures[1][1][0] == 0)
    assert np.any(mixtures[1][1][2] != 0)


def test_gradients_pass_through_predecessors_by_finite_differences():
    body = dense_body()
    weight, h = body.successors[0].layers[0].kernel, 1e-2
    model = body.mixture([True, False])  # the first successor, below the second predecessor
    _, [gradient, _] = Gradients(model, body.successors[0].layers[0].trainable_variables)()

    def loss(entry):
        changed = array(weight).copy()
        changed[1, 2] = entry
        before = array(weight)
        weight.assign(changed)
        result = np.mean((array(model(X)).astype("float64") - Y) ** 2)
        weight.assign(before)
        return result

    start = array(weight)[1, 2]
    np.testing.assert_allclose(gradient[1, 2], (loss(start + h) - loss(start - h)) / (2 * h), rtol=1e-3)
    assert abs(gradient[1, 2]) > 1e-3


def test_a_step_without_successors_changes_nothing_and_does_not_fail():
    frozen = [dense(4, trainable=False), dense(3, trainable=False)]
    body = dense_body(rate=0)
    model = keras.Sequential([frozen[0], body, frozen[1]])
    loss, gradients = Gradients(model, body.trainable_variables)()
    assert np.isfinite(loss)
    assert all(np.all(g == 0) for g in gradients)


def test_predecessors_stay_as_they_are():
    old = [[dense(4, 1), layers.BatchNormalization(momentum=0.5), layers.Dropout(0.5), Silent()], dense(3, 2)]
    body = ModuleReplacement(old, [dense(4, 3), dense(3, 4)], seed=0)
    model = keras.Sequential([dense(4, 5), body])
    model.build((None, 4))
    body.predecessors[0].layers[1].moving_mean.assign(normal(4))
    variables = [v for layer in layers_of(body.predecessors) for v in layer.variables]
    before, successors = values(variables), values(body.trainable_variables)
    fitted(model)
    for attempt in (False, True):
        model.trainable = body.trainable = attempt
        assert not any(layer.trainable for layer in layers_of(body.predecessors))
        assert len(body.trainable_variables) == 4 * attempt
    fitted(model)
    for one, other in zip(values(variables), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(np.any(a != b) for a, b in zip(values(body.trainable_variables), successors, strict=True))
    # They run as in inference.
    body.rate = 0
    close(body(X, training=True), body.mixture([False, False])(X))


class Late(keras.layers.Layer):
    """Makes its layer when it is built."""

    def build(self, shape):
        self.inner = dense(4, 6)
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def test_predecessors_that_are_built_with_the_body_are_frozen_too():
    model = keras.Sequential([ModuleReplacement([Late()], [dense(4, 3)], rate=0.5, seed=0)])
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.5), "mse")
    model.build((None, 4))
    [old] = model.layers[0].predecessors[0].layers
    assert not old.trainable_variables
    assert len(model.trainable_variables) == 2
    before = values(old.variables)
    model.fit(X, X, epochs=2, verbose=0)
    for one, other in zip(values(old.variables), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rate", [0, 1])
def test_what_comes_after_a_module_is_in_training(rate):
    model = keras.Sequential([marked(1, rate), Silent()])
    y = array(model(np.ones((200, 1), "float32"), training=True))
    assert 0.3 < np.mean(y == 0) < 0.7
    assert np.all(array(model(np.ones((200, 1), "float32"))) != 0)


@pytest.mark.parametrize("gates", ["batch", "sample"])
def test_losses_that_a_successor_adds_count_if_it_ran_and_those_of_a_predecessor_do_not(gates):
    old, new = dense(3, 1, activity_regularizer="l2"), dense(3, 2, activity_regularizer="l2")
    body = ModuleReplacement([old], [new], rate=0, gates=gates)
    model = keras.Sequential([body])
    x, y = X[:1], Y[:1]  # one sample, since Keras 3.8 does not divide the penalty by their number
    model(x)
    penalty = 0.01 * np.sum(array(new(x)) ** 2)
    step = Gradients(model, body.trainable_variables)
    for rate, layer, ran in [(0, old, gates == "sample"), (1, new, True)]:
        body.rate = rate
        expected = np.mean((array(layer(x)) - y) ** 2)
        np.testing.assert_allclose(step(x, y)[0], expected + ran * penalty, rtol=1e-5)


# --- state ------------------------------------------------------------------------------------------------------


def test_a_successor_moves_its_state_on_when_it_runs():
    body = marked(2, make=Counted)
    counts = [layer.count for layer in layers_of(body.successors)]
    before = values(counts)
    gates = drawn(body, 15, batch=1)[:, 0].sum(0)
    assert min(gates) > 0
    np.testing.assert_array_equal(np.subtract(values(counts), before), gates)


def noisy():
    return [dense(4, 1), layers.Dropout(0.5, seed=2), layers.BatchNormalization(momentum=0.5), dense(3, 3)]


def test_dropout_and_statistics_of_a_successor_train_as_in_a_plain_model():
    body = ModuleReplacement([dense(3, 7)], [noisy()], rate=1.0)
    plain = keras.Sequential(noisy())
    np.testing.assert_allclose(fitted(keras.Sequential([body])), fitted(plain), rtol=1e-4)
    inside = [v for layer in layers_of(body.successors) for v in layer.variables]
    for one, other in zip(inside, (v for layer in plain.layers for v in layer.variables), strict=True):
        close(one, other, rtol=1e-3, atol=1e-5)
    body.rate = 0
    before = values(inside)
    fitted(keras.Sequential([body]))
    for one, other in zip(values(inside), before, strict=True):
        np.testing.assert_array_equal(one, other)


def resumable():
    new = [[dense(4, 4), layers.Dropout(0.5, seed=8), layers.BatchNormalization()], [dense(3, 5)]]
    body = ModuleReplacement([[dense(5, 1), dense(4, 2)], dense(3, 3)], new, curriculum(0.2, 20), seed=4)
    model = keras.Sequential([dense(4, 6), body, dense(3, 7)])
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=JIT)
    return model


def trained(model, steps):
    for _ in range(steps):
        model.train_on_batch(X, Y)


def test_training_goes_on_after_loading_as_if_it_had_not_stopped(tmp_path):
    whole, half = resumable(), resumable()
    trained(whole, 8)
    trained(half, 3)
    half.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    close(loaded.predict(X, verbose=0), half.predict(X, verbose=0))
    body = loaded.layers[1]
    assert isinstance(body, ModuleReplacement)
    assert [len(module.layers) for module in body.predecessors + body.successors] == [2, 1, 3, 1]
    assert not any(layer.trainable for layer in layers_of(body.predecessors))
    trained(loaded, 5)
    assert int(body.iterations) == 8
    assert len(whole.variables) == len(loaded.variables)
    for one, other in zip(whole.variables, loaded.variables, strict=True):
        close(one, other)


def test_a_rate_and_gates_that_were_saved_are_loaded(tmp_path):
    body = marked()
    model = keras.Sequential([body])
    drawn(body, 5)
    body.rate = 0.75
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    assert float(loaded.rate) == 0.75
    assert loaded.gates == body.gates
    np.testing.assert_array_equal(drawn(loaded, 10), drawn(body, 10))
    again = ModuleReplacement.from_config(body.get_config())
    assert again.get_config() == body.get_config()


# --- how it is trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        body = ModuleReplacement([[dense(3, 1)], dense(3, 2)], [noisy(), dense(3, 3)], seed=0)
        model = keras.Sequential([body])
        fitted(model)
        y = body(X, training=True)  # also on its own
        assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
        close(body(X), body.successor()(X))
        both = ModuleReplacement([dense(3, 2)], [dense(3, 3)], gates="sample", seed=0)
        fitted(keras.Sequential([both]))
    finally:
        keras.config.set_dtype_policy(before)
    assert {v.dtype for v in body.trainable_variables} == {"float32"}


def test_blocks_of_bert_are_trained_by_fit():
    stem, body = bert_body(dropout=0.1)
    model = keras.Sequential([stem, body, layers.GlobalAveragePooling1D(), layers.Dense(3)])
    ids = np.random.default_rng(0).integers(0, 7, (4, 300))  # long sentences
    weights = body.trainable_variables
    fitted(model, ids, Y[:4], epochs=4)
    assert int(body.iterations) == 8
    assert np.all([np.all(np.isfinite(v)) for v in values(weights)])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="elsewhere XLA is all or nothing")
@pytest.mark.parametrize("gates", ["batch", "sample"])
def test_xla_compiles_it(gates):
    body = ModuleReplacement([dense(3, 7)], [noisy()], 0.5, gates, seed=0)
    fitted(keras.Sequential([body]), jit=True)


def test_it_takes_part_in_a_functional_model():
    inputs = keras.Input((4,))
    body = dense_body()
    model = keras.Model(inputs, body(inputs))
    close(model(X), body(X))
    fitted(model)


# --- rates ------------------------------------------------------------------------------------------------------


@few
@given(rates, st.integers(1, 50), st.integers(0, 100))
def test_a_curriculum_rises_to_1_in_a_straight_line(start, steps, step):
    expected = min(1, start + (1 - start) * step / steps)
    np.testing.assert_allclose(float(curriculum(start, steps)(step)), expected, atol=1e-6)


@few
@given(st.tuples(rates, rates).map(sorted), st.integers(1, 50), st.integers(0, 100))
def test_an_anti_curriculum_falls_in_a_straight_line(pair, steps, step):
    end, start = pair
    expected = max(end, start + (end - start) * step / steps)
    np.testing.assert_allclose(float(anti_curriculum(start, end, steps)(step)), expected, atol=1e-6)


@few
@given(floats(-2, 3), floats(-2, 3))
def test_any_schedule_of_keras_is_clipped(first, last):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2], [first, last])
    body = ModuleReplacement([Affine()], [Affine()], schedule, "mean")
    for step in (0, 3):
        body.iterations.assign(step)
        np.testing.assert_allclose(float(body.rate), np.clip(last if step else first, 0, 1), rtol=1e-6)


def test_the_rate_follows_the_steps_of_training():
    body = ModuleReplacement([Affine()], [Affine(1.0, 1.0)], curriculum(0.2, 4), "mean")
    step = step_of(keras.Sequential([body]))
    body(X)
    found = [array(step(ops.zeros((1, 1)))).item() for _ in range(6)]
    np.testing.assert_allclose(found, [0.2, 0.4, 0.6, 0.8, 1, 1], rtol=1e-5)


def test_a_rate_that_is_set_holds_from_the_next_step():
    body = marked(1, 0.0)
    step = step_of(body)
    for rate in (0.0, 1.0, 0.0):
        body.rate = rate
        assert float(body.rate) == rate
        assert array(step(ops.zeros((1, 1)))).item() == rate


def test_the_callback_sets_the_rate_and_reports_it():
    body = marked(1, make=Counted)
    [successor] = layers_of(body.successors)
    before = array(successor.count)
    model = keras.Sequential([body])
    model.compile("sgd", "mse", jit_compile=JIT)
    x = np.zeros((4, 1), "float32")
    callback = ReplacementRate(body, lambda epoch: [0.0, 1.0, 0.0][epoch])
    history = model.fit(x, x, batch_size=2, epochs=3, verbose=0, callbacks=[callback]).history
    assert history["replacement_rate"] == [0, 1, 0]
    assert array(successor.count) - before == 2  # the steps of the second epoch


def test_the_callback_reports_a_schedule():
    body = ModuleReplacement([dense(3, 1)], [dense(3, 2)], curriculum(0.0, 6))
    model = keras.Sequential([body])
    model.compile("sgd", "mse", jit_compile=JIT)
    history = model.fit(X, Y, batch_size=3, epochs=4, verbose=0, callbacks=[ReplacementRate(body)]).history
    np.testing.assert_allclose(history["replacement_rate"], [1 / 3, 2 / 3, 1, 1], rtol=1e-5)
    ReplacementRate(dense_body(), curriculum(0.5, 4)).on_epoch_begin(1)  # a schedule of epochs may be Keras's too
    assert ReplacementRate(dense_body()).on_epoch_end(0) is None


# --- twins ------------------------------------------------------------------------------------------------------


def kinds():
    yield "dense", dense(), X
    yield "normalization", layers.BatchNormalization(), X
    yield "dropout", layers.Dropout(0.5), X
    yield "lstm", layers.LSTM(3, return_sequences=True), STATES
    yield "block", Block(SelfAttention(2), 8), STATES
    yield "sequential", keras.Sequential([dense(5), layers.Dropout(0.5), dense(2)]), X
    yield "encoder", Encoder.from_sizes(7, hidden=4, layers=1, num_heads=2, inner=8), IDS


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("layer", "x"), [pytest.param(*rest, id=name) for name, *rest in kinds()])
def test_a_twin_has_the_weights_and_goes_its_own_way(layer, x, frozen):
    y = layer(x)
    layer.trainable = not frozen
    other = twin(layer)
    close(other(x), y)
    layer.trainable = True
    assert other.trainable
    assert len(other.trainable_variables) == len(layer.trainable_variables)
    for variable in other.trainable_variables:
        variable.assign(variable + 1)
    close(layer(x), y)


def test_a_twin_of_a_built_layer_that_was_never_called():
    layer = dense()
    layer.build((None, 4))
    close(twin(layer)(X), layer(X))


# --- errors -----------------------------------------------------------------------------------------------------


SHARED = dense()


def built_lambda():
    layer = layers.Lambda(lambda x: 2 * x)
    layer.build((None, 3))
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModuleReplacement([], []), "predecessors must be one module at least, got none"),
        (lambda: ModuleReplacement([dense()], []), "successors must be one module at least, got none"),
        (lambda: ModuleReplacement([dense()], [dense()] * 2), "successors must be 1, one a predecessor, got 2"),
        (
            lambda: ModuleReplacement([[]], [dense()]),
            r"predecessors\[0\] must be a layer .*, got \[\]",
        ),
        (lambda: ModuleReplacement([dense()], [["x"]]), r"successors\[0\] must be a layer .*, got 'x'"),
        (lambda: ModuleReplacement([3], [dense()]), r"predecessors\[0\] must be a layer or a list .*, got 3"),
        (lambda: ModuleReplacement([dense(), SHARED], [dense(), SHARED]), r"successors\[1\]: .* take its twin"),
        (lambda: ModuleReplacement([dense()], [dense()], 1.5), r"rate must be in \[0, 1\], got 1.5"),
        (lambda: ModuleReplacement([dense()], [dense()], float("nan")), r"rate must be in \[0, 1\], got nan"),
        (lambda: ModuleReplacement([dense()], [dense()], "0.5"), r"rate must be in \[0, 1\], got '0.5'"),
        (lambda: ModuleReplacement([dense()], [dense()], True), r"rate must be in \[0, 1\], got True"),
        (lambda: ModuleReplacement([dense()], [dense()], None), r"rate must be in \[0, 1\], got None"),
        (lambda: ModuleReplacement([dense()], [dense()], np.ones(2)), r"rate must have shape \(\), got \(2,\)"),
        (
            lambda: ModuleReplacement([dense()], [dense()], seed="a"),
            "seed must be an integer of at least 0, got 'a'",
        ),
        (lambda: ModuleReplacement([dense()], [dense()], seed=True), "seed must be an integer .*, got True"),
        (lambda: ModuleReplacement(dense(), [dense()]), "predecessors must be a list of modules, got <Dense"),
        (lambda: ModuleReplacement([layers.Dense], [dense()]), r"predecessors\[0\] must be a layer .*, got <class"),
        (lambda: ModuleReplacement([dense()], [dense()], gates="x"), "gates must be one of 'batch', .*, got 'x'"),
        (
            lambda: ModuleReplacement([dense(3)], [dense(2)])(X),
            r"successors\[0\] .*\(6, 3\) .*\(6, 4\), got .*\(6, 2\)",
        ),
        (lambda: ModuleReplacement([dense()], [dense(dtype="float16")])(X), "float32 .* got float16"),
        (lambda: setattr(dense_body(), "rate", -0.1), r"rate must be in \[0, 1\], got -0.1"),
        (lambda: setattr(dense_body(curriculum(0, 1)), "rate", 1), "rate: it follows the schedule .*, got 1"),
        (lambda: dense_body().mixture([True]), r"replaced must have 2 booleans, one a module, got \[True\]"),
        (lambda: curriculum(0.5, 0), "steps must be a positive integer, got 0"),
        (lambda: curriculum(0.5, float("nan")), "steps must be a positive integer, got nan"),
        (lambda: curriculum(0.5, True), "steps must be a positive integer, got True"),
        (lambda: curriculum(0.5, 2.5), "steps must be a positive integer, got 2.5"),
        (lambda: curriculum("0.5", 5), r"start must be in \[0, 1\], got '0.5'"),
        (lambda: curriculum(float("nan"), 5), r"start must be in \[0, 1\], got nan"),
        (lambda: anti_curriculum(0.5, float("nan"), 5), r"end must be in \[0, 1\], got nan"),
        (lambda: anti_curriculum(0.5, "0", 5), r"end must be in \[0, 1\], got '0'"),
        (lambda: curriculum(-1, 5), r"start must be in \[0, 1\], got -1"),
        (lambda: anti_curriculum(1.5, 0.5, 5), r"start must be in \[0, 1\], got 1.5"),
        (lambda: anti_curriculum(0.5, -0.5, 5), r"end must be in \[0, 1\], got -0.5"),
        (lambda: anti_curriculum(0.2, 0.5, 5), "end must be at most start = 0.2, got 0.5"),
        (lambda: ReplacementRate(dense_body(curriculum(0, 1)), float), "schedule: the rate follows .* already"),
        (lambda: ReplacementRate(dense_body(), lambda _: 2).on_epoch_begin(0), r"rate must be in \[0, 1\], got 2"),
        (lambda: ReplacementRate(dense(), lambda _: 1), "replacement must be a ModuleReplacement, got <Dense"),
        (lambda: ReplacementRate(dense_body(), 0.5), "schedule must be a function of the epoch, got 0.5"),
        (lambda: ReplacementRate(dense_body(), lambda _: "1").on_epoch_begin(0), r"rate must be in .*, got '1'"),
        (lambda: dense_body().mixture(["no", True]), r"replaced must have 2 booleans, .*, got \['no', True\]"),
        (lambda: twin(layers.Dense), "layer must be a Keras layer, got <class"),
        (lambda: twin(dense()), "layer must be built, for its weights to be there, got 'dense"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_lambda_is_refused_by_name_where_keras_cannot_rebuild_it():
    layer, rebuilt = built_lambda(), False
    with contextlib.suppress(TypeError, ValueError, NotImplementedError):
        rebuilt = layers.Lambda.from_config(layer.get_config()) is not None  # Keras 3.8 can
    if rebuilt:
        np.testing.assert_array_equal(array(twin(layer)(np.ones((2, 4)))), array(layer(np.ones((2, 4)))))
    else:
        with pytest.raises(ValueError, match="layer must be one that its configuration rebuilds, got 'lambda"):
            twin(layer)


# --- what a module may be ---------------------------------------------------------------------------------------


class Stops(layers.Layer):
    """Hands no mask on."""

    def call(self, x):
        return 1.0 * x


class Attends(layers.Layer):
    """Attention that finds its mask where Keras has attached one."""

    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(1, 4)
        self.supports_masking = True

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("middle", [Stops, lambda: layers.AveragePooling1D(2)])
@pytest.mark.parametrize("training", [False, True])
def test_a_mask_ends_where_a_layer_ends_it(middle, training):
    def modules():
        return [[layers.Embedding(7, 4, mask_zero=True), middle()], [Attends()]]

    body = ModuleReplacement(modules(), modules(), rate=1.0, seed=0)
    ids = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 0, 0, 0]])
    close(body(ids, training=training), body.successor()(ids))


KERNEL = layers.Dense(4)
KERNEL.build((None, 4))


class Tied(layers.Layer):
    """Uses a weight that belongs to another layer."""

    def call(self, x):
        return ops.matmul(x, ops.transpose(KERNEL.kernel))

    def compute_output_shape(self, shape):
        return shape


class Seen(layers.Layer):
    """Keeps the mean of what it has seen as a metric."""

    def __init__(self):
        super().__init__()
        self.metric = keras.metrics.Mean()

    def call(self, x):
        self.metric.update_state(ops.mean(x))
        return x


class Penalties(layers.Layer):
    """Adds a loss a sample, in the precision of its input."""

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x), axis=-1))
        return x


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize(
    "module",
    [
        lambda: [Tied()],
        lambda: [dense(4), Seen()],
        lambda: [layers.SpectralNormalization(dense(4))],
        lambda: [dense(4), Penalties()],
        lambda: [layers.Dense(4, dtype="bfloat16"), Penalties(dtype="bfloat16"), layers.Activation("linear")],
    ],
    ids=["another layer's weight", "a metric", "a weight that is set", "a loss a sample", "half precision"],
)
def test_a_module_may_use_and_do_what_keras_allows(module, rate):
    if BACKEND == "jax" and isinstance(module()[-1], Seen):
        pytest.skip("Keras on JAX lets no layer update a metric in fit")
    old = module() if rate == 0 else [dense(4)]
    new = module() if rate == 1 else [dense(4)]
    if any(layer.compute_dtype == "bfloat16" for layer in [*old, *new]):
        old, new = ([*m, layers.Activation("linear", dtype="bfloat16")] for m in (old, new))
    model = keras.Sequential([ModuleReplacement([old], [new], rate=rate, seed=0)])
    model.compile("sgd", "mse", jit_compile=JIT)
    x = normal(10, 4)
    losses = [model.fit(x, x, batch_size=4, verbose=0).history["loss"][0] for _ in range(2)]  # 4 + 4 + 2 samples
    assert np.all(np.isfinite(losses))


# --- several inputs and outputs ---------------------------------------------------------------------------------


@serializable
class Sum(layers.Layer):
    """A weighed sum of nested inputs, each at the steps where its mask is True."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.supports_masking = scale, True

    def build(self, *_):
        self.weight = self.add_weight((), keras.initializers.Constant(self.scale), "float32")
        self.built = True

    def call(self, x, mask=None):
        inputs = keras.tree.flatten(x)
        masks = [None] * len(inputs) if mask is None else keras.tree.flatten(mask)
        kept = [y if m is None else ops.where(m[..., None], y, 0.0) for y, m in zip(inputs, masks, strict=True)]
        return self.weight * sum((i + 1) * y for i, y in enumerate(kept))

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@serializable
class Fork(layers.Layer):
    """Several outputs, an integer among them, of the first input."""

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, *_):
        self.weight = self.add_weight((), keras.initializers.Constant(self.scale), "float32")
        self.built = True

    def call(self, x):
        x = keras.tree.flatten(x)[0]
        return {"number": ops.cast(self.scale * ops.ones_like(x[..., 0]), "int32"), "pair": [self.weight * x, -x]}

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@serializable
class Join(layers.Layer):
    """One output of what :class:`Fork` gives."""

    def call(self, x):
        return x["pair"][0] + 10 * x["pair"][1] + 100 * ops.cast(x["number"], "float32")[..., None]


A, B = normal(2, 3, 4), normal(2, 3, 4, seed=1)
STRUCTURES = {
    "list": (lambda a, b: [a, b]),
    "tuple": (lambda a, b: (a, b)),
    "dict": (lambda a, b: {"a": a, "b": b}),
}


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("gates", GATES)
def test_the_first_module_may_have_several_inputs_with_a_mask_each(structure, gates):
    body = ModuleReplacement([[Sum(2.0), Affine()]], [[Sum(3.0), Affine()]], gates=gates, seed=0)
    x = structure(*map(ops.convert_to_tensor, (A, B)))
    other = ~MASK[:, ::-1]
    masks = structure(*map(ops.convert_to_tensor, (MASK, other)))
    masked = A * MASK[..., None] + 2 * B * other[..., None]
    close(body(x), 3 * (A + 2 * B))
    close(body.successor()(x), 3 * (A + 2 * B))
    close(body(x, mask=masks), 3 * masked)
    for rate, scale in [(0, 2), (1, 3)]:
        body.rate = rate
        close(body(x, training=True), scale * (A + 2 * B))
        close(body(x, mask=masks, training=True), scale * masked)
    assert int(body.iterations) == 4


def test_masks_that_keras_has_attached_to_several_inputs_are_found():
    body = ModuleReplacement([Sum(2.0)], [Sum(3.0)], rate=1.0, seed=0)
    words = layers.Embedding(5, 4, mask_zero=True)
    one, two = (words(ops.convert_to_tensor(ids)) for ids in (IDS, IDS[::-1].copy()))
    expected = 3 * (array(one) * (IDS != 0)[..., None] + 2 * array(two) * (IDS[::-1] != 0)[..., None])
    for training in (False, True):
        close(body([one, two], training=training), expected)


def test_layers_of_keras_that_merge_inputs_hand_on_one_mask():
    def modules():
        return [[layers.Concatenate(), layers.LSTM(2, return_sequences=True, seed=1)], [layers.LSTM(2, seed=2)]]

    keras.utils.set_random_seed(0)
    body = ModuleReplacement(modules(), modules(), rate=1.0, seed=0)
    words = layers.Embedding(5, 4, "glorot_uniform", mask_zero=True)
    x = [words(ops.convert_to_tensor(IDS)) for _ in range(2)]
    expected = body.successor()(x)
    close(body(x), expected)
    close(body(x, training=True), expected)
    assert np.max(np.abs(array(body([1.0 * one for one in x])) - array(expected))) > 1e-3  # without their masks


@pytest.mark.parametrize("gates", ["batch", "sample"])
def test_modules_pass_nested_outputs_on(gates):
    body = ModuleReplacement([Fork(1.0), Join()], [Fork(2.0), Join()], gates=gates, seed=0)
    x = ops.convert_to_tensor(A)
    for rate, scale in [(0, 1), (1, 2)]:
        body.rate = rate
        close(body(x, training=True), (scale - 10) * A + 100 * scale)
    close(body(x), -8 * A + 200)
    both = ModuleReplacement([Fork(1.0)], [Fork(2.0)], rate=1.0, gates=gates)(x, training=True)
    assert keras.tree.map_structure(lambda y: tuple(y.shape), both) == {"number": (2, 3), "pair": [(2, 3, 4)] * 2}
    assert "int" in keras.backend.standardize_dtype(both["number"].dtype)


@pytest.mark.parametrize("gates", GATES)
def test_modules_of_several_inputs_are_trained(gates, tmp_path):
    inputs = [keras.Input((3, 4)), keras.Input((3, 4))]
    body = ModuleReplacement([Sum(2.0), dense(4, 1)], [Sum(3.0), dense(4, 2)], 1.0, gates, seed=0)
    model = keras.Model(inputs, body(inputs))
    plain = keras.Model(inputs, chained([Sum(3.0), dense(4, 2)], inputs))
    for one in (model, plain):
        one.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=JIT)
    losses = [one.fit([A, B], A, epochs=3, verbose=0).history["loss"] for one in (model, plain)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert losses[0][2] < losses[0][0]
    model.save(tmp_path / "model.keras")
    close(keras.saving.load_model(tmp_path / "model.keras")([A, B]), model([A, B]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ModuleReplacement([Fork()], [Affine()])(A),
            r"successors\[0\] must give what .*pair.*, got float32",
        ),
        (lambda: ModuleReplacement([Fork()], [Fork()], gates="mean")(A), "gates must choose .*int32.*, got 'mean'"),
        (
            lambda: ModuleReplacement([Whole()], [Whole()], gates="sample")(A),
            r"gates must be .* shape \(\), .*'sample'",
        ),
    ],
)
def test_outputs_that_the_gates_cannot_mix_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Whole(layers.Layer):
    """One number of a batch."""

    def call(self, x):
        return ops.mean(x)


# --- any function of the step as a rate -------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="test_theseus")
def halves(step):
    return 1.0 - 0.5 ** (step + 1)


FUNCTIONS = {
    "a number": (lambda _: 0.25, [0.25] * 4),
    "an integer": (lambda _: 1, [1] * 4),
    "NumPy": (lambda _: np.float32(0.25), [0.25] * 4),
    "arithmetic": (lambda step: 0.1 + 0.3 * step, [0.1, 0.4, 0.7, 1]),
    "a quotient": (lambda step: step / 4, [0, 0.25, 0.5, 0.75]),
    "operations": (lambda step: ops.where(step < 2, 0.2, 0.6), [0.2, 0.2, 0.6, 0.6]),
    "registered": (halves, [0.5, 0.75, 0.875, 0.9375]),
    "below": (lambda step: 1 - step, [1, 0, 0, 0]),
    "integers": (lambda step: ops.cast(step, "int32") // 2, [0, 0, 1, 1]),
}


@pytest.mark.parametrize(("rate", "expected"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_any_function_of_the_step_is_a_rate(rate, expected):
    for gates in ("mean", "batch"):
        body = ModuleReplacement([Affine()], [Affine(1.0, 1.0)], rate, gates, seed=0)
        body(X)
        step = step_of(body)
        found = []
        for _ in range(4):
            np.testing.assert_allclose(float(body.rate), expected[len(found)], rtol=1e-6)
            found.append(array(step(ops.zeros((1, 1)))).item())
        if gates == "mean":
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        else:
            assert all(y == p for y, p in zip(found, expected, strict=True) if p in (0, 1))


@pytest.mark.parametrize("rate", [0, 0.25, 1, np.float32(0.25), np.array(0.25), ops.ones(()) / 4])
def test_a_rate_is_a_number_or_a_tensor_of_one(rate):
    assert checked_rate("rate", rate) == float(rate)
    body = marked(1)
    body.rate = rate
    assert float(body.rate) == float(rate) == float(rate_at(lambda _: rate, ops.zeros(())))


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (lambda _: 1.5, r"rate must be in \[0, 1\], got 1.5"),
        (lambda _: float("nan"), r"rate must be in \[0, 1\], got nan"),
        (lambda _: True, r"rate must be in \[0, 1\], got True"),
        (lambda _: "0.5", "rate must be a tensor of numbers, got"),
        (lambda _: None, "rate must be a tensor of numbers, got None"),
        (lambda step: ops.stack([step, step]), r"rate must have shape \(\), got \(2,\)"),
    ],
)
def test_what_is_no_rate_is_refused_wherever_it_is_called(rate, message):
    body = ModuleReplacement([Affine()], [Affine()], rate)
    body.build((None, 4))
    for call in (lambda: body.rate, lambda: body(X, training=True), lambda: step_of(body)(X)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize(
    "mode", {"tensorflow": ["eager", "graph", "xla"], "jax": ["eager", "jit"], "torch": ["eager"]}[BACKEND]
)
def test_a_rate_that_is_nan_is_an_error_or_the_output_is_nan(gates, mode):
    body = ModuleReplacement([Affine()], [Affine()], lambda step: step / 0 * 0, gates)
    body.build((None, 4))

    def step(x, iterations):
        with keras.StatelessScope([(body.iterations, iterations)]):
            return body(x, training=True)

    run = compiled(step, mode)
    x, iterations = ops.convert_to_tensor(X), ops.cast(3, "int32")
    if mode == "eager":
        with pytest.raises(ValueError, match=r"rate must be a number at every step, .* got nan at step 3"):
            run(x, iterations)
    elif mode == "graph":
        with pytest.raises(import_module("tensorflow").errors.InvalidArgumentError, match="rate must be a number"):
            run(x, iterations)
    else:
        assert np.all(np.isnan(array(run(x, iterations))))
    assert np.all(np.isfinite(array(body(X))))


def test_a_function_is_saved_if_it_is_registered_and_refused_by_name_if_not(tmp_path):
    body = ModuleReplacement([dense(3)], [dense(3)], halves)
    model = keras.Sequential([body])
    model(X)
    body.iterations.assign(1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    assert loaded.schedule is halves
    assert float(loaded.rate) == 0.75
    for rate in (lambda step: step, partial(halves)):
        with pytest.raises(ValueError, match=r"rate must be registered with keras\.saving to be saved, got "):
            ModuleReplacement([dense(3)], [dense(3)], rate).get_config()


@pytest.mark.parametrize("seed", [lambda: 3, lambda: keras.random.SeedGenerator(3), lambda: None])
def test_a_seed_is_an_integer_a_generator_or_none(seed):
    one, other = (
        ModuleReplacement([Affine()] * 3, [Affine(1.0, 2.0**i) for i in range(3)], seed=seed()) for _ in "12"
    )
    gates = [[array(body.draw(1)) for _ in range(40)] for body in (one, other)]
    assert np.array_equal(*gates) == (seed() is not None)
    again = ModuleReplacement.from_config(one.get_config())
    assert again.get_config() == one.get_config()
    if seed() is not None:
        np.testing.assert_array_equal([array(again.draw(1)) for _ in range(40)], gates[0])


@pytest.mark.parametrize("replaced", [None, True])
def test_what_is_replaced_is_a_collection(replaced):
    body = ModuleReplacement([keras.layers.Dense(2)], [keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=f"replaced must be a collection, got {replaced}"):
        body.mixture(replaced)
