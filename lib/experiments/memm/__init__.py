"""Chapter 5: where to normalize? The HMM, softmax, the MEMM and the CRF on equal terms.

    :mod:`.models`       the models by their names, and all paths of a short chain under each of them
    :mod:`.label_bias`   the chain of Lafferty, McCallum and Pereira, in theory and as it is trained
    :mod:`.decoding`     three decoders of one MEMM: its own, f + g, and f + g with one number a label set right
    :mod:`.costs`        seconds and bytes of losses, decoders and training steps, and of large tag sets
    :mod:`.corpora`      word segmentation and named entities, five models, one setting
    :mod:`.sweeps`       what is recorded
    :mod:`.drawings`     the figures of the chapter
    :mod:`.exercises`    the exercises of the chapter

``python -m lib.experiments.memm --scale cpu`` records them: "models" takes an hour on one core, "decoders-far" a
quarter, the others about five minutes each. "speed", "steps" and "tags" want a machine that does nothing else.
"""
