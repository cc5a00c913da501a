"""Which axes of a kernel hold inputs and which outputs: what its shape alone does not say."""

import itertools
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import positive_integer

__all__ = ["KernelAxes", "fans", "kernel_axes"]

Tensor = Any
Axes = int | Sequence[int]


@dataclass(frozen=True)
class KernelAxes:
    """Where the inputs and the outputs of a kernel are.

    A kernel is one linear map or several. Each output of a map is a weighted sum of its inputs, and these weights
    are a filter. Every axis of the kernel counts inputs, or outputs, or the separate maps of a batch; what is left
    is the receptive field, positions that each bring their own weights of all inputs. In layers of Keras:

    ==============================================  =======  ========  ==========  ========
    kernel of                                       in_axes  out_axes  batch_axes  groups
    ==============================================  =======  ========  ==========  ========
    Dense, Conv, the pointwise of SeparableConv     -2       -1
    Conv with groups                                -2       -1                    as there
    Conv…Transpose                                  -1       -2
    DepthwiseConv, the depthwise of SeparableConv   ()       -1        -2
    EinsumDense("abc,cde->abde"), heads of a layer  0        (1, 2)
    EinsumDense("abc,bcd->abd"), one map for each   1        2         0
    ==============================================  =======  ========  ==========  ========

    Args:
        in_axes: Axis or axes of the inputs, which an output sums over; the last but one by default.
        out_axes: Axis or axes of the outputs; the last by default. It is given with ``in_axes``, or neither.
        batch_axes: Axis or axes that count separate maps, which share neither inputs nor outputs.
        groups: Number of separate maps that the outputs are split into, as in a grouped convolution: map i of g has
            the i-th of g equal parts of the outputs, and inputs of its own.

    Raises:
        ValueError: An argument is none of these.

    Example:
        >>> KernelAxes(in_axes=-1, out_axes=-2).fans((3, 3, 32, 16))  # of a Conv2DTranspose, 16 -> 32 channels
        (144, 288)
    """

    in_axes: Axes | None = None
    out_axes: Axes | None = None
    batch_axes: Axes = ()
    groups: int = 1

    def __post_init__(self) -> None:
        """Axes as tuples."""
        if (self.in_axes is None) != (self.out_axes is None):
            raise ValueError(
                f"in_axes and out_axes must be given together, got {self.in_axes!r} and {self.out_axes!r}"
            )
        for name in ("in_axes", "out_axes", "batch_axes"):
            if name == "batch_axes" or getattr(self, name) is not None:
                object.__setattr__(self, name, _as_axes(name, getattr(self, name)))
        object.__setattr__(self, "groups", positive_integer("groups", self.groups))

    @property
    def is_one_map(self) -> bool:
        """Whether the kernel is a single map."""
        return not self.batch_axes and self.groups == 1

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Of a kernel of this shape the maps, and of each the positions, its inputs at each and its outputs."""
        maps, positions, n, m = (math.prod(shape[axis] for axis in axes) for axes in self.placed(shape))
        return maps * self.groups, positions, n, m // self.groups

    def fans(self, shape: Sequence[int]) -> tuple[int, int]:
        """The inputs that reach an output and the outputs that an input reaches, of a kernel of this shape."""
        _, positions, n, m = self.sizes(shape)
        return positions * n, positions * m

    def matrices(self, kernel: Tensor) -> Tensor:
        """The matrix W (d, k) of a kernel, one filter a column; of several maps their matrices (maps, d, k)."""
        shape = tuple(kernel.shape)
        maps, positions, n, k = self.sizes(shape)
        kernel = _in_order(kernel, self._order(shape))
        if self.is_one_map:
            return ops.reshape(kernel, (positions * n, k))
        split = ops.reshape(kernel, (maps // self.groups, positions * n, self.groups, k))
        return ops.reshape(ops.transpose(split, (0, 2, 1, 3)), (maps, positions * n, k))

    def kernel(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The kernel of this shape whose ``matrices`` these are."""
        maps, positions, n, k = self.sizes(shape)
        order = self._order(shape)
        if not self.is_one_map:
            split = ops.reshape(matrices, (maps // self.groups, self.groups, positions * n, k))
            matrices = ops.transpose(split, (0, 2, 1, 3))
        return _in_order(ops.reshape(matrices, [shape[axis] for axis in order]), np.argsort(order).tolist())

    def _order(self, shape: Sequence[int]) -> list[int]:
        return [*itertools.chain(*self.placed(shape))]

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild it, without those that are the defaults."""
        return {
            field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default
        }

    def placed(self, shape: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
        """Axes of the batch, the receptive field, the inputs and the outputs, counted from the first."""
        rank = len(shape)
        in_axes, out_axes = ((-2,), (-1,)) if self.in_axes is None else (self.in_axes, self.out_axes)
        if self.in_axes is None and rank < 2:
            raise ValueError(f"shape must be (..., inputs, outputs), of rank 2 or more, got {tuple(shape)}")
        placed = []
        for name, axes in (("batch_axes", self.batch_axes), ("in_axes", in_axes), ("out_axes", out_axes)):
            if not all(-rank <= axis < rank for axis in axes):
                raise ValueError(f"{name} must be axes of a kernel of shape {tuple(shape)}, got {axes}")
            placed.append([axis % rank for axis in axes])
        batch, inputs, outputs = placed
        taken = batch + inputs + outputs
        if len({*taken}) < len(taken):
            raise ValueError(
                f"batch_axes, in_axes and out_axes must differ, got {self.batch_axes}, {in_axes}, {out_axes}"
            )
        m = math.prod(shape[axis] for axis in outputs)
        if m % self.groups:
            raise ValueError(
                f"groups must divide the {m} outputs of a kernel of shape {tuple(shape)}, got {self.groups}"
            )
        return batch, [axis for axis in range(rank) if axis not in taken], inputs, outputs


def _in_order(kernel: Tensor, order: list[int]) -> Tensor:
    return kernel if order == sorted(order) else ops.transpose(kernel, order)


def _as_axes(name: str, axes: Axes) -> tuple[int, ...]:
    several = axes if isinstance(axes, tuple | list | range | np.ndarray) else (axes,)
    try:
        if any(isinstance(axis, bool | np.bool_) for axis in several):
            raise TypeError
        return tuple(operator.index(axis) for axis in several)
    except TypeError:
        raise ValueError(f"{name} must be an axis or a sequence of axes, got {axes!r}") from None


def fans(shape: Sequence[int], **axes: Any) -> tuple[int, int]:
    """Counts the inputs that reach one output of a layer, and the outputs that one input reaches.

    Args:
        shape: Shape of a kernel, (n, m) or (*spatial, n, m), with n input and m output channels; any other shape
            with ``axes`` that say so.
        **axes: ``in_axes``, ``out_axes``, ``batch_axes`` and ``groups``, as :class:`KernelAxes` takes them.

    Returns:
        The pair (fan_in, fan_out) = (p·n, p·m), where p is the number of positions of the receptive field and m
        counts the outputs of one group.

    Raises:
        ValueError: If ``shape`` has fewer than two sizes, or one that is not a positive integer, or ``axes`` do not
            fit it.

    Example:
        >>> fans((784, 100))
        (784, 100)
        >>> fans((3, 3, 16, 32))
        (144, 288)
        >>> fans((64, 8, 16), in_axes=0, out_axes=(1, 2))  # from 64 numbers to 8 heads of 16
        (64, 128)
    """
    return KernelAxes(**axes).fans(_checked_shape(shape))


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        sizes = tuple(shape)
    except TypeError:
        raise ValueError(f"shape must be a sequence of sizes, got {shape!r}") from None
    return tuple(positive_integer(f"shape[{i}]", size) for i, size in enumerate(sizes))


def kernel_axes(layer: keras.layers.Layer) -> KernelAxes:
    """The axes of the kernel of a layer, as its type tells.

    Initializers and penalties, which see the kernel alone, take what ``KernelAxes.get_config`` returns.

    Args:
        layer: Dense, EinsumDense or a convolution of Keras: plain, grouped, transposed or depthwise. It need not be
            built.

    Raises:
        ValueError: It is something else, such as SeparableConv, which has two kernels.

    Example:
        >>> kernel_axes(keras.layers.EinsumDense("abc,cde->abde", (None, 4, 8)))
        KernelAxes(in_axes=(0,), out_axes=(1, 2), batch_axes=(), groups=1)
        >>> kernel_axes(keras.layers.DepthwiseConv2D(3)).get_config()
        {'in_axes': (), 'out_axes': (-1,), 'batch_axes': (-2,)}
    """
    layers = keras.layers
    if isinstance(layer, layers.EinsumDense):
        return _einsum_axes(layer)
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        return KernelAxes((), -1, -2)
    if isinstance(layer, layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose):
        return KernelAxes(-1, -2)
    if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D):
        return KernelAxes(groups=layer.groups)
    if isinstance(layer, layers.Dense):
        return KernelAxes()
    raise ValueError(f"layer must be Dense, EinsumDense or a convolution with one kernel, got {layer!r}")


def _einsum_axes(layer: keras.layers.EinsumDense) -> KernelAxes:
    inputs, kernel, outputs = _equation(layer)
    if len({*kernel}) < len(kernel):
        raise ValueError(f"layer must name each axis of its kernel once in its equation, got {layer.equation!r}")
    return KernelAxes(
        in_axes=[i for i, letter in enumerate(kernel) if letter not in outputs],
        out_axes=[i for i, letter in enumerate(kernel) if letter not in inputs],
        batch_axes=[i for i, letter in enumerate(kernel) if letter in inputs and letter in outputs],
    )


def _equation(layer: keras.layers.EinsumDense) -> list[str]:
    """The letters of inputs, kernel and outputs; dots stand for axes that have none."""
    return re.split(",|->", re.sub(r"\s", "", layer.equation))
