"""The sentences of the chapter."""

from __future__ import annotations

from functools import lru_cache

from lib.experiments.labelling import Corpus, segmentation


@lru_cache(maxsize=2)
def words(sentences: int, test: int, longest: int) -> Corpus:
    """The People's Daily as characters with the tags s, b, m, e; kept between the calls.

    Args:
        sentences: of the training part.
        test: sentences of the test part; the development part has half as many.
        longest: sentences of more characters are left out.

    Example:
        >>> words(20, 4, 30).test.tags.shape
        (4, 30)
    """
    return segmentation(sentences, test // 2, test, longest)
