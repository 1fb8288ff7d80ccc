"""Progress of a command, by a simulated clock."""

import io
import re

import pytest
import rich.console

from deqsmooth.commands import progress


class Run:
    """A command whose steps end at given times."""

    def __init__(self, total, before=0, terminal=False):
        self.now, self.output = 0.0, io.StringIO()
        console = rich.console.Console(file=self.output, width=200, force_terminal=terminal)
        self.shown = progress.bar(console)
        self.shown.get_time = lambda: self.now
        progress.begin(self.shown, "compiling", total, before)

    def steps(self, num, seconds):
        self.now = seconds
        for _ in range(num):
            progress.advance(self.shown, "half of them right")

    @property
    def lines(self):
        return self.output.getvalue().splitlines()


def test_line_comes_once_a_minute():
    run = Run(900)
    for second in range(1, 901):
        run.steps(1, float(second))
    assert [int(line.split()[0]) for line in run.lines] == [*range(1, 900, 60), 900]
    assert run.lines[0] == "1 of 900: half of them right"
    assert run.lines[1] == "61 of 900: half of them right, 0:13:59 left"
    assert run.lines[-1] == "900 of 900: half of them right"


@pytest.mark.parametrize("before", [0, 20])
def test_time_left_uses_average_rate(before):
    """The twenty steps of a batch end at the same time."""
    run = Run(100, before)
    for number in range(1, 3):
        run.steps(20, 70.0 * number)
    # When the second batch ends, three or two batches of seventy seconds are left.
    left = {0: "0:03:30", 20: "0:02:20"}[before]
    assert run.lines[-1] == f"{before + 21} of 100: half of them right, {left} left"


def test_bar_shows_time_left():
    run = Run(100, terminal=True)
    run.steps(50, 80.0)
    run.now = 100.0
    rows = rich.console.Console(width=200, file=io.StringIO())
    rows.print(run.shown.get_renderable())
    # Elapsed, and left.
    assert re.search(r"50/100 0:01:40 0:01:00", rows.file.getvalue())
    assert run.lines == []


def test_unknown_total_shows_no_time():
    run = Run(None)
    run.steps(1, 5.0)
    run.steps(1, 70.0)
    assert run.lines == ["1: half of them right", "2: half of them right"]
