"""Initialization as geometry: random matrices that keep the length of a vector.

A layer computes y = xW with a kernel W of shape (n, m): n inputs, m outputs. Its entries are independent, have
mean 0 and a variance that depends on n and m alone. The choice of that variance is a choice of what is kept:

=================  ================  ==============================================================
rule               variance          keeps
=================  ================  ==============================================================
``fan_out``        1/m               the length of the vector, forward (the rule of the article)
``fan_in``         1/n               the second moment of a coordinate, forward (LeCun; He with gain √2)
``average``        2/(m + n)         a compromise between forward and backward (Glorot and Bengio)
``geometric``      1/√(mn)           the length through an n → m → n pair of layers
=================  ================  ==============================================================

Beside these initializers (:class:`Scaled`) there are exactly orthogonal ones (:class:`Orthogonal`,
:class:`DeltaOrthogonal`), and what the theory says about them.

::

    axes          which axes of a kernel are inputs and which outputs, by the layer
    draws         the initializers: independent entries, and orthogonal ones
    activations   what an activation does to lengths and angles, and the gain it asks for
    spectrum      the law of the singular values of a random matrix

Needs NumPy, SciPy and Keras.

Source: Su Jianlin, "A geometric view of parameter initialization", https://kexue.fm/archives/7180.
"""

from .activations import activation_gain, correlation_map
from .axes import KernelAxes, fans, kernel_axes
from .draws import DeltaOrthogonal, Orthogonal, Scaled
from .spectrum import marchenko_pastur

__all__ = [
    "DeltaOrthogonal",
    "KernelAxes",
    "Orthogonal",
    "Scaled",
    "activation_gain",
    "correlation_map",
    "fans",
    "kernel_axes",
    "marchenko_pastur",
]
