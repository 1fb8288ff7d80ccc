"""Data: fixed splits, random access, batches that a resumed run sees again."""

import itertools

import numpy as np
import pytest
from sklearn import datasets

from deqsmooth import data


def test_digits_are_divided_once_and_for_all():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    splits = [split.take(range(len(split))) for split in (train, test)]
    images = np.concatenate([images for images, _ in splits])
    original = (datasets.load_digits().images[..., None] / 16).astype(np.float32)
    assert sorted(x.tobytes() for x in images) == sorted(x.tobytes() for x in original)
    for images, labels in splits:
        assert images.dtype == np.float32 and images.shape[1:] == (8, 8, 1)
        assert images.min() == 0 and images.max() == 1
        assert set(labels.tolist()) == set(range(10))
    # A change of the split would change every published number.
    assert splits[1][1][:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    image, label = test[3]
    np.testing.assert_array_equal(image, splits[1][0][3])
    assert label == 6


def test_names_are_checked():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digit", "test")
    with pytest.raises(ValueError, match="split 'validation'"):
        data.load("digits", "validation")


def test_batches_go_on_where_a_run_stopped():
    train = data.load("digits", "train")
    whole = list(itertools.islice(data.batches(train, 128, seed=3), 30))
    resumed = list(itertools.islice(data.batches(train, 128, seed=3, first=17), 13))
    for (images, labels), (again, same) in zip(whole[17:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)
    other = next(data.batches(train, 128, seed=4))
    assert not np.array_equal(whole[0][0], other[0])


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order():
    train = data.load("digits", "train")
    images, _ = train.take(range(len(train)))
    stream = data.batches(train, 479, seed=0)
    epochs = [np.concatenate([x for x, _ in itertools.islice(stream, 3)]) for _ in range(2)]
    for epoch in epochs:
        assert sorted(x.tobytes() for x in epoch) == sorted(x.tobytes() for x in images)
    assert not np.array_equal(*epochs)
