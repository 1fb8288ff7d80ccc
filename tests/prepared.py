"""Folders as TensorFlow Datasets prepares them, written without TensorFlow."""

import io
import json
import struct

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image


def write(root, name, images, labels, *, split="test", num_classes=10, features=None, records=None, **info):
    """Writes one split of a set to `root`, and returns the folder of its version.

    Args:
      root: data directory.
      name: `NAME[/CONFIGURATION][:VERSION]`.
      images: uint8 [height, width, channels] each.
      labels: one an image.
      split: name of the split.
      num_classes: number of classes.
      features: features of the set, by default `image` and `label`.
      records: the images' records, where they are not images with labels.
      info: entries of the description that differ from the default.
    """
    path, _, version = name.partition(":")
    version = version or "1.0.0"
    folder = root / path / version
    folder.mkdir(parents=True, exist_ok=True)
    if features is None:
        shapes = {np.shape(image)[:2] for image in images}
        sides = next(iter(shapes)) if len(shapes) == 1 else (None, None)
        features = {
            "image": tfds.features.Image(shape=(*sides, np.shape(images[0])[2])),
            "label": tfds.features.ClassLabel(num_classes=num_classes),
        }
    features = tfds.features.FeaturesDict(features)
    features.save_config(folder)
    pairs = zip(images, labels, strict=True)
    records = records or [{"image": png(image), "label": int(label)} for image, label in pairs]
    encoded = [features.serialize_example(record) for record in records]
    suffix = info.get("fileFormat", "array_record")
    file = folder / f"{path.split('/')[0]}-{split}.{suffix}-00000-of-00001"
    (write_tfrecord if suffix == "tfrecord" else write_array_record)(file, encoded)
    described = folder / "dataset_info.json"
    splits = json.loads(described.read_text())["splits"] if described.exists() else []
    splits.append(
        {
            "name": split,
            "shardLengths": [str(len(encoded))],
            "numBytes": str(sum(map(len, encoded))),
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
    )
    base, *configuration = path.split("/")
    entries = {"name": base, "version": version, "fileFormat": "array_record", "splits": splits, **info}
    if configuration:
        entries["configName"] = configuration[0]
    described.write_text(json.dumps(entries))
    return folder


def png(image):
    """An image as a file in memory."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    file.seek(0)
    return file


def write_array_record(path, encoded):
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for data in encoded:
        writer.write(data)
    writer.close()


def write_tfrecord(path, encoded):
    """Records with empty checksums: nobody reads them."""
    with path.open("wb") as file:
        for data in encoded:
            file.write(struct.pack("<QI", len(data), 0) + data + struct.pack("<I", 0))
