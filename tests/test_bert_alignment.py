"""Truths about ``lib.bert.alignment``, checked by the ``tokenizers`` library and over Unicode."""

import json
import unicodedata
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shared import require
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from lib.bert import SPECIAL, Normalized, align, character_span, normalize, token_span, word_pieces
from lib.workbench import corpora

KNOWN = [token for token in SPECIAL if token != "[UNK]"]  # with these as special, an unknown token has its word

# All planes that have characters, also those that are younger than the tables of the library and of Python, and the
# borders of the others.
PLANES = [range(0x34000), range(0xDFFF0, 0xF0100), range(0xFFF00, 0x100100), range(0x10FF00, 0x110000)]
ALL = [chr(code) for plane in PLANES for code in plane if not 0xD800 <= code < 0xE000]
DROPPED = [character for character in ALL if normalize(f"a{character}").ends == (2,)]

# Words in scripts that BERT treats each in its own way, what it deletes, spaces, signs, and then any character.
LIKELY = [
    *(
        "unal",
        "Ünal",
        "U\u0308nal",
        "İstanbul",
        "I\u0307stanbul",
        "nal",
        "xunal",
        "café",
        "CAFE\u0301",
        "ǅ",
        "ΟΔΟΣ",
    ),
    *("한국어", "가\u0301", "北京", "豈", "नमस्ते", "की", "ﬁne", "Ｆｕｌｌ", "❤\ufe0f", "👩\u200d🔬", "ẞ", "Å", "K"),
    *("\0", "\u200d", "\u00ad", "\ufffd", "\ufeff", "\u0301", "\u0308", "\u20dd", "\x1c", "\x85", "\ue000"),
    *(" ", "\t", "\n", "\u00a0", "\u3000", "\u2028", "  ", "-", "。", "$", "^", "#", "##", "(", "١", "２"),
    *SPECIAL,
]
ANY = st.sampled_from(LIKELY) | st.sampled_from(DROPPED) | st.sampled_from(ALL)
TEXTS = st.lists(ANY, max_size=12).map("".join)


@cache
def library(lower=True, strip_accents=True):
    """A small WordPiece as BERT's files have it: single letters of some scripts, a few words, the rest unknown."""
    letters = "abcdefghilmnorstuxk" + "αβγδοσ" + "äéй𐐨" + "नमसतकी" + unicodedata.normalize("NFD", "한국어가")
    words = [
        "unal",
        "nal",
        "una",
        "ist",
        "istanbul",
        "cafe",
        "caf",
        "北",
        "豈",
        "-",
        "$",
        "#",
        "^",
        "。",
        "(",
        "[",
        "]",
    ]
    pieces = [
        *SPECIAL,
        *letters,
        *words,
        "U",
        "##nal",
        "##l",
        "##anbul",
        "##ᅡᆫ",
        "##\u0301",
        *("##" + c for c in letters),
    ]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


@cache
def minilm():
    """The tokenizer of MiniLM; without its file the test is skipped, with the reason."""
    try:
        return word_pieces(corpora.member("minilm", "tokenizer.json"))
    except corpora.CorpusError as error:
        require(False, f"the tokenizer of MiniLM cannot be had: {error}")


def rematch(text, tokens):
    """The article's alignment, which lower-cases the whole text before it counts its characters."""
    text, normalized, origins = text.lower(), "", []
    for i, character in enumerate(text):
        parts = unicodedata.normalize("NFD", character)
        kept = [part for part in parts if unicodedata.category(part) not in ("Mn", "Cc", "Cf")]
        normalized, origins = normalized + "".join(kept), origins + [i] * len(kept)
    places, offset = [], 0
    for token in (token.removeprefix("##") for token in tokens):
        offset = normalized.index(token, offset) + len(token)
        places.append((origins[offset - len(token)], origins[offset - 1] + 1))
    return places


def blocks(characters, size=2000):
    """The characters in lists of this size, without the bar."""
    characters = [character for character in characters if character != "|"]
    return [characters[i : i + size] for i in range(0, len(characters), size)]


def pieces_of(text, spans):
    return [span and text[slice(*span)] for span in spans]


# --- the article's example ------------------------------------------------------------------------------------


def test_the_alignment_of_the_article_is_off_by_one_after_a_dotted_capital_i():
    text, tokens = "İstanbul Ünal", ["istanbul", "unal"]
    assert pieces_of(text, rematch(text, tokens)) == ["İstanbul ", "nal"]
    assert pieces_of(text, align(text, tokens)) == ["İstanbul", "Ünal"]
    text = "Istanbul Ünal"
    assert rematch(text, tokens) == align(text, tokens)


def test_every_dotted_capital_i_shifts_the_alignment_of_the_article_by_one_more():
    for count in range(5):
        text = "İ" * count + " abcdefg"
        tokens = ["i" * count, "abcdefg"] if count else ["abcdefg"]
        assert pieces_of(text, rematch(text, tokens))[-1] == "abcdefg"[count:]
        assert pieces_of(text, align(text, tokens))[-1] == "abcdefg"


def test_one_character_of_unicode_becomes_longer_in_lower_case():
    # So İ is the whole of the article's error.
    assert [character for character in map(chr, range(0x110000)) if len(character.lower()) > 1] == ["İ"]


def test_the_article_also_finds_a_token_in_the_unknown_word_before_it():
    text, tokens = "xunal unal", ["[UNK]", "unal"]
    assert pieces_of(text, rematch(text, tokens[1:])) == ["unal"]
    assert rematch(text, tokens[1:]) == [(1, 5)]
    assert align(text, tokens) == [None, (6, 10)]


# --- normalization --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_every_character_of_unicode_becomes_what_the_library_makes_of_it(lower, strip_accents):
    library = normalizers.BertNormalizer(
        handle_chinese_chars=False, lowercase=lower, strip_accents=strip_accents
    ).normalize_str
    assert len(ALL) > 200_000
    for block in blocks(ALL):  # a bar keeps the marks of one character from those of the next
        text = "|".join(block)
        found = normalize(text, lower=lower, strip_accents=strip_accents).text
        assert dict(zip(block, found.split("|"), strict=True)) == dict(
            zip(block, library(text).split("|"), strict=True)
        )


def test_every_character_of_unicode_is_a_word_or_part_of_one_as_in_the_library():
    # Unknown words are told by their ends alone: what is punctuation, an ideograph, a space, and what is deleted.
    for block in blocks(ALL):
        text = " ".join(f"a{character}b" for character in block)
        encoded = library().encode(text)
        for span, (start, end) in zip(align(text, encoded.tokens, special=KNOWN), encoded.offsets, strict=True):
            assert span == (start, end) or (span[0] == start and normalize(text[end : span[1]]).text == "")


@given(TEXTS, st.booleans(), st.booleans())
def test_the_normalised_text_is_the_library_s_and_knows_its_origins(text, lower, strip_accents):
    normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=False, lowercase=lower, strip_accents=strip_accents
    )
    found = normalize(text, lower=lower, strip_accents=strip_accents)
    assert isinstance(found, Normalized)
    assert found.text == normalizer.normalize_str(text)
    assert len(found.text) == len(found.origins) == len(found.ends)
    assert list(found.origins) == sorted(found.origins)
    for i, (character, start, end) in enumerate(zip(*found, strict=True)):
        whole = normalize(text[start:end], lower=lower, strip_accents=strip_accents).text
        assert character in whole
        assert found.raw(i, i + 1) == (start, end)
    inside = [i for start, end in zip(found.origins, found.ends, strict=True) for i in range(start, end)]
    for i in set(range(len(text))) - set(inside):  # nothing is lost but what was deleted
        assert normalize(text[i], lower=lower, strip_accents=strip_accents).text == ""


@pytest.mark.parametrize("text", ["Café Ünal", "İzmir Å ố", "한국어", "ΐ Ǖ"])
def test_composed_and_decomposed_text_give_the_same_tokens_in_their_own_places(text):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert len(composed) < len(decomposed)
    assert normalize(composed).text == normalize(decomposed).text
    words = normalize(text).text.split()
    for raw in (composed, decomposed):
        assert pieces_of(raw, align(raw, words)) == raw.split()


def test_a_span_includes_the_dropped_marks_after_its_base_and_no_deleted_characters_around_it():
    text = "\u200dcafe\u0301\u0302\u200d \u0301b"
    assert pieces_of(text, align(text, ["cafe", "b"])) == ["cafe\u0301\u0302", "b"]
    text = "e\u200d\u0301x"
    assert align(text, ["e", "##x"]) == [(0, 3), (3, 4)]
    assert align("\u0301a", ["a"]) == [(1, 2)]
    assert normalize("\u0301\0") == Normalized("", (), ())


def test_marks_that_are_kept_have_spans_of_their_own():
    assert align("e\u0301", ["e", "##\u0301"], strip_accents=False) == [(0, 1), (1, 2)]
    assert align("İ", ["i", "##\u0307"], strip_accents=False) == [(0, 1), (0, 1)]
    assert align("İ", ["İ"], lower=False, strip_accents=False) == [(0, 1)]


# --- alignment ------------------------------------------------------------------------------------------------


def assert_exact(text, tokens, offsets, **options):
    """The spans are true by themselves, and are the library's, but for the marks that it cuts off."""

    def normal(raw):
        return normalize(raw, **options).text

    spans = align(text, tokens, special=KNOWN, **options)
    found = [(token, span) for token, span in zip(tokens, spans, strict=True) if span]
    assert {token for token, span in zip(tokens, spans, strict=True) if not span} <= set(KNOWN)

    # In order and disjoint, but for tokens that share one character of the raw text.
    is_shared = [False] * (len(found) + 1)
    for i, ((_, (before, covered)), (_, (start, end))) in enumerate(pairwise(found), start=1):
        assert before <= start
        assert covered <= end
        if overlap := text[start:covered]:
            assert len(normal(overlap[0])) > 1
            assert normal(overlap[1:]) == ""
            is_shared[i] = True
    # Normalized, the characters of a span are the token.
    for i, (token, span) in enumerate(found):
        piece, raw = token.removeprefix("##"), normal(text[slice(*span)])
        assert token == "[UNK]" or piece == raw or (piece in raw and (is_shared[i] or is_shared[i + 1]))
    # The library ends a token at its last base character. The marks that follow it belong to it.
    for span, (start, end) in zip(spans, offsets, strict=True):
        if span:
            cut = text[end : span[1]]
            assert span[0] == start
            assert cut == "" or (normal(cut) == "" and cut[-1] in DROPPED)
    # An unknown token has no span unless its word is asked for.
    usual = [None if token == "[UNK]" else span for token, span in zip(tokens, spans, strict=True)]
    assert align(text, tokens, **options) == usual


@given(TEXTS, st.booleans(), st.booleans())
@example("xunal unal", True, True)
@example("xunal\u0301 [SEP] unal", True, True)
@example("a[UNK]b [UNK][SEP] b", True, True)
@example("한국 가\u0301", True, True)
@example("İİ", True, False)
def test_spans_are_those_of_the_library_but_for_the_marks_it_cuts_off(text, lower, strip_accents):
    encoded = library(lower, strip_accents).encode(text)
    assert_exact(text, encoded.tokens, encoded.offsets, lower=lower, strip_accents=strip_accents)


@given(TEXTS)
def test_spans_in_minilm_are_those_of_the_library_but_for_the_marks_it_cuts_off(text):
    encoded = minilm().encode(text)
    assert_exact(text, encoded.tokens, encoded.offsets)


def test_every_text_of_known_words_is_recovered_token_by_token():
    text = "The\tcafé\u200d  in İstanbul,\nby Ünal—U\u0308nal"
    tokens = minilm().encode(text).tokens
    assert "[UNK]" not in tokens
    found = pieces_of(text, align(text, tokens))
    assert found[1:4] == ["The", "café", "in"]
    assert "".join(piece for piece in found if piece) == "".join(text.replace("\u200d", "").split())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["the", "Whale", "café", "CAFÉ", "İstanbul", "Ünal", "don't", "IL2", "naïve", "e.g."]),
            st.sampled_from([" ", "  ", "\t", "\n", ", ", " — ", "... ", "-"]),
        ),
        max_size=12,
    )
)
def test_any_text_of_known_words_is_recovered_token_by_token(parts):
    text = "".join(word + gap for word, gap in parts)
    tokens = minilm().encode(text).tokens
    pieces = pieces_of(text, align(text, tokens))
    assert "".join(piece for piece in pieces if piece) == "".join(text.split())
    for token, piece in zip(tokens[1:-1], pieces[1:-1], strict=True):
        assert normalize(piece).text == token.removeprefix("##")


@pytest.mark.parametrize(
    ("text", "ours", "library_s"),
    [
        ("cafe\u0301", "cafe\u0301", "cafe"),  # the library leaves the accent of the last letter outside
        ("cafe\u0301s", "cafe\u0301s", "cafe\u0301s"),  # and inside where a letter follows
        ("café", "café", "café"),
        ("İstanbul", "İstanbul", "İstanbul"),
        ("I\u0307stanbul", "I\u0307stanbul", "I\u0307stanbul"),
    ],
)
def test_the_library_cuts_off_the_marks_of_the_last_letter_only(text, ours, library_s):
    encoded = minilm().encode(text)
    (token,), (offset,) = encoded.tokens[1:-1], encoded.offsets[1:-1]
    assert pieces_of(text, [align(text, [token])[0], offset]) == [ours, library_s]


def test_the_syllable_of_several_tokens_is_the_span_of_each():
    tokens = minilm().encode("한").tokens[1:-1]
    assert len(tokens) == 3
    assert align("한\u0301", tokens) == [(0, 2)] * 3


def test_an_unknown_token_is_one_word():
    text = "xyz, 鸭北 q.unal"
    tokens = ["[UNK]", ",", "[UNK]", "北", "[UNK]", ".", "unal"]
    assert pieces_of(text, align(text, tokens)) == [None, ",", None, "北", None, ".", "unal"]
    spans = align(text, tokens, special=KNOWN)
    assert pieces_of(text, spans) == ["xyz", ",", "鸭", "北", "q", ".", "unal"]


def test_tokens_may_end_before_the_text_and_special_ones_take_nothing():
    assert align("a b c", ["[CLS]", "a", "[SEP]", "[PAD]", "[PAD]"]) == [None, (0, 1), None, None, None]
    assert align("", ["[CLS]", "[SEP]"]) == [None, None]
    assert align("ab", ["a", "@b"], continuation="@") == [(0, 1), (1, 2)]
    assert align("a ##", ["a", "##"]) == [(0, 1), (2, 4)]  # the mark of continuation alone is itself
    assert align("a <s> b", ["<s>", "a", "<s>", "b"], special=["<s>"]) == [None, (0, 1), None, (6, 7)]


def test_a_text_that_has_a_special_token_literally_goes_on_after_it():
    text = "a [SEP] [UNK]b sep"
    assert align(text, ["[CLS]", "a", "[SEP]", "[UNK]", "b", "sep", "[SEP]"]) == [
        *(None, (0, 1), None, None, (13, 14), (15, 18), None)
    ]


def test_the_library_is_saved_and_loaded_as_bert_s_files_are(tmp_path):
    library().save(str(tmp_path / "tokenizer.json"))
    assert (
        json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf8"))["normalizer"]["type"]
        == "BertNormalizer"
    )
    text = "İstanbul Ünal [SEP] cafe\u0301"
    encoded = word_pieces(tmp_path / "tokenizer.json").encode(text)
    assert encoded.tokens == ["istanbul", "unal", "[SEP]", "cafe"]
    assert pieces_of(text, align(text, encoded.tokens)) == ["İstanbul", "Ünal", None, "cafe\u0301"]


# --- spans of characters and spans of tokens ------------------------------------------------------------------


@given(TEXTS, st.data())
def test_tokens_to_characters_and_back_is_the_way_back(text, data):
    spans = align(text, library().encode(text).tokens, special=KNOWN)
    places = [i for i, span in enumerate(spans) if span]
    if not places:
        return
    first, last = sorted(data.draw(st.sampled_from(places)) for _ in range(2))
    characters = character_span(spans, first, last + 1)
    assert characters == (spans[first][0], spans[last][1])
    back = token_span(spans, *characters)
    assert character_span(spans, *back) == characters
    if all(len(normalize(character).text) <= 1 for character in text):  # else tokens may share a character
        assert back == (first, last + 1)


@given(TEXTS, st.integers(0, 20), st.integers(1, 20))
def test_tokens_of_characters_are_all_that_share_one_with_them(text, start, length):
    spans = align(text, library().encode(text).tokens)
    wanted = set(range(start, start + length))
    sharing = [i for i, span in enumerate(spans) if span and wanted & set(range(*span))]
    found = token_span(spans, start, start + length)
    assert found == ((min(sharing), max(sharing) + 1) if sharing else None)
    if found:
        left, right = character_span(spans, *found)
        covered = wanted & {i for span in spans if span for i in range(*span)}
        assert covered <= set(range(left, right))


def test_a_gold_answer_is_found_back_in_its_own_characters():
    text = "Orhan Pamuk was born in İstanbul, like Ünal."
    spans = align(text, minilm().encode(text).tokens)
    for answer in ("Orhan Pamuk", "İstanbul", "Ünal"):
        start = text.index(answer)
        tokens = token_span(spans, start, start + len(answer))
        assert text[slice(*character_span(spans, *tokens))] == answer


def test_the_offsets_of_special_tokens_are_no_characters():
    encoded = library().encode("a cafe")
    assert encoded.offsets == [(0, 1), (2, 6)]
    spans = [(0, 0), *encoded.offsets, (0, 0), (0, 0)]  # as with [CLS], [SEP] and [PAD]
    none = [None, (0, 1), (2, 6), None, None]
    for start in range(5):
        for end in range(start + 1, 6):
            assert character_span(spans, start, end) == character_span(none, start, end)
            assert token_span(spans, start, end) == token_span(none, start, end)
    assert character_span(spans, 2, 4) == (2, 6)
    assert character_span(spans, 0, 1) is character_span(spans, 3, 5) is None


def test_a_part_of_a_token_is_found_back_as_the_whole_token():
    spans = [None, (0, 8), (9, 12), (12, 13), None]
    assert token_span(spans, 10, 11) == (2, 3)
    assert character_span(spans, 2, 3) == (9, 12)
    assert character_span(spans, 0, 5) == (0, 13)
    assert character_span(spans, 0, 1) is None
    assert token_span(spans, 8, 9) is token_span(spans, 13, 20) is None


# --- errors ---------------------------------------------------------------------------------------------------

ERRORS = {
    "tokens must be a list of tokens, got the text 'ab'": lambda: align("ab", "ab"),
    "tokens must be texts, got 3": lambda: align("ab", ["a", 3]),
    "tokens must be a list of tokens, got None": lambda: align("ab", None),
    "text must be a text, got None": lambda: align(None, ["a"]),
    "text must be a text, got b'ab'": lambda: normalize(b"ab"),
    r"tokens\[1\] = 'b' is not what the text goes on with: 'c b'": lambda: align("a c b", ["a", "b"]),
    r"tokens\[1\] = '##b' is not what the text goes on with: ''": lambda: align("a", ["a", "##b"]),
    r"tokens\[0\] = '\[UNK\]' is not what the text goes on with: ''": lambda: align(" ", ["[UNK]"]),
    r"tokens\[0\] = '' is not what the text goes on with: 'a'": lambda: align("a", [""]),
    "start and end must satisfy 0 ≤ start < end, got 3 and 3": lambda: token_span([(0, 5)], 3, 3),
    "start and end must satisfy 0 ≤ start < end ≤ 1, got 0 and 2": lambda: character_span([(0, 5)], 0, 2),
    "start and end must satisfy 0 ≤ start < end ≤ 2, got -1 and 2": lambda: normalize("ab").raw(-1, 2),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_bad_argument_is_named(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
