"""Metrics of a training run as JSONL: a line every 10 updates, and a line for each evaluation."""

from __future__ import annotations

import io
import json
import os
import pathlib
from typing import IO

from deqsmooth.training import loop

_INTERVAL = 10


class Log:
    """Appends the progress of a training to a file; use as a context manager.

    A line has `update` and either the metrics of that update or an evaluation after it. Metrics that an update
    does not have are left out.

    Args:
      path: the file; None for a log in memory that is discarded.

    Raises:
      ValueError: if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._file: IO[str]
        try:
            self._file = io.StringIO() if path is None else pathlib.Path(path).open("a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"cannot write {path}: {error.strerror}") from None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def cut(self, update: int) -> None:
        """Removes the lines of later updates than `update`, before a run resumes from that update."""
        self._file.seek(0)
        lines = [line for line in self._file if line.endswith("\n") and json.loads(line)["update"] <= update]
        self._file.truncate(0)
        self._file.writelines(lines)

    def write(self, progress: loop.Progress) -> None:
        """Writes the lines that are due after an update."""
        update = int(progress.state.update)
        if update % _INTERVAL == 0:
            values = progress.metrics._asdict().items()
            self._append(update, {name: float(x) for name, x in values if x is not None})
        if progress.evaluation is not None:
            self._append(update, progress.evaluation._asdict())

    def _append(self, update: int, values: dict[str, float | None]) -> None:
        self._file.write(json.dumps({"update": update, **values}) + "\n")
        self._file.flush()


def describe(values: loop.Values) -> str:
    """Formats metrics of an update, or an evaluation, for the screen; leaves out values that are None."""
    given = {name: x for name, x in values._asdict().items() if x is not None}
    return ", ".join(f"{name.replace('_', ' ')} {float(x):.3g}" for name, x in given.items())
