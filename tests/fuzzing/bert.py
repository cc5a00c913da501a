"""Cases of `lib.bert`: layers in NumPy, texts by the `tokenizers` library, weights of 4 bits one by one."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from bert_files import SIZES, hidden_states, pytorch_tensors
from hypothesis import strategies as st
from keras import ops
from scipy import stats

from fuzzing.attention import softmax, wide
from fuzzing.cases import (
    NO_COUNT,
    NO_INTEGER,
    NO_LAYER,
    NO_MASK,
    NO_NUMBER,
    NO_SEED,
    NO_TENSOR,
    NO_TEXT,
    NOT_POSITIVE,
    NOT_SEEN,
    Case,
    always,
    deeper,
    flatter,
    longer,
    plus,
)
from fuzzing.values import arrays, integers, masks, sizes
from lib import bert

# --- layers -------------------------------------------------------------------------------------------------------


def lively(layer: Any, seed: int) -> dict[str, np.ndarray]:
    """Weights far from their start, by the end of their paths."""
    rng, found = np.random.default_rng(seed), {}
    for weight in layer.trainable_weights:
        weight.assign(rng.standard_normal(weight.shape) * 0.5 + (weight.name == "gamma"))
        found["/".join(weight.path.split("/")[-2:])] = ops.convert_to_numpy(weight).astype("float64")
    return found


def normalized(x: Any, gamma: Any, beta: Any, epsilon: float = 1e-12) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) + beta


@st.composite
def ids(draw: st.DrawFn) -> dict[str, Any]:
    """Ids and segments, of any type that holds them."""
    shape = draw(sizes(1, 3)), draw(sizes(1, 4))
    types = draw(st.none() | integers(shape, 0, 1))
    given = draw(integers(shape, 0, 6)).astype(draw(st.sampled_from(["int32", "int64", "uint8", "float32"])))
    return {"ids": given, "types": types, "seed": draw(st.integers(0, 99))}


def embedded(ids: Any, types: Any, seed: Any, **options: Any) -> tuple:
    """Vectors, and how far they are from the sum of three rows, normalized."""
    options = {"vocabulary": 7, "hidden": 3, "positions": 4, "epsilon": 1e-3, **options}
    layer = bert.Embeddings(seed=seed, **options)
    layer.build((None, None))
    weights = [w.astype("float64") for w in (lively(layer, 0), layer.get_weights())[1]]
    found = ops.convert_to_numpy(layer(ids, types))
    tables = {tuple(w.shape): w for w in weights}
    words, places, segments = tables[7, 3], tables[4, 3], tables[2, 3]
    gamma, beta = (ops.convert_to_numpy(w).astype("float64") for w in (layer.norm.gamma, layer.norm.beta))
    x = words[ids.astype(int)] + places[: ids.shape[1]] + segments[0 if types is None else types.astype(int)]
    return (np.abs(found - normalized(x, gamma, beta, 1e-3)).max(),)


@st.composite
def vectors(draw: st.DrawFn) -> dict[str, Any]:
    """Vectors and a mask; what is masked may be NaN."""
    batch, time = draw(sizes(1, 2)), draw(sizes(1, 4))
    x, mask = draw(arrays((batch, time, 4), scales=(1.0, 0.0, 10.0))), draw(masks(batch, time))
    if mask is not None:
        mask[:, draw(st.integers(0, time - 1))] = 1  # a text of padding alone has no definition
    return {"x": x, "mask": mask, "num_heads": draw(st.sampled_from([1, 2, 4])), "seed": draw(st.integers(0, 99))}


def attended(x: Any, mask: Any, num_heads: Any, seed: Any, **options: Any) -> float:
    """How far attention is from its definition."""
    layer = bert.SelfAttention(num_heads, seed=seed, **options)
    layer.build(x.shape)
    lively(layer, 0)
    found = ops.convert_to_numpy(layer(x, mask=mask))
    return float(np.abs(found - of_attention(layer, x, mask, num_heads)).max())


def of_attention(layer: Any, x: Any, mask: Any, num_heads: int) -> np.ndarray:
    q, k, v = (
        dense(getattr(layer, name), x).reshape(*x.shape[:2], num_heads, -1) for name in ("query", "key", "value")
    )
    out = softmax(q, k, v, mask, False)
    return dense(layer.project, out.reshape(x.shape))


def dense(layer: Any, x: Any) -> np.ndarray:
    W, b = (ops.convert_to_numpy(w).astype("float64") for w in layer.weights)
    return wide(x)[0] @ W + b


def block_of(x: Any, mask: Any, attention: Any, num_heads: Any, seed: Any, inner: Any = 3, **options: Any) -> float:
    """How far a block is from its definition."""
    attention = bert.SelfAttention(num_heads) if attention is None else attention
    layer = bert.Block(attention, inner, seed=seed, **options)
    layer.build(x.shape)
    lively(layer, 0)
    found = ops.convert_to_numpy(layer(x, mask=mask))
    y = x + of_attention(attention, x, mask, num_heads)
    y = normalized(y, *norm(layer.attention_norm))
    hidden = dense(layer.expand, y)
    y = normalized(y + dense(layer.contract, hidden * stats.norm.cdf(hidden)), *norm(layer.norm))
    return float(np.abs(found - y).max())


def norm(layer: Any) -> tuple:
    return tuple(ops.convert_to_numpy(w).astype("float64") for w in (layer.gamma, layer.beta))


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """Vectors, and what to look for."""
    batch, time, hidden = draw(sizes(1, 2)), draw(sizes(1, 3)), draw(sizes(2, 4))
    x = draw(arrays((batch, time, hidden), scales=(1.0, 100.0)))
    return {"x": x, "condition": draw(arrays((batch, draw(sizes(1, 3))), scales=(1.0,)))}


def conditioned(x: Any, condition: Any) -> float:
    layer = bert.ConditionalLayerNormalization()
    layer.build(np.shape(x), np.shape(condition))
    lively(layer, 0)
    found = ops.convert_to_numpy(layer(x, condition))
    W = ops.convert_to_numpy(layer.shift.kernel).astype("float64")
    both = np.asarray(condition, "float64") @ W
    scale, shift = np.split(both[:, None], 2, axis=-1)
    gamma, beta = norm(layer)
    return float(np.abs(found - normalized(np.asarray(x, "float64"), gamma + scale, beta + shift)).max())


# --- files --------------------------------------------------------------------------------------------------------


@cache
def folder() -> Path:
    """A tiny BERT: weights, configuration and vocabulary."""
    from safetensors.numpy import save_file

    _KEPT.append(place := tempfile.TemporaryDirectory())
    path = Path(place.name)
    save_file(pytorch_tensors(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"num_attention_heads": 4, "pad_token_id": 0}))
    (path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf8")
    return path


_KEPT: list[Any] = []
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "b",
    "##a",
    "##b",
    "ab",
    "##ab",
    "e",
    "##e",
    "中",
    ",",
    "1",
    "##1",
]


@st.composite
def padded(draw: st.DrawFn) -> dict[str, Any]:
    """Ids of a tiny BERT, behind which is padding, and the rows that are kept."""
    batch, time = draw(sizes(1, 2)), draw(sizes(1, 5))
    found = draw(integers((batch, time), 1, SIZES["vocabulary"] - 1)).astype("int32")
    valid = np.arange(time) < np.array([draw(st.integers(1, time)) for _ in range(batch)])[:, None]
    found = np.where(valid, found, 0)
    rows = draw(st.sampled_from([None, np.unique(np.append(found, 0))]))
    num_heads = draw(st.sampled_from([None, 4]))
    return {"path": "folder", "ids": found, "rows": rows, "num_heads": num_heads, "layers": None}


def encoded(path: Any, ids: Any, rows: Any, **options: Any) -> Any:
    """Vectors at the tokens, 0 at padding."""
    encoder = bert.Encoder.from_pretrained(folder() if path == "folder" else path, rows=rows, **options)
    own = ids if rows is None else bert.renumber(ids, rows)
    return ops.convert_to_numpy(encoder(own)) * (ids != 0)[..., None]


def by_numpy(ids: Any, **_: Any) -> np.ndarray:
    return hidden_states(pytorch_tensors(), ids, ids != 0) * (ids != 0)[..., None]


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes of an encoder."""
    heads = draw(sizes(1, 2))
    return {
        "vocabulary": draw(sizes(1, 5)),
        "hidden": heads * draw(sizes(1, 2)),
        "layers": draw(sizes(0, 2)),
        "num_heads": heads,
        "inner": draw(sizes(1, 3)),
        "positions": draw(sizes(1, 4)),
        "types": draw(sizes(1, 2)),
        "dropout": 0.5,
        "padding": 0,
        "seed": 0,
        "epsilon": 1e-6,
    }


def weights_in(**given: Any) -> int:
    encoder = bert.Encoder.from_sizes(**given)
    encoder.build((None, None))
    assert isinstance(encoder.blocks, list)
    return encoder.count_params()


def weights_of(vocabulary: int, hidden: int, layers: int, inner: int, positions: int, types: int, **_: Any) -> int:
    of_block = 4 * (hidden + 1) * hidden + (hidden + 1) * inner + (inner + 1) * hidden + 4 * hidden
    return (vocabulary + positions + types + 2) * hidden + layers * of_block


def encoder_of(embeddings: Any, blocks: Any, padding: Any) -> bool:
    """Whether an encoder can be made of these."""
    embeddings = bert.Embeddings(5, 4) if embeddings is None else embeddings
    return isinstance(bert.Encoder(embeddings, blocks, padding=padding), bert.Encoder)


def of_blocks(stored: Any) -> np.ndarray:
    """Weights one by one."""
    found = []
    for block in np.asarray(stored).reshape(-1, 18):
        scale = float(np.frombuffer(block[:2].tobytes(), "<f2")[0])
        found += [scale * ((byte >> shift & 15) - 8) for shift in (0, 4) for byte in block[2:].tolist()]
    return np.array(found, float).reshape(*np.shape(stored)[:-1], np.shape(stored)[-1] // 18 * 32)


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    """Blocks of 18 bytes whose scales are numbers."""
    count = draw(st.sampled_from([(1,), (2, 1), (2, 3), (0, 1)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    bytes_ = rng.integers(0, 256, (*count, 18), dtype="uint8")
    bytes_[..., :2] = rng.standard_normal(count).astype("<f2")[..., None].view("uint8").reshape(*count, 2)
    return {"stored": bytes_.reshape(*count[:-1], 18 * count[-1])}


# --- text ---------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("aAbBeEé1 ,中\t\u0301\u0000İΣ-ﬁ한"), max_size=8)


def codes(text: str) -> list[int]:
    return [*map(ord, text)]


def normalized_text(text: Any, lower: Any, strip_accents: Any) -> tuple:
    """The text; whether origins rise and each character is that of its origin."""
    found = bert.normalize(text, lower=lower, strip_accents=strip_accents)
    assert isinstance(found, bert.Normalized)
    rises = all(0 <= a < b <= len(text) for a, b in zip(found.origins, found.ends, strict=True))
    return np.array(codes(found.text)), rises and list(found.origins) == sorted(found.origins)


def by_library(text: str, lower: bool, strip_accents: bool) -> tuple:
    from tokenizers import normalizers

    made = normalizers.BertNormalizer(handle_chinese_chars=False, lowercase=lower, strip_accents=strip_accents)
    return np.array(codes(made.normalize_str(text))), True


@cache
def tokenizer() -> Any:
    return bert.word_pieces(folder(), lower=True)


def aligned(text: Any, tokens: Any, **options: Any) -> list:
    """Spans of the tokens, −1 for none."""
    tokens = (
        tokenizer().encode(text).tokens
        if tokens == "own" and isinstance(text, str)
        else ["a"]
        if tokens == "own"
        else tokens
    )
    return [np.array(span or (-1, -1)) for span in bert.align(text, tokens, **options)]


def offsets(text: str, tokens: Any, special: Any) -> list:  # noqa: ARG001
    """As the library tells them, with the marks that are dropped behind a letter."""
    found = tokenizer().encode(text)
    spans = []
    for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
        while token not in ("[CLS]", "[SEP]") and end < len(text) and text[end] == "\u0301":
            end += 1
        spans.append(np.array((-1, -1) if token in special else (start, end)))
    return spans


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
    """Spans of tokens in order, some without characters, and a range."""
    found: list[Any] = []
    end = 0
    for _ in range(draw(sizes(1, 5))):
        start = end + draw(st.integers(0, 2))
        end = start + draw(st.integers(0, 3))
        found.append(draw(st.sampled_from([(start, end), None])))
    start = draw(st.integers(0, len(found) - 1))
    return {"spans": found, "start": start, "end": draw(st.integers(start + 1, len(found)))}


def covering(spans: Any, start: int, end: int) -> tuple[int, int]:
    wanted = {*range(start, end)}
    found = [i for i, span in enumerate(spans) if span is not None and wanted & {*range(*span)}]
    return (found[0], found[-1] + 1) if found else (-1, -1)


def covered(spans: Any, start: int, end: int) -> tuple[int, int]:
    places = [place for span in spans[start:end] if span is not None for place in range(*span)]
    return (min(places), max(places) + 1) if places else (-1, -1)


def or_none(function: Any) -> Any:
    def called(**given: Any) -> tuple[int, int]:
        return function(**given) or (-1, -1)

    called.__name__ = function.__name__
    return called


def characters(texts: Any, length: Any, pieces: Any) -> Any:
    return bert.Characters(pieces)(texts, length)


def looked_up(texts: Any, length: Any, pieces: Any) -> np.ndarray:
    import unicodedata

    single = [*pieces[:4], *(piece for piece in pieces[4:] if len(piece) == 1)]
    width = max([len(text) + 2 for text in texts], default=2) if length is None else length
    found = np.ones((len(texts), width))
    for row, text in zip(found, texts, strict=True):
        forms = ["▁" if c.isspace() else unicodedata.normalize("NFKC", c) for c in text]
        row[: len(text) + 2] = [0, *(single.index(c) if c in single[4:] else 3 for c in forms), 2]
    return found


@st.composite
def renumbered(draw: st.DrawFn) -> dict[str, Any]:
    """Rows in any order, and some of them."""
    rows = np.array(draw(st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=5)))
    chosen = draw(st.lists(st.sampled_from(rows.tolist()), max_size=6))
    shape = draw(st.sampled_from([(-1,), (1, -1)])) if chosen else (0,)
    return {"ids": np.array(chosen, int).reshape(shape), "rows": rows}


VECTORS = {
    "x": tuple(w for w in (*NO_TENSOR[1:], flatter, deeper) if w not in NOT_SEEN),
    "mask": (*(w for w in NO_MASK if w not in NOT_SEEN), longer(1)),
}
NO_DROPOUT = (*NO_NUMBER, always(-0.5), always(1.5))
NO_SPANS = tuple(map(always, (None, 3, "ab", [3], [(1,)], [("a", "b")], [(0, 1, 2)], [(0.5, 1)])))
NO_RANGE = tuple(map(always, (None, "1", 1.5, True, -1)))
NO_PATH = tuple(map(always, (None, 3, b"x", ["x"], "/nowhere")))
NO_PIECES = tuple(
    map(always, (None, 3, "ab", [], ["a"], ["<s>", "<pad>", "</s>", 3], ["<s>", "<pad>", "</s>", "<unk>", 3]))
)
NO_TEXTS = tuple(map(always, (None, 3, "ab", [3], [None], [b"a"])))
SIZE = dict.fromkeys(("vocabulary", "hidden", "num_heads", "inner", "positions", "types"), NO_COUNT)

CASES = [
    Case(
        embedded,
        ids(),
        lambda **_: (0.0,),
        {
            "ids": tuple(
                w for w in (*NO_TENSOR[1:], flatter, deeper, plus(99), plus(-99), plus(0.5)) if w not in NOT_SEEN
            ),
            "types": (
                *(w for w in NO_TENSOR[1:] if w not in NOT_SEEN),
                flatter,
                deeper,
                longer(1),
                plus(99),
                plus(-99),
                plus(0.5),
            ),
            "dropout": NO_DROPOUT,
            "epsilon": NOT_POSITIVE,
            "seed": NO_SEED,
        },
        1e-4,
        of=("Embeddings",),
        examples=10,
    ),
    Case(
        attended,
        vectors(),
        lambda **_: 0.0,
        {**VECTORS, "num_heads": (*NO_COUNT, always(3)), "dropout": NO_DROPOUT, "seed": NO_SEED},
        1e-4,
        of=("SelfAttention",),
        examples=10,
    ),
    Case(
        block_of,
        vectors().map(lambda given: {**given, "attention": None}),
        lambda **_: 0.0,
        {
            **VECTORS,
            "attention": NO_LAYER[1:],
            "inner": NO_COUNT,
            "dropout": NO_DROPOUT,
            "epsilon": NOT_POSITIVE,
            "seed": NO_SEED,
        },
        1e-4,
        of=("Block",),
        examples=10,
    ),
    Case(
        conditioned,
        conditions(),
        lambda **_: 0.0,
        {"x": (deeper,), "condition": (deeper, longer(0))},
        1e-3,
        of=("ConditionalLayerNormalization",),
        examples=10,
    ),
    Case(
        encoded,
        padded(),
        by_numpy,
        {
            "path": NO_PATH,
            "num_heads": (*(w for w in NO_COUNT if w.__name__ != "None"), always(3)),
            "layers": (*(w for w in NO_INTEGER if w.__name__ != "None"), always(-1), always(9)),
            "rows": tuple(map(always, (3, "ab", [[0]], [0.5], [99], [1], [-1], [True], [[0], [0, 1]]))),
        },
        1e-4,
        of=("Encoder", "SafetensorsFile"),
        examples=5,
    ),
    Case(
        weights_in,
        shapes(),
        weights_of,
        {
            **SIZE,
            "layers": (*NO_INTEGER, always(-1)),
            "dropout": NO_DROPOUT,
            "epsilon": NOT_POSITIVE,
            "padding": (*NO_INTEGER, always(-1), always(99)),
            "seed": NO_SEED,
        },
        0,
        of=("Encoder",),
        examples=5,
    ),
    Case(
        encoder_of,
        st.just({"embeddings": None, "blocks": [], "padding": 0}),
        lambda **_: True,
        {
            "embeddings": NO_LAYER[1:],
            "blocks": tuple(map(always, (None, 3, "relu", [3], [None]))),
            "padding": (*NO_INTEGER, always(-1)),
        },
        0,
        of=("Encoder",),
        examples=1,
    ),
    Case(
        bert.dequantize,
        blocks(),
        of_blocks,
        {"stored": (*NO_TENSOR, longer(-1), plus(0), plus(0.5), always(np.uint8(3)))},
        1e-6,
        spoilt=blocks().filter(lambda given: given["stored"].size),
    ),
    Case(
        normalized_text,
        st.fixed_dictionaries({"text": TEXTS, "lower": st.booleans(), "strip_accents": st.booleans()}),
        by_library,
        {"text": NO_TEXT},
        0,
        of=("normalize", "Normalized"),
    ),
    Case(
        aligned,
        st.fixed_dictionaries({"text": TEXTS, "tokens": st.just("own"), "special": st.just(bert.SPECIAL)}),
        offsets,
        {
            "text": NO_TEXT,
            "tokens": tuple(map(always, (None, 3, "ab", [3], [None], ["zzz"]))),
            "special": (always(3), always(None)),
        },
        0,
        of=("align", "SPECIAL"),
    ),
    Case(
        or_none(bert.token_span),
        spans(),
        covering,
        {"spans": NO_SPANS, "start": NO_RANGE, "end": (*NO_RANGE, always(0))},
        0,
    ),
    Case(
        or_none(bert.character_span),
        spans(),
        covered,
        {"spans": NO_SPANS, "start": NO_RANGE, "end": (*NO_RANGE, always(0), always(99))},
        0,
    ),
    Case(
        characters,
        st.fixed_dictionaries(
            {
                "texts": st.lists(st.text("a中 ２b", max_size=3), max_size=3),
                "length": st.none() | st.integers(5, 7),
                "pieces": st.just(["<s>", "<pad>", "</s>", "<unk>", "ab", "a", "中", "▁", "2"]),
            }
        ),
        looked_up,
        {
            "texts": NO_TEXTS,
            "length": tuple(w for w in (*NO_COUNT, always(1)) if w.__name__ != "None"),
            "pieces": NO_PIECES,
        },
        0,
        of=("Characters",),
    ),
    Case(
        bert.renumber,
        renumbered(),
        lambda ids, rows: np.vectorize([*rows].index, otypes=[float])(ids),
        {"ids": (*NO_TENSOR, plus(200), plus(0.5)), "rows": (*NO_TENSOR, deeper, plus(0.5))},
        0,
        spoilt=renumbered().filter(lambda given: given["ids"].size),
    ),
    Case(
        lambda path, length, lower: (
            bert.word_pieces(folder() if path == "folder" else path, length, lower=lower).encode("a,").ids
        ),
        st.just({"path": "folder", "length": 5, "lower": True}),
        lambda **_: [2, 5, 14, 3, 0],
        {
            "path": NO_PATH,
            "length": (*(w for w in NO_COUNT if w.__name__ != "None"), always(2)),
            "lower": (always("yes"), always(3), always([True])),
        },
        0,
        name="word_pieces",
        of=("word_pieces",),
        examples=1,
    ),
]

EXEMPT = {
    "E5File": "a file that tests/test_bert_pretrained.py writes byte by byte",
    "WeightsFile": "a base class, which the files try",
}
