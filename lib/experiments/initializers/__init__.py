"""Chapter 2: how orthogonal is a random matrix, and what does a deep stack of them do to a signal and to learning?

::

    matrices     one matrix: is WᵀW near the identity, and does W keep a length?
    depth        many layers: lengths, angles, and what becomes of a small difference
    training     which networks of a hundred layers learn, and why others do not
    drawings     the figures of the chapter
    exercises    the exercises of the chapter

``KERAS_BACKEND=jax python -m lib.experiments.initializers --scale cpu`` records the large matrices (two minutes of
a core), the gradients (one) and the training (six). JAX compiles the loop over the layers, TensorFlow walks it.
"""
