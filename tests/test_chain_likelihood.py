"""Truths about ``lib.chain.likelihood``: a probability is one at any size of the scores, and of some tags."""

import math

import keras
import numpy as np
import pytest
from chain_references import Sequences
from keras import ops
from numerics import array, compiled, finite_differences
from scipy import special

from lib.chain import (
    UNKNOWN,
    checked,
    entropy,
    k_best,
    log_likelihood,
    log_partition,
    marginals,
    sample,
    sequence_score,
    viterbi,
)
from lib.chain._semirings import softmax_with_log
from lib.chain.likelihood import log_likelihood_of, only_known

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
K, TIME = 3, 5
EVERY = np.array(np.meshgrid(*[range(K)] * TIME, indexing="ij")).reshape(TIME, -1).T.astype("int32")
quick = compiled if BACKEND == "jax" else lambda function: function  # JAX compiles every single operation
of_every = quick(lambda e, A, s, f: log_likelihood(EVERY, ops.repeat(e[None], len(EVERY), 0), A, start=s, end=f))
of_some = quick(lambda y, e, A: log_likelihood(y, e, A))


def chain(seed=0, scale=1.0, time=TIME):
    rng = np.random.default_rng(seed)
    shapes = (time, K), (K, K), (K,), (K,)
    return tuple((scale * rng.standard_normal(shape)).astype("float32") for shape in shapes)


def shifted(name):
    """Scores to which constants are added that no probability sees; float32."""
    e, A, s, f = chain(1)
    rng = np.random.default_rng(2)
    kind, _, size = name.partition(" ")
    size = float(size or 0)
    if kind == "sequence":
        e = e + size
    elif kind == "step":
        e = e + size * rng.standard_normal((TIME, 1))
    elif kind == "transitions":
        A, s, f = A + size, s - size, f + size
    elif kind == "deviation":
        e, A, s, f = (size * x for x in (e, A, s, f))
    return tuple(x.astype("float32") for x in (e, A, s, f))


SHIFTS = [f"{kind} {size:.0e}" for kind in ("sequence", "step", "transitions") for size in (1e4, 1e6, 1e8, -1e30)]


@pytest.mark.parametrize("name", ["none", *SHIFTS, "deviation 100", "deviation 1e4"])
def test_the_probabilities_sum_to_one_and_none_is_above_one_whatever_is_added(name):
    scores = shifted(name)
    log_p = array(of_every(*scores)).astype("float64")
    assert log_p.max() <= 0
    assert np.exp(log_p).sum() == pytest.approx(1, abs=3e-6)
    if name in ("none", "deviation 100", "deviation 1e4"):
        truth = Sequences(*scores)
        np.testing.assert_allclose(log_p, truth.log_p, rtol=2e-6, atol=1e-5 * np.abs(scores[0]).max())
    elif "transitions" not in name:
        e, *rest = (x.astype("float64") for x in scores)
        truth = Sequences(e - e.max(axis=1, keepdims=True), *rest)
        np.testing.assert_allclose(log_p, truth.log_p, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_fifty_steps_of_deviation_100(seed):
    e, A, s, f = chain(seed, 100.0, time=50)
    tags, _ = viterbi(e[None], A, start=s, end=f)
    best = array(tags)[0]
    alpha = s.astype("float64") + e[0]
    for row in e[1:].astype("float64"):
        alpha = special.logsumexp(alpha[:, None] + A, axis=0) + row
    log_z = special.logsumexp(alpha + f)
    rows = np.repeat(best[None], 8, axis=0)
    rows[np.arange(1, 8), np.arange(1, 8) * 6] += 1
    rows %= K
    log_p = array(log_likelihood(rows, np.repeat(e[None], 8, axis=0), A, start=s, end=f))
    t = np.arange(50)
    scores = [
        e.astype("float64")[t, y].sum()
        + A.astype("float64")[y[:-1], y[1:]].sum()
        + float(s[y[0]])
        + float(f[y[-1]])
        for y in rows
    ]
    assert log_p.max() <= 0
    np.testing.assert_allclose(log_p, np.array(scores) - log_z, atol=2e-3)
    assert log_p[0] > -1


def test_the_probability_of_a_long_sequence_is_never_above_one():
    e, A, *_ = chain(3, 20.0, time=4096)
    tags, _ = compiled(viterbi)(e[None], A)
    log_p = float(compiled(log_likelihood)(array(tags), e[None], A)[0])
    e, A = e.astype("float64"), A.astype("float64")
    alpha, y, t = e[0], array(tags)[0], np.arange(4096)
    for row in e[1:]:
        alpha = special.logsumexp(alpha[:, None] + A, axis=0) + row
    expected = e[t, y].sum() + A[y[:-1], y[1:]].sum() - special.logsumexp(alpha)
    assert log_p <= 0
    assert log_p == pytest.approx(expected, rel=1e-5, abs=1e-3)


LOWEST = np.finfo("float32").min


def very_low(name):
    """Scores below −1e30 that decide nothing, as all sequences have them, or forbid."""
    e, A, s, f = chain(4)
    if name == "a step":
        e[2] -= np.float32(3e30)
    elif name == "every step":
        e[:] = LOWEST
    elif name == "a tag at a step":
        e[2, 1] = LOWEST
    elif name == "the only tag":
        e[2] = [-math.inf, -2e30, -math.inf]
    elif name == "transitions":
        A[:] = LOWEST
    elif name == "a move":
        A[0, 1] = LOWEST
    elif name == "start and end":
        s[:], f[1:] = LOWEST, LOWEST
    return e, A, s, f


LOW = [
    "a step",
    "every step",
    "a tag at a step",
    "the only tag",
    "transitions",
    "a move",
    "start and end",
]


def relative(e, A, s, f):
    """The reference of scores less what all sequences have, where float64 would lose what float32 cannot hold."""

    def less(x, axis):
        best = x.max(axis=axis, keepdims=True).astype("float64")
        return x - np.where(best > -math.inf, best, 0)

    return Sequences(less(e, 1), less(A, (0, 1)), less(s, 0), less(f, 0))


@pytest.mark.parametrize("name", LOW)
def test_scores_below_minus_1e30_are_exact_in_every_function(name):
    scores = very_low(name)
    truth, (e, A, s, f) = relative(*scores), scores
    given = {"start": s, "end": f}
    best = truth.tags[truth.log_p.argmax()]
    tags, value = viterbi(e[None], A, **given)
    np.testing.assert_array_equal(array(tags)[0], best)
    np.testing.assert_array_equal(array(k_best(e[None], A, 2, **given)[0])[0, 0], best)
    np.testing.assert_allclose(array(marginals(e[None], A, **given))[0], truth.marginals, atol=2e-5)
    assert float(entropy(e[None], A, **given)[0]) == pytest.approx(truth.entropy, abs=2e-5)
    drawn = array(sample(e[None], A, count=50, seed=0, **given))[0]
    assert truth.log_p[[int(np.flatnonzero((truth.tags == y).all(1))[0]) for y in drawn]].min() > -20
    log_p = array(of_every(*scores)).astype("float64")
    assert log_p.max() <= 0
    assert np.exp(log_p).sum() == pytest.approx(1, abs=3e-6)
    np.testing.assert_allclose(np.exp(log_p), truth.p, atol=1e-5)
    log_z = Sequences(*scores).log_z
    representable = log_z if log_z > 1.5 * float(LOWEST) else -math.inf  # 5 · finfo.min is not
    for found in (log_partition(e[None], A, **given), value):
        assert float(found[0]) == pytest.approx(representable, rel=1e-6, abs=8)


@pytest.mark.parametrize("size", [-1e6, -1e7, -1e9, -1e30])
@pytest.mark.parametrize("by", ["transitions", "the tag before", "the tag after"])
def test_tags_forced_by_what_is_legal_may_score_arbitrarily_low(by, size):
    e, A, s, f = chain(9)
    e[2] = [size, size, 0]  # the best of them, where no legal sequence has it
    if by == "transitions":
        A[:, 2] = s[2] = -math.inf
    elif by == "the tag before":
        e[1, 2] = e[1, 0] = A[1, 2] = -math.inf
    else:
        e[3, 0] = e[3, 1] = A[2, 2] = -math.inf
    truth, given = relative_to_legal(e, A, s, f), {"start": s, "end": f}
    log_p = array(of_every(e, A, s, f)).astype("float64")
    assert log_p.max() <= 0
    assert np.exp(log_p).sum() == pytest.approx(1, abs=3e-6)
    np.testing.assert_allclose(np.exp(log_p), truth.p, atol=1e-5)
    np.testing.assert_allclose(array(marginals(e[None], A, **given))[0], truth.marginals, atol=2e-5)
    assert float(entropy(e[None], A, **given)[0]) == pytest.approx(truth.entropy, abs=2e-5)
    drawn = array(sample(e[None], A, **given, count=3000, seed=0))[0]
    np.testing.assert_allclose((drawn[..., None] == np.arange(K)).mean(0), truth.marginals, atol=0.04)
    # Decoding compares sums, which are rounded: as its docstring says, to 10⁻⁷ of the size each.
    best = array(viterbi(e[None], A, **given)[0])[0]
    assert truth.log_p.max() - truth.log_p[(truth.tags == best).all(1)][0] <= 4e-7 * abs(size)


def relative_to_legal(e, A, s, f):
    """The reference of scores less the best that is legal at each step, in double precision."""
    truth = Sequences(*(np.where(np.isfinite(x), 0.0, -math.inf) for x in (e, A, s, f)))
    e, legal = e.astype("float64"), truth.tags[truth.log_p > -math.inf]
    for t in range(len(e)):
        e[t] -= e[t, np.unique(legal[:, t])].max()
    return Sequences(e, A, s, f)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["emissions", "transitions", "start", "end"])
def test_scores_that_are_no_numbers_make_nan_and_no_tags(bad, where):
    e, A, s, f = chain(5)
    e = np.repeat(e[None], 3, axis=0)
    mask = np.ones((3, TIME), bool)
    mask[2, 4:] = False
    e[2, 4] = bad  # masked: does not count
    expected = [row == 1 or where != "emissions" for row in range(3)]
    {"emissions": e[1], "transitions": A, "start": s[None], "end": f[None]}[where][0, 1] = bad
    given, y = {"mask": mask, "start": s, "end": f}, np.zeros((3, TIME), "int32")
    tags, score = viterbi(e, A, **given)
    many, scores = k_best(e, A, 2, **given)
    for found in (
        log_likelihood(y, e, A, **given),
        sequence_score(y, e, A, **given),
        log_partition(e, A, **given),
        entropy(e, A, **given),
        ops.sum(marginals(e, A, **given), axis=(1, 2)),
        score,
        scores[:, 1],
    ):
        np.testing.assert_array_equal(np.isnan(array(found)), expected)
    for found in (tags, many[:, 0], sample(e, A, seed=0, **given)[:, 0]):
        np.testing.assert_array_equal(array(found)[:, 0] == -1, expected)


# --- tags of which some are known -----------------------------------------------------------------------------

PARTLY = np.array(
    [
        [0, 1, 2, 1, 0],
        [UNKNOWN, 1, 2, 1, 0],
        [0, UNKNOWN, UNKNOWN, 1, 2],
        [UNKNOWN, UNKNOWN, 0, UNKNOWN, UNKNOWN],
        [UNKNOWN] * 5,
        [2, 1, UNKNOWN, 0, 0],
    ],
    "int32",
)
LENGTHS = np.array([5, 5, 5, 5, 5, 3])


def partly(scale=1.0):
    rng = np.random.default_rng(6)
    e = (scale * rng.standard_normal((6, TIME, K))).astype("float32")
    return e, *chain(7, scale)[1:], np.arange(TIME) < LENGTHS[:, None]


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_the_probability_of_the_known_tags_is_the_sum_over_the_unknown_ones(scale):
    e, A, s, f, mask = partly(scale)
    expected = [Sequences(row[:n], A, s, f).log_p_of(y[:n]) for row, n, y in zip(e, LENGTHS, PARTLY, strict=True)]
    found = array(quick(lambda e, A, s, f: log_likelihood(PARTLY, e, A, mask=mask, start=s, end=f))(e, A, s, f))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-6 * scale)
    assert found.max() <= 0
    assert found[4] == 0


def test_gradients_where_tags_are_unknown_are_those_of_finite_differences():
    e, A, s, f, mask = partly()
    w = np.linspace(-1, 2, 6)

    def reference(e, A, s, f):
        return sum(
            weight * Sequences(row[:n], A, s, f).log_p_of(y[:n])
            for weight, row, n, y in zip(w, e, LENGTHS, PARTLY, strict=True)
        )

    def function(e, A, s, f):
        return ops.sum(ops.multiply(w.astype("float32"), log_likelihood(PARTLY, e, A, mask=mask, start=s, end=f)))

    inputs = [x.astype("float64") for x in (e, A, s, f)]
    for i, found in enumerate(gradient(function, e, A, s, f)):

        def of_one(x, i=i):
            return reference(*[x if j == i else y for j, y in enumerate(inputs)])

        np.testing.assert_allclose(found, finite_differences(of_one, inputs[i], 1e-5), atol=2e-5)


def test_known_tags_that_are_forbidden_have_probability_0_and_teach_nothing():
    e, A, *_ = chain(8)
    A[0, :] = -math.inf
    y = np.array([[0, UNKNOWN, 1, 1, 1], [1, UNKNOWN, 1, 1, 1]])
    e = np.stack([e, e])
    found = array(of_some(y, e, A))
    assert found[0] == -math.inf
    assert np.isfinite(found[1])
    of_e, of_A = gradient(lambda e, A: ops.sum(log_likelihood(y, e, A)), e, A)
    assert not of_e[0].any()
    assert np.isfinite(of_A).all()
    assert of_e[1].any()


def test_only_the_likelihood_takes_unknown_tags():
    e, A, *_ = chain(9)
    with pytest.raises(ValueError, match=r"tags must be integers from 0 to 2 at valid steps, got \[-100\]"):
        sequence_score(PARTLY[1:2], e[None], A)
    with pytest.raises(
        ValueError, match=r"tags must be integers from 0 to 2, or -100 if unknown, .*got \[-99, -1\]"
    ):
        log_likelihood([[-99, -1, 0, 0, 0]], e[None], A)


def test_checked_arguments_have_the_same_likelihood_and_the_chain_of_the_known_tags_its_sum():
    e, A, s, f, mask = partly()
    arguments = checked(e, A, tags=PARTLY, mask=mask, start=s, end=f, unknown=True)
    expected = array(log_likelihood(PARTLY, e, A, mask=mask, start=s, end=f))
    np.testing.assert_allclose(array(log_likelihood_of(arguments)), expected, rtol=1e-6)
    part = only_known(arguments)
    log_z = [array(log_partition(x, A, mask=mask, start=s, end=f)) for x in (part.emissions, e)]
    np.testing.assert_allclose(log_z[0] - log_z[1], expected, atol=1e-5)


def gradient(function, *inputs):
    """Gradients of a scalar function."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        inputs = [tf.convert_to_tensor(x) for x in inputs]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(*inputs)
        return [array(g) for g in tape.gradient(value, inputs)]
    if BACKEND == "jax":
        import jax

        return [array(g) for g in jax.jit(jax.grad(function, range(len(inputs))))(*inputs)]
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    function(*inputs).backward()
    return [array(x.grad) for x in inputs]


# --- second derivatives ---------------------------------------------------------------------------------------


def curvature(function, x, v, mode="eager"):
    """H·v of a scalar function: the gradient of ⟨gradient, v⟩."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def product(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    value = function(x)
                slope = tf.reduce_sum(inner.gradient(value, x) * v)
            return outer.gradient(slope, x)

        return array(compiled(product, mode)(tf.convert_to_tensor(x)))
    if BACKEND == "jax":
        import jax

        return array(jax.jit(jax.grad(lambda x: ops.sum(jax.grad(function)(x) * v)))(x))
    import torch

    x = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(function(x), x, create_graph=True)
    return array(torch.autograd.grad(torch.sum(slope * torch.tensor(v)), x)[0])


def parts(x, by_steps):
    """Emissions, transitions, start and end out of one vector."""
    sizes, shapes = [15, 36 if by_steps else 9, 3, 3], [(1, 5, 3), (1, 4, 3, 3) if by_steps else (3, 3), (3,), (3,)]
    ends = np.cumsum(sizes)
    return [ops.reshape(x[end - n : end], shape) for end, n, shape in zip(ends, sizes, shapes, strict=True)]


NONLINEAR = {  # of which a constant gradient would make a wrong second derivative, without a word
    "log_partition": (lambda e, A, s, f: ops.sum(log_partition(e, A, start=s, end=f) ** 2), lambda q: q.log_z**2),
    "log_likelihood": (
        lambda e, A, s, f: ops.sum(log_likelihood(PARTLY[:1], e, A, start=s, end=f) ** 2),
        lambda q: q.log_p_of(PARTLY[0]) ** 2,
    ),
    "known tags": (
        lambda e, A, s, f: ops.sum(log_likelihood(PARTLY[2:3], e, A, start=s, end=f) ** 2),
        lambda q: q.log_p_of(PARTLY[2]) ** 2,
    ),
    "marginals": (
        lambda e, A, s, f: ops.sum(marginals(e, A, start=s, end=f)[0, 2, 1]),
        lambda q: q.marginals[2, 1],
    ),
    "entropy": (lambda e, A, s, f: ops.sum(entropy(e, A, start=s, end=f)), lambda q: q.entropy),
}


@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["products", "logarithms"])
@pytest.mark.parametrize("by_steps", [False, True], ids=["one matrix", "a matrix a step"])
@pytest.mark.parametrize("name", NONLINEAR)
def test_first_and_second_derivatives_are_those_of_finite_differences(name, by_steps, scale):
    if scale > 1 and name in ("marginals", "entropy"):
        scale = 30.0  # they are constant, otherwise
    rng, size = np.random.default_rng(10), 57 if by_steps else 30
    x, v = rng.standard_normal(size), rng.standard_normal(size).astype("float32")
    x[:15] *= scale
    function, of_sequences = NONLINEAR[name]

    def reference(x):
        sizes, A = (15, 36, 3, 3) if by_steps else (15, 9, 3, 3), (4, 3, 3) if by_steps else (3, 3)
        e, moves, s, f = np.split(x, np.cumsum(sizes)[:-1])
        return of_sequences(Sequences(e.reshape(5, 3), moves.reshape(A), s, f))

    def total(x):
        return function(*parts(x, by_steps))

    slope = finite_differences(reference, x, 1e-5)
    unit = max(1.0, np.abs(slope).max())
    (found,) = gradient(total, x.astype("float32"))
    np.testing.assert_allclose(found, slope, atol=2e-5 * unit * scale)
    step = 1e-4
    expected = (
        finite_differences(reference, x + step * v, 1e-5) - finite_differences(reference, x - step * v, 1e-5)
    ) / (2 * step)
    compiled_too = BACKEND == "tensorflow" and scale > 1 and not by_steps  # a program holds both ways
    for mode in ("eager", "xla") if compiled_too else ("eager",):
        found = curvature(total, x.astype("float32"), v, mode)
        np.testing.assert_allclose(found, expected, atol=2e-4 * max(1.0, np.abs(expected).max()), err_msg=mode)
    assert np.abs(expected).max() > 1e-4


@pytest.mark.parametrize("scale", [20.0, 40.0, 100.0])
def test_second_derivatives_of_the_entropy_are_right_where_a_move_has_next_to_no_probability(scale):
    """1/p² overflows below p = 10⁻¹⁹."""
    e, A, *_ = chain(12)
    e, v, step = e * np.float32(scale), np.random.default_rng(0).standard_normal(A.shape).astype("float32"), 1e-4

    def reference(A):
        return Sequences(e, A).entropy

    forth, back = (finite_differences(reference, A + side * step * v.astype("float64"), 1e-5) for side in (1, -1))
    for mode in ("eager", "xla") if BACKEND == "tensorflow" else ("eager",):
        found = curvature(lambda A: ops.sum(entropy(e[None], A)), A, v, mode)
        np.testing.assert_allclose(found, (forth - back) / (2 * step), atol=2e-3)


def test_the_logarithm_of_a_softmax_costs_no_digits_at_any_offset():
    scores = np.array([[0.0, -1.0, -30.0, -200.0]])
    for offset in (0.0, -(2.0**20), 2.0**20):
        p, log_p = softmax_with_log(ops.convert_to_tensor((scores + offset).astype("float32")))
        np.testing.assert_allclose(array(log_p), special.log_softmax(scores, axis=-1), rtol=1e-6)
        np.testing.assert_allclose(array(p), special.softmax(scores, axis=-1), rtol=1e-6, atol=1e-30)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.func")
@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["products", "logarithms"])
@pytest.mark.parametrize("name", NONLINEAR)
def test_the_transforms_of_torch_give_what_its_tape_gives(name, scale):
    import torch

    e, *rest = map(torch.tensor, chain(14))
    e, (function, _) = scale * e[None], NONLINEAR[name]
    for i, x in enumerate(rest):

        def of_one(x, i=i):
            return function(e, *rest[:i], x, *rest[i + 1 :])

        slope = torch.autograd.functional.jacobian(of_one, x)
        curvature = torch.autograd.functional.hessian(of_one, x)
        size = 1 + curvature.abs().max()
        assert (torch.func.grad(of_one)(x) - slope).abs().max() < 1e-5 * (1 + slope.abs().max())
        assert (torch.func.jvp(of_one, (x,), (x,))[1] - (slope * x).sum()).abs() < 1e-4 * (1 + slope.abs().max())
        assert (torch.func.hessian(of_one)(x) - curvature).abs().max() < 1e-4 * size


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has such transforms of a program")
@pytest.mark.parametrize("tags", ["known", "partly"])
def test_the_likelihood_stands_in_the_control_flow_of_jax(tags):
    import jax

    e, A, *_ = chain(13)
    y = EVERY[100:101] if tags == "known" else PARTLY[:1]

    def value(A):
        return ops.sum(log_likelihood(y, e[None], A))

    expected = jax.grad(value)(A)
    ways = {
        "checkpoint": jax.checkpoint(value),
        "cond": lambda A: jax.lax.cond(A[0, 0] < 9, value, lambda A: ops.sum(A), A),
        "scan": lambda A: jax.lax.scan(lambda total, _: (total + value(A), None), 0.0, None, length=1)[0],
        "map": lambda A: jax.lax.map(value, A[None])[0],
    }
    for name, way in ways.items():
        np.testing.assert_allclose(jax.grad(way)(A), expected, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(jax.vmap(jax.grad(value))(A[None])[0], expected, atol=1e-6)


def test_second_derivatives_with_forbidden_moves_are_finite_and_right():
    e, A, *_ = chain(11)
    A[0, 1] = A[2, :] = -math.inf
    v = np.random.default_rng(0).standard_normal(e.shape).astype("float32")

    def reference(x):
        return Sequences(x, A).log_z ** 2

    step = 1e-4
    expected = (
        finite_differences(reference, e + step * v.astype("float64"), 1e-5)
        - finite_differences(reference, e - step * v.astype("float64"), 1e-5)
    ) / (2 * step)
    found = curvature(lambda e: ops.sum(log_partition(e[None], A) ** 2), e, v)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
