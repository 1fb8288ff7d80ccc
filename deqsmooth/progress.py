"""How far long work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import rich.console
import rich.progress


def bar(console: rich.console.Console) -> rich.progress.Progress:
    """A bar with count, rate, and time gone and left."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _Rate(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
    )


def advance(progress: rich.progress.Progress, description: str) -> None:
    """One more is done; where no bar can be drawn, a line says so every twentieth of the way."""
    (task,) = progress.tasks
    progress.update(task.id, advance=1, description=description)
    if not progress.console.is_terminal and task.completed % max(1, task.total // 20) == 0:
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        progress.console.print(f"{task.completed:.0f} of {task.total:.0f}: {description}{left}")


class _Rate(rich.progress.ProgressColumn):
    def render(self, task: rich.progress.Task) -> rich.progress.Text:
        return rich.progress.Text("" if task.speed is None else f"{task.speed:.2f}/s")
