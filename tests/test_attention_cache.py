"""Truths about ``lib.attention.cache``, on whichever backend KERAS_BACKEND names."""

from __future__ import annotations

import numpy as np
import pytest
from attention_references import BACKEND, DIM, HEADS, array, close, compiled, normal, qkv, softmax_reference
from keras import ops

from lib.attention import Cache, State, cached_attention, cached_step
from lib.attention.cache import as_many_heads

pytestmark = pytest.mark.backends

Q, K, V = qkv(7)
MASK = np.array([[True, False, True, True, False, True, True], [False, False, False, True, True, True, True]])


def part(first, last, mask=None):
    given = {} if mask is None else {"mask": mask[:, first:last]}
    return (Q[:, first:last], K[:, first:last], V[:, first:last]), given


def row(t, mask=None):
    given = {} if mask is None else {"mask": mask[:, t]}
    return (Q[:, t], K[:, t], V[:, t]), given


@pytest.mark.parametrize("capacity", [None, 7, 11])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_parts_and_steps_give_what_all_tokens_give_at_once(mask, capacity):
    whole, cache, outputs = softmax_reference(Q, K, V, True, mask), None, []
    for first, last in ((0, 3), (3, 5)):
        tokens, given = part(first, last, mask)
        out, cache = cached_attention(*tokens, cache, capacity=capacity, **given)
        outputs.append(array(out))
    for t in (5, 6):
        tokens, given = row(t, mask)
        out, cache = cached_step(*tokens, cache, capacity=capacity, **given)
        outputs.append(array(out)[:, None])
    assert close(np.concatenate(outputs, axis=1), whole)
    assert cache.k.shape[1] == (capacity or 7)


def test_a_mask_that_comes_late_or_goes_is_remembered():
    mask = np.array([[True] * 3 + [False] + [True] * 3, [True] * 7])
    for capacity in (None, 8):
        (tokens, _), cache = part(0, 3), None
        _, cache = cached_attention(*tokens, capacity=capacity)
        tokens, given = row(3, mask)
        _, cache = cached_step(*tokens, cache, **given)
        (tokens, _) = part(4, 7)
        out, cache = cached_attention(*tokens, cache)
        assert close(out, softmax_reference(Q, K, V, True, mask)[:, 4:])


def test_what_is_masked_may_be_anything_even_nan():
    bad = [np.where(MASK[..., None, None], x, np.nan).astype("float32") for x in (K, V)]
    _, cache = cached_attention(Q[:, :6], *(x[:, :6] for x in bad), mask=MASK[:, :6], capacity=8)
    out, _ = cached_step(Q[:, 6], *(x[:, 6] for x in bad), cache, mask=MASK[:, 6])
    assert close(out, softmax_reference(Q, K, V, True, MASK)[:, 6])


def test_a_few_heads_of_keys_serve_many_of_queries():
    k, v = K[:, :, :1], V[:, :, :1]
    whole = softmax_reference(Q, np.repeat(k, HEADS, axis=2), np.repeat(v, HEADS, axis=2), True)
    _, cache = cached_attention(Q[:, :6], k[:, :6], v[:, :6], capacity=7)
    assert tuple(cache.k.shape) == (2, 7, 1, DIM)
    assert close(cached_step(Q[:, 6], k[:, 6], v[:, 6], cache)[0], whole[:, 6])
    wide = array(as_many_heads(normal(1, 2, 2, 3), 4))
    assert np.array_equal(wide[:, :, 0], wide[:, :, 1])
    assert not np.array_equal(wide[:, :, 1], wide[:, :, 2])


def test_a_compiled_step_is_traced_once_for_all_tokens():
    traces, whole = [], softmax_reference(Q, K, V, True)

    def step(q, k, v, held_k, held_v, seen, used):
        traces.append(None)
        out, cache = cached_step(q, k, v, Cache(held_k, held_v, seen, used))
        return (out, *cache)

    run = compiled(step)
    _, cache = cached_attention(*part(0, 1)[0], capacity=8)
    for t in range(1, 7):
        out, *cache = run(*(ops.convert_to_tensor(x) for x in row(t)[0]), *cache)
        assert close(out, whole[:, t])
    assert len(traces) == (6 if BACKEND == "torch" else 1)  # torch runs it as it is


def test_a_full_room_is_refused_and_where_no_error_can_be_nan():
    _, cache = cached_attention(*part(0, 3)[0], capacity=4)
    _, full = cached_step(*row(3)[0], cache)
    assert int(full.used) == 4
    for call in (lambda: cached_step(*row(4)[0], full), lambda: cached_attention(*part(3, 6)[0], cache)):
        with pytest.raises(ValueError, match=r"capacity must be enough for all tokens, got [56] in a room for 4"):
            call()
    if BACKEND == "torch":
        return

    def step(q, k, v, *cache):
        out, cache = cached_step(q, k, v, Cache(*cache))
        return (out, *cache)

    run = compiled(step, "xla" if BACKEND == "tensorflow" else None)
    tokens = [ops.convert_to_tensor(x) for x in row(4)[0]]
    for _ in range(2):  # and it stays so
        out, *full = run(*tokens, *full)
        assert np.all(np.isnan(array(out)))


def test_a_graph_without_xla_asserts():
    if BACKEND != "tensorflow":
        pytest.skip("a graph of TensorFlow")
    import tensorflow as tf

    _, full = cached_attention(*part(0, 3)[0], capacity=3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="capacity must be enough for all tokens"):
        tf.function(cached_step)(*(tf.convert_to_tensor(x) for x in row(3)[0]), full)


_, HELD = cached_attention(*part(0, 3)[0], capacity=8)
_, GROWING = cached_attention(*part(0, 3)[0])
WRONG = [
    (
        lambda: cached_attention(*part(0, 5)[0], capacity=4),
        "capacity must be at least 5, the number of tokens, got 4",
    ),
    (lambda: cached_attention(*part(0, 5)[0], capacity=0), "capacity must be a positive integer, got 0"),
    (lambda: cached_attention(*part(0, 5)[0], capacity=True), "capacity must be a positive integer, got True"),
    (lambda: cached_step(*row(3)[0], HELD, capacity=9), "capacity must be None .* room for 8, got 9"),
    (lambda: cached_step(*row(3)[0], GROWING, capacity=9), "capacity must be None .* grows, got 9"),
    (lambda: cached_step(*row(3)[0], "HELD"), "cache must be what was returned"),
    (lambda: cached_step(*row(3)[0], State(*[None] * len(State._fields))), "cache must be what was returned"),
    (lambda: cached_step(*(x[:1] for x in row(3)[0]), HELD), "cache.k must have shape"),
    (lambda: cached_step(*row(3)[0], HELD, mask=np.ones((2, 1), bool)), "mask must have shape"),
    (lambda: cached_step(*row(3)[0], HELD, mask=[2, 1]), "mask must hold True or 1"),
    (lambda: cached_attention(Q, K[:, :6], V), "k must have shape"),
    (lambda: cached_attention(Q, K, V[:, :6]), "v must have shape"),
    (lambda: as_many_heads(normal(1, 2, 2, 3), 3), "k must have a number of heads that divides the 3 of q, got 2"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
