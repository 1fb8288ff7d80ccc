"""Progress of a command, by a simulated clock."""

import io

import pytest
import rich.console

from deqsmooth.commands import progress


@pytest.mark.parametrize("before", [0, 20])
def test_time_left_uses_average_rate(before):
    """The twenty steps of a batch end at the same time."""
    now, output = [0.0], io.StringIO()
    shown = progress.bar(rich.console.Console(file=output, width=200))
    shown.get_time = lambda: now[0]
    progress.begin(shown, "compiling", 100, before)
    left = []
    for seconds in (40.0, 80.0):
        now[0] = seconds
        for _ in range(20):
            progress.advance(shown, "half of them right")
        left.append(output.getvalue().splitlines()[-1])
    assert left == [
        f"{before + done} of 100: half of them right, {2 * (100 - before - done)} s left" for done in (20, 40)
    ]
    rows = rich.console.Console(width=200, file=io.StringIO())
    rows.print(shown.get_renderable())
    assert "0:01:20 " in rows.file.getvalue()
