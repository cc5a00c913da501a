"""A cascade that was trained once: its weights as a small file, and what it finds at every threshold.

Training takes minutes, reading a sentence takes milliseconds. So the chapter reads with weights that were recorded.
What training changed in the pretrained encoder is kept in whole steps, one byte a number, and so are the heads; the
record has the hash of the file and says what the rounding costs.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lib.bert import Characters
from lib.experiments.extraction.batching import by_length
from lib.experiments.extraction.relations import cascade, duie, extract, score_relations, train_cascade
from lib.extraction import Cascade, Triple, pair_pointers, power_sigmoid
from lib.workbench import measure
from lib.workbench.corpora import Statement

Row = dict[str, Any]
Arrays = Mapping[str, NDArray]

#: Where the weights lie; the record beside them has their hash.
FILE = measure.ROOT / "data" / "measured" / "06-extraction" / "cascade.npz"
#: The thresholds of :func:`found_at`.
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(1, 20))


# --- weights ----------------------------------------------------------------------------------------------


def packed(before: Sequence[NDArray], after: Sequence[NDArray], fine: int = 4) -> dict[str, NDArray]:
    """What turns weights ``before`` training into those ``after``, nearly, in one byte a number or less.

    Args:
        before: the weights of the encoder as it was.
        after: those of the encoder, then those of the heads.
        fine: steps to the root mean square of the numbers of an array that are not zero.

    Returns:
        The change of each array in whole steps, by its place; for the heads, which have no before, their weights.
        "steps", how large these are. A number of more than 127 steps is cut.

    Example:
        >>> kept = packed([np.zeros((2, 2))], [np.eye(2), np.ones(3)])
        >>> kept["0"].tolist(), kept["1"].tolist(), kept["steps"].tolist()
        ([[4, 0], [0, 4]], [4, 4, 4], [0.25, 0.25])
    """
    changes = [array - before[k] if k < len(before) else array for k, array in enumerate(after)]
    sizes = [np.sqrt(np.sum(np.square(c, dtype="float64")) / max(np.count_nonzero(c), 1)) for c in changes]
    steps = [float(size) / fine or 1.0 for size in sizes]
    whole = {
        f"{k}": np.clip(np.rint(change / step), -127, 127).astype("int8")
        for k, (change, step) in enumerate(zip(changes, steps, strict=True))
    }
    return whole | {"steps": np.array(steps, "float32")}


def unpacked(before: Sequence[NDArray], kept: Arrays) -> list[NDArray]:
    """The weights that :func:`packed` kept.

    Example:
        >>> [array.tolist() for array in unpacked([np.ones(2)], packed([np.ones(2)], [np.array([1.0, 3.0])]))]
        [[1.0, 3.0]]
    """
    changes = [kept[f"{k}"] * step for k, step in enumerate(kept["steps"])]
    return [change + before[k] if k < len(before) else change for k, change in enumerate(changes)]


def _encoder_and_heads(model: Cascade) -> list[Any]:
    """The variables of a cascade: those of the encoder first."""
    return [v for layer in (model.encoder, model.subjects, model.conditioned, model.objects) for v in layer.weights]


def _build(model: Cascade) -> None:
    """Creates the weights."""
    model({"ids": np.ones((1, 4), "int32"), "subject": np.array([[0, 1]])})


def _values(variables: Iterable[Any]) -> list[NDArray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def load(sha256: str, layers: int, file: Path = FILE) -> tuple[Characters, Cascade]:
    """The cascade that was recorded.

    Args:
        sha256: of the file, as the record "cascade" has it.
        layers: of the encoder, as the record has it.
        file: where the weights lie.

    Raises:
        ValueError: the file is another one.

    Example:
        >>> row = records.load("06-extraction", "cascade", "cpu").rows[0]  # doctest: +SKIP
        >>> characters, model = load(row["sha256"], row["layers"])  # doctest: +SKIP
    """
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(f"sha256 of {file.name} must be {sha256}, as recorded, got {found}")
    characters, model = cascade(layers)
    _build(model)
    variables = _encoder_and_heads(model)
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        arrays = unpacked(_values(model.encoder.weights), kept)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return characters, model


# --- thresholds -------------------------------------------------------------------------------------------


def found_at(
    model: Cascade, characters: Characters, texts: Sequence[str], thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, list[set[Triple]]]:
    """The triples that a cascade finds in texts at several thresholds of all its pointers.

    As :func:`.relations.extract` at each of them; the network runs once for each text and each of its subjects.

    Example:
        >>> found_at(model, characters, ["李柏光从北京大学毕业"], (0.4, 0.5))  # doctest: +SKIP
        {0.4: [{…}], 0.5: [{…}]}
    """
    found: dict[float, list[set[Triple]]] = {t: [set() for _ in texts] for t in thresholds}
    for length, places in by_length(len(text) + 2 for text in texts).items():
        for first in range(0, len(places), 64):
            rows = places[first : first + 64]
            ids = characters([texts[i] for i in rows], length)
            step = _run(model, ids=ids)
            subjects = np.moveaxis(_probability(step["subjects"], model.power[0]), -1, 0)
            told = {t: pair_pointers(*(subjects > t)) for t in thresholds}
            pairs = np.unique(np.concatenate([*told.values()]), axis=0)
            parts = [pairs[i : i + 64] for i in range(0, len(pairs), 64)]
            logits = [
                _run(model, vectors=step["vectors"][part[:, 0]], subject=part[:, 1:])["objects"] for part in parts
            ]
            for part, some in zip(parts, logits, strict=True):
                inside = np.isfinite(step["subjects"])[part[:, 0], :, None, :]
                objects = np.where(inside, _probability(some, model.power[1]), 0)
                for t in thresholds:
                    wanted = {*map(tuple, told[t].tolist())}
                    pointed = np.moveaxis(objects > t, -1, 0)
                    for i, p, start, end in pair_pointers(*np.moveaxis(pointed, 2, -1)).tolist():
                        row, *subject = part[i].tolist()
                        if (row, *subject) in wanted:
                            found[t][rows[row]].add(Triple(tuple(subject), p, (start, end)))
    return found


def _probability(logits: NDArray, power: float) -> NDArray:
    return keras.ops.convert_to_numpy(power_sigmoid(logits, power))


def _run(model: Cascade, **inputs: NDArray) -> dict[str, NDArray]:
    """The outputs of one step; its rows are filled up to 64, so that one shape a length is compiled."""
    count = len(next(iter(inputs.values())))
    outputs = model.predict_on_batch({name: array[np.arange(64) % count] for name, array in inputs.items()})
    return {name: np.asarray(array[:count], "float32") for name, array in outputs.items()}


# --- the record -------------------------------------------------------------------------------------------


def short(part: str, longest: int = 46) -> list[Statement]:
    """The sentences of a part of DuIE that have at most so many characters, in their order.

    Example:
        >>> len(short("test"))  # doctest: +SKIP
        779
    """
    return [statement for statement in duie()[part] if len(statement.text) <= longest]


def trained(
    seed: int,
    *,
    layers: int = 2,
    longest: int = 46,
    sentences: int = 3000,
    test: int = 500,
    epochs: int = 2,
    rate: float = 6e-4,
    batch: int = 16,
    fine: int = 4,
    file: Path = FILE,
) -> Row:
    """Trains a cascade on the shorter sentences of DuIE, keeps its weights in a file, and scores the file.

    Args:
        seed: of the heads, the dropout and the order of the sentences.
        layers: of the encoder.
        longest: characters of a sentence, in training and in the test.
        sentences: of the training part, the first of those that are not longer.
        test: likewise of the test part.
        epochs: passes.
        rate: the largest learning rate.
        batch: sentences a step.
        fine: see :func:`packed`.
        file: where the weights go.

    Returns:
        All arguments but the file; "sha256" and "bytes" of the file; "trained" and "kept", F1 on the first 300
        sentences of the development part, as trained and from the file; "thresholds", and for each of them
        "counts": correct, predicted and gold triples of the test part, from the file.
    """
    arguments = {name: value for name, value in locals().items() if name != "file"}
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    characters, model = cascade(layers)
    _build(model)
    before = _values(model.encoder.weights)
    statements = short("train", longest)[:sentences]
    losses = train_cascade(model, characters, statements, epochs=epochs, rate=rate, batch=batch, seed=seed)
    took = {"steps": len(losses), "seconds": time.perf_counter() - began}
    scores = {"trained": _f1(model, characters, short("dev", longest)[:300])}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **packed(before, _values(_encoder_and_heads(model)), fine))
    content = file.read_bytes()
    kept = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    characters, model = load(kept["sha256"], layers, file)
    scores["kept"] = _f1(model, characters, short("dev", longest)[:300])
    held_out = short("test", longest)[:test]
    scored = [
        score_relations(held_out, found)
        for found in found_at(model, characters, [statement.text for statement in held_out]).values()
    ]
    counts = [[sum(row[key]) for key in ("correct", "predicted", "gold")] for row in scored]
    return arguments | took | scores | kept | {"thresholds": [*THRESHOLDS], "counts": counts}


def _f1(model: Cascade, characters: Characters, statements: Sequence[Statement]) -> float:
    return score_relations(statements, extract(model, characters, [s.text for s in statements]))["f1"]
