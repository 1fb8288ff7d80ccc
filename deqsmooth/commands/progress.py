"""Progress of a command: a bar on a terminal; elsewhere a line after each 5 % of the steps.

The time left is computed from the average rate since the start. rich computes it from the times between recent
steps, which is wrong if all steps of a batch end at the same time.
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
        """Returns the time left; empty if it is unknown."""
        seconds = _seconds_left(task)
        return rich.text.Text("" if seconds is None else str(datetime.timedelta(seconds=round(seconds))))


def bar(console: rich.console.Console) -> rich.progress.Progress:
    """Returns a bar with the number of steps, the elapsed time and the time left."""
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
    """Starts the only task of a bar.

    Args:
      progress: the bar.
      description: text before the bar.
      total: number of steps; None if it is not known yet.
      completed: steps that an earlier run has done.
    """
    return progress.add_task(description, total=total, completed=completed, before=completed)


def advance(progress: rich.progress.Progress, description: str) -> None:
    """Counts a step and updates the description; without a terminal, prints a line after each 5 % of the steps."""
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
    """Writes certificates as they are computed, and shows the progress and the certified accuracy."""
    with bar(console) as shown:
        begin(shown, "compiling", total, len(writer.done))
        for certificate in coming:
            writer.write(certificate)
            advance(shown, terminal.progress(writer.done))


def _seconds_left(task: rich.progress.Task) -> float | None:
    """Seconds that the other steps take at the average rate; None if no step or no total is known."""
    done = task.completed - task.fields["before"]
    if not done or not task.elapsed or task.total is None:
        return None
    return (task.total - task.completed) * task.elapsed / done
