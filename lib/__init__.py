"""The ideas of Proof by Running: one module a chapter, and modules of their own for what chapters share.

Importing ``lib`` is cheap: it loads no backend and no other module. Take one idea at a time::

    from lib import angles            # NumPy and SciPy only
    from lib import initializers      # Keras 3, on whichever backend KERAS_BACKEND names

Each can be lifted into another project, with the ideas it imports. What the notebooks need besides
(data, claims, measurements, figures, exercises) is in ``lib.workbench``; the sweeps of the chapters
are in ``lib.experiments``; what turns notebooks into a site is in ``lib.press``.
"""

#: The oldest Keras that ``lib`` runs on. ``make test-backends`` tests this very version.
KERAS_MINIMUM = "3.8.0"
