"""Truths about ``tf.vectorized_map``, which pads with 0 and says nothing where another number is asked."""

import numpy as np
import pytest
from numerics import BACKEND, array, normal

from lib import chain, memm
from lib.attention import gated_attention, linear_attention
from lib.extraction import best_span

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has tf.vectorized_map"),
]

EMISSIONS, TRANSITIONS = normal(3, 2, 5, 3), normal(3, 3, seed=1)
TAGS = np.random.default_rng(2).integers(0, 3, (3, 2, 5))
LOGITS, TOKENS = normal(3, 2, 5, 2, seed=3), normal(3, 2, 6, 2, 4, seed=4) - 3

CASES = {
    "log_partition": (lambda e: chain.log_partition(e, TRANSITIONS), EMISSIONS),
    "log_likelihood": (lambda y: chain.log_likelihood(y, EMISSIONS[0], TRANSITIONS), TAGS),
    "marginals": (lambda e: chain.marginals(e, TRANSITIONS), EMISSIONS),
    "entropy": (lambda e: chain.entropy(e, TRANSITIONS), EMISSIONS),
    "k_best": (lambda e: chain.k_best(e, TRANSITIONS, 3), EMISSIONS),
    "viterbi": (lambda e: memm.viterbi(e, TRANSITIONS), EMISSIONS),
    "greedy": (lambda e: memm.greedy(e, TRANSITIONS), EMISSIONS),
    "beam": (lambda e: memm.beam(e, TRANSITIONS, 2), EMISSIONS),
    "forward": (lambda y: memm.log_likelihood(y, EMISSIONS[0], TRANSITIONS), TAGS),
    "backward": (lambda y: memm.log_likelihood(y, EMISSIONS[0], TRANSITIONS, direction="backward"), TAGS),
    "span": (best_span, LOGITS),
    "short span": (lambda logits: best_span(logits, longest=2), LOGITS),
    "exp": (lambda q: linear_attention(q, q, q, "exp", causal=True), TOKENS),
    "gated": (lambda q: gated_attention(q, q, q, q[..., 0] - 3), TOKENS),
}


@pytest.mark.parametrize("name", CASES)
def test_a_map_over_rows_is_a_loop_over_rows(name):
    import tensorflow as tf

    function, rows = CASES[name]
    found = tf.nest.flatten(tf.vectorized_map(function, tf.constant(rows)))
    one_by_one = [tf.nest.flatten(function(row)) for row in tf.constant(rows)]
    for i, result in enumerate(found):
        np.testing.assert_allclose(array(result), [array(of_row[i]) for of_row in one_by_one], rtol=1e-5, atol=1e-6)
