"""Weights of a tiny BERT in PyTorch's names, and what it computes with them, in NumPy."""

import math

import numpy as np
from numerics import normal
from scipy.stats import norm

SIZES = {"vocabulary": 20, "hidden": 32, "layers": 3, "num_heads": 4, "inner": 64, "positions": 12, "types": 2}

BLOCK_NAMES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def lively(layer, seed=0):
    """The layer with weights far from their start, so that every part of it matters."""
    for i, weight in enumerate(layer.trainable_weights):
        weight.assign(0.3 * normal(*weight.shape, seed=(seed, i)) + (weight.name == "gamma"))
    return layer


def pytorch_tensors(seed=0):
    """Random tensors of a tiny BERT in PyTorch's names and layout, by shape alone."""
    sizes, tensors = SIZES, {}
    hidden, inner = sizes["hidden"], sizes["inner"]

    def put(name, *shape):
        tensors[name] = 0.3 * np.random.default_rng((seed, len(tensors))).standard_normal(shape).astype("float32")

    put("embeddings.word_embeddings.weight", sizes["vocabulary"], hidden)
    put("embeddings.position_embeddings.weight", sizes["positions"], hidden)
    put("embeddings.token_type_embeddings.weight", sizes["types"], hidden)
    for name, outputs, inputs in [
        ("embeddings.LayerNorm", hidden, 0),
        *(
            (f"encoder.layer.{i}.{name}", outputs, inputs)
            for i in range(sizes["layers"])
            for name, outputs, inputs in [
                *((name, hidden, hidden) for name in list(BLOCK_NAMES)[:4]),
                ("attention.output.LayerNorm", hidden, 0),
                ("intermediate.dense", inner, hidden),
                ("output.dense", hidden, inner),
                ("output.LayerNorm", hidden, 0),
            ]
        ),
    ]:
        put(f"{name}.weight", *((outputs, inputs) if inputs else (outputs,)))
        put(f"{name}.bias", outputs)
    return tensors


def hidden_states(tensors, ids, mask, heads=4, epsilon=1e-12):
    """What a BERT with these tensors makes of ids (batch, time), in double precision; segments are 0."""
    tensors = {name: tensor.astype("float64") for name, tensor in tensors.items()}

    def dense(name, x):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def normalized(name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
        return tensors[f"{name}.weight"] * scaled + tensors[f"{name}.bias"]

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = normalized("embeddings.LayerNorm", x + tensors["embeddings.token_type_embeddings.weight"][0])
    for i in range(SIZES["layers"]):
        block = f"encoder.layer.{i}"
        q, k, v = (split(dense(f"{block}.attention.self.{part}", x)) for part in ("query", "key", "value"))
        weights = np.exp(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1])) * mask[:, None, None, :]
        attended = (weights / weights.sum(axis=-1, keepdims=True) @ v).swapaxes(1, 2).reshape(x.shape)
        x = normalized(
            f"{block}.attention.output.LayerNorm", x + dense(f"{block}.attention.output.dense", attended)
        )
        inner = dense(f"{block}.intermediate.dense", x)
        x = normalized(f"{block}.output.LayerNorm", x + dense(f"{block}.output.dense", inner * norm.cdf(inner)))
    return x
