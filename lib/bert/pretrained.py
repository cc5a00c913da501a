"""Pretrained BERTs as files: their weights, and the ids of the texts they were trained on.

A file of weights says how large its model is and fills an encoder with its tensors, all of them or those of the
lower blocks and of some rows of the table of words. A text becomes ids as it did when the model was trained.

===============================  ========================================  ==================
model                            weights                                   text → ids
===============================  ========================================  ==================
MiniLM, and any BERT of PyTorch  :class:`SafetensorsFile`                  :func:`word_pieces`
multilingual-e5-small            :class:`E5File`, with :func:`dequantize`  :class:`Characters`
===============================  ========================================  ==================

:func:`renumber` turns the ids of a file into those of an encoder that has some of its rows. The encoder is
``lib.bert.Encoder``, or any other object with the names of its parts; no backend is needed here.

Source: MiniLM: Wang et al. 2020 (arXiv 2002.10957); multilingual-e5-small: Wang et al. 2024 (arXiv 2402.05672).
"""

from __future__ import annotations

import math
import os
import struct
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:  # both are loaded where a file is read: an encoder without pretrained weights needs neither
    from tokenizers import Tokenizer

__all__ = [
    "Characters",
    "E5File",
    "SafetensorsFile",
    "WeightsFile",
    "dequantize",
    "renumber",
    "word_pieces",
]

Path = str | os.PathLike[str]


# --- weights ----------------------------------------------------------------------------------------------------

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


class WeightsFile(ABC):
    """A file with the weights of a BERT.

    Attributes:
        sizes: The sizes that ``lib.bert.Encoder.from_sizes`` takes, by their names there.
        padding: The id of padding.
        column: Which of the two names of a tensor this format uses.
        suffixes: What the names of the first and second tensor of a layer end in.
    """

    sizes: dict[str, int]
    padding: int
    column: int
    suffixes: tuple[str, str]

    @abstractmethod
    def read(self, name: str, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The tensor of this name and shape, or some rows of it, float32.

        Raises:
            ValueError: The file has no such tensor, or one of another shape.
        """

    def part(self, layers: int | None, rows: ArrayLike | None) -> tuple[dict[str, int], NDArray[np.int64] | None]:
        """The sizes of an encoder that takes a part of this file, its id of padding, and the checked ``rows``.

        Args:
            layers: How many of the blocks to take, from below; None for all.
            rows: Rows of the table of words to take, int (vocabulary,), the padding among them; None for all.

        Returns:
            The arguments ``vocabulary``, ``layers``, ``padding`` and so on of ``Encoder.from_sizes``; the rows.

        Raises:
            ValueError: ``layers`` or ``rows`` is out of range, ``rows`` are no integers or lack the padding.
        """
        sizes = self.sizes | {"padding": self.padding}
        if layers is not None:
            if not 1 <= layers <= sizes["layers"]:
                raise ValueError(f"layers must lie in 1 to {sizes['layers']}, all that the file has, got {layers}")
            sizes["layers"] = layers
        if rows is not None:
            rows = _checked_rows(rows, sizes["vocabulary"], self.padding)
            sizes |= {"vocabulary": len(rows), "padding": int(np.argmax(rows == self.padding))}
        return sizes, rows

    def fill(self, encoder: Any, rows: NDArray[np.int64] | None = None) -> None:
        """Assigns the tensors to a built ``lib.bert.Encoder``, to the words the given rows only.

        Raises:
            ValueError: A tensor is missing or of another shape, or a block has no place for it.
        """
        for part, names in _EMBEDDINGS.items():
            self._fill(encoder.embeddings, part, names[self.column], rows if part == "words" else None)
        for i, block in enumerate(encoder.blocks):
            for part, names in _BLOCK.items():
                self._fill(block, part, names[self.column].format(i))

    def _fill(self, parent: Any, part: str, name: str, rows: NDArray[np.int64] | None = None) -> None:
        """Assigns to the layer ``part`` of a layer the tensors that the file has under ``name``."""
        try:
            layer = attrgetter(part)(parent)
        except AttributeError:
            raise ValueError(f"{parent!r} has no {part} for the tensor {name} of the file") from None
        for variable, suffix in zip(layer.weights, self.suffixes, strict=False):
            is_kernel = variable is getattr(layer, "kernel", None)  # stored (out, in)
            shape = tuple(variable.shape)[:: -1 if is_kernel else 1]
            shape = shape if rows is None else (self.sizes["vocabulary"], *shape[1:])
            value = self.read(name + suffix, shape, rows)
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


class SafetensorsFile(WeightsFile):
    """A BERT in safetensors, with PyTorch's names.

    Args:
        path: The file, such as ``model.safetensors`` of all-MiniLM-L6-v2.
        heads: Number of attention heads, which no tensor tells.

    Raises:
        ValueError: The file is no safetensors file, or lacks a tensor that tells a size.
    """

    column, suffixes, padding = 0, (".weight", ".bias"), 0

    def __init__(self, path: Path, heads: int):
        from safetensors import SafetensorError, safe_open

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


class E5File(WeightsFile):
    """multilingual-e5-small in one file: sizes, SentencePiece pieces with their scores, weights in 4 bits.

    All numbers are little-endian. In this order: the magic ``E5S1``, the version and the sizes; the pieces; a map
    of characters for normalisation, skipped here, since NFKC does the same for Chinese; a directory of tensors; the
    tensors, each float32 or in the blocks of :func:`dequantize`. The file is mapped into memory and only what is
    asked for is decoded.

    Used as ``Characters(E5File(path).pieces)`` and by ``Encoder.from_e5(path)``.

    Args:
        path: The file, ``e5-small-q4.bin``.

    Attributes:
        sizes: The sizes that ``Encoder.from_sizes`` takes, by their names there.
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


# --- ids -------------------------------------------------------------------------------------------------------


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
    from tokenizers import Tokenizer

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
