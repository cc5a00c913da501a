"""Chapter 9: BERT-of-Theseus, a network made smaller by replacing its parts.

    :mod:`.formulas`     how many modules are replaced, which mixtures are trained, how far an idle weight moves
    :mod:`.images`       the small experiment: pictures of clothes, six residual blocks to three
    :mod:`.reviews`      sentences of movie reviews, and MiniLM as a chain of layers
    :mod:`.compression`  ways from a trained MiniLM to a smaller one, with a counted effort
    :mod:`.costs`        the time of a step of each
    :mod:`.comparison`   how two classifiers are compared that answered the same items
    :mod:`.accuracy`     from the rows of a record to differences, seed by seed
    :mod:`.findings`     the samples behind each claim, and all other comparisons
    :mod:`.drawings`     the figures
    :mod:`.exercises`    the exercises

``python -m lib.experiments.theseus --scale cpu`` records them. On one core "half" and "others" take two hours each,
"opened" and "few" one, "images" and "contest" a quarter of one, the others minutes. A record names a way to train
MiniLM by its ``road``.
"""
