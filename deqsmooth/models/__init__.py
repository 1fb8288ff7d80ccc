"""Model families, one a file; `build` makes the model that a configuration describes."""

from __future__ import annotations

from deqsmooth import architecture, types
from deqsmooth.models import conv, mdeq


def build(settings: architecture.Model) -> types.Model:
    """Returns the model of a size. The family follows from the type of the settings."""
    if isinstance(settings, architecture.MdeqModel):
        return mdeq.mdeq(settings)
    return conv.conv(settings)
