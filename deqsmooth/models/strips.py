"""Convolution with few channels by several columns of outputs at a time, for CPUs.

On a CPU XLA computes a convolution as a product of matrices that has as many columns as there are output channels.
With few of them most of a core's vector units are idle. A window that is wider by some columns yields the outputs
of these columns as additional channels. Its weights are zero at the pixels outside of an output's own window.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

# Products of stride, input channels and output channels up to which more columns at a time take less time.
_MOST = 64
# Output channels of all columns together.
_CHANNELS = 32


def suits(kernel_shape: Sequence[int], stride: int) -> bool:
    """Whether `convolve` takes less time on a CPU than a convolution column by column.

    Args:
      kernel_shape: (height, width, in_channels, out_channels).
      stride: step of the window.
    """
    of, to = kernel_shape[2:]
    return kernel_shape[1] > 1 and stride * of * to <= _MOST and 2 * to <= _CHANNELS


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[tuple[int, int], tuple[int, int]]
) -> jax.Array:
    """Two-dimensional convolution, the same sums of products of finite numbers as column by column.

    Args:
      x: activations [lanes, height, width, in_channels].
      kernel: weights [kernel_height, kernel_width, in_channels, out_channels], with at most 32 output channels.
      stride: step of the window along both axes.
      padding: zeros before and after each spatial axis.

    Returns:
      Activations [lanes, out_height, out_width, out_channels].
    """
    window, to = kernel.shape[1], kernel.shape[-1]
    columns = (x.shape[2] + sum(padding[1]) - window) // stride + 1
    num = min(_CHANNELS // to, columns)
    strips = -(-columns // num)
    more = (num - 1) * stride
    shifted = [jnp.pad(kernel, ((0, 0), (i, more - i), (0, 0), (0, 0))) for i in range(0, more + 1, stride)]
    # The last strip may end outside the image.
    after = (strips * num - 1) * stride + window - x.shape[2] - padding[1][0]
    y = lax.conv_general_dilated(
        x,
        jnp.concatenate(shifted, -1),
        (stride, stride * num),
        (padding[0], (padding[1][0], after)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(*y.shape[:2], strips * num, to)[:, :, :columns]
