"""Pretrained BERTs as files: what they say of their model, and its weights.

A file says how large its model is and fills an encoder with its tensors, all of them or those of the lower blocks
and of some rows of the table of words. What the encoder does not compute is refused by name.

===============================  ========================================
model                            weights
===============================  ========================================
MiniLM, and any BERT of PyTorch  :class:`SafetensorsFile`
multilingual-e5-small            :class:`E5File`, with :func:`dequantize`
===============================  ========================================

The encoder is ``lib.bert.Encoder``, or any other object with the names of its parts; no backend is needed here.

Source: MiniLM: Wang et al. 2020 (arXiv 2002.10957); multilingual-e5-small: Wang et al. 2024 (arXiv 2402.05672).
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from abc import ABC, abstractmethod
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arguments import array_of, file_path, non_negative_integer, positive, positive_integer
from .vocabulary import padding_of

__all__ = ["E5File", "SafetensorsFile", "WeightsFile", "dequantize"]

AnyPath = str | os.PathLike[str]


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
_TABLES = ("words", "positions", "types")  # the parts of one tensor; all others have two


class WeightsFile(ABC):
    """A file with the weights of a BERT.

    Attributes:
        sizes: The sizes that ``lib.bert.Encoder.from_sizes`` takes, by their names there.
        padding: The id of padding.
        epsilon: What its layer normalizations add to the variance.
        column: Which of the two names of a tensor this format uses.
        suffixes: What the names of the first and second tensor of a layer end in.
    """

    sizes: dict[str, int]
    padding: int
    epsilon: float
    column: int
    suffixes: tuple[str, str]

    @abstractmethod
    def read(self, name: str, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The tensor of this name and shape, or some rows of it, float32.

        Raises:
            ValueError: The file has no such tensor, or one of another shape.
        """

    def part(self, layers: int | None, rows: ArrayLike | None) -> tuple[dict[str, Any], NDArray[np.int64] | None]:
        """The arguments of an encoder that takes a part of this file, and the checked ``rows``.

        Args:
            layers: How many of the blocks to take, from below; None for all.
            rows: Rows of the table of words to take, int (vocabulary,), the padding among them; None for all.

        Returns:
            The arguments of ``Encoder.from_sizes``: all sizes, ``epsilon`` and ``padding``; the rows.

        Raises:
            ValueError: ``layers`` or ``rows`` is out of range, ``rows`` are no integers or lack the padding.
        """
        arguments = self.sizes | {"epsilon": self.epsilon, "padding": self.padding}
        if layers is not None:
            if positive_integer("layers", layers) > self.sizes["layers"]:
                raise ValueError(
                    f"layers must lie in 1 to {self.sizes['layers']}, all that the file has, got {layers}"
                )
            arguments["layers"] = layers
        if rows is not None:
            rows = _checked_rows(rows, self.sizes["vocabulary"], self.padding)
            arguments |= {"vocabulary": len(rows), "padding": int(np.argmax(rows == self.padding))}
        return arguments, rows

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
        suffixes = self.suffixes[:1] if part in _TABLES else self.suffixes
        if len(layer.weights) != len(suffixes):
            raise ValueError(
                f"{layer!r} has {len(layer.weights)} weights for the {len(suffixes)} of {name} of the file"
            )
        for variable, suffix in zip(layer.weights, suffixes, strict=True):
            is_kernel = variable is getattr(layer, "kernel", None)  # stored (out, in)
            shape = tuple(variable.shape)[:: -1 if is_kernel else 1]
            shape = shape if rows is None else (self.sizes["vocabulary"], *shape[1:])
            value = self.read(name + suffix, shape, rows)
            variable.assign(value.T if is_kernel else value)


def _checked_rows(rows: ArrayLike, vocabulary: int, padding: int) -> NDArray[np.int64]:
    rows = array_of("rows", rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"rows must be integers of shape (vocabulary,), got {rows.dtype} of shape {rows.shape}")
    wrong = rows[(rows < 0) | (rows >= vocabulary)]
    if wrong.size:
        raise ValueError(f"rows must lie in 0 to {vocabulary - 1}, got {wrong[:5].tolist()}")
    if padding not in rows:
        raise ValueError(f"rows must contain {padding}, the id of padding, got {rows[:5].tolist()} …")
    return rows.astype("int64")


# --- PyTorch ----------------------------------------------------------------------------------------------------

# What config.json calls the sizes, and what else it may say of a model that the encoder computes.
_CONFIGURED = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "inner": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
_COMPUTED = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_PICKLED = re.compile(r"pytorch_model.*|.*\.(pt|pth|ckpt)")  # weights that only torch reads
_BUFFERS = {"embeddings.position_ids", "embeddings.token_type_ids"}  # 0, 1, 2 … and zeros: no weights


class SafetensorsFile(WeightsFile):
    """A BERT of PyTorch in safetensors: a file, or a folder with ``model.safetensors`` or its shards.

    The names of the tensors may all begin with that of a larger model, such as ``bert.``; its heads and the pooler
    are left aside. A layer normalization has ``weight`` and ``bias``, or ``gamma`` and ``beta``. Numbers of 16 or
    64 bits become float32.

    ``config.json`` beside the weights tells the heads and ε, and whatever else it tells must be what the tensors
    have and the encoder computes. Without it, ``num_heads`` must be given, and ε is 10⁻¹², that of the original.
    The vocabulary beside the weights, ``tokenizer.json`` or ``vocab.txt``, tells the id of padding; without it
    ``config.json`` does, or it is 0.

    Args:
        path: The folder, the file, or the index of the shards, ``model.safetensors.index.json``.
        num_heads: Number of attention heads, which no tensor tells; None takes that of ``config.json``.

    Raises:
        ValueError: There are no weights in safetensors at ``path``; a tensor of the encoder is missing, there twice
            or of another shape, or one is there that no BERT has; ``num_heads``, ``config.json`` or the vocabulary
            contradicts the tensors or one another; the model is of a kind that the encoder does not compute.

    Source: the names are those of https://github.com/huggingface/transformers.
    """

    column, suffixes = 0, (".weight", ".bias")

    def __init__(self, path: AnyPath, num_heads: int | None = None):
        path = _weights_of(file_path("path", path))
        self._tensors = _by_canonical_name(_opened(path))
        words, positions, types, inner = (
            self._shape(names[0].format(0) + ".weight")
            for names in (_EMBEDDINGS["words"], _EMBEDDINGS["positions"], _EMBEDDINGS["types"], _BLOCK["expand"])
        )
        blocks = {name.split(".")[2] for name in self._tensors if name.startswith("encoder.layer.")}
        self._refuse_others(blocks)
        self.sizes = {"vocabulary": words[0], "hidden": words[1], "layers": len(blocks)}
        self.sizes |= {"inner": inner[0], "positions": positions[0], "types": types[0]}
        config = _configuration(path.parent / "config.json")
        self.sizes["num_heads"] = self._heads(num_heads, config, path)
        self._check_sizes(config)
        self.epsilon = positive("layer_norm_eps of config.json", config.get("layer_norm_eps", 1e-12))
        self.padding = self._padding(config, path.parent)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._tensors:
            raise ValueError(f"the file has no tensor {name}")
        file, stored = self._tensors[name]
        return tuple(file.get_slice(stored).get_shape())

    def _refuse_others(self, blocks: set[str]) -> None:
        """Raises ValueError for a tensor that the encoder would leave out, such as one of relative positions."""
        layers = [*(names[0] for names in _EMBEDDINGS.values())]
        layers += [names[0].format(i) for names in _BLOCK.values() for i in blocks]
        known = {layer + suffix for layer in layers for suffix in self.suffixes} | _BUFFERS
        others = sorted(set(self._tensors) - known)
        if others:
            raise ValueError(f"the file must have the tensors of a BERT only, got {', '.join(others[:3])}")

    def _heads(self, heads: int | None, config: dict[str, Any], path: Path) -> int:
        told = config.get("num_attention_heads")
        if heads is None and told is None:
            raise ValueError(f"num_heads must be given, as no config.json beside {path.name} tells their number")
        heads = positive_integer("num_heads", told if heads is None else heads)
        if told is not None and heads != told:
            raise ValueError(f"num_heads must be {told!r}, as config.json tells, got {heads}")
        if self.sizes["hidden"] % heads:
            raise ValueError(f"num_heads must divide hidden = {self.sizes['hidden']}, got {heads}")
        return heads

    def _check_sizes(self, config: dict[str, Any]) -> None:
        for name, key in _CONFIGURED.items():
            if config.get(key, self.sizes[name]) != self.sizes[name]:
                raise ValueError(f"{key} of config.json must be {self.sizes[name]}, got {config[key]!r}")

    def _padding(self, config: dict[str, Any], folder: Path) -> int:
        told, written = config.get("pad_token_id"), padding_of(folder, self.sizes["vocabulary"])
        padding = next((one for one in (written, told) if one is not None), 0)
        if non_negative_integer("pad_token_id of config.json", padding) >= self.sizes["vocabulary"]:
            raise ValueError(f"padding must be an id below {self.sizes['vocabulary']}, got {padding}")
        return padding

    def read(self, name: str, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """The tensor of this shape, or some rows of it."""
        if self._shape(name) != shape:
            raise ValueError(f"the tensor {name} must have shape {shape}, got {self._shape(name)}")
        file, stored = self._tensors[name]
        kind = file.get_slice(stored).get_dtype()
        if kind not in ("F64", "F32", "F16", "BF16"):
            raise ValueError(f"the tensor {name} must hold floats of 16, 32 or 64 bits, got {kind}")
        if kind == "BF16":
            import ml_dtypes  # noqa: F401  its bfloat16 is known to NumPy from then on
        tensor = file.get_tensor(stored).astype("float32", copy=False)
        return tensor if rows is None else tensor[rows]


def _weights_of(path: Path) -> Path:
    """The file of weights, or the index of its shards, that a path names or has in it."""
    candidates = [path / "model.safetensors", path / "model.safetensors.index.json"] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file() and not _PICKLED.fullmatch(candidate.name):
            return candidate
    if not path.exists():
        raise ValueError(f"path must be a file or a folder, got {str(path)!r}, where there is none")
    there = sorted(file.name for file in path.iterdir()) if path.is_dir() else [path.name]
    advice = "; convert it: safetensors.torch.save_file(torch.load(file, weights_only=True), 'model.safetensors')"
    raise ValueError(
        f"path must have weights in safetensors, got {str(path)!r} with {there[:5]}"
        + (advice if any(map(_PICKLED.fullmatch, there)) else "")
    )


def _opened(path: Path) -> dict[str, Any]:
    """The names of all tensors, and the open file that each is in."""
    from safetensors import SafetensorError, safe_open

    shards = {path.name: None}
    if path.name.endswith(".index.json"):
        where = _json(path).get("weight_map")
        if not isinstance(where, dict) or not where or not all(isinstance(shard, str) for shard in where.values()):
            raise ValueError(f"{path} must name the file of each tensor in weight_map, got {where!r}")
        shards = {shard: {name for name in where if where[name] == shard} for shard in sorted({*where.values()})}
    tensors = {}
    for shard, wanted in shards.items():
        if not (path.parent / shard).is_file():
            raise ValueError(f"{path} names the file {shard}, which is not beside it")
        try:
            file = safe_open(path.parent / shard, framework="numpy")
        except SafetensorError as error:
            raise ValueError(f"{path.parent / shard} is not a safetensors file: {error}") from None
        names = set(file.keys())
        if wanted is not None and not wanted <= names:
            raise ValueError(f"{path.parent / shard} has no tensor {min(wanted - names)}, which {path.name} names")
        tensors |= dict.fromkeys(names if wanted is None else wanted, file)
    return tensors


def _by_canonical_name(tensors: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    """Name without a prefix → file and name there, for the tensors of the embeddings and blocks."""
    table = "embeddings.word_embeddings.weight"
    prefixes = sorted({name.removesuffix(table) for name in tensors if re.search(rf"(^|\.){table}$", name)})
    if len(prefixes) > 1:
        raise ValueError(f"the file must have one encoder, got those with the prefixes {prefixes}")
    prefix = prefixes[0] if prefixes else ""
    if "roberta" in prefix:
        raise ValueError(
            f"the tensors must be those of a BERT, got the prefix {prefix!r}: its positions start at 2"
        )
    found: dict[str, tuple[Any, str]] = {}
    for stored, file in tensors.items():
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", stored.removeprefix(prefix))
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if stored.startswith(prefix) and name.startswith(("embeddings.", "encoder.")):
            if name in found:
                raise ValueError(f"the file has the tensor {name} twice, as {found[name][1]} and as {stored}")
            found[name] = file, stored
    return found


def _configuration(path: Path) -> dict[str, Any]:
    """What a config.json tells, without what it leaves open; nothing if there is none."""
    config = {key: value for key, value in _json(path).items() if value is not None} if path.is_file() else {}
    for key, computed in _COMPUTED.items():
        if config.get(key, computed) != computed:
            raise ValueError(
                f"{key} of config.json must be {computed!r}, as the encoder has it, got {config[key]!r}"
            )
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must have a JSON object, got {content!r}")
    return content


# --- 4 bits -----------------------------------------------------------------------------------------------------


class E5File(WeightsFile):
    """multilingual-e5-small in one file: sizes, SentencePiece pieces with their scores, weights in 4 bits.

    All numbers are little-endian. In this order: the magic ``E5S1``, the version and the sizes; the pieces; a map
    of characters for normalization, skipped here, since NFKC does the same for Chinese; a directory of tensors; the
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

    def __init__(self, path: AnyPath):
        self._bytes = np.asarray(np.memmap(file_path("path", path), "uint8", "r"))
        self._place = 0
        if (magic := bytes(self._next(8))) != b"E5S1\1\0\0\0":
            raise ValueError(f"the file must start with b'E5S1' and version 1, got {magic!r}")
        names = ("hidden", "layers", "num_heads", "inner", "vocabulary", "positions", "types")
        self.sizes = dict(zip(names, self._numbers("7i"), strict=True))
        self.epsilon, block = self._numbers("fi")
        if block != 32:
            raise ValueError(f"the file must have blocks of 32 weights, got {block}")
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
    stored = array_of("stored", stored)
    if stored.dtype != np.uint8 or not stored.ndim or stored.shape[-1] % 18:
        raise ValueError(f"stored must be uint8 (..., 18 * blocks), got {stored.dtype} of shape {stored.shape}")
    blocks = stored.reshape(-1, 18)
    scale = blocks[:, :2].copy().view("<f2").astype("float32")
    numbers = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype("float32")
    return ((numbers - 8) * scale).reshape(*stored.shape[:-1], stored.shape[-1] // 18 * 32)
