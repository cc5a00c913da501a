"""BERT: a stack of equal blocks that turns token ids into one vector a token.

With X (time, hidden) the vectors of a sentence, a block is two steps, each with a shortcut and a normalisation
after it (post-LayerNorm, as in the original)::

    X ← LN(X + Attention(X))        Attention(X) = softmax(QKᵀ/√d) V for each head, then a linear map
    X ← LN(X + FFN(X))              FFN(X) = gelu(X W₁ + b₁) W₂ + b₂, with gelu(x) = x Φ(x) exactly

====================================== ==========================================================================
:class:`Embeddings`                    ids → vectors: word + position + segment
:class:`SelfAttention`, :class:`Block` vectors → vectors; a block takes any layer as its attention
:class:`Encoder`                       embeddings and a list of blocks, of random or of pretrained weights
:class:`ConditionalLayerNormalization` for heads: a normalisation that is told something
:func:`word_pieces`                    text → ids of MiniLM
:class:`Characters`                    text → ids of multilingual-e5-small, one a character
:class:`E5File`, :func:`dequantize`    weights and pieces of multilingual-e5-small in 4 bits
:func:`renumber`                       ids of a file → ids of an encoder with some rows of its table
====================================== ==========================================================================

An encoder is put together from its parts, so it is taken apart as easily. Of a pretrained ``bert``,
``Encoder(bert.embeddings, bert.blocks[:2])`` is the lower third with the same weights, and a list with other
blocks in some places is another model.

Source: Devlin et al. 2019 (arXiv 1810.04805); Vaswani et al. 2017 (arXiv 1706.03762); MiniLM: Wang et al. 2020
(arXiv 2002.10957); multilingual-e5-small: Wang et al. 2024 (arXiv 2402.05672).
"""

from __future__ import annotations

import math
import os
import struct
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

__all__ = [
    "Block",
    "Characters",
    "ConditionalLayerNormalization",
    "E5File",
    "Embeddings",
    "Encoder",
    "SelfAttention",
    "dequantize",
    "renumber",
    "word_pieces",
]

Tensor = Any
Shape = tuple[int | None, ...]
Path = str | os.PathLike[str]

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
        attended = self.attention(x, mask=mask, training=training)
        x = self.attention_norm(x + self.attention_dropout(attended, training=training))
        fed_forward = self.contract(self.expand(x))
        return self.norm(x + self.dropout(fed_forward, training=training))

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
                is then id rows[i] of the file (see :func:`renumber`). Padding, id 0, must be among them.
            **options: ``dropout``, ``seed`` and ``attention`` as in :meth:`from_sizes`.

        Raises:
            ValueError: The file is no safetensors file, lacks a tensor or has one of another shape; ``layers`` or
                ``rows`` is out of range; a block has no place for a tensor.
        """
        return cls._from_file(_SafetensorsFile(path, heads), layers, rows, options)

    @classmethod
    def from_e5(
        cls, path: Path, layers: int | None = None, rows: ArrayLike | None = None, **options: Any
    ) -> Encoder:
        """multilingual-e5-small from its 4-bit file, dequantized to float32.

        Args:
            path: The file, ``e5-small-q4.bin``.
            layers: As in :meth:`from_minilm`.
            rows: As in :meth:`from_minilm`; padding is id 1 of the file. All 250,037 rows take 384 MB, those of
                :class:`Characters` 21 MB or less, and only the rows asked for are read.
            **options: As in :meth:`from_minilm`.

        Raises:
            ValueError: As :class:`E5File` and :meth:`from_minilm`.
        """
        return cls._from_file(E5File(path), layers, rows, options)

    @classmethod
    def _from_file(
        cls, file: _SafetensorsFile | E5File, layers: int | None, rows: ArrayLike | None, options: dict[str, Any]
    ) -> Encoder:
        sizes, padding = dict(file.sizes), file.padding
        if layers is not None:
            if not 1 <= layers <= sizes["layers"]:
                raise ValueError(f"layers must lie in 1 to {sizes['layers']}, all that the file has, got {layers}")
            sizes["layers"] = layers
        if rows is not None:
            rows = _checked_rows(rows, sizes["vocabulary"], padding)
            sizes["vocabulary"], padding = len(rows), int(np.argmax(rows == padding))
        encoder = cls.from_sizes(**sizes, padding=padding, **options)
        encoder.build((None, None))
        for part, names in _EMBEDDINGS.items():
            _fill(encoder.embeddings, part, file, names[file.column], rows if part == "words" else None)
        for i, block in enumerate(encoder.blocks):
            for part, names in _BLOCK.items():
                _fill(block, part, file, names[file.column].format(i))
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


# --- pretrained weights ---------------------------------------------------------------------------------------


def _fill(
    parent: keras.layers.Layer,
    part: str,
    file: _SafetensorsFile | E5File,
    name: str,
    rows: NDArray[np.int64] | None = None,
) -> None:
    """Assigns to the layer ``part`` of a layer the tensors that the file has under ``name``."""
    try:
        layer = attrgetter(part)(parent)
    except AttributeError:
        raise ValueError(f"{parent!r} has no {part} for the tensor {name} of the file") from None
    for variable, suffix in zip(layer.weights, file.suffixes, strict=False):
        is_kernel = variable is getattr(layer, "kernel", None)  # stored (out, in)
        shape = tuple(variable.shape)[:: -1 if is_kernel else 1]
        shape = shape if rows is None else (file.sizes["vocabulary"], *shape[1:])
        value = file.read(name + suffix, shape, rows)
        variable.assign(value.T if is_kernel else value)


def _checked_rows(rows: ArrayLike, vocabulary: int, padding: int) -> NDArray[np.int64]:
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"rows must be integers of shape (vocabulary,), got {rows.dtype} of shape {rows.shape}")
    wrong = rows[(rows < 0) | (rows >= vocabulary)]
    if wrong.size:
        raise ValueError(f"rows must lie in 0 to {vocabulary - 1}, got {wrong[:5].tolist()}")
    if padding not in rows:
        raise ValueError(f"rows must contain {padding}, the id of padding, got {rows[:5].tolist()} …")
    return rows.astype("int64")


def renumber(ids: ArrayLike, rows: ArrayLike) -> NDArray[np.int32]:
    """Ids of a file as ids of an encoder that was loaded with ``rows``.

    Args:
        ids: Ids of the file, int, any shape.
        rows: The rows that were kept, int (vocabulary,), in any order.

    Returns:
        Places i with rows[i] = id, int32, the shape of ``ids``.

    Raises:
        ValueError: An id is not among ``rows``.

    Example:
        >>> rows = np.unique([[101, 2023, 102], [101, 102, 0]])
        >>> rows
        array([   0,  101,  102, 2023])
        >>> renumber([[101, 2023, 102]], rows)
        array([[1, 3, 2]], dtype=int32)
    """
    ids, rows = np.asarray(ids), np.asarray(rows)
    order = np.argsort(rows, kind="stable")
    places = order[np.searchsorted(rows[order], ids).clip(max=len(rows) - 1)]
    missing = ids[rows[places] != ids]
    if missing.size:
        raise ValueError(f"ids must be among rows, got {np.unique(missing)[:5].tolist()}, which were not kept")
    return places.astype("int32")


# Where the weights of each part are found: in a safetensors file with PyTorch's names, and in the 4-bit file.
_EMBEDDINGS = {
    "words": ("embeddings.word_embeddings", "emb.word"),
    "positions": ("embeddings.position_embeddings", "emb.pos"),
    "types": ("embeddings.token_type_embeddings", "emb.type"),
    "norm": ("embeddings.LayerNorm", "emb.ln"),
}
_BLOCK = {
    "attention.query": ("encoder.layer.{}.attention.self.query", "l{}.q"),
    "attention.key": ("encoder.layer.{}.attention.self.key", "l{}.k"),
    "attention.value": ("encoder.layer.{}.attention.self.value", "l{}.v"),
    "attention.project": ("encoder.layer.{}.attention.output.dense", "l{}.ao"),
    "attention_norm": ("encoder.layer.{}.attention.output.LayerNorm", "l{}.aln"),
    "expand": ("encoder.layer.{}.intermediate.dense", "l{}.fi"),
    "contract": ("encoder.layer.{}.output.dense", "l{}.fo"),
    "norm": ("encoder.layer.{}.output.LayerNorm", "l{}.oln"),
}


class _SafetensorsFile:
    """A BERT in safetensors, with PyTorch's names."""

    column, suffixes, padding = 0, (".weight", ".bias"), 0

    def __init__(self, path: Path, heads: int):
        try:
            self._file = safe_open(path, framework="numpy")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from None
        self._names = set(self._file.keys())
        words, positions, types, inner = (
            self._shape(names[0].format(0) + ".weight")
            for names in (_EMBEDDINGS["words"], _EMBEDDINGS["positions"], _EMBEDDINGS["types"], _BLOCK["expand"])
        )
        blocks = {name.split(".")[2] for name in self._names if name.startswith("encoder.layer.")}
        self.sizes = {"vocabulary": words[0], "hidden": words[1], "layers": len(blocks), "heads": heads}
        self.sizes |= {"inner": inner[0], "positions": positions[0], "types": types[0]}

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._names:
            raise ValueError(f"the file has no tensor {name}")
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The tensor of this shape, or some rows of it."""
        if self._shape(name) != shape:
            raise ValueError(f"the tensor {name} must have shape {shape}, got {self._shape(name)}")
        tensor = self._file.get_tensor(name).astype("float32", copy=False)
        return tensor if rows is None else tensor[rows]


class E5File:
    """multilingual-e5-small in one file: sizes, SentencePiece pieces with their scores, weights in 4 bits.

    All numbers are little-endian. In this order: the magic ``E5S1``, the version and the sizes; the pieces; a map
    of characters for normalisation, skipped here, since NFKC does the same for Chinese; a directory of tensors; the
    tensors, each float32 or in the blocks of :func:`dequantize`. The file is mapped into memory and only what is
    asked for is decoded.

    To be used as ``Characters(E5File(path).pieces)``, and within :meth:`Encoder.from_e5`.

    Args:
        path: The file, ``e5-small-q4.bin``.

    Attributes:
        sizes: The sizes that :meth:`Encoder.from_sizes` takes, by their names there.
        pieces: The pieces in the order of their ids, U+2581 standing for a space.
        scores: Their unigram log-probabilities, float32 (pieces,).

    Raises:
        ValueError: The file is of another kind or version, or is cut off.
    """

    column, suffixes, padding = 1, (".w", ".b"), 1

    def __init__(self, path: Path):
        self._bytes = np.asarray(np.memmap(path, "uint8", "r"))
        self._place = 0
        if (magic := bytes(self._next(8))) != b"E5S1\1\0\0\0":
            raise ValueError(f"the file must start with b'E5S1' and version 1, got {magic!r}")
        names = ("hidden", "layers", "heads", "inner", "vocabulary", "positions", "types")
        self.sizes = dict(zip(names, self._numbers("7i"), strict=True))
        self._numbers("fi")  # epsilon 1e-12 and block size 32, the same in each file of version 1
        count, *_, blob = self._numbers("5iQ")  # the ids of <s> </s> <pad> <unk> are known
        ends = self._next(4 * (count + 1)).view("<u4")
        self.scores = self._next(4 * count).view("<f4").copy()
        text = bytes(self._next(blob))
        self.pieces = [text[start:end].decode() for start, end in pairwise(ends.tolist())]
        self._next(self._numbers("iI")[1])
        self._directory = dict(self._entry() for _ in range(*self._numbers("i")))

    def _next(self, count: int) -> NDArray[np.uint8]:
        """The next bytes of the file."""
        start, self._place = self._place, self._place + count
        if self._place > len(self._bytes):
            raise ValueError(
                f"the file is cut off: it has {len(self._bytes)} bytes and needs {self._place} or more"
            )
        return self._bytes[start : self._place]

    def _numbers(self, form: str) -> tuple[Any, ...]:
        """The next numbers of the file, in the notation of ``struct``."""
        return struct.unpack("<" + form, self._next(struct.calcsize("<" + form)))

    def _entry(self) -> tuple[str, tuple[bool, int, NDArray[np.uint8]]]:
        """The next entry of the directory: name → whether in 4 bits, number of weights, bytes."""
        name = bytes(self._next(*self._numbers("H"))).decode()
        kind, count, start, size = self._numbers("BIQQ")
        if start + size > len(self._bytes):
            raise ValueError(
                f"the file is cut off: it has {len(self._bytes)} bytes and needs {start + size} or more"
            )
        # The three tables have no ending of their own; here they get the one of all other weights.
        name = name if name.endswith(self.suffixes) else name + ".w"
        return name, (bool(kind), count, self._bytes[start : start + size])

    def read(self, name: str, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The tensor of this shape, or some rows of it."""
        if name not in self._directory:
            raise ValueError(f"the file has no tensor {name}")
        in_4_bits, count, stored = self._directory[name]
        if count != math.prod(shape):
            raise ValueError(f"the tensor {name} must have shape {shape}, got {count} weights")
        stored = stored.reshape(shape[0] if len(shape) > 1 else 1, -1)
        stored = stored if rows is None else stored[rows]
        tensor = dequantize(stored) if in_4_bits else stored.view("<f4").copy()
        return tensor.reshape(-1, *shape[1:])


def dequantize(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Weights from 4 bits each: a block of 18 bytes is a scale d and 32 numbers q in 0 to 15; a weight is (q − 8)d.

    The scale is float16. In the 16 bytes after it the low halves are the first 16 numbers, the high halves the
    others.

    Args:
        stored: Blocks, uint8 (..., 18 * blocks).

    Returns:
        Weights, float32 (..., 32 * blocks).

    Raises:
        ValueError: ``stored`` is not uint8 or does not consist of blocks of 18 bytes.

    Example:
        >>> scale = np.array([0.5], "<f2").view("uint8")
        >>> numbers = np.array([0x90] + 15 * [0x88], "uint8")  # the first is 0, the seventeenth 9, all others 8
        >>> dequantize(np.concatenate([scale, numbers]))[[0, 1, 16]]
        array([-4. ,  0. ,  0.5], dtype=float32)
    """
    stored = np.asarray(stored)
    if stored.dtype != np.uint8 or not stored.ndim or stored.shape[-1] % 18:
        raise ValueError(f"stored must be uint8 (..., 18 * blocks), got {stored.dtype} of shape {stored.shape}")
    blocks = stored.reshape(-1, 18)
    scale = blocks[:, :2].copy().view("<f2").astype("float32")
    numbers = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype("float32")
    return ((numbers - 8) * scale).reshape(*stored.shape[:-1], stored.shape[-1] // 18 * 32)


# --- text to ids ----------------------------------------------------------------------------------------------


def word_pieces(path: Path, length: int | None = None) -> Tokenizer:
    """The tokenizer of MiniLM, without the truncation at 128 tokens and the padding that its file switches on.

    ``encode_batch(texts)`` gives for each text, or pair of texts, its ``ids``, its segments ``type_ids``, its
    ``attention_mask``, and ``offsets``: where in the text each token starts and ends.

    Args:
        path: The file, ``tokenizer.json``.
        length: Tokens in each text, special tokens included: longer texts are cut, shorter ones padded. By
            default nothing is cut and all texts of a batch are padded to the longest.

    Raises:
        ValueError: ``length`` leaves no room for a token between [CLS] and [SEP].

    Example:
        >>> import tempfile, tokenizers
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = f"{folder.name}/tokenizer.json"
        >>> words = tokenizers.models.WordPiece({"[PAD]": 0, "[UNK]": 1, "a": 2, "##b": 3}, unk_token="[UNK]")
        >>> tokenizers.Tokenizer(words).save(path)
        >>> [text.ids for text in word_pieces(path).encode_batch(["ab", "a"])]
        [[2, 3], [2, 0]]
    """
    tokenizer = Tokenizer.from_file(os.fspath(path))
    if length is None:
        tokenizer.no_truncation()
    elif length < 3:
        raise ValueError(f"length must be at least 3, got {length}")
    else:
        tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return tokenizer


class Characters:
    """Text to ids of multilingual-e5-small, one id a character, as labelling characters needs it.

    Its own segmentation would join characters to words (北京 is a piece). Here a text c₁ … cₙ becomes
    <s> c₁ … cₙ </s>, so that the vector of cᵢ stands at place i, and padding follows. A character is looked up in
    its NFKC form. The ids are rows of a small table, for ``Encoder.from_e5(path, rows=characters.rows)``.

    Args:
        pieces: All pieces of the file, in the order of their ids.
        texts: Texts whose characters are to be kept; by default, all pieces of one character are (13,828, which
            take 21 MB of weights).

    Attributes:
        rows: Ids in the file of the kept pieces, int32 (vocabulary,): the special ones first.

    Raises:
        ValueError: ``pieces`` does not begin with <s> <pad> </s> <unk>; when called, ``texts`` is one text instead
            of a list, or a text does not fit into ``length``.

    Example:
        >>> characters = Characters(["<s>", "<pad>", "</s>", "<unk>", "北京", "京", "▁", "北", "C"])
        >>> characters.rows
        array([0, 1, 2, 3, 5, 6, 7, 8], dtype=int32)
        >>> characters(["北京 Ｃ", "鸭"])  # a wide C is a C; the last character is unknown
        array([[0, 6, 4, 5, 7, 2],
               [0, 3, 2, 1, 1, 1]], dtype=int32)
    """

    START, PADDING, END, UNKNOWN = range(4)

    def __init__(self, pieces: Sequence[str], texts: Iterable[str] | None = None):
        if list(pieces[:4]) != ["<s>", "<pad>", "</s>", "<unk>"]:
            raise ValueError(f"pieces must begin with <s> <pad> </s> <unk>, got {list(pieces[:4])}")
        kept = None if texts is None else {_piece(character) for text in texts for character in text}
        rows = [i for i, piece in enumerate(pieces) if len(piece) == 1 and (kept is None or piece in kept)]
        self.rows = np.array([*range(4), *rows], "int32")
        self._ids = {pieces[row]: i for i, row in enumerate(rows, start=4)}

    def __call__(self, texts: Sequence[str], length: int | None = None) -> NDArray[np.int32]:
        """Ids, int32 (texts, length); by default the length is that of the longest text, plus 2."""
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of texts, got the text {texts!r}")
        needed = max(map(len, texts), default=0) + 2
        length = needed if length is None else length
        if needed > length:
            raise ValueError(f"length must be at least {needed}, the longest text plus 2, got {length}")
        ids = np.full((len(texts), length), self.PADDING, "int32")
        for row, text in zip(ids, texts, strict=True):
            inner = (self._ids.get(_piece(character), self.UNKNOWN) for character in text)
            row[: len(text) + 2] = [self.START, *inner, self.END]
        return ids


def _piece(character: str) -> str:
    """The piece that stands for a character."""
    return "▁" if character.isspace() else unicodedata.normalize("NFKC", character)


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
