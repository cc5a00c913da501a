"""Learning orthogonal filters: penalties on a kernel, penalties on its outputs, and kernels orthogonal by design.

A kernel of shape (*, in, out) is a matrix W (d, k): k filters w_i, the columns, of d numbers each. There are four
ways to ask for w_iᵀw_j = 0:

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

Why the hard form is the polar factor. Three maps lead from free parameters to matrices with orthonormal columns.
The Cayley map (I − A)(I + A)⁻¹ of a skew A is square, needs a linear solve and never reaches an eigenvalue −1. A
product of k Householder reflections is exact for all parameters, but it is one reflection after another, treats
the first filter unlike the last, and random reflections give filters close to the first k unit vectors. The polar
factor V(VᵀV)^(−1/2) is the orthogonal matrix nearest to V: it treats all filters alike, turns a Gaussian V into a
uniformly random W, leaves an orthogonal V as it is (so a trained kernel can be wrapped and unwrapped), and matrix
products alone compute it. Muon does the same, nearly, to a step: one function :func:`polar`, on weights or on
updates. Its price: V must have full rank, and the products take time.

Orthogonal filters do not make a convolution an orthogonal operator on images, since shifted filters overlap; that
is a stronger condition (Wang et al. 2020, arXiv 1911.12207).

Source: Su Jianlin, https://kexue.fm/archives/7169; Zhang, Ma, Wu and Wang 2020, "Self-Orthogonality Module"
(arXiv 2001.01275); Bansal, Chen and Wang 2018 (arXiv 1810.09102).
"""

import math
import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from lib.angles import pairwise_angles

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

Tensor = Any


# --- a kernel as a set of filters -----------------------------------------------------------------------------


def kernel_matrix(kernel: Tensor) -> Tensor:
    """The matrix W of a kernel, one filter a column.

    Args:
        kernel: Kernel of a dense or convolution layer, shape (*, in, out), any float type.

    Returns:
        W, shape (d, k) with k = out, float32 or wider: the statistics of half-precision kernels are not half
        precise.

    Raises:
        ValueError: The kernel has fewer than two axes.

    Example:
        >>> kernel_matrix(np.zeros((3, 3, 16, 32))).shape == (144, 32)
        True
    """
    kernel = _float32_or_wider(kernel)
    if len(kernel.shape) < 2:
        raise ValueError(f"kernel must have shape (*, in, out), got shape {tuple(kernel.shape)}")
    return ops.reshape(kernel, (-1, kernel.shape[-1]))


def filter_angles(kernel: Tensor) -> NDArray[np.float64]:
    """Angles between all pairs of filters.

    Args:
        kernel: Kernel, shape (*, in, out), with k = out.

    Returns:
        The k(k − 1)/2 angles in radians in [0, π], float64, in the order of SciPy's ``pdist``.

    Raises:
        ValueError: The kernel has fewer than two axes, is not finite, or has a filter that is zero.

    Example:
        >>> filter_angles(np.array([[1.0, 1.0], [0.0, 1.0]])) / np.pi
        array([0.25])
    """
    filters = ops.convert_to_numpy(kernel_matrix(kernel)).T
    zero = np.flatnonzero(~filters.any(axis=1))
    if zero.size:
        raise ValueError(
            f"kernel must have no zero filter (it has no direction), got zeros at out = {zero.tolist()}"
        )
    return pairwise_angles(filters)


def welch_bound(k: int, d: int) -> float:
    """The least possible value of the largest |cos| among k filters of d numbers, √((k − d)/(d(k − 1))) for k > d.

    For k ≤ d it is 0: orthogonal filters exist. For k > d no kernel has a :class:`MutualCoherence` below it.

    Args:
        k: Number of filters, at least 1.
        d: Numbers in a filter, at least 1.

    Raises:
        ValueError: An argument is not a positive integer.

    Source: Welch 1974, "Lower bounds on the maximum cross correlation of signals".

    Example:
        >>> round(welch_bound(3, 2), 3), welch_bound(64, 576)  # three filters in the plane: 120 degrees apart
        (0.5, 0.0)
    """
    k, d = _positive_integer("k", k), _positive_integer("d", d)
    return math.sqrt((k - d) / (d * (k - 1))) if k > d else 0.0


# --- penalties on the kernel ----------------------------------------------------------------------------------


class _KernelPenalty(keras.regularizers.Regularizer):
    """``factor`` times a measure of W (d, k) that is zero for orthonormal filters, in float32 or wider."""

    def __init__(self, factor: float = 1e-4):
        self.factor = _non_negative("factor", factor)

    def __call__(self, kernel: Tensor) -> Tensor:
        return self.factor * self._measure(kernel_matrix(kernel))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this penalty."""
        return {"factor": self.factor}


@keras.saving.register_keras_serializable(package="proof_by_running")
class SoftOrthogonality(_KernelPenalty):
    """factor · ‖WᵀW − I‖²_F: orthogonal filters of length 1.

    For k > d the filters cannot be orthogonal. Then ‖WᵀW − I‖² = ‖WWᵀ − I‖² + k − d, so the gradient asks for
    orthonormal rows and the penalty stays at k − d or above. The same identity makes the double form of Bansal et
    al. (both terms) twice this one plus a constant. The smaller of the two products is computed.

    Args:
        factor: Weight λ, not negative.

    Raises:
        ValueError: ``factor`` is negative or not a finite number, or, when called, the kernel has fewer than two
            axes.

    Source: Bansal et al. 2018 (arXiv 1810.09102), SO and DSO.

    Example:
        >>> float(SoftOrthogonality(1.0)(2 * np.eye(3)))  # three filters of squared length 4
        27.0
        >>> layer = keras.layers.Conv2D(32, 3, kernel_regularizer=SoftOrthogonality(1e-3))
    """

    def _measure(self, W: Tensor) -> Tensor:
        d, k = W.shape
        return ops.sum(ops.square(_gram(W) - ops.eye(min(d, k), dtype=W.dtype))) + max(k - d, 0)


@keras.saving.register_keras_serializable(package="proof_by_running")
class OffDiagonalOrthogonality(_KernelPenalty):
    """factor · Σ_{i≠j} (w_iᵀw_j)²: orthogonal filters of any length.

    Shrinking all filters also lowers it. For k > d and filters of length 1 it is k(k − d)/d or more (Welch),
    attained by tight frames; with free lengths it tends to 0 only as filters vanish until d or fewer are left.

    Args:
        factor: Weight β, not negative.

    Raises:
        ValueError: ``factor`` is negative or not a finite number, or, when called, the kernel has fewer than two
            axes.

    Source: Brock, Donahue and Simonyan 2019, BigGAN (arXiv 1809.11096), equation 3.

    Example:
        >>> penalty = OffDiagonalOrthogonality(1.0)
        >>> float(penalty(2 * np.eye(3))), float(penalty(np.ones((1, 3))))
        (0.0, 6.0)
    """

    def _measure(self, W: Tensor) -> Tensor:
        return ops.sum(ops.square(_off_diagonal(ops.matmul(ops.transpose(W), W))))


@keras.saving.register_keras_serializable(package="proof_by_running")
class SpectralIsometry(_KernelPenalty):
    """factor · ‖WᵀW − I‖₂, the spectral restricted isometry penalty (SRIP): all singular values near 1.

    The spectral norm is max |σ² − 1| over the singular values σ. Power iteration finds a direction v, without
    gradient; the penalty is ‖(WᵀW − I)v‖ at that fixed v. This never exceeds the norm, and at the maximising v it
    has the norm's gradient. W is only ever multiplied by vectors, so no (k, k) matrix is formed.

    For k > d the eigenvalue −1 of WᵀW − I, of multiplicity k − d, cannot be moved and would hide the others. The
    penalty is then ‖WWᵀ − I‖₂, which is still max |σ² − 1| over the d singular values.

    Args:
        factor: Weight λ, not negative.
        iterations: Steps of the power iteration from a fixed random start, at least 1. The authors' code takes 1,
            which finds about two thirds of the norm of a Gaussian kernel; 10 find more than nine tenths.

    Raises:
        ValueError: An argument is out of range, or, when called, the kernel has fewer than two axes.

    Source: Bansal et al. 2018 (arXiv 1810.09102), SRIP.

    Example:
        >>> round(float(SpectralIsometry(1.0, iterations=30)(np.diag([1.0, 1.5, 0.5]))), 5)  # 1.5² − 1
        1.25
    """

    def __init__(self, factor: float = 1e-4, iterations: int = 10):
        super().__init__(factor)
        self.iterations = _positive_integer("iterations", iterations)

    def _measure(self, W: Tensor) -> Tensor:
        W = ops.transpose(W) if W.shape[1] > W.shape[0] else W
        start = np.random.default_rng(0).standard_normal((W.shape[1], 1))
        v, fixed = ops.convert_to_tensor(start, dtype=W.dtype), ops.stop_gradient(W)
        for _ in range(self.iterations):
            v = _unit_columns(_isometry_defect(fixed, v))
        return ops.sqrt(ops.sum(ops.square(_isometry_defect(W, ops.stop_gradient(v)))) + _TINY)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this penalty."""
        return {**super().get_config(), "iterations": self.iterations}


def _isometry_defect(W: Tensor, v: Tensor) -> Tensor:
    """(WᵀW − I)v in two products with a vector."""
    return ops.matmul(ops.transpose(W), ops.matmul(W, v)) - v


@keras.saving.register_keras_serializable(package="proof_by_running")
class MutualCoherence(_KernelPenalty):
    """factor · max_{i≠j} |cos(w_i, w_j)|: the worst pair of filters, whatever their lengths.

    Bansal et al. penalise ‖WᵀW − I‖_∞ in its place; this is the mutual coherence itself. Only the worst pair gets
    a gradient. For k > d it cannot fall below ``welch_bound(k, d)``.

    Args:
        factor: Weight λ, not negative.

    Raises:
        ValueError: ``factor`` is negative or not a finite number, or, when called, the kernel has fewer than two
            axes.

    Source: Bansal et al. 2018 (arXiv 1810.09102), MC.

    Example:
        >>> round(float(MutualCoherence(1.0)(np.array([[3.0, 4.0], [0.0, 3.0]]))), 6)
        0.8
    """

    def _measure(self, W: Tensor) -> Tensor:
        unit = _unit_columns(W)
        return ops.max(ops.abs(_off_diagonal(ops.matmul(ops.transpose(unit), unit))))


# --- the statistic of the Self-Orthogonality Module -----------------------------------------------------------


def expected_agreement(theta: ArrayLike) -> NDArray[np.float64]:
    """E[sgn(xᵀw_i) sgn(xᵀw_j)] = 1 − 2θ/π for an isotropic x and filters at the angle θ.

    Only the plane of the two filters matters. The signs differ when x, seen in that plane, falls into one of two
    opposite wedges of angle θ each: with probability θ/π. In terms of ρ = cos θ it is (2/π) arcsin ρ; for
    Gaussian x with covariance Σ that holds with ρ = w_iᵀΣw_j / √(w_iᵀΣw_i · w_jᵀΣw_j), the correlation of the
    outputs.

    Args:
        theta: Angles in radians in [0, π], any shape.

    Returns:
        Agreements in [−1, 1], float64, the shape of ``theta``.

    Raises:
        ValueError: An angle lies outside [0, π].

    Source: Charikar 2002, "Similarity estimation techniques from rounding algorithms"; article 7169, lemma.

    Example:
        >>> expected_agreement([0, np.pi / 3, np.pi / 2])
        array([1.        , 0.33333333, 0.        ])
    """
    theta = np.asarray(theta, dtype=np.float64)
    if not np.all((theta >= 0) & (theta <= np.pi)):
        raise ValueError(f"theta must lie in [0, π], got {theta}")
    return 1 - 2 * theta / np.pi


def sign_agreement(
    outputs: Tensor, gamma: float = 10.0, centred: bool = False, scale_invariant: bool = False
) -> Tensor:
    """The estimate Θ of the pairwise sign agreement of filters, from their outputs on a batch.

    Θ_ij = ⟨t_i/‖t_i‖, t_j/‖t_j‖⟩ with t_i = tanh(γ y_i) ∈ R^b the softened signs of filter i. For orthogonal
    filters it scatters around 0 with standard deviation 1/√b. The defaults are the paper's form, which has two
    faults:

    - tanh(γy) is a sign only where γ|y| ≫ 1. As the outputs shrink, Θ_ij slides from 1 − 2θ/π to cos θ.
      ``scale_invariant`` first divides the outputs of each filter by their root mean square over the batch.
    - Inputs that are not centred (those after a ReLU) give every filter a preferred sign, and orthogonal filters
      appear to agree. ``centred`` first subtracts the mean over the batch, and a bias with it.

    Args:
        outputs: Outputs before the activation, shape (..., k): all axes but the last count as samples (a position
            of a convolution is a sample).
        gamma: Sharpness γ of the sign, positive.
        centred: Whether to subtract each filter's mean.
        scale_invariant: Whether to divide by each filter's root mean square (after centring: standard deviation).

    Returns:
        Θ, shape (k, k), float32 or wider, with unit diagonal; a filter whose outputs are all zero has a zero row.

    Raises:
        ValueError: ``gamma`` is not positive, ``outputs`` has fewer than two axes or is known to hold one sample
            only.

    Source: arXiv 2001.01275; article 7169, section "Self-Orthogonality Module".

    Example:
        >>> turn = np.linspace(0, 2 * np.pi, 6001)[:-1, None]  # 6000 directions of the plane
        >>> outputs = np.cos(turn + 0.01 - np.array([0, np.pi / 3]))  # two filters 60 degrees apart
        >>> round(float(sign_agreement(outputs, gamma=1e4)[0, 1]), 4)
        0.3333
    """
    S = _soft_signs(outputs, gamma, centred, scale_invariant)
    return ops.matmul(ops.transpose(S), S)


def _soft_signs(outputs: Tensor, gamma: float, centred: bool, scale_invariant: bool) -> Tensor:
    """S (b, k) with unit columns, the soft signs of each filter, so that Θ = SᵀS."""
    y = _float32_or_wider(outputs)
    if len(y.shape) < 2:
        raise ValueError(f"outputs must have shape (..., k), got shape {tuple(y.shape)}")
    y = ops.reshape(y, (-1, y.shape[-1]))
    if y.shape[0] == 1:
        raise ValueError("outputs must hold at least two samples (signs of one always agree or differ), got one")
    if centred:
        y = y - ops.mean(y, axis=0)
    if scale_invariant:
        y = y / _root(ops.mean(ops.square(y), axis=0))
    return _unit_columns(ops.tanh(_positive("gamma", gamma) * y))


def agreement_penalty(theta: Tensor, lambda_mean: float = 100.0, lambda_pair: float = 1.0) -> Tensor:
    """λ₁ (Σ_{i≠j} ϑ_ij)² + λ₂ Σ_{i≠j} ϑ_ij² of a matrix of sign agreements.

    The first term asks only that the agreements cancel on average, which parallel and opposite filters can also
    do; the second asks for every pair. Both run over ordered pairs, so each pair counts twice.

    Args:
        theta: Agreements, shape (k, k). The diagonal is ignored.
        lambda_mean: λ₁, not negative.
        lambda_pair: λ₂, not negative.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: ``theta`` is not a square matrix or a weight is negative.

    Source: arXiv 2001.01275; article 7169.

    Example:
        >>> theta = np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> float(agreement_penalty(theta)), float(agreement_penalty(theta, lambda_mean=0))
        (100.5, 0.5)
    """
    theta = _float32_or_wider(theta)
    if len(theta.shape) != 2 or theta.shape[0] != theta.shape[1]:
        raise ValueError(f"theta must have shape (k, k), got shape {tuple(theta.shape)}")
    off = _off_diagonal(theta)
    mean = _non_negative("lambda_mean", lambda_mean) * ops.square(ops.sum(off))
    return mean + _non_negative("lambda_pair", lambda_pair) * ops.sum(ops.square(off))


def sampling_floor(k: int, b: int, lambda_mean: float = 100.0, lambda_pair: float = 1.0) -> float:
    """What orthogonal filters pay on average: (2λ₁ + λ₂) k(k − 1)/b.

    The estimates of the k(k − 1)/2 pairs are uncorrelated, with mean 0 and variance exactly 1/b for any γ, if the
    outputs are independent and symmetric. The floor is a constant: subtracting it changes no gradient.

    Args:
        k: Number of filters, at least 1.
        b: Number of independent samples, at least 1.
        lambda_mean: λ₁, not negative.
        lambda_pair: λ₂, not negative.

    Raises:
        ValueError: A count is not a positive integer or a weight is negative.

    Source: article 7169 gives the penalty; the floor follows from the variance of a mean of b signs.

    Example:
        >>> sampling_floor(32, 128), sampling_floor(32, 128, lambda_mean=0)
        (1557.75, 7.75)
    """
    pairs = _positive_integer("k", k) * (k - 1) / _positive_integer("b", b)
    return (2 * _non_negative("lambda_mean", lambda_mean) + _non_negative("lambda_pair", lambda_pair)) * pairs


def self_orthogonality(
    outputs: Tensor,
    gamma: float = 10.0,
    lambda_mean: float = 100.0,
    lambda_pair: float = 1.0,
    *,
    centred: bool = False,
    scale_invariant: bool = False,
) -> Tensor:
    """The penalty of the Self-Orthogonality Module, ``agreement_penalty(sign_agreement(outputs))``, at less cost.

    With S (b, k) the soft signs, Θ = SᵀS. The sum of its entries is ‖S1‖², and ‖SᵀS‖² = ‖SSᵀ‖², so the smaller of
    the two products will do. First derivatives only: a second derivative of this function is not that of the
    penalty.

    Args:
        outputs: As in :func:`sign_agreement`, shape (..., k).
        gamma: Sharpness γ of the sign, positive.
        lambda_mean: λ₁, not negative.
        lambda_pair: λ₂, not negative.
        centred: As in :func:`sign_agreement`.
        scale_invariant: As in :func:`sign_agreement`.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: As :func:`sign_agreement` and :func:`agreement_penalty`.

    Source: arXiv 2001.01275.

    Example:
        >>> outputs = np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, 1.0]])  # signs agree in 3 of 4: ϑ = 1/2
        >>> round(float(self_orthogonality(outputs)), 4)
        100.5
    """
    lambda_mean, lambda_pair = _non_negative("lambda_mean", lambda_mean), _non_negative("lambda_pair", lambda_pair)
    S = _soft_signs(outputs, gamma, centred, scale_invariant)
    total = ops.sum(ops.square(ops.sum(S, axis=1))) - ops.sum(ops.square(S))
    return lambda_mean * ops.square(total) + lambda_pair * _off_diagonal_squares(S)


def _off_diagonal_squares(S: Tensor) -> Tensor:
    """Σ_{i≠j} Θ_ij² of Θ = SᵀS, by the smaller product.

    Both factors of the product are S. Differentiating one and doubling gives the whole gradient with one matrix
    product instead of two.
    """
    fixed = ops.stop_gradient(S)
    samples, filters = ops.shape(S)

    def by_samples():
        diagonal = ops.sum(S * fixed, axis=0)
        return ops.sum(ops.square(ops.matmul(S, ops.transpose(fixed)))) - ops.sum(ops.square(diagonal))

    def by_filters():
        return ops.sum(ops.square(_off_diagonal(ops.matmul(ops.transpose(fixed), S))))

    half = ops.cond(samples < filters, by_samples, by_filters)
    return 2 * half - ops.stop_gradient(half)


class _KernelWrapper(keras.layers.Wrapper):
    """A wrapper of a layer with a kernel. It takes the dtype policy of its layer unless told otherwise."""

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(f"layer must be a Keras layer, got {layer!r}")
        super().__init__(layer, **{"dtype": layer.dtype_policy, **kwargs})
        self.supports_masking = layer.supports_masking

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the wrapped layer; raises ValueError if it turns out to have no kernel."""
        super().build(input_shape)
        if len(getattr(getattr(self.layer, "kernel", None), "shape", ())) < 2:
            raise ValueError(f"layer must have a kernel of shape (*, in, out), got {self.layer!r}, which has none")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the output shape of the wrapped layer."""
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(package="proof_by_running")
class SelfOrthogonality(_KernelWrapper):
    """Wraps a layer and, in training, penalises the sign agreement of its filters on each batch.

    The outputs of the wrapped layer are unchanged. The penalty, :func:`self_orthogonality` of the outputs before
    the activation, is added with ``add_loss``. The defaults are the paper's form; ``centred=True,
    scale_invariant=True`` is the corrected one (see :func:`sign_agreement` for what it corrects).

    A bias takes part in the outputs, and the lemma behind the estimate has none: give the layer
    ``use_bias=False``, or centre. All positions of the batch are samples, padded ones included. With k > b
    samples the second term cannot vanish: Σ_{i≠j} ϑ² ≥ k(k − b)/b.

    Args:
        layer: Layer with a ``kernel`` (*, in, out), such as Dense or a convolution. Its activation may not be a
            layer.
        gamma: Sharpness γ of the sign, positive.
        lambda_mean: λ₁, not negative.
        lambda_pair: λ₂, not negative.
        centred: Whether to subtract each filter's mean over the batch.
        scale_invariant: Whether to divide by each filter's root mean square over the batch.
        sample_stride: Look at every n-th sample only. The statistic costs n times less and its sampling floor is
            n times higher. Worth it after a convolution, whose many positions say much the same; there n should
            have no factor in common with the width of the output.
        subtract_floor: Whether to subtract :func:`sampling_floor` of the samples, so that orthogonal filters pay
            0 on average and the loss can be read. It changes no gradient.
        **kwargs: Arguments of every Keras layer. ``dtype`` is that of the wrapped layer by default.

    Raises:
        ValueError: ``layer`` is not a layer, has no kernel or has a layer as activation; an argument is out of
            range; in training, a batch is known to hold one sample only.

    Source: arXiv 2001.01275; article 7169.

    Example:
        >>> layer = SelfOrthogonality(keras.layers.Dense(64, activation="relu", use_bias=False))
        >>> outputs = layer(np.zeros((8, 32), dtype="float32"), training=True)
        >>> tuple(outputs.shape), len(layer.losses)
        ((8, 64), 1)
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        gamma: float = 10.0,
        lambda_mean: float = 100.0,
        lambda_pair: float = 1.0,
        *,
        centred: bool = False,
        scale_invariant: bool = False,
        sample_stride: int = 1,
        subtract_floor: bool = False,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        if isinstance(getattr(layer, "activation", None), keras.layers.Layer):
            raise ValueError(
                f"layer must have a function as activation, got {layer.activation!r}: put it after the layer"
            )
        self.gamma = _positive("gamma", gamma)
        self.lambda_mean = _non_negative("lambda_mean", lambda_mean)
        self.lambda_pair = _non_negative("lambda_pair", lambda_pair)
        self.centred = bool(centred)
        self.scale_invariant = bool(scale_invariant)
        self.sample_stride = _positive_integer("sample_stride", sample_stride)
        self.subtract_floor = bool(subtract_floor)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the outputs of the wrapped layer; with ``training``, adds the penalty as a loss."""
        with _activation_held_back(self.layer) as activation:
            outputs = self.layer(inputs)
        if training:
            self.add_loss(self._penalty(outputs))
        return activation(outputs)

    def _penalty(self, outputs: Tensor) -> Tensor:
        if getattr(self.layer, "data_format", None) == "channels_first":
            outputs = ops.moveaxis(outputs, 1, -1)
        filters = outputs.shape[-1]
        outputs = ops.reshape(outputs, (-1, filters))[:: self.sample_stride]
        weights = (self.lambda_mean, self.lambda_pair)
        penalty = self_orthogonality(
            outputs, self.gamma, *weights, centred=self.centred, scale_invariant=self.scale_invariant
        )
        if self.subtract_floor:
            samples = ops.cast(ops.shape(outputs)[0], penalty.dtype)
            penalty = penalty - sampling_floor(filters, 1, *weights) / samples
        return penalty

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "lambda_mean": self.lambda_mean,
            "lambda_pair": self.lambda_pair,
            "centred": self.centred,
            "scale_invariant": self.scale_invariant,
            "sample_stride": self.sample_stride,
            "subtract_floor": self.subtract_floor,
        }


@contextmanager
def _activation_held_back(layer: keras.layers.Layer) -> Iterator[Any]:
    """Within it the layer stops before its activation, which is handed out instead."""
    activation = getattr(layer, "activation", None)
    if activation is None:
        yield keras.activations.linear
        return
    layer.activation = keras.activations.linear
    try:
        yield activation
    finally:
        layer.activation = activation


# --- orthogonal by construction -------------------------------------------------------------------------------


def polar(matrix: Tensor, sigma_min: float = 1e-6) -> Tensor:
    """The orthogonal factor W = V(VᵀV)^(−1/2) of V: the nearest matrix with orthonormal columns (rows if k > d).

    With V = AΣBᵀ the singular value decomposition, W = ABᵀ. The Newton-Schulz step X ← X(3I − XᵀX)/2 applies
    p(σ) = σ(3 − σ²)/2 to all singular values, which draws (0, 1] to 1. If all lie in [ℓ, 1], stretching X by
    ρ = √(3/(1 + ℓ + ℓ²)) before the step sends them to [p(ρℓ), 1], the best lower end possible. But from ρ = 4/3
    on, σ → p(ρσ) repels its own fixed point: large values jump about while the small ones grow, and the rounding
    errors of the gradient grow with every jump. So ρ stays at 4/3 until ℓ is large. Small values then double at
    each step, and following ℓ from ``sigma_min`` gives the number of steps in advance: 24.

    The gradient passes through the steps. A gradient through the singular value decomposition itself would divide
    by differences of singular values, which are all equal where it matters most: at an orthogonal matrix.

    Args:
        matrix: V, shape (d, k), of full rank.
        sigma_min: The result is orthogonal to rounding if the smallest singular value of V is at least this
            fraction of √(max_i Σ_j |VᵀV|_ij), which bounds the largest. In (0, 1).

    Returns:
        W, shape (d, k), float32 or wider.

    Raises:
        ValueError: ``matrix`` is not a matrix or ``sigma_min`` lies outside (0, 1).

    Source: Higham 2008, "Functions of Matrices", chapter 8; Chen and Chow 2014 for the scaling of the step.

    Example:
        >>> W = polar(np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 1.0]]))
        >>> bool(ops.max(ops.abs(ops.matmul(ops.transpose(W), W) - np.eye(2))) < 1e-6)
        True
    """
    V = _float32_or_wider(matrix)
    if len(V.shape) != 2:
        raise ValueError(f"matrix must have shape (d, k), got shape {tuple(V.shape)}")
    lower = _fraction("sigma_min", sigma_min)
    if V.shape[1] > V.shape[0]:
        return ops.transpose(polar(ops.transpose(V), sigma_min))
    bound = ops.sqrt(ops.max(ops.sum(ops.abs(_gram(V)), axis=0)))
    X = V / ops.stop_gradient(bound)  # W does not depend on the scale of V, so the scale needs no gradient
    identity = ops.eye(V.shape[1], dtype=V.dtype)
    while 1 - lower > 1e-15:  # one step after ℓ is 1 in float32, because the gradient converges a step later
        stretch = min(math.sqrt(3 / (1 + lower + lower**2)), 4 / 3)
        X = ops.matmul(X, 1.5 * stretch * identity - 0.5 * stretch**3 * _gram(X))
        lower = stretch * lower * (3 - (stretch * lower) ** 2) / 2
    return X


@keras.saving.register_keras_serializable(package="proof_by_running")
class Orthogonalized(_KernelWrapper):
    """Wraps a layer so that it computes with an orthogonal kernel: ``polar`` of the kernel it stores.

    The stored kernel V is trained, without constraint and by any optimizer; the layer uses W = polar(V), with
    orthonormal columns for k ≤ d and orthonormal rows for k > d, before, during and after training. The gradient
    with respect to V is that of the composition. It is orthogonal to every change of V that leaves W alone, so
    the singular values of V do not drift to first order.

    Each call takes 24 steps of two matrix products with the kernel, and the gradient twice as many: little beside
    a convolution over many positions, much beside a dense layer on a small batch. A larger ``sigma_min`` takes
    fewer.

    The filters have length 1 (a gain belongs in a following layer). ``kernel_initializer="orthogonal"`` starts at
    V = W. A regularizer of the layer sees V. To be rid of the wrapper after training, assign ``kernel`` to
    ``layer.kernel``: the layer alone then computes the same.

    Args:
        layer: Layer with a ``kernel`` (*, in, out), such as Dense or a convolution, and no state that a call
            changes.
        sigma_min: As in :func:`polar`.
        **kwargs: Arguments of every Keras layer. ``dtype`` is that of the wrapped layer by default.

    Raises:
        ValueError: ``layer`` is not a layer or has no kernel, or ``sigma_min`` lies outside (0, 1).

    Source: Higham 2008, "Functions of Matrices", chapter 8, for the polar factor.

    Example:
        >>> layer = Orthogonalized(keras.layers.Conv2D(16, 3))
        >>> _ = layer(np.zeros((1, 8, 8, 4), dtype="float32"))
        >>> np.allclose(filter_angles(layer.kernel), np.pi / 2, atol=1e-5)
        True
    """

    def __init__(self, layer: keras.layers.Layer, sigma_min: float = 1e-6, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.sigma_min = _fraction("sigma_min", sigma_min)

    @property
    def kernel(self) -> Tensor:
        """The orthogonal kernel, shape (*, in, out), float32 or wider."""
        stored = self.layer.kernel
        return ops.reshape(polar(kernel_matrix(stored), self.sigma_min), stored.shape)

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the outputs of the wrapped layer with the orthogonal kernel."""
        values = [(variable, ops.convert_to_tensor(variable)) for variable in self.layer.variables]
        with keras.StatelessScope([*values, (self.layer.kernel, self.kernel)], collect_losses=True) as scope:
            outputs = self.layer(inputs)
        self.layer.add_loss(scope.losses)
        return outputs

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "sigma_min": self.sigma_min}


# --- small matrices and numbers -------------------------------------------------------------------------------

#: Squared lengths below it are those of a zero vector. √_TINY is a zero whose gradient is not infinite.
_TINY = 1e-30


def _float32_or_wider(x: Tensor) -> Tensor:
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def _gram(W: Tensor) -> Tensor:
    """WᵀW or WWᵀ, whichever is smaller."""
    d, k = W.shape
    return ops.matmul(ops.transpose(W), W) if k <= d else ops.matmul(W, ops.transpose(W))


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix * (1 - ops.eye(matrix.shape[0], dtype=matrix.dtype))


def _unit_columns(W: Tensor) -> Tensor:
    """The columns divided by their lengths; a zero column stays zero."""
    return W / _root(ops.sum(ops.square(W), axis=0))


def _root(squares: Tensor) -> Tensor:
    """√squares to divide by: 1 where there is nothing to divide."""
    return ops.sqrt(ops.where(squares > _TINY, squares, ops.ones_like(squares)))


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _non_negative(name: str, value: float) -> float:
    if _finite(name, value) < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return float(value)


def _positive(name: str, value: float) -> float:
    if _finite(name, value) <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return float(value)


def _fraction(name: str, value: float) -> float:
    if not 0 < _finite(name, value) < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}")
    return float(value)


def _positive_integer(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)
