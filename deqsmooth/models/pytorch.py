"""Conversion of PyTorch checkpoints: takes a state dict as numpy arrays, gives variables of `models.build(size)`.

The names of the arrays follow from the size of the model. Only `read` needs PyTorch, for PyTorch files.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from deqsmooth import models, types
from deqsmooth.config import architecture, checks
from deqsmooth.models import checkpoints

_Path = tuple[str, ...]
_UNUSED = "num_batches_tracked"
# `module.` comes from DataParallel, and `1.` from a normalisation layer in front of the network (Cohen et al.'s
# code).
_PREFIX = re.compile(r"(module\.)?(1\.)?(module\.)?")


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file, or of a PyTorch file with a state dict, alone or under `state_dict`.

    PyTorch files are loaded with `weights_only=True`, so that no code in them is run.

    Raises:
      ValueError: if the file cannot be read, or PyTorch is needed and not installed.
    """
    if not pathlib.Path(path).is_file():
        raise ValueError(f"{path} does not exist; it must be a .npz file or a PyTorch file")
    if pathlib.Path(path).suffix == ".npz":
        try:
            checks.unpacks_to(path, checkpoints.LARGEST)
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz file: {error}") from None
    try:
        import torch
    except ImportError:
        raise ValueError(f"reading {path} needs PyTorch: pip install torch") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no PyTorch file of weights: {str(error).splitlines()[0]}") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    arrays = {name: x.numpy() for name, x in state.items() if isinstance(x, torch.Tensor)}
    if not arrays:
        raise ValueError(f"{path} holds no state dict; it must be the file's content or its entry 'state_dict'")
    return arrays


def convert(state: Mapping[str, np.ndarray], size: architecture.Model) -> types.Variables:
    """Converts a PyTorch state dict to variables of a model.

    Args:
      state: arrays by name; names may have the prefix `module.` of DataParallel, and `1.` of a network behind a
        normalisation layer.
      size: size of the model.

    Raises:
      ValueError: if names are missing or unexpected, or the shape of an array is not that of the model.
    """
    found = {
        _PREFIX.sub("", name, count=1): np.asarray(x) for name, x in state.items() if not name.endswith(_UNUSED)
    }
    table = names(size)
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    expected = {_path(key): x for key, x in jax.tree_util.tree_leaves_with_path(template)}
    missing, unexpected = sorted(table.keys() - found.keys()), sorted(found.keys() - table.keys())
    converted = {path: _to_jax(name, found[name]) for name, path in table.items() if name in found}
    shapes = [
        f"{name}: {converted[path].shape} for {expected[path].shape}"
        for name, path in table.items()
        if path in converted and converted[path].shape != expected[path].shape
    ]
    for kind, entries in (("missing", missing), ("unexpected", unexpected), ("wrongly shaped", shapes)):
        if entries:
            listed = ", ".join(entries[:20]) + (", ..." if len(entries) > 20 else "")
            raise ValueError(f"the state dict does not match the model: {len(entries)} {kind}: {listed}")
    variables: dict[str, Any] = {}
    for path, x in converted.items():
        inner = variables
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = x
    return variables


def names(size: architecture.Model) -> dict[str, _Path]:
    """Returns the PyTorch names of a model's arrays, with their paths in the variables.

    Raises:
      ValueError: if the model family has no PyTorch counterpart.
    """
    if isinstance(size, architecture.MdeqModel):
        return _mdeq(size)
    if isinstance(size, architecture.ResnetModel):
        return _resnet(size)
    raise ValueError(f"{type(size).__name__} has no PyTorch counterpart to convert")


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
