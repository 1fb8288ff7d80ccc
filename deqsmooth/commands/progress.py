"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import rich.console
import rich.progress

from deqsmooth.certificates import jsonl, record
from deqsmooth.reports import terminal


def bar(console: rich.console.Console) -> rich.progress.Progress:
    """A bar with count, rate, and time gone and left."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _Rate(),
        rich.progress.TimeElapsedColumn(),
        _Left(),
        console=console,
    )


def begin(
    progress: rich.progress.Progress, description: str, total: int | None, completed: int = 0
) -> rich.progress.TaskID:
    """Begins the work of a bar, some of which may have been done before."""
    return progress.add_task(description, total=total, completed=completed, before=completed)


def advance(progress: rich.progress.Progress, description: str) -> None:
    """One more is done; where no bar can be drawn, a line says so every twentieth of the way."""
    (task,) = progress.tasks
    progress.update(task.id, advance=1, description=description)
    if not progress.console.is_terminal and task.completed % max(1, task.total // 20) == 0:
        seconds = _seconds_left(task)
        left = "" if seconds is None else f", {seconds:.0f} s left"
        progress.console.print(f"{task.completed:.0f} of {task.total:.0f}: {description}{left}")


def _rate(task):
    """Done a second, on average: work may be done in batches, so that the last moments say little."""
    done = task.completed - task.fields["before"]
    return done / task.elapsed if done and task.elapsed else None


def _seconds_left(task):
    rate = _rate(task)
    return None if rate is None or task.total is None else (task.total - task.completed) / rate


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.progress.Text:
        rate = _rate(task)
        return rich.progress.Text("" if rate is None else f"{rate:.2f}/s")


class _Left(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.progress.Text:
        seconds = _seconds_left(task)
        return rich.progress.Text("" if seconds is None else str(datetime.timedelta(seconds=round(seconds))))


def follow(
    coming: Iterable[record.Certificate], writer: jsonl.Writer, total: int, console: rich.console.Console
) -> None:
    """Writes certificates as they come, and shows how many of the images are done."""
    with bar(console) as shown:
        begin(shown, "compiling", total, len(writer.done))
        for certificate in coming:
            writer.write(certificate)
            advance(shown, terminal.state(writer.done))
