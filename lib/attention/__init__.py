"""Attention with and without softmax: one function a form, one layer for all, and generation token by token.

::

    functional       softmax, linear, retention, gated, delta rule: functions of q, k, v
    layer            Attention: projections, heads and one of the forms; prefill and step write on
    forms            the forms as objects: what each makes of queries, keys and values, whole or by the token
    cache            what the softmax remembers of the tokens so far, growing or of fixed size
    rotary           positions as angles, by which queries and keys are turned
    feature_maps     φ, whose products φ(q)ᵀφ(k) are the weights of the keys
    bidirectional    one state that all queries see
    chunkwise        a state that each token rewrites; recurrent_step and prefill continue it
    chunks           the formulas of that state and of its gradient, chunk by chunk
    tiling           long sequences in parts that stay in a cache, and gradients of one's own
    arguments        what all of them take, and what is masked

Needs NumPy and Keras.
"""

from .bidirectional import State
from .cache import Cache, cached_attention, cached_step
from .chunkwise import prefill, recurrent_step
from .feature_maps import FEATURE_MAPS, FeatureMap, elu_plus_one, one_plus_cosine, random_features, taylor
from .functional import (
    cumulative_attention,
    delta_rule,
    double_softmax_attention,
    gated_attention,
    linear_attention,
    recurrent_attention,
    retention,
    softmax_attention,
)
from .layer import Attention, Progress
from .rotary import rotate

__all__ = [
    "FEATURE_MAPS",
    "Attention",
    "Cache",
    "FeatureMap",
    "Progress",
    "State",
    "cached_attention",
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
    "recurrent_step",
    "retention",
    "rotate",
    "softmax_attention",
    "taylor",
]
