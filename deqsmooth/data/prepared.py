"""Image classification sets that TensorFlow Datasets (TFDS) has prepared in a folder."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from deqsmooth.config import selection
from deqsmooth.data import contents, dataset, transforms

_TFDS_NAMES = {"imagenet": "imagenet2012"}
_RANDOM_ACCESS = {"array_record", "parquet"}
_AUGMENTATIONS: dict[str, dataset.Augment] = {
    "cifar10": transforms.crop_and_flip,
    "cifar100": transforms.crop_and_flip,
    "imagenet2012": transforms.resized_crops_and_flip,
}
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO = "dataset_info.json"
_LARGEST_IN_MEMORY = 2**31
# TFDS's command loads all of them, whatever it does.
_INSTALL = "pip install tensorflow apache-beam mlcroissant"


def load(name: str, split: str, data_dir: str | None, *, download: bool = False) -> dataset.Dataset:
    """Loads a split of an image classification set of TFDS; shapes and classes are those of its description.

    Images of several sizes are resized and cropped to 224 x 224, those of one size stay as they are. Training
    images of `cifar10` and `cifar100` are cropped and flipped, those of `imagenet` are parts of any size, flipped;
    those of other sets are not augmented.

    Args:
      name: name of the set, `NAME[/CONFIGURATION][:VERSION]`; by default the newest version in the folder.
      split: name of a split, or a part of one in TFDS's notation.
      data_dir: data directory; None for that of TFDS.
      download: whether TFDS may download and prepare a missing set.

    Raises:
      ValueError: the set is not there, not in a format with random access, or not one of images with one class
        each; or the split does not exist.
    """
    # TFDS and its reader log advice on speed at this level, through absl's logger.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    full_name = _TFDS_NAMES.get(name, name)
    root = epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    folder = _find(root, full_name)
    if folder is None and download:
        _prepare(full_name, root)
        folder = _find(root, full_name)
    if folder is None:
        raise ValueError(_missing(name, full_name, root))
    formats = _formats(folder)
    if not formats & _RANDOM_ACCESS:
        raise ValueError(
            f"data set {name} is prepared as {', '.join(sorted(formats))} in {folder}; its images are read one by "
            f"one, which needs array_record: convert it once with\n"
            f"  {_INSTALL} && tfds convert_format --dataset_version_dir={shlex.quote(str(folder))} "
            "--out_file_format=array_record"
        )
    return _dataset(name, split, root, folder)


def _find(root: epath.Path, full_name: str) -> epath.Path | None:
    """Returns the folder of a set's newest version, of those with random access if there are any; or None.

    Raises:
      ValueError: the data directory cannot be read, or the set has several configurations and none is named.
    """
    try:
        if root.exists() and not root.is_dir():
            raise ValueError(f"data directory {root} is a file; it must be a folder of sets that TFDS prepared")
        if root.exists():
            # Raises if the folder may not be read; `exists` of what is in it would only be false.
            next(iter(root.iterdir()), None)
        return _newest(root, full_name)
    except OSError as error:
        raise ValueError(f"data directory {root} cannot be read: {error.strerror or error}") from None


def _newest(root: epath.Path, full_name: str) -> epath.Path | None:
    name, _, version = full_name.partition(":")
    versions = _versions(root / name)
    if not versions and "/" not in name and (root / name).is_dir():
        inside = {path.name: _versions(path) for path in (root / name).iterdir() if path.is_dir()}
        configurations = {config: found for config, found in inside.items() if found}
        if len(configurations) > 1:
            names = ", ".join(f"{name}/{config}" for config in sorted(configurations))
            raise ValueError(f"data set {name} has several configurations in {root}; give one of {names}")
        versions = next(iter(configurations.values()), [])
    chosen = [path for path in versions if not version or path.name == version]
    return max(chosen, key=lambda path: (bool(_formats(path) & _RANDOM_ACCESS), _order(path)), default=None)


def _versions(folder: epath.Path) -> list[epath.Path]:
    """Returns the prepared versions in the folder of a set or of its configuration."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _VERSION.fullmatch(path.name) and (path / _INFO).exists()]


def _order(path: epath.Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split(".")))


def _formats(folder: epath.Path) -> set[str]:
    """Returns the file formats in which a version is prepared."""
    try:
        info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
        # Versions of TFDS without this entry knew one format.
        return {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", ())}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / _INFO} cannot be read: {str(error).splitlines()[0]}") from None


def _missing(name: str, full_name: str, root: epath.Path) -> str:
    """Says that a set is not in a data directory, and what may help."""
    import tensorflow_datasets as tfds

    base = re.split("[/:]", full_name)[0]
    known = {*selection.DATASETS, *tfds.list_builders(with_community_datasets=False)}
    if base not in known:
        starting = sorted(one for one in known if one.startswith(base))
        nearest = difflib.get_close_matches(base, sorted(known), 1) or starting
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        return f"unknown data set {name!r}: it is neither in {root} nor a name of TensorFlow Datasets{hint}"
    above = [path for path in (root, *root.parents[:2]) if path.name == base and root.exists()]
    if above:
        return f"data set {name} is not in {root}; give the folder above it, --data-dir {above[0].parent}"
    # ImageNet's archives can only be downloaded with an account.
    archives = " --manual_dir FOLDER_OF_THE_ILSVRC2012_TAR_FILES" if base == "imagenet2012" else ""
    return (
        f"data set {name} is not prepared in {root}{'' if root.exists() else ', which does not exist'}; "
        f"prepare it once with\n  {_INSTALL} && tfds build {full_name} --file_format=array_record{archives} "
        "[--data_dir DIR], then give --data-dir DIR"
    )


def _prepare(full_name: str, root: epath.Path) -> None:
    """Lets TFDS download and prepare a set."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(full_name, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except ImportError as error:
        raise ValueError(f"preparing data set {full_name} needs {error.name}: {_INSTALL}") from None
    except tfds.core.DatasetNotFoundError:
        return
    except Exception as error:
        # Downloads, archives and generators raise exceptions of many types.
        raise ValueError(f"data set {full_name} cannot be prepared: {_reason(error)}") from error


def _dataset(name: str, split: str, root: epath.Path, folder: epath.Path) -> dataset.Dataset:
    import tensorflow_datasets as tfds

    try:
        if (folder / "features.json").exists():
            builder = tfds.builder_from_directory(folder)
        else:
            # Prepared by an old version of TFDS, so that only the set's own code knows its features.
            builder = tfds.builder(f"{folder.parent.relative_to(root)}:{folder.name}", data_dir=root)
            chosen = min(_formats(folder) & _RANDOM_ACCESS)
            builder.info.set_file_format(chosen, override=True, override_if_initialized=True)
        info = builder.info
        image, label = _keys(name, info)
        source = _source(builder, name, split)
    except _UnfitError:
        raise
    except Exception as error:
        raise ValueError(f"data set {name} in {folder} cannot be read: {_reason(error)}") from error
    height, width, channels = info.features[image].shape
    num_classes = info.features[label].num_classes
    pairs: dataset.Pairs = _Records(source, image, label, num_classes)
    prepare: Callable[[np.ndarray], np.ndarray] = contents.to_float
    augment: dataset.Augment = transforms.stack
    if height is None or width is None:
        prepare, augment = transforms.centre_crop, transforms.centre_crops
    elif len(source) * height * width * channels <= _LARGEST_IN_MEMORY:
        pairs = _Cached(pairs)
    augment = _AUGMENTATIONS.get(info.name, augment)
    names = tuple(info.features[label].names)
    identity = f"{info.full_name}/{split}"
    return dataset.Dataset(pairs, num_classes, identity, prepare, augment, class_names=names)


class _UnfitError(ValueError):
    """A data set is not one of images with one class each, or has no such split."""


def _source(builder: Any, name: str, split: str) -> Any:
    """Returns the data source of a split, or of parts of some, with at least one image."""
    try:
        source = builder.as_data_source(split=split)
        if len(source):
            return source
    except ValueError:
        pass
    splits = sorted(builder.info.splits)
    raise _UnfitError(
        f"split {split!r} of {name} does not exist, or is empty; its splits are {', '.join(splits)}, and parts of "
        f"them such as '{splits[0]}[90%:]' can be given, too"
    )


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of a set's image and of its label.

    Raises:
      _UnfitError: it has not one of each, or not of a form that models take.
    """
    import tensorflow_datasets as tfds

    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    labels = [key for key, feature in features.items() if type(feature) is tfds.features.ClassLabel]
    for pair in (info.supervised_keys, ("image", "label"), (*images[:2], *labels[:2])):
        if pair and len(pair) == 2 and pair[0] in images and pair[1] in labels:
            image, label = pair
            break
    else:
        has = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in sorted(features.items()))
        raise _UnfitError(
            f"data set {name} is no set of images with one class each; it has {has or 'no features'}"
        )
    found = features[image]
    if np.dtype(found.np_dtype) != np.uint8 or found.shape[-1] is None:
        raise _UnfitError(
            f"images of data set {name} are {np.dtype(found.np_dtype)} of shape {found.shape}; they must be "
            "uint8, with a fixed number of channels"
        )
    if not features[label].num_classes:
        raise _UnfitError(f"data set {name} does not say how many classes its label {label!r} has")
    return image, label


class _Records:
    """Pairs of a TFDS data source."""

    def __init__(self, source: Any, image: str, label: str, num_classes: int) -> None:
        self._source, self._image, self._label, self._num_classes = source, image, label, num_classes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dataset.Pair:
        record = self._source[index]
        label = int(record[self._label])
        # TFDS marks images of unknown class, as in the test split of ImageNet, by -1.
        if not 0 <= label < self._num_classes:
            raise ValueError(f"its label is {label}; labels must be integers in [0, {self._num_classes})")
        return record[self._image], label


class _Cached:
    """Pairs that are decoded once and kept in memory, for data sets that fit in memory."""

    def __init__(self, pairs: dataset.Pairs) -> None:
        self._pairs = pairs
        self._decoded: dict[int, dataset.Pair] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dataset.Pair:
        if index not in self._decoded:
            self._decoded[index] = self._pairs[index]
        return self._decoded[index]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
