"""BERT: a stack of equal blocks that turns token ids into one vector a token.

With X (time, hidden) the vectors of a sentence, a block is two steps, each with a shortcut and a normalisation
after it (post-LayerNorm, as in the original)::

    X ← LN(X + Attention(X))        Attention(X) = softmax(QKᵀ/√d) V for each head, then a linear map
    X ← LN(X + FFN(X))              FFN(X) = gelu(X W₁ + b₁) W₂ + b₂, with gelu(x) = x Φ(x) exactly

====================================== ==========================================================================
:class:`Embeddings`                    ids → vectors: word + position + segment
:class:`SelfAttention`, :class:`Block` vectors → vectors; a block takes any layer as its attention
:class:`Encoder`                       embeddings and a list of blocks, with random or pretrained weights
:class:`ConditionalLayerNormalization` for heads: a normalisation that is told something
====================================== ==========================================================================

An encoder is put together from its parts, so it is taken apart as easily. Of a pretrained ``bert``,
``Encoder(bert.embeddings, bert.blocks[:2])`` is the lower third with the same weights, and a list with other
blocks in some places is another model. Files of weights and the ids of texts: ``lib.bert.pretrained``.

Source: Devlin et al. 2019 (arXiv 1810.04805); Vaswani et al. 2017 (arXiv 1706.03762).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from .pretrained import E5File, Path, SafetensorsFile, WeightsFile

__all__ = [
    "Block",
    "ConditionalLayerNormalization",
    "Embeddings",
    "Encoder",
    "SelfAttention",
]

Tensor = Any
Shape = tuple[int | None, ...]

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


# --- the encoder ----------------------------------------------------------------------------------------------


@_serializable
class Embeddings(keras.layers.Layer):
    """Ids to vectors: LN(word + position + segment), then dropout.

    Args:
        vocabulary: Number of ids.
        hidden: Width of a vector.
        positions: Longest sentence, in tokens.
        types: Number of segments; BERT numbers the first and the second text of a pair 0 and 1.
        dropout: Rate of the dropout.
        seed: Seed of the dropout.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: When called, ``ids`` has not the shape (batch, time) or is longer than ``positions``.

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
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._config = {"vocabulary": vocabulary, "hidden": hidden, "positions": positions, "types": types}
        self._config |= {"dropout": dropout, "seed": seed}
        self.words = self._table(vocabulary, "words")
        self.positions = self._table(positions, "positions")
        self.types = self._table(types, "types")
        self.norm = _normalization(self, name="norm")
        self.dropout = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy)

    def _table(self, rows: int, name: str) -> keras.layers.Embedding:
        width = self._config["hidden"]
        return keras.layers.Embedding(rows, width, _initializer(), dtype=self.dtype_policy, name=name)

    def build(self, ids_shape: Shape) -> None:
        """Creates the three tables and the normalisation."""
        for table in (self.words, self.positions, self.types):
            table.build()
        self.norm.build((*ids_shape, self._config["hidden"]))

    def call(self, ids: Tensor, types: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Vectors (batch, time, hidden) of ids (batch, time); segments ``types`` (batch, time), 0 by default."""
        if len(ids.shape) != 2:
            raise ValueError(f"ids must have shape (batch, time), got shape {tuple(ids.shape)}")
        longest = self._config["positions"]
        if (ids.shape[1] or 0) > longest:
            raise ValueError(f"ids must have at most {longest} tokens a sentence, got {ids.shape[1]}")
        types = ops.zeros_like(ids) if types is None else types
        x = self.words(ids) + self.positions(ops.arange(ops.shape(ids)[1])) + self.types(types)
        return self.dropout(self.norm(x), training=training)

    def compute_output_shape(self, ids_shape: Shape, **_: Any) -> Shape:
        """(batch, time, hidden)."""
        return (*ids_shape, self._config["hidden"])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), **self._config}


@_serializable
class SelfAttention(keras.layers.Layer):
    """Each token asks all others: softmax(QKᵀ/√d) V for each head, the heads side by side, then a linear map.

    Q, K and V (time, d) are linear maps of the vectors, d = hidden/heads. Padded tokens are asked nothing: their
    scores are set to −30000, which any float type holds, and whose exponential is zero.

    Any layer with this interface can take its place in a :class:`Block`: ``call(x, mask=None, training=None)``
    keeps the shape of x (batch, time, hidden) and ignores the tokens where mask (batch, time) is False, ``build``
    creates all weights, and ``supports_masking`` is True. Pretrained weights find their way into its dense layers
    ``query``, ``key``, ``value`` and ``project``.

    Args:
        heads: Number of heads, which divides ``hidden``.
        dropout: Rate of the dropout of the attention weights.
        seed: Seed of the dropout.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: When built, ``heads`` does not divide ``hidden``.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1, 3, 8)).astype("float32")
        >>> mask = np.array([[True, True, False]])
        >>> attention = SelfAttention(heads=2)
        >>> padded, alone = attention(x, mask=mask)[:, :2], attention(x[:, :2])
        >>> bool(ops.max(ops.abs(padded - alone)) < 1e-6)
        True
    """

    def __init__(self, heads: int, dropout: float = 0.1, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads, self.rate, self.seed = heads, dropout, seed
        self.dropout = keras.layers.Dropout(dropout, seed=seed, dtype=self.dtype_policy)
        self.supports_masking = True

    def build(self, x_shape: Shape) -> None:
        """Creates the four linear maps."""
        hidden = x_shape[-1]
        if self.heads < 1 or hidden % self.heads:
            raise ValueError(f"heads must divide hidden = {hidden}, got {self.heads}")
        self.query, self.key, self.value, self.project = (
            _dense(self, hidden, x_shape, name=name) for name in ("query", "key", "value", "project")
        )

    def call(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Vectors (batch, time, hidden) of vectors of the same shape; mask (batch, time) bool, True for tokens."""
        Q, K, V = (self._split(linear(x)) for linear in (self.query, self.key, self.value))
        scores = ops.matmul(Q, ops.transpose(K, (0, 1, 3, 2))) / math.sqrt(Q.shape[-1])
        if mask is not None:
            scores = ops.where(ops.cast(mask, "bool")[:, None, None, :], scores, ops.cast(-3e4, scores.dtype))
        weights = self.dropout(ops.softmax(scores), training=training)
        return self.project(self._join(ops.matmul(weights, V)))

    def _split(self, x: Tensor) -> Tensor:
        """(batch, time, hidden) → (batch, heads, time, d)."""
        x = ops.reshape(x, (-1, ops.shape(x)[1], self.heads, x.shape[-1] // self.heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def _join(self, x: Tensor) -> Tensor:
        """(batch, heads, time, d) → (batch, time, hidden)."""
        x = ops.transpose(x, (0, 2, 1, 3))
        return ops.reshape(x, (-1, ops.shape(x)[1], self.heads * x.shape[-1]))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer."""
        return {**super().get_config(), "heads": self.heads, "dropout": self.rate, "seed": self.seed}


@_serializable
class Block(keras.layers.Layer):
    """One layer of BERT: attention and a feed-forward network, each added to its input and normalised.

    Args:
        attention: Layer with the interface of :class:`SelfAttention`.
        inner: Width of the feed-forward network; BERT takes 4 · hidden.
        dropout: Rate of the dropout before each sum.
        seed: Seed of the dropout.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: ``attention`` is not a layer.

    Example:
        >>> block = Block(SelfAttention(heads=2), inner=32)
        >>> tuple(block(np.zeros((1, 3, 8), "float32")).shape)
        (1, 3, 8)
    """

    def __init__(
        self,
        attention: keras.layers.Layer,
        inner: int,
        dropout: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(attention, keras.layers.Layer):
            raise ValueError(f"attention must be a Keras layer, got {attention!r}")
        self._config = {"inner": inner, "dropout": dropout, "seed": seed}
        self.attention = attention
        self.attention_dropout, self.dropout = (
            keras.layers.Dropout(dropout, seed=own, dtype=self.dtype_policy) for own in _seeds(seed, 2)
        )
        self.attention_norm = _normalization(self, name="attention_norm")
        self.norm = _normalization(self, name="norm")
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


@_serializable
class Encoder(keras.Model):
    """Embeddings, then one block after another: ids (batch, time) → vectors (batch, time, hidden).

    The mask is where ids differ from ``padding``, unless one is given, and the vectors carry it along: Keras hands
    it to a next layer that asks for ``mask``. The vectors at padded tokens mean nothing.

    Args:
        embeddings: Layer from ids to vectors.
        blocks: Layers with the interface of :class:`Block`, in the order of their application.
        padding: The id of padding.
        all_states: Whether to return a list: the output of the embeddings and that of each block.
        **kwargs: Arguments of every Keras model.

    Raises:
        ValueError: ``embeddings`` or one of ``blocks`` is not a layer.

    Example:
        >>> bert = Encoder.from_sizes(vocabulary=10, hidden=8, layers=4, heads=2, inner=32)
        >>> ids = np.array([[2, 5, 3, 0], [2, 7, 6, 3]])
        >>> tuple(bert(ids).shape)
        (2, 4, 8)
        >>> lower = Encoder(bert.embeddings, bert.blocks[:2], all_states=True)  # shares its weights with bert
        >>> len(lower(ids))
        3
    """

    def __init__(
        self,
        embeddings: keras.layers.Layer,
        blocks: Iterable[keras.layers.Layer],
        padding: int = 0,
        all_states: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        blocks = list(blocks)
        for name, layer in [("embeddings", embeddings), *((f"blocks[{i}]", b) for i, b in enumerate(blocks))]:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(f"{name} must be a Keras layer, got {layer!r}")
        self.embeddings, self.blocks = embeddings, blocks
        self.padding, self.all_states = int(padding), bool(all_states)
        self.supports_masking = True

    def build(self, ids_shape: Shape) -> None:
        """Builds the embeddings and the blocks that are not built yet."""
        if not self.embeddings.built:
            self.embeddings.build(ids_shape)
        vectors_shape = self.embeddings.compute_output_shape(ids_shape)
        for block in self.blocks:
            if not block.built:
                block.build(vectors_shape)

    def call(
        self, ids: Tensor, types: Tensor | None = None, mask: Tensor | None = None, training: bool | None = None
    ) -> Tensor | list[Tensor]:
        """Vectors (batch, time, hidden) of ids (batch, time), or with ``all_states`` a list of layers + 1 of them.

        Args:
            ids: Token ids, int (batch, time).
            types: Segments, int (batch, time), 0 by default.
            mask: True for tokens, False for padding, bool (batch, time).
            training: Whether to drop out.
        """
        mask = self.compute_mask(ids, mask)
        states = [self.embeddings(ids, types=types, training=training)]
        for block in self.blocks:
            states.append(block(states[-1], mask=mask, training=training))
        return states if self.all_states else states[-1]

    def compute_output_shape(self, ids_shape: Shape, **_: Any) -> Shape | list[Shape]:
        """(batch, time, hidden), or with ``all_states`` a list of layers + 1 of them."""
        shape = self.embeddings.compute_output_shape(ids_shape)
        return [shape] * (len(self.blocks) + 1) if self.all_states else shape

    def compute_mask(self, ids: Tensor, previous_mask: Tensor | None = None) -> Tensor:
        """The given mask, or else the tokens that are not padding; bool (batch, time)."""
        return ops.not_equal(ids, self.padding) if previous_mask is None else previous_mask

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this model, without its weights."""
        return {
            **super().get_config(),
            "embeddings": keras.saving.serialize_keras_object(self.embeddings),
            "blocks": [keras.saving.serialize_keras_object(block) for block in self.blocks],
            "padding": self.padding,
            "all_states": self.all_states,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Encoder:
        """Returns the model that has this configuration."""
        embeddings = keras.saving.deserialize_keras_object(config["embeddings"])
        blocks = [keras.saving.deserialize_keras_object(block) for block in config["blocks"]]
        return cls(**{**config, "embeddings": embeddings, "blocks": blocks})

    @classmethod
    def from_sizes(
        cls,
        vocabulary: int,
        hidden: int,
        layers: int,
        heads: int,
        inner: int,
        positions: int = 512,
        types: int = 2,
        dropout: float = 0.1,
        seed: int | None = None,
        attention: Callable[..., Any] = SelfAttention,
        padding: int = 0,
    ) -> Encoder:
        """An encoder with random weights, normal with standard deviation 0.02 as in BERT.

        Args:
            vocabulary: Number of ids.
            hidden: Width of the vectors.
            layers: Number of blocks.
            heads: Number of attention heads, which divides ``hidden``.
            inner: Width of the feed-forward networks.
            positions: Longest sentence, in tokens.
            types: Number of segments.
            dropout: Rate of all dropout.
            seed: Seed of the dropout, from which each place of it draws its own. The weights follow
                ``keras.utils.set_random_seed``.
            attention: Called once a block as ``attention(heads, dropout=..., seed=...)``.
            padding: The id of padding.
        """
        seeds = _seeds(seed, 2 * layers + 1)
        embeddings = Embeddings(vocabulary, hidden, positions, types, dropout, seed=seeds[-1])
        blocks = [
            Block(attention(heads, dropout=dropout, seed=own), inner, dropout, seed=other)
            for own, other in zip(seeds[:layers], seeds[layers:-1], strict=True)
        ]
        return cls(embeddings, blocks, padding)

    @classmethod
    def from_minilm(
        cls,
        path: Path,
        heads: int = 12,
        layers: int | None = None,
        rows: ArrayLike | None = None,
        **options: Any,
    ) -> Encoder:
        """MiniLM, or another BERT with the same names, from a safetensors file; its pooler is left out.

        Args:
            path: The file, such as ``model.safetensors`` of all-MiniLM-L6-v2.
            heads: Number of attention heads, which no tensor tells.
            layers: How many of the blocks to take, from below; all by default.
            rows: Which rows of the table of words to keep, int (vocabulary,); all by default. Id i of the encoder
                is then id rows[i] of the file (see ``pretrained.renumber``). Padding, id 0, must be among them.
            **options: ``dropout``, ``seed`` and ``attention`` as in :meth:`from_sizes`.

        Raises:
            ValueError: The file is no safetensors file, lacks a tensor or has one of another shape; ``layers`` or
                ``rows`` is out of range; a block has no place for a tensor.
        """
        return cls._from_file(SafetensorsFile(path, heads), layers, rows, options)

    @classmethod
    def from_e5(
        cls, path: Path, layers: int | None = None, rows: ArrayLike | None = None, **options: Any
    ) -> Encoder:
        """multilingual-e5-small from its 4-bit file, dequantized to float32.

        Args:
            path: The file, ``e5-small-q4.bin``.
            layers: As in :meth:`from_minilm`.
            rows: As in :meth:`from_minilm`; padding is id 1 of the file. All 250,037 rows take 384 MB, those of
                ``pretrained.Characters`` 21 MB or less, and only the rows asked for are read.
            **options: As in :meth:`from_minilm`.

        Raises:
            ValueError: As ``pretrained.E5File`` and :meth:`from_minilm`.
        """
        return cls._from_file(E5File(path), layers, rows, options)

    @classmethod
    def _from_file(
        cls, file: WeightsFile, layers: int | None, rows: ArrayLike | None, options: dict[str, Any]
    ) -> Encoder:
        sizes, kept = file.part(layers, rows)
        encoder = cls.from_sizes(**sizes, **options)
        encoder.build((None, None))
        file.fill(encoder, kept)
        return encoder


def _gelu(x: Tensor) -> Tensor:
    """The function x Φ(x) with the normal distribution itself, not its approximation by tanh."""
    return keras.activations.gelu(x, approximate=False)


def _initializer() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)


def _normalization(parent: keras.layers.Layer, **kwargs: Any) -> keras.layers.LayerNormalization:
    return keras.layers.LayerNormalization(epsilon=1e-12, dtype=parent.dtype_policy, **kwargs)


def _dense(parent: keras.layers.Layer, units: int, input_shape: Shape, **kwargs: Any) -> keras.layers.Dense:
    """A dense layer that is built already and computes in the precision of its parent."""
    dense = keras.layers.Dense(units, kernel_initializer=_initializer(), dtype=parent.dtype_policy, **kwargs)
    dense.build(input_shape)
    return dense


def _seeds(seed: int | None, count: int) -> list[int | None]:
    """As many different seeds as wanted: two dropouts with one seed would drop the same places."""
    if seed is None:
        return [None] * count
    return [int(word >> 1) for word in np.random.SeedSequence(seed).generate_state(count)]  # torch takes 31 bits


# --- for heads ------------------------------------------------------------------------------------------------


@_serializable
class ConditionalLayerNormalization(keras.layers.Layer):
    """(γ + W₁c) · (x − mean)/std + β + W₂c: a layer normalisation whose scale and shift depend on a vector c.

    It is how a head is told what to look for: here are the tokens, and c is the subject whose objects are wanted.
    W₁ and W₂ start as zero, so that it starts as a plain layer normalisation and the condition is learned.

    Args:
        **kwargs: Arguments of every Keras layer.

    Source: Su Jianlin, https://kexue.fm/archives/7124.

    Example:
        >>> x = np.array([[[1.0, 3.0], [4.0, 2.0]]], "float32")
        >>> layer = ConditionalLayerNormalization()
        >>> ops.convert_to_numpy(layer(x, np.ones((1, 5), "float32"))).round(3)
        array([[[-1.,  1.],
                [ 1., -1.]]], dtype=float32)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.normalize = _normalization(self, center=False, scale=False)
        self.supports_masking = True

    def build(self, x_shape: Shape, condition_shape: Shape) -> None:
        """Creates γ, β, W₁ and W₂."""
        hidden = x_shape[-1]
        self.normalize.build(x_shape)
        self.gamma = self.add_weight((hidden,), "ones", name="gamma")
        self.beta = self.add_weight((hidden,), "zeros", name="beta")
        self.shift = keras.layers.Dense(
            2 * hidden, use_bias=False, kernel_initializer="zeros", dtype=self.dtype_policy, name="shift"
        )
        self.shift.build(condition_shape)

    def call(self, x: Tensor, condition: Tensor) -> Tensor:
        """Vectors (batch, time, hidden) of vectors of the same shape, given a condition (batch, size)."""
        gamma, beta = ops.split(self.shift(condition)[:, None, :], 2, axis=-1)
        return (self.gamma + gamma) * self.normalize(x) + (self.beta + beta)
