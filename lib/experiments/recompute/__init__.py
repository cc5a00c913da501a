"""Chapter 8: what a network keeps for its gradient, and what it costs to forget it.

    :mod:`.networks`   the chains that are cut, and a step of their training that can be timed and weighed
    :mod:`.formulas`   bytes of a layer of a Transformer, counted by hand
    :mod:`.segments`   memory and time of one way to cut, and the costs of single links
    :mod:`.batches`    the largest batch that fits into a budget, and the time of a sample
    :mod:`.drawings`   the figures

``python -m lib.experiments.recompute --scale cpu`` records segments, race, thin, frontier, depth, kept, batches
and pace.
"""
