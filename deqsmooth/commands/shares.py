"""The share of one of several processes: from flags or JAX's runtime to its images and its file."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from deqsmooth import devices
from deqsmooth.commands import signals
from deqsmooth.config import checks


class Share(NamedTuple):
    """The part of a run that this process does.

    Attributes:
      number: number of the process, from 0.
      total: number of processes.
    """

    number: int
    total: int

    def of(self, indices: range) -> range:
        """Returns the images of this process: every `total`-th one."""
        return indices[self.number :: self.total]

    def file(self, out: pathlib.Path) -> pathlib.Path:
        """Returns the file of this process: `out`, with the share in its name if there are several processes."""
        return out if self.total == 1 else out.with_suffix(f".{self.number}-of-{self.total}{out.suffix}")

    def prefix(self) -> str:
        """Returns the name of this process, to begin a message with; empty if there is only one process."""
        return "" if self.total == 1 else f"{devices.process_name(self.number, self.total)}: "


def own(given: str | None, distributed: bool) -> Share:
    """Returns the share of this process, from its flags or from JAX's runtime.

    Args:
      given: `I/N`, or None.
      distributed: whether JAX's runtime knows the processes.

    Raises:
      ValueError: the share is malformed, or given together with `distributed`.
    """
    if distributed:
        checks.holds(given is None, "share", given, "left out with --distributed")
        # Processes share images, never samples, so that a slow or lost process does not delay the others.
        devices.disconnect()
        signals.install()
    return Share(*devices.share(given))
