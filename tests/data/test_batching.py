"""Digits and their training batches: fixed splits, random access, and reproducible order."""

import itertools

import numpy as np
import pytest
from sklearn import datasets

from deqsmooth import data


def test_digits_split_is_fixed():
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
    # Recorded results depend on this split.
    assert splits[1][1][:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    image, label = test[3]
    np.testing.assert_array_equal(image, splits[1][0][3])
    assert label == 6


def test_unknown_names_raise():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digit", "test")
    with pytest.raises(ValueError, match="split 'validation'"):
        data.load("digits", "validation")


def test_batches_resume_at_any_update():
    train = data.load("digits", "train")
    whole = list(itertools.islice(data.batches(train, 128, seed=3), 30))
    resumed = list(itertools.islice(data.batches(train, 128, seed=3, first=17), 13))
    for (images, labels), (again, same) in zip(whole[17:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)
    other = next(data.batches(train, 128, seed=4))
    assert not np.array_equal(whole[0][0], other[0])


def test_shards_partition_each_batch():
    train = data.load("digits", "train")
    whole = list(itertools.islice(data.batches(train, 96, seed=1, first=2), 18))
    shards = [
        list(itertools.islice(data.batches(train, 96, seed=1, first=2, shard=i, num_shards=3), 18))
        for i in range(3)
    ]
    for number, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([shard[number][0] for shard in shards]), images)
        np.testing.assert_array_equal(np.concatenate([shard[number][1] for shard in shards]), labels)
    with pytest.raises(ValueError, match="batch_size is 96; it must be a multiple of the number of processes, 5"):
        next(data.batches(train, 96, seed=1, num_shards=5))


def test_epochs_are_permutations_of_the_split():
    train = data.load("digits", "train")
    images, _ = train.take(range(len(train)))
    stream = data.batches(train, 479, seed=0)
    epochs = [np.concatenate([x for x, _ in itertools.islice(stream, 3)]) for _ in range(2)]
    for epoch in epochs:
        assert sorted(x.tobytes() for x in epoch) == sorted(x.tobytes() for x in images)
    assert not np.array_equal(*epochs)
