"""Text as the ids of a pretrained BERT, as they were when it was trained.

============================  ====================
model                         text → ids
============================  ====================
MiniLM, and any BERT          :func:`word_pieces`
multilingual-e5-small         :class:`Characters`
============================  ====================

:func:`renumber` turns the ids of a file into those of an encoder that has some of its rows.

Source: Devlin et al. 2019 (arXiv 1810.04805), ``FullTokenizer`` of their code.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._arguments import array_of, file_path, items, positive_integer
from .alignment import SPECIAL

if TYPE_CHECKING:  # loaded where a vocabulary is read: an encoder without pretrained weights does not need it
    from tokenizers import Tokenizer

__all__ = ["Characters", "renumber", "word_pieces"]

AnyPath = str | os.PathLike[str]

_PADDING = ("[PAD]", "<pad>")


# --- pieces of words --------------------------------------------------------------------------------------------


def word_pieces(path: AnyPath, length: int | None = None, *, lower: bool | None = None) -> Tokenizer:
    r"""The tokenizer of MiniLM or another BERT, without a truncation or a padding that its file switches on.

    ``encode_batch(texts)`` gives for each text, or pair of texts, its ``ids``, its segments ``type_ids``, its
    ``attention_mask``, and ``offsets``: where in the text each token starts and ends.

    Args:
        path: ``tokenizer.json`` or ``vocab.txt``, with one piece a line, or the folder that has one of them.
        length: Tokens in each text, special tokens included: longer texts are cut, shorter ones padded. By
            default nothing is cut and all texts of a batch are padded to the longest.
        lower: Whether to lower-case and strip accents, which ``tokenizer.json`` tells, and for ``vocab.txt`` the
            file ``tokenizer_config.json`` beside it; if none does, it must be given.

    Raises:
        ValueError: There is no vocabulary at ``path``, or it has not the special tokens; ``length`` leaves no room
            for a token between [CLS] and [SEP]; ``lower`` is not told, or is told otherwise.

    Example:
        >>> import tempfile, pathlib
        >>> folder = tempfile.TemporaryDirectory()
        >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b"]
        >>> _ = pathlib.Path(folder.name, "vocab.txt").write_text("\n".join(pieces))
        >>> [text.ids for text in word_pieces(folder.name, lower=True).encode_batch(["AB", "a c"])]
        [[2, 4, 5, 3], [2, 4, 1, 3]]
    """
    if lower not in (None, True, False):
        raise ValueError(f"lower must be True, False or None, got {lower!r}")
    path = _vocabulary_file(file_path("path", path))
    if path is None:
        raise ValueError("path must be tokenizer.json, vocab.txt or a folder that has one of them")
    tokenizer = _from_list(path, lower) if path.suffix == ".txt" else _from_json(path, lower)
    padding = next((token for token in _PADDING if tokenizer.token_to_id(token) is not None), None)
    if padding is None:
        raise ValueError(f"{path} must have a token of padding, {' or '.join(_PADDING)}")
    tokenizer.no_truncation()
    if length is not None:
        if positive_integer("length", length) < 3:
            raise ValueError(f"length must be at least 3, got {length}")
        tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(padding), pad_token=padding)
    return tokenizer


def padding_of(folder: Path, rows: int) -> int | None:
    """The id of padding in the vocabulary beside a file of weights; None if there is no vocabulary.

    Args:
        folder: Where ``tokenizer.json`` or ``vocab.txt`` is looked for.
        rows: Rows of the table of words, which must suffice for all ids.

    Raises:
        ValueError: The vocabulary has more ids than that.
    """
    path = _vocabulary_file(folder)
    if path is None:
        return None
    ids = _ids_of_list(path) if path.suffix == ".txt" else _ids_of_json(path)
    if ids and max(ids.values()) >= rows:
        raise ValueError(
            f"{path} must have ids below {rows}, the rows of the table of words, got {max(ids.values())}"
        )
    return next((ids[token] for token in _PADDING if token in ids), None)


def _vocabulary_file(path: Path) -> Path | None:
    candidates = [path / "tokenizer.json", path / "vocab.txt"] if path.is_dir() else [path]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _ids_of_list(path: Path) -> dict[str, int]:
    """Pieces → ids, the numbers of their lines."""
    pieces = path.read_text(encoding="utf8").removesuffix("\n").split("\n")
    ids = {piece.rstrip("\r"): i for i, piece in enumerate(pieces)}
    if len(ids) < len(pieces):
        raise ValueError(f"{path} must have each piece once, got {len(pieces)} lines with {len(ids)} pieces")
    return ids


def _ids_of_json(path: Path) -> dict[str, int]:
    """Pieces → ids in the file of a tokenizer."""
    content = json.loads(path.read_text(encoding="utf8"))
    pieces = content["model"]["vocab"]
    ids = dict(pieces) if isinstance(pieces, dict) else {piece: i for i, (piece, _) in enumerate(pieces)}
    return ids | {token["content"]: token["id"] for token in content.get("added_tokens") or ()}


def _from_json(path: Path, lower: bool | None) -> Tokenizer:
    from tokenizers import Tokenizer

    if lower is not None:
        raise ValueError(f"lower must be left out: {path.name} tells how a text is normalized, got {lower!r}")
    try:
        return Tokenizer.from_file(os.fspath(path))
    except Exception as error:  # tokenizers raises no other class
        raise ValueError(f"{path} is not the file of a tokenizer: {error}") from None


def _from_list(path: Path, lower: bool | None) -> Tokenizer:
    """The tokenizer of the original BERT with these pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = _ids_of_list(path)
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in ids]
    if missing:
        raise ValueError(f"{path} must have the special tokens, got none called {' or '.join(missing)}")
    options = path.parent / "tokenizer_config.json"
    told = json.loads(options.read_text(encoding="utf8")) if options.is_file() else {}
    if lower is None and "do_lower_case" not in told:
        raise ValueError(f"lower must be given, as no tokenizer_config.json beside {path.name} tells it")
    lower = told.get("do_lower_case", lower) if lower is None else lower
    if lower is not told.get("do_lower_case", lower):
        raise ValueError(f"lower must be {told['do_lower_case']}, as tokenizer_config.json tells, got {lower!r}")
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.add_special_tokens([token for token in SPECIAL if token in ids])
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lower,
        strip_accents=told.get("strip_accents"),  # None strips them where it lower-cases
        handle_chinese_chars=told.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(*((token, ids[token]) for token in ("[SEP]", "[CLS]")))
    return tokenizer


# --- characters -------------------------------------------------------------------------------------------------


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
        pieces = _texts("pieces", pieces)
        if pieces[:4] != ["<s>", "<pad>", "</s>", "<unk>"]:
            raise ValueError(f"pieces must begin with <s> <pad> </s> <unk>, got {pieces[:4]}")
        kept = (
            None if texts is None else {_piece(character) for text in _texts("texts", texts) for character in text}
        )
        rows = [i for i, piece in enumerate(pieces) if len(piece) == 1 and (kept is None or piece in kept)]
        self.rows = np.array([*range(4), *rows], "int32")
        self._ids = {pieces[row]: i for i, row in enumerate(rows, start=4)}

    def __call__(self, texts: Sequence[str], length: int | None = None) -> NDArray[np.int32]:
        """Ids, int32 (texts, length); by default the length is that of the longest text, plus 2."""
        texts = _texts("texts", texts)
        needed = max(map(len, texts), default=0) + 2
        length = needed if length is None else positive_integer("length", length)
        if needed > length:
            raise ValueError(f"length must be at least {needed}, the longest text plus 2, got {length}")
        ids = np.full((len(texts), length), self.PADDING, "int32")
        for row, text in zip(ids, texts, strict=True):
            inner = (self._ids.get(_piece(character), self.UNKNOWN) for character in text)
            row[: len(text) + 2] = [self.START, *inner, self.END]
        return ids


def _texts(name: str, texts: Iterable[str]) -> list[str]:
    """A list of texts; raises ValueError if it is something else, as one text is."""
    if isinstance(texts, str):
        raise ValueError(f"{name} must be a list of texts, got the text {texts!r}")
    texts = items(name, texts)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{name} must be texts, got {text!r}")
    return texts


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
        ValueError: ``ids`` or ``rows`` are no integers, ``rows`` are not (vocabulary,), or an id is not among them.

    Example:
        >>> rows = np.unique([[101, 2023, 102], [101, 102, 0]])
        >>> rows
        array([   0,  101,  102, 2023])
        >>> renumber([[101, 2023, 102]], rows)
        array([[1, 3, 2]], dtype=int32)
    """
    ids, rows = array_of("ids", ids), array_of("rows", rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ValueError(f"rows must be integers of shape (vocabulary,), got {rows.dtype} of shape {rows.shape}")
    if ids.size and ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be integers, got {ids.dtype} of shape {ids.shape}")
    order = np.argsort(rows, kind="stable")
    places = np.searchsorted(rows, ids, sorter=order).clip(max=max(len(rows) - 1, 0))
    found = rows[order[places]] == ids if len(rows) else np.zeros(ids.shape, bool)
    if not found.all():
        raise ValueError(f"ids must be among rows, got {np.unique(ids[~found])[:5].tolist()}, which were not kept")
    return order[places].astype("int32") if len(rows) else np.zeros(ids.shape, "int32")
