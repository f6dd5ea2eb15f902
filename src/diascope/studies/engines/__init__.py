"""Engines: one file a kind, each does the jobs of a study in its own way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from diascope.registry import Registry
from diascope.studies.jobs import Job, Outcome


class Engine(Protocol):
    """Does jobs, each after those that it needs, and gives their outcomes as they come.

    A job that fails is tried again `retries` times where the fault may pass, and the jobs that
    need it are left; all others go on. After `stop()` says so, no job is begun, and those under
    way are interrupted so that they can be resumed.
    """

    def run(
        self,
        jobs: Sequence[Job],
        store: Path,
        data: Path | None,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[Outcome]:
        """Do the jobs."""
        ...


ENGINES = Registry("engine", __name__)
