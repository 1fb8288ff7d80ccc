"""Data sets: splits of images and labels with random access, training batches, and the rules of their contents."""

from deqsmooth.data.arrays import of as of_arrays
from deqsmooth.data.batching import batches
from deqsmooth.data.contents import PIXEL_ROUNDING, check_images, check_indices, check_labels
from deqsmooth.data.dataset import Dataset, Pair, Pairs
from deqsmooth.data.loading import load

__all__ = [
    "PIXEL_ROUNDING",
    "Dataset",
    "Pair",
    "Pairs",
    "batches",
    "check_images",
    "check_indices",
    "check_labels",
    "load",
    "of_arrays",
]
