"""Model families, one a file; `build` makes the model that a configuration describes."""

from __future__ import annotations

from deqsmooth import config, types
from deqsmooth.models import conv


def build(settings: config.ConvModel) -> types.Model:
    """Returns the model of a size. The family follows from the type of the settings."""
    return {config.ConvModel: conv.conv}[type(settings)](settings)
