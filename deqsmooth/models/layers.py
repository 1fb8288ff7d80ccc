"""Layers of which the model families are composed: convolution, group and batch normalisation, channels last.

Their backward passes stay fast inside XLA loops. Activations are NHWC and kernels HWIO.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from deqsmooth.models import strips, winograd

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Zeros before and after each of the two spatial axes."""
_EPSILON = 1e-5
_FEW_PIXELS = 4


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(x: jax.Array, kernel: ArrayLike, stride: int, padding: Padding, fast: bool = False) -> jax.Array:
    """Two-dimensional convolution whose derivatives are again calls of this function.

    With at most four pixels the activations are multiplied by the matrix of the convolution: XLA's convolution of
    3x3 on 2x2 pixels of 64 channels takes 15 times longer on a CPU.

    JAX's own derivative of a convolution has layouts that XLA's CPU backend runs 5-120 times slower inside `scan`,
    `while_loop` and `cond`. Here the derivatives are written as plain NHWC/HWIO convolutions, which keep their
    speed at any order of differentiation. Reverse mode only: `jax.jvp` raises.

    Args:
      x: activations [lanes, height, width, in_channels].
      kernel: weights [kernel_height, kernel_width, in_channels, out_channels].
      stride: step of the window along both axes.
      padding: zeros before and after each spatial axis.
      fast: whether a CPU may compute it by `strips`, or by `winograd`, whose rounding is not that of a sum of
        products.

    Returns:
      Activations [lanes, out_height, out_width, out_channels], in the dtype of `x`.
    """
    lanes, height, width, channels = x.shape
    kernel = jnp.asarray(kernel)
    if height * width <= _FEW_PIXELS and kernel.shape[:2] != (1, 1):
        rows, columns = (
            _taps(size, window, stride, before_after)
            for size, window, before_after in zip((height, width), kernel.shape, padding, strict=False)
        )
        matrix = jnp.einsum("ipa,jqb,abco->ijcpqo", rows.astype(x.dtype), columns.astype(x.dtype), kernel)
        shape = (rows.shape[1], columns.shape[1], kernel.shape[-1])
        y = x.reshape(lanes, -1) @ matrix.reshape(height * width * channels, -1)
        return y.reshape(lanes, *shape)
    direct = functools.partial(
        lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if fast and winograd.suits(x, kernel.shape, stride, padding):
        return lax.platform_dependent(x, kernel, cpu=winograd.convolve, default=direct)
    if fast and strips.suits(kernel.shape, stride):
        in_strips = functools.partial(strips.convolve, stride=stride, padding=padding)
        return lax.platform_dependent(x, kernel, cpu=in_strips, default=direct)
    return direct(x, kernel)


def _taps(size: int, window: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """Which entry of the window meets which input for which output along an axis [size, outputs, window]."""
    before, after = padding
    num = (size + before + after - window) // stride + 1
    met = np.arange(size)[:, None] + before - stride * np.arange(num)
    return met[..., None] == np.arange(window)


def _convolve_forward(
    x: jax.Array, kernel: ArrayLike, stride: int, padding: Padding, fast: bool
) -> tuple[jax.Array, tuple[jax.Array, ArrayLike]]:
    return convolve(x, kernel, stride, padding, fast), (x, kernel)


def _convolve_backward(
    stride: int, padding: Padding, fast: bool, residuals: tuple[Any, Any], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    # Interior padding inserts a cotangent of zero at the positions that the stride skipped.
    spread = lax.pad(
        cotangent,
        jnp.zeros((), cotangent.dtype),
        ((0, 0, 0), (0, 0, stride - 1), (0, 0, stride - 1), (0, 0, 0)),
    )
    input_padding, kernel_padding = [], []
    for axis, (before, _) in zip((1, 2), padding, strict=True):
        size, window, steps = x.shape[axis], kernel.shape[axis - 1], spread.shape[axis]
        input_padding.append((window - 1 - before, size + before - steps))
        kernel_padding.append((before, window - 1 + steps - size - before))
    d_input = convolve(spread, jnp.swapaxes(kernel[::-1, ::-1], 2, 3), 1, tuple(input_padding), fast)
    d_kernel = convolve(
        jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(spread, (1, 2, 0, 3)), 1, tuple(kernel_padding)
    )
    return d_input, jnp.transpose(d_kernel, (1, 2, 0, 3))


convolve.defvjp(_convolve_forward, _convolve_backward)


def group_norm(
    x: jax.Array,
    num_groups: int,
    scale: ArrayLike | None,
    bias: ArrayLike | None,
    epsilon: float = _EPSILON,
) -> jax.Array:
    """Group normalisation (Wu & He 2018) in one pass over the activations.

    Sums and sums of squares are computed by channel and combined on the small [lanes, channels] array. The
    activations are thus read once and written by one fused multiply-add. The variance is E[x^2] - E[x]^2 in
    float32; its relative error is about 1e-7 (mean / std)^2 larger than that of the two-pass form.

    Args:
      x: activations [lanes, height, width, channels].
      num_groups: number of groups; divides the channels.
      scale: factor by channel [channels], or None for a factor of 1.
      bias: offset by channel [channels], or None for an offset of 0.
      epsilon: added to the variance.

    Returns:
      Normalised activations in the shape and dtype of `x`.
    """
    lanes, height, width, channels = x.shape
    wide = x.astype(jnp.float32)
    moments = jnp.stack([jnp.sum(wide, (1, 2)), jnp.sum(wide * wide, (1, 2))])
    per_group = moments.reshape(2, lanes, num_groups, channels // num_groups)
    mean, mean_square = jnp.sum(per_group, -1) / (height * width * (channels // num_groups))
    variance = jnp.maximum(mean_square - mean * mean, 0.0)
    factor = jnp.repeat(lax.rsqrt(variance + epsilon), channels // num_groups, axis=-1)
    if scale is not None:
        factor = factor * _by_channel(scale, factor)
    offset = -jnp.repeat(mean, channels // num_groups, axis=-1) * factor
    if bias is not None:
        offset = offset + _by_channel(bias, offset)
    return (wide * factor[:, None, None] + offset[:, None, None]).astype(x.dtype)


def blocks_to_channels(x: jax.Array, side: int) -> jax.Array:
    """Makes the pixels of each block of side x side the channels of one pixel, which keeps norms.

    Args:
      x: activations [lanes, height, width, channels].
      side: divides height and width.

    Returns:
      Activations [lanes, height / side, width / side, side * side * channels].
    """
    lanes, height, width, channels = x.shape
    x = jnp.moveaxis(x.reshape(lanes, height // side, side, width // side, side, channels), 2, 3)
    return x.reshape(lanes, height // side, width // side, side * side * channels)


def standardise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Subtracts a mean by channel from images and divides by a standard deviation by channel.

    Args:
      images: images [lanes, height, width, channels].
      mean: one number, or one for each channel.
      std: one number, or one for each channel.
    """
    return (images - _by_channel(mean, images)) / _by_channel(std, images)


def _by_channel(values: ArrayLike | Sequence[float], x: jax.Array) -> jax.Array:
    """Returns numbers by channel as an array that broadcasts with activations, in their dtype."""
    return jnp.asarray(values, x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Conv(nn.Module):
    """Convolution with a square window and padding (size - 1) // 2 on every side at any stride, as in PyTorch.

    On a CPU windows of 3x3 with many channels are computed by `winograd`, and others with few by `strips`. A cell
    whose rounding is bounded as that of sums of products must use `convolve`.

    Attributes:
      features: number of output channels.
      size: side of the window.
      stride: step of the window along both axes.
      use_bias: whether to add a bias by channel.
      kernel_init: initialiser of the kernel.
    """

    features: int
    size: int = 3
    stride: int = 1
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

    @nn.compact
    def __call__(
        self, x: jax.Array, factor: jax.Array | None = None, offset: jax.Array | None = None
    ) -> jax.Array:
        """Maps [lanes, height, width, channels] to [lanes, out_height, out_width, features].

        If factor and offset [features] are given, the result is multiplied by the factor and the offset is added.
        """
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        if factor is not None and offset is not None:
            kernel = kernel * _by_channel(factor, kernel)
            bias = offset if bias is None else bias * factor + offset
        pad = (self.size - 1) // 2
        y = convolve(x, kernel, self.stride, ((pad, pad), (pad, pad)), True)
        return y if bias is None else y + _by_channel(bias, y)


class GroupNorm(nn.Module):
    """Affine group normalisation with PyTorch's epsilon.

    Attributes:
      num_groups: number of groups; divides the channels.
    """

    num_groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises [lanes, height, width, channels]."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        return group_norm(x, self.num_groups, scale, self.param("bias", nn.initializers.zeros, channels))


def conv_batch_norm(
    conv: Conv, x: jax.Array, train: bool, name: str, affine: bool = True, axis_name: str | None = None
) -> jax.Array:
    """Convolution, then batch normalisation with PyTorch's epsilon and momentum.

    In evaluation the normalisation is a fixed affine map, which is folded into the kernel (Jacob et al. 2018,
    section 3.2). Up to rounding this is the same function, in one pass over the activations.

    Args:
      conv: the convolution.
      x: input of the convolution [lanes, height, width, channels].
      train: whether to normalise by the statistics of the batch instead of the running statistics.
      name: name of the normalisation in the variables.
      affine: whether the normalisation has a learned scale and bias.
      axis_name: mapped axis of the devices over which batch statistics are averaged.

    Returns:
      Activations [lanes, out_height, out_width, features].
    """
    if not train:
        return conv(x, *_RunningNorm(affine, name=name)(conv.features))
    normalise = nn.BatchNorm(
        use_running_average=False,
        momentum=0.9,
        epsilon=_EPSILON,
        use_scale=affine,
        use_bias=affine,
        axis_name=axis_name,
        name=name,
    )
    return normalise(conv(x))


class _RunningNorm(nn.Module):
    """Batch normalisation by running statistics, as factor and offset by channel; has the variables of flax's."""

    affine: bool

    @nn.compact
    def __call__(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Returns factor and offset [channels]."""
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels).value
        variance = self.variable("batch_stats", "var", jnp.ones, channels).value
        factor = lax.rsqrt(variance + _EPSILON)
        if not self.affine:
            return factor, -mean * factor
        factor = factor * self.param("scale", nn.initializers.ones, (channels,))
        return factor, self.param("bias", nn.initializers.zeros, (channels,)) - mean * factor
