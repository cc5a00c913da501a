"""The layer: projections, heads, one of the forms of :mod:`lib.attention.forms`, and generation token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np  # noqa: F401 (for the examples)
from keras import ops

from .._arguments import boolean, one_of, positive, positive_integer, rate
from .._layers import checked_seed
from .._tensors import as_tensor, checked_mask, or_nan, require_shape
from .arguments import require_some
from .bidirectional import State
from .cache import Cache
from .chunkwise import CHUNK
from .feature_maps import FeatureMap, loaded_feature_map, saved_feature_map
from .forms import AUTO, FORMS, Form, Gate, Options
from .rotary import places, rotate

__all__ = ["Attention", "Progress"]

Tensor = Any
Shape = tuple[int | None, ...]


class Progress(NamedTuple):
    """How far a text has come: what :class:`Attention` remembers between two calls of ``prefill`` or ``step``.

    Attributes:
        state: What the form remembers of the tokens so far.
        tokens: How many of them count, int32 (batch,); None unless the layer has rotary positions.
    """

    state: State | Cache
    tokens: Tensor | None = None


@keras.saving.register_keras_serializable(package="proof_by_running")
class Attention(keras.layers.Layer):
    """Attention of any form, in the place of ``lib.bert.SelfAttention`` or ``keras.layers.MultiHeadAttention``.

    ``query``, ``key``, ``value`` and ``project`` are the dense layers that pretrained weights look for. Queries and
    keys are divided by d^{1/4} each, so that qᵀk has the size that it has under the softmax. The delta rule takes
    keys and queries of length 1 instead. Two forms have a dense layer more, with one number a head: ``gate``, for
    log γ = log σ(x W + b), b = 4, and ``rate``, for β = σ(x W). The form "vector gated" has two, ``narrow`` and
    ``gate``, for log γ = log σ(x W₁W₂ + b)/16, with one number a feature.

    A causal layer writes on: :meth:`prefill` reads a prompt in parallel, :meth:`step` takes one token more.

    Args:
        num_heads: Number of heads.
        form: One of "softmax", "fused softmax", "double softmax", "linear", "retention", "gated", "vector gated",
            "delta rule".
        causal: Whether a token sees only itself and those before it. The last four forms are always causal, the
            double softmax never.
        key_dim: Size of a query and of a key; None for hidden/num_heads.
        value_dim: Size of a value; None for ``key_dim``.
        output_shape: Sizes of the output besides batch and time, an integer or several; None for that of the query.
        num_key_value_heads: Number of heads of keys and values, each of which serves several of the queries in a
            row; None for ``num_heads``, which it divides.
        dropout: Rate of the dropout of the attention weights. The linear forms make no weights: there the weights
            of a key are dropped for all queries at once, which is to drop its value.
        rotary: Whether queries and keys are turned by their places, see :func:`lib.attention.rotate`. A token that
            the mask leaves out takes no place. Not for forms with a feature map, two softmaxes or a gate a feature.
        max_wavelength: λ of the rotary positions.
        use_bias: Whether ``query``, ``key``, ``value`` and ``project`` have a bias.
        feature_map: φ of the form "linear", as in :func:`linear_attention`; "auto" for "elu+1". Other forms have
            none. A layer is saved with a φ that has a name, is a Keras layer, a :class:`FeatureMap` that says how
            it is rebuilt, or a registered function.
        normalize: As in :func:`linear_attention`; "auto" for the habit of the form: ``"sum"`` for "linear",
            ``"rms"`` for the last four. The softmaxes have none.
        chunk: As in :func:`linear_attention`.
        seed: Of the dropout: an integer, a ``keras.random.SeedGenerator`` or None.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: An argument is unknown or not possible with ``form``; when built, ``num_heads`` does not divide
            hidden and no ``key_dim`` is given, or hidden is not known.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((2, 6, 8)).astype("float32")
        >>> layer = Attention(num_heads=2, form="delta rule", causal=True)
        >>> whole = layer(x)
        >>> out, progress = layer.prefill(x[:, :4])
        >>> for t in (4, 5):
        ...     out, progress = layer.step(x[:, t], progress)
        >>> bool(ops.max(ops.abs(out - whole[:, 5])) < 1e-4)
        True
    """

    def __init__(
        self,
        num_heads: int,
        form: str = "linear",
        causal: bool = False,
        *,
        key_dim: int | None = None,
        value_dim: int | None = None,
        output_shape: int | Sequence[int] | None = None,
        num_key_value_heads: int | None = None,
        dropout: float = 0.0,
        rotary: bool = False,
        max_wavelength: float = 10_000.0,
        use_bias: bool = True,
        feature_map: Any = AUTO,
        normalize: str | None = AUTO,
        chunk: int = CHUNK,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.form, self.causal = one_of("form", form, FORMS), boolean("causal", causal)
        if self.causal not in FORMS[form].causal:
            raise ValueError(f"causal must be {not self.causal} with the form {form!r}, got {self.causal}")
        self.num_heads = positive_integer("num_heads", num_heads)
        self.key_dim, self.value_dim, self.num_key_value_heads = (
            None if size is None else positive_integer(name, size)
            for name, size in (
                ("key_dim", key_dim),
                ("value_dim", value_dim),
                ("num_key_value_heads", num_key_value_heads),
            )
        )
        self._output_shape = _sizes("output_shape", output_shape)
        if self.num_heads % (self.num_key_value_heads or self.num_heads):
            raise ValueError(f"num_key_value_heads must divide num_heads = {num_heads}, got {num_key_value_heads}")
        self.feature_map, self.normalize = feature_map, normalize
        self._promised = feature_map.apply if isinstance(feature_map, FeatureMap) else None  # a layer is tracked
        self._options = FORMS[form].resolved(Options(feature_map, normalize, positive_integer("chunk", chunk)))
        self.rotary, self.max_wavelength = boolean("rotary", rotary), positive("max_wavelength", max_wavelength)
        if self.rotary and not FORMS[form].turns(self._options):
            unless = "" if self._options.feature_map is None else ", unless feature_map is None"
            raise ValueError(f"rotary must be False with the form {form!r}{unless}, got {rotary!r}")
        self.use_bias, self.chunk = boolean("use_bias", use_bias), self._options.chunk
        self.dropout = rate("dropout", dropout)
        seed = keras.saving.deserialize_keras_object(seed) if isinstance(seed, dict) else seed
        self.seed = seed = checked_seed(seed)
        if self.dropout > 0:
            given = isinstance(seed, keras.random.SeedGenerator)
            self.seed_generator = seed if given else keras.random.SeedGenerator(seed)
        self.supports_masking = True

    # --- weights ----------------------------------------------------------------------------------------------

    def build(self, query_shape: Shape, value_shape: Shape | None = None, key_shape: Shape | None = None) -> None:
        """Creates the linear maps."""
        value_shape = value_shape or query_shape
        key_shape = key_shape or value_shape
        for name, shape in (("query", query_shape), ("value", value_shape), ("key", key_shape)):
            if len(shape) != 3 or shape[-1] is None:
                raise ValueError(
                    f"{name} must have shape (batch, time, hidden) of known hidden, got {tuple(shape)}"
                )
        hidden, heads = query_shape[-1], self.num_heads
        if self.key_dim is None and hidden % heads:
            raise ValueError(f"num_heads must divide hidden = {hidden}, unless key_dim is given, got {heads}")
        dim, groups = self.key_dim or hidden // heads, self.num_key_value_heads or heads
        value_dim = self.value_dim or dim
        if self.rotary and dim % 2:
            raise ValueError(f"key_dim must be even with rotary=True, got {dim}")
        self._add_dense("query", heads * dim, query_shape)
        self._add_dense("key", groups * dim, key_shape)
        self._add_dense("value", groups * value_dim, value_shape)
        self._add_dense("project", math.prod(self._sizes_of(hidden)), (*query_shape[:-1], heads * value_dim))
        if gate := FORMS[self.form].gate:
            shape, units = query_shape, heads * dim if gate.by_feature else heads
            if gate.rank:
                self._add_dense("narrow", gate.rank, query_shape)
                shape = (*query_shape[:-1], gate.rank)
            self._add_dense(gate.name, units, shape, keras.initializers.Constant(gate.bias))
        phi = self.feature_map if self._promised is None else self._promised
        if isinstance(phi, keras.layers.Layer) and not phi.built:
            phi.build((*query_shape[:-1], heads, dim))

    def _add_dense(self, name: str, units: int, shape: Shape, bias: Any = None) -> None:
        dense = keras.layers.Dense(
            units,
            use_bias=self.use_bias or bias is not None,
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            bias_initializer="zeros" if bias is None else bias,
            dtype=self.dtype_policy,
            name=name,
        )
        dense.build(shape)
        setattr(self, name, dense)

    # --- all tokens at once -----------------------------------------------------------------------------------

    def call(
        self,
        query: Tensor,
        value: Tensor | None = None,
        key: Tensor | None = None,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Vectors (batch, time, *output_shape) of vectors (batch, time, hidden).

        Args:
            query: Who asks, (batch, time, hidden).
            value: Who is asked, (batch, keys, ·); None for ``query`` itself. Not for the forms that are always
                causal, nor with rotary positions.
            key: What the questions are compared with, (batch, keys, ·); None for ``value``.
            mask: Tokens that are asked, boolean or 0 and 1, (batch, keys); None for all.
            query_mask: Likewise (batch, time), where ``value`` is None; Keras hands it over.
            value_mask: As ``mask``.
            key_mask: As ``mask``.
            attention_mask: Which query asks which key, boolean or 0 and 1, (batch, time, keys), for the softmax
                and its fused form. A query that may ask none gets the bias of ``project``.
            training: Whether to drop out.

        Raises:
            ValueError: A shape does not fit; a mask has other values than True and False, 1 and 0 (compiled code,
                which can raise no error for values, gives NaN in that row); an argument is not for this form.
        """
        form = FORMS[self.form]
        self._require_one_sequence(form, value, key)
        masks = {"mask": mask, "value_mask": value_mask, "key_mask": key_mask}
        if value is None:
            value, masks["query_mask"] = query, query_mask
        key = value if key is None else key
        for name, x in (("query", query), ("value", value), ("key", key)):
            require_some(name, require_shape(name, x, (None, None, x.shape[-1])), "token and feature")
        batch, time = query.shape[:2]
        require_shape("value", value, (batch, time if self.causal else None, value.shape[-1]), to_fit="query")
        require_shape("key", key, (batch, value.shape[1], key.shape[-1]), to_fit="value")
        seen, valid = _checked_masks(masks, value.shape[:2])
        q, k, v, gate = self._projected(query, key, value, seen)
        given = {}
        if attention_mask is not None:
            if not form.weighs_pairs:
                raise ValueError(f"attention_mask must be None with the form {self.form!r}, which weighs no pairs")
            given["attention_mask"] = attention_mask
        if training and self.dropout > 0:
            if form.weighs_pairs:
                given["dropout"] = self._dropped
            else:
                v = v * self._dropped(ops.ones_like(v[..., :1]))
        out = form.attend(q, k, v, causal=self.causal, mask=seen, gate=gate, options=self._options, **given)
        return self._finished(out, valid)

    def _dropped(self, x: Tensor) -> Tensor:
        return keras.random.dropout(x, self.dropout, seed=self.seed_generator)

    def _require_one_sequence(self, form: Form, value: Tensor | None, key: Tensor | None) -> None:
        if value is None and key is not None:
            raise ValueError("value must be given where key is, got None")
        if value is None or not (self.rotary or form.causal == (True,)):
            return
        why = "rotary=True" if self.rotary else f"the form {self.form!r}"
        raise ValueError(f"value must be None with {why}, for tokens that ask those of their own sequence")

    # --- a prompt, and on from there --------------------------------------------------------------------------

    def prefill(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        progress: Progress | None = None,
        capacity: int | None = None,
    ) -> tuple[Tensor, Progress]:
        """All tokens of a prompt at once, and what :meth:`step` goes on from.

        Rows may be of unequal length, padded before, behind or within: masked tokens are as if they were not there,
        and each row goes on as it would alone.

        Args:
            x: The tokens, (batch, time, hidden).
            mask: Tokens that count, boolean or 0 and 1, (batch, time); None for all.
            progress: What was returned for the tokens before; None at the start.
            capacity: For the softmax, at the start: room for how many tokens, masked ones included. All shapes are
                then fixed, and a compiled step is compiled once. None for a cache that grows. The other forms have
                states of fixed size.

        Returns:
            The outputs, as of a call, and the progress. If ``capacity`` is not enough for the tokens, outputs are
            NaN from then on in code that is compiled by XLA, where no error can be raised.

        Raises:
            ValueError: The layer is not built or not causal, a shape does not fit, or ``capacity`` is not enough.
        """
        form = self._generating("prefill")
        x = require_shape("x", as_tensor("x", x, kinds="f"), (None, None, self._hidden))
        require_some("x", x, "token and feature")
        seen, valid = _checked_masks({"mask": mask}, x.shape[:2])
        (state, tokens), x = _known(progress), ops.cast(x, self.compute_dtype)
        q, k, v, gate = self._projected(x, x, x, seen, tokens)
        given = {"mask": seen, "gate": gate, "options": self._options, "capacity": _room(capacity)}
        out, state = form.prefill(q, k, v, state, **given)
        return self._finished(out, valid), Progress(state, self._counted(tokens, x, seen))

    def step(
        self,
        x: Tensor,
        progress: Progress | None = None,
        mask: Tensor | None = None,
        *,
        capacity: int | None = None,
    ) -> tuple[Tensor, Progress]:
        """One token more.

        Args:
            x: The token, (batch, hidden).
            progress: What was returned for the tokens before; None at the start.
            mask: Rows for which the token counts, boolean or 0 and 1, (batch,); None for all.
            capacity: As in :meth:`prefill`.

        Returns:
            Its vectors (batch, *output_shape), and the progress; as :meth:`prefill`.

        Raises:
            ValueError: As :meth:`prefill`.
        """
        form = self._generating("step")
        x = require_shape("x", as_tensor("x", x, kinds="f"), (None, self._hidden))
        seen, valid = _checked_masks({"mask": mask}, x.shape[:1])
        (state, tokens), x = _known(progress), ops.cast(x, self.compute_dtype)[:, None]
        seen_in_time = None if seen is None else seen[:, None]
        q, k, v, gate = self._projected(x, x, x, seen_in_time, tokens)
        q, k, v, gate = (None if y is None else y[:, 0] for y in (q, k, v, gate))
        given = {"mask": seen, "gate": gate, "options": self._options, "capacity": _room(capacity)}
        out, state = form.step(q, k, v, state, **given)
        y = self._finished(out[:, None], valid)[:, 0]
        return y, Progress(state, self._counted(tokens, x, seen_in_time))

    def _generating(self, method: str) -> Form:
        """The form, if the layer can write on."""
        if not self.causal:
            raise ValueError(f"causal must be True for {method}, which goes on token by token, got False")
        if not self.built:
            raise ValueError(f"the layer {self.name!r} must be built before {method}: call it, or build it")
        return FORMS[self.form]

    @property
    def _hidden(self) -> int:
        return self.query.kernel.shape[0]

    def _counted(self, tokens: Tensor | None, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """How many tokens of each row count, with the new ones."""
        if not self.rotary:
            return None
        new = ops.ones(ops.shape(x)[:2], "int32") if mask is None else ops.cast(mask, "int32")
        new = ops.sum(new, axis=1)
        return new if tokens is None else tokens + new

    # --- what all have in common ------------------------------------------------------------------------------

    def _projected(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys and values, (batch, time, heads, dim), and the gate, (batch, time, heads[, dim])."""
        form, groups = FORMS[self.form], self.num_key_value_heads or self.num_heads
        q = _by_head(self.query(query), self.num_heads)
        k, v = _by_head(self.key(key), groups), _by_head(self.value(value), groups)
        gate = self._gate(query, form.gate) if form.gate else None
        q, k = form.scaled(q, k)
        if self.rotary:
            turned = partial(rotate, positions=places(query, mask, before), max_wavelength=self.max_wavelength)
            q, k = turned(q), turned(k)
        return q, k, v, gate

    def _gate(self, x: Tensor, gate: Gate) -> Tensor:
        numbers = getattr(self, gate.name)(self.narrow(x) if gate.rank else x)
        return _by_head(numbers, self.num_heads) if gate.by_feature else numbers

    def _finished(self, out: Tensor, valid: Tensor | None) -> Tensor:
        """The heads side by side, and projected; NaN in rows whose mask was none."""
        out = self.project(ops.reshape(out, (*ops.shape(out)[:2], out.shape[2] * out.shape[3])))
        if self._output_shape is not None and len(self._output_shape) > 1:
            out = ops.reshape(out, (*ops.shape(out)[:2], *self._output_shape))
        return out if valid is None else or_nan(out, valid)

    def compute_output_shape(self, query_shape: Shape, **_: Any) -> Shape:
        """(batch, time, *output_shape)."""
        return (*query_shape[:-1], *self._sizes_of(query_shape[-1]))

    def _sizes_of(self, hidden: int) -> tuple[int, ...]:
        return self._output_shape or (hidden,)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer.

        Raises:
            ValueError: ``feature_map`` is a function that is not registered, which no file can hold.
        """
        names = ("num_heads", "form", "causal", "key_dim", "value_dim", "num_key_value_heads", "dropout", "rotary")
        names += ("max_wavelength", "use_bias", "normalize", "chunk")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "output_shape": self._output_shape,
            "feature_map": saved_feature_map(self.feature_map),
            "seed": keras.saving.serialize_keras_object(self.seed),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Attention:
        """Returns the layer that has this configuration."""
        return cls(**{**config, "feature_map": loaded_feature_map(config["feature_map"])})


def _checked_masks(masks: dict[str, Any], shape: Shape) -> tuple[Tensor | None, Tensor | None]:
    """Where all masks are True, and the rows in which they are masks, as :func:`checked_mask`; None for no mask."""
    checked = [checked_mask(mask, shape, name=name) for name, mask in masks.items() if mask is not None]
    return _all([seen for seen, _ in checked]), _all([valid for _, valid in checked])


def _all(flags: list[Tensor]) -> Tensor | None:
    if not flags:
        return None
    first, *others = flags
    for other in others:
        first = ops.logical_and(first, other)
    return first


def _known(progress: Progress | None) -> Progress:
    if progress is not None and not isinstance(progress, Progress):
        raise ValueError(f"progress must be what prefill or step returned, or None, got {progress!r:.60}")
    return Progress(None) if progress is None else progress


def _sizes(name: str, given: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """One size or several, as Keras takes them."""
    if given is None:
        return None
    if not isinstance(given, tuple | list):
        return (positive_integer(name, given),)
    if not given:
        raise ValueError(f"{name} must have at least one size, got {given!r}")
    return tuple(positive_integer(name, size) for size in given)


def _room(capacity: int | None) -> int | None:
    return None if capacity is None else positive_integer("capacity", capacity)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(batch, time, heads · dim) → (batch, time, heads, dim)."""
    return ops.reshape(x, (*ops.shape(x)[:-1], heads, x.shape[-1] // heads))
