"""Chapter 6: one kind of encoder under three heads, trained on real texts and scored on texts it has not seen.

    :mod:`.batching`     batches of texts of like length
    :mod:`.relations`    triples of DuIE by the cascade; three treatments of rare positives
    :mod:`.trained`      a cascade that was trained once, its weights as a file, what it finds at every threshold
    :mod:`.reading`      the same triples asked as questions, answered by a pointer, by BIO labels, or by both
    :mod:`.events`       arguments of biomedical events by composite BIO labels under a CRF, cross-validated
    :mod:`.judging`      two readings of the triples that were counted as wrong
    :mod:`.places`       tokens and raw characters
    :mod:`.drawings`     the figures of the chapter
    :mod:`.exercises`    the exercises of the chapter

``python -m lib.experiments.extraction --scale cpu`` records them. The encoder of relations and reading is the lower
part of multilingual-e5-small, one id a character; that of events is MiniLM. Both go on learning with their heads.
"cascade" takes five minutes on two cores and writes the weights that the chapter reads with.
"""
