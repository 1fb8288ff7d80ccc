"""Data sets of users: an `.npz` file of images and labels."""

from __future__ import annotations

import hashlib
import pathlib
import zipfile

import numpy as np

from deqsmooth.config import checks
from deqsmooth.data import contents, dataset, transforms

_LARGEST = 2**34
_NEEDED = "a .npz file with the arrays 'images' and 'labels'"


def load(path: str | None, *, check_all: bool = False) -> dataset.Dataset:
    """Loads a `.npz` file with `images` and `labels`; the rules are those of `check_images` and `check_labels`.

    An image with a pixel that breaks the rule is refused when it is read, so that the others can be used.

    Args:
      path: the file. None, which a command line gives without `--data-dir`, is refused.
      check_all: whether the file is refused if a single image cannot be used; else only if all cannot.

    Raises:
      ValueError: the file cannot be read, or breaks the rules.
    """
    if path is None:
        raise ValueError(f"data set arrays needs --data-dir FILE.npz, {_NEEDED}")
    images, labels = _read(path)
    try:
        contents.check_form(images)
        labels = contents.check_labels(labels, len(images))
        unusable = contents.unusable(images)
        if unusable.any() if check_all else unusable.all():
            contents.check_images(images)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    pairs = list(zip(images, labels.tolist(), strict=True))
    identity = f"sha256:{hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}"
    num_classes = int(labels.max()) + 1
    return dataset.Dataset(pairs, num_classes, identity, contents.to_float, transforms.stack, labels)


def _read(path: str) -> tuple[np.ndarray, np.ndarray]:
    if pathlib.Path(path).is_dir():
        raise ValueError(f"{path} is a folder; it must be {_NEEDED}")
    try:
        checks.unpacks_to(path, _LARGEST)
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("images", "labels") if name not in file.files]
            if missing:
                names = ", ".join(sorted(file.files)[:20]) or "none"
                raise ValueError(f"it has no array {missing[0]!r}; its arrays: {names}")
            return file["images"], file["labels"]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}; it must be {_NEEDED}") from None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no {_NEEDED[2:]}: it is no archive, or is damaged ({error})") from None
    except Exception as error:
        # Damaged archives and arrays raise exceptions of many types.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            reason = "an array holds Python objects, which may run code when they are loaded; give numbers"
        raise ValueError(f"{path} is no {_NEEDED[2:]}: {reason}") from None
