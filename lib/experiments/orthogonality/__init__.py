"""Chapter 3: what the agreement of signs estimates, and what the module makes of it.

::

    agreement    the estimate: agreement of signs against angles and correlations; the module alone
    fashion      what is trained on
    training     one network trained in every way
    sweeps       what is recorded, and its summary
    drawings     the figures of the chapter
    exercises    the exercises of the chapter

``python -m lib.experiments.orthogonality --scale cpu`` records the choice of strengths, the parts of the module at
one strength, the training, the filters it ends with, and the module alone.
"""
