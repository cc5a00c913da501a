"""The images of Fashion-MNIST, as the experiments of chapter 3 take them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lib.workbench import corpora


@lru_cache(maxsize=1)
def images_and_labels() -> tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]:
    """The book's split of Fashion-MNIST, shape (N, 28, 28, 1), pixels of mean 0 and variance 1 in training."""
    (train, train_labels), (test, test_labels) = corpora.fashion_mnist_split()
    mean, deviation = train.mean(), train.std()
    train, test = (((x[..., None] - mean) / deviation).astype(np.float32) for x in (train, test))
    return (train, train_labels), (test, test_labels)


def training_images() -> tuple[NDArray, NDArray]:
    """The 8,000 training images, float32 (8000, 28, 28, 1), with pixels of mean 0 and variance 1, and labels."""
    return images_and_labels()[0]


def held_out_images() -> tuple[NDArray, NDArray]:
    """The 2,000 test images, float32 (2000, 28, 28, 1), scaled as the training images are, and labels."""
    return images_and_labels()[1]
