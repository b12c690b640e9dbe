"""Stopping politely: the first SIGTERM or Ctrl-C asks, the second aborts.

While a training step runs, the request is only noted and the loop saves after the step. Inside
``interruptible`` blocks (validation, reading data), where the saved state does not depend on what runs, it is
raised at once. Outside the main thread Python cannot take signals, and nothing is installed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class StopRequested(Exception):  # noqa: N818 - a request, not an error
    """Raised inside an interruptible block when a signal came."""


class Stop:
    """Whether and by what the run was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interruptible = 0
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take SIGTERM and SIGINT until the block ends."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        try:
            yield self
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before.clear()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal break the block off by raising StopRequested."""
        if self.requested:
            raise StopRequested
        self._interruptible += 1
        try:
            yield
        finally:
            self._interruptible -= 1

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._process:
            return  # a loader process that was forked with this handler; its parent decides
        if self.requested:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if self._interruptible:
            raise StopRequested
