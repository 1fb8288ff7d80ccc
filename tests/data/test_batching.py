"""Data sets: fixed splits, random access, and reproducible batches."""

import itertools
import types

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


class Photos:
    """A stand-in for a TFDS source of ImageNet: records with images of different sizes."""

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (300 + index, 500, 3), dtype=np.uint8)
        return {"image": image, "label": np.int64(index)}

    def __len__(self):
        return 3


@pytest.fixture
def tfds_source(monkeypatch):
    import tensorflow_datasets as tfds

    def use(source, num_classes):
        label = types.SimpleNamespace(num_classes=num_classes)
        source.dataset_info = types.SimpleNamespace(features={"label": label}, full_name="name/1.0.0")
        monkeypatch.setattr(tfds, "data_source", lambda *arguments, **options: source)

    return use


def test_imagenet_is_resized_and_centre_cropped(tfds_source):
    source = Photos()
    tfds_source(source, 1000)
    photos = data.load("imagenet", "validation")
    images, labels = photos.take([0, 2])
    assert images.shape == (2, 224, 224, 3) and images.dtype == np.float32 and labels.tolist() == [0, 2]
    assert images.min() >= 0 and images.max() <= 1 and photos.num_classes == 1000
    assert photos.identity == "name/1.0.0/validation"
    # The middle column of a horizontal ramp is grey 0.5 at any aspect ratio.
    ramp = np.tile(np.linspace(0, 255, 700).astype(np.uint8)[None, :, None], (400, 1, 3))
    assert photos.prepare(ramp)[:, 111:113].mean() == pytest.approx(0.5, abs=0.01)
    shown = next(data.batches(photos, 2, seed=0))[0]
    assert shown.shape == (2, 224, 224, 3) and not np.array_equal(shown[0], images[0])


class Squares:
    def __getitem__(self, index):
        return {"image": np.full((32, 32, 3), 100 + index, np.uint8), "label": index}

    def __len__(self):
        return 4


def test_cifar10_is_cropped_with_zero_padding(tfds_source):
    tfds_source(Squares(), 10)
    squares = data.load("cifar10", "train")
    np.testing.assert_allclose(squares[1][0], 101 / 255, rtol=1e-6)
    images = np.concatenate([x for x, _ in itertools.islice(data.batches(squares, 4, seed=0), 40)])
    bright = (images[..., 0] > 0).sum((1, 2))
    # A crop shifted by (a, b) keeps (32 - |a|)(32 - |b|) pixels of the image; a and b are from -4 to 4.
    sides = [32 - abs(move) for move in range(-4, 5)]
    assert set(bright.tolist()) <= {a * b for a in sides for b in sides}
    assert bright.min() <= 29 * 29 and bright.max() == 32 * 32
    one, two = (next(data.batches(squares, 4, seed=0, first=3))[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_pipeline_reads_tfds_sources(caplog):
    """TFDS's mock data: random images with the features of the real data sets."""
    import tensorflow_datasets as tfds

    for name, shape in (("cifar10", (32, 32, 3)), ("imagenet", (224, 224, 3))):
        with tfds.testing.mock_data(num_examples=6):
            dataset = data.load(name, "train")
        assert len(dataset) == 6 and dataset.identity.split("/")[0] in ("cifar10", "imagenet2012")
        images, labels = next(data.batches(dataset, 4, seed=0))
        assert images.shape == (4, *shape) and images.dtype == np.float32 and labels.dtype == np.int32
        assert images.min() >= 0 and 0.5 < images.max() <= 1
        assert labels.max() < dataset.num_classes


def test_missing_data_error_explains_preparation(tmp_path):
    with pytest.raises(ValueError, match=r"cifar10 is not prepared in .*\n.*tfds build cifar10"):
        data.load("cifar10", "test", str(tmp_path))


def test_arrays_are_loaded_and_checked(tmp_path):
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([1, 0]))
    dataset = data.load("arrays", data_dir=str(tmp_path / "a.npz"))
    np.testing.assert_allclose(dataset.take(range(2))[0], images / 255, rtol=1e-6)
    assert dataset[0][1] == 1 and dataset.num_classes == 2 and dataset.identity.startswith("sha256:")
    bad = {
        "and labels": {"images": images, "labels": np.zeros(3, int)},
        "must be integers": {"images": images, "labels": np.zeros(2)},
        "must be uint8": {"images": images.astype(int), "labels": np.zeros(2, int)},
        "no .npz file": {"pictures": images},
    }
    for message, arrays in bad.items():
        np.savez(tmp_path / "b.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            data.load("arrays", data_dir=str(tmp_path / "b.npz"))
    with pytest.raises(ValueError, match="needs --data-dir"):
        data.load("arrays")


def test_archive_above_size_limit_raises(tmp_path, monkeypatch):
    """A small archive can declare a very large size."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((1000, 32, 32, 3), np.uint8), labels=np.zeros(1000, int))
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(data, "_LARGEST_ARRAYS", 1_000_000)
    with pytest.raises(ValueError, match=r"size of .*bomb.npz is 3,[0-9,]+ bytes, unpacked"):
        data.load("arrays", data_dir=str(path))
    path.write_text("no archive")
    with pytest.raises(ValueError, match=r"is no \.npz file"):
        data.load("arrays", data_dir=str(path))
