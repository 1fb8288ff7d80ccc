"""Exact noise once more, in integers of NumPy: Threefry-2x32 (Salmon et al. 2011) and thresholds."""

import numpy as np

from deqsmooth.statistics import rounded_normal

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF


def block(key, first, second):
    """Threefry-2x32 of counters, uint32 arrays, with a key of two integers."""
    words = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x, y = (np.asarray(c, np.uint64) for c in (first, second))
    x, y = (x + np.uint64(words[0])) & _MASK, (y + np.uint64(words[1])) & _MASK
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = (x + y) & _MASK
            y = ((y << np.uint64(rotation)) | (y >> np.uint64(32 - rotation))) & _MASK
            y ^= x
        x = (x + np.uint64(words[(group + 1) % 3])) & _MASK
        y = (y + np.uint64(words[(group + 2) % 3]) + np.uint64(group + 1)) & _MASK
    return x, y


def folded(key, number):
    """The key that a number is folded into."""
    x, y = block(key, number >> 32, number & _MASK)
    return int(x), int(y)


def rounded(seed, image, phase, sample, shape, sigma, grid):
    """The integers of `noise.rounded` for one sample."""
    key = (seed >> 32, seed & _MASK)
    for number in (image, phase, sample):
        key = folded(key, number)
    places = np.arange(2 * int(np.prod(shape)), dtype=np.uint64)
    x, y = block(key, places >> np.uint64(32), places & np.uint64(_MASK))
    high, low = (x ^ y).reshape(2, *shape)
    number = (high << np.uint64(31)) | (low >> np.uint64(1))
    limits = rounded_normal.thresholds(sigma, grid)
    magnitude = len(limits) - np.searchsorted(limits[::-1], number, side="right")
    return np.where(low & np.uint64(1), -magnitude, magnitude)


def halves(numbers):
    """Numbers of 64 bits as their upper and lower halves, uint32."""
    return (numbers >> np.uint64(32)).astype(np.uint32), numbers.astype(np.uint32)
