"""The parts of BERT: embeddings, and a block of self-attention and a feed-forward network.

With X (time, hidden) the vectors of a sentence, a block is two steps, each with a shortcut and a normalization
after it (post-LayerNorm, as in the original)::

    X ← LN(X + Attention(X))        Attention(X) = softmax(QKᵀ/√d) V for each head, then a linear map
    X ← LN(X + FFN(X))              FFN(X) = gelu(X W₁ + b₁) W₂ + b₂, with gelu(x) = x Φ(x) exactly

A block takes any layer as its attention.

Source: Devlin et al. 2019 (arXiv 1810.04805); Vaswani et al. 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from .._arguments import positive, positive_integer, rate
from .._layers import integer_seed
from .._tensors import as_tensor, checked_mask, or_nan, require, require_shape

__all__ = ["Block", "Embeddings", "SelfAttention"]

Tensor = Any
Shape = tuple[int | None, ...]
Seed = int | keras.random.SeedGenerator | None

EPSILON = 1e-12  # of the original

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


@_serializable
class Embeddings(keras.layers.Layer):
    """Ids to vectors: LN(word + position + segment), then dropout.

    Args:
        vocabulary: Number of ids.
        hidden: Width of a vector.
        positions: Longest sentence, in tokens.
        types: Number of segments; BERT numbers the first and the second text of a pair 0 and 1.
        dropout: Rate of the dropout.
        epsilon: What the normalization adds to the variance.
        seed: Seed of the dropout, an int or a ``keras.random.SeedGenerator``.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: A size is no positive integer, ``dropout`` no rate in [0, 1), ``epsilon`` not positive; when
            called, ``ids`` are no whole numbers (batch, time), are longer than ``positions`` or not in 0 to
            ``vocabulary`` − 1, or ``types`` are not like them or not in 0 to ``types`` − 1. Under XLA and
            ``jax.jit``, where no value can raise, the vectors of that text are NaN.

    Example:
        >>> embeddings = Embeddings(vocabulary=10, hidden=8, positions=16)
        >>> tuple(embeddings(np.array([[2, 5, 3]])).shape)
        (1, 3, 8)
    """

    def __init__(
        self,
        vocabulary: int,
        hidden: int,
        positions: int = 512,
        types: int = 2,
        dropout: float = 0.1,
        *,
        epsilon: float = EPSILON,
        seed: Seed = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        sizes = {"vocabulary": vocabulary, "hidden": hidden, "positions": positions, "types": types}
        self._config = {name: positive_integer(name, size) for name, size in sizes.items()}
        dropout, epsilon = rate("dropout", dropout), positive("epsilon", epsilon)
        self._config |= {"dropout": dropout, "epsilon": epsilon, "seed": (seed := integer_seed(seed))}
        self.words, self.positions, self.types = (
            self._table(self._config[rows], name)
            for rows, name in (("vocabulary", "words"), ("positions", "positions"), ("types", "types"))
        )
        self.norm = _normalization(self, epsilon, name="norm")
        self.dropout = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy)

    def _table(self, rows: int, name: str) -> keras.layers.Embedding:
        width = self._config["hidden"]
        return keras.layers.Embedding(rows, width, _initializer(), dtype=self.dtype_policy, name=name)

    def build(self, ids_shape: Shape) -> None:
        """Creates the three tables and the normalization."""
        for table in (self.words, self.positions, self.types):
            table.build()
        self.norm.build((*ids_shape, self._config["hidden"]))

    def call(self, ids: Tensor, types: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Vectors (batch, time, hidden) of ids (batch, time); segments ``types`` (batch, time), 0 by default."""
        ids, known = _rows("ids", ids, (None, None), self._config["vocabulary"])
        known = ops.logical_and(self._fits(ids), known)
        if types is None:
            types = ops.zeros_like(ids)
        else:
            types, also_known = _rows("types", types, tuple(ids.shape), self._config["types"], to_fit="ids")
            known = ops.logical_and(known, also_known)
        places = ops.minimum(ops.arange(ops.shape(ids)[1]), self._config["positions"] - 1)
        x = self.words(ids) + self.positions(places) + self.types(types)
        return or_nan(self.dropout(self.norm(x), training=training), known)

    def _fits(self, ids: Tensor) -> Tensor:
        """Whether there is a position for each token, a boolean scalar; ValueError where it is known."""
        longest, rule = self._config["positions"], "ids must have at most {} tokens a sentence"
        if (ids.shape[1] or 0) > longest:
            raise ValueError(f"{rule.format(longest)}, got {ids.shape[1]}")
        fits = ops.convert_to_tensor(ops.shape(ids)[1] <= longest)
        if ids.shape[1] is None:
            require(fits, rule.format(longest), lambda: ops.shape(ids)[1])
        return fits

    def compute_output_shape(self, ids_shape: Shape, **_: Any) -> Shape:
        """(batch, time, hidden)."""
        return (*ids_shape, self._config["hidden"])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), **self._config}


@_serializable
class SelfAttention(keras.layers.Layer):
    """Each token asks all others: softmax(QKᵀ/√d) V for each head, the heads side by side, then a linear map.

    Q, K and V (time, d) are linear maps of the vectors, d = hidden/num_heads. Queries are divided by √d before they
    meet the keys, so that float16 does not overflow. Padded tokens are asked nothing: their weights are zero, and
    whatever stands at their places, NaN too, reaches no other token.

    Any layer with this interface can take its place in a :class:`Block`: ``call(x, mask=None, training=None)``
    keeps the shape of x (batch, time, hidden) and ignores the tokens where mask (batch, time) is False, ``build``
    creates all weights, and ``supports_masking`` is True. Pretrained weights find their way into its dense layers
    ``query``, ``key``, ``value`` and ``project``.

    Args:
        num_heads: Number of heads, which divides ``hidden``.
        dropout: Rate of the dropout of the attention weights.
        seed: Seed of the dropout, an int or a ``keras.random.SeedGenerator``.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``num_heads`` is no positive integer, ``dropout`` no rate in [0, 1); when built, ``num_heads``
            does not divide ``hidden``; when called, x is not (batch, time, hidden), or the mask is not (batch,
            time) or not of booleans, zeros and ones. Under XLA and ``jax.jit`` a text with another number in its
            mask becomes NaN.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 3, 8)).astype("float32")
        >>> mask = np.array([[True, True, False]])
        >>> attention = SelfAttention(num_heads=2)
        >>> padded, alone = attention(x, mask=mask)[:, :2], attention(x[:, :2])
        >>> bool(ops.max(ops.abs(padded - alone)) < 1e-6)
        True
    """

    def __init__(self, num_heads: int, dropout: float = 0.1, *, seed: Seed = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads, self.seed = positive_integer("num_heads", num_heads), integer_seed(seed)
        self.rate = rate("dropout", dropout)
        self.dropout = keras.layers.Dropout(dropout, seed=self.seed, dtype=self.dtype_policy)
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Creates the four linear maps."""
        hidden = x_shape[-1]
        if hidden % self.num_heads:
            raise ValueError(f"num_heads must divide hidden = {hidden}, got {self.num_heads}")
        self.query, self.key, self.value, self.project = (
            _dense(self, hidden, x_shape, name=name) for name in ("query", "key", "value", "project")
        )

    def call(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Vectors (batch, time, hidden) of vectors of the same shape; mask (batch, time) bool, True for tokens."""
        x, mask = _valid_tokens(x, mask)
        Q, K, V = (self._split(linear(x)) for linear in (self.query, self.key, self.value))
        scores = ops.matmul(Q / math.sqrt(Q.shape[-1]), ops.transpose(K, (0, 1, 3, 2)))
        if mask is not None:
            scores = ops.where(_asked(mask)[:, None, None, :], scores, ops.cast(-math.inf, scores.dtype))
        weights = self.dropout(ops.softmax(scores), training=training)
        return self.project(self._join(ops.matmul(weights, V)))

    def _split(self, x: Tensor) -> Tensor:
        """(batch, time, hidden) → (batch, heads, time, d)."""
        x = ops.reshape(x, (*ops.shape(x)[:2], self.num_heads, x.shape[-1] // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def _join(self, x: Tensor) -> Tensor:
        """(batch, heads, time, d) → (batch, time, hidden)."""
        x = ops.transpose(x, (0, 2, 1, 3))
        return ops.reshape(x, (*ops.shape(x)[:2], self.num_heads * x.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "num_heads": self.num_heads, "dropout": self.rate, "seed": self.seed}


@_serializable
class Block(keras.layers.Layer):
    """One layer of BERT: attention and a feed-forward network, each added to its input and normalized.

    Args:
        attention: Layer with the interface of :class:`SelfAttention`.
        inner: Width of the feed-forward network; BERT takes 4 · hidden.
        dropout: Rate of the dropout before each sum.
        epsilon: What the normalizations add to the variance.
        seed: Seed of the dropout, an int or a ``keras.random.SeedGenerator``.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``attention`` is not a layer, ``inner`` no positive integer, ``dropout`` no rate in [0, 1),
            ``epsilon`` not positive; when called, as :class:`SelfAttention`.

    Example:
        >>> block = Block(SelfAttention(num_heads=2), inner=32)
        >>> tuple(block(np.zeros((1, 3, 8), "float32")).shape)
        (1, 3, 8)
    """

    def __init__(
        self,
        attention: keras.layers.Layer,
        inner: int,
        dropout: float = 0.1,
        *,
        epsilon: float = EPSILON,
        seed: Seed = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(attention, keras.layers.Layer):
            raise ValueError(f"attention must be a Keras layer, got {attention!r}")
        self._config = {"inner": positive_integer("inner", inner), "dropout": rate("dropout", dropout)}
        self._config |= {"epsilon": positive("epsilon", epsilon), "seed": (seed := integer_seed(seed))}
        self.attention = attention
        self.attention_dropout, self.dropout = (
            keras.layers.Dropout(dropout, seed=own, dtype=self.dtype_policy) for own in _seeds(seed, 2)
        )
        self.attention_norm = _normalization(self, epsilon, name="attention_norm")
        self.norm = _normalization(self, epsilon, name="norm")
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Creates the feed-forward network and builds the rest."""
        inner = self._config["inner"]
        self.expand = _dense(self, inner, x_shape, name="expand", activation=_gelu)
        self.contract = _dense(self, x_shape[-1], (*x_shape[:-1], inner), name="contract")
        for layer in (self.attention, self.attention_norm, self.norm):
            if not layer.built:
                layer.build(x_shape)

    def call(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Vectors (batch, time, hidden) of vectors of the same shape; mask (batch, time) bool, True for tokens."""
        x = self.attention_norm(self.attend(x, mask=mask, training=training))
        return self.norm(self.feed_forward(x, training=training))

    def attend(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        """The vectors x, and to each is added what its attention has found."""
        x, mask = _valid_tokens(x, mask)
        attended = self.attention(x, mask=mask, training=training)
        return x + self.attention_dropout(attended, training=training)

    def feed_forward(self, x: Tensor, training: bool | None = None) -> Tensor:
        """The vectors x, and to each is added what the feed-forward network makes of it."""
        return x + self.dropout(self.contract(self.expand(x)), training=training)

    def links(self) -> list[tuple[Callable[..., Tensor], tuple[keras.layers.Layer, ...]]]:
        """The block as a chain of four functions and the layers that each uses; ``lib.recompute`` cuts it there."""
        if not self.built:
            raise ValueError(f"the block {self.name!r} must be built, for its layers to be there")
        return [
            (self.attend, (self.attention, self.attention_dropout)),
            (self.attention_norm, ()),
            (self.feed_forward, (self.expand, self.contract, self.dropout)),
            (self.norm, ()),
        ]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        attention = keras.saving.serialize_keras_object(self.attention)
        return {**super().get_config(), "attention": attention, **self._config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Block:
        """Returns the layer that has this configuration."""
        return cls(**{**config, "attention": keras.saving.deserialize_keras_object(config["attention"])})


def _asked(mask: Tensor) -> Tensor:
    """The tokens that are asked, bool (batch, time): those of the mask, or all of a text that has none of them.

    The scores of all others can then be −∞, below whatever scores there are. No finite number is: if all tokens
    score as low as the number that stands for "masked", a masked one gets its share. The softmax of −∞ alone would
    be NaN, and there is no answer to spoil where no token counts.
    """
    return ops.logical_or(mask, ops.logical_not(ops.any(mask, axis=1, keepdims=True)))


def _valid_tokens(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Vectors (batch, time, hidden) without what would reach others from under the mask; the mask as booleans.

    Weights of zero do not keep NaN and infinity out: 0 · ∞ is NaN. So such a number becomes 0 where it is masked.
    """
    x = require_shape("x", as_tensor("x", x), (None, None, None))
    if mask is None:
        return x, None
    is_boolean = keras.backend.standardize_dtype(as_tensor("mask", mask).dtype) == "bool"
    mask, told = checked_mask(mask, tuple(x.shape[:2]), to_fit="x")
    x = ops.where(ops.logical_or(mask[:, :, None], ops.abs(x) < 1e4), x, ops.zeros_like(x))
    return x if is_boolean else or_nan(x, told), mask


def _rows(name: str, ids: Tensor, shape: Shape, rows: int, to_fit: str | None = None) -> tuple[Tensor, Tensor]:
    """Ids (batch, time) as integers, and whether all of a text have a row in their table, bool (batch,).

    Keras hands on integers as float32 where a model was not told their type, so whole numbers will do.
    """
    ids = require_shape(name, as_tensor(name, ids, kinds="iuf"), shape, to_fit=to_fit)
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if dtype in ("float16", "bfloat16"):
        raise ValueError(f"{name} must hold integers, which {dtype} rounds; give keras.Input(..., dtype='int32')")
    numbers = ops.cast(ids, "int64" if dtype in ("int64", "uint64") else "int32")
    inside = ops.logical_and(numbers >= 0, numbers < rows)
    if "float" in dtype:
        inside = ops.logical_and(inside, ops.cast(numbers, dtype) == ids)
    require(
        ops.all(inside),
        f"{name} must be integers in 0 to {rows - 1}",
        lambda: ops.convert_to_numpy(ids)[~ops.convert_to_numpy(inside)][:5].tolist(),
    )
    return ops.where(inside, numbers, ops.zeros_like(numbers)), ops.all(inside, axis=1)


def _gelu(x: Tensor) -> Tensor:
    """The function x Φ(x) with the normal distribution itself, not its approximation by tanh."""
    return keras.activations.gelu(x, approximate=False)


def _initializer() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _normalization(
    parent: keras.layers.Layer, epsilon: float = EPSILON, **kwargs: Any
) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(epsilon=epsilon, dtype=parent.dtype_policy, **kwargs)


def _dense(parent: keras.layers.Layer, units: int, input_shape: Shape, **kwargs: Any) -> keras.layers.Dense:
    """A dense layer that is built already and computes in the precision of its parent."""
    dense = keras.layers.Dense(units, kernel_initializer=_initializer(), dtype=parent.dtype_policy, **kwargs)
    dense.build(input_shape)
    return dense


def _seeds(seed: Seed, count: int) -> list[int | None]:
    """As many different seeds as wanted: two dropouts with one seed would drop the same places."""
    seed = integer_seed(seed)
    if seed is None:
        return [None] * count
    return [int(word >> 1) for word in np.random.SeedSequence(seed).generate_state(count)]  # torch takes 31 bits
