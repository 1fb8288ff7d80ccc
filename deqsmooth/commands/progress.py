"""Progress of long work: a bar on a terminal, and elsewhere a line for every twentieth of it.

The time left follows from the average rate since the start. rich estimates it from the times between steps, which
is wrong where the steps of a batch end together.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import rich.console
import rich.progress
import rich.text

from deqsmooth.certificates import record, writing
from deqsmooth.reports import terminal


class _TimeLeft(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """The time left, empty while it is unknown."""
        seconds = _seconds_left(task)
        return rich.text.Text("" if seconds is None else str(datetime.timedelta(seconds=round(seconds))))


def bar(console: rich.console.Console) -> rich.progress.Progress:
    """A bar with count, time gone and time left."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        _TimeLeft(),
        console=console,
    )


def begin(
    progress: rich.progress.Progress, description: str, total: int | None, completed: int = 0
) -> rich.progress.TaskID:
    """Begins the only task of a bar, some steps of which may have been done by an earlier run."""
    return progress.add_task(description, total=total, completed=completed, before=completed)


def advance(progress: rich.progress.Progress, description: str) -> None:
    """Counts one more step; without a terminal, prints a line for every twentieth of them."""
    (task,) = progress.tasks
    progress.update(task.id, advance=1, description=description)
    total = int(task.total or 0)
    if not progress.console.is_terminal and task.completed % max(1, total // 20) == 0:
        seconds = _seconds_left(task)
        left = "" if seconds is None else f", {seconds:.0f} s left"
        progress.console.print(f"{task.completed:.0f} of {total}: {description}{left}")


def follow(
    coming: Iterable[record.Certificate], writer: writing.Writer, total: int, console: rich.console.Console
) -> None:
    """Writes certificates as they come, and shows how many of the images are done."""
    with bar(console) as shown:
        begin(shown, "compiling", total, len(writer.done))
        for certificate in coming:
            writer.write(certificate)
            advance(shown, terminal.state(writer.done))


def _seconds_left(task: rich.progress.Task) -> float | None:
    done = task.completed - task.fields["before"]
    if not done or not task.elapsed or task.total is None:
        return None
    return (task.total - task.completed) * task.elapsed / done
