"""Sound and fast certified L2 robustness of deep equilibrium models, by randomized smoothing in JAX.

    import deqsmooth as ds

    images, labels = ds.load_dataset("digits").take(range(2))
    model = ds.load_checkpoint("digits", 0.5)
    settings = ds.Smoothing(sigma=0.5, num_estimation=1000, num_audit=200)
    for certificate in ds.certify(model, images, settings, labels=labels):
        print(certificate.prediction, certificate.radius)

Importing the package starts nothing: no device is touched and no cache is set up.
"""

from __future__ import annotations

__version__ = "0.1.0"

from deqsmooth.architecture import ConvModel, MdeqModel, ResnetModel
from deqsmooth.certificates import Certificate, Writer, read
from deqsmooth.certification import certify, certify_dataset
from deqsmooth.checkpoints import Checkpoint, load, shipped
from deqsmooth.config import Selection, Smoothing, Training
from deqsmooth.data import Dataset
from deqsmooth.data import load as load_dataset
from deqsmooth.models import build
from deqsmooth.types import Model, Solution


def load_checkpoint(dataset: str, sigma: float) -> Checkpoint:
    """The model that comes with the package for a data set and noise; see `checkpoints.shipped`."""
    return load(shipped(dataset, sigma))


__all__ = [
    "Certificate",
    "Checkpoint",
    "ConvModel",
    "Dataset",
    "MdeqModel",
    "Model",
    "ResnetModel",
    "Selection",
    "Smoothing",
    "Solution",
    "Training",
    "Writer",
    "build",
    "certify",
    "certify_dataset",
    "load",
    "load_checkpoint",
    "load_dataset",
    "read",
    "shipped",
]
