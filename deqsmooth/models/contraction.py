"""A multiscale DEQ whose cell is a contraction by construction: it has exactly one equilibrium.

Takes a size, gives a `types.Model` with a `types.Contraction`. The cell is `z -> relu(A z + u)`. The norm of the
linear map A, which also joins branches of several resolutions, is bounded by a constant of the size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import layers

_GROUPS = 8
_ITERATIONS, _SMALLEST = 50, 1e-6
# A compiled program computes the kernels in float32 by sums of at most some thousand terms; the constants are made
# larger by more than these can differ.
_OUTWARDS = 1 + 2.0**-12


class _Inject(nn.Module):
    """A residual network of the image, which may be anything, with an output for every branch."""

    size: architecture.ContractionModel

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, ...]:
        width = self.size.width
        x = layers.standardise(images, self.size.mean, self.size.std)
        x = layers.Conv(width, name="conv")(layers.blocks_to_channels(x, self.size.patch))
        outputs = []
        for branch, channels in enumerate(self.size.channels):
            if branch:
                x = layers.Conv(width, stride=2, name=f"down_{branch}")(nn.relu(x))
            for block in range(self.size.blocks):
                y = nn.relu(layers.GroupNorm(_GROUPS, name=f"norm_{branch}_{block}")(x))
                x = x + layers.Conv(width, name=f"block_{branch}_{block}")(y)
            y = nn.relu(layers.GroupNorm(_GROUPS, name=f"norm_out_{branch}")(x))
            outputs.append(layers.Conv(channels, use_bias=True, name=f"out_{branch}")(y))
        return tuple(outputs)


def contraction(size: architecture.ContractionModel) -> types.Model:
    """Returns the contraction of a size.

    The state and the injection are tuples of branches [lanes, height / 2^i, width / 2^i, channels_i]. Between
    branches of one resolution A is a convolution of 3x3. Between two resolutions it is a convolution of 1x1 at the
    coarser one, where blocks of pixels are channels, which keeps norms. `bind` rescales every kernel by the rule
    of almost orthogonal layers (Prach & Lampert 2022), after which its norm is at most 1. It weighs the parts so
    that the norm of A is at most `size.factor`.

    Args:
      size: size of the model.
    """
    inject = _Inject(size)
    branches = range(len(size.channels))

    def init(key: types.RandomKey) -> types.Variables:
        inject_key, cell_key, readout_key = jax.random.split(key, 3)
        initialise = nn.initializers.lecun_normal()
        kernels = [
            [initialise(jax.random.fold_in(cell_key, len(branches) * i + j), _shape(size, i, j)) for j in branches]
            for i in branches
        ]
        num_features = sum(channels * size.pooled**2 for channels in size.channels)
        return {
            "params": {
                "inject": inject.init(inject_key, jnp.zeros((1, *size.image_shape)))["params"],
                "cell": {"kernels": kernels, "weights": jnp.eye(len(branches)) + 0.5},
                "readout": {
                    "kernel": initialise(readout_key, (num_features, size.num_classes)),
                    "bias": jnp.zeros(size.num_classes),
                },
            }
        }

    def bind(variables: types.Variables) -> types.Parameters:
        params = variables["params"]["cell"]
        weights = jnp.abs(params["weights"])
        # The norm of a matrix is at most the geometric mean of its largest row and column sums.
        weights = size.factor * weights / jnp.sqrt(jnp.max(weights.sum(0)) * jnp.max(weights.sum(1)))
        return [[weights[i, j] * _rescaled(params["kernels"][i][j]) for j in branches] for i in branches]

    def apply_inject(
        variables: types.Variables, images: types.Images, keys: types.Keys | None = None
    ) -> tuple[types.Injection, types.Variables]:
        return inject.apply({"params": variables["params"]["inject"]}, images), variables

    def cell(params: types.Parameters, z: types.State, u: types.Injection) -> types.State:
        return tuple(
            nn.relu(sum((_part(params[i][j], z[j], i - j) for j in branches), start=u[i])) for i in branches
        )

    def readout(
        variables: types.Variables, z: types.State, train: bool = False
    ) -> tuple[types.Logits, types.Variables]:
        params = variables["params"]["readout"]
        features = jnp.concatenate([_pooled(x, size.pooled) for x in z], -1)
        return features @ params["kernel"] + params["bias"], variables

    return types.Model(
        image_shape=size.image_shape,
        num_classes=size.num_classes,
        init=jax.jit(init),
        bind=bind,
        inject=apply_inject,
        initial_state=lambda u: tuple(jnp.zeros((len(u[0]), *shape)) for shape in _shapes(size)),
        cell=cell,
        readout=readout,
        contraction=_constants(size, bind),
    )


def _shapes(size: architecture.ContractionModel) -> list[tuple[int, int, int]]:
    """(height, width, channels) of each branch."""
    height, width = (side // size.patch for side in size.image_shape[:2])
    return [(height >> i, width >> i, channels) for i, channels in enumerate(size.channels)]


def _shape(size: architecture.ContractionModel, to: int, of: int) -> tuple[int, int, int, int]:
    """Shape of the kernel from one branch to another."""
    if to == of:
        return (3, 3, size.channels[of], size.channels[to])
    # Pixels of the finer branch that lie in one of the coarser.
    block = 4 ** abs(to - of)
    return (1, 1, size.channels[of] * (block if to > of else 1), size.channels[to] * (block if to < of else 1))


def _part(kernel: jax.Array, x: jax.Array, halvings: int) -> jax.Array:
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


def _rescaled(kernel: jax.Array | np.ndarray) -> jax.Array:
    """The kernel with each input channel scaled so that the norm of its convolution is at most 1."""
    return jnp.asarray(kernel) / jnp.sqrt(jnp.sum(_products(kernel), -1) + 1e-12)[:, None]


def _products(kernel: jax.Array | np.ndarray) -> jax.Array:
    """Bound on the products of a convolution with its transpose [in_channels, in_channels].

    Entry (c, d) is the sum over all offsets of the absolute correlation of the kernels of input channels c and d.
    Zero padding only removes terms.
    """
    pad = kernel.shape[0] - 1
    correlations = layers.convolve(
        jnp.transpose(kernel, (2, 0, 1, 3)), jnp.swapaxes(kernel, 2, 3), 1, ((pad, pad), (pad, pad))
    )
    return jnp.sum(jnp.abs(correlations), (1, 2))


def _constants(
    size: architecture.ContractionModel, bind: Callable[[types.Variables], types.Parameters]
) -> types.Contraction:
    """The constants of a contraction, from kernels as the cell uses them."""
    cells = size.pooled**2
    areas = np.concatenate(
        [np.full(cells * channels, height * width / cells) for height, width, channels in _shapes(size)]
    )

    def kernels(variables: types.Variables) -> list[list[np.ndarray]]:
        return [[np.asarray(kernel, np.float64) for kernel in row] for row in bind(variables)]

    def factor(variables: types.Variables) -> float:
        return _norm(kernels(variables)) * _OUTWARDS

    def rounding(variables: types.Variables) -> tuple[float, float]:
        found = kernels(variables)
        # The parts are finished sums; the injection and then the parts are added up.
        num = len(found)
        errors = [[_rounding_of_sum(x[..., 0].size + num) * np.abs(x) for x in row] for row in found]
        return _norm(errors) * _OUTWARDS, _rounding_of_sum(num)

    def weights(variables: types.Variables) -> np.ndarray:
        """Derivatives of the logits, scaled so that their norms are those in the state [features, classes]."""
        kernel = np.asarray(variables["params"]["readout"]["kernel"], np.float64)
        return kernel / np.sqrt(areas)[:, None]

    def reach(variables: types.Variables) -> np.ndarray:
        found = weights(variables)
        return np.linalg.norm(found[:, :, None] - found[:, None, :], axis=0) * _OUTWARDS

    def readout_rounding(variables: types.Variables) -> tuple[float, float]:
        unit = _rounding_of_sum(len(areas) + int(areas.max()) + 2)
        bias = np.abs(np.asarray(variables["params"]["readout"]["bias"], np.float64))
        return unit * float(np.linalg.norm(weights(variables), axis=0).max()) * _OUTWARDS, unit * float(bias.max())

    return types.Contraction(factor, rounding, reach, readout_rounding)


def _norm(kernels: list[list[np.ndarray]]) -> float:
    """Upper bound on the norm of the linear map of kernels [to][from]."""
    return _largest(np.array([[_largest_of_convolution(kernel) for kernel in row] for row in kernels]))


def _largest_of_convolution(kernel: np.ndarray) -> float:
    """Upper bound on the norm of a convolution with zero padding, at any resolution."""
    height, width, channels, _ = kernel.shape
    products = np.zeros((channels, channels))
    for y, x in itertools.product(range(1 - height, height), range(1 - width, width)):
        here = kernel[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        there = kernel[max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
        products += np.abs(np.einsum("ijco,ijdo->cd", here, there))
    return float(np.sqrt(_perron(products)))


def _largest(matrix: np.ndarray) -> float:
    """Upper bound on the norm of a matrix without negative entries."""
    return float(np.sqrt(_perron(matrix.T @ matrix)))


def _perron(matrix: np.ndarray) -> float:
    """Upper bound on the largest eigenvalue of a symmetric matrix without negative entries (Collatz & Wielandt).

    For every positive vector v it is at most the largest entry of M v / v; iterations only make it tighter.
    """
    vector = np.ones(len(matrix))
    for _ in range(_ITERATIONS):
        after = matrix @ vector
        vector = np.maximum(after / max(after.max(), np.finfo(float).tiny), _SMALLEST)
    return float((matrix @ vector / vector).max())


def _rounding_of_sum(num_terms: int) -> float:
    """Bound on the relative error of a float32 sum of products, in any order (Higham 2002, section 3.1)."""
    unit = num_terms * 2.0**-24
    return unit / (1 - unit)
