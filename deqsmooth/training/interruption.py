"""Whether a training is asked to end: by Ctrl-C, or SIGTERM, which schedulers send before they take a machine."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

from deqsmooth import devices


class Interruption:
    """Notes that this process is to end, so that an update can be finished and saved; use as a context manager.

    The second signal of a kind ends the process at once. In a run of several processes JAX notes SIGTERM, to
    any of them, and all end after the same update.
    """

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        watched = () if devices.has_other_processes() else (signal.SIGINT, signal.SIGTERM)
        for kind in watched:
            # A background job of a shell has interrupts ignored, and keeps it so.
            if signal.getsignal(kind) != signal.SIG_IGN:
                self._before[kind] = signal.signal(kind, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for kind in self._before:
            self._restore(kind)

    def is_asked(self, update: int) -> bool:
        """Whether the run is to end after an update; all processes must ask after every one."""
        if self._asked is None and devices.is_preempted(update):
            self._asked = signal.SIGTERM
        return self._asked is not None

    def end(self) -> NoReturn:
        """Ends the run as the signal would have."""
        if self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = signal.Signals(number)
        self._restore(self._asked)

    def _restore(self, kind: signal.Signals) -> None:
        signal.signal(kind, self._before[kind])  # type: ignore[arg-type]
