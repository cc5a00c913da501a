"""Chapter 7: what attention costs with and without softmax, and what is lost.

    :mod:`.costs`         operations, bytes and seconds against the number of tokens, alone and within a layer
    :mod:`.decoding`      one more token: a state of fixed size against a cache that grows
    :mod:`.weights`       the matrix that an attention implies: rank, entropy, largest weight
    :mod:`.alternatives`  the other ways out of n², put in place of a trained encoder's softmax
    :mod:`.decoder`       the small language model whose attention is the only thing that changes
    :mod:`.recall`        what it can look up, against the size of its state
    :mod:`.language`      how well it predicts the characters of Moby Dick
    :mod:`.drawings`      the figures
    :mod:`.exercises`     checks, hints and worked solutions

``python -m lib.experiments.attention --scale cpu`` records costs, decoding, recall and language.
"""
