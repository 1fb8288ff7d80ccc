"""Interruption of a training by Ctrl-C or by SIGTERM, which schedulers send before they stop a machine."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from deqsmooth import devices


class Interruption:
    """Records the request to end this process, so that the training can save its state; use as a context manager.

    A second signal of the same kind ends the process at once. In a run of several processes, JAX records a SIGTERM
    to any of them, and all end after the same update.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Interruption:
        watched = () if devices.has_other_processes() else (signal.SIGINT, signal.SIGTERM)
        for kind in watched:
            # A shell starts background jobs with interrupts ignored; they stay ignored.
            if signal.getsignal(kind) != signal.SIG_IGN:
                self._previous[kind] = signal.signal(kind, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for kind in self._previous:
            self._restore(kind)

    def is_requested(self, update: int) -> bool:
        """Whether the run should end after an update; every process must call this after every update."""
        if self._received is None and devices.is_preempted(update):
            self._received = signal.SIGTERM
        return self._received is not None

    def end(self) -> NoReturn:
        """Ends the process with the exception or exit status of the signal."""
        if self._received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        self._restore(self._received)

    def _restore(self, kind: signal.Signals) -> None:
        signal.signal(kind, self._previous[kind])
