"""Which images of a run are this process's, and the file that they go to."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from deqsmooth import devices
from deqsmooth.commands import certify
from deqsmooth.config import checks


class Share(NamedTuple):
    """The part of a run that one of several processes has.

    Attributes:
      number: of the process, from 0.
      total: processes.
    """

    number: int
    total: int

    def of(self, indices: range) -> range:
        """The images of this process."""
        return indices[self.number :: self.total]

    def file(self, out: pathlib.Path) -> pathlib.Path:
        """The file of this process, where there are several."""
        return out if self.total == 1 else out.with_suffix(f".{self.number}-of-{self.total}{out.suffix}")

    def introduction(self) -> str:
        """What this process says of itself before anything else, where there are several."""
        return "" if self.total == 1 else f"{devices.process_name(self.number, self.total)}: "


def own(arguments: certify.Flags) -> Share:
    """The share that the flags give this process, or that JAX's runtime does.

    Raises:
      ValueError: it is none, or both are given.
    """
    if arguments.distributed:
        checks.holds(arguments.share is None, "share", arguments.share, "left out with --distributed")
        # Images are shared out, never samples: from here on a slow or lost process delays nobody.
        devices.disconnect()
    return Share(*devices.share(arguments.share))
