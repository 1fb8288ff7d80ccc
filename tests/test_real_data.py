"""Real CIFAR-10 images and ImageNet photos, where a TFDS data directory is given; skipped elsewhere."""

import dataclasses
import itertools
import os

import jax
import numpy as np
import pytest

from deqsmooth import config, data, models
from deqsmooth.config import presets
from deqsmooth.models import checkpoints, classifiers
from deqsmooth.smoothing import certification
from deqsmooth.training import model_training

DATA_DIR = os.environ.get("DEQSMOOTH_TFDS_DIR")
pytestmark = [
    pytest.mark.skipif(DATA_DIR is None, reason="DEQSMOOTH_TFDS_DIR names no TFDS data directory"),
    pytest.mark.usefixtures("optimised"),
]


def test_cifar10_is_the_published_data_set():
    test = data.load("cifar10", "test", DATA_DIR)
    _, labels = test.take(range(len(test)))
    assert np.bincount(labels).tolist() == [1000] * 10
    assert len(data.load("cifar10", "train", DATA_DIR)) == 50_000


def test_a_published_model_trains_on_cifar10():
    settings = dataclasses.replace(
        presets.TRAINING["mdeq-small"], batch_size=8, epochs=1, pretraining_epochs=0.0, jacobian_frequency=0.0
    )
    train, test = (data.load("cifar10", split, DATA_DIR) for split in ("train", "test"))
    found = list(itertools.islice(model_training.fit(models.build(settings.model), settings, train, test), 4))
    losses = [float(p.metrics.loss) for p in found]
    assert np.isfinite(losses).all() and losses[-1] < 10


def test_shipped_model_classifies_most_of_cifar10():
    test = data.load("cifar10", "test", DATA_DIR)
    settings = config.Smoothing(sampler="independent", budget=10, num_selection=20, num_estimation=50)
    checkpoint = checkpoints.load_shipped("cifar10", 0.5)
    found = list(certification.certify_dataset(checkpoint, test, range(0, 10_000, 500), settings))
    # 20 images: chance is 2, and the shipped model is right about more than 40 %.
    assert sum(c.selected == c.label for c in found) >= 5


def test_imagenet_photo_is_certified():
    photos = data.load("imagenet", "validation", DATA_DIR)
    size = presets.MODELS["mdeq-small-imagenet"]
    model = models.build(size)
    checkpoint = classifiers.of_size(size, model.init(jax.random.key(0)))
    settings = config.Smoothing(
        budget=1, warmup_budget=1, reference_budget=2, num_selection=4, num_estimation=12, num_audit=12, alpha=0.1,
        lanes=8, block=8,
    )  # fmt: skip
    (found,) = certification.certify_dataset(checkpoint, photos, [0], settings)
    assert sum(found.counts) == 12 and found.num_audit == found.count and found.invalid == 0
