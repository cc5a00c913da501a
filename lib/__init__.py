"""The ideas of Proof by Running: nine of the table of contents, and what they share.

::

    I    angles          random vectors are nearly orthogonal
         initializers    initialization as geometry
         orthogonality   learning orthogonal filters
    II   crf             a softmax over all tag sequences, and the learning rate of its transitions
         memm, hmm       a softmax a step; a chain of probabilities, fitted by counting
         extraction      answers, triples and events out of one encoder
    III  attention       with and without softmax
         recompute       time for memory
         theseus         compress by replacing

    shared  chain        sums and maxima over all tag sequences
            tagging      the heads of a tagger, and the spans that labels spell
            bert         the encoder, its weights and its text

One module is a file, more are a folder. Importing ``lib`` is cheap: it loads no backend and no other module. Ideas
need NumPy, SciPy, Keras and each other; installed, they are ``proof_by_running``. What the notebooks need besides
is in ``lib.workbench``, the sweeps of the chapters in ``lib.experiments``, what makes the site in ``lib.press``.
"""

#: The oldest Keras that ``lib`` runs on. ``make test-backends`` tests this very version.
KERAS_MINIMUM = "3.8.0"
