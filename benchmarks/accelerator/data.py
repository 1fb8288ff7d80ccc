"""CIFAR-10 as one file of arrays, which the jobs of this folder read: made from a folder of TensorFlow Datasets.

The file has `images` and `labels` of the training split, so that `train.py --dataset arrays` reads it too, and
`test_images` and `test_labels`, uint8 [num, 32, 32, 3] and int64 [num]. `identities` names the two splits.

    python benchmarks/accelerator/data.py --data-dir ~/tensorflow_datasets --out cifar10.npz
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import pathlib

import numpy as np
import tyro

import deqsmooth as ds

_PART = 5000


@dataclasses.dataclass(frozen=True)
class Make:
    """Write images and labels of CIFAR-10 to a file.

    Attributes:
      data_dir: folder in which TensorFlow Datasets prepared them.
      out: the file.
    """

    data_dir: str
    out: pathlib.Path = pathlib.Path("runs/cifar10.npz")


def main() -> None:
    """Reads both splits and writes the file."""
    arguments = tyro.cli(Make)
    found: dict[str, np.ndarray] = {}
    identities = []
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for split, prefix in (("train", ""), ("test", "test_")):
            dataset = ds.load_dataset("cifar10", split, arguments.data_dir)
            identities.append(dataset.identity)
            starts = range(0, len(dataset), _PART)
            parts = pool.map(functools.partial(_part, arguments.data_dir, split), starts)
            images, labels = zip(*parts, strict=True)
            found[f"{prefix}images"], found[f"{prefix}labels"] = np.concatenate(images), np.concatenate(labels)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.out, **found, identities=np.array(identities))
    print(f"{len(found['images'])} and {len(found['test_images'])} images to {arguments.out}")


def _part(data_dir: str, split: str, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Stored images and labels from a start on."""
    dataset = ds.load_dataset("cifar10", split, data_dir)
    pairs = [dataset.stored(index) for index in range(start, min(start + _PART, len(dataset)))]
    return np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs], np.int64)


def load(path: pathlib.Path | None) -> tuple[ds.Dataset, ds.Dataset]:
    """Returns the training and the test images of a file; without one, a few made up for a smoke run."""
    if path is None:
        return _made_up(96, "made up"), _made_up(24, "made up")
    with np.load(path) as file:
        pairs = [(file[f"{prefix}images"], file[f"{prefix}labels"]) for prefix in ("", "test_")]
        names = file["identities"].tolist()
    # Records say which images they are about: those of the split that the file was made from.
    train, test = (
        dataclasses.replace(ds.arrays(*pair), identity=name) for pair, name in zip(pairs, names, strict=True)
    )
    return train, test


def _made_up(num: int, identity: str) -> ds.Dataset:
    """Noise of 8 x 8 pixels, brighter the higher the class, of ten classes."""
    labels = np.arange(num) % 10
    noise = np.random.default_rng(0).integers(0, 64, (num, 8, 8, 3), np.uint8)
    images = noise + (19 * labels).astype(np.uint8)[:, None, None, None]
    return dataclasses.replace(ds.arrays(images, labels), identity=identity)


if __name__ == "__main__":
    main()
