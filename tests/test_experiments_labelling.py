"""What chapters 4 and 5 share: the arrays are the corpus, encoders respect padding, training follows its seed."""

from itertools import pairwise, product

import keras
import numpy as np
import pytest
from keras import ops

from lib.bert import Characters, E5File, Encoder
from lib.crf import CRF
from lib.experiments import labelling
from lib.experiments.labelling import Corpus, Part
from lib.tagging import SEGMENT_ALPHABET, Softmax, legal_moves, spans_of_tags
from lib.workbench import corpora

SENTENCES = {
    "train": [
        [("江泽民", "nr"), ("在", "p"), ("北京", "ns")],
        [("在", "p"), ("北京", "ns"), ("，", "w"), ("国家", "n"), ("机关", "n")],
        [("在", "p")] * 9,
        [("新华社", "nt"), ("北京", "ns")],
    ],
    "dev": [[("北京", "ns")]],
    "test": [[("鲁迅", "nr"), ("在", "p"), ("北京", "ns")], [("国家", "n")]],
}


@pytest.fixture(autouse=True)
def newspaper(monkeypatch):
    """A newspaper of a few sentences; records how it was asked for."""
    asked = []

    def peoples_daily(join_names=True):
        asked.append(join_names)
        return SENTENCES

    labelling._sentences.cache_clear()
    monkeypatch.setattr(corpora, "peoples_daily", peoples_daily)
    yield asked
    labelling._sentences.cache_clear()


@pytest.fixture(scope="module")
def toy():
    """A language of two letters in which each stands for its tag, in sentences of two to six letters."""
    rng = np.random.default_rng(0)
    tags = rng.integers(0, 2, (96, 6)).astype(np.int32)
    tags[np.arange(6) >= rng.integers(2, 7, (96, 1))] = -1
    part = Part(np.where(tags >= 0, tags + 2, 0).astype(np.int32), tags)
    return Corpus(
        part.at(slice(64)), part.at(slice(64, 80)), part.at(slice(80, 96)), ("", "?", "a", "b"), ("O", "B")
    )


ENCODERS = {
    "convolutional": lambda corpus: labelling.convolutional(corpus, width=8),
    "recurrent": lambda corpus: labelling.recurrent(corpus, width=8),
    "transformer": lambda corpus: labelling.transformer(corpus, width=8, heads=2),
}


# --- the corpus -------------------------------------------------------------------------------------------


def test_a_sentence_comes_back_from_its_arrays():
    corpus = labelling.segmentation(train=9, dev=9, test=9, longest=8)
    for part, sentences in zip((corpus.train, corpus.dev, corpus.test), SENTENCES.values(), strict=True):
        kept = [words for words in sentences if sum(len(word) for word, _ in words) <= 8]
        assert part.characters.shape == part.tags.shape == (len(kept), 8)
        assert part.characters.dtype == part.tags.dtype == np.int32
        np.testing.assert_array_equal(part.characters == 0, part.tags == -1)
        spans = spans_of_tags(part.tags, corpus.alphabet)
        for ids, found, words in zip(part.characters, spans, kept, strict=True):
            text = "".join(corpus.vocabulary[i] for i in ids)
            if part is corpus.train:
                assert [text[start:end] for start, end, _ in found] == [word for word, _ in words]
            assert [end - start for start, end, _ in found] == [len(word) for word, _ in words]


def test_the_vocabulary_is_that_of_the_training_part():
    corpus = labelling.segmentation(train=2, dev=1, test=2, longest=8)
    assert corpus.vocabulary[:2] == ("", "\N{REPLACEMENT CHARACTER}")
    assert set(corpus.vocabulary[2:]) == set("江泽民在北京，国家机关")
    np.testing.assert_array_equal(corpus.test.characters[0, :2], [1, 1])  # 鲁迅 is not in it
    assert corpus.test.characters[0, 2] > 1


def test_sizes_are_upper_bounds_and_long_sentences_are_left_out():
    assert len(labelling.segmentation(train=1, dev=1, test=1, longest=8).train.characters) == 1
    assert len(labelling.segmentation(train=9, dev=1, test=1, longest=8).train.characters) == 3
    assert len(labelling.segmentation(train=9, dev=1, test=1, longest=9).train.characters) == 4


def test_entities_are_people_and_places_and_organizations_if_asked_for():
    corpus = labelling.entities(train=9, dev=1, test=1, longest=9)
    assert corpus.alphabet == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    spans = spans_of_tags(corpus.train.tags, corpus.alphabet)
    assert [tuple(span) for span in spans[0]] == [(0, 3, "PER"), (4, 6, "LOC")]
    assert [tuple(span) for span in spans[3]] == [(3, 5, "LOC")]
    corpus = labelling.entities(train=9, dev=1, test=1, longest=9, organizations=True)
    spans = spans_of_tags(corpus.train.tags, corpus.alphabet)
    assert [tuple(span) for span in spans[3]] == [(0, 3, "ORG"), (3, 5, "LOC")]


def test_words_are_those_of_the_corpus_and_people_are_one_span(newspaper):
    labelling.segmentation(longest=8)
    labelling.entities(longest=8)
    assert newspaper == [False, True]


@pytest.mark.parametrize("name", ["train", "dev", "test", "longest"])
def test_an_empty_part_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        labelling.segmentation(**{name: 0})


# --- encoders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_one_score_a_tag(name, toy):
    encoder = ENCODERS[name](toy)
    assert encoder(toy.test.characters).shape == (16, 6, 2)


@pytest.mark.parametrize("name", ["recurrent", "transformer"])
def test_padding_does_not_reach_the_emissions(name, toy):
    encoder = ENCODERS[name](toy)
    ids = np.array([[2, 3, 3, 0, 0, 0]], np.int32)
    before = ops.convert_to_numpy(encoder(ids))[:, :3]
    table = encoder.weights[0].numpy() if hasattr(encoder.weights[0], "numpy") else np.array(encoder.weights[0])
    table = table.copy()
    table[0] += 5  # what padding is embedded as
    encoder.weights[0].assign(table)
    np.testing.assert_allclose(ops.convert_to_numpy(encoder(ids))[:, :3], before, atol=1e-5)


def test_a_convolution_sees_one_character_a_layer_on_either_side(toy):
    for layers in (1, 2):
        encoder = labelling.convolutional(toy, width=8, layers=layers)
        one, other = np.full((2, 1, 6), 2, np.int32)
        other[0, 0] = 3
        changed = ops.convert_to_numpy(ops.any(ops.abs(encoder(one) - encoder(other)) > 1e-7, axis=-1))[0]
        np.testing.assert_array_equal(changed, np.arange(6) <= layers)


@pytest.mark.parametrize("name", ["recurrent", "transformer"])
def test_the_others_see_the_whole_sentence(name, toy):
    encoder = ENCODERS[name](toy)
    one, other = np.full((2, 1, 6), 2, np.int32)
    other[0, 0] = 3
    assert bool(ops.all(ops.any(ops.abs(encoder(one) - encoder(other)) > 1e-7, axis=-1)))


def test_a_transformer_knows_places(toy):
    encoder = ENCODERS["transformer"](toy)
    emissions = ops.convert_to_numpy(encoder(np.full((1, 6), 2, np.int32)))[0]
    assert np.all(np.ptp(emissions, axis=0) > 1e-6)


@pytest.fixture(scope="module")
def weights():
    try:
        return corpora.member("e5-small", "e5-small-q4.bin")
    except corpora.CorpusError as error:
        pytest.skip(f"the pretrained weights cannot be had: {error}")


def test_the_pretrained_encoder_reads_a_sentence_as_its_own_tokens(weights):
    corpus = labelling.segmentation(train=9, dev=1, test=2, longest=9)
    encoder = labelling.pretrained(corpus, layers=1)
    kernel, bias = np.eye(384, 4, dtype=np.float32), np.zeros(4, np.float32)
    encoder.layers[-1].set_weights([kernel, bias])
    characters = Characters(E5File(weights).pieces)
    reference = Encoder.from_e5(weights, layers=1, rows=characters.rows)
    for ids, text in [(corpus.train.characters[:1], "江泽民在北京"), (corpus.train.characters[2:3], "在" * 9)]:
        expected = ops.convert_to_numpy(reference(characters([text])))[0, 1:-1, :4]
        found = ops.convert_to_numpy(encoder(ids))[0, : len(text)]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    unknown = ops.convert_to_numpy(encoder(np.array([[1] + [0] * 8], np.int32)))[0, 0]
    expected = ops.convert_to_numpy(reference(np.array([[0, 3, 2]], np.int32)))[0, 1, :4]
    np.testing.assert_allclose(unknown, expected, atol=2e-5)


# --- training and scoring ---------------------------------------------------------------------------------


def test_training_follows_its_seed(toy):
    tagger = labelling.tagger_of(ENCODERS["convolutional"](toy), CRF(2), 0.1, keras.optimizers.SGD)
    start, found = tagger.get_weights(), []
    for seed in (0, 0, 1):
        tagger.set_weights(start)
        loss = labelling.train(tagger, toy.train, batch=16, seed=seed)
        found.append(np.concatenate([[loss], *map(np.ravel, tagger.get_weights())]))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-4


@pytest.mark.usefixtures("eager_models")
def test_steps_and_epochs_count_batches(toy):
    tagger = labelling.tagger_of(ENCODERS["convolutional"](toy), CRF(2), 1e-2)
    for kwargs, steps in [({}, 4), ({"epochs": 3}, 12), ({"steps": 5}, 5), ({"steps": 9, "batch": 10}, 9)]:
        before = int(tagger.optimizer.iterations)
        labelling.train(tagger, toy.train, **{"batch": 16} | kwargs)
        assert int(tagger.optimizer.iterations) - before == steps


def test_every_sentence_is_seen_once_an_epoch(toy, monkeypatch):
    seen = []
    tagger = labelling.tagger_of(ENCODERS["convolutional"](toy), CRF(2), 1e-2)
    history = type("History", (), {"history": {"loss": [0.0]}})
    monkeypatch.setattr(tagger, "fit", lambda x, y, **_: seen.append((x, y)) or history)
    labelling.train(tagger, toy.train, epochs=2, batch=16, seed=3)
    (x, y), rows = seen[0], [tuple(row) for row in toy.train.characters]
    for half in (slice(64), slice(64, 128)):
        assert sorted(map(tuple, x[half])) == sorted(rows)
    np.testing.assert_array_equal(np.where(x > 0, x - 2, -1), y)  # characters stay with their tags


@pytest.mark.parametrize("kwargs", [{"steps": 0}, {"batch": 65}, {"epochs": 0}])
def test_no_batch_is_an_error(toy, kwargs):
    tagger = labelling.tagger_of(ENCODERS["convolutional"](toy), CRF(2), 1e-2)
    with pytest.raises(ValueError, match="steps and batch must give at least one batch of 64 sentences"):
        labelling.train(tagger, toy.train, **kwargs)


@pytest.mark.parametrize(("name", "head"), [*((name, CRF) for name in ENCODERS), ("convolutional", Softmax)])
def test_every_encoder_learns_the_toy_language(name, head, toy):
    keras.utils.set_random_seed(2)
    tagger = labelling.tagger_of(ENCODERS[name](toy), head(2), 0.03)
    labelling.train(tagger, toy.train, epochs=15, batch=16)
    assert labelling.evaluate(tagger, toy.test, toy.alphabet)["accuracy"] == 1


def test_decoding_is_that_of_the_tagger(toy):
    tagger = labelling.tagger_of(ENCODERS["convolutional"](toy), CRF(2, transitions_initializer=np.eye(2)), 1e-2)
    emissions = labelling.emissions_of(tagger, toy.test, batch=7)
    found = labelling.decode(tagger.head, emissions, toy.test)
    np.testing.assert_array_equal(found, tagger.predict(toy.test.characters, verbose=0))


def test_a_softmax_decodes_the_best_tag_of_every_step(toy):
    tagger = labelling.tagger_of(ENCODERS["recurrent"](toy), Softmax(2), 1e-2)
    emissions = labelling.emissions_of(tagger, toy.test)
    expected = np.where(toy.test.tags >= 0, emissions.argmax(axis=-1), -1)
    np.testing.assert_array_equal(labelling.decode(tagger.head, emissions, toy.test), expected)


def test_hard_rules_keep_the_scores_and_forbid_the_rest():
    scores = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    head = CRF(4, transitions_initializer=scores, learning_rate_multiplier=100, boundaries=True)
    head.build((None, None, 4))
    ruled = labelling.with_rules(head, SEGMENT_ALPHABET)
    moves = legal_moves(SEGMENT_ALPHABET)
    transitions = ops.convert_to_numpy(ruled.transitions)
    np.testing.assert_allclose(transitions[moves.transitions], scores[moves.transitions], rtol=1e-5)
    assert np.all(np.isneginf(transitions[~moves.transitions]))
    np.testing.assert_array_equal(np.isneginf(ops.convert_to_numpy(ruled.start)), ~moves.start)
    np.testing.assert_array_equal(np.isneginf(ops.convert_to_numpy(ruled.end)), ~moves.end)
    assert np.all(np.isfinite(ops.convert_to_numpy(head.transitions)))


def test_hard_rules_find_the_best_legal_sequence():
    rng = np.random.default_rng(1)
    emissions = rng.standard_normal((20, 4, 4)).astype(np.float32)
    part = Part(np.ones((20, 4), np.int32), np.zeros((20, 4), np.int32))
    head = Softmax(4)
    head.build((None, None, 4))
    found = labelling.decode(labelling.with_rules(head, SEGMENT_ALPHABET), emissions, part)
    moves = legal_moves(SEGMENT_ALPHABET)
    legal = [
        path
        for path in product(range(4), repeat=4)
        if moves.start[path[0]] and moves.end[path[-1]] and all(moves.transitions[i, j] for i, j in pairwise(path))
    ]
    for scores, path in zip(emissions, found, strict=True):
        best = max(legal, key=lambda y: scores[np.arange(4), list(y)].sum())
        assert tuple(path) == best
    assert np.any(found != emissions.argmax(axis=-1))


def test_scores_count_what_they_say():
    gold = np.array([[1, 3, 0, -1], [0, 1, 2, 3]], np.int32)  # be s, s bme
    part = Part(np.where(gold >= 0, 5, 0), gold)
    perfect = labelling.scores(gold, part, SEGMENT_ALPHABET)
    assert (perfect["f1"], perfect["accuracy"], perfect["illegal"], perfect["boundaries"]) == (1, 1, 0, 0)
    found = labelling.scores(np.array([[1, 3, 1, -1], [2, 1, 2, 3]], np.int32), part, SEGMENT_ALPHABET)
    # Read as words it is the same: a piece that is cut is a word. So the tags are wrong and the spans are right.
    assert (found["f1"], found["precision"], found["recall"]) == (1, 1, 1)
    assert found["accuracy"] == pytest.approx(5 / 7)
    assert (found["illegal"], found["boundaries"], found["characters"]) == (1, 2, 7)
    assert labelling.scores(np.array([[0, 0, 0, -1], [0, 1, 2, 3]]), part, SEGMENT_ALPHABET)["f1"] == 2 * 3 / (
        4 + 5
    )


def test_scores_of_one_kind():
    alphabet = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    part = Part(np.full((1, 4), 5), np.array([[1, 2, 0, 3]]))
    predicted = np.array([[1, 2, 3, 3]])
    assert labelling.scores(predicted, part, alphabet, kinds=["PER"])["f1"] == 1
    assert labelling.scores(predicted, part, alphabet, kinds=["LOC"])["f1"] == pytest.approx(2 / 3)


def test_evaluation_without_rules_is_shorter(toy):
    tagger = labelling.tagger_of(ENCODERS["convolutional"](toy), Softmax(2), 1e-2)
    found = labelling.evaluate(tagger, toy.test, toy.alphabet)
    assert found.pop("ruled")["illegal"] == 0
    assert labelling.evaluate(tagger, toy.test, toy.alphabet, rules=False) == found
