"""Truths about ``lib.bert.pretrained``: files of weights fill the encoders of ``lib.bert``, on every backend."""

import math
import struct
import unicodedata
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from bert_files import BLOCK_NAMES, SIZES, pytorch_tensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numerics import array
from safetensors.numpy import load_file, save_file
from shared import require
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from lib.bert import (
    Characters,
    E5File,
    Encoder,
    SafetensorsFile,
    SelfAttention,
    WeightsFile,
    dequantize,
    renumber,
    word_pieces,
)
from lib.workbench import corpora

# An encoder is filled on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

IDS = np.array([[2, 5, 9, 7, 3], [2, 4, 3, 0, 0], [2, 19, 1, 3, 0]], "int32")


def all_states(encoder):
    return Encoder(encoder.embeddings, encoder.blocks, padding=encoder.padding, all_states=True)


# --- weights from files ---------------------------------------------------------------------------------------


def quantized(weights):
    """Bytes of rows of weights: per 32 of them a scale and 16 bytes of two numbers each."""
    out = b""
    for block in weights.reshape(-1, 32):
        scale = np.float16(abs(block).max() / 7 or 1)
        q = (np.round(block / scale).astype(int) + 8).clip(0, 15)
        out += scale.tobytes() + bytes(int(q[j] | q[j + 16] << 4) for j in range(16))
    return out


def slowly_dequantized(stored):
    """The weights of such bytes, one at a time."""
    weights = []
    for start in range(0, len(stored), 18):
        (scale,) = struct.unpack_from("<e", stored, start)
        halves = [(byte & 15, byte >> 4) for byte in stored[start + 2 : start + 18]]
        weights += [(low - 8) * scale for low, _ in halves] + [(high - 8) * scale for _, high in halves]
    return np.array(weights, "float32")


def e5_name(name):
    """PyTorch's name of a tensor as the 4-bit file has it."""
    tables = {"word_embeddings": "emb.word", "position_embeddings": "emb.pos", "token_type_embeddings": "emb.type"}
    *path, ending = name.split(".")
    if path[-1] in tables:
        return tables[path[-1]]
    stem = "emb.ln" if path[0] == "embeddings" else f"l{path[2]}.{BLOCK_NAMES['.'.join(path[3:])]}"
    return f"{stem}.{ending[0]}"


def e5_bytes(tensors, pieces=("<s>", "<pad>", "</s>", "<unk>", "▁", "北", "北京")):
    """A 4-bit file of a tiny BERT, and what its tensors are after rounding."""
    sizes = [SIZES[name] for name in ("hidden", "layers", "num_heads", "inner", "vocabulary", "positions", "types")]
    encoded = [piece.encode() for piece in pieces]
    ends = np.cumsum([0, *map(len, encoded)])
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, ends[-1])
    head += ends.astype("<u4").tobytes() + (-np.arange(len(pieces))).astype("<f4").tobytes() + b"".join(encoded)
    head += struct.pack("<iI", 1, 5) + b"\1\0\0\0\0"
    stored, rounded = {}, {}
    for name, tensor in tensors.items():
        in_4_bits = tensor.ndim == 2 and "position" not in name and "type" not in name
        stored[name] = (in_4_bits, tensor.size, quantized(tensor) if in_4_bits else tensor.tobytes())
        decoded = slowly_dequantized(stored[name][2]) if in_4_bits else tensor
        rounded[name] = decoded.reshape(tensor.shape)
    start = len(head) + 4 + sum(2 + len(e5_name(name)) + 21 for name in stored)
    head, body = head + struct.pack("<i", len(stored)), b""
    for name, (kind, count, content) in stored.items():
        short = e5_name(name).encode()
        head += struct.pack("<H", len(short)) + short
        head += struct.pack("<BIQQ", kind, count, start + len(body), len(content))
        body += content
    return head + body, rounded


@pytest.fixture
def safetensors_file(tmp_path):
    save_file(pytorch_tensors(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def e5_file(tmp_path):
    (tmp_path / "e5.bin").write_bytes(e5_bytes(pytorch_tensors())[0])
    return tmp_path / "e5.bin"


def assert_has(encoder, tensors, rows=slice(None)):
    """Each weight of the encoder is the tensor of its name, dense kernels transposed."""
    emb = encoder.embeddings
    np.testing.assert_array_equal(array(emb.words.embeddings), tensors["embeddings.word_embeddings.weight"][rows])
    np.testing.assert_array_equal(array(emb.positions.embeddings), tensors["embeddings.position_embeddings.weight"])
    np.testing.assert_array_equal(array(emb.types.embeddings), tensors["embeddings.token_type_embeddings.weight"])
    np.testing.assert_array_equal(array(emb.norm.gamma), tensors["embeddings.LayerNorm.weight"])
    np.testing.assert_array_equal(array(emb.norm.beta), tensors["embeddings.LayerNorm.bias"])
    for i, block in enumerate(encoder.blocks):
        own = block.attention
        parts = (own.query, own.key, own.value, own.project, block.attention_norm)
        parts += (block.expand, block.contract, block.norm)
        for part, name in zip(parts, BLOCK_NAMES, strict=True):
            weight = array(part.gamma) if "LayerNorm" in name else array(part.kernel).T
            bias = array(part.beta) if "LayerNorm" in name else array(part.bias)
            np.testing.assert_array_equal(weight, tensors[f"encoder.layer.{i}.{name}.weight"])
            np.testing.assert_array_equal(bias, tensors[f"encoder.layer.{i}.{name}.bias"])


def test_every_tensor_of_a_safetensors_file_finds_its_place(safetensors_file):
    encoder = Encoder.from_pretrained(safetensors_file, num_heads=4)
    assert_has(encoder, pytorch_tensors())
    assert (encoder.padding, len(encoder.blocks), encoder.blocks[0].attention.num_heads) == (0, 3, 4)


def test_every_tensor_of_a_4_bit_file_finds_its_place(e5_file):
    encoder = Encoder.from_e5(e5_file)
    assert_has(encoder, e5_bytes(pytorch_tensors())[1])
    assert (encoder.padding, len(encoder.blocks), encoder.blocks[0].attention.num_heads) == (1, 3, 4)


def test_a_file_says_the_sizes_of_its_encoder_whatever_its_format(safetensors_file, e5_file):
    for file, padding in [(SafetensorsFile(safetensors_file, num_heads=4), 0), (E5File(e5_file), 1)]:
        assert isinstance(file, WeightsFile)
        assert (file.sizes, file.padding) == (SIZES, padding)
        assert file.epsilon == pytest.approx(1e-12, rel=1e-6)
        told = SIZES | {"epsilon": file.epsilon, "padding": padding}
        assert file.part(None, None) == (told, None)
        arguments, rows = file.part(2, [7, 1, 0])
        assert arguments == told | {"layers": 2, "vocabulary": 3, "padding": [2, 1][padding]}
        assert rows.tolist() == [7, 1, 0]


def test_some_blocks_and_some_rows_can_be_taken(safetensors_file, e5_file):
    rows = np.array([7, 1, 0, 19, 7])
    for encoder, tensors, padding in [
        (Encoder.from_pretrained(safetensors_file, num_heads=4, layers=2, rows=rows), pytorch_tensors(), 0),
        (Encoder.from_e5(e5_file, layers=2, rows=rows), e5_bytes(pytorch_tensors())[1], 1),
    ]:
        assert (len(encoder.blocks), rows[encoder.padding]) == (2, padding)
        assert_has(encoder, tensors, rows)


def test_an_encoder_with_some_rows_computes_the_same(safetensors_file):
    whole = Encoder.from_pretrained(safetensors_file, num_heads=4)
    rows = np.unique(IDS)[::-1]
    some = Encoder.from_pretrained(safetensors_file, num_heads=4, rows=rows)
    np.testing.assert_allclose(array(some(renumber(IDS, rows))), array(whole(IDS)), atol=1e-6)


def test_dropout_seed_and_attention_can_be_chosen_when_loading(e5_file):
    encoder = Encoder.from_e5(e5_file, dropout=0.3, seed=1)
    assert {block.dropout.rate for block in encoder.blocks} == {0.3}
    assert encoder.embeddings.dropout.seed is not None

    class Other(SelfAttention):
        pass

    encoder = Encoder.from_e5(e5_file, attention=Other)
    assert isinstance(encoder.blocks[0].attention, Other)
    assert_has(encoder, e5_bytes(pytorch_tensors())[1])


@given(arrays("uint8", st.tuples(st.integers(0, 3), st.integers(0, 3).map(lambda n: 18 * n))))
def test_4_bit_blocks_decode_as_one_weight_at_a_time(stored):
    scales = stored.reshape(-1, 18)[:, 1]
    scales &= 0x7B  # a finite scale
    expected = slowly_dequantized(stored.tobytes()).reshape(len(stored), stored.shape[1] // 18 * 32)
    np.testing.assert_array_equal(dequantize(stored), expected)


@given(st.lists(st.integers(0, 10**6), min_size=1), st.data())
def test_renumbering_is_undone_by_the_rows(rows, data):
    ids = np.array(data.draw(st.lists(st.sampled_from(rows), min_size=1)))
    found = renumber(ids, rows)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.array(rows)[found], ids)


@pytest.mark.parametrize("rows", [[[5]], [5.0], [], ["5"], [True, False], None])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(ValueError, match="rows must be"):
        renumber([5], rows)


# --- text to ids ----------------------------------------------------------------------------------------------

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "北京", "京", "▁", "▁a", "北", "C", "é"]


@given(st.lists(st.text(max_size=8), max_size=4), st.integers(0, 3))
def test_every_character_has_one_id_between_start_and_end(texts, room):
    characters = Characters(PIECES)
    longest = max(map(len, texts), default=0)
    ids = characters(texts, longest + 2 + room)
    assert ids.shape == (len(texts), longest + 2 + room)
    for row, text in zip(ids, texts, strict=True):
        start, *inner, end = row[: len(text) + 2]
        assert (start, end) == (0, 2)
        assert (row[len(text) + 2 :] == 1).all()
        for character, i in zip(text, inner, strict=True):
            piece = unicodedata.normalize("NFKC", character) if not character.isspace() else "▁"
            assert i == 3 or PIECES[characters.rows[i]] == piece
            assert i != 3 or piece not in PIECES[4:] or len(piece) > 1


def test_only_the_characters_of_the_texts_are_kept():
    characters = Characters(PIECES, ["北 ", "Ｃ鸭"])
    assert [PIECES[row] for row in characters.rows] == [*PIECES[:4], "▁", "北", "C"]
    assert characters(["京北"]).tolist() == [[0, 3, 5, 2]]


# --- MiniLM ---------------------------------------------------------------------------------------------------


@cache
def reference():
    """Hidden states by transformers; how they were made is told in the script beside the file."""
    with np.load(Path(__file__).parent / "data" / "minilm_hidden_states.npz") as file:
        return dict(file)


REFERENCE_TEXTS = [
    "This film is wonderful.",
    "Café Müller à São Paulo naïvely résumé",
    "北京 is the capital of 中国",
    ("Who wrote it?", "Tokenization of antidisestablishmentarianism!"),
]


def file_of(name, suffix):
    """The path of a pretrained file; without it the test is skipped, with the reason."""
    try:
        return corpora.member(name, suffix)
    except corpora.CorpusError as error:
        require(False, f"{suffix} of {name} cannot be had: {error}")


def test_hidden_states_of_minilm_are_those_of_transformers():
    expected = reference()
    encoder = all_states(Encoder.from_pretrained(file_of("minilm", "model.safetensors"), num_heads=12))
    states = encoder(expected["ids"], types=expected["types"])
    assert encoder.count_params() == 22_565_376
    for found, state in zip(states, expected["states"], strict=True):
        difference = array(found)[..., ::8] - state
        assert abs(difference)[expected["mask"]].max() < 2e-5


def test_minilm_is_a_folder_whose_configuration_tells_its_heads():
    path = file_of("minilm", "config.json").parent
    file_of("minilm", "model.safetensors")
    assert Encoder.from_pretrained(path, layers=1).blocks[0].attention.num_heads == 12
    with pytest.raises(ValueError, match=r"num_heads must be 12, as config.json tells, got 6"):
        Encoder.from_pretrained(path, num_heads=6)


def test_the_lower_blocks_of_minilm_with_the_rows_of_its_texts_are_those_of_transformers():
    expected = reference()
    rows = np.unique(expected["ids"])
    encoder = Encoder.from_pretrained(file_of("minilm", "model.safetensors"), num_heads=12, layers=2, rows=rows)
    states = encoder(renumber(expected["ids"], rows), types=expected["types"])
    difference = array(states)[..., ::8] - expected["states"][2]
    assert abs(difference)[expected["mask"]].max() < 2e-5


def test_word_pieces_are_those_of_transformers():
    texts = word_pieces(file_of("minilm", "tokenizer.json")).encode_batch(REFERENCE_TEXTS)
    for name, field in [("ids", "ids"), ("types", "type_ids"), ("mask", "attention_mask")]:
        np.testing.assert_array_equal([getattr(text, field) for text in texts], reference()[name])


def test_word_pieces_are_cut_and_padded_only_as_asked():
    path = file_of("minilm", "tokenizer.json")
    assert len(word_pieces(path).encode("word " * 300)) == 302  # the file itself would cut at 128
    assert len(word_pieces(path).encode("word")) == 3
    short, long = word_pieces(path, 6).encode_batch(["word", "word " * 300])
    assert short.ids[3:] == [0, 0, 0]
    assert (len(long), long.ids[-1]) == (6, 102)
    assert short.offsets[1] == (0, 4)


# --- multilingual-e5-small ------------------------------------------------------------------------------------


@cache
def e5():
    return E5File(file_of("e5-small", "e5-small-q4.bin"))


def test_the_4_bit_file_decodes_as_an_independent_reader_has_it():
    path = file_of("e5-small", "e5-small-q4.bin")
    content = path.read_bytes()

    def numbers(form, place):
        return struct.unpack_from("<" + form, content, place)

    # Walk through the file by hand: the header has 44 bytes, then come the pieces.
    count, blob = numbers("i", 44)[0], numbers("Q", 64)[0]
    ends_at = 72
    scores_at = ends_at + 4 * (count + 1)
    text_at = scores_at + 4 * count
    for i in (0, 1, 2, 3, 4, 77777, count - 1):
        start, end = numbers("2I", ends_at + 4 * i)
        assert e5().pieces[i] == content[text_at + start : text_at + end].decode()
        assert e5().scores[i] == np.float32(numbers("f", scores_at + 4 * i)[0])
    assert (count, len(e5().pieces), len(e5().scores)) == (250_002,) * 3

    place = text_at + blob + 4
    place += 4 + numbers("I", place)[0]
    (tensors,), place = numbers("i", place), place + 4
    assert tensors == 197
    shapes = {"emb.word": (250_037, 384), "l0.q.w": (384, 384), "l11.fi.w": (1536, 384), "l5.fo.b": (384,)}
    seen = set()
    for _ in range(tensors):
        (length,) = numbers("H", place)
        name, place = content[place + 2 : place + 2 + length].decode(), place + 2 + length
        (kind, weights, start, size), place = numbers("BIQQ", place), place + 21
        if name not in shapes:
            continue
        seen.add(name)
        shape = shapes[name]
        assert weights == math.prod(shape)
        rows = np.array([0, 1, 5, shape[0] - 1]) if len(shape) > 1 else None
        found = e5().read(name if name != "emb.word" else "emb.word.w", shape, rows)
        if kind == 0:
            np.testing.assert_array_equal(found, numbers(f"{weights}f", start))
        else:
            width = size // shape[0]
            for row, weights_of_row in zip(rows, found, strict=True):
                stored = content[start + row * width : start + (row + 1) * width]
                np.testing.assert_array_equal(weights_of_row, slowly_dequantized(stored))
    assert seen == set(shapes)


def unigrams():
    """The segmentation that e5 was trained with: the most probable sequence of pieces."""
    vocabulary = list(zip(e5().pieces, e5().scores.astype(float).tolist(), strict=True))
    tokenizer = Tokenizer(models.Unigram(vocabulary, 3, False))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    return tokenizer


def test_similarities_of_e5_are_the_published_ones():
    texts = ["北京是中国的首都", "中国的首都是北京", "Beijing is the capital of China"]
    texts += ["这本书的作者是谁", "《红楼梦》是谁写的"]
    sentences = [[0, *text.ids, 2] for text in unigrams().encode_batch([f"query: {text}" for text in texts])]
    ids = np.full((len(texts), max(map(len, sentences))), 1)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = sentence
    rows = np.unique(ids)
    encoder = Encoder.from_e5(file_of("e5-small", "e5-small-q4.bin"), rows=rows)
    states, mask = array(encoder(renumber(ids, rows))), (ids != 1)[:, :, None]
    means = (states * mask).sum(axis=1) / mask.sum(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarities = means @ means.T
    assert similarities[0, 1] == pytest.approx(0.954, abs=5e-4)  # the same in other words
    assert similarities[0, 2] == pytest.approx(0.845, abs=5e-4)  # its translation
    assert similarities[3, 4] == pytest.approx(0.896, abs=5e-4)  # two questions for an author
    assert 0.7 < similarities[1:3, 3:].min() < similarities[1:3, 3:].max() < 0.9  # nothing in common


def test_the_pieces_of_e5_cover_chinese_characters():
    characters = Characters(e5().pieces)
    assert len(characters.rows) == 13_832
    chinese = [piece for piece in np.array(e5().pieces)[characters.rows[4:]] if "一" <= piece <= "鿿"]
    assert len(chinese) == 7_688
    ids = characters(["迈向充满希望的新世纪——１９９８年新年讲话"])
    assert 3 not in ids
    encoder = Encoder.from_e5(
        file_of("e5-small", "e5-small-q4.bin"), layers=1, rows=Characters(e5().pieces, ["新年"]).rows
    )
    assert tuple(encoder.embeddings.words.embeddings.shape) == (6, 384)


# --- errors ---------------------------------------------------------------------------------------------------


def written(path, content):
    path.write_bytes(content)
    return path


def resaved(path, tensors):
    save_file(tensors, path)
    return path


def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


QUERY = "encoder.layer.1.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"

ERRORS = {
    r"ids must be among rows, got \[3, 9\], which were not kept": lambda: renumber([[9, 1], [3, 3]], [1, 4]),
    r"rows must be integers of shape \(vocabulary,\), got float64 of shape \(0,\)": lambda: renumber([1], []),
    r"rows must be integers of shape \(vocabulary,\), got int64 of shape \(1, 2\)": lambda: renumber([1], [[1, 2]]),
    r"ids must be among rows, got \[1\], which were not kept": lambda: renumber([1], np.array([], int)),
    "ids must be integers, got float64 of shape \\(1,\\)": lambda: renumber([1.0], [1, 2]),
    "ids must be integers, got bool of shape \\(1,\\)": lambda: renumber([True], [1, 2]),
    r"stored must be uint8 \(..., 18 \* blocks\), got uint8 of shape \(20,\)": lambda: dequantize(
        np.zeros(20, "uint8")
    ),
    r"stored must be uint8 \(..., 18 \* blocks\), got float64 of shape \(18,\)": lambda: dequantize(np.zeros(18)),
    "pieces must begin with <s> <pad> </s> <unk>, got": lambda: Characters(["北", "京"]),
    "texts must be a list of texts, got the text '北京'": lambda: Characters(PIECES)("北京"),
    "length must be at least 4, the longest text plus 2, got 3": lambda: Characters(PIECES)(["北京"], 3),
    "length must be at least 3, got 2": lambda: word_pieces(file_of("minilm", "tokenizer.json"), 2),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_bad_argument_is_named(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()


class Nothing(keras.layers.Layer):
    """An attention without any weights."""

    def __init__(self, heads, dropout, seed):  # noqa: ARG002
        super().__init__()


class WithoutBias(SelfAttention):
    """An attention that has no place for the bias of the queries."""

    def build(self, x_shape):
        super().build(x_shape)
        self.query = keras.layers.Dense(x_shape[-1], use_bias=False)
        self.query.build(x_shape)


FILE_ERRORS = {
    r"has 1 weights for the 2 of (l0.q|encoder.layer.0.attention.self.query) of the file": {
        "attention": WithoutBias
    },
    "layers must be a positive integer, got 0": {"layers": 0},
    "layers must be a positive integer, got True": {"layers": True},
    "layers must lie in 1 to 3, all that the file has, got 4": {"layers": 4},
    r"rows must be integers of shape \(vocabulary,\), got float64 of shape \(2,\)": {"rows": [0.0, 1.0]},
    r"rows must be integers of shape \(vocabulary,\), got int64 of shape \(1, 2\)": {"rows": [[0, 1]]},
    r"rows must lie in 0 to 19, got \[-1, 20\]": {"rows": [0, -1, 1, 20]},
    "rows must contain [01], the id of padding, got": {"rows": [5, 6]},
    r"has no attention.query for the tensor (l0.q|encoder.layer.0.attention.self.query) of the file": {
        "attention": Nothing
    },
}


@pytest.mark.parametrize("message", FILE_ERRORS)
def test_a_wrong_choice_from_a_file_is_named(message, safetensors_file, e5_file):
    with pytest.raises(ValueError, match=message):
        Encoder.from_e5(e5_file, **FILE_ERRORS[message])
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(safetensors_file, num_heads=4, **FILE_ERRORS[message])


def test_a_file_of_another_kind_is_refused(e5_file, safetensors_file):
    content = e5_file.read_bytes()
    for wrong in (b"GGUF" + content[4:], content[:4] + struct.pack("<I", 2) + content[8:]):
        with pytest.raises(ValueError, match="the file must start with b'E5S1' and version 1, got b'"):
            E5File(written(e5_file.with_name("wrong.bin"), wrong))
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Encoder.from_pretrained(e5_file)
    with pytest.raises(ValueError, match="the file must start with b'E5S1' and version 1, got b'"):
        Encoder.from_e5(safetensors_file)


def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut(e5_file):
    content = e5_file.read_bytes()
    for size in (1, 6, 30, 44, 60, 75, 90, 115, 130, 140, len(content) // 2, len(content) - 1):
        with pytest.raises(ValueError, match=f"the file is cut off: it has {size} bytes"):
            E5File(written(e5_file.with_name("cut.bin"), content[:size]))


@pytest.mark.parametrize("name", [QUERY, WORDS])
def test_a_missing_tensor_is_named(name, tmp_path):
    tensors = without(pytorch_tensors(), name)
    with pytest.raises(ValueError, match=f"the file has no tensor {name}"):
        Encoder.from_pretrained(resaved(tmp_path / "model.safetensors", tensors), num_heads=4)
    short = {QUERY: "l1.q.w", WORDS: "emb.word"}[name]
    with pytest.raises(ValueError, match=f"the file has no tensor {short}"):
        Encoder.from_e5(written(tmp_path / "e5.bin", e5_bytes(tensors)[0]))


def test_a_tensor_of_another_shape_is_named(tmp_path):
    tensors = pytorch_tensors() | {QUERY: np.zeros((32, 64), "float32")}
    with pytest.raises(ValueError, match=rf"the tensor {QUERY} must have shape \(32, 32\), got \(32, 64\)"):
        Encoder.from_pretrained(resaved(tmp_path / "model.safetensors", tensors), num_heads=4)
    with pytest.raises(ValueError, match=r"the tensor l1.q.w must have shape \(32, 32\), got 2048 weights"):
        Encoder.from_e5(written(tmp_path / "e5.bin", e5_bytes(tensors)[0]))


def test_the_whole_file_of_minilm_is_used():
    names = set(load_file(file_of("minilm", "model.safetensors")))
    left = {name for name in names if not name.startswith(("embeddings.", "encoder.layer."))}
    assert left == {"pooler.dense.weight", "pooler.dense.bias"}
