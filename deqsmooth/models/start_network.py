"""Start networks: takes a size and a model, gives a `types.StartNetwork` that predicts equilibria of the model.

The input is the injection of the noisy image; a short solve can start from the prediction. A hidden layer combines
a convolution with features that are pooled over the whole image. Every resolution of the state has its own output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from deqsmooth import types
from deqsmooth.config import architecture, checks
from deqsmooth.models import layers

_NUM_GROUPS = 8

T = TypeVar("T")


class _Layer(nn.Module):
    """Convolution with a bias by channel computed from the pooled input, then group normalisation."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        everywhere = nn.Dense(self.width, name="pooled")(jnp.mean(x, (1, 2)))
        y = layers.Conv(self.width, stride=self.stride, name="conv")(x) + everywhere[:, None, None]
        return nn.relu(layers.GroupNorm(_NUM_GROUPS, name="norm")(y))


class _Network(nn.Module):
    width: int
    shapes: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, features: list[jax.Array]) -> list[jax.Array]:
        x = _Layer(self.width, name="layer_in")(features[0])
        outputs = []
        for index, (height, _, channels) in enumerate(self.shapes):
            step = 0
            while x.shape[1] > height:
                x = _Layer(self.width, stride=2, name=f"down_{index}_{step}")(x)
                step += 1
            x = x + _Layer(self.width, name=f"layer_{index}")(x)
            outputs.append(layers.Conv(channels, use_bias=True, name=f"out_{index}")(x))
        return outputs


class _Map(nn.Module):
    """A linear map of the channels of every pixel and of their positive parts, with a bias."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, 2 * x.shape[-1], self.channels)
        kernel = self.param("kernel", layers.Conv.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        # To concatenate x and its positive part takes as long on a CPU as the products.
        of_x, of_positive = jnp.split(kernel, 2, 2)
        none = ((0, 0), (0, 0))
        return layers.convolve(x, of_x, 1, none) + layers.convolve(nn.relu(x), of_positive, 1, none) + bias


class _Scale(nn.Module):
    """A multiple of every number, another one of its positive part, and a bias, by channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        of_x, of_positive = self.param("kernel", nn.initializers.constant(0.5), (2, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return of_x * x + of_positive * nn.relu(x) + bias


class _Elementwise(nn.Module):
    """A map of the numbers of the injection to those of the state in the same places."""

    @nn.compact
    def __call__(self, features: list[jax.Array]) -> list[jax.Array]:
        return [_Scale(name=f"out_{index}")(x) for index, x in enumerate(features)]


class _Pointwise(nn.Module):
    """A map of the pixels of the injection to the pixels of the state that cover them, branch by branch."""

    shapes: tuple[tuple[int, ...], ...]

    @nn.compact
    def __call__(self, features: list[jax.Array]) -> list[jax.Array]:
        outputs = []
        for index, (height, _, channels) in enumerate(self.shapes):
            x = _of_branch(features, index)
            x = layers.blocks_to_channels(x, x.shape[1] // height)
            outputs.append(_Map(channels, name=f"out_{index}")(x))
        return outputs


def start(size: architecture.StartModel, model: types.Model) -> types.StartNetwork:
    """Returns the network of a size that predicts the equilibria of a model.

    Its input is the first leaf of the injection, features of the image [lanes, height, width, channels]. The
    leaves of the state must be ordered from fine to coarse. Their resolutions must be that of the input, divided
    by powers of 2 and rounded up. Without hidden layers the input of a leaf of the state is the leaf of the
    injection with the same index, or the last one, whose resolution must be a multiple of that of the state's.
    With a width of 0 both must have arrays of the same shapes.

    Args:
      size: size of the network.
      model: the model.

    Raises:
      ValueError: an array of the state, or an input, has other axes; or the shapes of the state do not follow from
        those of the input as above.
    """

    def injection(key: types.RandomKey) -> types.Injection:
        images = jnp.zeros((1, *model.image_shape))
        return model.inject(model.init(key), images, None)[0]

    u = jax.eval_shape(injection, jax.random.key(0))
    state = jax.eval_shape(model.initial_state, u)
    inputs = jax.tree.leaves(u)[: 1 if size.width else None]
    for name, arrays in (("the injection", inputs), ("the state", jax.tree.leaves(state))):
        rule = (
            "[lanes, height, width, channels] for a learned start (tokens can be given as such a grid, and "
            "reshaped in the cell); without one the model is certified from zero"
        )
        for x in arrays:
            checks.holds(x.ndim == 4, f"shape of {name} of one image", x.shape, rule)
    shapes = tuple(x.shape[1:] for x in jax.tree.leaves(state))
    network: nn.Module
    if size.width == 0:
        _check_equal(tuple(x.shape[1:] for x in inputs), shapes)
        network = _Elementwise()
    elif size.width is None:
        _check_multiples([x.shape[1:] for x in inputs], shapes)
        network = _Pointwise(shapes)
    else:
        _check_resolutions(inputs[0].shape[1:], shapes)
        network = _Network(size.width, shapes)

    def init(key: types.RandomKey) -> types.Parameters:
        return network.init(key, [jnp.zeros(x.shape) for x in inputs])["params"]

    def apply(params: types.Parameters, u: types.Injection) -> types.State:
        features = [x.astype(jnp.float32) for x in jax.tree.leaves(u)[: len(inputs)]]
        return jax.tree.unflatten(jax.tree.structure(state), network.apply({"params": params}, features))

    return types.StartNetwork(jax.jit(init), apply, state)


def _of_branch(features: Sequence[T], index: int) -> T:
    """Returns what a branch of the state is computed from without hidden layers."""
    return features[min(index, len(features) - 1)]


def _check_equal(inputs: Sequence[tuple[int, ...]], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises `ValueError` unless the arrays of the state have the shapes of those of the injection."""
    if inputs != shapes:
        of_state, of_injection = (", ".join(map(str, x)) for x in (shapes, inputs))
        raise ValueError(
            f"the arrays of the state of one image have shapes {of_state}, and those of the injection "
            f"{of_injection}; they must be equal for a start network of width 0; one without a width maps the "
            "channels of the injection to those of the state"
        )


def _check_multiples(inputs: Sequence[tuple[int, ...]], shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises `ValueError` unless each array of the state divides the resolution of its array of the injection."""
    for index, (height, width, _) in enumerate(shapes):
        rows, columns, _ = _of_branch(inputs, index)
        if rows % height or columns % width or rows // height != columns // width:
            of_state, of_injection = (", ".join(map(str, x)) for x in (shapes, inputs))
            raise ValueError(
                f"the arrays of the state of one image have shapes {of_state}, and those of the injection "
                f"{of_injection}; for a start without hidden layers the height and width of each array of the "
                "injection must be the same multiple of those of the state's; a width of the start network gives "
                "it hidden layers"
            )


def _check_resolutions(features: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> None:
    """Raises `ValueError` unless the network reaches the resolution of every array of the state by halving."""
    resolution = features[:2]
    for shape in shapes:
        while resolution[0] > max(shape[0], 1):
            resolution = tuple(-(-side // 2) for side in resolution)
        if resolution != shape[:2]:
            found = ", ".join(map(str, shapes))
            raise ValueError(
                f"the arrays of the state of one image, in the order of jax.tree.leaves, have shapes {found}, and "
                f"the first array of the injection has {features}; for a learned start height and width of each "
                "array of the state must be those of the injection's first array, divided by powers of two, from "
                "fine to coarse; without one the model is certified from zero"
            )
