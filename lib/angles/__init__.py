"""The angle between two random vectors of Rⁿ, and what follows from its law.

Two independent isotropic vectors meet at an angle Θ whose density is proportional to sinⁿ⁻²θ. In high dimension
it piles up at 90 degrees. ``angle`` and ``cosine`` are the exact laws of Θ and of cos Θ as SciPy distributions,
``largest_cosine`` is the law of the worst pair among many, ``dimension_for`` and ``dimension_bound`` are the
Johnson-Lindenstrauss lemma, and ``log_directions_within`` counts almost orthogonal directions.
``angle_between`` and ``pairwise_angles`` measure the angles of given vectors.

::

    laws         the laws of the angle, of its cosine and of the worst pair
    vectors      the angles of given vectors
    dimensions   the Johnson-Lindenstrauss lemma, and how many directions are almost orthogonal
    _law         the law as functions of the dimension and a point
    _checks      checks of arguments that may be arrays

Needs NumPy and SciPy.

Source: Su Jianlin, article 7076 (https://kexue.fm/archives/7076), for the density and its derivation.
"""

from .dimensions import dimension_bound, dimension_for, log_directions_within
from .laws import angle, cosine, largest_cosine
from .vectors import angle_between, pairwise_angles

__all__ = [
    "angle",
    "angle_between",
    "cosine",
    "dimension_bound",
    "dimension_for",
    "largest_cosine",
    "log_directions_within",
    "pairwise_angles",
]
