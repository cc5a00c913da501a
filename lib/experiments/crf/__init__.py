"""Chapter 4: how far the scores of a CRF travel, what moves them, and what it is worth that they move.

    :mod:`.matrices`     transitions: where they begin, and which moves they prefer
    :mod:`.corpora`      the sentences
    :mod:`.gradients`    what reaches the transitions: margins and gradients
    :mod:`.finetuning`   a network under a softmax and then under a CRF, or under a CRF from the start
    :mod:`.road`         transitions that travel alone: steps times rate
    :mod:`.sweeps`       what is recorded
    :mod:`.drawings`     the figures of the chapter
    :mod:`.exercises`    the exercises of the chapter

``python -m lib.experiments.crf --scale cpu`` records them, in an hour and a half of one core. Multiplier None is
the softmax, a tagger without transitions. Tags are s, b, m, e, as in the article.
"""
