"""Scales of experiments: from a name and a data set to numbers of images, samples and epochs."""

from __future__ import annotations

import dataclasses

from deqsmooth import config
from deqsmooth.config import checks, presets


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of an experiment.

    Attributes:
      num_images: number of certified images for each sigma, evenly spaced.
      num_selection: samples that select the class.
      num_estimation: samples that the bound counts.
      num_audit: audited votes of the serial rows.
      lanes: samples of an image that are solved side by side; for serial rows the number of chains.
      training: fraction of a recipe's epochs that models are trained for.
      attacked: steps of each attack.
    """

    num_images: int
    num_selection: int
    num_estimation: int
    num_audit: int
    lanes: int
    training: float
    attacked: int


SCALES = {
    "smoke": Scale(3, 20, 300, 60, 32, 0.01, 2),
    "small": Scale(30, 100, 10_000, 400, 400, 0.25, 20),
    # The scale of the paper.
    "full": Scale(500, 100, 10_000, 400, 400, 1.0, 20),
}
# A sample of CIFAR-10 takes a hundred times as long as one of digits.
_SMALL_CIFAR10 = Scale(100, 100, 1000, 200, 100, 0.1, 20)


def scale(name: str, dataset: str) -> Scale:
    """Returns the scale with this name for a data set."""
    return _SMALL_CIFAR10 if (name, dataset) == ("small", "cifar10") else SCALES[name]


def recipe(dataset: str, scale: Scale, data_dir: str | None) -> config.Training:
    """Returns the settings with which an experiment trains models: the data set's recipe with fewer epochs.

    The caller sets `sigma`.

    Raises:
      ValueError: the data set has no recipe.
    """
    whole = scale.training == 1
    names = {
        "digits": "digits",
        "cifar10": "mdeq-small" if whole else "mdeq-small-cpu",
        "imagenet": "mdeq-small-imagenet",
    }
    checks.known("dataset", dataset, names)
    settings = presets.TRAINING[names[dataset]].resolved()
    return dataclasses.replace(
        settings,
        data_dir=data_dir,
        epochs=max(1, round(scale.training * settings.epochs)),
        **{
            name: scale.training * getattr(settings, name) for name in ("pretraining_epochs", "adversarial_epochs")
        },
    )
