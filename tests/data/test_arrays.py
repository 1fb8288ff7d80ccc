"""Data sets in `.npz` files."""

import pathlib

import numpy as np
import pytest

from deqsmooth import data
from deqsmooth.data import arrays

OK = np.random.default_rng(0).random((6, 4, 4, 3), dtype=np.float32)
LABELS = np.array([1, 0, 2, 1, 0, 2])


@pytest.fixture
def load(tmp_path):
    """Function that loads a file of arrays."""

    def written(split=None, **given):
        np.savez(tmp_path / "a.npz", **given)
        return data.load("arrays", split, str(tmp_path / "a.npz"))

    return written


def test_file_and_program_give_one_result(load):
    for images in (OK, (255 * OK).astype(np.uint8), OK.astype(np.float64)):
        dataset = load(images=images, labels=LABELS)
        found, labels = dataset.take(range(6))
        np.testing.assert_array_equal(found, data.check_images(images))
        assert labels.tolist() == LABELS.tolist()
        assert dataset.num_classes == 3 and dataset.identity.startswith("sha256:")


def test_identity_is_that_of_prepared_pixels():
    stored = (255 * OK).astype(np.uint8)
    forms = (stored, stored / 255, (stored / 255).astype(np.float32), np.asfortranarray(stored))
    assert len({data.of_arrays(form, LABELS).identity for form in forms}) == 1
    changed = stored.copy()
    changed[5, 3, 3, 2] ^= 1
    others = [
        data.of_arrays(changed, LABELS),
        data.of_arrays(stored[::-1], LABELS),
        data.of_arrays(stored.reshape(6, 3, 4, 4), LABELS),
        data.of_arrays(stored, LABELS[::-1]),
        data.of_arrays(stored),
        data.of_arrays(stored, LABELS, range(1, 7)),
        data.of_arrays(OK, LABELS),
    ]
    assert len({dataset.identity for dataset in (data.of_arrays(stored, LABELS), *others)}) == 8


def test_identity_of_many_images():
    """More than one block."""
    images = np.zeros((1500, 1, 1, 1), np.float32)
    first = data.of_arrays(images).identity
    images[1499] = 1
    assert data.of_arrays(images).identity != first == data.of_arrays(np.zeros((1500, 1, 1, 1))).identity


def test_one_bad_pixel_spoils_one_image(load):
    images = OK.copy()
    images[3, 1, 2, 0] = np.nan
    dataset = load(images=images, labels=LABELS)
    with pytest.raises(ValueError, match="the pixel at row 1, column 2, channel 0 is nan"):
        dataset[3]
    np.testing.assert_array_equal(dataset[4][0], OK[4])
    with pytest.raises(ValueError, match=r"a\.npz: image 3: the pixel at row 1"):
        load("train", images=images, labels=LABELS)


def test_labels_beyond_the_model_are_named(load):
    dataset = load(images=OK, labels=LABELS)
    dataset.check_classes(3)
    with pytest.raises(ValueError, match=r"the label of image 2 is 2; labels must be integers in \[0, 2\)"):
        dataset.check_classes(2)
    chosen = data.of_arrays(OK[:2], [2, 1], indices=[5, 9])
    chosen.check_classes(3)
    with pytest.raises(ValueError, match=r"the label of image 0 is 2; labels must be integers in \[0, 2\)"):
        chosen.check_classes(2)
    with pytest.raises(ValueError, match="number of classes of the data set is 10; it must be at most 9"):
        data.load("digits").check_classes(9)


def test_data_set_ends_after_its_images():
    dataset, chosen = data.of_arrays(OK, LABELS), data.of_arrays(OK[:2], LABELS[:2], indices=[5, 9])
    assert [label for _, label in dataset] == LABELS.tolist()
    with pytest.raises(IndexError, match="image 10 is asked for; the last one is 9"):
        chosen[10]
    with pytest.raises(ValueError, match="there is no image 6"):
        chosen[6]


@pytest.mark.parametrize("method", ["take", "images"])
def test_no_index_is_refused(method):
    with pytest.raises(ValueError, match="indices is empty; it must hold the index of at least one image"):
        getattr(data.of_arrays(OK, LABELS), method)([])


BAD = {
    "images": ({"pictures": OK}, "it has no array 'images'; its arrays: pictures"),
    "keras": ({"x_test": OK, "y_test": LABELS}, "its arrays: x_test, y_test"),
    "no labels": ({"images": OK}, "it has no array 'labels'; its arrays: images"),
    "nothing": ({}, "its arrays: none"),
    "scaled": ({"images": 255 * OK, "labels": LABELS}, "image 0: pixels go up to .* looks like 0 to 255"),
    "standardised": ({"images": OK - 2, "labels": LABELS}, "before any standardisation"),
    "nan": ({"images": OK * np.nan, "labels": LABELS}, "image 0: the pixel at row 0, column 0, channel 0 is nan"),
    "int64": ({"images": OK.astype(int), "labels": LABELS}, "images are int64; they must be uint8"),
    "complex": ({"images": OK * 1j, "labels": LABELS}, "images are complex"),
    "first": ({"images": np.zeros((6, 3, 32, 32)), "labels": LABELS}, "3x32x32 looks like channels first"),
    "flat": ({"images": OK.reshape(6, -1), "labels": LABELS}, r"images have shape \(6, 48\)"),
    "single": ({"images": OK[0], "labels": LABELS[0]}, "a single image"),
    "empty": ({"images": OK[:0], "labels": LABELS[:0]}, "there must be at least one image"),
    "short": ({"images": OK, "labels": LABELS[:-1]}, "labels has 5 entries; there must be one for each of the 6"),
    "one-hot": ({"images": OK, "labels": np.eye(3)[LABELS]}, "looks one-hot"),
    "strings": ({"images": OK, "labels": LABELS.astype(str)}, "the label of image 0 is '1'"),
    "fractional": ({"images": OK, "labels": LABELS + 0.5}, "the label of image 0 is 1.5"),
    "negative": ({"images": OK, "labels": LABELS - 1}, "image 1 is -1; labels must be integers from 0"),
    "objects": ({"images": OK, "labels": LABELS.astype(object)}, "holds Python objects, which may run code"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("split", ["train", "test"])
def test_bad_file_is_refused(load, case, split):
    given, message = BAD[case]
    with pytest.raises(ValueError, match=message) as raised:
        load(split, **given)
    assert "a.npz" in str(raised.value) and "\n" not in str(raised.value)
    assert "allow_pickle" not in str(raised.value)


def test_bad_path_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"needs --data-dir FILE\.npz"):
        data.load("arrays")
    with pytest.raises(ValueError, match=r"it is a folder; it must be a \.npz file"):
        data.load("arrays", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"none\.npz cannot be read: No such file or directory"):
        data.load("arrays", data_dir=str(tmp_path / "none.npz"))
    path = tmp_path / "a.npz"
    np.savez(path, images=OK, labels=LABELS)

    def forbidden(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(arrays.checks, "unpacks_to", forbidden)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read: Permission denied"):
        data.load("arrays", data_dir=str(path))


def test_damaged_file_is_refused(tmp_path):
    """Wherever a byte is changed or the file is cut, there is one sentence, or the arrays are still right."""
    whole = pathlib.Path(tmp_path / "whole.npz")
    np.savez_compressed(whole, images=OK, labels=LABELS)
    content, path, rng = whole.read_bytes(), tmp_path / "damaged.npz", np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            dataset = data.load("arrays", data_dir=str(path))
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(dataset.take(range(6))[0], OK)
    assert refused > 75
    for size in (0, 1, 30, 200, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"damaged\.npz is no \.npz file"):
            data.load("arrays", data_dir=str(path))
    np.save(tmp_path / "images.npy", OK)
    with pytest.raises(ValueError, match=r"images\.npy is no \.npz file"):
        data.load("arrays", data_dir=str(tmp_path / "images.npy"))


def test_archive_above_size_limit_raises(tmp_path, monkeypatch):
    """A small archive can declare a very large size."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((1000, 32, 32, 3), np.uint8), labels=np.zeros(1000, int))
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(arrays, "_LARGEST", 1_000_000)
    with pytest.raises(ValueError, match=r"size of .*bomb.npz is 3,[0-9,]+ bytes, unpacked"):
        data.load("arrays", data_dir=str(path))
