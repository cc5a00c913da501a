"""Recomputation: forget what a layer computed on the way, and compute it again when the gradient asks for it.

::

    layers         layers around layers: Recompute, made by recompute; LayerSequence and CheckpointedSequence, made
                   by checkpoint_sequence
    checkpoints    where to cut a chain: what any cuts take of memory and time, and which are best
    pure_call      a call of a layer as a function of tensors that can be run again
    rematerialize  run a function now, keep its arguments only, run it again for the gradient; knows the backends

Needs NumPy and Keras.
"""

from .checkpoints import (
    Cost,
    Plan,
    chen,
    equal_cuts,
    forecast,
    frontier,
    nothing,
    plan,
    saving,
    smallest,
    sqrt_cuts,
    units,
)
from .layers import CheckpointedSequence, LayerSequence, Link, Recompute, checkpoint_sequence, links, recompute
from .pure_call import PureCall
from .rematerialize import replay

__all__ = [
    "CheckpointedSequence",
    "Cost",
    "LayerSequence",
    "Link",
    "Plan",
    "PureCall",
    "Recompute",
    "checkpoint_sequence",
    "chen",
    "equal_cuts",
    "forecast",
    "frontier",
    "links",
    "nothing",
    "plan",
    "recompute",
    "replay",
    "saving",
    "smallest",
    "sqrt_cuts",
    "units",
]
