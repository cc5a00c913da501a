"""Chapter 1, angles between random vectors.

::

    sampling     pairs of vectors, their angles, and how far these are from the law
    drawings     the figures of the chapter
    exercises    the exercises of the chapter

``python -m lib.experiments.angles --scale cpu`` records the long tests: a million pairs a case, the worst of 5000.
"""
