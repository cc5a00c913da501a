"""What a linear chain costs: the CRF's negative log-likelihood with its gradient, and Viterbi decoding.

    KERAS_BACKEND=jax python -m pytest tests/bench/bench_chain.py -o python_files='bench_*.py'

pytorch-crf (on torch, one thread) and a contestant take turns, so that a busy machine slows both.
``over_pytorch_crf`` in the extra information is the median of the quotients; more is better. ``lib.chain`` runs on
the backend of KERAS_BACKEND, the peers on their own. Pin the process to one core (``taskset -c 0``), and on a
machine that others use count processor time: ``--benchmark-timer=time.process_time``.

dynamax has the parameters of an HMM and is spared the score of the given tags; torch-struct takes 20 s a step for
45 tags and is left out there.
"""

from statistics import median

import keras
import numpy as np
import pytest
from keras import ops

from lib.chain import log_partition, sequence_score, viterbi

torch = pytest.importorskip("torch", reason="pytorch-crf, the yardstick, needs torch")
torchcrf = pytest.importorskip("torchcrf", reason="pytorch-crf, the yardstick, is not installed")
torch.set_num_threads(1)

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

MODES = {"tensorflow": ["XLA", "graph"], "jax": ["jit"], "torch": ["eager"]}[BACKEND]
SIZES = [(32, 128, 4), (32, 256, 9), (16, 512, 45), (4, 4096, 9)]  # batch, time, tags
SECONDS = 8.0  # spent on a row of the table, about


class Workload:
    """Scores of random chains of full length, and random tags."""

    def __init__(self, batch, time, tags):
        rng = np.random.default_rng(0)
        self.emissions = rng.standard_normal((batch, time, tags)).astype("float32")
        self.transitions = rng.standard_normal((tags, tags)).astype("float32")
        self.start, self.end = rng.standard_normal((2, tags)).astype("float32")
        self.tags = rng.integers(0, tags, (batch, time)).astype("int32")
        self.mask = np.ones((batch, time), bool)

    @property
    def scores(self):
        return self.emissions, self.transitions, self.start, self.end


# --- the yardstick --------------------------------------------------------------------------------------------


def pytorch_crf(work):
    """The loss with its gradient, and decoding, by pytorch-crf."""
    crf = torchcrf.CRF(work.emissions.shape[2], batch_first=True)
    for parameter, values in (
        (crf.transitions, work.transitions),
        (crf.start_transitions, work.start),
        (crf.end_transitions, work.end),
    ):
        parameter.data = torch.tensor(values)
    emissions = torch.tensor(work.emissions, requires_grad=True)
    tags, mask = torch.tensor(work.tags).long(), torch.tensor(work.mask)

    def loss():
        crf.zero_grad()
        emissions.grad = None
        value = -crf(emissions, tags, mask=mask, reduction="mean")
        value.backward()
        return float(value.detach())

    return loss, lambda: np.array(crf.decode(emissions, mask))


# --- lib.chain ------------------------------------------------------------------------------------------------


def mean_loss(emissions, transitions, start, end, tags, mask):
    given = {"mask": mask, "start": start, "end": end}
    return ops.mean(
        log_partition(emissions, transitions, **given) - sequence_score(tags, emissions, transitions, **given)
    )


def best_tags(emissions, transitions, start, end, mask):
    return viterbi(emissions, transitions, mask=mask, start=start, end=end)[0]


def chain(work, mode):
    """The same by lib.chain, on the backend at hand."""
    scores = [ops.convert_to_tensor(x) for x in work.scores]
    tags, mask = ops.convert_to_tensor(work.tags), ops.convert_to_tensor(work.mask)
    if BACKEND == "tensorflow":

        @tf.function(jit_compile=mode == "XLA", autograph=False)
        def value_and_gradient(*scores):
            with tf.GradientTape() as tape:
                tape.watch(scores)
                value = mean_loss(*scores, tags, mask)
            return value, tape.gradient(value, scores)

        decode = tf.function(best_tags, jit_compile=mode == "XLA", autograph=False)
        return lambda: value_and_gradient(*scores)[0].numpy(), lambda: decode(*scores, mask).numpy()
    if BACKEND == "jax":
        import jax

        value_and_gradient, decode = jax.jit(jax.value_and_grad(mean_loss, range(4))), jax.jit(best_tags)
        return (
            lambda: float(jax.block_until_ready(value_and_gradient(*scores, tags, mask))[0]),
            lambda: np.asarray(decode(*scores, mask)),
        )
    scores = [x.requires_grad_() for x in scores]

    def loss():
        for x in scores:
            x.grad = None
        value = mean_loss(*scores, tags, mask)
        value.backward()
        return float(value.detach())

    return loss, lambda: best_tags(*scores, mask).numpy()


# --- peers ----------------------------------------------------------------------------------------------------


def torch_struct(work):
    """The log-partition by a tree of products in the log-semiring."""
    peer = pytest.importorskip("torch_struct", reason="torch-struct is not installed")
    if work.emissions.shape[2] > 16:
        pytest.skip("torch-struct takes 20 s a step")
    emissions, transitions, start, end = (torch.tensor(x, requires_grad=True) for x in work.scores)
    tags = torch.tensor(work.tags).long()

    def distribution():
        e = torch.cat([emissions[:, :1] + start, emissions[:, 1:-1], emissions[:, -1:] + end], 1)
        potentials = e[:, 1:, :, None] + transitions.T
        potentials = torch.cat([potentials[:, :1] + e[:, :1, None, :], potentials[:, 1:]], 1)
        return peer.LinearChainCRF(potentials)

    def loss():
        emissions.grad = None
        chain = distribution()
        value = -chain.log_prob(peer.LinearChainCRF.struct.to_parts(tags, work.emissions.shape[2])).mean()
        value.backward()
        return float(value.detach())

    return loss, lambda: peer.LinearChainCRF.struct.from_parts(distribution().argmax)[0].numpy()


def dynamax(work):
    """An HMM's filter, differentiated, and its posterior mode; XLA through JAX."""
    jax = pytest.importorskip("jax", reason="dynamax needs JAX")
    pytest.importorskip("optax", reason="dynamax is not installed")
    hmm = pytest.importorskip("dynamax.hidden_markov_model", reason="dynamax is not installed")
    arguments = [jax.numpy.asarray(x) for x in (work.start, work.transitions, work.emissions)]

    def loss(start, transitions, emissions):
        return -jax.vmap(lambda e: hmm.hmm_filter(start, transitions, e).marginal_loglik)(emissions).mean()

    step = jax.jit(jax.value_and_grad(lambda s, A, e: loss(jax.nn.softmax(s), jax.nn.softmax(A), e), (0, 1, 2)))
    decode = jax.jit(
        lambda s, A, e: jax.vmap(lambda e: hmm.hmm_posterior_mode(jax.nn.softmax(s), jax.nn.softmax(A), e))(e)
    )
    return lambda: jax.block_until_ready(step(*arguments)), lambda: np.asarray(decode(*arguments))


CONTESTANTS = {
    **{f"lib.chain, {BACKEND} {mode}": (lambda work, mode=mode: chain(work, mode)) for mode in MODES},
    "torch-struct": torch_struct,
    "dynamax": dynamax,
}


# --- the race -------------------------------------------------------------------------------------------------


def race(benchmark, step, yardstick):
    """Time both in turn and note the median of the quotients.

    Turns are of about equal length: after each step of the yardstick come as many steps as take the same time, the
    first of them not timed, because the yardstick has emptied the caches.
    """

    def seconds(function):
        start = benchmark._timer()
        function()
        return benchmark._timer() - start

    def turn():
        if len(current) % steps == 0:
            yardsticks.append(seconds(yardstick))
            step()
        current.append(yardsticks[-1])

    step(), yardstick()
    own, other = seconds(step), seconds(yardstick)
    steps = int(np.clip(other / own, 1, 50))
    turns = int(np.clip(SECONDS / (other + steps * own), 5, 100))
    yardsticks, current = [], []
    benchmark.pedantic(step, setup=turn, rounds=turns * steps)
    quotients = [y / s for y, s in zip(current, benchmark.stats.stats.data, strict=True)]
    benchmark.extra_info["over_pytorch_crf"] = round(median(quotients), 2)
    benchmark.extra_info["pytorch_crf_ms"] = round(1e3 * median(current), 2)


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_loss_and_gradient(benchmark, size, contestant):
    benchmark.group = f"loss and gradient, {size}"
    work = Workload(*size)
    yardstick, step = pytorch_crf(work)[0], CONTESTANTS[contestant](work)[0]
    if contestant != "dynamax":
        assert step() == pytest.approx(yardstick(), rel=1e-4)
    race(benchmark, step, yardstick)


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_decoding(benchmark, size, contestant):
    benchmark.group = f"decoding, {size}"
    work = Workload(*size)
    yardstick, step = pytorch_crf(work)[1], CONTESTANTS[contestant](work)[1]
    if contestant != "dynamax":
        assert (step() == yardstick()).mean() > 0.99
    race(benchmark, step, yardstick)
