"""Sizes of the model families whose state has branches of several resolutions, and one equilibrium."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from deqsmooth.config import checks, fields

_LARGEST = 2048


@dataclasses.dataclass(frozen=True)
class Branched:
    """Size of a model whose state has branches of several resolutions, joined by linear maps; no model by itself.

    `ds.ContractionModel`, `ds.MonotoneModel` and `ds.SubhomogeneousModel` inherit it.

    Attributes:
      image_shape: (height, width, channels) of the images.
      num_classes: number of classes.
      channels: channels of each branch of the state, the finest branch first. Branch i has the resolution of the
        finest one divided by 2^i.
      width: channels of the network that computes the injection, a multiple of 8.
      blocks: residual blocks of that network at each resolution.
      pooled: side of the grid to which each branch is averaged before the linear readout.
      mean: mean of each image channel, for standardisation.
      std: standard deviation of each image channel, for standardisation.
      patch: side of the blocks of pixels that are one pixel of the finest branch; 1 for the image's resolution.
      lipschitz: bound on the Lipschitz constant of every logit in the image (L2, pixels of [0, 1]), and for a
        `ds.MonotoneModel` on that of all logits together. Such a model can be certified without noise, by
        `ds.certify_without_noise`. Its injection is linear, without `width`, `blocks` and `std`. By default
        nothing bounds the injection, which is a residual network.
    """

    image_shape: tuple[int, int, int] = (8, 8, 1)
    num_classes: int = 10
    channels: tuple[int, ...] = (24, 48)
    width: int = 32
    blocks: int = 1
    pooled: int = 2
    mean: tuple[float, ...] = (0.305,)
    std: tuple[float, ...] = (0.376,)
    patch: int = 1
    lipschitz: float | None = dataclasses.field(default=None, metadata=fields.LATER)

    def __post_init__(self) -> None:
        checks.typed(self)
        checks.images(self.image_shape, self.num_classes, mean=self.mean, std=self.std)
        checks.positive(self, "pooled", "patch")
        if self.lipschitz is not None:
            checks.finite_positive("lipschitz", self.lipschitz)
        checks.holds(
            len(self.channels) > 0 and min(self.channels) > 0, "channels", self.channels, "positive numbers"
        )
        checks.holds(self.width > 0 and self.width % 8 == 0, "width", self.width, "a positive multiple of 8")
        checks.holds(self.blocks >= 0, "blocks", self.blocks, "at least 0")
        factor = self.patch * self.pooled * 2 ** (len(self.channels) - 1)
        checks.holds(
            self.image_shape[0] % factor == 0 and self.image_shape[1] % factor == 0,
            "image_shape",
            self.image_shape,
            f"a shape whose height and width are multiples of {factor}, so that every branch can be averaged to "
            f"{self.pooled} by {self.pooled}",
        )


@dataclasses.dataclass(frozen=True)
class ContractionModel(Branched):
    """Size of a multiscale DEQ whose cell is a contraction, so that its equilibrium is unique.

    Images, branches, injection and readout are those of `deqsmooth.config.branched.Branched`.

    Attributes:
      factor: bound on the Lipschitz constant of the cell, in [0, 1); 0 for a network without an equilibrium.
    """

    factor: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.holds(0 <= self.factor < 1, "factor", self.factor, "in [0, 1)")


@dataclasses.dataclass(frozen=True)
class MonotoneModel(Branched):
    """Size of a multiscale monotone operator DEQ (Winston & Kolter 2020), whose equilibrium is unique.

    Images, branches, injection and readout are those of `deqsmooth.config.branched.Branched`.

    Attributes:
      modulus: strong monotonicity of `I - W`, where the equilibrium is that of `z = relu(W z + u)`. Nothing else
        bounds W: the larger training makes it relative to this number, the more evaluations a solve needs.
      splitting: what an evaluation is. A Peaceman-Rachford step multiplies by the inverse of a dense matrix, whose
        side is the number of entries of the state, at most 2,048, and needs fewer evaluations. Variables and,
        but for the rounding of the inverse, the equilibrium are the same, but not the state. It has no
        `lipschitz`.
    """

    modulus: float = 0.5
    splitting: Literal["forward-backward", "peaceman-rachford"] = dataclasses.field(
        default="forward-backward", metadata=fields.LATER
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.finite_positive("modulus", self.modulus)
        if self.splitting == "peaceman-rachford":
            # Branches halve the resolution without a rest.
            pixels = math.prod(self.image_shape[:2]) // self.patch**2
            num = sum(channels * (pixels >> 2 * i) for i, channels in enumerate(self.channels))
            of = "with splitting 'peaceman-rachford'"
            checks.holds(num <= _LARGEST, f"number of entries of the state {of}", num, f"at most {_LARGEST:,}")
            checks.holds(self.lipschitz is None, f"lipschitz {of}", self.lipschitz, "None")


@dataclasses.dataclass(frozen=True)
class SubhomogeneousModel(Branched):
    """Size of a multiscale DEQ with a subhomogeneous cell (Sittoni & Tudisco 2024), whose equilibrium is unique.

    Images, branches, injection and readout are those of `deqsmooth.config.branched.Branched`. The weights of the
    cell are not negative, and free otherwise. It has no `lipschitz`.

    Attributes:
      degree: Lipschitz constant of the cell in Thomson's metric, in (0, 1).
    """

    degree: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.holds(0 < self.degree < 1, "degree", self.degree, "in (0, 1)")
        checks.holds(self.lipschitz is None, "lipschitz of a SubhomogeneousModel", self.lipschitz, "None")
