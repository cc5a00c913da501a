"""BERT: a stack of equal blocks that turns token ids into one vector a token.

An encoder is put together from its parts, so it is taken apart as easily. Of a pretrained ``bert``,
``Encoder(bert.embeddings, bert.blocks[:2])`` is the lower third with the same weights, and a list with other
blocks in some places is another model.

Source: Devlin et al. 2019 (arXiv 1810.04805).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np  # noqa: F401 (for the example)
from keras import ops, tree
from numpy.typing import ArrayLike

from .._arguments import non_negative_integer, positive_integer
from .._layers import all_layers
from .layers import EPSILON, Block, Embeddings, Seed, SelfAttention, _seeds, _valid_tokens
from .pretrained import AnyPath, E5File, SafetensorsFile, WeightsFile

__all__ = ["Encoder"]

Tensor = Any
Shape = tuple[int | None, ...]

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


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
        ValueError: ``embeddings`` or one of ``blocks`` is not a layer, ``padding`` no id; when called, as
            :class:`Embeddings` and :class:`SelfAttention`.

    Example:
        >>> bert = Encoder.from_sizes(vocabulary=10, hidden=8, layers=4, num_heads=2, inner=32)
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
        *,
        padding: int = 0,
        all_states: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(embeddings, keras.layers.Layer):
            raise ValueError(f"embeddings must be a Keras layer, got {embeddings!r}")
        self.embeddings, self.blocks = embeddings, all_layers("blocks", blocks)
        self.padding, self.all_states = non_negative_integer("padding", padding), bool(all_states)
        self.with_mask = _WithMask(dtype=self.dtype_policy)
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
            mask: True or 1 for tokens, False or 0 for padding, (batch, time).
            training: Whether to drop out.
        """
        states = [self.embeddings(ids, types=types, training=training)]
        if mask is None:
            mask = self.compute_mask(ids)
        else:
            states[0], mask = _valid_tokens(states[0], mask)
        for block in self.blocks:
            states.append(block(states[-1], mask=mask, training=training))
        states = [self.with_mask([state, mask]) for state in states[None if self.all_states else -1 :]]
        return states if self.all_states else states[0]

    def compute_output_shape(self, ids_shape: Shape, **_: Any) -> Shape | list[Shape]:
        """(batch, time, hidden), or with ``all_states`` a list of layers + 1 of them."""
        shape = self.embeddings.compute_output_shape(ids_shape)
        return [shape] * (len(self.blocks) + 1) if self.all_states else shape

    def compute_output_spec(
        self, ids: Any, types: Any = None, mask: Any = None, training: bool | None = None
    ) -> Any:
        """Shapes and dtypes, which carry a given mask as the vectors do."""
        states = super().compute_output_spec(ids, types=types, mask=mask, training=training)
        return states if mask is None else tree.map_structure(lambda state: self.with_mask([state, mask]), states)

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
        num_heads: int,
        inner: int,
        positions: int = 512,
        types: int = 2,
        dropout: float = 0.1,
        *,
        epsilon: float = EPSILON,
        seed: Seed = None,
        attention: Callable[..., Any] = SelfAttention,
        padding: int = 0,
    ) -> Encoder:
        """An encoder with random weights, normal with standard deviation 0.02 as in BERT.

        Args:
            vocabulary: Number of ids.
            hidden: Width of the vectors.
            layers: Number of blocks.
            num_heads: Number of attention heads, which divides ``hidden``.
            inner: Width of the feed-forward networks.
            positions: Longest sentence, in tokens.
            types: Number of segments.
            dropout: Rate of all dropout.
            epsilon: What all normalizations add to the variance.
            seed: Seed of the dropout, an int or a ``keras.random.SeedGenerator``, from which each place of it
                draws its own. The weights follow ``keras.utils.set_random_seed``.
            attention: Called once a block as ``attention(num_heads, dropout=..., seed=...)``.
            padding: The id of padding.

        Raises:
            ValueError: A size is no positive integer, ``layers`` is negative, ``num_heads`` does not divide
                ``hidden`` or ``padding`` is no id below ``vocabulary``.
        """
        if non_negative_integer("padding", padding) >= positive_integer("vocabulary", vocabulary):
            raise ValueError(f"padding must be an id below vocabulary = {vocabulary}, got {padding}")
        if positive_integer("hidden", hidden) % positive_integer("num_heads", num_heads):
            raise ValueError(f"num_heads must divide hidden = {hidden}, got {num_heads}")
        layers, inner = non_negative_integer("layers", layers), positive_integer("inner", inner)
        seeds = _seeds(seed, 2 * layers + 1)
        shared = {"dropout": dropout, "epsilon": epsilon}
        embeddings = Embeddings(vocabulary, hidden, positions, types, seed=seeds[-1], **shared)
        blocks = [
            Block(attention(num_heads, dropout=dropout, seed=own), inner, seed=other, **shared)
            for own, other in zip(seeds[:layers], seeds[layers:-1], strict=True)
        ]
        return cls(embeddings, blocks, padding=padding)

    @classmethod
    def from_pretrained(
        cls,
        path: AnyPath,
        *,
        num_heads: int | None = None,
        layers: int | None = None,
        rows: ArrayLike | None = None,
        **options: Any,
    ) -> Encoder:
        """MiniLM, or any other BERT of PyTorch, from safetensors; its pooler and heads are left out.

        Args:
            path: The folder with ``model.safetensors``, or the file itself, as in ``pretrained.SafetensorsFile``.
            num_heads: Number of attention heads, which no tensor tells; None takes that of ``config.json``.
            layers: How many of the blocks to take, from below; all by default.
            rows: Which rows of the table of words to keep, int (vocabulary,); all by default. Id i of the encoder
                is then id rows[i] of the file (see ``vocabulary.renumber``). Padding must be among them.
            **options: ``dropout``, ``seed`` and ``attention`` as in :meth:`from_sizes`.

        Raises:
            ValueError: As ``pretrained.SafetensorsFile``; ``layers`` or ``rows`` is out of range; a block has no
                place for a tensor.
        """
        return cls._from_file(SafetensorsFile(path, num_heads), layers, rows, options)

    @classmethod
    def from_e5(
        cls, path: AnyPath, *, layers: int | None = None, rows: ArrayLike | None = None, **options: Any
    ) -> Encoder:
        """multilingual-e5-small from its 4-bit file, dequantized to float32.

        Args:
            path: The file, ``e5-small-q4.bin``.
            layers: As in :meth:`from_pretrained`.
            rows: As in :meth:`from_pretrained`; padding is id 1 of the file. All 250,037 rows take 384 MB, those
                of ``vocabulary.Characters`` 21 MB or less, and only the rows asked for are read.
            **options: As in :meth:`from_pretrained`.

        Raises:
            ValueError: As ``pretrained.E5File`` and :meth:`from_pretrained`.
        """
        return cls._from_file(E5File(path), layers, rows, options)

    @classmethod
    def _from_file(
        cls, file: WeightsFile, layers: int | None, rows: ArrayLike | None, options: dict[str, Any]
    ) -> Encoder:
        arguments, kept = file.part(layers, rows)
        encoder = cls.from_sizes(**arguments, **options)
        encoder.build((None, None))
        file.fill(encoder, kept)
        return encoder


@_serializable
class _WithMask(keras.layers.Layer):
    """Hands on vectors, and lets them carry a mask: of [vectors, mask] the first."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0]

    def compute_mask(self, inputs: list[Tensor], previous_mask: Any = None) -> Tensor:  # noqa: ARG002
        return inputs[1]
