"""BERT-of-Theseus: a network is made smaller by replacing its parts, one at a time and at random, as it trains.

A trained network, the *predecessor*, is a chain of modules. For each module F_p there is a *successor* F_s, which
is smaller and takes and gives the same shapes. In each step of training a gate z is drawn for each module::

    x ← F_s(x)  if z = 1,        x ← F_p(x)  if z = 0,        z = 1 with probability p, the replacement rate

The predecessor is frozen. Gradients pass through both kinds of modules and change the successors only, and the
loss is that of the task. In the end all modules are successors, and the predecessor is thrown away.

::

    replacement   the chain: ModuleReplacement, a layer that draws the gates, and runs what they chose
    rates         a rate that rises to 1 with the steps, curriculum; one that falls, anti_curriculum; and
                  ReplacementRate, a callback that reports the rate, and may set it before each epoch
    twins         twin: a layer with the same weights, to start a successor from
    _modules      a module, and one step of it: the one that was chosen, or the mean of both

Any layers of equal interface will do, blocks of ``lib.bert`` among them. With an ``encoder`` of six trained
blocks and the ``head`` of a task::

    body = ModuleReplacement(
        predecessors=[encoder.blocks[0:2], encoder.blocks[2:4], encoder.blocks[4:6]],
        successors=[twin(block) for block in encoder.blocks[:3]],
        rate=curriculum(0.5, steps=1000),
    )
    embeddings = Encoder(encoder.embeddings, [])
    model = keras.Sequential([embeddings, body, head])              # train this one
    small = body.successor(before=[embeddings], after=[head])       # and keep this one

Source: Xu et al. 2020 (arXiv 2002.02925); Su Jianlin, https://kexue.fm/archives/7575. Their letters differ: the
article's ε = 1 − z marks the predecessor.

Needs Keras alone.
"""

from .rates import ReplacementRate, anti_curriculum, curriculum
from .replacement import GATES, ModuleReplacement
from .twins import twin

__all__ = ["GATES", "ModuleReplacement", "ReplacementRate", "anti_curriculum", "curriculum", "twin"]
