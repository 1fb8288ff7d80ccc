"""Sizes of the model families: the settings from which a checkpoint's model is built."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from deqsmooth.config import checks
from deqsmooth.config.branched import Branched as Branched
from deqsmooth.config.branched import ContractionModel as ContractionModel
from deqsmooth.config.branched import MonotoneModel as MonotoneModel
from deqsmooth.config.branched import SubhomogeneousModel as SubhomogeneousModel

_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2023, 0.1994, 0.2010)


@dataclasses.dataclass(frozen=True)
class ConvModel:
    """Size of a single-scale convolutional DEQ, whose cell is the residual block of Bai et al. 2020.

    Attributes:
      image_shape: (height, width, channels) of the images; `pool` must divide height and width.
      num_classes: number of classes.
      channels: channels of the state.
      expansion: the inner convolution of the block has `expansion * channels` channels.
      num_groups: number of groups of every group normalisation; must divide `channels`.
      pool: side of the average pooling window before the linear readout.
      mean: mean of each image channel, for standardisation.
      std: standard deviation of each image channel, for standardisation.

    Raises:
      ValueError: a number breaks a rule above.
    """

    image_shape: tuple[int, int, int] = (8, 8, 1)
    num_classes: int = 10
    channels: int = 24
    expansion: int = 2
    num_groups: int = 8
    pool: int = 2
    mean: tuple[float, ...] = (0.305,)
    std: tuple[float, ...] = (0.376,)

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.images(self.image_shape, self.num_classes, mean=self.mean, std=self.std)
        checks.positive(self, "channels", "expansion", "num_groups", "pool")
        checks.holds(
            self.channels % self.num_groups == 0,
            "channels",
            self.channels,
            f"a multiple of num_groups, {self.num_groups}",
        )
        height, width, _ = self.image_shape
        checks.holds(
            height % self.pool == 0 and width % self.pool == 0,
            "image_shape",
            self.image_shape,
            f"a shape whose height and width are multiples of pool, {self.pool}",
        )


@dataclasses.dataclass(frozen=True)
class MdeqModel:
    """Size of a multiscale DEQ (Bai et al. 2020).

    Attributes:
      image_shape: (height, width, channels) of the images.
      num_classes: number of classes.
      channels: channels of each branch, the finest branch first; multiples of 8. Branch i has the resolution of
        the finest branch divided by 2^i.
      head_channels: channels of each branch's bottleneck in the readout.
      final_channels: channels before the linear classifier.
      num_strided: number of convolutions with stride 2 among the first two.
      dropout: probability that a channel is dropped in a training solve.
      mean: mean of each image channel, for standardisation.
      std: standard deviation of each image channel, for standardisation.

    Raises:
      ValueError: a number breaks a rule above, or height and width cannot be halved as often as the branches need.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    num_classes: int = 10
    channels: tuple[int, ...] = (8, 16, 32)
    head_channels: tuple[int, ...] = (7, 14, 28)
    final_channels: int = 200
    num_strided: int = 0
    dropout: float = 0.2
    mean: tuple[float, ...] = _CIFAR10_MEAN
    std: tuple[float, ...] = _CIFAR10_STD

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.images(self.image_shape, self.num_classes, mean=self.mean, std=self.std)
        checks.positive(self, "final_channels")
        checks.holds(
            len(self.channels) >= 2 and all(c > 0 and c % 8 == 0 for c in self.channels),
            "channels",
            self.channels,
            "at least two positive multiples of 8",
        )
        checks.holds(
            len(self.head_channels) == len(self.channels) and min(self.head_channels) > 0,
            "head_channels",
            self.head_channels,
            f"{len(self.channels)} positive numbers, one for each entry of channels",
        )
        checks.holds(self.num_strided in (0, 1, 2), "num_strided", self.num_strided, "0, 1 or 2")
        checks.holds(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        factor = 2 ** (self.num_strided + len(self.channels) - 1)
        checks.holds(
            self.image_shape[0] % factor == 0 and self.image_shape[1] % factor == 0,
            "image_shape",
            self.image_shape,
            f"a shape whose height and width are multiples of {factor}, so that branches can be down-sampled",
        )


@dataclasses.dataclass(frozen=True)
class ResnetModel:
    """Size of a residual network (He et al. 2016): an explicit baseline without an equilibrium.

    Attributes:
      image_shape: (height, width, channels) of the images.
      num_classes: number of classes.
      blocks: number of residual blocks of each stage; every stage but the first halves the resolution.
      channels: channels of each stage; bottleneck blocks output four times as many.
      bottleneck: whether a block has 1x1, 3x3 and 1x1 convolutions instead of two 3x3 convolutions.
      stem: window side of the first convolution; above 3 it has stride 2, and max pooling of stride 2 follows.
      mean: mean of each image channel, for standardisation.
      std: standard deviation of each image channel, for standardisation.

    Raises:
      ValueError: a number breaks a rule above.
    """

    image_shape: tuple[int, int, int] = (32, 32, 3)
    num_classes: int = 10
    blocks: tuple[int, ...] = (18, 18, 18)
    channels: tuple[int, ...] = (16, 32, 64)
    bottleneck: bool = False
    stem: int = 3
    mean: tuple[float, ...] = _CIFAR10_MEAN
    std: tuple[float, ...] = _CIFAR10_STD

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.images(self.image_shape, self.num_classes, mean=self.mean, std=self.std)
        checks.holds(
            len(self.blocks) > 0 and min(self.blocks) > 0, "blocks", self.blocks, "one or more positive numbers"
        )
        checks.holds(
            len(self.channels) == len(self.blocks) and min(self.channels) > 0,
            "channels",
            self.channels,
            f"{len(self.blocks)} positive numbers, one for each entry of blocks",
        )
        checks.holds(self.stem > 0 and self.stem % 2 == 1, "stem", self.stem, "positive and odd")


@dataclasses.dataclass(frozen=True)
class StartModel:
    """Size of a network that predicts the equilibrium from the injection.

    Attributes:
      width: channels of the hidden layers, a multiple of 8. With `None` there are no hidden layers: each pixel of
        the state is a function of the pixels of the injection that it covers, and the resolutions of the state
        must divide those of the injection. With 0 there are no products of channels either: each number of the
        state is a function of the number of the injection in the same place, and their shapes must be equal.
    """

    width: int | None = 32

    def __post_init__(self) -> None:
        checks.typed(self)
        if self.width is not None:
            fits = self.width >= 0 and self.width % 8 == 0
            checks.holds(fits, "width", self.width, "0 or a positive multiple of 8")


Equilibrium = ConvModel | MdeqModel | ContractionModel | MonotoneModel | SubhomogeneousModel
Model = Equilibrium | ResnetModel
MODELS = {
    "conv": ConvModel,
    "mdeq": MdeqModel,
    "contraction": ContractionModel,
    "monotone": MonotoneModel,
    "subhomogeneous": SubhomogeneousModel,
    "resnet": ResnetModel,
}


def sized(
    size: Model,
    image_shape: tuple[int, int, int],
    num_classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Model:
    """The size for given images: what still has the default of its family is taken from the images.

    A convolutional DEQ with the default `pool` gets one that divides height and width.

    Args:
      size: the size, of any family.
      image_shape: (height, width, channels) of the images.
      num_classes: number of classes of the images.
      mean: mean of each channel of the images.
      std: standard deviation of each channel of the images.

    Raises:
      ValueError: the image shape that the size sets is another one, or breaks a rule of the family.
    """
    default = type(size)()
    found: dict[str, Any] = {"image_shape": image_shape, "num_classes": num_classes, "mean": mean, "std": std}
    taken = {name: x for name, x in found.items() if getattr(size, name) == getattr(default, name)}
    if isinstance(size, ConvModel) and isinstance(default, ConvModel) and size.pool == default.pool:
        taken["pool"] = math.gcd(size.pool, *image_shape[:2])
    if "image_shape" not in taken and size.image_shape != image_shape:
        raise ValueError(
            f"the images have shape {image_shape}; the model takes {size.image_shape}, its image_shape "
            "(--model.image-shape, or that of the preset)"
        )
    return dataclasses.replace(size, **taken)
