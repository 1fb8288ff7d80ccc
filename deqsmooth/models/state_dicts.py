"""State dicts of PyTorch: reads files, and finds the network and its input normaliser in them.

Takes a file, gives numpy arrays by name. Needs PyTorch only for PyTorch files.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from deqsmooth.config import checks
from deqsmooth.models import checkpoints

_ENTRIES = ("state_dict", "model_state_dict", "model", "net")
_NEEDED = "a .npz file of arrays, or a PyTorch file of a state dict, alone or under " + ", ".join(_ENTRIES)
_SAVE = "torch.save(model.state_dict(), FILE)"
_UNUSED = "num_batches_tracked"
# Other names of the same layers, in residual networks for CIFAR-10.
_ALIASES = ((re.compile(r"(^|\.)shortcut\."), r"\1downsample."), (re.compile(r"(^|\.)linear\."), r"\1fc."))
# Names that tell one of our families, of any size.
_MARKERS = ("layer1.0.conv1.weight", "fullstage.branches.0.blocks.0.conv1.weight_v")
_MEANS = ("mean", "new_mean", "means", "_mean", "mu")
_STDS = ("std", "new_std", "sds", "_std", "sigma")


class Network(NamedTuple):
    """A network that was found in a state dict.

    Attributes:
      arrays: its arrays, by names without a prefix.
      mean: mean of each image channel in its input normaliser; None if it has none.
      std: standard deviation of each image channel, likewise.
      note: what was taken off the names, for messages; empty if nothing was.
    """

    arrays: dict[str, np.ndarray]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    note: str


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file, or of a PyTorch file with a state dict, alone or as an entry.

    PyTorch files are loaded with `weights_only=True`, so that no code in them is run.

    Raises:
      ValueError: if the file cannot be read, or PyTorch is needed and not installed.
    """
    place = pathlib.Path(path)
    try:
        if not place.is_file():
            state = (
                "is a folder" if place.is_dir() else "is no regular file" if place.exists() else "does not exist"
            )
            raise ValueError(f"{path} {state}; it must be {_NEEDED}")
        with place.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    if place.suffix == ".npz":
        return _read_npz(path)
    # An archive, or the pickle of older files.
    if start[:2] != b"PK" and start[:1] != b"\x80":
        raise ValueError(f"{path} is no PyTorch file; it must be {_NEEDED}")
    return _read_pytorch(path)


def network(state: Mapping[str, np.ndarray], expected: Collection[str], channels: int) -> Network:
    """Finds the network with expected names in a state dict.

    Common training code wraps a network, so that all its names have a prefix: `module.` of DataParallel, `1.` or
    `model.` of a network behind an input normaliser, `module.model.` of both. The prefix is that under which most
    of the expected names are found. If it is found twice, as in code that attacks the model during training, both
    must hold the same, and the shorter prefix is taken. Of the other names, a mean and a standard deviation
    with one entry a channel are those of the normaliser.

    Args:
      state: arrays by name.
      expected: names of the network's arrays.
      channels: channels of an image.

    Raises:
      ValueError: there are two networks or two normalisers, and they differ; or a normaliser breaks its rule.
    """
    arrays = {_renamed(name, state): np.asarray(x) for name, x in state.items() if not name.endswith(_UNUSED)}
    prefixes = _prefixes(arrays, expected)
    prefix = prefixes[0]
    for copy in prefixes[1:]:
        for name in [name for name in arrays if name.startswith(copy)]:
            original = arrays.get(prefix + name.removeprefix(copy))
            if original is None:
                continue
            if not np.array_equal(original, arrays.pop(name)):
                raise ValueError(
                    f"the state dict holds two networks that differ, under {prefix!r} and {copy!r}; keep the "
                    "names that begin with one of them: {k: v for k, v in state.items() if k.startswith(PREFIX)}"
                )
    found = {name.removeprefix(prefix): x for name, x in arrays.items()}
    mean, std, used = _normaliser(found, expected, channels)
    left = {name: x for name, x in found.items() if name not in used}
    taken = [f"{one!r}" for one in prefixes if one]
    note = f"; its names begin with {' and with '.join(taken)}, which was taken off" if taken else ""
    return Network(left, mean, std, note)


def _read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        checks.unpacks_to(path, checkpoints.LARGEST)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:
        # Damaged archives and arrays raise exceptions of many types.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            reason = "an array holds Python objects, which may run code when they are loaded"
        raise ValueError(f"{path} is no .npz file: {reason}") from None


def _read_pytorch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        reason = "" if isinstance(error, ModuleNotFoundError) else f" ({str(error).splitlines()[0]})"
        raise ValueError(f"reading {path} needs PyTorch: pip install torch{reason}") from None
    try:
        if zipfile.is_zipfile(path):
            checks.unpacks_to(path, checkpoints.LARGEST)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch raises exceptions of many types; their texts advise to run the code in the file.
        raise ValueError(f"{path} {_refusal(str(error))}") from None
    state: Any = loaded
    if isinstance(loaded, dict):
        state = next((loaded[name] for name in _ENTRIES if isinstance(loaded.get(name), dict)), loaded)
    entries = state.items() if isinstance(state, dict) else ()
    tensors = {str(name): x for name, x in entries if isinstance(x, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds {_described(loaded)}, and no state dict; it must be {_NEEDED}")
    arrays = {}
    for name, x in tensors.items():
        try:
            dense = x.detach().to_dense() if x.layout != torch.strided else x.detach()
            arrays[name] = (dense.float() if dense.is_floating_point() else dense).numpy()
        except (RuntimeError, TypeError, NotImplementedError):
            raise ValueError(f"{path}: {name!r} is a tensor of {x.dtype} that has no values here") from None
    return arrays


def _refusal(reason: str) -> str:
    """Says why PyTorch did not load a file, from the text of its exception."""
    if match := re.search(r"(?:Unsupported (?:global|class)|GLOBAL)\W*(?:GLOBAL )?([A-Za-z_][\w.]*)", reason):
        return (
            f"holds Python objects ({match[1]}) and not only weights; they may run code and are not loaded: save "
            f"the weights alone, with {_SAVE}"
        )
    if "TorchScript" in reason:
        return f"is a TorchScript program, which is not loaded; save the weights alone, with {_SAVE}"
    if "unpacked; it must be" in reason:
        return f"is too large: {reason}"
    return f"is damaged, or no PyTorch file; it must be {_NEEDED}"


def _described(loaded: object) -> str:
    if not isinstance(loaded, dict):
        return f"an object of type {type(loaded).__name__}"
    entries = [f"{name!r} ({type(x).__name__})" for name, x in list(loaded.items())[:10]]
    return f"the entries {', '.join(entries)}" if entries else "an empty dict"


def _renamed(name: str, state: Mapping[str, np.ndarray]) -> str:
    """The name with the parts that the expected names have for it."""
    for pattern, part in _ALIASES:
        other = pattern.sub(part, name)
        name = name if other in state else other
    return name


def _prefixes(arrays: Mapping[str, np.ndarray], expected: Collection[str]) -> list[str]:
    """Returns the prefixes under which the network is found, the shortest first; if it is not, the empty one."""
    counts: Counter[str] = Counter()
    by_last: dict[str, list[str]] = {}
    for name in expected:
        by_last.setdefault(name.rsplit(".", 2)[-2], []).append(name)
    for name in arrays:
        for one in by_last.get(name.rsplit(".", 2)[-2] if "." in name else "", ()):
            if name == one or name.endswith(f".{one}"):
                counts[name[: len(name) - len(one)]] += 1
    most = max(counts.values(), default=0)
    sizes = {prefix: sum(name.startswith(prefix) for name in arrays) for prefix in counts}
    # A part of another network has some of the names, too.
    found = [p for p, count in counts.items() if count == most and 2 * count >= min(len(expected), sizes[p])]
    if not found:
        found = [name.removesuffix(marker) for name in arrays for marker in _MARKERS if name.endswith(marker)]
    return sorted(found, key=lambda prefix: (len(prefix), prefix)) or [""]


def _normaliser(
    arrays: Mapping[str, np.ndarray], expected: Collection[str], channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, set[str]]:
    """Returns mean and standard deviation of the input normaliser, or None twice, and the names of its arrays."""
    found: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {}
    used: set[str] = set()
    for name, x in arrays.items():
        parent, _, last = name.rpartition(".")
        if name in expected or last not in _MEANS:
            continue
        partner = f"{parent}.{_STDS[_MEANS.index(last)]}".removeprefix(".")
        if partner not in arrays:
            continue
        mean, std = _per_channel(name, x, channels), _per_channel(partner, arrays[partner], channels)
        checks.holds(min(std) > 0, f"standard deviation {partner!r}", std, "positive")
        found[mean, std] = name
        used |= {name, partner}
    if len(found) > 1:
        listed = ", ".join(f"{name!r} {mean} and {std}" for (mean, std), name in found.items())
        raise ValueError(f"the state dict holds input normalisers that differ: {listed}; keep one")
    mean_std = next(iter(found), None)
    return (*mean_std, used) if mean_std else (None, None, used)


def _per_channel(name: str, x: np.ndarray, channels: int) -> tuple[float, ...]:
    checks.holds(
        x.size in (1, channels),
        f"size of {name!r}",
        x.size,
        f"1 or the number of channels of an image, {channels}",
    )
    # The decimals that were written in the training code, as far as float32 has kept them.
    values = tuple(float(str(np.float32(value))) for value in x.reshape(-1))
    checks.holds(all(map(math.isfinite, values)), f"{name!r}", values, "finite")
    return values * (channels // len(values))
