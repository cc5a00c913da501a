"""The layer: projections, heads, a form of :mod:`lib.attention.functional`, and a step for one token more."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._arguments import positive_integer
from .._backend import float32_or_wider
from .bidirectional import State
from .chunkwise import CHUNK, chunkwise_attention, step
from .functional import (
    Cache,
    _log_of_decay,
    cached_step,
    double_softmax_attention,
    linear_attention,
    softmax_attention,
)

__all__ = ["Attention"]

Tensor = Any
Shape = tuple[int | None, ...]


FORMS = ("softmax", "fused softmax", "double softmax", "linear", "retention", "gated", "delta rule")


@keras.saving.register_keras_serializable(package="proof_by_running")
class Attention(keras.layers.Layer):
    """Self-attention of any form, with the interface of ``lib.bert.SelfAttention``: a block takes it in its place.

    ``query``, ``key``, ``value`` and ``project`` are the dense layers that pretrained weights look for. Queries and
    keys are divided by d^{1/4} each, so that qᵀk has the size that it has under the softmax. The delta rule takes
    keys and queries of length 1 instead. Two forms have a dense layer more, with one number a head: ``gate``, for
    log γ = log σ(x W + b), b = 4, and ``rate``, for β = σ(x W).

    Args:
        heads: Number of heads, which divides ``hidden``.
        form: One of "softmax", "fused softmax", "double softmax", "linear", "retention", "gated", "delta rule".
        causal: Whether a token sees only itself and those before it. The last three forms are always causal, the
            double softmax never.
        feature_map: φ of the form "linear": a name of :data:`FEATURE_MAPS`, with which the layer can be saved, or
            what else :func:`linear_attention` takes.
        normalize: As in :func:`linear_attention`; None for the habit of the form: ``"sum"`` for "linear", ``"rms"``
            for the last three. ``"none"`` for neither.
        chunk: As in :func:`linear_attention`.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``form``, ``normalize`` or ``feature_map`` is unknown, or ``causal`` is not possible with
            ``form``; when built, ``heads`` does not divide ``hidden``; in :meth:`step`, the form has no recurrence.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((2, 6, 8)).astype("float32")
        >>> layer = Attention(heads=2, form="delta rule", causal=True)
        >>> whole = layer(x)
        >>> state = None
        >>> for t in range(6):
        ...     out, state = layer.step(x[:, t], state)
        >>> bool(ops.max(ops.abs(out - whole[:, 5])) < 1e-4)
        True
    """

    def __init__(
        self,
        heads: int,
        form: str = "linear",
        causal: bool = False,
        feature_map: Any = "elu+1",
        normalize: str | None = None,
        chunk: int = CHUNK,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(map(repr, FORMS))}, got {form!r}")
        if form in (FORMS[4:] if not causal else ("double softmax",)):
            raise ValueError(f"causal must be {not causal} with the form {form!r}, got {causal}")
        if normalize not in ("sum", "rms", "none", None):
            raise ValueError(f"normalize must be 'sum', 'rms', 'none' or None, got {normalize!r}")
        self.heads, self.form, self.causal, self.feature_map = (
            positive_integer("heads", heads),
            form,
            causal,
            feature_map,
        )
        self.normalize, self.chunk = normalize, positive_integer("chunk", chunk)
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Creates the linear maps."""
        hidden = x_shape[-1]
        if hidden % self.heads:
            raise ValueError(f"heads must divide hidden = {hidden}, got {self.heads}")
        sizes = dict.fromkeys(("query", "key", "value", "project"), hidden)
        sizes |= {"gate": self.heads} if self.form == "gated" else {}
        sizes |= {"rate": self.heads} if self.form == "delta rule" else {}
        for name, units in sizes.items():
            bias = keras.initializers.Constant(4.0) if name == "gate" else "zeros"
            start = keras.initializers.TruncatedNormal(stddev=0.02)
            dense = keras.layers.Dense(
                units, kernel_initializer=start, bias_initializer=bias, dtype=self.dtype_policy, name=name
            )
            dense.build(x_shape)
            setattr(self, name, dense)

    def call(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:  # noqa: ARG002
        """Vectors (batch, time, hidden) of vectors of the same shape; mask (batch, time) bool, True for tokens."""
        q, k, v = self._heads(x)
        if self.form in FORMS[:2]:
            fused = self.form == "fused softmax"
            out = softmax_attention(q, k, v, causal=self.causal, mask=mask, scale=1.0, fused=fused)
        elif self.form == "double softmax":
            out = double_softmax_attention(q, k, v, mask=mask)
        elif self.causal:
            out = chunkwise_attention(q, k, v, mask=mask, chunk=self.chunk, **self._options(x))
        else:
            options = self._options(x)
            out = linear_attention(q, k, v, options["feature_map"], mask=mask, normalize=options["normalize"])
        return self.project(ops.reshape(out, ops.shape(x)))

    def step(self, x: Tensor, state: State | Cache | None = None) -> tuple[Tensor, State | Cache]:
        """One more token: vectors (batch, hidden) of vectors of the same shape, and what is to be remembered.

        Args:
            x: The token, (batch, hidden).
            state: What was returned for the token before; None at the start.
        """
        if not self.causal:
            raise ValueError("causal must be True for a form that goes on token by token, got False")
        x = ops.expand_dims(ops.convert_to_tensor(x), 1)
        q, k, v = (part[:, 0] for part in self._heads(x))
        if self.form in FORMS[:2]:
            out, state = cached_step(state, q, k, v, scale=1.0)
        else:
            options = self._options(x)
            options |= {name: y[:, 0] for name, y in options.items() if name in ("log_decay", "beta")}
            out, state = step(state, q, k, v, **options)
        return self.project(ops.reshape(out, ops.shape(x)[::2])), state

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (batch, time, heads, dim)."""
        dim = x.shape[-1] // self.heads
        shape = (*ops.shape(x)[:2], self.heads, dim)
        q, k, v = (ops.reshape(linear(x), shape) for linear in (self.query, self.key, self.value))
        if self.form == "delta rule":
            return _direction(q), _direction(k), v
        return q * dim**-0.25, k * dim**-0.25, v

    def _options(self, x: Tensor) -> dict[str, Any]:
        """What the form adds to queries, keys and values."""
        habit = "sum" if self.form == "linear" else "rms"
        normalize = {"none": None, None: habit}.get(self.normalize, self.normalize)
        options = {"feature_map": self.feature_map if self.form == "linear" else None, "normalize": normalize}
        if self.form == "retention":
            options["log_decay"] = ops.broadcast_to(
                _log_of_decay(None, self.heads), (*ops.shape(x)[:2], self.heads)
            )
        if self.form == "gated":
            options["log_decay"] = ops.log_sigmoid(float32_or_wider(self.gate(x)))
        if self.form == "delta rule":
            options["beta"] = ops.sigmoid(self.rate(x))
        return options

    def compute_output_shape(self, x_shape: Shape, **_: Any) -> Shape:
        """The shape of the input."""
        return x_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        own = ("heads", "form", "causal", "feature_map", "normalize", "chunk")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _direction(x: Tensor) -> Tensor:
    """Vectors of length 1 along the last axis; 0 stays 0."""
    squares = ops.sum(ops.square(float32_or_wider(x)), axis=-1, keepdims=True)
    return ops.cast(x * ops.cast(ops.rsqrt(ops.where(squares > 0, squares, 1)), x.dtype), x.dtype)
