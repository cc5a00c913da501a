"""A penalty on the signs of the outputs of a batch: the Self-Orthogonality Module.

Source: Zhang, Ma, Wu and Wang 2020 (arXiv 2001.01275).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from .._arguments import non_negative, positive, positive_integer, real_array
from .._backend import float32_or_wider
from .._tensors import as_tensor, require
from ..initializers.axes import _equation
from ._wrapper import _KernelWrapper
from .filters import _inner, _off_diagonal, _unit_columns

__all__ = [
    "SelfOrthogonality",
    "agreement_penalty",
    "expected_agreement",
    "sampling_floor",
    "self_orthogonality",
    "sign_agreement",
]

Tensor = Any


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
    theta = real_array("theta", theta)
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
        ValueError: ``gamma`` is not positive, ``outputs`` is no tensor of real numbers, has fewer than two axes or
            holds fewer than two samples. A TensorFlow graph asserts the last; under XLA, Θ is then NaN.

    Source: arXiv 2001.01275; article 7169, section "Self-Orthogonality Module".

    Example:
        >>> turn = np.linspace(0, 2 * np.pi, 6001)[:-1, None]  # 6000 directions of the plane
        >>> outputs = np.cos(turn + 0.01 - np.array([0, np.pi / 3]))  # two filters 60 degrees apart
        >>> round(float(sign_agreement(outputs, gamma=1e4)[0, 1]), 4)
        0.3333
    """
    return _inner(_soft_signs(_samples(outputs), gamma, centred, scale_invariant))


def _samples(outputs: Tensor) -> Tensor:
    """Outputs (..., k) as (b, k)."""
    y = float32_or_wider(as_tensor("outputs", outputs))
    if len(y.shape) < 2:
        raise ValueError(f"outputs must have shape (..., k), got shape {tuple(y.shape)}")
    if y.shape[-1] == 0:
        raise ValueError(f"outputs must be of one filter at least, got shape {tuple(y.shape)}")
    return ops.reshape(y, (-1, y.shape[-1]))


def _soft_signs(y: Tensor, gamma: float, centred: bool, scale_invariant: bool) -> Tensor:
    """S (..., b, k) with unit columns, the soft signs of each filter, so that Θ = SᵀS."""
    y, b = _at_least_two(y), ops.shape(y)[-2]
    if centred:
        y = y - ops.mean(y, axis=-2, keepdims=True)
    if scale_invariant:  # the root mean square is the length over √b
        y = _unit_columns(y) * ops.sqrt(ops.cast(b, y.dtype))
    return _unit_columns(ops.tanh(positive("gamma", gamma) * y))


def _at_least_two(y: Tensor) -> Tensor:
    """Outputs (..., b, k) of two samples or more; of one, NaN where no error can be raised."""
    samples = ops.shape(y)[-2]
    rule = "outputs must hold at least two samples (signs of one always agree or differ)"
    if not isinstance(samples, int):
        require(samples != 1, rule, lambda: "one")
        return y + ops.where(samples == 1, math.nan, 0.0)
    if samples < 2:
        raise ValueError(f"{rule}, got {('none', 'one')[samples]}")
    return y


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
        ValueError: ``theta`` is not a square matrix of real numbers or a weight is negative.

    Source: arXiv 2001.01275; article 7169.

    Example:
        >>> theta = np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> float(agreement_penalty(theta)), float(agreement_penalty(theta, lambda_mean=0))
        (100.5, 0.5)
    """
    theta = float32_or_wider(as_tensor("theta", theta))
    if len(theta.shape) != 2 or theta.shape[0] != theta.shape[1]:
        raise ValueError(f"theta must have shape (k, k), got shape {tuple(theta.shape)}")
    off = _off_diagonal(theta)
    mean = non_negative("lambda_mean", lambda_mean) * ops.square(ops.sum(off))
    return mean + non_negative("lambda_pair", lambda_pair) * ops.sum(ops.square(off))


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
    pairs = positive_integer("k", k) * (k - 1) / positive_integer("b", b)
    return (2 * non_negative("lambda_mean", lambda_mean) + non_negative("lambda_pair", lambda_pair)) * pairs


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
    return _penalty(_samples(outputs), gamma, lambda_mean, lambda_pair, centred, scale_invariant)


def _penalty(
    y: Tensor, gamma: float, lambda_mean: float, lambda_pair: float, centred: bool, scale_invariant: bool
) -> Tensor:
    """The penalty of outputs (b, k); of several maps (maps, b, k), the sum of theirs."""
    lambda_mean, lambda_pair = non_negative("lambda_mean", lambda_mean), non_negative("lambda_pair", lambda_pair)
    S = _soft_signs(y, gamma, centred, scale_invariant)
    totals = ops.sum(ops.square(ops.sum(S, axis=-1)), axis=-1) - ops.sum(ops.square(S), axis=(-2, -1))
    return lambda_mean * ops.sum(ops.square(totals)) + lambda_pair * _off_diagonal_squares(S)


def _off_diagonal_squares(S: Tensor) -> Tensor:
    """Σ_{i≠j} Θ_ij² of Θ = SᵀS, by the smaller product, over all maps.

    Both factors of the product are S. Differentiating one and doubling gives the whole gradient with one matrix
    product instead of two.
    """
    fixed = ops.stop_gradient(S)
    samples, filters = ops.shape(S)[-2:]

    def by_samples():
        diagonal = ops.sum(S * fixed, axis=-2)
        return ops.sum(ops.square(ops.matmul(S, ops.swapaxes(fixed, -2, -1)))) - ops.sum(ops.square(diagonal))

    def by_filters():
        return ops.sum(ops.square(_off_diagonal(ops.matmul(ops.swapaxes(fixed, -2, -1), S))))

    half = ops.cond(samples < filters, by_samples, by_filters)
    return 2 * half - ops.stop_gradient(half)


@keras.saving.register_keras_serializable(package="proof_by_running")
class SelfOrthogonality(_KernelWrapper):
    """Wraps a layer and, in training, penalizes the sign agreement of its filters on each batch.

    The outputs of the wrapped layer are unchanged. The penalty, :func:`self_orthogonality` of the outputs before
    the activation, is added with ``add_loss``. The defaults are the paper's form; ``centred=True,
    scale_invariant=True`` is the corrected one (see :func:`sign_agreement` for what it corrects).

    A bias takes part in the outputs, and the lemma behind the estimate has none: give the layer
    ``use_bias=False``, or centre. All positions of the batch are samples, padded ones included. With k > b
    samples the second term cannot vanish: Σ_{i≠j} ϑ² ≥ k(k − b)/b.

    In training a batch of one sample, from which no agreement can be told, is refused, and a TensorFlow graph
    asserts it; under XLA the loss is then NaN. ``drop_remainder`` of ``Dataset.batch`` leaves out such a rest. An
    empty batch, as one of several devices may get, pays nothing.

    Args:
        layer: Dense, EinsumDense or a convolution of Keras, also transposed, depthwise or with groups: of several
            maps the filters of each are compared with each other, and the penalties added. Or another layer with a
            ``kernel``, whose outputs have the filters on their last axis. Its activation may not be a layer.
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
        ValueError: ``layer`` is not a layer, has no kernel, is itself a wrapper or has a layer as activation; an
            argument is out of range; in training, a batch holds one sample only.

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
        self.gamma = positive("gamma", gamma)
        self.lambda_mean = non_negative("lambda_mean", lambda_mean)
        self.lambda_pair = non_negative("lambda_pair", lambda_pair)
        self.centred = bool(centred)
        self.scale_invariant = bool(scale_invariant)
        self.sample_stride = positive_integer("sample_stride", sample_stride)
        self.subtract_floor = bool(subtract_floor)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the outputs of the wrapped layer; with ``training``, adds the penalty as a loss."""
        with _activation_held_back(self.layer) as activation:
            outputs = self.layer(inputs)
        if training:
            self.add_loss(self._penalty(outputs))
        return activation(outputs)

    def _penalty(self, outputs: Tensor) -> Tensor:
        y = _by_filters(self.layer, float32_or_wider(outputs))[..., :: self.sample_stride, :]
        samples, filters = ops.shape(y)[-2], y.shape[-1]
        if isinstance(samples, int) and samples == 0:
            return ops.zeros((), y.dtype)
        weights = (self.lambda_mean, self.lambda_pair)
        penalty = _penalty(y, self.gamma, *weights, self.centred, self.scale_invariant)
        if self.subtract_floor:
            floor = math.prod(y.shape[:-2]) * sampling_floor(filters, 1, *weights)
            samples = ops.cast(samples, penalty.dtype)
            penalty = penalty - ops.where(samples > 0, floor / ops.maximum(samples, 1.0), 0.0)
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


def _by_filters(layer: keras.layers.Layer, outputs: Tensor) -> Tensor:
    """Outputs of a layer with a filter a column, (b, k); those of a kernel of several maps (maps, b, k)."""
    if isinstance(layer, keras.layers.EinsumDense):
        inputs, kernel, letters = _equation(layer)
        letters, last = letters.replace(".", ""), letters.startswith(".")
        place = {letter: len(outputs.shape) - len(letters) + i if last else i for i, letter in enumerate(letters)}
        filters = [place[letter] for letter in letters if letter in kernel and letter not in inputs]
        maps = [place[letter] for letter in letters if letter in kernel and letter in inputs]
        rest = [axis for axis in range(len(outputs.shape)) if axis not in maps + filters]
        k, count = (math.prod(outputs.shape[axis] for axis in axes) for axes in (filters, maps))
        y = ops.reshape(ops.transpose(outputs, maps + rest + filters), (count, -1, k))
        return y if maps else y[0]
    if getattr(layer, "data_format", None) == "channels_first":
        outputs = ops.moveaxis(outputs, 1, -1)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D)
    grouped = isinstance(layer, keras.layers.Conv1D | keras.layers.Conv2D | keras.layers.Conv3D)
    maps = layer.kernel.shape[-2] if depthwise else layer.groups if grouped else 1
    if maps == 1:
        return ops.reshape(outputs, (-1, outputs.shape[-1]))
    return ops.moveaxis(ops.reshape(outputs, (-1, maps, outputs.shape[-1] // maps)), 1, 0)


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
