"""Truths about ``lib.bert.word_pieces``: a list of pieces makes the tokenizer of the original BERT."""

import json

import pytest
from shared import require
from tokenizers import BertWordPieceTokenizer, Tokenizer, models

from lib.bert import word_pieces
from lib.bert.vocabulary import padding_of
from lib.workbench import corpora

PIECES = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "cafe", "##s", "café", "Café", "北", "京", "北京", "!"]
TEXTS = ["Cafés! 北京", "cafe", ("CAFÉ [MASK]", "s cafes")]


def list_in(path, pieces=PIECES, **options):
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")
    if options:
        (path / "tokenizer_config.json").write_text(json.dumps(options))
    return path


def fields(tokenizer, texts=TEXTS):
    return [(text.ids, text.type_ids, text.offsets) for text in tokenizer.encode_batch(texts)]


@pytest.mark.parametrize(
    "options",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "tokenize_chinese_chars": False},
    ],
)
def test_a_list_of_pieces_reads_as_the_tokenizer_of_bert(options, tmp_path):
    path = list_in(tmp_path, **options)
    other = BertWordPieceTokenizer(
        {piece: i for i, piece in enumerate(PIECES)},
        lowercase=options["do_lower_case"],
        strip_accents=options.get("strip_accents"),
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
    )
    other.enable_padding(pad_id=3)
    assert fields(word_pieces(path)) == fields(word_pieces(path / "vocab.txt")) == fields(other)
    other.enable_padding(pad_id=3, length=5)
    other.enable_truncation(5)
    assert fields(word_pieces(str(path), 5)) == fields(other)


def test_the_list_of_minilm_reads_as_its_tokenizer():
    try:
        pieces, whole = (corpora.member("minilm", name) for name in ("vocab.txt", "tokenizer.json"))
        text = corpora.read("moby-dick", "data.txt").decode()[:20_000].split("\n")
    except corpora.CorpusError as error:
        require(False, f"MiniLM cannot be had: {error}")
    assert fields(word_pieces(pieces, lower=True), text) == fields(word_pieces(whole), text)


def test_padding_has_the_id_of_its_token(tmp_path):
    file = str(tmp_path / "tokenizer.json")
    for token in ("[PAD]", "<pad>"):
        pieces = {"a": 0, token: 1, "##a": 2, "[UNK]": 3}
        Tokenizer(models.WordPiece(pieces, unk_token="[UNK]")).save(file)
        assert [text.ids for text in word_pieces(tmp_path).encode_batch(["aa", "a"])] == [[0, 2], [0, 1]]
        assert padding_of(tmp_path, rows=4) == 1
        with pytest.raises(ValueError, match=r"must have ids below 3, the rows of the table of words, got 3"):
            padding_of(tmp_path, rows=3)
    Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(file)
    assert padding_of(tmp_path, rows=4) is padding_of(tmp_path / "none", rows=4) is None
    with pytest.raises(ValueError, match=r"tokenizer.json must have a token of padding, \[PAD\] or <pad>"):
        word_pieces(file)


def test_a_file_of_a_tokenizer_comes_before_a_list(tmp_path):
    list_in(tmp_path, do_lower_case=True)
    file = tmp_path / "tokenizer.json"
    Tokenizer(models.WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(file))
    assert word_pieces(tmp_path).encode("cafe").ids == [1]
    with pytest.raises(ValueError, match=r"lower must be left out: tokenizer.json tells .*, got True"):
        word_pieces(tmp_path, lower=True)
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json is not the file of a tokenizer"):
        word_pieces(tmp_path)


def test_a_vocabulary_that_does_not_tell_all_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"path must be tokenizer.json, vocab.txt or a folder"):
        word_pieces(tmp_path)
    with pytest.raises(ValueError, match=r"lower must be given, as no tokenizer_config.json beside"):
        word_pieces(list_in(tmp_path))
    assert fields(word_pieces(tmp_path, lower=False)) != fields(word_pieces(tmp_path, lower=True))
    with pytest.raises(ValueError, match=r"lower must be True, as tokenizer_config.json tells, got False"):
        word_pieces(list_in(tmp_path, do_lower_case=True), lower=False)
    with pytest.raises(ValueError, match=r"must have the special tokens, got none called \[UNK\] or \[SEP\]"):
        word_pieces(list_in(tmp_path, ["[CLS]", "[PAD]"]))
    with pytest.raises(ValueError, match=r"must have each piece once, got 14 lines with 13 pieces"):
        word_pieces(list_in(tmp_path, [*PIECES, "cafe"]))
    for length in (2.5, True, 0):
        with pytest.raises(ValueError, match=f"length must be a positive integer, got {length}"):
            word_pieces(list_in(tmp_path), length)
