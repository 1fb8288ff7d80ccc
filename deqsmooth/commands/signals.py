"""SIGINT and SIGTERM, which end a command in order; a second one of them ends it at once.

Python delivers a signal when the program of JAX that runs or compiles returns.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_KINDS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Context in which SIGINT raises `KeyboardInterrupt`, and SIGTERM `SystemExit` with status 143."""
    previous = {kind: signal.getsignal(kind) for kind in _KINDS}
    install()
    try:
        yield
    finally:
        for kind, handler in previous.items():
            # None is a handler that Python did not install and cannot restore.
            if handler is not None and signal.getsignal(kind) != handler:
                signal.signal(kind, handler)


def install() -> None:
    """Installs the handlers of this process, also after a library has replaced them.

    While processes are connected, JAX receives SIGTERM, and all end together; see `devices.is_preempted`.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for kind in _KINDS:
        # A shell starts background jobs with interrupts ignored; they stay ignored.
        if signal.getsignal(kind) != signal.SIG_IGN:
            signal.signal(kind, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
