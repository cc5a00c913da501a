"""Truths about ``lib.bert.SafetensorsFile``: any BERT of PyTorch computes as it says, or is refused by name."""

import json

import ml_dtypes
import numpy as np
import pytest
from bert_files import SIZES, hidden_states, pytorch_tensors
from numerics import array
from safetensors.numpy import save_file

from lib.bert import Encoder, SafetensorsFile

# An encoder is filled on every backend: `make test-backends`.
pytestmark = pytest.mark.backends

IDS = np.array([[2, 5, 9, 7, 3], [2, 4, 3, 0, 0], [2, 19, 1, 3, 0]], "int32")
MASK = IDS != 0
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "architectures": ["BertModel"],
}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"piece{i}" for i in range(16))]
QUERY = "encoder.layer.1.attention.self.query.weight"


def folder_of(path, tensors=None, config=CONFIG, pieces=None):
    """A folder as a model is downloaded."""
    save_file(pytorch_tensors() if tensors is None else tensors, path / "model.safetensors")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    if pieces is not None:
        (path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return path


def sharded(path, tensors):
    """The same in two files and an index."""
    path = folder_of(path)
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"model-{1 + (i % 3 > 0):05}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == shard}, path / shard)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


def assert_computes(encoder, tensors, *, epsilon=1e-12, atol=2e-5):
    expected = hidden_states(tensors, IDS, MASK, epsilon=epsilon)
    np.testing.assert_allclose(array(encoder(IDS))[MASK], expected[MASK], atol=atol)


# --- what is loaded -------------------------------------------------------------------------------------------


def under_prefix(prefix):
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def with_gamma_and_beta(tensors):
    def renamed(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    return {renamed(name): tensor for name, tensor in tensors.items()}


def with_heads(tensors):
    ones = np.ones((32, 32), "float32")
    others = ["cls.predictions.transform.dense.weight", "cls.seq_relationship.weight", "classifier.weight"]
    others += ["bert.pooler.dense.weight", "qa_outputs.weight"]
    buffers = {"bert.embeddings.position_ids": np.arange(12)[None]}
    return under_prefix("bert.")(tensors) | dict.fromkeys(others, ones) | buffers


SPELLINGS = {
    "plain": lambda tensors: tensors,
    "bert.": under_prefix("bert."),
    "another prefix": under_prefix("0.auto_model."),
    "gamma and beta": with_gamma_and_beta,
    "bert. with gamma and beta": lambda tensors: under_prefix("bert.")(with_gamma_and_beta(tensors)),
    "heads, a pooler and buffers": with_heads,
    "pooler without prefix": lambda tensors: tensors | {"pooler.dense.weight": np.ones((32, 32), "float32")},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_bert_computes_the_same_however_its_tensors_are_called(spelling, tmp_path):
    tensors = pytorch_tensors()
    path = folder_of(tmp_path, SPELLINGS[spelling](tensors))
    assert_computes(Encoder.from_pretrained(path), tensors)


@pytest.mark.parametrize("where", ["folder", "file", "text", "shards", "index"])
def test_weights_are_found_in_a_file_a_folder_or_shards(where, tmp_path):
    tensors = pytorch_tensors()
    path = sharded(tmp_path, tensors) if where in ("shards", "index") else folder_of(tmp_path)
    name = {"file": "model.safetensors", "index": "model.safetensors.index.json"}.get(where, "")
    path = str(path) if where == "text" else path / name
    assert_computes(Encoder.from_pretrained(path), tensors)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 0.1])
def test_epsilon_is_that_of_the_configuration(epsilon, tmp_path):
    tensors = pytorch_tensors()
    encoder = Encoder.from_pretrained(folder_of(tmp_path, config=CONFIG | {"layer_norm_eps": epsilon}))
    assert_computes(encoder, tensors, epsilon=epsilon)
    copy = Encoder.from_config(encoder.get_config())
    copy.build((None, None))
    copy.set_weights(encoder.get_weights())
    assert_computes(copy, tensors, epsilon=epsilon)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_numbers_of_another_size_are_read_exactly(dtype, tmp_path):
    stored = {name: tensor.astype(dtype) for name, tensor in pytorch_tensors().items()}
    assert dtype != "bfloat16" or stored[QUERY].dtype == ml_dtypes.bfloat16
    encoder = Encoder.from_pretrained(folder_of(tmp_path, stored))
    assert_computes(encoder, stored)
    kernel = array(encoder.blocks[1].attention.query.kernel)
    np.testing.assert_array_equal(kernel.T, stored[QUERY].astype("float32"))


def test_heads_may_be_given_and_must_be_without_a_configuration(tmp_path):
    tensors = pytorch_tensors()
    path = folder_of(tmp_path, config=None)
    assert_computes(Encoder.from_pretrained(path, num_heads=4), tensors)
    with pytest.raises(ValueError, match=r"num_heads must be given, as no config.json beside model.safetensors"):
        Encoder.from_pretrained(path)
    path = folder_of(tmp_path, config={key: CONFIG[key] for key in CONFIG if key != "num_attention_heads"})
    with pytest.raises(ValueError, match=r"num_heads must be given, as no config.json"):
        Encoder.from_pretrained(path)


@pytest.mark.parametrize(
    ("pieces", "told", "padding"),
    [
        (None, {}, 0),
        (None, {"pad_token_id": 7}, 7),
        (None, {"pad_token_id": None}, 0),
        ([*PIECES[1:], "[PAD]"], {}, 19),  # the ids are those that the vocabulary writes
        (PIECES[:10], {}, 0),  # the table may have more rows
    ],
)
def test_the_id_of_padding_is_that_of_the_vocabulary_or_else_of_the_configuration(pieces, told, padding, tmp_path):
    path = folder_of(tmp_path, config=CONFIG | told, pieces=pieces)
    assert Encoder.from_pretrained(path).padding == padding
    file = SafetensorsFile(path)
    assert (file.sizes, file.padding, file.epsilon) == (SIZES, padding, 1e-12)


def test_the_vocabulary_of_a_tokenizer_file_tells_the_id_of_padding(tmp_path):
    path = folder_of(tmp_path)
    for pieces, padding in [
        ({"<s>": 0, "<pad>": 1}, 1),
        ([["<s>", 0.0], ["<unk>", 0.0], ["<pad>", 0.0]], 2),
        ({"a": 0}, 0),
    ]:
        (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": pieces}, "added_tokens": []}))
        assert SafetensorsFile(path).padding == padding
    added = [{"id": 20, "content": "[PAD]"}]
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": pieces}, "added_tokens": added}))
    with pytest.raises(ValueError, match=r"tokenizer.json must have ids below 20, the rows of the table of words"):
        SafetensorsFile(path)


# --- what is refused ------------------------------------------------------------------------------------------

CONFIG_ERRORS = {
    "vocab_size of config.json must be 20, got 21": {"vocab_size": 21},
    "hidden_size of config.json must be 32, got 64": {"hidden_size": 64},
    "num_hidden_layers of config.json must be 3, got 2": {"num_hidden_layers": 2},
    "intermediate_size of config.json must be 64, got 128": {"intermediate_size": 128},
    "max_position_embeddings of config.json must be 12, got 512": {"max_position_embeddings": 512},
    "type_vocab_size of config.json must be 2, got '2'": {"type_vocab_size": "2"},
    "num_heads must be a positive integer, got '4'": {"num_attention_heads": "4"},
    "num_heads must divide hidden = 32, got 5": {"num_attention_heads": 5},
    "hidden_act of config.json must be 'gelu', as the encoder has it, got 'gelu_new'": {"hidden_act": "gelu_new"},
    "hidden_act of config.json must be 'gelu', as the encoder has it, got 'relu'": {"hidden_act": "relu"},
    "position_embedding_type of config.json must be 'absolute', .* got 'relative_key_query'": {
        "position_embedding_type": "relative_key_query"
    },
    "model_type of config.json must be 'bert', as the encoder has it, got 'roberta'": {"model_type": "roberta"},
    "is_decoder of config.json must be False, as the encoder has it, got True": {"is_decoder": True},
    "add_cross_attention of config.json must be False": {"add_cross_attention": True},
    "layer_norm_eps of config.json must be positive, got 0": {"layer_norm_eps": 0},
    "layer_norm_eps of config.json must be a finite number, got '1e-12'": {"layer_norm_eps": "1e-12"},
    "padding must be an id below 20, got 20": {"pad_token_id": 20},
    "pad_token_id of config.json must be an integer of at least 0, got -1": {"pad_token_id": -1},
}


@pytest.mark.parametrize("message", CONFIG_ERRORS)
def test_a_configuration_that_the_tensors_or_the_encoder_contradict_is_refused_by_name(message, tmp_path):
    path = folder_of(tmp_path, config=CONFIG | CONFIG_ERRORS[message])
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(path)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (6, "num_heads must be 4, as config.json tells, got 6"),
        (8, "num_heads must be 4, as config.json tells, got 8"),
        (True, "num_heads must be a positive integer, got True"),
        (0, "num_heads must be a positive integer, got 0"),
    ],
)
def test_heads_that_contradict_the_configuration_are_refused(heads, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(folder_of(tmp_path), num_heads=heads)


def test_heads_that_do_not_divide_the_hidden_size_are_refused_without_a_configuration(tmp_path):
    with pytest.raises(ValueError, match="num_heads must divide hidden = 32, got 6"):
        SafetensorsFile(folder_of(tmp_path, config=None), num_heads=6)


def changed(name, tensor):
    return lambda tensors: tensors | {name: tensor}


TENSOR_ERRORS = {
    "the file must have the tensors of a BERT only, got encoder.layer.0.attention.self.distance_embedding.weight": (
        changed("encoder.layer.0.attention.self.distance_embedding.weight", np.ones((23, 8), "float32"))
    ),
    "the file must have the tensors of a BERT only, got encoder.relative_attention_bias.weight": (
        changed("encoder.relative_attention_bias.weight", np.ones((32, 4), "float32"))
    ),
    "the file must have the tensors of a BERT only, got embeddings.x_position_embeddings.weight": (
        changed("embeddings.x_position_embeddings.weight", np.ones((12, 32), "float32"))
    ),
    "the tensors must be those of a BERT, got the prefix 'roberta.'": under_prefix("roberta."),
    r"the file must have one encoder, got those with the prefixes \['a.bert.', 'b.bert.'\]": (
        lambda tensors: under_prefix("a.bert.")(tensors) | under_prefix("b.bert.")(tensors)
    ),
    "the file has the tensor embeddings.LayerNorm.weight twice, as .* and as": (
        changed("embeddings.LayerNorm.gamma", np.ones(32, "float32"))
    ),
    rf"the tensor {QUERY} must have shape \(32, 32\), got \(16, 32\)": changed(QUERY, np.ones((16, 32), "float32")),
    rf"the tensor {QUERY} must hold floats of 16, 32 or 64 bits, got I8": changed(QUERY, np.ones((32, 32), "int8")),
    "the file has no tensor encoder.layer.1.output.dense.bias": lambda tensors: {
        name: tensor for name, tensor in tensors.items() if name != "encoder.layer.1.output.dense.bias"
    },
}


@pytest.mark.parametrize("message", TENSOR_ERRORS)
def test_tensors_that_are_not_those_of_a_bert_are_refused_by_name(message, tmp_path):
    path = folder_of(tmp_path, TENSOR_ERRORS[message](pytorch_tensors()))
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(path)


def test_a_path_without_weights_in_safetensors_is_refused_by_what_it_has(tmp_path):
    with pytest.raises(ValueError, match=r"path must be a file or a folder, got '.*nowhere', where there is none"):
        SafetensorsFile(tmp_path / "nowhere", 4)
    with pytest.raises(ValueError, match=r"path must have weights in safetensors, got '.*' with \[\]$"):
        SafetensorsFile(tmp_path, 4)
    pickled = tmp_path / "pytorch_model.bin"
    pickled.write_bytes(b"PK")
    for path in (tmp_path, pickled):
        with pytest.raises(
            ValueError, match=r"with \['pytorch_model.bin'\]; convert it: safetensors.torch.save_file"
        ):
            SafetensorsFile(path, 4)


def test_shards_that_are_not_complete_are_refused_by_name(tmp_path):
    path = sharded(tmp_path, pytorch_tensors())
    first = path / "model-00001-of-00002.safetensors"
    content = first.read_bytes()
    first.unlink()
    with pytest.raises(
        ValueError, match=r"index.json names the file model-00001-of-00002.safetensors, which is not"
    ):
        SafetensorsFile(path)
    first.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"model-00001-of-00002.safetensors is not a safetensors file"):
        SafetensorsFile(path)
    save_file({"another": np.ones(2, "float32")}, first)
    with pytest.raises(
        ValueError, match=r"model-00001-of-00002.safetensors has no tensor .*, which model.safetensors"
    ):
        SafetensorsFile(path)
    (path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match=r"index.json is not JSON"):
        SafetensorsFile(path)
    (path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index.json must name the file of each tensor in weight_map"):
        SafetensorsFile(path)


def test_a_configuration_or_a_vocabulary_that_cannot_be_read_is_refused(tmp_path):
    path = folder_of(tmp_path)
    (path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config.json must have a JSON object, got \[\]"):
        SafetensorsFile(path)
    path = folder_of(tmp_path, pieces=[*PIECES, "one more"])
    with pytest.raises(
        ValueError, match=r"vocab.txt must have ids below 20, the rows of the table of words, got 20"
    ):
        SafetensorsFile(path)
    path = folder_of(tmp_path, pieces=[*PIECES[:-1], "[CLS]"])
    with pytest.raises(ValueError, match=r"vocab.txt must have each piece once, got 20 lines with 19 pieces"):
        SafetensorsFile(path)
