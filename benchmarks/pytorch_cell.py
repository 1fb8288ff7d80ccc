"""The MDEQ cell in PyTorch with the same weights, to which `evaluation.py` compares."""

from __future__ import annotations

import jax
import numpy as np
import torch
from torch.nn import functional

_NUM_GROUPS, _NUM_GROUPS_AFTER_FUSION = 8, 4


def tensors(tree, device):
    """Converts parameters of the JAX model to tensors; kernels HWIO become OIHW."""

    def convert(x):
        x = torch.from_numpy(np.array(x)).to(device)
        return x.permute(3, 2, 0, 1) if x.ndim == 4 else x

    return jax.tree.map(convert, jax.device_get(tree))


def activations(tree, device):
    """Converts activations NHWC of the JAX model to tensors NCHW in the channels-last format."""

    def convert(x):
        return torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2)

    return jax.tree.map(convert, jax.device_get(tree))


def cell(params, z, features):
    """Evaluates the cell once.

    Args:
      params: bound parameters.
      z: branches of the state.
      features: of the image, from the injection.

    Returns:
      The branches of the next state.
    """
    blocks = [_block(params[f"block_{i}"], x, features if i == 0 else None) for i, x in enumerate(z)]
    after = []
    for i in range(len(z)):
        fused = sum(
            x if i == j else _resample(params[f"resample_{j}_to_{i}"], x, i - j) for j, x in enumerate(blocks)
        )
        x = _conv(functional.relu(fused), params[f"mix_{i}"])
        after.append(functional.group_norm(x, _NUM_GROUPS_AFTER_FUSION))
    return tuple(after)


def _conv(x, params, stride=1):
    kernel = params["kernel"]
    return functional.conv2d(x, kernel, stride=stride, padding=(kernel.shape[-1] - 1) // 2)


def _norm(x, params):
    return functional.group_norm(x, _NUM_GROUPS, params["scale"], params["bias"])


def _block(params, x, features):
    y = functional.relu(_norm(_conv(x, params["conv_1"]), params["norm_1"]))
    y = _conv(y, params["conv_2"])
    if features is not None:
        y = y + features
    return _norm(functional.relu(_norm(y, params["norm_2"]) + x), params["norm_3"])


def _resample(params, x, steps):
    if steps < 0:
        x = _norm(_conv(x, params["conv_0"]), params["norm_0"])
        return functional.interpolate(x, scale_factor=2**-steps, mode="nearest")
    for step in range(steps):
        x = _norm(_conv(x, params[f"conv_{step}"], stride=2), params[f"norm_{step}"])
        x = x if step == steps - 1 else functional.relu(x)
    return x
