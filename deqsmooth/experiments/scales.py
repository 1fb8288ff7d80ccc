"""How large an experiment is: how many images and samples, and how long its models are trained."""

from __future__ import annotations

import dataclasses

from deqsmooth import config
from deqsmooth.config import checks, presets


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large an experiment is.

    Attributes:
      num_images: images of each noise, evenly spaced.
      num_selection: samples that choose the class.
      num_estimation: samples that are counted.
      num_audit: audited votes of the serial rows.
      lanes: samples of an image side by side; the number of chains of the serial rows.
      training: share of the epochs of a recipe that models are trained for.
      attacked: steps of attacks.
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
    # The paper's.
    "full": Scale(500, 100, 10_000, 400, 400, 1.0, 20),
}
# A sample of CIFAR-10 costs a hundred times one of digits.
_SMALL_CIFAR10 = Scale(100, 100, 1000, 200, 100, 0.1, 20)


def scale(name: str, dataset: str) -> Scale:
    """The scale with a name, for a data set."""
    return _SMALL_CIFAR10 if (name, dataset) == ("small", "cifar10") else SCALES[name]


def recipe(dataset: str, scale: Scale, data_dir: str | None) -> config.Training:
    """How models are trained on a data set at a scale, without the noise: its recipe, shortened.

    Raises:
      ValueError: the data set has none.
    """
    whole = scale.training == 1
    names = {
        "digits": "digits",
        "cifar10": "mdeq-small" if whole else "mdeq-small-cpu",
        "imagenet": "mdeq-small-imagenet",
    }
    checks.known("dataset", dataset, names)
    settings = presets.TRAINING[names[dataset]]
    return dataclasses.replace(
        settings,
        data_dir=data_dir,
        epochs=max(1, round(scale.training * settings.epochs)),
        **{
            name: scale.training * getattr(settings, name) for name in ("pretraining_epochs", "adversarial_epochs")
        },
    )
