"""Models whose state has branches of several resolutions, joined by linear maps: all but the cell.

Takes a size and the cell of a family, gives a `types.Model`. The injection is a network of the image, or a linear
map of it where the logits have a Lipschitz constant. The readout is linear in means of the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import bounds, layers

_GROUPS = 8
_T = TypeVar("_T")


class _Inject(nn.Module):
    """A residual network of the image, which may be anything, with an output for every branch."""

    size: architecture.Branched

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        width = self.size.width
        x = layers.standardise(images, self.size.mean, self.size.std)
        x = layers.Conv(width, name="conv")(layers.blocks_to_channels(x, self.size.patch))
        outputs = []
        for branch, channels in enumerate(self.size.channels):
            if branch:
                x = layers.Conv(width, size=1, name=f"down_{branch}")(layers.blocks_to_channels(nn.relu(x), 2))
            for block in range(self.size.blocks):
                y = nn.relu(layers.GroupNorm(_GROUPS, name=f"norm_{branch}_{block}")(x))
                x = x + layers.Conv(width, name=f"block_{branch}_{block}")(y)
            y = nn.relu(layers.GroupNorm(_GROUPS, name=f"norm_out_{branch}")(x))
            outputs.append(layers.Conv(channels, size=1, use_bias=True, name=f"out_{branch}")(y))
        return tuple(outputs)


class _LinearInject(nn.Module):
    """A linear map of the image, of norm at most 1 in pixels, with a bias by channel."""

    size: architecture.Branched

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        size, num = self.size, len(self.size.channels)
        pixels = size.image_shape[2] * size.patch**2
        shapes = [_shape(pixels, channels, i) for i, channels in enumerate(size.channels)]
        kernels = [
            [self.param(f"kernel_{i}", nn.initializers.lecun_normal(), shape)] for i, shape in enumerate(shapes)
        ]
        weights = self.param("weights", nn.initializers.ones, (num, 1))
        biases = [self.param(f"bias_{i}", nn.initializers.zeros, (size.channels[i],)) for i in range(num)]
        x = layers.blocks_to_channels(layers.standardise(images, size.mean, (1.0,)), size.patch)
        u = mapped(_linear(kernels, weights), (x,))
        return tuple(x + bias for x, bias in zip(u, biases, strict=True))


def _linear(kernels: bounds.Kernels, weights: jax.Array | np.ndarray) -> bounds.Kernels:
    """The map of the image to the injection, whose norm is at most 1 as that of the weights [to, 1] is."""
    return bounds.weighed(kernels, jnp.asarray(weights) / jnp.sqrt(jnp.sum(weights**2)))


def _of_injection(size: architecture.Branched, params: types.Parameters) -> tuple[float, float]:
    """Norm of the linear injection in pixels, and a bound on its float32 rounding for images in [0, 1]."""
    num = len(size.channels)
    kernels = jax.jit(_linear)([[params[f"kernel_{i}"]] for i in range(num)], params["weights"])
    kernels, biases = _in_float64((kernels, [params[f"bias_{i}"] for i in range(num)]))
    bias = math.sqrt(sum(h * w * (b**2).sum() for (h, w, _), b in zip(_shapes(size), biases, strict=True)))
    # A pixel is rounded when its mean is subtracted, a sum of products when it is computed and with its bias.
    largest = math.sqrt(math.prod(size.image_shape)) * (1 + max(map(abs, size.mean)))
    num_terms = max(row[0][..., 0].size for row in kernels) + 3
    error = bounds.rounding(kernels, 3) * largest + bounds.of_sum(num_terms) * bias
    return bounds.norm(kernels) * bounds.OUTWARDS, error


def model(
    size: architecture.Branched,
    init_cell: Callable[[types.RandomKey], types.Parameters],
    bind: Callable[[types.Parameters], types.Parameters],
    cell: Callable[[types.Parameters, types.State, types.Injection], types.State],
    cell_on_boxes: Callable[[types.Parameters, types.Box, types.Box], types.Box],
    factor: Callable[[types.Parameters], float],
    rounding: Callable[[types.Parameters], tuple[float, float]],
    modulus: Callable[[types.Parameters], float] | None = None,
    sensitivity: Callable[[types.Parameters], float] | None = None,
) -> types.Model:
    """Returns the model of a cell on branches [lanes, height / 2^i, width / 2^i, channels_i].

    Args:
      size: size of the model.
      init_cell: key -> parameters of the cell.
      bind: parameters of the cell -> parameters as the cell uses them.
      cell: as in `types.Model`.
      cell_on_boxes: as in `types.Boxes`.
      factor: parameters as the cell uses them, float64 -> as in `types.Contraction`; so are the next two.
      rounding: of an evaluation of the cell.
      modulus: by default 1 - factor.
      sensitivity: the same parameters -> Lipschitz constant of the equilibrium in the injection; by default
        1 / (1 - factor).
    """
    inject = _Inject(size) if size.lipschitz is None else _LinearInject(size)

    def init(key: types.RandomKey) -> types.Variables:
        inject_key, cell_key, readout_key = jax.random.split(key, 3)
        num_features = sum(channels * size.pooled**2 for channels in size.channels)
        return {
            "params": {
                "inject": inject.init(inject_key, jnp.zeros((1, *size.image_shape)))["params"],
                "cell": init_cell(cell_key),
                "readout": {
                    "kernel": nn.initializers.lecun_normal()(readout_key, (num_features, size.num_classes)),
                    "bias": jnp.zeros(size.num_classes),
                },
            }
        }

    def apply_inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None = None
    ) -> tuple[types.Injection, types.Variables]:
        return inject.apply({"params": variables["params"]["inject"]}, images), variables

    def readout(
        variables: types.Variables, z: types.State, train: bool = False
    ) -> tuple[types.Logits, types.Variables]:
        bias = variables["params"]["readout"]["bias"]
        return features(z) @ readout_kernel(variables) + bias, variables

    def features(z: types.State) -> jax.Array:
        return jnp.concatenate([_pooled(x, size.pooled) for x in z], -1)

    def readout_kernel(variables: types.Variables) -> jax.Array:
        """Derivatives of the logits in the features [features, classes]."""
        kernel = variables["params"]["readout"]["kernel"]
        if size.lipschitz is None:
            return jnp.asarray(kernel)
        # The equilibrium changes by at most `size.sensitivity` times as much as the image.
        roots = np.sqrt(_areas(size)).astype(kernel.dtype)[:, None]
        return size.lipschitz / size.sensitivity * roots * kernel / jnp.sqrt(jnp.sum(kernel**2, 0) + 1e-12)

    def bound(variables: types.Variables) -> types.Parameters:
        return bind(variables["params"]["cell"])

    compiled, compiled_readout = jax.jit(bound), jax.jit(readout_kernel)

    def constant(of: Callable[[types.Parameters], _T]) -> Callable[[types.Variables], _T]:
        return lambda variables: of(_in_float64(compiled(variables)))

    def derivatives(variables: types.Variables) -> np.ndarray:
        """Derivatives of the logits, scaled so that their norms are those in the state [features, classes]."""
        return _in_float64(compiled_readout(variables)) / np.sqrt(_areas(size))[:, None]

    def of_image(variables: types.Variables) -> tuple[float, float]:
        in_injection = constant(sensitivity or (lambda params: 1 / (1 - factor(params))))(variables)
        slope, error = _of_injection(size, variables["params"]["inject"])
        return in_injection * slope * bounds.OUTWARDS, in_injection * error * bounds.OUTWARDS

    def inject_boxes(variables: types.Variables, images: types.Box) -> types.Box:
        own = variables["params"]["inject"]
        kernels = absolute(_linear([[own[f"kernel_{i}"]] for i in range(len(size.channels))], own["weights"]))
        radius = mapped(kernels, (layers.blocks_to_channels(images.radius, size.patch),))
        return types.Box(apply_inject(variables, images.centre)[0], radius)

    boxes = types.Boxes(
        inject=inject_boxes,
        cell=cell_on_boxes,
        features=lambda z: types.Box(features(z.centre), features(z.radius)),
        readout=lambda variables: (readout_kernel(variables), variables["params"]["readout"]["bias"]),
    )
    return types.Model(
        image_shape=size.image_shape,
        num_classes=size.num_classes,
        init=jax.jit(init),
        bind=bound,
        inject=apply_inject,
        initial_state=lambda u: tuple(jnp.zeros((len(u[0]), *shape)) for shape in _shapes(size)),
        cell=cell,
        readout=readout,
        contraction=types.Contraction(
            factor=constant(factor),
            rounding=constant(rounding),
            reach=lambda variables: _reach(size, derivatives(variables)),
            readout_rounding=lambda variables: _readout_rounding(
                size, derivatives(variables), variables["params"]["readout"]["bias"]
            ),
            modulus=None if modulus is None else constant(modulus),
            image=None if size.lipschitz is None else of_image,
            # With a Lipschitz constant the readout's weights are computed, and have other bits in float64.
            float64=size.lipschitz is None,
            boxes=None if size.lipschitz is None else boxes,
        ),
    )


def kernels(key: types.RandomKey, size: architecture.Branched) -> bounds.Kernels:
    """Random kernels [to][from] of a map between all branches: 3x3 within a branch, 1x1 between two."""
    initialise, num = nn.initializers.lecun_normal(), len(size.channels)
    return [
        [
            initialise(jax.random.fold_in(key, num * i + j), _shape(of, to, i - j))
            for j, of in enumerate(size.channels)
        ]
        for i, to in enumerate(size.channels)
    ]


def mapped(kernels: bounds.Kernels, z: types.State, offset: types.State | None = None) -> tuple[jax.Array, ...]:
    """The map of kernels [to][from] applied to branches, plus an offset.

    Between branches of one resolution it is a convolution with zero padding. Between two resolutions it is a
    convolution of 1x1 at the coarser one, where blocks of pixels are channels, which keeps norms.
    """
    return tuple(
        sum((_part(kernel, x, i - j) for j, (kernel, x) in enumerate(zip(row, z, strict=True))), start=start)
        for i, (row, start) in enumerate(zip(kernels, offset or [0.0] * len(kernels), strict=True))
    )


def adjoint(kernel: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """The kernel of the adjoint of a part, which leads from the branch that it led to."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def transposed(kernels: bounds.Kernels) -> bounds.Kernels:
    """The kernels of the adjoint map: `<mapped(k, x), y> = <x, mapped(transposed(k), y)>`."""
    return [[adjoint(kernel) for kernel in column] for column in zip(*kernels, strict=True)]


def absolute(kernels: bounds.Kernels) -> bounds.Kernels:
    """The map that takes the radii of boxes to those of their images."""
    return [[jnp.abs(kernel) for kernel in row] for row in kernels]


def rectified(centre: tuple[jax.Array, ...], radius: tuple[jax.Array, ...]) -> types.Box:
    """What relu makes of a box."""
    upper = [jax.nn.relu(x + r) for x, r in zip(centre, radius, strict=True)]
    lower = [jax.nn.relu(x - r) for x, r in zip(centre, radius, strict=True)]
    return types.Box(
        tuple((x + y) / 2 for x, y in zip(upper, lower, strict=True)),
        tuple((x - y) / 2 for x, y in zip(upper, lower, strict=True)),
    )


def _in_float64(arrays: Any) -> Any:
    """A pytree of arrays in float64 on the host."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64), arrays)


def _shapes(size: architecture.Branched) -> list[tuple[int, int, int]]:
    """(height, width, channels) of each branch."""
    height, width = (side // size.patch for side in size.image_shape[:2])
    return [(height >> i, width >> i, channels) for i, channels in enumerate(size.channels)]


def _shape(of: int, to: int, halvings: int) -> tuple[int, int, int, int]:
    """Shape of the kernel of a part, as `_part` applies it, from channels `of` to channels `to`."""
    if halvings == 0:
        return (3, 3, of, to)
    # Pixels of the finer resolution that lie in one of the coarser.
    block = 4 ** abs(halvings)
    return (1, 1, of * (block if halvings > 0 else 1), to * (block if halvings < 0 else 1))


def _part(kernel: jax.Array | np.ndarray, x: jax.Array, halvings: int) -> jax.Array:
    """A kernel applied to a branch, and the result at the resolution of another."""
    lanes, height, width, _ = x.shape
    pad = (kernel.shape[0] - 1) // 2
    side = 2 ** abs(halvings)
    if halvings > 0:
        x = layers.blocks_to_channels(x, side)
    y = layers.convolve(x, kernel, 1, ((pad, pad), (pad, pad)))
    if halvings < 0:
        y = jnp.moveaxis(y.reshape(lanes, height, width, side, side, -1), 3, 2)
        y = y.reshape(lanes, height * side, width * side, -1)
    return y


def _pooled(x: jax.Array, side: int) -> jax.Array:
    """Means over the cells of a grid [lanes, side * side * channels]."""
    lanes, height, width, channels = x.shape
    blocks = x.reshape(lanes, side, height // side, side, width // side, channels)
    return jnp.mean(blocks, (2, 4)).reshape(lanes, -1)


def _areas(size: architecture.Branched) -> np.ndarray:
    """Number of entries of the state of which each feature is the mean [features]."""
    cells = size.pooled**2
    return np.concatenate(
        [np.full(cells * channels, height * width / cells) for height, width, channels in _shapes(size)]
    )


def _reach(size: architecture.Branched, derivatives: np.ndarray) -> np.ndarray:
    found = np.linalg.norm(derivatives[:, :, None] - derivatives[:, None, :], axis=0) * bounds.OUTWARDS
    if size.lipschitz is None:
        return found
    # A program divides a column by its norm, and rounds relative to the column, not to a difference of columns.
    norms = np.linalg.norm(derivatives, axis=0)
    return found + bounds.of_sum(len(derivatives) + 8) * (norms[:, None] + norms)


def _readout_rounding(
    size: architecture.Branched, derivatives: np.ndarray, bias: jax.Array | np.ndarray
) -> tuple[float, float]:
    areas = _areas(size)
    unit = bounds.of_sum(len(areas) + int(areas.max()) + 2)
    largest = np.linalg.norm(derivatives, axis=0).max()
    return unit * float(largest) * bounds.OUTWARDS, unit * float(np.abs(_in_float64(bias)).max())
