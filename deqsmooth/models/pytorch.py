"""Conversion of PyTorch checkpoints: takes a state dict as numpy arrays, gives variables of `models.build(size)`.

The names of the arrays follow from the size of the model.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from deqsmooth import models, types
from deqsmooth.config import architecture
from deqsmooth.models import state_dicts

Convertible = architecture.MdeqModel | architecture.ResnetModel
"""Sizes of the families that have a PyTorch counterpart."""
_Path = tuple[str, ...]
_STRIP = "; a prefix P is taken off by {k.removeprefix(P): v for k, v in state.items()}"


def convert(state: Mapping[str, np.ndarray], size: Convertible) -> tuple[types.Variables, Convertible]:
    """Converts a PyTorch state dict to variables of a model.

    Args:
      state: arrays by name. All names may have a prefix; see `state_dicts.network`.
      size: size of the model.

    Returns:
      The variables, and the size, with mean and standard deviation of the input normaliser if the state dict has
      one.

    Raises:
      ValueError: if names are missing or unexpected, or the shape of an array is not that of the model.
    """
    table = names(size)
    found = state_dicts.network(state, table.keys(), size.image_shape[-1])
    for name, x in found.arrays.items():
        if not np.issubdtype(x.dtype, np.number) or not np.isfinite(x).all():
            raise ValueError(f"{name} has entries that are no finite numbers (type {x.dtype})")
    if found.mean and found.std:
        size = dataclasses.replace(size, mean=found.mean, std=found.std)
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    expected = {_path(key): x.shape for key, x in jax.tree_util.tree_leaves_with_path(template)}
    missing, unexpected = sorted(table.keys() - found.arrays.keys()), sorted(found.arrays.keys() - table.keys())
    converted = {path: _to_jax(name, found.arrays[name]) for name, path in table.items() if name in found.arrays}
    shapes = [
        f"{name} has shape {found.arrays[name].shape}, for {_to_pytorch(name, expected[path])}"
        for name, path in table.items()
        if path in converted and converted[path].shape != expected[path]
    ]
    notes = f"{found.note}{_hint(found, size)}"
    if len(missing) == len(table):
        raise ValueError(
            f"the state dict has none of the model's names, such as {missing[-1]!r}; its names: "
            f"{_listed(unexpected)}{notes or _STRIP}"
        )
    for kind, entries in (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", shapes)):
        if entries:
            raise ValueError(
                f"the state dict does not match the model: {len(entries)} {kind}: {_listed(entries)}{notes}"
            )
    variables: dict[str, Any] = {}
    for path, x in converted.items():
        inner = variables
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = x
    return variables, size


def names(size: Convertible) -> dict[str, _Path]:
    """Returns the PyTorch names of a model's arrays, with their paths in the variables."""
    return _mdeq(size) if isinstance(size, architecture.MdeqModel) else _resnet(size)


class _Table(dict[str, _Path]):
    """Names with their paths; every method adds the arrays of one layer."""

    def conv(self, name: str, *path: str, bias: bool = False) -> None:
        self[f"{name}.weight"] = ("params", *path, "kernel")
        if bias:
            self[f"{name}.bias"] = ("params", *path, "bias")

    def weight_normalised(self, name: str, *path: str) -> None:
        self[f"{name}.weight_v"] = ("params", *path, "direction")
        self[f"{name}.weight_g"] = ("params", *path, "scale")

    def norm(self, name: str, *path: str) -> None:
        self[f"{name}.weight"] = ("params", *path, "scale")
        self[f"{name}.bias"] = ("params", *path, "bias")

    def batch_norm(self, name: str, *path: str, affine: bool = True) -> None:
        if affine:
            self.norm(name, *path)
        self[f"{name}.running_mean"] = ("batch_stats", *path, "mean")
        self[f"{name}.running_var"] = ("batch_stats", *path, "var")


def _mdeq(size: architecture.MdeqModel) -> dict[str, _Path]:
    table = _Table()
    branches = range(len(size.channels))

    for index, stem in enumerate((("downsample.0", "downsample.1"), ("downsample.3", "downsample.4"))):
        table.conv(stem[0], "inject", f"conv_{index}")
        table.batch_norm(stem[1], "inject", f"norm_{index}")
    table.conv("stage0.0", "inject", "conv_2")
    table.batch_norm("stage0.1", "inject", "norm_2")

    for i in branches:
        block = f"fullstage.branches.{i}.blocks.0"
        for k in (1, 2):
            table.weight_normalised(f"{block}.conv{k}", "cell", f"block_{i}", f"conv_{k}")
        for k in (1, 2, 3):
            table.norm(f"{block}.gn{k}", "cell", f"block_{i}", f"norm_{k}")
        table.weight_normalised(f"fullstage.post_fuse_layers.{i}.conv", "cell", f"mix_{i}")
        for j in branches:
            for k in range(max(i - j, int(j > i))):
                layer = f"fullstage.fuse_layers.{i}.{j}.net" + (f".{k}" if j < i else "")
                table.conv(f"{layer}.conv", "cell", f"resample_{j}_to_{i}", f"conv_{k}")
                table.norm(f"{layer}.gnorm", "cell", f"resample_{j}_to_{i}", f"norm_{k}")

        head = f"incre_modules.{i}.0"
        for k in range(3):
            table.conv(f"{head}.conv{k + 1}", "readout", f"bottleneck_{i}", f"conv_{k}")
            table.batch_norm(f"{head}.bn{k + 1}", "readout", f"bottleneck_{i}", f"norm_{k}", affine=False)
        table.conv(f"{head}.downsample.0", "readout", f"bottleneck_{i}", "project")
        table.batch_norm(f"{head}.downsample.1", "readout", f"bottleneck_{i}", "project_norm")
        if i:
            table.conv(f"downsamp_modules.{i - 1}.0", "readout", f"down_{i}", bias=True)
            table.batch_norm(f"downsamp_modules.{i - 1}.1", "readout", f"down_norm_{i}")
    table.conv("final_layer.0", "readout", "final", bias=True)
    table.batch_norm("final_layer.1", "readout", "final_norm")
    table.conv("classifier", "readout", "classify", bias=True)
    return table


def _resnet(size: architecture.ResnetModel) -> dict[str, _Path]:
    table = _Table()
    table.conv("conv1", "conv")
    table.batch_norm("bn1", "norm")
    for stage, blocks in enumerate(size.blocks):
        for block in range(blocks):
            name, path = f"layer{stage + 1}.{block}", f"stage_{stage}_block_{block}"
            for k in range(3 if size.bottleneck else 2):
                table.conv(f"{name}.conv{k + 1}", path, f"conv_{k}")
                table.batch_norm(f"{name}.bn{k + 1}", path, f"norm_{k}")
            if not block and (stage or size.bottleneck):
                table.conv(f"{name}.downsample.0", path, "project")
                table.batch_norm(f"{name}.downsample.1", path, "project_norm")
    table.conv("fc", "classify", bias=True)
    return table


def _to_jax(name: str, x: np.ndarray) -> np.ndarray:
    """Converts an array to our layout: kernels HWIO, matrices [in, out], weight normalisation scales [out]."""
    if name.endswith("weight_g"):
        x = x.reshape(-1)
    elif x.ndim == 4:
        x = x.transpose(2, 3, 1, 0)
    elif x.ndim == 2:
        x = x.T
    return np.ascontiguousarray(x, np.float32)


def _path(key: tuple[jax.tree_util.DictKey, ...]) -> _Path:
    return tuple(entry.key for entry in key)


def _to_pytorch(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an array in PyTorch's layout, from that in ours."""
    if name.endswith("weight_g"):
        return (*shape, 1, 1, 1)
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def _listed(entries: Sequence[str]) -> str:
    return ", ".join(entries[:12]) + (", ..." if len(entries) > 12 else "")


def _hint(found: state_dicts.Network, size: Convertible) -> str:
    """Says which residual network the names are of, if they are of one of another size."""
    shapes = {name: x.shape for name, x in found.arrays.items()}
    blocks: dict[int, int] = {}
    for name in shapes:
        if match := re.match(r"layer(\d+)\.(\d+)\.conv1\.weight$", name):
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    stem = shapes.get("conv1.weight", ())
    if len(stem) != 4 or sorted(blocks) != list(range(1, len(blocks) + 1)):
        return ""
    stages = sorted(blocks)
    looks = {
        "blocks": tuple(blocks[stage] for stage in stages),
        "channels": tuple(shapes.get(f"layer{stage}.0.conv1.weight", (0,))[0] for stage in stages),
        "stem": stem[2],
        "num_classes": shapes.get("fc.weight", (10,))[0],
        "bottleneck": "layer1.0.conv3.weight" in shapes,
    }
    if all(getattr(size, name, None) == value for name, value in looks.items()):
        return ""
    flags = [f"--model.blocks {_commas(looks['blocks'])}", f"--model.channels {_commas(looks['channels'])}"]
    flags += [f"--model.stem {looks['stem']}", f"--model.num-classes {looks['num_classes']}"]
    flags += ["--model.bottleneck"] if looks["bottleneck"] else []
    return f"; its names are those of a residual network, such as --preset resnet110 {' '.join(flags)}"


def _commas(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
