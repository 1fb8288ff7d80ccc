"""PyTorch checkpoints as variables: a table of names, made by rule from the size of the model.

Takes a state dict as numpy arrays, gives variables of `models.build(size)`. PyTorch is not needed here.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from deqsmooth import architecture, models, types

_Path = tuple[str, ...]
_UNUSED = "num_batches_tracked"


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file, or of a PyTorch file: a state dict, alone or under `state_dict`.

    PyTorch files are loaded with weights only: no code in them is run.

    Raises:
      ValueError: the file cannot be read, or PyTorch is needed and missing.
    """
    if not pathlib.Path(path).is_file():
        raise ValueError(f"{path} does not exist; it must be a file of arrays")
    if pathlib.Path(path).suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz file: {error}") from None
    try:
        import torch
    except ImportError:
        raise ValueError(f"reading {path} needs PyTorch: pip install 'deqsmooth[torch]'") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no PyTorch file of weights: {str(error).splitlines()[0]}") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    arrays = {name: x.numpy() for name, x in state.items() if isinstance(x, torch.Tensor)}
    if not arrays:
        raise ValueError(f"{path} holds no state dict, neither alone nor under 'state_dict'")
    return arrays


def convert(state: Mapping[str, np.ndarray], size: architecture.Model) -> types.Variables:
    """Variables of a model from a PyTorch state dict.

    Args:
      state: arrays by name; names may carry the prefix `module.` of DataParallel.
      size: the model.

    Raises:
      ValueError: names are missing or unexpected, or an array has another shape than the model asks for.
    """
    found = {
        name.removeprefix("module."): np.asarray(x) for name, x in state.items() if not name.endswith(_UNUSED)
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
            raise ValueError(f"the state dict is not that of the model: {len(entries)} {kind}: {listed}")
    variables: dict[str, Any] = {}
    for path, x in converted.items():
        inner = variables
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = x
    return variables


def names(size: architecture.Model) -> dict[str, _Path]:
    """PyTorch names of a model's arrays, with their paths in our variables.

    Raises:
      ValueError: the family has no PyTorch counterpart.
    """
    if not isinstance(size, architecture.MdeqModel):
        raise ValueError(f"{type(size).__name__} has no PyTorch counterpart to convert from")
    return _mdeq(size)


def _mdeq(size: architecture.MdeqModel) -> dict[str, _Path]:
    table: dict[str, _Path] = {}
    branches = range(len(size.channels))

    def conv(name, *path, bias=False):
        table[f"{name}.weight"] = ("params", *path, "kernel")
        if bias:
            table[f"{name}.bias"] = ("params", *path, "bias")

    def normalised_conv(name, *path):
        table[f"{name}.weight_v"] = ("params", *path, "direction")
        table[f"{name}.weight_g"] = ("params", *path, "scale")

    def norm(name, *path):
        table[f"{name}.weight"] = ("params", *path, "scale")
        table[f"{name}.bias"] = ("params", *path, "bias")

    def batch_norm(name, *path, affine=True):
        if affine:
            norm(name, *path)
        table[f"{name}.running_mean"] = ("batch_stats", *path, "mean")
        table[f"{name}.running_var"] = ("batch_stats", *path, "var")

    for index, stem in enumerate((("downsample.0", "downsample.1"), ("downsample.3", "downsample.4"))):
        conv(stem[0], "inject", f"conv_{index}")
        batch_norm(stem[1], "inject", f"norm_{index}")
    conv("stage0.0", "inject", "conv_2")
    batch_norm("stage0.1", "inject", "norm_2")

    for i in branches:
        block = f"fullstage.branches.{i}.blocks.0"
        for k in (1, 2):
            normalised_conv(f"{block}.conv{k}", "cell", f"block_{i}", f"conv_{k}")
        for k in (1, 2, 3):
            norm(f"{block}.gn{k}", "cell", f"block_{i}", f"norm_{k}")
        normalised_conv(f"fullstage.post_fuse_layers.{i}.conv", "cell", f"mix_{i}")
        for j in branches:
            for k in range(max(i - j, int(j > i))):
                layer = f"fullstage.fuse_layers.{i}.{j}.net" + (f".{k}" if j < i else "")
                conv(f"{layer}.conv", "cell", f"resample_{j}_to_{i}", f"conv_{k}")
                norm(f"{layer}.gnorm", "cell", f"resample_{j}_to_{i}", f"norm_{k}")

        head = f"incre_modules.{i}.0"
        for k in range(3):
            conv(f"{head}.conv{k + 1}", "readout", f"bottleneck_{i}", f"conv_{k}")
            batch_norm(f"{head}.bn{k + 1}", "readout", f"bottleneck_{i}", f"norm_{k}", affine=False)
        conv(f"{head}.downsample.0", "readout", f"bottleneck_{i}", "project")
        batch_norm(f"{head}.downsample.1", "readout", f"bottleneck_{i}", "project_norm")
        if i:
            conv(f"downsamp_modules.{i - 1}.0", "readout", f"down_{i}", bias=True)
            batch_norm(f"downsamp_modules.{i - 1}.1", "readout", f"down_norm_{i}")
    conv("final_layer.0", "readout", "final", bias=True)
    batch_norm("final_layer.1", "readout", "final_norm")
    conv("classifier", "readout", "classify", bias=True)
    return table


def _to_jax(name: str, x: np.ndarray) -> np.ndarray:
    """An array in our layout: HWIO kernels, [in, out] matrices, scales of weight normalisation as vectors."""
    if name.endswith("weight_g"):
        x = x.reshape(-1)
    elif x.ndim == 4:
        x = x.transpose(2, 3, 1, 0)
    elif x.ndim == 2:
        x = x.T
    return np.ascontiguousarray(x, np.float32)


def _path(key: tuple[Any, ...]) -> _Path:
    return tuple(entry.key for entry in key)
