"""The multiscale DEQ (Bai, Koltun & Kolter 2020) that Gao et al. (2024) certify.

Takes a size, gives a `types.Model` whose state is a tuple of resolutions, the finest first.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import layers

_EXPANSION = 5
_NUM_GROUPS = 8
_NUM_GROUPS_AFTER_FUSION = 4
_CELL_INIT = nn.initializers.normal(0.01)


class Injection(NamedTuple):
    """Input of the cell from the images.

    Attributes:
      features: features that are added in the block of the finest branch [lanes, height, width, channels]; the
        other branches have no such input.
      masks: dropout masks of a training solve, one for each branch [lanes, 1, 1, channels]; empty in evaluation.
    """

    features: jax.Array
    masks: tuple[jax.Array, ...]


class _Inject(nn.Module):
    size: architecture.MdeqModel
    axis_name: str | None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        channels, strided = self.size.channels[0], self.size.num_strided
        x = layers.standardise(images, self.size.mean, self.size.std)
        for index, (window, stride) in enumerate(((3, 1 + (strided > 0)), (3, 1 + (strided > 1)), (1, 1))):
            conv = layers.Conv(channels, window, stride, name=f"conv_{index}")
            x = nn.relu(layers.conv_batch_norm(conv, x, train, f"norm_{index}", axis_name=self.axis_name))
        return x


class _Block(nn.Module):
    """The residual block of one branch."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, injected: jax.Array | None, mask: jax.Array | None) -> jax.Array:
        y = layers.Conv(_EXPANSION * self.channels, kernel_init=_CELL_INIT, name="conv_1")(x)
        y = nn.relu(layers.GroupNorm(_NUM_GROUPS, name="norm_1")(y))
        y = layers.Conv(self.channels, kernel_init=_CELL_INIT, name="conv_2")(y)
        if mask is not None:
            y = y * mask
        if injected is not None:
            y = y + injected
        y = nn.relu(layers.GroupNorm(_NUM_GROUPS, name="norm_2")(y) + x)
        return layers.GroupNorm(_NUM_GROUPS, name="norm_3")(y)


class _Resample(nn.Module):
    """Resamples the state of one branch to the resolution and channels of another.

    Attributes:
      steps: number of halvings of the resolution; negative to double it.
      channels: output channels.
    """

    steps: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.steps < 0:
            x = layers.Conv(self.channels, size=1, kernel_init=_CELL_INIT, name="conv_0")(x)
            x = layers.GroupNorm(_NUM_GROUPS, name="norm_0")(x)
            return jnp.repeat(jnp.repeat(x, 2**-self.steps, 1), 2**-self.steps, 2)
        for step in range(self.steps):
            last = step == self.steps - 1
            channels = self.channels if last else x.shape[-1]
            x = layers.Conv(channels, stride=2, kernel_init=_CELL_INIT, name=f"conv_{step}")(x)
            x = layers.GroupNorm(_NUM_GROUPS, name=f"norm_{step}")(x)
            x = x if last else nn.relu(x)
        return x


class _Cell(nn.Module):
    size: architecture.MdeqModel

    @nn.compact
    def __call__(self, z: tuple[jax.Array, ...], u: Injection) -> tuple[jax.Array, ...]:
        after = []
        blocks = [
            _Block(channels, name=f"block_{i}")(x, u.features if i == 0 else None, u.masks[i] if u.masks else None)
            for i, (x, channels) in enumerate(zip(z, self.size.channels, strict=True))
        ]
        for i, channels in enumerate(self.size.channels):
            fused = sum(
                x if i == j else _Resample(i - j, channels, name=f"resample_{j}_to_{i}")(x)
                for j, x in enumerate(blocks)
            )
            x = layers.Conv(channels, size=1, kernel_init=_CELL_INIT, name=f"mix_{i}")(nn.relu(fused))
            after.append(layers.group_norm(x, _NUM_GROUPS_AFTER_FUSION, None, None))
        return tuple(after)


class _Bottleneck(nn.Module):
    channels: int
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        normalised = functools.partial(layers.conv_batch_norm, train=train, axis_name=self.axis_name)
        y = x
        for index, (channels, window) in enumerate(
            ((self.channels, 1), (self.channels, 3), (4 * self.channels, 1))
        ):
            conv = layers.Conv(channels, window, name=f"conv_{index}")
            y = normalised(conv, nn.relu(y) if index else y, name=f"norm_{index}", affine=False)
        project = layers.Conv(4 * self.channels, size=1, name="project")
        return nn.relu(y + normalised(project, x, name="project_norm"))


class _Readout(nn.Module):
    size: architecture.MdeqModel
    axis_name: str | None

    @nn.compact
    def __call__(self, z: tuple[jax.Array, ...], train: bool) -> jax.Array:
        normalised = functools.partial(layers.conv_batch_norm, train=train, axis_name=self.axis_name)
        branches = [
            _Bottleneck(channels, self.axis_name, name=f"bottleneck_{i}")(x, train)
            for i, (x, channels) in enumerate(zip(z, self.size.head_channels, strict=True))
        ]
        y = branches[0]
        for i, branch in enumerate(branches[1:], 1):
            down = layers.Conv(branch.shape[-1], stride=2, use_bias=True, name=f"down_{i}")
            y = branch + nn.relu(normalised(down, y, name=f"down_norm_{i}"))
        final = layers.Conv(self.size.final_channels, size=1, use_bias=True, name="final")
        y = nn.relu(normalised(final, y, name="final_norm"))
        return nn.Dense(self.size.num_classes, name="classify")(jnp.mean(y, (1, 2)))


def mdeq(size: architecture.MdeqModel, axis_name: str | None = None) -> types.Model:
    """Returns the multiscale DEQ of a size.

    The state is a tuple of branches [lanes, height / 2^i, width / 2^i, channels_i], with the height and width of
    the image divided by 2^num_strided. `bind` applies weight normalisation `w = direction * scale / |direction|`
    once per solve. In training, `inject` draws dropout masks once per solve, from the key of the lane.

    Args:
      size: size of the model.
      axis_name: see `models.build`.
    """
    inject, cell, readout = _Inject(size, axis_name), _Cell(size), _Readout(size, axis_name)
    height, width, _ = size.image_shape
    shapes = [
        (height >> (size.num_strided + i), width >> (size.num_strided + i), channels)
        for i, channels in enumerate(size.channels)
    ]

    def zeros(num_lanes: int) -> types.State:
        return tuple(jnp.zeros((num_lanes, *shape)) for shape in shapes)

    def init(key: types.RandomKey) -> types.Variables:
        inject_key, cell_key, readout_key = jax.random.split(key, 3)
        images = jnp.zeros((1, *size.image_shape))
        features, inject_variables = inject.init_with_output(inject_key, images, False)
        cell_variables = cell.init(cell_key, zeros(1), Injection(features, ()))
        readout_variables = readout.init(readout_key, zeros(1), False)
        return {
            "params": {
                "inject": inject_variables["params"],
                "cell": _unbind(cell_variables["params"]),
                "readout": readout_variables["params"],
            },
            "batch_stats": {
                "inject": inject_variables["batch_stats"],
                "readout": readout_variables["batch_stats"],
            },
        }

    def apply(
        module: nn.Module, name: str, variables: types.Variables, x: types.State, train: bool
    ) -> tuple[jax.Array, types.Variables]:
        own = {collection: variables[collection][name] for collection in ("params", "batch_stats")}
        if not train:
            output: Any = module.apply(own, x, False)
            return output, variables
        output, updated = module.apply(own, x, True, mutable=["batch_stats"])
        batch_stats = {**variables["batch_stats"], name: updated["batch_stats"]}
        return output, {**variables, "batch_stats": batch_stats}

    def apply_inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None = None
    ) -> tuple[types.Injection, types.Variables]:
        features, variables = apply(inject, "inject", variables, images, keys is not None)
        masks = () if keys is None else _masks(keys, size)
        return Injection(features, masks), variables

    def apply_readout(
        variables: types.Variables, z: types.State, train: bool = False
    ) -> tuple[types.Logits, types.Variables]:
        return apply(readout, "readout", variables, z, train)

    return types.Model(
        image_shape=size.image_shape,
        num_classes=size.num_classes,
        init=jax.jit(init),
        bind=lambda variables: _bind(variables["params"]["cell"]),
        inject=apply_inject,
        initial_state=lambda u: zeros(len(u.features)),
        cell=lambda params, z, u: cell.apply({"params": params}, z, u),
        readout=apply_readout,
    )


def _masks(keys: types.Keys, size: architecture.MdeqModel) -> tuple[jax.Array, ...]:
    """Returns a dropout mask for each branch [lanes, 1, 1, channels]."""
    keep = 1.0 - size.dropout

    def mask(index: int, channels: int) -> jax.Array:
        def lane(key: types.RandomKey) -> jax.Array:
            kept = jax.random.bernoulli(jax.random.fold_in(key, index), keep, (1, 1, channels))
            return kept.astype(jnp.float32) / keep

        return jax.vmap(lane)(keys)

    return tuple(mask(index, channels) for index, channels in enumerate(size.channels))


def _is_normalised(name: str) -> bool:
    """Whether a convolution of the cell has weight normalisation: those of the blocks and those after fusion."""
    return name in ("conv_1", "conv_2") or name.startswith("mix_")


def _unbind(params: types.Parameters, name: str = "") -> types.Parameters:
    """Replaces the kernels of weight-normalised convolutions by direction and scale; the inverse of `_bind`."""
    if set(params) == {"kernel"}:
        kernel = params["kernel"]
        return {"direction": kernel, "scale": _length(kernel)} if _is_normalised(name) else params
    if name.startswith("resample_"):
        return params
    return {key: _unbind(x, key) if isinstance(x, dict) else x for key, x in params.items()}


def _bind(params: types.Parameters) -> types.Parameters:
    """Replaces directions and scales by kernels."""
    if set(params) == {"direction", "scale"}:
        direction = params["direction"]
        return {"kernel": direction * (params["scale"] / _length(direction))[None, None, None]}
    return {key: _bind(x) if isinstance(x, dict) else x for key, x in params.items()}


def _length(kernel: jax.Array | np.ndarray) -> jax.Array:
    """Returns the norm of the kernel of every output channel [channels]."""
    return lax.sqrt(jnp.sum(kernel * kernel, (0, 1, 2)))
