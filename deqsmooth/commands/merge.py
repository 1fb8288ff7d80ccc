"""Command `deqsmooth-merge`: from the files of certificates of several processes to one file."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

import rich.console
import tyro

from deqsmooth.commands import listing
from deqsmooth.commands import main as commands


@dataclasses.dataclass(frozen=True)
class Flags:
    """Merge files of certificates with equal headers, written by several processes.

    If images of the run are missing, nothing is written, and the files that lack them are named. Exit status: 0
    done; 2 bad input.

    Attributes:
      files: files of certificates in any order.
      out: file that is written; it must not exist yet.
      partial: merge also if images are missing; `deqsmooth-verify` then says that the file is incomplete.
    """

    GROUPS: ClassVar[listing.Groups] = {"which files": ("files partial", ""), "output": ("out", "")}

    files: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    out: pathlib.Path
    partial: bool = False


def main() -> int:
    """Command `deqsmooth-merge`; returns the exit status: 0 done, 2 bad input."""
    return commands.run(Flags, run, prog="deqsmooth-merge", uses_jax=False)


def run(arguments: Flags, console: rich.console.Console) -> int:
    """Merges the files and prints the number of certificates."""
    from deqsmooth.certificates import merging, plan

    merged = merging.merge(arguments.files, arguments.out, partial=arguments.partial)
    planned = "" if merged.num_planned is None else f" of {merged.num_planned} images"
    print(f"{merged.num_certificates} certificates{planned}: {arguments.out}")
    for what, indices in (
        ("in several files, of which the first was taken", merged.doubled),
        ("without a certificate, because they could not be read", merged.unreadable),
    ):
        if indices:
            print(f"{len(indices)} images are {what}: {plan.first(indices)}")
    return 0
