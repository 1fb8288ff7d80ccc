"""Metrics of a training run as JSONL: a line every 10 updates, or a call, and a line for each evaluation."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import pathlib
from typing import IO, Any

from deqsmooth.training import loop, updates

_INTERVAL = 10
_LOG = logging.getLogger(__name__)


class Log:
    """Appends the progress of a training to a file; use as a context manager.

    A line has `update` and either the metrics of that update or an evaluation after it. Metrics that an update
    does not have are left out. A number that is not finite, such as the residual of a solve that diverged, is
    null, because JSON has no such numbers.

    Args:
      path: the file; None for a log in memory that is discarded.

    Raises:
      ValueError: if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._file: IO[str]
        self._path = path
        self._last = 0
        try:
            self._file = io.StringIO() if path is None else _open(path)
        except OSError as error:
            raise ValueError(f"cannot write {path}: {error.strerror}") from None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def cut(self, update: int) -> None:
        """Removes the lines of later updates than `update`, before a run resumes from that update.

        A line that is no JSON is removed as well if only lines of later updates follow it, with a warning in the
        log. There is no warning for a last line without an end, which a killed run leaves.

        Raises:
          ValueError: a line before these is no JSON, or no line of the file has metrics; nothing is removed then.
        """
        self._last = update
        self._file.seek(0)
        lines = self._file.readlines()
        updates = [_update_of(line) for line in lines]
        kept = max((place for place, at in enumerate(updates, 1) if at is not None and at <= update), default=0)
        is_foreign = len(lines) > 1 and set(updates) == {None}
        for place, at in enumerate(updates, 1):
            if at is None and (place <= kept or is_foreign):
                raise ValueError(
                    f"line {place} of {self._path} is no JSON object with an update; mend or remove that line, "
                    "or give another workdir"
                )
            if at is None and lines[place - 1].endswith("\n"):
                _LOG.warning(f"line {place} of {self._path} is no JSON object with an update, and is removed")
        self._file.truncate(sum(len(line.encode(errors="surrogateescape")) for line in lines[:kept]))
        self._file.seek(0, io.SEEK_END)

    def write(self, progress: loop.Progress) -> None:
        """Writes the lines that are due after an update, or after the updates of a call."""
        update, before = int(progress.state.update), self._last
        self._last = update
        if update // _INTERVAL > before // _INTERVAL:
            values = progress.metrics._asdict().items()
            self._append(update, {name: float(x) for name, x in values if x is not None})
        if progress.evaluation is not None:
            self._append(update, progress.evaluation._asdict())

    def _append(self, update: int, values: dict[str, float | None]) -> None:
        finite = {name: x if x is not None and math.isfinite(x) else None for name, x in values.items()}
        self._file.write(json.dumps({"update": update, **finite}, allow_nan=False) + "\n")
        self._file.flush()


def _open(path: str | os.PathLike[str]) -> IO[str]:
    return pathlib.Path(path).open("a+", encoding="utf-8", errors="surrogateescape", newline="\n")


def _update_of(line: str) -> int | None:
    """The update that a line is about; None if it is no line of such a file."""
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    update = found.get("update") if isinstance(found, dict) else None
    return update if isinstance(update, int) and line.endswith("\n") else None


def describe(values: updates.Values) -> str:
    """Formats metrics of an update, or an evaluation, for the screen; leaves out values that are None."""
    given = {name: x for name, x in values._asdict().items() if x is not None}
    return ", ".join(f"{name.replace('_', ' ')} {float(x):.3g}" for name, x in given.items())
