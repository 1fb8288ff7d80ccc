"""Model families, one per file: `build` takes a size and gives the model as data.

A size is a dataclass of `config.architecture`: the hyperparameters of the architecture.
"""

from __future__ import annotations

from typing import overload

from deqsmooth import types
from deqsmooth.config import architecture
from deqsmooth.models import contraction, conv, mdeq, monotone, peaceman_rachford, resnet, subhomogeneous
from deqsmooth.models.precision import with_cell_dtype, with_injection_dtype
from deqsmooth.models.start_network import start as build_start


@overload
def build(size: architecture.Equilibrium, axis_name: str | None = None) -> types.Model: ...


@overload
def build(size: architecture.ResnetModel, axis_name: str | None = None) -> types.Explicit: ...


def build(size: architecture.Model, axis_name: str | None = None) -> types.Model | types.Explicit:
    """Returns the model of a size; the type of the size determines the family.

    Args:
      size: a `ds.ConvModel` or `ds.MdeqModel` (deep equilibrium models, Bai et al. 2020), a `ds.ContractionModel`,
        `ds.MonotoneModel` or `ds.SubhomogeneousModel` (whose equilibrium is unique), or a `ds.ResnetModel` (He et
        al. 2016).
      axis_name: mapped axis of the devices that share a training batch. If it is given, batch statistics are
        averaged over it; otherwise each device normalises by its own. Only `ds.MdeqModel` and `ds.ResnetModel`
        have such statistics.

    Returns:
      A `ds.Model`, or a `ds.Explicit` for a `ds.ResnetModel`. Its variables are `model.init(key)`.

    Example:
      >>> import deqsmooth as ds
      >>> import jax
      >>> model = ds.build(ds.MdeqModel(channels=(8, 16), head_channels=(7, 14)))
      >>> model.image_shape, sorted(jax.eval_shape(model.init, jax.random.key(0)))
      ((32, 32, 3), ['batch_stats', 'params'])
    """
    if isinstance(size, architecture.ResnetModel):
        return resnet.resnet(size, axis_name)
    if isinstance(size, architecture.MdeqModel):
        return mdeq.mdeq(size, axis_name)
    if isinstance(size, architecture.ContractionModel):
        return contraction.contraction(size)
    if isinstance(size, architecture.MonotoneModel):
        is_resolvent = size.splitting == "peaceman-rachford"
        return (peaceman_rachford.peaceman_rachford if is_resolvent else monotone.monotone)(size)
    if isinstance(size, architecture.SubhomogeneousModel):
        return subhomogeneous.subhomogeneous(size)
    return conv.conv(size)


__all__ = ["build", "build_start", "with_cell_dtype", "with_injection_dtype"]
