"""Model families, one a file; `build` makes the model that a configuration describes."""

from __future__ import annotations

from typing import overload

from deqsmooth import architecture, types
from deqsmooth.models import conv, mdeq, resnet
from deqsmooth.models.precision import with_cell_dtype
from deqsmooth.models.start import start as build_start


@overload
def build(size: architecture.Equilibrium) -> types.Model: ...


@overload
def build(size: architecture.ResnetModel) -> types.Explicit: ...


def build(size: architecture.Model) -> types.Model | types.Explicit:
    """Returns the model of a size. The family follows from the type of the size."""
    if isinstance(size, architecture.ResnetModel):
        return resnet.resnet(size)
    if isinstance(size, architecture.MdeqModel):
        return mdeq.mdeq(size)
    return conv.conv(size)


__all__ = ["build", "build_start", "with_cell_dtype"]
