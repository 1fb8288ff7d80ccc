"""An independent implementation of the published networks: numpy, channels first, PyTorch's names."""

import jax
import numpy as np

from deqsmooth import models
from deqsmooth.models import pytorch


def state_dict(size, seed=0):
    """A random PyTorch state dict for a size, with the names and shapes of `pytorch.names`."""
    rng = np.random.default_rng(seed)
    template = jax.eval_shape(models.build(size).init, jax.random.key(0))
    state = {}
    for name, path in pytorch.names(size).items():
        leaf = template
        for key in path:
            leaf = leaf[key]
        shape = leaf.shape
        if name.endswith("weight_g"):
            shape = (shape[0], 1, 1, 1)
        elif len(shape) == 4:
            shape = (shape[3], shape[2], shape[0], shape[1])
        elif len(shape) == 2:
            shape = shape[::-1]
        x = rng.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))
        state[name] = (np.abs(x) + 0.5 if name.endswith("running_var") else x).astype(np.float32)
    return state


class Network:
    """Layers in float64, NCHW, with loops over the window."""

    def __init__(self, state, size):
        self.state, self.size = {name: x.astype(np.float64) for name, x in state.items()}, size

    def weight(self, name):
        if f"{name}.weight" in self.state:
            return self.state[f"{name}.weight"]
        v, g = self.state[f"{name}.weight_v"], self.state[f"{name}.weight_g"]
        return v * g / np.sqrt((v**2).sum((1, 2, 3), keepdims=True))

    def conv(self, name, x, stride=1):
        w = self.weight(name)
        k = w.shape[-1]
        pad = k // 2
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        high, wide = (x.shape[2] - k) // stride + 1, (x.shape[3] - k) // stride + 1
        y = 0.0
        for i in range(k):
            for j in range(k):
                part = x[:, :, i : i + stride * high : stride, j : j + stride * wide : stride]
                y = y + np.einsum("bchw,oc->bohw", part, w[:, :, i, j])
        bias = self.state.get(f"{name}.bias")
        return y if bias is None else y + bias[:, None, None]

    def affine(self, name, x):
        if f"{name}.weight" not in self.state:
            return x
        return x * self.state[f"{name}.weight"][:, None, None] + self.state[f"{name}.bias"][:, None, None]

    def bn(self, name, x):
        mean, var = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        return self.affine(name, (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None])

    def gn(self, name, x, groups=8):
        b, c, h, w = x.shape
        grouped = x.reshape(b, groups, -1)
        mean, var = grouped.mean(-1, keepdims=True), grouped.var(-1, keepdims=True)
        return self.affine(name, ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(b, c, h, w))

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def standardise(self, x):
        return (x - np.array(self.size.mean)[:, None, None]) / np.array(self.size.std)[:, None, None]


class Mdeq(Network):
    """The multiscale DEQ."""

    def inject(self, x):
        strided = self.size.num_strided
        x = self.standardise(x)
        x = relu(self.bn("downsample.1", self.conv("downsample.0", x, 2 if strided > 0 else 1)))
        x = relu(self.bn("downsample.4", self.conv("downsample.3", x, 2 if strided > 1 else 1)))
        return relu(self.bn("stage0.1", self.conv("stage0.0", x)))

    def cell(self, z, injected):
        blocks = []
        for i, x in enumerate(z):
            name = f"fullstage.branches.{i}.blocks.0"
            y = relu(self.gn(f"{name}.gn1", self.conv(f"{name}.conv1", x)))
            y = self.conv(f"{name}.conv2", y) + (injected if i == 0 else 0)
            blocks.append(self.gn(f"{name}.gn3", relu(self.gn(f"{name}.gn2", y) + x)))
        after = []
        for i in range(len(z)):
            fused = blocks[i]
            for j, x in enumerate(blocks):
                name = f"fullstage.fuse_layers.{i}.{j}.net"
                if j > i:
                    x = self.gn(f"{name}.gnorm", self.conv(f"{name}.conv", x))
                    fused = fused + x.repeat(2 ** (j - i), 2).repeat(2 ** (j - i), 3)
                for k in range(i - j):
                    x = self.gn(f"{name}.{k}.gnorm", self.conv(f"{name}.{k}.conv", x, 2))
                    x = relu(x) if k < i - j - 1 else x
                fused = fused + x if j < i else fused
            mixed = self.conv(f"fullstage.post_fuse_layers.{i}.conv", relu(fused))
            after.append(self.gn("none", mixed, 4))
        return after

    def head(self, z):
        y = None
        for i, x in enumerate(z):
            name = f"incre_modules.{i}.0"
            b = relu(self.bn(f"{name}.bn1", self.conv(f"{name}.conv1", x)))
            b = relu(self.bn(f"{name}.bn2", self.conv(f"{name}.conv2", b)))
            b = self.bn(f"{name}.bn3", self.conv(f"{name}.conv3", b))
            b = relu(b + self.bn(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x)))
            if i:
                down = f"downsamp_modules.{i - 1}"
                b = b + relu(self.bn(f"{down}.1", self.conv(f"{down}.0", y, 2)))
            y = b
        y = relu(self.bn("final_layer.1", self.conv("final_layer.0", y)))
        return self.linear("classifier", y.mean((2, 3)))


class Resnet(Network):
    """The residual network."""

    def block(self, name, x, stride):
        y = x
        for k, step in enumerate((1, stride, 1) if self.size.bottleneck else (stride, 1), 1):
            y = self.bn(f"{name}.bn{k}", self.conv(f"{name}.conv{k}", relu(y) if k > 1 else y, step))
        if f"{name}.downsample.0.weight" in self.state:
            x = self.bn(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
        return relu(x + y)

    def logits(self, x):
        wide = self.size.stem > 3
        x = relu(self.bn("bn1", self.conv("conv1", self.standardise(x), 2 if wide else 1)))
        if wide:
            high, across = x.shape[2] // 2, x.shape[3] // 2
            padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
            windows = [
                padded[:, :, i : i + 2 * high : 2, j : j + 2 * across : 2] for i in range(3) for j in range(3)
            ]
            x = np.max(windows, 0)
        for stage, blocks in enumerate(self.size.blocks):
            for block in range(blocks):
                x = self.block(f"layer{stage + 1}.{block}", x, 2 if stage and not block else 1)
        return self.linear("fc", x.mean((2, 3)))


def relu(x):
    return np.maximum(x, 0)
