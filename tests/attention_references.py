"""What the tests of attention compare with: random inputs, gradients on any backend, and readable references.

The references are NumPy in float64, pair by pair or token by token.
"""

import math

import keras
import numpy as np
from keras import ops
from numerics import array, compiled, normal  # noqa: F401 (for those who import from here)

from lib.attention import FEATURE_MAPS

BACKEND = keras.backend.backend()
MAPS = ["elu+1", "exp", "relu", "1+cos", "taylor", "favor+"]
BATCH, TIME, HEADS, DIM = 2, 37, 2, 4


def qkv(time=TIME, batch=BATCH, dim=DIM, seed=0, dtype="float32"):
    return [normal(batch, time, HEADS, dim, seed=(seed, i), dtype=dtype) for i in range(3)]


def vector_gate(time=TIME, seed=0):
    """The log γ of each token and feature, some of them far from 0."""
    gamma = np.random.default_rng((seed, 12)).uniform(0.02, 1, (BATCH, time, HEADS, DIM))
    return np.log(gamma).astype("float32")


def gates(time=TIME, seed=0):
    """Both log γ and β of each token."""
    log_decay = np.log(np.random.default_rng((seed, 8)).uniform(0.5, 1, (BATCH, time, HEADS))).astype("float32")
    return log_decay, np.random.default_rng((seed, 9)).uniform(0, 1, (BATCH, time, HEADS)).astype("float32")


def padding(time=TIME):
    """A mask with padding before, behind and within."""
    mask = np.random.default_rng(5).uniform(size=(BATCH, time)) < 0.7
    mask[0, :3], mask[1, -5:] = False, False
    return mask


def gradients(function, inputs, upstream):
    """Gradients of Σ upstream · function(*inputs)."""
    return value_and_gradients(function, inputs, upstream)[1]


def value_and_gradients(function, inputs, upstream):
    """Σ upstream · function(*inputs), and its gradients."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        inputs = [tf.convert_to_tensor(x) for x in inputs]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = ops.sum(ops.cast(function(*inputs), "float32") * upstream)
        return float(value), [array(g) for g in tape.gradient(value, inputs)]
    if BACKEND == "jax":
        import jax

        both = jax.value_and_grad(lambda *x: ops.sum(function(*x) * upstream), range(len(inputs)))
        value, found = both(*inputs)
        return float(value), [array(g) for g in found]
    import torch

    inputs = [ops.convert_to_tensor(x).clone().detach().requires_grad_() for x in inputs]  # bfloat16 too
    value = ops.sum(function(*inputs) * torch.tensor(upstream))
    value.backward()
    return float(value.detach()), [array(x.grad) for x in inputs]


def slopes_agree(found, reference, inputs, upstream):
    """Whether gradients are those of finite differences of a reference in float64, along random directions."""
    inputs = [x.astype("float64") for x in inputs]
    for i, g in enumerate(found):
        h = 1e-6 * normal(*g.shape, seed=(11, i), dtype="float64")
        ends = [reference(*(x + sign * h if j == i else x for j, x in enumerate(inputs))) for sign in (1, -1)]
        slope = np.sum(upstream * (ends[0] - ends[1])) / 2e-6
        assert abs(np.sum(g * h) / 1e-6 - slope) <= 2e-4 * np.linalg.norm(g) + 1e-3
    return True


def second_slope(function, inputs, upstream, one, other):
    """The derivative, along other, of the derivative, along one, of Σ upstream · sin(function(*inputs))."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        inputs, one, other = ([tf.convert_to_tensor(x) for x in part] for part in (inputs, one, other))
        with tf.GradientTape() as outer:
            outer.watch(inputs)
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                value = ops.sum(ops.sin(function(*inputs)) * upstream)
            slope = sum(ops.sum(g * d) for g, d in zip(inner.gradient(value, inputs), one, strict=True))
        return float(sum(ops.sum(g * d) for g, d in zip(outer.gradient(slope, inputs), other, strict=True)))
    if BACKEND == "jax":
        import jax

        def value(inputs):
            return ops.sum(ops.sin(function(*inputs)) * upstream)

        def slope(inputs):
            return sum(ops.sum(g * d) for g, d in zip(jax.grad(value)(inputs), one, strict=True))

        return float(sum(ops.sum(g * d) for g, d in zip(jax.jit(jax.grad(slope))(inputs), other, strict=True)))
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    value = ops.sum(ops.sin(function(*inputs)) * torch.tensor(upstream))
    found = torch.autograd.grad(value, inputs, create_graph=True)
    slope = sum((g * torch.tensor(d)).sum() for g, d in zip(found, one, strict=True))
    found = torch.autograd.grad(slope, inputs)
    return float(sum((g * torch.tensor(d)).sum() for g, d in zip(found, other, strict=True)))


def second_difference(reference, inputs, upstream, one, other, h=1e-4):
    """As :func:`second_slope`, by finite differences of a reference in float64."""
    inputs = [x.astype("float64") for x in inputs]

    def value(s, t):
        moved = (x + h * (s * d + t * e) for x, d, e in zip(inputs, one, other, strict=True))
        return np.sum(upstream * np.sin(reference(*moved)))

    return (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / (4 * h**2)


def features_of(name, x):
    """φ(x) by its definition; NumPy, float64."""
    x = x.astype("float64")
    if name == "elu+1":
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
    if name == "exp":
        return np.exp(x)
    if name == "relu":
        return np.maximum(x, 0)
    if name == "1+cos":
        return np.concatenate([np.ones_like(x[..., :1]), x / np.linalg.norm(x, axis=-1, keepdims=True)], axis=-1)
    if name == "taylor":
        pairs = np.einsum("...i,...j->...ij", x, x) / math.sqrt(2)
        return np.concatenate([np.ones_like(x[..., :1]), x, pairs.reshape(*x.shape[:-1], -1)], axis=-1)
    if name == "favor+":
        return np.exp(array(FEATURE_MAPS[name](x.shape[-1]).apply(x.astype("float32"))).astype("float64"))
    return x


def weighted(weights, v, normalize):
    """Outputs from weights (batch, heads, time, keys)."""
    out = np.einsum("bhij,bjhe->bihe", weights, v.astype("float64"))
    if normalize == "sum":
        total = np.moveaxis(weights.sum(axis=-1, keepdims=True), 1, 2)
        return out / np.where(total == 0, 1, total)
    if normalize == "rms":
        size = np.sqrt(np.mean(out**2, axis=-1, keepdims=True))
        return out / np.where(size == 0, 1, size)
    return out


def quadratic(q, k, v, name="elu+1", causal=True, mask=None, normalize="sum", log_decay=None):
    """All pairs, one after another; NumPy, float64."""
    weights = np.einsum("bihf,bjhf->bhij", features_of(name, q), features_of(name, k))
    if mask is not None:
        weights = weights * mask[:, None, None, :]
    if log_decay is not None:
        g = log_decay.astype("float64") if mask is None else log_decay * mask[..., None].astype("float64")
        g = np.moveaxis(np.cumsum(g, axis=1), 1, 2)
        weights = weights * np.exp(np.minimum(g[..., :, None] - g[..., None, :], 0))
    return weighted(np.tril(weights) if causal else weights, v, normalize)


def softmax_reference(q, k, v, causal=False, mask=None, scale=None):
    scores = np.einsum("bihd,bjhd->bhij", *(x.astype("float64") for x in (q, k)))
    scores *= 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    weights = np.exp(scores - scores.max())
    weights = np.tril(weights) if causal else weights
    return weighted(weights if mask is None else weights * mask[:, None, None, :], v, "sum")


def delta_reference(q, k, v, beta, log_decay=None, mask=None):
    """S ← γ (I − β k kᵀ) S + β k vᵀ, token by token; NumPy, float64."""
    q, k, v, beta = (x.astype("float64") for x in (q, k, v, beta))
    out = np.zeros(v.shape)
    for b, h in np.ndindex(q.shape[0], q.shape[2]):
        S = np.zeros((q.shape[-1], v.shape[-1]))
        for t in range(q.shape[1]):
            if mask is None or mask[b, t]:
                gamma = 1 if log_decay is None else math.exp(log_decay[b, t, h])
                key, rate = k[b, t, h], beta[b, t, h]
                S = gamma * (np.eye(len(key)) - rate * np.outer(key, key)) @ S + rate * np.outer(key, v[b, t, h])
            out[b, t, h] = q[b, t, h] @ S
    return out


def gated_reference(q, k, v, log_decay, normalize=None, mask=None):
    """S ← γ S + k vᵀ, token by token, with a γ a head or a feature; NumPy, float64."""
    q, k, v, log_decay = (x.astype("float64") for x in (q, k, v, log_decay))
    out = np.zeros(v.shape)
    for b, h in np.ndindex(q.shape[0], q.shape[2]):
        S = np.zeros((q.shape[-1], v.shape[-1]))
        for t in range(q.shape[1]):
            if mask is None or mask[b, t]:
                gamma = np.exp(np.atleast_1d(log_decay[b, t, h]))
                S = gamma[:, None] * S + np.outer(k[b, t, h], v[b, t, h])
            out[b, t, h] = q[b, t, h] @ S
    if normalize is None:
        return out
    size = np.sqrt(np.mean(out**2, axis=-1, keepdims=True))
    return out / np.where(size == 0, 1, size)


def close(x, y, tolerance=2e-5):
    x, y = array(x), np.asarray(y)
    assert x.shape == y.shape
    assert np.max(np.abs(x - y)) <= tolerance * max(1, np.max(np.abs(y)))
    return True
