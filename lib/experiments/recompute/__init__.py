"""Chapter 8: what a network keeps for its gradient, and what it costs to forget it.

    :mod:`.schedule`   a step of a chain of equal layers, tick by tick
    :mod:`.networks`   the chains that are cut, and a step of their training that can be timed and weighed
    :mod:`.formulas`   bytes of a layer of a Transformer, counted by hand
    :mod:`.segments`   memory, multiplications and time of one way to cut
    :mod:`.traps`      what goes wrong where the second run is not the first
    :mod:`.batches`    the largest batch that fits into a budget, and the time of a sample
    :mod:`.drawings`   the figures
    :mod:`.exercises`  the exercises

``python -m lib.experiments.recompute --scale cpu`` records cuts, race, remat and pace; with ``KERAS_BACKEND=torch``
and ``--only``, timeline, thin, frontier, depth, kept and batches.
"""
