"""Learning orthogonal filters: penalties on a kernel, penalties on its outputs, and kernels orthogonal by design.

A kernel of shape (*, in, out) is a matrix W (d, k): k filters w_i, the columns, of d numbers each. Where other axes
are inputs and outputs, wrappers see it by the layer and penalties are told. Where a kernel is several maps that
share no inputs, as in grouped and depthwise convolutions, each has filters of its own. There are four ways to ask
for w_iᵀw_j = 0:

========  =====================================================================  ===================================
way       what it is                                                             here
========  =====================================================================  ===================================
soft      a penalty on WᵀW, as ``kernel_regularizer``                            :class:`SoftOrthogonality`,
                                                                                 :class:`OffDiagonalOrthogonality`,
                                                                                 :class:`SpectralIsometry`,
                                                                                 :class:`MutualCoherence`
by data   a penalty on the signs of the outputs of a batch                       :class:`SelfOrthogonality`
hard      W is a function of a free matrix and orthogonal for all of its values  :class:`Orthogonalized`
update    the step is made orthogonal, not the weights                           ``keras.optimizers.Muon``,
                                                                                 for kernels (in, out) only
========  =====================================================================  ===================================

Orthogonal filters do not make a convolution an orthogonal operator on images, since shifted filters overlap; that
is a stronger condition (Wang et al. 2020, arXiv 1911.12207).

::

    filters           a kernel as a set of filters: matrix, angles, the Welch bound
    penalties         soft: regularizers of the kernel
    signs             by data: the Self-Orthogonality Module
    parametrization   hard: the polar factor of a free kernel
    _wrapper          what the wrappers of both share

Needs NumPy, SciPy and Keras.

Source: Su Jianlin, https://kexue.fm/archives/7169; Zhang, Ma, Wu and Wang 2020, "Self-Orthogonality Module"
(arXiv 2001.01275); Bansal, Chen and Wang 2018 (arXiv 1810.09102).
"""

from .filters import filter_angles, kernel_matrix, welch_bound
from .parametrization import Orthogonalized, polar
from .penalties import MutualCoherence, OffDiagonalOrthogonality, SoftOrthogonality, SpectralIsometry
from .signs import (
    SelfOrthogonality,
    agreement_penalty,
    expected_agreement,
    sampling_floor,
    self_orthogonality,
    sign_agreement,
)

__all__ = [
    "MutualCoherence",
    "OffDiagonalOrthogonality",
    "Orthogonalized",
    "SelfOrthogonality",
    "SoftOrthogonality",
    "SpectralIsometry",
    "agreement_penalty",
    "expected_agreement",
    "filter_angles",
    "kernel_matrix",
    "polar",
    "sampling_floor",
    "self_orthogonality",
    "sign_agreement",
    "welch_bound",
]
