"""Sets that TensorFlow Datasets prepared, in folders that these tests write."""

import ast
import itertools
import json
import pathlib

import numpy as np
import prepared
import pytest
import tensorflow_datasets as tfds

from deqsmooth import config, data
from deqsmooth.data import prepared as module
from deqsmooth.data import transforms

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def refused(message, *arguments, **options):
    with pytest.raises(ValueError, match=message) as raised:
        data.load(*arguments, **options)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "images", "num_classes"),
    [("mnist", GREY, 10), ("svhn_cropped", COLOUR, 10), ("cifar100", COLOUR, 100), ("my_own", GREY, 2)],
)
def test_shape_and_classes_come_from_description(tmp_path, name, images, num_classes):
    prepared.write(tmp_path, f"{name}:3.0.1", images, [1, 0, 1, 0], num_classes=num_classes)
    dataset = data.load(name, data_dir=str(tmp_path))
    found, labels = dataset.take(range(4))
    np.testing.assert_array_equal(found, images.astype(np.float32) / 255)
    assert labels.tolist() == [1, 0, 1, 0] and dataset.num_classes == num_classes == len(dataset.class_names)
    assert dataset.identity == f"{name}/3.0.1/test"
    # Only colour images of CIFAR are augmented.
    shown, _ = next(data.batches(dataset, 4, seed=0))
    whole = {x.tobytes() for x in shown} == {x.tobytes() for x in found}
    assert whole == (name != "cifar100")


def test_newest_readable_version_is_taken(tmp_path):
    for version, form in (("1.9.0", "array_record"), ("1.10.0", "array_record"), ("2.0.0", "tfrecord")):
        prepared.write(tmp_path, f"mnist:{version}", GREY, [0] * 4, fileFormat=form)
    assert data.load("mnist", data_dir=str(tmp_path)).identity == "mnist/1.10.0/test"
    assert data.load("mnist:1.9.0", data_dir=str(tmp_path)).identity == "mnist/1.9.0/test"
    refused("is prepared as tfrecord", "mnist:2.0.0", data_dir=str(tmp_path))
    refused("mnist:3.0.0 is not prepared", "mnist:3.0.0", data_dir=str(tmp_path))


def test_configurations_are_named(tmp_path):
    prepared.write(tmp_path, "emnist/letters", GREY, [0] * 4)
    assert data.load("emnist", data_dir=str(tmp_path)).identity == "emnist/letters/1.0.0/test"
    prepared.write(tmp_path, "emnist/digits", GREY, [0] * 4)
    assert data.load("emnist/digits", data_dir=str(tmp_path)).identity == "emnist/digits/1.0.0/test"
    refused("give one of emnist/digits, emnist/letters", "emnist", data_dir=str(tmp_path))


def test_tfrecord_is_named_with_its_conversion(tmp_path):
    root = tmp_path / "my data"
    folder = prepared.write(root, "cifar10:3.0.2", COLOUR, [0] * 4, fileFormat="tfrecord")
    message = refused("data set cifar10 is prepared as tfrecord", "cifar10", data_dir=str(root))
    assert f"tfds convert_format --dataset_version_dir='{folder}' --out_file_format=array_record" in message
    # What that command makes: both formats in one folder, the new one as an alternative.
    prepared.write(root, "cifar10:3.0.2", COLOUR, [0] * 4, alternativeFileFormats=["array_record"])
    described = json.loads((folder / "dataset_info.json").read_text())
    described["fileFormat"], described["splits"] = "tfrecord", described["splits"][:1]
    (folder / "dataset_info.json").write_text(json.dumps(described))
    found, _ = data.load("cifar10", data_dir=str(root)).take(range(4))
    np.testing.assert_array_equal(found, COLOUR.astype(np.float32) / 255)


def test_old_folders_are_read_by_code(tmp_path):
    """Versions of TFDS before 4.0 wrote no features; those of a known set are in TFDS."""
    for form, more in (("array_record", []), ("tfrecord", ["array_record"])):
        root = tmp_path / form
        folder = prepared.write(root, "cifar10:3.0.2", COLOUR, [3, 1, 4, 1])
        (folder / "features.json").unlink()
        described = json.loads((folder / "dataset_info.json").read_text())
        described |= {"fileFormat": form, "alternativeFileFormats": more}
        (folder / "dataset_info.json").write_text(json.dumps(described))
        dataset = data.load("cifar10", data_dir=str(root))
        assert dataset.take(range(4))[1].tolist() == [3, 1, 4, 1] and dataset.identity == "cifar10/3.0.2/test"


def test_printed_flags_exist():
    """The flags of TFDS's own command, from its source: its module needs TensorFlow."""
    folder = pathlib.Path(tfds.__file__).parent / "scripts" / "cli"

    def fields(file):
        tree = ast.parse((folder / file).read_text())
        return {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}

    assert {"dataset_version_dir", "out_file_format"} <= fields("convert_format.py")
    assert {"file_format", "manual_dir", "data_dir"} <= fields("cli_utils.py")
    assert {"array_record"} <= {one.value for one in tfds.core.FileFormat}


def test_missing_split_names_those_there(tmp_path):
    prepared.write(tmp_path, "tf_flowers", COLOUR, [0, 1, 2, 3], split="train")
    refused(
        r"split 'test' of tf_flowers does not exist, or is empty; its splits are train, .*'train\[90%:\]'",
        "tf_flowers",
        data_dir=str(tmp_path),
    )
    for split in ("te st", "train[200%:]", "train[", "train[3:1]", "train[:0]", "../train"):
        refused("does not exist, or is empty; its splits are train", "tf_flowers", split, str(tmp_path))
    part = data.load("tf_flowers", "train[50%:]", str(tmp_path))
    assert part.take(range(len(part)))[1].tolist() == [2, 3] and part.identity == "tf_flowers/1.0.0/train[50%:]"


def test_missing_data_names_what_helps(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    for name in ("cifar10", "mnist"):
        refused(rf"{name} is not prepared in .*\n.*tfds build {name} ", name, data_dir=str(tmp_path))
    refused("none, which does not exist", "mnist", data_dir=str(tmp_path / "none"))
    refused("tfds build imagenet2012 .* --manual_dir", "imagenet", data_dir=str(tmp_path))
    folder = prepared.write(tmp_path, "mnist", GREY, [0] * 4)
    for inside in (folder, folder.parent):
        refused(f"give the folder above it, --data-dir {tmp_path}$", "mnist", data_dir=str(inside))
    refused("is a file; it must be a folder", "mnist", data_dir=str(folder / "features.json"))

    def forbidden(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module, "_versions", forbidden)
    refused("cannot be read: Permission denied", "mnist", data_dir=str(tmp_path))


def test_misspelt_name_gets_its_neighbour(tmp_path):
    for name, meant in (("cifar1o", "cifar10"), ("svhn", "svhn_cropped"), ("cats_vs_dog", "cats_vs_dogs")):
        refused(f"unknown data set '{name}'.*did you mean '{meant}'", name, data_dir=str(tmp_path))
    for name, meant in (
        ("cifar1O", "cifar10"),
        ("didgits", "digits"),
        ("CIFAR-10", "cifar10"),
        ("MNIST", "mnist"),
    ):
        refused(f"unknown data set '{name}'.*did you mean '{meant}'", name)
        with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
            config.Training(dataset=name)
    for name in ("", "../digits", "mnist/..", "gs://mnist", "huggingface:mnist", "mnist:latest", "a b"):
        refused("unknown data set", name)


def test_similar_name_can_be_given(tmp_path):
    """A set of one's own whose name looks like a typing error."""
    prepared.write(tmp_path, "mnist2", GREY, [0] * 4)
    refused("did you mean 'mnist'.*with its version: mnist2:1.0.0$", "mnist2", data_dir=str(tmp_path))
    assert data.load("mnist2:1.0.0", data_dir=str(tmp_path)).identity == "mnist2/1.0.0/test"


def test_no_registered_name_looks_misspelt():
    names = tfds.list_builders(with_community_datasets=False)
    assert len(names) > 100
    for name in names:
        config.Selection(dataset=name)


def test_other_tasks_are_refused(tmp_path):
    kinds = {
        "detection": {
            "image": tfds.features.Image(), "objects": tfds.features.Sequence(tfds.features.ClassLabel()),
        },
        "two_images": {
            "left": tfds.features.Image(), "right": tfds.features.Image(),
            "label": tfds.features.ClassLabel(num_classes=2),
        },
        "regression": {"image": tfds.features.Image(), "label": tfds.features.Scalar(np.float32)},
        "text": {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)},
    }  # fmt: skip
    for name, features in kinds.items():
        prepared.write(tmp_path, name, [], [], features=features)
        message = refused("is no set of images with one class each; it has", name, data_dir=str(tmp_path))
        assert all(key in message for key in features) and "\n" not in message
    label = tfds.features.ClassLabel(num_classes=2)
    deep = {"image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16), "label": label}
    prepared.write(tmp_path, "deep", [], [], features=deep)
    refused("images of data set deep are uint16 .* must be uint8", "deep", data_dir=str(tmp_path))
    unnamed = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel()}
    prepared.write(tmp_path, "unnamed", [], [], features=unnamed)
    refused("does not say how many classes", "unnamed", data_dir=str(tmp_path))


def test_keys_may_have_other_names(tmp_path):
    features = {
        "picture": tfds.features.Image(shape=(28, 28, 1)),
        "kind": tfds.features.ClassLabel(num_classes=5),
        "id": tfds.features.Text(),
    }
    records = [{"picture": prepared.png(x), "kind": k, "id": str(k)} for k, x in enumerate(GREY)]
    prepared.write(tmp_path, "named", GREY, [], features=features, records=records)
    found, labels = data.load("named", data_dir=str(tmp_path)).take(range(4))
    np.testing.assert_array_equal(found, GREY.astype(np.float32) / 255)
    assert labels.tolist() == [0, 1, 2, 3]


def test_supervised_keys_choose_among_labels(tmp_path):
    """As in CIFAR-100, which has 20 coarse and 100 fine labels."""
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
        "coarse": tfds.features.ClassLabel(num_classes=2),
    }
    pair = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "coarse"}]}}
    for name, more, expected in (("fine", {}, [5, 6, 7, 8]), ("rough", {"supervisedKeys": pair}, [1, 1, 1, 1])):
        records = [{"image": prepared.png(x), "label": 5 + k, "coarse": 1} for k, x in enumerate(GREY)]
        prepared.write(tmp_path, name, GREY, [], features=features, records=records, **more)
        assert data.load(name, data_dir=str(tmp_path)).take(range(4))[1].tolist() == expected


def test_image_without_a_class_is_unreadable(tmp_path):
    prepared.write(tmp_path, "imagenet2012", COLOUR, [3, -1, 2, 1], split="validation", num_classes=1000)
    dataset = data.load("imagenet", data_dir=str(tmp_path))
    assert dataset[0][1] == 3 and dataset.num_classes == 1000
    with pytest.raises(ValueError, match=r"its label is -1; labels must be integers in \[0, 1000\)"):
        dataset[1]


def test_damaged_folder_is_refused(tmp_path):
    folder = prepared.write(tmp_path, "mnist", GREY, [0] * 4)
    (file,) = folder.glob("*.array_record*")
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], content[:100], b"", None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        dataset = data.load("mnist", data_dir=str(tmp_path))
        with pytest.raises(ValueError, match=r"^cannot be read: "):
            dataset[2]
        with pytest.raises(ValueError, match=r"image [0-3] cannot be read: "):
            next(data.batches(dataset, 4, seed=0))
    (folder / "features.json").write_text("{")
    refused("data set mnist in .* cannot be read", "mnist", data_dir=str(tmp_path))
    (folder / "dataset_info.json").write_text("{")
    refused("dataset_info.json cannot be read", "mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_several_sizes_are_cropped(tmp_path, channels):
    photos = [RNG.integers(0, 256, (40 + 9 * k, 60, channels), dtype=np.uint8) for k in range(3)]
    prepared.write(tmp_path, "imagenette", photos, [0, 1, 2], split="validation")
    dataset = data.load("imagenette", "validation", str(tmp_path))
    images, _ = dataset.take(range(3))
    assert images.shape == (3, 224, 224, channels) and images.min() >= 0 and 0.5 < images.max() <= 1
    shown, labels = next(data.batches(dataset, 3, seed=0))
    np.testing.assert_array_equal(shown[np.argsort(labels)], images)


def test_imagenet_is_resized_and_centre_cropped(tmp_path):
    photos = [RNG.integers(0, 256, (300 + index, 500, 3), dtype=np.uint8) for index in range(3)]
    prepared.write(tmp_path, "imagenet2012:5.1.0", photos, [0, 1, 2], split="validation", num_classes=1000)
    dataset = data.load("imagenet", data_dir=str(tmp_path))
    images, labels = dataset.take([0, 2])
    assert images.shape == (2, 224, 224, 3) and images.dtype == np.float32 and labels.tolist() == [0, 2]
    assert images.min() >= 0 and images.max() <= 1 and dataset.num_classes == 1000
    assert dataset.identity == "imagenet2012/5.1.0/validation"
    # The middle column of a horizontal ramp is grey 0.5 at any aspect ratio.
    ramp = np.tile(np.linspace(0, 255, 700).astype(np.uint8)[None, :, None], (400, 1, 3))
    assert dataset.prepare(ramp)[:, 111:113].mean() == pytest.approx(0.5, abs=0.01)
    shown = next(data.batches(dataset, 2, seed=0))[0]
    assert shown.shape == (2, 224, 224, 3) and not np.array_equal(shown[0], images[0])


def test_cifar10_is_cropped_with_zero_padding(tmp_path):
    squares = [np.full((32, 32, 3), 100 + index, np.uint8) for index in range(4)]
    prepared.write(tmp_path, "cifar10:3.0.2", squares, range(4), split="train")
    dataset = data.load("cifar10", "train", str(tmp_path))
    np.testing.assert_allclose(dataset[1][0], 101 / 255, rtol=1e-6)
    images = np.concatenate([x for x, _ in itertools.islice(data.batches(dataset, 4, seed=0), 40)])
    bright = (images[..., 0] > 0).sum((1, 2))
    # A crop shifted by (a, b) keeps (32 - |a|)(32 - |b|) pixels of the image; a and b are from -4 to 4.
    sides = [32 - abs(move) for move in range(-4, 5)]
    assert set(bright.tolist()) <= {a * b for a in sides for b in sides}
    assert bright.min() <= 29 * 29 and bright.max() == 32 * 32
    one, two = (next(data.batches(dataset, 4, seed=0, first=3))[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_large_sets_are_not_kept(tmp_path, monkeypatch):
    prepared.write(tmp_path, "mnist", GREY, [0] * 4)
    sources = []
    for largest in (4 * 28 * 28, 4 * 28 * 28 - 1):
        monkeypatch.setattr(module, "_LARGEST_IN_MEMORY", largest)
        sources.append(data.load("mnist", data_dir=str(tmp_path)).source)
    assert sources[0][1][0] is sources[0][1][0] and sources[1][1][0] is not sources[1][1][0]
    np.testing.assert_array_equal(sources[0][1][0], sources[1][1][0])


def test_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
    prepared.write(tmp_path, "mnist", GREY, [0] * 4)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(data.load("mnist")) == 4


def test_preparation_without_tensorflow_is_explained(tmp_path, monkeypatch):
    def build(*arguments, **options):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds, "builder", build)
    refused(
        "preparing data set mnist needs tensorflow: pip install tensorflow",
        "mnist",
        data_dir=str(tmp_path),
        download=True,
    )


def test_preparation_downloads_in_random_access(tmp_path, monkeypatch):
    class Builder:
        def __init__(self, name, data_dir, file_format):
            self.found = name, data_dir, file_format

        def download_and_prepare(self):
            name, data_dir, file_format = self.found
            prepared.write(data_dir, name, GREY, [0] * 4, fileFormat=file_format)

    monkeypatch.setattr(tfds, "builder", Builder)
    assert len(data.load("mnist", data_dir=str(tmp_path), download=True)) == 4
    # What is there is not prepared again.
    monkeypatch.setattr(tfds, "builder", None)
    assert len(data.load("mnist", data_dir=str(tmp_path), download=True)) == 4


def test_grey_photo_is_resized_like_colour():
    grey = RNG.integers(0, 256, (50, 70, 1), dtype=np.uint8)
    colour = transforms.centre_crop(np.repeat(grey, 3, -1))
    np.testing.assert_array_equal(transforms.centre_crop(grey), colour[..., :1])
