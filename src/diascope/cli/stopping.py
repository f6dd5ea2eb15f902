"""A request to end (SIGTERM) is an interrupt: of a batch system, a container, a shutdown."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import ClassVar


class Termination:
    """While entered, the first SIGTERM does what Ctrl-C would, and a second ends the process.

    `requested` tells whether there was one. Processes forked from this one are ended by the
    first. Outside the main thread, where signals cannot be caught, it changes nothing.
    """

    entered: ClassVar[list[Termination]] = []

    def __init__(self) -> None:
        self.requested = False
        self._process = os.getpid()

    def __enter__(self) -> Termination:
        self.entered.append(self)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self.entered.remove(self)
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


def insist() -> None:
    """Raise `KeyboardInterrupt` where an end was requested and its interrupt came to nothing.

    Python drops what is raised in a finaliser or in a callback of C code. To be called by work
    that an interrupt would have ended.
    """
    if any(each.requested for each in Termination.entered):
        raise KeyboardInterrupt
