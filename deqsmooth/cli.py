"""The two commands: flags to configuration, one call, and progress to look at.

Exit status: 0 done, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated

import rich.console
import rich.progress
import tyro

from deqsmooth import (
    certificates,
    certification,
    checkpoints,
    config,
    data,
    distributed,
    metrics,
    models,
    report,
    training,
)

_Flat = tyro.conf.arg(name="")


@dataclasses.dataclass(frozen=True)
class Certify:
    """Certify the L2 robustness of a deep equilibrium model on a data set.

    Every setting has a default: without flags, handwritten digits are certified with the model that
    comes with the package. Running the same command again resumes it.

    Attributes:
      selection: which images.
      smoothing: how they are certified.
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      out: file that certificates are appended to; by default one in `runs/` named after the settings.
    """

    selection: Annotated[config.Selection, _Flat]
    smoothing: Annotated[config.Smoothing, _Flat]
    checkpoint: pathlib.Path | None = None
    out: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a deep equilibrium model under Gaussian noise.

    Attributes:
      settings: how it is trained.
      workdir: folder of metrics, states and the trained model; by default one in `runs/`.
      resume: go on where the run in the folder stopped.
    """

    settings: Annotated[config.Training, _Flat]
    workdir: pathlib.Path | None = None
    resume: bool = False


def certify() -> int:
    """Command `deqsmooth-certify`; returns the exit status."""
    return _run(Certify, _certify)


def train() -> int:
    """Command `deqsmooth-train`; returns the exit status."""
    return _run(Train, _train)


def _run(arguments: type, command: Callable[..., int]) -> int:
    console = rich.console.Console(soft_wrap=not sys.stdout.isatty())
    try:
        distributed.start()
        return command(tyro.cli(arguments), console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130


def _certify(arguments: Certify, console: rich.console.Console) -> int:
    selection = arguments.selection
    settings = arguments.smoothing
    folder = arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma)
    checkpoint = checkpoints.load(folder)
    dataset = data.load(selection.dataset, selection.split)
    indices = selection.indices(len(dataset))
    header = certification.header(checkpoint, selection, settings)
    out = arguments.out or pathlib.Path(
        "runs", f"{selection.dataset}-{settings.sampler}-{settings.sigma:g}-{header['sha256'][:8]}.jsonl"
    )
    with certificates.Writer(out, header) as writer:
        done = {certificate.index for certificate in writer.done}
        left = [index for index in indices if index not in done]
        console.print(f"{len(indices)} images of {selection.dataset}, {len(done)} done, to {out}")
        console.print(report.cap(settings))
        found = list(writer.done)
        try:
            if left:
                chosen = certification.certify(
                    checkpoint, dataset.images[left], settings, labels=dataset.labels[left], indices=left
                )
                _follow(chosen, writer, found, len(indices), console)
        finally:
            if found:
                console.print(report.certified_accuracy(found, report.radii(settings.sigma, settings.cap)))
                console.print(report.summary(found))
    return 0


def _follow(chosen, writer, found, total, console):
    """Writes certificates as they come, and shows how far they are."""
    with _progress(console) as progress:
        task = progress.add_task("compiling", total=total, completed=len(found))
        for certificate in chosen:
            writer.write(certificate)
            found.append(certificate)
            progress.update(task, advance=1, description=report.state(found))


def _train(arguments: Train, console: rich.console.Console) -> int:
    settings = arguments.settings
    workdir = arguments.workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}")
    model = models.build(settings.model)
    train, test = (data.load(settings.dataset, split) for split in ("train", "test"))
    total, pretraining = training.num_updates(settings, len(train))
    with checkpoints.Run(workdir, settings) as run, metrics.Log(workdir / "metrics.jsonl") as log:
        state = run.latest(training.init(model, settings, total))
        if state is not None and not arguments.resume:
            raise ValueError(f"{workdir} holds a run; give --resume to go on with it, or another --workdir")
        begin = 0 if state is None else int(state.update)
        log.cut(begin)
        console.print(f"{total} updates, the first {pretraining} of them pre-training, to {workdir}")
        with _progress(console) as progress:
            task = progress.add_task("compiling", total=total, completed=begin)
            for now in training.fit(model, settings, train, test, state):
                log.write(now)
                if now.evaluation is not None:
                    run.save(now.state)
                    console.print(metrics.summarise(int(now.state.update), now.evaluation))
                progress.update(task, advance=1, description=metrics.describe(now.metrics))
        state = run.latest(training.init(model, settings, total))
        checkpoints.save(workdir / "model", state.variables, settings)
    console.print(f"model: {workdir / 'model'}")
    return 0


def _progress(console: rich.console.Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _Rate(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
    )


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.progress.Text:
        return rich.progress.Text("" if task.speed is None else f"{task.speed:.2f}/s")
