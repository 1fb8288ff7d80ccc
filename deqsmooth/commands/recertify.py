"""Command `deqsmooth-recertify`: certificates of another network, from those of one."""

from __future__ import annotations

import dataclasses
import pathlib

import rich.console

from deqsmooth import data
from deqsmooth.certificates import jsonl, verification
from deqsmooth.commands import flags
from deqsmooth.commands.certify import follow
from deqsmooth.models import checkpoints
from deqsmooth.reports import terminal
from deqsmooth.smoothing import provenance, recertification


def run(arguments: flags.Recertify, console: rich.console.Console) -> int:
    """Certifies the network for the images that are not yet in the file."""
    source = verification.verify(arguments.file)
    if source.differences:
        raise ValueError(f"{source.differences[0]}; only what verifies can be built on")
    selection = dataclasses.replace(source.selection, data_dir=arguments.data_dir)
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    before = checkpoints.load(arguments.before or checkpoints.shipped(selection.dataset, source.settings.sigma))
    provenance.agree(source.header, before, dataset)
    after = before if arguments.checkpoint is None else checkpoints.load(arguments.checkpoint)
    names = ("solver", "budget", "tolerance", "start", "dtype")
    change = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    pairs = {"num_audit": arguments.num_pairs, "alpha_audit": arguments.alpha_pairs}
    settings = recertification.settings_after(source.settings, **change, **pairs)
    header = provenance.header(after, selection, settings, dataset.identity, source.header)
    out = arguments.out or pathlib.Path("runs", f"{arguments.file.stem}-again-{header['sha256'][:8]}.jsonl")
    with jsonl.Writer(out, header) as writer:
        console.print(f"{len(source.found)} certificates, {len(writer.done)} done, to {out}")
        left = set(writer.left(certificate.index for certificate in source.found))
        chosen = [certificate for certificate in source.found if certificate.index in left]
        coming = recertification.recertify(chosen, (before, source.settings), (after, settings), dataset)
        follow(coming, writer, len(source.found), console)
        found = writer.done
        if found:
            console.print(terminal.certified_accuracy(found, terminal.radii(settings.sigma, settings.cap)))
            console.print(terminal.summary(found))
            spent, anew = (sum(c.evaluations for c in all) for all in (found, source.found))
            console.print(f"{spent:,} cell evaluations, where the certificates before took {anew:,}")
    return 0
