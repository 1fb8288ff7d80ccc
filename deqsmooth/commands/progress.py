"""Progress of a command: a bar on a terminal; elsewhere a line a minute, from the first step to the last.

The time left is computed from the average rate until the last step. rich computes it from the times between recent
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

_INTERVAL = 60.0
"""Seconds between two lines without a terminal."""


class _TimeLeft(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.text.Text:
        """Returns the time left; empty if it is unknown."""
        return rich.text.Text(_time_left(task))


def bar(console: rich.console.Console) -> rich.progress.Progress:
    """Returns a bar with the number of steps, the elapsed time and the time left."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        _TimeLeft(),
        console=console,
        disable=not console.is_terminal,
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
    return progress.add_task(
        description, total=total, completed=completed, before=completed, last=0.0, printed=None
    )


def advance(progress: rich.progress.Progress, description: str, num: int = 1) -> None:
    """Counts steps and updates the description; without a terminal, prints a line if the last one is old."""
    (task,) = progress.tasks
    # Before the step counts: the other steps of its batch, which end at the same time, do not count yet either.
    left = _time_left(task)
    progress.update(task.id, advance=num, description=description, last=task.elapsed)
    if progress.console.is_terminal:
        return
    now, printed = progress.get_time(), task.fields["printed"]
    is_last = task.completed == task.total
    if printed is None or now - printed >= _INTERVAL or is_last:
        progress.update(task.id, printed=now)
        total = "" if task.total is None else f" of {task.total:.0f}"
        until_end = f", {left} left" if left and not is_last else ""
        progress.console.print(f"{task.completed:.0f}{total}: {description}{until_end}")


def follow(
    coming: Iterable[record.Certificate], writer: writing.Writer, total: int, console: rich.console.Console
) -> None:
    """Writes certificates as they are computed, and shows the progress and the certified accuracy."""
    with bar(console) as shown:
        begin(shown, "compiling", total, len(writer.done))
        for certificate in coming:
            writer.write(certificate)
            advance(shown, terminal.progress(writer.done))


def _time_left(task: rich.progress.Task) -> str:
    """Time until the end, by the average rate until the last step; empty if no step or no total is known."""
    done = task.completed - task.fields["before"]
    if not done or task.elapsed is None or task.total is None:
        return ""
    last = task.fields["last"]
    seconds = (task.total - task.completed) * last / done - (task.elapsed - last)
    return str(datetime.timedelta(seconds=max(0, round(seconds))))
