"""A request to end (SIGTERM) is an interrupt: of a batch system, a container, a shutdown."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


class Termination:
    """While entered, the first SIGTERM does what Ctrl-C would, and a second ends the process.

    `requested` tells whether there was one. Processes forked from this one are ended by the
    first. Outside the main thread, where signals cannot be caught, it changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._process = os.getpid()

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or os.getpid() != self._process:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self.requested = True
        interrupt = signal.getsignal(signal.SIGINT)
        if not callable(interrupt):  # a shell has what it starts with & ignore Ctrl-C
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)
