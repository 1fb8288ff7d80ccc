"""The MDEQ and its start network in PyTorch with the same weights, written plainly."""

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
        return x.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    return jax.tree.map(convert, jax.device_get(tree))


def activations(tree, device):
    """Converts activations NHWC of the JAX model to tensors NCHW in the channels-last format."""

    def convert(x):
        return torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2)

    return jax.tree.map(convert, jax.device_get(tree))


def inject(params, stats, images, num_strided):
    """Returns the features of standardised images."""
    x = images
    for i in range(3):
        x = _conv(x, params[f"conv_{i}"], 1 + (num_strided > i and i < 2))
        x = functional.relu(_batch_norm(x, stats[f"norm_{i}"], params[f"norm_{i}"]))
    return x


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


def readout(params, stats, z):
    """Returns the logits of a state."""
    y = None
    for i, x in enumerate(z):
        branch = _bottleneck(params[f"bottleneck_{i}"], stats[f"bottleneck_{i}"], x)
        if y is not None:
            down = _conv(y, params[f"down_{i}"], 2)
            down = _batch_norm(down, stats[f"down_norm_{i}"], params[f"down_norm_{i}"])
            branch = branch + functional.relu(down)
        y = branch
    y = _batch_norm(_conv(y, params["final"]), stats["final_norm"], params["final_norm"])
    y = functional.relu(y).mean((2, 3))
    return y @ params["classify"]["kernel"] + params["classify"]["bias"]


def start(params, features, shapes):
    """Returns the state that the start network predicts from the features.

    Args:
      params: of the network.
      features: of the image, from the injection.
      shapes: height, width and channels of every branch.
    """
    if "layer_in" not in params:
        return tuple(_pointwise(params[f"out_{i}"], features, shape) for i, shape in enumerate(shapes))
    x, outputs = _layer(params["layer_in"], features), []
    for i, (height, *_) in enumerate(shapes):
        step = 0
        while x.shape[2] > height:
            x = _layer(params[f"down_{i}_{step}"], x, 2)
            step += 1
        x = x + _layer(params[f"layer_{i}"], x)
        outputs.append(_conv(x, params[f"out_{i}"]))
    return tuple(outputs)


def _conv(x, params, stride=1):
    kernel = params["kernel"]
    return functional.conv2d(x, kernel, params.get("bias"), stride=stride, padding=(kernel.shape[-1] - 1) // 2)


def _norm(x, params):
    return functional.group_norm(x, _NUM_GROUPS, params["scale"], params["bias"])


def _batch_norm(x, stats, params=None):
    scale, bias = (None, None) if params is None else (params["scale"], params["bias"])
    return functional.batch_norm(x, stats["mean"], stats["var"], scale, bias)


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


def _bottleneck(params, stats, x):
    y = x
    for i in range(3):
        y = _batch_norm(_conv(functional.relu(y) if i else y, params[f"conv_{i}"]), stats[f"norm_{i}"])
    x = _batch_norm(_conv(x, params["project"]), stats["project_norm"], params["project_norm"])
    return functional.relu(y + x)


def _pointwise(params, x, shape):
    """Returns a branch of the state from the pixels of the features that it covers."""
    side = x.shape[2] // shape[0]
    blocks = functional.pixel_unshuffle(x, side).unflatten(1, (x.shape[1], side * side))
    # Channels are the last of the axes in JAX.
    x = blocks.transpose(1, 2).flatten(1, 2)
    return _conv(torch.cat([x, functional.relu(x)], 1), params)


def _layer(params, x, stride=1):
    everywhere = x.mean((2, 3)) @ params["pooled"]["kernel"] + params["pooled"]["bias"]
    return functional.relu(_norm(_conv(x, params["conv"], stride) + everywhere[:, :, None, None], params["norm"]))
