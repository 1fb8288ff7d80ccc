"""The commands: flags to configuration, one call, and progress to look at.

Exit status: 0 done, 1 a failed check of a conversion, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import rich.console
import rich.progress
import tyro

from deqsmooth import (
    architecture,
    certificates,
    certification,
    checkpoints,
    checks,
    config,
    conversion,
    data,
    distributed,
    metrics,
    models,
    parity,
    presets,
    provenance,
    report,
    schedules,
    training,
)

_Flat = tyro.conf.arg(name="")
_LIST = re.compile(r"[\d.]+(,[\d.]+)+")


@dataclasses.dataclass(frozen=True)
class Certify:
    """Certify the L2 robustness of a deep equilibrium model on a data set.

    Every setting has a default: without flags, handwritten digits are certified with the model that
    comes with the package. Running the same command again resumes it.

    Attributes:
      selection: which images.
      smoothing: how they are certified.
      preset: named settings that the other flags then change: `mdeq-30a`, `srs-mdeq-3a`, ... (the paper's).
      checkpoint: folder of the model; by default the one shipped for the data set and sigma.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
      out: file that certificates are appended to; by default one in `runs/` named after the settings.
    """

    selection: Annotated[config.Selection, _Flat]
    smoothing: Annotated[config.Smoothing, _Flat]
    preset: str | None = None
    checkpoint: pathlib.Path | None = None
    download: bool = False
    out: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a deep equilibrium model under Gaussian noise.

    Attributes:
      settings: how it is trained.
      preset: named settings that the other flags then change: a recipe of `deqsmooth.presets`.
      workdir: folder of metrics, states and the trained model; by default one in `runs/`.
      resume: go on where the run in the folder stopped.
      download: let TFDS download and prepare a data set that is missing (needs TensorFlow).
    """

    settings: Annotated[tyro.conf.AvoidSubcommands[config.Training], _Flat] = dataclasses.field(
        default_factory=config.Training
    )
    preset: str | None = None
    workdir: pathlib.Path | None = None
    resume: bool = False
    download: bool = False


@dataclasses.dataclass(frozen=True)
class Convert:
    """Convert a PyTorch checkpoint into a model that certifies.

    Attributes:
      file: `.pth.tar` file with a state dict, alone or under `state_dict` (needs PyTorch), or `.npz` file of it.
      out: folder that the model is written to.
      preset: name of the model; the other flags then change its size.
      model: size of the model.
      check: file of recorded outputs; the converted model must reproduce them.
    """

    file: tyro.conf.Positional[pathlib.Path]
    out: pathlib.Path
    preset: str = "mdeq-small"
    model: tyro.conf.AvoidSubcommands[architecture.MdeqModel | architecture.ResnetModel] = dataclasses.field(
        default_factory=architecture.MdeqModel
    )
    check: pathlib.Path | None = None


def certify() -> int:
    """Command `deqsmooth-certify`; returns the exit status."""
    return _run(Certify, _certify, lambda name: {"smoothing": _named(name, presets.SMOOTHING)})


def train() -> int:
    """Command `deqsmooth-train`; returns the exit status."""
    return _run(Train, _train, lambda name: {"settings": _named(name, presets.TRAINING)})


def convert() -> int:
    """Command `deqsmooth-convert`; returns the exit status, 1 if the check fails."""
    return _run(Convert, _convert, lambda name: {"model": _named(name, presets.MODELS)})


def _run(arguments: type, command: Callable[..., int], preset: Callable[[str], dict[str, Any]]) -> int:
    console = rich.console.Console(soft_wrap=not sys.stdout.isatty())
    try:
        distributed.start()
        return command(_parse(arguments, preset), console)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130


def _parse(arguments: type, preset: Callable[[str], dict[str, Any]]) -> Any:
    """Flags as settings; a preset gives the defaults that the other flags change."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--preset")
    name = finder.parse_known_args()[0].preset
    # Lists of numbers may be written with commas.
    words = [part for word in sys.argv[1:] for part in (word.split(",") if _LIST.fullmatch(word) else [word])]
    if name is None:
        return tyro.cli(arguments, args=words)
    required = {
        Certify: {"selection": tyro.MISSING_NONPROP},
        Convert: {"file": tyro.MISSING, "out": tyro.MISSING},
    }.get(arguments, {})
    return tyro.cli(arguments, args=words, default=arguments(**required, **preset(name), preset=name))


def _named(name: str, known: dict[str, Any]) -> Any:
    checks.known("preset", name, known)
    return known[name]


def _certify(arguments: Certify, console: rich.console.Console) -> int:
    selection = arguments.selection
    settings = arguments.smoothing
    dataset = data.load(selection.dataset, selection.split, selection.data_dir, download=arguments.download)
    checkpoint = checkpoints.load(arguments.checkpoint or checkpoints.shipped(selection.dataset, settings.sigma))
    indices = selection.indices(len(dataset))
    certification.checked(checkpoint, dataset.take(indices[:1])[0], settings)
    classes = checkpoint.model.num_classes
    checks.holds(
        dataset.num_classes <= classes,
        "dataset",
        f"{selection.dataset}, with {dataset.num_classes} classes",
        f"one of at most {classes} classes, which the model tells apart",
    )
    header = provenance.header(checkpoint, selection, settings, dataset.identity)
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
                chosen = certification.certify_dataset(checkpoint, dataset, left, settings)
                _follow(chosen, writer, found, len(indices), console)
        finally:
            if found:
                console.print(report.certified_accuracy(found, report.radii(settings.sigma, settings.cap)))
                console.print(report.summary(found))
    return 0


def _follow(chosen, writer, found, total, console):
    """Writes certificates as they come, and shows how far they are."""
    with _progress(console) as progress:
        progress.add_task("compiling", total=total, completed=len(found))
        for certificate in chosen:
            writer.write(certificate)
            found.append(certificate)
            _advance(progress, report.state(found))


def _train(arguments: Train, console: rich.console.Console) -> int:
    settings = arguments.settings
    workdir = arguments.workdir or pathlib.Path("runs", f"{settings.dataset}-{settings.sigma:g}")
    model = models.build(settings.model)
    test_split = config.Selection(dataset=settings.dataset).split
    train, test = (
        data.load(settings.dataset, split, settings.data_dir, download=arguments.download)
        for split in ("train", test_split)
    )
    total, pretraining = schedules.num_updates(settings, len(train))
    with checkpoints.Run(workdir, settings) as run, metrics.Log(workdir / "metrics.jsonl") as log:
        state = run.latest(training.init(model, settings, total))
        if state is not None and not arguments.resume:
            raise ValueError(f"{workdir} holds a run; give --resume to go on with it, or another --workdir")
        begin = 0 if state is None else int(state.update)
        log.cut(begin)
        console.print(f"{total} updates, the first {pretraining} of them pre-training, to {workdir}")
        with _progress(console) as progress:
            progress.add_task("compiling", total=total, completed=begin)
            waited, begun = 0.0, time.perf_counter()
            for now in training.fit(model, settings, train, test, state):
                log.write(now)
                waited += now.waited
                if now.evaluation is not None:
                    run.save(now.state)
                    console.print(metrics.summarise(int(now.state.update), now.evaluation))
                _advance(progress, metrics.describe(now.metrics))
        state = run.latest(training.init(model, settings, total))
        checkpoints.save(workdir / "model", state.variables, settings.model, settings)
    console.print(f"waited {waited:.1f} of {time.perf_counter() - begun:.0f} s for images")
    console.print(f"model: {workdir / 'model'}")
    return 0


def _convert(arguments: Convert, console: rich.console.Console) -> int:
    variables = conversion.convert(conversion.read(arguments.file), arguments.model)
    failed = []
    if arguments.check is not None:
        found = parity.compare(variables, arguments.model, conversion.read(arguments.check))
        console.print(report.comparisons(found))
        failed = [comparison.quantity for comparison in found if not comparison.passed]
    if failed:
        print(f"error: {len(failed)} quantities beyond their limit: {', '.join(failed)}", file=sys.stderr)
        return 1
    checkpoints.save(arguments.out, variables, arguments.model)
    console.print(f"model: {arguments.out}")
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


def _advance(progress: rich.progress.Progress, description: str) -> None:
    """One more is done; where no bar can be drawn, a line says so every twentieth of the way."""
    (task,) = progress.tasks
    progress.update(task.id, advance=1, description=description)
    if not progress.console.is_terminal and task.completed % max(1, task.total // 20) == 0:
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        progress.console.print(f"{task.completed:.0f} of {task.total:.0f}: {description}{left}")


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.progress.Text:
        return rich.progress.Text("" if task.speed is None else f"{task.speed:.2f}/s")
