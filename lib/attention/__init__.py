"""Attention with and without softmax: one function a form, one layer for all, and generation token by token.

::

    functional       softmax, linear, retention, gated, delta rule: functions of q, k, v
    layer            Attention: projections, heads and one of these forms
    feature_maps     φ, whose products φ(q)ᵀφ(k) are the weights of the keys
    bidirectional    one state that all queries see
    chunkwise        a state that each token rewrites, in chunks; step and prefill continue it
    segments         long sequences in parts that stay in a cache

Chapter 7. Needs NumPy and Keras.
"""

from .bidirectional import State
from .chunkwise import prefill, step
from .feature_maps import FEATURE_MAPS, FeatureMap, elu_plus_one, one_plus_cosine, random_features, taylor
from .functional import (
    Cache,
    cached_step,
    cumulative_attention,
    delta_rule,
    double_softmax_attention,
    gated_attention,
    linear_attention,
    recurrent_attention,
    retention,
    softmax_attention,
)
from .layer import Attention

__all__ = [
    "FEATURE_MAPS",
    "Attention",
    "Cache",
    "FeatureMap",
    "State",
    "cached_step",
    "cumulative_attention",
    "delta_rule",
    "double_softmax_attention",
    "elu_plus_one",
    "gated_attention",
    "linear_attention",
    "one_plus_cosine",
    "prefill",
    "random_features",
    "recurrent_attention",
    "retention",
    "softmax_attention",
    "step",
    "taylor",
]
