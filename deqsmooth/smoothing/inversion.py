"""Inversion: uniform integers become magnitudes of rounded normal variables, by search in a table."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deqsmooth.statistics import rounded_normal

# Of an octave of integers there are 2^8 buckets; see `Table`.
_OCTAVE_BITS = 8


class Table(NamedTuple):
    """Thresholds, and where the search for one begins.

    Twice U is a number of 64 bits. Its bucket is named by its number of leading zeros and by the `_OCTAVE_BITS`
    bits that follow the first one. From the number of thresholds above every number of a bucket, few steps lead to
    the magnitude.

    Attributes:
      first: magnitude of the largest number of each bucket [buckets], int32.
      high: upper half of twice the threshold of each magnitude, and zeros [1 + magnitudes + steps], uint32.
      low: lower half.
      steps: largest number of thresholds in a bucket.
    """

    first: np.ndarray
    high: np.ndarray
    low: np.ndarray
    steps: int


@functools.lru_cache(maxsize=8)
def table(sigma: float, grid: int) -> Table:
    """The table of rounded normal variables; see `deqsmooth.statistics.rounded_normal.thresholds`.

    Args:
      sigma: standard deviation.
      grid: points of the grid in a unit.
    """
    doubled = [2 * int(one) for one in rounded_normal.thresholds(sigma, grid)]
    ascending = np.array(doubled[::-1], np.uint64)
    smallest, largest = [], []
    for zeros in range(64):
        for following in range(1 << _OCTAVE_BITS):
            leading, shift = (1 << _OCTAVE_BITS) + following, 63 - zeros - _OCTAVE_BITS
            least = leading << shift if shift >= 0 else leading >> -shift
            smallest.append(least)
            largest.append(least + (1 << max(shift, 0)) - 1)
    # 0 has 64 leading zeros, and shares the bucket of 1.
    smallest[63 << _OCTAVE_BITS] = 0
    first, last = (
        len(doubled) - np.searchsorted(ascending, np.array(ends, np.uint64), side="right")
        for ends in (largest, smallest)
    )
    steps = int((last - first).max())
    padded = np.array([0, *doubled, *[0] * steps], np.uint64)
    return Table(
        first.astype(np.int32), (padded >> np.uint64(32)).astype(np.uint32), padded.astype(np.uint32), steps
    )


def magnitude(table: Table, high: jax.Array, low: jax.Array) -> jax.Array:
    """The number of thresholds above uniform integers U of 63 bits, int32.

    Args:
      table: the thresholds.
      high: upper 32 bits of 2 U, uint32.
      low: lower 32 bits, of the same shape.
    """
    zeros = lax.clz(high)
    only_low = jnp.where(high == 0, lax.clz(low), 0).astype(jnp.uint32)
    # Shifts by 32 give 0.
    leading = lax.shift_left(high, zeros) | lax.shift_right_logical(low, 32 - zeros)
    leading = lax.shift_left(leading, only_low)
    following = lax.shift_right_logical(lax.shift_left(leading, jnp.uint32(1)), jnp.uint32(32 - _OCTAVE_BITS))
    octave = jnp.minimum(zeros + only_low, 63).astype(jnp.int32)
    bucket = (octave << _OCTAVE_BITS) + following.astype(jnp.int32)
    first, table_high, table_low = map(jnp.asarray, table[:3])
    found = first[bucket]
    for _ in range(table.steps):
        next_high, next_low = table_high[found + 1], table_low[found + 1]
        is_below = (high < next_high) | ((high == next_high) & (low < next_low))
        found += is_below.astype(jnp.int32)
    return found
